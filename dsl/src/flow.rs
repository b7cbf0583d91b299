//! [`Flow`]: a pipeline while it is being written.

use std::sync::Arc;

use lotic_engine::error::Result;
use lotic_engine::graph::Graph;
use lotic_engine::source::RowSource;
use parking_lot::Mutex;

use crate::codecs::Codec;
use crate::explain::explain;
use crate::lower::lower;
use crate::plan::{Output, Plan, SharedPlan, Step, StepKind, add};
use crate::row::{Data, Key, Value};
use crate::sink::dead_letters;
use crate::stream::Stream;
use crate::table::ReferenceTable;
use crate::topic::{KeyedTopic, TableTopic, Topic};

/// A pipeline: where events come from, what is done with them, and where results go.
///
/// A flow is only a description; a [`Processor`](crate::Processor) runs it, a
/// [`TestDriver`](crate::TestDriver) tests it. Its name is the identity under which it goes on after a
/// restart: the prefix of its internal topics, and its transactional id.
///
/// ```
/// use lotic::prelude::*;
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order {
///     user: String,
///     cents: i64,
///     at: i64,
/// }
///
/// let mut flow = Flow::new("revenue");
/// flow.topic::<Order>("orders")
///     .event_time(|o| o.at, Lateness::bounded(5.secs()))
///     .key_by(|o| o.user.clone())
///     .window(Tumbling::of(1.minute()))
///     .aggregate("revenue", sum(|o: &Order| o.cents))
///     .to("revenue-per-minute");
///
/// let mut driver = TestDriver::new(flow)?;
/// for (user, cents, at) in [("ada", 250, 1_000), ("ada", 50, 59_999), ("bob", 7, 2_000)] {
///     driver.send("orders", &Order { user: user.into(), cents, at })?;
/// }
/// driver.end()?;
/// let mut revenue = driver.rows::<String, i64>("revenue-per-minute")?;
/// revenue.sort();
/// assert_eq!(
///     revenue,
///     [("1970-01-01T00:00:00Z|ada".to_string(), 300), ("1970-01-01T00:00:00Z|bob".to_string(), 7)],
/// );
/// # Ok::<(), lotic::Error>(())
/// ```
#[must_use = "a flow does nothing until a processor runs it"]
pub struct Flow {
    plan: SharedPlan,
}

impl Flow {
    /// An empty flow.
    ///
    /// Two processors with flows of one name on one log are the same one: the newer fences the older off.
    pub fn new(name: impl Into<String>) -> Self {
        let plan = Plan { name: name.into(), steps: Vec::new(), edges: Vec::new() };
        Self { plan: Arc::new(Mutex::new(plan)) }
    }

    /// The flow's name.
    pub fn name(&self) -> String {
        self.plan.lock().name.clone()
    }

    /// The values of a topic, JSON unless [`values`](Topic::values) says otherwise. What their event time
    /// is has to be said next: [`event_time`](Topic::event_time) or [`record_time`](Topic::record_time).
    pub fn topic<V: Data>(&mut self, name: impl Into<String>) -> Topic<V> {
        Topic::new(Arc::clone(&self.plan), name.into())
    }

    /// The keys and values of a topic, as [`Text`](crate::codecs::Text) and JSON unless said otherwise.
    /// Records must be placed by Kafka's default partitioner, as every Lotic and Kafka producer does.
    pub fn keyed_topic<K: Data, V: Data>(&mut self, name: impl Into<String>) -> KeyedTopic<K, V> {
        KeyedTopic::new(Arc::clone(&self.plan), name.into())
    }

    /// A table: for each key of a topic, the newest value, and the ones before it for as long as a join by
    /// event time needs them. A record without a value deletes its key.
    pub fn table<K: Data, V: Data>(&mut self, topic: impl Into<String>) -> TableTopic<K, V> {
        TableTopic::new(Arc::clone(&self.plan), topic.into())
    }

    /// Reference data: a table that holds from the beginning of time, with text keys and JSON values.
    ///
    /// It is read to the end that it has at the flow's first start before any other source is, and takes
    /// no part in the watermark. What is written to the topic later applies from some epoch on, and so
    /// results depend on when it arrives.
    pub fn reference_table<K: Key, V: Value>(&mut self, topic: impl Into<String>) -> ReferenceTable<K, V> {
        self.reference_table_with(topic, crate::codecs::Text, crate::codecs::Json)
    }

    /// [`reference_table`](Self::reference_table) with other codecs.
    pub fn reference_table_with<K: Data, V: Data>(
        &mut self,
        topic: impl Into<String>,
        keys: impl Codec<K>,
        values: impl Codec<V>,
    ) -> ReferenceTable<K, V> {
        crate::topic::reference_table(Arc::clone(&self.plan), topic.into(), keys, values)
    }

    /// What an external system yields, through its connector. `name` is stable across versions of the
    /// program: the source's position is kept under it.
    pub fn source<S: RowSource>(&mut self, name: &str, source: S) -> Stream<S::Row> {
        Stream::new(self.external(name, source))
    }

    /// [`source`](Self::source), with what the connector could not decode written to a dead-letter topic.
    /// It is the connector's own setting that it gives that out, and does not fail or skip it.
    pub fn source_with_dead_letters<S: RowSource>(
        &mut self,
        name: &str,
        source: S,
        topic: impl Into<String>,
    ) -> Stream<S::Row> {
        let output = self.external(name, source);
        dead_letters(&output.port(1), topic.into());
        Stream::new(output)
    }

    fn external<S: RowSource>(&mut self, name: &str, source: S) -> Output {
        let description = source.description();
        let kind = StepKind::Source { factory: Arc::new(source), timeless: false, topic: None };
        add(&self.plan, Step::named(name, description, kind), &[])
    }

    /// The flow in words: each step with what it reads, its stores, where its answer depends on the order
    /// in which records arrive, and the topics read and written.
    ///
    /// # Errors
    ///
    /// As [`graph`](Self::graph).
    pub fn explain(&self) -> Result<String> {
        Ok(explain(&self.graph()?))
    }

    /// The flow as the engine runs it.
    ///
    /// # Errors
    ///
    /// `Invalid` where the program is wrong in a way that its types do not show: two steps of one name, a
    /// name that no topic can have, a topic read twice or written in two formats, a join of keys that are
    /// written differently.
    pub fn graph(&self) -> Result<Graph> {
        lower(&self.plan.lock())
    }
}
