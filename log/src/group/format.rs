//! The offsets in `__consumer_offsets`; groups are in [`super::metadata`]. All integers are big-endian; a string is
//! its length (`i16`) and its UTF-8 bytes. From Kafka's `OffsetCommitKey.json` and `OffsetCommitValue.json`.
//!
//! | key | |
//! |---|---|
//! | version | `i16`: 0 or 1 (other versions are keys of other records); written: 1 |
//! | group | string |
//! | topic | string |
//! | partition | `i32` |
//!
//! | value | |
//! |---|---|
//! | version | `i16`: 0 to 4; written: 3 |
//! | offset | `i64`: the next one to be read |
//! | leader epoch | `i32`, from version 3 on; -1 without |
//! | metadata | string; ours: `topic-id:`, the topic's id and, behind a space, what the consumer gave |
//! | commit timestamp | `i64`, ms |
//! | expire timestamp | `i64`, ms, in version 1 only |
//!
//! A null value forgets the offset. The topic's id goes with the offset, so that an offset in a topic
//! that was deleted and made again is not believed; in the metadata, since version 3 is the newest that
//! Kafka's tools before 4 read.
//!
//! Version 4, which Kafka 4 writes, is flexible: the metadata has a compact length, and the topic's id is
//! the tagged field 0. It is read.

use std::str::FromStr;

use uuid::Uuid;

use crate::message_reader::MessageReader;
use crate::record::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId};

const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 3;
const VALUE_VERSION_READ_MAX: i16 = 4;
const TOPIC_ID_TAG: u32 = 0;
const TOPIC_ID_PREFIX: &str = "topic-id:";

/// How many characters a topic's id has.
const TOPIC_ID_LENGTH: usize = 22;

/// Bytes of metadata that a consumer may commit with an offset: Kafka's default.
pub(super) const METADATA_BYTES_MAX: usize = 4096;

/// The key of a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
    pub(super) partition: PartitionId,
}

impl<'a> Key<'a> {
    /// Appends the key. The names must be shorter than an `i16` counts.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&KEY_VERSION.to_be_bytes());
        put_string(out, self.group);
        put_string(out, self.topic);
        out.extend_from_slice(&self.partition.0.to_be_bytes());
    }

    /// Reads a key; `None` if it is that of another kind of record, or damaged.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut input = MessageReader::new(bytes);
        if !(0..=KEY_VERSION).contains(&input.i16()?) {
            return None;
        }
        Some(Self {
            group: input.nullable_text(false)??,
            topic: input.nullable_text(false)??,
            partition: PartitionId(input.i32()?),
        })
    }
}

/// The value of a committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) offset: Offset,
    pub(super) leader_epoch: Option<LeaderEpoch>,
    /// `None` where somebody else than Lotic committed.
    pub(super) topic_id: Option<TopicId>,
    pub(super) committed_at: Timestamp,
    /// What the consumer gave, at most [`METADATA_BYTES_MAX`] bytes where it is written.
    pub(super) metadata: &'a str,
}

impl<'a> Value<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VALUE_VERSION.to_be_bytes());
        out.extend_from_slice(&self.offset.0.to_be_bytes());
        out.extend_from_slice(&self.leader_epoch.map_or(-1, |epoch| epoch.0).to_be_bytes());
        match (self.topic_id, self.metadata) {
            (Some(id), "") => put_string(out, &format!("{TOPIC_ID_PREFIX}{id}")),
            (Some(id), metadata) => put_string(out, &format!("{TOPIC_ID_PREFIX}{id} {metadata}")),
            (None, metadata) => put_string(out, metadata),
        }
        out.extend_from_slice(&self.committed_at.0.to_be_bytes());
    }

    /// Reads a value; `None` if its version is newer than those known, or it is damaged.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut input = MessageReader::new(bytes);
        let version = input.i16()?;
        if !(0..=VALUE_VERSION_READ_MAX).contains(&version) {
            return None;
        }
        let is_flexible = version >= 4;
        let offset = Offset(input.i64()?);
        let leader_epoch = if version >= 3 { input.i32()? } else { -1 };
        let metadata = input.nullable_text(is_flexible)??;
        let committed_at = Timestamp(input.i64()?);
        let (mut topic_id, metadata) = match split_topic_id(metadata) {
            Some((id, rest)) => (Some(id), rest),
            None => (None, metadata),
        };
        if is_flexible {
            input.tagged_fields(|tag, bytes| {
                if let (TOPIC_ID_TAG, Ok(id)) = (tag, bytes.try_into()) {
                    topic_id = Some(TopicId(Uuid::from_bytes(id)));
                }
            })?;
        }
        let leader_epoch = (leader_epoch >= 0).then_some(LeaderEpoch(leader_epoch));
        Some(Self { offset, leader_epoch, topic_id, committed_at, metadata })
    }
}

