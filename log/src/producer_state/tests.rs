use super::*;
use crate::batch::{BatchBuilder, Compression, ProducerStamp, marker};
use crate::record::LeaderEpoch;

fn header(
    id: i64,
    epoch: i16,
    sequence: i32,
    records: i32,
    base_offset: i64,
    transactional: bool,
) -> BatchHeader {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in 0..records {
        builder.push(Timestamp(i64::from(100 + record)), None, None, &[]).expect("it is small");
    }
    let mut batch = builder.seal();
    batch.stamp(Some(ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        transactional,
    }));
    batch.place(Offset(base_offset), LeaderEpoch(0));
    batch.header()
}

fn end(
    states: &mut ProducerStates,
    id: i64,
    epoch: i16,
    kind: MarkerKind,
    offset: i64,
) -> Option<AbortedTransaction> {
    let mut batch = marker(kind, ProducerId(id), ProducerEpoch(epoch), 7, Timestamp(500));
    batch.place(Offset(offset), LeaderEpoch(0));
    states.absorb_marker(&batch.header(), ControlRecord { kind, coordinator_epoch: 7 })
}

#[test]
fn a_snapshot_has_kafkas_bytes() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(4, 2, 8, 3, 20, true));
    let bytes = states.encode();
    let mut expected = vec![0, 1]; // version
    expected.extend_from_slice(&bytes[2..6]); // the checksum, judged below
    expected.extend_from_slice(&[0, 0, 0, 1]); // count
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 4]); // producer id
    expected.extend_from_slice(&[0, 2]); // epoch
    expected.extend_from_slice(&[0, 0, 0, 10]); // last sequence
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 22]); // last offset
    expected.extend_from_slice(&[0, 0, 0, 2]); // offset delta
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 102]); // timestamp
    expected.extend_from_slice(&[255; 4]); // coordinator epoch
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 20]); // first offset of the transaction
    assert_eq!(bytes, expected);
    assert_eq!(bytes[2..6], crc_fast::crc32_iscsi(&bytes[6..]).to_be_bytes());
}

#[test]
fn a_damaged_snapshot_is_not_believed() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(4, 2, 8, 3, 20, true));
    let bytes = states.encode();
    for length in 0..bytes.len() {
        assert!(ProducerStates::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(ProducerStates::decode(&bytes).is_err(), "bit {bit}");
    }
    assert!(ProducerStates::decode(&bytes).is_ok());
}

#[test]
fn what_a_snapshot_keeps_is_judged_as_before() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(1, 0, 0, 3, 0, false));
    states.absorb_batch(&header(1, 0, 3, 2, 3, false));
    states.absorb_batch(&header(2, 5, 0, 4, 5, true));
    states.absorb_batch(&header(3, 1, 0, 1, 9, true));
    assert!(end(&mut states, 3, 1, MarkerKind::Commit, 10).is_none());
    let read = ProducerStates::decode(&states.encode()).expect("it is whole");
    assert_eq!(read.open_transactions(), states.open_transactions());
    for candidate in [
        header(1, 0, 3, 2, 0, false),
        header(1, 0, 5, 1, 0, false),
        header(1, 0, 6, 1, 0, false),
        header(2, 5, 4, 1, 0, true),
        header(2, 4, 0, 1, 0, true),
        header(2, 6, 0, 1, 0, true),
        header(2, 5, 4, 1, 0, false),
        header(3, 1, 1, 1, 0, true),
        header(3, 2, 0, 1, 0, true),
        header(4, 0, 0, 1, 0, true),
    ] {
        for by in [Registration::Coordinator, Registration::Partition] {
            assert_eq!(read.check(&candidate, by), states.check(&candidate, by), "{candidate:?}");
        }
    }
}

