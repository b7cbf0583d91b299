//! What a running flow counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one step on all workers, since the processor started. Not part of any result. What a source
/// rejects is counted since the flow began: the epoch record keeps it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events taken in.
    pub received: Count,
    /// Events emitted on all ports.
    pub emitted: Count,
    /// Events that came too late for the step.
    pub late: Count,
    /// Records of a source that came after their partition had been idle, and are behind its watermark only
    /// because of that: whoever they are late for, it is the timeout's doing.
    pub late_idle: Count,
    /// Records or rows that could not be decoded and were skipped, as the policy says.
    pub skipped: Count,
    /// Records or rows that could not be decoded and went to the dead-letter topic.
    pub dead_lettered: Count,
}

/// A number that many threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Goes on from `count`.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
