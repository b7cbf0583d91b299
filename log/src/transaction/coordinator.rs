//! Ends transactions, one step at a time: see the module's head for the protocol.
//!
//! State changes under one lock, which is held while records and markers are appended and never while
//! the disk is awaited. Whoever calls [`Coordinator::end`] gets a ticket at once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::ending::{Ending, Marked, Phase, is_synced, unsettled};
use super::record::{Status, TransactionRecord};
use super::session::{EPOCH_LAST, Fenced, OpenTransaction, ProducerIdentity, Session};
use super::snapshot::{SnapshotWriter, TableSnapshot};
use super::table::{Table, TableUpdate, batch, tombstones};
use crate::batch::MarkerKind;
use crate::clock::Clock;
use crate::consistent_cut::Standstill;
use crate::driver::{Driver, Steps};
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::{Flush, FlushTarget, Flusher};
use crate::partition::{Durability, Partition};
use crate::record::{ProducerEpoch, ProducerId, Timestamp};
use crate::storage::{Storage, SyncPurpose, SyncReason};
use crate::ticket::{CommitTicket, Completion, FlushTicket, Ticket};

/// How often transactions are looked for that are open for too long.
const OVERDUE_EVERY: Duration = Duration::from_secs(1);

/// How often ids are looked for that nobody uses any more: Kafka's
/// `transaction.remove.expired.transaction.cleanup.interval.ms`.
const IDS_EVERY: Duration = Duration::from_secs(60 * 60);

/// How many ids are forgotten at a time.
const FORGOTTEN_MAX: usize = 1000;

/// Ends the transactions of all transactional ids of a log.
pub(crate) struct Coordinator {
    pub(super) state: Mutex<State>,
    /// Held by whoever takes a transactional id, until it has it: also while it waits for the disk.
    initialising: Mutex<()>,
    pub(super) flusher: Arc<Flusher>,
    standstill: Arc<Standstill>,
    driver: Arc<Driver>,
    clock: Arc<dyn Clock>,
    limits: TransactionLimits,
}

/// What transactional ids are held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransactionLimits {
    /// The longest timeout that a producer may ask for.
    pub(crate) timeout_max: Duration,
    /// How long an id is remembered that nobody holds.
    pub(crate) id_expiration: Duration,
}

impl TransactionLimits {
    fn check(&self, id: &str, timeout: Duration) -> Result<()> {
        if !timeout.is_zero() && timeout <= self.timeout_max {
            return Ok(());
        }
        let most = self.timeout_max;
        let what = "the log's transaction_timeout_max";
        let what = format!(
            "transactional id {id}: a timeout of {timeout:?}; more than 0 and at most {most:?} is possible, {what}"
        );
        Err(Error::new(ErrorKind::Invalid, what))
    }
}

pub(super) struct State {
    /// The partition of `__transaction_state`; none before the first transactional id.
    pub(super) home: Option<Arc<Partition>>,
    pub(super) table: Table,
    sessions: HashMap<String, Arc<Session>>,
    endings: Vec<Ending>,
    marked: Vec<Marked>,
    pub(super) snapshots: SnapshotWriter,
    epoch_last: ProducerEpoch,
    /// When transactions are looked for next that are open for too long, on the clock's elapsed time.
    overdue_due: Duration,
    /// When ids are looked for next that are to be forgotten.
    ids_due: Duration,
    is_closed: bool,
}

/// A ticket to be completed once no lock is held.
type Settled = (Completion, Result<()>);

impl Coordinator {
    pub(crate) fn new(
        flusher: Arc<Flusher>,
        standstill: Arc<Standstill>,
        driver: Arc<Driver>,
        clock: Arc<dyn Clock>,
        storage: Arc<dyn Storage>,
        directory: &Path,
        limits: TransactionLimits,
    ) -> Self {
        let elapsed = clock.elapsed();
        let state = State {
            home: None,
            table: Table::default(),
            sessions: HashMap::new(),
            endings: Vec::new(),
            marked: Vec::new(),
            snapshots: SnapshotWriter::new(storage, directory),
            epoch_last: EPOCH_LAST,
            overdue_due: elapsed + OVERDUE_EVERY,
            ids_due: elapsed + IDS_EVERY,
            is_closed: false,
        };
        let state = Mutex::new(state);
        Self { state, initialising: Mutex::new(()), flusher, standstill, driver, clock, limits }
    }

