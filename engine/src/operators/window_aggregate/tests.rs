use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::operators::stateful_bench::{Bench, Emitted, Event, Reader, Record, Sum, event, keyed};
use crate::state::testing::{Number, Text};

const SIZE: i64 = 10;

fn bench(grace_ms: i64) -> Bench {
    let spec = WindowSpec { size_ms: SIZE, grace_ms };
    let factory =
        window_aggregate::<String, i64, _>("sums", spec, Arc::new(Sum), Arc::new(Number), Arc::new(Text));
    Bench::new(factory, &["sums"], &[])
}

/// The results as (key, window start, sum), sorted.
fn results(emitted: &mut Emitted) -> Vec<(String, i64, i64)> {
    let mut results = Vec::new();
    for Event { time, watermark, row: (window, sum) } in emitted.rows::<(Windowed<String>, i64)>(RESULTS) {
        assert_eq!(window.end.0, window.start.0 + SIZE);
        assert_eq!((time, watermark), (window.end.0 - 1, window.end.0 - 2), "it happens at the window's end");
        results.push((window.key, window.start.0, sum));
    }
    results.sort();
    results
}

fn check(mut emitted: Emitted, expected: &[(&str, i64, i64)]) {
    let expected: Vec<_> =
        expected.iter().map(|(key, start, sum)| ((*key).to_owned(), *start, *sum)).collect();
    assert_eq!(results(&mut emitted), expected);
}

fn add(bench: &mut Bench, events: &[Event<(&str, i64)>]) {
    assert!(bench.process(0, keyed(events)).is_empty());
}

#[test]
fn a_window_emits_once_when_the_watermark_reaches_its_end() {
    let mut bench = bench(0);
    add(
        &mut bench,
        &[event(0, -9, ("a", 1)), event(9, 0, ("a", 2)), event(10, 1, ("a", 4)), event(3, 1, ("b", 8))],
    );
    let emitted = bench.advance(0, None, 9);
    assert_eq!(emitted.watermarks, [9]);
    check(emitted, &[]);
    check(bench.advance(0, None, 10), &[("a", 0, 3), ("b", 0, 8)]);
    check(bench.advance(0, None, 19), &[]);
    check(bench.advance(0, None, 20), &[("a", 10, 4)]);
    check(bench.end(), &[]);
    bench.commit();
    assert_eq!(bench.stored("sums"), 0, "closed windows take no room");
}

#[test]
fn a_window_waits_for_its_grace_and_holds_the_watermark_back() {
    let mut bench = bench(5);
    add(&mut bench, &[event(0, -9, ("a", 1))]);
    let emitted = bench.advance(0, None, 14);
    assert_eq!(emitted.watermarks, [9]);
    check(emitted, &[]);
    add(&mut bench, &[event(0, 14, ("a", 2))]);
    check(bench.advance(0, None, 15), &[("a", 0, 3)]);
}

#[test]
fn the_windows_of_a_frame_that_are_not_in_memory_are_fetched_in_one_multi_get() {
    let mut bench = bench(0);
    // Several records in a window, and two windows of a key.
    let frame = |key| [event(1, 0, (key, 1)), event(2, 0, (key, 2)), event(11, 0, (key, 4))];
    let events = ["a", "b", "c"].map(frame).concat();
    add(&mut bench, &events);
    add(&mut bench, &events);
    assert_eq!(bench.multi_gets(), [0usize; 0], "nothing can be stored, and then they are in memory");
    bench.commit();
    bench.restart(&mut ChaCha8Rng::seed_from_u64(1));
    bench.multi_gets();
    add(&mut bench, &[&events[..], &frame("d")].concat());
    assert_eq!(bench.multi_gets(), [6], "nothing of the group of the new key is stored");
    check(bench.advance(0, None, 10), &[("a", 0, 9), ("b", 0, 9), ("c", 0, 9), ("d", 0, 3)]);
}

#[test]
fn times_before_1970_have_windows_too() {
    let mut bench = bench(0);
    add(&mut bench, &[event(-1, -20, ("a", 1)), event(-10, -20, ("a", 2)), event(-11, -20, ("a", 4))]);
    check(bench.advance(0, None, -10), &[("a", -20, 4)]);
    check(bench.advance(0, None, 0), &[("a", -10, 3)]);
}

