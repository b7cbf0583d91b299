//! Logs of which a sync has failed after others have read what it was to take, and what becomes of them and of those
//! who follow.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::follower::{Follower, Interrupted, Room, append, numbers_from, partition, read};
use super::repair::tests::{
    BATCHES, DIRECTORY, at, batch, closed_log_with, directory, numbers, open, options, repair,
};
use super::{Log, LogOptions};
use crate::clock::ManualClock;
use crate::consistent_cut::tests::{batch as valued, committed};
use crate::error::ErrorKind;
use crate::files::{FileKind, Listing, Stage};
use crate::partition::marks::Marks;
use crate::partition::{Durability, Isolation};
use crate::record::Offset;
use crate::storage::memory::MemoryStorage;
use crate::storage::observed::{Call, ObservedStorage, Observer};
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::topic::TopicConfig;

/// Up to where everything is synced.
const SYNCED: i64 = 20;

/// Where the log ends when its sync fails.
const END: i64 = 40;

/// How often it is decided anew what of an operation takes effect that is cut short.
const SEEDS: u64 = 4;

fn note() -> PathBuf {
    directory().join("failed-sync")
}

fn small() -> TopicConfig {
    TopicConfig { segment_bytes: 500, snapshot_interval_bytes: 200, ..TopicConfig::default() }
}

/// A log that has been written to for a while, of which `look` looks at what is not synced before the sync of that
/// fails and the log is given up.
fn failed_log<T>(
    config: TopicConfig,
    look: impl FnOnce(&Arc<MemoryStorage>) -> T,
) -> (Arc<MemoryStorage>, T) {
    failed_log_on(MemoryStorage::new(1), config, look)
}

/// The same on an empty disk.
fn failed_log_on<T>(
    storage: Arc<MemoryStorage>,
    config: TopicConfig,
    look: impl FnOnce(&Arc<MemoryStorage>) -> T,
) -> (Arc<MemoryStorage>, T) {
    let log = open(&storage).expect("an empty disk");
    let partition = log.create_topic("t", config).expect("a new topic").partitions()[0].clone();
    let flush = || log.flush(std::slice::from_ref(&partition), SyncPurpose::Records).wait();
    for number in 0..END {
        if number == SYNCED {
            flush().expect("the disk is fine");
        }
        partition.append(batch(number)).expect("the disk is fine");
    }
    let seen = look(&storage);
    storage.fail_with(io::ErrorKind::Other, 0);
    flush().expect_err("the disk has failed");
    storage.clear_faults();
    log.close().expect_err("it is poisoned");
    assert!(storage.exists(&note()).expect("it is readable"), "the next to open it knows");
    (storage, seen)
}

/// Looks before each call.
struct Looked<F>(F);

impl<F: Fn() + Send + Sync + 'static> Observer for Looked<F> {
    fn before(&self, _call: Call<'_>) -> io::Result<()> {
        (self.0)();
        Ok(())
    }
}

/// Opens the log, with `look` looking before one of the calls, and closes it. Whether there are so many.
fn open_looked_at(
    storage: &Arc<MemoryStorage>,
    call: usize,
    look: impl Fn() + Send + Sync + 'static,
) -> bool {
    let disk = ObservedStorage::observed_by(Interrupted::at(call, look), storage.mount());
    let log = Log::open(DIRECTORY, LogOptions::manual(disk.clone(), ManualClock::new(), 1));
    log.expect("it is recovered").close().expect("the disk is fine");
    call < disk.observer().calls()
}

#[test]
fn who_looks_at_any_moment_of_the_recovery_from_a_failed_sync_misses_nothing_that_is_written_after_it() {
    let mut refused = 0;
    for call in 0.. {
        let (storage, follower) = failed_log(small(), Follower::new);
        assert_eq!(follower.seen.len() as i64, END, "it is shown what is not synced");
        let follower = Arc::new(Mutex::new(follower));
        let looking = follower.clone();
        if !open_looked_at(&storage, call, move || looking.lock().look()) {
            assert!(call > 50 && refused > 5, "{call} calls, refused at {refused}");
            return;
        }
        refused += follower.lock().refused;
        // As far as it was before, and further.
        append(&storage, 100..100 + 2 * END);
        let mut follower = follower.lock();
        follower.refused = 0;
        follower.look();
        assert_eq!(follower.refused, 0, "nobody is in the way, after call {call}");
        let there = numbers_from(&read(&storage).expect("it is sound"), Offset(0)).expect("it is sound");
        assert_eq!(there.len() as i64, SYNCED + 2 * END);
        let missed: Vec<_> =
            there.iter().filter(|(at, number)| follower.seen.get(at) != Some(number)).collect();
        assert!(missed.is_empty(), "after a look before call {call}: {missed:?}");
    }
}

