use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::{Flush, FlushTarget, Flusher, Submission};
use crate::clock::ManualClock;
use crate::consistent_cut::Standstill;
use crate::driver::{Driver, Steps};
use crate::error::{Error, Result};
use crate::record::{Offset, PartitionId, PartitionKey, TopicId};
use crate::recovery_point::{self, RecoveryPointFile, RecoveryPoints};
use crate::spawn::Drive;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::storage::{OpenMode, Storage, StorageFile, SyncPurpose, SyncReason};
use crate::ticket::FlushTicket;

/// A file of one byte per offset.
struct Target {
    partition: i32,
    file: Arc<dyn StorageFile>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    end: i64,
    durable: i64,
    failure: Option<String>,
    is_entangled: bool,
    has_new_names: bool,
    purposes: Vec<SyncPurpose>,
}

impl Target {
    fn append(&self) {
        let mut state = self.state.lock();
        self.file.write_at(state.end as u64, b"x").unwrap();
        state.end += 1;
    }
}

impl Flush for Target {
    fn key(&self) -> PartitionKey {
        PartitionKey { topic: TopicId(Uuid::from_u128(1)), partition: PartitionId(self.partition) }
    }

    fn submit(&self, reason: SyncReason) -> Result<Submission> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(Error::new(crate::ErrorKind::Poisoned, failure.clone()));
        }
        state.purposes.push(reason.purpose);
        let tickets = if state.end > state.durable { vec![self.file.sync_for(reason)] } else { Vec::new() };
        Ok(Submission { tickets, upto: Offset(state.end) })
    }

    fn flushed(&self, upto: Offset) {
        self.state.lock().durable = upto.0;
    }

    fn failed(&self, error: &Error) {
        self.state.lock().failure = Some(error.to_string());
    }

    fn durable(&self) -> Offset {
        Offset(self.state.lock().durable)
    }

    fn waits_to_submit(&self) -> bool {
        self.state.lock().has_new_names
    }

    fn is_deleted(&self) -> bool {
        false
    }

    fn is_entangled(&self) -> bool {
        self.state.lock().is_entangled
    }
}

/// How often recovery points are written down.
const INTERVAL: Duration = Duration::from_millis(100);

struct Fixture {
    storage: Arc<MemoryStorage>,
    clock: Arc<ManualClock>,
    driver: Arc<Driver>,
    standstill: Arc<Standstill>,
    flusher: Arc<Flusher>,
    targets: Vec<Arc<Target>>,
}

impl Fixture {
    fn new(mode: SyncMode) -> Self {
        Self::driven(Drive::Manual, mode)
    }

    /// Under [`Drive::Thread`] the thread is left out: whoever calls does its steps.
    fn driven(drive: Drive, mode: SyncMode) -> Self {
        let storage = MemoryStorage::new(1);
        let target = |partition| {
            let path = format!("/{partition}");
            let file = storage.open(Path::new(&path), OpenMode::Create).unwrap();
            Arc::new(Target { partition, file, state: Mutex::default() })
        };
        let targets = (0..3).map(target).collect();
        let clock = ManualClock::new();
        let standstill = Arc::<Standstill>::default();
        let flusher = Arc::new_cyclic(|this: &Weak<Flusher>| {
            Flusher::new(clock.clone(), Driver::new(drive, this.clone()), standstill.clone())
        });
        let driver = flusher.driver.clone();
        let points =
            RecoveryPointFile::create(storage.clone(), Path::new("/"), RecoveryPoints::new(), Arc::default());
        flusher.keep_recovery_points(points.unwrap());
        storage.set_sync_mode(mode);
        Self { storage, clock, driver, standstill, flusher, targets }
    }

    /// Recovery points are written down once in a while, as they are where a thread runs.
    fn threaded(mode: SyncMode) -> Self {
        let fixture = Self::driven(Drive::Thread, mode);
        fixture.flusher.record_every(Some(INTERVAL));
        fixture
    }

