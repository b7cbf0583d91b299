//! Groups as others see and change them, and what becomes of their offsets in the course of time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::batch::{BatchBuilder, Compression, SealedBatch};
use crate::clock::ManualClock;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::{ErrorKind, Result};
use crate::log::{Log, LogOptions};
use crate::record::{Offset, PartitionId, Timestamp, TopicPartition};
use crate::spawn::Drive;
use crate::storage::SyncPurpose;
use crate::storage::memory::MemoryStorage;
use crate::test_log::TestLog;
use crate::topic::TopicConfig;
use crate::transaction::{TransactionOptions, TransactionalProducer};

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("in", PartitionId(partition))
}

/// A topic of two partitions with four records each, the records of partition 0 a second apart.
pub(super) fn setup() -> TestLog {
    let log = TestLog::new(Drive::Manual);
    let topic = log.create_topic("in", 2);
    for partition in topic.partitions() {
        let mut builder = BatchBuilder::new(Compression::None);
        for number in 0..4 {
            let time = Timestamp(1000 * number * i64::from(partition.name().partition.0 == 0));
            builder.push(time, None, Some(b"v"), &[]).expect("fits");
        }
        partition.append(builder.seal()).expect("appended");
    }
    log.flush(topic.partitions(), SyncPurpose::Records).wait().expect("synced");
    log
}

pub(super) fn options(group: &str) -> ConsumerOptions {
    ConsumerOptions {
        group: Some(group.to_owned()),
        poll_interval_max: 1000 * DAY,
        client_id: "shop".to_owned(),
        ..ConsumerOptions::default()
    }
}

pub(super) fn commit(log: &Log, group: &str, offsets: &[(i32, i64)]) {
    let names: Vec<_> = offsets.iter().map(|(partition, _)| tp(*partition)).collect();
    let mut consumer = Consumer::new(log, options(group)).expect("a consumer");
    consumer.assign(&names).expect("there");
    let offsets: Vec<_> =
        offsets.iter().map(|(partition, offset)| (tp(*partition), Offset(*offset).into())).collect();
    consumer.commit_offsets(&offsets).expect("committed");
}

pub(super) fn member(log: &TestLog, group: &str) -> Consumer {
    let mut consumer = Consumer::new(log, options(group)).expect("a consumer");
    consumer.subscribe(&["in"]).expect("subscribed");
    consumer.poll(|_, _| ControlFlow::Break(())).expect("readable");
    consumer
}

pub(super) fn committed(log: &Log, group: &str) -> Vec<(i32, i64)> {
    let offsets = CommittedOffsets::read(log).expect("readable");
    let mut committed: Vec<_> =
        offsets.group(group).map(|(name, committed)| (name.partition.0, committed.offset.0)).collect();
    committed.sort_unstable();
    committed
}

/// A partition, what was committed for it, its end, and the lag.
type Row = (i32, Option<i64>, Option<i64>, Option<u64>);

fn partitions(log: &TestLog, group: &str) -> Vec<Row> {
    let description = log.group(group).expect("known");
    let row = |one: &GroupPartition| {
        let committed = one.committed.as_ref().map(|committed| committed.offset.0);
        (one.partition.partition.0, committed, one.end.map(|end| end.0), one.lag())
    };
    description.partitions.iter().map(row).collect()
}

