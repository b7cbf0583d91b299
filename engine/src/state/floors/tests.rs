//! A store that follows its changelog, which is compacted at any time, and what is left of it after a crash.

use std::collections::VecDeque;
use std::time::Duration;

use lotic_log::batch::{BatchBuilder, Compression};
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::{
    CleanupPolicy, CompactionConfig, Durability, Log, LogOptions, ManualClock, Partition, PartitionId,
    Timestamp, TopicConfig,
};
use proptest::prelude::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::embedded::EmbeddedLog;
use crate::key_group::KeyGroup;
use crate::state::restore::restore;
use crate::state::testing::rows;
use crate::state::{Base, MemoryState, Restored, Slice, StateBackend, StoreId, WriteSet};

const TOPIC: &str = "flow-one-changelog";
const PARTITIONS: i32 = 2;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A change that is in the changelog and not in the store yet.
struct Change {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    position: Position,
}

/// One store, its changelog in a log that forgets deletions as soon as it may, and a model.
struct Bench {
    log: Log,
    port: Arc<EmbeddedLog>,
    home: MemoryState,
    stores: Vec<StoreChangelog>,
    floors: TombstoneFloors,
    open: Option<(Arc<dyn StateBackend>, StoreId)>,
    pending: VecDeque<Change>,
    model: Rows,
}

impl Bench {
    fn new() -> Self {
        let log = Log::open("/log", LogOptions::manual(MemoryStorage::new(1), ManualClock::new(), 1));
        let log = log.unwrap();
        let compaction = CompactionConfig { delete_retention: Duration::ZERO, ..CompactionConfig::default() };
        let config = TopicConfig {
            partitions: PARTITIONS,
            cleanup: CleanupPolicy::Compact,
            compaction,
            durability: Some(Durability::Os),
            ..TopicConfig::default()
        };
        log.create_topic(TOPIC, config).unwrap();
        let port = EmbeddedLog::new(log.clone(), "flow");
        let topic = port.find(TOPIC).unwrap().unwrap();
        let stores = vec![StoreChangelog { name: "one".to_owned(), topic }];
        let floors = TombstoneFloors::new(port.clone(), stores.clone());
        let home = MemoryState::crashing(6);
        let (open, pending, model) = Default::default();
        let mut bench = Self { log, port, home, stores, floors, open, pending, model };
        bench.restore();
        bench
    }

    fn partition(&self, number: PartitionId) -> Arc<Partition> {
        self.log.topic(TOPIC).unwrap().partition(number).unwrap()
    }

    /// Restores, and checks that what there is is what was written.
    fn restore(&mut self) -> Base {
        self.open = None;
        self.pending.clear();
        let Restored { backend, report } =
            restore(&self.home, &*self.port, &self.stores, 1, &|| false).unwrap();
        let store = backend.open_store("one").unwrap();
        assert_eq!(rows(&*backend, store), self.model, "{report:?}");
        self.open = Some((backend, store));
        report.base
    }

    fn write(&mut self, key: u8, value: Option<u8>) {
        let group = KeyGroup(u16::from(key));
        let number = group.changelog_partition(PARTITIONS);
        let (key, value) = (vec![0, key], value.map(|value| vec![1, value]));
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(Timestamp(0), Some(&key), value.as_deref(), &[]).unwrap();
        let next = self.partition(number).append(batch.seal()).unwrap().last_offset.next();
        match &value {
            Some(value) => drop(self.model.insert(key.clone(), value.clone())),
            None => drop(self.model.remove(&key)),
        }
        let topic = self.stores[0].topic.id;
        let position = Position { partition: number, slice: Slice::new(0, 1), topic, next };
        self.pending.push_back(Change { key, value, position });
    }

    /// Gives the store what it has not got yet.
    fn apply(&mut self) {
        let (backend, store) = self.open.as_ref().unwrap();
        for Change { key, value, position } in self.pending.drain(..) {
            let mut writes = WriteSet::default();
            match value {
                Some(value) => writes.put(&key, &value),
                None => writes.delete(&key),
            }
            position.put(&mut writes);
            backend.apply(*store, &writes).unwrap();
        }
    }

    fn take_checkpoint(&self) {
        self.home.take().unwrap();
        self.home.retire(2).unwrap();
        self.floors.raise(&self.home).unwrap();
    }

    /// The first time meets deletions, the next one may drop them.
    fn compact(&self) {
        (0..2).for_each(|_| drop(self.log.compact(TOPIC).unwrap()));
    }

