//! A log that is opened and closed, and not written to, is left as it was, byte for byte.
//!
//! A script, drawn from a seed, makes and deletes topics, appends, commits and aborts transactions and
//! commits offsets of groups, and leaves a transaction open. However the process ends after that, the
//! directory is compared with itself after it was opened again, looked at and closed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Log, LogOptions};
use crate::batch::{BatchBuilder, Compression, SealedBatch};
use crate::clock::ManualClock;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::partition::{Durability, Isolation, Partition};
use crate::producer::{Producer, ProducerOptions};
use crate::record::{Offset, PartitionId, Record, Timestamp, TopicPartition};
use crate::storage::memory::MemoryStorage;
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::topic::TopicConfig;
use crate::transaction::{TRANSACTION_TOPIC, TransactionalProducer};

const DIRECTORY: &str = "/data/log";
const TOPICS: [(&str, Durability); 3] = [
    ("synced", Durability::Sync),
    ("now-and-then", Durability::Interval(Duration::from_secs(1))),
    ("unsynced", Durability::Os),
];
const STEPS: usize = 60;

/// Every file and folder below the log's directory; a folder holds nothing.
type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn files(storage: &MemoryStorage) -> Files {
    let mut files = Files::new();
    let mut open = vec![PathBuf::from(DIRECTORY)];
    while let Some(folder) = open.pop() {
        for entry in storage.list(&folder).unwrap() {
            let path = folder.join(&entry.name);
            if entry.is_directory {
                open.push(path.clone());
            }
            files.insert(path.clone(), storage.contents(&path).ok());
        }
    }
    files
}

#[track_caller]
fn check_same(found: &Files, before: &Files, when: &str) {
    let differs = |path: &&PathBuf| found.get(*path) != before.get(*path);
    let paths: Vec<_> = before.keys().chain(found.keys()).filter(differs).collect();
    assert!(paths.is_empty(), "{when}: {paths:?} are not as they were");
}

fn open(storage: &Arc<MemoryStorage>, clock: &Arc<ManualClock>) -> Log {
    Log::open(DIRECTORY, LogOptions::manual(storage.mount(), clock.clone(), 1)).unwrap()
}

fn batch(value: u64) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(value as i64), None, Some(&value.to_be_bytes()), &[]).unwrap();
    builder.seal()
}

fn small(durability: Durability) -> TopicConfig {
    TopicConfig {
        partitions: 2,
        durability: Some(durability),
        segment_bytes: 500,
        snapshot_interval_bytes: 200,
        index_interval_bytes: 100,
        ..TopicConfig::default()
    }
}

struct Script {
    log: Log,
    rng: ChaCha8Rng,
    clock: Arc<ManualClock>,
    transactions: TransactionalProducer,
    value: u64,
}

impl Script {
    fn new(storage: &Arc<MemoryStorage>, seed: u64) -> Self {
        let clock = ManualClock::new();
        let log = open(storage, &clock);
        for (name, durability) in TOPICS {
            log.create_topic(name, small(durability)).unwrap();
        }
        let transactions = log.transactional("script").unwrap();
        Self { log, rng: ChaCha8Rng::seed_from_u64(seed), clock, transactions, value: 0 }
    }

    fn partition(&mut self) -> Arc<Partition> {
        let (name, _) = TOPICS.choose(&mut self.rng).unwrap();
        self.log.topic(name).unwrap().partitions().choose(&mut self.rng).unwrap().clone()
    }

    fn batch(&mut self) -> SealedBatch {
        self.value += 1;
        batch(self.value)
    }

    fn write_in_transaction(&mut self) {
        if !self.transactions.is_open() {
            self.transactions.begin().unwrap();
        }
        let (partition, batch) = (self.partition(), self.batch());
        self.transactions.append(&partition, batch).unwrap();
    }

    fn end_transaction(&mut self) {
        match (self.transactions.is_open(), self.rng.random()) {
            (true, true) => self.transactions.commit(&[]).wait().unwrap(),
            (true, false) => self.transactions.abort().unwrap(),
            (false, _) => {}
        }
    }

