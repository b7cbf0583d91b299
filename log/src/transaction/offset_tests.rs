//! Offsets that a transaction commits for a consumer group: seen with it or not at all, whatever crashes.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::batch::{BatchBuilder, Compression, SealedBatch};
use crate::clock::ManualClock;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::{ErrorKind, Result};
use crate::group::{Assignor, CommittedOffsets, ConsumerGroupMetadata};
use crate::log::{Log, LogOptions};
use crate::partition::{Durability, Isolation};
use crate::record::{Offset, PartitionId, Timestamp, TopicPartition};
use crate::spawn::Drive;
use crate::storage::SyncPurpose;
use crate::storage::memory::MemoryStorage;
use crate::test_log::TestLog;
use crate::topic::TopicConfig;

/// How many records there are to be read.
const RECORDS: i64 = 6;

fn source() -> TopicPartition {
    TopicPartition::new("source", PartitionId(0))
}

fn batch(values: &[String]) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(Timestamp(0), None, Some(value.as_bytes()), &[]).expect("fits");
    }
    builder.seal()
}

fn committed_reader() -> ConsumerOptions {
    ConsumerOptions {
        isolation: Isolation::ReadCommitted,
        group: Some("g".to_owned()),
        assignor: Assignor::CooperativeSticky,
        ..ConsumerOptions::default()
    }
}

fn member(log: &Log) -> Consumer {
    let mut consumer = Consumer::new(log, committed_reader()).expect("a consumer");
    consumer.subscribe(&["source"]).expect("subscribed");
    consumer
}

