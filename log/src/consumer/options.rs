//! How a consumer reads.

use std::time::Duration;

use crate::group::Assignor;
use crate::partition::Isolation;

/// How a [`Consumer`](super::Consumer) reads.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Which records are read.
    pub isolation: Isolation,
    /// Bytes that are read from a partition at a time; a larger batch is read alone.
    pub fetch_bytes_max: usize,
    /// The group whose committed offsets are gone on from, and written by
    /// [`Consumer::commit`](super::Consumer::commit).
    pub group: Option<String>,
    /// Where a partition is read from that the group has committed nothing for.
    pub start: StartAt,
    /// What happens at a position where there is no record any more, or not yet.
    pub out_of_range: OutOfRange,
    /// How the members of the group share out the partitions that they have subscribed to. It is the
    /// same for all.
    pub assignor: Assignor,
    /// The longest time between two polls: a member that takes longer is removed from its group, what it
    /// read goes to others, and what it commits is refused. Kafka's `max.poll.interval.ms`.
    pub poll_interval_max: Duration,
    /// What the consumer is called where members of a group are listed; the beginning of its id there.
    pub client_id: String,
}

/// Where a partition is read from if nothing else says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StartAt {
    /// At its first record.
    #[default]
    Beginning,
    /// Behind its last one.
    End,
    /// At the first record that is no older than this (KIP-1106), or behind the last one.
    Ago(Duration),
    /// Nowhere: it is an error, which names the partition and what there is in it.
    Nowhere,
}

/// What happens if a position lies outside of its partition: records were deleted before they were read,
/// or it was sought to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutOfRange {
    /// It is an error, which names the partition, the offset and what there is.
    #[default]
    Fail,
    /// Reading goes on where [`ConsumerOptions::start`] says, and that is reported.
    StartAgain,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            fetch_bytes_max: 1 << 20,
            group: None,
            start: StartAt::default(),
            out_of_range: OutOfRange::default(),
            assignor: Assignor::default(),
            poll_interval_max: Duration::from_secs(5 * 60),
            client_id: "consumer".to_owned(),
        }
    }
}
