//! The epoch record: what a processor knows of its last committed epoch, and all it needs to go on.
//!
//! It is the last record of the epoch's transaction, alone in topic `<flow>-epochs` (one partition), with a
//! null key and this JSON as its value (`version` 1):
//!
//! ```json
//! { "version": 1,
//!   "epoch": 7,
//!   "fingerprint": "5f0c…",
//!   "splits": [ { "source": "flights", "split": "flights-0",
//!                 "position": { "topic": { "topic": "flights", "topic_id": "…", "partition": 0, "offset": 812 } },
//!                 "event_time_max": 1357034400000, "timeless_end": null } ],
//!   "ends": [ { "topic": "delays", "topic_id": "…", "partition": 0, "offset": 40 } ],
//!   "topics": [ { "topic": "delays", "topic_id": "…" }, … ],
//!   "disorder_ms": { "flights": 1800000 } }
//! ```
//!
//! `ends` says how far the transaction reached in every partition it wrote, this topic's own left out
//! (the record is the last thing there); `topics` names all that the flow reads or writes, so that one made
//! again is noticed also where the last epoch had nothing to do with it. Recovery checks the log against
//! both. `disorder_ms` says how far behind the watermark of each source stays; a record that does not (older
//! programs wrote none) holds no source to it. A split that has rejected something says so (`"skipped"`,
//! `"dead_lettered"`, each a number).

use std::collections::{BTreeMap, HashMap};

use lotic_log::batch::DecompressionBuffer;
use lotic_log::{CommittedBatches, Offset, PartitionId};
use serde::{Deserialize, Serialize};

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, Fetched, PartitionKey, TopicHandle, TopicSpec};
use crate::source::{Position, SourceSplit, SplitState};

/// The version of the form that this program writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// How far back the first look for the last record goes, in offsets: an epoch takes two, its record and
/// its marker, so this holds a few even where some were aborted. Doubled until a record is found.
const LOOK_BACK_OFFSETS: i64 = 16;

/// The most bytes that one fetch of records asks for.
const FETCH_BYTES: usize = 1 << 20;

/// What the last epoch left. See the module for its form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The form's version.
    pub version: u32,
    /// The epoch.
    pub epoch: Epoch,
    /// The topology that wrote it.
    pub fingerprint: String,
    /// Where every split of every source stood.
    pub splits: Vec<SourceSplit>,
    /// Where every partition ended that the epoch wrote.
    pub ends: Vec<RecordedEnd>,
    /// The topics of the flow.
    #[serde(default)]
    pub topics: Vec<RecordedTopic>,
    /// How far behind the watermarks of sources stay, by the source's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disorder_ms: BTreeMap<String, i64>,
}

/// A topic as it was when the epoch was committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordedTopic {
    /// Its name.
    pub topic: String,
    /// Its id in Kafka's form.
    pub topic_id: String,
}

impl From<&TopicHandle> for RecordedTopic {
    fn from(topic: &TopicHandle) -> Self {
        Self { topic: topic.name.to_string(), topic_id: topic.id.to_string() }
    }
}

/// How far an epoch reached in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEnd {
    /// The topic's name.
    pub topic: String,
    /// Its id in Kafka's form.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// The offset behind the epoch's last record there; its commit marker is at it or behind.
    pub offset: i64,
}

impl RecordedEnd {
    /// The end `offset` of `partition` of a topic.
    pub fn new(topic: &TopicHandle, partition: PartitionId, offset: Offset) -> Self {
        Self {
            topic: topic.name.to_string(),
            topic_id: topic.id.to_string(),
            partition: partition.0,
            offset: offset.0,
        }
    }
}

impl EpochRecord {
    /// The value as it is written.
    pub fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("names, numbers and JSON can always be written as JSON");
    }

    /// Reads a value back.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// What it says of the splits of one source, by split.
    pub fn splits_of(&self, source: &str) -> HashMap<&str, &SplitState> {
        let own = self.splits.iter().filter(|split| split.source == source);
        own.map(|split| (split.state.split.as_str(), &split.state)).collect()
    }
}

/// The topic of a flow's epoch records.
pub fn topic_spec(flow: &str) -> TopicSpec {
    TopicSpec {
        name: format!("{flow}-epochs"),
        partitions: Some(1),
        compacted: false,
        create: true,
        key_format: None,
        owner: Some(flow.to_owned()),
    }
}

/// The one partition of that topic.
pub fn partition(topic: &TopicHandle) -> PartitionKey {
    PartitionKey { topic: topic.index, partition: PartitionId(0) }
}

/// The record of the last committed epoch, read backwards from the end; `None` before the first.
pub fn read_last(log: &dyn EventLog, topic: &TopicHandle) -> Result<Option<EpochRecord>> {
    let partition = partition(topic);
    let start = log.start_offset(partition)?;
    let end = log.stable_offset(partition)?;
    let mut look_back = LOOK_BACK_OFFSETS;
    loop {
        let from = Offset(start.0.max(end.0.saturating_sub(look_back)));
        let last = last_between(log, topic, from, end)?;
        if last.is_some() || from == start {
            return Ok(last);
        }
        look_back = look_back.saturating_mul(2);
    }
}

