//! Consistent cuts of a log whose topics go, whose disk fails, that is closed, or that another process follows.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Log, LogOptions, Repair};
use crate::clock::ManualClock;
use crate::consistent_cut::INTERVAL;
use crate::consistent_cut::tests::{batch, committed};
use crate::driver::Steps;
use crate::error::{ErrorKind, Result};
use crate::partition::{Durability, Partition};
use crate::record::{Offset, PartitionId};
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::storage::{Storage, SyncPurpose};
use crate::topic::TopicConfig;
use crate::transaction::TransactionalProducer;
use crate::whole_file;

/// Where it is noted that there are records which nobody has synced.
const MARK: &str = "/log/unsynced";

/// A log that syncs by default, on a disk that can be struck.
pub(super) struct Fixture {
    pub(super) disk: Arc<MemoryStorage>,
    pub(super) clock: Arc<ManualClock>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with_seed(1)
    }

    pub(super) fn with_seed(seed: u64) -> Self {
        Self { disk: MemoryStorage::new(seed), clock: ManualClock::new() }
    }

    pub(super) fn open(&self) -> Log {
        self.try_open().expect("the disk is well")
    }

    pub(super) fn try_open(&self) -> Result<Log> {
        self.open_on(self.disk.mount())
    }

    fn open_on(&self, storage: Arc<dyn Storage>) -> Result<Log> {
        Log::open("/log", LogOptions::manual(storage, self.clock.clone(), 1))
    }

    /// Another process, which reads.
    fn follow(&self) -> Log {
        let options = LogOptions::manual(self.disk.mount(), self.clock.clone(), 2);
        Log::open_read_only("/log", options).expect("it can be read")
    }

    /// Steps until a cut is taken because it is time to.
    pub(super) fn cut(&self, log: &Log) {
        let before = self.disk.sync_count(SyncPurpose::Cut);
        self.clock.advance(INTERVAL);
        step_all(log);
        assert!(self.disk.sync_count(SyncPurpose::Cut) > before, "a cut is due");
    }
}

fn step_all(log: &Log) {
    while log.step().expect("it is open") {}
}

/// The partition of a topic, which is made where it is missing.
pub(super) fn partition(log: &Log, topic: &str, durability: Durability) -> Arc<Partition> {
    let config = TopicConfig { durability: Some(durability), ..TopicConfig::default() };
    let topic = log.topic(topic).or_else(|_| log.create_topic(topic, config)).expect("the disk is well");
    topic.partitions()[0].clone()
}

pub(super) fn begin(producer: &TransactionalProducer, partitions: &[&Arc<Partition>], value: usize) {
    producer.begin().expect("none is open");
    for partition in partitions {
        producer.append(partition, batch(&value.to_string())).expect("the disk is well");
    }
}

/// Commits a record with this value in each of the partitions.
pub(super) fn commit(
    producer: &TransactionalProducer,
    partitions: &[&Arc<Partition>],
    value: usize,
) -> Result<()> {
    begin(producer, partitions, value);
    producer.commit(&[]).wait()
}

pub(super) fn values(log: &Log, topic: &str) -> Vec<usize> {
    committed(&log.topic(topic).expect("it was made").partitions()[0])
}

/// Two topics that nobody syncs, and who writes to both.
pub(super) struct Pair {
    pub(super) one: Arc<Partition>,
    pub(super) other: Arc<Partition>,
    pub(super) producer: TransactionalProducer,
}

impl Pair {
    pub(super) fn of(log: &Log) -> Self {
        let [one, other] = ["one", "other"].map(|name| partition(log, name, Durability::Os));
        Self { one, other, producer: log.transactional("alpha").expect("the disk is well") }
    }

    /// Commits a record with this value in both.
    pub(super) fn commit(&self, value: usize) {
        commit(&self.producer, &[&self.one, &self.other], value).expect("nothing waits for the disk");
    }

