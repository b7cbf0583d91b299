//! Who reads a partition in another process while it is cut.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;

use super::tests::{
    BATCHES, DIRECTORY, at, closed_log, closed_log_with, directory, everything, numbers, open, options,
    repair, segments,
};
use super::*;
use crate::clock::ManualClock;
use crate::files::FileKind;
use crate::log::Log;
use crate::log::follower::{Follower, Interrupted, Room, append, numbers_from, partition, read};
use crate::partition::Isolation;
use crate::storage::Storage;
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;
use crate::storage::observed::{Call, ObservedStorage, Observer};
use crate::topic::TopicConfig;

/// Where the logs are cut: in the middle of a file, which others follow.
const CUT: i64 = 20;

/// Repairs the log, and has `look` look before one of the calls. Whether there are so many.
fn repair_looked_at(
    storage: &Arc<MemoryStorage>,
    call: usize,
    look: impl Fn() + Send + Sync + 'static,
) -> bool {
    let observer = Interrupted::at(call, look);
    let disk = ObservedStorage::observed_by(observer, storage.mount());
    let options = LogOptions::manual(disk.clone(), ManualClock::new(), 1);
    Log::repair(DIRECTORY, &options, &at(CUT)).expect("it is sound");
    call < disk.observer().calls()
}

#[test]
fn who_looks_at_a_log_at_any_moment_of_a_repair_misses_nothing_that_is_written_after_it() {
    let mut refused = 0;
    for call in 0.. {
        let storage = closed_log();
        let follower = Arc::new(Mutex::new(Follower::new(&storage)));
        let looking = follower.clone();
        if !repair_looked_at(&storage, call, move || looking.lock().look()) {
            assert!(call > 50 && refused > 5, "{call} calls, refused at {refused}");
            return;
        }
        refused += follower.lock().refused;
        // As far as it was before, and further.
        append(&storage, 100..100 + 2 * BATCHES);
        let mut follower = follower.lock();
        follower.refused = 0;
        follower.look();
        assert_eq!(follower.refused, 0, "nobody is in the way, after call {call}");
        let there = numbers_from(&read(&storage).expect("it is sound"), Offset(0)).expect("it is sound");
        assert_eq!(there.len() as i64, CUT + 2 * BATCHES);
        let missed: Vec<_> =
            there.iter().filter(|(at, number)| follower.seen.get(at) != Some(number)).collect();
        assert!(missed.is_empty(), "after a look before call {call}: {missed:?}");
    }
}

#[test]
fn who_reads_on_in_what_is_cut_reads_what_it_was_or_is_told_to_try_again() {
    let expected: BTreeMap<_, _> = (0..BATCHES).map(|number| (Offset(number), number)).collect();
    for (open_files_max, segment_bytes) in [(100, 500), (100, 2_000), (1, 500), (1, 2_000)] {
        let config = TopicConfig { segment_bytes, index_interval_bytes: 100, ..TopicConfig::default() };
        let storage = closed_log_with(config);
        let options = LogOptions { open_files_max, ..options(&storage) };
        let reader = Log::open_read_only(DIRECTORY, options).expect("it is sound");
        let check = || {
            for from in (0..BATCHES).rev() {
                match numbers_from(&reader, Offset(from)) {
                    Ok(found) => assert_eq!(found, expected.clone().split_off(&Offset(from))),
                    Err(error) => {
                        assert!(open_files_max == 1 && error.kind() == ErrorKind::Retry, "{error}");
                    }
                }
            }
        };
        check();
        repair(&storage, &at(CUT)).expect("it is sound");
        check();
        // Batches of another length, where there were others before.
        append(&storage, 1_000_000..1_000_000 + 2 * BATCHES);
        check();
    }
}

