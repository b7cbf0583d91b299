//! Where a simulated processor lives: a script of actions on a disk in memory, which is struck where it is
//! told to be.

mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lotic_engine::embedded::EmbeddedLog;
use lotic_engine::engine::{Engine, EngineSetup, counters_for};
use lotic_engine::epoch::Epoch;
use lotic_engine::graph::Graph;
use lotic_engine::options::EngineOptions;
use lotic_engine::state::{MemoryState, changelog_topic};
use lotic_log::batch::{BatchBuilder, Compression};
use lotic_log::storage::SyncPurpose;
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::{
    Durability, FlushTicket, Log, LogOptions, ManualClock, Offset, Partition, PartitionId, Timestamp,
    TopicConfig,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::watch::Seen;
use super::answer::Answer;
use super::flow::{Entry, FLOW, INPUTS, ORDERS, RETURNS, STORES, graph};
use super::life::{Blow, Life, Lived};
use super::shown::Shown;

/// How many rounds of steps a flow may take to finish. Many more than any script needs.
const ROUNDS_MAX: usize = 100_000;

/// Why an action was not done.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The next of [`Life::blows`] has come.
    Blow,
    /// A promise was broken, or something failed for no reason.
    Broken(String),
}

pub(super) type Lives<T = ()> = Result<T, Interruption>;

/// The processor, its disk, its clock, and what was seen of it.
pub(super) struct World {
    life: Life,
    graph: Graph,
    shown: Shown,
    storage: Arc<MemoryStorage>,
    state: MemoryState,
    clock: Arc<ManualClock>,
    random: ChaCha8Rng,
    /// The input follows from a generator of its own, so that it does not depend on how the flow is run.
    entries: ChaCha8Rng,
    /// What a crash of the state backend keeps follows from a generator of its own, so that the script does
    /// not depend on it.
    fate: ChaCha8Rng,
    /// The blow that comes next, and those after it.
    next_blow: Option<Blow>,
    later_blows: std::vec::IntoIter<Blow>,
    running: Option<Running>,
    next_id: u64,
    batches: usize,
    /// By partition of [`ORDERS`]: what was acknowledged.
    acknowledged: BTreeMap<i32, Offset>,
    /// What a reader of committed records saw last, by topic and partition.
    seen: Seen,
    seen_epoch: Epoch,
    /// By partition of the input: what was appended, synced or not. A kill takes none of it.
    appended: BTreeMap<(&'static str, i32), Offset>,
    /// Whether the power has failed since the committed output was looked at, so that it may be what it was before.
    may_go_back: bool,
    /// How often the log was found to have gone back behind what is shown outside of it.
    times_orphaned: usize,
    taken_back: usize,
    answer: Option<Answer>,
}

struct Running {
    log: Log,
    engine: Engine,
    flushes: Vec<(i32, Offset, FlushTicket)>,
}

impl World {
    pub(super) fn new(life: &Life) -> Self {
        let storage = MemoryStorage::new(life.seed);
        if let Some(purpose) = life.ignored {
            storage.ignore_syncs(purpose);
        }
        let shown = Shown::default();
        let mut world = Self {
            life: life.clone(),
            graph: graph(&shown),
            shown,
            storage,
            state: MemoryState::crashing(4),
            clock: ManualClock::new(),
            random: ChaCha8Rng::seed_from_u64(life.seed),
            entries: ChaCha8Rng::seed_from_u64(life.seed),
            fate: ChaCha8Rng::seed_from_u64(!life.seed),
            next_blow: None,
            later_blows: life.blows.clone().into_iter(),
            running: None,
            next_id: 0,
            batches: 0,
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_epoch: Epoch(0),
            appended: BTreeMap::new(),
            may_go_back: false,
            times_orphaned: 0,
            taken_back: 0,
            answer: None,
        };
        world.expect_blow();
        world
    }

    fn expect_blow(&mut self) {
        self.next_blow = self.later_blows.next();
        if let Some(blow) = self.next_blow {
            self.storage.fail_after(blow.after());
        }
    }

    /// What it came to, at its end.
    pub(super) fn lived(self, blows: usize) -> Lived {
        let operations = self.storage.operations();
        let answer = self.answer.expect("a life that ends has an answer");
        Lived { operations, blows, taken_back: self.taken_back, epochs: self.seen_epoch, answer }
    }

