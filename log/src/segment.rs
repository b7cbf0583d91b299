//! One file of a partition's log, from a base offset on, and the indexes beside it.
//!
//! The partition's writer appends to the last segment; readers of any thread see what it has published:
//! the length of the file up to which it holds whole batches. They read by position and hold no lock.

mod active;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::batch::{BatchError, BatchHeader, MarkerKind, RecordBatch};
use crate::files::{FileKind, Stage};
use crate::index::{
    IndexedBatch, LargestTimestamp, Leftover, Note, OffsetIndex, SumFile, TimeIndex, TransactionIndex,
};
use crate::open_files::LazyFile;
use crate::partition::PartitionSite;
use crate::read_buffers::ReadBuffers;
use crate::record::{Offset, Timestamp};
use crate::scanner::{BatchPlace, Density, ReadError, Scanner};
use crate::storage::{OpenMode, StorageFile};

pub(crate) use active::ActiveSegment;

/// The largest timestamp of a segment without records.
const NO_TIMESTAMP: i64 = i64::MIN;

/// The identity of the segment that is opened next.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A file of batches and its indexes.
///
/// A segment that is being replaced by another is held open before its names belong to that one, until it is
/// found no more. Who has its file in hand then reads on; all others look for what took its place.
pub(crate) struct Segment {
    /// Of all segments this process has opened: a base may be that of several, one after the other.
    id: u64,
    base: Offset,
    path: PathBuf,
    file: Arc<LazyFile>,
    density: Density,
    /// How much of the file holds whole batches that readers may see.
    bytes: AtomicU64,
    max_timestamp: AtomicI64,
    /// The largest timestamp of the first batch, once somebody has asked.
    first_timestamp: OnceLock<Timestamp>,
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    /// Whether an entry of the time index was found not to be true.
    are_times_doubted: AtomicBool,
    pub(crate) aborted: TransactionIndex,
    sum: SumFile,
}

struct Indexes {
    offsets: OffsetIndex,
    times: TimeIndex,
    aborted: TransactionIndex,
    sum: SumFile,
}

/// Batches read from a segment in one go.
pub(crate) struct SegmentRead {
    /// Whole batches.
    pub(crate) bytes: Bytes,
    /// Where the last one ends.
    pub(crate) end: BatchPlace,
}

/// What a reader wants of a segment.
#[derive(Clone, Copy)]
pub(crate) struct ReadRange {
    /// Batches that end before it are skipped.
    pub(crate) from: Offset,
    /// Batches that begin at or after it are not shown.
    pub(crate) bound: Offset,
    /// More than that is read only if the first batch is larger.
    pub(crate) bytes_max: usize,
}

impl Segment {
    /// Makes the file of a new segment. Its name is durable once the directory is synced.
    pub(crate) fn create(site: &PartitionSite, base: Offset) -> io::Result<Self> {
        Self::open(site, base, OpenMode::Create)
    }

    /// Opens a segment of which nothing is known yet: no byte is published and no index entry believed.
    pub(crate) fn open(site: &PartitionSite, base: Offset, mode: OpenMode) -> io::Result<Self> {
        let path = FileKind::Log.path(&site.directory, base);
        let (context, directory) = (site.file_context(), &site.directory);
        let indexes = Indexes {
            offsets: OffsetIndex::empty(&context, directory, base),
            times: TimeIndex::empty(&context, directory, base),
            aborted: TransactionIndex::empty(&context, directory, base),
            sum: SumFile::new(&context, FileKind::IndexSum.path(directory, base)),
        };
        Self::with_indexes(site, base, path, mode, indexes)
    }

    /// Makes the files of a segment that is to replace others, under names of their own. Its batches may
    /// leave gaps.
    pub(crate) fn create_cleaned(site: &PartitionSite, base: Offset) -> io::Result<Self> {
        let at = |kind: FileKind| kind.path_at(&site.directory, base, Stage::Cleaned);
        let context = site.file_context();
        let indexes = Indexes {
            offsets: OffsetIndex::at(&context, at(FileKind::OffsetIndex), base),
            times: TimeIndex::at(&context, at(FileKind::TimeIndex), base),
            aborted: TransactionIndex::at(&context, at(FileKind::TransactionIndex), base),
            sum: SumFile::new(&context, at(FileKind::IndexSum)),
        };
        let segment = Self::with_indexes(site, base, at(FileKind::Log), OpenMode::Create, indexes)?;
        Ok(Self { density: Density::Sparse, ..segment })
    }

