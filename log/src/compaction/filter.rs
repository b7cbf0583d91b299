//! What stays of a batch. From the source, Kafka's `Cleaner.cleanInto`.
//!
//! A record stays if it is the newest of its key as far as the map has seen, and all behind what the map
//! has seen stay. A record without a key does not: nobody could tell it from another. A tombstone goes
//! once the horizon of its batch has passed, but never at or behind the floor. Records of aborted
//! transactions go. A marker goes once no batch of its transaction is left and the horizon that it was
//! then given has passed.
//!
//! A batch stays, if only as an empty header, if it is the last one that its producer wrote, so that its
//! sequence is known after a restart; and so does the last one of the range, so that the end is known. Where a
//! power cut may still take what the producer wrote last, the last one of the range stays as well.

use hashbrown::HashMap;

use super::key_map::KeyMap;
use super::transactions::{DecidedTransactions, Ended};
use crate::batch::{BatchError, BatchHeader, BatchRewriter, RecordBatch, RecordView, Rewrite, Rewritten};
use crate::partition::replace::CleanedSegment;
use crate::producer_state::LastWritten;
use crate::record::{Offset, ProducerId, Timestamp};

/// What decides about records.
pub(super) struct Filter {
    pub(super) map: KeyMap,
    /// Up to where the map has seen every key.
    pub(super) map_end: Offset,
    /// The end of what may be rewritten.
    pub(super) range_end: Offset,
    pub(super) tombstone_floor: Option<Offset>,
    /// When it was begun.
    pub(super) now: Timestamp,
    /// The horizon that tombstones and markers are given.
    pub(super) horizon: Timestamp,
    /// What each producer wrote last.
    pub(super) last_written: HashMap<ProducerId, LastWritten>,
    /// Up to where a power cut takes nothing.
    pub(super) durable_end: Offset,
    /// Of producers that have written behind that: the last batch that was mapped.
    pub(super) last_mapped: HashMap<ProducerId, Offset>,
}

/// What is to become of a batch.
struct Verdict {
    /// None of its records stays.
    drops_all: bool,
    /// It is a marker of a transaction of which nothing is left.
    is_spent: bool,
}

impl Filter {
    /// Writes to `out` what stays of `batch`.
    pub(super) fn apply(
        &self,
        batch: &RecordBatch<'_>,
        transactions: &mut DecidedTransactions,
        rewriter: &mut BatchRewriter,
        out: &mut CleanedSegment,
    ) -> Result<Rewritten, BatchError> {
        let header = batch.header();
        let verdict = self.judge(batch, transactions, out);
        let stays_empty = self.is_last_of_producer(header) || header.next_offset() == self.range_end;
        if verdict.drops_all && !stays_empty {
            return Ok(Rewritten::Dropped);
        }
        let rewrite = Rewrite { stays_empty, wants_horizon: verdict.is_spent, horizon: self.horizon };
        let keeps =
            |record: &RecordView<'_>| !verdict.drops_all && (header.is_control || self.keeps(header, record));
        out.append_with(|bytes| rewriter.rewrite(batch, rewrite, keeps, bytes))
    }

    fn judge(
        &self,
        batch: &RecordBatch<'_>,
        transactions: &mut DecidedTransactions,
        out: &CleanedSegment,
    ) -> Verdict {
        let header = batch.header();
        if !header.is_control {
            return Verdict { drops_all: transactions.meet_batch(header), is_spent: false };
        }
        if header.record_count > 0 && batch.control().is_err() {
            // It ends no transaction, and what else it says is not known here.
            return Verdict { drops_all: false, is_spent: false };
        }
        // A marker that is an empty batch by now ends nothing.
        let ended = if header.record_count == 0 { Ended::Empty } else { transactions.meet_marker(header) };
        match ended {
            Ended::Empty => Verdict { drops_all: self.is_past_horizon(header), is_spent: true },
            Ended::Batches(aborted) => {
                aborted.into_iter().for_each(|aborted| out.note_aborted(aborted));
                Verdict { drops_all: false, is_spent: false }
            }
        }
    }

    fn keeps(&self, header: &BatchHeader, record: &RecordView<'_>) -> bool {
        if record.offset >= self.map_end {
            return true;
        }
        let Some(key) = record.key else { return false };
        let is_newest = self.map.get(key).is_none_or(|newest| record.offset >= newest);
        is_newest && (record.value.is_some() || !self.may_forget(header, record.offset))
    }

    /// Whether a tombstone may go.
    fn may_forget(&self, header: &BatchHeader, offset: Offset) -> bool {
        self.is_past_horizon(header) && self.tombstone_floor.is_none_or(|floor| offset < floor)
    }

    fn is_past_horizon(&self, header: &BatchHeader) -> bool {
        header.has_delete_horizon && header.base_timestamp <= self.now
    }

    /// Takes note of a batch of the range that is not clean.
    pub(super) fn note_mapped(&mut self, header: &BatchHeader) {
        if self.may_lose_last(header.producer_id) {
            self.last_mapped.insert(header.producer_id, header.last_offset());
        }
    }

    /// Whether a power cut may still take what the producer wrote last.
    fn may_lose_last(&self, producer: ProducerId) -> bool {
        self.last_written.get(&producer).is_some_and(|last| last.seen >= self.durable_end)
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        self.is_last_written(header) || self.is_last_in_range(header)
    }

    /// Whether it may be the last batch that a power cut leaves of its producer: of those that were not mapped,
    /// nobody knows.
    fn is_last_in_range(&self, header: &BatchHeader) -> bool {
        let last = || self.last_mapped.get(&header.producer_id);
        !header.is_control
            && self.may_lose_last(header.producer_id)
            && (header.next_offset() > self.map_end
                || last().is_none_or(|last| *last == header.last_offset()))
    }

    fn is_last_written(&self, header: &BatchHeader) -> bool {
        self.last_written.get(&header.producer_id).is_some_and(|last| match last.last_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control && header.producer_epoch == last.epoch,
        })
    }
}
