//! Storage that passes everything on to another one, and tells an observer of it: who counts, interrupts or
//! refuses is an [`Observer`], and this is the one place that passes calls on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::{
    Entry, FileIdentity, OpenMode, Storage, StorageDirectory, StorageFile, StorageLock, SyncReason,
    SyncTicket,
};

/// What is asked of storage, or of a file that was opened in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// A file that is there is opened.
    Open(&'a Path),
    /// A file is made.
    Create(&'a Path),
    /// The names in a directory are listed.
    List(&'a Path),
    /// Whatever else is asked about a name: that it is there, made, changed, removed or locked.
    Name(&'a Path),
    /// A directory is opened.
    OpenDirectory(&'a Path),
    /// The names in the directory that was opened by this name are synced.
    SyncNames(&'a Path),
    /// Bytes of the file that was opened by this name are read.
    Read(&'a Path),
    /// So many bytes are written.
    Write(usize),
    /// A file is cut.
    Truncate,
    /// A file is synced.
    Sync,
    /// A file is asked which it is, or how long.
    Describe,
}

/// Who is told what is asked of an [`ObservedStorage`].
pub trait Observer: Send + Sync + 'static {
    /// Before it is done.
    ///
    /// # Errors
    /// Instead of doing it.
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let _ = call;
        Ok(())
    }

    /// A file, or a directory, was opened.
    fn opened(&self) {}

    /// It was closed.
    fn closed(&self) {}

    /// So many bytes were read.
    fn read(&self, bytes: usize) {
        let _ = bytes;
    }
}

/// Passes everything on, and tells an observer.
pub struct ObservedStorage<O> {
    storage: Arc<dyn Storage>,
    observer: Arc<O>,
}

impl<O: Observer> ObservedStorage<O> {
    /// Tells `observer` what is asked of `storage` from now on.
    pub fn observed_by(observer: O, storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { storage, observer: Arc::new(observer) })
    }

    /// Who is told.
    pub fn observer(&self) -> &O {
        &self.observer
    }
}

impl<O: Observer> Storage for ObservedStorage<O> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let call = if mode == OpenMode::Create { Call::Create(path) } else { Call::Open(path) };
        self.observer.before(call)?;
        let file = self.storage.open(path, mode)?;
        self.observer.opened();
        Ok(Arc::new(ObservedFile { file, path: path.to_owned(), observer: self.observer.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.observer.before(Call::Name(path))?;
        self.storage.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.observer.before(Call::List(path))?;
        self.storage.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.observer.before(Call::Name(path))?;
        self.storage.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.observer.before(Call::Name(from))?;
        self.storage.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.observer.before(Call::Name(path))?;
        self.storage.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.observer.before(Call::Name(path))?;
        self.storage.remove_dir_all(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        self.observer.before(Call::OpenDirectory(path))?;
        let directory = self.storage.open_dir(path)?;
        self.observer.opened();
        Ok(Arc::new(ObservedDirectory { directory, path: path.to_owned(), observer: self.observer.clone() }))
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn StorageLock>> {
        self.observer.before(Call::Name(path))?;
        self.storage.lock(path, holder)
    }

    fn boot_id(&self) -> Option<Uuid> {
        self.storage.boot_id()
    }
}

struct ObservedDirectory<O: Observer> {
    directory: Arc<dyn StorageDirectory>,
    path: PathBuf,
    observer: Arc<O>,
}

impl<O: Observer> Drop for ObservedDirectory<O> {
    fn drop(&mut self) {
        self.observer.closed();
    }
}

impl<O: Observer> StorageDirectory for ObservedDirectory<O> {
    fn sync_for(&self, reason: SyncReason) -> io::Result<()> {
        self.observer.before(Call::SyncNames(&self.path))?;
        self.directory.sync_for(reason)
    }
}

struct ObservedFile<O: Observer> {
    file: Arc<dyn StorageFile>,
    path: PathBuf,
    observer: Arc<O>,
}

impl<O: Observer> Drop for ObservedFile<O> {
    fn drop(&mut self) {
        self.observer.closed();
    }
}

impl<O: Observer> StorageFile for ObservedFile<O> {
    fn len(&self) -> io::Result<u64> {
        self.observer.before(Call::Describe)?;
        self.file.len()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.observer.before(Call::Describe)?;
        self.file.identity()
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.observer.before(Call::Write(bytes.len()))?;
        self.file.write_at(position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.observer.before(Call::Read(&self.path))?;
        let read = self.file.read_at(position, buffer)?;
        self.observer.read(read);
        Ok(read)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.observer.before(Call::Truncate)?;
        self.file.truncate(length)
    }

    fn sync_for(&self, reason: SyncReason) -> SyncTicket {
        match self.observer.before(Call::Sync) {
            Ok(()) => self.file.sync_for(reason),
            Err(error) => SyncTicket::completed(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::storage::SyncPurpose;
    use crate::storage::memory::MemoryStorage;

    /// Notes every call, and refuses what it is told to.
    #[derive(Default)]
    struct Notes {
        calls: Mutex<Vec<String>>,
        refuses: bool,
    }

    impl Observer for Notes {
        fn before(&self, call: Call<'_>) -> io::Result<()> {
            self.calls.lock().push(format!("{call:?}"));
            if self.refuses { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
        }
    }

    /// Asks everything of a storage, in an order in which all of it can be done; returns the outcomes.
    fn ask_all(storage: &dyn Storage, file: &dyn StorageFile) -> Vec<io::Result<()>> {
        let path = Path::new;
        vec![
            storage.create_dir_all(path("/d")),
            storage.open(path("/d/a"), OpenMode::Create).map(drop),
            storage.open(path("/d/a"), OpenMode::Read).map(drop),
            storage.exists(path("/d/a")).map(drop),
            storage.list(path("/d")).map(drop),
            storage.rename(path("/d/a"), path("/d/b")),
            storage.sync_dir(path("/d"), SyncPurpose::Directory),
            storage.remove_file(path("/d/b")),
            storage.remove_dir_all(path("/d")),
            storage.lock(path("/lock"), "who").map(drop),
            file.write_at(0, b"abc"),
            file.read_at(0, &mut [0; 3]).map(drop),
            file.len().map(drop),
            file.identity().map(drop),
            file.truncate(1),
            file.sync(SyncPurpose::Records).wait(),
        ]
    }

    #[test]
    fn everything_is_passed_on_and_told_before_it_is_done() {
        let disk = MemoryStorage::new(1);
        let storage = ObservedStorage::observed_by(Notes::default(), disk.clone());
        let file = storage.open(Path::new("/file"), OpenMode::Create).expect("the disk is fine");
        for outcome in ask_all(&*storage, &*file) {
            outcome.expect("the disk is fine");
        }
        assert_eq!(disk.contents(Path::new("/file")).expect("it was made"), b"a");
        assert_eq!(storage.boot_id(), disk.boot_id());
        let expected = [
            "Create(\"/file\")",
            "Name(\"/d\")",
            "Create(\"/d/a\")",
            "Open(\"/d/a\")",
            "Name(\"/d/a\")",
            "List(\"/d\")",
            "Name(\"/d/a\")",
            "OpenDirectory(\"/d\")",
            "SyncNames(\"/d\")",
            "Name(\"/d/b\")",
            "Name(\"/d\")",
            "Name(\"/lock\")",
            "Write(3)",
            "Read(\"/file\")",
            "Describe",
            "Describe",
            "Truncate",
            "Sync",
        ];
        assert_eq!(*storage.observer().calls.lock(), expected);
    }

    #[test]
    fn what_the_observer_refuses_is_not_done() {
        let disk = MemoryStorage::new(1);
        let file = disk.open(Path::new("/file"), OpenMode::Create).expect("the disk is fine");
        let observer = Arc::new(Notes { refuses: true, ..Notes::default() });
        let storage = ObservedStorage { storage: disk.clone(), observer: observer.clone() };
        let file = ObservedFile { file, path: PathBuf::from("/file"), observer };
        let before = disk.operations();
        for outcome in ask_all(&storage, &file) {
            assert_eq!(outcome.expect_err("it is refused").kind(), io::ErrorKind::ResourceBusy);
        }
        assert_eq!(disk.operations(), before);
    }
}
