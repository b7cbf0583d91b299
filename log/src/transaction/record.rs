//! What `__transaction_state` holds, in Kafka's bytes (`TransactionLogKey`, `TransactionLogValue`).
//!
//! All numbers are big-endian. Key: version (`i16`, 0), transactional id (length as `i16`, UTF-8).
//!
//! Value of version 1, which is written. "compact" lengths are varints of the length plus one, 0 for
//! null; version 0 has `i16` and `i32` lengths (-1 for null) instead and no tagged fields, and is read.
//!
//! | field | type |
//! |---|---|
//! | version | `i16` |
//! | producer id | `i64` |
//! | producer epoch | `i16` |
//! | timeout in milliseconds | `i32` |
//! | status | `i8` |
//! | partitions | compact nullable array of: topic (compact string), partitions (compact array of `i32`), tagged fields |
//! | last update | `i64`, milliseconds |
//! | start | `i64`, milliseconds |
//! | tagged fields | 2: client transaction version (`i16`) |
//!
//! A record that decides to commit what nobody syncs has a header besides, [`UNSYNCED_HEADER`] without a value. It says
//! so itself, since the topics may be gone, or others, by the time that somebody asks.

use std::collections::BTreeMap;

use crate::batch::RecordView;
use crate::message_reader::MessageReader;
use crate::record::{Header, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicPartition};

/// The internal topic of transactions.
pub(crate) const TRANSACTION_TOPIC: &str = "__transaction_state";

/// The longest transactional id: its length is an `i16`.
pub(super) const TRANSACTIONAL_ID_BYTES_MAX: usize = i16::MAX as usize;

/// The header of a decision that a power cut takes back to the last consistent cut.
const UNSYNCED_HEADER: &str = "lotic-unsynced";

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;

/// Every transaction takes the next producer epoch: what Kafka calls transaction version 2.
const CLIENT_TRANSACTION_VERSION: i16 = 2;
const CLIENT_TRANSACTION_VERSION_TAG: u32 = 2;

/// Where a transaction stands, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
    Dead = 6,
    PrepareEpochFence = 7,
}

impl Status {
    const ALL: [Self; 8] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
        Self::PrepareEpochFence,
    ];

    /// What it becomes once the markers are durable.
    pub(super) fn completed(self) -> Option<Self> {
        match self {
            Self::PrepareCommit => Some(Self::CompleteCommit),
            Self::PrepareAbort => Some(Self::CompleteAbort),
            _ => None,
        }
    }
}

/// The last that was decided for a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionRecord {
    pub(crate) producer_id: ProducerId,
    pub(crate) producer_epoch: ProducerEpoch,
    pub(crate) status: Status,
    /// How long a transaction of this id may be open; `i32::MAX` without an end.
    pub(crate) timeout_ms: i32,
    /// The partitions that are to get markers.
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) updated: Timestamp,
    pub(crate) started: Timestamp,
}

impl TransactionRecord {
    /// The same transaction, its markers being durable.
    pub(super) fn complete(&self, now: Timestamp) -> Option<Self> {
        let status = self.status.completed()?;
        Some(Self { status, partitions: Vec::new(), updated: now, ..*self })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend(VALUE_VERSION.to_be_bytes());
        out.extend(self.producer_id.0.to_be_bytes());
        out.extend(self.producer_epoch.0.to_be_bytes());
        out.extend(self.timeout_ms.to_be_bytes());
        out.push(self.status as u8);
        self.encode_partitions(&mut out);
        out.extend(self.updated.0.to_be_bytes());
        out.extend(self.started.0.to_be_bytes());
        put_varint(&mut out, 1);
        put_varint(&mut out, CLIENT_TRANSACTION_VERSION_TAG);
        put_varint(&mut out, 2);
        out.extend(CLIENT_TRANSACTION_VERSION.to_be_bytes());
        out
    }

    fn encode_partitions(&self, out: &mut Vec<u8>) {
        if self.status == Status::Empty {
            return put_varint(out, 0);
        }
        let mut topics = BTreeMap::<&str, Vec<PartitionId>>::new();
        for TopicPartition { topic, partition } in &self.partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        put_varint(out, topics.len() as u32 + 1);
        for (topic, partitions) in topics {
            put_varint(out, topic.len() as u32 + 1);
            out.extend(topic.as_bytes());
            put_varint(out, partitions.len() as u32 + 1);
            partitions.iter().for_each(|partition| out.extend(partition.0.to_be_bytes()));
            put_varint(out, 0);
        }
    }

    /// `None` for bytes that are no such value, or one of a later version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = MessageReader::new(bytes);
        let is_flexible = match input.i16()? {
            0 => false,
            VALUE_VERSION => true,
            _ => return None,
        };
        let producer_id = ProducerId(input.i64()?);
        let producer_epoch = ProducerEpoch(input.i16()?);
        let timeout_ms = input.i32()?;
        let status = input.take(1)?[0];
        let status = Status::ALL.into_iter().find(|one| *one as u8 == status)?;
        let partitions = read_partitions(&mut input, is_flexible)?;
        let (updated, started) = (Timestamp(input.i64()?), Timestamp(input.i64()?));
        if is_flexible {
            input.skip_tagged_fields()?;
        }
        Some(Self { producer_id, producer_epoch, status, timeout_ms, partitions, updated, started })
    }
}