    /// The same segment, whose files take the names of those that it replaces before anybody looks for them. None is
    /// opened for that.
    pub(crate) fn renamed(self, site: &PartitionSite) -> Self {
        let (base, directory) = (self.base, &site.directory);
        let path = FileKind::Log.path(directory, base);
        let sum_path = FileKind::IndexSum.path(directory, base);
        Self {
            file: self.file.renamed(&path),
            path,
            offsets: self.offsets.renamed(directory),
            times: self.times.renamed(directory),
            aborted: self.aborted.renamed(directory),
            sum: SumFile::new(&site.file_context(), sum_path),
            ..self
        }
    }

    /// Opens a segment whose file and indexes are complete.
    pub(crate) fn open_sealed(site: &PartitionSite, base: Offset, mode: OpenMode) -> io::Result<Self> {
        let path = FileKind::Log.path(&site.directory, base);
        let (context, directory) = (site.file_context(), &site.directory);
        let indexes = Indexes {
            offsets: OffsetIndex::sealed(&context, directory, base)?,
            times: TimeIndex::sealed(&context, directory, base)?,
            aborted: TransactionIndex::sealed(&context, directory, base)?,
            sum: SumFile::new(&context, FileKind::IndexSum.path(directory, base)),
        };
        let mut segment = Self::with_indexes(site, base, path, mode, indexes)?;
        segment.bytes = AtomicU64::new(segment.file()?.len()?);
        if let Some(largest) = segment.times.last()? {
            segment.max_timestamp = AtomicI64::new(largest.timestamp.0);
        }
        Ok(segment)
    }

    /// Opens a segment whose indexes are believed for offsets below `below`. No byte is published.
    pub(crate) fn open_believed(
        site: &PartitionSite,
        base: Offset,
        mode: OpenMode,
        below: Offset,
    ) -> io::Result<Self> {
        let path = FileKind::Log.path(&site.directory, base);
        let (context, directory) = (site.file_context(), &site.directory);
        let indexes = Indexes {
            offsets: OffsetIndex::believed(&context, directory, base, below)?,
            times: TimeIndex::believed(&context, directory, base, below)?,
            aborted: TransactionIndex::believed(&context, directory, base, below)?,
            sum: SumFile::new(&context, FileKind::IndexSum.path(directory, base)),
        };
        Self::with_indexes(site, base, path, mode, indexes)
    }

