//! What the clock does to transactions and to the ids that they are written under.

use std::sync::Arc;
use std::time::Duration;

use super::{TransactionOptions, TransactionalProducer};
use crate::batch::{BatchBuilder, Compression, SealedBatch};
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::log::{Log, LogOptions};
use crate::partition::{Durability, Partition};
use crate::record::{Offset, Timestamp};
use crate::storage::memory::MemoryStorage;
use crate::topic::TopicConfig;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Bench {
    storage: Arc<MemoryStorage>,
    clock: Arc<ManualClock>,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        let bench = Self::on(MemoryStorage::new(1), ManualClock::new());
        // Readers see markers at once.
        let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
        bench.log.create_topic("out", config).unwrap();
        bench
    }

    fn on(storage: Arc<MemoryStorage>, clock: Arc<ManualClock>) -> Self {
        let log = Log::open("/log", LogOptions::manual(storage.mount(), clock.clone(), 1)).unwrap();
        Self { storage, clock, log }
    }

    fn reopen(self) -> Self {
        let Self { storage, clock, log } = self;
        log.close().unwrap();
        Self::on(storage, clock)
    }

    fn out(&self) -> Arc<Partition> {
        self.log.topic("out").unwrap().partitions()[0].clone()
    }

    fn take(&self, id: &str, seconds: u64) -> TransactionalProducer {
        let options = TransactionOptions { timeout: Some(Duration::from_secs(seconds)) };
        self.log.transactional_with(id, options).unwrap()
    }

    fn write(&self, producer: &TransactionalProducer) {
        producer.begin().unwrap();
        producer.append(&self.out(), batch()).unwrap();
    }

    /// Lets time pass, and whatever follows from that be done.
    fn wait(&self, time: Duration) {
        self.clock.advance(time);
        while self.log.step().unwrap() {}
    }

    /// The last stable offset and the end.
    fn offsets(&self) -> (i64, i64) {
        let offsets = self.out().offsets();
        (offsets.stable.0, offsets.end.0)
    }
}

fn batch() -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(b"v"), &[]).unwrap();
    builder.seal()
}

#[test]
fn a_transaction_that_is_open_for_too_long_is_aborted_and_its_producer_fenced() {
    let bench = Bench::new();
    let producer = bench.take("a", 30);
    bench.write(&producer);
    bench.wait(Duration::from_secs(29));
    assert_eq!(bench.offsets(), (0, 1));
    producer.append(&bench.out(), batch()).unwrap();
    bench.wait(Duration::from_secs(1));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.offsets(), (3, 3), "the marker is there, and nothing is in the way");
    let ways = [
        producer.append(&bench.out(), batch()).map(drop),
        producer.commit(&[]).wait(),
        producer.abort(),
        producer.begin(),
    ];
    for refused in ways {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(
            error.to_string().contains("transactional id a") && error.to_string().contains("30s"),
            "{error}"
        );
    }
    let again = bench.take("a", 30);
    bench.write(&again);
    again.commit(&[]).wait().unwrap();
    assert_eq!(bench.offsets(), (5, 5));
}

#[test]
fn a_transaction_that_ends_in_time_or_has_written_nothing_is_left_alone() {
    let bench = Bench::new();
    let producer = bench.take("a", 30);
    let empty = bench.take("b", 30);
    let patient = bench.log.transactional_with("c", TransactionOptions { timeout: None }).unwrap();
    empty.begin().unwrap();
    bench.write(&patient);
    for _ in 0..5 {
        bench.write(&producer);
        bench.wait(Duration::from_secs(29));
        producer.commit(&[]).wait().unwrap();
    }
    empty.append(&bench.out(), batch()).unwrap();
    empty.commit(&[]).wait().unwrap();
    bench.wait(30 * DAY);
    patient.commit(&[]).wait().unwrap();
}

#[test]
fn a_timeout_that_is_longer_than_the_log_allows_is_refused_and_fences_nobody() {
    let bench = Bench::new();
    let take = |log: &Log, id: &str, timeout| {
        log.transactional_with(id, TransactionOptions { timeout: Some(timeout) })
    };
    let longest = Duration::from_secs(900);
    let holder = take(&bench.log, "a", longest).unwrap();
    bench.write(&holder);
    for impossible in [longest + Duration::from_millis(1), Duration::MAX, Duration::ZERO] {
        let error = take(&bench.log, "a", impossible).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let said = error.to_string();
        assert!(said.contains("transactional id a") && said.contains("transaction_timeout_max"), "{said}");
        assert!(said.contains(&format!("{impossible:?}")) && said.contains("900s"), "{said}");
    }
    holder.commit(&[]).wait().unwrap();

    let storage = MemoryStorage::new(2);
    let options = LogOptions::manual(storage.mount(), ManualClock::new(), 1);
    let options = LogOptions { transaction_timeout_max: Duration::from_secs(5), ..options };
    let strict = Log::open("/log", options).unwrap();
    take(&strict, "a", Duration::from_secs(5)).unwrap();
    assert_eq!(take(&strict, "b", Duration::from_secs(6)).unwrap_err().kind(), ErrorKind::Invalid);
    strict.transactional_with("c", TransactionOptions { timeout: None }).unwrap();
}

#[test]
fn an_id_is_taken_over_while_its_overdue_transaction_is_being_aborted() {
    let bench = Bench::new();
    let producer = bench.take("a", 30);
    bench.write(&producer);
    bench.clock.advance(Duration::from_secs(31));
    // The step that aborts it, and no other.
    bench.log.step().unwrap();
    let again = bench.take("a", 30);
    bench.write(&again);
    again.commit(&[]).wait().unwrap();
    // Two records and their markers.
    assert_eq!(bench.offsets(), (4, 4));
}

/// The ids that the table of transactions knows after it was read anew.
fn ids(bench: &Bench) -> Vec<String> {
    bench.log.coordinator().state.lock().table.entries.keys().cloned().collect()
}

#[test]
fn ids_that_nobody_has_used_for_a_week_are_forgotten_for_good() {
    let bench = Bench::new();
    for id in ["old", "held", "young"] {
        let producer = bench.take(id, 30);
        bench.write(&producer);
        producer.commit(&[]).wait().unwrap();
    }
    let held = bench.take("held", 30);
    bench.wait(6 * DAY);
    let producer = bench.take("young", 30);
    bench.write(&producer);
    producer.commit(&[]).wait().unwrap();
    drop(producer);
    assert_eq!(ids(&bench), ["held", "old", "young"]);
    bench.wait(DAY + Duration::from_secs(60 * 60));
    assert_eq!(ids(&bench), ["held", "young"]);
    bench.write(&held);
    held.commit(&[]).wait().unwrap();
    drop(held);
    let bench = bench.reopen();
    assert_eq!(ids(&bench), ["held", "young"]);
    let again = bench.take("old", 30);
    bench.write(&again);
    again.commit(&[]).wait().unwrap();
    assert_eq!(bench.out().offsets().stable, Offset(bench.offsets().1));
}
