//! Opening a partition whose end nobody vouches for: finding out what is there, then repairing it.
//!
//! First everything is read and nothing written ([`assess`]). The newest believed producer snapshot
//! says what was known at its offset; the batches behind it are read and absorbed one by one, as the
//! writer does. The border between a torn tail and corruption is the recovery point: a bad batch below
//! it is corruption, and the directory is left as it is; at or above it the first bad batch ends the
//! log. Only then ([`repair`]) is the end cut off, what follows it kept aside if it holds a sound
//! batch, everything that is kept synced, and whatever else is not believed removed, for good.
//!
//! After a crash, a snapshot and the index entries below it are believed if its offset is not above the
//! recovery point: the round of syncs that made the records below it durable covered both, or the entries were synced
//! before the snapshot was written. After a clean shutdown everything is believed, and nothing but the end of the last
//! segment is read. In either case an index that disagrees with its segment is not believed: the segment is read again.
//!
//! What a sync has failed to take, and what is given up with it, was there for everybody who reads beside the
//! writer. So it is cut off as a repair would: the marks say so until it is done, and files are replaced by shorter
//! ones. These are written and synced before: while nobody may read there is nothing to do but to change names.
//!
//! A crash while recovering leaves a directory that recovers to the same.

mod assess;
mod repair;
mod torn;

#[cfg(test)]
mod beside_tests;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod torn_tests;

use std::path::PathBuf;

use crate::error::{ErrorKind, Result};
use crate::files::{FileKind, Listing, Stage};
use crate::partition::marks::{CutBy, Cuts, Marks};
use crate::partition::{PartitionSite, Tail, failed_sync};
use crate::record::{Offset, TopicPartition};
use crate::scanner::BatchPlace;
use crate::segment::Segment;
use crate::storage::{OpenMode, SyncPurpose};

#[cfg(test)]
pub(crate) use repair::INDEXES_AT_ONCE;

/// What is known of a partition before it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryBorder {
    /// Everything below was synced: what is bad there is corrupt. It may rise, for what opening has
    /// kept, only after opening is done.
    pub recovery_point: Option<Offset>,
    /// Whether the partition was closed, and nothing has been written to it since.
    pub clean_shutdown: bool,
}

/// What recovering a partition did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Which partition.
    pub partition: TopicPartition,
    /// The offset of the next record. Everything below is synced.
    pub end: Offset,
    /// Bytes of batches that were read and checked.
    pub scanned_bytes: u64,
    /// What was cut off, if anything was.
    pub truncated: Option<Truncation>,
}

/// The end of a log that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The offset at which the log ends now.
    pub offset: Offset,
    /// The file that was cut.
    pub file: PathBuf,
    /// Where in that file.
    pub position: u64,
    /// How many bytes are gone from the log, later segments included.
    pub bytes: u64,
    /// What was wrong there.
    pub reason: String,
    /// Where bytes are kept that were cut off and hold sound batches.
    pub torn_files: Vec<PathBuf>,
    /// If a power cut, or a failed sync of another partition, has taken the log back to its last consistent cut: the
    /// offset behind the last sound record that was given up for that.
    pub given_up_to: Option<Offset>,
}

/// How often a partition is read again because its writer was replacing segments meanwhile. Whoever tries again
/// after that should let some time pass.
const READS_MAX: usize = 8;

/// How often the names in a partition's directory are listed again because its marks have changed meanwhile.
const LISTINGS_MAX: usize = 8;

/// Recovers a partition to write to it. The marks become those of the partition as it is then.
pub(crate) fn recover(
    site: &PartitionSite,
    border: &RecoveryBorder,
    marks: &mut Marks,
) -> Result<(Tail, RecoveryReport)> {
    let border = &border.with(marks);
    let listing = list(site, marks)?;
    if listing.segments.is_empty() {
        return begin(site, border, marks);
    }
    let mut assessment = assess::assess(site, listing, border, marks, OpenMode::Write)?;
    let announced = repair::cut_off_announced(site, &assessment, marks)?;
    if announced.is_some() {
        // The files are others now.
        assessment = assess::assess(site, list(site, marks)?, border, marks, OpenMode::Write)?;
    }
    let (tail, report) = repair::repair(site, assessment, border, announced)?;
    // What was announced by somebody who was killed, or whose machine went down, may be done without another
    // announcement.
    repair::end_announced(site, marks)?;
    repair::tell(&report);
    Ok((tail, report))
}

