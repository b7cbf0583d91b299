//! Carrying out a cut that is decided. Each step can be taken again: it may have been cut short anywhere.
//!
//! Other processes may read meanwhile. From before the first file goes until the last is gone the marks say that
//! the partition is being cut, and nobody opens it or reads on in it then. Whoever has a file in hand reads on in what it was: a file
//! that is cut is replaced by one that ends sooner, and none is changed where it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::failed;
use super::note::{CutNote, Stage, folder};
use super::survey::{Cut, Survey};
use crate::error::Result;
use crate::files::{FileKind, Listing};
use crate::flusher::Flush;
use crate::partition::marks::{CutBy, Marks};
use crate::partition::shorten::{copy_from, shorten};
use crate::partition::{Partition, PartitionSite};
use crate::record::Offset;
use crate::recovery::RecoveryBorder;
use crate::recovery_point::{self, RecoveryPointFile};
use crate::segment::Segment;
use crate::storage::{OpenMode, SyncPurpose};

/// Makes the folder for what is cut off, and copies into it what is cut off the end of a file. Returns its
/// number, if there is anything to keep. What was copied before an error is removed.
pub(super) fn keep_copy(site: &PartitionSite, survey: &Survey) -> io::Result<Option<u32>> {
    if survey.is_empty() {
        return Ok(None);
    }
    let storage = &**site.storage();
    let at = |number| folder(&site.directory, survey.cut.offset, number);
    let mut number = 1;
    while storage.exists(&at(number))? {
        number += 1;
    }
    let folder = at(number);
    if let Err(error) = fill_folder(site, survey, &folder) {
        if let Err(error) = storage.remove_dir_all(&folder) {
            tracing::debug!(partition = %site.name, folder = %folder.display(), %error, "a copy in part is left");
        }
        return Err(error);
    }
    Ok(Some(number))
}

fn fill_folder(site: &PartitionSite, survey: &Survey, folder: &Path) -> io::Result<()> {
    let storage = &**site.storage();
    storage.create_dir_all(folder)?;
    if survey.tail_bytes > 0 {
        let source = storage.open(&survey.cut.file(site), OpenMode::Read)?;
        let copy = storage.open(&FileKind::Log.path(folder, survey.cut.offset), OpenMode::Create)?;
        copy_from(&*source, survey.cut.position, u64::MAX, &*copy)?;
        copy.sync(SyncPurpose::Recovered).wait()?;
    }
    storage.sync_dir(folder, SyncPurpose::Recovered)?;
    storage.sync_dir(&site.directory, SyncPurpose::Recovered)
}

/// Makes the log end where `note` says, and takes note of that. `directory` is that of the whole log, which
/// nobody else has open.
///
/// # Errors
/// Those of the operating system; the note is as it was then, and the same can be done again.
pub(super) fn carry_out(directory: &Path, site: &PartitionSite, note: CutNote) -> Result<()> {
    let mut marks = Marks::read(site)?;
    let note = match note.stage {
        Stage::ToBeCut => {
            site.begin_writing()?;
            lower_recovery_point(directory, site, note.cut.offset)?;
            marks.begin_cut(site, note.cut.offset, CutBy::Repair)?;
            let folder = note.folder(site);
            cut(site, note.cut, folder.as_deref()).map_err(|error| failed(site, "cut", error))?;
            let note = CutNote { stage: Stage::Cut, ..note };
            note.write(site)?;
            note
        }
        Stage::Cut => note,
    };
    marks.end_cut(site, CutBy::Repair)?;
    if note.endings().is_empty() { CutNote::remove(site) } else { Ok(()) }
}

fn lower_recovery_point(directory: &Path, site: &PartitionSite, cut: Offset) -> Result<()> {
    let mut points = recovery_point::read(&**site.storage(), directory)?.points;
    if let Some(synced) = points.get_mut(&site.key()) {
        *synced = cut.min(*synced);
    }
    RecoveryPointFile::create(site.storage().clone(), directory, points, Arc::default()).map(drop)
}

/// Moves the later segments away, the last one first, and cuts the file.
fn cut(site: &PartitionSite, cut: Cut, folder: Option<&Path>) -> io::Result<()> {
    let storage = &**site.storage();
    let segments = Listing::read(storage, &site.directory)?.segments;
    let beyond = segments.into_iter().rev().take_while(|base| *base > cut.base);
    for (base, folder) in beyond.filter_map(|base| Some((base, folder?))) {
        let path = FileKind::Log.path(&site.directory, base);
        storage.open(&path, OpenMode::Write)?.sync(SyncPurpose::Recovered).wait()?;
        storage.rename(&path, &FileKind::Log.path(folder, base))?;
        storage.sync_dir(folder, SyncPurpose::Recovered)?;
        storage.sync_dir(&site.directory, SyncPurpose::Recovered)?;
    }
    let path = cut.file(site);
    if !storage.exists(&path)? {
        // All of it is missing from its start on.
        Segment::create(site, cut.base)?;
    } else if storage.open(&path, OpenMode::Read)?.len()? > cut.position {
        shorten(site, cut.base, cut.position)?;
    } else {
        storage.open(&path, OpenMode::Write)?.sync(SyncPurpose::Recovered).wait()?;
    }
    storage.sync_dir(&site.directory, SyncPurpose::Recovered)
}

/// Recovers the partition, so that it need not be done when the log is opened. It is closed again.
pub(super) fn recover(site: PartitionSite, recovery_point: Option<Offset>) -> Result<Arc<Partition>> {
    let border = RecoveryBorder { recovery_point, clean_shutdown: false };
    let (partition, _) = Partition::open(site, &border)?;
    partition.close()?;
    debug_assert_eq!(partition.durable(), partition.offsets().end, "closing makes everything durable");
    Ok(partition)
}
