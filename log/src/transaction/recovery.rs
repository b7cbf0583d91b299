//! After a crash: what was decided is finished, what was not is aborted.
//!
//! 1. The markers of decided transactions that are open in a partition are written again, and synced:
//!    only then may the table say anything newer of their ids.
//! 2. The table says that they are complete, and which transactions are aborted; that is synced, so that
//!    their epochs are never used again.
//! 3. The abort markers are written and synced, and the table says that these are complete too.
//!
//! A crash in between leaves a log that recovers to the same: what was found is a consistent cut that is written
//! down, and so are the markers that nobody syncs otherwise, before the table says anything newer.
//!
//! In a partition that was cut off (`log/repair`) a transaction may have to end otherwise than was decided, or
//! as was decided so long ago that the table says something newer of its id.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::coordinator::Coordinator;
use super::ending::append_marker;
use super::record::{Status, TransactionRecord};
use super::session::{NO_TIMEOUT_MS, ProducerIdentity};
use super::snapshot::TableSnapshot;
use super::table::{Table, TableUpdate};
use crate::batch::MarkerKind;
use crate::error::Result;
use crate::flusher::FlushTarget;
use crate::partition::Partition;
use crate::producer_state::OpenTransaction;
use crate::record::{ProducerEpoch, ProducerId, Timestamp, TopicPartition};
use crate::storage::{Storage, SyncPurpose, SyncReason};

/// How transactions end in a partition that was cut off, whatever the table says.
pub(crate) type Endings = BTreeMap<(ProducerId, ProducerEpoch), MarkerKind>;

/// A transaction that was found open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The partition's place in the list that was looked through.
    pub(super) partition: usize,
    pub(super) transaction: OpenTransaction,
    /// How it ends, whatever the table says.
    pub(super) ending: Option<MarkerKind>,
}

/// A marker that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The partition's place in the list that was looked through.
    pub(super) partition: usize,
    pub(super) kind: MarkerKind,
    pub(super) producer: ProducerIdentity,
}

/// What is to be done about the transactions that were found open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resolution {
    /// Markers that say what the table has decided, or had.
    pub(super) decided: Vec<Mark>,
    /// Markers that abort the rest.
    pub(super) undecided: Vec<Mark>,
    /// For each transactional id that has undecided ones: the newest, and where it is open. There are several
    /// where a power cut has taken markers that nobody had synced.
    pub(super) aborts: BTreeMap<String, (ProducerIdentity, Vec<usize>)>,
}

/// Decides about what was found open.
pub(super) fn resolve(table: &Table, open: &[Found]) -> Resolution {
    let mut resolution = Resolution::default();
    for Found { partition, transaction, ending } in open {
        let producer = ProducerIdentity { id: transaction.producer_id, epoch: transaction.producer_epoch };
        let mark = |kind| Mark { partition: *partition, kind, producer };
        let known = table.find(producer.id);
        // What was committed had been decided, be it forgotten by now; what is to be aborted may never have
        // been, and its epoch is in use all the same.
        let decided = known.and_then(|(_, record)| record.decision_on(producer));
        match decided.or(ending.filter(|kind| *kind == MarkerKind::Commit)) {
            Some(kind) => resolution.decided.push(mark(ending.unwrap_or(kind))),
            None => {
                resolution.undecided.push(mark(MarkerKind::Abort));
                if let Some((id, _)) = known.filter(|(_, record)| record.producer_epoch <= producer.epoch) {
                    let (newest, partitions) =
                        resolution.aborts.entry(id.to_owned()).or_insert((producer, Vec::new()));
                    if newest.epoch < producer.epoch {
                        (*newest, *partitions) = (producer, Vec::new());
                    }
                    if *newest == producer {
                        partitions.push(*partition);
                    }
                }
            }
        }
    }
    resolution
}

impl TransactionRecord {
    pub(super) fn producer(&self) -> ProducerIdentity {
        ProducerIdentity { id: self.producer_id, epoch: self.producer_epoch }
    }

    /// How a transaction ended, if this is its record.
    fn decision_on(&self, producer: ProducerIdentity) -> Option<MarkerKind> {
        if self.producer() != producer {
            return None;
        }
        match self.status {
            Status::PrepareCommit | Status::CompleteCommit => Some(MarkerKind::Commit),
            Status::PrepareAbort | Status::CompleteAbort => Some(MarkerKind::Abort),
            _ => None,
        }
    }
}

