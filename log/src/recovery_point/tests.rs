use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use proptest::prelude::*;
use uuid::Uuid;

use super::{ENTRY_BYTES, FILE_BYTES_MAX, FILE_NAME, RecoveryPointFile, RecoveryPoints, read};
use crate::ErrorKind;
use crate::record::{Offset, PartitionId, PartitionKey, TopicId};
use crate::storage::limited::LimitedStorage;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::storage::{OpenMode, Storage, SyncPurpose};

const DIRECTORY: &str = "/log";

fn key(topic: u128, partition: i32) -> PartitionKey {
    PartitionKey { topic: TopicId(Uuid::from_u128(topic)), partition: PartitionId(partition) }
}

fn disk(seed: u64) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(seed);
    storage.create_dir_all(Path::new(DIRECTORY)).unwrap();
    storage.sync_dir(Path::new("/"), crate::storage::SyncPurpose::Directory).unwrap();
    storage
}

fn create(storage: &Arc<MemoryStorage>, points: RecoveryPoints) -> RecoveryPointFile {
    RecoveryPointFile::create(storage.clone(), Path::new(DIRECTORY), points, Arc::default()).unwrap()
}

fn read_all(storage: &MemoryStorage) -> RecoveryPoints {
    read(storage, Path::new(DIRECTORY)).unwrap().points
}

fn raise(file: &mut RecoveryPointFile, key: PartitionKey, offset: i64) {
    file.note(key, Offset(offset));
    file.begin_sync(Waker::noop());
    file.end_sync();
}

#[test]
fn points_that_were_synced_are_read_after_every_crash() {
    for seed in 0..100 {
        let storage = disk(seed);
        let mut file = create(&storage, RecoveryPoints::from([(key(1, 0), Offset(5))]));
        raise(&mut file, key(1, 0), 7);
        raise(&mut file, key(2, 3), i64::MAX);
        storage.crash();
        let expected = RecoveryPoints::from([(key(1, 0), Offset(7)), (key(2, 3), Offset(i64::MAX))]);
        assert_eq!(read_all(&storage), expected, "seed {seed}");
    }
}

#[test]
fn a_log_without_the_file_has_no_points() {
    assert!(read_all(&disk(1)).is_empty());
}

fn resume(storage: &Arc<MemoryStorage>, points: &RecoveryPoints) -> Option<RecoveryPointFile> {
    let stored = read(&**storage, Path::new(DIRECTORY)).unwrap();
    let (storage, synced) = (storage.clone(), Arc::default());
    RecoveryPointFile::resume(storage, Path::new(DIRECTORY), &stored, points, &synced).unwrap()
}

#[test]
fn a_file_that_says_what_is_known_is_gone_on_in_and_any_other_is_not() {
    let storage = disk(1);
    let points = RecoveryPoints::from([(key(1, 0), Offset(5)), (key(1, 1), Offset(0))]);
    assert!(resume(&storage, &RecoveryPoints::new()).is_none(), "there is none");
    create(&storage, points.clone());
    let operations = storage.operations();
    let mut file = resume(&storage, &points).expect("it says just that");
    assert_eq!(storage.operations(), operations, "nothing is written");
    raise(&mut file, key(1, 0), 6);
    let risen = RecoveryPoints::from([(key(1, 0), Offset(6)), (key(1, 1), Offset(0))]);
    assert_eq!(read_all(&storage), risen);
    assert!(resume(&storage, &points).is_none(), "it says more");
    assert!(resume(&storage, &risen).is_some());
    let path = Path::new(DIRECTORY).join(FILE_NAME);
    let torn = storage.open(&path, OpenMode::Write).unwrap();
    torn.write_at(torn.len().unwrap(), &[1, 2, 3]).unwrap();
    assert!(resume(&storage, &risen).is_none(), "its tail is torn");
}

#[test]
fn a_point_that_did_not_rise_is_not_written_again() {
    let storage = disk(1);
    let mut file = create(&storage, RecoveryPoints::new());
    raise(&mut file, key(1, 0), 7);
    let operations = storage.operations();
    raise(&mut file, key(1, 0), 7);
    assert_eq!(storage.operations(), operations);
}