    /// Makes `home` the table's partition.
    pub(crate) fn set_home(&self, home: Arc<Partition>) {
        self.state.lock().home.get_or_insert(home);
    }

    /// Takes a transactional id: fences whoever had it, ends what it left, and gives it the next epoch.
    /// Nobody is fenced by one that asks for a timeout that is not possible.
    pub(super) fn initialise(
        &self,
        id: &str,
        timeout: Option<Duration>,
        new_producer_id: impl FnOnce() -> Result<ProducerId>,
    ) -> Result<Arc<Session>> {
        timeout.map_or(Ok(()), |timeout| self.limits.check(id, timeout))?;
        let _one_at_a_time = self.initialising.lock();
        self.fence(id)?;
        let flush = self.request_markers(&self.state.lock(), Some(id));
        flush.wait()?;
        let (known, epoch_last) = {
            let state = self.state.lock();
            (state.table.entries.get(id).cloned(), state.epoch_last)
        };
        let next = known.and_then(|record| record.producer().next(epoch_last));
        let producer = match next {
            Some(producer) => producer,
            None => ProducerIdentity { id: new_producer_id()?, epoch: ProducerEpoch(0) },
        };
        let session = Session::new(id, producer, epoch_last, timeout);
        self.assign(&session, producer)?.wait()?;
        self.state.lock().sessions.insert(id.to_owned(), session.clone());
        Ok(session)
    }

    /// Ends what the present holder of an id has under way, and lets it do no more.
    fn fence(&self, id: &str) -> Result<()> {
        let mut settled = Vec::new();
        let mut state = self.state.lock();
        let Some(session) = state.sessions.get(id).cloned() else { return Ok(()) };
        let ticket = match session.fence()? {
            Fenced::Nothing => None,
            Fenced::Open(transaction) => {
                Some(self.begin(&mut state, &session, transaction, MarkerKind::Abort, &[]))
            }
            Fenced::Ending => state.find_ending(&session).map(|index| {
                let ending = &state.endings[index];
                if ending.kind == MarkerKind::Commit && matches!(ending.phase, Phase::Flushing(_)) {
                    let Ending { transaction, completion, .. } = state.endings.swap_remove(index);
                    settled.push((completion, Err(session.fenced())));
                    self.begin(&mut state, &session, transaction, MarkerKind::Abort, &[])
                } else {
                    ending.ticket.clone()
                }
            }),
        };
        drop(state);
        settle(settled);
        match ticket.map(|ticket| ticket.wait()) {
            None | Some(Ok(())) => Ok(()),
            // What failed may have been the holder's commit alone; what matters is what it left behind.
            Some(Err(_)) => session.fence().map(drop),
        }
    }