    fn request(&self, targets: &[usize], purpose: SyncPurpose) -> FlushTicket {
        let reason = SyncReason::of(purpose);
        let target = |index: &usize| FlushTarget { target: self.targets[*index].clone(), reason };
        self.flusher.request(targets.iter().map(target))
    }

    /// Has what the target holds synced, begun on this thread, which has a step asked for or not.
    fn begin(&self, target: usize) -> (FlushTicket, bool) {
        let raised = self.driver.raised();
        let reason = SyncReason::of(SyncPurpose::Records);
        let ticket = self.flusher.begin([FlushTarget { target: self.targets[target].clone(), reason }]);
        (ticket, self.driver.raised() > raised)
    }

    /// Lets the syncs that are under way succeed. Whether a step is asked for by that.
    fn complete_syncs(&self) -> bool {
        let raised = self.driver.raised();
        self.storage.complete_syncs();
        self.driver.raised() > raised
    }

    fn step_all(&self) {
        while self.flusher.step() {}
    }
}

#[test]
fn one_sync_serves_all_who_wait_for_a_target() {
    let fixture = Fixture::new(SyncMode::Immediate);
    fixture.targets[0].append();
    let tickets: Vec<_> = (0..10).map(|_| fixture.request(&[0], SyncPurpose::Records)).collect();
    tickets.iter().for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(fixture.storage.sync_count(SyncPurpose::Records), 1);
    assert_eq!(fixture.targets[0].durable(), Offset(1));
}

#[test]
fn targets_are_synced_side_by_side() {
    let fixture = Fixture::new(SyncMode::Delayed);
    fixture.targets.iter().for_each(|target| target.append());
    let ticket = fixture.request(&[0, 1, 2], SyncPurpose::Records);
    fixture.step_all();
    assert_eq!(fixture.storage.complete_syncs(), 3, "all are under way before any is done");
    assert!(ticket.outcome().is_none());
    fixture.step_all();
    ticket.outcome().unwrap().unwrap();
}

#[test]
fn what_is_asked_for_during_a_sync_waits_for_the_next_one() {
    let fixture = Fixture::new(SyncMode::Delayed);
    fixture.targets[0].append();
    let first = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    fixture.targets[0].append();
    let second = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    fixture.storage.complete_syncs();
    fixture.step_all();
    assert!(first.outcome().is_some() && second.outcome().is_none());
    assert_eq!(fixture.targets[0].durable(), Offset(1));
    fixture.storage.complete_syncs();
    fixture.step_all();
    second.outcome().unwrap().unwrap();
    assert_eq!(fixture.targets[0].durable(), Offset(2));
}

#[test]
fn a_target_does_not_wait_for_the_sync_of_another() {
    let fixture = Fixture::new(SyncMode::Delayed);
    fixture.targets[0].append();
    drop(fixture.request(&[0], SyncPurpose::Records));
    fixture.step_all();
    fixture.targets[1].append();
    drop(fixture.request(&[1], SyncPurpose::Decision));
    fixture.step_all();
    assert_eq!(fixture.targets[1].state.lock().purposes, [SyncPurpose::Decision]);
}

#[test]
fn what_is_durable_already_costs_no_sync() {
    let fixture = Fixture::new(SyncMode::Immediate);
    fixture.request(&[0, 1], SyncPurpose::Consumed).wait().unwrap();
    fixture.flusher.request([]).wait().unwrap();
    assert_eq!(fixture.storage.sync_count(SyncPurpose::Consumed), 0);
}

