use std::collections::BTreeMap;
use std::sync::Arc;

use super::TransactionalProducer;
use super::early_sync::EARLY_SYNC_BYTES;
use super::record::Status;
use super::recovery::{Found, resolve};
use super::session::ProducerIdentity;
use super::table::Table;
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, MarkerKind, SealedBatch};
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::flusher::Flush;
use crate::log::{Log, LogOptions};
use crate::partition::{Durability, Isolation, Partition};
use crate::producer_state::OpenTransaction;
use crate::record::{Offset, ProducerEpoch, ProducerId, Timestamp};
use crate::storage::SyncPurpose;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::topic::{Topic, TopicConfig};

const DIRECTORY: &str = "/log";

fn open(storage: &Arc<MemoryStorage>) -> Log {
    Log::open(DIRECTORY, LogOptions::manual(storage.mount(), ManualClock::new(), 1)).unwrap()
}

fn topic(log: &Log, partitions: i32) -> Topic {
    log.create_topic("out", TopicConfig { partitions, ..TopicConfig::default() }).unwrap()
}

fn batch(value: &str) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(value.as_bytes()), &[]).unwrap();
    builder.seal()
}

fn values(partition: &Partition) -> Vec<String> {
    let fetched = partition.fetch(Offset(0), usize::MAX, Isolation::ReadCommitted).unwrap();
    let mut scratch = DecompressionBuffer::new();
    let mut values = Vec::new();
    for batch in fetched.committed() {
        for record in batch.unwrap().records(&mut scratch).unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

fn write(producer: &TransactionalProducer, partitions: &[Arc<Partition>], value: &str) {
    producer.begin().unwrap();
    for partition in partitions {
        producer.append(partition, batch(value)).unwrap();
    }
}

fn step_all(log: &Log) {
    while log.step().unwrap() {}
}

#[test]
fn records_are_seen_in_all_partitions_once_the_ticket_is_done_and_never_if_aborted() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 3);
    let producer = log.transactional("a").unwrap();
    write(&producer, out.partitions(), "kept");
    assert!(out.partitions().iter().all(|partition| values(partition).is_empty()));
    producer.commit(&[]).wait().unwrap();
    write(&producer, out.partitions(), "dropped");
    producer.abort().unwrap();
    write(&producer, out.partitions(), "kept too");
    producer.commit(&[]).wait().unwrap();
    for partition in out.partitions() {
        assert_eq!(values(partition), ["kept", "kept too"]);
    }
}

#[test]
fn readers_of_uncommitted_records_see_a_transaction_of_a_synced_topic_once_something_syncs_it() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 1);
    let partition = &out.partitions()[0];
    let shown = || {
        let fetched = partition.fetch(Offset(0), usize::MAX, Isolation::ReadUncommitted).unwrap();
        fetched.batches().map(|batch| batch.unwrap().header().is_control).collect::<Vec<_>>()
    };
    let producer = log.transactional("a").unwrap();
    write(&producer, out.partitions(), "aborted");
    step_all(&log);
    assert_eq!(shown(), [], "open");
    producer.abort().unwrap();
    step_all(&log);
    assert_eq!(shown(), [], "nobody waits for what was aborted");
    partition.append(batch("of no transaction")).unwrap();
    log.flush(out.partitions(), SyncPurpose::Records).wait().unwrap();
    assert_eq!(shown(), [false, true, false]);
    write(&producer, out.partitions(), "committed");
    step_all(&log);
    assert_eq!(shown().len(), 3, "open");
    producer.commit(&[]).wait().unwrap();
    assert_eq!(shown().len(), 4, "its records are synced before it is decided");
}

#[test]
fn a_large_transaction_is_synced_while_it_is_open_one_sync_at_a_time() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let synced = topic(&log, 1).partitions()[0].clone();
    let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
    let cached = log.create_topic("cached", config).unwrap().partitions()[0].clone();
    let producer = log.transactional("a").unwrap();
    let chunk = "x".repeat(EARLY_SYNC_BYTES / 4);
    producer.begin().unwrap();
    let append_and_step = |partition: &Arc<Partition>| {
        producer.append(partition, batch(&chunk)).unwrap();
        step_all(&log);
        partition.durable()
    };
    let end_syncs = || {
        while storage.complete_syncs() > 0 {
            step_all(&log);
        }
    };
    storage.set_sync_mode(SyncMode::Delayed);
    let begun: Vec<Offset> = (0..9).map(|_| append_and_step(&synced)).collect();
    assert_eq!(begun, [Offset(0); 9], "no sync has ended");
    end_syncs();
    assert_eq!(synced.durable(), Offset(4), "while the first was under way, there was no second");
    append_and_step(&synced);
    end_syncs();
    assert_eq!(synced.durable(), Offset(10));
    for _ in 0..9 {
        append_and_step(&cached);
    }
    end_syncs();
    assert_eq!(cached.durable(), Offset(0), "what nobody syncs is left alone");
    assert!(values(&synced).is_empty(), "durable is not committed");
    storage.set_sync_mode(SyncMode::Immediate);
}

