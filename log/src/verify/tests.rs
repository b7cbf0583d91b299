//! What a walk says of indexes, and of nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::batch::{BatchBuilder, Compression, MarkerKind};
use crate::clock::ManualClock;
use crate::files::{FileKind, Listing, Stage};
use crate::log::{Log, LogOptions};
use crate::partition::tests::{DIRECTORY, create, disk, flush, small, stamped};
use crate::partition::{Partition, PartitionConfig};
use crate::record::{ProducerEpoch, Timestamp};
use crate::storage::OpenMode;
use crate::storage::SyncPurpose;
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;
use crate::topic::TopicConfig;

/// Records in each of the batches, in turn.
const RECORDS: [i64; 3] = [1, 3, 2];

fn write(partition: &Partition) {
    for number in 0..60i64 {
        let mut builder = BatchBuilder::new(Compression::None);
        for record in 0..RECORDS[number as usize % 3] {
            // Not in order, and the latest of each twenty is the eighth.
            let time =
                Timestamp(100 * (number / 20) + if number % 20 < 8 { 5 * (number % 20) } else { record });
            builder.push(time, None, Some(b"value"), &[]).expect("it is small");
        }
        if number % 5 != 0 {
            partition.append(builder.seal()).expect("the disk is fine");
            continue;
        }
        let (id, epoch) = (ProducerId(9), ProducerEpoch(number as i16));
        let batch = stamped(builder.seal(), 9, number as i16, 0, true);
        partition.append_to_transaction(batch).expect("the disk is fine");
        let kind = if number % 2 == 0 { MarkerKind::Abort } else { MarkerKind::Commit };
        partition.append_marker(kind, id, epoch, 0).expect("the disk is fine").expect("it is open");
    }
}

/// A closed partition of several segments, and where it ends.
fn written() -> (Arc<MemoryStorage>, Offset) {
    let (storage, partition) = open();
    partition.close().expect("the disk is fine");
    (storage, partition.offsets().end)
}

/// The same, synced and open.
fn open() -> (Arc<MemoryStorage>, Arc<Partition>) {
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig { segment_bytes: 1500, ..small() });
    write(&partition);
    flush(&partition).expect("the disk is fine");
    (storage, partition)
}

fn walked(storage: &dyn Storage, recovery_point: Option<Offset>, is_start_known: bool) -> Walk {
    let rules = WalkRules { recovery_point, has_gaps: false, is_start_known };
    let name = TopicPartition::new("topic", PartitionId(3));
    walk(storage, &name, Path::new(DIRECTORY), rules).expect("it can be read")
}

/// The files of the indexes of all segments but the last, what they hold, and the bytes of an entry.
fn sealed(storage: &MemoryStorage) -> Vec<(PathBuf, Vec<u8>, usize)> {
    let directory = Path::new(DIRECTORY);
    let segments = Listing::read(storage, directory).expect("it is there").segments;
    let bases = segments.split_last().expect("there is one").1.iter();
    let kinds = [(FileKind::OffsetIndex, 8), (FileKind::TimeIndex, 12), (FileKind::TransactionIndex, 34)];
    let files = bases.flat_map(|base| kinds.map(|(kind, entry)| (kind.path(directory, *base), entry)));
    files.map(|(path, entry)| (path.clone(), storage.contents(&path).unwrap_or_default(), entry)).collect()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Whether the batches say what an index is to hold in this byte of an entry. Of an aborted transaction that is whose it
/// was, and the marker.
fn is_compared(path: &Path, at: usize) -> bool {
    !has_extension(path, "txnindex") || matches!(at, 2..=9 | 18..=25)
}

/// What a walk says of indexes, all else being as it should: in which file, and where.
fn told(storage: &dyn Storage, end: Offset) -> Vec<(PathBuf, u64)> {
    let Walk { ending, end: found, indexes, .. } = walked(storage, Some(end), true);
    assert_eq!((ending, found), (WalkEnd::Complete, end));
    indexes.into_iter().map(|damage| (damage.file, damage.position)).collect()
}

#[test]
fn each_byte_that_is_not_true_in_an_index_of_a_sealed_segment_is_told_with_the_place_of_its_entry() {
    let (storage, end) = written();
    assert_eq!(told(&*storage, end), []);
    let mut flips = 0;
    for (path, bytes, entry) in sealed(&storage) {
        for at in 0..bytes.len() {
            // The note says of the others that one of them is not true, and not which.
            let place = if is_compared(&path, at % entry) { at / entry * entry } else { 0 };
            for mask in [1, 0x40] {
                storage.corrupt(&path, at as u64, mask).expect("the byte is there");
                assert_eq!(told(&*storage, end), [(path.clone(), place as u64)], "byte {at}");
                storage.corrupt(&path, at as u64, mask).expect("the byte is there");
                flips += 1;
            }
        }
    }
    assert_eq!(told(&*storage, end), []);
    assert!(flips > 500, "{flips} bytes");
}

#[test]
fn entries_that_are_missing_at_the_end_of_an_index_are_told_and_so_is_a_file_that_is_gone() {
    let (storage, end) = written();
    let before = sealed(&storage);
    for (path, bytes, entry) in &before {
        for left in 0..bytes.len() {
            let file = storage.open(path, OpenMode::Write).expect("it is there");
            file.truncate(left as u64).expect("the disk is fine");
            let place = (path.clone(), (left / entry * entry) as u64);
            assert_eq!(told(&*storage, end), [place], "{left} bytes");
            file.write_at(0, bytes).expect("the disk is fine");
        }
        storage.remove_file(path).expect("it is there");
        assert_eq!(told(&*storage, end), [(path.clone(), 0)], "gone");
        let file = storage.open(path, OpenMode::Create).expect("it is gone");
        file.write_at(0, bytes).expect("the disk is fine");
    }
    assert_eq!(sealed(&storage), before, "nothing was changed");
}

/// The notes of all segments but the last, and what they hold.
fn notes(storage: &MemoryStorage) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(DIRECTORY);
    let segments = Listing::read(storage, directory).expect("it is there").segments;
    let bases = segments.split_last().expect("there is one").1.iter();
    let paths = bases.map(|base| FileKind::IndexSum.path(directory, *base));
    paths.map(|path| (path.clone(), storage.contents(&path).expect("it is there"))).collect()
}

