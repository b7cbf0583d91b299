//! The fingerprint of a flow's topology: what state depends on, step by step.
//!
//! It is text, one line a stateful step, so that a refusal can say what has changed:
//!
//! ```text
//! delays-by-airline: window tumbling 1h, grace 0ms: (count, mean<i64>); stores delays-by-airline postcard/1
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;

/// What the state of `graph` depends on. Steps without state are left out: they may change freely.
pub(crate) fn fingerprint(graph: &Graph) -> String {
    let mut lines: Vec<String> = Vec::new();
    for node in graph.nodes.iter().filter(|node| !node.stores.is_empty()) {
        let mut line = format!("{}: {}; stores", node.name, node.description);
        for store in &node.stores {
            write!(line, " {} {}", store.name, store.value_codec)
                .expect("a string takes all that is written");
        }
        lines.push(line);
    }
    lines.sort();
    lines.join("\n")
}

/// Refuses a topology other than the recorded one, naming the steps that differ.
pub(crate) fn check(flow: &str, recorded: &str, present: &str) -> Result<()> {
    if recorded == present {
        return Ok(());
    }
    let (before, now) = (by_step(recorded), by_step(present));
    let mut differences = Vec::new();
    for (step, was) in &before {
        match now.get(step) {
            None => differences.push(format!("step {step} is gone (it was {was})")),
            Some(is) if is != was => differences.push(format!("step {step} was {was}, and is {is}")),
            Some(_) => {}
        }
    }
    let added = now.iter().filter(|(step, _)| !before.contains_key(*step));
    differences.extend(added.map(|(step, is)| format!("step {step} is new ({is})")));
    let differences = differences.join("; ");
    let context = format!("flow {flow} is not the one whose state is kept: {differences}");
    Err(Error::new(ErrorKind::Incompatible, context))
}

fn by_step(fingerprint: &str) -> BTreeMap<&str, &str> {
    fingerprint.lines().filter_map(|line| line.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_every_step_that_differs() {
        let recorded = "a: count; stores a json/1\nb: window 1h; stores b json/1\nc: sum; stores c json/1";
        check("flow", recorded, recorded).unwrap();
        let present = "b: window 2h; stores b json/1\nc: sum; stores c json/1\nd: max; stores d json/1";
        let error = check("flow", recorded, present).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let expected = "flow flow is not the one whose state is kept: step a is gone (it was count; stores a \
                        json/1); step b was window 1h; stores b json/1, and is window 2h; stores b json/1; \
                        step d is new (max; stores d json/1)";
        assert_eq!(error.to_string(), expected);
    }
}
