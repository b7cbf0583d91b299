//! What keeps old records from going, and who is told; and what becomes of a retention, or of a deletion of
//! records, that is cut off at any of its operations.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::upkeep_tests::{Bench, EVERY};
use super::*;
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};
use crate::cleanup::Retention;
use crate::files::FileKind;
use crate::partition::hold::{Hold, Holder};
use crate::partition::{Isolation, Partition, Pin};
use crate::record::{Offset, PartitionId, Timestamp};
use crate::storage::memory::MemoryStorage;
use crate::topic::TopicConfig;
use crate::transaction::{TransactionOptions, TransactionalProducer};

const FIRST: PartitionId = PartitionId(0);

#[test]
fn records_that_somebody_has_pinned_are_not_deleted_and_whoever_asks_is_told_who_it_is() {
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    bench.write(0..20);
    let delete = |to| bench.log.delete_records("t", FIRST, Offset(to));
    let pin = partition.pin(Offset(7), "the restore of orders");
    let higher = partition.pin(Offset(9), "the restore of shops");
    let error = delete(10).expect_err("it is pinned");
    let says = "the restore of orders has pinned what there is from offset 7 on";
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().ends_with(&format!("up to offset 7 now, not up to 10: {says}")), "{error}");
    assert_eq!(partition.offsets().start, Offset(0));
    assert_eq!(delete(7).expect("that is before it"), Offset(7));
    assert!(!partition.fetch(Offset(7), 1000, Isolation::ReadUncommitted).expect("pinned").bytes.is_empty());
    drop(pin);
    let error = delete(10).expect_err("it is pinned still");
    assert!(error.to_string().contains("the restore of shops"), "{error}");
    drop(higher);
    assert_eq!(delete(10).expect("nobody reads it any more"), Offset(10));
}

#[test]
fn records_that_are_not_durable_are_not_deleted_and_whoever_asks_is_told_so() {
    let bench = Bench::new();
    let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
    let partition = bench.create(config);
    partition.append(batch(0, Timestamp(0))).expect("the disk is fine");
    let error = partition.delete_records(Offset(1)).expect_err("nobody has synced it");
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().ends_with("not all is durable from offset 0 on"), "{error}");
    let deleted = bench.log.delete_records("t", FIRST, Offset(1)).expect("it is synced first");
    assert_eq!(deleted, Offset(1));
}

#[test]
fn what_holds_old_records_back_is_said_once_for_as_long_as_it_is_the_same() {
    let bench = Bench::new();
    let retention = Retention { time: Some(Duration::from_secs(100)), bytes: None };
    let partition = bench.create(TopicConfig { retention, ..TopicConfig::default() });
    bench.write(0..20);
    let by = |from, holder: &str| Hold { from: Offset(from), holder: Holder::Pin(holder.into()) };
    let says_again = |hold: Hold| partition.note_held_back(Some(hold)).is_some();
    let pin = partition.pin(Offset(7), "the restore of orders");
    bench.wait(EVERY);
    assert_eq!(partition.note_held_back(None), None, "nothing was due");
    bench.wait(Duration::from_secs(500));
    assert!(!says_again(by(7, "the restore of orders")), "it has been said");
    bench.wait(EVERY);
    assert!(!says_again(by(8, "the restore of orders")), "it is the same, wherever it has got to");
    assert!(says_again(by(7, "the restore of shops")), "that is somebody else");
    bench.wait(EVERY);
    assert!(!says_again(by(7, "the restore of orders")));
    drop(pin);
    bench.wait(EVERY);
    assert_eq!(partition.offsets().start, Offset(20));
    assert!(says_again(by(7, "the restore of orders")), "it was over in between");
}

/// Records before it are old, and those from it on young.
const YOUNG_FROM: Offset = Offset(14);
/// From where on something holds what there is.
const HELD_FROM: Offset = Offset(8);
/// How many records there are, each in a batch of its own.
const END: Offset = Offset(20);
/// Where the partition begins before anything is cut off.
const START: Offset = Offset(3);
/// How old records become where they go by their age, and how many bytes stay where they go by their size.
const AGE_MAX: Duration = Duration::from_secs(1000);
const BYTES_KEPT: u64 = 900;
/// How much time passes before records are looked at.
const TIME_PASSES: Duration = Duration::from_secs(500);

