//! Group commit: one round of parallel syncs serves everyone who waits.
//!
//! A step takes all requests that came in, submits the syncs of their targets at once, and answers
//! those whose syncs have ended. A target has one submission under way at a time; requests that come
//! meanwhile share its next one. Targets do not wait for each other.
//!
//! A failed sync is told to the target, which poisons itself, and to all who waited; it is never tried
//! again. Recovery points rise behind what was synced: see `recovery_point.rs`.
//!
//! Nobody is kept waiting for the log's thread to wake where another can do its work: who asks on a thread of its own
//! begins the syncs there, and whoever has ended a sync takes note of it, if nobody is about to. Neither waits for the
//! disk. The log's thread wakes for what is left: names to be synced, requests that came during a sync, cuts, recovery
//! points, other work that may wait for the outcome. Where any of them panics, it goes on with that.
//!
//! Targets that are entangled with others are made durable with all of them, in a consistent cut, and by no round of
//! their own: see `consistent_cut`.
//!
//! Lock order: rounds, then the standstill, then whatever a target locks. Tickets are completed with no lock held.

mod cut;
mod request;
mod rounds;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::consistent_cut::Standstill;
use crate::driver::{Driver, Steps, stand_in};
use crate::error::{Error, Result};
use crate::record::{Offset, PartitionKey, TopicId};
use crate::recovery_point::{RecoveryPointFile, RecoveryPoints};
use crate::spawn::Drive;
use crate::storage::{SyncPurpose, SyncReason, SyncTicket};
use crate::ticket::{FlushTicket, Ticket};

use request::{Request, Settled, Waiters};
use rounds::{Ended, Periodic, Rounds, When};

/// With none at all, a step would always find something that is due.
const FLUSH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// What a group commit makes durable: a partition.
///
/// The flusher has at most one submission of a target under way. After [`submit`](Self::submit) it
/// calls either [`flushed`](Self::flushed) or [`failed`](Self::failed), once; neither where its syncs succeeded and
/// the consistent cut that they were part of did not.
pub trait Flush: Send + Sync + 'static {
    /// Whose recovery point rises with it.
    fn key(&self) -> PartitionKey;

    /// Submits syncs of everything appended so far; never waits. No ticket where all of it is durable
    /// already. An error (`Poisoned`, `Closed`) is told to whoever asked for the flush.
    fn submit(&self, reason: SyncReason) -> Result<Submission>;

    /// Every sync of the last submission succeeded: all before `upto` is durable.
    fn flushed(&self, upto: Offset);

    /// A sync of the last submission failed. The target refuses writes from now on.
    fn failed(&self, error: &Error);

    /// Up to where everything is known to be durable.
    fn durable(&self) -> Offset;

    /// Whether [`submit`](Self::submit) would wait for the disk all the same, as for names to be synced.
    fn waits_to_submit(&self) -> bool {
        false
    }

    /// Whether it is gone for good, so that no recovery point is kept of it any more.
    fn is_deleted(&self) -> bool;

    /// Checks that nothing is wrong with it, so that whoever asks for it to be flushed may go on with it. A cut is
    /// taken for the others whatever this says.
    fn check_relied_on(&self) -> Result<()> {
        Ok(())
    }

    /// Whether something that is not durable yet stands on what other targets hold, so that it is made durable with
    /// them. It does not become so during a standstill.
    fn is_entangled(&self) -> bool {
        false
    }
}

/// Syncs that were submitted for one target.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The syncs, one per file.
    pub tickets: Vec<SyncTicket>,
    /// The end offset that is durable once all of them have succeeded.
    pub upto: Offset,
}

/// Something to be made durable, and why.
#[derive(Clone)]
pub(crate) struct FlushTarget {
    pub(crate) target: Arc<dyn Flush>,
    pub(crate) reason: SyncReason,
}

/// Makes targets durable, many at once.
pub(crate) struct Flusher {
    /// None once nobody steps any more.
    inbox: Mutex<Option<Vec<Request>>>,
    rounds: Arc<Mutex<Rounds>>,
    /// Woken when a sync has ended.
    waker: Waker,
    panicked: Arc<Panicked>,
    standstill: Arc<Standstill>,
    clock: Arc<dyn Clock>,
    driver: Arc<Driver>,
}

impl Flusher {
    pub(crate) fn new(clock: Arc<dyn Clock>, driver: Arc<Driver>, standstill: Arc<Standstill>) -> Self {
        let (rounds, panicked) = (Arc::<Mutex<Rounds>>::default(), Arc::<Panicked>::default());
        let waker = match driver.drive() {
            Drive::Manual => driver.waker(),
            Drive::Thread => {
                let (rounds, panicked) = (Arc::downgrade(&rounds), panicked.clone());
                Arc::new(EndRounds { rounds, panicked, then: driver.waker() }).into()
            }
        };
        Self { inbox: Mutex::new(Some(Vec::new())), rounds, waker, panicked, standstill, clock, driver }
    }

