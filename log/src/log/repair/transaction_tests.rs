//! Logs of transactions that are cut, and what becomes of those that the cut touches.

use std::sync::Arc;

use super::tests::{
    OPERATIONS_MAX, at, batch, check_sound, directory, everything, numbers, numbers_in, open, repair,
    transactional,
};
use super::{Repair, RepairReport, TransactionFate};
use crate::batch::{Batches, MarkerKind};
use crate::error::ErrorKind;
use crate::files::{FileKind, Listing};
use crate::partition::Isolation;
use crate::record::{Offset, ProducerEpoch, ProducerId};
use crate::storage::memory::MemoryStorage;
use crate::storage::{OpenMode, Storage};
use crate::topic::TopicConfig;

/// How many transactions there are, all of one id.
pub(super) const TRANSACTIONS: i64 = 6;

/// The one that is aborted.
pub(super) const ABORTED: i64 = 4;

/// What a transaction takes in the topic: three records, its marker, and a record outside of it.
pub(super) const OFFSETS: i64 = 5;

/// What is to end an interrupted repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    RepairAgain,
    Open,
}

/// A log of transactions over two topics, of many small segments, that was closed.
pub(super) fn decided_log(seed: u64) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(seed);
    let log = open(&storage).expect("an empty disk");
    let config = TopicConfig { segment_bytes: 500, snapshot_interval_bytes: 200, ..TopicConfig::default() };
    let [topic, other] = ["t", "u"]
        .map(|name| log.create_topic(name, config.clone()).expect("a new topic").partitions()[0].clone());
    let producer = log.transactional("id").expect("nobody has it");
    for number in 0..TRANSACTIONS {
        producer.begin().expect("none is open");
        for record in 0..3 {
            producer.append(&topic, batch(10 * number + record)).expect("the disk is fine");
        }
        producer.append(&other, batch(number)).expect("the disk is fine");
        if number == ABORTED {
            producer.abort().expect("the disk is fine");
        } else {
            producer.commit(&[]).wait().expect("the disk is fine");
        }
        topic.append(batch(100 + number)).expect("the disk is fine");
    }
    log.close().expect("the disk is fine");
    storage
}

/// What readers of committed records see of so many transactions.
fn committed(transactions: i64) -> Vec<i64> {
    let numbers = |number: i64| {
        let records = if number == ABORTED { 0..0 } else { 10 * number..10 * number + 3 };
        records.chain([100 + number])
    };
    (0..transactions).flat_map(numbers).collect()
}

fn fates(report: &RepairReport) -> Vec<TransactionFate> {
    report.transactions.iter().map(|touched| touched.fate).collect()
}

/// Checks that the log is as if it had been cut at `cut`, so that `expected` is what is committed in it, or,
/// where nobody has gone on with the repair, as if nothing had happened.
fn check_outcome(storage: &Arc<MemoryStorage>, next: Next, expected: &[i64], context: &str) {
    for _ in 0..2 {
        let log = open(storage).unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = numbers(&log, Isolation::ReadCommitted);
        let is_untouched = next == Next::Open && found == committed(TRANSACTIONS);
        assert!(found == expected || is_untouched, "{context}: {found:?}");
        let partition = log.topic("t").expect("it is there").partitions()[0].clone();
        assert_eq!(partition.offsets().stable, partition.offsets().end, "{context}: all is decided");
        let others: Vec<_> = (0..TRANSACTIONS).filter(|number| *number != ABORTED).collect();
        assert_eq!(numbers_in(&log, "u", Isolation::ReadCommitted), others, "{context}");
        log.close().expect("the disk is fine");
    }
    assert!(!storage.exists(&directory().join("cut")).expect("the disk is fine"), "{context}");
    check_sound(storage);
}

/// Cuts at `cut`, cut short at each I/O operation.
fn check_power_cuts(cut: i64, next: Next, expected: &[i64]) {
    assert!((0..).any(|operations| check_power_cut(operations, cut, next, expected)));
}

/// The power fails that many operations into a repair, if it takes as many. Whether it was done before.
fn check_power_cut(operations: u64, cut: i64, next: Next, expected: &[i64]) -> bool {
    let whole = repair(&decided_log(1), &at(cut)).expect("it is sound");
    let context = format!("cut at {cut}, {next:?} after {operations} operations");
    let storage = decided_log(operations);
    storage.fail_after(operations);
    let outcome = repair(&storage, &at(cut));
    let is_done = !storage.is_unplugged();
    storage.clear_faults();
    storage.crash();
    if is_done {
        assert_eq!(outcome.expect("nothing failed"), whole);
        check_outcome(&storage, Next::RepairAgain, expected, &context);
        return true;
    }
    if next == Next::RepairAgain {
        match repair(&storage, &at(cut)) {
            // It may have needed a second folder.
            Ok(report) => assert_eq!(RepairReport { kept_in: whole.kept_in.clone(), ..report }, whole),
            // It was done but for the end: there is nothing to cut.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{context}: {error}"),
        }
    }
    check_outcome(&storage, next, expected, &context);
    false
}

