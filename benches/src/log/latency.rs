//! How long a record takes from `send` to a consumer that waits for it.

use super::case::Safety;
use super::{broker, side};
use crate::Failure;
use crate::measure::median;

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    for durability in Safety::ALL {
        let settings: &[&str] =
            if durability == Safety::Sync { &["log.flush.interval.messages=1"] } else { &[] };
        let kafka = broker(settings);
        let records = if durability == Safety::Os { 20_000 } else { 3_000 };
        let (mut lotic, mut disk, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            lotic.push(of_lotic(records, durability)?);
            if durability == Safety::Sync {
                disk.push(of_disk(records)?);
            }
            if let Some(kafka) = &kafka {
                theirs.push(kafka.latency(records)?);
            }
        }
        println!("\nLatency, one record of 100 B at a time, {}", durability.name());
        print("Lotic, in one process", &lotic);
        print("write and fdatasync", &disk);
        print("Kafka, in whole ms", &theirs);
    }
    Ok(())
}

fn of_lotic(records: u64, durability: Safety) -> Result<Vec<f64>, Failure> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let arguments = ["--records", &records.to_string(), "--durability", durability.name(), "--data", &data];
    Ok(side::run("latency", arguments)?.more)
}

fn of_disk(records: u64) -> Result<Vec<f64>, Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("plain").to_string_lossy().into_owned();
    Ok(side::run("sync-latency", ["--records", &records.to_string(), "--file", &file])?.more)
}

/// The median of each percentile over the runs.
fn print(name: &str, runs: &[Vec<f64>]) {
    if runs.is_empty() {
        return;
    }
    let of = |index: usize| median(runs.iter().map(|run| run[index]).collect());
    println!("  {name:<32} p50 {:>9.0} µs   p99 {:>9.0} µs   p99.9 {:>9.0} µs", of(0), of(1), of(2));
}
