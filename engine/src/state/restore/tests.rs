use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use lotic_log::batch::{BatchBuilder, Compression};
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::{
    CleanupPolicy, CompactionConfig, Durability, Log, LogOptions, ManualClock, Timestamp, TopicConfig,
};
use parking_lot::Mutex;
use proptest::prelude::*;
use rand::Rng;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::embedded::EmbeddedLog;
use crate::epoch::Epoch;
use crate::epoch_writer::{EpochWriter, EpochWriterOptions};
use crate::memory_log::MemoryLog;
use crate::state::testing::{as_text, rows, text};
use crate::state::{
    KeyedState, MemoryState, StateAccess, StateAccessOptions, StateLimits, StoreOrder, Visit,
};

type Model = BTreeMap<Vec<u8>, String>;

const STORES: [&str; 2] = ["one", "two"];

/// A flow of some workers that does nothing but change its two stores.
struct Flow {
    log: Arc<MemoryLog>,
    home: MemoryState,
    stores: Vec<StoreChangelog>,
    epoch: Epoch,
    /// What the last committed epoch left, by store.
    committed: [Model; 2],
}

struct Worker {
    access: StateAccess,
    states: Vec<KeyedState<String>>,
    writer: EpochWriter,
}

impl Flow {
    fn new(partitions: i32) -> Self {
        let log = MemoryLog::new();
        let store = |name: &&str| StoreChangelog {
            name: (*name).to_owned(),
            topic: log.topic(&format!("flow-{name}-changelog"), partitions),
        };
        let stores = STORES.iter().map(store).collect();
        Self { log, home: MemoryState::crashing(6), stores, epoch: Epoch(0), committed: Default::default() }
    }

    fn restore(&self, workers: usize) -> Restored {
        restore(&self.home, &*self.log, &self.stores, workers, &|| false).unwrap()
    }

    fn workers(&self, workers: usize) -> Vec<Worker> {
        let backend = self.restore(workers).backend;
        let worker = |worker| {
            let options = StateAccessOptions {
                backend: backend.clone(),
                stores: &self.stores,
                worker,
                workers,
                limits: StateLimits { cache_bytes_max: 2_000, dirty_bytes_max: 10_000 },
            };
            let access = StateAccess::new(options).unwrap();
            let open = |name: &&str| access.store(name, text(), StoreOrder::Hashed).unwrap();
            let states = STORES.iter().map(open).collect();
            let writer = EpochWriter::new(self.log.clone(), EpochWriterOptions::default(), self.epoch.next());
            Worker { access, states, writer }
        };
        (0..workers).map(worker).collect()
    }

    /// Changes state at random and writes it to the changelogs, without a commit.
    fn run_epoch(&mut self, workers: &mut [Worker], random: &mut ChaCha8Rng) -> [Model; 2] {
        let epoch = self.epoch.next();
        self.log.begin(epoch).unwrap();
        let mut models = self.committed.clone();
        for _ in 0..random.random_range(0..30) {
            let group = KeyGroup(random.random_range(0..12));
            let key = vec![0, group.0 as u8, random.random_range(0..3)];
            let store = random.random_range(0..2);
            let count = workers.len();
            let state = &mut workers[group.worker(count)].states[store];
            assert_eq!(state.get(&key).unwrap(), models[store].get(&key), "what was restored is read");
            if random.random_bool(0.3) {
                state.remove(&key);
                models[store].remove(&key);
            } else {
                let value = format!("{epoch} {}", random.random::<u32>());
                state.put(&key, value.clone());
                models[store].insert(key, value);
            }
        }
        for worker in workers {
            worker.writer.enter(epoch);
            worker.writer.begin(epoch).unwrap();
            for state in &mut worker.states {
                state.freeze(epoch, Timestamp(0), &mut worker.writer).unwrap();
            }
            worker.writer.flush(epoch).unwrap();
        }
        models
    }

    /// Commits what the epoch wrote, and has only some of the workers apply it.
    fn commit(&mut self, workers: &mut [Worker], models: [Model; 2], appliers: impl Fn(usize) -> bool) {
        self.epoch = self.epoch.next();
        let ends = self.log.ends().unwrap().unwrap();
        self.log.commit(self.epoch, &[]).unwrap();
        self.committed = models;
        for (_, worker) in workers.iter_mut().enumerate().filter(|(index, _)| appliers(*index)) {
            worker.access.publish_ends(self.epoch, &ends);
            for state in &mut worker.states {
                state.committed(self.epoch).unwrap();
            }
        }
    }

