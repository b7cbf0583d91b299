use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use lotic_log::murmur2;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::epoch_writer::{EpochWriter, EpochWriterOptions};
use crate::event_log::EventLog;
use crate::memory_log::MemoryLog;
use crate::state::restore::restore;
use crate::state::testing::{Changes, Counting, Counts, topic};
use crate::state::{MemoryState, StateAccessOptions, StateHome, StateLimits, StoreChangelog};

/// A timer as a tuple that sorts as timers fire.
type Row = (i64, usize, Vec<u8>, Vec<u8>);
type Model = BTreeSet<Row>;

fn row(time: i64, key: &str, namespace: u8) -> Row {
    (time, key.len(), key.into(), vec![namespace])
}

fn timer((time, _, key, namespace): &Row) -> Timer<'_> {
    Timer { time: Timestamp(*time), group: group_of(key), key, namespace }
}

fn row_of(timer: Timer<'_>) -> Row {
    (timer.time.0, timer.key.len(), timer.key.into(), timer.namespace.into())
}

fn group_of(key: &[u8]) -> KeyGroup {
    KeyGroup::of_hash(murmur2(key) as u32)
}

/// A flow of some workers whose steps do nothing but what the test tells them to do with their timers.
struct Flow {
    log: Arc<MemoryLog>,
    home: MemoryState,
    stores: Vec<StoreChangelog>,
    workers: Vec<Worker>,
    /// The epoch that was frozen last.
    frozen: Epoch,
    committed: Epoch,
}

struct Worker {
    timers: Timers,
    access: StateAccess,
    writer: EpochWriter,
}

impl Flow {
    fn new(workers: usize) -> Self {
        let log = MemoryLog::new();
        let stores =
            vec![StoreChangelog { name: "due".to_owned(), topic: log.topic("flow-due-changelog", 2) }];
        let home = MemoryState::crashing(6);
        let mut flow = Self { log, home, stores, workers: Vec::new(), frozen: Epoch(0), committed: Epoch(0) };
        flow.open(workers);
        flow
    }

    /// Goes on after the last committed epoch.
    fn open(&mut self, count: usize) {
        self.workers.clear();
        self.frozen = self.committed;
        let backend = restore(&self.home, &*self.log, &self.stores, count, &|| false).unwrap().backend;
        let worker = |worker| {
            let limits = StateLimits { cache_bytes_max: 1_000, dirty_bytes_max: 10_000 };
            let options = StateAccessOptions {
                backend: backend.clone(),
                stores: &self.stores,
                worker,
                workers: count,
                limits,
            };
            let access = StateAccess::new(options).unwrap();
            let owned = KeyGroup::owned_by(worker, count);
            let timers = Timers::of_groups("due", &access, owned, AHEAD_MAX).unwrap();
            let log: Arc<dyn EventLog> = self.log.clone();
            Worker {
                timers,
                access,
                writer: EpochWriter::new(log, EpochWriterOptions::default(), self.committed.next()),
            }
        };
        self.workers = (0..count).map(worker).collect();
    }

    fn timers_of(&mut self, row: &Row) -> &mut Timers {
        let count = self.workers.len();
        &mut self.workers[group_of(&row.2).worker(count)].timers
    }

    fn set(&mut self, row: &Row) {
        self.timers_of(row).set(timer(row)).unwrap();
    }

    fn delete(&mut self, row: &Row) {
        self.timers_of(row).delete(timer(row)).unwrap();
    }

    fn fire(&mut self, worker: usize, until: i64) -> Option<Row> {
        let fired = self.workers[worker].timers.fire(Timestamp(until)).unwrap();
        fired.map(|fired| row_of(fired.timer()))
    }

    fn fire_all(&mut self, until: i64) -> Vec<Row> {
        (0..self.workers.len())
            .flat_map(|worker| std::iter::from_fn(|| self.fire(worker, until)).collect::<Vec<_>>())
            .collect()
    }

