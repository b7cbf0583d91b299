//! The 61 bytes in front of a batch's records: where each field is, and reading them.

use super::{BatchError, Codec};
use crate::record::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Where the fields of the header begin; see the byte table of the module above.
pub(super) mod field {
    pub(in super::super) const BASE_OFFSET: usize = 0;
    pub(in super::super) const LENGTH: usize = 8;
    pub(in super::super) const LEADER_EPOCH: usize = 12;
    pub(in super::super) const MAGIC: usize = 16;
    pub(in super::super) const CHECKSUM: usize = 17;
    pub(in super::super) const ATTRIBUTES: usize = 21;
    pub(in super::super) const LAST_OFFSET_DELTA: usize = 23;
    pub(in super::super) const BASE_TIMESTAMP: usize = 27;
    pub(in super::super) const MAX_TIMESTAMP: usize = 35;
    pub(in super::super) const PRODUCER_ID: usize = 43;
    pub(in super::super) const PRODUCER_EPOCH: usize = 51;
    pub(in super::super) const BASE_SEQUENCE: usize = 53;
    pub(in super::super) const RECORD_COUNT: usize = 57;
}

/// Bits of the attributes.
pub(super) mod attribute {
    pub(in super::super) const CODEC: u16 = 0b111;
    pub(in super::super) const LOG_APPEND_TIME: u16 = 1 << 3;
    pub(in super::super) const TRANSACTIONAL: u16 = 1 << 4;
    pub(in super::super) const CONTROL: u16 = 1 << 5;
    pub(in super::super) const DELETE_HORIZON: u16 = 1 << 6;
}

/// The format version of a record batch v2.
pub(super) const MAGIC: i8 = 2;

/// The bytes up to the length field's end, which that field does not count.
pub(super) const LENGTH_PREFIX_BYTES: usize = field::LEADER_EPOCH;

/// Whose time the records of a batch carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The time the producer gave to each record.
    Create,
    /// The time of the append: the batch's max timestamp, for every record of it.
    LogAppend,
}

/// The header of a record batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the batch's first record (of the first one it was written with, if compacted).
    pub base_offset: Offset,
    /// Bytes of the whole batch, from the base offset to the end of the records.
    pub length: usize,
    /// The leader's reign in which the batch was appended.
    pub leader_epoch: LeaderEpoch,
    /// The stored CRC-32C of everything from the attributes on.
    pub checksum: u32,
    /// How the records are compressed.
    pub codec: Codec,
    /// Whose time the records carry.
    pub timestamp_type: TimestampType,
    /// Whether the batch belongs to a transaction (its markers do too).
    pub is_transactional: bool,
    /// Whether the batch holds a marker instead of records.
    pub is_control: bool,
    /// Whether the base timestamp is the time from which compaction may drop tombstones and markers.
    pub has_delete_horizon: bool,
    /// The last record's offset, less the base offset.
    pub last_offset_delta: i32,
    /// What the records' timestamps are counted from: the first record's.
    pub base_timestamp: Timestamp,
    /// The largest timestamp of a record.
    pub max_timestamp: Timestamp,
    /// Who wrote the batch, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// The epoch of it, or [`ProducerEpoch::NONE`].
    pub producer_epoch: ProducerEpoch,
    /// The sequence of the first record, or [`Sequence::NONE`].
    pub base_sequence: Sequence,
    /// How many records there are; fewer than the offsets span after compaction.
    pub record_count: i32,
}

impl BatchHeader {
    /// The bytes of a header.
    pub const BYTES: usize = 61;

    /// Reads the header at the front of `bytes`.
    ///
    /// # Errors
    /// [`BatchError::Incomplete`] if there are fewer than [`Self::BYTES`]; the length, the magic and the
    /// signs of offsets and counts are checked. The checksum is not: see [`super::RecordBatch::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(bytes) = bytes.first_chunk::<{ Self::BYTES }>() else {
            return Err(BatchError::Incomplete { needed: Self::BYTES });
        };
        let length = parse_length(bytes)?;
        let magic = i8::from_be_bytes(read(bytes, field::MAGIC));
        if magic != MAGIC {
            return Err(BatchError::BadMagic(magic));
        }
        let attributes = u16::from_be_bytes(read(bytes, field::ATTRIBUTES));
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(read(bytes, field::BASE_OFFSET))),
            length,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(read(bytes, field::LEADER_EPOCH))),
            checksum: u32::from_be_bytes(read(bytes, field::CHECKSUM)),
            codec: Codec::from_id((attributes & attribute::CODEC) as u8)?,
            timestamp_type: match attributes & attribute::LOG_APPEND_TIME {
                0 => TimestampType::Create,
                _ => TimestampType::LogAppend,
            },
            is_transactional: attributes & attribute::TRANSACTIONAL != 0,
            is_control: attributes & attribute::CONTROL != 0,
            has_delete_horizon: attributes & attribute::DELETE_HORIZON != 0,
            last_offset_delta: i32::from_be_bytes(read(bytes, field::LAST_OFFSET_DELTA)),
            base_timestamp: Timestamp(i64::from_be_bytes(read(bytes, field::BASE_TIMESTAMP))),
            max_timestamp: Timestamp(i64::from_be_bytes(read(bytes, field::MAX_TIMESTAMP))),
            producer_id: ProducerId(i64::from_be_bytes(read(bytes, field::PRODUCER_ID))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(read(bytes, field::PRODUCER_EPOCH))),
            base_sequence: Sequence(i32::from_be_bytes(read(bytes, field::BASE_SEQUENCE))),
            record_count: i32::from_be_bytes(read(bytes, field::RECORD_COUNT)),
        };
        header.check()?;
        Ok(header)
    }

    /// The offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// The offset after the last record: where the next batch begins.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// The sequence of the last record, or [`Sequence::NONE`] where the batch has none.
    pub fn last_sequence(&self) -> Sequence {
        match self.base_sequence {
            Sequence::NONE => Sequence::NONE,
            base => base.plus(self.last_offset_delta),
        }
    }

    /// Whether the batch carries a sequence, and so is checked for duplicates and gaps.
    pub fn is_idempotent(&self) -> bool {
        self.producer_id != ProducerId::NONE && self.base_sequence != Sequence::NONE
    }

    /// Checks what arithmetic on offsets and counts relies on.
    fn check(&self) -> Result<(), BatchError> {
        let bad = |field, value| Err(BatchError::BadField { field, value });
        if !(0..i64::MAX - i64::from(i32::MAX)).contains(&self.base_offset.0) {
            return bad("base offset", self.base_offset.0);
        }
        if self.last_offset_delta < 0 {
            return bad("last offset delta", i64::from(self.last_offset_delta));
        }
        if self.record_count < 0 {
            return bad("record count", i64::from(self.record_count));
        }
        if self.base_sequence < Sequence::NONE {
            return bad("base sequence", i64::from(self.base_sequence.0));
        }
        Ok(())
    }
}

/// The length of the whole batch.
fn parse_length(bytes: &[u8; BatchHeader::BYTES]) -> Result<usize, BatchError> {
    let stored = i32::from_be_bytes(read(bytes, field::LENGTH));
    match usize::try_from(stored) {
        Ok(behind) if behind + LENGTH_PREFIX_BYTES >= BatchHeader::BYTES => Ok(behind + LENGTH_PREFIX_BYTES),
        _ => Err(BatchError::BadLength { stored }),
    }
}

#[inline]
fn read<const N: usize>(bytes: &[u8; BatchHeader::BYTES], position: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[position..position + N]);
    field
}
