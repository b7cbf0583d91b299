//! Runs one step with state for its tests: rows in, rows out, with commits and restarts in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lotic_log::{Offset, PartitionId, Timestamp, murmur2};
use rand::Rng;

use crate::aggregate::Aggregate;
use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_writer::{EpochWriter, EpochWriterOptions};
use crate::error::Error;
use crate::event_log::{EventLog, TopicHandle, Topics};
use crate::frame::{Batch, Data, Frame, Origin};
use crate::memory_log::MemoryLog;
use crate::message::Watermark;
use crate::operator::{Context, OpenContext, Operator, OperatorFactory, Output, OutputItem, Progress};
use crate::state::restore::restore;
use crate::state::testing::{Counting, Counts, rows};
use crate::state::{MemoryState, StateAccess, StateAccessOptions, StateLimits, StoreChangelog};

/// One step on one worker of one.
pub(crate) struct Bench {
    factory: Arc<dyn OperatorFactory>,
    log: Arc<MemoryLog>,
    home: MemoryState,
    stores: Vec<StoreChangelog>,
    topics: Vec<TopicHandle>,
    epoch: Epoch,
    running: Option<Running>,
    pub(crate) counters: Counters,
    counts: Arc<Counts>,
}

struct Running {
    operator: Box<dyn Operator>,
    access: StateAccess,
    writer: EpochWriter,
}

/// A row as a test gives or gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event<T> {
    pub(crate) time: i64,
    pub(crate) watermark: i64,
    pub(crate) row: T,
}

pub(crate) fn event<T>(time: i64, watermark: i64, row: T) -> Event<T> {
    Event { time, watermark, row }
}

/// What a step emitted.
#[derive(Default)]
pub(crate) struct Emitted {
    frames: Vec<(usize, Option<Frame>)>,
    pub(crate) watermarks: Vec<i64>,
}

impl Emitted {
    /// The rows of a port.
    pub(crate) fn rows<T: Data>(&mut self, port: usize) -> Vec<Event<T>> {
        let of_port = self.frames.iter_mut().filter(|(emitted, _)| *emitted == port);
        let batches = of_port.filter_map(|(_, frame)| frame.take()).map(Frame::into_batch::<T>);
        batches.flat_map(events_of).collect()
    }

    /// The origins of a port's rows.
    pub(crate) fn origins(&self, port: usize) -> Vec<Origin> {
        let of_port = self.frames.iter().filter(|(emitted, _)| *emitted == port);
        of_port
            .filter_map(|(_, frame)| frame.as_ref())
            .flat_map(|frame| frame.columns.origins.clone())
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.frames.append(&mut other.frames);
        self.watermarks.append(&mut other.watermarks);
    }
}

fn events_of<T>(batch: Batch<T>) -> Vec<Event<T>> {
    let Batch { rows, columns } = batch;
    assert_eq!(rows.len(), columns.keys.len(), "every row of these steps has a key");
    let columns = columns.times.into_iter().zip(columns.watermarks);
    rows.into_iter().zip(columns).map(|(row, (time, watermark))| event(time.0, watermark.0, row)).collect()
}

impl Bench {
    /// A step with these stores, and with these topics to be found.
    pub(crate) fn new(factory: Arc<dyn OperatorFactory>, stores: &[&str], topics: &[(&str, i32)]) -> Self {
        let log = MemoryLog::new();
        let store = |name: &&str| StoreChangelog {
            name: (*name).to_owned(),
            topic: log.topic(&format!("flow-{name}-changelog"), 2),
        };
        let stores = stores.iter().map(store).collect();
        let topics = topics.iter().map(|(name, partitions)| log.topic(name, *partitions)).collect();
        let mut bench = Self {
            factory,
            log,
            home: MemoryState::crashing(8),
            stores,
            topics,
            epoch: Epoch(0),
            running: None,
            counters: Counters::default(),
            counts: Arc::default(),
        };
        bench.open();
        bench
    }

    fn open(&mut self) {
        let backend = restore(&self.home, &*self.log, &self.stores, 1, &|| false).unwrap().backend;
        let backend = Arc::new(Counting { inner: backend, counts: Arc::clone(&self.counts) });
        let limits = StateLimits { cache_bytes_max: 1_000, dirty_bytes_max: 10_000 };
        let options = StateAccessOptions { backend, stores: &self.stores, worker: 0, workers: 1, limits };
        let access = StateAccess::new(options).unwrap();
        let topics: Topics = self.topics.iter().cloned().collect();
        let mut context = OpenContext {
            flow: "flow",
            step: "step",
            worker: 0,
            workers: 1,
            frame_rows_max: 3,
            last_committed: self.epoch,
            topics: &topics,
            state: &access,
        };
        let operator = self.factory.open(&mut context).unwrap();
        let port: Arc<dyn EventLog> = self.log.clone();
        let writer = EpochWriter::new(port, EpochWriterOptions::default(), self.epoch.next());
        self.running = Some(Running { operator, access, writer });
    }

