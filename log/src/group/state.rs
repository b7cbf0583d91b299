//! All groups of a log, under the coordinator's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::committed::{CommittedOffsets, StoredGroup};
use super::coordinator::{ConsumerGroupMetadata, MemberGeneration};
use super::expiry::{self, GroupFacts, Readers, TOMBSTONES_PER_BATCH_MAX};
use super::membership::{Membership, Moment, Phase};
use super::metadata::GroupRecord;
use super::write::{OffsetCommit, group_record, tombstones};
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::{Flush, Flusher};
use crate::partition::{Durability, Partition};
use crate::record::{Offset, Timestamp, TopicId, TopicPartition};
use crate::storage::SyncPurpose;

/// What is known of all groups.
#[derive(Default)]
pub(super) struct State {
    /// Those that have, or had, members.
    pub(super) groups: BTreeMap<String, Membership>,
    pub(super) offsets: CommittedOffsets,
    /// The partition of `__consumer_offsets`, once there is one.
    pub(super) home: Option<Arc<Partition>>,
    /// All topics that there are: offsets of others are forgotten.
    pub(super) topics: HashSet<TopicId>,
    /// What groups have committed since offsets were looked through, and up to where in `__consumer_offsets`
    /// that stands: what is not synced yet cannot be read, and counts.
    pub(super) appended: HashMap<String, HashMap<TopicPartition, Offset>>,
    /// When the log was opened. Members that are written down since before have gone then, at the latest.
    pub(super) opened: Timestamp,
    /// How many members there have been: their ids differ.
    pub(super) members_made: u64,
    /// When somebody may have to be removed, on the clock's elapsed time.
    pub(super) members_due: Option<Duration>,
    /// When offsets are looked through next; never before all topics are known, and once nobody steps any
    /// more.
    pub(super) expiry_due: Option<Duration>,
}

impl State {
    /// The group of this name, as it was left when the log was opened.
    pub(super) fn membership(&mut self, group: &str, now: Timestamp) -> Result<&mut Membership> {
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

    pub(super) fn check(&self, group: &ConsumerGroupMetadata, now: Timestamp) -> Result<()> {
        let ConsumerGroupMetadata { group: name, member } = group;
        let Some(MemberGeneration { id, generation }) = member else { return Ok(()) };
        match self.groups.get(name) {
            Some(membership) => membership.check(id, *generation),
            None => Membership::new(name, 0, now).check(id, *generation),
        }
    }

    pub(super) fn check_no_other_members(&self, group: &ConsumerGroupMetadata) -> Result<()> {
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
    pub(super) fn record(&mut self, group: &str, now: Timestamp, flusher: &Flusher) -> Result<()> {
        let Some(membership) = self.groups.get_mut(group) else { return Ok(()) };
        let Some(record) = membership.unrecorded() else { return Ok(()) };
        let Some(home) = &self.home else { return Ok(()) };
        home.append(group_record(group, &record, now)?)?;
        membership.set_recorded();
        sync_some_time(home.clone(), flusher);
        Ok(())
    }

    /// The same where there is nobody to be told. A group that is not written down as empty is empty all
    /// the same when the log is opened again.
    pub(super) fn record_or_say(&mut self, group: &str, now: Timestamp, flusher: &Flusher) {
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
                let plural = if count == 1 { "" } else { "s" };
                let what = format!(
                    "group {group} has {count} member{plural}: it can be changed or deleted once it has none"
                );
                Err(Error::new(ErrorKind::Locked, what))
            }
        }
    }

