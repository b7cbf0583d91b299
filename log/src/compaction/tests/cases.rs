//! What compaction keeps, case by case. The cases are those of Kafka's `LogCleanerTest`, with an epoch of
//! its own for each transaction as this log demands it.

use super::*;
use crate::error::ErrorKind;
use crate::open_files::is_stale;
use crate::partition::OffsetSpec;
use crate::partition::tests::are_times_doubted;

#[test]
fn the_newest_record_of_each_key_stays_with_its_offset_and_in_order() {
    let bench = Bench::new();
    for keys in [[1, 2], [3, 1], [4, 2], [3, 5]] {
        bench.plain(&keys);
        bench.roll();
    }
    bench.plain(&[1, 2, 3]);
    flush(&bench.partition).expect("the disk is fine");
    let report = bench.compact();
    // The last three are in the active segment, and say nothing about what is before.
    assert_eq!(bench.keys(), [1, 4, 2, 3, 5, 1, 2, 3]);
    assert_eq!(bench.offsets(), [3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!((report.keys, report.clean_end), (5, Offset(8)));
    assert!(report.bytes_after < report.bytes_before);
    assert_eq!(bench.segments(), 2, "small segments become one");
}

#[test]
fn records_without_a_key_go() {
    let bench = Bench::new();
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(5), None, Some(b"no key"), &[]).expect("it is small");
    push(&mut builder, 7, Some("v"));
    bench.append(builder.seal());
    bench.roll();
    bench.compact();
    assert_eq!(bench.offsets(), [1]);
}

#[test]
fn compressed_batches_stay_compressed_and_lose_what_is_old() {
    let bench = Bench::new();
    for compression in [Compression::Lz4, Compression::Zstd { level: 3 }, Compression::Snappy] {
        let mut builder = BatchBuilder::new(compression);
        (0..50).for_each(|key| push(&mut builder, key, Some("a value that is worth compressing")));
        (0..10).for_each(|key| push(&mut builder, key, Some("a value that is worth compressing")));
        bench.append(builder.seal());
    }
    bench.roll();
    bench.compact();
    assert_eq!(bench.offsets(), (130..180).collect::<Vec<_>>());
}

#[test]
fn a_producer_that_repeats_its_last_batch_is_answered_with_the_old_offsets_after_a_crash_too() {
    let mut bench = Bench::new();
    bench.idempotent(1, 0, &[1, 2, 3]);
    bench.idempotent(2, 0, &[3, 1, 4]);
    bench.idempotent(3, 0, &[1, 4]);
    bench.roll();
    bench.compact();
    assert_eq!(bench.last_offsets(), [2, 5, 7]);
    assert_eq!((bench.keys(), bench.offsets()), (vec![2, 3, 1, 4], vec![1, 3, 6, 7]));
    bench.crash();
    let appended =
        |base, last| Appended { base_offset: Offset(base), last_offset: Offset(last), duplicate: true };
    assert_eq!(bench.idempotent(1, 0, &[1, 2, 3]), appended(0, 2));
    assert_eq!(bench.idempotent(3, 0, &[1, 4]), appended(6, 7));
    assert_eq!(bench.idempotent(2, 0, &[3, 1, 4]), appended(3, 5));
    // The last record of the first producer goes, its batch does not.
    bench.idempotent(4, 0, &[2]);
    bench.roll();
    bench.compact();
    assert_eq!(bench.last_offsets(), [2, 5, 7, 8]);
    assert_eq!((bench.keys(), bench.offsets()), (vec![3, 1, 4, 2], vec![3, 6, 7, 8]));
    bench.crash();
    assert_eq!(bench.idempotent(1, 0, &[1, 2, 3]), appended(0, 2));
}

#[test]
fn a_producer_whose_batches_were_deleted_is_known_after_a_crash_though_what_follows_was_compacted() {
    let mut bench = Bench::new();
    let written = bench.idempotent(1, 0, &[1, 2, 3]);
    flush(&bench.partition).expect("the disk is fine");
    bench.roll();
    bench.plain(&[1]);
    bench.plain(&[1]);
    flush(&bench.partition).expect("the disk is fine");
    bench.roll();
    bench.partition.delete_records(Offset(3)).expect("it is stable and durable");
    bench.compact();
    assert_eq!(bench.offsets(), [4], "it is compacted");
    bench.crash();
    assert_eq!(bench.idempotent(1, 0, &[1, 2, 3]), Appended { duplicate: true, ..written });
}

#[test]
fn the_last_batch_of_each_producer_stays_and_earlier_ones_do_not() {
    let bench = Bench::new();
    bench.plain(&[0]);
    bench.idempotent(1, 0, &[0]);
    bench.idempotent(2, 0, &[0]);
    bench.idempotent(3, 0, &[0]);
    bench.idempotent(2, 1, &[1]);
    bench.roll();
    bench.compact();
    assert_eq!(bench.last_offsets(), [1, 3, 4]);
    assert_eq!((bench.keys(), bench.offsets()), (vec![0, 1], vec![3, 4]));
}

#[test]
fn the_last_batch_that_no_power_cut_can_take_stays_until_the_one_behind_it_is_durable_too() {
    let bench = Bench::new();
    bench.idempotent(1, 0, &[1]);
    bench.idempotent(1, 1, &[2]);
    bench.plain(&[1, 2]);
    bench.roll();
    bench.idempotent(1, 2, &[3]);
    bench.compact();
    // What nobody has synced yet is not read.
    assert_eq!(bench.last_offsets(), [1, 3]);
    assert_eq!((bench.keys(), bench.offsets()), (vec![1, 2], vec![2, 3]));
    bench.roll();
    bench.compact();
    assert_eq!(bench.last_offsets(), [3, 4]);
}

#[test]
fn the_last_batch_of_a_producer_stays_empty_though_its_transaction_was_aborted() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[1]);
    bench.transactional(1, 0, 1, &[2, 3]);
    bench.abort(1, 0);
    bench.roll();
    bench.compact();
    assert_eq!((bench.last_offsets(), bench.keys(), bench.offsets()), (vec![2, 3], vec![], vec![3]));
    bench.transactional(1, 1, 0, &[1, 5]);
    bench.commit(1, 1);
    bench.roll();
    bench.compact();
    assert_eq!(bench.last_offsets(), [3, 5, 6]);
    assert_eq!((bench.keys(), bench.offsets()), (vec![1, 5], vec![3, 4, 5, 6]));
}

