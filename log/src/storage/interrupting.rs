//! Storage that does something else before a file is read or made: what another thread might do meanwhile, in one
//! thread and always at the same place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Entry, FileIdentity, OpenMode, Storage, StorageFile, StorageLock, SyncPurpose, SyncTicket};

/// Passes everything on.
pub(crate) struct InterruptingStorage {
    storage: Arc<dyn Storage>,
    interruption: Arc<Mutex<Option<Interruption>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Read,
    Create,
}

struct Interruption {
    path: PathBuf,
    moment: Moment,
    act: Box<dyn FnOnce() + Send>,
}

impl InterruptingStorage {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { storage, interruption: Arc::default() })
    }

    /// Does `act` before the next read of the file that was opened as `path`, once.
    pub(crate) fn before_read(&self, path: PathBuf, act: impl FnOnce() + Send + 'static) {
        let interruption = Interruption { path, moment: Moment::Read, act: Box::new(act) };
        *self.interruption.lock() = Some(interruption);
    }

    /// Does `act` before the file `path` is made, once.
    pub(crate) fn before_create(&self, path: PathBuf, act: impl FnOnce() + Send + 'static) {
        let interruption = Interruption { path, moment: Moment::Create, act: Box::new(act) };
        *self.interruption.lock() = Some(interruption);
    }

    /// Whether there was no such moment yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.interruption.lock().is_some()
    }
}

impl Storage for InterruptingStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if mode == OpenMode::Create {
            interrupt(&self.interruption, path, Moment::Create);
        }
        let file = self.storage.open(path, mode)?;
        Ok(Arc::new(InterruptedFile { file, path: path.to_owned(), interruption: self.interruption.clone() }))
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
        self.storage.sync_dir(path, purpose)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn StorageLock>> {
        self.storage.lock(path, holder)
    }
}

struct InterruptedFile {
    file: Arc<dyn StorageFile>,
    path: PathBuf,
    interruption: Arc<Mutex<Option<Interruption>>>,
}

fn interrupt(interruption: &Mutex<Option<Interruption>>, path: &Path, moment: Moment) {
    let is_due = |interruption: &mut Interruption| interruption.path == path && interruption.moment == moment;
    let due = interruption.lock().take_if(is_due);
    // It may read too: no lock is held then.
    if let Some(Interruption { act, .. }) = due {
        act();
    }
}

impl StorageFile for InterruptedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.file.identity()
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        interrupt(&self.interruption, &self.path, Moment::Read);
        self.file.read_at(position, buffer)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn sync(&self, purpose: SyncPurpose) -> SyncTicket {
        self.file.sync(purpose)
    }
}
