//! One store as one worker sees it: a typed write-back cache over the backend.
//!
//! ```text
//!            changed              barrier               committed
//!   clean ────────────▶ dirty ────────────▶ frozen ─────────────────▶ clean
//!                         ▲                    │ changed again: dirty and frozen
//!                         └────────────────────┘
//! ```
//!
//! What is dirty or frozen is not in the backend yet and stays in memory; what is clean may be evicted. An
//! entry holds the newest value, so a read takes it from the entry, or from the backend where there is
//! none. In a store opened as [`StoreOrder::Sorted`], what the backend lacks is indexed in order too, and a
//! scan [merges](stretches) it with the backend's rows.
//!
//! What is dirty is charged to the budget by its encoded size, which only encoding tells. A value that is
//! put is measured at once; one that is changed in place whenever the number of its changes has doubled, so
//! that one that grows with each change is charged with half of what it takes, at least.
//!
//! Owned by one worker's thread. Dropped when an epoch is aborted or the process dies, and with it all
//! that was not committed.

mod stretches;

use std::collections::VecDeque;
use std::sync::Arc;

use lotic_log::Timestamp;

use self::stretches::Overlay;
use super::budget::StateBudget;
use super::cache::{Cache, NewEntry, Slot, entry_bytes};
use super::changelog::{Changelog, ChangelogWriter, ValueCodec};
use super::sort_key::SortKey;
use super::{Keys, StateBackend, StoreId, WriteSet};
use crate::epoch::Epoch;
use crate::error::Result;
use crate::frame::Data;

/// Whether a store is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOrder {
    /// Only ever read by key.
    Hashed,
    /// Scanned in the order of its keys too.
    Sorted,
}

/// Typed state by key. Keys are backend keys: they begin with their key group.
pub struct KeyedState<V> {
    backend: Arc<dyn StateBackend>,
    store: StoreId,
    codec: ValueCodec<V>,
    changelog: Changelog,
    budget: Arc<StateBudget>,
    cache: Cache<V>,
    /// The entries that the backend lacks, in order; for sorted stores.
    overlay: Option<Overlay>,
    dirty: Vec<Slot>,
    dirty_bytes: usize,
    clean_bytes: usize,
    frozen: VecDeque<Frozen>,
    /// Keys to be read from the backend; kept for its memory.
    missing: Vec<Slot>,
    /// What was encoded to be measured; kept for its memory.
    measured: Vec<u8>,
    /// About what a value takes, encoded: new ones are charged with it until they are measured.
    typical_bytes: usize,
}

/// What one epoch changed, until the backend has taken it.
struct Frozen {
    epoch: Epoch,
    slots: Vec<Slot>,
    writes: WriteSet,
    charged_bytes: usize,
}

/// What a store is made of.
pub(super) struct StoreParts<V> {
    pub(super) backend: Arc<dyn StateBackend>,
    pub(super) store: StoreId,
    pub(super) codec: ValueCodec<V>,
    pub(super) changelog: Changelog,
    pub(super) budget: Arc<StateBudget>,
    pub(super) order: StoreOrder,
}

impl<V: Data> KeyedState<V> {
    pub(super) fn new(parts: StoreParts<V>) -> Self {
        parts.budget.stores.add(1);
        Self {
            backend: parts.backend,
            store: parts.store,
            codec: parts.codec,
            changelog: parts.changelog,
            budget: parts.budget,
            cache: Cache::new(),
            overlay: (parts.order == StoreOrder::Sorted).then(Overlay::new),
            dirty: Vec::new(),
            dirty_bytes: 0,
            clean_bytes: 0,
            frozen: VecDeque::new(),
            missing: Vec::new(),
            measured: Vec::new(),
            typical_bytes: 0,
        }
    }

    /// Finds the entries of many keys, reading those that are not in memory from the backend at once.
    /// `slots` gets one for each key; a key twice in `keys` gets the same slot twice.
    pub fn resolve(&mut self, keys: &Keys, slots: &mut Vec<Slot>) -> Result<()> {
        self.resolve_where(keys, slots, |_| true)
    }

