//! Cutting a damaged partition off where the damage begins, so that its log opens again.
//!
//! Nobody else may have the log open, and what is cut off is kept:
//!
//! 1. everything before the cut is read and checked, and what is behind it is looked through ([`survey`]);
//! 2. the file that is cut is copied: from the cut on into a folder of its own beside the segments, and up to the
//!    cut beside itself. Where there is no room for that, the partition is as it was;
//! 3. a note of the cut is made durable ([`note`]): from here on it is decided, and whoever repairs or opens
//!    the log next goes on with it, wherever it was cut short ([`carry_out`]);
//! 4. the recovery point and the marks are lowered to the cut: what is missing behind it is a torn tail from
//!    here on, no corruption. The marks say that the partition is being cut: nobody reads it until they say
//!    that it is done;
//! 5. the later segments move into that folder, the last one first; the copy that ends where it is cut takes the
//!    place of the file; the marks say that it is done, and the partition is recovered.
//!
//! Opening the log then ends the transactions that were cut, as the note says. One that lost some of its
//! records is aborted here: whatever was decided, half of it is not shown. One that lost its marker alone
//! gets it again, though the log may remember no more how it was decided. Where there was a power cut, or a
//! sync of the partition has failed, opening the log takes all of it back to the last consistent cut, as it
//! would have without the repair: what lies behind the recovery point says nothing of a transaction then.

mod carry_out;
#[cfg(test)]
pub(crate) mod doubt_tests;
#[cfg(test)]
pub(crate) mod lost_note_tests;
mod note;
#[cfg(test)]
mod reader_tests;
mod survey;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod transaction_tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::read_catalogue;
use super::{LogOptions, holder, retreat};
use crate::batch::MarkerKind;
use crate::catalogue::CatalogueEntry;
use crate::clean_shutdown::CleanShutdown;
use crate::consistent_cut::FoundMark;
use crate::error::{Error, ErrorKind, Result};
use crate::open_files::OpenFiles;
use crate::partition::marks::{CutBy, Marks};
use crate::partition::{PartitionContext, PartitionSite, failed_sync, replace};
use crate::producer_state::OpenTransaction;
use crate::record::{Offset, PartitionId, ProducerEpoch, ProducerId, TopicPartition};
use crate::recovery_point::{self, RecoveryPointFile};
use crate::topic::{directory_name, no_such_topic};
use crate::transaction::Endings;
use crate::unsynced_files::UnsyncedFiles;

use carry_out::{Copies, carry_out};
use note::{CutNote, Noted, Stage};
use survey::{Doubt, Known, Survey};

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
    /// Some of its records went, or may have: opening the log aborts it in this partition, whatever was
    /// decided. What is bad and was not known to be synced is no record any more if the machine goes down
    /// first.
    Aborted,
    /// Only its marker went, which was sound: opening the log writes it again. Not if nobody had synced it
    /// and the machine goes down first: then it ends as is decided in what is left.
    MarkedAgain(MarkerKind),
    /// Only its marker went, if anything, and what it said is not known: opening the log ends it as it was
    /// decided.
    Unmarked,
}

impl OpenTransaction {
    fn touched(&self, fate: TransactionFate) -> TouchedTransaction {
        TouchedTransaction { producer_id: self.producer_id, producer_epoch: self.producer_epoch, fate }
    }
}

