//! The disk as one process sees it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::super::{Entry, OpenMode, Storage, StorageFile, StorageLock, SyncPurpose};
use super::MemoryStorage;

/// Dead once the disk has crashed or its processes were killed: what a test still holds of an ended
/// process must not write to the disk that the next one has opened.
pub(super) struct Mount {
    pub(super) storage: Arc<MemoryStorage>,
    pub(super) generation: u64,
}

impl Mount {
    fn storage(&self) -> io::Result<&MemoryStorage> {
        self.storage.disk.lock().alive(self.generation)?;
        Ok(&self.storage)
    }
}

impl Storage for Mount {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.storage()?.open(path, mode)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.storage()?.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.storage()?.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.storage()?.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage()?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.storage()?.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.storage()?.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path, purpose: SyncPurpose) -> io::Result<()> {
        self.storage()?.sync_dir(path, purpose)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn StorageLock>> {
        self.storage()?.lock(path, holder)
    }

    fn boot_id(&self) -> Option<Uuid> {
        self.storage.boot_id()
    }
}
