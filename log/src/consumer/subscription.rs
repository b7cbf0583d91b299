//! A consumer as a member of its group: it subscribes to topics, and is told what it reads of them.
//!
//! Everything happens in the consumer's own poll, listeners too. What is taken away is given up before
//! the call that tells so to the coordinator, so nobody else has it yet when a listener commits.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Consumer;
use super::assignment::Assigned;
use crate::error::{Error, ErrorKind, Result};
use crate::group::{MemberTerms, Subscription, Turn};
use crate::record::TopicPartition;

/// How often a poll asks what to do before it reads: to give up, to join, to take, to give up what others
/// get, to join again, to take that too.
const TURNS_PER_POLL_MAX: usize = 8;

/// How soon a member that waits gives a sign of life at the earliest, however short its poll interval is.
const SIGN_OF_LIFE_AFTER_MIN: Duration = Duration::from_millis(1);

/// Told what a consumer gets and loses when its group shares out partitions, from within its own poll.
///
/// A listener must not poll. An error is handed on by the poll that the call is made in; the partitions
/// are assigned and taken away all the same.
pub trait RebalanceListener: Send {
    /// These are read from now on, in addition to what was before: in each generation once, also if there
    /// is nothing new. The place to seek.
    ///
    /// # Errors
    /// Whatever is to be told to who polls.
    fn on_partitions_assigned(
        &mut self,
        consumer: &mut Consumer,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        let _ = (consumer, partitions);
        Ok(())
    }

    /// These go to others. They are assigned still, and nobody else has them: the place to commit.
    ///
    /// # Errors
    /// Whatever is to be told to who polls.
    fn on_partitions_revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition])
    -> Result<()>;

    /// These are gone already: the consumer had not polled for too long and others may read them, or the
    /// topic was deleted. What is committed for them is refused.
    ///
    /// # Errors
    /// Whatever is to be told to who polls.
    fn on_partitions_lost(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.on_partitions_revoked(consumer, partitions)
    }
}

/// What a consumer is in its group.
#[derive(Debug)]
pub(super) struct Member {
    subscription: Subscription,
    /// None before it has joined, and once it was removed.
    pub(super) id: Option<String>,
    pub(super) generation: i32,
    /// The log's topics as they were when they were looked at.
    topics_version: u64,
}

/// What a listener is told.
#[derive(Clone, Copy)]
enum Event {
    Assigned,
    Revoked,
    Lost,
}

impl Consumer {
    /// Reads these topics from now on, instead of what was read before: the partitions of each that the
    /// group assigns to this consumer, at its polls. A topic may be made later.
    ///
    /// # Errors
    /// `Invalid` without a group; `Closed` for a log that was opened read-only.
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<()> {
        let names: BTreeSet<_> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.set_subscription(Subscription::Names(names))
    }

    /// Reads all topics whose whole name matches this regular expression, those too that are made later.
    /// Internal topics (`__...`) never do.
    ///
    /// # Errors
    /// `Invalid` if it is no regular expression; those of [`Self::subscribe`].
    pub fn subscribe_pattern(&mut self, pattern: &str) -> Result<()> {
        self.set_subscription(Subscription::pattern(pattern)?)
    }

    /// Leaves the group and reads nothing any more. What it had goes to others; what a static member had
    /// waits for it for as long as its session lasts.
    ///
    /// # Errors
    /// That of the listener; those of [`Self::commit`] for one that commits by itself.
    pub fn unsubscribe(&mut self) -> Result<()> {
        let told = match self.member {
            Some(_) => self.give_up_all(Event::Revoked),
            None => self.commit_by_itself(),
        };
        self.leave();
        self.assigned.clear();
        told
    }

    /// Tells `listener` from now on what the group assigns to this consumer and takes away.
    pub fn set_rebalance_listener(&mut self, listener: impl RebalanceListener + 'static) {
        self.listener = Some(Box::new(listener));
    }

