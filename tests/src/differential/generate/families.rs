//! What the scripts of each family are made of.

use rand::Rng;

use super::super::script::{Family, Operation, Script};
use super::transactions::Owner;
use super::{GROUPS, Generator, IDS, TIMEOUT_MS};

/// Times a compacting script compacts, records expire, and bytes are too many.
const COMPACTIONS: usize = 2;
const EXPIRATIONS: usize = 2;
const SHEDDINGS: usize = 4;

/// How long a transaction may be open that is open for too long: no stall of a broker on a busy machine is as
/// long as this is, so that what comes before is over.
const OVERDUE_MS: i64 = 4_000;

/// One in so many scripts that compact deletes too.
const COMPACTING_AND_DELETING_EVERY: u64 = 3;

/// Records that expire are of the first day there was, on any clock.
const LONG_AGO: i64 = 1_000;

/// A script that deletes.
pub(in super::super) fn deleting(seed: u64) -> Script {
    let mut generator = Generator::new(seed, Family::Deleting);
    generator.draw_some(20..45);
    generator.finish()
}

/// A script that compacts.
pub(in super::super) fn compacting(seed: u64) -> Script {
    let deletes = seed.is_multiple_of(COMPACTING_AND_DELETING_EVERY);
    let family = if deletes { Family::CompactingAndDeleting } else { Family::Compacting };
    let mut generator = Generator::new(seed, family);
    for _ in 0..COMPACTIONS {
        generator.draw_some(10..25);
        generator.compact();
        generator.look();
    }
    generator.finish()
}

/// A script in which a transaction is open for too long, and its producer goes on.
pub(in super::super) fn overdue(seed: u64) -> Script {
    let mut generator = Generator::new(seed, Family::Overdue);
    generator.draw_some(0..10);
    generator.end_transactions();
    let producer = generator.open_for(0, OVERDUE_MS);
    generator.push(Operation::Begin(producer));
    let send = generator.send_of(producer);
    generator.push(send);
    if generator.rng.random_ratio(1, 3) {
        let (group, partition) = (generator.rng.random_range(0..GROUPS), generator.partition());
        generator.push(Operation::SendOffset { producer, group, partition, offset: 17 });
    }
    generator.push(Operation::Overstay(producer));
    generator.look();
    for _ in 0..generator.rng.random_range(1..3) {
        let operation = match generator.rng.random_range(0..5) {
            0 => Operation::Commit(producer),
            1 => Operation::Abort(producer),
            2 => Operation::Begin(producer),
            _ => generator.send_of(producer),
        };
        generator.push(operation);
    }
    // The log is not opened again before somebody else has the id: whoever has it would take it anew.
    generator.open_for(0, TIMEOUT_MS);
    generator.draw_some(5..15);
    generator.finish()
}

/// A script in which records expire.
pub(in super::super) fn retaining(seed: u64) -> Script {
    let mut generator = Generator::new(seed, Family::Retaining);
    (generator.first_time, generator.time) = (LONG_AGO, LONG_AGO);
    for _ in 0..EXPIRATIONS {
        for _ in 0..generator.rng.random_range(10..20) {
            generator.draw_what_expires();
        }
        generator.end_transactions();
        generator.push(Operation::Expire);
        generator.look();
    }
    (0..5).for_each(|_| generator.draw_what_expires());
    generator.finish()
}

/// A script in which so many bytes are kept.
pub(in super::super) fn sizing(seed: u64) -> Script {
    let mut generator = Generator::new(seed, Family::Sizing);
    for _ in 0..SHEDDINGS {
        for _ in 0..generator.rng.random_range(8..20) {
            generator.draw_what_is_written();
        }
        generator.end_transactions();
        let partition = generator.partition();
        // Just so many that a segment goes, one fewer, one more.
        let (segments, plus) = (generator.rng.random_range(0..5), generator.rng.random_range(-1..=1));
        generator.push(Operation::Shed { partition, segments, plus });
        generator.look();
    }
    generator.finish()
}

/// A script in which what groups have committed expires, but for what is committed late.
pub(in super::super) fn forgetting(seed: u64) -> Script {
    let mut generator = Generator::new(seed, Family::Forgetting);
    generator.draw_what_is_committed(6..20, Commits::AtOnce);
    generator.end_transactions();
    generator.look_at_groups();
    generator.push(Operation::Age);
    generator.draw_what_is_committed(0..6, Commits::Later);
    generator.look_at_groups();
    if generator.rng.random_ratio(1, 3) {
        generator.push(Operation::Reopen);
    }
    generator.push(Operation::Outlast);
    // Kafka's broker knows nothing of them any more.
    generator.owners = Default::default();
    generator.look_at_groups();
    generator.draw_what_is_committed(0..10, Commits::Later);
    generator.finish()
}

/// When offsets are committed that are not to expire with those of before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commits {
    AtOnce,
    Later,
}

/// A script in the midst of which the machine stops.
pub(in super::super) fn restarting(seed: u64) -> Script {
    let mut generator = Generator::new(seed, Family::Restarting);
    generator.draw_some(12..30);
    // One at most is left open: the order in which several are ended is the coordinator's own affair.
    (1..IDS).for_each(|id| generator.end_transaction(id));
    generator.push(Operation::Restart);
    generator.zombies.clear();
    for owner in generator.owners.iter_mut().flatten() {
        *owner = Owner::new(owner.producer);
    }
    generator.look();
    generator.draw_some(10..20);
    generator.finish()
}

impl Generator {
    fn draw_some(&mut self, count: std::ops::Range<i32>) {
        (0..self.rng.random_range(count)).for_each(|_| self.draw());
    }

    /// Anything but batches that are repeated or refused because of their stamp: Kafka begins a segment for one
    /// that is too much for the last before it looks at that.
    fn draw_what_is_written(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.send_much(),
            40..52 => self.send(),
            52..80 => self.transact(),
            80..86 => self.delete(),
            86..89 => self.commit_offset(),
            89..92 => self.reopen(),
            92..94 => self.send_too_much(),
            _ => self.observe(),
        }
    }

    /// What groups commit, and what is deleted of it.
    fn draw_what_is_committed(&mut self, count: std::ops::Range<i32>, commits: Commits) {
        for _ in 0..self.rng.random_range(count) {
            let (group, partition) = (self.rng.random_range(0..GROUPS), self.partition());
            let offset = self.rng.random_range(0..20);
            match (self.rng.random_range(0..100), commits) {
                (0..40, Commits::AtOnce) => self.push(Operation::CommitOffset { group, partition, offset }),
                // What a transaction commits cannot be said to be kept for longer.
                (40..70, Commits::AtOnce) => self.transact(),
                (0..70, Commits::Later) => self.push(Operation::CommitLater { group, partition, offset }),
                (70..80, _) => {
                    self.push(Operation::Committed(group));
                    self.push(Operation::DeleteOffset { group, partition });
                }
                (80..90, _) => {
                    self.push(Operation::Committed(group));
                    self.push(Operation::DeleteGroup(group));
                }
                (90..95, _) => self.reopen(),
                _ => self.push(Operation::Committed(group)),
            }
        }
    }

    fn look_at_groups(&mut self) {
        (0..GROUPS).for_each(|group| self.push(Operation::Committed(group)));
    }

    /// Anything but batches of a stamp of their own: Kafka forgets producers by the time of their records.
    fn draw_what_expires(&mut self) {
        match self.rng.random_range(0..100) {
            0..30 => self.send(),
            30..75 => self.transact(),
            75..80 => self.haunt(),
            80..84 => self.delete(),
            84..90 => self.commit_offset(),
            _ => self.observe(),
        }
    }
}