    fn check(&self, backend: &dyn StateBackend, workers: usize) {
        for (store, model) in self.stores.iter().zip(&self.committed) {
            let id = backend.open_store(&store.name).unwrap();
            assert_eq!(rows(backend, id), as_text(model), "store {}", store.name);
            let positions = Position::read_all(backend, id).unwrap();
            assert!(positions.iter().all(|position| usize::from(position.slice.workers) == workers));
            let slices = Slice::all(workers).map(|slice| slice.partitions(store.topic.partitions).len());
            assert_eq!(positions.len(), slices.sum::<usize>(), "each slice has one position");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Runs with any number of workers, one after the other; each ends in the middle of an epoch, before
    /// or after its commit, with some of the workers behind.
    #[test]
    fn what_is_restored_is_what_was_committed(
        seed in any::<u64>(), partitions in 1..5i32, runs in prop::collection::vec(1..5usize, 1..5),
    ) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut flow = Flow::new(partitions);
        for count in runs {
            let mut workers = flow.workers(count);
            flow.check(&*flow.home.open().unwrap(), count);
            for _ in 0..random.random_range(0..6) {
                let models = flow.run_epoch(&mut workers, &mut random);
                flow.commit(&mut workers, models, |_| true);
                if random.random_bool(0.2) {
                    flow.home.take().unwrap();
                    flow.home.retire(2).unwrap();
                }
            }
            let models = flow.run_epoch(&mut workers, &mut random);
            if random.random_bool(0.5) {
                let behind = random.random_range(0..=count);
                flow.commit(&mut workers, models, |index| index >= behind);
            } else {
                flow.log.abort().unwrap();
            }
            drop(workers);
            match random.random_range(0..4) {
                // A new attempt in the same process: the backend lives on.
                0 => {}
                1 => flow.home.discard().unwrap(),
                _ => flow.home.crash(&mut random),
            }
            if let Some(&id) = flow.home.checkpoints().unwrap().choose(&mut random) && random.random_bool(0.2) {
                flow.home.damage(id);
            }
        }
        let restored = flow.restore(3);
        flow.check(&*restored.backend, 3);
    }
}

/// Two committed epochs, all applied and flushed, and a checkpoint after each.
fn settled() -> Flow {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut flow = Flow::new(2);
    let mut workers = flow.workers(2);
    for _ in 0..2 {
        let models = flow.run_epoch(&mut workers, &mut random);
        flow.commit(&mut workers, models, |_| true);
        flow.home.take().unwrap();
    }
    flow
}

fn positions_of(flow: &Flow) -> (Arc<dyn StateBackend>, StoreId, Position) {
    let backend = flow.home.open().unwrap();
    let store = backend.open_store("one").unwrap();
    let position = Position::read_all(&*backend, store).unwrap()[0];
    (backend, store, position)
}

#[test]
fn a_store_that_has_everything_reads_nothing() {
    let flow = settled();
    let report = flow.restore(2).report;
    assert_eq!(report, RestoreReport { base: Base::Live, rejected: Vec::new(), records: 0 });
}

#[test]
fn a_store_past_the_committed_changelog_gives_way_to_a_checkpoint() {
    let flow = settled();
    let (backend, store, mut position) = positions_of(&flow);
    let mut writes = WriteSet::default();
    position.next = Offset(1_000_000);
    position.put(&mut writes);
    backend.apply(store, &writes).unwrap();
    let restored = flow.restore(2);
    assert_eq!(restored.report.base, Base::Checkpoint(CheckpointId(2)));
    let [(Base::Live, reason)] = &restored.report.rejected[..] else { panic!("{:?}", restored.report) };
    assert!(
        reason.contains("is at offset 1000000 of flow-one-changelog-0, which is committed up to"),
        "{reason}"
    );
    flow.check(&*restored.backend, 2);
}

#[test]
fn damaged_checkpoints_give_way_to_older_ones_and_at_last_to_the_changelog() {
    let flow = settled();
    let break_live = || {
        let (backend, store, position) = positions_of(&flow);
        let mut writes = WriteSet::default();
        Position { next: Offset(1_000_000), ..position }.put(&mut writes);
        backend.apply(store, &writes).unwrap();
    };
    break_live();
    flow.home.damage(CheckpointId(2));
    let restored = flow.restore(2);
    assert_eq!(restored.report.base, Base::Checkpoint(CheckpointId(1)));
    flow.check(&*restored.backend, 2);
    drop(restored);

    break_live();
    flow.home.damage(CheckpointId(1));
    let restored = flow.restore(2);
    assert_eq!(restored.report.base, Base::Nothing);
    assert_eq!(restored.report.rejected.len(), 3);
    assert!(restored.report.records > 0);
    flow.check(&*restored.backend, 2);
}

/// Its stores are to be restored from the changelogs alone.
fn without_a_base() -> Flow {
    let flow = settled();
    for id in flow.home.checkpoints().unwrap() {
        flow.home.damage(id);
    }
    flow.home.discard().unwrap();
    flow
}

#[test]
fn a_restore_that_is_told_to_stop_ends_there_and_the_next_one_makes_it_whole() {
    let mut stops = 0;
    loop {
        let flow = without_a_base();
        let asked = Cell::new(0);
        let is_stopping = || {
            assert!(asked.get() <= stops, "it goes on after it was told to stop");
            asked.set(asked.get() + 1);
            asked.get() > stops
        };
        let Err(error) = restore(&flow.home, &*flow.log, &flow.stores, 2, &is_stopping) else { break };
        assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
        if stops % 2 == 0 {
            flow.home.crash(&mut ChaCha8Rng::seed_from_u64(stops));
        }
        flow.check(&*flow.restore(2).backend, 2);
        stops += 1;
    }
    // Three bases, and two partitions of two stores.
    assert_eq!(stops, 3 + 4);
}

#[test]
fn state_of_another_topic_is_not_believed() {
    let mut flow = settled();
    let made_again = flow.log.topic("flow-one-changelog-again", 2);
    flow.stores[0].topic = made_again.clone();
    let restored = flow.restore(2);
    assert_eq!(restored.report.base, Base::Nothing);
    assert_eq!(restored.report.rejected.len(), 3);
    let reason = &restored.report.rejected[0].1;
    assert!(reason.contains(&made_again.id.to_string()), "{reason}");
    flow.committed[0].clear();
    flow.check(&*restored.backend, 2);
}

#[test]
fn a_new_store_begins_with_its_changelog() {
    let mut flow = settled();
    let topic = flow.log.topic("flow-three-changelog", 2);
    flow.log.produce(&topic, 1, &[(0, &[0, 1, 9], b"\x03third")]);
    flow.stores.push(StoreChangelog { name: "three".to_owned(), topic });
    let restored = flow.restore(2);
    assert_eq!((restored.report.base, restored.report.records), (Base::Live, 1));
    let id = restored.backend.open_store("three").unwrap();
    let expected = BTreeMap::from([(vec![0, 1, 9], "third".to_owned())]);
    assert_eq!(rows(&*restored.backend, id), as_text(&expected));
}

#[test]
fn a_changelog_record_without_a_key_group_stops_the_restore() {
    let mut flow = settled();
    let topic = flow.log.topic("flow-three-changelog", 2);
    flow.log.produce(&topic, 0, &[(0, &[7], b"\x03third")]);
    flow.stores.push(StoreChangelog { name: "three".to_owned(), topic });
    let error = restore(&flow.home, &*flow.log, &flow.stores, 2, &|| false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("changelog flow-three-changelog-0, offset 0"), "{error}");
}

/// A changelog of some records on a disk that can be damaged, and a store that has all of them.
struct Damageable {
    storage: Arc<MemoryStorage>,
    log: Arc<EmbeddedLog>,
    home: MemoryState,
    stores: [StoreChangelog; 1],
}

impl Damageable {
    fn new() -> Self {
        let storage = MemoryStorage::new(1);
        let log = Log::open("/log", LogOptions::manual(storage.clone(), ManualClock::new(), 1)).unwrap();
        let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
        let changelog = log.create_topic("flow-one-changelog", config).unwrap().partitions()[0].clone();
        for key in 0..3 {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(Timestamp(0), Some(&[0, 1, key]), Some(b"there"), &[]).unwrap();
            changelog.append(batch.seal()).unwrap();
        }
        let log = EmbeddedLog::new(log, "flow");
        let topic = log.find("flow-one-changelog").unwrap().unwrap();
        let stores = [StoreChangelog { name: "one".to_owned(), topic }];
        let made = Self { storage, log, home: MemoryState::new(), stores };
        assert_eq!(made.restore().unwrap().report.records, 3);
        made
    }