impl Coordinator {
    /// Reads the table and ends every transaction that is open in one of `partitions`, those of partitions
    /// that were `cut` off as is said there. They have been recovered, and nobody else reads or writes them
    /// yet.
    ///
    /// # Errors
    /// `Corrupt` for a table that cannot be read, and those of the operating system.
    pub(crate) fn recover(
        &self,
        home: Option<Arc<Partition>>,
        partitions: &[Arc<Partition>],
        cut: &BTreeMap<TopicPartition, Endings>,
        storage: &dyn Storage,
        directory: &Path,
    ) -> Result<()> {
        if let Some(home) = home {
            let written = TableSnapshot::read(storage, directory)?;
            let is_unfit = |snapshot: &TableSnapshot| !snapshot.is_of(home.topic_id(), &home.offsets());
            let snapshot = if written.as_ref().is_some_and(is_unfit) {
                TableSnapshot::remove(storage, directory)?;
                None
            } else {
                written
            };
            let (table, records) = Table::read(&home, snapshot)?;
            let mut state = self.state.lock();
            state.snapshots.count(records);
            state.table = table;
            state.home = Some(home);
        }
        let open = partitions.iter().enumerate().map(|(place, partition)| open_in(place, partition, cut));
        let open: Vec<_> = open.flatten().collect();
        let (resolution, completed, aborts) = {
            let table = &self.state.lock().table;
            let resolution = resolve(table, &open);
            let aborts = aborts(table, &resolution, partitions, self.now());
            (resolution, complete(table, self.now()), aborts)
        };
        self.write_markers(&resolution.decided, partitions)?;
        let aborted: Vec<_> = aborts.iter().filter_map(|update| update.complete(self.now())).collect();
        self.write_all(completed.into_iter().chain(aborts).collect())?;
        self.write_markers(&resolution.undecided, partitions)?;
        self.write_all(aborted)
    }

    fn write_all(&self, updates: Vec<TableUpdate>) -> Result<()> {
        if updates.is_empty() { Ok(()) } else { self.write_table(updates) }
    }

    /// Writes markers and makes them durable.
    fn write_markers(&self, marks: &[Mark], partitions: &[Arc<Partition>]) -> Result<()> {
        let mut targets = Vec::with_capacity(marks.len());
        for Mark { partition, kind, producer } in marks {
            let partition = &partitions[*partition];
            append_marker(partition, *kind, *producer)?;
            let ProducerIdentity { id, epoch } = producer;
            tracing::info!(partition = %partition.name(), %id, %epoch, ?kind, "a transaction was ended by recovery");
            targets.push(FlushTarget {
                target: partition.clone(),
                reason: SyncReason::of(SyncPurpose::Markers),
            });
        }
        self.flusher.request(targets).wait()
    }
}

/// The transactions that are open in the partition of this place.
fn open_in(place: usize, partition: &Partition, cut: &BTreeMap<TopicPartition, Endings>) -> Vec<Found> {
    let endings = cut.get(partition.name());
    let ending = |open: &OpenTransaction| {
        endings.and_then(|endings| endings.get(&(open.producer_id, open.producer_epoch)).copied())
    };
    let found = |transaction| Found { partition: place, ending: ending(&transaction), transaction };
    partition.open_transactions().into_iter().map(found).collect()
}

/// The decided transactions, as they are once their markers are durable.
fn complete(table: &Table, now: Timestamp) -> Vec<TableUpdate> {
    let update =
        |(id, record): (&String, &TransactionRecord)| Some(TableUpdate::new(id, record.complete(now)?));
    table.entries.iter().filter_map(update).collect()
}

fn aborts(
    table: &Table,
    resolution: &Resolution,
    partitions: &[Arc<Partition>],
    now: Timestamp,
) -> Vec<TableUpdate> {
    let update = |(id, (producer, places)): (&String, &(ProducerIdentity, Vec<usize>))| {
        let record = TransactionRecord {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            status: Status::PrepareAbort,
            timeout_ms: table.entries.get(id).map_or(NO_TIMEOUT_MS, |known| known.timeout_ms),
            partitions: places.iter().map(|place| partitions[*place].name().clone()).collect(),
            updated: now,
            started: now,
        };
        TableUpdate::new(id, record)
    };
    resolution.aborts.iter().map(update).collect()
}

impl TableUpdate {
    fn complete(&self, now: Timestamp) -> Option<Self> {
        Some(Self::new(&self.id, self.record.complete(now)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Offset;

    #[test]
    fn of_several_open_transactions_of_an_id_the_newest_bounds_the_epochs_in_use() {
        let record = TransactionRecord {
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(1),
            timeout_ms: 60_000,
            status: Status::CompleteCommit,
            partitions: Vec::new(),
            updated: Timestamp(0),
            started: Timestamp(0),
        };
        let table = Table { entries: BTreeMap::from([("id".to_owned(), record)]) };
        let open = |partition, epoch| {
            let transaction = OpenTransaction {
                producer_id: ProducerId(7),
                producer_epoch: ProducerEpoch(epoch),
                first_offset: Offset(0),
            };
            Found { partition, transaction, ending: None }
        };
        for found in [[open(0, 2), open(1, 3), open(2, 3)], [open(1, 3), open(2, 3), open(0, 2)]] {
            let resolution = resolve(&table, &found);
            let newest = ProducerIdentity { id: ProducerId(7), epoch: ProducerEpoch(3) };
            assert_eq!(resolution.aborts, BTreeMap::from([("id".to_owned(), (newest, vec![1, 2]))]));
            assert_eq!(resolution.undecided.len(), 3);
        }
    }
}
