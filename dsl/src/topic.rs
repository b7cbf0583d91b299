//! Sources: topics as streams, keyed streams, tables and reference tables.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use lotic_engine::codec::CodecError;
use lotic_engine::event_log::TopicSpec;
use lotic_engine::operators::{BadRecord, TopicSource};
use lotic_engine::source::SourceFactory;
use lotic_log::Timestamp;
use lotic_log::batch::RecordView;

use crate::codecs::{Codec, Json, Text};
use crate::keyed::KeyedStream;
use crate::plan::{Output, SharedPlan, Step, StepKind, StepName, add};
use crate::row::Data;
use crate::sink::dead_letters;
use crate::stream::Stream;
use crate::table::{ReferenceTable, Table};
use crate::time::{EventTime, Lateness, in_words};

/// What happens to a record that cannot be decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BadRecords {
    /// The flow stops with an error that names topic, partition and offset.
    #[default]
    Fail,
    /// It is left out and counted.
    Skip,
    /// It is counted and goes to this topic as it is, with headers that say where it came from and what
    /// is wrong with it.
    DeadLetter(String),
}

impl BadRecords {
    /// To a dead-letter topic.
    pub fn dead_letter(topic: impl Into<String>) -> Self {
        Self::DeadLetter(topic.into())
    }
}

/// What is common to all ways to read a topic.
struct Reading {
    plan: SharedPlan,
    topic: String,
    partitions: Option<i32>,
    bad_records: BadRecords,
    idle_after: Option<Duration>,
}

impl Reading {
    fn new(plan: SharedPlan, topic: String) -> Self {
        Self { plan, topic, partitions: None, bad_records: BadRecords::Fail, idle_after: None }
    }

    fn spec(&self, key_format: Option<String>) -> TopicSpec {
        TopicSpec {
            name: self.topic.clone(),
            partitions: self.partitions,
            compacted: false,
            create: false,
            key_format,
            owner: None,
        }
    }

    fn bad_record(&self) -> BadRecord {
        match self.bad_records {
            BadRecords::Fail => BadRecord::Fail,
            BadRecords::Skip => BadRecord::Skip,
            BadRecords::DeadLetter(_) => BadRecord::DeadLetter,
        }
    }

    /// The source with what is said of idle partitions.
    fn idle<D, F>(&self, source: TopicSource<D, F>) -> TopicSource<D, F> {
        match self.idle_after {
            Some(timeout) => source.idle_ms(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)),
            None => source,
        }
    }

    /// Adds the source to the plan, and the dead-letter topic behind it.
    fn add(self, what: &str, spec: TopicSpec, timeless: bool, factory: Arc<dyn SourceFactory>) -> Output {
        let kind = StepKind::Source { factory, timeless, topic: Some(spec) };
        let name = StepName::Topic(self.topic.clone());
        let mut step = Step::new(name, format!("{what} {}", self.topic), kind);
        step.depends_on_arrival = self.idle_after.is_some();
        let output = add(&self.plan, step, &[]);
        if let BadRecords::DeadLetter(topic) = self.bad_records {
            dead_letters(&output.port(1), topic);
        }
        output
    }
}

macro_rules! reading_options {
    () => {
        /// How many partitions the topic must have. A flow refuses to run on a topic with another number.
        pub fn partitions(mut self, count: i32) -> Self {
            self.reading.partitions = Some(count);
            self
        }

        /// What happens to a record that cannot be decoded: by default the flow stops.
        pub fn bad_records(mut self, policy: BadRecords) -> Self {
            self.reading.bad_records = policy;
            self
        }

        /// A partition that has given nothing for so long, by the clock on the wall, no longer holds the
        /// watermark back. Records that it gives later are late where the others have gone on without them,
        /// and counted as [`late_idle`](lotic_engine::metrics::StepMetrics::late_idle). So the answer depends
        /// on when records arrive: by default nothing is ever idle, and nothing is in a run that ends with
        /// its input.
        pub fn idle_after(mut self, timeout: Duration) -> Self {
            self.reading.idle_after = Some(timeout);
            self
        }
    };
}

/// A topic whose values will be a stream, once it is said what their event time is.
#[must_use = "say what the event time is to get a stream"]
pub struct Topic<V, C = Json> {
    reading: Reading,
    values: C,
    row: PhantomData<fn() -> V>,
}

impl<V: Data> Topic<V> {
    pub(crate) fn new(plan: SharedPlan, topic: String) -> Self {
        Self { reading: Reading::new(plan, topic), values: Json, row: PhantomData }
    }
}

