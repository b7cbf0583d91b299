//! What recovery announces before it cuts it off, when that is cut short: what the files say, and what the
//! marks say of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Log;
use super::failed_sync_tests::noted;
use super::repair::tests::{DIRECTORY, batch, everything, open};
use crate::consistent_cut::tests::{batch as valued, committed};
use crate::partition::Durability;
use crate::partition::marks::{CutBy, Marks};
use crate::record::Offset;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::topic::TopicConfig;
use crate::verify::{Walk, WalkEnd, walk_log};

/// Goes back with [`NOTED`], and has no note of its own.
const GIVEN_UP: &str = "given-up";

/// What a sync has failed to take that nobody waits for.
const NOTED: &str = "noted";

/// What a sync has failed to take that somebody waits for: nothing else goes back with it.
const ALONE: &str = "noted-alone";

const TOPICS: [&str; 3] = [GIVEN_UP, NOTED, ALONE];

/// How many transactions there are, of one record each, and how many were committed before the last
/// consistent cut.
const TRANSACTIONS: usize = 10;
const KEPT: usize = 3;

/// Where each of them is cut off: before the first marker behind the consistent cut.
const CUT: Offset = Offset(7);

/// How often it is decided anew what of an operation takes effect that is cut short, and what a power cut
/// keeps.
const SEEDS: u64 = 8;
const SEEDS_AT_THE_END: u64 = 96;

/// About how many operations it takes to cut all of them off.
const OPERATIONS: u64 = 100;

fn directory(topic: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{topic}-0"))
}

/// Topics of many small segments, so that others follow the one that is cut.
fn small() -> TopicConfig {
    TopicConfig { segment_bytes: 500, ..one_segment() }
}

/// Topics of one segment: all before the cut is synced, and no more has to be by whoever finds it made.
fn one_segment() -> TopicConfig {
    TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() }
}

/// A log of which all that was not synced was written out by the operating system, but for what it says of
/// the syncs that have failed.
fn failed_log(seed: u64, config: &TopicConfig) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(seed);
    let log = open(&storage).expect("an empty disk");
    let synced = TopicConfig { durability: Some(Durability::Sync), ..config.clone() };
    let [given_up, noted, alone] =
        [(GIVEN_UP, config), (NOTED, config), (ALONE, &synced)].map(|(name, config)| {
            log.create_topic(name, config.clone()).expect("a new topic").partitions()[0].clone()
        });
    let producer = log.transactional("id").expect("nobody has it");
    for number in 0..TRANSACTIONS {
        producer.begin().expect("none is open");
        for partition in [&given_up, &noted] {
            producer.append(partition, valued(&number.to_string())).expect("the disk is fine");
        }
        if number == KEPT {
            let partitions = [given_up.clone(), noted.clone()];
            log.flush(&partitions, SyncPurpose::Records).wait().expect("the disk is fine");
            // Nobody learns any more that what is sealed is synced.
            storage.set_sync_mode(SyncMode::Delayed);
        }
        producer.commit(&[]).wait().expect("nothing waits for the disk");
    }
    for number in 0..4 * TRANSACTIONS {
        alone.append(batch(number as i64)).expect("the disk is fine");
    }
    storage.kill();
    storage.set_sync_mode(SyncMode::Immediate);
    for path in everything(&storage).keys() {
        let file = storage.open(path, OpenMode::Write).expect("it is there");
        file.sync(SyncPurpose::Records).wait().expect("the disk is fine");
        let folder = path.parent().expect("a file is in a folder");
        storage.sync_dir(folder, SyncPurpose::Records).expect("the disk is fine");
    }
    for topic in [NOTED, ALONE] {
        let path = directory(topic).join("failed-sync");
        let file = storage.open(&path, OpenMode::Create).expect("there is none");
        file.write_at(0, &self::noted(CUT.0)).expect("the disk is fine");
    }
    storage
}

/// Opens the log, and pulls the plug at an operation. Whether there were so many.
fn open_cut_short(storage: &Arc<MemoryStorage>, operations: u64) -> bool {
    storage.fail_after(operations);
    drop(open(storage));
    let is_cut_short = storage.is_unplugged();
    storage.clear_faults();
    is_cut_short
}

fn marks(storage: &Arc<MemoryStorage>, topic: &str) -> Marks {
    Marks::read_in(&**storage, &directory(topic)).expect("they are whole")
}

fn walks(storage: &Arc<MemoryStorage>) -> Vec<(String, Walk)> {
    let walks = walk_log(&*storage.mount(), Path::new(DIRECTORY), None).expect("it can be read");
    let walks = walks.into_iter().map(|(partition, walk)| (partition.topic, walk));
    walks.filter(|(topic, _)| TOPICS.contains(&&**topic)).collect()
}

/// Checks that a partition whose marks say so is cut off.
fn check_done(storage: &Arc<MemoryStorage>, case: &str) {
    for (topic, walk) in walks(storage) {
        let marks = marks(storage, &topic);
        if marks.cuts.is_some() && marks.being_cut.is_none() {
            // The marker of the transaction that is open then may follow.
            assert!(walk.end <= CUT.next(), "{topic} ends at {} after {case}", walk.end);
        }
    }
}

