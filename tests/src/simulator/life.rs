//! A life of the simulated processor: what it is like, and living it.

use std::time::Duration;

use lotic_engine::epoch::Epoch;
use lotic_engine::options::EngineOptions;
use lotic_log::Durability;
use lotic_log::storage::SyncPurpose;

use super::answer::Answer;
use super::world::{Interruption, World};

/// How a life goes.
#[derive(Clone, Debug)]
pub struct Life {
    /// From it follow input, order of steps, and what a crash keeps.
    pub seed: u64,
    /// How many batches of input there are before the flow is first opened.
    pub batches_first: usize,
    /// How many actions the script has, more input among them, before the flow is run to its end.
    pub actions: usize,
    /// What ends the processor before its time.
    pub blows: Vec<Blow>,
    /// Syncs that are left out.
    pub ignored: Option<SyncPurpose>,
    /// When what the flow and its producers write counts. [`RETURNS`](super::flow::RETURNS) are never synced.
    pub durability: Durability,
    /// How the flow is run.
    pub options: EngineOptions,
}

impl Life {
    /// A life without a power cut, with limits so tight that frames, queues and batches are full all the time.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            batches_first: 0,
            actions: 120,
            blows: Vec::new(),
            ignored: None,
            durability: Durability::Sync,
            options: tight_options(),
        }
    }

    /// The same life with these blows.
    #[must_use]
    pub fn with(mut self, blows: &[Blow]) -> Self {
        self.blows = blows.to_vec();
        self
    }

    /// The same life with another durability.
    #[must_use]
    pub fn lasting(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// The same life on a disk that leaves out the syncs for `purpose`.
    #[must_use]
    pub fn without_sync(mut self, purpose: SyncPurpose) -> Self {
        self.ignored = Some(purpose);
        self
    }
}

/// What ends a processor, so many storage operations after it began or came back the last time. That
/// operation may take effect in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The power fails: of what was not synced any part may be lost.
    PowerCut(u64),
    /// The process is killed: the page cache stays.
    Kill(u64),
}

impl Blow {
    pub(super) fn after(self) -> u64 {
        match self {
            Self::PowerCut(operations) | Self::Kill(operations) => operations,
        }
    }
}

/// The smallest limits that let a flow go on.
pub fn tight_options() -> EngineOptions {
    EngineOptions {
        workers: 2,
        epoch_interval: Duration::from_millis(5),
        frame_rows_max: 3,
        queue_messages_max: 2,
        dirty_bytes_max: 2_000,
        cache_bytes_max: 500,
        staged_bytes_max: 200,
        batch_bytes: 120,
        changelog_partitions: 3,
        source_skew_ms_max: 30,
        ..EngineOptions::default()
    }
}

/// What a life came to.
#[derive(Debug)]
pub struct Lived {
    /// How many storage operations it took.
    pub operations: u64,
    /// How many blows it took.
    pub blows: usize,
    /// How many partitions were taken back to a consistent cut.
    pub taken_back: usize,
    /// The last committed epoch.
    pub epochs: Epoch,
    /// The committed output.
    pub answer: Answer,
}

/// Lives it. The error says which promise was broken.
pub fn live(life: &Life) -> Result<Lived, String> {
    let mut world = World::new(life);
    let mut actions = life.actions;
    let mut blows = 0;
    loop {
        let lived = world.live_on(&mut actions);
        match lived {
            Ok(()) => break,
            Err(Interruption::Blow) => {
                blows += 1;
                world.take_blow();
            }
            Err(Interruption::Broken(promise)) => return Err(format!("{promise} (after {blows} blows)")),
        }
    }
    Ok(world.lived(blows))
}
