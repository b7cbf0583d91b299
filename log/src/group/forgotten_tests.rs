//! What is forgotten of a group while it is in use: offsets of topics that nobody reads for it any more, of
//! topics that are deleted, and those that a transaction has sent before they were deleted.

use std::ops::ControlFlow;

use super::tests::{DAY, commit, committed, member, options, setup, step, tp};
use super::*;
use crate::batch::DecompressionBuffer;
use crate::consumer::Consumer;
use crate::error::ErrorKind;
use crate::log::Log;
use crate::partition::Isolation;
use crate::record::{Offset, PartitionId, TopicPartition};
use crate::storage::SyncPurpose;
use crate::test_log::TestLog;
use crate::transaction::{TransactionOptions, TransactionalProducer};

fn other() -> TopicPartition {
    TopicPartition::new("other", PartitionId(0))
}

/// What a group has committed, read anew.
fn offsets(log: &TestLog, group: &str) -> Vec<(String, i64)> {
    let read = CommittedOffsets::read(log).expect("readable");
    let mut offsets: Vec<_> =
        read.group(group).map(|(name, committed)| (name.to_string(), committed.offset.0)).collect();
    offsets.sort_unstable();
    offsets
}

fn owned(offsets: &[(&str, i64)]) -> Vec<(String, i64)> {
    offsets.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect()
}

fn poll(consumer: &mut Consumer) {
    consumer.poll(|_, _| ControlFlow::Break(())).expect("readable");
}

/// A group with a member that has read and committed two topics, and reads one of them from now on.
fn moved_on(log: &TestLog) -> Consumer {
    log.create_topic("other", 1);
    let mut consumer = Consumer::new(log, options("g")).expect("a consumer");
    consumer.subscribe(&["in", "other"]).expect("subscribed");
    poll(&mut consumer);
    consumer.commit().expect("committed");
    consumer.subscribe(&["in"]).expect("subscribed");
    poll(&mut consumer);
    consumer
}

fn transaction(log: &TestLog, sent: &[(TopicPartition, i64)]) -> TransactionalProducer {
    let patient = TransactionOptions { timeout: None };
    let producer = log.transactional_with("t", patient).expect("the id");
    producer.begin().expect("begun");
    send(&producer, sent);
    producer
}

fn send(producer: &TransactionalProducer, sent: &[(TopicPartition, i64)]) {
    let offsets: Vec<_> = sent.iter().map(|(name, offset)| (name.clone(), Offset(*offset).into())).collect();
    producer.send_offsets_to_transaction(&offsets, &ConsumerGroupMetadata::new("g")).expect("sent");
}

/// Makes everything readable that was appended.
fn settle(log: &TestLog) {
    let topic = log.topic(OFFSETS_TOPIC).expect("made");
    log.flush(topic.partitions(), SyncPurpose::Markers).wait().expect("synced");
}

#[test]
fn offsets_of_a_topic_expire_once_no_member_reads_it_any_more() {
    let log = setup();
    let GroupOptions { offsets_retention, expiry_interval } = GroupOptions::default();
    let _consumer = moved_on(&log);
    let all = owned(&[("in-0", 1), ("in-1", 0), ("other-0", 0)]);
    log.clock.advance(offsets_retention - expiry_interval);
    step(&log);
    assert_eq!(offsets(&log, "g"), all, "not yet");
    log.clock.advance(expiry_interval);
    step(&log);
    assert_eq!(offsets(&log, "g"), all[..2], "what is read stays, however old");
    assert_eq!(log.group("g").expect("known").members.len(), 1);
}

#[test]
fn nothing_expires_while_it_is_not_known_what_members_are_going_to_read() {
    let log = setup();
    let GroupOptions { offsets_retention, expiry_interval } = GroupOptions::default();
    let mut consumer = moved_on(&log);
    let mut joining = Consumer::new(&log, options("g")).expect("a consumer");
    joining.subscribe(&["in"]).expect("subscribed");
    poll(&mut joining);
    log.clock.advance(offsets_retention);
    step(&log);
    assert_eq!(offsets(&log, "g").len(), 3, "a rebalance is under way");
    for _ in 0..4 {
        poll(&mut consumer);
        poll(&mut joining);
    }
    log.clock.advance(expiry_interval);
    step(&log);
    assert_eq!(offsets(&log, "g").len(), 2);
}