#[test]
fn a_failed_sync_is_told_to_target_and_waiters_and_never_tried_again() {
    let fixture = Fixture::new(SyncMode::Delayed);
    fixture.targets.iter().for_each(|target| target.append());
    let both = fixture.request(&[0, 1], SyncPurpose::Records);
    fixture.step_all();
    fixture.storage.fail_syncs(ErrorKind::Other);
    fixture.step_all();
    assert_eq!(both.outcome().unwrap().unwrap_err().kind(), crate::ErrorKind::Io);
    let again = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    assert_eq!(again.outcome().unwrap().unwrap_err().kind(), crate::ErrorKind::Poisoned);
    assert_eq!(fixture.storage.sync_count(SyncPurpose::Records), 2);
    assert_eq!(fixture.targets[0].durable(), Offset(0));
}

#[test]
fn a_recovery_point_is_what_the_round_before_synced() {
    let fixture = Fixture::new(SyncMode::Immediate);
    let points = || recovery_point::read(&*fixture.storage, Path::new("/")).unwrap();
    for round in 1..5 {
        fixture.targets[0].append();
        fixture.request(&[0], SyncPurpose::Records).wait().unwrap();
        let expected = (round > 1).then_some(Offset(round - 1));
        assert_eq!(points().points.get(&fixture.targets[0].key()).copied(), expected);
    }
    fixture.step_all();
    assert_eq!(fixture.storage.sync_count(SyncPurpose::RecoveryPoint), 3);
}

#[test]
fn recovery_points_are_written_down_once_an_interval_though_nothing_is_synced_any_more() {
    let fixture = Fixture::new(SyncMode::Immediate);
    fixture.flusher.record_every(Some(INTERVAL));
    let recorded = || {
        let stored = recovery_point::read(&*fixture.storage, Path::new("/")).unwrap();
        stored.points.get(&fixture.targets[0].key()).copied()
    };
    let sync_one = || {
        fixture.targets[0].append();
        fixture.request(&[0], SyncPurpose::Records).wait().unwrap();
        fixture.step_all();
    };
    sync_one();
    assert_eq!(recorded(), Some(Offset(1)), "the first at once");
    (0..5).for_each(|_| sync_one());
    assert_eq!(recorded(), Some(Offset(1)), "the next when it is time");
    assert_eq!(fixture.flusher.idle_time(), Some(INTERVAL));
    fixture.clock.advance(INTERVAL);
    fixture.step_all();
    assert_eq!(recorded(), Some(Offset(6)));
    assert_eq!(fixture.flusher.idle_time(), None, "there is nothing more to write down");
}

#[test]
fn a_sync_is_taken_note_of_by_the_thread_that_ends_it_and_what_waits_is_left_to_the_step() {
    let fixture = Fixture::driven(Drive::Thread, SyncMode::Delayed);
    fixture.targets[0].append();
    let first = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    fixture.targets[0].append();
    let second = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    assert_eq!(fixture.storage.complete_syncs(), 1);
    first.outcome().expect("nobody had to step").unwrap();
    assert_eq!(fixture.targets[0].durable(), Offset(1));
    assert_eq!(fixture.targets[0].state.lock().purposes.len(), 1, "nothing is begun there");
    fixture.step_all();
    fixture.storage.complete_syncs();
    second.outcome().expect("it was begun by the step").unwrap();
}

#[test]
fn what_is_begun_where_it_is_asked_for_needs_a_step_only_to_write_recovery_points_down() {
    let fixture = Fixture::threaded(SyncMode::Delayed);
    let recorded = || {
        let stored = recovery_point::read(&*fixture.storage, Path::new("/")).unwrap();
        stored.points.get(&fixture.targets[0].key()).copied()
    };
    let sync_one = || {
        fixture.targets[0].append();
        let (ticket, is_step_wanted) = fixture.begin(0);
        assert!(!is_step_wanted && ticket.outcome().is_none());
        let is_step_wanted = fixture.complete_syncs();
        ticket.outcome().expect("nobody had to step").unwrap();
        is_step_wanted
    };
    assert!(sync_one(), "there is something to write down");
    fixture.step_all();
    assert!(fixture.complete_syncs(), "a step may look for points that are durable");
    fixture.step_all();
    assert_eq!((recorded(), fixture.flusher.idle_time()), (Some(Offset(1)), None));

    let wanted: Vec<_> = (0..4).map(|_| sync_one()).collect();
    assert_eq!(wanted, [true, false, false, false], "once it is known when the next points are due");
    assert_eq!((recorded(), fixture.flusher.idle_time()), (Some(Offset(1)), Some(INTERVAL)));
    fixture.clock.advance(INTERVAL);
    fixture.step_all();
    assert_eq!(recorded(), Some(Offset(5)));
}

