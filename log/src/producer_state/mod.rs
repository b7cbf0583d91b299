//! What a partition knows of its producers: the last sequences of each, for idempotence, and which
//! transactions are open.
//!
//! It is a function of the batches in the log, in order, so recovery builds it again from a snapshot
//! and the batches behind it. Before an append the writer asks [`ProducerStates::check`]; after it, and
//! while recovering, every batch is absorbed without questions: the log is the truth.
//!
//! An epoch of a producer is in one of these states; a higher epoch starts over:
//!
//! ```text
//!             plain or idempotent batch
//!                  +------+
//!                  v      |
//!   (new epoch) -> quiet -+---- transactional batch ----> open --- marker ---> ended
//!                                                         ^  |
//!                                                         +--+ transactional batch
//! ```
//!
//! A marker ends the transaction of exactly its producer id and epoch, and an ended epoch takes no further
//! batch, a repeated one neither (KIP-890: every transaction takes the next epoch). Nor is there a
//! transactional batch of a transaction that nobody would end (KIP-890 too): see [`Registration`].

#[cfg(test)]
mod model;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use crate::batch::{BatchHeader, ControlRecord, MarkerKind};
use crate::index::AbortedTransaction;
use crate::record::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// How many of a producer's last batches are remembered; a repeated one is answered with its offset.
/// Kafka's number, and so the most batches a producer may have in flight.
const BATCHES_MAX: usize = 5;

/// How many producers without an open transaction are remembered. Beyond it, those that wrote longest
/// ago are forgotten, a quarter at a time; a forgotten one may go on with any sequence.
const PRODUCERS_MAX: usize = 4096;

/// The coordinator epoch of a producer epoch that no marker has ended.
const NOT_ENDED: i32 = -1;

/// A transaction that has begun in a partition and has no marker there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenTransaction {
    /// Whose transaction it is.
    pub producer_id: ProducerId,
    /// Which one of that producer.
    pub producer_epoch: ProducerEpoch,
    /// The offset of its first record in the partition.
    pub first_offset: Offset,
}

/// What is to be done with a batch that a producer wants appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new: append it.
    Append,
    /// It was appended before.
    Duplicate {
        /// The offset of its first record.
        base_offset: Offset,
        /// The offset of its last record.
        last_offset: Offset,
    },
}

/// Who knows of the transaction that a batch is said to belong to, and so writes its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    /// The coordinator does: the partition is one of the transaction's.
    Coordinator,
    /// Nobody but what is in the partition already says so.
    Partition,
}

/// Why a batch is not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A newer epoch of the producer has written here, or its marker has ended this one.
    Fenced { current: ProducerEpoch },
    /// Batches between the last one and this one are missing.
    OutOfOrder { expected: Sequence },
    /// A transaction of an earlier epoch of the producer is open here still.
    TransactionOpen { epoch: ProducerEpoch },
    /// The batch is plain while its producer has a transaction open.
    NotTransactional,
    /// The transaction that the batch is said to belong to is not open here.
    NotRegistered,
}

/// What a producer wrote last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastWritten {
    /// The last offset of its newest batch in this epoch; none if there is only a marker.
    pub(crate) last_offset: Option<Offset>,
    /// Its epoch.
    pub(crate) epoch: ProducerEpoch,
    /// Where it was last heard of.
    pub(crate) seen: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WrittenBatch {
    base_sequence: Sequence,
    last_sequence: Sequence,
    base_offset: Offset,
    last_offset: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    /// The last batches of this epoch, the newest last.
    batches: VecDeque<WrittenBatch>,
    /// The largest timestamp of the newest batch or marker.
    timestamp: Timestamp,
    /// The epoch of the coordinator that ended the transaction of this epoch, or [`NOT_ENDED`].
    coordinator_epoch: i32,
    /// Where the open transaction begins.
    transaction: Option<Offset>,
    /// Where the producer was last heard of.
    seen: Offset,
}

impl Producer {
    fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            batches: VecDeque::with_capacity(BATCHES_MAX),
            timestamp: Timestamp(-1),
            coordinator_epoch: NOT_ENDED,
            transaction: None,
            seen: Offset(0),
        }
    }

    /// Whether nothing of this epoch is taken any more.
    fn fences(&self, epoch: ProducerEpoch) -> bool {
        let is_ended = self.coordinator_epoch != NOT_ENDED;
        epoch < self.epoch || epoch == self.epoch && is_ended
    }

    /// Whether the batch repeats sequences of this epoch: who wrote it in had forgotten the producer, and what it had
    /// written before is repeated no more. (Where sequences are left out, compaction may have taken them.)
    fn starts_over(&self, header: &BatchHeader) -> bool {
        self.batches.back().is_some_and(|last| header.base_sequence.is_before(last.last_sequence.plus(1)))
    }

    fn duplicate_of(&self, header: &BatchHeader) -> Option<&WrittenBatch> {
        self.batches.iter().find(|batch| {
            batch.base_sequence == header.base_sequence && batch.last_sequence == header.last_sequence()
        })
    }
}

/// The producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProducerStates {
    producers: HashMap<ProducerId, Producer>,
    /// The open transactions by their first offset.
    open: BTreeMap<Offset, ProducerId>,
}

impl ProducerStates {
    /// Says what is to be done with a batch whose producer wants it appended.
    pub(crate) fn check(&self, header: &BatchHeader, registration: Registration) -> Result<Verdict, Refusal> {
        if header.producer_id == ProducerId::NONE {
            return Ok(Verdict::Append);
        }
        let producer = self.producers.get(&header.producer_id);
        if let Some(producer) = producer
            && producer.fences(header.producer_epoch)
        {
            return Err(Refusal::Fenced { current: producer.epoch });
        }
        if header.is_transactional
            && registration == Registration::Partition
            && !self.is_open(header.producer_id, header.producer_epoch)
        {
            return Err(Refusal::NotRegistered);
        }
        match producer {
            None => Ok(Verdict::Append),
            Some(producer) if header.producer_epoch > producer.epoch => check_new_epoch(producer, header),
            Some(producer) => check_next(producer, header),
        }
    }

