//! What groups have committed and what they are made of, as last read from `__consumer_offsets`.
//!
//! Offsets that a transaction commits count once it is committed. What is not of a transaction counts at
//! once, even behind the first record of one that is open: a group's offsets are not held up by others.
//! So what is before the last stable offset is read as committed records are, and what is behind it as
//! it stands: offsets of a transaction are *undecided* there until its marker is met. Once the last stable
//! offset has passed the first of them, reading goes on where that was met.
//!
//! Whoever reads on sees a deletion for as long as its tombstone is there. Compaction may have taken it away since the
//! last look, however long ago that was. So everything is read again once a segment that was read, or may have
//! been, has been replaced.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;

use super::format::{Key, Value};
use super::metadata::{self, GroupRecord};
use crate::batch::{BatchError, DecompressionBuffer, MarkerKind, RecordBatch, RecordView};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::partition::{Isolation, Partition};
use crate::record::{LeaderEpoch, Offset, PartitionId, ProducerId, Timestamp, TopicId, TopicPartition};
use crate::topic::{Topic, TopicConfig};

/// The internal topic that holds committed offsets: compacted, one partition.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Bytes of `__consumer_offsets` that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Bytes after which a segment of `__consumer_offsets` is sealed, and so may be compacted: what is read
/// when a log is opened and a group is asked for is no more than a few of them.
const SEGMENT_BYTES: u64 = 8 << 20;

/// How often it is read for one look, because segments were replaced meanwhile.
const READS_MAX: usize = 8;

/// The partition of `__consumer_offsets` that holds every group.
const OFFSETS_PARTITION: PartitionId = PartitionId(0);

/// Where a group goes on reading a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to be read.
    pub offset: Offset,
    /// The topic that it is an offset in; absent where another program than Lotic committed.
    pub topic_id: Option<TopicId>,
    /// The reign of the leader under which the record before was read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// What the consumer committed with it.
    pub metadata: String,
    /// Where in `__consumer_offsets` that stands.
    pub(crate) at: Offset,
}

/// The committed offsets of all groups, as of the last [`CommittedOffsets::refresh`].
#[derive(Default)]
pub struct CommittedOffsets {
    partition: Option<Arc<Partition>>,
    /// The segments of which something may have been read: their ids.
    segments: BTreeSet<u64>,
    /// The next offset of `__consumer_offsets` to be read.
    position: Offset,
    groups: HashMap<String, StoredGroup>,
    /// What open transactions are about to commit, by their producers.
    undecided: HashMap<ProducerId, Vec<Undecided>>,
    /// Where the first of the undecided ones is.
    first_undecided: Option<Offset>,
    scratch: DecompressionBuffer,
}

/// An offset that a transaction is about to commit, or to remove.
#[derive(Debug)]
struct Undecided {
    group: String,
    partition: TopicPartition,
    committed: Option<CommittedOffset>,
}

/// What is stored of a group.
#[derive(Debug, Default)]
pub(super) struct StoredGroup {
    pub(super) offsets: HashMap<TopicPartition, CommittedOffset>,
    /// None for a group that never had members.
    pub(super) record: Option<GroupRecord>,
}

