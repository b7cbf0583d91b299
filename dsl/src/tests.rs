//! Flows, rows in, rows out.

use lotic_log::batch::{BatchBuilder, Compression};

use crate::prelude::*;
use crate::{EngineOptions, Error, ErrorKind, Record, Result};

const MINUTE: i64 = 60_000;

/// A reading of a sensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    sensor: String,
    at: i64,
    value: i64,
}

fn reading(sensor: &str, at: i64, value: i64) -> Reading {
    Reading { sensor: sensor.to_owned(), at, value }
}

fn readings(flow: &mut Flow, lateness: Lateness) -> Stream<Reading> {
    flow.topic::<Reading>("readings").event_time(|reading| reading.at, lateness)
}

fn driver_with(flow: Flow, readings: &[Reading]) -> Result<TestDriver> {
    let mut driver = TestDriver::new(flow)?;
    readings.iter().try_for_each(|reading| driver.send("readings", reading))?;
    Ok(driver)
}

/// What a topic holds, in order.
fn sorted<K: crate::Value + Ord, V: crate::Value + Ord>(
    driver: &mut TestDriver,
    topic: &str,
) -> Result<Vec<(K, V)>> {
    let mut rows = driver.rows::<K, V>(topic)?;
    rows.sort();
    Ok(rows)
}

fn pair(key: &str, value: i64) -> (String, i64) {
    (key.to_owned(), value)
}

fn refusal<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error,
    }
}

#[test]
fn rows_are_mapped_filtered_and_multiplied_in_order() -> Result<()> {
    let mut flow = Flow::new("numbers");
    flow.topic::<i64>("numbers")
        .record_time(Lateness::none())
        .filter(|number| number % 2 == 0)
        .flat_map(|number| [number, number * 10])
        .map(|number| number + 1)
        .to("results");
    let mut driver = TestDriver::new(flow)?;
    (1..=4).try_for_each(|number: i64| driver.send("numbers", &number))?;
    driver.run()?;
    assert_eq!(driver.values::<i64>("results")?, [3, 21, 5, 41]);
    Ok(())
}

#[test]
fn a_window_answers_once_it_is_over_and_not_before() -> Result<()> {
    let mut flow = Flow::new("sums");
    readings(&mut flow, Lateness::bounded(10.secs()))
        .key_by(|reading| reading.sensor.clone())
        .window(Tumbling::of(1.minute()))
        .aggregate("sums", sum(|reading: &Reading| reading.value))
        .to("sums");
    let mut driver = driver_with(flow, &[reading("a", 0, 1), reading("b", MINUTE - 1, 2)])?;
    driver.send("readings", &reading("a", MINUTE + 9_999, 4))?;
    driver.run()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "sums")?, []);
    driver.send("readings", &reading("a", 500, 8))?;
    driver.send("readings", &reading("a", MINUTE + 10_000, 16))?;
    driver.run()?;
    let first = "1970-01-01T00:00:00Z";
    assert_eq!(
        sorted::<String, i64>(&mut driver, "sums")?,
        [pair(&format!("{first}|a"), 9), pair(&format!("{first}|b"), 2)]
    );
    driver.end()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "sums")?, [pair("1970-01-01T00:01:00Z|a", 20)]);
    Ok(())
}

