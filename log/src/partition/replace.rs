//! Segments that one takes the place of, as compaction does it: whole or not at all, whatever crashes.
//!
//! ```text
//!   Written -- marks name the range --> Marked -- <base>.log.swap --> Decided -- indexes --> Placed
//!                                                                                              |
//!                                            Published <-- <base>.log, new list of segments ---+
//! ```
//!
//! The new log and its indexes are written and synced as `<base>.*.cleaned`. The marks say which range
//! they replace. Then the log is renamed to `<base>.log.swap`, and with that name durable it is decided:
//! before, the new files are worth nothing; after, the replacement is finished, by whoever opens the
//! partition next if need be. The indexes take their names, the segments behind the first one go; last
//! the log takes the name of the first one. Each arrow is one step, which waits for the disk once.
//!
//! Nobody who reads is waited for. The replaced segments are held open before it is decided, until the new
//! one is published; then they are open for those only who read them at the moment, and everybody else finds
//! the new one. So no more stays open than is being replaced and is being read.
//!
//! A failure before the decision leaves everything as it was, and whoever began removes what was written; one after it
//! poisons the partition, whose next opening finishes. That too many files are open is never one of those: what the
//! steps after the decision change are names, in a directory that is open before, and the new segment goes on under its
//! next name as it was written, without being opened again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashMap;

use super::marks::{Marks, Replaced};
use super::{Partition, PartitionSite};
use crate::batch::{BatchError, BatchHeader};
use crate::compaction::plan::SealedFacts;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{FileKind, Stage};
use crate::index::AbortedTransaction;
use crate::producer_state::LastWritten;
use crate::record::{Offset, ProducerId, Timestamp};
use crate::scanner::ReadError;
use crate::segment::{ActiveSegment, Segment};
use crate::storage::{StorageDirectory, StorageFile, SyncPurpose, SyncTicket};

/// How many bytes are gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// The indexes of a segment, and what goes with them.
pub(crate) const INDEXES: [FileKind; 4] =
    [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex, FileKind::IndexSum];

/// A segment that is being written to take the place of others.
pub(crate) struct CleanedSegment {
    active: ActiveSegment,
    /// Open until it is sealed.
    file: Arc<dyn StorageFile>,
    /// Batches that are noted in the indexes and not written yet.
    unwritten: Vec<u8>,
    /// How much is written.
    position: u64,
}

impl CleanedSegment {
    /// Begins the segment that will have `base` for its own. Leftovers of an earlier attempt go, and so does what was
    /// begun where this fails.
    pub(crate) fn create(site: &PartitionSite, base: Offset) -> io::Result<Self> {
        remove_cleaned(site, base)?;
        let begin = || {
            let segment = Arc::new(Segment::create_cleaned(site, base)?);
            Ok((segment.file()?, segment))
        };
        let (file, segment) = begin().inspect_err(|_: &io::Error| {
            if let Err(error) = remove_cleaned(site, base) {
                tracing::debug!(partition = %site.name, %error, "what was begun is left for the next");
            }
        })?;
        let active = ActiveSegment::new(segment, site.config.index_interval_bytes);
        Ok(Self { active, file, unwritten: Vec::new(), position: 0 })
    }

    /// Appends the batch that `write` appends to the buffer it is given, if it does.
    ///
    /// # Errors
    /// Those of `write`; the segment is then as it was.
    pub(crate) fn append_with<T>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, BatchError>,
    ) -> Result<T, BatchError> {
        let start = self.unwritten.len();
        let outcome = write(&mut self.unwritten)?;
        if self.unwritten.len() > start {
            self.active.absorb(&BatchHeader::parse(&self.unwritten[start..])?);
        }
        Ok(outcome)
    }

    /// Notes an aborted transaction whose marker was appended.
    pub(crate) fn note_aborted(&self, aborted: AbortedTransaction) {
        self.active.segment.aborted.push(aborted);
    }

    /// Writes what has gathered, if it is much.
    pub(crate) fn relieve(&mut self) -> io::Result<()> {
        if self.unwritten.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(self.position, &self.unwritten)?;
        self.position += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Writes all of it and submits the syncs. It ends at `end`, where the next segment begins.
    pub(crate) fn seal(&mut self, end: Offset) -> io::Result<Vec<SyncTicket>> {
        self.write()?;
        self.active.note_time_entry();
        let mut files = self.active.segment.write_indexes(end)?;
        files.push(self.file.clone());
        Ok(files.iter().map(|file| file.sync(SyncPurpose::Compacted)).collect())
    }

    /// Bytes of batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.active.position()
    }

    /// The segment, sealed.
    fn into_segment(self) -> Segment {
        Arc::into_inner(self.active.segment).expect("nobody else has a segment that is being written")
    }
}

