//! The producer on a log in memory: what is written when, where it goes, and what senders are told.

use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use super::*;
use crate::batch::{DecompressionBuffer, RecordBatch};
use crate::partition::Isolation;
use crate::record::{Offset, PartitionId, Sequence, Timestamp};
use crate::test_log::TestLog;

const LINGER: Duration = Duration::from_millis(5);

struct Setup {
    log: TestLog,
    producer: Producer,
}

fn setup(drive: Drive, options: ProducerOptions) -> Setup {
    let log = TestLog::new(drive);
    log.create_topic("in", 4);
    let producer = Producer::new(&log, options).expect("a producer");
    Setup { log, producer }
}

fn manual() -> Setup {
    setup(Drive::Manual, ProducerOptions { linger: LINGER, ..ProducerOptions::default() })
}

fn record(key: Option<&str>, value: &str) -> Record {
    Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Record::default()
    }
}

impl Setup {
    fn ends(&self) -> Vec<i64> {
        (0..4).map(|partition| self.log.partition(partition).offsets().end.0).collect()
    }
}

impl TestLog {
    fn partition(&self, partition: i32) -> Arc<Partition> {
        self.topic("in").expect("made").partition(PartitionId(partition)).expect("one of four")
    }

    /// Calls `visit` with every batch of a partition.
    fn for_each_batch(&self, partition: i32, mut visit: impl FnMut(&RecordBatch<'_>)) {
        let partition = self.partition(partition);
        let fetched = partition.fetch(Offset(0), 1 << 30, Isolation::ReadUncommitted).expect("readable");
        fetched.batches().for_each(|batch| visit(&batch.expect("sound")));
    }

    fn values(&self, partition: i32) -> Vec<String> {
        let mut values = Vec::new();
        let mut scratch = DecompressionBuffer::new();
        self.for_each_batch(partition, |batch| {
            for record in batch.records(&mut scratch).expect("sound") {
                let value = record.expect("sound").value.expect("not null");
                values.push(String::from_utf8(value.to_vec()).expect("UTF-8"));
            }
        });
        values
    }
}

#[test]
fn a_key_goes_to_kafkas_partition_and_the_future_says_where() {
    let setup = manual();
    let sent: Vec<_> =
        ["abc", "foobar", "abc"].map(|key| setup.producer.send("in", record(Some(key), "v"))).into();
    let places: Vec<_> = sent.into_iter().map(|future| future.wait().expect("written")).collect();
    // murmur2("abc") = 479470107, murmur2("foobar") without its sign = 1357151166
    let place = |partition, offset| RecordPlace { partition: PartitionId(partition), offset: Offset(offset) };
    assert_eq!(places, [place(3, 0), place(2, 0), place(3, 1)]);
}

#[test]
fn a_batch_waits_for_its_linger_and_is_settled_once_it_is_synced() {
    let setup = manual();
    let mut sent = setup.producer.send("in", record(Some("abc"), "v"));
    setup.log.clock.advance(LINGER - Duration::from_nanos(1));
    assert!(!setup.producer.step(), "nothing is due yet");
    assert_eq!(setup.ends(), [0, 0, 0, 0]);
    setup.log.clock.advance(Duration::from_nanos(1));
    assert!(setup.producer.step());
    assert_eq!(setup.ends(), [0, 0, 0, 1]);
    assert!((&mut sent).now_or_never().is_none(), "appended, but not synced");
    assert!(!setup.producer.step());
    while setup.log.step().expect("no error") {}
    assert!(setup.producer.step());
    assert_eq!(sent.now_or_never().expect("settled").expect("written").offset, Offset(0));
}

#[test]
fn a_topic_that_is_not_synced_settles_its_batches_at_once() {
    let setup = manual();
    setup.log.create_topic_with("fast", 1, crate::partition::Durability::Os);
    let sent = setup.producer.send("fast", record(None, "v"));
    setup.log.clock.advance(LINGER);
    assert!(setup.producer.step());
    assert_eq!(sent.now_or_never().expect("settled").expect("written").offset, Offset(0));
}

#[test]
fn records_without_a_key_fill_a_batch_of_one_partition_and_then_one_of_the_next() {
    let setup = setup(Drive::Manual, ProducerOptions { batch_bytes: 1_000, ..ProducerOptions::default() });
    for _ in 0..30 {
        drop(setup.producer.send("in", record(None, &"x".repeat(100))));
    }
    setup.producer.flush().expect("written");
    // A record takes at most 136 bytes and no less than 107; a header 61: 6 to 8 records a batch.
    let ends = setup.ends();
    assert_eq!(ends.iter().sum::<i64>(), 30);
    assert!(ends.iter().all(|end| (3..=14).contains(end)), "{ends:?}");
    for partition in 0..4 {
        setup.log.for_each_batch(partition, |batch| assert!(batch.bytes().len() <= 1_000));
    }
}

#[test]
fn a_round_robin_producer_takes_every_partition_in_turn() {
    let options = ProducerOptions { partitioner: Partitioner::RoundRobin, ..ProducerOptions::default() };
    let setup = setup(Drive::Manual, options);
    for index in 0..6 {
        drop(setup.producer.send("in", record(Some("same"), &index.to_string())));
    }
    setup.producer.flush().expect("written");
    let values: Vec<_> = (0..4).map(|partition| setup.log.values(partition)).collect();
    assert_eq!(values, [vec!["0", "4"], vec!["1", "5"], vec!["2"], vec!["3"]]);
}

#[test]
fn what_is_dropped_unawaited_is_written_when_the_producer_goes() {
    for drive in [Drive::Manual, Drive::Thread] {
        let options = ProducerOptions { linger: Duration::from_secs(100), ..ProducerOptions::default() };
        let Setup { log, producer } = setup(drive, options);
        drop(producer.send("in", record(Some("abc"), "v")));
        drop(producer);
        let partition = log.topic("in").expect("made").partition(PartitionId(3)).expect("there");
        assert_eq!(partition.offsets().durable, Offset(1), "{drive:?}");
    }
}

#[test]
fn a_record_carries_its_own_time_or_that_of_being_sent() {
    let setup = manual();
    setup.log.clock.advance(Duration::from_secs(7));
    drop(setup.producer.send("in", record(Some("abc"), "v")));
    drop(setup.producer.send("in", Record { timestamp: Some(Timestamp(3)), ..record(Some("abc"), "v") }));
    setup.producer.flush().expect("written");
    setup.log.for_each_batch(3, |batch| {
        let mut scratch = DecompressionBuffer::new();
        let records = batch.records(&mut scratch).expect("sound");
        let times: Vec<_> = records.map(|record| record.expect("sound").timestamp).collect();
        assert_eq!(times, [Timestamp(7_000), Timestamp(3)]);
    });
}

#[test]
fn a_full_buffer_makes_room_by_writing() {
    let options =
        ProducerOptions { buffer_bytes_max: 2_000, linger: Duration::from_secs(100), ..Default::default() };
    for drive in [Drive::Manual, Drive::Thread] {
        let setup = setup(drive, options.clone());
        let sent: Vec<_> =
            (0..100).map(|_| setup.producer.send("in", record(None, &"x".repeat(300)))).collect();
        assert!(setup.ends().iter().sum::<i64>() >= 90, "most had to be written to make room");
        setup.producer.flush().expect("written");
        assert!(sent.into_iter().all(|future| future.wait().is_ok()));
        let error =
            setup.producer.send("in", record(None, &"x".repeat(2_000))).wait().expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("topic in") && error.to_string().contains("2000"), "{error}");
    }
}

