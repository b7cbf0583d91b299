//! Who asked for a flush, and when all of what it asked for is done.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Ended, FlushTarget};
use crate::error::{Error, Result};
use crate::ticket::Completion;

/// One target of what somebody asked for; nobody waits for a flush in the background.
pub(super) struct Request {
    pub(super) target: FlushTarget,
    pub(super) waiters: Option<Arc<Waiters>>,
}

/// Whoever waits for some targets at once.
pub(super) struct Waiters {
    state: Mutex<State>,
    concern: Ended,
}

struct State {
    open: usize,
    failure: Option<Error>,
    completion: Option<Completion>,
}

impl Waiters {
    pub(super) fn new(targets: usize, completion: Completion, concern: Ended) -> Arc<Self> {
        let state = State { open: targets, failure: None, completion: Some(completion) };
        Arc::new(Self { state: Mutex::new(state), concern })
    }

    /// Whether a step of other work may wait, for which the log's thread has to wake, or threads alone.
    pub(super) fn concern(&self) -> Ended {
        self.concern
    }

    /// One of the targets is done. If it was the last, there is a ticket to complete.
    pub(super) fn settle(&self, outcome: &Result<()>) -> Option<Settled> {
        let mut state = self.state.lock();
        if let Err(error) = outcome {
            state.failure.get_or_insert_with(|| error.clone());
        }
        state.open -= 1;
        if state.open > 0 {
            return None;
        }
        let outcome = state.failure.take().map_or(Ok(()), Err);
        state.completion.take().map(|completion| Settled { completion, outcome })
    }
}

/// A ticket to be completed once no lock is held.
pub(super) struct Settled {
    completion: Completion,
    outcome: Result<()>,
}

impl Settled {
    pub(super) fn complete(self) {
        self.completion.complete(self.outcome);
    }
}
