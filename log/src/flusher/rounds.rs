//! What is under way: what was asked for, what is being synced, and what is due.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::cut::Cut;
use super::request::{Request, Settled, Waiters};
use super::{Flush, FlushTarget, Submission, identity, outcome};
use crate::consistent_cut::Standstill;
use crate::error::Error;
use crate::recovery_point::RecoveryPointFile;
use crate::storage::{SyncPurpose, SyncReason};

/// What is under way. Owned by whoever steps, asks or ends a sync.
#[derive(Default)]
pub(super) struct Rounds {
    /// Requests for targets that have a submission under way, and those that are left to the next step.
    pub(super) waiting: Vec<Request>,
    submitted: Vec<Submitted>,
    pub(super) recovery_points: Option<RecoveryPointFile>,
    /// How often points are written down; `None`: with each round.
    pub(super) points_every: Option<Duration>,
    /// When the next are, on the clock's elapsed time.
    points_due: Duration,
    pub(super) periodic: Vec<Periodic>,
    /// Who takes part in consistent cuts, in the order in which their ends are taken.
    pub(super) parts: Vec<Weak<dyn Flush>>,
    pub(super) cut: Option<Cut>,
    /// Whoever is still to be told that a target has refused: not by who asked, who may hold locks.
    pub(super) refused: Vec<Settled>,
}

/// A submission under way.
struct Submitted {
    target: Arc<dyn Flush>,
    submission: Submission,
    waiters: Vec<Arc<Waiters>>,
    concern: Ended,
}

/// What has ended, and whom it concerns at once. Steps that look for what is durable come with the recovery points at the
/// latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    Nothing,
    /// Those who were told.
    ForThreads,
    ForStep,
}

/// A target that is flushed from time to time, whoever asks.
pub(super) struct Periodic {
    pub(super) target: Weak<dyn Flush>,
    pub(super) every: Duration,
    pub(super) when: When,
    /// On the clock's elapsed time.
    pub(super) due: Duration,
}

/// When a target is flushed, nobody having asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    Entangled,
}

impl Rounds {
    /// Turns the timers that ran out into requests.
    pub(super) fn note_due(&mut self, now: Duration) {
        let waiting = &mut self.waiting;
        self.periodic.retain_mut(|periodic| {
            let Some(target) = periodic.target.upgrade() else { return false };
            if periodic.due <= now {
                periodic.due = now + periodic.every;
                if periodic.when == When::Entangled && !target.is_entangled() {
                    return true;
                }
                let target = FlushTarget { target, reason: SyncReason::of(SyncPurpose::Records) };
                waiting.push(Request { target, waiters: None });
            }
            true
        });
    }

    /// Takes note of submissions whose syncs have all ended.
    pub(super) fn end(&mut self, settled: &mut Vec<Settled>) -> Ended {
        let is_recorded = self.recovery_points.as_mut().is_some_and(RecoveryPointFile::end_sync);
        let mut ended = if is_recorded { Ended::ForStep } else { Ended::Nothing };
        let mut index = 0;
        while index < self.submitted.len() {
            match outcome(&self.submitted[index].submission.tickets) {
                None => index += 1,
                Some(outcome) => {
                    let submitted = self.submitted.swap_remove(index);
                    ended = ended.max(submitted.concern);
                    self.settle(submitted, outcome, settled);
                }
            }
        }
        ended
    }

    fn settle(&mut self, submitted: Submitted, outcome: std::io::Result<()>, settled: &mut Vec<Settled>) {
        let Submitted { target, submission, waiters, .. } = submitted;
        let outcome = match outcome {
            Ok(()) => {
                target.flushed(submission.upto);
                // Whoever has deleted it lets its points be forgotten after that.
                if let Some(points) = &mut self.recovery_points
                    && !target.is_deleted()
                {
                    points.note(target.key(), submission.upto);
                }
                Ok(())
            }
            Err(error) => {
                let key = target.key();
                let what = format!("topic {}, partition {}: cannot sync", key.topic, key.partition);
                let error = Error::io(what, error);
                target.failed(&error);
                Err(error)
            }
        };
        settled.extend(waiters.iter().filter_map(|waiters| waiters.settle(&outcome)));
    }

    /// Moves the cut that is under way on. Whether it has ended.
    pub(super) fn end_cut(&mut self, waker: &Waker, settled: &mut Vec<Settled>) -> bool {
        let Some(outcome) = self.cut.as_mut().and_then(|cut| cut.step(self.recovery_points.as_mut(), waker))
        else {
            return false;
        };
        if let Err(error) = &outcome {
            tracing::error!(%error, "a consistent cut failed; a power cut will take the log back to the one before");
        }
        self.cut.take().into_iter().for_each(|cut| cut.end(&outcome, settled));
        true
    }

    /// Whether there is nothing to do before the end of a sync that is under way.
    pub(super) fn is_waiting_for_syncs(&self) -> bool {
        let is_under_way = |request: &Request| {
            let target = identity(&request.target.target);
            self.submitted.iter().any(|submitted| identity(&submitted.target) == target)
        };
        let is_ended = |submitted: &Submitted| outcome(&submitted.submission.tickets).is_some();
        self.refused.is_empty()
            && self.waiting.iter().all(is_under_way)
            && !self.submitted.iter().any(is_ended)
    }