/// What windows say of two partitions of which one gives nothing any more: before ten seconds have passed without
/// it, and after. A row that comes from it then is in `late`.
fn windows_with_a_silent_partition(idle_after: Option<Duration>) -> Result<[Vec<(String, i64)>; 2]> {
    let mut flow = Flow::new("sums");
    let mut topic = flow.topic::<Reading>("readings").partitions(2);
    if let Some(timeout) = idle_after {
        topic = topic.idle_after(timeout);
    }
    let sums = topic
        .event_time(|reading| reading.at, Lateness::none())
        .key_by(|reading| reading.sensor.clone())
        .window(Tumbling::of(1.minute()))
        .aggregate("sums", sum(|reading: &Reading| reading.value));
    sums.to("sums");
    sums.late().values().to("late");
    let mut driver = TestDriver::new(flow)?;
    let send = |driver: &mut TestDriver, partition: i32, row: Reading| {
        let name = (0..).map(|number| number.to_string()).find(|name| {
            lotic_log::partition_for_key(name.as_bytes(), 2) == lotic_log::PartitionId(partition)
        });
        driver.send_keyed("readings", &name.expect("some name is placed there"), &row, Timestamp(0))
    };
    send(&mut driver, 0, reading("a", 0, 1))?;
    send(&mut driver, 1, reading("a", 1, 2))?;
    driver.run()?;
    driver.advance(9.secs());
    send(&mut driver, 0, reading("a", MINUTE, 4))?;
    driver.run()?;
    let before = sorted::<String, i64>(&mut driver, "sums")?;
    driver.advance(2.secs());
    send(&mut driver, 0, reading("a", MINUTE + 1, 8))?;
    driver.run()?;
    send(&mut driver, 1, reading("a", 2, 16))?;
    driver.run()?;
    let late = driver.values::<Reading>("late")?;
    assert_eq!(late.len(), usize::from(idle_after.is_some()), "{late:?}");
    Ok([before, sorted::<String, i64>(&mut driver, "sums")?])
}

#[test]
fn a_partition_that_is_idle_for_long_enough_holds_windows_back_no_longer() -> Result<()> {
    assert_eq!(windows_with_a_silent_partition(None)?, [vec![], vec![]]);
    let closed = pair("1970-01-01T00:00:00Z|a", 3);
    assert_eq!(windows_with_a_silent_partition(Some(10.secs()))?, [vec![], vec![closed]]);
    Ok(())
}

#[test]
fn a_late_row_comes_out_of_the_late_output_and_nowhere_else() -> Result<()> {
    let mut flow = Flow::new("sums");
    let sums = readings(&mut flow, Lateness::none())
        .key_by(|reading| reading.sensor.clone())
        .window(Tumbling::of(1.minute()).grace(5.secs()))
        .aggregate("sums", sum(|reading: &Reading| reading.value));
    sums.to("sums");
    sums.late().values().to("late").header("step", |_, _| "sums");
    let in_time = reading("a", 1, 2);
    let late = reading("a", MINUTE - 1, 4);
    let rows = [
        reading("a", 0, 1),
        reading("b", MINUTE + 4_999, 8),
        in_time,
        reading("b", MINUTE + 5_000, 16),
        late.clone(),
    ];
    let mut driver = driver_with(flow, &rows)?;
    driver.end()?;
    let records = driver.records("late")?;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].headers[0].key, "step");
    assert_eq!(records[0].headers[0].value.as_deref(), Some(&b"sums"[..]));
    assert_eq!(records[0].timestamp, Some(Timestamp(late.at)));
    let value = records[0].value.as_deref().expect("a late row is written with its value");
    assert_eq!(serde_json::from_slice::<Reading>(value).expect("JSON"), late);
    let sums = sorted::<String, i64>(&mut driver, "sums")?;
    assert_eq!(sums, [pair("1970-01-01T00:00:00Z|a", 3), pair("1970-01-01T00:01:00Z|b", 24)]);
    Ok(())
}

#[test]
fn input_that_goes_on_after_an_end_finds_its_windows_open() -> Result<()> {
    let mut flow = Flow::new("counts");
    readings(&mut flow, Lateness::none())
        .key_by(|reading| reading.sensor.clone())
        .window(Tumbling::of(1.minute()))
        .aggregate("counts", count())
        .to("counts");
    let mut driver = driver_with(flow, &[reading("a", 0, 1)])?;
    driver.end()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "counts")?, [pair("1970-01-01T00:00:00Z|a", 1)]);
    driver.end()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "counts")?, [], "an unchanged window stays silent");
    driver.send("readings", &reading("a", 1, 1))?;
    driver.end()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "counts")?, [pair("1970-01-01T00:00:00Z|a", 2)]);
    Ok(())
}