/// What has records deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Time,
    Bytes,
    Call,
}

/// What holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldBy {
    Nothing,
    Transaction,
    Pin,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Kill,
    PowerCut,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    cause: Cause,
    held: HeldBy,
    durability: Durability,
    ending: Ending,
    seed: u64,
    /// At which operation the plug is pulled.
    operation: u64,
}

fn batch(number: i64, time: Timestamp) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(time, None, Some(format!("record {number:40}").as_bytes()), &[]).expect("it is small");
    builder.seal()
}

/// What is read from the start on: each record's offset and the number in its value.
fn numbers(partition: &Partition, from: Offset) -> Vec<(i64, i64)> {
    let mut scratch = DecompressionBuffer::new();
    let (mut numbers, mut next) = (Vec::new(), from);
    loop {
        let fetched = partition.fetch(next, 1000, Isolation::ReadUncommitted).expect("it is sound");
        if fetched.bytes.is_empty() {
            return numbers;
        }
        let batches = fetched.batches().map(|batch| batch.expect("it is sound"));
        for batch in batches.filter(|batch| !batch.header().is_control) {
            for record in batch.records(&mut scratch).expect("it is not compressed") {
                let record = record.expect("it is sound");
                let value = std::str::from_utf8(record.value.expect("it has one")).expect("it is text");
                let number = value.strip_prefix("record ").expect("so it was written").trim_start();
                numbers.push((record.offset.0, number.parse().expect("it is a number")));
            }
        }
        next = fetched.next;
    }
}

struct World {
    case: Case,
    bench: Bench,
    /// The time of each record, by its offset: all that a model has to know of them.
    times: Vec<Timestamp>,
    /// Where whoever looked was told that the partition begins.
    promised: Offset,
    pin: Option<Pin>,
    producer: Option<TransactionalProducer>,
}

impl World {
    /// A partition of which everything is durable but its last record, where that is nobody's business.
    fn new(case: Case) -> Self {
        let bench = Bench::on(MemoryStorage::new(case.seed));
        bench.create(TopicConfig { durability: Some(case.durability), ..TopicConfig::default() });
        let mut world = Self { case, bench, times: Vec::new(), promised: START, pin: None, producer: None };
        world.write(5);
        world.sync();
        world.bench.log.delete_records("t", FIRST, START).expect("they are durable");
        world.bench.settle();
        world.write(HELD_FROM.0);
        world.hold();
        world.write(YOUNG_FROM.0);
        world.bench.clock.advance(AGE_MAX * 3 / 5);
        world.write(END.0 - 1);
        world.sync();
        world.write(END.0);
        if case.durability == Durability::Sync {
            world.sync();
        }
        world
    }

    fn partition(&self) -> Arc<Partition> {
        self.bench.partition()
    }

    fn next_batch(&mut self) -> SealedBatch {
        let now = self.bench.clock.now();
        self.times.push(now);
        batch(self.times.len() as i64 - 1, now)
    }

    fn write(&mut self, end: i64) {
        while (self.times.len() as i64) < end {
            let batch = self.next_batch();
            self.partition().append(batch).expect("the disk is fine");
        }
    }

    fn sync(&self) {
        let flushed = self.bench.log.flush(&[self.partition()], SyncPurpose::Records);
        flushed.wait().expect("the disk is fine");
    }

    fn hold(&mut self) {
        match self.case.held {
            HeldBy::Nothing => {}
            HeldBy::Pin => self.pin = Some(self.partition().pin(HELD_FROM, "a reader")),
            HeldBy::Transaction => {
                let patient = TransactionOptions { timeout: None };
                let producer = self.bench.log.transactional_with("id", patient).expect("it is free");
                producer.begin().expect("none is open");
                for _ in 0..2 {
                    let batch = self.next_batch();
                    producer.append(&self.partition(), batch).expect("the disk is fine");
                }
                self.producer = Some(producer);
            }
        }
    }

