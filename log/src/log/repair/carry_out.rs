//! Carrying out a cut that is decided. Each step can be taken again: it may have been cut short anywhere.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::failed;
use super::note::{CutNote, Stage, folder};
use super::survey::{Cut, Survey};
use crate::error::Result;
use crate::files::{FileKind, Listing};
use crate::flusher::Flush;
use crate::partition::marks::{Cuts, Marks};
use crate::partition::{Partition, PartitionSite};
use crate::record::Offset;
use crate::recovery::RecoveryBorder;
use crate::recovery_point::{self, RecoveryPointFile};
use crate::segment::Segment;
use crate::storage::{OpenMode, StorageFile, SyncPurpose};

/// How much is copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Makes the folder for what is cut off, and copies into it what is cut off the end of a file. Returns its
/// number, if there is anything to keep.
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
    storage.create_dir_all(&folder)?;
    if survey.tail_bytes > 0 {
        let source = storage.open(&survey.cut.file(site), OpenMode::Read)?;
        let copy = storage.open(&FileKind::Log.path(&folder, survey.cut.offset), OpenMode::Create)?;
        copy_from(&*source, survey.cut.position, &*copy)?;
        copy.sync(SyncPurpose::Recovered).wait()?;
    }
    storage.sync_dir(&folder, SyncPurpose::Recovered)?;
    storage.sync_dir(&site.directory, SyncPurpose::Recovered)?;
    Ok(Some(number))
}

fn copy_from(source: &dyn StorageFile, position: u64, copy: &dyn StorageFile) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let read = source.read_at(position + copied, &mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        copy.write_at(copied, &chunk[..read])?;
        copied += read as u64;
    }
}

/// Makes the log end where `note` says, and takes note of that. `directory` is that of the whole log, which
/// nobody else has open.
///
/// # Errors
/// Those of the operating system; the note is as it was then, and the same can be done again.
pub(super) fn carry_out(directory: &Path, site: &PartitionSite, note: CutNote) -> Result<()> {
    site.begin_writing()?;
    let offset = note.cut.offset;
    let mut points = recovery_point::read(&**site.storage(), directory)?.points;
    if let Some(synced) = points.get_mut(&site.key()) {
        *synced = offset.min(*synced);
    }
    RecoveryPointFile::create(site.storage().clone(), directory, points, Arc::default())?;
    let mut marks = Marks::read(site)?;
    lower(&mut marks, offset);
    marks.write(site)?;
    let folder = note.folder(site);
    cut(site, note.cut, folder.as_deref()).map_err(|error| failed(site, "cut", error))?;
    let note = CutNote { stage: Stage::Cut, ..note };
    if note.endings().is_empty() { CutNote::remove(site) } else { note.write(site) }
}

/// Nothing is said any more of what lies behind the cut, but that other records may be there.
fn lower(marks: &mut Marks, cut: Offset) {
    marks.generation += 1;
    marks.start = marks.start.min(cut);
    marks.clean_end = marks.clean_end.min(cut);
    marks.rewritten_end = marks.rewritten_end.min(cut);
    marks.replacement = None;
    marks.cuts = Some(Cuts::and(marks.cuts, cut));
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
    match storage.open(&FileKind::Log.path(&site.directory, cut.base), OpenMode::Write) {
        Ok(file) => {
            file.truncate(cut.position)?;
            file.sync(SyncPurpose::Recovered).wait()
        }
        // All of it is missing from its start on.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Segment::create(site, cut.base)?;
            storage.sync_dir(&site.directory, SyncPurpose::Recovered)
        }
        Err(error) => Err(error),
    }
}

/// Recovers the partition, so that it need not be done when the log is opened.
pub(super) fn recover(site: PartitionSite, cut: Offset) -> Result<()> {
    let border = RecoveryBorder { recovery_point: Some(cut), clean_shutdown: false };
    let (partition, _) = Partition::open(site, &border)?;
    partition.close()?;
    debug_assert_eq!(partition.durable(), partition.offsets().end, "closing makes everything durable");
    Ok(())
}
