//! What lies behind the end of a log that was cut: is it worth keeping, and where it is kept.

use std::io;
use std::path::{Path, PathBuf};

use crate::batch::{BatchHeader, RecordBatch};
use crate::files::{PART_EXTENSION, TORN_EXTENSION};
use crate::record::Offset;
use crate::storage::{OpenMode, Storage, StorageFile, SyncPurpose};

/// How much is searched or copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Whether a sound batch of offsets from `lowest` on begins anywhere in the file at or after `position`.
pub(super) fn holds_sound_batch(file: &dyn StorageFile, position: u64, lowest: Offset) -> io::Result<bool> {
    let end = file.len()?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut start = position;
    while start + BatchHeader::BYTES as u64 <= end {
        let read = file.read_at(start, &mut chunk)?;
        let candidates = read.saturating_sub(BatchHeader::BYTES - 1);
        for at in 0..candidates {
            // The header is parsed at every byte: it refuses almost all by its format version.
            let Ok(header) = BatchHeader::parse(&chunk[at..read]) else { continue };
            let position = start + at as u64;
            let fits = header.length as u64 <= end - position;
            if fits && header.base_offset >= lowest && is_sound(file, position, header.length)? {
                return Ok(true);
            }
        }
        if candidates == 0 {
            break;
        }
        start += candidates as u64;
    }
    Ok(false)
}

fn is_sound(file: &dyn StorageFile, position: u64, length: usize) -> io::Result<bool> {
    let mut bytes = vec![0; length];
    let read = file.read_at(position, &mut bytes)?;
    let batch = RecordBatch::parse(&bytes[..read]);
    Ok(batch.is_ok_and(|batch| batch.verify().is_ok()))
}

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
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let read = file.read_at(position + copied, &mut chunk)?;
        if read == 0 {
            break;
        }
        copy.write_at(copied, &chunk[..read])?;
        copied += read as u64;
    }
    copy.sync(SyncPurpose::Recovered).wait()?;
    storage.rename(&part, &torn)?;
    Ok(torn)
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
