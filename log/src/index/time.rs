//! From which offset on timestamps may be as large as one asked for.

use std::io;

use super::{Entry, Index, field};
use crate::files::FileKind;
use crate::record::{Offset, Timestamp};

/// | bytes | field | |
/// |---|---|---|
/// | 0..8 | timestamp | `i64`, ms; the largest one in the segment so far |
/// | 8..12 | offset | `i32`, of the last record of the batch that holds it, less the segment's base offset |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    timestamp: i64,
    relative_offset: i32,
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;
    const KIND: FileKind = FileKind::TimeIndex;
    const IS_HINT: bool = true;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            timestamp: i64::from_be_bytes(field(bytes, 0)),
            relative_offset: i32::from_be_bytes(field(bytes, 8)),
        }
    }

    fn follows(&self, before: &Self) -> bool {
        self.timestamp > before.timestamp && self.relative_offset > before.relative_offset
    }

    fn is_within(&self, base: Offset, below: Offset) -> bool {
        self.relative_offset >= 0 && i64::from(self.relative_offset) < below.0 - base.0
    }
}

/// The largest timestamp among the records up to some offset, and the last offset of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LargestTimestamp {
    pub(crate) timestamp: Timestamp,
    pub(crate) offset: Offset,
}

/// What the index says of records that are older than some timestamp. Whoever goes by it checks that the
/// segment says the same: a timestamp that is too small, or an offset that is too large, hides records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    /// It knows none.
    Unknown,
    /// All up to this offset are.
    UpTo(LargestTimestamp),
    /// The entry that says how far they reach cannot stand where it does.
    Contradiction,
}

/// The sparse index of a segment by time. Transaction markers, which carry the clock's time and not an
/// event's, are not in it.
pub(crate) type TimeIndex = Index<TimeEntry>;

impl Index<TimeEntry> {
    /// Notes the largest timestamp so far; it is larger than the last one noted.
    pub(crate) fn push(&self, largest: LargestTimestamp) {
        let relative_offset = i32::try_from(largest.offset.0 - self.base.0);
        self.file.push(TimeEntry {
            timestamp: largest.timestamp.0,
            relative_offset: relative_offset.expect("a segment rolls before its offsets pass an i32"),
        });
    }

    /// The last entry: of a sealed segment, its largest timestamp.
    pub(crate) fn last(&self) -> io::Result<Option<LargestTimestamp>> {
        Ok(self.file.last()?.map(|entry| entry.largest(self.base)))
    }

    /// Up to where every record is older than `timestamp`.
    pub(crate) fn older_than(&self, timestamp: Timestamp) -> io::Result<Older> {
        let found = self.file.search(|entry| entry.timestamp < timestamp.0)?;
        let Some(last) = found.last else { return Ok(Older::Unknown) };
        let is_in_order = found.next.is_none_or(|next| next.follows(&last));
        Ok(if is_in_order { Older::UpTo(last.largest(self.base)) } else { Older::Contradiction })
    }
}

impl TimeEntry {
    /// What it says in a segment that begins with `base`.
    pub(crate) fn largest(self, base: Offset) -> LargestTimestamp {
        LargestTimestamp {
            timestamp: Timestamp(self.timestamp),
            offset: base.plus(i64::from(self.relative_offset)),
        }
    }
}