#[test]
fn what_is_asked_for_during_a_sync_that_was_begun_elsewhere_is_left_to_a_step_at_its_end() {
    let fixture = Fixture::threaded(SyncMode::Delayed);
    fixture.targets[0].append();
    let (first, _) = fixture.begin(0);
    fixture.targets[0].append();
    let (second, is_step_wanted) = fixture.begin(0);
    assert!(!is_step_wanted, "there is nothing to do yet");
    assert!(fixture.complete_syncs());
    assert!(first.outcome().is_some() && second.outcome().is_none());
    fixture.step_all();
    fixture.complete_syncs();
    second.outcome().expect("it was begun by the step").unwrap();
}

#[test]
fn what_cannot_be_begun_where_it_is_asked_for_is_left_to_a_step() {
    let fixture = Fixture::threaded(SyncMode::Immediate);
    fixture.targets.iter().for_each(|target| target.append());

    let held = fixture.standstill.hold();
    let (ticket, is_step_wanted) = fixture.begin(0);
    assert!(is_step_wanted && fixture.targets[0].state.lock().purposes.is_empty());
    drop(held);
    fixture.step_all();
    ticket.outcome().expect("nobody stands still").unwrap();

    fixture.targets[2].state.lock().has_new_names = true;
    let (ticket, is_step_wanted) = fixture.begin(2);
    assert!(
        is_step_wanted && fixture.targets[2].state.lock().purposes.is_empty(),
        "it would wait for the disk"
    );
    fixture.step_all();
    ticket.outcome().expect("a step may wait").unwrap();
    fixture.targets[2].state.lock().has_new_names = false;

    let rounds = fixture.flusher.rounds.lock();
    let (ticket, is_step_wanted) = fixture.begin(1);
    assert!(is_step_wanted && fixture.targets[1].state.lock().purposes.is_empty());
    drop(rounds);
    fixture.step_all();
    ticket.outcome().expect("nobody steps").unwrap();

    fixture.flusher.record_every(None);
    let (ticket, is_step_wanted) = fixture.begin(2);
    assert!(is_step_wanted, "recovery points go with each round");
    fixture.step_all();
    ticket.outcome().expect("a step writes them").unwrap();
}

#[test]
fn who_asks_tells_nobody_how_it_ended_though_it_has() {
    let fixture = Fixture::threaded(SyncMode::Immediate);
    fixture.targets[0].append();
    fixture.targets[2].state.lock().failure = Some("poisoned before".to_owned());
    let outcome = |target| {
        let (ticket, is_step_wanted) = fixture.begin(target);
        assert!(is_step_wanted && ticket.outcome().is_none(), "target {target}");
        fixture.step_all();
        ticket.outcome().expect("a step tells it")
    };
    outcome(0).expect("it was synced at once");
    outcome(1).expect("there was nothing to sync");
    assert_eq!(outcome(2).unwrap_err().kind(), crate::ErrorKind::Poisoned);
}

#[test]
fn a_cut_is_begun_and_moved_on_by_steps_whoever_asks_for_it() {
    let fixture = entangled(Drive::Thread, SyncMode::Delayed);
    fixture.flusher.record_every(Some(INTERVAL));
    let (ticket, is_step_wanted) = fixture.begin(1);
    assert!(is_step_wanted && fixture.targets[1].state.lock().purposes.is_empty());
    fixture.step_all();
    assert!(fixture.complete_syncs(), "all parts");
    fixture.step_all();
    assert!(fixture.complete_syncs(), "the recovery points");
    fixture.step_all();
    ticket.outcome().expect("it is written down").unwrap();
    assert!(fixture.targets.iter().all(|target| target.durable() == Offset(1)));
}