/// One power cut in a repair that cuts a transaction in half, or takes its marker.
pub(crate) fn check_script(seed: u64) {
    let next = if seed.is_multiple_of(2) { Next::RepairAgain } else { Next::Open };
    let (cut, expected) = if (seed / 2).is_multiple_of(2) {
        (2 * OFFSETS + 1, committed(2))
    } else {
        (2 * OFFSETS + 3, [committed(2), vec![20, 21, 22]].concat())
    };
    check_power_cut(seed / 4 % OPERATIONS_MAX, cut, next, &expected);
}

#[test]
fn wherever_the_power_fails_a_transaction_that_is_cut_in_half_is_never_shown() {
    // Between the first and the second record of the third transaction.
    let cut = 2 * OFFSETS + 1;
    check_power_cuts(cut, Next::RepairAgain, &committed(2));
    check_power_cuts(cut, Next::Open, &committed(2));
}

#[test]
fn wherever_the_power_fails_a_transaction_that_loses_its_marker_alone_ends_as_was_decided() {
    // Before the marker of the third transaction, of whose end the table says nothing any more.
    let cut = 2 * OFFSETS + 3;
    let expected = [committed(2), vec![20, 21, 22]].concat();
    check_power_cuts(cut, Next::RepairAgain, &expected);
    check_power_cuts(cut, Next::Open, &expected);
}

#[test]
fn a_marker_that_is_cut_off_and_sound_is_written_again_whatever_it_says() {
    for (number, kind) in [(2, MarkerKind::Commit), (ABORTED, MarkerKind::Abort)] {
        let storage = decided_log(1);
        let report = repair(&storage, &at(number * OFFSETS + 3)).expect("it is sound");
        assert_eq!(fates(&report)[0], TransactionFate::MarkedAgain(kind));
        assert!(fates(&report)[1..].iter().all(|fate| *fate == TransactionFate::Lost));
        let kept = if number == ABORTED { vec![] } else { (10 * number..10 * number + 3).collect() };
        let log = open(&storage).expect("it is sound");
        assert_eq!(numbers(&log, Isolation::ReadCommitted), [committed(number), kept].concat());
    }
}

#[test]
fn nothing_is_said_of_a_marker_behind_damage_that_may_have_been_records() {
    let storage = decided_log(1);
    let base = Listing::read(&*storage, &directory()).expect("it is there").segments[0];
    let path = FileKind::Log.path(&directory(), base);
    // The second record of the first transaction; its marker is sound.
    let size = batch(0).finish().len() as u64;
    storage.corrupt(&path, size + 64, 1).expect("the byte is there");
    let report = repair(&storage, &at(1)).expect("what is before is sound");
    assert_eq!(fates(&report)[0], TransactionFate::Aborted);
    let log = open(&storage).expect("it is sound");
    assert_eq!(numbers(&log, Isolation::ReadCommitted), []);
}

#[test]
fn a_cut_that_is_under_way_is_finished_before_another_is_made_or_only_spoken_of() {
    let mut operations = 0;
    let storage = loop {
        let storage = decided_log(1);
        storage.fail_after(operations);
        let outcome = repair(&storage, &at(2 * OFFSETS + 1));
        storage.clear_faults();
        storage.crash();
        if storage.exists(&directory().join("cut")).expect("the disk is fine") {
            outcome.expect_err("it was cut short");
            break storage;
        }
        operations += 1;
    };
    let in_partition = || {
        let all = everything(&storage).into_iter();
        all.filter(|(path, _)| path.starts_with(directory())).collect::<Vec<_>>()
    };
    let before = in_partition();
    let error = repair(&storage, &Repair { dry_run: true, ..at(OFFSETS + 1) }).expect_err("one is under way");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(in_partition() == before, "nothing is changed");
    let report = repair(&storage, &at(OFFSETS + 1)).expect("it is sound");
    assert_eq!(fates(&report), [TransactionFate::Aborted, TransactionFate::Lost]);
    check_outcome(&storage, Next::RepairAgain, &committed(1), "cut twice");
}

#[test]
fn what_one_cut_has_halved_stays_so_though_a_second_one_takes_none_of_its_records() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).expect("an empty disk");
    let partition =
        log.create_topic("t", TopicConfig::default()).expect("a new topic").partitions()[0].clone();
    partition.append_to_transaction(transactional(0, 0, 0)).expect("it is acceptable");
    for number in 1..6 {
        partition.append(batch(number)).expect("the disk is fine");
    }
    partition.append_to_transaction(transactional(6, 0, 1)).expect("it is acceptable");
    let marker = partition.append_marker(MarkerKind::Commit, ProducerId(7), ProducerEpoch(0), 0);
    marker.expect("the disk is fine").expect("it is open");
    log.close().expect("the disk is fine");
    for cut in [6, 4] {
        let report = repair(&storage, &at(cut)).expect("it is sound");
        assert_eq!(fates(&report), [TransactionFate::Aborted], "cut at {cut}");
    }
    let log = open(&storage).expect("it is sound");
    assert_eq!(numbers(&log, Isolation::ReadCommitted), [1, 2, 3]);
}

