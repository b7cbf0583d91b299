//! Compacting a partition on a disk in memory.

mod cases;
pub(crate) mod crash;
mod few_files;
mod model;
mod walked;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::batch::{
    BatchBuilder, Batches, Compression, DecompressionBuffer, MarkerKind, ProducerStamp, SealedBatch,
};
use crate::clock::ManualClock;
use crate::partition::tests::{disk, flush, site, small};
use crate::partition::{Appended, Isolation, Partition, PartitionConfig, PartitionContext, PartitionSite};
use crate::record::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use crate::recovery::RecoveryBorder;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Storage, SyncPurpose};
use crate::upkeep::all_dirt;

const DELETE_RETENTION: Duration = Duration::from_millis(1000);

/// A partition that is compacted when a test says so.
struct Bench {
    storage: Arc<MemoryStorage>,
    clock: Arc<ManualClock>,
    config: PartitionConfig,
    partition: Arc<Partition>,
    key_map_bytes: usize,
}

/// A batch as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    base: i64,
    last: i64,
    is_control: bool,
    /// Offset, key, value.
    records: Vec<(i64, Option<String>, Option<String>)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(disk(1), PartitionConfig { segment_bytes: 1 << 20, ..small() })
    }

    fn with(storage: Arc<MemoryStorage>, config: PartitionConfig) -> Self {
        let mut config = config;
        config.cleanup.compaction.delete_retention = DELETE_RETENTION;
        let clock = ManualClock::new();
        let partition = Partition::create(site_on(&storage, &clock, &config)).expect("there is none yet");
        storage.sync_dir("/log".as_ref(), SyncPurpose::Directory).expect("the disk is fine");
        Self { storage, clock, config, partition, key_map_bytes: 1 << 16 }
    }

    fn append(&self, batch: SealedBatch) -> Appended {
        self.partition.append_to_transaction(batch).expect("it is acceptable")
    }

    /// Appends a batch of records without a producer, with these keys and the value `v`.
    fn plain(&self, keys: &[i64]) -> Appended {
        self.append(batch(keys))
    }

    fn transactional(&self, id: i64, epoch: i16, sequence: i32, keys: &[i64]) -> Appended {
        self.append(stamped(batch(keys), id, epoch, sequence, true))
    }

    fn idempotent(&self, id: i64, sequence: i32, keys: &[i64]) -> Appended {
        self.append(stamped(batch(keys), id, 0, sequence, false))
    }

    fn end(&self, kind: MarkerKind, id: i64, epoch: i16) -> i64 {
        let marker = self.partition.append_marker(kind, ProducerId(id), ProducerEpoch(epoch), 0);
        marker.expect("the disk is fine").expect("it is open").0
    }

    fn commit(&self, id: i64, epoch: i16) {
        self.end(MarkerKind::Commit, id, epoch);
    }

    fn abort(&self, id: i64, epoch: i16) {
        self.end(MarkerKind::Abort, id, epoch);
    }

    /// Seals the active segment and makes everything durable.
    fn roll(&self) {
        self.partition.seal_active().expect("the disk is fine");
        flush(&self.partition).expect("the disk is fine");
    }

    fn compact(&self) -> CompactionReport {
        self.try_compact().expect("the log is sound")
    }

    fn begin_compaction(&self) -> Compaction {
        let dirt = all_dirt(&self.partition);
        let limits = CompactionLimits { key_map_bytes: self.key_map_bytes, seed: [1, 2] };
        Compaction::begin(self.partition.clone(), &dirt, limits)
    }

    fn try_compact(&self) -> crate::Result<CompactionReport> {
        let mut compaction = self.begin_compaction();
        while !matches!(compaction.advance(Waker::noop())?, Piece::Done) {}
        Ok(compaction.report().clone())
    }

    /// Compacts, lets the horizons that were set pass, and compacts again.
    fn compact_twice(&self) {
        self.compact();
        self.clock.advance(DELETE_RETENTION);
        self.compact();
    }

    /// The power fails, and the partition is opened again: with the recovery point at what is durable.
    fn crash(&mut self) {
        let durable = self.partition.offsets().durable;
        self.storage.crash();
        self.open(durable);
    }

    fn open(&mut self, recovery_point: Offset) {
        let border = RecoveryBorder { recovery_point: Some(recovery_point), clean_shutdown: false };
        let site = site_on(&self.storage, &self.clock, &self.config);
        self.partition = Partition::open(site, &border).expect("what was synced is there").0;
    }

    fn batches(&self) -> Vec<Found> {
        read(&self.partition)
    }

    /// The keys of all records, as numbers.
    fn keys(&self) -> Vec<i64> {
        let records = self.batches().into_iter().filter(|batch| !batch.is_control);
        let keys = records.flat_map(|batch| batch.records).filter_map(|(_, key, _)| key);
        keys.map(|key| key.parse().expect("keys are numbers")).collect()
    }

    /// The offsets of all records and markers.
    fn offsets(&self) -> Vec<i64> {
        self.batches().iter().flat_map(|batch| batch.records.iter().map(|record| record.0)).collect()
    }

    /// The last offset of each batch, empty ones too.
    fn last_offsets(&self) -> Vec<i64> {
        self.batches().iter().map(|batch| batch.last).collect()
    }

    /// The first and last offsets of the aborted transactions that readers are told of.
    fn aborted(&self) -> Vec<(i64, i64, i64)> {
        let end = self.partition.offsets().end;
        let aborted = self.partition.aborted_between(Offset(0), end).expect("the index is sound");
        aborted.iter().map(|it| (it.producer_id.0, it.first_offset.0, it.last_offset.0)).collect()
    }

    fn segments(&self) -> usize {
        self.partition.compaction_view().sealed.len() + 1
    }
}

