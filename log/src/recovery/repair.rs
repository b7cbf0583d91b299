//! Making a partition's directory what was found of it, durably, before anyone reads or appends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::assess::{Assessment, Cut, Rest};
use super::{RecoveryBorder, RecoveryReport, Truncation, torn};
use crate::error::Result;
use crate::files::FileKind;
use crate::partition::marks::{CutBy, Marks};
use crate::partition::shorten::ShorterCopy;
use crate::partition::{PartitionSite, Tail, failed_sync};
use crate::record::Offset;
use crate::scanner::{BatchPlace, Scanner};
use crate::segment::Segment;
use crate::sound_batches::SoundBatches;
use crate::storage::{OpenMode, StorageFile, SyncPurpose};

/// How much is written again at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// How many files of indexes are synced at once, the last segment's besides: all of them are open.
pub(crate) const INDEXES_AT_ONCE: usize = 64;

/// How much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Nothing: the directory is as closing would leave it.
    None,
    /// Nothing was found that is not believed. What was read is synced; indexes and a snapshot of it can
    /// wait until the writer writes them, as they would have without a crash.
    Sync,
    /// What is not believed goes, and what was read is written down, durably.
    Whole,
}

impl Extent {
    fn of(found: &Assessment, strays: &[PathBuf], border: &RecoveryBorder) -> Self {
        let Assessment { listing, tail, scan, .. } = found;
        // A note that stayed would take back what is synced from here on.
        let is_clean = scan.cut.is_none() && strays.is_empty() && !found.has_note;
        if border.clean_shutdown && is_clean && scan.bytes == 0 {
            return Self::None;
        }
        let is_believed = is_clean && tail.snapshots == listing.snapshots;
        let is_one_segment = listing.segments.last().is_none_or(|last| *last <= found.scanned_from);
        if !is_believed || !is_one_segment {
            return Self::Whole;
        }
        let is_written_down = tail.snapshots.last() == Some(&tail.end) || tail.end == Offset(0);
        if scan.bytes == 0 && is_written_down && !is_just_begun(tail) && !tail.active.segment.has_leftovers()
        {
            Self::None
        } else {
            Self::Sync
        }
    }
}

/// Whether nothing is in the last segment: its name may not be synced, since one that is old enough is sealed
/// before there is anything for the next.
fn is_just_begun(tail: &Tail) -> bool {
    tail.active.position() == 0 && tail.active.segment.base() > Offset(0)
}

/// Cuts off what others may have read beside the writer: nobody is to read on in it meanwhile, and whoever has it
/// in hand is to find out. So what takes long, or room on the disk, is done before it is announced. What was found
/// is not what is there any more then.
pub(super) fn cut_off_announced(
    site: &PartitionSite,
    found: &Assessment,
    marks: &mut Marks,
) -> Result<Option<Truncation>> {
    let Some(cut) = found.scan.cut.as_ref().filter(|cut| cut.may_be_read) else { return Ok(None) };
    let failed = |error| site.io("cut off the end of the log in", &site.directory, error);
    let (tail, beyond) = (&found.tail, &found.scan.beyond);
    site.begin_writing()?;
    let mut truncation = foresee(site, tail, cut, beyond).map_err(failed)?;
    if cut.rest == Rest::Unsynced {
        // Without it nobody would know what is to go once some of it is gone.
        failed_sync::make_durable(site).map_err(failed)?;
    }
    let copy = ShorterCopy::write(site, tail.active.segment.base(), truncation.position).map_err(failed)?;
    if let Err(error) = marks.begin_cut(site, tail.end, CutBy::Recovery) {
        copy.discard();
        return Err(error);
    }
    remove_beyond(site, tail, cut, beyond, &mut truncation).map_err(failed)?;
    copy.put().map_err(failed)?;
    // The file ends at the cut from here on: a note of a failed sync that is still there cuts nothing off.
    end_announced(site, marks)?;
    Ok(Some(truncation))
}