#[test]
fn sending_to_a_topic_that_does_not_exist_is_an_error_of_the_future() {
    let setup = manual();
    let error = setup.producer.send("nowhere", record(None, "v")).wait().expect_err("no such topic");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    setup.producer.flush().expect("nothing was on its way");
}

#[test]
fn a_producer_is_refused_a_level_of_compression_that_there_is_not() {
    let log = TestLog::new(Drive::Manual);
    let compression = Some(Compression::Gzip { level: 12 });
    let refused = Producer::new(&log, ProducerOptions { compression, ..ProducerOptions::default() });
    let error = refused.expect_err("there is no such level");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("gzip has no level 12: 1 to 9"), "{error}");
}

#[test]
fn the_batches_of_an_idempotent_producer_follow_each_other() {
    let setup = setup(Drive::Manual, ProducerOptions { idempotent: true, ..ProducerOptions::default() });
    for count in [2, 3, 1] {
        for _ in 0..count {
            drop(setup.producer.send("in", record(Some("abc"), "v")));
        }
        setup.producer.flush().expect("written");
    }
    let mut sequences = Vec::new();
    setup.log.for_each_batch(3, |batch| {
        let header = batch.header();
        assert!(header.is_idempotent() && !header.is_transactional);
        sequences.push(header.base_sequence);
    });
    assert_eq!(sequences, [Sequence(0), Sequence(2), Sequence(5)]);
}

