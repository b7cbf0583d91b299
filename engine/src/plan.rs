//! Lays a graph out as tasks: pure, from a [`Graph`] to a [`Plan`], or to what is wrong with the graph.
//!
//! A task is a tree of steps that one worker runs without a queue between them: a step joins the task of
//! the one before it where that is its only input and its events stay where they are.
//!
//! ```text
//!   source ─▶ map ─┬▶ key_by ═hash═▶ window ─┬▶ sink          task 0: source map key_by filter key_by
//!                  └▶ filter ─▶ key_by ═hash═▶ join            task 1: window sink (late) sink
//!                                 table ═hash═▶ join ─▶ sink   task 2: table   task 3: join sink
//! ```
//!
//! Every worker runs every task, on its share of the events. An edge between two tasks is a [`LinkSpec`]:
//! a queue for each pair of sender and receiver.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Edge, Exchange, Graph, NodeId, NodeKind};

/// A graph laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The tasks; one that sends comes before those that it sends to.
    pub tasks: Vec<TaskSpec>,
    /// The edges between tasks.
    pub links: Vec<LinkSpec>,
}

/// A tree of steps that run without a queue between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSpec {
    /// The steps; the root first, each before those that it feeds.
    pub steps: Vec<StepSpec>,
    /// The links that end at the root, as places in [`Plan::links`].
    pub inputs: Vec<usize>,
}

/// A step in its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSpec {
    /// The step in the graph.
    pub node: NodeId,
    /// Who takes what it emits.
    pub outputs: Vec<OutputSpec>,
}

/// One taker of what a step emits on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// The port.
    pub port: usize,
    /// Who takes it.
    pub target: TargetSpec,
}

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSpec {
    /// To a step of the same task, by its place there.
    Step(usize),
    /// Into a link, by its place in [`Plan::links`].
    Link(usize),
}

/// An edge between two tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// How events find their worker.
    pub exchange: Exchange,
    /// The task at its end, by its place in [`Plan::tasks`].
    pub to: usize,
    /// The input of that task's root.
    pub input: usize,
}

impl LinkSpec {
    /// The workers that `sender`, of `workers`, has a queue to. By symmetry, those that it has one from.
    pub fn peers(&self, sender: usize, workers: usize) -> Range<usize> {
        match self.exchange {
            Exchange::Forward => sender..sender + 1,
            Exchange::Hash | Exchange::Broadcast => 0..workers,
        }
    }
}

/// Lays `graph` out.
///
/// # Errors
/// [`ErrorKind::Invalid`] where it is no graph that can run: a name or a store's name used twice, an edge
/// to nowhere, a source with an input or a step without one, a cycle.
pub fn plan(graph: &Graph) -> Result<Plan> {
    check_names(graph)?;
    check_edges(graph)?;
    let order = topological_order(graph)?;
    Ok(lay_out(graph, &order))
}

/// The steps of `plan`, task by task, as `explain` shows them.
pub fn describe(plan: &Plan, graph: &Graph) -> String {
    let name = |node: NodeId| graph.nodes[node.0 as usize].name.as_str();
    let mut text = String::new();
    for (index, task) in plan.tasks.iter().enumerate() {
        let steps: Vec<_> = task.steps.iter().map(|step| name(step.node)).collect();
        text.push_str(&format!("task {index}: {}\n", steps.join(", ")));
    }
    text
}

fn check_names(graph: &Graph) -> Result<()> {
    let mut names = HashSet::new();
    let mut stores = HashSet::new();
    for node in &graph.nodes {
        if !names.insert(node.name.as_str()) {
            return Err(invalid(graph, format!("two steps are named {}", node.name)));
        }
        for store in &node.stores {
            if !stores.insert(store.name.as_str()) {
                return Err(invalid(graph, format!("two stores are named {}", store.name)));
            }
        }
    }
    Ok(())
}