impl<V: Data, C: Codec<V>> Topic<V, C> {
    reading_options!();

    /// Another codec for the values.
    pub fn values<D: Codec<V>>(self, codec: D) -> Topic<V, D> {
        Topic { reading: self.reading, values: codec, row: PhantomData }
    }

    /// The stream of the values, with the event time that `time` takes from each.
    pub fn event_time<E: EventTime>(
        self,
        time: impl Fn(&V) -> E + Send + Sync + 'static,
        lateness: Lateness,
    ) -> Stream<V> {
        self.read(move |value, _| time(value).timestamp(), lateness)
    }

    /// The stream of the values, with the records' own timestamps as event time.
    pub fn record_time(self, lateness: Lateness) -> Stream<V> {
        self.read(|_, timestamp| timestamp, lateness)
    }

    fn read(
        self,
        time: impl Fn(&V, Timestamp) -> Timestamp + Send + Sync + 'static,
        lateness: Lateness,
    ) -> Stream<V> {
        let Self { reading, values, .. } = self;
        let what = format!("topic, values {}, {}", values.id(), in_disorder(lateness));
        let decode = move |record: &RecordView<'_>| values.decode(value_of(record)?);
        let source = TopicSource::new(reading.topic.as_str(), decode, time)
            .disorder_ms(lateness.disorder_ms())
            .bad_records(reading.bad_record());
        let source = reading.idle(source);
        let spec = reading.spec(None);
        Stream::new(reading.add(&what, spec, false, Arc::new(source)))
    }
}

/// A topic whose records will be a keyed stream, once it is said what their event time is.
#[must_use = "say what the event time is to get a stream"]
pub struct KeyedTopic<K, V, CK = Text, CV = Json> {
    reading: Reading,
    keys: CK,
    values: CV,
    row: PhantomData<fn() -> (K, V)>,
}

impl<K: Data, V: Data> KeyedTopic<K, V> {
    pub(crate) fn new(plan: SharedPlan, topic: String) -> Self {
        Self { reading: Reading::new(plan, topic), keys: Text, values: Json, row: PhantomData }
    }
}

impl<K: Data, V: Data, CK: Codec<K>, CV: Codec<V>> KeyedTopic<K, V, CK, CV> {
    reading_options!();

    /// Another codec for the keys.
    pub fn keys<D: Codec<K>>(self, codec: D) -> KeyedTopic<K, V, D, CV> {
        KeyedTopic { reading: self.reading, keys: codec, values: self.values, row: PhantomData }
    }

    /// Another codec for the values.
    pub fn values<D: Codec<V>>(self, codec: D) -> KeyedTopic<K, V, CK, D> {
        KeyedTopic { reading: self.reading, keys: self.keys, values: codec, row: PhantomData }
    }

    /// The stream of the records, with the event time that `time` takes from each key and value.
    pub fn event_time<E: EventTime>(
        self,
        time: impl Fn(&K, &V) -> E + Send + Sync + 'static,
        lateness: Lateness,
    ) -> KeyedStream<K, V> {
        self.read(move |(key, value), _| time(key, value).timestamp(), lateness)
    }

    /// The stream of the records, with their own timestamps as event time.
    pub fn record_time(self, lateness: Lateness) -> KeyedStream<K, V> {
        self.read(|_, timestamp| timestamp, lateness)
    }

    fn read(
        self,
        time: impl Fn(&(K, V), Timestamp) -> Timestamp + Send + Sync + 'static,
        lateness: Lateness,
    ) -> KeyedStream<K, V> {
        let Self { reading, keys, values, .. } = self;
        let what = format!("topic, keys {}, values {}, {}", keys.id(), values.id(), in_disorder(lateness));
        let keys = Arc::new(keys);
        let key_codec = Arc::clone(&keys);
        let decode = move |record: &RecordView<'_>| {
            Ok((keys.decode(key_of(record)?)?, values.decode(value_of(record)?)?))
        };
        let source = TopicSource::new(reading.topic.as_str(), decode, time)
            .disorder_ms(lateness.disorder_ms())
            .bad_records(reading.bad_record())
            .keyed();
        let source = reading.idle(source);
        let spec = reading.spec(Some(key_codec.id().to_string()));
        KeyedStream::unplaced(reading.add(&what, spec, false, Arc::new(source)), key_codec)
    }
}