#[test]
fn a_note_that_does_not_say_what_the_indexes_of_a_sealed_segment_hold_is_told_and_no_older_one_beside_it() {
    let (storage, end) = written();
    let directory = Path::new(DIRECTORY);
    let segments = Listing::read(&*storage, directory).expect("it is there").segments;
    let mut older = 0;
    for (segment, (path, bytes)) in notes(&storage).into_iter().enumerate() {
        let end_of_segment = segments[segment + 1].0.to_be_bytes();
        for (at, note) in bytes.chunks_exact(52).enumerate() {
            let is_newest = note[4..12] == end_of_segment;
            older += usize::from(!is_newest);
            let expected = if is_newest { vec![(path.clone(), 0)] } else { vec![] };
            for byte in 52 * at..52 * (at + 1) {
                storage.corrupt(&path, byte as u64, 1).expect("the byte is there");
                assert_eq!(told(&*storage, end), expected, "byte {byte}");
                storage.corrupt(&path, byte as u64, 1).expect("the byte is there");
            }
        }
        storage.remove_file(&path).expect("it is there");
        assert_eq!(told(&*storage, end), [(path.clone(), 0)], "gone");
        let file = storage.open(&path, OpenMode::Create).expect("it is gone");
        file.write_at(0, &bytes).expect("the disk is fine");
    }
    assert!(older > 2, "{older} older notes");
    assert_eq!(told(&*storage, end), []);
}

#[test]
fn of_a_segment_without_its_note_only_what_its_batches_tell_is_told_besides() {
    let (storage, end) = written();
    for (path, bytes, entry) in sealed(&storage) {
        let note = path.with_extension("sum");
        let noted = storage.contents(&note).expect("it is there");
        storage.remove_file(&note).expect("it is there");
        let file = storage.open(&path, OpenMode::Write).expect("it is there");
        file.truncate((bytes.len() - entry) as u64).expect("the disk is fine");
        let place = (path.clone(), (bytes.len() - entry) as u64);
        let expected = if has_extension(&path, "index") { vec![] } else { vec![place] };
        assert_eq!(told(&*storage, end), [&expected[..], &[(note.clone(), 0)]].concat());
        file.write_at(0, &bytes).expect("the disk is fine");
        let file = storage.open(&note, OpenMode::Create).expect("it is gone");
        file.write_at(0, &noted).expect("the disk is fine");
    }
    assert_eq!(told(&*storage, end), []);
}

#[test]
fn an_aborted_transaction_of_which_no_record_is_left_is_missed_by_what_was_noted() {
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig { segment_bytes: 1500, ..small() });
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(b"value"), &[]).expect("it is small");
    partition.append_to_transaction(stamped(builder.seal(), 5, 0, 0, true)).expect("the disk is fine");
    partition.seal_active().expect("the disk is fine");
    let aborted = partition.append_marker(MarkerKind::Abort, ProducerId(5), ProducerEpoch(0), 0);
    let marker = aborted.expect("the disk is fine").expect("it is open");
    write(&partition);
    flush(&partition).expect("the disk is fine");
    partition.remove_segments_before(marker).expect("nobody needs it");
    partition.close().expect("the disk is fine");
    let end = partition.offsets().end;
    assert_eq!(told(&*storage, end), []);

    let index = FileKind::TransactionIndex.path(Path::new(DIRECTORY), marker);
    let bytes = storage.contents(&index).expect("it is there");
    let file = storage.open(&index, OpenMode::Write).expect("it is there");
    file.write_at(0, &bytes[34..]).expect("the disk is fine");
    file.truncate(bytes.len() as u64 - 34).expect("the disk is fine");
    assert_eq!(told(&*storage, end), [(index, bytes.len() as u64 - 34)]);
}

