//! Walking a partition from its first batch to its last without opening it: is every byte what was written?

mod indexes;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{BatchError, DecompressionBuffer, MarkerKind, RecordBatch};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{FileKind, Listing, Stage};
use crate::partition::marks::Marks;
use crate::record::{Offset, PartitionId, PartitionKey, ProducerId, TopicPartition};
use crate::recovery_point;
use crate::scanner::{BatchPlace, Density, ReadError, Scanner};
use crate::storage::{OpenMode, Storage, StorageFile};
use crate::topic::{directory_name, no_such_topic};

use indexes::{Aborted, HintsWalk, Untrue, check_aborted};

/// A place in a log where the bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Topic and partition.
    pub partition: TopicPartition,
    /// The offset at which a sound batch should begin.
    pub offset: Offset,
    /// The file.
    pub file: PathBuf,
    /// Where in the file that batch should begin.
    pub position: u64,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TopicPartition { topic, partition } = &self.partition;
        let (file, offset) = (self.file.display(), self.offset);
        write!(f, "topic {topic}, partition {partition}, offset {offset}: {file} ")?;
        write!(f, "is damaged at position {}: {}", self.position, self.reason)
    }
}

/// How a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// At the end of the last file.
    Complete,
    /// At bytes that were not synced: a crash tore them, or a writer is at it. Opening the partition to
    /// write cuts them off.
    TornTail(Damage),
    /// At bytes that were synced. Nothing behind them was looked at.
    Corrupt(Damage),
}

/// What a walk goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkRules {
    /// What is bad below is corrupt, what is bad at or above it torn. Without one only the last segment
    /// can be torn.
    pub recovery_point: Option<Offset>,
    /// Whether offsets may be missing, compaction having removed their records.
    pub has_gaps: bool,
    /// Whether it is known where the partition begins: one of a log of ours says so. Otherwise its first
    /// segment does.
    pub is_start_known: bool,
}

/// What a walk has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Files of batches.
    pub segments: usize,
    /// Batches, markers included.
    pub batches: u64,
    /// Records, markers not included.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Places where offsets are missing between two batches.
    pub gaps: u64,
    /// The largest id of a producer that wrote any; [`ProducerId::NONE`] without.
    pub largest_producer_id: ProducerId,
    /// The offset of the first record.
    pub start: Offset,
    /// The offset behind the last record seen.
    pub end: Offset,
    /// How it ended.
    pub ending: WalkEnd,
    /// The indexes that do not say what their segments do: of each the first entry that is not true, or where one is
    /// missing, and the record that it is about. No record is damaged by that. Only those are looked at that are synced
    /// as their segments are, and believed.
    pub indexes: Vec<Damage>,
}

/// Walks every batch of a partition, read-only: checksums, offsets, and every record in them, and compares the indexes of
/// sealed segments with them.
///
/// # Errors
/// Those of the operating system. Damage is no error but what the walk is for.
pub fn walk(
    storage: &dyn Storage,
    partition: &TopicPartition,
    directory: &Path,
    rules: WalkRules,
) -> Result<Walk> {
    let WalkRules { recovery_point, has_gaps, is_start_known } = rules;
    let marks = Marks::read_in(storage, directory)?;
    let recovery_point = recovery_point.max(Some(marks.synced()).filter(|synced| *synced > Offset(0)));
    let io = |error| Error::io(format!("{partition}: cannot read {}", directory.display()), error);
    let listing = Listing::read(storage, directory).map_err(io)?.begin_at(marks.start);
    let (segments, swapped) = take_swap(listing, &marks);
    let first = segments.first().copied().unwrap_or(Offset(0));
    let is_first_missing = is_start_known && first > marks.start;
    let start = if is_first_missing { marks.start } else { first };
    let mut walker = Walker {
        storage,
        partition,
        directory,
        swapped,
        density: if has_gaps { Density::Sparse } else { Density::SparseUpTo(marks.rewritten_end) },
        scratch: DecompressionBuffer::new(),
        walk: Walk {
            segments: 0,
            batches: 0,
            records: 0,
            bytes: 0,
            gaps: 0,
            largest_producer_id: ProducerId::NONE,
            start,
            end: start,
            ending: WalkEnd::Complete,
            indexes: Vec::new(),
        },
        place: BatchPlace { position: 0, offset: start },
        open: HashSet::new(),
        aborted: Vec::new(),
    };
    if is_first_missing {
        let reason = "it is the first one, and those before it are missing".to_owned();
        let bad = Bad { file: FileKind::Log.path(directory, first), place: walker.place, reason };
        walker.walk.ending = WalkEnd::Corrupt(walker.damage(bad));
        return Ok(walker.walk);
    }
    for (index, &base) in segments.iter().enumerate() {
        let next = segments.get(index + 1);
        // What a writer has of the last one may be in its memory only, and what a power cut has left of one that is not
        // synced is not believed. Nor are those of a broker.
        let is_believed = next.is_some_and(|next| recovery_point.is_some_and(|synced| *next < synced));
        let checks_indexes = is_believed && is_start_known && swapped != Some(base);
        if let Some(bad) = walker.walk_segment(base, checks_indexes).map_err(io)? {
            let is_torn = recovery_point.map_or(next.is_none(), |synced| bad.place.offset >= synced);
            let damage = walker.damage(bad);
            walker.walk.ending = if is_torn { WalkEnd::TornTail(damage) } else { WalkEnd::Corrupt(damage) };
            return Ok(walker.walk);
        }
    }
    if let Some(synced) = recovery_point.filter(|synced| walker.walk.end < *synced) {
        let reason = format!("the log ends here; offsets up to {synced} were synced");
        let file = FileKind::Log.path(directory, segments.last().copied().unwrap_or(start));
        let damage = walker.damage(Bad { file, place: walker.place, reason });
        walker.walk.ending = WalkEnd::Corrupt(damage);
    }
    Ok(walker.walk)
}

