//! The consumer on a log in memory: what it is given, where it stands, what it commits.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};

use super::*;
use crate::batch::{BatchBuilder, Compression, MarkerKind, ProducerStamp};
use crate::group::{CommittedOffset, CommittedOffsets, OFFSETS_TOPIC, offsets_partition};
use crate::partition::{Durability, Isolation, Partition};
use crate::producer::{Producer, ProducerOptions};
use crate::record::{PartitionId, ProducerEpoch, ProducerId, Record, Sequence};
use crate::spawn::{self, Drive};
use crate::storage::SyncPurpose;
use crate::test_log::TestLog;

fn name(partition: i32) -> TopicPartition {
    TopicPartition::new("in", PartitionId(partition))
}

fn setup() -> TestLog {
    let log = TestLog::new(Drive::Manual);
    log.create_topic("in", 2);
    log
}

fn partition(log: &TestLog, name: &TopicPartition) -> Arc<Partition> {
    log.topic(&name.topic).expect("made").partition(name.partition).expect("there")
}

/// Where offsets are committed, which has been made.
fn home(log: &TestLog) -> Arc<Partition> {
    log.topic(OFFSETS_TOPIC).expect("made").partition(PartitionId(0)).expect("there")
}

fn batch(values: &[&str]) -> crate::batch::SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (index, value) in values.iter().enumerate() {
        builder.push(Timestamp(1_000 * index as i64), None, Some(value.as_bytes()), &[]).expect("fits");
    }
    builder.seal()
}

fn append(log: &TestLog, name: &TopicPartition, values: &[&str]) {
    let partition = partition(log, name);
    partition.append(batch(values)).expect("appended");
    log.flush(&[partition], SyncPurpose::Records).wait().expect("synced");
}

fn consumer(log: &TestLog, options: ConsumerOptions) -> Consumer {
    let mut consumer = Consumer::new(log, options).expect("a consumer");
    consumer.assign(&[name(0), name(1)]).expect("both exist");
    consumer
}

fn in_group(group: &str) -> ConsumerOptions {
    ConsumerOptions { group: Some(group.to_owned()), ..ConsumerOptions::default() }
}

