//! What a producer does at its limits: deadlines, sizes, a buffer that is full, records without a key.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::FutureExt;

use super::*;
use crate::batch::{Compression, DecompressionBuffer};
use crate::clock::Clock;
use crate::partition::Isolation;
use crate::record::{Offset, PartitionId};
use crate::storage::memory::SyncMode;
use crate::test_log::TestLog;
use crate::topic::TopicConfig;

fn setup(options: ProducerOptions) -> (TestLog, Producer) {
    let log = TestLog::new(Drive::Manual);
    log.create_topic("in", 4);
    let producer = Producer::new(&log, options).expect("a producer");
    (log, producer)
}

fn value(bytes: usize) -> Record {
    Record { value: Some(Bytes::from(vec![b'x'; bytes])), ..Record::default() }
}

fn ends(log: &TestLog) -> Vec<i64> {
    let topic = log.topic("in").expect("made");
    topic.partitions().iter().map(|partition| partition.offsets().end.0).collect()
}

fn settled(future: SendFuture) -> Result<RecordPlace> {
    future.now_or_never().expect("it is settled")
}

/// Steps until there is nothing to do, without waiting for the storage.
fn settle(log: &TestLog, producer: &Producer) {
    while producer.step() | log.step().expect("it is open") {}
}

#[test]
fn a_batch_that_was_not_written_in_time_is_not_written_later() {
    let (log, producer) = setup(ProducerOptions::default());
    let late = producer.send_to("in", PartitionId(0), value(1));
    log.clock.advance(Duration::from_secs(120));
    let in_time = producer.send_to("in", PartitionId(1), value(1));
    settle(&log, &producer);
    let error = settled(late).expect_err("its time was over");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    for part in ["topic in, partition 0", "120s", "it was not written"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    producer.flush().expect("the other one is written");
    settled(in_time).expect("it is written");
    assert_eq!(ends(&log), [0, 1, 0, 0]);
    // Its topic is as good as before, and nothing of an idempotent producer is missing.
    producer.send_to("in", PartitionId(0), value(1)).wait().expect("it is written");
}

#[test]
fn a_batch_whose_sync_does_not_end_in_time_has_an_unknown_outcome() {
    let (log, producer) = setup(ProducerOptions { idempotent: true, ..ProducerOptions::default() });
    log.set_sync_mode(SyncMode::Delayed);
    let sent = producer.send_to("in", PartitionId(2), value(1));
    log.clock.advance(Duration::from_secs(119));
    settle(&log, &producer);
    assert_eq!(ends(&log), [0, 0, 1, 0], "it is written, and not synced");
    log.clock.advance(Duration::from_millis(999));
    settle(&log, &producer);
    let mut sent = sent;
    assert!((&mut sent).now_or_never().is_none());
    log.clock.advance(Duration::from_millis(1));
    settle(&log, &producer);
    let error = settled(sent).expect_err("its time is over");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("unknown"), "{error}");
    // It became durable after all, and what follows it goes on.
    log.complete_syncs();
    settle(&log, &producer);
    log.set_sync_mode(SyncMode::Immediate);
    let next = producer.send_to("in", PartitionId(2), value(1)).wait().expect("it is written");
    assert_eq!(next.offset, Offset(1));
}

#[test]
fn a_producer_that_lingers_beyond_its_deadline_is_refused() {
    let log = TestLog::new(Drive::Manual);
    let linger = Duration::from_secs(120);
    let error = Producer::new(&log, ProducerOptions { linger, ..ProducerOptions::default() });
    assert_eq!(error.expect_err("nothing could be delivered").kind(), ErrorKind::Invalid);
}

#[test]
fn a_record_that_is_too_large_is_refused_with_its_size_and_the_others_are_written() {
    let (log, producer) = setup(ProducerOptions { record_bytes_max: 500, ..ProducerOptions::default() });
    let to = PartitionId(0);
    let before = producer.send_to("in", to, value(10));
    let error = producer.send_to("in", to, value(500)).wait().expect_err("it is too large");
    let behind = producer.send_to("in", to, value(10));
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // A header of 61 bytes, and what a record takes beside its value.
    let said = error.to_string();
    assert!(said.contains("topic in") && said.contains("597 bytes") && said.contains("500"), "{said}");
    producer.flush().expect("the others are written");
    let places = [before, behind].map(|sent| settled(sent).expect("it is written").offset);
    assert_eq!(places, [Offset(0), Offset(1)]);
    log.topic("in").expect("made");
}

