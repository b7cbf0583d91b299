//! Recovery, by what it finds damaged and where.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::batch::MarkerKind;
use crate::error::ErrorKind;
use crate::files::FileKind;
use crate::flusher::Flush;
use crate::partition::tests::{
    DIRECTORY, batch, create, disk, flush, read_numbers, site, small, stamped, unclean,
};
use crate::partition::{Durability, Isolation, Partition, PartitionConfig};
use crate::record::{LeaderEpoch, PartitionId, ProducerEpoch, ProducerId};
use crate::storage::memory::MemoryStorage;
use crate::storage::{OpenMode, Storage, SyncPurpose, SyncReason};
use crate::verify::{WalkEnd, WalkRules, walk};

/// One segment of ten batches of one record each, all synced.
fn ten() -> (Arc<MemoryStorage>, PathBuf) {
    ten_on(disk(5))
}

/// The same on an empty disk.
pub(super) fn ten_on(storage: Arc<MemoryStorage>) -> (Arc<MemoryStorage>, PathBuf) {
    let partition = create(&storage, PartitionConfig::default());
    for number in 0..10 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    storage.kill();
    (storage, Path::new(DIRECTORY).join("00000000000000000000.log"))
}

/// Where the batch of each record begins; behind the last, where the file ends.
pub(super) fn positions(storage: &MemoryStorage, log: &Path) -> Vec<u64> {
    let bytes = storage.contents(log).expect("it exists");
    let mut positions = vec![0];
    for batch in crate::batch::Batches::new(&bytes) {
        let last = positions[positions.len() - 1];
        positions.push(last + batch.expect("it is sound").header().length as u64);
    }
    positions
}

/// All files of the partition with what they hold.
fn everything(storage: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let entries = storage.list(Path::new(DIRECTORY)).expect("it exists");
    let read = |name: &str| storage.contents(&Path::new(DIRECTORY).join(name)).expect("it is listed");
    entries.into_iter().map(|entry| (entry.name.clone(), read(&entry.name))).collect()
}

fn open(
    storage: &Arc<MemoryStorage>,
    recovery_point: i64,
) -> crate::Result<(Arc<Partition>, RecoveryReport)> {
    Partition::open(site(storage, PartitionConfig::default()), &unclean(recovery_point))
}

pub(super) fn numbers(partition: &Partition) -> Vec<i64> {
    let read = read_numbers(partition, Offset(0), 1000, Isolation::ReadUncommitted).expect("it is sound");
    read.into_iter().map(|(_, number)| number).collect()
}

#[test]
fn every_bad_byte_below_the_recovery_point_is_named_and_nothing_is_touched() {
    let (storage, log) = ten();
    let positions = positions(&storage, &log);
    let bytes = storage.contents(&log).expect("it exists").len() as u64;
    let before = everything(&storage);
    // The leader epoch (bytes 12..16) says nothing here and is outside of the checksum.
    let meaningful = |position: &u64| {
        let batch = positions.partition_point(|start| start <= position) - 1;
        !(12..16).contains(&(position - positions[batch]))
    };
    for position in (0..bytes).filter(meaningful) {
        storage.corrupt(&log, position, 0x10).expect("it exists");
        let error = open(&storage, 10).expect_err("a synced byte is bad");
        let bad = positions.partition_point(|start| *start <= position) - 1;
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let message = error.to_string();
        let said = format!(
            "topic topic, partition 3, offset {bad}: {} is damaged at position {}: ",
            log.display(),
            positions[bad]
        );
        assert!(message.starts_with(&said), "{message}");
        storage.corrupt(&log, position, 0x10).expect("it exists");
        assert_eq!(everything(&storage), before);
    }
    assert_eq!(numbers(&open(&storage, 10).expect("nothing is bad").0), (0..10).collect::<Vec<_>>());
}

/// Twelve batches of one record each in three segments at least, closed.
fn sealed() -> (Arc<MemoryStorage>, PartitionConfig, Vec<Offset>) {
    let (storage, config) = (disk(5), PartitionConfig { segment_bytes: 400, ..small() });
    let partition = create(&storage, config.clone());
    for number in 0..12 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    let bases = Listing::read(&*storage, Path::new(DIRECTORY)).expect("it is there").segments;
    assert!(bases.len() > 2, "{bases:?}");
    partition.close().expect("the disk is fine");
    storage.kill();
    (storage, config, bases)
}

