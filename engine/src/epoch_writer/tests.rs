use super::*;
use crate::memory_log::{MemoryLog, Row};

const TINY: EpochWriterOptions =
    EpochWriterOptions { batch_bytes: 100, staged_bytes_max: 200, compression: Compression::None };

fn writer(log: &Arc<MemoryLog>) -> EpochWriter {
    EpochWriter::new(log.clone(), TINY, Epoch(1))
}

fn write(writer: &mut EpochWriter, topic: &TopicHandle, value: &[u8]) {
    writer.write(topic, PartitionId(0), Timestamp(1), Some(b"k"), Some(value), &[]).unwrap();
}

fn values(log: &MemoryLog, topic: &TopicHandle) -> Vec<Vec<u8>> {
    log.rows(topic).into_iter().map(|row| row.value.unwrap()).collect()
}

#[test]
fn tasks_an_epoch_apart_write_into_their_own_transactions() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 1);
    let mut writer = writer(&log);
    log.begin(Epoch(1)).unwrap();
    writer.begin(Epoch(1)).unwrap();
    for round in 0..10 {
        writer.enter(Epoch(1));
        write(&mut writer, &topic, format!("first {round}").as_bytes());
        writer.enter(Epoch(2));
        write(&mut writer, &topic, format!("second {round}").as_bytes());
    }
    assert!(writer.flush(Epoch(1)).unwrap(), "its transaction is open");
    log.commit(Epoch(1), &[]).unwrap();
    let expected = |which: &str| (0..10).map(|n| format!("{which} {n}").into_bytes()).collect::<Vec<_>>();
    assert_eq!(values(&log, &topic), expected("first"));

    log.begin(Epoch(2)).unwrap();
    writer.begin(Epoch(2)).unwrap();
    writer.flush(Epoch(2)).unwrap();
    log.commit(Epoch(2), &[]).unwrap();
    assert_eq!(values(&log, &topic)[10..], expected("second"));
}

#[test]
fn what_is_flushed_before_its_transaction_begins_follows_when_it_does() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 1);
    let mut writer = writer(&log);
    write(&mut writer, &topic, b"early");
    assert!(!writer.flush(Epoch(1)).unwrap());
    assert_eq!(log.end(PartitionKey { topic: 0, partition: PartitionId(0) }), lotic_log::Offset(0));
    log.begin(Epoch(1)).unwrap();
    writer.begin(Epoch(1)).unwrap();
    log.commit(Epoch(1), &[]).unwrap();
    assert_eq!(values(&log, &topic), [b"early".to_vec()]);
}

#[test]
fn there_is_room_until_the_staged_bytes_reach_their_bound_and_again_once_the_transaction_begins() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 1);
    let mut writer = writer(&log);
    let mut written = 0;
    while writer.has_room(Epoch(1)) {
        write(&mut writer, &topic, &[7; 50]);
        written += 1;
        assert!(written < 10, "200 bytes hold three batches of one such record and no more");
    }
    assert!(written >= 2);
    assert!(writer.has_room(Epoch(2)), "the other epoch has its own bound");
    log.begin(Epoch(1)).unwrap();
    writer.begin(Epoch(1)).unwrap();
    assert!(writer.has_room(Epoch(1)));
}

#[test]
#[should_panic(expected = "epoch 3 is entered only when 1 is over")]
fn an_epoch_is_not_entered_over_one_that_is_not_flushed() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 1);
    let mut writer = writer(&log);
    write(&mut writer, &topic, b"left behind");
    writer.enter(Epoch(2));
    writer.enter(Epoch(3));
}

#[test]
fn a_value_may_turn_out_null_or_fail_while_it_is_encoded() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 2);
    let mut writer = writer(&log);
    log.begin(Epoch(1)).unwrap();
    writer.begin(Epoch(1)).unwrap();
    let mut encode = |result: Result<ValueWritten, CodecError>| {
        writer.write_with(&topic, PartitionId(1), Timestamp(5), Some(b"k"), &[], |out| {
            out.extend_from_slice(b"v");
            result
        })
    };
    encode(Ok(ValueWritten::Bytes)).unwrap();
    encode(Ok(ValueWritten::Null)).unwrap();
    let error = encode(Err(CodecError::new("too odd"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.to_string(), "a record with timestamp 5 cannot be written to out-1: too odd");
    writer.flush(Epoch(1)).unwrap();
    log.commit(Epoch(1), &[]).unwrap();
    let row = |value: Option<&[u8]>| Row {
        partition: 1,
        timestamp: 5,
        key: Some(b"k".to_vec()),
        value: value.map(<[u8]>::to_vec),
    };
    assert_eq!(log.rows(&topic), [row(Some(b"v")), row(None)]);
}

#[test]
fn an_epoch_without_a_record_has_nothing_to_commit() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 1);
    let mut writer = writer(&log);
    assert!(!writer.has_written(Epoch(1)));
    assert!(writer.flush(Epoch(1)).unwrap(), "there is nothing that is not in the log");
    writer.enter(Epoch(2));
    write(&mut writer, &topic, b"x");
    assert!(writer.has_written(Epoch(2)));
    assert!(!writer.has_written(Epoch(1)));
}