/// Walks every partition of the log in `directory`, or of one topic of it, in the order of topics and
/// partitions. Nothing is opened, locked or written: also a log that does not open any more is walked.
///
/// # Errors
/// `NotFound` if there is no log or no such topic; those of reading the catalogue and the recovery points.
pub fn walk_log(
    storage: &dyn Storage,
    directory: &Path,
    topic: Option<&str>,
) -> Result<Vec<(TopicPartition, Walk)>> {
    let catalogue = Catalogue::read(storage, directory)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no log in {}", directory.display()))
    })?;
    if let Some(name) = topic
        && !catalogue.topics.contains_key(name)
    {
        return Err(no_such_topic(name, catalogue.topics.keys().map(String::as_str)));
    }
    let recovery_points = recovery_point::read(storage, directory)?.points;
    let chosen = catalogue.topics.iter().filter(|(name, _)| topic.is_none_or(|topic| topic == *name));
    let mut walks = Vec::new();
    for (name, entry) in chosen {
        for partition in (0..entry.config.partitions).map(PartitionId) {
            let synced = recovery_points.get(&PartitionKey { topic: entry.id, partition }).copied();
            let within = directory.join(directory_name(name, partition));
            let partition = TopicPartition::new(name, partition);
            let rules =
                WalkRules { recovery_point: synced, has_gaps: entry.config.has_gaps, is_start_known: true };
            let walk = walk(storage, &partition, &within, rules)?;
            walks.push((partition, walk));
        }
    }
    Ok(walks)
}

/// The segments that there are, and the one whose log has another name still: it takes the place of others,
/// which may be there or not.
fn take_swap(listing: Listing, marks: &Marks) -> (Vec<Offset>, Option<Offset>) {
    let is_swapped = |base| listing.replacing.contains(&(base, Stage::Swap));
    let Some(range) = marks.replacement.filter(|range| is_swapped(range.base)) else {
        return (listing.segments, None);
    };
    let mut segments = listing.segments;
    segments.retain(|base| *base < range.base || *base >= range.end);
    segments.insert(segments.partition_point(|base| *base < range.base), range.base);
    (segments, Some(range.base))
}

struct Walker<'a> {
    storage: &'a dyn Storage,
    partition: &'a TopicPartition,
    directory: &'a Path,
    /// The segment whose log is to take the place of others.
    swapped: Option<Offset>,
    density: Density,
    scratch: DecompressionBuffer,
    walk: Walk,
    /// Where the next batch should begin, in the last file looked at.
    place: BatchPlace,
    /// Who has a transaction open that began among what was read.
    open: HashSet<ProducerId>,
    /// What was aborted in the segment that is read.
    aborted: Vec<Aborted>,
}

