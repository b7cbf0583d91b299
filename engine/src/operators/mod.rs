//! The steps that flows are made of: one file each. Each constructor gives a factory for a graph's node.
//!
//! Closures run in loops over typed rows; a step is called once for a frame.

mod filter;
mod flat_map;
mod hold;
mod inspect;
mod join_as_of;
mod join_newest;
mod key_by;
mod last_of_key;
mod map;
mod select;
mod table_aggregate;
mod topic_sink;
pub mod topic_source;
mod union;
mod window_aggregate;

pub use filter::filter;
pub use flat_map::flat_map;
pub use inspect::inspect;
pub use join_as_of::{AsOfStores, join_as_of};
pub use join_newest::join_newest;
pub use key_by::key_by;
pub use last_of_key::last_of_key;
pub use map::map;
pub use table_aggregate::table_aggregate;
pub use topic_sink::topic_sink;
pub use topic_source::{BadRecord, TopicSource};
pub use union::union;
pub use window_aggregate::window_aggregate;

#[cfg(test)]
pub(crate) mod stateful_bench;
#[cfg(test)]
mod tests;
