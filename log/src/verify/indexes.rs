//! Whether the indexes beside a segment are true to it, found out while its batches are walked.
//!
//! Of the two that are hints each entry is compared with the batch that it speaks of, and the last one of that by time
//! with the largest timestamp. One by offset that lacks entries has more read, and nothing else: whoever opens the
//! log notices by the note of what it held, and nothing is told here.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::batch::BatchHeader;
use crate::files::FileKind;
use crate::index::{
    AbortedTransaction, Entry, EntryReader, IndexedBatch, LargestTimestamp, OffsetEntry, TimeEntry,
    read_aborted,
};
use crate::record::{Offset, ProducerId};
use crate::segment::is_dated;
use crate::storage::Storage;

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
    pub(super) fn end(mut self) -> io::Result<impl Iterator<Item = Untrue>> {
        if let Some(entry) = self.next_batch()? {
            self.untrue_offsets = Some(self.no_batch(entry));
        }
        if let Some(entry) = self.next_largest()? {
            self.untrue_times = Some(self.not_largest(entry));
        } else if self.untrue_times.is_none()
            && let Some(largest) = self.largest.filter(|largest| self.noted != Some(*largest))
        {
            let LargestTimestamp { timestamp, offset } = largest;
            let what = format!("it lacks the largest timestamp, {timestamp}, which is at offset {offset}");
            self.untrue_times = Some(untrue_hint(FileKind::TimeIndex, self.times.position(), offset, &what));
        }
        Ok(self.untrue_offsets.into_iter().chain(self.untrue_times))
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

/// Where the index of aborted transactions does not say what the markers of its segment do.
pub(super) fn check_aborted(
    storage: &dyn Storage,
    directory: &Path,
    base: Offset,
    marked: &[Aborted],
) -> io::Result<Option<Untrue>> {
    let kind = FileKind::TransactionIndex;
    let read = read_aborted(storage, &kind.path(directory, base))?;
    let indexed: HashSet<_> = read.iter().map(|entry| (entry.producer_id, entry.last_offset)).collect();
    let known: HashSet<_> = marked.iter().map(|aborted| (aborted.producer_id, aborted.marker)).collect();
    let is_missing =
        |aborted: &&Aborted| aborted.has_records && !indexed.contains(&(aborted.producer_id, aborted.marker));
    let wrong = read.iter().position(|entry| !known.contains(&(entry.producer_id, entry.last_offset)));
    let (place, offset, says) = if let Some(place) = wrong {
        let (id, offset) = (read[place].producer_id, read[place].last_offset);
        (place, offset, format!("it speaks of a transaction of producer {id} that was not aborted"))
    } else if let Some(missing) = marked.iter().find(is_missing) {
        let place = read.iter().position(|entry| entry.last_offset >= missing.marker).unwrap_or(read.len());
        let id = missing.producer_id;
        (place, missing.marker, format!("it lacks the transaction of producer {id} that was aborted"))
    } else {
        return Ok(None);
    };
    let reason = format!("{says} at offset {offset}; opening the log to write makes it anew");
    Ok(Some(Untrue { kind, position: (place * AbortedTransaction::BYTES) as u64, offset, reason }))
}