#[test]
fn a_group_is_described_with_its_members_offsets_and_lag() {
    let log = setup();
    assert_eq!(log.groups().expect("readable"), []);
    assert_eq!(log.group("g").expect_err("unknown").kind(), ErrorKind::NotFound);
    commit(&log, "g", &[(0, 1)]);
    commit(&log, "by hand", &[(1, 4)]);
    let names: Vec<_> = log.groups().expect("readable").into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["by hand", "g"]);
    assert_eq!(partitions(&log, "g"), [(0, Some(1), Some(4), Some(3))]);
    let group = log.group("g").expect("known");
    assert_eq!((group.state, group.generation, group.lag()), (GroupState::Empty, 0, 3));
    assert_eq!((group.assignor, group.members), (None, vec![]));

    let consumer = member(&log, "g");
    let group = log.group("g").expect("known");
    assert_eq!((group.state, group.generation), (GroupState::Stable, 1));
    assert_eq!(group.assignor.as_deref(), Some("cooperative-sticky"));
    let [only] = &group.members[..] else { panic!("one member: {group:?}") };
    assert_eq!((only.client_id.as_str(), &only.partitions), ("shop", &vec![tp(0), tp(1)]));
    assert!(only.id.starts_with("shop-"), "{}", only.id);
    assert_eq!(
        partitions(&log, "g"),
        [(0, Some(1), Some(4), Some(3)), (1, None, Some(4), None)],
        "what is assigned too"
    );
    assert!(group.partitions.iter().all(|one| one.member.as_ref() == Some(&only.id)));
    drop(consumer);
    let group = log.group("g").expect("known");
    assert_eq!((group.state, group.generation), (GroupState::Empty, 2));
}

#[test]
fn a_group_of_a_topic_that_is_gone_or_was_made_again_has_no_lag() {
    let log = setup();
    let topic_id = log.topic("in").expect("made").id();
    log.delete_topic("in").expect("deleted");
    // By somebody who has not noticed yet.
    let commit = |partition, offset| OffsetCommit {
        partition: tp(partition),
        topic_id,
        offset: Offset(offset),
        metadata: String::new(),
    };
    let commits = [commit(0, 1), commit(1, 2)];
    let coordinator = log.group_coordinator();
    let home = coordinator.commit(&log, &ConsumerGroupMetadata::new("g"), &commits).expect("appended");
    log.flush(&[home], SyncPurpose::Records).wait().expect("synced");
    assert_eq!(partitions(&log, "g"), [(0, Some(1), None, None), (1, Some(2), None, None)]);
    log.create_topic("in", 1);
    assert_eq!(partitions(&log, "g"), [(0, None, Some(0), None), (1, Some(2), None, None)]);
}

#[test]
fn no_negative_offset_is_committed_and_whoever_tries_is_told_of_which_partition() {
    let log = setup();
    commit(&log, "g", &[(0, 1), (1, 0)]);
    let mut consumer = Consumer::new(&log, options("g")).expect("a consumer");
    consumer.assign(&[tp(0), tp(1)]).expect("there");
    let offsets = [(tp(0), Offset(2).into()), (tp(1), Offset(-3).into())];
    let is_refused = |outcome: Result<()>| {
        let error = outcome.expect_err("no record has it");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("group g, in-1: offset -3"), "{error}");
    };
    is_refused(consumer.commit_offsets(&offsets));

    let producer = log.transactional("t").expect("it is free");
    producer.begin().expect("none is open");
    let group = ConsumerGroupMetadata::new("g");
    is_refused(producer.send_offsets_to_transaction(&offsets, &group));
    producer.abort().expect("aborted");
    // Kafka's tools too go to where the partition begins.
    log.reset_offsets("h", &[tp(0)], ResetTo::Offset(Offset(-3))).expect("reset");
    assert_eq!(committed(&log, "h"), [(0, 0)]);
    assert_eq!(committed(&log, "g"), [(0, 1), (1, 0)], "none of those that it was with");
}

/// The batch that commits any offset at all, as other software may.
pub(crate) fn any_commit(group: &str, name: &TopicPartition, offset: i64) -> SealedBatch {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    format::Key { group, topic: &name.topic, partition: name.partition }.encode(&mut key);
    let committed = format::Value {
        offset: Offset(offset),
        leader_epoch: None,
        topic_id: None,
        committed_at: Timestamp(0),
        metadata: "",
    };
    committed.encode(&mut value);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), Some(&key), Some(&value), &[]).expect("fits");
    builder.seal()
}