#[test]
fn a_bad_byte_in_a_sealed_segment_keeps_nobody_from_opening_the_log_and_reading_the_rest() {
    let (storage, config, bases) = sealed();
    for segment in 0..bases.len() - 1 {
        let log = FileKind::Log.path(Path::new(DIRECTORY), bases[segment]);
        let positions = positions(&storage, &log);
        let meaningful = |position: &u64| {
            let batch = positions.partition_point(|start| start <= position) - 1;
            !(12..16).contains(&(position - positions[batch]))
        };
        for position in (0..positions[positions.len() - 1]).filter(meaningful) {
            let bad = bases[segment].0 + positions.partition_point(|start| *start <= position) as i64 - 1;
            storage.corrupt(&log, position, 0x10).expect("it exists");
            for clean_shutdown in [true, false] {
                let border = RecoveryBorder { clean_shutdown, ..unclean(12) };
                let opened = Partition::open(site(&storage, config.clone()), &border);
                let (partition, _) = opened.unwrap_or_else(|error| panic!("{position} of {log:?}: {error}"));
                let read = |from| read_numbers(&partition, from, 1000, Isolation::ReadUncommitted);
                let error = read(Offset(0)).expect_err("it is bad");
                let said = format!("offset {bad}: {} is damaged at position", log.display());
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.to_string().contains(&said), "{error}");
                let rest = read(bases[segment + 1]).expect("nothing is bad there");
                assert_eq!(rest.len() as i64, 12 - bases[segment + 1].0);
            }
            storage.corrupt(&log, position, 0x10).expect("it exists");
        }
    }
    let log = FileKind::Log.path(Path::new(DIRECTORY), bases[1]);
    storage.corrupt(&log, 70, 0x10).expect("it exists");
    let (partition, _) = Partition::open(site(&storage, config), &unclean(12)).expect("it is opened");
    let appended = partition.append(batch([12])).expect("it is written to");
    assert_eq!(appended.base_offset, Offset(12));
}

#[test]
fn sound_records_behind_a_bad_batch_are_read_by_whoever_begins_there() {
    let (storage, log) = ten();
    let positions = positions(&storage, &log);
    let (partition, _) = open(&storage, 10).expect("nothing is bad");
    let bad = 3;
    let (start, end) = (positions[bad], positions[bad + 1]);
    for position in start..end {
        storage.corrupt(&log, position, 0x10).expect("it exists");
        for from in bad as i64 + 1..10 {
            let read = read_numbers(&partition, Offset(from), 1000, Isolation::ReadUncommitted);
            // What is behind the header, and the checksum in it, says nothing of where the next batch is.
            let is_checked_only = position >= start + 61 || (17..21).contains(&(position - start));
            match read {
                Ok(read) => assert_eq!(read, (from..10).map(|n| (Offset(n), n)).collect::<Vec<_>>()),
                Err(error) => {
                    assert!(!is_checked_only, "{position}: {error}");
                    assert!(error.to_string().contains("offset 3:"), "{position}: {error}");
                }
            }
        }
        storage.corrupt(&log, position, 0x10).expect("it exists");
    }
}

#[test]
fn a_bad_batch_that_seems_to_end_before_what_is_wanted_is_named_all_the_same() {
    // The last offset's distance from the first one is in bytes 23..27 of a batch: from 2 it becomes 0.
    const DELTA: u64 = 26;
    for (has_gaps, segment_bytes, wanted) in
        [(false, 1 << 20, [10, 11]), (false, 300, [4, 5]), (true, 1 << 20, [4, 5]), (true, 1 << 20, [10, 11])]
    {
        let storage = disk(5);
        let config = PartitionConfig { has_gaps, segment_bytes, ..small() };
        let partition = create(&storage, config);
        for number in 0..4 {
            partition.append(batch(3 * number..3 * number + 3)).expect("the disk is fine");
        }
        flush(&partition).expect("the disk is fine");
        let bases = Listing::read(&*storage, Path::new(DIRECTORY)).expect("it is there").segments;
        let base = *bases.iter().rfind(|base| base.0 <= wanted[0]).expect("there is one");
        let log = FileKind::Log.path(Path::new(DIRECTORY), base);
        let bad = wanted[0] / 3 * 3;
        let position = positions(&storage, &log)[((bad - base.0) / 3) as usize];
        storage.corrupt(&log, position + DELTA, 2).expect("it exists");
        for from in wanted {
            let fetched = partition.fetch(Offset(from), 1000, Isolation::ReadUncommitted);
            let error = fetched.expect_err("what is wanted is bad");
            let said = format!("offset {bad}: {} is damaged at position {position}: ", log.display());
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(&said), "{from}: {error}");
        }
    }
}

