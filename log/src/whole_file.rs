//! Small files that are read in one piece and replaced in one piece: whoever reads one sees the old bytes
//! or the new ones, also after a crash.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::{OpenMode, Storage, StorageDirectory, StorageFile, SyncPurpose, SyncTicket};

/// What is appended to a file's name while its next version is being written.
const NEW_EXTENSION: &str = ".new";

/// All bytes of a file; `None` where there is none.
pub(crate) fn read(storage: &dyn Storage, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match storage.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Replaces a file, durably. Waits for the disk. Returns the file as it is now. Where too many files are open for that
/// it is as it was: all that is opened is opened before it is replaced.
#[track_caller]
pub(crate) fn replace(
    storage: &dyn Storage,
    path: &Path,
    bytes: &[u8],
    purpose: SyncPurpose,
) -> io::Result<Arc<dyn StorageFile>> {
    Next::write(storage, path, bytes, purpose)?.replace(purpose)
}

/// The next version of a file, which is synced and has another name yet.
pub(crate) struct Next<'a> {
    storage: &'a dyn Storage,
    path: &'a Path,
    file: Arc<dyn StorageFile>,
    names: Arc<dyn StorageDirectory>,
}

impl<'a> Next<'a> {
    /// Writes it beside the file, which stays as it is whatever fails. Waits for the disk.
    #[track_caller]
    pub(crate) fn write(
        storage: &'a dyn Storage,
        path: &'a Path,
        bytes: &[u8],
        purpose: SyncPurpose,
    ) -> io::Result<Self> {
        let names = storage.open_dir(path.parent().unwrap_or(Path::new(".")))?;
        let (file, sync) = write_beside(storage, path, bytes, purpose)?;
        sync.wait()?;
        Ok(Self { storage, path, file, names })
    }

    /// Makes it the file, durably. Waits for the disk. Where that fails the file is one or the other. Nothing is opened.
    #[track_caller]
    pub(crate) fn replace(self, purpose: SyncPurpose) -> io::Result<Arc<dyn StorageFile>> {
        put_in_place(self.storage, self.path)?;
        self.names.sync(purpose)?;
        Ok(self.file)
    }
}

/// Writes the next version of a file beside it and submits its sync. [`put_in_place`] may follow once
/// that has succeeded.
#[track_caller]
pub(crate) fn write_beside(
    storage: &dyn Storage,
    path: &Path,
    bytes: &[u8],
    purpose: SyncPurpose,
) -> io::Result<(Arc<dyn StorageFile>, SyncTicket)> {
    let new_path = beside(path);
    if storage.exists(&new_path)? {
        storage.remove_file(&new_path)?;
    }
    let file = storage.open(&new_path, OpenMode::Create)?;
    file.write_at(0, bytes)?;
    let sync = file.sync(purpose);
    Ok((file, sync))
}

/// Makes what was written beside a file that file. The name is durable once the directory is synced.
pub(crate) fn put_in_place(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    storage.rename(&beside(path), path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(NEW_EXTENSION);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::is_too_many_files;
    use crate::storage::limited::LimitedStorage;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn wherever_a_crash_hits_the_old_bytes_or_the_new_ones_are_there_in_full() {
        let path = Path::new("/file");
        for operation in 0..10 {
            for seed in 0..50 {
                let storage = MemoryStorage::new(seed);
                replace(&*storage, path, &[1; 2000], SyncPurpose::Snapshot).expect("the disk is fine");
                storage.fail_after(operation);
                let outcome = replace(&*storage, path, &[2; 3000], SyncPurpose::Snapshot);
                storage.crash();
                let found = read(&*storage, path).expect("it can be read").expect("it was made");
                let is_new = found == [2; 3000];
                assert!(is_new || (found == [1; 2000] && outcome.is_err()), "operation {operation}");
            }
        }
    }

    #[test]
    fn a_file_is_as_it_was_where_too_many_are_open_to_replace_it() {
        let path = Path::new("/file");
        let limited = LimitedStorage::new(MemoryStorage::new(1));
        let storage = &*limited as &dyn Storage;
        replace(storage, path, &[1; 2000], SyncPurpose::Snapshot).expect("the disk is fine");
        for left in 0.. {
            limited.observer().leave(left);
            let outcome = replace(storage, path, &[2; 3000], SyncPurpose::Snapshot);
            limited.observer().leave(i64::MAX);
            let Err(error) = outcome else { return assert_eq!(left, 2, "the directory and the new file") };
            assert!(is_too_many_files(&error), "{error}");
            assert_eq!(read(storage, path).expect("it can be read").expect("it was made"), [1; 2000]);
        }
    }
}