/// Segments on their way to be replaced by one whose files are written and synced.
pub(crate) struct Replacement {
    replaced: Vec<Arc<Segment>>,
    range: Replaced,
    /// What takes their place, under the names that it will have.
    successor: Arc<Segment>,
    /// The directory of all of them.
    names: Arc<dyn StorageDirectory>,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Written,
    Marked,
    Decided,
    Placed,
    Published,
}

impl Replacement {
    /// Whether there is nothing left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.step == Step::Published
    }

    /// Whether there is no way back.
    pub(crate) fn is_decided(&self) -> bool {
        !matches!(self.step, Step::Written | Step::Marked)
    }

    /// Keeps open what is replaced.
    fn hold(&self) -> io::Result<()> {
        let held = self.replaced.iter().try_for_each(|segment| segment.hold());
        if held.is_err() {
            self.release();
        }
        held
    }

    fn release(&self) {
        self.replaced.iter().for_each(|segment| segment.release());
    }
}

impl Partition {
    /// Begins to replace `replaced`, which stand one behind the other up to `end`, by what was written of them and is
    /// synced.
    ///
    /// # Errors
    /// Those of opening the directory.
    pub(crate) fn begin_replacement(
        &self,
        replaced: Vec<Arc<Segment>>,
        end: Offset,
        cleaned: CleanedSegment,
    ) -> Result<Replacement> {
        let site = &self.site;
        let names = site.storage().open_dir(&site.directory);
        let names = names.map_err(|error| site.io("replace segments in", &site.directory, error))?;
        let successor = Arc::new(cleaned.into_segment().renamed(site));
        let range = Replaced { base: successor.base(), end };
        Ok(Replacement { replaced, range, successor, names, step: Step::Written })
    }

    /// Takes one step of a replacement.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; [`ErrorKind::Retry`] if somebody has pinned what was to be replaced; those of
    /// the operating system, which poison the partition once the replacement is decided.
    pub(crate) fn advance_replacement(&self, replacement: &mut Replacement) -> Result<()> {
        let mut marks = self.marks.lock();
        self.check_open()?;
        let Replaced { base, end } = replacement.range;
        let names = &*replacement.names;
        replacement.step = match replacement.step {
            Step::Written => {
                self.check_not_pinned(end)?;
                let changed = Marks {
                    rewritten_end: marks.rewritten_end.max(end),
                    replacement: Some(replacement.range),
                    ..marks.clone()
                };
                self.put_marks(&mut marks, changed)?;
                Step::Marked
            }
            Step::Marked => {
                self.check_not_pinned(end)?;
                let held = replacement.hold();
                held.map_err(|error| self.site.io("hold segments open in", &self.site.directory, error))?;
                decide(&self.site, names, base).map_err(|error| self.fail_replacement(error))?;
                Step::Decided
            }
            Step::Decided => {
                let others = replacement.replaced.iter().skip(1).map(|segment| segment.base());
                place(&self.site, names, base, others).map_err(|error| self.fail_replacement(error))?;
                Step::Placed
            }
            Step::Placed => {
                finish(&self.site, names, base).map_err(|error| self.fail_replacement(error))?;
                self.publish_replacement(replacement);
                Step::Published
            }
            Step::Published => Step::Published,
        };
        Ok(())
    }

