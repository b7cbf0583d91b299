//! A worker: its share of every task, stepped on one thread.
//!
//! It is driven from outside: [`Command`]s go in, [`Report`]s come out, both plain data, and
//! [`Worker::step`] does a bounded piece of work and says whether there was any. Between two steps it may be
//! left alone until its waker is called or a command is there. It never blocks.
//!
//! Tasks are stepped from the last to the first, so that what is downstream makes room before what is
//! upstream needs it: as the graph has no cycle, the last task can always go on, and full queues empty
//! themselves. A source is polled only while its task has nothing left to do.
//!
//! ```text
//!              Barrier(e)      sources idle       all tasks past the barrier         all in the log
//!   Flowing(e) ─────────▶ Due(e) ─────────▶ Aligning(e) ───────── Aligned ─▶ Flushing(e) ─ Flushed ─▶ Flowing(e+1)
//! ```
//!
//! After an error the worker is dropped, with all that it held; nothing of it was committed.

use std::sync::Arc;

use lotic_log::{Clock, Timestamp};

use crate::epoch::Epoch;
use crate::epoch_writer::EpochWriter;
use crate::error::Result;
use crate::skew::SkewBoard;
use crate::source::{AtHand, SourcePoll, SourceSplit};
use crate::state::{StateAccess, StorePressure};
use crate::task::{Lent, Task};

/// What a worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The transaction of this epoch is open: what is written for it may go to the log.
    Begun(Epoch),
    /// End this epoch: sources emit its barrier. Never while an earlier one travels, nor before the one
    /// before this is begun.
    Barrier(Epoch),
    /// This epoch is committed.
    Committed(Epoch),
    /// Timeless sources are read on all workers and what they gave is in state: the others may begin.
    StartSources,
}

/// What a worker tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The timeless sources are read to their end; also where there are none. Once.
    Loaded,
    /// This epoch has something to commit: a source was read, or something was written. Once an epoch.
    Active(Epoch),
    /// Every task has passed the barrier of this epoch on. From the splits all before these places has been
    /// consumed.
    Aligned {
        /// The epoch.
        epoch: Epoch,
        /// Where each of this worker's splits stands.
        splits: Vec<SourceSplit>,
    },
    /// All that this epoch wrote has been given to the log. After `Aligned`, and after `Begun`.
    Flushed(Epoch),
    /// All sources have ended, and so has every task. Once.
    Ended,
}

/// How often in a row a source that is waited for is polled ahead of the one whose record is earliest: one that
/// always has more would keep it from being read, where a time lies far ahead of all others.
const TURNS_AHEAD_MAX: u32 = 64;

/// One worker.
pub struct Worker {
    pub(crate) index: usize,
    pub(crate) tasks: Vec<Task>,
    pub(crate) sources: Vec<WorkerSource>,
    pub(crate) writer: EpochWriter,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shared: Shared,
    pub(crate) gate: Gate,
    pub(crate) ending: Ending,
    pub(crate) reports: Vec<Report>,
    /// The newest epoch that was reported active.
    pub(crate) active: Epoch,
    pub(crate) is_ended: bool,
    /// How often in a row a source was polled ahead of the one whose record is earliest.
    pub(crate) turns_ahead: u32,
}

/// What a worker sees of the others.
pub(crate) struct Shared {
    pub(crate) board: Arc<SkewBoard>,
    /// The stores of each worker, for how full they are: what a source reads here may change state there.
    pub(crate) state: Arc<[StateAccess]>,
}

/// A task of this worker that has a source at its root.
pub(crate) struct WorkerSource {
    /// The task's place.
    pub(crate) task: usize,
    /// The source step's name.
    pub(crate) name: String,
    pub(crate) is_timeless: bool,
    /// Whether what others read waits for its watermark, somewhere downstream.
    pub(crate) is_awaited: bool,
    pub(crate) state: SourceState,
}

/// How it stands with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceState {
    /// It may be polled.
    Reading,
    /// A timeless one that has been read to its end in this epoch.
    Loaded,
    /// It is used up.
    Ended,
}

/// Which sources may be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Timeless ones, until they are read to their end.
    Loading,
    /// None: the timeless ones are read, on this worker.
    Held,
    /// All; timeless ones first.
    Open,
}

/// How far the worker is with ending an epoch.
pub(crate) enum Ending {
    /// Nothing is to be ended.
    Flowing,
    /// Sources with no event on its way emit the barrier; the others still have to.
    Due { epoch: Epoch, missing: Vec<usize>, splits: Vec<SourceSplit> },
    /// The barrier travels.
    Aligning { epoch: Epoch, splits: Vec<SourceSplit> },
    /// The transaction has not begun.
    Flushing(Epoch),
}

