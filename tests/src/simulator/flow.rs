//! The flow that the simulator runs: entries of two topics, summed by account and window, a reminder for
//! each, and two copies of each, which wait for the account's own entries.
//!
//! ```text
//!   orders  ─┐                      ┌═hash═▶ sums (window) ─┬▶ totals
//!            ├▶ all ─▶ by-account ──┤                       ├▶ shown (external)
//!   returns ─┘                      │                       └▶ late-entries
//!                                   ├═hash═▶ reminders (timer) ─▶ reminders
//!                                   ├▶ twice ═hash═▶ copies (as of) ─▶ copies
//!                                   └▶ ids ═══hash═▶
//! ```

use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use lotic_engine::aggregate::Aggregate;
use lotic_engine::codec::{Codec, CodecError, CodecId};
use lotic_engine::error::Result;
use lotic_engine::event_log::TopicSpec;
use lotic_engine::frame::{Batch, Frame};
use lotic_engine::graph::{Edge, Exchange, Graph, Node, NodeId, NodeKind, SourceSpec, StoreSpec};
use lotic_engine::operator::{Context, OperatorFactory};
use lotic_engine::operators::{
    AsOfStores, TopicSource, flat_map, join_as_of, key_by, map, topic_sink, union, window_aggregate,
};
use lotic_engine::sink::external_sink;
use lotic_engine::timed_operator::{DueTimers, TimedOperator, timed_operator_factory};
use lotic_engine::timers::{Timer, Timers};
use lotic_engine::window::{WindowSpec, Windowed};
use lotic_log::Timestamp;
use lotic_log::batch::RecordView;

use super::shown::{Shown, Total};

/// The flow's name.
pub const FLOW: &str = "accounts";
/// Acknowledged once it is synced.
pub const ORDERS: &str = "orders";
/// Acknowledged at once, and lost in a power cut unless something synced it.
pub const RETURNS: &str = "returns";
/// One record for each account and window.
pub const TOTALS: &str = "totals";
/// One record for each entry that is late for its window.
pub const LATE: &str = "late-entries";
/// One record for each entry.
pub const REMINDERS: &str = "reminders";
/// Two records for each entry.
pub const COPIES: &str = "copies";

/// The flow's stores.
pub const STORES: [&str; 4] = ["sums", "due", "versions", "waiting"];

/// How many milliseconds of disorder the sources allow.
pub const DISORDER_MS: i64 = 20;
/// The window.
pub const WINDOW: WindowSpec = WindowSpec { size_ms: 50, grace_ms: 10 };
/// How long after its time an entry is copied: none is too late for it.
const COPY_GRACE_MS: i64 = 1 << 40;
/// How long after an entry its reminder is due.
pub const REMIND_AFTER_MS: i64 = 70;

/// An entry of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique.
    pub id: u64,
    /// Whose it is.
    pub account: u32,
    /// Event time.
    pub time: i64,
    /// What is summed.
    pub amount: i64,
}

impl Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{},{},{}", self.id, self.account, self.time, self.amount)
    }
}

impl Entry {
    /// Reads what [`Display`] wrote.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(bytes).ok()?.split(',').map(str::parse::<i64>);
        let mut next = || numbers.next()?.ok();
        let (id, account) = (u64::try_from(next()?).ok()?, u32::try_from(next()?).ok()?);
        Some(Self { id, account, time: next()?, amount: next()? })
    }
}

/// The topics that the flow reads, with their partitions. The test makes them.
pub const INPUTS: [(&str, i32); 2] = [(ORDERS, 2), (RETURNS, 2)];
/// The topics that the flow writes.
pub const OUTPUTS: [(&str, i32); 4] = [(TOTALS, 2), (LATE, 1), (REMINDERS, 3), (COPIES, 2)];

