//! A group is joined, its offsets are committed, plainly and in transactions, reset, deleted, and expire; and all
//! of it is cut off at every operation, by a kill and by a power cut.
//!
//! A model knows what has been committed: where a call has returned that, and where it was cut off that or what
//! was there before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::tests::{options, tp};
use super::*;
use crate::batch::{BatchBuilder, Compression};
use crate::clock::ManualClock;
use crate::consumer::Consumer;
use crate::error::{ErrorKind, Result};
use crate::log::{Log, LogOptions};
use crate::partition::Durability;
use crate::record::{Offset, Timestamp};
use crate::storage::SyncPurpose;
use crate::storage::memory::MemoryStorage;
use crate::topic::TopicConfig;
use crate::transaction::TransactionOptions;

const MEMBERS: &str = "members";
const BY_HAND: &str = "by hand";
const LATER: &str = "later";
const GROUPS: [&str; 3] = [MEMBERS, BY_HAND, LATER];

/// What is done, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Join,
    Commit,
    CommitInTransaction,
    AbortTransaction,
    CommitByHand,
    Reset,
    DeleteOffsets,
    Leave,
    CommitLater,
    /// All but what was committed later.
    Expire,
}

const SCRIPT: [Step; 10] = [
    Step::Join,
    Step::Commit,
    Step::CommitInTransaction,
    Step::AbortTransaction,
    Step::CommitByHand,
    Step::Reset,
    Step::DeleteOffsets,
    Step::Leave,
    Step::CommitLater,
    Step::Expire,
];

/// What each group has committed, by partition.
type Offsets = BTreeMap<i32, i64>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model(BTreeMap<&'static str, Offsets>);

impl Model {
    fn set(&mut self, group: &'static str, offsets: [(i32, i64); 2]) {
        self.0.entry(group).or_default().extend(offsets);
    }

    /// What is so once a step is done.
    fn after(mut self, step: Step) -> Self {
        match step {
            Step::Join | Step::AbortTransaction | Step::Leave => {}
            Step::Commit => self.set(MEMBERS, [(0, 2), (1, 1)]),
            Step::CommitInTransaction => self.set(MEMBERS, [(0, 3), (1, 4)]),
            Step::CommitByHand => self.set(BY_HAND, [(0, 1), (1, 2)]),
            Step::Reset => self.set(BY_HAND, [(0, 2), (1, 3)]),
            Step::DeleteOffsets => drop(self.0.entry(BY_HAND).or_default().remove(&1)),
            Step::CommitLater => self.set(LATER, [(0, 4), (1, 4)]),
            Step::Expire => self.0.retain(|group, _| *group == LATER),
        }
        self
    }

    fn of(&self, group: &str) -> Offsets {
        self.0.get(group).cloned().unwrap_or_default()
    }
}

/// How the process ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Kill,
    PowerCut,
}

struct World {
    storage: Arc<MemoryStorage>,
    clock: Arc<ManualClock>,
    log: Log,
    member: Option<Consumer>,
    /// Of the member, once something was committed in it.
    generation: i32,
}

fn offsets(all: [(i32, i64); 2]) -> [(crate::record::TopicPartition, crate::consumer::OffsetAndMetadata); 2] {
    all.map(|(partition, offset)| (tp(partition), Offset(offset).into()))
}

impl World {
    fn new(seed: u64) -> Self {
        let (storage, clock) = (MemoryStorage::new(seed), ManualClock::new());
        let log = open(&storage, &clock);
        let config = TopicConfig { partitions: 2, ..TopicConfig::default() };
        let topic = log.create_topic("in", config).expect("a new topic");
        for partition in topic.partitions() {
            let mut builder = BatchBuilder::new(Compression::None);
            (0..4).for_each(|_| builder.push(Timestamp(0), None, Some(b"v"), &[]).expect("fits"));
            partition.append(builder.seal()).expect("appended");
        }
        log.flush(topic.partitions(), SyncPurpose::Records).wait().expect("synced");
        Self { storage, clock, log, member: None, generation: 0 }
    }

