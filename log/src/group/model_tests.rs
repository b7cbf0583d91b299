//! A group against what is promised of it, whatever its members, its topics and the disk do.
//!
//! A script, drawn from a seed, lets members join, some of them static ones, leave, poll, commit what they
//! have processed and oversleep; records come in; partitions and topics are added, topics deleted and made again;
//! offsets are set back; the power is cut and the log opened again. All along:
//!
//! - in one generation a partition has one owner, and of two who have it one is refused;
//! - what is committed never goes back but by a reset, and never beyond what somebody has processed;
//! - who speaks of an earlier generation is refused.
//!
//! In the end everything that there is has been processed and is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::batch::{BatchBuilder, Compression};
use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::{Error, ErrorKind};
use crate::log::Log;
use crate::record::{Offset, PartitionId, Timestamp, TopicId, TopicPartition};
use crate::storage::SyncPurpose;
use crate::test_log::TestLog;

const STEPS: usize = 200;
const MEMBERS_MAX: usize = 4;
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
const TOPICS: [&str; 3] = ["in-a", "in-b", "in-c"];

/// A partition of one particular topic.
type Place = (TopicId, PartitionId);

struct World {
    seed: u64,
    rng: ChaCha8Rng,
    log: Option<TestLog>,
    assignor: Assignor,
    members: Vec<Consumer>,
    /// Who has had each partition in each generation since the log was opened; see [`name`].
    owners: BTreeMap<(i32, TopicPartition), String>,
    /// What members have said to be since the log was opened.
    identities: Vec<MemberGeneration>,
    processed: BTreeMap<Place, BTreeSet<i64>>,
    committed: BTreeMap<Place, Offset>,
    /// Whether something may fail: the plug is about to be pulled.
    may_fail: bool,
    lives: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let assignor = Assignor::ALL[rng.random_range(0..Assignor::ALL.len())];
        let log = TestLog::crashing(seed);
        log.create_topic(TOPICS[0], 2);
        Self {
            seed,
            rng,
            log: Some(log),
            assignor,
            members: Vec::new(),
            owners: BTreeMap::new(),
            identities: Vec::new(),
            processed: BTreeMap::new(),
            committed: BTreeMap::new(),
            may_fail: false,
            lives: 0,
        }
    }

    fn log(&self) -> &TestLog {
        self.log.as_ref().expect("it is open between two steps")
    }

    fn tolerate(&self, error: &Error) {
        assert!(self.may_fail, "seed {}: {error:?}", self.seed);
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.members.is_empty()).then(|| self.rng.random_range(0..self.members.len()))
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..9 => {
                let instance = self.rng.random_range(0..5);
                self.join((instance < 2).then(|| format!("static-{instance}")));
            }
            9..12 => self.leave(),
            12..52 => self.poll(),
            52..66 => self.commit(),
            66..80 => self.produce(),
            80..84 => self.log().clock.advance(POLL_INTERVAL_MAX / 3),
            84..87 => self.change_topics(),
            87..90 => self.set_back(),
            90..91 => self.pull_plug(),
            91..92 => self.restart(),
            _ => while self.log().step().expect("open") {},
        }
        self.check();
    }

    fn join(&mut self, instance_id: Option<String>) {
        if self.members.len() == MEMBERS_MAX {
            return;
        }
        let options = ConsumerOptions {
            group: Some("g".to_owned()),
            assignor: self.assignor,
            poll_interval_max: POLL_INTERVAL_MAX,
            instance_id,
            auto_commit: self.rng.random_ratio(1, 3).then_some(POLL_INTERVAL_MAX / 4),
            session_timeout: SESSION_TIMEOUT,
            fetch_bytes_max: 1,
            ..ConsumerOptions::default()
        };
        let mut consumer = Consumer::new(self.log(), options).expect("a consumer");
        let subscribed = match self.rng.random_range(0..3) {
            0 => consumer.subscribe(&TOPICS),
            1 => consumer.subscribe(&TOPICS[..1]),
            _ => consumer.subscribe_pattern("in-.*"),
        };
        subscribed.expect("possible");
        self.members.push(consumer);
    }

    fn leave(&mut self) {
        if let Some(place) = self.pick() {
            let gone = self.members.remove(place);
            // A static member that is away may still be spoken for.
            if let Some(member) = gone.group_metadata().expect("a group").member {
                self.identities
                    .retain(|identity| !member.id.starts_with("static") || identity.id != member.id);
            }
        }
    }

    fn place(&self, name: &TopicPartition) -> Option<Place> {
        let topic = self.log().topic(&name.topic).ok()?;
        Some((topic.id(), name.partition))
    }

    /// Polls one, processes what it gives, and may commit that.
    fn poll(&mut self) {
        let Some(place) = self.pick() else { return };
        let mut given = Vec::new();
        let polled = self.members[place].poll(|partition, record| {
            given.push((partition.clone(), record.offset.0));
            ControlFlow::Continue(())
        });
        for (name, offset) in given {
            let place = self.place(&name).expect("what is read is there");
            self.processed.entry(place).or_default().insert(offset);
        }
        match polled {
            // Another one has its name.
            Err(error) if error.kind() == ErrorKind::Fenced => {}
            Err(error) => self.tolerate(&error),
            Ok(_) => self.note_owners(place),
        }
    }

    fn note_owners(&mut self, place: usize) {
        let consumer = &self.members[place];
        let metadata = consumer.group_metadata().expect("a group");
        let Some(member) = metadata.member.filter(|member| member.generation >= 0) else { return };
        for name in consumer.assignment() {
            let key = (member.generation, name.clone());
            let owner = self.owners.entry(key).or_insert_with(|| self::name(&member.id));
            let generation = member.generation;
            assert_eq!(
                *owner,
                self::name(&member.id),
                "seed {}: {name} in generation {generation}",
                self.seed
            );
        }
        if !self.identities.contains(&member) {
            self.identities.push(member);
        }
    }

    fn commit(&mut self) {
        let Some(place) = self.pick() else { return };
        match self.members[place].commit() {
            Ok(()) => {}
            // It is told to poll first, or is no member any more.
            Err(error) if matches!(error.kind(), ErrorKind::Retry | ErrorKind::Fenced) => {}
            // A topic was deleted that it has read.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.tolerate(&error),
        }
    }

    fn produce(&mut self) {
        let topics: Vec<_> =
            self.log().topics().into_iter().filter(|topic| !topic.name().starts_with("__")).collect();
        if topics.is_empty() {
            return;
        }
        let topic = &topics[self.rng.random_range(0..topics.len())];
        let partition = &topic.partitions()[self.rng.random_range(0..topic.partitions().len())];
        for _ in 0..self.rng.random_range(1..4) {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(Timestamp(0), None, Some(b"v"), &[]).expect("fits");
            if let Err(error) = partition.append(builder.seal()) {
                self.tolerate(&error);
            }
        }
        if let Err(error) = self.log().flush(std::slice::from_ref(partition), SyncPurpose::Records).wait() {
            self.tolerate(&error);
        }
    }

    fn change_topics(&mut self) {
        let name = TOPICS[self.rng.random_range(0..TOPICS.len())];
        let changed = match self.log().topic(name) {
            Err(_) => {
                let config = crate::TopicConfig { partitions: 2, ..crate::TopicConfig::default() };
                Log::create_topic(self.log(), name, config).map(drop)
            }
            Ok(topic) if topic.config().partitions < 5 => {
                self.log().alter_topic(name, |config| config.partitions += 1).map(drop)
            }
            Ok(_) => self.log().delete_topic(name),
        };
        if let Err(error) = changed {
            self.tolerate(&error);
        }
    }

    /// Sets offsets back; members refuse that.
    fn set_back(&mut self) {
        let Ok(group) = self.log().group("g") else { return };
        let there: Vec<_> =
            group.partitions.iter().filter(|one| one.end.is_some() && one.committed.is_some()).collect();
        let names: Vec<_> = there.into_iter().map(|one| one.partition.clone()).collect();
        let reset = self.log().reset_offsets("g", &names, ResetTo::ShiftBy(-2));
        match reset {
            Ok(resets) => {
                assert!(resets.is_empty() || group.members.is_empty(), "seed {}: it has members", self.seed);
                for reset in resets {
                    let place = self.place(&reset.partition).expect("it is there");
                    self.committed.insert(place, reset.after);
                }
            }
            Err(error) if error.kind() == ErrorKind::Locked => {}
            Err(error) => {
                self.tolerate(&error);
                // It may have been written, or not.
                self.committed.clear();
            }
        }
    }

    fn pull_plug(&mut self) {
        let operations = self.rng.random_range(0..12);
        self.log().pull_plug_after(operations);
        self.may_fail = true;
        for _ in 0..6 {
            match self.rng.random_range(0..4) {
                0 => self.poll(),
                1 => self.commit(),
                2 => self.produce(),
                _ => self.change_topics(),
            }
        }
        self.restart();
    }

    /// The power is cut, and with the process its members are gone.
    fn restart(&mut self) {
        self.may_fail = true;
        self.members.clear();
        let log = self.log.take().expect("it is open between two steps");
        self.log = Some(log.crash());
        self.owners.clear();
        self.identities.clear();
        self.may_fail = false;
        self.lives += 1;
    }

    fn check(&mut self) {
        self.check_committed();
        self.check_fencing();
    }

    fn check_committed(&mut self) {
        let offsets = CommittedOffsets::read(self.log()).expect("readable");
        for (name, committed) in offsets.group("g") {
            let Some(place) = self.place(name).filter(|place| committed.topic_id == Some(place.0)) else {
                continue;
            };
            let (seed, offset) = (self.seed, committed.offset);
            let before = self.committed.insert(place, offset).unwrap_or(Offset(0));
            assert!(before <= offset, "seed {seed}: {name} went back from {before} to {offset}");
            let processed = self.processed.get(&place);
            let skipped = (0..offset.0).find(|at| !processed.is_some_and(|processed| processed.contains(at)));
            assert_eq!(skipped, None, "seed {seed}: {name} is committed up to {offset}");
        }
    }

    /// Of those who have a partition, all but one were removed. Who was, and who speaks of an earlier
    /// generation, is refused.
    fn check_fencing(&mut self) {
        let coordinator = self.log().group_coordinator();
        let group = "g".to_owned();
        let is_fenced = |member: &MemberGeneration| {
            let metadata = ConsumerGroupMetadata { group: group.clone(), member: Some(member.clone()) };
            let checked = coordinator.check_committer(&metadata);
            checked.is_err_and(|error| error.kind() == ErrorKind::Fenced)
        };
        let mut owners = BTreeMap::<&TopicPartition, usize>::new();
        for consumer in &self.members {
            let Some(member) = consumer.group_metadata().expect("a group").member else { continue };
            if is_fenced(&member) {
                continue;
            }
            for name in consumer.assignment() {
                *owners.entry(name).or_default() += 1;
            }
        }
        assert!(owners.values().all(|count| *count == 1), "seed {}: {owners:?}", self.seed);
        let present: Vec<_> = self
            .members
            .iter()
            .filter_map(|consumer| consumer.group_metadata().expect("a group").member)
            .collect();
        for identity in self.identities.iter().filter(|identity| !present.contains(identity)) {
            assert!(is_fenced(identity), "seed {}: {identity:?} is not fenced", self.seed);
        }
    }

    /// Members of all topics settle, and read and commit everything.
    fn finish(&mut self) {
        self.members.clear();
        // Static members do not come back.
        self.log().clock.advance(SESSION_TIMEOUT + Duration::from_millis(1));
        for _ in 0..3 {
            self.join(None);
            let last = self.members.last_mut().expect("there is room for three");
            last.subscribe(&TOPICS).expect("possible");
        }
        for _ in 0..200 {
            for place in 0..self.members.len() {
                let (members, log) = (&mut self.members, self.log.as_ref().expect("open"));
                let processed = &mut self.processed;
                let polled = members[place].poll(|name, record| {
                    let topic = log.topic(&name.topic).expect("it is there");
                    processed.entry((topic.id(), name.partition)).or_default().insert(record.offset.0);
                    ControlFlow::Continue(())
                });
                polled.expect("nothing fails any more");
                self.note_owners(place);
                self.commit();
            }
        }
        for consumer in &mut self.members {
            consumer.commit().expect("the group is stable");
        }
        self.check();
        let mut assigned: Vec<_> = self
            .members
            .iter()
            .flat_map(|consumer| consumer.assignment().cloned().collect::<Vec<_>>())
            .collect();
        assigned.sort_unstable();
        let topics = self.log().topics().into_iter().filter(|topic| !topic.name().starts_with("__"));
        let all: Vec<_> = topics.flat_map(|topic| topic.partitions().to_vec()).collect();
        let names: Vec<_> = all.iter().map(|partition| partition.name().clone()).collect();
        assert_eq!(assigned, names, "seed {}", self.seed);
        for partition in all {
            let end = partition.offsets().end;
            let committed = CommittedOffsets::read(self.log()).expect("readable");
            let committed = committed.get("g", partition.name()).map_or(Offset(0), |one| one.offset);
            assert_eq!(committed, end, "seed {}: {}", self.seed, partition.name());
        }
    }
}

/// Who a member is: a static one is who it was before, whatever its id.
fn name(id: &str) -> String {
    let instance = id.starts_with("static-").then(|| id.rsplit_once('-')).flatten();
    instance.map_or(id, |(instance, _)| instance).to_owned()
}

#[test]
fn whatever_happens_a_partition_has_one_owner_and_nothing_is_skipped_or_taken_back() {
    let (mut lives, mut generations) = (0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
        lives += world.lives;
        generations += world.log().group("g").expect("known").generation;
    }
    assert!(lives > 60 && generations > 300, "the scripts are worth it: {lives} {generations}");
}
