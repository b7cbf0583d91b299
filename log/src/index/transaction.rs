//! The transactions that were aborted, in the segment that holds their marker.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Entry, Held, Index, field};
use crate::files::FileKind;
use crate::record::{Offset, ProducerId};
use crate::storage::{Storage, StorageFile};
use crate::whole_file;

/// A transaction that was aborted: the batches of this producer in this range do not count.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | version | `i16`, 0 |
/// | 2..10 | producer id | `i64` |
/// | 10..18 | first offset | `i64` |
/// | 18..26 | last offset | `i64` |
/// | 26..34 | last stable offset | `i64` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbortedTransaction {
    /// Whose transaction it was.
    pub producer_id: ProducerId,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// The offset of its marker.
    pub last_offset: Offset,
    /// The partition's last stable offset once the marker was there.
    pub last_stable_offset: Offset,
}

impl Entry for AbortedTransaction {
    const BYTES: usize = 34;
    const KIND: FileKind = FileKind::TransactionIndex;
    const IS_HINT: bool = false;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&0i16.to_be_bytes());
        out.extend_from_slice(&self.producer_id.0.to_be_bytes());
        out.extend_from_slice(&self.first_offset.0.to_be_bytes());
        out.extend_from_slice(&self.last_offset.0.to_be_bytes());
        out.extend_from_slice(&self.last_stable_offset.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 2))),
            first_offset: Offset(i64::from_be_bytes(field(bytes, 10))),
            last_offset: Offset(i64::from_be_bytes(field(bytes, 18))),
            last_stable_offset: Offset(i64::from_be_bytes(field(bytes, 26))),
        }
    }

    fn follows(&self, before: &Self) -> bool {
        self.last_offset > before.last_offset
    }

    fn is_within(&self, base: Offset, below: Offset) -> bool {
        (base..below).contains(&self.last_offset) && self.first_offset <= self.last_offset
    }
}

/// The aborted transactions of a segment, in the order of their markers.
pub(crate) type TransactionIndex = Index<AbortedTransaction>;

/// The entries of a file, whoever writes to it; none where there is no file.
pub(crate) struct AbortedEntries(Vec<u8>);

impl AbortedEntries {
    pub(crate) fn read(storage: &dyn Storage, path: &Path) -> io::Result<Self> {
        Ok(Self(whole_file::read(storage, path)?.unwrap_or_default()))
    }

    /// All of them.
    pub(crate) fn decode(&self) -> Vec<AbortedTransaction> {
        self.0.chunks_exact(AbortedTransaction::BYTES).map(AbortedTransaction::decode).collect()
    }

    /// Whether the first of them are those that were noted; `None` if there are fewer.
    pub(crate) fn begin_as(&self, noted: Held) -> Option<bool> {
        let bytes = usize::try_from(noted.entries).ok()?.checked_mul(AbortedTransaction::BYTES)?;
        Some(crc32fast::hash(self.0.get(..bytes)?) == noted.checksum)
    }
}

impl Index<AbortedTransaction> {
    /// Whether each entry may follow the one before and speaks of a marker before `next`.
    pub(crate) fn is_sound(&self, next: Offset) -> io::Result<bool> {
        let mut previous: Option<AbortedTransaction> = None;
        let mut is_sound = true;
        self.file.for_each_from(0, |entry| {
            is_sound =
                previous.is_none_or(|before| entry.follows(&before)) && entry.is_within(self.base, next);
            previous = Some(entry);
            is_sound
        })?;
        Ok(is_sound)
    }

    /// The one that was aborted last.
    pub(crate) fn last(&self) -> io::Result<Option<AbortedTransaction>> {
        self.file.last()
    }

    pub(crate) fn push(&self, aborted: AbortedTransaction) {
        self.file.push(aborted);
    }

    /// Appends to `found` the transactions that have records at or after `from` and before `to`. Says
    /// whether these are all: whether no later segment can hold a marker for that range.
    pub(crate) fn collect(
        &self,
        from: Offset,
        to: Offset,
        found: &mut Vec<AbortedTransaction>,
    ) -> io::Result<bool> {
        if self.file.is_empty() {
            return Ok(false);
        }
        let first = self.file.search(|entry| entry.last_offset < from)?.count;
        let mut is_all = false;
        self.file.for_each_from(first, |entry| {
            if entry.first_offset < to {
                found.push(entry);
            }
            is_all = entry.last_stable_offset >= to;
            !is_all
        })?;
        Ok(is_all)
    }

    /// Writes the index out, unless it is empty and has no file: most segments have none.
    pub(crate) fn persist(&self) -> io::Result<Option<Arc<dyn StorageFile>>> {
        if self.file.is_empty() && !self.file.has_file()? { Ok(None) } else { self.write_out().map(Some) }
    }
}