fn site_on(
    storage: &Arc<MemoryStorage>,
    clock: &Arc<ManualClock>,
    config: &PartitionConfig,
) -> PartitionSite {
    let context = PartitionContext::new(storage.mount(), clock.clone());
    PartitionSite { context, ..site(storage, config.clone()) }
}

fn batch(keys: &[i64]) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for key in keys {
        push(&mut builder, *key, Some("v"));
    }
    builder.seal()
}

/// A batch of tombstones.
fn tombstones(keys: &[i64]) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for key in keys {
        push(&mut builder, *key, None);
    }
    builder.seal()
}

fn push(builder: &mut BatchBuilder, key: i64, value: Option<&str>) {
    let pushed = builder.push(Timestamp(5), Some(key.to_string().as_bytes()), value.map(str::as_bytes), &[]);
    pushed.expect("it is small");
}

fn stamped(mut batch: SealedBatch, id: i64, epoch: i16, sequence: i32, transactional: bool) -> SealedBatch {
    batch.stamp(Some(ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        transactional,
    }));
    batch
}

/// Every batch of a partition, in pieces.
fn read(partition: &Partition) -> Vec<Found> {
    let mut next = partition.offsets().start;
    let mut found = Vec::new();
    loop {
        let fetched = partition.fetch(next, 300, Isolation::ReadUncommitted).expect("the log is sound");
        if fetched.bytes.is_empty() {
            return found;
        }
        found.extend(found_in(&fetched.bytes));
        next = fetched.next;
    }
}

fn found_in(bytes: &[u8]) -> Vec<Found> {
    let mut scratch = DecompressionBuffer::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut found = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch.expect("fetched batches are sound");
        let header = batch.header();
        let records = batch.records(&mut scratch).expect("it decompresses");
        let records = records.map(|record| {
            let record = record.expect("fetched records are sound");
            (record.offset.0, record.key.map(text), record.value.map(text))
        });
        found.push(Found {
            base: header.base_offset.0,
            last: header.last_offset().0,
            is_control: header.is_control,
            records: records.collect(),
        });
    }
    found
}
