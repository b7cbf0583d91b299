use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::operators::stateful_bench::{Bench, Event, event, keyed};
use crate::state::testing::Text;

/// Emits what the table says of the key, and nothing for numbers below zero.
fn bench() -> Bench {
    let join = |key: &String, number: i64, row: Option<&String>| {
        let said = row.map_or("-", |row| row.as_str());
        (number >= 0).then(|| format!("{key} {number} {said}"))
    };
    Bench::new(join_newest::<String, i64, String, String>("names", Arc::new(Text), join), &["names"], &[])
}

fn tell(bench: &mut Bench, key: &str, row: Option<&str>) {
    let emitted = bench.process(1, keyed(&[event(0, 0, (key, row.map(str::to_owned)))]));
    assert!(emitted.is_empty());
}

fn check(bench: &mut Bench, input: &[Event<(&str, i64)>], expected: &[(i64, &str)]) {
    let rows = bench.process(0, keyed(input)).rows::<(String, String)>(0);
    let rows: Vec<_> = rows.iter().map(|event| (event.time, event.row.1.as_str())).collect();
    assert_eq!(rows, expected);
}

#[test]
fn a_record_meets_what_the_table_holds_now() {
    let mut bench = bench();
    check(&mut bench, &[event(9, 0, ("a", 1))], &[(9, "a 1 -")]);
    tell(&mut bench, "a", Some("one"));
    tell(&mut bench, "b", Some("two"));
    check(&mut bench, &[event(3, 0, ("a", 1)), event(4, 0, ("c", 2))], &[(3, "a 1 one"), (4, "c 2 -")]);
    tell(&mut bench, "a", Some("three"));
    check(&mut bench, &[event(3, 0, ("a", 1))], &[(3, "a 1 three")]);
    tell(&mut bench, "a", None);
    check(&mut bench, &[event(3, 0, ("a", 1))], &[(3, "a 1 -")]);
}

#[test]
fn what_the_join_makes_nothing_of_is_left_out_with_its_columns() {
    let input =
        [event(1, 0, ("a", -1)), event(2, 0, ("b", 5)), event(3, 0, ("c", -1)), event(4, 0, ("d", 6))];
    check(&mut bench(), &input, &[(2, "b 5 -"), (4, "d 6 -")]);
    check(&mut bench(), &[event(1, 0, ("a", -1))], &[]);
}

#[test]
fn the_table_is_as_it_was_committed_after_a_restart() {
    let mut bench = bench();
    tell(&mut bench, "a", Some("one"));
    bench.commit();
    tell(&mut bench, "a", None);
    bench.restart(&mut ChaCha8Rng::seed_from_u64(1));
    check(&mut bench, &[event(3, 0, ("a", 1))], &[(3, "a 1 one")]);
}

#[test]
fn the_keys_of_a_frame_that_are_not_in_memory_are_fetched_in_one_multi_get() {
    let mut bench = bench();
    tell(&mut bench, "a", Some("one"));
    tell(&mut bench, "b", Some("one"));
    bench.commit();
    bench.restart(&mut ChaCha8Rng::seed_from_u64(1));
    bench.multi_gets();
    let input = ["a", "b", "c", "b"].map(|key| event(3, 0, (key, 1)));
    check(&mut bench, &input, &[(3, "a 1 one"), (3, "b 1 one"), (3, "c 1 -"), (3, "b 1 one")]);
    assert_eq!(bench.multi_gets(), [3]);
    check(&mut bench, &input[..1], &[(3, "a 1 one")]);
    assert_eq!(bench.multi_gets(), [0usize; 0], "it is in memory");
}

#[test]
fn only_the_stream_moves_the_watermark() {
    let mut bench = bench();
    assert!(bench.advance(1, None, 5).watermarks.is_empty());
    assert_eq!(bench.advance(0, None, 7).watermarks, [7]);
}
