//! What is said of two outcomes, and what is left of a script that fails.

use lotic_log::ErrorKind;

use super::clocked::without_times;
use super::outcome::{DatedEntry, DatedFound, Outcome};
use super::script::{Content, Dated, Family, Operation, Place, Script, Writer, WriterKind};
use super::shrink::shrink;
use super::verdict::Verdict;
use crate::kafka::ReadRecord;

const PLAIN: usize = 0;
const TRANSACTIONAL: usize = 1;

fn script(operations: Vec<Operation>) -> Script {
    let writer = |kind| Writer { kind, compression: "none", timeout_ms: 1_000 };
    let producers = vec![writer(WriterKind::Plain), writer(WriterKind::Transactional(0))];
    Script { seed: 0, family: Family::Deleting, append_time: false, producers, operations }
}

fn send(producer: usize, times: &[i64]) -> Operation {
    let record = |time: &i64| Content { timestamp: *time, key: None, value: None, headers: Vec::new() };
    Operation::Send { producer, partition: Some(0), records: times.iter().map(record).collect() }
}

fn written(offsets: std::ops::Range<i64>) -> Outcome {
    Outcome::Written(offsets.map(|offset| (0, offset)).collect())
}

/// Four records of which the first two are deleted, then a transaction that is open, then the question.
fn asked(question: Operation) -> (Script, Vec<Outcome>) {
    let operations = vec![
        send(PLAIN, &[500, 900]),
        send(PLAIN, &[300, 100]),
        Operation::Delete { partition: 0, to: Place::Start(2) },
        Operation::Begin(TRANSACTIONAL),
        send(TRANSACTIONAL, &[700]),
        question,
    ];
    let outcomes = vec![written(0..2), written(2..4), Outcome::Deleted(2), Outcome::Done, written(4..5)];
    (script(operations), outcomes)
}

/// Whether these answers to a question are taken for a difference.
fn differs(question: &Operation, ours: Option<(i64, i64)>, theirs: Option<(i64, i64)>) -> bool {
    let (script, done) = asked(question.clone());
    let with = |answer| [&done[..], &[Outcome::Found(answer)]].concat();
    let (ours, theirs) = (with(ours), with(theirs));
    let differences = Verdict { script: &script, ours: &ours, theirs: &theirs }.differences();
    assert!(differences.iter().all(|index| *index == done.len()), "{differences:?}");
    !differences.is_empty()
}

#[test]
fn where_kafka_finds_no_time_because_of_what_is_deleted_lotic_has_to_find_the_first_record_that_is_left() {
    let find = |committed, timestamp| Operation::FindTime { partition: 0, committed, timestamp };
    let all = find(false, 200);
    assert!(!differs(&all, Some((2, 300)), None));
    assert!(!differs(&all, Some((2, 300)), Some((2, 300))));
    for wrong in [None, Some((0, 500)), Some((3, 100)), Some((4, 700)), Some((2, 301))] {
        assert!(differs(&all, wrong, None), "{wrong:?}");
        assert!(differs(&all, wrong, wrong), "{wrong:?}: both are wrong");
    }
    assert!(differs(&all, Some((2, 300)), Some((4, 700))), "Kafka may find nothing, and nothing else");
    // Only the open transaction has one as late.
    assert!(!differs(&find(false, 600), Some((4, 700)), None));
    assert!(differs(&find(true, 600), Some((4, 700)), None));
    assert!(!differs(&find(true, 600), None, None));
    assert!(differs(&find(false, 600), Some((2, 300)), None));
    assert!(differs(&find(false, 950), Some((4, 700)), None), "nothing that is deleted is as late");
}

#[test]
fn where_kafka_finds_a_deleted_record_as_the_newest_lotic_has_to_find_the_newest_that_is_left() {
    let find = |committed| Operation::FindNewest { partition: 0, committed };
    assert!(!differs(&find(false), Some((4, 700)), Some((1, 900))));
    assert!(!differs(&find(true), Some((2, 300)), Some((1, 900))));
    assert!(!differs(&find(true), Some((2, 300)), Some((0, 500))));
    assert!(differs(&find(false), Some((2, 300)), Some((1, 900))));
    assert!(differs(&find(false), None, Some((1, 900))));
    assert!(differs(&find(false), Some((4, 700)), Some((0, 500))), "that is not newer");
    assert!(differs(&find(false), Some((4, 700)), None));
}

