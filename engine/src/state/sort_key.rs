//! Keys in the order of their bytes, compared fast.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

/// The bytes that are compared as one number.
const PREFIX_BYTES: usize = size_of::<u128>();

/// A key that sorts as its bytes do. What decides most comparisons, its beginning, is kept as a number, so
/// that a search need not follow a pointer at every step.
pub(super) struct SortKey {
    prefix: u128,
    key: Arc<[u8]>,
}

impl SortKey {
    pub(super) fn new(key: &Arc<[u8]>) -> Self {
        let mut prefix = [0; PREFIX_BYTES];
        let bytes = key.len().min(PREFIX_BYTES);
        prefix[..bytes].copy_from_slice(&key[..bytes]);
        Self { prefix: u128::from_be_bytes(prefix), key: Arc::clone(key) }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.key
    }
}

impl Ord for SortKey {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for SortKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for SortKey {}

impl PartialEq for SortKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// Both sort alike, so a range may be looked for by bytes.
impl Borrow<[u8]> for SortKey {
    #[inline]
    fn borrow(&self) -> &[u8] {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_sort_as_their_bytes(
            start in proptest::collection::vec(0..2_u8, 0..20),
            ends in proptest::array::uniform2(proptest::collection::vec(0..2_u8, 0..4)),
        ) {
            let [one, other]: [Arc<[u8]>; 2] = ends.map(|end| [start.as_slice(), &end].concat().into());
            let ordering = SortKey::new(&one).cmp(&SortKey::new(&other));
            prop_assert_eq!(ordering, one.cmp(&other));
        }
    }
}
