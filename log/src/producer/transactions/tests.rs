//! A transactional producer on a log in memory.

use std::time::Duration;

use bytes::Bytes;

use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::ErrorKind;
use crate::partition::Isolation;
use crate::producer::{Producer, ProducerOptions};
use crate::record::{Offset, PartitionId, Record};
use crate::spawn::Drive;
use crate::test_log::TestLog;

fn log() -> TestLog {
    let log = TestLog::new(Drive::Manual);
    log.create_topic("in", 2);
    log
}

fn producer(log: &TestLog) -> Producer {
    let options = ProducerOptions {
        // Only ending a transaction writes what was sent into it.
        linger: Duration::from_secs(100),
        transactional_id: Some("t".to_owned()),
        ..ProducerOptions::default()
    };
    Producer::new(log, options).expect("a producer")
}

fn record(value: &str) -> Record {
    Record {
        key: Some(Bytes::copy_from_slice(value.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Record::default()
    }
}

fn committed(log: &TestLog) -> Vec<String> {
    let options = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
    let mut values = Vec::new();
    let mut consumer = Consumer::of_topic(log, "in", options).expect("made");
    consumer
        .read_to_end(|_, record| {
            let value = record.value.expect("not null");
            values.push(String::from_utf8(value.to_vec()).expect("UTF-8"));
            Ok::<_, crate::Error>(())
        })
        .expect("readable");
    values.sort();
    values
}

#[test]
fn what_was_sent_is_seen_when_its_transaction_is_committed_and_never_when_it_is_aborted() {
    let log = log();
    let producer = producer(&log);
    let send = |value: &str| drop(producer.send("in", record(value)));

    producer.begin_transaction().unwrap();
    ["a", "b", "c"].into_iter().for_each(send);
    assert_eq!(committed(&log), [""; 0]);
    producer.commit_transaction().unwrap();
    assert_eq!(committed(&log), ["a", "b", "c"]);

    producer.begin_transaction().unwrap();
    ["d", "e"].into_iter().for_each(send);
    producer.abort_transaction().unwrap();
    producer.begin_transaction().unwrap();
    ["f"].into_iter().for_each(send);
    producer.commit_transaction().unwrap();
    assert_eq!(committed(&log), ["a", "b", "c", "f"]);
}

#[test]
fn what_was_committed_is_there_after_a_power_cut() {
    let log = log();
    let producer = producer(&log);
    producer.begin_transaction().unwrap();
    let place = producer.send("in", record("a"));
    producer.commit_transaction().unwrap();
    assert_eq!(place.wait().unwrap().offset, Offset(0));
    producer.begin_transaction().unwrap();
    drop(producer.send("in", record("b")));

    log.pull_plug_after(0);
    drop(producer);
    let log = log.crash();
    assert_eq!(committed(&log), ["a"]);
}

#[test]
fn nothing_is_sent_outside_a_transaction() {
    let log = log();
    let producer = producer(&log);
    let refused = |producer: &Producer| producer.send("in", record("a")).wait().unwrap_err().kind();
    assert_eq!(refused(&producer), ErrorKind::TransactionState);
    producer.begin_transaction().unwrap();
    producer.commit_transaction().unwrap();
    assert_eq!(refused(&producer), ErrorKind::TransactionState);
    assert_eq!(log.topic("in").unwrap().partition(PartitionId(0)).unwrap().offsets().end, Offset(0));
}

#[test]
fn a_transaction_with_a_record_that_could_not_be_written_is_not_committed() {
    let log = log();
    let producer = producer(&log);
    producer.begin_transaction().unwrap();
    drop(producer.send("in", record("a")));
    drop(producer.send("not-there", record("b")));
    assert_eq!(producer.commit_transaction().unwrap_err().kind(), ErrorKind::NotFound);
    producer.abort_transaction().unwrap();
    assert_eq!(committed(&log), [""; 0]);

    producer.begin_transaction().unwrap();
    drop(producer.send("in", record("c")));
    producer.commit_transaction().unwrap();
    assert_eq!(committed(&log), ["c"]);
}

#[test]
fn a_second_producer_of_the_same_id_fences_the_first() {
    let log = log();
    let first = producer(&log);
    first.begin_transaction().unwrap();
    drop(first.send("in", record("a")));
    let second = producer(&log);
    assert_eq!(first.commit_transaction().unwrap_err().kind(), ErrorKind::Fenced);
    second.begin_transaction().unwrap();
    drop(second.send("in", record("b")));
    second.commit_transaction().unwrap();
    assert_eq!(committed(&log), ["b"]);
}

#[test]
fn only_a_transactional_producer_has_transactions() {
    let log = log();
    let plain = Producer::new(&log, ProducerOptions::default()).unwrap();
    assert_eq!(plain.begin_transaction().unwrap_err().kind(), ErrorKind::TransactionState);
    assert_eq!(plain.commit_transaction().unwrap_err().kind(), ErrorKind::TransactionState);
    assert_eq!(plain.abort_transaction().unwrap_err().kind(), ErrorKind::TransactionState);
}