/// A topic that will be a table, once it is said what its records' event time is.
#[must_use = "say what the event time is to get a table"]
pub struct TableTopic<K, V, CK = Text, CV = Json> {
    reading: Reading,
    keys: CK,
    values: CV,
    row: PhantomData<fn() -> (K, V)>,
}

impl<K: Data, V: Data> TableTopic<K, V> {
    pub(crate) fn new(plan: SharedPlan, topic: String) -> Self {
        Self { reading: Reading::new(plan, topic), keys: Text, values: Json, row: PhantomData }
    }
}

impl<K: Data, V: Data, CK: Codec<K>, CV: Codec<V>> TableTopic<K, V, CK, CV> {
    reading_options!();

    /// Another codec for the keys.
    pub fn keys<D: Codec<K>>(self, codec: D) -> TableTopic<K, V, D, CV> {
        TableTopic { reading: self.reading, keys: codec, values: self.values, row: PhantomData }
    }

    /// Another codec for the values.
    pub fn values<D: Codec<V>>(self, codec: D) -> TableTopic<K, V, CK, D> {
        TableTopic { reading: self.reading, keys: self.keys, values: codec, row: PhantomData }
    }

    /// The table, each value valid from the event time that `time` takes from it; a deletion is valid from
    /// its record's timestamp.
    pub fn event_time<E: EventTime>(
        self,
        time: impl Fn(&K, &V) -> E + Send + Sync + 'static,
        lateness: Lateness,
    ) -> Table<K, V> {
        let time = move |row: &(K, Option<V>), timestamp| match row {
            (key, Some(value)) => time(key, value).timestamp(),
            (_, None) => timestamp,
        };
        self.read(time, lateness)
    }

    /// The table, each value valid from its record's timestamp.
    pub fn record_time(self, lateness: Lateness) -> Table<K, V> {
        self.read(|_, timestamp| timestamp, lateness)
    }

    fn read(
        self,
        time: impl Fn(&(K, Option<V>), Timestamp) -> Timestamp + Send + Sync + 'static,
        lateness: Lateness,
    ) -> Table<K, V> {
        let Self { reading, keys, values, .. } = self;
        let what = format!("table, keys {}, values {}, {}", keys.id(), values.id(), in_disorder(lateness));
        let topic = reading.topic.clone();
        let (output, keys) = table(reading, &what, keys, values, time, Some(lateness));
        Table::of_topic(topic, output, keys)
    }
}

/// A reference table of a topic.
pub(crate) fn reference_table<K: Data, V: Data>(
    plan: SharedPlan,
    topic: String,
    keys: impl Codec<K>,
    values: impl Codec<V>,
) -> ReferenceTable<K, V> {
    let what = format!("reference table, keys {}, values {}", keys.id(), values.id());
    let time = |_: &(K, Option<V>), timestamp| timestamp;
    let (output, keys) = table(Reading::new(plan, topic), &what, keys, values, time, None);
    ReferenceTable::new(output, keys)
}

/// A source of table rows; timeless where there is no lateness.
fn table<K: Data, V: Data>(
    reading: Reading,
    what: &str,
    keys: impl Codec<K>,
    values: impl Codec<V>,
    time: impl Fn(&(K, Option<V>), Timestamp) -> Timestamp + Send + Sync + 'static,
    lateness: Option<Lateness>,
) -> (Output, Arc<dyn Codec<K>>) {
    let keys = Arc::new(keys);
    let key_codec = Arc::clone(&keys);
    let decode = move |record: &RecordView<'_>| {
        let value = record.value.map(|value| values.decode(value)).transpose()?;
        Ok((keys.decode(key_of(record)?)?, value))
    };
    let source = TopicSource::new(reading.topic.as_str(), decode, time)
        .disorder_ms(lateness.unwrap_or(Lateness::none()).disorder_ms())
        .bad_records(reading.bad_record())
        .keyed();
    let source = reading.idle(source);
    let spec = reading.spec(Some(key_codec.id().to_string()));
    (reading.add(what, spec, lateness.is_none(), Arc::new(source)), key_codec)
}

fn key_of<'a>(record: &RecordView<'a>) -> Result<&'a [u8], CodecError> {
    record.key.ok_or_else(|| CodecError::new("the record has no key"))
}

fn value_of<'a>(record: &RecordView<'a>) -> Result<&'a [u8], CodecError> {
    record.value.ok_or_else(|| CodecError::new("the record has no value"))
}

fn in_disorder(lateness: Lateness) -> String {
    match lateness.disorder_ms() {
        0 => "in order".to_owned(),
        disorder => format!("out of order by at most {}", in_words(disorder)),
    }
}
