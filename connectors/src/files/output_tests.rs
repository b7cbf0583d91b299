//! The power fails at every operation of writing files; and each sync is left out once, which some power cut must find.

use std::collections::BTreeSet;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use lotic_engine::epoch::Epoch;
use lotic_log::storage::memory::{MemoryStorage, SyncPlace};
use lotic_log::storage::{Storage, SyncPurpose};

use super::*;
use crate::error::Result;

const DATA: &str = "/data";

/// One power cut, and what is left out.
#[derive(Clone, Copy)]
struct Cut<'a> {
    seed: u64,
    /// After so many operations; when all is done if there are fewer.
    operation: u64,
    left_out: Option<&'a SyncPlace>,
}

/// An empty directory, and where it is.
fn disk(seed: u64) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(seed);
    storage.create_dir_all(Path::new(DATA)).expect("the disk is fine");
    storage.sync_dir(Path::new("/"), SyncPurpose::Directory).expect("the disk is fine");
    storage
}

/// Does the work on a disk, cuts the power, and says whether that hit the work.
fn strike(storage: &Arc<MemoryStorage>, cut: Cut<'_>, work: impl FnOnce() -> Result<()>) -> bool {
    cut.left_out.iter().for_each(|place| storage.ignore_syncs_at((*place).clone()));
    storage.fail_after(cut.operation);
    let outcome = work();
    let is_hit = storage.is_unplugged();
    assert_eq!(outcome.is_err(), is_hit, "{outcome:?}");
    storage.clear_faults();
    storage.crash();
    is_hit
}

fn rows(number: u64) -> String {
    format!("{number},some row\n").repeat(200)
}

fn found(storage: &MemoryStorage, path: &Path) -> Option<String> {
    storage.contents(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A file is published in the place of another.
fn check_published(cut: Cut<'_>) -> Struck {
    let storage = disk(cut.seed);
    let target = Path::new(DATA).join("results.csv");
    let publish = |number| {
        let mut file = StagedFile::create_on(storage.mount(), target.clone())?;
        file.write_all(rows(number).as_bytes())
            .map_err(|error| crate::error::Error::io("write", &target, error))?;
        file.publish()
    };
    publish(1).expect("the disk is fine");
    let is_hit = strike(&storage, cut, || publish(2));
    let found = found(&storage, &target).expect("one of them is there");
    assert!(found == rows(2) || is_hit && found == rows(1), "neither is whole: {found:?}");
    (is_hit, storage.sync_places())
}

/// Epochs are prepared and committed, the last of them in the log alone.
fn check_epochs(cut: Cut<'_>) -> Struck {
    let storage = disk(cut.seed);
    let open =
        || EpochFiles::new_on(storage.mount(), Path::new(DATA).join("out/flow"), "csv").expect("a fine name");
    let files = open();
    let mut prepared = 0;
    let is_hit = strike(&storage, cut, || {
        for epoch in 1..=3 {
            let mut file = files.create(0)?;
            let target = file.target().to_owned();
            let written = file.write_all(rows(epoch).as_bytes());
            written.map_err(|error| crate::error::Error::io("write", &target, error))?;
            files.prepare(file, Epoch(epoch), 0)?;
            prepared = epoch;
            if epoch < 3 {
                files.commit(Epoch(epoch), 0)?;
            }
        }
        Ok(())
    });
    let files = open();
    files.check(Epoch(prepared)).expect("no other is there");
    files.recover(Epoch(prepared)).expect("the disk is fine again");
    for epoch in 1..=3 {
        let expected = (epoch <= prepared).then(|| rows(epoch));
        assert_eq!(found(&storage, &files.path(Epoch(epoch), 0)), expected, "epoch {epoch} of {prepared}");
    }
    (is_hit, storage.sync_places())
}

/// Whether the power cut hit the work, and where that was told to sync.
type Struck = (bool, BTreeSet<SyncPlace>);

const SCRIPTS: [fn(Cut<'_>) -> Struck; 2] = [check_published, check_epochs];

#[test]
fn wherever_the_power_fails_a_file_is_whole_or_as_it_was() {
    for script in SCRIPTS {
        for seed in 0..20 {
            let hits =
                (0..).take_while(|operation| script(Cut { seed, operation: *operation, left_out: None }).0);
            assert!(hits.count() >= 5, "each operation is hit once");
        }
    }
}

#[test]
fn each_sync_of_a_file_is_missed_where_it_is_left_out() {
    let whole = |seed| Cut { seed, operation: u64::MAX / 2, left_out: None };
    let places: BTreeSet<_> = SCRIPTS.iter().flat_map(|script| script(whole(0)).1).collect();
    let exported: Vec<_> = places.iter().filter(|place| place.purpose == SyncPurpose::Export).collect();
    let lines: BTreeSet<_> = exported.iter().map(|place| place.line).collect();
    assert_eq!(lines.len(), 4, "the file, its name for an epoch, its last name, a new folder: {exported:?}");
    for place in exported {
        let is_missed = |cut: Cut<'_>| {
            SCRIPTS.iter().any(|script| catch_unwind(AssertUnwindSafe(|| script(cut))).is_err())
        };
        let mut cuts = (0..200).flat_map(|seed| [u64::MAX / 2, seed % 20].map(|operation| (seed, operation)));
        let found = cuts.any(|(seed, operation)| is_missed(Cut { seed, operation, left_out: Some(place) }));
        assert!(found, "nothing depends on {place}");
    }
}
