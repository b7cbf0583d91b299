//! Transactions of several producers over several partitions, cut off at every I/O operation.
//!
//! A script, drawn from a seed, begins, fills, commits and aborts transactions under three transactional
//! ids that overlap in time, takes ids over, and lets syncs end in any order. Then the disk crashes or
//! the process is killed, recovery itself is cut off, and once more; a second script goes on. After each
//! recovery: what was committed is there in full, what was not is not, what was unknown is all or
//! nothing and stays so, what a reader saw stays, no consumed record is missing, and no partition is stuck.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::TransactionalProducer;
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};
use crate::clock::ManualClock;
use crate::error::{ErrorKind, Result};
use crate::log::{Log, LogOptions};
use crate::partition::{Durability, Isolation, Partition};
use crate::record::{Offset, ProducerEpoch, Timestamp, TopicPartition};
use crate::recovery_point;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::storage::{Storage, SyncPurpose};
use crate::ticket::CommitTicket;
use crate::topic::TopicConfig;

const IDS: [&str; 3] = ["alpha", "beta", "gamma"];
const STEPS: usize = 80;

/// Small enough that scripts use them up.
const EPOCH_LAST: ProducerEpoch = ProducerEpoch(2);
const SNAPSHOT_RECORDS: u64 = 6;
const SEGMENT_BYTES: u64 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody asked to commit it.
    Open,
    /// Asked, not answered.
    Committing,
    Committed,
    Aborted,
    Unknown,
}

#[derive(Debug)]
struct Transaction {
    writes: Vec<(TopicPartition, String)>,
    /// The end of the source when it was committed.
    consumed: Offset,
    fate: Fate,
}

/// What outlives a crash: the disk, and what was promised and seen.
struct World {
    storage: Arc<MemoryStorage>,
    rng: ChaCha8Rng,
    transactions: Vec<Transaction>,
    seen: BTreeSet<(TopicPartition, String)>,
    values: u64,
    /// Whether recovery points are lost with each process. They tell of synced records that are gone,
    /// before it shows what those were good for.
    loses_recovery_points: bool,
    /// As a program has it, or with each group commit.
    recovery_point_interval: Option<Duration>,
}

/// A process that has the log open.
struct Life<'a> {
    world: &'a mut World,
    log: Log,
    outputs: Vec<Arc<Partition>>,
    source: Arc<Partition>,
    producers: BTreeMap<&'static str, TransactionalProducer>,
    /// The open transaction of each id.
    open: BTreeMap<&'static str, usize>,
    commits: Vec<(usize, CommitTicket)>,
    aborts: Vec<CommitTicket>,
}

fn batch(values: &[String]) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(Timestamp(0), None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.seal()
}

