//! Carrying out a cut that is decided. Each step can be taken again: it may have been cut short anywhere.
//!
//! Other processes may read meanwhile. What takes long, or room on the disk, is done before they notice
//! anything ([`Copies`]). From before the first file goes until the last is gone the marks say that the
//! partition is being cut, and nobody opens it or reads on in it then: there is nothing to do by then but to
//! change names. Whoever has a file in hand reads on in what it was: a file that is cut is replaced by one
//! that ends sooner, and none is changed where it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failed;
use super::note::{CutNote, Stage, folder};
use super::survey::{Cut, Survey};
use crate::error::Result;
use crate::files::{FileKind, Listing};
use crate::flusher::Flush;
use crate::partition::marks::{CutBy, Marks};
use crate::partition::shorten::{ShorterCopy, copy_from};
use crate::partition::{Partition, PartitionSite};
use crate::record::Offset;
use crate::recovery::RecoveryBorder;
use crate::recovery_point::{self, RecoveryPointFile};
use crate::segment::Segment;
use crate::storage::{OpenMode, SyncPurpose};

/// What a cut takes room for. Nothing of the partition has changed for it. If it comes to nothing, whoever
/// opens the partition next removes the copy of what stays, and leaves that of what is cut off.
pub(super) struct Copies<'a> {
    site: &'a PartitionSite,
    /// The folder of what is cut off, if anything is, and its number.
    kept: Option<(u32, PathBuf)>,
    /// What stays of the file that is cut, if it is cut in the middle.
    stays: Option<ShorterCopy<'a>>,
}

impl<'a> Copies<'a> {
    /// Makes the folder for what is cut off, and copies into it what is cut off the end of a file. Copies
    /// what stays of that file, and syncs what moves. What was copied before an error is removed.
    pub(super) fn write(site: &'a PartitionSite, survey: &Survey) -> io::Result<Self> {
        let mut copies = Self { site, kept: None, stays: None };
        match copies.write_all(survey) {
            Ok(()) => Ok(copies),
            Err(error) => {
                copies.discard();
                Err(error)
            }
        }
    }

    fn write_all(&mut self, survey: &Survey) -> io::Result<()> {
        let storage = &**self.site.storage();
        if !survey.is_empty() {
            let (number, folder) = free_folder(self.site, survey.cut.offset)?;
            self.kept = Some((number, folder.clone()));
            storage.create_dir_all(&folder)?;
            if survey.tail_bytes > 0 {
                let source = storage.open(&survey.cut.file(self.site), OpenMode::Read)?;
                let path = FileKind::Log.path(&folder, survey.cut.offset);
                let copy = storage.open(&path, OpenMode::Create)?;
                copy_from(&*source, survey.cut.position, u64::MAX, &*copy)?;
                copy.sync(SyncPurpose::Recovered).wait()?;
            }
            storage.sync_dir(&folder, SyncPurpose::Recovered)?;
            storage.sync_dir(&self.site.directory, SyncPurpose::Recovered)?;
        }
        self.stays = copy_what_stays(self.site, survey.cut)?;
        Ok(())
    }

    /// The number of the folder of what is cut off.
    pub(super) fn folder(&self) -> Option<u32> {
        self.kept.as_ref().map(|(number, _)| *number)
    }

    /// Makes room again, as far as that can be done.
    pub(super) fn discard(self) {
        if let Some(stays) = self.stays {
            stays.discard();
        }
        if let Some((_, folder)) = self.kept
            && let Err(error) = self.site.storage().remove_dir_all(&folder)
        {
            let (partition, folder) = (&self.site.name, folder.display());
            tracing::debug!(%partition, %folder, %error, "a copy of what is not cut off is left");
        }
    }
}

/// The first number for which there is no folder of what is cut off here.
fn free_folder(site: &PartitionSite, cut: Offset) -> io::Result<(u32, PathBuf)> {
    let mut number = 1;
    loop {
        let folder = folder(&site.directory, cut, number);
        if !site.storage().exists(&folder)? {
            return Ok((number, folder));
        }
        number += 1;
    }
}

