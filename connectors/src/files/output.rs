//! Files that are there whole or not at all, one for each epoch and worker.
//!
//! ```text
//!             write                prepare                     publish
//! (nothing) ───────▶ temporary ───────────────▶ temporary ───────────────▶ <name>
//!                    half written   fsync file,  whole, on    rename,
//!                                   rename,      the disk     fsync folder
//!                                   fsync folder
//! ```
//!
//! A temporary file is named after its target, `.<target>.tmp`: written again after a crash, it is begun anew. A
//! target that is there already is replaced by the same content, so doing an epoch twice changes nothing.
//!
//! For an epoch, *prepare* comes before the log's commit and *publish* after it. So after a crash a temporary file
//! of a committed epoch is whole and only waits for its name, and one of a later epoch belongs to nobody.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lotic_engine::epoch::Epoch;
use lotic_log::storage::disk::DiskStorage;
use lotic_log::storage::{OpenMode, Storage, StorageFile, SyncPurpose, syncs_no_names};

use crate::error::{Error, ErrorKind, Result};

const BUFFER_BYTES: usize = 256 * 1024;

/// A file being written beside the place where it shall stand. Dropped before it is prepared, it is removed.
pub struct StagedFile {
    storage: Arc<dyn Storage>,
    /// `None` once the file is prepared.
    file: Option<BufWriter<End>>,
    target: PathBuf,
}

/// Where a file ends that is being written.
struct End {
    file: Arc<dyn StorageFile>,
    position: u64,
}

impl StagedFile {
    /// Begins the file that shall stand at `target`; its folder must be there.
    ///
    /// # Errors
    /// Names the file that could not be made.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self> {
        Self::create_on(disk(), target.into())
    }

    pub(super) fn create_on(storage: Arc<dyn Storage>, target: PathBuf) -> Result<Self> {
        if target.file_name().is_none() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} does not name a file", target.display())));
        }
        let temporary = temporary_of(&target);
        remove_if_there(&*storage, &temporary)?;
        let file = storage.open(&temporary, OpenMode::Create);
        let file = file.map_err(|error| Error::io("create", &temporary, error))?;
        let file = Some(BufWriter::with_capacity(BUFFER_BYTES, End { file, position: 0 }));
        Ok(Self { storage, file, target })
    }

    /// Where the file shall stand.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes what was written durable under the temporary name of the file that shall stand at `target`.
    fn prepare_as(mut self, target: &Path) -> Result<()> {
        self.write_out()?;
        let (from, to) = (temporary_of(&self.target), temporary_of(target));
        self.storage.rename(&from, &to).map_err(|error| Error::io("create", &to, error))?;
        self.file = None;
        sync_folder_of(&*self.storage, target)
    }

    /// Makes the file durable at its target, in place of what stood there.
    ///
    /// # Errors
    /// Names the file. What stood at the target before still stands there, unless the error is about its folder.
    pub fn publish(mut self) -> Result<()> {
        self.write_out()?;
        self.file = None;
        rename(&*self.storage, &self.target)
    }

    fn write_out(&mut self) -> Result<()> {
        let file = self.file.as_mut().expect("a file is prepared once, by the call that consumes it");
        file.flush()
            .and_then(|()| file.get_ref().file.sync(SyncPurpose::Export).wait())
            .map_err(|error| Error::io("write", &temporary_of(&self.target), error))
    }
}

impl fmt::Debug for StagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedFile").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.position, bytes)?;
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("a prepared file is gone").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("a prepared file is gone").flush()
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Whatever is still in the buffer is not wanted any more.
            let _ = file.into_parts();
            let _ = self.storage.remove_file(&temporary_of(&self.target));
        }
    }
}

/// What the name of a file begins with while its epoch is not known.
const BEGUN: &str = "begun-";

const EPOCH_DIGITS: usize = 20;

