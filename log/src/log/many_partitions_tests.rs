//! Logs of more partitions than files may be open: how many are open that are not synced, and what becomes of a file
//! that cannot be opened.

use std::sync::Arc;
use std::time::Duration;

use super::{Log, LogOptions};
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};
use crate::cleanup::CleanupPolicy;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::partition::{Durability, Isolation, Partition};
use crate::record::{Offset, Timestamp};
use crate::spawn::{Drive, spawn};
use crate::storage::limited::LimitedStorage;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Storage, SyncPurpose};
use crate::topic::{Topic, TopicConfig};
use crate::upkeep::UpkeepOptions;

/// How many files stay open because they were used lately.
const OPEN_MAX: usize = 16;

/// How many stay open because they are not synced.
const UNSYNCED_MAX: usize = 64;

/// What else is open at a time: recovery points and marks, a file that is read or replaced in one piece, and the
/// indexes of the segment that is written out.
const IN_HAND: usize = 8;

const DURABILITIES: [Durability; 3] =
    [Durability::Sync, Durability::Interval(Duration::from_secs(1)), Durability::Os];

fn options(storage: Arc<dyn Storage>) -> LogOptions {
    LogOptions {
        open_files_max: OPEN_MAX,
        unsynced_files_max: UNSYNCED_MAX,
        ..LogOptions::manual(storage, ManualClock::new(), 1)
    }
}

fn open(storage: &Arc<LimitedStorage>) -> Log {
    Log::open("/log", options(storage.clone())).expect("the disk is fine")
}

fn create(log: &Log, partitions: i32, durability: Durability) -> Topic {
    let config = TopicConfig {
        partitions,
        durability: Some(durability),
        segment_bytes: 400,
        index_interval_bytes: 100,
        snapshot_interval_bytes: 300,
        ..TopicConfig::default()
    };
    log.create_topic("t", config).expect("a new topic")
}

/// A topic of partitions that stay in their first segments.
fn create_large(log: &Log, partitions: usize) -> Topic {
    let config = TopicConfig {
        partitions: partitions as i32,
        durability: Some(Durability::Os),
        ..TopicConfig::default()
    };
    log.create_topic("t", config).expect("a new topic")
}

fn batch(number: i64) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(number), None, Some(number.to_string().as_bytes()), &[]).expect("it is small");
    builder.seal()
}

fn write(topic: &Topic, number: i64) {
    for partition in topic.partitions() {
        partition.append(batch(number)).expect("the disk is fine");
    }
}

fn flush(log: &Log, partitions: &[Arc<Partition>]) -> Result<()> {
    log.flush(partitions, SyncPurpose::Records).wait()
}

/// The numbers that were written to a partition.
fn numbers(partition: &Partition) -> Vec<i64> {
    let (mut next, mut numbers) = (Offset(0), Vec::new());
    let mut scratch = DecompressionBuffer::new();
    loop {
        let fetched = partition.fetch(next, 1000, Isolation::ReadCommitted).expect("it is sound");
        for batch in fetched.committed() {
            for record in batch.expect("it is sound").records(&mut scratch).expect("it is not compressed") {
                let value = record.expect("it is sound").value.expect("it has one").to_vec();
                numbers.push(String::from_utf8(value).expect("a number").parse().expect("a number"));
            }
        }
        if fetched.next == next {
            return numbers;
        }
        next = fetched.next;
    }
}

fn check_all(topic: &Topic, expected: impl IntoIterator<Item = i64>) {
    let expected: Vec<i64> = expected.into_iter().collect();
    topic.partitions().iter().for_each(|partition| assert_eq!(numbers(partition), expected));
}

