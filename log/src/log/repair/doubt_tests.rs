//! Repairs of logs that go back to their last consistent cut when they are opened next, or may.

use std::io;
use std::path::Path;

use super::*;
use crate::log::Log;
use crate::log::cut_tests::{Fixture, Pair, begin, commit, partition, values};
use crate::partition::Durability;
use crate::storage::{Storage, SyncPurpose};

/// Cuts a topic that nobody syncs off where asked, as far as that is possible.
fn repair(fixture: &Fixture, topic: &str, truncate_at: Offset, dry_run: bool) -> Result<RepairReport> {
    let cut = Repair { topic: topic.to_owned(), partition: PartitionId(0), truncate_at, dry_run };
    Log::repair("/log", &LogOptions::manual(fixture.disk.mount(), fixture.clock.clone(), 1), &cut)
}

fn fates(report: &RepairReport) -> Vec<TransactionFate> {
    report.transactions.iter().map(|touched| touched.fate).collect()
}

/// A log with a transaction in two topics, of the value 1, that is open at the last cut and decided behind it; one of
/// the value 9 is decided before. Where `one` was synced up to then.
fn decided_behind_a_cut(fixture: &Fixture) -> (Log, Pair, Offset) {
    let log = fixture.open();
    let pair = Pair::of(&log);
    let Pair { one, other, producer } = &pair;
    begin(producer, &[one, other], 1);
    let beta = log.transactional("beta").expect("the disk is well");
    commit(&beta, &[one, other], 9).expect("nothing waits for the disk");
    fixture.cut(&log);
    let synced = one.offsets().durable;
    producer.commit(&[]).wait().expect("nothing waits for the disk");
    (log, pair, synced)
}

#[test]
fn a_repair_after_a_failed_sync_commits_nothing_that_goes_back_elsewhere() {
    let mut repaired = 0;
    for operation in 0..16 {
        let fixture = Fixture::new();
        let (log, pair, synced) = decided_behind_a_cut(&fixture);
        fixture.disk.fail_with(io::ErrorKind::Other, operation);
        drop(log.flush(&[pair.one], SyncPurpose::Records).wait());
        fixture.disk.clear_faults();
        fixture.disk.kill();
        if !fixture.disk.exists(Path::new("/log/one-0/failed-sync")).expect("it is readable") {
            continue;
        }
        let report = repair(&fixture, "one", synced, false).expect("it is sound");
        assert_eq!(fates(&report), [TransactionFate::Unmarked], "operation {operation}");
        assert_eq!(Pair::values(&fixture.open()), [[9], [9]], "operation {operation}");
        repaired += 1;
    }
    assert!(repaired > 0);
}

#[test]
fn a_repair_after_a_power_cut_commits_nothing_that_goes_back_elsewhere() {
    let mut repaired = 0;
    for seed in 0..100 {
        let fixture = Fixture::with_seed(seed);
        let (_log, _pair, synced) = decided_behind_a_cut(&fixture);
        fixture.disk.crash();
        if let Ok(report) = repair(&fixture, "one", synced, false) {
            assert_eq!(fates(&report), [TransactionFate::Unmarked], "seed {seed}");
            repaired += 1;
        }
        assert_eq!(Pair::values(&fixture.open()), [[9], [9]], "seed {seed}");
    }
    assert!(repaired > 10, "{repaired} times something was left behind the cut");
}

#[test]
fn a_marker_that_a_repair_takes_away_counts_unless_the_log_goes_back_before_it_is_opened() {
    for is_power_cut in [false, true] {
        let fixture = Fixture::new();
        let (_log, _pair, synced) = decided_behind_a_cut(&fixture);
        fixture.disk.kill();
        let report = repair(&fixture, "one", synced, false).expect("it is sound");
        assert_eq!(fates(&report), [TransactionFate::MarkedAgain(MarkerKind::Commit)]);
        if is_power_cut {
            fixture.disk.crash();
        }
        let expected = if is_power_cut { vec![9] } else { vec![1, 9] };
        assert_eq!(Pair::values(&fixture.open()), [expected.clone(), expected], "power cut: {is_power_cut}");
    }
}

