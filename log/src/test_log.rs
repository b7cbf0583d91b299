//! A log in memory for the tests of what stands on it.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use crate::clock::{Clock, ManualClock, SystemClock};
use crate::log::{Log, LogOptions};
use crate::partition::Durability;
use crate::spawn::Drive;
use crate::storage::memory::MemoryStorage;
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
        let storage = MemoryStorage::new(7);
        let manual = ManualClock::new();
        let clock: Arc<dyn Clock> = match drive {
            Drive::Manual => manual.clone(),
            Drive::Thread => SystemClock::new(),
        };
        let options = LogOptions { drive, ..LogOptions::manual(storage.clone(), clock, 7) };
        let log = Log::open("/log", options).expect("an empty log");
        Self { log, storage, clock: manual }
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> Topic {
        self.create_topic_with(name, partitions, Durability::Sync)
    }

    pub(crate) fn create_topic_with(&self, name: &str, partitions: i32, durability: Durability) -> Topic {
        let config = TopicConfig { partitions, durability: Some(durability), ..TopicConfig::default() };
        self.log.create_topic(name, config).expect("a new topic")
    }

    /// The next thing that is written is not synced: its sync fails.
    pub(crate) fn fail_sync_after_next_write(&self) {
        self.storage.fail_with(io::ErrorKind::Other, 1);
    }
}

impl Deref for TestLog {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}
