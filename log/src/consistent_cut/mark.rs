//! The mark that the log may hold records which nobody has synced.
//!
//! The file `unsynced` in the log's directory; numbers are big-endian:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 2; 1 of earlier builds, whose decisions do not say whether they were synced |
//! | 4 | default | 1 if topics without a durability of their own are not synced, 0 if they are |
//! | 5..21 | boot id | of the machine at the first of those records; zeros without one, or if some are lost |
//! | 21..25 | checksum | CRC-32 of the bytes before it |
//!
//! It is durable before the first such record is appended. Where everything is synced it goes: when the log
//! is closed, and when each partition has been recovered, before transactions are ended. It is made anew for
//! what is appended next.
//!
//! A log with a mark of version 1 opens as long as nothing is lost, and has one of version 2 from then on.
//! Where something is, nobody can tell any more which of its decisions go back, and it is refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::partition::Durability;
use crate::storage::{Storage, SyncPurpose};
use crate::whole_file;

const FILE_NAME: &str = "unsynced";
const VERSION: u32 = 2;
const UNTOLD_VERSION: u32 = 1;
const BODY_BYTES: usize = 21;

/// The mark in one log's directory. One for all who write to it.
///
/// Its lock is taken while a partition's writer is held, and nothing else is taken while it is.
pub(crate) struct UnsyncedMark {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    durability: Durability,
    /// Whether this process has left it: what every append looks at.
    is_left: AtomicBool,
    leaving: Mutex<Option<Error>>,
}

/// What a mark that was found says of the records that nobody has synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundMark {
    /// Whether topics without a durability of their own were synced.
    pub(crate) syncs_by_default: bool,
    /// Whether the page cache is the one that was written to.
    pub(crate) is_of_this_boot: bool,
    /// Whether others may have read the records beside their writer, and be reading still: the machine has
    /// not gone down since. Where it cannot tell, they are shown nothing of what a power cut would take.
    pub(crate) may_be_read: bool,
    /// Whether decisions say for themselves that nobody has synced them.
    pub(crate) do_decisions_tell: bool,
}

impl FoundMark {
    /// Looks for the mark in `directory`. `None` if there is nothing that nobody has synced.
    pub(crate) fn find(storage: &dyn Storage, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE_NAME);
        let found = whole_file::read(storage, &path).map_err(|error| failed("read", directory, error))?;
        let Some(bytes) = found else { return Ok(None) };
        let Some((version, syncs_by_default, boot)) = decode(&bytes) else {
            return Err(Error::new(ErrorKind::Corrupt, format!("{} is damaged", path.display())));
        };
        if ![VERSION, UNTOLD_VERSION].contains(&version) {
            let what = format!("{} is of a later version than {VERSION}", path.display());
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let is_of_this_boot = !boot.is_nil() && storage.boot_id() == Some(boot);
        Ok(Some(Self {
            syncs_by_default,
            is_of_this_boot,
            // One of no boot was of this one, or of one before, when it was disowned.
            may_be_read: storage.boot_id().is_some_and(|now| boot.is_nil() || boot == now),
            do_decisions_tell: version != UNTOLD_VERSION,
        }))
    }

    /// Makes it a mark of no boot, durably: some of the records are lost though the machine has stayed up,
    /// and whoever opens the log next is to know, also if what tells of it now is gone by then.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn disown(self, storage: &dyn Storage, directory: &Path) -> Result<()> {
        let version = if self.do_decisions_tell { VERSION } else { UNTOLD_VERSION };
        let bytes = encode(version, self.syncs_by_default, Uuid::nil());
        let written = whole_file::replace(storage, &directory.join(FILE_NAME), &bytes, SyncPurpose::Unsynced);
        written.map(drop).map_err(|error| failed("write", directory, error))
    }

    /// Checks that it can be told what a loss takes back in the log in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`].
    pub(crate) fn check_decisions_tell(self, directory: &Path) -> Result<()> {
        if self.do_decisions_tell {
            return Ok(());
        }
        let what = format!(
            "{} was left by an earlier build of lotic, and records that it did not sync are lost, in a power cut or by a \
             disk that failed: this build cannot tell which transactions go back. Open the log once with the build that \
             wrote it and close it; or remove the file to keep all that is there, transactions of which a part is missing \
             too",
            directory.join(FILE_NAME).display()
        );
        Err(Error::new(ErrorKind::Unsupported, what))
    }
}

impl UnsyncedMark {
    /// The mark of the log in `directory`, whose topics have `durability` unless they say otherwise. It is
    /// not looked for.
    pub(crate) fn new(storage: Arc<dyn Storage>, directory: &Path, durability: Durability) -> Self {
        let (directory, is_left) = (directory.to_owned(), AtomicBool::new(false));
        Self { storage, directory, durability, is_left, leaving: Mutex::new(None) }
    }

    /// For a partition that stands alone, in no log's directory.
    pub(crate) fn none(storage: Arc<dyn Storage>) -> Self {
        let mark = Self::new(storage, Path::new(""), Durability::Sync);
        mark.is_left.store(true, Ordering::Release);
        mark
    }

    /// To be called before anything is appended that nobody syncs. The first call waits for the disk, the
    /// others are free.
    ///
    /// # Errors
    /// Those of the operating system; nothing may be appended then.
    pub(crate) fn leave(&self) -> Result<()> {
        if self.is_left.load(Ordering::Acquire) { Ok(()) } else { self.write() }
    }