    /// As [`Self::resolve`]; the backend is not asked for a key whose place `may_exist` denies: it is not
    /// there unless it is in memory.
    pub fn resolve_where(
        &mut self,
        keys: &Keys,
        slots: &mut Vec<Slot>,
        may_exist: impl Fn(usize) -> bool,
    ) -> Result<()> {
        self.make_room();
        slots.clear();
        slots.reserve(keys.len());
        let mut missing = std::mem::take(&mut self.missing);
        missing.clear();
        for (index, key) in keys.iter().enumerate() {
            let hash = self.cache.hash(key);
            slots.push(self.cache.find(hash, key).unwrap_or_else(|| {
                let unread = NewEntry { value: None, encoded_bytes: 0, stored: false };
                let slot = self.cache.insert(hash, key, unread);
                if may_exist(index) {
                    missing.push(slot);
                } else {
                    self.add_clean(self.cache.entry(slot).bytes);
                }
                slot
            }));
        }
        let read = if missing.is_empty() { Ok(()) } else { self.read(&missing) };
        self.missing = missing;
        read
    }

    /// The value of an entry; `None` where the key does not exist.
    #[inline]
    pub fn value(&self, slot: Slot) -> Option<&V> {
        self.cache.entry(slot).value.as_ref()
    }

    /// The value of an entry, to be changed: put, updated or, by taking it out, removed.
    #[inline]
    pub fn value_mut(&mut self, slot: Slot) -> &mut Option<V> {
        let entry = self.cache.entry_mut(slot);
        if entry.dirty.is_none() {
            self.mark_dirty(slot);
        } else {
            entry.changes = entry.changes.saturating_add(1);
            if entry.changes.is_power_of_two() {
                self.measure(slot);
            }
        }
        let entry = self.cache.entry_mut(slot);
        entry.referenced = true;
        &mut entry.value
    }

