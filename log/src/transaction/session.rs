//! A transactional id in use: what its producer may do, and what its open transaction has written.
//!
//! ```text
//!   Idle --begin--> Open --commit, abort--> Ending --marked--> Idle
//!                     ^                       |
//!                     +--- flush failed ------+---- outcome unknown ---> Failed
//!   Idle, Open, Ending --another producer takes the id--> Fenced
//!   Open --open for too long: the coordinator aborts it--> Overdue
//! ```
//!
//! Threads append under the shared lock; whoever ends the transaction takes it alone, and so knows that
//! nothing is appended after its markers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::early_sync::EarlySync;
use crate::batch::{MarkerKind, ProducerStamp, SealedBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::Flush;
use crate::partition::{Durability, Partition};
use crate::record::{
    Offset, PartitionKey, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId, TopicPartition,
};
use crate::ticket::FlushTicket;

/// The last epoch of a producer id. Kafka keeps the one after it for fencing.
pub(super) const EPOCH_LAST: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

/// What the table says of an id whose transactions may be open for ever.
pub(super) const NO_TIMEOUT_MS: i32 = i32::MAX;

pub(super) struct Session {
    id: String,
    epoch_last: ProducerEpoch,
    /// How long a transaction may be open.
    timeout: Option<Duration>,
    gate: RwLock<Gate>,
}

struct Gate {
    life: Life,
    /// What the next transaction is stamped with; `None` when the epochs are used up.
    next: Option<ProducerIdentity>,
}

/// Names one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerIdentity {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
}

impl ProducerIdentity {
    /// The one for the next transaction of the same producer id.
    pub(super) fn next(self, last: ProducerEpoch) -> Option<Self> {
        (self.epoch < last).then(|| Self { epoch: ProducerEpoch(self.epoch.0 + 1), ..self })
    }
}

enum Life {
    Idle,
    Open(OpenTransaction),
    Ending,
    Fenced,
    /// The last transaction was open for too long, and is aborted or being aborted.
    Overdue,
    Failed(Error),
}

/// What a transaction has written so far.
pub(super) struct OpenTransaction {
    pub(super) producer: ProducerIdentity,
    pub(super) started: Timestamp,
    /// The same, on the clock's elapsed time.
    begun: Duration,
    written: HashMap<PartitionKey, Written>,
    /// What it has committed offsets of: no more than is durable must count as read.
    consumed: Mutex<Vec<Arc<Partition>>>,
    /// The first append that failed: what was to be written is not complete.
    broken: OnceLock<Error>,
}

struct Written {
    partition: Arc<Partition>,
    /// Held while appending, so that sequences follow each other in the partition.
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    next_sequence: Sequence,
    /// Behind the last record of the transaction.
    end: Option<Offset>,
    early_sync: EarlySync,
}

/// What a session was in the middle of when another producer took its id.
pub(super) enum Fenced {
    Nothing,
    Open(OpenTransaction),
    /// The coordinator is ending it.
    Ending,
}

impl Session {
    pub(super) fn new(
        id: &str,
        next: ProducerIdentity,
        epoch_last: ProducerEpoch,
        timeout: Option<Duration>,
    ) -> Arc<Self> {
        let gate = RwLock::new(Gate { life: Life::Idle, next: Some(next) });
        Arc::new(Self { id: id.to_owned(), epoch_last, timeout, gate })
    }

