//! The settings of a processor: plain data, with the reason for each default.

use std::path::PathBuf;
use std::time::Duration;

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
    pub queue_frames_max: usize,
    /// Changed state, in bytes over all workers, that ends an epoch early.
    pub dirty_bytes_max: usize,
    /// State read and not changed, in bytes over all workers, that is kept in memory.
    pub cache_bytes_max: usize,
    /// Output of the next epoch, in bytes on each worker, that may wait for the present one to end.
    pub staged_bytes_max: usize,
    /// How many bytes of encoded records make a batch.
    pub batch_bytes: usize,
    /// Partitions of each changelog topic, when it is made. 8: each key group belongs to one for good, and
    /// more cost a sync each.
    pub changelog_partitions: i32,
    /// Whether sources end at the end that their input has at the start, or wait for more.
    pub bounded: bool,
    /// How far, in milliseconds of event time, a source may run ahead of the slowest one that has data.
    /// A preference; no result depends on it.
    pub source_skew_ms_max: i64,
    /// Where state lives between runs, and how it is checkpointed.
    pub state: StateOptions,
}

/// Where state lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// The directory that holds the live state and its checkpoints; `None` for a state that is rebuilt from
    /// the log on each start.
    pub directory: Option<PathBuf>,
    /// A checkpoint is taken when so many epochs were committed since the last one ...
    pub checkpoint_epochs: u64,
    /// ... and so much time has passed. It only shortens a restart.
    pub checkpoint_interval: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            epoch_interval: Duration::from_millis(100),
            frame_rows_max: 1024,
            queue_frames_max: 16,
            dirty_bytes_max: 64 << 20,
            cache_bytes_max: 256 << 20,
            staged_bytes_max: 16 << 20,
            batch_bytes: 64 << 10,
            changelog_partitions: 8,
            bounded: false,
            source_skew_ms_max: 3_600_000,
            state: StateOptions::default(),
        }
    }
}

impl Default for StateOptions {
    fn default() -> Self {
        Self { directory: None, checkpoint_epochs: 100, checkpoint_interval: Duration::from_secs(30) }
    }
}
