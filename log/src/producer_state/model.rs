//! The producers of a partition against a model that keeps everything and looks it up the slow way.
//!
//! What is right is Kafka's: the last five batches of a producer's epoch are known by their sequences, the
//! next one follows the last, an older epoch is fenced and so is one whose transaction has ended, a newer one
//! begins with 0; a producer that is not known, or was forgotten, goes on with any sequence. Without the
//! coordinator's word nothing begins a transaction. A snapshot keeps of each producer its last batch.

use proptest::prelude::*;

use super::*;
use crate::batch::{BatchBuilder, Compression, ProducerStamp, marker};
use crate::record::LeaderEpoch;

/// How long a producer is remembered, in the model's milliseconds.
const EXPIRATION: i64 = 100;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A producer wants a batch appended.
    Batch {
        id: i64,
        epoch_step: i16,
        sequence: Wanted,
        records: i32,
        transactional: bool,
        registration: Registration,
    },
    /// The coordinator ends the transaction of a producer, if one is open.
    End {
        id: i64,
        commits: bool,
    },
    Wait {
        milliseconds: i64,
    },
    /// Idle producers are forgotten.
    Expire,
    Snapshot,
    /// All that is left is the last snapshot and the batches behind it.
    Crash,
}

/// The sequence that a batch has.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Next,
    /// That of an earlier batch, so many before the last one.
    Again(usize),
    /// So many records are left out.
    Behind(i32),
    Of(i32),
}

fn event() -> impl Strategy<Value = Event> {
    let wanted = prop_oneof![
        8 => Just(Wanted::Next),
        4 => (0..8usize).prop_map(Wanted::Again),
        1 => (1..4i32).prop_map(Wanted::Behind),
        1 => prop_oneof![Just(0), Just(i32::MAX - 2), 0..i32::MAX].prop_map(Wanted::Of),
    ];
    let epoch_step = prop_oneof![8 => Just(0i16), 2 => Just(1i16), 1 => Just(-1i16)];
    let registration = prop_oneof![Just(Registration::Coordinator), Just(Registration::Partition)];
    let batch = (0..4i64, epoch_step, wanted, 1..5i32, any::<bool>(), registration);
    prop_oneof![
        16 => batch.prop_map(|(id, epoch_step, sequence, records, transactional, registration)| Event::Batch {
            id,
            epoch_step,
            sequence,
            records,
            transactional,
            registration,
        }),
        4 => (0..4i64, any::<bool>()).prop_map(|(id, commits)| Event::End { id, commits }),
        2 => (1..60i64).prop_map(|milliseconds| Event::Wait { milliseconds }),
        1 => Just(Event::Expire),
        1 => Just(Event::Snapshot),
        1 => Just(Event::Crash),
    ]
}

/// A batch of records or a marker, as the log holds it.
#[derive(Clone, Debug)]
struct Logged {
    header: BatchHeader,
    control: Option<ControlRecord>,
}

/// What is known of a producer, never cut down but by a snapshot.
#[derive(Clone, Debug)]
struct Known {
    epoch: i16,
    /// First sequence, number of records, first offset of each batch of this epoch.
    batches: Vec<(i32, i32, i64)>,
    is_ended: bool,
    open_since: Option<i64>,
    heard_at: i64,
}

/// Sequences are 31 bits.
fn plus(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (1 << 31)) as i32
}

#[derive(Clone, Debug, Default)]
struct Model {
    known: std::collections::BTreeMap<i64, Known>,
}

