//! One side of a comparison, as a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::case::{Case, Safety};
use super::{parsed, plain, work};
use crate::Failure;
use crate::measure::{Cost, in_process, peak_memory};
use crate::programs::timed;

/// What a side is to do. Not for users: the benchmarks start it.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Side {
    /// Writes a new log.
    Produce {
        #[command(flatten)]
        case: Case,
        #[arg(long)]
        payload: PathBuf,
        #[arg(long)]
        data: PathBuf,
        /// In transactions of so many milliseconds.
        #[arg(long)]
        transaction_ms: Option<u64>,
    },
    /// Reads what is there.
    Consume {
        #[arg(long)]
        records: u64,
        #[arg(long)]
        data: PathBuf,
    },
    /// Writes as many bytes to files, in turn, a batch at a time.
    Write {
        #[arg(long)]
        bytes: u64,
        #[arg(long)]
        durability: Safety,
        /// One of them; as many as there are partitions.
        #[arg(long = "file", required = true)]
        files: Vec<PathBuf>,
    },
    /// Reads files, a batch at a time.
    Read {
        /// One of them.
        #[arg(long = "file", required = true)]
        files: Vec<PathBuf>,
    },
    /// Sends one record after the other to a consumer that waits.
    Latency {
        #[arg(long)]
        records: u64,
        #[arg(long)]
        durability: Safety,
        #[arg(long)]
        data: PathBuf,
        /// A file that as many records are written to and synced, in turn with the others.
        #[arg(long)]
        beside: Option<PathBuf>,
    },
    /// Writes so many bytes, reads them, and lets go of what is old; looks at its memory after each so many.
    Soak {
        #[arg(long)]
        bytes: u64,
        #[arg(long)]
        each: u64,
        #[arg(long)]
        data: PathBuf,
    },
    /// Writes each of `keys` keys again and again, and compacts.
    Compact {
        #[arg(long)]
        records: u64,
        #[arg(long)]
        keys: u64,
        #[arg(long)]
        value_bytes: usize,
        #[arg(long)]
        data: PathBuf,
    },
}

/// What a side tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    wall: Duration,
    cpu: Duration,
    peak: u64,
    /// What was asked for besides, in order: percentiles of latency, bytes compacted, bytes of memory.
    pub(crate) more: Vec<f64>,
}

impl Told {
    pub(crate) fn cost(&self) -> Cost {
        Cost { wall: self.wall, cpu: self.cpu, peak: self.peak }
    }
}

impl Side {
    /// Does it, and prints what it took.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut more = Vec::new();
        let cost = match self {
            Self::Produce { case, payload, data, transaction_ms } => {
                work::produce(case, payload, data, transaction_ms.map(Duration::from_millis))?
            }
            Self::Consume { records, data } => work::consume(*records, data)?,
            Self::Write { bytes, durability, files } => {
                in_process(|| plain::write(files, *bytes, *durability == Safety::Sync))?
            }
            Self::Read { files } => in_process(|| plain::read(files))?,
            Self::Latency { records, durability, data, beside } => in_process(|| {
                more = work::latencies(*records, *durability, data, beside.as_deref())?;
                Ok(())
            })?,
            Self::Soak { bytes, each, data } => in_process(|| {
                more = work::soak(*bytes, *each, data)?;
                Ok(())
            })?,
            Self::Compact { records, keys, value_bytes, data } => {
                let (cost, bytes) = work::compact(*records, *keys, *value_bytes, data)?;
                more.push(bytes as f64);
                cost
            }
        };
        let told = Told { wall: cost.wall, cpu: cost.cpu, peak: peak_memory("self"), more };
        println!("{}", serde_json::to_string(&told)?);
        Ok(())
    }
}

/// Runs a side: its name, then its arguments.
pub(crate) fn run<I: AsRef<std::ffi::OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = I>,
) -> Result<Told, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let (_, printed) = timed(command.arg("side").arg(name).args(arguments))?;
    parsed(&printed)
}

/// The bytes of the segments in a directory of partitions, indexes left out.
pub(crate) fn segment_bytes(directory: &Path, topic: &str) -> Result<u64, Failure> {
    let mut total = 0;
    for partition in std::fs::read_dir(directory)? {
        let partition = partition?;
        let name = partition.file_name();
        let is_of_topic =
            name.to_str().and_then(|name| name.rsplit_once('-')).is_some_and(|(of, _)| of == topic);
        if !is_of_topic {
            continue;
        }
        for file in std::fs::read_dir(partition.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|extension| extension == "log") {
                total += file.metadata()?.len();
            }
        }
    }
    Ok(total)
}