    fn set_subscription(&mut self, subscription: Subscription) -> Result<()> {
        self.group()?;
        self.log.check_writable()?;
        match &mut self.member {
            Some(member) => {
                member.subscription = subscription.clone();
                if let (Some(group), Some(id)) = (&self.options.group, &member.id) {
                    self.log.group_coordinator().resubscribe(group, id, subscription);
                }
            }
            None => {
                self.commit_by_itself()?;
                self.assigned.clear();
                let topics_version = self.log.topics_version();
                self.member = Some(Member { subscription, id: None, generation: -1, topics_version });
            }
        }
        Ok(())
    }

    /// Is a member no more. Nobody is told.
    pub(super) fn leave(&mut self) {
        if let Some(Member { id: Some(id), .. }) = self.member.take()
            && let Some(group) = &self.options.group
        {
            let coordinator = self.log.group_coordinator();
            match self.options.instance_id {
                Some(_) => coordinator.step_away(group, &id),
                None => coordinator.leave(group, &id),
            }
        }
    }

    /// How often a member that waits for records gives a sign of life: twice in the time after which it is
    /// removed.
    pub(super) fn sign_of_life_interval(&self) -> Duration {
        (self.options.poll_interval_max / 2).max(SIGN_OF_LIFE_AFTER_MIN)
    }

    /// Tells the group that this member is there, though it does not poll while it waits.
    pub(super) fn give_sign_of_life(&self) {
        if let Some(Member { id: Some(id), .. }) = &self.member
            && let Some(group) = &self.options.group
        {
            self.log.group_coordinator().note_sign_of_life(group, id);
        }
    }

