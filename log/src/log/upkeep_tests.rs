//! Settings that change at run time, retention, deletion of records and compaction of a whole log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::batch::Compression;
use crate::cleanup::{CleanupPolicy, CompactionConfig, Retention};
use crate::clock::ManualClock;
use crate::partition::tests::snapshots::seal_behind_a_sync;
use crate::partition::{Appended, Durability, Isolation, Partition};
use crate::producer::{Producer, ProducerOptions};
use crate::record::{Offset, PartitionId, Record, Timestamp};
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;
use crate::topic::TopicConfig;
use crate::upkeep::UpkeepOptions;

/// How often partitions are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(10);

pub(super) struct Bench {
    pub(super) storage: Arc<MemoryStorage>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) log: Log,
}

fn options(storage: &Arc<MemoryStorage>, clock: &Arc<ManualClock>) -> LogOptions {
    let upkeep = UpkeepOptions { every: EVERY, ..UpkeepOptions::default() };
    LogOptions { upkeep, ..LogOptions::manual(storage.mount(), clock.clone(), 7) }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(MemoryStorage::new(1))
    }

    pub(super) fn on(storage: Arc<MemoryStorage>) -> Self {
        let clock = ManualClock::new();
        let log = Log::open("/log", options(&storage, &clock)).expect("an empty disk");
        Self { storage, clock, log }
    }

    pub(super) fn create(&self, config: TopicConfig) -> Arc<Partition> {
        let topic = self.log.create_topic("t", TopicConfig { segment_bytes: 300, ..config });
        topic.expect("a new topic").partitions()[0].clone()
    }

    /// Writes a record for each number, durably: its key is the number modulo 4.
    pub(super) fn write(&self, numbers: std::ops::Range<i64>) {
        let producer = Producer::new(&self.log, ProducerOptions::default()).expect("it starts");
        for number in numbers {
            let key = Some((number % 4).to_string().into_bytes().into());
            let value = Some(vec![b'x'; 40].into());
            let timestamp = Some(self.log.clock().now());
            let record = Record { key, value, timestamp, headers: Vec::new() };
            producer.send("t", record).wait().expect("the disk is fine");
        }
    }

    /// Steps until there is nothing to do.
    pub(super) fn settle(&self) {
        while self.log.step().expect("it is open") {}
    }

    /// Lets time pass until partitions are looked at, and whatever follows from that be done.
    pub(super) fn wait(&self, time: Duration) {
        self.clock.advance(time.max(EVERY));
        self.settle();
        // What was sealed or flushed is seen the next time.
        self.clock.advance(EVERY);
        self.settle();
    }

    pub(super) fn crash(self) -> Self {
        self.storage.crash();
        self.reopen()
    }

    /// Opens the log again, whose process has ended.
    pub(super) fn reopen(self) -> Self {
        let Self { storage, clock, log } = self;
        drop(log);
        let log = Log::open("/log", options(&storage, &clock)).expect("what was synced is there");
        Self { storage, clock, log }
    }

    pub(super) fn partition(&self) -> Arc<Partition> {
        self.log.topic("t").expect("it is there").partitions()[0].clone()
    }
}

fn read(partition: &Partition) -> Vec<i64> {
    let mut next = partition.offsets().start;
    let mut scratch = crate::batch::DecompressionBuffer::new();
    let mut offsets = Vec::new();
    loop {
        let fetched = partition.fetch(next, 1000, Isolation::ReadUncommitted).expect("it is sound");
        if fetched.bytes.is_empty() {
            return offsets;
        }
        for batch in fetched.batches() {
            let batch = batch.expect("it is sound");
            let records = batch.records(&mut scratch).expect("it is not compressed");
            offsets.extend(records.map(|record| record.expect("it is sound").offset.0));
        }
        next = fetched.next;
    }
}

fn compacted() -> TopicConfig {
    TopicConfig { cleanup: CleanupPolicy::Compact, ..TopicConfig::default() }
}