#[test]
fn aborted_records_go_and_do_not_outlive_older_committed_ones() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[1, 2]);
    bench.transactional(2, 0, 0, &[2, 3]);
    bench.transactional(1, 0, 2, &[3, 4]);
    bench.abort(1, 0);
    bench.commit(2, 0);
    bench.transactional(1, 1, 0, &[2]);
    bench.commit(1, 1);
    bench.roll();
    let aborted = bench.aborted();
    assert_eq!(aborted, [(1, 0, 6)]);
    bench.compact();
    assert_eq!((bench.keys(), bench.offsets()), (vec![3, 2], vec![3, 6, 7, 8, 9]));
    // Of the aborted transaction nothing was left but its marker: the producer has written since.
    assert_eq!(bench.last_offsets(), [3, 6, 7, 8, 9]);
}

#[test]
fn a_transaction_that_spans_segments_is_compacted_once_it_is_decided() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[1, 2]);
    bench.transactional(3, 0, 0, &[2, 3]);
    bench.transactional(2, 0, 0, &[3, 4]);
    bench.roll();
    bench.transactional(2, 0, 2, &[5, 6]);
    bench.transactional(3, 0, 2, &[6, 7]);
    bench.transactional(1, 0, 2, &[7, 8]);
    bench.abort(2, 0);
    bench.transactional(3, 0, 4, &[8, 9]);
    bench.commit(3, 0);
    bench.transactional(1, 0, 4, &[9, 10]);
    flush(&bench.partition).expect("the disk is fine");
    let before = bench.keys();
    bench.compact();
    assert_eq!(bench.keys(), before, "the first one is open still");
    bench.abort(1, 0);
    bench.roll();
    bench.transactional(2, 1, 0, &[11]);
    bench.transactional(1, 1, 0, &[12]);
    flush(&bench.partition).expect("the disk is fine");
    bench.compact();
    assert_eq!(bench.keys(), [2, 3, 6, 7, 8, 9, 11, 12]);
}