fn check_edges(graph: &Graph) -> Result<()> {
    let nodes = graph.nodes.len();
    if let Some(edge) = graph.edges.iter().find(|edge| edge.from.0.max(edge.to.0) as usize >= nodes) {
        return Err(invalid(graph, format!("an edge joins {edge:?}, and there are {nodes} steps")));
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        let inputs: BTreeSet<usize> =
            graph.edges.iter().filter(|edge| edge.to.0 as usize == index).map(|edge| edge.input).collect();
        let fed = !inputs.is_empty();
        if !inputs.iter().copied().eq(0..inputs.len()) {
            let what = format!("the step {} has the inputs {inputs:?}, which leave some out", node.name);
            return Err(invalid(graph, what));
        }
        match node.kind {
            NodeKind::Source(_) if fed => {
                return Err(invalid(graph, format!("the source {} has an input", node.name)));
            }
            NodeKind::Operator(_) if !fed => {
                return Err(invalid(graph, format!("the step {} has no input", node.name)));
            }
            NodeKind::Source(_) | NodeKind::Operator(_) => {}
        }
    }
    Ok(())
}

/// The steps, each behind those that feed it, otherwise in order of id (Kahn's algorithm).
fn topological_order(graph: &Graph) -> Result<Vec<usize>> {
    let mut open_inputs = vec![0; graph.nodes.len()];
    for edge in &graph.edges {
        open_inputs[edge.to.0 as usize] += 1;
    }
    let mut ready: BTreeSet<usize> = (0..graph.nodes.len()).filter(|&node| open_inputs[node] == 0).collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for edge in edges_from(graph, node) {
            let to = edge.to.0 as usize;
            open_inputs[to] -= 1;
            if open_inputs[to] == 0 {
                ready.insert(to);
            }
        }
    }
    match open_inputs.iter().position(|&open| open > 0) {
        None => Ok(order),
        Some(node) => {
            Err(invalid(graph, format!("the step {} feeds itself, by a cycle", graph.nodes[node].name)))
        }
    }
}

/// Where a step is: its task, and its place there.
type Places = Vec<(usize, usize)>;

fn lay_out(graph: &Graph, order: &[usize]) -> Plan {
    let mut tasks: Vec<TaskSpec> = Vec::new();
    let mut places: Places = vec![(0, 0); graph.nodes.len()];
    for &node in order {
        let task = match chained_to(graph, node) {
            Some(parent) => places[parent].0,
            None => {
                tasks.push(TaskSpec::default());
                tasks.len() - 1
            }
        };
        places[node] = (task, tasks[task].steps.len());
        tasks[task].steps.push(StepSpec { node: NodeId(node as u32), outputs: Vec::new() });
    }
    let links = connect(graph, &mut tasks, &places);
    Plan { tasks, links }
}

fn connect(graph: &Graph, tasks: &mut [TaskSpec], places: &Places) -> Vec<LinkSpec> {
    let mut links = Vec::new();
    for edge in &graph.edges {
        let (from_task, from_place) = places[edge.from.0 as usize];
        let (to_task, to_place) = places[edge.to.0 as usize];
        let target = if from_task == to_task {
            TargetSpec::Step(to_place)
        } else {
            links.push(LinkSpec { exchange: edge.exchange, to: to_task, input: edge.input });
            tasks[to_task].inputs.push(links.len() - 1);
            TargetSpec::Link(links.len() - 1)
        };
        tasks[from_task].steps[from_place].outputs.push(OutputSpec { port: edge.port, target });
    }
    links
}

/// The step whose task `node` joins, if its only input is an edge on which events stay where they are.
fn chained_to(graph: &Graph, node: usize) -> Option<usize> {
    let mut inputs = graph.edges.iter().filter(|edge| edge.to.0 as usize == node);
    let first = inputs.next()?;
    (inputs.next().is_none() && first.exchange == Exchange::Forward).then_some(first.from.0 as usize)
}

fn edges_from(graph: &Graph, node: usize) -> impl Iterator<Item = &Edge> {
    graph.edges.iter().filter(move |edge| edge.from.0 as usize == node)
}

fn invalid(graph: &Graph, what: String) -> Error {
    Error::new(ErrorKind::Invalid, format!("flow {}: {what}", graph.name))
}

#[cfg(test)]
mod tests;
