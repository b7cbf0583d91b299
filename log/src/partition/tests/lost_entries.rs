//! Indexes that have lost entries at their end, or are gone: what is found, shown and deleted is what it was before.

use super::lookup::{check_times, files};
use super::*;
use crate::batch::MarkerKind;
use crate::files::FileKind;
use crate::retention::{self, Expired, RetentionFacts};
use crate::storage::OpenMode;
use crate::verify::{WalkRules, walk};
use crate::{cleanup, compaction};

/// Segments of 26 records with some entries of each index. The producers are written down behind the first half.
fn long() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 2200,
        index_interval_bytes: 100,
        snapshot_interval_bytes: 1000,
        ..small()
    }
}

fn border(clean_shutdown: bool, end: i64) -> RecoveryBorder {
    RecoveryBorder { clean_shutdown, ..unclean(end) }
}

/// Records by offset, the later ones of each segment where nobody looks when it is opened: before the producers are
/// written down, and later ones still behind that.
fn unordered() -> Vec<(i64, i64)> {
    let time = |segment: i64, within: i64| match within {
        0..8 => 100 * within + segment,
        14..20 => 800 + 10 * (within - 14) + segment,
        _ => within,
    };
    (0..92).map(|number| (number, time(number / 26, number % 26))).collect()
}

/// A disk with these records, of which the writer was closed or killed.
fn written(records: &[(i64, i64)], closes: bool) -> Arc<MemoryStorage> {
    let storage = disk(1);
    let writer = create(&storage, long());
    for (number, time) in records {
        writer.append(batch_at([(*number, Timestamp(*time))])).expect("the disk is fine");
    }
    if closes {
        writer.close().expect("the disk is fine");
    } else {
        flush(&writer).expect("the disk is fine");
    }
    drop(writer);
    storage.kill();
    storage
}

/// What retention by time would delete at each time, by what the partition knows of its segments.
fn expired(partition: &Partition, times: std::ops::Range<i64>) -> Vec<Expired> {
    let view = partition.compaction_view();
    let facts = |(segment, end): &(Arc<Segment>, Offset)| partition.sealed_facts(segment, *end);
    let sealed: Vec<_> = view.sealed.iter().map(facts).collect();
    expired_of(&sealed, view.active.bytes(), view.active.max_timestamp(), partition.offsets().end, times)
}

/// The same by the records themselves.
fn expired_by_records(
    partition: &Partition,
    records: &[(i64, i64)],
    times: std::ops::Range<i64>,
) -> Vec<Expired> {
    let view = partition.compaction_view();
    let largest = |base: Offset, end: Offset| {
        let within = records.iter().filter(|(offset, _)| (base.0..end.0).contains(offset));
        within.map(|(_, time)| Timestamp(*time)).max()
    };
    let facts = |(segment, end): &(Arc<Segment>, Offset)| compaction::plan::SealedFacts {
        max_timestamp: largest(segment.base(), *end),
        ..partition.sealed_facts(segment, *end)
    };
    let sealed: Vec<_> = view.sealed.iter().map(facts).collect();
    let end = partition.offsets().end;
    expired_of(&sealed, view.active.bytes(), largest(view.active.base(), end), end, times)
}

fn expired_of(
    sealed: &[compaction::plan::SealedFacts],
    active_bytes: u64,
    active_timestamp: Option<Timestamp>,
    bound: Offset,
    times: std::ops::Range<i64>,
) -> Vec<Expired> {
    let retention = cleanup::Retention { time: Some(std::time::Duration::ZERO), bytes: None };
    let cleanup = Cleanup { retention, ..Cleanup::default() };
    let facts = RetentionFacts { sealed, active_bytes, active_timestamp, start: Offset(0), bound };
    times.map(|now| retention::expired(&facts, &cleanup, Timestamp(now))).collect()
}

/// Opens what is left of the records, to read and to write: it is what it was, and made anew where it was lost.
fn check(storage: &Arc<MemoryStorage>, closes: bool, records: &[(i64, i64)], what: &str) {
    let border = border(closes, records.len() as i64);
    let reader = Partition::open_read_only(site(storage, long()), &border).expect("it can be made anew");
    let writer = Partition::open(site(storage, long()), &border).expect("it can be made anew").0;
    for partition in [&reader, &writer] {
        let checked = check_times(partition, Isolation::ReadUncommitted, records, 0..900);
        checked.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!are_times_doubted(partition), "{what}: it was made anew");
        check_indexed(partition).unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected = expired_by_records(partition, records, 0..900);
        assert!(expected.iter().any(|expired| expired.segments > 0 && !expired.reaches_active));
        assert_eq!(expired(partition, 0..900), expected, "{what}");
    }
}