    /// From now on recovery points are written down so often while something is synced; `None`: with each round.
    pub(crate) fn record_every(&self, interval: Option<Duration>) {
        self.rounds.lock().points_every = interval;
    }

    /// From now on recovery points are kept in `file`.
    pub(crate) fn keep_recovery_points(&self, file: RecoveryPointFile) {
        self.rounds.lock().recovery_points = Some(file);
    }

    /// These partitions were synced up to these offsets; that is durable when this returns.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn record(&self, points: RecoveryPoints) -> Result<()> {
        let recorded = self.rounds.lock().recovery_points.as_mut().map_or(Ok(()), |file| file.renew(points));
        // A cut may be waiting for what is written down now.
        self.driver.raise();
        recorded
    }

    /// Sees to it that the recovery point of `target` is at or behind `offset`, up to which it is synced; that is durable
    /// when this returns. Waits for the disk only where it has not been written down yet.
    ///
    /// # Errors
    /// Those of the operating system; `Poisoned` where the points are held.
    pub(crate) fn ensure_recorded(&self, target: &dyn Flush, offset: Offset) -> Result<()> {
        let points = &mut self.rounds.lock().recovery_points;
        // Whoever has deleted it lets its points be forgotten after that.
        let Some(points) = points.as_mut().filter(|_| !target.is_deleted()) else { return Ok(()) };
        let recorded = points.ensure(target.key(), offset);
        self.driver.raise();
        recorded
    }

    /// From now on `target` takes part in consistent cuts, for as long as it is in use: before all others that do so
    /// by now, or after them.
    pub(crate) fn take_part_in_cuts(&self, target: &Arc<dyn Flush>, is_first: bool) {
        let mut rounds = self.rounds.lock();
        rounds.parts.retain(|part| part.strong_count() > 0);
        let place = if is_first { 0 } else { rounds.parts.len() };
        rounds.parts.insert(place, Arc::downgrade(target));
    }

    /// Flushes `target` each time `every` has passed, for as long as it is in use; no more often than a
    /// step can tell.
    pub(crate) fn flush_every(&self, every: Duration, target: &Arc<dyn Flush>) {
        self.flush_when(When::Always, every, target);
    }

    /// Has a cut taken each time `every` has passed, if `target` is entangled then.
    pub(crate) fn cut_every(&self, every: Duration, target: &Arc<dyn Flush>) {
        self.flush_when(When::Entangled, every, target);
    }

    fn flush_when(&self, when: When, every: Duration, target: &Arc<dyn Flush>) {
        let every = every.max(FLUSH_INTERVAL_MIN);
        let due = self.clock.elapsed() + every;
        let periodic = Periodic { target: Arc::downgrade(target), every, when, due };
        self.rounds.lock().periodic.push(periodic);
        self.driver.raise();
    }

    /// Asks for everything that `targets` hold now to be made durable. The ticket completes when all of
    /// it is; its error is the first that a target met.
    pub(crate) fn request(&self, targets: impl IntoIterator<Item = FlushTarget>) -> FlushTicket {
        let ticket = self.put_in(targets, Ended::ForStep);
        self.driver.raise();
        ticket
    }

    /// The same for who has a thread to spare, on which the syncs are begun at once; by the log's thread while somebody
    /// else steps or stands still, and where that would wait for the disk, or takes a cut. No lock is held that a target takes. The
    /// ticket is for a thread to wait for: that it is done wakes no step.
    pub(crate) fn begin(&self, targets: impl IntoIterator<Item = FlushTarget>) -> FlushTicket {
        let ticket = self.put_in(targets, Ended::ForThreads);
        if self.driver.drive() == Drive::Manual || !self.begin_here() {
            self.driver.raise();
        }
        ticket
    }

    fn put_in(&self, targets: impl IntoIterator<Item = FlushTarget>, concern: Ended) -> FlushTicket {
        let targets: Vec<_> = targets.into_iter().collect();
        if targets.is_empty() {
            return Ticket::completed(self.driver.clone(), Ok(()));
        }
        let (ticket, completion) = Ticket::pending(self.driver.clone());
        let waiters = Waiters::new(targets.len(), completion, concern);
        let requests = targets.into_iter().map(|target| Request { target, waiters: Some(waiters.clone()) });
        if let Some(inbox) = &mut *self.inbox.lock() {
            inbox.extend(requests);
        }
        ticket
    }

    /// Begins what is asked for on this thread. Whether nothing is left to do before a sync ends.
    fn begin_here(&self) -> bool {
        let Some(mut rounds) = self.rounds.try_lock() else { return false };
        self.take_in(&mut rounds);
        let Some(_held) = self.standstill.try_hold() else { return false };
        // A cut syncs the names of others too.
        let is_for_step = |target: &dyn Flush| target.waits_to_submit() || target.is_entangled();
        let waits = rounds.points_every.is_none()
            || rounds.waiting.iter().any(|request| is_for_step(&*request.target.target));
        if waits {
            return false;
        }
        let mut refused = Vec::new();
        let begin = || rounds.begin(&self.waker, &mut refused);
        let begun = catch_unwind(AssertUnwindSafe(|| stand_in(begin)));
        rounds.refused.append(&mut refused);
        if let Err(panic) = begun {
            self.panicked.note(panic);
            return false;
        }
        rounds.is_waiting_for_syncs()
    }

    fn take_in(&self, rounds: &mut Rounds) {
        if let Some(inbox) = &mut *self.inbox.lock() {
            rounds.waiting.append(inbox);
        }
    }

    /// Asks for a target to be made durable, and does not wait for it. The target is told if it fails.
    #[track_caller]
    pub(crate) fn request_unattended(&self, target: Arc<dyn Flush>, purpose: SyncPurpose) {
        let target = FlushTarget { target, reason: SyncReason::of(purpose) };
        if let Some(inbox) = &mut *self.inbox.lock() {
            inbox.push(Request { target, waiters: None });
        }
        self.driver.raise();
    }

    /// From now on recovery points stay where they are, and no cut is taken.
    pub(crate) fn hold_recovery_points(&self) {
        if let Some(points) = &mut self.rounds.lock().recovery_points {
            points.hold();
        }
    }

    /// No more is written down of the partitions of a topic that is deleted.
    pub(crate) fn forget(&self, topic: TopicId) {
        if let Some(points) = &mut self.rounds.lock().recovery_points {
            points.forget(topic);
        }
    }

    /// Nobody steps from now on: whoever waits, or asks later, is told that the log is closed.
    pub(crate) fn give_up(&self) {
        // Tickets complete as they are dropped, with no lock held.
        let inbox = self.inbox.lock().take();
        let mut rounds = std::mem::take(&mut *self.rounds.lock());
        rounds.refused.drain(..).for_each(Settled::complete);
        drop((inbox, rounds));
    }

    /// How long there is nothing to do unless something happens.
    pub(crate) fn idle_time(&self) -> Option<Duration> {
        let rounds = self.rounds.lock();
        let periodic = rounds.periodic.iter().map(|periodic| periodic.due);
        let due = periodic.chain(rounds.record_due()).min()?;
        Some(due.saturating_sub(self.clock.elapsed()))
    }
}