/// The files of a sink, one for each epoch and worker: `<folder>/<epoch, 20 digits>-<worker>.<extension>`.
///
/// The files of committed epochs, in the order of their names, are the output; there is none where a worker had no
/// rows. After a crash the same file is made again or found to be there, so each row is in the output once. The
/// folder is this output's alone.
#[derive(Clone)]
pub struct EpochFiles {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    extension: String,
    /// Whether this output has synced the name of its folder and those that it is in.
    has_synced_folder: Arc<AtomicBool>,
}

/// What a file in the folder of an output is, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Being written by a worker.
    Begun,
    Prepared(Epoch, usize),
    Published(Epoch),
}

impl fmt::Debug for EpochFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, extension, .. } = self;
        f.debug_struct("EpochFiles")
            .field("folder", folder)
            .field("extension", extension)
            .finish_non_exhaustive()
    }
}

impl EpochFiles {
    /// Files in `folder`. It is made with the first of them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if `extension` cannot be part of a file's name.
    pub fn new(folder: impl Into<PathBuf>, extension: &str) -> Result<Self> {
        Self::new_on(disk(), folder.into(), extension)
    }

    pub(super) fn new_on(storage: Arc<dyn Storage>, folder: PathBuf, extension: &str) -> Result<Self> {
        if extension.is_empty() || extension.contains(['/', '\0']) {
            let what = format!("`{extension}` cannot be part of a file's name");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self { storage, folder, extension: extension.to_owned(), has_synced_folder: Arc::default() })
    }

    /// Where the rows of `epoch` on `worker` stand once it is committed.
    pub fn path(&self, epoch: Epoch, worker: usize) -> PathBuf {
        let Self { folder, extension, .. } = self;
        folder.join(format!("{:0digits$}-{worker}.{extension}", epoch.0, digits = EPOCH_DIGITS))
    }

    /// Begins the next file of `worker`, which has one at a time. Which epoch it belongs to is said by
    /// [`prepare`](Self::prepare).
    ///
    /// # Errors
    /// Names the file.
    pub fn create(&self, worker: usize) -> Result<StagedFile> {
        self.make_folder()?;
        let target = self.folder.join(format!("{BEGUN}{worker}.{}", self.extension));
        StagedFile::create_on(self.storage.clone(), target)
    }

    /// Makes the folder and those it is in, durably: once, and again where somebody has removed it since.
    fn make_folder(&self) -> Result<()> {
        if self.has_synced_folder.load(Ordering::Relaxed) && exists(&*self.storage, &self.folder)? {
            return Ok(());
        }
        make_folder(&*self.storage, &self.folder)?;
        self.has_synced_folder.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the rows of `epoch` on `worker` durable; they do not show yet. Goes before the epoch's commit.
    ///
    /// # Errors
    /// Names the file. A failed sync is never tried again: the file is removed and must be written anew.
    pub fn prepare(&self, file: StagedFile, epoch: Epoch, worker: usize) -> Result<()> {
        file.prepare_as(&self.path(epoch, worker))
    }

    /// `epoch` is committed: the file of `worker`, if it has one, gets its name. May be told again.
    ///
    /// # Errors
    /// Names the file.
    pub fn commit(&self, epoch: Epoch, worker: usize) -> Result<()> {
        let target = self.path(epoch, worker);
        let is_waiting = exists(&*self.storage, &temporary_of(&target))?;
        if is_waiting { rename(&*self.storage, &target) } else { Ok(()) }
    }

    /// Whether the folder can be what the epochs up to `committed` have left. Changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`], naming a file of an epoch that is not committed: it is another run's, or a power cut has
    /// taken the epoch from a log that had not synced it. Its rows would be there twice, and it is not for this flow to
    /// take back what somebody may have read.
    pub fn check(&self, committed: Epoch) -> Result<()> {
        for (path, found) in self.list()? {
            if matches!(found, Found::Published(epoch) if epoch > committed) {
                let what = format!(
                    "{} is of a later epoch than {committed}, the last one that this flow has committed. If a power \
                     cut took the log back, as it may where the log is not synced, remove the files of later epochs: \
                     the flow writes their rows again. If another run wrote it, move the folder away or write to \
                     another one",
                    path.display(),
                );
                return Err(Error::new(ErrorKind::Changed, what));
            }
        }
        Ok(())
    }

    /// After a crash: finishes the epochs up to `committed`, the last committed one, on however many workers, and
    /// removes what later ones left half done. Files of other names are left alone.
    ///
    /// # Errors
    /// Names the file or folder.
    pub fn recover(&self, committed: Epoch) -> Result<()> {
        for (path, found) in self.list()? {
            match found {
                Found::Prepared(epoch, worker) if epoch <= committed => self.commit(epoch, worker)?,
                Found::Prepared(..) | Found::Begun => remove_if_there(&*self.storage, &path)?,
                Found::Published(_) => {}
            }
        }
        Ok(())
    }

    /// What is in the folder of this output, in no order; nothing if there is no folder.
    fn list(&self) -> Result<Vec<(PathBuf, Found)>> {
        let entries = match self.storage.list(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io("list", &self.folder, error))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(self.find(&entry.name).map(|kind| (self.folder.join(&entry.name), kind)));
        }
        Ok(found)
    }