#[test]
fn who_has_records_in_hand_whose_sync_fails_reads_what_they_were_or_is_told_to_try_again() {
    let expected: BTreeMap<_, _> = (0..END).map(|number| (Offset(number), number)).collect();
    for (open_files_max, segment_bytes) in [(100, 500), (100, 4_000), (1, 500), (1, 4_000)] {
        let config = TopicConfig { segment_bytes, index_interval_bytes: 100, ..TopicConfig::default() };
        let (storage, reader) = failed_log(config, |storage| {
            let options = LogOptions { open_files_max, ..options(storage) };
            Log::open_read_only(DIRECTORY, options).expect("it is sound")
        });
        let reader = Arc::new(reader);
        let check = {
            let (reader, expected) = (reader.clone(), expected.clone());
            move || {
                for from in (0..END).rev() {
                    match numbers_from(&reader, Offset(from)) {
                        Ok(found) => assert_eq!(found, expected.clone().split_off(&Offset(from))),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
                    }
                }
            }
        };
        check();
        let disk = ObservedStorage::observed_by(Looked(check.clone()), storage.mount());
        let log = Log::open(DIRECTORY, LogOptions::manual(disk, ManualClock::new(), 1));
        log.expect("it is recovered").close().expect("the disk is fine");
        check();
        // Batches of another length, where there were others before.
        append(&storage, 1_000_000..1_000_000 + 2 * END);
        check();
        let error = reader.refresh().expect_err("it would miss what was written there");
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        assert!(error.to_string().contains("cut off at offset 20"), "{error}");
        let again = read(&storage).expect("it is sound");
        assert_eq!(partition(&again).rewritten_since(&partition(&reader)), Some(Offset(SYNCED)));
    }
}

#[test]
fn a_disk_without_room_for_the_copies_that_recovery_makes_keeps_nobody_from_reading() {
    let config = TopicConfig { segment_bytes: 1_500, index_interval_bytes: 100, ..TopicConfig::default() };
    let open_with = |storage: &Arc<MemoryStorage>, room: usize| {
        let disk = ObservedStorage::observed_by(Room::of(room), storage.mount());
        Log::open(DIRECTORY, LogOptions::manual(disk, ManualClock::new(), 1))
    };
    let last_segment = |storage: &MemoryStorage| {
        let segments = Listing::read(storage, &directory()).expect("it is readable").segments;
        FileKind::Log.path(&directory(), *segments.last().expect("there is one"))
    };
    let copied = {
        let (storage, ()) = failed_log(config.clone(), |_| ());
        open(&storage).expect("it is recovered").close().expect("the disk is fine");
        storage.contents(&last_segment(&storage)).expect("it is there").len()
    };
    assert!(copied > 300, "{copied} bytes are much more than the marks have");
    for room in (0..copied).step_by(16) {
        let (storage, reader) = failed_log(config.clone(), |storage| read(storage).expect("it is sound"));
        let error = open_with(&storage, room).expect_err("there is no room");
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        reader.refresh().expect("nothing was cut off");
        let found = numbers_from(&reader, Offset(0)).expect("all of it is there");
        assert_eq!(found.len() as i64, END, "with room for {room} bytes");
        let again = read(&storage).expect("nobody is kept out");
        assert_eq!(partition(&again).offsets().end, Offset(SYNCED), "the rest is not certain");
        let names = storage.list(&directory()).expect("it is readable");
        let copies = names.iter().filter(|entry| Stage::parse(&entry.name).is_some()).count();
        assert_eq!(copies, 0, "what was copied takes no room");
        open(&storage).expect("there is room again").close().expect("the disk is fine");
        reader.refresh().expect_err("now it is cut off");
    }
}

#[test]
fn the_recovery_from_a_failed_sync_that_is_cut_short_anywhere_counts_as_one_cut_and_is_not_read_half_done() {
    for is_power_cut in [false, true] {
        let mut half_done = 0;
        for operations in 0.. {
            let runs = (0..SEEDS).map(|run| cut_short(operations * SEEDS + run, operations, is_power_cut));
            let (done, refused): (Vec<_>, Vec<_>) = runs.unzip();
            half_done += refused.iter().filter(|refused| **refused).count();
            if done.iter().all(|done| *done) {
                assert!(half_done > 5, "{half_done} times it was half done");
                break;
            }
        }
    }
}

