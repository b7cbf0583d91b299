//! The plan as data: what the engine runs, before it is laid out on workers.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::codec::CodecId;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::TopicSpec;
use crate::operator::OperatorFactory;
use crate::source::SourceFactory;
use crate::state::SUSPECT;

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

impl Graph {
    /// How far behind the [watermark](SourceFactory::disorder_ms) of each source stays, by its name; of a timeless
    /// one there is none.
    pub(crate) fn disorders(&self) -> BTreeMap<String, i64> {
        let of = |node: &Node| match &node.kind {
            NodeKind::Source(source) if !source.timeless => {
                source.factory.disorder_ms().map(|disorder_ms| (node.name.clone(), disorder_ms))
            }
            NodeKind::Source(_) | NodeKind::Operator(_) => None,
        };
        self.nodes.iter().filter_map(of).collect()
    }

    /// The sources of all that [is waited for](OperatorFactory::awaited_input) by records of other inputs.
    pub(crate) fn awaited_sources(&self) -> HashSet<NodeId> {
        let is_awaited = |edge: &&Edge| match &self.nodes[edge.to.0 as usize].kind {
            NodeKind::Operator(factory) => factory.awaited_input() == Some(edge.input),
            NodeKind::Source(_) => false,
        };
        let mut open: Vec<NodeId> = self.edges.iter().filter(is_awaited).map(|edge| edge.from).collect();
        let mut seen = HashSet::new();
        while let Some(node) = open.pop() {
            if seen.insert(node) {
                open.extend(self.edges.iter().filter(|edge| edge.to == node).map(|edge| edge.from));
            }
        }
        seen.retain(|node| matches!(self.nodes[node.0 as usize].kind, NodeKind::Source(_)));
        seen
    }
}

/// The longest name of a flow, so that its topics have room for what the engine adds to it.
pub const FLOW_NAME_BYTES_MAX: usize = 100;

/// Refuses a name that a flow cannot have: topics, a transactional id and directories are called after it.
///
/// # Errors
/// `Invalid`, saying what is possible.
pub fn check_flow_name(name: &str) -> Result<()> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let what = if name.is_empty() || name.len() > FLOW_NAME_BYTES_MAX || !name.chars().all(is_allowed) {
        format!("a name is 1 to {FLOW_NAME_BYTES_MAX} letters, digits, dots, underscores and hyphens")
    } else if matches!(name, "." | "..") {
        "it would name a directory of another purpose".to_owned()
    } else if Path::new(name).extension() == Some(SUSPECT.as_ref()) {
        format!("a name that ends in .{SUSPECT} marks another flow's state as damaged")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, format!("flow {name:?}: {what}")))
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

/// A store that a step keeps, with its changelog topic `<flow>-<store>-changelog`, which the flow owns.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_called_nothing_that_leads_out_of_its_directories() {
        for name in ["a", "flow-1", "a.b_c", "...", ".suspect", "suspect", &"x".repeat(100)] {
            check_flow_name(name).unwrap();
        }
        for name in ["", ".", "..", "a.suspect", "a/b", "../a", "a b", "ä", &"x".repeat(101)] {
            let error = check_flow_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().starts_with(&format!("flow {name:?}: ")), "{error}");
        }
    }
}
