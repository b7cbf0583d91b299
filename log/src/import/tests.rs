//! Imports from a directory as a broker leaves it. Lotic's own files have Kafka's format, so one of its logs,
//! without its catalogue, stands in for the broker's, and the checkpoint files are written beside it;
//! `tests/tests/kafka_files` does it with a real broker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, ProducerStamp, SealedBatch};
use crate::catalogue;
use crate::cleanup::CleanupPolicy;
use crate::clock::ManualClock;
use crate::files::Listing;
use crate::group::tests::any_commit;
use crate::group::{CommittedOffsets, OffsetCommit, offset_commits, offsets_partition};
use crate::log::LogOptions;
use crate::partition::{Isolation, Partition};
use crate::record::{ProducerEpoch, Sequence, Timestamp, TopicPartition};
use crate::storage::memory::MemoryStorage;
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::topic::{Topic, TopicConfig};
use crate::transaction::{TransactionRecord, TransactionStatus, encode_key};
use crate::verify::{WalkEnd, walk_log};

const BROKER: &str = "/broker";
const DATA: &str = "/data";

fn open(storage: &Arc<MemoryStorage>, directory: &str) -> Log {
    Log::open(directory, LogOptions::manual(storage.mount(), ManualClock::new(), 3))
        .expect("a log that opens")
}

/// Where the catalogue of the broker's stand-in is while it stands in.
const HIDDEN_CATALOGUE: &str = "hidden";

/// Takes the catalogue out of the broker's directory, or puts it back.
fn rename_catalogue(storage: &MemoryStorage, from: &str, to: &str) {
    let broker = Path::new(BROKER);
    storage.rename(&broker.join(from), &broker.join(to)).expect("it is there");
    storage.sync_dir(broker, SyncPurpose::Directory).expect("the disk is fine");
}

/// The log that stands in for the broker's.
fn open_broker(storage: &Arc<MemoryStorage>) -> Log {
    rename_catalogue(storage, HIDDEN_CATALOGUE, catalogue::FILE_NAME);
    open(storage, BROKER)
}

/// Leaves the broker's directory as a broker would.
fn stop_broker(storage: &MemoryStorage, log: Log) {
    log.close().expect("the disk is fine");
    drop(log);
    rename_catalogue(storage, catalogue::FILE_NAME, HIDDEN_CATALOGUE);
}

fn batch(values: &[&str], stamp: Option<ProducerStamp>) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(Timestamp(5), Some(b"key"), Some(value.as_bytes()), &[]).expect("it is small");
    }
    let mut batch = builder.seal();
    batch.stamp(stamp);
    batch
}

fn stamp(id: i64, epoch: i16, base_sequence: i32, transactional: bool) -> Option<ProducerStamp> {
    Some(ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(base_sequence),
        transactional,
    })
}

fn small(partitions: i32) -> TopicConfig {
    TopicConfig { partitions, segment_bytes: 400, index_interval_bytes: 100, ..TopicConfig::default() }
}

fn append(partition: &Partition, batch: SealedBatch) {
    partition.append_to_transaction(batch).expect("the disk is fine");
}

/// Two topics: `orders` of two partitions with several segments each and an idempotent producer 7, and
/// `users`. Everything is durable.
fn broker() -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(1);
    let log = open(&storage, BROKER);
    let orders = log.create_topic("orders", small(2)).expect("a new topic");
    for (index, partition) in orders.partitions().iter().enumerate() {
        for n in 0..12 {
            let value = format!("order-{index}-{n}");
            append(partition, batch(&[&value, "more"], stamp(7, 1, 2 * n, false)));
        }
    }
    let users = log.create_topic("users", small(1)).expect("a new topic");
    append(&users.partitions()[0], batch(&["ann"], None));
    stop_broker(&storage, log);
    storage
}

fn write(storage: &MemoryStorage, name: &str, text: &str) {
    write_bytes(storage, name, text.as_bytes());
}

fn write_bytes(storage: &MemoryStorage, name: &str, bytes: &[u8]) {
    let path = Path::new(BROKER).join(name);
    let file = storage.open(&path, OpenMode::Create).expect("a new file");
    file.write_at(0, bytes).expect("the disk is fine");
    file.sync(SyncPurpose::Directory).wait().expect("the disk is fine");
    storage
        .sync_dir(path.parent().expect("it is in a directory"), SyncPurpose::Directory)
        .expect("the disk is fine");
}

