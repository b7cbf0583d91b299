//! Time indexes that are not true to their segments: what is found by time is what is found without them.

use proptest::prelude::*;

use super::lookup::{check_times, files};
use super::*;
use crate::batch::MarkerKind;
use crate::files::FileKind;
use crate::storage::OpenMode;
use crate::storage::counting::CountingStorage;
use crate::verify::{WalkEnd, WalkRules, walk};

const ALL: Isolation = Isolation::ReadUncommitted;

/// Segments that hold several entries of each index.
fn long() -> PartitionConfig {
    PartitionConfig { segment_bytes: 1500, ..small() }
}

fn clean(end: i64) -> RecoveryBorder {
    RecoveryBorder { clean_shutdown: true, ..unclean(end) }
}

#[test]
fn no_bit_that_flips_in_a_time_index_hides_a_record() {
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig { segment_bytes: 1 << 20, ..small() });
    let records: Vec<_> = (0..30).map(|n| (n, 1000 * (n + 1))).collect();
    for (_, time) in &records {
        partition.append(batch([*time])).expect("the disk is fine");
    }
    partition.seal_active().expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    let check = |what: &str| {
        let wanted = records.iter().map(|(_, time)| *time);
        check_times(&partition, ALL, &records, wanted).unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    check("nothing is damaged");
    assert!(!are_times_doubted(&partition));

    let path = FileKind::TimeIndex.path(Path::new(DIRECTORY), Offset(0));
    let bytes = storage.contents(&path).expect("it was sealed").len() as u64;
    assert!(bytes >= 10 * 12, "{bytes} bytes are too few for a test");
    for bit in 0..8 * bytes {
        let flip = || storage.corrupt(&path, bit / 8, 1 << (bit % 8)).expect("the byte is there");
        flip();
        check(&format!("bit {bit}"));
        flip();
    }
    assert!(are_times_doubted(&partition), "somebody has noticed");
}

#[test]
fn an_entry_that_names_a_later_batch_of_its_timestamp_hides_no_record_between_them() {
    // An entry for each batch that is later than all before it, and one for every three batches at most: its
    // offset is behind that of the next entry, or between them, with a later batch before it.
    let each = (1, &[5, 10, 30, 10, 40][..], [1, 3]);
    let third = (200, &[5, 6, 7, 10, 30, 10, 40][..], [3, 5]);
    for (index_interval_bytes, times, [offset, other]) in [each, third] {
        let storage = disk(1);
        let (segment_bytes, snapshot_interval_bytes) = (1 << 20, 1 << 20);
        let limits = PartitionConfig { segment_bytes, snapshot_interval_bytes, ..small() };
        let partition = create(&storage, PartitionConfig { index_interval_bytes, ..limits });
        for time in times {
            partition.append(batch([*time])).expect("the disk is fine");
        }
        partition.seal_active().expect("the disk is fine");
        flush(&partition).expect("the disk is fine");
        let path = FileKind::TimeIndex.path(Path::new(DIRECTORY), Offset(0));
        let entry = storage.contents(&path).expect("it was sealed");
        assert_eq!((entry[7], entry[11]), (10, offset), "the first entry");
        storage.corrupt(&path, 11, offset ^ other).expect("the byte is there");
        let records: Vec<_> = (0..).zip(times.iter().copied()).collect();
        let checked = check_times(&partition, ALL, &records, 0..45);
        checked.unwrap_or_else(|error| panic!("{index_interval_bytes}: {error}"));
        assert!(are_times_doubted(&partition));
    }
}

