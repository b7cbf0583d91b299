//! `map`: one row for each.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::Result;
use crate::frame::{Batch, Data, Frame};
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};

/// The row that `f` makes of each. Times, watermarks, origins and keys stay: a row whose key changes goes
/// through [`key_by`](super::key_by()).
pub fn map<T: Data, U: Data>(f: impl Fn(T) -> U + Send + Sync + 'static) -> Arc<dyn OperatorFactory> {
    let f = Arc::new(f);
    operator_factory(move |_| Ok(Map { f: Arc::clone(&f), rows: PhantomData }))
}

struct Map<F, T, U> {
    f: Arc<F>,
    rows: PhantomData<fn(T) -> U>,
}

impl<T: Data, U: Data, F: Fn(T) -> U + Send + Sync> Operator for Map<F, T, U> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let Batch { rows, columns } = frame.into_batch::<T>();
        let rows: Vec<U> = rows.into_iter().map(|row| (self.f)(row)).collect();
        context.emit(0, Batch { rows, columns }.into());
        Ok(())
    }
}
