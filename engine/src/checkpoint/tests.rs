use std::collections::BTreeMap;

use lotic_log::{Offset, PartitionId};

use super::*;
use crate::event_log::EventLog;
use crate::memory_log::MemoryLog;
use crate::state::restore::restore;
use crate::state::testing::rows;
use crate::state::{Base, Position, Slice, StoreChangelog, WriteSet};

pub(super) fn small() -> RocksOptions {
    RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, background_jobs: 1 }
}

/// A flow with one store, which has applied the whole of its changelog: one row for each of the numbers.
pub(super) struct Fixture {
    _directory: Option<tempfile::TempDir>,
    pub(super) home: Arc<DiskState>,
    log: Arc<MemoryLog>,
    store: StoreChangelog,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = DiskState::new(directory.path(), "flow", small()).unwrap();
        Self { _directory: Some(directory), ..Self::of(home) }
    }

    /// One with an empty changelog, and the state in a directory that the caller keeps.
    pub(super) fn of(home: DiskState) -> Self {
        let log = MemoryLog::new();
        let store = StoreChangelog { name: "one".to_owned(), topic: log.topic("flow-one-changelog", 1) };
        Self { _directory: None, home: Arc::new(home), log, store }
    }

    /// The same flow, with its state elsewhere.
    pub(super) fn with_home(self, home: DiskState) -> Self {
        Self { home: Arc::new(home), ..self }
    }

    pub(super) fn produce(&self, number: u8) {
        self.log.produce(&self.store.topic, 0, &[(0, &[0, number], &[1, number])]);
    }

    pub(super) fn restore(&self) -> crate::state::Restored {
        restore(&*self.home, &*self.log, std::slice::from_ref(&self.store), 1, &|| false).unwrap()
    }

    /// Restores, and checks that every number is there.
    pub(super) fn check(&self, base: Base, rejected: usize, records: u64, numbers: u8) {
        let restored = self.restore();
        assert_eq!(restored.report.base, base, "{:?}", restored.report);
        assert_eq!(restored.report.rejected.len(), rejected, "{:?}", restored.report);
        assert_eq!(restored.report.records, records);
        let store = restored.backend.open_store("one").unwrap();
        let expected: BTreeMap<_, _> =
            (0..numbers).map(|number| (vec![0, number], vec![1, number])).collect();
        assert_eq!(rows(&*restored.backend, store), expected);
    }

    /// Two checkpoints: of one row, and of two. Then a third row.
    fn with_checkpoints() -> Self {
        let f = Self::new();
        for number in 0..2 {
            f.produce(number);
            let _restored = f.restore();
            assert_eq!(f.home.take().unwrap(), CheckpointId(u64::from(number) + 1));
        }
        f.produce(2);
        f.check(Base::Live, 0, 1, 3);
        f
    }

    fn file_of(&self, checkpoint: u64, ends_with: &str) -> PathBuf {
        let directory = self.home.path(CheckpointId(checkpoint));
        let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.to_str().unwrap().ends_with(ends_with)).unwrap()
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    // Not in place: the live store has links to the same file.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_lost_live_store_is_restored_from_the_newest_checkpoint() {
    let f = Fixture::with_checkpoints();
    fs::remove_dir_all(&f.home.live).unwrap();
    f.check(Base::Checkpoint(CheckpointId(2)), 0, 1, 3);
}

#[test]
fn a_store_found_damaged_while_in_use_gives_way_to_a_checkpoint() {
    let f = Fixture::with_checkpoints();
    mark_suspect(&f);
    f.check(Base::Checkpoint(CheckpointId(2)), 1, 1, 3);
    f.check(Base::Live, 0, 0, 3);
}

fn mark_suspect(f: &Fixture) {
    fs::File::create(&f.home.suspect).unwrap();
}

#[test]
fn a_checkpoint_with_a_wrong_checksum_gives_way_to_the_one_before() {
    let f = Fixture::with_checkpoints();
    mark_suspect(&f);
    let table = f.file_of(2, ".sst");
    flip(&table);
    let restored = f.restore();
    assert_eq!(restored.report.base, Base::Checkpoint(CheckpointId(1)));
    let reason = &restored.report.rejected[1].1;
    assert!(reason.contains(table.to_str().unwrap()) && reason.contains("the manifest says"), "{reason}");
    drop(restored);
    f.check(Base::Live, 0, 0, 3);
}

