//! Transactions, most of which nobody syncs, over several partitions, a source that they read, and a group
//! that reads it too, cut off by a power cut or a kill at any operation, on a disk that fails now and then.
//! What is there afterwards is what was there at one moment.
//!
//! One of the outputs is synced, and so are transactions over it. Another topic, which may be too, comes and
//! goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::INTERVAL;
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};
use crate::clock::ManualClock;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::Result;
use crate::group::offsets_partition;
use crate::log::{Log, LogOptions, Repair};
use crate::partition::{Durability, Isolation, Partition};
use crate::recovery_point;
use crate::storage::SyncPurpose;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::ticket::{CommitTicket, FlushTicket};
use crate::topic::TopicConfig;
use crate::transaction::TransactionalProducer;
use crate::{Offset, PartitionId, Timestamp, TopicPartition};

const IDS: [&str; 2] = ["alpha", "beta"];
const STEPS: usize = 90;
const LIVES: usize = 4;

/// The output that is synced: the last one.
const SYNCED: usize = 3;
/// What a write holds that fails: it may be there.
const STRAY: usize = usize::MAX;
/// Seeds that have found what the first ones do not: a transaction that was complete in the table though its
/// marker was lost (426); one that an entry of zeros at the end of a transaction index hid (2152); a recovery
/// that was cut short after it had ended transactions, before the next one went back (1217, 2325, 2892, 3858,
/// 3897); a sync that failed behind a cut whose points were written and not known to be durable (958, 1156,
/// 2254, 3116, 3552).
const REMARKABLE: [u64; 12] = [426, 2152, 1217, 2325, 2892, 3858, 3897, 958, 1156, 2254, 3116, 3552];

/// Seeds of worlds with repairs that have found what the first ones do not: a marker that recovery had begun
/// to write again when the power failed, and that another repair then cut off (5418, 5707, 10528); recovery
/// points that were in the page cache only when a repair went by them (18852).
const REPAIRED: [u64; 4] = [5418, 5707, 10528, 18852];

/// Seeds of worlds in which recoveries and repairs are cut short that have found what the first ones do not:
/// an end that a killed recovery had cut off in the page cache only, and that came back when the power failed
/// (7251, 10171, 10750).
const INTERRUPTED: [u64; 3] = [7251, 10171, 10750];

/// The topic that comes and goes.
const BRIEF: &str = "brief";

/// A transaction that was asked to commit.
#[derive(Clone, Debug)]
struct Transaction {
    /// The outputs that it wrote to.
    outputs: BTreeSet<usize>,
    /// Whether one of the partitions is synced, and so all of it.
    is_synced: bool,
    /// How much of the source it had read.
    consumed: usize,
    begun_at: usize,
    /// When its commit was answered.
    committed_at: Option<usize>,
}

/// What a group has committed: by then it had read all of the source, and written so many results.
#[derive(Clone, Debug)]
struct GroupCommit {
    consumed: usize,
    results: usize,
    at: usize,
    /// Whether it was told to be there.
    is_told: bool,
}

/// What outlives a process.
struct World {
    storage: Arc<MemoryStorage>,
    clock: Arc<ManualClock>,
    rng: ChaCha8Rng,
    default: Durability,
    /// By number.
    transactions: BTreeMap<usize, Transaction>,
    next: usize,
    /// In order.
    group_commits: Vec<GroupCommit>,
    results: usize,
    now: usize,
    /// How many records the source holds, if nothing is lost.
    sourced: usize,
    /// What was committed by then survives a power cut: somebody was told that all was synced.
    promised_at: usize,
    /// The same of what a group has committed.
    promised_group_at: usize,
    given_up: usize,
    /// Whether the disk has failed the process, so that whatever it is asked may fail.
    is_faulty: bool,
    /// Whether a sync has, so that what nobody has synced goes back though the process is only killed.
    has_failed_sync: bool,
    /// The process that is to be struck.
    left: Option<Process>,
    /// What says whether somebody repairs the log before it is opened again; none where nobody does. Numbers
    /// of their own, so that the others are as they would be.
    repairs: Option<ChaCha8Rng>,
    repaired: usize,
    /// What says after how many operations whoever recovers or repairs the log is cut short; none
    /// where that is up to what is left of a life.
    interruptions: Option<ChaCha8Rng>,
}

