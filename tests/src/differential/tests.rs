//! What is said of two outcomes, and what is left of a script that fails.

use super::clocked::without_times;
use super::outcome::Outcome;
use super::script::{Content, Operation, Place, Script, Writer, WriterKind};
use super::shrink::shrink;
use super::verdict::Verdict;
use crate::kafka::ReadRecord;

const PLAIN: usize = 0;
const TRANSACTIONAL: usize = 1;

fn script(operations: Vec<Operation>) -> Script {
    let writer = |kind| Writer { kind, compression: "none" };
    let producers = vec![writer(WriterKind::Plain), writer(WriterKind::Transactional(0))];
    Script { seed: 0, compacts: false, append_time: false, producers, operations }
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
        without_times(looks.iter().map(look).collect(), &(10..=20))
    };
    let without = check(&[&[(0, 10), (1, 12)], &[(1, 12), (5, 20)]]).expect("they are as they should be");
    assert_eq!(without[1], Outcome::Records(vec![read(1, 0), read(5, 0)]));
    assert!(check(&[&[(0, 9)]]).is_err(), "before the clock");
    assert!(check(&[&[(0, 21)]]).is_err(), "behind it");
    assert!(check(&[&[(1, 12)], &[(0, 13)]]).is_err(), "not in order");
    assert!(check(&[&[(1, 12)], &[(1, 13)]]).is_err(), "changed");
}