    /// What is committed in both.
    pub(super) fn values(log: &Log) -> [Vec<usize>; 2] {
        ["one", "other"].map(|topic| values(log, topic))
    }
}

#[test]
fn what_was_synced_stays_though_a_topic_of_the_same_batch_of_decisions_is_deleted_before_the_power_fails() {
    // A marker that happens to survive hides what becomes of the decision.
    for seed in 0..20 {
        let fixture = Fixture::with_seed(seed);
        let log = fixture.open();
        let [kept, gone] = ["kept", "gone"].map(|name| partition(&log, name, Durability::Sync));
        partition(&log, "loose", Durability::Os).append(batch("1")).expect("the disk is well");
        let producers = ["alpha", "beta"].map(|id| log.transactional(id).expect("the disk is well"));
        begin(&producers[0], &[&gone], 1);
        begin(&producers[1], &[&kept], 2);
        // One batch holds both decisions, and nothing that comes after it has the recovery point written down.
        let tickets = producers.each_ref().map(|producer| producer.commit(&[]));
        tickets.iter().for_each(|ticket| ticket.wait().expect("the disk is well"));
        log.delete_topic("gone").expect("the disk is well");
        fixture.disk.crash();
        assert_eq!(values(&fixture.open(), "kept"), [2], "seed {seed}");
    }
}

#[test]
fn what_was_not_synced_goes_as_a_whole_though_a_topic_of_it_is_made_again_as_one_that_is_synced() {
    for seed in 0..200 {
        let fixture = Fixture::with_seed(seed);
        let log = fixture.open();
        let [one, other, gone] = ["one", "other", "gone"].map(|name| partition(&log, name, Durability::Os));
        let producer = log.transactional("alpha").expect("the disk is well");
        commit(&producer, &[&one, &other, &gone], 1).expect("nothing waits for the disk");
        log.delete_topic("gone").expect("the disk is well");
        partition(&log, "gone", Durability::Sync);
        fixture.disk.crash();
        let log = fixture.open();
        assert_eq!(values(&log, "one"), values(&log, "other"), "seed {seed}");
    }
}

/// The first transaction is in a cut, the second is not. Then a cut fails, at its operation of this number. Says
/// whether a sync has.
fn fail_cut(fixture: &Fixture, operation: u64) -> bool {
    let log = fixture.open();
    let pair = Pair::of(&log);
    pair.commit(1);
    fixture.cut(&log);
    pair.commit(2);
    fixture.disk.fail_with(io::ErrorKind::Other, operation);
    let is_cut = log.flush(&[pair.one], SyncPurpose::Records).wait().is_ok();
    fixture.disk.clear_faults();
    fixture.disk.kill();
    let notes = ["one-0", "other-0", "__transaction_state-0"].map(|name| format!("/log/{name}/failed-sync"));
    let has_note =
        notes.iter().any(|note| fixture.disk.exists(PathBuf::from(note).as_path()).expect("readable"));
    assert!(!(is_cut && has_note), "nobody is told that there is a cut");
    has_note
}

#[test]
fn a_sync_that_fails_takes_transactions_back_to_one_moment_everywhere_though_the_machine_stays_up() {
    let mut times = 0;
    for operation in 0..12 {
        let fixture = Fixture::new();
        let has_failed = fail_cut(&fixture, operation);
        times += usize::from(has_failed);
        let expected = if has_failed { vec![1] } else { vec![1, 2] };
        let follower = fixture.follow();
        let log = fixture.open();
        let expected = [expected.clone(), expected];
        assert_eq!(Pair::values(&follower), expected, "as it is followed, operation {operation}");
        assert_eq!(Pair::values(&log), expected, "operation {operation}");
    }
    assert_eq!(times, 3, "the two partitions and the table of transactions");
}

