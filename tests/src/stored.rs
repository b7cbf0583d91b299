//! The committed records of a directory, read without disturbing whoever has it open.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use lotic_log::batch::RecordView;
use lotic_log::storage::disk::DiskStorage;
use lotic_log::{
    Consumer, ConsumerOptions, Isolation, Log, LogOptions, Offset, PartitionId, SystemClock, Timestamp,
    TopicPartition,
};

use crate::failure::{About, Failure, Result, ensure};

/// Options to open a log read-only as often as one likes: no threads are started.
///
/// # Errors
/// Those of the operating system.
pub fn reading() -> Result<LogOptions> {
    Ok(LogOptions::manual(DiskStorage::new(0)?, SystemClock::new(), 0))
}

/// How committed records are read.
pub fn committed() -> ConsumerOptions {
    ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() }
}

/// All partitions of a log, those of internal topics (`__…`) left out.
pub fn partitions(log: &Log) -> Vec<TopicPartition> {
    let topics = log.topics();
    let own = topics.iter().filter(|topic| !topic.name().starts_with("__"));
    own.flat_map(|topic| topic.partitions().iter().map(|partition| partition.name().clone())).collect()
}

/// A record on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredRecord {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its time.
    pub timestamp: Timestamp,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl StoredRecord {
    fn of(record: &RecordView<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Self {
            key: owned(record.key),
            timestamp: record.timestamp,
            value: owned(record.value),
            headers: record
                .headers
                .iter()
                .map(|header| (header.key.to_owned(), owned(header.value)))
                .collect(),
        }
    }

    /// The key as text.
    ///
    /// # Errors
    /// If there is none, or it is no text.
    pub fn key_text(&self) -> Result<&str> {
        let key = self.key.as_deref().ok_or("a record without a key")?;
        std::str::from_utf8(key).about("a record's key")
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// If there is none, or it is no JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        let value = self.value.as_deref().ok_or("a record without a value")?;
        serde_json::from_slice(value).about("a record's value")
    }
}

/// Tells records apart: by key, time, value and headers.
pub fn hash_of(record: &RecordView<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.timestamp, record.key, record.value).hash(&mut hasher);
    for header in record.headers {
        (header.key, header.value).hash(&mut hasher);
    }
    hasher.finish()
}

/// The committed records of one topic, by partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTopic {
    name: String,
    partitions: Vec<Vec<StoredRecord>>,
}

impl StoredTopic {
    /// Reads a topic of the log in `directory`.
    ///
    /// # Errors
    /// Those of the log; if a transaction is open there.
    pub fn read(directory: &Path, topic: &str) -> Result<Self> {
        let log = Log::open_read_only(directory, reading()?)?;
        Self::read_from(&log, topic)
    }

    /// Reads a topic.
    ///
    /// # Errors
    /// Those of the log; if a transaction is open there.
    pub fn read_from(log: &Log, topic: &str) -> Result<Self> {
        let opened = log.topic(topic)?;
        let mut read =
            Self { name: topic.to_owned(), partitions: vec![Vec::new(); opened.partitions().len()] };
        for partition in opened.partitions() {
            let open = partition.open_transactions();
            ensure(open.is_empty(), || format!("{} has open transactions: {open:?}", partition.name()))?;
        }
        Consumer::of_topic(log, topic, committed())?.read_to_end(|partition, record| {
            read.partitions[partition.partition.0 as usize].push(StoredRecord::of(&record));
            Ok::<_, Failure>(())
        })?;
        Ok(read)
    }

    /// The partitions, each with its records in order.
    pub fn partitions(&self) -> &[Vec<StoredRecord>] {
        &self.partitions
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &StoredRecord> {
        self.partitions.iter().flatten()
    }

    /// All records, whatever their partition and order.
    pub fn sorted(&self) -> Vec<&StoredRecord> {
        let mut records: Vec<_> = self.records().collect();
        records.sort();
        records
    }

    /// The last value of each key.
    ///
    /// # Errors
    /// If a key has records in two partitions: its last one would be anybody's guess.
    pub fn last_by_key(&self) -> Result<BTreeMap<&str, Option<&[u8]>>> {
        let mut places = HashMap::new();
        let mut last = BTreeMap::new();
        for (partition, records) in self.partitions.iter().enumerate() {
            for record in records {
                let key = record.key_text()?;
                let place = *places.entry(key).or_insert(partition);
                let elsewhere =
                    || format!("key {key} of {} is in partitions {place} and {partition}", self.name);
                ensure(place == partition, elsewhere)?;
                last.insert(key, record.value.as_deref());
            }
        }
        Ok(last)
    }
}

/// Where every partition of a directory ends, internal topics left out.
///
/// # Errors
/// Those of the log.
pub fn ends(directory: &Path) -> Result<BTreeMap<TopicPartition, Offset>> {
    let log = Log::open_read_only(directory, reading()?)?;
    let mut ends = BTreeMap::new();
    for name in partitions(&log) {
        let end = log.topic(&name.topic)?.partition(name.partition)?.offsets().end;
        ends.insert(name, end);
    }
    Ok(ends)
}

/// The number of a partition in a list.
pub fn partition_id(index: usize) -> PartitionId {
    PartitionId(i32::try_from(index).expect("a topic has few partitions"))
}
