//! Reading a partition by offset. No lock is held while a file is read, and no more than one segment in hand.

use std::sync::Arc;

use bytes::Bytes;

use super::segment_list::InHand;
use super::{CommittedBatches, Isolation, Partition, PartitionOffsets};
use crate::batch::Batches;
use crate::error::{ErrorKind, Result};
use crate::index::AbortedTransaction;
use crate::record::Offset;
use crate::scanner::BatchPlace;
use crate::segment::{ReadRange, Segment};

/// How many readers that read on where they stopped are spared the index.
const HINTS_MAX: usize = 16;

/// How often a segment is read in vain for one fetch or lookup, because segments were replaced or removed
/// meanwhile.
pub(super) const READS_MAX: usize = 8;

/// How often the same may still be read again: one bound for all of a fetch, or of a lookup.
pub(super) struct Tries {
    left: usize,
}

impl Tries {
    fn new() -> Self {
        Self { left: READS_MAX - 1 }
    }

    /// Whether it is tried again.
    fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

/// What a segment has shown.
struct Reading {
    in_hand: InHand,
    /// Batches, and where to read on; none if there is none to be shown.
    found: Option<(Bytes, Offset)>,
}

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
    /// [`ErrorKind::OffsetOutOfRange`] before the start and behind the end; [`ErrorKind::NotFound`] once
    /// the topic is deleted; [`ErrorKind::Corrupt`] names the batch at `from` if it is
    /// bad (one behind it is where the fetch ends); [`ErrorKind::Retry`]
    /// where segments are replaced faster than they are read; those of the operating system.
    pub fn fetch(&self, from: Offset, max_bytes: usize, isolation: Isolation) -> Result<Fetched> {
        self.read_again_if_replaced(|tries| self.fetch_once(from, max_bytes, isolation, tries))
    }

    /// Reads, and once more if what was read has been replaced or removed, by this process or another. A look
    /// at what another has replaced has a bound of its own. Nothing is waited for in between: whoever is told
    /// to try again should let some time pass.
    pub(super) fn read_again_if_replaced<T>(&self, read: impl Fn(&mut Tries) -> Result<T>) -> Result<T> {
        let mut tries = Tries::new();
        loop {
            match read(&mut tries) {
                Err(error) if error.kind() == ErrorKind::Retry && tries.take() => {
                    self.check_not_deleted()?;
                    self.refresh()?;
                }
                done => return done,
            }
        }
    }

    fn fetch_once(
        &self,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
        tries: &mut Tries,
    ) -> Result<Fetched> {
        self.check_not_deleted()?;
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
        let mut wanted = Some(from);
        while let Some(from_here) = wanted.filter(|from_here| *from_here < bound) {
            let range = ReadRange { from: from_here, bound, bytes_max: max_bytes };
            let Some(Reading { in_hand, found }) = self.read_holding(range, tries)? else { break };
            if let Some((bytes, next)) = found {
                let aborted = match isolation {
                    Isolation::ReadUncommitted => Vec::new(),
                    Isolation::ReadCommitted => self.aborted_in(&in_hand.segment, from_here, next)?,
                };
                return Ok(Fetched { bytes, aborted, offsets, next });
            }
            wanted = in_hand.next;
        }
        // There is nothing, or there was nothing left.
        self.check_not_deleted()?;
        Ok(nothing)
    }

    /// Reads from the segment that holds the first offset of `range`, which may be another one by the time
    /// that it is open. None once there is no segment.
    fn read_holding(&self, range: ReadRange, tries: &mut Tries) -> Result<Option<Reading>> {
        loop {
            let Some(in_hand) = self.segments.find(range.from, |_| true) else { return Ok(None) };
            if in_hand.segment.base() > range.from {
                // What was before it has been removed meanwhile.
                return Err(self.out_of_range(range.from, self.offsets()));
            }
            match self.read_segment(&in_hand.segment, range) {
                Err(error)
                    if error.kind() == ErrorKind::Retry
                        && !self.segments.lists(&in_hand.segment)
                        && tries.take() => {}
                found => return Ok(Some(Reading { in_hand, found: found? })),
            }
        }
    }

    fn read_segment(&self, segment: &Segment, range: ReadRange) -> Result<Option<(Bytes, Offset)>> {
        let hint = self.hints.lock().find(segment.id(), range.from);
        let place = match hint {
            Some(place) => place,
            None => {
                segment.place_before(range.from).map_err(|error| self.read_failed(segment, error.into()))?
            }
        };
        let read = segment.read(range, place, &self.site.context.buffers);
        let Some(read) = read.map_err(|error| self.read_failed(segment, error))? else { return Ok(None) };
        self.hints.lock().note(segment.id(), range.from, read.end);
        Ok(Some((read.bytes, read.end.offset)))
    }

    /// The aborted transactions with records from `from` to `to`, which were read from `segment`.
    ///
    /// # Errors
    /// [`ErrorKind::Retry`] if it was replaced or removed meanwhile: compaction forgets a transaction once
    /// its records are gone, and those that were read are not.
    fn aborted_in(
        &self,
        segment: &Arc<Segment>,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>> {
        let aborted = self.aborted_between(from, to)?;
        if self.segments.lists(segment) { Ok(aborted) } else { Err(self.site.replaced(segment.path())) }
    }

    /// The aborted transactions that have records or markers from `from` to `to`.
    pub(crate) fn aborted_between(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTransaction>> {
        let mut aborted = Vec::new();
        let mut wanted = Some(from);
        let is_marked = |segment: &Segment| !segment.aborted.is_empty();
        while let Some(InHand { segment, next }) =
            wanted.and_then(|from_here| self.segments.find(from_here, is_marked))
        {
            // One that has taken the place of others has what was found in them too.
            let lowest = wanted.map_or(from, |from_here| from_here.max(segment.base()));
            let is_all = segment.aborted.collect(lowest, to, &mut aborted);
            if is_all.map_err(|error| self.read_failed(&segment, error.into()))? {
                break;
            }
            wanted = next;
        }
        Ok(aborted)
    }

    pub(super) fn out_of_range(&self, from: Offset, offsets: PartitionOffsets) -> crate::Error {
        let what = format!("offset {from} is not between {} and {}", offsets.start, offsets.end);
        self.site.error(ErrorKind::OffsetOutOfRange, what)
    }
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
    segment: u64,
    place: BatchPlace,
}

impl ReadHints {
    pub(super) fn find(&self, segment: u64, offset: Offset) -> Option<BatchPlace> {
        self.position(segment, offset).and_then(|index| self.hints[index]).map(|hint| hint.place)
    }

    /// Notes that a reader has read from the offset `from` to `end`.
    fn note(&mut self, segment: u64, from: Offset, end: BatchPlace) {
        let index = self.position(segment, from).unwrap_or_else(|| {
            self.oldest = (self.oldest + 1) % HINTS_MAX;
            self.oldest
        });
        self.hints[index] = Some(Hint { segment, place: end });
    }

    fn position(&self, segment: u64, offset: Offset) -> Option<usize> {
        let is_it = |hint: &Hint| hint.segment == segment && hint.place.offset == offset;
        self.hints.iter().position(|hint| hint.as_ref().is_some_and(is_it))
    }
}