#[test]
fn zeros_in_a_time_index_are_not_taken_for_what_is_known_of_a_marker() {
    let storage = disk(1);
    let config = || PartitionConfig { segment_bytes: 1 << 20, snapshot_interval_bytes: 1 << 20, ..small() };
    let partition = create(&storage, config());
    let begun = stamped(batch_at([(0, Timestamp(-50))]), 9, 0, 0, true);
    partition.append_to_transaction(begun).expect("the disk is fine");
    partition.seal_active().expect("the disk is fine");
    let marked = partition.append_marker(MarkerKind::Commit, ProducerId(9), ProducerEpoch(0), 0);
    let base = marked.expect("the disk is fine").expect("it is open");
    // What is known of the producers is written down behind the marker.
    partition.close().expect("the disk is fine");
    let (partition, _) = Partition::open(site(&storage, config()), &clean(2)).expect("it is sound");
    for time in [-40, -30, -20] {
        partition.append(batch_at([(time, Timestamp(time))])).expect("the disk is fine");
    }
    partition.seal_active().expect("the disk is fine");
    partition.append(batch_at([(-10, Timestamp(-10))])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    storage.kill();
    let path = FileKind::TimeIndex.path(Path::new(DIRECTORY), base);
    let index = storage.open(&path, OpenMode::Write).expect("it was sealed");
    assert!(index.len().expect("the disk is fine") >= 2 * 12, "the last entry is as it was");
    index.write_at(0, &[0; 12]).expect("the disk is fine");

    let (partition, report) = Partition::open(site(&storage, config()), &unclean(2)).expect("it is sound");
    let records = [(0, -50), (2, -40), (3, -30), (4, -20), (5, -10)];
    check_times(&partition, ALL, &records, -60..10).unwrap_or_else(|error| panic!("{error}"));
    let rules = WalkRules { recovery_point: Some(report.end), has_gaps: false, is_start_known: true };
    let walk = walk(&*storage, partition.name(), Path::new(DIRECTORY), rules).expect("the disk is fine");
    assert_eq!((walk.ending, walk.indexes), (WalkEnd::Complete, Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_byte_of_a_time_index_is_damaged_what_is_found_by_time_is_the_same(
        batches in prop::collection::vec(prop::collection::vec(0..25i64, 1..3), 8..30),
        mask in 1..=u8::MAX,
        start in any::<prop::sample::Index>(),
        left_damaged in any::<prop::sample::Index>(),
        closes in any::<bool>(),
    ) {
        let storage = disk(1);
        let writer = create(&storage, long());
        let mut records = Vec::new();
        for (index, times) in batches.iter().enumerate() {
            let times: Vec<_> = times.iter().map(|time| time + 3 * index as i64).collect();
            let appended = writer.append(batch(times.iter().copied())).expect("the disk is fine");
            records.extend((appended.base_offset.0..).zip(times));
        }
        flush(&writer).expect("the disk is fine");
        let end = records.len() as i64;
        let start = start.index(records.len()) as i64;
        writer.delete_records(Offset(start)).expect("it is stable");
        records.retain(|(offset, _)| *offset >= start);
        let wanted = || 0..3 * batches.len() as i64 + 26;

        let reader = Partition::open_read_only(site(&storage, long()), &unclean(end)).expect("it is sound");
        let handles = [writer.clone(), reader];
        let mut turn = handles.iter().cycle();
        for (path, bytes) in files(&storage, "timeindex") {
            for position in 0..bytes.len() as u64 {
                let flip = || storage.corrupt(&path, position, mask.rotate_left(position as u32));
                flip().expect("the byte is there");
                check_times(turn.next().expect("it never ends"), ALL, &records, wanted())?;
                flip().expect("the byte is there");
            }
        }
        drop(handles);

        // Recovery reads no more than it has to, and believes no more than is so.
        if closes {
            writer.close().expect("the disk is fine");
        }
        drop(writer);
        storage.kill();
        let damaged = files(&storage, "timeindex").into_iter();
        let bytes = damaged.flat_map(|(path, bytes)| (0..bytes.len() as u64).map(move |at| (path.clone(), at)));
        let bytes: Vec<_> = bytes.collect();
        if !bytes.is_empty() {
            let (path, position) = left_damaged.get(&bytes);
            storage.corrupt(path, *position, mask).expect("the byte is there");
        }
        let border = if closes { clean(end) } else { unclean(end) };
        let writer = Partition::open(site(&storage, long()), &border).expect("it is only a hint").0;
        check_times(&writer, ALL, &records, wanted())?;
    }
}

#[test]
fn a_time_index_that_is_empty_or_gone_says_nothing_about_records() {
    // The latest of all are at the front, far from where a segment is read when it is opened.
    let times: Vec<i64> = (0..60).map(|n| if n % 20 == 1 { 90 - n } else { n % 7 }).collect();
    for (closes, is_gone) in [(true, true), (true, false), (false, true), (false, false)] {
        let storage = disk(1);
        let writer = create(&storage, PartitionConfig { segment_bytes: 1800, ..small() });
        for time in &times {
            writer.append(batch([*time])).expect("the disk is fine");
        }
        flush(&writer).expect("the disk is fine");
        if closes {
            writer.close().expect("the disk is fine");
        }
        drop(writer);
        storage.kill();
        let indexes = files(&storage, "timeindex");
        assert!(indexes.len() > 2);
        for path in indexes.keys() {
            if is_gone {
                storage.remove_file(path).expect("it is there");
            } else {
                let index = storage.open(path, OpenMode::Write).expect("it is there");
                index.truncate(0).expect("the disk is fine");
            }
        }
        let end = times.len() as i64;
        let border = if closes { clean(end) } else { unclean(end) };
        let config = PartitionConfig { segment_bytes: 1800, ..small() };
        let reader =
            Partition::open_read_only(site(&storage, config.clone()), &border).expect("they are hints");
        let writer = Partition::open(site(&storage, config), &border).expect("they are hints").0;
        let records: Vec<_> = (0..).zip(times.iter().copied()).collect();
        for partition in [&writer, &reader] {
            let checked = check_times(partition, ALL, &records, 0..100);
            checked.unwrap_or_else(|error| panic!("closed: {closes}, gone: {is_gone}: {error}"));
            assert!(!are_times_doubted(partition), "they were made again");
        }
    }
}

#[test]
fn a_lookup_by_time_reads_little_of_a_long_segment() {
    let storage = CountingStorage::new(disk(1));
    let config = PartitionConfig { snapshot_interval_bytes: 1 << 30, ..PartitionConfig::default() };
    let partition = Partition::create(site(&storage, config)).expect("there is none yet");
    for number in 0..20_000 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    partition.seal_active().expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    let bytes = partition.segments.load()[0].bytes();
    for time in [5_000, 10_001, 15_123] {
        let before = storage.counts().read_bytes;
        let found = partition.offset_for_timestamp(Timestamp(time)).expect("it is sound");
        assert_eq!(found, Some((Offset(time), Timestamp(time))));
        let read = storage.counts().read_bytes - before;
        // One piece as readers of segments read it, and a few entries.
        assert!(read < (256 << 10) + 1000 && 4 * read < bytes, "{read} of {bytes}");
    }
}
