//! A stream joined with whatever the table holds when the stream's record arrives: "depends on arrival".

use std::sync::Arc;

use super::select::keep_some;
use crate::codec::Codec;
use crate::epoch::Epoch;
use crate::error::Result;
use crate::frame::{Batch, Data, Frame};
use crate::message::Watermark;
use crate::operator::{Context, Operator, OperatorFactory, Progress, operator_factory};
use crate::state::{KeyedState, Keys, Slot, StoreOrder};

/// The input of the stream.
const STREAM: usize = 0;

/// Joins `(K, V)` on input 0 with the table `(K, Option<T>)` on input 1, both exchanged by key. Port 0
/// emits the `(K, O)` that `join` makes of a record and the table's row, if there is one; nothing where it
/// makes none. A timeless table is joined in this way too.
///
/// Store: the encoded key behind its group; the table's row.
pub fn join_newest<K, V, T, O>(
    store: &str,
    table_codec: Arc<dyn Codec<T>>,
    join: impl Fn(&K, V, Option<&T>) -> Option<O> + Send + Sync + 'static,
) -> Arc<dyn OperatorFactory>
where
    K: Data,
    V: Data,
    T: Data,
    O: Data,
{
    let store = store.to_owned();
    let join = Arc::new(join);
    operator_factory(move |context| {
        Ok(JoinNewest::<K, V, T, O, _> {
            join: join.clone(),
            table: context.state.store(&store, table_codec.clone(), StoreOrder::Hashed)?,
            keys: Keys::default(),
            slots: Vec::new(),
            rows: std::marker::PhantomData,
        })
    })
}

struct JoinNewest<K, V, T, O, F> {
    join: Arc<F>,
    table: KeyedState<T>,
    keys: Keys,
    slots: Vec<Slot>,
    rows: std::marker::PhantomData<fn(K, V) -> O>,
}

impl<K, V, T, O, F> JoinNewest<K, V, T, O, F>
where
    K: Data,
    V: Data,
    T: Data,
    O: Data,
    F: Fn(&K, V, Option<&T>) -> Option<O>,
{
    fn join(&mut self, batch: Batch<(K, V)>, context: &mut Context<'_>) -> Result<()> {
        let Batch { rows, columns } = batch;
        self.keys.clear();
        for index in 0..rows.len() {
            self.keys.push(columns.keys.group(index), &[columns.keys.key(index)]);
        }
        self.table.resolve(&self.keys, &mut self.slots)?;
        let joined = rows.into_iter().zip(&self.slots).map(|((key, value), &slot)| {
            let result = (self.join)(&key, value, self.table.value(slot))?;
            Some((key, result))
        });
        context.emit(0, keep_some(columns, joined).into());
        Ok(())
    }

    fn update(&mut self, batch: Batch<(K, Option<T>)>) {
        let mut backend_key = Vec::new();
        for (index, (_, row)) in batch.rows.into_iter().enumerate() {
            let keys = &batch.columns.keys;
            backend_key.clear();
            crate::state::keys::write_key(&mut backend_key, keys.group(index), &[keys.key(index)]);
            match row {
                Some(row) => {
                    self.table.put(&backend_key, row);
                }
                None => self.table.remove(&backend_key),
            }
        }
    }
}

impl<K, V, T, O, F> Operator for JoinNewest<K, V, T, O, F>
where
    K: Data,
    V: Data,
    T: Data,
    O: Data,
    F: Fn(&K, V, Option<&T>) -> Option<O> + Send + Sync,
{
    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        match input {
            STREAM => self.join(frame.into_batch(), context),
            _ => {
                self.update(frame.into_batch());
                Ok(())
            }
        }
    }

    /// The table takes no part in the watermark: nothing waits for it.
    fn advance(&mut self, input: usize, watermark: Watermark, context: &mut Context<'_>) -> Result<Progress> {
        if input == STREAM {
            context.forward_watermark(watermark);
        }
        Ok(Progress::Done)
    }

    fn barrier(&mut self, epoch: Epoch, context: &mut Context<'_>) -> Result<()> {
        self.table.freeze(epoch, context.processing_time, context.writer)
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.table.committed(epoch)
    }
}

#[cfg(test)]
mod tests;
