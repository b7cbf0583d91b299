//! `last_of_key`: of the changes of a table that travel together, those that nothing follows.

use std::marker::PhantomData;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::error::Result;
use crate::frame::{Batch, Data, Frame, KeyColumn, retain};
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};

/// Of the rows of one key in a frame the last; the others are left out. For what keeps one row of a key only.
///
/// How much is left out depends on how much travels together. So nothing that counts rows, or tells them apart
/// by more than their key, may come behind it.
pub fn last_of_key<T: Data>() -> Arc<dyn OperatorFactory> {
    operator_factory(|_| Ok(LastOfKey { last: Last::default(), rows: PhantomData::<fn(T) -> T> }))
}

struct LastOfKey<T> {
    last: Last,
    rows: PhantomData<fn(T) -> T>,
}

impl<T: Data> Operator for LastOfKey<T> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let Batch { mut rows, mut columns } = frame.into_batch::<T>();
        debug_assert_eq!(columns.keys.len(), rows.len(), "the rows of a table have keys");
        if self.last.find(&columns.keys) < rows.len() {
            retain(&mut rows, &self.last.is_last);
            columns.retain(&self.last.is_last);
        }
        context.emit(0, Batch { rows, columns }.into());
        Ok(())
    }
}

/// Which rows of a frame are the last of their key; kept for its memory.
#[derive(Default)]
struct Last {
    is_last: Vec<bool>,
    /// The places of the keys that were found, by their hash.
    found: HashTable<usize>,
}

impl Last {
    /// Finds them. How many they are.
    fn find(&mut self, keys: &KeyColumn) -> usize {
        self.found.clear();
        self.is_last.clear();
        self.is_last.resize(keys.len(), false);
        let hash = |index: usize| spread(keys.hash(index));
        for index in (0..keys.len()).rev() {
            let is_known =
                self.found.find(hash(index), |&other| keys.key(other) == keys.key(index)).is_some();
            if !is_known {
                self.found.insert_unique(hash(index), index, |&other| hash(other));
                self.is_last[index] = true;
            }
        }
        self.found.len()
    }
}

/// A hash table looks at both ends of 64 bits; what is known are 32.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
