//! Consumers as members of a group, on a log in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;

use super::*;
use crate::batch::{BatchBuilder, Compression};
use crate::group::{Assignor, CommittedOffsets, GroupState, offsets_partition};
use crate::record::PartitionId;
use crate::spawn::Drive;
use crate::storage::SyncPurpose;
use crate::test_log::TestLog;

pub(super) const POLL_INTERVAL_MAX: Duration = Duration::from_secs(10);

pub(super) fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, PartitionId(partition))
}

pub(super) fn setup(partitions: i32) -> TestLog {
    let log = TestLog::new(Drive::Manual);
    log.create_topic("in", partitions);
    log
}

pub(super) fn append(log: &TestLog, name: &TopicPartition, values: &[&str]) {
    let partition = log.topic(&name.topic).expect("made").partition(name.partition).expect("there");
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(log.clock().now(), None, Some(value.as_bytes()), &[]).expect("fits");
    }
    partition.append(builder.seal()).expect("appended");
    log.flush(&[partition], SyncPurpose::Records).wait().expect("synced");
}

pub(super) fn options(assignor: Assignor) -> ConsumerOptions {
    ConsumerOptions {
        group: Some("g".to_owned()),
        assignor,
        poll_interval_max: POLL_INTERVAL_MAX,
        ..ConsumerOptions::default()
    }
}

fn member(log: &TestLog, assignor: Assignor, topics: &[&str]) -> Consumer {
    let mut consumer = Consumer::new(log, options(assignor)).expect("a consumer");
    consumer.subscribe(topics).expect("subscribed");
    consumer
}

pub(super) fn sticky(log: &TestLog) -> Consumer {
    member(log, Assignor::CooperativeSticky, &["in"])
}

/// Polls once; gives what was read.
pub(super) fn poll(consumer: &mut Consumer) -> Vec<String> {
    let mut values = Vec::new();
    let read = consumer.poll(|_, record| {
        values.push(String::from_utf8_lossy(record.value.expect("not null")).into_owned());
        ControlFlow::Continue(())
    });
    read.expect("readable");
    values
}

/// Polls all of them until nothing changes any more; gives what was read.
pub(super) fn settle(consumers: &mut [&mut Consumer]) -> Vec<String> {
    let mut read = Vec::new();
    for _ in 0..5 {
        for consumer in &mut *consumers {
            read.extend(poll(consumer));
        }
    }
    read
}

pub(super) fn owned(consumer: &Consumer) -> Vec<i32> {
    let mut owned: Vec<_> = consumer.assignment().map(|name| name.partition.0).collect();
    owned.sort_unstable();
    owned
}

#[track_caller]
pub(super) fn check_shared_out(consumers: &[&Consumer], partitions: i32) {
    let mut all: Vec<_> = consumers.iter().flat_map(|consumer| owned(consumer)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..partitions).collect::<Vec<_>>());
}

