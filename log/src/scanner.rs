//! Reads the batches of a log file forward, in large pieces.

use std::io;
use std::sync::Arc;

use crate::batch::{BatchError, BatchHeader, RecordBatch};
use crate::record::Offset;
use crate::storage::StorageFile;

/// How much is read at a time, unless a batch is larger.
const CHUNK_BYTES: u64 = 256 << 10;

/// Why batches cannot be read on.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The operating system refused.
    Io(io::Error),
    /// The bytes at `place` are no sound batch.
    Bad {
        /// Where the batch should be.
        place: BatchPlace,
        /// What is wrong with it.
        error: BatchError,
    },
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Which batches may follow each other. Offsets lie outside the checksum: what the batch before says is all
/// that tells whether one is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Density {
    /// A batch begins where the one before ended, always.
    Dense,
    /// Batches between two others may be missing: compaction has removed them.
    Sparse,
    /// Batches before this offset may be missing, and the first one there is.
    SparseUpTo(Offset),
}

impl Density {
    /// Whether what begins with `base` may follow what ended before `expected`.
    pub(crate) fn allows(self, base: Offset, expected: Offset) -> bool {
        match self {
            Self::Dense => base == expected,
            Self::Sparse => base >= expected,
            Self::SparseUpTo(end) => base == expected || (expected < base && base <= end),
        }
    }
}

/// Where a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchPlace {
    /// In the file.
    pub(crate) position: u64,
    /// The offset of its first record; of a sparse log, the lowest that it may have.
    pub(crate) offset: Offset,
}

impl BatchPlace {
    /// The place behind the batch that is here.
    ///
    /// # Errors
    /// [`BatchError::BadField`] if the batch does not belong here.
    pub(crate) fn behind(self, header: &BatchHeader, density: Density) -> Result<Self, BatchError> {
        if !density.allows(header.base_offset, self.offset) {
            return Err(BatchError::BadField { field: "base offset", value: header.base_offset.0 });
        }
        Ok(Self { position: self.position + header.length as u64, offset: header.next_offset() })
    }
}

/// Reads the batches of a file in order and checks that each is sound and follows the one before. One
/// buffer serves all of them.
pub(crate) struct Scanner {
    file: Arc<dyn StorageFile>,
    /// Where the next batch begins.
    next: BatchPlace,
    /// Where the batches end.
    end: u64,
    density: Density,
    buffer: Vec<u8>,
    /// The part of the file that is in the buffer.
    buffered: std::ops::Range<u64>,
}

impl Scanner {
    /// Reads from `start`, where a batch begins, to the position `end`.
    pub(crate) fn new(file: Arc<dyn StorageFile>, start: BatchPlace, end: u64, density: Density) -> Self {
        let buffered = start.position..start.position;
        Self { file, next: start, end, density, buffer: Vec::new(), buffered }
    }

    /// Where the next batch begins, or should.
    pub(crate) fn place(&self) -> BatchPlace {
        self.next
    }

    /// Whether the next batch ends before `offset`, as it does if it begins before and is sound. Only the
    /// header is looked at: what is no batch is left for [`Self::next`] to name.
    pub(crate) fn is_before(&mut self, offset: Offset) -> io::Result<bool> {
        if self.next.offset >= offset || self.next.position == self.end {
            return Ok(false);
        }
        self.fill(BatchHeader::BYTES)?;
        let header = BatchHeader::parse(self.available());
        Ok(self.density == Density::Dense || !header.is_ok_and(|header| header.base_offset >= offset))
    }

    /// The next batch and where it begins; `None` at the end. After an error the scanner stays where it is.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, RecordBatch<'_>)>, ReadError> {
        let BatchPlace { position, .. } = self.next;
        if position == self.end {
            return Ok(None);
        }
        let place = self.next;
        let bad = |error| ReadError::Bad { place, error };
        self.fill(BatchHeader::BYTES)?;
        let length = BatchHeader::parse(self.available()).map_err(bad)?.length;
        if length as u64 > self.end - position {
            // Not worth reading the rest of the file for.
            return Err(bad(BatchError::Incomplete { needed: length }));
        }
        self.fill(length)?;
        let start = (position - self.buffered.start) as usize;
        let end = (self.buffered.end - self.buffered.start) as usize;
        let batch = RecordBatch::parse(&self.buffer[start..end]).map_err(bad)?;
        batch.verify().map_err(bad)?;
        self.next = self.next.behind(batch.header(), self.density).map_err(bad)?;
        Ok(Some((position, batch)))
    }

    /// What the buffer holds from the next batch on.
    fn available(&self) -> &[u8] {
        let start = self.next.position - self.buffered.start;
        &self.buffer[start as usize..(self.buffered.end - self.buffered.start) as usize]
    }

    /// Sees to it that the buffer holds `wanted` bytes from the next batch on, or all that there are.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let position = self.next.position;
        let left = self.end - position;
        let wanted = (wanted as u64).min(left);
        if position + wanted <= self.buffered.end {
            return Ok(());
        }
        let bytes = wanted.max(CHUNK_BYTES).min(left) as usize;
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        self.buffered = position..position;
        let read = self.file.read_at(position, &mut self.buffer[..bytes])?;
        self.buffered.end += read as u64;
        Ok(())
    }
}
