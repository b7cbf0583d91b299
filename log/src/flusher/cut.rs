//! A consistent cut under way: see `consistent_cut`.

use std::sync::Arc;
use std::task::Waker;

use super::request::{Settled, Waiters};
use super::{Flush, Submission, identity, outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Offset, PartitionKey};
use crate::recovery_point::RecoveryPointFile;
use crate::storage::{SyncPurpose, SyncReason};

/// ```text
///   Syncing --all parts synced--> Recording --recovery points synced--> over
///      \--one failed, all ended-->  failed  <--they cannot be written--/
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Syncing,
    Recording,
}

/// All that is made durable together, or, as far as anyone is told, not at all.
pub(super) struct Cut {
    parts: Vec<Part>,
    waiters: Vec<Arc<Waiters>>,
    phase: Phase,
    /// Why there will be no cut, though the parts before that one are being synced.
    refusal: Option<Error>,
}

struct Part {
    target: Arc<dyn Flush>,
    submission: Submission,
}

impl Cut {
    /// Submits the syncs of all parts. To be called at a standstill. Where one refuses there is no cut; the syncs
    /// that were submitted by then are waited for all the same, since nobody else is told if one of them fails.
    pub(super) fn begin(targets: Vec<Arc<dyn Flush>>, waiters: Vec<Arc<Waiters>>, waker: &Waker) -> Self {
        let parts = Vec::with_capacity(targets.len());
        let mut cut = Self { parts, waiters, phase: Phase::Syncing, refusal: None };
        for target in targets {
            match target.submit(SyncReason::of(SyncPurpose::Cut)) {
                Ok(submission) => {
                    submission.tickets.iter().for_each(|ticket| ticket.wake(waker));
                    cut.parts.push(Part { target, submission });
                }
                Err(error) => {
                    cut.refusal = Some(error);
                    break;
                }
            }
        }
        cut
    }

    pub(super) fn includes(&self, target: &Arc<dyn Flush>) -> bool {
        self.parts.iter().any(|part| identity(&part.target) == identity(target))
    }

    /// Moves on as far as the disk has come. The outcome, once there is one.
    pub(super) fn step(
        &mut self,
        points: Option<&mut RecoveryPointFile>,
        waker: &Waker,
    ) -> Option<Result<()>> {
        if self.phase == Phase::Syncing {
            if let Err(error) = self.synced()? {
                return Some(Err(error));
            }
            self.phase = Phase::Recording;
        }
        points.map_or(Some(Ok(())), |points| self.record(points, waker))
    }

    /// Tells everyone how it ended. Nothing counts as durable unless all of it does.
    pub(super) fn end(self, outcome: &Result<()>, settled: &mut Vec<Settled>) {
        if outcome.is_ok() {
            self.parts.iter().for_each(|part| part.target.flushed(part.submission.upto));
        }
        settled.extend(self.waiters.iter().filter_map(|waiters| waiters.settle(outcome)));
    }

    /// The outcome of all syncs, once all have ended. Parts whose sync failed are told; the others are not told that
    /// theirs succeeded unless the cut does.
    fn synced(&self) -> Option<Result<()>> {
        let outcomes = self.parts.iter().map(|part| outcome(&part.submission.tickets));
        let outcomes: Vec<_> = outcomes.collect::<Option<_>>()?;
        let mut failure = self.refusal.clone();
        for (Part { target, .. }, outcome) in self.parts.iter().zip(outcomes) {
            let Err(error) = outcome else { continue };
            let key = target.key();
            let what = format!("topic {}, partition {}: cannot sync", key.topic, key.partition);
            let error = Error::io(what, error);
            target.failed(&error);
            failure.get_or_insert(error);
        }
        Some(failure.map_or(Ok(()), Err))
    }

    fn record(&self, points: &mut RecoveryPointFile, waker: &Waker) -> Option<Result<()>> {
        if !points.is_poisoned() {
            if self.ends().all(|(key, end)| points.is_recorded(key, end)) {
                return Some(Ok(()));
            }
            self.ends().for_each(|(key, end)| points.raise(key, end));
            points.begin_sync(waker);
        }
        // Also by what has just been written: nothing is under way then that would wake anybody.
        points.is_poisoned().then(|| {
            let what = "a consistent cut cannot be written down: open the log again";
            Err(Error::new(ErrorKind::Poisoned, what))
        })
    }

    /// Where the parts end. Whoever has deleted one lets its points be forgotten after that.
    fn ends(&self) -> impl Iterator<Item = (PartitionKey, Offset)> {
        let parts = self.parts.iter().filter(|part| !part.target.is_deleted());
        parts.map(|part| (part.target.key(), part.submission.upto))
    }
}
