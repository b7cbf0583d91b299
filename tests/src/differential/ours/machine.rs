//! Where the log is, and what stops it; the passing of time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lotic_log::storage::disk::DiskStorage;
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::storage::{Entry, OpenMode, Storage};
use lotic_log::{Durability, Error, Log, LogOptions, ManualClock, SystemClock, TopicPartition};
use tempfile::TempDir;

use super::super::script::Script;
use crate::failure::Result;

/// Where the log is: on disk it is closed and opened again, in memory the power fails.
pub(super) enum Machine {
    Disk(TempDir, Arc<DiskStorage>),
    Memory(Arc<MemoryStorage>, Arc<ManualClock>),
}

impl Machine {
    pub(super) fn new(script: &Script) -> Result<Self> {
        Ok(if script.seed.is_multiple_of(2) || script.family.needs_manual_clock() {
            Self::Memory(MemoryStorage::new(script.seed), ManualClock::new())
        } else {
            Self::Disk(tempfile::tempdir()?, DiskStorage::new(1)?)
        })
    }

    pub(super) fn open(&self, seed: u64) -> Result<Log, Error> {
        match self {
            Self::Memory(storage, clock) => {
                Log::open("/log", LogOptions::manual(storage.mount(), clock.clone(), seed))
            }
            Self::Disk(folder, storage) => {
                let options = LogOptions::manual(storage.clone(), SystemClock::new(), seed);
                Log::open(folder.path(), LogOptions { durability: Durability::Os, ..options })
            }
        }
    }

    /// Lets time pass, where that can be said.
    pub(super) fn pass(&self, time: Duration) {
        if let Self::Memory(_, clock) = self {
            clock.advance(time);
        }
    }

    /// The base offset and the bytes of each segment of a partition.
    pub(super) fn segments(&self, log: &Log, partition: &TopicPartition) -> io::Result<Vec<(i64, u64)>> {
        let storage: Arc<dyn Storage> = match self {
            Self::Memory(storage, _) => storage.mount(),
            Self::Disk(_, storage) => storage.clone(),
        };
        let folder = log.directory().join(partition.to_string());
        let mut segments = Vec::new();
        for Entry { name, .. } in storage.list(&folder)? {
            if let Some(base) = name.strip_suffix(".log") {
                let base = base.parse().map_err(io::Error::other)?;
                segments.push((base, storage.open(&folder.join(&name), OpenMode::Read)?.len()?));
            }
        }
        Ok(segments)
    }

    /// Stops what runs. It is opened again after that.
    pub(super) fn stop(&self, log: &Log) -> Result<(), Error> {
        match self {
            // The log's storage is dead from here on.
            Self::Memory(storage, _) => {
                storage.crash();
                Ok(())
            }
            Self::Disk(..) => log.close(),
        }
    }
}
