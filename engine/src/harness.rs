//! Runs small graphs on the in-memory log, for the engine's tests: workers are stepped one at a time, in an
//! order that a seed decides, and epochs are ended and committed at moments that it decides too.

use std::collections::BTreeMap;
use std::sync::Arc;

use lotic_log::{Clock, ManualClock};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::assembly::{Assembly, AssemblyOptions, SourceSetup, assemble, open_sources};
use crate::channel::Waker;
use crate::codec::{Codec, CodecError, CodecId};
use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_writer::EpochWriterOptions;
use crate::error::Result;
use crate::event_log::{EventLog, Topics};
use crate::graph::{Edge, Exchange, Graph, Node, NodeId, NodeKind, SourceSpec};
use crate::memory_log::MemoryLog;
use crate::operator::OperatorFactory;
use crate::plan::plan;
use crate::source::{SourceFactory, SourceSplit};
use crate::state::{MemoryState, StateAccess, StateAccessOptions, StateHome, StateLimits};
use crate::worker::{Command, Report, Worker};

/// A graph without nodes.
pub(crate) fn sketch() -> Graph {
    Graph { name: "test".to_owned(), nodes: Vec::new(), edges: Vec::new(), topics: Vec::new() }
}

impl Graph {
    /// Adds a source.
    pub(crate) fn source(&mut self, name: &str, factory: impl SourceFactory + 'static) -> NodeId {
        self.node(name, NodeKind::Source(SourceSpec { factory: Arc::new(factory), timeless: false }))
    }

    /// Adds a timeless source.
    pub(crate) fn timeless(&mut self, name: &str, factory: impl SourceFactory + 'static) -> NodeId {
        self.node(name, NodeKind::Source(SourceSpec { factory: Arc::new(factory), timeless: true }))
    }

    /// Adds a step that reads port 0 of these, each on an input of its own.
    pub(crate) fn step(
        &mut self,
        name: &str,
        factory: Arc<dyn OperatorFactory>,
        inputs: &[(NodeId, Exchange)],
    ) -> NodeId {
        let node = self.node(name, NodeKind::Operator(factory));
        for (input, &(from, exchange)) in inputs.iter().enumerate() {
            self.edges.push(Edge { from, port: 0, to: node, input, exchange });
        }
        node
    }

    fn node(&mut self, name: &str, kind: NodeKind) -> NodeId {
        let (name, description) = (name.to_owned(), String::new());
        self.nodes.push(Node { name, description, kind, stores: Vec::new(), depends_on_arrival: false });
        NodeId(self.nodes.len() as u32 - 1)
    }
}

/// Tiny bounds, so that everything that can fill up does.
pub(crate) fn tiny() -> AssemblyOptions {
    AssemblyOptions {
        frame_rows_max: 3,
        queue_messages_max: 2,
        source_skew_ms_max: 50,
        hold_sources: false,
        writer: EpochWriterOptions {
            batch_bytes: 200,
            staged_bytes_max: 400,
            ..EpochWriterOptions::default()
        },
    }
}

/// What a run starts from.
pub(crate) struct Start<'a> {
    pub(crate) workers: usize,
    pub(crate) seed: u64,
    pub(crate) options: AssemblyOptions,
    pub(crate) bounded: bool,
    pub(crate) last_committed: Epoch,
    pub(crate) splits: &'a [SourceSplit],
}

impl Start<'_> {
    /// From the beginning.
    pub(crate) fn fresh(workers: usize, seed: u64) -> Self {
        Self { workers, seed, options: tiny(), bounded: true, last_committed: Epoch(0), splits: &[] }
    }
}

/// A running graph, and the simplest coordinator there can be.
pub(crate) struct Run {
    log: Arc<MemoryLog>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) counters: Vec<Arc<Counters>>,
    random: ChaCha8Rng,
    seed: u64,
    /// The epoch whose transaction is open.
    pub(crate) open: Epoch,
    /// Whether its barrier travels.
    is_closing: bool,
    /// By worker, from the epoch that is being closed.
    aligned: BTreeMap<usize, Vec<SourceSplit>>,
    flushed: usize,
    loaded: usize,
    ended: usize,
    /// The newest epoch that has something to commit.
    active: Epoch,
    /// Where the last committed epoch left the sources.
    pub(crate) committed: Vec<SourceSplit>,
    idle: Vec<bool>,
}

