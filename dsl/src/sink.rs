//! [`TopicSink`]: where rows leave a flow as records.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use lotic_engine::event_log::TopicSpec;
use lotic_engine::operator::OperatorFactory;
use lotic_engine::operators::topic_sink;
use lotic_log::{Header, Record};
use parking_lot::Mutex;

use crate::codecs::{Codec, Json};
use crate::plan::{Output, Step, StepKind, StepName, TopicSinkPlan};
use crate::row::{Data, Value};

/// A topic that a flow writes, to be told more about it: what is said here holds for the whole sink.
///
/// The records of an epoch become visible to `read_committed` readers together, when it commits. A record
/// with a key goes to the partition that Kafka's default partitioner chooses.
///
/// ```
/// # use lotic::prelude::*;
/// # let mut flow = Flow::new("example");
/// # let delays = flow.topic::<(String, i64)>("delays").record_time(Lateness::none());
/// delays
///     .key_by(|(airport, _)| airport.clone())
///     .to("delays-by-airport")
///     .partitions(6)
///     .values(Postcard)
///     .header("unit", |_, _| "minutes");
/// ```
pub struct TopicSink<K, V> {
    settings: Arc<Mutex<Settings<K, V>>>,
}

/// What a sink was told.
struct Settings<K, V> {
    topic: String,
    partitions: Option<i32>,
    compacted: bool,
    keys: Option<Arc<dyn Codec<K>>>,
    values: Arc<dyn Codec<V>>,
    headers: Vec<(String, HeaderValue<K, V>)>,
}

type HeaderValue<K, V> = Arc<dyn Fn(Option<&K>, Option<&V>) -> Bytes + Send + Sync>;

impl<K: Data, V: Data> TopicSink<K, V> {
    /// Adds a sink behind `output`, whose rows have the key and value that `parts` finds in them.
    pub(crate) fn add<R, P>(output: &Output, topic: String, keys: Option<Arc<dyn Codec<K>>>, parts: P) -> Self
    where
        R: Data,
        V: Value,
        P: for<'a> Fn(&'a R) -> (Option<&'a K>, Option<&'a V>) + Copy + Send + Sync + 'static,
    {
        let values: Arc<dyn Codec<V>> = Arc::new(Json);
        let settings =
            Settings { topic, partitions: None, compacted: false, keys, values, headers: Vec::new() };
        let settings = Arc::new(Mutex::new(settings));
        let plan = SinkPlan { settings: Arc::clone(&settings), parts, row: PhantomData };
        output.then(Step::new(StepName::Kind("to"), String::new(), StepKind::Sink(Arc::new(plan))));
        Self { settings }
    }

    /// How many partitions the topic has: it is made with so many, and refused if it exists with others.
    pub fn partitions(self, count: i32) -> Self {
        self.settings.lock().partitions = Some(count);
        self
    }

    /// Where the topic is made: log compaction keeps the last record of each key.
    pub fn compacted(self) -> Self {
        self.settings.lock().compacted = true;
        self
    }

    /// Another codec for the values.
    pub fn values(self, codec: impl Codec<V>) -> Self {
        self.settings.lock().values = Arc::new(codec);
        self
    }

    /// Another codec for the keys of the records; state and joins keep the stream's own.
    pub fn keys(self, codec: impl Codec<K>) -> Self {
        self.settings.lock().keys = Some(Arc::new(codec));
        self
    }

    /// A header on each record, with the value that `value` makes of its key and value.
    pub fn header<H: Into<Bytes>>(
        self,
        name: impl Into<String>,
        value: impl Fn(Option<&K>, Option<&V>) -> H + Send + Sync + 'static,
    ) -> Self {
        let make: HeaderValue<K, V> = Arc::new(move |key, row| value(key, row).into());
        self.settings.lock().headers.push((name.into(), make));
        self
    }
}

/// The parts of a row without a key.
pub(crate) fn unkeyed_parts<T>(row: &T) -> (Option<&()>, Option<&T>) {
    (None, Some(row))
}