    /// Does what is left of the script, then runs the flow to the end of its input and checks the answer.
    pub(super) fn live_on(&mut self, actions: &mut usize) -> Lives {
        while self.batches < self.life.batches_first {
            self.open(false)?;
            self.produce(INPUTS[self.batches % 2].0)?;
        }
        while *actions > 0 {
            self.act()?;
            *actions -= 1;
        }
        self.run_to_the_end()?;
        let first = (self.look()?, self.seen_epoch);
        self.run_to_the_end()?;
        if (self.look()?, self.seen_epoch) != first {
            return Err(Interruption::Broken("a run without input wrote something".to_owned()));
        }
        self.check_answer()
    }

    pub(super) fn take_blow(&mut self) {
        self.running = None;
        match self.next_blow {
            Some(Blow::Kill(_)) => self.storage.kill(),
            Some(Blow::PowerCut(_)) | None => {
                self.storage.crash();
                self.appended.clear();
                self.may_go_back = self.life.durability != Durability::Sync;
            }
        }
        self.state.crash(&mut self.fate);
        self.expect_blow();
    }

    /// What an error means: the power is out, or something is wrong.
    fn interruption(&self, what: &str, error: impl std::fmt::Display) -> Interruption {
        if self.storage.is_unplugged() {
            Interruption::Blow
        } else {
            Interruption::Broken(format!("{what}: {error}"))
        }
    }

    fn powered<T, E: std::fmt::Display>(&self, what: &str, result: Result<T, E>) -> Lives<T> {
        let value = result.map_err(|error| self.interruption(what, error))?;
        if self.storage.is_unplugged() { Err(Interruption::Blow) } else { Ok(value) }
    }

    /// The processor, opened if need be.
    fn open(&mut self, bounded: bool) -> Lives {
        if self.running.is_some() {
            return Ok(());
        }
        // A program draws another seed each time it starts.
        let options = LogOptions {
            durability: self.life.durability,
            // As a program has it, or with each group commit.
            recovery_point_interval: self.fate.random_bool(0.5).then_some(Duration::from_millis(100)),
            ..LogOptions::manual(self.storage.clone(), self.clock.clone(), self.fate.random())
        };
        let log = self.powered("opening the log", Log::open("/data", options))?;
        let cut = log.recovery_report().iter().filter_map(|report| report.truncated.as_ref());
        self.taken_back += cut.filter(|cut| cut.given_up_to.is_some()).count();
        self.make_topics(&log)?;
        self.check_acknowledged(&log)?;
        let engine = self.open_engine(&log, bounded)?;
        self.running = Some(Running { log, engine, flushes: Vec::new() });
        self.look()?;
        Ok(())
    }

    fn open_engine(&self, log: &Log, bounded: bool) -> Lives<Engine> {
        let options = EngineOptions { bounded, ..self.life.options.clone() };
        let opened = Engine::open(EngineSetup {
            graph: &self.graph,
            log: EmbeddedLog::new(log.clone(), FLOW),
            home: Arc::new(self.state.clone()),
            clock: self.clock.clone(),
            counters: &counters_for(&self.graph),
            options: &options,
            is_stopping: &|| false,
        });
        self.powered("opening the flow", opened)
    }

    /// Makes the topics that are not left to the flow: the input, and the changelogs. Segments, indexes and
    /// snapshots are small, so that there are many.
    fn make_topics(&self, log: &Log) -> Lives {
        let changelogs = STORES.map(|store| (changelog_topic(FLOW, store), 3));
        let inputs = INPUTS.map(|(name, partitions)| (name.to_owned(), partitions));
        for (name, partitions) in inputs.into_iter().chain(changelogs) {
            if log.topic(&name).is_ok() {
                continue;
            }
            let durability = if name == RETURNS { Durability::Os } else { self.life.durability };
            let config = TopicConfig {
                partitions,
                durability: Some(durability),
                segment_bytes: 600,
                index_interval_bytes: 100,
                snapshot_interval_bytes: 250,
                ..TopicConfig::default()
            };
            self.powered("making a topic", log.create_topic(&name, config))?;
        }
        Ok(())
    }

    fn partition(&self, log: &Log, topic: &str, number: i32) -> Lives<Arc<Partition>> {
        let partition = log.topic(topic).and_then(|topic| topic.partition(PartitionId(number)));
        self.powered("finding a partition", partition)
    }

    /// One action of the script.
    fn act(&mut self) -> Lives {
        self.open(false)?;
        match self.random.random_range(0..16) {
            0..=1 => self.produce(ORDERS)?,
            2..=3 => self.produce(RETURNS)?,
            4 => self.clock.advance(Duration::from_millis(self.random.random_range(1..8))),
            5 => {
                self.look()?;
            }
            6 if self.random.random_bool(0.2) => {
                let running = self.running.as_ref().expect("it was opened");
                self.powered("taking a checkpoint", running.engine.take_checkpoint(2))?;
            }
            7 if self.random.random_bool(0.1) => self.restart_cleanly()?,
            6..=9 => self.step_log()?,
            _ => self.step_engine()?,
        }
        self.note_acknowledged()
    }

