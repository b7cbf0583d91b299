//! Finding out what a partition's directory holds. Nothing is written.

use std::io;
use std::sync::Arc;

use crate::batch::RecordBatch;
use crate::consistent_cut::Retreat;
use crate::error::{ErrorKind, Result};
use crate::files::{FileKind, Listing};
use crate::partition::marks::Marks;
use crate::partition::{LastBatch, PartitionSite, Tail, failed_sync};
use crate::producer_state::ProducerStates;
use crate::record::{LeaderEpoch, Offset};
use crate::recovery::RecoveryBorder;
use crate::scanner::{Density, ReadError, Scanner};
use crate::segment::{ActiveSegment, Segment};
use crate::storage::OpenMode;
use crate::whole_file;

/// What was found.
pub(super) struct Assessment {
    pub(super) listing: Listing,
    /// Everything that is kept. Its segments are published up to where they are.
    pub(super) tail: Tail,
    /// From where on batches were read.
    pub(super) scanned_from: Offset,
    pub(super) scan: Scan,
    /// Whether there is a note of a sync that failed.
    pub(super) has_note: bool,
}

/// What reading batches to the end came to.
#[derive(Default)]
pub(super) struct Scan {
    /// Bytes of sound batches.
    pub(super) bytes: u64,
    /// Where the first batch is that may not be synced: the segment's index in the tail, the position.
    pub(super) unsynced: Option<(usize, u64)>,
    /// Why the log ends before its files do.
    pub(super) cut: Option<Cut>,
    /// The segments behind the cut.
    pub(super) beyond: Vec<Offset>,
}

/// Why the log ends where it does.
pub(super) struct Cut {
    pub(super) reason: String,
    pub(super) rest: Rest,
    /// Whether others may have read what follows, beside the writer.
    pub(super) may_be_read: bool,
}

/// What lies behind the end of a log that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Bytes that may hold sound batches, which are worth keeping aside.
    Torn,
    /// Bytes whose sync failed.
    Unsynced,
    /// Sound batches that are given up, since they stand on what a power cut or a failed sync has taken elsewhere.
    GivenUp,
}

/// What a scan goes by.
pub(super) struct Limits {
    /// What is bad below is corrupt.
    recovery_point: Offset,
    /// What is at or behind it is not believed: its sync failed.
    failed_sync: Option<Offset>,
    /// Whether there is a note of a failed sync, whole or not.
    has_note: bool,
    /// What is not believed behind the recovery point, after a power cut.
    retreat: Option<Arc<Retreat>>,
}

impl Limits {
    pub(super) fn new(site: &PartitionSite, recovery_point: Option<Offset>) -> Result<Self> {
        let note = failed_sync::read(site).map_err(|error| site.io("read", &site.directory, error))?;
        let recovery_point = recovery_point.unwrap_or(Offset(0));
        Ok(Self {
            recovery_point,
            failed_sync: note.and_then(|note| note.certain(recovery_point)),
            has_note: note.is_some(),
            retreat: site.context.retreat.load_full(),
        })
    }
}

/// What was known at some offset, from which on batches are read.
struct Known {
    offset: Offset,
    producers: ProducerStates,
}

/// What came of opening the segments of which something is known.
enum Resumed {
    Tail(Box<Tail>),
    /// An index of the segment with this base offset says what the segment does not.
    IndexDisagrees(Offset),
}

/// Finds out what there is, by the newest producer snapshot that can be believed and the batches behind it.
pub(super) fn assess(
    site: &PartitionSite,
    listing: Listing,
    border: &RecoveryBorder,
    marks: &Marks,
    mode: OpenMode,
) -> Result<Assessment> {
    let limits = Limits::new(site, border.recovery_point)?;
    let mut candidates = believable_snapshots(&listing, border, marks);
    let (known, mut tail) = loop {
        let known = newest_known(site, &listing, &mut candidates);
        let is_last_resort = known.offset == listing.segments[0];
        match resume(site, &listing, &known, (border.clean_shutdown, limits.recovery_point), mode) {
            Ok(Resumed::Tail(tail)) => break (known, *tail),
            Ok(Resumed::IndexDisagrees(base)) => {
                tracing::warn!(partition = %site.name, segment = %base, "an index disagrees with its segment and is not believed");
                candidates.retain(|offset| *offset <= base);
            }
            // A snapshot past the end of the log: a crash took what it speaks of.
            Err(error)
                if error.kind() == ErrorKind::Corrupt
                    && known.offset > limits.recovery_point
                    && !is_last_resort =>
            {
                tracing::debug!(partition = %site.name, offset = %known.offset, %error, "snapshot passed over");
            }
            Err(error) => return Err(error),
        }
    };
    tail.snapshots = listing.snapshots.iter().copied().filter(|offset| *offset <= known.offset).collect();
    let later: Vec<_> = listing.segments.iter().copied().filter(|base| *base > known.offset).collect();
    tail.producers = known.producers;
    let scan = scan(site, &mut tail, &later, &limits, mode)?;
    if tail.end < limits.recovery_point {
        let path = tail.active.segment.path();
        let what = format!("the log ends here; offsets up to {} were synced", limits.recovery_point);
        return Err(site.corrupt(path, tail.place(), what));
    }
    let has_note = limits.has_note;
    Ok(Assessment { listing, tail, scanned_from: known.offset, scan, has_note })
}