/// Recovers a log after so many operations are cut short, what of the last one then takes effect and what a power cut
/// keeps being up to the seed. Whether all was done before, and whether it was not to be read meanwhile.
fn cut_short(seed: u64, operations: u64, is_power_cut: bool) -> (bool, bool) {
    let case = format!("{operations} operations, power cut: {is_power_cut}, seed {seed}");
    let (storage, ()) = failed_log_on(MemoryStorage::new(seed), small(), |_| ());
    storage.fail_after(operations);
    let opened = open(&storage);
    let is_done = !storage.is_unplugged();
    drop(opened);
    storage.clear_faults();
    if is_power_cut {
        storage.crash()
    } else {
        storage.kill()
    }
    let is_refused = match read(&storage) {
        Ok(log) => {
            let end = partition(&log).offsets().end;
            assert!(is_power_cut || end == Offset(SYNCED), "{end} after {case}");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Retry, "{error} after {case}");
            let (what, file) = (error.to_string(), directory().join("marks"));
            assert!(what.contains("cut off at offset 20"), "{error} after {case}");
            assert!(what.contains(&file.display().to_string()), "{error} after {case}");
            true
        }
    };
    open(&storage).expect("what was begun is done").close().expect("the disk is fine");
    let marks = Marks::read_in(&*storage, &directory()).expect("they are whole");
    assert_eq!(marks.being_cut, None, "after {case}");
    let count = marks.cuts.map_or(0, |cuts| cuts.count);
    assert!(count == 1 || is_power_cut && count == 0, "{count} after {case}");
    let found = numbers(&read(&storage).expect("it is done"), Isolation::ReadUncommitted);
    // A power cut may take the note, and leave of what the sync has failed to take what it likes.
    assert!(found.len() as i64 == SYNCED || is_power_cut && found.len() as i64 > SYNCED, "after {case}");
    assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>(), "after {case}");
    // What is written and synced then is there for good, and so is the name of the file it is in.
    let (end, acknowledged) = (found.len() as i64, 2 * END);
    append_and_kill(&storage, end..acknowledged.max(end));
    storage.crash();
    assert_eq!(self::found(&storage), (0..acknowledged.max(end)).collect::<Vec<_>>(), "after {case}");
    (is_done, is_refused)
}

#[test]
fn who_has_read_what_goes_back_with_a_failed_sync_of_another_partition_is_told() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).expect("an empty disk");
    let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
    let [one, other] = ["one", "other"]
        .map(|name| log.create_topic(name, config.clone()).expect("a new topic").partitions()[0].clone());
    let producer = log.transactional("id").expect("nobody has it");
    for value in 1..4 {
        producer.begin().expect("none is open");
        for partition in [&one, &other] {
            producer.append(partition, valued(&value.to_string())).expect("the disk is fine");
        }
        producer.commit(&[]).wait().expect("nothing waits for the disk");
    }
    let follower = read(&storage).expect("it is sound");
    let of = |log: &Log, topic: &str| log.topic(topic).expect("it is there").partitions()[0].clone();
    assert_eq!(committed(&of(&follower, "other")), [1, 2, 3]);
    // Of the one that fails, the sync that fails is not known: both go back, and only one of them has a note.
    storage.fail_with(io::ErrorKind::Other, 0);
    log.flush(std::slice::from_ref(&one), SyncPurpose::Records).wait().expect_err("the disk has failed");
    storage.clear_faults();
    let notes = ["one", "other"].map(|topic| Path::new(DIRECTORY).join(format!("{topic}-0/failed-sync")));
    let notes = notes.map(|note| storage.exists(&note).expect("it is readable"));
    log.close().expect_err("one of them is poisoned");
    open(&storage).expect("it is recovered").close().expect("the disk is fine");
    let now = read(&storage).expect("it is sound");
    let error = follower.refresh().expect_err("what it has read has gone back");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    for (topic, has_note) in ["one", "other"].into_iter().zip(notes) {
        assert_eq!(committed(&of(&now, topic)), [0; 0], "{topic}");
        let rewritten = of(&now, topic).rewritten_since(&of(&follower, topic));
        let expected = if has_note { Offset(0) } else { Offset(1) };
        assert_eq!(rewritten, Some(expected), "{topic}: at its first marker, or where it was synced");
    }
    assert!(notes.contains(&false), "one of them goes back with the other");
}

