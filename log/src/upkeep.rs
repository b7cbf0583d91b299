//! What a log does for its partitions in the course of time: seals segments that are old enough, deletes
//! those that are kept no longer, compacts.
//!
//! Now and then every partition is looked at, one in a step. Compaction takes the one with the largest
//! dirty part, and of that one piece in a step, so that no step takes long; one partition at a time, and
//! no more bytes in a second than allowed. Somebody who asks for a compaction comes first and is not
//! slowed down.
//!
//! A partition whose compaction has failed is left alone until it is opened again: trying over and over
//! would not mend it. Where too many files were open it may: it is looked at again as all others are.
//!
//! Lock order: the state of the upkeep, then whatever a partition locks, then the flusher's.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use crate::cleanup::{Cleanup, Retention};
use crate::clock::Clock;
use crate::compaction::plan::{Dirt, Facts};
use crate::compaction::{Compaction, CompactionLimits, CompactionReport, Piece};
use crate::driver::{Driver, Steps};
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::{Flush, FlushTarget, Flusher};
use crate::partition::Partition;
use crate::partition::hold::Holder;
use crate::record::{PartitionKey, Timestamp};
use crate::retention::{RetentionFacts, expired};
use crate::segment::Segment;
use crate::storage::{SyncPurpose, SyncReason};
use crate::ticket::{Completion, Ticket};

/// How long an active segment is not sealed because of its age after one was, unless segments are to be sealed
/// younger than that: records of long ago would have every segment sealed at once.
const SEAL_INTERVAL_MIN: Duration = Duration::from_secs(60 * 60);

/// How often producers are looked for that are to be forgotten: Kafka's
/// `producer.id.expiration.check.interval.ms`.
const PRODUCERS_EVERY: Duration = Duration::from_secs(10 * 60);

/// How much compaction may be ahead of what it may use: it rests now and then, and not after each piece.
const BURST: Duration = Duration::from_millis(100);

/// How a log keeps its partitions up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpkeepOptions {
    /// How often every partition is looked at.
    pub every: Duration,
    /// Bytes of memory for the keys of the partition that is compacted: 24 for each, a sixth unused.
    pub key_map_bytes: usize,
    /// How many bytes compaction reads and writes in a second at most, unless somebody has asked for it.
    pub compaction_bytes_per_second: u64,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(15),
            key_map_bytes: 16 << 20,
            compaction_bytes_per_second: 32 << 20,
        }
    }
}

/// Keeps partitions up.
pub(crate) struct Upkeep {
    options: UpkeepOptions,
    seed: u64,
    clock: Arc<dyn Clock>,
    driver: Arc<Driver>,
    flusher: Arc<Flusher>,
    state: Mutex<State>,
}

struct State {
    /// None once nobody steps any more.
    partitions: Option<Vec<Weak<Partition>>>,
    /// Those that are to be looked at still.
    visits: VecDeque<Weak<Partition>>,
    /// Of those that were looked at the one that needs compaction most.
    dirtiest: Option<(Arc<Partition>, Dirt)>,
    /// When all of them are to be looked at next, on the clock's elapsed time.
    due: Duration,
    /// When producers are looked for next that are to be forgotten, on the clock's elapsed time.
    producers_due: Duration,
    /// Whether they are while all partitions are looked at this time.
    expires_producers: bool,
    /// Until when compaction has used up what it may use.
    rests_until: Duration,
    requests: VecDeque<Request>,
    running: Option<Running>,
    /// When each partition's active segment was sealed last, or it was seen first.
    sealed: HashMap<PartitionKey, Duration>,
    /// Compacting them has failed.
    failed: HashSet<PartitionKey>,
    /// How many compactions were begun: each hashes its keys otherwise.
    begun: u64,
}

/// Somebody's wish that a partition be compacted.
struct Request {
    partition: Arc<Partition>,
    report: Arc<Mutex<Vec<CompactionReport>>>,
    completion: Completion,
}

struct Running {
    compaction: Compaction,
    /// Who has asked for it.
    request: Option<Request>,
}

