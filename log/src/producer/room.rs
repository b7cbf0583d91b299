//! Waiting for room in a producer's buffer: blocking, or as a future. Both give up after a while.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::MutexGuard;

use super::accumulator::{Measured, Pushed};
use super::{Destination, Shared, State, writer};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::spawn::Drive;

/// Somebody who waits for room without blocking.
pub(super) struct RoomWaiter {
    waker: Waker,
    /// When it gives up, on the clock's elapsed time.
    deadline: Duration,
}

impl Shared {
    /// The state, once it has room for a record. The `deadline`, on the clock's elapsed time, is set when
    /// there is none: few who send have to look at the clock for it.
    ///
    /// # Errors
    /// `Closed` if nobody is left to write it; `Timeout` if there is no room by the deadline.
    pub(super) fn wait_for_room(
        &self,
        measured: Measured<'_>,
        deadline: &mut Option<Duration>,
    ) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        while !self.has_room(&state, measured)? {
            let now = self.log.clock().elapsed();
            let deadline = *deadline.get_or_insert(now.saturating_add(self.options.max_block));
            let left = deadline.saturating_sub(now);
            if left == Duration::ZERO {
                return Err(self.no_room());
            }
            state.is_hurried = true;
            match self.log.drive() {
                Drive::Thread => {
                    self.due.notify_one();
                    self.room.wait_for(&mut state, left);
                }
                Drive::Manual => {
                    drop(state);
                    self.advance();
                    state = self.state.lock();
                }
            }
        }
        Ok(state)
    }

    /// Puts a record into its batch, once there is room; does not block.
    pub(super) async fn push_async(&self, to: Destination<'_>, record: &Record) -> Result<Pushed> {
        let measured = self.measure(to, record)?;
        let deadline = self.log.clock().elapsed().saturating_add(self.options.max_block);
        loop {
            let poll = |context: &mut Context<'_>| self.poll_push(to, measured, deadline, context);
            if let Some(pushed) = poll_fn(poll).await? {
                return Ok(pushed);
            }
            self.resolve(to.topic)?;
        }
    }

    fn poll_push(
        &self,
        to: Destination<'_>,
        measured: Measured<'_>,
        deadline: Duration,
        context: &Context<'_>,
    ) -> Poll<Result<Option<Pushed>>> {
        let mut state = self.state.lock();
        match self.has_room(&state, measured) {
            Err(error) => Poll::Ready(Err(error)),
            Ok(true) => Poll::Ready(self.push_into(state, to, measured)),
            Ok(false) if deadline <= self.log.clock().elapsed() => Poll::Ready(Err(self.no_room())),
            Ok(false) => {
                state.is_hurried = true;
                state.waiting.push(RoomWaiter { waker: context.waker().clone(), deadline });
                self.due.notify_one();
                Poll::Pending
            }
        }
    }

    fn has_room(&self, state: &State, measured: Measured<'_>) -> Result<bool> {
        if state.is_dead {
            return Err(writer::gone());
        }
        Ok(state.accumulator.held_bytes() + measured.lone_batch_bytes_max() <= self.options.buffer_bytes_max)
    }

    fn no_room(&self) -> Error {
        let (bytes, waited) = (self.options.buffer_bytes_max, self.options.max_block);
        let what = format!("the record was not sent: the producer's {bytes} bytes were full for {waited:?}");
        Error::new(ErrorKind::Timeout, what)
    }

    /// Wakes whoever waits for room: all of them, or those that give up now.
    pub(super) fn wake_waiting(&self, all: bool) {
        let now = self.log.clock().elapsed();
        let mut state = self.state.lock();
        let (woken, waiting) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|waiter| all || waiter.deadline <= now);
        state.waiting = waiting;
        drop(state);
        if all {
            self.room.notify_all();
        }
        woken.into_iter().for_each(|waiter| waiter.waker.wake());
    }
}

impl State {
    /// When the first of those who wait for room gives up.
    pub(super) fn next_to_give_up(&self) -> Option<Duration> {
        self.waiting.iter().map(|waiter| waiter.deadline).min()
    }
}
