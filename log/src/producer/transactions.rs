//! A producer whose batches count together or not at all.
//!
//! A record belongs to the transaction that is open when it is sent: ending one writes first what still
//! lingers. A record that could not be written is remembered until the end, which can only be an abort
//! then, whether or not anybody looks at its future.

#[cfg(test)]
mod tests;

use super::{Producer, Shared, State};
use crate::error::{Error, ErrorKind, Result};
use crate::ticket::CommitTicket;
use crate::transaction::TransactionalProducer;

/// What a producer knows of its transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Whether records may be sent into it.
    is_open: bool,
    /// Why the first record that could not be written was not.
    failure: Option<Error>,
}

impl Transaction {
    /// Refuses a record that would belong to no transaction.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.is_open {
            return Ok(());
        }
        let what = "a transactional producer sends only between the beginning and the end of a transaction";
        Err(Error::new(ErrorKind::TransactionState, what))
    }

    /// Notes that a record could not be written.
    pub(super) fn note_failure(&mut self, error: &Error) {
        self.failure.get_or_insert_with(|| error.clone());
    }
}

/// Transactions; only with [`super::ProducerOptions::transactional_id`], and `TransactionState` without.
impl Producer {
    /// Begins a transaction.
    ///
    /// # Errors
    /// Those of [`TransactionalProducer::begin`].
    pub fn begin_transaction(&self) -> Result<()> {
        self.transactional()?.begin()?;
        self.shared.state.lock().transaction = Transaction { is_open: true, failure: None };
        Ok(())
    }

    /// Writes what lingers, commits, and waits until readers of committed records see it.
    ///
    /// # Errors
    /// The first error that a record of the transaction met; it is open then, to be aborted. Those of
    /// [`TransactionalProducer::commit`].
    pub fn commit_transaction(&self) -> Result<()> {
        self.close_transaction()?;
        let flushed = self.flush();
        self.commit_flushed(flushed)?.wait()
    }

    /// [`Self::commit_transaction`] without blocking the thread. Dropped while it waits for what lingers, it
    /// commits nothing: the transaction is open, takes no more records, and is to be committed or aborted. Dropped
    /// later on, it commits all the same. Under [`Drive::Manual`](crate::Drive::Manual) it waits for whoever steps.
    ///
    /// # Errors
    /// Those of [`Self::commit_transaction`].
    pub async fn commit_transaction_async(&self) -> Result<()> {
        self.close_transaction()?;
        let flushed = self.flush_async().await;
        self.commit_flushed(flushed)?.await
    }

    /// Writes what lingers, aborts, and waits until readers have it out of their way.
    ///
    /// # Errors
    /// Those of [`TransactionalProducer::abort`].
    pub fn abort_transaction(&self) -> Result<()> {
        let producer = self.close_transaction()?;
        // What could not be written need not be.
        let _ = self.flush();
        producer.abort()
    }

    /// [`Self::abort_transaction`] without blocking the thread. Dropped while it waits for what lingers, it
    /// ends nothing: the transaction is open, takes no more records, and is to be committed or aborted. Dropped later
    /// on, it aborts all the same. Under [`Drive::Manual`](crate::Drive::Manual) it waits for whoever steps.
    ///
    /// # Errors
    /// Those of [`Self::abort_transaction`].
    pub async fn abort_transaction_async(&self) -> Result<()> {
        let producer = self.close_transaction()?;
        let _ = self.flush_async().await;
        producer.begin_abort().await
    }

    /// The transactional id's own handle.
    ///
    /// # Errors
    /// `TransactionState` if this producer has none.
    pub fn transactional(&self) -> Result<&TransactionalProducer> {
        let what = || Error::new(ErrorKind::TransactionState, "the producer has no transactional id");
        self.shared.transactional.as_ref().ok_or_else(what)
    }

    /// Takes no more records into the transaction, which is to be ended.
    fn close_transaction(&self) -> Result<&TransactionalProducer> {
        let producer = self.transactional()?;
        self.shared.state.lock().transaction.is_open = false;
        Ok(producer)
    }

    /// Commits a transaction whose records were written, unless one could not be.
    fn commit_flushed(&self, flushed: Result<()>) -> Result<CommitTicket> {
        if let Some(failure) = self.shared.state.lock().transaction.failure.clone() {
            return Err(failure);
        }
        flushed?;
        Ok(self.transactional()?.commit(&[]))
    }
}

impl Shared {
    /// Refuses a record for which there is no transaction where there has to be one.
    pub(super) fn check_transaction(&self, state: &State) -> Result<()> {
        if self.transactional.is_some() { state.transaction.check_open() } else { Ok(()) }
    }
}
