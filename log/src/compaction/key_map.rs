//! The newest offset of each key in a range of offsets, in a bounded number of bytes.
//!
//! A key is its hash of 16 bytes, as in Kafka's `SkimpyOffsetMap`; the hash is SipHash with a key of its
//! own for each map, so that nobody can make up two keys that are taken for one. Slots are probed one
//! after the other.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::record::Offset;

/// Of a hundred slots so many are used at most: with more, a search is long.
const LOAD_PERCENT_MAX: usize = 85;

/// A hash in two words, and an offset, one more than it is: 0 is an empty slot. An array, so that slots
/// that are never used take no memory.
type Slot = [u64; 3];

/// Which offset each key was seen last at.
pub(super) struct KeyMap {
    slots: Vec<Slot>,
    used: usize,
    used_max: usize,
    seed: [u64; 2],
}

impl KeyMap {
    /// Bytes that one key takes.
    pub(super) const KEY_BYTES: usize = size_of::<Slot>();

    /// A map of at most `bytes` bytes, for one key at least.
    pub(super) fn new(bytes: usize, seed: [u64; 2]) -> Self {
        let slots = (bytes / Self::KEY_BYTES).max(2);
        let used_max = (slots * LOAD_PERCENT_MAX / 100).max(1);
        Self { slots: vec![[0; 3]; slots], used: 0, used_max, seed }
    }

    /// Notes that `key` is at `offset`, behind every offset noted before. Says whether there was room.
    #[must_use]
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let index = self.find(hash);
        if self.slots[index][2] == 0 {
            if self.used == self.used_max {
                return false;
            }
            self.used += 1;
        }
        self.slots[index] = [hash[0], hash[1], offset.0 as u64 + 1];
        true
    }

    /// The newest offset of `key` that was noted.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        let [_, _, offset] = self.slots[self.find(self.hash(key))];
        offset.checked_sub(1).map(|offset| Offset(offset as i64))
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher24::new_with_keys(self.seed[0], self.seed[1]);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The slot of this hash, or the empty one that it would take.
    fn find(&self, hash: [u64; 2]) -> usize {
        let slots = self.slots.len();
        let mut index = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        while self.slots[index][2] != 0 && self.slots[index][..2] != hash {
            index = if index + 1 == slots { 0 } else { index + 1 };
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_until_it_is_full(keys in prop::collection::vec(0u8..60, 0..200), slots in 2usize..80) {
            let mut map = KeyMap::new(slots * KeyMap::KEY_BYTES, [1, 2]);
            let mut model = HashMap::new();
            for (offset, key) in keys.into_iter().enumerate() {
                let has_room = model.contains_key(&key) || model.len() < map.used_max;
                prop_assert_eq!(map.put(&[key], Offset(offset as i64)), has_room);
                if has_room {
                    model.insert(key, Offset(offset as i64));
                }
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0..80u8 {
                prop_assert_eq!(map.get(&[key]), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn it_takes_no_more_bytes_than_it_was_given_and_holds_one_key_at_least() {
        for bytes in [0, 100, 1000, 100_000] {
            let mut map = KeyMap::new(bytes, [0, 0]);
            assert!(map.slots.len() * KeyMap::KEY_BYTES <= bytes.max(2 * KeyMap::KEY_BYTES));
            assert!(map.put(b"key", Offset(0)));
            assert_eq!(map.get(b"key"), Some(Offset(0)));
        }
    }
}