/// Writes down what it is told.
#[derive(Clone, Default)]
pub(super) struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, what: &str, partitions: &[TopicPartition]) -> Result<()> {
        let numbers: Vec<_> = partitions.iter().map(|name| name.partition.0.to_string()).collect();
        self.0.lock().push(format!("{what} {}", numbers.join(" ")).trim_end().to_owned());
        Ok(())
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl RebalanceListener for Diary {
    fn on_partitions_assigned(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.note("assigned", partitions)
    }

    fn on_partitions_revoked(
        &mut self,
        consumer: &mut Consumer,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        assert!(partitions.iter().all(|name| consumer.assignment().any(|one| one == name)));
        consumer.commit()?;
        self.note("revoked", partitions)
    }

    fn on_partitions_lost(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.note("lost", partitions)
    }
}

#[test]
fn a_consumer_alone_gets_all_partitions_at_its_first_poll() {
    for assignor in Assignor::ALL {
        let log = setup(3);
        append(&log, &tp("in", 1), &["a"]);
        let mut consumer = member(&log, assignor, &["in"]);
        assert_eq!(owned(&consumer), [0; 0]);
        assert_eq!(poll(&mut consumer), ["a"]);
        assert_eq!(owned(&consumer), [0, 1, 2]);
    }
}

#[test]
fn members_share_and_who_stays_takes_over_what_a_dropped_one_had() {
    for assignor in Assignor::ALL {
        let log = setup(5);
        let (mut one, mut two) = (member(&log, assignor, &["in"]), member(&log, assignor, &["in"]));
        settle(&mut [&mut one, &mut two]);
        check_shared_out(&[&one, &two], 5);
        assert_eq!(owned(&one).len().abs_diff(owned(&two).len()), 1, "{assignor}");
        drop(one);
        settle(&mut [&mut two]);
        assert_eq!(owned(&two).len(), 5, "{assignor}");
    }
}

#[test]
fn a_cooperative_member_keeps_what_stays_and_the_rest_moves_in_the_next_generation() {
    let log = setup(3);
    let (mut one, diary) = (sticky(&log), Diary::default());
    one.set_rebalance_listener(diary.clone());
    poll(&mut one);
    assert_eq!(diary.take(), ["assigned 0 1 2"]);
    let (mut two, other) = (sticky(&log), Diary::default());
    two.set_rebalance_listener(other.clone());
    poll(&mut two);
    assert_eq!((owned(&one), owned(&two)), (vec![0, 1, 2], vec![]));
    poll(&mut one);
    assert_eq!(diary.take(), ["revoked 2", "assigned"], "0 and 1 were never taken away");
    assert_eq!((owned(&one), owned(&two)), (vec![0, 1], vec![]));
    poll(&mut two);
    assert_eq!(other.take(), ["assigned 2"]);
    poll(&mut one);
    assert_eq!(diary.take(), ["assigned"]);
    assert_eq!((owned(&one), owned(&two)), (vec![0, 1], vec![2]));
}

#[test]
fn an_eager_member_gives_everything_up_and_waits_for_the_others() {
    let log = setup(2);
    let (mut one, diary) = (member(&log, Assignor::Range, &["in"]), Diary::default());
    one.set_rebalance_listener(diary.clone());
    poll(&mut one);
    let mut two = member(&log, Assignor::Range, &["in"]);
    poll(&mut two);
    assert_eq!(owned(&two), [0; 0], "the other has not given anything up yet");
    poll(&mut one);
    assert_eq!(diary.take(), ["assigned 0 1", "revoked 0 1", "assigned 0"]);
    poll(&mut two);
    assert_eq!((owned(&one), owned(&two)), (vec![0], vec![1]));
}

#[test]
fn what_is_committed_when_it_is_taken_away_is_gone_on_from_by_the_next_owner() {
    for assignor in Assignor::ALL {
        let log = setup(2);
        append(&log, &tp("in", 0), &["a", "b"]);
        append(&log, &tp("in", 1), &["x", "y"]);
        let mut one = member(&log, assignor, &["in"]);
        one.set_rebalance_listener(Diary::default());
        let mut read = settle(&mut [&mut one]);
        let mut two = member(&log, assignor, &["in"]);
        read.extend(settle(&mut [&mut one, &mut two]));
        append(&log, &tp("in", 0), &["c"]);
        append(&log, &tp("in", 1), &["z"]);
        read.extend(settle(&mut [&mut one, &mut two]));
        read.sort_unstable();
        assert_eq!(read, ["a", "b", "c", "x", "y", "z"], "{assignor}");
    }
}

#[test]
fn a_member_that_does_not_poll_is_removed_and_its_commit_refused() {
    for assignor in Assignor::ALL {
        let log = setup(2);
        append(&log, &tp("in", 0), &["a"]);
        append(&log, &tp("in", 1), &["x"]);
        let (mut slow, diary) = (member(&log, assignor, &["in"]), Diary::default());
        slow.set_rebalance_listener(diary.clone());
        let mut quick = member(&log, assignor, &["in"]);
        settle(&mut [&mut slow, &mut quick]);
        diary.take();
        log.clock.advance(POLL_INTERVAL_MAX);
        poll(&mut quick);
        slow.commit().expect("the bound is not passed yet");
        log.clock.advance(Duration::from_nanos(1));
        settle(&mut [&mut quick]);
        assert_eq!(owned(&quick), [0, 1], "{assignor}");
        append(&log, &tp("in", 0), &["b"]);
        let had = slow.assignment().next().expect("one of two").clone();
        let error = slow.commit_offsets(&[(had, Offset(1).into())]).expect_err("removed");
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.to_string().contains("group g: consumer consumer-0000000"), "{error}");
        assert_eq!(diary.take(), [""; 0]);
        settle(&mut [&mut slow, &mut quick]);
        assert!(diary.take()[0].starts_with("lost"), "{assignor}");
        check_shared_out(&[&slow, &quick], 2);
    }
}

