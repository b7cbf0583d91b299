//! Files on a disk.
//!
//! Reads and writes are positional (`pread`, `pwrite`), so a handle is shared by threads without a
//! lock. A sync is `fdatasync`, run by a small pool: the syncs of one group commit overlap, and the
//! file system merges them.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::process::{Resource, getrlimit};
use uuid::Uuid;

use super::{
    Entry, FileIdentity, OpenMode, Storage, StorageDirectory, StorageFile, StorageLock, SyncCompletion,
    SyncReason, SyncTicket,
};
use crate::spawn::spawn;

/// The largest number of threads that sync files.
pub const SYNC_THREADS_MAX: usize = 64;

/// Where Linux tells one start of the machine from the next.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// How much of a lock file is shown as its holder.
const HOLDER_BYTES_MAX: u64 = 4096;

/// How many files the operating system lets this process have open: what `ulimit -n` says. `None`: any number.
pub(crate) fn open_files_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The operating system's files.
pub struct DiskStorage {
    pool: Option<Arc<SyncPool>>,
}

impl DiskStorage {
    /// Storage that syncs on `sync_threads` threads of its own (at most [`SYNC_THREADS_MAX`]), or, where
    /// that is 0, on the thread that asks, which then waits for the disk.
    pub fn new(sync_threads: usize) -> io::Result<Arc<Self>> {
        let pool = match sync_threads.min(SYNC_THREADS_MAX) {
            0 => None,
            threads => Some(SyncPool::start(threads)?),
        };
        Ok(Arc::new(Self { pool }))
    }
}

impl Storage for DiskStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let writes = mode != OpenMode::Read;
        let file =
            OpenOptions::new().read(true).write(writes).create_new(mode == OpenMode::Create).open(path)?;
        Ok(Arc::new(DiskFile { file: Arc::new(file), pool: self.pool.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push(Entry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_directory: entry.file_type()?.is_dir(),
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        Ok(Arc::new(DiskDirectory(File::open(path)?)))
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn StorageLock>> {
        let file = lock_file(path)?;
        file.set_len(0)?;
        file.write_all_at(holder.as_bytes(), 0)?;
        Ok(Box::new(DiskLock { path: path.to_owned(), _file: file }))
    }

    /// Linux has one; elsewhere it cannot be told.
    fn boot_id(&self) -> Option<Uuid> {
        Uuid::try_parse(fs::read_to_string(BOOT_ID_PATH).ok()?.trim()).ok()
    }
}

/// Opens and locks the file. Whoever gave the lock up since has removed the file: then what is locked is
/// no longer what others will find there, and the next one is.
fn lock_file(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path)? => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, read_holder(&file)?));
            }
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_holder(file: &File) -> io::Result<String> {
    let length = file.metadata()?.len().min(HOLDER_BYTES_MAX);
    let mut text = vec![0; length as usize];
    let read = read_fully(file, 0, &mut text)?;
    Ok(String::from_utf8_lossy(&text[..read]).into_owned())
}

/// The operating system gives the lock up when the file is closed, also when the process is killed.
struct DiskLock {
    path: PathBuf,
    _file: File,
}

impl StorageLock for DiskLock {}

impl Drop for DiskLock {
    /// Removes the file while it is still locked.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(file = %self.path.display(), %error, "a lock file stays");
        }
    }
}

struct DiskDirectory(File);

impl StorageDirectory for DiskDirectory {
    fn sync_for(&self, _reason: SyncReason) -> io::Result<()> {
        self.0.sync_all()
    }
}

struct DiskFile {
    file: Arc<File>,
    pool: Option<Arc<SyncPool>>,
}

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        let found = self.file.metadata()?;
        Ok(FileIdentity { device: found.dev(), inode: found.ino(), made: found.created().ok() })
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_fully(&self.file, position, buffer)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_for(&self, _reason: SyncReason) -> SyncTicket {
        match &self.pool {
            None => SyncTicket::completed(self.file.sync_data()),
            Some(pool) => pool.submit(self.file.clone()),
        }
    }
}

/// Fills `buffer`, or stops at the end of the file; a single `pread` may return less for no reason.
fn read_fully(file: &File, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Threads that run `fdatasync`. They end, after what was submitted, when the storage and its last
/// file are dropped.
struct SyncPool {
    shared: Arc<SyncQueue>,
}

#[derive(Default)]
struct SyncQueue {
    /// As long as callers have submitted and not waited: a flusher has one sync per file under way.
    state: Mutex<QueueState>,
    work: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<SyncJob>,
    closed: bool,
}

struct SyncJob {
    file: Arc<File>,
    completion: SyncCompletion,
}

impl SyncPool {
    fn start(threads: usize) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self { shared: Arc::default() });
        for thread in 0..threads {
            let shared = pool.shared.clone();
            spawn(&format!("lotic-sync-{thread}"), move || shared.run())?;
        }
        Ok(pool)
    }

    fn submit(&self, file: Arc<File>) -> SyncTicket {
        let (ticket, completion) = SyncTicket::pending();
        self.shared.state.lock().jobs.push_back(SyncJob { file, completion });
        self.shared.work.notify_one();
        ticket
    }
}

