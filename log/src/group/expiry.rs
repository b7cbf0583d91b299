//! Which offsets of a group are over: those that have expired (KIP-211), and those of topics that are gone.

use std::time::Duration;

use hashbrown::HashSet;

use super::committed::{CommittedOffset, StoredGroup};
use super::membership::Membership;
use crate::record::{Timestamp, TopicId, TopicPartition};

/// How many tombstones go into a batch.
pub(super) const TOMBSTONES_PER_BATCH_MAX: usize = 1000;

/// A group, when its offsets are looked through.
pub(super) struct GroupFacts<'a> {
    pub(super) stored: &'a StoredGroup,
    pub(super) readers: Readers<'a>,
    /// Partitions for which a commit is on its way: not synced yet, or of a transaction that is open.
    pub(super) under_way: HashSet<&'a TopicPartition>,
    /// All topics that there are.
    pub(super) topics: &'a HashSet<TopicId>,
}

/// Who reads for a group.
pub(super) enum Readers<'a> {
    /// Nobody is a member of it; since when, if anybody ever was.
    Nobody {
        since: Option<Timestamp>,
    },
    /// Its members are joining: what they are going to read is not known.
    Joining,
    Members(&'a Membership),
}

/// What is to be forgotten of a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) offsets: Vec<TopicPartition>,
    /// Whether nothing is left of the group.
    pub(super) is_all: bool,
}

/// What is to be forgotten of a group; `None` if nothing is.
///
/// An offset has expired that was committed longer than `retention` ago, if nobody reads its topic for the
/// group: members have subscribed to others, or all have been gone for as long. One of a topic that was
/// deleted is forgotten at once; that it is found here is because a crash came between, or it was committed
/// just then. Nothing is forgotten that is being committed anew.
pub(super) fn expired(group: &GroupFacts<'_>, retention: Duration, now: Timestamp) -> Option<Expired> {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let has_expired = |since: Timestamp| now.0.saturating_sub(since.0) >= retention;
    let is_left = match group.readers {
        Readers::Nobody { since } => since.is_none_or(has_expired),
        Readers::Joining | Readers::Members(_) => false,
    };
    let is_unread = |topic: &str| match group.readers {
        Readers::Members(members) => !members.is_subscribed_to(topic),
        Readers::Nobody { .. } | Readers::Joining => is_left,
    };
    let is_over = |(partition, committed): &(&TopicPartition, &CommittedOffset)| {
        let is_gone = committed.topic_id.is_some_and(|id| !group.topics.contains(&id));
        let has_expired = has_expired(committed.committed_at) && is_unread(&partition.topic);
        (is_gone || has_expired) && !group.under_way.contains(partition)
    };
    let offsets = group.stored.offsets.iter().filter(is_over);
    let mut offsets: Vec<_> = offsets.map(|(partition, _)| partition.clone()).collect();
    offsets.sort_unstable();
    let is_all = is_left && offsets.len() == group.stored.offsets.len() && group.under_way.is_empty();
    (is_all || !offsets.is_empty()).then_some(Expired { offsets, is_all })
}
