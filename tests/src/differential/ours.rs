//! The operations of a script, on Lotic.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use lotic_log::batch::{
    BatchBuilder, Compression, DecompressionBuffer, MarkerKind, ProducerStamp, RecordBatch, RecordView,
    TimestampType,
};
use lotic_log::group::{CommittedOffsets, ConsumerGroupMetadata};
use lotic_log::storage::SyncPurpose;
use lotic_log::storage::disk::DiskStorage;
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::{
    CleanupPolicy, Consumer, ConsumerOptions, Durability, Error, ErrorKind, Header, Isolation, Log,
    LogOptions, ManualClock, Offset, OffsetSpec, Partition, PartitionId, Producer, ProducerEpoch, ProducerId,
    ProducerOptions, Record, SendFuture, Sequence, SystemClock, Timestamp, Topic, TopicConfig,
    TopicPartition, TransactionalProducer, partition_for_key,
};
use tempfile::TempDir;

use super::clocked::without_times;
use super::outcome::{Entry, EntryKind, Offsets, Outcome, Walked};
use super::script::{BATCH_BYTES_MAX, Content, Operation, PARTITIONS, Place, Script, WriterKind};
use crate::failure::Result;
use crate::kafka::ReadRecord;

/// Small, so that reading goes over many fetches.
const FETCH_BYTES_MAX: usize = 300;

/// Where the log is: on disk it is closed and opened again, in memory the power fails.
enum Machine {
    Disk(TempDir, Arc<DiskStorage>),
    Memory(Arc<MemoryStorage>, Arc<ManualClock>),
}

/// How far the clock of a log in memory moves before each operation.
const CLOCK_STEP: Duration = Duration::from_millis(3);

/// Who has a transactional id: one that is handed batches, or one that makes them.
enum Session {
    Plain(TransactionalProducer),
    Batching(Producer),
}

/// A log, and who writes to its one topic.
struct Ours<'a> {
    script: &'a Script,
    number: usize,
    machine: Machine,
    log: Log,
    producers: HashMap<usize, Producer>,
    sessions: HashMap<usize, Session>,
    /// The producers that took a transactional id, in that order.
    opened: Vec<usize>,
}

/// What each operation of the script comes to.
///
/// # Errors
/// If there is no log to begin with.
pub(super) fn perform(script: &Script, number: usize) -> Result<Vec<Outcome>> {
    let machine = Machine::new(script.seed)?;
    let log = machine.open(script.seed)?;
    log.create_topic(&Script::topic(number), config(script))?;
    let (producers, sessions, opened) = (HashMap::new(), HashMap::new(), Vec::new());
    let mut ours = Ours { script, number, machine, log, producers, sessions, opened };
    let begun = ours.log.clock().now();
    let outcomes = script.operations.iter().map(|operation| ours.answer(operation)).collect::<Result<_>>()?;
    if !script.append_time {
        return Ok(outcomes);
    }
    without_times(outcomes, &(begun.0..=ours.log.clock().now().0))
}

fn config(script: &Script) -> TopicConfig {
    TopicConfig {
        partitions: PARTITIONS,
        cleanup: if script.compacts { CleanupPolicy::Compact } else { CleanupPolicy::Delete },
        batch_bytes_max: BATCH_BYTES_MAX,
        segment_bytes: [300, 800, 2_500, 1 << 20][(script.seed / 2 % 4) as usize],
        index_interval_bytes: 200,
        snapshot_interval_bytes: 700,
        timestamp_type: if script.append_time { TimestampType::LogAppend } else { TimestampType::Create },
        ..TopicConfig::default()
    }
}

impl Machine {
    fn new(seed: u64) -> Result<Self> {
        Ok(if seed.is_multiple_of(2) {
            Self::Memory(MemoryStorage::new(seed), ManualClock::new())
        } else {
            Self::Disk(tempfile::tempdir()?, DiskStorage::new(1)?)
        })
    }