#[test]
fn however_far_off_what_other_software_has_committed_is_there_is_a_lag() {
    let log = setup();
    let home = offsets_partition(&log).expect("made");
    for (partition, offset) in [(0, i64::MIN), (1, i64::MAX)] {
        home.append(any_commit("g", &tp(partition), offset)).expect("appended");
    }
    log.flush(&[home], SyncPurpose::Records).wait().expect("synced");
    let lag = i64::MAX as u64;
    let expected = [(0, Some(i64::MIN), Some(4), Some(lag)), (1, Some(i64::MAX), Some(4), Some(0))];
    assert_eq!(partitions(&log, "g"), expected);
    assert_eq!(log.group("g").expect("known").lag(), lag);
    let mut consumer = Consumer::new(&log, options("g")).expect("a consumer");
    consumer.assign(&[tp(0), tp(1)]).expect("there");
    assert_eq!(consumer.lag(), lag);
    let mut group = log.group("g").expect("known");
    let behind = group.partitions[0].clone();
    group.partitions = vec![behind; 3];
    assert_eq!(group.lag(), u64::MAX);
}

#[test]
fn offsets_are_reset_to_places_within_the_partition() {
    let log = setup();
    log.delete_records("in", PartitionId(0), Offset(1)).expect("deleted");
    commit(&log, "g", &[(0, 2)]);
    let plan = |to| {
        let planned = log.plan_offset_reset("g", &[tp(0)], to).expect("possible").remove(0);
        assert_eq!(planned.before, Some(Offset(2)));
        planned.after.0
    };
    assert_eq!(plan(ResetTo::Earliest), 1);
    assert_eq!(plan(ResetTo::Latest), 4);
    assert_eq!([0, 1, 3, 4, 9].map(|offset| plan(ResetTo::Offset(Offset(offset)))), [1, 1, 3, 4, 4]);
    assert_eq!([-1, 1500, 3000, 3001].map(|time| plan(ResetTo::Time(Timestamp(time)))), [1, 2, 3, 4]);
    assert_eq!([-9, -1, 0, 1, i64::MAX].map(|by| plan(ResetTo::ShiftBy(by))), [1, 1, 2, 3, 4]);
    assert_eq!(committed(&log, "g"), [(0, 2)], "planning changes nothing");

    let done = log.reset_offsets("g", &[tp(0), tp(1)], ResetTo::Offset(Offset(3))).expect("reset");
    let before: Vec<_> = done.iter().map(|reset| reset.before).collect();
    assert_eq!(before, [Some(Offset(2)), None]);
    assert_eq!(committed(&log, "g"), [(0, 3), (1, 3)]);
    let error = log.plan_offset_reset("new", &[tp(0)], ResetTo::ShiftBy(1)).expect_err("nothing to shift");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = log.reset_offsets("g", &[tp(5)], ResetTo::Latest).expect_err("no such partition");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn forgetting_no_offsets_is_nothing() {
    let log = setup();
    commit(&log, "g", &[(0, 1)]);
    log.delete_offsets("g", &[]).expect("nothing to do");
    assert_eq!(committed(&log, "g"), [(0, 1)]);
}

#[test]
fn a_group_with_members_is_neither_reset_nor_deleted() {
    let log = setup();
    log.create_topic("other", 1);
    let other = TopicPartition::new("other", PartitionId(0));
    log.reset_offsets("g", std::slice::from_ref(&other), ResetTo::Earliest).expect("nobody is there yet");
    let mut consumer = member(&log, "g");
    consumer.commit().expect("committed");
    let refused = |outcome: Result<()>, said: &str| {
        let error = outcome.expect_err("it has members");
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert_eq!(error.to_string(), said);
    };
    let used = "group g has 1 member: it can be changed or deleted once it has none";
    refused(log.reset_offsets("g", &[tp(0)], ResetTo::Latest).map(drop), used);
    refused(log.delete_group("g"), used);
    refused(log.delete_offsets("g", &[tp(0)]), "group g has members that read topic in");
    log.delete_offsets("g", std::slice::from_ref(&other)).expect("no member reads that topic");
    assert_eq!(log.group("g").expect("known").partitions.len(), 2);
    drop(consumer);
    log.delete_offsets("g", &[tp(0)]).expect("nobody is there any more");
    assert_eq!(committed(&log, "g").len(), 1);
    let error = log.delete_offsets("g", &[tp(0)]).expect_err("forgotten already");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    log.delete_group("g").expect("nobody is there any more");
    assert_eq!(log.group("g").expect_err("gone").kind(), ErrorKind::NotFound);
    assert_eq!(log.delete_group("g").expect_err("gone").kind(), ErrorKind::NotFound);
    assert_eq!(committed(&log, "g"), []);
}

#[test]
fn what_was_reset_or_deleted_stays_so_after_a_power_cut() {
    let log = TestLog::crashing(5);
    log.create_topic("in", 2);
    commit(&log, "g", &[(0, 0)]);
    commit(&log, "h", &[(0, 0)]);
    log.reset_offsets("g", &[tp(1)], ResetTo::Earliest).expect("reset");
    log.delete_group("h").expect("deleted");
    let log = log.crash();
    assert_eq!(committed(&log, "g"), [(0, 0), (1, 0)]);
    assert_eq!(log.group("h").expect_err("gone").kind(), ErrorKind::NotFound);
}

pub(super) fn step(log: &TestLog) {
    while log.step().expect("open") {}
}

#[test]
fn offsets_expire_when_nobody_has_committed_them_for_long() {
    let log = setup();
    let retention = GroupOptions::default().offsets_retention;
    commit(&log, "g", &[(0, 1), (1, 1)]);
    log.clock.advance(DAY);
    commit(&log, "g", &[(1, 2)]);
    log.clock.advance(retention - DAY - Duration::from_millis(1));
    step(&log);
    assert_eq!(committed(&log, "g"), [(0, 1), (1, 2)], "not yet");
    log.clock.advance(GroupOptions::default().expiry_interval);
    step(&log);
    assert_eq!(committed(&log, "g"), [(1, 2)]);
    log.clock.advance(DAY);
    step(&log);
    assert_eq!(log.group("g").expect_err("nothing is left").kind(), ErrorKind::NotFound);
}

#[test]
fn offsets_stay_for_as_long_as_they_are_committed_again() {
    let log = setup();
    let retention = GroupOptions::default().offsets_retention;
    let mut by_hand = Consumer::new(&log, options("g")).expect("a consumer");
    by_hand.assign(&[tp(0)]).expect("there");
    while by_hand.poll(|_, _| ControlFlow::Continue(())).expect("readable") > 0 {}
    for _ in 0..3 {
        by_hand.commit().expect("committed");
        log.clock.advance(retention - Duration::from_millis(1));
        step(&log);
        assert_eq!(committed(&log, "g").len(), 1);
    }
}

#[test]
fn members_that_a_crash_has_ended_count_until_the_log_is_opened_again() {
    let GroupOptions { offsets_retention, expiry_interval } = GroupOptions::default();
    let storage = MemoryStorage::new(7);
    let open = |clock: &Arc<ManualClock>| {
        Log::open("/log", LogOptions::manual(storage.mount(), clock.clone(), 7)).expect("a log that opens")
    };
    let log = open(&ManualClock::new());
    log.create_topic("in", TopicConfig::default()).expect("new");
    let mut consumer = Consumer::new(&log, options("g")).expect("a consumer");
    consumer.subscribe(&["in"]).expect("subscribed");
    consumer.poll(|_, _| ControlFlow::Break(())).expect("readable");
    consumer.commit().expect("committed");
    storage.fail_after(0);
    drop(consumer);
    drop(log);
    storage.clear_faults();
    storage.crash();

    let clock = ManualClock::new();
    clock.advance(3 * offsets_retention);
    let log = open(&clock);
    let offsets = || log.group("g").map_or(0, |group| group.partitions.len());
    clock.advance(expiry_interval);
    while log.step().expect("open") {}
    assert_eq!(offsets(), 1, "it was read until the crash, for all that is known");
    clock.advance(offsets_retention);
    while log.step().expect("open") {}
    assert_eq!(offsets(), 0);
}

#[test]
fn offsets_of_a_group_expire_after_its_last_member_has_gone_and_not_before() {
    let log = setup();
    let GroupOptions { offsets_retention, expiry_interval } = GroupOptions::default();
    let mut consumer = member(&log, "g");
    consumer.commit().expect("committed");
    log.clock.advance(3 * offsets_retention);
    step(&log);
    assert_eq!(committed(&log, "g").len(), 2, "it has a member");
    drop(consumer);
    log.clock.advance(offsets_retention - Duration::from_millis(1));
    step(&log);
    assert_eq!(committed(&log, "g").len(), 2, "it had one until now");
    log.clock.advance(expiry_interval);
    step(&log);
    assert_eq!(committed(&log, "g"), []);
    assert_eq!(log.group("g").expect_err("nothing is left").kind(), ErrorKind::NotFound);
    // A new one of the same name begins anew.
    assert_eq!(member(&log, "g").group_metadata().expect("a group").member.expect("it").generation, 1);
}

#[test]
fn a_transaction_that_commits_offsets_is_not_held_up_by_others_that_are_open() {
    let log = setup();
    let group = ConsumerGroupMetadata::new("g");
    let [first, slow, quick, aborted] = ["a", "b", "c", "d"].map(|id| log.transactional(id).expect("the id"));
    let send = |producer: &TransactionalProducer, partition, offset| {
        producer
            .send_offsets_to_transaction(&[(tp(partition), Offset(offset).into())], &group)
            .expect("sent");
    };
    let settle =
        || log.flush(log.topic(OFFSETS_TOPIC).expect("there").partitions(), SyncPurpose::Markers).wait();
    let begun = [&first, &slow, &quick, &aborted];
    begun.iter().for_each(|producer| producer.begin().expect("begun"));
    send(&first, 0, 1);
    send(&slow, 0, 2);
    send(&slow, 1, 2);
    send(&aborted, 1, 4);
    send(&quick, 0, 3);
    let mut followed = CommittedOffsets::read(&log).expect("readable");
    let mut check = |expected: &[(i32, i64)]| {
        settle().expect("synced");
        followed.refresh(&log).expect("readable");
        let mut found: Vec<_> =
            followed.group("g").map(|(name, committed)| (name.partition.0, committed.offset.0)).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "followed");
        assert_eq!(committed(&log, "g"), expected, "read anew");
    };
    check(&[]);
    quick.commit(&[]).wait().expect("committed");
    check(&[(0, 3)]);
    aborted.abort().expect("aborted");
    check(&[(0, 3)]);
    // What the quick one has committed is newer in the log.
    slow.commit(&[]).wait().expect("committed");
    check(&[(0, 3), (1, 2)]);
    first.commit(&[]).wait().expect("committed");
    check(&[(0, 3), (1, 2)]);
}