fn import(log: &Log) -> Result<Imported> {
    log.import_kafka_directory(Path::new(BROKER), &ImportOptions::default(), |_| {})
}

/// The offset and value of every record, by partition.
fn contents(log: &Log, isolation: Isolation) -> BTreeMap<TopicPartition, Vec<(i64, String)>> {
    let mut contents = BTreeMap::new();
    let mut scratch = DecompressionBuffer::new();
    for topic in log.topics().iter().filter(|topic| !topic.name().starts_with("__")) {
        for partition in topic.partitions() {
            let mut records = Vec::new();
            let mut next = partition.offsets().start;
            loop {
                let fetched = partition.fetch(next, 1 << 20, isolation).expect("it is sound");
                if fetched.next == next {
                    break;
                }
                for batch in fetched.committed() {
                    let batch = batch.expect("it is sound");
                    for record in batch.records(&mut scratch).expect("it is sound") {
                        let record = record.expect("it is sound");
                        let value = String::from_utf8(record.value.expect("it has one").to_vec());
                        records.push((record.offset.0, value.expect("it is text")));
                    }
                }
                next = fetched.next;
            }
            contents.insert(partition.name().clone(), records);
        }
    }
    contents
}

fn first_segment(topic: &str) -> PathBuf {
    Path::new(BROKER).join(topic).join("00000000000000000000.log")
}

#[test]
fn the_indexes_of_what_was_imported_are_noted_and_nothing_is_told_of_them_until_one_is_gone() {
    let storage = broker();
    let log = open(&storage, DATA);
    import(&log).expect("it is sound");
    log.close().expect("the disk is fine");
    let told = || -> Vec<_> {
        let walks = walk_log(&*storage, Path::new(DATA), Some("orders")).expect("it is there");
        assert!(walks.iter().all(|(_, walk)| walk.segments > 2 && walk.ending == WalkEnd::Complete));
        walks.into_iter().flat_map(|(_, walk)| walk.indexes).map(|damage| damage.file).collect()
    };
    assert_eq!(told(), [] as [PathBuf; 0]);
    let index = Path::new(DATA).join("orders-1/00000000000000000000.index");
    storage.remove_file(&index).expect("it is there");
    assert_eq!(told(), [index]);
}

#[test]
fn topics_keep_their_ids_offsets_and_records_and_go_on() {
    let storage = broker();
    let theirs = open_broker(&storage);
    let expected = contents(&theirs, Isolation::ReadUncommitted);
    let ids = |log: &Log| log.topics().iter().map(Topic::id).collect::<Vec<_>>();
    let their_ids = ids(&theirs);
    stop_broker(&storage, theirs);
    let log = open(&storage, DATA);
    let imported = import(&log).expect("it is sound");
    assert_eq!(contents(&log, Isolation::ReadUncommitted), expected);
    assert_eq!(ids(&log), their_ids);
    let orders = &imported.topics[0];
    assert_eq!((orders.name.as_str(), orders.was_there, orders.partitions.len()), ("orders", false, 2));
    let partition = &orders.partitions[1];
    assert_eq!((partition.start, partition.end, partition.records), (Offset(0), Offset(24), 24));
    assert!(partition.segments > 2 && partition.gaps == 0 && partition.torn.is_none(), "{partition:?}");

    // What producer 7 wrote last is known, and no new producer is taken for it.
    let partition = log.topic("orders").expect("it is there").partitions()[0].clone();
    let again =
        partition.append(batch(&["order-0-11", "more"], stamp(7, 1, 22, false))).expect("a repetition");
    assert!(again.duplicate && again.base_offset == Offset(22), "{again:?}");
    assert!(log.next_producer_id().expect("the disk is fine") > ProducerId(7));
    let appended = partition.append(batch(&["new"], None)).expect("the disk is fine");
    assert_eq!(appended.base_offset, Offset(24));
    log.close().expect("the disk is fine");

    let log = open(&storage, DATA);
    let again = import(&log).expect("it is there");
    assert!(again.topics.iter().all(|topic| topic.was_there), "{again:?}");
    assert_eq!(contents(&log, Isolation::ReadUncommitted)[partition.name()].len(), 25);
}

#[test]
fn an_import_that_is_cut_off_anywhere_leaves_whole_topics_and_is_finished_by_the_next() {
    let operations = (0..).find(|operation| !check_power_cut(*operation)).expect("it ends");
    assert!(operations > 20, "every write and sync was cut off once, {operations} in all");
}