    fn restore(&self) -> Result<Restored> {
        restore(&self.home, &*self.log, &self.stores, 1, &|| false)
    }

    /// Damages the end of the changelog, or mends it again.
    fn turn(&self) {
        let path = Path::new("/log/flow-one-changelog-0/00000000000000000000.log");
        let end = self.storage.contents(path).unwrap().len() as u64;
        self.storage.corrupt(path, end - 2, 1).unwrap();
    }

    fn refuse(&self) {
        self.turn();
        let error = self.restore().err().expect("the changelog is damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("flow-one-changelog"), "{error}");
        self.turn();
    }
}

#[test]
fn a_live_store_is_left_where_the_changelog_that_it_is_judged_by_is_damaged() {
    let damageable = Damageable::new();
    damageable.refuse();
    let report = damageable.restore().unwrap().report;
    assert_eq!(report, RestoreReport { base: Base::Live, rejected: Vec::new(), records: 0 });
}

#[test]
fn a_store_that_is_not_believed_is_left_where_the_one_before_it_cannot_be_judged() {
    let damageable = Damageable::new();
    let checkpoint = damageable.home.take().unwrap();
    let backend = damageable.home.open().unwrap();
    let store = backend.open_store("one").unwrap();
    let position = Position::read_all(&*backend, store).unwrap()[0];
    let mut writes = WriteSet::default();
    Position { next: Offset(1_000_000), ..position }.put(&mut writes);
    backend.apply(store, &writes).unwrap();
    drop(backend);
    damageable.refuse();
    let report = damageable.restore().unwrap().report;
    assert_eq!(report.base, Base::Checkpoint(checkpoint));
    assert_eq!(report.rejected.len(), 1, "{:?}", report.rejected);
}

/// A home that is slow to open: meanwhile the changelogs are compacted.
struct LateHome {
    inner: MemoryState,
    log: Log,
    /// How much each compaction did.
    compacted: Mutex<Vec<usize>>,
}

impl StateHome for LateHome {
    fn open(&self) -> Result<Arc<dyn StateBackend>> {
        let compact = |_| self.log.compact("flow-one-changelog").unwrap().len();
        // The first meets the tombstone, the next one may drop it.
        self.compacted.lock().extend((0..2).map(compact));
        self.inner.open()
    }

