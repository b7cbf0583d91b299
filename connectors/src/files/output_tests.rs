//! The power fails at every operation of writing files, also where one has failed before; and each sync is left out
//! once, which some power cut must find.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use lotic_engine::epoch::Epoch;
use lotic_log::storage::memory::{MemoryStorage, SyncPlace};
use lotic_log::storage::observed::{Call, ObservedStorage, Observer};
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

/// An empty directory, whose name nobody has synced.
fn disk(seed: u64) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(seed);
    storage.create_dir_all(Path::new(DATA)).expect("the disk is fine");
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
    storage.sync_dir(Path::new("/"), SyncPurpose::Directory).expect("the disk is fine");
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

/// The files of a process that has begun.
fn open(storage: &MemoryStorage) -> EpochFiles {
    EpochFiles::new_on(storage.mount(), Path::new(DATA).join("out/flow"), "csv").expect("a fine name")
}

/// Epochs behind those that were prepared are prepared and committed, the last of them in the log alone.
fn write_epochs(files: &EpochFiles, prepared: &mut u64) -> Result<()> {
    for epoch in *prepared + 1..=3 {
        let mut file = files.create(0)?;
        let target = file.target().to_owned();
        let written = file.write_all(rows(epoch).as_bytes());
        written.map_err(|error| crate::error::Error::io("write", &target, error))?;
        files.prepare(file, Epoch(epoch), 0)?;
        *prepared = epoch;
        if epoch < 3 {
            files.commit(Epoch(epoch), 0)?;
        }
    }
    Ok(())
}

/// The next process begins, and finishes what was prepared.
fn recovered(storage: &MemoryStorage, prepared: u64) -> EpochFiles {
    let files = open(storage);
    files.check(Epoch(prepared)).expect("no other is there");
    files.recover(Epoch(prepared)).expect("the disk is fine again");
    files
}

fn check_recovered(storage: &MemoryStorage, prepared: u64) {
    let files = recovered(storage, prepared);
    for epoch in 1..=3 {
        let expected = (epoch <= prepared).then(|| rows(epoch));
        assert_eq!(found(storage, &files.path(Epoch(epoch), 0)), expected, "epoch {epoch} of {prepared}");
    }
}

fn check_epochs(cut: Cut<'_>) -> Struck {
    let storage = disk(cut.seed);
    let files = open(&storage);
    let mut prepared = 0;
    let is_hit = strike(&storage, cut, || write_epochs(&files, &mut prepared));
    check_recovered(&storage, prepared);
    (is_hit, storage.sync_places())
}

/// What happens to the first process that writes epochs.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// An operation fails, once.
    Failure,
    Kill,
}

/// After so many operations there is a mishap, the next process goes on, and the power fails when that is done.
/// Whether there were so many.
fn check_epochs_after(mishap: Mishap, seed: u64, operation: u64) -> bool {
    let storage = disk(seed);
    let files = open(&storage);
    match mishap {
        Mishap::Failure => storage.fail_with(io::ErrorKind::Other, operation),
        Mishap::Kill => storage.fail_after(operation),
    }
    let mut prepared = 0;
    let is_hit = write_epochs(&files, &mut prepared).is_err();
    storage.clear_faults();
    if let Mishap::Kill = mishap {
        storage.kill();
    }
    drop(files);
    write_epochs(&recovered(&storage, prepared), &mut prepared).expect("the disk is fine again");
    storage.crash();
    check_recovered(&storage, 3);
    is_hit
}

/// Whether the power cut hit the work, and where that was told to sync.
type Struck = (bool, BTreeSet<SyncPlace>);