#[test]
fn a_compacted_topic_is_compacted_in_the_background_and_stays_so_after_a_crash() {
    let bench = Bench::new();
    let partition = bench.create(compacted());
    bench.write(0..40);
    let before = read(&partition);
    bench.settle();
    assert_eq!(read(&partition), before, "nobody looks before it is time");
    bench.wait(EVERY);
    let offsets = read(&partition);
    assert!(offsets.len() < 12, "{offsets:?}");
    assert_eq!(offsets[offsets.len() - 4..], before[before.len() - 4..]);
    let bench = bench.crash();
    assert_eq!(read(&bench.partition()), offsets);
    bench.write(40..44);
    assert_eq!(bench.partition().offsets().end, Offset(44));
}

#[test]
fn what_has_waited_for_the_longest_lag_is_sealed_and_compacted_by_itself_however_little_it_is() {
    const MINUTE: Duration = Duration::from_secs(60);
    for (lag_max, is_compacted) in [(Some(10 * MINUTE), true), (Some(300 * MINUTE), true), (None, false)] {
        let bench = Bench::new();
        // Never because of its part of the bytes, once something is clean.
        let compaction = CompactionConfig { lag_max, dirty_percent_min: 99, ..CompactionConfig::default() };
        let config = TopicConfig { compaction, segment_bytes: 1 << 20, ..compacted() };
        let topic = bench.log.create_topic("t", config).expect("a new topic");
        let partition = &topic.partitions()[0];
        let lag = lag_max.unwrap_or(300 * MINUTE);
        // Each begins and ends in the active segment; the second one is the smaller part by far.
        for (written, expected) in [(0..40, vec![36, 37, 38, 39]), (40..41, vec![37, 38, 39, 40])] {
            bench.write(written);
            let before = read(partition);
            bench.wait(EVERY);
            bench.wait(lag - 2 * MINUTE);
            assert_eq!(read(partition), before, "{lag_max:?}: it has not waited for so long yet");
            bench.wait(3 * MINUTE);
            let expected = if is_compacted { expected } else { before };
            assert_eq!(read(partition), expected, "{lag_max:?}");
            assert_eq!(partition.compaction_view().sealed.is_empty(), !is_compacted);
        }
    }
}

#[test]
fn compaction_goes_no_faster_than_allowed_unless_somebody_asks_for_it() {
    let bench = Bench::new();
    drop(bench.log);
    let upkeep = UpkeepOptions { every: EVERY, compaction_bytes_per_second: 100, ..UpkeepOptions::default() };
    let options = LogOptions { upkeep, ..options(&bench.storage, &bench.clock) };
    let bench = Bench { log: Log::open("/log", options).expect("it was closed"), ..bench };
    let partition = bench.create(compacted());
    bench.write(0..100);
    let before = read(&partition);
    bench.clock.advance(EVERY);
    bench.settle();
    assert_eq!(read(&partition), before, "the keys were read, and that was enough for a while");
    let mut waited = Duration::ZERO;
    while read(&partition) == before {
        bench.clock.advance(Duration::from_secs(1));
        waited += Duration::from_secs(1);
        bench.settle();
    }
    // Some 10 kB are read, of which little is dirty by then; at 100 bytes a second.
    assert!(waited > Duration::from_secs(60), "{waited:?}");
    bench.write(100..200);
    let reports = bench.log.compact("t").expect("the log is sound");
    assert_eq!(reports.last().expect("there is one partition").clean_end, Offset(200));
    assert_eq!(read(&partition), [196, 197, 198, 199]);
}

