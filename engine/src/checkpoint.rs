//! State on disk: the live RocksDB, and checkpoints of it.
//!
//! ```text
//! <data>/state/<flow>              the live store
//! <data>/state/<flow>.suspect      it was found damaged: the next start takes an older base
//! <data>/checkpoints/<flow>/<n>    a checkpoint: hard links to the store's files, and its manifest
//! ```
//!
//! A checkpoint only shortens a restart. What it holds, and up to where, is read from itself; beside it
//! there is only the manifest, a file `manifest` that says what its files are:
//!
//! | bytes | | |
//! |---|---|---|
//! | 0..4 | magic | `LTCK` |
//! | 4..8 | version | `u32`, 1 |
//! | 8..12 | count | `u32`, of files |
//! | then, for each | name length | `u16` |
//! | | name | UTF-8 |
//! | | size | `u64` |
//! | | checksum | `u32`, CRC-32 (crc32fast) of the file |
//! | last 4 | checksum | `u32`, CRC-32 of everything before |
//!
//! All integers are big-endian. A checkpoint is made under another name and renamed once it is whole and
//! synced, so one that is there is whole, unless the disk has damaged it: that its checksums tell. RocksDB syncs its
//! files itself; what makes a checkpoint of them, the manifest and names, goes through [`Storage`].

mod manifest;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use lotic_log::storage::disk::DiskStorage;
use lotic_log::storage::{Storage, SyncPurpose};
use parking_lot::Mutex;

use self::manifest::{Manifest, ManifestFile};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::check_flow_name;
use crate::state::{CheckpointId, RocksBackend, RocksOptions, StateBackend, StateHome, suspect_mark};

/// Blocks kept while a checkpoint is looked into: a few rows are read.
const LOOK_CACHE_BYTES: usize = 1 << 20;

/// A flow's state in a directory.
pub struct DiskState {
    storage: Arc<dyn Storage>,
    /// The log's directory.
    data: PathBuf,
    live: PathBuf,
    suspect: PathBuf,
    checkpoints: PathBuf,
    /// Whether the names of `checkpoints` and of what it is in were synced since this was made.
    has_synced_checkpoints: AtomicBool,
    options: RocksOptions,
    /// The open live store. A new attempt in the same process goes on with it while somebody holds it.
    open: Mutex<Weak<RocksBackend>>,
}

impl DiskState {
    /// The state of `flow` under the directory `data`. Nothing is opened or made yet.
    ///
    /// # Errors
    /// `Invalid` for a flow whose name leads elsewhere: see [`check_flow_name`].
    pub fn new(data: &Path, flow: &str, options: RocksOptions) -> Result<Self> {
        check_flow_name(flow)?;
        let live = data.join("state").join(flow);
        let storage = DiskStorage::new(0).expect("no thread is started");
        Ok(Self {
            storage,
            data: data.to_owned(),
            suspect: suspect_mark(&live),
            live,
            checkpoints: data.join("checkpoints").join(flow),
            has_synced_checkpoints: AtomicBool::new(false),
            options,
            open: Mutex::default(),
        })
    }

    fn path(&self, checkpoint: CheckpointId) -> PathBuf {
        self.checkpoints.join(checkpoint.to_string())
    }

    fn remove(&self, checkpoint: CheckpointId) -> Result<()> {
        // Without its manifest it is none any more, whatever happens in the middle.
        let directory = self.path(checkpoint);
        let manifest = directory.join(manifest::FILE_NAME);
        let removed = self.storage.remove_file(&manifest).or_else(ignore_missing);
        removed.map_err(|error| failed("removed", &manifest, error))?;
        self.remove_directory(&directory)
    }

    fn remove_directory(&self, directory: &Path) -> Result<()> {
        let removed = self.storage.remove_dir_all(directory).or_else(ignore_missing);
        removed.map_err(|error| failed("removed", directory, error))
    }

