//! The port of steps with event-time timers: [`Operator`] for those that need no more than this of time.

use std::sync::Arc;

use lotic_log::Timestamp;

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::message::Watermark;
use crate::operator::{Context, OpenContext, Operator, OperatorFactory, Progress, operator_factory};
use crate::timers::{FiredTimer, Timers};

/// A step of one input with timers. All that is said of an [`Operator`] is true of it too; its timers are seen to: they
/// fire before the watermark that they are due by is passed on, and are committed with the step's other state.
pub trait TimedOperator: Send {
    /// Takes the events of `frame`, and may set and delete timers.
    fn process(&mut self, frame: Frame, timers: &mut Timers, context: &mut Context<'_>) -> Result<()>;

    /// Timers are due: takes from `due` until [`take`](DueTimers::take) returns `None`, and emits what comes of them.
    /// What one of them sets or deletes counts at once. Called again while there are more than a frame of them; in
    /// between events may come.
    ///
    /// A step that returns before that, without an error of its own, fails with [`ErrorKind::Invalid`]: the watermark
    /// would overtake what is due by it.
    ///
    /// What a timer makes happens at the timer's time, and carries the watermark one millisecond before it: so it is
    /// never late downstream.
    fn fire(&mut self, due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()>;

    /// The input has ended, which is not a time: timers stay, and fire should input go on later. A step that answers
    /// all the same takes from `due` what it answers, the earliest first; called again while it takes a frame of them.
    fn end(&mut self, due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()> {
        let _ = (due, context);
        Ok(())
    }

    /// As [`Operator::barrier`], for state besides the timers.
    fn barrier(&mut self, epoch: Epoch, context: &mut Context<'_>) -> Result<()> {
        let _ = (epoch, context);
        Ok(())
    }

    /// As [`Operator::committed`], for state besides the timers.
    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        let _ = epoch;
        Ok(())
    }
}

/// Timers that are due, a frame of them at most.
pub struct DueTimers<'a> {
    /// The step's timers, to set and delete some.
    pub timers: &'a mut Timers,
    until: Timestamp,
    left: usize,
    /// Whether the last one was given.
    is_over: bool,
}

impl DueTimers<'_> {
    /// Takes the next timer, which is not set any more then. `None` if no more are due, or a frame of them was taken.
    ///
    /// # Errors
    /// Those of the state that it is read from.
    pub fn take(&mut self) -> Result<Option<FiredTimer>> {
        let fired = if self.left == 0 { None } else { self.timers.fire(self.until)? };
        match fired {
            Some(_) => self.left -= 1,
            None => self.is_over = true,
        }
        Ok(fired)
    }
}

/// A factory of a step with timers, which are kept in `store`; the step declares it in the graph, as
/// [`Timers::store`] has it.
pub fn timed_operator_factory<O: TimedOperator + 'static>(
    store: &str,
    open: impl Fn(&mut OpenContext<'_>) -> Result<O> + Send + Sync + 'static,
) -> Arc<dyn OperatorFactory> {
    let store = store.to_owned();
    operator_factory(move |context| {
        let timers = Timers::open(&store, context)?;
        Ok(Timed { operator: open(context)?, timers, frame_rows_max: context.frame_rows_max })
    })
}

struct Timed<O> {
    operator: O,
    timers: Timers,
    frame_rows_max: usize,
}

impl<O: TimedOperator> Operator for Timed<O> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        self.operator.process(frame, &mut self.timers, context)
    }

    fn advance(
        &mut self,
        _input: usize,
        watermark: Watermark,
        context: &mut Context<'_>,
    ) -> Result<Progress> {
        // A step with timers takes records of all partitions.
        if watermark.partition.is_some() {
            return Ok(Progress::Done);
        }
        let mut due = DueTimers {
            timers: &mut self.timers,
            until: watermark.time,
            left: self.frame_rows_max,
            is_over: false,
        };
        self.operator.fire(&mut due, context)?;
        if !due.is_over && due.left > 0 {
            let what = "the operator left timers that are due: it must take them until there are none";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if due.left == 0 {
            return Ok(Progress::More);
        }
        context.forward_watermark(watermark);
        Ok(Progress::Done)
    }

    fn end(&mut self, context: &mut Context<'_>) -> Result<Progress> {
        let mut due = DueTimers {
            timers: &mut self.timers,
            until: Timestamp(i64::MAX),
            left: self.frame_rows_max,
            is_over: false,
        };
        self.operator.end(&mut due, context)?;
        Ok(if due.left == 0 { Progress::More } else { Progress::Done })
    }

    fn barrier(&mut self, epoch: Epoch, context: &mut Context<'_>) -> Result<()> {
        self.timers.freeze(epoch, context.processing_time, context.writer)?;
        self.operator.barrier(epoch, context)
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.timers.committed(epoch)?;
        self.operator.committed(epoch)
    }
}

#[cfg(test)]
mod tests;