fn truncate(storage: &MemoryStorage, path: &Path, bytes: usize) {
    let file = storage.open(path, OpenMode::Write).expect("it is there");
    file.truncate(bytes as u64).expect("the disk is fine");
}

#[test]
fn however_many_entries_an_index_has_lost_nothing_is_hidden_and_nothing_deleted_too_early() {
    let records = unordered();
    let mut cuts = 0;
    for (closes, (kind, entry)) in [true, false].into_iter().flat_map(|closes| {
        [(FileKind::TimeIndex, 12), (FileKind::OffsetIndex, 8)].map(|index| (closes, index))
    }) {
        let indexes = files(&written(&records, closes), "index");
        let is_of_kind = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("it is text");
            FileKind::parse(name).is_some_and(|(_, found)| found == kind)
        };
        let indexes: Vec<_> = indexes.into_iter().filter(|(path, _)| is_of_kind(path)).collect();
        assert_eq!(indexes.len(), 4, "the last segment has one too");
        for (path, bytes) in indexes {
            let entries = bytes.len() / entry;
            assert!(entries > 2, "{entries} entries are too few for a test");
            for left in 0..entries {
                cuts += 1;
                let storage = written(&records, closes);
                truncate(&storage, &path, left * entry);
                let what = format!("{left} of {entries} entries are left of {}", path.display());
                check(&storage, closes, &records, &what);
            }
        }
    }
    assert!(cuts > 100, "{cuts} cuts");
}

/// Segments in which the producers are written down twice before they are sealed.
fn noted_often() -> PartitionConfig {
    PartitionConfig { segment_bytes: 2000, snapshot_interval_bytes: 700, ..small() }
}

/// Transactions, each of one record, that are aborted in turn. Later ones are of earlier times, so that no time tells of
/// them.
fn aborted_in_turn(closes: bool) -> Arc<MemoryStorage> {
    let storage = disk(5);
    let partition = create(&storage, noted_often());
    for number in 0..40 {
        let batch = stamped(batch_at([(number, Timestamp(100 - number))]), 9, number as i16, 0, true);
        partition.append_to_transaction(batch).expect("the disk is fine");
        let kind = if number % 2 == 0 { MarkerKind::Abort } else { MarkerKind::Commit };
        let marked = partition.append_marker(kind, ProducerId(9), ProducerEpoch(number as i16), 0);
        marked.expect("the disk is fine").expect("it is open");
    }
    if closes {
        partition.close().expect("the disk is fine");
    } else {
        flush(&partition).expect("the disk is fine");
    }
    drop(partition);
    storage.kill();
    storage
}

fn committed_in_turn() -> Vec<i64> {
    (0..40).filter(|number| number % 2 == 1).collect()
}

fn committed(partition: &Partition) -> Vec<i64> {
    let read = read_numbers(partition, Offset(0), 300, Isolation::ReadCommitted);
    read.expect("it is sound").into_iter().map(|(_, number)| number).collect()
}

/// Opens the partition to read it, to write to it, and to read it once it was made anew and closed.
fn reopened(storage: &Arc<MemoryStorage>, closes: bool) -> Vec<(Arc<Partition>, &'static str)> {
    let border = border(closes, 80);
    let reader =
        Partition::open_read_only(site(storage, noted_often()), &border).expect("it can be made anew");
    let writer = Partition::open(site(storage, noted_often()), &border).expect("it can be made anew").0;
    writer.close().expect("the disk is fine");
    let again = Partition::open_read_only(site(storage, noted_often()), &unclean(80)).expect("it is sound");
    vec![(reader, "read"), (writer, "written"), (again, "read again")]
}

#[test]
fn whatever_is_lost_of_the_files_beside_a_segment_readers_of_committed_records_see_what_they_saw_before() {
    let kinds = [
        FileKind::OffsetIndex,
        FileKind::TimeIndex,
        FileKind::TransactionIndex,
        FileKind::IndexSum,
        FileKind::Snapshot,
    ];
    let mut with_aborted = 0;
    for closes in [true, false] {
        let bases = files(&aborted_in_turn(closes), ".log");
        let bases = bases.keys().map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("it is text");
            FileKind::parse(name).expect("it is one of ours").0
        });
        let all = 1 << kinds.len();
        for (base, subset) in bases.flat_map(|base| (0..all).map(move |subset| (base, subset))) {
            let storage = aborted_in_turn(closes);
            let mut lost = Vec::new();
            for (_, kind) in kinds.iter().enumerate().filter(|(place, _)| subset >> place & 1 == 1) {
                let path = kind.path(Path::new(DIRECTORY), base);
                if storage.exists(&path).expect("the disk is fine") {
                    storage.remove_file(&path).expect("it is there");
                    with_aborted += usize::from(*kind == FileKind::TransactionIndex);
                    lost.push(path);
                }
            }
            for (partition, how) in reopened(&storage, closes) {
                assert_eq!(
                    committed(&partition),
                    committed_in_turn(),
                    "closed: {closes}, {how} without {lost:?}"
                );
            }
        }
    }
    assert!(with_aborted > 100, "{with_aborted} files");
}

