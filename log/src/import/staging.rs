//! Copies of a broker's partitions in the making: beside the topics of the log, under names that belong to
//! none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ImportedPartition;
use super::broker_directory::{BrokerDirectory, BrokerPartition, BrokerTopic};
use super::decisions::Decisions;
use crate::batch::MarkerKind;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{FileKind, Listing};
use crate::log::{Adoption, Log};
use crate::partition::marks::Marks;
use crate::partition::{Partition, PartitionContext, PartitionSite, write_metadata};
use crate::record::{Offset, PartitionId, ProducerId};
use crate::recovery::RecoveryBorder;
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::topic::TopicConfig;
use crate::verify::{Damage, Walk, WalkEnd, WalkRules, walk};

/// What a directory's name ends in while a partition is being imported. The topic's id stands before it.
const STAGING_SUFFIX: &str = "-import";

/// What is appended to the name of a file that is not copied whole yet.
const PART_SUFFIX: &str = ".part";

/// How much is copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A topic of which every partition is copied, recovered and synced.
pub(super) struct StagedTopic<'a> {
    topic: &'a BrokerTopic,
    config: TopicConfig,
    partitions: Vec<StagedPartition>,
}

/// A partition that is copied, recovered and synced.
pub(super) struct StagedPartition {
    pub(super) partition: Arc<Partition>,
    pub(super) directory: PathBuf,
    walk: Walk,
    torn: Option<Damage>,
    ended: Vec<(ProducerId, MarkerKind)>,
}

impl<'a> StagedTopic<'a> {
    pub(super) fn stage(
        log: &Log,
        broker: &BrokerDirectory,
        topic: &'a BrokerTopic,
        decisions: &mut Decisions<'_>,
    ) -> Result<Self> {
        broker.check_whole(topic)?;
        let config = broker.config(topic);
        let mut partitions = Vec::new();
        for source in broker.partitions(topic) {
            let mut staged = StagedPartition::stage(log, &source, topic, &config)?;
            staged.end_transactions(log, decisions)?;
            partitions.push(staged);
        }
        let has_gaps = partitions.iter().any(|partition| partition.walk.gaps > 0);
        Ok(Self { topic, config: TopicConfig { has_gaps, ..config }, partitions })
    }

    /// Makes it a topic of the log.
    pub(super) fn adopt(self, log: &Log) -> Result<Vec<ImportedPartition>> {
        let largest = self.partitions.iter().map(|partition| partition.walk.largest_producer_id).max();
        let mut imported = Vec::new();
        let mut directories = Vec::new();
        for (index, staged) in self.partitions.into_iter().enumerate() {
            staged.partition.close()?;
            directories.push(staged.directory.clone());
            imported.push(staged.report(PartitionId(index as i32)));
        }
        log.adopt_topic(Adoption {
            name: &self.topic.name,
            id: self.topic.id,
            config: self.config,
            directories: &directories,
            ends: imported.iter().map(|partition| partition.end).collect(),
            producer_ids_end: largest.map_or(0, |largest| largest.0 + 1),
        })?;
        Ok(imported)
    }
}