#[test]
fn a_transaction_is_not_committed_when_a_sync_has_failed_while_it_was_open() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 1).partitions()[0].clone();
    let producer = log.transactional("a").unwrap();
    storage.set_sync_mode(SyncMode::Delayed);
    producer.begin().unwrap();
    producer.append(&out, batch(&"x".repeat(EARLY_SYNC_BYTES))).unwrap();
    step_all(&log);
    assert!(storage.fail_syncs(std::io::ErrorKind::Other) > 0, "one was under way");
    storage.set_sync_mode(SyncMode::Immediate);
    assert!(producer.commit(&[]).wait().is_err());
    drop((producer, out));
    drop(log);
    let log = open(&storage);
    let out = log.topic("out").unwrap().partitions()[0].clone();
    assert!(values(&out).is_empty());
}

#[test]
fn a_commit_takes_two_rounds_of_syncs() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 3);
    let producer = log.transactional("a").unwrap();
    for round in 0..3 {
        write(&producer, out.partitions(), "x");
        storage.set_sync_mode(SyncMode::Delayed);
        let ticket = producer.commit(&[]);
        step_all(&log);
        assert!(storage.complete_syncs() >= 3, "all partitions are synced at once");
        step_all(&log);
        assert!(ticket.outcome().is_none(), "round {round}: records alone do not commit");
        storage.complete_syncs();
        step_all(&log);
        ticket.outcome().expect("the decision is the last sync").unwrap();
        storage.set_sync_mode(SyncMode::Immediate);
    }
    assert_eq!(storage.sync_count(SyncPurpose::Markers), 0, "markers ride along with records");
}

#[test]
fn a_transaction_that_writes_nothing_leaves_no_trace() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 1);
    let producer = log.transactional("a").unwrap();
    let operations = storage.operations();
    producer.begin().unwrap();
    producer.commit(out.partitions()).wait().unwrap();
    producer.begin().unwrap();
    producer.abort().unwrap();
    assert_eq!(storage.operations(), operations);
}

#[test]
fn the_ends_of_a_transaction_are_those_of_its_records() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 3);
    out.partitions()[2].append(batch("before")).unwrap();
    let producer = log.transactional("a").unwrap();
    write(&producer, &out.partitions()[1..], "x");
    producer.append(&out.partitions()[1], batch("y")).unwrap();
    let ends: Vec<_> =
        producer.ends().into_iter().map(|(name, id, end)| (name.partition.0, id, end)).collect();
    assert_eq!(ends, [(1, out.id(), Offset(2)), (2, out.id(), Offset(2))]);
}

#[test]
fn calls_out_of_turn_are_refused() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 1);
    let producer = log.transactional("a").unwrap();
    let refused = |kind: ErrorKind| assert_eq!(kind, ErrorKind::TransactionState);
    refused(producer.append(&out.partitions()[0], batch("x")).unwrap_err().kind());
    refused(producer.commit(&[]).wait().unwrap_err().kind());
    refused(producer.abort().unwrap_err().kind());
    write(&producer, out.partitions(), "x");
    refused(producer.begin().unwrap_err().kind());
    storage.set_sync_mode(SyncMode::Delayed);
    let ticket = producer.commit(&[]);
    refused(producer.begin().unwrap_err().kind());
    refused(producer.append(&out.partitions()[0], batch("x")).unwrap_err().kind());
    storage.set_sync_mode(SyncMode::Immediate);
    step_all(&log);
    storage.complete_syncs();
    ticket.wait().unwrap();
    assert_eq!(log.transactional("").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn whoever_takes_the_id_fences_the_holder_and_aborts_what_it_left() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 2);
    let old = log.transactional("a").unwrap();
    write(&old, out.partitions(), "left");
    let new = log.transactional("a").unwrap();
    assert_eq!(old.append(&out.partitions()[0], batch("x")).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(old.commit(&[]).wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert!(out.partitions().iter().all(|partition| partition.open_transactions().is_empty()));
    write(&new, out.partitions(), "new");
    new.commit(&[]).wait().unwrap();
    assert_eq!(values(&out.partitions()[0]), ["new"]);
    let other = log.transactional("b").unwrap();
    other.begin().unwrap();
    new.begin().unwrap();
}

#[test]
fn a_commit_that_was_not_decided_is_aborted_by_whoever_takes_the_id() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 2);
    let old = log.transactional("a").unwrap();
    write(&old, out.partitions(), "undecided");
    // Nothing was stepped since, so its records are not even being synced.
    let ticket = old.commit(&[]);
    let _new = log.transactional("a").unwrap();
    assert_eq!(ticket.wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert!(values(&out.partitions()[0]).is_empty());
    assert!(out.partitions()[0].open_transactions().is_empty());
}

