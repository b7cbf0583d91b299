//! Makes the workers of a plan: opens every step on each, and lays the queues between them.

use std::sync::Arc;

use lotic_log::Clock;

use crate::channel::{Receiver, Sender, Waker, channel};
use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_writer::{EpochWriter, EpochWriterOptions};
use crate::error::Result;
use crate::event_log::{EventLog, Topics};
use crate::graph::{Exchange, Graph, Node, NodeId, NodeKind, SourceSpec};
use crate::operator::OpenContext;
use crate::plan::{Plan, TargetSpec, TaskSpec};
use crate::skew::SkewBoard;
use crate::source::{SourceOpenContext, SourceSplit, SplitStart};
use crate::state::StateAccess;
use crate::task::{Body, Input, Step, Target, Task};
use crate::worker::{Ending, Gate, Shared, SourceState, Worker, WorkerSource};

/// All that the workers of one attempt are made of.
pub struct Assembly<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// How it is laid out.
    pub plan: &'a Plan,
    /// The log, for sources and epoch writers.
    pub log: &'a Arc<dyn EventLog>,
    /// The topics of the graph, resolved.
    pub topics: &'a Topics,
    /// Where processing time comes from.
    pub clock: &'a Arc<dyn Clock>,
    /// What each step counts, by its place in the graph.
    pub counters: &'a [Arc<Counters>],
    /// The stores, for each worker.
    pub state: &'a [StateAccess],
    /// What wakes each worker.
    pub wakers: &'a [Waker],
    /// The last committed epoch; 0 before any.
    pub last_committed: Epoch,
    /// Where that epoch left the sources.
    pub splits: &'a [SourceSplit],
    /// The settings.
    pub options: AssemblyOptions,
}

/// How workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssemblyOptions {
    /// How many events a frame holds at most.
    pub frame_rows_max: usize,
    /// How many messages a queue between two tasks holds.
    pub queue_messages_max: usize,
    /// How many milliseconds of event time a source may be ahead of the slowest one.
    pub source_skew_ms_max: i64,
    /// Whether sources end at the end that their input has now.
    pub bounded: bool,
    /// Whether sources that are not timeless wait for [`Command::StartSources`](crate::worker::Command).
    pub hold_sources: bool,
    /// How output is gathered.
    pub writer: EpochWriterOptions,
}

/// Makes the workers: as many as there are wakers.
///
/// # Errors
/// Those of opening a source or a step; nothing is left behind then.
pub fn assemble(assembly: &Assembly<'_>) -> Result<Vec<Worker>> {
    let workers = assembly.wakers.len();
    assert_eq!(assembly.state.len(), workers, "each worker has its stores");
    let splits = read_splits(assembly)?;
    let source_numbers = number_sources(&splits);
    let board = Arc::new(SkewBoard::new(assembly.options.source_skew_ms_max, assembly.wakers));
    let state: Arc<[StateAccess]> = assembly.state.into();
    let mut queues = Queues::new(assembly);
    (0..workers)
        .map(|worker| {
            let bench = Bench { assembly, worker, splits: &splits, source_numbers: &source_numbers };
            bench.worker(&mut queues, Shared { board: Arc::clone(&board), state: Arc::clone(&state) })
        })
        .collect()
}

/// The splits of each source, by the source's place in the graph; empty for other steps.
fn read_splits(assembly: &Assembly<'_>) -> Result<Vec<Vec<String>>> {
    let splits = |node: &Node| match &node.kind {
        NodeKind::Source(source) => {
            let splits = source.factory.splits(&**assembly.log);
            splits.map_err(|error| error.within(format_args!("source {}", node.name)))
        }
        NodeKind::Operator(_) => Ok(Vec::new()),
    };
    assembly.graph.nodes.iter().map(splits).collect()
}

/// The numbers that sources have in origins, by place in the graph: in order of their splits' names, which
/// begin with the topic's, so that origins sort by topic however the program is written.
fn number_sources(splits: &[Vec<String>]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..splits.len()).collect();
    order.sort_by_key(|&node| splits[node].first());
    let mut numbers = vec![0; splits.len()];
    for (number, node) in order.into_iter().enumerate() {
        numbers[node] = number as u32;
    }
    numbers
}

/// The queues of all links, until the tasks at their ends take them.
struct Queues {
    /// By link, then by sending worker: a queue for each receiving worker.
    senders: Vec<Vec<Vec<Sender>>>,
    /// By link, then by receiving worker: a queue for each sending worker.
    receivers: Vec<Vec<Vec<Receiver>>>,
}

impl Queues {
    fn new(assembly: &Assembly<'_>) -> Self {
        let workers = assembly.wakers.len();
        let (mut all_senders, mut all_receivers) = (Vec::new(), Vec::new());
        for link in &assembly.plan.links {
            let mut senders: Vec<Vec<Sender>> = (0..workers).map(|_| Vec::new()).collect();
            let mut receivers: Vec<Vec<Receiver>> = (0..workers).map(|_| Vec::new()).collect();
            for (from, from_senders) in senders.iter_mut().enumerate() {
                for to in link.peers(from, workers) {
                    let wakers = (assembly.wakers[to].clone(), assembly.wakers[from].clone());
                    let capacity = assembly.options.queue_messages_max;
                    let (sender, receiver) = channel(capacity, wakers.0, wakers.1);
                    from_senders.push(sender);
                    receivers[to].push(receiver);
                }
            }
            all_senders.push(senders);
            all_receivers.push(receivers);
        }
        Self { senders: all_senders, receivers: all_receivers }
    }
}