    fn consume(&mut self) {
        let options = ConsumerOptions { group: Some("readers".to_owned()), ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(&self.log, options).unwrap();
        consumer.assign(&[TopicPartition::new("synced", PartitionId(0))]).unwrap();
        consumer.poll(|_, _| std::ops::ControlFlow::Continue(())).unwrap();
        consumer.commit().unwrap();
    }

    fn produce(&mut self) {
        let options = ProducerOptions { idempotent: true, ..ProducerOptions::default() };
        let producer = Producer::new(&self.log, options).unwrap();
        for _ in 0..3 {
            self.value += 1;
            let value = Some(self.value.to_be_bytes().to_vec().into());
            drop(producer.send("synced", Record { value, ..Record::default() }));
        }
        producer.flush().unwrap();
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..30 => {
                let (partition, batch) = (self.partition(), self.batch());
                partition.append(batch).unwrap();
            }
            30..55 => self.write_in_transaction(),
            55..65 => self.end_transaction(),
            65..75 => {
                let partition = self.partition();
                self.log.flush(&[partition], SyncPurpose::Records).wait().unwrap();
            }
            75..80 => self.consume(),
            80..85 => self.produce(),
            85..88 => {
                let (name, durability) = *TOPICS.choose(&mut self.rng).unwrap();
                self.end_transaction();
                self.log.delete_topic(name).unwrap();
                self.log.create_topic(name, small(durability)).unwrap();
            }
            88..92 => self.clock.advance(Duration::from_millis(700)),
            _ => drop(self.log.step().unwrap()),
        }
    }
}

fn run_script(storage: &Arc<MemoryStorage>, seed: u64) -> Script {
    let mut script = Script::new(storage, seed);
    for _ in 0..STEPS {
        script.step();
    }
    script
}

/// Opens the log, does what a program may do that changes nothing, and closes it.
fn look(storage: &Arc<MemoryStorage>) {
    let clock = ManualClock::new();
    let log = open(storage, &clock);
    for topic in log.topics() {
        for partition in topic.partitions() {
            let offsets = partition.offsets();
            partition.fetch(offsets.start, 1 << 20, Isolation::ReadCommitted).unwrap();
        }
        log.flush(topic.partitions(), SyncPurpose::Consumed).wait().unwrap();
    }
    clock.advance(Duration::from_secs(10));
    while log.step().unwrap() {}
    log.close().unwrap();
}

#[track_caller]
fn check_untouched(storage: &Arc<MemoryStorage>, when: &str) {
    let (before, operations) = (files(storage), storage.operations());
    look(storage);
    check_same(&files(storage), &before, when);
    assert_eq!(storage.operations(), operations, "{when}: something was written or synced");
}

#[test]
fn a_log_that_was_closed_is_left_as_it_was() {
    (0..60).for_each(check_closed);
}

/// A log that was closed needs no recovery, also after a power cut. What happens to it is the same again after sixty
/// seeds, and what the power cut takes is not: few of these have anything left to be synced first when it is closed.
pub(crate) fn check_closed(seed: u64) {
    let storage = MemoryStorage::new(seed);
    let script = run_script(&storage, seed % 60);
    // With whatever transaction is open.
    script.log.close().unwrap();
    drop(script);
    check_untouched(&storage, &format!("seed {seed}, closed"));
    storage.crash();
    check_untouched(&storage, &format!("seed {seed}, closed, and the power was cut"));
}

#[test]
fn a_log_that_was_recovered_is_left_as_it_was_from_then_on() {
    for seed in 0..60 {
        let storage = MemoryStorage::new(seed);
        let script = run_script(&storage, seed);
        if seed % 2 == 0 {
            storage.kill()
        } else {
            storage.crash()
        };
        drop(script);
        look(&storage);
        check_untouched(&storage, &format!("seed {seed}, recovered"));
    }
}

#[test]
fn a_directory_in_which_nothing_was_ever_written_stays_empty() {
    let storage = MemoryStorage::new(1);
    look(&storage);
    assert_eq!(files(&storage), Files::new());
    check_untouched(&storage, "empty");
}

#[test]
fn taking_a_transactional_id_is_what_writes_to_the_table_of_transactions() {
    let storage = MemoryStorage::new(1);
    run_script(&storage, 1).log.close().unwrap();
    let log = open(&storage, &ManualClock::new());
    let table = log.topic(TRANSACTION_TOPIC).unwrap().partitions()[0].clone();
    let end = table.offsets().end;
    log.transactional("script").unwrap();
    assert!(table.offsets().end > end);
}

#[test]
fn a_partition_that_was_not_written_to_is_left_as_it_was_though_others_were() {
    let storage = MemoryStorage::new(1);
    run_script(&storage, 1).log.close().unwrap();
    let before = files(&storage);
    let log = open(&storage, &ManualClock::new());
    log.topic("synced").unwrap().partitions()[0].append(batch(0)).unwrap();
    log.close().unwrap();
    let after = files(&storage);
    let within = |files: &Files, folder: &str| {
        files.iter().filter(|(path, _)| path.starts_with(Path::new(DIRECTORY).join(folder))).count()
    };
    let changed: Vec<_> = after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).collect();
    let outside =
        |path: &Path| path.parent() != Some(Path::new(DIRECTORY)) && !path.starts_with("/data/log/synced-0");
    let others: Vec<_> = changed.iter().map(|(path, _)| path).filter(|path| outside(path)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(within(&after, "unsynced-1"), within(&before, "unsynced-1"));
}