/// Polls once; gives at most so many values.
fn read(consumer: &mut Consumer, count_max: usize) -> Result<Vec<String>> {
    let mut values = Vec::new();
    consumer.poll(|_, record| {
        values.push(String::from_utf8_lossy(record.value.expect("not null")).into_owned());
        if values.len() < count_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(values)
}

fn setup() -> TestLog {
    let log = TestLog::new(Drive::Manual);
    let topic = log.create_topic("source", 1);
    topic.partitions()[0].append(batch(&["a", "b", "c"].map(str::to_owned))).expect("appended");
    log.flush(topic.partitions(), SyncPurpose::Records).wait().expect("synced");
    log
}

fn committed(log: &Log) -> Option<i64> {
    let offsets = CommittedOffsets::read(log).expect("readable");
    offsets.get("g", &source()).map(|committed| committed.offset.0)
}

#[test]
fn offsets_of_a_transaction_count_once_it_is_committed_and_never_if_it_is_aborted() {
    let log = setup();
    let (mut consumer, producer) = (member(&log), log.transactional("t").expect("the id"));
    assert_eq!(read(&mut consumer, 1).expect("readable"), ["a"]);
    let send = |consumer: &Consumer| {
        let group = consumer.group_metadata().expect("a group");
        producer.send_offsets_to_transaction(&consumer.positions(), &group)
    };
    assert_eq!(send(&consumer).expect_err("none is open").kind(), ErrorKind::TransactionState);
    producer.begin().expect("begun");
    send(&consumer).expect("sent");
    assert_eq!(committed(&log), None, "not decided yet");
    producer.commit(&[]).wait().expect("committed");
    assert_eq!(committed(&log), Some(1));
    producer.begin().expect("begun");
    assert_eq!(read(&mut consumer, 1).expect("readable"), ["b"]);
    send(&consumer).expect("sent");
    producer.abort().expect("aborted");
    assert_eq!(committed(&log), Some(1));
    // Somebody else's commit counts at once, and is not undone by what was begun before it.
    producer.begin().expect("begun");
    send(&consumer).expect("sent");
    consumer.commit_offsets(&[(source(), Offset(3).into())]).expect("committed");
    assert_eq!(committed(&log), Some(3));
    producer.commit(&[]).wait().expect("committed");
    assert_eq!(committed(&log), Some(3), "what was written last counts");
}

#[test]
fn a_new_owner_waits_until_the_offset_of_an_open_transaction_is_decided() {
    let log = setup();
    let producer = log.transactional("t").expect("the id");
    let mut consumer = member(&log);
    assert_eq!(read(&mut consumer, 2).expect("readable"), ["a", "b"]);
    producer.begin().expect("begun");
    let group = consumer.group_metadata().expect("a group");
    producer.send_offsets_to_transaction(&consumer.positions(), &group).expect("sent");
    drop(consumer);
    let mut next = member(&log);
    assert_eq!(read(&mut next, 9).expect("readable"), [""; 0]);
    assert_eq!(next.assignment().count(), 1);
    assert_eq!(next.position(&source()).expect_err("undecided").kind(), ErrorKind::Retry);
    // A reader of everything does not wait.
    let hasty = ConsumerOptions { isolation: Isolation::ReadUncommitted, ..committed_reader() };
    let mut hasty = Consumer::new(&log, hasty).expect("a consumer");
    hasty.assign(&[source()]).expect("there");
    assert_eq!(hasty.position(&source()).expect("known"), Offset(0));
    producer.commit(&[]).wait().expect("committed");
    assert_eq!(read(&mut next, 9).expect("readable"), ["c"]);
}

#[test]
fn whoever_lost_its_partitions_cannot_commit_them_in_a_transaction() {
    let log = setup();
    let producer = log.transactional("t").expect("the id");
    let mut consumer = member(&log);
    read(&mut consumer, 9).expect("readable");
    let (positions, before) = (consumer.positions(), consumer.group_metadata().expect("a group"));
    let mut other = member(&log);
    read(&mut other, 9).expect("readable");
    read(&mut consumer, 9).expect("readable");
    producer.begin().expect("begun");
    let send = |group| producer.send_offsets_to_transaction(&positions, group);
    let error = send(&before).expect_err("of an earlier generation");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("group g"), "{error}");
    let present = consumer.group_metadata().expect("a group");
    let error = send(&present).expect_err("the transaction is without its offsets");
    assert_eq!(error.kind(), ErrorKind::TransactionState);
    let begin_anew = || {
        assert_eq!(producer.commit(&[]).wait().expect_err("as it is").kind(), ErrorKind::TransactionState);
        producer.abort().expect("aborted");
        producer.begin().expect("begun");
    };
    begin_anew();
    send(&present).expect("of the present one");
    drop(consumer);
    assert_eq!(send(&before).expect_err("gone").kind(), ErrorKind::Fenced);
    begin_anew();
    // Who has subscribed is nobody before the first poll, nor after having been removed.
    let mut fresh = Consumer::new(&log, committed_reader()).expect("a consumer");
    fresh.subscribe(&["source"]).expect("subscribed");
    let fresh = fresh.group_metadata().expect("a group");
    let error = send(&fresh).expect_err("no member yet");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    begin_anew();
    send(&ConsumerGroupMetadata::new("g")).expect("one that names no member is not fenced");
    producer.commit(&[]).wait().expect("committed");
    assert_eq!(committed(&log), Some(3));
}

/// A disk, and processes on it that copy from one topic to another, exactly once.
struct Copying {
    storage: Arc<MemoryStorage>,
}

impl Copying {
    fn open(&self) -> Result<Log> {
        let seed = self.storage.operations();
        Log::open("/log", LogOptions::manual(self.storage.mount(), ManualClock::new(), seed))
    }

    fn crash(&self) {
        self.storage.clear_faults();
        self.storage.crash();
    }

    /// Copies what there is, two records a transaction, and aborts each third one.
    fn run(&self) -> Result<()> {
        let log = self.open()?;
        let topic = |name, durability| {
            let config = TopicConfig { durability: Some(durability), ..TopicConfig::default() };
            match log.create_topic(name, config) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => log.topic(name),
                made => made,
            }
        };
        // The source is synced only because it is consumed.
        let source = topic("source", Durability::Os)?.partitions()[0].clone();
        let target = topic("target", Durability::Sync)?.partitions()[0].clone();
        let producer = log.transactional("copy")?;
        let mut consumer = Consumer::new(&log, committed_reader())?;
        consumer.subscribe(&["source"])?;
        for round in 0.. {
            let end = source.offsets().end.0;
            if end < RECORDS {
                source.append(batch(&[end.to_string()]))?;
            }
            let values = read(&mut consumer, 2)?;
            if values.is_empty() {
                return Ok(());
            }
            producer.begin()?;
            producer.append(&target, batch(&values))?;
            let group = consumer.group_metadata()?;
            producer.send_offsets_to_transaction(&consumer.positions(), &group)?;
            if round % 3 == 2 {
                producer.abort()?;
                let committed = consumer.committed(&self::source())?.map_or(Offset(0), |at| at.offset);
                consumer.seek(&self::source(), committed)?;
            } else {
                producer.commit(&[]).wait()?;
            }
        }
        Ok(())
    }

    /// What was copied is what was committed, and no more was committed than there is.
    fn check(&self, what: &str) {
        let log = self.open().expect("recovers");
        let committed = committed(&log).unwrap_or(0);
        let Ok(target) = log.topic("target") else { return assert_eq!(committed, 0, "{what}") };
        let partition = target.partitions()[0].name().clone();
        let options = ConsumerOptions { group: None, ..committed_reader() };
        let mut reader = Consumer::new(&log, options).expect("a consumer");
        reader.assign(&[partition]).expect("there");
        let mut copied = Vec::new();
        while let Ok(values) = read(&mut reader, 100) {
            if values.is_empty() {
                break;
            }
            copied.extend(values);
        }
        let expected: Vec<_> = (0..committed).map(|number| number.to_string()).collect();
        assert_eq!(copied, expected, "{what}");
        let end = log.topic("source").expect("made first").partitions()[0].offsets().end.0;
        assert!(committed <= end, "{what}: {committed} of {end} are committed");
    }
}

#[test]
fn whatever_operation_is_cut_off_what_was_copied_is_what_was_committed() {
    let operations = {
        let copying = Copying { storage: MemoryStorage::new(1) };
        copying.run().expect("nothing fails");
        copying.check("without a crash");
        copying.storage.operations()
    };
    for operation in 0..operations {
        let copying = Copying { storage: MemoryStorage::new(operation) };
        copying.storage.fail_after(operation);
        let what = format!("cut off at operation {operation}");
        // The last ones are those of closing, which nobody hears of.
        let _ = copying.run();
        copying.crash();
        copying.check(&what);
        copying.crash();
        // Cut off once more, on the way.
        copying.storage.fail_after(operation / 2);
        let _ = copying.run();
        copying.crash();
        copying.check(&what);
        copying.crash();
        copying.run().expect("nothing fails any more");
        copying.crash();
        copying.check(&what);
        let log = copying.open().expect("recovers");
        assert_eq!(committed(&log), Some(RECORDS), "{what}");
    }
}
