//! Partitions that are damaged, cut, and opened again.

use std::collections::BTreeMap;
use std::io;

use super::note::{CutNote, KEPT_PREFIX};
use super::*;
use crate::batch::{BatchBuilder, Batches, Compression, DecompressionBuffer, ProducerStamp, SealedBatch};
use crate::clock::ManualClock;
use crate::files::{FileKind, Listing};
use crate::log::Log;
use crate::partition::{Durability, Isolation};
use crate::record::{Sequence, Timestamp};
use crate::storage::Storage;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::topic::TopicConfig;
use crate::verify::{WalkEnd, walk_log};

pub(in crate::log) const DIRECTORY: &str = "/log";
pub(in crate::log) const BATCHES: i64 = 40;

/// How often it is decided anew what of an operation takes effect that is cut short, and what a power cut
/// keeps.
const SEEDS: u64 = 24;

pub(in crate::log) fn options(storage: &Arc<MemoryStorage>) -> LogOptions {
    LogOptions::manual(storage.mount(), ManualClock::new(), 1)
}

pub(in crate::log) fn open(storage: &Arc<MemoryStorage>) -> Result<Log> {
    Log::open(DIRECTORY, options(storage))
}

pub(in crate::log) fn batch(number: i64) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(number), None, Some(number.to_string().as_bytes()), &[]).expect("it is small");
    builder.seal()
}

pub(super) fn transactional(number: i64, epoch: i16, sequence: i32) -> SealedBatch {
    let mut batch = batch(number);
    let (id, epoch) = (ProducerId(7), ProducerEpoch(epoch));
    batch.stamp(Some(ProducerStamp { id, epoch, base_sequence: Sequence(sequence), transactional: true }));
    batch
}

/// A log with one topic of many small segments, of one record to a batch, that was closed.
pub(super) fn closed_log() -> Arc<MemoryStorage> {
    closed_log_with(small())
}

fn small() -> TopicConfig {
    TopicConfig { segment_bytes: 500, snapshot_interval_bytes: 200, ..TopicConfig::default() }
}

/// A log with one topic of one record to a batch, that was closed.
pub(in crate::log) fn closed_log_with(config: TopicConfig) -> Arc<MemoryStorage> {
    closed_log_on(MemoryStorage::new(1), config)
}

/// The same on an empty disk.
fn closed_log_on(storage: Arc<MemoryStorage>, config: TopicConfig) -> Arc<MemoryStorage> {
    let log = open(&storage).expect("an empty disk");
    let topic = log.create_topic("t", config).expect("a new topic");
    for number in 0..BATCHES {
        topic.partitions()[0].append(batch(number)).expect("the disk is fine");
    }
    log.close().expect("the disk is fine");
    storage
}

pub(in crate::log) fn segments(storage: &MemoryStorage) -> Vec<Offset> {
    Listing::read(storage, &directory()).expect("it is there").segments
}

pub(in crate::log) fn directory() -> PathBuf {
    Path::new(DIRECTORY).join("t-0")
}

/// Flips a byte of the batch that holds the record of this offset.
fn damage(storage: &MemoryStorage, offset: i64) {
    let base = segments(storage).into_iter().rfind(|base| base.0 <= offset).expect("one holds it");
    let path = FileKind::Log.path(&directory(), base);
    let bytes = storage.contents(&path).expect("it is there");
    let mut position = 0;
    for batch in Batches::new(&bytes) {
        let header = batch.expect("it is sound so far").header().clone();
        if header.base_offset.0 == offset {
            break;
        }
        position += header.length as u64;
    }
    storage.corrupt(&path, position + 64, 1).expect("the byte is there");
}

pub(in crate::log) fn at(truncate_at: i64) -> Repair {
    Repair {
        topic: "t".to_owned(),
        partition: PartitionId(0),
        truncate_at: Offset(truncate_at),
        dry_run: false,
    }
}

pub(in crate::log) fn repair(storage: &Arc<MemoryStorage>, repair: &Repair) -> Result<RepairReport> {
    Log::repair(DIRECTORY, &options(storage), repair)
}

pub(in crate::log) fn numbers(log: &Log, isolation: Isolation) -> Vec<i64> {
    numbers_in(log, "t", isolation)
}