/// The id of the topic and what stands behind it.
fn split_topic_id(metadata: &str) -> Option<(TopicId, &str)> {
    let (id, rest) = metadata.strip_prefix(TOPIC_ID_PREFIX)?.split_at_checked(TOPIC_ID_LENGTH)?;
    let id = TopicId::from_str(id).ok()?;
    if rest.is_empty() { Some((id, rest)) } else { Some((id, rest.strip_prefix(' ')?)) }
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("names are bounded where they come in");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key<'static> = Key { group: "g1", topic: "in", partition: PartitionId(7) };

    #[test]
    fn a_key_has_kafkas_bytes() {
        let mut bytes = Vec::new();
        KEY.encode(&mut bytes);
        assert_eq!(bytes, b"\0\x01\0\x02g1\0\x02in\0\0\0\x07");
        assert_eq!(Key::decode(&bytes), Some(KEY));
        assert_eq!(Key::decode(b"\0\0\0\x02g1\0\x02in\0\0\0\x07"), Some(KEY), "version 0 is the same");
    }

    #[test]
    fn the_keys_of_other_records_and_cut_ones_are_none() {
        assert_eq!(Key::decode(b"\0\x02\0\x02g1"), None, "group metadata");
        let mut bytes = Vec::new();
        KEY.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Key::decode(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_value_has_kafkas_bytes() {
        let value = Value {
            offset: Offset(258),
            leader_epoch: Some(LeaderEpoch(0)),
            topic_id: Some(TopicId(Uuid::from_u128(0))),
            committed_at: Timestamp(1),
            metadata: "",
        };
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        let expected =
            b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\0\0\x1ftopic-id:AAAAAAAAAAAAAAAAAAAAAA\0\0\0\0\0\0\0\x01";
        assert_eq!(bytes, expected);
        assert_eq!(Value::decode(&bytes), Some(value));
        for length in 0..bytes.len() {
            assert_eq!(Value::decode(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn what_a_consumer_gave_stands_behind_the_topics_id() {
        for metadata in ["", "x", " half way", "topic-id:AAAAAAAAAAAAAAAAAAAAAA"] {
            for topic_id in [None, Some(TopicId(Uuid::from_u128(5)))] {
                let (offset, committed_at) = (Offset(1), Timestamp(2));
                let value = Value { offset, leader_epoch: None, topic_id, committed_at, metadata };
                let mut bytes = Vec::new();
                value.encode(&mut bytes);
                let is_ambiguous = topic_id.is_none() && metadata.starts_with(TOPIC_ID_PREFIX);
                assert_eq!(Value::decode(&bytes) == Some(value), !is_ambiguous, "{metadata:?}");
            }
        }
    }

    #[test]
    fn the_values_of_older_versions_are_read_and_newer_ones_are_not() {
        let (offset, committed_at) = (Offset(5), Timestamp(9));
        let expected = Value { offset, leader_epoch: None, topic_id: None, committed_at, metadata: "meta" };
        let tail = b"\0\0\0\0\0\0\0\x05\0\x04meta\0\0\0\0\0\0\0\x09";
        for version in [0, 1, 2] {
            let mut bytes = vec![0, version];
            bytes.extend(tail);
            if version == 1 {
                bytes.extend(100i64.to_be_bytes());
            }
            assert_eq!(Value::decode(&bytes).as_ref(), Some(&expected), "version {version}");
        }
        assert_eq!(Value::decode(&[&[0, 5], &tail[..]].concat()), None);
    }

    /// From `__consumer_offsets` of a broker of Kafka 4.3.1: committed in a transaction, and by its `Admin`.
    #[test]
    fn the_values_of_kafka_4_are_read() {
        let in_transaction = b"\0\x04\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\x01\0\0\x01\xa1\xfc\x81\x48\xcc\0";
        let committed_at = Timestamp(1_795_237_693_644);
        let (offset, metadata) = (Offset(1), "");
        let expected = Value { offset, leader_epoch: None, topic_id: None, committed_at, metadata };
        assert_eq!(Value::decode(in_transaction), Some(expected));

        let by_admin = b"\0\x04\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\x01\0\0\x01\xa1\xfc\x81\x49\x37\x01\0\x10\x61\x4f\x9e\xed\xb0\x13\x4c\x38\xba\x34\x44\x41\x7a\x36\x25\x18";
        let topic_id = Some("YU-e7bATTDi6NERBejYlGA".parse().expect("it is what partition.metadata says"));
        let committed_at = Timestamp(1_795_237_693_751);
        let expected = Value { offset: Offset(2), leader_epoch: None, topic_id, committed_at, metadata };
        assert_eq!(Value::decode(by_admin), Some(expected));
        for length in 0..by_admin.len() {
            assert_eq!(Value::decode(&by_admin[..length]), None, "{length}");
        }
    }
}
