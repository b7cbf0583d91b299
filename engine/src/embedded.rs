//! The embedded log as an [`EventLog`].
//!
//! Appends reach the page cache before they return, so they are acknowledged at once; what takes time is the commit,
//! which is one of the log's tickets. The transactional id is taken by the first `begin`, unless a flow asks for it
//! before: opening one that is then refused, or finds nothing to do, changes nothing. What an epoch consumed is written
//! to `__consumer_offsets` too, for lag and for Kafka's tools; the flow itself never reads it.
//!
//! Lock order: `transaction`, its stage, then the log's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

use lotic_log::batch::SealedBatch;
use lotic_log::group::{OffsetCommit, offset_commits, offsets_partition};
use lotic_log::{
    CleanupPolicy, CommitTicket, ErrorKind as LogErrorKind, Isolation, Log, Offset, Partition, Pin, Topic,
    TopicConfig, TopicPartition, TransactionOptions, TransactionalProducer,
};
use parking_lot::{Mutex, RwLock};

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{AppendTicket, CommitPoll, EventLog, Fetched, PartitionKey, TopicHandle, TopicSpec};

/// A flow's hold on an embedded log.
pub struct EmbeddedLog {
    log: Log,
    transactional_id: String,
    /// By [`TopicHandle::index`]. Only ever grows.
    topics: RwLock<Vec<(TopicHandle, Topic)>>,
    transaction: RwLock<Option<Transaction>>,
    appends: AtomicU64,
    wakes: Arc<Wakes>,
}

/// The producer, once the first transaction has begun.
struct Transaction {
    producer: TransactionalProducer,
    /// The partition of `__consumer_offsets`.
    offsets: Arc<Partition>,
    stage: Mutex<Stage>,
    /// What was last written to it.
    committed: Mutex<HashMap<PartitionKey, Offset>>,
}

/// Where the present transaction stands.
enum Stage {
    /// There is none.
    Ended,
    Open(Epoch),
    Committing(Epoch, CommitTicket),
    Committed(Epoch),
}

/// Whom to call when something has moved on. Knows no log: the log's progress keeps it.
#[derive(Default)]
struct Wakes {
    callbacks: RwLock<Vec<Arc<dyn Fn() + Send + Sync>>>,
    /// Whether the log's progress will wake it: it does so once for each time it is told to.
    is_registered: AtomicBool,
    /// The progress at which it was told.
    seen: AtomicU64,
}

impl Wakes {
    /// Has the log wake it again when there may be more to read. What came since the last time, when
    /// nobody listened, is announced now.
    fn register(self: &Arc<Self>, log: &Log) {
        if self.is_registered.swap(true, Ordering::SeqCst) {
            return;
        }
        let seen = log.progress().count();
        let missed = seen > self.seen.swap(seen, Ordering::SeqCst) + 1;
        let is_quiet = log.progress().register(seen, &Waker::from(Arc::clone(self)));
        if missed || !is_quiet {
            self.call();
        }
    }

    fn call(&self) {
        self.callbacks.read().iter().for_each(|wake| wake());
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_registered.store(false, Ordering::SeqCst);
        self.call();
    }
}

impl EmbeddedLog {
    /// A hold on `log` under this transactional id, by convention the flow's name.
    pub fn new(log: Log, transactional_id: &str) -> Arc<Self> {
        let wakes = Arc::<Wakes>::default();
        wakes.register(&log);
        Arc::new(Self {
            log,
            transactional_id: transactional_id.to_owned(),
            topics: RwLock::default(),
            transaction: RwLock::default(),
            appends: AtomicU64::new(0),
            wakes,
        })
    }

    fn partition(&self, key: PartitionKey) -> Result<Arc<Partition>> {
        let topics = self.topics.read();
        let (_, topic) = topics.get(key.topic as usize).expect("a handle's index is one of this log's");
        Ok(topic.partition(key.partition)?)
    }

    /// The handle of a topic that exists.
    fn handle(&self, topic: Topic) -> TopicHandle {
        let mut topics = self.topics.write();
        if let Some((handle, _)) = topics.iter().find(|(handle, _)| handle.id == topic.id()) {
            return handle.clone();
        }
        let handle = TopicHandle {
            index: topics.len() as u32,
            name: topic.name().into(),
            id: topic.id(),
            partitions: topic.partitions().len() as i32,
        };
        topics.push((handle.clone(), topic));
        handle
    }