impl Steps for Flusher {
    fn step(&self) -> bool {
        let (mut settled, now) = (Vec::new(), self.clock.elapsed());
        let panicked = self.panicked.0.lock().take();
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
        let mut rounds = self.rounds.lock();
        settled.append(&mut rounds.refused);
        rounds.note_due(now);
        self.take_in(&mut rounds);
        let mut progress = rounds.end(&mut settled) > Ended::Nothing;
        progress |= rounds.end_cut(&self.waker, &mut settled);
        let has_begun = rounds.begin_at(&self.standstill, &self.waker, &mut settled);
        rounds.record(has_begun, now, &self.waker);
        progress |= has_begun;
        drop(rounds);
        settled.into_iter().for_each(Settled::complete);
        progress
    }
}

/// Why work of the log's thread has panicked on another one.
#[derive(Default)]
struct Panicked(Mutex<Option<Box<dyn Any + Send>>>);

impl Panicked {
    /// Has the log's thread go on with that panic.
    fn note(&self, panic: Box<dyn Any + Send>) {
        self.0.lock().get_or_insert(panic);
    }
}

/// Takes note of syncs that have ended, on whatever thread they end, and then has the next ones begun.
struct EndRounds {
    rounds: Weak<Mutex<Rounds>>,
    panicked: Arc<Panicked>,
    then: Waker,
}

impl EndRounds {
    /// Whether there is something left to step for. Whoever holds the rounds steps, or looks for what has ended
    /// meanwhile.
    fn end(&self) -> bool {
        let Some(rounds) = self.rounds.upgrade() else { return false };
        let Some(mut rounds) = rounds.try_lock() else { return true };
        let (mut settled, was_due) = (Vec::new(), rounds.record_due().is_some());
        let ended = rounds.end(&mut settled);
        let is_left = ended == Ended::ForStep
            || rounds.cut.is_some()
            || !rounds.waiting.is_empty()
            || (!was_due && rounds.record_due().is_some());
        drop(rounds);
        settled.into_iter().for_each(Settled::complete);
        is_left
    }
}

impl Wake for EndRounds {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_left = catch_unwind(AssertUnwindSafe(|| stand_in(|| self.end()))).unwrap_or_else(|panic| {
            self.panicked.note(panic);
            true
        });
        if is_left {
            self.then.wake_by_ref();
        }
    }
}

/// What tells a target from others for as long as it lives.
fn identity(target: &Arc<dyn Flush>) -> *const () {
    Arc::as_ptr(target).cast()
}

/// The outcome of all of them: none before all have ended, since a target is told once.
pub(crate) fn outcome(tickets: &[SyncTicket]) -> Option<std::io::Result<()>> {
    let mut failure = None;
    for ticket in tickets {
        if let Err(error) = ticket.poll()? {
            failure.get_or_insert(error);
        }
    }
    Some(failure.map_or(Ok(()), Err))
}
