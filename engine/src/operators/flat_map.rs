//! `flat_map`: any number of rows for each.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::Result;
use crate::frame::{Batch, Data, Frame};
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};

/// All rows that `f` makes of each, in order. Each keeps the time, watermark, origin and key of the row it
/// was made of.
pub fn flat_map<T: Data, U: Data, I: IntoIterator<Item = U>>(
    f: impl Fn(T) -> I + Send + Sync + 'static,
) -> Arc<dyn OperatorFactory> {
    let f = Arc::new(f);
    operator_factory(move |context| {
        let frame_rows_max = context.frame_rows_max;
        Ok(FlatMap { f: Arc::clone(&f), frame_rows_max, rows: PhantomData::<fn(T) -> U> })
    })
}

struct FlatMap<F, T, U> {
    f: Arc<F>,
    frame_rows_max: usize,
    rows: PhantomData<fn(T) -> U>,
}

impl<T, U, I, F> Operator for FlatMap<F, T, U>
where
    T: Data,
    U: Data,
    I: IntoIterator<Item = U>,
    F: Fn(T) -> I + Send + Sync,
{
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let Batch { rows, columns } = frame.into_batch::<T>();
        let mut made = Batch::<U>::default();
        for (index, row) in rows.into_iter().enumerate() {
            for row in (self.f)(row) {
                made.rows.push(row);
                made.columns.push_from(&columns, index);
                if made.rows.len() >= self.frame_rows_max {
                    context.emit(0, std::mem::take(&mut made).into());
                }
            }
        }
        context.emit(0, made.into());
        Ok(())
    }
}
