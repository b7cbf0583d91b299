//! The steps that a graph is made of.

mod hold;
mod join_as_of;
mod join_newest;
mod select;
mod table_aggregate;
mod window_aggregate;

pub use join_as_of::{AsOfStores, join_as_of};
pub use join_newest::join_newest;
pub use table_aggregate::table_aggregate;
pub use window_aggregate::window_aggregate;