/// The snapshots that may be started from, ascending.
fn believable_snapshots(listing: &Listing, border: &RecoveryBorder, marks: &Marks) -> Vec<Offset> {
    let lowest = listing.segments[0].max(marks.rewritten_end);
    let synced = border.recovery_point.unwrap_or(Offset(0));
    let is_synced = |offset: Offset| border.clean_shutdown || offset <= synced;
    // A sealed segment without its indexes has to be read again, from a snapshot inside or before it.
    let sealed = listing.segments.windows(2);
    let unindexed = sealed.filter(|pair| !listing.is_indexed(pair[0])).map(|pair| pair[1]).next();
    let is_indexed = |offset: Offset| unindexed.is_none_or(|next| offset < next);
    let snapshots = listing.snapshots.iter().copied();
    snapshots.filter(|&offset| is_synced(offset) && is_indexed(offset) && offset >= lowest).collect()
}

/// The newest of the snapshots that is whole; the start of the log, of which nothing is known, if none is.
fn newest_known(site: &PartitionSite, listing: &Listing, candidates: &mut Vec<Offset>) -> Known {
    while let Some(offset) = candidates.pop() {
        let path = FileKind::Snapshot.path(&site.directory, offset);
        let decoded = whole_file::read(&**site.storage(), &path)
            .and_then(|bytes| bytes.ok_or(io::ErrorKind::NotFound.into()))
            .map_err(|error| error.to_string())
            .and_then(|bytes| ProducerStates::decode(&bytes).map_err(|error| error.to_string()));
        match decoded {
            Ok(mut producers) => {
                producers.expire(site.producer_horizon());
                return Known { offset, producers };
            }
            Err(error) => {
                tracing::warn!(partition = %site.name, file = %path.display(), %error, "snapshot not believed");
            }
        }
    }
    // A partition that was cut off at the front has a snapshot where it begins, if it had producers.
    Known { offset: listing.segments[0], producers: ProducerStates::default() }
}

/// Opens the segments up to the one that holds the offset of which something is known.
fn resume(
    site: &PartitionSite,
    listing: &Listing,
    known: &Known,
    (clean_shutdown, recovery_point): (bool, Offset),
    mode: OpenMode,
) -> Result<Resumed> {
    let interval = site.config.index_interval_bytes;
    let last = listing.segments.partition_point(|base| *base <= known.offset) - 1;
    let mut segments = Vec::with_capacity(last + 1);
    let mut leader_epoch = LeaderEpoch(0);
    for pair in listing.segments[..=last].windows(2) {
        let (base, next) = (pair[0], pair[1]);
        let segment = Segment::open_sealed(site, base, mode);
        let segment = Arc::new(segment.map_err(|error| open_error(site, base, error))?);
        leader_epoch = check_complete(site, &segment, next, recovery_point)?.max(leader_epoch);
        if !agrees(site, &segment, next, true)? {
            return Ok(Resumed::IndexDisagrees(base));
        }
        segments.push(segment);
    }
    let base = listing.segments[last];
    let segment = Segment::open_believed(site, base, mode, known.offset);
    let segment = Arc::new(segment.map_err(|error| open_error(site, base, error))?);
    segments.push(segment.clone());
    let resumed = ActiveSegment::resume(segment.clone(), interval, known.offset);
    let (mut active, place) = resumed.map_err(|error| site.read_error(segment.path(), error))?;
    let bytes = segment.file().and_then(|file| file.len()).map_err(|error| open_error(site, base, error))?;
    // Compaction leaves the end of the log alone, so no gap is there.
    let is_end = last + 1 == listing.segments.len() && place.position == bytes;
    let density = if is_end { Density::Dense } else { site.density() };
    if !density.allows(known.offset, place.offset) {
        let what = format!("the log ends here; something is known up to offset {}", known.offset);
        return Err(site.corrupt(segment.path(), place, what));
    }
    // What was known when the partition was closed is all that there is.
    let is_whole = is_end && clean_shutdown;
    let is_torn = !clean_shutdown
        && !segment.holds_last_aborted().map_err(|error| site.read_error(segment.path(), error))?;
    if is_torn || !agrees(site, &segment, known.offset, is_whole)? {
        return Ok(Resumed::IndexDisagrees(base));
    }
    active.leader_epoch = active.leader_epoch.max(leader_epoch);
    let last = active.resumed_behind.take().map(|(position, header)| LastBatch { segment, position, header });
    Ok(Resumed::Tail(Box::new(Tail {
        segments,
        active,
        producers: ProducerStates::default(),
        end: known.offset,
        bytes_since_snapshot: 0,
        snapshots: Vec::new(),
        last,
        is_as_closed: true,
    })))
}

fn agrees(site: &PartitionSite, segment: &Segment, next: Offset, is_whole: bool) -> Result<bool> {
    segment.agrees_with_indexes(next, is_whole).map_err(|error| site.read_error(segment.path(), error))
}

