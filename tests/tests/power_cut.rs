//! The power fails at every storage operation of a processor's life; and each sync is there for a reason.
//!
//! A life that failed is lived again with `live(&Life::new(seed).with(&[..]))`.

use std::time::Duration;

use lotic_log::batch::{BatchBuilder, Compression};
use lotic_log::storage::SyncPurpose;
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::{Durability, Log, LogOptions, ManualClock, Timestamp, TopicConfig};
use lotic_tests::simulator::life::{Blow, Life, live};

/// How many tests share the places at which the power fails.
const SHARES: u64 = 4;

/// Lives a life that must go well. How many storage operations it took.
fn check(life: &Life) -> u64 {
    match live(life) {
        Ok(lived) => lived.operations,
        Err(promise) => panic!("{promise}\n{life:?}"),
    }
}

#[test]
fn without_a_power_cut_the_committed_output_is_that_of_the_input() {
    for seed in 0..20 {
        check(&Life::new(seed));
    }
}

/// The power fails at each operation of one life, in shares that run side by side.
fn cut_everywhere(seed: u64, share: u64) {
    let life = Life::new(seed);
    let operations = check(&life);
    for operation in (share..operations).step_by(SHARES as usize) {
        check(&life.clone().with(&[Blow::PowerCut(operation)]));
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_and_doubles_nothing_first_share() {
    cut_everywhere(1, 0);
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_and_doubles_nothing_second_share() {
    cut_everywhere(1, 1);
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_and_doubles_nothing_third_share() {
    cut_everywhere(1, 2);
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_and_doubles_nothing_fourth_share() {
    cut_everywhere(1, 3);
}

/// Places that cover a life thinly, and differ from seed to seed.
fn places(seed: u64, operations: u64, step: u64) -> impl Iterator<Item = u64> {
    (seed % step..operations).step_by(step as usize)
}

#[test]
fn a_power_cut_while_it_recovers_from_another_does_no_harm() {
    for seed in 2..6 {
        let life = Life::new(seed);
        let operations = check(&life);
        for (number, first) in places(seed, operations, 29).enumerate() {
            let second = number as u64 * 7 % 60;
            let cuts = [first, second, second / 2].map(Blow::PowerCut);
            check(&life.clone().with(&cuts));
        }
    }
}

#[test]
fn a_kill_and_then_a_power_cut_does_no_harm() {
    for seed in 6..9 {
        let life = Life::new(seed);
        let operations = check(&life);
        for (number, first) in places(seed, operations, 31).enumerate() {
            let second = number as u64 * 13 % 150;
            check(&life.clone().with(&[Blow::Kill(first), Blow::PowerCut(second)]));
        }
    }
}

/// Lives a life that must go well. How many partitions were taken back to a consistent cut.
fn taken_back(life: &Life) -> usize {
    match live(life) {
        Ok(lived) => lived.taken_back,
        Err(promise) => panic!("{promise}\n{life:?}"),
    }
}

/// What is synced now and then only may be lost. It is lost in all partitions alike: the committed output is that of
/// the input that is left, and what is lost comes once more at most.
fn cut_what_is_not_synced(durability: Durability) {
    let mut times = 0;
    for seed in 9..13 {
        let life = Life::new(seed).lasting(durability);
        let operations = check(&life);
        for (number, first) in places(seed, operations, 31).enumerate() {
            let second = number as u64 * 7 % 90;
            times += taken_back(&life.clone().with(&[Blow::PowerCut(first)]));
            times += taken_back(&life.clone().with(&[Blow::PowerCut(first), Blow::PowerCut(second)]));
            times += taken_back(&life.clone().with(&[Blow::Kill(first), Blow::PowerCut(second * 3)]));
        }
    }
    assert!(times > 20, "partitions were taken back {times} times");
}

#[test]
fn a_power_cut_takes_what_was_never_synced_back_to_one_moment() {
    cut_what_is_not_synced(Durability::Os);
}

#[test]
fn a_power_cut_takes_what_is_synced_now_and_then_back_to_one_moment() {
    cut_what_is_not_synced(Durability::Interval(Duration::from_millis(4)));
}

#[test]
fn a_kill_takes_nothing_though_nothing_was_synced() {
    for seed in 13..16 {
        let life = Life::new(seed).lasting(Durability::Os);
        let operations = check(&life);
        for (number, first) in places(seed, operations, 23).enumerate() {
            let kills = [first, number as u64 * 11 % 90].map(Blow::Kill);
            assert_eq!(taken_back(&life.clone().with(&kills)), 0);
        }
    }
}

/// Whether some life without the syncs for `purpose` breaks a promise, where the same life with them
/// keeps all. `blows` makes the blows of a life from a place in it and a number.
fn is_missed(purpose: SyncPurpose, blows: impl Fn(u64, u64) -> Vec<Blow>) -> bool {
    (1..40).any(|seed| {
        let life = Life::new(seed);
        let operations = check(&life);
        places(seed, operations, 7).enumerate().any(|(number, place)| {
            let life = life.clone().with(&blows(place, number as u64));
            let broken = live(&life.clone().without_sync(purpose)).is_err();
            if broken {
                check(&life);
            }
            broken
        })
    })
}

/// The power fails, and a little later again.
fn power_cuts(place: u64, number: u64) -> Vec<Blow> {
    vec![Blow::PowerCut(place), Blow::PowerCut(number * 11 % 80)]
}

/// The process is killed; the next one works on what was in the page cache, and then the power fails.
fn kill_and_power_cut(place: u64, number: u64) -> Vec<Blow> {
    vec![Blow::Kill(place), Blow::PowerCut(number * 13 % 500)]
}

#[test]
fn records_must_be_synced_before_a_transaction_is_decided() {
    assert!(is_missed(SyncPurpose::Records, power_cuts));
}

#[test]
fn consumed_source_records_must_be_synced_before_a_transaction_is_decided() {
    assert!(is_missed(SyncPurpose::Consumed, power_cuts));
}

#[test]
fn a_decision_must_be_synced_before_it_is_acted_on() {
    assert!(is_missed(SyncPurpose::Decision, power_cuts));
}

#[test]
fn markers_must_be_synced_before_a_transaction_is_complete() {
    assert!(is_missed(SyncPurpose::Markers, power_cuts));
}

#[test]
fn what_recovery_keeps_must_be_synced_before_it_is_read() {
    assert!(is_missed(SyncPurpose::Recovered, kill_and_power_cut));
}

#[test]
fn names_must_be_synced_with_their_directory() {
    assert!(is_missed(SyncPurpose::Directory, power_cuts));
}

#[test]
fn the_catalogue_must_be_synced() {
    assert!(is_missed(SyncPurpose::Catalogue, power_cuts));
}

#[test]
fn recovery_points_must_be_synced() {
    assert!(is_missed(SyncPurpose::RecoveryPointFile, power_cuts));
}

/// How many bytes of a log are read again when it is opened after it was closed and the power failed.
fn bytes_read_after_closing(seed: u64, ignored: Option<SyncPurpose>) -> u64 {
    let storage = MemoryStorage::new(seed);
    if let Some(purpose) = ignored {
        storage.ignore_syncs(purpose);
    }
    let open = || {
        let options = LogOptions::manual(storage.clone(), ManualClock::new(), seed);
        Log::open("/data", options).expect("the log opens")
    };
    let log = open();
    let config = TopicConfig { snapshot_interval_bytes: 250, ..TopicConfig::default() };
    let orders = log.create_topic("orders", config).expect("made");
    for _ in 0..20 {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(Timestamp(0), None, Some(b"a short record"), &[]).expect("it fits");
        orders.partitions()[0].append(batch.seal()).expect("the disk is well");
    }
    log.close().expect("the disk is well");
    drop((orders, log));
    storage.crash();
    open().recovery_report().iter().map(|partition| partition.scanned_bytes).sum()
}

/// Nothing is lost without them, but time: they are what a log need not be read again for.
#[test]
fn snapshots_must_be_synced_for_a_closed_log_to_open_without_being_read() {
    assert!((0..20).all(|seed| bytes_read_after_closing(seed, None) == 0));
    assert!((0..20).any(|seed| bytes_read_after_closing(seed, Some(SyncPurpose::Snapshot)) > 0));
}
