//! What consumers are told once their log is closed, or a topic that they read is deleted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use futures::task::waker;
use futures::{FutureExt, StreamExt};

use super::auto_commit_tests::Woken;
use super::group_tests::{Diary, append, options, settle, setup, sticky, tp};
use super::*;
use crate::batch::{BatchBuilder, Compression};
use crate::group::{Assignor, CommittedOffsets};
use crate::partition::Durability;
use crate::spawn::Drive;
use crate::test_log::TestLog;

const LONG: Duration = Duration::from_secs(60);

fn assigned(log: &Log) -> Consumer {
    let options = ConsumerOptions { fetch_bytes_max: 1, ..options(Assignor::CooperativeSticky) };
    let mut consumer = Consumer::new(log, options).expect("a consumer");
    consumer.assign(&[tp("in", 0)]).expect("there");
    consumer
}

/// Polls for one record.
fn poll_one(consumer: &mut Consumer) -> Result<usize> {
    consumer.poll(|_, _| ControlFlow::Break(()))
}

#[track_caller]
fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.expect_err("it is refused").kind()
}

/// Whatever is asked of it, and however often, it says that the log is closed.
#[track_caller]
fn check_closed(mut consumer: Consumer) {
    for _ in 0..3 {
        assert_eq!(kind(poll_one(&mut consumer)), ErrorKind::Closed);
        assert_eq!(kind(consumer.commit()), ErrorKind::Closed);
        assert_eq!(kind(consumer.commit_offsets(&[])), ErrorKind::Closed);
        let commit = consumer.commit_async().now_or_never().expect("nothing is to be waited for");
        assert_eq!(kind(commit), ErrorKind::Closed);
        assert_eq!(kind(consumer.wait(LONG)), ErrorKind::Closed);
    }
    let mut stream = consumer.into_stream();
    for _ in 0..3 {
        let next = stream.next().now_or_never().expect("it is not waited for");
        assert_eq!(kind(next.expect("it never ends")), ErrorKind::Closed);
        assert_eq!(kind(stream.commit()), ErrorKind::Closed);
        let commit = stream.commit_async().now_or_never().expect("nothing is to be waited for");
        assert_eq!(kind(commit), ErrorKind::Closed);
    }
}

#[test]
fn an_assigned_consumer_of_a_log_that_was_closed_says_so_whether_or_not_there_was_more_to_read() {
    for records_left in [0, 1] {
        let log = setup(1);
        append(&log, &tp("in", 0), &["a"]);
        append(&log, &tp("in", 0), &["b"]);
        let mut consumer = assigned(&log);
        for _ in records_left..2 {
            assert_eq!(poll_one(&mut consumer).expect("open"), 1);
        }
        log.close().expect("closed");
        check_closed(consumer);
    }
}

#[test]
fn a_consumer_of_a_log_that_was_opened_read_only_says_that_it_was_closed() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a"]);
    let other = log.open_read_only();
    let consumer = assigned(&other);
    other.close().expect("closed");
    check_closed(consumer);
}

#[test]
fn a_member_of_a_group_says_that_its_log_was_closed_and_not_that_it_was_fenced_or_has_committed() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a"]);
    let mut consumer = sticky(&log);
    let diary = Diary::default();
    consumer.set_rebalance_listener(diary.clone());
    assert_eq!(settle(&mut [&mut consumer]), ["a"]);
    diary.take();
    log.close().expect("closed");
    assert_eq!(kind(consumer.commit()), ErrorKind::Closed, "before it has polled too");
    check_closed(consumer);
    assert_eq!(diary.take(), [""; 0], "it was told that it lost something");
    let committed = CommittedOffsets::read(&log.open_read_only()).expect("readable");
    assert_eq!(committed.get("g", &tp("in", 0)), None);
}

/// Closes the log as soon as it is given partitions, and writes down what it is told after that.
struct Closing(Log, Diary);

impl RebalanceListener for Closing {
    fn on_partitions_assigned(&mut self, _: &mut Consumer, _: &[TopicPartition]) -> Result<()> {
        self.0.close()
    }

    fn on_partitions_revoked(
        &mut self,
        consumer: &mut Consumer,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        self.1.on_partitions_lost(consumer, partitions)
    }
}

