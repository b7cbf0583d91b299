//! The port to what keeps committed state: ordered bytes by key, in stores that fail on their own.
//!
//! Nothing uncommitted ever enters a backend. It may forget: after a crash each store holds a prefix of the
//! writes applied to it, and [`restore`](super::restore) brings it up again from the changelog. So what a
//! store has must be read from the store itself: the [positions](super::position) are rows in it, written
//! by the same [`StateBackend::apply`] as the data.

use std::fmt;
use std::sync::Arc;

use super::WriteSet;
use crate::error::Result;

/// A store's number in its backend, small and dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u32);

/// Whether a visitor wants the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Go on.
    More,
    /// It has what it needs; of other stretches it wants the rows yet.
    Stop,
    /// It wants no rows any more, of no stretch.
    End,
}

/// Rows to be visited, in order: from the last one before `at` on, or from `from` on where there is none; none of them
/// before `from`, and none at or behind `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch<'a> {
    /// No row before it is visited.
    pub from: &'a [u8],
    /// The row to begin with is before it.
    pub at: &'a [u8],
    /// No row at or behind it is visited.
    pub to: &'a [u8],
}

/// Is given the rows of many stretches: the place of the stretch, and a row of it.
pub type StretchVisitor<'a> = dyn FnMut(usize, &[u8], &[u8]) -> Visit + 'a;

impl<'a> Stretch<'a> {
    /// All rows from `from` on and before `to`.
    pub fn all(from: &'a [u8], to: &'a [u8]) -> Self {
        Self { from, at: from, to }
    }

    /// The last row of these alone.
    pub fn last(from: &'a [u8], to: &'a [u8]) -> Self {
        Self { from, at: to, to }
    }

    /// Whether no row can be in it.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

/// Keeps the committed state of a processor. Shared by its workers.
pub trait StateBackend: Send + Sync + 'static {
    /// Opens the store of this name, and makes it where it is missing.
    fn open_store(&self, name: &str) -> Result<StoreId>;

    /// The store of this name, if there is one. Makes none.
    fn find_store(&self, name: &str) -> Option<StoreId>;

    /// Reads many keys at once; `found` gets the place in `keys` and the value of each that exists.
    fn get_many(&self, store: StoreId, keys: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<()>;

    /// Visits the rows of many stretches, one stretch after the other; `visit` gets the place of the stretch in
    /// `stretches` too, and with [`Visit::Stop`] ends that stretch alone. None begins with a row before its `at` that
    /// `may_begin` denies.
    ///
    /// The stretches may overlap and come in any order; they are read fastest in the order of their keys. Nothing is
    /// held of the rows but the one that is visited.
    fn scan_many(
        &self,
        store: StoreId,
        stretches: &[Stretch<'_>],
        may_begin: &dyn Fn(&[u8]) -> bool,
        visit: &mut StretchVisitor<'_>,
    ) -> Result<()>;

    /// Visits the rows from `from` on and before `to`, in order of their keys.
    fn scan(
        &self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<()> {
        let visit = &mut |_: usize, key: &[u8], value: &[u8]| visit(key, value);
        self.scan_many(store, &[Stretch::all(from, to)], &|_| true, visit)
    }

    /// Makes all of `writes` to one store, or none of them. Not durable until the backend says so by
    /// having it after a crash.
    fn apply(&self, store: StoreId, writes: &WriteSet) -> Result<()>;

    /// Makes durable what was applied, as far as the backend can. Called before a clean end.
    fn flush(&self) -> Result<()>;

    /// The bytes of memory that it takes: caches and write buffers.
    fn memory_bytes(&self) -> u64;
}

/// The number of a checkpoint of a flow's state; a later one is higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointId(pub u64);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a flow's state lives between runs: a live store, and checkpoints of it.
///
/// A checkpoint is a copy that shares the files of the live store. It needs no position beside it: the
/// positions are rows of its stores. Errors of kind [`Corrupt`](crate::error::ErrorKind::Corrupt) mean
/// that this base is not to be used and an older one is; any other error ends the attempt.
pub trait StateHome: Send + Sync + 'static {
    /// Opens the live store, and makes an empty one where there is none.
    fn open(&self) -> Result<Arc<dyn StateBackend>>;

    /// Throws the live store away. No backend may be open.
    fn discard(&self) -> Result<()>;

    /// The checkpoints there are, newest first.
    fn checkpoints(&self) -> Result<Vec<CheckpointId>>;

    /// Opens a checkpoint where it is. It is not verified, and not to be changed.
    fn look_into(&self, checkpoint: CheckpointId) -> Result<Arc<dyn StateBackend>>;

    /// Verifies that a checkpoint is whole. Reads all of it, and changes nothing. `is_stopping` is asked before each
    /// file of it; once it says so nothing more is read, and the error is
    /// [`ErrorKind::Stopped`](crate::error::ErrorKind::Stopped).
    fn verify(&self, checkpoint: CheckpointId, is_stopping: &dyn Fn() -> bool) -> Result<()>;

    /// Puts a copy of a checkpoint, which was verified, in the place of the live store, which was discarded.
    fn adopt(&self, checkpoint: CheckpointId) -> Result<()>;

    /// Takes a checkpoint of the live store, which stays in use. May take long.
    fn take(&self) -> Result<CheckpointId>;

    /// Removes all but the newest `keep` checkpoints.
    fn retire(&self, keep: usize) -> Result<()>;

    /// Removes a checkpoint that must never be used again, durably: it holds what was committed once and is not any
    /// more.
    fn forget(&self, checkpoint: CheckpointId) -> Result<()>;
}

#[cfg(test)]
mod tests;
