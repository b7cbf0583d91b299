//! The ceiling: the same bytes, moved by a plain loop.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lotic_log::Clock;

use super::case::BATCH_BYTES;
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

/// A file that a batch of one record is written to and synced, again and again.
pub(crate) struct SyncedFile(File);

impl SyncedFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        Ok(Self(File::create(path)?))
    }

    /// How long one write and its fdatasync took.
    pub(crate) fn append(&mut self, clock: &dyn Clock) -> Result<Duration, Failure> {
        let before = clock.elapsed();
        self.0.write_all(&[b'x'; LONE_BATCH_BYTES])?;
        self.0.sync_data()?;
        Ok(clock.elapsed() - before)
    }
}
