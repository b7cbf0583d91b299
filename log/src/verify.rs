//! Walking a partition from its first batch to its last without opening it: is every byte what was written?

mod indexes;
mod names;
mod walker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Offset, PartitionId, PartitionKey, ProducerId, TopicId, TopicPartition};
use crate::recovery_point;
use crate::scanner::Density;
use crate::storage::Storage;
use crate::topic::{directory_name, no_such_topic};

use names::Names;
use walker::Walker;

/// How often a partition is walked because its writer was removing or replacing segments meanwhile.
const WALKS_MAX: usize = 8;

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
    /// The indexes that do not say what their segments do, or hold less than was noted of them: of each the first entry
    /// that is not true, or where one is missing, and the record that it is about; files that are gone, that of the note
    /// too. No record is damaged by that. Only those are looked at that are synced as their segments are, and believed.
    pub indexes: Vec<Damage>,
}

impl Walk {
    /// Whether nothing is wrong, be it a torn tail or an index.
    fn is_sound(&self) -> bool {
        self.ending == WalkEnd::Complete && self.indexes.is_empty()
    }
}

/// Walks every batch of a partition, read-only: checksums, offsets, and every record in them, and compares the indexes of
/// sealed segments with them. A writer may be at it meanwhile: what it has removed or replaced is not missing, and the
/// partition is walked again where that was in the way.
///
/// # Errors
/// Those of the operating system; [`ErrorKind::Retry`] if segments are removed or replaced faster than they are walked.
/// Damage is no error but what the walk is for.
pub fn walk(
    storage: &dyn Storage,
    partition: &TopicPartition,
    directory: &Path,
    rules: WalkRules,
) -> Result<Walk> {
    let mut seen_before = None;
    for _ in 0..WALKS_MAX {
        let names = Names::read(storage, partition, directory)?;
        let walked = walk_once(storage, partition, directory, rules, &names);
        let ending = walked.as_ref().ok().map(|walk| walk.ending.clone());
        // What is met a second time at the same place is there, though others change meanwhile.
        let is_certain = ending == Some(WalkEnd::Complete) || (ending.is_some() && ending == seen_before);
        if is_certain || !names.have_changed(&Names::read(storage, partition, directory)?) {
            return walked;
        }
        seen_before = ending;
    }
    let what =
        format!("{partition}: its segments are removed or replaced faster than they are read: try again");
    Err(Error::new(ErrorKind::Retry, what))
}

fn walk_once(
    storage: &dyn Storage,
    partition: &TopicPartition,
    directory: &Path,
    rules: WalkRules,
    names: &Names,
) -> Result<Walk> {
    let WalkRules { recovery_point, has_gaps, is_start_known } = rules;
    let Names { marks, segments, swapped } = names;
    let recovery_point = recovery_point.max(Some(marks.synced()).filter(|synced| *synced > Offset(0)));
    let first = segments.first().copied().unwrap_or(Offset(0));
    let is_first_missing = is_start_known && first > marks.start;
    let start = if is_first_missing { marks.start } else { first };
    let density = if has_gaps { Density::Sparse } else { Density::SparseUpTo(marks.rewritten_end) };
    let mut walker = Walker::new(storage, partition, directory, density, start);
    if is_first_missing {
        let reason = "it is the first one, and those before it are missing";
        let damage = walker.damage(names.log(directory, first), reason);
        return Ok(walker.finish(WalkEnd::Corrupt(damage)));
    }
    for (index, &base) in segments.iter().enumerate() {
        let next = segments.get(index + 1).copied();
        // What a writer has of the last one may be in its memory only, and what a power cut has left of one that is not
        // synced is not believed. Nor are those of a broker.
        let is_believed = |next: &Offset| recovery_point.is_some_and(|synced| *next < synced);
        let checks_indexes = is_start_known && *swapped != Some(base);
        let end = next.filter(is_believed).filter(|_| checks_indexes);
        if let Some(damage) = walker.walk_segment(base, names.log(directory, base), end)? {
            let is_torn = recovery_point.map_or(next.is_none(), |synced| damage.offset >= synced);
            let ending = if is_torn { WalkEnd::TornTail(damage) } else { WalkEnd::Corrupt(damage) };
            return Ok(walker.finish(ending));
        }
    }
    let missing = recovery_point.filter(|synced| walker.end() < *synced).map(|synced| {
        let reason = format!("the log ends here; offsets up to {synced} were synced");
        walker.damage(names.log(directory, segments.last().copied().unwrap_or(start)), reason)
    });
    Ok(walker.finish(missing.map_or(WalkEnd::Complete, WalkEnd::Corrupt)))
}

/// Walks every partition of the log in `directory`, or of one topic of it, in the order of topics and
/// partitions. Nothing is opened, locked or written: also a log that does not open any more is walked. Topics that are
/// deleted meanwhile may be left out.
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
            let walked = walk(storage, &partition, &within, rules);
            // What was found of a topic that was deleted meanwhile is not wrong, and may be of another one by its name.
            if walked.as_ref().is_ok_and(Walk::is_sound) || is_catalogued(storage, directory, name, entry.id)?
            {
                walks.push((partition, walked?));
            }
        }
    }
    Ok(walks)
}

fn is_catalogued(storage: &dyn Storage, directory: &Path, name: &str, id: TopicId) -> Result<bool> {
    let catalogue = Catalogue::read(storage, directory)?;
    let entry = catalogue.as_ref().and_then(|catalogue| catalogue.topics.get(name));
    Ok(entry.is_some_and(|entry| entry.id == id))
}