    fn find(&self, file_name: &str) -> Option<Found> {
        let temporary = file_name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
        let stem = temporary.unwrap_or(file_name).strip_suffix(self.extension.as_str())?.strip_suffix('.')?;
        if let Some(worker) = stem.strip_prefix(BEGUN) {
            return (temporary.is_some() && worker.parse::<usize>().is_ok()).then_some(Found::Begun);
        }
        let (epoch, worker) = stem.split_once('-').filter(|(epoch, _)| epoch.len() == EPOCH_DIGITS)?;
        let (epoch, worker) = (Epoch(epoch.parse().ok()?), worker.parse().ok()?);
        let is_temporary = temporary.is_some();
        Some(if is_temporary { Found::Prepared(epoch, worker) } else { Found::Published(epoch) })
    }
}

/// Makes a folder and those it is in, durably, up to the root or the working directory. The name of one that is there
/// is synced too: whoever made it may have been killed before that, or may have failed. Where it is in one whose names
/// cannot be synced it counts as made by others, since a flow can write below it all the same.
fn make_folder(storage: &dyn Storage, folder: &Path) -> Result<()> {
    let Some(parent) = folder_of(folder).filter(|parent| *parent != folder) else { return Ok(()) };
    let is_there = exists(storage, folder)?;
    make_folder(storage, parent)?;
    if !is_there {
        storage.create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
    }
    match storage.sync_dir(parent, SyncPurpose::Export) {
        Err(error) if is_there && syncs_no_names(&error) => Ok(()),
        synced => synced.map_err(|error| Error::io("sync", parent, error)),
    }
}

/// Files on the disk, each synced by whoever asks for it.
fn disk() -> Arc<dyn Storage> {
    DiskStorage::new(0).expect("no thread is started")
}

/// `.<name>.tmp` beside `target`, which names a file.
fn temporary_of(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().expect("a target names a file: checked where it is made"));
    name.push(".tmp");
    target.with_file_name(name)
}

/// Gives a file that is whole its name, durably.
fn rename(storage: &dyn Storage, target: &Path) -> Result<()> {
    let renamed = storage.rename(&temporary_of(target), target);
    renamed.map_err(|error| Error::io("create", target, error))?;
    sync_folder_of(storage, target)
}

/// The folder that `path` is in; the root is in none.
fn folder_of(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

#[track_caller]
fn sync_folder_of(storage: &dyn Storage, path: &Path) -> Result<()> {
    let Some(folder) = folder_of(path) else { return Ok(()) };
    storage.sync_dir(folder, SyncPurpose::Export).map_err(|error| Error::io("sync", folder, error))
}

fn exists(storage: &dyn Storage, path: &Path) -> Result<bool> {
    storage.exists(path).map_err(|error| Error::io("open", path, error))
}

fn remove_if_there(storage: &dyn Storage, path: &Path) -> Result<()> {
    match storage.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}