#[test]
fn a_thousand_partitions_are_written_in_turn_with_no_more_files_open_than_allowed() {
    const PARTITIONS: i32 = 1000;
    const ROUNDS: i64 = 8;
    for durability in DURABILITIES {
        let storage = LimitedStorage::new(MemoryStorage::new(1));
        let log = open(&storage);
        let topic = create(&log, PARTITIONS, durability);
        // With segments and snapshots that are due in all of them at once.
        (0..ROUNDS).for_each(|number| write(&topic, number));
        flush(&log, topic.partitions()).expect("the disk is fine");
        let producer = log.transactional("producer").expect("nobody has it");
        producer.begin().expect("none is open");
        for partition in topic.partitions() {
            producer.append(partition, batch(ROUNDS)).expect("the disk is fine");
        }
        producer.abort().expect("the disk is fine");
        flush(&log, topic.partitions()).expect("the disk is fine");
        check_all(&topic, 0..ROUNDS);
        log.close().expect("the disk is fine");
        let topic = open(&storage).topic("t").expect("it is there");
        check_all(&topic, 0..ROUNDS);
        let (most, allowed) = (storage.observer().most(), OPEN_MAX + UNSYNCED_MAX + IN_HAND);
        assert!(most <= allowed, "{most} files were open at once under {durability:?}");
    }
}

#[test]
fn no_file_is_synced_before_its_time_where_there_is_room_for_all() {
    let storage = LimitedStorage::new(MemoryStorage::new(1));
    let log = open(&storage);
    let topic = create(&log, UNSYNCED_MAX as i32 / 2, Durability::Os);
    let before = storage.observer().syncs();
    (0..2).for_each(|number| write(&topic, number));
    assert_eq!(storage.observer().syncs(), before);
}

/// How many files are synced each time that `partitions` are written to in turn, of so many times behind the first.
fn synced_in_turn(storage: &LimitedStorage, partitions: &[Arc<Partition>], rounds: usize) -> usize {
    let write = |number| {
        for partition in partitions {
            partition.append(batch(number)).expect("the disk is fine");
        }
    };
    write(0);
    let before = storage.observer().syncs();
    (0..rounds).for_each(|number| write(number as i64));
    (storage.observer().syncs() - before) / rounds
}

#[test]
fn of_partitions_that_are_written_in_turn_not_all_are_synced_each_time_where_they_are_a_few_too_many() {
    let synced = |partitions: usize| {
        let storage = LimitedStorage::new(MemoryStorage::new(1));
        let log = open(&storage);
        let topic = create_large(&log, partitions);
        synced_in_turn(&storage, topic.partitions(), 20)
    };
    // Each of them would be if the one that is open for longest were closed every time.
    for partitions in [UNSYNCED_MAX * 7 / 8, UNSYNCED_MAX, UNSYNCED_MAX * 9 / 8] {
        let synced = synced(partitions);
        assert!(synced < partitions * 3 / 4, "{synced} of {partitions}");
    }
    let (partitions, synced) = (2 * UNSYNCED_MAX, synced(2 * UNSYNCED_MAX));
    assert!(synced < partitions * 9 / 10, "{synced} of {partitions}");
}

#[test]
fn files_of_partitions_that_nobody_writes_to_any_more_do_not_take_the_room_of_others() {
    let storage = LimitedStorage::new(MemoryStorage::new(1));
    let log = open(&storage);
    let topic = create_large(&log, 2 * UNSYNCED_MAX);
    let (idle, busy) = topic.partitions().split_at(UNSYNCED_MAX);
    synced_in_turn(&storage, idle, 1);
    let busy = &busy[..UNSYNCED_MAX / 2];
    synced_in_turn(&storage, busy, 4);
    assert_eq!(synced_in_turn(&storage, busy, 20), 0);
}

