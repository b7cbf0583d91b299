use std::sync::Arc;

use lotic_log::partition_for_key;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::operators::stateful_bench::{Bench, Emitted, Event, Reader, Record, event, keyed, push};
use crate::state::testing::{Number, Text};

/// Says of each number what the table says of its key at its time.
fn bench_of(grace_ms: i64, table_topic: Option<&str>) -> Bench {
    let stores = AsOfStores {
        versions: "versions".to_owned(),
        waiting: "waiting".to_owned(),
        grace_ms,
        table_topic: table_topic.map(str::to_owned),
        stream_codec: Arc::new(Number),
        table_codec: Arc::new(Text),
    };
    let join = |key: &String, number: i64, row: Option<&String>| {
        Some(format!("{key} {number} {}", row.map_or("-", |row| row.as_str())))
    };
    let factory = join_as_of::<String, i64, String, String>(stores, Arc::new(Text), join);
    Bench::new(factory, &["versions", "waiting"], &[("table", 3)])
}

fn bench() -> Bench {
    bench_of(0, Some("table"))
}

fn answers(emitted: &mut Emitted) -> Vec<(i64, String)> {
    emitted.rows::<(String, String)>(ANSWERS).into_iter().map(|event| (event.time, event.row.1)).collect()
}

fn check(mut emitted: Emitted, expected: &[(i64, &str)]) {
    let answers = answers(&mut emitted);
    let answers: Vec<_> = answers.iter().map(|(time, answer)| (*time, answer.as_str())).collect();
    assert_eq!(answers, expected);
}

fn ask(bench: &mut Bench, events: &[Event<(&str, i64)>]) -> Emitted {
    bench.process(STREAM, keyed(events))
}

fn tell(bench: &mut Bench, time: i64, watermark: i64, key: &str, row: Option<&str>) -> Emitted {
    bench.process(TABLE, keyed(&[event(time, watermark, (key, row.map(str::to_owned)))]))
}

fn partition_of(key: &str) -> Option<i32> {
    Some(partition_for_key(key.as_bytes(), 3).0)
}

#[test]
fn a_record_waits_until_the_table_has_passed_its_time() {
    let mut bench = bench();
    tell(&mut bench, 5, 5, "a", Some("five"));
    check(ask(&mut bench, &[event(10, 0, ("a", 1))]), &[]);
    check(bench.advance(TABLE, partition_of("a"), 10), &[]);
    // The watermark says that ten may still come, and it does.
    tell(&mut bench, 10, 10, "a", Some("ten"));
    check(bench.advance(TABLE, partition_of("a"), 11), &[(10, "a 1 ten")]);
    bench.commit();
    assert_eq!(bench.stored("waiting"), 0);
}

#[test]
fn a_record_of_a_time_that_the_table_has_passed_is_answered_at_once() {
    let mut bench = bench();
    for (time, row) in [(5, "five"), (10, "ten"), (20, "twenty")] {
        tell(&mut bench, time, time, "a", Some(row));
    }
    bench.advance(TABLE, partition_of("a"), 30);
    let times = [4, 5, 9, 10, 25, 19];
    let events: Vec<_> = times.iter().map(|&time| event(time, 0, ("a", 0))).collect();
    let expected = ["-", "five", "five", "ten", "twenty", "ten"].map(|row| format!("a 0 {row}"));
    let expected: Vec<_> = times.into_iter().zip(expected.iter().map(String::as_str)).collect();
    check(ask(&mut bench, &events), &expected);
    check(ask(&mut bench, &[event(10, 0, ("unheard of", 7))]), &[]);
    assert_eq!(bench.commit(), 4, "three versions, and the one who waits for another partition");
}

#[test]
fn a_record_of_the_very_time_that_the_table_has_come_to_waits() {
    let mut bench = bench();
    bench.advance(TABLE, partition_of("a"), 10);
    check(ask(&mut bench, &[event(10, 0, ("a", 1)), event(9, 0, ("a", 2))]), &[(9, "a 2 -")]);
    tell(&mut bench, 10, 10, "a", Some("ten"));
    check(bench.end(), &[(10, "a 1 ten")]);
}

