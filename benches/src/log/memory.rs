//! Memory while much goes through: one process writes, reads what it writes, and deletes what is old.

use super::side;
use crate::Failure;

const GIGABYTE: u64 = 1 << 30;

const THROUGH: u64 = 20 * GIGABYTE;

/// Runs once, however many runs are asked for: what counts is the way, not the median.
pub(crate) fn run() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let arguments = ["--bytes", &THROUGH.to_string(), "--each", &(2 * GIGABYTE).to_string(), "--data", &data];
    let told = side::run("soak", arguments)?;
    println!("\nMemory: records of 1 KB, six partitions, written and read in one process");
    for (index, resident) in told.more.iter().enumerate() {
        println!("  after {:>2} GB   {:>6.1} MB resident", 2 * (index + 1), resident / 1e6);
    }
    println!("  at its peak  {:>6.1} MB", told.cost().peak as f64 / 1e6);
    Ok(())
}