    /// The deletions that the changelog holds.
    fn deletions(&self) -> Vec<(PartitionId, Offset)> {
        let mut found = Vec::new();
        for partition in (0..PARTITIONS).map(PartitionId) {
            let mut scratch = lotic_log::batch::DecompressionBuffer::default();
            let key = PartitionKey { topic: self.stores[0].topic.index, partition };
            let mut from = Offset(0);
            while let Some(fetched) = self.port.fetch(key, from, 1 << 20).unwrap() {
                from = fetched.next;
                for batch in lotic_log::CommittedBatches::new(&fetched.bytes, &fetched.aborted) {
                    let batch = batch.unwrap();
                    let records = batch.records(&mut scratch).unwrap().map(Result::unwrap);
                    let deletions = records.filter(|record| record.value.is_none());
                    found.extend(deletions.map(|record| (partition, record.offset)));
                }
            }
        }
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_deleted_stays_deleted_whatever_a_restore_begins_with(seed in any::<u64>()) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut bench = Bench::new();
        for number in 0..120 {
            match random.random_range(0..20) {
                0..=10 => {
                    let value = random.random_bool(0.6).then_some(number);
                    bench.write(random.random_range(0..6), value);
                }
                11..=14 => bench.apply(),
                15 => bench.take_checkpoint(),
                16..=17 => bench.compact(),
                _ => {
                    let (backend, _) = bench.open.take().unwrap();
                    drop(backend);
                    match random.random_range(0..3) {
                        0 => bench.home.discard().unwrap(),
                        _ => bench.home.crash(&mut random),
                    }
                    if let Some(&id) = bench.home.checkpoints().unwrap().choose(&mut random)
                        && random.random_bool(0.1)
                    {
                        bench.home.damage(id);
                    }
                    bench.restore();
                }
            }
        }
        bench.open = None;
        bench.home.discard().unwrap();
        bench.restore();
    }
}

/// A key that two checkpoints hold and that was deleted since.
fn deleted_behind_two_checkpoints() -> Bench {
    let mut bench = Bench::new();
    for key in [0, 2] {
        bench.write(key, Some(1));
        bench.apply();
        bench.take_checkpoint();
    }
    bench.write(0, None);
    bench.write(4, Some(1));
    bench.apply();
    bench.compact();
    bench
}

#[test]
fn a_deletion_stays_until_no_checkpoint_is_before_it() {
    let mut bench = deleted_behind_two_checkpoints();
    let deletion = vec![(PartitionId(0), Offset(2))];
    assert_eq!(bench.deletions(), deletion);
    for key in [6, 8] {
        bench.write(key, Some(1));
        bench.apply();
        bench.take_checkpoint();
        let is_needed = key == 6;
        bench.compact();
        assert_eq!(bench.deletions() == deletion, is_needed, "after the checkpoint of {key}");
    }
    assert_eq!(bench.deletions(), []);
}

#[test]
fn a_key_that_an_old_checkpoint_holds_is_deleted_by_the_changelog_behind_it() {
    let mut bench = deleted_behind_two_checkpoints();
    bench.open = None;
    bench.home.discard().unwrap();
    assert_eq!(bench.restore(), Base::Checkpoint(CheckpointId(2)));
}

#[test]
fn a_base_that_may_have_missed_deletions_gives_way_to_the_whole_changelog() {
    let mut bench = deleted_behind_two_checkpoints();
    // As if both checkpoints had been brought back by somebody after they were retired.
    let key = PartitionKey { topic: bench.stores[0].topic.index, partition: PartitionId(0) };
    assert_eq!(bench.port.raise_tombstone_floor(key, Offset(4)).unwrap(), Offset(4));
    bench.compact();
    assert_eq!(bench.deletions(), []);
    bench.open = None;
    bench.home.discard().unwrap();
    assert_eq!(bench.restore(), Base::Nothing);
    assert_eq!(bench.home.checkpoints().unwrap(), [], "they are of no use any more");
}

#[test]
fn a_floor_does_not_rise_over_a_checkpoint_that_cannot_be_read() {
    let mut bench = deleted_behind_two_checkpoints();
    bench.write(6, Some(1));
    bench.apply();
    bench.home.take().unwrap();
    bench.home.damage(CheckpointId(3));
    bench.floors.raise(&bench.home).unwrap_err();
    bench.compact();
    assert_eq!(bench.deletions().len(), 1);
}
