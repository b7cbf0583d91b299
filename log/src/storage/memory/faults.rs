//! Which operation fails, and which syncs are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use super::super::{SyncPurpose, SyncReason};
use super::place::SyncPlace;
use super::{injected, unplugged};

/// What becomes of a counted operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    /// It fails, this once.
    Fail(ErrorKind),
    /// It is the one at which the plug is pulled.
    Unplug,
}

impl Verdict {
    pub(super) fn into_result(self) -> io::Result<()> {
        match self {
            Self::Proceed => Ok(()),
            Self::Fail(kind) => Err(injected(kind)),
            Self::Unplug => Err(unplugged()),
        }
    }
}

#[derive(Default)]
pub(super) struct Faults {
    operations: u64,
    /// Numbers of operations, as [`Self::operations`] counts them.
    unplug_at: Option<u64>,
    fail_at: Option<(u64, ErrorKind)>,
    unplugged: bool,
    ignored: BTreeSet<SyncPurpose>,
    ignored_places: BTreeSet<SyncPlace>,
    places: BTreeSet<SyncPlace>,
    syncs: BTreeMap<SyncPurpose, u64>,
}

impl Faults {
    pub(super) fn admit(&mut self) -> Verdict {
        let operation = self.operations;
        self.operations += 1;
        if self.unplug_at == Some(operation) {
            self.unplug_at = None;
            self.unplugged = true;
            return Verdict::Unplug;
        }
        match self.fail_at {
            Some((at, kind)) if at == operation => {
                self.fail_at = None;
                Verdict::Fail(kind)
            }
            _ => Verdict::Proceed,
        }
    }

    pub(super) fn pull_plug_after(&mut self, operations: u64) {
        self.unplug_at = Some(self.operations + operations);
    }

    pub(super) fn fail_after(&mut self, kind: ErrorKind, operations: u64) {
        self.fail_at = Some((self.operations + operations, kind));
    }

    pub(super) fn clear_scheduled(&mut self) {
        self.unplug_at = None;
        self.fail_at = None;
    }

    pub(super) fn plug_in(&mut self) {
        self.unplugged = false;
    }

    pub(super) fn is_unplugged(&self) -> bool {
        self.unplugged
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn ignore(&mut self, purpose: SyncPurpose) {
        self.ignored.insert(purpose);
    }

    pub(super) fn ignore_at(&mut self, place: SyncPlace) {
        self.ignored_places.insert(place);
    }

    /// Counts a sync of what `of` names; says whether it is to be left out.
    pub(super) fn count_sync(&mut self, reason: SyncReason, of: String) -> bool {
        *self.syncs.entry(reason.purpose).or_default() += 1;
        let place = SyncPlace::new(reason, of);
        let is_ignored = self.ignored.contains(&reason.purpose) || self.ignored_places.contains(&place);
        self.places.insert(place);
        is_ignored
    }

    pub(super) fn places(&self) -> &BTreeSet<SyncPlace> {
        &self.places
    }

    pub(super) fn sync_count(&self, purpose: SyncPurpose) -> u64 {
        self.syncs.get(&purpose).copied().unwrap_or_default()
    }
}