#[test]
fn a_table_changes_with_every_row_and_its_topic_gets_the_last_of_what_comes_together() -> Result<()> {
    let mut flow = Flow::new("totals");
    let totals = readings(&mut flow, Lateness::none())
        .key_by(|reading| reading.sensor.clone())
        .aggregate("totals", (count(), max(|reading: &Reading| reading.value)))
        .map(|_, (count, max)| (count, max.unwrap_or_default()));
    totals.to("totals");
    totals.changes().map(|_, change| change.unwrap_or_default()).to("changes");
    let rows = [reading("a", 0, 5), reading("b", 0, 1), reading("a", 0, 3)];
    let mut driver = driver_with(flow, &rows)?;
    driver.run()?;
    let named = |rows: &[(&str, (u64, i64))]| -> Vec<(String, (u64, i64))> {
        rows.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
    };
    let changes = [("a", (1, 5)), ("a", (2, 5)), ("b", (1, 1))];
    assert_eq!(sorted::<String, (u64, i64)>(&mut driver, "changes")?, named(&changes));
    assert_eq!(sorted::<String, (u64, i64)>(&mut driver, "totals")?, named(&changes[1..]));
    driver.send("readings", &reading("a", 0, 9))?;
    driver.run()?;
    assert_eq!(sorted::<String, (u64, i64)>(&mut driver, "totals")?, named(&[("a", (3, 9))]));
    Ok(())
}

/// A flow that joins readings with a table of factors.
fn factors(join: impl Fn(&KeyedStream<String, Reading>, &Table<String, i64>)) -> Flow {
    let mut flow = Flow::new("scaled");
    let factors = flow.table::<String, i64>("factors").partitions(3).record_time(Lateness::none());
    let readings = readings(&mut flow, Lateness::none()).key_by(|reading| reading.sensor.clone());
    join(&readings, &factors);
    flow
}

#[test]
fn a_join_as_of_event_time_sees_the_table_as_it_was() -> Result<()> {
    let flow = factors(|readings, factors| {
        let scaled = readings.join_as_of("scale", factors, |_, reading, factor| reading.value * factor);
        scaled.to("scaled");
    });
    let mut driver = TestDriver::new(flow)?;
    let rows = [(5, 1), (10, 1), (19, 1), (20, 1), (25, 1)];
    rows.into_iter().try_for_each(|(at, value)| driver.send("readings", &reading("a", at, value)))?;
    driver.run()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "scaled")?, [], "the table's past is not known yet");
    for (at, factor) in [(10, 2_i64), (20, 3), (24, 4)] {
        driver.send_keyed("factors", &"a".to_string(), &factor, Timestamp(at))?;
    }
    driver.run()?;
    let known = [pair("a", 2), pair("a", 2), pair("a", 3)];
    assert_eq!(sorted::<String, i64>(&mut driver, "scaled")?, known);
    driver.end()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "scaled")?, [pair("a", 4)], "an end is the last word");
    Ok(())
}

#[test]
fn a_left_join_keeps_rows_that_the_table_lacks() -> Result<()> {
    let flow = factors(|readings, factors| {
        let scale = |_: &String, reading: Reading, factor: Option<&i64>| {
            reading.value * factor.copied().unwrap_or(100)
        };
        readings.left_join_as_of("as-of", factors, scale).to("as-of");
        readings.left_join_newest("newest", factors, scale).to("newest");
        readings.join_newest("inner", factors, |_, reading, factor| reading.value * factor).to("inner");
    });
    let mut driver = TestDriver::new(flow)?;
    driver.send_keyed("factors", &"a".to_string(), &7_i64, Timestamp(1))?;
    driver.run()?;
    driver.send("readings", &reading("a", 2, 1))?;
    driver.send("readings", &reading("b", 2, 1))?;
    driver.end()?;
    let both = [pair("a", 7), pair("b", 100)];
    assert_eq!(sorted::<String, i64>(&mut driver, "as-of")?, both);
    assert_eq!(sorted::<String, i64>(&mut driver, "newest")?, both);
    assert_eq!(sorted::<String, i64>(&mut driver, "inner")?, [pair("a", 7)]);
    Ok(())
}