    /// The segments that there are: base and bytes.
    fn segments(&self) -> Vec<(Offset, u64)> {
        let directory = Path::new("/log/t-0");
        let entries = self.bench.storage.list(directory).expect("it is there");
        let names = entries.iter().filter_map(|entry| Some((entry, FileKind::parse(&entry.name)?)));
        let mut segments: Vec<_> = names
            .filter(|(_, (_, kind))| *kind == FileKind::Log)
            .map(|(entry, (base, _))| {
                let bytes = self.bench.storage.contents(&directory.join(&entry.name)).expect("it is there");
                (base, bytes.len() as u64)
            })
            .collect();
        segments.sort_unstable();
        segments
    }

    /// Where the partition begins once everything before `bound` is gone that is to go at the time `now`.
    fn due(&self, start: Offset, bound: Offset, now: Timestamp) -> Offset {
        let mut segments = self.segments();
        while segments.get(1).is_some_and(|(base, _)| *base <= start) {
            segments.remove(0);
        }
        let first_kept = match self.case.cause {
            Cause::Call => return YOUNG_FROM.min(bound),
            Cause::Time => {
                let is_young = |time: &Timestamp| now.0 - time.0 <= AGE_MAX.as_millis() as i64;
                Offset(self.times.iter().position(is_young).expect("some are young") as i64)
            }
            Cause::Bytes => {
                let bytes_from = |at: usize| segments[at..].iter().map(|(_, bytes)| bytes).sum::<u64>();
                let is_enough = |at: &usize| bytes_from(*at) >= BYTES_KEPT;
                // A power cut may have left less than is kept.
                segments[(0..segments.len()).rfind(is_enough).unwrap_or(0)].0
            }
        };
        let base = segments.iter().map(|(base, _)| *base).rfind(|base| *base <= first_kept.min(bound));
        base.expect("the first one").max(start)
    }

    fn bound(&self) -> Offset {
        if self.case.held == HeldBy::Nothing { END } else { HELD_FROM }
    }

    /// Has done what is to be done, until it is or the plug is out.
    fn operate(&mut self) {
        let retention = match self.case.cause {
            Cause::Time => Retention { time: Some(AGE_MAX), bytes: None },
            Cause::Bytes => Retention { time: None, bytes: Some(BYTES_KEPT) },
            Cause::Call => Retention::default(),
        };
        let altered = self.bench.log.alter_topic("t", |config| config.retention = retention);
        altered.expect("it can be changed");
        self.bench.storage.fail_after(self.case.operation);
        if self.case.cause == Cause::Call {
            self.delete_records();
        } else {
            self.bench.clock.advance(TIME_PASSES);
        }
        for _ in 0..3 {
            while self.bench.log.step().is_ok_and(|is_more| is_more) {}
            self.bench.clock.advance(EVERY);
        }
        self.promised = self.promised.max(self.partition().offsets().start);
    }

    fn delete_records(&mut self) {
        let delete = |to| self.bench.log.delete_records("t", FIRST, to);
        let deleted = match delete(YOUNG_FROM) {
            Err(error) if error.kind() == ErrorKind::Retry && self.case.held != HeldBy::Nothing => {
                delete(HELD_FROM)
            }
            deleted => deleted,
        };
        match deleted {
            Ok(start) => {
                assert_eq!(start, YOUNG_FROM.min(self.bound()), "{:?}", self.case);
                self.promised = start;
            }
            Err(error) => assert!(self.bench.storage.is_unplugged(), "{error}: {:?}", self.case),
        }
    }

    /// The process ends, and another one begins.
    fn end(self, ending: Ending) -> Self {
        let Self { bench, pin, producer, .. } = self;
        bench.storage.clear_faults();
        match ending {
            Ending::Kill => bench.storage.kill(),
            Ending::PowerCut => bench.storage.crash(),
        }
        drop((pin, producer));
        Self { bench: bench.reopen(), pin: None, producer: None, ..self }
    }

