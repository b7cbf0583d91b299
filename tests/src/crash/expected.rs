//! What has to be in a directory once its input has been worked through: from the input files, from
//! DuckDB, and from a run that nobody disturbed.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp as Moment;
use lotic_log::{Log, partition_for_key};
use serde_json::{Value, json};

use crate::failure::{About, Result, ensure};
use crate::flights::{Csvs, DELAYS_BY_AIRLINE, DELAYS_BY_WEATHER, LATE_FLIGHTS, Run};
use crate::stored::{StoredRecord, StoredTopic, partition_id, reading};

/// Topics that rows of files go to.
const FLIGHTS: &str = "flights";
const WEATHER: &str = "weather";
const AIRLINES: &str = "airlines";

/// The results whose records are updates: the last one of each key counts.
const TABLES: [&str; 2] = [DELAYS_BY_AIRLINE, DELAYS_BY_WEATHER];

/// A row of a file as its record: key, milliseconds, and the fields of the value that are compared.
type Row = (String, i64, Value);

/// What has to be there.
pub(super) struct Expected {
    csvs: Csvs,
    flights: Vec<Row>,
    weather: Vec<Row>,
    airlines: Vec<Row>,
    tables: [StoredTopic; 2],
    late: StoredTopic,
}

impl Expected {
    /// From a run that nobody disturbed, which wrote `csvs`; they have to be what DuckDB answers, and its
    /// topics right.
    pub(super) fn of(run: &Run, csvs: Csvs) -> Result<Self> {
        csvs.check_equal(&Csvs::of_oracle(&[&run.input], &run.disorder)?, "DuckDB")?;
        let read = |topic| StoredTopic::read(&run.data, topic).about(topic);
        let expected = Self {
            csvs,
            flights: rows(&run.input.flights, flight)?,
            weather: rows(&run.input.weather, weather)?,
            airlines: rows(&run.input.airlines, airline)?,
            tables: [read(TABLES[0])?, read(TABLES[1])?],
            late: read(LATE_FLIGHTS)?,
        };
        expected.check_topics(&run.data).about("an undisturbed run")?;
        Ok(expected)
    }

    pub(super) fn csvs(&self) -> &Csvs {
        &self.csvs
    }