#[test]
fn a_record_that_is_too_large_for_its_topic_is_alone_in_its_batch() {
    let log = TestLog::new(Drive::Manual);
    let config = TopicConfig { batch_bytes_max: 400, ..TopicConfig::default() };
    log.create_topic_as("small", config);
    let producer = Producer::new(&log, ProducerOptions::default()).expect("a producer");
    let sent = [10, 10, 1000, 10].map(|bytes| producer.send("small", value(bytes)));
    producer.flush().expect_err("one of them is too large");
    let [first, second, large, last] = sent.map(settled);
    let error = large.expect_err("it is too large");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("topic small") && error.to_string().contains("400"), "{error}");
    let offsets = [first, second, last].map(|place| place.expect("it is written").offset.0);
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn whoever_waits_for_room_for_too_long_is_told_that_nothing_was_sent() {
    let options = ProducerOptions {
        buffer_bytes_max: 1_000,
        linger: Duration::from_secs(1),
        max_block: Duration::from_secs(3),
        ..ProducerOptions::default()
    };
    let (log, producer) = setup(options);
    log.set_sync_mode(SyncMode::Delayed);
    drop(producer.send("in", value(600)));
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Box::pin(producer.send_async("in", value(600)));
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    settle(&log, &producer);
    log.clock.advance(Duration::from_secs(3));
    assert!(producer.shared.state.lock().next_to_give_up().is_some());
    settle(&log, &producer);
    assert!(producer.shared.state.lock().next_to_give_up().is_none(), "it is woken to give up");
    let Poll::Ready(Err(error)) = waiting.as_mut().poll(&mut context) else { panic!("it gives up") };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("not sent"), "{error}");
    log.complete_syncs();
    log.set_sync_mode(SyncMode::Immediate);
    producer.flush().expect("the first one is written");
    assert_eq!(ends(&log).iter().sum::<i64>(), 1);
}

#[test]
fn room_is_waited_for_without_blocking() {
    let log = TestLog::new(Drive::Thread);
    log.create_topic("in", 4);
    let options = ProducerOptions { buffer_bytes_max: 2_000, ..ProducerOptions::default() };
    let producer = Producer::new(&log, options).expect("a producer");
    let sent = (0..100).map(|_| producer.send_async("in", value(300)));
    let places = futures::executor::block_on(futures::future::try_join_all(sent)).expect("written");
    assert_eq!(places.len(), 100);
    assert_eq!(ends(&log).iter().sum::<i64>(), 100);
}

#[test]
fn whoever_names_a_partition_and_awaits_waits_for_room_without_blocking_and_is_told_where_there_is_no_such_one()
 {
    let (log, producer) = setup(ProducerOptions { buffer_bytes_max: 1_000, ..ProducerOptions::default() });
    // By its key it would go to partition 3.
    let record = || Record { key: Some(Bytes::from_static(b"abc")), ..value(600) };
    let mut context = Context::from_waker(Waker::noop());
    let mut first = Box::pin(producer.send_to_async("in", PartitionId(1), record()));
    assert!(first.as_mut().poll(&mut context).is_pending(), "it lingers");
    let mut dropped = Box::pin(producer.send_to_async("in", PartitionId(1), record()));
    let mut second = Box::pin(producer.send_to_async("in", PartitionId(2), record()));
    for waiting in [&mut dropped, &mut second] {
        assert!(waiting.as_mut().poll(&mut context).is_pending(), "there is no room");
    }
    drop(dropped);
    settle(&log, &producer);
    let Poll::Ready(place) = first.as_mut().poll(&mut context) else { panic!("it is written") };
    assert_eq!(place.expect("written").partition, PartitionId(1));
    assert!(second.as_mut().poll(&mut context).is_pending(), "there is room for it now");
    producer.flush().expect("written");
    let Poll::Ready(place) = second.as_mut().poll(&mut context) else { panic!("it is written") };
    assert_eq!(place.expect("written").partition, PartitionId(2));
    assert_eq!(ends(&log), [0, 1, 1, 0]);
    for partition in [-1, 4] {
        let sent = producer.send_to_async("in", PartitionId(partition), record());
        let error = futures::executor::block_on(sent).expect_err("0 to 3");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("topic in has no partition"), "{error}");
    }
}

