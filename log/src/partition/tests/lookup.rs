//! Finding offsets by time, against a list of all records.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::batch::MarkerKind;
use crate::storage::OpenMode;

fn find(partition: &Partition, spec: OffsetSpec, isolation: Isolation) -> Option<(i64, Option<i64>)> {
    let found = partition.find_offset(spec, isolation).expect("it is sound");
    found.map(|found| (found.offset.0, found.timestamp.map(|time| time.0)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn offsets_are_found_by_time_however_times_are_ordered(
        batches in prop::collection::vec(prop::collection::vec(0..40i64, 1..6), 1..60),
        start in any::<prop::sample::Index>(),
        open in prop::option::of(any::<prop::sample::Index>()),
        reopens in any::<bool>(),
    ) {
        let storage = disk(1);
        let mut partition = create(&storage, small());
        let open = open.map(|open| open.index(batches.len()));
        let mut records = Vec::new();
        let mut stable = None;
        for (index, times) in batches.iter().enumerate() {
            let sealed = batch(times.iter().copied());
            let sealed = if open == Some(index) { stamped(sealed, 9, 0, 0, true) } else { sealed };
            let base = partition.append_to_transaction(sealed).expect("the disk is fine").base_offset.0;
            stable = stable.or((open == Some(index)).then_some(base));
            records.extend((base..).zip(times.iter().copied()));
        }
        flush(&partition).expect("the disk is fine");
        let end = records.len() as i64;
        let stable = stable.unwrap_or(end);
        let start = start.index(stable as usize + 1) as i64;
        partition.delete_records(Offset(start)).expect("it is stable");
        if reopens {
            storage.kill();
            partition = Partition::open(site(&storage, small()), &unclean(end)).expect("it is sound").0;
        }
        for (isolation, bound) in [(Isolation::ReadUncommitted, end), (Isolation::ReadCommitted, stable)] {
            let shown: Vec<_> =
                records.iter().copied().filter(|(offset, _)| (start..bound).contains(offset)).collect();
            prop_assert_eq!(find(&partition, OffsetSpec::Earliest, isolation), Some((start, None)));
            prop_assert_eq!(find(&partition, OffsetSpec::Latest, isolation), Some((bound, None)));
            check_times(&partition, isolation, &shown, -1..42)?;
        }
        prop_assert!(!are_times_doubted(&partition), "nothing is damaged");
    }

    #[test]
    fn whatever_a_power_cut_leaves_of_indexes_behind_what_was_synced_all_is_found_by_time_and_offset(
        synced in prop::collection::vec(prop::collection::vec(-5..40i64, 1..4), 1..30),
        later in prop::collection::vec(prop::collection::vec(-5..80i64, 1..4), 1..30),
        keeps_records in any::<bool>(),
        leavings in prop::collection::vec(leaving(), 16),
        keeps_notes in any::<bool>(),
        closes in any::<bool>(),
    ) {
        let storage = disk(1);
        let partition = create(&storage, small());
        let mut records = Vec::new();
        let mut append = |times: &[i64]| {
            let appended = partition.append(batch(times.iter().copied())).expect("the disk is fine");
            records.extend((appended.base_offset.0..).zip(times.iter().copied()));
        };
        synced.iter().for_each(|times| append(times));
        flush(&partition).expect("the disk is fine");
        let kept = files(&storage, "index");
        let (kept_logs, kept_notes) = (files(&storage, ".log"), files(&storage, ".sum"));
        let recovery_point = partition.offsets().end.0;
        later.iter().for_each(|times| append(times));
        storage.kill();
        for ((path, written), leaving) in files(&storage, "index").into_iter().zip(leavings.iter().cycle()) {
            let kept = kept.get(&path).map_or(0, Vec::len);
            leaving.leave(&storage, &path, kept, written.len());
        }
        if !keeps_notes {
            for path in files(&storage, ".sum").into_keys() {
                let bytes = kept_notes.get(&path).map_or(&[][..], |bytes| bytes);
                let notes = storage.open(&path, OpenMode::Write).expect("it is there");
                let put = notes.write_at(0, bytes).and_then(|()| notes.truncate(bytes.len() as u64));
                put.expect("the disk is fine");
            }
        }
        if !keeps_records {
            for path in files(&storage, ".log").into_keys() {
                let kept = kept_logs.get(&path).map_or(0, Vec::len) as u64;
                let log = storage.open(&path, OpenMode::Write).expect("it is there");
                log.truncate(kept).expect("the disk is fine");
            }
            records.truncate(recovery_point as usize);
        }
        let mut partition = Partition::open(site(&storage, small()), &unclean(recovery_point)).expect("it is sound").0;
        if closes {
            partition.close().expect("the disk is fine");
            let border = RecoveryBorder { clean_shutdown: true, ..unclean(records.len() as i64) };
            partition = Partition::open(site(&storage, small()), &border).expect("it is sound").0;
        }
        check_times(&partition, Isolation::ReadUncommitted, &records, -7..82)?;
        prop_assert!(!are_times_doubted(&partition), "what recovery has left is true");
        for (offset, time) in records {
            let found = read_numbers(&partition, Offset(offset), 1, Isolation::ReadUncommitted);
            let found = found.expect("it is sound");
            prop_assert_eq!(found.first(), Some(&(Offset(offset), time)));
        }
    }
}

/// Checks what is found by time against a list of all that is shown.
pub(super) fn check_times(
    partition: &Partition,
    isolation: Isolation,
    shown: &[(i64, i64)],
    wanted: impl IntoIterator<Item = i64>,
) -> Result<(), TestCaseError> {
    let largest = shown.iter().map(|(_, time)| *time).max();
    let newest = shown.iter().find(|(_, time)| Some(*time) == largest);
    let newest = newest.map(|(offset, time)| (*offset, Some(*time)));
    prop_assert_eq!(find(partition, OffsetSpec::MaxTimestamp, isolation), newest);
    for wanted in wanted {
        let first = shown.iter().find(|(_, time)| *time >= wanted);
        let first = first.map(|(offset, time)| (*offset, Some(*time)));
        let spec = OffsetSpec::AtOrAfter(Timestamp(wanted));
        prop_assert_eq!(find(partition, spec, isolation), first, "{}", wanted);
    }
    Ok(())
}

/// What a power cut leaves of an index behind what was synced of it.
#[derive(Clone, Debug)]
enum Leaving {
    All,
    Zeros,
    /// So many of its bytes.
    Part(prop::sample::Index),
    /// What another index of its kind holds: a file that is gone may have held that there.
    Stale(prop::sample::Index),
}

fn leaving() -> impl Strategy<Value = Leaving> {
    prop_oneof![
        Just(Leaving::All),
        Just(Leaving::Zeros),
        any::<prop::sample::Index>().prop_map(Leaving::Part),
        any::<prop::sample::Index>().prop_map(Leaving::Stale),
    ]
}

impl Leaving {
    /// Leaves it of the `written` bytes in the file, of which `kept` are synced.
    fn leave(&self, storage: &MemoryStorage, path: &Path, kept: usize, written: usize) {
        let file = storage.open(path, OpenMode::Write).expect("it is there");
        let lost = written - kept;
        let bytes = match self {
            Self::All => return,
            Self::Part(part) => {
                let length = kept + part.index(lost + 1);
                return file.truncate(length as u64).expect("the disk is fine");
            }
            Self::Zeros => vec![0; lost],
            Self::Stale(other) => {
                let of_kind = files(storage, "index")
                    .into_iter()
                    .filter(|(other, _)| other.extension() == path.extension());
                let others: Vec<_> = of_kind.map(|(_, bytes)| bytes).collect();
                other.get(&others).iter().copied().cycle().take(lost).collect()
            }
        };
        file.write_at(kept as u64, &bytes).expect("the disk is fine");
    }
}

/// The files whose names end like that, and what they hold.
pub(super) fn files(storage: &MemoryStorage, ending: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = storage.list(Path::new(DIRECTORY)).expect("it is there").into_iter().map(|entry| entry.name);
    let paths = names.filter(|name| name.ends_with(ending)).map(|name| Path::new(DIRECTORY).join(name));
    paths.map(|path| (path.clone(), storage.contents(&path).expect("it is listed"))).collect()
}

#[test]
fn an_empty_partition_has_an_earliest_and_a_latest_offset_and_no_record() {
    let partition = create(&disk(1), small());
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        assert_eq!(find(&partition, OffsetSpec::Earliest, isolation), Some((0, None)));
        assert_eq!(find(&partition, OffsetSpec::Latest, isolation), Some((0, None)));
        assert_eq!(find(&partition, OffsetSpec::MaxTimestamp, isolation), None);
        assert_eq!(find(&partition, OffsetSpec::AtOrAfter(Timestamp(0)), isolation), None);
    }
}

#[test]
fn a_marker_is_not_the_newest_record() {
    let partition = create(&disk(1), small());
    partition.append_to_transaction(stamped(batch([-5]), 9, 0, 0, true)).expect("the disk is fine");
    let marker = partition.append_marker(MarkerKind::Commit, ProducerId(9), ProducerEpoch(0), 0);
    marker.expect("the disk is fine");
    flush(&partition).expect("the disk is fine");
    let newest = find(&partition, OffsetSpec::MaxTimestamp, Isolation::ReadCommitted);
    assert_eq!(newest, Some((0, Some(-5))));
}
