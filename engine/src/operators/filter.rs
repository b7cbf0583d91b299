//! `filter`: the rows for which something holds.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::Result;
use crate::frame::{Data, Frame, retain};
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};

/// The rows for which `keep` holds.
pub fn filter<T: Data>(keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Arc<dyn OperatorFactory> {
    let keep = Arc::new(keep);
    operator_factory(move |_| {
        Ok(Filter { keep: Arc::clone(&keep), kept: Vec::new(), rows: PhantomData::<fn(T)> })
    })
}

struct Filter<F, T> {
    keep: Arc<F>,
    /// The decisions on one frame.
    kept: Vec<bool>,
    rows: PhantomData<fn(T)>,
}

impl<T: Data, F: Fn(&T) -> bool + Send + Sync> Operator for Filter<F, T> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let mut batch = frame.into_batch::<T>();
        self.kept.clear();
        self.kept.extend(batch.rows.iter().map(|row| (self.keep)(row)));
        if self.kept.contains(&false) {
            retain(&mut batch.rows, &self.kept);
            batch.columns.retain(&self.kept);
        }
        context.emit(0, batch.into());
        Ok(())
    }
}
