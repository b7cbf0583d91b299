//! All that ever travels on an edge.

use lotic_log::{PartitionId, Timestamp};

use crate::epoch::Epoch;
use crate::frame::Frame;

/// What an edge carries, in order.
pub enum Message {
    /// Events.
    Frame(Frame),
    /// No event with a time before this one is still expected from this sender.
    Watermark(Watermark),
    /// Everything before belongs to this epoch, everything after to the next.
    Barrier(Epoch),
    /// The sender's bounded input is used up. Barriers may still follow, frames may not. Not a time.
    End,
}

/// A promise about event time.
///
/// A source whose records are placed by Kafka's default partitioner says it for each of its partitions: a
/// join that waits for one key then waits for the one partition that can hold it, and a partition without
/// keys keeps nobody waiting. It says the least over its partitions of the sender as a whole too, and that
/// nothing is expected of those it does not read. Elsewhere, and after any step that changes keys, a
/// watermark holds for the sender as a whole only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The source partition it is said of, or all of the sender.
    pub partition: Option<PartitionId>,
    /// No record with an event time before this one is still expected.
    pub time: Timestamp,
}