    fn call<R>(&mut self, mut call: impl FnMut(&mut dyn Operator, &mut Context<'_>) -> R) -> (R, Emitted) {
        let running = self.running.as_mut().unwrap();
        let mut output = Output::default();
        let mut context = Context {
            output: &mut output,
            writer: &mut running.writer,
            counters: &self.counters,
            processing_time: Timestamp(0),
        };
        let result = call(&mut *running.operator, &mut context);
        let mut emitted = Emitted::default();
        for item in output.items {
            match item {
                OutputItem::Frame(port, frame) => emitted.frames.push((port, Some(frame))),
                OutputItem::Watermark(watermark) => {
                    assert_eq!(watermark.partition, None);
                    emitted.watermarks.push(watermark.time.0);
                }
            }
        }
        (result, emitted)
    }

    pub(crate) fn process<T: Data>(&mut self, input: usize, batch: Batch<T>) -> Emitted {
        let mut frame = Some(Frame::from(batch));
        let (result, emitted) =
            self.call(|operator, context| operator.process(input, frame.take().unwrap(), context));
        result.unwrap();
        emitted
    }

    /// Tells of a watermark as often as the step wants.
    pub(crate) fn advance(&mut self, input: usize, partition: Option<i32>, time: i64) -> Emitted {
        let watermark = Watermark { partition: partition.map(PartitionId), time: Timestamp(time) };
        self.until_done(|operator, context| operator.advance(input, watermark, context).unwrap())
    }

    /// Tells of a watermark once.
    pub(crate) fn advance_once(
        &mut self,
        input: usize,
        partition: Option<i32>,
        time: i64,
    ) -> (Progress, Emitted) {
        let watermark = Watermark { partition: partition.map(PartitionId), time: Timestamp(time) };
        self.call(|operator, context| operator.advance(input, watermark, context).unwrap())
    }

    /// Tells of a watermark, at which the step fails.
    pub(crate) fn fail_to_advance(
        &mut self,
        input: usize,
        partition: Option<i32>,
        time: i64,
    ) -> (Error, Emitted) {
        let watermark = Watermark { partition: partition.map(PartitionId), time: Timestamp(time) };
        let (result, emitted) = self.call(|operator, context| operator.advance(input, watermark, context));
        (result.unwrap_err(), emitted)
    }

    /// How many rows of the backend scans have visited.
    pub(crate) fn visited(&self) -> usize {
        self.counts.visited.load(Ordering::Relaxed)
    }

    /// How many keys each multi-get of the backend was for, since this was last asked.
    pub(crate) fn multi_gets(&self) -> Vec<usize> {
        std::mem::take(&mut self.counts.multi_gets.lock())
    }

    /// Of how many stretches of the backend's rows each scan was, since this was last asked.
    pub(crate) fn scans(&self) -> Vec<usize> {
        std::mem::take(&mut self.counts.scans.lock())
    }

    /// Tells of the end as often as the step wants.
    pub(crate) fn end(&mut self) -> Emitted {
        self.until_done(|operator, context| operator.end(context).unwrap())
    }

    fn until_done(
        &mut self,
        mut call: impl FnMut(&mut dyn Operator, &mut Context<'_>) -> Progress,
    ) -> Emitted {
        let mut emitted = Emitted::default();
        loop {
            let (progress, more) = self.call(&mut call);
            assert!(
                more.frames.iter().all(|(_, frame)| frame.as_ref().unwrap().len() <= 3),
                "a frame's bound"
            );
            emitted.append(more);
            if progress == Progress::Done {
                return emitted;
            }
        }
    }

    /// Ends the epoch and commits it. How many changelog records it wrote.
    pub(crate) fn commit(&mut self) -> usize {
        let before: usize = self.changes();
        let epoch = self.epoch.next();
        self.log.begin(epoch).unwrap();
        self.running.as_mut().unwrap().writer.begin(epoch).unwrap();
        self.call(|operator, context| operator.barrier(epoch, context)).0.unwrap();
        let running = self.running.as_mut().unwrap();
        running.writer.flush(epoch).unwrap();
        let ends = self.log.ends().unwrap().unwrap();
        self.log.commit(epoch, &[]).unwrap();
        running.access.publish_ends(epoch, &ends);
        running.operator.committed(epoch).unwrap();
        running.writer.enter(epoch.next());
        self.epoch = epoch;
        self.changes() - before
    }

    fn changes(&self) -> usize {
        self.stores.iter().map(|store| self.log.rows(&store.topic).len()).sum()
    }

    /// The process dies; another one goes on after the last commit.
    pub(crate) fn restart(&mut self, random: &mut impl Rng) {
        self.running = None;
        self.home.crash(random);
        self.open();
    }

    /// How many committed rows a store holds.
    pub(crate) fn stored(&self, store: &str) -> usize {
        use crate::state::StateHome;
        let backend = self.home.open().unwrap();
        rows(&*backend, backend.open_store(store).unwrap()).len()
    }
}

/// Rows with text keys.
pub(crate) fn keyed<V: Data>(events: &[Event<(&str, V)>]) -> Batch<(String, V)> {
    let mut batch = Batch::default();
    for event in events {
        let (key, value) = &event.row;
        push(&mut batch, event.time, event.watermark, None, (*key).to_owned(), value.clone());
    }
    batch
}

/// Appends a row with a text key.
pub(crate) fn push<V>(
    batch: &mut Batch<(String, V)>,
    time: i64,
    watermark: i64,
    origin: Option<(u32, i32, i64)>,
    key: String,
    value: V,
) {
    batch.columns.times.push(Timestamp(time));
    batch.columns.watermarks.push(Timestamp(watermark));
    batch.columns.keys.push(key.as_bytes(), murmur2(key.as_bytes()) as u32);
    batch.columns.origins.extend(origin.map(|(source, partition, offset)| Origin {
        source,
        partition: PartitionId(partition),
        offset: Offset(offset),
    }));
    batch.rows.push((key, value));
}

/// Adds numbers up.
pub(crate) struct Sum;

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

/// Partitions of records, and the state of a reader that interleaves them.
#[derive(Clone)]
pub(crate) struct Reader<V> {
    pub(crate) partitions: Vec<Vec<Record<V>>>,
    positions: Vec<usize>,
    event_times: Vec<i64>,
    disorder: i64,
}

/// A record of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Record<V> {
    pub(crate) time: i64,
    pub(crate) key: String,
    pub(crate) value: V,
}

impl<V: Data> Reader<V> {
    pub(crate) fn new(partitions: Vec<Vec<Record<V>>>, disorder: i64) -> Self {
        let count = partitions.len();
        Self { partitions, positions: vec![0; count], event_times: vec![i64::MIN; count], disorder }
    }

