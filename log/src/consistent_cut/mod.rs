//! Consistent cuts: what a power cut leaves of transactions that nobody synced one by one.
//!
//! Under [`Durability::Interval`] and [`Durability::Os`] a transaction is decided and marked without a sync.
//! The operating system writes pages out in an order of its own, so that a power cut may leave a commit
//! marker here and take the records that go with it there. A cut is a moment at which all of it fits
//! together, made durable as a whole:
//!
//! ```text
//! standstill  no transaction is decided or marked while the ends of all parts are taken: those
//!             partitions, and the table of transactions
//! sync        all parts at once, up to those ends
//! record      the ends become the recovery points of all parts, in one block      <- from here on it counts
//! ```
//!
//! A partition is *entangled* while it holds a marker of such a transaction, or the table a decision to
//! commit one, behind what is durable. An entangled one is made durable by a cut only, whoever asks for it;
//! any other is synced by itself, as what it holds stands on nothing elsewhere. Cuts are taken as often as
//! the most careful topic wants ([`Durability::Interval`]), or after [`INTERVAL`].
//!
//! What groups have committed, in `__consumer_offsets`, stands on the records before those offsets and on
//! what was made of them. Where nobody syncs it, it is entangled always, and its end is taken first: what it
//! stands on was there before, and so is within the ends of the other parts, though nobody stands still who
//! commits.
//!
//! After a power cut the log goes back to the last cut: each part ends before its first marker, or decision,
//! behind its recovery point, and `__consumer_offsets` at that point ([`Retreat`]). What a killed process has
//! written is in the page cache, and nothing is lost then: the two are told apart by the [`UnsyncedMark`],
//! which names the boot in which it was made. The log goes back too where a sync of one of the parts has
//! failed: that one ends where it was durable, whatever the others hold. The mark names no boot from before
//! the first part is cut off until all are, and is gone then. Where they end is a cut as well, and is written
//! down before transactions are ended: by what the table says next, a recovery that is cut short and begun
//! anew would not know how those ended whose markers went back.
//!
//! What a part holds can be synced for a cut though writing to it has failed. Where a sync has failed there
//! is no cut any more until the log is opened again, and nobody is told that something is durable which
//! stands on the parts.

mod mark;
mod retreat;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

pub(crate) use mark::{FoundMark, UnsyncedMark};
pub(crate) use retreat::Retreat;

#[cfg(doc)]
use crate::partition::Durability;

use crate::group::OFFSETS_TOPIC;

/// After how long a cut is taken where no topic wants one sooner, if there are transactions to be lost.
pub(crate) const INTERVAL: Duration = Duration::from_secs(30);

/// Whether each record of a topic stands on records in other topics.
pub(crate) fn stands_on_others(topic: &str) -> bool {
    topic == OFFSETS_TOPIC
}

/// Held while transactions are decided or marked, and while the ends of a cut are taken.
///
/// Lock order: the coordinator's state, or the flusher's rounds, go before it; partitions come after.
#[derive(Debug, Default)]
pub(crate) struct Standstill(Mutex<()>);

impl Standstill {
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock()
    }

    /// The same, unless somebody stands still already.
    pub(crate) fn try_hold(&self) -> Option<MutexGuard<'_, ()>> {
        self.0.try_lock()
    }
}