#[test]
fn going_back_after_a_failed_sync_is_finished_by_the_next_to_open_the_log() {
    let mut is_cut_short = true;
    let mut operation = 0;
    while is_cut_short {
        let fixture = Fixture::new();
        assert!((0..12).any(|at| fail_cut(&fixture, at)), "one of them is a sync");
        fixture.disk.fail_after(operation);
        let opened = fixture.try_open();
        is_cut_short = fixture.disk.is_unplugged();
        drop(opened);
        fixture.disk.kill();
        fixture.disk.clear_faults();
        let [one, other] = Pair::values(&fixture.open());
        assert_eq!(one, other, "operation {operation}");
        operation += 1;
    }
    assert!(operation > 20, "recovery was cut short at {operation} operations");
}

#[test]
fn a_repair_of_the_partition_whose_sync_has_failed_keeps_no_other_from_going_back() {
    let mut repaired = Vec::new();
    for operation in 0..12 {
        for topic in ["one", "other"] {
            let fixture = Fixture::new();
            let note = PathBuf::from(format!("/log/{topic}-0/failed-sync"));
            if !fail_cut(&fixture, operation) || !fixture.disk.exists(&note).expect("it is readable") {
                continue;
            }
            // The record of the first transaction, and its marker, were synced.
            let cut = Repair {
                topic: topic.to_owned(),
                partition: PartitionId(0),
                truncate_at: Offset(2),
                dry_run: false,
            };
            let options = LogOptions::manual(fixture.disk.mount(), fixture.clock.clone(), 1);
            Log::repair("/log", &options, &cut).expect("it is sound");
            assert!(!fixture.disk.exists(&note).expect("it is readable"), "the partition is recovered");
            assert_eq!(Pair::values(&fixture.open()), [[1], [1]], "{topic} was cut");
            repaired.push(topic);
        }
    }
    assert_eq!(repaired, ["one", "other"]);
}

/// A log with something that nobody has synced, which an earlier build has written as far as its mark says.
fn untold_log(write: impl FnOnce(&Log)) -> Fixture {
    let fixture = Fixture::new();
    let log = fixture.open();
    write(&log);
    fixture.disk.kill();
    let path = PathBuf::from(MARK);
    let mut bytes = fixture.disk.contents(&path).expect("it was left");
    bytes[..4].copy_from_slice(&1u32.to_be_bytes());
    let (body, checksum) = bytes.split_last_chunk_mut().expect("it has one");
    *checksum = crc32fast::hash(body).to_be_bytes();
    whole_file::replace(&*fixture.disk, &path, &bytes, SyncPurpose::Unsynced).expect("the disk is well");
    fixture
}

fn commit_to_both(log: &Log) {
    Pair::of(log).commit(1);
}

#[test]
fn a_power_cut_over_a_log_whose_decisions_do_not_tell_whether_they_were_synced_is_refused() {
    let fixture = untold_log(commit_to_both);
    fixture.disk.crash();
    let before = fixture.disk.contents(&PathBuf::from(MARK)).expect("it is there");
    let options = || LogOptions::manual(fixture.disk.mount(), fixture.clock.clone(), 1);
    for _ in 0..2 {
        for opened in [Log::open("/log", options()), Log::open_read_only("/log", options())] {
            let error = opened.expect_err("what goes back is not known");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains(MARK), "{error}");
        }
    }
    assert_eq!(fixture.disk.contents(&PathBuf::from(MARK)).expect("it is there"), before);
    fixture.disk.remove_file(&PathBuf::from(MARK)).expect("the disk is well");
    fixture.open();
}

#[test]
fn a_log_without_transactions_opens_after_a_power_cut_whichever_build_has_written_it() {
    let fixture = untold_log(|log| {
        partition(log, "one", Durability::Os).append(batch("1")).expect("the disk is well");
    });
    fixture.disk.crash();
    fixture.open();
}

#[test]
fn a_log_whose_decisions_do_not_tell_whether_they_were_synced_tells_from_the_next_opening_on() {
    let fixture = untold_log(commit_to_both);
    let log = fixture.open();
    assert_eq!(values(&log, "one"), [1]);
    fixture.disk.crash();
    assert_eq!(Pair::values(&fixture.open()), [[1], [1]], "recovery has synced them");
}

