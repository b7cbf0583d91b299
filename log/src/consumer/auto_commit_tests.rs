//! Consumers that commit their positions by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::executor::block_on;
use futures::task::{ArcWake, waker};
use futures::{FutureExt, StreamExt};

use super::group_tests::{append, check_shared_out, options, owned, poll, settle, setup, sticky, tp};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::group::{Assignor, CommittedOffsets};
use crate::spawn::{Drive, spawn};
use crate::test_log::TestLog;

const EVERY: Duration = Duration::from_secs(5);

fn automatic(log: &TestLog) -> Consumer {
    let options = ConsumerOptions { auto_commit: Some(EVERY), ..options(Assignor::CooperativeSticky) };
    Consumer::new(log, options).expect("a consumer")
}

fn member(log: &TestLog) -> Consumer {
    let mut consumer = automatic(log);
    consumer.subscribe(&["in"]).expect("subscribed");
    consumer
}

/// Polls once for one record.
fn read_one(consumer: &mut Consumer) -> Option<i64> {
    let mut offset = None;
    let read = consumer.poll(|_, record| {
        offset = Some(record.offset.0);
        ControlFlow::Break(())
    });
    read.expect("readable");
    offset
}

/// What the group has committed for a partition, read anew.
fn committed(log: &TestLog, partition: i32) -> Option<i64> {
    let offsets = CommittedOffsets::read(log).expect("readable");
    offsets.get("g", &tp("in", partition)).map(|committed| committed.offset.0)
}

#[test]
fn what_was_given_before_is_committed_at_the_first_poll_after_the_interval() {
    for is_member in [true, false] {
        let log = setup(1);
        append(&log, &tp("in", 0), &["a", "b", "c", "d", "e"]);
        let mut consumer = automatic(&log);
        match is_member {
            true => consumer.subscribe(&["in"]).expect("subscribed"),
            false => consumer.assign(&[tp("in", 0)]).expect("there"),
        }
        assert_eq!(read_one(&mut consumer), Some(0));
        log.clock.advance(EVERY - Duration::from_millis(1));
        assert_eq!(read_one(&mut consumer), Some(1));
        assert_eq!(committed(&log, 0), None, "not yet");
        log.clock.advance(Duration::from_millis(1));
        assert_eq!(committed(&log, 0), None, "nobody polls");
        assert_eq!(read_one(&mut consumer), Some(2));
        assert_eq!(committed(&log, 0), Some(2), "not what this poll gives");
        assert_eq!(read_one(&mut consumer), Some(3));
        assert_eq!(committed(&log, 0), Some(2), "the next interval has begun");
        log.clock.advance(EVERY);
        assert_eq!(read_one(&mut consumer), Some(4));
        assert_eq!(committed(&log, 0), Some(4));
        drop(consumer);
        assert_eq!(committed(&log, 0), Some(5), "and all of it in the end");
    }
}

#[test]
fn nothing_is_committed_by_a_consumer_that_was_not_asked_to() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b"]);
    let mut consumer = sticky(&log);
    for _ in 0..3 {
        read_one(&mut consumer);
        log.clock.advance(EVERY);
    }
    consumer.unsubscribe().expect("nobody listens");
    drop(consumer);
    assert_eq!(committed(&log, 0), None);
}

#[test]
fn what_goes_to_others_is_committed_before_and_not_read_again() {
    for assignor in Assignor::ALL {
        let log = setup(4);
        let automatic = || {
            let options = ConsumerOptions { auto_commit: Some(EVERY), ..options(assignor) };
            let mut consumer = Consumer::new(&log, options).expect("a consumer");
            consumer.subscribe(&["in"]).expect("subscribed");
            consumer
        };
        for partition in 0..4 {
            append(&log, &tp("in", partition), &["once"]);
        }
        let mut first = automatic();
        assert_eq!(settle(&mut [&mut first]).len(), 4, "{assignor}");
        let mut second = automatic();
        assert_eq!(settle(&mut [&mut first, &mut second]), [""; 0], "{assignor}");
        check_shared_out(&[&first, &second], 4);
        assert_eq!(owned(&second).len(), 2, "{assignor}");
    }
}

#[test]
fn what_is_given_up_by_hand_is_committed() {
    let log = setup(2);
    append(&log, &tp("in", 0), &["a", "b"]);
    append(&log, &tp("in", 1), &["c"]);
    let mut consumer = automatic(&log);
    consumer.assign(&[tp("in", 0)]).expect("there");
    read_one(&mut consumer);
    consumer.assign(&[tp("in", 1)]).expect("there");
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(1), None));
    read_one(&mut consumer);
    consumer.subscribe(&["in"]).expect("subscribed");
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(1), Some(1)));
    assert_eq!(read_one(&mut consumer), Some(1), "it goes on there");
    consumer.unsubscribe().expect("nobody listens");
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(2), Some(1)));
}

#[test]
fn a_stream_commits_what_it_has_yielded_and_not_what_was_read_ahead() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b", "c", "d"]);
    let next = |stream: &mut RecordStream| {
        let next = stream.next().now_or_never().flatten();
        next.map(|record| record.expect("readable").offset.0)
    };
    let mut stream = member(&log).into_stream();
    assert_eq!([next(&mut stream), next(&mut stream)], [Some(0), Some(1)]);
    drop(stream);
    assert_eq!(committed(&log, 0), Some(2));
    let mut stream = member(&log).into_stream();
    assert_eq!(next(&mut stream), Some(2));
    log.clock.advance(EVERY);
    assert_eq!(next(&mut stream), Some(3));
    assert_eq!(committed(&log, 0), Some(2), "nothing was fetched meanwhile");
    assert_eq!(next(&mut stream), None);
    assert_eq!(committed(&log, 0), Some(4));
}