#[test]
fn after_a_failed_sync_every_record_of_it_fails_and_so_does_the_next() {
    let setup = manual();
    let sent: Vec<_> = (0..3).map(|_| setup.producer.send("in", record(Some("abc"), "v"))).collect();
    setup.log.fail_sync_after_next_write();
    for future in sent {
        future.wait().expect_err("it was not synced");
    }
    let error = setup.producer.send("in", record(Some("abc"), "v")).wait().expect_err("poisoned");
    assert_eq!(error.kind(), ErrorKind::Poisoned);
}

#[test]
fn many_threads_send_and_each_ones_records_keep_their_order() {
    const THREADS: usize = 4;
    const RECORDS: usize = 2_000;
    let options = ProducerOptions {
        linger: Duration::from_millis(1),
        batch_bytes: 2_000,
        buffer_bytes_max: 20_000,
        ..ProducerOptions::default()
    };
    let setup = Arc::new(setup(Drive::Thread, options));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let setup = setup.clone();
            let body = move || {
                let key = format!("key {thread}");
                let sent: Vec<_> = (0..RECORDS)
                    .map(|index| {
                        setup.producer.send("in", record(Some(&key), &format!("{thread}:{index:05}")))
                    })
                    .collect();
                sent.into_iter().map(|future| future.wait().expect("written")).collect::<Vec<_>>()
            };
            spawn::spawn("sender", body).expect("a thread")
        })
        .collect();
    setup.producer.flush().expect("written");
    for thread in threads {
        let places = thread.join().expect("no panic");
        assert!(places.is_sorted_by_key(|place| place.offset), "one key, one partition, in order");
        assert!(places.windows(2).all(|pair| pair[0] != pair[1]));
    }
    let values: Vec<_> = (0..4).flat_map(|partition| setup.log.values(partition)).collect();
    assert_eq!(values.len(), THREADS * RECORDS);
    for thread in 0..THREADS {
        let own: Vec<_> = values.iter().filter(|value| value.starts_with(&format!("{thread}:"))).collect();
        assert!(own.len() == RECORDS && own.is_sorted());
    }
}

