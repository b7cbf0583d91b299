//! Cutting a damaged partition off where the damage begins, so that its log opens again.
//!
//! Nobody else may have the log open, and what is cut off is kept:
//!
//! 1. everything before the cut is read and checked, and what is behind it is looked through ([`survey`]);
//! 2. the file that is cut is copied from the cut on into a folder of its own beside the segments;
//! 3. the recovery point and the marks are lowered to the cut, durably: from here on what is missing behind
//!    it is a torn tail, no corruption;
//! 4. the later segments move into that folder, the last one first; the file is cut;
//! 5. the partition is recovered, and transactions that lost some of their records get an abort marker:
//!    whatever was decided of them, half of one is not shown.
//!
//! Ended before the last step, it leaves nothing that says which transactions are to be aborted: the same call
//! may be refused then, since nothing is left to cut, and opening the log ends them as they were decided.

mod survey;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LogOptions, holder};
use crate::batch::MarkerKind;
use crate::catalogue::Catalogue;
use crate::clean_shutdown::CleanShutdown;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{FileKind, Listing};
use crate::flusher::Flush;
use crate::open_files::OpenFiles;
use crate::partition::marks::Marks;
use crate::partition::{Partition, PartitionContext, PartitionSite, failed_sync, replace};
use crate::record::{Offset, PartitionId, ProducerEpoch, ProducerId, TopicPartition};
use crate::recovery::RecoveryBorder;
use crate::recovery_point::{self, RecoveryPointFile};
use crate::segment::Segment;
use crate::storage::{OpenMode, Storage, StorageFile, SyncPurpose};
use crate::topic::{directory_name, no_such_topic};

use survey::{Cut, Survey};

/// What the folder of what was cut off is called; the offset of the cut follows, and a number if there is
/// one already.
const KEPT_PREFIX: &str = "cut-at-";

/// How much is copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What is to be cut, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionId,
    /// The first offset that goes. The whole batch that holds it goes.
    pub truncate_at: Offset,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
}

/// What was cut off, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairReport {
    /// The partition.
    pub partition: TopicPartition,
    /// Where it was cut: the offset asked for, or that of the first record of the batch that holds it.
    pub cut_at: Offset,
    /// The file that was cut.
    pub file: PathBuf,
    /// Where in that file.
    pub position: u64,
    /// Files that went whole.
    pub segments: usize,
    /// Bytes that went.
    pub bytes: u64,
    /// Those of them that are no sound batch.
    pub damaged_bytes: u64,
    /// Sound batches that went, markers included.
    pub batches: u64,
    /// Records of those, markers not included.
    pub records: u64,
    /// The offset behind the last of those; none if there is none.
    pub lost_upto: Option<Offset>,
    /// The transactions that this touches.
    pub transactions: Vec<TouchedTransaction>,
    /// The folder in which all of it is kept; none if nothing was cut off, or only said.
    pub kept_in: Option<PathBuf>,
}

/// A transaction that has records or its marker behind the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchedTransaction {
    /// Whose it is.
    pub producer_id: ProducerId,
    /// Which one of that producer.
    pub producer_epoch: ProducerEpoch,
    /// What becomes of it.
    pub fate: TransactionFate,
}

/// What becomes of a transaction that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionFate {
    /// All of its records in this partition went.
    Lost,
    /// Some of its records went, or may have: it is aborted in this partition, whatever was decided.
    Aborted,
    /// Only its marker went, if anything: opening the log ends it as it was decided.
    Unmarked,
}

/// Carries out a repair on the log in `directory`.
pub(super) fn repair(directory: &Path, options: &LogOptions, repair: &Repair) -> Result<RepairReport> {
    let storage = &options.storage;
    read_catalogue(&**storage, directory)?;
    let _lock = holder::lock(&**storage, directory, &options.holder, options.clock.now())?;
    let site = site(directory, options, repair)?;
    let mut marks = Marks::read(&site)?;
    if !repair.dry_run {
        replace::recover(&site, &marks)?;
    }
    let stored = recovery_point::read(&**storage, directory)?.points;
    let survey = Survey::take(&site, &marks, repair.truncate_at)?;
    let synced = stored.get(&site.key()).copied().unwrap_or(Offset(0));
    if survey.is_empty() && synced <= survey.cut.offset {
        let (end, asked) = (survey.cut.offset, repair.truncate_at);
        let what = format!("the log ends at offset {end}: there is nothing to cut at {asked}");
        return Err(site.error(ErrorKind::Invalid, what));
    }
    check_failed_sync(&site, survey.cut.offset)?;
    let mut report = survey.report(&site);
    if repair.dry_run {
        return Ok(report);
    }
    report.kept_in =
        keep_copy(&site, &survey).map_err(|error| failed(&site, "copy what is cut off in", error))?;
    CleanShutdown::find(storage.clone(), directory)?.take_away()?;
    let mut points = stored;
    points.insert(site.key(), synced.min(survey.cut.offset));
    RecoveryPointFile::create(storage.clone(), directory, points, Arc::default())?;
    lower(&mut marks, survey.cut.offset);
    marks.write(&site)?;
    cut(&site, &survey, report.kept_in.as_deref()).map_err(|error| failed(&site, "cut", error))?;
    abort(site, &survey, &report)?;
    Ok(report)
}

/// Refuses a cut behind what a failed sync has left certain: the next to open the log cuts it there.
fn check_failed_sync(site: &PartitionSite, cut: Offset) -> Result<()> {
    let note =
        failed_sync::read(site).map_err(|error| failed(site, "read the note of a failed sync in", error))?;
    match note.and_then(|note| note.synced).filter(|synced| *synced < cut) {
        None => Ok(()),
        Some(synced) => {
            let what =
                format!("a sync has failed, and only what lies before offset {synced} is certain: cut there");
            Err(site.error(ErrorKind::Invalid, what))
        }
    }
}