pub(in crate::log) fn numbers_in(log: &Log, topic: &str, isolation: Isolation) -> Vec<i64> {
    let partition = log.topic(topic).expect("it is there").partitions()[0].clone();
    let mut scratch = DecompressionBuffer::new();
    let (mut numbers, mut next) = (Vec::new(), partition.offsets().start);
    loop {
        let fetched = partition.fetch(next, 1000, isolation).expect("it is sound");
        if fetched.bytes.is_empty() {
            return numbers;
        }
        for batch in fetched.committed() {
            for record in batch.expect("it is sound").records(&mut scratch).expect("it is not compressed") {
                let value = record.expect("it is sound").value.expect("it has one");
                numbers.push(std::str::from_utf8(value).expect("text").parse().expect("a number"));
            }
        }
        next = fetched.next;
    }
}

/// Everything in the log's directory.
pub(in crate::log) fn everything(storage: &MemoryStorage) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from(DIRECTORY)];
    while let Some(folder) = folders.pop() {
        for entry in storage.list(&folder).expect("it is there") {
            let path = folder.join(&entry.name);
            if entry.is_directory {
                folders.push(path);
            } else {
                found.insert(path.clone(), storage.contents(&path).expect("it is listed"));
            }
        }
    }
    found
}

/// The bytes of all logs in a folder, in the order of their names.
fn logs(storage: &MemoryStorage, folder: &Path) -> Vec<u8> {
    let names = storage.list(folder).expect("it is there").into_iter().map(|entry| entry.name);
    let logs = names.filter(|name| name.ends_with(".log"));
    logs.flat_map(|name| storage.contents(&folder.join(name)).expect("it is listed")).collect()
}

pub(super) fn check_sound(storage: &Arc<MemoryStorage>) {
    for (partition, walk) in walk_log(&*storage.mount(), Path::new(DIRECTORY), None).expect("it can be read")
    {
        assert_eq!((walk.ending, walk.indexes), (WalkEnd::Complete, Vec::new()), "{partition}");
    }
}

#[test]
fn a_partition_that_does_not_open_is_cut_where_the_damage_is_and_all_that_is_cut_is_kept() {
    for damaged in [0, 1, 11, 20, BATCHES - 1] {
        let storage = closed_log();
        damage(&storage, damaged);
        // As after a crash, all of it is below the recovery point.
        storage.remove_file(&Path::new(DIRECTORY).join("clean-shutdown")).expect("it was closed");
        let before = logs(&storage, &directory());
        let report = repair(&storage, &at(damaged)).expect("what is before is sound");
        assert_eq!(report.cut_at, Offset(damaged));
        let lost = (BATCHES - damaged) as u64;
        let size = before.len() as u64;
        assert_eq!((report.batches, report.records), (lost - 1, lost - 1), "one of them is damaged");
        let one = report.damaged_bytes;
        assert!(one > 60 && one < 100, "{one} bytes are those of one batch");
        let kept_in = report.kept_in.expect("something was cut off");
        let kept = logs(&storage, &kept_in);
        assert_eq!(kept.len() as u64, report.bytes);
        let stays = (size - report.bytes) as usize;
        assert_eq!(kept, before[stays..], "what is kept is what was cut off");
        check_sound(&storage);
        let log = open(&storage).expect("it is sound");
        assert_eq!(numbers(&log, Isolation::ReadUncommitted), (0..damaged).collect::<Vec<_>>());
        let partition = log.topic("t").expect("it is there").partitions()[0].clone();
        partition.append(batch(100)).expect("it goes on where it was cut");
        log.close().expect("the disk is fine");
        let log = open(&storage).expect("it is sound");
        assert_eq!(numbers(&log, Isolation::ReadUncommitted).len() as i64, damaged + 1);
        assert_eq!(logs(&storage, &kept_in), kept, "what is kept stays");
    }
}