#[test]
fn indexes_that_are_what_they_were_when_they_were_noted_before_are_not_believed_to_be_all() {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes")) as usize;
    let mut lost = 0;
    for closes in [true, false] {
        for (path, bytes) in files(&aborted_in_turn(closes), ".sum") {
            for note in bytes.chunks_exact(52) {
                let storage = aborted_in_turn(closes);
                let held = [("index", 8, 12), ("timeindex", 12, 24), ("txnindex", 34, 36)];
                for (extension, entry, at) in held {
                    let index = path.with_extension(extension);
                    let before = storage.contents(&index).expect("it is there").len();
                    let held = entry * number(&note[at..at + 8]);
                    lost += usize::from(extension == "txnindex" && held < before);
                    truncate(&storage, &index, held);
                }
                for (partition, _) in reopened(&storage, closes) {
                    let what = format!("closed: {closes}, {} is older", path.display());
                    assert_eq!(committed(&partition), committed_in_turn(), "{what}");
                }
            }
        }
    }
    assert!(lost > 4, "{lost} indexes of aborted transactions have lost something");
}

#[test]
fn what_comes_back_of_indexes_that_spoke_of_a_longer_segment_is_not_believed_with_the_note_of_it() {
    let config = || PartitionConfig { segment_bytes: 1 << 20, snapshot_interval_bytes: 1 << 20, ..small() };
    // All of one time: the index by time is the same.
    let append = |partition: &Partition, numbers: std::ops::Range<i64>| {
        for number in numbers {
            partition.append(batch_at([(number, Timestamp(7))])).expect("the disk is fine");
        }
    };
    let longer = disk(1);
    let partition = create(&longer, config());
    append(&partition, 0..20);
    partition.close().expect("the disk is fine");
    for end in 1..20 {
        let storage = disk(1);
        let partition = create(&storage, config());
        append(&partition, 0..end);
        partition.seal_active().expect("the disk is fine");
        append(&partition, end..30);
        partition.close().expect("the disk is fine");
        for kind in [FileKind::OffsetIndex, FileKind::IndexSum] {
            let path = kind.path(Path::new(DIRECTORY), Offset(0));
            let bytes = longer.contents(&path).expect("it was closed");
            truncate(&storage, &path, 0);
            let file = storage.open(&path, OpenMode::Write).expect("it was sealed");
            file.write_at(0, &bytes).expect("the disk is fine");
        }
        let (partition, _) =
            Partition::open(site(&storage, config()), &border(true, 30)).expect("it can be made anew");
        check_indexed(&partition).expect("what is indexed is there");
        let rules = WalkRules { recovery_point: Some(Offset(30)), has_gaps: false, is_start_known: true };
        let walk = walk(&*storage, partition.name(), Path::new(DIRECTORY), rules).expect("the disk is fine");
        assert_eq!(walk.indexes, [], "cut off at {end}");
    }
}

#[test]
fn a_power_cut_while_the_indexes_are_noted_has_no_more_read_than_what_was_written_since_they_were_before() {
    let config = PartitionConfig { segment_bytes: 1 << 20, ..small() };
    let mut lost = 0;
    for seed in 0..200 {
        let storage = disk(seed);
        let partition = create(&storage, config.clone());
        let taken = || files(&storage, "snapshot").len();
        let mut number = 0;
        let mut append = || {
            partition.append(batch([number])).expect("the disk is fine");
            number += 1;
        };
        (0..60).for_each(|_| append());
        flush(&partition).expect("the disk is fine");
        let before = taken();
        while taken() == before {
            append();
        }
        storage.crash();
        let (partition, report) =
            Partition::open(site(&storage, config.clone()), &unclean(60)).expect("it is sound");
        lost += usize::from(partition.offsets().end.0 < number);
        let bound = 2 * config.snapshot_interval_bytes + 200;
        assert!(report.scanned_bytes <= bound, "{} bytes with seed {seed}", report.scanned_bytes);
    }
    assert!(lost > 20, "{lost} power cuts took something");
}
