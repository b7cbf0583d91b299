//! Files that are there whole or not at all, one for each epoch.
//!
//! ```text
//!             write                prepare                     publish
//! (nothing) ───────▶ temporary ───────────────▶ temporary ───────────────▶ <name>
//!                    half written   fsync file,  whole, on    rename,
//!                                   fsync folder the disk     fsync folder
//! ```
//!
//! A temporary file is named after its target, `.<target>.tmp`: written again after a crash, it is begun anew. A
//! target that is there already is replaced by the same content, so doing an epoch twice changes nothing.
//!
//! For an epoch, *prepare* comes before the log's commit and *publish* after it. So after a crash a temporary file
//! of a committed epoch is whole and only waits for its name, and one of a later epoch belongs to nobody.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use lotic_engine::epoch::Epoch;

use crate::error::{Error, ErrorKind, Result};

const BUFFER_BYTES: usize = 256 * 1024;

/// A file being written beside the place where it shall stand. Dropped before it is prepared, it is removed.
#[derive(Debug)]
pub struct StagedFile {
    /// `None` once the file is prepared.
    file: Option<BufWriter<File>>,
    target: PathBuf,
}

impl StagedFile {
    /// Begins the file that shall stand at `target`; its folder must be there.
    ///
    /// # Errors
    /// Names the file that could not be made.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self> {
        let target = target.into();
        if target.file_name().is_none() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} does not name a file", target.display())));
        }
        let temporary = temporary_of(&target);
        let file = File::create(&temporary).map_err(|error| Error::io("create", &temporary, error))?;
        Ok(Self { file: Some(BufWriter::with_capacity(BUFFER_BYTES, file)), target })
    }

    /// Where the file shall stand.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes what was written durable under its temporary name. [`EpochFiles::commit`] gives it its own.
    ///
    /// # Errors
    /// Names the file. A failed sync is never tried again: the file is removed and must be written anew.
    pub fn prepare(mut self) -> Result<()> {
        self.make_durable()
    }

    /// Makes the file durable at its target, in place of what stood there.
    ///
    /// # Errors
    /// Names the file. What stood at the target before still stands there, unless the error is about its folder.
    pub fn publish(mut self) -> Result<()> {
        self.make_durable()?;
        rename(&self.target)
    }

    fn make_durable(&mut self) -> Result<()> {
        let temporary = temporary_of(&self.target);
        let file = self.file.as_mut().expect("a file is prepared once, by the call that consumes it");
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .map_err(|error| Error::io("write", &temporary, error))?;
        sync_folder_of(&self.target)?;
        self.file = None;
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
            let _ = fs::remove_file(temporary_of(&self.target));
        }
    }
}

/// One file for each epoch: `<folder>/<name>-<epoch, 20 digits>.<extension>`.
///
/// The files of committed epochs, in the order of their names, are the output; there is none for an epoch without
/// rows. After a crash the same file is made again or found to be there, so each row is in the output once.
#[derive(Clone, Debug)]
pub struct EpochFiles {
    folder: PathBuf,
    name: String,
    extension: String,
}

impl EpochFiles {
    /// Files in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// Names the folder; [`ErrorKind::Invalid`] if `name` or `extension` cannot be part of a file's name.
    pub fn open(folder: impl Into<PathBuf>, name: &str, extension: &str) -> Result<Self> {
        let folder = folder.into();
        for part in [name, extension] {
            if part.is_empty() || part.contains(['/', '\0']) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("`{part}` cannot be part of a file's name"),
                ));
            }
        }
        fs::create_dir_all(&folder).map_err(|error| Error::io("create", &folder, error))?;
        sync_folder_of(&fs::canonicalize(&folder).map_err(|error| Error::io("open", &folder, error))?)?;
        Ok(Self { folder, name: name.to_owned(), extension: extension.to_owned() })
    }

    /// Where the rows of `epoch` stand once it is committed.
    pub fn path(&self, epoch: Epoch) -> PathBuf {
        self.folder.join(format!("{}-{:020}.{}", self.name, epoch.0, self.extension))
    }

    /// Begins the file of `epoch`. Write the rows, then [`StagedFile::prepare`] before the epoch commits.
    ///
    /// # Errors
    /// Names the file.
    pub fn create(&self, epoch: Epoch) -> Result<StagedFile> {
        StagedFile::create(self.path(epoch))
    }

    /// `epoch` is committed: its file, if it has one, gets its name. May be told again.
    ///
    /// # Errors
    /// Names the file.
    pub fn commit(&self, epoch: Epoch) -> Result<()> {
        let target = self.path(epoch);
        if exists(&temporary_of(&target))? { rename(&target) } else { Ok(()) }
    }

    /// `epoch` will not be committed: its file, if it has one, is removed. May be told again.
    ///
    /// # Errors
    /// Names the file.
    pub fn abort(&self, epoch: Epoch) -> Result<()> {
        remove_if_there(&temporary_of(&self.path(epoch)))
    }

    /// After a crash: finishes the epochs up to `committed`, the last committed one, and removes what later ones
    /// left half done. Files that are not this output's are left alone.
    ///
    /// # Errors
    /// Names the file or folder.
    pub fn recover(&self, committed: Epoch) -> Result<()> {
        let entries = fs::read_dir(&self.folder).map_err(|error| Error::io("list", &self.folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("list", &self.folder, error))?;
            match self.epoch_of_temporary(&entry.file_name()) {
                Some(epoch) if epoch <= committed => self.commit(epoch)?,
                Some(epoch) => self.abort(epoch)?,
                None => {}
            }
        }
        Ok(())
    }

    fn epoch_of_temporary(&self, file_name: &std::ffi::OsStr) -> Option<Epoch> {
        let digits =
            file_name.to_str()?.strip_prefix('.')?.strip_prefix(self.name.as_str())?.strip_prefix('-')?;
        let digits = digits.strip_suffix(".tmp")?.strip_suffix(self.extension.as_str())?.strip_suffix('.')?;
        (digits.len() == 20).then(|| digits.parse().ok().map(Epoch)).flatten()
    }
}

/// `.<name>.tmp` beside `target`, which names a file.
fn temporary_of(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().expect("a target names a file: checked where it is made"));
    name.push(".tmp");
    target.with_file_name(name)
}

fn rename(target: &Path) -> Result<()> {
    fs::rename(temporary_of(target), target).map_err(|error| Error::io("create", target, error))?;
    sync_folder_of(target)
}

fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => return Ok(()),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| Error::io("sync", folder, error))
}

fn exists(path: &Path) -> Result<bool> {
    fs::exists(path).map_err(|error| Error::io("open", path, error))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}
