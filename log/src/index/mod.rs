//! The three indexes beside a segment: by offset, by time, and of aborted transactions.
//!
//! They are hints, in Kafka's byte formats, always rebuildable from the segment. The entries of the
//! growing segment are kept in memory and written out in one go when the segment is sealed, when a
//! producer snapshot is taken and when the partition is closed (those of aborted transactions with
//! every round of group commit), so an append writes to one file only.
//!
//! One writer at a time, ordered by its partition; readers share a lock with it for the time of a
//! search in memory, never while a file is read or written. After a crash the entries below the newest
//! believed producer snapshot are believed: they were synced before the recovery point passed it.

mod offset;
mod time;
mod transaction;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use crate::storage::{OpenMode, Storage, StorageFile};

pub(crate) use offset::{IndexedBatch, OffsetIndex};
pub(crate) use time::{LargestTimestamp, TimeIndex};
pub use transaction::AbortedTransaction;
pub(crate) use transaction::TransactionIndex;

/// What an index is a sequence of: entries of one size, in an order that searches rely on.
trait Entry: Copy {
    /// Bytes of an entry on disk.
    const BYTES: usize;

    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the entry from exactly [`Self::BYTES`] bytes.
    fn decode(bytes: &[u8]) -> Self;

    /// Whether this entry may stand behind `before`. Bytes that never reached the disk read as zeros,
    /// which may not.
    fn follows(&self, before: &Self) -> bool;
}

/// Entries on file and, behind them, those that are in memory only.
struct EntryFile<E> {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// The file, where it is kept open: its name may be another file's by now, compaction having
    /// replaced the segment, and who reads the old segment must not be told of the new one.
    held: OnceLock<Arc<dyn StorageFile>>,
    entries: RwLock<Entries<E>>,
    leftover: Leftover,
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

/// An index that was written out.
pub(crate) struct Persisted {
    pub(crate) file: Arc<dyn StorageFile>,
    /// Whether the file was made, so that its name is to be synced too.
    pub(crate) is_new: bool,
}

/// Where a search ended.
struct Found<E> {
    /// How many entries it holds for.
    count: u64,
    /// The last of them.
    last: Option<E>,
}

struct Entries<E> {
    /// How many entries of the file are believed.
    on_file: u64,
    in_memory: Vec<E>,
}

impl<E: Entry> EntryFile<E> {
    /// An index that holds nothing yet. What a file of that name holds is not believed.
    fn empty(storage: Arc<dyn Storage>, path: PathBuf) -> Self {
        let entries = RwLock::new(Entries { on_file: 0, in_memory: Vec::new() });
        Self { storage, path, held: OnceLock::new(), entries, leftover: Leftover::Nothing }
    }

    /// The index of a sealed segment: every entry of the file is believed.
    fn sealed(storage: Arc<dyn Storage>, path: PathBuf) -> io::Result<Self> {
        let on_file = match open_if_there(&*storage, &path, OpenMode::Read)? {
            Some(file) => file.len()? / E::BYTES as u64,
            None => 0,
        };
        let index = Self::empty(storage, path);
        index.entries.write().on_file = on_file;
        Ok(index)
    }

    /// An index of which only the first entries are believed: as long as `is_believed` says so and each
    /// follows the one before.
    fn believed(
        storage: Arc<dyn Storage>,
        path: PathBuf,
        is_believed: impl Fn(&E) -> bool,
    ) -> io::Result<Self> {
        let mut index = Self::sealed(storage, path)?;
        let mut previous: Option<E> = None;
        let mut believed = 0;
        let mut leftover = Leftover::Nothing;
        index.for_each_from(0, |entry| {
            let is_possible = is_believed(&entry);
            if leftover == Leftover::Nothing
                && is_possible
                && previous.is_none_or(|before| entry.follows(&before))
            {
                believed += 1;
                previous = Some(entry);
            } else {
                leftover = if is_possible { Leftover::Contradiction } else { Leftover::Later };
            }
            leftover != Leftover::Contradiction
        })?;
        index.entries.write().on_file = believed;
        index.leftover = leftover;
        Ok(index)
    }

    fn push(&self, entry: E) {
        self.entries.write().in_memory.push(entry);
    }

    fn is_empty(&self) -> bool {
        let entries = self.entries.read();
        entries.on_file == 0 && entries.in_memory.is_empty()
    }

    fn last(&self) -> io::Result<Option<E>> {
        Ok(self.search(|_| true)?.last)
    }

