//! The members of one group, and who of them reads what: Kafka's protocol, without messages. A pure state
//! machine; time and topics come as arguments.
//!
//! ```text
//!   Empty --first member--> Preparing --all have joined--> Stable
//!     ^                      |     ^                          |
//!     +----last one leaves---+     +--member or topic changes-+
//! ```
//!
//! A member does everything in its own poll. While a rebalance is prepared it joins again: with nothing
//! in its hands where the assignor is eager, with what it has where that is cooperative. The one that
//! comes last makes the next generation; each takes its share from there at its next poll. Whoever has to
//! give something up in a cooperative one does that when it takes its share and asks for another
//! generation, in which that is handed on.
//!
//! Invariant: nobody is given a partition before all who had it have joined without it or are gone. Those
//! who do not poll for longer than they said are gone, and what they commit is refused.
//!
//! A *static* member (KIP-345) has a name of its own. Its consumer goes without that it leaves: it is *away*
//! for the time of its session, and a consumer of that name comes back into its place, with its share, in the
//! same generation. Whoever takes the name of one that is there fences that one. An away member has nothing
//! in its hands, and nobody waits for it to join; it gets a share like the others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::assignor::{Assignor, Candidate, PartitionCounts};
use super::metadata::{GroupRecord, MemberRecord};
use super::subscription::{Subscription, TopicList};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Timestamp, TopicPartition};

/// How a consumer takes part in its group.
#[derive(Clone, Debug)]
pub(crate) struct MemberTerms {
    pub(crate) client_id: String,
    pub(crate) subscription: Subscription,
    pub(crate) assignor: Assignor,
    /// The longest time between two polls.
    pub(crate) poll_interval_max: Duration,
    /// The name of a static member.
    pub(crate) instance_id: Option<String>,
    /// How long a static member may be away.
    pub(crate) session_timeout: Duration,
}

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// On the clock's elapsed time.
    pub(crate) elapsed: Duration,
    pub(crate) now: Timestamp,
}

/// What a member is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// To go on with what it has.
    GoOn,
    /// To give up all that it has and ask again.
    GiveUp,
    /// To have these, and nothing else, from now on.
    Take { generation: i32, partitions: Vec<TopicPartition> },
    /// It is no member any more; what it had may belong to others.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    Preparing,
    Stable,
}

/// The topics of a log, and how often they have changed.
pub(crate) struct Topics<'a> {
    pub(crate) version: u64,
    pub(crate) list: &'a dyn Fn() -> TopicList,
}

/// A group and its members.
#[derive(Debug)]
pub(crate) struct Membership {
    name: String,
    generation: i32,
    phase: Phase,
    /// That of all members.
    assignor: Assignor,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// The topics that any member wants, as they were when they were looked at last.
    topics: TopicList,
    topics_version: u64,
    /// Since when the phase is what it is.
    since: Timestamp,
    /// Whether there is a generation that is not written down.
    is_unrecorded: bool,
}

#[derive(Debug)]
struct Member {
    terms: MemberTerms,
    /// Whether it has joined for the generation that is being prepared.
    has_joined: bool,
    /// What it had when it joined.
    owned: Vec<TopicPartition>,
    /// Its share of the present generation.
    assigned: Vec<TopicPartition>,
    /// The generation that it has taken its share of.
    generation: i32,
    deadline: Duration,
    /// Whether its consumer has gone, and may come back.
    is_away: bool,
}

impl Member {
    fn new(terms: MemberTerms, assigned: Vec<TopicPartition>, moment: Moment) -> Self {
        let deadline = moment.elapsed.saturating_add(terms.poll_interval_max);
        let (owned, generation, is_away) = (Vec::new(), -1, false);
        Self { terms, has_joined: true, owned, assigned, generation, deadline, is_away }
    }
}

impl Membership {
    /// A group without members that has got as far as `generation`.
    pub(crate) fn new(name: &str, generation: i32, since: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            generation,
            phase: Phase::Empty,
            assignor: Assignor::default(),
            leader: None,
            members: BTreeMap::new(),
            topics: TopicList::new(),
            topics_version: 0,
            since,
            is_unrecorded: false,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn assignor(&self) -> Assignor {
        self.assignor
    }

    /// Since when it is in its phase.
    pub(crate) fn since(&self) -> Timestamp {
        self.since
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Who gets what in the present generation.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &MemberTerms, &[TopicPartition])> {
        self.members.iter().map(|(id, member)| (id.as_str(), &member.terms, member.assigned.as_slice()))
    }

    /// Whether any member has subscribed to a topic, be it there or not.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.terms.subscription.holds(topic))
    }

