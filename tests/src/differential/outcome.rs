//! What an operation comes to, and how Kafka says so.

use std::collections::{BTreeMap, BTreeSet};

use lotic_log::ErrorKind;
use serde_json::Value;

use super::script::FIRST_STAMPED_ID;
use crate::failure::{About, Result};
use crate::kafka::ReadRecord;

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Partition and offset of each record that was sent.
    Written(Vec<(i32, i64)>),
    /// Where the partition begins now.
    Deleted(i64),
    Offsets(Offsets),
    Shed(Shed),
    /// Offset and timestamp of a record that was looked for.
    Found(Option<(i64, i64)>),
    /// A record that was looked for by the time that its log has given it.
    Dated(DatedFound),
    Records(Vec<ReadRecord>),
    Walked(Walked),
    /// Offsets by partition.
    Committed(BTreeMap<i32, i64>),
    Refused(ErrorKind),
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) start: i64,
    pub(super) stable: i64,
    pub(super) end: i64,
}

/// What was too much is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shed {
    /// The bytes of each segment of the partition before, those that hold nothing any more left out.
    pub(super) before: Vec<u64>,
    /// Where each partition begins now: what is kept of one is kept of the others.
    pub(super) starts: Vec<i64>,
}

/// What was found by a log's own times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DatedFound {
    /// Every offset that there is.
    pub(super) entries: Vec<DatedEntry>,
    pub(super) stable: i64,
    pub(super) found: Option<(i64, i64)>,
}

/// What is at an offset, and which time the log has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DatedEntry {
    pub(super) offset: i64,
    pub(super) time: i64,
    pub(super) is_marker: bool,
}

/// Every offset below the last stable one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) entries: Vec<Entry>,
    /// Of each aborted transaction the producer and the first offset.
    pub(super) aborted: BTreeSet<(i64, i64)>,
}

/// What is at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) producer: i64,
    pub(super) kind: EntryKind,
    /// Whether its timestamp is that of the append.
    pub(super) append_time: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Plain,
    Transactional,
    Commit,
    Abort,
}

/// What an exception of Kafka's clients is to Lotic. One that is not listed was not thought of.
const KINDS: [(&str, ErrorKind); 15] = [
    ("OffsetOutOfRangeException", ErrorKind::OffsetOutOfRange),
    ("RecordTooLargeException", ErrorKind::Invalid),
    ("InvalidRecordException", ErrorKind::Invalid),
    ("PolicyViolationException", ErrorKind::Invalid),
    ("OutOfOrderSequenceException", ErrorKind::OutOfOrderSequence),
    ("InvalidProducerEpochException", ErrorKind::Fenced),
    ("ProducerFencedException", ErrorKind::Fenced),
    ("InvalidTxnStateException", ErrorKind::TransactionState),
    ("TransactionAbortableException", ErrorKind::TransactionState),
    // The client refuses what its state does not allow, or says that a send before has failed.
    ("IllegalStateException", ErrorKind::TransactionState),
    ("KafkaException", ErrorKind::TransactionState),
    ("UnknownTopicOrPartitionException", ErrorKind::NotFound),
    ("GroupIdNotFoundException", ErrorKind::NotFound),
    ("TopicExistsException", ErrorKind::AlreadyExists),
    ("CorruptRecordException", ErrorKind::Corrupt),
];

