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
