//! Consumer groups: the offsets that their consumers have committed, in the internal topic
//! `__consumer_offsets`, in Kafka's bytes.
//!
//! Embedded, partitions are assigned by hand: a group is a name under which offsets are kept.

mod assignor;
mod committed;
mod format;

pub use assignor::Assignor;
pub use committed::{
    CommittedOffset, CommittedOffsets, OFFSETS_TOPIC, OffsetCommit, offset_commits, offsets_partition,
};
