//! What is produced, and how.

use std::fmt;

use clap::{Args, ValueEnum};
use lotic_log::batch::Compression;
use lotic_log::{Durability, LogOptions, ProducerOptions, TopicConfig};

use crate::Failure;

/// Bytes of a batch, on every side.
pub(crate) const BATCH_BYTES: usize = 256 << 10;

/// Kafka's level of zstd where none is said.
const ZSTD_LEVEL: i32 = 3;

/// The topic that Lotic's sides write and read.
pub(crate) const TOPIC: &str = "bench";

/// One way to produce.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// How many records.
    #[arg(long)]
    pub(crate) records: u64,
    /// Bytes of the value of each.
    #[arg(long)]
    pub(crate) bytes: usize,
    #[arg(long)]
    pub(crate) partitions: i32,
    #[arg(long)]
    pub(crate) compression: Codec,
    #[arg(long)]
    pub(crate) durability: Safety,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codec {
    None,
    Lz4,
    Zstd,
}

/// When a record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Safety {
    /// In the page cache, as with Kafka where nothing is said.
    Os,
    /// Synced; with Kafka `flush.messages=1`.
    Sync,
}

impl Codec {
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl Safety {
    pub(crate) const ALL: [Self; 2] = [Self::Os, Self::Sync];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Sync => "sync",
        }
    }

    pub(crate) fn log_options(self) -> Result<LogOptions, Failure> {
        let durability = match self {
            Self::Os => Durability::Os,
            Self::Sync => Durability::Sync,
        };
        Ok(LogOptions { durability, ..LogOptions::disk()? })
    }
}

impl Case {
    /// The arguments that say so to a side.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let pairs = [
            ("--records", self.records.to_string()),
            ("--bytes", self.bytes.to_string()),
            ("--partitions", self.partitions.to_string()),
            ("--compression", self.compression.name().to_owned()),
            ("--durability", self.durability.name().to_owned()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    pub(crate) fn topic(&self) -> TopicConfig {
        TopicConfig { partitions: self.partitions, ..TopicConfig::default() }
    }

    pub(crate) fn producer(&self) -> ProducerOptions {
        let compression = match self.compression {
            Codec::None => Compression::None,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd { level: ZSTD_LEVEL },
        };
        ProducerOptions {
            batch_bytes: BATCH_BYTES,
            compression: Some(compression),
            ..ProducerOptions::default()
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, partitions, compression, durability, .. } = self;
        let partition = if *partitions == 1 { "partition" } else { "partitions" };
        let (compression, durability) = (compression.name(), durability.name());
        write!(f, "{bytes} B, {partitions} {partition}, {compression}, {durability}")
    }
}
