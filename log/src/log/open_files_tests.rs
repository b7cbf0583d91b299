//! Logs of more segments than may be open at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Log, LogOptions};
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};
use crate::cleanup::CleanupPolicy;
use crate::clock::ManualClock;
use crate::compaction::plan::GROUP_SEGMENTS_MAX;
use crate::error::{ErrorKind, Result};
use crate::partition::{Isolation, Partition};
use crate::record::{Offset, Timestamp};
use crate::spawn::spawn;
use crate::storage::SyncPurpose;
use crate::storage::counting::CountingStorage;
use crate::storage::memory::MemoryStorage;
use crate::topic::TopicConfig;

/// How many files stay open.
const OPEN_MAX: usize = 4;

/// How many keys there are.
const KEYS: i64 = 10;

/// What a writer and two readers have in hand at a time, and what is replaced at a time: a segment or two
/// with its indexes, the new one, a directory's small files. Those that are replaced are open besides.
const IN_HAND: usize = 24;

struct Bench {
    counting: Arc<CountingStorage>,
    log: Log,
    partition: Arc<Partition>,
}

fn options(storage: &Arc<CountingStorage>) -> LogOptions {
    let options = LogOptions::manual(storage.clone(), ManualClock::new(), 1);
    LogOptions { open_files_max: OPEN_MAX, ..options }
}

impl Bench {
    /// A topic of many small segments, with one record in each batch.
    fn new(cleanup: CleanupPolicy) -> Self {
        let counting = CountingStorage::new(MemoryStorage::new(1));
        let log = Log::open("/log", options(&counting)).expect("an empty disk");
        let config = TopicConfig { segment_bytes: 300, cleanup, ..TopicConfig::default() };
        let partition = log.create_topic("t", config).expect("a new topic").partitions()[0].clone();
        Self { counting, log, partition }
    }

    fn write(&self, numbers: std::ops::Range<i64>) {
        for number in numbers {
            self.partition.append(batch(number)).expect("the disk is fine");
            self.log
                .flush(std::slice::from_ref(&self.partition), SyncPurpose::Records)
                .wait()
                .expect("the disk is fine");
        }
    }

    /// The log as another process sees it, with a bound and a count of its own.
    fn read_only(&self) -> (Arc<CountingStorage>, Log) {
        let counting = CountingStorage::new(self.counting.clone());
        let log = Log::open_read_only("/log", options(&counting)).expect("there is a log");
        (counting, log)
    }
}

fn batch(number: i64) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let (key, value) = ((number % KEYS).to_string(), number.to_string());
    builder.push(Timestamp(number), Some(key.as_bytes()), Some(value.as_bytes()), &[]).expect("it is small");
    builder.seal()
}

/// The numbers of the records from `from` on. Each record is checked to be the one that was written there.
fn read(partition: &Partition, from: Offset) -> Result<Vec<i64>> {
    let mut scratch = DecompressionBuffer::new();
    let (mut next, mut numbers) = (from, Vec::new());
    loop {
        let fetched = partition.fetch(next, 200, Isolation::ReadUncommitted)?;
        if fetched.bytes.is_empty() {
            return Ok(numbers);
        }
        for batch in fetched.batches() {
            for record in batch.expect("it is sound").records(&mut scratch).expect("it is not compressed") {
                let record = record.expect("it is sound");
                let number = record.offset.0;
                assert_eq!(record.key, Some((number % KEYS).to_string().as_bytes()));
                assert_eq!(record.value, Some(number.to_string().as_bytes()));
                numbers.push(number);
            }
        }
        next = fetched.next;
    }
}

