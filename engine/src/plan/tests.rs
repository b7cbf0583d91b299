use super::*;
use crate::event_log::EventLog;
use crate::frame::Frame;
use crate::graph::{Node, StoreSpec};
use crate::harness::sketch;
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};
use crate::source::{Source, SourceFactory, SourceOpenContext, SplitStart};
use std::sync::Arc;

struct Nowhere;

impl SourceFactory for Nowhere {
    fn splits(&self, _log: &dyn EventLog) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn open(&self, _: Vec<SplitStart>, _: &mut SourceOpenContext<'_>) -> Result<Box<dyn Source>> {
        unreachable!("a plan opens nothing")
    }
}

struct Nothing;

impl Operator for Nothing {
    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<()> {
        Ok(())
    }
}

fn nothing() -> Arc<dyn OperatorFactory> {
    operator_factory(|_| Ok(Nothing))
}

const FORWARD: Exchange = Exchange::Forward;
const HASH: Exchange = Exchange::Hash;

fn tasks(graph: &Graph) -> String {
    describe(&plan(graph).unwrap(), graph)
}

#[test]
fn steps_run_in_one_task_until_events_change_worker_or_streams_meet() {
    let mut graph = sketch();
    let flights = graph.source("flights", Nowhere);
    let weather = graph.source("weather", Nowhere);
    let by_carrier = graph.step("by carrier", nothing(), &[(flights, FORWARD)]);
    let departed = graph.step("departed", nothing(), &[(flights, FORWARD)]);
    let by_origin = graph.step("by origin", nothing(), &[(departed, FORWARD)]);
    let window = graph.step("window", nothing(), &[(by_carrier, HASH)]);
    let join = graph.step("join", nothing(), &[(by_origin, HASH), (weather, HASH)]);
    graph.step("delays", nothing(), &[(window, FORWARD)]);
    graph.step("conditions", nothing(), &[(join, FORWARD)]);
    let late = graph.step("late", nothing(), &[(window, FORWARD), (join, FORWARD)]);
    for edge in graph.edges.iter_mut().filter(|edge| edge.to == late) {
        (edge.port, edge.input) = (1, 0);
    }
    let expected = "\
task 0: flights, by carrier, departed, by origin
task 1: weather
task 2: window, delays
task 3: join, conditions
task 4: late
";
    assert_eq!(tasks(&graph), expected);
    let plan = plan(&graph).unwrap();
    let link = |exchange, to, input| LinkSpec { exchange, to, input };
    let links =
        [link(HASH, 2, 0), link(HASH, 3, 0), link(HASH, 3, 1), link(FORWARD, 4, 0), link(FORWARD, 4, 0)];
    assert_eq!(plan.links, links);
    assert_eq!(plan.tasks[4].inputs, [3, 4]);
    let outputs = &plan.tasks[2].steps[0].outputs;
    assert_eq!(outputs[0], OutputSpec { port: 0, target: TargetSpec::Step(1) });
    assert_eq!(outputs[1], OutputSpec { port: 1, target: TargetSpec::Link(3) });
}

#[test]
fn a_task_comes_before_those_it_sends_to_however_the_graph_is_numbered() {
    let mut graph = sketch();
    let source = graph.source("a", Nowhere);
    let late = graph.step("late in the chain", nothing(), &[(source, HASH)]);
    let early = graph.step("early in the chain", nothing(), &[(source, HASH)]);
    graph.edges.retain(|edge| edge.to != late);
    graph.edges.push(Edge { from: early, port: 0, to: late, input: 0, exchange: HASH });
    assert_eq!(tasks(&graph), "task 0: a\ntask 1: early in the chain\ntask 2: late in the chain\n");
}

#[test]
fn events_that_stay_have_one_queue_and_others_one_to_each_worker() {
    let link = |exchange| LinkSpec { exchange, to: 0, input: 0 };
    assert_eq!(link(FORWARD).peers(2, 4), 2..3);
    assert_eq!(link(HASH).peers(2, 4), 0..4);
    assert_eq!(link(Exchange::Broadcast).peers(2, 4), 0..4);
}

#[test]
fn a_graph_that_cannot_run_is_refused_with_the_reason() {
    let check = |change: &dyn Fn(&mut Graph), expected: &str| {
        let mut graph = sketch();
        let source = graph.source("numbers", Nowhere);
        graph.step("double", nothing(), &[(source, FORWARD)]);
        change(&mut graph);
        let error = plan(&graph).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.to_string(), format!("flow test: {expected}"));
    };
    let store = || StoreSpec {
        name: "counts".to_owned(),
        value_codec: crate::codec::CodecId { name: "json", version: 1 },
    };
    let rename = |node: &mut Node| "numbers".clone_into(&mut node.name);
    check(&|graph| rename(&mut graph.nodes[1]), "two steps are named numbers");
    check(&|graph| graph.nodes[1].stores.extend([store(), store()]), "two stores are named counts");
    check(&|graph| graph.edges.clear(), "the step double has no input");
    check(&|graph| graph.edges[0].to = NodeId(0), "the source numbers has an input");
    check(&|graph| graph.edges[0].input = 1, "the step double has the inputs {1}, which leave some out");
    check(
        &|graph| {
            let edge = graph.edges[0];
            graph.edges.push(Edge { from: NodeId(1), to: NodeId(1), input: 1, ..edge });
        },
        "the step double feeds itself, by a cycle",
    );
    check(
        &|graph| graph.edges[0].to = NodeId(9),
        "an edge joins Edge { from: NodeId(0), port: 0, to: NodeId(9), input: 0, exchange: Forward }, \
         and there are 2 steps",
    );
}