/// The flow as a graph; totals are shown in `shown` too.
pub fn graph(shown: &Shown) -> Graph {
    let stateless = |name: &str, kind| node(name, kind, Vec::new());
    let store = |name: &str| StoreSpec { name: name.to_owned(), value_codec: TEXT };
    let totals = topic_sink(
        TOTALS,
        |(window, _): &(Windowed<u32>, i64), out: &mut Vec<u8>| {
            text(out, &format!("{}|{}", window.start, window.key))
        },
        |(_, sum), out| text(out, sum),
        |_, _| {},
    );
    let late =
        topic_sink(LATE, |_: &(u32, Entry), _| Ok(false), |(_, entry), out| text(out, entry), |_, _| {});
    let remind = topic_sink(REMINDERS, |_: &u64, _| Ok(false), |id, out| text(out, id), |_, _| {});
    let copy =
        topic_sink(COPIES, |_: &(u32, String), _| Ok(false), |(_, copy), out| text(out, copy), |_, _| {});
    let sums = window_aggregate::<u32, Entry, _>("sums", WINDOW, Arc::new(Sum), text_codec(), text_codec());
    let nodes = vec![
        stateless(ORDERS, source(ORDERS)),
        stateless(RETURNS, source(RETURNS)),
        stateless("all", NodeKind::Operator(union())),
        stateless(
            "by-account",
            NodeKind::Operator(key_by(|entry: &Entry| entry.account, text_codec::<u32>())),
        ),
        node("sums", NodeKind::Operator(sums), vec![store("sums")]),
        stateless("to-totals", NodeKind::Operator(totals)),
        stateless("to-late-entries", NodeKind::Operator(late)),
        node("reminders", NodeKind::Operator(reminders()), vec![Timers::store("due")]),
        stateless("to-reminders", NodeKind::Operator(remind)),
        stateless("to-shown", NodeKind::Operator(external_sink::<Total>(shown.clone()))),
        stateless("twice", NodeKind::Operator(twice())),
        stateless("ids", NodeKind::Operator(map(|(account, entry): (u32, Entry)| (account, Some(entry.id))))),
        node("copies", NodeKind::Operator(copies()), vec![store("versions"), store("waiting")]),
        stateless("to-copies", NodeKind::Operator(copy)),
    ];
    let edges = vec![
        edge(0, 0, 2, Exchange::Forward),
        edge(1, 0, 2, Exchange::Forward),
        edge(2, 0, 3, Exchange::Forward),
        edge(3, 0, 4, Exchange::Hash),
        edge(4, 0, 5, Exchange::Forward),
        edge(4, 1, 6, Exchange::Forward),
        edge(3, 0, 7, Exchange::Hash),
        edge(7, 0, 8, Exchange::Forward),
        edge(4, 0, 9, Exchange::Forward),
        edge(3, 0, 10, Exchange::Forward),
        edge(3, 0, 11, Exchange::Forward),
        edge(10, 0, 12, Exchange::Hash),
        Edge { input: 1, ..edge(11, 0, 12, Exchange::Hash) },
        edge(12, 0, 13, Exchange::Forward),
    ];
    let inputs = INPUTS.map(|topic| topic_spec(topic, false));
    let outputs = OUTPUTS.map(|topic| topic_spec(topic, true));
    let topics = inputs.into_iter().chain(outputs).collect();
    Graph { name: FLOW.to_owned(), nodes, edges, topics }
}

fn topic_spec((name, partitions): (&str, i32), create: bool) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions: Some(partitions),
        compacted: false,
        create,
        key_format: None,
        owner: None,
    }
}

fn node(name: &str, kind: NodeKind, stores: Vec<StoreSpec>) -> Node {
    Node { name: name.to_owned(), description: name.to_owned(), kind, stores, depends_on_arrival: false }
}

fn edge(from: u32, port: usize, to: u32, exchange: Exchange) -> Edge {
    Edge { from: NodeId(from), port, to: NodeId(to), input: 0, exchange }
}

fn source(topic: &str) -> NodeKind {
    let decode = |record: &RecordView<'_>| {
        let entry = record.value.and_then(Entry::parse);
        entry.ok_or_else(|| CodecError::new("not an entry"))
    };
    let time = |entry: &Entry, _| Timestamp(entry.time);
    let source = TopicSource::new(topic, decode, time);
    NodeKind::Source(SourceSpec { factory: Arc::new(source.disorder_ms(DISORDER_MS)), timeless: false })
}

/// Two rows for each entry, with its origin.
fn twice() -> Arc<dyn OperatorFactory> {
    flat_map(|(account, entry): (u32, Entry)| [1, 2].map(|copy| (account, format!("{}/{copy}", entry.id))))
}

/// Passes each copy on once the account's entries are known up to its time.
fn copies() -> Arc<dyn OperatorFactory> {
    let stores = AsOfStores {
        versions: "versions".to_owned(),
        waiting: "waiting".to_owned(),
        grace_ms: COPY_GRACE_MS,
        table_topic: None,
        stream_codec: text_codec::<String>(),
        table_codec: text_codec::<u64>(),
    };
    join_as_of::<u32, String, u64, String>(stores, text_codec(), |_, copy, _| Some(copy))
}

