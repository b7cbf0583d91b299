//! Committing: what a consumer writes down of how far it has come.

use std::sync::Arc;
use std::time::Duration;

use super::Consumer;
use super::assignment::Assigned;
use crate::error::{Error, ErrorKind, Result};
use crate::group::{
    Committed, CommittedOffset, ConsumerGroupMetadata, MemberGeneration, OffsetCommit, offsets_partition,
};
use crate::partition::{Durability, Partition};
use crate::record::{Offset, TopicPartition};
use crate::storage::SyncPurpose;
use crate::ticket::FlushTicket;

/// How soon who waits for records is woken at the earliest to commit: also where the interval is shorter, or
/// what was due could not be committed.
const WOKEN_AFTER_MIN: Duration = Duration::from_millis(100);

/// An offset to be committed, and what is kept with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// The next offset to be read.
    pub offset: Offset,
    /// Whatever whoever reads it may want to know: at most 4,096 bytes.
    pub metadata: String,
}

impl From<Offset> for OffsetAndMetadata {
    fn from(offset: Offset) -> Self {
        Self { offset, metadata: String::new() }
    }
}

impl Consumer {
    /// Writes the positions down for the group, durably.
    ///
    /// Where committed offsets are synced, what lies below them is synced first: an offset beyond what
    /// a power cut leaves is never committed.
    ///
    /// # Errors
    /// `Invalid` without a group. `Fenced` if this consumer is no member any more, and so what it has read
    /// may be read by others: the next poll makes it a member again. `Retry` if a rebalance is under way:
    /// poll, then commit what is still its own. `Closed` once the log is closed. Those of appending and syncing.
    pub fn commit(&mut self) -> Result<()> {
        self.commit_up_to(|assigned| assigned.position)
    }

