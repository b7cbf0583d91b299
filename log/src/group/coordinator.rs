//! Coordinates the groups of a log: members come and go, generations are made and written down, offsets
//! are committed by those who may.
//!
//! Everything happens under one lock, in the calls of consumers; the log's thread only removes those who
//! have not polled for too long and offsets that have expired, at times when nobody else would notice.
//! Whether a commit counts is judged under the same lock under which it is appended, so none slips in
//! behind the next generation. The disk is not awaited under it.
//!
//! Lock order: this one, then the log's topics, a session of a transaction, a partition, the flusher's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::committed::{
    CommittedOffset, CommittedOffsets, OffsetCommit, check_group_name, group_record, offset_commits,
    offsets_partition,
};
use super::expiry;
use super::membership::{MemberTerms, Membership, Moment, Topics, Turn};
use super::subscription::Subscription;
use crate::batch::SealedBatch;
use crate::clock::Clock;
use crate::driver::{Driver, Steps};
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::{Flush, Flusher};
use crate::log::Log;
use crate::partition::{Durability, Isolation, Partition};
use crate::progress::Progress;
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::storage::SyncPurpose;

/// How a log keeps its consumer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// How long the offsets of a group without members are kept after they were committed and the last
    /// member has gone; Kafka's `offsets.retention.minutes`.
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

pub(super) struct State {
    /// Those that have, or had, members.
    pub(super) groups: BTreeMap<String, Membership>,
    pub(super) offsets: CommittedOffsets,
    /// The partition of `__consumer_offsets`, once there is one.
    home: Option<Arc<Partition>>,
    /// Up to where each group has committed: what is not synced yet cannot be read, and counts.
    appended: HashMap<String, Offset>,
    /// How many members there have been: their ids differ.
    members_made: u64,
    /// When somebody may have to be removed, on the clock's elapsed time.
    members_due: Option<Duration>,
    /// When offsets are looked through next; never, once nobody steps any more.
    expiry_due: Option<Duration>,
}

impl GroupCoordinator {
    pub(crate) fn new(
        options: GroupOptions,
        clock: Arc<dyn Clock>,
        driver: Arc<Driver>,
        flusher: Arc<Flusher>,
        progress: Arc<Progress>,
    ) -> Self {
        let state = State {
            groups: BTreeMap::new(),
            offsets: CommittedOffsets::default(),
            home: None,
            appended: HashMap::new(),
            members_made: 0,
            members_due: None,
            expiry_due: Some(clock.elapsed() + options.expiry_interval),
        };
        Self { state: Mutex::new(state), options, clock, driver, flusher, progress }
    }

    /// Makes `home` the partition that offsets expire in.
    pub(crate) fn set_home(&self, home: Arc<Partition>) {
        self.state.lock().home = Some(home);
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
        let home = offsets_partition(log)?;
        let moment = self.moment();
        let mut state = self.state.lock();
        state.home = Some(home);
        state.members_made += 1;
        let id = format!("{}-{:08}", terms.client_id, state.members_made);
        let deadline = moment.elapsed + terms.poll_interval_max;
        state.membership(group, moment.now)?.join(id.clone(), terms, moment)?;
        state.members_due = Some(state.members_due.map_or(deadline, |due| due.min(deadline)));
        drop(state);
        self.driver.raise();
        self.progress.raise();
        Ok(id)
    }