impl Drop for SyncPool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl SyncQueue {
    fn run(&self) {
        while let Some(job) = self.next() {
            job.completion.complete(job.file.sync_data());
        }
    }

    fn next(&self) -> Option<SyncJob> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            self.work.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SyncPurpose;

    fn check_round_trip(sync_threads: usize) {
        let directory = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(sync_threads).unwrap();
        let path = directory.path().join("a/b/file");
        storage.create_dir_all(path.parent().unwrap()).unwrap();
        let file = storage.open(&path, OpenMode::Create).unwrap();
        file.write_at(0, b"hello world").unwrap();
        let tickets: Vec<_> = (0..8).map(|_| file.sync(SyncPurpose::Records)).collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        file.truncate(5).unwrap();

        let again = storage.open(&path, OpenMode::Read).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(again.len().unwrap(), 5);
        assert_eq!(again.read_at(1, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"ello");
        let storage: &dyn Storage = &*storage;
        storage.sync_dir(path.parent().unwrap(), SyncPurpose::Directory).unwrap();
    }

    #[test]
    fn what_was_written_is_read_whether_synced_inline_or_by_the_pool() {
        check_round_trip(0);
        check_round_trip(3);
    }

    #[test]
    fn a_file_is_made_once_and_must_exist_to_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(0).unwrap();
        let path = directory.path().join("file");
        assert_eq!(storage.open(&path, OpenMode::Write).err().unwrap().kind(), io::ErrorKind::NotFound);
        storage.open(&path, OpenMode::Create).unwrap();
        let again = storage.open(&path, OpenMode::Create).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_file_is_told_from_one_that_takes_its_name_and_is_the_same_under_another() {
        let directory = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(0).unwrap();
        let at = |name: &str| directory.path().join(name);
        let first = storage.open(&at("a"), OpenMode::Create).unwrap().identity().unwrap();
        let other = storage.open(&at("b"), OpenMode::Create).unwrap().identity().unwrap();
        assert_ne!(first, other);
        storage.rename(&at("b"), &at("a")).unwrap();
        let found = storage.open(&at("a"), OpenMode::Read).unwrap();
        found.len().unwrap();
        assert_eq!(found.identity().unwrap(), other);
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder_until_the_first_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(0).unwrap();
        let path = directory.path().join(".lock");
        let first = storage.lock(&path, "the first, with a long text").unwrap();
        let refused = storage.lock(&path, "the second").err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(refused.to_string(), "the first, with a long text");
        drop(first);
        assert!(!path.exists(), "nothing is left of it");
        let _second = storage.lock(&path, "the second").unwrap();
        assert_eq!(storage.lock(&path, "the third").err().unwrap().to_string(), "the second");
    }

    #[test]
    fn a_lock_that_changes_hands_is_never_held_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".lock");
        let held = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let contend = |_| {
            let (path, held) = (path.clone(), held.clone());
            let storage = DiskStorage::new(0).unwrap();
            spawn("contend", move || {
                let mut taken = 0;
                while taken < 300 {
                    let Ok(lock) = storage.lock(&path, "one of many") else { continue };
                    assert_eq!(held.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    taken += 1;
                    held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    drop(lock);
                }
            })
        };
        let threads: Vec<_> = (0..3).map(contend).collect();
        threads.into_iter().for_each(|thread| thread.unwrap().join().unwrap());
    }

    #[test]
    fn entries_are_listed_in_order_and_renamed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(0).unwrap();
        let at = |name: &str| directory.path().join(name);
        storage.create_dir_all(&at("c/d")).unwrap();
        storage.open(&at("b"), OpenMode::Create).unwrap();
        storage.rename(&at("b"), &at("a")).unwrap();
        let names = |storage: &DiskStorage| {
            let list = storage.list(directory.path()).unwrap();
            list.into_iter().map(|entry| (entry.name, entry.is_directory)).collect::<Vec<_>>()
        };
        assert_eq!(names(&storage), [("a".into(), false), ("c".into(), true)]);
        storage.remove_file(&at("a")).unwrap();
        storage.remove_dir_all(&at("c")).unwrap();
        assert!(names(&storage).is_empty());
        assert!(!storage.exists(&at("a")).unwrap());
    }
}