    /// Ends the processor in good order. The next action opens it again.
    fn restart_cleanly(&mut self) -> Lives {
        let Some(Running { log, engine, flushes }) = self.running.take() else { return Ok(()) };
        drop(flushes);
        self.powered("closing the flow", engine.close())?;
        self.powered("closing the log", log.close())
    }

    fn step_log(&mut self) -> Lives {
        let running = self.running.as_ref().expect("it was opened");
        let stepped = running.log.step();
        self.powered("stepping the log", stepped).map(|_| ())
    }

    fn step_engine(&mut self) -> Lives {
        for _ in 0..self.random.random_range(1..12) {
            let which = self.random.random_range(0..=self.life.options.workers);
            self.step_part(which)?;
        }
        Ok(())
    }

    /// Steps a worker or, behind the last one, the coordinator.
    fn step_part(&mut self, which: usize) -> Lives<bool> {
        let engine = &mut self.running.as_mut().expect("it was opened").engine;
        let stepped =
            if which < engine.workers() { engine.step_worker(which) } else { engine.step_coordinator() };
        let committed = engine.last_committed();
        let progressed = self.powered("stepping the flow", stepped)?;
        if committed > self.seen_epoch {
            self.look()?;
        }
        Ok(progressed)
    }

    /// Some entries into one partition. Orders are acknowledged once a group commit has synced them.
    fn produce(&mut self, topic: &'static str) -> Lives {
        self.batches += 1;
        let number = self.entries.random_range(0..2);
        let mut batch = BatchBuilder::new(Compression::None);
        for _ in 0..self.entries.random_range(1..5) {
            let entry = self.next_entry();
            let value = entry.to_string();
            batch.push(Timestamp(entry.time), None, Some(value.as_bytes()), &[]).expect("a short record");
        }
        let running = self.running.as_ref().expect("it was opened");
        let partition = self.partition(&running.log, topic, number)?;
        let appended = self.powered("producing", partition.append(batch.seal()))?;
        self.appended.insert((topic, number), appended.last_offset.next());
        if topic == ORDERS {
            let running = self.running.as_mut().expect("it was opened");
            let ticket = running.log.flush(&[partition], SyncPurpose::Records);
            running.flushes.push((number, appended.last_offset.next(), ticket));
        }
        Ok(())
    }

    /// Event time goes on with the entries, up to 60 ms out of order: some are late.
    fn next_entry(&mut self) -> Entry {
        let id = self.next_id;
        self.next_id += 1;
        let time = id as i64 * 5 + self.entries.random_range(-60..=0);
        Entry {
            id,
            account: self.entries.random_range(0..6),
            time,
            amount: self.entries.random_range(1..100),
        }
    }

    fn note_acknowledged(&mut self) -> Lives {
        let Some(running) = &mut self.running else { return Ok(()) };
        let mut failed = None;
        running.flushes.retain(|(number, end, ticket)| match ticket.outcome() {
            None => true,
            Some(Ok(())) => {
                let acknowledged = self.acknowledged.entry(*number).or_default();
                *acknowledged = (*acknowledged).max(*end);
                false
            }
            Some(Err(error)) => {
                failed = Some(error);
                false
            }
        });
        match failed {
            Some(error) => Err(self.interruption("acknowledging", error)),
            None => Ok(()),
        }
    }

    /// Runs the flow until its input, as it is now, has ended and is committed.
    fn run_to_the_end(&mut self) -> Lives {
        if let Some(running) = self.running.take() {
            // What follows must not depend on how the processor that produced was ended.
            let closed = if self.random.random_bool(0.5) { running.engine.close() } else { Ok(()) };
            self.powered("closing the flow", closed)?;
            let orders = self.powered("finding the orders", running.log.topic(ORDERS))?;
            let flushed = running.log.flush(orders.partitions(), SyncPurpose::Records).wait();
            self.powered("syncing the orders", flushed)?;
        }
        self.open(true)?;
        for _ in 0..ROUNDS_MAX {
            if self.running.as_ref().expect("it was opened").engine.is_finished() {
                return self.look().map(|_| ());
            }
            for which in 0..=self.life.options.workers {
                self.step_part(which)?;
            }
            // Also while something moves: else epochs would be as long as there is something to do.
            self.clock.advance(Duration::from_millis(1));
        }
        Err(Interruption::Broken(format!("the flow did not finish in {ROUNDS_MAX} rounds")))
    }
}
