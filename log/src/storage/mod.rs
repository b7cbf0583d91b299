//! The port to files and directories, and its two implementations: the disk, and a memory that can
//! lose, tear and reorder whatever was not synced.
//!
//! The rules are POSIX's, taken strictly: bytes are durable after a sync of their file; a name
//! (created, renamed or removed) is durable after a sync of its directory; neither implies the other.
//! A file that was synced but whose directory was not may be gone after a power cut.
//!
//! What is synced of checkpoints of state and of the files of connectors goes through this port too, so that a power
//! cut in memory shows what depends on that. RocksDB's own files, and what is only read, go past it.
//!
//! What stands before another storage, to count or to interrupt, is an [`observed::Observer`].

pub mod counting;
pub mod disk;
#[cfg(test)]
pub(crate) mod interrupting;
#[cfg(test)]
pub(crate) mod limited;
pub mod memory;
pub mod observed;

use std::io;
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use uuid::Uuid;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; the file must not exist and is made.
    Create,
}

/// What a sync is for. Storage may count syncs by purpose, and a test leaves one purpose out, or one place in the
/// code that names it, to show that the promise it carries depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SyncPurpose {
    /// Records, before they are acknowledged, and before a transaction that holds them is decided.
    Records,
    /// Source records up to the offsets that a transaction consumed, before it is decided.
    Consumed,
    /// A transaction's decision: the commit point.
    Decision,
    /// Transaction markers, before the transaction is recorded complete.
    Markers,
    /// What recovery keeps of a partition's tail, before anyone reads it.
    Recovered,
    /// The name of a new, renamed or removed file or directory.
    Directory,
    /// The catalogue of topics.
    Catalogue,
    /// Recovery points that rise.
    RecoveryPoint,
    /// The file of recovery points, as it is written anew: where a log is opened, closed or repaired, now and then
    /// besides.
    RecoveryPointFile,
    /// Producer and transaction snapshots, clean-shutdown marker.
    Snapshot,
    /// Where a partition begins, and how far compaction has come.
    Marks,
    /// A segment that compaction has written, before it takes the place of others.
    Compacted,
    /// Whatever takes part in a consistent cut, before that is written down.
    Cut,
    /// The mark that there will be records which nobody has synced, before the first of them.
    Unsynced,
    /// A file for which nobody waits, so that it may be closed.
    Closing,
    /// A checkpoint of state: what its files are, and its name.
    Checkpoint,
    /// A file that goes out of the log, and its name, before it counts as written.
    Export,
}

/// Why something is synced: for what, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncReason {
    /// What it is for.
    pub purpose: SyncPurpose,
    /// Where in the code that was named. The memory, which leaves syncs out, tells one from another by it.
    pub(crate) place: &'static Location<'static>,
}

impl SyncReason {
    /// The caller has it synced for `purpose`.
    #[track_caller]
    pub fn of(purpose: SyncPurpose) -> Self {
        Self { purpose, place: Location::caller() }
    }
}

/// Whether a directory could not be synced because of what it is: it may not be read, or its file system syncs or writes
/// no names. What `/home` is in, or a mount point, may be so: others have seen to the names that were there.
pub fn syncs_no_names(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name within the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_directory: bool,
}

/// What tells a file from every other that has had its name, or will have it.
///
/// A number that the file system gives to a file it gives again once that file is gone: when the file was
/// made belongs to it, where the file system knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Of the file system.
    pub device: u64,
    /// Of the file in it.
    pub inode: u64,
    /// When the file was made, where that is known.
    pub made: Option<SystemTime>,
}

/// Whether a file could not be opened, or made, because too many are open.
pub(crate) fn is_too_many_files(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some() && [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).map(Some).contains(&code)
}

/// Files and directories.
pub trait Storage: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;

    /// Makes a directory and those above it, where missing.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Renames a file (replacing one of that name) or a directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Handles that are open keep reading it.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Opens a directory, to make the names in it durable.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>>;

    /// Takes the exclusive lock of `path` (a file, made if missing) and writes `holder` into it. The file
    /// goes when the lock is given up, and stays where the process is killed. Where somebody else has it:
    /// `WouldBlock`, with what that holder wrote as the error's message.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn StorageLock>>;

    /// What tells one life of the page cache from the next: as long as it is the same, all that was written can
    /// be read, synced or not. `None` where that cannot be told.
    fn boot_id(&self) -> Option<Uuid> {
        None
    }
}

impl dyn Storage + '_ {
    /// Makes the names in a directory durable. The reason is the purpose and the caller.
    #[track_caller]
    pub fn sync_dir(&self, path: &Path, purpose: SyncPurpose) -> io::Result<()> {
        self.open_dir(path)?.sync_for(SyncReason::of(purpose))
    }
}