/// Sums amounts.
struct Sum;

impl Aggregate<Entry> for Sum {
    type State = i64;
    type Output = i64;

    fn init(&self) -> i64 {
        0
    }

    fn add(&self, sum: &mut i64, entry: &Entry) {
        *sum += entry.amount;
    }

    fn result(&self, sum: &i64) -> i64 {
        *sum
    }
}

/// Emits each entry's id once its reminder is due: when the watermark has passed it, or at the end.
///
/// It takes three timers for that, each set twice. The first, which is due half-way, deletes the third, which would
/// remind once more, and sets the second, which reminds.
fn reminders() -> Arc<dyn OperatorFactory> {
    timed_operator_factory("due", |_| Ok(Reminders))
}

struct Reminders;

/// What the namespace of a timer ends with, behind the entry's id.
#[derive(Clone, Copy)]
enum Reminder {
    HalfWay,
    Due,
    Again,
}

impl Reminder {
    /// A millisecond apart from the others of its entry, at least.
    fn time(self, entry: Timestamp) -> Timestamp {
        Timestamp(match self {
            Self::HalfWay => entry.0 + REMIND_AFTER_MS / 2,
            Self::Due => entry.0 + REMIND_AFTER_MS,
            Self::Again => entry.0 + REMIND_AFTER_MS + 1,
        })
    }

    fn namespace(self, id: u64) -> [u8; 9] {
        let mut namespace = [self as u8; 9];
        namespace[..8].copy_from_slice(&id.to_be_bytes());
        namespace
    }
}

impl Reminders {
    /// Emits what is due.
    fn emit(due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()> {
        let mut batch = Batch::default();
        while let Some(fired) = due.take()? {
            let Timer { time, group, key, namespace } = fired.timer();
            let id = u64::from_be_bytes(*namespace.first_chunk().expect("a namespace begins with the id"));
            if namespace[8] == Reminder::HalfWay as u8 {
                let entry = Timestamp(time.0 - REMIND_AFTER_MS / 2);
                let timer = |reminder: Reminder| (reminder.time(entry), reminder.namespace(id));
                let (time, namespace) = timer(Reminder::Again);
                due.timers.delete(Timer { time, group, key, namespace: &namespace })?;
                let (time, namespace) = timer(Reminder::Due);
                for _ in 0..2 {
                    due.timers.set(Timer { time, group, key, namespace: &namespace })?;
                }
            } else {
                batch.rows.push(id);
                batch.columns.times.push(time);
                batch.columns.watermarks.push(Timestamp(time.0 - 1));
            }
        }
        context.emit(0, batch.into());
        Ok(())
    }
}

impl TimedOperator for Reminders {
    fn process(&mut self, frame: Frame, timers: &mut Timers, _: &mut Context<'_>) -> Result<()> {
        let Batch { rows, columns } = frame.into_batch::<(u32, Entry)>();
        for (index, (_, entry)) in rows.iter().enumerate() {
            let (group, key) = (columns.keys.group(index), columns.keys.key(index));
            for reminder in [Reminder::Again, Reminder::HalfWay, Reminder::Again, Reminder::HalfWay] {
                let (time, namespace) = (reminder.time(Timestamp(entry.time)), reminder.namespace(entry.id));
                timers.set(Timer { time, group, key, namespace: &namespace })?;
            }
        }
        Ok(())
    }

    fn fire(&mut self, due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()> {
        Self::emit(due, context)
    }

    fn end(&mut self, due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()> {
        Self::emit(due, context)
    }
}

const TEXT: CodecId = CodecId { name: "text", version: 1 };

fn text(out: &mut Vec<u8>, value: &(impl Display + ?Sized)) -> Result<bool, CodecError> {
    out.extend_from_slice(value.to_string().as_bytes());
    Ok(true)
}

/// Values as the text they show.
struct Text<T>(PhantomData<fn() -> T>);

fn text_codec<T: Display + FromStr + 'static>() -> Arc<dyn Codec<T>> {
    Arc::new(Text(PhantomData))
}

impl<T: Display + FromStr + 'static> Codec<T> for Text<T> {
    fn id(&self) -> CodecId {
        TEXT
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        text(out, value).map(|_| ())
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| CodecError::new("not a number"))
    }
}
