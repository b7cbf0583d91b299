//! From what was written to what the engine runs.
//!
//! Rows are typed up to here; from here on they are erased, and each operator finds the type that the
//! stream it was put behind had. This is also where a program is checked for what its types do not show.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lotic_engine::error::{Error, ErrorKind, Result};
use lotic_engine::event_log::TopicSpec;
use lotic_engine::graph::{FLOW_NAME_BYTES_MAX, Graph, Node, NodeKind, SourceSpec, check_flow_name};

use crate::plan::{Plan, Step, StepKind, StepName};

/// The longest name of a step: with the flow's, and what the engine adds, it makes a topic's.
const NAME_BYTES_MAX: usize = FLOW_NAME_BYTES_MAX;

/// The plan as a graph.
///
/// # Errors
///
/// `Invalid`, with every fault that was found.
pub(crate) fn lower(plan: &Plan) -> Result<Graph> {
    let mut faults = Faults::default();
    faults.check(check_flow_name(&plan.name));
    let names = name_steps(plan, &mut faults);
    let topics = topics(plan, &mut faults);
    topics.iter().for_each(|topic| faults.check(topic.check_possible()));
    check_stores(plan, &mut faults);
    for (step, name) in plan.steps.iter().zip(&names) {
        step.faults.iter().for_each(|fault| faults.add(format!("step {name}: {fault}")));
    }
    faults.into_result(&plan.name)?;
    let nodes = plan.steps.iter().zip(names).map(|(step, name)| node(step, name)).collect();
    Ok(Graph { name: plan.name.clone(), nodes, edges: plan.edges.clone(), topics })
}

fn node(step: &Step, name: String) -> Node {
    let (kind, description) = match &step.kind {
        StepKind::Source { factory, timeless, .. } => {
            let source = SourceSpec { factory: factory.clone(), timeless: *timeless };
            (NodeKind::Source(source), step.description.clone())
        }
        StepKind::Operator(factory) => (NodeKind::Operator(factory.clone()), step.description.clone()),
        StepKind::Sink(sink) => (NodeKind::Operator(sink.operator()), sink.description()),
    };
    let (stores, depends_on_arrival) = (step.stores.clone(), step.depends_on_arrival);
    Node { name, description, kind, stores, depends_on_arrival }
}

/// What is wrong with a program.
#[derive(Default)]
struct Faults {
    found: Vec<String>,
}

impl Faults {
    fn add(&mut self, fault: String) {
        self.found.push(fault);
    }

    fn check(&mut self, checked: Result<()>) {
        if let Err(error) = checked {
            self.add(error.to_string());
        }
    }

    /// A step's name is part of the names of topics and files.
    fn check_step_name(&mut self, name: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_short = (1..=NAME_BYTES_MAX).contains(&name.len());
        if !is_short || !name.chars().all(allowed) || matches!(name, "." | "..") {
            self.add(format!(
                "step {name:?}: a name is 1 to {NAME_BYTES_MAX} letters, digits, dots, underscores and \
                 hyphens, since topics and files are named after it"
            ));
        }
    }

    fn into_result(self, flow: &str) -> Result<()> {
        if self.found.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, format!("flow {flow}: {}", self.found.join("; "))))
    }
}

/// The names of all steps. Those that the program gives are kept as they are; a colon keeps the others
/// apart from them.
fn name_steps(plan: &Plan, faults: &mut Faults) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut names = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let name = match (&step.name, &step.kind) {
            (StepName::Given(name), _) => {
                faults.check_step_name(name);
                name.clone()
            }
            (StepName::Topic(topic), _) => format!("topic:{topic}"),
            (StepName::Kind(kind), StepKind::Sink(sink)) => {
                numbered(&mut numbers, format!("{kind}:{}", sink.topic().name))
            }
            (StepName::Kind(kind), _) => numbered(&mut numbers, (*kind).to_owned()),
        };
        if !taken.insert(name.clone()) {
            faults.add(match &step.name {
                StepName::Topic(topic) => format!("topic {topic} is read twice: read it once, use it twice"),
                _ => format!("two steps are called {name}, and a name is an identity across restarts"),
            });
        }
        names.push(name);
    }
    names
}

/// `base` with the number of times that it was asked for.
fn numbered(numbers: &mut HashMap<String, usize>, base: String) -> String {
    let number = numbers.entry(base.clone()).or_default();
    *number += 1;
    format!("{base}:{number}")
}

/// Every topic that the flow reads or writes, once, with all that is said of it.
fn topics(plan: &Plan, faults: &mut Faults) -> Vec<TopicSpec> {
    let mut topics: BTreeMap<String, TopicSpec> = BTreeMap::new();
    for step in &plan.steps {
        let spec = match &step.kind {
            StepKind::Source { topic: Some(spec), .. } => spec.clone(),
            StepKind::Sink(sink) => sink.topic(),
            StepKind::Source { topic: None, .. } | StepKind::Operator(_) => continue,
        };
        match topics.get_mut(&spec.name) {
            None => drop(topics.insert(spec.name.clone(), spec)),
            Some(known) => merge(known, spec, faults),
        }
    }
    topics.into_values().collect()
}

/// Adds to what is known of a topic what another step says of it.
fn merge(known: &mut TopicSpec, other: TopicSpec, faults: &mut Faults) {
    let name = &other.name;
    match (known.partitions, other.partitions) {
        (Some(a), Some(b)) if a != b => {
            faults.add(format!("topic {name} is declared with {a} partitions and with {b}"));
        }
        (a, b) => known.partitions = a.or(b),
    }
    match (&known.key_format, &other.key_format) {
        (Some(a), Some(b)) if a != b => {
            faults.add(format!("topic {name} is declared with keys written as {a} and as {b}"));
        }
        (None, Some(_)) => known.key_format = other.key_format,
        _ => {}
    }
    known.compacted |= other.compacted;
    known.create |= other.create;
}

fn check_stores(plan: &Plan, faults: &mut Faults) {
    let mut stores = BTreeSet::new();
    for store in plan.steps.iter().flat_map(|step| &step.stores) {
        if !stores.insert(&store.name) {
            faults.add(format!("two stores are called {}: call one of the steps otherwise", store.name));
        }
    }
}
