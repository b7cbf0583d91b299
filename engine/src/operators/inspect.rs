//! `inspect`: a look at each row as it passes.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::Result;
use crate::frame::{Data, Frame};
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};

/// Shows each row to `look`, and passes it on. After a restart a row may be shown again.
pub fn inspect<T: Data>(look: impl Fn(&T) + Send + Sync + 'static) -> Arc<dyn OperatorFactory> {
    let look = Arc::new(look);
    operator_factory(move |_| Ok(Inspect { look: Arc::clone(&look), rows: PhantomData::<fn(T)> }))
}

struct Inspect<F, T> {
    look: Arc<F>,
    rows: PhantomData<fn(T)>,
}

impl<T: Data, F: Fn(&T) + Send + Sync> Operator for Inspect<F, T> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let batch = frame.into_batch::<T>();
        batch.rows.iter().for_each(|row| (self.look)(row));
        context.emit(0, batch.into());
        Ok(())
    }
}