impl Worker {
    /// Its number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Takes a command. What it asks for is done in the steps that follow; a commit is taken in at once.
    ///
    /// # Errors
    /// Those of appending to the log, and of the steps that are told of a commit.
    pub fn handle(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Begun(epoch) => self.writer.begin(epoch),
            Command::Committed(epoch) => self.tasks.iter_mut().try_for_each(|task| task.committed(epoch)),
            Command::Barrier(epoch) => {
                assert!(matches!(self.ending, Ending::Flowing), "one epoch is ended at a time");
                let missing = (0..self.sources.len()).collect();
                self.ending = Ending::Due { epoch, missing, splits: Vec::new() };
                Ok(())
            }
            Command::StartSources => {
                self.gate = Gate::Open;
                Ok(())
            }
        }
    }

    /// Does a bounded piece of work. Whether anything was done; if not, nothing can be until the waker is
    /// called or a command comes.
    ///
    /// # Errors
    /// The first error of a step or of the log. The worker is of no use after that.
    pub fn step(&mut self) -> Result<bool> {
        let now = self.clock.now();
        let mut progressed = self.step_tasks(now)?;
        progressed |= self.end_epoch()?;
        progressed |= self.poll_sources(now)?;
        self.report_written();
        self.report_end();
        Ok(progressed)
    }

    /// What there is to tell since the last call, in order.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    fn step_tasks(&mut self, now: Timestamp) -> Result<bool> {
        let mut progressed = false;
        for task in self.tasks.iter_mut().rev() {
            progressed |= task.step(&mut Lent { writer: &mut self.writer, processing_time: now })?;
        }
        Ok(progressed)
    }

    /// Moves the end of an epoch along. Whether it moved.
    fn end_epoch(&mut self) -> Result<bool> {
        match std::mem::replace(&mut self.ending, Ending::Flowing) {
            Ending::Flowing => Ok(false),
            Ending::Due { epoch, missing, splits } => Ok(self.emit_barriers(epoch, missing, splits)),
            Ending::Aligning { epoch, splits } => {
                let aligned = self.tasks.iter().all(|task| task.epoch() > epoch);
                if aligned {
                    self.reports.push(Report::Aligned { epoch, splits });
                    self.flush(epoch)?;
                } else {
                    self.ending = Ending::Aligning { epoch, splits };
                }
                Ok(aligned)
            }
            Ending::Flushing(epoch) => self.flush(epoch),
        }
    }

    /// Has sources emit the barrier, those of them that can. Whether any did.
    fn emit_barriers(&mut self, epoch: Epoch, mut missing: Vec<usize>, mut splits: Vec<SourceSplit>) -> bool {
        let before = missing.len();
        missing.retain(|&index| {
            let source = &mut self.sources[index];
            let task = &mut self.tasks[source.task];
            if !task.may_close() {
                return true;
            }
            assert_eq!(task.epoch(), epoch, "epochs are ended in order");
            let positions = task.begin_barrier().into_iter();
            splits.extend(positions.map(|state| SourceSplit { source: source.name.clone(), state }));
            if source.state == SourceState::Loaded {
                source.state = SourceState::Reading;
            }
            false
        });
        let progressed = missing.len() < before;
        self.ending = if missing.is_empty() {
            Ending::Aligning { epoch, splits }
        } else {
            Ending::Due { epoch, missing, splits }
        };
        progressed || before == 0
    }

    /// Gives what `epoch` wrote to the log. Whether all of it could be given.
    fn flush(&mut self, epoch: Epoch) -> Result<bool> {
        let flushed = self.writer.flush(epoch)?;
        if flushed {
            self.reports.push(Report::Flushed(epoch));
        } else {
            self.ending = Ending::Flushing(epoch);
        }
        Ok(flushed)
    }

    /// Polls sources as far as their tasks have room: timeless ones first, then the one whose
    /// [turn](Turn) it is, and each that has nothing at hand. Whether any had something.
    fn poll_sources(&mut self, now: Timestamp) -> Result<bool> {
        let progressed = self.poll_timeless(now)?;
        let is_loading = self.sources.iter().any(WorkerSource::is_loading);
        if self.gate == Gate::Loading && !is_loading {
            self.gate = Gate::Held;
            self.reports.push(Report::Loaded);
        }
        if self.gate != Gate::Open || is_loading {
            return Ok(progressed);
        }
        Ok(self.poll_timed(now)? || progressed)
    }

    fn poll_timeless(&mut self, now: Timestamp) -> Result<bool> {
        let mut progressed = false;
        for index in 0..self.sources.len() {
            if self.sources[index].is_loading() && self.may_poll(index) {
                progressed |= self.poll(index, now)?;
            }
        }
        Ok(progressed)
    }

    fn poll_timed(&mut self, now: Timestamp) -> Result<bool> {
        let mut progressed = false;
        let mut turn = Turn::default();
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            if source.is_timeless || source.state != SourceState::Reading {
                continue;
            }
            match self.tasks[source.task].at_hand()? {
                Some(at_hand) => turn.offer(index, at_hand, source.is_awaited),
                None if self.may_poll(index) => progressed |= self.poll(index, now)?,
                None => {}
            }
        }
        self.shared.board.publish(self.index, turn.earliest.map(|(_, at_hand)| at_hand.first));
        let earliest = turn.earliest.map(|(index, _)| index);
        for (index, at_hand) in turn.of(self.turns_ahead < TURNS_AHEAD_MAX) {
            if self.may_poll(index) && self.shared.board.may_read(self.index, at_hand.first) {
                self.turns_ahead = if Some(index) == earliest { 0 } else { self.turns_ahead + 1 };
                return Ok(self.poll(index, now)? || progressed);
            }
        }
        Ok(progressed)
    }

    /// Whether a source's task can take what a poll gives, and there is room for what state may change by it:
    /// if not, an epoch must end, and its commit wakes the worker. A barrier that is due has gone first: the
    /// task would not be idle.
    fn may_poll(&self, index: usize) -> bool {
        let task = &self.tasks[self.sources[index].task];
        let state_is_full = || self.shared.state.iter().any(|state| state.pressure() == StorePressure::Hold);
        task.is_idle() && self.writer.has_room(task.epoch()) && !state_is_full()
    }

    /// Polls a source. Whether it had something.
    fn poll(&mut self, index: usize, now: Timestamp) -> Result<bool> {
        let source = &mut self.sources[index];
        let task = &mut self.tasks[source.task];
        let polled = task.poll_source(&mut Lent { writer: &mut self.writer, processing_time: now })?;
        match polled {
            SourcePoll::Ready => {
                let epoch = task.epoch();
                self.report_active(epoch);
            }
            SourcePoll::Pending if source.is_timeless => source.state = SourceState::Loaded,
            SourcePoll::Pending => {}
            SourcePoll::Ended => source.state = SourceState::Ended,
        }
        Ok(polled != SourcePoll::Pending)
    }

    fn report_written(&mut self) {
        let next = self.active.next();
        let written = self.tasks.iter().map(Task::epoch).max().filter(|&epoch| epoch >= next);
        if let Some(epoch) = written
            && self.writer.has_written(epoch)
        {
            self.report_active(epoch);
        }
    }

    fn report_active(&mut self, epoch: Epoch) {
        if epoch > self.active {
            self.active = epoch;
            self.reports.push(Report::Active(epoch));
        }
    }

    fn report_end(&mut self) {
        if !self.is_ended && self.tasks.iter().all(Task::has_ended) {
            self.is_ended = true;
            self.reports.push(Report::Ended);
        }
    }
}