#[test]
fn what_is_acknowledged_survives_a_power_cut_though_its_file_was_closed_before() {
    let lost = |ignored: Option<SyncPurpose>| {
        let disk = MemoryStorage::new(1);
        ignored.into_iter().for_each(|purpose| disk.ignore_syncs(purpose));
        let log = open(&LimitedStorage::new(disk.mount()));
        let topic = create(&log, 4 * UNSYNCED_MAX as i32, Durability::Sync);
        write(&topic, 0);
        flush(&log, topic.partitions()).expect("the disk is fine");
        disk.crash();
        drop(log);
        let Ok(log) = Log::open("/log", options(disk.mount())) else { return true };
        let topic = log.topic("t").expect("it is there");
        topic.partitions().iter().any(|partition| numbers(partition) != [0])
    };
    assert!(!lost(None));
    assert!(lost(Some(SyncPurpose::Closing)), "files are closed that nobody else syncs");
    assert!(lost(Some(SyncPurpose::Records)));
}

#[test]
fn a_file_that_cannot_be_synced_to_be_closed_fails_its_partition_and_no_other() {
    let disk = MemoryStorage::new(1);
    let storage = LimitedStorage::new(disk.mount());
    let log = open(&storage);
    let topic = create(&log, 2 * UNSYNCED_MAX as i32, Durability::Os);
    storage.observer().fail_syncs(true);
    let mut written = 0;
    while storage.observer().syncs() == 0 || !topic.partitions()[0].is_poisoned() {
        topic.partitions()[written].append(batch(0)).expect("nothing is wrong with it");
        written += 1;
    }
    storage.observer().fail_syncs(false);
    let (failed, sound): (Vec<_>, Vec<_>) =
        topic.partitions().iter().cloned().partition(|partition| partition.is_poisoned());
    assert!(written < topic.partitions().len() && !sound.is_empty());
    for partition in &failed {
        assert_eq!(flush(&log, std::slice::from_ref(partition)).unwrap_err().kind(), ErrorKind::Poisoned);
        partition.append(batch(1)).expect_err("what is before it may not be there");
    }
    for partition in &sound {
        partition.append(batch(1)).expect("nothing is wrong with it");
    }
    assert_eq!(flush(&log, &sound).map_err(|error| error.kind()), Ok(()));
}

/// Writes `count` records, and before each of them sees to it that ever more of the files that are opened for it cannot
/// be, until it is written. Returns whether a record was refused.
fn write_with_too_few_files(
    storage: &LimitedStorage,
    log: &Log,
    partition: &Arc<Partition>,
    count: i64,
) -> bool {
    let mut is_refused = false;
    let mut try_with = |what: &dyn Fn() -> Result<()>| {
        for left in 0.. {
            assert!(left < 50, "it is refused though its files can be opened");
            storage.observer().leave(left);
            let outcome = what();
            storage.observer().leave(i64::MAX);
            match outcome {
                Ok(()) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TooManyFiles, "{error}");
                    assert!(!partition.is_poisoned());
                    is_refused = true;
                }
            }
        }
    };
    for number in 0..count {
        try_with(&|| partition.append(batch(number)).map(drop));
        try_with(&|| flush(log, std::slice::from_ref(partition)));
    }
    is_refused
}

#[test]
fn a_file_that_cannot_be_opened_refuses_what_needs_it_and_nothing_after_that() {
    const RECORDS: i64 = 30;
    for durability in DURABILITIES {
        let disk = MemoryStorage::new(1);
        let storage = LimitedStorage::new(disk.mount());
        let log = open(&storage);
        create(&log, 1, durability);
        log.close().expect("the disk is fine");
        // The first record takes the mark of the clean shutdown away, and leaves that of records that nobody syncs.
        let log = Log::open("/log", LogOptions { open_files_max: 0, ..options(storage.clone()) });
        let log = log.expect("the disk is fine");
        let partition = log.topic("t").expect("it is there").partitions()[0].clone();
        assert!(write_with_too_few_files(&storage, &log, &partition, RECORDS));
        assert_eq!(numbers(&partition), (0..RECORDS).collect::<Vec<_>>());
        disk.crash();
        drop(log);
        let log = Log::open("/log", options(disk.mount())).expect("the disk is fine");
        let topic = log.topic("t").expect("it is there");
        assert_eq!(
            numbers(&topic.partitions()[0]),
            (0..RECORDS).collect::<Vec<_>>(),
            "all of it was flushed"
        );
    }
}