#[test]
fn offsets_that_a_transaction_is_about_to_commit_do_not_expire_before_it_is_decided() {
    let log = setup();
    let GroupOptions { offsets_retention, expiry_interval } = GroupOptions::default();
    commit(&log, "g", &[(0, 1)]);
    let patient = TransactionOptions { timeout: None };
    let producer = log.transactional_with("t", patient).expect("the id");
    producer.begin().expect("begun");
    let group = ConsumerGroupMetadata::new("g");
    producer.send_offsets_to_transaction(&[(tp(0), Offset(2).into())], &group).expect("sent");
    log.clock.advance(offsets_retention + expiry_interval);
    step(&log);
    assert_eq!(committed(&log, "g"), [(0, 1)]);
    producer.abort().expect("aborted");
    log.clock.advance(expiry_interval);
    step(&log);
    assert_eq!(committed(&log, "g"), []);
}

#[test]
fn the_offsets_topic_is_compacted_and_says_the_same_then() {
    let log = setup();
    for round in 0..50 {
        commit(&log, "g", &[(0, round % 4), (1, 1)]);
        commit(&log, "gone", &[(0, 1)]);
    }
    log.delete_group("gone").expect("deleted");
    drop(member(&log, "g"));
    let home = offsets_partition(&log).expect("there");
    let count = |log: &TestLog| {
        let home = offsets_partition(log).expect("there");
        let mut count = 0;
        let mut next = Offset(0);
        loop {
            let fetched = home.fetch(next, 1 << 20, crate::Isolation::ReadCommitted).expect("readable");
            if fetched.next == next {
                return count;
            }
            next = fetched.next;
            let records = fetched.committed().map(|batch| batch.expect("sound").header().record_count);
            count += records.sum::<i32>();
        }
    };
    let (before, described) = (count(&log), log.group("g").expect("known"));
    assert!(before > 150, "{before}");
    let reports = log.compact(OFFSETS_TOPIC).expect("compacted");
    assert_eq!(reports.len(), 1, "{} is compacted", home.name());
    assert!(count(&log) <= 5, "two offsets, a group, and what was deleted: {}", count(&log));
    assert_eq!(log.group("g").expect("known"), described);
    assert_eq!(committed(&log, "g"), [(0, 1), (1, 1)], "from the beginning");
    assert_eq!(log.group("gone").expect_err("deleted").kind(), ErrorKind::NotFound);
}

