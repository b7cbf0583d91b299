//! Each topic by itself, in ranges.

use super::{Assignment, Candidate, PartitionCounts, in_order, partitions_of};

pub(super) fn assign(members: &[Candidate<'_>], topics: &PartitionCounts<'_>) -> Assignment {
    let members = in_order(members);
    let mut assignment = Assignment::new();
    for (topic, count) in topics {
        let subscribers: Vec<_> = members.iter().filter(|member| member.topics.contains(topic)).collect();
        let mut partitions = partitions_of(topic, *count);
        for (index, member) in subscribers.iter().enumerate() {
            let share = share(*count as usize, subscribers.len(), index);
            assignment.entry(member.id.to_owned()).or_default().extend(partitions.by_ref().take(share));
        }
    }
    assignment
}

/// How many of `count` the member at `index` of so many gets: the first ones take what is left over.
fn share(count: usize, members: usize, index: usize) -> usize {
    count / members + usize::from(index < count % members)
}
