//! Takes checkpoints beside the running flow, one at a time. Only a restart's length depends on them, so a
//! failed one is reported and the next one tried when it is due.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lotic_log::spawn::spawn;

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::options::CheckpointOptions;
use crate::state::{CheckpointId, StateHome};

/// Decides when a checkpoint is due, and has it taken on a thread of its own.
pub(crate) struct Checkpointer {
    home: Arc<dyn StateHome>,
    options: CheckpointOptions,
    /// Where the last one was begun.
    epoch: Epoch,
    at: Duration,
    running: Option<JoinHandle<Result<CheckpointId>>>,
}

impl Checkpointer {
    /// One for a flow that was opened at `epoch`, at `now` of the clock's elapsed time.
    pub(crate) fn new(
        home: Arc<dyn StateHome>,
        options: CheckpointOptions,
        epoch: Epoch,
        now: Duration,
    ) -> Self {
        Self { home, options, epoch, at: now, running: None }
    }

    /// Begins a checkpoint if one is due, and takes note of one that has ended. How many have succeeded.
    pub(crate) fn step(&mut self, epoch: Epoch, now: Duration) -> u64 {
        let taken = match self.running.take_if(|running| running.is_finished()) {
            Some(ended) => self.note(ended),
            None => 0,
        };
        let is_due =
            epoch.0 - self.epoch.0 >= self.options.epochs_min && now - self.at >= self.options.interval;
        if is_due && self.running.is_none() {
            (self.epoch, self.at) = (epoch, now);
            let (home, keep) = (Arc::clone(&self.home), self.options.keep);
            let taking = move || {
                let taken = home.take()?;
                home.retire(keep)?;
                Ok(taken)
            };
            match spawn("lotic-checkpoint", taking) {
                Ok(running) => self.running = Some(running),
                Err(error) => tracing::warn!(%error, "no thread for a checkpoint"),
            }
        }
        taken
    }

    /// Waits for the one that is being taken. How many have succeeded.
    pub(crate) fn finish(&mut self) -> u64 {
        self.running.take().map_or(0, |running| self.note(running))
    }

    fn note(&self, ended: JoinHandle<Result<CheckpointId>>) -> u64 {
        let panicked = |_| Err(Error::new(ErrorKind::Io, "taking it panicked"));
        match ended.join().unwrap_or_else(panicked) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemoryState;

    #[test]
    fn a_checkpoint_is_due_after_so_many_epochs_and_so_much_time_and_old_ones_go() {
        let home = MemoryState::new();
        let options = CheckpointOptions { epochs_min: 2, interval: Duration::from_secs(10), keep: 1 };
        let seconds = Duration::from_secs;
        let mut checkpointer = Checkpointer::new(Arc::new(home.clone()), options, Epoch(5), seconds(100));
        let mut check = |epoch, at, expected| {
            checkpointer.step(Epoch(epoch), seconds(at));
            checkpointer.finish();
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
}