#[test]
fn a_commit_marker_goes_a_while_after_the_last_record_of_its_transaction() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[1]);
    bench.transactional(1, 0, 1, &[2, 3]);
    bench.commit(1, 0);
    bench.transactional(1, 1, 0, &[2]);
    bench.commit(1, 1);
    bench.roll();
    bench.compact();
    assert_eq!((bench.keys(), bench.offsets()), (vec![1, 3, 2], vec![0, 2, 3, 4, 5]));
    bench.transactional(1, 2, 0, &[1, 3]);
    bench.commit(1, 2);
    bench.roll();
    bench.compact();
    let left = vec![3, 4, 5, 6, 7, 8];
    assert_eq!((bench.keys(), bench.offsets()), (vec![2, 1, 3], left.clone()));
    // From the next compaction on, which finds nothing of the transaction, its time runs.
    bench.clock.advance(2 * DELETE_RETENTION);
    bench.compact();
    assert_eq!(bench.offsets(), left);
    bench.clock.advance(DELETE_RETENTION - Duration::from_millis(1));
    bench.compact();
    assert_eq!(bench.offsets(), left);
    bench.clock.advance(Duration::from_millis(1));
    bench.compact();
    assert_eq!((bench.keys(), bench.offsets()), (vec![2, 1, 3], vec![4, 5, 6, 7, 8]));
}

#[test]
fn a_commit_marker_stays_while_an_empty_batch_of_its_transaction_does() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[2, 3]);
    bench.roll();
    bench.transactional(2, 0, 0, &[2, 3]);
    bench.commit(2, 0);
    bench.roll();
    bench.plain(&[2]);
    bench.plain(&[3]);
    bench.commit(1, 0);
    bench.roll();
    for _ in 0..2 {
        bench.compact_twice();
        assert_eq!((bench.keys(), bench.offsets()), (vec![2, 3], vec![4, 5, 6, 7]));
        assert_eq!(bench.last_offsets(), [1, 3, 4, 5, 6, 7]);
    }
    bench.transactional(2, 1, 0, &[1]);
    bench.commit(2, 1);
    bench.roll();
    bench.compact();
    assert_eq!((bench.keys(), bench.offsets()), (vec![2, 3, 1], vec![4, 5, 6, 7, 8, 9]));
    assert_eq!(bench.last_offsets(), [1, 4, 5, 6, 7, 8, 9]);
    bench.compact_twice();
    assert_eq!((bench.keys(), bench.offsets()), (vec![2, 3, 1], vec![5, 6, 7, 8, 9]));
    assert_eq!(bench.last_offsets(), [1, 5, 6, 7, 8, 9]);
}

#[test]
fn an_abort_marker_goes_a_while_after_the_last_batch_of_its_transaction() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[1]);
    bench.transactional(1, 0, 1, &[2, 3]);
    bench.abort(1, 0);
    bench.transactional(1, 1, 0, &[3]);
    bench.commit(1, 1);
    bench.roll();
    bench.compact();
    assert_eq!((bench.keys(), bench.offsets()), (vec![3], vec![3, 4, 5]));
    bench.compact_twice();
    assert_eq!((bench.keys(), bench.offsets()), (vec![3], vec![4, 5]));
}

