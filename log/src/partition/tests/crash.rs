//! A partition driven against the model through appends, transactions, syncs, crashes and re-opens.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::model::{Earlier, Entry, Memory, Model, REMEMBERED, Stamp};
use super::*;
use crate::batch::MarkerKind;
use crate::verify::{WalkEnd, WalkRules, walk};

/// How long an idle producer is remembered.
const EXPIRATION: Duration = Duration::from_millis(100);

/// What happens to the partition.
#[derive(Clone, Debug)]
enum Event {
    Plain {
        records: i64,
    },
    Idempotent {
        producer: i64,
        records: i64,
    },
    Transactional {
        producer: i64,
        records: i64,
    },
    End {
        producer: i64,
        commits: bool,
    },
    /// A producer begins its next epoch.
    NextEpoch {
        producer: i64,
        records: i64,
    },
    /// A producer sends one of its last batches again, so many before the last one.
    Repeat {
        producer: i64,
        before: usize,
    },
    /// A producer of an earlier epoch sends a batch.
    EarlierEpoch {
        producer: i64,
    },
    /// A producer leaves a batch out.
    Gap {
        producer: i64,
    },
    /// A marker for a transaction that is not open.
    LateMarker {
        producer: i64,
    },
    Wait {
        milliseconds: u64,
    },
    /// Producers that have been idle for long are forgotten.
    Expire,
    Flush,
    /// A sync fails, and the process is started again.
    FailedSync,
    /// The plug is pulled at the n-th operation from here, whatever that is.
    PullPlug {
        operations: u64,
    },
    Crash,
    /// The process dies and the machine stays up.
    Kill,
    CloseAndOpen,
    Read {
        from: u8,
        bytes_max: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let plain = || (0..3i64, 1..4i64);
    let anybody = || prop_oneof![0..3i64, 10..13i64];
    prop_oneof![
        6 => (1..6i64).prop_map(|records| Event::Plain { records }),
        10 => (0..2i64, 1..4i64).prop_map(|(producer, records)| Event::Idempotent { producer, records }),
        6 => plain().prop_map(|(producer, records)| Event::Transactional { producer: 10 + producer, records }),
        4 => (10..13i64, any::<bool>()).prop_map(|(producer, commits)| Event::End { producer, commits }),
        1 => plain().prop_map(|(producer, records)| Event::NextEpoch { producer, records }),
        4 => (anybody(), 0..8usize).prop_map(|(producer, before)| Event::Repeat { producer, before }),
        1 => anybody().prop_map(|producer| Event::EarlierEpoch { producer }),
        1 => anybody().prop_map(|producer| Event::Gap { producer }),
        1 => (10..13i64).prop_map(|producer| Event::LateMarker { producer }),
        1 => (1..90u64).prop_map(|milliseconds| Event::Wait { milliseconds }),
        1 => Just(Event::Expire),
        6 => Just(Event::Flush),
        1 => Just(Event::FailedSync),
        2 => (0..20u64).prop_map(|operations| Event::PullPlug { operations }),
        1 => Just(Event::Crash),
        1 => Just(Event::Kill),
        1 => Just(Event::CloseAndOpen),
        3 => (any::<u8>(), 0..700usize).prop_map(|(from, bytes_max)| Event::Read { from, bytes_max }),
    ]
}

/// What a run goes by besides its events.
#[derive(Clone, Debug)]
struct Weather {
    seed: u64,
    /// Whether the recovery point is as new as it may be, or one round older.
    recovery_point_is_new: bool,
    durability: Durability,
    times: Times,
    /// At which operation of each recovery the plug is pulled once more.
    pulls: Vec<u64>,
}

/// Which time a record has by its number.
#[derive(Clone, Copy, Debug)]
enum Times {
    Ascending,
    /// Later and earlier ones, some of them equal, some before 1970.
    Scattered,
    /// All of them what an index says that a power cut has filled with zeros.
    Zero,
}

impl Times {
    fn of(self, number: i64) -> Timestamp {
        Timestamp(match self {
            Self::Ascending => number,
            Self::Scattered => number * 37 % 101 - 30,
            Self::Zero => 0,
        })
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    let durability = prop_oneof![3 => Just(Durability::Sync), 1 => Just(Durability::Os)];
    let times = prop_oneof![Just(Times::Ascending), Just(Times::Scattered), Just(Times::Zero)];
    let pulls = prop::collection::vec(0..30u64, 0..6);
    (any::<u64>(), any::<bool>(), durability, times, pulls).prop_map(
        |(seed, recovery_point_is_new, durability, times, pulls)| Weather {
            seed,
            recovery_point_is_new,
            durability,
            times,
            pulls,
        },
    )
}

type Outcome = Result<(), TestCaseError>;

struct Run {
    storage: Arc<MemoryStorage>,
    clock: Arc<ManualClock>,
    partition: Arc<Partition>,
    weather: Weather,
    model: Model,
    /// The newest synced end offset that a recovery point file would say.
    recovery_point: i64,
    next_number: i64,
}

impl Run {
    fn new(storage: Arc<MemoryStorage>, weather: Weather) -> Self {
        let clock = ManualClock::new();
        let partition = Partition::create(Self::site(&storage, &clock, &weather)).expect("there is none yet");
        storage.sync_dir(Path::new("/log"), SyncPurpose::Directory).expect("the disk is fine");
        let model = Model::default();
        Self { storage, clock, partition, weather, model, recovery_point: 0, next_number: 0 }
    }