#[test]
fn an_index_that_is_gone_is_told_though_it_held_nothing() {
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig { index_interval_bytes: 1 << 20, ..small() });
    write(&partition);
    partition.close().expect("the disk is fine");
    let (end, path) = (partition.offsets().end, FileKind::OffsetIndex.path(Path::new(DIRECTORY), Offset(0)));
    assert_eq!(storage.contents(&path).expect("it is there"), []);
    assert_eq!(told(&*storage, end), []);
    storage.remove_file(&path).expect("it is there");
    assert_eq!(told(&*storage, end), [(path, 0)]);
}

#[test]
fn an_entry_that_is_there_twice_or_behind_the_end_is_told() {
    for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
        let (storage, end) = written();
        let path = kind.path(Path::new(DIRECTORY), Offset(0));
        let bytes = storage.contents(&path).expect("it is there");
        let entry = if kind == FileKind::OffsetIndex { 8 } else { 12 };
        for from in (0..bytes.len()).step_by(entry) {
            let file = storage.open(&path, OpenMode::Write).expect("it is there");
            file.write_at(bytes.len() as u64, &bytes[from..from + entry]).expect("the disk is fine");
            assert_eq!(told(&*storage, end), [(path.clone(), bytes.len() as u64)], "the entry at {from}");
        }
    }
}

#[test]
fn no_index_is_looked_at_that_nobody_believes() {
    let (storage, end) = written();
    let segments = Listing::read(&*storage, Path::new(DIRECTORY)).expect("it is there").segments;
    for (path, _, _) in sealed(&storage) {
        storage.corrupt(&path, 9, 1).expect("the byte is there");
    }
    let sealed = segments.len() - 1;
    assert!(sealed > 3);
    let told = |recovery_point, is_start_known| {
        let mut files: Vec<_> = walked(&*storage, recovery_point, is_start_known).indexes;
        files.dedup_by(|later, damage| later.file.file_stem() == damage.file.file_stem());
        files.len()
    };
    assert_eq!(told(Some(end), true), sealed);
    assert_eq!(told(None, true), 0, "those that nobody knows to be synced");
    assert_eq!(told(Some(end), false), 0, "those of a broker");
    // The sync that reaches the end of a segment may have begun before its indexes were written out.
    for (synced, next) in segments[1..].iter().enumerate() {
        assert_eq!(told(Some(*next), true), synced, "up to {next}");
        assert_eq!(told(Some(next.plus(1)), true), synced + 1, "up to behind {next}");
    }
}

#[test]
fn the_indexes_of_a_segment_that_is_being_written_are_none_of_its_business() {
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig { segment_bytes: 1500, ..small() });
    write(&partition);
    flush(&partition).expect("the disk is fine");
    assert_eq!(told(&*storage, partition.offsets().end), []);
}

/// When a walk is interrupted: between reading the marks and the names of files, or in the first segment.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Listed,
    LogOpened,
    IndexesOpened,
    LogRead,
}

const MOMENTS: [Moment; 4] = [Moment::Listed, Moment::LogOpened, Moment::IndexesOpened, Moment::LogRead];

/// Does `act` before one of these is done.
fn interrupted(
    storage: &Arc<MemoryStorage>,
    moment: Moment,
    act: impl FnOnce() + Send + 'static,
) -> Arc<InterruptingStorage> {
    let reading = InterruptingStorage::new(storage.clone());
    let directory = Path::new(DIRECTORY);
    let of_first = |kind: FileKind| kind.path(directory, Offset(0));
    match moment {
        Moment::Listed => reading.before_list(directory, act),
        Moment::LogOpened => reading.before_open(of_first(FileKind::Log), act),
        Moment::IndexesOpened => reading.before_open(of_first(FileKind::OffsetIndex), act),
        Moment::LogRead => reading.before_read(of_first(FileKind::Log), act),
    }
    reading
}