#[test]
fn a_member_that_has_not_taken_its_share_of_a_new_generation_has_to_poll_before_it_commits() {
    let log = setup(2);
    append(&log, &tp("in", 0), &["a"]);
    let (mut one, mut two) = (sticky(&log), sticky(&log));
    settle(&mut [&mut one, &mut two]);
    let mut three = sticky(&log);
    poll(&mut three);
    poll(&mut one);
    one.seek(&tp("in", 0), Offset(0)).expect("assigned");
    one.commit().expect("the generation is still being prepared");
    poll(&mut two);
    one.seek(&tp("in", 0), Offset(1)).expect("assigned");
    assert_eq!(one.commit().expect_err("there is a newer one").kind(), ErrorKind::Retry);
    poll(&mut one);
    one.commit().expect("it has taken its share");
}

#[test]
fn the_logs_thread_removes_who_does_not_poll_when_nobody_else_does() {
    let log = setup(1);
    let mut consumer = sticky(&log);
    poll(&mut consumer);
    let described = || log.group("g").expect("there");
    assert_eq!((described().state, described().members.len()), (GroupState::Stable, 1));
    let before = log.progress().count();
    log.clock.advance(POLL_INTERVAL_MAX + Duration::from_nanos(1));
    while log.step().expect("open") {}
    assert!(log.progress().count() > before, "those who wait are woken");
    assert_eq!((described().state, described().members.len()), (GroupState::Empty, 0));
}

#[test]
fn partitions_that_are_added_and_topics_that_come_and_go_are_shared_out() {
    for assignor in Assignor::ALL {
        let log = setup(2);
        let (mut one, mut two) =
            (member(&log, assignor, &["in", "later"]), member(&log, assignor, &["in", "later"]));
        one.set_rebalance_listener(Diary::default());
        two.set_rebalance_listener(Diary::default());
        settle(&mut [&mut one, &mut two]);
        check_shared_out(&[&one, &two], 2);
        log.alter_topic("in", |config| config.partitions = 5).expect("altered");
        settle(&mut [&mut one, &mut two]);
        check_shared_out(&[&one, &two], 5);
        log.create_topic("later", 4);
        append(&log, &tp("later", 3), &["new"]);
        assert_eq!(settle(&mut [&mut one, &mut two]), ["new"], "{assignor}");
        assert_eq!(one.assignment().count() + two.assignment().count(), 9);
        log.delete_topic("in").expect("deleted");
        settle(&mut [&mut one, &mut two]);
        check_shared_out(&[&one, &two], 4);
        assert!(one.assignment().chain(two.assignment()).all(|name| name.topic == "later"));
        // Made again, it is another topic.
        log.create_topic("in", 1);
        append(&log, &tp("in", 0), &["fresh"]);
        assert_eq!(settle(&mut [&mut one, &mut two]), ["fresh"], "{assignor}");
    }
}

#[test]
fn a_topic_that_is_made_again_between_two_polls_is_read_from_its_beginning() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["old", "older"]);
    let (mut consumer, diary) = (sticky(&log), Diary::default());
    consumer.set_rebalance_listener(diary.clone());
    poll(&mut consumer);
    consumer.commit().expect("committed");
    log.delete_topic("in").expect("deleted");
    log.create_topic("in", 1);
    append(&log, &tp("in", 0), &["new"]);
    assert_eq!(settle(&mut [&mut consumer]), ["new"]);
    assert_eq!(diary.take(), ["assigned 0", "lost 0", "assigned 0"]);
}

#[test]
fn a_pattern_holds_the_topics_whose_whole_name_matches_and_no_internal_ones() {
    let log = setup(1);
    log.create_topic("orders", 1);
    let mut consumer = Consumer::new(&log, options(Assignor::default())).expect("a consumer");
    consumer.subscribe_pattern("or.*|__.*|n").expect("a pattern");
    let topics = |consumer: &mut Consumer| -> BTreeSet<String> {
        settle(&mut [consumer]);
        consumer.assignment().map(|name| name.topic.clone()).collect()
    };
    assert_eq!(topics(&mut consumer), BTreeSet::from(["orders".to_owned()]));
    log.create_topic("origins", 2);
    log.create_topic("no", 2);
    assert_eq!(topics(&mut consumer), BTreeSet::from(["orders".to_owned(), "origins".to_owned()]));
    consumer.subscribe(&["in"]).expect("other topics");
    assert_eq!(topics(&mut consumer), BTreeSet::from(["in".to_owned()]));
    let error = consumer.subscribe_pattern("a(").expect_err("no pattern");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("a("), "{error}");
}

