//! One partition, batch by batch, from where the last committed epoch left it.

use bytes::Bytes;
use lotic_log::batch::{BatchError, RecordBatch};
use lotic_log::{AbortedTransaction, CommittedBatches, Offset, Timestamp};

use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, PartitionKey};
use crate::frame::NO_WATERMARK;
use crate::source::Rejected;

/// Reads one partition.
pub(super) struct PartitionReader {
    /// The split's name, which is the partition's too.
    pub(super) name: String,
    pub(super) key: PartitionKey,
    /// Everything before has been emitted, nothing from here on.
    pub(super) position: Offset,
    /// The largest event time emitted, or where idleness has brought the watermark, as if it had been.
    pub(super) event_time_max: Option<Timestamp>,
    /// The largest event time emitted by this reader, or recorded before.
    pub(super) emitted_time_max: Option<Timestamp>,
    /// Where to stop, if anywhere: the end of one of the log's transactions.
    pub(super) end: Option<Offset>,
    /// Where bounded input ends.
    pub(super) bounded_end: Option<Offset>,
    /// Where a timeless source ended at the first start.
    pub(super) timeless_end: Option<Offset>,
    /// What could not be decoded, before the position.
    pub(super) rejected: Rejected,
    fetch_bytes: usize,
    /// What was fetched and not taken.
    fetched: Bytes,
    aborted: Vec<AbortedTransaction>,
    next_fetch: Offset,
    next: Option<NextBatch>,
}

/// A batch whose turn has not come.
struct NextBatch {
    bytes: Bytes,
    first_time: Timestamp,
}

impl PartitionReader {
    pub(super) fn new(name: String, key: PartitionKey, position: Offset, fetch_bytes: usize) -> Self {
        Self {
            name,
            key,
            position,
            event_time_max: None,
            emitted_time_max: None,
            end: None,
            bounded_end: None,
            timeless_end: None,
            rejected: Rejected::default(),
            fetch_bytes,
            fetched: Bytes::new(),
            aborted: Vec::new(),
            next_fetch: position,
            next: None,
        }
    }

    /// The timestamp of the next batch's first record: what the partition's turn is decided by. All that was
    /// taken before must have been emitted. `None`: there is nothing now.
    pub(super) fn next_time(&mut self, log: &dyn EventLog) -> Result<Option<Timestamp>> {
        while self.next.is_none() {
            let found = self.find_batch()?;
            if !found && !self.fetch(log)? {
                return Ok(None);
            }
        }
        Ok(self.next.as_ref().map(|next| next.first_time))
    }

    /// Whether a batch is at hand.
    pub(super) fn has_batch(&self) -> bool {
        self.next.is_some()
    }

    /// The watermark, if event times are out of order by so much.
    pub(super) fn watermark(&self, disorder_ms: i64) -> Timestamp {
        self.event_time_max.map_or(NO_WATERMARK, |time| Timestamp(time.0.saturating_sub(disorder_ms)))
    }

    /// Takes the next batch.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.next.take().map(|next| next.bytes)
    }

    /// Moves the end, once it has been reached. What was fetched from behind the old one was dropped.
    pub(super) fn read_on_to(&mut self, end: Offset) {
        self.end = Some(end);
        self.fetched = Bytes::new();
        self.next_fetch = self.position;
    }

    /// Whether nothing is to be read behind its end.
    pub(super) fn ends_for_good(&self) -> bool {
        self.bounded_end.is_some() && self.end == self.bounded_end
    }

    /// Whether its end is reached.
    pub(super) fn is_at_end(&self) -> bool {
        self.next.is_none() && self.end.is_some_and(|end| self.position >= end)
    }

    /// What is wrong with bytes of this partition.
    pub(super) fn corrupt(&self, offset: Offset, cause: BatchError) -> Error {
        let what = format!("{}, the batch at offset {offset} cannot be read", self.name);
        Error::caused(ErrorKind::Corrupt, what, cause)
    }

    /// Looks for the next batch in what was fetched. Whether there was one.
    fn find_batch(&mut self) -> Result<bool> {
        let Some(batch) = CommittedBatches::new(&self.fetched, &self.aborted).next() else {
            // What is left, if anything, is cut off, of aborted transactions, or markers.
            self.fetched = Bytes::new();
            let consumed = self.end.map_or(self.next_fetch, |end| self.next_fetch.min(end));
            self.position = self.position.max(consumed);
            return Ok(false);
        };
        let batch = batch.map_err(|error| self.corrupt(self.position, error))?;
        let bytes = self.fetched.slice_ref(batch.bytes());
        let behind = bytes.as_ptr() as usize - self.fetched.as_ptr() as usize + bytes.len();
        if self.is_wanted(&batch) {
            self.next = Some(NextBatch { bytes, first_time: batch.header().base_timestamp });
        }
        self.fetched = self.fetched.slice(behind..);
        Ok(true)
    }

    fn is_wanted(&self, batch: &RecordBatch<'_>) -> bool {
        let header = batch.header();
        header.last_offset() >= self.position && self.end.is_none_or(|end| header.base_offset < end)
    }

    /// Asks the log for more. Whether there was any.
    fn fetch(&mut self, log: &dyn EventLog) -> Result<bool> {
        if self.end.is_some_and(|end| self.next_fetch >= end) {
            return Ok(false);
        }
        let fetched = log.fetch(self.key, self.next_fetch, self.fetch_bytes);
        let Some(fetched) = fetched.map_err(|error| error.within(&self.name))? else { return Ok(false) };
        self.fetched = fetched.bytes;
        self.aborted = fetched.aborted;
        self.next_fetch = fetched.next;
        Ok(true)
    }
}
