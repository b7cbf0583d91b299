//! Finding offsets by time, against a list of all records.

use proptest::prelude::*;

use super::*;
use crate::batch::MarkerKind;

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
            let largest = shown.iter().map(|(_, time)| *time).max();
            let newest = shown.iter().find(|(_, time)| Some(*time) == largest);
            let newest = newest.map(|(offset, time)| (*offset, Some(*time)));
            prop_assert_eq!(find(&partition, OffsetSpec::MaxTimestamp, isolation), newest);
            for wanted in -1..42 {
                let first = shown.iter().find(|(_, time)| *time >= wanted);
                let first = first.map(|(offset, time)| (*offset, Some(*time)));
                let spec = OffsetSpec::AtOrAfter(Timestamp(wanted));
                prop_assert_eq!(find(&partition, spec, isolation), first, "{}", wanted);
            }
        }
    }
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
