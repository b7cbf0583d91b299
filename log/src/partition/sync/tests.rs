//! What closing makes of a flush that is under way.

use std::path::Path;

use super::super::tests::{DIRECTORY, batch, create, disk, site, small, unclean};
use super::*;
use crate::error::ErrorKind;
use crate::storage::Storage;
use crate::storage::memory::SyncMode;

fn submit(partition: &Partition) -> Result<Submission> {
    partition.submit(SyncPurpose::Records)
}

#[test]
fn a_flush_of_a_partition_that_could_not_be_closed_is_an_error() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    storage.fail_with(io::ErrorKind::Other, 0);
    partition.close().expect_err("the disk is not");
    let error = submit(&partition).expect_err("nothing of it was synced");
    assert_eq!(error.kind(), ErrorKind::Poisoned);
}

#[test]
fn a_partition_is_not_closed_before_the_flush_under_way_has_succeeded() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    storage.set_sync_mode(SyncMode::Delayed);
    submit(&partition).expect("the disk is fine");
    storage.fail_syncs(io::ErrorKind::Other);
    storage.set_sync_mode(SyncMode::Immediate);
    partition.close().expect_err("the flusher would be told of it only now");
}

#[test]
fn what_a_flush_under_way_has_synced_is_not_cut_off_because_closing_fails() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    storage.set_sync_mode(SyncMode::Delayed);
    submit(&partition).expect("the disk is fine");
    storage.complete_syncs();
    storage.set_sync_mode(SyncMode::Immediate);
    partition.append(batch([0])).expect("the disk is fine");
    // Two indexes are made and one of them is written; the log and one index are synced, the other is not.
    storage.fail_with(io::ErrorKind::Other, 5);
    partition.close().expect_err("the last sync fails");
    assert!(storage.exists(&Path::new(DIRECTORY).join("failed-sync")).expect("the disk is fine again"));

    storage.kill();
    let (_, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("it is cut");
    assert_eq!(report.end, Offset(1), "the first record was acknowledged");
}
