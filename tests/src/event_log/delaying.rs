//! A log that takes its time, and may not say how a commit ended: as a cluster does, over a network.

use std::collections::HashMap;
use std::sync::Arc;

use lotic_engine::epoch::Epoch;
use lotic_engine::error::Result;
use lotic_engine::event_log::{
    AppendTicket, CommitPoll, EventLog, Fetched, PartitionKey, TopicHandle, TopicSpec,
};
use lotic_log::batch::SealedBatch;
use lotic_log::{Offset, Pin};
use parking_lot::Mutex;

/// What really becomes of a commit whose outcome is then not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is decided.
    Committed,
    /// The request never arrives.
    Lost,
}

/// Delays every acknowledgement and decision of a log by some steps.
pub struct Delaying {
    inner: Arc<dyn EventLog>,
    delay_steps: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Steps until appends are acknowledged.
    appends: usize,
    /// Steps until a commit is answered.
    commit: usize,
    unknown: HashMap<Epoch, Outcome>,
}

impl Delaying {
    /// `inner`, slowed down by `delay_steps`.
    pub fn new(inner: Arc<dyn EventLog>, delay_steps: usize) -> Arc<Self> {
        Arc::new(Self { inner, delay_steps, state: Mutex::default() })
    }

    /// From now on the commit of `epoch` ends as `outcome` says, and is answered as unknown.
    pub fn answer_unknown(&self, epoch: Epoch, outcome: Outcome) {
        self.state.lock().unknown.insert(epoch, outcome);
    }
}

impl EventLog for Delaying {
    fn resolve(&self, spec: &TopicSpec) -> Result<TopicHandle> {
        self.inner.resolve(spec)
    }

    fn find(&self, name: &str) -> Result<Option<TopicHandle>> {
        self.inner.find(name)
    }

    fn fetch(&self, partition: PartitionKey, from: Offset, bytes_max: usize) -> Result<Option<Fetched>> {
        self.inner.fetch(partition, from, bytes_max)
    }

    fn start_offset(&self, partition: PartitionKey) -> Result<Offset> {
        self.inner.start_offset(partition)
    }

    fn stable_offset(&self, partition: PartitionKey) -> Result<Offset> {
        self.inner.stable_offset(partition)
    }

    fn pin(&self, partition: PartitionKey, from: Offset) -> Result<Option<Pin>> {
        self.inner.pin(partition, from)
    }

    fn raise_tombstone_floor(&self, partition: PartitionKey, floor: Offset) -> Result<Offset> {
        self.inner.raise_tombstone_floor(partition, floor)
    }

    fn hold(&self) -> Result<()> {
        self.inner.hold()
    }

    fn begin(&self, epoch: Epoch) -> Result<()> {
        self.inner.begin(epoch)
    }

    fn append(&self, partition: PartitionKey, batch: SealedBatch) -> Result<AppendTicket> {
        self.state.lock().appends = self.delay_steps;
        self.inner.append(partition, batch)
    }

    fn ends(&self) -> Result<Option<Vec<(PartitionKey, Offset)>>> {
        if self.state.lock().appends > 0 { Ok(None) } else { self.inner.ends() }
    }

    fn commit(&self, epoch: Epoch, consumed: &[(PartitionKey, Offset)]) -> Result<()> {
        let lost = {
            let mut state = self.state.lock();
            assert_eq!(state.appends, 0, "a commit waits until every append is acknowledged");
            state.commit = self.delay_steps;
            state.unknown.get(&epoch) == Some(&Outcome::Lost)
        };
        if lost { Ok(()) } else { self.inner.commit(epoch, consumed) }
    }

    fn poll_commit(&self, epoch: Epoch) -> Result<CommitPoll> {
        let (waits, unknown) = {
            let state = self.state.lock();
            (state.commit > 0, state.unknown.get(&epoch).copied())
        };
        match unknown {
            _ if waits => Ok(CommitPoll::Pending),
            Some(Outcome::Lost) => Ok(CommitPoll::Unknown),
            told => match self.inner.poll_commit(epoch)? {
                CommitPoll::Committed if told.is_some() => Ok(CommitPoll::Unknown),
                answer => Ok(answer),
            },
        }
    }

    fn abort(&self) -> Result<()> {
        self.inner.abort()
    }

    fn step(&self) -> Result<bool> {
        let delayed = {
            let mut state = self.state.lock();
            let delayed = state.appends > 0 || state.commit > 0;
            state.appends = state.appends.saturating_sub(1);
            state.commit = state.commit.saturating_sub(1);
            delayed
        };
        Ok(self.inner.step()? || delayed)
    }

    fn on_progress(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.inner.on_progress(wake);
    }
}
