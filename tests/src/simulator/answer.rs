//! What must come of the simulator's flow: a plain function of its input, which knows no worker, no frame,
//! no epoch and no state.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{DISORDER_MS, Entry, WINDOW};

/// The committed output, order left out: nothing is promised of it between keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// By `start|account`: every total that was emitted. One, if all is well.
    pub totals: BTreeMap<String, Vec<i64>>,
    /// The ids of late entries, and how often each.
    pub late: BTreeMap<u64, usize>,
    /// The ids of entries that were reminded of, and how often each.
    pub reminders: BTreeMap<u64, usize>,
    /// The copies of entries, and how often each.
    pub copies: BTreeMap<String, usize>,
    /// What is shown outside the log, as [`Self::totals`].
    pub shown: BTreeMap<String, Vec<i64>>,
}

/// The answer to an input: the entries of each partition of each topic, in order.
pub fn answer_to(partitions: &[Vec<Entry>]) -> Answer {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    let mut answer = Answer::default();
    for partition in partitions {
        let mut newest = i64::MIN;
        for entry in partition {
            newest = newest.max(entry.time);
            let start = entry.time.div_euclid(WINDOW.size_ms) * WINDOW.size_ms;
            let closes = start + WINDOW.size_ms + WINDOW.grace_ms;
            if newest - DISORDER_MS >= closes {
                *answer.late.entry(entry.id).or_default() += 1;
            } else {
                *sums.entry(format!("{start}|{}", entry.account)).or_default() += entry.amount;
            }
            *answer.reminders.entry(entry.id).or_default() += 1;
            for copy in [1, 2] {
                *answer.copies.entry(format!("{}/{copy}", entry.id)).or_default() += 1;
            }
        }
    }
    answer.totals = sums.into_iter().map(|(window, sum)| (window, vec![sum])).collect();
    answer.shown = answer.totals.clone();
    answer
}

impl Answer {
    /// What is in `self` and not in `expected`, and the other way round, in words; empty if they agree.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut differences = differing("total", &self.totals, &expected.totals);
        differences.extend(differing("late entry", &self.late, &expected.late));
        differences.extend(differing("reminder", &self.reminders, &expected.reminders));
        differences.extend(differing("copy", &self.copies, &expected.copies));
        differences.extend(differing("total shown", &self.shown, &expected.shown));
        differences
    }
}

fn differing<K: Ord + std::fmt::Display, V: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = found.keys().chain(expected.keys()).collect();
    let differ = keys.into_iter().filter(|key| found.get(key) != expected.get(key));
    differ
        .map(|key| format!("{what} {key}: {:?}, expected {:?}", found.get(key), expected.get(key)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, time: i64, amount: i64) -> Entry {
        Entry { id, account: 7, time, amount }
    }

    #[test]
    fn lateness_is_judged_by_the_partition_and_sums_are_not() {
        // The window [0, 50) closes at 60; disorder takes 20 off.
        let first =
            vec![entry(1, 10, 1), entry(2, 79, 2), entry(3, 20, 4), entry(4, 80, 8), entry(5, 49, 16)];
        let second = vec![entry(6, 0, 32)];
        let answer = answer_to(&[first, second]);
        let totals = [("0|7".to_owned(), vec![1 + 4 + 32]), ("50|7".to_owned(), vec![2 + 8])];
        assert_eq!(answer.totals, BTreeMap::from(totals));
        assert_eq!(answer.late, BTreeMap::from([(5, 1)]));
        assert_eq!(answer.reminders.len(), 6);
    }
}
