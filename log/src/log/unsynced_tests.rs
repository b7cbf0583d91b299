//! Topics whose appends count without a sync: what is sealed is synced all the same, in the background.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Log, LogOptions};
use crate::batch::{BatchBuilder, Compression, SealedBatch};
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::files::Listing;
use crate::flusher::Flush;
use crate::partition::{Durability, Partition};
use crate::record::{Offset, Timestamp};
use crate::recovery_point;
use crate::storage::SyncPurpose;
use crate::storage::limited::LimitedStorage;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::topic::TopicConfig;

const DIRECTORY: &str = "/data/log";
const NEVER: Duration = Duration::from_secs(1 << 30);

fn open(storage: &Arc<MemoryStorage>) -> Log {
    Log::open(DIRECTORY, LogOptions::manual(storage.mount(), ManualClock::new(), 1)).unwrap()
}

fn batch() -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(&[0; 50]), &[]).unwrap();
    builder.seal()
}

fn create(log: &Log, durability: Durability) -> Arc<Partition> {
    let config = TopicConfig {
        durability: Some(durability),
        segment_bytes: 1000,
        snapshot_interval_bytes: 400,
        ..TopicConfig::default()
    };
    log.create_topic("orders", config).unwrap().partitions()[0].clone()
}

fn append(log: &Log, partition: &Partition, count: i64) {
    for _ in 0..count {
        partition.append(batch()).unwrap();
        while log.step().unwrap() {}
    }
}

fn listing(storage: &MemoryStorage) -> Listing {
    Listing::read(storage, &Path::new(DIRECTORY).join("orders-0")).unwrap()
}

#[test]
fn segments_that_are_sealed_become_durable_and_the_recovery_point_follows() {
    for durability in [Durability::Os, Durability::Interval(NEVER)] {
        let storage = MemoryStorage::new(1);
        let log = open(&storage);
        let partition = create(&log, durability);
        append(&log, &partition, 500);
        let Listing { segments, snapshots, .. } = listing(&storage);
        let [.., before_last, last] = segments[..] else { panic!("there are many segments") };
        assert!(partition.durable() >= last, "{durability:?}: {} of {last}", partition.durable());
        let points = recovery_point::read(&*storage, Path::new(DIRECTORY)).unwrap().points;
        assert!(points[&partition.key()] >= before_last, "{durability:?}: {points:?}, {before_last}");
        assert!(snapshots.len() <= 8, "{durability:?}: {snapshots:?} are kept");
        let durable = partition.durable();
        storage.crash();
        drop((log, partition));
        let log = open(&storage);
        let found = log.topic("orders").unwrap().partitions()[0].offsets().end;
        assert!(found >= durable, "{durability:?}: {found} are left of {durable}");
        assert!(log.recovery_report()[0].scanned_bytes < 5 * 1000, "{:?}", log.recovery_report()[0]);
    }
}

#[test]
fn what_could_not_be_synced_for_want_of_files_is_synced_with_what_is_sealed_next() {
    let storage = MemoryStorage::new(1);
    let limited = LimitedStorage::new(storage.mount());
    let options = LogOptions::manual(limited.clone(), ManualClock::new(), 1);
    let log = Log::open(DIRECTORY, options).unwrap();
    let partition = create(&log, Durability::Os);
    let mut refused = 0;
    for _ in 0..100 {
        partition.append(batch()).unwrap();
        limited.observer().leave(0);
        let is_due = log.step().unwrap();
        refused += u32::from(is_due && partition.durable() == Offset(0));
        limited.observer().leave(i64::MAX);
    }
    assert!(refused > 1, "nothing could be synced, {refused} times");
    append(&log, &partition, 100);
    assert!(partition.durable() > Offset(180), "{}", partition.durable());
}

#[test]
fn appending_does_not_wait_for_the_sync_of_what_was_sealed() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let partition = create(&log, Durability::Os);
    storage.set_sync_mode(SyncMode::Delayed);
    append(&log, &partition, 100);
    assert!(storage.syncs_in_flight() > 0);
    assert_eq!(partition.offsets().high_watermark, Offset(100), "it counts at once");
    assert_eq!(partition.durable(), Offset(0));
    storage.set_sync_mode(SyncMode::Immediate);
    storage.complete_syncs();
    while log.step().unwrap() {}
    assert!(partition.durable() > Offset(80), "{}", partition.durable());
}

#[test]
fn a_sync_in_the_background_that_fails_poisons_the_partition() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let partition = create(&log, Durability::Os);
    storage.set_sync_mode(SyncMode::Delayed);
    append(&log, &partition, 30);
    storage.fail_syncs(std::io::ErrorKind::Other);
    while log.step().unwrap() {}
    assert_eq!(partition.append(batch()).unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn what_is_acknowledged_when_it_is_synced_is_synced_when_somebody_asks() {
    let storage = MemoryStorage::new(1);
    let log = open(&storage);
    let partition = create(&log, Durability::Sync);
    let synced = storage.sync_count(SyncPurpose::Records);
    append(&log, &partition, 100);
    assert_eq!(storage.sync_count(SyncPurpose::Records), synced);
}

/// Files that were synced before their time, to be closed, are durable once somebody asks for them.
pub(crate) fn check_closed_early(seed: u64) {
    let storage = MemoryStorage::new(seed);
    let options = LogOptions::manual(storage.mount(), ManualClock::new(), 1);
    let log = Log::open(DIRECTORY, LogOptions { unsynced_files_max: 2, ..options }).unwrap();
    let config = TopicConfig { partitions: 8, ..TopicConfig::default() };
    let topic = log.create_topic("orders", config).unwrap();
    for partition in topic.partitions() {
        partition.append(batch()).unwrap();
    }
    assert!(storage.sync_count(SyncPurpose::Closing) > 0, "there is room for two");
    log.flush(topic.partitions(), SyncPurpose::Records).wait().unwrap();
    storage.crash();
    drop(log);
    let log = open(&storage);
    let topic = log.topic("orders").unwrap();
    let ends: Vec<_> = topic.partitions().iter().map(|partition| partition.offsets().end).collect();
    assert_eq!(ends, [Offset(1); 8]);
}

#[test]
fn what_was_synced_to_be_closed_outlives_a_power_cut_once_it_is_acknowledged() {
    (0..20).for_each(check_closed_early);
}