#[test]
fn a_log_whose_decisions_do_not_tell_opens_again_once_recovery_has_written_down_what_it_has_made_durable() {
    let mut written_down = 0;
    for operation in 0.. {
        let fixture = untold_log(commit_to_both);
        let before = fixture.disk.sync_count(SyncPurpose::RecoveryPointFile);
        fixture.disk.fail_after(operation);
        let opened = fixture.try_open();
        let is_cut_short = fixture.disk.is_unplugged();
        let is_written_down = fixture.disk.sync_count(SyncPurpose::RecoveryPointFile) > before;
        fixture.disk.crash();
        fixture.disk.clear_faults();
        drop(opened);
        match fixture.try_open() {
            Ok(log) => assert_eq!(Pair::values(&log), [[1], [1]], "operation {operation}"),
            Err(error) if !is_written_down => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
            Err(error) => panic!("operation {operation}: {error}"),
        }
        written_down += usize::from(is_written_down);
        if !is_cut_short {
            break;
        }
    }
    assert!(written_down > 5, "{written_down} times");
}

/// What there is of a transaction over two topics when the power fails between the closing of one and of the other,
/// though the flusher has been at work by then. Before it is committed `spoil` does what it likes.
fn closed_in_part(spoil: impl FnOnce(&Fixture, &Log)) -> [Vec<usize>; 2] {
    let fixture = Fixture::new();
    let interrupting = InterruptingStorage::new(fixture.disk.mount());
    let log = fixture.open_on(interrupting.clone()).expect("the disk is well");
    let often = partition(&log, "often", Durability::Interval(Duration::from_secs(1)));
    let seldom = partition(&log, "seldom", Durability::Os);
    let producer = log.transactional("alpha").expect("the disk is well");
    spoil(&fixture, &log);
    commit(&producer, &[&often, &seldom], 1).expect("nothing waits for the disk");
    drop(producer);
    let (core, clock, disk) = (log.inner.core.clone(), fixture.clock.clone(), fixture.disk.clone());
    // The one is closed, and the other is about to be.
    interrupting.before_create("/log/seldom-0/00000000000000000000.timeindex".into(), move || {
        for _ in 0..3 {
            clock.advance(Duration::from_secs(1));
            while core.flusher.step() {}
        }
        disk.fail_after(0);
    });
    drop(log.close());
    assert!(!interrupting.is_pending(), "it was closed");
    fixture.disk.crash();
    let log = fixture.open();
    ["often", "seldom"].map(|topic| values(&log, topic))
}

#[test]
fn partitions_that_are_closed_one_by_one_count_as_durable_together() {
    let [often, seldom] = closed_in_part(|_, _| ());
    assert_eq!(often, seldom);
}

#[test]
fn what_a_log_that_cannot_take_its_last_cut_syncs_one_by_one_as_it_is_closed_does_not_count() {
    let [often, seldom] = closed_in_part(|fixture, log| {
        let failing = partition(log, "failing", Durability::Os);
        failing.append(batch("1")).expect("the disk is well");
        fixture.disk.fail_with(io::ErrorKind::Other, 0);
        log.flush(&[failing], SyncPurpose::Records).wait().expect_err("its sync fails");
    });
    assert_eq!(often, seldom);
}

#[test]
fn a_partition_that_cannot_be_written_to_holds_up_no_cut_of_the_others() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let kept = partition(&log, "kept", Durability::Sync);
    let pair = Pair::of(&log);
    pair.commit(1);
    let Pair { one, other, producer } = pair;
    fixture.disk.fail_with(io::ErrorKind::StorageFull, 0);
    one.append(batch("9")).expect_err("the disk is full");
    assert!(one.is_poisoned());
    let error = log.flush(&[one], SyncPurpose::Records).wait().expect_err("something is wrong with it");
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    commit(&producer, &[&kept], 2).expect("it stands on what can be synced");
    commit(&producer, &[&other], 3).expect("nothing waits for the disk");
    fixture.cut(&log);
    fixture.disk.crash();
    let log = fixture.open();
    assert_eq!((Pair::values(&log), values(&log, "kept")), ([vec![1], vec![1, 3]], vec![2]));
}