#[test]
fn what_a_pattern_matches_is_read() {
    let log = setup();
    log.create_topic("other", 1);
    let mut consumer = Consumer::new(&log, options("g")).expect("a consumer");
    consumer.subscribe_pattern("in|other").expect("subscribed");
    poll(&mut consumer);
    consumer.commit().expect("committed");
    log.clock.advance(3 * GroupOptions::default().offsets_retention);
    step(&log);
    assert_eq!(offsets(&log, "g").len(), 3);
}

#[test]
fn an_offset_that_is_being_committed_anew_does_not_expire_and_others_of_the_group_do() {
    let log = setup();
    let GroupOptions { offsets_retention, expiry_interval } = GroupOptions::default();
    log.create_topic("unread", 1);
    let unread = TopicPartition::new("unread", PartitionId(0));
    log.reset_offsets("g", std::slice::from_ref(&unread), ResetTo::Earliest).expect("nobody is there yet");
    let _consumer = moved_on(&log);
    let producer = transaction(&log, &[(other(), 0), (tp(0), 3)]);
    log.clock.advance(offsets_retention);
    step(&log);
    let kept = [("in-0", 1), ("in-1", 0), ("other-0", 0)];
    assert_eq!(offsets(&log, "g"), owned(&kept), "one is in a transaction that is open");
    producer.abort().expect("aborted");
    log.clock.advance(expiry_interval);
    step(&log);
    assert_eq!(offsets(&log, "g"), owned(&kept[..2]));
}

#[test]
fn a_topic_that_is_deleted_takes_what_was_committed_for_it_along() {
    let log = setup();
    log.create_topic("other", 1);
    commit(&log, "h", &[(1, 2)]);
    log.reset_offsets("g", &[tp(0), other()], ResetTo::Earliest).expect("nobody is there yet");
    let mut consumer = member(&log, "g");
    let producer = transaction(&log, &[(tp(1), 3), (other(), 0)]);
    log.delete_topic("in").expect("deleted");
    settle(&log);
    assert_eq!(offsets(&log, "g"), owned(&[("other-0", 0)]), "members or not");
    assert_eq!(log.group("h").expect_err("nothing is left").kind(), ErrorKind::NotFound);
    log.create_topic("in", 2);
    producer.commit(&[]).wait().expect("committed");
    settle(&log);
    assert_eq!(offsets(&log, "g"), owned(&[("other-0", 0)]), "what was sent before does not come back");
    poll(&mut consumer);
    consumer.commit().expect("committed");
    assert_eq!(offsets(&log, "g").len(), 3);
    let log = log.crash();
    assert_eq!(offsets(&log, "g").len(), 3, "what was committed for the new one is not forgotten");
}

#[test]
fn an_offset_that_is_committed_for_a_topic_just_deleted_does_not_wait_to_expire() {
    let log = setup();
    commit(&log, "g", &[(0, 1)]);
    let topic_id = log.topic("in").expect("made").id();
    log.delete_topic("in").expect("deleted");
    log.create_topic("in", 2);
    commit(&log, "g", &[(1, 0)]);
    let late = OffsetCommit { partition: tp(0), topic_id, offset: Offset(4), metadata: String::new() };
    let coordinator = log.group_coordinator();
    coordinator.commit(&log, &ConsumerGroupMetadata::new("g"), &[late]).expect("appended");
    settle(&log);
    assert_eq!(committed(&log, "g"), [(0, 4), (1, 0)]);
    log.clock.advance(GroupOptions::default().expiry_interval);
    step(&log);
    assert_eq!(committed(&log, "g"), [(1, 0)]);
}

#[test]
fn wherever_deleting_a_topic_is_cut_off_its_offsets_go_with_it_and_not_without() {
    let mut cut_off = (0, 0);
    for operations in 0.. {
        let log = TestLog::crashing(operations);
        log.create_topic("in", 2);
        commit(&log, "g", &[(0, 0), (1, 0)]);
        log.pull_plug_after(operations);
        let is_done = log.delete_topic("in").is_ok();
        let log = log.crash();
        log.clock.advance(GroupOptions::default().expiry_interval);
        step(&log);
        let is_there = log.topic("in").is_ok();
        assert!(!(is_done && is_there), "{operations}");
        let expected: &[_] = if is_there { &[(0, 0), (1, 0)] } else { &[] };
        assert_eq!(committed(&log, "g"), expected, "cut off at operation {operations}");
        log.create_topic("again", 1);
        match (is_done, is_there) {
            (true, _) => break,
            (_, true) => cut_off.0 += 1,
            (_, false) => cut_off.1 += 1,
        }
    }
    assert!(cut_off.0 > 0 && cut_off.1 > 0, "before and after it counts: {cut_off:?}");
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Commit,
    Abort,
    Crash,
}

