use std::io;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::batch::MarkerKind;
use crate::files::FileKind;
use crate::partition::reader::READS_MAX;
use crate::spawn::spawn;
use crate::storage::OpenMode;
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::observed::{Call, ObservedStorage, Observer};

/// How long to wait for what takes no time.
const PATIENCE: Duration = Duration::from_secs(20);

fn filled(config: PartitionConfig, batches: i64) -> Arc<Partition> {
    let partition = create(&disk(1), config);
    for number in 0..batches {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    partition
}

#[test]
fn every_offset_can_be_sought() {
    for config in
        [small(), PartitionConfig { index_interval_bytes: 0, ..small() }, PartitionConfig::default()]
    {
        let partition = filled(config, 100);
        for from in (0..=100).step_by(3) {
            for bytes_max in [0, 61, 200, 5000] {
                let read = read_numbers(&partition, Offset(from), bytes_max, Isolation::ReadUncommitted);
                assert_eq!(
                    read.expect("it is sound"),
                    (from..100).map(|n| (Offset(n), n)).collect::<Vec<_>>()
                );
            }
        }
    }
}

#[test]
fn offsets_outside_of_the_partition_are_refused() {
    let partition = filled(small(), 10);
    for offset in [-1, 11] {
        let error =
            partition.fetch(Offset(offset), 100, Isolation::ReadUncommitted).expect_err("it is outside");
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
        assert!(error.to_string().contains("topic topic, partition 3"), "{error}");
    }
}

#[test]
fn a_batch_larger_than_asked_for_comes_whole() {
    let partition = create(&disk(1), small());
    partition.append(batch(0..50)).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    let fetched = partition.fetch(Offset(20), 1, Isolation::ReadUncommitted).expect("it is in range");
    assert_eq!((fetched.batches().count(), fetched.next), (1, Offset(50)));
}

#[test]
fn readers_that_read_on_need_one_read_for_each_fetch() {
    let storage = disk(1);
    let config = PartitionConfig { index_interval_bytes: 1000, ..PartitionConfig::default() };
    let partition = create(&storage, config);
    for number in 0..1000 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    let place = |next| partition.segments.load()[0].place_before(next).expect("the disk is fine").offset;
    let mut next = Offset(0);
    while next < Offset(900) {
        next = partition.fetch(next, 500, Isolation::ReadUncommitted).expect("it is in range").next;
        let segment = partition.segments.load()[0].id();
        let hint = partition.hints.lock().find(segment, next).expect("it is remembered");
        assert_eq!(hint.offset, next);
        assert!(place(next) <= next, "the index leads to it or before it");
    }
}

#[test]
fn the_earliest_record_that_is_late_enough_is_found_by_time() {
    // Out of order on purpose, over several segments.
    let times: Vec<i64> = (0..120).map(|n| 10 * n - 37 * (n % 5)).collect();
    let partition = create(&disk(1), small());
    for pair in times.chunks(2) {
        partition.append(batch(pair.iter().copied())).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    for wanted in -200..1300 {
        let first = times.iter().position(|time| *time >= wanted);
        let expected = first.map(|index| (Offset(index as i64), Timestamp(times[index])));
        let found = partition.offset_for_timestamp(Timestamp(wanted)).expect("it is sound");
        assert_eq!(found, expected, "{wanted}");
    }
}

#[test]
fn markers_are_not_found_by_time() {
    let storage = disk(1);
    let partition = create(&storage, small());
    partition.append_to_transaction(stamped(batch([-5]), 9, 0, 0, true)).expect("the disk is fine");
    partition
        .append_marker(MarkerKind::Commit, ProducerId(9), ProducerEpoch(0), 0)
        .expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    assert_eq!(partition.offset_for_timestamp(Timestamp(-3)).expect("it is sound"), None);
}

#[test]
fn committed_records_are_shown_up_to_the_first_open_transaction() {
    let partition = create(&disk(1), small());
    let append = |batch| partition.append_to_transaction(batch).expect("the disk is fine").base_offset;
    append(batch([0]));
    append(stamped(batch([1]), 8, 0, 0, true));
    append(stamped(batch([2]), 9, 0, 0, true));
    append(batch([3]));
    flush(&partition).expect("the disk is fine");
    let committed = || {
        let read = read_numbers(&partition, Offset(0), 100, Isolation::ReadCommitted).expect("it is sound");
        read.into_iter().map(|(_, number)| number).collect::<Vec<_>>()
    };
    let end = |kind, id| {
        partition.append_marker(kind, ProducerId(id), ProducerEpoch(0), 0).expect("the disk is fine");
        flush(&partition).expect("the disk is fine");
    };
    assert_eq!((committed(), partition.offsets().stable), (vec![0], Offset(1)));
    end(MarkerKind::Commit, 9);
    assert_eq!((committed(), partition.offsets().stable), (vec![0], Offset(1)));
    end(MarkerKind::Abort, 8);
    assert_eq!((committed(), partition.offsets().stable), (vec![0, 2, 3], Offset(6)));
    let all = read_numbers(&partition, Offset(0), 100, Isolation::ReadUncommitted).expect("it is sound");
    assert_eq!(all.len(), 4);
}

#[test]
fn aborted_records_are_skipped_from_wherever_reading_begins_and_however_far_the_marker_is() {
    let partition = create(&disk(1), small());
    let append = |batch| partition.append_to_transaction(batch).expect("the disk is fine");
    for number in 0..60 {
        append(stamped(batch([number]), 9, 0, number as i32, true));
        append(batch([1000 + number]));
    }
    partition.append_marker(MarkerKind::Abort, ProducerId(9), ProducerEpoch(0), 0).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    assert!(partition.segments.load().len() > 5, "the marker is in another segment");
    for from in 0..120 {
        let read =
            read_numbers(&partition, Offset(from), 150, Isolation::ReadCommitted).expect("it is sound");
        assert!(read.iter().all(|(_, number)| *number >= 1000));
        assert_eq!(read.len() as i64, (120 - from + 1) / 2, "from {from}");
    }
}

#[test]
fn a_read_only_handle_follows_a_writer_and_changes_nothing() {
    let storage = disk(1);
    let config = small();
    let writer = create(&storage, config.clone());
    writer.append(batch([0])).expect("the disk is fine");
    let reader =
        Partition::open_read_only(site(&storage, config), &RecoveryBorder::default()).expect("there is one");
    let before = storage.operations();
    for number in 1..100 {
        if number % 7 == 0 {
            writer
                .append_to_transaction(stamped(batch([number]), 9, number as i16, 0, true))
                .expect("the disk is fine");
            let epoch = ProducerEpoch(number as i16);
            writer.append_marker(MarkerKind::Abort, ProducerId(9), epoch, 0).expect("the disk is fine");
        } else {
            writer.append(batch([number])).expect("the disk is fine");
        }
        let changes = storage.operations();
        let offsets = reader.refresh().expect("it is sound");
        assert_eq!(offsets.end, writer.offsets().end);
        for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
            let read = read_numbers(&reader, Offset(0), 300, isolation).expect("it is sound");
            let expected =
                (0..=number).filter(|n| *n == 0 || n % 7 != 0 || isolation == Isolation::ReadUncommitted);
            assert_eq!(read.into_iter().map(|(_, n)| n).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
        assert_eq!(storage.operations(), changes, "reading changes nothing");
    }
    assert!(storage.operations() > before);
    assert_eq!(reader.append(batch([0])).expect_err("it is read-only").kind(), ErrorKind::Closed);
    let late =
        Partition::open_read_only(site(&storage, small()), &RecoveryBorder::default()).expect("there is one");
    assert_eq!(late.offsets(), reader.offsets());
    let read =
        |partition| read_numbers(partition, Offset(0), 300, Isolation::ReadCommitted).expect("it is sound");
    assert_eq!(read(&late), read(&reader));
}

#[test]
fn a_read_only_handle_hears_of_each_start_though_one_before_could_not_be_written_down() {
    let mut failed = 0;
    for operation in 0.. {
        let storage = disk(1);
        let writer = create(&storage, small());
        for number in 0..10 {
            writer.append(batch([number])).expect("the disk is fine");
        }
        writer.sync_last().expect("the disk is fine");
        let reader = Partition::open_read_only(site(&storage, small()), &RecoveryBorder::default())
            .expect("there is one");
        storage.fail_with(std::io::ErrorKind::Other, operation);
        let deleted = writer.delete_records(Offset(4));
        storage.clear_faults();
        // It may have been written and not be durable.
        reader.refresh().expect("it is sound");
        writer.delete_records(Offset(7)).expect("the disk is fine");
        assert_eq!(reader.refresh().expect("it is sound").start, Offset(7), "operation {operation} failed");
        if deleted.is_ok() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 2, "it is written, put in place, and made durable");
}

#[test]
fn a_torn_tail_is_the_end_for_a_read_only_handle() {
    let storage = disk(1);
    let writer = create(&storage, small());
    for number in 0..3 {
        writer.append(batch([number])).expect("the disk is fine");
    }
    let file = writer.segments.load()[0].path().to_owned();
    let bytes = storage.contents(&file).expect("it exists").len() as u64;
    storage.corrupt(&file, bytes - 1, 1).expect("it is there");
    let reader =
        Partition::open_read_only(site(&storage, small()), &RecoveryBorder::default()).expect("there is one");
    assert_eq!(reader.offsets().end, Offset(2));
    assert_eq!(reader.refresh().expect("it still ends there").end, Offset(2));
    storage.corrupt(&file, bytes - 1, 1).expect("it is there");
    assert_eq!(reader.refresh().expect("it is whole now").end, Offset(3));
}

#[test]
fn a_log_that_was_cut_back_and_has_grown_again_is_not_read_on_in() {
    for (kept, is_closed) in [(0, false), (3, false), (9, false), (3, true)] {
        let storage = disk(1);
        let writer = create(&storage, small());
        for number in 0..10 {
            writer.append(batch([number])).expect("the disk is fine");
        }
        if is_closed {
            writer.close().expect("the disk is fine");
        }
        let border = RecoveryBorder { clean_shutdown: is_closed, ..RecoveryBorder::default() };
        let reader = Partition::open_read_only(site(&storage, small()), &border).expect("there is one");
        assert_eq!(reader.offsets().end, Offset(10));

        let segments = writer.segments.load();
        let cut = segments.iter().rposition(|segment| segment.base() <= Offset(kept)).expect("there is one");
        for segment in &segments[cut + 1..] {
            storage.remove_file(segment.path()).expect("it exists");
        }
        let mut scanner = segments[cut].scan(segments[cut].start()).expect("it is there");
        while scanner.place().offset < Offset(kept) {
            scanner.next().expect("it is sound");
        }
        segments[cut]
            .file()
            .and_then(|file| file.truncate(scanner.place().position))
            .expect("the disk is fine");
        drop(writer);
        let (writer, _) = Partition::open(site(&storage, small()), &unclean(0)).expect("it was cut back");
        assert_eq!(writer.offsets().end, Offset(kept));
        for number in 100..130 {
            writer.append(batch([number])).expect("the disk is fine");
        }
        let error = reader.refresh().expect_err("it is another log by now");
        assert_eq!(error.kind(), ErrorKind::Retry, "{kept}: {error}");
    }
}

/// Replaces the segments of a partition whenever one of them is about to be read.
#[derive(Default)]
struct Replacing {
    partition: OnceLock<Weak<Partition>>,
    reads: AtomicUsize,
    is_replacing: AtomicBool,
}

impl Observer for Replacing {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
        let partition = self.partition.get().and_then(Weak::upgrade);
        match (call, partition) {
            (Call::Read(path), Some(partition)) if is_log(path) => {
                if self.is_replacing.swap(true, Ordering::Relaxed) {
                    return Ok(());
                }
                self.reads.fetch_add(1, Ordering::Relaxed);
                let bases: Vec<_> = partition.segments.load().iter().map(|segment| segment.base()).collect();
                let open = |base| Segment::open_sealed(&partition.site, base, OpenMode::Write);
                let replaced = bases.into_iter().map(open);
                let replaced: io::Result<Vec<_>> = replaced.map(|segment| segment.map(Arc::new)).collect();
                partition.segments.store(replaced?);
                self.is_replacing.store(false, Ordering::Relaxed);
                Err(io::ErrorKind::StaleNetworkFileHandle.into())
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn who_reads_more_slowly_than_segments_are_replaced_is_told_so_after_a_bounded_number_of_reads() {
    let disk = disk(1);
    let partition = create(&disk, small());
    for number in 0..40 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    partition.close().expect("the disk is fine");
    drop(partition);
    let observed = ObservedStorage::observed_by(Replacing::default(), disk);
    let closed = RecoveryBorder { recovery_point: Some(Offset(40)), clean_shutdown: true };
    let (partition, _) = Partition::open(site(&observed, small()), &closed).expect("it is sound");
    let observer = observed.observer();
    observer.partition.set(Arc::downgrade(&partition)).expect("it is set once");
    let reads = || observer.reads.swap(0, Ordering::Relaxed);
    let error = partition.fetch(Offset(3), 100, Isolation::ReadUncommitted).expect_err("it never reads any");
    assert_eq!((error.kind(), reads()), (ErrorKind::Retry, READS_MAX), "{error}");
    let error = partition.offset_for_timestamp(Timestamp(20)).expect_err("it never reads any");
    assert_eq!((error.kind(), reads()), (ErrorKind::Retry, READS_MAX), "{error}");
}

#[test]
fn who_reads_again_because_of_one_step_of_a_compaction_does_not_wait_for_the_next() {
    let disk = disk(1);
    let interrupting = InterruptingStorage::new(disk.clone());
    let partition = Partition::create(site(&interrupting, small())).expect("there is none yet");
    for number in 0..40 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    let replaced = Arc::downgrade(&partition);
    let replace = move || {
        let partition = replaced.upgrade().expect("it is being read");
        let mut segments = Vec::clone(&partition.segments.load());
        let first = Segment::open_sealed(&partition.site, segments[0].base(), OpenMode::Write);
        segments[0] = Arc::new(first.expect("it is there"));
        partition.segments.store(segments);
    };
    interrupting.before_read(FileKind::Log.path(Path::new(DIRECTORY), Offset(0)), replace);
    // A step is under way, and waits for the disk.
    let marks = partition.marks.lock();
    let (sender, receiver) = mpsc::channel();
    let reader = partition.clone();
    let read = move || {
        let fetched = reader.fetch(Offset(3), 100, Isolation::ReadCommitted);
        // Nobody may be waiting for it any more.
        let _ = sender.send(fetched.map(|fetched| fetched.next).map_err(|error| error.kind()));
    };
    let reading = spawn("reader", read).expect("it starts");
    let outcome = receiver.recv_timeout(PATIENCE);
    drop(marks);
    reading.join().expect("it has ended");
    assert!(matches!(outcome, Ok(Ok(next)) if next > Offset(3)), "{outcome:?}");
    assert!(!interrupting.is_pending(), "it has read what was replaced");
}