#[test]
fn nobody_waits_for_a_partition_that_cannot_hold_the_key() {
    let mut bench = bench();
    let other = (0..3).find(|partition| Some(*partition) != partition_of("a"));
    check(ask(&mut bench, &[event(10, 0, ("a", 1))]), &[]);
    check(bench.advance(TABLE, other, 50), &[]);
    check(bench.advance(TABLE, None, 9), &[]);
    check(bench.advance(TABLE, partition_of("a"), 11), &[(10, "a 1 -")]);
}

#[test]
fn what_is_said_of_the_whole_table_holds_for_every_partition() {
    let mut bench = bench();
    ask(&mut bench, &[event(10, 0, ("a", 1)), event(11, 0, ("b", 2)), event(50, 0, ("c", 3))]);
    let mut emitted = bench.advance(TABLE, None, 12);
    let mut answered = answers(&mut emitted);
    answered.sort();
    assert_eq!(answered, [(10, "a 1 -".to_owned()), (11, "b 2 -".to_owned())]);
}

#[test]
fn a_table_that_is_not_read_by_its_key_is_waited_for_as_a_whole() {
    let mut bench = bench_of(0, None);
    ask(&mut bench, &[event(10, 0, ("a", 1))]);
    check(bench.advance(TABLE, Some(7), 50), &[]);
    check(bench.advance(TABLE, None, 11), &[(10, "a 1 -")]);
}

#[test]
fn an_end_answers_those_who_wait_once() {
    let mut bench = bench();
    tell(&mut bench, 5, 5, "a", Some("five"));
    let events: Vec<_> = (6..16).map(|time| event(time, 0, ("a", 0))).collect();
    ask(&mut bench, &events);
    bench.commit();
    assert_eq!(bench.stored("waiting"), 10);
    let mut emitted = bench.end();
    assert!(emitted.watermarks.is_empty(), "an end is not a time");
    assert_eq!(answers(&mut emitted), (6..16).map(|time| (time, "a 0 five".to_owned())).collect::<Vec<_>>());
    bench.commit();
    assert_eq!(bench.stored("waiting"), 0);
    tell(&mut bench, 7, 5, "a", Some("seven"));
    check(bench.advance(TABLE, partition_of("a"), 90), &[]);
    check(ask(&mut bench, &[event(8, 0, ("a", 1))]), &[(8, "a 1 seven")]);
}

#[test]
fn a_row_that_was_deleted_is_not_there_from_then_on() {
    let mut bench = bench();
    tell(&mut bench, 5, 5, "a", Some("five"));
    tell(&mut bench, 10, 10, "a", None);
    bench.advance(TABLE, partition_of("a"), 30);
    let events = [event(9, 0, ("a", 1)), event(10, 0, ("a", 1)), event(11, 0, ("a", 1))];
    check(ask(&mut bench, &events), &[(9, "a 1 five"), (10, "a 1 -"), (11, "a 1 -")]);
}

#[test]
fn records_and_changes_are_late_by_their_own_watermarks() {
    let mut bench = bench_of(5, Some("table"));
    let mut emitted = ask(&mut bench, &[event(10, 15, ("a", 1)), event(10, 16, ("a", 2))]);
    assert_eq!(emitted.rows::<(String, i64)>(LATE), [event(10, 16, ("a".to_owned(), 2))]);
    assert!(tell(&mut bench, 10, 10, "a", Some("in time")).is_empty());
    let mut emitted = tell(&mut bench, 10, 11, "a", Some("late"));
    let late = emitted.rows::<(String, Option<String>)>(LATE_CHANGES);
    assert_eq!(late, [event(10, 11, ("a".to_owned(), Some("late".to_owned())))]);
    assert_eq!(bench.counters.late.get(), 2);
    let mut emitted = bench.end();
    assert_eq!(
        emitted.rows::<(String, String)>(ANSWERS),
        [event(10, 15, ("a".to_owned(), "a 1 in time".to_owned()))],
        "an answer keeps the record's own watermark"
    );
}

/// A table in which so many keys have a row each, asked for by nobody yet.
fn bench_with_rows(keys: i64, row: &str) -> Bench {
    let mut bench = bench_of(0, None);
    for key in 0..keys {
        tell(&mut bench, 5, 5, &format!("key {key}"), Some(row));
    }
    bench.advance(TABLE, None, 30);
    bench.commit();
    bench.scans();
    bench
}

