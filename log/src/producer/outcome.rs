//! What became of a batch: set once by whoever writes it, awaited by all who put records into it.

use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::record::{Offset, PartitionId};

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The partition.
    pub partition: PartitionId,
    /// The offset in it.
    pub offset: Offset,
}

/// What became of a batch. One for all its records, so that none needs an allocation of its own.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The place of the batch's first record.
    result: Option<Result<RecordPlace>>,
    wakers: Vec<Waker>,
}

impl Outcome {
    /// Says what became of the batch, and wakes who waits. What was said before stays.
    pub(super) fn settle(&self, result: Result<RecordPlace>) {
        let mut state = self.state.lock();
        if state.result.is_some() {
            return;
        }
        state.result = Some(result);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.settled.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The place of the batch's record `index`, if it is known yet.
    pub(super) fn get(&self, index: i32) -> Option<Result<RecordPlace>> {
        self.state.lock().result.as_ref().map(|result| place(result, index))
    }

    /// The same, and else `context` is woken once it is known.
    pub(super) fn poll(&self, index: i32, context: &Context<'_>) -> Poll<Result<RecordPlace>> {
        let mut state = self.state.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(place(result, index));
        }
        // Whoever polls in a loop does so from one task, mostly: no waker twice.
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Blocks until it is known.
    pub(super) fn wait(&self, index: i32) -> Result<RecordPlace> {
        let mut state = self.state.lock();
        loop {
            if let Some(result) = &state.result {
                return place(result, index);
            }
            self.settled.wait(&mut state);
        }
    }
}

fn place(result: &Result<RecordPlace>, index: i32) -> Result<RecordPlace> {
    let first = result.clone()?;
    Ok(RecordPlace { offset: first.offset.plus(i64::from(index)), ..first })
}
