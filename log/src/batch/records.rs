//! The records of a batch, one after the other, borrowed from its bytes.

use bytes::Bytes;

use super::header::{BatchHeader, TimestampType};
use super::{BatchError, varint};
use crate::record::{Header, Offset, Record, Timestamp};

/// A record, borrowed from the bytes of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its time: the one its producer gave, or that of the append.
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: HeadersView<'a>,
}

impl RecordView<'_> {
    /// A copy that stands on its own.
    pub fn to_record(&self) -> Record {
        Record {
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self.headers.iter().map(|header| header.to_header()).collect(),
            timestamp: Some(self.timestamp),
        }
    }
}

/// A record's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersView<'a> {
    /// Encoded headers, checked when the record was read.
    encoded: &'a [u8],
    count: i32,
}

impl<'a> HeadersView<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers in order.
    pub fn iter(&self) -> Headers<'a> {
        Headers { rest: self.encoded, left: self.count }
    }

    /// The value of the last header of this name: `None` if there is no such header, `Some(None)` if
    /// its value is null.
    pub fn last(&self, key: &str) -> Option<Option<&'a [u8]>> {
        self.iter().filter(|header| header.key == key).last().map(|header| header.value)
    }
}

impl<'a> IntoIterator for HeadersView<'a> {
    type Item = HeaderView<'a>;
    type IntoIter = Headers<'a>;

    fn into_iter(self) -> Headers<'a> {
        self.iter()
    }
}

/// One header, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// The name.
    pub key: &'a str,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
}

impl HeaderView<'_> {
    /// A copy that stands on its own.
    pub fn to_header(&self) -> Header {
        Header { key: self.key.to_owned(), value: self.value.map(Bytes::copy_from_slice) }
    }
}

/// The headers of one record, in order.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = HeaderView<'a>;

    fn next(&mut self) -> Option<HeaderView<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(take_header(&mut self.rest).expect("headers are checked when their record is read"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The records of one batch, in order. After an error there are no more.
#[derive(Clone, Debug)]
pub struct Records<'s> {
    rest: &'s [u8],
    base_offset: Offset,
    last_offset_delta: i32,
    /// The offset delta of the record before.
    previous_delta: i32,
    base_timestamp: Timestamp,
    /// The one timestamp of all records, where the log gives it.
    log_append_time: Option<Timestamp>,
    index: i32,
    record_count: i32,
}

/// A record as it stands in its batch.
#[derive(Clone, Copy)]
pub(super) struct EncodedRecord<'s> {
    pub(super) attributes: u8,
    /// From the batch's base timestamp.
    pub(super) timestamp_delta: i64,
    /// Everything behind it: offset, key, value, headers.
    pub(super) rest: &'s [u8],
}

impl<'s> Records<'s> {
    /// The records of the batch with this header, in its decompressed bytes `plain`.
    pub(super) fn new(header: &BatchHeader, plain: &'s [u8]) -> Self {
        Self {
            rest: plain,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            previous_delta: -1,
            base_timestamp: header.base_timestamp,
            log_append_time: match header.timestamp_type {
                TimestampType::Create => None,
                TimestampType::LogAppend => Some(header.max_timestamp),
            },
            index: 0,
            record_count: header.record_count,
        }
    }

    /// The next record, and the bytes that it is made of.
    #[inline]
    pub(super) fn next_encoded(&mut self) -> Option<Result<(RecordView<'s>, EncodedRecord<'s>), BatchError>> {
        if self.index == self.record_count {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(BatchError::BadRecord {
                index: self.index,
                reason: "bytes follow the last record",
            }));
        }
        let index = self.index;
        match self.take() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => {
                self.rest = &[];
                self.index = self.record_count;
                Some(Err(BatchError::BadRecord { index, reason }))
            }
        }
    }

    #[inline]
    fn take(&mut self) -> Result<(RecordView<'s>, EncodedRecord<'s>), &'static str> {
        let body = take_bytes(&mut self.rest)?.ok_or("it has a negative length")?;
        let (&attributes, mut body) = body.split_first().ok_or("it is empty")?;
        let timestamp_delta = varint::take_long(&mut body).ok_or("its timestamp is cut off or too long")?;
        let encoded = EncodedRecord { attributes, timestamp_delta, rest: body };
        let offset_delta = varint::take_int(&mut body).ok_or("its offset is cut off or too long")?;
        if offset_delta <= self.previous_delta || offset_delta > self.last_offset_delta {
            return Err("its offset lies outside the batch or does not follow the one before");
        }
        let timestamp = match self.log_append_time {
            Some(time) => time,
            None => Timestamp(
                self.base_timestamp.0.checked_add(timestamp_delta).ok_or("its timestamp is out of range")?,
            ),
        };
        let key = take_bytes(&mut body)?;
        let value = take_bytes(&mut body)?;
        let headers = take_headers(body)?;
        self.previous_delta = offset_delta;
        let offset = self.base_offset.plus(i64::from(offset_delta));
        Ok((RecordView { offset, timestamp, key, value, headers }, encoded))
    }
}

impl<'s> Iterator for Records<'s> {
    type Item = Result<RecordView<'s>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_encoded()?.map(|(record, _)| record))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count is what the header says; every record takes a byte at least.
        let left = (self.record_count - self.index) as usize;
        (0, Some(left.min(self.rest.len()) + 1))
    }
}

impl std::iter::FusedIterator for Records<'_> {}

/// Takes a length and as many bytes off the front; -1 is null.
#[inline]
fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    let length = varint::take_int(from).ok_or("a length is cut off or too long")?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| "a length is less than -1")?;
    let (taken, rest) = from.split_at_checked(length).ok_or("a length reaches past the end")?;
    *from = rest;
    Ok(Some(taken))
}

/// The headers, which are all that is left of a record's bytes.
#[inline]
fn take_headers(mut body: &[u8]) -> Result<HeadersView<'_>, &'static str> {
    let count = varint::take_int(&mut body).ok_or("its header count is cut off or too long")?;
    if count < 0 {
        return Err("its header count is negative");
    }
    let encoded = body;
    for _ in 0..count {
        take_header(&mut body)?;
    }
    if body.is_empty() { Ok(HeadersView { encoded, count }) } else { Err("bytes follow its last header") }
}

fn take_header<'a>(from: &mut &'a [u8]) -> Result<HeaderView<'a>, &'static str> {
    let key = take_bytes(from)?.ok_or("a header has no key")?;
    let key = std::str::from_utf8(key).map_err(|_| "a header's key is not UTF-8")?;
    Ok(HeaderView { key, value: take_bytes(from)? })
}
