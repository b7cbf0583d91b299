//! The power fails at every operation of a compaction, and what is opened then is what was there before,
//! or what was to be there after.

use super::*;
use crate::error::ErrorKind;
use crate::partition::tests::check_indexed;
use crate::storage::OpenMode;
use crate::verify::{WalkEnd, WalkRules, walk};

/// A log of five segments with plain, idempotent, committed and aborted batches and tombstones, of which
/// much is old, compacted once already.
pub(super) fn bench(seed: u64) -> Bench {
    let bench = Bench::with(disk(seed), PartitionConfig { segment_bytes: 700, ..small() });
    bench.plain(&[1, 2, 3]);
    bench.idempotent(5, 0, &[3, 4]);
    bench.transactional(1, 0, 0, &[1, 9]);
    bench.abort(1, 0);
    bench.roll();
    bench.compact();
    for round in 1..4 {
        bench.plain(&[round, 2, 3]);
        bench.append(tombstones(&[round - 1]));
        bench.transactional(1, round as i16, 0, &[4, 9]);
        if round == 2 {
            bench.abort(1, round as i16)
        } else {
            bench.commit(1, round as i16)
        }
        bench.roll();
    }
    bench.plain(&[7]);
    flush(&bench.partition).expect("the disk is fine");
    bench
}

