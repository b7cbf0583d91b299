//! A small flow for the engine's tests: numbers, summed by their remainder.
//!
//! ```text
//!   numbers ─▶ watched ─▶ by-remainder ═hash═▶ sums (table) ─▶ to-sums
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use lotic_log::batch::RecordView;

use crate::aggregate::Aggregate;
use crate::codec::{Codec, CodecError, CodecId};
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{TopicHandle, TopicSpec};
use crate::frame::Frame;
use crate::graph::{Edge, Exchange, Graph, Node, NodeId, NodeKind, SourceSpec, StoreSpec};
use crate::memory_log::MemoryLog;
use crate::operator::{Context, Operator, OperatorFactory, operator_factory};
use crate::operators::{TopicSource, join_newest, key_by, table_aggregate, topic_sink};

pub(crate) const NUMBERS: &str = "numbers";
pub(crate) const SUMS: &str = "sums";
const REMAINDERS: i64 = 5;

/// Makes the flow; `watch` is called for each frame with its rows, and may fail.
pub(crate) fn graph(watch: impl Fn(&[i64]) -> Result<()> + Send + Sync + 'static) -> Graph {
    let decode = |record: &RecordView<'_>| I64.decode(record.value.unwrap_or_default());
    let numbers = TopicSource::new(NUMBERS, decode, |_: &i64, time| time);
    let sink = topic_sink(
        SUMS,
        |(key, _): &(i64, Option<i64>), out: &mut Vec<u8>| I64.encode(key, out).map(|()| true),
        |(_, sum), out| I64.encode(&sum.expect("a sum is never removed"), out).map(|()| true),
        |_, _| {},
    );
    let nodes = vec![
        node(NUMBERS, NodeKind::Source(SourceSpec { factory: Arc::new(numbers), timeless: false })),
        node("watched", NodeKind::Operator(watched(watch))),
        node("by-remainder", NodeKind::Operator(key_by(|number: &i64| number % REMAINDERS, Arc::new(I64)))),
        Node {
            stores: vec![StoreSpec { name: "sums".to_owned(), value_codec: I64.id() }],
            ..node(
                "sums",
                NodeKind::Operator(table_aggregate::<i64, i64, _>("sums", Arc::new(Sum), Arc::new(I64))),
            )
        },
        node("to-sums", NodeKind::Operator(sink)),
    ];
    let edge =
        |from, exchange| Edge { from: NodeId(from), port: 0, to: NodeId(from + 1), input: 0, exchange };
    let edges = vec![
        edge(0, Exchange::Forward),
        edge(1, Exchange::Forward),
        edge(2, Exchange::Hash),
        edge(3, Exchange::Forward),
    ];
    let topics = vec![topic(NUMBERS, 3, false), topic(SUMS, 2, true)];
    Graph { name: "flow".to_owned(), nodes, edges, topics }
}

fn topic(name: &str, partitions: i32, create: bool) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions: Some(partitions),
        compacted: false,
        create,
        key_format: None,
        owner: None,
    }
}

fn node(name: &str, kind: NodeKind) -> Node {
    Node {
        name: name.to_owned(),
        description: name.to_owned(),
        kind,
        stores: Vec::new(),
        depends_on_arrival: false,
    }
}

pub(crate) const NAMES: &str = "names";

/// A flow that gives each number the name of its remainder, from a table without time.
///
/// ```text
///   numbers ─▶ by-remainder ═hash═▶ named (newest) ─▶ to-sums
///   names (timeless)        ═hash═▶
/// ```
pub(crate) fn graph_with_names() -> Graph {
    let mut graph = graph(|_| Ok(()));
    let decode = |record: &RecordView<'_>| {
        let key = I64.decode(record.key.unwrap_or_default())?;
        Ok((key, record.value.map(|value| I64.decode(value)).transpose()?))
    };
    let names = TopicSource::new(NAMES, decode, |_: &(i64, Option<i64>), time| time).keyed();
    let join = |_: &i64, _: i64, name: Option<&i64>| Some(Some(*name.unwrap_or(&-1)));
    graph.nodes[3] = Node {
        stores: vec![StoreSpec { name: "sums".to_owned(), value_codec: I64.id() }],
        ..node("sums", NodeKind::Operator(join_newest::<i64, i64, i64, _>("sums", Arc::new(I64), join)))
    };
    let factory = Arc::new(names);
    graph.nodes.push(node(NAMES, NodeKind::Source(SourceSpec { factory, timeless: true })));
    let (from, to) = (NodeId(5), NodeId(3));
    graph.edges.push(Edge { from, port: 0, to, input: 1, exchange: Exchange::Hash });
    graph.topics.push(topic(NAMES, 2, false));
    graph
}