#[test]
fn a_member_that_polls_while_its_log_is_closed_loses_nothing_and_says_that_it_was_closed() {
    let log = setup(1);
    let mut consumer = sticky(&log);
    let diary = Diary::default();
    consumer.set_rebalance_listener(Closing((*log).clone(), diary.clone()));
    let polled = (0..10).map(|_| poll_one(&mut consumer)).find(|polled| !matches!(polled, Ok(0)));
    assert_eq!(kind(polled.expect("it gets its share in so many polls")), ErrorKind::Closed);
    assert_eq!(diary.take(), [""; 0]);
    assert_eq!(consumer.assignment().count(), 1);
    check_closed(consumer);
}

#[test]
fn whoever_awaits_a_record_is_woken_by_the_closing_and_told_of_it() {
    let writing = setup(1);
    for log in [&*writing, &writing.open_read_only()] {
        let woken = Arc::<Woken>::default();
        let waker = waker(woken.clone());
        let mut stream = assigned(log).into_stream();
        let mut poll = || stream.poll_next_unpin(&mut Context::from_waker(&waker));
        assert!(poll().is_pending(), "there is no record");
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        log.close().expect("closed");
        assert!(woken.0.load(Ordering::SeqCst) > 0, "nobody wakes it any more");
        let Poll::Ready(Some(closed)) = poll() else { panic!("it has an answer") };
        assert_eq!(kind(closed), ErrorKind::Closed);
    }
}

#[test]
fn records_that_a_stream_has_read_ahead_are_not_yielded_once_the_log_is_closed_and_not_counted_as_read() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b"]);
    let mut stream = assigned(&log).into_stream();
    assert!(stream.next().now_or_never().flatten().is_some_and(|first| first.is_ok()));
    log.close().expect("closed");
    let next = stream.next().now_or_never().flatten().expect("it never ends");
    assert_eq!(kind(next), ErrorKind::Closed);
    assert_eq!(stream.into_consumer().position(&tp("in", 0)).expect("assigned"), Offset(1));
}

#[test]
fn a_commit_that_the_closing_overtakes_says_that_the_log_is_closed() {
    let log = TestLog::new(Drive::Manual);
    let topic = log.create_topic_with("in", 1, Durability::Os);
    let mut consumer = sticky(&log);
    settle(&mut [&mut consumer]);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(b"a"), &[]).expect("fits");
    topic.partitions()[0].append(builder.seal()).expect("appended");
    assert_eq!(settle(&mut [&mut consumer]), ["a"]);
    let mut commit = Box::pin(consumer.commit_async());
    let mut context = Context::from_waker(Waker::noop());
    {
        let _delayed = log.delay_syncs();
        assert!(commit.as_mut().poll(&mut context).is_pending(), "what was read is being synced");
    }
    while log.step().expect("open") {}
    log.close().expect("closed");
    let Poll::Ready(committed) = commit.as_mut().poll(&mut context) else { panic!("it was synced") };
    assert_eq!(kind(committed), ErrorKind::Closed);
}

#[test]
fn no_record_of_a_topic_that_was_deleted_is_given_whoever_deleted_it_and_whatever_files_are_open() {
    for is_remade in [false, true] {
        let log = setup(1);
        for value in ["a", "b", "c", "d"] {
            append(&log, &tp("in", 0), &[value]);
        }
        let other = log.open_read_only();
        let mut readers = [assigned(&log), assigned(&other), assigned(&other)];
        for reader in &mut readers {
            assert_eq!(poll_one(reader).expect("readable"), 1, "its file is open from now on");
        }
        let partition = other.topic("in").expect("there").partitions()[0].clone();
        log.delete_topic("in").expect("deleted");
        if is_remade {
            log.create_topic("in", 1);
        }
        let [here, there, follower] = &mut readers;
        for _ in 0..2 {
            assert_eq!(kind(poll_one(here)), ErrorKind::NotFound);
            assert_eq!(kind(poll_one(there)), ErrorKind::NotFound, "though it has not refreshed");
        }
        other.refresh().expect("readable");
        assert_eq!(kind(poll_one(follower)), ErrorKind::NotFound);
        let fetched = partition.fetch(Offset(1), 1, crate::partition::Isolation::ReadUncommitted);
        assert_eq!(
            kind(fetched),
            ErrorKind::NotFound,
            "whoever reads without a consumer is told once it has"
        );
    }
}
