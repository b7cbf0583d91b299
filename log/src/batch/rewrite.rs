//! A batch written again with some of its records gone, as compaction does it.
//!
//! Offsets, producer, sequence and transaction stay what they were: base offset and last offset delta
//! are those of the batch as it was appended, also where no record is left. A batch that holds tombstones
//! is given a delete horizon (KIP-534): the time from which they may go, in place of the base timestamp.
//! From the source, Kafka's `MemoryRecords.filterTo`.

use super::checksum::checksum;
use super::compressor::Compressor;
use super::header::{BatchHeader, LENGTH_PREFIX_BYTES, attribute, field};
use super::records::EncodedRecord;
use super::{
    BatchError, Codec, Compression, DecompressionBuffer, RecordBatch, RecordView, TimestampType, varint,
};
use crate::record::Timestamp;

/// The base timestamp of a batch without records, as Kafka has it.
const NO_TIMESTAMP: Timestamp = Timestamp(-1);

/// How a batch is written again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite {
    /// Whether the batch stays though no record of it does: it says what its producer wrote last.
    pub(crate) stays_empty: bool,
    /// Whether it is given a horizon like one that holds tombstones.
    pub(crate) wants_horizon: bool,
    /// The horizon it is given if it has none.
    pub(crate) horizon: Timestamp,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// It is gone.
    Dropped,
    /// It is as it was.
    Whole,
    /// Records of it are gone, or it was given a horizon.
    Changed,
}

/// Writes one batch after the other again, and keeps what that takes in memory.
#[derive(Default)]
pub(crate) struct BatchRewriter {
    scratch: DecompressionBuffer,
    compressors: Vec<(Codec, Compressor)>,
    /// Where in the batch's plain records those are that are kept.
    kept: Vec<bool>,
    plain: Vec<u8>,
}

