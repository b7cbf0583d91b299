//! A named, configured set of partitions.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{BATCH_BYTES_MAX, Compression, TimestampType};
use crate::cleanup::{Cleanup, CleanupPolicy, CompactionConfig, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::internal_topic::check_not_internal;
use crate::partition::{Durability, Partition, PartitionConfig};
use crate::record::{PartitionId, TopicId, TopicPartition};

/// The longest name of a topic, as in Kafka.
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// The most partitions of a topic.
const PARTITIONS_MAX: i32 = 10_000;

/// The shortest interval of syncs: the catalogue counts milliseconds.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How long what was deleted in an internal topic is kept: who reads it from its start has long read all of it by
/// then. Who reads on where it stopped, after however long, may have missed a deletion and has to begin anew once the
/// topic was compacted.
const INTERNAL_DELETE_RETENTION: Duration = Duration::from_secs(60 * 60);

/// How large segments may be: room for a few records at least; a position is an `i32`.
pub(crate) const SEGMENT_BYTES_RANGE: RangeInclusive<u64> = 128..=i32::MAX as u64;
/// The longest time that a setting may say: a timestamp is an `i64` of milliseconds.
pub(crate) const TIME_MAX: Duration = Duration::from_millis(i64::MAX as u64 / 4);

/// How a topic is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// How many partitions.
    pub partitions: i32,
    /// What becomes of old records.
    pub cleanup: CleanupPolicy,
    /// When an append counts; the log's own durability where absent. What it costs to mix several in one log is said of
    /// [`Durability`].
    pub durability: Option<Durability>,
    /// How producers that are not told otherwise compress.
    pub compression: Compression,
    /// Bytes after which a segment is sealed and the next one begun.
    pub segment_bytes: u64,
    /// The largest batch that is appended, as it is compressed: Kafka's `max.message.bytes`.
    pub batch_bytes_max: usize,
    /// Whose time records carry: Kafka's `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// Bytes between two entries of an index.
    pub index_interval_bytes: u64,
    /// Bytes after which what is known of producers is written down again.
    pub snapshot_interval_bytes: u64,
    /// Whether offsets may be missing anywhere: the topic comes from where it was compacted. What was
    /// compacted here is known, and a gap anywhere else is damage.
    pub has_gaps: bool,
    /// How long records are kept, where old segments are deleted.
    pub retention: Retention,
    /// When and how the topic is compacted, where the last record of each key is kept.
    pub compaction: CompactionConfig,
    /// How long after its first record a segment is sealed, so that it may be deleted or compacted.
    pub segment_age_max: Duration,
    /// How those who write the topic encode keys, for instance `json/1`. The log only keeps it, for them
    /// to compare: visible ASCII without spaces.
    pub key_format: Option<String>,
    /// Whose internal topic it is, for instance a flow's name. The log only keeps it, for them to compare:
    /// visible ASCII without spaces.
    pub owner: Option<String>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        let partition = PartitionConfig::default();
        Self {
            partitions: 1,
            cleanup: CleanupPolicy::default(),
            durability: None,
            compression: Compression::None,
            segment_bytes: partition.segment_bytes,
            batch_bytes_max: partition.batch_bytes_max,
            timestamp_type: partition.timestamp_type,
            index_interval_bytes: partition.index_interval_bytes,
            snapshot_interval_bytes: partition.snapshot_interval_bytes,
            has_gaps: false,
            retention: Retention::default(),
            compaction: CompactionConfig::default(),
            segment_age_max: Cleanup::SEGMENT_AGE_MAX,
            key_format: None,
            owner: None,
        }
    }
}

impl TopicConfig {
    /// How a topic is made that the log keeps for itself: one partition, compacted, in segments that are small
    /// enough to be read whenever a log is opened. What was deleted in it, and the markers of transactions,
    /// are kept only for as long as somebody may take to read it once: the history does not grow with uptime.
    pub(crate) fn internal(segment_bytes: u64) -> Self {
        let delete_retention = INTERNAL_DELETE_RETENTION;
        Self {
            partitions: 1,
            cleanup: CleanupPolicy::Compact,
            compaction: CompactionConfig { delete_retention, ..CompactionConfig::default() },
            segment_bytes,
            ..Self::default()
        }
    }

