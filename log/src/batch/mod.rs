//! Record batch v2 (magic 2): the layout of records on disk and on Kafka's wire. This module is the
//! sole owner of byte positions and checksums; it knows no file, topic or partition.
//!
//! All integers are big-endian. From the source, Kafka's `DefaultRecordBatch` and `DefaultRecord`:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | base offset | `i64`; set when the batch is placed in a partition, outside the checksum |
//! | 8..12 | length | `i32`; of everything behind this field |
//! | 12..16 | partition leader epoch | `i32`; outside the checksum |
//! | 16 | magic | 2 |
//! | 17..21 | checksum | CRC-32C of everything behind this field |
//! | 21..23 | attributes | bits 0–2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon |
//! | 23..27 | last offset delta | `i32` |
//! | 27..35 | base timestamp | `i64`, ms; records hold the distance from it |
//! | 35..43 | max timestamp | `i64`, ms |
//! | 43..51 | producer id | `i64`, -1 without |
//! | 51..53 | producer epoch | `i16`, -1 without |
//! | 53..57 | base sequence | `i32`, -1 without |
//! | 57..61 | record count | `i32` |
//! | 61.. | records | compressed together where the codec is not 0 |
//!
//! A record (all numbers zigzag varints): length of what follows; attributes (one byte, 0);
//! timestamp delta; offset delta; key length (-1: null) and key; value length (-1: null) and value;
//! header count, and for each header key length, key, value length (-1: null), value.
//!
//! [`BatchBuilder`] encodes records into one buffer and seals it; a [`SealedBatch`] is stamped by its
//! producer and placed by its partition, and finished with its checksum last. [`RecordBatch`] reads
//! without copying; nothing is allocated per record on either way.

mod builder;
mod checksum;
mod compression;
mod compressor;
mod control;
mod decompression;
mod error;
mod header;
mod reader;
mod records;
mod rewrite;
mod sealed;
mod snappy;
mod varint;

pub use builder::BatchBuilder;
pub(crate) use checksum::PiecewiseChecksum;
pub use compression::{Codec, Compression, InvalidCompression};
pub(crate) use compressor::SharedCompressor;
pub use control::{ControlRecord, MarkerKind, marker};
pub use decompression::DecompressionBuffer;
pub use error::BatchError;
pub use header::{BatchHeader, TimestampType};
pub use reader::{Batches, RecordBatch};
pub use records::{HeaderView, Headers, HeadersView, RecordView, Records};
pub(crate) use rewrite::{BatchRewriter, Rewrite, Rewritten};
pub use sealed::{ProducerStamp, SealedBatch};

/// The most bytes that the records of one batch may take uncompressed: the builder writes no more,
/// and a reader takes a batch that decompresses to more for damaged or hostile.
pub const BATCH_BYTES_MAX: usize = 256 << 20;

/// The most bytes that a batch may take as it is stored: what cannot be compressed grows by less than a
/// quarter, and headers are small.
pub(crate) const ENCODED_BYTES_MAX: usize = BATCH_BYTES_MAX / 4 * 5;

#[cfg(test)]
mod tests;
