//! Encoding records straight into the bytes of a batch.

use super::compressor::SharedCompressor;
use super::header::BatchHeader;
use super::sealed::{SealedBatch, Summary};
use super::varint;
use super::{BATCH_BYTES_MAX, BatchError, Codec, Compression};
use crate::record::{Header, Timestamp};

/// The largest buffer that is kept for the next batch.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Encodes records, one behind the other, into the bytes of a batch. One builder makes one batch after
/// the other.
pub struct BatchBuilder {
    /// Room for the header, then the records, not compressed.
    bytes: Vec<u8>,
    compressor: SharedCompressor,
    record_count: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    /// Whether a record has no key.
    lacks_key: bool,
    /// The widths that the last record's lengths took: the guess for the next one's.
    widths: Widths,
}

/// Bytes that the two lengths in front of a value take as varints.
#[derive(Clone, Copy)]
struct Widths {
    record: usize,
    value: usize,
}

impl BatchBuilder {
    /// A builder whose batches are compressed so; a level that there is not is taken for the nearest.
    pub fn new(compression: Compression) -> Self {
        Self::sharing(SharedCompressor::new(compression))
    }

    /// A builder that compresses with what others compress with too.
    pub(crate) fn sharing(compressor: SharedCompressor) -> Self {
        Self {
            bytes: vec![0; BatchHeader::BYTES],
            compressor,
            record_count: 0,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            lacks_key: false,
            widths: Widths { record: 1, value: 1 },
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] and [`BatchError::TimestampRange`]; the batch is then as it was.
    #[inline]
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), BatchError> {
        let timestamp_delta = self.timestamp_delta(timestamp)?;
        let body = 1
            + varint::long_len(timestamp_delta)
            + varint::int_len(self.record_count)
            + field_len(key)
            + field_len(value)
            + headers_len(headers);
        self.check_room(body + varint::INT_BYTES_MAX)?;
        let out = &mut self.bytes;
        out.reserve(body + varint::INT_BYTES_MAX);
        varint::put_int(out, body as i32);
        out.push(0);
        varint::put_long(out, timestamp_delta);
        varint::put_int(out, self.record_count);
        put_field(out, key);
        put_field(out, value);
        put_headers(out, headers);
        self.count(timestamp, key);
        Ok(())
    }

