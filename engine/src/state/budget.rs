//! How much memory a worker's state takes, and when that is too much.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The bounds of one worker's state in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Bytes of unchanged entries kept for reading, over all stores. A store that was busy before keeps its
    /// share until the next epoch, so for that long it may be twice as much.
    pub cache_bytes_max: usize,
    /// Bytes of changed entries at which the epoch should end early. When changed and frozen entries
    /// together take twice as much, no more input should be taken in.
    pub dirty_bytes_max: usize,
}

impl Default for StateLimits {
    /// 64 MiB to read, 16 MiB changed.
    fn default() -> Self {
        Self { cache_bytes_max: 64 << 20, dirty_bytes_max: 16 << 20 }
    }
}

/// What the stores of one worker take together. Only that worker writes it; anyone may read it.
#[derive(Debug, Default)]
pub(super) struct StateBudget {
    pub(super) limits: StateLimits,
    /// How many stores share it.
    pub(super) stores: Gauge,
    /// Entries that the backend has too.
    pub(super) clean_bytes: Gauge,
    /// Entries changed in the running epoch.
    pub(super) dirty_bytes: Gauge,
    /// What earlier epochs changed and the backend has not taken yet: entries, and their encoded form.
    pub(super) frozen_bytes: Gauge,
}

impl StateBudget {
    /// How many clean bytes a store that holds `own` of them should get down to, to make room.
    pub(super) fn clean_target(&self, own: usize) -> usize {
        let excess = self.clean_bytes.get().saturating_sub(self.limits.cache_bytes_max);
        if excess == 0 {
            return own;
        }
        let share = self.limits.cache_bytes_max / self.stores.get().max(1);
        // An eighth more than it must, so that not every read has to make room.
        let target = own.saturating_sub(excess + self.limits.cache_bytes_max / 8);
        target.max(share - share / 8).min(own)
    }
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: usize) {
        self.0.store(self.get() + more, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, less: usize) {
        let left = self.get().checked_sub(less).expect("no more is given back than was taken");
        self.0.store(left, Ordering::Relaxed);
    }
}
