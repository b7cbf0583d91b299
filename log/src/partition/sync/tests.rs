//! What closing makes of a flush that is under way.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::super::{PartitionConfig, PartitionContext, PartitionSite};
use super::*;
use crate::batch::{BatchBuilder, Compression, SealedBatch};
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::read_buffers::ReadBuffers;
use crate::record::{PartitionId, Timestamp, TopicId, TopicPartition};
use crate::recovery::RecoveryBorder;
use crate::storage::Storage;
use crate::storage::memory::{MemoryStorage, SyncMode};

fn site(storage: &Arc<MemoryStorage>) -> PartitionSite {
    PartitionSite {
        name: TopicPartition::new("topic", PartitionId(0)),
        topic_id: TopicId(Uuid::from_u128(7)),
        directory: PathBuf::from("/topic-0"),
        config: PartitionConfig::default(),
        context: PartitionContext {
            storage: storage.clone(),
            clock: ManualClock::new(),
            buffers: ReadBuffers::new(),
            progress: Arc::default(),
        },
    }
}

fn create() -> (Arc<MemoryStorage>, Arc<Partition>) {
    let storage = MemoryStorage::new(1);
    let partition = Partition::create(site(&storage)).expect("the disk is empty");
    storage.sync_dir(Path::new("/"), SyncPurpose::Directory).expect("the disk is fine");
    (storage, partition)
}

fn batch() -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(b"value"), &[]).expect("it is small");
    builder.seal()
}

fn submit(partition: &Partition) -> Result<Submission> {
    partition.submit(SyncPurpose::Records)
}

#[test]
fn a_flush_of_a_partition_that_could_not_be_closed_is_an_error() {
    let (storage, partition) = create();
    partition.append(batch()).expect("the disk is fine");
    storage.fail_with(io::ErrorKind::Other, 0);
    partition.close().expect_err("the disk is not");
    let error = submit(&partition).expect_err("nothing of it was synced");
    assert_eq!(error.kind(), ErrorKind::Poisoned);
}

#[test]
fn a_partition_is_not_closed_before_the_flush_under_way_has_succeeded() {
    let (storage, partition) = create();
    partition.append(batch()).expect("the disk is fine");
    storage.set_sync_mode(SyncMode::Delayed);
    submit(&partition).expect("the disk is fine");
    storage.fail_syncs(io::ErrorKind::Other);
    storage.set_sync_mode(SyncMode::Immediate);
    partition.close().expect_err("the flusher would be told of it only now");
}

#[test]
fn what_a_flush_under_way_has_synced_is_not_cut_off_because_closing_fails() {
    let (storage, partition) = create();
    partition.append(batch()).expect("the disk is fine");
    storage.set_sync_mode(SyncMode::Delayed);
    submit(&partition).expect("the disk is fine");
    storage.complete_syncs();
    storage.set_sync_mode(SyncMode::Immediate);
    partition.append(batch()).expect("the disk is fine");
    // Three files are made and two of them are written before the first sync.
    storage.fail_with(io::ErrorKind::Other, 5);
    partition.close().expect_err("the last sync fails");
    assert!(storage.exists(Path::new("/topic-0/failed-sync")).expect("the disk is fine again"));

    storage.kill();
    let (_, report) = Partition::open(site(&storage), &RecoveryBorder::default()).expect("it is cut");
    assert_eq!(report.end, Offset(1), "the first record was acknowledged");
}