fn committed_values(partition: &Partition) -> Vec<String> {
    let mut scratch = DecompressionBuffer::new();
    let mut values = Vec::new();
    let mut next = Offset(0);
    loop {
        let fetched = partition.fetch(next, 1, Isolation::ReadCommitted).unwrap();
        if fetched.next == next {
            return values;
        }
        next = fetched.next;
        for batch in fetched.committed() {
            for record in batch.unwrap().records(&mut scratch).unwrap() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            storage: MemoryStorage::new(seed),
            rng: ChaCha8Rng::seed_from_u64(seed),
            transactions: Vec::new(),
            seen: BTreeSet::new(),
            values: 0,
            loses_recovery_points: false,
            recovery_point_interval: seed.is_multiple_of(2).then_some(recovery_point::INTERVAL),
        }
    }

    fn open(&self) -> Result<Log> {
        let log = Log::open(
            "/log",
            LogOptions {
                recovery_point_interval: self.recovery_point_interval,
                ..LogOptions::manual(self.storage.mount(), ManualClock::new(), 1)
            },
        )?;
        log.coordinator().set_limits(EPOCH_LAST, SNAPSHOT_RECORDS);
        Ok(log)
    }

    /// One process: it opens the log, works until something fails or the script is over, and is ended in
    /// the midst of what is under way.
    fn live(&mut self) -> Result<()> {
        let log = self.open()?;
        let topic = |name, partitions, durability| {
            let config = TopicConfig {
                partitions,
                durability: Some(durability),
                segment_bytes: SEGMENT_BYTES,
                snapshot_interval_bytes: SEGMENT_BYTES / 2,
                ..TopicConfig::default()
            };
            match log.create_topic(name, config) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => log.topic(name),
                made => made,
            }
        };
        let source = topic("source", 1, Durability::Os)?.partitions()[0].clone();
        let outputs = [topic("changes", 2, Durability::Sync)?, topic("results", 2, Durability::Sync)?];
        let outputs = outputs.iter().flat_map(|topic| topic.partitions()).cloned().collect();
        let mut life = Life {
            world: self,
            log,
            outputs,
            source,
            producers: BTreeMap::new(),
            open: BTreeMap::new(),
            commits: Vec::new(),
            aborts: Vec::new(),
        };
        let outcome = life.run();
        life.hear();
        assert!(outcome.is_ok() || life.world.storage.is_unplugged(), "{outcome:?}");
        let is_killed = life.world.rng.random();
        life.world.end(is_killed);
        outcome
    }

    /// The process ends, one way or the other, and with it all hope of an answer.
    fn end(&mut self, log_was_killed: bool) {
        self.storage.clear_faults();
        self.storage.set_sync_mode(SyncMode::Immediate);
        if log_was_killed {
            self.storage.kill();
        } else {
            self.storage.crash();
        }
        if self.loses_recovery_points {
            // Where there are none yet, none are lost.
            let _ = self.storage.remove_file(Path::new("/log/recovery-point"));
        }
        for transaction in &mut self.transactions {
            transaction.fate = match transaction.fate {
                Fate::Open => Fate::Aborted,
                Fate::Committing => Fate::Unknown,
                decided => decided,
            };
        }
    }

    /// Cuts recovery off, twice, then lets it finish and checks everything.
    fn recover_and_check(&mut self) {
        for _ in 0..2 {
            self.storage.fail_after(self.rng.random_range(0..30));
            drop(self.open());
            let is_killed = self.rng.random();
            self.end(is_killed);
        }
        let log = self.open().unwrap();
        self.check(&log);
        self.end(false);
    }

    fn check(&mut self, log: &Log) {
        let mut visible = BTreeSet::new();
        for topic in log.topics().iter().filter(|topic| !topic.name().starts_with("__")) {
            for partition in topic.partitions() {
                assert!(partition.open_transactions().is_empty(), "{} is stuck", partition.name());
                let offsets = partition.offsets();
                assert_eq!(offsets.stable, offsets.end, "{}", partition.name());
                for value in committed_values(partition) {
                    let value = (partition.name().clone(), value);
                    assert!(visible.insert(value.clone()), "{value:?} is there twice");
                }
            }
        }
        let consumable = log.topic("source").map_or(Offset(0), |topic| topic.partitions()[0].offsets().end);
        for (number, transaction) in self.transactions.iter_mut().enumerate() {
            let count = transaction.writes.iter().filter(|write| visible.contains(write)).count();
            let is_visible = count > 0;
            let what = format!("transaction {number}: {count} writes of {transaction:?} are visible");
            assert!(count == 0 || count == transaction.writes.len(), "{what}");
            match transaction.fate {
                Fate::Committed => assert!(is_visible, "{what}"),
                Fate::Aborted => assert!(!is_visible, "{what}"),
                Fate::Unknown => {}
                undecided => panic!("{undecided:?} after the end of the process"),
            }
            transaction.fate = if is_visible { Fate::Committed } else { Fate::Aborted };
            let consumed = transaction.consumed;
            assert!(!is_visible || consumable >= consumed, "{what}, the source ends at {consumable}");
        }
        assert!(self.seen.is_subset(&visible), "a reader saw what is gone");
        self.seen = visible;
    }
}