#[test]
fn a_compaction_that_cannot_open_a_file_is_begun_again_by_itself() {
    const EVERY: Duration = Duration::from_secs(10);
    let (storage, clock) = (LimitedStorage::new(MemoryStorage::new(1)), ManualClock::new());
    let upkeep = UpkeepOptions { every: EVERY, ..UpkeepOptions::default() };
    let options = LogOptions { clock: clock.clone(), upkeep, open_files_max: 0, ..options(storage.clone()) };
    let log = Log::open("/log", options).expect("the disk is fine");
    let cleanup = CleanupPolicy::Compact;
    let config = TopicConfig { partitions: 1, segment_bytes: 400, cleanup, ..TopicConfig::default() };
    let topic = log.create_topic("t", config).expect("a new topic");
    let partition = &topic.partitions()[0];
    for number in 0..40 {
        let mut builder = BatchBuilder::new(Compression::None);
        builder
            .push(Timestamp(number), Some(b"key"), Some(number.to_string().as_bytes()), &[])
            .expect("it is small");
        partition.append(builder.seal()).expect("the disk is fine");
    }
    flush(&log, topic.partitions()).expect("the disk is fine");
    let look = |files: i64| {
        storage.observer().leave(files);
        clock.advance(EVERY);
        while log.step().expect("it is open") {}
        storage.observer().leave(i64::MAX);
    };
    for files in 0..8 {
        look(files);
        assert_eq!(
            numbers(partition),
            (0..40).collect::<Vec<_>>(),
            "with {files} files nothing is compacted"
        );
    }
    look(i64::MAX);
    assert!(numbers(partition).len() < 10, "{:?}", numbers(partition));
}

#[test]
fn who_cannot_open_a_file_is_told_the_bounds_that_were_too_high() {
    let storage = LimitedStorage::new(MemoryStorage::new(1));
    let log = Log::open("/log", LogOptions { open_files_max: 0, ..options(storage.clone()) });
    let log = log.expect("the disk is fine");
    let topic = create(&log, 1, Durability::Sync);
    storage.observer().leave(0);
    let error: Error = topic.partitions()[0].append(batch(0)).expect_err("its file is not open");
    let text = error.to_string();
    for part in
        ["topic t, partition 0", "open_files_max, 0,", "unsynced_files_max, 64", "Too many open files"]
    {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn many_threads_share_what_may_be_open() {
    const THREADS: usize = 4;
    const PARTITIONS: usize = 64;
    const ROUNDS: i64 = 20;
    for durability in DURABILITIES {
        let storage = LimitedStorage::new(MemoryStorage::new(1));
        let clock: Arc<dyn Clock> = SystemClock::new();
        let options = LogOptions {
            open_files_max: OPEN_MAX,
            unsynced_files_max: UNSYNCED_MAX / 2,
            drive: Drive::Thread,
            ..LogOptions::manual(storage.clone(), clock, 1)
        };
        let log = Log::open("/log", options).expect("the disk is fine");
        let topic = create(&log, PARTITIONS as i32, durability);
        let write = |_| {
            let (log, partitions) = (log.clone(), topic.partitions().to_vec());
            spawn("writer", move || {
                for number in 0..ROUNDS {
                    for partition in &partitions {
                        partition.append(batch(number)).expect("the disk is fine");
                    }
                    flush(&log, &partitions).expect("the disk is fine");
                }
            })
        };
        let threads: Vec<_> = (0..THREADS).map(write).collect();
        threads.into_iter().for_each(|thread| thread.expect("it starts").join().expect("all is fine"));
        for partition in topic.partitions() {
            assert_eq!(numbers(partition).len(), THREADS * ROUNDS as usize);
        }
        let most = storage.observer().most();
        let allowed = OPEN_MAX + UNSYNCED_MAX / 2 + (THREADS + 1) * IN_HAND;
        assert!(most <= allowed, "{most} files were open at once under {durability:?}");
    }
}
