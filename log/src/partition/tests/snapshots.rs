//! The producers are written down wherever a segment ends, so that recovery does not read what is before.

use super::*;
use crate::recovery::RecoveryReport;
use crate::unsynced_files::UnsyncedFiles;

/// What comes of a power cut, with the recovery point where all was durable.
fn after_power_cut(
    storage: &Arc<MemoryStorage>,
    partition: Arc<Partition>,
) -> (Arc<Partition>, RecoveryReport) {
    let durable = partition.durable();
    drop(partition);
    storage.crash();
    Partition::open(site(storage, roomy()), &unclean(durable.0)).expect("what was synced is there")
}

/// No snapshot is due but where a segment ends.
fn roomy() -> PartitionConfig {
    PartitionConfig { snapshot_interval_bytes: 1 << 20, ..small() }
}

fn idempotent(partition: &Partition, id: i64) -> Appended {
    partition.append(stamped(batch(0..3), id, 0, 0, false)).expect("it is acceptable")
}

/// Seals the active segment, as where a sync has begun since it was looked whether one is to follow.
pub(crate) fn seal_behind_a_sync(partition: &Partition) {
    partition.roll(&mut partition.lock_writer_with_room(|_| 6)).expect("the disk is fine");
}

/// A segment is sealed when all that it holds is synced already, and the power fails.
pub(crate) fn check_sealed_at_rest(seed: u64) {
    let storage = disk(seed);
    let partition = create(&storage, roomy());
    let written = idempotent(&partition, 1);
    for id in 2..5 {
        idempotent(&partition, id);
    }
    flush(&partition).expect("the disk is fine");
    partition.seal_active().expect("the disk is fine");
    let end = partition.offsets().end;
    assert_eq!(partition.snapshotted(), end);
    let (partition, report) = after_power_cut(&storage, partition);
    assert_eq!((report.end, report.scanned_bytes), (end, 0), "seed {seed}");
    assert_eq!(idempotent(&partition, 1), Appended { duplicate: true, ..written }, "seed {seed}");
}

#[test]
fn what_is_sealed_when_all_of_it_is_synced_is_not_read_again_after_a_power_cut() {
    (0..60).for_each(check_sealed_at_rest);
}

#[test]
fn wherever_the_power_fails_while_a_segment_is_sealed_that_is_synced_nothing_is_lost() {
    let mut was_cut = true;
    let mut operation = 0;
    while was_cut {
        for seed in 0..8 {
            let storage = disk(seed);
            let partition = create(&storage, roomy());
            let written = idempotent(&partition, 1);
            flush(&partition).expect("the disk is fine");
            storage.fail_after(operation);
            drop(partition.seal_active());
            was_cut = storage.is_unplugged();
            storage.clear_faults();
            let (partition, report) = after_power_cut(&storage, partition);
            assert_eq!(report.end, Offset(3), "operation {operation}, seed {seed}");
            let repeated = idempotent(&partition, 1);
            assert_eq!(
                repeated,
                Appended { duplicate: true, ..written },
                "operation {operation}, seed {seed}"
            );
        }
        operation += 1;
    }
    assert!(operation > 12, "there are many operations: {operation}");
}

#[test]
fn where_a_segment_begins_when_all_before_it_is_synced_its_first_batch_has_the_producers_written_down() {
    let storage = disk(1);
    let partition = create(&storage, roomy());
    let append_and_flush = |number: i64| {
        let segments = partition.segments.load().len();
        partition.append(batch(number..number + 3)).expect("it is acceptable");
        flush(&partition).expect("the disk is fine");
        partition.segments.load().len() > segments
    };
    let rolled = (0..).position(append_and_flush).expect("a segment takes so many bytes");
    assert!(rolled > 0);
    assert_eq!(partition.snapshotted(), partition.offsets().end);
    let (_, report) = after_power_cut(&storage, partition);
    assert_eq!(report.scanned_bytes, 0);
}

#[test]
fn a_producer_whose_segment_is_removed_is_known_after_a_power_cut() {
    let storage = disk(1);
    let partition = create(&storage, roomy());
    let written = idempotent(&partition, 1);
    flush(&partition).expect("the disk is fine");
    partition.seal_active().expect("the disk is fine");
    let bound = partition.hold().from;
    assert_eq!(bound, Offset(3), "nothing holds what is written down of its producers");
    partition.remove_segments_before(bound).expect("the disk is fine");
    let (partition, _) = after_power_cut(&storage, partition);
    assert_eq!(partition.offsets().start, Offset(3));
    assert_eq!(idempotent(&partition, 1), Appended { duplicate: true, ..written });
}

#[test]
fn a_producer_whose_records_are_deleted_is_known_after_a_crash_whatever_is_removed_by_then() {
    for (is_flushed, is_killed) in [(false, false), (false, true), (true, false), (true, true)] {
        let storage = disk(1);
        let partition = create(&storage, PartitionConfig { segment_bytes: 100, ..roomy() });
        let written = idempotent(&partition, 1);
        flush(&partition).expect("the disk is fine");
        idempotent(&partition, 2);
        if is_flushed {
            flush(&partition).expect("the disk is fine");
        }
        // The second segment began when all before it was synced.
        let deleted = partition.delete_records(Offset(3));
        if is_flushed {
            assert_eq!(deleted.expect("its producer is written down"), Offset(3));
        } else {
            let error = deleted.expect_err("its producer is not written down");
            assert_eq!(error.kind(), ErrorKind::Retry);
            assert!(
                error.to_string().ends_with("the producers are written down durably up to offset 0 only")
            );
        }
        let durable = partition.durable();
        drop(partition);
        if is_killed {
            storage.kill()
        } else {
            storage.crash()
        }
        let opened = Partition::open(site(&storage, roomy()), &unclean(durable.0));
        let (partition, _) = opened.expect("what was synced is there");
        assert_eq!(idempotent(&partition, 1), Appended { duplicate: true, ..written });
    }
}

