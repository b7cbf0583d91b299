//! The three indexes beside a segment: by offset, by time, and of aborted transactions.
//!
//! They are in Kafka's byte formats and always rebuildable from the segment. The entries of the
//! growing segment are kept in memory and written out in one go when the segment is sealed, when a
//! producer snapshot is taken and when the partition is closed, so an append writes to one file only.
//! What they hold then is noted beside them ([`SumFile`]).
//!
//! One writer at a time, ordered by its partition; readers share a lock with it for the time of a
//! search in memory, never while a file is read or written. After a crash the entries below the newest
//! believed producer snapshot are believed: they were synced before the recovery point passed it. What an entry
//! of the first two says is compared with the batch it speaks of whenever it is gone by all the same.

mod entry_file;
mod entry_reader;
mod offset;
mod sum;
mod time;
mod transaction;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::FileKind;
use crate::open_files::OpenFiles;
use crate::record::Offset;
use crate::storage::{Storage, StorageFile};

use entry_file::EntryFile;

pub(crate) use entry_reader::EntryReader;
pub(crate) use offset::{IndexedBatch, OffsetEntry, OffsetIndex};
pub(crate) use sum::{Note, SumFile, read_notes};
pub(crate) use time::{LargestTimestamp, Older, TimeEntry, TimeIndex};
pub use transaction::AbortedTransaction;
pub(crate) use transaction::{AbortedEntries, TransactionIndex};

/// What an index is a sequence of: entries of one size, in an order that searches rely on.
pub(crate) trait Entry: Copy + PartialEq {
    /// Bytes of an entry on disk.
    const BYTES: usize;

    /// Which file of a segment holds them.
    const KIND: FileKind;

    /// Whether readers only take longer without the index.
    const IS_HINT: bool;

    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the entry from exactly [`Self::BYTES`] bytes.
    fn decode(bytes: &[u8]) -> Self;

    /// Whether this entry may stand behind `before`. Bytes that never reached the disk read as zeros,
    /// which may not.
    fn follows(&self, before: &Self) -> bool;

    /// Whether it can be of a segment that begins with `base`, and speaks of what lies before `below`.
    fn is_within(&self, base: Offset, below: Offset) -> bool;
}

/// What the files of indexes are opened with.
#[derive(Clone)]
pub(crate) struct FileContext {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) open_files: Arc<OpenFiles>,
}

/// What a file holds behind the entries that are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    Nothing,
    /// Entries of what came later, or never became whole.
    Later,
    /// An entry that would be believed by itself: one before it is damaged.
    Contradiction,
}

/// How much an index holds, and what of it tells that from anything else that it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    entries: u64,
    /// Of the last entry of a hint, and of all entries of an index that is none.
    checksum: u32,
}

impl Held {
    /// How many entries.
    pub(crate) fn entries(self) -> u64 {
        self.entries
    }
}

/// An index of a segment.
pub(crate) struct Index<E> {
    /// Where the segment begins.
    base: Offset,
    file: EntryFile<E>,
}

impl<E: Entry> Index<E> {
    /// An index that holds nothing yet. What there is of its file is not believed.
    pub(crate) fn empty(context: &FileContext, directory: &Path, base: Offset) -> Self {
        Self::at(context, E::KIND.path(directory, base), base)
    }

    /// An index that holds nothing yet and goes into the file `path`.
    pub(crate) fn at(context: &FileContext, path: PathBuf, base: Offset) -> Self {
        Self { base, file: EntryFile::empty(context.clone(), path) }
    }

    /// The index of a sealed segment, as it is on file.
    pub(crate) fn sealed(context: &FileContext, directory: &Path, base: Offset) -> io::Result<Self> {
        let path = E::KIND.path(directory, base);
        Ok(Self { base, file: EntryFile::sealed(context.clone(), path)? })
    }

    /// The index as far as it speaks of what lies before `below`.
    pub(crate) fn believed(
        context: &FileContext,
        directory: &Path,
        base: Offset,
        below: Offset,
    ) -> io::Result<Self> {
        let path = E::KIND.path(directory, base);
        let is_believed = |entry: &E| entry.is_within(base, below);
        Ok(Self { base, file: EntryFile::believed(context.clone(), path, is_believed)? })
    }

    /// The same index, whose file is called next as those of a segment are.
    pub(crate) fn renamed(self, directory: &Path) -> Self {
        Self { base: self.base, file: self.file.renamed(E::KIND.path(directory, self.base)) }
    }

    /// Its file, as it was called when the segment was opened.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What the file holds behind what is believed of it.
    pub(crate) fn leftover(&self) -> Leftover {
        self.file.leftover()
    }

    /// Keeps its file open until it is released: another segment's may take its name.
    pub(crate) fn hold(&self) -> io::Result<()> {
        self.file.hold()
    }

    /// Keeps its file open no longer.
    pub(crate) fn release(&self) {
        self.file.release();
    }

    /// Whether it has no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.file.is_empty()
    }

    /// What it holds, to be noted.
    pub(crate) fn held(&self) -> io::Result<Held> {
        let entries = self.file.len();
        Ok(Held { entries, checksum: self.file.checksum(entries)? })
    }

    /// Whether the file holds what was noted, and no more than that is believed.
    pub(crate) fn agrees(&self, noted: Held) -> io::Result<bool> {
        let Held { entries, checksum } = noted;
        Ok(self.file.len() <= entries && self.file.checksum_on_file(entries)? == Some(checksum))
    }

    /// Writes the index out, be it empty. The file is to be synced.
    pub(crate) fn write_out(&self) -> io::Result<Arc<dyn StorageFile>> {
        self.file.persist()
    }
}

/// The `N` bytes at `position` of an entry.
fn field<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[position..position + N]);
    field
}
