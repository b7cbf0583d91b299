//! What is done, on Lotic and on Kafka alike.

use serde_json::{Map, Value, json};

/// Operations on one topic, done one after the other.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// What it was drawn from.
    pub(super) seed: u64,
    /// Whether the topic is compacted.
    pub(super) compacts: bool,
    /// Whether records carry the time of their append.
    pub(super) append_time: bool,
    /// Who writes; operations name them by their place here.
    pub(super) producers: Vec<Writer>,
    pub(super) operations: Vec<Operation>,
}

/// How many partitions the topic has.
pub(super) const PARTITIONS: i32 = 2;

/// The largest batch that the topic takes.
pub(super) const BATCH_BYTES_MAX: usize = 2_000;

/// Later than any clock that a marker is given the time of: see [`super::generate`].
pub(super) const FIRST_TIMESTAMP: i64 = 4_000_000_000_000;

/// A record of which the timestamp is so much later than that of a segment's first one begins the next.
pub(super) const SEGMENT_MS: i64 = 60_000;

/// From here on producer ids are those that a script says, out of every log's own reach.
pub(super) const FIRST_STAMPED_ID: i64 = 1 << 40;

/// A producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) kind: WriterKind,
    /// As Kafka names it.
    pub(super) compression: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterKind {
    Plain,
    Idempotent,
    /// With the transactional id of this number, once it is opened.
    Transactional(usize),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) timestamp: i64,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(String, Option<String>)>,
}

/// An offset relative to what the partition has when it is asked for: what is left of a script when
/// operations are taken out still makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Start(i64),
    Stable(i64),
    End(i64),
    /// So far behind the start, and not behind the last stable offset.
    Within(i64),
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Sends a batch and waits until it is written; by the key where no partition is named.
    Send {
        producer: usize,
        partition: Option<i32>,
        records: Vec<Content>,
    },
    /// Appends a batch with exactly this stamp.
    Append {
        partition: i32,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        records: Vec<Content>,
    },
    /// Takes the transactional id of the producer.
    Open(usize),
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// Commits an offset of a group of the script.
    CommitOffset {
        group: usize,
        partition: i32,
        offset: i64,
    },
    /// Commits an offset with the open transaction.
    SendOffset {
        producer: usize,
        group: usize,
        partition: i32,
        offset: i64,
    },
    /// Asks for the committed offsets of a group.
    Committed(usize),
    /// Deletes the records before a place.
    Delete {
        partition: i32,
        to: Place,
    },
    /// Appends a record to each partition and compacts all before; nothing while a transaction is open.
    Compact {
        producer: usize,
        record: Content,
    },
    /// Asks where a partition begins and ends.
    Offsets(i32),
    /// Looks for the first record that is as late.
    FindTime {
        partition: i32,
        committed: bool,
        timestamp: i64,
    },
    /// Looks for the latest record; of committed ones nothing while a transaction is open.
    FindNewest {
        partition: i32,
        committed: bool,
    },
    /// Reads from a place to the end.
    Consume {
        partition: i32,
        committed: bool,
        from: Place,
    },
    /// Looks at every offset below the last stable one.
    Walk(i32),
    /// Reads a topic that is not there.
    FetchMissing,
    /// Closes the log and opens it again, or cuts the power; Kafka does nothing.
    Reopen,
}

impl Place {
    /// The offset, in a partition that begins and ends there.
    pub(super) fn resolve(self, start: i64, stable: i64, end: i64) -> i64 {
        match self {
            Self::Start(plus) => start + plus,
            Self::Stable(plus) => stable + plus,
            Self::End(plus) => end + plus,
            Self::Within(plus) => (start + plus).min(stable),
        }
    }

    fn to_json(self) -> (&'static str, i64) {
        match self {
            Self::Start(plus) => ("start", plus),
            Self::Stable(plus) => ("stable", plus),
            Self::End(plus) => ("end", plus),
            Self::Within(plus) => ("within", plus),
        }
    }
}

impl Script {
    /// The script's topic, of its own in a run.
    pub(super) fn topic(number: usize) -> String {
        format!("script-{number}")
    }

    /// A group of the script.
    pub(super) fn group(number: usize, group: usize) -> String {
        format!("group-{number}-{group}")
    }