impl CommittedOffsets {
    /// Reads what `log` holds. A log in which nobody ever committed has none.
    ///
    /// # Errors
    /// `Corrupt`; `Retry` where segments are replaced faster than they are read; those of reading.
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
        match find_partition(log)? {
            Some(partition) => self.follow(&partition),
            None => {
                *self = Self::default();
                Ok(())
            }
        }
    }

    /// Reads on in the log's partition. If the topic was made anew, or compacted, what was read before is forgotten.
    pub(super) fn follow(&mut self, partition: &Arc<Partition>) -> Result<()> {
        for _ in 0..READS_MAX {
            let is_same = self.partition.as_ref().is_some_and(|known| Arc::ptr_eq(known, partition));
            if !is_same || !self.note_segments(partition) {
                *self = Self { partition: Some(partition.clone()), ..Self::default() };
                self.note_segments(partition);
            }
            let read = self.read_on(partition);
            // One opened read-only may have found only now what was replaced.
            let is_whole = self.note_segments(partition);
            read?;
            if is_whole {
                return Ok(());
            }
        }
        let what = "segments are replaced faster than they are read: read it again";
        Err(Error::new(ErrorKind::Retry, format!("{OFFSETS_TOPIC}: {what}")))
    }

    /// Adds the segments that the partition has now. False, and nothing is noted, if one that it had is gone.
    fn note_segments(&mut self, partition: &Partition) -> bool {
        let segments = partition.segment_ids();
        let are_there = self.segments.is_subset(&segments);
        if are_there {
            self.segments = segments;
        }
        are_there
    }

    /// Reads a partition of `__consumer_offsets` that belongs to no log, from its beginning, and adds what
    /// it holds to what is known.
    pub(crate) fn read_partition(&mut self, partition: &Partition) -> Result<()> {
        self.position = Offset(0);
        self.read_on(partition)
    }

    fn read_on(&mut self, partition: &Partition) -> Result<()> {
        self.begin_again_at_decided(partition.offsets().stable);
        self.position = self.position.max(partition.offsets().start);
        for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
            loop {
                // Behind the last stable offset there is nothing committed to be read.
                if isolation == Isolation::ReadCommitted && self.position >= partition.offsets().stable {
                    break;
                }
                let fetched = partition.fetch(self.position, READ_BYTES, isolation)?;
                if fetched.next <= self.position {
                    break;
                }
                if isolation == Isolation::ReadCommitted {
                    fetched.committed().try_for_each(|batch| self.take_batch(batch, true))?;
                } else {
                    fetched.batches().try_for_each(|batch| self.take_batch(batch, false))?;
                }
                self.position = fetched.next;
            }
        }
        Ok(())
    }

    /// Goes back to the first offset that was undecided, if that is decided by now.
    fn begin_again_at_decided(&mut self, stable: Offset) {
        if let Some(first) = self.first_undecided.take_if(|first| *first < stable) {
            self.position = first;
            self.undecided.clear();
        }
    }

    fn take_batch(&mut self, batch: Result<RecordBatch<'_>, BatchError>, is_decided: bool) -> Result<()> {
        let damaged = |error: BatchError| error.within(OFFSETS_TOPIC);
        let batch = batch.map_err(damaged)?;
        let header = batch.header();
        if header.is_control {
            return self.decide(&batch).map_err(damaged);
        }
        let is_decided = is_decided || !header.is_transactional;
        let (producer, base) = (header.producer_id, header.base_offset);
        let mut scratch = std::mem::take(&mut self.scratch);
        for record in batch.records(&mut scratch).map_err(damaged)? {
            let record = record.map_err(damaged)?;
            match is_decided {
                true => self.apply(record)?,
                false => self.note_undecided(record, producer, base)?,
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    fn note_undecided(&mut self, record: RecordView<'_>, producer: ProducerId, at: Offset) -> Result<()> {
        if let Some(undecided) = Undecided::read(&record)? {
            self.undecided.entry(producer).or_default().push(undecided);
            self.first_undecided.get_or_insert(at);
        }
        Ok(())
    }

    /// Takes in what a transaction commits, at its marker: another one that is open holds up no more than
    /// the last stable offset. What was committed meanwhile, behind it, is newer.
    fn decide(&mut self, marker: &RecordBatch<'_>) -> Result<(), BatchError> {
        let undecided = self.undecided.remove(&marker.header().producer_id).unwrap_or_default();
        if !undecided.is_empty() && marker.control()?.kind == MarkerKind::Commit {
            for decided in undecided {
                let known = self.get(&decided.group, &decided.partition).map(|known| known.at);
                if known.is_none_or(|known| decided.committed.as_ref().is_none_or(|new| new.at > known)) {
                    self.set(decided);
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, record: RecordView<'_>) -> Result<()> {
        if let Some(group) = record.key.and_then(metadata::decode_key) {
            return self.apply_group(group, record);
        }
        if let Some(decided) = Undecided::read(&record)? {
            self.set(decided);
        }
        Ok(())
    }

    fn set(&mut self, Undecided { group, partition, committed }: Undecided) {
        match committed {
            Some(committed) => {
                self.groups.entry(group).or_default().offsets.insert(partition, committed);
            }
            None => self.remove(&group, &partition),
        }
    }

    /// Forgets an offset, and what open transactions are about to commit for the partition: their markers do
    /// not bring back what was deleted after they sent it, as in Kafka.
    fn remove(&mut self, group: &str, partition: &TopicPartition) {
        for undecided in self.undecided.values_mut() {
            undecided.retain(|one| one.group != group || one.partition != *partition);
        }
        if let Some(stored) = self.groups.get_mut(group) {
            stored.offsets.remove(partition);
            self.forget_if_empty(group);
        }
    }

    fn apply_group(&mut self, group: &str, record: RecordView<'_>) -> Result<()> {
        let Some(value) = record.value else {
            if let Some(stored) = self.groups.get_mut(group) {
                stored.record = None;
                self.forget_if_empty(group);
            }
            return Ok(());
        };
        // Of what another version wrote of its members, nothing is needed.
        if let Some(decoded) = GroupRecord::decode(value) {
            self.groups.entry_ref(group).or_default().record = Some(decoded);
        }
        Ok(())
    }

    fn forget_if_empty(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(|group| group.offsets.is_empty() && group.record.is_none()) {
            self.groups.remove(group);
        }
    }

    /// Where `group` goes on reading `partition`.
    pub fn get(&self, group: &str, partition: &TopicPartition) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.get(partition)
    }

    /// Whether an open transaction is about to commit another offset of `group` for `partition`.
    pub fn is_undecided(&self, group: &str, partition: &TopicPartition) -> bool {
        self.undecided().any(|undecided| undecided == (group, partition))
    }

    /// All partitions for which `group` has committed, in no order.
    pub fn group(&self, group: &str) -> impl Iterator<Item = (&TopicPartition, &CommittedOffset)> {
        self.groups.get(group).into_iter().flat_map(|group| &group.offsets)
    }

    /// The groups that have committed anything, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let committed = self.groups.iter().filter(|(_, group)| !group.offsets.is_empty());
        committed.map(|(name, _)| name.as_str())
    }

    /// All groups that anything is known of, in no order.
    pub(super) fn stored(&self) -> impl Iterator<Item = (&str, &StoredGroup)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group))
    }

    pub(super) fn stored_group(&self, name: &str) -> Option<&StoredGroup> {
        self.groups.get(name)
    }

    /// Up to where everything was read.
    pub(super) fn position(&self) -> Offset {
        self.position
    }

    /// What open transactions are about to commit: group and partition, in no order.
    pub(super) fn undecided(&self) -> impl Iterator<Item = (&str, &TopicPartition)> {
        self.undecided.values().flatten().map(|one| (one.group.as_str(), &one.partition))
    }
}