    /// Writes down that the id goes on with `producer`.
    fn assign(&self, session: &Session, producer: ProducerIdentity) -> Result<FlushTicket> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(closed());
        }
        let record = TransactionRecord {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            status: Status::Empty,
            timeout_ms: session.timeout_ms(),
            partitions: Vec::new(),
            updated: now,
            started: now,
        };
        let mut updates = state.take_complete(now);
        updates.push(TableUpdate::new(session.id(), record));
        state.append(updates, now)?;
        let home = state.home()?;
        let is_synced = home.config().durability == Durability::Sync;
        Ok(self.flusher.request(is_synced.then(|| target(home, SyncPurpose::Decision))))
    }

    /// Begins to end the open transaction of a session.
    pub(super) fn end(
        &self,
        session: &Arc<Session>,
        kind: MarkerKind,
        consumed: &[Arc<Partition>],
    ) -> CommitTicket {
        let mut state = self.state.lock();
        let taken = if state.is_closed { Err(closed()) } else { session.take(kind) };
        match taken {
            Ok(Some(transaction)) => self.begin(&mut state, session, transaction, kind, consumed),
            Ok(None) => Ticket::completed(self.driver.clone(), Ok(())),
            Err(error) => Ticket::completed(self.driver.clone(), Err(error)),
        }
    }

    fn begin(
        &self,
        state: &mut State,
        session: &Arc<Session>,
        transaction: OpenTransaction,
        kind: MarkerKind,
        consumed: &[Arc<Partition>],
    ) -> CommitTicket {
        let partitions = transaction.partitions();
        let is_synced = is_synced(&partitions);
        let mut targets = state.marker_targets(Some(session.id()));
        if is_synced && kind == MarkerKind::Commit {
            targets.extend(partitions.iter().map(|partition| target(partition, SyncPurpose::Records)));
            let sent = transaction.consumed();
            let consumed = consumed.iter().chain(&sent);
            targets.extend(consumed.map(|partition| target(partition, SyncPurpose::Consumed)));
        }
        let (ticket, completion) = Ticket::pending(self.driver.clone());
        if state.is_closed {
            return ticket;
        }
        state.endings.push(Ending {
            session: session.clone(),
            kind,
            transaction,
            partitions,
            is_synced,
            phase: Phase::Flushing(self.flusher.request(targets)),
            ticket: ticket.clone(),
            completion,
        });
        self.driver.raise();
        ticket
    }

    /// Asks for the markers of an id, or of all, to be made durable.
    fn request_markers(&self, state: &State, id: Option<&str>) -> FlushTicket {
        self.flusher.request(state.marker_targets(id))
    }

    /// Aborts what is open, ends what is ending, and makes every marker durable. Nothing begins any more.
    pub(crate) fn close(&self) -> Result<()> {
        let tickets: Vec<_> = {
            let mut state = self.state.lock();
            let sessions: Vec<_> = state.sessions.values().cloned().collect();
            for session in sessions {
                // One that has nothing open has nothing to abort.
                if let Ok(Some(transaction)) = session.take(MarkerKind::Abort) {
                    // Its end is waited for below, with those that are under way.
                    drop(self.begin(&mut state, &session, transaction, MarkerKind::Abort, &[]));
                }
            }
            state.is_closed = true;
            state.endings.iter().map(|ending| ending.ticket.clone()).collect()
        };
        for ticket in tickets {
            // Whoever committed is told; what matters here is that it is over.
            let _ = ticket.wait();
        }
        let flush = self.request_markers(&self.state.lock(), None);
        flush.wait()?;
        self.step();
        Ok(())
    }

    /// Nobody steps from now on: whoever waits, or asks later, is told that the log is closed. Opening it
    /// again settles what was ending.
    pub(crate) fn give_up(&self) {
        let endings = {
            let mut state = self.state.lock();
            state.is_closed = true;
            std::mem::take(&mut state.endings)
        };
        // Their tickets complete as they are dropped, with no lock held.
        drop(endings);
    }

    /// Writes the table down when its partition is closed.
    pub(crate) fn write_snapshot(&self) -> Result<()> {
        let mut state = self.state.lock();
        let Some(snapshot) = state.snapshot() else { return Ok(()) };
        state.snapshots.write_now(&snapshot)
    }

    /// Appends to the table outside of any transaction, and makes that durable.
    pub(super) fn write_table(&self, updates: Vec<TableUpdate>) -> Result<()> {
        let now = self.clock.now();
        let home = {
            let mut state = self.state.lock();
            state.append(updates, now)?;
            state.home()?.clone()
        };
        self.flusher.request([target(&home, SyncPurpose::Decision)]).wait()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    #[cfg(test)]
    pub(super) fn set_limits(&self, epoch_last: ProducerEpoch, snapshot_records: u64) {
        let mut state = self.state.lock();
        state.epoch_last = epoch_last;
        state.snapshots.set_records_max(snapshot_records);
    }
}

impl Steps for Coordinator {
    fn step(&self) -> bool {
        let mut settled = Vec::new();
        let mut state = self.state.lock();
        let Some(home) = state.home.clone() else { return false };
        let held = self.standstill.hold();
        let mut progress = self.look_around(&mut state, self.clock.elapsed());
        progress |= state.mark_decided(&mut settled);
        progress |= self.decide_flushed(&mut state, &home, &mut settled);
        drop(held);
        progress |= state.snapshots.end(home.durable());
        if state.snapshots.is_due()
            && let Some(snapshot) = state.snapshot()
        {
            state.snapshots.begin(&snapshot, &self.driver.waker());
        }
        drop(state);
        settle(settled);
        progress
    }
}