type Script = fn(Cut<'_>) -> Struck;

const SCRIPTS: [(&str, Script); 2] =
    [("a file in the place of another", check_published), ("files of epochs", check_epochs)];

/// Whether some script breaks. With all its syncs it must not.
fn is_broken(cut: Cut<'_>) -> bool {
    SCRIPTS.iter().any(|(name, script)| {
        let breaks = |cut| catch_unwind(AssertUnwindSafe(|| script(cut))).is_err();
        let is_broken = breaks(cut);
        let Cut { seed, operation, .. } = cut;
        let whole = Cut { left_out: None, ..cut };
        assert!(
            !is_broken || !breaks(whole),
            "{name}, seed {seed}, a power cut after {operation} operations: broken with all syncs"
        );
        is_broken
    })
}

#[test]
fn wherever_the_power_fails_a_file_is_whole_or_as_it_was() {
    for (_, script) in SCRIPTS {
        for seed in 0..20 {
            let hits =
                (0..).take_while(|operation| script(Cut { seed, operation: *operation, left_out: None }).0);
            assert!(hits.count() >= 5, "each operation is hit once");
        }
    }
}

#[test]
fn epochs_that_went_on_after_a_failure_or_a_kill_are_whole_after_a_power_cut() {
    for mishap in [Mishap::Failure, Mishap::Kill] {
        for seed in 0..20 {
            let hits = (0..).take_while(|operation| check_epochs_after(mishap, seed, *operation)).count();
            assert!(hits > 20, "{mishap:?}: {hits} operations were hit");
        }
    }
}

/// Refuses to sync the names in one folder.
struct Refusal {
    folder: &'static str,
    kind: io::ErrorKind,
}

impl Observer for Refusal {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let is_refused = call == Call::SyncNames(Path::new(self.folder));
        if is_refused { Err(self.kind.into()) } else { Ok(()) }
    }
}

/// The first file of an output, where the names in a folder cannot be synced.
fn create_where_refused(folder: &'static str, kind: io::ErrorKind) -> Result<()> {
    let storage = ObservedStorage::observed_by(Refusal { folder, kind }, disk(0));
    let files = EpochFiles::new_on(storage, Path::new(DATA).join("out/flow"), "csv")?;
    files.create(0).map(drop)
}

#[test]
fn a_folder_is_written_to_though_names_of_others_above_it_cannot_be_synced() {
    use io::ErrorKind::{InvalidInput, Other, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    for kind in [PermissionDenied, ReadOnlyFilesystem, InvalidInput, Unsupported] {
        create_where_refused("/", kind).expect("what is there was made by others");
        let error = create_where_refused(DATA, kind).expect_err("a name that was just made");
        assert!(error.to_string().contains("cannot sync /data"), "{error}");
    }
    let error = create_where_refused("/", Other).expect_err("not for what the folder is");
    assert!(error.to_string().contains("cannot sync /"), "{error}");
}

#[test]
fn the_names_of_a_folder_are_synced_once_and_again_where_it_was_removed() {
    let storage = disk(0);
    let files = open(&storage);
    let synced_by = |work: &dyn Fn()| {
        let before = storage.sync_count(SyncPurpose::Export);
        work();
        storage.sync_count(SyncPurpose::Export) - before
    };
    let create = || drop(files.clone().create(0).expect("the disk is fine"));
    assert_eq!(synced_by(&create), 3);
    assert_eq!(synced_by(&create), 0);
    storage.remove_dir_all(Path::new("/data/out")).expect("it is there");
    assert_eq!(synced_by(&create), 3);
}

#[test]
fn each_sync_of_a_file_is_missed_where_it_is_left_out() {
    let whole = |seed| Cut { seed, operation: u64::MAX / 2, left_out: None };
    let places: BTreeSet<_> = SCRIPTS.iter().flat_map(|(_, script)| script(whole(0)).1).collect();
    let exported: Vec<_> = places.iter().filter(|place| place.purpose == SyncPurpose::Export).collect();
    let lines: BTreeSet<_> = exported.iter().map(|place| place.line).collect();
    assert_eq!(lines.len(), 4, "the file, its name for an epoch, its last name, a new folder: {exported:?}");
    for place in exported {
        let mut cuts = (0..200).flat_map(|seed| [u64::MAX / 2, seed % 20].map(|operation| (seed, operation)));
        let found = cuts.any(|(seed, operation)| is_broken(Cut { seed, operation, left_out: Some(place) }));
        assert!(found, "nothing depends on {place}");
    }
}