    /// Reads some records of a random partition.
    pub(crate) fn read(&mut self, source: u32, random: &mut impl Rng) -> Option<(usize, Batch<(String, V)>)> {
        let open: Vec<_> =
            (0..self.partitions.len()).filter(|&p| self.positions[p] < self.partitions[p].len()).collect();
        let partition = *open.get(random.random_range(0..open.len().max(1)))?;
        let mut batch = Batch::default();
        for _ in 0..random.random_range(1..6) {
            let position = self.positions[partition];
            let Some(record) = self.partitions[partition].get(position) else { break };
            // The record's own watermark is that of its partition, itself included.
            self.event_times[partition] = record.time.max(self.event_times[partition]);
            let watermark = self.watermark(partition);
            let origin = (source, partition as i32, position as i64);
            push(&mut batch, record.time, watermark, Some(origin), record.key.clone(), record.value.clone());
            self.positions[partition] += 1;
        }
        Some((partition, batch))
    }

    /// Whether everything was read.
    pub(crate) fn is_done(&self) -> bool {
        self.partitions.iter().zip(&self.positions).all(|(records, position)| *position == records.len())
    }

    pub(crate) fn watermark(&self, partition: usize) -> i64 {
        self.event_times[partition].saturating_sub(self.disorder)
    }

    pub(crate) fn whole_watermark(&self) -> i64 {
        (0..self.partitions.len()).map(|partition| self.watermark(partition)).min().unwrap_or(i64::MAX)
    }

    /// Every record with its own watermark, as any reader must see it.
    pub(crate) fn naive(&self) -> Vec<(Record<V>, i64)> {
        let mut all = Vec::new();
        for partition in &self.partitions {
            let mut newest = i64::MIN;
            for record in partition {
                newest = newest.max(record.time);
                all.push((record.clone(), newest - self.disorder));
            }
        }
        all
    }
}
