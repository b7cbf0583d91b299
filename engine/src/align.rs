//! The barriers of one task's senders, as a pure state machine.
//!
//! ```text
//!               barrier(e) from one of several
//!              ┌───────────────┐
//!              │               ▼            barrier(e) from the last
//!   Flowing(e) │          Aligning(e) ─────────────────────────────┐
//!      ▲       └── with one sender only ──────────────────────┐    │
//!      │                                                      ▼    ▼
//!      └────────────────── release: e becomes e+1 ────────── Aligned(e)
//! ```
//!
//! A sender whose barrier has come is closed until the release: what is behind its barrier belongs to the
//! next epoch. So every message taken before the release belongs to `e` or is its barrier.

use crate::epoch::Epoch;

/// Aligns the barriers of a task's senders.
#[derive(Clone, Debug)]
pub(crate) struct Aligner {
    /// The epoch of what is taken now.
    epoch: Epoch,
    /// By sender: whether its barrier has come.
    closed: Vec<bool>,
    /// How many barriers are missing.
    missing: usize,
}

impl Aligner {
    /// An aligner of so many senders, all in `epoch`.
    pub(crate) fn new(senders: usize, epoch: Epoch) -> Self {
        Self { epoch, closed: vec![false; senders], missing: senders }
    }

    /// Whether messages of `sender` may be taken.
    pub(crate) fn is_open(&self, sender: usize) -> bool {
        !self.closed[sender]
    }

    /// The barrier of `epoch` has come from `sender`. Whether it was the last one.
    ///
    /// # Panics
    /// If it is not the barrier that this sender must send next.
    pub(crate) fn barrier(&mut self, sender: usize, epoch: Epoch) -> bool {
        assert_eq!(epoch, self.epoch, "barriers come in order and without a gap");
        assert!(!self.closed[sender], "nothing is taken from a sender behind its barrier");
        self.closed[sender] = true;
        self.missing -= 1;
        self.missing == 0
    }

    /// The barrier has been passed on: all senders go on, in the next epoch.
    ///
    /// # Panics
    /// If a barrier is missing.
    pub(crate) fn release(&mut self) {
        assert_eq!(self.missing, 0, "a barrier is passed on when it has come from every sender");
        self.closed.fill(false);
        self.missing = self.closed.len();
        self.epoch = self.epoch.next();
    }
}

#[cfg(test)]
mod tests;
