//! Producer snapshots, in Kafka's format: what a partition knew of its producers when its end was the
//! offset in the file's name.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..2 | version | `i16`, 1 |
//! | 2..6 | checksum | CRC-32C of everything behind it |
//! | 6..10 | count | `i32`, of the entries that follow |
//!
//! An entry:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | producer id | `i64` |
//! | 8..10 | producer epoch | `i16` |
//! | 10..14 | last sequence | `i32`, -1 without |
//! | 14..22 | last offset | `i64`, -1 without |
//! | 22..26 | offset delta | `i32`, from the first to the last record of the last batch |
//! | 26..34 | timestamp | `i64`, ms, the largest of the last batch |
//! | 34..38 | coordinator epoch | `i32`, -1 if no marker has ended this epoch |
//! | 38..46 | first offset of the open transaction | `i64`, -1 without |
//!
//! As with Kafka, of a producer's batches only the last one is kept. From the source, Kafka's
//! `ProducerSnapshot` message and `ProducerStateManager`.

use std::fmt;

use super::{Producer, ProducerStates, WrittenBatch};
use crate::record::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const VERSION: i16 = 1;
const CHECKSUM_POSITION: usize = 2;
const CHECKED_POSITION: usize = 6;
const HEADER_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;

/// Why a snapshot is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotError {
    /// It is not as long as its count of entries says.
    Length,
    /// It is of a version that is not read here.
    Version(i16),
    /// Its bytes are not those that were checksummed.
    Checksum,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("the producer snapshot is cut off"),
            Self::Version(version) => write!(f, "the producer snapshot has version {version}, not 1"),
            Self::Checksum => f.write_str("the producer snapshot has a wrong checksum"),
        }
    }
}

impl ProducerStates {
    /// The bytes of a snapshot; producers stand in the order of their ids.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut producers: Vec<_> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|(id, _)| **id);
        let mut out = Vec::with_capacity(HEADER_BYTES + producers.len() * ENTRY_BYTES);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(producers.len() as i32).to_be_bytes());
        for (id, producer) in producers {
            encode_entry(*id, producer, &mut out);
        }
        let checksum = crc_fast::crc32_iscsi(&out[CHECKED_POSITION..]);
        out[CHECKSUM_POSITION..CHECKED_POSITION].copy_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads a snapshot.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        if bytes.len() < HEADER_BYTES {
            return Err(SnapshotError::Length);
        }
        let mut fields = Fields { rest: bytes };
        let version = i16::from_be_bytes(fields.take());
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let checksum = u32::from_be_bytes(fields.take());
        if checksum != crc_fast::crc32_iscsi(&bytes[CHECKED_POSITION..]) {
            return Err(SnapshotError::Checksum);
        }
        let count = i32::from_be_bytes(fields.take());
        if usize::try_from(count).ok().and_then(|count| count.checked_mul(ENTRY_BYTES))
            != Some(fields.rest.len())
        {
            return Err(SnapshotError::Length);
        }
        let mut states = Self::default();
        for _ in 0..count {
            states.insert(&mut fields);
        }
        Ok(states)
    }

    fn insert(&mut self, fields: &mut Fields<'_>) {
        let id = ProducerId(i64::from_be_bytes(fields.take()));
        let mut producer = Producer::new(ProducerEpoch(i16::from_be_bytes(fields.take())));
        let last_sequence = Sequence(i32::from_be_bytes(fields.take()));
        let last_offset = Offset(i64::from_be_bytes(fields.take()));
        let offset_delta = i32::from_be_bytes(fields.take());
        producer.timestamp = Timestamp(i64::from_be_bytes(fields.take()));
        producer.coordinator_epoch = i32::from_be_bytes(fields.take());
        let transaction = Offset(i64::from_be_bytes(fields.take()));
        producer.seen = last_offset;
        if last_sequence != Sequence::NONE {
            producer.batches.push_back(WrittenBatch {
                base_sequence: before(last_sequence, offset_delta),
                last_sequence,
                base_offset: last_offset.plus(-i64::from(offset_delta)),
                last_offset,
            });
        }
        if transaction >= Offset(0) {
            producer.transaction = Some(transaction);
            self.open.insert(transaction, id);
        }
        self.producers.insert(id, producer);
    }
}

fn encode_entry(id: ProducerId, producer: &Producer, out: &mut Vec<u8>) {
    let (last_sequence, last_offset, offset_delta) = match producer.batches.back() {
        Some(batch) => (batch.last_sequence, batch.last_offset, batch.last_offset.0 - batch.base_offset.0),
        None => (Sequence::NONE, Offset(-1), 0),
    };
    out.extend_from_slice(&id.0.to_be_bytes());
    out.extend_from_slice(&producer.epoch.0.to_be_bytes());
    out.extend_from_slice(&last_sequence.0.to_be_bytes());
    out.extend_from_slice(&last_offset.0.to_be_bytes());
    out.extend_from_slice(&(offset_delta as i32).to_be_bytes());
    out.extend_from_slice(&producer.timestamp.0.to_be_bytes());
    out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
    out.extend_from_slice(&producer.transaction.unwrap_or(Offset(-1)).0.to_be_bytes());
}

/// The sequence `count` records before `sequence`; before 0 comes `i32::MAX`.
fn before(sequence: Sequence, count: i32) -> Sequence {
    let modulus = i64::from(i32::MAX) + 1;
    Sequence((i64::from(sequence.0) - i64::from(count)).rem_euclid(modulus) as i32)
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.rest.split_first_chunk().expect("the length was checked");
        self.rest = rest;
        *field
    }
}
