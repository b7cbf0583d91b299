//! How the records of a batch are compressed: what a producer asks for, and what a batch says.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::BatchError;

/// The levels that gzip has; 0 stands for the usual one.
const GZIP_LEVELS: RangeInclusive<i32> = 1..=9;

/// How a producer compresses the records of its batches. As text, `none`, `snappy`, `lz4`, or `gzip` and
/// `zstd` with or without a level: `zstd:9`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip: small and slow, for readers that know nothing better.
    Gzip {
        /// From 1 (fast) to 9 (small); 0 is the usual 6.
        level: i32,
    },
    /// Snappy, in the frames that Kafka's Java clients write.
    Snappy,
    /// LZ4 frames, as Kafka writes them: independent blocks, no content checksum.
    Lz4,
    /// Zstandard.
    Zstd {
        /// From 1 (fast) to 22 (small), and down to -131072 (faster still); 0 is Zstandard's own default.
        level: i32,
    },
}

impl Compression {
    /// Whether there is such a level. Topics and producers are refused one that there is not.
    ///
    /// # Errors
    /// [`InvalidCompression::Level`], which says from where to where levels go.
    pub fn check(self) -> Result<(), InvalidCompression> {
        match self.level() {
            Some((_, 0)) | None => Ok(()),
            Some((codec, level)) if levels(codec).contains(&level) => Ok(()),
            Some((codec, level)) => Err(InvalidCompression::Level { codec, level }),
        }
    }

    /// The same with the nearest level that there is.
    pub(crate) fn within_range(self) -> Self {
        let within = |codec, level: i32| match level {
            0 => 0,
            _ => level.clamp(*levels(codec).start(), *levels(codec).end()),
        };
        match self {
            Self::Gzip { level } => Self::Gzip { level: within(Codec::Gzip, level) },
            Self::Zstd { level } => Self::Zstd { level: within(Codec::Zstd, level) },
            Self::None | Self::Snappy | Self::Lz4 => self,
        }
    }

    /// What the text says, whether or not there is such a level.
    pub(crate) fn parse_any_level(text: &str) -> Result<Self, InvalidCompression> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse().map_err(|_| InvalidCompression::Name)?)),
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Self::None),
            ("gzip", level) => Ok(Self::Gzip { level: level.unwrap_or(0) }),
            ("snappy", None) => Ok(Self::Snappy),
            ("lz4", None) => Ok(Self::Lz4),
            ("zstd", level) => Ok(Self::Zstd { level: level.unwrap_or(0) }),
            _ => Err(InvalidCompression::Name),
        }
    }

    fn level(self) -> Option<(Codec, i32)> {
        match self {
            Self::Gzip { level } => Some((Codec::Gzip, level)),
            Self::Zstd { level } => Some((Codec::Zstd, level)),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }
}

/// The levels of a codec that has any.
fn levels(codec: Codec) -> RangeInclusive<i32> {
    if codec == Codec::Zstd { zstd::compression_level_range() } else { GZIP_LEVELS }
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

/// Why something is no compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidCompression {
    /// The text names none.
    Name,
    /// The codec has no such level.
    Level {
        /// Gzip or Zstandard.
        codec: Codec,
        /// The level that was asked for.
        level: i32,
    },
}

impl fmt::Display for InvalidCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Name => f.write_str(
                "none, gzip, snappy, lz4 and zstd are known; gzip takes a level, as in gzip:9, and so does zstd",
            ),
            Self::Level { codec, level } => {
                let (least, most) = levels(codec).into_inner();
                write!(f, "{codec} has no level {level}: {least} to {most} are possible, 0 is the usual one")
            }
        }
    }
}

impl std::error::Error for InvalidCompression {}

impl FromStr for Compression {
    type Err = InvalidCompression;

    fn from_str(text: &str) -> Result<Self, InvalidCompression> {
        let compression = Self::parse_any_level(text)?;
        compression.check().map(|()| compression)
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
            assert_eq!(text.parse::<Compression>(), Err(InvalidCompression::Name), "{text}");
        }
    }

    #[test]
    fn a_level_that_a_codec_does_not_have_is_refused_with_those_that_it_has() {
        let check = |text: &str, expected: Option<&str>| {
            let said = text.parse::<Compression>().map(drop).map_err(|error| error.to_string());
            assert_eq!(said, expected.map_or(Ok(()), |said| Err(said.to_owned())), "{text}");
        };
        let gzip = |level| format!("gzip has no level {level}: 1 to 9 are possible, 0 is the usual one");
        let zstd =
            |level| format!("zstd has no level {level}: -131072 to 22 are possible, 0 is the usual one");
        for text in ["gzip:0", "gzip:1", "gzip:9", "zstd:0", "zstd:22", "zstd:-131072"] {
            check(text, None);
        }
        for level in [-1, 10, 12] {
            check(&format!("gzip:{level}"), Some(&gzip(level)));
        }
        for level in [23, 99, -131_073] {
            check(&format!("zstd:{level}"), Some(&zstd(level)));
        }
    }

    #[test]
    fn the_nearest_level_is_one_that_there_is() {
        let check = |asked: Compression, expected: Compression| {
            assert_eq!(asked.within_range(), expected);
            expected.check().expect("there is that level");
        };
        check(Compression::Gzip { level: 12 }, Compression::Gzip { level: 9 });
        check(Compression::Gzip { level: -3 }, Compression::Gzip { level: 1 });
        check(Compression::Gzip { level: 0 }, Compression::Gzip { level: 0 });
        check(Compression::Zstd { level: 99 }, Compression::Zstd { level: 22 });
        check(Compression::Zstd { level: -5 }, Compression::Zstd { level: -5 });
        check(Compression::Lz4, Compression::Lz4);
    }
}
