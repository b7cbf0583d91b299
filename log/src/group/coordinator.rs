//! Coordinates the groups of a log: members come and go, generations are made and written down, offsets
//! are committed by those who may.
//!
//! Everything happens under one lock, in the calls of consumers; the log's thread only removes those who
//! have not polled for too long and offsets that have expired, at times when nobody else would notice.
//! Whether a commit counts is judged under the same lock under which it is appended, so none slips in
//! behind the next generation. What was committed is read under it without waiting for a sync, also while it is being
//! compacted; an append waits for what the first one in a log does, and where too many files are open that are not
//! synced.
//!
//! Lock order: the log's catalogue, this one, then the log's topics, a session of a transaction, a
//! partition, the flusher's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::committed::{CommittedOffset, OFFSETS_TOPIC, offsets_partition};
use super::membership::{MemberTerms, Membership, Moment, Topics, Turn};
use super::state::State;
use super::subscription::Subscription;
use super::write::{OffsetCommit, check_group_name, offset_commits};
use crate::batch::SealedBatch;
use crate::clock::Clock;
use crate::driver::{Driver, Steps};
use crate::error::Result;
use crate::flusher::Flusher;
use crate::log::Log;
use crate::partition::{Isolation, Partition};
use crate::progress::Progress;
use crate::record::{Timestamp, TopicPartition};
use crate::storage::SyncPurpose;
use crate::topic::Topic;

/// How a log keeps its consumer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// How long offsets that nobody reads on from are kept after they were committed; Kafka's
    /// `offsets.retention.minutes`. Those of a group without members: also after the last one has gone.
    /// Those of a group with members: of topics that none of them has subscribed to (KIP-211). Offsets of a
    /// topic that is deleted go with it.
    pub offsets_retention: Duration,
    /// How often offsets are looked through for those that have expired.
    pub expiry_interval: Duration,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            expiry_interval: Duration::from_secs(10 * 60),
        }
    }
}

/// Who commits offsets for a group: what a transaction is fenced by, Kafka's `ConsumerGroupMetadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupMetadata {
    /// The group.
    pub group: String,
    /// The member; none for a consumer whose partitions were assigned by hand.
    pub member: Option<MemberGeneration>,
}

/// A member, and the generation in which it got its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberGeneration {
    /// The member's id.
    pub id: String,
    /// The generation of the group.
    pub generation: i32,
}

impl ConsumerGroupMetadata {
    /// For a group whose consumers take no part in a rebalance: nothing is fenced.
    pub fn new(group: impl Into<String>) -> Self {
        Self { group: group.into(), member: None }
    }
}

/// What a group has committed for a partition.
pub(crate) enum Committed {
    Nothing,
    At(CommittedOffset),
    /// A transaction that is open is about to commit another offset.
    Undecided,
}

/// The groups of a log.
pub(crate) struct GroupCoordinator {
    pub(super) state: Mutex<State>,
    options: GroupOptions,
    clock: Arc<dyn Clock>,
    driver: Arc<Driver>,
    pub(super) flusher: Arc<Flusher>,
    progress: Arc<Progress>,
}

impl GroupCoordinator {
    pub(crate) fn new(
        options: GroupOptions,
        clock: Arc<dyn Clock>,
        driver: Arc<Driver>,
        flusher: Arc<Flusher>,
        progress: Arc<Progress>,
    ) -> Self {
        let state = State { opened: clock.now(), ..State::default() };
        Self { state: Mutex::new(state), options, clock, driver, flusher, progress }
    }

    /// A topic is there from now on.
    pub(crate) fn note_topic(&self, topic: &Topic) {
        let mut state = self.state.lock();
        state.topics.insert(topic.id());
        if topic.name() == OFFSETS_TOPIC {
            state.home = topic.partitions().first().cloned();
            self.driver.raise();
        }
    }

    /// All topics are known: offsets of others may be forgotten.
    pub(crate) fn begin_expiry(&self) {
        let due = self.clock.elapsed().saturating_add(self.options.expiry_interval);
        self.state.lock().expiry_due = Some(due);
        self.driver.raise();
    }

