//! The flights example answers what DuckDB answers on the same files, whatever it is run with.

use std::fs;
use std::path::Path;

use lotic_tests::failure::Result;
use lotic_tests::flights::{Csvs, DELAYS_BY_AIRLINE, DELAYS_BY_WEATHER, Input, LATE_FLIGHTS, Run};
use lotic_tests::skipped::skip;

/// The column `flights` of the results.
const AIRLINE_FLIGHTS: usize = 3;
const WEATHER_FLIGHTS: usize = 2;

/// Runs the example over nothing and checks its answer against DuckDB's.
#[track_caller]
fn check(input: &Input, disorder: &str, workers: usize) -> Csvs {
    let folder = tempfile::tempdir().unwrap();
    let run = Run { workers, disorder: disorder.to_owned(), ..Run::new(input, folder.path()) };
    let csvs = run.finish().unwrap();
    csvs.check_equal(&Csvs::of_oracle(&[input], disorder).unwrap(), "DuckDB").unwrap();
    csvs
}

/// Another month: February of the real year, or a made-up one where that cannot be downloaded.
fn another_month(folder: &Path) -> Result<Input> {
    Input::month(2, folder).or_else(|failure| {
        skip("another_month_is_what_duckdb_says_it_is", &format!("with a made-up one instead: {failure}"))?;
        Input::generated(25_000, 2, folder)
    })
}

/// A made-up month in two parts, one behind the other.
fn two_halves(folder: &Path) -> Result<(Input, Input)> {
    Input::generated(25_000, 5, folder)?.cut_at("2013-01-14T05:00:00Z", folder)
}

#[test]
fn january_is_what_duckdb_says_it_is() {
    let csvs = check(&Input::january(), "30h", 1);
    assert_eq!(csvs.rows(DELAYS_BY_AIRLINE).count(), 5_133);
    assert_eq!(csvs.sum(DELAYS_BY_AIRLINE, AIRLINE_FLIGHTS).unwrap(), 27_004);
    assert_eq!(csvs.rows(DELAYS_BY_WEATHER).count(), 9);
    assert_eq!(csvs.sum(DELAYS_BY_WEATHER, WEATHER_FLIGHTS).unwrap(), 26_483);
    assert_eq!(csvs.rows(LATE_FLIGHTS).count(), 0);
}

#[test]
fn flights_are_late_by_their_own_partition_whatever_the_number_of_workers() {
    for workers in [1, 2, 4] {
        let csvs = check(&Input::january(), "6h", workers);
        assert_eq!(csvs.rows(LATE_FLIGHTS).count(), 7_981, "{workers} workers");
    }
}

#[test]
fn another_month_is_what_duckdb_says_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let month = another_month(folder.path()).unwrap();
    check(&month, "30h", 2);
    check(&month, "2h", 2);
}

#[test]
fn the_length_of_an_epoch_changes_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let input = Input::generated(8_000, 3, folder.path()).unwrap();
    let expected = Csvs::of_oracle(&[&input], "3h").unwrap();
    for epoch in ["1ms", "10s"] {
        let run = Run {
            epoch: epoch.to_owned(),
            disorder: "3h".to_owned(),
            workers: 2,
            ..Run::new(&input, &folder.path().join(epoch))
        };
        run.finish().unwrap().check_equal(&expected, "DuckDB").unwrap();
    }
}

#[test]
fn one_month_and_then_another_are_both_at_once() {
    let folder = tempfile::tempdir().unwrap();
    match Input::month(2, folder.path()) {
        Ok(february) => check_one_after_the_other(&Input::january(), &february),
        Err(failure) => {
            let why =
                format!("February cannot be had, the halves of a made-up month stand in for it: {failure}");
            skip("one_month_and_then_another_are_both_at_once", &why).unwrap();
        }
    }
}

#[test]
fn one_half_of_a_month_and_then_the_other_are_both_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = two_halves(folder.path()).unwrap();
    check_one_after_the_other(&one, &other);
}

/// That both inputs at once give what DuckDB says, and one after the other the same.
#[track_caller]
fn check_one_after_the_other(one: &Input, other: &Input) {
    for disorder in ["30h", "6h"] {
        let folder = tempfile::tempdir().unwrap();
        let both = one.joined(other, &folder.path().join("both")).unwrap();
        let at_once =
            Run { disorder: disorder.to_owned(), ..Run::new(&both, &folder.path().join("at once")) };
        let expected = at_once.finish().unwrap();
        expected.check_equal(&Csvs::of_oracle(&[&both], disorder).unwrap(), "DuckDB").unwrap();

        let first = Run { disorder: disorder.to_owned(), ..Run::new(one, folder.path()) };
        let then = Run { input: other.clone(), workers: 2, ..first.clone() };
        first.finish().unwrap().check_equal(&Csvs::of_oracle(&[one], disorder).unwrap(), "DuckDB").unwrap();
        then.finish().unwrap().check_equal(&expected, "both at once").unwrap();
    }
}

#[test]
fn a_file_that_has_grown_is_read_on_behind_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Input::generated(5_000, 4, &folder.path().join("whole")).unwrap();
    let text = fs::read_to_string(&whole.flights).unwrap();
    let half = text.match_indices('\n').nth(2_500).map(|(end, _)| end + 1).expect("it has 5,000 lines");
    let growing = Input { flights: folder.path().join("flights.csv"), ..whole.clone() };
    let run = Run::new(&growing, folder.path());

    fs::write(&growing.flights, &text[..half]).unwrap();
    run.finish().unwrap().check_equal(&Csvs::of_oracle(&[&growing], "30h").unwrap(), "DuckDB").unwrap();
    fs::write(&growing.flights, &text).unwrap();
    run.finish().unwrap().check_equal(&Csvs::of_oracle(&[&whole], "30h").unwrap(), "DuckDB").unwrap();
}