#[test]
fn the_file_stays_bounded_and_keeps_every_partition() {
    let storage = disk(1);
    let mut file = create(&storage, RecoveryPoints::new());
    file.bytes_max = 1000;
    raise(&mut file, key(9, 9), 1);
    for offset in 0..500 {
        file.bytes_max = file.bytes_max.min(1000);
        raise(&mut file, key(1, 0), offset);
        let bytes = storage.contents(&Path::new(DIRECTORY).join(FILE_NAME)).unwrap();
        assert!(bytes.len() < 1000 + 100);
    }
    storage.crash();
    let expected = RecoveryPoints::from([(key(9, 9), Offset(1)), (key(1, 0), Offset(499))]);
    assert_eq!(read_all(&storage), expected);
}

#[test]
fn a_file_that_cannot_be_written_anew_as_too_many_are_open_is_gone_on_in_and_written_anew_later() {
    let disk = disk(1);
    let storage = LimitedStorage::new(disk.clone());
    let (place, first) = (Path::new(DIRECTORY), RecoveryPoints::from([(key(9, 9), Offset(1))]));
    let mut file = RecoveryPointFile::create(storage.clone(), place, first, Arc::default()).unwrap();
    file.bytes_max = 1000;
    storage.observer().leave(0);
    let refused = file.renew(RecoveryPoints::from([(key(2, 0), Offset(0))])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooManyFiles, "{refused}");
    let length = || disk.contents(&place.join(FILE_NAME)).unwrap().len() as u64;
    let mut offset = 0;
    while length() < 2000 {
        offset += 1;
        raise(&mut file, key(1, 0), offset);
        assert!(!file.is_poisoned() && file.is_recorded(key(1, 0), Offset(offset)));
    }
    assert!(file.bytes_max < 1000 + FILE_BYTES_MAX + 100, "it is tried once, and again when it is longer");
    let expected = |offset| RecoveryPoints::from([(key(9, 9), Offset(1)), (key(1, 0), Offset(offset))]);
    disk.crash();
    assert_eq!(read_all(&disk), expected(offset), "nothing is said of what was refused");
    storage.observer().leave(i64::MAX);
    let points = expected(offset);
    let stored = read(&*disk, place).unwrap();
    let file = RecoveryPointFile::resume(storage.clone(), place, &stored, &points, &Arc::default());
    let mut file = file.unwrap().expect("it says just that");
    file.bytes_max = 1000;
    raise(&mut file, key(1, 0), offset + 1);
    assert!(length() < 1000, "it was long for once only");
    disk.crash();
    assert_eq!(read_all(&disk), expected(offset + 1));
}

#[test]
fn a_disk_that_is_full_when_the_file_is_to_be_written_anew_leaves_it_as_it_is() {
    let mut kept = 0;
    for operation in 0.. {
        let storage = disk(1);
        let mut file = create(&storage, RecoveryPoints::new());
        storage.fail_with(std::io::ErrorKind::StorageFull, operation);
        let Err(error) = file.ensure(key(1, 0), Offset(1)) else { break };
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        if file.is_poisoned() {
            continue;
        }
        kept += 1;
        raise(&mut file, key(2, 0), 5);
        storage.crash();
        assert_eq!(read_all(&storage).get(&key(2, 0)), Some(&Offset(5)), "operation {operation}");
    }
    assert!(kept > 2, "{kept} of the operations come before the file has another name");
}

#[test]
fn however_many_partitions_there_are_a_round_does_not_write_the_file_anew() {
    let storage = disk(1);
    let partitions = FILE_BYTES_MAX as i32 / ENTRY_BYTES as i32 + 1;
    let points = (0..partitions).map(|partition| (key(1, partition), Offset(1)));
    let mut file = create(&storage, points.collect());
    let counts = || {
        [SyncPurpose::RecoveryPoint, SyncPurpose::RecoveryPointFile]
            .map(|purpose| storage.sync_count(purpose))
    };
    let [risen, anew] = counts();
    for offset in 2..10 {
        raise(&mut file, key(1, 0), offset);
    }
    assert_eq!(counts(), [risen + 8, anew]);
}

