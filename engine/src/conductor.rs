//! Carries out what the [`EpochCoordinator`] decides: tells workers, appends the epoch record, commits.
//!
//! Stepped by one thread, or by a simulator. It never blocks: between two steps it may be left alone until
//! its bell rings or [`Conductor::idle_time`] has passed.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use lotic_log::batch::{BatchBuilder, Compression};
use lotic_log::{Clock, Offset, PartitionId};

use crate::epoch::Epoch;
use crate::epoch_coordinator::{
    Action, Awaiting, Ends, EpochCoordinator, OutOfOrder, TriggerFacts, trigger_due,
};
use crate::epoch_record::{self, EpochRecord, RecordedEnd, RecordedTopic};
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, PartitionKey, TopicHandle, Topics};
use crate::seat::Mailbox;
use crate::source::{Position, SourceSplit};
use crate::state::{StateAccess, StorePressure};
use crate::worker::{Command, Report};

/// What a conductor is made of.
pub(crate) struct ConductorSetup {
    pub(crate) flow: String,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) epochs: TopicHandle,
    /// Every topic that the flow reads or writes, changelogs included.
    pub(crate) topics: Topics,
    pub(crate) fingerprint: String,
    /// How far behind the watermark of each source stays.
    pub(crate) disorder_ms: BTreeMap<String, i64>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    /// The stores of each worker.
    pub(crate) state: Vec<StateAccess>,
    /// The record of the last committed epoch, on which the workers were opened.
    pub(crate) last: Option<EpochRecord>,
    pub(crate) epoch_interval: Duration,
    /// Whether there are timeless sources, for which the others wait.
    pub(crate) holds_sources: bool,
}

/// Conducts the workers of one attempt from epoch to epoch.
pub(crate) struct Conductor {
    setup: ConductorSetup,
    machine: EpochCoordinator,
    /// The newest epoch whose transaction was opened.
    begun: Epoch,
    /// By worker: where its splits stood, until its writer has given all to the log.
    aligned: Vec<Option<Vec<SourceSplit>>>,
    /// What the present epoch reached and consumed, once that is known.
    ends: Ends,
    consumed: Vec<(PartitionKey, Offset)>,
    /// The newest epoch in which a worker did something.
    active: Epoch,
    /// How many workers have read their timeless sources to the end.
    loaded: usize,
    has_started_sources: bool,
    /// How many workers have come to the end of bounded input.
    ended: usize,
    is_stopping: bool,
    /// The epoch that holds all that was read when the stop was asked for.
    last: Option<Epoch>,
    triggered_at: Duration,
    batch: BatchBuilder,
}

/// How it stands with the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It goes on.
    Running,
    /// All input has ended, or a stop was asked for; all of it is committed, and every worker has taken that
    /// in: state is applied, external sinks show it.
    Finished,
}

impl Conductor {
    /// A conductor of workers that are opened on the last committed epoch.
    pub(crate) fn new(setup: ConductorSetup) -> Self {
        let last_committed = setup.last.as_ref().map_or(Epoch(0), |last| last.epoch);
        Self {
            machine: EpochCoordinator::new(last_committed),
            begun: last_committed,
            aligned: vec![None; setup.mailboxes.len()],
            ends: Vec::new(),
            consumed: Vec::new(),
            active: last_committed,
            loaded: 0,
            has_started_sources: !setup.holds_sources,
            ended: 0,
            is_stopping: false,
            last: None,
            triggered_at: setup.clock.elapsed(),
            batch: BatchBuilder::new(Compression::None),
            setup,
        }
    }

    /// The last committed epoch.
    pub(crate) fn last_committed(&self) -> Epoch {
        Epoch(self.machine.epoch().0 - 1)
    }

