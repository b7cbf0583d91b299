//! The writing half of a producer: seals and appends what is due, settles what is durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::accumulator::DueBatch;
use super::outcome::{Outcome, RecordPlace};
use super::route::STALE;
use super::{Shared, State, Target};
use crate::batch::ProducerStamp;
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::Flush;
use crate::partition::{Durability, Partition};
use crate::record::{PartitionKey, ProducerEpoch, ProducerId, Sequence};
use crate::storage::SyncPurpose;
use crate::ticket::FlushTicket;
use crate::transaction::TransactionalProducer;

/// Leaves nobody waiting for a thread that has panicked.
struct AnswerOnPanic<'a>(&'a Shared);

impl Drop for AnswerOnPanic<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut state = self.0.state.lock();
        state.is_dead = true;
        let unsettled: Vec<_> = state.unsettled.iter().chain(state.accumulator.outcomes()).cloned().collect();
        drop(state);
        self.0.wake_waiting(true);
        unsettled.iter().for_each(|outcome| outcome.settle(Err(gone())));
    }
}

/// The answer of a producer whose thread has panicked.
pub(super) fn gone() -> Error {
    let what = "the producer's thread has panicked; whether the record was written is unknown";
    Error::new(ErrorKind::Closed, what)
}

/// What only the one who writes needs.
pub(super) struct Writer {
    /// Who the batches are stamped by.
    identity: Option<ProducerId>,
    /// The next sequence in each partition; moves on only when an append succeeds, so that none is missing.
    sequences: HashMap<PartitionKey, Sequence>,
    /// Rounds that are being synced, oldest first.
    syncing: VecDeque<Round>,
}

/// Batches that one group commit makes durable.
struct Round {
    ticket: FlushTicket,
    written: Vec<Written>,
}

/// A batch that was handed to its partition, and what became of that.
struct Written {
    target: Target,
    outcome: Arc<Outcome>,
    result: Result<RecordPlace>,
    held_bytes: usize,
    /// When it has failed unless it is durable; none once that was told.
    deadline: Option<Duration>,
}

impl Shared {
    /// The life of the producer's thread: until the producer is dropped and all is settled.
    pub(super) fn run(&self) {
        let _answers = AnswerOnPanic(self);
        loop {
            if !self.advance() && !self.sleep_until_due() {
                return;
            }
        }
    }

    /// Steps, and waits for the oldest sync under way if there is nothing to do before. False if there
    /// is nothing to do at all.
    pub(super) fn advance(&self) -> bool {
        if self.step() {
            return true;
        }
        let oldest = self.writer.lock().syncing.front().map(|round| round.ticket.clone());
        let Some(ticket) = oldest else { return false };
        // What becomes due meanwhile goes into the next group commit either way. How it ended is looked
        // at by the next step.
        // Deadlines that arise meanwhile are as far away as these, at least.
        let longest = self.options.max_block.min(self.options.delivery_timeout);
        let next = self.next_deadline().map(|next| next.saturating_sub(self.log.clock().elapsed()));
        ticket.wait_for(Some(next.map_or(longest, |next| next.min(longest))));
        true
    }

    /// When the next batch fails that is not durable by then, or somebody gives up waiting for room.
    fn next_deadline(&self) -> Option<Duration> {
        let syncing = self.writer.lock().next_deadline();
        let state = self.state.lock();
        [syncing, state.accumulator.next_deadline(), state.next_to_give_up()].into_iter().flatten().min()
    }

    /// Writes what is due, settles what is durable; returns whether there was anything.
    pub(super) fn step(&self) -> bool {
        let mut settled = Vec::new();
        let mut writer = self.writer.lock();
        let wrote = self.write_due(&mut writer, &mut settled);
        writer.take_synced(&mut settled);
        let late = writer.take_late(self.log.clock().elapsed());
        drop(writer);
        let is_progress = wrote || !settled.is_empty() || !late.is_empty();
        for (outcome, partition) in late {
            outcome.settle(Err(self.too_late(&partition, "it was written, and whether it stays is unknown")));
        }
        self.settle(settled);
        self.wake_waiting(false);
        is_progress
    }

