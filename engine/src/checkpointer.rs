//! Takes checkpoints beside the running flow, one at a time, and a last one at its orderly end. Only a
//! restart's length depends on them, so a failed one is reported and the next one tried when it is due.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

use lotic_log::spawn::spawn;

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::options::CheckpointOptions;
use crate::processor::Stuck;
use crate::state::{CheckpointId, StateHome, TombstoneFloors};

/// Decides when a checkpoint is due, and has it taken on a thread of its own.
pub(crate) struct Checkpointer {
    home: Arc<dyn StateHome>,
    floors: Arc<TombstoneFloors>,
    options: CheckpointOptions,
    /// Where the last one was begun.
    epoch: Epoch,
    at: Duration,
    /// Where the one that is being taken will say how it went.
    running: Option<Receiver<Result<CheckpointId>>>,
}

impl Checkpointer {
    /// One for a flow that was opened at an epoch, at a time on the clock's elapsed time.
    pub(crate) fn new(
        home: Arc<dyn StateHome>,
        floors: Arc<TombstoneFloors>,
        options: CheckpointOptions,
        (epoch, now): (Epoch, Duration),
    ) -> Self {
        Self { home, floors, options, epoch, at: now, running: None }
    }

    /// Begins a checkpoint if one is due, and takes note of one that has ended. How many have succeeded.
    pub(crate) fn step(&mut self, epoch: Epoch, now: Duration) -> u64 {
        let taken = match self.running.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => 0,
            Some(Ok(taken)) => self.note(taken),
            Some(Err(TryRecvError::Disconnected)) => self.note(Err(panicked())),
        };
        let is_due =
            epoch.0 - self.epoch.0 >= self.options.epochs_min && now - self.at >= self.options.interval;
        if is_due && self.running.is_none() {
            (self.epoch, self.at) = (epoch, now);
            self.begin();
        }
        taken
    }

    /// Waits for the one that is being taken, but no longer than `limit`. How many have succeeded.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<u64, Stuck> {
        let Some(running) = &self.running else { return Ok(0) };
        match running.recv_timeout(limit) {
            Ok(taken) => Ok(self.note(taken)),
            Err(RecvTimeoutError::Disconnected) => Ok(self.note(Err(panicked()))),
            Err(RecvTimeoutError::Timeout) => {
                let what = format!("a checkpoint was not taken within {limit:?} and is left behind");
                Err(Stuck { what })
            }
        }
    }

    /// Takes one at the orderly end of a flow at `epoch`, if any epoch was committed since the last: should
    /// the live store be lost, the next start reads no changelog behind it. How many have succeeded. `limit`
    /// is for each.
    pub(crate) fn finish_at(&mut self, epoch: Epoch, limit: Duration) -> Result<u64, Stuck> {
        let taken = self.finish(limit)?;
        if epoch == self.epoch {
            return Ok(taken);
        }
        self.begin();
        Ok(taken + self.finish(limit)?)
    }

    fn begin(&mut self) {
        let (home, floors) = (Arc::clone(&self.home), Arc::clone(&self.floors));
        let keep = self.options.keep;
        let (say, heard) = sync_channel(1);
        let body = move || {
            let taken = take(&*home, &floors, keep);
            drop((home, floors));
            // Nobody listens where it took too long.
            let _ = say.send(taken);
        };
        match spawn("lotic-checkpoint", body) {
            Ok(_) => self.running = Some(heard),
            Err(error) => tracing::warn!(%error, "no thread for a checkpoint"),
        }
    }

    fn note(&mut self, taken: Result<CheckpointId>) -> u64 {
        self.running = None;
        match taken {
            Ok(checkpoint) => {
                tracing::info!(%checkpoint, "checkpoint taken");
                1
            }
            Err(error) => {
                tracing::warn!(%error, "a checkpoint failed; the next one is tried when it is due");
                0
            }
        }
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Io, "taking it panicked")
}

/// Takes a checkpoint, and removes those that are too old then, and with them the need for old deletions.
pub(crate) fn take(home: &dyn StateHome, floors: &TombstoneFloors, keep: usize) -> Result<CheckpointId> {
    let taken = home.take()?;
    home.retire(keep)?;
    if let Err(error) = floors.raise(home) {
        tracing::warn!(%error, "changelogs keep deletions for longer than they need to");
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_log::MemoryLog;
    use crate::state::MemoryState;

    fn no_floors() -> Arc<TombstoneFloors> {
        Arc::new(TombstoneFloors::new(MemoryLog::new(), Vec::new()))
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_checkpoint_is_due_after_so_many_epochs_and_so_much_time_and_old_ones_go() {
        let home = MemoryState::new();
        let options = CheckpointOptions { epochs_min: 2, interval: Duration::from_secs(10), keep: 1 };
        let seconds = Duration::from_secs;
        let mut checkpointer =
            Checkpointer::new(Arc::new(home.clone()), no_floors(), options, (Epoch(5), seconds(100)));
        let mut check = |epoch, at, expected| {
            checkpointer.step(Epoch(epoch), seconds(at));
            checkpointer.finish(LIMIT).ok().unwrap();
            let newest = home.checkpoints().unwrap().first().map(|checkpoint| checkpoint.0);
            assert_eq!(newest, expected);
        };
        check(6, 200, None);
        check(7, 109, None);
        check(7, 110, Some(1));
        check(8, 130, Some(1));
        check(9, 130, Some(2));
        assert_eq!(home.checkpoints().unwrap().len(), 1);
    }

    #[test]
    fn an_orderly_end_takes_one_unless_the_last_holds_all() {
        let home = MemoryState::new();
        let options = CheckpointOptions { epochs_min: 1, interval: Duration::from_secs(10), keep: 2 };
        let mut checkpointer =
            Checkpointer::new(Arc::new(home.clone()), no_floors(), options, (Epoch(5), Duration::ZERO));
        let mut finish_at = |epoch| checkpointer.finish_at(Epoch(epoch), LIMIT).ok();
        assert_eq!(finish_at(5), Some(0), "nothing was committed");
        checkpointer.step(Epoch(6), Duration::from_secs(10));
        let mut finish_at = |epoch| checkpointer.finish_at(Epoch(epoch), LIMIT).ok();
        assert_eq!(finish_at(6), Some(1), "the one that was being taken holds all");
        assert_eq!(finish_at(7), Some(1));
        assert_eq!(home.checkpoints().unwrap().len(), 2);
    }
}
