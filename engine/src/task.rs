//! A chain of steps on one worker: takes messages, runs them through its operators, depth first.
//!
//! What is still to be done is kept on a stack, so that a task can stop between any two calls of operators:
//! when a queue that it sends to is full, when no more may be staged, or when an operator said
//! [`Progress::More`]. No message is taken while anything else is left, so what a task holds is bounded by
//! what one call emits.
//!
//! An operator may have more to say than an epoch holds. So between two calls of it messages are taken, and a
//! barrier overtakes what it still has to do: watermarks and ends are said again after a restart, and what a
//! call emits and removes is in one epoch. Later watermarks and ends wait for it.
//!
//! ```text
//!   inputs ──▶ work: [.. | what comes next] ──▶ operator ──▶ output ─┬─▶ steps of this task: onto the work
//!                                                                   └─▶ other tasks: outbox ─▶ queues
//! ```
//!
//! Queues are sent to in one order, and a message that finds its queue full makes all later ones wait. That
//! cannot deadlock: a receiver closes a queue only behind this task's barrier, and by then everything up to
//! the barrier has left for the others too.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use lotic_log::Timestamp;

use crate::align::Aligner;
use crate::channel::{Receiver, Sender};
use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_writer::EpochWriter;
use crate::error::Result;
use crate::frame::Frame;
use crate::message::{Message, Watermark};
use crate::operator::{Context, Operator, Output, OutputItem, Progress};
use crate::source::{AtHand, Source, SourcePoll, SplitState};
use crate::time::{InputWatermarks, NOTHING_EXPECTED};

/// How many messages a task takes in one step: other tasks, and commands, get their turn.
const MESSAGES_PER_STEP: usize = 16;

/// A tree of steps on one worker.
pub(crate) struct Task {
    /// The root first.
    steps: Vec<Step>,
    inputs: Inputs,
    outbox: Outbox,
    /// A stack: the last is done next.
    work: Vec<Work>,
    /// What came while an operator had more to say and must not overtake it: the newest watermarks, an end.
    later: Vec<Work>,
    output: Output,
    /// The epoch of what is done now.
    epoch: Epoch,
    /// While the barrier of `epoch` is on its way through the steps: how much work there was before it.
    closing: Option<usize>,
    has_ended: bool,
}

/// One step of a task.
pub(crate) struct Step {
    pub(crate) name: Arc<str>,
    pub(crate) body: Body,
    /// Who takes what is emitted on which port.
    pub(crate) outputs: Vec<(usize, Target)>,
    pub(crate) counters: Arc<Counters>,
}

/// What a step runs.
pub(crate) enum Body {
    /// Only ever the root.
    Source(Box<dyn Source>),
    /// A source none of whose splits is this worker's: it ends at once and expects nothing.
    NoSplits,
    Operator(Box<dyn Operator>),
}

/// Who takes an output: queues are places in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A step of this task.
    Step(usize),
    /// One queue.
    Forward(usize),
    /// A queue for each worker, by key group.
    Hash(Range<usize>),
    /// A queue for each worker, all events to each.
    Broadcast(Range<usize>),
}

/// Something left to do.
enum Work {
    Process {
        step: usize,
        input: usize,
        frame: Frame,
    },
    Advance {
        step: usize,
        input: usize,
        watermark: Watermark,
    },
    End {
        step: usize,
    },
    Barrier {
        step: usize,
    },
    /// An operator said [`Progress::More`]: others get their turn before it is called again.
    Pause,
    /// The step is through with its end or barrier: on to those it feeds.
    PassEnd {
        step: usize,
    },
    PassBarrier {
        step: usize,
    },
}

/// What the worker lends a task while it is stepped.
pub(crate) struct Lent<'a> {
    pub(crate) writer: &'a mut EpochWriter,
    pub(crate) processing_time: Timestamp,
}

