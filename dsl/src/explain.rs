//! A flow in words.

use std::fmt::Write;

use lotic_engine::graph::{Edge, Exchange, Graph, NodeId, NodeKind};

/// The steps, with what each reads and keeps, then the topics.
pub(crate) fn explain(graph: &Graph) -> String {
    let mut text = format!("flow {}\n\nsteps\n", graph.name);
    for index in 0..graph.nodes.len() {
        step(graph, NodeId(index as u32), &mut text);
    }
    text.push_str("\ntopics\n");
    for topic in &graph.topics {
        let uses = if topic.create { "written" } else { "read" };
        let partitions = match topic.partitions {
            Some(1) => ", 1 partition".to_owned(),
            Some(count) => format!(", {count} partitions"),
            None => String::new(),
        };
        let keys = topic.key_format.as_ref().map_or(String::new(), |format| format!(", keys {format}"));
        let compacted = if topic.compacted { ", compacted" } else { "" };
        line(&mut text, format_args!("  {}: {uses}{partitions}{keys}{compacted}", topic.name));
    }
    line(&mut text, format_args!("  {}-epochs: the flow's own, its epoch records", graph.name));
    for store in graph.nodes.iter().flat_map(|node| &node.stores) {
        let (flow, store) = (&graph.name, &store.name);
        line(&mut text, format_args!("  {flow}-{store}-changelog: the flow's own, compacted"));
    }
    text
}

fn step(graph: &Graph, id: NodeId, text: &mut String) {
    let node = &graph.nodes[id.0 as usize];
    line(text, format_args!("  {}: {}", node.name, node.description));
    for edge in graph.edges.iter().filter(|edge| edge.to == id) {
        line(text, format_args!("      <- {}", sender(graph, edge)));
    }
    for store in &node.stores {
        line(text, format_args!("      store {}, values {}", store.name, store.value_codec));
    }
    if let NodeKind::Source(source) = &node.kind
        && source.timeless
    {
        line(
            text,
            format_args!("      read before all else, outside of time; later changes depend on arrival"),
        );
    }
    if node.depends_on_arrival {
        line(text, format_args!("      depends on arrival"));
    }
}

fn sender(graph: &Graph, edge: &Edge) -> String {
    let name = &graph.nodes[edge.from.0 as usize].name;
    let port = match edge.port {
        0 => String::new(),
        port => format!(" port {port}"),
    };
    let exchange = match edge.exchange {
        Exchange::Forward => "",
        Exchange::Hash => ", by key",
        Exchange::Broadcast => ", to all workers",
    };
    format!("{name}{port}{exchange}")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all that is written to it");
}