#[test]
fn a_deletion_takes_a_key_out_of_a_table() -> Result<()> {
    let flow = factors(|readings, factors| {
        readings.join_as_of("scale", factors, |_, reading, factor| reading.value * factor).to("scaled");
    });
    let mut driver = TestDriver::new(flow)?;
    driver.send_keyed("factors", &"a".to_string(), &7_i64, Timestamp(1))?;
    let deletion = Record { key: Some("a".into()), timestamp: Some(Timestamp(10)), ..Record::default() };
    driver.send_record("factors", deletion)?;
    driver.send("readings", &reading("a", 9, 1))?;
    driver.send("readings", &reading("a", 10, 1))?;
    driver.end()?;
    assert_eq!(sorted::<String, i64>(&mut driver, "scaled")?, [pair("a", 7)]);
    Ok(())
}

#[test]
fn reference_data_is_there_before_the_first_row() -> Result<()> {
    let mut flow = Flow::new("named");
    let names = flow.reference_table::<String, String>("names");
    readings(&mut flow, Lateness::none())
        .key_by(|reading| reading.sensor.clone())
        .left_join("name", &names, |_, reading, name| (name.cloned().unwrap_or_default(), reading.value))
        .to("named");
    let mut driver = driver_with(flow, &[reading("a", 0, 1), reading("b", 0, 2)])?;
    driver.send_keyed("names", &"a".to_string(), &"Ada".to_string(), Timestamp(i64::MAX))?;
    driver.end()?;
    let named = sorted::<String, (String, i64)>(&mut driver, "named")?;
    assert_eq!(named, [("a".into(), ("Ada".into(), 1)), ("b".into(), (String::new(), 2))]);
    Ok(())
}

#[test]
fn results_of_windows_join_by_their_key_alone_and_aggregate_by_window() -> Result<()> {
    let mut flow = Flow::new("windows");
    let names = flow.reference_table::<String, String>("names");
    let counts = readings(&mut flow, Lateness::none())
        .key_by(|reading| reading.sensor.clone())
        .window(Tumbling::of(1.minute()))
        .aggregate("counts", count());
    let named = counts
        .by_key()
        .join("name", &names, |_, (window, count), name| (name.clone(), window.start.0, count));
    named.to("named");
    counts.aggregate("again", count()).to("again");
    let mut driver =
        driver_with(flow, &[reading("a", 0, 1), reading("a", MINUTE, 1), reading("a", MINUTE, 1)])?;
    driver.send_keyed("names", &"a".to_string(), &"Ada".to_string(), Timestamp(0))?;
    driver.end()?;
    let named = sorted::<String, (String, i64, i64)>(&mut driver, "named")?;
    assert_eq!(named, [("a".into(), ("Ada".into(), 0, 1)), ("a".into(), ("Ada".into(), MINUTE, 2))]);
    let again = [pair("1970-01-01T00:00:00Z|a", 1), pair("1970-01-01T00:01:00Z|a", 1)];
    assert_eq!(sorted::<String, i64>(&mut driver, "again")?, again);
    Ok(())
}

#[test]
fn a_crash_loses_and_repeats_nothing() -> Result<()> {
    let mut flow = Flow::new("totals");
    readings(&mut flow, Lateness::none())
        .key_by(|reading| reading.sensor.clone())
        .aggregate("totals", sum(|reading: &Reading| reading.value))
        .to("totals");
    let options = EngineOptions { workers: 2, ..EngineOptions::default() };
    let mut driver = TestDriver::with_options(flow, options)?;
    for round in 0..3 {
        driver.send("readings", &reading("a", round, 1))?;
        driver.send("readings", &reading("b", round, 10))?;
        driver.run()?;
        driver.crash()?;
    }
    let totals = sorted::<String, i64>(&mut driver, "totals")?;
    let expected = [("a", 1), ("a", 2), ("a", 3), ("b", 10), ("b", 20), ("b", 30)];
    assert_eq!(totals, expected.map(|(key, total)| pair(key, total)));
    Ok(())
}