/// Reads `count_max` records at most; gives partition, offset and value of each.
fn read(consumer: &mut Consumer, count_max: usize) -> Vec<(i32, i64, String)> {
    let mut read = Vec::new();
    while read.len() < count_max {
        let count = consumer.poll(|partition, record| {
            let value = String::from_utf8_lossy(record.value.expect("not null")).into_owned();
            read.push((partition.partition.0, record.offset.0, value));
            if read.len() < count_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if count.expect("readable") == 0 {
            break;
        }
    }
    read
}

fn values(read: Vec<(i32, i64, String)>) -> Vec<String> {
    read.into_iter().map(|(_, _, value)| value).collect()
}

#[test]
fn every_partition_is_read_in_order_and_they_take_turns() {
    let log = setup();
    append(&log, &name(0), &["a", "b"]);
    append(&log, &name(0), &["c"]);
    append(&log, &name(1), &["x"]);
    let mut consumer = consumer(&log, ConsumerOptions { fetch_bytes_max: 1, ..ConsumerOptions::default() });
    assert_eq!(consumer.lag(), 4);
    let expected = [(0, 0, "a"), (0, 1, "b"), (1, 0, "x"), (0, 2, "c")];
    let expected: Vec<_> =
        expected.map(|(partition, offset, value)| (partition, offset, value.to_owned())).into();
    assert_eq!(read(&mut consumer, 100), expected);
    assert_eq!(consumer.lag(), 0);
    assert_eq!(consumer.position(&name(0)).expect("assigned"), Offset(3));
}

#[test]
fn a_partition_that_is_assigned_twice_is_read_once_and_the_others_keep_their_order() {
    let log = setup();
    append(&log, &name(0), &["a", "b"]);
    append(&log, &name(1), &["x"]);
    let mut consumer = Consumer::new(&log, ConsumerOptions::default()).expect("a consumer");
    consumer.assign(&[name(1), name(0), name(1), name(0)]).expect("both exist");
    assert_eq!(consumer.assignment().collect::<Vec<_>>(), [&name(1), &name(0)]);
    assert_eq!(consumer.lag(), 3);
    assert_eq!(values(read(&mut consumer, 100)), ["x", "a", "b"]);
}

#[test]
fn a_consumer_that_breaks_off_goes_on_behind_the_record_it_broke_on() {
    let log = setup();
    append(&log, &name(0), &["a", "b", "c"]);
    let mut consumer = consumer(&log, ConsumerOptions::default());
    assert_eq!(values(read(&mut consumer, 2)), ["a", "b"]);
    assert_eq!(consumer.position(&name(0)).expect("assigned"), Offset(2));
    assert_eq!(values(read(&mut consumer, 100)), ["c"]);
}

#[test]
fn a_consumer_seeks_to_offsets_times_and_ends() {
    let log = setup();
    append(&log, &name(0), &["at 0s", "at 1s", "at 2s"]);
    let mut consumer = consumer(&log, ConsumerOptions::default());
    let mut from = |seek: &dyn Fn(&mut Consumer)| {
        seek(&mut consumer);
        values(read(&mut consumer, 100))
    };
    let (first, unassigned) = (&name(0), &name(7));
    assert_eq!(from(&|consumer| consumer.seek_to_end(first).expect("assigned")), [""; 0]);
    assert_eq!(from(&|consumer| consumer.seek(first, Offset(2)).expect("assigned")), ["at 2s"]);
    let at = |consumer: &mut Consumer, time| consumer.seek_to_time(first, Timestamp(time)).expect("readable");
    assert_eq!(from(&|consumer| assert_eq!(at(consumer, 1), Offset(1))), ["at 1s", "at 2s"]);
    assert_eq!(from(&|consumer| assert_eq!(at(consumer, 2_001), Offset(3))), [""; 0]);
    assert_eq!(from(&|consumer| consumer.seek_to_beginning(first).expect("assigned")).len(), 3);
    let error = consumer.seek(unassigned, Offset(0)).expect_err("not assigned");
    assert!(error.to_string().contains("topic in, partition 7"), "{error}");
}

#[test]
fn a_consumer_seeks_to_the_first_record_of_the_largest_timestamp_among_those_that_it_is_shown() {
    let log = setup();
    let target = partition(&log, &name(0));
    let write = |times: &[i64], stamp: Option<ProducerStamp>| {
        let mut builder = BatchBuilder::new(Compression::None);
        for time in times {
            builder.push(Timestamp(*time), None, Some(b"v"), &[]).expect("fits");
        }
        let mut batch = builder.seal();
        match stamp {
            Some(stamp) => {
                batch.stamp(Some(stamp));
                target.append_to_transaction(batch).expect("appended");
            }
            None => drop(target.append(batch).expect("appended")),
        }
        log.flush(std::slice::from_ref(&target), SyncPurpose::Records).wait().expect("synced");
    };
    let mut shown_all = consumer(&log, ConsumerOptions::default());
    let sought = |consumer: &mut Consumer| {
        let sought = consumer.seek_to_max_timestamp(&name(0)).expect("readable");
        assert_eq!(consumer.position(&name(0)).expect("assigned"), sought);
        sought.0
    };
    assert_eq!(sought(&mut shown_all), 0, "there is no record");
    write(&[5, 9, 9, 2], None);
    assert_eq!(sought(&mut shown_all), 1);
    assert_eq!(read(&mut shown_all, 100).len(), 3);
    write(
        &[11],
        Some(ProducerStamp {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
            base_sequence: Sequence(0),
            transactional: true,
        }),
    );
    assert_eq!(sought(&mut shown_all), 4);
    let committed = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
    let mut shown_committed = consumer(&log, committed);
    assert_eq!(sought(&mut shown_committed), 1, "whether the last one counts is open");
    let error = shown_all.seek_to_max_timestamp(&name(7)).expect_err("not assigned");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn timestamps_before_1970_are_taken_and_found() {
    let log = setup();
    let producer = Producer::new(&log, ProducerOptions::default()).expect("a producer");
    let times = [i64::from(i32::MIN) * 1000, -2, -1, 0].map(Timestamp);
    for time in times {
        let record = Record { timestamp: Some(time), value: Some(Bytes::new()), ..Record::default() };
        producer.send_to("in", PartitionId(0), record).wait().expect("taken");
    }
    let mut consumer = consumer(&log, ConsumerOptions::default());
    let mut given = Vec::new();
    let read = consumer.read_to_end(|_, record| {
        given.push(record.timestamp);
        Ok::<_, Error>(())
    });
    assert_eq!((read.expect("readable"), &given[..]), (4, &times[..]));
    for (offset, time) in (0..).zip(times) {
        assert_eq!(consumer.seek_to_time(&name(0), time).expect("readable"), Offset(offset));
    }
}

#[test]
fn a_negative_position_is_outside_of_the_partition_and_the_lag_behind_it_does_not_overflow() {
    let log = setup();
    append(&log, &name(0), &["a", "b"]);
    let mut consumer = consumer(&log, ConsumerOptions::default());
    for offset in [-1, i64::MIN] {
        consumer.seek(&name(0), Offset(offset)).expect("assigned");
        let error = consumer.poll(|_, _| ControlFlow::Continue(())).expect_err("no record has it");
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    }
    assert_eq!(consumer.lag(), i64::MAX as u64);
}

#[test]
fn a_position_outside_of_the_partition_is_an_error_that_names_it() {
    let log = setup();
    append(&log, &name(1), &["a"]);
    let mut consumer = consumer(&log, ConsumerOptions::default());
    consumer.seek(&name(1), Offset(9)).expect("assigned");
    let error = consumer.poll(|_, _| ControlFlow::Continue(())).expect_err("out of range");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
}

#[test]
fn a_consumer_is_given_what_is_before_a_bad_batch_and_told_of_that_by_every_poll_that_comes_to_it() {
    let log = setup();
    for value in ["a", "b", "c", "d"] {
        append(&log, &name(0), &[value]);
    }
    append(&log, &name(1), &["x"]);
    let first =
        partition(&log, &name(0)).fetch(Offset(0), 1, Isolation::ReadUncommitted).expect("it is sound");
    log.damage("in-0/00000000000000000000.log", 2 * first.bytes.len() as u64 + 64);
    let mut consumer = consumer(&log, ConsumerOptions::default());
    let mut read = Vec::new();
    let note = |record: RecordView<'_>| String::from_utf8_lossy(record.value.expect("not null")).into_owned();
    let outcome = consumer.read_to_end(|_, record| {
        read.push(note(record));
        Ok::<_, Error>(())
    });
    let check = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("topic in, partition 0, offset 2: "), "{error}");
    };
    check(outcome.expect_err("a batch is bad"));
    assert_eq!(read, ["a", "b", "x"]);
    assert_eq!(consumer.position(&name(0)).expect("it is assigned"), Offset(2));
    append(&log, &name(1), &["y"]);
    let mut poll = || {
        consumer.poll(|_, record| {
            read.push(note(record));
            ControlFlow::Continue(())
        })
    };
    assert_eq!(poll().expect("the other one is sound"), 1);
    for _ in 0..3 {
        check(poll().expect_err("it is bad still"));
    }
    assert_eq!(read, ["a", "b", "x", "y"]);
}

#[test]
fn a_partition_that_is_not_there_cannot_be_assigned_and_nothing_changes() {
    let log = setup();
    let mut consumer = consumer(&log, ConsumerOptions::default());
    for missing in [name(2), TopicPartition::new("out", PartitionId(0))] {
        let error = consumer.assign(&[name(0), missing]).expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(consumer.assignment().count(), 2);
}

#[test]
fn a_group_goes_on_where_it_committed_and_others_do_not() {
    let log = setup();
    append(&log, &name(0), &["a", "b", "c"]);
    let mut first = consumer(&log, in_group("g"));
    assert_eq!(values(read(&mut first, 2)), ["a", "b"]);
    first.commit().expect("committed");
    assert_eq!(values(read(&mut first, 1)), ["c"]);
    drop(first);

    assert_eq!(values(read(&mut consumer(&log, in_group("g")), 100)), ["c"]);
    assert_eq!(values(read(&mut consumer(&log, in_group("h")), 100)), ["a", "b", "c"]);
    let from_end = ConsumerOptions { start: StartAt::End, ..in_group("i") };
    assert_eq!(values(read(&mut consumer(&log, from_end), 100)), [""; 0]);

    let committed = CommittedOffsets::read(&log).expect("readable");
    assert_eq!(committed.groups().collect::<Vec<_>>(), ["g"]);
    assert_eq!(committed.get("g", &name(0)).map(|committed| committed.offset), Some(Offset(2)));
    assert_eq!(committed.group("g").count(), 2, "positions that stand at the start are committed too");
}

#[test]
fn only_a_consumer_with_a_group_commits() {
    let log = setup();
    let error = consumer(&log, ConsumerOptions::default()).commit().expect_err("no group");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for name in ["", &"x".repeat(32_768)] {
        let error = Consumer::new(&log, in_group(name)).expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let client_id = "x".repeat(256);
    let error = Consumer::new(&log, ConsumerOptions { client_id, ..in_group("g") }).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn an_offset_of_a_topic_that_was_made_again_is_not_believed() {
    let log = setup();
    append(&log, &name(0), &["a", "b"]);
    let mut before = consumer(&log, in_group("g"));
    read(&mut before, 100);
    before.commit().expect("committed");
    drop(before);
    log.delete_topic("in").expect("deleted");
    log.create_topic("in", 2);
    append(&log, &name(0), &["new", "newer", "newest"]);
    assert_eq!(values(read(&mut consumer(&log, in_group("g")), 100)), ["new", "newer", "newest"]);
}

#[test]
fn what_was_read_is_synced_before_its_offset_is_committed() {
    let log = TestLog::new(Drive::Manual);
    let topic = log.create_topic_with("in", 2, Durability::Os);
    let partition = &topic.partitions()[0];
    partition.append(batch(&["a", "b"])).expect("appended");
    let mut consumer = consumer(&log, in_group("g"));
    assert_eq!(read(&mut consumer, 100).len(), 2);
    assert_eq!(partition.offsets().durable, Offset(0));
    consumer.commit().expect("committed");
    assert_eq!(partition.offsets().durable, Offset(2));
}

#[test]
fn an_awaited_commit_writes_nothing_before_what_was_read_is_synced_and_ends_when_it_is_durable_itself() {
    let log = TestLog::new(Drive::Manual);
    let topic = log.create_topic_with("in", 2, Durability::Os);
    topic.partitions()[0].append(batch(&["a", "b"])).expect("appended");
    let mut consumer = consumer(&log, in_group("g"));
    assert_eq!(read(&mut consumer, 100).len(), 2);
    let home = home(&log);
    let delayed = log.delay_syncs();
    let end_syncs = || {
        log.complete_syncs();
        while log.step().expect("it is open") {}
    };
    {
        let mut commit = std::pin::pin!(consumer.commit_async());
        assert!(commit.as_mut().now_or_never().is_none(), "what was read is not synced");
        assert_eq!(home.offsets().end, Offset(0));
        while log.step().expect("it is open") {}
        assert!(commit.as_mut().now_or_never().is_none(), "the sync has not ended");
        assert_eq!(home.offsets().end, Offset(0));
        end_syncs();
        assert_eq!(topic.partitions()[0].offsets().durable, Offset(2));
        assert!(commit.as_mut().now_or_never().is_none(), "the offset is not synced");
        assert_eq!(home.offsets().end, Offset(2), "one for each partition");
        while log.step().expect("it is open") {}
        end_syncs();
        commit.as_mut().now_or_never().expect("all is synced").expect("committed");
    }
    assert_eq!(home.offsets().durable, Offset(2));
    drop(delayed);
    assert_eq!(consumer.committed(&name(0)).expect("readable").expect("there").offset, Offset(2));
}

#[test]
fn a_commit_that_is_dropped_while_it_waits_can_be_made_again_and_is_durable_then() {
    // Dropped before it has written anything, and behind that.
    for waits in [1, 2] {
        let log = TestLog::new(Drive::Manual);
        let topic = log.create_topic_with("in", 2, Durability::Os);
        topic.partitions()[0].append(batch(&["a", "b"])).expect("appended");
        // A member writes only what it does not know to be committed.
        let mut consumer = Consumer::new(&log, in_group("g")).expect("a consumer");
        consumer.subscribe(&["in"]).expect("subscribed");
        assert_eq!(read(&mut consumer, 100).len(), 2);
        let settle = || while log.step().expect("it is open") {};
        settle();
        let home = home(&log);
        let before = home.offsets().end.0;
        let delayed = log.delay_syncs();
        let mut ends_within = |waits: usize| {
            let mut commit = std::pin::pin!(consumer.commit_async());
            for _ in 0..waits {
                if let Some(ended) = commit.as_mut().now_or_never() {
                    ended.expect("committed");
                    return true;
                }
                settle();
                log.complete_syncs();
                settle();
            }
            false
        };
        assert!(!ends_within(waits), "it waits for a sync each time");
        let written = home.offsets().end.0 - before;
        assert_eq!(written, if waits == 1 { 0 } else { 2 }, "one for each partition");
        assert!(!ends_within(1), "what it has not seen durable, it writes again and waits for");
        assert!(ends_within(3));
        assert_eq!(home.offsets().durable, home.offsets().end);
        assert!(home.offsets().end.0 > before + written, "it was written again");
        drop(delayed);
        assert_eq!(consumer.committed(&name(0)).expect("readable").expect("there").offset, Offset(2));
    }
}

#[test]
fn the_topic_of_offsets_is_there_once_partitions_are_assigned_and_only_for_who_can_commit() {
    let log = setup();
    append(&log, &name(0), &["a"]);
    let is_there = |log: &Log| log.topic(OFFSETS_TOPIC).is_ok();
    drop(consumer(&log, ConsumerOptions::default()));
    assert!(!is_there(&log), "there is no group");
    let other = log.open_read_only();
    let mut reader = Consumer::new(&other, in_group("g")).expect("a consumer");
    reader.assign(&[name(0)]).expect("it can be read");
    assert_eq!(values(read(&mut reader, 100)), ["a"]);
    assert_eq!(reader.commit().expect_err("it is read-only").kind(), ErrorKind::Closed);
    assert!(!is_there(&log) && !is_there(&other));
    drop(consumer(&log, in_group("g")));
    assert!(is_there(&log));
}

#[test]
fn no_committed_offset_is_lost_in_a_power_cut_and_none_lies_beyond_what_is_left() {
    for seed in 0..60 {
        let log = TestLog::crashing(seed);
        let topic = log.create_topic_with("in", 2, Durability::Os);
        offsets_partition(&log).expect("made");
        let mut consumer = consumer(&log, in_group("g"));
        log.pull_plug_after(seed % 20);
        let mut acknowledged = Offset(0);
        for _ in 0..5 {
            // Whatever fails from some point on: what was acknowledged before counts.
            let _ = topic.partitions()[0].append(batch(&["a", "b"]));
            let _ = consumer.poll(|_, _| ControlFlow::Continue(()));
            if consumer.commit().is_ok() {
                acknowledged = consumer.position(&name(0)).expect("assigned");
            }
        }
        drop((consumer, topic));
        let log = log.crash();
        let committed = CommittedOffsets::read(&log).expect("readable");
        let committed = committed.get("g", &name(0)).map_or(Offset(0), |committed| committed.offset);
        let end = partition(&log, &name(0)).offsets().end;
        assert!(
            acknowledged <= committed && committed <= end,
            "seed {seed}: {acknowledged} {committed} {end}"
        );
    }
}

#[test]
fn what_others_wrote_into_the_offsets_topic_is_understood_or_passed_over() {
    let log = setup();
    let offsets = offsets_partition(&log).expect("made");
    let mut builder = BatchBuilder::new(Compression::Lz4);
    let mut push = |key: &[u8], value: Option<&[u8]>| {
        builder.push(Timestamp(0), Some(key), value, &[]).expect("fits");
    };
    let value = b"\0\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0";
    push(b"\0\x01\0\x01a\0\x02in\0\0\0\0", Some(value));
    push(b"\0\x01\0\x01b\0\x02in\0\0\0\0", Some(value));
    push(b"\0\x01\0\x01b\0\x02in\0\0\0\0", None);
    push(b"\0\x02\0\x01a", Some(b"a group's metadata"));
    offsets.append(builder.seal()).expect("appended");
    log.flush(&[offsets], SyncPurpose::Records).wait().expect("synced");
    let committed = CommittedOffsets::read(&log).expect("readable");
    let expected = CommittedOffset {
        offset: Offset(5),
        topic_id: None,
        leader_epoch: None,
        committed_at: Timestamp(7),
        metadata: String::new(),
        at: Offset(0),
    };
    assert_eq!(committed.get("a", &name(0)), Some(&expected));
    assert_eq!(committed.get("b", &name(0)), None, "forgotten again");
}

#[test]
fn reading_committed_leaves_out_what_is_open_or_aborted() {
    let log = setup();
    let target = partition(&log, &name(0));
    let write = |producer: i64, values: &[&str]| {
        let mut batch = batch(values);
        batch.stamp(Some(ProducerStamp {
            id: ProducerId(producer),
            epoch: ProducerEpoch(0),
            base_sequence: Sequence(0),
            transactional: true,
        }));
        target.append_to_transaction(batch).expect("appended");
    };
    let end = |producer: i64, kind| {
        let marker = target.append_marker(kind, ProducerId(producer), ProducerEpoch(0), 0);
        marker.expect("appended").expect("it was open");
    };
    write(1, &["aborted 1", "aborted 2"]);
    write(2, &["committed"]);
    end(1, MarkerKind::Abort);
    end(2, MarkerKind::Commit);
    append(&log, &name(0), &["plain"]);
    write(3, &["open"]);
    append(&log, &name(0), &["behind the open one"]);

    let committed = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
    let mut committed = consumer(&log, committed);
    assert_eq!(values(read(&mut committed, 100)), ["committed", "plain"]);
    let mut uncommitted = consumer(&log, ConsumerOptions::default());
    assert_eq!(read(&mut uncommitted, 100).len(), 6, "all but the markers");
    end(3, MarkerKind::Commit);
    log.flush(std::slice::from_ref(&target), SyncPurpose::Markers).wait().expect("synced");
    assert_eq!(values(read(&mut committed, 100)), ["open", "behind the open one"]);
}

#[test]
fn a_consumer_that_waits_wakes_when_a_record_becomes_readable() {
    let log = Arc::new(setup());
    let mut consumer = consumer(&log, ConsumerOptions::default());
    assert_eq!(read(&mut consumer, 1), []);
    assert!(!consumer.wait(Duration::from_millis(1)).expect("open"), "there is nothing new");
    let writer = log.clone();
    let thread = spawn::spawn("writer", move || append(&writer, &name(0), &["a"])).expect("a thread");
    let mut got = Vec::new();
    while got.is_empty() {
        assert!(consumer.wait(Duration::from_secs(60)).expect("open"), "it is woken");
        got = read(&mut consumer, 1);
    }
    assert_eq!(values(got), ["a"]);
    thread.join().expect("no panic");
}

#[test]
fn a_stream_yields_what_is_there_and_what_comes_and_gives_its_position_back() {
    let log = setup();
    append(&log, &name(0), &["a", "b", "c"]);
    let mut stream = consumer(&log, ConsumerOptions::default()).into_stream();
    let next = futures::executor::block_on(stream.next()).expect("endless").expect("readable");
    let a =
        Record { value: Some(Bytes::from_static(b"a")), timestamp: Some(Timestamp(0)), ..Record::default() };
    assert_eq!(next, ConsumedRecord { partition: name(0), offset: Offset(0), record: a });
    let mut consumer = stream.into_consumer();
    assert_eq!(consumer.position(&name(0)).expect("assigned"), Offset(1), "b and c were not yielded");
    assert_eq!(values(read(&mut consumer, 100)), ["b", "c"]);

    let mut stream = consumer.into_stream();
    assert!(stream.next().now_or_never().is_none(), "it waits");
    append(&log, &name(1), &["d"]);
    let next = futures::executor::block_on(stream.next()).expect("endless").expect("readable");
    assert_eq!((next.partition, next.offset), (name(1), Offset(0)));
}
