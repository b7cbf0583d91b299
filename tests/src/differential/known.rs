//! What a partition holds at a point of a script, told from what the operations before came to: what a lookup
//! by time has to find, whoever is asked. Records that were compacted away are not known to be.

use std::collections::BTreeMap;

use super::outcome::{Outcome, Shed};
use super::script::{Operation, Script, WriterKind};

/// Offset and timestamp of a record.
pub(super) type Found = (i64, i64);

/// The records of a partition.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// All that were ever written: offsets with timestamps.
    written: BTreeMap<i64, i64>,
    /// The first one that is not deleted.
    start: i64,
    /// Where the first transaction begins that is open, by the number of its transactional id.
    open: BTreeMap<usize, i64>,
}

impl Known {
    /// What `partition` holds before the operation at `index`, if those before came to `outcomes`.
    pub(super) fn before(script: &Script, outcomes: &[Outcome], index: usize, partition: i32) -> Self {
        let mut known = Self::default();
        for (place, (operation, outcome)) in script.operations[..index].iter().zip(outcomes).enumerate() {
            known.take(script, place, operation, outcome, partition);
        }
        known
    }

    fn take(
        &mut self,
        script: &Script,
        place: usize,
        operation: &Operation,
        outcome: &Outcome,
        partition: i32,
    ) {
        let id = |producer: usize| match script.producers[producer].kind {
            WriterKind::Transactional(id) if !script.has_been_fenced(producer, place) => Some(id),
            _ => None,
        };
        match (operation, outcome) {
            (
                Operation::Send { producer, records, .. } | Operation::AppendAs { producer, records, .. },
                Outcome::Written(places),
            ) => {
                let times = records.iter().map(|record| record.timestamp);
                let first = self.write(partition, places, times);
                if let (Some(id), Some(first)) = (id(*producer), first) {
                    self.open.entry(id).or_insert(first);
                }
            }
            (Operation::Append { records, .. }, Outcome::Written(places)) => {
                self.write(partition, places, records.iter().map(|record| record.timestamp));
            }
            (Operation::Commit(producer) | Operation::Abort(producer), Outcome::Done) => {
                id(*producer).map(|id| self.open.remove(&id));
            }
            (Operation::Overstay(producer), Outcome::Done) => {
                if let WriterKind::Transactional(id) = script.producers[*producer].kind {
                    self.open.remove(&id);
                }
            }
            // Who has an id when the machine stops takes it again.
            (Operation::Restart, _) => self.open.clear(),
            // Who takes an id ends what it finds.
            (Operation::Open(producer), Outcome::Done) => {
                if let WriterKind::Transactional(id) = script.producers[*producer].kind {
                    self.open.remove(&id);
                }
            }
            (Operation::Delete { partition: of, .. }, Outcome::Deleted(start)) if *of == partition => {
                self.start = self.start.max(*start);
            }
            // Whole segments are gone, of which Kafka knows nothing any more.
            (Operation::Shed { .. }, Outcome::Shed(Shed { starts, .. })) => {
                let start = starts.get(partition as usize).copied().unwrap_or_default();
                if start > self.start {
                    self.start = start;
                    self.written = self.written.split_off(&start);
                }
            }
            _ => {}
        }
    }

    /// Notes the records that went to the partition; the first offset of them. A batch that is repeated is
    /// where it was written first.
    fn write(
        &mut self,
        partition: i32,
        places: &[(i32, i64)],
        times: impl Iterator<Item = i64>,
    ) -> Option<i64> {
        let here = places.iter().zip(times).filter(|((of, _), _)| *of == partition);
        let mut first = None;
        for ((_, offset), time) in here {
            self.written.entry(*offset).or_insert(time);
            first.get_or_insert(*offset);
        }
        first
    }

    /// The records that were deleted. Kafka goes by them when it chooses a segment to look for a time in, for
    /// as long as the segment is there.
    pub(super) fn deleted(&self) -> impl Iterator<Item = Found> {
        self.written.range(..self.start).map(|(offset, time)| (*offset, *time))
    }

    /// Whether a record is or was at an offset. Of what is gone for good none is known to have been.
    pub(super) fn is_record(&self, offset: i64) -> bool {
        offset < self.start || self.written.contains_key(&offset)
    }

    /// The records that a reader is shown, those of aborted transactions among them.
    fn shown(&self, committed: bool) -> impl Iterator<Item = Found> {
        let end = self.open.values().copied().min().filter(|_| committed).unwrap_or(i64::MAX);
        let records = self.written.range(self.start.min(end)..end);
        records.map(|(offset, time)| (*offset, *time))
    }

    /// The first record that is as late.
    pub(super) fn at_or_after(&self, committed: bool, timestamp: i64) -> Option<Found> {
        self.shown(committed).find(|(_, time)| *time >= timestamp)
    }

    /// The first record with the largest timestamp.
    pub(super) fn newest(&self, committed: bool) -> Option<Found> {
        self.shown(committed).reduce(|newest, one| if one.1 > newest.1 { one } else { newest })
    }
}