impl Upkeep {
    pub(crate) fn new(
        options: UpkeepOptions,
        seed: u64,
        clock: Arc<dyn Clock>,
        driver: Arc<Driver>,
        flusher: Arc<Flusher>,
    ) -> Self {
        let due = clock.elapsed() + options.every;
        let state = State {
            partitions: Some(Vec::new()),
            visits: VecDeque::new(),
            dirtiest: None,
            due,
            producers_due: clock.elapsed() + PRODUCERS_EVERY,
            expires_producers: false,
            rests_until: Duration::ZERO,
            requests: VecDeque::new(),
            running: None,
            sealed: HashMap::new(),
            failed: HashSet::new(),
            begun: 0,
        };
        Self { options, seed, clock, driver, flusher, state: Mutex::new(state) }
    }

    /// Keeps `partition` up for as long as it is in use.
    pub(crate) fn keep(&self, partition: &Arc<Partition>) {
        if let Some(partitions) = &mut self.state.lock().partitions {
            partitions.push(Arc::downgrade(partition));
        }
    }

    /// Asks for all of a partition to be compacted that may be, whether or not it is worth it. What was
    /// done is added to `report` before the ticket completes.
    pub(crate) fn compact(
        &self,
        partition: Arc<Partition>,
        report: Arc<Mutex<Vec<CompactionReport>>>,
    ) -> Ticket {
        let (ticket, completion) = Ticket::pending(self.driver.clone());
        let mut state = self.state.lock();
        if state.partitions.is_some() {
            state.requests.push_back(Request { partition, report, completion });
        }
        drop(state);
        self.driver.raise();
        ticket
    }

    /// Looks at every partition at the next steps, whatever the time is.
    pub(crate) fn hurry(&self) {
        self.state.lock().due = Duration::ZERO;
        self.driver.raise();
    }

    /// Nobody steps from now on: whoever waits is told that the log is closed.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        state.partitions = None;
        state.dirtiest = None;
        // Tickets complete as they are dropped, with no lock held.
        let dropped = (std::mem::take(&mut state.requests), state.running.take());
        drop(state);
        drop(dropped);
    }

    /// How long there is nothing to do unless something happens.
    pub(crate) fn idle_time(&self) -> Option<Duration> {
        let state = self.state.lock();
        state.partitions.as_ref()?;
        let next_piece = state.rests_until.saturating_sub(BURST);
        let due = if state.running.is_some() { next_piece.min(state.due) } else { state.due };
        Some(due.saturating_sub(self.clock.elapsed()))
    }
}

impl Steps for Upkeep {
    fn step(&self) -> bool {
        let mut state = self.state.lock();
        if state.partitions.is_none() {
            return false;
        }
        let now = self.clock.elapsed();
        state.note_due(now, self.options.every);
        if let Some(partition) = state.visits.pop_front() {
            if let Some(partition) = partition.upgrade() {
                self.visit(&mut state, &partition, now);
            }
            return true;
        }
        let work =
            if state.running.is_some() { self.advance(&mut state, now) } else { self.begin(&mut state) };
        drop(state);
        match work {
            Work::None => false,
            Work::Done => true,
            // Whoever waits is woken with no lock held.
            Work::Answered(request, outcome) => {
                request.completion.complete(outcome);
                true
            }
        }
    }
}

/// What a step of compaction came to.
enum Work {
    /// There is nothing to do but wait.
    None,
    Done,
    /// Somebody gets the answer.
    Answered(Request, Result<()>),
}

impl State {
    fn note_due(&mut self, now: Duration, every: Duration) {
        if now < self.due {
            return;
        }
        self.due = now + every;
        self.expires_producers = self.producers_due <= now;
        if self.expires_producers {
            self.producers_due = now + PRODUCERS_EVERY;
        }
        if let Some(partitions) = &mut self.partitions {
            partitions.retain(|partition| partition.strong_count() > 0);
            self.visits = partitions.iter().cloned().collect();
        }
    }

    fn is_compacting(&self, partition: &Partition) -> bool {
        self.running.as_ref().is_some_and(|running| running.compaction.partition().key() == partition.key())
    }
}

impl Upkeep {
    /// Looks at one partition.
    fn visit(&self, state: &mut State, partition: &Arc<Partition>, now: Duration) {
        if state.expires_producers {
            partition.expire_producers();
        }
        if state.is_compacting(partition) {
            return;
        }
        let sealed = *state.sealed.entry(partition.key()).or_insert(now);
        let tended = self.tend(partition, now.saturating_sub(sealed));
        if tended.as_ref().is_ok_and(|tended| tended.is_sealed) {
            state.sealed.insert(partition.key(), now);
        }
        match tended {
            Ok(Tended { dirt, .. }) => state.note_dirt(partition, dirt),
            Err(error) if is_passing(&error) => {}
            Err(error) => tracing::warn!(partition = %partition.name(), %error, "old records stay"),
        }
    }