/// Whether these answers to a question by a log's own times are taken for a difference. There are two batches of
/// two records and of one, a marker behind each, and behind the last stable offset a record.
fn differs_by_time(dated: Dated, committed: bool, ours: Option<i64>, theirs: Option<i64>) -> bool {
    let found = |begin: i64, at: Option<i64>| {
        // Records of one batch have one time, and offset 0 is deleted.
        let times = [(1, 0), (2, 5), (3, 8), (4, 9), (5, 9)];
        let entry = |(offset, time): &(i64, i64)| DatedEntry {
            offset: *offset,
            time: begin + time,
            is_marker: [2, 4].contains(offset),
        };
        let entries: Vec<_> = times.iter().map(entry).collect();
        let time = |offset: i64| {
            let entry = entries.iter().find(|entry| entry.offset == offset);
            (offset, entry.map_or(begin + 9, |entry| entry.time))
        };
        Outcome::Dated(DatedFound { found: at.map(time), entries, stable: 5 })
    };
    let script = script(vec![Operation::FindDated { partition: 0, committed, dated }]);
    let (ours, theirs) = ([found(100, ours)], [found(700, theirs)]);
    !Verdict { script: &script, ours: &ours, theirs: &theirs }.differences().is_empty()
}

#[test]
fn each_side_has_to_find_what_is_there_by_its_own_times() {
    let at = |place, plus| Dated::At { place, plus };
    assert!(!differs_by_time(at(0, 0), false, Some(1), Some(1)));
    assert!(differs_by_time(at(0, 0), false, Some(3), Some(1)));
    assert!(differs_by_time(at(0, 0), false, Some(1), Some(3)));
    assert!(differs_by_time(at(0, 0), false, None, Some(1)));
    assert!(differs_by_time(at(0, 0), false, Some(1), None));
    // A marker is a record to Kafka alone.
    assert!(!differs_by_time(at(0, 1), false, Some(3), Some(2)));
    assert!(differs_by_time(at(0, 1), false, Some(2), Some(2)));
    assert!(differs_by_time(at(0, 1), false, Some(3), Some(3)));
    assert!(!differs_by_time(at(3, 0), false, Some(5), Some(4)));
    // The last record is not committed.
    assert!(!differs_by_time(at(3, 0), true, None, Some(4)));
    assert!(differs_by_time(at(3, 0), true, Some(5), Some(4)));
    assert!(!differs_by_time(at(4, 1), false, None, None));
    // The fifth place is the first one again.
    assert!(!differs_by_time(at(5, 0), false, Some(1), Some(1)));

    let newest = Dated::Newest;
    assert!(!differs_by_time(newest, false, Some(5), Some(4)));
    assert!(!differs_by_time(newest, false, Some(5), Some(5)), "another of the same time");
    assert!(!differs_by_time(newest, false, Some(5), Some(0)), "one that is deleted, of the same time");
    assert!(differs_by_time(newest, false, Some(5), Some(3)));
    assert!(differs_by_time(newest, false, Some(5), None));
    assert!(differs_by_time(newest, false, Some(4), Some(4)));
    assert!(differs_by_time(newest, false, Some(3), Some(4)));
    assert!(!differs_by_time(newest, true, Some(3), Some(4)));
}

#[test]
fn other_offsets_are_a_difference_whatever_is_found_among_them() {
    let found = |offset, is_marker, stable| {
        let entries = vec![DatedEntry { offset, time: 5, is_marker }];
        Outcome::Dated(DatedFound { entries, stable, found: None })
    };
    let check = |ours: Outcome, theirs: Outcome| {
        let dated = Dated::At { place: 0, plus: 1 };
        let script = script(vec![Operation::FindDated { partition: 0, committed: false, dated }]);
        Verdict { script: &script, ours: &[ours], theirs: &[theirs] }.differences().is_empty()
    };
    assert!(check(found(1, false, 2), found(1, false, 2)));
    assert!(!check(found(1, false, 2), found(2, false, 2)));
    assert!(!check(found(1, false, 2), found(1, true, 2)));
    assert!(!check(found(1, false, 2), found(1, false, 1)));
    assert!(!check(Outcome::Found(None), found(1, false, 2)));
}