/// Asks for these keys in one frame, each at its time.
fn ask_many(bench: &mut Bench, keys: impl Iterator<Item = (i64, i64)>) -> Vec<(i64, String)> {
    let keys: Vec<_> = keys.map(|(key, time)| (format!("key {key}"), time)).collect();
    let events: Vec<_> = keys.iter().map(|(key, time)| event(*time, 0, (key.as_str(), 1))).collect();
    answers(&mut ask(bench, &events))
}

#[test]
fn what_a_frame_lacks_is_read_in_one_pass() {
    let mut bench = bench_with_rows(60, "row");
    let expected = |keys: std::ops::Range<i64>| -> Vec<_> {
        keys.map(|key| (7, format!("key {key} 1 {}", if key < 60 { "row" } else { "-" }))).collect()
    };
    assert_eq!(ask_many(&mut bench, (0..50).map(|key| (key, 7))), expected(0..50));
    assert_eq!(bench.scans(), [50]);
    assert_eq!(ask_many(&mut bench, (0..50).map(|key| (key, 7))), expected(0..50));
    assert!(bench.scans().is_empty(), "what was read is kept");
    assert_eq!(ask_many(&mut bench, (0..70).map(|key| (key, 7))), expected(0..70));
    assert_eq!(bench.scans(), [20], "also of keys that the table does not have");
    assert_eq!(ask_many(&mut bench, (0..70).map(|key| (key, 7))), expected(0..70));
    assert!(bench.scans().is_empty());
}

#[test]
fn a_key_that_is_asked_for_at_several_times_is_read_once_from_the_earliest_on() {
    let mut bench = bench_with_rows(3, "row");
    tell(&mut bench, 40, 5, "key 1", Some("later"));
    bench.advance(TABLE, None, 90);
    bench.commit();
    let asked = [(1, 50), (0, 8), (1, 4), (1, 8), (0, 4)];
    let expected =
        [(50, "key 1 1 later"), (8, "key 0 1 row"), (4, "key 1 1 -"), (8, "key 1 1 row"), (4, "key 0 1 -")];
    let expected: Vec<_> = expected.map(|(time, answer)| (time, answer.to_owned())).into();
    bench.scans();
    assert_eq!(ask_many(&mut bench, asked.into_iter()), expected);
    assert_eq!(bench.scans(), [2]);
}

#[test]
fn rows_of_unlike_sizes_are_not_read_again_and_again() {
    const KEYS: i64 = 600;
    let row = |key: i64| "x".repeat(if key % 2 == 0 { 50 } else { 100 << 10 });
    let mut bench = bench_of(0, None);
    for key in 0..KEYS {
        tell(&mut bench, 5, 5, &format!("key {key}"), Some(&row(key)));
    }
    bench.advance(TABLE, None, 30);
    bench.commit();
    bench.scans();
    let before = bench.visited();
    let small_first = || (0..KEYS).step_by(2).chain((1..KEYS).step_by(2));
    let expected: Vec<_> = small_first().map(|key| (7, format!("key {key} 1 {}", row(key)))).collect();
    assert!(ask_many(&mut bench, small_first().map(|key| (key, 7))) == expected);
    let visited = (bench.visited() - before) as i64;
    assert!(visited <= 2 * KEYS, "{visited} rows for {KEYS} keys");
    let scans = bench.scans();
    assert!(scans.len() <= KEYS as usize / 10, "{scans:?}");
}

#[test]
fn a_pass_reads_of_each_key_up_to_the_latest_time_that_the_frame_asks_for() {
    const KEYS: i64 = 100;
    let mut bench = bench_of(100, None);
    for time in 0..90 {
        for key in 0..KEYS {
            tell(&mut bench, time, 0, &format!("key {key}"), Some(&format!("{time:0200}")));
        }
    }
    bench.advance(TABLE, None, 95);
    bench.commit();
    bench.scans();
    // Each at five times, and more history of each than its share of a pass.
    let asked = || (0..KEYS * 5).map(|number| (number % KEYS, 20 + 15 * (number / KEYS)));
    let expected: Vec<_> = asked().map(|(key, time)| (time, format!("key {key} 1 {time:0200}"))).collect();
    assert!(ask_many(&mut bench, asked()) == expected);
    assert_eq!(bench.scans(), [KEYS as usize]);
    assert!(ask_many(&mut bench, asked()) == expected);
    assert!(bench.scans().is_empty());
}

