//! The transactions that were aborted, in the segment that holds their marker.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Entry, EntryFile, Leftover, Persisted, field};
use crate::files::FileKind;
use crate::record::{Offset, ProducerId};
use crate::storage::Storage;

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
}

/// The aborted transactions of a segment, in the order of their markers.
pub(crate) struct TransactionIndex {
    file: EntryFile<AbortedTransaction>,
}

impl TransactionIndex {
    pub(crate) fn empty(storage: &Arc<dyn Storage>, directory: &Path, base: Offset) -> Self {
        Self::at(storage, FileKind::TransactionIndex.path(directory, base))
    }

    /// An index that holds nothing yet and goes into the file `path`.
    pub(crate) fn at(storage: &Arc<dyn Storage>, path: PathBuf) -> Self {
        Self { file: EntryFile::empty(storage.clone(), path) }
    }

    pub(crate) fn sealed(storage: &Arc<dyn Storage>, directory: &Path, base: Offset) -> io::Result<Self> {
        let path = FileKind::TransactionIndex.path(directory, base);
        let file = EntryFile::sealed(storage.clone(), path)?;
        file.hold()?;
        Ok(Self { file })
    }

    /// The index as far as it speaks of markers below `below`.
    pub(crate) fn believed(
        storage: &Arc<dyn Storage>,
        directory: &Path,
        base: Offset,
        below: Offset,
    ) -> io::Result<Self> {
        let path = FileKind::TransactionIndex.path(directory, base);
        let is_believed = |entry: &AbortedTransaction| {
            (base.0..below.0).contains(&entry.last_offset.0) && entry.first_offset <= entry.last_offset
        };
        let file = EntryFile::believed(storage.clone(), path, is_believed)?;
        file.hold()?;
        Ok(Self { file })
    }

    /// Whether each entry may follow the one before and speaks of a marker from `base` to `next`.
    pub(crate) fn is_within(&self, base: Offset, next: Offset) -> io::Result<bool> {
        let mut previous: Option<AbortedTransaction> = None;
        let mut is_sound = true;
        self.file.for_each_from(0, |entry| {
            is_sound = previous.is_none_or(|before| entry.follows(&before))
                && (base..next).contains(&entry.last_offset)
                && entry.first_offset <= entry.last_offset;
            previous = Some(entry);
            is_sound
        })?;
        Ok(is_sound)
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

    pub(crate) fn has_unwritten(&self) -> bool {
        self.file.has_unwritten()
    }

    /// What the file holds behind what is believed of it.
    pub(crate) fn leftover(&self) -> Leftover {
        self.file.leftover
    }

    /// Writes the index out, unless it is empty and has no file: most segments have none.
    pub(crate) fn persist(&self) -> io::Result<Option<Persisted>> {
        if self.file.is_empty() && !self.file.has_file()? { Ok(None) } else { self.write_out().map(Some) }
    }

    /// Writes the index out, be it empty.
    pub(crate) fn write_out(&self) -> io::Result<Persisted> {
        let persisted = self.file.persist()?;
        self.file.hold_file(&persisted.file);
        Ok(persisted)
    }
}
