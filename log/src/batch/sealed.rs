//! A batch whose records are final and whose place is not yet.

use super::checksum::checksum;
use super::header::{BatchHeader, LENGTH_PREFIX_BYTES, MAGIC, attribute, field};
use super::{BatchError, Codec, RecordBatch};
use crate::record::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Who writes a batch: what idempotence and transactions go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence of the first record.
    pub base_sequence: Sequence,
    /// Whether the batch belongs to the open transaction of that producer.
    pub transactional: bool,
}

/// What the builder knows of the records.
pub(super) struct Summary {
    pub(super) record_count: i32,
    pub(super) base_timestamp: Timestamp,
    pub(super) max_timestamp: Timestamp,
    pub(super) lacks_key: bool,
}

/// A batch whose records are final: its producer stamps it, its partition places it, and the
/// checksum is computed last, once.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    bytes: Vec<u8>,
    record_count: i32,
    max_timestamp: Timestamp,
    lacks_key: bool,
    /// Whether the checksum in `bytes` is that of the rest.
    is_finished: bool,
}

impl SealedBatch {
    /// Fills in the header in front of `bytes`.
    pub(super) fn new(bytes: Vec<u8>, codec: Codec, summary: Summary) -> Self {
        let mut batch = Self {
            bytes,
            record_count: summary.record_count,
            max_timestamp: summary.max_timestamp,
            lacks_key: summary.lacks_key,
            is_finished: false,
        };
        let behind_length = (batch.bytes.len() - LENGTH_PREFIX_BYTES) as i32;
        batch.write(field::LENGTH, behind_length.to_be_bytes());
        batch.write(field::MAGIC, MAGIC.to_be_bytes());
        batch.write(field::ATTRIBUTES, u16::from(codec as u8).to_be_bytes());
        batch.write(field::LAST_OFFSET_DELTA, (summary.record_count - 1).to_be_bytes());
        batch.write(field::BASE_TIMESTAMP, summary.base_timestamp.0.to_be_bytes());
        batch.write(field::MAX_TIMESTAMP, summary.max_timestamp.0.to_be_bytes());
        batch.write(field::RECORD_COUNT, summary.record_count.to_be_bytes());
        batch.stamp(None);
        batch
    }

    /// How many records there are: as many offsets the batch takes.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// The largest timestamp of a record.
    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// Whether a record has no key: a compacted topic takes none such.
    pub fn lacks_key(&self) -> bool {
        self.lacks_key
    }

    /// Bytes of the whole batch.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The header as it is now. Its checksum means something only after [`Self::finish`].
    pub fn header(&self) -> BatchHeader {
        BatchHeader::parse(&self.bytes).expect("a sealed batch has a sound header")
    }

    /// Says who writes the batch; `None` takes that back.
    pub fn stamp(&mut self, stamp: Option<ProducerStamp>) {
        let stamp = stamp.unwrap_or(ProducerStamp {
            id: ProducerId::NONE,
            epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            transactional: false,
        });
        self.write(field::PRODUCER_ID, stamp.id.0.to_be_bytes());
        self.write(field::PRODUCER_EPOCH, stamp.epoch.0.to_be_bytes());
        self.write(field::BASE_SEQUENCE, stamp.base_sequence.0.to_be_bytes());
        self.set_attribute(attribute::TRANSACTIONAL, stamp.transactional);
    }

    /// Gives every record the time of the append in place of its own.
    pub fn set_log_append_time(&mut self, now: Timestamp) {
        self.max_timestamp = now;
        self.write(field::MAX_TIMESTAMP, now.0.to_be_bytes());
        self.set_attribute(attribute::LOG_APPEND_TIME, true);
    }

    /// Says where in the partition the batch goes. Outside the checksum: no need to compute it again.
    pub fn place(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.overwrite(field::BASE_OFFSET, base_offset.0.to_be_bytes());
        self.overwrite(field::LEADER_EPOCH, leader_epoch.0.to_be_bytes());
    }

    /// The bytes with their checksum, which is computed on the first call after a change.
    pub fn finish(&mut self) -> &[u8] {
        if !self.is_finished {
            let checksum = checksum(&self.bytes);
            self.overwrite(field::CHECKSUM, checksum.to_be_bytes());
            self.is_finished = true;
        }
        &self.bytes
    }

    /// The finished batch, to be read.
    ///
    /// # Errors
    /// None is known; those of [`RecordBatch::parse`].
    pub fn read(&mut self) -> Result<RecordBatch<'_>, BatchError> {
        RecordBatch::parse(self.finish())
    }

    pub(super) fn set_control(&mut self) {
        self.set_attribute(attribute::CONTROL, true);
    }

    fn set_attribute(&mut self, bit: u16, on: bool) {
        let attributes = &self.bytes[field::ATTRIBUTES..field::ATTRIBUTES + 2];
        let before = u16::from_be_bytes([attributes[0], attributes[1]]);
        let after = if on { before | bit } else { before & !bit };
        self.write(field::ATTRIBUTES, after.to_be_bytes());
    }

    /// Writes a field that the checksum covers.
    fn write<const N: usize>(&mut self, position: usize, value: [u8; N]) {
        self.is_finished = false;
        self.overwrite(position, value);
    }

    fn overwrite<const N: usize>(&mut self, position: usize, value: [u8; N]) {
        self.bytes[position..position + N].copy_from_slice(&value);
    }
}
