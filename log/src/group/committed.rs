//! The committed offsets of all groups, as last read from `__consumer_offsets`.

use std::sync::Arc;

use hashbrown::HashMap;

use super::format::{Key, Value};
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, RecordView, SealedBatch};
use crate::cleanup::CleanupPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::partition::{Isolation, Partition};
use crate::record::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicPartition};
use crate::topic::{Topic, TopicConfig};

/// The internal topic that holds committed offsets: compacted, one partition.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Bytes of `__consumer_offsets` that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// The partition of `__consumer_offsets` that holds every group.
const OFFSETS_PARTITION: PartitionId = PartitionId(0);

/// Bytes that the name of a group may have: what Kafka's format counts.
const GROUP_BYTES_MAX: usize = i16::MAX as usize;

/// Where a group goes on reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to be read.
    pub offset: Offset,
    /// The topic that it is an offset in; absent where another program than Lotic committed.
    pub topic_id: Option<TopicId>,
    /// The reign of the leader under which the record before was read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// When it was committed.
    pub committed_at: Timestamp,
}

/// The committed offsets of all groups, as of the last [`CommittedOffsets::refresh`].
#[derive(Default)]
pub struct CommittedOffsets {
    partition: Option<Arc<Partition>>,
    /// The next offset of `__consumer_offsets` to be read.
    position: Offset,
    groups: HashMap<String, HashMap<TopicPartition, CommittedOffset>>,
    scratch: DecompressionBuffer,
}

impl CommittedOffsets {
    /// Reads what `log` holds. A log in which nobody ever committed has none.
    ///
    /// # Errors
    /// `Corrupt`, and those of reading.
    pub fn read(log: &Log) -> Result<Self> {
        let mut offsets = Self::default();
        offsets.refresh(log)?;
        Ok(offsets)
    }

    /// Reads what was committed since.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn refresh(&mut self, log: &Log) -> Result<()> {
        let Some(partition) = self.find_partition(log)? else { return Ok(()) };
        self.read_on(&partition)
    }

    /// Reads a partition of `__consumer_offsets` that belongs to no log, from its beginning.
    pub(crate) fn read_partition(&mut self, partition: &Partition) -> Result<()> {
        self.position = Offset(0);
        self.read_on(partition)
    }

    fn read_on(&mut self, partition: &Partition) -> Result<()> {
        self.position = self.position.max(partition.offsets().start);
        loop {
            let fetched = partition.fetch(self.position, READ_BYTES, Isolation::ReadCommitted)?;
            if fetched.next <= self.position {
                return Ok(());
            }
            for batch in fetched.committed() {
                let batch = batch.map_err(|error| error.within(OFFSETS_TOPIC))?;
                let records =
                    batch.records(&mut self.scratch).map_err(|error| error.within(OFFSETS_TOPIC))?;
                for record in records {
                    let record = record.map_err(|error| error.within(OFFSETS_TOPIC))?;
                    apply(&mut self.groups, record)?;
                }
            }
            self.position = fetched.next;
        }
    }

    /// Where `group` goes on reading `partition`.
    pub fn get(&self, group: &str, partition: &TopicPartition) -> Option<&CommittedOffset> {
        self.groups.get(group)?.get(partition)
    }

    /// All partitions for which `group` has committed, in no order.
    pub fn group(&self, group: &str) -> impl Iterator<Item = (&TopicPartition, &CommittedOffset)> {
        self.groups.get(group).into_iter().flatten()
    }

    /// The groups that have committed anything, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    fn find_partition(&mut self, log: &Log) -> Result<Option<Arc<Partition>>> {
        if self.partition.is_none() {
            self.partition = match log.topic(OFFSETS_TOPIC) {
                Ok(topic) => Some(topic.partition(OFFSETS_PARTITION)?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        }
        Ok(self.partition.clone())
    }
}

impl std::fmt::Debug for CommittedOffsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommittedOffsets")
            .field("position", &self.position)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

/// An offset to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition that was read.
    pub partition: TopicPartition,
    /// The id of its topic.
    pub topic_id: TopicId,
    /// The next offset to be read.
    pub offset: Offset,
}

/// The batch for `__consumer_offsets` that commits these offsets of `group`. Appended within a
/// transaction it commits them with that.
///
/// # Errors
/// `Invalid` if the group's name is empty or longer than Kafka's format counts, or there are no commits.
pub fn offset_commits(group: &str, commits: &[OffsetCommit], now: Timestamp) -> Result<SealedBatch> {
    if group.is_empty() || group.len() > GROUP_BYTES_MAX {
        let context = format!("group name of {} bytes; 1 to {GROUP_BYTES_MAX} are allowed", group.len());
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    if commits.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("no offsets to commit for group {group}")));
    }
    let mut builder = BatchBuilder::new(Compression::None);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for commit in commits {
        key.clear();
        value.clear();
        let TopicPartition { topic, partition } = &commit.partition;
        Key { group, topic, partition: *partition }.encode(&mut key);
        let topic_id = Some(commit.topic_id);
        Value { offset: commit.offset, leader_epoch: None, topic_id, committed_at: now }.encode(&mut value);
        builder
            .push(now, Some(&key), Some(&value), &[])
            .map_err(|error| error.within(format_args!("commit offsets of group {group}")))?;
    }
    Ok(builder.seal())
}

/// The partition of `__consumer_offsets` that commits go to; the topic is made where it is missing.
///
/// # Errors
/// Those of [`Log::create_topic`].
pub fn offsets_partition(log: &Log) -> Result<Arc<Partition>> {
    offsets_topic(log)?.partition(OFFSETS_PARTITION)
}

fn offsets_topic(log: &Log) -> Result<Topic> {
    match log.topic(OFFSETS_TOPIC) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    let config = TopicConfig { partitions: 1, cleanup: CleanupPolicy::Compact, ..TopicConfig::default() };
    match log.create_topic(OFFSETS_TOPIC, config) {
        // Somebody else was first.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => log.topic(OFFSETS_TOPIC),
        made => made,
    }
}

fn apply(
    groups: &mut HashMap<String, HashMap<TopicPartition, CommittedOffset>>,
    record: RecordView<'_>,
) -> Result<()> {
    let Some(key) = record.key.and_then(Key::decode) else { return Ok(()) };
    let partition = TopicPartition::new(key.topic, key.partition);
    let Some(value) = record.value else {
        if let Some(group) = groups.get_mut(key.group) {
            group.remove(&partition);
        }
        return Ok(());
    };
    let Some(value) = Value::decode(value) else {
        let context = format!(
            "{OFFSETS_TOPIC}, offset {}: the value committed for group {} is damaged or newer than version 4",
            record.offset, key.group
        );
        return Err(Error::new(ErrorKind::Unsupported, context));
    };
    let committed = CommittedOffset {
        offset: value.offset,
        topic_id: value.topic_id,
        leader_epoch: value.leader_epoch,
        committed_at: value.committed_at,
    };
    groups.entry_ref(key.group).or_default().insert(partition, committed);
    Ok(())
}
