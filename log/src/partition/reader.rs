//! Reading a partition: by offset and by time. No lock is held while a file is read.

use bytes::Bytes;

use super::{CommittedBatches, Isolation, Partition, PartitionOffsets};
use crate::batch::{Batches, DecompressionBuffer};
use crate::error::{ErrorKind, Result};
use crate::index::AbortedTransaction;
use crate::record::{Offset, Timestamp};
use crate::scanner::{BatchPlace, ReadError};
use crate::segment::{ReadRange, Segment};

/// How many readers that read on where they stopped are spared the index.
const HINTS_MAX: usize = 16;

/// What a fetch found.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, checked; the first one may begin before the offset asked for.
    pub bytes: Bytes,
    /// The aborted transactions that have records among them. Only a reader of committed records is told.
    pub aborted: Vec<AbortedTransaction>,
    /// Where the partition begins and ends.
    pub offsets: PartitionOffsets,
    /// Where to read on: the offset after the last batch, or the one asked for if there is no batch.
    pub next: Offset,
}

impl Fetched {
    /// All batches, markers and aborted ones included.
    pub fn batches(&self) -> Batches<'_> {
        Batches::new(&self.bytes)
    }

    /// The batches of records that count: without markers and, where committed records were asked for,
    /// without aborted ones.
    pub fn committed(&self) -> CommittedBatches<'_> {
        CommittedBatches::new(&self.bytes, &self.aborted)
    }
}

impl Partition {
    /// Reads whole batches from the one that holds `from` on: about `max_bytes` of them, at least one if
    /// there is one, none beyond the high watermark (with [`Isolation::ReadCommitted`], beyond the last
    /// stable offset). There may be less than `max_bytes` though more follows.
    ///
    /// # Errors
    /// [`ErrorKind::OffsetOutOfRange`] before the start and behind the end; [`ErrorKind::Corrupt`]
    /// names the first bad byte's batch; those of the operating system.
    pub fn fetch(&self, from: Offset, max_bytes: usize, isolation: Isolation) -> Result<Fetched> {
        let offsets = self.offsets();
        if from < offsets.start || from > offsets.end {
            return Err(self.out_of_range(from, offsets));
        }
        let bound = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.stable,
        };
        let nothing = Fetched { bytes: Bytes::new(), aborted: Vec::new(), offsets, next: from };
        if from >= bound {
            return Ok(nothing);
        }
        let range = ReadRange { from, bound, bytes_max: max_bytes };
        let segments = self.segments.load();
        let first = holding(&segments, from);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            if let Some((bytes, next)) = self.read_segment(segment, range)? {
                let aborted = match isolation {
                    Isolation::ReadUncommitted => Vec::new(),
                    Isolation::ReadCommitted => self.aborted(&segments[index..], from, next)?,
                };
                return Ok(Fetched { bytes, aborted, offsets, next });
            }
        }
        Ok(nothing)
    }

    /// The first record whose timestamp is `timestamp` or later, with its own timestamp; `None` if there
    /// is none below the high watermark.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] and [`ErrorKind::Unsupported`]; those of the operating system.
    pub fn offset_for_timestamp(&self, timestamp: Timestamp) -> Result<Option<(Offset, Timestamp)>> {
        let bound = self.offsets().high_watermark;
        for segment in self.segments.load().iter() {
            if segment.max_timestamp().is_some_and(|largest| largest >= timestamp)
                && let Some(found) = self.search_segment(segment, timestamp, bound)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn read_segment(&self, segment: &Segment, range: ReadRange) -> Result<Option<(Bytes, Offset)>> {
        let hint = self.hints.lock().find(segment.base(), range.from);
        let place = match hint {
            Some(place) => place,
            None => segment.place_before(range.from).map_err(|error| self.failed(segment, error.into()))?,
        };
        let read = segment.read(range, place, &self.site.context.buffers);
        let Some(read) = read.map_err(|error| self.failed(segment, error))? else { return Ok(None) };
        self.hints.lock().note(segment.base(), range.from, read.end);
        Ok(Some((read.bytes, read.end.offset)))
    }

    /// The aborted transactions with records from `from` to `to`, which are in the first of `segments`;
    /// their markers may be in later ones.
    fn aborted(
        &self,
        segments: &[std::sync::Arc<Segment>],
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>> {
        let mut aborted = Vec::new();
        for segment in segments {
            let is_all = segment.aborted.collect(from, to, &mut aborted);
            if is_all.map_err(|error| self.failed(segment, error.into()))? {
                break;
            }
        }
        Ok(aborted)
    }

    fn search_segment(
        &self,
        segment: &Segment,
        timestamp: Timestamp,
        bound: Offset,
    ) -> Result<Option<(Offset, Timestamp)>> {
        let failed = |error| self.failed(segment, error);
        let older = segment.times.last_before(timestamp).map_err(|error| failed(error.into()))?;
        let start = match older {
            Some(offset) => segment.place_before(offset).map_err(|error| failed(error.into()))?,
            None => segment.start(),
        };
        let mut scanner = segment.scan(start);
        let mut scratch = DecompressionBuffer::new();
        while scanner.place().offset < bound {
            let place = scanner.place();
            let Some((_, batch)) = scanner.next().map_err(failed)? else { break };
            if batch.header().is_control || batch.header().max_timestamp < timestamp {
                continue;
            }
            let bad = |error| failed(ReadError::Bad { place, error });
            for record in batch.records(&mut scratch).map_err(bad)? {
                let record = record.map_err(bad)?;
                if record.timestamp >= timestamp {
                    return Ok(Some((record.offset, record.timestamp)));
                }
            }
        }
        Ok(None)
    }

    fn failed(&self, segment: &Segment, error: ReadError) -> crate::Error {
        self.site.read_error(segment.path(), error)
    }

    fn out_of_range(&self, from: Offset, offsets: PartitionOffsets) -> crate::Error {
        let what = format!("offset {from} is not between {} and {}", offsets.start, offsets.end);
        self.site.error(ErrorKind::OffsetOutOfRange, what)
    }
}

/// The index of the segment that holds `offset`, or would.
fn holding(segments: &[std::sync::Arc<Segment>], offset: Offset) -> usize {
    segments.partition_point(|segment| segment.base() <= offset).saturating_sub(1)
}

/// Where the last fetches ended, so that a reader who reads on needs no index.
#[derive(Default)]
pub(super) struct ReadHints {
    hints: [Option<Hint>; HINTS_MAX],
    /// The hint that is the next to go.
    oldest: usize,
}

#[derive(Clone, Copy)]
struct Hint {
    segment: Offset,
    place: BatchPlace,
}

impl ReadHints {
    pub(super) fn find(&self, segment: Offset, offset: Offset) -> Option<BatchPlace> {
        self.position(segment, offset).and_then(|index| self.hints[index]).map(|hint| hint.place)
    }

    /// Notes that a reader has read from the offset `from` to `end`.
    fn note(&mut self, segment: Offset, from: Offset, end: BatchPlace) {
        let index = self.position(segment, from).unwrap_or_else(|| {
            self.oldest = (self.oldest + 1) % HINTS_MAX;
            self.oldest
        });
        self.hints[index] = Some(Hint { segment, place: end });
    }

    fn position(&self, segment: Offset, offset: Offset) -> Option<usize> {
        let is_it = |hint: &Hint| hint.segment == segment && hint.place.offset == offset;
        self.hints.iter().position(|hint| hint.as_ref().is_some_and(is_it))
    }
}
