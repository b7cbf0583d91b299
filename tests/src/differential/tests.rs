//! What is said of two outcomes, and what is left of a script that fails.

use lotic_log::ErrorKind;

use super::clocked::without_times;
use super::outcome::{DatedEntry, DatedFound, Outcome, Shed};
use super::script::{Content, Dated, FIRST_TIMESTAMP, Family, Operation, Place, Script, Writer, WriterKind};
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
    assert!(differs(0, -1, &fenced, &Outcome::Done), "nothing was opened again");
    assert!(differs(0, 0, &fenced, &Outcome::Done));
    for partition in [0, 1] {
        assert!(differs(partition, 0, &fenced, &unknown));
        assert!(differs(partition, 0, &written(1..2), &fenced));
        assert!(differs(partition, 0, &unknown, &written(1..2)));
        assert!(!differs(partition, 0, &fenced, &fenced));
    }
}

#[test]
fn there_may_be_an_earlier_epoch_on_lotic_alone_and_only_where_its_log_was_opened_again_and_kafka_was_not() {
    let [fenced, unknown] = [ErrorKind::Fenced, ErrorKind::TransactionState].map(Outcome::Refused);
    let differs = |before: &[Operation], later: i16, ours: &Outcome, theirs: &Outcome| {
        let (producer, sequence, records) = (TRANSACTIONAL, 0, Vec::new());
        let batch =
            Operation::AppendAs { producer, partition: 0, later, sequence, transactional: true, records };
        let script = script([before, &[batch]].concat());
        let with = |outcome: &Outcome| {
            let mut outcomes = vec![Outcome::Done; before.len()];
            outcomes.push(outcome.clone());
            outcomes
        };
        let (ours, theirs) = (with(ours), with(theirs));
        !Verdict { script: &script, ours: &ours, theirs: &theirs }.differences().is_empty()
    };
    let open = Operation::Open(TRANSACTIONAL);
    let reopened = [open.clone(), Operation::Reopen];
    assert!(!differs(&reopened, -1, &fenced, &Outcome::Done));
    assert!(!differs(&reopened, -1, &unknown, &Outcome::Done));
    assert!(differs(&reopened, -1, &Outcome::Done, &fenced), "Kafka was not opened again");
    assert!(differs(&reopened, -1, &written(0..1), &Outcome::Done), "it is not written");
    assert!(differs(&reopened, -1, &Outcome::Refused(ErrorKind::OutOfOrderSequence), &Outcome::Done));
    assert!(differs(&reopened, 0, &fenced, &Outcome::Done), "its own epoch there is");
    assert!(differs(&[Operation::Reopen, open.clone()], -1, &fenced, &Outcome::Done), "it had no id then");
    assert!(
        differs(&[open.clone(), Operation::Restart], -1, &fenced, &Outcome::Done),
        "Kafka was restarted too"
    );
    assert!(differs(&[open], -1, &fenced, &Outcome::Done));
}

#[test]
fn what_was_shed_is_found_by_nobody() {
    // Three records, of which the first two are gone with their segments, and a marker.
    let differs = |question: &Operation, ours: Option<(i64, i64)>, theirs: Option<(i64, i64)>| {
        let shed = Operation::Shed { partition: 0, segments: 1, plus: 0 };
        let late = |time: i64| FIRST_TIMESTAMP + time;
        let records = send(PLAIN, &[late(500), late(900), late(300)]);
        let script = script(vec![records, shed, question.clone()]);
        let with = |answer| {
            let shed = Outcome::Shed(Shed { before: vec![400, 300], starts: vec![2, 0] });
            vec![written(0..3), shed, Outcome::Found(answer)]
        };
        let of = |found: Option<(i64, i64)>| with(found.map(|(offset, time)| (offset, late(time))));
        let (ours, theirs) = (of(ours), of(theirs));
        !Verdict { script: &script, ours: &ours, theirs: &theirs }.differences().is_empty()
    };
    let newest = Operation::FindNewest { partition: 0, committed: false };
    assert!(!differs(&newest, Some((2, 300)), Some((2, 300))));
    assert!(differs(&newest, Some((2, 300)), Some((1, 900))), "its segment is gone");
    assert!(differs(&newest, Some((1, 900)), Some((1, 900))));
    assert!(differs(&newest, Some((2, 300)), Some((3, -500))), "a marker is not as new");
    let find =
        |time| Operation::FindTime { partition: 0, committed: false, timestamp: FIRST_TIMESTAMP + time };
    assert!(!differs(&find(200), Some((2, 300)), Some((2, 300))));
    assert!(differs(&find(200), Some((2, 300)), None), "there is nothing deleted to go by");
    assert!(!differs(&find(400), None, None));
}

