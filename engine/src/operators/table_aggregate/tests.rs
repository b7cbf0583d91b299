use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::operators::stateful_bench::{Bench, Event, Sum, event, keyed};
use crate::state::testing::Number;

fn bench() -> Bench {
    let factory = table_aggregate::<String, i64, _>("sums", Arc::new(Sum), Arc::new(Number));
    Bench::new(factory, &["sums"], &[])
}

fn check(bench: &mut Bench, input: &[Event<(&str, i64)>], expected: &[Event<(&str, i64)>]) {
    let rows = bench.process(0, keyed(input)).rows::<(String, Option<i64>)>(0);
    let expected: Vec<_> =
        expected.iter().map(|e| event(e.time, e.watermark, (e.row.0.to_owned(), Some(e.row.1)))).collect();
    assert_eq!(rows, expected);
}

#[test]
fn every_record_gives_one_result_at_its_own_time() {
    check(
        &mut bench(),
        &[event(5, 1, ("a", 1)), event(3, 1, ("b", 10)), event(9, 2, ("a", 2))],
        &[event(5, 1, ("a", 1)), event(3, 1, ("b", 10)), event(9, 2, ("a", 3))],
    );
}

#[test]
fn the_keys_of_a_frame_that_are_not_in_memory_are_fetched_in_one_multi_get() {
    let mut bench = bench();
    let input = ["a", "b", "a", "c"].map(|key| event(1, 0, (key, 1i64)));
    bench.process(0, keyed(&input));
    assert_eq!(bench.multi_gets(), [3]);
    bench.commit();
    bench.restart(&mut ChaCha8Rng::seed_from_u64(1));
    bench.multi_gets();
    let input = ["d", "c", "b", "c"].map(|key| event(2, 0, (key, 1)));
    let expected = [("d", 1), ("c", 2), ("b", 2), ("c", 3)].map(|row| event(2, 0, row));
    check(&mut bench, &input, &expected);
    assert_eq!(bench.multi_gets(), [3]);
}

#[test]
fn it_goes_on_from_the_last_commit() {
    let mut bench = bench();
    check(&mut bench, &[event(1, 0, ("a", 1))], &[event(1, 0, ("a", 1))]);
    assert_eq!(bench.commit(), 1);
    check(&mut bench, &[event(2, 0, ("a", 5))], &[event(2, 0, ("a", 6))]);
    bench.restart(&mut ChaCha8Rng::seed_from_u64(1));
    check(&mut bench, &[event(2, 0, ("a", 7))], &[event(2, 0, ("a", 8))]);
}