/// Says that what recovery has announced is cut off, once the names are durable: they may be those in the page cache.
pub(super) fn end_announced(site: &PartitionSite, marks: &mut Marks) -> Result<()> {
    if marks.being_cut == Some(CutBy::Recovery) {
        sync_names(site).map_err(|error| site.io("sync the names in", &site.directory, error))?;
    }
    marks.end_cut(site, CutBy::Recovery)
}

/// Cuts off what is not kept, syncs what is, removes what is not believed. What is announced is cut off already.
pub(super) fn repair(
    site: &PartitionSite,
    assessment: Assessment,
    border: &RecoveryBorder,
    announced: Option<Truncation>,
) -> Result<(Tail, RecoveryReport)> {
    let failed = |doing| move |error| site.io(doing, &site.directory, error);
    let segments: Vec<_> = assessment.tail.segments.iter().map(|segment| segment.base()).collect();
    let strays = assessment.listing.strays(&site.directory, &segments);
    let extent = Extent::of(&assessment, &strays, border);
    let Assessment { listing, mut tail, scanned_from, scan, .. } = assessment;
    tail.is_as_closed = extent != Extent::Sync;
    // A copy is synced whole.
    let to_sync = ..tail.segments.len() - usize::from(announced.is_some());
    let mut truncated = announced;
    if extent != Extent::None {
        site.begin_writing()?;
    }
    let doubt = torn::doubt(tail.active.segment.path());
    let is_all_synced = scan.unsynced == Some((tail.segments.len() - 1, tail.active.position()));
    let is_as_closed = extent == Extent::None && border.clean_shutdown;
    if extent != Extent::Whole && !is_as_closed {
        // What was cut off by somebody who was killed may be so in the page cache only, and nothing tells: the
        // log is not to get it back once it is taken for durable as it is.
        sync_kept(&tail.segments[to_sync], scan.unsynced).map_err(failed("sync the log in"))?;
    }
    if extent == Extent::Sync && (!is_all_synced || is_just_begun(&tail)) {
        // The segment may have been begun after the snapshot was synced.
        sync_names(site).map_err(failed("sync the names in"))?;
    }
    if extent == Extent::Whole {
        forget_snapshots(site, &listing.snapshots, &tail).map_err(failed("remove snapshots from"))?;
        if let Some(cut) = &scan.cut {
            truncated =
                Some(cut_off(site, &tail, cut, &scan.beyond).map_err(failed("cut off the torn end of"))?);
        } else if truncated.is_none() && strays.contains(&doubt) {
            end_again(&tail).map_err(failed("cut off the torn end of"))?;
        }
        persist_indexes(&mut tail, scanned_from).map_err(failed("write the indexes in"))?;
        sync_kept(&tail.segments[to_sync], scan.unsynced).map_err(failed("sync the log in"))?;
        let doing = "remove what is not believed from";
        let settled = scan.cut.is_some().then_some(doubt);
        remove(site, strays.into_iter().chain(settled)).map_err(failed(doing))?;
        failed_sync::remove(site).map_err(failed(doing))?;
        // The snapshot says that the indexes below it are synced: their names are too, before it has one.
        sync_names(site).map_err(failed("sync the names in"))?;
        write_snapshot(site, &mut tail).map_err(failed("write a snapshot to"))?;
        sync_names(site).map_err(failed("sync the names in"))?;
    }
    let partition = site.name.clone();
    let report = RecoveryReport { partition, end: tail.end, scanned_bytes: scan.bytes, truncated };
    Ok((tail, report))
}

/// Removes the snapshots that are not believed, for good, before an index is written that they vouch for:
/// cut off in the middle of that, recovery must not find one.
fn forget_snapshots(site: &PartitionSite, found: &[Offset], tail: &Tail) -> io::Result<()> {
    let disbelieved: Vec<_> = found.iter().filter(|offset| !tail.snapshots.contains(offset)).collect();
    if disbelieved.is_empty() {
        return Ok(());
    }
    remove(site, disbelieved.into_iter().map(|offset| FileKind::Snapshot.path(&site.directory, *offset)))?;
    sync_names(site)
}

