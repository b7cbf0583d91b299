//! The flights example answers what DuckDB answers on the same files, whatever it is run with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use lotic_log::{CleanupPolicy, Log, Topic};

use lotic_tests::failure::Result;
use lotic_tests::flights::{Csvs, DELAYS_BY_AIRLINE, DELAYS_BY_WEATHER, Input, LATE_FLIGHTS, Run};
use lotic_tests::skipped::skip;
use lotic_tests::stored::{StoredTopic, reading};
use lotic_tests::terminal::shown_on_a_terminal;
use serde_json::Value;

/// The column `flights` of the results.
const AIRLINE_FLIGHTS: usize = 3;
const WEATHER_FLIGHTS: usize = 2;

/// Runs the example over nothing and checks its answer against DuckDB's.
#[track_caller]
fn check(input: &Input, disorder: &str, workers: usize) -> Csvs {
    let folder = tempfile::tempdir().unwrap();
    let run = Run { workers, disorder: disorder.to_owned(), ..Run::new(input, folder.path()) };
    let ended = run.end().unwrap();
    ended.check_success("flights").unwrap();
    let (csvs, expected) = (Csvs::read(&run.out).unwrap(), Csvs::of_oracle(&[input], disorder).unwrap());
    csvs.check_equal(&expected, "DuckDB").unwrap();
    assert_eq!(ended.stdout, expected.printed());
    assert_eq!(ended.stderr, "", "it is no terminal");
    check_topics(&run.data, &expected);
    csvs
}

/// That the topics of the results hold what the CSVs do: under the row's first two columns, an object with its columns.
#[track_caller]
fn check_topics(data: &Path, expected: &Csvs) {
    for (result, key) in
        [(DELAYS_BY_AIRLINE, ["window_start", "carrier"]), (DELAYS_BY_WEATHER, ["origin", "visibility"])]
    {
        let topic = StoredTopic::read(data, result).unwrap();
        let mut last = topic.last_by_key().unwrap();
        for row in expected.table(result).unwrap() {
            let key = key.map(|column| row[column].as_str()).join("|");
            let value = last.remove(&*key).flatten().unwrap_or_else(|| panic!("{result} has no {key}"));
            let value: BTreeMap<String, Value> = serde_json::from_slice(value).unwrap();
            let as_csv = value.iter().map(|(column, value)| (column.clone(), in_csv(column, value)));
            assert_eq!(as_csv.collect::<BTreeMap<_, _>>(), row, "{result}, {key}");
        }
        assert_eq!(last.keys().next(), None, "{result} has keys that are not in the answer");
    }
}

/// A value of a column as it is in a CSV.
fn in_csv(column: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if column.starts_with("mean") => {
            format!("{:.2}", number.as_f64().expect("a mean"))
        }
        other => other.to_string(),
    }
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
fn reference_data_a_table_and_state_are_kept_in_compacted_topics_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(&Input::generated(500, 8, folder.path()).unwrap(), folder.path());
    run.finish().unwrap();
    let log = Log::open_read_only(&run.data, reading().unwrap()).unwrap();
    let own = log.topics().into_iter().filter(|topic| !topic.name().starts_with("__"));
    let (compacted, others): (Vec<_>, Vec<_>) =
        own.partition(|topic| topic.config().cleanup == CleanupPolicy::Compact);
    let names =
        |topics: &[Topic]| topics.iter().map(|topic| topic.name().to_owned()).collect::<BTreeSet<_>>();
    let stores = [
        "airline-names",
        DELAYS_BY_AIRLINE,
        DELAYS_BY_WEATHER,
        "weather-at-departure-versions",
        "weather-at-departure-waiting",
    ];
    let changelogs = stores.map(|store| format!("delays-{store}-changelog"));
    assert_eq!(
        names(&compacted),
        changelogs.into_iter().chain(["airlines", DELAYS_BY_WEATHER].map(str::to_owned)).collect()
    );
    let input = ["flights", "weather", "import-epochs", "delays-epochs"];
    assert_eq!(
        names(&others),
        input.into_iter().chain([DELAYS_BY_AIRLINE, LATE_FLIGHTS]).map(str::to_owned).collect()
    );
}

#[test]
fn progress_is_shown_on_a_terminal_and_taken_away_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(&Input::generated(2_000, 8, folder.path()).unwrap(), folder.path());
    let shown = shown_on_a_terminal(&run.command().unwrap()).unwrap();
    for line in ["imported 2000 flights, epoch ", "processed 2000 flights, epoch "] {
        assert!(shown.contains(&format!("\r\x1b[K{line}")), "{shown:?}");
    }
    let (progress, printed) = shown.rsplit_once("\r\x1b[K").expect("it is there");
    assert!(!progress.contains('\n'), "one line is written over and over: {shown:?}");
    let expected = Csvs::read(&run.out).unwrap().printed().replace('\n', "\r\n");
    assert_eq!(printed, expected, "nothing is left of it");
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
