//! How far back changelogs keep deletions.
//!
//! A restore reads a changelog behind the position of its base. A key that the base holds and that was deleted
//! since is gone from what is restored only if the deletion is still there to be read. So compaction keeps what was
//! deleted behind the oldest position that a restore may begin with: that of the oldest checkpoint. The live store
//! is never behind the newest one, as taking it writes out all that was applied; and one that begins with nothing
//! needs no deletion, as compaction drops one only when it has dropped all that it deletes.
//!
//! Positions are read from the checkpoints themselves. So a floor is never above one that is retained, whoever took
//! it and when; a base below the floor, which was brought back from elsewhere, is refused by
//! [`restore`](super::restore).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use lotic_log::Offset;
use parking_lot::Mutex;

use super::{CheckpointId, Position, StateHome, StoreChangelog};
use crate::error::Result;
use crate::event_log::{EventLog, PartitionKey};

/// The lowest position in each changelog partition.
type Lowest = BTreeMap<PartitionKey, Offset>;

/// The floors of a flow's changelogs.
pub struct TombstoneFloors {
    log: Arc<dyn EventLog>,
    stores: Vec<StoreChangelog>,
    /// Of checkpoints that were looked into.
    known: Mutex<BTreeMap<CheckpointId, Lowest>>,
}

impl TombstoneFloors {
    /// Those of these stores.
    pub fn new(log: Arc<dyn EventLog>, stores: Vec<StoreChangelog>) -> Self {
        Self { log, stores, known: Mutex::default() }
    }

    /// Raises the floors to the oldest position that a checkpoint of `home` holds. To be called when checkpoints
    /// have come or gone.
    ///
    /// # Errors
    /// Those of reading a checkpoint, and of the log. The floors may be lower then than they could be.
    pub fn raise(&self, home: &dyn StateHome) -> Result<()> {
        let checkpoints = home.checkpoints()?;
        let mut known = self.known.lock();
        known.retain(|id, _| checkpoints.contains(id));
        for &id in &checkpoints {
            if let Entry::Vacant(unknown) = known.entry(id) {
                unknown.insert(self.lowest_in(home, id)?);
            }
        }
        let mut floors = Lowest::new();
        known.values().for_each(|lowest| lower(&mut floors, lowest.iter().map(|(key, next)| (*key, *next))));
        for (partition, next) in floors {
            // The last record before the position stays too: by it the position is recognised.
            self.log.raise_tombstone_floor(partition, Offset((next.0 - 1).max(0)))?;
        }
        Ok(())
    }

    /// A store that the checkpoint does not hold is read from the start of its changelog.
    fn lowest_in(&self, home: &dyn StateHome, checkpoint: CheckpointId) -> Result<Lowest> {
        let backend = home.look_into(checkpoint)?;
        let mut lowest = Lowest::new();
        for StoreChangelog { name, topic } in &self.stores {
            let Some(store) = backend.find_store(name) else { continue };
            let positions = Position::read_all(&*backend, store)?;
            // One of another topic is no base for this one.
            let own = positions.into_iter().filter(|position| position.topic == topic.id);
            let at =
                |Position { partition, next, .. }| (PartitionKey { topic: topic.index, partition }, next);
            lower(&mut lowest, own.map(at));
        }
        Ok(lowest)
    }
}

fn lower(lowest: &mut Lowest, positions: impl Iterator<Item = (PartitionKey, Offset)>) {
    for (partition, next) in positions {
        lowest.entry(partition).and_modify(|known| *known = next.min(*known)).or_insert(next);
    }
}

#[cfg(test)]
mod tests;