#[test]
fn members_that_share_out_otherwise_are_refused() {
    let log = setup(1);
    let mut one = member(&log, Assignor::Range, &["in"]);
    poll(&mut one);
    let mut two = member(&log, Assignor::RoundRobin, &["in"]);
    let error = two.poll(|_, _| ControlFlow::Continue(())).expect_err("another assignor");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("range"), "{error}");
    drop(one);
    poll(&mut two);
    assert_eq!(owned(&two), [0]);
}

#[test]
fn whoever_unsubscribes_gives_everything_to_the_others_at_once() {
    let log = setup(2);
    let (mut one, mut two, diary) = (sticky(&log), sticky(&log), Diary::default());
    one.set_rebalance_listener(diary.clone());
    settle(&mut [&mut one, &mut two]);
    diary.take();
    one.unsubscribe().expect("told");
    assert_eq!(diary.take().len(), 1);
    assert_eq!(owned(&one), [0; 0]);
    poll(&mut two);
    assert_eq!(owned(&two), [0, 1]);
    assert_eq!(poll(&mut one), [""; 0]);
}

#[test]
fn only_members_commit_for_a_group_that_has_any() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a"]);
    let mut by_hand = Consumer::of_topic(&log, "in", options(Assignor::default())).expect("a consumer");
    poll(&mut by_hand);
    by_hand.commit().expect("nobody else is there");
    let mut member = sticky(&log);
    poll(&mut member);
    by_hand.seek_to_beginning(&tp("in", 0)).expect("assigned");
    let error = by_hand.commit().expect_err("there is a member");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("group g has 1 members"), "{error}");
}

#[test]
fn a_member_that_commits_again_without_having_read_writes_nothing() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a"]);
    let mut consumer = sticky(&log);
    assert_eq!(poll(&mut consumer), ["a"]);
    consumer.commit().expect("committed");
    let end = |log: &TestLog| offsets_partition(log).expect("made").offsets().end;
    let before = end(&log);
    consumer.commit().expect("nothing to do");
    assert_eq!(end(&log), before);
}

#[test]
fn a_listener_may_leave_the_group() {
    struct Leaves;
    impl RebalanceListener for Leaves {
        fn on_partitions_revoked(&mut self, consumer: &mut Consumer, _: &[TopicPartition]) -> Result<()> {
            consumer.assign(&[tp("in", 1)])
        }
    }
    for assignor in [Assignor::CooperativeSticky, Assignor::Range] {
        let log = setup(2);
        let mut consumer = member(&log, assignor, &["in"]);
        consumer.set_rebalance_listener(Leaves);
        poll(&mut consumer);
        let mut other = member(&log, assignor, &["in"]);
        settle(&mut [&mut consumer, &mut other]);
        assert_eq!(owned(&consumer), [1], "what it has assigned itself");
        assert_eq!(owned(&other), [0, 1]);
    }
}

#[test]
fn a_listener_may_commit_and_seek_and_must_not_poll() {
    struct Seeks;
    impl RebalanceListener for Seeks {
        fn on_partitions_assigned(&mut self, consumer: &mut Consumer, new: &[TopicPartition]) -> Result<()> {
            new.iter().try_for_each(|name| consumer.seek(name, Offset(1)))?;
            let error = consumer.poll(|_, _| ControlFlow::Continue(())).expect_err("within a poll");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            Ok(())
        }

        fn on_partitions_revoked(&mut self, _: &mut Consumer, _: &[TopicPartition]) -> Result<()> {
            Err(Error::new(ErrorKind::Invalid, "the listener's own"))
        }
    }
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b"]);
    let mut consumer = sticky(&log);
    consumer.set_rebalance_listener(Seeks);
    assert_eq!(poll(&mut consumer), ["b"]);
    let error = consumer.unsubscribe().expect_err("the listener's");
    assert!(error.to_string().contains("the listener's own"), "{error}");
    assert_eq!(consumer.assignment().count(), 0, "it is gone all the same");
}