/// Carries out a repair on the log in `directory`.
pub(super) fn repair(directory: &Path, options: &LogOptions, repair: &Repair) -> Result<RepairReport> {
    let storage = &options.storage;
    read_catalogue(&**storage, directory)?;
    let _lock = holder::lock(&**storage, directory, &options.holder, options.clock.now())?;
    let mut site = site(directory, options, repair)?;
    if is_note_lost(&site)? {
        if repair.dry_run {
            let what =
                format!("a cut is under way, says {}: open the log first", Marks::path(&site).display());
            return Err(site.error(ErrorKind::Retry, what));
        }
        CleanShutdown::find(storage.clone(), directory)?.take_away()?;
        make_lost_note(directory, &site, self::site(directory, options, repair)?)?;
    }
    if let Some(note) = unfinished(&site)? {
        if repair.dry_run {
            let offset = note.cut.offset;
            let what = format!("a cut at offset {offset} is under way: repeat it, or open the log, first");
            return Err(site.error(ErrorKind::Retry, what));
        }
        let asked = note.asked;
        let report = finish(directory, site, note)?;
        if asked == repair.truncate_at {
            return Ok(report);
        }
        site = self::site(directory, options, repair)?;
    }
    let before = CutNote::read(&site)?;
    let marks = Marks::read(&site)?;
    if !repair.dry_run {
        replace::recover(&site, &marks)?;
    }
    let stored = recovery_point::read(&**storage, directory)?.points;
    let point = stored.get(&site.key()).copied().unwrap_or(Offset(0));
    let (doubt, goes_back) = doubt(directory, options, &site)?;
    let known = Known { before: before.as_ref(), synced: point.max(marks.synced()), doubt };
    let survey = Survey::take(&site, &marks, repair.truncate_at, known)?;
    if survey.is_idle() {
        let (end, asked) = (survey.cut.offset, repair.truncate_at);
        let what = format!("the log ends at offset {end}: there is nothing to cut at {asked}");
        return Err(site.error(ErrorKind::Invalid, what));
    }
    check_failed_sync(&site, survey.cut.offset, known.synced)?;
    let settled = |noted: Noted| if goes_back { noted.settled(true) } else { noted };
    let transactions: Vec<_> = survey.transactions().into_iter().map(settled).collect();
    let report = survey.report(&site, &transactions);
    if repair.dry_run {
        return Ok(report);
    }
    CleanShutdown::find(storage.clone(), directory)?.take_away()?;
    // What the note goes by may be in the page cache only, and a power cut take it: the points, all before
    // which is synced, and that there is no mark.
    RecoveryPointFile::create(storage.clone(), directory, stored, Arc::default())?;
    let copies =
        Copies::write(&site, &survey).map_err(|error| failed(&site, "copy what a cut takes from", error))?;
    let (stage, asked, folder) = (Stage::ToBeCut, repair.truncate_at, copies.folder());
    let note = CutNote { stage, asked, cut: survey.cut, folder, transactions };
    if let Err(error) = note.write(&site) {
        // Where nobody can tell what there is, it may be decided.
        if CutNote::read(&site).is_ok_and(|found| found == before) {
            copies.discard();
        }
        return Err(error);
    }
    let kept_in = note.folder(&site);
    carry_out(directory, &site, note, Some(copies))?;
    recover(directory, site, survey.cut.offset)?;
    Ok(RepairReport { kept_in, ..report })
}

/// What counts no more in a partition if the log goes back when it is opened, if it may; whether it is known
/// already that it will.
fn doubt(directory: &Path, options: &LogOptions, site: &PartitionSite) -> Result<(Option<Doubt>, bool)> {
    let storage = &options.storage;
    let is_clean = CleanShutdown::find(storage.clone(), directory)?.is_whole();
    let found = FoundMark::find(&**storage, directory)?.filter(|_| !is_clean);
    let Some(unsynced) = found else { return Ok((None, false)) };
    let catalogue = read_catalogue(&**storage, directory)?;
    let is_synced = |entry: &CatalogueEntry| retreat::is_synced(&entry.config, unsynced);
    let believes_markers = catalogue.topics.get(&*site.name.topic).is_some_and(is_synced);
    let site_of = |name: &str, entry: &CatalogueEntry, partition| {
        site_of(directory, options, TopicPartition::new(name, partition), entry)
    };
    let loss = retreat::find_loss(&catalogue, unsynced, site_of)?;
    Ok((Some(Doubt { believes_markers }), loss.is_some()))
}

/// The note of a cut that was cut short, if there is one.
fn unfinished(site: &PartitionSite) -> Result<Option<CutNote>> {
    let Some(note) = CutNote::read(site)? else { return Ok(None) };
    let is_unfinished = note.stage == Stage::ToBeCut || Marks::read(site)?.being_cut == Some(CutBy::Repair);
    Ok(Some(note).filter(|_| is_unfinished))
}

/// Carries a cut out that was decided and cut short, if there is one, in the partition that `site` makes a
/// site of. Says how transactions that were cut end, if there is a note of them; that is to be removed once
/// they have, and is to be [settled](settle) before anything is made of them. In a log that `goes_back` it
/// is.
pub(super) fn resume(
    directory: &Path,
    site: impl Fn() -> PartitionSite,
    goes_back: bool,
) -> Result<Option<(PartitionSite, Endings)>> {
    let here = site();
    if is_note_lost(&here)? {
        make_lost_note(directory, &here, site())?;
    }
    let endings = carry_on(directory, &here, goes_back)?;
    Ok(endings.map(|endings| (here, endings)))
}