/// A log that holds the numbers 0 to `count`, and the topic's handle.
pub(crate) fn log_with(count: i64) -> (Arc<MemoryLog>, TopicHandle) {
    let log = MemoryLog::new();
    let numbers = log.topic(NUMBERS, 3);
    produce(&log, &numbers, 0..count);
    (log, numbers)
}

pub(crate) fn produce(log: &MemoryLog, numbers: &TopicHandle, range: std::ops::Range<i64>) {
    for number in range {
        log.produce(numbers, (number % 3) as i32, &[(number, b"", number.to_string().as_bytes())]);
    }
}

/// What must have been written once the numbers 0 to `count` are summed: by remainder, how many records
/// and the last sum.
pub(crate) fn expected(count: i64) -> BTreeMap<i64, (usize, i64)> {
    let mut expected = BTreeMap::new();
    for number in 0..count {
        let (records, sum) = expected.entry(number % REMAINDERS).or_default();
        *records += 1;
        *sum += number;
    }
    expected
}

/// What is in the result topic, in the same form.
pub(crate) fn found(log: &MemoryLog) -> BTreeMap<i64, (usize, i64)> {
    let mut found = BTreeMap::new();
    let Some(sums) = crate::event_log::EventLog::find(log, SUMS).unwrap() else { return found };
    for row in log.rows(&sums) {
        let key = I64.decode(&row.key.unwrap()).unwrap();
        let (records, sum): &mut (usize, i64) = found.entry(key).or_default();
        *records += 1;
        *sum = I64.decode(&row.value.unwrap()).unwrap();
    }
    found
}

/// Fails once, with `kind`, when the rows from `number` on come by.
pub(crate) fn failing_once_at(number: i64, kind: ErrorKind) -> impl Fn(&[i64]) -> Result<()> + Send + Sync {
    let fails_at = AtomicI64::new(number);
    move |rows| {
        let at = fails_at.load(Ordering::SeqCst);
        if rows.iter().any(|row| *row >= at) {
            fails_at.store(i64::MAX, Ordering::SeqCst);
            return Err(Error::new(kind, "the operator fails, as it was told"));
        }
        Ok(())
    }
}

fn watched(watch: impl Fn(&[i64]) -> Result<()> + Send + Sync + 'static) -> Arc<dyn OperatorFactory> {
    struct Watched<F>(Arc<F>);
    impl<F: Fn(&[i64]) -> Result<()> + Send + Sync> Operator for Watched<F> {
        fn process(&mut self, _: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
            let batch = frame.into_batch::<i64>();
            (self.0)(&batch.rows)?;
            context.emit(0, batch.into());
            Ok(())
        }
    }
    let watch = Arc::new(watch);
    operator_factory(move |_| Ok(Watched(Arc::clone(&watch))))
}

struct Sum;

impl Aggregate<i64> for Sum {
    type State = i64;
    type Output = i64;

    fn init(&self) -> i64 {
        0
    }

    fn add(&self, state: &mut i64, value: &i64) {
        *state += value;
    }

    fn result(&self, state: &i64) -> i64 {
        *state
    }
}

/// Decimal numbers.
pub(crate) struct I64;

impl Codec<i64> for I64 {
    fn id(&self) -> CodecId {
        CodecId { name: "decimal", version: 1 }
    }

    fn encode(&self, value: &i64, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value.to_string().as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<i64, CodecError> {
        let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| CodecError::new("not a number"))
    }
}