#[test]
fn where_nothing_but_markers_is_left_kafka_finds_one_of_these_and_lotic_nothing() {
    let differs = |ours: Option<(i64, i64)>, theirs: Option<(i64, i64)>| {
        let newest = Operation::FindNewest { partition: 0, committed: false };
        let delete = Operation::Delete { partition: 0, to: Place::End(0) };
        let script = script(vec![send(PLAIN, &[FIRST_TIMESTAMP]), delete, newest]);
        let with = |answer| vec![written(0..1), Outcome::Deleted(1), Outcome::Found(answer)];
        let (ours, theirs) = (with(ours), with(theirs));
        !Verdict { script: &script, ours: &ours, theirs: &theirs }.differences().is_empty()
    };
    assert!(!differs(None, None));
    assert!(!differs(None, Some((1, 700))));
    assert!(differs(Some((1, 700)), Some((1, 700))), "a marker is no record");
    assert!(differs(None, Some((1, FIRST_TIMESTAMP))), "no marker is as late");
    assert!(differs(None, Some((0, 700))), "a record was there");
}

#[test]
fn who_deletes_what_was_not_committed_may_be_told_so_here_alone() {
    let refused = Outcome::Refused(ErrorKind::NotFound);
    let differs = |delete: &Operation, offsets: &[(i32, i64)], ours: &Outcome, theirs: &Outcome| {
        let script = script(vec![Operation::Committed(0), delete.clone()]);
        let committed = Outcome::Committed(offsets.iter().copied().collect());
        let with = |outcome: &Outcome| [committed.clone(), outcome.clone()];
        let (ours, theirs) = (with(ours), with(theirs));
        !Verdict { script: &script, ours: &ours, theirs: &theirs }.differences().is_empty()
    };
    let offset = Operation::DeleteOffset { group: 0, partition: 1 };
    assert!(!differs(&offset, &[(0, 7)], &refused, &Outcome::Done));
    assert!(differs(&offset, &[(0, 7)], &Outcome::Done, &refused));
    assert!(differs(&offset, &[(1, 7)], &refused, &Outcome::Done), "it was committed");
    assert!(!differs(&offset, &[(1, 7)], &Outcome::Done, &Outcome::Done));
    let group = Operation::DeleteGroup(0);
    assert!(!differs(&group, &[], &refused, &Outcome::Done));
    assert!(differs(&group, &[], &Outcome::Done, &refused));
    assert!(differs(&group, &[(0, 7)], &refused, &Outcome::Done), "there is such a group");
    let other = Operation::DeleteGroup(1);
    assert!(differs(&other, &[], &refused, &Outcome::Done), "another one was looked at");
}

#[test]
fn a_script_goes_on_behind_the_restart_of_the_broker_once_what_is_to_expire_has() {
    let does = |line: &serde_json::Value| {
        let steps = line["steps"].as_array().expect("it has steps");
        steps.iter().map(|step| step["do"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let open = Operation::Open(TRANSACTIONAL);
    let told = |stop: Operation| {
        let script = script(vec![open.clone(), Operation::Age, stop, Operation::Committed(0)]);
        let after = script.to_json_after_restart(3).expect("the broker is stopped");
        let does = (does(&script.to_json(3)), does(&after));
        let first = script.steps_of_restart();
        (does, first)
    };
    let ((before, after), first) = told(Operation::Outlast);
    assert_eq!(before, ["open", "nothing", "commit-offset"]);
    assert_eq!((after, first), (vec!["await-forgotten".to_owned(), "committed".to_owned()], 1));
    let ((before, after), first) = told(Operation::Restart);
    assert_eq!(before, ["open", "nothing"]);
    assert_eq!((after, first), (vec!["open".to_owned(), "committed".to_owned()], 1));
    let whole = script(vec![open.clone(), Operation::Reopen]);
    assert_eq!(does(&whole.to_json(3)), ["open", "nothing"]);
    assert!(whole.to_json_after_restart(3).is_none());
}

#[test]
fn so_many_bytes_are_kept_as_are_behind_so_many_segments() {
    let kept = |segments, plus| Script::kept_bytes(&[100, 200, 50], segments, plus);
    assert_eq!([kept(0, 0), kept(1, 0), kept(2, 1), kept(1, -1)], [350, 250, 51, 249]);
    assert_eq!([kept(3, 0), kept(3, -1), kept(9, 1)], [0, 0, 1]);
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