#[test]
fn keys_that_take_much_room_are_read_in_several_passes() {
    const KEYS: i64 = 300;
    let long = |key: i64| format!("{key:0>8000}");
    let mut bench = bench_of(0, None);
    for key in 0..KEYS {
        tell(&mut bench, 5, 5, &long(key), Some("row"));
    }
    bench.advance(TABLE, None, 30);
    bench.commit();
    bench.scans();
    let keys: Vec<_> = (0..KEYS).map(long).collect();
    let events: Vec<_> = keys.iter().map(|key| event(7, 0, (key.as_str(), 1))).collect();
    assert_eq!(answers(&mut ask(&mut bench, &events)).len(), KEYS as usize);
    let scans = bench.scans();
    assert_eq!(scans.iter().sum::<usize>(), KEYS as usize, "each is read once: {scans:?}");
    assert!(scans.iter().skip(1).any(|&keys| keys > 1), "{scans:?}");
}

#[test]
fn an_earlier_time_than_what_was_read_of_a_key_is_read_again() {
    let mut bench = bench_of(90, None);
    for time in [5, 10, 20] {
        tell(&mut bench, time, 5, "key 0", Some(&format!("of {time}")));
    }
    bench.advance(TABLE, None, 30);
    bench.commit();
    for (time, row) in [(25, "of 20"), (12, "of 10"), (9, "of 5"), (4, "-")] {
        assert_eq!(ask_many(&mut bench, [(0, time)].into_iter()), [(time, format!("key 0 1 {row}"))]);
    }
}

