//! What the log keeps for itself does not grow with its uptime.

use std::time::Duration;

use super::upkeep_tests::Bench;
use crate::consumer::OffsetAndMetadata;
use crate::group::{CommittedOffsets, ConsumerGroupMetadata, offsets_partition};
use crate::partition::{Isolation, Partition};
use crate::record::{Offset, PartitionId, TopicPartition};
use crate::topic::TopicConfig;

const PARTITIONS: i32 = 100;
const GROUP: &str = "g";

/// How many batches there are, and bytes of them.
fn size(partition: &Partition) -> (usize, usize) {
    let mut next = partition.offsets().start;
    let (mut batches, mut bytes) = (0, 0);
    loop {
        let fetched = partition.fetch(next, 1 << 20, Isolation::ReadUncommitted).expect("it is sound");
        if fetched.bytes.is_empty() {
            return (batches, bytes);
        }
        batches += fetched.batches().count();
        bytes += fetched.bytes.len();
        next = fetched.next;
    }
}

#[test]
fn committed_offsets_and_their_markers_take_no_more_room_after_two_days_than_after_some_hours() {
    const EVERY: Duration = Duration::from_secs(30);
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let bench = Bench::new();
    let config = TopicConfig { partitions: PARTITIONS, ..TopicConfig::default() };
    bench.log.create_topic("in", config).expect("a new topic");
    let producer = bench.log.transactional("t").expect("nobody else has it");
    let group = ConsumerGroupMetadata { group: GROUP.to_owned(), member: None };
    let name = |partition| TopicPartition::new("in", PartitionId(partition));
    let mut commits = 0;
    let mut largest_within = |hours: u32| {
        let mut largest = (0, 0);
        for _ in 0..HOUR.as_secs() / EVERY.as_secs() * u64::from(hours) {
            commits += 1;
            let offset = OffsetAndMetadata { offset: Offset(commits), metadata: "m".repeat(200) };
            let offsets: Vec<_> =
                (0..PARTITIONS).map(|partition| (name(partition), offset.clone())).collect();
            producer.begin().expect("none is open");
            producer.send_offsets_to_transaction(&offsets, &group).expect("the disk is fine");
            producer.commit(&[]).wait().expect("the disk is fine");
            bench.clock.advance(EVERY);
            bench.settle();
            if commits % 20 == 0 {
                let now = size(&offsets_partition(&bench.log).expect("made"));
                largest = (largest.0.max(now.0), largest.1.max(now.1));
            }
        }
        largest
    };
    // By then it was compacted again and again.
    largest_within(6);
    let early = largest_within(6);
    largest_within(30);
    let late = largest_within(6);
    // When it is compacted depends on where segments end: a tenth more is no growth. Four times as much it
    // would be if markers were kept for a day.
    assert!(late.0 * 10 <= early.0 * 11 && late.1 * 10 <= early.1 * 11, "{early:?} -> {late:?}");
    let committed = CommittedOffsets::read(&bench.log).expect("readable");
    for partition in 0..PARTITIONS {
        assert_eq!(committed.get(GROUP, &name(partition)).expect("there").offset, Offset(commits));
    }
}