    /// Does what the group wants of this member now.
    pub(super) fn take_part(&mut self) -> Result<()> {
        if self.member.is_none() {
            return Ok(());
        }
        if self.is_rebalancing {
            return Err(Error::new(ErrorKind::Invalid, "a rebalance listener must not poll"));
        }
        self.drop_deleted()?;
        for _ in 0..TURNS_PER_POLL_MAX {
            if self.member.is_none() {
                // A listener has unsubscribed.
                break;
            }
            let asked = self.ask();
            // The closing has disbanded the group: nothing was taken away from this member.
            self.log.check_not_closed()?;
            if asked.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
                // What another consumer of its name has is not its own any more.
                self.give_up_all(Event::Lost)?;
            }
            match asked? {
                Turn::GoOn => break,
                Turn::GiveUp => self.give_up_all(Event::Revoked)?,
                Turn::Take { generation, partitions } => self.take(generation, &partitions)?,
                Turn::Lost => {
                    let member = self.member.as_mut().expect("only members ask");
                    (member.id, member.generation) = (None, -1);
                    self.give_up_all(Event::Lost)?;
                }
            }
        }
        Ok(())
    }

    /// Asks the coordinator what to do; joins where it is no member.
    fn ask(&mut self) -> Result<Turn> {
        let group = self.group()?.to_owned();
        let member = self.member.as_mut().expect("only members ask");
        let id = match &member.id {
            Some(id) => id.clone(),
            None => {
                let terms = MemberTerms {
                    client_id: self.options.client_id.clone(),
                    subscription: member.subscription.clone(),
                    assignor: self.options.assignor,
                    poll_interval_max: self.options.poll_interval_max,
                    instance_id: self.options.instance_id.clone(),
                    session_timeout: self.options.session_timeout,
                };
                let id = self.log.group_coordinator().join(&self.log, &group, terms)?;
                member.id.insert(id).clone()
            }
        };
        let assigned = &self.assigned;
        let owned = || assigned.iter().map(|assigned| assigned.name().clone()).collect();
        let instance = self.options.instance_id.as_deref();
        self.log.group_coordinator().poll(&self.log, &group, &id, instance, &owned)
    }

    /// Has these partitions from now on; tells the coordinator if that took something away.
    fn take(&mut self, generation: i32, partitions: &[TopicPartition]) -> Result<()> {
        let member = self.member.as_mut().expect("only members take");
        member.generation = generation;
        let id = member.id.clone();
        let is_kept = |assigned: &Assigned| partitions.contains(assigned.name());
        let names =
            |assigned: &[Assigned]| -> Vec<_> { assigned.iter().map(|one| one.name().clone()).collect() };
        let mut revoked = names(&self.assigned);
        revoked.retain(|name| !partitions.contains(name));
        let mut outcome = Ok(());
        if !revoked.is_empty() {
            outcome = self.tell(Event::Revoked, &revoked);
            if self.member.as_ref().is_none_or(|member| member.id != id) {
                // The listener has left the group, and perhaps has other partitions now.
                return outcome;
            }
            self.assigned.retain(is_kept);
            if let (Some(group), Some(Member { id: Some(id), .. })) = (&self.options.group, &self.member) {
                self.log.group_coordinator().rejoin(group, id);
            }
        }
        let is_new = |name: &&TopicPartition| self.assigned.iter().all(|assigned| assigned.name() != *name);
        let new: Vec<_> = partitions.iter().filter(is_new).cloned().collect();
        for name in &new {
            // One that was deleted meanwhile is taken away by the next generation.
            if let Ok(partition) =
                self.log.topic(&name.topic).and_then(|topic| topic.partition(name.partition))
            {
                self.assigned.push(Assigned::new(partition));
            }
        }
        self.turn = 0;
        outcome.and(self.tell(Event::Assigned, &new))
    }

    /// Gives up all partitions.
    fn give_up_all(&mut self, event: Event) -> Result<()> {
        let all: Vec<_> = self.assigned.iter().map(|assigned| assigned.name().clone()).collect();
        if all.is_empty() {
            return Ok(());
        }
        match event {
            // While they are assigned still, they can be committed.
            Event::Revoked => {
                let told = self.tell(event, &all);
                if self.member.is_some() {
                    self.assigned.clear();
                }
                told
            }
            Event::Assigned | Event::Lost => {
                self.assigned.clear();
                self.tell(event, &all)
            }
        }
    }

    /// Lets go of partitions whose topics were deleted, or made again.
    fn drop_deleted(&mut self) -> Result<()> {
        let version = self.log.topics_version();
        let member = self.member.as_mut().expect("only members lose topics");
        if member.topics_version == version {
            return Ok(());
        }
        member.topics_version = version;
        let log = self.log.clone();
        let is_there = |assigned: &Assigned| {
            let TopicPartition { topic, partition } = assigned.name();
            let found = log.topic(topic).and_then(|topic| topic.partition(*partition));
            found.is_ok_and(|found| assigned.is_of(&found))
        };
        let gone: Vec<_> = self.assigned.iter().filter(|assigned| !is_there(assigned)).collect();
        let gone: Vec<_> = gone.into_iter().map(|assigned| assigned.name().clone()).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.assigned.retain(is_there);
        // A topic that was made again under its name has the same partitions, to be shared out anew.
        if let (Some(group), Some(Member { id: Some(id), .. })) = (&self.options.group, &self.member) {
            self.log.group_coordinator().rejoin(group, id);
        }
        self.tell(Event::Lost, &gone)
    }

    fn tell(&mut self, event: Event, partitions: &[TopicPartition]) -> Result<()> {
        let committed = match event {
            Event::Revoked => self.commit_by_itself(),
            Event::Assigned | Event::Lost => Ok(()),
        };
        // The listener gets the consumer, and so is not in it meanwhile.
        let Some(mut listener) = self.listener.take() else { return committed };
        self.is_rebalancing = true;
        let told = match event {
            Event::Assigned => listener.on_partitions_assigned(self, partitions),
            Event::Revoked => listener.on_partitions_revoked(self, partitions),
            Event::Lost => listener.on_partitions_lost(self, partitions),
        };
        self.is_rebalancing = false;
        self.listener.get_or_insert(listener);
        committed.and(told)
    }
}
