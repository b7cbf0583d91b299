//! The segment that is written to: what its writer knows beside what it has published.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Segment, is_dated};
use crate::batch::BatchHeader;
use crate::index::{IndexedBatch, LargestTimestamp};
use crate::record::{LeaderEpoch, Offset, Timestamp};
use crate::scanner::{BatchPlace, ReadError, Scanner};
use crate::storage::StorageFile;
use crate::unsynced_files::UnsyncedFile;

/// The last segment, as its writer knows it.
pub(crate) struct ActiveSegment {
    pub(crate) segment: Arc<Segment>,
    /// Its file, while it has bytes that were written here and are not synced.
    unsynced: Option<UnsyncedFile>,
    /// Bytes appended since the last entry of the offset index.
    bytes_since_entry: u64,
    largest: Option<LargestTimestamp>,
    /// The largest timestamp that is in the time index.
    noted: Option<Timestamp>,
    /// The reign in which the newest batch seen was written.
    pub(crate) leader_epoch: LeaderEpoch,
    /// The last batch that was read to resume it, and where.
    pub(crate) resumed_behind: Option<(u64, BatchHeader)>,
    index_interval_bytes: u64,
}

impl ActiveSegment {
    /// A segment that nothing was appended to.
    pub(crate) fn new(segment: Arc<Segment>, index_interval_bytes: u64) -> Self {
        Self {
            segment,
            unsynced: None,
            bytes_since_entry: 0,
            largest: None,
            noted: None,
            leader_epoch: LeaderEpoch(0),
            resumed_behind: None,
            index_interval_bytes,
        }
    }

    /// A segment whose indexes are believed, up to the batch that begins with `offset`; what they do
    /// not say of the last few kilobytes is read from the batches. Returns where that batch begins, or
    /// where the file ends before it; its offset is that behind the batch before.
    pub(crate) fn resume(
        segment: Arc<Segment>,
        index_interval_bytes: u64,
        offset: Offset,
    ) -> Result<(Self, BatchPlace), ReadError> {
        let mut active = Self::new(segment.clone(), index_interval_bytes);
        active.largest = segment.times.last()?;
        active.noted = active.largest.map(|largest| largest.timestamp);
        let file = segment.file()?;
        let end = file.len()?;
        let start = match segment.offsets.lookup(offset.plus(-1))? {
            Some(indexed) => segment.check_place(indexed, end)?,
            None => segment.start(),
        };
        let mut scanner = Scanner::new(file, start, end, segment.density);
        while scanner.is_before(offset)? {
            let Some((position, batch)) = scanner.next()? else { break };
            active.resumed_behind = Some((position, batch.header().clone()));
            active.note_timestamp(batch.header());
            active.leader_epoch = batch.header().leader_epoch;
            active.bytes_since_entry += batch.header().length as u64;
        }
        segment.publish(scanner.place().position);
        active.publish_timestamp();
        Ok((active, scanner.place()))
    }

    /// Its file, to write to it. It is kept open until [`Self::take_unsynced`] or [`Self::note_synced`].
    pub(crate) fn file_to_write(
        &mut self,
        keep: impl FnOnce(Arc<dyn StorageFile>) -> UnsyncedFile,
    ) -> io::Result<Arc<dyn StorageFile>> {
        let unsynced = match self.unsynced.take() {
            Some(unsynced) => unsynced,
            None => keep(self.segment.file()?),
        };
        Ok(self.unsynced.insert(unsynced).file().clone())
    }

    /// Its file, if something was written to it that is not synced.
    pub(crate) fn unsynced(&self) -> Option<&Arc<dyn StorageFile>> {
        self.unsynced.as_ref().map(UnsyncedFile::file)
    }

    /// Hands its file over, if something was written to it that is not synced: to who sees to that.
    pub(crate) fn take_unsynced(&mut self) -> Option<UnsyncedFile> {
        self.unsynced.take()
    }

    /// All that was written to it is synced.
    pub(crate) fn note_synced(&mut self) {
        self.unsynced = None;
    }

    /// Where the next batch goes.
    pub(crate) fn position(&self) -> u64 {
        self.segment.bytes()
    }

    /// Whether a batch of `bytes` bytes that ends with `last_offset` goes into another segment.
    pub(crate) fn is_full_for(&self, bytes: usize, last_offset: Offset, segment_bytes: u64) -> bool {
        let bytes_after = self.position() + bytes as u64;
        let limit = segment_bytes.min(i32::MAX as u64);
        let is_far = last_offset.0 - self.segment.base().0 > i64::from(i32::MAX);
        self.position() > 0 && (bytes_after > limit || is_far)
    }

    /// Publishes the batch that was written at [`Self::position`], and notes it in the indexes.
    pub(crate) fn absorb(&mut self, header: &BatchHeader) {
        let position = self.position();
        self.note_timestamp(header);
        self.leader_epoch = header.leader_epoch.max(self.leader_epoch);
        self.publish_timestamp();
        // Before its entries are: whoever finds one finds the batch too.
        self.segment.publish(position + header.length as u64);
        if self.bytes_since_entry > self.index_interval_bytes {
            self.segment.offsets.push(IndexedBatch { last_offset: header.last_offset(), position });
            self.note_time_entry();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.length as u64;
    }

    /// Notes the largest timestamp so far in the time index. It is the last entry of a sealed segment's.
    pub(crate) fn note_time_entry(&mut self) {
        let Some(largest) = self.largest else { return };
        if self.noted.is_none_or(|noted| noted < largest.timestamp) {
            self.segment.times.push(largest);
            self.noted = Some(largest.timestamp);
        }
    }

    fn note_timestamp(&mut self, header: &BatchHeader) {
        let is_larger = self.largest.is_none_or(|largest| header.max_timestamp > largest.timestamp);
        if is_larger && is_dated(header) {
            let (timestamp, offset) = (header.max_timestamp, header.last_offset());
            self.largest = Some(LargestTimestamp { timestamp, offset });
        }
    }

    fn publish_timestamp(&self) {
        if let Some(largest) = self.largest {
            self.segment.max_timestamp.store(largest.timestamp.0, Ordering::Release);
        }
    }
}
