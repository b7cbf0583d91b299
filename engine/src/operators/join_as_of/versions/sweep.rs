//! Finds versions that nobody can ask for any more.

use lotic_log::Timestamp;

use super::{Version, key_in, prefix_of, time_in};
use crate::error::Result;
use crate::frame::Data;
use crate::key_group::{KEY_GROUPS, KeyGroup};
use crate::state::keys::group_of;
use crate::state::{KeyedState, Visit};

/// Rows that a step of the sweep visits, besides two for each update since the last.
const SWEEP_ROWS: usize = 64;

/// Goes round the key groups.
pub(super) struct Sweep {
    /// In order.
    groups: Vec<KeyGroup>,
    /// The version to go on with. `None`: a round has not begun.
    at: Option<Seen>,
    /// Whether another round is needed after this one: rows were written or are still asked for.
    again: bool,
    /// Updates since the last step.
    updates: usize,
}

/// A version that nobody can ask for.
pub(super) struct Gone {
    pub(super) key: Vec<u8>,
    /// When the next one of its key begins; `None`: there is no other.
    pub(super) next: Option<Timestamp>,
}

/// The version that a sweep has come to, until it is known what follows.
#[derive(Clone)]
struct Seen {
    key: Vec<u8>,
    is_deletion: bool,
    /// Whether the key has an earlier version that stays.
    follows_another: bool,
}

impl Sweep {
    pub(super) fn new(groups: Vec<KeyGroup>) -> Self {
        Self { groups, at: None, again: true, updates: 0 }
    }

    pub(super) fn updated(&mut self) {
        self.again = true;
        self.updates += 1;
    }

    pub(super) fn step<T: Data>(
        &mut self,
        store: &KeyedState<Version<T>>,
        horizon: Timestamp,
        expected: impl Fn(&[u8]) -> Timestamp,
    ) -> Result<Vec<Gone>> {
        let updates = std::mem::take(&mut self.updates);
        let mut rows = SWEEP_ROWS + 2 * updates;
        let mut stopped_at = match self.at.take() {
            // An update since then may have come in before it.
            Some(seen) => Some(Seen { follows_another: seen.follows_another || updates > 0, ..seen }),
            None if std::mem::take(&mut self.again) => None,
            None => return Ok(Vec::new()),
        };
        let mut sieve = Sieve { horizon, expected, gone: Vec::new(), all: true };
        let first = self.groups.first().map(|group| group.0.to_be_bytes().to_vec());
        let mut next = stopped_at.as_ref().map(|seen| seen.key.clone()).or(first);
        // From one group to the next with rows in it: most groups may have none.
        while let Some(from) = next.take() {
            let mut last: Option<Seen> = None;
            let mut is_full = false;
            store.scan(&from, &KEY_GROUPS.to_be_bytes(), |key, version| {
                if let Err(behind) = self.groups.binary_search(&group_of(key)) {
                    next = self.groups.get(behind).map(|group| group.0.to_be_bytes().to_vec());
                    return Visit::Stop;
                }
                let follows_another = match (last.take(), stopped_at.take()) {
                    (Some(before), _) => sieve.pass(before, key),
                    (None, Some(stopped)) => stopped.key == key && stopped.follows_another,
                    (None, None) => false,
                };
                last = Some(Seen { key: key.to_vec(), is_deletion: version.0.is_none(), follows_another });
                is_full = rows == 0;
                rows = rows.saturating_sub(1);
                if is_full { Visit::Stop } else { Visit::More }
            })?;
            stopped_at = None;
            if is_full {
                // It goes on with the row that it stopped at, which may yet be superseded.
                self.at = last;
            } else {
                last.into_iter().for_each(|last| sieve.pass_last(last));
            }
        }
        self.again |= !sieve.all;
        Ok(sieve.gone)
    }
}

/// Keeps the versions that may still be asked for, and gathers the others.
struct Sieve<E> {
    horizon: Timestamp,
    expected: E,
    gone: Vec<Gone>,
    /// Whether what stays will stay: nothing of it is superseded by a version not yet reached.
    all: bool,
}

impl<E: Fn(&[u8]) -> Timestamp> Sieve<E> {
    /// Judges the version before `key`. Whether `key` follows one of its own that stays.
    fn pass(&mut self, before: Seen, key: &[u8]) -> bool {
        if prefix_of(&before.key) != prefix_of(key) {
            self.pass_last(before);
            return false;
        }
        let next = time_in(key);
        if next <= self.horizon {
            self.gone.push(Gone { key: before.key, next: Some(next) });
            return before.follows_another;
        }
        self.all = false;
        true
    }

    /// Judges the last version of a key.
    fn pass_last(&mut self, last: Seen) {
        if !last.is_deletion {
            return;
        }
        let time = time_in(&last.key);
        let is_needed = last.follows_another || time > self.horizon;
        if is_needed || time > (self.expected)(key_in(&last.key)) {
            self.all = false;
        } else {
            self.gone.push(Gone { key: last.key, next: None });
        }
    }
}