    fn publish_replacement(&self, replacement: &Replacement) {
        let replaced = &replacement.replaced;
        let mut writer = self.writer.lock();
        let segments = &mut writer.tail.segments;
        let is_first = |segment: &Arc<Segment>| Arc::ptr_eq(segment, &replaced[0]);
        let first = segments.iter().position(is_first).expect("only who replaces segments removes them");
        segments.splice(first..first + replaced.len(), [replacement.successor.clone()]);
        self.segments.store(segments.clone());
        drop(writer);
        replacement.release();
    }

    fn fail_replacement(&self, error: io::Error) -> Error {
        self.poison(self.site.io("replace segments in", &self.site.directory, error))
    }

    pub(super) fn check_open(&self) -> Result<()> {
        let writer = self.writer.lock();
        self.check_writable(&writer)
    }

    /// Makes the next version of the marks that of the partition, durably.
    pub(super) fn put_marks(&self, marks: &mut Marks, changed: Marks) -> Result<()> {
        // What cannot be written may be there all the same, and somebody may have read it: it keeps its number.
        marks.generation += 1;
        let changed = Marks { generation: marks.generation, ..changed };
        changed.write(&self.site)?;
        *marks = changed;
        Ok(())
    }
}

/// What compaction sees of a partition.
pub(crate) struct CompactionView {
    /// The sealed segments in order, and where each ends.
    pub(crate) sealed: Vec<(Arc<Segment>, Offset)>,
    pub(crate) active: Arc<Segment>,
    pub(crate) clean_end: Offset,
    pub(crate) tombstone_floor: Option<Offset>,
}

impl Partition {
    pub(crate) fn compaction_view(&self) -> CompactionView {
        let marks = self.marks.lock();
        let writer = self.writer.lock();
        let tail = &writer.tail;
        let sealed = tail.segments.split_last().map_or(&[][..], |(_, sealed)| sealed).iter().enumerate();
        CompactionView {
            sealed: sealed.map(|(index, segment)| (segment.clone(), tail.segment_end(index))).collect(),
            active: tail.active.segment.clone(),
            clean_end: marks.clean_end,
            tombstone_floor: marks.tombstone_floor,
        }
    }

    /// What each producer wrote last.
    pub(crate) fn last_written(&self) -> HashMap<ProducerId, LastWritten> {
        self.writer.lock().tail.producers.last_written()
    }

    /// What is known of a sealed segment that ends at `end`.
    pub(crate) fn sealed_facts(&self, segment: &Segment, end: Offset) -> SealedFacts {
        SealedFacts {
            base: segment.base(),
            end,
            bytes: segment.bytes(),
            max_timestamp: segment.max_timestamp(),
            // One that cannot be read is found out when it is compacted.
            first_timestamp: segment.first_timestamp().ok().flatten(),
        }
    }

    /// Begins a segment that is to take the place of others from `base` on.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; those of the operating system.
    pub(crate) fn begin_cleaned(&self, base: Offset) -> Result<CleanedSegment> {
        let _marks = self.marks.lock();
        self.check_open()?;
        self.site.begin_writing()?;
        CleanedSegment::create(&self.site, base).map_err(|error| self.compaction_failed(error))
    }

    /// Removes what was written of such a segment, before it is decided that it takes the place of others. No file is
    /// opened for that.
    pub(crate) fn drop_cleaned(&self, base: Offset) -> Result<()> {
        let _marks = self.marks.lock();
        self.check_open()?;
        remove_cleaned(&self.site, base).map_err(|error| self.compaction_failed(error))
    }

    /// Every key was seen up to `end`, and only its newest record is there.
    pub(crate) fn note_clean_end(&self, end: Offset) -> Result<()> {
        let mut marks = self.marks.lock();
        self.check_open()?;
        let changed = Marks { clean_end: end, ..marks.clone() };
        self.put_marks(&mut marks, changed)
    }

    /// The error of reading a segment.
    pub(crate) fn read_failed(&self, segment: &Segment, error: ReadError) -> Error {
        self.site.read_error(segment.path(), error)
    }

    /// The error of writing what is to replace segments.
    pub(crate) fn compaction_failed(&self, error: io::Error) -> Error {
        self.site.io("write a compacted segment to", &self.site.directory, error)
    }

    /// The log's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.site.context.clock.now()
    }
}