/// Appends to a log that was closed, cuts the power at once, and says whether the mark of the clean
/// shutdown is there.
fn is_marked_after_crash(seed: u64, ignored: Option<SyncPurpose>) -> bool {
    let storage = MemoryStorage::new(seed);
    run_script(&storage, 3).log.close().unwrap();
    ignored.into_iter().for_each(|purpose| storage.ignore_syncs(purpose));
    let log = open(&storage, &ManualClock::new());
    log.topic("synced").unwrap().partitions()[0].append(batch(0)).unwrap();
    assert!(storage.contents(&Path::new(DIRECTORY).join("clean-shutdown")).is_err());
    storage.crash();
    drop(log);
    storage.contents(&Path::new(DIRECTORY).join("clean-shutdown")).is_ok()
}

pub(crate) fn check_script(seed: u64) {
    assert!(!is_marked_after_crash(seed, None));
}

#[test]
fn the_mark_of_a_clean_shutdown_is_gone_for_good_before_the_first_byte_is_written() {
    assert!((0..30).all(|seed| !is_marked_after_crash(seed, None)));
    let stays = (0..30).filter(|seed| is_marked_after_crash(*seed, Some(SyncPurpose::Directory)));
    assert!(stays.count() > 0, "nothing depends on its sync");
}

#[test]
fn a_log_whose_mark_cannot_be_taken_away_for_good_is_not_written_to() {
    let storage = MemoryStorage::new(1);
    run_script(&storage, 3).log.close().unwrap();
    let before = files(&storage);
    let log = open(&storage, &ManualClock::new());
    let partition = log.topic("unsynced").unwrap().partitions()[0].clone();
    // Removing it succeeds, and syncing that does not.
    storage.fail_with(std::io::ErrorKind::Other, 1);
    for _ in 0..2 {
        let error = partition.append(batch(0)).unwrap_err();
        assert!(error.to_string().contains("clean-shutdown"), "{error}");
        log.delete_topic("synced").unwrap_err();
    }
    let mut expected = before;
    expected.remove(&Path::new(DIRECTORY).join("clean-shutdown"));
    expected.insert(Path::new(DIRECTORY).join(".lock"), None);
    let mut found = files(&storage);
    found.insert(Path::new(DIRECTORY).join(".lock"), None);
    check_same(&found, &expected, "refused");
}

#[test]
fn what_is_damaged_in_a_closed_log_is_mended_and_only_that_is_written() {
    for name in ["recovery-point", "clean-shutdown"] {
        let storage = MemoryStorage::new(1);
        run_script(&storage, 3).log.close().unwrap();
        let path = Path::new(DIRECTORY).join(name);
        let file = storage.open(&path, OpenMode::Write).unwrap();
        file.write_at(file.len().unwrap(), b"x").unwrap();
        look(&storage);
        check_untouched(&storage, name);
    }
}

fn files_on_disk(folder: &Path, found: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.clone(), fs::read(&path).ok());
        if path.is_dir() {
            files_on_disk(&path, found);
        }
    }
}

#[test]
fn a_log_on_disk_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), LogOptions::disk().unwrap()).unwrap();
    let topic = log.create_topic("synced", small(Durability::Sync)).unwrap();
    let producer = log.transactional("script").unwrap();
    for value in 0..100 {
        producer.begin().unwrap();
        producer.append(&topic.partitions()[0], batch(value)).unwrap();
        if value % 7 == 0 {
            producer.abort().unwrap()
        } else {
            producer.commit(&[]).wait().unwrap()
        };
    }
    log.close().unwrap();
    drop((producer, topic, log));
    let all = || {
        let mut found = Files::new();
        files_on_disk(directory.path(), &mut found);
        found
    };
    let before = all();
    assert!(!before.contains_key(&directory.path().join(".lock")), "whoever held it is gone");
    for _ in 0..2 {
        let log = Log::open(directory.path(), LogOptions::disk().unwrap()).unwrap();
        let partition = log.topic("synced").unwrap().partitions()[0].clone();
        partition.fetch(Offset(0), 1 << 20, Isolation::ReadCommitted).unwrap();
        log.close().unwrap();
        check_same(&all(), &before, "on disk");
    }
}