/// What a record of the table has that decides what nobody syncs.
pub(super) fn unsynced_header() -> Header {
    Header { key: UNSYNCED_HEADER.to_owned(), value: None }
}

/// Whether a record of the table decides what nobody syncs.
pub(crate) fn decides_unsynced(record: &RecordView<'_>) -> bool {
    record.headers.last(UNSYNCED_HEADER).is_some()
}

pub(crate) fn encode_key(transactional_id: &str) -> Vec<u8> {
    let length = transactional_id.len() as i16;
    [&KEY_VERSION.to_be_bytes(), &length.to_be_bytes(), transactional_id.as_bytes()].concat()
}

/// `None` for bytes that are no such key.
pub(super) fn decode_key(bytes: &[u8]) -> Option<String> {
    let mut input = MessageReader::new(bytes);
    if input.i16()? != KEY_VERSION {
        return None;
    }
    let length = input.i16()?;
    input.string(usize::try_from(length).ok()?).map(str::to_owned)
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The partitions of a value.
fn read_partitions(input: &mut MessageReader<'_>, is_flexible: bool) -> Option<Vec<TopicPartition>> {
    let mut partitions = Vec::new();
    let Some(topics) = input.length(is_flexible, MessageReader::i32)? else { return Some(partitions) };
    for _ in 0..topics {
        let length = input.length(is_flexible, |input| input.i16().map(i32::from))??;
        let topic = input.string(length)?;
        for _ in 0..input.length(is_flexible, MessageReader::i32)?? {
            partitions.push(TopicPartition::new(topic, PartitionId(input.i32()?)));
        }
        if is_flexible {
            input.skip_tagged_fields()?;
        }
    }
    Some(partitions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn example() -> TransactionRecord {
        TransactionRecord {
            producer_id: ProducerId(4000),
            producer_epoch: ProducerEpoch(7),
            status: Status::PrepareCommit,
            timeout_ms: 60_000,
            partitions: vec![
                TopicPartition::new("ab", PartitionId(0)),
                TopicPartition::new("ab", PartitionId(2)),
                TopicPartition::new("c", PartitionId(1)),
            ],
            updated: Timestamp(0x0102),
            started: Timestamp(0x0101),
        }
    }

    // Put together by hand from Kafka's TransactionLogValue.json and the rules for flexible versions.
    #[test]
    fn a_value_has_kafkas_bytes() {
        let version_1 = "0001 0000000000000fa0 0007 0000ea60 02
            03 03 6162 03 00000000 00000002 00  02 63 02 00000001 00
            0000000000000102 0000000000000101 01 02 02 0002";
        assert_eq!(example().encode(), hex(version_1));
        assert_eq!(TransactionRecord::decode(&hex(version_1)), Some(example()));
        let version_0 = "0000 0000000000000fa0 0007 0000ea60 02
            00000002 0002 6162 00000002 00000000 00000002  0001 63 00000001 00000001
            0000000000000102 0000000000000101";
        assert_eq!(TransactionRecord::decode(&hex(version_0)), Some(example()));
    }

    #[test]
    fn an_empty_value_has_no_partitions_at_all() {
        let empty = TransactionRecord { status: Status::Empty, partitions: Vec::new(), ..example() };
        let bytes = "0001 0000000000000fa0 0007 0000ea60 00 00
            0000000000000102 0000000000000101 01 02 02 0002";
        assert_eq!(empty.encode(), hex(bytes));
        assert_eq!(TransactionRecord::decode(&hex(bytes)), Some(empty.clone()));
        let version_0 = "0000 0000000000000fa0 0007 0000ea60 00 ffffffff
            0000000000000102 0000000000000101";
        assert_eq!(TransactionRecord::decode(&hex(version_0)), Some(empty));
    }

    #[test]
    fn a_key_has_kafkas_bytes() {
        assert_eq!(encode_key("txn"), hex("0000 0003 74786e"));
        assert_eq!(decode_key(&hex("0000 0003 74786e")), Some("txn".to_owned()));
        assert_eq!(decode_key(&hex("0001 0003 74786e")), None);
        assert_eq!(decode_key(&hex("0000 0004 74786e")), None);
    }

    proptest! {
        #[test]
        fn a_value_is_read_as_it_was_written_and_never_in_part(
            id: i64, epoch: i16, timeout_ms: i32, status in 1..8usize, updated: i64, started: i64,
            partitions in prop::collection::btree_set(("[a-z]{1,200}", 0..300i32), 0..20),
        ) {
            let partition = |(topic, partition): &(String, i32)| {
                TopicPartition::new(topic.clone(), PartitionId(*partition))
            };
            let record = TransactionRecord {
                producer_id: ProducerId(id),
                producer_epoch: ProducerEpoch(epoch),
                status: Status::ALL[status],
                timeout_ms,
                partitions: partitions.iter().map(partition).collect(),
                updated: Timestamp(updated),
                started: Timestamp(started),
            };
            let bytes = record.encode();
            prop_assert_eq!(TransactionRecord::decode(&bytes), Some(record));
            for length in 0..bytes.len() {
                prop_assert_eq!(TransactionRecord::decode(&bytes[..length]), None);
            }
        }
    }
}
