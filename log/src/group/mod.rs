//! Consumer groups: consumers of one process that share partitions among them, and the offsets that groups
//! have committed, in the internal topic `__consumer_offsets`, in Kafka's bytes.
//!
//! | module | owns |
//! |---|---|
//! | `assignor` | who of the members reads what: pure functions |
//! | `subscription` | which topics a member wants |
//! | `membership` | members and generations of one group: a pure state machine |
//! | `coordinator`, `state` | all groups of a log: fencing, committing, writing generations down |
//! | `committed`, `write` | what groups have committed, as it is read and as it is written |
//! | `format`, `metadata` | the bytes of offsets and of groups |
//! | `expiry` | which offsets are forgotten |
//! | `describe`, `admin` | groups as others see and change them |
//!
//! A consumer whose partitions are assigned by hand only shares its group's offsets: for that a group is
//! a name under which they are kept.

mod admin;
mod assignor;
mod committed;
mod coordinator;
#[cfg(test)]
pub(crate) mod crash_tests;
mod describe;
mod expiry;
#[cfg(test)]
mod forgotten_tests;
mod format;
mod membership;
mod metadata;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod replaced_tests;
mod state;
mod subscription;
#[cfg(test)]
pub(crate) mod tests;
mod write;

pub use admin::{OffsetReset, ResetTo};
pub use assignor::Assignor;
pub use committed::{CommittedOffset, CommittedOffsets, OFFSETS_TOPIC, offsets_partition};
pub(crate) use coordinator::{Committed, GroupCoordinator};
pub use coordinator::{ConsumerGroupMetadata, GroupOptions, MemberGeneration};
pub use describe::{GroupDescription, GroupMember, GroupPartition, GroupState};
pub(crate) use membership::{MemberTerms, Turn};
pub(crate) use subscription::{Subscription, TopicList};
pub(crate) use write::check_group_name;
pub use write::{OffsetCommit, offset_commits};