    /// Nothing from the start on is lost up to `end` at least, and nothing before it is there.
    fn check_records(&self, end: Offset) {
        let partition = self.partition();
        let start = partition.offsets().start;
        let read = numbers(&partition, start);
        assert!(start.0 + read.len() as i64 >= end.0, "{:?}: {read:?} from {start} to {end}", self.case);
        let expected: Vec<_> = (start.0..).map(|offset| (offset, offset)).take(read.len()).collect();
        assert_eq!(read, expected, "{:?}", self.case);
        let before = partition.fetch(start.plus(-1), 1000, Isolation::ReadUncommitted);
        assert_eq!(before.expect_err("gone").kind(), ErrorKind::OffsetOutOfRange, "{:?}", self.case);
    }
}

/// Checks one case; says whether it was cut off.
fn check(case: Case, ignored: Option<SyncPurpose>) -> bool {
    let mut world = World::new(case);
    ignored.into_iter().for_each(|purpose| world.bench.storage.ignore_syncs(purpose));
    let then = Timestamp(world.bench.clock.now().0 + TIME_PASSES.as_millis() as i64);
    let due = world.due(START, world.bound(), then);
    world.operate();
    let is_cut_off = world.bench.storage.is_unplugged();
    let partition = world.partition();
    if !is_cut_off {
        assert_eq!(partition.offsets().start, due, "{case:?}");
        world.check_records(END);
    }
    let durable = if case.ending == Ending::Kill { END } else { partition.offsets().durable };
    drop(partition);

    let world = world.end(case.ending);
    let start = world.partition().offsets().start;
    assert!(start == START || start == due, "{case:?}: {start} is neither {START} nor {due}");
    assert!(start >= world.promised, "{case:?}: {start}, and it was {}", world.promised);
    world.check_records(durable);

    // Nothing holds anything any more, and what was begun is finished.
    let due = if case.cause == Cause::Call { start } else { world.due(start, END, world.bench.clock.now()) };
    for _ in 0..3 {
        world.bench.wait(EVERY);
    }
    assert_eq!(world.partition().offsets().start, due, "{case:?}");
    world.check_records(durable);
    let segments = world.segments();
    let is_left = segments.get(1).is_some_and(|(base, _)| *base <= due);
    assert!(!is_left && segments[0].0 <= due, "{case:?}: {segments:?}");
    let world = world.end(Ending::PowerCut);
    assert_eq!(world.partition().offsets().start, due, "{case:?}");
    world.check_records(durable);
    is_cut_off
}

fn cases() -> impl Iterator<Item = Case> {
    let mut cases = Vec::new();
    for cause in [Cause::Time, Cause::Bytes, Cause::Call] {
        for held in [HeldBy::Nothing, HeldBy::Transaction, HeldBy::Pin] {
            for durability in [Durability::Sync, Durability::Os] {
                for (ending, seed) in [(Ending::Kill, 1), (Ending::PowerCut, 2), (Ending::PowerCut, 3)] {
                    cases.push(Case { cause, held, durability, ending, seed, operation: 0 });
                }
            }
        }
    }
    // Where nobody syncs it, a power cut takes an open transaction and all behind it.
    let is_kept = |case: &Case| case.durability == Durability::Sync || case.held != HeldBy::Transaction;
    cases.into_iter().filter(is_kept)
}

#[test]
fn wherever_a_deletion_is_cut_off_nothing_comes_back_and_nothing_is_lost_that_was_to_stay() {
    for case in cases() {
        let operations =
            (0..).take_while(|operation| check(Case { operation: *operation, ..case }, None)).count();
        assert!(operations > 8, "{case:?}: {operations} operations");
    }
}

#[test]
fn deleted_records_come_back_without_the_sync_of_the_marks() {
    let comes_back = |seed| {
        let case = Case {
            cause: Cause::Call,
            held: HeldBy::Nothing,
            durability: Durability::Sync,
            ending: Ending::PowerCut,
            seed,
            operation: 1 << 32,
        };
        assert!(!check(case, None));
        catch_unwind(AssertUnwindSafe(|| check(case, Some(SyncPurpose::Marks)))).is_err()
    };
    assert!((0..20).any(comes_back));
}