impl StagedPartition {
    /// Checks, copies and recovers a partition. What an earlier attempt has copied whole is taken as it is:
    /// recovering reads every batch of it.
    pub(super) fn stage(
        log: &Log,
        source: &BrokerPartition,
        topic: &BrokerTopic,
        config: &TopicConfig,
    ) -> Result<Self> {
        let storage = log.storage();
        let walk = check(&**storage, source)?;
        let directory =
            log.directory().join(format!("{}.{}{STAGING_SUFFIX}", topic.id, source.name.partition));
        let mut config = config.partition_config(log.durability());
        config.has_gaps = true;
        let context = PartitionContext::new(storage.clone(), log.clock().clone());
        let site = PartitionSite::new(source.name.clone(), topic.id, directory.clone(), config, context);
        let start = source.start.unwrap_or(walk.start).max(walk.start);
        let failed = |error| Error::io(format!("cannot copy {}", source.directory.display()), error);
        copy_partition(&**storage, source, &directory, &walk, start).map_err(failed)?;
        write_metadata(&site)?;
        if start > Offset(0) {
            Marks { start, ..Marks::default() }.write(&site)?;
        }
        let border = RecoveryBorder { recovery_point: Some(walk.end), clean_shutdown: false };
        let (partition, report) = Partition::open(site, &border)?;
        if report.end != walk.end {
            let what = format!("{} ends at {}, its copy at {}", source.name, walk.end, report.end);
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        let torn = match &walk.ending {
            WalkEnd::TornTail(damage) => Some(damage.clone()),
            _ => None,
        };
        Ok(Self { partition, directory, walk, torn, ended: Vec::new() })
    }

    /// Ends the transactions that are open, as was decided of them.
    pub(super) fn end_transactions(&mut self, log: &Log, decisions: &mut Decisions<'_>) -> Result<()> {
        for open in self.partition.open_transactions() {
            let kind = decisions.on(log, self.partition.name(), open.producer_id)?;
            self.partition.append_marker(kind, open.producer_id, open.producer_epoch, 0)?;
            self.ended.push((open.producer_id, kind));
        }
        Ok(())
    }

    fn report(self, partition: PartitionId) -> ImportedPartition {
        ImportedPartition {
            partition,
            start: self.partition.offsets().start,
            end: self.partition.offsets().end,
            segments: self.walk.segments,
            records: self.walk.records,
            bytes: self.walk.bytes,
            gaps: self.walk.gaps,
            torn: self.torn,
            ended_transactions: self.ended,
        }
    }
}

/// Reads all of a broker's partition, and compares it with what the broker says.
fn check(storage: &dyn Storage, source: &BrokerPartition) -> Result<Walk> {
    source.check_settled(storage)?;
    let rules = WalkRules { recovery_point: source.recovery_point, has_gaps: true, is_start_known: false };
    let walk = walk(storage, &source.name, &source.directory, rules)?;
    let directory = source.directory.display();
    if walk.segments == 0 {
        let what = format!("{directory} holds no segment");
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    if let WalkEnd::Corrupt(damage) = &walk.ending {
        return Err(Error::new(ErrorKind::Corrupt, damage.to_string()));
    }
    if let Some(shown) = source.high_watermark.filter(|shown| *shown > walk.end) {
        let what = format!(
            "{directory}: the log ends at offset {}, and the broker had shown records up to {shown}",
            walk.end
        );
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    if let Some(start) = source.start.filter(|start| *start > walk.end) {
        let what = format!("{directory}: the log ends at offset {}, before its start {start}", walk.end);
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    Ok(walk)
}

/// Copies the segments from the one that holds `start` on, and the snapshot of its producers. Their names are durable
/// once the directory is synced.
fn copy_partition(
    storage: &dyn Storage,
    source: &BrokerPartition,
    to: &Path,
    walk: &Walk,
    start: Offset,
) -> io::Result<()> {
    storage.create_dir_all(to)?;
    let listing = Listing::read(storage, &source.directory)?;
    let first = listing.segments.partition_point(|base| *base <= start).saturating_sub(1);
    let cut = match &walk.ending {
        WalkEnd::TornTail(damage) => Some((damage.file.as_path(), damage.position)),
        _ => None,
    };
    for &base in &listing.segments[first..] {
        let path = FileKind::Log.path(&source.directory, base);
        let is_cut = cut.filter(|(file, _)| *file == path);
        let is_beside = base == listing.segments[first];
        if is_beside || is_cut.is_none_or(|(_, position)| position > 0) {
            copy_file(storage, &path, &FileKind::Log.path(to, base), is_cut.map(|(_, position)| position))?;
        }
        if is_cut.is_some() {
            break;
        }
    }
    // What producers wrote in segments that are gone is known from it alone.
    let snapshot = FileKind::Snapshot.path(&source.directory, listing.segments[first]);
    if storage.exists(&snapshot)? {
        copy_file(storage, &snapshot, &FileKind::Snapshot.path(to, listing.segments[first]), None)?;
    }
    Ok(())
}

/// Copies a file, or so many bytes of it, and syncs the copy; does nothing where one is that was copied whole.
fn copy_file(storage: &dyn Storage, from: &Path, to: &Path, bytes_max: Option<u64>) -> io::Result<()> {
    let source = storage.open(from, OpenMode::Read)?;
    let length = bytes_max.unwrap_or(source.len()?);
    if storage.exists(to)? {
        if storage.open(to, OpenMode::Read)?.len()? == length {
            return Ok(());
        }
        storage.remove_file(to)?;
    }
    let mut part = to.as_os_str().to_owned();
    part.push(PART_SUFFIX);
    let part = PathBuf::from(part);
    if storage.exists(&part)? {
        storage.remove_file(&part)?;
    }
    let copy = storage.open(&part, OpenMode::Create)?;
    let mut chunk = vec![0; CHUNK_BYTES.min(length as usize)];
    let mut copied = 0;
    while copied < length {
        let wanted = chunk.len().min((length - copied) as usize);
        let read = source.read_at(copied, &mut chunk[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a file became shorter while it was copied",
            ));
        }
        copy.write_at(copied, &chunk[..read])?;
        copied += read as u64;
    }
    copy.sync(SyncPurpose::Recovered).wait()?;
    storage.rename(&part, to)
}