impl Run {
    pub(crate) fn new(log: &Arc<MemoryLog>, graph: &Graph, start: &Start<'_>) -> Result<Self> {
        let port: Arc<dyn EventLog> = log.clone();
        let clock: Arc<dyn Clock> = ManualClock::new();
        let counters: Vec<Arc<Counters>> = graph.nodes.iter().map(|_| Arc::default()).collect();
        let wakers: Vec<Waker> = (0..start.workers).map(|_| Arc::new(|| ()) as Waker).collect();
        let topics: Topics = log.handles().into_iter().collect();
        let state: Vec<_> = (0..start.workers).map(|worker| no_stores(worker, start.workers)).collect();
        let sources = open_sources(&SourceSetup {
            graph,
            log: &port,
            counters: &counters,
            splits: start.splits,
            workers: start.workers,
            frame_rows_max: start.options.frame_rows_max,
            bounded: start.bounded,
        })?;
        let assembly = Assembly {
            graph,
            plan: &plan(graph)?,
            log: &port,
            topics: &topics,
            clock: &clock,
            counters: &counters,
            state: &state,
            wakers: &wakers,
            last_committed: start.last_committed,
            options: start.options,
        };
        let mut workers = assemble(&assembly, sources)?;
        let open = start.last_committed.next();
        log.begin(open)?;
        workers.iter_mut().try_for_each(|worker| worker.handle(Command::Begun(open)))?;
        Ok(Self {
            log: log.clone(),
            idle: vec![false; workers.len()],
            workers,
            counters,
            random: ChaCha8Rng::seed_from_u64(start.seed),
            seed: start.seed,
            open,
            is_closing: false,
            aligned: BTreeMap::new(),
            flushed: 0,
            loaded: 0,
            ended: 0,
            active: start.last_committed,
            committed: start.splits.to_vec(),
        })
    }

    /// Steps until all input is used up and the last epoch is committed. Between, every `epoch_steps`-th step
    /// or so an epoch is ended.
    pub(crate) fn finish(&mut self, epoch_steps: u32) -> Result<()> {
        while self.ended < self.workers.len() || self.is_closing || self.active == self.open {
            let all_ended = self.ended == self.workers.len();
            if !self.is_closing && (all_ended || self.random.random_ratio(1, epoch_steps)) {
                self.barrier()?;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Steps until nothing is left to do; no epoch is ended.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.idle.fill(false);
        while self.idle.contains(&false) {
            self.step()?;
        }
        Ok(())
    }

    /// Ends the running epoch and commits it.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.barrier()?;
        while self.is_closing {
            self.step()?;
        }
        Ok(())
    }

    /// Has the sources emit a barrier.
    pub(crate) fn barrier(&mut self) -> Result<()> {
        self.is_closing = true;
        self.tell(&Command::Barrier(self.open))
    }

    /// Steps one worker.
    pub(crate) fn step(&mut self) -> Result<()> {
        let index = self.random.random_range(0..self.workers.len());
        let progressed = self.workers[index].step()?;
        if progressed {
            self.idle.fill(false);
        }
        self.idle[index] = !progressed;
        for report in self.workers[index].take_reports() {
            self.take(index, report)?;
        }
        let stuck = !self.idle.contains(&false) && self.is_closing;
        assert!(!stuck, "nothing moves, and a barrier is on its way; seed {}", self.seed);
        Ok(())
    }

    /// Tells all workers.
    pub(crate) fn tell(&mut self, command: &Command) -> Result<()> {
        self.idle.fill(false);
        self.workers.iter_mut().try_for_each(|worker| worker.handle(command.clone()))
    }

    fn take(&mut self, worker: usize, report: Report) -> Result<()> {
        match report {
            Report::Loaded => self.loaded += 1,
            Report::Active(epoch) => self.active = self.active.max(epoch),
            Report::Ended => self.ended += 1,
            Report::Aligned { epoch, splits } => {
                assert_eq!(epoch, self.open);
                assert!(self.aligned.insert(worker, splits).is_none(), "a worker aligns once");
            }
            Report::Flushed(epoch) => {
                assert_eq!(epoch, self.open);
                assert!(self.aligned.contains_key(&worker), "a worker has aligned when it has flushed");
                self.flushed += 1;
                if self.flushed == self.workers.len() {
                    self.release()?;
                }
            }
        }
        Ok(())
    }

    /// Commits the epoch that every worker has flushed, and begins the next.
    fn release(&mut self) -> Result<()> {
        let mut splits: Vec<_> = std::mem::take(&mut self.aligned).into_values().flatten().collect();
        splits.sort_by(|one, other| one.state.split.cmp(&other.state.split));
        self.committed = splits;
        self.log.commit(self.open, &[])?;
        let committed = self.open;
        self.open = committed.next();
        (self.flushed, self.is_closing) = (0, false);
        self.log.begin(self.open)?;
        self.tell(&Command::Committed(committed))?;
        self.tell(&Command::Begun(self.open))
    }

    /// How many workers have read their timeless sources.
    pub(crate) fn loaded(&self) -> usize {
        self.loaded
    }
}

/// The stores of a worker that keeps none.
pub(crate) fn no_stores(worker: usize, workers: usize) -> StateAccess {
    let backend = MemoryState::new().open().unwrap();
    let limits = StateLimits::default();
    StateAccess::new(StateAccessOptions { backend, stores: &[], worker, workers, limits }).unwrap()
}

/// Text as it is.
#[derive(Clone)]
pub(crate) struct Text;

impl Codec<String> for Text {
    fn id(&self) -> CodecId {
        CodecId { name: "text", version: 1 }
    }

    fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
        if value == "unwritable" {
            return Err(CodecError::new("it says so itself"));
        }
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        String::from_utf8(bytes.to_vec()).map_err(|error| CodecError::caused("it is not UTF-8", error))
    }
}