/// Ends a transaction; then somebody who has followed all along, and who reads anew, know the same.
fn end(
    log: TestLog,
    producer: &TransactionalProducer,
    mut followed: CommittedOffsets,
    ending: Ending,
) -> TestLog {
    match ending {
        Ending::Commit => producer.commit(&[]).wait().expect("committed"),
        Ending::Abort => producer.abort().expect("aborted"),
        Ending::Crash => return log.crash(),
    }
    settle(&log);
    followed.refresh(&log).expect("readable");
    let mut known: Vec<_> =
        followed.group("g").map(|(name, committed)| (name.to_string(), committed.offset.0)).collect();
    known.sort_unstable();
    assert_eq!(known, offsets(&log, "g"), "{ending:?}");
    log
}

fn following(log: &TestLog) -> CommittedOffsets {
    settle(log);
    CommittedOffsets::read(log).expect("readable")
}

#[test]
fn a_group_that_is_deleted_does_not_come_back_with_a_transaction_that_was_open() {
    for ending in [Ending::Commit, Ending::Abort, Ending::Crash] {
        let log = setup();
        commit(&log, "g", &[(0, 1)]);
        let producer = transaction(&log, &[(tp(0), 3), (tp(1), 2)]);
        let followed = following(&log);
        log.delete_group("g").expect("nobody is a member");
        assert_eq!(log.group("g").expect_err("gone").kind(), ErrorKind::NotFound);
        let log = end(log, &producer, followed, ending);
        assert_eq!(log.group("g").expect_err("gone").kind(), ErrorKind::NotFound, "{ending:?}");
        let log = log.crash();
        assert_eq!(committed(&log, "g"), [], "{ending:?}");
    }
}

#[test]
fn a_group_that_only_an_open_transaction_commits_for_is_known_and_can_be_deleted() {
    let log = setup();
    let producer = transaction(&log, &[(tp(0), 3)]);
    let names: Vec<_> = log.groups().expect("readable").into_iter().map(|group| group.name).collect();
    // What it has sent is not synced, and counts.
    assert_eq!(log.group("g").expect("known").state, GroupState::Empty);
    settle(&log);
    assert_eq!(names, [""; 0]);
    assert_eq!(log.groups().expect("readable").len(), 1);
    log.delete_group("g").expect("nobody is a member");
    assert_eq!(log.delete_group("g").expect_err("gone").kind(), ErrorKind::NotFound);
    producer.commit(&[]).wait().expect("committed");
    settle(&log);
    assert_eq!(log.groups().expect("readable"), []);
}

#[test]
fn offsets_that_are_deleted_do_not_come_back_and_what_is_sent_later_counts() {
    for ending in [Ending::Commit, Ending::Abort, Ending::Crash] {
        let log = setup();
        log.create_topic("other", 1);
        commit(&log, "g", &[(0, 1)]);
        let producer = transaction(&log, &[(tp(0), 3), (tp(1), 2), (other(), 0)]);
        let followed = following(&log);
        // Of the second one the transaction alone knows.
        log.delete_offsets("g", &[tp(0), tp(1)]).expect("both are known");
        let error = log.delete_offsets("g", &[tp(1)]).expect_err("forgotten already");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        send(&producer, &[(tp(1), 4)]);
        let log = end(log, &producer, followed, ending);
        let expected: &[_] = match ending {
            Ending::Commit => &[("in-1", 4), ("other-0", 0)],
            Ending::Abort | Ending::Crash => &[],
        };
        assert_eq!(offsets(&log, "g"), owned(expected), "{ending:?}");
        let log = log.crash();
        assert_eq!(offsets(&log, "g"), owned(expected), "{ending:?}");
    }
}