/// Copies what stays of the file that is cut, if it does not end there, and syncs what keeps its bytes.
fn copy_what_stays(site: &PartitionSite, cut: Cut) -> io::Result<Option<ShorterCopy<'_>>> {
    let storage = &**site.storage();
    let sync = |path: &Path| storage.open(path, OpenMode::Write)?.sync(SyncPurpose::Recovered).wait();
    for base in beyond(site, cut)? {
        sync(&FileKind::Log.path(&site.directory, base))?;
    }
    let path = cut.file(site);
    if !storage.exists(&path)? {
        return Ok(None);
    }
    if storage.open(&path, OpenMode::Read)?.len()? > cut.position {
        return ShorterCopy::write(site, cut.base, cut.position).map(Some);
    }
    sync(&path).map(|()| None)
}

/// The segments behind the cut, the last one first.
fn beyond(site: &PartitionSite, cut: Cut) -> io::Result<Vec<Offset>> {
    let segments = Listing::read(&**site.storage(), &site.directory)?.segments;
    Ok(segments.into_iter().rev().take_while(|base| *base > cut.base).collect())
}

/// Makes the log end where `note` says, and takes note of that. `directory` is that of the whole log, which
/// nobody else has open. `copies` are there unless it was cut short before: what stays is copied again then.
///
/// # Errors
/// Those of the operating system; the note is as it was then, and the same can be done again.
pub(super) fn carry_out(
    directory: &Path,
    site: &PartitionSite,
    note: CutNote,
    copies: Option<Copies<'_>>,
) -> Result<()> {
    let mut marks = Marks::read(site)?;
    let note = match note.stage {
        Stage::ToBeCut => {
            site.begin_writing()?;
            let stays = match copies {
                Some(copies) => copies.stays,
                None => copy_what_stays(site, note.cut)
                    .map_err(|error| failed(site, "copy what stays of", error))?,
            };
            if let Err(error) = announce(directory, site, note.cut.offset, &mut marks) {
                stays.into_iter().for_each(ShorterCopy::discard);
                return Err(error);
            }
            let folder = note.folder(site);
            cut(site, note.cut, folder.as_deref(), stays).map_err(|error| failed(site, "cut", error))?;
            let note = CutNote { stage: Stage::Cut, ..note };
            note.write(site)?;
            note
        }
        Stage::Cut => note,
    };
    marks.end_cut(site, CutBy::Repair)?;
    if note.endings().is_empty() { CutNote::remove(site) } else { Ok(()) }
}

/// Says to whoever opens the partition that what is missing behind the cut is no damage, and to whoever reads
/// it to wait.
fn announce(directory: &Path, site: &PartitionSite, cut: Offset, marks: &mut Marks) -> Result<()> {
    lower_recovery_point(directory, site, cut)?;
    marks.begin_cut(site, cut, CutBy::Repair)
}

fn lower_recovery_point(directory: &Path, site: &PartitionSite, cut: Offset) -> Result<()> {
    let mut points = recovery_point::read(&**site.storage(), directory)?.points;
    if let Some(synced) = points.get_mut(&site.key()) {
        *synced = cut.min(*synced);
    }
    RecoveryPointFile::create(site.storage().clone(), directory, points, Arc::default()).map(drop)
}

/// Moves the later segments away, the last one first, and puts what stays of the file in its place.
fn cut(
    site: &PartitionSite,
    cut: Cut,
    folder: Option<&Path>,
    stays: Option<ShorterCopy<'_>>,
) -> io::Result<()> {
    let storage = &**site.storage();
    for (base, folder) in beyond(site, cut)?.into_iter().filter_map(|base| Some((base, folder?))) {
        let path = FileKind::Log.path(&site.directory, base);
        storage.rename(&path, &FileKind::Log.path(folder, base))?;
        storage.sync_dir(folder, SyncPurpose::Recovered)?;
        storage.sync_dir(&site.directory, SyncPurpose::Recovered)?;
    }
    match stays {
        Some(stays) => stays.put()?,
        // All of it is missing from its start on.
        None if !storage.exists(&cut.file(site))? => drop(Segment::create(site, cut.base)?),
        None => {}
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
