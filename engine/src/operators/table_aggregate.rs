//! A table that is updated by every record: one result for each record taken in.

use std::sync::Arc;

use crate::aggregate::Aggregate;
use crate::codec::Codec;
use crate::epoch::Epoch;
use crate::error::Result;
use crate::frame::{Batch, Data, Frame};
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};
use crate::state::{KeyedState, Keys, Slot, StoreOrder};

/// Aggregates `(K, V)` by key. Port 0 emits `(K, Some(result))` for each record, at its event time.
///
/// Store: the encoded key behind its group; the aggregate's state.
pub fn table_aggregate<K, V, A>(
    store: &str,
    aggregate: Arc<A>,
    state_codec: Arc<dyn Codec<A::State>>,
) -> Arc<dyn OperatorFactory>
where
    K: Data,
    V: Data,
    A: Aggregate<V>,
{
    let store = store.to_owned();
    operator_factory(move |context| {
        Ok(TableAggregate::<K, V, A> {
            aggregate: aggregate.clone(),
            state: context.state.store(&store, state_codec.clone(), StoreOrder::Hashed)?,
            keys: Keys::default(),
            slots: Vec::new(),
            rows: std::marker::PhantomData,
        })
    })
}

struct TableAggregate<K, V, A: Aggregate<V>> {
    aggregate: Arc<A>,
    state: KeyedState<A::State>,
    /// The keys of one frame, and their entries; kept for their memory.
    keys: Keys,
    slots: Vec<Slot>,
    rows: std::marker::PhantomData<fn(K, V)>,
}

impl<K: Data, V: Data, A: Aggregate<V>> Operator for TableAggregate<K, V, A> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let Batch { rows, columns } = frame.into_batch::<(K, V)>();
        self.keys.clear();
        for index in 0..rows.len() {
            self.keys.push(columns.keys.group(index), &[columns.keys.key(index)]);
        }
        self.state.resolve(&self.keys, &mut self.slots)?;
        let mut results = Vec::with_capacity(rows.len());
        for ((key, value), &slot) in rows.into_iter().zip(&self.slots) {
            let state = self.state.value_mut(slot).get_or_insert_with(|| self.aggregate.init());
            self.aggregate.add(state, &value);
            results.push((key, Some(self.aggregate.result(state))));
        }
        context.emit(0, Batch { rows: results, columns }.into());
        Ok(())
    }

    fn barrier(&mut self, epoch: Epoch, context: &mut Context<'_>) -> Result<()> {
        self.state.freeze(epoch, context.processing_time, context.writer)
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.state.committed(epoch)
    }
}

#[cfg(test)]
mod tests;
