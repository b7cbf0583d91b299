//! The ceiling: the same bytes, moved by a plain loop.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use lotic_log::{Clock, SystemClock};

use super::case::BATCH_BYTES;
use super::work::percentiles;
use crate::Failure;

/// What one record of 100 bytes takes in a batch of its own.
const LONE_BATCH_BYTES: usize = 170;

pub(crate) fn write(path: &Path, bytes: u64, syncs: bool) -> Result<(), Failure> {
    let chunk = vec![b'x'; BATCH_BYTES];
    let mut file = File::create(path)?;
    for _ in 0..bytes / BATCH_BYTES as u64 {
        file.write_all(&chunk)?;
        if syncs {
            file.sync_data()?;
        }
    }
    Ok(())
}

pub(crate) fn read(path: &Path) -> Result<(), Failure> {
    let mut chunk = vec![0; BATCH_BYTES];
    let mut file = File::open(path)?;
    while file.read(&mut chunk)? > 0 {
        std::hint::black_box(&chunk);
    }
    Ok(())
}

/// Percentiles of writing and syncing a batch of one record.
pub(crate) fn sync_latencies(path: &Path, records: u64) -> Result<Vec<f64>, Failure> {
    let clock = SystemClock::new();
    let mut file = File::create(path)?;
    let mut times = Vec::with_capacity(records as usize);
    for _ in 0..records {
        let before = clock.elapsed();
        file.write_all(&[b'x'; LONE_BATCH_BYTES])?;
        file.sync_data()?;
        times.push(clock.elapsed() - before);
    }
    Ok(percentiles(&mut times))
}
