use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::files::FileKind;
use crate::record::{Offset, ProducerId, Timestamp};
use crate::storage::OpenMode;
use crate::storage::memory::MemoryStorage;

const BASE: Offset = Offset(1000);

fn disk() -> Arc<dyn Storage> {
    let storage = MemoryStorage::new(1);
    storage.create_dir_all(Path::new("/p")).expect("the disk is empty");
    storage
}

fn context(storage: &Arc<dyn Storage>) -> FileContext {
    FileContext { storage: storage.clone(), open_files: Arc::default() }
}

fn contents(storage: &Arc<dyn Storage>, kind: FileKind) -> Vec<u8> {
    let file = storage.open(&kind.path(Path::new("/p"), BASE), OpenMode::Read).expect("it was written");
    let mut bytes = vec![0; file.len().expect("it is there") as usize];
    assert_eq!(file.read_at(0, &mut bytes).expect("it is there"), bytes.len());
    bytes
}

fn write(storage: &Arc<dyn Storage>, kind: FileKind, bytes: &[u8]) {
    let file = storage.open(&kind.path(Path::new("/p"), BASE), OpenMode::Create).expect("there is none");
    file.write_at(0, bytes).expect("the disk is fine");
}

proptest! {
    #[test]
    fn a_lookup_finds_the_last_entry_at_or_before_the_target(
        steps in prop::collection::vec((1..20i64, 1..500u64), 0..60),
        persisted in any::<prop::sample::Index>(),
        reopens in any::<bool>(),
    ) {
        let storage = disk();
        let mut index = OffsetIndex::empty(&context(&storage), Path::new("/p"), BASE);
        let mut entries = Vec::new();
        let mut next = IndexedBatch { last_offset: BASE, position: 0 };
        for (offsets, bytes) in steps {
            next = IndexedBatch { last_offset: next.last_offset.plus(offsets), position: next.position + bytes };
            entries.push(next);
        }
        let persisted = if entries.is_empty() { 0 } else { persisted.index(entries.len()) };
        for (n, entry) in entries.iter().enumerate() {
            if n == persisted {
                index.write_out().expect("the disk is fine");
            }
            index.push(*entry);
        }
        if reopens {
            index.write_out().expect("the disk is fine");
            index = OffsetIndex::sealed(&context(&storage), Path::new("/p"), BASE).expect("it is there");
        }
        for target in BASE.0..=next.last_offset.0 + 1 {
            let expected = entries.iter().rfind(|entry| entry.last_offset.0 <= target).copied();
            prop_assert_eq!(index.lookup(Offset(target)).expect("the disk is fine"), expected);
        }
    }

    #[test]
    fn aborted_transactions_are_found_by_any_range_that_touches_them(
        aborted in prop::collection::vec((1..30i64, 1..10i64), 0..30),
        from in 0..300i64,
        length in 1..100i64,
        persists in any::<bool>(),
    ) {
        let storage = disk();
        let index = TransactionIndex::empty(&context(&storage), Path::new("/p"), BASE);
        let mut all = Vec::new();
        let mut last_offset = BASE;
        for (length, distance) in aborted {
            last_offset = last_offset.plus(distance);
            let first_offset = last_offset.plus(-length);
            let (producer_id, last_stable_offset) = (ProducerId(1), Offset(0));
            all.push(AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset });
        }
        all.iter().for_each(|aborted| index.push(*aborted));
        if persists {
            index.write_out().expect("the disk is fine");
        }
        let (from, to) = (BASE.plus(from - 50), BASE.plus(from - 50 + length));
        let mut found = Vec::new();
        let is_all = index.collect(from, to, &mut found).expect("the disk is fine");
        prop_assert!(!is_all, "an open transaction may begin before the range");
        let touches = |aborted: &&AbortedTransaction| aborted.first_offset < to && aborted.last_offset >= from;
        prop_assert_eq!(found, all.iter().filter(touches).copied().collect::<Vec<_>>());
    }
}

#[test]
fn entries_have_kafkas_bytes() {
    let storage = disk();
    let directory = Path::new("/p");
    let offsets = OffsetIndex::empty(&context(&storage), directory, BASE);
    offsets.push(IndexedBatch { last_offset: Offset(1258), position: 0x0102_0304 });
    offsets.write_out().expect("the disk is fine");
    assert_eq!(contents(&storage, FileKind::OffsetIndex), [0, 0, 1, 2, 1, 2, 3, 4]);

    let times = TimeIndex::empty(&context(&storage), directory, BASE);
    times.push(LargestTimestamp { timestamp: Timestamp(0x0102_0304_0506), offset: Offset(1003) });
    times.write_out().expect("the disk is fine");
    assert_eq!(contents(&storage, FileKind::TimeIndex), [0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 3]);

    let aborted = TransactionIndex::empty(&context(&storage), directory, BASE);
    aborted.push(AbortedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(2),
        last_offset: Offset(3),
        last_stable_offset: Offset(4),
    });
    aborted.persist().expect("the disk is fine");
    let mut expected = vec![0, 0];
    for number in 1..=4 {
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, number]);
    }
    assert_eq!(contents(&storage, FileKind::TransactionIndex), expected);
}

#[test]
fn a_segment_without_aborted_transactions_has_no_file_for_them() {
    let storage = disk();
    let aborted = TransactionIndex::empty(&context(&storage), Path::new("/p"), BASE);
    assert!(aborted.persist().expect("there is nothing to do").is_none());
    let path = FileKind::TransactionIndex.path(Path::new("/p"), BASE);
    assert!(!storage.exists(&path).expect("the disk is fine"));
}

