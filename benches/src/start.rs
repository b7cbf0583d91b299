//! Opening a log whose process was killed with SIGKILL in the middle of writing: one partition of 1 and of
//! 10 GB, and a thousand partitions; beside Kafka's broker, killed behind the same bytes. What was written is
//! in the page cache still, as it is after a kill.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use lotic_log::batch::{BatchBuilder, Compression, SealedBatch};
use lotic_log::storage::SyncPurpose;
use lotic_log::storage::counting::CountingStorage;
use lotic_log::{Clock, Log, LogOptions, SystemClock, Timestamp, TopicConfig};

use crate::Failure;
use crate::kafka::Started;
use crate::log::case::{Codec, Safety};
use crate::log::{self, broker_in, payload};
use crate::measure::median;

/// Bytes of a record's value.
const VALUE_BYTES: usize = 1000;

/// Records of a batch.
const BATCH_RECORDS: usize = 64;

/// Bytes between two group commits of the writer.
const FLUSH_BYTES: u64 = 8 << 20;

/// How much the writer appends beyond what it was asked for before it is killed.
const EXTRA_BYTES: u64 = 40 << 20;

const TOPIC: &str = "bench";

/// A broker that starts again is let in when the session of the one that was killed is over: 9 s unless told
/// otherwise, which has nothing to do with its data.
const SHORT_SESSION: [&str; 2] = ["broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=300"];

struct Case {
    name: &'static str,
    partitions: i32,
    bytes: u64,
}

const CASES: [Case; 3] = [
    Case { name: "1 partition, 1 GB", partitions: 1, bytes: 1 << 30 },
    Case { name: "1000 partitions, 1 GB", partitions: 1000, bytes: 1 << 30 },
    Case { name: "1 partition, 10 GB", partitions: 1, bytes: 10 << 30 },
];

/// What the process that is killed is told.
#[derive(Debug, Args)]
pub(crate) struct Victim {
    /// Where it writes.
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    partitions: i32,
    /// How many at least, before it says that it may be killed.
    #[arg(long)]
    bytes: u64,
    #[arg(long)]
    durability: Safety,
}

impl Victim {
    /// Writes; returns only for an error.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        write_on(&self.data, self.partitions, self.bytes, self.durability)
    }
}

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    println!("\nOpening after SIGKILL");
    for case in &CASES {
        for durability in Safety::ALL {
            // Writing takes longest: one log of each is enough to be opened several times.
            measure(case, durability, runs)?;
        }
        measure_kafka(case, runs)?;
    }
    Ok(())
}

fn measure(case: &Case, durability: Safety, runs: usize) -> Result<(), Failure> {
    let mut opened = Vec::new();
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    for run in 0..runs {
        // The first run writes all of it, each later one a little more.
        let bytes = if run == 0 { case.bytes } else { 0 };
        kill_a_writer(&data, case, durability, bytes)?;
        opened.push(open(&data, durability)?);
    }
    opened.sort_by_key(|opened| opened.wall);
    let Opened { wall, reads, read_bytes, scanned_bytes } = opened[opened.len() / 2];
    let name = format!("{}, {}", case.name, durability.name());
    println!(
        "  {name:<30} {:>8.3} s   {reads:>7} reads of {:>7.1} MB   {:>7.1} MB of batches scanned",
        wall.as_secs_f64(),
        megabytes(read_bytes),
        megabytes(scanned_bytes),
    );
    Ok(())
}

/// The same with a broker that syncs when the system does, as brokers do.
fn measure_kafka(case: &Case, runs: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let payload_file = folder.path().join("payload");
    payload::write(&payload_file, VALUE_BYTES)?;
    let Some(mut kafka) = broker_in(&folder.path().join("data"), &SHORT_SESSION) else { return Ok(()) };
    let mut started = Vec::new();
    for run in 0..runs {
        let bytes = if run == 0 { case.bytes + EXTRA_BYTES } else { EXTRA_BYTES };
        let produced = log::case::Case {
            records: bytes / VALUE_BYTES as u64,
            bytes: VALUE_BYTES,
            partitions: case.partitions,
            compression: Codec::None,
            durability: Safety::Os,
        };
        kafka.produce(&produced, &payload_file, None)?;
        started.push(kafka.kill_and_start()?);
    }
    let middle =
        |of: fn(&Started) -> Duration| median(started.iter().map(|one| of(one).as_secs_f64()).collect());
    println!(
        "  {:<30} {:>8.3} s   until it answers; {:.3} s of it loading its partitions",
        format!("{}, Kafka", case.name),
        middle(|started| started.wall),
        middle(|started| started.loading),
    );
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[derive(Clone, Copy)]
struct Opened {
    wall: Duration,
    reads: u64,
    read_bytes: u64,
    scanned_bytes: u64,
}

/// Opens the log, and leaves it as a killed process leaves it.
fn open(data: &Path, durability: Safety) -> Result<Opened, Failure> {
    let options = durability.log_options()?;
    let counting = CountingStorage::new(options.storage.clone());
    let clock = SystemClock::new();
    let log = Log::open(data, LogOptions { storage: counting.clone(), ..options })?;
    let wall = clock.elapsed();
    let counts = counting.counts();
    let scanned_bytes = log.recovery_report().iter().map(|report| report.scanned_bytes).sum();
    drop(log);
    Ok(Opened { wall, reads: counts.reads, read_bytes: counts.read_bytes, scanned_bytes })
}

/// Has another process write so many bytes and some more, and kills it while it does.
fn kill_a_writer(data: &Path, case: &Case, durability: Safety, bytes: u64) -> Result<(), Failure> {
    let mut writer = Command::new(std::env::current_exe()?)
        .args(["victim", "--data"])
        .arg(data)
        .args(["--partitions", &case.partitions.to_string(), "--bytes", &bytes.to_string()])
        .args(["--durability", durability.name()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let output = writer.stdout.take().ok_or("the writer has no output")?;
    BufReader::new(output).read_line(&mut said)?;
    writer.kill()?;
    writer.wait()?;
    if said.is_empty() { Err("the writer ended before it was killed".into()) } else { Ok(()) }
}

fn write_on(directory: &Path, partitions: i32, bytes: u64, durability: Safety) -> Result<(), Failure> {
    let log = Log::open(directory, durability.log_options()?)?;
    let topic = match log.topic(TOPIC) {
        Ok(topic) => topic,
        Err(_) => log.create_topic(TOPIC, TopicConfig { partitions, ..TopicConfig::default() })?,
    };
    let batch = batch()?;
    let (mut written, mut flushed, mut is_told) = (0, 0, false);
    for partition in topic.partitions().iter().cycle() {
        partition.append(batch.clone())?;
        written += batch.len_bytes() as u64;
        if durability == Safety::Sync && written - flushed >= FLUSH_BYTES {
            log.flush(topic.partitions(), SyncPurpose::Records).wait()?;
            flushed = written;
        }
        if !is_told && written >= bytes + EXTRA_BYTES {
            println!("it may be killed");
            is_told = true;
        }
    }
    Ok(())
}

fn batch() -> Result<SealedBatch, Failure> {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![b'x'; VALUE_BYTES];
    for number in 0..BATCH_RECORDS as i64 {
        builder.push(Timestamp(number), Some(&number.to_be_bytes()), Some(&value), &[])?;
    }
    Ok(builder.seal())
}
