//! Static members of a group: who goes and comes back under its name.

use std::ops::ControlFlow;
use std::time::Duration;

use super::group_tests::{
    Diary, POLL_INTERVAL_MAX, append, check_shared_out, options, owned, poll, settle, setup, sticky, tp,
};
use super::*;
use crate::group::{Assignor, GroupState, ResetTo};
use crate::test_log::TestLog;

const SESSION: Duration = Duration::from_secs(4);

fn named(log: &TestLog, instance: &str, assignor: Assignor) -> Consumer {
    let instance_id = Some(instance.to_owned());
    let options = ConsumerOptions { instance_id, session_timeout: SESSION, ..options(assignor) };
    let mut consumer = Consumer::new(log, options).expect("a consumer");
    consumer.subscribe(&["in"]).expect("subscribed");
    consumer
}

fn generation(consumer: &Consumer) -> i32 {
    consumer.group_metadata().expect("a group").member.expect("a member").generation
}

fn pass(log: &TestLog, time: Duration) {
    log.clock.advance(time);
    while log.step().expect("open") {}
}

#[test]
fn a_static_member_that_comes_back_has_its_partitions_and_disturbs_nobody() {
    for assignor in Assignor::ALL {
        let log = setup(5);
        let (mut a, mut b) = (named(&log, "a", assignor), named(&log, "b", assignor));
        let diary = Diary::default();
        b.set_rebalance_listener(diary.clone());
        settle(&mut [&mut a, &mut b]);
        let (had, others, before) = (owned(&a), owned(&b), generation(&a));
        append(&log, &tp("in", had[0]), &["one", "two"]);
        a.poll(|_, _| ControlFlow::Break(())).expect("readable");
        a.commit().expect("committed");
        diary.take();
        drop(a);
        pass(&log, SESSION);
        settle(&mut [&mut b]);
        assert_eq!(
            (owned(&b), generation(&b)),
            (others.clone(), before),
            "{assignor}: it waits for the other"
        );
        let mut a = named(&log, "a", assignor);
        assert_eq!(poll(&mut a), ["two"], "{assignor}: at its first poll it goes on");
        settle(&mut [&mut a, &mut b]);
        assert_eq!((owned(&a), owned(&b)), (had, others), "{assignor}");
        assert_eq!((generation(&a), generation(&b)), (before, before), "{assignor}");
        assert_eq!(diary.take(), [""; 0], "{assignor}");
        a.commit().expect("it is who it was");
    }
}

#[test]
fn whoever_takes_the_name_of_a_static_member_fences_it() {
    let log = setup(2);
    let mut older = named(&log, "a", Assignor::CooperativeSticky);
    let diary = Diary::default();
    older.set_rebalance_listener(diary.clone());
    settle(&mut [&mut older]);
    append(&log, &tp("in", 0), &["one"]);
    assert_eq!(poll(&mut older), ["one"]);
    diary.take();
    let mut newer = named(&log, "a", Assignor::CooperativeSticky);
    assert_eq!(poll(&mut newer), ["one"], "nothing was committed");
    assert_eq!(older.commit().expect_err("fenced").kind(), ErrorKind::Fenced);
    for _ in 0..2 {
        let error = older.poll(|_, _| ControlFlow::Continue(())).expect_err("fenced");
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.to_string().contains("group g") && error.to_string().contains("member a,"), "{error}");
    }
    assert_eq!((diary.take(), owned(&older)), (vec!["lost 0 1".to_owned()], vec![]));
    newer.commit().expect("it is the member");
    drop(older);
    pass(&log, SESSION + Duration::from_millis(1));
    assert_eq!((poll(&mut newer), owned(&newer)), (vec![], vec![0, 1]), "that one has gone unnoticed");
}