struct Bad {
    file: PathBuf,
    place: BatchPlace,
    reason: String,
}

impl Walker<'_> {
    fn walk_segment(&mut self, base: Offset, checks_indexes: bool) -> io::Result<Option<Bad>> {
        let file = match self.swapped {
            Some(swapped) if swapped == base => FileKind::Log.path_at(self.directory, base, Stage::Swap),
            _ => FileKind::Log.path(self.directory, base),
        };
        let start = BatchPlace { position: 0, offset: self.walk.end };
        if !self.density.allows(base, self.walk.end) {
            let reason = format!("offset {} should begin here", self.walk.end);
            return Ok(Some(Bad { file, place: start, reason }));
        }
        let log = self.storage.open(&file, OpenMode::Read)?;
        let bytes = log.len()?;
        self.walk.segments += 1;
        self.aborted.clear();
        let hints = || HintsWalk::begin(self.storage, self.directory, base);
        let mut hints = checks_indexes.then(hints).transpose()?;
        let mut scanner = Scanner::new(Arc::clone(&log), start, bytes, self.density);
        loop {
            self.place = scanner.place();
            let place = self.place;
            let error = match scanner.next() {
                Ok(None) => break,
                Ok(Some((position, batch))) => match self.count(&batch) {
                    Ok(()) => {
                        hints.as_mut().map_or(Ok(()), |hints| hints.visit(position, batch.header()))?;
                        continue;
                    }
                    Err(error) => error,
                },
                Err(ReadError::Bad { error, .. }) => error,
                Err(ReadError::Io(error)) => return Err(error),
            };
            return Ok(Some(Bad { file, place, reason: error.to_string() }));
        }
        hints.map_or(Ok(()), |hints| self.check_indexes(base, &*log, hints))?;
        Ok(None)
    }

    /// Reads every record of a batch.
    fn count(&mut self, batch: &RecordBatch<'_>) -> Result<(), BatchError> {
        let header = batch.header();
        batch.records(&mut self.scratch)?.try_for_each(|record| record.map(drop))?;
        self.walk.batches += 1;
        self.walk.records += if header.is_control { 0 } else { header.record_count as u64 };
        self.walk.bytes += header.length as u64;
        self.walk.gaps += u64::from(header.base_offset > self.walk.end);
        self.walk.largest_producer_id = header.producer_id.max(self.walk.largest_producer_id);
        self.walk.end = header.next_offset();
        if !header.is_control {
            self.open.extend(header.is_transactional.then_some(header.producer_id));
        } else if let Ok(control) = batch.control() {
            let has_records = self.open.remove(&header.producer_id);
            if control.kind == MarkerKind::Abort {
                let (producer_id, marker) = (header.producer_id, header.last_offset());
                self.aborted.push(Aborted { producer_id, marker, has_records });
            }
        }
        Ok(())
    }

    /// Notes what is not true of the indexes of the segment just read, whose file was `log`.
    fn check_indexes(&mut self, base: Offset, log: &dyn StorageFile, hints: HintsWalk) -> io::Result<()> {
        let aborted = check_aborted(self.storage, self.directory, base, &self.aborted)?;
        let untrue: Vec<_> = hints.end()?.chain(aborted).collect();
        if untrue.is_empty() || self.is_replaced(base, log)? {
            return Ok(());
        }
        for Untrue { kind, position, offset, reason } in untrue {
            let (file, place) = (kind.path(self.directory, base), BatchPlace { position, offset });
            let damage = self.damage(Bad { file, place, reason });
            self.walk.indexes.push(damage);
        }
        Ok(())
    }

    /// Whether the indexes may be those of another segment: a writer has put it in the place of `log` meanwhile, or is
    /// about to.
    fn is_replaced(&self, base: Offset, log: &dyn StorageFile) -> io::Result<bool> {
        if self.storage.exists(&FileKind::Log.path_at(self.directory, base, Stage::Swap))? {
            return Ok(true);
        }
        match self.storage.open(&FileKind::Log.path(self.directory, base), OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            opened => Ok(opened?.identity()? != log.identity()?),
        }
    }

    fn damage(&self, bad: Bad) -> Damage {
        let BatchPlace { position, offset } = bad.place;
        let partition = self.partition.clone();
        Damage { partition, offset, file: bad.file, position, reason: bad.reason }
    }
}