#[test]
fn a_topic_that_is_not_compacted_cannot_be_asked_to_be() {
    let bench = Bench::new();
    bench.create(TopicConfig::default());
    assert_eq!(bench.log.compact("t").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(bench.log.compact("u").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn segments_go_when_they_are_too_old_and_the_start_outlives_a_crash() {
    let bench = Bench::new();
    let retention = Retention { time: Some(Duration::from_secs(1000)), bytes: None };
    let partition = bench.create(TopicConfig { retention, ..TopicConfig::default() });
    bench.write(0..10);
    bench.clock.advance(Duration::from_secs(600));
    bench.write(10..20);
    bench.wait(Duration::from_secs(300));
    assert_eq!(read(&partition).len(), 20);
    bench.wait(Duration::from_secs(200));
    let start = partition.offsets().start;
    assert!((8..=10).contains(&start.0), "{start}");
    assert_eq!(read(&partition), (start.0..20).collect::<Vec<_>>());
    let error = partition.fetch(Offset(0), 100, Isolation::ReadUncommitted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    let bench = bench.crash();
    assert_eq!(bench.partition().offsets().start, start);
    // In the end the active one is sealed and goes too.
    bench.wait(Duration::from_secs(2000));
    bench.wait(EVERY);
    let offsets = bench.partition().offsets();
    assert_eq!((offsets.start, offsets.end), (Offset(20), Offset(20)));
    bench.write(20..21);
    assert_eq!(read(&bench.partition()), [20]);
}

#[test]
fn segments_go_when_there_are_too_many_bytes() {
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    bench.write(0..40);
    bench.wait(EVERY);
    assert_eq!(partition.offsets().start, Offset(0), "nothing goes by default");
    bench.log.alter_topic("t", |config| config.retention.bytes = Some(1000)).expect("it can be changed");
    bench.wait(EVERY);
    let bytes: u64 = {
        let view = partition.compaction_view();
        view.sealed.iter().map(|(segment, _)| segment.bytes()).sum::<u64>() + view.active.bytes()
    };
    assert!((1000..1400).contains(&bytes), "{bytes}");
    assert!(partition.offsets().start > Offset(0));
}

#[test]
fn a_topic_that_is_compacted_and_deleted_is_both() {
    let bench = Bench::new();
    let retention = Retention { time: Some(Duration::from_secs(1000)), bytes: None };
    let cleanup = CleanupPolicy::CompactAndDelete;
    let partition = bench.create(TopicConfig { cleanup, retention, ..TopicConfig::default() });
    bench.write(0..40);
    bench.wait(EVERY);
    assert!(read(&partition).len() < 12);
    assert_eq!(partition.offsets().start, Offset(0));
    bench.wait(Duration::from_secs(2000));
    bench.wait(EVERY);
    assert_eq!(partition.offsets().start, Offset(40));
}

#[test]
fn what_somebody_has_pinned_is_not_deleted() {
    let bench = Bench::new();
    let retention = Retention { time: Some(Duration::from_secs(100)), bytes: None };
    let partition = bench.create(TopicConfig { retention, ..TopicConfig::default() });
    bench.write(0..20);
    let pin = partition.pin(Offset(7), "the restore of orders");
    bench.wait(Duration::from_secs(500));
    let start = partition.offsets().start;
    assert!(start > Offset(0) && start <= Offset(7), "{start}");
    drop(pin);
    bench.wait(EVERY);
    assert!(partition.offsets().start > Offset(7));
}

#[test]
fn deleted_records_are_gone_at_once_and_for_good() {
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    bench.write(0..20);
    let delete = |to| bench.log.delete_records("t", PartitionId(0), Offset(to));
    assert_eq!(delete(7).expect("it is there"), Offset(7));
    assert_eq!(delete(3).expect("it is gone already"), Offset(7));
    assert_eq!(delete(21).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    assert_eq!(partition.offsets().start, Offset(7));
    let fetch = |from| partition.fetch(Offset(from), 10_000, Isolation::ReadUncommitted);
    assert_eq!(fetch(6).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    assert!(!fetch(7).expect("it is there").bytes.is_empty());
    assert_eq!(
        partition.offset_for_timestamp(Timestamp(0)).expect("it is sound").map(|found| found.0),
        Some(Offset(7))
    );
    bench.settle();
    let bench = bench.crash();
    assert_eq!(bench.partition().offsets().start, Offset(7));
    assert!(!bench.storage.exists(Path::new("/log/t-0/00000000000000000000.log")).expect("the disk is fine"));
    bench.log.delete_records("t", PartitionId(0), Offset(20)).expect("it is there");
    assert_eq!(read(&bench.partition()), Vec::<i64>::new());
    let bench = bench.crash();
    let offsets = bench.partition().offsets();
    assert_eq!((offsets.start, offsets.end), (Offset(20), Offset(20)));
}

#[test]
fn the_records_of_an_open_transaction_cannot_be_deleted() {
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    bench.write(0..2);
    let producer = bench.log.transactional("a").expect("it is free");
    producer.begin().expect("none is open");
    let mut builder = crate::batch::BatchBuilder::new(crate::batch::Compression::None);
    builder.push(Timestamp(1), Some(b"k"), Some(b"v"), &[]).expect("it is small");
    producer.append(&partition, builder.seal()).expect("the disk is fine");
    bench.log.flush(std::slice::from_ref(&partition), SyncPurpose::Records).wait().expect("the disk is fine");
    let delete = |to| bench.log.delete_records("t", PartitionId(0), Offset(to));
    let error = delete(3).expect_err("it is not decided yet");
    let says = "the transaction of producer 0 of epoch 0 is open since offset 2";
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().ends_with(&format!("up to offset 2 now, not up to 3: {says}")), "{error}");
    assert_eq!(delete(2).expect("these are decided"), Offset(2));
}

#[test]
fn settings_outlive_the_log_and_what_cannot_be_changed_is_refused_by_name() {
    let bench = Bench::new();
    bench.create(compacted());
    let altered = bench.log.alter_topic("t", |config| {
        config.cleanup = CleanupPolicy::CompactAndDelete;
        config.retention = Retention { time: Some(Duration::from_secs(5)), bytes: Some(77) };
        config.segment_bytes = 5000;
        config.compaction.dirty_percent_min = 10;
    });
    let config = altered.expect("it can be changed").config().clone();
    type Change = fn(&mut TopicConfig);
    let refused: [(Change, &str); 6] = [
        (|config| config.partitions = 0, "partitions"),
        (|config| config.durability = Some(Durability::Os), "durability"),
        (|config| config.key_format = Some("json/1".to_owned()), "key format"),
        (|config| config.index_interval_bytes += 1, "intervals"),
        (|config| config.segment_bytes = 1, "segments"),
        (
            |config| config.compression = Compression::Gzip { level: 12 },
            "topic t: gzip has no level 12: 1 to 9",
        ),
    ];
    for (change, named) in refused {
        let error = bench.log.alter_topic("t", change).expect_err("it cannot be changed");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(named), "{error}");
    }
    assert_eq!(bench.log.alter_topic("u", |_| ()).unwrap_err().kind(), ErrorKind::NotFound);
    let bench = bench.crash();
    assert_eq!(*bench.log.topic("t").expect("it is there").config(), config);
    assert_eq!(bench.partition().config().segment_bytes, 5000);
}

#[test]
fn what_was_just_compacted_or_deleted_does_not_have_a_crash_read_the_whole_log() {
    let scanned = |log: &Log| {
        let reports = log.recovery_report().iter().filter(|report| report.partition.topic == "t");
        reports.map(|report| report.scanned_bytes).sum::<u64>()
    };
    let bench = Bench::new();
    bench.create(compacted());
    bench.write(0..40);
    bench.log.compact("t").expect("it is sound");
    assert_eq!(scanned(&bench.crash().log), 0, "it was compacted because somebody asked");

    let retention = Retention { bytes: Some(500), time: None };
    for config in [compacted(), TopicConfig { retention, ..TopicConfig::default() }] {
        // The last record may have begun a segment, and may not be below the recovery point.
        for count in 40..48 {
            let bench = Bench::new();
            let partition = bench.create(config.clone());
            bench.write(0..count);
            let sealed_bytes = || {
                let view = partition.compaction_view();
                view.sealed.iter().map(|(segment, _)| segment.bytes()).sum::<u64>()
            };
            let before = sealed_bytes();
            bench.wait(EVERY);
            assert!(sealed_bytes() < before);
            let active = partition.compaction_view().active.bytes();
            drop(partition);
            let scanned = scanned(&bench.crash().log);
            assert!(scanned <= active, "{scanned} bytes were read, {active} are not compacted");
        }
    }
}

#[test]
fn a_topic_that_is_deleted_while_somebody_has_it_is_in_nobodys_way() {
    for config in [
        TopicConfig { retention: Retention { bytes: Some(500), time: None }, ..TopicConfig::default() },
        compacted(),
    ] {
        let bench = Bench::new();
        let partition = bench.create(config);
        bench.write(0..10);
        bench.log.delete_topic("t").expect("it is there");
        bench.wait(EVERY);
        assert_eq!(partition.offsets().end, Offset(10));
        bench.log.close().expect("the disk is fine");
    }
}

#[test]
fn what_was_sealed_while_a_sync_had_begun_goes_though_nothing_is_appended_any_more() {
    let retention = Retention { bytes: Some(0), time: None };
    for (config, start) in [(TopicConfig { retention, ..TopicConfig::default() }, 8), (compacted(), 0)] {
        for is_asked_for in [false, true] {
            let bench = Bench::new();
            let partition = bench.create(TopicConfig { segment_bytes: 1 << 20, ..config.clone() });
            bench.log.alter_topic("t", |config| config.segment_bytes = 1 << 20).expect("it can be changed");
            bench.write(0..8);
            seal_behind_a_sync(&partition);
            if is_asked_for && start == 0 {
                bench.log.compact("t").expect("it is sound");
            } else {
                bench.wait(EVERY);
            }
            let left = if start == 0 { vec![4, 5, 6, 7] } else { vec![] };
            assert_eq!(read(&partition), left, "{is_asked_for}");
        }
    }
}

#[test]
fn a_producer_whose_records_were_just_deleted_is_known_after_a_crash() {
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    bench.log.alter_topic("t", |config| config.segment_bytes = 128).expect("it can be changed");
    let append = |partition: &Partition, id: i64| {
        let appended = partition.append(stamped(id, 0, 1)).expect("it is acceptable");
        bench
            .log
            .flush(std::slice::from_ref(&bench.partition()), SyncPurpose::Records)
            .wait()
            .expect("the disk is fine");
        appended
    };
    let written = [append(&partition, 1), append(&partition, 2)];
    // The last segment began with the last batch, which is not below the recovery point yet.
    let last = partition.compaction_view().active.base();
    assert_eq!(last, written[1].base_offset);
    bench.log.delete_records("t", PartitionId(0), last).expect("it is durable");
    drop(partition);
    let bench = bench.crash();
    for (id, written) in [(1, written[0]), (2, written[1])] {
        let repeated = bench.partition().append(stamped(id, 0, 1));
        assert_eq!(repeated.expect("it is known"), Appended { duplicate: true, ..written });
    }
}

#[test]
fn whoever_closes_the_log_writes_the_recovery_points_alone() {
    let disk = MemoryStorage::new(1);
    let storage = InterruptingStorage::new(disk.mount());
    let clock = ManualClock::new();
    let upkeep = UpkeepOptions { every: EVERY, ..UpkeepOptions::default() };
    let options = LogOptions { upkeep, ..LogOptions::manual(storage.clone(), clock.clone(), 7) };
    let log = Log::open("/log", options).expect("an empty disk");
    let bench = Bench { storage: disk, clock, log };
    let partition = bench.create(TopicConfig::default());
    bench.write(0..10);
    let (flusher, tried) = (bench.log.inner.core.flusher.clone(), Arc::new(Mutex::new(None)));
    storage.before_create("/log/recovery-point.new".into(), {
        let tried = tried.clone();
        move || *tried.lock() = Some(flusher.ensure_recorded(&*partition, Offset(100)))
    });
    bench.log.close().expect("the disk is fine");
    let refused = tried.lock().take().expect("it is written anew").expect_err("somebody else writes it");
    assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused}");
    let bench = bench.reopen();
    assert_eq!(bench.partition().offsets().end, Offset(10));
}

/// The power fails while settings are changed, which number of operations in.
pub(crate) fn check_altered(seed: u64) {
    let operation = seed % 60;
    let change = |config: &mut TopicConfig| {
        config.partitions = 3;
        config.segment_bytes = 9000;
    };
    let bench = Bench::new();
    bench.create(TopicConfig::default());
    bench.write(0..3);
    bench.storage.fail_after(operation);
    let outcome = bench.log.alter_topic("t", change);
    bench.storage.clear_faults();
    let is_done = outcome.is_ok();
    drop(outcome);
    let bench = bench.crash();
    let topic = bench.log.topic("t").expect("it is there");
    let found = (topic.partitions().len(), topic.config().segment_bytes);
    assert!(found == (3, 9000) || (found == (1, 300) && !is_done), "operation {operation}: {found:?}");
    assert_eq!(read(&topic.partitions()[0]), [0, 1, 2]);
    bench.log.alter_topic("t", change).expect("it is taken up again");
    assert_eq!(bench.log.topic("t").expect("it is there").partitions().len(), 3);
}

#[test]
fn wherever_a_crash_hits_a_change_of_settings_is_there_in_full_or_not_at_all() {
    (0..60).for_each(check_altered);
}

/// What was deleted, compacted and set survives a power cut.
pub(crate) fn check_upkeep(seed: u64) {
    match seed % 4 {
        0 => deleted_records_are_gone_at_once_and_for_good(),
        1 => segments_go_when_they_are_too_old_and_the_start_outlives_a_crash(),
        2 => a_compacted_topic_is_compacted_in_the_background_and_stays_so_after_a_crash(),
        _ => settings_outlive_the_log_and_what_cannot_be_changed_is_refused_by_name(),
    }
}

/// What nobody had synced is, before it is deleted up to an offset, or compacted because somebody asks.
pub(crate) fn check_unsynced(seed: u64) {
    let bench = Bench::on(MemoryStorage::new(seed));
    let append = |partition: &Partition, key: i64| {
        let mut builder = crate::batch::BatchBuilder::new(Compression::None);
        let key = (key % 4).to_string();
        builder.push(Timestamp(1), Some(key.as_bytes()), Some(&[b'x'; 40]), &[]).expect("it is small");
        partition.append(builder.seal()).expect("the disk is fine");
    };
    if seed.is_multiple_of(2) {
        let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
        let topic = bench.log.create_topic("t", config).expect("a new topic");
        (0..20).for_each(|key| append(&topic.partitions()[0], key));
        drop(topic);
        bench.log.delete_records("t", PartitionId(0), Offset(15)).expect("it is there");
        let offsets = bench.crash().partition().offsets();
        assert_eq!(offsets.start, Offset(15));
        assert!(offsets.end >= offsets.start, "{offsets:?}");
    } else {
        let partition = bench.create(compacted());
        (0..20).for_each(|key| append(&partition, key));
        drop(partition);
        bench.log.compact("t").expect("it is sound");
        let before = read(&bench.partition());
        assert!(!before.is_empty());
        assert_eq!(read(&bench.crash().partition()), before);
    }
}

#[test]
fn what_is_deleted_up_to_an_offset_or_compacted_on_demand_outlives_a_power_cut_though_nobody_had_synced_it() {
    (0..40).for_each(check_unsynced);
}

#[test]
fn added_partitions_are_written_and_read() {
    let bench = Bench::new();
    bench.create(TopicConfig::default());
    bench.write(0..8);
    let held = bench.log.topic("t").expect("it is there");
    bench.log.alter_topic("t", |config| config.partitions = 4).expect("it can be changed");
    assert_eq!(held.partitions().len(), 1, "who holds the topic sees it as it was");
    bench.write(8..80);
    let counts = |bench: &Bench| -> Vec<usize> {
        let topic = bench.log.topic("t").expect("it is there");
        topic.partitions().iter().map(|partition| read(partition).len()).collect()
    };
    let before = counts(&bench);
    assert_eq!(before.iter().sum::<usize>(), 80);
    assert!(before.iter().filter(|count| **count > 0).count() > 1, "{before:?}");
    let bench = bench.crash();
    assert_eq!(counts(&bench), before);
}

#[test]
fn who_reads_a_topic_that_is_deleted_is_told_so() {
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    bench.write(0..20);
    let fetched = partition.fetch(Offset(0), 500, Isolation::ReadUncommitted).expect("it is there");
    bench.log.delete_topic("t").expect("it is there");
    assert!(fetched.batches().all(|batch| batch.is_ok()), "what was fetched is held");
    for from in [Offset(0), fetched.next, Offset(20)] {
        let error = partition.fetch(from, 500, Isolation::ReadUncommitted).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("topic t, partition 0: the topic was deleted"), "{error}");
    }
    bench.wait(EVERY);
    let again = bench.log.create_topic("t", TopicConfig::default()).expect("the name is free");
    assert_eq!(read(&again.partitions()[0]), Vec::<i64>::new());
}

#[test]
fn a_reader_in_another_process_follows_settings_start_and_compaction() {
    let bench = Bench::new();
    bench.create(compacted());
    bench.write(0..40);
    let reader = Log::open_read_only("/log", options(&bench.storage, &bench.clock)).expect("it is there");
    let read_by = |reader: &Log| read(&reader.topic("t").expect("it is there").partitions()[0]);
    assert_eq!(read_by(&reader), (0..40).collect::<Vec<_>>());
    bench.wait(EVERY);
    bench.log.compact("t").expect("the log is sound");
    assert_eq!(read_by(&reader).len(), 40, "what it holds it reads");
    reader.refresh().expect("it can be read");
    assert_eq!(read_by(&reader), [36, 37, 38, 39]);
    bench.log.delete_records("t", PartitionId(0), Offset(38)).expect("it is there");
    bench.log.alter_topic("t", |config| config.partitions = 2).expect("it can be changed");
    bench.settle();
    reader.refresh().expect("it can be read");
    let topic = reader.topic("t").expect("it is there");
    assert_eq!((topic.partitions().len(), topic.partitions()[0].offsets().start), (2, Offset(38)));
    assert_eq!(read_by(&reader), [38, 39]);
}

#[test]
fn a_topic_becomes_compacted_and_a_delete_topic_again() {
    let bench = Bench::new();
    bench.create(TopicConfig::default());
    bench.write(0..40);
    bench.log.alter_topic("t", |config| config.cleanup = CleanupPolicy::Compact).expect("it can be changed");
    bench.log.compact("t").expect("the log is sound");
    bench.log.alter_topic("t", |config| config.cleanup = CleanupPolicy::Delete).expect("it can be changed");
    let bench = bench.crash();
    assert_eq!(read(&bench.partition()), [36, 37, 38, 39]);
    bench.log.close().expect("the disk is fine");
    let walks = crate::verify::walk_log(&*bench.storage, Path::new("/log"), None).expect("it can be read");
    let is_sound = |walk: &crate::verify::Walk| {
        walk.ending == crate::verify::WalkEnd::Complete && walk.indexes.is_empty()
    };
    assert!(walks.iter().all(|(_, walk)| is_sound(walk)), "{walks:?}");
}

/// A batch of one record of this producer.
fn stamped(id: i64, sequence: i32, timestamp: i64) -> crate::batch::SealedBatch {
    let mut builder = crate::batch::BatchBuilder::new(crate::batch::Compression::None);
    builder.push(Timestamp(timestamp), None, Some(b"v"), &[]).expect("it is small");
    let mut batch = builder.seal();
    batch.stamp(Some(crate::batch::ProducerStamp {
        id: crate::record::ProducerId(id),
        epoch: crate::record::ProducerEpoch(0),
        base_sequence: crate::record::Sequence(sequence),
        transactional: false,
    }));
    batch
}

#[test]
fn a_producer_that_was_idle_for_a_day_is_forgotten_and_begins_anew() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    let now = || bench.clock.now().0;
    partition.append(stamped(1, 0, now())).expect("it is new");
    bench.wait(DAY - Duration::from_secs(60));
    partition.append(stamped(2, 0, now())).expect("it is new");
    let repeated = |id, sequence| partition.append(stamped(id, sequence, now()));
    assert!(repeated(1, 0).expect("it is known").duplicate);
    assert_eq!(repeated(1, 7).expect_err("1 follows").kind(), ErrorKind::OutOfOrderSequence);
    // Kafka looks every ten minutes.
    bench.wait(Duration::from_secs(11 * 60));
    assert!(!repeated(1, 7).expect("nobody knows it any more").duplicate);
    assert!(repeated(2, 0).expect("it is known").duplicate);
}

#[test]
fn a_snapshot_is_read_without_the_producers_that_are_to_be_forgotten() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let bench = Bench::new();
    let partition = bench.create(TopicConfig::default());
    for id in [1, 2] {
        partition.append(stamped(id, 0, (id - 1) * 1000)).expect("it is new");
    }
    bench.log.close().expect("the disk is fine");
    bench.clock.advance(DAY);
    let bench = bench.crash();
    let partition = bench.partition();
    // By the time in its batch the first is a day old, and the second is a second younger.
    assert!(!partition.append(stamped(1, 0, 0)).expect("nobody knows it any more").duplicate);
    assert!(partition.append(stamped(2, 0, 0)).expect("it is known").duplicate);
}