    /// Removes the members of all groups that have not polled for too long. Says whether there were any.
    pub(super) fn remove_late(&mut self, moment: Moment, flusher: &Flusher) -> bool {
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

    /// Notes that a group has committed, up to `end` of `__consumer_offsets`.
    pub(super) fn note_appended(&mut self, group: &str, commits: &[OffsetCommit], end: Offset) {
        let appended = self.appended.entry_ref(group).or_default();
        for OffsetCommit { partition, .. } in commits {
            match appended.get_mut(partition) {
                Some(known) => *known = end,
                None => drop(appended.insert(partition.clone(), end)),
            }
        }
    }

    /// The partitions for which a group has committed what cannot be read yet.
    fn unsynced(&self, group: &str) -> impl Iterator<Item = &TopicPartition> {
        let read = self.offsets.position();
        let appended = self.appended.get(group).into_iter().flatten();
        appended.filter(move |(_, end)| **end > read).map(|(partition, _)| partition)
    }

    /// The partitions for which a commit of a group is on its way: not synced yet, or of a transaction that
    /// is open.
    fn under_way(&self, group: &str) -> impl Iterator<Item = &TopicPartition> {
        let undecided = self.offsets.undecided().filter(move |(of, _)| *of == group);
        self.unsynced(group).chain(undecided.map(|(_, partition)| partition))
    }

    /// The partitions for which a group has committed, or is about to.
    pub(super) fn partitions_of(&self, group: &str) -> BTreeSet<TopicPartition> {
        let stored = self.offsets.group(group).map(|(partition, _)| partition);
        stored.chain(self.under_way(group)).cloned().collect()
    }

    /// Whether there is a group of this name: it has members, or something is known of it.
    pub(super) fn is_known(&self, group: &str) -> bool {
        let is_stored = self.offsets.stored_group(group).is_some();
        is_stored || self.member_count(group) > 0 || self.under_way(group).next().is_some()
    }

    /// Forgets what all groups have committed, and are about to commit, for a topic.
    pub(super) fn forget_topic(&mut self, topic: &str, now: Timestamp, flusher: &Flusher) -> Result<()> {
        let Some(home) = self.home.clone() else { return Ok(()) };
        self.offsets.follow(&home)?;
        let stored = self.offsets.stored().map(|(group, _)| group);
        let undecided = self.offsets.undecided().map(|(group, _)| group);
        let appended = self.appended.keys().map(String::as_str);
        let groups: BTreeSet<_> = stored.chain(undecided).chain(appended).map(str::to_owned).collect();
        let mut is_any = false;
        for group in groups {
            let mut partitions: Vec<_> = self.partitions_of(&group).into_iter().collect();
            partitions.retain(|partition| partition.topic == topic);
            if !partitions.is_empty() {
                self.forget(&home, &group, &partitions, false, now)?;
                is_any = true;
            }
        }
        if is_any {
            sync_some_time(home, flusher);
        }
        Ok(())
    }

    /// Forgets the offsets that are over, and groups of which nothing is left.
    pub(super) fn expire_offsets(
        &mut self,
        retention: Duration,
        moment: Moment,
        flusher: &Flusher,
    ) -> Result<()> {
        let Some(home) = self.home.clone() else { return Ok(()) };
        self.offsets.follow(&home)?;
        let read = self.offsets.position();
        self.appended.retain(|_, appended| {
            appended.retain(|_, end| *end > read);
            !appended.is_empty()
        });
        let mut forgotten = Vec::new();
        for (name, stored) in self.offsets.stored() {
            let facts = GroupFacts {
                stored,
                readers: self.readers(name, stored),
                under_way: self.under_way(name).collect(),
                topics: &self.topics,
            };
            if let Some(expired) = expiry::expired(&facts, retention, moment.now) {
                forgotten.push((name.to_owned(), expired));
            }
        }
        for (name, expired) in &forgotten {
            tracing::info!(group = name, offsets = expired.offsets.len(), "offsets are forgotten");
            self.forget(&home, name, &expired.offsets, expired.is_all, moment.now)?;
        }
        if !forgotten.is_empty() {
            sync_some_time(home, flusher);
        }
        Ok(())
    }

    fn readers(&self, name: &str, stored: &StoredGroup) -> Readers<'_> {
        let left = |record: &GroupRecord| {
            if record.members.is_empty() { record.since } else { Some(self.opened) }
        };
        let Some(live) = self.groups.get(name) else {
            return Readers::Nobody { since: stored.record.as_ref().and_then(left) };
        };
        match live.phase() {
            Phase::Empty => Readers::Nobody { since: Some(live.since()) },
            Phase::Preparing => Readers::Joining,
            Phase::Stable => Readers::Members(live),
        }
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
        let mut chunks = partitions.chunks(TOMBSTONES_PER_BATCH_MAX).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let is_last = chunks.peek().is_none();
            home.append(tombstones(group, chunk, is_all && is_last, now)?)?;
            if is_last {
                break;
            }
        }
        if let Some(appended) = self.appended.get_mut(group) {
            appended.retain(|partition, _| !partitions.contains(partition));
        }
        if is_all {
            self.groups.remove(group);
        }
        Ok(())
    }
}

/// Has what was appended to `home` synced where that is the way of it, and waits for nothing.
fn sync_some_time(home: Arc<Partition>, flusher: &Flusher) {
    if home.config().durability == Durability::Sync {
        let target: Arc<dyn Flush> = home;
        flusher.request_unattended(target, SyncPurpose::Records);
    }
}