    fn take(&mut self, step: Step) -> Result<()> {
        let retention = GroupOptions::default().offsets_retention;
        match step {
            Step::Join => self.join(),
            Step::Commit => {
                let member = self.member.as_mut().expect("it has joined");
                member.commit_offsets(&offsets([(0, 2), (1, 1)]))?;
                self.generation = generation(member);
                Ok(())
            }
            Step::CommitInTransaction => self.transact([(0, 3), (1, 4)], true),
            Step::AbortTransaction => self.transact([(0, 4), (1, 0)], false),
            Step::CommitByHand => self.commit_by_hand(BY_HAND, [(0, 1), (1, 2)]),
            Step::Reset => self.log.reset_offsets(BY_HAND, &[tp(0), tp(1)], ResetTo::ShiftBy(1)).map(drop),
            Step::DeleteOffsets => self.log.delete_offsets(BY_HAND, &[tp(1)]),
            Step::Leave => {
                self.member = None;
                Ok(())
            }
            Step::CommitLater => {
                self.clock.advance(retention / 2);
                self.commit_by_hand(LATER, [(0, 4), (1, 4)])
            }
            Step::Expire => {
                self.clock.advance(retention / 2);
                self.settle();
                // Of a group that is forgotten generations are counted anew.
                self.generation = 0;
                Ok(())
            }
        }
    }

    fn join(&mut self) -> Result<()> {
        let mut member = Consumer::new(&self.log, options(MEMBERS))?;
        member.subscribe(&["in"])?;
        member.poll(|_, _| ControlFlow::Break(()))?;
        self.member = Some(member);
        Ok(())
    }

    fn transact(&self, sent: [(i32, i64); 2], commits: bool) -> Result<()> {
        let member = self.member.as_ref().expect("it has joined").group_metadata()?;
        let producer = self.log.transactional_with("id", TransactionOptions { timeout: None })?;
        producer.begin()?;
        producer.send_offsets_to_transaction(&offsets(sent), &member)?;
        if commits { producer.commit(&[]).wait() } else { producer.abort() }
    }

    fn commit_by_hand(&self, group: &str, committed: [(i32, i64); 2]) -> Result<()> {
        let mut consumer = Consumer::new(&self.log, options(group))?;
        consumer.assign(&[tp(0), tp(1)])?;
        consumer.commit_offsets(&offsets(committed))
    }

    fn settle(&self) {
        while self.log.step().is_ok_and(|is_more| is_more) {}
    }

    /// The process ends, and another one begins.
    fn end(self, ending: Ending) -> Self {
        let Self { storage, clock, log, member, generation } = self;
        storage.clear_faults();
        match ending {
            Ending::Kill => storage.kill(),
            Ending::PowerCut => storage.crash(),
        }
        drop((member, log));
        let log = open(&storage, &clock);
        Self { storage, clock, log, member: None, generation }
    }

    fn committed(&self) -> BTreeMap<&'static str, Offsets> {
        let read = CommittedOffsets::read(&self.log).expect("readable");
        let of = |group| read.group(group).map(|(name, at)| (name.partition.0, at.offset.0)).collect();
        GROUPS.into_iter().map(|group| (group, of(group))).collect()
    }
}

fn open(storage: &Arc<MemoryStorage>, clock: &Arc<ManualClock>) -> Log {
    let options = LogOptions::manual(storage.mount(), clock.clone(), 7);
    Log::open("/log", options).expect("what was synced is there")
}

fn generation(consumer: &Consumer) -> i32 {
    let metadata = consumer.group_metadata().expect("a group");
    metadata.member.expect("it is a member").generation
}

/// Cuts the script off at an operation; says whether it was.
fn check(seed: u64, operation: u64, ending: Ending) -> bool {
    let what = format!("seed {seed}, operation {operation}, {ending:?}");
    let mut world = World::new(seed);
    let (mut before, mut after) = (Model::default(), Model::default());
    world.storage.fail_after(operation);
    for step in SCRIPT {
        let outcome = world.take(step);
        let is_cut_off = world.storage.is_unplugged();
        assert!(outcome.is_ok() || is_cut_off, "{what}, {step:?}: {outcome:?}");
        after = before.clone().after(step);
        // Nobody is told of what expires.
        if outcome.is_ok() && (step != Step::Expire || !is_cut_off) {
            before = after.clone();
        }
        if is_cut_off {
            break;
        }
    }
    let is_cut_off = world.storage.is_unplugged();
    let stale = world.member.as_ref().map(|member| member.group_metadata().expect("a group"));

    let world = world.end(ending);
    let found = world.committed();
    for (group, offsets) in &found {
        let is_expected = *offsets == before.of(group) || *offsets == after.of(group);
        assert!(is_expected, "{what}: {group} has {offsets:?}, and not as in {before:?} or {after:?}");
    }
    if let Some(stale) = stale {
        let checked = world.log.group_coordinator().check_committer(&stale);
        assert_eq!(checked.expect_err("it is gone").kind(), ErrorKind::Fenced, "{what}");
    }
    // What somebody has read stays, and whoever comes next goes on from it, in a generation of its own.
    let mut world = world.end(Ending::PowerCut);
    assert_eq!(world.committed(), found, "{what}");
    world.join().expect("nothing fails any more");
    let member = world.member.as_mut().expect("it has joined");
    assert!(generation(member) > world.generation, "{what}: {}", generation(member));
    let at = |partition| found[MEMBERS].get(&partition).copied().unwrap_or(0);
    let committed = |partition| member.committed(&tp(partition)).expect("readable");
    let committed = |partition| committed(partition).map_or(0, |committed| committed.offset.0);
    assert_eq!([committed(0), committed(1)], [at(0), at(1)], "{what}");
    member.commit_offsets(&offsets([(0, 4), (1, 4)])).expect("nothing fails any more");
    let world = world.end(Ending::PowerCut);
    assert_eq!(world.committed()[MEMBERS], Offsets::from([(0, 4), (1, 4)]), "{what}");

    // In the end all of it expires, and nothing comes back.
    world.clock.advance(2 * GroupOptions::default().offsets_retention);
    world.settle();
    let world = world.end(Ending::PowerCut);
    assert!(world.committed().values().all(Offsets::is_empty), "{what}: {:?}", world.committed());
    is_cut_off
}

