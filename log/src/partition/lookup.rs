//! Finding offsets by what they stand for: the earliest, the latest, a time. From the source, Kafka's
//! `UnifiedLog.fetchOffsetByTimestamp`; timestamps need not be in order.

use std::cmp::Reverse;
use std::sync::Arc;

use super::segment_list::InHand;
use super::{Isolation, Partition};
use crate::batch::DecompressionBuffer;
use crate::error::Result;
use crate::index::Older;
use crate::record::{Offset, Timestamp};
use crate::scanner::{ReadError, Scanner};
use crate::segment::Segment;

/// Which offset is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OffsetSpec {
    /// Where the partition begins.
    Earliest,
    /// Behind the last record that is shown.
    Latest,
    /// The first record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record with this timestamp or a later one.
    AtOrAfter(Timestamp),
}

/// An offset that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: Offset,
    /// The record's timestamp, where a record was looked for.
    pub timestamp: Option<Timestamp>,
}

/// From which offset on records are looked at, and up to which.
#[derive(Clone, Copy)]
struct Range {
    start: Offset,
    bound: Offset,
}

impl Partition {
    /// The offset that `spec` stands for, among the records that a reader of this isolation is shown;
    /// `None` if there is no such record. Transaction markers are none; records of aborted transactions
    /// are, as in Kafka.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] once the topic is deleted; [`crate::ErrorKind::Corrupt`] and
    /// [`crate::ErrorKind::Unsupported`]; those of the operating system.
    pub fn find_offset(&self, spec: OffsetSpec, isolation: Isolation) -> Result<Option<FoundOffset>> {
        self.read_again_if_replaced(|_| self.find_offset_once(spec, isolation))
    }

