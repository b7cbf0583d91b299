//! The life of an epoch, as a pure state machine: facts come in, actions go out, nothing is done here.
//!
//! ```text
//!              trigger            last worker aligned        appends acknowledged
//!   Running ───────────▶ Aligning ───────────────────▶ Preparing ─────────────┐
//!      ▲                                                                      │ epoch record appended
//!      │                                                                      ▼
//!   (e is over) ◀─────────────── Deciding ◀─────────────────────────────── Recording
//!                 committed           commit submitted      record acknowledged
//!
//!   any ── aborted, fenced, unknown, or a worker failed ──▶ Stopped
//! ```
//!
//! Computation overlaps, transactions do not: from the barrier of `e` on the workers compute `e+1`, and what
//! that writes is staged until `e` is over and the transaction of `e+1` has begun, which it does as soon as
//! there is something for it. A trigger that falls due in the meantime waits for the end of `e`, so
//! that beside the running epoch's changes at most one epoch's are frozen; what is staged is bounded,
//! and full is backpressure on those workers that are past the barrier, never on those still before it.
//!
//! Nothing is believed of an epoch before it is decided, and its record is the last thing it appends.
//! If `e` fails, `e+1` is discarded with it: the machine stops, and a new one starts from the last epoch
//! record.

use std::fmt;
use std::mem;
use std::time::Duration;

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind};
use crate::event_log::{CommitPoll, PartitionKey};
use crate::source::SourceSplit;
use lotic_log::Offset;

/// Where every written partition ends in a transaction.
pub type Ends = Vec<(PartitionKey, Offset)>;

/// Steps epochs through their life, one at a time.
#[derive(Debug)]
pub struct EpochCoordinator {
    epoch: Epoch,
    phase: Phase,
}

/// Where the present epoch stands.
#[derive(Debug)]
enum Phase {
    /// Workers read and write. Its transaction is open, or will be with the first thing they do.
    Running,
    /// The barrier travels. What each worker's sources stood at when it passed, where it has arrived.
    Aligning(Vec<Option<Vec<SourceSplit>>>),
    /// Every worker has written all it has of this epoch; not all of it is acknowledged.
    Preparing(Vec<SourceSplit>),
    /// The epoch record is appended and not acknowledged.
    Recording,
    /// The commit is submitted.
    Deciding,
    /// It failed. Terminal.
    Stopped,
}

/// What the coordinator waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaiting {
    /// A reason to trigger.
    Trigger,
    /// Workers to align.
    Alignment,
    /// The log to acknowledge what was appended.
    Acknowledgement,
    /// The log to acknowledge the epoch record.
    RecordAcknowledgement,
    /// The log to decide.
    Decision,
    /// Nothing any more.
    Nothing,
}

/// What is to be done next, in answer to a fact.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Have the sources of every worker emit the barrier of this epoch.
    Barrier(Epoch),
    /// Append the record of this epoch, which is its last.
    Record {
        /// The epoch.
        epoch: Epoch,
        /// Where every split stood at the barrier, in order of split within worker.
        splits: Vec<SourceSplit>,
        /// Where every partition ends that the epoch wrote.
        ends: Ends,
    },
    /// Submit the commit of this epoch.
    Commit(Epoch),
    /// This epoch is decided and visible: tell the workers and sinks. The transaction of the one after may
    /// open.
    Release {
        /// The epoch that is over.
        committed: Epoch,
    },
}

/// Why the epoch cannot go on. The machine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The transaction was aborted.
    Aborted,
    /// Another processor has taken over.
    Fenced,
    /// Whether it was committed is not known.
    Unknown,
}

impl Failure {
    /// The error that says it of `epoch`.
    pub fn into_error(self, epoch: Epoch) -> Error {
        match self {
            Self::Aborted => Error::new(ErrorKind::Restart, format!("epoch {epoch} was aborted")),
            Self::Fenced => Error::new(
                ErrorKind::Fenced,
                format!("epoch {epoch} was not committed: another processor of this flow has taken over"),
            ),
            Self::Unknown => Error::new(
                ErrorKind::Unknown,
                format!("whether epoch {epoch} was committed is not known; the last epoch record will say"),
            ),
        }
    }
}

/// A fact that cannot be in the phase the epoch is in: whoever reports it has a bug.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfOrder {
    fact: String,
    phase: String,
}

impl fmt::Display for OutOfOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot happen while {}", self.fact, self.phase)
    }
}

impl std::error::Error for OutOfOrder {}

impl EpochCoordinator {
    /// A coordinator whose first epoch is the one after `last`.
    pub fn new(last: Epoch) -> Self {
        Self { epoch: last.next(), phase: Phase::Running }
    }

    /// The epoch that runs, or that is being committed.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What the epoch waits for.
    pub fn awaiting(&self) -> Awaiting {
        match self.phase {
            Phase::Running => Awaiting::Trigger,
            Phase::Aligning(_) => Awaiting::Alignment,
            Phase::Preparing(_) => Awaiting::Acknowledgement,
            Phase::Recording => Awaiting::RecordAcknowledgement,
            Phase::Deciding => Awaiting::Decision,
            Phase::Stopped => Awaiting::Nothing,
        }
    }