#[test]
fn a_record_is_late_by_its_own_watermark_alone() {
    let mut bench = bench(5);
    // The step's watermark is far behind, as when another partition is slow.
    bench.advance(0, None, -100);
    let batch = keyed(&[
        event(1, 14, ("a", 1i64)),
        event(2, 15, ("a", 2)),
        event(12, 15, ("a", 4)),
        event(3, 90, ("b", 8)),
    ]);
    let late: Vec<Event<(String, i64)>> = bench.process(0, batch).rows(LATE);
    assert_eq!(late, [event(2, 15, ("a".to_owned(), 2)), event(3, 90, ("b".to_owned(), 8))]);
    assert_eq!(bench.counters.late.get(), 2);
    check(bench.end(), &[("a", 0, 1), ("a", 10, 4)]);
}

#[test]
fn an_end_emits_what_is_open_and_closes_nothing() {
    let mut bench = bench(0);
    add(
        &mut bench,
        &[event(1, 0, ("a", 1)), event(11, 0, ("a", 2)), event(2, 0, ("b", 3)), event(4, 0, ("c", 4))],
    );
    check(bench.end(), &[("a", 0, 1), ("a", 10, 2), ("b", 0, 3), ("c", 0, 4)]);
    bench.commit();
    check(bench.end(), &[]);
    assert_eq!(bench.commit(), 0, "an end that changes nothing writes nothing");
    bench.restart(&mut ChaCha8Rng::seed_from_u64(3));
    check(bench.end(), &[]);
    // Input goes on: a changed window emits again, an unchanged one stays silent.
    add(&mut bench, &[event(2, 1, ("a", 5))]);
    check(bench.advance(0, None, 10), &[("a", 0, 6)]);
    add(&mut bench, &[event(13, 10, ("a", 5))]);
    check(bench.end(), &[("a", 10, 7)]);
    check(bench.advance(0, None, 20), &[]);
    bench.commit();
    assert_eq!(bench.stored("sums"), 0);
}

#[test]
fn what_one_partition_promises_closes_nothing() {
    let mut bench = bench(0);
    add(&mut bench, &[event(1, 0, ("a", 1))]);
    let emitted = bench.advance(0, Some(0), 50);
    assert!(emitted.watermarks.is_empty());
    check(emitted, &[]);
}

#[test]
fn many_windows_close_frame_by_frame() {
    let mut bench = bench(0);
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    for time in [3, 12, 24] {
        let events: Vec<_> = keys.iter().map(|key| event(time, 0, (key.as_str(), time))).collect();
        add(&mut bench, &events);
        if time == 12 {
            bench.commit();
        }
    }
    // The bench checks that no frame is larger than it may be.
    assert_eq!(results(&mut bench.advance(0, None, 20)).len(), 40);
    assert_eq!(results(&mut bench.end()).len(), 20);
    assert_eq!(results(&mut bench.advance(0, None, 90)).len(), 0);
}

fn records() -> impl Strategy<Value = Vec<Vec<Record<i64>>>> {
    let record = (0..120i64, 0..4u8, 1..100i64);
    let record = record.prop_map(|(time, key, value)| Record { time, key: format!("key {key}"), value });
    prop::collection::vec(prop::collection::vec(record, 0..25), 1..4)
}

type Sums = Vec<(String, i64, i64)>;

/// What the results and the late records must be, from the records alone.
fn naive(reader: &Reader<i64>, grace: i64) -> (Sums, Sums) {
    let mut sums = BTreeMap::new();
    let mut late = Vec::new();
    for (Record { time, key, value }, watermark) in reader.naive() {
        let start = time / SIZE * SIZE;
        if watermark >= start + SIZE + grace {
            late.push((key, time, value));
        } else {
            *sums.entry((key, start)).or_default() += value;
        }
    }
    late.sort();
    (sums.into_iter().map(|((key, start), sum)| (key, start, sum)).collect(), late)
}

