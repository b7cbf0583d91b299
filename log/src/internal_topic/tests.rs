//! What the log alone does with its internal topics, and what others may.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures::FutureExt;

use super::is_internal;
use crate::consumer::{Consumer, ConsumerOptions, OffsetAndMetadata};
use crate::error::{Error, ErrorKind};
use crate::group::{CommittedOffsets, ConsumerGroupMetadata, OFFSETS_TOPIC, offsets_partition};
use crate::log::Log;
use crate::partition::Partition;
use crate::producer::{Producer, ProducerOptions};
use crate::record::{Offset, PartitionId, Record, TopicPartition};
use crate::spawn::Drive;
use crate::test_log::TestLog;
use crate::topic::TopicConfig;
use crate::transaction::TRANSACTION_TOPIC;

const TOPICS: [&str; 2] = [TRANSACTION_TOPIC, OFFSETS_TOPIC];
const PARTITION: PartitionId = PartitionId(0);

/// A log in which a group has committed an offset of `in` in a transaction: it has both.
fn log() -> TestLog {
    let log = TestLog::new(Drive::Manual);
    log.create_topic("in", 1);
    let producer = log.transactional("t").expect("nobody else has it");
    producer.begin().expect("none is open");
    let group = ConsumerGroupMetadata { group: "g".to_owned(), member: None };
    let committed = OffsetAndMetadata { offset: Offset(0), metadata: String::new() };
    let offsets = [(TopicPartition::new("in", PARTITION), committed)];
    producer.send_offsets_to_transaction(&offsets, &group).expect("the disk is fine");
    producer.commit(&[]).wait().expect("the disk is fine");
    log
}

fn partition(log: &TestLog, topic: &str) -> Arc<Partition> {
    log.topic(topic).expect("made").partition(PARTITION).expect("there is one")
}

fn ends(log: &TestLog) -> [Offset; 2] {
    TOPICS.map(|topic| partition(log, topic).offsets().end)
}

#[track_caller]
fn check_refused(error: &Error, topic: &str) {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains(&format!("topic {topic} holds ")), "{error}");
}

#[test]
fn the_log_alone_makes_its_internal_topics() {
    let log = TestLog::new(Drive::Manual);
    let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
    let refused = || {
        for topic in TOPICS {
            assert!(is_internal(topic));
            let made = Log::create_topic(&log, topic, config.clone());
            check_refused(&made.expect_err("it is the log's own"), topic);
        }
    };
    refused();
    assert_eq!(log.topics().len(), 0);
    log.transactional("t").expect("nobody else has it");
    offsets_partition(&log).expect("the disk is fine");
    for topic in TOPICS {
        let made = log.topic(topic).expect("the log has made it");
        assert!(made.config().cleanup.compacts() && made.partitions().len() == 1, "{made:?}");
    }
    refused();
    log.create_topic("__mine", 3);
}

#[test]
fn no_records_are_deleted_from_an_internal_topic() {
    let log = log();
    for topic in TOPICS {
        for to in [Offset(0), partition(&log, topic).offsets().stable, Offset(1000)] {
            check_refused(&log.delete_records(topic, PARTITION, to).expect_err("it is the log's own"), topic);
        }
        check_refused(&log.delete_topic(topic).expect_err("it is the log's own"), topic);
        assert_eq!(partition(&log, topic).offsets().start, Offset(0));
    }
    let committed = CommittedOffsets::read(&log).expect("readable");
    assert!(committed.get("g", &TopicPartition::new("in", PARTITION)).is_some());
}

#[test]
fn no_producer_writes_to_an_internal_topic_and_each_goes_on_with_others() {
    let log = log();
    let before = ends(&log);
    let record = || Record { value: Some("v".into()), ..Record::default() };
    let producer = Producer::new(&log, ProducerOptions::default()).expect("a producer");
    for topic in TOPICS {
        let sent = [producer.send(topic, record()), producer.send_to(topic, PARTITION, record())];
        for sent in sent {
            check_refused(&sent.wait().expect_err("it is the log's own"), topic);
        }
        let awaited = producer.send_async(topic, record()).now_or_never().expect("it waits for nothing");
        check_refused(&awaited.expect_err("it is the log's own"), topic);
    }
    producer.flush().expect("there is nothing to be written");
    assert_eq!(ends(&log), before);
    assert_eq!(producer.send("in", record()).wait().expect("it is nobody's own").offset, Offset(0));
}

#[test]
fn internal_topics_are_read_like_all_others() {
    let log = log();
    for topic in TOPICS {
        let mut consumer = Consumer::new(&log, ConsumerOptions::default()).expect("a consumer");
        consumer.assign(&[TopicPartition::new(topic, PARTITION)]).expect("it is there");
        let read = consumer.poll(|_, _| ControlFlow::Continue(())).expect("it is sound");
        assert!(read > 0, "{topic}");
    }
}
