//! The fingerprint of a flow's topology: what state depends on, step by step.
//!
//! It is text, one line a stateful step, so that a refusal can say what has changed:
//!
//! ```text
//! delays-by-airline: window tumbling 1h, grace 0ms: (count, mean<i64>); stores delays-by-airline postcard/1
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::epoch_record::EpochRecord;
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

/// Refuses a flow with state whose sources would go on with another disorder than they were read with.
pub(crate) fn check_disorder(graph: &Graph, last: &EpochRecord) -> Result<()> {
    if graph.nodes.iter().all(|node| node.stores.is_empty()) {
        return Ok(());
    }
    for (source, now) in graph.disorders() {
        let Some(&before) = last.disorder_ms.get(&source) else { continue };
        let is_read = last.splits_of(&source).values().any(|split| split.event_time_max.is_some());
        if is_read && now != before {
            let consequence = if now > before {
                "its watermark would go back, and windows that are final would begin anew"
            } else {
                "its watermark would leap, and windows would end before what they still wait for"
            };
            let context = format!(
                "flow {}: source {source} was read with event times out of order by at most {before} ms, and is now \
                 declared with {now} ms: {consequence}. It goes on with {before} ms; with {now} ms a flow has to \
                 begin anew, under another name or in another directory",
                graph.name,
            );
            return Err(Error::new(ErrorKind::Incompatible, context));
        }
    }
    Ok(())
}

fn by_step(fingerprint: &str) -> BTreeMap<&str, &str> {
    fingerprint.lines().filter_map(|line| line.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lotic_log::batch::RecordView;
    use lotic_log::{Offset, PartitionId, TopicId};
    use uuid::Uuid;

    use super::*;
    use crate::epoch::Epoch;
    use crate::epoch_record::VERSION;
    use crate::graph::{NodeKind, SourceSpec};
    use crate::operators::TopicSource;
    use crate::source::{Position, Rejected, SourceSplit, SplitState};
    use crate::test_flow::{NUMBERS, graph};

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

    /// A flow that keeps `stores`, with a source of this disorder, after a record that says `before`.
    fn check_with(
        disorder_ms: i64,
        before: Option<i64>,
        event_time_max: Option<i64>,
        stores: bool,
    ) -> Result<()> {
        let mut graph = graph(|_| Ok(()));
        let decode = |_: &RecordView<'_>| Ok(0_i64);
        let source = TopicSource::new(NUMBERS, decode, |_: &i64, time| time).disorder_ms(disorder_ms);
        graph.nodes[0].kind = NodeKind::Source(SourceSpec { factory: Arc::new(source), timeless: false });
        if !stores {
            graph.nodes.iter_mut().for_each(|node| node.stores.clear());
        }
        let position = Position::topic(NUMBERS, TopicId(Uuid::nil()), PartitionId(0), Offset(3));
        let (split, rejected) = ("numbers-0".to_owned(), Rejected::default());
        let state = SplitState { split, position, event_time_max, timeless_end: None, rejected };
        let last = EpochRecord {
            version: VERSION,
            epoch: Epoch(1),
            fingerprint: String::new(),
            splits: vec![SourceSplit { source: NUMBERS.to_owned(), state }],
            ends: Vec::new(),
            topics: Vec::new(),
            disorder_ms: before.map(|before| (NUMBERS.to_owned(), before)).into_iter().collect(),
        };
        check_disorder(&graph, &last)
    }

    #[test]
    fn state_is_bound_to_the_disorder_of_what_was_read() {
        for (now, consequence) in [(9, "would go back"), (4, "would leap")] {
            let error = check_with(now, Some(5), Some(100), true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            let expected = format!(
                "flow flow: source numbers was read with event times out of order by at most 5 ms, and is now \
                 declared with {now} ms: its watermark {consequence}"
            );
            assert!(error.to_string().starts_with(&expected), "{error}");
            check_with(now, Some(5), None, true).expect("nothing was read");
            check_with(now, Some(5), Some(100), false).expect("there is no state");
            check_with(now, None, Some(100), true).expect("an older program noted none");
        }
        check_with(5, Some(5), Some(100), true).unwrap();
    }
}