    #[cold]
    fn write(&self) -> Result<()> {
        let mut failure = self.leaving.lock();
        if let Some(error) = &*failure {
            return Err(error.clone());
        }
        if self.is_left.load(Ordering::Acquire) {
            return Ok(());
        }
        let boot = self.storage.boot_id().unwrap_or_default();
        let bytes = encode(VERSION, self.durability == Durability::Sync, boot);
        let path = self.directory.join(FILE_NAME);
        match whole_file::replace(&*self.storage, &path, &bytes, SyncPurpose::Unsynced) {
            Ok(_) => self.is_left.store(true, Ordering::Release),
            Err(error) => {
                let error = failed("write", &self.directory, error);
                // With what could not be opened it is written once more the next time.
                if error.kind() != ErrorKind::TooManyFiles {
                    *failure = Some(error.clone());
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the mark away, durably: everything is synced, and nobody appends meanwhile.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn take_away(&self) -> Result<()> {
        let remove = || {
            let path = self.directory.join(FILE_NAME);
            if !self.storage.exists(&path)? {
                return Ok(());
            }
            let names = self.storage.open_dir(&self.directory)?;
            self.storage.remove_file(&path)?;
            names.sync(SyncPurpose::Unsynced)
        };
        remove().map_err(|error| failed("take away", &self.directory, error))?;
        self.is_left.store(false, Ordering::Release);
        Ok(())
    }
}

impl std::fmt::Debug for UnsyncedMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnsyncedMark").field("is_left", &self.is_left).finish_non_exhaustive()
    }
}

fn encode(version: u32, syncs_by_default: bool, boot: Uuid) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.push(u8::from(!syncs_by_default));
    bytes.extend(boot.as_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u32, bool, Uuid)> {
    let (body, checksum) = bytes.split_last_chunk()?;
    let body: &[u8; BODY_BYTES] = body.try_into().ok()?;
    let version = u32::from_be_bytes(*body.first_chunk()?);
    let is_whole = *checksum == crc32fast::hash(body).to_be_bytes();
    is_whole.then(|| Some((version, body[4] == 0, Uuid::from_slice(&body[5..]).ok()?)))?
}

fn failed(doing: &str, directory: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {doing} {FILE_NAME} in {}", directory.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn find(storage: &MemoryStorage) -> Option<FoundMark> {
        FoundMark::find(storage, Path::new("/")).expect("it can be read")
    }

    fn mark(is_of_this_boot: bool, may_be_read: bool) -> Option<FoundMark> {
        Some(FoundMark { syncs_by_default: false, is_of_this_boot, may_be_read, do_decisions_tell: true })
    }

    #[test]
    fn a_mark_tells_a_power_cut_from_a_kill_and_goes_for_good() {
        let storage = MemoryStorage::new(1);
        assert_eq!(find(&storage), None);
        let left = UnsyncedMark::new(storage.clone(), Path::new("/"), Durability::Os);
        left.leave().expect("the disk is well");
        assert_eq!(find(&storage), mark(true, true), "the page cache is the same");
        storage.kill();
        assert_eq!(find(&storage), mark(true, true));
        storage.crash();
        assert_eq!(find(&storage), mark(false, false));
        let left = UnsyncedMark::new(storage.clone(), Path::new("/"), Durability::Sync);
        left.take_away().expect("the disk is well");
        storage.crash();
        assert_eq!(find(&storage), None);
    }

    #[test]
    fn a_mark_that_is_disowned_is_of_no_boot_until_it_is_made_anew() {
        let storage = MemoryStorage::new(1);
        let left = UnsyncedMark::new(storage.clone(), Path::new("/"), Durability::Os);
        left.leave().expect("the disk is well");
        let found = find(&storage).expect("it was left");
        found.disown(&*storage, Path::new("/")).expect("the disk is well");
        assert_eq!(find(&storage), mark(false, true));
        storage.kill();
        assert_eq!(find(&storage), mark(false, true));
        UnsyncedMark::new(storage.clone(), Path::new("/"), Durability::Os).leave().expect("the disk is well");
        assert_eq!(find(&storage), mark(true, true));
    }

    #[test]
    fn a_mark_of_an_earlier_build_stays_one_and_that_of_a_later_one_is_refused() {
        let storage = MemoryStorage::new(1);
        let write = |version| {
            let (path, boot) = (Path::new("/").join(FILE_NAME), storage.boot_id().expect("it has one"));
            let bytes = encode(version, false, boot);
            whole_file::replace(&*storage, &path, &bytes, SyncPurpose::Unsynced).expect("the disk is well");
        };
        write(UNTOLD_VERSION);
        let found = find(&storage).expect("it is there");
        assert!(found.is_of_this_boot && !found.do_decisions_tell, "{found:?}");
        found.disown(&*storage, Path::new("/")).expect("the disk is well");
        let found = find(&storage).expect("it is there");
        assert!(!found.is_of_this_boot && !found.do_decisions_tell, "{found:?}");
        write(VERSION + 1);
        let error = FoundMark::find(&*storage, Path::new("/")).expect_err("nobody knows what it says");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }

    #[test]
    fn a_damaged_mark_is_refused() {
        let storage = MemoryStorage::new(1);
        UnsyncedMark::new(storage.clone(), Path::new("/"), Durability::Os).leave().expect("the disk is well");
        storage.corrupt(&Path::new("/").join(FILE_NAME), 7, 1).expect("it is there");
        let error = FoundMark::find(&*storage, Path::new("/")).expect_err("it is damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("/unsynced"), "{error}");
    }
}
