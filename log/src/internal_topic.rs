//! The topics that the log keeps for itself: anybody may read them, and the log alone makes them, writes to them and
//! cleans them up. What stands in one is believed, and so is what does not: a group whose offsets are gone begins anew,
//! and a transaction ends as the table says.

#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::group::OFFSETS_TOPIC;
use crate::transaction::TRANSACTION_TOPIC;

/// Whether the log keeps `topic` for itself.
pub(crate) fn is_internal(topic: &str) -> bool {
    holding(topic).is_some()
}

/// Refuses for an internal topic what is for others only; `refusal` goes on from what it holds.
///
/// # Errors
/// `Invalid`.
pub(crate) fn check_not_internal(topic: &str, refusal: &str) -> Result<()> {
    holding(topic).map_or(Ok(()), |holding| {
        Err(Error::new(ErrorKind::Invalid, format!("topic {topic} holds {holding}{refusal}")))
    })
}

/// What an internal topic holds.
fn holding(topic: &str) -> Option<&'static str> {
    match topic {
        TRANSACTION_TOPIC => Some("the outcome of transactions"),
        OFFSETS_TOPIC => Some("what consumer groups have committed"),
        _ => None,
    }
}