#[test]
fn a_batch_that_is_refused_may_be_so_by_another_reason_where_its_transaction_has_written_nothing() {
    let fenced = Outcome::Refused(ErrorKind::Fenced);
    let unknown = Outcome::Refused(ErrorKind::TransactionState);
    let differs = |partition: i32, later: i16, ours: &Outcome, theirs: &Outcome| {
        let records = Vec::new();
        let batch = Operation::AppendAs {
            producer: TRANSACTIONAL,
            partition,
            later,
            sequence: 0,
            transactional: true,
            records,
        };
        let script = script(vec![Operation::Begin(TRANSACTIONAL), send(TRANSACTIONAL, &[1]), batch]);
        let with = |outcome: &Outcome| [Outcome::Done, written(0..1), outcome.clone()];
        let (ours, theirs) = (with(ours), with(theirs));
        !Verdict { script: &script, ours: &ours, theirs: &theirs }.differences().is_empty()
    };
    assert!(!differs(1, 0, &unknown, &fenced));
    assert!(!differs(1, -1, &unknown, &fenced));
    assert!(!differs(0, 1, &unknown, &fenced), "an epoch that nobody has");
    assert!(differs(0, 0, &unknown, &fenced), "the partition knows of it");
    assert!(differs(0, -1, &unknown, &fenced));
    assert!(!differs(0, -1, &fenced, &Outcome::Done), "there may be no earlier epoch");
    assert!(differs(0, -1, &written(1..2), &Outcome::Done));
    assert!(differs(0, 0, &fenced, &Outcome::Done));
    for partition in [0, 1] {
        assert!(differs(partition, 0, &fenced, &unknown));
        assert!(differs(partition, 0, &written(1..2), &fenced));
        assert!(differs(partition, 0, &unknown, &written(1..2)));
        assert!(!differs(partition, 0, &fenced, &fenced));
    }
}

#[test]
fn a_script_that_fails_is_left_with_what_it_fails_by() {
    let operations = |count: i32| (0..count).map(Operation::Offsets).collect();
    let fails = |script: &Script| {
        let has = |number| script.operations.contains(&Operation::Offsets(number));
        has(3) && has(17) && (has(20) || has(21))
    };
    let mut runs = 0;
    let smallest = shrink(script(operations(40)), |scripts| {
        runs += 1;
        Ok(scripts.iter().map(fails).collect())
    });
    let smallest = smallest.expect("nothing fails but scripts");
    assert_eq!(smallest.operations, [3, 17, 21].map(Operation::Offsets));
    assert!(runs <= 5, "{runs}");
    let none = shrink(script(operations(3)), |scripts| Ok(vec![false; scripts.len()]));
    assert_eq!(none.expect("nothing fails").operations.len(), 3);
}

#[test]
fn times_of_appends_are_of_the_clock_in_order_and_stay_the_same() {
    let read = |offset, timestamp| {
        let (topic, headers) = (String::new(), Vec::new());
        ReadRecord { topic, partition: 0, offset, timestamp, key: None, value: None, headers }
    };
    let check = |looks: &[&[(i64, i64)]]| {
        let look = |look: &&[(i64, i64)]| {
            Outcome::Records(look.iter().map(|(offset, time)| read(*offset, *time)).collect())
        };
        without_times(&script(Vec::new()), looks.iter().map(look).collect(), &(10..=20))
    };
    let without = check(&[&[(0, 10), (1, 12)], &[(1, 12), (5, 20)]]).expect("they are as they should be");
    assert_eq!(without[1], Outcome::Records(vec![read(1, 0), read(5, 0)]));
    assert!(check(&[&[(0, 9)]]).is_err(), "before the clock");
    assert!(check(&[&[(0, 21)]]).is_err(), "behind it");
    assert!(check(&[&[(1, 12)], &[(0, 13)]]).is_err(), "not in order");
    assert!(check(&[&[(1, 12)], &[(1, 13)]]).is_err(), "changed");
}
