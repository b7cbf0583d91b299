//! A transaction on its way to its end, and one that has its markers.

use std::sync::Arc;

use super::record::{Status, TransactionRecord};
use super::session::{OpenTransaction, ProducerIdentity, Session};
use super::table::TableUpdate;
use crate::batch::MarkerKind;
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::Flush;
use crate::partition::{Durability, Partition};
use crate::record::{Offset, Timestamp};
use crate::ticket::{Completion, FlushTicket, Ticket};

/// The reign of the coordinator: embedded there is one only.
pub(super) const COORDINATOR_EPOCH: i32 = 0;

/// ```text
///   Flushing --records durable, decision appended--> Deciding --decision durable--> markers appended
/// ```
pub(super) enum Phase {
    Flushing(FlushTicket),
    Deciding(FlushTicket),
}

/// A transaction that is being ended.
pub(super) struct Ending {
    pub(super) session: Arc<Session>,
    pub(super) kind: MarkerKind,
    /// Here until it is decided: it may have to be aborted instead.
    pub(super) transaction: OpenTransaction,
    pub(super) partitions: Vec<Arc<Partition>>,
    /// Whether any of its partitions acknowledges only what is synced.
    pub(super) is_synced: bool,
    pub(super) phase: Phase,
    pub(super) ticket: Ticket,
    pub(super) completion: Completion,
}

/// Whether a transaction over these partitions is to survive a power cut: it is synced as a whole, or
/// not at all.
pub(super) fn is_synced(partitions: &[Arc<Partition>]) -> bool {
    partitions.iter().any(|partition| partition.config().durability == Durability::Sync)
}

impl Ending {
    pub(super) fn producer(&self) -> ProducerIdentity {
        self.transaction.producer
    }

    /// Whether it commits what a power cut may take. An abort stands on nothing.
    pub(super) fn commits_unsynced(&self) -> bool {
        self.kind == MarkerKind::Commit && !self.is_synced
    }

    /// The outcome of what it waits for, while it is flushing.
    pub(super) fn flushed(&self) -> Option<Result<()>> {
        match &self.phase {
            Phase::Flushing(ticket) => ticket.outcome(),
            Phase::Deciding(_) => None,
        }
    }

    /// The outcome of what it waits for, while its decision becomes durable.
    pub(super) fn decided(&self) -> Option<Result<()>> {
        match &self.phase {
            Phase::Flushing(_) => None,
            Phase::Deciding(ticket) => ticket.outcome(),
        }
    }

    /// The record that decides it.
    pub(super) fn decision(&self, now: Timestamp) -> TableUpdate {
        let status = match self.kind {
            MarkerKind::Commit => Status::PrepareCommit,
            MarkerKind::Abort => Status::PrepareAbort,
        };
        let record = TransactionRecord {
            producer_id: self.producer().id,
            producer_epoch: self.producer().epoch,
            status,
            timeout_ms: self.session.timeout_ms(),
            partitions: self.partitions.iter().map(|partition| partition.name().clone()).collect(),
            updated: now,
            started: self.transaction.started,
        };
        TableUpdate { id: self.session.id().to_owned(), record, is_unsynced: self.commits_unsynced() }
    }

    /// Appends the marker to every partition, whatever becomes of it in one of them.
    ///
    /// # Errors
    /// `Poisoned`, with the first failure: it is decided, and not seen everywhere before the log is
    /// opened again.
    pub(super) fn mark(&self) -> Result<Marked> {
        let mut failure = None;
        let mut markers = Vec::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            match append_marker(partition, self.kind, self.producer()) {
                Ok(offset) => markers.extend(offset.map(|offset| (partition.clone(), offset))),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        match failure {
            None => {
                let markers = if self.is_synced { markers } else { Vec::new() };
                let is_unsynced = self.commits_unsynced();
                Ok(Marked { id: self.session.id().to_owned(), markers, is_unsynced })
            }
            Some(error) => Err(unsettled(self.session.id(), "its markers could not all be written", error)),
        }
    }
}

/// The marker's offset; none if the partition has it already, or was deleted with its topic.
pub(super) fn append_marker(
    partition: &Partition,
    kind: MarkerKind,
    producer: ProducerIdentity,
) -> Result<Option<Offset>> {
    match partition.append_marker(kind, producer.id, producer.epoch, COORDINATOR_EPOCH) {
        Err(error) if error.kind() == ErrorKind::Closed => Ok(None),
        appended => appended,
    }
}

/// How a transaction ended cannot be told before the log is opened again.
pub(super) fn unsettled(id: &str, why: &str, cause: Error) -> Error {
    let what = format!("transactional id {id}: {why}; the log has to be opened again");
    Error::caused(ErrorKind::Poisoned, what, cause)
}

/// A transaction that has all its markers. Once they are durable it is complete.
pub(super) struct Marked {
    pub(super) id: String,
    pub(super) markers: Vec<(Arc<Partition>, Offset)>,
    /// Whether it is complete though a power cut may take its markers: then that it is goes with them.
    pub(super) is_unsynced: bool,
}

impl Marked {
    pub(super) fn is_durable(&self) -> bool {
        self.markers.iter().all(|(partition, offset)| partition.durable() > *offset)
    }
}