    /// The value under `key`.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&V>> {
        let slot = self.slot(key)?;
        let entry = self.cache.entry_mut(slot);
        entry.referenced = true;
        Ok(entry.value.as_ref())
    }

    /// Changes the value under `key`.
    pub fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Option<V>) -> R) -> Result<R> {
        let slot = self.slot(key)?;
        Ok(change(self.value_mut(slot)))
    }

    /// Puts a value, whatever was there; the backend is not asked.
    ///
    /// Says how many bytes it takes encoded.
    pub fn put(&mut self, key: &[u8], value: V) -> usize {
        self.overwrite(key, true, Some(value))
    }

    /// Puts a value under a key that does not exist; the backend, which may still hold one that was removed, is not
    /// asked. If it is removed before the epoch ends, no trace of it is written.
    pub fn put_new(&mut self, key: &[u8], value: V) {
        self.overwrite(key, false, Some(value));
    }

    /// Removes a key, whether it exists or not; the backend is not asked.
    pub fn remove(&mut self, key: &[u8]) {
        let hash = self.cache.hash(key);
        let known = self.cache.find(hash, key);
        if let Some(slot) = known
            && let entry = self.cache.entry(slot)
            && !entry.stored
            && entry.frozen == Epoch(0)
            && let Some(place) = entry.dirty
        {
            self.unmark_dirty(place);
            self.forget(slot);
        } else {
            self.overwrite(key, true, None);
        }
    }

    /// Writes what the running epoch changed to the changelog, and freezes it: it goes to the backend once
    /// the epoch is committed. `time` is the timestamp of the changelog's records.
    pub fn freeze(&mut self, epoch: Epoch, time: Timestamp, writer: &mut impl ChangelogWriter) -> Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let mut frozen = Frozen { epoch, slots: Vec::new(), writes: WriteSet::default(), charged_bytes: 0 };
        let dirty = std::mem::take(&mut self.dirty);
        for &slot in &dirty {
            self.freeze_entry(slot, &mut frozen)?;
        }
        for (key, value) in frozen.writes.iter() {
            self.changelog.write(writer, time, key, value)?;
        }
        self.budget.dirty_bytes.subtract(std::mem::take(&mut self.dirty_bytes));
        frozen.charged_bytes += frozen.writes.memory_bytes();
        self.budget.frozen_bytes.add(frozen.charged_bytes);
        self.frozen.push_back(frozen);
        Ok(())
    }

    /// `epoch` is committed: what was frozen for it goes to the backend, and may be evicted from now on.
    /// [`StateAccess::publish_ends`](super::StateAccess::publish_ends) was called for it.
    pub fn committed(&mut self, epoch: Epoch) -> Result<()> {
        let mut frozen = self.frozen.pop_front_if(|frozen| frozen.epoch == epoch);
        let mut none = WriteSet::default();
        // Also without changes of its own: the other workers may have moved the changelog on, and a slice
        // that is not moved along would make the next restore read all of it again.
        let writes = frozen.as_mut().map_or(&mut none, |frozen| &mut frozen.writes);
        self.changelog.put_positions(epoch, writes);
        if !writes.is_empty() {
            self.backend.apply(self.store, writes)?;
        }
        if let Some(frozen) = frozen {
            self.thaw(&frozen);
        }
        self.make_room();
        Ok(())
    }

    /// Bytes of what was changed in the running epoch.
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Bytes of what may be evicted.
    pub fn clean_bytes(&self) -> usize {
        self.clean_bytes
    }

    /// How many entries are in memory.
    pub fn entries(&self) -> usize {
        self.cache.len()
    }

    fn slot(&mut self, key: &[u8]) -> Result<Slot> {
        let hash = self.cache.hash(key);
        if let Some(slot) = self.cache.find(hash, key) {
            return Ok(slot);
        }
        self.make_room();
        let slot = self.cache.insert(hash, key, NewEntry { value: None, encoded_bytes: 0, stored: false });
        self.read(&[slot])?;
        Ok(slot)
    }

    /// Fills entries that were made for it from the backend. After an error they are gone.
    fn read(&mut self, missing: &[Slot]) -> Result<()> {
        let keys: Vec<&[u8]> = missing.iter().map(|&slot| &*self.cache.entry(slot).key).collect();
        let mut found = Vec::with_capacity(missing.len());
        let mut failed = Ok(());
        let read = self.backend.get_many(self.store, &keys, &mut |index, bytes| match self
            .codec
            .decode(keys[index], bytes)
        {
            Ok(value) => found.push((missing[index], value, bytes.len())),
            Err(error) => failed = Err(error),
        });
        if let Err(error) = read.and(failed) {
            missing.iter().for_each(|&slot| drop(self.cache.remove(slot)));
            return Err(error);
        }
        for (slot, value, encoded_bytes) in found {
            let entry = self.cache.entry_mut(slot);
            entry.value = Some(value);
            entry.stored = true;
            entry.bytes += encoded_bytes;
        }
        let bytes = missing.iter().map(|&slot| self.cache.entry(slot).bytes).sum();
        self.add_clean(bytes);
        Ok(())
    }

    /// Replaces the value of a key whose old one does not matter. How many bytes the new one takes encoded.
    fn overwrite(&mut self, key: &[u8], stored: bool, value: Option<V>) -> usize {
        let hash = self.cache.hash(key);
        let slot = match self.cache.find(hash, key) {
            Some(slot) => slot,
            None => {
                let slot = self.cache.insert(hash, key, NewEntry { value: None, encoded_bytes: 0, stored });
                self.add_clean(self.cache.entry(slot).bytes);
                slot
            }
        };
        if self.cache.entry(slot).dirty.is_none() {
            self.mark_dirty(slot);
        }
        let entry = self.cache.entry_mut(slot);
        entry.referenced = true;
        entry.value = value;
        self.measure(slot)
    }

    /// Charges a dirty entry with what its value takes now. How many bytes that is, encoded.
    fn measure(&mut self, slot: Slot) -> usize {
        let entry = self.cache.entry_mut(slot);
        self.measured.clear();
        if let Some(value) = &entry.value {
            // A value that cannot be written is refused at the barrier; until then it is charged with what
            // there is of it.
            let _ = self.codec.encode(&entry.key, value, &mut self.measured);
        }
        let encoded_bytes = self.measured.len();
        let before = std::mem::replace(&mut entry.bytes, entry_bytes::<V>(entry.key.len(), encoded_bytes));
        let now = entry.bytes;
        self.recharge(before, now);
        encoded_bytes
    }

    /// A dirty entry takes `now` bytes, and no longer `before`.
    fn recharge(&mut self, before: usize, now: usize) {
        self.dirty_bytes = self.dirty_bytes - before + now;
        if now > before {
            self.budget.dirty_bytes.add(now - before);
        } else {
            self.budget.dirty_bytes.subtract(before - now);
        }
    }

    #[cold]
    fn mark_dirty(&mut self, slot: Slot) {
        let entry = self.cache.entry_mut(slot);
        let was_clean = entry.is_clean();
        entry.dirty = Some(u32::try_from(self.dirty.len()).expect("a cache holds fewer than 2^32 entries"));
        entry.changes = 1;
        let clean_bytes = entry.bytes;
        if entry.value.is_none() {
            entry.bytes = entry_bytes::<V>(entry.key.len(), self.typical_bytes);
        }
        let bytes = entry.bytes;
        if let Some(overlay) = &mut self.overlay
            && was_clean
        {
            overlay.insert(SortKey::new(&entry.key), slot);
        }
        self.dirty.push(slot);
        self.dirty_bytes += bytes;
        self.budget.dirty_bytes.add(bytes);
        if was_clean {
            self.subtract_clean(clean_bytes);
        }
    }

    /// Takes an entry back out of those that are dirty; it is about to be forgotten.
    fn unmark_dirty(&mut self, place: u32) {
        let slot = self.dirty.swap_remove(place as usize);
        let bytes = self.cache.entry(slot).bytes;
        self.dirty_bytes -= bytes;
        self.budget.dirty_bytes.subtract(bytes);
        if let Some(&moved) = self.dirty.get(place as usize) {
            self.cache.entry_mut(moved).dirty = Some(place);
        }
    }

    fn freeze_entry(&mut self, slot: Slot, frozen: &mut Frozen) -> Result<()> {
        let entry = self.cache.entry_mut(slot);
        entry.dirty = None;
        match &entry.value {
            Some(value) => {
                let codec = &self.codec;
                let encoded_bytes =
                    frozen.writes.put_with(&entry.key, |out| codec.encode(&entry.key, value, out))?;
                entry.bytes = entry_bytes::<V>(entry.key.len(), encoded_bytes);
                self.typical_bytes = match self.typical_bytes {
                    0 => encoded_bytes,
                    typical => (7 * typical + encoded_bytes).div_ceil(8),
                };
                entry.stored = true;
            }
            None if entry.stored => {
                frozen.writes.delete(&entry.key);
                entry.stored = false;
            }
            None => {
                // It came and went within the epoch: nothing is to be written. An older epoch may still
                // hold the entry.
                if entry.is_clean() {
                    self.forget(slot);
                }
                return Ok(());
            }
        }
        entry.frozen = frozen.epoch;
        frozen.charged_bytes += entry.bytes;
        frozen.slots.push(slot);
        Ok(())
    }

    /// The backend has what was frozen.
    fn thaw(&mut self, frozen: &Frozen) {
        self.budget.frozen_bytes.subtract(frozen.charged_bytes);
        for &slot in &frozen.slots {
            let entry = self.cache.entry_mut(slot);
            if entry.frozen > frozen.epoch {
                continue;
            }
            entry.frozen = Epoch(0);
            if entry.dirty.is_some() {
                continue;
            }
            if entry.value.is_none() {
                self.forget(slot);
                continue;
            }
            let bytes = entry.bytes;
            if let Some(overlay) = &mut self.overlay {
                overlay.remove(&SortKey::new(&self.cache.entry(slot).key));
            }
            self.add_clean(bytes);
        }
    }

    /// Drops an entry that is not counted as clean yet.
    fn forget(&mut self, slot: Slot) {
        let entry = self.cache.remove(slot);
        if let Some(overlay) = &mut self.overlay {
            overlay.remove(&SortKey::new(&entry.key));
        }
    }

    fn make_room(&mut self) {
        let target = self.budget.clean_target(self.clean_bytes);
        if target < self.clean_bytes {
            let freed = self.cache.evict(self.clean_bytes - target);
            self.subtract_clean(freed);
        }
    }

    fn add_clean(&mut self, bytes: usize) {
        self.clean_bytes += bytes;
        self.budget.clean_bytes.add(bytes);
    }

    fn subtract_clean(&mut self, bytes: usize) {
        self.clean_bytes -= bytes;
        self.budget.clean_bytes.subtract(bytes);
    }
}

impl<V> Drop for KeyedState<V> {
    fn drop(&mut self) {
        self.budget.stores.subtract(1);
        self.budget.clean_bytes.subtract(self.clean_bytes);
        self.budget.dirty_bytes.subtract(self.dirty_bytes);
        for frozen in &self.frozen {
            self.budget.frozen_bytes.subtract(frozen.charged_bytes);
        }
    }
}

#[cfg(test)]
mod tests;
