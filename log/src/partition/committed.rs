//! The batches that a reader of committed records takes.

use crate::batch::{BatchError, BatchHeader, Batches, RecordBatch};
use crate::index::AbortedTransaction;

/// The batches of a buffer without markers, and without those of aborted transactions.
///
/// A transaction is the batches of one producer from its first offset to its marker, and a producer has
/// one transaction at a time, so a batch is judged by itself, wherever reading began.
#[derive(Clone, Debug)]
pub struct CommittedBatches<'a> {
    batches: Batches<'a>,
    aborted: &'a [AbortedTransaction],
}

impl<'a> CommittedBatches<'a> {
    /// The batches in `bytes` that are not in one of the transactions `aborted`.
    pub fn new(bytes: &'a [u8], aborted: &'a [AbortedTransaction]) -> Self {
        Self { batches: Batches::new(bytes), aborted }
    }

    fn is_shown(&self, header: &BatchHeader) -> bool {
        let is_skipped = header.is_control || (header.is_transactional && self.is_aborted(header));
        !is_skipped
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        self.aborted.iter().any(|aborted| {
            aborted.producer_id == header.producer_id
                && (aborted.first_offset..=aborted.last_offset).contains(&header.base_offset)
        })
    }
}

impl<'a> Iterator for CommittedBatches<'a> {
    type Item = Result<RecordBatch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.batches.next()? {
                Ok(batch) if !self.is_shown(batch.header()) => {}
                shown => return Some(shown),
            }
        }
    }
}