fn carry_on(directory: &Path, site: &PartitionSite, goes_back: bool) -> Result<Option<Endings>> {
    let Some(mut note) = CutNote::read(site)? else { return Ok(None) };
    if goes_back {
        note.settle(site, true)?;
    }
    let endings = note.endings();
    if note.stage == Stage::ToBeCut {
        tracing::warn!(partition = %site.name, offset = %note.cut.offset, "a repair was cut short and is finished");
    }
    carry_out(directory, site, note, None)?;
    Ok(Some(endings))
}

/// Whether a repair was cut short and somebody has removed its note since.
fn is_note_lost(site: &PartitionSite) -> Result<bool> {
    Ok(Marks::read(site)?.being_cut == Some(CutBy::Repair) && CutNote::read(site)?.is_none())
}

/// Makes the note of a cut again that somebody has removed before the cut was done. The log is whole as far
/// as it goes, since segments were being moved away from its end on: it ends where it does by now. Which
/// transactions have lost records nobody knows any more, so all that are open there count as halved. `again`
/// is another site of the partition.
fn make_lost_note(directory: &Path, site: &PartitionSite, again: PartitionSite) -> Result<()> {
    let points = recovery_point::read(&**site.storage(), directory)?.points;
    retreat::keep_loss(directory, &read_catalogue(&**site.storage(), directory)?, site)?;
    let partition = carry_out::recover(again, points.get(&site.key()).copied())?;
    let end = partition.offsets().end;
    let note = CutNote::of_lost(site, end, &partition.open_transactions())?;
    let path = CutNote::path(site);
    tracing::warn!(partition = %site.name, %end, note = %path.display(), aborted = note.transactions.len(), "the note of a repair that was cut short is gone: transactions that are open where the log ends are aborted");
    note.write(site)?;
    Marks::read(site)?.end_cut(site, CutBy::Repair)
}

/// The log has not gone back, and will not any more: how transactions end is not in doubt.
pub(super) fn settle(site: &PartitionSite) -> Result<()> {
    CutNote::read(site)?.map_or(Ok(()), |mut note| note.settle(site, false))
}

/// Removes the note of a cut, durably.
pub(super) fn forget(site: &PartitionSite) -> Result<()> {
    CutNote::remove(site)
}

/// Goes on with a cut that was decided, and reports it.
fn finish(directory: &Path, site: PartitionSite, note: CutNote) -> Result<RepairReport> {
    carry_out(directory, &site, note.clone(), None)?;
    let report = survey::report_again(&site, &note)?;
    recover(directory, site, note.cut.offset)?;
    Ok(report)
}

/// Recovers a partition that is cut. It alone: what stands on it is left to whoever opens the log.
fn recover(directory: &Path, site: PartitionSite, cut: Offset) -> Result<()> {
    retreat::keep_loss(directory, &read_catalogue(&**site.storage(), directory)?, &site)?;
    carry_out::recover(site, Some(cut)).map(drop)
}

/// Refuses a cut behind what a failed sync has left certain: the next to open the log cuts it there. What
/// lies before `synced` is certain, whatever the note says.
fn check_failed_sync(site: &PartitionSite, cut: Offset, synced: Offset) -> Result<()> {
    let note =
        failed_sync::read(site).map_err(|error| failed(site, "read the note of a failed sync in", error))?;
    match note.and_then(|note| note.certain(synced)).filter(|certain| *certain < cut) {
        None => Ok(()),
        Some(certain) => {
            let what = format!(
                "a sync has failed, and only what lies before offset {certain} is certain: cut there"
            );
            Err(site.error(ErrorKind::Invalid, what))
        }
    }
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
    Ok(site_of(directory, options, TopicPartition::new(topic.as_str(), *partition), entry))
}

fn site_of(
    directory: &Path,
    options: &LogOptions,
    name: TopicPartition,
    entry: &CatalogueEntry,
) -> PartitionSite {
    let place = directory.join(directory_name(&name.topic, name.partition));
    let config = entry.config.partition_config(options.durability);
    let context = PartitionContext {
        producer_expiration: options.producer_expiration,
        open_files: Arc::new(OpenFiles::new(options.open_files_max)),
        unsynced_files: Arc::new(UnsyncedFiles::new(options.unsynced_files_max)),
        ..PartitionContext::new(options.storage.clone(), options.clock.clone())
    };
    PartitionSite::new(name, entry.id, place, config, context)
}

fn failed(site: &PartitionSite, doing: &str, error: std::io::Error) -> Error {
    site.io(doing, &site.directory, error)
}
