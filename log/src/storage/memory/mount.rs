//! The disk as one process sees it.

use std::io;
use std::sync::Arc;

use super::super::observed::{Call, ObservedStorage, Observer};
use super::MemoryStorage;

/// The disk for one process.
pub(super) type Mount = ObservedStorage<Process>;

/// Dead once the disk has crashed or its processes were killed: what a test still holds of an ended
/// process must not write to the disk that the next one has opened.
pub(super) struct Process {
    storage: Arc<MemoryStorage>,
    generation: u64,
}

impl Mount {
    pub(super) fn new(storage: Arc<MemoryStorage>, generation: u64) -> Arc<Self> {
        Self::observed_by(Process { storage: storage.clone(), generation }, storage)
    }
}

impl Observer for Process {
    fn before(&self, _call: Call<'_>) -> io::Result<()> {
        self.storage.disk.lock().alive(self.generation)
    }
}