#[test]
fn an_abort_marker_and_what_readers_are_told_of_it_stay_while_an_empty_batch_does() {
    let mut bench = Bench::new();
    bench.transactional(1, 0, 0, &[2, 3]);
    bench.abort(1, 0);
    bench.roll();
    for _ in 0..2 {
        bench.compact_twice();
        assert_eq!((bench.keys(), bench.offsets(), bench.last_offsets()), (vec![], vec![2], vec![1, 2]));
        assert_eq!(bench.aborted(), [(1, 0, 2)]);
        bench.crash();
        assert_eq!(bench.aborted(), [(1, 0, 2)]);
    }
    bench.transactional(1, 1, 0, &[1]);
    bench.commit(1, 1);
    bench.roll();
    bench.compact();
    assert_eq!(bench.aborted(), [(1, 0, 2)]);
    assert_eq!(
        (bench.keys(), bench.offsets(), bench.last_offsets()),
        (vec![1], vec![2, 3, 4], vec![2, 3, 4])
    );
    bench.compact_twice();
    assert_eq!((bench.keys(), bench.offsets(), bench.last_offsets()), (vec![1], vec![3, 4], vec![3, 4]));
    assert_eq!(bench.aborted(), []);
}

#[test]
fn a_batch_and_its_marker_in_different_segments_both_stay() {
    for kind in [MarkerKind::Commit, MarkerKind::Abort] {
        let bench = Bench::new();
        bench.transactional(1, 0, 0, &[1]);
        bench.roll();
        bench.end(kind, 1, 0);
        bench.roll();
        for _ in 0..2 {
            bench.compact_twice();
            assert_eq!(bench.last_offsets(), [0, 1]);
        }
        let offsets = if kind == MarkerKind::Commit { vec![0, 1] } else { vec![1] };
        assert_eq!(bench.offsets(), offsets);
    }
}

#[test]
fn a_record_with_the_key_of_a_marker_does_not_take_its_place() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[1]);
    bench.commit(1, 0);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(5), Some(&[0, 0, 0, 1]), Some(b"foo"), &[]).expect("it is small");
    bench.append(stamped(builder.seal(), 2, 0, 0, true));
    bench.commit(2, 0);
    bench.roll();
    bench.compact();
    assert_eq!((bench.offsets(), bench.last_offsets()), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
}

#[test]
fn what_was_aborted_is_known_through_passes_that_see_only_a_part() {
    let mut bench = Bench::new();
    bench.key_map_bytes = 4 * 24;
    bench.transactional(1, 0, 0, &[1, 2]); // 0
    bench.transactional(2, 0, 0, &[2, 3]); // 2
    bench.transactional(1, 0, 2, &[3, 4]); // 4
    bench.commit(1, 0); // 6
    bench.commit(2, 0); // 7
    bench.transactional(1, 1, 0, &[2, 3]); // 8
    bench.abort(1, 1); // 10
    bench.transactional(2, 1, 0, &[4, 5]); // 11
    bench.transactional(1, 2, 0, &[5, 6]); // 13
    bench.commit(1, 2); // 15
    bench.abort(2, 1); // 16
    bench.transactional(2, 2, 0, &[6, 7]); // 17
    bench.commit(2, 2); // 19
    bench.roll();
    assert_eq!(bench.aborted(), [(1, 8, 10), (2, 11, 16)]);
    let compact = |bench: &Bench| bench.compact().clean_end.0;
    // Three keys fit: 1, 2, 3.
    assert_eq!(compact(&bench), 5);
    assert_eq!(bench.offsets(), [0, 2, 4, 5, 6, 7, 10, 13, 14, 15, 16, 17, 18, 19]);
    // Nothing of the aborted ones is left: there is nothing to be told of.
    assert_eq!(compact(&bench), 18, "4, 5, 6");
    assert_eq!(bench.aborted(), []);
    assert_eq!(bench.offsets(), [0, 2, 4, 5, 6, 7, 10, 13, 15, 16, 17, 18, 19]);
    bench.clock.advance(DELETE_RETENTION);
    assert_eq!(compact(&bench), 20);
    assert_eq!(bench.offsets(), [0, 2, 4, 5, 6, 7, 13, 15, 17, 18, 19]);
    assert!(bench.partition.open_transactions().is_empty());
}

