//! Timestamps that a log's clock gave. Two logs have different ones: what can be compared is that they are of
//! that clock, in the order of the offsets, and the same whenever they are asked for.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::outcome::Outcome;
use crate::failure::{Result, ensure};

/// The outcomes of a script on a topic of which records carry the time of their append, without these times.
///
/// # Errors
/// If one was not on the log's clock while the script was done, is before that of an earlier record, or another
/// than at the last look.
pub(super) fn without_times(outcomes: Vec<Outcome>, clock: &RangeInclusive<i64>) -> Result<Vec<Outcome>> {
    let mut seen = BTreeMap::new();
    let without = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Records(mut records) => {
            for record in &mut records {
                let time = std::mem::take(&mut record.timestamp);
                let place = (record.partition, record.offset);
                ensure(clock.contains(&time), || {
                    format!("the record at {place:?} is of {time}, and the clock went over {clock:?}")
                })?;
                let before = *seen.entry(place).or_insert(time);
                ensure(before == time, || {
                    format!("the record at {place:?} was of {before}, and is of {time}")
                })?;
            }
            Ok(Outcome::Records(records))
        }
        other => Ok(other),
    });
    let without = without.collect::<Result<_>>()?;
    let all: Vec<_> = seen.into_iter().collect();
    for pair in all.windows(2) {
        let [(before, earlier), (place, time)] = pair else { continue };
        ensure(before.0 != place.0 || earlier <= time, || {
            format!("the record at {place:?} is of {time}, that at {before:?} of {earlier}")
        })?;
    }
    Ok(without)
}