    /// The producer that has the transactional id of `producer` now: the last one that took it.
    pub(super) fn has_been_fenced(&self, producer: usize, before: usize) -> bool {
        let WriterKind::Transactional(_) = self.producers[producer].kind else { return false };
        let kind = self.producers[producer].kind;
        let opened = self.operations[..before].iter().filter_map(|operation| match operation {
            Operation::Open(other) if self.producers[*other].kind == kind => Some(*other),
            _ => None,
        });
        let opened: Vec<_> = opened.collect();
        opened.contains(&producer) && opened.last() != Some(&producer)
    }

    /// As `Scripts.java` reads it.
    pub(super) fn to_json(&self, number: usize) -> Value {
        let id = |id: usize| format!("id-{number}-{id}");
        let producers: Vec<_> = self.producers.iter().map(|writer| writer.to_json(id)).collect();
        let steps: Vec<_> = self.operations.iter().map(|operation| operation.to_json(number)).collect();
        json!({
            "script": number, "topic": Self::topic(number), "partitions": PARTITIONS,
            "config": self.config(), "producers": producers, "steps": steps,
        })
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "retention.ms": "-1",
            "segment.ms": SEGMENT_MS.to_string(),
            "max.message.bytes": BATCH_BYTES_MAX.to_string(),
            "message.timestamp.after.max.ms": i64::MAX.to_string(),
        });
        if self.append_time {
            config["message.timestamp.type"] = "LogAppendTime".into();
        }
        if self.compacts {
            config["cleanup.policy"] = "compact".into();
            config["min.cleanable.dirty.ratio"] = "0.0".into();
        }
        config
    }
}

impl Writer {
    fn to_json(&self, id: impl Fn(usize) -> String) -> Value {
        let mut config = Map::from_iter([
            ("compression.type".to_owned(), self.compression.into()),
            ("enable.idempotence".to_owned(), (self.kind != WriterKind::Plain).to_string().into()),
        ]);
        if let WriterKind::Transactional(number) = self.kind {
            config.insert("transactional.id".to_owned(), id(number).into());
        }
        config.into()
    }
}

impl Content {
    fn to_json(&self) -> Value {
        let Self { timestamp, key, value, headers } = self;
        json!({"timestamp": timestamp, "key": key, "value": value, "headers": headers})
    }
}

impl Operation {
    fn to_json(&self, number: usize) -> Value {
        let list = |records: &[Content]| records.iter().map(Content::to_json).collect::<Vec<_>>();
        let group = |group| Script::group(number, group);
        match self {
            Self::Send { producer, partition, records } => json!({
                "do": "send", "producer": producer, "partition": partition, "records": list(records),
            }),
            Self::Append { partition, producer_id, epoch, sequence, records } => json!({
                "do": "append", "partition": partition, "producer_id": producer_id, "epoch": epoch,
                "sequence": sequence, "records": list(records),
            }),
            Self::Open(producer) => json!({"do": "open", "producer": producer}),
            Self::Begin(producer) => json!({"do": "begin", "producer": producer}),
            Self::Commit(producer) => json!({"do": "commit", "producer": producer}),
            Self::Abort(producer) => json!({"do": "abort", "producer": producer}),
            Self::CommitOffset { group: of, partition, offset } => json!({
                "do": "commit-offset", "group": group(*of), "partition": partition, "offset": offset,
            }),
            Self::SendOffset { producer, group: of, partition, offset } => json!({
                "do": "send-offset", "producer": producer, "group": group(*of), "partition": partition,
                "offset": offset,
            }),
            Self::Committed(of) => json!({"do": "committed", "group": group(*of)}),
            Self::Delete { partition, to } => {
                let (of, plus) = to.to_json();
                json!({"do": "delete", "partition": partition, "of": of, "plus": plus})
            }
            Self::Compact { producer, record } => json!({
                "do": "compact", "partitions": PARTITIONS, "producer": producer, "record": record.to_json(),
            }),
            Self::Offsets(partition) => json!({"do": "offsets", "partition": partition}),
            Self::FindTime { partition, committed, timestamp } => json!({
                "do": "find-time", "partition": partition, "committed": committed, "timestamp": timestamp,
            }),
            Self::FindNewest { partition, committed } => {
                json!({"do": "find-newest", "partition": partition, "committed": committed})
            }
            Self::Consume { partition, committed, from } => {
                let (of, plus) = from.to_json();
                json!({"do": "consume", "partition": partition, "committed": committed, "of": of, "plus": plus})
            }
            Self::Walk(partition) => json!({"do": "walk", "partition": partition}),
            Self::FetchMissing => json!({"do": "fetch-missing"}),
            Self::Reopen => json!({"do": "nothing"}),
        }
    }
}