#[test]
fn a_map_for_one_key_gets_on_with_it_all_the_same() {
    let mut bench = Bench::new();
    bench.key_map_bytes = 0;
    bench.plain(&[0, 1, 0, 1, 0]);
    bench.roll();
    let mut passes = 0;
    while bench.compact().clean_end < Offset(5) {
        passes += 1;
        assert!(passes < 10, "it gets on");
    }
    assert_eq!((bench.keys(), bench.offsets()), (vec![1, 0], vec![3, 4]));
}

#[test]
fn a_tombstone_takes_what_is_before_it_at_once_and_goes_itself_once_its_time_has_passed() {
    let bench = Bench::new();
    bench.plain(&[1, 2]);
    bench.append(tombstones(&[1]));
    bench.plain(&[3]);
    bench.roll();
    for _ in 0..2 {
        bench.compact();
        assert_eq!((bench.keys(), bench.offsets()), (vec![2, 1, 3], vec![1, 2, 3]));
        bench.clock.advance(DELETE_RETENTION / 2);
    }
    bench.compact();
    assert_eq!((bench.keys(), bench.offsets()), (vec![2, 3], vec![1, 3]));
}

#[test]
fn tombstones_stay_at_and_behind_the_floor_however_old_they_are() {
    let raise = |bench: &Bench, to| bench.partition.raise_tombstone_floor(Offset(to)).expect("it is open");
    let mut bench = Bench::new();
    assert_eq!(raise(&bench, 0), Offset(0));
    bench.append(tombstones(&[1, 2, 3]));
    bench.plain(&[4]);
    bench.roll();
    bench.compact_twice();
    assert_eq!(bench.offsets(), [0, 1, 2, 3]);
    bench.crash();
    assert_eq!(bench.partition.tombstone_floor(), Some(Offset(0)), "it outlives a crash");
    assert_eq!(raise(&bench, 2), Offset(2));
    bench.compact();
    assert_eq!(bench.offsets(), [2, 3]);
    assert_eq!(raise(&bench, 1), Offset(2), "it does not sink");
    bench.crash();
    assert!(bench.partition.tombstone_floor() <= Some(Offset(2)), "a lower one keeps more");
}

#[test]
fn the_last_batch_of_the_range_stays_so_that_its_end_is_known() {
    let mut bench = Bench::new();
    bench.append(tombstones(&[1]));
    bench.roll();
    bench.compact_twice();
    assert_eq!((bench.offsets(), bench.last_offsets()), (vec![], vec![0]));
    bench.crash();
    assert_eq!(bench.partition.offsets().end, Offset(1));
    assert_eq!(bench.plain(&[1]).base_offset, Offset(1));
}

