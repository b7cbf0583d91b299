//! Why bytes are not a record batch, or a record does not go into one.

use std::fmt;

use super::{BATCH_BYTES_MAX, Codec};
use crate::error::{Error, ErrorKind};

/// Why bytes are not a record batch, or a record does not go into one. It knows no topic, offset or
/// file: whoever does adds them with [`BatchError::within`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// The buffer ends before the batch does. At the end of a file, a torn write.
    Incomplete {
        /// Bytes from the start of the batch that are needed to go on: the header's size while that is
        /// not there, then the batch's.
        needed: usize,
    },
    /// The length field is less than a header's.
    BadLength {
        /// What the field holds.
        stored: i32,
    },
    /// The format version is not 2.
    BadMagic(i8),
    /// A field of the header holds what no writer puts there.
    BadField {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// The bytes are not those that were checksummed.
    BadChecksum {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A record's bytes make no sense, though the checksum holds.
    BadRecord {
        /// Which record of the batch, from 0.
        index: i32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The compressed records cannot be decompressed.
    BadCompression {
        /// How they are compressed.
        codec: Codec,
        /// What the decompressor says.
        reason: String,
    },
    /// A record would make the batch larger than [`BATCH_BYTES_MAX`].
    TooLarge {
        /// Bytes the batch would have.
        bytes: usize,
    },
    /// A record's timestamp is further from the batch's first than an `i64` of milliseconds reaches.
    TimestampRange {
        /// The timestamp, in milliseconds.
        timestamp: i64,
    },
}

impl BatchError {
    /// What to do about it: damage is `Corrupt`, a record that does not fit `Invalid`.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadMagic(_) => ErrorKind::Unsupported,
            Self::TooLarge { .. } | Self::TimestampRange { .. } => ErrorKind::Invalid,
            _ => ErrorKind::Corrupt,
        }
    }

    /// This error said of a thing: `context` names topic, partition, offset, file.
    pub fn within(self, context: impl fmt::Display) -> Error {
        Error::caused(self.kind(), context.to_string(), self)
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { needed } => write!(f, "record batch ends before its {needed} bytes"),
            Self::BadLength { stored } => write!(f, "record batch length {stored} is less than a header's"),
            Self::BadMagic(magic) => write!(f, "record batch has format version {magic}, not 2"),
            Self::BadField { field, value } => write!(f, "record batch has {field} {value}"),
            Self::BadChecksum { stored, computed } => {
                write!(f, "record batch has checksum {stored:#010x}, its bytes have {computed:#010x}")
            }
            Self::BadRecord { index, reason } => write!(f, "record {index} of the batch: {reason}"),
            Self::BadCompression { codec, reason } => {
                write!(f, "record batch does not decompress as {codec}: {reason}")
            }
            Self::TooLarge { bytes } => {
                write!(f, "record makes its batch {bytes} bytes long, {BATCH_BYTES_MAX} are allowed")
            }
            Self::TimestampRange { timestamp } => {
                write!(f, "record timestamp {timestamp} is too far from the first one of its batch")
            }
        }
    }
}

impl std::error::Error for BatchError {}
