//! Going back to the last cut: which batches are not believed after a power cut, though they can be read.

use std::collections::HashSet;

use super::stands_on_others;
use crate::batch::{DecompressionBuffer, RecordBatch};
use crate::record::TopicPartition;
use crate::transaction::{TRANSACTION_TOPIC, decides_unsynced};

/// What stands on records in other partitions that a power cut may have taken.
#[derive(Debug)]
pub(crate) struct Retreat {
    /// The topics of which nothing was acknowledged before it was synced, among those that there are. A
    /// decision may be about others, and says for itself whether it was synced.
    synced: HashSet<String>,
    may_be_read: bool,
}

impl Retreat {
    /// `may_be_read`: whether others may have read beside the writer what is given up.
    pub(crate) fn new(synced: HashSet<String>, may_be_read: bool) -> Self {
        Self { synced, may_be_read }
    }

    pub(crate) fn may_be_read(&self) -> bool {
        self.may_be_read
    }

    /// Whether a batch behind the recovery point says how a transaction ended which nobody had synced, or
    /// what a group has read: the log of `partition` ends before the first that does. An aborted transaction
    /// counts too: without its marker it is open, and recovery sees to it that its epoch is not used again.
    pub(crate) fn is_beyond(&self, partition: &TopicPartition, batch: &RecordBatch<'_>) -> bool {
        if partition.topic == TRANSACTION_TOPIC {
            return holds_unsynced_decision(batch).unwrap_or(false);
        }
        let is_tied = batch.header().is_control || stands_on_others(&partition.topic);
        is_tied && !self.synced.contains(&partition.topic)
    }
}

/// Whether one of the records decides what nobody had synced. Bytes that are no records are refused by
/// whoever reads the table.
fn holds_unsynced_decision(batch: &RecordBatch<'_>) -> Option<bool> {
    let mut scratch = DecompressionBuffer::new();
    for record in batch.records(&mut scratch).ok()? {
        if decides_unsynced(&record.ok()?) {
            return Some(true);
        }
    }
    Some(false)
}