#[test]
fn bad_records_stop_a_flow_or_are_skipped_or_go_elsewhere() -> Result<()> {
    let flow = |policy: BadRecords| {
        let mut flow = Flow::new("numbers");
        flow.topic::<i64>("numbers").bad_records(policy).record_time(Lateness::none()).to("results");
        flow
    };
    let run = |policy: BadRecords| {
        let mut driver = TestDriver::new(flow(policy))?;
        driver.send("numbers", &1_i64)?;
        driver.send("numbers", &"two".to_string())?;
        driver.send("numbers", &3_i64)?;
        driver.run().map(|()| driver)
    };
    let error = refusal(run(BadRecords::Fail));
    assert_eq!(error.kind(), ErrorKind::Decode);
    for part in ["numbers-0", "offset 1"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(run(BadRecords::Skip)?.values::<i64>("results")?, [1, 3]);
    let mut driver = run(BadRecords::dead_letter("bad-numbers"))?;
    assert_eq!(driver.values::<i64>("results")?, [1, 3]);
    assert_eq!(driver.values::<String>("bad-numbers")?, ["two"]);
    Ok(())
}

#[test]
fn a_program_that_cannot_be_is_refused_with_all_that_is_wrong() {
    let mut flow = Flow::new("wrong name");
    let stream = readings(&mut flow, Lateness::none());
    readings(&mut flow, Lateness::none()).to("out").partitions(2);
    let keyed = stream.key_by(|reading| reading.sensor.clone());
    let _ = keyed.aggregate("sums", count());
    let _ = keyed.aggregate("sums", count());
    let _ = keyed.aggregate("..", count());
    keyed.to("no good");
    keyed.to("__consumer_offsets");
    keyed.to("none").partitions(0);
    let table = flow.table::<String, i64>("table").keys(Json).record_time(Lateness::none());
    keyed.join_newest("joined", &table, |_, _, factor| *factor).to("out").partitions(3);
    let mut other = Flow::new("other");
    let theirs = other.table::<String, i64>("theirs").record_time(Lateness::none());
    let _ = keyed.join_newest("theirs", &theirs, |_, _, factor| *factor);

    let error = refusal(flow.graph());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let wrong = [
        "flow \"wrong name\"",
        "cannot be named \"no good\"",
        "topic __consumer_offsets holds what consumer groups have committed: the log makes it itself",
        "topic none: 0 partitions; 1 to",
        "step \"..\"",
        "topic readings is read twice",
        "two steps are called sums",
        "two stores are called sums",
        "topic out is declared with 2 partitions and with 3",
        "keys as text/1, the table as json/1",
        "streams of different flows",
    ];
    for part in wrong {
        assert!(error.to_string().contains(part), "{part} is missing in: {error}");
    }
}

#[test]
fn a_flow_says_which_aggregates_count_a_window_again_after_an_end() -> Result<()> {
    let flow = factors(|readings, _| {
        let hours = readings.window(Tumbling::of(1.hour())).aggregate("hours", count());
        hours.by_key().aggregate("of-hours", count()).to("totals");
        let by_count = hours.key_by(|_, count| count.to_string());
        by_count.window(Tumbling::of(2.hours())).aggregate("of-counts", count()).to("counts");
        hours.late().aggregate("late", count()).to("late");
        readings.aggregate("all", count()).to("all");
    });
    let text = flow.explain()?;
    let marked = |step: &str| {
        let (_, behind) =
            text.split_once(&format!("\n  {step}: ")).unwrap_or_else(|| panic!("{step}: {text}"));
        behind
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("      "))
            .any(|line| line.contains("arrival"))
    };
    for (step, expected) in
        [("hours", false), ("of-hours", true), ("of-counts", true), ("late", false), ("all", false)]
    {
        assert_eq!(marked(step), expected, "{step} in {text}");
    }
    Ok(())
}