/// Reads in a random order, with commits and crashes, and gives what came out for good.
fn run(reader: &Reader<i64>, grace: i64, random: &mut ChaCha8Rng) -> (Sums, Sums) {
    let mut bench = bench(grace);
    let mut reader = reader.clone();
    let (mut sums, mut late) = (Vec::new(), Vec::new());
    let mut committed = (reader.clone(), sums.clone(), late.clone());
    loop {
        let mut emitted = Emitted::default();
        let ended = match reader.read(0, random) {
            Some((_, batch)) => {
                emitted.append(bench.process(0, batch));
                if random.random_bool(0.6) {
                    emitted.append(bench.advance(0, None, reader.whole_watermark()));
                }
                false
            }
            None => {
                emitted.append(bench.end());
                true
            }
        };
        sums.append(&mut results(&mut emitted));
        late.extend(emitted.rows::<(String, i64)>(LATE).into_iter().map(|e| (e.row.0, e.time, e.row.1)));
        if ended || random.random_bool(0.15) {
            bench.commit();
            committed = (reader.clone(), sums.clone(), late.clone());
        }
        if ended {
            break;
        }
        if random.random_bool(0.1) {
            bench.restart(random);
            (reader, sums, late) = committed.clone();
            // What the watermark has passed already and is not emitted yet comes now.
            sums.append(&mut results(&mut bench.advance(0, None, reader.whole_watermark())));
        }
    }
    sums.sort();
    late.sort();
    (sums, late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_order_of_reading_gives_the_same(
        records in records(), disorder in 0..30i64, grace in 0..8i64, seeds in any::<[u64; 2]>(),
    ) {
        let reader = Reader::new(records, disorder);
        let expected = naive(&reader, grace);
        for seed in seeds {
            prop_assert_eq!(&run(&reader, grace, &mut ChaCha8Rng::seed_from_u64(seed)), &expected);
        }
    }
}

#[test]
fn the_windows_that_a_frame_takes_are_found_in_one_pass_whatever_their_groups() {
    let mut bench = bench(0);
    let keys: Vec<_> = (0..20).map(|key| format!("key {key}")).collect();
    let events = |time| keys.iter().map(|key| event(time, 0, (key.as_str(), 1))).collect::<Vec<_>>();
    add(&mut bench, &events(3));
    bench.commit();
    bench.scans();
    assert_eq!(results(&mut bench.advance(0, None, 10)).len(), keys.len());
    // The frames of this bench have three rows.
    assert_eq!(bench.scans().len(), 7);
    add(&mut bench, &events(13));
    bench.commit();
    let before = bench.visited();
    assert_eq!(results(&mut bench.end()).len(), keys.len());
    assert_eq!(bench.scans().len(), 7);
    let visited = bench.visited() - before;
    assert!((keys.len()..2 * keys.len()).contains(&visited), "{visited} rows for {} windows", keys.len());
}

#[test]
fn windows_that_are_closed_are_not_passed_over_again() {
    const KEYS: usize = 600;
    let of_one_group = |key: &String| KeyGroup::of_hash(murmur2(key.as_bytes()) as u32) == KeyGroup(7);
    let keys: Vec<String> = (0..).map(|key: u32| key.to_string()).filter(of_one_group).take(KEYS).collect();
    let events: Vec<_> = keys.iter().map(|key| event(3, 0, (key.as_str(), 1))).collect();
    let mut bench = bench(0);
    add(&mut bench, &events);
    bench.commit();
    let before = bench.visited();
    assert_eq!(results(&mut bench.advance(0, None, 10)).len(), KEYS);
    let visited = bench.visited() - before;
    assert!((KEYS..3 * KEYS).contains(&visited), "{visited} rows for {KEYS} windows");
}

#[test]
fn a_window_that_is_opened_while_others_close_is_found() {
    let of_one_group = |key: &String| KeyGroup::of_hash(murmur2(key.as_bytes()) as u32) == KeyGroup(7);
    let keys: Vec<String> = (0..).map(|key: u32| key.to_string()).filter(of_one_group).take(20).collect();
    let (early, late) = keys.split_at(10);
    let mut bench = bench(0);
    for time in [3, 13] {
        add(&mut bench, &late.iter().map(|key| event(time, 0, (key.as_str(), 1))).collect::<Vec<_>>());
    }
    bench.commit();
    let mut emitted = bench.advance_once(0, None, 20).1;
    assert_eq!(results(&mut emitted).len(), 3);
    // In time by their own partition, which the step's watermark does not know to be so far.
    for time in [3, 13, 23] {
        add(&mut bench, &early.iter().map(|key| event(time, 0, (key.as_str(), 1))).collect::<Vec<_>>());
    }
    assert_eq!(results(&mut bench.advance(0, None, 20)).len(), 7 + 10 + 20);
    assert_eq!(results(&mut bench.advance(0, None, 30)).len(), 10);
    bench.commit();
    assert_eq!(bench.stored("sums"), 0);
}
