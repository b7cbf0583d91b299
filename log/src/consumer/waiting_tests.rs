//! Members of a group that wait for records which do not come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::task::waker;

use super::auto_commit_tests::Woken;
use super::group_tests::{POLL_INTERVAL_MAX, append, options, poll, settle, setup, sticky, tp};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::group::{Assignor, GroupState};
use crate::spawn::spawn;
use crate::test_log::TestLog;

const LONG: Duration = Duration::from_secs(60);

fn step_all(log: &TestLog) {
    while log.step().expect("open") {}
}

/// The state of the group, its members, and how often it has shared out its partitions.
fn group(log: &TestLog) -> (GroupState, usize, i32) {
    let group = log.group("g").expect("there");
    (group.state, group.members.len(), group.generation)
}

#[test]
fn whoever_awaits_a_stream_stays_a_member_though_no_record_comes_and_is_woken_twice_a_poll_interval() {
    let log = setup(1);
    let woken = Arc::<Woken>::default();
    let waker = waker(woken.clone());
    let mut stream = sticky(&log).into_stream();
    let mut poll = || stream.poll_next_unpin(&mut Context::from_waker(&waker));
    let times_woken = || {
        step_all(&log);
        woken.0.swap(0, Ordering::SeqCst)
    };
    // What the group does is over when nobody is woken any more.
    loop {
        assert!(matches!(poll(), Poll::Pending));
        if times_woken() == 0 {
            break;
        }
    }
    let before = group(&log);
    assert_eq!((before.0, before.1), (GroupState::Stable, 1));
    for _ in 0..6 {
        log.clock.advance(POLL_INTERVAL_MAX / 2 - Duration::from_millis(1));
        assert_eq!(times_woken(), 0, "not yet");
        log.clock.advance(Duration::from_millis(1));
        assert_eq!(times_woken(), 1);
        assert!(matches!(poll(), Poll::Pending));
        assert_eq!(group(&log), before);
    }
    log.clock.advance(POLL_INTERVAL_MAX);
    assert_eq!(times_woken(), 1);
    log.clock.advance(Duration::from_millis(1));
    step_all(&log);
    assert_eq!(group(&log).0, GroupState::Empty, "whoever is woken and does not come awaits it no more");
}

#[test]
fn a_member_that_waits_is_heard_of_when_it_begins_to_and_one_that_should_poll_instead_is_not() {
    let log = setup(1);
    let mut consumer = sticky(&log);
    settle(&mut [&mut consumer]);
    let before = group(&log);
    for _ in 0..3 {
        log.clock.advance(POLL_INTERVAL_MAX);
        assert!(!consumer.wait(Duration::ZERO).expect("open"), "nothing comes");
        step_all(&log);
        assert_eq!(group(&log), before);
    }
    append(&log, &tp("in", 0), &["a"]);
    for _ in 0..3 {
        log.clock.advance(POLL_INTERVAL_MAX / 2);
        assert!(consumer.wait(LONG).expect("open"), "there is more to read");
        step_all(&log);
    }
    assert_eq!(group(&log).0, GroupState::Empty, "it has not polled for too long");
    assert_eq!(poll(&mut consumer), ["a"]);
}

#[test]
fn a_member_that_waits_for_longer_than_its_poll_interval_is_heard_of_all_the_while() {
    const INTERVAL: Duration = Duration::from_millis(20);
    let log = setup(1);
    let options = ConsumerOptions { poll_interval_max: INTERVAL, ..options(Assignor::CooperativeSticky) };
    let mut consumer = Consumer::new(&log, options).expect("a consumer");
    consumer.subscribe(&["in"]).expect("subscribed");
    settle(&mut [&mut consumer]);
    let before = group(&log);
    let waiting = spawn("wait", move || {
        assert!(consumer.wait(LONG).expect("open"), "a record comes in the end");
        consumer
    });
    let clock = SystemClock::new();
    for _ in 0..5 {
        log.clock.advance(INTERVAL);
        // Time stands still until it is heard of.
        while log.group_coordinator().deadline("g") != Some(log.clock.elapsed() + INTERVAL) {
            assert!(clock.elapsed() < LONG, "nothing is heard of it");
            std::thread::yield_now();
        }
    }
    step_all(&log);
    assert_eq!(group(&log), before);
    append(&log, &tp("in", 0), &["a"]);
    let mut consumer = waiting.expect("a thread").join().expect("no panic");
    assert_eq!(poll(&mut consumer), ["a"]);
}