/// Counts how often a task is woken.
#[derive(Default)]
pub(super) struct Woken(pub(super) AtomicUsize);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn whoever_awaits_a_stream_is_woken_to_commit_though_no_record_comes() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b"]);
    let woken = Arc::<Woken>::default();
    let waker = waker(woken.clone());
    let mut stream = member(&log).into_stream();
    let mut poll = || stream.poll_next_unpin(&mut Context::from_waker(&waker));
    assert!(poll().is_ready() && poll().is_ready());
    let times_woken = || {
        while log.step().expect("it is open") {}
        woken.0.swap(0, Ordering::SeqCst)
    };
    // What the group does is over when nobody is woken any more.
    loop {
        assert!(matches!(poll(), Poll::Pending));
        if times_woken() == 0 {
            break;
        }
    }
    log.clock.advance(EVERY - Duration::from_millis(1));
    assert_eq!((times_woken(), committed(&log, 0)), (0, None), "not yet");
    log.clock.advance(Duration::from_millis(1));
    assert_eq!(times_woken(), 1);
    assert!(matches!(poll(), Poll::Pending));
    assert_eq!(committed(&log, 0), Some(2));
    drop(stream);
    // It leaves its group, which those are told who wait.
    times_woken();
    log.clock.advance(EVERY);
    assert_eq!(times_woken(), 0, "who is gone is not woken");
}

#[test]
fn however_often_a_consumer_commits_who_awaits_its_stream_is_not_woken_without_a_pause() {
    let log = setup(1);
    let options =
        ConsumerOptions { auto_commit: Some(Duration::ZERO), ..options(Assignor::CooperativeSticky) };
    let mut consumer = Consumer::new(&log, options).expect("a consumer");
    consumer.assign(&[tp("in", 0)]).expect("there");
    let woken = Arc::<Woken>::default();
    let waker = waker(woken.clone());
    let mut stream = consumer.into_stream();
    assert!(matches!(stream.poll_next_unpin(&mut Context::from_waker(&waker)), Poll::Pending));
    while log.step().expect("it is open") {}
    assert_eq!(woken.0.load(Ordering::SeqCst), 0, "it would be woken again and again");
}

#[test]
fn a_stream_that_nobody_steps_by_hand_commits_while_it_waits() {
    let log = TestLog::new(Drive::Thread);
    log.create_topic("in", 1);
    append(&log, &tp("in", 0), &["a", "b"]);
    // Longer than it takes to read what is there: then nobody comes by who would commit anyway.
    let every = Duration::from_millis(500);
    let options = ConsumerOptions { auto_commit: Some(every), ..options(Assignor::CooperativeSticky) };
    let mut consumer = Consumer::new(&log, options).expect("a consumer");
    consumer.subscribe(&["in"]).expect("subscribed");
    let reader = spawn("reader", move || {
        let mut stream = consumer.into_stream();
        for expected in 0..3 {
            let next = block_on(stream.next()).expect("it never ends");
            assert_eq!(next.expect("readable").offset, Offset(expected));
        }
    });
    let clock = SystemClock::new();
    while committed(&log, 0) != Some(2) {
        assert!(clock.elapsed() < Duration::from_secs(60), "nothing is committed while nothing comes");
        std::thread::yield_now();
    }
    append(&log, &tp("in", 0), &["c"]);
    reader.expect("a thread").join().expect("it has read all");
}

#[test]
fn neither_a_member_that_was_removed_nor_a_deleted_topic_stops_a_poll() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b", "c"]);
    let mut late = member(&log);
    assert_eq!(read_one(&mut late), Some(0));
    log.clock.advance(4 * EVERY);
    assert_eq!(read_one(&mut late), Some(0), "it was removed, and begins anew");
    let mut consumer = late;
    log.delete_topic("in").expect("deleted");
    log.create_topic("in", 1);
    append(&log, &tp("in", 0), &["new"]);
    log.clock.advance(EVERY);
    assert_eq!(poll(&mut consumer), ["new"]);
    log.delete_topic("in").expect("deleted");
    drop(consumer);
}

#[test]
fn a_commit_that_fails_is_told_by_the_poll_and_tried_again_in_time() {
    let log = setup(1);
    append(&log, &tp("in", 0), &["a", "b"]);
    let mut consumer = member(&log);
    read_one(&mut consumer);
    log.clock.advance(EVERY);
    log.fail_next_write();
    let mut poll = || consumer.poll(|_, _| ControlFlow::Break(()));
    assert_eq!(poll().expect_err("the disk has failed").kind(), ErrorKind::Io);
    assert_eq!(poll().expect("it is read on"), 1);
    log.clock.advance(EVERY);
    assert_eq!(poll().expect_err("the partition is poisoned").kind(), ErrorKind::Poisoned);
}

#[test]
fn without_a_group_there_is_nothing_to_commit_for() {
    let log = setup(1);
    let options = ConsumerOptions { auto_commit: Some(EVERY), ..ConsumerOptions::default() };
    assert_eq!(Consumer::new(&log, options).expect_err("no group").kind(), ErrorKind::Invalid);
}