impl Undecided {
    /// What a record commits; `None` for one that commits no offset.
    fn read(record: &RecordView<'_>) -> Result<Option<Self>> {
        let Some(key) = record.key.and_then(Key::decode) else { return Ok(None) };
        let (group, partition) = (key.group.to_owned(), TopicPartition::new(key.topic, key.partition));
        let Some(value) = record.value else { return Ok(Some(Self { group, partition, committed: None })) };
        let Some(value) = Value::decode(value) else {
            let what = format_args!("the value committed for group {group}");
            return Err(unreadable(record.offset, what));
        };
        let committed = CommittedOffset {
            offset: value.offset,
            topic_id: value.topic_id,
            leader_epoch: value.leader_epoch,
            committed_at: value.committed_at,
            metadata: value.metadata.to_owned(),
            at: record.offset,
        };
        Ok(Some(Self { group, partition, committed: Some(committed) }))
    }
}

impl std::fmt::Debug for CommittedOffsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommittedOffsets")
            .field("position", &self.position)
            .field("groups", &self.groups)
            .field("undecided", &self.undecided)
            .finish_non_exhaustive()
    }
}

fn unreadable(offset: Offset, what: std::fmt::Arguments<'_>) -> Error {
    let what = format!("{OFFSETS_TOPIC}, offset {offset}: {what} is damaged or newer than version 4");
    Error::new(ErrorKind::Unsupported, what)
}

/// The partition of `__consumer_offsets` that commits go to; the topic is made where it is missing.
///
/// # Errors
/// Those of [`Log::create_topic`].
pub fn offsets_partition(log: &Log) -> Result<Arc<Partition>> {
    offsets_topic(log)?.partition(OFFSETS_PARTITION)
}

/// The same, where it is there.
pub(super) fn find_partition(log: &Log) -> Result<Option<Arc<Partition>>> {
    match log.topic(OFFSETS_TOPIC) {
        Ok(topic) => topic.partition(OFFSETS_PARTITION).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn offsets_topic(log: &Log) -> Result<Topic> {
    match log.topic(OFFSETS_TOPIC) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    match log.create_internal_topic(OFFSETS_TOPIC, TopicConfig::internal(SEGMENT_BYTES)) {
        // Somebody else was first.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => log.topic(OFFSETS_TOPIC),
        made => made,
    }
}
