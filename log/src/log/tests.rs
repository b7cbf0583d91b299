use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::task::Wake;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Log, LogOptions};
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};
use crate::clock::{ManualClock, SystemClock};
use crate::error::{ErrorKind, Result};
use crate::partition::{Isolation, Partition};
use crate::record::{Offset, PartitionId, Timestamp};
use crate::spawn::{Drive, spawn};
use crate::storage::disk::DiskStorage;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::topic::TopicConfig;

const DIRECTORY: &str = "/data/log";

fn options(storage: &Arc<MemoryStorage>) -> LogOptions {
    LogOptions::manual(storage.mount(), ManualClock::new(), 1)
}

fn open(storage: &Arc<MemoryStorage>) -> Result<Log> {
    Log::open(DIRECTORY, options(storage))
}

fn batch(value: &str) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(value.as_bytes()), &[]).unwrap();
    builder.seal()
}

fn append(log: &Log, partition: &Arc<Partition>, value: &str) -> Result<()> {
    partition.append(batch(value))?;
    log.flush(std::slice::from_ref(partition), SyncPurpose::Records).wait()
}

fn values(partition: &Partition) -> Vec<String> {
    let fetched = partition.fetch(Offset(0), usize::MAX, Isolation::ReadUncommitted).unwrap();
    let mut scratch = DecompressionBuffer::new();
    let mut values = Vec::new();
    for batch in fetched.batches() {
        for record in batch.unwrap().records(&mut scratch).unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

fn partitions(partitions: i32) -> TopicConfig {
    TopicConfig { partitions, ..TopicConfig::default() }
}

fn names(log: &Log) -> Vec<String> {
    log.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

#[test]
fn topics_and_records_are_there_again_after_a_clean_shutdown_that_leaves_nothing_to_scan() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    let orders = log.create_topic("orders", partitions(3)).unwrap();
    append(&log, &orders.partitions()[1], "a").unwrap();
    log.close().unwrap();
    log.close().unwrap();
    assert_eq!(orders.partitions()[1].append(batch("late")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(log.create_topic("more", partitions(1)).unwrap_err().kind(), ErrorKind::Closed);
    storage.crash();

    let log = open(&storage).unwrap();
    let again = log.topic("orders").unwrap();
    assert_eq!((again.id(), again.config()), (orders.id(), orders.config()));
    assert_eq!(values(&again.partitions()[1]), ["a"]);
    assert_eq!(log.recovery_report().len(), 3);
    assert!(log.recovery_report().iter().all(|report| report.scanned_bytes == 0));
}

#[test]
fn every_partition_is_closed_and_synced_although_one_cannot_be() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    let orders = log.create_topic("orders", partitions(3)).unwrap();
    orders.partitions()[2].append(batch("a")).unwrap();
    storage.fail_with(std::io::ErrorKind::Other, 0);
    orders.partitions()[0].append(batch("b")).unwrap_err();
    assert_eq!(log.close().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(orders.partitions()[2].append(batch("late")).unwrap_err().kind(), ErrorKind::Closed);
    storage.crash();
    let log = open(&storage).unwrap();
    assert_eq!(values(&log.topic("orders").unwrap().partitions()[2]), ["a"]);
}

/// Runs `wait` on a thread of its own, which must not take forever.
fn within_a_minute<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (told, outcome) = mpsc::channel();
    spawn("wait", move || told.send(wait())).unwrap();
    outcome.recv_timeout(Duration::from_secs(60)).expect("it does not wait forever")
}

fn driven_by_its_thread(storage: &Arc<MemoryStorage>) -> (Log, Arc<Partition>) {
    let options = LogOptions { drive: Drive::Thread, ..options(storage) };
    let log = Log::open(DIRECTORY, options).unwrap();
    let partition = log.create_topic("orders", partitions(1)).unwrap().partitions()[0].clone();
    (log, partition)
}

#[test]
fn a_flush_of_a_closed_log_is_refused_and_not_waited_for() {
    let (log, partition) = driven_by_its_thread(&MemoryStorage::new(1));
    log.close().unwrap();
    let outcome = within_a_minute(move || log.flush(&[partition], SyncPurpose::Records).wait());
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn nobody_waits_for_the_logs_thread_once_it_has_panicked() {
    struct PanicWhenWoken;
    impl std::task::Wake for PanicWhenWoken {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    let storage = MemoryStorage::new(1);
    let (log, partition) = driven_by_its_thread(&storage);
    storage.set_sync_mode(SyncMode::Delayed);
    partition.append(batch("a")).unwrap();
    let first = log.flush(std::slice::from_ref(&partition), SyncPurpose::Records);
    first.wake(&Arc::new(PanicWhenWoken).into());
    let answered = within_a_minute(move || {
        while first.outcome().is_none() {
            storage.complete_syncs();
        }
        storage.set_sync_mode(SyncMode::Immediate);
        let later = log.flush(&[partition], SyncPurpose::Records);
        [first.wait(), later.wait(), log.close()].map(|outcome| outcome.is_ok())
    });
    assert_eq!(answered, [true, false, true], "nobody steps any more, and closing syncs for itself");
}

#[test]
fn the_last_handle_may_be_dropped_on_the_logs_own_thread() {
    struct LastHandle(std::sync::Mutex<Option<Log>>);
    impl std::task::Wake for LastHandle {
        fn wake(self: Arc<Self>) {
            let last = self.0.lock().unwrap().take();
            drop(last);
        }
    }
    let storage = MemoryStorage::new(1);
    let (log, partition) = driven_by_its_thread(&storage);
    let producer = log.transactional("a").unwrap();
    producer.begin().unwrap();
    producer.append(&partition, batch("a")).unwrap();
    storage.set_sync_mode(SyncMode::Delayed);
    let flush = log.flush(std::slice::from_ref(&partition), SyncPurpose::Records);
    // Closing has the transaction to abort, which takes the log's thread.
    drop(producer);
    flush.wake(&Arc::new(LastHandle(std::sync::Mutex::new(Some(log)))).into());
    storage.set_sync_mode(SyncMode::Immediate);
    let log = within_a_minute(move || {
        loop {
            storage.complete_syncs();
            if let Ok(log) = open(&storage) {
                return log;
            }
        }
    });
    assert!(log.topic("orders").unwrap().partitions()[0].open_transactions().is_empty());
    assert!(log.recovery_report().iter().all(|report| report.scanned_bytes == 0), "it was closed cleanly");
}

#[test]
fn a_topic_that_could_not_be_made_can_be_made_later() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    for operation in 0..20 {
        storage.fail_with(std::io::ErrorKind::StorageFull, operation);
        let made = log.create_topic("orders", partitions(1));
        storage.clear_faults();
        match made {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "{error}"),
        }
    }
    panic!("it was never made");
}

#[test]
fn a_directory_that_is_open_is_refused_with_its_holder_and_can_be_read() {
    let storage = MemoryStorage::new(1);
    let mut first = options(&storage);
    first.holder = "flights".to_owned();
    let log = Log::open(DIRECTORY, first).unwrap();
    let orders = log.create_topic("orders", partitions(1)).unwrap();
    append(&log, &orders.partitions()[0], "a").unwrap();

    let refused = open(&storage).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    let holder = format!("process {} (flights) since 1970-01-01T00:00:00Z", std::process::id());
    assert!(refused.to_string().contains(&holder), "{refused}");

    let reader = Log::open_read_only(DIRECTORY, options(&storage)).unwrap();
    let seen = reader.topic("orders").unwrap().partition(PartitionId(0)).unwrap();
    assert_eq!(values(&seen), ["a"]);
    assert_eq!(seen.append(batch("x")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(reader.create_topic("more", partitions(1)).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(reader.delete_topic("orders").unwrap_err().kind(), ErrorKind::Closed);

    append(&log, &orders.partitions()[0], "b").unwrap();
    log.create_topic("weather", partitions(1)).unwrap();
    let operations = storage.operations();
    reader.refresh().unwrap();
    assert_eq!(values(&seen), ["a", "b"]);
    assert_eq!(names(&reader), ["orders", "weather"]);
    log.delete_topic("orders").unwrap();
    reader.refresh().unwrap();
    assert_eq!(names(&reader), ["weather"]);
    drop(reader);
    assert!(storage.operations() > operations, "deleting counts, reading does not");
    drop(log);
    open(&storage).unwrap();
}

#[test]
fn reading_changes_nothing_on_the_disk() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    append(&log, &log.create_topic("orders", partitions(2)).unwrap().partitions()[0], "a").unwrap();
    storage.kill();
    drop(log);
    let operations = storage.operations();
    storage.set_read_only(true);
    let reader = Log::open_read_only(DIRECTORY, options(&storage)).unwrap();
    reader.refresh().unwrap();
    reader.close().unwrap();
    assert_eq!(storage.operations(), operations);
}

#[test]
fn a_read_only_disk_and_a_missing_log_are_refused_with_their_names() {
    let storage = MemoryStorage::new(1);
    let missing = Log::open_read_only(DIRECTORY, options(&storage)).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains(DIRECTORY), "{missing}");
    storage.set_read_only(true);
    let refused = open(&storage).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert!(refused.to_string().contains(DIRECTORY), "{refused}");
}

#[test]
fn an_unknown_topic_and_partition_are_answered_with_what_there_is() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    log.create_topic("flights", partitions(6)).unwrap();
    let unknown = log.topic("fligths").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert!(unknown.to_string().contains("did you mean flights?"), "{unknown}");
    let beyond = log.topic("flights").unwrap().partition(PartitionId(6)).unwrap_err();
    assert!(beyond.to_string().contains("it has 0 to 5"), "{beyond}");
    assert_eq!(log.create_topic("flights", partitions(1)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(log.create_topic("none", partitions(0)).unwrap_err().kind(), ErrorKind::Invalid);
    let compression = Compression::Zstd { level: 99 };
    let level = log.create_topic("none", TopicConfig { compression, ..partitions(1) }).unwrap_err();
    assert_eq!(level.kind(), ErrorKind::Invalid);
    assert!(level.to_string().contains("zstd has no level 99"), "{level}");
    assert_eq!(log.delete_topic("none").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_topic_made_again_has_another_id_and_none_of_the_records() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    let old = log.create_topic("orders", partitions(1)).unwrap();
    append(&log, &old.partitions()[0], "a").unwrap();
    log.delete_topic("orders").unwrap();
    drop(log);
    let log = open(&storage).unwrap();
    let new = log.create_topic("orders", partitions(2)).unwrap();
    assert_ne!(new.id(), old.id());
    assert!(values(&new.partitions()[0]).is_empty());
}

#[test]
fn a_directory_in_the_way_of_a_topic_is_moved_aside_and_kept() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    storage.create_dir_all(&path("orders-0")).unwrap();
    storage.open(&path("orders-0/precious"), OpenMode::Create).unwrap();
    let orders = log.create_topic("orders", partitions(1)).unwrap();
    let aside = path(&format!("{}.0-stray/precious", orders.id()));
    assert!(storage.exists(&aside).unwrap());
    assert!(!storage.exists(&path("orders-0/precious")).unwrap());
}

#[test]
fn a_lost_catalogue_is_not_taken_for_an_empty_log() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    log.create_topic("orders", partitions(1)).unwrap();
    drop(log);
    storage.remove_file(&path("catalogue")).unwrap();
    let error = open(&storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("orders-0"), "{error}");
    assert!(storage.exists(&path("orders-0")).unwrap());
}

#[test]
fn producer_ids_are_never_given_twice_whatever_crashes() {
    let mut given = BTreeSet::new();
    let storage = MemoryStorage::new(9);
    for round in 0..40 {
        storage.fail_after(round);
        if let Ok(log) = open(&storage) {
            while let Ok(id) = log.next_producer_id() {
                assert!(given.insert(id), "{id} was given before");
                if given.len() % 700 == 0 {
                    break;
                }
            }
        }
        storage.clear_faults();
        storage.crash();
    }
    assert!(given.len() > 2000);
}

#[test]
fn a_log_on_disk_is_driven_by_its_own_thread() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path().join("new/log"), LogOptions::disk().unwrap()).unwrap();
    let orders = log.create_topic("orders", partitions(4)).unwrap();
    for round in 0..5 {
        for partition in orders.partitions() {
            partition.append(batch(&round.to_string())).unwrap();
        }
        log.flush(orders.partitions(), SyncPurpose::Records).wait().unwrap();
    }
    let refused = Log::open(log.directory(), LogOptions::disk().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    let path = log.directory().to_owned();
    drop(log);
    let log = Log::open(path, LogOptions::disk().unwrap()).unwrap();
    for partition in log.topic("orders").unwrap().partitions() {
        assert_eq!(values(partition), ["0", "1", "2", "3", "4"]);
    }
}

/// What a script has been promised.
#[derive(Default)]
struct Promised {
    /// Topics that exist, with the values acknowledged in partition 0.
    topics: BTreeMap<&'static str, Vec<String>>,
    /// A topic whose making or deletion was cut off.
    unknown: Option<&'static str>,
}

/// Makes, fills and deletes topics until something fails.
fn run_script(storage: &Arc<MemoryStorage>, promised: &mut Promised) -> Result<()> {
    let log = open(storage)?;
    for (round, name) in ["a", "b", "a", "c"].into_iter().enumerate() {
        promised.unknown = Some(name);
        if promised.topics.remove(name).is_some() {
            log.delete_topic(name)?;
        }
        let topic = log.create_topic(name, partitions(2))?;
        promised.unknown = None;
        promised.topics.insert(name, Vec::new());
        for value in 0..2 {
            let value = format!("{round}.{value}");
            append(&log, &topic.partitions()[0], &value)?;
            promised.topics.get_mut(name).expect("it was just made").push(value);
        }
    }
    log.close()
}

/// Crashes the script, and the recovery, each at an operation, and checks what is there afterwards.
fn check_crash(seed: u64, operation: u64, ignored: Option<SyncPurpose>) {
    let storage = MemoryStorage::new(seed);
    ignored.into_iter().for_each(|purpose| storage.ignore_syncs(purpose));
    let mut promised = Promised::default();
    storage.fail_after(operation);
    let outcome = run_script(&storage, &mut promised);
    assert_eq!(outcome.is_err(), storage.is_unplugged());
    storage.clear_faults();
    storage.crash();
    storage.fail_after(operation % 13);
    drop(open(&storage));
    storage.clear_faults();
    storage.crash();

    let log = open(&storage).unwrap();
    for (name, values_promised) in &promised.topics {
        if promised.unknown == Some(name) {
            continue;
        }
        let found = values(&log.topic(name).unwrap().partitions()[0]);
        assert!(found.starts_with(values_promised), "{name} has {found:?}, not {values_promised:?}");
    }
    for name in names(&log) {
        let is_known = promised.topics.contains_key(name.as_str()) || promised.unknown == Some(&*name);
        assert!(is_known, "{name} was deleted or never made");
    }
    log.create_topic("next", partitions(1)).unwrap();
}

/// A topic that was deleted takes up no room after a power cut, whatever that hits: here a change of another one.
pub(crate) fn check_deleted(seed: u64) {
    let storage = MemoryStorage::new(seed);
    let log = open(&storage).unwrap();
    for name in ["gone", "kept"] {
        let topic = log.create_topic(name, partitions(2)).unwrap();
        append(&log, &topic.partitions()[0], "value").unwrap();
    }
    log.delete_topic("gone").unwrap();
    storage.fail_after(seed % 8);
    drop(log.alter_topic("kept", |config| config.segment_bytes = 9000));
    storage.clear_faults();
    storage.crash();
    drop(log);
    let log = open(&storage).unwrap();
    assert_eq!(names(&log), ["kept"]);
    let entries = storage.list(Path::new(DIRECTORY)).unwrap().into_iter().filter(|entry| entry.is_directory);
    let directories: Vec<_> = entries.map(|entry| entry.name).collect();
    assert_eq!(directories, ["kept-0", "kept-1"]);
}

#[test]
fn a_log_that_somebody_failed_to_begin_is_there_after_a_power_cut_once_it_was_written_to() {
    for operation in 0.. {
        let mut is_failed = false;
        for seed in 0..8 {
            let storage = MemoryStorage::new(operation * 8 + seed);
            storage.fail_with(std::io::ErrorKind::Other, operation);
            is_failed = open(&storage).is_err();
            storage.clear_faults();
            let log = open(&storage).unwrap();
            append(&log, &log.create_topic("t", partitions(1)).unwrap().partitions()[0], "value").unwrap();
            storage.crash();
            drop(log);
            assert_eq!(names(&open(&storage).unwrap()), ["t"], "operation {operation} failed, seed {seed}");
        }
        if !is_failed {
            break;
        }
    }
}

#[test]
fn a_deletion_that_failed_is_finished_though_the_log_was_closed_since() {
    let mut closed = 0;
    for operation in 0.. {
        let storage = MemoryStorage::new(operation);
        let log = open(&storage).unwrap();
        for name in ["gone", "kept"] {
            let topic = log.create_topic(name, partitions(2)).unwrap();
            append(&log, &topic.partitions()[0], "value").unwrap();
        }
        storage.fail_with(std::io::ErrorKind::PermissionDenied, operation);
        let is_failed = log.delete_topic("gone").is_err();
        storage.clear_faults();
        let is_deleted = log.topic("gone").is_err();
        if log.close().is_ok() && is_deleted {
            closed += 1;
            let log = open(&storage).unwrap();
            assert_eq!(names(&log), ["kept"]);
            let entries = storage.list(Path::new(DIRECTORY)).unwrap().into_iter();
            let directories: Vec<_> =
                entries.filter(|entry| entry.is_directory).map(|entry| entry.name).collect();
            assert_eq!(directories, ["kept-0", "kept-1"], "operation {operation} failed");
        }
        if !is_failed {
            break;
        }
    }
    assert!(closed > 3, "it fails in the middle of the removal too: {closed}");
}

#[test]
fn a_deleted_topic_is_gone_for_good_with_all_that_it_held() {
    (0..80).for_each(check_deleted);
}

fn operations_of_script() -> u64 {
    let storage = MemoryStorage::new(0);
    run_script(&storage, &mut Promised::default()).unwrap();
    storage.operations()
}

#[test]
fn whatever_operation_a_crash_hits_acknowledged_topics_and_records_are_there() {
    for operation in 0..=operations_of_script() {
        for seed in 0..8 {
            check_crash(seed * 1000 + operation, operation, None);
        }
    }
}

/// Crashes the script once.
pub(crate) fn check_script(seed: u64) {
    check_crash(seed, seed % (operations_of_script() + 1), None);
}

/// Leaving out the syncs of `purpose` breaks a promise for some crash.
fn check_needed(purpose: SyncPurpose) {
    let operations = operations_of_script();
    let is_broken = |seed: u64| {
        let operation = seed % (operations + 1);
        catch_unwind(AssertUnwindSafe(|| check_crash(seed, operation, Some(purpose)))).is_err()
    };
    assert!((0..2000).any(is_broken), "nothing depends on {purpose:?}");
}

#[test]
fn records_directories_and_the_catalogue_have_to_be_synced() {
    check_needed(SyncPurpose::Records);
    check_needed(SyncPurpose::Directory);
    check_needed(SyncPurpose::Catalogue);
}

/// Damages a record that was synced two rounds before a crash, and opens the log again.
fn open_damaged(seed: u64, ignored: Option<SyncPurpose>) -> Result<Log> {
    let storage = MemoryStorage::new(seed);
    let log = open(&storage)?;
    ignored.into_iter().for_each(|purpose| storage.ignore_syncs(purpose));
    let orders = log.create_topic("orders", partitions(1))?;
    for value in ["a", "b", "c"] {
        append(&log, &orders.partitions()[0], value)?;
    }
    storage.crash();
    drop(log);
    storage.corrupt(&path("orders-0/00000000000000000000.log"), 65, 0x10).unwrap();
    open(&storage)
}

/// Damage of what was synced is told from a torn end.
pub(crate) fn check_damaged(seed: u64) {
    let error = open_damaged(seed, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("topic orders, partition 0"), "{error}");
}

#[test]
fn damage_below_the_recovery_point_is_corruption_only_if_recovery_points_are_synced() {
    (0..50).for_each(check_damaged);
    let lost = (0..50).filter(|seed| open_damaged(*seed, Some(SyncPurpose::RecoveryPoint)).is_ok());
    assert!(lost.count() > 0, "nothing depends on recovery points");
}

#[test]
fn no_recovery_point_is_kept_of_a_topic_that_is_deleted_before_its_flush_has_ended() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage).unwrap();
    let [kept, deleted] = ["kept", "deleted"].map(|name| log.create_topic(name, partitions(1)).unwrap());
    deleted.partitions()[0].append(batch("gone")).unwrap();
    let flush = log.flush(deleted.partitions(), SyncPurpose::Records);
    log.delete_topic("deleted").unwrap();
    flush.wait().unwrap();
    for value in ["one", "two"] {
        append(&log, &kept.partitions()[0], value).unwrap();
    }
    let points = crate::recovery_point::read(&*storage.mount(), Path::new(DIRECTORY)).unwrap().points;
    let topics: BTreeSet<_> = points.keys().map(|key| key.topic).collect();
    assert!(topics.contains(&kept.id()) && !topics.contains(&deleted.id()));
}

#[test]
fn the_last_handle_may_be_dropped_on_the_only_thread_that_syncs() {
    struct LastHandle(Mutex<Option<Log>>);

    impl Wake for LastHandle {
        fn wake(self: Arc<Self>) {
            let last = self.0.lock().take();
            drop(last);
        }
    }

    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(1).unwrap();
        let options = {
            let storage = storage.clone();
            move || LogOptions::manual(storage.clone(), SystemClock::new(), 1)
        };
        let log = Log::open(directory.path(), LogOptions { drive: Drive::Thread, ..options() }).unwrap();
        let partition = log.create_topic("orders", partitions(1)).unwrap().partitions()[0].clone();
        // Closing aborts it, and waits for the disk.
        let producer = log.transactional("a").unwrap();
        producer.begin().unwrap();
        producer.append(&partition, batch("a")).unwrap();
        let flush = log.flush(std::slice::from_ref(&partition), SyncPurpose::Records);
        drop(producer);
        flush.wake(&Arc::new(LastHandle(Mutex::new(Some(log)))).into());
        let path = directory.path().to_owned();
        within_a_minute(move || {
            loop {
                match Log::open(&path, options()) {
                    Ok(log) => return log,
                    // It is locked until it is closed.
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
    }
}
