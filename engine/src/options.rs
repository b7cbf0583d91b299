//! The settings of a processor: plain data, with the reason for each default.

use std::time::Duration;

use crate::sink::Guarantee;

/// How a flow is run. No setting changes a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// How many workers (threads, under a `Processor`) share the work.
    pub workers: usize,
    /// How long an epoch runs before it is committed: what a result waits at most, and what a restart
    /// computes again at most. 100 ms, since a commit costs about 10 ms of a disk.
    pub epoch_interval: Duration,
    /// How many events a frame holds at most. 1024: enough to pay for a virtual call, few enough to stay
    /// in the processor's cache.
    pub frame_rows_max: usize,
    /// How many messages a queue between two tasks holds before its sender waits.
    pub queue_messages_max: usize,
    /// Changed state, in bytes over all workers, that ends an epoch early.
    pub dirty_bytes_max: usize,
    /// State read and not changed, in bytes over all workers, that is kept in memory.
    pub cache_bytes_max: usize,
    /// Output of the next epoch, in bytes on each worker, that may wait for the present one to end.
    pub staged_bytes_max: usize,
    /// How many bytes of encoded records make a batch.
    pub batch_bytes: usize,
    /// Partitions of each changelog topic, when it is made. One: each more costs a sync in every epoch, and
    /// in one process nothing is gained by it. Each key group belongs to one for good.
    pub changelog_partitions: i32,
    /// Whether sources end at the end that their input has at the start, or wait for more.
    pub bounded: bool,
    /// How far, in milliseconds of event time, a source may run ahead of the slowest one that has data.
    /// A preference; no result depends on it.
    pub source_skew_ms_max: i64,
    /// What is promised of each event's effect. A flow with a sink that cannot keep it is refused.
    pub guarantee: Guarantee,
    /// When checkpoints of state are taken.
    pub checkpoints: CheckpointOptions,
    /// When a flow that failed is started again.
    pub restarts: RestartOptions,
    /// How long a flow may take to commit what it has read once it is told to stop. After it, what is not committed is
    /// dropped: the next run does it again. What else a stop takes is said at
    /// [`Processor::wait`](crate::processor::Processor::wait).
    pub stop_timeout: Duration,
}

/// When checkpoints are taken: once both have passed since the last one, and at an orderly end if any epoch
/// was committed since then. A checkpoint only shortens a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// Epochs that have been committed.
    pub epochs_min: u64,
    /// Time.
    pub interval: Duration,
    /// How many are kept.
    pub keep: usize,
}

/// When a flow that failed is started again from its last committed epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartOptions {
    /// How often in a row without an epoch committed in between. After that the error is told.
    pub attempts_max: u32,
    /// How long to wait before the first; doubled for each that follows.
    pub backoff: Duration,
    /// How long to wait at most.
    pub backoff_max: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            epoch_interval: Duration::from_millis(100),
            frame_rows_max: 1024,
            queue_messages_max: 16,
            dirty_bytes_max: 64 << 20,
            cache_bytes_max: 256 << 20,
            staged_bytes_max: 16 << 20,
            batch_bytes: 64 << 10,
            changelog_partitions: 1,
            bounded: false,
            source_skew_ms_max: 3_600_000,
            guarantee: Guarantee::ExactlyOnce,
            checkpoints: CheckpointOptions::default(),
            restarts: RestartOptions::default(),
            stop_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self { epochs_min: 100, interval: Duration::from_secs(30), keep: 2 }
    }
}

impl Default for RestartOptions {
    fn default() -> Self {
        let (backoff, backoff_max) = (Duration::from_millis(100), Duration::from_secs(10));
        Self { attempts_max: 8, backoff, backoff_max }
    }
}
