//! As even as it can be, with as little moved as possible.
//!
//! 1. Everyone keeps what they have. Of what several claim, the newest generation's claim counts; in one
//!    generation none does.
//! 2. What nobody has goes to whoever has least, topics that few want first.
//! 3. While somebody has two more than another who wants a topic of theirs, one partition moves, from
//!    those who have most to those who have least.
//!
//! Each move makes the squares of the loads add up to less, so there is an end. Then no partition can
//! move to anyone who has two fewer, which is Kafka's measure. Where all want the same topics, loads
//! differ by one at most and no more moved than had to.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::{Assignment, Candidate, PartitionCounts, in_order, partitions_of};
use crate::record::TopicPartition;

pub(super) fn assign(members: &[Candidate<'_>], topics: &PartitionCounts<'_>) -> Assignment {
    let mut shares = Shares::kept(in_order(members), topics);
    shares.give_out(topics);
    while shares.move_one() {}
    shares.into_assignment()
}

/// Takes out of an assignment what somebody else claims to have: that is given up first.
pub(super) fn withhold_claimed(assignment: &mut Assignment, members: &[Candidate<'_>]) {
    let mut claims = HashMap::<&TopicPartition, Vec<&str>>::new();
    for member in members {
        for partition in member.owned {
            claims.entry(partition).or_default().push(member.id);
        }
    }
    for (id, partitions) in assignment.iter_mut() {
        let is_free = |partition: &TopicPartition| {
            claims.get(partition).is_none_or(|claimants| claimants.iter().all(|claimant| claimant == id))
        };
        partitions.retain(is_free);
    }
}

/// What everyone has so far; members are named by their place.
struct Shares<'m, 'a> {
    members: Vec<&'m Candidate<'a>>,
    /// For each member and topic the partitions' numbers.
    held: Vec<HashMap<&'a str, BTreeSet<Held>>>,
    loads: Vec<usize>,
}

/// A partition that a member holds; those that it had before come last, and of each kind in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    is_new: bool,
    partition: TopicPartition,
}

impl<'m, 'a> Shares<'m, 'a> {
    /// What everyone keeps.
    fn kept(members: Vec<&'m Candidate<'a>>, topics: &PartitionCounts<'a>) -> Self {
        let count = members.len();
        let mut shares = Self { members, held: vec![HashMap::new(); count], loads: vec![0; count] };
        for (partition, owner) in shares.owners() {
            let topic = topics.get_key_value(partition.topic.as_str());
            let topic = topic.filter(|(_, count)| (0..**count).contains(&partition.partition.0));
            if let Some((topic, _)) = topic.filter(|(topic, _)| shares.members[owner].topics.contains(*topic))
            {
                shares.give(owner, topic, partition.clone(), false);
            }
        }
        shares
    }

    /// Whose each claimed partition is.
    fn owners(&self) -> HashMap<&'a TopicPartition, usize> {
        let mut claims = HashMap::<&TopicPartition, (i32, Option<usize>)>::new();
        for (place, member) in self.members.iter().enumerate() {
            for partition in member.owned {
                let claim = claims.entry(partition).or_insert((member.generation, Some(place)));
                if claim.1 != Some(place) && claim.0 <= member.generation {
                    let is_newer = claim.0 < member.generation;
                    *claim = (member.generation, is_newer.then_some(place));
                }
            }
        }
        claims.into_iter().filter_map(|(partition, (_, owner))| Some((partition, owner?))).collect()
    }

    fn give(&mut self, place: usize, topic: &'a str, partition: TopicPartition, is_new: bool) {
        self.held[place].entry(topic).or_default().insert(Held { is_new, partition });
        self.loads[place] += 1;
    }

    fn count_of(&self, place: usize, topic: &str) -> usize {
        self.held[place].get(topic).map_or(0, BTreeSet::len)
    }

    /// Who may have `topic` and has least; of several whoever has least of that topic.
    fn neediest(&self, topic: &str) -> Option<usize> {
        let wants = |place: &usize| self.members[*place].topics.contains(topic);
        let places = (0..self.members.len()).filter(wants);
        places.min_by_key(|place| (self.loads[*place], self.count_of(*place, topic), *place))
    }

    /// Gives out what nobody has.
    fn give_out(&mut self, topics: &PartitionCounts<'a>) {
        let wanted = |topic: &str| self.members.iter().filter(|member| member.topics.contains(topic)).count();
        let mut order: Vec<_> = topics.iter().map(|(topic, count)| (wanted(topic), *topic, *count)).collect();
        order.sort_unstable();
        for (_, topic, count) in order {
            let held: BTreeSet<TopicPartition> = self
                .held
                .iter()
                .filter_map(|held| held.get(topic))
                .flat_map(|held| held.iter().map(|held| held.partition.clone()))
                .collect();
            for partition in partitions_of(topic, count).filter(|partition| !held.contains(partition)) {
                let Some(place) = self.neediest(topic) else { break };
                self.give(place, topic, partition, true);
            }
        }
    }

    /// Moves one partition to somebody who has two fewer. Says whether there was any to move.
    fn move_one(&mut self) -> bool {
        let mut donors: Vec<usize> = (0..self.members.len()).collect();
        donors.sort_unstable_by_key(|place| (Reverse(self.loads[*place]), *place));
        let found = donors.into_iter().find_map(|donor| {
            let (topic, taker) = self.best_move(donor)?;
            Some((donor, topic, taker))
        });
        let Some((donor, topic, taker)) = found else { return false };
        let held = self.held[donor].get_mut(topic).expect("it was found there");
        // One that was given in this very round before one that it has had, and the last one of these.
        let moved = held.pop_last().expect("a topic that is held has a partition");
        self.loads[donor] -= 1;
        self.give(taker, topic, moved.partition, true);
        true
    }

    /// The topic of which `donor` is to give one up, and to whom: one that it has but now, else one of
    /// which it has most.
    fn best_move(&self, donor: usize) -> Option<(&'a str, usize)> {
        let mut topics: Vec<_> = self.held[donor].iter().filter(|(_, held)| !held.is_empty()).collect();
        topics.sort_unstable_by_key(|(topic, held)| {
            let has_new = held.last().is_some_and(|held| held.is_new);
            Reverse((has_new, held.len(), **topic))
        });
        topics.into_iter().find_map(|(topic, _)| {
            let taker = self.neediest(topic)?;
            (self.loads[taker] + 2 <= self.loads[donor]).then_some((*topic, taker))
        })
    }

    fn into_assignment(self) -> Assignment {
        let partitions = |held: HashMap<&str, BTreeSet<Held>>| {
            let mut partitions: Vec<_> = held.into_values().flatten().map(|held| held.partition).collect();
            partitions.sort_unstable();
            partitions
        };
        let ids = self.members.iter().map(|member| member.id.to_owned());
        ids.zip(self.held.into_iter().map(partitions)).collect()
    }
}
