//! The batches that are appended to `__consumer_offsets`.

use super::format::{Key, METADATA_BYTES_MAX, Value};
use super::metadata::{self, GroupRecord};
use crate::batch::{BatchBuilder, Compression, SealedBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Offset, Timestamp, TopicId, TopicPartition};

/// Bytes that the name of a group may have: what Kafka's format counts.
const GROUP_BYTES_MAX: usize = i16::MAX as usize;

/// An offset to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition that was read.
    pub partition: TopicPartition,
    /// The id of its topic.
    pub topic_id: TopicId,
    /// The next offset to be read.
    pub offset: Offset,
    /// What is kept with it, for whoever reads it: at most 4,096 bytes.
    pub metadata: String,
}

/// The batch for `__consumer_offsets` that commits these offsets of `group`. Appended within a
/// transaction it commits them with that.
///
/// # Errors
/// `Invalid` if the group's name is empty or longer than Kafka's format counts, there are no commits, an offset is
/// negative, or the metadata of one is too long.
pub fn offset_commits(group: &str, commits: &[OffsetCommit], now: Timestamp) -> Result<SealedBatch> {
    check_group_name(group)?;
    if commits.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("no offsets to commit for group {group}")));
    }
    let mut builder = BatchBuilder::new(Compression::None);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for commit in commits {
        key.clear();
        value.clear();
        let TopicPartition { topic, partition } = &commit.partition;
        if commit.offset < Offset(0) {
            let what = format!("group {group}, {topic}-{partition}: offset {} is negative", commit.offset);
            return Err(Error::new(ErrorKind::Invalid, format!("{what}, and so no record's")));
        }
        let length = commit.metadata.len();
        if length > METADATA_BYTES_MAX {
            let what = format!("group {group}, {topic}-{partition}: metadata of {length} bytes");
            let what = format!("{what}; at most {METADATA_BYTES_MAX} are allowed");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Key { group, topic, partition: *partition }.encode(&mut key);
        let value_of = Value {
            offset: commit.offset,
            leader_epoch: None,
            topic_id: Some(commit.topic_id),
            committed_at: now,
            metadata: &commit.metadata,
        };
        value_of.encode(&mut value);
        push(&mut builder, group, now, &key, Some(&value))?;
    }
    Ok(builder.seal())
}

/// The batch that says what `group` is made of from now on.
pub(super) fn group_record(group: &str, record: &GroupRecord, now: Timestamp) -> Result<SealedBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    push(&mut builder, group, now, &metadata::encode_key(group), Some(&record.encode()))?;
    Ok(builder.seal())
}

/// The batch that forgets offsets of `group`, and the group itself if that is asked for.
pub(super) fn tombstones(
    group: &str,
    partitions: &[TopicPartition],
    is_group_gone: bool,
    now: Timestamp,
) -> Result<SealedBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut key = Vec::new();
    for TopicPartition { topic, partition } in partitions {
        key.clear();
        Key { group, topic, partition: *partition }.encode(&mut key);
        push(&mut builder, group, now, &key, None)?;
    }
    if is_group_gone {
        push(&mut builder, group, now, &metadata::encode_key(group), None)?;
    }
    Ok(builder.seal())
}

fn push(
    builder: &mut BatchBuilder,
    group: &str,
    now: Timestamp,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<()> {
    let pushed = builder.push(now, Some(key), value, &[]);
    pushed.map_err(|error| error.within(format_args!("group {group}")))
}

/// # Errors
/// `Invalid` for a name that Kafka's format does not hold.
pub(crate) fn check_group_name(group: &str) -> Result<()> {
    if group.is_empty() || group.len() > GROUP_BYTES_MAX {
        let context = format!("group name of {} bytes; 1 to {GROUP_BYTES_MAX} are allowed", group.len());
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    Ok(())
}
