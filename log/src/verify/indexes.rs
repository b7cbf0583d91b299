//! Whether the indexes beside a segment are true to it, found out while its batches are walked.
//!
//! Of the two that are hints each entry is compared with the batch that it speaks of, and the last one of that by time
//! with the largest timestamp. What is missing of them, or of aborted transactions of which compaction has left no
//! record, no batch tells: that is what the note of what they held is for, which every segment has that was sealed. So
//! one without it has lost it, and is told for that; what its indexes may have lost besides is not known then.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::batch::BatchHeader;
use crate::files::FileKind;
use crate::index::{
    AbortedEntries, AbortedTransaction, Entry, EntryReader, Held, IndexedBatch, LargestTimestamp, Note,
    OffsetEntry, TimeEntry, read_notes,
};
use crate::record::{Offset, ProducerId};
use crate::segment::is_dated;
use crate::storage::Storage;

/// How whoever is told gets it back.
const MADE_ANEW: &str = "opening the log to write makes it anew";

/// The first place in an index that is not true.
pub(super) struct Untrue {
    pub(super) kind: FileKind,
    pub(super) position: u64,
    /// Which record it speaks of, or does not speak of.
    pub(super) offset: Offset,
    pub(super) reason: String,
}

/// A transaction that was aborted, by its marker.
pub(super) struct Aborted {
    pub(super) producer_id: ProducerId,
    pub(super) marker: Offset,
    /// Whether records of it were seen: Lotic's index keeps one of which none are left, and Kafka's forgets it.
    pub(super) has_records: bool,
}

/// The two hints of a segment, as far as its batches were walked.
pub(super) struct HintsWalk {
    base: Offset,
    offsets: EntryReader<OffsetEntry>,
    times: EntryReader<TimeEntry>,
    /// Behind the last batch that has a true entry by offset.
    indexed_end: Offset,
    /// The largest timestamp so far, and that of the last entry that was true.
    largest: Option<LargestTimestamp>,
    noted: Option<LargestTimestamp>,
    untrue_offsets: Option<Untrue>,
    untrue_times: Option<Untrue>,
}

impl HintsWalk {
    pub(super) fn begin(storage: &dyn Storage, directory: &Path, base: Offset) -> io::Result<Self> {
        Ok(Self {
            base,
            offsets: EntryReader::open(storage, &FileKind::OffsetIndex.path(directory, base))?,
            times: EntryReader::open(storage, &FileKind::TimeIndex.path(directory, base))?,
            indexed_end: base,
            largest: None,
            noted: None,
            untrue_offsets: None,
            untrue_times: None,
        })
    }

    /// Compares them with the batch at `position`, the next one.
    pub(super) fn visit(&mut self, position: u64, header: &BatchHeader) -> io::Result<()> {
        let last_offset = header.last_offset();
        if let Some(entry) = self.next_batch()?
            && entry.position <= position
        {
            if entry == (IndexedBatch { last_offset, position }) {
                self.indexed_end = last_offset.plus(1);
                self.offsets.pass();
            } else {
                self.untrue_offsets = Some(self.no_batch(entry));
            }
        }
        let is_larger = self.largest.is_none_or(|largest| header.max_timestamp > largest.timestamp);
        if is_larger && is_dated(header) {
            self.largest = Some(LargestTimestamp { timestamp: header.max_timestamp, offset: last_offset });
        }
        if let Some(entry) = self.next_largest()?
            && entry.offset <= last_offset
        {
            if entry.offset == last_offset && self.largest == Some(entry) {
                self.noted = Some(entry);
                self.times.pass();
            } else {
                self.untrue_times = Some(self.not_largest(entry));
            }
        }
        Ok(())
    }

    /// What is not true of them, once all of the segment was walked.
    pub(super) fn end(mut self, note: Option<Note>) -> io::Result<impl Iterator<Item = Untrue>> {
        if let Some(entry) = self.next_batch()? {
            self.untrue_offsets = Some(self.no_batch(entry));
        }
        if let Some(entry) = self.next_largest()? {
            self.untrue_times = Some(self.not_largest(entry));
        }
        let (offsets, times) = (&self.offsets, &self.times);
        let timed_end = self.noted.map_or(self.base, |noted| noted.offset.plus(1));
        let untrue_offsets = self.untrue_offsets.take();
        let untrue_offsets = untrue_offsets.or_else(|| {
            missing(offsets, self.base)
                .or_else(|| lacking(offsets, note.map(|note| note.offsets), self.indexed_end))
        });
        let untrue_times = self.untrue_times.take().or_else(|| missing(times, self.base)).or_else(|| {
            self.lacks_largest().or_else(|| lacking(times, note.map(|note| note.times), timed_end))
        });
        Ok(untrue_offsets.into_iter().chain(untrue_times))
    }

    /// The next entry by offset, unless one before it was not true.
    fn next_batch(&mut self) -> io::Result<Option<IndexedBatch>> {
        let entry = if self.untrue_offsets.is_none() { self.offsets.peek()? } else { None };
        Ok(entry.map(|entry| entry.batch(self.base)))
    }