    /// Takes note of a batch of records that is in the log.
    pub(crate) fn absorb_batch(&mut self, header: &BatchHeader) {
        if header.producer_id == ProducerId::NONE {
            return;
        }
        let producer = self.enter(header);
        if header.is_idempotent() {
            if producer.starts_over(header) {
                producer.batches.clear();
            }
            if producer.batches.len() == BATCHES_MAX {
                producer.batches.pop_front();
            }
            producer.batches.push_back(WrittenBatch {
                base_sequence: header.base_sequence,
                last_sequence: header.last_sequence(),
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
            });
        }
        if header.is_transactional && producer.transaction.is_none() {
            producer.transaction = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
        }
        self.forget_oldest();
    }

    /// Takes note of a marker that is in the log. Returns the transaction if it was aborted.
    pub(crate) fn absorb_marker(
        &mut self,
        header: &BatchHeader,
        control: ControlRecord,
    ) -> Option<AbortedTransaction> {
        let producer = self.enter(header);
        producer.coordinator_epoch = control.coordinator_epoch;
        let first_offset = producer.transaction.take()?;
        self.open.remove(&first_offset);
        let last_offset = header.last_offset();
        (control.kind == MarkerKind::Abort).then(|| AbortedTransaction {
            producer_id: header.producer_id,
            first_offset,
            last_offset,
            last_stable_offset: self.first_unstable().unwrap_or(last_offset.next()),
        })
    }

    /// Whether this producer has a transaction of exactly this epoch open.
    pub(crate) fn is_open(&self, id: ProducerId, epoch: ProducerEpoch) -> bool {
        self.producers
            .get(&id)
            .is_some_and(|producer| producer.epoch == epoch && producer.transaction.is_some())
    }

    /// The offset of the first record whose transaction is open.
    pub(crate) fn first_unstable(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(offset, _)| *offset)
    }

    /// The open transactions, in the order in which they began.
    pub(crate) fn open_transactions(&self) -> Vec<OpenTransaction> {
        let open = self.open.iter();
        open.map(|(&first_offset, &producer_id)| OpenTransaction {
            producer_id,
            producer_epoch: self.producers[&producer_id].epoch,
            first_offset,
        })
        .collect()
    }

    /// What each producer wrote last.
    pub(crate) fn last_written(&self) -> HashMap<ProducerId, LastWritten> {
        let last = |producer: &Producer| LastWritten {
            last_offset: producer.batches.back().map(|batch| batch.last_offset),
            epoch: producer.epoch,
            seen: producer.seen,
        };
        self.producers.iter().map(|(id, producer)| (*id, last(producer))).collect()
    }

    /// The producer of a batch in the log, at the batch's epoch.
    fn enter(&mut self, header: &BatchHeader) -> &mut Producer {
        let epoch = header.producer_epoch;
        let producer = self.producers.entry(header.producer_id).or_insert_with(|| Producer::new(epoch));
        if epoch > producer.epoch {
            // A log that Kafka wrote may end a transaction with a marker of the next epoch.
            let transaction = producer.transaction;
            *producer = Producer { transaction, ..Producer::new(epoch) };
        }
        producer.timestamp = header.max_timestamp;
        producer.seen = header.last_offset();
        producer
    }

    /// Forgets the producers whose last batch or marker is not of after `horizon`, by its timestamp, and that
    /// have no transaction open. One that comes back is one that nobody has heard of: it may go on with any
    /// sequence, and what it repeats is not noticed. As Kafka's `ProducerStateManager` does.
    pub(crate) fn expire(&mut self, horizon: Timestamp) {
        self.producers.retain(|_, producer| producer.transaction.is_some() || producer.timestamp > horizon);
    }

    fn forget_oldest(&mut self) {
        if self.producers.len() - self.open.len() <= PRODUCERS_MAX {
            return;
        }
        let idle = self.producers.iter().filter(|(_, producer)| producer.transaction.is_none());
        let mut idle: Vec<_> = idle.map(|(id, producer)| (producer.seen, *id)).collect();
        idle.sort_unstable();
        for (_, id) in idle.into_iter().take(PRODUCERS_MAX / 4) {
            self.producers.remove(&id);
        }
    }
}

fn check_new_epoch(producer: &Producer, header: &BatchHeader) -> Result<Verdict, Refusal> {
    if producer.transaction.is_some() {
        Err(Refusal::TransactionOpen { epoch: producer.epoch })
    } else if header.is_idempotent() && header.base_sequence != Sequence(0) {
        Err(Refusal::OutOfOrder { expected: Sequence(0) })
    } else {
        Ok(Verdict::Append)
    }
}

fn check_next(producer: &Producer, header: &BatchHeader) -> Result<Verdict, Refusal> {
    if header.is_idempotent()
        && let Some(batch) = producer.duplicate_of(header)
    {
        let &WrittenBatch { base_offset, last_offset, .. } = batch;
        return Ok(Verdict::Duplicate { base_offset, last_offset });
    }
    if !header.is_transactional && producer.transaction.is_some() {
        return Err(Refusal::NotTransactional);
    }
    let expected = producer.batches.back().map(|batch| batch.last_sequence.plus(1));
    match expected {
        Some(expected) if header.base_sequence != expected => Err(Refusal::OutOfOrder { expected }),
        _ => Ok(Verdict::Append),
    }
}