impl Task {
    /// A task whose root reads `inputs`, and whose steps send to `senders`.
    pub(crate) fn new(steps: Vec<Step>, inputs: Vec<Input>, senders: Vec<Sender>, epoch: Epoch) -> Self {
        let work = match steps[0].body {
            Body::NoSplits => vec![Work::PassEnd { step: 0 }],
            Body::Source(_) | Body::Operator(_) => Vec::new(),
        };
        let mut task = Self {
            steps,
            inputs: Inputs::new(inputs, epoch),
            outbox: Outbox { senders, waiting: VecDeque::new() },
            work,
            later: Vec::new(),
            output: Output::default(),
            epoch,
            closing: None,
            has_ended: false,
        };
        if matches!(task.steps[0].body, Body::NoSplits) {
            let nothing = Watermark { partition: None, time: NOTHING_EXPECTED };
            task.output.items.push(OutputItem::Watermark(nothing));
            task.deliver(0);
        }
        task
    }

    /// The epoch of what is done now: the barriers of all before have been passed on.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether its end has been passed on and nothing is left to do.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended && self.is_idle()
    }

    /// Whether it could take something new now: nothing is left to do, nothing waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        let has_work = !self.work.is_empty() || !self.later.is_empty();
        !has_work && self.closing.is_none() && self.outbox.waiting.is_empty()
    }

    /// Whether a barrier may be next: no event is on its way through the steps.
    pub(crate) fn may_close(&self) -> bool {
        self.closing.is_none() && self.work.iter().all(Work::may_be_overtaken)
    }

    /// Does some of what there is to do. Whether it did anything.
    pub(crate) fn step(&mut self, lent: &mut Lent<'_>) -> Result<bool> {
        let mut progressed = self.outbox.flush();
        for _ in 0..MESSAGES_PER_STEP {
            if !self.outbox.waiting.is_empty() || !lent.writer.has_room(self.epoch) {
                break;
            }
            let found_work = self.close_epoch() || self.take_message() || self.has_work();
            if !found_work {
                break;
            }
            self.run_work(lent)?;
            progressed = true;
        }
        Ok(progressed)
    }

    /// Polls the source at its root, if that is what it is. The task must be idle.
    pub(crate) fn poll_source(&mut self, lent: &mut Lent<'_>) -> Result<SourcePoll> {
        debug_assert!(self.is_idle());
        lent.writer.enter(self.epoch);
        let step = &mut self.steps[0];
        let Body::Source(source) = &mut step.body else { return Ok(SourcePoll::Ended) };
        let mut context = lent.context(&mut self.output, &step.counters);
        let polled = source.poll(&mut context).map_err(|error| step.named(error))?;
        if polled == SourcePoll::Ended {
            self.work.push(Work::PassEnd { step: 0 });
        }
        self.deliver(0);
        self.run_work(lent)?;
        Ok(polled)
    }

    /// What the source at its root has at hand.
    pub(crate) fn at_hand(&mut self) -> Result<Option<AtHand>> {
        let step = &mut self.steps[0];
        match &mut step.body {
            Body::Source(source) => source.at_hand().map_err(|error| step.named(error)),
            Body::NoSplits | Body::Operator(_) => Ok(None),
        }
    }

    /// Ends the epoch of the source at its root: where its splits stand now is what the epoch consumed.
    /// The task [may close](Self::may_close) its epoch.
    pub(crate) fn begin_barrier(&mut self) -> Vec<SplitState> {
        debug_assert!(self.may_close());
        self.closing = Some(self.work.len());
        self.work.push(Work::PassBarrier { step: 0 });
        match &self.steps[0].body {
            Body::Source(source) => source.positions(),
            Body::NoSplits | Body::Operator(_) => Vec::new(),
        }
    }

    /// `epoch` is committed.
    pub(crate) fn committed(&mut self, epoch: Epoch) -> Result<()> {
        for step in &mut self.steps {
            let told = match &mut step.body {
                Body::Source(source) => source.committed(epoch),
                Body::Operator(operator) => operator.committed(epoch),
                Body::NoSplits => Ok(()),
            };
            told.map_err(|error| step.named(error))?;
        }
        Ok(())
    }

    /// Whether the barrier is through all steps.
    fn is_barrier_through(&self) -> bool {
        self.closing == Some(self.work.len())
    }

    /// Once the barrier is through all steps: on to the next epoch. Whether it was.
    fn close_epoch(&mut self) -> bool {
        let closed = self.is_barrier_through();
        if closed {
            self.closing = None;
            self.epoch = self.epoch.next();
            self.inputs.aligner.release();
        }
        closed
    }

    /// Whether there is anything to do; what had to wait may be done once nothing else is left.
    fn has_work(&mut self) -> bool {
        if self.work.is_empty() {
            self.work.extend(self.later.drain(..).rev());
        }
        !self.work.is_empty()
    }

    /// Takes the next message that may be taken, as work. Whether there was one.
    fn take_message(&mut self) -> bool {
        if !self.may_close() {
            return false;
        }
        let Some((sender, message)) = self.inputs.receive() else { return false };
        let input = self.inputs.channels[sender].input;
        match message {
            Message::Frame(frame) => self.work.push(Work::Process { step: 0, input, frame }),
            Message::Watermark(watermark) => {
                let Self { inputs, later, .. } = self;
                inputs.raise(sender, watermark).for_each(|watermark| advance_later(later, input, watermark));
            }
            Message::Barrier(epoch) => {
                if self.inputs.aligner.barrier(sender, epoch) {
                    self.closing = Some(self.work.len());
                    self.work.push(Work::Barrier { step: 0 });
                }
            }
            Message::End => {
                if self.inputs.end() {
                    self.later.push(Work::End { step: 0 });
                }
            }
        }
        self.has_work();
        true
    }

    /// Works until nothing is left, an operator pauses, the barrier is through, or there is no room for more.
    fn run_work(&mut self, lent: &mut Lent<'_>) -> Result<()> {
        lent.writer.enter(self.epoch);
        while self.outbox.waiting.is_empty()
            && lent.writer.has_room(self.epoch)
            && !self.is_barrier_through()
            && let Some(work) = self.work.pop()
        {
            if matches!(work, Work::Pause) {
                break;
            }
            self.run(work, lent)?;
        }
        Ok(())
    }

    fn run(&mut self, work: Work, lent: &mut Lent<'_>) -> Result<()> {
        match work {
            Work::Process { step, input, frame } => {
                self.steps[step].counters.received.add(frame.len() as u64);
                self.call(step, lent, |operator, context| operator.process(input, frame, context))?;
                self.deliver(step);
            }
            Work::Advance { step, input, watermark } => {
                let advance = |operator: &mut dyn Operator, context: &mut Context<'_>| {
                    operator.advance(input, watermark, context)
                };
                if self.call(step, lent, advance)? == Progress::More {
                    self.work.extend([Work::Advance { step, input, watermark }, Work::Pause]);
                }
                self.deliver(step);
            }
            Work::End { step } => {
                match self.call(step, lent, |operator, context| operator.end(context))? {
                    Progress::More => self.work.extend([Work::End { step }, Work::Pause]),
                    Progress::Done => self.work.push(Work::PassEnd { step }),
                }
                self.deliver(step);
            }
            Work::Barrier { step } => {
                let epoch = self.epoch;
                self.call(step, lent, |operator, context| operator.barrier(epoch, context))?;
                self.work.push(Work::PassBarrier { step });
                self.deliver(step);
            }
            Work::PassEnd { step } => {
                self.has_ended |= step == 0;
                self.pass(step, &|| Message::End, &|step| Work::End { step });
            }
            Work::PassBarrier { step } => {
                let epoch = self.epoch;
                self.pass(step, &|| Message::Barrier(epoch), &|step| Work::Barrier { step });
            }
            Work::Pause => {}
        }
        Ok(())
    }

    /// Calls the operator of `step`; what it emits is in `self.output` then.
    fn call<R>(
        &mut self,
        step: usize,
        lent: &mut Lent<'_>,
        call: impl FnOnce(&mut dyn Operator, &mut Context<'_>) -> Result<R>,
    ) -> Result<R> {
        let step = &mut self.steps[step];
        let Body::Operator(operator) = &mut step.body else {
            unreachable!("a source is a root, and has no input that could bring it work")
        };
        let mut context = lent.context(&mut self.output, &step.counters);
        call(&mut **operator, &mut context).map_err(|error| step.named(error))
    }

    /// Gives what `step` emitted to those that take it, in order.
    fn deliver(&mut self, step: usize) {
        let Self { steps, outbox, work, output, .. } = self;
        let step = &steps[step];
        let first = work.len();
        for item in output.items.drain(..) {
            match item {
                OutputItem::Frame(port, frame) => {
                    step.counters.emitted.add(frame.len() as u64);
                    let mut targets = step.outputs.iter().filter(|(from, _)| *from == port).peekable();
                    let mut frame = Some(frame);
                    while let Some((_, target)) = targets.next() {
                        let last = targets.peek().is_none();
                        let copy = if last { frame.take() } else { frame.as_ref().map(Frame::duplicate) };
                        let frame = copy.expect("the frame is given away with the last target");
                        deliver_frame(target, frame, outbox, work);
                    }
                }
                OutputItem::Watermark(watermark) => {
                    for (_, target) in &step.outputs {
                        match target {
                            Target::Step(step) => {
                                work.push(Work::Advance { step: *step, input: 0, watermark });
                            }
                            queues => outbox.send_all(queues, &|| Message::Watermark(watermark)),
                        }
                    }
                }
            }
        }
        work[first..].reverse();
    }

    /// Passes an end or a barrier of `step` on to all that it feeds.
    fn pass(&mut self, step: usize, message: &dyn Fn() -> Message, work: &dyn Fn(usize) -> Work) {
        let first = self.work.len();
        for (_, target) in &self.steps[step].outputs {
            match target {
                Target::Step(step) => self.work.push(work(*step)),
                queues => self.outbox.send_all(queues, message),
            }
        }
        self.work[first..].reverse();
    }
}