    fn site(storage: &Arc<MemoryStorage>, clock: &Arc<ManualClock>, weather: &Weather) -> PartitionSite {
        let mut site = site(storage, Self::config(weather));
        site.context.clock = clock.clone();
        site.context.producer_expiration = EXPIRATION;
        site
    }

    /// Who was heard of last at that time, or before, is forgotten.
    fn horizon(&self) -> Timestamp {
        Timestamp(self.clock.now().0 - EXPIRATION.as_millis() as i64)
    }

    fn config(weather: &Weather) -> PartitionConfig {
        PartitionConfig { durability: weather.durability, ..small() }
    }

    fn step(&mut self, event: &Event) -> Outcome {
        match *event {
            Event::Plain { records } => self.append(records, None),
            Event::Idempotent { producer, records } => {
                let stamp = self.model.next_stamp(producer, false);
                self.append(records, Some(stamp))
            }
            Event::Transactional { producer, records } => {
                let stamp = self.model.next_stamp(producer, true);
                self.append(records, Some(stamp))
            }
            Event::End { producer, commits } => self.end(producer, commits),
            Event::NextEpoch { producer, records } => {
                let stamp = self.model.next_epoch(producer);
                self.append(records, Some(stamp))
            }
            Event::Repeat { producer, before } => self.repeat(producer, before),
            Event::EarlierEpoch { producer } => self.send_in_earlier_epoch(producer),
            Event::Gap { producer } => self.leave_gap(producer),
            Event::LateMarker { producer } => self.mark_late(producer),
            Event::Wait { milliseconds } => {
                self.clock.advance(Duration::from_millis(milliseconds));
                Ok(())
            }
            Event::Expire => {
                self.partition.expire_producers();
                self.model.expire(self.horizon());
                Ok(())
            }
            Event::Flush => self.flush(),
            Event::FailedSync => self.fail_sync(),
            Event::PullPlug { operations } => {
                self.storage.fail_after(operations);
                Ok(())
            }
            Event::Crash => self.crash(),
            Event::Kill => self.kill(),
            Event::CloseAndOpen => self.close_and_open(),
            Event::Read { from, bytes_max } => self.read(from, bytes_max),
        }
    }

    fn numbers(&mut self, records: i64) -> Vec<i64> {
        let numbers = self.next_number..self.next_number + records;
        self.next_number = numbers.end;
        numbers.collect()
    }

