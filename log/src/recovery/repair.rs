//! Making a partition's directory what was found of it, durably, before anyone reads or appends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::assess::{Assessment, Cut};
use super::{RecoveryBorder, RecoveryReport, Truncation, torn};
use crate::error::Result;
use crate::files::FileKind;
use crate::partition::{Durability, PartitionSite, Tail, failed_sync};
use crate::record::Offset;
use crate::segment::Segment;
use crate::storage::{OpenMode, StorageFile, SyncPurpose};

/// How much is written again at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// Cuts off what is not kept, syncs what is, removes what is not believed.
pub(super) fn repair(
    site: &PartitionSite,
    assessment: Assessment,
    border: &RecoveryBorder,
) -> Result<(Tail, RecoveryReport)> {
    let failed = |doing| move |error| site.io(doing, &site.directory, error);
    let Assessment { listing, mut tail, scanned_from, scan } = assessment;
    let segments: Vec<_> = tail.segments.iter().map(|segment| segment.base()).collect();
    let strays = listing.strays(&site.directory, &segments);
    let is_as_closed = border.clean_shutdown && scan.bytes == 0 && scan.cut.is_none() && strays.is_empty();
    let mut truncated = None;
    if !is_as_closed {
        site.begin_writing()?;
        forget_snapshots(site, &listing.snapshots, &tail).map_err(failed("remove snapshots from"))?;
        if let Some(cut) = &scan.cut {
            truncated =
                Some(cut_off(site, &tail, cut, &scan.beyond).map_err(failed("cut off the torn end of"))?);
        }
        persist_indexes(&mut tail, scanned_from).map_err(failed("write the indexes in"))?;
        sync_kept(site, &tail, scan.unsynced).map_err(failed("sync the log in"))?;
        let doing = "remove what is not believed from";
        remove(site, strays.into_iter()).map_err(failed(doing))?;
        failed_sync::remove(site).map_err(failed(doing))?;
        // The snapshot says that the indexes below it are synced: their names are too, before it has one.
        sync_names(site).map_err(failed("sync the names in"))?;
        write_snapshot(site, &mut tail).map_err(failed("write a snapshot to"))?;
        sync_names(site).map_err(failed("sync the names in"))?;
    }
    let partition = site.name.clone();
    let report = RecoveryReport { partition, end: tail.end, scanned_bytes: scan.bytes, truncated };
    tell(&report);
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

/// Cuts the log off at the tail's end. What follows is kept aside first, if it holds a sound batch.
fn cut_off(site: &PartitionSite, tail: &Tail, cut: &Cut, beyond: &[Offset]) -> io::Result<Truncation> {
    let storage = &**site.storage();
    let segment = &tail.active.segment;
    let position = tail.active.position();
    let mut truncation = Truncation {
        offset: tail.end,
        file: segment.path().to_owned(),
        position,
        bytes: segment.file().len()? - position,
        reason: cut.reason.clone(),
        torn_files: Vec::new(),
    };
    if cut.keeps_sound_batches && torn::holds_sound_batch(&**segment.file(), position, tail.end)? {
        let kept = torn::keep_aside(storage, segment.path(), &**segment.file(), position)?;
        truncation.torn_files.push(kept);
    }
    for &base in beyond {
        let path = FileKind::Log.path(&site.directory, base);
        let file = storage.open(&path, OpenMode::Write)?;
        truncation.bytes += file.len()?;
        if cut.keeps_sound_batches && torn::holds_sound_batch(&*file, 0, tail.end)? {
            file.sync(SyncPurpose::Recovered).wait()?;
            let kept = torn::free_name(storage, &path)?;
            storage.rename(&path, &kept)?;
            truncation.torn_files.push(kept);
        } else {
            storage.remove_file(&path)?;
        }
    }
    // What is kept aside is there before it is gone from the log.
    storage.sync_dir(&site.directory, SyncPurpose::Recovered)?;
    segment.file().truncate(position)?;
    Ok(truncation)
}

/// Writes and syncs the indexes of the segments that were read. Old entries behind those that are
/// believed go for good: they might be taken for entries of batches yet to come.
fn persist_indexes(tail: &mut Tail, scanned_from: Offset) -> io::Result<()> {
    tail.active.note_time_entry();
    let scanned = (0..tail.segments.len()).filter(|&index| tail.segment_end(index) >= scanned_from);
    let mut files = Vec::new();
    for index in scanned {
        files.extend(tail.segments[index].persist_indexes()?);
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
/// be shown and then vanish.
fn sync_kept(site: &PartitionSite, tail: &Tail, unsynced: Option<(usize, u64)>) -> io::Result<()> {
    let Some((first, position)) = unsynced else { return Ok(()) };
    let segments = &tail.segments[first..];
    if site.config.durability != Durability::Os {
        for (index, segment) in segments.iter().enumerate() {
            write_again(segment, if index == 0 { position } else { 0 })?;
        }
    }
    let files: Vec<_> = segments.iter().map(|segment| segment.file().clone()).collect();
    sync_all(&files)
}

/// Writes what a segment holds from `position` on once more. After a sync that failed, the system takes
/// the bytes for clean though they are not on the disk, and a further sync would do nothing.
fn write_again(segment: &Segment, position: u64) -> io::Result<()> {
    let mut chunk = Vec::new();
    let (mut position, end) = (position, segment.bytes());
    while position < end {
        chunk.resize(CHUNK_BYTES.min(end - position) as usize, 0);
        let read = segment.file().read_at(position, &mut chunk)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        segment.file().write_at(position, &chunk[..read])?;
        position += read as u64;
    }
    Ok(())
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

fn tell(report: &RecoveryReport) {
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
            "the end of the log was torn and is cut off"
        ),
        None => tracing::debug!(%partition, %end, scanned_bytes = report.scanned_bytes, "recovered"),
    }
}
