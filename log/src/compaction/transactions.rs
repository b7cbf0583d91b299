//! Which batches belong to aborted transactions, and which markers end a transaction of which nothing is
//! left. From the source, Kafka's `CleanedTransactionMetadata`.

use std::collections::HashSet;

use hashbrown::HashMap;

use crate::batch::BatchHeader;
use crate::index::AbortedTransaction;
use crate::record::ProducerId;

/// What is known of the transactions while batches are read in order. All transactions that it meets are
/// decided: compaction ends at the last stable offset.
#[derive(Default)]
pub(super) struct DecidedTransactions {
    /// Those that were aborted and have records in the segment that is read, by producer.
    aborted: HashMap<ProducerId, Vec<AbortedTransaction>>,
    /// Producers of which a batch was met since their last marker.
    has_batches: HashSet<ProducerId>,
}

/// What a marker's transaction left behind.
pub(super) enum Ended {
    /// Nothing: the marker may go, once its horizon has passed.
    Empty,
    /// Batches, if only empty ones. Of an aborted transaction the index has to say so.
    Batches(Option<AbortedTransaction>),
}

impl DecidedTransactions {
    /// Says which aborted transactions the next segment has records or markers of.
    pub(super) fn enter_segment(&mut self, aborted: Vec<AbortedTransaction>) {
        self.aborted.clear();
        for aborted in aborted {
            self.aborted.entry(aborted.producer_id).or_default().push(aborted);
        }
    }

    /// A batch of records was met. Says whether its records are of an aborted transaction.
    pub(super) fn meet_batch(&mut self, header: &BatchHeader) -> bool {
        if !header.is_transactional {
            return false;
        }
        self.has_batches.insert(header.producer_id);
        self.find(header).is_some()
    }

    /// Whether a batch of records is of an aborted transaction.
    pub(super) fn is_aborted(&self, header: &BatchHeader) -> bool {
        header.is_transactional && self.find(header).is_some()
    }

    /// A marker was met.
    pub(super) fn meet_marker(&mut self, header: &BatchHeader) -> Ended {
        if self.has_batches.remove(&header.producer_id) {
            Ended::Batches(self.find(header))
        } else {
            Ended::Empty
        }
    }

    /// A producer has one transaction at a time, so that its batches are judged by their offsets.
    fn find(&self, header: &BatchHeader) -> Option<AbortedTransaction> {
        let aborted = self.aborted.get(&header.producer_id)?.iter();
        let offset = header.base_offset;
        aborted.copied().find(|aborted| (aborted.first_offset..=aborted.last_offset).contains(&offset))
    }
}