/// The parts of a keyed row.
pub(crate) fn keyed_parts<K, V>(row: &(K, V)) -> (Option<&K>, Option<&V>) {
    (Some(&row.0), Some(&row.1))
}

/// The parts of a table's row; no value is a tombstone.
pub(crate) fn table_parts<K, V>(row: &(K, Option<V>)) -> (Option<&K>, Option<&V>) {
    (Some(&row.0), row.1.as_ref())
}

/// A sink as it is lowered: its settings at that time.
struct SinkPlan<K, V, R, P> {
    settings: Arc<Mutex<Settings<K, V>>>,
    parts: P,
    row: PhantomData<fn(R)>,
}

impl<K, V, R, P> TopicSinkPlan for SinkPlan<K, V, R, P>
where
    K: Data,
    V: Data,
    R: Data,
    P: for<'a> Fn(&'a R) -> (Option<&'a K>, Option<&'a V>) + Copy + Send + Sync + 'static,
{
    fn topic(&self) -> TopicSpec {
        let settings = self.settings.lock();
        TopicSpec {
            name: settings.topic.clone(),
            partitions: settings.partitions,
            compacted: settings.compacted,
            create: true,
            key_format: settings.keys.as_ref().map(|codec| codec.id().to_string()),
            owner: None,
        }
    }

    fn description(&self) -> String {
        let settings = self.settings.lock();
        let keys = settings.keys.as_ref().map_or("none".to_owned(), |codec| codec.id().to_string());
        format!("to topic {}, keys {keys}, values {}", settings.topic, settings.values.id())
    }

    fn operator(&self) -> Arc<dyn OperatorFactory> {
        let settings = self.settings.lock();
        let (keys, values, parts) = (settings.keys.clone(), Arc::clone(&settings.values), self.parts);
        let key = move |row: &R, out: &mut Vec<u8>| match (&keys, parts(row).0) {
            (Some(codec), Some(key)) => codec.encode(key, out).map(|()| true),
            _ => Ok(false),
        };
        let value = move |row: &R, out: &mut Vec<u8>| match parts(row).1 {
            Some(value) => values.encode(value, out).map(|()| true),
            None => Ok(false),
        };
        let headers = settings.headers.clone();
        let headers = move |row: &R, out: &mut Vec<Header>| {
            let (key, value) = parts(row);
            out.extend(
                headers
                    .iter()
                    .map(|(name, make)| Header { key: name.clone(), value: Some(make(key, value)) }),
            );
        };
        topic_sink(settings.topic.clone(), key, value, headers)
    }
}

/// Writes the bad records of a topic, which a source emits as records, to a dead-letter topic as they are.
pub(crate) fn dead_letters(output: &Output, topic: String) {
    let plan = DeadLetters { topic };
    output.then(Step::new(StepName::Kind("to"), String::new(), StepKind::Sink(Arc::new(plan))));
}

struct DeadLetters {
    topic: String,
}

impl TopicSinkPlan for DeadLetters {
    fn topic(&self) -> TopicSpec {
        let name = self.topic.clone();
        TopicSpec { name, partitions: None, compacted: false, create: true, key_format: None, owner: None }
    }

    fn description(&self) -> String {
        format!("to dead-letter topic {}, as read", self.topic)
    }

    fn operator(&self) -> Arc<dyn OperatorFactory> {
        let bytes = |bytes: &Option<Bytes>, out: &mut Vec<u8>| {
            out.extend_from_slice(bytes.as_deref().unwrap_or_default());
            Ok(bytes.is_some())
        };
        topic_sink(
            self.topic.clone(),
            move |record: &Record, out: &mut Vec<u8>| bytes(&record.key, out),
            move |record: &Record, out: &mut Vec<u8>| bytes(&record.value, out),
            |record: &Record, out: &mut Vec<Header>| out.extend_from_slice(&record.headers),
        )
    }
}