    /// The epoch is to end: its barrier sets out on `workers` workers.
    pub fn trigger(&mut self, workers: usize) -> Result<Action, OutOfOrder> {
        assert!(workers > 0, "a processor has a worker");
        match self.phase {
            Phase::Running => {
                self.phase = Phase::Aligning(vec![None; workers]);
                Ok(Action::Barrier(self.epoch))
            }
            _ => Err(self.out_of_order("a trigger")),
        }
    }

    /// The barrier of `epoch` has passed every task of `worker`, whose writer has appended all it had of it;
    /// `splits` say where its sources stood.
    pub fn aligned(
        &mut self,
        worker: usize,
        epoch: Epoch,
        splits: Vec<SourceSplit>,
    ) -> Result<(), OutOfOrder> {
        let expected = self.epoch;
        match &mut self.phase {
            Phase::Aligning(workers)
                if epoch == expected && workers.get(worker).is_some_and(Option::is_none) =>
            {
                workers[worker] = Some(splits);
                if workers.iter().all(Option::is_some) {
                    let splits = mem::take(workers).into_iter().flatten().flatten().collect();
                    self.phase = Phase::Preparing(splits);
                }
                Ok(())
            }
            _ => Err(self.out_of_order(&format!("worker {worker} aligned on epoch {epoch}"))),
        }
    }

    /// Every append of the epoch is acknowledged, and the transaction ends at `ends`.
    pub fn acknowledged(&mut self, ends: Ends) -> Result<Action, OutOfOrder> {
        match &mut self.phase {
            Phase::Preparing(splits) => {
                let splits = mem::take(splits);
                self.phase = Phase::Recording;
                Ok(Action::Record { epoch: self.epoch, splits, ends })
            }
            _ => Err(self.out_of_order("an acknowledgement of the epoch's appends")),
        }
    }

    /// The epoch record is acknowledged.
    pub fn recorded(&mut self) -> Result<Action, OutOfOrder> {
        match self.phase {
            Phase::Recording => {
                self.phase = Phase::Deciding;
                Ok(Action::Commit(self.epoch))
            }
            _ => Err(self.out_of_order("an acknowledgement of the epoch record")),
        }
    }

    /// The log says how the commit stands. `Ok(None)`: not decided yet.
    pub fn decided(&mut self, poll: CommitPoll) -> Result<Result<Option<Action>, Failure>, OutOfOrder> {
        if !matches!(self.phase, Phase::Deciding) {
            return Err(self.out_of_order(&format!("the decision {poll:?}")));
        }
        let failure = match poll {
            CommitPoll::Pending => return Ok(Ok(None)),
            CommitPoll::Committed => {
                let committed = self.epoch;
                self.epoch = committed.next();
                self.phase = Phase::Running;
                return Ok(Ok(Some(Action::Release { committed })));
            }
            CommitPoll::Aborted => Failure::Aborted,
            CommitPoll::Fenced => Failure::Fenced,
            CommitPoll::Unknown => Failure::Unknown,
        };
        self.phase = Phase::Stopped;
        Ok(Err(failure))
    }

    /// A worker or the log has failed: nothing more comes of this epoch or the next.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
    }

    fn out_of_order(&self, fact: &str) -> OutOfOrder {
        let phase = match &self.phase {
            Phase::Running => "running",
            Phase::Aligning(_) => "aligning",
            Phase::Preparing(_) => "preparing",
            Phase::Recording => "being recorded",
            Phase::Deciding => "being decided",
            Phase::Stopped => "stopped",
        };
        OutOfOrder { fact: fact.to_owned(), phase: format!("epoch {} is {phase}", self.epoch) }
    }
}

/// What the choice to end an epoch depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriggerFacts {
    /// How long ago the epoch before was triggered.
    pub running: Duration,
    /// How long an epoch may run.
    pub interval: Duration,
    /// Whether a source has consumed or a step has emitted anything that no epoch holds yet.
    pub dirty: bool,
    /// Whether changed state or staged output has reached its budget.
    pub over_budget: bool,
    /// Whether all there is to do until the next epoch is done: timeless tables are loaded and others wait
    /// for it, or all input has ended.
    pub quiescent: bool,
    /// Whether the processor is asked to stop, and sources read no more.
    pub stopping: bool,
}

/// Why an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerReason {
    /// It has run for the interval.
    Interval,
    /// The budget of changed state is used up.
    Budget,
    /// There is nothing more to do in it.
    Quiescent,
    /// The processor stops.
    Stop,
}

/// Whether an epoch that runs is to end now, and why. One that holds nothing is never ended: a flow with
/// nothing to do appends nothing.
pub fn trigger_due(facts: TriggerFacts) -> Option<TriggerReason> {
    if !facts.dirty {
        return None;
    }
    if facts.stopping {
        Some(TriggerReason::Stop)
    } else if facts.quiescent {
        Some(TriggerReason::Quiescent)
    } else if facts.over_budget {
        Some(TriggerReason::Budget)
    } else if facts.running >= facts.interval {
        Some(TriggerReason::Interval)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