    /// Finds the end of the entries for which `holds`; it must hold for the first ones and for none
    /// behind them.
    fn search(&self, holds: impl Fn(&E) -> bool) -> io::Result<Found<E>> {
        let on_file = {
            let entries = self.entries.read();
            let count = entries.in_memory.partition_point(&holds);
            if count > 0 {
                let last = Some(entries.in_memory[count - 1]);
                return Ok(Found { count: entries.on_file + count as u64, last });
            }
            entries.on_file
        };
        self.search_file(on_file, holds)
    }

    fn search_file(&self, on_file: u64, holds: impl Fn(&E) -> bool) -> io::Result<Found<E>> {
        let mut found = Found { count: 0, last: None };
        if on_file == 0 {
            return Ok(found);
        }
        let Some(file) = self.open_to_read()? else { return Ok(found) };
        let mut high = on_file;
        while found.count < high {
            let middle = found.count + (high - found.count) / 2;
            let mut bytes = [0; MAX_ENTRY_BYTES];
            let bytes = &mut bytes[..E::BYTES];
            read_exact(&*file, middle * E::BYTES as u64, bytes)?;
            let entry = E::decode(bytes);
            if holds(&entry) {
                found = Found { count: middle + 1, last: Some(entry) };
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    /// Calls `visit` for each entry from the `first` on, until it answers false.
    fn for_each_from(&self, first: u64, mut visit: impl FnMut(E) -> bool) -> io::Result<()> {
        const ENTRIES_PER_READ: u64 = 512;
        let (on_file, in_memory) = {
            let entries = self.entries.read();
            (entries.on_file, entries.in_memory.clone())
        };
        if first < on_file
            && let Some(file) = self.open_to_read()?
        {
            let mut bytes = Vec::new();
            let mut next = first;
            while next < on_file {
                let count = ENTRIES_PER_READ.min(on_file - next);
                bytes.resize(count as usize * E::BYTES, 0);
                read_exact(&*file, next * E::BYTES as u64, &mut bytes)?;
                for entry in bytes.chunks_exact(E::BYTES) {
                    if !visit(E::decode(entry)) {
                        return Ok(());
                    }
                }
                next += count;
            }
        }
        let skipped = first.saturating_sub(on_file) as usize;
        for entry in in_memory.into_iter().skip(skipped) {
            if !visit(entry) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes what is in memory only behind what is believed on file, and cuts off whatever else the
    /// file held. The file is to be synced: it may be as it should be and not be durable.
    fn persist(&self) -> io::Result<Persisted> {
        let (on_file, bytes) = {
            let entries = self.entries.read();
            let mut bytes = Vec::with_capacity(entries.in_memory.len() * E::BYTES);
            entries.in_memory.iter().for_each(|entry| entry.encode(&mut bytes));
            (entries.on_file, bytes)
        };
        let there = open_if_there(&*self.storage, &self.path, OpenMode::Write)?;
        let is_new = there.is_none();
        let file = there.map_or_else(|| self.storage.open(&self.path, OpenMode::Create), Ok)?;
        let believed = on_file * E::BYTES as u64;
        if file.len()? > believed {
            file.truncate(believed)?;
        }
        if !bytes.is_empty() {
            file.write_at(believed, &bytes)?;
        }
        let mut entries = self.entries.write();
        entries.on_file += (bytes.len() / E::BYTES) as u64;
        entries.in_memory.clear();
        Ok(Persisted { file, is_new })
    }

    /// The file, unless it is gone with its segment: then the index knows nothing.
    fn open_to_read(&self) -> io::Result<Option<Arc<dyn StorageFile>>> {
        match self.held.get() {
            Some(file) => Ok(Some(file.clone())),
            None => open_if_there(&*self.storage, &self.path, OpenMode::Read),
        }
    }

    /// Keeps the file open if anything in it is believed.
    fn hold(&self) -> io::Result<()> {
        if self.entries.read().on_file > 0
            && let Some(file) = self.open_to_read()?
        {
            self.hold_file(&file);
        }
        Ok(())
    }

    fn hold_file(&self, file: &Arc<dyn StorageFile>) {
        self.held.get_or_init(|| file.clone());
    }

    fn has_unwritten(&self) -> bool {
        !self.entries.read().in_memory.is_empty()
    }

    /// Whether there is, or has to be, a file.
    fn has_file(&self) -> io::Result<bool> {
        self.storage.exists(&self.path)
    }
}

/// The longest entry: that of an aborted transaction.
const MAX_ENTRY_BYTES: usize = 34;

fn open_if_there(
    storage: &dyn Storage,
    path: &std::path::Path,
    mode: OpenMode,
) -> io::Result<Option<Arc<dyn StorageFile>>> {
    match storage.open(path, mode) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_exact(file: &dyn StorageFile, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    if file.read_at(position, buffer)? == buffer.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the index is shorter than it was"))
    }
}

/// The `N` bytes at `position` of an entry.
fn field<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[position..position + N]);
    field
}