impl Work {
    /// Whether a barrier, and events that come behind it, may go first.
    fn may_be_overtaken(&self) -> bool {
        match self {
            Self::Advance { .. } | Self::End { .. } | Self::PassEnd { .. } | Self::Pause => true,
            Self::Process { .. } | Self::Barrier { .. } | Self::PassBarrier { .. } => false,
        }
    }
}

/// Has the root hear of a watermark once it is done with what came before; of the newest one only.
fn advance_later(later: &mut Vec<Work>, of: usize, newest: Watermark) {
    let held = later.iter_mut().find_map(|work| match work {
        Work::Advance { input, watermark, .. } if *input == of && watermark.partition == newest.partition => {
            Some(watermark)
        }
        _ => None,
    });
    match held {
        Some(watermark) => *watermark = newest,
        None => later.push(Work::Advance { step: 0, input: of, watermark: newest }),
    }
}

fn deliver_frame(target: &Target, frame: Frame, outbox: &mut Outbox, work: &mut Vec<Work>) {
    match target {
        Target::Step(step) => work.push(Work::Process { step: *step, input: 0, frame }),
        Target::Forward(queue) => outbox.send(*queue, Message::Frame(frame)),
        Target::Hash(queues) => {
            for (queue, frame) in queues.clone().zip(frame.split_by_worker(queues.len())) {
                if !frame.is_empty() {
                    outbox.send(queue, Message::Frame(frame));
                }
            }
        }
        Target::Broadcast(queues) => {
            for queue in queues.start + 1..queues.end {
                outbox.send(queue, Message::Frame(frame.duplicate()));
            }
            outbox.send(queues.start, Message::Frame(frame));
        }
    }
}

