//! The sound batches among bytes of which some are damaged: where a batch begins nobody knows there, so that
//! one is looked for at every byte.
//!
//! Memory is bounded, whatever the bytes say of a batch's length, and what is sound is read once.

use std::io;
use std::ops::{Range, RangeInclusive};

use crate::batch::{BatchHeader, ControlRecord, ENCODED_BYTES_MAX, PiecewiseChecksum, RecordBatch};
use crate::record::Offset;
use crate::storage::StorageFile;

/// How much is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A control batch that is longer holds no transaction marker.
const CONTROL_BYTES_MAX: usize = 4 << 10;

/// Looks for sound batches in a file.
pub(crate) struct SoundBatches<'a> {
    file: &'a dyn StorageFile,
    /// Where the file ends.
    end: u64,
    /// Where the next batch may begin.
    next: u64,
    /// The offsets that a batch of this file may begin with.
    offsets: RangeInclusive<Offset>,
    buffer: Vec<u8>,
    /// The part of the file that is in the buffer.
    buffered: Range<u64>,
}

/// A batch whose checksum is right.
pub(crate) struct SoundBatch {
    pub(crate) header: BatchHeader,
    /// What it says, if it is a transaction marker.
    pub(crate) control: Option<ControlRecord>,
}

impl<'a> SoundBatches<'a> {
    /// Of the segment `base`, whose file this is, those that begin at or behind `position` and have offsets
    /// from `lowest` on.
    pub(crate) fn new(
        file: &'a dyn StorageFile,
        position: u64,
        base: Offset,
        lowest: Offset,
    ) -> io::Result<Self> {
        // Offsets lie outside of the checksum. A segment's are counted with an `i32`.
        let offsets = lowest.max(base)..=Offset(base.0.saturating_add(i64::from(i32::MAX)));
        let (buffer, buffered) = (Vec::new(), position..position);
        Ok(Self { file, end: file.len()?, next: position, offsets, buffer, buffered })
    }

    /// The next one; none if there is none.
    pub(crate) fn next(&mut self) -> io::Result<Option<SoundBatch>> {
        while self.next + BatchHeader::BYTES as u64 <= self.end {
            let position = self.next;
            self.next += 1;
            if let Some(header) = self.candidate(position)?
                && self.is_sound(position, &header)?
            {
                self.next = position + header.length as u64;
                let control = if header.is_control { self.control(position, header.length)? } else { None };
                return Ok(Some(SoundBatch { header, control }));
            }
        }
        Ok(None)
    }

    /// Where the last batch ends that was found.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// The header at `position`, if one may be there. Almost all that is none is refused by the format's
    /// version.
    fn candidate(&mut self, position: u64) -> io::Result<Option<BatchHeader>> {
        let Ok(header) = BatchHeader::parse(self.bytes(position, BatchHeader::BYTES)?) else {
            return Ok(None);
        };
        let fits = header.length <= ENCODED_BYTES_MAX && header.length as u64 <= self.end - position;
        Ok((fits && self.offsets.contains(&header.base_offset)).then_some(header))
    }

    fn is_sound(&mut self, position: u64, header: &BatchHeader) -> io::Result<bool> {
        let mut checksum = PiecewiseChecksum::new();
        let end = position + header.length as u64;
        let mut checked = position;
        while checked < end {
            let wanted = (end - checked).min(CHUNK_BYTES as u64) as usize;
            let piece = self.bytes(checked, wanted)?;
            if piece.is_empty() {
                return Ok(false);
            }
            checksum.update(piece);
            checked += piece.len() as u64;
        }
        Ok(checksum.finish() == header.checksum)
    }

    fn control(&mut self, position: u64, length: usize) -> io::Result<Option<ControlRecord>> {
        if length > CONTROL_BYTES_MAX {
            return Ok(None);
        }
        let batch = RecordBatch::parse(self.bytes(position, length)?);
        Ok(batch.ok().and_then(|batch| batch.control().ok()))
    }

