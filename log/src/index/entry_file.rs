//! The entries of an index: on file and, behind them, in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use super::{Entry, FileContext, Leftover};
use crate::open_files::{LazyFile, is_stale};
use crate::storage::{OpenMode, Storage, StorageFile};

/// How many entries are read at a time.
pub(super) const ENTRIES_PER_READ: u64 = 512;

/// The longest entry: that of an aborted transaction.
const MAX_ENTRY_BYTES: usize = 34;

/// Entries on file and, behind them, those that are in memory only.
pub(super) struct EntryFile<E> {
    context: FileContext,
    path: PathBuf,
    /// The file, once it was found: the name may be another file's later, compaction having replaced the
    /// segment, and who reads the old segment must not be told of the new one.
    file: OnceLock<Arc<LazyFile>>,
    entries: RwLock<Entries<E>>,
    leftover: Leftover,
}

/// Where a search ended.
pub(super) struct Found<E> {
    /// How many entries it holds for.
    pub(super) count: u64,
    /// The last of them.
    pub(super) last: Option<E>,
    /// The one behind it.
    pub(super) next: Option<E>,
}

struct Entries<E> {
    /// How many entries of the file are believed.
    on_file: u64,
    in_memory: Vec<E>,
}

impl<E: Entry> EntryFile<E> {
    /// An index that holds nothing yet. What a file of that name holds is not believed.
    pub(super) fn empty(context: FileContext, path: PathBuf) -> Self {
        let entries = RwLock::new(Entries { on_file: 0, in_memory: Vec::new() });
        Self { context, path, file: OnceLock::new(), entries, leftover: Leftover::Nothing }
    }

    /// The index of a sealed segment: every entry of the file is believed.
    pub(super) fn sealed(context: FileContext, path: PathBuf) -> io::Result<Self> {
        let index = Self::empty(context, path);
        let Some(file) = open_if_there(&*index.context.storage, &index.path, OpenMode::Read)? else {
            return Ok(index);
        };
        index.entries.write().on_file = file.len()? / E::BYTES as u64;
        index.note_file(file)?;
        Ok(index)
    }

    /// An index of which only the first entries are believed: as long as `is_believed` says so and each
    /// follows the one before.
    pub(super) fn believed(
        context: FileContext,
        path: PathBuf,
        is_believed: impl Fn(&E) -> bool,
    ) -> io::Result<Self> {
        let mut index = Self::sealed(context, path)?;
        let mut previous: Option<E> = None;
        let mut believed = 0;
        let mut leftover = Leftover::Nothing;
        // What never reached the disk may read as zeros, behind all that was synced.
        let zeros = E::decode(&[0; MAX_ENTRY_BYTES][..E::BYTES]);
        index.for_each_from(0, |entry| {
            let is_possible = is_believed(&entry);
            if leftover == Leftover::Nothing
                && is_possible
                && previous.is_none_or(|before| entry.follows(&before))
            {
                believed += 1;
                previous = Some(entry);
            } else {
                let is_whole = is_possible && entry != zeros;
                leftover = if is_whole { Leftover::Contradiction } else { Leftover::Later };
            }
            leftover != Leftover::Contradiction
        })?;
        index.entries.write().on_file = believed;
        index.leftover = leftover;
        Ok(index)
    }

