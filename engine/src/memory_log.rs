//! An event log in memory, for the engine's tests: it keeps the batches it is given, byte for byte, ends
//! every transaction with a marker in each partition it wrote, and leaves aborted batches in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lotic_log::batch::{
    BatchBuilder, Batches, Compression, DecompressionBuffer, MarkerKind, ProducerStamp, SealedBatch, marker,
};
use lotic_log::{
    AbortedTransaction, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, Timestamp,
    TopicId,
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{AppendTicket, CommitPoll, EventLog, Fetched, PartitionKey, TopicHandle, TopicSpec};

/// The one producer of this log.
const PRODUCER: ProducerId = ProducerId(7);

/// A record as a test writes it and reads it back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) partition: i32,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

#[derive(Default)]
pub(crate) struct MemoryLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    topics: Vec<Topic>,
    open: Option<Transaction>,
    transactions: i16,
    committed: BTreeSet<Epoch>,
    tickets: u64,
    /// Whether commits are not decided before another holder asks.
    holds_commits: bool,
    /// A commit that was submitted and is not decided.
    is_committing: bool,
}

struct Topic {
    handle: TopicHandle,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    /// Each with its base offset and the one behind it.
    batches: Vec<(Offset, Offset, Bytes)>,
    aborted: Vec<AbortedTransaction>,
    end: Offset,
}

struct Transaction {
    epoch: Epoch,
    first: BTreeMap<PartitionKey, Offset>,
}

impl MemoryLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes a topic.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> TopicHandle {
        let mut inner = self.inner.lock();
        let index = inner.topics.len() as u32;
        let id = TopicId(Uuid::from_u128(u128::from(index) + 1));
        let handle = TopicHandle { index, name: name.into(), id, partitions };
        let made = (0..partitions).map(|_| Partition::default()).collect();
        inner.topics.push(Topic { handle: handle.clone(), partitions: made });
        handle
    }

    /// All topics.
    pub(crate) fn handles(&self) -> Vec<TopicHandle> {
        self.inner.lock().topics.iter().map(|topic| topic.handle.clone()).collect()
    }

    /// Appends records in one batch, outside any transaction.
    pub(crate) fn produce(&self, topic: &TopicHandle, partition: i32, rows: &[(i64, &[u8], &[u8])]) {
        let batch = batch_of(rows, Compression::None);
        let key = PartitionKey { topic: topic.index, partition: PartitionId(partition) };
        self.inner.lock().place(key, batch);
    }

    /// Appends records in one batch whose transaction is aborted.
    pub(crate) fn produce_aborted(&self, topic: &TopicHandle, partition: i32, rows: &[(i64, &[u8], &[u8])]) {
        let mut inner = self.inner.lock();
        inner.begin(Epoch(0));
        let key = PartitionKey { topic: topic.index, partition: PartitionId(partition) };
        inner.append(key, batch_of(rows, Compression::Lz4));
        inner.finish(MarkerKind::Abort);
    }

    /// The committed records of a topic, partition by partition, in order.
    pub(crate) fn rows(&self, topic: &TopicHandle) -> Vec<Row> {
        let mut rows = Vec::new();
        for partition in 0..topic.partitions {
            let key = PartitionKey { topic: topic.index, partition: PartitionId(partition) };
            let fetched = self.fetch(key, Offset(0), usize::MAX).unwrap();
            fetched.iter().for_each(|fetched| read(fetched, partition, &mut rows));
        }
        rows
    }

    /// The names of all topics.
    pub(crate) fn topic_names(&self) -> Vec<Arc<str>> {
        self.inner.lock().topics.iter().map(|topic| topic.handle.name.clone()).collect()
    }

    /// From now on what is submitted for commit is decided when the next holder takes the id, not before.
    pub(crate) fn hold_commits(&self, holds_commits: bool) {
        self.inner.lock().holds_commits = holds_commits;
    }

    /// Whether a commit was submitted and is not decided.
    pub(crate) fn is_committing(&self) -> bool {
        self.inner.lock().is_committing
    }

    /// The topic is gone.
    pub(crate) fn delete(&self, name: &str) {
        let mut inner = self.inner.lock();
        let topic = inner.topics.iter_mut().find(|topic| &*topic.handle.name == name).unwrap();
        topic.handle.name = format!("{name} that was deleted").into();
    }

    /// How many transactions have begun.
    pub(crate) fn transactions(&self) -> i16 {
        self.inner.lock().transactions
    }

    /// The end of a partition, uncommitted records included.
    pub(crate) fn end(&self, partition: PartitionKey) -> Offset {
        self.inner.lock().partition(partition).end
    }
}

fn batch_of(rows: &[(i64, &[u8], &[u8])], compression: Compression) -> SealedBatch {
    let mut builder = BatchBuilder::new(compression);
    for (timestamp, key, value) in rows {
        let key = (!key.is_empty()).then_some(*key);
        builder.push(Timestamp(*timestamp), key, Some(value), &[]).unwrap();
    }
    builder.seal()
}

fn read(fetched: &Fetched, partition: i32, rows: &mut Vec<Row>) {
    let mut scratch = DecompressionBuffer::default();
    for batch in Batches::new(&fetched.bytes) {
        let batch = batch.unwrap();
        let at = batch.header().base_offset;
        let aborted = fetched.aborted.iter().any(|gone| gone.first_offset <= at && at <= gone.last_offset);
        if batch.header().is_control || aborted {
            continue;
        }
        rows.extend(batch.records(&mut scratch).unwrap().map(|record| {
            let record = record.unwrap();
            Row {
                partition,
                timestamp: record.timestamp.0,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
            }
        }));
    }
}

impl Inner {
    fn partition(&mut self, key: PartitionKey) -> &mut Partition {
        &mut self.topics[key.topic as usize].partitions[key.partition.0 as usize]
    }

