//! What closing makes of a flush that is under way.

use std::path::Path;

use parking_lot::Mutex;

use super::super::tests::{DIRECTORY, batch, create, disk, flush, site, small, unclean};
use super::*;
use crate::storage::Storage;
use crate::storage::memory::{MemoryStorage, SyncMode};
use crate::storage::observed::{Call, ObservedStorage, Observer};

fn submit(partition: &Partition) -> Result<Submission> {
    partition.submit(SyncReason::of(SyncPurpose::Records))
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

/// Opens the partition's directory, or does not.
struct Locked(Mutex<Option<io::ErrorKind>>);

impl Observer for Locked {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        match *self.0.lock() {
            Some(kind) if call == Call::OpenDirectory(Path::new(DIRECTORY)) => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_directory_that_cannot_be_opened_has_nothing_synced_and_nothing_given_up() {
    use io::ErrorKind::{NotFound, Other, PermissionDenied};
    for kind in [PermissionDenied, NotFound, Other] {
        for closes in [false, true] {
            let storage = disk(1);
            drop(create(&storage, small()));
            let locked = ObservedStorage::observed_by(Locked(Mutex::new(None)), storage.mount());
            let partition = Partition::open(site(&locked, small()), &unclean(0)).expect("it is empty").0;
            let mut written = 0;
            while !partition.waits_to_submit() {
                partition.append(batch([written])).expect("the disk is fine");
                written += 1;
            }
            *locked.observer().0.lock() = Some(kind);
            submit(&partition).map(drop).expect_err("its names cannot be synced");
            assert!(!partition.is_poisoned(), "{kind:?}");
            partition.append(batch([written])).expect("it is as good as it was");
            assert_eq!(partition.durable(), Offset(0));
            if closes {
                partition.close().expect_err("its names cannot be synced");
            }
            *locked.observer().0.lock() = None;
            let note = Path::new(DIRECTORY).join("failed-sync");
            assert!(!storage.exists(&note).expect("the disk is fine"), "{kind:?}");
            if closes {
                storage.kill();
            } else {
                flush(&partition).expect("it can be opened");
                storage.crash();
            }
            let (_, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("it is sound");
            assert_eq!(report.end, Offset(written + 1), "{kind:?}, closed: {closes}");
        }
    }
}

/// A partition with a record that nobody waits for, and one behind it, while syncs wait to be ended.
fn closing() -> (Arc<MemoryStorage>, Arc<Partition>) {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    storage.set_sync_mode(SyncMode::Delayed);
    assert_eq!(partition.begin_closing().len(), 1);
    partition.append(batch([1])).expect("the disk is fine");
    (storage, partition)
}

#[test]
fn a_flush_has_failed_with_a_sync_that_nobody_waits_for() {
    let (storage, partition) = closing();
    let submission = submit(&partition).expect("the disk is fine");
    assert!(storage.fail_sync(0, io::ErrorKind::Other));
    storage.complete_syncs();
    let outcome = outcome(&submission.tickets).expect("all have ended");
    outcome.expect_err("what it stands on is not synced");
}

#[test]
fn a_partition_is_not_closed_while_a_sync_that_nobody_waits_for_has_failed() {
    let (storage, partition) = closing();
    storage.fail_syncs(io::ErrorKind::Other);
    storage.set_sync_mode(SyncMode::Immediate);
    partition.close().expect_err("it has failed");
    assert!(partition.is_poisoned());
}

#[test]
fn a_file_is_not_synced_to_be_closed_while_a_flush_syncs_it() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    storage.set_sync_mode(SyncMode::Delayed);
    let submission = submit(&partition).expect("the disk is fine");
    assert_eq!(partition.begin_closing().len(), submission.tickets.len(), "that one is waited for");
    assert_eq!(storage.syncs_in_flight(), 1);
    storage.complete_syncs();
    partition.end_closing();
    assert!(!partition.writer.lock().holds_unsynced(), "it is synced, though nobody was told yet");
}

#[test]
fn what_a_flush_has_synced_is_not_cut_off_because_a_later_sync_fails_before_it_is_told() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    let submission = submit(&partition).expect("the disk is fine");
    partition.append(batch([1])).expect("the disk is fine");
    storage.set_sync_mode(SyncMode::Delayed);
    assert_eq!(partition.begin_closing().len(), 1);
    storage.fail_syncs(io::ErrorKind::Other);
    partition.end_closing();
    assert!(partition.is_poisoned());
    partition.flushed(submission.upto);
    storage.set_sync_mode(SyncMode::Immediate);

    storage.kill();
    let (_, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("it is cut");
    assert_eq!(report.end, Offset(1), "the first record was acknowledged");
}
