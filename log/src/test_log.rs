//! A log in memory for the tests of what stands on it.

use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::clock::{Clock, ManualClock, SystemClock};
use crate::log::{Log, LogOptions};
use crate::partition::Durability;
use crate::spawn::Drive;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::topic::{Topic, TopicConfig};

/// An open log in memory.
pub(crate) struct TestLog {
    log: Log,
    storage: Arc<MemoryStorage>,
    /// The log's clock under [`Drive::Manual`]; a log with a thread goes by the machine's.
    pub(crate) clock: Arc<ManualClock>,
}

impl TestLog {
    pub(crate) fn new(drive: Drive) -> Self {
        Self::on(MemoryStorage::new(7), drive)
    }

    /// A log that the caller steps, on a disk that crashes as `seed` says.
    pub(crate) fn crashing(seed: u64) -> Self {
        Self::on(MemoryStorage::new(seed), Drive::Manual)
    }

    fn on(storage: Arc<MemoryStorage>, drive: Drive) -> Self {
        let manual = ManualClock::new();
        let clock: Arc<dyn Clock> = match drive {
            Drive::Manual => manual.clone(),
            Drive::Thread => SystemClock::new(),
        };
        let options = LogOptions { drive, ..LogOptions::manual(storage.clone(), clock, 7) };
        let log = Log::open("/log", options).expect("a log that opens");
        Self { log, storage, clock: manual }
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> Topic {
        self.create_topic_with(name, partitions, Durability::Sync)
    }

    pub(crate) fn create_topic_with(&self, name: &str, partitions: i32, durability: Durability) -> Topic {
        let config = TopicConfig { partitions, durability: Some(durability), ..TopicConfig::default() };
        self.log.create_topic(name, config).expect("a new topic")
    }

    pub(crate) fn create_topic_as(&self, name: &str, config: TopicConfig) -> Topic {
        self.log.create_topic(name, config).expect("a new topic")
    }

    /// When syncs of files take effect.
    pub(crate) fn set_sync_mode(&self, mode: SyncMode) {
        self.storage.set_sync_mode(mode);
    }

    /// Syncs end only when somebody asks, for as long as what this returns is there. Whoever is dropped after it,
    /// in a test that has failed too, finds a disk that answers.
    pub(crate) fn delay_syncs(&self) -> DelayedSyncs<'_> {
        self.set_sync_mode(SyncMode::Delayed);
        DelayedSyncs(self)
    }

    /// Completes the syncs that are delayed.
    pub(crate) fn complete_syncs(&self) {
        self.storage.complete_syncs();
    }

    /// The same log, as another process sees it.
    pub(crate) fn open_read_only(&self) -> Log {
        let options = LogOptions::manual(self.storage.clone(), self.clock.clone(), 8);
        Log::open_read_only("/log", options).expect("a log that opens")
    }

    /// Pulls the plug at the `operations`-th write or sync from now.
    pub(crate) fn pull_plug_after(&self, operations: u64) {
        self.storage.fail_after(operations);
    }

    /// Cuts the power, and opens what is left.
    pub(crate) fn crash(self) -> Self {
        let storage = self.storage.clone();
        drop(self);
        storage.clear_faults();
        storage.crash();
        Self::on(storage, Drive::Manual)
    }

    /// Damages a byte of a file below the log's directory.
    pub(crate) fn damage(&self, file: &str, position: u64) {
        let path = Path::new("/log").join(file);
        self.storage.corrupt(&path, position, 1).expect("the byte is there");
    }

    /// The next thing that is written fails.
    pub(crate) fn fail_next_write(&self) {
        self.storage.fail_with(io::ErrorKind::Other, 0);
    }

    /// The next thing that is written is not synced: its sync fails.
    pub(crate) fn fail_sync_after_next_write(&self) {
        self.storage.fail_with(io::ErrorKind::Other, 1);
    }
}

/// What [`TestLog::delay_syncs`] returns.
pub(crate) struct DelayedSyncs<'a>(&'a TestLog);

impl Drop for DelayedSyncs<'_> {
    fn drop(&mut self) {
        self.0.set_sync_mode(SyncMode::Immediate);
        self.0.complete_syncs();
    }
}

impl Deref for TestLog {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}