    /// So many bytes from `position` on, no more than are read at a time; fewer only at the end of the file.
    fn bytes(&mut self, position: u64, wanted: usize) -> io::Result<&[u8]> {
        let end = self.end.min(position + wanted as u64);
        if position < self.buffered.start || end > self.buffered.end {
            self.buffer.resize((self.end - position).min(CHUNK_BYTES as u64) as usize, 0);
            let read = self.file.read_at(position, &mut self.buffer)?;
            self.buffered = position..position + read as u64;
        }
        let start = (position - self.buffered.start) as usize;
        let available = (self.buffered.end - self.buffered.start) as usize;
        Ok(&self.buffer[start..available.min(start + wanted)])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::batch::{BatchBuilder, Compression, MarkerKind, marker};
    use crate::record::{LeaderEpoch, ProducerEpoch, ProducerId, Timestamp};
    use crate::storage::counting::CountingStorage;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{OpenMode, Storage};

    fn batch(base: i64, bytes: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(Timestamp(0), None, Some(&vec![7; bytes]), &[]).expect("it is allowed");
        let mut batch = builder.seal();
        batch.place(Offset(base), LeaderEpoch(0));
        batch.finish().to_vec()
    }

    fn file_of(bytes: &[u8]) -> (Arc<CountingStorage>, Arc<dyn StorageFile>) {
        let counting = CountingStorage::new(MemoryStorage::new(1));
        let file = counting.open(Path::new("/file"), OpenMode::Create).expect("the disk is fine");
        file.write_at(0, bytes).expect("the disk is fine");
        (counting, file)
    }

    /// The base offsets of those found in `bytes`, and how much was read for it.
    fn find(bytes: &[u8], base: i64, lowest: i64) -> (Vec<i64>, u64) {
        let (counting, file) = file_of(bytes);
        let mut batches = SoundBatches::new(&*file, 0, Offset(base), Offset(lowest)).expect("it is there");
        let mut found = Vec::new();
        while let Some(batch) = batches.next().expect("the disk is fine") {
            found.push(batch.header.base_offset.0);
        }
        (found, counting.counts().read_bytes)
    }

    #[test]
    fn what_is_sound_is_found_wherever_it_begins_and_what_is_damaged_is_not() {
        let mut bytes = vec![2; 100];
        bytes.extend(batch(10, 50));
        let damaged = bytes.len() + 70;
        bytes.extend(batch(11, 50));
        bytes[damaged] ^= 1;
        bytes.extend(batch(12, 3 * CHUNK_BYTES));
        bytes.extend([0; 77]);
        bytes.extend(batch(13, 0));
        assert_eq!(find(&bytes, 0, 0).0, [10, 12, 13]);
    }

    #[test]
    fn what_cannot_be_of_the_file_or_lies_below_is_passed_over() {
        let far = i64::from(i32::MAX) + 6;
        let bytes = [batch(4, 1), batch(5, 1), batch(6, 1), batch(far - 1, 1), batch(far, 1)].concat();
        assert_eq!(find(&bytes, 5, 0).0, [5, 6, far - 1]);
        assert_eq!(find(&bytes, 5, 6).0, [6, far - 1]);
    }

    #[test]
    fn sound_batches_are_read_about_once_and_damage_costs_no_more_than_its_length() {
        let many: Vec<u8> = (0..5000).flat_map(|base| batch(base, 100)).collect();
        let (found, read) = find(&many, 0, 0);
        assert_eq!(found.len(), 5000);
        assert!(read < many.len() as u64 * 5 / 4, "{read} bytes of {}", many.len());
        let mut damaged = batch(0, 4 * CHUNK_BYTES);
        damaged[100] ^= 1;
        let (found, read) = find(&damaged, 0, 0);
        assert!(found.is_empty());
        assert!(read < 3 * damaged.len() as u64, "{read} bytes of {}", damaged.len());
    }

    #[test]
    fn a_marker_says_how_its_transaction_ended() {
        let mut batch = marker(MarkerKind::Commit, ProducerId(7), ProducerEpoch(1), 3, Timestamp(0));
        batch.place(Offset(9), LeaderEpoch(0));
        let (_, file) = file_of(batch.finish());
        let mut batches = SoundBatches::new(&*file, 0, Offset(0), Offset(0)).expect("it is there");
        let found = batches.next().expect("the disk is fine").expect("it is sound");
        assert_eq!(found.control, Some(ControlRecord { kind: MarkerKind::Commit, coordinator_epoch: 3 }));
    }
}
