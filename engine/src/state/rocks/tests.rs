use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::state::testing::rows;

fn small() -> RocksOptions {
    RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, background_jobs: 1 }
}

fn put(backend: &RocksBackend, store: StoreId, keys: impl Iterator<Item = u32>) {
    let mut writes = WriteSet::default();
    keys.for_each(|key| writes.put(&key.to_be_bytes(), b"value"));
    backend.apply(store, &writes).unwrap();
}

#[test]
fn what_was_applied_is_there_after_a_clean_end() {
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksBackend::open(directory.path(), small()).unwrap();
    let (one, two) = (backend.open_store("one").unwrap(), backend.open_store("two").unwrap());
    put(&backend, one, 0..10);
    put(&backend, two, 0..20);
    drop(backend);
    let backend = RocksBackend::open(directory.path(), small()).unwrap();
    let count = |name| rows(&backend, backend.open_store(name).unwrap()).len();
    assert_eq!((count("one"), count("two"), count("three")), (10, 20, 0));
}

#[test]
fn a_killed_process_leaves_what_was_flushed_of_each_store() {
    let directory = tempfile::tempdir().unwrap();
    let (live, killed) = (directory.path().join("live"), directory.path().join("killed"));
    let backend = RocksBackend::open(&live, small()).unwrap();
    let store = backend.open_store("one").unwrap();
    put(&backend, store, 0..10);
    backend.flush().unwrap();
    put(&backend, store, 10..20);
    // The files as they are while the process lives are what is left when it is killed.
    fs::create_dir(&killed).unwrap();
    for entry in fs::read_dir(&live).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, killed.join(path.file_name().unwrap())).unwrap();
    }
    let left = RocksBackend::open(&killed, small()).unwrap();
    let left = rows(&left, left.open_store("one").unwrap());
    assert_eq!(
        left.into_keys().collect::<Vec<_>>(),
        (0..10u32).map(|key| key.to_be_bytes().to_vec()).collect::<Vec<_>>()
    );
}

#[test]
fn many_keys_are_read_at_once_in_any_order() {
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksBackend::open(directory.path(), small()).unwrap();
    let store = backend.open_store("one").unwrap();
    put(&backend, store, (0..10).map(|key| 2 * key));
    let keys: Vec<_> = [7u32, 4, 4, 18, 1, 0].iter().map(|key| key.to_be_bytes()).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let mut found = Vec::new();
    backend.get_many(store, &keys, &mut |index, value| found.push((index, value.to_vec()))).unwrap();
    assert_eq!(found, [1, 2, 3, 5].map(|index| (index, b"value".to_vec())));
}

#[test]
fn a_store_that_is_written_to_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let open = RocksBackend::open(directory.path(), small()).unwrap();
    let store = open.open_store("one").unwrap();
    let other = RocksBackend::open(directory.path(), small()).unwrap();
    let error = other.apply(store, &WriteSet::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
}

/// Every file of a directory with its bytes, but for the lock.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.ends_with("LOCK")).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_store_that_is_only_read_is_left_as_it_was_and_the_first_change_opens_it_for_writing() {
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksBackend::open(directory.path(), small()).unwrap();
    let store = backend.open_store("one").unwrap();
    put(&backend, store, 0..10);
    backend.flush().unwrap();
    drop(backend);

    let before = files(directory.path());
    let backend = RocksBackend::open(directory.path(), small()).unwrap();
    let store = backend.open_store("one").unwrap();
    assert_eq!(rows(&backend, store).len(), 10);
    backend.flush().unwrap();
    assert!(files(directory.path()) == before, "reading leaves no trace");

    put(&backend, store, 5..15);
    assert_eq!(rows(&backend, store).len(), 15, "what was read before and what is new");
    backend.flush().unwrap();
    drop(backend);
    let backend = RocksBackend::open(directory.path(), small()).unwrap();
    assert_eq!(rows(&backend, backend.open_store("one").unwrap()).len(), 15);
}