    fn open(&self, seed: u64) -> Result<Log, Error> {
        match self {
            Self::Memory(storage, clock) => {
                Log::open("/log", LogOptions::manual(storage.mount(), clock.clone(), seed))
            }
            Self::Disk(folder, storage) => {
                let options = LogOptions::manual(storage.clone(), SystemClock::new(), seed);
                Log::open(folder.path(), LogOptions { durability: Durability::Os, ..options })
            }
        }
    }
}

impl Session {
    fn handle(&self) -> Result<&TransactionalProducer, Error> {
        match self {
            Self::Plain(producer) => Ok(producer),
            Self::Batching(producer) => producer.transactional(),
        }
    }

    fn begin(&self) -> Result<(), Error> {
        match self {
            Self::Plain(producer) => producer.begin(),
            Self::Batching(producer) => producer.begin_transaction(),
        }
    }

    fn commit(&self) -> Result<(), Error> {
        match self {
            Self::Plain(producer) => producer.commit(&[]).wait(),
            Self::Batching(producer) => producer.commit_transaction(),
        }
    }

    fn abort(&self) -> Result<(), Error> {
        match self {
            Self::Plain(producer) => producer.abort(),
            Self::Batching(producer) => producer.abort_transaction(),
        }
    }

    fn is_open(&self) -> bool {
        self.handle().is_ok_and(TransactionalProducer::is_open)
    }
}

