//! The names in a partition's directory, which a writer in another thread or process may change meanwhile.
//!
//! Whatever it takes away, it says so before: marks that are durable say from where on records are kept, and which
//! segments another one replaces, before a file goes. So who has found something missing looks once more at the marks,
//! and at the segment after that: see [`is_there`].

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{FileKind, Listing, Stage};
use crate::partition::marks::Marks;
use crate::record::{Offset, TopicPartition};
use crate::storage::{OpenMode, Storage, StorageFile};

/// What there is of a partition.
pub(super) struct Names {
    pub(super) marks: Marks,
    /// The segments that are kept.
    pub(super) segments: Vec<Offset>,
    /// The one of them whose log has another name still: it takes the place of others, which may be there or not.
    pub(super) swapped: Option<Offset>,
}

impl Names {
    /// Reads them. They may be those of two moments: see [`Self::have_changed`].
    pub(super) fn read(storage: &dyn Storage, partition: &TopicPartition, directory: &Path) -> Result<Self> {
        let io = |error| Error::io(format!("{partition}: cannot read {}", directory.display()), error);
        let marks = Marks::read_in(storage, directory)?;
        Ok(Self::new(marks, Listing::read(storage, directory).map_err(io)?))
    }

    /// Where the log of a segment is.
    pub(super) fn log(&self, directory: &Path, base: Offset) -> PathBuf {
        if self.swapped == Some(base) {
            FileKind::Log.path_at(directory, base, Stage::Swap)
        } else {
            FileKind::Log.path(directory, base)
        }
    }

    /// Whether segments may have been removed or replaced since, before the names were `now`. More may have been begun
    /// behind them.
    pub(super) fn have_changed(&self, now: &Self) -> bool {
        self.marks != now.marks || self.swapped != now.swapped || !now.segments.starts_with(&self.segments)
    }

    fn new(marks: Marks, listing: Listing) -> Self {
        let Listing { mut segments, replacing, .. } = listing.begin_at(marks.start);
        let is_swapped = |base| replacing.contains(&(base, Stage::Swap));
        let Some(range) = marks.replacement.filter(|range| is_swapped(range.base)) else {
            return Self { marks, segments, swapped: None };
        };
        segments.retain(|base| *base < range.base || *base >= range.end);
        segments.insert(segments.partition_point(|base| *base < range.base), range.base);
        Self { marks, segments, swapped: Some(range.base) }
    }
}

/// Whether the segment from `base` to `end` is kept, and `log` is its file, so that whatever was missing before this
/// was asked is missing. Not where the writer is about to remove it, or to put another in its place. Where another was
/// opened by its name already, which ends behind those that it replaces, the walk comes upon these next, and is done
/// again.
pub(super) fn is_there(
    storage: &dyn Storage,
    directory: &Path,
    (base, end): (Offset, Offset),
    log: &dyn StorageFile,
) -> Result<bool> {
    let marks = Marks::read_in(storage, directory)?;
    if end <= marks.start {
        return Ok(false);
    }
    let io = |error| Error::io(format!("cannot look for a segment in {}", directory.display()), error);
    let replaced = marks.replacement.filter(|range| range.base <= base && base < range.end);
    let first = replaced.map_or(base, |range| range.base);
    if storage.exists(&FileKind::Log.path_at(directory, first, Stage::Swap)).map_err(io)? {
        return Ok(false);
    }
    // A replacement that is done by now has made it another file, or none. Neither has a topic that is deleted the
    // directory by this name any more.
    match storage.open(&FileKind::Log.path(directory, base), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        opened => opened.and_then(|found| Ok(found.identity()? == log.identity()?)).map_err(io),
    }
}
