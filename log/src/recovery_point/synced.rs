//! The recovery points that a crash leaves for certain.

use parking_lot::Mutex;

use super::RecoveryPoints;
use crate::record::{Offset, PartitionKey};

/// The recovery points that are synced: at or below those that are known, by a round or more. Shared by
/// whoever writes them and the partitions, which keep what recovery from these would need.
///
/// Its lock is taken last of all.
#[derive(Debug, Default)]
pub(crate) struct SyncedPoints {
    points: Mutex<RecoveryPoints>,
}

impl SyncedPoints {
    /// Everything before it is known to have been synced, also after a crash. `None` if nothing is.
    pub(crate) fn get(&self, key: PartitionKey) -> Option<Offset> {
        self.points.lock().get(&key).copied()
    }

    pub(crate) fn raise(&self, points: RecoveryPoints) {
        self.points.lock().extend(points);
    }

    pub(super) fn forget(&self, is_forgotten: impl Fn(&PartitionKey) -> bool) {
        self.points.lock().retain(|key, _| !is_forgotten(key));
    }
}