    fn freeze(&mut self) {
        self.frozen = self.frozen.next();
        for Worker { timers, writer, .. } in &mut self.workers {
            writer.enter(self.frozen);
            timers.freeze(self.frozen, Timestamp(0), writer).unwrap();
        }
    }

    /// Commits the oldest epoch that is frozen.
    fn commit(&mut self) {
        let epoch = self.committed.next();
        self.log.begin(epoch).unwrap();
        for Worker { writer, .. } in &mut self.workers {
            writer.begin(epoch).unwrap();
            writer.flush(epoch).unwrap();
        }
        let ends = self.log.ends().unwrap().unwrap();
        self.log.commit(epoch, &[]).unwrap();
        for Worker { timers, access, .. } in &mut self.workers {
            access.publish_ends(epoch, &ends);
            timers.committed(epoch).unwrap();
        }
        self.committed = epoch;
    }

    fn commit_all(&mut self) {
        self.freeze();
        self.commit();
    }

    fn changes(&self) -> usize {
        self.log.rows(&self.stores[0].topic).len()
    }
}

/// So few that they run out all the time.
const AHEAD_MAX: usize = 6;
const KEYS: [&str; 5] = ["a", "b", "ba", "abc", ""];

#[derive(Clone, Debug)]
enum Step {
    Set(Row),
    SetSome(Row, u8),
    Delete(Row),
    /// Some timers of one of the workers.
    Fire(usize, i64, usize),
    Freeze,
    Commit,
    Checkpoint,
    /// The running epoch, and what is frozen, is given up; so many workers go on.
    Abort(usize),
    /// The process dies, and of what was applied last some is lost.
    Kill(usize, u64),
    /// The live store is lost: a checkpoint and the changelog behind it are left, or the changelog alone.
    Lose(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row =
        || (0..12i64, 0..KEYS.len(), 0..4u8).prop_map(|(time, key, tail)| row(time - 3, KEYS[key], tail));
    let workers = || 1..4usize;
    let step = prop_oneof![
        8 => row().prop_map(Step::Set),
        4 => (row(), 1..12u8).prop_map(|(row, count)| Step::SetSome(row, count)),
        6 => row().prop_map(Step::Delete),
        8 => (0..3usize, -4..12i64, 0..9usize).prop_map(|(worker, until, max)| Step::Fire(worker, until, max)),
        4 => Just(Step::Freeze),
        4 => Just(Step::Commit),
        1 => Just(Step::Checkpoint),
        1 => workers().prop_map(Step::Abort),
        1 => (workers(), any::<u64>()).prop_map(|(workers, seed)| Step::Kill(workers, seed)),
        1 => workers().prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 1..150)
}

/// Does the steps with timers and with sets of tuples, and compares what fires.
fn check(steps: Vec<Step>) {
    let mut flow = Flow::new(1);
    let mut running = Model::new();
    let mut frozen: VecDeque<Model> = VecDeque::new();
    let mut committed = Model::new();
    for step in steps {
        match step {
            Step::Set(row) => {
                flow.set(&row);
                running.insert(row);
            }
            Step::SetSome((time, length, key, _), count) => {
                for tail in 0..count {
                    let row = (time, length, key.clone(), vec![tail]);
                    flow.set(&row);
                    running.insert(row);
                }
            }
            Step::Delete(row) => {
                flow.delete(&row);
                running.remove(&row);
            }
            Step::Fire(worker, until, max) => {
                let workers = flow.workers.len();
                let worker = worker % workers;
                for _ in 0..max {
                    let is_due = |row: &&Row| row.0 < until && group_of(&row.2).worker(workers) == worker;
                    let expected = running.iter().find(is_due).cloned();
                    assert_eq!(flow.fire(worker, until), expected);
                    if let Some(row) = expected {
                        running.remove(&row);
                    }
                }
            }
            Step::Freeze if frozen.len() < 2 => {
                flow.freeze();
                frozen.push_back(running.clone());
            }
            Step::Commit if !frozen.is_empty() => {
                flow.commit();
                committed = frozen.pop_front().unwrap();
            }
            Step::Freeze | Step::Commit => {}
            Step::Checkpoint => drop(flow.home.take().unwrap()),
            Step::Abort(workers) => {
                flow.open(workers);
                (running, frozen) = (committed.clone(), VecDeque::new());
            }
            Step::Kill(workers, seed) => {
                flow.home.crash(&mut ChaCha8Rng::seed_from_u64(seed));
                flow.open(workers);
                (running, frozen) = (committed.clone(), VecDeque::new());
            }
            Step::Lose(workers) => {
                flow.home.discard().unwrap();
                flow.open(workers);
                (running, frozen) = (committed.clone(), VecDeque::new());
            }
        }
        for Worker { timers, .. } in &flow.workers {
            let ahead = timers.groups.iter().map(|group| group.ahead.len()).max();
            assert!(ahead <= Some(AHEAD_MAX), "what is in memory is bounded");
        }
    }
    let mut fired = flow.fire_all(i64::MAX);
    fired.sort();
    assert_eq!(fired, running.into_iter().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn timers_do_as_a_sorted_set_does_whatever_is_aborted_and_restored(steps in steps()) {
        check(steps);
    }
}

#[test]
fn timers_fire_in_the_order_of_their_times_whatever_their_groups_and_then_of_their_keys() {
    let mut flow = Flow::new(1);
    let mut rows: Vec<Row> = (0..40).map(|n| row(n % 8 - 4, &format!("key {n}"), 0)).collect();
    rows.extend([row(2, "key 10", 1), row(2, "z", 0), row(2, "", 0)]);
    rows.iter().rev().for_each(|row| flow.set(row));
    rows.sort();
    let (due, later) = rows.split_at(rows.partition_point(|row| row.0 < 2));
    assert_eq!(flow.fire_all(2), due, "one of the watermark's own time is not due");
    assert_eq!(flow.fire_all(2), []);
    assert_eq!(flow.fire_all(i64::MAX), later);
    assert!(group_of(b"z") < group_of(b""), "the order of groups is another one than that of keys");
}

#[test]
fn a_timer_that_is_set_often_fires_once_and_is_written_once() {
    let mut flow = Flow::new(1);
    // Enough for some to be in the store only.
    let rows: Vec<Row> = (0..20).map(|tail| row(5, "a", tail)).collect();
    for _ in 0..3 {
        rows.iter().for_each(|row| flow.set(row));
        rows.iter().for_each(|row| flow.set(row));
        flow.commit_all();
    }
    assert_eq!(flow.changes(), 20);
    flow.open(1);
    rows.iter().for_each(|row| flow.set(row));
    flow.commit_all();
    assert_eq!(flow.changes(), 20);
    assert_eq!(flow.fire_all(6), rows);
}

#[test]
fn a_deleted_timer_does_not_fire_and_one_that_came_and_went_leaves_no_trace() {
    let mut flow = Flow::new(1);
    // That there are none is known from here on: the first that are set are in memory.
    assert_eq!(flow.fire_all(0), []);
    let rows: Vec<Row> = (0..20).map(|tail| row(5, "a", tail)).collect();
    rows.iter().for_each(|row| flow.set(row));
    rows.iter().for_each(|row| flow.delete(row));
    flow.delete(&row(9, "never set", 0));
    flow.commit_all();
    assert_eq!((flow.changes(), flow.fire_all(i64::MAX)), (0, Vec::new()));
    rows.iter().for_each(|row| flow.set(row));
    flow.commit_all();
    let (kept, gone) = rows.split_at(3);
    gone.iter().for_each(|row| flow.delete(row));
    assert_eq!(flow.fire_all(i64::MAX), kept);
}

#[test]
fn what_is_set_and_deleted_while_timers_fire_counts_at_once() {
    let mut flow = Flow::new(1);
    [row(1, "a", 0), row(3, "a", 0), row(4, "b", 0)].iter().for_each(|row| flow.set(row));
    assert_eq!(flow.fire(0, 9), Some(row(1, "a", 0)));
    flow.delete(&row(3, "a", 0));
    flow.set(&row(2, "b", 0));
    // Before what has fired already.
    flow.set(&row(0, "b", 0));
    assert_eq!(flow.fire_all(9), [row(0, "b", 0), row(2, "b", 0), row(4, "b", 0)]);
}

/// A store of timers whose backend counts what it is asked for.
fn counted() -> (StateAccess, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let backend = Counting { inner: MemoryState::new().open().unwrap(), counts: counts.clone() };
    let stores = [StoreChangelog { name: "due".to_owned(), topic: topic(0, 3) }];
    let options = StateAccessOptions {
        backend: Arc::new(backend),
        stores: &stores,
        worker: 0,
        workers: 1,
        limits: StateLimits::default(),
    };
    (StateAccess::new(options).unwrap(), counts)
}

/// Opens the timers with these set and committed, none of them in memory.
fn opened_with(access: &StateAccess, rows: &[Row]) -> Timers {
    let open = || Timers::of_groups("due", access, KeyGroup::owned_by(0, 1), AHEAD_MAX).unwrap();
    let mut timers = open();
    rows.iter().for_each(|row| timers.set(timer(row)).unwrap());
    timers.freeze(Epoch(1), Timestamp(0), &mut Changes::default()).unwrap();
    access.publish_ends(Epoch(1), &[]);
    timers.committed(Epoch(1)).unwrap();
    drop(timers);
    open()
}

#[test]
fn the_backend_is_asked_at_once_which_timers_beyond_those_in_memory_there_are() {
    let (access, counts) = counted();
    let rows: Vec<Row> = (0..GATHERED_MAX as i64 + 300).map(|time| row(time, "a", 0)).collect();
    let (set, others) = rows.split_at(rows.len() / 2);
    let mut timers = opened_with(&access, set);
    let asked = || std::mem::take(&mut *counts.multi_gets.lock());
    asked();
    let before = counts.visited.load(Ordering::Relaxed);
    rows.iter().for_each(|row| timers.set(timer(row)).unwrap());
    assert_eq!(asked(), [GATHERED_MAX], "so many are gathered at most");
    set.iter().for_each(|row| timers.delete(timer(row)).unwrap());
    let mut changes = Changes::default();
    timers.freeze(Epoch(2), Timestamp(0), &mut changes).unwrap();
    assert_eq!(asked(), [300], "of the others it is known by then");
    assert_eq!(changes.count, rows.len(), "those that were set are deleted, the others are set");
    assert_eq!(counts.visited.load(Ordering::Relaxed), before);
    for row in others {
        let fired = timers.fire(Timestamp(i64::MAX)).unwrap();
        assert_eq!(fired.map(|fired| row_of(fired.timer())).as_ref(), Some(row));
    }
    assert_eq!(timers.fire(Timestamp(i64::MAX)).unwrap(), None);
}

#[test]
fn timers_that_have_fired_are_not_passed_over_again_and_groups_where_nothing_is_due_are_left_alone() {
    let (access, counts) = counted();
    let visited = || counts.visited.load(Ordering::Relaxed);
    let rows: Vec<Row> = (0..200).map(|time| row(time, KEYS[time as usize % 2], 0)).collect();
    let mut timers = opened_with(&access, &rows);
    assert_eq!(timers.fire(Timestamp(0)).unwrap(), None);
    let looked_at = visited();
    // The first of each of the two groups, and what stops each scan.
    assert_eq!(looked_at, 2 * (AHEAD_MAX / 2 + 1));
    assert_eq!(timers.fire(Timestamp(0)).unwrap(), None);
    assert_eq!(visited(), looked_at, "nothing is due");
    for row in &rows {
        assert_eq!(
            timers.fire(Timestamp(500)).unwrap().map(|fired| row_of(fired.timer())).as_ref(),
            Some(row)
        );
    }
    assert_eq!(timers.fire(Timestamp(500)).unwrap(), None);
    let (all, visited) = (rows.len(), visited());
    assert!(visited <= all + all / (AHEAD_MAX / 2) + 2, "{visited} rows for {all} timers");
}
