//! The ceiling: the same bytes, moved by a plain loop.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use lotic_log::{Clock, SystemClock};

use super::case::BATCH_BYTES;
use super::work::percentiles;
use crate::Failure;

/// What one record of 100 bytes takes in a batch of its own.
const LONE_BATCH_BYTES: usize = 170;

/// Writes batches to the files in turn, and syncs each before the next.
pub(crate) fn write(paths: &[PathBuf], bytes: u64, syncs: bool) -> Result<(), Failure> {
    let chunk = vec![b'x'; BATCH_BYTES];
    let mut files = paths.iter().map(File::create).collect::<Result<Vec<_>, _>>()?;
    for batch in 0..bytes / BATCH_BYTES as u64 {
        let turn = batch as usize % files.len();
        files[turn].write_all(&chunk)?;
        if syncs {
            files[turn].sync_data()?;
        }
    }
    Ok(())
}

pub(crate) fn read(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut chunk = vec![0; BATCH_BYTES];
    for path in paths {
        let mut file = File::open(path)?;
        while file.read(&mut chunk)? > 0 {
            std::hint::black_box(&chunk);
        }
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
