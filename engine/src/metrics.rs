//! What a processor tells about itself. Nothing of it is part of a result.

use crate::epoch::Epoch;

/// A moment of a processor's life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The last committed epoch.
    pub last_committed: Epoch,
    /// How often the flow was started again since the processor began.
    pub restarts: u64,
    /// How many checkpoints were taken since then.
    pub checkpoints: u64,
    /// Bytes of state in the workers' memory.
    pub state_bytes: usize,
    /// What each step counted since the processor began, in the graph's order.
    pub steps: Vec<StepMetrics>,
}

/// What one step counted on all workers. What an epoch counted that was not committed stays in, but for what
/// sources rejected: that is known since the flow began, over all runs, each record or row once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepMetrics {
    /// The step's name.
    pub step: String,
    /// Events taken in.
    pub received: u64,
    /// Events emitted, on all ports.
    pub emitted: u64,
    /// Events that came too late.
    pub late: u64,
    /// Of a source: events that are behind their partition's watermark only because it had been idle.
    pub late_idle: u64,
    /// Rows that could not be decoded and were skipped, since the flow began.
    pub skipped: u64,
    /// Rows that could not be decoded and went to the dead-letter topic, since the flow began.
    pub dead_lettered: u64,
}
