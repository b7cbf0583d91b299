//! The plan as data: what the engine runs, before it is laid out on workers.

use std::sync::Arc;

use crate::codec::CodecId;
use crate::event_log::TopicSpec;
use crate::operator::OperatorFactory;
use crate::source::SourceFactory;

/// A flow as nodes and edges. Made by the DSL; a directed graph without cycles.
pub struct Graph {
    /// The flow's name: prefix of its internal topics, and its transactional id.
    pub name: String,
    /// The steps. A node's id is its place here.
    pub nodes: Vec<Node>,
    /// Who reads whose output.
    pub edges: Vec<Edge>,
    /// Every topic that the flow reads or writes, with what it must be. Internal ones are the engine's.
    pub topics: Vec<TopicSpec>,
}

/// The place of a node in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// One step.
pub struct Node {
    /// Unique in the graph and stable across versions of the program where the step has state.
    pub name: String,
    /// What the step does, for `explain`: for instance `window tumbling 1h`.
    pub description: String,
    /// Source or operator.
    pub kind: NodeKind,
    /// The stores it keeps; their names are unique in the graph.
    pub stores: Vec<StoreSpec>,
    /// Whether its result may depend on the order in which records arrive.
    pub depends_on_arrival: bool,
}

/// What a node is.
pub enum NodeKind {
    /// Events enter here.
    Source(SourceSpec),
    /// Events pass through here, or leave.
    Operator(Arc<dyn OperatorFactory>),
}

/// A source.
pub struct SourceSpec {
    /// Makes the source.
    pub factory: Arc<dyn SourceFactory>,
    /// Whether it holds from the beginning of time: read to the end it had at the first start before any
    /// other source begins, and without a part in the watermark.
    pub timeless: bool,
}

/// A store that a step keeps, with its changelog topic `<flow>-<store>-changelog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// The store's name, unique in the flow.
    pub name: String,
    /// How values are written; a change makes the store unreadable and is refused.
    pub value_codec: CodecId,
}

/// An edge: the frames that `from` emits on `port` arrive at `to` on `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The sender.
    pub from: NodeId,
    /// The sender's output port: 0 is the main one, late records and dead letters have others.
    pub port: usize,
    /// The receiver.
    pub to: NodeId,
    /// The receiver's input.
    pub input: usize,
    /// How events find their worker.
    pub exchange: Exchange,
}

/// How events find their worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// They stay where they are.
    Forward,
    /// They go to the worker that owns their key group.
    Hash,
    /// Every worker gets all of them.
    Broadcast,
}