#[test]
fn what_those_who_are_let_go_lack_is_read_in_one_pass_for_each_frame_of_them() {
    let mut bench = bench_with_rows(9, "row");
    assert_eq!(ask_many(&mut bench, (0..9).map(|key| (key, 40))), []);
    bench.commit();
    bench.scans();
    let mut answered = answers(&mut bench.advance(TABLE, None, 41));
    answered.sort();
    assert_eq!(answered, (0..9).map(|key| (40, format!("key {key} 1 row"))).collect::<Vec<_>>());
    // The frames of this bench have three rows. Who waits is found in one pass too.
    let scans = bench.scans();
    assert_eq!(scans.len(), 3 + 3, "{scans:?}");
    assert_eq!(scans.iter().skip(1).step_by(2).copied().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn a_frame_whose_rows_take_more_than_a_pass_may_is_answered_in_several() {
    const KEYS: i64 = 100;
    let row = "x".repeat(100 << 10);
    let mut bench = bench_with_rows(KEYS, &row);
    let expected: Vec<_> = (0..KEYS).map(|key| (7, format!("key {key} 1 {row}"))).collect();
    assert!(ask_many(&mut bench, (0..KEYS).map(|key| (key, 7))) == expected);
    let first = bench.scans();
    assert_eq!(first[0], KEYS as usize, "it is not known what a row takes");
    let (first_pass_max, pass_min) = (versions::FETCH_BYTES_MAX / row.len() + 1, 8);
    assert!(first.len() > KEYS as usize / first_pass_max, "a pass has a bound all the same: {first:?}");
    assert!(first.len() <= 3 + KEYS as usize / pass_min, "and what it left is read in others: {first:?}");
    assert!(ask_many(&mut bench, (0..KEYS).map(|key| (key, 7))) == expected);
    let scans = bench.scans();
    assert_eq!(scans.iter().sum::<usize>(), KEYS as usize, "each is read once: {scans:?}");
    assert!(scans.iter().all(|&keys| keys * row.len() <= versions::FETCH_BYTES_MAX), "{scans:?}");
    assert!(scans.len() <= KEYS as usize / pass_min, "{scans:?}");
}

#[test]
fn long_histories_of_many_keys_share_what_a_pass_may_read() {
    const KEYS: i64 = 40;
    let mut bench = bench_with_rows(KEYS, "row");
    for key in 0..KEYS {
        for time in 6..26 {
            tell(&mut bench, time, 6, &format!("key {key}"), Some(&"x".repeat(10 << 10)));
        }
    }
    bench.advance(TABLE, None, 90);
    bench.commit();
    let before = bench.visited();
    assert_eq!(ask_many(&mut bench, (0..KEYS).map(|key| (key, 5))).len(), KEYS as usize);
    let visited = bench.visited() - before;
    let bytes_max = versions::FETCH_BYTES_MAX + (KEYS as usize + 1) * (11 << 10);
    assert!(visited * (10 << 10) <= bytes_max, "{visited} rows for {KEYS} keys");
}

#[test]
fn whoever_waits_holds_the_watermark_back() {
    let mut bench = bench();
    ask(&mut bench, &[event(10, 0, ("a", 1)), event(12, 0, ("a", 2))]);
    assert_eq!(bench.advance(STREAM, None, 5).watermarks, [5]);
    assert_eq!(bench.advance(STREAM, None, 50).watermarks, [10]);
    bench.commit();
    bench.restart(&mut ChaCha8Rng::seed_from_u64(5));
    assert_eq!(bench.advance(STREAM, None, 50).watermarks, [10], "a restart remembers who waits");
    assert_eq!(bench.advance(TABLE, partition_of("a"), 11).watermarks, [12]);
    assert_eq!(bench.advance(TABLE, partition_of("a"), 90).watermarks, [50]);
}

#[test]
fn versions_that_nobody_can_ask_for_go() {
    let mut bench = bench_of(3, Some("table"));
    for time in 0..100 {
        tell(&mut bench, time, time, "a", Some("row"));
        tell(&mut bench, time, time, "b", Some("row"));
    }
    // Somebody still waits for 40.
    ask(&mut bench, &[event(40, 30, ("c", 1))]);
    for watermark in 60..70 {
        bench.advance(STREAM, None, watermark);
    }
    bench.commit();
    assert_eq!(bench.stored("versions"), 2 * 60, "40 to 99");
    bench.advance(TABLE, None, 41);
    for watermark in 70..80 {
        bench.advance(STREAM, None, watermark);
    }
    bench.commit();
    assert_eq!(bench.stored("versions"), 2 * (100 - (79 - 3)), "79 less grace, and later ones");
    bench.advance(TABLE, None, 200);
    check(ask(&mut bench, &[event(77, 80, ("a", 1))]), &[(77, "a 1 row")]);
}

#[test]
fn a_deleted_row_goes_once_nobody_can_ask_for_it_and_nothing_earlier_can_come() {
    let mut bench = bench();
    let sweep = |bench: &mut Bench, watermark: i64| {
        bench.advance(STREAM, None, watermark);
        bench.advance(STREAM, None, watermark);
        bench.commit();
        bench.stored("versions")
    };
    tell(&mut bench, 5, 5, "a", Some("five"));
    tell(&mut bench, 20, 10, "a", None);
    assert_eq!(sweep(&mut bench, 19), 2, "who comes with nineteen gets five");
    assert_eq!(sweep(&mut bench, 30), 1, "the table may still change before twenty");
    tell(&mut bench, 15, 10, "a", Some("fifteen"));
    bench.advance(TABLE, None, 20);
    assert_eq!(sweep(&mut bench, 31), 0);
    bench.advance(TABLE, None, 90);
    check(ask(&mut bench, &[event(40, 40, ("a", 1))]), &[(40, "a 1 -")]);
}

#[test]
fn the_rows_of_many_deleted_keys_go() {
    let mut bench = bench();
    for key in 0..300 {
        tell(&mut bench, 5, 5, &format!("key {key}"), Some("row"));
        tell(&mut bench, 10, 10, &format!("key {key}"), (key % 10 == 0).then_some("again"));
    }
    bench.advance(TABLE, None, 20);
    for watermark in 11..40 {
        bench.advance(STREAM, None, watermark);
    }
    bench.commit();
    assert_eq!(bench.stored("versions"), 30);
}

#[test]
fn records_without_origin_wait_side_by_side() {
    let mut bench = bench();
    ask(&mut bench, &[event(10, 0, ("a", 1)), event(10, 0, ("a", 2))]);
    bench.commit();
    bench.restart(&mut ChaCha8Rng::seed_from_u64(5));
    ask(&mut bench, &[event(10, 0, ("a", 3))]);
    let mut answered = answers(&mut bench.end());
    answered.sort();
    assert_eq!(answered, [1, 2, 3].map(|number| (10, format!("a {number} -"))));
}

#[test]
fn rows_that_were_made_of_one_record_wait_side_by_side() {
    let mut bench = bench();
    let enter = |bench: &mut Bench, numbers: &[i64]| {
        let mut batch = Batch::default();
        for &number in numbers {
            push(&mut batch, 10, 0, Some((3, 1, 77)), "a".to_owned(), number);
        }
        bench.process(STREAM, batch);
    };
    enter(&mut bench, &[1, 2]);
    enter(&mut bench, &[3]);
    bench.commit();
    enter(&mut bench, &[4]);
    bench.restart(&mut ChaCha8Rng::seed_from_u64(5));
    enter(&mut bench, &[5, 6]);
    bench.commit();
    bench.restart(&mut ChaCha8Rng::seed_from_u64(6));
    enter(&mut bench, &[7]);
    let mut answered = answers(&mut bench.end());
    answered.sort();
    assert_eq!(answered, [1, 2, 3, 5, 6, 7].map(|number| (10, format!("a {number} -"))));
}

#[test]
fn whoever_is_let_go_is_not_passed_over_again() {
    let mut bench = bench();
    const RECORDS: usize = 600;
    let events: Vec<_> = (0..RECORDS as i64).map(|number| event(10, 0, ("a", number))).collect();
    ask(&mut bench, &events);
    bench.commit();
    let before = bench.visited();
    assert_eq!(answers(&mut bench.advance(TABLE, None, 11)).len(), RECORDS);
    let visited = bench.visited() - before;
    assert!((RECORDS..3 * RECORDS).contains(&visited), "{visited} rows for {RECORDS}");
}

#[test]
fn whoever_comes_before_those_who_stayed_is_answered_too() {
    let mut bench = bench();
    ask(&mut bench, &(0..7).map(|number| event(10, 0, ("b", number))).collect::<Vec<_>>());
    let (progress, mut first) = bench.advance_once(TABLE, Some(0), 0);
    assert_eq!((progress, first.rows::<(String, String)>(ANSWERS).len()), (Progress::Done, 0));
    let (progress, mut first) = bench.advance_once(TABLE, partition_of("b"), 11);
    assert_eq!((progress, answers(&mut first).len()), (Progress::More, 3), "four stay");
    bench.commit();
    let own = |bench: &mut Bench, time| ask(bench, &[event(time, 0, ("b", 9))]);
    assert_eq!(answers(&mut own(&mut bench, 9)).len(), 1, "the table has passed it");
    own(&mut bench, 12);
    assert_eq!(answers(&mut bench.advance(TABLE, partition_of("b"), 11)).len(), 4);
    own(&mut bench, 11);
    let answered = answers(&mut bench.advance(TABLE, partition_of("b"), 50));
    assert_eq!(answered.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [11, 12]);
}

#[test]
fn an_answer_keeps_the_origin_of_its_record() {
    let mut bench = bench();
    let mut batch = Batch::default();
    push(&mut batch, 10, 0, Some((3, 1, 77)), "a".to_owned(), 5i64);
    bench.process(STREAM, batch);
    bench.commit();
    let origins = bench.advance(TABLE, None, 11).origins(ANSWERS);
    let expected = crate::frame::Origin {
        source: 3,
        partition: lotic_log::PartitionId(1),
        offset: lotic_log::Offset(77),
    };
    assert_eq!(origins, [expected]);
}

fn stream() -> impl Strategy<Value = Vec<Vec<Record<i64>>>> {
    let record = (0..40i64, 0..4u8, 1..1000i64);
    let record = record.prop_map(|(time, key, value)| Record { time, key: format!("key {key}"), value });
    prop::collection::vec(prop::collection::vec(record, 0..25), 1..3)
}

/// A table of three partitions, each key in its own; some partitions may be empty.
fn table() -> impl Strategy<Value = Vec<Vec<Record<Option<String>>>>> {
    let record = (0..40i64, 0..4u8, prop::option::weighted(0.8, "[a-z]{3}"));
    prop::collection::vec(record, 0..60).prop_map(|records| {
        let mut partitions = vec![Vec::new(); 3];
        for (time, key, value) in records {
            let key = format!("key {key}");
            let partition = partition_for_key(key.as_bytes(), 3).0 as usize;
            partitions[partition].push(Record { time, key, value });
        }
        partitions
    })
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    answers: Vec<(i64, String)>,
    late: Vec<(i64, String, i64)>,
    late_changes: Vec<(i64, String, Option<String>)>,
}

impl Outcome {
    fn take(&mut self, mut emitted: Emitted) {
        self.answers.append(&mut answers(&mut emitted));
        let late = emitted.rows::<(String, i64)>(LATE).into_iter();
        self.late.extend(late.map(|e| (e.time, e.row.0, e.row.1)));
        let late = emitted.rows::<(String, Option<String>)>(LATE_CHANGES).into_iter();
        self.late_changes.extend(late.map(|e| (e.time, e.row.0, e.row.1)));
    }

    fn sorted(mut self) -> Self {
        self.answers.sort();
        self.late.sort();
        self.late_changes.sort();
        self
    }
}

fn naive(stream: &Reader<i64>, table: &Reader<Option<String>>, grace: i64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut changes = Vec::new();
    for (change, watermark) in table.naive() {
        if watermark > change.time {
            outcome.late_changes.push((change.time, change.key, change.value));
        } else {
            changes.push(change);
        }
    }
    for (Record { time, key, value }, watermark) in stream.naive() {
        if watermark > time + grace {
            outcome.late.push((time, key, value));
            continue;
        }
        // Of equal times the last one counts.
        let version = changes.iter().filter(|change| change.key == key && change.time <= time);
        let row = version.max_by_key(|change| change.time).and_then(|change| change.value.clone());
        outcome.answers.push((time, format!("{key} {value} {}", row.as_deref().unwrap_or("-"))));
    }
    outcome.sorted()
}

/// Tells of the watermarks that the readers have come to.
fn advance(bench: &mut Bench, stream: &Reader<i64>, table: &Reader<Option<String>>, outcome: &mut Outcome) {
    for partition in 0..3 {
        outcome.take(bench.advance(TABLE, Some(partition as i32), table.watermark(partition)));
    }
    outcome.take(bench.advance(TABLE, None, table.whole_watermark()));
    outcome.take(bench.advance(STREAM, None, stream.whole_watermark()));
}

fn run(stream: &Reader<i64>, table: &Reader<Option<String>>, grace: i64, random: &mut ChaCha8Rng) -> Outcome {
    let mut bench = bench_of(grace, Some("table"));
    let (mut stream, mut table) = (stream.clone(), table.clone());
    let mut outcome = Outcome::default();
    let mut committed = (stream.clone(), table.clone(), outcome.clone());
    // Which side is read first, and by how much, differs from run to run.
    let stream_share = random.random_range(0.05..0.95);
    loop {
        let from_stream = random.random_bool(stream_share);
        let read = match from_stream {
            true => stream.read(0, random).map(|(_, batch)| bench.process(STREAM, batch)),
            false => table.read(1, random).map(|(_, batch)| bench.process(TABLE, batch)),
        };
        let is_side_done = read.is_none();
        outcome.take(read.unwrap_or_default());
        if random.random_bool(0.5) {
            advance(&mut bench, &stream, &table, &mut outcome);
        }
        if random.random_bool(0.15) {
            bench.commit();
            committed = (stream.clone(), table.clone(), outcome.clone());
        }
        if random.random_bool(0.08) {
            bench.restart(random);
            (stream, table, outcome) = committed.clone();
            advance(&mut bench, &stream, &table, &mut outcome);
        }
        if is_side_done && stream.is_done() && table.is_done() {
            outcome.take(bench.end());
            bench.commit();
            assert_eq!(bench.stored("waiting"), 0, "an end leaves nobody waiting");
            return outcome.sorted();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_order_of_reading_gives_the_same(
        stream in stream(), table in table(), disorders in (0..12i64, 0..12i64), grace in 0..6i64,
        seeds in any::<[u64; 2]>(),
    ) {
        let stream = Reader::new(stream, disorders.0);
        let table = Reader::new(table, disorders.1);
        let expected = naive(&stream, &table, grace);
        for seed in seeds {
            let outcome = run(&stream, &table, grace, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(&outcome, &expected);
        }
    }
}
