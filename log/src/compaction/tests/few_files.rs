//! Compacting while no more files can be opened: whatever cannot be done then is done later, and nothing else suffers.

use super::*;
use crate::error::ErrorKind;
use crate::open_files::OpenFiles;
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