#[test]
fn a_marker_below_the_recovery_point_counts_though_the_log_goes_back_and_the_table_knows_it_no_more() {
    let fixture = Fixture::new();
    let (log, Pair { one, other, producer }, synced) = decided_behind_a_cut(&fixture);
    commit(&producer, &[&other], 2).expect("nothing waits for the disk");
    fixture.cut(&log);
    commit(&producer, &[&one, &other], 3).expect("nothing waits for the disk");
    fixture.disk.crash();
    let report = repair(&fixture, "one", synced, false).expect("it is sound");
    assert_eq!(fates(&report)[0], TransactionFate::MarkedAgain(MarkerKind::Commit));
    assert_eq!(Pair::values(&fixture.open()), [vec![1, 9], vec![1, 9, 2]]);
}

#[test]
fn a_marker_that_a_repair_takes_away_counts_once_opening_the_log_has_kept_what_it_stands_on() {
    let mut went_back = 0;
    for operation in 0.. {
        let fixture = Fixture::with_seed(operation);
        let (_log, Pair { other, producer, .. }, synced) = decided_behind_a_cut(&fixture);
        // The table knows no more how the one before it was decided.
        commit(&producer, &[&other], 2).expect("nothing waits for the disk");
        fixture.disk.kill();
        repair(&fixture, "one", synced, false).expect("it is sound");
        fixture.disk.fail_after(operation);
        drop(fixture.try_open());
        let is_cut_short = fixture.disk.is_unplugged();
        fixture.disk.crash();
        fixture.disk.clear_faults();
        let found = Pair::values(&fixture.open());
        let is_back = found == [vec![9], vec![9]];
        assert!(is_back || found == [vec![1, 9], vec![1, 9, 2]], "operation {operation}: {found:?}");
        went_back += usize::from(is_back);
        if !is_cut_short {
            assert!(!is_back, "opening was done");
            let kept = operation - went_back as u64;
            assert!(went_back > 5 && kept > 5, "{went_back} went back, {kept} did not");
            break;
        }
    }
}

#[test]
fn a_marker_that_a_repair_takes_away_is_in_doubt_as_long_as_a_power_cut_may_bring_the_mark_back() {
    let mark = Path::new("/log/unsynced");
    let (mut gone, mut is_cut_short) = (0, true);
    for operation in 0.. {
        if !is_cut_short {
            break;
        }
        for (seed, repairing) in (0..4).flat_map(|seed| (0..30).map(move |repairing| (seed, repairing))) {
            let fixture = Fixture::with_seed(seed);
            let (_log, _pair, synced) = decided_behind_a_cut(&fixture);
            fixture.disk.kill();
            fixture.disk.fail_after(operation);
            drop(fixture.try_open());
            is_cut_short = fixture.disk.is_unplugged();
            fixture.disk.kill();
            fixture.disk.clear_faults();
            if fixture.disk.exists(mark).expect("it is readable") {
                break;
            }
            gone += 1;
            fixture.disk.fail_after(repairing);
            drop(repair(&fixture, "one", synced, false));
            fixture.disk.crash();
            fixture.disk.clear_faults();
            let [one, other] = Pair::values(&fixture.open());
            assert_eq!(one, other, "seed {seed}, operations {operation} and {repairing}");
        }
    }
    assert!(gone > 50, "{gone} times");
}

#[test]
fn the_torn_end_that_a_power_cut_leaves_aborts_no_transaction_whose_decision_is_kept() {
    let mut torn = 0;
    for seed in 0..200 {
        let fixture = Fixture::with_seed(seed);
        let log = fixture.open();
        let kept = partition(&log, "kept", Durability::Sync);
        let Pair { one, producer, .. } = Pair::of(&log);
        commit(&producer, &[&one, &kept], 1).expect("the disk is well");
        let end = one.offsets().durable;
        fixture.disk.crash();
        let report = repair(&fixture, "one", end, true);
        if report.is_ok_and(|report| report.damaged_bytes > 0) {
            let report = repair(&fixture, "one", end, false).expect("it is sound");
            assert_eq!(fates(&report), [TransactionFate::Unmarked], "seed {seed}");
            torn += 1;
        }
        let log = fixture.open();
        assert_eq!([values(&log, "one"), values(&log, "kept")], [[1], [1]], "seed {seed}");
    }
    assert!(torn > 5, "the marker was torn {torn} times");
}
