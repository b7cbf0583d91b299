//! What a script does on disks that are not its caller's to make: every [`MemoryStorage`] that is made on this thread
//! during a trial crashes as its salt says, and leaves one place out, or some at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{MemoryStorage, SyncPlace};

thread_local! {
    static TRIAL: RefCell<Option<Trial>> = const { RefCell::new(None) };
}

struct Trial {
    salt: u64,
    left_out: Vec<SyncPlace>,
    disks: Vec<Arc<MemoryStorage>>,
}

/// What came of a trial.
pub(crate) struct Outcome {
    /// Whether the script has panicked.
    pub(crate) is_broken: bool,
    /// Where its disks were told to sync.
    pub(crate) places: BTreeSet<SyncPlace>,
}

/// Runs a script whose disks crash as `salt` says, with the syncs of these places left out.
pub(crate) fn run(salt: u64, left_out: &[SyncPlace], script: impl FnOnce()) -> Outcome {
    let trial = Trial { salt, left_out: left_out.to_vec(), disks: Vec::new() };
    TRIAL.set(Some(trial));
    let is_broken = catch_unwind(AssertUnwindSafe(script)).is_err();
    let trial = TRIAL.take().expect("trials do not nest");
    let places = trial.disks.iter().flat_map(|disk| disk.sync_places()).collect();
    Outcome { is_broken, places }
}

/// The seed of a disk that is made with `seed`.
pub(super) fn salted(seed: u64) -> u64 {
    TRIAL.with_borrow(|trial| trial.as_ref().map_or(seed, |trial| seed.wrapping_add(trial.salt << 32)))
}

/// A disk was made.
pub(super) fn begin(disk: &Arc<MemoryStorage>) {
    TRIAL.with_borrow_mut(|trial| {
        let Some(trial) = trial else { return };
        trial.left_out.iter().for_each(|place| disk.ignore_syncs_at(place.clone()));
        trial.disks.push(disk.clone());
    });
}
