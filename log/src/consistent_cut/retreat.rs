//! Going back to the last cut: which batches are not believed after a power cut, though they can be read.

use std::collections::HashSet;

use super::stands_on_others;
use crate::batch::{DecompressionBuffer, RecordBatch};
use crate::record::TopicPartition;
use crate::transaction::{TRANSACTION_TOPIC, TransactionRecord, TransactionStatus};

/// What stands on records in other partitions that a power cut may have taken.
#[derive(Debug)]
pub(crate) struct Retreat {
    /// The topics of which nothing was acknowledged, and no transaction decided, before it was synced.
    synced: HashSet<String>,
}

impl Retreat {
    pub(crate) fn new(synced: HashSet<String>) -> Self {
        Self { synced }
    }

    /// Whether a batch behind the recovery point says how a transaction ended which nobody had synced, or what a group
    /// has read: the log of `partition` ends before the first that does. An aborted transaction counts too: without its
    /// marker it is open, and recovery sees to it that its epoch is not used again.
    pub(crate) fn is_beyond(&self, partition: &TopicPartition, batch: &RecordBatch<'_>) -> bool {
        if partition.topic == TRANSACTION_TOPIC {
            return self.decides(batch).unwrap_or(false);
        }
        let is_tied = batch.header().is_control || stands_on_others(&partition.topic);
        is_tied && !self.synced.contains(&partition.topic)
    }

    /// Whether one of the records is such a decision. A record that is none of the table's is refused by whoever
    /// reads the table.
    fn decides(&self, batch: &RecordBatch<'_>) -> Option<bool> {
        let mut scratch = DecompressionBuffer::new();
        for record in batch.records(&mut scratch).ok()? {
            let decision = record.ok()?.value.and_then(TransactionRecord::decode);
            if decision.is_some_and(|decision| self.is_unsynced(&decision)) {
                return Some(true);
            }
        }
        Some(false)
    }

    fn is_unsynced(&self, decision: &TransactionRecord) -> bool {
        decision.status == TransactionStatus::PrepareCommit
            && decision.partitions.iter().all(|partition| !self.synced.contains(&partition.topic))
    }
}