    fn with_indexes(
        site: &PartitionSite,
        base: Offset,
        path: PathBuf,
        mode: OpenMode,
        Indexes { offsets, times, aborted, sum }: Indexes,
    ) -> io::Result<Self> {
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            base,
            file: LazyFile::open(site.storage(), &site.context.open_files, &path, mode)?,
            path,
            density: site.density(),
            bytes: AtomicU64::new(0),
            max_timestamp: AtomicI64::new(NO_TIMESTAMP),
            first_timestamp: OnceLock::new(),
            offsets,
            times,
            are_times_doubted: AtomicBool::new(false),
            aborted,
            sum,
        })
    }

    /// Which segment it is, of all that this process has opened.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The offset of the first record, or that it would have.
    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, which is opened if it is not. Whoever writes to it keeps it until that is synced.
    ///
    /// # Errors
    /// Those of opening it; [`is_stale`](crate::open_files::is_stale) if another segment has its name by now.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn StorageFile>> {
        self.file.get()
    }

    /// Keeps open what readers need of it until it is released: it is about to be replaced.
    pub(crate) fn hold(&self) -> io::Result<()> {
        self.file.hold()?;
        self.aborted.hold()
    }

    /// Nobody finds it any more: it stays open for those only who have its file in hand.
    pub(crate) fn release(&self) {
        self.file.release();
        self.aborted.release();
    }

    /// Bytes of whole batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// The largest timestamp of a record, if there is a record.
    pub(crate) fn max_timestamp(&self) -> Option<Timestamp> {
        match self.max_timestamp.load(Ordering::Acquire) {
            NO_TIMESTAMP => None,
            timestamp => Some(Timestamp(timestamp)),
        }
    }

    /// The largest timestamp in the first batch, if there is one. Read from the file once.
    pub(crate) fn first_timestamp(&self) -> io::Result<Option<Timestamp>> {
        if let Some(known) = self.first_timestamp.get() {
            return Ok(Some(*known));
        }
        let mut bytes = [0; BatchHeader::BYTES];
        let wanted = bytes.len().min(self.bytes() as usize);
        let read = self.file()?.read_at(0, &mut bytes[..wanted])?;
        let header = BatchHeader::parse(&bytes[..read]).ok();
        Ok(header.map(|header| *self.first_timestamp.get_or_init(|| header.max_timestamp)))
    }

    /// The batches from `start` to the end.
    pub(crate) fn scan(&self, start: BatchPlace) -> io::Result<Scanner> {
        Ok(Scanner::new(self.file()?, start, self.bytes(), self.density))
    }

    /// Where the first batch begins.
    pub(crate) fn start(&self) -> BatchPlace {
        BatchPlace { position: 0, offset: self.base }
    }

    /// Where to start looking for the batch that holds `target`: at or before it, a few kilobytes at
    /// most unless the index is missing.
    pub(crate) fn place_before(&self, target: Offset) -> io::Result<BatchPlace> {
        if target <= self.base {
            return Ok(self.start());
        }
        match self.offsets.lookup(target)? {
            Some(indexed) => self.check_place(indexed, self.bytes()),
            None => Ok(self.start()),
        }
    }

    /// The place that the index speaks of, if the batch there, before `end`, is the one it means; the
    /// segment's start otherwise. The index is a hint.
    fn check_place(&self, indexed: IndexedBatch, end: u64) -> io::Result<BatchPlace> {
        let mut bytes = [0; BatchHeader::BYTES];
        let position = indexed.position;
        if position + bytes.len() as u64 <= end {
            let read = self.file()?.read_at(position, &mut bytes)?;
            if let Ok(header) = BatchHeader::parse(&bytes[..read])
                && header.last_offset() == indexed.last_offset
            {
                return Ok(BatchPlace { position, offset: header.base_offset });
            }
        }
        Ok(self.start())
    }

    /// Whether the indexes can be of this segment, whose records end before `next`: they hold what was noted of them;
    /// a batch has the largest timestamp that the time index ends with, and none has a larger one that was read when the
    /// segment was resumed; the aborted transactions ended in here, and nothing that is not believed stands before
    /// anything that would be; of a segment that is `whole`, nothing at all stands behind. Other entries of the indexes
    /// by time and by offset are checked whenever they are used. A bad batch speaks against no index.
    pub(crate) fn agrees_with_indexes(&self, next: Offset, whole: bool) -> Result<bool, ReadError> {
        let leftovers = [self.offsets.leftover(), self.times.leftover(), self.aborted.leftover()];
        let is_in_order = leftovers.iter().all(|leftover| match leftover {
            Leftover::Nothing => true,
            Leftover::Later => !whole,
            Leftover::Contradiction => false,
        });
        if !is_in_order {
            return Ok(false);
        }
        if !self.aborted.is_sound(next)? || !self.is_noted(next, whole)? {
            return Ok(false);
        }
        let last = self.times.last()?;
        Ok(last.map(|largest| largest.timestamp) == self.max_timestamp()
            && last.map_or(Ok(true), |largest| self.holds(largest))?)
    }

    /// Whether the indexes hold what was noted of them once they spoke of all that lies before `next`; of a segment that
    /// is `whole`, of that alone. A power cut may bring back what they said of more that was cut off, with the note of
    /// it.
    fn is_noted(&self, next: Offset, whole: bool) -> io::Result<bool> {
        if next == self.base {
            // Nothing is believed of the segment: there is nothing to disagree.
            return Ok(true);
        }
        let speaks_of_it = |note: &Note| if whole { note.end == next } else { note.end >= next };
        for note in self.sum.read()?.filter(speaks_of_it) {
            if self.offsets.agrees(note.offsets)?
                && self.times.agrees(note.times)?
                && self.aborted.agrees(note.aborted)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the last of the aborted transactions has its marker here. A power cut may leave an entry of zeros, or
    /// a part of one, behind those that were synced, which then speaks of an earlier offset than the marker that it was
    /// written for; whatever follows one that was not synced was not either.
    pub(crate) fn holds_last_aborted(&self) -> Result<bool, ReadError> {
        let Some(aborted) = self.aborted.last()? else { return Ok(true) };
        let mut scanner = self.scan(self.place_before(aborted.last_offset)?)?;
        loop {
            match scanner.next() {
                Ok(Some((_, batch))) if batch.header().last_offset() < aborted.last_offset => {}
                Ok(Some((_, batch))) => {
                    let header = batch.header();
                    let is_of = header.is_control
                        && (header.producer_id, header.last_offset())
                            == (aborted.producer_id, aborted.last_offset);
                    let is_abort = || batch.control().is_ok_and(|control| control.kind == MarkerKind::Abort);
                    return Ok(is_of && is_abort());
                }
                Ok(None) | Err(ReadError::Bad { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a file of its indexes holds more than is believed.
    pub(crate) fn has_leftovers(&self) -> bool {
        let leftovers = [self.offsets.leftover(), self.times.leftover(), self.aborted.leftover()];
        leftovers.iter().any(|leftover| *leftover != Leftover::Nothing)
    }

    /// Whether there is a batch of this last offset and timestamp, as far as what is before it can be read.
    fn holds(&self, largest: LargestTimestamp) -> Result<bool, ReadError> {
        match self.scan_behind(largest) {
            Ok(found) => Ok(found.is_some()),
            Err(ReadError::Bad { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The batches behind the one that an entry of the time index speaks of; none if the entry is not true: no
    /// batch of records has this last offset and timestamp, or one just before it is later. Those before an entry of the
    /// offset index need not be looked at: the time index was brought up to date with it, and so a later one
    /// among them has an entry that this one would have to stand behind.
    pub(crate) fn scan_behind(&self, largest: LargestTimestamp) -> Result<Option<Scanner>, ReadError> {
        let mut scanner = self.scan(self.place_before(largest.offset)?)?;
        while let Some((_, batch)) = scanner.next()? {
            let header = batch.header();
            if header.last_offset() >= largest.offset {
                let (offset, timestamp) = (header.last_offset(), header.max_timestamp);
                let is_it = is_dated(header) && LargestTimestamp { timestamp, offset } == largest;
                return Ok(is_it.then_some(scanner));
            }
            if is_dated(header) && header.max_timestamp > largest.timestamp {
                return Ok(None);
            }
        }
        Ok(None)
    }

    #[cfg(test)]
    pub(crate) fn are_times_doubted(&self) -> bool {
        self.are_times_doubted.load(Ordering::Relaxed)
    }

    /// Notes that the time index has an entry that is not true. Whether that was not known.
    pub(crate) fn doubt_times(&self) -> bool {
        !self.are_times_doubted.swap(true, Ordering::Relaxed)
    }

    /// Reads the batches of `range`, looking from `place` on. `None` if the segment shows none. What is sound
    /// before a bad batch is read as if nothing followed; who reads on there is told. Of a batch that is passed over on
    /// the way to the range only the header is looked at, as in Kafka: what is bad in it is in nobody's way who does not
    /// read it. Where the headers do not lead to the first offset one of them may be bad: then all of it is looked at,
    /// and the bad batch named.
    pub(crate) fn read(
        &self,
        range: ReadRange,
        place: BatchPlace,
        buffers: &ReadBuffers,
    ) -> Result<Option<SegmentRead>, ReadError> {
        let read = self.read_passing(range, place, buffers, Passed::Unread);
        let is_sure = match &read {
            Ok(Some(read)) => {
                BatchHeader::parse(&read.bytes).is_ok_and(|header| header.base_offset <= range.from)
            }
            Ok(None) => false,
            Err(error) => matches!(error, ReadError::Bad { error: BatchError::BadChecksum { .. }, .. }),
        };
        if is_sure { read } else { self.read_passing(range, place, buffers, Passed::Verified) }
    }

    fn read_passing(
        &self,
        range: ReadRange,
        mut place: BatchPlace,
        buffers: &ReadBuffers,
        passed: Passed,
    ) -> Result<Option<SegmentRead>, ReadError> {
        let file = self.file()?;
        let bytes_usual = range.bytes_max.max(BatchHeader::BYTES);
        let mut bytes_wanted = bytes_usual as u64;
        loop {
            let available = self.bytes().saturating_sub(place.position);
            if available == 0 {
                return Ok(None);
            }
            let mut buffer = buffers.take(bytes_wanted.min(available) as usize);
            read_exact(&*file, place.position, buffer.as_mut_slice())?;
            let found = measure(buffer.as_ref(), place, range, (self.density, passed));
            if found.end.position > found.wanted.position {
                let relative = |to: BatchPlace| (to.position - place.position) as usize;
                let bytes = buffer.freeze().slice(relative(found.wanted)..relative(found.end));
                return Ok(Some(SegmentRead { bytes, end: found.end }));
            }
            place = found.end;
            let needed = match found.stop {
                Stop::Bound => return Ok(None),
                Stop::Bad(error) => return Err(ReadError::Bad { place, error }),
                Stop::Buffer { needed } => needed,
            };
            bytes_wanted = bytes_usual.max(needed) as u64;
            if place.position + needed as u64 > self.bytes() {
                return Err(ReadError::Bad { place, error: BatchError::Incomplete { needed } });
            }
        }
    }

    /// Writes out what the indexes hold in memory only, and notes what they hold, up to `end`. Tells of each file that is
    /// written, to be synced.
    pub(crate) fn persist_indexes(
        &self,
        end: Offset,
        mut written: impl FnMut(Arc<dyn StorageFile>),
    ) -> io::Result<()> {
        let note = self.note(end)?;
        written(self.offsets.write_out()?);
        written(self.times.write_out()?);
        self.aborted.persist()?.into_iter().for_each(&mut written);
        written(self.sum.write(note)?);
        Ok(())
    }

    /// The same of a segment that is to replace others: also what is empty has to take the place of an older file.
    pub(crate) fn write_indexes(&self, end: Offset) -> io::Result<Vec<Arc<dyn StorageFile>>> {
        let note = self.note(end)?;
        Ok(vec![
            self.offsets.write_out()?,
            self.times.write_out()?,
            self.aborted.write_out()?,
            self.sum.write(note)?,
        ])
    }

    /// What is to be noted of the indexes, which speak of all that lies before `end`.
    fn note(&self, end: Offset) -> io::Result<Note> {
        let (offsets, times, aborted) = (self.offsets.held()?, self.times.held()?, self.aborted.held()?);
        Ok(Note { end, offsets, times, aborted })
    }

    fn publish(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Release);
    }
}

fn read_exact(file: &dyn StorageFile, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    if file.read_at(position, buffer)? == buffer.len() {
        return Ok(());
    }
    let message = "the log file is shorter than what was written to it";
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
}

/// Which batches in a buffer a reader gets.
struct Measured {
    /// Where the first one wanted begins.
    wanted: BatchPlace,
    /// Where the last sound one ends; the same place if there is none.
    end: BatchPlace,
    /// Why it is the last one.
    stop: Stop,
}

/// Why no more batches are taken from a buffer.
enum Stop {
    /// What follows must not be shown.
    Bound,
    /// The buffer ends, and cuts off a batch of which so many bytes are needed; none if it ends with a batch.
    Buffer { needed: usize },
    /// What follows is no sound batch.
    Bad(BatchError),
}

/// What is done with batches on the way to those that are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    Unread,
    Verified,
}

/// Finds the sound batches that `range` takes in `bytes`, which begin at `place`.
fn measure(bytes: &[u8], place: BatchPlace, range: ReadRange, rules: (Density, Passed)) -> Measured {
    let (mut wanted, mut end) = (place, place);
    let stop = loop {
        let rest = &bytes[(end.position - place.position) as usize..];
        match next_end(rest, end, range, rules) {
            Ok(behind) => end = behind,
            Err(stop) => break stop,
        }
        if end.offset <= range.from {
            wanted = end;
        }
    };
    Measured { wanted, end, stop }
}

/// Where the batch ends with which `rest` begins, at `place`, if it is passed over, or is sound and may be shown.
fn next_end(
    rest: &[u8],
    place: BatchPlace,
    ReadRange { from, bound, .. }: ReadRange,
    (density, passed): (Density, Passed),
) -> Result<BatchPlace, Stop> {
    if place.offset >= bound {
        return Err(Stop::Bound);
    }
    if rest.is_empty() {
        return Err(Stop::Buffer { needed: 0 });
    }
    let batch = match RecordBatch::parse(rest) {
        Err(BatchError::Incomplete { needed }) => return Err(Stop::Buffer { needed }),
        parsed => parsed.map_err(Stop::Bad)?,
    };
    if passed == Passed::Verified || batch.header().next_offset() > from {
        batch.verify().map_err(Stop::Bad)?;
    }
    let end = place.behind(batch.header(), density).map_err(Stop::Bad)?;
    if batch.header().base_offset >= bound { Err(Stop::Bound) } else { Ok(end) }
}

/// Whether a batch has records, and not a marker alone, whose timestamp is the clock's and no event's.
pub(crate) fn is_dated(header: &BatchHeader) -> bool {
    !header.is_control && header.record_count > 0
}