#[test]
fn wherever_the_power_is_cut_what_was_deleted_before_a_commit_stays_deleted() {
    for operations in 0.. {
        let log = TestLog::crashing(operations);
        log.create_topic("in", 2);
        commit(&log, "g", &[(0, 0)]);
        let producer = transaction(&log, &[(tp(0), 0), (tp(1), 0)]);
        log.pull_plug_after(operations);
        let is_deleted = log.delete_group("g").is_ok();
        let is_committed = is_deleted && producer.commit(&[]).wait().is_ok();
        drop(producer);
        let log = log.crash();
        let found = committed(&log, "g");
        assert!(found.is_empty() || !is_deleted && found == [(0, 0)], "operation {operations}: {found:?}");
        if is_committed {
            return assert!(operations > 3, "it was cut off on the way");
        }
    }
}

#[test]
fn deleted_offsets_stay_deleted_when_the_offsets_are_compacted() {
    let log = setup();
    commit(&log, "g", &[(0, 1)]);
    let producer = transaction(&log, &[(tp(0), 3)]);
    log.delete_group("g").expect("nobody is a member");
    producer.commit(&[]).wait().expect("committed");
    settle(&log);
    for _ in 0..3 {
        log.compact(OFFSETS_TOPIC).expect("compacted");
        assert_eq!(committed(&log, "g"), []);
        // Longer than tombstones are kept.
        log.clock.advance(2 * DAY);
        commit(&log, "h", &[(0, 1)]);
    }
    assert_eq!(committed(&log.crash(), "g"), []);
}

/// How many tombstones there are among the offsets.
fn tombstones(log: &Log) -> usize {
    let home = offsets_partition(log).expect("made");
    let (mut count, mut next, mut scratch) = (0, Offset(0), DecompressionBuffer::new());
    loop {
        let fetched = home.fetch(next, 1 << 20, Isolation::ReadUncommitted).expect("readable");
        if fetched.next == next {
            return count;
        }
        let batches = fetched.batches().map(|batch| batch.expect("sound"));
        for batch in batches.filter(|batch| !batch.header().is_control) {
            let records = batch.records(&mut scratch).expect("sound");
            count += records.filter(|record| record.as_ref().expect("sound").value.is_none()).count();
        }
        next = fetched.next;
    }
}

/// Compacts until what was deleted is gone for good.
fn compact_tombstones_away(log: &TestLog) {
    for round in 0..2 {
        commit(log, "h", &[(1, round)]);
        log.compact(OFFSETS_TOPIC).expect("compacted");
        // Longer than tombstones are kept.
        log.clock.advance(2 * DAY);
    }
    assert_eq!(tombstones(log), 0);
}

/// The groups that have committed, as of the last refresh, and as described.
fn groups(log: &Log, followed: &CommittedOffsets) -> [Vec<String>; 2] {
    let mut known: Vec<_> = followed.groups().map(str::to_owned).collect();
    known.sort_unstable();
    let described = log.groups().expect("readable").into_iter().map(|group| group.name);
    [known, described.collect()]
}

#[test]
fn another_process_that_looks_seldom_does_not_go_on_showing_what_was_deleted_and_compacted_away() {
    let log = setup();
    ["g", "h", "i"].into_iter().for_each(|group| commit(&log, group, &[(0, 1)]));
    let other = log.open_read_only();
    let mut followed = CommittedOffsets::read(&other).expect("readable");
    assert_eq!(groups(&other, &followed), [["g", "h", "i"], ["g", "h", "i"]]);
    log.delete_offsets("g", &[tp(0)]).expect("it is known");
    log.delete_group("i").expect("nobody is a member");
    compact_tombstones_away(&log);
    other.refresh().expect("readable");
    followed.refresh(&other).expect("readable");
    assert_eq!(groups(&other, &followed), [["h"], ["h"]]);
    assert_eq!(followed.get("h", &tp(1)).expect("committed").offset, Offset(1));
    assert_eq!(followed.position(), offsets_partition(&log).expect("made").offsets().end);
}

#[test]
fn another_process_that_finds_only_while_it_reads_on_that_segments_were_replaced_begins_anew() {
    let log = setup();
    ["g", "h"].into_iter().for_each(|group| commit(&log, group, &[(0, 1)]));
    let other = log.open_read_only();
    let mut followed = CommittedOffsets::read(&other).expect("readable");
    log.delete_offsets("g", &[tp(0)]).expect("it is known");
    // It has heard of the deletion, and has not read it when that is gone.
    other.refresh().expect("readable");
    compact_tombstones_away(&log);
    followed.refresh(&other).expect("readable");
    assert_eq!(groups(&other, &followed), [["h"], ["h"]]);
}