    fn append(&mut self, records: i64, stamp: Option<Stamp>) -> Outcome {
        let numbers = self.numbers(records);
        let outcome = self.partition.append_to_transaction(self.sealed(&numbers, stamp));
        let base = self.model.end();
        self.model.push(self.records(numbers, stamp));
        match outcome {
            Ok(appended) => {
                prop_assert_eq!((appended.base_offset, appended.duplicate), (Offset(base), false));
                Ok(())
            }
            // It may have reached the disk all the same.
            Err(error) => self.after_error(&error),
        }
    }

    fn end(&mut self, producer: i64, commits: bool) -> Outcome {
        let Some((id, epoch, _)) = self.model.open().into_iter().find(|open| open.0 == producer) else {
            return Ok(());
        };
        let kind = if commits { MarkerKind::Commit } else { MarkerKind::Abort };
        let outcome = self.partition.append_marker(kind, ProducerId(id), ProducerEpoch(epoch), 0);
        let base = self.model.end();
        self.model.push(Entry::Marker { id, epoch, kind, time: self.clock.now() });
        match outcome {
            Ok(offset) => {
                prop_assert_eq!(offset, Some(Offset(base)));
                Ok(())
            }
            Err(error) => self.after_error(&error),
        }
    }

    fn sealed(&self, numbers: &[i64], stamp: Option<Stamp>) -> SealedBatch {
        let times = self.weather.times;
        let batch = batch_at(numbers.iter().map(|number| (*number, times.of(*number))));
        match stamp {
            Some(Stamp { id, epoch, sequence, transactional }) => {
                stamped(batch, id, epoch, sequence, transactional)
            }
            None => batch,
        }
    }

    fn records(&self, numbers: Vec<i64>, stamp: Option<Stamp>) -> Entry {
        let times = numbers.iter().map(|number| self.weather.times.of(*number));
        let time = times.max().expect("a batch holds a record");
        Entry::Records { numbers, stamp, time }
    }

    fn repeat(&mut self, producer: i64, before: usize) -> Outcome {
        let Some(earlier) = self.model.earlier_batch(producer, before) else { return Ok(()) };
        let Earlier { base, numbers, stamp, is_recent } = earlier;
        let outcome = self.partition.append(self.sealed(&numbers, Some(stamp)));
        if self.storage.is_unplugged() {
            // A producer that was forgotten may have been taken for a new one.
            self.model.push(self.records(numbers, Some(stamp)));
            return self.crash();
        }
        let memory = self.model.memory(producer);
        let end = self.model.end();
        let known = outcome.map(|appended| (appended.base_offset.0, appended.duplicate));
        let known = known.map_err(|error| error.kind());
        let is_ended = stamp.transactional && !self.model.open().iter().any(|open| open.0 == producer);
        let (is_new, is_known) = if is_ended {
            (known == Err(ErrorKind::TransactionState), known == Err(ErrorKind::Fenced))
        } else {
            // A producer that was forgotten may have written the same twice, and both are known after a crash.
            let is_original = |at| at == base || !is_recent && self.model.holds_at(at, &numbers, stamp);
            let is_remembered = known.is_ok_and(|(at, is_duplicate)| is_duplicate && is_original(at));
            let is_too_old = known == Err(ErrorKind::OutOfOrderSequence);
            let is_later = known.is_ok_and(|(at, _)| at > base);
            let is_known = match before {
                0 => is_remembered,
                1..REMEMBERED => is_remembered || is_too_old && !is_recent,
                _ => is_too_old || is_remembered && is_later,
            };
            (known == Ok((end, false)), is_known)
        };
        let is_right = match memory {
            Memory::Known => is_known,
            Memory::Forgotten => is_new,
            Memory::Unsure => is_known || is_new,
        };
        prop_assert!(is_right, "{:?} {} before of {:?}, {:?}: {:?}", stamp, before, base, memory, known);
        if is_known {
            self.model.note_known(producer);
        } else if known.is_ok() {
            self.model.push(self.records(numbers, Some(stamp)));
        }
        Ok(())
    }