#[test]
fn a_partition_that_is_named_is_taken_whatever_the_key_and_has_to_exist() {
    let (log, producer) = setup(ProducerOptions::default());
    // By its key it would go to partition 3.
    let record = || Record { key: Some(Bytes::from_static(b"abc")), ..value(1) };
    let place = producer.send_to("in", PartitionId(1), record()).wait().expect("it is there");
    assert_eq!((place.partition, ends(&log)), (PartitionId(1), vec![0, 1, 0, 0]));
    for partition in [-1, 4] {
        let error = producer.send_to("in", PartitionId(partition), record()).wait().expect_err("0 to 3");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("topic in has no partition"), "{error}");
    }
}

#[test]
fn batches_keep_to_what_their_topic_takes_also_once_it_takes_less() {
    let log = TestLog::new(Drive::Manual);
    let compression = Some(Compression::Lz4);
    log.create_topic("in", 1);
    let producer = Producer::new(
        &log,
        ProducerOptions { batch_bytes: 10_000, compression, ..ProducerOptions::default() },
    )
    .expect("a producer");
    for _ in 0..1_000 {
        drop(producer.send("in", value(1_000)));
    }
    producer.flush().expect("what compresses well fits");
    log.alter_topic("in", |config| config.batch_bytes_max = 5_000).expect("it can be altered");
    let mut state = 1u64;
    for _ in 0..1_000 {
        // Xorshift: does not compress.
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        let record = Record { value: Some(noise.take(1_000).collect()), ..Record::default() };
        drop(producer.send("in", record));
    }
    producer.flush().expect("each batch is as large as the topic takes");
    assert_eq!(ends(&log), [2_000]);
}

#[test]
fn partitions_that_are_added_get_their_share_and_the_others_go_on_without_a_gap() {
    let (log, producer) = setup(ProducerOptions {
        idempotent: true,
        partitioner: Partitioner::RoundRobin,
        ..ProducerOptions::default()
    });
    let send = |count: usize| (0..count).for_each(|_| drop(producer.send("in", value(10))));
    send(8);
    producer.flush().expect("written");
    send(4);
    log.alter_topic("in", |config| config.partitions = 6).expect("it can be altered");
    send(12);
    producer.flush().expect("written, in sequence");
    assert_eq!(ends(&log), [5, 5, 5, 5, 2, 2]);
}

#[test]
fn records_without_a_key_stick_to_a_partition_until_it_has_got_a_batch_however_often_that_is_written() {
    let (log, producer) = setup(ProducerOptions { batch_bytes: 1_000, ..ProducerOptions::default() });
    // A record is counted as 136 bytes at most: eight of them are more than a batch.
    for sent in 1..=8 {
        producer.send("in", value(100)).wait().expect("it is written");
        assert_eq!(ends(&log), [sent, 0, 0, 0], "each was a batch of its own");
    }
    producer.send("in", value(100)).wait().expect("it is written");
    assert_eq!(ends(&log), [8, 1, 0, 0]);
}

#[test]
fn what_is_sent_keeps_its_headers_their_order_and_their_repetitions() {
    let (log, producer) = setup(ProducerOptions::default());
    let header = |key: &'static str, value: Option<&'static [u8]>| crate::record::Header {
        key: key.into(),
        value: value.map(Bytes::from_static),
    };
    let headers = vec![header("b", Some(b"1")), header("a", None), header("b", Some(b""))];
    let record = Record { headers: headers.clone(), ..value(1) };
    producer.send_to("in", PartitionId(0), record).wait().expect("it is written");
    let partition = log.topic("in").expect("made").partition(PartitionId(0)).expect("it has four");
    let fetched = partition.fetch(Offset(0), 1 << 20, Isolation::ReadUncommitted).expect("it is sound");
    let mut scratch = DecompressionBuffer::new();
    let batch = fetched.batches().next().expect("there is one").expect("it is sound");
    let read = batch.records(&mut scratch).expect("it is sound").next().expect("there is one");
    let read = read.expect("it is sound");
    let found: Vec<_> = read.headers.iter().map(|header| (header.key, header.value)).collect();
    assert_eq!(found, [("b", Some(&b"1"[..])), ("a", None), ("b", Some(&b""[..]))]);
    assert!(log.clock.elapsed() == Duration::ZERO);
}