#[test]
fn what_is_kept_of_a_log_that_nobody_has_synced_is_there_after_a_power_cut() {
    for seed in 0..SEEDS {
        let storage = MemoryStorage::new(seed);
        let log = open(&storage).expect("an empty disk");
        let config = TopicConfig { durability: Some(Durability::Os), ..small() };
        let topic = log.create_topic("t", config).expect("a new topic");
        storage.set_sync_mode(SyncMode::Delayed);
        for number in 0..BATCHES {
            topic.partitions()[0].append(batch(number)).expect("nothing waits for the disk");
        }
        storage.kill();
        storage.set_sync_mode(SyncMode::Immediate);
        let before = logs(&storage, &directory());
        let report = repair(&storage, &at(20)).expect("it is sound");
        storage.crash();
        let kept = logs(&storage, &report.kept_in.expect("something was cut off"));
        assert_eq!(kept, before[before.len() - report.bytes as usize..], "seed {seed}");
        let stays = numbers(&open(&storage).expect("it is sound"), Isolation::ReadUncommitted);
        assert_eq!(stays, (0..20).take(stays.len()).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let storage = closed_log();
    damage(&storage, 11);
    let before = everything(&storage);
    let said = repair(&storage, &Repair { dry_run: true, ..at(11) }).expect("what is before is sound");
    assert_eq!(everything(&storage), before);
    let done = repair(&storage, &at(11)).expect("what is before is sound");
    assert_eq!(RepairReport { kept_in: None, ..done }, said);
}

#[test]
fn a_second_cut_overwrites_nothing_of_what_the_first_has_kept() {
    let storage = closed_log();
    let first = repair(&storage, &at(20)).expect("it is sound");
    let kept_in = first.kept_in.expect("something was cut off");
    let kept = logs(&storage, &kept_in);
    let log = open(&storage).expect("it is sound");
    log.topic("t").expect("it is there").partitions()[0].append(batch(100)).expect("the disk is fine");
    log.close().expect("the disk is fine");
    let second = repair(&storage, &at(20)).expect("it is sound");
    assert_ne!(second.kept_in.expect("something was cut off"), kept_in);
    assert_eq!(logs(&storage, &kept_in), kept);
}

#[test]
fn damage_before_the_cut_is_named_and_nothing_is_changed() {
    let storage = closed_log();
    damage(&storage, 5);
    let before = everything(&storage);
    let error = repair(&storage, &at(20)).expect_err("a batch before it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains("offset 5: ") && error.to_string().contains("cut at offset 5"),
        "{error}"
    );
    for (offset, kind) in [(BATCHES, ErrorKind::Corrupt), (BATCHES + 1, ErrorKind::Corrupt)] {
        assert_eq!(repair(&storage, &at(offset)).expect_err("it is damaged").kind(), kind);
    }
    assert_eq!(everything(&storage), before);
}

#[test]
fn an_offset_outside_of_the_partition_is_refused() {
    let storage = closed_log();
    for offset in [-1, BATCHES, BATCHES + 1] {
        assert_eq!(repair(&storage, &at(offset)).expect_err("nothing is there").kind(), ErrorKind::Invalid);
    }
    let elsewhere =
        [Repair { topic: "u".to_owned(), ..at(1) }, Repair { partition: PartitionId(1), ..at(1) }];
    for elsewhere in elsewhere {
        assert_eq!(repair(&storage, &elsewhere).expect_err("it is not there").kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_log_that_is_open_is_not_repaired() {
    let storage = closed_log();
    let _log = open(&storage).expect("it is sound");
    assert_eq!(repair(&storage, &at(20)).expect_err("it is open").kind(), ErrorKind::Locked);
}

#[test]
fn a_missing_segment_is_cut_before_and_what_is_behind_it_is_kept() {
    let storage = closed_log();
    let segments = segments(&storage);
    storage.remove_file(&FileKind::Log.path(&directory(), segments[2])).expect("it is there");
    let report = repair(&storage, &at(segments[2].0)).expect("what is before is sound");
    assert_eq!((report.cut_at, report.segments), (segments[2], segments.len() - 3));
    assert_eq!(report.records as i64, BATCHES - segments[3].0);
    check_sound(&storage);
    let log = open(&storage).expect("it is sound");
    assert_eq!(numbers(&log, Isolation::ReadUncommitted), (0..segments[2].0).collect::<Vec<_>>());
}

#[test]
fn a_log_without_its_first_segment_begins_anew() {
    let storage = closed_log();
    storage.remove_file(&FileKind::Log.path(&directory(), Offset(0))).expect("it is there");
    assert_eq!(open(&storage).expect_err("records are missing").kind(), ErrorKind::Corrupt);
    assert_eq!(repair(&storage, &at(20)).expect_err("records are missing").kind(), ErrorKind::Corrupt);
    repair(&storage, &at(0)).expect("nothing is before it");
    check_sound(&storage);
    let log = open(&storage).expect("it is sound");
    assert!(numbers(&log, Isolation::ReadUncommitted).is_empty());
}

/// Appends to a topic transactions of one record, of three, and an open one; returns the offsets at which
/// each begins, and the end.
fn log_with_transactions() -> (Arc<MemoryStorage>, Vec<i64>) {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).expect("an empty disk");
    let topic = log.create_topic("t", TopicConfig::default()).expect("a new topic");
    let partition = &topic.partitions()[0];
    let mut begins = Vec::new();
    for (epoch, records) in [(0, 1), (1, 3), (2, 2)] {
        begins.push(partition.offsets().end.0);
        for sequence in 0..records {
            let number = i64::from(epoch) * 10 + i64::from(sequence);
            partition
                .append_to_transaction(transactional(number, epoch, sequence))
                .expect("it is acceptable");
        }
        let marker = partition.append_marker(MarkerKind::Commit, ProducerId(7), ProducerEpoch(epoch), 0);
        marker.expect("the disk is fine").expect("it was open");
    }
    begins.push(partition.offsets().end.0);
    log.close().expect("the disk is fine");
    (storage, begins)
}

#[test]
fn half_of_a_transaction_is_never_shown_though_it_was_committed() {
    let (storage, begins) = log_with_transactions();
    // Between the second and the third record of the second transaction.
    let report = repair(&storage, &at(begins[1] + 2)).expect("it is sound");
    let touched = |epoch, fate| TouchedTransaction {
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(epoch),
        fate,
    };
    assert_eq!(
        report.transactions,
        [touched(1, TransactionFate::Aborted), touched(2, TransactionFate::Lost)]
    );
    check_sound(&storage);
    let log = open(&storage).expect("it is sound");
    assert_eq!(numbers(&log, Isolation::ReadCommitted), [0]);
    let offsets = log.topic("t").expect("it is there").partitions()[0].offsets();
    assert_eq!((offsets.stable, offsets.end), (Offset(begins[1] + 3), Offset(begins[1] + 3)));
}

#[test]
fn a_transaction_that_was_open_and_lost_nothing_is_left_to_the_next_opening() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).expect("an empty disk");
    let topic = log.create_topic("t", TopicConfig::default()).expect("a new topic");
    topic.partitions()[0].append_to_transaction(transactional(0, 0, 0)).expect("it is acceptable");
    for number in 1..4 {
        topic.partitions()[0].append(batch(number)).expect("the disk is fine");
    }
    log.close().expect("the disk is fine");
    let report = repair(&storage, &at(2)).expect("it is sound");
    assert_eq!(report.transactions[0].fate, TransactionFate::Unmarked);
    let log = open(&storage).expect("it is sound");
    // Nobody has decided about it: it was written without a coordinator.
    assert_eq!(numbers(&log, Isolation::ReadCommitted), [1]);
}

#[test]
fn wherever_the_power_fails_the_same_repair_can_be_made_again_and_nothing_is_lost() {
    for operations in 0.. {
        let done = (0..SEEDS).map(|seed| check_cut_short(operations, operations * SEEDS + seed));
        if done.filter(|is_done| *is_done).count() as u64 == SEEDS {
            assert!(operations < OPERATIONS_MAX, "{operations} operations");
            return;
        }
    }
}

/// No repair here takes as many operations.
pub(super) const OPERATIONS_MAX: u64 = 120;

/// One power cut in a repair.
pub(crate) fn check_script(seed: u64) {
    check_cut_short(seed % OPERATIONS_MAX, seed);
}

/// A log that nobody had synced is repaired, once or again after a kill: what is cut off outlives a power cut that
/// follows.
pub(crate) fn check_unsynced(seed: u64) {
    let storage = MemoryStorage::new(seed);
    let log = open(&storage).expect("an empty disk");
    let config = TopicConfig { segment_bytes: 500, snapshot_interval_bytes: 200, ..TopicConfig::default() };
    let topic = log.create_topic("t", config).expect("a new topic");
    for number in 0..BATCHES {
        topic.partitions()[0].append(batch(number)).expect("the disk is fine");
    }
    storage.kill();
    drop((log, topic));
    let bases = segments(&storage);
    let contents = |path: &Path| storage.contents(path);
    let cut_off = bases[3..].iter().map(|base| (*base, contents(&FileKind::Log.path(&directory(), *base))));
    let cut_off: Vec<_> = cut_off.map(|(base, bytes)| (base, bytes.expect("it is there"))).collect();
    // Between two segments, or in one.
    let cut = bases[3].0 - (seed % 2) as i64;
    if seed.is_multiple_of(3) {
        storage.fail_after(seed / 6 % OPERATIONS_MAX);
        let outcome = repair(&storage, &at(cut));
        assert_eq!(outcome.is_err(), storage.is_unplugged(), "{outcome:?}");
        storage.clear_faults();
        storage.kill();
    }
    if let Err(error) = repair(&storage, &at(cut)) {
        // It was done but for the end: there is nothing to cut.
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    storage.crash();
    let log = open(&storage).expect("what is torn was not synced");
    let left = numbers(&log, Isolation::ReadUncommitted);
    assert!(left.len() as i64 <= cut && left.iter().copied().eq(0..left.len() as i64), "{left:?}");
    check_kept(&storage, &cut_off, &format!("seed {seed}"));
}

/// The power fails in a repair that cuts between two segments: it can be made again.
pub(crate) fn check_between(seed: u64) {
    let storage = closed_log_on(MemoryStorage::new(seed), small());
    let bases = segments(&storage);
    let cut = bases[3].0;
    let contents = |base: Offset| storage.contents(&FileKind::Log.path(&directory(), base));
    let cut_off = bases[3..].iter().map(|base| (*base, contents(*base).expect("it is there")));
    let cut_off: Vec<_> = cut_off.collect();
    storage.fail_after(seed % OPERATIONS_MAX);
    let outcome = repair(&storage, &at(cut));
    assert_eq!(outcome.is_err(), storage.is_unplugged(), "{outcome:?}");
    storage.clear_faults();
    storage.crash();
    if let Err(error) = repair(&storage, &at(cut)) {
        // It was done but for the end: there is nothing to cut.
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}, seed {seed}");
    }
    check_sound(&storage);
    let log = open(&storage).expect("it is sound");
    assert_eq!(numbers(&log, Isolation::ReadUncommitted), (0..cut).collect::<Vec<_>>(), "seed {seed}");
    drop(log);
    check_kept(&storage, &cut_off, &format!("seed {seed}"));
}

/// What was cut off is kept: the bytes from these offsets on.
fn check_kept(storage: &MemoryStorage, cut_off: &[(Offset, Vec<u8>)], case: &str) {
    let folders = storage.list(&directory()).expect("it is there").into_iter();
    let folders = folders.filter(|entry| entry.name.starts_with(KEPT_PREFIX));
    let folders: Vec<_> = folders.map(|entry| directory().join(entry.name)).collect();
    for (offset, bytes) in cut_off {
        let is_it = |folder: &PathBuf| {
            storage.contents(&FileKind::Log.path(folder, *offset)).is_ok_and(|kept| kept == *bytes)
        };
        assert!(folders.iter().any(is_it), "after {case}, what was behind offset {offset} is lost");
    }
}

#[test]
fn wherever_the_power_fails_a_cut_between_two_segments_can_be_made_again() {
    (0..OPERATIONS_MAX).for_each(check_between);
}

#[test]
fn what_is_cut_off_outlives_a_power_cut_though_nobody_had_synced_it() {
    (0..120).for_each(check_unsynced);
}

/// Makes a repair that the power cuts short at an operation, what of it then takes effect and is kept being
/// up to the seed, and makes it again. Whether all was done before.
fn check_cut_short(operations: u64, seed: u64) -> bool {
    let case = format!("{operations} operations, seed {seed}");
    let storage = closed_log_on(MemoryStorage::new(seed), small());
    damage(&storage, 11);
    let contents =
        |base: Offset| storage.contents(&FileKind::Log.path(&directory(), base)).expect("it is there");
    let bases = segments(&storage);
    let first = bases.iter().rposition(|base| base.0 <= 11).expect("one holds it");
    let mut cut_off: Vec<_> = bases[first + 1..].iter().map(|base| (*base, contents(*base))).collect();
    let file = contents(bases[first]);
    let before_cut = Batches::new(&file).take((11 - bases[first].0) as usize);
    let position: usize = before_cut.map(|batch| batch.expect("it is sound").header().length).sum();
    cut_off.push((Offset(11), file[position..].to_vec()));
    storage.fail_after(operations);
    let outcome = repair(&storage, &at(11));
    let is_done = !storage.is_unplugged();
    storage.clear_faults();
    storage.crash();
    let marks = Marks::read_in(&*storage, &directory()).expect("they are whole");
    let site = site(Path::new(DIRECTORY), &options(&storage), &at(11)).expect("it is there");
    let note = CutNote::read(&site).expect("it is whole");
    if marks.cuts.is_some() && marks.being_cut.is_none() || note.is_some_and(|note| note.stage == Stage::Cut)
    {
        assert_eq!(segments(&storage), bases[..=first], "after {case}");
        assert_eq!(contents(bases[first]), file[..position], "after {case}");
    }
    if !is_done && let Err(error) = repair(&storage, &at(11)) {
        // It was done but for the end: there is nothing to cut.
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}, after {case}");
    }
    check_sound(&storage);
    let log = open(&storage).expect("it is sound");
    assert_eq!(numbers(&log, Isolation::ReadUncommitted), (0..11).collect::<Vec<_>>(), "after {case}");
    let cuts = log.inner.cuts().expect("they can be read").into_iter().filter_map(|partition| partition.cuts);
    assert_eq!(cuts.map(|cuts| cuts.count).collect::<Vec<_>>(), [1], "after {case}");
    drop(log);
    check_kept(&storage, &cut_off, &case);
    if is_done {
        outcome.expect("nothing failed");
    }
    is_done
}

#[test]
fn a_repair_that_fails_while_it_copies_leaves_no_copy_in_part() {
    let copies = |storage: &MemoryStorage| {
        let names = storage.list(&directory()).expect("it is there").into_iter().map(|entry| entry.name);
        let folders = names.filter(|name| name.starts_with(KEPT_PREFIX));
        folders.map(|name| logs(storage, &directory().join(name))).collect::<Vec<_>>()
    };
    let whole = {
        let storage = closed_log_with(TopicConfig::default());
        repair(&storage, &at(11)).expect("it is sound");
        copies(&storage)
    };
    let (mut without, mut is_done) = (0, false);
    for operations in 0.. {
        if is_done {
            break;
        }
        let storage = closed_log_with(TopicConfig::default());
        storage.fail_with(io::ErrorKind::StorageFull, operations);
        is_done = repair(&storage, &at(11)).is_ok();
        let copies = copies(&storage);
        without += usize::from(copies.is_empty());
        assert!(copies.is_empty() || copies == whole, "after {operations} operations");
    }
    assert!(without > 10, "{without} times there was none");
}

/// A log that was closed and of which the records before `start` are deleted, but still in the files.
fn closed_log_from(start: i64, config: TopicConfig) -> Arc<MemoryStorage> {
    let storage = closed_log_with(config);
    let log = open(&storage).expect("it is sound");
    log.delete_records("t", PartitionId(0), Offset(start)).expect("they are durable");
    log.close().expect("the disk is fine");
    storage
}

/// Checks that a log which does not open does once it is cut at `cut`, and that it begins and ends there.
fn check_begins_anew(storage: &Arc<MemoryStorage>, cut: i64) {
    let error = open(storage).expect_err("something is missing");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(repair(storage, &at(cut)).expect("what is before is sound").cut_at, Offset(cut));
    let log = open(storage).expect("it is sound");
    let partition = log.topic("t").expect("it is there").partitions()[0].clone();
    assert_eq!((partition.offsets().start, partition.offsets().end), (Offset(cut), Offset(cut)));
    assert!(numbers(&log, Isolation::ReadUncommitted).is_empty());
    partition.append(batch(100)).expect("it goes on where it was cut");
    log.close().expect("the disk is fine");
    assert_eq!(numbers(&open(storage).expect("it is sound"), Isolation::ReadUncommitted), [100]);
}

#[test]
fn damage_among_deleted_records_is_cut_off_with_what_follows() {
    let storage = closed_log_from(20, TopicConfig::default());
    damage(&storage, 15);
    storage.remove_file(&Path::new(DIRECTORY).join("clean-shutdown")).expect("it was closed");
    // All of it has to be read.
    let names = storage.list(&directory()).expect("it is there").into_iter().map(|entry| entry.name);
    for snapshot in names.filter(|name| name.ends_with(".snapshot")) {
        storage.remove_file(&directory().join(snapshot)).expect("it is listed");
    }
    let error = repair(&storage, &at(20)).expect_err("what is before is damaged");
    assert!(error.to_string().contains("cut at offset 15"), "{error}");
    check_begins_anew(&storage, 15);
}

#[test]
fn a_log_whose_last_segments_are_missing_is_cut_though_it_began_behind_those_that_are_there() {
    let small = TopicConfig { segment_bytes: 500, ..TopicConfig::default() };
    for missing in 1.. {
        let storage = closed_log_from(BATCHES, small.clone());
        let segments = segments(&storage);
        let (kept, gone) = segments.split_at(segments.len() - missing);
        for base in gone {
            storage.remove_file(&FileKind::Log.path(&directory(), *base)).expect("it is listed");
        }
        // With nothing left, it begins where it began.
        check_begins_anew(&storage, if kept.is_empty() { BATCHES } else { gone[0].0 });
        if kept.is_empty() {
            break;
        }
    }
}