/// One power cut in an import, or after it.
pub(crate) fn check_script(seed: u64) {
    check_power_cut(seed % 240);
}

/// Each partition says which topic it belongs to, as Kafka's tools would have it.
fn check_metadata(storage: &MemoryStorage, log: &Log) {
    for topic in log.topics() {
        for partition in topic.partitions() {
            let path = Path::new(DATA).join(partition.name().to_string()).join("partition.metadata");
            let text = String::from_utf8(storage.contents(&path).expect("it is there"));
            assert_eq!(text.expect("it is text"), format!("version: 0\ntopic_id: {}\n", topic.id()));
        }
    }
}

/// The power fails that many operations into an import, if it takes as many, which is finished by the next. Whether
/// it has.
fn check_power_cut(operation: u64) -> bool {
    let expected = contents(&open_broker(&broker()), Isolation::ReadUncommitted);
    let storage = broker();
    let log = open(&storage, DATA);
    storage.fail_after(operation);
    let outcome = import(&log);
    let was_cut = storage.is_unplugged();
    assert_eq!(outcome.is_err(), was_cut, "operation {operation}: {outcome:?}");
    drop(log);
    storage.clear_faults();
    storage.crash();
    let log = open(&storage, DATA);
    for (partition, records) in contents(&log, Isolation::ReadUncommitted) {
        assert_eq!(records, expected[&partition], "operation {operation}");
    }
    check_metadata(&storage, &log);
    import(&log).expect("the disk is fine again");
    assert_eq!(contents(&log, Isolation::ReadUncommitted), expected, "operation {operation}");
    check_metadata(&storage, &log);
    was_cut
}

#[test]
fn what_was_copied_whole_is_not_copied_again() {
    let storage = broker();
    let log = open(&storage, DATA);
    let before = storage.operations();
    import(&log).expect("it is sound");
    let whole = storage.operations() - before;

    let storage = broker();
    let log = open(&storage, DATA);
    // Before the last writes, which make the topic known, everything is copied.
    storage.fail_after(whole - 3);
    import(&log).expect_err("the plug is pulled");
    drop(log);
    storage.kill();
    let log = open(&storage, DATA);
    let before = storage.operations();
    import(&log).expect("the disk is fine again");
    let again = storage.operations() - before;
    assert!(2 * again < whole, "{again} operations after a start over, {whole} in all");
}

#[test]
fn damage_is_refused_by_file_and_leaves_no_topic() {
    let storage = broker();
    write(&storage, "recovery-point-offset-checkpoint", "0\n1\norders 0 24\n");
    storage.corrupt(&first_segment("orders-0"), 70, 1).expect("it exists");
    let log = open(&storage, DATA);
    let error = import(&log).expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("/broker/orders-0/00000000000000000000.log"), "{error}");
    assert!(log.topics().is_empty());
    let options = ImportOptions { topics: vec!["users".to_owned()], groups: false };
    log.import_kafka_directory(Path::new(BROKER), &options, |_| {}).expect("that one is sound");
    assert_eq!(log.topics().len(), 1);
}

#[test]
fn what_was_imported_is_known_to_be_synced() {
    let storage = broker();
    let log = open(&storage, DATA);
    import(&log).expect("it is sound");
    // It is not closed any more.
    storage.fail_after(0);
    drop(log);
    storage.crash();
    let copy = Path::new(DATA).join("users-0/00000000000000000000.log");
    storage.corrupt(&copy, 70, 1).expect("it exists");
    let options = LogOptions::manual(storage.mount(), ManualClock::new(), 3);
    assert_eq!(Log::open(DATA, options).expect_err("it is damaged").kind(), ErrorKind::Corrupt);
}

#[test]
fn a_torn_end_that_was_not_synced_is_left_out_and_reported() {
    let storage = broker();
    write(&storage, "recovery-point-offset-checkpoint", "0\n1\nusers 0 1\n");
    let path = first_segment("users-0");
    let file = storage.open(&path, OpenMode::Write).expect("it exists");
    let length = file.len().expect("the disk is fine");
    file.write_at(length, &[1; 50]).expect("the disk is fine");
    let log = open(&storage, DATA);
    let imported = import(&log).expect("it is only torn");
    let users = &imported.topics[1].partitions[0];
    let torn = users.torn.as_ref().expect("it is reported");
    assert_eq!((&torn.file, torn.position, users.end), (&path, length, Offset(1)));
    assert_eq!(file.len().expect("the disk is fine"), length + 50, "the broker's file is as it was");
    assert_eq!(contents(&log, Isolation::ReadUncommitted).len(), 3);
}

