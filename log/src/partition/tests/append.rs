use super::*;
use crate::batch::MarkerKind;
use crate::cleanup::CleanupPolicy;
use crate::files::FileKind;
use crate::storage::OpenMode;

fn producer(id: i64, epoch: i16) -> (ProducerId, ProducerEpoch) {
    (ProducerId(id), ProducerEpoch(epoch))
}

fn kind<T: std::fmt::Debug>(outcome: crate::Result<T>) -> ErrorKind {
    outcome.expect_err("it should be refused").kind()
}

#[test]
fn offsets_follow_one_another_across_segments() {
    let partition = create(&disk(1), small());
    for number in 0..100 {
        let appended = partition.append(batch([2 * number, 2 * number + 1])).expect("the disk is fine");
        let base_offset = Offset(2 * number);
        assert_eq!(appended, Appended { base_offset, last_offset: base_offset.next(), duplicate: false });
    }
    assert!(partition.segments.load().len() > 5, "the segments are small");
    flush(&partition).expect("the disk is fine");
    let read = read_numbers(&partition, Offset(0), 300, Isolation::ReadUncommitted);
    assert_eq!(read.expect("it is sound"), (0..200).map(|n| (Offset(n), n)).collect::<Vec<_>>());
}

#[test]
fn the_size_of_a_partition_is_that_of_its_files() {
    let storage = disk(1);
    let partition = create(&storage, small());
    assert_eq!(partition.size(), PartitionSize { segments: 1, bytes: 0 });
    let appended = (0..30).map(|number| {
        partition.append(batch([number])).expect("the disk is fine");
        partition.size()
    });
    let sizes: Vec<_> = appended.collect();
    assert!(sizes.is_sorted_by_key(|size| size.bytes), "{sizes:?}");
    let listing = Listing::read(&*storage, Path::new(DIRECTORY)).expect("the disk is fine");
    let files = listing.segments.iter().map(|&base| FileKind::Log.path(Path::new(DIRECTORY), base));
    let length = |path: PathBuf| storage.open(&path, OpenMode::Read).and_then(|file| file.len());
    let bytes = files.map(|path| length(path).expect("the disk is fine")).sum();
    assert_eq!(partition.size(), PartitionSize { segments: listing.segments.len(), bytes });
    assert!(partition.size().segments > 2, "the segments are small");
}

#[test]
fn an_append_writes_to_one_file_once() {
    let storage = disk(1);
    let partition = create(&storage, PartitionConfig::default());
    partition.append(batch([0])).expect("the disk is fine");
    for number in 1..2000 {
        let before = storage.operations();
        partition.append(batch([number])).expect("the disk is fine");
        assert_eq!(storage.operations() - before, 1);
    }
}

#[test]
fn what_is_not_synced_is_shown_only_where_durability_does_not_ask_for_it() {
    for (durability, shown) in [(Durability::Sync, 0), (Durability::Os, 1)] {
        let partition = create(&disk(1), PartitionConfig { durability, ..small() });
        partition.append(batch([0])).expect("the disk is fine");
        let fetched = partition.fetch(Offset(0), 1000, Isolation::ReadUncommitted).expect("it is in range");
        assert_eq!(fetched.batches().count(), shown, "{durability:?}");
        flush(&partition).expect("the disk is fine");
        let fetched = partition.fetch(Offset(0), 1000, Isolation::ReadUncommitted).expect("it is in range");
        assert_eq!(fetched.batches().count(), 1, "{durability:?}");
    }
}