#[test]
fn a_reader_is_given_what_is_before_a_bad_byte_and_then_told_where_it_is() {
    let (storage, log) = ten();
    let positions = positions(&storage, &log);
    let (partition, _) = open(&storage, 10).expect("nothing is bad");
    // In the base offset, the length, the magic, the checksum, the record count and a record.
    for (bad, byte) in (0..10).flat_map(|bad| [7, 10, 16, 18, 60, 70].map(|byte| (bad, byte))) {
        let position = positions[bad as usize];
        storage.corrupt(&log, position + byte, 0x01).expect("it exists");
        for bytes_max in [1, 100, positions[6] as usize, 1 << 20] {
            let mut next = Offset(0);
            let error = loop {
                match partition.fetch(next, bytes_max, Isolation::ReadUncommitted) {
                    Ok(fetched) => {
                        assert!(fetched.next > next, "an end that is none: {bad}, {byte}, {bytes_max}");
                        let sound =
                            fetched.batches().map(|batch| batch.expect("it is sound").header().base_offset);
                        assert_eq!(
                            sound.collect::<Vec<_>>(),
                            (next.0..fetched.next.0).map(Offset).collect::<Vec<_>>()
                        );
                        next = fetched.next;
                        assert!(
                            bytes_max < 1 << 20 || next == Offset(bad),
                            "one fetch takes all that is sound"
                        );
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(
                (next, error.kind()),
                (Offset(bad), ErrorKind::Corrupt),
                "{byte}, {bytes_max}: {error}"
            );
            let said = format!(
                "topic topic, partition 3, offset {bad}: {} is damaged at position {position}: ",
                log.display()
            );
            assert!(error.to_string().starts_with(&said), "{error}");
        }
        storage.corrupt(&log, position + byte, 0x01).expect("it exists");
    }
    assert_eq!(numbers(&partition), (0..10).collect::<Vec<_>>());
}

#[test]
fn what_is_bad_in_the_next_segment_takes_nothing_from_a_reader_of_the_one_before() {
    let storage = many_segments();
    let (partition, _) = Partition::open(site(&storage, small()), &unclean(60)).expect("nothing is bad");
    let next = segments(&storage)[1];
    storage.corrupt(&FileKind::Log.path(Path::new(DIRECTORY), next), 70, 1).expect("it exists");
    let fetch = |from| partition.fetch(from, 1 << 20, Isolation::ReadUncommitted);
    assert_eq!(fetch(Offset(0)).expect("it is sound").next, next);
    let error = fetch(next).expect_err("it is bad");
    assert!(error.to_string().contains(&format!("offset {next}: ")), "{error}");
}

#[test]
fn a_torn_tail_above_the_recovery_point_is_cut_and_reported() {
    let (storage, log) = ten();
    let positions = positions(&storage, &log);
    for kept in (0..positions[10]).rev().step_by(7) {
        let (storage, log) = ten();
        let file = storage.open(&log, OpenMode::Write).expect("it exists");
        file.truncate(kept).expect("the disk is fine");
        let whole = positions.partition_point(|start| *start <= kept) - 1;
        let (partition, report) = open(&storage, whole as i64).expect("a torn tail is no corruption");
        assert_eq!(numbers(&partition), (0..whole as i64).collect::<Vec<_>>());
        let is_torn = positions[whole] < kept;
        assert_eq!(report.truncated.is_some(), is_torn);
        if let Some(truncated) = report.truncated {
            assert_eq!(truncated.offset, Offset(whole as i64));
            assert_eq!((truncated.file, truncated.position), (log, positions[whole]));
            assert_eq!(truncated.bytes, kept - positions[whole]);
            assert_eq!(truncated.torn_files, Vec::<PathBuf>::new(), "no whole batch is lost");
        }
    }
}

#[test]
fn sound_batches_behind_a_bad_one_are_kept_aside() {
    for byte in [0, 9, 16, 30, 70] {
        let (storage, log) = ten();
        let positions = positions(&storage, &log);
        let before = storage.contents(&log).expect("it exists");
        storage.corrupt(&log, positions[6] + byte, 0x40).expect("it exists");
        let mut cut_off = before[positions[6] as usize..].to_vec();
        cut_off[byte as usize] ^= 0x40;

        let (partition, report) = open(&storage, 6).expect("it was not synced");
        assert_eq!(numbers(&partition), (0..6).collect::<Vec<_>>());
        let torn = PathBuf::from(format!("{}.torn", log.display()));
        assert_eq!(report.truncated.expect("it is reported").torn_files, std::slice::from_ref(&torn));
        assert_eq!(storage.contents(&torn).expect("it is kept"), cut_off);
        storage.crash();
        assert_eq!(storage.contents(&torn).expect("it is kept for good"), cut_off);
        let (partition, report) = open(&storage, 6).expect("it was cut for good");
        assert_eq!((numbers(&partition).len(), report.truncated), (6, None));
    }
}

#[test]
fn what_an_earlier_recovery_kept_aside_is_not_overwritten() {
    let (storage, log) = ten();
    let positions = positions(&storage, &log);
    for (bad, name) in [(8, "00000000000000000000.log.torn"), (5, "00000000000000000000.log.torn-2")] {
        storage.corrupt(&log, positions[bad] + 70, 1).expect("it exists");
        let (_, report) = open(&storage, 0).expect("it was not synced");
        let torn_files = report.truncated.expect("it is reported").torn_files;
        assert_eq!(torn_files, [Path::new(DIRECTORY).join(name)]);
        storage.kill();
    }
}

/// Many small segments, all synced.
fn many_segments() -> Arc<MemoryStorage> {
    many_segments_on(disk(5))
}

/// The same on an empty disk.
pub(super) fn many_segments_on(storage: Arc<MemoryStorage>) -> Arc<MemoryStorage> {
    let partition = create(&storage, small());
    for number in 0..60 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    storage.kill();
    storage
}

pub(super) fn segments(storage: &MemoryStorage) -> Vec<Offset> {
    Listing::read(storage, Path::new(DIRECTORY)).expect("it exists").segments
}

#[test]
fn segments_behind_a_torn_one_are_kept_aside() {
    let storage = many_segments();
    let bases = segments(&storage);
    let log = FileKind::Log.path(Path::new(DIRECTORY), bases[2]);
    storage.corrupt(&log, 70, 1).expect("it exists");
    let (partition, report) =
        Partition::open(site(&storage, small()), &unclean(0)).expect("it was not synced");
    assert_eq!(report.end, bases[2]);
    let torn = |base: &Offset| {
        PathBuf::from(format!("{}.torn", FileKind::Log.path(Path::new(DIRECTORY), *base).display()))
    };
    let truncated = report.truncated.expect("it is reported");
    assert_eq!(truncated.torn_files, bases[2..].iter().map(torn).collect::<Vec<_>>());
    assert_eq!(segments(&storage), bases[..3]);
    for number in 0..60 {
        partition.append(batch([number])).expect("nothing is in the way");
    }
}

/// What is kept aside of a log that nobody had synced outlives a power cut that follows its recovery.
pub(crate) fn check_kept_aside(seed: u64) {
    let storage = disk(seed);
    let partition = create(&storage, small());
    for number in 0..60 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    storage.kill();
    let bases = segments(&storage);
    let log = |base: &Offset| FileKind::Log.path(Path::new(DIRECTORY), *base);
    storage.corrupt(&log(&bases[2]), 70, 1).expect("it exists");
    let torn = |base: &Offset| PathBuf::from(format!("{}.torn", log(base).display()));
    if seed % 2 == 1 {
        // Of an earlier recovery.
        storage.open(&torn(&bases[2]), OpenMode::Create).expect("a new file");
    }
    let cut_off = bases[2..].iter().map(|base| storage.contents(&log(base)).expect("it exists"));
    let cut_off: Vec<_> = cut_off.collect();
    let (_, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("it was not synced");
    storage.crash();
    let kept = report.truncated.expect("it is reported").torn_files.into_iter();
    let kept: Vec<_> = kept.map(|path| storage.contents(&path).expect("it is kept")).collect();
    assert_eq!(kept, cut_off);
}

#[test]
fn what_is_kept_aside_outlives_a_power_cut_though_nobody_had_synced_it() {
    (0..40).for_each(check_kept_aside);
}

/// A partition without a segment is begun anew, and what is written then outlives a power cut.
pub(crate) fn check_begun_anew(seed: u64) {
    let storage = disk(seed);
    create(&storage, small());
    storage.kill();
    for base in segments(&storage) {
        storage.remove_file(&FileKind::Log.path(Path::new(DIRECTORY), base)).expect("it is listed");
    }
    let (partition, _) = Partition::open(site(&storage, small()), &unclean(0)).expect("nothing was synced");
    partition.append(batch([0])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    storage.crash();
    let (partition, _) = Partition::open(site(&storage, small()), &unclean(1)).expect("it was synced");
    assert_eq!(numbers(&partition), [0]);
}

#[test]
fn a_partition_that_lost_its_only_segment_is_begun_anew_for_good() {
    (0..20).for_each(check_begun_anew);
}

/// What producers have written in segments that are gone is known, also after a power cut.
pub(crate) fn check_producers_known(seed: u64) {
    let storage = disk(seed);
    let config = PartitionConfig { snapshot_interval_bytes: 1 << 20, ..small() };
    let mut partition = create(&storage, config.clone());
    let idempotent = || stamped(batch([0]), 7, 0, 0, false);
    partition.append(idempotent()).expect("the disk is fine");
    for number in 1..60 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    if seed % 2 == 1 {
        // Nothing says what they have written until recovery does.
        storage.kill();
        for (name, _) in everything(&storage).iter().filter(|(name, _)| name.ends_with(".snapshot")) {
            storage.remove_file(&Path::new(DIRECTORY).join(name)).expect("it is listed");
        }
        let opened = Partition::open(site(&storage, config.clone()), &unclean(60));
        partition = opened.expect("all of it is there").0;
    }
    let last = *segments(&storage).last().expect("there are many");
    partition.remove_segments_before(last).expect("nobody holds them");
    storage.crash();
    let opened = Partition::open(site(&storage, config), &unclean(60));
    let repeated = opened.expect("what was synced is there").0.append(idempotent());
    let repeated = repeated.expect("it is what it was");
    assert!(repeated.duplicate && repeated.base_offset == Offset(0), "{repeated:?}");
}

#[test]
fn who_wrote_what_is_gone_is_known_after_a_power_cut() {
    (0..40).for_each(check_producers_known);
}

#[test]
fn a_missing_segment_is_noticed() {
    let storage = many_segments();
    let bases = segments(&storage);
    storage.remove_file(&FileKind::Log.path(Path::new(DIRECTORY), bases[2])).expect("it exists");
    let before = everything(&storage);
    let error = Partition::open(site(&storage, small()), &unclean(60)).expect_err("it was synced");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&format!("offset {}", bases[2])), "{error}");
    assert_eq!(everything(&storage), before);
    let (_, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("it may have been torn");
    assert_eq!(report.end, bases[2]);
}

#[test]
fn a_log_that_ends_below_the_recovery_point_is_corrupt() {
    let (storage, _) = ten();
    let error = open(&storage, 11).expect_err("ten records are there");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for base in segments(&storage) {
        storage.remove_file(&FileKind::Log.path(Path::new(DIRECTORY), base)).expect("it exists");
    }
    assert_eq!(open(&storage, 1).expect_err("nothing is there").kind(), ErrorKind::Corrupt);
    assert_eq!(open(&storage, 0).expect("nothing was synced").1.end, Offset(0));
}

#[test]
fn a_closed_partition_opens_without_reading_its_log() {
    let storage = disk(5);
    let partition = create(&storage, PartitionConfig::default());
    for number in 0..10_000 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    partition.close().expect("the disk is fine");
    storage.crash();
    let clean = RecoveryBorder { recovery_point: Some(Offset(10_000)), clean_shutdown: true };
    let operations = storage.operations();
    let site = site(&storage, PartitionConfig::default());
    let (partition, report) = Partition::open(site, &clean).expect("it was closed");
    assert_eq!((report.scanned_bytes, report.end), (0, Offset(10_000)));
    assert!(storage.operations() - operations < 10, "nothing is written or synced");
    assert_eq!(numbers(&partition).len(), 10_000);
}

#[test]
fn only_what_is_behind_the_newest_synced_snapshot_is_read_again() {
    let storage = many_segments();
    let bytes: u64 = segments(&storage)
        .iter()
        .map(|base| {
            storage.contents(&FileKind::Log.path(Path::new(DIRECTORY), *base)).expect("it exists").len()
                as u64
        })
        .sum();
    let (_, report) = Partition::open(site(&storage, small()), &unclean(60)).expect("nothing is bad");
    let bound = 2 * small().snapshot_interval_bytes;
    assert!(bytes > 3 * bound && report.scanned_bytes <= bound, "{} of {bytes}", report.scanned_bytes);
}

#[test]
fn what_was_recovered_once_is_not_read_again_after_the_next_crash() {
    let storage = many_segments();
    let (partition, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("nothing is bad");
    assert!(report.scanned_bytes > 0);
    partition.append(batch([60])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    for recovery_point in [60, 61] {
        storage.crash();
        let opened = Partition::open(site(&storage, small()), &unclean(recovery_point));
        let (partition, report) = opened.expect("nothing is bad");
        assert!(report.scanned_bytes < 100, "one batch at most: {}", report.scanned_bytes);
        assert_eq!(numbers(&partition), (0..=60).collect::<Vec<_>>());
    }
}

#[test]
fn lost_and_damaged_indexes_and_snapshots_are_made_again() {
    let clean = RecoveryBorder { recovery_point: Some(Offset(60)), clean_shutdown: true };
    for extension in ["index", "timeindex", "snapshot"] {
        for damage in [true, false] {
            let storage = many_segments();
            Partition::open(site(&storage, small()), &unclean(60))
                .expect("nothing is bad")
                .0
                .close()
                .expect("the disk is fine");
            for (name, bytes) in everything(&storage) {
                let path = Path::new(DIRECTORY).join(&name);
                if name.ends_with(&format!(".{extension}")) {
                    match damage {
                        true if !bytes.is_empty() => storage.corrupt(&path, bytes.len() as u64 / 2, 0xff),
                        true => Ok(()),
                        false => storage.remove_file(&path),
                    }
                    .expect("it exists");
                }
            }
            let reader = Partition::open_read_only(site(&storage, small()), &clean);
            let opened = Partition::open(site(&storage, small()), &clean);
            let (partition, _) = opened.expect("they are only hints");
            for partition in [partition, reader.expect("they are only hints")] {
                assert_eq!(numbers(&partition), (0..60).collect::<Vec<_>>(), "{extension}");
                for number in 0..60 {
                    let found = partition.offset_for_timestamp(crate::Timestamp(number));
                    let found = found.expect("it is sound").map(|found| found.0);
                    assert_eq!(found, Some(Offset(number)), "{extension}");
                }
            }
        }
    }
}

/// Transactions, each of one record, that are aborted in turn; the numbers of the others.
fn aborted_in_turn() -> (Arc<MemoryStorage>, Vec<i64>) {
    let storage = disk(5);
    let partition = create(&storage, small());
    for number in 0..40 {
        let batch = stamped(batch([number]), 9, number as i16, 0, true);
        partition.append_to_transaction(batch).expect("the disk is fine");
        let kind = if number % 2 == 0 { MarkerKind::Abort } else { MarkerKind::Commit };
        let marked = partition.append_marker(kind, ProducerId(9), ProducerEpoch(number as i16), 0);
        marked.expect("the disk is fine").expect("it is open");
    }
    partition.close().expect("the disk is fine");
    (storage, (0..40).filter(|number| number % 2 == 1).collect())
}

/// Where the note stands that was written last.
fn newest_note(bytes: &[u8]) -> std::ops::Range<usize> {
    let end = |place: &usize| bytes[52 * place + 4..52 * place + 12].to_vec();
    let newest = (0..bytes.len() / 52).max_by_key(end).expect("there is one");
    52 * newest..52 * (newest + 1)
}

#[test]
fn an_index_of_aborted_transactions_that_is_damaged_or_missing_is_not_believed() {
    let (storage, committed) = aborted_in_turn();
    let mut files = everything(&storage);
    files.retain(|(name, _)| name.ends_with(".txnindex") || name.ends_with(".sum"));
    assert!(files.len() > 6);
    let mut segments = everything(&storage).into_iter().filter(|(name, _)| name.ends_with(".log"));
    let last = segments.next_back().map(|(name, _)| name.replace(".log", "")).expect("there are some");
    for (name, bytes) in files {
        let path = Path::new(DIRECTORY).join(&name);
        let counts = if name.ends_with(".sum") { newest_note(&bytes) } else { 0..bytes.len() };
        let flips = (0..bytes.len()).map(|at| (format!("byte {at}"), Some(at), bytes.len()));
        let cuts = (0..bytes.len()).step_by(17).map(|length| (format!("cut at {length}"), None, length));
        let gone = std::iter::once(("gone".to_owned(), None, usize::MAX));
        for (damage, flipped, length) in flips.chain(cuts).chain(gone) {
            for clean_shutdown in [true, false] {
                let (storage, _) = aborted_in_turn();
                match (flipped, length) {
                    (Some(at), _) => storage.corrupt(&path, at as u64, 1),
                    (None, usize::MAX) => storage.remove_file(&path),
                    (None, length) => {
                        storage.open(&path, OpenMode::Write).and_then(|file| file.truncate(length as u64))
                    }
                }
                .expect("it exists");
                let border = RecoveryBorder { recovery_point: Some(Offset(80)), clean_shutdown };
                let context = format!("{}: {damage}, {border:?}", path.display());
                let is_told = |storage: &MemoryStorage| {
                    let rules = WalkRules {
                        recovery_point: border.recovery_point,
                        is_start_known: true,
                        ..WalkRules::default()
                    };
                    let name = crate::TopicPartition::new("topic", PartitionId(3));
                    let walked = walk(storage, &name, Path::new(DIRECTORY), rules).expect("it is there");
                    assert_eq!(walked.ending, WalkEnd::Complete, "{context}");
                    walked.indexes.iter().any(|damage| damage.file == path)
                };
                let is_gone = length == usize::MAX;
                let is_damaged = flipped.map_or(is_gone || length < counts.end, |at| counts.contains(&at));
                assert_eq!(is_told(&storage), is_damaged && !name.starts_with(&last), "{context}");
                let opened = Partition::open_read_only(site(&storage, small()), &border);
                let reader = opened.expect("it can be made anew");
                let opened = Partition::open(site(&storage, small()), &border);
                let (writer, _) = opened.expect("it can be made anew");
                for partition in [&reader, &writer] {
                    let read = read_numbers(partition, Offset(0), 300, Isolation::ReadCommitted);
                    let read = read.expect("it is sound").into_iter().map(|(_, number)| number);
                    assert_eq!(read.collect::<Vec<_>>(), committed, "{context}");
                }
            }
        }
    }
}

#[test]
fn a_read_only_handle_believes_no_index_that_a_power_cut_may_have_taken() {
    let mut lost = 0;
    for seed in 0..200 {
        let storage = disk(seed);
        let partition = create(&storage, PartitionConfig { durability: Durability::Os, ..small() });
        for number in 0..60 {
            partition.append(batch([number])).expect("the disk is fine");
        }
        storage.crash();
        let opened = Partition::open_read_only(site(&storage, small()), &unclean(0));
        // Segments that are gone altogether are another matter.
        let Ok(reader) = opened else { continue };
        let found = numbers(&reader);
        lost += usize::from(found.len() < 60);
        for number in found {
            let found = reader.offset_for_timestamp(crate::Timestamp(number)).expect("it is sound");
            assert_eq!(found.map(|found| found.0), Some(Offset(number)), "seed {seed}");
        }
    }
    assert!(lost > 20, "{lost} crashes took something");
}

#[test]
fn a_killed_process_loses_nothing_whatever_the_durability() {
    for durability in [Durability::Sync, Durability::Os] {
        let storage = disk(5);
        let config = PartitionConfig { durability, ..small() };
        let partition = create(&storage, config.clone());
        for number in 0..60 {
            partition.append(batch([number])).expect("the disk is fine");
        }
        storage.kill();
        let (partition, report) =
            Partition::open(site(&storage, config), &unclean(0)).expect("nothing is bad");
        assert_eq!((numbers(&partition).len(), report.truncated), (60, None));
        assert_eq!(partition.durable(), Offset(60), "what is kept was synced");
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_an_error_and_leaves_everything_as_it_is() {
    let (storage, log) = ten();
    let positions = positions(&storage, &log);
    storage.corrupt(&log, positions[6] + 70, 1).expect("it exists");
    let before = everything(&storage);
    storage.set_read_only(true);
    open(&storage, 6).expect_err("the tail cannot be cut");
    assert_eq!(everything(&storage), before);
    storage.set_read_only(false);
    assert_eq!(open(&storage, 6).expect("it can be cut now").1.end, Offset(6));
}

#[test]
fn a_walk_counts_and_names_the_first_bad_byte() {
    let (storage, log) = ten();
    let name = crate::TopicPartition::new("topic", crate::PartitionId(3));
    let go = |recovery_point: Option<i64>| {
        walk(
            &*storage,
            &name,
            Path::new(DIRECTORY),
            WalkRules { recovery_point: recovery_point.map(Offset), has_gaps: false, is_start_known: true },
        )
        .expect("it can be read")
    };
    let seen = go(Some(10));
    assert_eq!((seen.segments, seen.batches, seen.records, seen.end), (1, 10, 10, Offset(10)));
    assert_eq!(seen.ending, WalkEnd::Complete);
    assert!(matches!(go(Some(11)).ending, WalkEnd::Corrupt(_)), "one record is missing");

    let positions = positions(&storage, &log);
    storage.corrupt(&log, positions[4] + 70, 1).expect("it exists");
    let WalkEnd::Corrupt(damage) = go(Some(10)).ending else { panic!("a synced byte is bad") };
    assert_eq!((damage.offset, damage.position, &damage.file), (Offset(4), positions[4], &log));
    assert_eq!(go(Some(10)).batches, 4);
    assert!(matches!(go(Some(4)).ending, WalkEnd::TornTail(_)));
    assert!(matches!(go(None).ending, WalkEnd::TornTail(_)));
}

#[test]
fn an_unsynced_flush_is_not_taken_for_a_synced_one() {
    let storage = disk(5);
    let partition = create(&storage, small());
    partition.append(batch([0])).expect("the disk is fine");
    storage.set_sync_mode(crate::storage::memory::SyncMode::Delayed);
    let submission = partition.submit(SyncReason::of(SyncPurpose::Records)).expect("the disk is fine");
    assert!(submission.tickets.iter().any(|ticket| ticket.poll().is_none()));
    assert_eq!(partition.offsets().high_watermark, Offset(0));
    storage.complete_syncs();
    assert!(submission.tickets.iter().all(|ticket| matches!(ticket.poll(), Some(Ok(())))));
    partition.flushed(submission.upto);
    assert_eq!(partition.offsets().high_watermark, Offset(1));
}

/// Writes a segment of batches as another program may have: each with the offset of its first record and
/// its records' numbers, under the leader epoch 3.
fn lay(storage: &MemoryStorage, base: i64, batches: &[(i64, std::ops::Range<i64>)]) {
    let path = FileKind::Log.path(Path::new(DIRECTORY), Offset(base));
    let mode =
        if storage.exists(&path).expect("the disk is fine") { OpenMode::Write } else { OpenMode::Create };
    let file = storage.open(&path, mode).expect("the directory exists");
    for (offset, numbers) in batches {
        let mut batch = batch(numbers.clone());
        batch.place(Offset(*offset), LeaderEpoch(3));
        file.write_at(file.len().expect("the disk is fine"), batch.finish()).expect("the disk is fine");
    }
}

/// A compacted partition: 0..2, 5..7, then a segment of which all is gone but 30..31, then 40..42.
fn compacted() -> Arc<MemoryStorage> {
    let storage = disk(1);
    drop(create(&storage, small()));
    lay(&storage, 0, &[(0, 0..2), (5, 5..7)]);
    lay(&storage, 20, &[(30, 30..31)]);
    lay(&storage, 40, &[(40, 40..42)]);
    storage
}

fn sparse() -> PartitionConfig {
    PartitionConfig { has_gaps: true, ..small() }
}

fn offsets_read(partition: &Partition, from: i64) -> Vec<i64> {
    let read = read_numbers(partition, Offset(from), 1, Isolation::ReadUncommitted).expect("it is sound");
    assert!(read.iter().all(|(offset, number)| offset.0 == *number), "{read:?}");
    read.into_iter().map(|(offset, _)| offset.0).collect()
}

#[test]
fn gaps_of_a_compacted_log_are_read_over_and_survive_every_way_of_opening() {
    let storage = compacted();
    let check = |partition: &Partition| {
        assert_eq!(offsets_read(partition, 0), [0, 1, 5, 6, 30, 40, 41]);
        for (from, first) in [(2, 5), (4, 5), (6, 6), (7, 30), (20, 30), (31, 40), (39, 40), (41, 41)] {
            assert_eq!(offsets_read(partition, from).first(), Some(&first), "from {from}");
        }
        assert_eq!(partition.offsets().end, Offset(42));
    };
    let crashed = RecoveryBorder::default();
    let closed = RecoveryBorder { recovery_point: Some(Offset(42)), clean_shutdown: true };
    for border in [crashed, crashed, closed, unclean(42), unclean(10), closed] {
        let (partition, report) = Partition::open(site(&storage, sparse()), &border).expect("it is sound");
        assert_eq!(report.truncated, None, "{border:?}");
        check(&partition);
        check(&Partition::open_read_only(site(&storage, sparse()), &unclean(42)).expect("it is sound"));
        partition.close().expect("the disk is fine");
    }
}

#[test]
fn a_gap_in_a_log_that_is_not_compacted_is_damage() {
    let storage = compacted();
    let error = Partition::open(site(&storage, small()), &unclean(42)).expect_err("offsets are missing");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let name = crate::TopicPartition::new("topic", PartitionId(3));
    let go = |has_gaps| {
        let rules = WalkRules { recovery_point: Some(Offset(42)), has_gaps, is_start_known: true };
        walk(&*storage, &name, Path::new(DIRECTORY), rules).expect("it can be read")
    };
    let WalkEnd::Corrupt(damage) = go(false).ending else { panic!("offsets are missing") };
    assert_eq!(damage.offset, Offset(2));
    assert_eq!((go(true).ending, go(true).gaps, go(true).end), (WalkEnd::Complete, 3, Offset(42)));
}

#[test]
fn offsets_that_go_backwards_are_damage_in_a_compacted_log_too() {
    let storage = compacted();
    lay(&storage, 40, &[(41, 41..43)]);
    let error =
        Partition::open(site(&storage, sparse()), &unclean(44)).expect_err("offset 41 is there twice");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn the_lost_end_of_a_compacted_log_is_no_gap() {
    let storage = compacted();
    let border = RecoveryBorder { recovery_point: Some(Offset(42)), clean_shutdown: true };
    let (partition, _) = Partition::open(site(&storage, sparse()), &unclean(42)).expect("it is sound");
    partition.close().expect("the disk is fine");
    let last = FileKind::Log.path(Path::new(DIRECTORY), Offset(40));
    storage.open(&last, OpenMode::Write).expect("it exists").truncate(0).expect("the disk is fine");
    let error = Partition::open(site(&storage, sparse()), &border).expect_err("the end is gone");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn the_leader_epoch_of_an_imported_log_never_decreases() {
    let storage = compacted();
    let last_epoch = |partition: &Partition, from: i64| {
        let fetched =
            partition.fetch(Offset(from), 1 << 20, Isolation::ReadUncommitted).expect("it is sound");
        fetched.batches().last().expect("there is one").expect("it is sound").header().leader_epoch
    };
    let (partition, _) = Partition::open(site(&storage, sparse()), &unclean(42)).expect("it is sound");
    partition.append(batch([42])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    assert_eq!(last_epoch(&partition, 42), LeaderEpoch(3));
    partition.close().expect("the disk is fine");
    let border = RecoveryBorder { recovery_point: Some(Offset(43)), clean_shutdown: true };
    let (partition, _) = Partition::open(site(&storage, sparse()), &border).expect("it is sound");
    partition.append(batch([43])).expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    assert_eq!(last_epoch(&partition, 43), LeaderEpoch(3));
}

#[test]
fn a_missing_first_segment_is_corruption_wherever_the_log_is_known_to_begin() {
    for start in [0, 20] {
        let storage = many_segments();
        if start > 0 {
            let (partition, _) =
                Partition::open(site(&storage, small()), &unclean(60)).expect("nothing is bad");
            partition.delete_records(Offset(start)).expect("it is durable");
            let holding = segments(&storage).into_iter().rfind(|base| base.0 <= start).expect("one holds it");
            partition.remove_segments_before(holding).expect("the disk is fine");
        }
        storage.kill();
        let first = segments(&storage)[0];
        storage.remove_file(&FileKind::Log.path(Path::new(DIRECTORY), first)).expect("it is there");
        let error = Partition::open(site(&storage, small()), &unclean(60)).expect_err("records are missing");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        for part in ["topic topic, partition 3", &format!("offset {start}: ")] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        let reader = Partition::open_read_only(site(&storage, small()), &unclean(60));
        assert_eq!(reader.expect_err("it is missing for readers too").kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_crash_that_tears_nothing_is_recovered_from_without_writing_anything_down() {
    let storage = disk(3);
    let config = PartitionConfig { snapshot_interval_bytes: 1 << 20, ..PartitionConfig::default() };
    let partition = create(&storage, config.clone());
    for number in 0..50 {
        partition.append(batch([number])).expect("the disk is fine");
    }
    flush(&partition).expect("the disk is fine");
    storage.kill();
    let before = everything(&storage);
    for synced in [50, 10] {
        let syncs = storage.sync_count(SyncPurpose::Recovered);
        let opened = Partition::open(site(&storage, config.clone()), &unclean(synced));
        let (partition, report) = opened.expect("nothing is bad");
        assert_eq!(numbers(&partition), (0..50).collect::<Vec<_>>());
        assert!(report.scanned_bytes > 0);
        // The segment, of which an end may be cut off in the page cache only; its name where it may be new.
        let expected = if synced < 50 { 2 } else { 1 };
        assert_eq!(storage.sync_count(SyncPurpose::Recovered) - syncs, expected, "synced up to {synced}");
        assert_eq!(everything(&storage), before);
        storage.kill();
    }
    // What was left out is made up for when the partition is closed.
    let opened = Partition::open(site(&storage, config.clone()), &unclean(50));
    opened.expect("nothing is bad").0.close().expect("the disk is fine");
    let clean = RecoveryBorder { recovery_point: Some(Offset(50)), clean_shutdown: true };
    let (_, report) = Partition::open(site(&storage, config), &clean).expect("nothing is bad");
    assert_eq!(report.scanned_bytes, 0);
}