impl Model {
    fn check(&self, batch: &BatchHeader, registration: Registration) -> Result<Verdict, Refusal> {
        let begins = batch.is_transactional && registration == Registration::Partition;
        let Some(known) = self.known.get(&batch.producer_id.0) else {
            return if begins { Err(Refusal::NotRegistered) } else { Ok(Verdict::Append) };
        };
        let (epoch, first) = (batch.producer_epoch.0, batch.base_sequence.0);
        let current = ProducerEpoch(known.epoch);
        if epoch < known.epoch || (epoch == known.epoch && known.is_ended) {
            return Err(Refusal::Fenced { current });
        }
        if begins && (epoch > known.epoch || known.open_since.is_none()) {
            return Err(Refusal::NotRegistered);
        }
        if epoch > known.epoch {
            return match (known.open_since, first) {
                (Some(_), _) => Err(Refusal::TransactionOpen { epoch: current }),
                (None, 0) => Ok(Verdict::Append),
                (None, _) => Err(Refusal::OutOfOrder { expected: Sequence(0) }),
            };
        }
        let last_five = known.batches.iter().rev().take(5);
        let repeated = last_five.rev().find(|known| (known.0, known.1) == (first, batch.record_count));
        if let Some(&(_, records, offset)) = repeated {
            let (base_offset, last_offset) = (Offset(offset), Offset(offset + i64::from(records) - 1));
            return Ok(Verdict::Duplicate { base_offset, last_offset });
        }
        if !batch.is_transactional && known.open_since.is_some() {
            return Err(Refusal::NotTransactional);
        }
        match known.batches.last() {
            Some(&(last, records, _)) if plus(last, records) != first => {
                Err(Refusal::OutOfOrder { expected: Sequence(plus(last, records)) })
            }
            _ => Ok(Verdict::Append),
        }
    }

    fn absorb(&mut self, Logged { header, control }: &Logged) {
        let epoch = header.producer_epoch.0;
        let new = Known { epoch, batches: Vec::new(), is_ended: false, open_since: None, heard_at: 0 };
        let known = self.known.entry(header.producer_id.0).or_insert_with(|| new.clone());
        if epoch > known.epoch {
            *known = Known { open_since: known.open_since, ..new };
        }
        known.heard_at = header.max_timestamp.0;
        if control.is_some() {
            (known.is_ended, known.open_since) = (true, None);
            return;
        }
        // Whoever wrote it in with sequences that were there had forgotten the producer.
        let next = known.batches.last().map(|(first, records, _)| plus(*first, *records));
        if next.is_some_and(|next| i64::from(header.base_sequence.0 - next).rem_euclid(1 << 31) >= 1 << 30) {
            known.batches.clear();
        }
        known.batches.push((header.base_sequence.0, header.record_count, header.base_offset.0));
        if header.is_transactional {
            known.open_since.get_or_insert(header.base_offset.0);
        }
    }

    fn expire(&mut self, now: i64) {
        self.known.retain(|_, known| known.open_since.is_some() || now - known.heard_at < EXPIRATION);
    }

    /// What a snapshot keeps.
    fn written_down(&self) -> Self {
        let mut kept = self.clone();
        for known in kept.known.values_mut() {
            known.batches.drain(..known.batches.len().saturating_sub(1));
        }
        kept
    }
}

struct Run {
    states: ProducerStates,
    model: Model,
    log: Vec<Logged>,
    end: i64,
    now: i64,
    /// The last snapshot, what the model knew then, and how many batches were before it.
    snapshot: (Vec<u8>, Model, usize),
}