/// Checks that the log opens, that no record is missing before others, and that nothing that is given up is
/// kept.
fn check_whole(storage: &Arc<MemoryStorage>, case: &str) -> Log {
    let log = open(storage).expect("what was begun is done");
    for (topic, walk) in walks(storage) {
        assert_eq!((&walk.ending, walk.gaps), (&WalkEnd::Complete, 0), "{topic} after {case}");
        assert_eq!(marks(storage, &topic).being_cut, None, "{topic} after {case}");
    }
    for topic in [GIVEN_UP, NOTED] {
        let partition = log.topic(topic).expect("it is there").partitions()[0].clone();
        assert_eq!(committed(&partition), (0..KEPT).collect::<Vec<_>>(), "{topic} after {case}");
    }
    let names = everything(storage);
    let mut kept = names.keys().filter(|path| path.to_string_lossy().contains(".torn"));
    assert_eq!(kept.next(), None, "after {case}");
    log
}

#[test]
fn a_cut_that_the_power_cuts_short_leaves_no_hole_and_is_done_where_the_marks_say_so() {
    for has_gaps in [false, true] {
        let mut is_cut_short = true;
        for operations in 0.. {
            if !is_cut_short {
                assert!(operations > 100, "{operations}");
                break;
            }
            for seed in 0..SEEDS {
                let case = format!("{operations} operations, gaps: {has_gaps}, seed {seed}");
                let config = TopicConfig { has_gaps, ..small() };
                let storage = failed_log(operations * SEEDS + seed, &config);
                is_cut_short = open_cut_short(&storage, operations);
                storage.crash();
                check_done(&storage, &case);
                check_whole(&storage, &case);
            }
        }
    }
}

#[test]
fn a_cut_in_which_an_operation_fails_and_that_the_power_cuts_short_when_it_is_made_again_leaves_no_hole() {
    for failed in 0.. {
        let mut is_failed = false;
        for seed in 0..SEEDS {
            let number = failed * SEEDS + seed;
            let cut_short = number * 31 % OPERATIONS;
            let case = format!("operation {failed} fails, {cut_short} operations, seed {seed}");
            let storage = failed_log(number, &small());
            let before = storage.operations();
            storage.fail_with(io::ErrorKind::Other, failed);
            drop(open(&storage));
            is_failed = storage.operations() - before > failed;
            storage.clear_faults();
            storage.kill();
            open_cut_short(&storage, cut_short);
            storage.crash();
            check_done(&storage, &case);
            check_whole(&storage, &case);
        }
        if !is_failed {
            assert!(failed > OPERATIONS, "{failed} operations");
            return;
        }
    }
}

/// A log of which a kill has cut the recovery short at an operation, if it did.
fn killed_log(seed: u64, config: &TopicConfig, killed: Option<u64>) -> Arc<MemoryStorage> {
    let storage = failed_log(seed, config);
    if let Some(operations) = killed {
        open_cut_short(&storage, operations);
        storage.kill();
    }
    storage
}

/// The operations at which a kill leaves a log whose files are cut off, and whose marks do not say so yet.
fn kills_between_the_names_and_the_marks(config: &TopicConfig) -> Vec<u64> {
    let mut kills = Vec::new();
    for operations in 0.. {
        let storage = failed_log(0, config);
        if !open_cut_short(&storage, operations) {
            break;
        }
        storage.kill();
        let is_being_cut = marks(&storage, GIVEN_UP).being_cut == Some(CutBy::Recovery);
        if is_being_cut && walks(&storage).iter().any(|(topic, walk)| topic == GIVEN_UP && walk.end == CUT) {
            kills.push(operations);
        }
    }
    kills
}

/// The first operation behind which the marks say that the cut is done.
fn says_done(config: &TopicConfig, killed: Option<u64>) -> u64 {
    let is_done = |operations: &u64| {
        let storage = killed_log(0, config, killed);
        open_cut_short(&storage, *operations);
        storage.kill();
        let marks = marks(&storage, GIVEN_UP);
        marks.cuts.is_some() && marks.being_cut.is_none()
    };
    (0..).find(is_done).expect("it is done in the end")
}

#[test]
fn a_cut_is_done_where_the_marks_say_so_though_the_power_fails_while_they_do_whoever_has_begun_it() {
    for config in [&small(), &one_segment()] {
        let kills = kills_between_the_names_and_the_marks(config);
        assert!(kills.len() > 1, "{kills:?}");
        for killed in std::iter::once(None).chain(kills.into_iter().map(Some)) {
            let done = says_done(config, killed);
            for operations in [done - 1, done] {
                (0..SEEDS_AT_THE_END).for_each(|seed| check_the_end(config, killed, operations, seed));
            }
        }
    }
}

/// What becomes of a cut that a kill has cut short, if any did, and then the power, at these operations.
fn check_the_end(config: &TopicConfig, killed: Option<u64>, operations: u64, seed: u64) {
    let case =
        format!("{} bytes, killed {killed:?}, {operations} operations, seed {seed}", config.segment_bytes);
    let storage = killed_log(seed, config, killed);
    open_cut_short(&storage, operations);
    storage.crash();
    check_done(&storage, &case);
    let log = check_whole(&storage, &case);
    // What is written and synced then is there for good, and so is the name of the file it is in.
    let given_up = |log: &Log| log.topic(GIVEN_UP).expect("it is there").partitions()[0].clone();
    let end = given_up(&log).offsets().end;
    given_up(&log).append(valued("1")).expect("the disk is fine");
    log.flush(&[given_up(&log)], SyncPurpose::Records).wait().expect("the disk is fine");
    storage.crash();
    let log = open(&storage).expect("it is sound");
    assert_eq!(given_up(&log).offsets().end, end.next(), "after {case}");
}
