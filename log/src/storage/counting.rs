//! Storage that counts what is asked of another one: files open at once, bytes read and written, syncs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Storage;
use super::observed::{Call, ObservedStorage, Observer};

/// Passes everything on and counts it.
pub type CountingStorage = ObservedStorage<Counters>;

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

/// What a [`CountingStorage`] counts with.
#[derive(Debug, Default)]
pub struct Counters {
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
        Self::observed_by(Counters::default(), storage)
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        let counters = self.observer();
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

impl Observer for Counters {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        match call {
            Call::Write(bytes) => self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed),
            Call::Sync | Call::SyncNames(_) => self.syncs.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        Ok(())
    }

    fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_most.fetch_max(open, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{OpenMode, SyncPurpose};

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