#[test]
fn a_follower_reads_on_with_each_cut_where_a_machine_cannot_tell_one_start_from_the_next() {
    let fixture = Fixture::new();
    fixture.disk.hide_boot_id();
    let log = fixture.open();
    let out = partition(&log, "out", Durability::Os);
    let producer = log.transactional("alpha").expect("the disk is well");
    let follower = fixture.follow();
    let mut seen = Vec::new();
    for value in 0..4 {
        commit(&producer, &[&out], value).expect("nothing waits for the disk");
        follower.refresh().expect("it can be read");
        assert_eq!(values(&follower, "out"), seen, "a power cut may have taken it, for all that is known");
        fixture.cut(&log);
        follower.refresh().expect("it can be read");
        seen.push(value);
        assert_eq!(values(&follower, "out"), seen);
    }
}

#[test]
fn a_log_opens_again_after_a_sync_that_fails_behind_a_cut_which_nobody_knows_to_be_durable() {
    let mut times = 0;
    for operation in 0..12 {
        let fixture = Fixture::new();
        let log = fixture.open();
        let pair = Pair::of(&log);
        pair.commit(1);
        fixture.cut(&log);
        pair.commit(2);
        let Pair { one, other, .. } = pair;
        fixture.disk.fail_with(io::ErrorKind::Other, operation);
        let is_cut = log.flush(std::slice::from_ref(&one), SyncPurpose::Records).wait().is_ok();
        fixture.disk.clear_faults();
        times += usize::from(!is_cut && !one.is_poisoned() && !other.is_poisoned());
        fixture.disk.fail_with(io::ErrorKind::Other, 0);
        drop(log.flush(&[one], SyncPurpose::Records).wait());
        fixture.disk.clear_faults();
        fixture.disk.kill();
        let [one, other] = Pair::values(&fixture.open());
        assert_eq!(one, other, "operation {operation}");
    }
    assert!(times > 0, "a cut failed though all parts of it were synced");
}

#[test]
fn what_recovery_has_ended_stays_as_it_was_ended_though_it_is_cut_short_and_the_next_one_goes_back() {
    for is_power_cut in [false, true] {
        let (mut operation, mut is_cut_short) = (0, true);
        while is_cut_short {
            let fixture = Fixture::with_seed(operation);
            let log = fixture.open();
            let kept = partition(&log, "kept", Durability::Sync);
            let pair = Pair::of(&log);
            pair.commit(1);
            fixture.cut(&log);
            let Pair { one, other, producer } = pair;
            commit(&producer, &[&one, &other, &kept], 2).expect("the disk is well");
            begin(&producer, &[&one, &kept], 3);
            drop(log.flush(&[kept], SyncPurpose::Records).wait());
            if is_power_cut {
                fixture.disk.crash()
            } else {
                fixture.disk.kill()
            }
            fixture.disk.fail_after(operation);
            drop(fixture.try_open());
            is_cut_short = fixture.disk.is_unplugged();
            fixture.disk.crash();
            fixture.disk.clear_faults();
            let log = fixture.open();
            let found = (Pair::values(&log), values(&log, "kept"));
            assert_eq!(found, ([vec![1, 2], vec![1, 2]], vec![2]), "operation {operation}");
            // No epoch is used twice, of which a marker is in one of them.
            let Pair { one, other, producer } = Pair::of(&log);
            let kept = partition(&log, "kept", Durability::Sync);
            for value in 4..8 {
                commit(&producer, &[&one, &other, &kept], value).expect("the disk is well");
            }
            operation += 1;
        }
        assert!(operation > 20, "recovery was cut short at {operation} operations");
    }
}