#[test]
fn a_repair_that_is_cut_short_anywhere_counts_as_one_cut_and_is_not_read_half_done() {
    for is_opened in [false, true] {
        let mut half_done = 0;
        for operations in 0.. {
            let storage = closed_log();
            storage.fail_after(operations);
            let outcome = repair(&storage, &at(CUT));
            let is_done = !storage.is_unplugged();
            storage.clear_faults();
            storage.kill();
            match read(&storage) {
                Ok(log) => {
                    let end = partition(&log).offsets().end;
                    assert!([Offset(CUT), Offset(BATCHES)].contains(&end), "{end} after {operations}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                    assert!(error.to_string().contains("cut off at offset 20"), "{error}");
                    half_done += 1;
                }
            }
            if is_opened {
                let log = open(&storage).expect("what was decided is done");
                log.close().expect("the disk is fine");
            }
            if let Err(error) = repair(&storage, &at(CUT)) {
                // It was done, but for the end perhaps: there is nothing to cut.
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            }
            let marks = Marks::read_in(&*storage, &directory()).expect("they are whole");
            let cuts = marks.cuts.expect("it was cut");
            assert_eq!((cuts.count, marks.being_cut), (1, None), "after {operations} operations");
            let log = read(&storage).expect("it is done");
            assert_eq!(numbers(&log, Isolation::ReadUncommitted), (0..CUT).collect::<Vec<_>>());
            if is_done {
                outcome.expect("nothing failed");
                assert!(half_done > 5, "{half_done} times it was half done");
                break;
            }
        }
    }
}

/// What there is of the partition, but for what was never whole.
fn files(storage: &MemoryStorage) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = everything(storage);
    files
        .retain(|path, _| path.starts_with(directory()) && path.extension().is_none_or(|name| name != "new"));
    files
}

#[test]
fn a_disk_without_room_for_what_a_repair_copies_leaves_all_as_it_was_and_keeps_nobody_from_reading() {
    let config = TopicConfig { segment_bytes: 1_500, index_interval_bytes: 100, ..TopicConfig::default() };
    let repair_with = |storage: &Arc<MemoryStorage>, room: usize| {
        let disk = ObservedStorage::observed_by(Room::of(room), storage.mount());
        Log::repair(DIRECTORY, &LogOptions::manual(disk, ManualClock::new(), 1), &at(CUT))
    };
    let copied = {
        let storage = closed_log_with(config.clone());
        let file =
            |base: &Offset| storage.contents(&FileKind::Log.path(&directory(), *base)).expect("it is there");
        let cut = segments(&storage).into_iter().rfind(|base| base.0 <= CUT).expect("one holds it");
        file(&cut).len()
    };
    let (mut unchanged, mut kept_out) = (0, 0);
    for room in (0..).step_by(16) {
        let storage = closed_log_with(config.clone());
        let (before, reader) = (files(&storage), read(&storage).expect("it is sound"));
        let Err(error) = repair_with(&storage, room) else { break };
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        let note = storage.exists(&directory().join("cut")).expect("it is readable");
        let marks = Marks::read_in(&*storage, &directory()).expect("they are whole");
        if !note && marks.cuts.is_none() {
            assert!(files(&storage) == before, "with room for {room} bytes");
            unchanged += 1;
        }
        if marks.cuts.is_none() {
            reader.refresh().expect("nothing was cut off");
            for log in [&reader, &read(&storage).expect("nobody is kept out")] {
                let found = numbers_from(log, Offset(0)).expect("all of it is there");
                assert_eq!(found.len() as i64, BATCHES, "with room for {room} bytes");
            }
        }
        kept_out += usize::from(marks.being_cut.is_some());
        if let Err(error) = repair(&storage, &at(CUT)) {
            assert_eq!(error.kind(), ErrorKind::Invalid, "it was done, but not recovered: {error}");
        }
        reader.refresh().expect_err("now it is cut off");
        let log = read(&storage).expect("it is done");
        assert_eq!(numbers(&log, Isolation::ReadUncommitted), (0..CUT).collect::<Vec<_>>());
    }
    assert!(copied > 1_000 && unchanged * 16 > copied, "{unchanged} times, of {copied} bytes");
    // There was not even room to say that it is done.
    assert!(kept_out * 16 < 200, "{kept_out} times");
}

#[test]
fn a_cut_that_falls_between_two_looks_of_a_reader_is_noticed() {
    let storage = closed_log();
    let disk = InterruptingStorage::new(storage.mount());
    let reader = LogOptions::manual(disk.clone(), ManualClock::new(), 1);
    let reader = Log::open_read_only(DIRECTORY, reader).expect("it is sound");
    let last = *segments(&storage).last().expect("there is one");
    let cut_and_grown = storage.clone();
    // The first look is over by then: the last batch is looked for in the last file.
    disk.before_read(FileKind::Log.path(&directory(), last), move || {
        repair(&cut_and_grown, &at(CUT)).expect("it is sound");
        append(&cut_and_grown, 100..100 + 2 * BATCHES);
    });
    let error = reader.refresh().expect_err("it would miss what was written behind the cut");
    assert!(!disk.is_pending());
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(error.to_string().contains("cut off at offset 20"), "{error}");
}