#[test]
fn a_log_that_ends_before_what_consumers_were_shown_is_refused() {
    let storage = broker();
    write(&storage, "replication-offset-checkpoint", "0\n1\nusers 0 2\n");
    let error = import(&open(&storage, DATA)).expect_err("a record is lost");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("/broker/users-0"), "{error}");
}

#[test]
fn the_start_is_taken_over_and_segments_before_it_stay_behind() {
    let storage = broker();
    // In the middle of a batch.
    write(&storage, "log-start-offset-checkpoint", "0\n1\norders 0 19\n");
    let log = open(&storage, DATA);
    let imported = import(&log).expect("it is sound");
    let partition = log.topic("orders").expect("it is there").partitions()[0].clone();
    let start = partition.offsets().start;
    assert_eq!((start, imported.topics[0].partitions[0].start), (Offset(19), Offset(19)));
    let directory = Path::new(DATA).join("orders-0");
    let first = Listing::read(&*storage, &directory).expect("the disk is fine").segments[0];
    assert!(first > Offset(0) && first < start, "{first}");
    let read = &contents(&log, Isolation::ReadUncommitted)[partition.name()];
    let (before, kept): (Vec<_>, Vec<_>) = read.iter().partition(|(offset, _)| *offset < start.0);
    assert!(before.len() <= 1 && kept.len() == 5, "a fetch gives whole batches: {read:?}");
    assert_eq!(
        partition.fetch(first, 100, Isolation::ReadUncommitted).expect_err("gone").kind(),
        ErrorKind::OffsetOutOfRange
    );
    assert!(imported.topics[0].partitions[0].records == 24, "all are checked");
    let again =
        partition.append(batch(&["order-0-11", "more"], stamp(7, 1, 22, false))).expect("a repetition");
    assert!(again.duplicate, "the producer is known");
}

#[test]
fn what_cannot_be_imported_is_refused_by_name() {
    let check = |storage: &Arc<MemoryStorage>, topics: &[&str], kind: ErrorKind, words: &[&str]| {
        let log = open(storage, DATA);
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        let options = ImportOptions { topics, groups: false };
        let error = log.import_kafka_directory(Path::new(BROKER), &options, |_| {}).expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
        log.close().expect("the disk is fine");
    };
    let storage = broker();
    check(&storage, &["oders"], ErrorKind::NotFound, &["oders", "did you mean orders?", "/broker"]);
    let log = open_broker(&storage);
    log.create_internal_topic("__consumer_offsets", small(1)).expect("a new topic");
    stop_broker(&storage, log);
    check(&storage, &["__consumer_offsets"], ErrorKind::Invalid, &["__consumer_offsets"]);

    write(&storage, "orders-0/00000000000000000000.log.swap", "");
    check(&storage, &["orders"], ErrorKind::Invalid, &["00000000000000000000.log.swap", "start it"]);

    let storage = broker();
    storage.remove_dir_all(&Path::new(BROKER).join("orders-0")).expect("it exists");
    check(&storage, &[], ErrorKind::Invalid, &["topic orders", "partition 0"]);

    let storage = broker();
    let log = open(&storage, DATA);
    // The log's first topic would have the id of the broker's first.
    log.create_topic("another", small(1)).expect("a new topic");
    log.create_topic("orders", small(1)).expect("a new topic");
    log.close().expect("the disk is fine");
    check(&storage, &["orders"], ErrorKind::AlreadyExists, &["orders"]);

    let storage = MemoryStorage::new(1);
    storage.create_dir_all(&Path::new(BROKER).join("dbus-1")).expect("the disk is fine");
    check(&storage, &[], ErrorKind::NotFound, &["/broker is no data directory of a Kafka broker"]);
    write(&storage, "meta.properties", "version=1\n");
    check(&storage, &[], ErrorKind::NotFound, &["/broker/dbus-1/partition.metadata"]);
    storage.remove_dir_all(&Path::new(BROKER).join("dbus-1")).expect("it exists");
    check(&storage, &[], ErrorKind::NotFound, &["/broker holds no partition of a Kafka broker"]);
    let storage = broker();
    storage.create_dir_all(&Path::new(BROKER).join("dbus-1")).expect("the disk is fine");
    check(&storage, &[], ErrorKind::NotFound, &["/broker/dbus-1/partition.metadata"]);

    let storage = broker();
    drop(open_broker(&storage));
    check(&storage, &[], ErrorKind::Invalid, &["/broker is a directory of Lotic", "/broker/catalogue"]);
}

