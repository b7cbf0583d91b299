//! What a changelog record is, and how a store's changes get there and its position back.
//!
//! A changelog topic `<flow>-<store>-changelog` holds absolute values, so that reading a stretch of it twice
//! does no harm, and restoring is copying:
//!
//! | field | |
//! |---|---|
//! | key | the backend key: key group `u16` BE, then what the store puts behind it |
//! | value | the backend value: the codec's version (one byte), then what the codec wrote; null: deleted |
//! | partition | key group mod the topic's partition count |

use std::collections::VecDeque;
use std::sync::Arc;

use lotic_log::{Offset, PartitionId, Timestamp};
use parking_lot::Mutex;

use super::keys::group_of;
use super::{Position, Slice, WriteSet};
use crate::codec::Codec;
use crate::epoch::Epoch;
use crate::epoch_writer::EpochWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{PartitionKey, TopicHandle};

/// The name of a store's changelog topic.
pub fn changelog_topic(flow: &str, store: &str) -> String {
    format!("{flow}-{store}-changelog")
}

/// Takes the records of changelogs. An [`EpochWriter`], but for tests.
pub trait ChangelogWriter {
    /// Writes one record.
    fn write_change(
        &mut self,
        topic: &TopicHandle,
        partition: PartitionId,
        time: Timestamp,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()>;
}

impl ChangelogWriter for EpochWriter {
    fn write_change(
        &mut self,
        topic: &TopicHandle,
        partition: PartitionId,
        time: Timestamp,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        self.write(topic, partition, time, Some(key), value, &[])
    }
}

/// How many epochs may be committed before a worker applies the first of them. A worker hears of the end of
/// `e` before it passes the barrier of `e+2`, so there are never more.
const COMMITTED_EPOCHS_MAX: usize = 2;

/// The ends that the last committed epochs reached, for the stores of one worker.
#[derive(Debug, Default)]
pub(super) struct CommittedEnds {
    epochs: VecDeque<(Epoch, Vec<(PartitionKey, Offset)>)>,
}

impl CommittedEnds {
    pub(super) fn publish(&mut self, epoch: Epoch, ends: &[(PartitionKey, Offset)]) {
        if self.epochs.len() == COMMITTED_EPOCHS_MAX {
            self.epochs.pop_front();
        }
        self.epochs.push_back((epoch, ends.to_vec()));
    }

    fn of(&self, epoch: Epoch) -> &[(PartitionKey, Offset)] {
        let found = self.epochs.iter().find(|(published, _)| *published == epoch);
        &found.expect("an epoch's ends are published before its state is applied").1
    }
}

/// One store's changelog, as one worker uses it.
pub(super) struct Changelog {
    topic: TopicHandle,
    slice: Slice,
    /// The partitions in which this worker has key groups.
    partitions: Vec<PartitionId>,
    committed: Arc<Mutex<CommittedEnds>>,
}

impl Changelog {
    pub(super) fn new(topic: TopicHandle, slice: Slice, committed: Arc<Mutex<CommittedEnds>>) -> Self {
        let partitions = slice.partitions(topic.partitions);
        Self { topic, slice, partitions, committed }
    }

    pub(super) fn write(
        &self,
        writer: &mut impl ChangelogWriter,
        time: Timestamp,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let group = group_of(key);
        debug_assert!(self.slice.holds(group), "a worker changes only the key groups that it owns");
        writer.write_change(&self.topic, group.changelog_partition(self.topic.partitions), time, key, value)
    }

    /// Adds the positions that this worker's slices have once it has applied `epoch`.
    ///
    /// # Panics
    /// If the ends of `epoch` were not published.
    pub(super) fn put_positions(&self, epoch: Epoch, writes: &mut WriteSet) {
        let committed = self.committed.lock();
        let own = committed.of(epoch).iter().filter(|(end, _)| {
            end.topic == self.topic.index && self.partitions.binary_search(&end.partition).is_ok()
        });
        for &(PartitionKey { partition, .. }, next) in own {
            Position { partition, slice: self.slice, topic: self.topic.id, next }.put(writes);
        }
    }
}

/// Writes and reads the values of one store.
pub(super) struct ValueCodec<V> {
    store: Arc<str>,
    version: u8,
    codec: Arc<dyn Codec<V>>,
}

impl<V: 'static> ValueCodec<V> {
    pub(super) fn new(store: Arc<str>, codec: Arc<dyn Codec<V>>) -> Self {
        Self { store, version: codec.id().version, codec }
    }

    pub(super) fn encode(&self, key: &[u8], value: &V, out: &mut Vec<u8>) -> Result<()> {
        out.push(self.version);
        self.codec.encode(value, out).map_err(|error| {
            let what = format!("store {}: the value of key {} cannot be written", self.store, Hex(key));
            Error::caused(ErrorKind::Invalid, what, error)
        })
    }

    pub(super) fn decode(&self, key: &[u8], bytes: &[u8]) -> Result<V> {
        let what = || format!("store {}: the value of key {}", self.store, Hex(key));
        match bytes.split_first() {
            Some((&version, value)) if version == self.version => self.codec.decode(value).map_err(|error| {
                Error::caused(ErrorKind::Corrupt, format!("{} cannot be read", what()), error)
            }),
            Some((version, _)) => Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "{} is written as {}/{version}; expected {}",
                    what(),
                    self.codec.id().name,
                    self.codec.id()
                ),
            )),
            None => Err(Error::new(ErrorKind::Corrupt, format!("{} has no bytes", what()))),
        }
    }
}

/// Shows a key's bytes.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
