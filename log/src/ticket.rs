//! What a caller holds while the log works for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::spawn::Drive;

/// The outcome of a group commit, once there is one.
pub type FlushTicket = Ticket;

/// The outcome of a transaction, once there is one.
pub type CommitTicket = Ticket;

/// Something the log was asked to do and may still be doing. All clones tell the same outcome.
///
/// A future too: it resolves to what [`Self::wait`] returns. Under [`Drive::Manual`] awaiting it steps
/// nothing; somebody else has to.
#[derive(Clone)]
#[must_use = "whether it was done is only told here"]
pub struct Ticket {
    shared: Arc<Shared>,
    driver: Arc<Driver>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<()>>,
    wakers: Vec<Waker>,
}

impl State {
    /// The outcome; where there is none yet, `waker` is woken once there is.
    fn register(&mut self, waker: &Waker) -> Option<Result<()>> {
        // A task that waits polls as often as it is woken, whatever for: no waker twice.
        if self.outcome.is_none() && !self.wakers.iter().any(|waiting| waiting.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
        self.outcome.clone()
    }
}

impl Ticket {
    /// A ticket and the half that completes it.
    pub(crate) fn pending(driver: Arc<Driver>) -> (Self, Completion) {
        let shared = Arc::<Shared>::default();
        (Self { shared: shared.clone(), driver }, Completion { shared })
    }

    /// A ticket for something that is done already.
    pub(crate) fn completed(driver: Arc<Driver>, outcome: Result<()>) -> Self {
        let (ticket, completion) = Self::pending(driver);
        completion.complete(outcome);
        ticket
    }

    /// The outcome, if there is one yet.
    pub fn outcome(&self) -> Option<Result<()>> {
        self.shared.state.lock().outcome.clone()
    }

    /// Wakes `waker` when there is an outcome; at once where there is one already.
    pub fn wake(&self, waker: &Waker) {
        if self.shared.state.lock().register(waker).is_some() {
            waker.wake_by_ref();
        }
    }

    /// Waits for the outcome. Under [`Drive::Manual`] this steps the log meanwhile.
    ///
    /// # Errors
    /// What went wrong with the thing itself; `Closed` if the log ended without doing it.
    pub fn wait(&self) -> Result<()> {
        match self.driver.drive() {
            Drive::Thread => self.block(),
            Drive::Manual => {
                // Whoever else steps may complete it between a look at it and the wait for a signal.
                self.wake(&self.driver.waker());
                self.driver.step_until(|| self.outcome()).unwrap_or_else(|| Err(given_up()))
            }
        }
    }

    /// Waits until there is an outcome, or for so long. Whoever steps the log meanwhile waits for the
    /// outcome: time is up to the caller then.
    pub(crate) fn wait_for(&self, timeout: Option<Duration>) {
        match (self.driver.drive(), timeout) {
            (Drive::Thread, Some(timeout)) => {
                let mut state = self.shared.state.lock();
                if state.outcome.is_none() {
                    self.shared.done.wait_for(&mut state, timeout);
                }
            }
            // How it ended is looked at by whoever polls it.
            _ => drop(self.wait()),
        }
    }

    fn block(&self) -> Result<()> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            self.shared.done.wait(&mut state);
        }
    }
}

impl Future for Ticket {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.shared.state.lock().register(context.waker()) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("outcome", &self.outcome()).finish_non_exhaustive()
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Closed, "the log was closed before this was done")
}

/// The half of a [`Ticket`] that the log keeps. Dropped without an outcome it says that the log was closed.
pub(crate) struct Completion {
    shared: Arc<Shared>,
}

impl Completion {
    /// Says how it ended, and wakes whoever waits: to be called without a lock held.
    pub(crate) fn complete(self, outcome: Result<()>) {
        self.settle(outcome);
    }

    fn settle(&self, outcome: Result<()>) {
        let mut state = self.shared.state.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.shared.done.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.settle(Err(given_up()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::driver::Steps;
    use crate::spawn::spawn;

    const LONG: Duration = Duration::from_secs(10);

    /// Work whose step leaves the completion to another thread.
    struct HandOver {
        completion: Mutex<Option<Completion>>,
        to: mpsc::Sender<Completion>,
    }

    impl Steps for HandOver {
        fn step(&self) -> bool {
            let Some(completion) = self.completion.lock().take() else { return false };
            self.to.send(completion).expect("somebody completes it");
            false
        }
    }

    #[test]
    fn whoever_waits_by_stepping_wakes_when_another_thread_completes_the_ticket() {
        let (to, from) = mpsc::channel::<Completion>();
        let work = Arc::new(HandOver { completion: Mutex::default(), to });
        let weak = Arc::downgrade(&work);
        let (ticket, completion) = Ticket::pending(Driver::new(Drive::Manual, weak));
        *work.completion.lock() = Some(completion);
        let completer = spawn("complete", move || {
            from.recv().expect("it is handed over").complete(Ok(()));
        });
        let (told, outcome) = mpsc::channel();
        spawn("wait", move || told.send(ticket.wait())).expect("a thread");
        let outcome = outcome.recv_timeout(LONG).expect("the waiter wakes");
        outcome.expect("it was completed so");
        completer.expect("a thread").join().expect("no panic");
    }
}