#[test]
fn whose_settings_were_not_found_is_told_with_the_topic() {
    let found = |storage: &Arc<MemoryStorage>| {
        let log = open(storage, DATA);
        let told = |imported: Imported| -> Vec<_> {
            imported.topics.into_iter().map(|topic| (topic.name, topic.has_settings)).collect()
        };
        let first = told(import(&log).expect("it is sound"));
        assert_eq!(told(import(&log).expect("it is there")), first);
        let cleanup = |topic: &Topic| topic.config().cleanup;
        (first, log.topics().iter().map(cleanup).collect::<Vec<_>>())
    };
    let named = |orders, users| vec![("orders".to_owned(), orders), ("users".to_owned(), users)];
    let storage = broker();
    assert_eq!(found(&storage), (named(false, false), vec![CleanupPolicy::Delete; 2]));

    let storage = broker();
    write(&storage, "cleaner-offset-checkpoint", "0\n1\nusers 0 1\n");
    assert_eq!(found(&storage), (named(false, false), vec![CleanupPolicy::Delete, CleanupPolicy::Compact]));

    // A topic of this name, and a setting of it.
    let storage = broker();
    let mut builder = BatchBuilder::new(Compression::None);
    let id = [7; 16];
    let topic = [&[1, 2, 0, 7], &b"orders"[..], &id, &[0]].concat();
    let setting =
        [&[1, 4, 0, 2, 7], &b"orders"[..], &[15], b"cleanup.policy", &[8], b"compact", &[0]].concat();
    for value in [topic, setting] {
        builder.push(Timestamp(1), None, Some(&value), &[]).expect("it is small");
    }
    storage.create_dir_all(&Path::new(BROKER).join("__cluster_metadata-0")).expect("the disk is fine");
    let metadata = format!("version: 0\ntopic_id: {}\n", TopicId(Uuid::from_u128(1)));
    write(&storage, "__cluster_metadata-0/partition.metadata", &metadata);
    write_bytes(&storage, "__cluster_metadata-0/00000000000000000000.log", builder.seal().finish());
    assert_eq!(found(&storage), (named(true, false), vec![CleanupPolicy::Compact, CleanupPolicy::Delete]));
}

/// The broker decided to commit the transaction of producer 8 and had not said so in the partition; that of
/// producer 9 was going on.
#[test]
fn open_transactions_end_as_the_broker_has_decided() {
    let storage = broker();
    let log = open_broker(&storage);
    let payments = log.create_topic("payments", small(1)).expect("a new topic").partitions()[0].clone();
    append(&payments, batch(&["committed"], stamp(8, 0, 0, true)));
    append(&payments, batch(&["aborted"], stamp(9, 0, 0, true)));
    let config = TopicConfig { cleanup: CleanupPolicy::Compact, ..small(1) };
    let table = log.create_internal_topic("__transaction_state", config).expect("a new topic");
    let table = table.partitions()[0].clone();
    for (id, epoch, status) in [(8, 1, TransactionStatus::PrepareCommit), (9, 0, TransactionStatus::Ongoing)]
    {
        let record = TransactionRecord {
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(epoch),
            status,
            timeout_ms: 60_000,
            partitions: vec![payments.name().clone()],
            updated: Timestamp(1),
            started: Timestamp(1),
        };
        let mut builder = BatchBuilder::new(Compression::None);
        let key = encode_key(&format!("id-{id}"));
        builder.push(Timestamp(1), Some(&key), Some(&record.encode()), &[]).expect("it is small");
        append(&table, builder.seal());
    }
    stop_broker(&storage, log);

    let log = open(&storage, DATA);
    let imported = import(&log).expect("it is sound");
    let ended = &imported.topics[1].partitions[0].ended_transactions;
    assert_eq!(ended, &[(ProducerId(8), MarkerKind::Commit), (ProducerId(9), MarkerKind::Abort)]);
    let read = &contents(&log, Isolation::ReadCommitted)[payments.name()];
    assert_eq!(read, &[(0, "committed".to_owned())]);
    let names: Vec<_> = storage.list(Path::new(DATA)).expect("the disk is fine");
    assert!(names.iter().all(|entry| !entry.name.ends_with("-import")), "{names:?}");
}