#[test]
fn a_cut_that_takes_what_a_reader_knows_to_be_synced_is_no_damage_to_it_whenever_it_comes() {
    let last = || *segments(&closed_log()).last().expect("there is one");
    for refresh in [|log: &Log| log.refresh(), |log: &Log| partition(log).refresh().map(drop)] {
        let storage = closed_log();
        let disk = InterruptingStorage::new(storage.mount());
        let reader = LogOptions::manual(disk.clone(), ManualClock::new(), 1);
        let reader = Log::open_read_only(DIRECTORY, reader).expect("it is sound");
        let cut = storage.clone();
        // The first look is over by then: the last batch is looked for in the last file.
        disk.before_read(FileKind::Log.path(&directory(), last()), move || {
            repair(&cut, &at(CUT)).expect("it is sound");
        });
        let error = refresh(&reader).expect_err("it was cut");
        assert!(!disk.is_pending());
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        assert!(error.to_string().contains("cut off at offset 20"), "{error}");
    }
}

#[test]
fn who_opens_a_log_that_is_cut_off_at_any_moment_of_that_finds_no_damage() {
    for call in 0.. {
        let storage = closed_log();
        let cut = storage.clone();
        let cut = move || drop(repair(&cut, &at(CUT)).expect("it is sound"));
        let disk = ObservedStorage::observed_by(Interrupted::at(call, cut), storage.mount());
        match Log::open_read_only(DIRECTORY, LogOptions::manual(disk.clone(), ManualClock::new(), 1)) {
            Ok(log) => {
                let end = partition(&log).offsets().end;
                assert!([Offset(CUT), Offset(BATCHES)].contains(&end), "{end}, cut before call {call}");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "cut before call {call}: {error}"),
        }
        if call >= disk.observer().calls() {
            assert!(call > 20, "{call} calls");
            return;
        }
    }
}

/// Has the log cut off each time that somebody has read its recovery points and goes on to the partition.
struct CutBehindPoints {
    log: Arc<MemoryStorage>,
    state: Mutex<CutState>,
}

struct CutState {
    are_points_read: bool,
    /// Where it is cut next.
    cuts: Vec<i64>,
}

impl Observer for CutBehindPoints {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let mut state = self.state.lock();
        match call {
            Call::Open(path) if path.ends_with("recovery-point") => state.are_points_read = true,
            Call::List(path) if path == directory() && state.are_points_read => {
                state.are_points_read = false;
                if let Some(cut) = state.cuts.pop() {
                    repair(&self.log, &at(cut)).expect("it is sound");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn a_log_that_is_cut_off_behind_the_recovery_points_that_were_read_is_looked_at_again() {
    let check = |cuts: &[i64]| {
        let log = closed_log();
        let state = CutState { are_points_read: false, cuts: cuts.iter().rev().copied().collect() };
        let observer = CutBehindPoints { log: log.clone(), state: Mutex::new(state) };
        let disk = ObservedStorage::observed_by(observer, log.mount());
        let opened = Log::open_read_only(DIRECTORY, LogOptions::manual(disk.clone(), ManualClock::new(), 1));
        assert!(disk.observer().state.lock().cuts.is_empty(), "it was cut so often");
        opened.map(|log| partition(&log).offsets().end).map_err(|error| error.kind())
    };
    assert_eq!(check(&[]), Ok(Offset(BATCHES)));
    assert_eq!(check(&[20]), Ok(Offset(20)));
    assert_eq!(check(&[20, 10]), Err(ErrorKind::Retry), "who looks a second time waits before that");
}

#[test]
fn damage_of_what_was_synced_is_told_though_the_log_was_cut_off_before() {
    let storage = closed_log();
    repair(&storage, &at(CUT)).expect("it is sound");
    let last = *segments(&storage).last().expect("there is one");
    storage.corrupt(&FileKind::Log.path(&directory(), last), 64, 1).expect("the byte is there");
    let error = read(&storage).expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_reader_in_another_process_is_told_that_what_it_has_read_was_cut_off_and_written_anew() {
    let storage = closed_log();
    let read = || read(&storage).expect("it is sound");
    let reader = read();
    repair(&storage, &at(CUT)).expect("it is sound");
    // As far as it was before, and further.
    append(&storage, 100..100 + 2 * BATCHES);
    assert!(partition(&open(&storage).expect("it is sound")).offsets().end > Offset(BATCHES));
    let error = reader.refresh().expect_err("it would miss what was written behind the cut");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(error.to_string().contains("cut off at offset 20"), "{error}");
    let again = read();
    assert_eq!(partition(&again).rewritten_since(&partition(&reader)), Some(Offset(CUT)));
    // Who comes later has missed nothing.
    append(&storage, 0..1);
    again.refresh().expect("it is read on");
    assert_eq!(partition(&read()).rewritten_since(&partition(&again)), None);
}