impl Run {
    fn new() -> Self {
        let (states, model) = (ProducerStates::default(), Model::default());
        let snapshot = (states.encode(), model.clone(), 0);
        Self { states, model, log: Vec::new(), end: 0, now: 1, snapshot }
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Batch { id, epoch_step, sequence, records, transactional, registration } => {
                let batch = self.batch(id, epoch_step, sequence, records, transactional);
                let expected = self.model.check(&batch, registration);
                prop_assert_eq!(self.states.check(&batch, registration), expected, "{:?}", batch);
                if expected == Ok(Verdict::Append) {
                    self.append(Logged { header: batch, control: None })?;
                }
            }
            Event::End { id, commits } => {
                let Some(known) = self.model.known.get(&id).filter(|known| known.open_since.is_some()) else {
                    return Ok(());
                };
                let kind = if commits { MarkerKind::Commit } else { MarkerKind::Abort };
                let epoch = ProducerEpoch(known.epoch);
                let mut batch = marker(kind, ProducerId(id), epoch, 0, Timestamp(self.now));
                batch.place(Offset(self.end), LeaderEpoch(0));
                let control = Some(ControlRecord { kind, coordinator_epoch: 0 });
                self.append(Logged { header: batch.header(), control })?;
            }
            Event::Wait { milliseconds } => self.now += milliseconds,
            Event::Expire => {
                self.model.expire(self.now);
                self.states.expire(Timestamp(self.now - EXPIRATION));
            }
            Event::Snapshot => {
                self.snapshot = (self.states.encode(), self.model.written_down(), self.log.len());
            }
            Event::Crash => {
                let (bytes, model, before) = &self.snapshot;
                self.model = model.clone();
                self.model.expire(self.now);
                self.states = ProducerStates::decode(bytes).expect("it is whole");
                self.states.expire(Timestamp(self.now - EXPIRATION));
                let behind: Vec<_> = self.log.iter().skip(*before).cloned().collect();
                for logged in behind {
                    self.absorb(&logged)?;
                }
            }
        }
        self.compare()
    }

    fn batch(
        &self,
        id: i64,
        epoch_step: i16,
        sequence: Wanted,
        records: i32,
        transactional: bool,
    ) -> BatchHeader {
        let known = self.model.known.get(&id);
        let epoch = known.map_or(3, |known| known.epoch).saturating_add(epoch_step).max(0);
        let batches = known.map_or(&[][..], |known| &known.batches);
        let next = batches.last().map_or(0, |(first, records, _)| plus(*first, *records));
        let (first, records) = match sequence {
            Wanted::Next if epoch_step > 0 => (0, records),
            Wanted::Next => (next, records),
            Wanted::Again(before) => {
                let again = batches.iter().rev().nth(before);
                again.map_or((next, records), |(first, records, _)| (*first, *records))
            }
            Wanted::Behind(left_out) => (plus(next, left_out), records),
            Wanted::Of(sequence) => (sequence, records),
        };
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..records {
            builder.push(Timestamp(self.now), None, None, &[]).expect("it is small");
        }
        let mut batch = builder.seal();
        batch.stamp(Some(ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(first),
            transactional,
        }));
        batch.place(Offset(self.end), LeaderEpoch(0));
        batch.header()
    }

    fn append(&mut self, logged: Logged) -> Result<(), TestCaseError> {
        self.end = logged.header.next_offset().0;
        self.absorb(&logged)?;
        self.log.push(logged);
        Ok(())
    }

    fn absorb(&mut self, logged: &Logged) -> Result<(), TestCaseError> {
        let id = logged.header.producer_id.0;
        let open_since = self.model.known.get(&id).and_then(|known| known.open_since);
        self.model.absorb(logged);
        match logged.control {
            None => self.states.absorb_batch(&logged.header),
            Some(control) => {
                let aborted = self.states.absorb_marker(&logged.header, control);
                let found = aborted.map(|aborted| aborted.first_offset.0);
                prop_assert_eq!(found, open_since.filter(|_| control.kind == MarkerKind::Abort));
            }
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let mut open: Vec<_> = self.model.known.values().filter_map(|known| known.open_since).collect();
        open.sort_unstable();
        let found: Vec<_> = self.states.open_transactions().iter().map(|open| open.first_offset.0).collect();
        prop_assert_eq!(&found, &open);
        prop_assert_eq!(self.states.first_unstable().map(|first| first.0), open.first().copied());
        let known: Vec<_> = self.model.known.keys().copied().collect();
        let mut ids: Vec<_> = self.states.last_written().keys().map(|id| id.0).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, known);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn producers_are_judged_as_by_somebody_who_forgets_nothing_too_early(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut run = Run::new();
        for event in events {
            run.step(event)?;
        }
    }
}
