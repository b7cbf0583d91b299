//! What a group is made of, in `__consumer_offsets`, in the bytes of Kafka's `GroupMetadataKey.json`,
//! `GroupMetadataValue.json` and, within them, `ConsumerProtocolSubscription.json` and
//! `ConsumerProtocolAssignment.json`.
//!
//! All integers are big-endian; a string is its length (`i16`, -1 for null) and its UTF-8 bytes, bytes are
//! their length (`i32`) and themselves, an array is its count (`i32`) and its elements.
//!
//! | key | |
//! |---|---|
//! | version | `i16`: 2 |
//! | group | string |
//!
//! | value | |
//! |---|---|
//! | version | `i16`: 0 to 4; written: 3, the newest that Kafka's tools before 4 read |
//! | protocol type | string: `consumer` |
//! | generation | `i32` |
//! | protocol | nullable string: the assignor |
//! | leader | nullable string: a member |
//! | state timestamp | `i64`, ms, from version 2 on |
//! | members | array |
//!
//! | member | |
//! |---|---|
//! | id | string |
//! | instance id | nullable string, from version 3 on: the name of a static member |
//! | client id | string |
//! | client host | string: `/127.0.0.1` |
//! | rebalance timeout | `i32`, ms, from version 1 on; ours: the longest time between two polls |
//! | session timeout | `i32`, ms; ours: the same |
//! | subscription | bytes: version (`i16`, 1), topics (array of strings), user data (null), what the member had (array of: topic, array of `i32`) |
//! | assignment | bytes: version (`i16`, 1), partitions (array of: topic, array of `i32`), user data (null) |
//!
//! Version 4 is flexible, and is read. A null value says that the group is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::format::put_string;
use crate::message_reader::MessageReader;
use crate::record::{PartitionId, Timestamp, TopicPartition};

const KEY_VERSION: i16 = 2;
const VALUE_VERSION: i16 = 3;
const VALUE_VERSION_READ_MAX: i16 = 4;
const PROTOCOL_VERSION: i16 = 1;
const PROTOCOL_TYPE: &str = "consumer";

/// Members are in the same process.
const CLIENT_HOST: &str = "/127.0.0.1";

/// What is written down of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupRecord {
    pub(super) generation: i32,
    /// The name of the assignor; none without members.
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// Since when it is so.
    pub(super) since: Option<Timestamp>,
    pub(super) members: Vec<MemberRecord>,
}

/// What is written down of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberRecord {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) poll_interval_max: Duration,
    pub(super) topics: Vec<String>,
    pub(super) assigned: Vec<TopicPartition>,
}

/// The key of a group. Its name must be shorter than an `i16` counts.
pub(super) fn encode_key(group: &str) -> Vec<u8> {
    let mut out = KEY_VERSION.to_be_bytes().to_vec();
    put_string(&mut out, group);
    out
}

/// The group that a key is of; `None` if it is the key of another kind of record, or damaged.
pub(super) fn decode_key(bytes: &[u8]) -> Option<&str> {
    let mut input = MessageReader::new(bytes);
    if input.i16()? != KEY_VERSION {
        return None;
    }
    input.nullable_text(false)?
}

impl GroupRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = VALUE_VERSION.to_be_bytes().to_vec();
        put_string(&mut out, PROTOCOL_TYPE);
        out.extend(self.generation.to_be_bytes());
        put_nullable_string(&mut out, self.protocol.as_deref());
        put_nullable_string(&mut out, self.leader.as_deref());
        out.extend(self.since.map_or(-1, |since| since.0).to_be_bytes());
        put_count(&mut out, self.members.len());
        self.members.iter().for_each(|member| member.encode(&mut out));
        out
    }

    /// `None` if the version is newer than those known, or the bytes are damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = MessageReader::new(bytes);
        let version = input.i16()?;
        if !(0..=VALUE_VERSION_READ_MAX).contains(&version) {
            return None;
        }
        let is_flexible = version >= 4;
        input.nullable_text(is_flexible)??;
        let generation = input.i32()?;
        let protocol = input.nullable_text(is_flexible)?.map(str::to_owned);
        let leader = input.nullable_text(is_flexible)?.map(str::to_owned);
        let since = if version >= 2 { input.i64()? } else { -1 };
        let count = input.length(is_flexible, MessageReader::i32)??;
        let members: Option<_> = (0..count).map(|_| MemberRecord::decode(&mut input, version)).collect();
        if is_flexible {
            input.skip_tagged_fields()?;
        }
        let since = (since >= 0).then_some(Timestamp(since));
        Some(Self { generation, protocol, leader, since, members: members? })
    }
}

