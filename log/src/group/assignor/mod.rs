//! Who of a group's members reads which partition: pure functions of who there is, what each wants and
//! what each has. From the sources: Kafka's assignors of the same names, KIP-54 and KIP-429.
//!
//! All of them are told everything in order and answer the same whatever the order of a hash table, so a
//! group that is put together again in the same way reads in the same way.

mod range;
mod round_robin;
mod sticky;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::record::{PartitionId, TopicPartition};

/// How the partitions of a group are shared out among its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assignor {
    /// Each topic by itself: its partitions in order, as many next to each other for each member; the
    /// first members get one more where it does not divide. Topics with as many partitions and the same
    /// members go together: who reads partition 3 of one reads partition 3 of the others.
    Range,
    /// The partitions of all topics in order, one for each member in turn.
    RoundRobin,
    /// As even as it can be, and otherwise everyone keeps what they have (KIP-54). A rebalance stops
    /// nobody: what moves is given up first and handed on in the next generation (KIP-429).
    #[default]
    CooperativeSticky,
}

impl Assignor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Range, Self::RoundRobin, Self::CooperativeSticky];

    /// Kafka's name of it, as it stands in a group's metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// The one that Kafka calls so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// Whether members go on with what they have while a rebalance is under way.
    pub fn is_cooperative(self) -> bool {
        self == Self::CooperativeSticky
    }

    /// Shares out the partitions of all topics that any of `members` wants. Who is not among the answers
    /// gets nothing. A cooperative one leaves out what another member still has.
    pub(crate) fn assign(self, members: &[Candidate<'_>], topics: &PartitionCounts<'_>) -> Assignment {
        match self {
            Self::Range => range::assign(members, topics),
            Self::RoundRobin => round_robin::assign(members, topics),
            Self::CooperativeSticky => {
                let mut assignment = sticky::assign(members, topics);
                sticky::withhold_claimed(&mut assignment, members);
                assignment
            }
        }
    }
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A member that partitions are shared out to.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) id: &'a str,
    /// The topics that it wants; those that there are not count for nothing.
    pub(crate) topics: BTreeSet<&'a str>,
    /// What it has, and the generation in which it got that.
    pub(crate) owned: &'a [TopicPartition],
    pub(crate) generation: i32,
}

/// How many partitions each topic has.
pub(crate) type PartitionCounts<'a> = BTreeMap<&'a str, i32>;

/// What each member gets, by its id.
pub(crate) type Assignment = BTreeMap<String, Vec<TopicPartition>>;

/// The members by their ids.
fn in_order<'m, 'a>(members: &'m [Candidate<'a>]) -> Vec<&'m Candidate<'a>> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|member| member.id);
    members
}

fn partitions_of(topic: &str, count: i32) -> impl Iterator<Item = TopicPartition> {
    (0..count).map(move |partition| TopicPartition::new(topic, PartitionId(partition)))
}
