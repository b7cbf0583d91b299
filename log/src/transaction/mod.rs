//! Transactions: records in many partitions that count together or not at all.
//!
//! A [`TransactionalProducer`] writes; the [`Coordinator`] ends what it wrote. The commit point is one
//! record in the internal topic `__transaction_state`, once it is durable:
//!
//! ```text
//! flush     one round of parallel syncs: the records, what was consumed, and the markers of the
//!           transaction before
//! decide    the decision is appended and synced                            <- the only commit point
//! mark      a marker is appended to every partition; readers of committed records see them, and the
//!           ticket completes. Nothing is synced: if a crash takes a marker, recovery writes it again
//! complete  noted once the markers are synced, at the latest in the flush of the next transaction
//! ```
//!
//! So a commit takes two rounds of parallel syncs. Of a large transaction the first has little left to do: what
//! is written is synced every few megabytes while it is open (`early_sync`). What the table says of a transaction may
//! be replaced only after its markers are durable: the flush of the next one sees to that.
//!
//! Every transaction takes the next producer epoch (KIP-890), and a new producer id when those are used
//! up, so a marker names exactly one transaction. Invariant: a marker is appended to a partition only
//! after a record of the table that names its epoch, or a later one, is durable. So the table and the
//! transactions that are found open bound the epochs in use, and none is used twice.
//!
//! No transaction is open in a partition of which the coordinator does not know (KIP-890): only its session
//! begins one there. A batch that bears a transaction's stamp and comes another way is taken where that
//! transaction is open, and refused elsewhere, where it would never get a marker.
//!
//! After a crash ([`recovery`]) the markers of decided transactions are written again and everything
//! else that is open is aborted.
//!
//! A transaction that is open for longer than its producer wanted at most holds up every reader of
//! committed records: the coordinator aborts it and fences the producer. Ids that nobody has used for long
//! are forgotten.
//!
//! Lock order: coordinator, session, partition. A session's lock is shared by the threads that append
//! and taken alone only when a transaction begins, ends, or writes to a partition for the first time.

mod coordinator;
#[cfg(test)]
pub(crate) mod crash_tests;
mod early_sync;
mod ending;
#[cfg(test)]
mod offset_tests;
mod producer;
mod record;
mod recovery;
mod session;
mod snapshot;
#[cfg(test)]
pub(crate) mod snapshot_tests;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;

use std::time::Duration;

pub(crate) use coordinator::{Coordinator, TransactionLimits};
pub use producer::{TransactionOptions, TransactionalProducer};
#[cfg(test)]
pub(crate) use record::encode_key;
pub(crate) use record::{
    Status as TransactionStatus, TRANSACTION_TOPIC, TransactionRecord, decides_unsynced,
};
pub(crate) use recovery::Endings;

/// How long an id is remembered that nobody holds, unless a log is opened with another time: Kafka's
/// `transactional.id.expiration.ms`.
pub(crate) const TRANSACTIONAL_ID_EXPIRATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest that a producer may leave a transaction open, unless a log is opened with another time:
/// Kafka's `transaction.max.timeout.ms`.
pub(crate) const TRANSACTION_TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);
