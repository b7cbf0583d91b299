//! A producer whose caller awaits, and never blocks: flushes, and ends of transactions.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::*;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::partition::Isolation;
use crate::test_log::TestLog;

/// Nothing is written before it has to be.
const LINGER: Duration = Duration::from_secs(100);

fn setup(drive: Drive, transactional_id: Option<&str>) -> (TestLog, Producer) {
    let log = TestLog::new(drive);
    log.create_topic("in", 2);
    let transactional_id = transactional_id.map(str::to_owned);
    let options = ProducerOptions { linger: LINGER, transactional_id, ..ProducerOptions::default() };
    let producer = Producer::new(&log, options).expect("a producer");
    (log, producer)
}

fn record(value: &'static str) -> Record {
    Record { value: Some(Bytes::from_static(value.as_bytes())), ..Record::default() }
}

/// How many records readers of committed ones see.
fn committed(log: &Log) -> usize {
    let options = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
    let mut count = 0;
    let mut consumer = Consumer::of_topic(log, "in", options).expect("made");
    let read = consumer.read_to_end(|_, _| {
        count += 1;
        Ok::<_, Error>(())
    });
    read.expect("readable");
    count
}

/// Steps until there is nothing to do, without waiting for the storage.
fn settle(log: &TestLog, producer: &Producer) {
    while producer.step() | log.step().expect("it is open") {}
}

/// Polls until there is an answer, stepping and ending syncs in between. It must not be there before a sync
/// has ended.
fn poll_while_syncs_end<T>(log: &TestLog, producer: &Producer, future: impl Future<Output = T>) -> T {
    const ROUNDS_MAX: usize = 10;
    let _delayed = log.delay_syncs();
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for round in 0..ROUNDS_MAX {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            assert!(round > 0, "nothing was synced");
            return answer;
        }
        settle(log, producer);
        if round == 0 {
            assert!(future.as_mut().poll(&mut context).is_pending(), "nothing was synced");
        }
        log.complete_syncs();
        settle(log, producer);
    }
    panic!("no answer after {ROUNDS_MAX} rounds")
}

#[test]
fn an_awaited_flush_writes_what_lingers_and_ends_when_it_is_durable() {
    let (log, producer) = setup(Drive::Manual, None);
    let places = [0, 1].map(|partition| producer.send_to("in", PartitionId(partition), record("v")));
    poll_while_syncs_end(&log, &producer, producer.flush_async()).expect("it is written");
    let topic = log.topic("in").expect("made");
    assert!(topic.partitions().iter().all(|partition| partition.offsets().durable.0 == 1));
    assert!(places.into_iter().all(|place| place.wait().is_ok()));
}

#[test]
fn an_awaited_flush_waits_for_all_records_also_behind_an_error() {
    let (log, producer) = setup(Drive::Manual, None);
    log.create_topic("out", 1);
    drop(producer.send("in", record("v")));
    drop(producer.send("out", record("v")));
    log.fail_next_write();
    poll_while_syncs_end(&log, &producer, producer.flush_async()).expect_err("one was not written");
    let out = log.topic("out").expect("made");
    assert_eq!(out.partition(PartitionId(0)).expect("it has one").offsets().durable.0, 1);
}

#[test]
fn an_awaited_commit_ends_when_readers_see_the_transaction_and_an_awaited_abort_when_none_is_left() {
    let (log, producer) = setup(Drive::Manual, Some("t"));
    producer.begin_transaction().expect("none is open");
    drop(producer.send("in", record("v")));
    poll_while_syncs_end(&log, &producer, producer.commit_transaction_async()).expect("it is committed");
    assert_eq!(committed(&log), 1);

    producer.begin_transaction().expect("the one before has ended");
    drop(producer.send("in", record("v")));
    poll_while_syncs_end(&log, &producer, producer.abort_transaction_async()).expect("it is aborted");
    producer.begin_transaction().expect("the one before has ended");
    assert_eq!(committed(&log), 1);
}

#[test]
fn an_awaited_commit_of_what_was_not_written_fails_and_leaves_the_transaction_to_be_aborted() {
    let (log, producer) = setup(Drive::Manual, Some("t"));
    producer.begin_transaction().expect("none is open");
    drop(producer.send_to("in", PartitionId(7), record("v")));
    let commit = producer.commit_transaction_async();
    let error = futures::FutureExt::now_or_never(commit).expect("nothing is to be waited for");
    assert_eq!(error.expect_err("there is no such partition").kind(), ErrorKind::NotFound);
    producer.abort_transaction().expect("it is open");
    assert_eq!(committed(&log), 0);
}

/// A transaction with a record that lingers.
fn lingering() -> (TestLog, Producer) {
    let (log, producer) = setup(Drive::Manual, Some("t"));
    producer.begin_transaction().expect("none is open");
    drop(producer.send("in", record("v")));
    (log, producer)
}