impl BatchRewriter {
    /// Appends to `out` the batch without the records that `keeps` says no to.
    ///
    /// # Errors
    /// Those of reading the records. `out` is then as it was.
    pub(crate) fn rewrite(
        &mut self,
        batch: &RecordBatch<'_>,
        rewrite: Rewrite,
        mut keeps: impl FnMut(&RecordView<'_>) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<Rewritten, BatchError> {
        let header = batch.header();
        let kept = self.choose(batch, &mut keeps)?;
        if kept.records == 0 {
            if !rewrite.stays_empty {
                return Ok(Rewritten::Dropped);
            }
            put_empty(batch, out);
            return Ok(if header.record_count == 0 { Rewritten::Whole } else { Rewritten::Changed });
        }
        let wants_horizon = (kept.has_tombstone || rewrite.wants_horizon) && !header.has_delete_horizon;
        // Time that far away does not fit beside the horizon; such a batch never gets one.
        let shift = header.base_timestamp.0.checked_sub(rewrite.horizon.0).filter(|shift| {
            wants_horizon && kept.deltas.iter().all(|delta| delta.checked_add(*shift).is_some())
        });
        if kept.records == header.record_count && shift.is_none() {
            out.extend_from_slice(batch.bytes());
            return Ok(Rewritten::Whole);
        }
        self.encode_kept(batch, shift.unwrap_or(0))?;
        let start = out.len();
        out.extend_from_slice(&batch.bytes()[..BatchHeader::BYTES]);
        let codec = self.put_records(header.codec, out);
        let max_timestamp = match header.timestamp_type {
            TimestampType::Create => kept.max_timestamp,
            TimestampType::LogAppend => header.max_timestamp,
        };
        let fields = Fields {
            codec,
            base_timestamp: if shift.is_some() { rewrite.horizon } else { header.base_timestamp },
            max_timestamp,
            has_delete_horizon: header.has_delete_horizon || shift.is_some(),
            record_count: kept.records,
        };
        fields.write(&mut out[start..]);
        Ok(Rewritten::Changed)
    }

    /// Asks of every record whether it is kept.
    fn choose(
        &mut self,
        batch: &RecordBatch<'_>,
        keeps: &mut impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Kept, BatchError> {
        let mut kept = Kept::default();
        self.kept.clear();
        let mut records = batch.records(&mut self.scratch)?;
        while let Some(record) = records.next_encoded() {
            let (record, encoded) = record?;
            let is_kept = keeps(&record);
            self.kept.push(is_kept);
            if is_kept {
                kept.note(&record, &encoded);
            }
        }
        Ok(kept)
    }

    /// Encodes the records that are kept, each timestamp `shift` further from its base.
    fn encode_kept(&mut self, batch: &RecordBatch<'_>, shift: i64) -> Result<(), BatchError> {
        self.plain.clear();
        let mut records = batch.records(&mut self.scratch)?;
        for &is_kept in &self.kept {
            let Some(record) = records.next_encoded() else { break };
            let (_, encoded) = record?;
            if is_kept {
                put_record(&encoded, encoded.timestamp_delta + shift, &mut self.plain);
            }
        }
        Ok(())
    }

    /// Appends the encoded records, compressed as they were unless that enlarges them. Returns how.
    fn put_records(&mut self, codec: Codec, out: &mut Vec<u8>) -> Codec {
        let start = out.len();
        if codec != Codec::None {
            let position = self.compressors.iter().position(|(known, _)| *known == codec);
            let position = position.unwrap_or_else(|| {
                self.compressors.push((codec, Compressor::new(usual(codec))));
                self.compressors.len() - 1
            });
            self.compressors[position].1.compress(&self.plain, out);
            if out.len() - start < self.plain.len() {
                return codec;
            }
            out.truncate(start);
        }
        out.extend_from_slice(&self.plain);
        Codec::None
    }
}

/// What is kept of a batch.
#[derive(Default)]
struct Kept {
    records: i32,
    has_tombstone: bool,
    max_timestamp: Timestamp,
    /// The smallest and the largest distance from the base timestamp.
    deltas: [i64; 2],
}

impl Kept {
    fn note(&mut self, record: &RecordView<'_>, encoded: &EncodedRecord<'_>) {
        let delta = encoded.timestamp_delta;
        let is_first = self.records == 0;
        let [smallest, largest] = self.deltas;
        self.deltas = if is_first { [delta; 2] } else { [smallest.min(delta), largest.max(delta)] };
        self.max_timestamp =
            if is_first { record.timestamp } else { self.max_timestamp.max(record.timestamp) };
        self.has_tombstone |= record.value.is_none();
        self.records += 1;
    }
}

/// The fields of a header that rewriting changes.
struct Fields {
    codec: Codec,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    has_delete_horizon: bool,
    record_count: i32,
}

impl Fields {
    /// Writes them, and what follows from them, into `batch`, which begins with the old header.
    fn write(&self, batch: &mut [u8]) {
        let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
        put(field::BASE_TIMESTAMP, &self.base_timestamp.0.to_be_bytes());
        put(field::MAX_TIMESTAMP, &self.max_timestamp.0.to_be_bytes());
        put(field::RECORD_COUNT, &self.record_count.to_be_bytes());
        let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
        batch[field::LENGTH..field::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        let attributes = &mut batch[field::ATTRIBUTES..field::ATTRIBUTES + 2];
        let kept = u16::from_be_bytes([attributes[0], attributes[1]])
            & !(attribute::CODEC | attribute::DELETE_HORIZON);
        let horizon = if self.has_delete_horizon { attribute::DELETE_HORIZON } else { 0 };
        attributes.copy_from_slice(&(kept | horizon | self.codec as u16).to_be_bytes());
        let checksum = checksum(batch);
        batch[field::CHECKSUM..field::CHECKSUM + 4].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Appends the header alone.
fn put_empty(batch: &RecordBatch<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&batch.bytes()[..BatchHeader::BYTES]);
    let fields = Fields {
        codec: Codec::None,
        base_timestamp: NO_TIMESTAMP,
        max_timestamp: batch.header().max_timestamp,
        has_delete_horizon: false,
        record_count: 0,
    };
    fields.write(&mut out[start..]);
}

/// How a batch is compressed again of which no level is known.
fn usual(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip { level: 0 },
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd { level: 0 },
    }
}

fn put_record(encoded: &EncodedRecord<'_>, timestamp_delta: i64, out: &mut Vec<u8>) {
    let length = 1 + varint::long_len(timestamp_delta) + encoded.rest.len();
    varint::put_int(out, length as i32);
    out.push(encoded.attributes);
    varint::put_long(out, timestamp_delta);
    out.extend_from_slice(encoded.rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, ProducerStamp};
    use crate::record::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

    const HORIZON: Timestamp = Timestamp(50_000);
    const PLAIN: Rewrite = Rewrite { stays_empty: false, wants_horizon: false, horizon: HORIZON };

    /// Records at offset 100 and on, with keys `k<n>`, timestamps 1000 + 7 n; a tombstone where `n` is in
    /// `tombstones`.
    fn batch(compression: Compression, tombstones: &[i64]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(compression);
        for n in 0..20i64 {
            let (key, value) = (format!("k{n}"), format!("value {n} value {n} value {n}"));
            let value = (!tombstones.contains(&n)).then_some(value.as_bytes());
            builder.push(Timestamp(1000 + 7 * n), Some(key.as_bytes()), value, &[]).expect("it is small");
        }
        let mut batch = builder.seal();
        batch.stamp(Some(ProducerStamp {
            id: ProducerId(4),
            epoch: ProducerEpoch(2),
            base_sequence: Sequence(60),
            transactional: true,
        }));
        batch.place(Offset(100), LeaderEpoch(3));
        batch.finish().to_vec()
    }

    /// Offset, timestamp, value.
    type ReadRecord = (Offset, Timestamp, Option<Vec<u8>>);

    fn rewrite(
        bytes: &[u8],
        rewrite: Rewrite,
        keeps: impl FnMut(&RecordView<'_>) -> bool,
    ) -> (Rewritten, Vec<u8>) {
        let mut out = b"in front".to_vec();
        let batch = RecordBatch::parse(bytes).expect("it is sound");
        let outcome = BatchRewriter::default().rewrite(&batch, rewrite, keeps, &mut out);
        (outcome.expect("it is sound"), out.split_off(8))
    }

    fn read(bytes: &[u8]) -> (BatchHeader, Vec<ReadRecord>) {
        let batch = RecordBatch::parse(bytes).expect("it is sound");
        batch.verify().expect("it has the right checksum");
        assert_eq!(batch.bytes().len(), bytes.len());
        let mut scratch = DecompressionBuffer::new();
        let records = batch.records(&mut scratch).expect("it decompresses");
        let records = records.map(|record| record.expect("it is sound"));
        let records =
            records.map(|record| (record.offset, record.timestamp, record.value.map(<[u8]>::to_vec)));
        (batch.header().clone(), records.collect())
    }

    #[test]
    fn what_is_kept_keeps_its_offset_time_and_value_in_every_compression() {
        let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        for compression in codecs.map(usual) {
            let bytes = batch(compression, &[]);
            let (before, all) = read(&bytes);
            let (outcome, out) = rewrite(&bytes, PLAIN, |record| record.offset.0 % 3 == 0);
            let (after, kept) = read(&out);
            assert_eq!(outcome, Rewritten::Changed);
            let expected: Vec<_> = all.into_iter().filter(|(offset, ..)| offset.0 % 3 == 0).collect();
            assert_eq!(kept, expected);
            let stays = |header: &BatchHeader| {
                let BatchHeader { base_offset, last_offset_delta, producer_id, producer_epoch, .. } = *header;
                let BatchHeader { base_sequence, is_transactional, leader_epoch, .. } = *header;
                let place = (base_offset, last_offset_delta, leader_epoch);
                (place, producer_id, producer_epoch, base_sequence, is_transactional)
            };
            assert_eq!(stays(&before), stays(&after));
            assert_eq!(after.max_timestamp, expected.last().expect("some are kept").1);
        }
    }

    #[test]
    fn a_batch_of_which_everything_is_kept_is_the_same_bytes() {
        let bytes = batch(Compression::Lz4, &[]);
        assert_eq!(rewrite(&bytes, PLAIN, |_| true), (Rewritten::Whole, bytes));
    }

    #[test]
    fn a_batch_of_which_nothing_is_kept_is_gone_or_an_empty_header() {
        let bytes = batch(Compression::None, &[]);
        assert_eq!(rewrite(&bytes, PLAIN, |_| false), (Rewritten::Dropped, Vec::new()));
        let stays = Rewrite { stays_empty: true, ..PLAIN };
        let (outcome, out) = rewrite(&bytes, stays, |_| false);
        let (header, records) = read(&out);
        assert_eq!((outcome, records.len()), (Rewritten::Changed, 0));
        assert_eq!((header.length, header.last_sequence()), (BatchHeader::BYTES, Sequence(79)));
        assert_eq!((header.base_offset, header.last_offset()), (Offset(100), Offset(119)));
        assert_eq!(rewrite(&out, stays, |_| false), (Rewritten::Whole, out), "once more changes nothing");
    }

    #[test]
    fn tombstones_give_a_batch_a_horizon_once_and_no_record_another_time() {
        let bytes = batch(Compression::None, &[3]);
        let (_, all) = read(&bytes);
        let (outcome, out) = rewrite(&bytes, PLAIN, |_| true);
        let (header, kept) = read(&out);
        assert_eq!(outcome, Rewritten::Changed);
        assert_eq!(kept, all);
        assert_eq!((header.has_delete_horizon, header.base_timestamp), (true, HORIZON));
        assert_eq!(header.max_timestamp, all.last().expect("there are some").1);
        let later = Rewrite { horizon: Timestamp(99_000), ..PLAIN };
        assert_eq!(rewrite(&out, later, |_| true), (Rewritten::Whole, out.clone()), "the first one stands");
        let (_, fewer) = rewrite(&out, later, |record| record.offset.0 < 110);
        assert_eq!(read(&fewer).0.base_timestamp, HORIZON);
    }

    #[test]
    fn a_time_that_does_not_fit_beside_the_horizon_stays_what_it_is() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(Timestamp(i64::MAX - 5), Some(b"k"), None, &[]).expect("it is small");
        let mut sealed = builder.seal();
        let bytes = sealed.finish();
        let far = Rewrite { horizon: Timestamp(-10), ..PLAIN };
        let (outcome, out) = rewrite(bytes, far, |_| true);
        assert_eq!((outcome, &out[..]), (Rewritten::Whole, bytes));
    }
}