#[test]
fn a_producer_is_known_after_a_crash_though_all_there_was_is_deleted_and_a_segment_begins_there() {
    for is_killed in [false, true] {
        let storage = disk(1);
        let partition = create(&storage, PartitionConfig { segment_bytes: 100, ..roomy() });
        let written = idempotent(&partition, 1);
        flush(&partition).expect("the disk is fine");
        assert_eq!(partition.delete_records(Offset(3)).expect("it is durable"), Offset(3));
        idempotent(&partition, 2);
        assert_eq!(partition.segments.load().len(), 2);
        drop(partition);
        if is_killed {
            storage.kill()
        } else {
            storage.crash()
        }
        let (partition, _) = Partition::open(site(&storage, roomy()), &unclean(3)).expect("it is there");
        assert_eq!(idempotent(&partition, 1), Appended { duplicate: true, ..written });
    }
}

#[test]
fn a_disk_that_is_full_when_the_producers_are_to_be_written_down_keeps_nobody_from_writing() {
    // How many operations of a deletion may fail and nothing is in doubt.
    let harmless = |is_written_down: bool| {
        let fails = |operation: u64| {
            let storage = disk(1);
            let partition = create(&storage, roomy());
            idempotent(&partition, 1);
            flush(&partition).expect("the disk is fine");
            if is_written_down {
                partition.snapshot_at_rest().expect("the disk is fine");
            }
            storage.fail_with(std::io::ErrorKind::StorageFull, operation);
            let error = partition.delete_records(Offset(3)).err()?;
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            let is_harmless = !partition.is_poisoned();
            assert!(!is_harmless || !idempotent(&partition, 2).duplicate);
            Some(is_harmless)
        };
        (0..).map_while(fails).filter(|is_harmless| *is_harmless).count()
    };
    assert_eq!(harmless(false), harmless(true) + 2, "the snapshot is made and written");
}

#[test]
fn a_segment_that_was_sealed_while_a_sync_had_begun_is_not_held_for_good() {
    for is_deleted in [false, true] {
        let storage = disk(1);
        let partition = create(&storage, roomy());
        let written = idempotent(&partition, 1);
        partition.snapshot_at_rest().expect("nothing is done, as a sync is to follow");
        flush(&partition).expect("the disk is fine");
        seal_behind_a_sync(&partition);
        assert_eq!(partition.hold().from, Offset(0));
        if is_deleted {
            assert_eq!(partition.delete_records(Offset(3)).expect("nothing holds it"), Offset(3));
        } else {
            partition.seal_active().expect("the disk is fine");
        }
        assert_eq!(partition.hold().from, Offset(3));
        let (partition, report) = after_power_cut(&storage, partition);
        assert_eq!(report.scanned_bytes, 0);
        assert_eq!(idempotent(&partition, 1), Appended { duplicate: true, ..written });
    }
}

#[test]
fn what_lies_behind_the_last_snapshot_is_held_and_it_is_said_why() {
    let storage = disk(1);
    let partition = create(&storage, roomy());
    idempotent(&partition, 1);
    flush(&partition).expect("the disk is fine");
    partition.seal_active().expect("the disk is fine");
    idempotent(&partition, 2);
    flush(&partition).expect("the disk is fine");
    let hold = partition.hold();
    assert_eq!(hold.from, Offset(3));
    assert_eq!(hold.to_string(), "the producers are written down durably up to offset 3 only");
    partition.seal_active().expect("the disk is fine");
    assert_eq!(partition.hold().from, Offset(6));
}

#[test]
fn a_snapshot_that_is_not_durable_yet_lets_nothing_go() {
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig { segment_bytes: 100, ..roomy() });
    idempotent(&partition, 1);
    flush(&partition).expect("the disk is fine");
    idempotent(&partition, 2);
    assert_eq!(partition.segments.load().len(), 2);
    assert_eq!(partition.hold().from, Offset(0));
    flush(&partition).expect("the disk is fine");
    assert_eq!(partition.hold().from, Offset(6));
}

#[test]
fn whoever_begins_a_segment_where_all_is_synced_asks_for_room_for_the_snapshot_too() {
    const FILES_MAX: usize = 23;
    let storage = disk(1);
    let files = Arc::new(UnsyncedFiles::new(FILES_MAX));
    let config = PartitionConfig { segment_bytes: 100, ..roomy() };
    let partitions: Vec<_> = (0..8)
        .map(|partition| {
            let mut site = site(&storage, config.clone());
            site.context.unsynced_files = files.clone();
            site.directory = PathBuf::from(format!("/log/topic-{partition}"));
            Partition::create(site).expect("there is none yet")
        })
        .collect();
    for round in 0..4 {
        for partition in &partitions {
            partition.append(batch(round..round + 3)).expect("it is acceptable");
            assert!(files.open() <= FILES_MAX, "{} files are open", files.open());
        }
        partitions.iter().for_each(|partition| flush(partition).expect("the disk is fine"));
    }
}
