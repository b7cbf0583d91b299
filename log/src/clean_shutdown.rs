//! The mark that a log was closed, and that its directory is as it was then.
//!
//! The file `clean-shutdown`, 8 bytes, big-endian:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 1 |
//! | 4..8 | checksum | CRC-32 of the bytes before it |
//!
//! It is written after everything else is durable. It stays for as long as nothing is written, so that a
//! log which is only opened and closed is left as it was; whoever is about to write the first byte takes
//! it away, durably, before that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::whole_file;

const FILE_NAME: &str = "clean-shutdown";
const VERSION: u32 = 1;
const BYTES: usize = 8;

/// The mark in one log's directory. One for all who write to it.
///
/// Its lock is taken while a partition's writer or the catalogue is held, and nothing else is taken
/// while it is.
pub(crate) struct CleanShutdown {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    /// Whether it was found, and found whole.
    is_whole: bool,
    /// What every append looks at: there is nothing to take away any more.
    is_gone: AtomicBool,
    life: Mutex<Life>,
}

/// ```text
///   There --removed and synced--> Gone
///     \--removed, sync failed--> Failed: nobody may write
/// ```
enum Life {
    There,
    Gone,
    Failed(Error),
}

impl CleanShutdown {
    /// Looks for the mark in `directory`. One that is not whole says nothing, and is taken away all the
    /// same before anything is written.
    pub(crate) fn find(storage: Arc<dyn Storage>, directory: &Path) -> Result<Self> {
        let found = whole_file::read(&*storage, &directory.join(FILE_NAME));
        let found = found.map_err(|error| failed("read", directory, error))?;
        Ok(Self {
            storage,
            directory: directory.to_owned(),
            is_whole: found.as_deref() == Some(&encode()),
            is_gone: AtomicBool::new(found.is_none()),
            life: Mutex::new(if found.is_some() { Life::There } else { Life::Gone }),
        })
    }

    /// For whoever writes to no directory that could be marked.
    pub(crate) fn none(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            directory: PathBuf::new(),
            is_whole: false,
            is_gone: AtomicBool::new(true),
            life: Mutex::new(Life::Gone),
        }
    }

    /// Whether the log had been closed cleanly when the mark was looked for.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether the directory is as it was when the log was closed.
    pub(crate) fn is_untouched(&self) -> bool {
        self.is_whole && !self.is_gone.load(Ordering::Acquire)
    }

    /// To be called before anything is written. The first call waits for the disk, the others are free.
    ///
    /// # Errors
    /// Those of the operating system; nothing may be written then.
    pub(crate) fn take_away(&self) -> Result<()> {
        if self.is_gone.load(Ordering::Acquire) { Ok(()) } else { self.remove() }
    }

    #[cold]
    fn remove(&self) -> Result<()> {
        let mut life = self.life.lock();
        match &*life {
            Life::Gone => return Ok(()),
            Life::Failed(error) => return Err(error.clone()),
            Life::There => {}
        }
        let failed = |error| failed("take away", &self.directory, error);
        let names = self.storage.open_dir(&self.directory).map_err(failed)?;
        self.storage.remove_file(&self.directory.join(FILE_NAME)).map_err(failed)?;
        if let Err(error) = names.sync(SyncPurpose::Directory).map_err(failed) {
            *life = Life::Failed(error.clone());
            return Err(error);
        }
        *life = Life::Gone;
        self.is_gone.store(true, Ordering::Release);
        Ok(())
    }

    /// Leaves the mark: everything else is durable, and nobody writes any more.
    ///
    /// # Errors
    /// Those of the operating system. The next opening recovers then.
    pub(crate) fn leave(&self) -> Result<()> {
        self.take_away()?;
        let write = || {
            let file = self.storage.open(&self.directory.join(FILE_NAME), OpenMode::Create)?;
            file.write_at(0, &encode())?;
            file.sync(SyncPurpose::Snapshot).wait()?;
            self.storage.sync_dir(&self.directory, SyncPurpose::Snapshot)
        };
        write().map_err(|error| failed("write", &self.directory, error))
    }
}

impl std::fmt::Debug for CleanShutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CleanShutdown").field("is_untouched", &self.is_untouched()).finish_non_exhaustive()
    }
}

fn encode() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..4].copy_from_slice(&VERSION.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..4]);
    bytes[4..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn failed(doing: &str, directory: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {doing} {FILE_NAME} in {}", directory.display()), error)
}