/// Finishes the replacement that a crash has cut off, if it was decided, and removes what was written for
/// one that was not.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for a replacement that the marks do not name; those of the operating system.
pub(crate) fn recover(site: &PartitionSite, marks: &Marks) -> Result<()> {
    let entries = site.storage().list(&site.directory);
    let entries = entries.map_err(|error| site.io("list", &site.directory, error))?;
    let staged: Vec<_> = entries.iter().filter_map(|entry| Stage::parse(&entry.name)).collect();
    if staged.is_empty() {
        return Ok(());
    }
    site.begin_writing()?;
    let failed = |error| site.io("finish replacing segments in", &site.directory, error);
    if let Some(&(base, ..)) = staged.iter().find(|(.., stage)| *stage == Stage::Swap) {
        let Some(range) = marks.replacement.filter(|range| range.base == base) else {
            let path = FileKind::Log.path_at(&site.directory, base, Stage::Swap);
            let what = format!("{} is to replace segments, and nothing says which", path.display());
            return Err(site.error(ErrorKind::Corrupt, what));
        };
        let names = entries.iter().filter_map(|entry| FileKind::parse(&entry.name));
        let logs = names.filter(|(_, kind)| *kind == FileKind::Log).map(|(offset, _)| offset);
        let others: Vec<_> = logs.filter(|offset| range.base < *offset && *offset < range.end).collect();
        let names = site.storage().open_dir(&site.directory).map_err(failed)?;
        place(site, &*names, base, others).map_err(failed)?;
        finish(site, &*names, base).map_err(failed)?;
        tracing::info!(partition = %site.name, %base, end = %range.end, "a replacement of segments was finished");
    }
    let left = staged.iter().filter(|(.., stage)| *stage == Stage::Cleaned);
    left.map(|(base, ..)| *base).try_for_each(|base| remove_cleaned(site, base)).map_err(failed)
}

/// Decides that the new log takes the place of others: from here on there is no way back.
fn decide(site: &PartitionSite, names: &dyn StorageDirectory, base: Offset) -> io::Result<()> {
    let at = |stage| FileKind::Log.path_at(&site.directory, base, stage);
    site.storage().rename(&at(Stage::Cleaned), &at(Stage::Swap))?;
    sync_names(names)
}

/// Gives the new indexes their names, and removes the segments `others`, all but the first.
fn place(
    site: &PartitionSite,
    names: &dyn StorageDirectory,
    base: Offset,
    others: impl IntoIterator<Item = Offset>,
) -> io::Result<()> {
    for kind in INDEXES {
        let cleaned = kind.path_at(&site.directory, base, Stage::Cleaned);
        if site.storage().exists(&cleaned)? {
            site.storage().rename(&cleaned, &kind.path(&site.directory, base))?;
        }
    }
    for other in others {
        remove_segment(site, other)?;
    }
    sync_names(names)
}

/// Gives the new log its name.
fn finish(site: &PartitionSite, names: &dyn StorageDirectory, base: Offset) -> io::Result<()> {
    let swap = FileKind::Log.path_at(&site.directory, base, Stage::Swap);
    site.storage().rename(&swap, &FileKind::Log.path(&site.directory, base))?;
    sync_names(names)
}

/// Removes the files of a segment, for good once the names are synced.
pub(super) fn remove_segment(site: &PartitionSite, base: Offset) -> io::Result<()> {
    let kinds = INDEXES.into_iter().chain([FileKind::Log]);
    kinds.map(|kind| kind.path(&site.directory, base)).try_for_each(|path| remove(site, path))
}

/// Removes what was written of a segment that was to replace others.
pub(crate) fn remove_cleaned(site: &PartitionSite, base: Offset) -> io::Result<()> {
    let kinds = INDEXES.into_iter().chain([FileKind::Log]);
    let paths = kinds.map(|kind| kind.path_at(&site.directory, base, Stage::Cleaned));
    paths.into_iter().try_for_each(|path| remove(site, path))
}

fn remove(site: &PartitionSite, path: PathBuf) -> io::Result<()> {
    match site.storage().remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn sync_names(names: &dyn StorageDirectory) -> io::Result<()> {
    names.sync(SyncPurpose::Marks)
}
