//! The port of every step of a running flow.

use std::sync::Arc;

use lotic_log::Timestamp;

use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_writer::EpochWriter;
use crate::error::Result;
use crate::event_log::Topics;
use crate::frame::Frame;
use crate::message::Watermark;
use crate::sink::Guarantee;
use crate::state::StateAccess;

/// One step on one worker. It never blocks, sleeps or reads a clock; it runs on one thread, and what it
/// keeps beyond an epoch it keeps in state. After an error, or when an epoch is aborted, it is dropped and
/// a new one is opened on the state of the last committed epoch. One that is to be told of times is easier
/// written as a [`TimedOperator`](crate::timed_operator::TimedOperator).
pub trait Operator: Send {
    /// Takes the events of `frame` that came in on `input`.
    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()>;

    /// `input`'s watermark has risen: the least over its senders (of that partition, where it names one).
    /// Emits what is due now, then passes on a watermark with [`Context::forward_watermark`]. Returns
    /// [`Progress::More`] when it stopped early so as not to emit without bound; it is then called again
    /// with the same watermark, once there is room. In between it may be given events and barriers: what a
    /// call emits and what it changes in state belong together, and the call after it may be in the next epoch.
    fn advance(&mut self, input: usize, watermark: Watermark, context: &mut Context<'_>) -> Result<Progress> {
        let _ = input;
        context.forward_watermark(watermark);
        Ok(Progress::Done)
    }

    /// All inputs have ended: emits what it has. Not a time: nothing is closed or pruned. Called again after
    /// [`Progress::More`], as [`Self::advance`] is.
    fn end(&mut self, context: &mut Context<'_>) -> Result<Progress> {
        let _ = context;
        Ok(Progress::Done)
    }

    /// All inputs have reached the barrier of `epoch`: writes changed state to the changelog and freezes it.
    fn barrier(&mut self, epoch: Epoch, context: &mut Context<'_>) -> Result<()> {
        let _ = (epoch, context);
        Ok(())
    }

    /// `epoch` is committed: what was frozen for it goes to the state backend.
    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        let _ = epoch;
        Ok(())
    }
}

/// Whether a call did all there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing is left to do.
    Done,
    /// Call again.
    More,
}

/// What an operator is given besides its input.
pub struct Context<'a> {
    /// Where it emits.
    pub output: &'a mut Output,
    /// Where it writes to the log: topics that this flow writes, and changelogs.
    pub writer: &'a mut EpochWriter,
    /// What it counts.
    pub counters: &'a Counters,
    /// Wall-clock time, for what is defined by it alone.
    pub processing_time: Timestamp,
}

impl Context<'_> {
    /// Emits `frame` on `port`. Empty frames go nowhere.
    pub fn emit(&mut self, port: usize, frame: Frame) {
        if !frame.is_empty() {
            self.output.items.push(OutputItem::Frame(port, frame));
        }
    }

    /// Passes a watermark on, after everything emitted so far.
    pub fn forward_watermark(&mut self, watermark: Watermark) {
        self.output.items.push(OutputItem::Watermark(watermark));
    }
}

/// What one call of an operator emitted, in order.
#[derive(Default)]
pub struct Output {
    pub(crate) items: Vec<OutputItem>,
}

pub(crate) enum OutputItem {
    Frame(usize, Frame),
    Watermark(Watermark),
}

/// Makes the operator of a step, once for each worker and each attempt.
pub trait OperatorFactory: Send + Sync {
    /// Opens the step on `worker`, on the state of the last committed epoch.
    fn open(&self, context: &mut OpenContext<'_>) -> Result<Box<dyn Operator>>;

    /// Refuses what a step finds outside of the log that is not as its last committed epoch left it. Once for each
    /// attempt, before anything is written anywhere.
    fn check(&self, _place: StepPlace<'_>, _last_committed: Epoch) -> Result<()> {
        Ok(())
    }

    /// What the step can promise of its effect outside the log. One without any keeps every promise.
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    /// Whether opening the step, or an epoch's commit, does something outside the log.
    fn has_external_effect(&self) -> bool {
        false
    }

    /// The input whose watermark records of the others wait for, if they do: its sources are read ahead of theirs.
    fn awaited_input(&self) -> Option<usize> {
        None
    }
}

/// Which step of which flow: what it calls things outside of the log after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPlace<'a> {
    /// The flow's name.
    pub flow: &'a str,
    /// The step's name, unique in the flow and stable across versions of the program.
    pub step: &'a str,
}

/// What a step is given when it is opened.
pub struct OpenContext<'a> {
    /// The flow's name.
    pub flow: &'a str,
    /// The step's name, for messages.
    pub step: &'a str,
    /// Which worker this is.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
    /// How many events a frame holds at most.
    pub frame_rows_max: usize,
    /// The epoch whose state it is opened on.
    pub last_committed: Epoch,
    /// The topics of the graph, resolved.
    pub topics: &'a Topics,
    /// Opens the stores that the step declared in the graph.
    pub state: &'a StateAccess,
}

/// A factory from a closure.
pub fn operator_factory<O: Operator + 'static>(
    open: impl Fn(&mut OpenContext<'_>) -> Result<O> + Send + Sync + 'static,
) -> Arc<dyn OperatorFactory> {
    Arc::new(FromClosure { open, awaited_input: None })
}

/// A factory from a closure, of a step whose records wait for the watermark of one of its inputs.
pub fn waiting_operator_factory<O: Operator + 'static>(
    awaited_input: usize,
    open: impl Fn(&mut OpenContext<'_>) -> Result<O> + Send + Sync + 'static,
) -> Arc<dyn OperatorFactory> {
    Arc::new(FromClosure { open, awaited_input: Some(awaited_input) })
}

struct FromClosure<F> {
    open: F,
    awaited_input: Option<usize>,
}

impl<O, F> OperatorFactory for FromClosure<F>
where
    O: Operator + 'static,
    F: Fn(&mut OpenContext<'_>) -> Result<O> + Send + Sync,
{
    fn open(&self, context: &mut OpenContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new((self.open)(context)?))
    }

    fn awaited_input(&self) -> Option<usize> {
        self.awaited_input
    }
}
