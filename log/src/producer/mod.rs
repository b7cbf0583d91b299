//! The batching producer: records from any thread, gathered into batches, written by one.
//!
//! Senders put records into the [`Accumulator`] under one lock, held for the copy of the record. One
//! writer at a time (the producer's thread under [`Drive::Thread`], the caller otherwise) takes what is
//! due, seals it without that lock, appends it and asks for one group commit of all it appended. A
//! batch is settled once it is as durable as its topic promises; after a crash only settled records are
//! certain to be there, and those of one partition are there in the order in which they were sent.
//!
//! Lock order: writer before state. Neither is held while a sync is awaited.

mod accumulator;
#[cfg(test)]
mod awaited_tests;
mod batch_limit;
mod future;
#[cfg(test)]
mod limits_tests;
mod outcome;
mod room;
mod route;
mod transactions;
mod writer;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::batch::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::partition::Partition;
use crate::partitioner::{Partitioner, partition_for_key};
use crate::record::{PartitionId, Record};
use crate::spawn::{self, Drive};
use crate::topic::Topic;
use crate::transaction::{TransactionOptions, TransactionalProducer};

use accumulator::{Accumulator, Lane, LaneConfig, Measured, Pushed};
use outcome::Outcome;
use room::RoomWaiter;
use route::{Route, Routes};
use transactions::Transaction;
use writer::Writer;

pub use future::SendFuture;
pub use outcome::RecordPlace;

/// How a [`Producer`] batches.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// How long a batch waits for more records before it is written.
    pub linger: Duration,
    /// A batch that has this size once compressed, by an estimate from the batches before it, waits no
    /// longer: Kafka's `batch.size`. Less where the topic allows less; before compression it has eight times
    /// as much at most, and no more than the topic allows. A larger record gets its own batch.
    pub batch_bytes: usize,
    /// The largest record that is sent, with what a batch of its own takes beside it: Kafka's
    /// `max.request.size`. What the topic takes is a setting of the topic.
    pub record_bytes_max: usize,
    /// Bytes of records that may be on their way; sending more waits for room.
    pub buffer_bytes_max: usize,
    /// How long sending waits for room before it fails: Kafka's `max.block.ms`.
    pub max_block: Duration,
    /// How long after the first record was sent a batch fails that is not as durable as its topic
    /// promises: Kafka's `delivery.timeout.ms`. Longer than `linger`.
    pub delivery_timeout: Duration,
    /// How batches are compressed; as their topic says where absent.
    pub compression: Option<Compression>,
    /// Whether batches carry a producer id and sequences, so that one written twice is noticed.
    pub idempotent: bool,
    /// Under which id transactions are written. A record's future tells its place then; it is durable, and
    /// seen by readers of committed records, once its transaction is committed.
    pub transactional_id: Option<String>,
    /// How its transactions are written.
    pub transactions: TransactionOptions,
    /// How a record's partition is chosen.
    pub partitioner: Partitioner,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            batch_bytes: 128 << 10,
            record_bytes_max: 1 << 20,
            buffer_bytes_max: 32 << 20,
            max_block: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            compression: None,
            idempotent: false,
            transactional_id: None,
            transactions: TransactionOptions::default(),
            partitioner: Partitioner::Kafka,
        }
    }
}