    /// Whether a topic can be so, and be called `name`. Making or altering one checks it too.
    ///
    /// # Errors
    /// `Invalid`, saying what is wrong and what is possible.
    pub fn check(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let what = if let Err(error) = self.compression.check() {
            error.to_string()
        } else if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            format!("{} partitions; 1 to {PARTITIONS_MAX} are possible", self.partitions)
        } else if !SEGMENT_BYTES_RANGE.contains(&self.segment_bytes) {
            let (least, most) = (SEGMENT_BYTES_RANGE.start(), SEGMENT_BYTES_RANGE.end());
            format!("segments of {} bytes; {least} to {most} are possible", self.segment_bytes)
        } else if !(1..=BATCH_BYTES_MAX).contains(&self.batch_bytes_max) {
            format!("batches of up to {} bytes; 1 to {BATCH_BYTES_MAX} are possible", self.batch_bytes_max)
        } else if self.index_interval_bytes == 0 || self.snapshot_interval_bytes == 0 {
            "an index or snapshot interval of 0 bytes; 1 is the least".to_owned()
        } else if let Some(Durability::Interval(every)) = self.durability
            && every < SYNC_INTERVAL_MIN
        {
            format!("syncs every {every:?}; {SYNC_INTERVAL_MIN:?} is the least")
        } else if self.compaction.dirty_percent_min > 99 {
            format!(
                "compaction at more than {} % dirty bytes; 0 to 99 are possible",
                self.compaction.dirty_percent_min
            )
        } else if self.times().any(|time| time > TIME_MAX) {
            format!("a time of more than {TIME_MAX:?}")
        } else if self.compaction.lag_max.is_some_and(|lag| lag < self.compaction.lag_min) {
            "a longest compaction lag that is shorter than the least one".to_owned()
        } else if self.key_format.as_deref().is_some_and(|format| !is_word(format)) {
            format!("a key format of {:?}; it may hold visible ASCII, and no space", self.key_format)
        } else if self.owner.as_deref().is_some_and(|owner| !is_word(owner)) {
            format!("an owner called {:?}; it may hold visible ASCII, and no space", self.owner)
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Invalid, format!("topic {name}: {what}")))
    }

    /// Whether somebody can make a topic so: [`Self::check`], and that it is none of those that the log makes itself.
    ///
    /// # Errors
    /// `Invalid`, saying what is wrong and what is possible.
    pub fn check_creatable(&self, name: &str) -> Result<()> {
        self.check(name)?;
        check_not_internal(name, ": the log makes it itself, with settings of its own")
    }

    fn times(&self) -> impl Iterator<Item = Duration> {
        let CompactionConfig { lag_min, lag_max, delete_retention, .. } = self.compaction;
        let always = [self.segment_age_max, lag_min, delete_retention];
        always.into_iter().chain(self.retention.time).chain(lag_max)
    }

    fn cleanup(&self) -> Cleanup {
        Cleanup {
            policy: self.cleanup,
            retention: self.retention,
            compaction: self.compaction,
            segment_age_max: self.segment_age_max,
        }
    }

    pub(crate) fn partition_config(&self, durability: Durability) -> PartitionConfig {
        PartitionConfig {
            durability: self.durability.unwrap_or(durability),
            segment_bytes: self.segment_bytes,
            index_interval_bytes: self.index_interval_bytes,
            snapshot_interval_bytes: self.snapshot_interval_bytes,
            batch_bytes_max: self.batch_bytes_max,
            timestamp_type: self.timestamp_type,
            has_gaps: self.has_gaps,
            cleanup: self.cleanup(),
        }
    }
}

/// An open topic. Clones are the same topic.
#[derive(Clone)]
pub struct Topic {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    id: TopicId,
    config: TopicConfig,
    partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub(crate) fn new(
        name: String,
        id: TopicId,
        config: TopicConfig,
        partitions: Vec<Arc<Partition>>,
    ) -> Self {
        Self { inner: Arc::new(Inner { name, id, config, partitions }) }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The identity: a topic made again under the same name has another one.
    pub fn id(&self) -> TopicId {
        self.inner.id
    }

    /// How it was made.
    pub fn config(&self) -> &TopicConfig {
        &self.inner.config
    }

    /// Checks that producers may write to it. The log alone writes to its internal topics.
    ///
    /// # Errors
    /// `Invalid` for an internal topic.
    pub fn check_producible(&self) -> Result<()> {
        check_not_internal(self.name(), ": the log alone writes to it")
    }

    /// All partitions; the index is the [`PartitionId`].
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.inner.partitions
    }

    /// One partition.
    ///
    /// # Errors
    /// `NotFound`, saying how many there are.
    pub fn partition(&self, partition: PartitionId) -> Result<Arc<Partition>> {
        let found = usize::try_from(partition.0).ok().and_then(|index| self.inner.partitions.get(index));
        found.cloned().ok_or_else(|| {
            let last = self.inner.partitions.len() - 1;
            let what = format!("topic {} has no partition {partition}; it has 0 to {last}", self.inner.name);
            Error::new(ErrorKind::NotFound, what)
        })
    }
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name()).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A topic's name as Kafka allows it: it is the name of directories.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let what = if name.is_empty() {
        "it is empty"
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        "it is longer than 249 characters"
    } else if name == "." || name == ".." {
        "it names a directory of its own"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        "it may hold letters and digits of ASCII, '.', '_' and '-'"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, format!("a topic cannot be named {name:?}: {what}")))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The directory of a partition.
pub(crate) fn directory_name(topic: &str, partition: PartitionId) -> String {
    TopicPartition::new(topic, partition).to_string()
}

/// That there is no topic `name`, and which of `names` may have been meant.
pub(crate) fn no_such_topic<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let near = nearest(name, names).map_or(String::new(), |near| format!("; did you mean {near}?"));
    Error::new(ErrorKind::NotFound, format!("there is no topic {name}{near}"))
}

/// Of `names` the one that `wanted` may have been meant to be: at most a third of it is different.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &'a str| (edit_distance(wanted.as_bytes(), name.as_bytes()), name);
    let (distance, name) = names.map(distance).min()?;
    (distance <= wanted.len().max(name.len()).div_ceil(3)).then_some(name)
}

/// How many characters are to be inserted, removed or replaced (Levenshtein).
fn edit_distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, one) in from.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(one != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kafka_allows() {
        for name in ["orders", "a", "__transaction_state", "a.b-c_D9", &"x".repeat(249)] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(250)] {
            assert_eq!(check_name(name).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
    }

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let names = ["flights", "weather", "airlines"];
        let check = |wanted, expected| assert_eq!(nearest(wanted, names.into_iter()), expected);
        check("flihgts", Some("flights"));
        check("wether", Some("weather"));
        check("airline", Some("airlines"));
        check("orders", None);
        check("", None);
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
        assert_eq!(edit_distance(b"", b"abc"), 3);
        assert_eq!(edit_distance(b"abc", b"abc"), 0);
    }
}