    /// A topic is deleted, and with it what groups have committed for it, as in Kafka. Where that cannot be
    /// written down, offsets that are looked through later are found to be of no topic.
    pub(crate) fn forget_topic(&self, topic: &Topic) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.topics.remove(&topic.id());
        if let Err(error) = state.forget_topic(topic.name(), now, &self.flusher) {
            tracing::warn!(topic = topic.name(), %error, "offsets of a deleted topic stay for a while");
        }
    }

    /// The log closes, and with it all groups: that their members have gone is written down.
    pub(crate) fn close(&self) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let groups: Vec<_> = state
            .groups
            .iter()
            .filter(|(_, group)| !group.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        for name in groups {
            if let Some(membership) = state.groups.get_mut(&name) {
                membership.disband(now);
            }
            state.record_or_say(&name, now, &self.flusher);
        }
        drop(state);
        self.progress.raise();
    }

    /// Nobody steps from now on.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        state.expiry_due = None;
        state.members_due = None;
    }

    /// How long there is nothing to do unless something happens.
    pub(crate) fn idle_time(&self) -> Option<Duration> {
        let state = self.state.lock();
        let expiry = state.home.as_ref().and(state.expiry_due);
        let due = [expiry, state.members_due].into_iter().flatten().min()?;
        Some(due.saturating_sub(self.clock.elapsed()))
    }

    /// By when the members of a group are to be heard of.
    #[cfg(test)]
    pub(crate) fn deadline(&self, group: &str) -> Option<Duration> {
        self.state.lock().groups.get(group).and_then(Membership::deadline)
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { elapsed: self.clock.elapsed(), now: self.clock.now() }
    }

    /// A consumer becomes a member. Returns its id.
    ///
    /// # Errors
    /// `Invalid` for a name that cannot be, and if the group shares out partitions otherwise; `Closed`;
    /// those of reading what the group has been.
    pub(crate) fn join(&self, log: &Log, group: &str, terms: MemberTerms) -> Result<String> {
        check_group_name(group)?;
        log.check_writable()?;
        offsets_partition(log)?;
        let moment = self.moment();
        let mut state = self.state.lock();
        state.members_made += 1;
        // As in Kafka, static members are told by their names.
        let name = terms.instance_id.as_ref().unwrap_or(&terms.client_id);
        let id = format!("{name}-{:08}", state.members_made);
        let deadline = moment.elapsed.saturating_add(terms.poll_interval_max);
        state.membership(group, moment.now)?.join(id.clone(), terms, moment)?;
        state.members_due = Some(state.members_due.map_or(deadline, |due| due.min(deadline)));
        drop(state);
        self.driver.raise();
        self.progress.raise();
        Ok(id)
    }

    /// A member polls: what is it to do? `instance` is its name if it is a static one.
    ///
    /// # Errors
    /// `Fenced` if another consumer has its name; those of writing a generation down.
    pub(crate) fn poll(
        &self,
        log: &Log,
        group: &str,
        id: &str,
        instance: Option<&str>,
        owned: &dyn Fn() -> Vec<TopicPartition>,
    ) -> Result<Turn> {
        let moment = self.moment();
        let topics = Topics { version: log.topics_version(), list: &|| log.topic_list() };
        let mut state = self.state.lock();
        let Some(membership) = state.groups.get_mut(group) else { return Ok(Turn::Lost) };
        instance.map_or(Ok(()), |instance| membership.check_instance(id, instance))?;
        let before = (membership.phase(), membership.generation());
        let turn = membership.poll(id, moment, &topics, owned);
        let is_changed = (membership.phase(), membership.generation()) != before;
        let recorded = state.record(group, moment.now, &self.flusher);
        if recorded.is_err()
            && let Some(membership) = state.groups.get_mut(group)
        {
            // It has not been told of its share, and is with the next poll.
            membership.forget_generation_of(id);
        }
        drop(state);
        if is_changed {
            self.progress.raise();
        }
        recorded.map(|()| turn)
    }

    /// A member waits for records: it is there, though it does not poll.
    pub(crate) fn note_sign_of_life(&self, group: &str, id: &str) {
        let moment = self.moment();
        if let Some(membership) = self.state.lock().groups.get_mut(group) {
            membership.note_sign_of_life(id, moment);
        }
    }

    /// A member wants other topics.
    pub(crate) fn resubscribe(&self, group: &str, id: &str, subscription: Subscription) {
        self.change(group, |membership, now| membership.resubscribe(id, subscription, now));
    }

    /// A member has given up what it was to give up.
    pub(crate) fn rejoin(&self, group: &str, id: &str) {
        self.change(group, |membership, now| membership.rejoin(id, now));
    }

    /// A member goes.
    pub(crate) fn leave(&self, group: &str, id: &str) {
        self.change(group, |membership, now| membership.leave(id, now));
    }

    /// The consumer of a static member goes, and may come back.
    pub(crate) fn step_away(&self, group: &str, id: &str) {
        let moment = self.moment();
        let mut state = self.state.lock();
        if let Some(membership) = state.groups.get_mut(group) {
            membership.step_away(id, moment);
            let due = membership.deadline();
            state.members_due = state.members_due.into_iter().chain(due).min();
        }
        drop(state);
        self.driver.raise();
        self.progress.raise();
    }

    fn change(&self, group: &str, change: impl FnOnce(&mut Membership, Timestamp)) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(membership) = state.groups.get_mut(group) {
            change(membership, now);
            state.record_or_say(group, now, &self.flusher);
        }
        drop(state);
        self.progress.raise();
    }

    /// Appends offsets that `group` commits. Returns the partition that they are in.
    ///
    /// # Errors
    /// Those of [`Membership::check`]; `Fenced` if the group has members and who commits is none;
    /// `Invalid`; those of appending.
    pub(crate) fn commit(
        &self,
        log: &Log,
        group: &ConsumerGroupMetadata,
        commits: &[OffsetCommit],
    ) -> Result<Arc<Partition>> {
        let append = |home: &Arc<Partition>, batch| home.append(batch).map(drop);
        self.append_commits(log, group, commits, |state| state.check_no_other_members(group), append)
    }

    /// Appends offsets that a transaction commits for `group`, by `append`. One that names no member is
    /// not fenced, as in Kafka.
    ///
    /// # Errors
    /// Those of [`Membership::check`]; `Invalid`; those of appending.
    pub(crate) fn commit_in_transaction(
        &self,
        log: &Log,
        group: &ConsumerGroupMetadata,
        commits: &[OffsetCommit],
        append: impl FnOnce(&Arc<Partition>, SealedBatch) -> Result<()>,
    ) -> Result<()> {
        self.append_commits(log, group, commits, |_| Ok(()), append).map(drop)
    }

    fn append_commits(
        &self,
        log: &Log,
        group: &ConsumerGroupMetadata,
        commits: &[OffsetCommit],
        judge: impl FnOnce(&State) -> Result<()>,
        append: impl FnOnce(&Arc<Partition>, SealedBatch) -> Result<()>,
    ) -> Result<Arc<Partition>> {
        let moment = self.moment();
        let batch = offset_commits(&group.group, commits, moment.now)?;
        let home = offsets_partition(log)?;
        let mut state = self.state.lock();
        state.expire_members(&group.group, moment, &self.flusher);
        state.check(group, moment.now)?;
        judge(&state)?;
        append(&home, batch)?;
        state.note_appended(&group.group, commits, home.offsets().end);
        Ok(home)
    }

    /// Checks that whoever commits may. It may not any more when it does.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub(crate) fn check_committer(&self, group: &ConsumerGroupMetadata) -> Result<()> {
        let moment = self.moment();
        let mut state = self.state.lock();
        state.expire_members(&group.group, moment, &self.flusher);
        state.check(group, moment.now)?;
        state.check_no_other_members(group)
    }

    /// What `group` has committed for a partition, whatever open transactions are about to.
    ///
    /// # Errors
    /// Those of [`Self::committed`].
    pub(crate) fn committed_now(
        &self,
        log: &Log,
        group: &str,
        partition: &TopicPartition,
    ) -> Result<Option<CommittedOffset>> {
        self.sync_commits(log)?;
        let mut state = self.state.lock();
        state.offsets.refresh(log)?;
        Ok(state.offsets.get(group, partition).cloned())
    }

    /// What `group` has committed for these partitions, everything that was appended included. A reader
    /// of committed records is told where transactions are about to commit something else (KIP-447).
    ///
    /// # Errors
    /// `Corrupt`, those of reading, and of syncing what is read.
    pub(crate) fn committed(
        &self,
        log: &Log,
        group: &str,
        partitions: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Vec<Committed>> {
        self.sync_commits(log)?;
        let mut state = self.state.lock();
        state.offsets.refresh(log)?;
        let waits =
            |partition| isolation == Isolation::ReadCommitted && state.offsets.is_undecided(group, partition);
        let committed = |partition| match state.offsets.get(group, partition) {
            _ if waits(partition) => Committed::Undecided,
            Some(committed) => Committed::At(committed.clone()),
            None => Committed::Nothing,
        };
        Ok(partitions.iter().map(committed).collect())
    }

    /// Waits until readers see all that was committed so far.
    pub(super) fn sync_commits(&self, log: &Log) -> Result<()> {
        let home = self.state.lock().home.clone();
        match home {
            Some(home) if home.offsets().high_watermark < home.offsets().end => {
                log.flush(&[home], SyncPurpose::Records).wait()
            }
            _ => Ok(()),
        }
    }
}

impl Steps for GroupCoordinator {
    fn step(&self) -> bool {
        let moment = self.moment();
        let mut state = self.state.lock();
        let mut progress = state.remove_late(moment, &self.flusher);
        if progress {
            self.progress.raise();
        }
        if state.home.is_some() && state.expiry_due.is_some_and(|due| due <= moment.elapsed) {
            state.expiry_due = Some(moment.elapsed.saturating_add(self.options.expiry_interval));
            if let Err(error) = state.expire_offsets(self.options.offsets_retention, moment, &self.flusher) {
                tracing::warn!(%error, "offsets that have expired stay");
            }
            progress = true;
        }
        progress
    }
}