fn read_catalogue(storage: &dyn Storage, directory: &Path) -> Result<Catalogue> {
    Catalogue::read(storage, directory)?
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no log in {}", directory.display())))
}

fn site(directory: &Path, options: &LogOptions, repair: &Repair) -> Result<PartitionSite> {
    let Repair { topic, partition, .. } = repair;
    let catalogue = read_catalogue(&*options.storage, directory)?;
    let Some(entry) = catalogue.topics.get(topic) else {
        return Err(no_such_topic(topic, catalogue.topics.keys().map(String::as_str)));
    };
    if !(0..entry.config.partitions).contains(&partition.0) {
        let last = entry.config.partitions - 1;
        let what = format!("topic {topic} has no partition {partition}; it has 0 to {last}");
        return Err(Error::new(ErrorKind::NotFound, what));
    }
    Ok(PartitionSite::new(
        TopicPartition::new(topic.as_str(), *partition),
        entry.id,
        directory.join(directory_name(topic, *partition)),
        entry.config.partition_config(options.durability),
        PartitionContext {
            producer_expiration: options.producer_expiration,
            open_files: Arc::new(OpenFiles::new(options.open_files_max)),
            ..PartitionContext::new(options.storage.clone(), options.clock.clone())
        },
    ))
}

fn failed(site: &PartitionSite, doing: &str, error: io::Error) -> Error {
    site.io(doing, &site.directory, error)
}

/// Nothing is said any more of what lies behind the cut.
fn lower(marks: &mut Marks, cut: Offset) {
    marks.generation += 1;
    marks.start = marks.start.min(cut);
    marks.clean_end = marks.clean_end.min(cut);
    marks.rewritten_end = marks.rewritten_end.min(cut);
    marks.replacement = None;
}

/// Makes the folder for what is cut off, and copies into it what is cut off the end of a file. Returns its
/// path, if there is anything to keep.
fn keep_copy(site: &PartitionSite, survey: &Survey) -> io::Result<Option<PathBuf>> {
    if survey.is_empty() {
        return Ok(None);
    }
    let storage = &**site.storage();
    let folder = free_folder(site, survey.cut.offset)?;
    storage.create_dir_all(&folder)?;
    if survey.tail_bytes > 0 {
        let source = storage.open(&survey.cut.file(site), OpenMode::Read)?;
        let copy = storage.open(&FileKind::Log.path(&folder, survey.cut.offset), OpenMode::Create)?;
        copy_from(&*source, survey.cut.position, &*copy)?;
        copy.sync(SyncPurpose::Recovered).wait()?;
    }
    storage.sync_dir(&folder, SyncPurpose::Recovered)?;
    storage.sync_dir(&site.directory, SyncPurpose::Recovered)?;
    Ok(Some(folder))
}

fn free_folder(site: &PartitionSite, cut: Offset) -> io::Result<PathBuf> {
    let name = format!("{KEPT_PREFIX}{:020}", cut.0);
    let mut folder = site.directory.join(&name);
    let mut number = 1;
    while site.storage().exists(&folder)? {
        number += 1;
        folder = site.directory.join(format!("{name}-{number}"));
    }
    Ok(folder)
}

fn copy_from(source: &dyn StorageFile, position: u64, copy: &dyn StorageFile) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let read = source.read_at(position + copied, &mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        copy.write_at(copied, &chunk[..read])?;
        copied += read as u64;
    }
}

/// Moves the later segments away, the last one first, and cuts the file.
fn cut(site: &PartitionSite, survey: &Survey, folder: Option<&Path>) -> io::Result<()> {
    let storage = &**site.storage();
    for &base in survey.beyond.iter().rev() {
        let Some(folder) = folder else { break };
        let path = FileKind::Log.path(&site.directory, base);
        storage.open(&path, OpenMode::Write)?.sync(SyncPurpose::Recovered).wait()?;
        storage.rename(&path, &FileKind::Log.path(folder, base))?;
        storage.sync_dir(folder, SyncPurpose::Recovered)?;
        storage.sync_dir(&site.directory, SyncPurpose::Recovered)?;
    }
    let Cut { base, position, .. } = survey.cut;
    match storage.open(&FileKind::Log.path(&site.directory, base), OpenMode::Write) {
        Ok(file) => {
            file.truncate(position)?;
            file.sync(SyncPurpose::Recovered).wait()
        }
        // All of it is missing from its start on.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Segment::create(site, base)?;
            storage.sync_dir(&site.directory, SyncPurpose::Recovered)
        }
        Err(error) => Err(error),
    }
}

/// Recovers the partition, and aborts the transactions that lost records.
fn abort(site: PartitionSite, survey: &Survey, report: &RepairReport) -> Result<()> {
    let border = RecoveryBorder { recovery_point: Some(survey.cut.offset), clean_shutdown: false };
    let (partition, _) = Partition::open(site, &border)?;
    for transaction in &report.transactions {
        if transaction.fate == TransactionFate::Aborted {
            let (id, epoch) = (transaction.producer_id, transaction.producer_epoch);
            partition.append_marker(MarkerKind::Abort, id, epoch, 0)?;
        }
    }
    partition.close()?;
    debug_assert_eq!(partition.durable(), partition.offsets().end, "closing makes everything durable");
    Ok(())
}

/// The segments of a partition, those that lie before its start left out.
fn segments(site: &PartitionSite, marks: &Marks) -> Result<Vec<Offset>> {
    let listing = Listing::read(&**site.storage(), &site.directory);
    let listing = listing.map_err(|error| failed(site, "list", error))?;
    Ok(listing.begin_at(marks.start).segments)
}