    /// Begins what waits, once somebody stands still.
    pub(super) fn begin_at(
        &mut self,
        standstill: &Standstill,
        waker: &Waker,
        settled: &mut Vec<Settled>,
    ) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let _held = standstill.hold();
        self.begin(waker, settled)
    }

    /// Submits the syncs of all targets that wait and have none under way. At a standstill: nothing becomes entangled
    /// between the look and the sync.
    pub(super) fn begin(&mut self, waker: &Waker, settled: &mut Vec<Settled>) -> bool {
        let held_back = self.cut_parts();
        let mut progress = false;
        if !held_back.is_empty()
            && self.submitted.iter().all(|submitted| !holds(&held_back, &submitted.target))
        {
            progress = true;
            self.begin_cut(held_back.clone(), waker, settled);
        }
        for round in self.take_startable(&held_back) {
            progress = true;
            let waiters = round.waiters;
            match round.target.submit(round.reason) {
                Err(error) => {
                    let outcome = Err(error);
                    settled.extend(waiters.iter().filter_map(|waiters| waiters.settle(&outcome)));
                }
                Ok(submission) => {
                    submission.tickets.iter().for_each(|ticket| ticket.wake(waker));
                    let Startable { target, concern, .. } = round;
                    self.submitted.push(Submitted { target, submission, waiters, concern });
                }
            }
        }
        progress
    }

    /// Writes recovery points down, if it is time: what was synced before, together with what is being synced now.
    pub(super) fn record(&mut self, has_begun: bool, now: Duration, waker: &Waker) {
        let is_due = match self.points_every {
            None => has_begun,
            Some(_) => self.points_due <= now,
        };
        if is_due
            && let Some(points) = &mut self.recovery_points
            && points.begin_sync(waker)
        {
            self.points_due = now.saturating_add(self.points_every.unwrap_or_default());
        }
    }

    /// When points are written down though nothing is begun.
    pub(super) fn record_due(&self) -> Option<Duration> {
        let points = self.recovery_points.as_ref().filter(|points| points.may_begin_sync());
        points.and(self.points_every).map(|_| self.points_due)
    }

    /// What a cut is to be taken of, if somebody waits for one and none is under way.
    fn cut_parts(&self) -> Vec<Arc<dyn Flush>> {
        let waiting = self.waiting.iter().map(|request| &request.target.target);
        let entangled: Vec<_> = waiting.filter(|target| target.is_entangled()).cloned().collect();
        if self.cut.is_some() || entangled.is_empty() {
            return Vec::new();
        }
        let mut parts: Vec<_> = self.parts.iter().filter_map(Weak::upgrade).collect();
        for target in entangled {
            // While a log is recovered nobody takes part yet.
            if !holds(&parts, &target) {
                parts.push(target);
            }
        }
        parts
    }

    fn begin_cut(&mut self, parts: Vec<Arc<dyn Flush>>, waker: &Waker, settled: &mut Vec<Settled>) {
        let mut waiters = Vec::new();
        self.waiting.retain_mut(|request| {
            let target = &request.target.target;
            if !holds(&parts, target) {
                return true;
            }
            let waiting = request.waiters.take();
            match target.check_relied_on() {
                Ok(()) => waiters.extend(waiting),
                Err(error) => settled.extend(waiting.and_then(|waiting| waiting.settle(&Err(error)))),
            }
            false
        });
        self.cut = Some(Cut::begin(parts, waiters, waker));
    }

    /// Requests for one target become one submission; where purposes differ it carries the first of
    /// them in the order of [`SyncPurpose`]. Those for `held_back` wait for the cut, and those for the cut that is
    /// under way for the next one or a round of their own.
    fn take_startable(&mut self, held_back: &[Arc<dyn Flush>]) -> Vec<Startable> {
        let mut startable = Vec::<Startable>::new();
        let under_way: HashSet<_> =
            self.submitted.iter().map(|submitted| identity(&submitted.target)).collect();
        let mut places = HashMap::new();
        self.waiting.retain_mut(|request| {
            let target = &request.target.target;
            let is_in_cut = self.cut.as_ref().is_some_and(|cut| cut.includes(target));
            let waits_for_cut = target.is_entangled() || holds(held_back, target);
            if is_in_cut || waits_for_cut || under_way.contains(&identity(target)) {
                return true;
            }
            let (reason, waiters) = (request.target.reason, request.waiters.take());
            let place = *places.entry(identity(target)).or_insert_with(|| {
                let (target, concern) = (target.clone(), Ended::Nothing);
                startable.push(Startable { target, reason, waiters: Vec::new(), concern });
                startable.len() - 1
            });
            let concern = waiters.as_ref().map_or(Ended::ForStep, |waiters| waiters.concern());
            startable[place].concern = startable[place].concern.max(concern);
            if reason.purpose < startable[place].reason.purpose {
                startable[place].reason = reason;
            }
            startable[place].waiters.extend(waiters);
            false
        });
        startable
    }
}

struct Startable {
    target: Arc<dyn Flush>,
    reason: SyncReason,
    waiters: Vec<Arc<Waiters>>,
    /// A flush that nobody waits for is one that steps may look for the effect of.
    concern: Ended,
}

fn holds(targets: &[Arc<dyn Flush>], target: &Arc<dyn Flush>) -> bool {
    targets.iter().any(|other| identity(other) == identity(target))
}