#[test]
fn what_goes_back_comes_back_no_more_though_recovery_is_killed_twice_before_the_power_fails() {
    let (mut struck, mut is_killed) = (0, true);
    for killed in 0.. {
        if !is_killed {
            break;
        }
        let mut is_cut_short = true;
        // Each operation is struck all the same, and all of it takes a third of the time.
        for cut_short in (killed % 3..).step_by(3) {
            if !is_cut_short {
                break;
            }
            let fixture = Fixture::with_seed(100 * killed + cut_short);
            // A kill is as good as a power cut then, but that it tears nothing.
            fixture.disk.hide_boot_id();
            let log = fixture.open();
            let pair = Pair::of(&log);
            pair.commit(1);
            fixture.cut(&log);
            pair.commit(2);
            fixture.disk.kill();
            fixture.disk.fail_after(killed);
            drop(fixture.try_open());
            is_killed = fixture.disk.is_unplugged();
            fixture.disk.kill();
            fixture.disk.fail_after(cut_short);
            drop(fixture.try_open());
            is_cut_short = fixture.disk.is_unplugged();
            if fixture.disk.contents(&PathBuf::from(MARK)).is_ok() {
                continue;
            }
            fixture.disk.crash();
            fixture.disk.clear_faults();
            let found = Pair::values(&fixture.open());
            assert_eq!(found, [[1], [1]], "killed at {killed}, then cut short at {cut_short}");
            struck += 1;
        }
    }
    assert!(struck > 100, "{struck} times all was taken for durable");
}

#[test]
fn what_recovery_has_kept_behind_a_cut_that_was_in_the_page_cache_only_stays_when_the_power_fails() {
    for seed in 0..20 {
        let fixture = Fixture::with_seed(seed);
        let log = fixture.open();
        let pair = Pair::of(&log);
        pair.commit(1);
        step_all(&log);
        fixture.disk.set_sync_mode(SyncMode::Delayed);
        let flush = log.flush(&[pair.one], SyncPurpose::Records);
        step_all(&log);
        fixture.disk.complete_syncs();
        step_all(&log);
        assert!(flush.outcome().is_none(), "its points are being synced");
        fixture.disk.kill();
        fixture.disk.set_sync_mode(SyncMode::Immediate);
        // It is open when the power fails.
        let log = fixture.open();
        assert_eq!(values(&log, "one"), [1]);
        fixture.disk.crash();
        assert_eq!(Pair::values(&fixture.open()), [[1], [1]], "seed {seed}");
    }
}

#[test]
fn an_entry_of_zeros_that_a_power_cut_leaves_in_a_transaction_index_hides_no_committed_transaction() {
    for seed in 0..100 {
        let fixture = Fixture::with_seed(seed);
        let log = fixture.open();
        let config = TopicConfig { snapshot_interval_bytes: 1, ..TopicConfig::default() };
        let out = log.create_topic("out", config).expect("the disk is well").partitions()[0].clone();
        let producers = ["alpha", "beta"].map(|id| log.transactional(id).expect("the disk is well"));
        for value in 0..3 {
            commit(&producers[0], &[&out], value).expect("the disk is well");
            log.flush(std::slice::from_ref(&out), SyncPurpose::Records).wait().expect("the disk is well");
        }
        begin(&producers[1], &[&out], 9);
        producers[1].abort().expect("the disk is well");
        // The index is written as the sync begins.
        fixture.disk.set_sync_mode(SyncMode::Delayed);
        let flush = log.flush(&[out], SyncPurpose::Records);
        step_all(&log);
        assert!(flush.outcome().is_none(), "its sync takes its time");
        fixture.disk.crash();
        fixture.disk.set_sync_mode(SyncMode::Immediate);
        assert_eq!(values(&fixture.open(), "out"), [0, 1, 2], "seed {seed}");
    }
}
