//! One partition for each member in turn.

use super::{Assignment, Candidate, PartitionCounts, in_order, partitions_of};

pub(super) fn assign(members: &[Candidate<'_>], topics: &PartitionCounts<'_>) -> Assignment {
    let members = in_order(members);
    let mut assignment = Assignment::new();
    let mut turn = 0;
    for (topic, count) in topics {
        for partition in partitions_of(topic, *count) {
            // Whoever does not want the topic loses this turn.
            let next = (turn..turn + members.len())
                .map(|place| place % members.len())
                .find(|place| members[*place].topics.contains(topic));
            let Some(place) = next else { break };
            assignment.entry(members[place].id.to_owned()).or_default().push(partition);
            turn = place + 1;
        }
    }
    assignment
}
