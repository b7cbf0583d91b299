use std::sync::Arc;

use lotic_log::Timestamp;
use lotic_log::batch::{BatchBuilder, Compression};
use proptest::prelude::*;

use super::*;
use crate::memory_log::MemoryLog;
use crate::source::Rejected;

fn record(epoch: u64, ends: Vec<RecordedEnd>) -> EpochRecord {
    EpochRecord {
        version: VERSION,
        epoch: Epoch(epoch),
        fingerprint: "f".to_owned(),
        splits: Vec::new(),
        ends,
        topics: Vec::new(),
        disorder_ms: BTreeMap::from([("flights".to_owned(), 5)]),
    }
}

fn write(log: &MemoryLog, topic: &TopicHandle, record: &EpochRecord, commit: bool) {
    let mut value = Vec::new();
    record.encode(&mut value);
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(Timestamp(0), None, Some(&value), &[]).unwrap();
    log.begin(record.epoch).unwrap();
    log.append(partition(topic), batch.seal()).unwrap();
    match commit {
        true => log.commit(record.epoch, &[]).unwrap(),
        false => log.abort().unwrap(),
    }
}

fn opened() -> (Arc<MemoryLog>, TopicHandle) {
    let log = MemoryLog::new();
    let spec = topic_spec("flow");
    let topic = log.topic(&spec.name, spec.partitions.unwrap());
    (log, topic)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_last_committed_record_is_found_however_many_were_aborted(
        outcomes in prop::collection::vec(prop::bool::weighted(0.2), 0..80)
    ) {
        let (log, topic) = opened();
        let mut expected = None;
        for (index, commit) in outcomes.into_iter().enumerate() {
            let record = record(index as u64 + 1, Vec::new());
            write(&log, &topic, &record, commit);
            if commit {
                expected = Some(record);
            }
        }
        prop_assert_eq!(read_last(&*log, &topic).unwrap(), expected);
    }
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let id = TopicHandle { index: 0, name: "orders".into(), id: topic_id(5), partitions: 1 };
    let position = Position::topic("orders", id.id, PartitionId(3), Offset(812));
    let state = SplitState {
        split: "orders-3".to_owned(),
        position,
        event_time_max: Some(-5),
        timeless_end: Some(9),
        rejected: Rejected::default(),
    };
    let external = SplitState {
        split: "file".to_owned(),
        position: Position::External(serde_json::json!({ "byte": 12 })),
        event_time_max: None,
        timeless_end: None,
        rejected: Rejected::default(),
    };
    let mut written = record(7, vec![RecordedEnd::new(&id, PartitionId(0), Offset(40))]);
    for state in [state.clone(), external] {
        written.splits.push(SourceSplit { source: "orders".to_owned(), state });
    }
    let mut bytes = Vec::new();
    written.encode(&mut bytes);
    assert_eq!(EpochRecord::decode(&bytes).unwrap(), written);
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["splits"][0]["position"]["topic"]["offset"], 812, "the documented form");
    assert_eq!(written.splits_of("orders")["orders-3"], &state);
    assert!(written.splits_of("other").is_empty());
}

fn topic_id(bits: u128) -> lotic_log::TopicId {
    lotic_log::TopicId(uuid::Uuid::from_u128(bits))
}

#[test]
fn a_record_of_a_newer_version_is_refused() {
    let (log, topic) = opened();
    write(&log, &topic, &EpochRecord { version: VERSION + 1, ..record(1, Vec::new()) }, true);
    let error = read_last(&*log, &topic).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("flow-epochs"), "{error}");
}

#[test]
fn a_topic_made_again_and_records_gone_missing_are_noticed() {
    let (log, topic) = opened();
    let end = |offset| RecordedEnd::new(&topic, PartitionId(0), Offset(offset));
    let check = |end: RecordedEnd, expected: Option<(ErrorKind, &str)>| match (
        check_against(&record(1, vec![end]), &*log, |_| true),
        expected,
    ) {
        (Ok(()), None) => {}
        (Err(error), Some((kind, named))) => {
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(named), "{error}");
        }
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    };
    write(&log, &topic, &record(1, Vec::new()), true);
    check(end(2), None);
    check(end(3), Some((ErrorKind::Corrupt, "written flow-epochs-0 up to offset 3")));
    let read = |offset| {
        let position = Position::topic(&topic.name, topic.id, PartitionId(0), Offset(offset));
        let state = SplitState {
            split: "s".to_owned(),
            position,
            event_time_max: None,
            timeless_end: None,
            rejected: Rejected::default(),
        };
        let splits = vec![SourceSplit { source: "s".to_owned(), state }];
        check_against(&EpochRecord { splits, ..record(1, Vec::new()) }, &*log, |_| true)
    };
    read(2).unwrap();
    let error = read(3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("read flow-epochs-0 up to offset 3"), "{error}");
    let other_id = RecordedEnd { topic_id: topic_id(99).to_string(), ..end(2) };
    check(other_id.clone(), Some((ErrorKind::Incompatible, "made again")));
    let named = RecordedTopic { topic: topic.name.to_string(), topic_id: topic_id(99).to_string() };
    let record = EpochRecord { topics: vec![named], ..record(1, vec![other_id]) };
    let error = check_against(&record, &*log, |_| true).unwrap_err();
    assert!(error.to_string().contains("made again"), "{error}");
    check_against(&record, &*log, |_| false).expect("the flow has no use for the topic any more");
    let other_name = RecordedEnd { topic: "gone".to_owned(), ..end(2) };
    check(other_name, Some((ErrorKind::Incompatible, "gone has been deleted")));
}
