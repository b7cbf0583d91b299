//! What there is to say of groups: their members, what they have committed, how far behind they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::committed::{CommittedOffset, StoredGroup};
use super::membership::{MemberTerms, Membership, Phase};
use super::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::record::{Offset, TopicPartition};

/// Where a group stands, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// It has no members.
    Empty,
    /// Its members are joining for the next generation.
    PreparingRebalance,
    /// Its members read what they were assigned.
    Stable,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::Stable => "Stable",
        })
    }
}

/// A consumer group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Where it stands. In a log that was opened read-only, where it stood when that was written down:
    /// members that were killed are still shown as such.
    pub state: GroupState,
    /// How often its partitions have been shared out. 0 if it never had members.
    pub generation: i32,
    /// How they are shared out, by Kafka's name; none without members.
    pub assignor: Option<String>,
    /// Its members, by their ids.
    pub members: Vec<GroupMember>,
    /// What it has committed or is assigned, by topic and partition.
    pub partitions: Vec<GroupPartition>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// What its consumer is called.
    pub client_id: String,
    /// Its name, if it is a static member. It may be away.
    pub instance_id: Option<String>,
    /// Its share in the present generation.
    pub partitions: Vec<TopicPartition>,
}

/// A partition that a group reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPartition {
    /// Its name.
    pub partition: TopicPartition,
    /// What was committed for it. Not what was committed for an earlier topic of its name.
    pub committed: Option<CommittedOffset>,
    /// Where it ends; none if there is no such partition any more.
    pub end: Option<Offset>,
    /// The member that it is assigned to.
    pub member: Option<String>,
}

impl GroupPartition {
    /// How many offsets lie between what was committed and the end.
    pub fn lag(&self) -> Option<u64> {
        // What other software has committed may be any number.
        let behind = self.end?.0.saturating_sub(self.committed.as_ref()?.offset.0);
        Some(u64::try_from(behind).unwrap_or(0))
    }
}

impl GroupDescription {
    /// How far it is behind in all partitions that it has committed for.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().filter_map(GroupPartition::lag).fold(0, u64::saturating_add)
    }
}

impl Log {
    /// All consumer groups that have committed anything, or are about to within a transaction, or have
    /// members, by their names.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], and those of reading what they have committed.
    pub fn groups(&self) -> Result<Vec<GroupDescription>> {
        let coordinator = self.group_coordinator();
        let moment = coordinator.moment();
        let mut state = coordinator.state.lock();
        state.offsets.refresh(self)?;
        let stored = state.offsets.stored().map(|(name, _)| name.to_owned());
        let undecided = state.offsets.undecided().map(|(name, _)| name.to_owned());
        let live = state.groups.iter().filter(|(_, group)| !group.is_empty()).map(|(name, _)| name.clone());
        let names: BTreeSet<String> = stored.chain(undecided).chain(live).collect();
        names.iter().for_each(|name| state.expire_members(name, moment, &coordinator.flusher));
        Ok(names.iter().filter_map(|name| describe(self, &state, name)).collect())
    }

    /// A consumer group.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if nothing is known of it; those of [`Self::groups`].
    pub fn group(&self, name: &str) -> Result<GroupDescription> {
        let coordinator = self.group_coordinator();
        let moment = coordinator.moment();
        let mut state = coordinator.state.lock();
        state.offsets.refresh(self)?;
        state.expire_members(name, moment, &coordinator.flusher);
        describe(self, &state, name).ok_or_else(|| no_such_group(name))
    }
}

pub(super) fn no_such_group(name: &str) -> Error {
    let what = format!("there is no group {name}: it has committed nothing, or that has expired");
    Error::new(ErrorKind::NotFound, what)
}

fn describe(log: &Log, state: &State, name: &str) -> Option<GroupDescription> {
    if !state.is_known(name) {
        return None;
    }
    let stored = state.offsets.stored_group(name);
    let live = state.groups.get(name);
    let mut group = match (live, stored) {
        (Some(live), _) => of_members(live),
        (None, Some(stored)) if log.is_read_only() => of_record(stored),
        // Its members went with the process that they were in.
        (None, _) => nobody(stored),
    };
    group.name = name.to_owned();
    group.partitions = partitions(log, stored, &group.members);
    Some(group)
}

fn of_members(live: &Membership) -> GroupDescription {
    let member = |(id, terms, partitions): (&str, &MemberTerms, &[TopicPartition])| GroupMember {
        id: id.to_owned(),
        client_id: terms.client_id.clone(),
        instance_id: terms.instance_id.clone(),
        partitions: partitions.to_vec(),
    };
    GroupDescription {
        name: String::new(),
        state: match live.phase() {
            Phase::Empty => GroupState::Empty,
            Phase::Preparing => GroupState::PreparingRebalance,
            Phase::Stable => GroupState::Stable,
        },
        generation: live.generation(),
        assignor: (!live.is_empty()).then(|| live.assignor().name().to_owned()),
        members: live.members().map(member).collect(),
        partitions: Vec::new(),
    }
}

fn nobody(stored: Option<&StoredGroup>) -> GroupDescription {
    let record = stored.and_then(|stored| stored.record.as_ref());
    GroupDescription {
        name: String::new(),
        state: GroupState::Empty,
        generation: record.map_or(0, |record| record.generation),
        assignor: None,
        members: Vec::new(),
        partitions: Vec::new(),
    }
}

/// As the process that has the log open has written it down.
fn of_record(stored: &StoredGroup) -> GroupDescription {
    let Some(record) = stored.record.as_ref().filter(|record| !record.members.is_empty()) else {
        return nobody(Some(stored));
    };
    let members = record.members.iter().map(|member| GroupMember {
        id: member.id.clone(),
        client_id: member.client_id.clone(),
        instance_id: member.instance_id.clone(),
        partitions: member.assigned.clone(),
    });
    let (state, assignor) = (GroupState::Stable, record.protocol.clone());
    GroupDescription { state, assignor, members: members.collect(), ..nobody(Some(stored)) }
}

fn partitions(log: &Log, stored: Option<&StoredGroup>, members: &[GroupMember]) -> Vec<GroupPartition> {
    let mut owners = BTreeMap::<TopicPartition, Option<String>>::new();
    let committed = stored.into_iter().flat_map(|stored| stored.offsets.keys());
    committed.for_each(|partition| drop(owners.insert(partition.clone(), None)));
    for member in members {
        for partition in &member.partitions {
            owners.insert(partition.clone(), Some(member.id.clone()));
        }
    }
    let partition = |(name, member): (TopicPartition, Option<String>)| {
        let there = log.topic(&name.topic).and_then(|topic| topic.partition(name.partition)).ok();
        let committed = stored.and_then(|stored| stored.offsets.get(&name));
        let is_of_it = |committed: &&CommittedOffset| match (committed.topic_id, &there) {
            (Some(id), Some(there)) => id == there.topic_id(),
            _ => true,
        };
        GroupPartition {
            committed: committed.filter(is_of_it).cloned(),
            end: there.map(|there| there.offsets().high_watermark),
            member,
            partition: name,
        }
    };
    owners.into_iter().map(partition).collect()
}