    /// The same index, whose file goes by the name `path` next.
    pub(super) fn renamed(self, path: PathBuf) -> Self {
        let file =
            self.file.into_inner().map(|file| file.renamed(&path)).map_or_else(OnceLock::new, OnceLock::from);
        Self { path, file, ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds behind what is believed of it.
    pub(super) fn leftover(&self) -> Leftover {
        self.leftover
    }

    pub(super) fn push(&self, entry: E) {
        self.entries.write().in_memory.push(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        let entries = self.entries.read();
        entries.on_file == 0 && entries.in_memory.is_empty()
    }

    /// How many entries are believed.
    pub(super) fn len(&self) -> u64 {
        let entries = self.entries.read();
        entries.on_file + entries.in_memory.len() as u64
    }

    /// The CRC-32 of all `count` entries, or of the last of them where the index is a hint.
    pub(super) fn checksum(&self, count: u64) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = Vec::with_capacity(E::BYTES);
        self.for_each_from(first_summed::<E>(count), |entry| {
            bytes.clear();
            entry.encode(&mut bytes);
            hasher.update(&bytes);
            true
        })?;
        Ok(hasher.finalize())
    }

    /// The same of the first `count` entries of the file, believed or not; `None` if it has fewer.
    pub(super) fn checksum_on_file(&self, count: u64) -> io::Result<Option<u32>> {
        let mut hasher = crc32fast::Hasher::new();
        let file = if count == 0 { None } else { self.open_to_read()? };
        let Some(file) = file else { return Ok((count == 0).then(|| hasher.finalize())) };
        let mut next = first_summed::<E>(count);
        let mut bytes = vec![0; ENTRIES_PER_READ.min(count - next) as usize * E::BYTES];
        while next < count {
            let wanted = ENTRIES_PER_READ.min(count - next);
            let bytes = &mut bytes[..wanted as usize * E::BYTES];
            if file.read_at(next * E::BYTES as u64, bytes)? < bytes.len() {
                return Ok(None);
            }
            hasher.update(bytes);
            next += wanted;
        }
        Ok(Some(hasher.finalize()))
    }

    /// Whether there is, or has to be, a file.
    pub(super) fn has_file(&self) -> io::Result<bool> {
        self.context.storage.exists(&self.path)
    }

    pub(super) fn last(&self) -> io::Result<Option<E>> {
        let (on_file, behind) = {
            let entries = self.entries.read();
            (entries.on_file, entries.in_memory.last().copied())
        };
        if behind.is_some() || on_file == 0 {
            return Ok(behind);
        }
        let Some(file) = self.open_to_read()? else { return Ok(None) };
        read_entry(&*file, on_file - 1).map(Some)
    }

    /// Finds the end of the entries for which `holds`; it must hold for the first ones and for none
    /// behind them.
    pub(super) fn search(&self, holds: impl Fn(&E) -> bool) -> io::Result<Found<E>> {
        let (on_file, behind) = {
            let entries = self.entries.read();
            let count = entries.in_memory.partition_point(&holds);
            let next = entries.in_memory.get(count).copied();
            if count > 0 {
                let last = Some(entries.in_memory[count - 1]);
                return Ok(Found { count: entries.on_file + count as u64, last, next });
            }
            (entries.on_file, next)
        };
        self.search_file(on_file, behind, holds)
    }

    /// Searches the entries on file, behind which `behind` is the first one in memory.
    fn search_file(
        &self,
        on_file: u64,
        behind: Option<E>,
        holds: impl Fn(&E) -> bool,
    ) -> io::Result<Found<E>> {
        let mut found = Found { count: 0, last: None, next: behind };
        if on_file == 0 {
            return Ok(found);
        }
        let Some(file) = self.open_to_read()? else { return Ok(found) };
        let mut high = on_file;
        while found.count < high {
            let middle = found.count + (high - found.count) / 2;
            let entry: E = read_entry(&*file, middle)?;
            if holds(&entry) {
                found = Found { count: middle + 1, last: Some(entry), next: found.next };
            } else {
                high = middle;
                found.next = Some(entry);
            }
        }
        Ok(found)
    }

    /// Calls `visit` for each entry from the `first` on, until it answers false.
    pub(super) fn for_each_from(&self, first: u64, mut visit: impl FnMut(E) -> bool) -> io::Result<()> {
        let (on_file, in_memory) = {
            let entries = self.entries.read();
            let skipped = first.saturating_sub(entries.on_file) as usize;
            // Only what is visited: of many small transactions there is much.
            (entries.on_file, entries.in_memory.get(skipped..).unwrap_or_default().to_vec())
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
        for entry in in_memory {
            if !visit(entry) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes what is in memory only behind what is believed on file, and cuts off whatever else the
    /// file held. The file is to be synced: it may be as it should be and not be durable.
    pub(super) fn persist(&self) -> io::Result<Arc<dyn StorageFile>> {
        let (on_file, bytes) = {
            let entries = self.entries.read();
            let mut bytes = Vec::with_capacity(entries.in_memory.len() * E::BYTES);
            entries.in_memory.iter().for_each(|entry| entry.encode(&mut bytes));
            (entries.on_file, bytes)
        };
        let storage = &*self.context.storage;
        let there = open_if_there(storage, &self.path, OpenMode::Write)?;
        let file = there.map_or_else(|| storage.open(&self.path, OpenMode::Create), Ok)?;
        let believed = on_file * E::BYTES as u64;
        if file.len()? > believed {
            file.truncate(believed)?;
        }
        if !bytes.is_empty() {
            file.write_at(believed, &bytes)?;
        }
        self.note_file(file.clone())?;
        let mut entries = self.entries.write();
        entries.on_file += (bytes.len() / E::BYTES) as u64;
        entries.in_memory.clear();
        Ok(file)
    }

    /// Keeps the file open until it is released, if anything in it is believed.
    pub(super) fn hold(&self) -> io::Result<()> {
        match self.file.get() {
            Some(file) if self.entries.read().on_file > 0 => file.hold(),
            _ => Ok(()),
        }
    }

    /// Keeps the file open no longer.
    pub(super) fn release(&self) {
        if let Some(file) = self.file.get() {
            file.release();
        }
    }

    fn note_file(&self, file: Arc<dyn StorageFile>) -> io::Result<()> {
        if self.file.get().is_none() {
            let FileContext { storage, open_files } = &self.context;
            let file = LazyFile::of(storage, open_files, &self.path, file, OpenMode::Read)?;
            self.file.get_or_init(|| file);
        }
        Ok(())
    }

    /// The file, if there is one. A mere hint may be gone with its segment: then the index knows nothing.
    fn open_to_read(&self) -> io::Result<Option<Arc<dyn StorageFile>>> {
        match self.file.get().map(LazyFile::get) {
            None => Ok(None),
            Some(Err(error)) if E::IS_HINT && is_stale(&error) => Ok(None),
            Some(opened) => opened.map(Some),
        }
    }
}

fn open_if_there(
    storage: &dyn Storage,
    path: &Path,
    mode: OpenMode,
) -> io::Result<Option<Arc<dyn StorageFile>>> {
    match storage.open(path, mode) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// From which of `count` entries on their checksum is taken.
fn first_summed<E: Entry>(count: u64) -> u64 {
    if E::IS_HINT { count.saturating_sub(1) } else { 0 }
}

/// The entry behind the first `index` of them.
fn read_entry<E: Entry>(file: &dyn StorageFile, index: u64) -> io::Result<E> {
    let mut bytes = [0; MAX_ENTRY_BYTES];
    let bytes = &mut bytes[..E::BYTES];
    read_exact(file, index * E::BYTES as u64, bytes)?;
    Ok(E::decode(bytes))
}

fn read_exact(file: &dyn StorageFile, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    if file.read_at(position, buffer)? == buffer.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the index is shorter than it was"))
    }
}