impl Ours<'_> {
    /// What an operation comes to, once all that it wrote is what readers see.
    fn answer(&mut self, operation: &Operation) -> Result<Outcome> {
        if let Machine::Memory(_, clock) = &self.machine {
            clock.advance(CLOCK_STEP);
        }
        let outcome = match self.run(operation) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Refused(error.kind()),
        };
        let topics = self.log.topics();
        let partitions: Vec<_> = topics.iter().flat_map(Topic::partitions).cloned().collect();
        self.log.flush(&partitions, SyncPurpose::Records).wait()?;
        Ok(outcome)
    }

    fn run(&mut self, operation: &Operation) -> Result<Outcome, Error> {
        match operation {
            Operation::Send { producer, partition, records } => {
                self.send(*producer, *partition, records).map(Outcome::Written)
            }
            Operation::Append { partition, producer_id, epoch, sequence, records } => {
                let stamp = ProducerStamp {
                    id: ProducerId(*producer_id),
                    epoch: ProducerEpoch(*epoch),
                    base_sequence: Sequence(*sequence),
                    transactional: false,
                };
                self.append(*partition, Compression::None, Some(stamp), records).map(Outcome::Written)
            }
            Operation::Open(producer) => self.open(*producer),
            Operation::Begin(producer) => self.session(*producer)?.begin().map(done),
            Operation::Commit(producer) => self.session(*producer)?.commit().map(done),
            Operation::Abort(producer) => self.session(*producer)?.abort().map(done),
            Operation::CommitOffset { group, partition, offset } => {
                self.commit_offset(*group, *partition, Offset(*offset)).map(done)
            }
            Operation::SendOffset { producer, group, partition, offset } => {
                self.send_offset(*producer, *group, *partition, Offset(*offset)).map(done)
            }
            Operation::Committed(group) => self.committed(*group),
            Operation::Delete { partition, to } => {
                let to = self.resolve(*partition, *to)?;
                let start = self.log.delete_records(&self.topic(), PartitionId(*partition), to)?;
                Ok(Outcome::Deleted(start.0))
            }
            Operation::Compact { record, .. } => self.compact(record).map(done),
            Operation::Offsets(partition) => self.offsets(*partition).map(Outcome::Offsets),
            Operation::FindTime { partition, committed, timestamp } => {
                self.find(*partition, *committed, OffsetSpec::AtOrAfter(Timestamp(*timestamp)))
            }
            Operation::FindNewest { partition, committed } => {
                let offsets = self.offsets(*partition)?;
                if *committed && offsets.stable < offsets.end {
                    return Ok(Outcome::Done);
                }
                self.find(*partition, *committed, OffsetSpec::MaxTimestamp)
            }
            Operation::Consume { partition, committed, from } => {
                let from = self.resolve(*partition, *from)?;
                self.consume(*partition, isolation(*committed), from).map(Outcome::Records)
            }
            Operation::Walk(partition) => self.walk(*partition).map(Outcome::Walked),
            Operation::FetchMissing => {
                self.log.topic(&format!("{}-missing", self.topic())).map(|_| Outcome::Done)
            }
            Operation::Reopen => self.reopen().map(done),
        }
    }

    fn topic(&self) -> String {
        Script::topic(self.number)
    }

    fn partition(&self, partition: i32) -> Result<Arc<Partition>, Error> {
        self.log.topic(&self.topic())?.partition(PartitionId(partition))
    }

    fn session(&self, producer: usize) -> Result<&Session, Error> {
        let what = || Error::new(ErrorKind::TransactionState, "its transactional id was not taken");
        self.sessions.get(&producer).ok_or_else(what)
    }

    fn open(&mut self, producer: usize) -> Result<Outcome, Error> {
        let WriterKind::Transactional(id) = self.script.producers[producer].kind else {
            return Err(Error::new(ErrorKind::TransactionState, "it has no transactional id"));
        };
        let id = format!("id-{id}");
        let session = if (self.script.seed / 8).is_multiple_of(2) {
            Session::Plain(self.log.transactional(&id)?)
        } else {
            let options = ProducerOptions { transactional_id: Some(id), ..self.options(producer) };
            Session::Batching(Producer::new(&self.log, options)?)
        };
        self.sessions.insert(producer, session);
        self.opened.push(producer);
        Ok(Outcome::Done)
    }

    fn send(
        &mut self,
        producer: usize,
        partition: Option<i32>,
        records: &[Content],
    ) -> Result<Vec<(i32, i64)>, Error> {
        let writer = &self.script.producers[producer];
        let compression: Compression = writer.compression.parse().expect("a name of Kafka's");
        if let WriterKind::Transactional(_) = writer.kind {
            return match self.session(producer)? {
                Session::Batching(producer) => self.send_all(producer, partition, records),
                Session::Plain(producer) => {
                    let place = partition.unwrap_or_else(|| by_key(&records[0]));
                    let batch = builder(compression, records)?.seal();
                    let base = producer.append(&self.partition(place)?, batch)?;
                    Ok(places(place, base, records))
                }
            };
        }
        if !self.producers.contains_key(&producer) {
            let made = Producer::new(&self.log, self.options(producer))?;
            self.producers.insert(producer, made);
        }
        self.send_all(&self.producers[&producer], partition, records)
    }

    fn options(&self, producer: usize) -> ProducerOptions {
        let writer = &self.script.producers[producer];
        let compression = Some(writer.compression.parse().expect("a name of Kafka's"));
        let idempotent = writer.kind == WriterKind::Idempotent;
        ProducerOptions { compression, idempotent, ..ProducerOptions::default() }
    }

    fn send_all(
        &self,
        producer: &Producer,
        partition: Option<i32>,
        records: &[Content],
    ) -> Result<Vec<(i32, i64)>, Error> {
        let topic = self.topic();
        let send = |content| match partition {
            Some(partition) => producer.send_to(&topic, PartitionId(partition), record(content)),
            None => producer.send(&topic, record(content)),
        };
        let sent: Vec<_> = records.iter().map(send).collect();
        let wait = |sent: SendFuture| sent.wait().map(|place| (place.partition.0, place.offset.0));
        sent.into_iter().map(wait).collect()
    }

    fn append(
        &self,
        partition: i32,
        compression: Compression,
        stamp: Option<ProducerStamp>,
        records: &[Content],
    ) -> Result<Vec<(i32, i64)>, Error> {
        let mut batch = builder(compression, records)?.seal();
        batch.stamp(stamp);
        let appended = self.partition(partition)?.append(batch)?;
        Ok(places(partition, appended.base_offset, records))
    }

    fn commit_offset(&self, group: usize, partition: i32, offset: Offset) -> Result<(), Error> {
        let group = Some(Script::group(self.number, group));
        let mut consumer = Consumer::new(&self.log, ConsumerOptions { group, ..ConsumerOptions::default() })?;
        let name = self.partition(partition)?.name().clone();
        consumer.assign(std::slice::from_ref(&name))?;
        consumer.seek(&name, offset)?;
        consumer.commit()
    }

    fn send_offset(
        &self,
        producer: usize,
        group: usize,
        partition: i32,
        offset: Offset,
    ) -> Result<(), Error> {
        let name = self.partition(partition)?.name().clone();
        let group = ConsumerGroupMetadata::new(Script::group(self.number, group));
        self.session(producer)?.handle()?.send_offsets_to_transaction(&[(name, offset.into())], &group)
    }

    fn committed(&self, group: usize) -> Result<Outcome, Error> {
        let committed = CommittedOffsets::read(&self.log)?;
        let group = Script::group(self.number, group);
        let offsets = committed.group(&group).map(|(name, committed)| (name.partition.0, committed.offset.0));
        Ok(Outcome::Committed(offsets.collect()))
    }

    fn compact(&self, record: &Content) -> Result<(), Error> {
        for partition in 0..PARTITIONS {
            let offsets = self.offsets(partition)?;
            if offsets.stable < offsets.end {
                return Ok(());
            }
        }
        for partition in 0..PARTITIONS {
            self.append(partition, Compression::None, None, std::slice::from_ref(record))?;
        }
        self.log.compact(&self.topic()).map(drop)
    }

    fn offsets(&self, partition: i32) -> Result<Offsets, Error> {
        let partition = self.partition(partition)?;
        let find = |spec, isolation| {
            let found = partition.find_offset(spec, isolation)?;
            Ok::<_, Error>(found.expect("there is always a first and a last offset").offset.0)
        };
        Ok(Offsets {
            start: find(OffsetSpec::Earliest, Isolation::ReadUncommitted)?,
            stable: find(OffsetSpec::Latest, Isolation::ReadCommitted)?,
            end: find(OffsetSpec::Latest, Isolation::ReadUncommitted)?,
        })
    }

    fn resolve(&self, partition: i32, place: Place) -> Result<Offset, Error> {
        let Offsets { start, stable, end } = self.offsets(partition)?;
        Ok(Offset(place.resolve(start, stable, end)))
    }

    fn find(&self, partition: i32, committed: bool, spec: OffsetSpec) -> Result<Outcome, Error> {
        let found = self.partition(partition)?.find_offset(spec, isolation(committed))?;
        let pair = |found: lotic_log::FoundOffset| Some((found.offset.0, found.timestamp?.0));
        Ok(Outcome::Found(found.and_then(pair)))
    }

    fn consume(&self, partition: i32, isolation: Isolation, from: Offset) -> Result<Vec<ReadRecord>, Error> {
        let options =
            ConsumerOptions { isolation, fetch_bytes_max: FETCH_BYTES_MAX, ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(&self.log, options)?;
        let name = self.partition(partition)?.name().clone();
        consumer.assign(std::slice::from_ref(&name))?;
        consumer.seek(&name, from)?;
        let mut records = Vec::new();
        loop {
            let read = consumer.poll(|name, record| {
                records.push(read_record(name, &record));
                ControlFlow::Continue(())
            })?;
            if read == 0 {
                return Ok(records);
            }
        }
    }

    fn walk(&self, partition: i32) -> Result<Walked, Error> {
        let partition = self.partition(partition)?;
        let mut next = partition.offsets().start;
        let (mut entries, mut aborted) = (Vec::new(), BTreeSet::new());
        loop {
            let fetched = partition.fetch(next, FETCH_BYTES_MAX, Isolation::ReadCommitted)?;
            if fetched.next == next {
                return Ok(Walked { entries, aborted }.with_numbered_producers());
            }
            aborted.extend(fetched.aborted.iter().map(|one| (one.producer_id.0, one.first_offset.0)));
            for batch in fetched.batches() {
                let batch = batch.map_err(|error| error.within(partition.name()))?;
                let found = entries_of(&batch).map_err(|error| error.within(partition.name()))?;
                entries.extend(found.into_iter().filter(|entry| entry.offset >= next.0));
            }
            next = fetched.next;
        }
    }

    /// Opens the log again, after it was closed or without. Whoever has a transactional id takes it again.
    fn reopen(&mut self) -> Result<(), Error> {
        if self.sessions.values().any(Session::is_open) {
            return Ok(());
        }
        self.producers.clear();
        match &self.machine {
            // The old log's storage is dead from here on.
            Machine::Memory(storage, _) => storage.crash(),
            Machine::Disk(..) => self.log.close()?,
        }
        self.sessions.clear();
        self.log = self.machine.open(self.script.seed)?;
        for producer in std::mem::take(&mut self.opened) {
            self.open(producer)?;
        }
        Ok(())
    }
}