impl MemberRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        let timeout = i32::try_from(self.poll_interval_max.as_millis()).unwrap_or(i32::MAX);
        put_string(out, &self.id);
        put_nullable_string(out, self.instance_id.as_deref());
        put_string(out, &self.client_id);
        put_string(out, CLIENT_HOST);
        out.extend(timeout.to_be_bytes());
        out.extend(timeout.to_be_bytes());
        put_bytes(out, |out| {
            out.extend(PROTOCOL_VERSION.to_be_bytes());
            put_count(out, self.topics.len());
            self.topics.iter().for_each(|topic| put_string(out, topic));
            put_null(out);
            put_partitions(out, &self.assigned);
        });
        put_bytes(out, |out| {
            out.extend(PROTOCOL_VERSION.to_be_bytes());
            put_partitions(out, &self.assigned);
            put_null(out);
        });
    }

    fn decode(input: &mut MessageReader<'_>, version: i16) -> Option<Self> {
        let is_flexible = version >= 4;
        let id = input.nullable_text(is_flexible)??.to_owned();
        let instance_id = if version >= 3 { input.nullable_text(is_flexible)? } else { None };
        let client_id = input.nullable_text(is_flexible)??.to_owned();
        input.nullable_text(is_flexible)??;
        let rebalance_timeout = if version >= 1 { Some(input.i32()?) } else { None };
        let session_timeout = input.i32()?;
        let subscription = take_bytes(input, is_flexible)?;
        let assignment = take_bytes(input, is_flexible)?;
        if is_flexible {
            input.skip_tagged_fields()?;
        }
        let timeout = rebalance_timeout.filter(|timeout| *timeout >= 0).unwrap_or(session_timeout);
        Some(Self {
            id,
            client_id,
            instance_id: instance_id.map(str::to_owned),
            poll_interval_max: Duration::from_millis(u64::try_from(timeout).unwrap_or(0)),
            topics: decode_subscription(subscription)?,
            assigned: decode_assignment(assignment)?,
        })
    }
}

fn take_bytes<'a>(input: &mut MessageReader<'a>, is_flexible: bool) -> Option<&'a [u8]> {
    let length = input.length(is_flexible, MessageReader::i32)??;
    input.take(length)
}

/// The topics of a subscription. Somebody else's may be empty.
fn decode_subscription(bytes: &[u8]) -> Option<Vec<String>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut input = MessageReader::new(bytes);
    input.i16()?;
    let count = usize::try_from(input.i32()?).ok()?;
    (0..count).map(|_| Some(input.nullable_text(false)??.to_owned())).collect()
}

/// The partitions of an assignment. Somebody else's may be empty.
fn decode_assignment(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    let mut partitions = Vec::new();
    if bytes.is_empty() {
        return Some(partitions);
    }
    let mut input = MessageReader::new(bytes);
    input.i16()?;
    for _ in 0..input.i32()? {
        let topic = input.nullable_text(false)??;
        for _ in 0..input.i32()? {
            partitions.push(TopicPartition::new(topic, PartitionId(input.i32()?)));
        }
    }
    Some(partitions)
}

fn put_nullable_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.extend((-1i16).to_be_bytes()),
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(i32::try_from(count).expect("topics and members are fewer").to_be_bytes());
}

fn put_null(out: &mut Vec<u8>) {
    out.extend((-1i32).to_be_bytes());
}