#[test]
fn a_sent_record_can_be_awaited() {
    let setup =
        setup(Drive::Thread, ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() });
    let sent = (0..10).map(|index| setup.producer.send("in", record(Some("abc"), &index.to_string())));
    let places = futures::executor::block_on(futures::future::try_join_all(sent)).expect("written");
    let offsets: Vec<_> = places.iter().map(|place| place.offset.0).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut_and_nothing_is_missing_before_it() {
    const RECORDS: usize = 40;
    for seed in 0..60 {
        let log = TestLog::crashing(seed);
        log.create_topic("in", 4);
        let options = ProducerOptions {
            linger: LINGER,
            batch_bytes: 300,
            idempotent: seed % 2 == 0,
            partitioner: Partitioner::RoundRobin,
            ..ProducerOptions::default()
        };
        let producer = Producer::new(&log, options).expect("a producer");
        log.pull_plug_after(seed % 30);
        let mut sent: Vec<_> = Vec::new();
        for index in 0..RECORDS {
            sent.push(producer.send("in", record(None, &format!("{index:03}"))));
            if index % 7 == 0 {
                log.clock.advance(LINGER);
                producer.step();
                let _ = log.step();
            }
        }
        let acknowledged = sent.into_iter().map(SendFuture::wait);
        let acknowledged: Vec<_> =
            acknowledged.enumerate().filter_map(|(index, place)| Some((index, place.ok()?))).collect();
        drop(producer);
        let log = log.crash();
        let found: Vec<_> = (0..4).map(|partition| log.values(partition)).collect();
        for (index, place) in acknowledged {
            let value = found[place.partition.0 as usize].get(place.offset.0 as usize);
            assert_eq!(value, Some(&format!("{index:03}")), "seed {seed}");
        }
        for (partition, values) in found.iter().enumerate() {
            let expected = (partition..RECORDS).step_by(4).map(|index| format!("{index:03}"));
            assert!(expected.take(values.len()).eq(values.iter().cloned()), "seed {seed}: {values:?}");
        }
    }
}

#[test]
fn a_flush_waits_for_all_records_also_behind_an_error() {
    let setup = manual();
    let out = setup.log.create_topic("out", 1).partition(PartitionId(0)).expect("it has one");
    drop(setup.producer.send("in", record(Some("abc"), "v")));
    drop(setup.producer.send("out", record(None, "v")));
    // The first batch cannot be written, the second one can.
    setup.log.fail_next_write();
    setup.producer.flush().expect_err("one of them was not written");
    assert_eq!(out.offsets().durable, Offset(1));
}

struct PanicWhenWoken;

impl Wake for PanicWhenWoken {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn nobody_waits_for_a_producer_whose_thread_has_panicked() {
    let long = Duration::from_secs(60);
    let options = ProducerOptions { linger: long, ..ProducerOptions::default() };
    let setup = setup(Drive::Thread, options);
    let (told, answers) = mpsc::channel();
    let body = move || {
        let mut first = setup.producer.send("in", record(Some("abc"), "v"));
        let waker = Waker::from(Arc::new(PanicWhenWoken));
        let polled = Pin::new(&mut first).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "it lingers");
        let second = setup.producer.send("in", record(Some("foobar"), "v"));
        let _ = setup.producer.flush();
        let _ = told.send(second.wait().map(drop));
        let _ = told.send(setup.producer.send("in", record(None, "v")).wait().map(drop));
    };
    crate::spawn::spawn("sender", body).expect("a thread");
    // The second was written with the first, and may or may not have been answered before the panic.
    let _ = answers.recv_timeout(long).expect("the second is answered");
    let third = answers.recv_timeout(long).expect("the third is answered");
    assert_eq!(third.expect_err("nobody writes it").kind(), ErrorKind::Closed);
}

#[test]
fn a_future_keeps_neither_the_producer_nor_the_log_open() {
    for drive in [Drive::Manual, Drive::Thread] {
        let log = TestLog::new(drive);
        log.create_topic("in", 4);
        let producer = Producer::new(&log, ProducerOptions::default()).expect("a producer");
        let future = producer.send("in", record(None, "a"));
        let shared = Arc::downgrade(&producer.shared);
        drop(producer);
        assert!(shared.upgrade().is_none());
        assert_eq!(future.wait().expect("it was written").offset, Offset(0));
    }
}
