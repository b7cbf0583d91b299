//! Logs of more segments than may be open at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Log, LogOptions};
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, MarkerKind, ProducerStamp, SealedBatch};
use crate::cleanup::CleanupPolicy;
use crate::clock::ManualClock;
use crate::compaction::plan::GROUP_SEGMENTS_MAX;
use crate::error::{ErrorKind, Result};
use crate::files::FileKind;
use crate::open_files::is_stale;
use crate::partition::{Fetched, Isolation, Partition};
use crate::record::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use crate::recovery::INDEXES_AT_ONCE;
use crate::spawn::spawn;
use crate::storage::counting::CountingStorage;
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Storage, SyncPurpose};
use crate::topic::TopicConfig;

/// How many files stay open.
const OPEN_MAX: usize = 4;

/// How many keys there are.
const KEYS: i64 = 10;

/// How many readers there are.
const READERS: usize = 3;

/// The log of a segment and its indexes.
const SEGMENT_FILES: usize = 4;

/// What else is open at a time: recovery points, marks, the segment that is written to, and another file that
/// is read or replaced in one piece.
const SMALL_FILES: usize = 4;

struct Bench {
    disk: Arc<InterruptingStorage>,
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
        let disk = InterruptingStorage::new(MemoryStorage::new(1));
        let counting = CountingStorage::new(disk.clone());
        let log = Log::open("/log", options(&counting)).expect("an empty disk");
        let config =
            TopicConfig { segment_bytes: 300, index_interval_bytes: 100, cleanup, ..TopicConfig::default() };
        let partition = log.create_topic("t", config).expect("a new topic").partitions()[0].clone();
        Self { disk, counting, log, partition }
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

    /// What comes of a fetch in whose middle, when it has begun to read the first segment, `act` is done.
    fn fetch_during(
        &self,
        from: Offset,
        isolation: Isolation,
        act: impl FnOnce(&Log, &Partition) + Send + 'static,
    ) -> Result<Fetched> {
        self.fetch_during_read(FileKind::Log, from, isolation, act)
    }

    /// The same, when it has begun to read this file of the first segment.
    fn fetch_during_read(
        &self,
        kind: FileKind,
        from: Offset,
        isolation: Isolation,
        act: impl FnOnce(&Log, &Partition) + Send + 'static,
    ) -> Result<Fetched> {
        let (log, partition) = (self.log.clone(), self.partition.clone());
        let first = kind.path(Path::new("/log/t-0"), Offset(0));
        self.disk.before_read(first, move || act(&log, &partition));
        let fetched = self.partition.fetch(from, 200, isolation);
        assert!(!self.disk.is_pending(), "the first segment is read");
        fetched
    }

    /// The log as another process sees it, with a bound and a count of its own.
    fn read_only(&self) -> (Arc<CountingStorage>, Log) {
        let counting = CountingStorage::new(self.counting.clone());
        let log = Log::open_read_only("/log", options(&counting)).expect("there is a log");
        (counting, log)
    }
}

/// The first record has a key of its own, so that it stays.
fn key(number: i64) -> String {
    if number == 0 { "first".to_owned() } else { (number % KEYS).to_string() }
}

fn batch(number: i64) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let (key, value) = (key(number), number.to_string());
    builder.push(Timestamp(number), Some(key.as_bytes()), Some(value.as_bytes()), &[]).expect("it is small");
    builder.seal()
}

fn transactional(number: i64, epoch: i16) -> SealedBatch {
    let mut batch = batch(number);
    let (id, epoch, base_sequence) = (ProducerId(7), ProducerEpoch(epoch), Sequence(0));
    batch.stamp(Some(ProducerStamp { id, epoch, base_sequence, transactional: true }));
    batch
}

/// The offsets of the batches that a reader is shown.
fn shown(fetched: &Fetched) -> Vec<i64> {
    fetched.committed().map(|batch| batch.expect("it is sound").header().base_offset.0).collect()
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
                assert_eq!(record.key, Some(key(number).as_bytes()));
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
    // Those that are replaced, the one that takes their place and was opened twice, and what each reader has
    // in hand. All that the other process opens is open on the same disk.
    let in_hand = GROUP_SEGMENTS_MAX + (2 + READERS) * SEGMENT_FILES + SMALL_FILES;
    for (counting, logs) in [(&bench.counting, 2), (&other_counting, 1)] {
        let (most, allowed) = (counting.counts().open_most, logs * OPEN_MAX + in_hand);
        assert!(allowed < segments && most <= allowed as u64, "{most} files were open at once");
    }
}

#[test]
fn who_stops_in_the_middle_of_a_fetch_keeps_nothing_open_but_the_segment_in_hand() {
    let bench = Bench::new(CleanupPolicy::Compact);
    bench.write(0..400);
    let (open, counting) = (Arc::new(AtomicU64::new(0)), bench.counting.clone());
    let counted = open.clone();
    let fetched = bench.fetch_during(Offset(0), Isolation::ReadUncommitted, move |log, _| {
        log.compact("t").expect("it is sound");
        counted.store(counting.counts().open, Ordering::Release);
    });
    assert_eq!(shown(&fetched.expect("it is read on"))[..2], [0, 1], "what is in hand is read to its end");
    let open = open.load(Ordering::Acquire);
    assert!(open <= (OPEN_MAX + SEGMENT_FILES + SMALL_FILES) as u64, "{open} files are open");
}