    fn send_in_earlier_epoch(&mut self, producer: i64) -> Outcome {
        let Some((_, _, last)) = self.model.last_batch(producer) else { return Ok(()) };
        if last.epoch == 0 || self.model.memory(producer) != Memory::Known {
            return Ok(());
        }
        for sequence in [0, last.sequence] {
            let stamp = Stamp { epoch: last.epoch - 1, sequence, ..last };
            let outcome = self.partition.append_to_transaction(self.sealed(&[0], Some(stamp)));
            prop_assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::Fenced));
        }
        Ok(())
    }

    fn leave_gap(&mut self, producer: i64) -> Outcome {
        let transactional = producer >= 10;
        // Whoever is not known may go on with any sequence.
        if self.model.last_batch(producer).is_none() || self.model.memory(producer) != Memory::Known {
            return Ok(());
        }
        let mut stamp = self.model.next_stamp(producer, transactional);
        stamp.sequence += 1;
        let outcome = self.partition.append_to_transaction(self.sealed(&[0], Some(stamp)));
        prop_assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::OutOfOrderSequence));
        Ok(())
    }

    fn mark_late(&mut self, producer: i64) -> Outcome {
        let next = self.model.next_stamp(producer, true).epoch;
        let is_open = self.model.open().iter().any(|open| open.0 == producer);
        let late = if is_open { next - 1 } else { next };
        let outcome =
            self.partition.append_marker(MarkerKind::Abort, ProducerId(producer), ProducerEpoch(late), 0);
        prop_assert_eq!(outcome.map_err(|error| error.kind()), Ok(None));
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        let before = self.model.durable;
        match flush(&self.partition) {
            Ok(()) => {
                self.model.durable = self.model.end();
                let known = if self.weather.recovery_point_is_new { self.model.durable } else { before };
                self.recovery_point = self.recovery_point.max(known);
                self.tell_recovery_point(&self.partition.site);
                Ok(())
            }
            Err(error) => self.after_error(&error),
        }
    }

    fn fail_sync(&mut self) -> Outcome {
        self.storage.clear_faults();
        self.storage.fail_with(std::io::ErrorKind::Other, 0);
        let outcome = flush(&self.partition);
        self.storage.clear_faults();
        if outcome.is_ok() {
            self.model.durable = self.model.end();
            return Ok(());
        }
        prop_assert!(self.partition.is_poisoned());
        self.storage.kill();
        self.open(self.border())
    }

    /// An operation failed: that is in order only if the plug is out.
    fn after_error(&mut self, error: &Error) -> Outcome {
        prop_assert!(self.storage.is_unplugged(), "{error}");
        self.crash()
    }

    fn crash(&mut self) -> Outcome {
        self.storage.clear_faults();
        self.storage.crash();
        self.open(self.border())
    }

    fn kill(&mut self) -> Outcome {
        self.storage.clear_faults();
        self.storage.kill();
        let end = self.model.end();
        let power_stays_on = self.weather.pulls.is_empty();
        self.open(self.border())?;
        prop_assert!(!power_stays_on || self.model.end() == end, "a killed process loses nothing");
        Ok(())
    }

    fn close_and_open(&mut self) -> Outcome {
        if let Err(error) = self.partition.close() {
            return self.after_error(&error);
        }
        self.storage.clear_faults();
        self.model.durable = self.model.end();
        self.recovery_point = self.model.durable;
        // What was closed survives a power cut.
        self.storage.crash();
        self.open(RecoveryBorder { clean_shutdown: true, ..self.border() })?;
        Ok(())
    }

    fn tell_recovery_point(&self, site: &PartitionSite) {
        site.context.synced_points.raise([(site.key(), Offset(self.recovery_point))].into());
    }

    fn border(&self) -> RecoveryBorder {
        unclean(self.recovery_point)
    }

    /// Opens the partition, with the power failing meanwhile as long as the weather is bad, and checks
    /// that it holds a beginning of what was appended, with all that was acknowledged.
    fn open(&mut self, border: RecoveryBorder) -> Outcome {
        let report = loop {
            if let Some(operations) = self.weather.pulls.pop() {
                self.storage.fail_after(operations);
            }
            let site = Self::site(&self.storage, &self.clock, &self.weather);
            self.tell_recovery_point(&site);
            match Partition::open(site, &border) {
                Ok((partition, report)) => {
                    self.partition = partition;
                    break report;
                }
                Err(_) if self.storage.is_unplugged() => self.storage.crash(),
                Err(error) => return Err(TestCaseError::fail(format!("cannot be opened: {error}"))),
            }
        };
        self.storage.clear_faults();
        let end = report.end.0;
        prop_assert!(end >= self.model.durable, "{end} is kept, {} was acknowledged", self.model.durable);
        prop_assert!(end <= self.model.end(), "{end} is kept, {} was appended", self.model.end());
        prop_assert!(self.model.truncate(end), "{end} is inside of a batch");
        self.model.reopen(self.horizon());
        self.check()
    }

    /// Compares everything there is to see with the model.
    fn check(&self) -> Outcome {
        let failed = |error: Error| TestCaseError::fail(error.to_string());
        let offsets = self.partition.offsets();
        let shown = match self.weather.durability {
            Durability::Sync => self.model.durable,
            _ => self.model.end(),
        };
        let stable = self.model.stable(shown);
        let seen = (offsets.stable.0, offsets.high_watermark.0, offsets.durable.0, offsets.end.0);
        prop_assert_eq!(seen, (stable, shown, self.model.durable, self.model.end()));
        let open = self.partition.open_transactions();
        let open: Vec<_> = open
            .iter()
            .map(|open| (open.producer_id.0, open.producer_epoch.0, open.first_offset.0))
            .collect();
        prop_assert_eq!(open, self.model.open());
        check_indexed(&self.partition).map_err(TestCaseError::fail)?;
        let records = self.model.records(0, shown);
        let read = |isolation| read_numbers(&self.partition, Offset(0), 400, isolation).map_err(failed);
        prop_assert_eq!(&read(Isolation::ReadUncommitted)?, &records);
        prop_assert_eq!(read(Isolation::ReadCommitted)?, self.model.committed(0, stable));
        for (isolation, bound) in [(Isolation::ReadUncommitted, shown), (Isolation::ReadCommitted, stable)] {
            self.check_times(isolation, bound)?;
        }
        let name = self.partition.name();
        let point = Some(Offset(self.recovery_point));
        let walk = walk(
            &*self.storage,
            name,
            Path::new(DIRECTORY),
            WalkRules { recovery_point: point, has_gaps: false, is_start_known: true },
        )
        .map_err(failed)?;
        prop_assert_eq!((walk.end.0, walk.ending), (self.model.end(), WalkEnd::Complete));
        prop_assert_eq!(walk.indexes, []);
        Ok(())
    }

    /// Compares what is found by time with all records below `bound`.
    fn check_times(&self, isolation: Isolation, bound: i64) -> Outcome {
        let times = self.weather.times;
        let records = self.model.records(0, bound);
        let dated: Vec<_> = records.iter().map(|(offset, number)| (*offset, times.of(*number))).collect();
        let find = |spec| {
            let found = self.partition.find_offset(spec, isolation);
            found.map_err(|error| TestCaseError::fail(error.to_string()))
        };
        let as_found = |record: Option<&(Offset, Timestamp)>| {
            record.map(|(offset, time)| FoundOffset { offset: *offset, timestamp: Some(*time) })
        };
        let largest = dated.iter().map(|(_, time)| *time).max();
        let newest = dated.iter().find(|(_, time)| Some(*time) == largest);
        prop_assert_eq!(find(OffsetSpec::MaxTimestamp)?, as_found(newest));
        let mut wanted: Vec<_> = dated.iter().map(|(_, time)| *time).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.extend(largest.map(|largest| Timestamp(largest.0 + 1)));
        for wanted in wanted {
            let first = dated.iter().find(|(_, time)| *time >= wanted);
            prop_assert_eq!(find(OffsetSpec::AtOrAfter(wanted))?, as_found(first), "{}", wanted.0);
        }
        Ok(())
    }

    fn read(&self, from: u8, bytes_max: usize) -> Outcome {
        if self.storage.is_unplugged() {
            return Ok(());
        }
        let offsets = self.partition.offsets();
        let from = offsets.high_watermark.0 * i64::from(from) / 255;
        let failed = |error: Error| TestCaseError::fail(error.to_string());
        let read =
            |isolation| read_numbers(&self.partition, Offset(from), bytes_max, isolation).map_err(failed);
        let (shown, stable) = (offsets.high_watermark.0, offsets.stable.0);
        prop_assert_eq!(read(Isolation::ReadUncommitted)?, self.model.records(from, shown));
        prop_assert_eq!(read(Isolation::ReadCommitted)?, self.model.committed(from, stable));
        Ok(())
    }
}

