//! Who has a transactional id.

use lotic_log::{Error, Producer, TransactionalProducer};

/// Who has a transactional id: one that is handed batches, or one that makes them.
pub(super) enum Session {
    Plain(TransactionalProducer),
    Batching(Producer),
}

impl Session {
    pub(super) fn handle(&self) -> Result<&TransactionalProducer, Error> {
        match self {
            Self::Plain(producer) => Ok(producer),
            Self::Batching(producer) => producer.transactional(),
        }
    }

    pub(super) fn begin(&self) -> Result<(), Error> {
        match self {
            Self::Plain(producer) => producer.begin(),
            Self::Batching(producer) => producer.begin_transaction(),
        }
    }

    pub(super) fn commit(&self) -> Result<(), Error> {
        match self {
            Self::Plain(producer) => producer.commit(&[]).wait(),
            Self::Batching(producer) => producer.commit_transaction(),
        }
    }

    pub(super) fn abort(&self) -> Result<(), Error> {
        match self {
            Self::Plain(producer) => producer.abort(),
            Self::Batching(producer) => producer.abort_transaction(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.handle().is_ok_and(TransactionalProducer::is_open)
    }
}
