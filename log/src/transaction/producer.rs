//! The handle on a transactional id.

use std::sync::Arc;
use std::time::Duration;

use super::record::{TRANSACTION_TOPIC, TRANSACTIONAL_ID_BYTES_MAX};
use super::session::Session;
use crate::batch::{MarkerKind, SealedBatch};
use crate::consumer::OffsetAndMetadata;
use crate::error::{Error, ErrorKind, Result};
use crate::group::{ConsumerGroupMetadata, OffsetCommit};
use crate::log::Log;
use crate::partition::Partition;
use crate::record::{Offset, PartitionId, TopicId, TopicPartition};
use crate::storage::SyncPurpose;
use crate::ticket::CommitTicket;
use crate::topic::TopicConfig;

/// Kafka's size of a segment of this topic.
const SEGMENT_BYTES: u64 = 100 << 20;

/// How transactions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionOptions {
    /// How long a transaction may be open before it is aborted and its producer fenced off: it keeps readers
    /// of committed records from everything behind it. Kafka's `transaction.timeout.ms`. At most
    /// [`LogOptions::transaction_timeout_max`](crate::LogOptions::transaction_timeout_max), and not 0. None,
    /// which is not bounded, for a program that sees to that itself, as a processor does with its epochs.
    pub timeout: Option<Duration>,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { timeout: Some(Duration::from_secs(60)) }
    }
}

/// Writes transactions under a transactional id, one after the other. Threads share it: each appends
/// while the others do, and only those that write to the same partition take turns.
///
/// The next producer that takes the id fences this one off. Dropped with a transaction open, it aborts.
pub struct TransactionalProducer {
    log: Log,
    pub(super) session: Arc<Session>,
}

impl TransactionalProducer {
    pub(crate) fn open(log: &Log, id: &str, options: TransactionOptions) -> Result<Self> {
        if !(1..=TRANSACTIONAL_ID_BYTES_MAX).contains(&id.len()) {
            let length = id.len();
            let what =
                format!("a transactional id has 1 to {TRANSACTIONAL_ID_BYTES_MAX} bytes, not {length}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let coordinator = log.coordinator();
        coordinator.set_home(home(log)?);
        let session = coordinator.initialise(id, options.timeout, || log.next_producer_id())?;
        Ok(Self { log: log.clone(), session })
    }

    /// The transactional id.
    pub fn transactional_id(&self) -> &str {
        self.session.id()
    }

    /// Begins a transaction. Nothing is written for one that writes nothing.
    ///
    /// # Errors
    /// `TransactionState` while one is open or ending; `Fenced`; `Poisoned` if an outcome is unknown
    /// until the log is opened again; those of taking a new producer id, once in 32,767 transactions.
    pub fn begin(&self) -> Result<()> {
        if self.session.needs_producer_id() {
            self.session.set_producer_id(self.log.next_producer_id()?);
        }
        let clock = self.log.clock();
        self.session.begin(clock.now(), clock.elapsed())
    }

    /// Whether a transaction is open.
    pub fn is_open(&self) -> bool {
        self.session.is_open()
    }

    /// Appends a batch to the open transaction; returns the offset of its first record.
    ///
    /// # Errors
    /// `TransactionState` if none is open, `Fenced`, and those of [`Partition::append`], after which the
    /// transaction can only be aborted: it takes nothing more, and answers `TransactionState`.
    pub fn append(&self, partition: &Arc<Partition>, batch: SealedBatch) -> Result<Offset> {
        let flush = |partition: &Arc<Partition>| {
            self.log.flush(std::slice::from_ref(partition), SyncPurpose::Records)
        };
        self.session.append(partition, batch, flush)
    }

    /// Commits offsets of a consumer group with the open transaction: these are the next ones to be read
    /// once it is committed, and nothing has happened if it is aborted. What lies below them is made
    /// durable with the transaction's records.
    ///
    /// `group` is [`Consumer::group_metadata`](crate::Consumer::group_metadata): a consumer that is no
    /// member any more, or has not taken part in the last rebalance, commits nothing (KIP-447).
    ///
    /// # Errors
    /// After any of these the transaction can only be aborted.
    ///
    /// `Fenced` if the group's partitions were shared out anew since: abort the transaction, and read
    /// again from what was committed. `Retry` if that is under way: abort it, poll, and do it again.
    /// `NotFound` for a partition that is not there; `Invalid` for a negative offset or metadata that is too long; those of
    /// [`Self::append`].
    pub fn send_offsets_to_transaction(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &ConsumerGroupMetadata,
    ) -> Result<()> {
        self.session.check_open()?;
        if offsets.is_empty() {
            return Ok(());
        }
        let mut consumed = Vec::with_capacity(offsets.len());
        let mut commits = Vec::with_capacity(offsets.len());
        for (name, OffsetAndMetadata { offset, metadata }) in offsets {
            let partition = self.log.topic(&name.topic)?.partition(name.partition)?;
            commits.push(OffsetCommit {
                partition: name.clone(),
                topic_id: partition.topic_id(),
                offset: *offset,
                metadata: metadata.clone(),
            });
            consumed.push(partition);
        }
        self.session.note_consumed(consumed);
        let append = |home: &Arc<Partition>, batch| self.append(home, batch).map(drop);
        let coordinator = self.log.group_coordinator();
        let committed = coordinator.commit_in_transaction(&self.log, group, &commits, append);
        // Without its offsets the transaction would be done again by whoever reads on from the old ones.
        committed.inspect_err(|error| self.session.doom(error))
    }

    /// How far the open transaction has come in each partition it wrote to: the offset behind its last
    /// record, by topic and partition.
    pub fn ends(&self) -> Vec<(TopicPartition, TopicId, Offset)> {
        self.session.ends()
    }

    /// Commits the open transaction. `consumed` are the partitions that it read from: no more of them
    /// than is durable must count as read. The ticket completes when readers of committed records see
    /// it; the next transaction may begin then. If it completes with an error, the transaction
    ///
    /// - was not decided after `TransactionState` and errors of the disk: it is open, to be aborted;
    /// - is aborted after `Fenced`, which is also what one is answered that was open for too long;
    /// - has an unknown outcome after `Poisoned` and `Closed`, which opening the log again settles.
    pub fn commit(&self, consumed: &[Arc<Partition>]) -> CommitTicket {
        self.log.coordinator().end(&self.session, MarkerKind::Commit, consumed)
    }

    /// Aborts the open transaction and waits until readers have it out of their way.
    ///
    /// # Errors
    /// `TransactionState` if none is open, `Fenced`, `Poisoned`.
    pub fn abort(&self) -> Result<()> {
        self.begin_abort().wait()
    }

    /// Aborts the open transaction. The ticket completes when the next one may begin.
    pub fn begin_abort(&self) -> CommitTicket {
        self.log.coordinator().end(&self.session, MarkerKind::Abort, &[])
    }
}

impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        if self.session.is_open() {
            // Nobody is left to hear how it ends; recovery sees to it if it does not.
            drop(self.begin_abort());
        }
    }
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionalProducer").field("id", &self.session.id()).finish_non_exhaustive()
    }
}

/// The partition of `__transaction_state`, which is made with the first transactional id.
fn home(log: &Log) -> Result<Arc<Partition>> {
    let made = match log.topic(TRANSACTION_TOPIC) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            log.create_internal_topic(TRANSACTION_TOPIC, TopicConfig::internal(SEGMENT_BYTES))
        }
        found => found,
    };
    let topic = match made {
        // Somebody else was first.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => log.topic(TRANSACTION_TOPIC),
        made => made,
    };
    topic?.partition(PartitionId(0))
}