    /// Adds a record whose value `write_value` appends to the buffer it is given, so that what is
    /// encoded needs no copy. What the buffer holds already is not `write_value`'s to touch.
    ///
    /// # Errors
    /// Those of [`Self::push`], and what `write_value` returns; the batch is then as it was.
    pub fn push_with<E: From<BatchError>>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        headers: &[Header],
        write_value: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let outcome = self.encode_with(timestamp, key, headers, write_value);
        if outcome.is_err() {
            self.bytes.truncate(start);
        }
        outcome
    }

    /// How many records there are.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch so far, header included, before compression.
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Ends the batch and compresses it; one that compression would enlarge stays as it is. The builder
    /// is then empty and may be used again.
    ///
    /// # Panics
    /// If there is no record.
    pub fn seal(&mut self) -> SealedBatch {
        assert!(!self.is_empty(), "a batch holds at least one record");
        let (bytes, codec) = self.take_bytes();
        let summary = Summary {
            record_count: self.record_count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            lacks_key: self.lacks_key,
        };
        self.clear();
        SealedBatch::new(bytes, codec, summary)
    }

    /// Drops the records.
    pub fn clear(&mut self) {
        self.bytes.truncate(BatchHeader::BYTES);
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.record_count = 0;
        self.lacks_key = false;
    }

    /// The finished bytes, the header still blank.
    fn take_bytes(&mut self) -> (Vec<u8>, Codec) {
        let codec = self.compressor.codec();
        if codec != Codec::None {
            let mut compressed = Vec::with_capacity(self.bytes.len());
            compressed.resize(BatchHeader::BYTES, 0);
            self.compressor.compress(&self.bytes[BatchHeader::BYTES..], &mut compressed);
            if compressed.len() < self.bytes.len() {
                return (compressed, codec);
            }
        }
        // A little more than this batch took: one that is full as well would otherwise double the buffer.
        let expected = self.bytes.len() + self.bytes.len() / 8;
        let mut fresh = Vec::with_capacity(expected.min(KEPT_BYTES_MAX));
        fresh.resize(BatchHeader::BYTES, 0);
        (std::mem::replace(&mut self.bytes, fresh), Codec::None)
    }

    fn encode_with<E: From<BatchError>>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        headers: &[Header],
        write_value: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let timestamp_delta = self.timestamp_delta(timestamp)?;
        self.check_room(key.map_or(0, <[u8]>::len))?;
        let out = &mut self.bytes;
        let record_gap = open_gap(out, self.widths.record);
        out.push(0);
        varint::put_long(out, timestamp_delta);
        varint::put_int(out, self.record_count);
        put_field(out, key);
        let value_gap = open_gap(out, self.widths.value);
        let value_start = out.len();
        write_value(out)?;
        assert!(out.len() >= value_start, "a value is only ever appended");
        self.check_room(headers_len(headers) + 2 * varint::INT_BYTES_MAX)?;
        let out = &mut self.bytes;
        self.widths.value = close_gap(out, value_gap, self.widths.value);
        put_headers(out, headers);
        self.widths.record = close_gap(out, record_gap, self.widths.record);
        self.count(timestamp, key);
        Ok(())
    }

    #[inline]
    fn timestamp_delta(&self, timestamp: Timestamp) -> Result<i64, BatchError> {
        let base = if self.is_empty() { timestamp } else { self.base_timestamp };
        timestamp.0.checked_sub(base.0).ok_or(BatchError::TimestampRange { timestamp: timestamp.0 })
    }

    /// Every record takes more than one byte, so this bounds their count too.
    #[inline]
    fn check_room(&self, more: usize) -> Result<(), BatchError> {
        let bytes = self.bytes.len().saturating_add(more);
        if bytes > BATCH_BYTES_MAX { Err(BatchError::TooLarge { bytes }) } else { Ok(()) }
    }

    #[inline]
    fn count(&mut self, timestamp: Timestamp, key: Option<&[u8]>) {
        if self.is_empty() {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.lacks_key |= key.is_none();
        self.record_count += 1;
    }
}

impl std::fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchBuilder")
            .field("record_count", &self.record_count)
            .field("encoded_len", &self.encoded_len())
            .field("codec", &self.compressor.codec())
            .finish_non_exhaustive()
    }
}

/// Leaves `width` bytes for a length that is not known yet; returns where.
fn open_gap(out: &mut Vec<u8>, width: usize) -> usize {
    let gap = out.len();
    out.resize(gap + width, 0);
    gap
}

/// Writes the length of what follows the gap into it, moving that along if the guessed `width` is not
/// the one needed. Returns the one needed.
fn close_gap(out: &mut Vec<u8>, gap: usize, width: usize) -> usize {
    let length = out.len() - gap - width;
    let needed = varint::int_len(length as i32);
    if needed > width {
        let end = out.len();
        out.resize(end + needed - width, 0);
        out.copy_within(gap + width..end, gap + needed);
    } else if needed < width {
        out.copy_within(gap + width.., gap + needed);
        out.truncate(gap + needed + length);
    }
    varint::overwrite_int(&mut out[gap..gap + needed], length as i32);
    needed
}

#[inline]
fn field_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| long_field_len(bytes.len()))
}

#[inline]
fn long_field_len(length: usize) -> usize {
    varint::long_len(length as i64).saturating_add(length)
}

#[inline]
fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => out.push(1), // the varint of -1
        Some(bytes) => {
            varint::put_int(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}

#[inline]
fn headers_len(headers: &[Header]) -> usize {
    if headers.is_empty() {
        return 1;
    }
    let fields =
        headers.iter().map(|header| long_field_len(header.key.len()) + field_len(header.value.as_deref()));
    varint::int_len(headers.len() as i32) + fields.sum::<usize>()
}

#[inline]
fn put_headers(out: &mut Vec<u8>, headers: &[Header]) {
    varint::put_int(out, headers.len() as i32);
    for header in headers {
        put_field(out, Some(header.key.as_bytes()));
        put_field(out, header.value.as_deref());
    }
}