fn run(storage: Arc<MemoryStorage>, weather: Weather, events: &[Event]) -> Outcome {
    let mut run = Run::new(storage, weather);
    for event in events {
        run.step(event)?;
        if run.storage.is_unplugged() {
            // The plug was pulled while a snapshot was written, behind a batch that is there.
            run.crash()?;
        }
    }
    run.storage.clear_faults();
    run.check()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_partition_keeps_what_it_acknowledged_through_crashes(
        weather in weather(),
        events in prop::collection::vec(event(), 1..120),
    ) {
        run(disk(weather.seed), weather, &events)?;
    }
}

/// One random script.
pub(crate) fn check_script(seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let weather = weather().new_tree(&mut runner).expect("a strategy generates").current();
    let events = prop::collection::vec(event(), 1..120).new_tree(&mut runner);
    let events = events.expect("a strategy generates").current();
    run(disk(weather.seed), weather, &events).expect("every promise is kept");
}

/// Runs random scripts with one kind of sync left out, until one fails.
fn fails_without(purpose: SyncPurpose) -> bool {
    let mut runner = TestRunner::deterministic();
    (0..2000).any(|_| {
        let weather = weather().new_tree(&mut runner).expect("a strategy generates").current();
        let events = prop::collection::vec(event(), 1..120).new_tree(&mut runner);
        let events = events.expect("a strategy generates").current();
        let storage = disk(weather.seed);
        storage.ignore_syncs(purpose);
        run(storage, weather, &events).is_err()
    })
}