/// Committed offsets that have come along outlive a power cut.
pub(crate) fn check_groups(seed: u64) {
    let storage = MemoryStorage::new(seed);
    let log = open(&storage, BROKER);
    let orders = log.create_topic("orders", small(1)).expect("a new topic");
    append(&orders.partitions()[0], batch(&["one", "two"], None));
    let name = TopicPartition::new("orders", PartitionId(0));
    let (topic_id, offset, metadata) = (orders.id(), Offset(2), String::new());
    let commit = OffsetCommit { partition: name.clone(), topic_id, offset, metadata };
    let offsets = offsets_partition(&log).expect("the disk is fine");
    append(&offsets, offset_commits("readers", &[commit], Timestamp(1)).expect("it is small"));
    stop_broker(&storage, log);

    // Ids of topics come of the seed: another one, so that none is like that of the topic which keeps its own.
    let open_data = || {
        let options = LogOptions::manual(storage.mount(), ManualClock::new(), 4);
        Log::open(DATA, options).expect("a log that opens")
    };
    let log = open_data();
    let options = ImportOptions { topics: Vec::new(), groups: true };
    let imported = log.import_kafka_directory(Path::new(BROKER), &options, |_| {}).expect("it is sound");
    assert_eq!(imported.committed_offsets, 1);
    storage.crash();
    drop(log);
    let offsets = CommittedOffsets::read(&open_data()).expect("it is sound");
    assert_eq!(offsets.get("readers", &name).map(|one| one.offset), Some(Offset(2)));
}

#[test]
fn committed_offsets_that_have_come_along_outlive_a_power_cut() {
    (0..20).for_each(check_groups);
}

#[test]
fn committed_offsets_come_along_if_asked_for_and_replace_none() {
    let storage = broker();
    let log = open_broker(&storage);
    let orders = log.topic("orders").expect("it is there");
    let commit = |partition: i32, offset: i64| OffsetCommit {
        partition: TopicPartition::new("orders", PartitionId(partition)),
        topic_id: orders.id(),
        offset: Offset(offset),
        metadata: String::new(),
    };
    let commit_all = |log: &Log, commits: &[OffsetCommit]| {
        let partition = offsets_partition(log).expect("the disk is fine");
        append(&partition, offset_commits("readers", commits, Timestamp(1)).expect("it is small"));
        log.flush(&[partition], SyncPurpose::Records).wait().expect("the disk is fine");
    };
    commit_all(&log, &[commit(0, 10), commit(1, 11)]);
    stop_broker(&storage, log);

    let log = open(&storage, DATA);
    import(&log).expect("it is sound");
    commit_all(&log, &[commit(1, 20)]);
    let options = ImportOptions { topics: Vec::new(), groups: true };
    let go = || log.import_kafka_directory(Path::new(BROKER), &options, |_| {}).expect("it is sound");
    assert_eq!(go().committed_offsets, 1);
    assert_eq!(go().committed_offsets, 0, "they are there");
    let offsets = CommittedOffsets::read(&log).expect("it is sound");
    let of = |partition| offsets.get("readers", &commit(partition, 0).partition).map(|one| one.offset);
    assert_eq!((of(0), of(1)), (Some(Offset(10)), Some(Offset(20))));
}

#[test]
fn negative_offsets_that_were_committed_with_the_broker_stay_behind() {
    let storage = broker();
    let log = open_broker(&storage);
    let name = |partition| TopicPartition::new("orders", PartitionId(partition));
    let offsets = offsets_partition(&log).expect("the disk is fine");
    append(&offsets, any_commit("readers", &name(0), -1));
    append(&offsets, any_commit("readers", &name(1), 1));
    stop_broker(&storage, log);

    let log = open(&storage, DATA);
    let options = ImportOptions { topics: Vec::new(), groups: true };
    let imported = log.import_kafka_directory(Path::new(BROKER), &options, |_| {}).expect("it is sound");
    assert_eq!(imported.committed_offsets, 1);
    let offsets = CommittedOffsets::read(&log).expect("it is sound");
    let of = |partition| offsets.get("readers", &name(partition)).map(|one| one.offset);
    assert_eq!((of(0), of(1)), (None, Some(Offset(1))));
}