#[test]
fn sequences_before_zero_are_those_before_the_wrap() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(1, 0, i32::MAX - 1, 4, 0, false));
    let read = ProducerStates::decode(&states.encode()).expect("it is whole");
    let check = |header: &BatchHeader| read.check(header, Registration::Partition);
    let repeated = check(&header(1, 0, i32::MAX - 1, 4, 99, false));
    assert_eq!(repeated, Ok(Verdict::Duplicate { base_offset: Offset(0), last_offset: Offset(3) }));
    assert_eq!(check(&header(1, 0, 2, 1, 4, false)), Ok(Verdict::Append));
}

#[test]
fn what_a_forgotten_producer_wrote_before_it_started_over_is_no_repetition() {
    for first in [0, i32::MAX - 1] {
        let sequence = |count| Sequence(first).plus(count).0;
        let mut states = ProducerStates::default();
        states.absorb_batch(&header(1, 0, sequence(0), 2, 0, false));
        states.absorb_batch(&header(1, 0, sequence(2), 1, 2, false));
        // The producer was forgotten, and repeated what it had been told of.
        states.absorb_batch(&header(1, 0, sequence(0), 2, 3, false));
        let check = |sequence, records| {
            states.check(&header(1, 0, sequence, records, 99, false), Registration::Partition)
        };
        let repeated = Verdict::Duplicate { base_offset: Offset(3), last_offset: Offset(4) };
        assert_eq!(check(sequence(0), 2), Ok(repeated));
        assert_eq!(check(sequence(2), 1), Ok(Verdict::Append), "another record than that at offset 2");
    }
}

#[test]
fn batches_between_which_others_are_compacted_away_are_remembered() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(1, 0, i32::MAX - 1, 1, 0, false));
    states.absorb_batch(&header(1, 0, 3, 1, 5, false));
    let repeated = states.check(&header(1, 0, i32::MAX - 1, 1, 99, false), Registration::Partition);
    assert_eq!(repeated, Ok(Verdict::Duplicate { base_offset: Offset(0), last_offset: Offset(0) }));
}

#[test]
fn an_aborted_transaction_is_described_with_the_stable_offset_behind_it() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(1, 0, 0, 5, 10, true));
    states.absorb_batch(&header(2, 0, 0, 5, 15, true));
    let aborted = end(&mut states, 1, 0, MarkerKind::Abort, 20);
    let expected = AbortedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(10),
        last_offset: Offset(20),
        last_stable_offset: Offset(15),
    };
    assert_eq!(aborted, Some(expected));
    assert_eq!(states.first_unstable(), Some(Offset(15)));
    let aborted = end(&mut states, 2, 0, MarkerKind::Abort, 21).expect("it was open");
    assert_eq!(aborted.last_stable_offset, Offset(22));
    assert_eq!(states.first_unstable(), None);
}

#[test]
fn a_marker_of_a_later_epoch_in_a_log_that_kafka_wrote_ends_the_transaction_too() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(1, 3, 0, 5, 10, true));
    let aborted = end(&mut states, 1, 4, MarkerKind::Abort, 15).expect("it was open");
    assert_eq!(aborted.first_offset, Offset(10));
    assert_eq!(states.open_transactions(), []);
}

#[test]
fn producers_that_wrote_longest_ago_are_forgotten_and_open_transactions_never() {
    let mut states = ProducerStates::default();
    states.absorb_batch(&header(0, 0, 0, 1, 0, true));
    let producers = 3 * PRODUCERS_MAX as i64;
    for id in 1..=producers {
        states.absorb_batch(&header(id, 0, 0, 1, id, false));
    }
    assert!(states.producers.len() <= PRODUCERS_MAX + 1);
    assert!(states.is_open(ProducerId(0), ProducerEpoch(0)));
    let repeated = |id| states.check(&header(id, 0, 0, 1, 0, false), Registration::Partition);
    assert!(matches!(repeated(producers), Ok(Verdict::Duplicate { .. })), "the newest is known");
    assert_eq!(repeated(1), Ok(Verdict::Append), "the oldest is not");
}
