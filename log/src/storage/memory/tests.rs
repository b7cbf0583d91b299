//! The model of POSIX must itself be right: what a sync covers survives every crash, and everything
//! that the rules leave open does happen for some seed.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{MemoryStorage, SyncMode};
use crate::storage::{OpenMode, Storage, StorageFile, SyncPurpose};

const SEEDS: u64 = 300;

fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}

/// A disk with a durable, empty directory `/data`.
fn disk(seed: u64) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(seed);
    storage.create_dir_all(Path::new("/data")).unwrap();
    storage.sync_dir(Path::new("/"), SyncPurpose::Directory).unwrap();
    storage
}

fn create(storage: &MemoryStorage, name: &str, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let file = storage.open(&path(name), OpenMode::Create).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

fn sync_names(storage: &MemoryStorage) {
    storage.sync_dir(Path::new("/data"), SyncPurpose::Directory).unwrap();
}

fn names(storage: &MemoryStorage) -> Vec<String> {
    storage.list(Path::new("/data")).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Runs `script`, crashes, and collects what `observe` sees over many seeds.
fn outcomes<T: Ord>(script: impl Fn(&MemoryStorage), observe: impl Fn(&MemoryStorage) -> T) -> BTreeSet<T> {
    let run = |seed| {
        let storage = disk(seed);
        script(&storage);
        storage.crash();
        observe(&storage)
    };
    (0..SEEDS).map(run).collect()
}

fn set<T: Ord + Clone>(expected: &[T]) -> BTreeSet<T> {
    expected.iter().cloned().collect()
}

#[test]
fn bytes_and_name_that_were_synced_survive_every_crash() {
    let script = |storage: &MemoryStorage| {
        create(storage, "file", b"kept").sync(SyncPurpose::Records).wait().unwrap();
        sync_names(storage);
    };
    assert_eq!(
        outcomes(script, |storage| storage.contents(&path("file")).unwrap()),
        set(&[b"kept".to_vec()])
    );
}

#[test]
fn a_synced_file_whose_name_was_not_synced_may_be_gone() {
    let script = |storage: &MemoryStorage| {
        create(storage, "file", b"kept").sync(SyncPurpose::Records).wait().unwrap();
    };
    let seen = outcomes(script, |storage| storage.contents(&path("file")).ok());
    assert_eq!(seen, set(&[None, Some(b"kept".to_vec())]));
}

#[test]
fn a_file_whose_name_alone_was_synced_may_hold_any_part_of_its_bytes() {
    let script = |storage: &MemoryStorage| {
        create(storage, "file", b"ab");
        sync_names(storage);
    };
    let seen = outcomes(script, |storage| storage.contents(&path("file")).unwrap());
    assert_eq!(seen, set(&[b"".to_vec(), b"a".to_vec(), b"ab".to_vec(), b"\0\0".to_vec()]));
}

#[test]
fn unsynced_writes_are_lost_in_any_combination_and_leave_holes_of_zeros() {
    let script = |storage: &MemoryStorage| {
        let file = create(storage, "file", b"x");
        file.sync(SyncPurpose::Records).wait().unwrap();
        sync_names(storage);
        file.write_at(1, b"y").unwrap();
        file.write_at(2, b"z").unwrap();
    };
    let seen = outcomes(script, |storage| storage.contents(&path("file")).unwrap());
    // A torn write of one byte is the byte, nothing, or the length alone.
    assert!(seen.is_superset(&set(&[b"x".to_vec(), b"xy".to_vec(), b"x\0z".to_vec(), b"xyz".to_vec()])));
    assert!(seen.iter().all(|bytes| bytes.starts_with(b"x") && bytes.len() <= 3));
}

#[test]
fn an_overwrite_is_torn_between_sectors_and_not_within_what_was_synced_beside_it() {
    let old = vec![b'o'; 1536];
    let script = |storage: &MemoryStorage| {
        let file = create(storage, "file", &old);
        file.sync(SyncPurpose::Records).wait().unwrap();
        sync_names(storage);
        file.write_at(100, &[b'n'; 1000]).unwrap();
    };
    let seen = outcomes(script, |storage| storage.contents(&path("file")).unwrap());
    assert!(seen.iter().all(|bytes| bytes.len() == 1536));
    assert!(seen.iter().all(|bytes| bytes[..100] == old[..100] && bytes[1100..] == old[1100..]));
    let sectors_swapped = |bytes: &Vec<u8>| bytes[100] == b'o' && bytes[600] == b'n';
    assert!(seen.iter().any(sectors_swapped), "later sectors are written without the earlier ones");
    assert!(seen.iter().any(|bytes| bytes[100] == b'n' && bytes[511] == b'o'), "a sector is torn");
}

#[test]
fn a_truncation_that_was_not_synced_may_come_undone_under_a_later_write() {
    let script = |storage: &MemoryStorage| {
        let file = create(storage, "file", b"abcdef");
        file.sync(SyncPurpose::Records).wait().unwrap();
        sync_names(storage);
        file.truncate(2).unwrap();
        file.write_at(2, b"X").unwrap();
    };
    let seen = outcomes(script, |storage| storage.contents(&path("file")).unwrap());
    let expected: [&[u8]; 4] = [b"abcdef", b"ab", b"abX", b"abXdef"];
    assert!(seen.is_superset(&expected.map(<[u8]>::to_vec).into()));
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let script = |storage: &MemoryStorage| {
        create(storage, "file", b"old").sync(SyncPurpose::Records).wait().unwrap();
        sync_names(storage);
        create(storage, "file.tmp", b"new").sync(SyncPurpose::Records).wait().unwrap();
        storage.rename(&path("file.tmp"), &path("file")).unwrap();
    };
    let seen = outcomes(script, |storage| (names(storage), storage.contents(&path("file")).unwrap()));
    let before = (vec!["file".to_owned()], b"old".to_vec());
    let between = (vec!["file".to_owned(), "file.tmp".to_owned()], b"old".to_vec());
    let after = (vec!["file".to_owned()], b"new".to_vec());
    assert_eq!(seen, set(&[before, between, after]));
}

#[test]
fn names_in_one_directory_are_independent_of_each_other() {
    let script = |storage: &MemoryStorage| {
        create(storage, "a", b"");
        create(storage, "b", b"");
    };
    let expected: Vec<Vec<String>> =
        vec![vec![], vec!["a".into()], vec!["b".into()], vec!["a".into(), "b".into()]];
    assert_eq!(outcomes(script, names), set(&expected));
}

#[test]
fn syncing_a_directory_keeps_what_its_changes_build_on_elsewhere() {
    let script = |storage: &MemoryStorage| {
        storage.create_dir_all(&path("from")).unwrap();
        storage.create_dir_all(&path("to")).unwrap();
        sync_names(storage);
        create(storage, "from/file", b"x").sync(SyncPurpose::Records).wait().unwrap();
        storage.rename(&path("from/file"), &path("to/file")).unwrap();
        storage.sync_dir(&path("to"), SyncPurpose::Directory).unwrap();
    };
    let observe = |storage: &MemoryStorage| {
        (storage.contents(&path("to/file")).ok(), storage.exists(&path("from/file")).unwrap())
    };
    assert_eq!(outcomes(script, observe), set(&[(Some(b"x".to_vec()), false)]));
}

#[test]
fn a_removed_file_is_still_read_by_its_handle_and_may_come_back() {
    let script = |storage: &MemoryStorage| {
        let file = create(storage, "file", b"x");
        file.sync(SyncPurpose::Records).wait().unwrap();
        sync_names(storage);
        storage.remove_file(&path("file")).unwrap();
        let mut buffer = [0];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 1);
    };
    assert_eq!(outcomes(script, |storage| names(storage).len()), set(&[0, 1]));
}

#[test]
fn a_failed_sync_leaves_bytes_readable_that_no_later_sync_saves() {
    let script = |storage: &MemoryStorage| {
        let file = create(storage, "file", b"");
        sync_names(storage);
        file.write_at(0, b"a").unwrap();
        storage.fail_with(ErrorKind::Other, 0);
        assert_eq!(file.sync(SyncPurpose::Records).wait().unwrap_err().kind(), ErrorKind::Other);
        file.write_at(1, b"b").unwrap();
        file.sync(SyncPurpose::Records).wait().unwrap();
        assert_eq!(storage.contents(&path("file")).unwrap(), b"ab");
    };
    let seen = outcomes(script, |storage| storage.contents(&path("file")).unwrap());
    assert_eq!(seen, set(&[b"ab".to_vec(), b"\0b".to_vec()]));
}

#[test]
fn a_delayed_sync_covers_what_was_written_before_it_was_submitted() {
    let storage = disk(1);
    storage.set_sync_mode(SyncMode::Delayed);
    let file = create(&storage, "file", b"a");
    sync_names(&storage);
    let ticket = file.sync(SyncPurpose::Records);
    file.write_at(1, &[b'b'; 5000]).unwrap();
    assert!(ticket.poll().is_none());
    assert_eq!(storage.complete_syncs(), 1);
    ticket.wait().unwrap();
    let lost = |seed| {
        let storage = disk(seed);
        storage.set_sync_mode(SyncMode::Delayed);
        let file = create(&storage, "file", b"a");
        sync_names(&storage);
        let ticket = file.sync(SyncPurpose::Records);
        file.write_at(1, b"b").unwrap();
        storage.complete_syncs();
        storage.crash();
        assert!(ticket.poll().unwrap().is_ok());
        storage.contents(&path("file")).unwrap()
    };
    let seen: BTreeSet<_> = (0..SEEDS).map(lost).collect();
    assert!(seen.iter().all(|bytes| bytes.starts_with(b"a")));
    assert!(seen.contains(b"a".as_slice()) && seen.contains(b"ab".as_slice()));
}

#[test]
fn a_sync_in_flight_at_a_crash_fails_and_promises_nothing() {
    let storage = disk(7);
    storage.set_sync_mode(SyncMode::Delayed);
    let file = create(&storage, "file", b"a");
    let ticket = file.sync(SyncPurpose::Records);
    storage.crash();
    assert_eq!(ticket.wait().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(file.len().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn an_ignored_sync_is_counted_and_saves_nothing() {
    let script = |storage: &MemoryStorage| {
        storage.ignore_syncs(SyncPurpose::Decision);
        let file = create(storage, "file", b"");
        sync_names(storage);
        file.write_at(0, b"a").unwrap();
        file.sync(SyncPurpose::Decision).wait().unwrap();
        assert_eq!(storage.sync_count(SyncPurpose::Decision), 1);
    };
    let seen = outcomes(script, |storage| storage.contents(&path("file")).unwrap());
    assert!(seen.contains(&Vec::new()));
}

#[test]
fn a_kill_keeps_the_page_cache_and_ends_the_handles() {
    let storage = disk(3);
    let file = create(&storage, "file", b"unsynced");
    let lock = storage.lock(&path(".lock"), "first").unwrap();
    storage.kill();
    assert_eq!(file.write_at(0, b"x").unwrap_err().kind(), ErrorKind::NotConnected);
    let _second = storage.lock(&path(".lock"), "second").unwrap();
    drop(lock);
    assert_eq!(storage.lock(&path(".lock"), "third").err().unwrap().to_string(), "second");
    assert_eq!(storage.contents(&path("file")).unwrap(), b"unsynced");
}

#[test]
fn a_mount_ends_with_its_process() {
    let storage = disk(3);
    let mount = storage.mount();
    mount.open(&path("file"), OpenMode::Create).unwrap();
    storage.kill();
    assert_eq!(mount.open(&path("file"), OpenMode::Read).err().unwrap().kind(), ErrorKind::NotConnected);
    assert_eq!(mount.remove_file(&path("file")).unwrap_err().kind(), ErrorKind::NotConnected);
    storage.mount().open(&path("file"), OpenMode::Read).unwrap();
}

#[test]
fn the_plug_is_pulled_at_the_operation_named_and_nothing_works_until_the_crash() {
    let run = |seed, operations| {
        let storage = disk(seed);
        storage.fail_after(operations);
        let steps = || -> std::io::Result<()> {
            let file = storage.open(&path("file"), OpenMode::Create)?;
            file.write_at(0, b"ab")?;
            file.sync(SyncPurpose::Records).wait()?;
            storage.sync_dir(Path::new("/data"), SyncPurpose::Directory)
        };
        let outcome = steps().map_err(|error| error.kind());
        assert_eq!(outcome.is_err(), storage.is_unplugged());
        if storage.is_unplugged() {
            assert_eq!(outcome, Err(ErrorKind::NotConnected));
            assert!(storage.list(Path::new("/data")).is_err());
        }
        storage.kill();
        storage.contents(&path("file")).ok()
    };
    let seen = |operations| (0..SEEDS).map(|seed| run(seed, operations)).collect::<BTreeSet<_>>();
    assert_eq!(seen(0), set(&[None, Some(b"".to_vec())]));
    assert_eq!(seen(1), set(&[Some(b"".to_vec()), Some(b"a".to_vec()), Some(b"ab".to_vec())]));
    assert_eq!(seen(4), set(&[Some(b"ab".to_vec())]));
}

#[test]
fn a_full_disk_takes_a_part_of_a_write_and_recovers() {
    let storage = disk(5);
    let file = create(&storage, "file", b"");
    storage.fail_with(ErrorKind::StorageFull, 0);
    assert_eq!(file.write_at(0, &[1; 100]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(file.len().unwrap() <= 100);
    file.write_at(0, &[2; 100]).unwrap();
    assert_eq!(storage.contents(&path("file")).unwrap(), [2; 100]);
}

#[test]
fn the_same_seed_crashes_the_same_way() {
    let run = |seed| {
        let storage = disk(seed);
        let file = create(&storage, "file", &[1; 3000]);
        sync_names(&storage);
        (0..20).for_each(|write| file.write_at(write * 100, &[write as u8; 700]).unwrap());
        storage.crash();
        storage.contents(&path("file")).unwrap()
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let storage = disk(1);
    create(&storage, "file", b"x");
    storage.set_read_only(true);
    let refused = [
        storage.open(&path("new"), OpenMode::Create).err(),
        storage.open(&path("file"), OpenMode::Write).err(),
        storage.remove_file(&path("file")).err(),
        storage.create_dir_all(&path("directory")).err(),
        storage.lock(&path(".lock"), "me").err(),
    ];
    assert!(refused.into_iter().all(|error| error.unwrap().kind() == ErrorKind::ReadOnlyFilesystem));
    assert_eq!(storage.open(&path("file"), OpenMode::Read).unwrap().len().unwrap(), 1);
}

#[test]
fn a_corrupted_byte_is_the_only_one_that_differs() {
    let storage = disk(1);
    let file = create(&storage, "file", b"abc");
    file.sync(SyncPurpose::Records).wait().unwrap();
    storage.corrupt(&path("file"), 1, 0x01).unwrap();
    assert_eq!(storage.contents(&path("file")).unwrap(), b"acc");
}
