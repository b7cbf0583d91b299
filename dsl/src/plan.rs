//! A flow while it is being written: steps and edges, shared by every handle on it. Lowering turns it
//! into the engine's graph.

use std::sync::Arc;

use lotic_engine::event_log::TopicSpec;
use lotic_engine::graph::{Edge, Exchange, NodeId, StoreSpec};
use lotic_engine::operator::OperatorFactory;
use lotic_engine::source::SourceFactory;
use parking_lot::Mutex;

/// The plan that a flow and its streams share.
pub(crate) type SharedPlan = Arc<Mutex<Plan>>;

/// The steps of a flow, in the order in which they were written.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) edges: Vec<Edge>,
}

/// One step.
pub(crate) struct Step {
    pub(crate) name: StepName,
    pub(crate) description: String,
    pub(crate) kind: StepKind,
    pub(crate) stores: Vec<StoreSpec>,
    pub(crate) depends_on_arrival: bool,
    /// Whether its main output says a result again under the same key when input goes on after an end.
    pub(crate) says_again: bool,
    /// What must be right about the program and was found wrong while it was written.
    pub(crate) faults: Vec<String>,
}

/// What a step is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StepName {
    /// The user's name: unique in the flow, part of the names of its stores and topics.
    Given(String),
    /// The topic that is read.
    Topic(String),
    /// What it does, made unique by a number.
    Kind(&'static str),
}

/// What a step is made of.
pub(crate) enum StepKind {
    Source { factory: Arc<dyn SourceFactory>, timeless: bool, topic: Option<TopicSpec> },
    Operator(Arc<dyn OperatorFactory>),
    Sink(Arc<dyn TopicSinkPlan>),
}

/// A topic sink, whose settings may change until the flow is lowered.
pub(crate) trait TopicSinkPlan: Send + Sync {
    fn topic(&self) -> TopicSpec;
    fn description(&self) -> String;
    fn operator(&self) -> Arc<dyn OperatorFactory>;
}

impl Step {
    /// A step without state.
    pub(crate) fn stateless(kind: &'static str, operator: Arc<dyn OperatorFactory>) -> Self {
        Self::new(StepName::Kind(kind), kind.to_owned(), StepKind::Operator(operator))
    }

    /// A step of the user's name.
    pub(crate) fn named(name: &str, description: String, kind: StepKind) -> Self {
        Self::new(StepName::Given(name.to_owned()), description, kind)
    }

    pub(crate) fn new(name: StepName, description: String, kind: StepKind) -> Self {
        let (stores, faults) = (Vec::new(), Vec::new());
        Self { name, description, kind, stores, depends_on_arrival: false, says_again: false, faults }
    }
}

/// An output port of a step, and how to add more steps behind it.
#[derive(Clone)]
pub(crate) struct Output {
    pub(crate) plan: SharedPlan,
    pub(crate) node: NodeId,
    pub(crate) port: usize,
}

impl Output {
    /// Another port of the same step.
    pub(crate) fn port(&self, port: usize) -> Self {
        Self { port, ..self.clone() }
    }

    /// Whether a result here may be said again under the same key: it is, or is made of, a window's. Whatever
    /// adds such results up counts them twice when input goes on after an end.
    pub(crate) fn says_again(&self) -> bool {
        let plan = self.plan.lock();
        let mut behind = vec![(self.node, self.port)];
        while let Some((node, port)) = behind.pop() {
            if port == 0 && plan.steps[node.0 as usize].says_again {
                return true;
            }
            let inputs = plan.edges.iter().filter(|edge| edge.to == node);
            behind.extend(inputs.map(|edge| (edge.from, edge.port)));
        }
        false
    }

    /// Puts `step` behind this output, on the same worker.
    pub(crate) fn then(&self, step: Step) -> Self {
        add(&self.plan, step, &[(self, Exchange::Forward)])
    }
}

/// Adds a step that reads `inputs`, in this order, and gives its main output.
pub(crate) fn add(plan: &SharedPlan, mut step: Step, inputs: &[(&Output, Exchange)]) -> Output {
    if inputs.iter().any(|(output, _)| !Arc::ptr_eq(&output.plan, plan)) {
        step.faults.push(
            "it joins streams of different flows; a flow reads what another writes from a topic".into(),
        );
    }
    let mut locked = plan.lock();
    let node = NodeId(u32::try_from(locked.steps.len()).expect("a program does not write 2^32 steps"));
    locked.steps.push(step);
    for (input, (output, exchange)) in inputs.iter().enumerate() {
        let (from, port, exchange) = (output.node, output.port, *exchange);
        locked.edges.push(Edge { from, port, to: node, input, exchange });
    }
    Output { plan: Arc::clone(plan), node, port: 0 }
}
