//! The offsets that consumer groups have committed with the broker.

use hashbrown::HashMap;

use super::ImportedTopic;
use super::broker_directory::{BrokerDirectory, OFFSETS_TOPIC};
use super::decisions::Decisions;
use crate::error::Result;
use crate::group::{CommittedOffsets, OffsetCommit, offset_commits, offsets_partition};
use crate::log::Log;
use crate::record::{Offset, TopicId};
use crate::storage::SyncPurpose;

/// How many offsets go into a batch.
const COMMITS_PER_BATCH_MAX: usize = 1000;

/// Commits here what was committed there for these topics, but for negative offsets: Kafka's consumers take them for
/// none. Returns how many offsets that were.
pub(super) fn import(
    log: &Log,
    broker: &BrokerDirectory,
    topics: &[ImportedTopic],
    decisions: &mut Decisions<'_>,
) -> Result<usize> {
    let Some(topic) = broker.internal(OFFSETS_TOPIC) else { return Ok(0) };
    let ids: HashMap<&str, TopicId> = topics.iter().map(|topic| (topic.name.as_str(), topic.id)).collect();
    let mut theirs = CommittedOffsets::default();
    for mut copy in decisions.copies_of(log, topic)? {
        copy.end_transactions(log, decisions)?;
        copy.partition.close()?;
        theirs.read_partition(&copy.partition)?;
    }
    let ours = CommittedOffsets::read(log)?;
    let mut count = 0;
    let mut groups: Vec<_> = theirs.groups().collect();
    groups.sort_unstable();
    for group in groups {
        let mut commits: Vec<_> = theirs
            .group(group)
            .filter(|(partition, theirs)| ours.get(group, partition).is_none() && theirs.offset >= Offset(0))
            .filter_map(|(partition, committed)| {
                let topic_id = *ids.get(&*partition.topic)?;
                let is_of_it = committed.topic_id.is_none_or(|id| id == topic_id);
                let (offset, metadata) = (committed.offset, committed.metadata.clone());
                is_of_it.then(|| OffsetCommit { partition: partition.clone(), topic_id, offset, metadata })
            })
            .collect();
        commits.sort_unstable_by(|one, other| one.partition.cmp(&other.partition));
        for commits in commits.chunks(COMMITS_PER_BATCH_MAX) {
            let partition = offsets_partition(log)?;
            partition.append(offset_commits(group, commits, log.clock().now())?)?;
            log.flush(&[partition], SyncPurpose::Records).wait()?;
        }
        count += commits.len();
    }
    Ok(count)
}