#[test]
fn who_does_not_come_back_within_the_session_is_removed() {
    let log = setup(4);
    let sticky = Assignor::CooperativeSticky;
    let (mut a, mut b) = (named(&log, "a", sticky), named(&log, "b", sticky));
    settle(&mut [&mut a, &mut b]);
    assert_eq!((owned(&a).len(), owned(&b).len()), (2, 2));
    drop(a);
    let group = log.group("g").expect("known");
    let names: Vec<_> = group.members.iter().filter_map(|member| member.instance_id.as_deref()).collect();
    assert_eq!((names, group.state), (vec!["a", "b"], GroupState::Stable));
    pass(&log, SESSION);
    settle(&mut [&mut b]);
    assert_eq!(owned(&b).len(), 2, "not yet");
    pass(&log, Duration::from_millis(1));
    settle(&mut [&mut b]);
    check_shared_out(&[&b], 4);
    let mut a = named(&log, "a", sticky);
    settle(&mut [&mut a, &mut b]);
    check_shared_out(&[&a, &b], 4);
    assert_eq!((owned(&a).len(), owned(&b).len()), (2, 2));
    drop((a, b));
    let reset = || log.reset_offsets("g", &[tp("in", 0)], ResetTo::Earliest);
    assert_eq!(reset().expect_err("they may come back").kind(), ErrorKind::Locked);
    pass(&log, SESSION + Duration::from_millis(1));
    reset().expect("nobody is left");
}

#[test]
fn nobody_waits_for_a_static_member_that_is_away_and_it_gets_its_share_when_it_comes() {
    for assignor in Assignor::ALL {
        let log = setup(6);
        let (mut a, mut b) = (named(&log, "a", assignor), named(&log, "b", assignor));
        settle(&mut [&mut a, &mut b]);
        drop(a);
        let mut third = Consumer::new(&log, options(assignor)).expect("a consumer");
        third.subscribe(&["in"]).expect("subscribed");
        settle(&mut [&mut b, &mut third]);
        assert_eq!((owned(&b).len(), owned(&third).len()), (2, 2), "{assignor}");
        let made = generation(&b);
        let mut a = named(&log, "a", assignor);
        settle(&mut [&mut a, &mut b, &mut third]);
        check_shared_out(&[&a, &b, &third], 6);
        assert_eq!((generation(&a), generation(&b)), (made, made), "{assignor}");
    }
}

#[test]
fn a_static_member_that_comes_back_for_other_topics_gets_these() {
    let log = setup(2);
    log.create_topic("other", 2);
    let assignor = Assignor::CooperativeSticky;
    let (mut a, mut b) = (named(&log, "a", assignor), named(&log, "b", assignor));
    settle(&mut [&mut a, &mut b]);
    drop(a);
    let mut a = named(&log, "a", assignor);
    a.subscribe(&["other"]).expect("subscribed");
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.assignment().cloned().collect::<Vec<_>>(), [tp("other", 0), tp("other", 1)]);
    check_shared_out(&[&b], 2);
}

#[test]
fn a_static_member_that_unsubscribes_for_a_while_keeps_its_place() {
    let log = setup(4);
    let mut a = named(&log, "a", Assignor::CooperativeSticky);
    let mut b = sticky(&log);
    settle(&mut [&mut a, &mut b]);
    let (had, before) = (owned(&a), generation(&b));
    a.unsubscribe().expect("nobody listens");
    assert_eq!(owned(&a), []);
    settle(&mut [&mut b]);
    a.subscribe(&["in"]).expect("subscribed");
    settle(&mut [&mut a, &mut b]);
    assert_eq!((owned(&a), generation(&a), generation(&b)), (had, before, before));
}

#[test]
fn a_static_member_that_is_there_and_does_not_poll_is_removed_like_any_other() {
    let log = setup(2);
    let (mut a, mut b) = (named(&log, "a", Assignor::CooperativeSticky), sticky(&log));
    settle(&mut [&mut a, &mut b]);
    pass(&log, POLL_INTERVAL_MAX / 2);
    poll(&mut b);
    pass(&log, POLL_INTERVAL_MAX / 2 + Duration::from_millis(1));
    settle(&mut [&mut b]);
    check_shared_out(&[&b], 2);
    settle(&mut [&mut a, &mut b]);
    check_shared_out(&[&a, &b], 2);
    assert_eq!(owned(&a).len(), 1, "it has joined again");
}

#[test]
fn a_name_that_no_static_member_may_have_is_refused() {
    let log = setup(1);
    for wrong in ["", "a b", "ä", "a/b", &"a".repeat(250)] {
        let instance_id = Some(wrong.to_owned());
        let options = ConsumerOptions { instance_id, ..options(Assignor::Range) };
        let error = Consumer::new(&log, options).expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
    }
    named(&log, &"a".repeat(249), Assignor::Range);
}