#[test]
fn the_generations_of_a_group_go_on_where_they_were_when_the_log_is_opened_again() {
    let log = TestLog::crashing(3);
    log.create_topic("in", 2);
    let mut consumer = sticky(&log);
    poll(&mut consumer);
    consumer.commit().expect("committed, and what was written before is synced with it");
    let before = consumer.group_metadata().expect("a group").member.expect("a member");
    assert_eq!(before.generation, 1);
    std::mem::forget(consumer);
    let log = log.crash();
    assert_eq!(log.group("g").expect("known").state, GroupState::Empty, "its members went with the process");
    let mut consumer = sticky(&log);
    poll(&mut consumer);
    let after = consumer.group_metadata().expect("a group").member.expect("a member");
    assert_eq!(after.generation, 2);
}

#[test]
fn paused_partitions_give_nothing_and_keep_their_places() {
    let log = setup(2);
    append(&log, &tp("in", 0), &["a"]);
    append(&log, &tp("in", 1), &["x"]);
    let mut consumer = sticky(&log);
    settle(&mut [&mut consumer]);
    append(&log, &tp("in", 0), &["b"]);
    append(&log, &tp("in", 1), &["y"]);
    consumer.pause(&[tp("in", 0)]).expect("assigned");
    assert_eq!(consumer.paused().collect::<Vec<_>>(), [&tp("in", 0)]);
    assert_eq!(settle(&mut [&mut consumer]), ["y"]);
    assert_eq!(consumer.lag_in(&tp("in", 0)).expect("assigned"), Some(1));
    consumer.resume(&[tp("in", 0)]).expect("assigned");
    assert_eq!(settle(&mut [&mut consumer]), ["b"]);
    assert_eq!(consumer.pause(&[tp("in", 7)]).expect_err("not assigned").kind(), ErrorKind::Invalid);
}

#[test]
fn offsets_are_committed_with_metadata_and_read_back() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b"]);
    let mut consumer = sticky(&log);
    poll(&mut consumer);
    assert_eq!(consumer.committed(&tp("in", 0)).expect("readable"), None);
    let offset = OffsetAndMetadata { offset: Offset(1), metadata: "half way".to_owned() };
    consumer.commit_offsets(&[(tp("in", 0), offset)]).expect("committed");
    let committed = consumer.committed(&tp("in", 0)).expect("readable").expect("there");
    assert_eq!((committed.offset, &*committed.metadata), (Offset(1), "half way"));
    let too_long = OffsetAndMetadata { offset: Offset(1), metadata: "x".repeat(4097) };
    let error = consumer.commit_offsets(&[(tp("in", 0), too_long)]).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("4097"), "{error}");
    let error = consumer.commit_offsets(&[(tp("in", 3), Offset(0).into())]).expect_err("not assigned");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn where_nothing_says_where_to_begin_the_error_names_what_there_is() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b"]);
    let mut consumer =
        Consumer::new(&log, ConsumerOptions { start: StartAt::Nowhere, ..options(Assignor::default()) })
            .expect("a consumer");
    consumer.subscribe(&["in"]).expect("subscribed");
    for _ in 0..2 {
        let error = consumer.poll(|_, _| ControlFlow::Continue(())).expect_err("nowhere");
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
        let said = error.to_string();
        assert!(said.contains("topic in, partition 0: group g has committed no offset"), "{said}");
        assert!(said.contains("0 to 2"), "{said}");
    }
    consumer.seek(&tp("in", 0), Offset(1)).expect("assigned");
    assert_eq!(poll(&mut consumer), ["b"]);
}

#[test]
fn reading_begins_at_records_of_an_age_or_at_the_end() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["at 0"]);
    log.clock.advance(Duration::from_secs(5));
    append(&log, &tp("in", 0), &["at 5"]);
    log.clock.advance(Duration::from_secs(2));
    let from = |start| {
        let options = ConsumerOptions { start, group: None, ..options(Assignor::default()) };
        poll(&mut Consumer::of_topic(&log, "in", options).expect("a consumer"))
    };
    assert_eq!(from(StartAt::Ago(Duration::from_secs(7))), ["at 0", "at 5"]);
    assert_eq!(from(StartAt::Ago(Duration::from_secs(6))), ["at 5"]);
    assert_eq!(from(StartAt::Ago(Duration::from_secs(1))), [""; 0]);
    assert_eq!(from(StartAt::End), [""; 0]);
    assert_eq!(from(StartAt::Ago(Duration::MAX)), ["at 0", "at 5"]);
}

