//! Makes the workers of a plan: opens every step on each, and lays the queues between them. Sources are opened
//! before: see [`open_sources`].

mod sources;

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
use crate::state::StateAccess;
use crate::task::{Body, Input, Step, Target, Task};
use crate::worker::{Ending, Gate, Shared, SourceState, Worker, WorkerSource};

pub use sources::{OpenSources, SourceSetup, open_sources};

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
    /// Whether sources that are not timeless wait for [`Command::StartSources`](crate::worker::Command).
    pub hold_sources: bool,
    /// How output is gathered.
    pub writer: EpochWriterOptions,
}

/// Makes the workers, as many as there are wakers, around the `sources` that were opened for them.
///
/// # Errors
/// Those of opening a step; nothing is left behind then.
pub fn assemble(assembly: &Assembly<'_>, mut sources: OpenSources) -> Result<Vec<Worker>> {
    let workers = assembly.wakers.len();
    assert_eq!(assembly.state.len(), workers, "each worker has its stores");
    let board = Arc::new(SkewBoard::new(assembly.options.source_skew_ms_max, assembly.wakers));
    let state: Arc<[StateAccess]> = assembly.state.into();
    let mut queues = Queues::new(assembly);
    (0..workers)
        .map(|worker| {
            let mut bench = Bench { assembly, worker, sources: &mut sources };
            bench.worker(&mut queues, Shared { board: Arc::clone(&board), state: Arc::clone(&state) })
        })
        .collect()
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
    sources: &'a mut OpenSources,
}

impl Bench<'_> {
    fn worker(&mut self, queues: &mut Queues, shared: Shared) -> Result<Worker> {
        let Assembly { plan, graph, log, clock, options, last_committed, .. } = *self.assembly;
        let tasks: Vec<Task> =
            plan.tasks.iter().map(|spec| self.task(spec, queues)).collect::<Result<_>>()?;
        let awaited = graph.awaited_sources();
        let sources = plan.tasks.iter().enumerate().filter_map(|(task, spec)| {
            let id = spec.steps[0].node;
            let node = &graph.nodes[id.0 as usize];
            let NodeKind::Source(SourceSpec { timeless, .. }) = node.kind else { return None };
            let (name, is_awaited) = (node.name.clone(), awaited.contains(&id));
            let state = SourceState::Reading;
            Some(WorkerSource { task, name, is_timeless: timeless, is_awaited, state })
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
            turns_ahead: 0,
        })
    }

    fn task(&mut self, spec: &TaskSpec, queues: &mut Queues) -> Result<Task> {
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

    fn body(&mut self, id: NodeId, node: &Node) -> Result<Body> {
        let factory = match &node.kind {
            NodeKind::Source(_) => return Ok(self.sources.take(id, self.worker)),
            NodeKind::Operator(factory) => factory,
        };
        let mut context = OpenContext {
            flow: &self.assembly.graph.name,
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
