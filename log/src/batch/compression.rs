//! How the records of a batch are compressed: what a producer asks for, and what a batch says.

use std::fmt;
use std::str::FromStr;

use super::BatchError;

/// How a producer compresses the records of its batches. As text, `none`, `snappy`, `lz4`, or `gzip` and
/// `zstd` with or without a level: `zstd:9`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip: small and slow, for readers that know nothing better.
    Gzip {
        /// From 1 (fast) to 9 (small); 0 is the usual 6. Others are brought into that range.
        level: i32,
    },
    /// Snappy, in the frames that Kafka's Java clients write.
    Snappy,
    /// LZ4 frames, as Kafka writes them: independent blocks, no content checksum.
    Lz4,
    /// Zstandard.
    Zstd {
        /// From 1 (fast) to 22 (small); 0 is Zstandard's own default. Others are brought into its range.
        level: i32,
    },
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip { level: 0 } => f.write_str("gzip"),
            Self::Gzip { level } => write!(f, "gzip:{level}"),
            Self::Snappy => f.write_str("snappy"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd { level: 0 } => f.write_str("zstd"),
            Self::Zstd { level } => write!(f, "zstd:{level}"),
        }
    }
}

/// Text that names no compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCompression;

impl fmt::Display for UnknownCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "none, gzip, snappy, lz4 and zstd are known; gzip takes a level, as in gzip:9, and so does zstd",
        )
    }
}

impl std::error::Error for UnknownCompression {}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse().map_err(|_| UnknownCompression)?)),
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Self::None),
            ("gzip", level) => Ok(Self::Gzip { level: level.unwrap_or(0) }),
            ("snappy", None) => Ok(Self::Snappy),
            ("lz4", None) => Ok(Self::Lz4),
            ("zstd", level) => Ok(Self::Zstd { level: level.unwrap_or(0) }),
            _ => Err(UnknownCompression),
        }
    }
}

/// How the records of a batch are compressed: the codecs that Kafka has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// Gzip.
    Gzip = 1,
    /// Snappy, raw or in the frames of Kafka's Java clients.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard frames.
    Zstd = 4,
}

impl Codec {
    pub(super) fn from_id(id: u8) -> Result<Self, BatchError> {
        match id {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            _ => Err(BatchError::BadField { field: "compression codec", value: i64::from(id) }),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_read_as_it_is_written() {
        let check = |text: &str, expected: Compression| {
            assert_eq!(text.parse(), Ok(expected));
            assert_eq!(expected.to_string().parse(), Ok(expected));
        };
        check("none", Compression::None);
        check("gzip", Compression::Gzip { level: 0 });
        check("gzip:9", Compression::Gzip { level: 9 });
        check("snappy", Compression::Snappy);
        check("lz4", Compression::Lz4);
        check("zstd", Compression::Zstd { level: 0 });
        check("zstd:-5", Compression::Zstd { level: -5 });
        for text in ["", "brotli", "zstd:", "zstd:high", "lz4:1", "none:0", "GZIP"] {
            assert_eq!(text.parse::<Compression>(), Err(UnknownCompression), "{text}");
        }
    }
}