#[test]
fn what_somebody_has_pinned_is_read_as_it_was() {
    let bench = Bench::new();
    for _ in 0..3 {
        bench.plain(&[1, 2]);
        bench.roll();
    }
    let pin = bench.partition.pin(Offset(3), "a test");
    bench.compact();
    assert_eq!(bench.offsets(), [0, 1, 2, 3, 4, 5], "segments before the pin hold nothing that is old there");
    let limits = CompactionLimits { key_map_bytes: 1 << 10, seed: [0, 0] };
    drop(pin);
    let mut compaction = Compaction::begin(bench.partition.clone(), &all_dirt(&bench.partition), limits);
    compaction.advance(Waker::noop()).expect("it begins");
    let _pin = bench.partition.pin(Offset(3), "a test");
    let error = loop {
        match compaction.advance(Waker::noop()) {
            Ok(Piece::Done) => panic!("somebody has pinned it"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert_eq!(bench.offsets(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_bad_batch_ends_the_compaction_and_everything_is_left_as_it_is() {
    let bench = Bench::new();
    bench.plain(&[1, 2]);
    bench.plain(&[1, 2]);
    bench.roll();
    let log = bench.partition.compaction_view().sealed[0].0.path().to_owned();
    bench.storage.corrupt(&log, 70, 1).expect("the byte is there");
    let error = bench.try_compact().expect_err("a checksum is wrong");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("offset 0"), "{error}");
    bench.storage.corrupt(&log, 70, 1).expect("the byte is there");
    assert_eq!(bench.offsets(), [0, 1, 2, 3]);
    assert!(!bench.partition.is_poisoned());
}

#[test]
fn what_compaction_leaves_is_found_by_time_and_its_time_indexes_are_true() {
    let mut bench = Bench::new();
    let batch_at = |keys: &[(i64, i64)]| {
        let mut builder = BatchBuilder::new(Compression::None);
        for (key, time) in keys {
            let value = (key % 7 != 0).then_some(&b"v"[..]);
            builder
                .push(Timestamp(*time), Some(key.to_string().as_bytes()), value, &[])
                .expect("it is small");
        }
        builder.seal()
    };
    // Every round ends with a marker, and the latest record of most batches is one that goes.
    for round in 0..20 {
        let time = |n: i64| 10 * round + 7 * n % 23;
        bench.append(batch_at(&[(round % 3, time(1) + 9), (100 + round, time(2))]));
        bench.append(stamped(
            batch_at(&[(round % 7, time(3)), (round % 5, time(4))]),
            1,
            round as i16,
            0,
            true,
        ));
        bench.end(if round % 4 == 0 { MarkerKind::Abort } else { MarkerKind::Commit }, 1, round as i16);
    }
    bench.roll();
    bench.compact_twice();
    let check = |partition: &Partition| {
        let mut scratch = DecompressionBuffer::new();
        let fetched = partition.fetch(Offset(0), 1 << 20, Isolation::ReadUncommitted).expect("it is sound");
        let mut records = Vec::new();
        for batch in fetched.committed() {
            let batch = batch.expect("it is sound");
            let found = batch.records(&mut scratch).expect("it is not compressed");
            records
                .extend(found.map(|record| record.expect("it is sound")).map(|it| (it.offset, it.timestamp)));
        }
        assert!((20..50).contains(&records.len()), "{records:?}");
        let find = |spec| {
            let found = partition.find_offset(spec, Isolation::ReadUncommitted).expect("it is sound");
            found.map(|found| (found.offset, found.timestamp.expect("it is of a record")))
        };
        for time in (0..230).map(Timestamp) {
            let first = records.iter().find(|(_, of)| *of >= time).copied();
            assert_eq!(find(OffsetSpec::AtOrAfter(time)), first, "{time}");
        }
        let largest = records.iter().map(|(_, time)| *time).max();
        assert_eq!(find(OffsetSpec::MaxTimestamp), records.iter().find(|it| Some(it.1) == largest).copied());
        assert!(!are_times_doubted(partition));
    };
    check(&bench.partition);
    bench.crash();
    check(&bench.partition);
}

#[test]
fn who_reads_a_segment_while_it_is_replaced_reads_it_to_its_end() {
    let bench = Bench::new();
    bench.transactional(1, 0, 0, &[1, 2]);
    bench.abort(1, 0);
    bench.plain(&[1, 2]);
    bench.plain(&[1, 2]);
    bench.transactional(1, 1, 0, &[7]);
    bench.commit(1, 1);
    bench.roll();
    let replaced = bench.partition.compaction_view().sealed[0].0.clone();
    let mut scanner = replaced.scan(replaced.start()).expect("it is there");
    bench.compact_twice();
    bench.compact_twice();
    assert_eq!(bench.offsets(), [5, 6, 7, 8]);
    let mut offsets = Vec::new();
    while let Some((_, batch)) = scanner.next().expect("its file is there for who has it open") {
        offsets.push(batch.header().base_offset.0);
    }
    assert_eq!(offsets, [0, 2, 3, 5, 7, 8]);
    let aborted = replaced.aborted.collect(Offset(0), Offset(3), &mut Vec::new());
    assert!(is_stale(&aborted.expect_err("nobody has it open")), "nothing is said that may be of another");
}
