//! Timestamps that a log's clock gave. Two logs have different ones: what can be compared is that they are of
//! that clock, in the order of the offsets, and the same whenever they are asked for; and that what is found by
//! them is what is to be found by them, each side by its own.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::outcome::{DatedEntry, DatedFound, Outcome};
use super::script::{Dated, Operation, Script};
use crate::failure::{Result, ensure};

/// Looks at the times in the outcomes of a script on a topic of which records carry the time of their append.
/// Records are left without; where something was found by them they stay.
///
/// # Errors
/// If one was not on the log's clock while the script was done, is before that of an earlier record, or another
/// than at the last look.
pub(super) fn without_times(
    script: &Script,
    mut outcomes: Vec<Outcome>,
    clock: &RangeInclusive<i64>,
) -> Result<Vec<Outcome>> {
    let mut seen = BTreeMap::new();
    let mut see = |partition: i32, offset: i64, time: i64| {
        let place = (partition, offset);
        ensure(clock.contains(&time), || {
            format!("the record at {place:?} is of {time}, and the clock went over {clock:?}")
        })?;
        let before = *seen.entry(place).or_insert(time);
        ensure(before == time, || format!("the record at {place:?} was of {before}, and is of {time}"))
    };
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        match outcome {
            Outcome::Records(records) => {
                for record in records {
                    let time = std::mem::take(&mut record.timestamp);
                    see(record.partition, record.offset, time)?;
                }
            }
            Outcome::Dated(found) => {
                let Some(Operation::FindDated { partition, .. }) = script.operations.get(index) else {
                    continue;
                };
                for entry in &found.entries {
                    see(*partition, entry.offset, entry.time)?;
                }
            }
            _ => {}
        }
    }
    let all: Vec<_> = seen.into_iter().collect();
    for pair in all.windows(2) {
        let [(before, earlier), (place, time)] = pair else { continue };
        ensure(before.0 != place.0 || earlier <= time, || {
            format!("the record at {place:?} is of {time}, that at {before:?} of {earlier}")
        })?;
    }
    Ok(outcomes)
}

/// To whom a marker is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Markers {
    AreNoRecords,
    AreRecords,
}

impl Dated {
    /// The time to look for among these.
    pub(super) fn time(self, entries: &[DatedEntry]) -> Option<i64> {
        match self {
            Self::Newest => None,
            Self::At { place, plus } => {
                Some(entries.get(place % entries.len().max(1)).map_or(1, |entry| entry.time) + plus)
            }
        }
    }
}

impl DatedFound {
    /// The same offsets, whatever the times.
    pub(super) fn is_of_the_same_offsets(&self, other: &Self) -> bool {
        let places = |found: &Self| {
            let places = found.entries.iter().map(|entry| (entry.offset, entry.is_marker));
            (places.collect::<Vec<_>>(), found.stable)
        };
        places(self) == places(other)
    }

    /// Whether what was found is what was to be found, by these times: the first record as late, or of the
    /// newest ones the first.
    pub(super) fn is_right(&self, dated: Dated, committed: bool, markers: Markers) -> bool {
        self.found == self.right(dated, committed, markers)
    }

    fn right(&self, dated: Dated, committed: bool, markers: Markers) -> Option<(i64, i64)> {
        let is_shown = |entry: &&DatedEntry| {
            (!committed || entry.offset < self.stable) && (!entry.is_marker || markers == Markers::AreRecords)
        };
        let mut shown = self.entries.iter().filter(is_shown).map(|entry| (entry.offset, entry.time));
        match dated.time(&self.entries) {
            Some(earliest) => shown.find(|(_, time)| *time >= earliest),
            None => shown.reduce(|newest, one| if one.1 > newest.1 { one } else { newest }),
        }
    }

    /// Whether what was found as the newest is deleted, and no older than what is there; or another one of the
    /// newest, which Kafka looks for from where its index points to.
    pub(super) fn is_as_new(&self) -> bool {
        let newest = self.entries.iter().map(|entry| entry.time).max();
        let start = self.entries.first().map_or(i64::MAX, |entry| entry.offset);
        self.found.is_some_and(|(offset, time)| {
            newest.is_none_or(|newest| newest <= time)
                && (offset < start
                    || self.entries.iter().any(|entry| (entry.offset, entry.time) == (offset, time)))
        })
    }
}