    /// Seals and deletes what is old enough, so long after something was sealed. Returns what there is to
    /// compact.
    fn tend(&self, partition: &Arc<Partition>, since_sealed: Duration) -> Result<Tended> {
        let config = partition.config();
        let cleanup = &config.cleanup;
        let is_kept_up = cleanup.policy.compacts() || cleanup.retention != Retention::default();
        let view = partition.compaction_view();
        let clean_end = view.clean_end;
        let offsets = partition.offsets();
        let begins = view.sealed.first().map_or(view.active.base(), |(segment, _)| segment.base());
        if !is_kept_up && offsets.start <= begins {
            return Ok(Tended::default());
        }
        let now = partition.now();
        let hold = partition.hold();
        let bound = hold.from;
        let sealed: Vec<_> =
            view.sealed.iter().map(|(segment, end)| partition.sealed_facts(segment, *end)).collect();
        let facts = RetentionFacts {
            sealed: &sealed,
            active_bytes: view.active.bytes(),
            active_timestamp: view.active.max_timestamp(),
            start: offsets.start,
            bound,
        };
        let expired = expired(&facts, cleanup, now);
        if hold.holder == Holder::Producers && hold.from < view.active.base() {
            // Nothing is sure to be appended with which they would be; the next visit finds it done.
            if let Err(error) = partition.snapshot_at_rest()
                && !is_passing(&error)
            {
                tracing::warn!(partition = %partition.name(), %error, "what is held stays so");
            }
        }
        if let Some(hold) = partition.note_held_back(expired.is_held.then_some(hold)) {
            tracing::info!(partition = %partition.name(), "old records stay for now: {hold}");
        }
        let is_old = is_kept_up && is_old(&view.active, cleanup, now, since_sealed);
        if expired.reaches_active || is_old {
            partition.seal_active()?;
        }
        if is_kept_up && offsets.durable < offsets.end {
            // Nothing that is not durable is deleted or compacted; the next visit finds it so.
            let target =
                FlushTarget { target: partition.clone(), reason: SyncReason::of(SyncPurpose::Records) };
            drop(self.flusher.request([target]));
        }
        if expired.segments > 0 {
            let kept = sealed.get(expired.segments).map_or(view.active.base(), |segment| segment.base);
            // Whoever has a segment still is given its file to read on.
            drop(view);
            partition.remove_segments_before(kept)?;
        }
        let sealed = sealed[expired.segments..].to_vec();
        let facts = Facts { sealed, clean_end, bound };
        Ok(Tended { dirt: facts.dirt(&cleanup.compaction, now), is_sealed: is_old })
    }

    /// Begins the next compaction, if there is one.
    fn begin(&self, state: &mut State) -> Work {
        let (partition, dirt, request) = match state.requests.pop_front() {
            Some(request) => {
                let dirt = all_dirt(&request.partition);
                if dirt.clean_bytes + dirt.dirty_bytes == 0 {
                    return Work::Answered(request, Ok(()));
                }
                (request.partition.clone(), dirt, Some(request))
            }
            None => match state.dirtiest.take() {
                Some((partition, dirt)) => (partition, dirt, None),
                None => return Work::None,
            },
        };
        if let Err(error) = partition.record_snapshot() {
            if let Some(request) = request {
                return Work::Answered(request, Err(error));
            }
            if !is_passing(&error) {
                tracing::warn!(partition = %partition.name(), %error, "compaction begins later");
            }
            return Work::Done;
        }
        state.begun += 1;
        let key_map_bytes = self.options.key_map_bytes.min(key_map_bytes_for(&dirt));
        let limits = CompactionLimits { key_map_bytes, seed: [self.seed, state.begun] };
        let compaction = Compaction::begin(partition, &dirt, limits);
        state.running = Some(Running { compaction, request });
        Work::Done
    }

