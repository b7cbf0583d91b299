//! Which offsets of a group have expired (KIP-211).

use std::time::Duration;

use super::committed::StoredGroup;
use crate::record::{Timestamp, TopicPartition};

/// How many tombstones go into a batch.
pub(super) const TOMBSTONES_PER_BATCH_MAX: usize = 1000;

/// What is to be forgotten of a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) offsets: Vec<TopicPartition>,
    /// Whether nothing is left of the group.
    pub(super) is_all: bool,
}

/// What has expired of a group that has had no members since `since`: what was committed longer than
/// `retention` ago. Nothing has if they have not been gone for as long. `None` if nothing has.
pub(super) fn expired(
    group: &StoredGroup,
    since: Option<Timestamp>,
    retention: Duration,
    now: Timestamp,
) -> Option<Expired> {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let has_expired = |since: Timestamp| now.0.saturating_sub(since.0) >= retention;
    if since.is_some_and(|since| !has_expired(since)) {
        return None;
    }
    let offsets = group.offsets.iter().filter(|(_, committed)| has_expired(committed.committed_at));
    let mut offsets: Vec<_> = offsets.map(|(partition, _)| partition.clone()).collect();
    offsets.sort_unstable();
    let is_all = offsets.len() == group.offsets.len();
    (is_all || !offsets.is_empty()).then_some(Expired { offsets, is_all })
}
