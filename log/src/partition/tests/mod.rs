//! A partition on a disk in memory, with limits so small that segments roll and snapshots are taken all
//! the time.

mod append;
pub(crate) mod crash;
mod lookup;
mod lost_entries;
mod model;
mod read;
pub(crate) mod snapshots;
mod untrue_times;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::batch::{BatchBuilder, Compression, ProducerStamp, SealedBatch, TimestampType};
use crate::cleanup::Cleanup;
use crate::clock::{Clock, ManualClock};
use crate::flusher::Flush;
use crate::record::{PartitionId, ProducerEpoch, ProducerId, Sequence, Timestamp};
use crate::storage::memory::MemoryStorage;
use crate::storage::{Storage, SyncPurpose, SyncReason};

pub(crate) const DIRECTORY: &str = "/log/topic-3";

/// A disk on which the directory above the partition's is durable.
pub(crate) fn disk(seed: u64) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(seed);
    storage.create_dir_all(Path::new("/log")).expect("an empty disk takes a directory");
    storage.sync_dir(Path::new("/"), SyncPurpose::Directory).expect("an empty disk syncs");
    storage
}

pub(crate) fn small() -> PartitionConfig {
    PartitionConfig {
        durability: Durability::Sync,
        segment_bytes: 1000,
        index_interval_bytes: 150,
        snapshot_interval_bytes: 400,
        batch_bytes_max: 4000,
        timestamp_type: TimestampType::Create,
        cleanup: Cleanup::default(),
        has_gaps: false,
    }
}

pub(crate) fn site<S: Storage>(storage: &Arc<S>, config: PartitionConfig) -> PartitionSite {
    let name = TopicPartition::new("topic", PartitionId(3));
    let context = PartitionContext::new(storage.clone(), ManualClock::new());
    PartitionSite::new(name, TopicId(Uuid::from_u128(7)), PathBuf::from(DIRECTORY), config, context)
}

/// A new partition whose directory's name is durable.
pub(crate) fn create(storage: &Arc<MemoryStorage>, config: PartitionConfig) -> Arc<Partition> {
    let partition = Partition::create(site(storage, config)).expect("there is none yet");
    storage.sync_dir(Path::new("/log"), SyncPurpose::Directory).expect("the disk is fine");
    partition
}

pub(crate) fn unclean(recovery_point: i64) -> RecoveryBorder {
    RecoveryBorder { recovery_point: Some(Offset(recovery_point)), clean_shutdown: false }
}

/// Records `value-<n>` with key `key-<n>` and timestamp n for each n given.
pub(crate) fn batch(numbers: impl IntoIterator<Item = i64>) -> SealedBatch {
    batch_at(numbers.into_iter().map(|number| (number, Timestamp(number))))
}

/// The same records with other timestamps.
fn batch_at(numbers: impl IntoIterator<Item = (i64, Timestamp)>) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (number, time) in numbers {
        let (key, value) = (format!("key-{number}"), format!("value-{number}"));
        builder.push(time, Some(key.as_bytes()), Some(value.as_bytes()), &[]).expect("it is small");
    }
    builder.seal()
}

pub(crate) fn stamped(
    mut batch: SealedBatch,
    id: i64,
    epoch: i16,
    sequence: i32,
    transactional: bool,
) -> SealedBatch {
    batch.stamp(Some(ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        transactional,
    }));
    batch
}

/// Whether the time index of any segment was found not to be true.
pub(crate) fn are_times_doubted(partition: &Partition) -> bool {
    partition.segments.load().iter().any(|segment| segment.are_times_doubted())
}

/// Each batch of a sealed segment is found from a place near it: the index by offset is as dense as it should be.
/// Which one is not, where that is so.
pub(crate) fn check_indexed(partition: &Partition) -> Result<(), String> {
    let segments = partition.segments.load();
    for segment in segments.split_last().map_or(&[][..], |(_, sealed)| sealed) {
        let mut scanner = segment.scan(segment.start()).expect("it is there");
        let mut largest = 0;
        while let Some((position, batch)) = scanner.next().expect("it is sound") {
            largest = largest.max(batch.header().length as u64);
            let offset = batch.header().base_offset;
            let near = segment.place_before(offset).expect("it is there");
            let distance = position - near.position;
            if distance > partition.site.config.index_interval_bytes + 2 * largest {
                return Err(format!("offset {offset} is looked for from {distance} bytes before it on"));
            }
        }
    }
    Ok(())
}

/// One round of group commit, as the flusher does it.
pub(crate) fn flush(partition: &Partition) -> crate::Result<()> {
    let submission = partition.submit(SyncReason::of(SyncPurpose::Records))?;
    for ticket in &submission.tickets {
        if let Err(error) = ticket.wait() {
            let error = Error::io("sync", error);
            partition.failed(&error);
            return Err(error);
        }
    }
    partition.flushed(submission.upto);
    Ok(())
}

/// The numbers of the records that [`batch`] wrote, read from `from` on in pieces of `bytes_max`.
pub(crate) fn read_numbers(
    partition: &Partition,
    from: Offset,
    bytes_max: usize,
    isolation: Isolation,
) -> crate::Result<Vec<(Offset, i64)>> {
    let mut scratch = crate::batch::DecompressionBuffer::new();
    let (mut numbers, mut next) = (Vec::new(), from);
    loop {
        let fetched = partition.fetch(next, bytes_max, isolation)?;
        if fetched.bytes.is_empty() {
            assert_eq!(fetched.next, next, "nothing was read, so there is nothing to move on by");
            return Ok(numbers);
        }
        for batch in fetched.committed() {
            let batch = batch.expect("fetched batches are sound");
            for record in batch.records(&mut scratch).expect("it is not compressed") {
                let record = record.expect("fetched records are sound");
                let value = std::str::from_utf8(record.value.expect("a value was written"));
                let number = value.expect("it is text").strip_prefix("value-").expect("so it was written");
                if record.offset >= next {
                    numbers.push((record.offset, number.parse().expect("it is a number")));
                }
            }
        }
        assert!(fetched.next > next, "a fetch that finds something moves on");
        next = fetched.next;
    }
}