/// Cuts the log off at the tail's end, where it is. What follows is kept aside first, if it holds a sound batch.
fn cut_off(site: &PartitionSite, tail: &Tail, cut: &Cut, beyond: &[Offset]) -> io::Result<Truncation> {
    let mut truncation = foresee(site, tail, cut, beyond)?;
    remove_beyond(site, tail, cut, beyond, &mut truncation)?;
    let segment = &tail.active.segment;
    torn::doubt_end(&**site.storage(), segment.path())?;
    segment.file()?.truncate(truncation.position)?;
    Ok(truncation)
}

/// What will be cut off at the tail's end. What follows in the file there is kept aside, if it holds a sound batch.
fn foresee(site: &PartitionSite, tail: &Tail, cut: &Cut, beyond: &[Offset]) -> io::Result<Truncation> {
    let segment = &tail.active.segment;
    let position = tail.active.position();
    let file = segment.file()?;
    let mut truncation = Truncation {
        offset: tail.end,
        file: segment.path().to_owned(),
        position,
        bytes: file.len()? - position,
        reason: cut.reason.clone(),
        torn_files: Vec::new(),
        given_up_to: None,
    };
    if cut.rest == Rest::Torn && holds_sound_batch(&*file, position, segment.base(), tail.end)? {
        let kept = torn::keep_aside(&**site.storage(), segment.path(), &*file, position)?;
        truncation.torn_files.push(kept);
    }
    if cut.rest == Rest::GivenUp {
        truncation.given_up_to = Some(given_up_to(site, tail, beyond)?);
    }
    Ok(truncation)
}

/// Takes the segments behind the cut out of the log, for good: the file before them is not to end sooner while they are
/// there.
fn remove_beyond(
    site: &PartitionSite,
    tail: &Tail,
    cut: &Cut,
    beyond: &[Offset],
    truncation: &mut Truncation,
) -> io::Result<()> {
    let storage = &**site.storage();
    for &base in beyond {
        let path = FileKind::Log.path(&site.directory, base);
        let file = storage.open(&path, OpenMode::Write)?;
        truncation.bytes += file.len()?;
        if cut.rest == Rest::Torn && holds_sound_batch(&*file, 0, base, tail.end)? {
            file.sync(SyncPurpose::Recovered).wait()?;
            let kept = torn::free_name(storage, &path)?;
            storage.rename(&path, &kept)?;
            truncation.torn_files.push(kept);
        } else {
            storage.remove_file(&path)?;
        }
    }
    // What is kept aside is there before it is gone from the log.
    sync_names(site)
}

/// Whether a sound batch of offsets from `lowest` on begins at or after `position` in the file of `base`.
fn holds_sound_batch(
    file: &dyn StorageFile,
    position: u64,
    base: Offset,
    lowest: Offset,
) -> io::Result<bool> {
    Ok(SoundBatches::new(file, position, base, lowest)?.next()?.is_some())
}

/// The offset behind the last sound record that follows the end of a log which is cut.
fn given_up_to(site: &PartitionSite, tail: &Tail, beyond: &[Offset]) -> io::Result<Offset> {
    let (file, place) = match beyond.last() {
        None => (tail.active.segment.file()?, tail.place()),
        Some(&base) => {
            let path = FileKind::Log.path(&site.directory, base);
            (site.storage().open(&path, OpenMode::Read)?, BatchPlace { position: 0, offset: base })
        }
    };
    let bytes = file.len()?;
    let mut scanner = Scanner::new(file, place, bytes, site.density());
    while let Ok(Some(_)) = scanner.next() {}
    Ok(scanner.place().offset)
}