#[test]
fn bytes_that_never_reached_the_disk_are_not_believed() {
    let storage = disk();
    // Three entries; a hole of zeros; an entry behind it.
    let mut bytes = Vec::new();
    for (offset, position) in [(5i32, 100i32), (9, 200), (14, 300), (0, 0), (30, 500)] {
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&position.to_be_bytes());
    }
    write(&storage, FileKind::OffsetIndex, &bytes);
    let believed = |below| {
        let index = OffsetIndex::believed(&context(&storage), Path::new("/p"), BASE, Offset(below))
            .expect("it is there");
        index.lookup(Offset(5000)).expect("the disk is fine").map(|entry| entry.last_offset)
    };
    assert_eq!(believed(5000), Some(Offset(1014)));
    assert_eq!(believed(1014), Some(Offset(1009)));
    assert_eq!(believed(1005), None);
}

#[test]
fn zeros_in_the_first_place_are_no_entry_of_the_first_batch() {
    let storage = disk();
    let entry = |offset: i32, position: i32| [offset.to_be_bytes(), position.to_be_bytes()].concat();
    write(&storage, FileKind::OffsetIndex, &[entry(0, 0), entry(9, 200)].concat());
    let index =
        OffsetIndex::believed(&context(&storage), Path::new("/p"), BASE, Offset(1005)).expect("it is there");
    assert!(index.is_empty());
    index.push(IndexedBatch { last_offset: Offset(1004), position: 100 });
    index.write_out().expect("the disk is fine");
    assert_eq!(contents(&storage, FileKind::OffsetIndex), entry(4, 100));
}

#[test]
fn what_is_not_believed_is_gone_once_the_index_is_written() {
    let storage = disk();
    let entry = |offset: i32| [offset.to_be_bytes(), (10 * offset).to_be_bytes()].concat();
    write(&storage, FileKind::OffsetIndex, &[entry(5), entry(9), entry(14)].concat());
    let index =
        OffsetIndex::believed(&context(&storage), Path::new("/p"), BASE, Offset(1009)).expect("it is there");
    index.push(IndexedBatch { last_offset: Offset(1011), position: 110 });
    index.write_out().expect("the disk is fine");
    assert_eq!(contents(&storage, FileKind::OffsetIndex), [entry(5), entry(11)].concat());
}

fn note(end: i64, entries: u64) -> Note {
    let held = |more| Held { entries: entries + more, checksum: 7 * entries as u32 + more as u32 };
    Note { end: Offset(end), offsets: held(1), times: held(2), aborted: held(3) }
}

/// What is noted once these were.
fn noted(notes: impl IntoIterator<Item = Note>) -> (Arc<dyn Storage>, SumFile) {
    let storage = disk();
    let sum = SumFile::new(&context(&storage), FileKind::IndexSum.path(Path::new("/p"), BASE));
    for note in notes {
        sum.write(note).expect("the disk is fine");
    }
    (storage, sum)
}

fn notes(sum: &SumFile) -> Vec<Note> {
    let mut notes: Vec<_> = sum.read().expect("the disk is fine").collect();
    notes.sort_by_key(|note| note.end);
    notes
}

#[test]
fn the_newest_two_notes_of_what_indexes_hold_are_kept_and_none_of_what_is_not_there_any_more() {
    let check = |ends: &[i64], kept: &[i64]| {
        let written = ends.iter().zip(1..).map(|(end, entries)| note(*end, entries));
        let (_, sum) = noted(written.clone());
        let mut expected: Vec<_> = written.collect();
        expected.reverse();
        let newest = |end: &i64| *expected.iter().find(|note| note.end.0 == *end).expect("it was noted");
        assert_eq!(notes(&sum), kept.iter().map(newest).collect::<Vec<_>>(), "{ends:?}");
    };
    check(&[], &[]);
    check(&[10], &[10]);
    check(&[10, 20], &[10, 20]);
    check(&[10, 20, 30], &[20, 30]);
    check(&[10, 20, 30, 40], &[30, 40]);
    check(&[10, 20, 20], &[10, 20]);
    check(&[10, 20, 15], &[10, 15]);
    check(&[10, 20, 5], &[5]);
    check(&[10, 20, 30, 25], &[20, 25]);
    check(&[10, 20, 30, 5], &[5]);
    check(&[10, 20, 10], &[10]);
    check(&[10, 10], &[10]);
}

#[test]
fn the_same_note_is_not_written_twice() {
    let (storage, sum) = noted([note(10, 1), note(20, 2)]);
    let before = contents(&storage, FileKind::IndexSum);
    sum.write(note(20, 2)).expect("the disk is fine");
    assert_eq!(contents(&storage, FileKind::IndexSum), before);
    assert_eq!(notes(&sum), [note(10, 1), note(20, 2)]);
}

#[test]
fn a_note_that_is_torn_is_none_and_leaves_the_one_before_it() {
    let both = [note(10, 1), note(20, 2)];
    let (storage, sum) = noted(both);
    let bytes = contents(&storage, FileKind::IndexSum);
    let file =
        storage.open(&FileKind::IndexSum.path(Path::new("/p"), BASE), OpenMode::Write).expect("it is there");
    let half = bytes.len() / 2;
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        file.write_at(0, &flipped).expect("the disk is fine");
        assert_eq!(notes(&sum), [both[usize::from(bit / 8 < half)]], "bit {bit}");
    }
    file.write_at(0, &bytes).expect("the disk is fine");
    for length in (0..bytes.len()).rev() {
        file.truncate(length as u64).expect("the disk is fine");
        assert_eq!(notes(&sum), both[..length / half], "{length} bytes");
    }
}
