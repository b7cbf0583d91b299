//! Keeping what lies behind the end of a log that was cut, and what says that the cut may not be on the disk yet.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{PART_EXTENSION, TORN_EXTENSION};
use crate::partition::shorten::copy_from;
use crate::storage::{OpenMode, Storage, StorageFile, SyncPurpose};

/// Copies the file from `position` on to a file of its own beside it, whole or not at all, and syncs
/// that. Returns its path; its name is durable once the directory is synced.
pub(super) fn keep_aside(
    storage: &dyn Storage,
    log: &Path,
    file: &dyn StorageFile,
    position: u64,
) -> io::Result<PathBuf> {
    let torn = free_name(storage, log)?;
    let part = with_extension(&torn, PART_EXTENSION);
    if storage.exists(&part)? {
        storage.remove_file(&part)?;
    }
    let copy = storage.open(&part, OpenMode::Create)?;
    copy_from(file, position, u64::MAX, &*copy)?;
    copy.sync(SyncPurpose::Recovered).wait()?;
    storage.rename(&part, &torn)?;
    Ok(torn)
}

/// The file which says that the log may end where it does in the page cache only: `<base>.log.torn.part`, which is
/// free by the time that the log is cut off, and goes as what never became whole does.
pub(super) fn doubt(log: &Path) -> PathBuf {
    with_extension(log, &format!("{TORN_EXTENSION}.{PART_EXTENSION}"))
}

/// Leaves that file. It is not synced: a power cut may take it, and leaves nothing then that is in the page cache only.
pub(super) fn doubt_end(storage: &dyn Storage, log: &Path) -> io::Result<()> {
    let doubt = doubt(log);
    if storage.exists(&doubt)? { Ok(()) } else { storage.open(&doubt, OpenMode::Create).map(drop) }
}

/// `<base>.log.torn`, or with a number behind it if an earlier recovery has left one.
pub(super) fn free_name(storage: &dyn Storage, log: &Path) -> io::Result<PathBuf> {
    let mut name = with_extension(log, TORN_EXTENSION);
    let mut number = 1;
    while storage.exists(&name)? {
        number += 1;
        name = with_extension(log, &format!("{TORN_EXTENSION}-{number}"));
    }
    Ok(name)
}

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
