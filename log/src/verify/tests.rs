//! What a walk says of indexes, and of nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::batch::{BatchBuilder, Compression};
use crate::partition::tests::{DIRECTORY, create, disk, flush, small, stamped};
use crate::partition::{Partition, PartitionConfig};
use crate::record::{ProducerEpoch, Timestamp};
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;

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
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig { segment_bytes: 1500, ..small() });
    write(&partition);
    partition.close().expect("the disk is fine");
    (storage, partition.offsets().end)
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

/// Whether the index of aborted transactions is compared in this byte of an entry: whose it was, and the marker.
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
        for at in (0..bytes.len()).filter(|at| is_compared(&path, at % entry)) {
            for mask in [1, 0x40] {
                storage.corrupt(&path, at as u64, mask).expect("the byte is there");
                let place = (path.clone(), (at / entry * entry) as u64);
                assert_eq!(told(&*storage, end), [place], "byte {at}");
                storage.corrupt(&path, at as u64, mask).expect("the byte is there");
                flips += 1;
            }
        }
    }
    assert_eq!(told(&*storage, end), []);
    assert!(flips > 500, "{flips} bytes");
}

#[test]
fn entries_that_are_missing_at_the_end_of_an_index_are_told_but_for_those_that_only_save_reading() {
    let (storage, end) = written();
    let before = sealed(&storage);
    for (path, bytes, entry) in &before {
        for left in 0..bytes.len() / entry {
            let file = storage.open(path, OpenMode::Write).expect("it is there");
            file.truncate((left * entry) as u64).expect("the disk is fine");
            let place = (path.clone(), (left * entry) as u64);
            let expected = if has_extension(path, "index") { vec![] } else { vec![place] };
            assert_eq!(told(&*storage, end), expected, "{left} entries");
            file.write_at(0, bytes).expect("the disk is fine");
        }
        storage.remove_file(path).expect("it is there");
        let expected = if has_extension(path, "index") { vec![] } else { vec![(path.clone(), 0)] };
        assert_eq!(told(&*storage, end), expected, "gone");
        let file = storage.open(path, OpenMode::Create).expect("it is gone");
        file.write_at(0, bytes).expect("the disk is fine");
    }
    assert_eq!(sealed(&storage), before, "nothing was changed");
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
