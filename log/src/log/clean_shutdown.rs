//! The mark that a log was closed and nothing has to be recovered.
//!
//! The file `clean-shutdown`, 8 bytes, big-endian:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 1 |
//! | 4..8 | checksum | CRC-32 of the bytes before it |
//!
//! It is written after everything else is durable, and removed, durably, before anything is written.

use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::storage::{OpenMode, Storage, SyncPurpose};

const FILE_NAME: &str = "clean-shutdown";
const VERSION: u32 = 1;
const BYTES: usize = 8;

/// Leaves the mark.
pub(super) fn mark(storage: &dyn Storage, directory: &Path) -> Result<()> {
    let write = || {
        let file = storage.open(&directory.join(FILE_NAME), OpenMode::Create)?;
        file.write_at(0, &encode())?;
        file.sync(SyncPurpose::Snapshot).wait()?;
        storage.sync_dir(directory, SyncPurpose::Snapshot)
    };
    write().map_err(|error| failed("write", directory, error))
}

/// Takes the mark away, and says whether it was there. One that is not whole counts for nothing.
pub(super) fn take(storage: &dyn Storage, directory: &Path) -> Result<bool> {
    let path = directory.join(FILE_NAME);
    let take = || {
        let file = match storage.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        let mut bytes = [0; BYTES + 1];
        let read = file.read_at(0, &mut bytes)?;
        storage.remove_file(&path)?;
        storage.sync_dir(directory, SyncPurpose::Directory)?;
        Ok(bytes[..read] == encode())
    };
    take().map_err(|error| failed("take away", directory, error))
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