impl WorkerSource {
    /// Whether it is read before all others.
    fn is_loading(&self) -> bool {
        self.is_timeless && self.state == SourceState::Reading
    }
}

/// Whose turn it is of the sources that have something at hand: that of the one whose next record is earliest.
/// But first that of those that its frame would wait for: else most of it would have to be kept in state.
#[derive(Default)]
struct Turn {
    earliest: Option<(usize, AtHand)>,
    /// The one whose watermark is least, of those that are waited for.
    awaited: Option<(usize, AtHand)>,
}

impl Turn {
    fn offer(&mut self, index: usize, at_hand: AtHand, is_awaited: bool) {
        if self.earliest.is_none_or(|(_, earliest)| at_hand.first < earliest.first) {
            self.earliest = Some((index, at_hand));
        }
        if is_awaited && self.awaited.is_none_or(|(_, awaited)| at_hand.watermark < awaited.watermark) {
            self.awaited = Some((index, at_hand));
        }
    }

    /// The sources to be polled, the first that can be.
    fn of(&self, may_go_ahead: bool) -> impl Iterator<Item = (usize, AtHand)> + use<> {
        let Self { earliest, awaited } = *self;
        let last = earliest.filter(|_| may_go_ahead).map(|(_, earliest)| earliest.last);
        let awaited = awaited.filter(|(_, awaited)| last.is_some_and(|last| awaited.watermark <= last));
        awaited.into_iter().chain(earliest)
    }
}

#[cfg(test)]
mod tests;
