//! Changing what a group has committed, and forgetting it, while nobody reads for the group.

use std::sync::Arc;

use super::committed::{find_partition, offsets_partition};
use super::describe::no_such_group;
use super::state::State;
use super::write::{OffsetCommit, offset_commits};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::partition::{Isolation, OffsetSpec, Partition};
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::storage::SyncPurpose;

/// Where a group is to go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetTo {
    /// At the first record that is kept.
    Earliest,
    /// Behind the last one.
    Latest,
    /// At this offset, or at the start or end if it lies before or behind.
    Offset(Offset),
    /// At the first record with this timestamp or a later one, or behind the last one.
    Time(Timestamp),
    /// So many records further on than it has committed, or back, within what there is.
    ShiftBy(i64),
}

/// A partition whose committed offset changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetReset {
    /// The partition.
    pub partition: TopicPartition,
    /// What is committed now.
    pub before: Option<Offset>,
    /// What is committed then.
    pub after: Offset,
}

impl Log {
    /// What [`Self::reset_offsets`] would do; changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a partition that is not there; [`ErrorKind::Invalid`] to shift an
    /// offset that was not committed; those of reading.
    pub fn plan_offset_reset(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        to: ResetTo,
    ) -> Result<Vec<OffsetReset>> {
        let plan = |name: &TopicPartition| {
            let partition = self.topic(&name.topic)?.partition(name.partition)?;
            let before = {
                let mut state = self.group_coordinator().state.lock();
                state.offsets.refresh(self)?;
                let committed = state.offsets.get(group, name);
                let is_of_it = |id| id == partition.topic_id();
                let committed = committed.filter(|committed| committed.topic_id.is_none_or(is_of_it));
                committed.map(|committed| committed.offset)
            };
            let after = target(group, &partition, before, to)?;
            Ok(OffsetReset { partition: name.clone(), before, after })
        };
        partitions.iter().map(plan).collect()
    }

    /// Commits other offsets for a group, durably, so that its next consumer goes on there. Where there
    /// is no group of that name it is begun. Returns what was changed.
    ///
    /// # Errors
    /// Those of [`Self::plan_offset_reset`]; [`ErrorKind::Locked`] while the group has members;
    /// [`ErrorKind::Closed`]; those of appending and syncing.
    pub fn reset_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        to: ResetTo,
    ) -> Result<Vec<OffsetReset>> {
        self.check_writable()?;
        let resets = self.plan_offset_reset(group, partitions, to)?;
        let commit = |reset: &OffsetReset| {
            let topic_id = self.topic(&reset.partition.topic)?.id();
            let (partition, metadata) = (reset.partition.clone(), String::new());
            Ok(OffsetCommit { partition, topic_id, offset: reset.after, metadata })
        };
        let commits: Vec<_> = resets.iter().map(commit).collect::<Result<_>>()?;
        if commits.is_empty() {
            return Ok(resets);
        }
        self.sync_up_to(&resets)?;
        let batch = offset_commits(group, &commits, self.clock().now())?;
        self.change_group(group, offsets_partition(self)?, |state, home| {
            state.check_unused(group)?;
            home.append(batch).map(drop)
        })?;
        Ok(resets)
    }

    /// Syncs what lies below the offsets that are to be committed, as [`crate::Consumer::commit`] does.
    fn sync_up_to(&self, resets: &[OffsetReset]) -> Result<()> {
        let mut behind = Vec::new();
        for OffsetReset { partition: TopicPartition { topic, partition }, after, .. } in resets {
            let partition = self.topic(topic)?.partition(*partition)?;
            if partition.offsets().durable < *after {
                behind.push(partition);
            }
        }
        self.flush(&behind, SyncPurpose::Consumed).wait()
    }

    /// Forgets a group and all that it has committed, durably: what transactions that are open have sent for
    /// it so far too, so that it does not come back with them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Locked`] while it has members; [`ErrorKind::Closed`]; those
    /// of appending and syncing.
    pub fn delete_group(&self, group: &str) -> Result<()> {
        self.change_known_group(group, |state, home, now| {
            state.check_unused(group)?;
            let partitions: Vec<_> = state.partitions_of(group).into_iter().collect();
            state.forget(home, group, &partitions, true, now)
        })
    }

    /// Forgets what a group has committed for these partitions, durably, and what transactions that are open
    /// have sent for them so far. A group with members keeps what it has for the topics that they read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the group is not there or has committed nothing for one of them;
    /// [`ErrorKind::Locked`] for a topic that its members read; [`ErrorKind::Closed`]; those of appending
    /// and syncing.
    pub fn delete_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<()> {
        self.change_known_group(group, |state, home, now| {
            let known = state.partitions_of(group);
            if let Some(unknown) = partitions.iter().find(|partition| !known.contains(partition)) {
                let what = format!("group {group} has committed nothing for {unknown}");
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            if let Some(membership) = state.groups.get(group)
                && let Some(read) = partitions.iter().find(|one| membership.is_subscribed_to(&one.topic))
            {
                let what = format!("group {group} has members that read topic {}", read.topic);
                return Err(Error::new(ErrorKind::Locked, what));
            }
            match partitions {
                [] => Ok(()),
                partitions => state.forget(home, group, partitions, false, now),
            }
        })
    }

    /// Changes what is stored of a group that is there, and waits until that is durable.
    fn change_known_group(
        &self,
        group: &str,
        change: impl FnOnce(&mut State, &Partition, Timestamp) -> Result<()>,
    ) -> Result<()> {
        self.check_writable()?;
        let home = find_partition(self)?.ok_or_else(|| no_such_group(group))?;
        let now = self.clock().now();
        self.change_group(group, home, |state, home| {
            if !state.is_known(group) {
                return Err(no_such_group(group));
            }
            change(state, home, now)
        })
    }

    /// Changes what is stored of a group, and waits until that is durable.
    fn change_group(
        &self,
        group: &str,
        home: Arc<Partition>,
        change: impl FnOnce(&mut State, &Partition) -> Result<()>,
    ) -> Result<()> {
        let coordinator = self.group_coordinator();
        let moment = coordinator.moment();
        let mut state = coordinator.state.lock();
        state.expire_members(group, moment, &coordinator.flusher);
        state.offsets.follow(&home)?;
        change(&mut state, &home)?;
        drop(state);
        self.flush(&[home], SyncPurpose::Records).wait()
    }
}

/// Where a reset leads to in a partition.
fn target(group: &str, partition: &Partition, before: Option<Offset>, to: ResetTo) -> Result<Offset> {
    let offsets = partition.offsets();
    let end = offsets.high_watermark.max(offsets.start);
    let within = |offset: Offset| offset.clamp(offsets.start, end);
    Ok(match to {
        ResetTo::Earliest => offsets.start,
        ResetTo::Latest => end,
        ResetTo::Offset(offset) => within(offset),
        ResetTo::Time(time) => {
            let found = partition.find_offset(OffsetSpec::AtOrAfter(time), Isolation::ReadUncommitted)?;
            found.map_or(end, |found| found.offset)
        }
        ResetTo::ShiftBy(by) => {
            let Some(before) = before else {
                let what =
                    format!("group {group} has committed nothing for {} to be shifted", partition.name());
                return Err(Error::new(ErrorKind::Invalid, what));
            };
            within(Offset(before.0.saturating_add(by)))
        }
    })
}