impl RecoveryBorder {
    /// The marks know of synced offsets too.
    fn with(self, marks: &Marks) -> Self {
        let synced = Some(marks.synced()).filter(|synced| *synced > Offset(0));
        Self { recovery_point: self.recovery_point.max(synced), ..self }
    }
}

/// Reads a partition that another process may be writing to, without changing it. What is believed of
/// it is what recovery would believe: the writer may have met its end in a power cut, long ago.
pub(crate) fn read(site: &PartitionSite, border: &RecoveryBorder) -> Result<(Tail, Marks)> {
    for _ in 0..READS_MAX {
        let before = Glance::take(site)?;
        let read = read_once(site, border, &before.marks);
        // Files of before and after a replacement do not go together.
        if !before.is_replaced() && Glance::take(site)? == before {
            return Ok((read?, before.marks));
        }
    }
    let what = "its segments are being replaced: read it again, or open it for writing if nobody has it open";
    Err(site.error(ErrorKind::Retry, what))
}

/// What tells whether segments were replaced or removed between two looks.
#[derive(PartialEq)]
struct Glance {
    marks: Marks,
    replacing: Vec<(Offset, Stage)>,
}

impl Glance {
    fn take(site: &PartitionSite) -> Result<Self> {
        let mut marks = Marks::read(site)?;
        for _ in 0..LISTINGS_MAX {
            check_not_being_cut(site, &marks)?;
            let listed = list(site, &marks);
            // Segments that are missing may have been removed since the marks were read, which say so by now.
            let now = Marks::read(site)?;
            if listed.is_ok() || now == marks {
                return Ok(Self { marks, replacing: listed?.replacing });
            }
            marks = now;
        }
        let what = "segments are removed from it faster than they are listed: read it again";
        Err(site.error(ErrorKind::Retry, what))
    }

    /// Whether a replacement is decided and not finished.
    fn is_replaced(&self) -> bool {
        self.replacing.iter().any(|(_, stage)| *stage == Stage::Swap)
    }
}

fn read_once(site: &PartitionSite, border: &RecoveryBorder, marks: &Marks) -> Result<Tail> {
    let listing = list(site, marks)?;
    if listing.segments.is_empty() {
        return Err(site.error(ErrorKind::NotFound, format!("{} holds no segment", site.directory.display())));
    }
    Ok(assess::assess(site, listing, &border.with(marks), marks, OpenMode::Read)?.tail)
}

/// Absorbs what was appended behind `tail`, which was read with `marks`, by another process. Reads all of
/// it again if segments were removed or replaced since.
///
/// # Errors
/// [`ErrorKind::Retry`] if the log was cut back since: whoever reads on would miss what was written behind
/// the cut; and if it is being cut, or segments are replaced or removed faster than they are read.
/// [`ErrorKind::Corrupt`]; those of the operating system.
pub(crate) fn read_on(
    site: &PartitionSite,
    tail: &mut Tail,
    marks: &mut Marks,
    recovery_point: Option<Offset>,
) -> Result<()> {
    let before = Glance::take(site)?;
    check_not_cut(site, marks, &before.marks)?;
    if before.marks.generation == marks.generation {
        let read = absorb_later(site, tail, recovery_point);
        if Glance::take(site)? == before {
            return read;
        }
    }
    let border = RecoveryBorder { recovery_point, clean_shutdown: false };
    let read = self::read(site, &border);
    if read.is_err() {
        // What was synced may be missing since it was cut off: that is no damage.
        check_not_cut(site, marks, &Marks::read(site)?)?;
    }
    let (read, now) = read?;
    check_not_cut(site, marks, &now)?;
    (*tail, *marks) = (read, now);
    Ok(())
}

