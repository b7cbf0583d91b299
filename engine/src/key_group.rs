//! Key groups: the fixed hash slots of keys, which are the unit of ownership and of rescaling.

use lotic_log::PartitionId;

/// How many key groups there are. Part of every store's layout: it never changes.
pub const KEY_GROUPS: u16 = 256;

/// A hash slot of keys: Kafka's murmur2 of the encoded key, modulo [`KEY_GROUPS`]. It decides which
/// worker owns a key and in which changelog partition its state is written; neither depends on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The group of an encoded key whose murmur2 is `hash`.
    pub const fn of_hash(hash: u32) -> Self {
        Self((hash & 0x7fff_ffff) as u16 % KEY_GROUPS)
    }

    /// The worker, of `workers`, that owns this group.
    pub const fn worker(self, workers: usize) -> usize {
        self.0 as usize % workers
    }

    /// The changelog partition, of `partitions`, that holds this group's state.
    pub const fn changelog_partition(self, partitions: i32) -> PartitionId {
        PartitionId(self.0 as i32 % partitions)
    }

    /// The groups that `worker` of `workers` owns.
    pub fn owned_by(worker: usize, workers: usize) -> impl Iterator<Item = Self> {
        (0..KEY_GROUPS).map(Self).filter(move |group| group.worker(workers) == worker)
    }
}
