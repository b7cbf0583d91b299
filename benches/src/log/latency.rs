//! How long a record takes from `send` to a consumer that waits for it; where it is synced, in turn with a plain
//! write and sync, beside which it is measured.

use super::case::Safety;
use super::{broker, side};
use crate::Failure;
use crate::measure::median;

/// How many are told of a side: the 50th, the 99th and the 99.9th, in microseconds.
const PERCENTILES: usize = 3;

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    for durability in Safety::ALL {
        let settings: &[&str] =
            if durability == Safety::Sync { &["log.flush.interval.messages=1"] } else { &[] };
        let kafka = broker(settings);
        let records = if durability == Safety::Os { 20_000 } else { 3_000 };
        let (mut lotic, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            lotic.push(of_lotic(records, durability)?);
            if let Some(kafka) = &kafka {
                theirs.push(kafka.latency(records)?);
            }
        }
        println!("\nLatency, one record of 100 B at a time, {}", durability.name());
        let (lotic, disk): (Vec<_>, Vec<_>) = lotic.iter().map(|run| run.split_at(PERCENTILES)).unzip();
        print("Lotic, in one process", &lotic);
        if durability == Safety::Sync {
            print("write and fdatasync, in turn", &disk);
            let ratio = |index: usize| {
                median(lotic.iter().zip(&disk).map(|(lotic, disk)| lotic[index] / disk[index]).collect())
            };
            let [p50, p99, p999] = [0, 1, 2].map(ratio);
            println!("  Lotic at {p50:.2}x, {p99:.2}x and {p999:.2}x of that, the median over the runs");
        }
        print("Kafka, in whole ms", &theirs);
    }
    Ok(())
}

fn of_lotic(records: u64, durability: Safety) -> Result<Vec<f64>, Failure> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (records, data, plain) = (records.to_string(), path("data"), path("plain"));
    let mut arguments = vec!["--records", &records, "--durability", durability.name(), "--data", &data];
    if durability == Safety::Sync {
        arguments.extend(["--beside", &plain]);
    }
    Ok(side::run("latency", arguments)?.more)
}

/// The median of each percentile over the runs.
fn print(name: &str, runs: &[impl AsRef<[f64]>]) {
    if runs.is_empty() {
        return;
    }
    let of = |index: usize| median(runs.iter().map(|run| run.as_ref()[index]).collect());
    println!("  {name:<32} p50 {:>9.0} µs   p99 {:>9.0} µs   p99.9 {:>9.0} µs", of(0), of(1), of(2));
}