#[test]
fn records_are_lost_without_their_sync() {
    assert!(fails_without(SyncPurpose::Records));
}

#[test]
fn segments_are_lost_without_the_sync_of_their_names() {
    assert!(fails_without(SyncPurpose::Directory));
}

#[test]
fn what_was_recovered_is_lost_without_its_sync() {
    assert!(fails_without(SyncPurpose::Recovered));
}

#[test]
fn records_are_not_found_by_time_without_the_sync_of_sealed_indexes() {
    assert!(fails_without(SyncPurpose::Snapshot));
}

#[test]
fn what_is_kept_after_a_failed_sync_without_a_note_is_written_again() {
    for durability in [Durability::Sync, Durability::Os] {
        check_written_again(&PartitionConfig { durability, ..small() });
    }
}

fn check_written_again(config: &PartitionConfig) {
    let storage = disk(3);
    let partition = create(&storage, config.clone());
    partition.append(batch([0])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    partition.append(batch([1])).expect("the disk is fine");
    storage.fail_with(std::io::ErrorKind::Other, 0);
    flush(&partition).expect_err("the sync fails");
    storage.kill();
    storage.remove_file(&Path::new(DIRECTORY).join("failed-sync")).expect("the failure was noted");

    let (_, report) =
        Partition::open(site(&storage, config.clone()), &unclean(0)).expect("it can be read back");
    assert_eq!(report.end, Offset(2));
    for _ in 0..20 {
        storage.crash();
        let (partition, _) =
            Partition::open(site(&storage, config.clone()), &unclean(2)).expect("it was synced");
        let read = read_numbers(&partition, Offset(0), 300, Isolation::ReadUncommitted);
        assert_eq!(read.expect("it is sound"), [(Offset(0), 0), (Offset(1), 1)]);
    }
}