    /// Sleeps until a batch is due. False if none will be: the producer is gone.
    fn sleep_until_due(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            let next = [state.accumulator.next_due(), state.next_to_give_up()].into_iter().flatten().min();
            let Some(next) = next else {
                if state.is_closing {
                    return false;
                }
                self.due.wait(&mut state);
                continue;
            };
            let sleep = next.saturating_sub(self.log.clock().elapsed());
            if sleep == Duration::ZERO || state.is_any_due(self.log.clock().elapsed()) {
                return true;
            }
            self.due.wait_for(&mut state, sleep);
        }
    }

    /// Appends what is due: what needs no sync is settled, the rest goes into one group commit.
    fn write_due(&self, writer: &mut Writer, settled: &mut Vec<Written>) -> bool {
        let now = self.log.clock().elapsed();
        let due = self.state.lock().take_due(now);
        let wrote = !due.is_empty();
        let mut written = Vec::new();
        for (mut batch, target) in due {
            let held_bytes = batch.builder.encoded_len();
            let result = match &self.transactional {
                _ if batch.deadline <= now => Err(self.too_late(&target.partition, "it was not written")),
                Some(producer) => append_to(producer, &mut batch, &target.partition),
                None => writer.append(&mut batch, &target.partition),
            };
            // A transaction is synced when it is committed.
            let is_sync = target.partition.config().durability == Durability::Sync;
            let needs_sync = is_sync && result.is_ok() && self.transactional.is_none();
            let list = if needs_sync { &mut written } else { &mut *settled };
            let (deadline, outcome) = (Some(batch.deadline), batch.outcome.clone());
            list.push(Written { target, outcome, result, held_bytes, deadline });
            self.state.lock().accumulator.take_back(batch);
        }
        if !written.is_empty() {
            let partitions = distinct_partitions(&written);
            let has_time = !self.state.lock().is_any_due(now);
            let ticket = self.log.flush_from_thread(&partitions, SyncPurpose::Records, has_time);
            writer.syncing.push_back(Round { ticket, written });
        }
        wrote
    }

    /// Tells everybody what became of these batches. No lock is held: what is woken may send again.
    fn settle(&self, settled: Vec<Written>) {
        if settled.is_empty() {
            return;
        }
        // Whoever is told may end the transaction and begin the next: a failure is of this one.
        let mut state = self.state.lock();
        settled.iter().filter_map(|written| written.result.as_ref().err()).for_each(|error| {
            state.transaction.note_failure(error);
        });
        drop(state);
        // What is forgotten is settled: if a waker panics, the rest can still be answered.
        for written in &settled {
            written.outcome.settle(written.result.clone());
        }
        let mut state = self.state.lock();
        for written in &settled {
            state.forget(written);
        }
        drop(state);
        self.wake_waiting(true);
    }

    fn too_late(&self, partition: &Partition, what: &str) -> Error {
        let (name, timeout) = (partition.name(), self.options.delivery_timeout);
        let topic = &name.topic;
        let context = format!(
            "topic {topic}, partition {}: the record was not delivered within {timeout:?}: {what}",
            name.partition
        );
        Error::new(ErrorKind::Timeout, context)
    }
}

impl State {
    /// Whether lingering is over for all batches.
    fn takes_all(&self) -> bool {
        self.is_hurried || self.is_closing
    }

    fn is_any_due(&self, now: Duration) -> bool {
        self.accumulator.next_due().is_some_and(|due| self.takes_all() || due <= now)
    }

    fn take_due(&mut self, now: Duration) -> Vec<(DueBatch, Target)> {
        let mut due = Vec::new();
        self.accumulator.take_due(now, self.takes_all(), &mut due);
        self.is_hurried = false;
        self.unsettled.extend(due.iter().map(|batch| batch.outcome.clone()));
        due.into_iter()
            .map(|batch| {
                let target = self.lanes[batch.lane.0].clone();
                (batch, target)
            })
            .collect()
    }

    /// Gives up what is held for a batch; one that failed makes its topic be looked up again.
    fn forget(&mut self, written: &Written) {
        self.accumulator.release(written.held_bytes);
        self.unsettled.retain(|outcome| !Arc::ptr_eq(outcome, &written.outcome));
        let Err(error) = &written.result else { return };
        // What came too late says nothing about the topic.
        if error.kind() != ErrorKind::Timeout
            && let Some(route) = self.routes.get_mut(&written.target.topic)
        {
            route.topics_version = STALE;
        }
    }
}

impl Writer {
    pub(super) fn new(identity: Option<ProducerId>) -> Self {
        Self { identity, sequences: HashMap::new(), syncing: VecDeque::new() }
    }

    fn append(&mut self, batch: &mut DueBatch, partition: &Partition) -> Result<RecordPlace> {
        let mut sealed = batch.seal();
        let base_sequence = self.sequences.get(&partition.key()).copied().unwrap_or_default();
        let next_sequence = base_sequence.plus(sealed.record_count());
        sealed.stamp(self.identity.map(|id| ProducerStamp {
            id,
            epoch: ProducerEpoch(0),
            base_sequence,
            transactional: false,
        }));
        let appended = partition.append(sealed)?;
        self.sequences.insert(partition.key(), next_sequence);
        Ok(RecordPlace { partition: partition.name().partition, offset: appended.base_offset })
    }

    /// When the next batch fails whose sync is under way.
    fn next_deadline(&self) -> Option<Duration> {
        self.syncing.iter().flat_map(|round| &round.written).filter_map(|written| written.deadline).min()
    }

    /// The batches that are being synced and are not done in time. They are told once; the sync goes on.
    fn take_late(&mut self, now: Duration) -> Vec<(Arc<Outcome>, Arc<Partition>)> {
        let written = self.syncing.iter_mut().flat_map(|round| &mut round.written);
        let late = written.filter_map(|written| {
            written.deadline.take_if(|deadline| *deadline <= now)?;
            Some((written.outcome.clone(), written.target.partition.clone()))
        });
        late.collect()
    }

    /// Moves the batches whose sync has ended into `settled`.
    fn take_synced(&mut self, settled: &mut Vec<Written>) {
        while let Some(round) = self.syncing.front() {
            let Some(result) = round.ticket.outcome() else { return };
            let round = self.syncing.pop_front().expect("it was just looked at");
            settled.extend(round.written.into_iter().map(|written| Written {
                result: written.result.and_then(|first| result.clone().map(|()| first)),
                ..written
            }));
        }
    }
}

/// Appends to the transaction that is open.
fn append_to(
    producer: &TransactionalProducer,
    batch: &mut DueBatch,
    partition: &Arc<Partition>,
) -> Result<RecordPlace> {
    let offset = producer.append(partition, batch.seal())?;
    Ok(RecordPlace { partition: partition.name().partition, offset })
}

fn distinct_partitions(written: &[Written]) -> Vec<Arc<Partition>> {
    let mut partitions: Vec<Arc<Partition>> = Vec::with_capacity(written.len());
    for written in written {
        let partition = &written.target.partition;
        if !partitions.iter().any(|other| Arc::ptr_eq(other, partition)) {
            partitions.push(partition.clone());
        }
    }
    partitions
}