#[test]
fn a_dropped_producer_aborts() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 1);
    let producer = log.transactional("a").unwrap();
    write(&producer, out.partitions(), "x");
    drop(producer);
    step_all(&log);
    assert!(out.partitions()[0].open_transactions().is_empty());
    assert!(values(&out.partitions()[0]).is_empty());
}

#[test]
fn after_a_failed_append_only_abort_is_left() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let config = TopicConfig { batch_bytes_max: 100, ..TopicConfig::default() };
    let out = log.create_topic("out", config).unwrap();
    let producer = log.transactional("a").unwrap();
    write(&producer, out.partitions(), "x");
    let large = producer.append(&out.partitions()[0], batch(&"x".repeat(200))).unwrap_err();
    assert_eq!(large.kind(), ErrorKind::Invalid);
    let end = out.partitions()[0].offsets().end;
    let more = producer.append(&out.partitions()[0], batch("more")).unwrap_err();
    assert_eq!((more.kind(), out.partitions()[0].offsets().end), (ErrorKind::TransactionState, end));
    assert_eq!(producer.commit(&[]).wait().unwrap_err().kind(), ErrorKind::TransactionState);
    producer.abort().unwrap();
    write(&producer, out.partitions(), "y");
    producer.commit(&[]).wait().unwrap();
    assert_eq!(values(&out.partitions()[0]), ["y"]);
}

#[test]
fn a_decision_whose_sync_fails_is_unknown_until_the_log_is_opened_again() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 1);
    let producer = log.transactional("a").unwrap();
    write(&producer, out.partitions(), "x");
    storage.set_sync_mode(SyncMode::Delayed);
    let ticket = producer.commit(&[]);
    step_all(&log);
    storage.complete_syncs();
    step_all(&log);
    storage.fail_syncs(std::io::ErrorKind::Other);
    step_all(&log);
    storage.set_sync_mode(SyncMode::Immediate);
    assert_eq!(ticket.outcome().unwrap().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(producer.begin().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(log.transactional("a").unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(log.close().is_err());
    drop((producer, log));

    let log = open(&storage);
    let out = log.topic("out").unwrap();
    assert!(out.partitions()[0].open_transactions().is_empty());
    let producer = log.transactional("a").unwrap();
    write(&producer, out.partitions(), "y");
    producer.commit(&[]).wait().unwrap();
}

#[test]
fn a_transaction_over_topics_that_are_not_synced_costs_no_sync() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
    let out = log.create_topic("out", config).unwrap();
    let producer = log.transactional("a").unwrap();
    let syncs = || [SyncPurpose::Records, SyncPurpose::Decision].map(|purpose| storage.sync_count(purpose));
    let before = syncs();
    write(&producer, out.partitions(), "x");
    producer.commit(out.partitions()).wait().unwrap();
    assert_eq!(syncs(), before);
    assert_eq!(values(&out.partitions()[0]), ["x"]);
}

#[test]
fn a_topic_that_is_deleted_under_a_transaction_does_not_hold_it_up() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let out = topic(&log, 1);
    let other = log.create_topic("other", TopicConfig::default()).unwrap();
    let producer = log.transactional("a").unwrap();
    for round in ["x", "y", "z"] {
        let partitions = [&out.partitions()[0], &other.partitions()[0]].map(Clone::clone);
        let partitions = if round == "x" { &partitions[..] } else { &partitions[..1] };
        write(&producer, partitions, round);
        if round == "x" {
            log.delete_topic("other").unwrap();
        }
        producer.commit(&[]).wait().unwrap();
    }
    assert_eq!(values(&out.partitions()[0]), ["x", "y", "z"]);
    assert_eq!(log.delete_topic("__transaction_state").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn the_table_is_read_from_its_snapshot_and_the_epochs_go_on() {
    let storage = MemoryStorage::new(1);
    for life in 0..3 {
        let log = open(&storage);
        log.coordinator().set_limits(ProducerEpoch(3), 4);
        let out = if life == 0 { topic(&log, 1) } else { log.topic("out").unwrap() };
        let producer = log.transactional("a").unwrap();
        for round in 0..5 {
            write(&producer, out.partitions(), &format!("{life}.{round}"));
            producer.commit(&[]).wait().unwrap();
        }
        assert_eq!(values(&out.partitions()[0]).len(), 5 * (life + 1));
        let path = std::path::Path::new(DIRECTORY).join("transaction-table");
        assert!(storage.contents(&path).is_ok(), "it is written while the log is open");
        storage.crash();
    }
}

#[test]
fn threads_that_share_a_producer_append_side_by_side() {
    const THREADS: usize = 4;
    const BATCHES: usize = 50;
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), LogOptions::disk().unwrap()).unwrap();
    let out = topic(&log, 3);
    let producer = Arc::new(log.transactional("a").unwrap());
    for _ in 0..3 {
        producer.begin().unwrap();
        let appending = (0..THREADS).map(|thread| {
            let (producer, out) = (producer.clone(), out.clone());
            let append = move || {
                for number in 0..BATCHES {
                    let partition = &out.partitions()[(thread + number) % 3];
                    producer.append(partition, batch(&format!("{thread}.{number}"))).unwrap();
                }
            };
            crate::spawn::spawn("append", append).unwrap()
        });
        for thread in appending.collect::<Vec<_>>() {
            thread.join().unwrap();
        }
        producer.commit(&[]).wait().unwrap();
    }
    let count: usize = out.partitions().iter().map(|partition| values(partition).len()).sum();
    assert_eq!(count, 3 * THREADS * BATCHES);
    drop((producer, out, log));
    let log = Log::open(directory.path(), LogOptions::disk().unwrap()).unwrap();
    let again = log.topic("out").unwrap();
    assert_eq!(again.partitions().iter().map(|partition| values(partition).len()).sum::<usize>(), count);
}

