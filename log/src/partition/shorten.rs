//! A segment whose file ends sooner than it did, while others may be reading it.
//!
//! No file is changed where it is: each is replaced by a copy. Whoever has one in hand reads on in what it was, and
//! finds out by its name that it is another one by now.

use std::io;
use std::path::PathBuf;

use super::{PartitionSite, replace};
use crate::files::{FileKind, Stage};
use crate::record::Offset;
use crate::storage::{OpenMode, StorageFile, SyncPurpose};

/// How much is copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Synced copies of a segment's files that are to take their place. Until they do, and if that never happens, they are
/// worth nothing: whoever opens the partition next removes them.
pub(crate) struct ShorterCopy<'a> {
    site: &'a PartitionSite,
    base: Offset,
    /// The files there are copies of, in the order in which these take their place.
    kinds: Vec<FileKind>,
}

impl<'a> ShorterCopy<'a> {
    /// Copies the first `position` bytes of the segment's file, and its indexes whole: the next to write to the
    /// partition cuts those where they are. Nobody notices yet. What was copied before an error is removed.
    pub(crate) fn write(site: &'a PartitionSite, base: Offset, position: u64) -> io::Result<Self> {
        replace::remove_cleaned(site, base)?;
        let mut copies = Self { site, base, kinds: Vec::new() };
        let kinds =
            replace::INDEXES.map(|kind| (kind, u64::MAX)).into_iter().chain([(FileKind::Log, position)]);
        for (kind, bytes) in kinds {
            match copies.copy(kind, bytes) {
                Ok(true) => copies.kinds.push(kind),
                Ok(false) => {}
                Err(error) => {
                    copies.discard();
                    return Err(error);
                }
            }
        }
        Ok(copies)
    }

    /// Copies the first `bytes` of one of the files, if there is one.
    fn copy(&self, kind: FileKind, bytes: u64) -> io::Result<bool> {
        let storage = &**self.site.storage();
        let path = kind.path(&self.site.directory, self.base);
        if !storage.exists(&path)? {
            return Ok(false);
        }
        let copy = storage.open(&self.path(kind), OpenMode::Create)?;
        copy_from(&*storage.open(&path, OpenMode::Read)?, 0, bytes, &*copy)?;
        copy.sync(SyncPurpose::Recovered).wait()?;
        Ok(true)
    }

    fn path(&self, kind: FileKind) -> PathBuf {
        kind.path_at(&self.site.directory, self.base, Stage::Cleaned)
    }

    /// Puts the copies in the place of the files. Their names are durable once the directory is synced.
    pub(crate) fn put(self) -> io::Result<()> {
        let storage = self.site.storage();
        let put =
            |kind: &FileKind| storage.rename(&self.path(*kind), &kind.path(&self.site.directory, self.base));
        self.kinds.iter().try_for_each(put)
    }

    /// Makes room again, as far as that can be done.
    pub(crate) fn discard(self) {
        if let Err(error) = replace::remove_cleaned(self.site, self.base) {
            let partition = &self.site.name;
            tracing::debug!(%partition, %error, "copies are left for the next to open it to remove");
        }
    }
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