/// Refuses to read a partition of which some files are those of before a cut, and others those of after.
fn check_not_being_cut(site: &PartitionSite, marks: &Marks) -> Result<()> {
    let (Some(Cuts { last, .. }), Some(by)) = (marks.cuts, marks.being_cut) else { return Ok(()) };
    let how = match by {
        CutBy::Repair => {
            "a repair that was cut short is finished by repeating it, or by opening the log for writing"
        }
        CutBy::Recovery => "recovery that was cut short is finished by opening the log for writing",
    };
    let says = Marks::path(site);
    let what = format!("it is being cut off at offset {last}, says {}: read it again; {how}", says.display());
    Err(site.error(ErrorKind::Retry, what))
}

/// Refuses to read on in a log that was cut between the two.
fn check_not_cut(site: &PartitionSite, before: &Marks, now: &Marks) -> Result<()> {
    let Some(offset) = Cuts::since(before.cuts, now.cuts) else { return Ok(()) };
    let what = format!("it was cut off at offset {offset}: open it again");
    Err(site.error(ErrorKind::Retry, what))
}

fn absorb_later(site: &PartitionSite, tail: &mut Tail, recovery_point: Option<Offset>) -> Result<()> {
    let segment = &tail.active.segment;
    let is_unchanged = tail.is_unchanged(&**site.storage());
    if !is_unchanged.map_err(|error| site.io("read", segment.path(), error))? {
        let what = format!("{} is not what it was, or shorter: open it again", segment.path().display());
        return Err(site.error(ErrorKind::Retry, what));
    }
    let base = segment.base();
    let later = Listing::read(&**site.storage(), &site.directory);
    let mut later = later.map_err(|error| site.io("list", &site.directory, error))?.segments;
    later.retain(|offset| *offset > base);
    let limits = assess::Limits::new(site, recovery_point)?;
    assess::scan(site, tail, &later, &limits, OpenMode::Read).map(|_| ())
}

fn list(site: &PartitionSite, marks: &Marks) -> Result<Listing> {
    let listing = Listing::read(&**site.storage(), &site.directory);
    let listing = listing.map_err(|error| site.io("list", &site.directory, error))?.begin_at(marks.start);
    // One that comes from elsewhere, and that nobody has marked, may begin anywhere.
    let is_start_known = marks.generation > 0 || !site.config.has_gaps;
    match listing.segments.first() {
        Some(&first) if is_start_known && first > marks.start => {
            let path = FileKind::Log.path(&site.directory, first);
            let place = BatchPlace { position: 0, offset: marks.start };
            Err(site.corrupt(&path, place, "it is the first one, and those before it are missing"))
        }
        _ => Ok(listing),
    }
}

/// Begins a partition whose directory is there and holds no segment yet.
fn begin(site: &PartitionSite, border: &RecoveryBorder, marks: &mut Marks) -> Result<(Tail, RecoveryReport)> {
    if let Some(synced) = border.recovery_point.filter(|synced| *synced > Offset(0)) {
        let directory = site.directory.display();
        let what = format!("{directory} holds no segment, though offsets up to {synced} were synced");
        return Err(site.error(ErrorKind::Corrupt, what));
    }
    site.begin_writing()?;
    let io = |error| site.io("begin a segment in", &site.directory, error);
    // What the sync of an earlier segment has failed to take is no business of this one.
    failed_sync::remove(site).map_err(io)?;
    let segment = Segment::create(site, Offset(0)).map_err(io)?;
    site.storage().sync_dir(&site.directory, SyncPurpose::Recovered).map_err(io)?;
    repair::end_announced(site, marks)?;
    let tail = Tail::new(segment, site.config.index_interval_bytes);
    let partition = site.name.clone();
    Ok((tail, RecoveryReport { partition, end: Offset(0), scanned_bytes: 0, truncated: None }))
}
