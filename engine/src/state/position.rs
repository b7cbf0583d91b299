//! How far a store has taken its changelog: rows in the store itself.
//!
//! The position of a changelog partition is kept for each *slice* of its key groups: the groups that one of
//! so many workers owns. Each worker applies its own changes and moves its own slices, at its own time, so
//! a position never claims what another worker has still in hand. The slices of a partition are its groups,
//! once each, for any number of workers; a restore moves them to the number that runs now.
//!
//! | bytes of the key | | |
//! |---|---|---|
//! | 0..2 | mark | `0xFFFF`: behind every key group |
//! | 2..6 | partition | `i32` |
//! | 6..8 | worker | `u16` |
//! | 8..10 | workers | `u16` |
//!
//! | bytes of the value | | |
//! |---|---|---|
//! | 0..16 | changelog topic's id | UUID |
//! | 16..24 | next offset | `i64`; everything before is in the store |
//!
//! All integers are big-endian.

use lotic_log::{Offset, PartitionId, TopicId};

use super::{StateBackend, StoreId, Visit, WriteSet};
use crate::error::{Error, ErrorKind, Result};
use crate::key_group::{KEY_GROUPS, KeyGroup};

const MARK: [u8; 2] = [0xff, 0xff];
const KEY_BYTES: usize = 10;
const VALUE_BYTES: usize = 24;

/// The key groups that one of so many workers owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    /// The worker.
    pub worker: u16,
    /// How many there are.
    pub workers: u16,
}

impl Slice {
    /// The slice of `worker` of `workers`.
    ///
    /// # Panics
    /// If there are more workers than an `u16` counts.
    pub fn new(worker: usize, workers: usize) -> Self {
        let narrow = |number: usize| u16::try_from(number).expect("there are at most 65,535 workers");
        Self { worker: narrow(worker), workers: narrow(workers) }
    }

    /// The slices that so many workers make.
    pub fn all(workers: usize) -> impl Iterator<Item = Self> {
        (0..workers).map(move |worker| Self::new(worker, workers))
    }

    /// Whether `group` belongs to it.
    pub fn holds(self, group: KeyGroup) -> bool {
        group.worker(usize::from(self.workers)) == usize::from(self.worker)
    }

    /// The changelog partitions, of `partitions`, in which some of its groups are.
    pub fn partitions(self, partitions: i32) -> Vec<PartitionId> {
        let mut own: Vec<_> = (0..KEY_GROUPS)
            .map(KeyGroup)
            .filter(|&group| self.holds(group))
            .map(|group| group.changelog_partition(partitions))
            .collect();
        own.sort_unstable();
        own.dedup();
        own
    }
}

/// One position row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The changelog partition.
    pub partition: PartitionId,
    /// The key groups of it.
    pub slice: Slice,
    /// The changelog topic that the offset is of.
    pub topic: TopicId,
    /// Everything before is in the store.
    pub next: Offset,
}

impl Position {
    fn key(&self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[0..2].copy_from_slice(&MARK);
        key[2..6].copy_from_slice(&self.partition.0.to_be_bytes());
        key[6..8].copy_from_slice(&self.slice.worker.to_be_bytes());
        key[8..10].copy_from_slice(&self.slice.workers.to_be_bytes());
        key
    }

    /// Adds the row to the writes that it speaks of.
    pub fn put(&self, writes: &mut WriteSet) {
        let mut value = [0; VALUE_BYTES];
        value[..16].copy_from_slice(self.topic.0.as_bytes());
        value[16..].copy_from_slice(&self.next.0.to_be_bytes());
        writes.put(&self.key(), &value);
    }

    /// Takes the row out.
    pub fn delete(&self, writes: &mut WriteSet) {
        writes.delete(&self.key());
    }

    fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
        let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
        let (topic, next) = value.split_at(16);
        Some(Self {
            partition: PartitionId(i32::from_be_bytes(key[2..6].try_into().ok()?)),
            slice: Slice {
                worker: u16::from_be_bytes(key[6..8].try_into().ok()?),
                workers: u16::from_be_bytes(key[8..10].try_into().ok()?),
            },
            topic: TopicId(uuid::Uuid::from_bytes(topic.try_into().ok()?)),
            next: Offset(i64::from_be_bytes(next.try_into().ok()?)),
        })
    }

    /// Reads the positions of a store.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a row that is none.
    pub fn read_all(backend: &dyn StateBackend, store: StoreId) -> Result<Vec<Self>> {
        let mut positions = Vec::new();
        let mut unreadable = None;
        backend.scan(store, &MARK, &[0xff; KEY_BYTES + 1], &mut |key, value| {
            match Self::parse(key, value) {
                Some(position) => positions.push(position),
                None => unreadable = Some(key.to_vec()),
            }
            if unreadable.is_some() { Visit::Stop } else { Visit::More }
        })?;
        match unreadable {
            None => Ok(positions),
            Some(key) => Err(Error::new(
                ErrorKind::Corrupt,
                format!("the position row {key:02x?} is not {KEY_BYTES} and {VALUE_BYTES} bytes long"),
            )),
        }
    }
}