#[test]
fn closing_the_log_says_that_the_members_have_gone() {
    let log = setup();
    let mut consumer = member(&log, "g");
    consumer.commit().expect("committed");
    log.close().expect("closed");
    let group = log.open_read_only().group("g").expect("known");
    assert_eq!((group.state, group.generation), (GroupState::Empty, 2));
    let error = consumer.poll(|_, _| ControlFlow::Break(())).expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn what_is_committed_and_not_synced_yet_is_gone_on_from() {
    let log = setup();
    offsets_partition(&log).expect("made");
    let topic_id = log.topic("in").expect("made").id();
    let commit = OffsetCommit { partition: tp(0), topic_id, offset: Offset(3), metadata: String::new() };
    let coordinator = log.group_coordinator();
    let home = coordinator.commit(&log, &ConsumerGroupMetadata::new("g"), &[commit]).expect("appended");
    assert!(home.offsets().high_watermark < home.offsets().end, "it is not synced");
    let mut consumer = Consumer::new(&log, options("g")).expect("a consumer");
    consumer.assign(&[tp(0)]).expect("there");
    assert_eq!(consumer.position(&tp(0)).expect("known"), Offset(3));
}

#[test]
fn another_process_sees_the_members_that_were_written_down() {
    let log = setup();
    let mut consumer = member(&log, "g");
    consumer.commit().expect("committed");
    let other = log.open_read_only();
    let group = other.group("g").expect("known");
    assert_eq!((group.state, group.generation, group.members.len()), (GroupState::Stable, 1, 1));
    assert_eq!(group.partitions.len(), 2);
    let refused = other.reset_offsets("g", &[tp(0)], ResetTo::Latest).expect_err("read-only");
    assert_eq!(refused.kind(), ErrorKind::Closed);
    let mut reader = Consumer::new(&other, options("g")).expect("a consumer");
    assert_eq!(reader.subscribe(&["in"]).expect_err("read-only").kind(), ErrorKind::Closed);
    drop(consumer);
    step(&log);
    other.refresh().expect("readable");
    assert_eq!(other.group("g").expect("known").state, GroupState::Empty);
}