/// Writes records to topics in batches. Shared by reference between threads; dropping it writes what
/// is still on its way.
pub struct Producer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    /// A producer for `log`.
    ///
    /// # Errors
    /// `Invalid` for a delivery timeout that is not longer than the linger, or a level that the compression
    /// does not have; `Io` if its thread cannot be
    /// started; if it is to be idempotent, those of taking a producer id; with a transactional id, those of
    /// [`Log::transactional`].
    pub fn new(log: &Log, options: ProducerOptions) -> Result<Self> {
        let ProducerOptions { linger, delivery_timeout, .. } = options;
        if delivery_timeout <= linger {
            let what = format!(
                "a producer that lingers for {linger:?} needs more than {delivery_timeout:?} for its deliveries"
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if let Some(Err(error)) = options.compression.map(Compression::check) {
            return Err(Error::new(ErrorKind::Invalid, format!("a producer's compression: {error}")));
        }
        let take_id = |id| log.transactional_with(id, options.transactions);
        let transactional = options.transactional_id.as_deref().map(take_id).transpose()?;
        // Transactions bring their own.
        let needs_identity = options.idempotent && transactional.is_none();
        let identity = if needs_identity { Some(log.next_producer_id()?) } else { None };
        let shared = Arc::new(Shared {
            log: log.clone(),
            state: Mutex::new(State {
                partitioner: options.partitioner,
                accumulator: Accumulator::new(linger, delivery_timeout),
                routes: Routes::default(),
                lanes: Vec::new(),
                unsettled: Vec::new(),
                transaction: Transaction::default(),
                waiting: Vec::new(),
                is_hurried: false,
                is_closing: false,
                is_dead: false,
            }),
            options,
            transactional,
            writer: Mutex::new(Writer::new(identity)),
            due: Condvar::new(),
            room: Condvar::new(),
        });
        let thread = match log.drive() {
            Drive::Manual => None,
            Drive::Thread => {
                let shared = shared.clone();
                let started = spawn::spawn("lotic-producer", move || shared.run());
                Some(started.map_err(|error| Error::io("start the producer's thread", error))?)
            }
        };
        Ok(Self { shared, thread })
    }

    /// Sends a record. Blocks while the buffer is full ([`Self::send_async`] does not); the future tells
    /// where the record went, or why not. The record is written whether or not the future is kept.
    pub fn send(&self, topic: &str, record: Record) -> SendFuture {
        self.future(self.shared.push(Destination::of(topic), &record))
    }

    /// Sends a record to this partition, whatever its key; see [`Self::send`]. Blocks while the buffer is full
    /// ([`Self::send_to_async`] does not).
    pub fn send_to(&self, topic: &str, partition: PartitionId, record: Record) -> SendFuture {
        self.future(self.shared.push(Destination { topic, partition: Some(partition) }, &record))
    }

    /// Sends a record, and waits for it to be as durable as its topic promises; for room in the buffer
    /// first, without blocking the thread. Dropped while it waits for room, the record is not sent.
    ///
    /// # Errors
    /// Those that [`Self::send`]'s future tells.
    pub async fn send_async(&self, topic: &str, record: Record) -> Result<RecordPlace> {
        let pushed = self.shared.push_async(Destination::of(topic), &record).await;
        self.future(pushed).await
    }

    /// Sends a record to this partition, whatever its key, and waits for it; see [`Self::send_async`].
    ///
    /// # Errors
    /// Those that [`Self::send_to`]'s future tells.
    pub async fn send_to_async(
        &self,
        topic: &str,
        partition: PartitionId,
        record: Record,
    ) -> Result<RecordPlace> {
        let to = Destination { topic, partition: Some(partition) };
        let pushed = self.shared.push_async(to, &record).await;
        self.future(pushed).await
    }

    fn future(&self, pushed: Result<Pushed>) -> SendFuture {
        match pushed {
            Ok(pushed) => SendFuture::new(&self.shared, pushed.outcome, pushed.index),
            Err(error) => {
                self.shared.state.lock().transaction.note_failure(&error);
                let outcome = Arc::<Outcome>::default();
                outcome.settle(Err(error));
                SendFuture::new(&self.shared, outcome, 0)
            }
        }
    }

    /// Writes everything sent so far, linger or not, and waits until all of it is settled, also what
    /// comes behind an error.
    ///
    /// # Errors
    /// The first error that a batch of these met.
    pub fn flush(&self) -> Result<()> {
        let outcomes = self.shared.hurry();
        let settled = outcomes.iter().map(|outcome| self.shared.wait(outcome, 0).map(drop));
        settled.fold(Ok(()), Result::and)
    }

    /// [`Self::flush`] without blocking the thread. What was sent is written at once even if this is dropped
    /// while it waits. Under [`Drive::Manual`] it waits for whoever steps.
    ///
    /// # Errors
    /// Those of [`Self::flush`].
    pub async fn flush_async(&self) -> Result<()> {
        let mut flushed = Ok(());
        for outcome in self.shared.hurry() {
            let settled = poll_fn(|context| outcome.poll(0, context)).await;
            flushed = flushed.and(settled.map(drop));
        }
        flushed
    }

    /// Writes what is due and settles what is durable; returns whether there was anything. Only of use
    /// under [`Drive::Manual`], where nothing is written otherwise.
    pub fn step(&self) -> bool {
        self.shared.step()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.state.lock().is_closing = true;
        self.shared.due.notify_all();
        if let Some(thread) = self.thread.take() {
            // It ends when all is settled. A panic in it has been printed already.
            let _ = thread.join();
        } else if let Err(error) = self.flush() {
            tracing::warn!(%error, "a producer was dropped with records that could not be written");
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// What senders, the writer and futures share.
struct Shared {
    log: Log,
    options: ProducerOptions,
    transactional: Option<TransactionalProducer>,
    state: Mutex<State>,
    writer: Mutex<Writer>,
    /// Told when a batch is due earlier than the writer knows.
    due: Condvar,
    /// Told when bytes are released.
    room: Condvar,
}

struct State {
    partitioner: Partitioner,
    accumulator: Accumulator,
    routes: Routes,
    /// By lane.
    lanes: Vec<Target>,
    /// Batches that the writer has taken and not settled.
    unsettled: Vec<Arc<Outcome>>,
    transaction: Transaction,
    /// Who waits for room without blocking.
    waiting: Vec<RoomWaiter>,
    /// Whether all batches are due, lingering or not.
    is_hurried: bool,
    is_closing: bool,
    /// Whether the producer's thread has panicked, so that nothing is written any more.
    is_dead: bool,
}

/// Where a record is to go.
#[derive(Clone, Copy)]
struct Destination<'a> {
    topic: &'a str,
    /// As the partitioner says where absent.
    partition: Option<PartitionId>,
}

impl<'a> Destination<'a> {
    fn of(topic: &'a str) -> Self {
        Self { topic, partition: None }
    }
}

/// Where a lane's batches go.
#[derive(Clone)]
struct Target {
    topic: Arc<str>,
    partition: Arc<Partition>,
}

impl Shared {
    /// Puts a record into its batch, once there is room.
    fn push(&self, to: Destination<'_>, record: &Record) -> Result<Pushed> {
        let measured = self.measure(to, record)?;
        let mut deadline = None;
        loop {
            let state = self.wait_for_room(measured, &mut deadline)?;
            if let Some(pushed) = self.push_into(state, to, measured)? {
                return Ok(pushed);
            }
            self.resolve(to.topic)?;
        }
    }

    /// The record with its size.
    ///
    /// # Errors
    /// `Invalid` if it is too large.
    fn measure<'a>(&self, to: Destination<'_>, record: &'a Record) -> Result<Measured<'a>> {
        let measured = Measured::of(record);
        let bytes = measured.lone_batch_bytes_max();
        let ProducerOptions { record_bytes_max, buffer_bytes_max, .. } = self.options;
        let bytes_max = record_bytes_max.min(buffer_bytes_max);
        if bytes > bytes_max {
            let topic = to.topic;
            let what =
                format!("record for topic {topic} takes {bytes} bytes, the producer sends {bytes_max}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(measured)
    }

    /// Puts a record into its batch, for which there is room; `None` if the topic has to be looked up first.
    fn push_into(
        &self,
        mut state: MutexGuard<'_, State>,
        to: Destination<'_>,
        measured: Measured<'_>,
    ) -> Result<Option<Pushed>> {
        self.check_transaction(&state)?;
        let topics_version = self.log.topics_version();
        let Some(lane) = state.choose_lane(to, measured, topics_version)? else { return Ok(None) };
        let clock = self.log.clock();
        let timestamp = measured.record.timestamp.unwrap_or_else(|| clock.now());
        let pushed = state.accumulator.push(lane, measured, timestamp, || clock.elapsed());
        drop(state);
        let pushed = pushed.map_err(|error| error.within(format_args!("record for topic {}", to.topic)))?;
        if pushed.wakes_writer {
            self.due.notify_one();
        }
        Ok(Some(pushed))
    }

    /// Gives the topic lanes, or finds out where those of a stale route go now.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an internal topic.
    fn resolve(&self, name: &str) -> Result<()> {
        // Before the topic: what changes in between is looked up again.
        let topics_version = self.log.topics_version();
        let topic = self.log.topic(name)?;
        topic.check_producible()?;
        let config = LaneConfig {
            batch_bytes: self.options.batch_bytes,
            topic_bytes_max: topic.config().batch_bytes_max,
            compression: self.options.compression.unwrap_or(topic.config().compression),
        };
        self.state.lock().add_route(&topic, config, topics_version);
        Ok(())
    }

    /// Makes all that is not settled due, and returns it.
    fn hurry(&self) -> Vec<Arc<Outcome>> {
        let mut state = self.state.lock();
        state.is_hurried = true;
        self.due.notify_one();
        state.unsettled.iter().chain(state.accumulator.outcomes()).cloned().collect()
    }

    /// Waits until `outcome` is settled, stepping everything where nobody else does.
    fn wait(&self, outcome: &Outcome, index: i32) -> Result<RecordPlace> {
        if self.log.drive() == Drive::Thread {
            return outcome.wait(index);
        }
        loop {
            if let Some(place) = outcome.get(index) {
                return place;
            }
            self.state.lock().is_hurried = true;
            self.advance();
        }
    }
}

impl State {
    /// The lane that a record goes to; `None` if the topic has to be looked up first.
    ///
    /// # Errors
    /// `NotFound` if the topic has no such partition.
    fn choose_lane(
        &mut self,
        to: Destination<'_>,
        measured: Measured<'_>,
        topics_version: u64,
    ) -> Result<Option<Lane>> {
        let route = self.routes.get_mut(to.topic);
        let Some(route) = route.filter(|route| route.topics_version == topics_version) else {
            return Ok(None);
        };
        let count = route.partition_count;
        let index = match (to.partition, self.partitioner, &measured.record.key) {
            (Some(PartitionId(partition)), ..) if (0..count).contains(&partition) => partition,
            (Some(partition), ..) => {
                let what =
                    format!("topic {} has no partition {partition}; it has 0 to {}", to.topic, count - 1);
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            (None, Partitioner::Kafka, Some(key)) => partition_for_key(key, count).0,
            (None, Partitioner::Kafka, None) => route.stick(&self.accumulator, measured),
            (None, Partitioner::RoundRobin, _) => route.next(),
        };
        Ok(Some(route.lane(index)))
    }

    /// Notes where the topic's batches go, and how they are made. The lanes of a stale route are kept where
    /// they fit; where they do not, what is in them is written before what is sent from now on.
    fn add_route(&mut self, topic: &Topic, config: LaneConfig, topics_version: u64) {
        let (name, partitions) = (topic.name(), topic.partitions());
        let partition_count = partitions.len() as i32;
        let targets =
            partitions.iter().map(|partition| Target { topic: name.into(), partition: partition.clone() });
        if let Some(route) = self.routes.get_mut(name) {
            let lanes = (0..route.partition_count).map(|partition| route.lane(partition));
            if route.partition_count == partition_count {
                lanes.for_each(|lane| self.accumulator.set_config(lane, config));
                route.topics_version = topics_version;
                let first = route.first.0;
                self.lanes.splice(first..first + partitions.len(), targets);
                return;
            }
            lanes.for_each(|lane| self.accumulator.close(lane));
        }
        let first = self.accumulator.add_lanes(partitions.len(), config);
        self.lanes.extend(targets);
        // In turn, the first record goes to partition 0 too.
        let cursor = if self.partitioner == Partitioner::RoundRobin { partition_count - 1 } else { 0 };
        let route = Route { first, partition_count, cursor, cursor_bytes: 0, topics_version };
        self.routes.insert(name.to_owned(), route);
    }
}