#[test]
fn nothing_is_told_of_a_segment_that_is_removed_while_it_is_walked_however_far_its_removal_has_come() {
    for moment in MOMENTS {
        for operations in 0.. {
            let (storage, partition) = open();
            let end = partition.offsets().end;
            let segments = Listing::read(&*storage, Path::new(DIRECTORY)).expect("it is there").segments;
            let (removing, next) = (storage.clone(), segments[1]);
            let reading = interrupted(&storage, moment, move || {
                removing.fail_with(std::io::ErrorKind::Other, operations);
                let removed = partition.remove_segments_before(next).is_ok();
                removing.clear_faults();
                assert!(!removed || partition.offsets().start == next);
            });
            assert_eq!(told(&*reading, end), [], "{operations} operations, {moment:?}");
            assert!(!reading.is_pending());
            let left = Listing::read(&*storage, Path::new(DIRECTORY)).expect("it is there").segments;
            if left[0] == next {
                assert!(operations > 8, "there are many operations: {operations}");
                break;
            }
        }
    }
}

#[test]
fn nothing_is_told_of_a_topic_that_is_deleted_while_it_is_walked() {
    for moment in MOMENTS {
        let (storage, end) = written();
        let deleted = storage.clone();
        let reading = interrupted(&storage, moment, move || {
            let gone = Path::new("/log/gone");
            deleted.rename(Path::new(DIRECTORY), gone).expect("it is there");
        });
        let rules = WalkRules { recovery_point: Some(end), has_gaps: false, is_start_known: true };
        let name = TopicPartition::new("topic", PartitionId(3));
        let error = walk(&*reading, &name, Path::new(DIRECTORY), rules).expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

#[test]
fn damage_is_told_though_the_marks_of_the_partition_change_all_the_while() {
    let (storage, partition) = open();
    let end = partition.offsets().end;
    let segments = Listing::read(&*storage, Path::new(DIRECTORY)).expect("it is there").segments;
    let log = FileKind::Log.path(Path::new(DIRECTORY), segments[2]);
    storage.corrupt(&log, 64, 1).expect("the byte is there");
    let reading = InterruptingStorage::new(storage);
    let mut clean_end = 0;
    reading.before_lists(Path::new(DIRECTORY), 1000, move || {
        clean_end += 1;
        partition.note_clean_end(Offset(clean_end)).expect("the disk is fine");
    });
    let WalkEnd::Corrupt(damage) = walked(&*reading, Some(end), true).ending else { panic!("it is damaged") };
    assert_eq!((damage.file, damage.offset, damage.position), (log, segments[2], 0));
    assert!(reading.is_pending());
}

#[test]
fn a_topic_that_is_deleted_while_the_log_is_walked_is_left_out_and_so_is_another_one_by_its_name() {
    for is_made_anew in [false, true] {
        let storage = MemoryStorage::new(1);
        let options = LogOptions::manual(storage.clone(), ManualClock::new(), 1);
        let log = Log::open("/log", options).expect("an empty disk");
        for name in ["gone", "kept"] {
            let topic = log.create_topic(name, TopicConfig::default()).expect("a new topic");
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(Timestamp(0), None, Some(b"value"), &[]).expect("it is small");
            topic.partitions()[0].append(builder.seal()).expect("the disk is fine");
            log.flush(topic.partitions(), SyncPurpose::Records).wait().expect("the disk is fine");
        }
        let reading = InterruptingStorage::new(storage);
        reading.before_list(Path::new("/log/gone-0"), move || {
            log.delete_topic("gone").expect("it is there");
            if is_made_anew {
                log.create_topic("gone", TopicConfig::default()).expect("there is none");
            }
        });
        let walks = walk_log(&*reading, Path::new("/log"), None).expect("the other one is there");
        assert!(!reading.is_pending());
        let [(name, walked)] = &walks[..] else { panic!("one of two is left: {walks:?}") };
        assert_eq!((name.topic.to_string().as_str(), walked.end), ("kept", Offset(1)));
        assert!(walked.is_sound(), "{walked:?}");
    }
}

#[test]
fn nothing_is_told_of_a_segment_that_is_replaced_while_it_is_walked() {
    let directory = Path::new(DIRECTORY);
    let log = FileKind::Log.path(directory, Offset(0));
    let swap = FileKind::Log.path_at(directory, Offset(0), Stage::Swap);
    // What takes its place lacks nothing: the log has its name, or is about to have it.
    for is_done in [true, false] {
        let (storage, end) = written();
        let reading = InterruptingStorage::new(storage.clone());
        let (replaced, log, swap) = (storage.clone(), log.clone(), swap.clone());
        reading.before_read(log.clone(), move || {
            let contents = replaced.contents(&log).expect("it is there");
            let new = replaced.open(&swap, OpenMode::Create).expect("the disk is fine");
            new.write_at(0, &contents).expect("the disk is fine");
            let aborted = FileKind::TransactionIndex.path(Path::new(DIRECTORY), Offset(0));
            assert!(!replaced.contents(&aborted).expect("it is there").is_empty());
            replaced.remove_file(&aborted).expect("it is there");
            if is_done {
                replaced.rename(&swap, &log).expect("it is there");
            }
        });
        assert_eq!(told(&*reading, end), [], "done: {is_done}");
        assert!(!reading.is_pending());
    }
}