struct Process {
    log: Log,
    outputs: Vec<Arc<Partition>>,
    source: Arc<Partition>,
    /// What a group makes of the source, in no transaction.
    results: Arc<Partition>,
    consumer: Consumer,
    producers: Vec<TransactionalProducer>,
    open: [Option<(usize, Transaction)>; IDS.len()],
    commits: Vec<(usize, CommitTicket)>,
    flushes: Vec<Flush>,
}

struct Flush {
    asked_at: usize,
    /// Whether what the group has committed is flushed too, whoever stands on whom.
    includes_group: bool,
    ticket: FlushTicket,
}

pub(crate) fn batch(value: &str) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(value.as_bytes()), &[]).unwrap();
    builder.seal()
}

pub(crate) fn committed(partition: &Partition) -> Vec<usize> {
    let (mut scratch, mut values, mut next) = (DecompressionBuffer::new(), Vec::new(), Offset(0));
    loop {
        let fetched = partition.fetch(next, 1, Isolation::ReadCommitted).unwrap();
        if fetched.next == next {
            return values;
        }
        next = fetched.next;
        for batch in fetched.committed() {
            for record in batch.unwrap().records(&mut scratch).unwrap() {
                let value = String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap();
                values.push(value.parse().unwrap());
            }
        }
    }
}