/// Reads all of a partition over and over until told to stop. The newest records are always there.
fn read_until(partition: Arc<Partition>, newest: i64, stop: &AtomicBool, rounds: &AtomicU64) {
    while !stop.load(Ordering::Acquire) {
        let numbers = match read(&partition, Offset(0)) {
            // In another process: segments are replaced faster than it can look.
            Err(error) if error.kind() == ErrorKind::Retry => continue,
            read => read.expect("what is replaced is read on, or read again"),
        };
        assert!(numbers.is_sorted());
        let kept: Vec<i64> = numbers.into_iter().filter(|number| *number >= newest).collect();
        assert_eq!(kept, (newest..newest + KEYS).collect::<Vec<_>>());
        rounds.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn a_log_of_more_segments_than_may_be_open_is_read_while_they_are_replaced() {
    const RECORDS: i64 = 800;
    let bench = Bench::new(CleanupPolicy::Compact);
    bench.write(0..RECORDS);
    let segments = bench.partition.compaction_view().sealed.len();
    assert!(segments > 20 * OPEN_MAX, "{segments} segments");
    let (other_counting, other) = bench.read_only();
    let other_partition = other.topic("t").expect("it is there").partitions()[0].clone();

    let stop = Arc::new(AtomicBool::new(false));
    let reader = |partition: &Arc<Partition>| {
        let (partition, stop, rounds) = (partition.clone(), stop.clone(), Arc::new(AtomicU64::new(0)));
        let counter = rounds.clone();
        let body = move || read_until(partition, RECORDS - KEYS, &stop, &rounds);
        (spawn("reader", body).expect("a thread starts"), counter)
    };
    let readers = [reader(&bench.partition), reader(&bench.partition), reader(&other_partition)];
    let rounds = || {
        assert!(readers.iter().all(|(reader, _)| !reader.is_finished()), "no reader meets anything odd");
        readers.iter().map(|(_, rounds)| rounds.load(Ordering::Acquire)).min()
    };
    while rounds() < Some(1) {
        std::thread::yield_now();
    }
    // The second time, what the first has left of the segments is merged.
    for _ in 0..2 {
        bench.log.compact("t").expect("it is sound");
        let compacted = rounds();
        while rounds() < compacted.map(|rounds| rounds + 1) {
            std::thread::yield_now();
        }
    }
    stop.store(true, Ordering::Release);
    readers.into_iter().for_each(|(reader, _)| reader.join().expect("no reader met anything odd"));

    assert!(bench.partition.compaction_view().sealed.len() < segments / 2);
    for counting in [&bench.counting, &other_counting] {
        let most = counting.counts().open_most;
        // Each reader may be in the middle of a fetch in what was replaced before.
        let allowed = OPEN_MAX + 3 * GROUP_SEGMENTS_MAX + IN_HAND;
        assert!(allowed < 2 * segments && most <= allowed as u64, "{most} files were open at once");
    }
}

#[test]
fn a_reader_in_another_process_never_takes_a_new_file_for_the_old_one_of_its_name() {
    let bench = Bench::new(CleanupPolicy::Compact);
    bench.write(0..40);
    let (_, other) = bench.read_only();
    let partition = other.topic("t").expect("it is there").partitions()[0].clone();
    let fetched = partition.fetch(Offset(0), 100, Isolation::ReadUncommitted).expect("it is sound");
    assert!(fetched.next > Offset(0));
    // Everything that was open is closed, and then replaced.
    read(&partition, Offset(0)).expect("it is sound");
    bench.log.compact("t").expect("it is sound");
    let rest = read(&partition, fetched.next).expect("it is read again");
    // The last sealed segment and the active one hold the newest record of each key.
    assert_eq!(rest, (30..40).collect::<Vec<_>>());
}

#[test]
fn who_reads_a_topic_in_another_process_that_is_deleted_is_told_that_its_files_are_gone() {
    let bench = Bench::new(CleanupPolicy::Delete);
    bench.write(0..40);
    let (_, other) = bench.read_only();
    let partition = other.topic("t").expect("it is there").partitions()[0].clone();
    bench.log.delete_topic("t").expect("it is there");
    let error = read(&partition, Offset(0)).expect_err("its files are gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = read(&bench.partition, Offset(0)).expect_err("it is deleted");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn deleting_a_topic_syncs_none_of_its_records() {
    let storage = MemoryStorage::new(1);
    let log =
        Log::open("/log", LogOptions::manual(storage.clone(), ManualClock::new(), 1)).expect("it opens");
    let topic = log.create_topic("t", TopicConfig::default()).expect("a new topic");
    topic.partitions()[0].append(batch(1)).expect("the disk is fine");
    let before = storage.sync_count(SyncPurpose::Records) + storage.sync_count(SyncPurpose::Snapshot);
    log.delete_topic("t").expect("it is there");
    let after = storage.sync_count(SyncPurpose::Records) + storage.sync_count(SyncPurpose::Snapshot);
    assert_eq!(after, before);
}