    fn find_offset_once(&self, spec: OffsetSpec, isolation: Isolation) -> Result<Option<FoundOffset>> {
        self.check_not_deleted()?;
        let offsets = self.offsets();
        let bound = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.stable,
        };
        let range = Range { start: offsets.start, bound };
        let at = |offset| Ok(Some(FoundOffset { offset, timestamp: None }));
        let found = match spec {
            OffsetSpec::Earliest => return at(offsets.start),
            OffsetSpec::Latest => return at(bound.max(offsets.start)),
            OffsetSpec::MaxTimestamp => self.find_newest(range)?,
            OffsetSpec::AtOrAfter(timestamp) => self.find_at_or_after(timestamp, range)?,
        };
        Ok(found.map(|(offset, timestamp)| FoundOffset { offset, timestamp: Some(timestamp) }))
    }

    /// The first record whose timestamp is `timestamp` or later, with its own timestamp; `None` if there
    /// is none below the high watermark.
    ///
    /// # Errors
    /// Those of [`Self::find_offset`].
    pub fn offset_for_timestamp(&self, timestamp: Timestamp) -> Result<Option<(Offset, Timestamp)>> {
        let found = self.find_offset(OffsetSpec::AtOrAfter(timestamp), Isolation::ReadUncommitted)?;
        Ok(found.and_then(|FoundOffset { offset, timestamp }| Some((offset, timestamp?))))
    }

    fn find_at_or_after(&self, timestamp: Timestamp, range: Range) -> Result<Option<(Offset, Timestamp)>> {
        let is_late = |segment: &Segment| segment.max_timestamp().is_some_and(|largest| largest >= timestamp);
        let mut wanted = Some(range.start);
        while let Some(InHand { segment, next }) = wanted.and_then(|from| self.segments.find(from, is_late)) {
            if let Some(found) = self.search_segment(&segment, timestamp, range)? {
                return Ok(Some(found));
            }
            wanted = next;
        }
        Ok(None)
    }

    /// The first record with the largest timestamp. Of most segments only that timestamp is looked at.
    fn find_newest(&self, range: Range) -> Result<Option<(Offset, Timestamp)>> {
        let dated = |segment: &Arc<Segment>| Some((segment.max_timestamp()?, segment.base()));
        let mut dated: Vec<_> = self.segments.load().iter().filter_map(dated).collect();
        dated.sort_by_key(|(largest, base)| (Reverse(*largest), *base));
        let mut newest: Option<(Offset, Timestamp)> = None;
        for (largest, base) in dated {
            if newest.is_some_and(|(_, newest)| newest > largest) {
                break;
            }
            // What has taken its place meanwhile has no record that it had not.
            let Some(InHand { segment, .. }) = self.segments.find(base, |_| true) else { break };
            // The record with that timestamp may lie outside of the range.
            let found = match self.search_segment(&segment, largest, range)? {
                None => self.search_newest(&segment, range)?,
                found => found,
            };
            newest = newest.into_iter().chain(found).max_by_key(|(offset, time)| (*time, Reverse(*offset)));
        }
        Ok(newest)
    }

    /// The first record of a segment with this timestamp or a later one.
    fn search_segment(
        &self,
        segment: &Segment,
        timestamp: Timestamp,
        range: Range,
    ) -> Result<Option<(Offset, Timestamp)>> {
        let scanner = self.scan_late(segment, timestamp, range.start);
        let scanner = scanner.map_err(|error| self.read_failed(segment, error))?;
        let mut found = None;
        self.visit_records(segment, scanner, range, timestamp, |offset, time| {
            found = (time >= timestamp).then_some((offset, time));
            found.is_none()
        })?;
        Ok(found)
    }

    /// The batches of a segment from the one that holds `start` on, without the older ones that the time index
    /// knows of. The index is a hint: where the segment does not say the same, nothing is left out.
    fn scan_late(
        &self,
        segment: &Segment,
        timestamp: Timestamp,
        start: Offset,
    ) -> std::result::Result<Scanner, ReadError> {
        let is_true = match segment.times.older_than(timestamp)? {
            Older::UpTo(largest) if largest.offset >= start => match segment.scan_behind(largest) {
                Ok(Some(scanner)) => return Ok(scanner),
                Ok(None) => false,
                // It is met again, unless a record before it is late enough.
                Err(ReadError::Bad { .. }) => true,
                Err(error) => return Err(error),
            },
            Older::Contradiction => false,
            Older::UpTo(_) | Older::Unknown => true,
        };
        if !is_true && segment.doubt_times() {
            let file = segment.times.path().display();
            tracing::warn!(partition = %self.name(), %file, "the time index is not true to its segment, which is read from its beginning where that matters; without this file the index is made again when the log is opened");
        }
        segment.scan(segment.place_before(start)?).map_err(ReadError::from)
    }

    /// The first record with the largest timestamp among those of a segment that are in the range.
    fn search_newest(&self, segment: &Segment, range: Range) -> Result<Option<(Offset, Timestamp)>> {
        let mut newest: Option<(Offset, Timestamp)> = None;
        let scanner = segment.scan(segment.start());
        let scanner = scanner.map_err(|error| self.read_failed(segment, error.into()))?;
        self.visit_records(segment, scanner, range, Timestamp(i64::MIN), |offset, time| {
            if newest.is_none_or(|(_, newest)| time > newest) {
                newest = Some((offset, time));
            }
            true
        })?;
        Ok(newest)
    }

    /// Calls `visit` for each record in the range that is in what `scanner` reads, until it answers false.
    /// Batches without a record as late as `earliest` are passed over.
    fn visit_records(
        &self,
        segment: &Segment,
        mut scanner: Scanner,
        range: Range,
        earliest: Timestamp,
        mut visit: impl FnMut(Offset, Timestamp) -> bool,
    ) -> Result<()> {
        let mut scratch = DecompressionBuffer::new();
        while scanner.place().offset < range.bound {
            let place = scanner.place();
            let failed = |error| self.read_failed(segment, error);
            let Some((_, batch)) = scanner.next().map_err(failed)? else { break };
            let header = batch.header();
            if header.is_control || header.max_timestamp < earliest || header.last_offset() < range.start {
                continue;
            }
            let bad = |error| failed(ReadError::Bad { place, error });
            for record in batch.records(&mut scratch).map_err(bad)? {
                let record = record.map_err(bad)?;
                if record.offset >= range.bound {
                    return Ok(());
                }
                if record.offset >= range.start && !visit(record.offset, record.timestamp) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