#[test]
fn records_carry_the_time_of_the_append_for_as_long_as_the_topic_wants_that() {
    use crate::batch::{BatchBuilder, DecompressionBuffer, TimestampType};
    use crate::partition::{FoundOffset, OffsetSpec};

    let bench = Bench::new();
    let partition =
        bench.create(TopicConfig { timestamp_type: TimestampType::LogAppend, ..TopicConfig::default() });
    let producer = Producer::new(&bench.log, ProducerOptions::default()).expect("it starts");
    let send = |times: &[i64]| {
        for time in times {
            let record = Record { timestamp: Some(Timestamp(*time)), ..Record::default() };
            drop(producer.send("t", record));
        }
        producer.flush().expect("the disk is fine");
    };
    bench.clock.advance(Duration::from_secs(5));
    send(&[3, 9_000]);
    bench.clock.advance(Duration::from_secs(1));
    send(&[4]);
    let transactional = bench.log.transactional("id").expect("the id");
    transactional.begin().expect("begun");
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(Timestamp(7), None, None, &[]).expect("fits");
    transactional.append(&partition, batch.seal()).expect("appended");
    transactional.commit(&[]).wait().expect("committed");
    let altered = bench.log.alter_topic("t", |config| config.timestamp_type = TimestampType::Create);
    altered.expect("it can be changed at run time");
    send(&[5]);

    let check = |partition: &Partition| {
        let mut times = Vec::new();
        let mut scratch = DecompressionBuffer::new();
        // The last one is in a segment of its own.
        for from in [Offset(0), Offset(5)] {
            let fetched = partition.fetch(from, 1 << 20, Isolation::ReadUncommitted).expect("it is sound");
            for batch in fetched.batches() {
                let batch = batch.expect("it is sound");
                let records = batch.records(&mut scratch).expect("it is not compressed");
                let is_append = batch.header().timestamp_type == TimestampType::LogAppend;
                times.extend(records.map(|record| (record.expect("it is sound").timestamp.0, is_append)));
            }
        }
        // Every record of a batch has its largest timestamp, which is that of the append. The marker too.
        let appended = [5_000, 5_000, 6_000, 6_000, 6_000].map(|time| (time, true));
        assert_eq!(times, [&appended[..], &[(5, false)]].concat());
        let find = |spec| partition.find_offset(spec, Isolation::ReadUncommitted).expect("it is sound");
        let at =
            |offset, time| Some(FoundOffset { offset: Offset(offset), timestamp: Some(Timestamp(time)) });
        assert_eq!(find(OffsetSpec::AtOrAfter(Timestamp(4))), at(0, 5_000));
        assert_eq!(find(OffsetSpec::AtOrAfter(Timestamp(5_001))), at(2, 6_000));
        assert_eq!(find(OffsetSpec::AtOrAfter(Timestamp(6_001))), None);
        assert_eq!(find(OffsetSpec::MaxTimestamp), at(2, 6_000));
    };
    check(&partition);
    drop((producer, transactional));
    let bench = bench.crash();
    check(&bench.partition());
    assert_eq!(bench.log.topic("t").expect("it is there").config().timestamp_type, TimestampType::Create);
}