    /// Does a piece of the compaction that runs.
    fn advance(&self, state: &mut State, now: Duration) -> Work {
        let Some(running) = state.running.as_mut() else { return Work::None };
        let is_waited_for = running.request.is_some() || !state.requests.is_empty();
        if !is_waited_for && now + BURST < state.rests_until {
            return Work::None;
        }
        let outcome = match running.compaction.advance(&self.driver.waker()) {
            Ok(Piece::Waits) => return Work::None,
            Ok(Piece::Worked { bytes }) => {
                state.rests_until = state.rests_until.max(now) + self.rest_after(bytes);
                return Work::Done;
            }
            Ok(Piece::Done) => Ok(()),
            Err(error) => Err(error),
        };
        let Some(Running { compaction, request }) = state.running.take() else { return Work::None };
        state.note_end(&compaction, &outcome);
        let Some(request) = request else { return Work::Done };
        let report = compaction.report().clone();
        let is_left = outcome.is_ok() && report.clean_end < all_dirt(&request.partition).end;
        request.report.lock().push(report);
        if is_left {
            // The map was full.
            state.requests.push_front(request);
            return Work::Done;
        }
        Work::Answered(request, outcome)
    }

    /// How long after so many bytes the next ones may follow.
    fn rest_after(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000;
        let rest = nanos / u128::from(self.options.compaction_bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
    }
}

/// What looking at a partition came to.
#[derive(Default)]
struct Tended {
    dirt: Dirt,
    /// Whether its active segment was sealed because of its age.
    is_sealed: bool,
}

impl State {
    fn note_dirt(&mut self, partition: &Arc<Partition>, dirt: Dirt) {
        let cleanup = partition.config().cleanup;
        let is_due = cleanup.policy.compacts() && dirt.is_due(&cleanup.compaction);
        let is_dirtier = self.dirtiest.as_ref().is_none_or(|(_, most)| dirt.percent() > most.percent());
        if is_due && is_dirtier && !self.failed.contains(&partition.key()) {
            self.dirtiest = Some((partition.clone(), dirt));
        }
    }

    fn note_end(&mut self, compaction: &Compaction, outcome: &Result<()>) {
        let report = compaction.report();
        match outcome {
            Ok(()) => {
                let (partition, before, after) = (&report.partition, report.bytes_before, report.bytes_after);
                tracing::info!(%partition, keys = report.keys, before, after, "compacted");
                // There may be another one, or more of this one.
                self.due = Duration::ZERO;
            }
            Err(error) if is_passing(error) => {}
            Err(error) if error.kind() == ErrorKind::TooManyFiles => {
                tracing::warn!(partition = %report.partition, %error, "compaction begins anew later");
            }
            Err(error) => {
                tracing::error!(partition = %report.partition, %error, "compaction ends until the log is opened again");
                self.failed.insert(compaction.partition().key());
            }
        }
    }
}

/// Whether the partition is being closed or deleted, or somebody reads what was to go.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed | ErrorKind::NotFound | ErrorKind::Retry)
}

/// Whether the first batch of the active segment is old enough for it to be sealed, so long after the one before.
fn is_old(active: &Segment, cleanup: &Cleanup, now: Timestamp, since_sealed: Duration) -> bool {
    let lag_max = cleanup.compaction.lag_max.filter(|_| cleanup.policy.compacts());
    let age_max = cleanup.segment_age_max.min(lag_max.unwrap_or(cleanup.segment_age_max));
    if since_sealed < SEAL_INTERVAL_MIN.min(age_max) {
        return false;
    }
    let first = active.first_timestamp().ok().flatten();
    first.is_some_and(|first| now.0.saturating_sub(first.0) > age_max.as_millis() as i64)
}

/// All that there is to compact in a partition, worth it or not.
pub(crate) fn all_dirt(partition: &Partition) -> Dirt {
    let view = partition.compaction_view();
    let facts = view.sealed.iter().map(|(segment, end)| partition.sealed_facts(segment, *end));
    let facts = Facts { sealed: facts.collect(), clean_end: view.clean_end, bound: partition.hold().from };
    facts.dirt(&partition.config().cleanup.compaction, partition.now())
}

/// More than a map of all the keys that so many bytes can hold: a record takes eight at least.
fn key_map_bytes_for(dirt: &Dirt) -> usize {
    usize::try_from(dirt.dirty_bytes).unwrap_or(usize::MAX).saturating_mul(5).max(256)
}