/// Where one worker is put together.
struct Bench<'a> {
    assembly: &'a Assembly<'a>,
    worker: usize,
    splits: &'a [Vec<String>],
    source_numbers: &'a [u32],
}

impl Bench<'_> {
    fn worker(&self, queues: &mut Queues, shared: Shared) -> Result<Worker> {
        let Assembly { plan, graph, log, clock, options, last_committed, .. } = *self.assembly;
        let tasks: Vec<Task> =
            plan.tasks.iter().map(|spec| self.task(spec, queues)).collect::<Result<_>>()?;
        let sources = plan.tasks.iter().enumerate().filter_map(|(task, spec)| {
            let node = &graph.nodes[spec.steps[0].node.0 as usize];
            let NodeKind::Source(SourceSpec { timeless, .. }) = node.kind else { return None };
            let (name, state) = (node.name.clone(), SourceState::Reading);
            Some(WorkerSource { task, name, is_timeless: timeless, state })
        });
        Ok(Worker {
            index: self.worker,
            sources: sources.collect(),
            tasks,
            writer: EpochWriter::new(Arc::clone(log), options.writer, last_committed.next()),
            clock: Arc::clone(clock),
            shared,
            gate: if options.hold_sources { Gate::Loading } else { Gate::Open },
            ending: Ending::Flowing,
            reports: Vec::new(),
            active: last_committed,
            is_ended: false,
        })
    }

    fn task(&self, spec: &TaskSpec, queues: &mut Queues) -> Result<Task> {
        let mut senders = Vec::new();
        let mut steps = Vec::with_capacity(spec.steps.len());
        for step in &spec.steps {
            let node = &self.assembly.graph.nodes[step.node.0 as usize];
            let outputs = step.outputs.iter().map(|output| {
                let target = match output.target {
                    TargetSpec::Step(step) => Target::Step(step),
                    TargetSpec::Link(link) => self.target(link, queues, &mut senders),
                };
                (output.port, target)
            });
            steps.push(Step {
                name: node.name.as_str().into(),
                outputs: outputs.collect(),
                body: self.body(step.node, node)?,
                counters: Arc::clone(&self.assembly.counters[step.node.0 as usize]),
            });
        }
        let inputs = spec.inputs.iter().flat_map(|&link| {
            let input = self.assembly.plan.links[link].input;
            let receivers = std::mem::take(&mut queues.receivers[link][self.worker]);
            receivers.into_iter().map(move |receiver| Input { input, receiver })
        });
        Ok(Task::new(steps, inputs.collect(), senders, self.assembly.last_committed.next()))
    }

    /// Takes this worker's ends of a link's queues into `senders`.
    fn target(&self, link: usize, queues: &mut Queues, senders: &mut Vec<Sender>) -> Target {
        let first = senders.len();
        senders.append(&mut queues.senders[link][self.worker]);
        match self.assembly.plan.links[link].exchange {
            Exchange::Forward => Target::Forward(first),
            Exchange::Hash => Target::Hash(first..senders.len()),
            Exchange::Broadcast => Target::Broadcast(first..senders.len()),
        }
    }

    fn body(&self, id: NodeId, node: &Node) -> Result<Body> {
        match &node.kind {
            NodeKind::Source(source) => {
                let body = self.source(id, node, source);
                body.map_err(|error| error.within(format_args!("source {}", node.name)))
            }
            NodeKind::Operator(factory) => {
                let mut context = OpenContext {
                    step: &node.name,
                    worker: self.worker,
                    workers: self.assembly.wakers.len(),
                    frame_rows_max: self.assembly.options.frame_rows_max,
                    last_committed: self.assembly.last_committed,
                    topics: self.assembly.topics,
                    state: &self.assembly.state[self.worker],
                };
                let opened = factory.open(&mut context);
                opened.map(Body::Operator).map_err(|error| error.within(format_args!("step {}", node.name)))
            }
        }
    }

    /// Opens this worker's share of a source.
    fn source(&self, id: NodeId, node: &Node, source: &SourceSpec) -> Result<Body> {
        let workers = self.assembly.wakers.len();
        let mine = self.splits[id.0 as usize].iter().skip(self.worker).step_by(workers);
        let starts: Vec<SplitStart> = mine.map(|split| self.start(&node.name, split)).collect();
        if starts.is_empty() {
            return Ok(Body::NoSplits);
        }
        let mut context = SourceOpenContext {
            step: &node.name,
            source: self.source_numbers[id.0 as usize],
            log: self.assembly.log,
            frame_rows_max: self.assembly.options.frame_rows_max,
            bounded: self.assembly.options.bounded,
            timeless: source.timeless,
        };
        source.factory.open(starts, &mut context).map(Body::Source)
    }

    fn start(&self, source: &str, split: &str) -> SplitStart {
        let mut recorded = self.assembly.splits.iter();
        let found = recorded.find(|recorded| recorded.source == source && recorded.state.split == split);
        SplitStart { split: split.to_owned(), state: found.map(|recorded| recorded.state.clone()) }
    }
}