#[test]
fn without_a_good_checkpoint_the_whole_changelog_is_read() {
    let f = Fixture::with_checkpoints();
    mark_suspect(&f);
    flip(&f.file_of(2, "manifest"));
    fs::remove_file(f.file_of(1, "manifest")).unwrap();
    f.check(Base::Nothing, 3, 3, 3);
}

#[test]
fn a_live_store_whose_files_are_gone_gives_way_to_a_checkpoint() {
    let f = Fixture::with_checkpoints();
    for entry in fs::read_dir(&f.home.live).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            fs::remove_file(path).unwrap();
        }
    }
    f.check(Base::Checkpoint(CheckpointId(2)), 1, 1, 3);
}

#[test]
fn an_adopted_checkpoint_stays_as_it_was() {
    let f = Fixture::with_checkpoints();
    for more in 3..6 {
        mark_suspect(&f);
        f.produce(more);
        f.check(Base::Checkpoint(CheckpointId(2)), 1, u64::from(more) - 1, more + 1);
    }
}

#[test]
fn a_checkpoint_half_made_is_none() {
    let f = Fixture::with_checkpoints();
    fs::create_dir(f.home.checkpoints.join("unfinished")).unwrap();
    assert_eq!(f.home.checkpoints().unwrap(), [CheckpointId(2), CheckpointId(1)]);
    let _restored = f.restore();
    assert_eq!(f.home.take().unwrap(), CheckpointId(3));
}

#[test]
fn only_the_newest_checkpoints_are_kept() {
    let f = Fixture::with_checkpoints();
    let _restored = f.restore();
    assert_eq!(f.home.take().unwrap(), CheckpointId(3));
    f.home.retire(2).unwrap();
    assert_eq!(f.home.checkpoints().unwrap(), [CheckpointId(3), CheckpointId(2)]);
    // Files known from an older checkpoint were not read again, and are described as if they had been.
    let directory = f.home.path(CheckpointId(3));
    Manifest::read(&directory).unwrap().verify(&directory, &|| false).unwrap();
}

#[test]
fn a_check_of_a_checkpoint_that_is_told_to_stop_reads_no_further_file() {
    let f = Fixture::with_checkpoints();
    let newest = f.home.checkpoints().unwrap()[0];
    let files = Manifest::read(&f.home.path(newest)).unwrap().files;
    assert!(files.len() > 2, "there is a next one");
    // Behind the second file it is damaged, and nobody notices.
    fs::remove_file(f.home.path(newest).join(&files[2].name)).unwrap();
    let asked = std::cell::Cell::new(0);
    let is_stopping = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    let error = f.home.verify(newest, &is_stopping).unwrap_err();
    assert_eq!((error.kind(), asked.get()), (ErrorKind::Stopped, 3));
    assert_eq!(f.home.verify(newest, &|| false).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_second_attempt_goes_on_with_the_store_that_is_open() {
    let f = Fixture::with_checkpoints();
    let first = f.restore();
    let second = f.restore();
    assert!(Arc::ptr_eq(&first.backend, &second.backend));
    let refused = f.home.discard().unwrap_err();
    assert!(refused.to_string().contains("still in use"), "{refused}");
}

#[test]
fn a_live_store_past_the_changelog_gives_way_to_a_checkpoint() {
    let f = Fixture::with_checkpoints();
    let restored = f.restore();
    let store = restored.backend.open_store("one").unwrap();
    let mut writes = WriteSet::default();
    let ahead = Position {
        partition: PartitionId(0),
        slice: Slice::new(0, 1),
        topic: f.store.topic.id,
        next: Offset(
            f.log
                .stable_offset(crate::event_log::PartitionKey { topic: 0, partition: PartitionId(0) })
                .unwrap()
                .0
                + 1,
        ),
    };
    ahead.put(&mut writes);
    restored.backend.apply(store, &writes).unwrap();
    drop(restored);
    f.check(Base::Checkpoint(CheckpointId(2)), 1, 1, 3);
}

#[test]
fn a_flow_whose_name_leads_to_other_directories_has_no_state() {
    for flow in ["", ".", "..", "../log", "other.suspect"] {
        let error = DiskState::new(Path::new("data"), flow, small()).err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("flow {flow:?}")), "{error}");
    }
}