/// Checks that a sealed segment ends where the next one begins, from its last index entry on. Returns the
/// reign in which its last batch was written. A batch that is bad there, though it was synced, is left to whoever reads
/// it, who is told, as it is anywhere else in the segment. Of batches that are missing at the end nobody would be.
fn check_complete(
    site: &PartitionSite,
    segment: &Arc<Segment>,
    next: Offset,
    recovery_point: Offset,
) -> Result<LeaderEpoch> {
    let bytes = segment.bytes();
    let resumed = ActiveSegment::resume(segment.clone(), site.config.index_interval_bytes, next);
    let (active, place) = match resumed {
        Err(error @ ReadError::Bad { .. }) if next <= recovery_point => {
            let error = site.read_error(segment.path(), error);
            tracing::error!(partition = %site.name, %error, "a synced batch is bad, and stops whoever reads it");
            return Ok(LeaderEpoch(0));
        }
        resumed => resumed.map_err(|error| site.read_error(segment.path(), error))?,
    };
    if place.position == bytes && site.density().allows(next, place.offset) {
        return Ok(active.leader_epoch);
    }
    let what = format!("the next segment begins with offset {next} and {bytes} bytes are here");
    Err(site.corrupt(segment.path(), place, what))
}

fn open_error(site: &PartitionSite, base: Offset, error: io::Error) -> crate::Error {
    site.io("open", &FileKind::Log.path(&site.directory, base), error)
}

/// Reads the batches behind `tail`, in its active segment and in those of `later`, and absorbs them
/// until the log ends.
pub(super) fn scan(
    site: &PartitionSite,
    tail: &mut Tail,
    later: &[Offset],
    limits: &Limits,
    mode: OpenMode,
) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut later = later.iter();
    loop {
        scan.cut = scan_segment(site, tail, limits, &mut scan)?;
        let Some(&base) = later.next() else { break };
        if scan.cut.is_none() && !site.density().allows(base, tail.end) {
            let reason = format!("the next segment begins with offset {base}");
            scan.cut = Some(Cut { reason, rest: Rest::Torn, may_be_read: false });
        }
        if scan.cut.is_some() {
            scan.beyond = std::iter::once(base).chain(later.copied()).collect();
            break;
        }
        let segment = Segment::open(site, base, mode);
        let segment = segment.map_err(|error| open_error(site, base, error))?;
        tail.go_on_in(segment, site.config.index_interval_bytes);
    }
    if let Some(cut) = &scan.cut
        && tail.end < limits.recovery_point
    {
        return Err(site.corrupt(tail.active.segment.path(), tail.place(), &cut.reason));
    }
    Ok(scan)
}

/// Absorbs the rest of the active segment. Returns why it ends before the file does, if it does.
fn scan_segment(
    site: &PartitionSite,
    tail: &mut Tail,
    limits: &Limits,
    scan: &mut Scan,
) -> Result<Option<Cut>> {
    let segment = tail.active.segment.clone();
    let io = |error| site.io("read", segment.path(), error);
    let file = segment.file().map_err(io)?;
    let bytes = file.len().map_err(io)?;
    let density = site.density();
    let mut scanner = Scanner::new(file, tail.place(), bytes, density);
    loop {
        let place = scanner.place();
        let found = scanner.next();
        let offset = match &found {
            Ok(Some((_, batch))) => batch.header().base_offset,
            _ => place.offset,
        };
        if offset >= limits.recovery_point && scan.unsynced.is_none() {
            scan.unsynced = Some((tail.segments.len() - 1, place.position));
        }
        if place.position < bytes && limits.failed_sync.is_some_and(|synced| offset >= synced) {
            let reason = "a sync of what follows has failed".to_owned();
            return Ok(Some(Cut { reason, rest: Rest::Unsynced, may_be_read: true }));
        }
        match found {
            Ok(Some((_, batch))) if limits.is_beyond(site, &batch) => {
                let reason =
                    "a power cut or a failed sync may have taken what goes with what follows".to_owned();
                let may_be_read = limits.retreat.as_ref().is_some_and(|retreat| retreat.may_be_read());
                return Ok(Some(Cut { reason, rest: Rest::GivenUp, may_be_read }));
            }
            Ok(Some((_, batch))) => {
                tail.absorb_read(&batch);
                scan.bytes += batch.header().length as u64;
            }
            Ok(None) => return Ok(None),
            Err(ReadError::Bad { error, .. }) => {
                let reason = error.to_string();
                return Ok(Some(Cut { reason, rest: Rest::Torn, may_be_read: false }));
            }
            Err(error) => return Err(site.read_error(segment.path(), error)),
        }
    }
}

impl Limits {
    fn is_beyond(&self, site: &PartitionSite, batch: &RecordBatch<'_>) -> bool {
        let retreat = self.retreat.as_ref().filter(|_| batch.header().base_offset >= self.recovery_point);
        retreat.is_some_and(|retreat| retreat.is_beyond(&site.name, batch))
    }
}