    /// A member polls: what is it to do?
    ///
    /// # Errors
    /// Those of writing a generation down.
    pub(crate) fn poll(
        &self,
        log: &Log,
        group: &str,
        id: &str,
        owned: &dyn Fn() -> Vec<TopicPartition>,
    ) -> Result<Turn> {
        let moment = self.moment();
        let topics = Topics { version: log.topics_version(), list: &|| log.topic_list() };
        let mut state = self.state.lock();
        let Some(membership) = state.groups.get_mut(group) else { return Ok(Turn::Lost) };
        let before = (membership.phase(), membership.generation());
        let turn = membership.poll(id, moment, &topics, owned);
        let is_changed = (membership.phase(), membership.generation()) != before;
        let recorded = state.record(group, moment.now, &self.flusher);
        drop(state);
        if is_changed {
            self.progress.raise();
        }
        recorded.map(|()| turn)
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
        state.home = Some(home.clone());
        state.expire_members(&group.group, moment, &self.flusher);
        state.check(group, moment.now)?;
        judge(&state)?;
        append(&home, batch)?;
        state.appended.insert(group.group.clone(), home.offsets().end);
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

impl State {
    /// The group of this name, as it was left when the log was opened.
    fn membership(&mut self, group: &str, now: Timestamp) -> Result<&mut Membership> {
        if !self.groups.contains_key(group) {
            if let Some(home) = &self.home {
                self.offsets.follow(home)?;
            }
            let record = self.offsets.stored_group(group).and_then(|stored| stored.record.as_ref());
            let generation = record.map_or(0, |record| record.generation);
            self.groups.insert(group.to_owned(), Membership::new(group, generation, now));
        }
        Ok(self.groups.get_mut(group).expect("it was made where it was missing"))
    }

    /// Removes the members of a group that have not polled for too long.
    pub(super) fn expire_members(&mut self, group: &str, moment: Moment, flusher: &Flusher) {
        if let Some(membership) = self.groups.get_mut(group)
            && membership.expire(moment)
        {
            self.record_or_say(group, moment.now, flusher);
        }
    }

    fn check(&self, group: &ConsumerGroupMetadata, now: Timestamp) -> Result<()> {
        let ConsumerGroupMetadata { group: name, member } = group;
        let Some(MemberGeneration { id, generation }) = member else { return Ok(()) };
        match self.groups.get(name) {
            Some(membership) => membership.check(id, *generation),
            None => Membership::new(name, 0, now).check(id, *generation),
        }
    }

    fn check_no_other_members(&self, group: &ConsumerGroupMetadata) -> Result<()> {
        let count = self.member_count(&group.group);
        if group.member.is_some() || count == 0 {
            return Ok(());
        }
        let what = "what it reads is shared out among them, and a consumer that is none commits nothing";
        let what = format!("group {} has {count} members: {what}", group.group);
        Err(Error::new(ErrorKind::Fenced, what))
    }

    fn member_count(&self, group: &str) -> usize {
        self.groups.get(group).map_or(0, |membership| membership.members().count())
    }

    /// Writes a generation down that is not, and has it synced some time.
    fn record(&mut self, group: &str, now: Timestamp, flusher: &Flusher) -> Result<()> {
        let Some(membership) = self.groups.get_mut(group) else { return Ok(()) };
        let Some(record) = membership.unrecorded() else { return Ok(()) };
        let Some(home) = &self.home else { return Ok(()) };
        home.append(group_record(group, &record, now)?)?;
        membership.set_recorded();
        if home.config().durability == Durability::Sync {
            let target: Arc<dyn Flush> = home.clone();
            flusher.request_unattended(target, SyncPurpose::Records);
        }
        Ok(())
    }

    /// The same where there is nobody to be told. A group that is not written down as empty is empty all
    /// the same when the log is opened again.
    fn record_or_say(&mut self, group: &str, now: Timestamp, flusher: &Flusher) {
        if let Err(error) = self.record(group, now, flusher) {
            tracing::debug!(group, %error, "that its members have gone is not written down");
        }
    }

    /// # Errors
    /// `Locked` while the group has members.
    pub(super) fn check_unused(&self, group: &str) -> Result<()> {
        match self.member_count(group) {
            0 => Ok(()),
            count => {
                let what = format!("group {group} has {count} members");
                Err(Error::new(
                    ErrorKind::Locked,
                    format!("{what}: its offsets are changed once they are gone"),
                ))
            }
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
            state.expiry_due = Some(moment.elapsed + self.options.expiry_interval);
            if let Err(error) = state.expire_offsets(self.options.offsets_retention, moment, &self.flusher) {
                tracing::warn!(%error, "offsets that have expired stay");
            }
            progress = true;
        }
        progress
    }
}

impl State {
    fn remove_late(&mut self, moment: Moment, flusher: &Flusher) -> bool {
        if self.members_due.is_none_or(|due| moment.elapsed <= due) {
            return false;
        }
        let mut late = Vec::new();
        for (name, membership) in &mut self.groups {
            if membership.expire(moment) {
                late.push(name.clone());
            }
        }
        late.iter().for_each(|group| self.record_or_say(group, moment.now, flusher));
        self.members_due = self.groups.values().filter_map(Membership::deadline).min();
        !late.is_empty()
    }

    /// Forgets the offsets that have expired, and groups of which nothing is left.
    fn expire_offsets(&mut self, retention: Duration, moment: Moment, flusher: &Flusher) -> Result<()> {
        let Some(home) = self.home.clone() else { return Ok(()) };
        self.offsets.follow(&home)?;
        let read = self.offsets.position();
        self.appended.retain(|_, end| *end > read);
        let mut forgotten = Vec::new();
        for (name, stored) in self.offsets.stored() {
            let live = self.groups.get(name);
            let is_used = live.is_some_and(|live| !live.is_empty());
            if is_used || self.appended.contains_key(name) || self.offsets.has_undecided(name) {
                continue;
            }
            let since = live.map(Membership::since);
            let since = since.or_else(|| stored.record.as_ref().and_then(|record| record.since));
            if let Some(expired) = expiry::expired(stored, since, retention, moment.now) {
                forgotten.push((name.to_owned(), expired));
            }
        }
        for (name, expired) in forgotten {
            tracing::info!(group = name, offsets = expired.offsets.len(), "offsets have expired");
            self.forget(&home, &name, &expired.offsets, expired.is_all, moment.now)?;
        }
        if home.config().durability == Durability::Sync {
            let target: Arc<dyn Flush> = home;
            flusher.request_unattended(target, SyncPurpose::Records);
        }
        Ok(())
    }

    /// Writes tombstones for offsets of a group, and for the group if that is asked for.
    pub(super) fn forget(
        &mut self,
        home: &Partition,
        group: &str,
        partitions: &[TopicPartition],
        is_all: bool,
        now: Timestamp,
    ) -> Result<()> {
        let mut chunks = partitions.chunks(expiry::TOMBSTONES_PER_BATCH_MAX).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let is_last = chunks.peek().is_none();
            home.append(super::committed::tombstones(group, chunk, is_all && is_last, now)?)?;
            if is_last {
                break;
            }
        }
        if is_all {
            self.groups.remove(group);
        }
        Ok(())
    }
}
