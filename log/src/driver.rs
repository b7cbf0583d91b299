//! Who moves background work along, and how a waiter waits.
//!
//! Work (group commits, transactions) is stepped: a step looks at what has come in and at which syncs
//! have ended, starts what can start, and never waits. Under [`Drive::Thread`] the log's thread steps
//! and sleeps on a [`Signal`] in between; under [`Drive::Manual`] whoever waits steps.

use std::cell::Cell;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::spawn::Drive;

thread_local! {
    static STANDS_IN: Cell<bool> = const { Cell::new(false) };
}

/// Does on this thread what the log's thread would do otherwise.
pub(crate) fn stand_in<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            STANDS_IN.set(self.0);
        }
    }

    let _restore = Restore(STANDS_IN.replace(true));
    work()
}

/// Something that is moved along by steps.
pub(crate) trait Steps: Send + Sync + 'static {
    /// Does what can be done now. Says whether anything was.
    fn step(&self) -> bool;
}

/// Raised when a step may find something to do. Counts, so that no raise is lost between looking and waiting.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn raise(&self) {
        *self.raised.lock() += 1;
        self.changed.notify_all();
    }

    /// How often it was raised: what [`Self::wait_past`] is given.
    pub(crate) fn raised(&self) -> u64 {
        *self.raised.lock()
    }

    /// Waits until it was raised more often than `seen`, or for `timeout`.
    pub(crate) fn wait_past(&self, seen: u64, timeout: Option<Duration>) {
        let mut raised = self.raised.lock();
        while *raised == seen {
            match timeout {
                None => self.changed.wait(&mut raised),
                Some(timeout) => {
                    self.changed.wait_for(&mut raised, timeout);
                    return;
                }
            }
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

/// Steps the work, or leaves that to the log's thread.
pub(crate) struct Driver {
    drive: Drive,
    signal: Arc<Signal>,
    work: Weak<dyn Steps>,
    /// The log's thread, once it runs.
    thread: OnceLock<ThreadId>,
}

impl Driver {
    /// Drives `work`.
    pub(crate) fn new(drive: Drive, work: Weak<dyn Steps>) -> Arc<Self> {
        Arc::new(Self { drive, signal: Arc::default(), work, thread: OnceLock::new() })
    }

    pub(crate) fn drive(&self) -> Drive {
        self.drive
    }

    /// Whether the log's thread is the one that asks, or one that [stands in](stand_in) for it. It must not wait for
    /// what it does itself.
    pub(crate) fn is_own_thread(&self) -> bool {
        STANDS_IN.get() || self.thread.get() == Some(&std::thread::current().id())
    }

    /// Says that a step may find something to do.
    pub(crate) fn raise(&self) {
        self.signal.raise();
    }

    /// How often a step was asked for.
    #[cfg(test)]
    pub(crate) fn raised(&self) -> u64 {
        self.signal.raised()
    }

    /// Raises the signal when it is woken.
    pub(crate) fn waker(&self) -> Waker {
        self.signal.clone().into()
    }

    /// Steps until `poll` has an answer. Under [`Drive::Manual`] only: it waits for the storage where
    /// there is nothing else to do. `None` if the work is gone.
    pub(crate) fn step_until<T>(&self, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let seen = self.signal.raised();
            if let Some(answer) = poll() {
                return Some(answer);
            }
            if !self.work.upgrade()?.step() {
                self.signal.wait_past(seen, None);
            }
        }
    }

    /// The log's thread: steps until told to stop. `deadline` says how long there is nothing to do but
    /// by a signal.
    pub(crate) fn run(
        &self,
        is_stopping: impl Fn() -> bool,
        step: impl Fn() -> bool,
        deadline: impl Fn() -> Option<Duration>,
    ) {
        self.thread.get_or_init(|| std::thread::current().id());
        while !is_stopping() {
            let seen = self.signal.raised();
            if !step() && !is_stopping() {
                self.signal.wait_past(seen, deadline());
            }
        }
    }
}