#[test]
fn a_target_under_an_interval_is_synced_when_the_clock_says_so() {
    let fixture = Fixture::new(SyncMode::Immediate);
    let target: Arc<dyn Flush> = fixture.targets[0].clone();
    fixture.flusher.flush_every(Duration::from_secs(1), &target);
    fixture.targets[0].append();
    fixture.clock.advance(Duration::from_millis(999));
    fixture.step_all();
    assert_eq!(fixture.targets[0].durable(), Offset(0));
    assert_eq!(fixture.flusher.idle_time(), Some(Duration::from_millis(1)));
    fixture.clock.advance(Duration::from_millis(1));
    fixture.step_all();
    assert_eq!(fixture.targets[0].durable(), Offset(1));
    assert_eq!(fixture.flusher.idle_time(), Some(Duration::from_secs(1)));
}

#[test]
fn a_flusher_that_goes_away_leaves_no_waiter_behind() {
    let fixture = Fixture::new(SyncMode::Delayed);
    fixture.targets[0].append();
    let ticket = fixture.request(&[0], SyncPurpose::Records);
    drop(fixture);
    assert_eq!(ticket.wait().unwrap_err().kind(), crate::ErrorKind::Closed);
}

#[test]
fn an_interval_of_nothing_leaves_the_flusher_idle_between_its_rounds() {
    let fixture = Fixture::new(SyncMode::Immediate);
    let target: Arc<dyn Flush> = fixture.targets[0].clone();
    fixture.flusher.flush_every(Duration::ZERO, &target);
    fixture.clock.advance(Duration::from_secs(1));
    assert!((0..10).any(|_| !fixture.flusher.step()), "it is due again and again");
}

#[test]
fn a_flusher_that_gives_up_answers_everyone_who_waits_or_asks_later() {
    let fixture = Fixture::new(SyncMode::Delayed);
    fixture.targets[0].append();
    let submitted = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    let waiting = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    let asked = fixture.request(&[1], SyncPurpose::Records);
    fixture.flusher.give_up();
    let later = fixture.request(&[2], SyncPurpose::Records);
    for ticket in [submitted, waiting, asked, later] {
        let error = ticket.outcome().expect("it is answered").expect_err("nobody steps");
        assert_eq!(error.kind(), crate::ErrorKind::Closed);
    }
}

/// All targets take part in cuts, and hold something that stands on the others.
fn entangled(drive: Drive, mode: SyncMode) -> Fixture {
    let fixture = Fixture::driven(drive, mode);
    for target in &fixture.targets {
        target.append();
        target.state.lock().is_entangled = true;
        fixture.flusher.take_part_in_cuts(&(target.clone() as Arc<dyn Flush>), false);
    }
    fixture
}

#[test]
fn a_cut_makes_all_parts_durable_though_one_was_asked_for_and_writes_them_down_before_it_says_so() {
    let fixture = entangled(Drive::Manual, SyncMode::Delayed);
    let ticket = fixture.request(&[1], SyncPurpose::Decision);
    fixture.step_all();
    assert_eq!(fixture.storage.complete_syncs(), 3, "all parts");
    fixture.step_all();
    assert!(ticket.outcome().is_none() && fixture.targets[1].durable() == Offset(0));
    assert_eq!(fixture.storage.complete_syncs(), 1, "the recovery points");
    fixture.step_all();
    ticket.outcome().unwrap().unwrap();
    let points = recovery_point::read(&*fixture.storage, Path::new("/")).unwrap().points;
    for target in &fixture.targets {
        assert_eq!((target.durable(), points[&target.key()]), (Offset(1), Offset(1)));
    }
}