    /// How many records each topic has that rows of files go to.
    pub(super) fn imported(&self) -> [(&'static str, usize); 3] {
        [(FLIGHTS, self.flights.len()), (WEATHER, self.weather.len()), (AIRLINES, self.airlines.len())]
    }

    /// A failure unless the topics of the log in `directory` are as they should be.
    pub(super) fn check_topics(&self, directory: &Path) -> Result<()> {
        let log = Log::open_read_only(directory, reading()?)?;
        let read = |topic| StoredTopic::read_from(&log, topic).about(topic);
        check_in_file_order(&read(FLIGHTS)?, &self.flights).about(FLIGHTS)?;
        check_in_time_order(&read(WEATHER)?, &self.weather).about(WEATHER)?;
        check_in_file_order(&read(AIRLINES)?, &self.airlines).about(AIRLINES)?;
        for (name, expected) in TABLES.iter().zip(&self.tables) {
            check_same_last(&read(name)?, expected).about(name)?;
        }
        let windows = self.csvs.rows(DELAYS_BY_AIRLINE).count();
        let results = read(DELAYS_BY_AIRLINE)?.records().count();
        ensure(results == windows, || {
            format!("{DELAYS_BY_AIRLINE} has {results} records of {windows} windows: one each is right")
        })?;
        check_late(&read(LATE_FLIGHTS)?, &self.late, &self.csvs).about(LATE_FLIGHTS)
    }
}

fn flight(row: &BTreeMap<String, String>) -> Result<Row> {
    let (carrier, number) = (&row["carrier"], &row["flight"]);
    let key = match row["tailnum"].as_str() {
        "NA" | "" => format!("{carrier}{number}"),
        tailnum => tailnum.to_owned(),
    };
    let scheduled =
        milliseconds(&row["time_hour"])? + number_of(row, "minute")?.as_i64().ok_or("minute")? * 60_000;
    let value = json!({
        "carrier": carrier,
        "flight": number_of(row, "flight")?,
        "origin": row["origin"],
        "dep_time": number_of(row, "dep_time")?,
        "dep_delay": number_of(row, "dep_delay")?,
    });
    Ok((key, scheduled, value))
}

fn weather(row: &BTreeMap<String, String>) -> Result<Row> {
    let value = json!({ "origin": row["origin"], "visib": row["visib"].parse::<f64>().about("visib")? });
    Ok((row["origin"].clone(), milliseconds(&row["time_hour"])?, value))
}

fn airline(row: &BTreeMap<String, String>) -> Result<Row> {
    Ok((row["carrier"].clone(), 0, json!({ "name": row["name"] })))
}

fn milliseconds(text: &str) -> Result<i64> {
    Ok(text.parse::<Moment>().about(text)?.as_millisecond())
}

/// A whole number; `NA` is null.
fn number_of(row: &BTreeMap<String, String>, column: &str) -> Result<Value> {
    match row[column].as_str() {
        "NA" | "" => Ok(Value::Null),
        text => Ok(text.parse::<i64>().about(format_args!("{column} {text}"))?.into()),
    }
}

fn rows(path: &Path, row: impl Fn(&BTreeMap<String, String>) -> Result<Row>) -> Result<Vec<Row>> {
    let mut reader = csv::Reader::from_path(path).about(path.display())?;
    reader.deserialize().map(|line| row(&line.about(path.display())?)).collect()
}

/// The rows that belong into one of `count` partitions, in the order of the file.
fn in_partition(rows: &[Row], index: usize, count: usize) -> Vec<&Row> {
    let count = i32::try_from(count).expect("a topic has few partitions");
    let belongs = |row: &&Row| partition_for_key(row.0.as_bytes(), count) == partition_id(index);
    rows.iter().filter(belongs).collect()
}

/// A record with those fields of its value that a row has.
fn record_as_row(record: &StoredRecord, like: &Row) -> Result<Row> {
    let value = record.json()?;
    let fields = like.2.as_object().expect("a row's fields have names").keys();
    let fields = fields.map(|name| (name.clone(), value.get(name).cloned().unwrap_or_default())).collect();
    Ok((record.key_text()?.to_owned(), record.timestamp.0, Value::Object(fields)))
}

fn check_in_file_order(topic: &StoredTopic, rows: &[Row]) -> Result<()> {
    let count = topic.partitions().len();
    for (index, records) in topic.partitions().iter().enumerate() {
        check_same_rows(index, records, &in_partition(rows, index, count))?;
    }
    Ok(())
}

/// The file lists one airport after the other; the topic is in order of time, equal times in any.
fn check_in_time_order(topic: &StoredTopic, rows: &[Row]) -> Result<()> {
    let count = topic.partitions().len();
    for (index, records) in topic.partitions().iter().enumerate() {
        let is_sorted = records.is_sorted_by_key(|record| record.timestamp);
        ensure(is_sorted, || format!("partition {index} is not in order of time"))?;
        let mut records = records.clone();
        records.sort_by(|one, other| (one.timestamp, &one.key).cmp(&(other.timestamp, &other.key)));
        let mut expected = in_partition(rows, index, count);
        expected.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        check_same_rows(index, &records, &expected)?;
    }
    Ok(())
}

fn check_same_rows(partition: usize, records: &[StoredRecord], expected: &[&Row]) -> Result<()> {
    let (is, should) = (records.len(), expected.len());
    for (index, (record, row)) in records.iter().zip(expected).enumerate() {
        let record = record_as_row(record, row)?;
        ensure(record == **row, || {
            format!(
                "record {index} of partition {partition} is {record:?} instead of {row:?} ({is} of {should})"
            )
        })?;
    }
    ensure(is == should, || format!("partition {partition} has {is} records instead of {should}"))
}

fn check_same_last(topic: &StoredTopic, expected: &StoredTopic) -> Result<()> {
    let (is, expected) = (topic.last_by_key()?, expected.last_by_key()?);
    let differing = expected.iter().find(|(key, value)| is.get(*key) != Some(value));
    let text = |value: Option<&Option<&[u8]>>| match value {
        Some(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(None) => "a tombstone".to_owned(),
        None => "nothing".to_owned(),
    };
    ensure(differing.is_none(), || {
        let key = differing.map_or(&"", |(key, _)| key);
        format!("the last value of key {key} is {}, not {}", text(is.get(key)), text(expected.get(key)))
    })?;
    let surplus = is.keys().find(|key| !expected.contains_key(*key));
    ensure(surplus.is_none(), || format!("there is a value of key {surplus:?}, which should not be"))
}

/// The same records as in the undisturbed run, in any order, and as many of each step as the CSV has rows.
fn check_late(topic: &StoredTopic, expected: &StoredTopic, csvs: &Csvs) -> Result<()> {
    let (is, expected) = (topic.sorted(), expected.sorted());
    let (is_count, expected_count) = (is.len(), expected.len());
    let differing = is.iter().zip(&expected).find(|(is, expected)| is != expected);
    ensure(differing.is_none() && is_count == expected_count, || {
        format!("{is_count} records instead of {expected_count}; first difference: {differing:?}")
    })?;
    for step in TABLES {
        let header = ("step".to_owned(), Some(step.as_bytes().to_vec()));
        let records = is.iter().filter(|record| record.headers.contains(&header)).count();
        let rows = csvs.rows(LATE_FLIGHTS).filter(|row| row.split(',').next() == Some(step)).count();
        ensure(records == rows, || format!("{records} records are late for {step}, {rows} should be"))?;
    }
    Ok(())
}