#[test]
fn a_flow_explains_itself() -> Result<()> {
    let flow = factors(|readings, factors| {
        let sums = readings
            .window(Tumbling::of(1.hour()))
            .aggregate("sums", fold(0, |sum: &mut i64, reading: &Reading| *sum += reading.value));
        sums.to("sums").partitions(4);
        readings.join_newest("newest", factors, |_, _, factor| *factor).to("newest");
    });
    let expected = "\
flow scaled

steps
  topic:factors: table, keys text/1, values json/1, in order factors
  topic:readings: topic, values json/1, in order readings
  key_by:1: key_by
      <- topic:readings
  sums: window tumbling 1h, grace 0ms: fold<i64>
      <- key_by:1, by key
      store sums, values postcard/1
      depends on arrival
  to:sums:1: to topic sums, keys window-text/1, values json/1
      <- sums
  newest: join with the newest value
      <- key_by:1, by key
      <- topic:factors, by key
      store newest, values postcard/1
      depends on arrival
  to:newest:1: to topic newest, keys text/1, values json/1
      <- newest

topics
  factors: read, 3 partitions, keys text/1
  newest: written, keys text/1
  readings: read
  sums: written, 4 partitions, keys window-text/1
  scaled-epochs: the flow's own, its epoch records
  scaled-sums-changelog: the flow's own, compacted
  scaled-newest-changelog: the flow's own, compacted
";
    assert_eq!(flow.explain()?, expected);
    Ok(())
}

#[test]
fn a_flow_is_not_called_what_would_lead_to_the_files_of_another() {
    for name in [".", "..", "other.suspect", "a/b", ""] {
        let error = refusal(Flow::new(name).graph());
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("flow {name:?}: ")), "{error}");
    }
}

/// Numbers by whether they are odd, aggregated under one name.
fn numbers_by_parity<A: Aggregate<i64, State: crate::Value, Output: crate::Value>>(aggregate: A) -> Flow {
    let mut flow = Flow::new("parity");
    let numbers = flow.topic::<i64>("numbers").record_time(Lateness::none());
    numbers.key_by(|number| number % 2).aggregate("parity", aggregate).to("results");
    flow
}

#[test]
fn another_aggregate_under_the_same_name_is_refused_by_the_step_and_what_it_was() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let processor = Processor::open(folder.path())?;
    // What is appended can be read at once.
    let config = crate::TopicConfig { durability: Some(Durability::Os), ..Default::default() };
    let topic = processor.log().create_topic("numbers", config)?;
    let append = |number: &str| -> Result<()> {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(Timestamp(0), None, Some(number.as_bytes()), &[]).expect("a short record");
        topic.partition(lotic_log::PartitionId(0))?.append(batch.seal())?;
        Ok(())
    };
    append("5")?;
    processor.run_to_end(numbers_by_parity(count()))?;
    append("7")?;
    let error = refusal(processor.run_to_end(numbers_by_parity(sum(|number: &i64| *number))));
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    for part in [
        "step parity was aggregate each key, for ever: count;",
        "and is aggregate each key, for ever: sum<i64>;",
    ] {
        assert!(error.to_string().contains(part), "{part} is missing in: {error}");
    }
    processor.run_to_end(numbers_by_parity(count())).map(drop)
}

#[test]
fn two_flows_whose_names_make_the_same_topic_do_not_share_it() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let processor = Processor::open(folder.path())?;
    processor.log().create_topic("numbers", crate::TopicConfig::default())?;
    let flow = |name: &str, store: &str| {
        let mut flow = Flow::new(name);
        let numbers = flow.topic::<i64>("numbers").record_time(Lateness::none());
        numbers.key_by(|number| *number).aggregate(store, count()).to(format!("{name}-results"));
        flow
    };
    processor.run_to_end(flow("a-b", "c"))?;
    let error = refusal(processor.run_to_end(flow("a", "b-c")));
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("topic a-b-c-changelog belongs to flow a-b,"), "{error}");
    assert!(processor.log().topic("a-results").is_err(), "nothing is made");
    let mut writer = Flow::new("writer");
    writer.topic::<i64>("numbers").record_time(Lateness::none()).to("a-b-epochs");
    let error = refusal(processor.run_to_end(writer));
    assert!(error.to_string().contains("topic a-b-epochs belongs to flow a-b,"), "{error}");
    let mut own = Flow::new("own");
    own.topic::<i64>("numbers").record_time(Lateness::none()).to("own-epochs");
    let error = refusal(processor.run_to_end(own));
    assert!(error.to_string().contains("flow own: topic own-epochs is the flow's own"), "{error}");
    processor.run_to_end(flow("a-b", "c")).map(drop)
}