    /// How long a transaction may be open, as the table says it.
    pub(super) fn timeout_ms(&self) -> i32 {
        let milliseconds = self.timeout.map(|timeout| i32::try_from(timeout.as_millis()));
        milliseconds.and_then(Result::ok).unwrap_or(NO_TIMEOUT_MS)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the next transaction needs a new producer id.
    pub(super) fn needs_producer_id(&self) -> bool {
        self.gate.read().next.is_none()
    }

    pub(super) fn set_producer_id(&self, id: ProducerId) {
        self.gate.write().next.get_or_insert(ProducerIdentity { id, epoch: ProducerEpoch(0) });
    }

    pub(super) fn begin(&self, now: Timestamp, elapsed: Duration) -> Result<()> {
        let mut gate = self.gate.write();
        match &gate.life {
            Life::Idle => {}
            Life::Open(_) => return Err(self.wrong_state("a transaction is open already")),
            other => return Err(self.refusal(other)),
        }
        let producer = gate.next.ok_or_else(|| self.wrong_state("the producer id is used up"))?;
        let (written, consumed, broken) = (HashMap::new(), Mutex::default(), OnceLock::new());
        let (started, begun) = (now, elapsed);
        gate.life = Life::Open(OpenTransaction { producer, started, begun, written, consumed, broken });
        Ok(())
    }

    /// Appends to the open transaction. Threads hinder each other only on the same partition. `flush` asks for
    /// what is in a partition to be synced.
    pub(super) fn append(
        &self,
        partition: &Arc<Partition>,
        batch: SealedBatch,
        flush: impl FnOnce(&Arc<Partition>) -> FlushTicket,
    ) -> Result<Offset> {
        let key = partition.key();
        loop {
            let gate = self.gate.read();
            let Life::Open(open) = &gate.life else { return Err(self.refusal(&gate.life)) };
            if let Some(cause) = open.broken.get() {
                return Err(self.broken(cause));
            }
            if let Some(written) = open.written.get(&key) {
                let appended = written.append(open.producer, batch, flush);
                return appended.inspect_err(|error| {
                    open.broken.get_or_init(|| error.clone());
                });
            }
            drop(gate);
            if let Life::Open(open) = &mut self.gate.write().life {
                open.written.entry(key).or_insert_with(|| Written::new(partition.clone()));
            }
        }
    }

    /// Notes that the open transaction has committed offsets of these partitions.
    pub(super) fn note_consumed(&self, partitions: impl IntoIterator<Item = Arc<Partition>>) {
        if let Life::Open(open) = &self.gate.read().life {
            let mut consumed = open.consumed.lock();
            for partition in partitions {
                if !consumed.iter().any(|known| Arc::ptr_eq(known, &partition)) {
                    consumed.push(partition);
                }
            }
        }
    }

    /// # Errors
    /// Why nothing can be written, if no transaction is open.
    pub(super) fn check_open(&self) -> Result<()> {
        let gate = self.gate.read();
        if matches!(gate.life, Life::Open(_)) { Ok(()) } else { Err(self.refusal(&gate.life)) }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.gate.read().life, Life::Open(_))
    }

    pub(super) fn ends(&self) -> Vec<(TopicPartition, TopicId, Offset)> {
        let gate = self.gate.read();
        let Life::Open(open) = &gate.life else { return Vec::new() };
        let end = |written: &Written| {
            let end = written.progress.lock().end?;
            Some((written.partition.name().clone(), written.partition.topic_id(), end))
        };
        let mut ends: Vec<_> = open.written.values().filter_map(end).collect();
        ends.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        ends
    }

    /// The open transaction can only be aborted from now on.
    pub(super) fn doom(&self, cause: &Error) {
        if let Life::Open(open) = &self.gate.read().life {
            open.broken.get_or_init(|| cause.clone());
        }
    }

    /// Takes the open transaction to end it; `None` if it has written nothing. One of which an append has
    /// failed stays open: it can only be aborted.
    pub(super) fn take(&self, kind: MarkerKind) -> Result<Option<OpenTransaction>> {
        let mut gate = self.gate.write();
        let Life::Open(open) = &gate.life else { return Err(self.refusal(&gate.life)) };
        if kind == MarkerKind::Commit
            && let Some(cause) = open.broken.get()
        {
            return Err(self.broken(cause));
        }
        let is_empty = open.written.is_empty();
        let life = std::mem::replace(&mut gate.life, if is_empty { Life::Idle } else { Life::Ending });
        Ok(match life {
            Life::Open(open) if !is_empty => Some(open),
            _ => None,
        })
    }

    /// The transaction has ended: the next one takes the next epoch.
    pub(super) fn finish(&self, ended: ProducerIdentity) {
        let mut gate = self.gate.write();
        gate.next = ended.next(self.epoch_last);
        if matches!(gate.life, Life::Ending) {
            gate.life = Life::Idle;
        }
    }