#[test]
fn what_an_error_means_does_not_depend_on_the_path_in_it() {
    let check = |text: &str, expected| assert_eq!(kind_of(RocksErrorKind::IOError, text), expected, "{text}");
    let held = "IO error: lock hold by current process, acquire time 1 acquiring thread 2: /d/LOCK: No locks available";
    check(held, ErrorKind::Locked);
    check("IO error: While lock file: /d/LOCK: Resource temporarily unavailable", ErrorKind::Locked);
    let full = "IO error: No space left on device: While appending to file: /blocks/lock/7.sst: No space left on device";
    check(full, ErrorKind::Full);
    check("IO error: While appending to file: /blocks/lock/7.sst: No space left on device", ErrorKind::Full);
    check("IO error: While fsync: /data/clocks/000007.sst: Input/output error", ErrorKind::Io);
    check("IO error: While fsync: /data/No space left/000007.sst: Input/output error", ErrorKind::Io);
    check(
        "IO error: No such file or directory: While open a file: /d/7.sst: No such file or directory",
        ErrorKind::Corrupt,
    );
    check("IO error: while open a file for lock: /d/LOCK: Permission denied", ErrorKind::Io);
}

#[test]
fn damage_that_the_opening_for_writing_finds_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let backend = RocksBackend::open(&live, small()).unwrap();
    let store = backend.open_store("one").unwrap();
    put(&backend, store, 0..10);
    backend.flush().unwrap();
    drop(backend);
    let backend = RocksBackend::open(&live, small()).unwrap();
    let store = backend.open_store("one").unwrap();
    fs::write(live.join("CURRENT"), "MANIFEST-nothing\n").unwrap();
    let error = backend.apply(store, &WriteSet::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(suspect_mark(&live).exists());
}

#[test]
fn what_was_deleted_around_a_stretch_is_passed_over_up_to_a_bound() {
    use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
    const STRETCHES: u32 = 10;
    const DELETED: u32 = 2_000;
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksBackend::open(directory.path(), small()).unwrap();
    let store = backend.open_store("one").unwrap();
    put(&backend, store, 0..STRETCHES * DELETED);
    backend.flush().unwrap();
    let mut writes = WriteSet::default();
    let left = |key: u32| key % DELETED == DELETED / 2;
    (0..STRETCHES * DELETED).filter(|key| !left(*key)).for_each(|key| writes.delete(&key.to_be_bytes()));
    backend.apply(store, &writes).unwrap();
    // Every other one has a row, before which and behind which all are deleted; the others have none any more.
    let key = |stretch: u32| stretch * DELETED + if stretch.is_multiple_of(2) { DELETED / 2 } else { 0 };
    let bounds: Vec<_> =
        (0..STRETCHES).map(|stretch| [key(stretch), key(stretch) + 1].map(u32::to_be_bytes)).collect();
    for begin_behind in [false, true] {
        let stretch = |[from, to]: &'_ [[u8; 4]; 2]| (*from, if begin_behind { *to } else { *from }, *to);
        let owned: Vec<_> = bounds.iter().map(stretch).collect();
        let stretches: Vec<_> = owned.iter().map(|(from, at, to)| Stretch { from, at, to }).collect();
        let mut found = Vec::new();
        set_perf_stats(PerfStatsLevel::EnableCount);
        let mut context = PerfContext::default();
        context.reset();
        let visit = &mut |index: usize, _: &[u8], _: &[u8]| {
            found.push(index);
            Visit::More
        };
        backend.scan_many(store, &stretches, &|_| true, visit).unwrap();
        let passed_over = context.metric(PerfMetric::InternalDeleteSkippedCount);
        set_perf_stats(PerfStatsLevel::Disable);
        assert_eq!(found, [0, 2, 4, 6, 8]);
        assert!(passed_over <= 3 * u64::from(STRETCHES) * PASSED_OVER_MAX, "{passed_over} were passed over");
        assert!(passed_over > PASSED_OVER_MAX, "there is something to be passed over");
    }
}
