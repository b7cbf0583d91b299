//! Compacting with few files open, or none that could be opened: what cannot be done then is done later, and nothing
//! else suffers.

use super::*;
use crate::error::ErrorKind;
use crate::open_files::OpenFiles;
use crate::partition::tests::site;
use crate::storage::disk::DiskStorage;
use crate::storage::limited::LimitedStorage;

/// The log of the power cuts, of which every file is opened when it is needed.
fn bench() -> (Bench, Arc<LimitedStorage>) {
    let mut bench = crash::bench(1);
    let storage = LimitedStorage::new(bench.storage.mount());
    let site = site_on(&bench.storage, &bench.clock, &bench.config);
    let open_files = Arc::new(OpenFiles::new(0));
    let context = PartitionContext { storage: storage.clone(), open_files, ..site.context };
    let recovery_point = Some(bench.partition.offsets().durable);
    let border = RecoveryBorder { recovery_point, clean_shutdown: false };
    let opened = Partition::open(PartitionSite { context, ..site }, &border);
    bench.partition = opened.expect("what was synced is there").0;
    (bench, storage)
}

#[test]
fn a_compaction_that_can_open_no_more_files_at_any_moment_poisons_nothing_and_is_done_the_next_time() {
    let expected = {
        let (bench, _) = bench();
        bench.plain(&[8]);
        flush(&bench.partition).expect("the disk is fine");
        bench.compact();
        bench.batches()
    };
    let mut has_replaced = false;
    for left in 0.. {
        let (mut bench, storage) = bench();
        let (before, open) = (bench.segments(), storage.observer().open());
        storage.observer().leave(left);
        let outcome = bench.try_compact();
        storage.observer().leave(i64::MAX);
        let Err(error) = outcome else {
            assert!(left > 40, "many files are opened: {left}");
            return assert!(has_replaced, "it was refused in the middle too");
        };
        assert_eq!(error.kind(), ErrorKind::TooManyFiles, "{left} files: {error}");
        assert_eq!(storage.observer().open(), open, "{left} files: nothing stays open");
        has_replaced |= bench.segments() < before;
        bench.plain(&[8]);
        flush(&bench.partition).expect("the disk is fine");
        bench.compact();
        assert_eq!(bench.batches(), expected, "{left} files");
        bench.crash();
        assert_eq!(bench.batches(), expected, "{left} files, opened again");
    }
}

#[test]
fn a_compaction_that_is_given_up_leaves_nothing_of_what_it_has_written() {
    let left = |bench: &Bench| crash::names(bench).into_iter().filter(|name| crash::is_staged(name)).count();
    for files in 0.. {
        let (bench, storage) = bench();
        storage.observer().leave(files);
        let outcome = bench.try_compact();
        assert_eq!(left(&bench), 0, "{files} files");
        if outcome.is_ok() {
            break;
        }
    }
    // Whatever else it is given up for, as long as the partition may be written to.
    let mut given_up = 0;
    for operation in 0.. {
        let (bench, _) = bench();
        bench.storage.fail_with(std::io::ErrorKind::Other, operation);
        let outcome = bench.try_compact();
        bench.storage.clear_faults();
        if outcome.is_ok() {
            return assert!(given_up > 20, "it was given up {given_up} times");
        }
        if !bench.partition.is_poisoned() {
            given_up += 1;
            assert_eq!(left(&bench), 0, "operation {operation}");
        }
    }
}

/// Compacts segments into one, over and over, and reads on in it; what there is in the end.
fn compacted_thrice(bench: &Bench) -> (Vec<Found>, Vec<(i64, i64, i64)>) {
    for round in 0..3 {
        bench.plain(&[1, 2, 10 + round]);
        bench.roll();
        bench.transactional(1, round as i16, 0, &[3]);
        bench.abort(1, round as i16);
        bench.roll();
        bench.compact();
        assert_eq!(bench.segments(), 2, "one, and the active one");
    }
    (bench.batches(), bench.aborted())
}

#[test]
fn what_took_the_place_of_others_is_opened_by_their_names_on_a_disk_as_in_memory() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let storage = DiskStorage::new(0).expect("no thread is started");
    let in_memory = Bench::new();
    let site = site(&storage, in_memory.config.clone());
    let context = PartitionContext { open_files: Arc::new(OpenFiles::new(0)), ..site.context };
    let site = PartitionSite { context, directory: directory.path().join("topic-3"), ..site };
    let on_disk = Bench { partition: Partition::create(site).expect("there is none yet"), ..Bench::new() };
    assert_eq!(compacted_thrice(&on_disk), compacted_thrice(&in_memory));
}