impl Coordinator {
    /// Aborts what is open for too long, and forgets ids, now and then. Says whether anything was.
    fn look_around(&self, state: &mut State, elapsed: Duration) -> bool {
        let mut progress = false;
        if state.overdue_due <= elapsed && !state.is_closed {
            state.overdue_due = elapsed + OVERDUE_EVERY;
            progress |= self.abort_overdue(state, elapsed);
        }
        if state.ids_due <= elapsed && !state.is_closed {
            state.ids_due = elapsed + IDS_EVERY;
            progress |= self.forget_idle(state);
        }
        progress
    }

    fn abort_overdue(&self, state: &mut State, elapsed: Duration) -> bool {
        let sessions: Vec<_> = state.sessions.values().cloned().collect();
        let mut progress = false;
        for session in sessions {
            let Some(transaction) = session.take_overdue(elapsed) else { continue };
            tracing::warn!(
                transactional_id = session.id(),
                "a transaction was open for too long and is aborted"
            );
            // Nobody waits: whoever uses the session next is told.
            drop(self.begin(state, &session, transaction, MarkerKind::Abort, &[]));
            progress = true;
        }
        progress
    }

    /// Forgets the ids that were not used for long and that nobody holds.
    fn forget_idle(&self, state: &mut State) -> bool {
        let now = self.clock.now();
        let expiration = self.limits.id_expiration.as_millis().min(i64::MAX as u128) as i64;
        let horizon = Timestamp(now.0.saturating_sub(expiration));
        let is_held = |id: &String| state.sessions.get(id).is_some_and(|held| Arc::strong_count(held) > 1);
        let idle: Vec<String> =
            state.table.idle_since(horizon).filter(|id| !is_held(id)).take(FORGOTTEN_MAX).cloned().collect();
        if idle.is_empty() {
            return false;
        }
        if let Err(error) = state.forget(&idle, now) {
            tracing::warn!(%error, "transactional ids that nobody uses stay");
        }
        true
    }

    /// How long there is nothing to do unless something happens.
    pub(crate) fn idle_time(&self) -> Option<Duration> {
        let state = self.state.lock();
        let deadline = state.sessions.values().filter_map(|session| session.deadline()).min()?;
        Some(deadline.max(state.overdue_due).saturating_sub(self.clock.elapsed()))
    }

    /// Decides every transaction whose flush has ended: one batch and one sync for all of them.
    fn decide_flushed(&self, state: &mut State, home: &Arc<Partition>, settled: &mut Vec<Settled>) -> bool {
        let now = self.clock.now();
        let flushed = state.take_flushed(settled);
        let progress = flushed.is_some();
        let mut deciding = flushed.unwrap_or_default();
        let mut updates = state.take_complete(now);
        updates.extend(deciding.iter().map(|ending| ending.decision(now)));
        if updates.is_empty() {
            return progress;
        }
        if let Err(error) = state.append(updates, now) {
            let why = "whether its decision was written is unknown";
            settled.extend(deciding.into_iter().map(|ending| ending.fail(why, error.clone())));
            return true;
        }
        if deciding.is_empty() {
            return true;
        }
        state.forget_deleted(&deciding);
        let is_synced = deciding.iter().any(|ending| ending.is_synced);
        let decision = self.flusher.request(is_synced.then(|| target(home, SyncPurpose::Decision)));
        for ending in &mut deciding {
            ending.phase = Phase::Deciding(decision.clone());
        }
        state.endings.extend(deciding);
        true
    }
}

