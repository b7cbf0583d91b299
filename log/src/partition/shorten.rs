//! A segment whose file ends sooner than it did, while others may be reading it.
//!
//! No file is changed where it is: each is replaced by a copy. Whoever has one in hand reads on in what it was, and
//! finds out by its name that it is another one by now.

use std::io;

use super::{PartitionSite, replace};
use crate::files::{FileKind, Stage};
use crate::record::Offset;
use crate::storage::{OpenMode, StorageFile, SyncPurpose};

/// How much is copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Puts a synced copy of the first `position` bytes in the place of the segment's file, and copies in the place of its
/// indexes: the next to write to the partition cuts those where they are. Their names are durable once the directory is
/// synced.
pub(crate) fn shorten(site: &PartitionSite, base: Offset, position: u64) -> io::Result<()> {
    replace::remove_cleaned(site, base)?;
    for kind in replace::INDEXES {
        put_copy(site, kind, base, u64::MAX)?;
    }
    put_copy(site, FileKind::Log, base, position)
}

/// Puts a copy of the first `bytes` of a segment's file in its place, if there is one.
fn put_copy(site: &PartitionSite, kind: FileKind, base: Offset, bytes: u64) -> io::Result<()> {
    let storage = &**site.storage();
    let path = kind.path(&site.directory, base);
    if !storage.exists(&path)? {
        return Ok(());
    }
    let copy_path = kind.path_at(&site.directory, base, Stage::Cleaned);
    let copy = storage.open(&copy_path, OpenMode::Create)?;
    copy_from(&*storage.open(&path, OpenMode::Read)?, 0, bytes, &*copy)?;
    copy.sync(SyncPurpose::Recovered).wait()?;
    storage.rename(&copy_path, &path)
}

/// Copies what a file holds from `position` on, `bytes` of it at most.
pub(crate) fn copy_from(
    source: &dyn StorageFile,
    position: u64,
    bytes: u64,
    copy: &dyn StorageFile,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    while copied < bytes {
        let wanted = (bytes - copied).min(CHUNK_BYTES as u64) as usize;
        let read = source.read_at(position + copied, &mut chunk[..wanted])?;
        if read == 0 {
            return Ok(());
        }
        copy.write_at(copied, &chunk[..read])?;
        copied += read as u64;
    }
    Ok(())
}