#[test]
fn the_epoch_of_a_transaction_that_nobody_had_decided_and_that_is_cut_is_not_used_again() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).expect("an empty disk");
    let topic = log.create_topic("t", TopicConfig::default()).expect("a new topic");
    let producer = log.transactional("id").expect("nobody has it");
    producer.begin().expect("none is open");
    for number in 0..4 {
        producer.append(&topic.partitions()[0], batch(number)).expect("the disk is fine");
    }
    storage.kill();
    drop((producer, log));
    let report = repair(&storage, &at(2)).expect("it is sound");
    assert_eq!(fates(&report), [TransactionFate::Aborted]);
    let log = open(&storage).expect("it is sound");
    let topic = log.topic("t").expect("it is there");
    let producer = log.transactional("id").expect("nobody has it");
    producer.begin().expect("none is open");
    producer.append(&topic.partitions()[0], batch(7)).expect("it is of another transaction");
    producer.commit(&[]).wait().expect("the disk is fine");
    assert_eq!(numbers(&log, Isolation::ReadCommitted), [7]);
}

/// What a log without a coordinator holds.
#[derive(Clone, Copy)]
enum Written {
    /// A record of the transaction of this epoch.
    Record(i16),
    /// Its marker.
    Commit(i16),
    /// A record of none.
    Plain,
}

#[test]
fn a_transaction_is_not_shown_of_which_a_whole_segment_is_missing() {
    use Written::{Commit, Plain, Record};
    let alone = [vec![Record(0); 6], vec![Plain; 4], vec![Commit(0)]].concat();
    // Its own marker is missing too, and that of another of the same producer is there.
    let others = [vec![Record(0); 5], vec![Commit(0), Record(1)], vec![Plain; 4], vec![Commit(1)]].concat();
    for written in [alone, others] {
        let storage = MemoryStorage::new(1);
        let log = open(&storage).expect("an empty disk");
        let config = TopicConfig { segment_bytes: 300, ..TopicConfig::default() };
        let partition = log.create_topic("t", config).expect("a new topic").partitions()[0].clone();
        for (number, written) in (0..).zip(written) {
            match written {
                Plain => drop(partition.append(batch(number)).expect("the disk is fine")),
                Record(epoch) => {
                    let sequence = if epoch == 0 { number as i32 } else { 0 };
                    let record = transactional(number, epoch, sequence);
                    partition.append_to_transaction(record).expect("it is acceptable");
                }
                Commit(epoch) => {
                    let epoch = ProducerEpoch(epoch);
                    let marker = partition.append_marker(MarkerKind::Commit, ProducerId(7), epoch, 0);
                    marker.expect("the disk is fine").expect("it is open");
                }
            }
        }
        log.close().expect("the disk is fine");
        let segments = Listing::read(&*storage, &directory()).expect("it is there").segments;
        assert_eq!(segments[..3], [Offset(0), Offset(4), Offset(8)]);
        storage.remove_file(&FileKind::Log.path(&directory(), Offset(4))).expect("it is there");
        assert_eq!(open(&storage).expect_err("records are missing").kind(), ErrorKind::Corrupt);
        let report = repair(&storage, &at(4)).expect("what is before is sound");
        assert_eq!(fates(&report), [TransactionFate::Aborted]);
        let log = open(&storage).expect("it is sound");
        assert_eq!(numbers(&log, Isolation::ReadCommitted), []);
    }
}

#[test]
fn a_transaction_is_not_shown_of_which_the_end_is_missing_that_was_synced() {
    for kept in 1..3 {
        let storage = decided_log(1);
        let last = TRANSACTIONS - 1;
        let end = last * OFFSETS + kept;
        cut_behind(&storage, end);
        assert_eq!(open(&storage).expect_err("records are missing").kind(), ErrorKind::Corrupt);
        let report = repair(&storage, &at(end)).expect("what is before is sound");
        assert_eq!(fates(&report), [TransactionFate::Aborted], "{kept} of 3 records are there");
        let log = open(&storage).expect("it is sound");
        assert_eq!(numbers(&log, Isolation::ReadCommitted), committed(last), "{kept} of 3 records");
    }
}

/// Takes away what lies at or behind an offset, as if it had never been there.
fn cut_behind(storage: &MemoryStorage, end: i64) {
    for base in Listing::read(storage, &directory()).expect("it is there").segments {
        let path = FileKind::Log.path(&directory(), base);
        if base.0 >= end {
            storage.remove_file(&path).expect("it is there");
            continue;
        }
        let bytes = storage.contents(&path).expect("it is there");
        let headers = Batches::new(&bytes).map(|batch| batch.expect("it is sound").header().clone());
        let kept = headers.take_while(|header| header.base_offset.0 < end);
        let length = kept.map(|header| header.length as u64).sum();
        let file = storage.open(&path, OpenMode::Write).expect("it is there");
        file.truncate(length).expect("the disk is fine");
    }
}