#[test]
fn a_compacted_partition_takes_no_record_without_a_key() {
    let check = |policy, keys: &[Option<&str>], expected: bool| {
        let cleanup = Cleanup { policy, ..Cleanup::default() };
        let partition = create(&disk(1), PartitionConfig { cleanup, ..small() });
        let mut builder = BatchBuilder::new(Compression::None);
        for key in keys {
            builder.push(Timestamp(0), key.map(str::as_bytes), Some(b"value"), &[]).expect("it is small");
        }
        let appended = partition.append(builder.seal());
        assert_eq!(appended.is_ok(), expected, "{policy:?} {keys:?}");
        if let Err(error) = appended {
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        // A builder that had one without makes one with.
        builder.push(Timestamp(0), Some(b"key"), None, &[]).expect("it is small");
        partition.append(builder.seal()).expect("it has a key");
    };
    check(CleanupPolicy::Delete, &[Some("key"), None], true);
    check(CleanupPolicy::Compact, &[Some("key"), Some("")], true);
    check(CleanupPolicy::Compact, &[Some("key"), None, Some("key")], false);
    check(CleanupPolicy::CompactAndDelete, &[None], false);
}

#[test]
fn a_flush_with_nothing_new_syncs_nothing() {
    let partition = create(&disk(1), small());
    partition.append(batch([0])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    let submission = partition.submit(SyncReason::of(SyncPurpose::Records)).expect("the disk is fine");
    assert!(submission.tickets.is_empty());
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offset() {
    let partition = create(&disk(1), small());
    let offsets: Vec<_> = (0..5)
        .map(|n| partition.append(stamped(batch([2 * n, 2 * n + 1]), 9, 0, 2 * n as i32, false)))
        .map(|appended| appended.expect("sequences follow").base_offset)
        .collect();
    for n in 0..5 {
        let again = partition.append(stamped(batch([2 * n, 2 * n + 1]), 9, 0, 2 * n as i32, false));
        let again = again.expect("it is one of the last five");
        assert_eq!((again.base_offset, again.duplicate), (offsets[n as usize], true));
    }
    assert_eq!(partition.offsets().end, Offset(10));
}

#[test]
fn a_missing_batch_is_noticed() {
    let partition = create(&disk(1), small());
    partition.append(stamped(batch([0, 1]), 9, 0, 0, false)).expect("it is the first");
    let outcome = partition.append(stamped(batch([5]), 9, 0, 5, false));
    assert_eq!(kind(outcome), ErrorKind::OutOfOrderSequence);
    partition.append(stamped(batch([2]), 9, 0, 2, false)).expect("it follows");
}

#[test]
fn sequences_wrap_to_zero() {
    let partition = create(&disk(1), small());
    partition.append(stamped(batch([0, 1]), 9, 0, i32::MAX - 1, false)).expect("any sequence may be first");
    partition.append(stamped(batch([2]), 9, 0, 0, false)).expect("0 follows the largest");
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_starts_over() {
    let partition = create(&disk(1), small());
    partition.append(stamped(batch([0]), 9, 4, 0, false)).expect("it is the first");
    assert_eq!(kind(partition.append(stamped(batch([1]), 9, 3, 0, false))), ErrorKind::Fenced);
    assert_eq!(kind(partition.append(stamped(batch([1]), 9, 5, 1, false))), ErrorKind::OutOfOrderSequence);
    partition.append(stamped(batch([1]), 9, 5, 0, false)).expect("a new epoch starts at 0");
    assert_eq!(kind(partition.append(stamped(batch([2]), 9, 4, 1, false))), ErrorKind::Fenced);
}

#[test]
fn a_marker_ends_exactly_its_transaction() {
    let partition = create(&disk(1), small());
    let (id, epoch) = producer(9, 2);
    partition.append_to_transaction(stamped(batch([0]), 9, 2, 0, true)).expect("it is the first");
    for other in [1, 3] {
        let outcome = partition.append_marker(MarkerKind::Abort, id, ProducerEpoch(other), 0);
        assert_eq!(outcome.expect("the disk is fine"), None, "epoch {other}");
    }
    let other = partition.append_marker(MarkerKind::Abort, ProducerId(8), epoch, 0);
    assert_eq!(other.expect("the disk is fine"), None);
    let marked = partition.append_marker(MarkerKind::Commit, id, epoch, 0);
    assert_eq!(marked.expect("the disk is fine"), Some(Offset(1)));
    let again = partition.append_marker(MarkerKind::Abort, id, epoch, 0);
    assert_eq!(again.expect("the disk is fine"), None, "a late marker is skipped");
    assert_eq!(partition.offsets().end, Offset(2));
}

#[test]
fn an_ended_transaction_takes_no_further_batch_even_after_reopening() {
    let storage = disk(1);
    let partition = create(&storage, small());
    let (id, epoch) = producer(9, 2);
    partition.append_to_transaction(stamped(batch([0]), 9, 2, 0, true)).expect("it is the first");
    partition.append_marker(MarkerKind::Abort, id, epoch, 0).expect("the disk is fine");
    assert_eq!(kind(partition.append_to_transaction(stamped(batch([1]), 9, 2, 1, true))), ErrorKind::Fenced);
    partition.close().expect("the disk is fine");
    let clean = RecoveryBorder { recovery_point: Some(Offset(2)), clean_shutdown: true };
    let (partition, _) = Partition::open(site(&storage, small()), &clean).expect("it was closed");
    assert_eq!(kind(partition.append_to_transaction(stamped(batch([1]), 9, 2, 1, true))), ErrorKind::Fenced);
    partition
        .append_to_transaction(stamped(batch([1]), 9, 3, 0, true))
        .expect("the next epoch is the next transaction");
}

#[test]
fn a_transaction_is_begun_by_whoever_ends_it_and_by_nobody_else() {
    let partition = create(&disk(1), small());
    let refused = |epoch, sequence| kind(partition.append(stamped(batch([7]), 9, epoch, sequence, true)));
    assert_eq!(refused(0, 0), ErrorKind::TransactionState);
    assert_eq!((partition.offsets().end, partition.open_transactions()), (Offset(0), Vec::new()));

    partition.append(stamped(batch([0]), 9, 2, 0, false)).expect("it belongs to no transaction");
    assert_eq!(refused(2, 1), ErrorKind::TransactionState);
    assert_eq!(refused(3, 0), ErrorKind::TransactionState);

    partition.append_to_transaction(stamped(batch([1]), 9, 3, 0, true)).expect("its coordinator knows of it");
    let next = partition.append(stamped(batch([2]), 9, 3, 1, true)).expect("it is open here");
    assert_eq!(next.base_offset, Offset(2));
    let again = partition.append(stamped(batch([2]), 9, 3, 1, true)).expect("it is open here");
    assert_eq!(again, Appended { duplicate: true, ..next });
    assert_eq!(refused(3, 5), ErrorKind::OutOfOrderSequence);
    assert_eq!(refused(2, 1), ErrorKind::Fenced);
    assert_eq!(refused(4, 0), ErrorKind::TransactionState);

    let (id, epoch) = producer(9, 3);
    partition.append_marker(MarkerKind::Commit, id, epoch, 0).expect("the disk is fine");
    assert_eq!(refused(3, 2), ErrorKind::Fenced);
    assert_eq!(refused(4, 0), ErrorKind::TransactionState);
    assert_eq!(partition.offsets().end, Offset(4));
}

#[test]
fn what_an_ended_transaction_has_written_is_not_taken_for_written_when_it_comes_again() {
    let partition = create(&disk(1), small());
    let (id, epoch) = producer(9, 2);
    let first = || stamped(batch([0]), 9, 2, 0, true);
    partition.append_to_transaction(first()).expect("it is the first");
    partition.append_marker(MarkerKind::Abort, id, epoch, 0).expect("the disk is fine");
    assert_eq!(kind(partition.append(first())), ErrorKind::Fenced);
    assert_eq!(kind(partition.append_to_transaction(first())), ErrorKind::Fenced);
    let plain = stamped(batch([1]), 9, 2, 1, false);
    assert_eq!(
        kind(partition.append(plain)),
        ErrorKind::Fenced,
        "of the same epoch, outside of transactions"
    );
}

#[test]
fn batches_outside_of_the_open_transaction_are_refused() {
    let partition = create(&disk(1), small());
    partition.append_to_transaction(stamped(batch([0]), 9, 2, 0, true)).expect("it is the first");
    assert_eq!(kind(partition.append(stamped(batch([1]), 9, 2, 1, false))), ErrorKind::TransactionState);
    assert_eq!(
        kind(partition.append_to_transaction(stamped(batch([1]), 9, 3, 0, true))),
        ErrorKind::TransactionState
    );
    let open = OpenTransaction {
        producer_id: ProducerId(9),
        producer_epoch: ProducerEpoch(2),
        first_offset: Offset(0),
    };
    assert_eq!(partition.open_transactions(), [open]);
}

#[test]
fn unacceptable_batches_are_refused_and_do_no_harm() {
    let partition = create(&disk(1), small());
    assert_eq!(kind(partition.append(batch(0..500))), ErrorKind::Invalid);
    let marker = crate::batch::marker(MarkerKind::Abort, ProducerId(1), ProducerEpoch(0), 0, Timestamp(0));
    assert_eq!(kind(partition.append(marker)), ErrorKind::Invalid);
    assert_eq!(partition.append(batch([0])).expect("it is fine").base_offset, Offset(0));
}

#[test]
fn after_a_failed_write_appends_are_refused_and_reads_go_on() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    storage.fail_with(std::io::ErrorKind::StorageFull, 0);
    assert_eq!(kind(partition.append(batch([1]))), ErrorKind::Full);
    assert_eq!(kind(partition.append(batch([1]))), ErrorKind::Poisoned);
    assert_eq!(kind(flush(&partition)), ErrorKind::Poisoned);
    let read = read_numbers(&partition, Offset(0), 300, Isolation::ReadUncommitted);
    assert_eq!(read.expect("reads go on"), [(Offset(0), 0)]);
    assert_eq!(kind(partition.close()), ErrorKind::Poisoned);

    storage.kill();
    let (partition, report) =
        Partition::open(site(&storage, small()), &unclean(0)).expect("a torn tail is cut");
    assert_eq!(report.end, Offset(1));
    assert_eq!(partition.append(batch([1])).expect("the disk is fine again").base_offset, Offset(1));
}

#[test]
fn what_a_failed_sync_covered_is_cut_off_although_it_can_be_read() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    partition.append(batch([1])).expect("the disk is fine");
    storage.fail_with(std::io::ErrorKind::Other, 0);
    assert_eq!(kind(flush(&partition)), ErrorKind::Io);
    assert!(partition.is_poisoned());
    assert_eq!(kind(partition.append(batch([2]))), ErrorKind::Poisoned);

    storage.kill();
    let (partition, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("it is cut");
    assert_eq!(report.end, Offset(1));
    let truncated = report.truncated.expect("it is reported");
    assert_eq!((truncated.offset, truncated.torn_files.len()), (Offset(1), 0));
    partition.append(batch([7])).expect("the disk is fine again");
    flush(&partition).expect("the disk is fine again");

    storage.kill();
    let (partition, report) =
        Partition::open(site(&storage, small()), &unclean(1)).expect("nothing is wrong");
    assert_eq!((report.end, report.truncated), (Offset(2), None), "the note of the failure is gone");
    let read = read_numbers(&partition, Offset(0), 300, Isolation::ReadUncommitted);
    assert_eq!(read.expect("it is sound"), [(Offset(0), 0), (Offset(1), 7)]);
}

#[test]
fn a_directory_of_another_topic_is_refused() {
    let storage = disk(1);
    create(&storage, small()).close().expect("the disk is fine");
    let mut other = site(&storage, small());
    other.topic_id = TopicId(Uuid::from_u128(8));
    assert_eq!(kind(Partition::open(other, &unclean(0))), ErrorKind::Invalid);
    assert_eq!(kind(Partition::create(site(&storage, small()))), ErrorKind::AlreadyExists);
}

fn snapshots(storage: &MemoryStorage) -> Vec<i64> {
    let listing = Listing::read(storage, Path::new(DIRECTORY)).expect("it exists");
    listing.snapshots.iter().map(|offset| offset.0).collect()
}

#[test]
fn producers_are_written_down_though_every_append_is_flushed_at_once() {
    let storage = disk(1);
    let config = PartitionConfig { segment_bytes: 1 << 30, ..small() };
    let partition = create(&storage, config.clone());
    for number in 0..100 {
        partition.append(batch([number])).expect("the disk is fine");
        flush(&partition).expect("the disk is fine");
    }
    storage.crash();
    let (_, report) = Partition::open(site(&storage, config), &unclean(100)).expect("nothing is bad");
    assert!(report.scanned_bytes <= 2 * small().snapshot_interval_bytes, "{report:?}");
}

#[test]
fn a_snapshot_that_recovery_would_believe_is_kept_and_older_ones_go() {
    let storage = disk(1);
    let partition = create(&storage, small());
    let append = |numbers: std::ops::Range<i64>| {
        for number in numbers {
            partition.append(batch([number])).expect("the disk is fine");
            flush(&partition).expect("the disk is fine");
        }
    };
    let raise = |point| partition.site.context.synced_points.raise([(partition.key(), Offset(point))].into());
    append(0..20);
    raise(20);
    // The recovery point stays behind, as it does when it cannot be written.
    append(20..100);
    let kept = snapshots(&storage);
    assert!(kept.iter().any(|offset| (1..=20).contains(offset)), "{kept:?}");
    raise(100);
    append(100..120);
    let kept = snapshots(&storage);
    assert!(kept.iter().filter(|offset| **offset <= 100).count() <= 2, "{kept:?}");
    storage.crash();
    let opened = Partition::open(site(&storage, small()), &unclean(100)).expect("nothing is bad");
    assert!(opened.1.scanned_bytes < 30 * 90, "{:?}", opened.1);
}
