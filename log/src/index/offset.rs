//! Where batches begin: an entry every few kilobytes of a segment.

use std::io;

use super::{Entry, Index, field};
use crate::files::FileKind;
use crate::record::Offset;

/// | bytes | field | |
/// |---|---|---|
/// | 0..4 | offset | `i32`, of the last record of the batch, less the segment's base offset |
/// | 4..8 | position | `i32`, of the first byte of the batch in the segment |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    relative_offset: i32,
    position: i32,
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;
    const KIND: FileKind = FileKind::OffsetIndex;
    const IS_HINT: bool = true;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            relative_offset: i32::from_be_bytes(field(bytes, 0)),
            position: i32::from_be_bytes(field(bytes, 4)),
        }
    }

    fn follows(&self, before: &Self) -> bool {
        self.relative_offset > before.relative_offset && self.position > before.position
    }

    /// The first batch of a segment has no entry: one that speaks of it is made of zeros that were never written.
    fn is_within(&self, base: Offset, below: Offset) -> bool {
        self.relative_offset >= 0 && self.position > 0 && i64::from(self.relative_offset) < below.0 - base.0
    }
}

/// What the index says of one batch. Whoever goes there checks that the batch is this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexedBatch {
    /// The offset of its last record.
    pub(crate) last_offset: Offset,
    /// Where it begins in the segment.
    pub(crate) position: u64,
}

/// The sparse index of a segment by offset.
pub(crate) type OffsetIndex = Index<OffsetEntry>;

impl Index<OffsetEntry> {
    /// Notes the batch that ends with `last_offset` and begins at `position`.
    pub(crate) fn push(&self, batch: IndexedBatch) {
        let relative_offset = i32::try_from(batch.last_offset.0 - self.base.0);
        let position = i32::try_from(batch.position);
        self.file.push(OffsetEntry {
            relative_offset: relative_offset.expect("a segment rolls before its offsets pass an i32"),
            position: position.expect("a segment rolls before its positions pass an i32"),
        });
    }

    /// The last batch noted that ends at or before `target`.
    pub(crate) fn lookup(&self, target: Offset) -> io::Result<Option<IndexedBatch>> {
        let relative = target.0 - self.base.0;
        let found = self.file.search(|entry| i64::from(entry.relative_offset) <= relative)?;
        Ok(found.last.map(|entry| entry.batch(self.base)))
    }
}

impl OffsetEntry {
    /// What it says in a segment that begins with `base`.
    pub(crate) fn batch(self, base: Offset) -> IndexedBatch {
        IndexedBatch {
            last_offset: base.plus(i64::from(self.relative_offset)),
            position: self.position as u64,
        }
    }
}