impl Step {
    fn named(&self, error: crate::error::Error) -> crate::error::Error {
        error.within(format_args!("step {}", self.name))
    }
}

impl Lent<'_> {
    fn context<'c>(&'c mut self, output: &'c mut Output, counters: &'c Counters) -> Context<'c> {
        Context { output, writer: self.writer, counters, processing_time: self.processing_time }
    }
}

/// One queue that a task's root reads.
pub(crate) struct Input {
    /// Which input of the root its messages are for.
    pub(crate) input: usize,
    pub(crate) receiver: Receiver,
}

/// All that a task's root reads.
struct Inputs {
    channels: Vec<InputChannel>,
    aligner: Aligner,
    /// By input.
    watermarks: Vec<InputWatermarks>,
    risen: Vec<Watermark>,
    /// The channel whose turn it is.
    next: usize,
    /// How many channels have not ended.
    open: usize,
}

struct InputChannel {
    input: usize,
    /// The sender's place among those of its input.
    sender: usize,
    receiver: Receiver,
}

impl Inputs {
    fn new(inputs: Vec<Input>, epoch: Epoch) -> Self {
        let mut senders = vec![0; inputs.iter().map(|input| input.input + 1).max().unwrap_or(0)];
        let channels: Vec<_> = inputs
            .into_iter()
            .map(|Input { input, receiver }| {
                senders[input] += 1;
                InputChannel { input, sender: senders[input] - 1, receiver }
            })
            .collect();
        Self {
            aligner: Aligner::new(channels.len(), epoch),
            watermarks: senders.into_iter().map(InputWatermarks::new).collect(),
            risen: Vec::new(),
            next: 0,
            open: channels.len(),
            channels,
        }
    }