/// Checks, once the transactional id is held, that `last` is still the last one.
pub(crate) fn check_is_last(
    log: &dyn EventLog,
    topic: &TopicHandle,
    last: Option<&EpochRecord>,
) -> Result<()> {
    if read_last(log, topic)?.as_ref() == last {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Restart, "another epoch was committed since it was opened"))
}

/// The last record at or behind `from` and before `end`.
fn last_between(
    log: &dyn EventLog,
    topic: &TopicHandle,
    from: Offset,
    end: Offset,
) -> Result<Option<EpochRecord>> {
    let mut last = None;
    let mut from = from;
    let mut scratch = DecompressionBuffer::new();
    while from < end {
        let Some(fetched) = log.fetch(partition(topic), from, FETCH_BYTES)? else { break };
        last = last_in(&fetched, from, topic, &mut scratch)?.or(last);
        from = fetched.next;
    }
    Ok(last)
}

/// The last record in what was fetched. Those before it are not decoded.
fn last_in(
    fetched: &Fetched,
    from: Offset,
    topic: &TopicHandle,
    scratch: &mut DecompressionBuffer,
) -> Result<Option<EpochRecord>> {
    let mut last: Option<(Offset, Vec<u8>)> = None;
    for batch in CommittedBatches::new(&fetched.bytes, &fetched.aborted) {
        let batch = batch.map_err(|error| unreadable(topic, from, error))?;
        for record in batch.records(scratch).map_err(|error| unreadable(topic, from, error))? {
            let record = record.map_err(|error| unreadable(topic, from, error))?;
            let value = record.value.unwrap_or_default();
            if record.offset >= from {
                last = Some((record.offset, value.to_vec()));
            }
        }
    }
    let Some((offset, value)) = last else { return Ok(None) };
    let record = EpochRecord::decode(&value).map_err(|error| unreadable(topic, offset, error))?;
    if record.version > VERSION {
        let versions = format!("has version {}; this program reads up to {VERSION}", record.version);
        let context = format!("the epoch record at offset {offset} of topic {} {versions}", topic.name);
        return Err(Error::new(ErrorKind::Incompatible, context));
    }
    Ok(Some(record))
}

fn unreadable(
    topic: &TopicHandle,
    offset: Offset,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let context = format!("the epoch record of topic {} at or behind offset {offset}", topic.name);
    Error::caused(ErrorKind::Corrupt, context, error)
}

/// Checks that the topics the record names are still those it was written for, and that the log reaches
/// as far as it says. A topic that the flow has no use for any more (`is_used`) may be as it likes.
pub fn check_against(record: &EpochRecord, log: &dyn EventLog, is_used: impl Fn(&str) -> bool) -> Result<()> {
    for topic in record.topics.iter().filter(|topic| is_used(&topic.topic)) {
        find_same(log, &topic.topic, &topic.topic_id, record.epoch)?;
    }
    for split in &record.splits {
        if let Position::Topic { topic, topic_id, partition, offset } = &split.state.position
            && is_used(topic)
        {
            let found = find_same(log, topic, topic_id, record.epoch)?;
            check_reaches(log, &found, PartitionId(*partition), Offset(*offset), record.epoch, "read")?;
        }
    }
    for end in record.ends.iter().filter(|end| is_used(&end.topic)) {
        let found = find_same(log, &end.topic, &end.topic_id, record.epoch)?;
        check_reaches(log, &found, PartitionId(end.partition), Offset(end.offset), record.epoch, "written")?;
    }
    Ok(())
}

/// Checks that what an epoch has read or written is there.
fn check_reaches(
    log: &dyn EventLog,
    topic: &TopicHandle,
    partition: PartitionId,
    offset: Offset,
    epoch: Epoch,
    what: &str,
) -> Result<()> {
    let stable = log.stable_offset(PartitionKey { topic: topic.index, partition })?;
    if stable >= offset {
        return Ok(());
    }
    let name = &topic.name;
    let context = format!(
        "epoch {epoch} has {what} {name}-{partition} up to offset {offset}, which ends at {stable}: records \
         that a committed epoch stands on are missing",
    );
    Err(Error::new(ErrorKind::Corrupt, context))
}

/// The topic of this name, which must have this id.
fn find_same(log: &dyn EventLog, name: &str, id: &str, epoch: Epoch) -> Result<TopicHandle> {
    let incompatible = |what: &str| {
        Error::new(ErrorKind::Incompatible, format!("topic {name} {what} since epoch {epoch} was committed"))
    };
    match log.find(name)? {
        None => Err(incompatible("has been deleted")),
        Some(topic) if topic.id.to_string() != id => {
            let context = format!("has been deleted and made again (its id was {id}, and is {})", topic.id);
            Err(incompatible(&context))
        }
        Some(topic) => Ok(topic),
    }
}

#[cfg(test)]
mod tests;