impl Life<'_> {
    fn run(&mut self) -> Result<()> {
        for id in IDS {
            self.take_over(id)?;
        }
        // The first append that nobody syncs waits for the disk, and so for no sync that the script would end.
        self.write_plainly()?;
        for _ in 0..STEPS {
            let id = IDS[self.world.rng.random_range(0..IDS.len())];
            match self.world.rng.random_range(0..100) {
                0..30 => self.write(id)?,
                30..45 => self.commit(id),
                45..48 => self.abort(id),
                48..51 => self.take_over(id)?,
                51..56 => self.write_plainly()?,
                56..80 => self.let_one_sync_end()?,
                _ => drop(self.log.step()?),
            }
            self.hear();
            self.look()?;
        }
        Ok(())
    }

    /// From here on nothing waits for a sync that only the script would end.
    fn end_syncs(&mut self) {
        self.world.storage.set_sync_mode(SyncMode::Immediate);
        self.world.storage.complete_syncs();
    }

    fn let_one_sync_end(&mut self) -> Result<()> {
        self.world.storage.set_sync_mode(SyncMode::Delayed);
        let in_flight = self.world.storage.syncs_in_flight();
        if in_flight > 0 {
            let place = self.world.rng.random_range(0..in_flight);
            self.world.storage.complete_sync(place);
        }
        if self.world.rng.random() { Ok(()) } else { self.log.step().map(drop) }
    }

    fn take_over(&mut self, id: &'static str) -> Result<()> {
        self.end_syncs();
        self.open.remove(id);
        let producer = self.log.transactional(id)?;
        if let Some(old) = self.producers.insert(id, producer) {
            assert_eq!(old.begin().unwrap_err().kind(), ErrorKind::Fenced);
        }
        Ok(())
    }

    fn write(&mut self, id: &'static str) -> Result<()> {
        if self.producers[id].session.needs_producer_id() {
            // Taking one writes the catalogue, which waits for the disk.
            self.end_syncs();
        }
        let producer = &self.producers[id];
        let number = match self.open.get(id) {
            Some(number) => *number,
            None => match producer.begin() {
                Err(error) if error.kind() == ErrorKind::TransactionState => return Ok(()),
                begun => {
                    begun?;
                    let transaction =
                        Transaction { writes: Vec::new(), consumed: Offset(0), fate: Fate::Open };
                    self.world.transactions.push(transaction);
                    self.open.insert(id, self.world.transactions.len() - 1);
                    self.world.transactions.len() - 1
                }
            },
        };
        let partition = &self.outputs[self.world.rng.random_range(0..self.outputs.len())];
        let count = self.world.rng.random_range(1..4);
        let values: Vec<_> =
            (0..count).map(|more| format!("{number}/{}", self.world.values + more)).collect();
        self.world.values += count;
        producer.append(partition, batch(&values))?;
        let writes = values.into_iter().map(|value| (partition.name().clone(), value));
        self.world.transactions[number].writes.extend(writes);
        Ok(())
    }

    fn commit(&mut self, id: &'static str) {
        let Some(number) = self.open.remove(id) else { return };
        let transaction = &mut self.world.transactions[number];
        transaction.fate = Fate::Committing;
        transaction.consumed = self.source.offsets().end;
        let ticket = self.producers[id].commit(std::slice::from_ref(&self.source));
        self.commits.push((number, ticket));
    }

    fn abort(&mut self, id: &'static str) {
        if self.open.remove(id).is_some() {
            self.aborts.push(self.producers[id].begin_abort());
        }
    }

    /// Others write too: their group commits make durable what they find.
    fn write_plainly(&mut self) -> Result<()> {
        self.world.values += 1;
        self.source.append(batch(&[format!("plain/{}", self.world.values)]))?;
        let partition = &self.outputs[self.world.rng.random_range(0..self.outputs.len())];
        partition.append(batch(&[format!("plain/{}", self.world.values)]))?;
        if self.world.rng.random() {
            drop(self.log.flush(std::slice::from_ref(partition), SyncPurpose::Records));
        }
        Ok(())
    }

    /// Takes note of the commits that were answered.
    fn hear(&mut self) {
        let transactions = &mut self.world.transactions;
        self.commits.retain(|(number, ticket)| {
            let Some(outcome) = ticket.outcome() else { return true };
            transactions[*number].fate = match outcome.map_err(|error| error.kind()) {
                Ok(()) => Fate::Committed,
                Err(ErrorKind::Fenced | ErrorKind::TransactionState) => Fate::Aborted,
                Err(_) => Fate::Unknown,
            };
            false
        });
    }

    /// A reader of committed records keeps up.
    fn look(&mut self) -> Result<()> {
        for partition in &self.outputs {
            if self.world.storage.is_unplugged() {
                return self.log.transactional("nobody").map(drop);
            }
            for value in committed_values(partition) {
                if !value.starts_with("plain") {
                    self.world.seen.insert((partition.name().clone(), value));
                }
            }
        }
        Ok(())
    }
}