    /// When the open transaction will have been open for too long.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.gate.read().life {
            // Nobody is held up by one that has written nothing.
            Life::Open(open) if !open.written.is_empty() => Some(open.begun.saturating_add(self.timeout?)),
            _ => None,
        }
    }

    /// Takes the open transaction to abort it, if it has been open for too long. The producer is fenced.
    pub(super) fn take_overdue(&self, elapsed: Duration) -> Option<OpenTransaction> {
        self.deadline().filter(|deadline| *deadline <= elapsed)?;
        let mut gate = self.gate.write();
        match std::mem::replace(&mut gate.life, Life::Overdue) {
            Life::Open(open) if !open.written.is_empty() => Some(open),
            // Somebody has ended it meanwhile.
            life => {
                gate.life = life;
                None
            }
        }
    }

    /// Its records could not be made durable and nothing was decided: it is open still, to be aborted.
    pub(super) fn reopen(&self, transaction: OpenTransaction, cause: &Error) {
        let mut gate = self.gate.write();
        if matches!(gate.life, Life::Ending) {
            transaction.broken.get_or_init(|| cause.clone());
            gate.life = Life::Open(transaction);
        }
    }

    /// Nothing more can be done before the log is opened again.
    pub(super) fn fail(&self, cause: &Error) {
        self.gate.write().life = Life::Failed(cause.clone());
    }

    /// Another producer takes the id.
    ///
    /// # Errors
    /// What failed, if the log has to be opened again first.
    pub(super) fn fence(&self) -> Result<Fenced> {
        let mut gate = self.gate.write();
        if let Life::Failed(error) = &gate.life {
            return Err(error.clone());
        }
        Ok(match std::mem::replace(&mut gate.life, Life::Fenced) {
            Life::Open(open) if !open.written.is_empty() => Fenced::Open(open),
            Life::Ending | Life::Overdue => Fenced::Ending,
            _ => Fenced::Nothing,
        })
    }

    fn refusal(&self, life: &Life) -> Error {
        match life {
            Life::Fenced => self.fenced(),
            Life::Overdue => self.overdue(),
            Life::Failed(error) => error.clone(),
            Life::Idle => self.wrong_state("no transaction is open"),
            Life::Ending => self.wrong_state("the transaction is ending"),
            Life::Open(_) => self.wrong_state("a transaction is open"),
        }
    }

    pub(super) fn fenced(&self) -> Error {
        let what = format!("transactional id {}: another producer has taken it over", self.id);
        Error::new(ErrorKind::Fenced, what)
    }

    fn broken(&self, cause: &Error) -> Error {
        let what = format!("transactional id {}: abort it, an append has failed", self.id);
        Error::caused(ErrorKind::TransactionState, what, cause.clone())
    }

    fn overdue(&self) -> Error {
        let (id, timeout) = (&self.id, self.timeout.unwrap_or_default());
        let what = format!(
            "transactional id {id}: its transaction was open for more than {timeout:?} and is aborted; take the id again"
        );
        Error::new(ErrorKind::Fenced, what)
    }

    fn wrong_state(&self, what: &str) -> Error {
        Error::new(ErrorKind::TransactionState, format!("transactional id {}: {what}", self.id))
    }
}

impl OpenTransaction {
    /// The partitions it has written to, or tried to.
    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.written.values().map(|written| written.partition.clone()).collect()
    }

    /// The partitions that it has committed offsets of.
    pub(super) fn consumed(&self) -> Vec<Arc<Partition>> {
        self.consumed.lock().clone()
    }
}

impl Written {
    fn new(partition: Arc<Partition>) -> Self {
        Self { partition, progress: Mutex::default() }
    }

    fn append(
        &self,
        producer: ProducerIdentity,
        mut batch: SealedBatch,
        flush: impl FnOnce(&Arc<Partition>) -> FlushTicket,
    ) -> Result<Offset> {
        let ProducerIdentity { id, epoch } = producer;
        let mut progress = self.progress.lock();
        let base_sequence = progress.next_sequence;
        batch.stamp(Some(ProducerStamp { id, epoch, base_sequence, transactional: true }));
        let (count, bytes) = (batch.record_count(), batch.len_bytes());
        let appended = self.partition.append_to_transaction(batch)?;
        progress.next_sequence = base_sequence.plus(count);
        progress.end = Some(appended.last_offset.next());
        // What is entangled is synced with everything that it stands on, which is not done early.
        let is_synced_alone = !self.partition.is_entangled();
        if is_synced_alone && self.partition.config().durability == Durability::Sync {
            progress.early_sync.note(bytes, || flush(&self.partition));
        }
        Ok(appended.base_offset)
    }
}
