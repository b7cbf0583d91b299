//! [`TestDriver`]: a flow under test, rows in, rows out.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lotic_engine::codec::{Codec, CodecError};
use lotic_engine::counters::Counters;
use lotic_engine::embedded::EmbeddedLog;
use lotic_engine::engine::{Engine, EngineSetup, counters_for};
use lotic_engine::error::{Error, ErrorKind, Result};
use lotic_engine::graph::Graph;
use lotic_engine::options::EngineOptions;
use lotic_engine::state::MemoryState;
use lotic_log::batch::{BatchBuilder, Compression, RecordView};
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::{
    Clock, Consumer, ConsumerOptions, Durability, Isolation, Log, LogOptions, ManualClock, Offset,
    PartitionId, Record, Timestamp, TopicConfig, TopicPartition, partition_for_key,
};

use crate::codecs::{Json, Text};
use crate::flow::Flow;
use crate::row::Value;

/// How often everything is stepped before a flow that does not come to rest is given up.
const ROUNDS_MAX: usize = 1_000_000;

/// Runs a flow on a log in memory, without threads and with time that stands still until it is moved.
///
/// It is the graph that a [`Processor`](crate::Processor) runs, on the same engine: epochs commit, state
/// has changelogs, only the disk is missing. Source topics are made with the partitions that the flow
/// declares, or one.
///
/// ```
/// use lotic::prelude::*;
///
/// let mut flow = Flow::new("lengths");
/// flow.topic::<String>("words").record_time(Lateness::none()).map(|word| word.len()).to("lengths");
///
/// let mut driver = TestDriver::new(flow)?;
/// driver.send("words", &"stream".to_string())?;
/// driver.run()?;
/// assert_eq!(driver.values::<usize>("lengths")?, [6]);
/// # Ok::<(), lotic::Error>(())
/// ```
pub struct TestDriver {
    graph: Graph,
    options: EngineOptions,
    clock: Arc<ManualClock>,
    log: Log,
    state: Arc<MemoryState>,
    counters: Vec<Arc<Counters>>,
    /// The flow while it runs without an end.
    engine: Option<Engine>,
    /// How far each topic's records were given out.
    given_out: BTreeMap<(String, PartitionId), Offset>,
}

impl TestDriver {
    /// A driver of `flow` with one worker.
    ///
    /// # Errors
    ///
    /// Those of [`Flow::graph`].
    pub fn new(flow: Flow) -> Result<Self> {
        Self::with_options(flow, EngineOptions::default())
    }

    /// A driver with other options: no result may depend on them.
    ///
    /// # Errors
    ///
    /// Those of [`Flow::graph`].
    pub fn with_options(flow: Flow, options: EngineOptions) -> Result<Self> {
        let graph = flow.graph()?;
        let clock = ManualClock::new();
        let manual = LogOptions::manual(MemoryStorage::new(0), Arc::clone(&clock) as Arc<dyn Clock>, 0);
        let log = Log::open(Path::new("/"), LogOptions { durability: Durability::Os, ..manual })?;
        for topic in graph.topics.iter().filter(|topic| !topic.create) {
            let partitions = topic.partitions.unwrap_or(1);
            log.create_topic(&topic.name, TopicConfig { partitions, ..TopicConfig::default() })?;
        }
        let counters = counters_for(&graph);
        let state = Arc::new(MemoryState::new());
        Ok(Self { graph, options, clock, log, state, counters, engine: None, given_out: BTreeMap::new() })
    }

    /// The log that the flow runs on.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Writes a JSON value without a key, with the timestamp 0, to a topic that the flow reads.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is no such topic, or the value is not JSON.
    pub fn send<V: Value>(&mut self, topic: &str, value: &V) -> Result<()> {
        let value = encoded(topic, &Json, value)?;
        self.send_record(topic, Record { value: Some(value), ..Record::default() })
    }

