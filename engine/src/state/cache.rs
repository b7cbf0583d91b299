//! Typed entries by key: a hash table over slots, with second-chance eviction.
//!
//! The cache knows which entries may go (clean ones) and nothing of epochs or backends otherwise.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::epoch::Epoch;

/// The place of an entry. It stays valid while the entry is changed or frozen, and otherwise until the
/// next call that may read from the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(super) u32);

pub(super) struct Entry<V> {
    pub(super) key: Arc<[u8]>,
    hash: u64,
    /// The newest value; `None` is a key that is known not to exist.
    pub(super) value: Option<V>,
    /// What the entry is charged with.
    pub(super) bytes: usize,
    /// The newest epoch it was frozen for that the backend has not taken; 0 if there is none.
    pub(super) frozen: Epoch,
    /// Its place among those changed in the running epoch, if it was.
    pub(super) dirty: Option<u32>,
    /// How often it was changed in the running epoch.
    pub(super) changes: u32,
    /// Whether the backend, or a frozen epoch, holds a value under this key: a removal must be written.
    pub(super) stored: bool,
    /// Used since the hand passed.
    pub(super) referenced: bool,
}

impl<V> Entry<V> {
    /// Whether the backend has the same, so that it may be forgotten.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_none() && self.frozen == Epoch(0)
    }
}

/// What is put into the cache.
pub(super) struct NewEntry<V> {
    pub(super) value: Option<V>,
    pub(super) encoded_bytes: usize,
    pub(super) stored: bool,
}

pub(super) struct Cache<V> {
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    entries: Vec<Option<Entry<V>>>,
    vacant: Vec<u32>,
    hand: usize,
}

impl<V> Cache<V> {
    pub(super) fn new() -> Self {
        Self {
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            entries: Vec::new(),
            vacant: Vec::new(),
            hand: 0,
        }
    }

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let entries = &self.entries;
        let found = self.table.find(hash, |&slot| {
            entries[slot as usize].as_ref().is_some_and(|entry| entry.hash == hash && *entry.key == *key)
        });
        found.map(|&slot| Slot(slot))
    }

    /// Adds an entry for a key that has none.
    pub(super) fn insert(&mut self, hash: u64, key: &[u8], new: NewEntry<V>) -> Slot {
        let entry = Entry {
            key: key.into(),
            hash,
            value: new.value,
            bytes: entry_bytes::<V>(key.len(), new.encoded_bytes),
            frozen: Epoch(0),
            dirty: None,
            changes: 0,
            stored: new.stored,
            referenced: true,
        };
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                u32::try_from(self.entries.len() - 1).expect("a cache holds fewer than 2^32 entries")
            }
        };
        self.entries[slot as usize] = Some(entry);
        let entries = &self.entries;
        self.table.insert_unique(hash, slot, |&slot| {
            entries[slot as usize].as_ref().expect("the table names live entries").hash
        });
        Slot(slot)
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Entry<V> {
        let entry = self.entries[slot.0 as usize].take().expect("a slot names a live entry");
        let found = self.table.find_entry(entry.hash, |&other| other == slot.0);
        found.expect("the table names every live entry").remove();
        self.vacant.push(slot.0);
        entry
    }

    #[inline]
    pub(super) fn entry(&self, slot: Slot) -> &Entry<V> {
        self.entries[slot.0 as usize].as_ref().expect("a slot names a live entry")
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, slot: Slot) -> &mut Entry<V> {
        self.entries[slot.0 as usize].as_mut().expect("a slot names a live entry")
    }

    /// Removes clean entries, those not used for longest first or nearly so, until `bytes` are free or
    /// none is left. Says how many bytes were freed.
    pub(super) fn evict(&mut self, bytes: usize) -> usize {
        let mut freed = 0;
        // Once round takes the marks away, the second time takes the entries.
        let mut steps = 2 * self.entries.len();
        while freed < bytes && steps > 0 {
            steps -= 1;
            self.hand = if self.hand + 1 < self.entries.len() { self.hand + 1 } else { 0 };
            let Some(entry) = &mut self.entries[self.hand] else { continue };
            if std::mem::take(&mut entry.referenced) || !entry.is_clean() {
                continue;
            }
            freed += self.remove(Slot(self.hand as u32)).bytes;
        }
        freed
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

/// What an entry takes: itself, its key's allocation, its place in the table, and what its value holds
/// elsewhere, taken for as long as its encoded form.
pub(super) fn entry_bytes<V>(key_bytes: usize, encoded_bytes: usize) -> usize {
    const ARC_HEADER_BYTES: usize = 16;
    const TABLE_BYTES: usize = 8;
    size_of::<Option<Entry<V>>>() + ARC_HEADER_BYTES + TABLE_BYTES + key_bytes + encoded_bytes
}
