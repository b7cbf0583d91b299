//! The port of what a flow feeds outside the log: files, databases, services.
//!
//! A sink writes as events come, makes an epoch's output ready at its barrier ([`Sink::prepare`]), and is
//! told when the epoch is committed ([`Sink::commit`]). Between the two the log decides. After a crash
//! [`SinkFactory::recover`] hears which epoch was the last one committed: what was prepared for it or
//! before is finished, what was prepared later is dropped. So a sink that keeps its progress in its target
//! (a row in the same SQL transaction, the epoch in the file's name), or can prepare and commit in two
//! phases, sees each event exactly once; one that can do neither says so.
//!
//! Recovery is final: so before it the transactional id is taken, and no commit of an earlier attempt can be
//! decided behind its back.

use std::sync::Arc;

use crate::epoch::Epoch;
use crate::error::Result;
use crate::frame::{Batch, Data, Frame};
use crate::operator::{Context, OpenContext, Operator, OperatorFactory, StepPlace};

/// How often the effect of an event is seen, whatever crashes. Ordered: the weaker one is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// At least once: after a crash some may be seen again.
    AtLeastOnce,
    /// Exactly once.
    ExactlyOnce,
}

impl std::fmt::Display for Guarantee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AtLeastOnce => "at least once",
            Self::ExactlyOnce => "exactly once",
        })
    }
}

/// Writes the events of one worker to a target. It never blocks for long: slow targets have a bounded
/// queue and a thread of their own.
pub trait Sink<T>: Send {
    /// Takes events. The target may show them only once their epoch is committed.
    fn write(&mut self, batch: Batch<T>) -> Result<()>;

    /// Everything written so far belongs to `epoch` or one before it: makes it durable in the target, so
    /// that a commit cannot fail for want of it. Not called with nothing written since the last one.
    fn prepare(&mut self, epoch: Epoch) -> Result<()>;

    /// `epoch` is committed: shows what was prepared for it. May be told again after a crash.
    fn commit(&mut self, epoch: Epoch) -> Result<()>;
}

/// Makes a sink's writers, one for each worker and each attempt.
pub trait SinkFactory<T>: Send + Sync + 'static {
    /// What the target can promise.
    fn guarantee(&self) -> Guarantee;

    /// Once for each attempt, before anything is written anywhere: refuses a target that cannot be the one that
    /// `last`, the last committed epoch, has left. Changes nothing.
    fn check(&self, _place: StepPlace<'_>, _last: Epoch) -> Result<()> {
        Ok(())
    }

    /// Once for each attempt, before any writer is opened: `last` is the last committed epoch. Finishes
    /// what was prepared for it and for those before, on however many workers, and drops what was prepared
    /// or written after it.
    fn recover(&self, place: StepPlace<'_>, last: Epoch) -> Result<()>;

    /// Opens the writer of `worker`.
    fn open(&self, place: StepPlace<'_>, worker: usize) -> Result<Box<dyn Sink<T>>>;
}

/// The step that feeds a sink. Its input is its only edge; it emits nothing.
pub fn external_sink<T: Data>(factory: impl SinkFactory<T>) -> Arc<dyn OperatorFactory> {
    Arc::new(ExternalSinkFactory { factory, row: std::marker::PhantomData::<fn(T)> })
}

struct ExternalSinkFactory<T, F> {
    factory: F,
    row: std::marker::PhantomData<fn(T)>,
}

impl<T: Data, F: SinkFactory<T>> OperatorFactory for ExternalSinkFactory<T, F> {
    fn open(&self, context: &mut OpenContext<'_>) -> Result<Box<dyn Operator>> {
        let place = StepPlace { flow: context.flow, step: context.step };
        if context.worker == 0 {
            self.factory.recover(place, context.last_committed)?;
        }
        let sink = self.factory.open(place, context.worker)?;
        Ok(Box::new(ExternalSink { sink, written: false, prepared: None }))
    }

    fn check(&self, place: StepPlace<'_>, last_committed: Epoch) -> Result<()> {
        self.factory.check(place, last_committed)
    }

    fn guarantee(&self) -> Guarantee {
        self.factory.guarantee()
    }

    fn has_external_effect(&self) -> bool {
        true
    }
}

struct ExternalSink<T> {
    sink: Box<dyn Sink<T>>,
    /// Whether the running epoch has written anything.
    written: bool,
    /// The epoch that is prepared and not committed.
    prepared: Option<Epoch>,
}

impl<T: Data> Operator for ExternalSink<T> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        self.written = true;
        context.writer.note_written();
        self.sink.write(frame.into_batch())
    }

    fn barrier(&mut self, epoch: Epoch, _context: &mut Context<'_>) -> Result<()> {
        if !std::mem::take(&mut self.written) {
            return Ok(());
        }
        debug_assert_eq!(self.prepared, None, "an epoch is over before the next one's barrier");
        self.prepared = Some(epoch);
        let prepared = self.sink.prepare(epoch);
        prepared.map_err(|error| error.within(format_args!("epoch {epoch}")))
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        if self.prepared.take_if(|prepared| *prepared == epoch).is_none() {
            return Ok(());
        }
        let committed = self.sink.commit(epoch);
        committed.map_err(|error| error.within(format_args!("epoch {epoch}")))
    }
}