    /// [`Self::commit`] without blocking the thread for a sync: those of what was read and of what is committed are
    /// awaited. As every append, that of the offsets may wait for room where too many files are open that are not
    /// synced ([`LogOptions::unsynced_files_max`](crate::LogOptions::unsynced_files_max)). Dropped while it waits, it
    /// may or may not have committed; called again, it does. Under [`Drive::Manual`](crate::Drive::Manual) it waits
    /// for whoever steps.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub async fn commit_async(&mut self) -> Result<()> {
        let commits = self.commits_up_to(|assigned| assigned.position)?;
        self.write_commits_async(&commits).await
    }

    /// Commits the positions if the consumer does that by itself and the time has come. Whoever polls is done
    /// with what it was given before.
    pub(super) fn commit_if_due(&mut self) -> Result<()> {
        let Some(every) = self.options.auto_commit else { return Ok(()) };
        let is_committed = self.assigned.iter().all(|assigned| assigned.position == assigned.committed);
        // Committed again, what is committed is kept for longer, and whoever waits for records is woken.
        let later = if is_committed { WOKEN_AFTER_MIN.saturating_sub(every) } else { Duration::ZERO };
        if self.log.clock().elapsed() < self.commit_due.saturating_add(later) {
            return Ok(());
        }
        self.commit_by_itself()
    }

    /// When a consumer is to be polled, though there is nothing to read: one that commits by itself to do so,
    /// a member so that its group keeps it.
    pub(super) fn wants_poll_at(&self) -> Option<Duration> {
        let now = self.log.clock().elapsed();
        let commit =
            self.options.auto_commit.map(|_| self.commit_due.max(now.saturating_add(WOKEN_AFTER_MIN)));
        let sign = self.member.as_ref().map(|_| now.saturating_add(self.sign_of_life_interval()));
        commit.into_iter().chain(sign).min()
    }

    /// Commits the positions if the consumer does that by itself. Of what is not its own any more, or gone,
    /// it hears from its polls.
    pub(super) fn commit_by_itself(&mut self) -> Result<()> {
        let Some(every) = self.options.auto_commit else { return Ok(()) };
        match self.commit() {
            Err(error)
                if matches!(error.kind(), ErrorKind::Retry | ErrorKind::Fenced | ErrorKind::NotFound) =>
            {
                tracing::debug!(%error, "positions are not committed");
                Ok(())
            }
            done => {
                self.commit_due = self.log.clock().elapsed().saturating_add(every);
                done
            }
        }
    }

    /// Commits these offsets. A member leaves out those that are committed already: a group with members
    /// keeps its offsets, and those of others expire unless they are committed again.
    pub(super) fn commit_up_to(&mut self, place: impl Fn(&Assigned) -> Option<Offset>) -> Result<()> {
        let commits = self.commits_up_to(place)?;
        self.write_commits(&commits)
    }

    /// What is to be written for [`Self::commit_up_to`].
    pub(super) fn commits_up_to(
        &self,
        place: impl Fn(&Assigned) -> Option<Offset>,
    ) -> Result<Vec<OffsetCommit>> {
        self.group()?;
        self.log.check_not_closed()?;
        let is_member = self.member.is_some();
        let commit = |assigned: &Assigned| {
            let offset =
                place(assigned).filter(|offset| !is_member || assigned.committed != Some(*offset))?;
            Some(assigned.commit(offset, ""))
        };
        Ok(self.assigned.iter().filter_map(commit).collect())
    }

    /// Writes these offsets down for the group, durably, whatever the positions are.
    ///
    /// # Errors
    /// `Invalid` for a partition that is not assigned, a negative offset, or metadata that is too long; those of
    /// [`Self::commit`].
    pub fn commit_offsets(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        let commit = |(partition, to): &(TopicPartition, OffsetAndMetadata)| {
            Ok(self.get(partition)?.commit(to.offset, &to.metadata))
        };
        self.group()?;
        self.log.check_not_closed()?;
        let commits: Vec<_> = offsets.iter().map(commit).collect::<Result<_>>()?;
        self.write_commits(&commits)
    }

    /// What the group has committed for a partition, whoever did. Not what was committed for an earlier
    /// topic of its name.
    ///
    /// # Errors
    /// `Invalid` without a group; `NotFound` if there is no such partition; those of reading.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<CommittedOffset>> {
        let topic = self.log.topic(&partition.topic)?;
        topic.partition(partition.partition)?;
        let coordinator = self.log.group_coordinator();
        let committed = coordinator.committed_now(&self.log, self.group()?, partition)?;
        Ok(committed.filter(|committed| committed.topic_id.is_none_or(|id| id == topic.id())))
    }

    /// Who this consumer is in its group: what
    /// [`TransactionalProducer::send_offsets_to_transaction`](crate::TransactionalProducer::send_offsets_to_transaction)
    /// is fenced by.
    ///
    /// # Errors
    /// `Invalid` without a group.
    pub fn group_metadata(&self) -> Result<ConsumerGroupMetadata> {
        let group = self.group()?.to_owned();
        // Who has subscribed and is no member, or none any more, is nobody that the group knows.
        let member = self.member.as_ref().map(|member| MemberGeneration {
            id: member.id.clone().unwrap_or_default(),
            generation: member.generation,
        });
        Ok(ConsumerGroupMetadata { group, member })
    }

    /// The positions, as they can be committed.
    pub fn positions(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let position = |assigned: &Assigned| Some((assigned.name().clone(), assigned.position?.into()));
        self.assigned.iter().filter_map(position).collect()
    }

    pub(super) fn group(&self) -> Result<&str> {
        self.options.group.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "a consumer without a group can neither subscribe nor commit")
        })
    }

    /// Makes the topic that the group's offsets go to where it is missing, which waits for the disk: a member does
    /// that when it joins.
    pub(super) fn make_offsets_topic(&self) -> Result<()> {
        if self.options.group.is_some() && self.log.check_writable().is_ok() {
            offsets_partition(&self.log)?;
        }
        Ok(())
    }

    fn write_commits(&mut self, commits: &[OffsetCommit]) -> Result<()> {
        if let Some(read) = self.or_closed(self.sync_read(commits))? {
            self.or_closed(read.wait())?;
        }
        if let Some(written) = self.or_closed(self.append_commits(commits))? {
            self.or_closed(written.wait())?;
        }
        self.note_committed(commits);
        Ok(())
    }

    /// The same for who must not block.
    pub(super) async fn write_commits_async(&mut self, commits: &[OffsetCommit]) -> Result<()> {
        if let Some(read) = self.or_closed(self.sync_read(commits))? {
            self.or_closed(read.await)?;
        }
        if let Some(written) = self.or_closed(self.append_commits(commits))? {
            self.or_closed(written.await)?;
        }
        self.note_committed(commits);
        Ok(())
    }

    /// Where committed offsets are synced, and something below these is not, begins to sync that. It has to
    /// be done before they are written.
    fn sync_read(&self, commits: &[OffsetCommit]) -> Result<Option<FlushTicket>> {
        if commits.is_empty() {
            return Ok(None);
        }
        self.log.group_coordinator().check_committer(&self.group_metadata()?)?;
        if offsets_partition(&self.log)?.config().durability != Durability::Sync {
            return Ok(None);
        }
        let is_behind = |assigned: &&Assigned| {
            let commit = commits.iter().find(|commit| commit.partition == *assigned.name());
            commit.is_some_and(|commit| assigned.partition.offsets().durable < commit.offset)
        };
        let behind = self.assigned.iter().filter(is_behind);
        let behind: Vec<Arc<Partition>> = behind.map(|assigned| assigned.partition.clone()).collect();
        let sync = || self.log.flush(&behind, SyncPurpose::Consumed);
        Ok((!behind.is_empty()).then(sync))
    }

    /// Writes the offsets. What is returned is to be waited for.
    fn append_commits(&self, commits: &[OffsetCommit]) -> Result<Option<FlushTicket>> {
        if commits.is_empty() {
            return Ok(None);
        }
        let home = self.log.group_coordinator().commit(&self.log, &self.group_metadata()?, commits)?;
        let is_synced = home.config().durability == Durability::Sync;
        Ok(is_synced.then(|| self.log.flush(&[home], SyncPurpose::Records)))
    }

    fn note_committed(&mut self, commits: &[OffsetCommit]) {
        for commit in commits {
            let assigned = self.find(&commit.partition).expect("what was committed is assigned");
            assigned.committed = Some(commit.offset);
        }
    }

    /// Finds out where partitions are read from for which that is not known yet.
    ///
    /// # Errors
    /// Those of [`Assigned::begin`], for the first partition that has one; the others have a position.
    pub(super) fn find_positions(&mut self) -> Result<()> {
        let is_open = |assigned: &&Assigned| assigned.position.is_none();
        let open: Vec<_> = self.assigned.iter().filter(is_open).map(|one| one.name().clone()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let isolation = self.options.isolation;
        let mut committed = match &self.options.group {
            Some(group) => {
                self.log.group_coordinator().committed(&self.log, group, &open, isolation)?.into_iter()
            }
            None => Vec::new().into_iter(),
        };
        let now = self.log.clock().now();
        let mut outcome = Ok(());
        for assigned in self.assigned.iter_mut().filter(|assigned| assigned.position.is_none()) {
            let committed = committed.next().unwrap_or(Committed::Nothing);
            outcome = outcome.and(assigned.begin(committed, &self.options, now));
        }
        outcome
    }
}
