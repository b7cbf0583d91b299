//! Storage that counts what is asked of another one: files open at once, bytes read and written, syncs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Entry, FileIdentity, OpenMode, Storage, StorageFile, StorageLock, SyncPurpose, SyncTicket};

/// Passes everything on and counts it.
pub struct CountingStorage {
    storage: Arc<dyn Storage>,
    counters: Arc<Counters>,
}

/// What was asked of a [`CountingStorage`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that are open.
    pub open: u64,
    /// The most files that were open at once.
    pub open_most: u64,
    /// How often a file was opened.
    pub opened: u64,
    /// How often something was read.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Syncs of files and of directories.
    pub syncs: u64,
}

#[derive(Default)]
struct Counters {
    open: AtomicU64,
    open_most: AtomicU64,
    opened: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
}

impl CountingStorage {
    /// Counts what is asked of `storage` from now on.
    pub fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { storage, counters: Arc::default() })
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        let counters = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            open: get(&counters.open),
            open_most: get(&counters.open_most),
            opened: get(&counters.opened),
            reads: get(&counters.reads),
            read_bytes: get(&counters.read_bytes),
            written_bytes: get(&counters.written_bytes),
            syncs: get(&counters.syncs),
        }
    }
}

impl Counters {
    fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_most.fetch_max(open, Ordering::Relaxed);
    }
}

impl Storage for CountingStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.storage.open(path, mode)?;
        self.counters.open();
        Ok(Arc::new(CountedFile { file, counters: self.counters.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.storage.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.storage.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.storage.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.storage.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.storage.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path, purpose: SyncPurpose) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.storage.sync_dir(path, purpose)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn StorageLock>> {
        self.storage.lock(path, holder)
    }
}

struct CountedFile {
    file: Arc<dyn StorageFile>,
    counters: Arc<Counters>,
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StorageFile for CountedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.file.identity()
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.counters.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(position, buffer)?;
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.counters.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn sync(&self, purpose: SyncPurpose) -> SyncTicket {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync(purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn what_is_open_at_once_and_what_is_read_is_counted() {
        let storage = CountingStorage::new(MemoryStorage::new(1));
        let path = Path::new("/file");
        let file = storage.open(path, OpenMode::Create).expect("the disk is fine");
        file.write_at(0, &[7; 10]).expect("the disk is fine");
        let again = storage.open(path, OpenMode::Read).expect("it was made");
        assert_eq!(again.read_at(4, &mut [0; 100]).expect("the disk is fine"), 6);
        drop(again);
        file.sync(SyncPurpose::Records).wait().expect("the disk is fine");
        let expected =
            Counts { open: 1, open_most: 2, opened: 2, reads: 1, read_bytes: 6, written_bytes: 10, syncs: 1 };
        assert_eq!(storage.counts(), expected);
    }
}
