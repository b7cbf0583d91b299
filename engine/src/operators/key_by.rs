//! `key_by`: rows with a key each, which chooses their worker.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::codec::Codec;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Batch, Data, Frame, KeyColumn};
use crate::message::Watermark;
use crate::operator::{Context, Operator, OperatorFactory, Progress, operator_factory};

/// Rows `(key, row)`, with the encoded key in the key column. What held for partitions of a source no longer
/// does: behind it there are watermarks of whole senders only.
pub fn key_by<K: Data, T: Data, C: Codec<K> + ?Sized>(
    key: impl Fn(&T) -> K + Send + Sync + 'static,
    codec: Arc<C>,
) -> Arc<dyn OperatorFactory> {
    let key = Arc::new(key);
    operator_factory(move |_| {
        let (key, codec) = (Arc::clone(&key), Arc::clone(&codec));
        Ok(KeyBy { key, codec, rows: PhantomData::<fn(T) -> K> })
    })
}

struct KeyBy<F, C: ?Sized, K, T> {
    key: Arc<F>,
    codec: Arc<C>,
    rows: PhantomData<fn(T) -> K>,
}

impl<K, T, C, F> Operator for KeyBy<F, C, K, T>
where
    K: Data,
    T: Data,
    C: Codec<K> + ?Sized,
    F: Fn(&T) -> K + Send + Sync,
{
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let Batch { rows, mut columns } = frame.into_batch::<T>();
        let mut keys = KeyColumn::with_capacity(rows.len());
        let mut keyed = Vec::with_capacity(rows.len());
        for row in rows {
            let key = (self.key)(&row);
            let encoded = keys.push_with(|out| self.codec.encode(&key, out));
            encoded.map_err(|error| Error::caused(ErrorKind::Invalid, "a key cannot be encoded", error))?;
            keyed.push((key, row));
        }
        columns.keys = keys;
        context.emit(0, Batch { rows: keyed, columns }.into());
        Ok(())
    }

    fn advance(
        &mut self,
        _input: usize,
        watermark: Watermark,
        context: &mut Context<'_>,
    ) -> Result<Progress> {
        if watermark.partition.is_none() {
            context.forward_watermark(watermark);
        }
        Ok(Progress::Done)
    }
}