fn done<T>(_: T) -> Outcome {
    Outcome::Done
}

fn isolation(committed: bool) -> Isolation {
    if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

fn by_key(content: &Content) -> i32 {
    let key = content.key.as_deref().expect("a record without a partition has a key");
    partition_for_key(key.as_bytes(), PARTITIONS).0
}

fn places(partition: i32, base: Offset, records: &[Content]) -> Vec<(i32, i64)> {
    (0..records.len() as i64).map(|index| (partition, base.0 + index)).collect()
}

fn headers(content: &Content) -> Vec<Header> {
    let header = |(key, value): &(String, Option<String>)| Header {
        key: key.clone(),
        value: value.as_ref().map(|value| value.clone().into()),
    };
    content.headers.iter().map(header).collect()
}

fn builder(compression: Compression, records: &[Content]) -> Result<BatchBuilder, Error> {
    let mut builder = BatchBuilder::new(compression);
    for content in records {
        let (key, value) = (content.key.as_deref(), content.value.as_deref());
        let pushed = builder.push(
            Timestamp(content.timestamp),
            key.map(str::as_bytes),
            value.map(str::as_bytes),
            &headers(content),
        );
        pushed.map_err(|error| error.within("a batch"))?;
    }
    Ok(builder)
}

fn record(content: &Content) -> Record {
    Record {
        key: content.key.clone().map(Into::into),
        value: content.value.clone().map(Into::into),
        headers: headers(content),
        timestamp: Some(Timestamp(content.timestamp)),
    }
}

fn read_record(name: &TopicPartition, record: &RecordView<'_>) -> ReadRecord {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    ReadRecord {
        topic: name.topic.clone(),
        partition: name.partition.0,
        offset: record.offset.0,
        timestamp: record.timestamp.0,
        key: text(record.key),
        value: text(record.value),
        headers: record.headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect(),
    }
}

fn entries_of(batch: &RecordBatch<'_>) -> Result<Vec<Entry>, lotic_log::batch::BatchError> {
    let header = batch.header();
    if header.record_count == 0 {
        return Ok(Vec::new());
    }
    let kind = match (header.is_control, header.is_transactional) {
        (true, _) if batch.control()?.kind == MarkerKind::Commit => EntryKind::Commit,
        (true, _) => EntryKind::Abort,
        (false, true) => EntryKind::Transactional,
        (false, false) => EntryKind::Plain,
    };
    let (producer, append_time) = (header.producer_id.0, header.timestamp_type == TimestampType::LogAppend);
    let mut scratch = DecompressionBuffer::new();
    let entry = |record: Result<RecordView<'_>, _>| {
        record.map(|record| Entry { offset: record.offset.0, producer, kind, append_time })
    };
    batch.records(&mut scratch)?.map(entry).collect()
}
