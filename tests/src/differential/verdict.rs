//! Whether both came to the same.

use std::collections::BTreeMap;
use std::fmt::Write;

use lotic_log::ErrorKind;

use super::clocked::Markers;
use super::known::{Found, Known};
use super::outcome::Outcome;
use super::script::{Dated, FIRST_TIMESTAMP, Operation, Script};

/// Two outcomes of one script.
pub(super) struct Verdict<'a> {
    pub(super) script: &'a Script,
    pub(super) ours: &'a [Outcome],
    pub(super) theirs: &'a [Outcome],
}

impl Verdict<'_> {
    /// The places of the operations that came to different things.
    pub(super) fn differences(&self) -> Vec<usize> {
        (0..self.script.operations.len()).filter(|index| !self.agrees(*index)).collect()
    }

    fn agrees(&self, index: usize) -> bool {
        // What was compacted away is not known.
        if !self.script.family.compacts() {
            match self.script.operations[index] {
                Operation::FindTime { partition, committed, timestamp } => {
                    return self.agree_on_time(index, partition, committed, timestamp);
                }
                Operation::FindNewest { partition, committed } if self.ours[index] != Outcome::Done => {
                    return self.agree_on_newest(index, partition, committed);
                }
                Operation::FindDated { committed, dated, .. } if self.ours[index] != Outcome::Done => {
                    return self.agree_on_dated(index, committed, dated);
                }
                _ => {}
            }
        }
        self.ours.get(index) == self.theirs.get(index) || self.may_differ(index)
    }

    /// Lotic finds the first record as late that is left. Kafka does so too, or finds nothing: it looks in the
    /// first segment that ever held a record as late, and nowhere else.
    fn agree_on_time(&self, index: usize, partition: i32, committed: bool, timestamp: i64) -> bool {
        let known = Known::before(self.script, self.theirs, index, partition);
        let right = Outcome::Found(known.at_or_after(committed, timestamp));
        let misses = || {
            self.theirs[index] == Outcome::Found(None) && known.deleted().any(|(_, time)| time >= timestamp)
        };
        self.ours[index] == right && (self.theirs[index] == right || misses())
    }

    /// Lotic finds the newest record that is left, and Kafka that or a newer one that is deleted; or, where there is
    /// none, a marker, which is a record to its lookups.
    fn agree_on_newest(&self, index: usize, partition: i32, committed: bool) -> bool {
        let known = Known::before(self.script, self.theirs, index, partition);
        let newest = known.newest(committed);
        let is_as_new = |deleted: &Found| newest.is_none_or(|newest| newest.1 <= deleted.1);
        let mut deleted = known.deleted().filter(is_as_new);
        let right = Outcome::Found(newest);
        let is_marker = |found: &Found| found.1 < FIRST_TIMESTAMP && !known.is_record(found.0);
        let finds_marker = || {
            newest.is_none() && matches!(&self.theirs[index], Outcome::Found(Some(found)) if is_marker(found))
        };
        self.ours[index] == right
            && (self.theirs[index] == right
                || finds_marker()
                || deleted.any(|deleted| self.theirs[index] == Outcome::Found(Some(deleted))))
    }

    /// Each side finds what is to be found by the times that it has given, to Kafka's lookups a marker being a
    /// record too. What is at the offsets is the same.
    fn agree_on_dated(&self, index: usize, committed: bool, dated: Dated) -> bool {
        let (Outcome::Dated(ours), Outcome::Dated(theirs)) = (&self.ours[index], &self.theirs[index]) else {
            return false;
        };
        ours.is_of_the_same_offsets(theirs)
            && ours.is_right(dated, committed, Markers::AreNoRecords)
            && (theirs.is_right(dated, committed, Markers::AreRecords)
                || dated == Dated::Newest && theirs.is_as_new())
    }

    /// Whether the two outcomes of an operation are a difference that is meant: see the architecture.
    fn may_differ(&self, index: usize) -> bool {
        match self.script.operations[index] {
            Operation::Begin(producer) | Operation::Commit(producer) | Operation::Abort(producer) => {
                self.is_told_later(index, producer, &[Outcome::Done])
                    || self.is_told_of_an_earlier_send(index, producer)
            }
            Operation::Send { producer, .. } | Operation::SendOffset { producer, .. } => {
                self.is_told_later(index, producer, &[]) || self.is_told_of_an_earlier_send(index, producer)
            }
            Operation::Append { .. } => self.is_forgotten(index),
            Operation::DeleteOffset { group, partition } => {
                let was_committed = |offsets: &BTreeMap<i32, i64>| offsets.contains_key(&partition);
                self.is_refused_here_alone(index, group, was_committed)
            }
            Operation::DeleteGroup(group) => {
                self.is_refused_here_alone(index, group, |offsets| !offsets.is_empty())
            }
            Operation::AppendAs { producer, partition, later, .. } => {
                self.is_judged_by_the_partition(index, producer, partition, later)
                    || later < 0 && self.is_before_the_first_epoch(index, producer)
            }
            Operation::Walk(_) if self.script.family.compacts() => {
                match (&self.ours[index], &self.theirs[index]) {
                    (Outcome::Walked(ours), Outcome::Walked(theirs)) => {
                        ours.without_compacted_transactions() == theirs.without_compacted_transactions()
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }

    /// Lotic tells a producer that was fenced off at once, and what it sends then is of no transaction. Kafka's
    /// client learns of it with the first request that it sends: to begin, and to end a transaction without
    /// records, it sends none. It sends none either where it knows that no transaction is open, or that a send
    /// has failed.
    fn is_told_later(&self, index: usize, producer: usize, more: &[Outcome]) -> bool {
        let refused = [ErrorKind::Fenced, ErrorKind::TransactionState].map(Outcome::Refused);
        let theirs = &self.theirs[index];
        self.script.has_been_fenced(producer, index)
            && refused.contains(&self.ours[index])
            && (refused.contains(theirs) || more.contains(theirs))
    }

    /// A transaction of which a send was refused takes nothing more and is not committed. A client says so, or
    /// what it said of the send that was refused.
    fn is_told_of_an_earlier_send(&self, index: usize, producer: usize) -> bool {
        let of_it = self.script.operations[..index].iter().zip(self.theirs).rev();
        let mut sent = of_it.take_while(|(operation, _)| **operation != Operation::Begin(producer)).filter(
            |(operation, _)| matches!(operation, Operation::Send { producer: of, .. } if *of == producer),
        );
        sent.any(|(_, refused)| {
            let may_be = [refused, &Outcome::Refused(ErrorKind::TransactionState)];
            matches!(refused, Outcome::Refused(_))
                && may_be.contains(&&self.ours[index])
                && may_be.contains(&&self.theirs[index])
        })
    }

    /// A batch of a transaction that is not open where it is to go is refused. Kafka's broker asks the
    /// coordinator, which knows the producer's epoch wherever it has written; a partition of Lotic's goes by what
    /// is in it, and cannot know of an epoch that has not written there whether it is old, or was ever given.
    fn is_judged_by_the_partition(&self, index: usize, producer: usize, partition: i32, later: i16) -> bool {
        (later > 0 || !self.has_written(index, producer, partition))
            && self.ours[index] == Outcome::Refused(ErrorKind::TransactionState)
            && self.theirs[index] == Outcome::Refused(ErrorKind::Fenced)
    }

    /// When Lotic's log is opened again, who has an id takes it again, and Kafka, which goes on, knows nothing of
    /// that. So the producer may have an epoch before its own here, where it is refused, and none on Kafka.
    fn is_before_the_first_epoch(&self, index: usize, producer: usize) -> bool {
        let mut before = self.script.operations[..index].iter();
        before.any(|operation| *operation == Operation::Open(producer))
            && before.any(|operation| *operation == Operation::Reopen)
            && matches!(self.ours[index], Outcome::Refused(ErrorKind::Fenced | ErrorKind::TransactionState))
            && self.theirs[index] == Outcome::Done
    }

    /// Whoever is to forget what a group has not committed is told by Lotic that it is not there. Kafka says so of a
    /// group that it does not know, and it knows one of which all offsets were deleted until it looks through them.
    fn is_refused_here_alone(
        &self,
        index: usize,
        group: usize,
        was_committed: impl Fn(&BTreeMap<i32, i64>) -> bool,
    ) -> bool {
        let Some(before) = index.checked_sub(1) else { return false };
        let was_looked_at = self.script.operations[before] == Operation::Committed(group);
        let is_committed = |outcomes: &[Outcome]| match &outcomes[before] {
            Outcome::Committed(offsets) => was_committed(offsets),
            _ => true,
        };
        was_looked_at
            && !is_committed(self.ours)
            && !is_committed(self.theirs)
            && self.ours[index] == Outcome::Refused(ErrorKind::NotFound)
            && self.theirs[index] == Outcome::Done
    }

    /// Whether the last transaction that a producer has sent something in has records in the partition.
    fn has_written(&self, before: usize, producer: usize, partition: i32) -> bool {
        let mut has_written = false;
        let mut has_ended = true;
        for (operation, outcome) in self.script.operations[..before].iter().zip(self.theirs) {
            match (operation, outcome) {
                (Operation::Begin(of) | Operation::Open(of), Outcome::Done) if *of == producer => {
                    has_ended = true;
                }
                (Operation::Send { producer: of, .. }, Outcome::Written(places)) if *of == producer => {
                    has_written &= !has_ended;
                    has_ended = false;
                    has_written |= places.iter().any(|(place, _)| *place == partition);
                }
                _ => {}
            }
        }
        has_written
    }

    /// A log that was opened again may know of each producer no more than its last batch, which is what Kafka's
    /// snapshots of producers hold, and Kafka itself after a restart.
    fn is_forgotten(&self, index: usize) -> bool {
        let out_of_order = Outcome::Refused(ErrorKind::OutOfOrderSequence);
        let known = match (&self.ours[index], &self.theirs[index]) {
            (ours, theirs) if *ours == out_of_order => theirs,
            (ours, theirs) if *theirs == out_of_order => ours,
            _ => return false,
        };
        let append = &self.script.operations[index];
        let mut before = self.script.operations[..index].iter().zip(self.theirs);
        let was_written = before.any(|(operation, outcome)| operation == append && outcome == known);
        // What is left is what was done since. Kafka was opened again if it was restarted.
        let forgets = |operation: &Operation| match operation {
            Operation::Restart => true,
            Operation::Reopen => self.ours[index] == out_of_order,
            _ => false,
        };
        was_written && before.any(|(operation, _)| forgets(operation))
    }

    /// The script whole, with what each operation came to, and both outcomes where they differ.
    pub(super) fn tell(&self) -> String {
        let mut text = format!("{:?}\n", self.script.producers);
        let differences = self.differences();
        for (index, operation) in self.script.operations.iter().enumerate() {
            let told = if differences.contains(&index) {
                let (ours, theirs) = (self.ours.get(index), self.theirs.get(index));
                writeln!(text, "{index:3} {operation:?}\n    Lotic {ours:?}\n    Kafka {theirs:?}")
            } else {
                writeln!(text, "{index:3} {operation:?} -> {:?}", self.ours[index])
            };
            told.expect("a string takes everything");
        }
        text
    }
}