/// Writes and syncs the indexes of the segments that were read. Old entries behind those that are
/// believed go for good: they might be taken for entries of batches yet to come.
fn persist_indexes(tail: &mut Tail, scanned_from: Offset) -> io::Result<()> {
    tail.active.note_time_entry();
    let scanned = (0..tail.segments.len()).filter(|&index| tail.segment_end(index) >= scanned_from);
    let mut files = Vec::new();
    for index in scanned {
        tail.segments[index].persist_indexes(tail.segment_end(index), |file| files.push(file))?;
        if files.len() >= INDEXES_AT_ONCE {
            sync_all(&files)?;
            files.clear();
        }
    }
    sync_all(&files)
}

/// Writes down what is known of the producers at the end, so that the next crash need not read this
/// again. The indexes are durable already.
fn write_snapshot(site: &PartitionSite, tail: &mut Tail) -> io::Result<()> {
    if tail.snapshots.last() != Some(&tail.end) {
        let path = FileKind::Snapshot.path(&site.directory, tail.end);
        let file = site.storage().open(&path, OpenMode::Create)?;
        file.write_at(0, &tail.producers.encode())?;
        file.sync(SyncPurpose::Recovered).wait()?;
        tail.snapshots.push(tail.end);
    }
    tail.bytes_since_snapshot = 0;
    Ok(())
}

/// Syncs the batches that may not be synced yet: a decision that was only in the page cache must not
/// be shown and then vanish. One segment after the other: there may be more than can be open at once, and
/// what is in an older one is on its way to the disk already.
fn sync_kept(segments: &[Arc<Segment>], unsynced: Option<(usize, u64)>) -> io::Result<()> {
    let Some((first, position)) = unsynced else { return Ok(()) };
    for (index, segment) in segments.iter().skip(first).enumerate() {
        let file = segment.file()?;
        write_again(&*file, if index == 0 { position } else { 0 }, segment.bytes())?;
        file.sync(SyncPurpose::Recovered).wait()?;
    }
    Ok(())
}

/// Writes what a file holds from `position` to `end` once more. After a sync that failed, the system takes
/// the bytes for clean though they are not on the disk, and a further sync would do nothing.
fn write_again(file: &dyn StorageFile, mut position: u64, end: u64) -> io::Result<()> {
    let mut chunk = Vec::new();
    while position < end {
        chunk.resize(CHUNK_BYTES.min(end - position) as usize, 0);
        let read = file.read_at(position, &mut chunk)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(position, &chunk[..read])?;
        position += read as u64;
    }
    Ok(())
}

/// Has the last file end once more where it ends: somebody has cut it off there, and the sync of that may have failed.
/// The system takes the end for clean then though it is not on the disk, and a further sync would do nothing, so that
/// the log got it back with the next power cut, behind the backs of those who take it for durable as it is. Ending it
/// where it ends would be no change, and need not be synced either.
fn end_again(tail: &Tail) -> io::Result<()> {
    let file = tail.active.segment.file()?;
    let end = tail.active.position();
    file.truncate(end + 1)?;
    file.truncate(end)
}

fn sync_names(site: &PartitionSite) -> io::Result<()> {
    site.storage().sync_dir(&site.directory, SyncPurpose::Recovered)
}

/// Syncs all of the files at once.
fn sync_all(files: &[Arc<dyn StorageFile>]) -> io::Result<()> {
    let tickets: Vec<_> = files.iter().map(|file| file.sync(SyncPurpose::Recovered)).collect();
    tickets.iter().try_for_each(|ticket| ticket.wait())
}

/// Removes files; one that is gone already, as a copy that was begun anew, is as good as removed.
fn remove(site: &PartitionSite, paths: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    for path in paths {
        match site.storage().remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Says what was done.
pub(super) fn tell(report: &RecoveryReport) {
    let (partition, end) = (&report.partition, report.end);
    match &report.truncated {
        Some(cut) => tracing::warn!(
            %partition,
            %end,
            file = %cut.file.display(),
            position = cut.position,
            bytes = cut.bytes,
            reason = cut.reason,
            kept_aside = ?cut.torn_files,
            given_up_to = ?cut.given_up_to,
            "the end of the log is cut off"
        ),
        None => tracing::debug!(%partition, %end, scanned_bytes = report.scanned_bytes, "recovered"),
    }
}