/// A note of a failed sync, as it is written.
pub(super) fn noted(offset: i64) -> Vec<u8> {
    let mut bytes = 1u32.to_be_bytes().to_vec();
    bytes.extend(offset.to_be_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn put_note(storage: &MemoryStorage, bytes: &[u8]) {
    let file = storage.open(&note(), OpenMode::Create).expect("there is none");
    file.write_at(0, bytes).expect("the disk is fine");
}

/// Appends these, has them synced, and is killed before that is written down as a recovery point.
fn append_and_kill(storage: &Arc<MemoryStorage>, numbers: std::ops::Range<i64>) {
    let log = open(storage).expect("it is sound");
    for number in numbers {
        partition(&log).append(batch(number)).expect("the disk is fine");
    }
    log.flush(&[partition(&log)], SyncPurpose::Records).wait().expect("the disk is fine");
    storage.kill();
}

fn found(storage: &Arc<MemoryStorage>) -> Vec<i64> {
    numbers(&open(storage).expect("it is sound"), Isolation::ReadUncommitted)
}

#[test]
fn a_note_of_a_failed_sync_in_a_log_that_was_closed_takes_back_nothing_that_is_synced_later() {
    let storage = closed_log_with(small());
    put_note(&storage, &noted(5));
    append_and_kill(&storage, BATCHES..2 * BATCHES);
    assert_eq!(found(&storage), (0..2 * BATCHES).collect::<Vec<_>>());
    assert!(!storage.exists(&note()).expect("it is readable"));
}

#[test]
fn a_note_of_a_failed_sync_beside_no_segment_takes_back_nothing_that_is_synced_later() {
    let storage = MemoryStorage::new(1);
    open(&storage).expect("an empty disk").create_topic("t", small()).expect("a new topic");
    storage.kill();
    storage.remove_file(&FileKind::Log.path(&directory(), Offset(0))).expect("it was made");
    put_note(&storage, &noted(0));
    append_and_kill(&storage, 0..BATCHES);
    assert_eq!(found(&storage), (0..BATCHES).collect::<Vec<_>>());
}

#[test]
fn a_note_of_a_failed_sync_that_says_nothing_true_takes_back_nothing_and_is_in_nobodys_way() {
    let whole = noted(SYNCED);
    let mut later_version = noted(SYNCED);
    later_version[3] = 9;
    let nonsense = [&noted(-7), &noted(1 << 40), &later_version, &vec![0xff; 16], &whole[..0].to_vec()];
    let halves = (1..whole.len()).map(|length| whole[..length].to_vec());
    for bytes in nonsense.into_iter().cloned().chain(halves) {
        let unsynced = || {
            let storage = MemoryStorage::new(1);
            let log = open(&storage).expect("an empty disk");
            log.create_topic("t", small()).expect("a new topic");
            for number in 0..END {
                partition(&log).append(batch(number)).expect("the disk is fine");
            }
            storage.kill();
            put_note(&storage, &bytes);
            storage
        };
        let storage = unsynced();
        assert_eq!(found(&storage), (0..END).collect::<Vec<_>>(), "{bytes:?}");
        assert!(!storage.exists(&note()).expect("it is readable"), "{bytes:?}");
        let storage = unsynced();
        let report = repair(&storage, &at(SYNCED)).expect("nothing is in the way");
        assert_eq!(report.cut_at, Offset(SYNCED), "{bytes:?}");
        assert_eq!(found(&storage), (0..SYNCED).collect::<Vec<_>>(), "{bytes:?}");
    }
}

#[test]
fn a_log_is_repaired_below_its_recovery_point_whatever_the_note_of_a_failed_sync_says() {
    let storage = closed_log_with(small());
    put_note(&storage, &noted(5));
    let error = repair(&storage, &at(BATCHES + 1)).expect_err("nothing is there");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    repair(&storage, &at(SYNCED)).expect("what is before it is synced");
    assert_eq!(found(&storage), (0..SYNCED).collect::<Vec<_>>());
}

#[test]
fn a_log_is_not_cut_by_hand_behind_what_a_failed_sync_has_left_certain() {
    let (storage, ()) = failed_log(small(), |_| ());
    let error = repair(&storage, &at(SYNCED + 5)).expect_err("opening it cuts it before that");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("before offset 20 is certain"), "{error}");
    repair(&storage, &at(SYNCED)).expect("what is before it is synced");
    assert_eq!(found(&storage), (0..SYNCED).collect::<Vec<_>>());
}