/// Puts what `put` puts behind its length.
fn put_bytes(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_count(out, 0);
    put(out);
    let length = i32::try_from(out.len() - start - 4).expect("a batch is smaller");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put_partitions(out: &mut Vec<u8>, partitions: &[TopicPartition]) {
    let mut topics = BTreeMap::<&str, Vec<PartitionId>>::new();
    for TopicPartition { topic, partition } in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    put_count(out, topics.len());
    for (topic, partitions) in topics {
        put_string(out, topic);
        put_count(out, partitions.len());
        partitions.iter().for_each(|partition| out.extend(partition.0.to_be_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> GroupRecord {
        let partition = |number| TopicPartition::new("in", PartitionId(number));
        let member = MemberRecord {
            id: "m1".to_owned(),
            client_id: "c".to_owned(),
            instance_id: None,
            poll_interval_max: Duration::from_secs(1),
            topics: vec!["in".to_owned()],
            assigned: vec![partition(0), partition(2)],
        };
        GroupRecord {
            generation: 7,
            protocol: Some("range".to_owned()),
            leader: Some("m1".to_owned()),
            since: Some(Timestamp(258)),
            members: vec![member],
        }
    }

    const PARTITIONS: &[u8] = b"\0\0\0\x01\0\x02in\0\0\0\x02\0\0\0\0\0\0\0\x02";

    // Put together by hand from Kafka's GroupMetadataValue.json and ConsumerProtocol*.json.
    #[test]
    fn a_group_has_kafkas_bytes() {
        assert_eq!(encode_key("g1"), b"\0\x02\0\x02g1");
        assert_eq!(decode_key(b"\0\x02\0\x02g1"), Some("g1"));
        assert_eq!(decode_key(b"\0\x01\0\x02g1\0\x02in\0\0\0\x07"), None, "an offset");
        let subscription =
            [b"\0\0\0\x22\0\x01\0\0\0\x01\0\x02in\xff\xff\xff\xff".as_slice(), PARTITIONS].concat();
        let assignment = [b"\0\0\0\x1a\0\x01".as_slice(), PARTITIONS, b"\xff\xff\xff\xff"].concat();
        let expected = [
            b"\0\x03\0\x08consumer\0\0\0\x07\0\x05range\0\x02m1\0\0\0\0\0\0\x01\x02\0\0\0\x01".as_slice(),
            b"\0\x02m1\xff\xff\0\x01c\0\x0a/127.0.0.1\0\0\x03\xe8\0\0\x03\xe8",
            &subscription,
            &assignment,
        ]
        .concat();
        assert_eq!(example().encode(), expected);
        assert_eq!(GroupRecord::decode(&expected), Some(example()));
        for length in 0..expected.len() {
            assert_eq!(GroupRecord::decode(&expected[..length]), None, "{length}");
        }
        let empty = GroupRecord { generation: 8, since: Some(Timestamp(1)), ..GroupRecord::default() };
        let expected = b"\0\x03\0\x08consumer\0\0\0\x08\xff\xff\xff\xff\0\0\0\0\0\0\0\x01\0\0\0\0";
        assert_eq!(empty.encode(), expected);
        assert_eq!(GroupRecord::decode(expected), Some(empty));
    }

    #[test]
    fn a_static_member_is_written_with_its_name() {
        let mut group = example();
        let dynamic = group.encode();
        group.members[0].instance_id = Some("shop-1".to_owned());
        let named = group.encode();
        let at =
            dynamic.windows(8).position(|bytes| bytes == b"\0\x02m1\xff\xff\0\x01").expect("a member") + 4;
        assert_eq!(named, [&dynamic[..at], b"\0\x06shop-1", &dynamic[at + 2..]].concat());
        assert_eq!(GroupRecord::decode(&named), Some(group));
    }

    #[test]
    fn older_and_flexible_versions_are_read_and_newer_ones_are_not() {
        let head = |version: u8| [&[0, version][..], b"\0\x08consumer\0\0\0\x07\0\x05range\0\x02m1"].concat();
        let body = [b"\0\0\0\0\0\0\0\x1a\0\x01".as_slice(), PARTITIONS, b"\xff\xff\xff\xff"].concat();
        let member = |timeouts: &[u8]| [b"\0\x02m1\0\x01c\0\x01h".as_slice(), timeouts, &body].concat();
        let one = b"\0\0\0\x01";
        let zero = [&head(0), &one[..], &member(b"\0\0\x03\xe8")].concat();
        let mut expected = example();
        expected.since = None;
        expected.members[0].topics.clear();
        assert_eq!(GroupRecord::decode(&zero).as_ref(), Some(&expected), "version 0");
        let first = [&head(1), &one[..], &member(b"\0\0\x03\xe8\0\0\0\x05")].concat();
        assert_eq!(GroupRecord::decode(&first), Some(expected.clone()), "version 1");
        let flexible = [
            b"\0\x04\x09consumer\0\0\0\x07\x06range\x03m1\0\0\0\0\0\0\x01\x02\x02".as_slice(),
            b"\x03m1\0\x02c\x02h\0\0\x03\xe8\0\0\0\x05\x01\x1b\0\x01",
            PARTITIONS,
            b"\xff\xff\xff\xff\0\0",
        ]
        .concat();
        expected.since = Some(Timestamp(258));
        assert_eq!(GroupRecord::decode(&flexible), Some(expected));
        assert_eq!(GroupRecord::decode(&[&[0, 5], &flexible[2..]].concat()), None);
    }
}