/// What somebody has committed and not synced yet is not shown before it outlives a power cut.
pub(crate) fn check_seen(seed: u64) {
    let world = World::new(seed);
    let committer = Consumer::new(&world.log, options(BY_HAND)).expect("a group");
    let group = committer.group_metadata().expect("a group");
    let topic_id = world.log.topic("in").expect("it is there").id();
    let commit = OffsetCommit { partition: tp(0), topic_id, offset: Offset(2), metadata: String::new() };
    let committed = world.log.group_coordinator().commit(&world.log, &group, &[commit]);
    committed.expect("nothing fails");
    let other = Consumer::new(&world.log, options(BY_HAND)).expect("a group");
    let seen = other.committed(&tp(0)).expect("readable").map(|committed| committed.offset.0);
    assert_eq!(seen, Some(2));
    drop((committer, other));
    let world = world.end(Ending::PowerCut);
    assert_eq!(world.committed()[BY_HAND].get(&0).copied(), seen, "it was shown");
}

#[test]
fn offsets_that_were_shown_outlive_a_power_cut() {
    (0..20).for_each(check_seen);
}

/// What nobody had synced is, before a group has committed that it was read, or is set behind it.
pub(crate) fn check_read(seed: u64) {
    let (storage, clock) = (MemoryStorage::new(seed), ManualClock::new());
    let log = open(&storage, &clock);
    let durability = Some(Durability::Os);
    let topic = log.create_topic("in", TopicConfig { durability, ..TopicConfig::default() });
    let partition = topic.expect("a new topic").partitions()[0].clone();
    let mut consumer = Consumer::new(&log, options(BY_HAND)).expect("a group");
    consumer.assign(&[tp(0)]).expect("it is there");
    consumer.commit_offsets(&[(tp(0), Offset(0).into())]).expect("nothing fails");
    let mut builder = BatchBuilder::new(Compression::None);
    (0..4).for_each(|_| builder.push(Timestamp(0), None, Some(b"v"), &[]).expect("fits"));
    partition.append(builder.seal()).expect("appended");
    if seed.is_multiple_of(2) {
        consumer.commit_offsets(&[(tp(0), Offset(4).into())]).expect("nothing fails");
    } else {
        log.reset_offsets(BY_HAND, &[tp(0)], ResetTo::ShiftBy(4)).expect("nothing fails");
    }
    storage.crash();
    drop((log, consumer, partition));
    let log = open(&storage, &clock);
    let end = log.topic("in").expect("it is there").partitions()[0].offsets().end;
    let read = CommittedOffsets::read(&log).expect("readable");
    assert_eq!((read.get(BY_HAND, &tp(0)).map(|at| at.offset), end), (Some(Offset(4)), Offset(4)));
}

#[test]
fn no_group_is_behind_the_end_of_what_it_reads_after_a_power_cut() {
    (0..20).for_each(check_read);
}

/// One power cut in the script.
pub(crate) fn check_script(seed: u64) {
    check(seed, seed % 120, Ending::PowerCut);
}

#[test]
fn wherever_a_group_is_cut_off_it_has_committed_what_was_said_or_what_it_had_before() {
    for (ending, seed) in [(Ending::Kill, 1), (Ending::PowerCut, 2), (Ending::PowerCut, 3)] {
        let operations = (0..).take_while(|operation| check(seed, *operation, ending)).count();
        assert!(operations > 40, "{operations} operations");
    }
}