pub(super) fn names(bench: &Bench) -> Vec<String> {
    let entries = bench.storage.list(crate::partition::tests::DIRECTORY.as_ref()).expect("it is there");
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn wherever_the_power_fails_the_old_segments_are_there_or_the_new_ones() {
    let before = bench(0).batches();
    let after = {
        let bench = bench(0);
        bench.compact();
        bench.batches()
    };
    assert_ne!(before, after);
    let (mut operation, mut ended_well) = (0, 0);
    while ended_well < 3 {
        for seed in 0..8 {
            ended_well += u32::from(!check_power_cut(operation, seed, &before, &after));
        }
        operation += 1;
    }
    assert!(operation > 60, "there are many operations: {operation}");
}

/// The power fails that many operations into a compaction, if it takes as many. Whether it has.
fn check_power_cut(operation: u64, seed: u64, before: &[Found], after: &[Found]) -> bool {
    let mut bench = bench(seed);
    bench.storage.fail_after(operation);
    let outcome = bench.try_compact();
    let was_unplugged = bench.storage.is_unplugged();
    bench.storage.clear_faults();
    let durable = bench.partition.offsets().durable;
    bench.storage.crash();
    let what = format!("operation {operation}, seed {seed}");
    check_walk(&bench, durable, &what);
    bench.open(durable);
    check_recovered(&bench, before, after, &what);
    if outcome.is_ok() {
        assert_eq!(bench.batches(), after, "{what}: it was done");
    }
    let left: Vec<_> = names(&bench).into_iter().filter(|name| is_staged(name)).collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    // It is taken up again, and comes to the same.
    bench.compact();
    assert_eq!(bench.batches(), after, "{what}");
    bench.crash();
    assert_eq!(bench.batches(), after, "{what}");
    was_unplugged
}

/// One power cut in a compaction.
pub(crate) fn check_script(seed: u64) {
    let before = bench(0).batches();
    let after = {
        let bench = bench(0);
        bench.compact();
        bench.batches()
    };
    check_power_cut(seed % 90, seed, &before, &after);
}

/// Power cuts in a compaction, and in the openings that finish it.
pub(crate) fn check_finished(seed: u64) {
    let after = {
        let bench = bench(0);
        bench.compact();
        bench.batches()
    };
    check_cut_again(seed, &after);
}

/// Nothing is damaged, also while nobody has finished what was begun.
fn check_walk(bench: &Bench, durable: Offset, what: &str) {
    let directory = crate::partition::tests::DIRECTORY.as_ref();
    let rules = WalkRules { recovery_point: Some(durable), has_gaps: false, is_start_known: true };
    let walk = walk(&*bench.storage, bench.partition.name(), directory, rules).expect("it can be read");
    assert_eq!((walk.ending, walk.end), (WalkEnd::Complete, durable), "{what}");
    assert_eq!(walk.indexes, [], "{what}");
}

pub(super) fn is_staged(name: &str) -> bool {
    name.ends_with(".cleaned") || name.ends_with(".swap")
}

/// Whole groups of segments are as before or as after.
fn check_recovered(bench: &Bench, before: &[Found], after: &[Found], what: &str) {
    let found = bench.batches();
    for batch in &found {
        assert!(before.contains(batch) || after.contains(batch), "{what}: {batch:?}");
    }
    for batch in after {
        let kept = found.iter().find(|found| found.base == batch.base);
        let kept = kept.unwrap_or_else(|| panic!("{what}: {batch:?} is gone"));
        assert!(batch.records.iter().all(|record| kept.records.contains(record)), "{what}: {batch:?}");
    }
    assert_eq!(bench.partition.offsets().start, Offset(0), "{what}");
    check_indexed(&bench.partition).unwrap_or_else(|why| panic!("{what}: {why}"));
    // All of them have one time.
    let first = found.iter().filter(|batch| !batch.is_control).find_map(|batch| batch.records.first());
    let by_time = bench.partition.offset_for_timestamp(Timestamp(5)).expect("the log is sound");
    assert_eq!(by_time.map(|found| found.0.0), first.map(|record| record.0), "{what}");
    assert!(bench.partition.open_transactions().is_empty(), "{what}");
    let repeated = bench.idempotent(5, 0, &[3, 4]);
    assert!(repeated.duplicate && repeated.base_offset == Offset(3), "{what}: {repeated:?}");
}

#[test]
fn a_crash_while_the_replacement_is_finished_leaves_it_to_the_next() {
    let after = {
        let bench = bench(0);
        bench.compact();
        bench.batches()
    };
    (0..200).for_each(|seed| check_cut_again(seed, &after));
}

fn check_cut_again(seed: u64, after: &[Found]) {
    let mut bench = bench(seed);
    // Somewhere in the swaps, then again and again in the openings.
    bench.storage.fail_after(20 + seed % 40);
    drop(bench.try_compact());
    let durable = bench.partition.offsets().durable;
    for operation in 0..6 {
        bench.storage.crash();
        bench.storage.fail_after(operation * (1 + seed % 3));
        let site = site_on(&bench.storage, &bench.clock, &bench.config);
        let border = RecoveryBorder { recovery_point: Some(durable), clean_shutdown: false };
        drop(Partition::open(site, &border));
    }
    bench.storage.clear_faults();
    bench.storage.crash();
    bench.open(durable);
    bench.compact();
    assert_eq!(bench.batches(), after, "seed {seed}");
}

#[test]
fn a_disk_that_fails_once_ends_the_compaction_and_reading_goes_on() {
    let before = bench(0).batches();
    let after = {
        let bench = bench(0);
        bench.compact();
        bench.batches()
    };
    let mut operation = 0;
    loop {
        let mut bench = bench(3);
        bench.storage.fail_with(std::io::ErrorKind::Other, operation);
        let outcome = bench.try_compact();
        bench.storage.clear_faults();
        let what = format!("operation {operation}");
        for batch in bench.batches() {
            assert!(before.contains(&batch) || after.contains(&batch), "{what}: {batch:?}");
        }
        if outcome.is_ok() && !bench.partition.is_poisoned() && operation > 60 {
            break;
        }
        bench.crash();
        check_recovered(&bench, &before, &after, &what);
        operation += 1;
    }
}

#[test]
fn a_replacement_that_nothing_names_is_corrupt() {
    let bench = bench(1);
    let path = format!("{}/00000000000000000000.log.swap", crate::partition::tests::DIRECTORY);
    bench.storage.open(path.as_ref(), OpenMode::Create).expect("there is none");
    bench
        .storage
        .remove_file(format!("{}/marks", crate::partition::tests::DIRECTORY).as_ref())
        .expect("it is there");
    bench.storage.kill();
    let border = RecoveryBorder::default();
    let site = site_on(&bench.storage, &bench.clock, &bench.config);
    let error = Partition::open(site, &border).expect_err("something is missing");
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
}

#[test]
fn a_snapshot_that_speaks_of_a_marker_which_is_gone_is_not_believed() {
    let mut bench = Bench::with(disk(1), PartitionConfig { segment_bytes: 1 << 20, ..small() });
    bench.transactional(1, 0, 0, &[1]);
    // A snapshot is due behind these, and says that the transaction is open.
    for _ in 0..8 {
        bench.plain(&[2, 3, 4]);
    }
    bench.commit(1, 0);
    bench.plain(&[1]);
    bench.append(stamped(batch(&[5]), 1, 1, 0, false));
    bench.roll();
    bench.compact();
    bench.compact_twice();
    assert!(bench.batches().iter().all(|batch| !batch.is_control), "the marker is gone");
    let snapshots: Vec<_> = names(&bench).into_iter().filter(|name| name.ends_with(".snapshot")).collect();
    let (older, newest) = snapshots.split_at(1);
    assert!(!newest.is_empty(), "there is an old one besides the newest: {older:?}");
    for name in newest {
        let path = format!("{}/{name}", crate::partition::tests::DIRECTORY);
        bench.storage.corrupt(path.as_ref(), 8, 1).expect("it is there");
    }
    bench.crash();
    assert_eq!(bench.partition.open_transactions(), []);
}

#[test]
fn a_partition_that_is_closed_while_it_is_compacted_can_be_read_at_once_by_who_changes_nothing() {
    for pieces in 0.. {
        let bench = bench(1);
        let mut compaction = bench.begin_compaction();
        let is_done = (0..pieces).any(|_| {
            let piece = compaction.advance(Waker::noop());
            matches!(piece.expect("the disk is fine"), Piece::Done)
        });
        bench.partition.close().expect("the disk is fine");
        let mut refused = || loop {
            match compaction.advance(Waker::noop()) {
                Ok(piece) => assert!(!matches!(piece, Piece::Done), "after {pieces} pieces"),
                Err(error) => return error.kind(),
            }
        };
        assert!(is_done || refused() == ErrorKind::Closed, "after {pieces} pieces");
        let end = bench.partition.offsets().end;
        let border = RecoveryBorder { recovery_point: Some(end), clean_shutdown: true };
        let site = || site_on(&bench.storage, &bench.clock, &bench.config);
        let reader = Partition::open_read_only(site(), &border);
        let reader = reader.unwrap_or_else(|error| panic!("after {pieces} pieces: {error}"));
        let (writer, _) = Partition::open(site(), &border).expect("the log is sound");
        assert_eq!(read(&reader), read(&writer), "after {pieces} pieces");
        if is_done {
            assert!(pieces > 8, "there are many pieces: {pieces}");
            return;
        }
    }
}