    /// Writes a JSON value with a text key and a timestamp.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_keyed<K: Value, V: Value>(
        &mut self,
        topic: &str,
        key: &K,
        value: &V,
        timestamp: Timestamp,
    ) -> Result<()> {
        let (key, value) = (encoded(topic, &Text, key)?, encoded(topic, &Json, value)?);
        let timestamp = Some(timestamp);
        self.send_record(topic, Record { key: Some(key), value: Some(value), timestamp, ..Record::default() })
    }

    /// Writes a record: to the partition that Kafka's default partitioner gives its key, or the first one.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is no such topic.
    pub fn send_record(&mut self, topic: &str, record: Record) -> Result<()> {
        let found = self.log.topic(topic)?;
        let partition = match &record.key {
            Some(key) => partition_for_key(key, found.partitions().len() as i32),
            None => PartitionId(0),
        };
        let mut batch = BatchBuilder::new(Compression::None);
        let timestamp = record.timestamp.unwrap_or_default();
        batch.push(timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers).map_err(
            |error| Error::caused(ErrorKind::Invalid, format!("a record for topic {topic}"), error),
        )?;
        found.partition(partition)?.append(batch.seal())?;
        Ok(())
    }

    /// Moves time on: a step that waits for it, or an epoch that does, goes on with the next
    /// [`run`](Self::run).
    pub fn advance(&mut self, time: Duration) {
        self.clock.advance(time);
    }

    /// Runs the flow until all that was written so far is processed and committed. The input goes on after
    /// that: nothing is treated as its end.
    ///
    /// # Errors
    ///
    /// What stops the flow; `Restart` if it does not come to rest.
    pub fn run(&mut self) -> Result<()> {
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => self.open(false)?,
        };
        self.settle(&mut engine)?;
        self.engine = Some(engine);
        Ok(())
    }

    /// Runs the flow to the end of its input: what waits for more answers with what it has. More may be
    /// written and run after that.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn end(&mut self) -> Result<()> {
        self.crash()?;
        let mut engine = self.open(true)?;
        self.settle(&mut engine)?;
        engine.close()
    }

    /// Drops the running flow as it is, with all that it has not committed. The next
    /// [`run`](Self::run) goes on from the last committed epoch.
    ///
    /// # Errors
    ///
    /// Those of the log.
    pub fn crash(&mut self) -> Result<()> {
        self.engine.take().map_or(Ok(()), Engine::close)
    }

    /// The text keys and JSON values of the records that were committed to a topic since the last call.
    ///
    /// # Errors
    ///
    /// `Decode` if they are not that; `Invalid` if there is no such topic.
    pub fn rows<K: Value, V: Value>(&mut self, topic: &str) -> Result<Vec<(K, V)>> {
        let row = |record: Record| {
            Ok((
                decoded(topic, "key", &Text, record.key.as_deref())?,
                decoded(topic, "value", &Json, record.value.as_deref())?,
            ))
        };
        self.records(topic)?.into_iter().map(row).collect()
    }

    /// The JSON values of the records that were committed to a topic since the last call.
    ///
    /// # Errors
    ///
    /// As [`rows`](Self::rows).
    pub fn values<V: Value>(&mut self, topic: &str) -> Result<Vec<V>> {
        let value = |record: Record| decoded(topic, "value", &Json, record.value.as_deref());
        self.records(topic)?.into_iter().map(value).collect()
    }

    /// The records that were committed to a topic since the last call, one partition after the other.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is no such topic.
    pub fn records(&mut self, topic: &str) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let partitions = self.log.topic(topic)?.partitions().len() as i32;
        let options = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(&self.log, options)?;
        for partition in (0..partitions).map(PartitionId) {
            let place = TopicPartition::new(topic, partition);
            let from = self.given_out.entry((topic.to_owned(), partition)).or_default();
            consumer.assign(std::slice::from_ref(&place))?;
            consumer.seek(&place, *from)?;
            let mut take = |_: &TopicPartition, record: RecordView<'_>| {
                records.push(record.to_record());
                ControlFlow::Continue(())
            };
            while consumer.poll(&mut take)? > 0 {}
            *from = consumer.position(&place)?;
        }
        Ok(records)
    }

    fn open(&self, bounded: bool) -> Result<Engine> {
        Engine::open(EngineSetup {
            graph: &self.graph,
            log: EmbeddedLog::new(self.log.clone(), &self.graph.name),
            home: Arc::clone(&self.state) as Arc<_>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            counters: &self.counters,
            options: &EngineOptions { bounded, ..self.options.clone() },
            is_stopping: &|| false,
        })
    }

    /// Steps the engine until it is at rest and everything is committed: time is moved on so far that the
    /// running epoch ends.
    fn settle(&self, engine: &mut Engine) -> Result<()> {
        loop {
            let before = engine.last_committed();
            self.step_until_quiet(engine)?;
            self.clock.advance(self.options.epoch_interval);
            self.step_until_quiet(engine)?;
            if engine.is_finished() || engine.last_committed() == before {
                return Ok(());
            }
        }
    }

    fn step_until_quiet(&self, engine: &mut Engine) -> Result<()> {
        if engine.step_until_quiet(ROUNDS_MAX)? {
            return Ok(());
        }
        let context = format!("flow {} did not come to rest in {ROUNDS_MAX} rounds", self.graph.name);
        Err(Error::new(ErrorKind::Restart, context))
    }
}

fn encoded<T>(topic: &str, codec: &impl Codec<T>, value: &T) -> Result<Bytes> {
    let mut bytes = Vec::new();
    codec
        .encode(value, &mut bytes)
        .map_err(|error| Error::caused(ErrorKind::Invalid, format!("a record for topic {topic}"), error))?;
    Ok(bytes.into())
}

fn decoded<T>(topic: &str, what: &str, codec: &impl Codec<T>, bytes: Option<&[u8]>) -> Result<T> {
    bytes.ok_or_else(|| CodecError::new("there is none")).and_then(|bytes| codec.decode(bytes)).map_err(
        |error| Error::caused(ErrorKind::Decode, format!("the {what} of a record in topic {topic}"), error),
    )
}