/// An open directory. Who has it open before names are changed can make them durable though no more files can be
/// opened by then.
pub trait StorageDirectory: Send + Sync {
    /// Makes the names in it durable. Waits for the disk.
    fn sync_for(&self, reason: SyncReason) -> io::Result<()>;
}

impl dyn StorageDirectory + '_ {
    /// Makes the names in it durable. The reason is the purpose and the caller.
    #[track_caller]
    pub fn sync(&self, purpose: SyncPurpose) -> io::Result<()> {
        self.sync_for(SyncReason::of(purpose))
    }
}

/// An open file. All methods may be called from several threads; appends are the caller's to order.
pub trait StorageFile: Send + Sync {
    /// The length in bytes, unsynced bytes included.
    fn len(&self) -> io::Result<u64>;

    /// Which file it is, whatever its name is by now.
    fn identity(&self) -> io::Result<FileIdentity>;

    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes all of `bytes` at `position`, which may lie at the end. A failed write may have written a part.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads into `buffer` from `position`; returns how many bytes, fewer only at the end of the file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Has the file end at `length` bytes. Those that it did not have are zeros.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Submits a sync of the bytes (and of the length) as they are now. Never waits.
    fn sync_for(&self, reason: SyncReason) -> SyncTicket;
}

impl dyn StorageFile + '_ {
    /// Submits a sync of the bytes (and of the length) as they are now. Never waits. The reason is the purpose and the
    /// caller.
    #[track_caller]
    pub fn sync(&self, purpose: SyncPurpose) -> SyncTicket {
        self.sync_for(SyncReason::of(purpose))
    }
}

/// Held for as long as the lock is; dropping it gives the lock up.
pub trait StorageLock: Send + Sync {}

/// A submitted sync. Once failed it stays failed: a sync is never tried again.
#[derive(Clone, Debug)]
pub struct SyncTicket {
    shared: Arc<TicketState>,
}

#[derive(Debug, Default)]
struct TicketState {
    state: Mutex<Waited>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Waited {
    /// `Some(None)` is success; an error is kept as kind and message, since each waiter gets a copy.
    outcome: Option<Option<(io::ErrorKind, String)>>,
    wakers: Vec<Waker>,
}

impl SyncTicket {
    /// A ticket and the half that completes it.
    pub fn pending() -> (Self, SyncCompletion) {
        let shared = Arc::<TicketState>::default();
        (Self { shared: shared.clone() }, SyncCompletion { shared })
    }

    /// A ticket for a sync that is done already.
    pub fn completed(outcome: io::Result<()>) -> Self {
        let (ticket, completion) = Self::pending();
        completion.complete(outcome);
        ticket
    }

    /// The outcome, if there is one yet.
    pub fn poll(&self) -> Option<io::Result<()>> {
        self.shared.state.lock().outcome.as_ref().map(outcome)
    }

    /// Wakes `waker` when there is an outcome; at once where there is one already.
    pub fn wake(&self, waker: &Waker) {
        let mut state = self.shared.state.lock();
        if state.outcome.is_none() {
            state.wakers.push(waker.clone());
        } else {
            drop(state);
            waker.wake_by_ref();
        }
    }

    /// Blocks until there is an outcome.
    pub fn wait(&self) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(done) = &state.outcome {
                return outcome(done);
            }
            self.shared.done.wait(&mut state);
        }
    }
}

fn outcome(done: &Option<(io::ErrorKind, String)>) -> io::Result<()> {
    match done {
        None => Ok(()),
        Some((kind, message)) => Err(io::Error::new(*kind, message.clone())),
    }
}

/// The half of a [`SyncTicket`] that storage keeps. Dropped without an outcome it says that the sync
/// failed: nobody waits for one that will never end.
#[derive(Debug)]
pub struct SyncCompletion {
    shared: Arc<TicketState>,
}

impl SyncCompletion {
    /// Says how the sync ended.
    pub fn complete(self, outcome: io::Result<()>) {
        self.settle(outcome);
    }

    fn settle(&self, outcome: io::Result<()>) {
        let failure = outcome.err().map(|error| (error.kind(), error.to_string()));
        let mut state = self.shared.state.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(failure);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.shared.done.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for SyncCompletion {
    fn drop(&mut self) {
        self.settle(Err(io::Error::other("the storage went away before the sync was done")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_nobody_will_end_has_failed() {
        let (ticket, completion) = SyncTicket::pending();
        assert!(ticket.poll().is_none());
        drop(completion);
        ticket.poll().expect("it has an outcome").expect_err("it was not synced");
    }
}