/// What is done about a transaction of epoch `epoch`, where the table says `status` of epoch 5.
fn check_resolution(status: Status, epoch: i16, kind: MarkerKind, is_decided: bool, is_recorded: bool) {
    check_ending(status, epoch, None, kind, is_decided, is_recorded);
}

/// The same where the partition was cut off, and `ending` is to be its end there.
fn check_ending(
    status: Status,
    epoch: i16,
    ending: Option<MarkerKind>,
    kind: MarkerKind,
    is_decided: bool,
    is_recorded: bool,
) {
    let record = super::record::TransactionRecord {
        producer_id: ProducerId(1),
        producer_epoch: ProducerEpoch(5),
        status,
        timeout_ms: 60_000,
        partitions: Vec::new(),
        updated: Timestamp(0),
        started: Timestamp(0),
    };
    let table = Table { entries: BTreeMap::from([("a".to_owned(), record)]) };
    let producer = ProducerIdentity { id: ProducerId(1), epoch: ProducerEpoch(epoch) };
    let transaction =
        OpenTransaction { producer_id: producer.id, producer_epoch: producer.epoch, first_offset: Offset(9) };
    let resolution = resolve(&table, &[Found { partition: 7, transaction, ending }]);
    let (marks, none) = match is_decided {
        true => (&resolution.decided, &resolution.undecided),
        false => (&resolution.undecided, &resolution.decided),
    };
    assert!(none.is_empty());
    assert_eq!((marks.len(), marks[0].partition, marks[0].kind, marks[0].producer), (1, 7, kind, producer));
    assert_eq!(resolution.aborts.contains_key("a"), is_recorded, "{status:?} {epoch}");
}

#[test]
fn what_is_open_is_resolved_by_what_the_table_says_of_exactly_its_epoch() {
    use MarkerKind::{Abort, Commit};
    check_resolution(Status::PrepareCommit, 5, Commit, true, false);
    check_resolution(Status::CompleteCommit, 5, Commit, true, false);
    check_resolution(Status::PrepareAbort, 5, Abort, true, false);
    check_resolution(Status::PrepareCommit, 6, Abort, false, true);
    check_resolution(Status::Empty, 5, Abort, false, true);
    check_resolution(Status::Ongoing, 5, Abort, false, true);
    check_resolution(Status::PrepareCommit, 4, Abort, false, false);
}

#[test]
fn what_was_cut_ends_as_the_cut_demands_and_its_epoch_is_used_no_more() {
    use MarkerKind::{Abort, Commit};
    check_ending(Status::PrepareCommit, 5, Some(Abort), Abort, true, false);
    check_ending(Status::CompleteCommit, 5, Some(Abort), Abort, true, false);
    check_ending(Status::Empty, 4, Some(Commit), Commit, true, false);
    check_ending(Status::Empty, 4, Some(Abort), Abort, false, false);
    check_ending(Status::Empty, 6, Some(Abort), Abort, false, true);
}
