//! Group commit: one round of parallel syncs serves everyone who waits.

use crate::error::{Error, Result};
use crate::record::{Offset, PartitionKey};
use crate::storage::{SyncPurpose, SyncTicket};

/// What a group commit makes durable: a partition.
///
/// The flusher has at most one submission of a target under way. After [`submit`](Self::submit) it
/// calls either [`flushed`](Self::flushed) or [`failed`](Self::failed), once.
pub trait Flush: Send + Sync + 'static {
    /// Whose recovery point rises with it.
    fn key(&self) -> PartitionKey;

    /// Submits syncs of everything appended so far; never waits. No ticket where all of it is durable
    /// already. An error (`Poisoned`, `Closed`) is told to whoever asked for the flush.
    fn submit(&self, purpose: SyncPurpose) -> Result<Submission>;

    /// Every sync of the last submission succeeded: all before `upto` is durable.
    fn flushed(&self, upto: Offset);

    /// A sync of the last submission failed. The target refuses writes from now on.
    fn failed(&self, error: &Error);

    /// Up to where everything is known to be durable.
    fn durable(&self) -> Offset;
}

/// Syncs that were submitted for one target.
#[derive(Debug)]
pub struct Submission {
    /// The syncs, one per file.
    pub tickets: Vec<SyncTicket>,
    /// The end offset that is durable once all of them have succeeded.
    pub upto: Offset,
}