impl Outcome {
    /// What `Scripts.java` answered.
    ///
    /// # Errors
    /// If it is no answer, or an exception that is not listed.
    pub(super) fn parse(answer: &Value) -> Result<Self> {
        if let Some(exception) = answer["refused"].as_str() {
            let found = KINDS.iter().find(|(name, _)| *name == exception);
            return found
                .map(|(_, kind)| Self::Refused(*kind))
                .ok_or_else(|| format!("nothing is known of this exception: {answer}").into());
        }
        let has = |field: &str| answer.get(field).is_some();
        if has("done") {
            Ok(Self::Done)
        } else if has("places") {
            Ok(Self::Written(pairs(&answer["places"])?))
        } else if has("deleted") {
            Ok(Self::Deleted(number(&answer["deleted"])?))
        } else if has("shed") {
            let before = serde_json::from_value(answer["shed"].clone())?;
            Ok(Self::Shed(Shed { before, starts: serde_json::from_value(answer["starts"].clone())? }))
        } else if has("dated") {
            let entry = |entry: &Value| {
                let (offset, time, is_marker) = serde_json::from_value(entry.clone())?;
                Ok(DatedEntry { offset, time, is_marker })
            };
            let entries = list(&answer["dated"])?.iter().map(entry).collect::<Result<_>>()?;
            let found = serde_json::from_value(answer["found"].clone())?;
            Ok(Self::Dated(DatedFound { entries, stable: number(&answer["stable"])?, found }))
        } else if has("stable") {
            let number = |field: &str| number(&answer[field]);
            let (start, stable, end) = (number("start")?, number("stable")?, number("end")?);
            Ok(Self::Offsets(Offsets { start, stable, end }))
        } else if has("found") {
            Ok(Self::Found(serde_json::from_value(answer["found"].clone())?))
        } else if has("records") {
            let records = list(&answer["records"])?.iter().map(ReadRecord::parse);
            Ok(Self::Records(records.collect::<Result<_>>()?))
        } else if has("walk") {
            let entries = list(&answer["walk"])?.iter().map(Entry::parse).collect::<Result<_>>()?;
            let aborted = serde_json::from_value(answer["aborted"].clone())?;
            Ok(Self::Walked(Walked { entries, aborted }.with_numbered_producers()))
        } else if has("committed") {
            Ok(Self::Committed(pairs(&answer["committed"])?.into_iter().collect()))
        } else {
            Err(format!("this is no answer: {answer}").into())
        }
    }
}

/// What stands for the producer id that a log has given to an idempotent producer: a log that is opened again
/// gives another one.
const IDEMPOTENT: i64 = -2;

impl Walked {
    /// The same with producers named by the order in which they appear: each log gives out ids of its own.
    pub(super) fn with_numbered_producers(mut self) -> Self {
        let is_given = |entry: &Entry| (0..FIRST_STAMPED_ID).contains(&entry.producer);
        for entry in self.entries.iter_mut().filter(|entry| entry.kind == EntryKind::Plain && is_given(entry))
        {
            entry.producer = IDEMPOTENT;
        }
        let mut numbers = BTreeMap::new();
        for entry in &self.entries {
            let next = numbers.len() as i64;
            numbers.entry(entry.producer).or_insert(next);
        }
        // One of which there is nothing but a record of its abort.
        let number = |id: i64| numbers.get(&id).copied().unwrap_or(-1);
        for entry in &mut self.entries {
            entry.producer = number(entry.producer);
        }
        // Of transactions behind what was looked at, Kafka tells the more the larger its segments are.
        let end = self.entries.last().map_or(0, |entry| entry.offset);
        let aborted = self.aborted.iter().filter(|(_, first)| *first < end);
        self.aborted = aborted.map(|(id, first)| (number(*id), *first)).collect();
        self
    }

    /// The same without the aborted transactions that have no record any more. Kafka's index forgets them
    /// with the compaction after the one that took the records, Lotic's does not.
    pub(super) fn without_compacted_transactions(&self) -> Self {
        let is_left = |(producer, first): &&(i64, i64)| {
            let mut of_it =
                self.entries.iter().filter(|entry| entry.producer == *producer && entry.offset >= *first);
            of_it.next().is_some_and(|entry| entry.kind == EntryKind::Transactional)
        };
        Self {
            entries: self.entries.clone(),
            aborted: self.aborted.iter().filter(is_left).copied().collect(),
        }
    }
}

impl Entry {
    fn parse(value: &Value) -> Result<Self> {
        let (offset, producer, kind, append_time): (i64, i64, String, bool) =
            serde_json::from_value(value.clone())?;
        let kind = match kind.as_str() {
            "PLAIN" => EntryKind::Plain,
            "TRANSACTIONAL" => EntryKind::Transactional,
            "COMMIT" => EntryKind::Commit,
            "ABORT" => EntryKind::Abort,
            _ => return Err(format!("an entry of kind {kind}").into()),
        };
        Ok(Self { offset, producer, kind, append_time })
    }
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().ok_or_else(|| format!("no list: {value}").into())
}

fn number(value: &Value) -> Result<i64> {
    value.as_i64().ok_or_else(|| format!("no number: {value}").into())
}

fn pairs(value: &Value) -> Result<Vec<(i32, i64)>> {
    serde_json::from_value(value.clone()).about(value)
}