    /// The next entry by time, unless one before it was not true.
    fn next_largest(&mut self) -> io::Result<Option<LargestTimestamp>> {
        let entry = if self.untrue_times.is_none() { self.times.peek()? } else { None };
        Ok(entry.map(|entry| entry.largest(self.base)))
    }

    fn lacks_largest(&self) -> Option<Untrue> {
        let LargestTimestamp { timestamp, offset } =
            self.largest.filter(|largest| self.noted != Some(*largest))?;
        let what = format!("it lacks the largest timestamp, {timestamp}, which is at offset {offset}");
        let (kind, position) = (FileKind::TimeIndex, self.times.position());
        Some(Untrue { kind, position, offset, reason: format!("{what}; {MADE_ANEW}") })
    }

    fn no_batch(&self, entry: IndexedBatch) -> Untrue {
        let IndexedBatch { last_offset, position } = entry;
        let what = format!("no batch at position {position} of the log ends with offset {last_offset}");
        untrue_hint(FileKind::OffsetIndex, self.offsets.position(), last_offset, &what)
    }

    fn not_largest(&self, entry: LargestTimestamp) -> Untrue {
        let LargestTimestamp { timestamp, offset } = entry;
        let what =
            format!("the largest timestamp up to offset {offset} is not {timestamp}, or was there before");
        untrue_hint(FileKind::TimeIndex, self.times.position(), offset, &what)
    }
}

fn untrue_hint(kind: FileKind, position: u64, offset: Offset, what: &str) -> Untrue {
    let reason = format!("{what}; without this file it is made anew when the log is opened to write");
    Untrue { kind, position, offset, reason }
}

/// A file that every sealed segment has is not there.
fn missing<E: Entry>(entries: &EntryReader<E>, base: Offset) -> Option<Untrue> {
    let reason = format!("it is missing; {MADE_ANEW}");
    (!entries.has_file()).then_some(Untrue { kind: E::KIND, position: 0, offset: base, reason })
}

/// All entries of a hint were passed, which speak of what lies before `end`, and more were noted.
fn lacking<E: Entry>(entries: &EntryReader<E>, noted: Option<Held>, end: Offset) -> Option<Untrue> {
    let (left, noted) = (entries.entries(), noted.map_or(0, Held::entries));
    let reason = format!("{left} of {noted} entries are left; {MADE_ANEW}");
    (left < noted).then_some(Untrue { kind: E::KIND, position: entries.position(), offset: end, reason })
}

/// What was noted of the indexes of the segment from `base` to `end` when it was sealed.
pub(super) fn read_note(
    storage: &dyn Storage,
    directory: &Path,
    base: Offset,
    end: Offset,
) -> io::Result<Result<Note, Untrue>> {
    let kind = FileKind::IndexSum;
    let newest = read_notes(storage, &kind.path(directory, base))?.find(|note| note.end == end);
    let reason = format!("what the indexes up to offset {end} hold is not noted; {MADE_ANEW}");
    Ok(newest.ok_or(Untrue { kind, position: 0, offset: base, reason }))
}

/// Where the index of aborted transactions does not say what the markers of its segment do, or what was noted of it.
pub(super) fn check_aborted(
    storage: &dyn Storage,
    directory: &Path,
    base: Offset,
    marked: &[Aborted],
    note: Option<Note>,
) -> io::Result<Option<Untrue>> {
    let kind = FileKind::TransactionIndex;
    let entries = AbortedEntries::read(storage, &kind.path(directory, base))?;
    let read = entries.decode();
    let indexed: HashSet<_> = read.iter().map(|entry| (entry.producer_id, entry.last_offset)).collect();
    let known: HashSet<_> = marked.iter().map(|aborted| (aborted.producer_id, aborted.marker)).collect();
    let is_missing =
        |aborted: &&Aborted| aborted.has_records && !indexed.contains(&(aborted.producer_id, aborted.marker));
    let wrong = read.iter().position(|entry| !known.contains(&(entry.producer_id, entry.last_offset)));
    let (place, offset, says) = if let Some(place) = wrong {
        let (id, offset) = (read[place].producer_id, read[place].last_offset);
        (
            place,
            offset,
            format!("it speaks of a transaction of producer {id} that was not aborted at offset {offset}"),
        )
    } else if let Some(missing) = marked.iter().find(is_missing) {
        let place = read.iter().position(|entry| entry.last_offset >= missing.marker).unwrap_or(read.len());
        let id = missing.producer_id;
        let offset = missing.marker;
        (
            place,
            offset,
            format!("it lacks the transaction of producer {id} that was aborted at offset {offset}"),
        )
    } else if let Some(noted) = note.map(|note| note.aborted) {
        match entries.begin_as(noted) {
            Some(true) => return Ok(None),
            Some(false) => (0, base, "its entries are not those that were noted".to_owned()),
            None => {
                let end = read.last().map_or(base, |entry| entry.last_offset.plus(1));
                (read.len(), end, format!("{} of {} entries are left", read.len(), noted.entries()))
            }
        }
    } else {
        return Ok(None);
    };
    let reason = format!("{says}; {MADE_ANEW}");
    Ok(Some(Untrue { kind, position: (place * AbortedTransaction::BYTES) as u64, offset, reason }))
}