    fn discard(&self) -> Result<()> {
        self.inner.discard()
    }

    fn checkpoints(&self) -> Result<Vec<CheckpointId>> {
        self.inner.checkpoints()
    }

    fn look_into(&self, checkpoint: CheckpointId) -> Result<Arc<dyn StateBackend>> {
        self.inner.look_into(checkpoint)
    }

    fn verify(&self, checkpoint: CheckpointId, is_stopping: &dyn Fn() -> bool) -> Result<()> {
        self.inner.verify(checkpoint, is_stopping)
    }

    fn adopt(&self, checkpoint: CheckpointId) -> Result<()> {
        self.inner.adopt(checkpoint)
    }

    fn take(&self) -> Result<CheckpointId> {
        self.inner.take()
    }

    fn retire(&self, keep: usize) -> Result<()> {
        self.inner.retire(keep)
    }

    fn forget(&self, checkpoint: CheckpointId) -> Result<()> {
        self.inner.forget(checkpoint)
    }
}

#[test]
fn a_key_that_was_deleted_stays_deleted_though_the_changelog_is_compacted_while_a_restore_lags() {
    let storage = MemoryStorage::new(1);
    let log = Log::open("/log", LogOptions::manual(storage, ManualClock::new(), 1)).unwrap();
    let compaction = CompactionConfig { delete_retention: Duration::ZERO, ..CompactionConfig::default() };
    let config = TopicConfig {
        cleanup: CleanupPolicy::Compact,
        compaction,
        durability: Some(Durability::Os),
        ..TopicConfig::default()
    };
    let changelog = log.create_topic("flow-one-changelog", config).unwrap().partitions()[0].clone();
    let append = |key: &[u8], value: Option<&[u8]>| {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(Timestamp(0), Some(key), value, &[]).unwrap();
        changelog.append(batch.seal()).unwrap();
    };
    let port = EmbeddedLog::new(log.clone(), "flow");
    let topic = port.find("flow-one-changelog").unwrap().unwrap();
    let stores = [StoreChangelog { name: "one".to_owned(), topic }];
    let home = LateHome { inner: MemoryState::new(), log, compacted: Mutex::default() };
    append(&[0, 1, 7], Some(b"there"));
    let restored = restore(&home, &*port, &stores, 1, &|| false).unwrap();
    assert_eq!(restored.report.records, 1);
    drop(restored);
    append(&[0, 1, 7], None);
    append(&[0, 1, 8], Some(b"later"));
    let restored = restore(&home, &*port, &stores, 1, &|| false).unwrap();
    assert_eq!(restored.report.base, Base::Live);
    let id = restored.backend.open_store("one").unwrap();
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        Visit::More
    };
    restored.backend.scan(id, &[0], &[1], &mut visit).unwrap();
    assert_eq!(keys, [vec![0, 1, 8]]);
    let compacted = std::mem::take(&mut *home.compacted.lock());
    assert_eq!(compacted, [0; 4], "the restore has the changelog pinned");
    home.open().unwrap();
    assert_ne!(home.compacted.lock()[0], 0, "and lets it go");
}