#[test]
fn a_part_whose_sync_fails_is_told_though_another_has_refused_to_take_part() {
    let fixture = entangled(Drive::Manual, SyncMode::Delayed);
    fixture.targets[2].state.lock().failure = Some("poisoned before".to_owned());
    let ticket = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    assert!(ticket.outcome().is_none(), "two syncs are under way");
    fixture.storage.fail_syncs(ErrorKind::Other);
    fixture.step_all();
    assert_eq!(ticket.outcome().unwrap().unwrap_err().kind(), crate::ErrorKind::Poisoned);
    for target in &fixture.targets {
        assert!(target.state.lock().failure.is_some(), "partition {}", target.partition);
        assert_eq!(target.durable(), Offset(0));
    }
}

#[test]
fn a_cut_that_cannot_be_written_down_is_told_to_all_who_wait_and_makes_nothing_durable() {
    // Behind the syncs of the three parts: the recovery points are written, and synced.
    for operation in [3, 4] {
        let fixture = entangled(Drive::Manual, SyncMode::Immediate);
        let points = || recovery_point::read(&*fixture.storage, Path::new("/")).unwrap().points;
        fixture.storage.fail_with(ErrorKind::Other, operation);
        let waiting =
            [fixture.request(&[1], SyncPurpose::Decision), fixture.request(&[2], SyncPurpose::Records)];
        fixture.step_all();
        let later = fixture.request(&[0], SyncPurpose::Records);
        fixture.step_all();
        for ticket in waiting.iter().chain([&later]) {
            let error =
                ticket.outcome().expect("it is answered").expect_err("nothing says that there is a cut");
            assert_eq!(error.kind(), crate::ErrorKind::Poisoned, "{error}");
            assert!(error.to_string().contains("cannot be written down"), "{error}");
        }
        for target in &fixture.targets {
            assert_eq!(target.durable(), Offset(0), "after operation {operation}");
        }
        if operation == 3 {
            assert_eq!(points(), RecoveryPoints::new());
        }
    }
}

#[test]
fn what_no_cut_could_be_taken_of_is_cut_once_its_parts_are_well() {
    let fixture = entangled(Drive::Manual, SyncMode::Immediate);
    fixture.targets[2].state.lock().failure = Some("not now".to_owned());
    fixture.request(&[0], SyncPurpose::Records).wait().unwrap_err();
    assert_eq!(fixture.targets[0].durable(), Offset(0));
    fixture.targets[2].state.lock().failure = None;
    fixture.request(&[0], SyncPurpose::Records).wait().unwrap();
    assert!(fixture.targets.iter().all(|target| target.durable() == Offset(1)));
}

#[test]
fn a_cut_ends_though_the_recovery_points_are_written_anew_while_it_waits_for_them() {
    let fixture = Fixture::new(SyncMode::Delayed);
    fixture.targets[0].append();
    let first = fixture.request(&[0], SyncPurpose::Records);
    fixture.step_all();
    fixture.storage.complete_syncs();
    fixture.flusher.step();
    first.outcome().unwrap().unwrap();
    for target in &fixture.targets {
        target.append();
        target.state.lock().is_entangled = true;
        fixture.flusher.take_part_in_cuts(&(target.clone() as Arc<dyn Flush>), false);
    }
    let cut = fixture.request(&[0], SyncPurpose::Decision);
    fixture.step_all();
    // The parts are synced, and points that were written down before are not.
    (0..3).for_each(|_| assert!(fixture.storage.complete_sync(0)));
    fixture.step_all();
    fixture.storage.set_sync_mode(SyncMode::Immediate);
    let raised = fixture.driver.raised();
    fixture.flusher.ensure_recorded(&*fixture.targets[0], Offset(1)).unwrap();
    assert!(fixture.driver.raised() > raised, "somebody is to see that it has ended");
    fixture.storage.complete_syncs();
    fixture.step_all();
    cut.outcome().expect("it has ended").unwrap();
}