#[test]
fn nothing_is_open_of_what_was_replaced_though_somebody_still_has_the_list_of_it() {
    let bench = Bench::new(CleanupPolicy::Compact);
    bench.write(0..400);
    let listed = bench.partition.compaction_view().sealed;
    bench.log.compact("t").expect("it is sound");
    let open = bench.counting.counts().open;
    assert!(open <= (OPEN_MAX + SMALL_FILES) as u64, "{open} files are open");
    assert!(is_stale(&listed[0].0.file().err().expect("it is not open")));
}

#[test]
fn who_has_found_a_segment_that_is_replaced_before_it_is_open_reads_what_took_its_place() {
    let bench = Bench::new(CleanupPolicy::Compact);
    bench.write(0..40);
    let found =
        bench.fetch_during_read(FileKind::OffsetIndex, Offset(2), Isolation::ReadUncommitted, |log, _| {
            log.compact("t").expect("it is sound");
        });
    assert_eq!(shown(&found.expect("it is read again"))[0], 40 - KEYS);
}

#[test]
fn who_goes_on_behind_a_segment_misses_nothing_though_its_place_is_inside_of_another_by_then() {
    let bench = Bench::new(CleanupPolicy::Compact);
    bench.write(0..40);
    bench.log.compact("t").expect("it is sound");
    let segments = bench.partition.compaction_view().sealed.len();
    // Of the first segment only the first record is left.
    let fetched = bench.fetch_during(Offset(2), Isolation::ReadUncommitted, |log, _| {
        log.compact("t").expect("it is sound");
    });
    assert!(bench.partition.compaction_view().sealed.len() < segments, "some have become one");
    assert_eq!(shown(&fetched.expect("it is read on"))[0], 40 - KEYS);
}

#[test]
fn aborted_records_are_not_shown_though_compaction_has_forgotten_their_transaction_meanwhile() {
    let bench = Bench::new(CleanupPolicy::Compact);
    let end = |kind, epoch| {
        let marker = bench.partition.append_marker(kind, ProducerId(7), ProducerEpoch(epoch), 0);
        marker.expect("the disk is fine").expect("it is open");
    };
    bench.partition.append_to_transaction(transactional(0, 0)).expect("the disk is fine");
    end(MarkerKind::Abort, 0);
    bench.partition.append_to_transaction(transactional(2, 1)).expect("the disk is fine");
    end(MarkerKind::Commit, 1);
    bench.write(4..40);
    let fetched = bench.fetch_during(Offset(0), Isolation::ReadCommitted, |log, partition| {
        for _ in 0..2 {
            log.compact("t").expect("it is sound");
        }
        let aborted = partition.aborted_between(Offset(0), Offset(40)).expect("the index is sound");
        assert_eq!(aborted, [], "nothing is left of it");
    });
    let shown = shown(&fetched.expect("it is read again"));
    assert!(!shown.is_empty() && !shown.contains(&0), "{shown:?}");
}

#[test]
fn who_reads_what_is_deleted_meanwhile_gets_all_that_is_in_hand_or_is_told_that_it_is_gone() {
    let delete = |_: &Log, partition: &Partition| {
        partition.remove_segments_before(Offset(20)).expect("the disk is fine");
    };
    let written = || {
        let bench = Bench::new(CleanupPolicy::CompactAndDelete);
        bench.write(0..40);
        bench
    };
    let fetched = written().fetch_during(Offset(0), Isolation::ReadUncommitted, delete);
    assert_eq!(shown(&fetched.expect("it is in hand"))[..2], [0, 1]);
    // Nobody could say any more which of its records count.
    let error = written().fetch_during(Offset(0), Isolation::ReadCommitted, delete).expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
    // The first segment has nothing to show, and what was behind it is gone.
    let bench = written();
    bench.log.compact("t").expect("it is sound");
    let error = bench.fetch_during(Offset(2), Isolation::ReadUncommitted, delete).expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
}

#[test]
fn what_recovery_writes_anew_is_not_all_open_at_once() {
    let bench = Bench::new(CleanupPolicy::Delete);
    bench.write(0..400);
    let segments = bench.partition.compaction_view().sealed.len();
    bench.log.close().expect("the disk is fine");
    let directory = Path::new("/log/t-0");
    for entry in bench.disk.list(directory).expect("it is there") {
        if matches!(FileKind::parse(&entry.name), Some((_, kind)) if kind != FileKind::Log) {
            bench.disk.remove_file(&directory.join(entry.name)).expect("it is there");
        }
    }
    bench.disk.remove_file(Path::new("/log/clean-shutdown")).expect("it was closed");
    let counting = CountingStorage::new(bench.disk.clone());
    let log = Log::open("/log", options(&counting)).expect("only what can be had anew is missing");
    let partition = log.topic("t").expect("it is there").partitions()[0].clone();
    assert_eq!(read(&partition, Offset(0)).expect("it is sound"), (0..400).collect::<Vec<_>>());
    let allowed = INDEXES_AT_ONCE + OPEN_MAX + SEGMENT_FILES + SMALL_FILES;
    let most = counting.counts().open_most;
    assert!(allowed < segments && most <= allowed as u64, "{most} files were open at once");
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