    /// When the first member will have waited too long.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.members.values().map(|member| member.deadline).min()
    }

    /// A consumer comes in that has nothing. As a static member that is known it takes that one's place.
    ///
    /// # Errors
    /// `Invalid` if the group shares out its partitions in another way.
    pub(crate) fn join(&mut self, id: String, terms: MemberTerms, moment: Moment) -> Result<()> {
        self.expire(moment);
        if self.members.is_empty() {
            self.assignor = terms.assignor;
        } else if self.assignor != terms.assignor {
            let (has, wants) = (self.assignor, terms.assignor);
            let what = format!("group {} shares out partitions by {has}, not by {wants}", self.name);
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let known = terms.instance_id.as_deref().and_then(|instance| self.holder(instance));
        let before = known.map(str::to_owned).and_then(|known| self.members.remove_entry(&known));
        let assigned = match before {
            Some((known, member)) => self.make_way(&known, member, &id, &terms, moment.now),
            None => {
                self.prepare(moment.now);
                Vec::new()
            }
        };
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, Member::new(terms, assigned, moment));
        Ok(())
    }

    /// A static member's place is taken by another consumer. Returns its share, which it keeps: it is shared
    /// out anew only if something else is wanted.
    fn make_way(
        &mut self,
        known: &str,
        member: Member,
        id: &str,
        terms: &MemberTerms,
        now: Timestamp,
    ) -> Vec<TopicPartition> {
        if self.leader.as_deref() == Some(known) {
            self.leader = Some(id.to_owned());
        }
        if !member.terms.subscription.is_same(&terms.subscription) {
            self.prepare(now);
        }
        self.is_unrecorded |= self.phase == Phase::Stable;
        member.assigned
    }

    /// The member that is called so.
    fn holder(&self, instance: &str) -> Option<&str> {
        let is_it = |(_, member): &(&String, &Member)| member.terms.instance_id.as_deref() == Some(instance);
        self.members.iter().find(is_it).map(|(id, _)| id.as_str())
    }

    /// # Errors
    /// `Fenced` if another consumer has the name of this static member.
    pub(crate) fn check_instance(&self, id: &str, instance: &str) -> Result<()> {
        match self.holder(instance) {
            Some(holder) if holder != id => {
                let what = format!("group {}: consumer {id} was static member {instance}", self.name);
                Err(Error::new(ErrorKind::Fenced, format!("{what}, which another consumer is now")))
            }
            _ => Ok(()),
        }
    }

    /// The consumer of a static member goes.
    pub(crate) fn step_away(&mut self, id: &str, moment: Moment) {
        if let Some(member) = self.members.get_mut(id) {
            let end_of_session = moment.elapsed.saturating_add(member.terms.session_timeout);
            member.deadline = member.deadline.min(end_of_session);
            member.owned.clear();
            member.is_away = true;
        }
    }

    /// A member polls; `owned` is what it has.
    pub(crate) fn poll(
        &mut self,
        id: &str,
        moment: Moment,
        topics: &Topics<'_>,
        owned: &dyn Fn() -> Vec<TopicPartition>,
    ) -> Turn {
        self.expire(moment);
        let Some(member) = self.members.get_mut(id) else { return Turn::Lost };
        member.deadline = moment.elapsed.saturating_add(member.terms.poll_interval_max);
        self.look_at(topics, moment.now);
        if self.phase == Phase::Preparing {
            let is_cooperative = self.assignor.is_cooperative();
            let member = self.members.get_mut(id).expect("it was there a moment ago");
            if !member.has_joined {
                let owned = owned();
                if !is_cooperative && !owned.is_empty() {
                    return Turn::GiveUp;
                }
                member.owned = owned;
                member.has_joined = true;
            }
            if !self.members.values().all(|member| member.has_joined || member.is_away) {
                return Turn::GoOn;
            }
            self.make_generation(&(topics.list)(), moment.now);
        }
        let member = self.members.get_mut(id).expect("it was there a moment ago");
        if member.generation == self.generation {
            return Turn::GoOn;
        }
        member.generation = self.generation;
        Turn::Take { generation: self.generation, partitions: member.assigned.clone() }
    }

    /// A member is there, unless it was to be heard of before.
    pub(crate) fn note_sign_of_life(&mut self, id: &str, moment: Moment) {
        if let Some(member) = self.members.get_mut(id).filter(|member| member.deadline >= moment.elapsed) {
            member.deadline = moment.elapsed.saturating_add(member.terms.poll_interval_max);
        }
    }

    /// A member does not know its share yet.
    pub(crate) fn forget_generation_of(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.generation = -1;
        }
    }

    /// A member wants other topics.
    pub(crate) fn resubscribe(&mut self, id: &str, subscription: Subscription, now: Timestamp) {
        if let Some(member) = self.members.get_mut(id) {
            member.terms.subscription = subscription;
            self.prepare(now);
        }
    }

    /// A member has given up what it was to give up: somebody else may have that.
    pub(crate) fn rejoin(&mut self, id: &str, now: Timestamp) {
        if self.members.contains_key(id) {
            self.prepare(now);
        }
    }

    /// A member goes.
    pub(crate) fn leave(&mut self, id: &str, now: Timestamp) {
        if self.members.remove(id).is_none() {
            return;
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        if self.members.is_empty() {
            self.disband(now);
        } else {
            self.prepare(now);
        }
    }

    /// Nobody is left.
    pub(crate) fn disband(&mut self, now: Timestamp) {
        self.members.clear();
        self.leader = None;
        self.phase = Phase::Empty;
        self.since = now;
        self.generation += 1;
        self.topics.clear();
        self.is_unrecorded = true;
    }

    /// Removes those who have not polled for too long. Says whether there were any.
    pub(crate) fn expire(&mut self, moment: Moment) -> bool {
        let is_late = |member: &Member| member.deadline < moment.elapsed;
        let late: Vec<_> = self.members.iter().filter(|(_, member)| is_late(member)).collect();
        let late: Vec<String> = late.into_iter().map(|(id, _)| id.clone()).collect();
        for id in &late {
            tracing::warn!(
                group = self.name,
                member = id,
                "a consumer has not polled for too long: it is removed"
            );
            self.leave(id, moment.now);
        }
        !late.is_empty()
    }

    /// Checks that what a member of this generation says still counts.
    ///
    /// # Errors
    /// `Fenced` if it does not: the member was removed, or speaks of an earlier generation than it has
    /// taken its share of. `Retry` if it has to poll first.
    pub(crate) fn check(&self, id: &str, generation: i32) -> Result<()> {
        let name = &self.name;
        let Some(member) = self.members.get(id) else {
            let what = "it did not poll for too long, or has left, and what it had may belong to others";
            let what = format!("group {name}: consumer {id} is no member any more: {what}");
            return Err(Error::new(ErrorKind::Fenced, what));
        };
        let present = self.generation;
        let what = format!("group {name}: consumer {id} speaks of generation {generation}, not {present}");
        if generation != member.generation {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!("{what}: its partitions were shared out anew"),
            ));
        }
        if generation != present {
            let what = format!("{what}: a rebalance is under way; poll, then commit what is still its own");
            return Err(Error::new(ErrorKind::Retry, what));
        }
        Ok(())
    }

    /// The record of a generation that is not written down yet.
    pub(super) fn unrecorded(&self) -> Option<GroupRecord> {
        self.is_unrecorded.then(|| self.record())
    }

    pub(super) fn set_recorded(&mut self) {
        self.is_unrecorded = false;
    }

    pub(super) fn record(&self) -> GroupRecord {
        let member = |(id, member): (&String, &Member)| MemberRecord {
            id: id.clone(),
            client_id: member.terms.client_id.clone(),
            instance_id: member.terms.instance_id.clone(),
            poll_interval_max: member.terms.poll_interval_max,
            topics: member.terms.subscription.wanted(&self.topics).into_iter().map(str::to_owned).collect(),
            assigned: member.assigned.clone(),
        };
        GroupRecord {
            generation: self.generation,
            protocol: (!self.members.is_empty()).then(|| self.assignor.name().to_owned()),
            leader: self.leader.clone(),
            since: Some(self.since),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Begins a rebalance, unless one has begun.
    fn prepare(&mut self, now: Timestamp) {
        if self.phase == Phase::Preparing {
            return;
        }
        self.phase = Phase::Preparing;
        self.since = now;
        self.members.values_mut().for_each(|member| member.has_joined = false);
    }

    /// Begins a rebalance if topics were made, deleted or given more partitions.
    fn look_at(&mut self, topics: &Topics<'_>, now: Timestamp) {
        if topics.version == self.topics_version {
            return;
        }
        self.topics_version = topics.version;
        let wanted = self.wanted(&(topics.list)());
        if self.phase == Phase::Stable && wanted != self.topics {
            self.prepare(now);
        }
        self.topics = wanted;
    }

    /// Those of all topics that any member wants.
    fn wanted(&self, all: &TopicList) -> TopicList {
        let names = self.members.values().flat_map(|member| member.terms.subscription.wanted(all));
        names.map(|name| (name.to_owned(), all[name])).collect()
    }

    fn make_generation(&mut self, all: &TopicList, now: Timestamp) {
        self.topics = self.wanted(all);
        let counts: PartitionCounts<'_> =
            self.topics.iter().map(|(name, (_, count))| (name.as_str(), *count)).collect();
        let members = self.members.iter().map(|(id, member)| Candidate {
            id,
            topics: member.terms.subscription.wanted(&self.topics),
            owned: &member.owned,
            generation: member.generation,
        });
        let candidates: Vec<_> = members.collect();
        let mut assignment = self.assignor.assign(&candidates, &counts);
        for (id, member) in &mut self.members {
            member.assigned = assignment.remove(id).unwrap_or_default();
        }
        self.generation += 1;
        self.phase = Phase::Stable;
        self.since = now;
        self.is_unrecorded = true;
    }
}