impl State {
    pub(super) fn home(&self) -> Result<&Arc<Partition>> {
        self.home
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::TransactionState, "there is no table of transactions"))
    }

    fn find_ending(&self, session: &Arc<Session>) -> Option<usize> {
        self.endings.iter().position(|ending| Arc::ptr_eq(&ending.session, session))
    }

    fn marker_targets(&self, id: Option<&str>) -> Vec<FlushTarget> {
        let marked = self.marked.iter().filter(|marked| id.is_none_or(|id| marked.id == id));
        let partitions = marked.flat_map(|marked| marked.markers.iter());
        partitions.map(|(partition, _)| target(partition, SyncPurpose::Markers)).collect()
    }

    /// Appends the markers of transactions whose decision is durable.
    fn mark_decided(&mut self, settled: &mut Vec<Settled>) -> bool {
        let mut progress = false;
        let mut index = 0;
        while index < self.endings.len() {
            let Some(outcome) = self.endings[index].decided() else {
                index += 1;
                continue;
            };
            progress = true;
            let ending = self.endings.remove(index);
            settled.push(match outcome {
                Err(error) => ending.fail("whether its decision is durable is unknown", error),
                Ok(()) => match ending.mark() {
                    Ok(marked) => {
                        self.marked.push(marked);
                        ending.session.finish(ending.producer());
                        (ending.completion, Ok(()))
                    }
                    Err(error) => {
                        ending.session.fail(&error);
                        (ending.completion, Err(error))
                    }
                },
            });
        }
        progress
    }

    /// Takes the transactions that can be decided, and gives up those whose flush has failed. `None` if
    /// no flush has ended.
    fn take_flushed(&mut self, settled: &mut Vec<Settled>) -> Option<Vec<Ending>> {
        let mut flushed = None;
        let mut index = 0;
        while index < self.endings.len() {
            let Some(outcome) = self.endings[index].flushed() else {
                index += 1;
                continue;
            };
            let ending = self.endings.remove(index);
            let flushed = flushed.get_or_insert_with(Vec::new);
            match outcome {
                Ok(()) => flushed.push(ending),
                Err(error) => settled.push(ending.give_up(error)),
            }
        }
        flushed
    }

    /// Takes note of the transactions whose markers have become durable.
    fn take_complete(&mut self, now: Timestamp) -> Vec<TableUpdate> {
        let table = &self.table;
        let mut updates = Vec::new();
        self.marked.retain(|marked| {
            if !marked.is_durable() {
                return true;
            }
            let complete = table.entries.get(&marked.id).and_then(|record| record.complete(now));
            let is_unsynced = marked.is_unsynced;
            updates.extend(
                complete.map(|record| TableUpdate { is_unsynced, ..TableUpdate::new(&marked.id, record) }),
            );
            false
        });
        updates
    }

    /// What these transactions waited for is durable; a marker that is not was in a topic that was deleted.
    fn forget_deleted(&mut self, deciding: &[Ending]) {
        self.marked.retain(|marked| deciding.iter().all(|ending| ending.session.id() != marked.id));
    }

    /// Appends to the table, as one batch. With something that nobody syncs it stands on the partitions that this is
    /// about.
    fn append(&mut self, updates: Vec<TableUpdate>, now: Timestamp) -> Result<()> {
        let home = self.home()?;
        home.append(batch(&updates, now)?)?;
        if updates.iter().any(|update| update.is_unsynced) {
            home.entangle();
        }
        self.snapshots.count(updates.len() as u64);
        self.table.apply(updates);
        Ok(())
    }

    /// Appends to the table that it knows these ids no more.
    fn forget(&mut self, ids: &[String], now: Timestamp) -> Result<()> {
        self.home()?.append(tombstones(ids, now)?)?;
        self.snapshots.count(ids.len() as u64);
        for id in ids {
            self.table.entries.remove(id);
            self.sessions.remove(id);
        }
        Ok(())
    }

    fn snapshot(&self) -> Option<TableSnapshot> {
        let home = self.home.as_ref()?;
        let (topic_id, upto) = (home.topic_id(), home.offsets().end);
        Some(TableSnapshot { topic_id, upto, table: self.table.clone() })
    }
}

impl Ending {
    /// Nothing was decided. A commit leaves the transaction open, to be aborted; an abort that cannot
    /// even begin leaves it to recovery.
    fn give_up(self, error: Error) -> Settled {
        match self.kind {
            MarkerKind::Commit => {
                self.session.reopen(self.transaction, &error);
                (self.completion, Err(error))
            }
            MarkerKind::Abort => self.fail("it could not be aborted", error),
        }
    }

    fn fail(self, why: &str, cause: Error) -> Settled {
        let error = unsettled(self.session.id(), why, cause);
        self.session.fail(&error);
        (self.completion, Err(error))
    }
}

#[track_caller]
fn target(partition: &Arc<Partition>, purpose: SyncPurpose) -> FlushTarget {
    FlushTarget { target: partition.clone(), reason: SyncReason::of(purpose) }
}

fn settle(settled: Vec<Settled>) {
    for (completion, outcome) in settled {
        completion.complete(outcome);
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the log is closed")
}