    /// The next message of a channel that is not closed by its barrier; channels take turns.
    fn receive(&mut self) -> Option<(usize, Message)> {
        let count = self.channels.len();
        for turn in 0..count {
            let channel = (self.next + turn) % count;
            if self.aligner.is_open(channel)
                && let Some(message) = self.channels[channel].receiver.receive()
            {
                self.next = (channel + 1) % count;
                return Some((channel, message));
            }
        }
        None
    }

    /// Takes in a watermark; gives what has risen by it for the input.
    fn raise(&mut self, channel: usize, watermark: Watermark) -> impl DoubleEndedIterator<Item = Watermark> {
        let InputChannel { input, sender, .. } = self.channels[channel];
        self.watermarks[input].raise(sender, watermark, &mut self.risen);
        self.risen.drain(..)
    }

    /// One more channel has ended. Whether it was the last.
    fn end(&mut self) -> bool {
        self.open -= 1;
        self.open == 0
    }
}

/// What a task sends, in order.
struct Outbox {
    senders: Vec<Sender>,
    /// What found its queue full, and all that came after.
    waiting: VecDeque<(usize, Message)>,
}

impl Outbox {
    fn send(&mut self, queue: usize, message: Message) {
        if !self.waiting.is_empty() {
            self.waiting.push_back((queue, message));
        } else if let Some(refused) = self.senders[queue].send(message) {
            self.waiting.push_back((queue, refused));
        }
    }

    fn send_all(&mut self, target: &Target, message: &dyn Fn() -> Message) {
        let queues = match target {
            Target::Step(_) => 0..0,
            Target::Forward(queue) => *queue..queue + 1,
            Target::Hash(queues) | Target::Broadcast(queues) => queues.clone(),
        };
        for queue in queues {
            self.send(queue, message());
        }
    }

    /// Sends what waits, as far as there is room. Whether anything went.
    fn flush(&mut self) -> bool {
        let before = self.waiting.len();
        while let Some((queue, message)) = self.waiting.pop_front() {
            if let Some(refused) = self.senders[queue].send(message) {
                self.waiting.push_front((queue, refused));
                break;
            }
        }
        self.waiting.len() < before
    }
}