#[test]
fn where_records_were_deleted_before_they_were_read_reading_fails_or_starts_again() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a"]);
    append(&log, &tp("in", 0), &["b"]);
    append(&log, &tp("in", 0), &["c"]);
    let read = |out_of_range, start| {
        let options = ConsumerOptions { out_of_range, start, group: None, ..options(Assignor::default()) };
        let mut consumer = Consumer::of_topic(&log, "in", options).expect("a consumer");
        consumer.seek(&tp("in", 0), Offset(1)).expect("assigned");
        let mut values = Vec::new();
        let read = consumer.poll(|_, record| {
            values.push(record.offset.0);
            ControlFlow::Continue(())
        });
        read.map(|_| values)
    };
    log.delete_records("in", PartitionId(0), Offset(2)).expect("deleted");
    let error = read(OutOfRange::Fail, StartAt::Beginning).expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    let said = error.to_string();
    assert!(said.contains("in") && said.contains("offset 1 is not between 2 and 3"), "{said}");
    assert_eq!(read(OutOfRange::StartAgain, StartAt::Beginning).expect("starts again"), [2]);
    assert_eq!(read(OutOfRange::StartAgain, StartAt::End).expect("starts again"), [0; 0]);
    let error = read(OutOfRange::StartAgain, StartAt::Nowhere).expect_err("nowhere to start");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
}

#[test]
fn a_stream_takes_part_in_its_group_and_commits_what_it_has_yielded() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b", "c"]);
    let mut stream = sticky(&log).into_stream();
    for _ in 0..2 {
        futures::executor::block_on(stream.next()).expect("endless").expect("readable");
    }
    stream.commit().expect("committed");
    let committed = CommittedOffsets::read(&log).expect("readable");
    assert_eq!(committed.get("g", &tp("in", 0)).expect("there").offset, Offset(2), "c was not yielded");
    drop(stream);
    let mut next = sticky(&log).into_stream();
    let record = futures::executor::block_on(next.next()).expect("endless").expect("readable");
    assert_eq!(record.offset, Offset(2));
    append(&log, &tp("in", 0), &["d"]);
    {
        let mut commit = std::pin::pin!(next.commit_async());
        assert!(commit.as_mut().now_or_never().is_none(), "it is not synced yet");
        while log.step().expect("it is open") {}
        commit.as_mut().now_or_never().expect("it is synced").expect("committed");
    }
    drop(next);
    let record = futures::executor::block_on(sticky(&log).into_stream().next()).expect("endless");
    assert_eq!(record.expect("readable").offset, Offset(3));
}

#[test]
fn members_in_threads_read_every_record_once() {
    const RECORDS: usize = 400;
    let log = Arc::new(TestLog::new(Drive::Thread));
    log.create_topic("in", 4);
    let read = Arc::new(AtomicUsize::new(0));
    let run = |name: &str| {
        let (log, read) = (log.clone(), read.clone());
        let body = move || {
            // However busy the machine is, nobody is removed.
            let patient =
                ConsumerOptions { poll_interval_max: Duration::MAX, ..options(Assignor::CooperativeSticky) };
            let mut consumer = Consumer::new(&log, patient).expect("a consumer");
            consumer.subscribe(&["in"]).expect("subscribed");
            consumer.set_rebalance_listener(Diary::default());
            while read.load(Ordering::SeqCst) < RECORDS {
                let count = consumer.poll(|_, _| ControlFlow::Continue(())).expect("readable");
                read.fetch_add(count, Ordering::SeqCst);
                consumer.wait(Duration::from_millis(5)).expect("open");
            }
            // One that left now, its positions not committed, would have another read its partitions again.
            consumer
        };
        crate::spawn::spawn(name, body).expect("a thread")
    };
    let threads = ["one", "two", "three"].map(run);
    for number in 0..RECORDS {
        append(&log, &tp("in", (number % 4) as i32), &["x"]);
    }
    let _consumers = threads.map(|thread| thread.join().expect("no panic"));
    assert_eq!(read.load(Ordering::SeqCst), RECORDS);
}

#[test]
fn nothing_is_written_for_a_consumer_that_has_never_polled() {
    let log = setup(1);
    let mut consumer = sticky(&log);
    consumer.subscribe(&["in"]).expect("once more");
    drop(consumer);
    assert!(log.topic(crate::group::OFFSETS_TOPIC).is_err());
    let error = log.delete_topic(offsets_partition(&log).expect("made").name().topic.as_str());
    assert_eq!(error.expect_err("it is internal").kind(), ErrorKind::Invalid);
}