    /// Asks for a stop: what has been read by now is committed, and that is the end. What workers read
    /// behind the last barrier is dropped; it is read again by the next run.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        let is_over = self.is_stopping || self.ended == self.setup.mailboxes.len();
        let is_committed = !self.is_dirty() || self.is_behind_the_last();
        let is_settled = self.setup.mailboxes.iter().all(|mailbox| mailbox.is_settled());
        if is_over && self.machine.awaiting() == Awaiting::Trigger && is_committed && is_settled {
            Standing::Finished
        } else {
            Standing::Running
        }
    }

    /// How long there is nothing to do unless the bell rings; `None` for as long as it does not.
    pub(crate) fn idle_time(&self) -> Option<Duration> {
        if self.machine.awaiting() != Awaiting::Trigger || !self.is_dirty() {
            return None;
        }
        let running = self.setup.clock.elapsed().saturating_sub(self.triggered_at);
        Some(self.setup.epoch_interval.saturating_sub(running))
    }

    /// Bytes of state that the workers hold in memory.
    pub(crate) fn state_bytes(&self) -> usize {
        self.setup.state.iter().map(StateAccess::memory_bytes).sum()
    }

    /// Does what can be done now. Whether anything was.
    pub(crate) fn step(&mut self) -> Result<bool> {
        let mut progressed = self.setup.log.step()?;
        progressed |= self.take_reports()?;
        progressed |= self.start_sources();
        progressed |= self.begin_epoch()?;
        progressed |= self.advance_epoch()?;
        Ok(progressed)
    }

    /// Nothing more comes of the open epoch.
    pub(crate) fn abandon(&mut self) -> Result<()> {
        self.machine.stop();
        self.setup.log.abort()
    }

    fn take_reports(&mut self) -> Result<bool> {
        let mut progressed = false;
        for worker in 0..self.setup.mailboxes.len() {
            for report in self.setup.mailboxes[worker].take_reports() {
                progressed = true;
                self.take_report(worker, report)?;
            }
        }
        Ok(progressed)
    }

    fn take_report(&mut self, worker: usize, report: Report) -> Result<()> {
        match report {
            Report::Loaded => self.loaded += 1,
            Report::Active(epoch) => self.active = self.active.max(epoch),
            Report::Aligned { splits, .. } => self.aligned[worker] = Some(splits),
            Report::Flushed(epoch) => {
                let splits = self.aligned[worker].take();
                let splits = splits.expect("a worker aligns before it has flushed");
                self.machine.aligned(worker, epoch, splits).map_err(our_bug)?;
            }
            Report::Ended => self.ended += 1,
        }
        Ok(())
    }

    /// Whether the epoch with which the flow stops is committed.
    fn is_behind_the_last(&self) -> bool {
        self.last.is_some_and(|last| last < self.machine.epoch())
    }

    /// Whether the running epoch holds anything.
    fn is_dirty(&self) -> bool {
        self.active >= self.machine.epoch()
    }

    /// Lets the other sources begin once what the timeless ones gave is in an epoch of its own.
    fn start_sources(&mut self) -> bool {
        let is_due = !self.has_started_sources
            && self.loaded == self.setup.mailboxes.len()
            && self.machine.awaiting() == Awaiting::Trigger
            && !self.is_dirty();
        if is_due {
            self.has_started_sources = true;
            self.tell(&Command::StartSources);
        }
        is_due
    }

    /// Opens the transaction of the running epoch once there is something for it: a flow with nothing to do
    /// writes nothing. Whether it did.
    fn begin_epoch(&mut self) -> Result<bool> {
        let epoch = self.machine.epoch();
        if self.begun >= epoch || !self.is_dirty() || self.is_behind_the_last() {
            return Ok(false);
        }
        let is_first = self.begun == self.setup.last.as_ref().map_or(Epoch(0), |last| last.epoch);
        self.begun = epoch;
        self.setup.log.begin(epoch)?;
        if is_first {
            let last = self.setup.last.as_ref();
            epoch_record::check_is_last(&*self.setup.log, &self.setup.epochs, last)
                .map_err(|error| error.within(format!("flow {}", self.setup.flow)))?;
        }
        self.tell(&Command::Begun(epoch));
        Ok(true)
    }

    fn advance_epoch(&mut self) -> Result<bool> {
        let action = match self.machine.awaiting() {
            Awaiting::Alignment | Awaiting::Nothing => None,
            Awaiting::Trigger if self.is_behind_the_last() => None,
            Awaiting::Trigger => match trigger_due(self.facts()) {
                Some(reason) => {
                    tracing::debug!(flow = self.setup.flow, epoch = %self.machine.epoch(), ?reason, "epoch ends");
                    Some(self.machine.trigger(self.setup.mailboxes.len()).map_err(our_bug)?)
                }
                None => None,
            },
            Awaiting::Acknowledgement => match self.setup.log.ends()? {
                Some(ends) => Some(self.machine.acknowledged(ends).map_err(our_bug)?),
                None => None,
            },
            Awaiting::RecordAcknowledgement => match self.setup.log.ends()? {
                Some(_) => Some(self.machine.recorded().map_err(our_bug)?),
                None => None,
            },
            Awaiting::Decision => {
                let epoch = self.machine.epoch();
                let poll = self.setup.log.poll_commit(epoch)?;
                let decided = self.machine.decided(poll).map_err(our_bug)?;
                decided.map_err(|failure| {
                    failure.into_error(epoch).within(format!("flow {}", self.setup.flow))
                })?
            }
        };
        let progressed = action.is_some();
        action.map_or(Ok(()), |action| self.carry_out(action))?;
        Ok(progressed)
    }

    fn facts(&self) -> TriggerFacts {
        let is_loaded = !self.has_started_sources && self.loaded == self.setup.mailboxes.len();
        TriggerFacts {
            running: self.setup.clock.elapsed().saturating_sub(self.triggered_at),
            interval: self.setup.epoch_interval,
            dirty: self.is_dirty(),
            over_budget: self.setup.state.iter().any(|state| state.pressure() >= StorePressure::EndEpoch),
            quiescent: is_loaded || self.ended == self.setup.mailboxes.len(),
            stopping: self.is_stopping,
        }
    }

    fn carry_out(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Barrier(epoch) => {
                self.triggered_at = self.setup.clock.elapsed();
                if self.is_stopping {
                    self.last.get_or_insert(epoch);
                }
                self.tell(&Command::Barrier(epoch));
                Ok(())
            }
            Action::Record { epoch, splits, ends } => self.record(epoch, splits, ends),
            Action::Commit(epoch) => self.setup.log.commit(epoch, &self.consumed),
            Action::Release { committed } => {
                self.release(committed);
                Ok(())
            }
        }
    }

    /// Appends the record of an epoch, and notes what its commit needs.
    fn record(&mut self, epoch: Epoch, splits: Vec<SourceSplit>, ends: Ends) -> Result<()> {
        self.consumed = splits
            .iter()
            .filter_map(|split| self.consumed_partition(split).transpose())
            .collect::<Result<_>>()?;
        let record = EpochRecord {
            version: epoch_record::VERSION,
            epoch,
            fingerprint: self.setup.fingerprint.clone(),
            splits,
            ends: self.recorded_ends(&ends)?,
            topics: self.recorded_topics(),
            disorder_ms: self.setup.disorder_ms.clone(),
        };
        self.ends = ends;
        let mut value = Vec::new();
        record.encode(&mut value);
        let pushed = self.batch.push(self.setup.clock.now(), None, Some(&value), &[]);
        pushed.map_err(|error| {
            let context = format!("the record of epoch {epoch} of flow {}", self.setup.flow);
            Error::caused(ErrorKind::Invalid, context, error)
        })?;
        self.setup.log.append(epoch_record::partition(&self.setup.epochs), self.batch.seal())?;
        Ok(())
    }

    fn recorded_ends(&self, ends: &Ends) -> Result<Vec<RecordedEnd>> {
        let own = epoch_record::partition(&self.setup.epochs);
        let others = ends.iter().filter(|(partition, _)| *partition != own);
        others
            .map(|&(key, offset)| {
                let topic = self.setup.topics.by_index(key.topic).ok_or_else(|| {
                    let what = format!("an epoch wrote topic number {}, which is not the flow's", key.topic);
                    Error::new(ErrorKind::Invalid, what)
                })?;
                Ok(RecordedEnd::new(topic, key.partition, offset))
            })
            .collect()
    }

    fn recorded_topics(&self) -> Vec<RecordedTopic> {
        let mut topics: Vec<_> = self.setup.topics.iter().map(RecordedTopic::from).collect();
        topics.sort_unstable();
        topics
    }

    /// The partition of the log that a split reads, if it is one, and up to where.
    fn consumed_partition(&self, split: &SourceSplit) -> Result<Option<(PartitionKey, Offset)>> {
        match &split.state.position {
            Position::External(_) => Ok(None),
            Position::Topic { topic, partition, offset, .. } => {
                let topic = self.setup.topics.get(topic)?;
                let key = PartitionKey { topic: topic.index, partition: PartitionId(*partition) };
                Ok(Some((key, Offset(*offset))))
            }
        }
    }

    /// `committed` is over: workers take it to their state.
    fn release(&mut self, committed: Epoch) {
        let ends = mem::take(&mut self.ends);
        self.setup.state.iter().for_each(|state| state.publish_ends(committed, &ends));
        self.tell(&Command::Committed(committed));
        tracing::debug!(flow = self.setup.flow, epoch = %committed, "epoch committed");
    }

    fn tell(&self, command: &Command) {
        self.setup.mailboxes.iter().for_each(|mailbox| mailbox.command(command.clone()));
    }
}

/// A worker or this conductor has reported what cannot be.
fn our_bug(error: OutOfOrder) -> Error {
    debug_assert!(false, "{error}");
    Error::caused(ErrorKind::Restart, "the epoch protocol was broken", error)
}