/// Behind the last batch that is no marker.
fn end_of_records(partition: &Partition) -> Offset {
    let (mut end, mut next) = (Offset(0), Offset(0));
    loop {
        let fetched = partition.fetch(next, 1, Isolation::ReadUncommitted).unwrap();
        if fetched.next == next {
            return end;
        }
        next = fetched.next;
        for batch in fetched.batches() {
            let header = batch.unwrap().header().clone();
            end = if header.is_control { end } else { header.next_offset() };
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            storage: MemoryStorage::new(seed),
            clock: ManualClock::new(),
            default: [Durability::Os, Durability::Interval(Duration::from_secs(5)), Durability::Sync]
                [rng.random_range(0..3)],
            rng,
            transactions: BTreeMap::new(),
            next: 0,
            group_commits: Vec::new(),
            results: 0,
            now: 0,
            sourced: 0,
            promised_at: 0,
            promised_group_at: 0,
            given_up: 0,
            is_faulty: false,
            has_failed_sync: false,
            left: None,
            repairs: None,
            repaired: 0,
            interruptions: None,
        }
    }

    fn options(&self) -> LogOptions {
        let options = LogOptions::manual(self.storage.mount(), self.clock.clone(), 1);
        LogOptions { durability: self.default, ..options }
    }

    fn open(&mut self) -> Result<Process> {
        let options = LogOptions {
            recovery_point_interval: self.rng.random_bool(0.5).then_some(recovery_point::INTERVAL),
            ..self.options()
        };
        let log = Log::open("/log", options)?;
        let given_up = log.recovery_report().iter().filter_map(|report| report.truncated.as_ref());
        self.given_up += given_up.filter(|truncated| truncated.given_up_to.is_some()).count();
        let topic = |name, partitions, durability| {
            let config = TopicConfig {
                partitions,
                durability: Some(durability),
                segment_bytes: 600,
                snapshot_interval_bytes: 300,
                ..TopicConfig::default()
            };
            log.topic(name).or_else(|_| log.create_topic(name, config))
        };
        let mut outputs =
            topic("often", 2, Durability::Interval(Duration::from_secs(4)))?.partitions().to_vec();
        outputs.extend(topic("never", 1, Durability::Os)?.partitions().to_vec());
        outputs.extend(topic("kept", 1, Durability::Sync)?.partitions().to_vec());
        let source = topic("source", 1, Durability::Os)?.partitions()[0].clone();
        let results = topic("results", 1, Durability::Os)?.partitions()[0].clone();
        // It waits for the disk.
        offsets_partition(&log)?;
        let options = ConsumerOptions { group: Some("group".to_owned()), ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(&log, options)?;
        consumer.assign(&[source_name()])?;
        let producers = IDS.iter().map(|id| log.transactional(id)).collect::<Result<Vec<_>>>()?;
        let (open, commits, flushes) = Default::default();
        Ok(Process { log, outputs, source, results, consumer, producers, open, commits, flushes })
    }

    /// One process, which works until the plug is pulled or its script is over, and is left in the midst of
    /// it.
    fn live(&mut self) -> Result<()> {
        let mut process = self.open()?;
        let lived = if self.storage.is_unplugged() { Ok(()) } else { self.go_on(&mut process) };
        // Nobody is told any more how what is under way ends.
        self.left = Some(process);
        lived
    }

    fn go_on(&mut self, process: &mut Process) -> Result<()> {
        self.check(process, false);
        // What waits for the disk, as the mark does, is done before syncs take their time.
        self.produce(process)?;
        self.storage.set_sync_mode([SyncMode::Immediate, SyncMode::Delayed][self.rng.random_range(0..2)]);
        for _ in 0..STEPS {
            self.now += 1;
            let acted = self.act(process);
            if self.storage.is_unplugged() || !self.is_faulty {
                acted?;
            }
            self.note_answers(process);
        }
        if self.rng.random_bool(0.2) {
            self.storage.complete_syncs();
            self.storage.set_sync_mode(SyncMode::Immediate);
            match process.log.close() {
                Ok(()) => (self.promised_at, self.promised_group_at) = (self.now, self.now),
                Err(_) if self.is_faulty => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn act(&mut self, process: &mut Process) -> Result<()> {
        let which = self.rng.random_range(0..IDS.len());
        match self.rng.random_range(0..19) {
            0..=2 => self.produce(process)?,
            3..=7 => self.write(process, which)?,
            8..=9 => {
                if let Some((number, transaction)) = process.open[which].take() {
                    process.commits.push((
                        number,
                        process.producers[which].commit(std::slice::from_ref(&process.source)),
                    ));
                    self.transactions.insert(number, transaction);
                }
            }
            10 => {
                if process.open[which].take().is_some() {
                    drop(process.producers[which].begin_abort());
                }
            }
            11 => self.clock.advance(Duration::from_secs(self.rng.random_range(1..8))),
            12 if self.rng.random_bool(0.3) => {
                let mut all = [&process.outputs[..], std::slice::from_ref(&process.source)].concat();
                let includes_group = self.rng.random_bool(0.5);
                if includes_group {
                    all.push(offsets_partition(&process.log)?);
                }
                let ticket = process.log.flush(&all, SyncPurpose::Records);
                process.flushes.push(Flush { asked_at: self.now, includes_group, ticket });
            }
            13 => drop(self.storage.complete_syncs()),
            14 if self.default != Durability::Sync => self.commit_for_group(process)?,
            15 => self.come_or_go(process)?,
            16 if self.rng.random_bool(0.1) => self.fail(process)?,
            _ => drop(process.log.step()?),
        }
        Ok(())
    }

    /// Makes a result of what the source holds, and commits that this was done.
    fn commit_for_group(&mut self, process: &mut Process) -> Result<()> {
        process.results.append(batch(&self.results.to_string()))?;
        self.results += 1;
        let (consumed, results, at) = (self.sourced, self.results, self.now);
        let committed = process.consumer.commit_offsets(&[(source_name(), Offset(consumed as i64).into())]);
        // One that fails may be there all the same.
        self.group_commits.push(GroupCommit { consumed, results, at, is_told: committed.is_ok() });
        committed
    }

    /// Makes the topic that comes and goes, with another durability each time, or deletes it. That waits for
    /// the disk.
    fn come_or_go(&mut self, process: &Process) -> Result<()> {
        let mode = self.storage.sync_mode();
        self.storage.set_sync_mode(SyncMode::Immediate);
        let done = match process.log.topic(BRIEF) {
            Ok(_) => process.log.delete_topic(BRIEF),
            Err(_) => {
                let durability = if self.rng.random_bool(0.7) { Durability::Sync } else { Durability::Os };
                let config = TopicConfig { durability: Some(durability), ..TopicConfig::default() };
                process.log.create_topic(BRIEF, config).map(drop)
            }
        };
        self.storage.set_sync_mode(mode);
        done
    }

    /// The disk fails one of the syncs that are under way, or a write to an output.
    fn fail(&mut self, process: &Process) -> Result<()> {
        self.is_faulty = true;
        let in_flight = self.storage.syncs_in_flight();
        if in_flight > 0 {
            self.has_failed_sync = true;
            self.storage.fail_sync(self.rng.random_range(0..in_flight), ErrorKind::Other);
            return Ok(());
        }
        let output = &process.outputs[self.rng.random_range(0..process.outputs.len())];
        if !output.is_poisoned() && !self.storage.is_unplugged() {
            self.storage.fail_with(ErrorKind::StorageFull, 0);
            output.append(batch(&STRAY.to_string())).expect_err("the disk is full");
        }
        Ok(())
    }

    fn produce(&mut self, process: &Process) -> Result<()> {
        process.source.append(batch(&self.sourced.to_string()))?;
        self.sourced += 1;
        Ok(())
    }

    fn write(&mut self, process: &mut Process, which: usize) -> Result<()> {
        if process.open[which].is_none() {
            if process.producers[which].begin().is_err() {
                return Ok(());
            }
            let (number, consumed) = (self.next, self.sourced);
            self.next += 1;
            let begun = Transaction {
                outputs: BTreeSet::new(),
                is_synced: false,
                consumed,
                begun_at: self.now,
                committed_at: None,
            };
            process.open[which] = Some((number, begun));
        }
        let Some((number, transaction)) = &mut process.open[which] else { return Ok(()) };
        let producer = &process.producers[which];
        if self.rng.random_bool(0.2)
            && let Ok(brief) = process.log.topic(BRIEF)
        {
            transaction.is_synced |= brief.config().durability == Some(Durability::Sync);
            producer.append(&brief.partitions()[0], batch(&number.to_string()))?;
        }
        // Most transactions are synced by nobody.
        let outputs = process.outputs.len() - usize::from(self.rng.random_bool(0.8));
        let output = self.rng.random_range(0..outputs);
        if transaction.outputs.insert(output) {
            transaction.is_synced |= output == SYNCED;
            producer.append(&process.outputs[output], batch(&number.to_string()))?;
        }
        Ok(())
    }

    fn note_answers(&mut self, process: &mut Process) {
        let now = self.now;
        process.commits.retain(|(number, ticket)| match ticket.outcome() {
            None => true,
            Some(outcome) => {
                if outcome.is_ok() {
                    self.transactions.get_mut(number).unwrap().committed_at = Some(now);
                }
                false
            }
        });
        process.flushes.retain(|Flush { asked_at, includes_group, ticket }| match ticket.outcome() {
            None => true,
            Some(outcome) => {
                if outcome.is_ok() {
                    self.promised_at = self.promised_at.max(*asked_at);
                    let group_at = asked_at * usize::from(*includes_group);
                    self.promised_group_at = self.promised_group_at.max(group_at);
                }
                false
            }
        });
    }

    /// Ends the process in the midst of what is under way, and looks at what the next one finds.
    fn strike(&mut self) {
        let mut goes_back = self.has_failed_sync;
        let process = loop {
            let is_power_cut = self.rng.random_bool(0.6);
            if is_power_cut {
                self.storage.crash();
                goes_back = true;
            } else {
                self.storage.kill();
            }
            self.storage.set_sync_mode(SyncMode::Immediate);
            self.left = None;
            self.interrupt();
            goes_back |= self.repair(is_power_cut);
            match self.open() {
                Ok(process) if !self.storage.is_unplugged() => break process,
                // The next one has met its end while it recovered.
                outcome => assert!(self.storage.is_unplugged(), "{:?}", outcome.err()),
            }
        };
        if self.interruptions.is_some() {
            self.storage.clear_faults();
        }
        self.check(&process, goes_back);
        (self.is_faulty, self.has_failed_sync) = (false, false);
        // What recovery has kept stays.
        self.storage.crash();
    }

    /// Whoever recovers or repairs the log next may be cut short.
    fn interrupt(&mut self) {
        if let Some(rng) = &mut self.interruptions
            && rng.random_bool(0.7)
        {
            self.storage.fail_after(rng.random_range(0..150));
        }
    }

    /// Somebody cuts partitions off where opening the log would, or before the markers that would be the
    /// last; the power may fail then. Says whether it has.
    fn repair(&mut self, is_power_cut: bool) -> bool {
        let Some(mut rng) = self.repairs.take() else { return false };
        let partitions = [("often", 0), ("often", 1), ("never", 0), ("kept", 0)];
        for (topic, number) in partitions {
            if rng.random_bool(0.3) {
                let is_synced = topic == "kept";
                self.cut_off(topic, number, rng.random_bool(0.5), is_power_cut && !is_synced);
            }
        }
        let fails = rng.random_bool(0.3);
        if fails {
            self.storage.crash();
        }
        self.repairs = Some(rng);
        fails
    }

    /// What is torn is cut off only where it `may_be_torn`: by a kill it is damage, for all that a repair
    /// knows.
    fn cut_off(&mut self, topic: &str, number: usize, is_before_markers: bool, may_be_torn: bool) {
        let Ok(follower) = Log::open_read_only("/log", self.options()) else { return };
        let Ok(found) = follower.topic(topic) else { return };
        let partition = found.partitions()[number].clone();
        let truncate_at =
            if is_before_markers { end_of_records(&partition) } else { partition.offsets().end };
        drop((follower, found, partition));
        let partition = PartitionId(number as i32);
        let cut = Repair { topic: topic.to_owned(), partition, truncate_at, dry_run: true };
        let Ok(said) = Log::repair("/log", &self.options(), &cut) else { return };
        if said.damaged_bytes > 0 && !may_be_torn {
            return;
        }
        match Log::repair("/log", &self.options(), &Repair { dry_run: false, ..cut }) {
            Ok(_) => self.repaired += 1,
            Err(error) => assert!(self.storage.is_unplugged(), "{error}"),
        }
    }

    /// What is there is what was there at one moment, and nothing that may not be missing is.
    fn check(&mut self, process: &Process, goes_back: bool) {
        self.check_group(process, goes_back);
        let mut found: Vec<Vec<usize>> = process.outputs.iter().map(|output| committed(output)).collect();
        found.iter_mut().for_each(|values| values.retain(|value| *value != STRAY));
        let source = committed(&process.source);
        assert!(source.iter().copied().eq(0..source.len()), "the source is a beginning of what it was");
        let is_there = |number: usize| found.iter().any(|values| values.contains(&number));
        for (&number, transaction) in &self.transactions {
            for (output, values) in found.iter().enumerate() {
                let times = values.iter().filter(|value| **value == number).count();
                let expected = usize::from(is_there(number) && transaction.outputs.contains(&output));
                assert_eq!(times, expected, "transaction {number} in output {output}");
            }
            let is_promised = |at| transaction.is_synced || !goes_back || at <= self.promised_at;
            let may_be_lost = transaction.committed_at.is_none_or(|at| !is_promised(at));
            assert!(
                is_there(number) || may_be_lost,
                "transaction {number} is lost; goes back: {goes_back}, promised at {}: {transaction:?}",
                self.promised_at
            );
            if is_there(number) {
                assert!(source.len() >= transaction.consumed, "what transaction {number} has read is lost");
                let before =
                    |other: &Transaction| other.committed_at.is_some_and(|at| at < transaction.begun_at);
                let mut earlier = self.transactions.iter().filter(|(_, other)| before(other));
                let missing = earlier.find(|(other, _)| !is_there(**other));
                assert!(
                    missing.is_none(),
                    "{number} is there and one before it is not: {transaction:?}, {missing:?}; goes back: {goes_back}"
                );
            }
        }
        assert!(found.iter().flatten().all(|number| self.transactions.contains_key(number)));
        assert!(goes_back || source.len() >= self.sourced, "a kill has taken of the source");
        // From here on what was lost never was.
        let (sourced, now) = (source.len(), self.now);
        self.sourced = sourced;
        self.transactions.retain(|number, _| is_there(*number));
        self.transactions
            .values_mut()
            .for_each(|found| found.committed_at = found.committed_at.or(Some(now)));
    }
}

impl World {
    /// What the group has committed is no more than what there is of what it stands on.
    fn check_group(&mut self, process: &Process, goes_back: bool) {
        let found = process.consumer.committed(&source_name()).unwrap().map(|found| found.offset.0 as usize);
        let results = committed(&process.results).len();
        let source = committed(&process.source).len();
        assert!(found.is_none_or(|found| found <= source), "{found:?} of {source} are committed as read");
        // The last with this offset may be one that was lost; the first is no less than what is there.
        let same = self.group_commits.iter().find(|commit| Some(commit.consumed) == found);
        assert_eq!(same.is_some(), found.is_some(), "{found:?} was never committed");
        assert!(same.is_none_or(|same| same.results <= results), "{same:?} with {results} results");
        let kept =
            |commit: &&GroupCommit| commit.is_told && (!goes_back || commit.at <= self.promised_group_at);
        let lasting = self.group_commits.iter().rfind(kept);
        let lost = lasting.filter(|lasting| found.is_none_or(|found| found < lasting.consumed));
        assert!(lost.is_none(), "{lost:?} is lost, and {found:?} is committed");
        self.results = results;
        self.group_commits.retain(|commit| found.is_some_and(|found| commit.consumed <= found));
        // What recovery has kept stays.
        self.group_commits.iter_mut().for_each(|commit| commit.at = 0);
    }
}

fn source_name() -> TopicPartition {
    TopicPartition::new("source", PartitionId(0))
}

/// Some lives of one world, each of which is struck. How often a partition was taken back to a cut.
fn run(seed: u64, ignored: Option<SyncPurpose>) -> usize {
    let world = World::new(seed);
    if let Some(purpose) = ignored {
        world.storage.ignore_syncs(purpose);
    }
    run_in(seed, world).given_up
}

fn run_in(seed: u64, mut world: World) -> World {
    // The last one that is printed is the one that failed.
    println!("seed {seed}");
    for _ in 0..LIVES {
        let operations = world.rng.random_range(20..500);
        world.storage.fail_after(operations);
        let lived = world.live();
        assert!(lived.is_ok() || world.storage.is_unplugged(), "{lived:?}");
        world.strike();
    }
    world.strike();
    world
}

/// Some lives of one world.
pub(crate) fn check_script(seed: u64) {
    run(seed, None);
}

#[test]
fn what_is_lost_takes_transactions_back_to_one_moment_and_a_kill_alone_takes_none() {
    let given_up: usize = (0..150).chain(REMARKABLE).map(|seed| run(seed, None)).sum();
    assert!(given_up > 50, "the log went back {given_up} times");
}

#[test]
fn what_is_cut_off_by_hand_ends_no_transaction_otherwise_than_the_log_that_goes_back_or_does_not() {
    let repaired = |seed| {
        let world = World::new(seed);
        run_in(seed, World { repairs: Some(ChaCha8Rng::seed_from_u64(seed)), ..world }).repaired
    };
    let repaired: usize = (0..150).chain(REPAIRED).map(repaired).sum();
    assert!(repaired > 200, "the log was repaired {repaired} times");
}

#[test]
fn recoveries_and_repairs_that_are_cut_short_again_and_again_leave_what_was_there_at_one_moment() {
    let given_up = |seed| {
        let world = World::new(seed);
        let repairs = Some(ChaCha8Rng::seed_from_u64(seed));
        let interruptions = Some(ChaCha8Rng::seed_from_u64(seed + 1_000_000));
        run_in(seed, World { repairs, interruptions, ..world }).given_up
    };
    let given_up: usize = (0..100).chain(INTERRUPTED).map(given_up).sum();
    assert!(given_up > 30, "the log went back {given_up} times");
}

fn is_missed(purpose: SyncPurpose) -> bool {
    (0..150).any(|seed| std::panic::catch_unwind(|| run(seed, Some(purpose))).is_err())
}

#[test]
fn the_parts_of_a_cut_must_be_synced_before_it_is_written_down() {
    assert!(is_missed(SyncPurpose::Cut));
}

#[test]
fn the_mark_of_unsynced_records_must_be_synced_before_the_first_of_them() {
    assert!(is_missed(SyncPurpose::Unsynced));
}

#[test]
fn a_cut_must_be_written_down_before_anyone_is_told() {
    assert!(is_missed(SyncPurpose::RecoveryPoint));
}

#[test]
fn what_recovery_has_kept_must_be_written_down_before_transactions_are_ended() {
    assert!(is_missed(SyncPurpose::RecoveryPointFile));
}

/// The mark of a log that did not sync does not come back with a power cut, once the log was recovered, or closed, and
/// does sync: it would take back what was synced.
pub(crate) fn check_mark_taken_away(seed: u64) {
    let open_on = |storage: &Arc<MemoryStorage>, durability| {
        let options = LogOptions::manual(storage.mount(), ManualClock::new(), 1);
        // Not with each group commit: what is behind the recovery points may go back.
        let recovery_point_interval = Some(crate::recovery_point::INTERVAL);
        Log::open("/log", LogOptions { durability, recovery_point_interval, ..options }).unwrap()
    };
    let commit = |log: &Log, value: &str| {
        let topic = log.topic("out").or_else(|_| log.create_topic("out", TopicConfig::default())).unwrap();
        let producer = log.transactional("alpha").unwrap();
        producer.begin().unwrap();
        producer.append(&topic.partitions()[0], batch(value)).unwrap();
        producer.commit(&[]).wait().unwrap();
    };
    let begin = || {
        let storage = MemoryStorage::new(seed);
        let log = open_on(&storage, Durability::Os);
        commit(&log, "1");
        (storage, log)
    };
    let operations_to_close = || {
        let (storage, log) = begin();
        let before = storage.operations();
        log.close().unwrap();
        storage.operations() - before
    };
    let (storage, log) = begin();
    let open = |durability| open_on(&storage, durability);
    if seed.is_multiple_of(2) {
        storage.kill();
    } else {
        // In the end of it.
        storage.fail_after(operations_to_close() - 1 - seed / 2 % 10);
        drop(log.close());
        storage.clear_faults();
        storage.crash();
    }
    drop(log);
    let log = open(Durability::Sync);
    // A log that goes back ends before the first marker.
    commit(&log, "2");
    commit(&log, "3");
    storage.crash();
    drop(log);
    let found = committed(&open(Durability::Sync).topic("out").unwrap().partitions()[0]);
    assert!(found.ends_with(&[2, 3]), "{found:?}");
}

#[test]
fn what_is_synced_since_a_log_was_recovered_is_not_taken_back_by_what_was_not_before() {
    (0..160).for_each(check_mark_taken_away);
}

#[test]
fn a_cut_is_taken_now_and_then_though_nobody_asks() {
    let (storage, clock) = (MemoryStorage::new(1), ManualClock::new());
    let options =
        LogOptions { durability: Durability::Os, ..LogOptions::manual(storage.mount(), clock.clone(), 1) };
    let log = Log::open("/log", options).unwrap();
    let topic = log.create_topic("out", TopicConfig::default()).unwrap();
    let producer = log.transactional("alpha").unwrap();
    let commit = || {
        producer.begin().unwrap();
        producer.append(&topic.partitions()[0], batch("1")).unwrap();
        producer.commit(&[]).wait().unwrap();
    };
    let cuts = || {
        while log.step().unwrap() {}
        storage.sync_count(SyncPurpose::Cut)
    };
    commit();
    assert_eq!(cuts(), 0);
    clock.advance(INTERVAL);
    let first = cuts();
    assert!(first > 0);
    clock.advance(INTERVAL * 3);
    assert_eq!(cuts(), first, "nothing was committed since");
    commit();
    clock.advance(INTERVAL);
    assert!(cuts() > first);
}