#[test]
fn points_that_are_held_are_not_written_down_by_whoever_needs_them() {
    let storage = disk(1);
    let mut file = create(&storage, RecoveryPoints::new());
    raise(&mut file, key(1, 0), 1);
    file.hold();
    file.ensure(key(1, 0), Offset(1)).expect("it has been written down");
    let refused = file.ensure(key(1, 0), Offset(2)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused}");
    storage.crash();
    assert_eq!(read_all(&storage), RecoveryPoints::from([(key(1, 0), Offset(1))]));
}

#[test]
fn after_a_failed_sync_points_rise_no_more() {
    let storage = disk(1);
    let mut file = create(&storage, RecoveryPoints::new());
    raise(&mut file, key(1, 0), 1);
    storage.fail_with(std::io::ErrorKind::Other, 1);
    raise(&mut file, key(1, 0), 2);
    let operations = storage.operations();
    raise(&mut file, key(1, 0), 3);
    assert_eq!(storage.operations(), operations);
    assert_eq!(file.synced.get(key(1, 0)), Some(Offset(1)), "that one was synced");
}

#[test]
fn a_point_counts_once_its_sync_has_ended() {
    let storage = disk(1);
    let mut file = create(&storage, RecoveryPoints::from([(key(1, 0), Offset(1))]));
    let synced = file.synced.clone();
    storage.set_sync_mode(SyncMode::Delayed);
    raise(&mut file, key(1, 0), 2);
    assert_eq!(synced.get(key(1, 0)), Some(Offset(1)));
    storage.complete_syncs();
    file.end_sync();
    assert_eq!(synced.get(key(1, 0)), Some(Offset(2)));
}

#[test]
fn a_deleted_topic_is_left_out_when_the_file_is_written_anew() {
    let storage = disk(1);
    let mut file = create(&storage, RecoveryPoints::new());
    for topic in [1, 2] {
        raise(&mut file, key(topic, 0), 1);
    }
    file.forget(TopicId(Uuid::from_u128(1)));
    file.bytes_max = 0;
    raise(&mut file, key(2, 0), 2);
    assert_eq!(read_all(&storage), RecoveryPoints::from([(key(2, 0), Offset(2))]));
    assert_eq!(file.synced.get(key(1, 0)), None);
}

#[test]
fn a_file_of_a_later_version_and_one_that_is_none_are_refused() {
    for (bytes, kind) in [
        (b"LRPT\0\0\0\x02".as_slice(), ErrorKind::Unsupported),
        (b"XRPT\0\0\0\x01", ErrorKind::Corrupt),
        (b"LRP", ErrorKind::Corrupt),
    ] {
        let storage = disk(1);
        let file = storage.open(&Path::new(DIRECTORY).join(FILE_NAME), OpenMode::Create).unwrap();
        file.write_at(0, bytes).unwrap();
        let error = read(&*storage, Path::new(DIRECTORY)).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("/log/recovery-point"), "{error}");
    }
}

proptest! {
    /// Whatever a crash leaves of the last rounds, the points are those after one of the rounds, and not
    /// of a round before the last that was synced.
    #[test]
    fn a_torn_tail_leaves_the_points_of_an_earlier_round(
        rounds in prop::collection::vec((0..3i32, 1..1000i64), 1..10), seed: u64, cut in 0..600usize,
    ) {
        let storage = disk(seed);
        let mut file = create(&storage, RecoveryPoints::new());
        let mut states = vec![RecoveryPoints::new()];
        for (partition, offset) in rounds {
            raise(&mut file, key(1, partition), offset);
            let mut state = states[states.len() - 1].clone();
            state.insert(key(1, partition), Offset(offset));
            states.push(state);
        }
        let path = Path::new(DIRECTORY).join(FILE_NAME);
        let bytes = storage.contents(&path).unwrap();
        let keep = (bytes.len() - cut.min(bytes.len())).max(8);
        storage.open(&path, OpenMode::Write).unwrap().truncate(keep as u64).unwrap();
        let found = read_all(&storage);
        prop_assert!(states.contains(&found));
    }
}