    fn existing(&self, name: &str) -> Result<Option<Topic>> {
        match self.log.topic(name) {
            Ok(topic) => Ok(Some(topic)),
            Err(error) if error.kind() == LogErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs `body` on the transaction that must be open.
    fn in_transaction<T>(&self, body: impl FnOnce(&Transaction) -> Result<T>) -> Result<T> {
        match &*self.transaction.read() {
            Some(transaction) => body(transaction),
            None => Err(self.no_transaction()),
        }
    }

    fn no_transaction(&self) -> Error {
        let context = format!("flow {} has no open transaction", self.transactional_id);
        Error::new(ErrorKind::Invalid, context)
    }

    /// Writes the offsets that have moved to the consumer group of the flow's name.
    fn commit_offsets(&self, transaction: &Transaction, consumed: &[(PartitionKey, Offset)]) -> Result<()> {
        let mut committed = transaction.committed.lock();
        let topics = self.topics.read();
        let moved = consumed.iter().filter(|(key, offset)| committed.get(key) != Some(offset));
        let commits: Vec<OffsetCommit> = moved
            .map(|&(key, offset)| {
                let (topic, _) = &topics[key.topic as usize];
                let partition = TopicPartition::new(&*topic.name, key.partition);
                OffsetCommit { partition, topic_id: topic.id, offset, metadata: String::new() }
            })
            .collect();
        if commits.is_empty() {
            return Ok(());
        }
        let batch = offset_commits(&self.transactional_id, &commits, self.log.clock().now())?;
        transaction.producer.append(&transaction.offsets, batch)?;
        // If the transaction fails, so does this hold on the log, and with it what is noted here.
        committed.extend(consumed.iter().copied());
        Ok(())
    }

    /// What a failed commit means. After an error of the disk it is known that nothing was decided, and
    /// that error is the one to tell.
    fn failed_commit(&self, epoch: Epoch, error: lotic_log::Error) -> Result<CommitPoll> {
        let poll = match error.kind() {
            LogErrorKind::Fenced => CommitPoll::Fenced,
            LogErrorKind::TransactionState => CommitPoll::Aborted,
            LogErrorKind::Poisoned | LogErrorKind::Closed => CommitPoll::Unknown,
            _ => return Err(error.into()),
        };
        tracing::warn!(flow = self.transactional_id, %epoch, %error, ?poll, "a commit failed");
        Ok(poll)
    }
}

impl EventLog for EmbeddedLog {
    fn resolve(&self, spec: &TopicSpec) -> Result<TopicHandle> {
        if let Some(topic) = self.existing(&spec.name)? {
            spec.check(topic.partitions().len() as i32, topic.config().key_format.as_deref())?;
            spec.check_owner(topic.config().owner.as_deref())?;
            return Ok(self.handle(topic));
        }
        if !spec.create {
            // Says which name is nearest.
            return Ok(self.handle(self.log.topic(&spec.name)?));
        }
        let topic = self.log.create_topic(
            &spec.name,
            TopicConfig {
                partitions: spec.partitions.unwrap_or(1),
                cleanup: if spec.compacted { CleanupPolicy::Compact } else { CleanupPolicy::Delete },
                key_format: spec.key_format.clone(),
                owner: spec.owner.clone(),
                ..TopicConfig::default()
            },
        )?;
        Ok(self.handle(topic))
    }

    fn find(&self, name: &str) -> Result<Option<TopicHandle>> {
        Ok(self.existing(name)?.map(|topic| self.handle(topic)))
    }

    fn fetch(&self, partition: PartitionKey, from: Offset, bytes_max: usize) -> Result<Option<Fetched>> {
        let fetched = self.partition(partition)?.fetch(from, bytes_max, Isolation::ReadCommitted)?;
        if fetched.next == from {
            return Ok(None);
        }
        Ok(Some(Fetched { bytes: fetched.bytes, aborted: fetched.aborted, next: fetched.next }))
    }

    fn start_offset(&self, partition: PartitionKey) -> Result<Offset> {
        Ok(self.partition(partition)?.offsets().start)
    }

    fn stable_offset(&self, partition: PartitionKey) -> Result<Offset> {
        Ok(self.partition(partition)?.offsets().stable)
    }

    fn pin(&self, partition: PartitionKey, from: Offset) -> Result<Option<Pin>> {
        let holder = format!("the restore of flow {}", self.transactional_id);
        Ok(Some(self.partition(partition)?.pin(from, holder)))
    }

    fn raise_tombstone_floor(&self, partition: PartitionKey, floor: Offset) -> Result<Offset> {
        Ok(self.partition(partition)?.raise_tombstone_floor(floor)?)
    }

    fn hold(&self) -> Result<()> {
        let mut transaction = self.transaction.write();
        if transaction.is_none() {
            // How long an epoch takes is the processor's own business.
            let options = TransactionOptions { timeout: None };
            let producer = self.log.transactional_with(&self.transactional_id, options)?;
            *transaction = Some(Transaction {
                producer,
                offsets: offsets_partition(&self.log)?,
                stage: Mutex::new(Stage::Ended),
                committed: Mutex::default(),
            });
        }
        Ok(())
    }

    fn begin(&self, epoch: Epoch) -> Result<()> {
        self.hold()?;
        let transaction = self.transaction.read();
        let transaction = transaction.as_ref().expect("it was just made where there was none");
        let mut stage = transaction.stage.lock();
        if let Stage::Open(open) | Stage::Committing(open, _) = &*stage {
            let context = format!("epoch {epoch} cannot begin: the transaction of epoch {open} is open");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        transaction.producer.begin()?;
        *stage = Stage::Open(epoch);
        Ok(())
    }

    fn append(&self, partition: PartitionKey, batch: SealedBatch) -> Result<AppendTicket> {
        let target = self.partition(partition)?;
        self.in_transaction(|transaction| {
            transaction.producer.append(&target, batch)?;
            Ok(AppendTicket(self.appends.fetch_add(1, Ordering::Relaxed)))
        })
    }

    fn ends(&self) -> Result<Option<Vec<(PartitionKey, Offset)>>> {
        let ends = self.in_transaction(|transaction| Ok(transaction.producer.ends()))?;
        let topics = self.topics.read();
        let index_of = |id| topics.iter().find(|(handle, _)| handle.id == id).map(|(handle, _)| handle.index);
        let known = ends.into_iter().filter_map(|(name, id, end)| {
            // The log's own topics (committed offsets) are nobody's handle.
            index_of(id).map(|topic| (PartitionKey { topic, partition: name.partition }, end))
        });
        Ok(Some(known.collect()))
    }

    fn commit(&self, epoch: Epoch, consumed: &[(PartitionKey, Offset)]) -> Result<()> {
        let mut partitions = Vec::with_capacity(consumed.len());
        for &(key, upto) in consumed {
            let partition = self.partition(key)?;
            if partition.offsets().durable < upto {
                partitions.push(partition);
            }
        }
        self.in_transaction(|transaction| {
            let mut stage = transaction.stage.lock();
            if !matches!(&*stage, Stage::Open(open) if *open == epoch) {
                return Err(self.no_transaction().within(format!("committing epoch {epoch}")));
            }
            self.commit_offsets(transaction, consumed)?;
            let ticket = transaction.producer.commit(&partitions);
            ticket.wake(&Waker::from(self.wakes.clone()));
            *stage = Stage::Committing(epoch, ticket);
            Ok(())
        })
    }

    fn poll_commit(&self, epoch: Epoch) -> Result<CommitPoll> {
        self.in_transaction(|transaction| {
            let mut stage = transaction.stage.lock();
            let outcome = match &*stage {
                Stage::Committed(committed) if *committed == epoch => return Ok(CommitPoll::Committed),
                Stage::Committing(committing, ticket) if *committing == epoch => ticket.outcome(),
                _ => return Err(self.no_transaction().within(format!("the commit of epoch {epoch}"))),
            };
            match outcome {
                None => Ok(CommitPoll::Pending),
                Some(Ok(())) => {
                    *stage = Stage::Committed(epoch);
                    Ok(CommitPoll::Committed)
                }
                Some(Err(error)) => self.failed_commit(epoch, error),
            }
        })
    }

    fn abort(&self) -> Result<()> {
        match &*self.transaction.read() {
            Some(transaction) => {
                let mut stage = transaction.stage.lock();
                if let Stage::Open(_) = &*stage {
                    transaction.producer.abort()?;
                    *stage = Stage::Ended;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn step(&self) -> Result<bool> {
        self.wakes.register(&self.log);
        Ok(self.log.step()?)
    }

    fn on_progress(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.wakes.callbacks.write().push(wake);
    }
}
