//! Opens the sources of a flow, before anything is written: a source that refuses to go on leaves everything
//! as it was.

use std::sync::Arc;

use crate::counters::Counters;
use crate::error::Result;
use crate::event_log::EventLog;
use crate::graph::{Graph, Node, NodeId, NodeKind, SourceSpec};
use crate::source::{Rejected, SourceOpenContext, SourceSplit, SplitStart};
use crate::task::Body;

/// What sources are opened on.
pub struct SourceSetup<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The log.
    pub log: &'a Arc<dyn EventLog>,
    /// What each step counts, by its place in the graph.
    pub counters: &'a [Arc<Counters>],
    /// Where the last committed epoch left them.
    pub splits: &'a [SourceSplit],
    /// How many workers there are.
    pub workers: usize,
    /// How many events a frame holds at most.
    pub frame_rows_max: usize,
    /// Whether they end at the end that their input has now.
    pub bounded: bool,
}

/// The sources of a flow, opened and not yet given to the workers.
pub struct OpenSources {
    /// By node, then by worker; empty for other steps.
    bodies: Vec<Vec<Option<Body>>>,
}

impl OpenSources {
    /// The share that `worker` has of a source.
    ///
    /// # Panics
    /// If it was taken before, or the node is no source.
    pub(super) fn take(&mut self, node: NodeId, worker: usize) -> Body {
        self.bodies[node.0 as usize][worker].take().expect("each worker's share of a source is taken once")
    }
}

/// Opens every source where the last committed epoch left it, for each worker. Nothing is written.
///
/// # Errors
/// Those of the sources, with their names.
pub fn open_sources(setup: &SourceSetup<'_>) -> Result<OpenSources> {
    let splits = read_splits(setup)?;
    let numbers = number_sources(&splits);
    let open = |(index, node): (usize, &Node)| match &node.kind {
        NodeKind::Operator(_) => Ok(Vec::new()),
        NodeKind::Source(source) => {
            resume_counts(setup, node, &setup.counters[index]);
            let share = Share { setup, node, source, splits: &splits[index], number: numbers[index] };
            let opened = (0..setup.workers).map(|worker| share.open(worker).map(Some));
            let opened: Result<_> = opened.collect();
            opened.map_err(|error| error.within(format_args!("source {}", node.name)))
        }
    };
    let bodies = setup.graph.nodes.iter().enumerate().map(open).collect::<Result<_>>()?;
    Ok(OpenSources { bodies })
}

/// The splits of each source, by the source's place in the graph; empty for other steps.
fn read_splits(setup: &SourceSetup<'_>) -> Result<Vec<Vec<String>>> {
    let splits = |node: &Node| match &node.kind {
        NodeKind::Source(source) => {
            let splits = source.factory.splits(&**setup.log);
            splits.map_err(|error| error.within(format_args!("source {}", node.name)))
        }
        NodeKind::Operator(_) => Ok(Vec::new()),
    };
    setup.graph.nodes.iter().map(splits).collect()
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

/// What was rejected is counted on from what the last epoch recorded.
fn resume_counts(setup: &SourceSetup<'_>, node: &Node, counters: &Counters) {
    let own = setup.splits.iter().filter(|split| split.source == node.name);
    let rejected: Rejected = own.map(|split| split.state.rejected).sum();
    counters.skipped.set(rejected.skipped);
    counters.dead_lettered.set(rejected.dead_lettered);
}

/// One source and its splits, to be shared out.
struct Share<'a> {
    setup: &'a SourceSetup<'a>,
    node: &'a Node,
    source: &'a SourceSpec,
    splits: &'a [String],
    number: u32,
}

impl Share<'_> {
    /// Opens what `worker` has of it.
    fn open(&self, worker: usize) -> Result<Body> {
        let setup = self.setup;
        let mine = self.splits.iter().skip(worker).step_by(setup.workers);
        let starts: Vec<SplitStart> = mine.map(|split| self.start(split)).collect();
        if starts.is_empty() {
            return Ok(Body::NoSplits);
        }
        let mut context = SourceOpenContext {
            step: &self.node.name,
            source: self.number,
            log: setup.log,
            frame_rows_max: setup.frame_rows_max,
            bounded: setup.bounded,
            timeless: self.source.timeless,
        };
        self.source.factory.open(starts, &mut context).map(Body::Source)
    }

    fn start(&self, split: &str) -> SplitStart {
        let mut recorded = self.setup.splits.iter();
        let found =
            recorded.find(|recorded| recorded.source == self.node.name && recorded.state.split == split);
        SplitStart { split: split.to_owned(), state: found.map(|recorded| recorded.state.clone()) }
    }
}