    /// Makes the directory of checkpoints and those it is in, durably: once, and again where somebody has removed it
    /// since.
    fn make_checkpoints(&self) -> Result<()> {
        if self.has_synced_checkpoints.load(Ordering::Relaxed) && self.is_there(&self.checkpoints)? {
            return Ok(());
        }
        self.make_directory(&self.checkpoints)?;
        self.has_synced_checkpoints.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a directory and those it is in, durably. Below `data` the name of one that is there is synced too: whoever
    /// made it may have been killed before that, or may have failed. The name of `data` is the log's to sync, without
    /// which a checkpoint is nothing.
    fn make_directory(&self, directory: &Path) -> Result<()> {
        let is_there = directory.as_os_str().is_empty() || self.is_there(directory)?;
        if is_there && self.data.starts_with(directory) {
            return Ok(());
        }
        let parent = directory.parent().unwrap_or(Path::new(""));
        self.make_directory(parent)?;
        if !is_there {
            let made = self.storage.create_dir_all(directory);
            made.map_err(|error| failed("made", directory, error))?;
        }
        self.sync(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    fn is_there(&self, path: &Path) -> Result<bool> {
        self.storage.exists(path).map_err(|error| failed("opened", path, error))
    }

    /// Makes the names in a directory durable.
    #[track_caller]
    fn sync(&self, directory: &Path) -> Result<()> {
        let synced = self.storage.sync_dir(directory, SyncPurpose::Checkpoint);
        synced.map_err(|error| failed("synced", directory, error))
    }

    /// The files of the newest checkpoint by inode: what is linked again needs no second reading.
    fn known_files(&self) -> Result<Vec<(u64, ManifestFile)>> {
        let Some(&newest) = self.checkpoints()?.first() else { return Ok(Vec::new()) };
        let directory = self.path(newest);
        let Ok(manifest) = Manifest::read(&directory) else { return Ok(Vec::new()) };
        let known = manifest.files.into_iter().filter_map(|file| {
            let inode = fs::metadata(directory.join(&file.name)).ok()?.ino();
            Some((inode, file))
        });
        Ok(known.collect())
    }
}

impl StateHome for DiskState {
    fn open(&self) -> Result<Arc<dyn StateBackend>> {
        if self.suspect.exists() {
            let what = format!("the state in {} was found damaged", self.live.display());
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        let mut open = self.open.lock();
        if let Some(backend) = open.upgrade() {
            return Ok(backend);
        }
        fs::create_dir_all(&self.live).map_err(|error| failed("made", &self.live, error))?;
        let backend = Arc::new(RocksBackend::open(&self.live, self.options)?);
        *open = Arc::downgrade(&backend);
        Ok(backend)
    }

    fn discard(&self) -> Result<()> {
        if self.open.lock().strong_count() > 0 {
            let what = format!("the state in {} is still in use", self.live.display());
            return Err(Error::new(ErrorKind::Restart, what));
        }
        self.remove_directory(&self.live)?;
        match fs::remove_file(&self.suspect) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removed", &self.suspect, error))
            }
            _ => Ok(()),
        }
    }

    fn checkpoints(&self) -> Result<Vec<CheckpointId>> {
        let entries = match fs::read_dir(&self.checkpoints) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.checkpoints, error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("read", &self.checkpoints, error))?;
            found.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()).map(CheckpointId));
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        Ok(found)
    }

    fn look_into(&self, checkpoint: CheckpointId) -> Result<Arc<dyn StateBackend>> {
        let options = RocksOptions { block_cache_bytes: LOOK_CACHE_BYTES, ..self.options };
        Ok(Arc::new(RocksBackend::open(&self.path(checkpoint), options)?))
    }

    fn verify(&self, checkpoint: CheckpointId, is_stopping: &dyn Fn() -> bool) -> Result<()> {
        let directory = self.path(checkpoint);
        Manifest::read(&directory)?.verify(&directory, is_stopping)
    }

    fn adopt(&self, checkpoint: CheckpointId) -> Result<()> {
        let directory = self.path(checkpoint);
        let manifest = Manifest::read(&directory)?;
        self.remove_directory(&self.live)?;
        fs::create_dir_all(&self.live).map_err(|error| failed("made", &self.live, error))?;
        for file in &manifest.files {
            let (from, to) = (directory.join(&file.name), self.live.join(&file.name));
            // Table files never change; the few small others might.
            let is_linked = file.name.ends_with(".sst") && fs::hard_link(&from, &to).is_ok();
            if !is_linked {
                fs::copy(&from, &to).map_err(|error| failed("copied", &from, error))?;
            }
        }
        Ok(())
    }

    fn take(&self) -> Result<CheckpointId> {
        let Some(backend) = self.open.lock().upgrade() else {
            let what = format!("the state in {} is not open", self.live.display());
            return Err(Error::new(ErrorKind::Restart, what));
        };
        let id = CheckpointId(self.checkpoints()?.first().map_or(1, |newest| newest.0 + 1));
        let unfinished = self.checkpoints.join("unfinished");
        self.make_checkpoints()?;
        self.remove_directory(&unfinished)?;
        backend.checkpoint(&unfinished)?;
        Manifest::of(&unfinished, &self.known_files()?)?.write(&*self.storage, &unfinished)?;
        self.sync(&unfinished)?;
        let finished = self.path(id);
        let renamed = self.storage.rename(&unfinished, &finished);
        renamed.map_err(|error| failed("renamed", &unfinished, error))?;
        self.sync(&self.checkpoints)?;
        tracing::debug!(checkpoint = %id, directory = %finished.display(), "checkpoint taken");
        Ok(id)
    }

    fn retire(&self, keep: usize) -> Result<()> {
        self.checkpoints()?.into_iter().skip(keep).try_for_each(|id| self.remove(id))
    }

    fn forget(&self, checkpoint: CheckpointId) -> Result<()> {
        self.remove(checkpoint)?;
        self.sync(&self.checkpoints)
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Io,
    };
    Error::caused(kind, format!("{} cannot be {what}", path.display()), error)
}

#[cfg(test)]
mod power_cut_tests;
#[cfg(test)]
mod tests;
