//! The entries of an index's file one by one, whoever writes to it.

use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use super::Entry;
use super::entry_file::ENTRIES_PER_READ;
use crate::storage::{OpenMode, Storage, StorageFile};

/// Where somebody is in a file of entries.
pub(crate) struct EntryReader<E> {
    /// None where there is no file: it has no entry then.
    file: Option<Arc<dyn StorageFile>>,
    /// Where the next entry begins.
    position: u64,
    /// What was read from there on.
    ahead: Vec<u8>,
    /// How much of that was passed.
    passed: usize,
    entry: PhantomData<E>,
}

impl<E: Entry> EntryReader<E> {
    /// Those of the file `path`, if there is one.
    pub(crate) fn open(storage: &dyn Storage, path: &Path) -> io::Result<Self> {
        let file = match storage.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        Ok(Self { file, position: 0, ahead: Vec::new(), passed: 0, entry: PhantomData })
    }

    /// Where in the file the next entry begins, or would.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How many entries were passed.
    pub(crate) fn entries(&self) -> u64 {
        self.position / E::BYTES as u64
    }

    /// Whether there is a file.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The next entry, if there is one.
    pub(crate) fn peek(&mut self) -> io::Result<Option<E>> {
        if self.ahead.len() - self.passed < E::BYTES
            && let Some(file) = &self.file
        {
            self.ahead.resize(ENTRIES_PER_READ as usize * E::BYTES, 0);
            let read = file.read_at(self.position, &mut self.ahead)?;
            self.ahead.truncate(read - read % E::BYTES);
            self.passed = 0;
        }
        Ok(self.ahead[self.passed..].get(..E::BYTES).map(E::decode))
    }

    /// Goes on to the entry behind the one that was seen.
    pub(crate) fn pass(&mut self) {
        self.position += E::BYTES as u64;
        self.passed += E::BYTES;
    }
}
