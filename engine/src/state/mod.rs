//! State: what operators keep beyond an epoch.
//!
//! ```text
//!   operator ── KeyedState ── frozen ──▶ changelog topic          (at the barrier)
//!                    ▲           └─────▶ StateBackend             (once the epoch is committed)
//!                    └── reads ──────────────┘
//! ```
//!
//! The changelog is the truth and the backend a cache of it: after a crash [`restore`] takes the newest
//! base that can be believed (the live store, or a checkpoint) and reads the changelog from there on.
//! RocksDB is imported in `rocks.rs` and nowhere else.

mod access;
mod backend;
mod budget;
mod cache;
mod changelog;
mod floors;
mod keyed;
pub mod keys;
mod memory;
mod position;
pub mod restore;
mod rocks;
mod sort_key;
mod write_set;

pub use access::{StateAccess, StateAccessOptions, StorePressure};
pub use backend::{CheckpointId, StateBackend, StateHome, StoreId, Stretch, StretchVisitor, Visit};
pub use budget::StateLimits;
pub use cache::Slot;
pub use changelog::{ChangelogWriter, changelog_topic};
pub use floors::TombstoneFloors;
pub use keyed::{KeyedState, StoreOrder};
pub use keys::Keys;
pub use memory::MemoryState;
pub use position::{Position, Slice};
pub use restore::{Base, RestoreReport, Restored, StoreChangelog};
pub use rocks::{RocksBackend, RocksOptions};
pub(crate) use rocks::{SUSPECT, suspect_mark};
pub use write_set::WriteSet;

#[cfg(test)]
pub(crate) mod testing;