type Ending<'a> = std::pin::Pin<Box<dyn Future<Output = Result<()>> + 'a>>;
type End = for<'a> fn(&'a Producer) -> Ending<'a>;

/// Both ways to end a transaction, and how many records readers see then.
const ENDINGS: [(End, usize); 2] = [
    (|producer| Box::pin(producer.commit_transaction_async()), 1),
    (|producer| Box::pin(producer.abort_transaction_async()), 0),
];

fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_flush_that_is_dropped_while_it_waits_is_done_all_the_same() {
    let (log, producer) = setup(Drive::Manual, None);
    let place = producer.send_to("in", PartitionId(0), record("v"));
    {
        let mut flush = Box::pin(producer.flush_async());
        assert!(poll_once(&mut flush).is_pending(), "nothing is written yet");
    }
    settle(&log, &producer);
    let topic = log.topic("in").expect("made");
    assert_eq!(topic.partitions()[0].offsets().durable.0, 1, "though it lingers");
    place.wait().expect("it is written");
}

#[test]
fn an_end_that_is_dropped_while_it_waits_for_what_lingers_leaves_the_transaction_to_be_ended_either_way() {
    for (dropped, _) in ENDINGS {
        for (ended, count) in ENDINGS {
            for is_written in [false, true] {
                let (log, producer) = lingering();
                assert!(poll_once(&mut dropped(&producer)).is_pending(), "nothing is written yet");
                if is_written {
                    settle(&log, &producer);
                }
                assert!(producer.transactional().expect("it has an id").is_open(), "nobody ends it");
                let error = producer.begin_transaction().expect_err("one is open");
                assert_eq!(error.kind(), ErrorKind::TransactionState);
                assert_eq!(committed(&log), 0);
                poll_while_syncs_end(&log, &producer, ended(&producer)).expect("it is open");
                assert_eq!(committed(&log), count);
                producer.begin_transaction().expect("the one before has ended");
            }
        }
    }
}

#[test]
fn a_transaction_whose_end_was_dropped_while_it_waited_takes_no_more_records() {
    for (dropped, _) in ENDINGS {
        let (log, producer) = lingering();
        assert!(poll_once(&mut dropped(&producer)).is_pending(), "nothing is written yet");
        let refused = producer.send("in", record("late")).wait().expect_err("it is to be ended");
        assert_eq!(refused.kind(), ErrorKind::TransactionState);
        // Whoever has sent it counts on it: without it, nothing is committed.
        let error = producer.commit_transaction().expect_err("a record could not be written");
        assert_eq!(error.kind(), ErrorKind::TransactionState);
        producer.abort_transaction().expect("it is open");
        assert_eq!(committed(&log), 0);
    }
}

#[test]
fn an_end_that_is_dropped_once_it_has_begun_is_done_all_the_same() {
    const ROUNDS_MAX: usize = 10;
    for (ended, count) in ENDINGS {
        let (log, producer) = lingering();
        let delayed = log.delay_syncs();
        {
            let mut end = ended(&producer);
            let mut rounds = 0;
            while producer.transactional().expect("it has an id").is_open() {
                assert!(rounds < ROUNDS_MAX, "it has not begun after {ROUNDS_MAX} rounds");
                rounds += 1;
                settle(&log, &producer);
                assert!(poll_once(&mut end).is_pending(), "nothing is synced");
            }
        }
        let error = producer.begin_transaction().expect_err("the one before is ending");
        assert_eq!(error.kind(), ErrorKind::TransactionState);
        assert_eq!(committed(&log), 0);
        drop(delayed);
        settle(&log, &producer);
        assert_eq!(committed(&log), count);
        producer.begin_transaction().expect("the one before has ended");
    }
}

#[test]
fn whoever_awaits_is_woken_by_the_logs_thread() {
    let (log, producer) = setup(Drive::Thread, Some("t"));
    let (told, outcome) = std::sync::mpsc::channel();
    let body = move || {
        let written = futures::executor::block_on(async {
            for _ in 0..3 {
                producer.begin_transaction()?;
                drop(producer.send("in", record("v")));
                producer.flush_async().await?;
                producer.commit_transaction_async().await?;
                producer.begin_transaction()?;
                drop(producer.send("in", record("v")));
                producer.abort_transaction_async().await?;
            }
            Ok::<_, Error>(())
        });
        told.send(written.map(|()| committed(&log)))
    };
    let _thread = spawn::spawn("await", body).expect("a thread");
    let count = outcome.recv_timeout(Duration::from_secs(60)).expect("it is woken");
    assert_eq!(count.expect("all of it is written"), 3);
}