    fn place(&mut self, key: PartitionKey, mut batch: SealedBatch) {
        let partition = self.partition(key);
        let base = partition.end;
        batch.place(base, LeaderEpoch(0));
        partition.end = base.plus(i64::from(batch.record_count()));
        partition.batches.push((base, partition.end, Bytes::copy_from_slice(batch.finish())));
    }

    fn begin(&mut self, epoch: Epoch) {
        assert!(self.open.is_none(), "at most one transaction is open");
        self.transactions += 1;
        self.open = Some(Transaction { epoch, first: BTreeMap::new() });
    }

    fn append(&mut self, key: PartitionKey, mut batch: SealedBatch) {
        let base = self.partition(key).end;
        let transaction = self.open.as_mut().expect("batches are appended to an open transaction");
        transaction.first.entry(key).or_insert(base);
        batch.stamp(Some(ProducerStamp {
            id: PRODUCER,
            epoch: ProducerEpoch(self.transactions),
            base_sequence: Sequence(0),
            transactional: true,
        }));
        self.place(key, batch);
    }

    fn finish(&mut self, kind: MarkerKind) {
        let Some(transaction) = self.open.take() else { return };
        let epoch = ProducerEpoch(self.transactions);
        for (key, first) in transaction.first {
            self.place(key, marker(kind, PRODUCER, epoch, 0, Timestamp(0)));
            let partition = self.partition(key);
            if kind == MarkerKind::Abort {
                partition.aborted.push(AbortedTransaction {
                    producer_id: PRODUCER,
                    first_offset: first,
                    last_offset: partition.end.plus(-1),
                    last_stable_offset: partition.end,
                });
            }
        }
        if kind == MarkerKind::Commit {
            self.committed.insert(transaction.epoch);
        }
    }

    /// Decides what was submitted for commit.
    fn decide(&mut self) {
        if std::mem::take(&mut self.is_committing) {
            self.finish(MarkerKind::Commit);
        }
    }

    fn stable(&mut self, key: PartitionKey) -> Offset {
        let open = self.open.as_ref().and_then(|transaction| transaction.first.get(&key)).copied();
        open.unwrap_or(self.partition(key).end)
    }
}

impl EventLog for MemoryLog {
    fn resolve(&self, spec: &TopicSpec) -> Result<TopicHandle> {
        match self.find(&spec.name)? {
            Some(topic) => spec.check(topic.partitions, None).map(|()| topic),
            None if spec.create => Ok(self.topic(&spec.name, spec.partitions.unwrap_or(1))),
            None => Err(Error::new(ErrorKind::Invalid, format!("there is no topic {}", spec.name))),
        }
    }

    fn find(&self, name: &str) -> Result<Option<TopicHandle>> {
        let inner = self.inner.lock();
        Ok(inner.topics.iter().map(|topic| &topic.handle).find(|handle| &*handle.name == name).cloned())
    }

    fn fetch(&self, partition: PartitionKey, from: Offset, bytes_max: usize) -> Result<Option<Fetched>> {
        let mut inner = self.inner.lock();
        let stable = inner.stable(partition);
        let held = inner.partition(partition);
        let (mut bytes, mut next) = (Vec::new(), from);
        for (_, end, batch) in held.batches.iter().filter(|(_, end, _)| *end > from && *end <= stable) {
            if !bytes.is_empty() && bytes.len() + batch.len() > bytes_max {
                break;
            }
            bytes.extend_from_slice(batch);
            next = *end;
        }
        let fetched = Fetched { bytes: bytes.into(), aborted: held.aborted.clone(), next };
        Ok((next > from).then_some(fetched))
    }

    fn start_offset(&self, _partition: PartitionKey) -> Result<Offset> {
        Ok(Offset(0))
    }

    fn stable_offset(&self, partition: PartitionKey) -> Result<Offset> {
        Ok(self.inner.lock().stable(partition))
    }

    fn hold(&self) -> Result<()> {
        self.inner.lock().decide();
        Ok(())
    }

    fn begin(&self, epoch: Epoch) -> Result<()> {
        self.hold()?;
        self.inner.lock().begin(epoch);
        Ok(())
    }

    fn append(&self, partition: PartitionKey, batch: SealedBatch) -> Result<AppendTicket> {
        let mut inner = self.inner.lock();
        inner.append(partition, batch);
        inner.tickets += 1;
        Ok(AppendTicket(inner.tickets))
    }

    fn ends(&self) -> Result<Option<Vec<(PartitionKey, Offset)>>> {
        let mut inner = self.inner.lock();
        let written: Vec<_> = inner.open.iter().flat_map(|open| open.first.keys().copied()).collect();
        Ok(Some(written.into_iter().map(|key| (key, inner.partition(key).end)).collect()))
    }

    fn commit(&self, epoch: Epoch, _consumed: &[(PartitionKey, Offset)]) -> Result<()> {
        let mut inner = self.inner.lock();
        assert_eq!(inner.open.as_ref().map(|open| open.epoch), Some(epoch));
        inner.is_committing = true;
        if !inner.holds_commits {
            inner.decide();
        }
        Ok(())
    }

    fn poll_commit(&self, epoch: Epoch) -> Result<CommitPoll> {
        let committed = self.inner.lock().committed.contains(&epoch);
        Ok(if committed { CommitPoll::Committed } else { CommitPoll::Pending })
    }

    fn abort(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        if !inner.is_committing {
            inner.finish(MarkerKind::Abort);
        }
        Ok(())
    }

    fn step(&self) -> Result<bool> {
        Ok(false)
    }

    fn on_progress(&self, _wake: Arc<dyn Fn() + Send + Sync>) {}
}