/// How many operations a script takes that nothing cuts off.
fn operations(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.live().unwrap();
    world.storage.operations()
}

/// Cuts the script off at an operation, and checks; then a second one, and checks again.
fn check_crash(mut world: World, operation: u64) {
    world.storage.fail_after(operation);
    for _ in 0..2 {
        if world.live().is_err() {
            // It may not have come as far as to end its process itself.
            world.end(false);
        }
        world.recover_and_check();
        world.storage.fail_after(operation / 2);
    }
}

#[test]
fn whatever_operation_is_cut_off_transactions_are_all_there_or_not_at_all() {
    for seed in 0..3 {
        for operation in 0..=operations(seed) {
            check_crash(World::new(seed), operation);
        }
    }
}

#[test]
fn scripts_commit_abort_and_take_over() {
    let mut counts = BTreeMap::new();
    for seed in 0..30 {
        let mut world = World::new(seed);
        world.live().unwrap();
        let log = world.open().unwrap();
        world.check(&log);
        for transaction in world.transactions.iter().filter(|one| !one.writes.is_empty()) {
            *counts.entry(transaction.fate == Fate::Committed).or_insert(0) += 1;
        }
    }
    assert!(counts[&true] > 50 && counts[&false] > 20, "{counts:?}");
}

/// One script, cut off once; every other one loses its recovery points.
pub(crate) fn check_script(seed: u64) {
    let world = World { loses_recovery_points: seed.is_multiple_of(2), ..World::new(seed) };
    check_crash(world, 30 + seed * 7 % 300);
}

/// What is wrong after a script that leaves out some syncs.
fn failure_without(seed: u64, ignored: Option<SyncPurpose>) -> Option<String> {
    let mut world = World::new(seed);
    world.loses_recovery_points = true;
    ignored.into_iter().for_each(|purpose| world.storage.ignore_syncs(purpose));
    let checked = catch_unwind(AssertUnwindSafe(|| check_crash(world, 30 + seed * 7 % 300)));
    checked.err().map(|panic| match panic.downcast::<String>() {
        Ok(words) => *words,
        Err(panic) => panic.downcast_ref::<&str>().map_or(String::new(), |words| (*words).to_owned()),
    })
}

/// Leaving out the syncs of `purpose` breaks a promise for some crash: the check fails with words that
/// hold `promise`. With all syncs it does not.
fn check_needed(purpose: SyncPurpose, promise: &str) {
    let is_broken = |seed| failure_without(seed, Some(purpose)).is_some_and(|words| words.contains(promise));
    let broken = (0..1000).find(|seed| is_broken(*seed)).expect("nothing depends on these syncs");
    assert_eq!(failure_without(broken, None), None);
}

#[test]
fn records_have_to_be_synced_before_the_decision() {
    check_needed(SyncPurpose::Records, "are visible");
}

#[test]
fn what_was_consumed_has_to_be_synced_before_the_decision() {
    check_needed(SyncPurpose::Consumed, "the source ends at");
}

#[test]
fn the_decision_has_to_be_synced_before_it_is_shown() {
    check_needed(SyncPurpose::Decision, "are visible");
}

#[test]
fn markers_have_to_be_synced_before_the_next_decision() {
    check_needed(SyncPurpose::Markers, "are visible");
}

#[test]
fn what_recovery_keeps_has_to_be_synced_before_it_is_read() {
    check_needed(SyncPurpose::Recovered, "a reader saw what is gone");
}

#[test]
fn names_have_to_be_synced() {
    check_needed(SyncPurpose::Directory, "");
}

#[test]
fn the_catalogue_has_to_be_synced() {
    check_needed(SyncPurpose::Catalogue, "");
}
