//! Log compaction: a partition's sealed segments are written again with only the newest record of each
//! key. Offsets and order stay.
//!
//! One [`Compaction`] does it for one partition, piece by piece. First it reads what was appended since
//! the last one and notes the newest offset of each key, until it has all or its map is full; then it
//! writes the segments again, from the first one up to where the map has seen, several small ones into
//! one, and has each take the place of those that it was made of (`partition/replace.rs`). A map that was
//! full leaves the rest to the next compaction, so that memory is bounded whatever the number of keys.
//!
//! | module | owns |
//! |---|---|
//! | [`plan`] | what may be compacted, whether that is worth it, which segments become one |
//! | `key_map` | the newest offset of each key |
//! | `transactions` | which batches were aborted, which markers are of no use any more |
//! | `filter` | what stays of a batch |
//! | `job` | the work, in pieces |
//!
//! Not touched are the active segment, what lies behind the last stable offset, what is too young, and
//! what somebody has pinned.

mod filter;
mod job;
mod key_map;
pub(crate) mod plan;
#[cfg(test)]
pub(crate) mod tests;
mod transactions;

pub use job::CompactionReport;
pub(crate) use job::{Compaction, CompactionLimits, Piece};
