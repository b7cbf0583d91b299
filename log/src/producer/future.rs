//! What a sender holds of a record on its way.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use super::Shared;
use super::outcome::{Outcome, RecordPlace};
use super::writer::gone;
use crate::error::Result;
use crate::spawn::Drive;

/// A record on its way: resolves to its place once it is as durable as its topic promises. It may be
/// dropped; the record is written all the same.
#[must_use = "a record that could not be written is only noticed here, or by Producer::flush"]
pub struct SendFuture {
    /// Who writes it where no thread does. Gone with the producer, which settles everything first: a future
    /// keeps no log open.
    stepped: Option<Weak<Shared>>,
    outcome: Arc<Outcome>,
    /// The record's place in its batch.
    index: i32,
}

impl SendFuture {
    pub(super) fn new(shared: &Arc<Shared>, outcome: Arc<Outcome>, index: i32) -> Self {
        let stepped = (shared.log.drive() == Drive::Manual).then(|| Arc::downgrade(shared));
        Self { stepped, outcome, index }
    }

    /// Blocks until the record is durable; it is written after its linger, not before. Where nobody
    /// else steps the log ([`Drive::Manual`](crate::Drive::Manual)), this does, and waits for no linger.
    ///
    /// # Errors
    /// Those of the append and of the sync; the topic and partition are named.
    pub fn wait(self) -> Result<RecordPlace> {
        let Some(stepped) = self.stepped else { return self.outcome.wait(self.index) };
        match stepped.upgrade() {
            Some(shared) => shared.wait(&self.outcome, self.index),
            None => self.outcome.get(self.index).unwrap_or_else(|| Err(gone())),
        }
    }
}

impl Future for SendFuture {
    type Output = Result<RecordPlace>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.outcome.poll(self.index, context)
    }
}

impl fmt::Debug for SendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").field("result", &self.outcome.get(self.index)).finish()
    }
}
