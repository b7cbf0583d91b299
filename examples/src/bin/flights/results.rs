//! The result topics, into CSV files: each written once, at the end, whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use lotic::Log;
use lotic::log::batch::RecordView;
use lotic::log::{Consumer, ConsumerOptions, Isolation};
use lotic_connectors::files::{CsvRows, StagedFile};
use serde::Serialize;

use crate::Failure;
use crate::rows::{AirlineDelays, Flight, LATE_STEPS, WeatherDelays, topics};

/// How many flights were late, by the step that they were late for.
pub(crate) type Late = BTreeMap<String, u64>;

/// Writes all results to `out`.
pub(crate) fn write(log: &Log, out: &Path) -> Result<Late, Failure> {
    std::fs::create_dir_all(out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
    write_delays_by_airline(log, out)?;
    write_delays_by_weather(log, out)?;
    write_late_flights(log, out)
}

fn write_delays_by_airline(log: &Log, out: &Path) -> Result<(), Failure> {
    // The order of the keys, `window_start|carrier`, is that of the rows.
    let rows = last_values(log, topics::DELAYS_BY_AIRLINE)?.map(|value| {
        let AirlineDelays { window_start, carrier, airline, flights, cancelled, mean_delay, max_delay } =
            serde_json::from_slice(&value)?;
        Ok((window_start, carrier, airline, flights, cancelled, two_decimals(mean_delay), max_delay))
    });
    let header = ["window_start", "carrier", "airline", "flights", "cancelled", "mean_delay", "max_delay"];
    write_csv(&out.join("delays-by-airline.csv"), &header, rows)
}

fn write_delays_by_weather(log: &Log, out: &Path) -> Result<(), Failure> {
    // The order of the keys, `origin|visibility`, is that of the rows.
    let rows = last_values(log, topics::DELAYS_BY_WEATHER)?.map(|value| {
        let WeatherDelays { origin, visibility, flights, mean_delay } = serde_json::from_slice(&value)?;
        Ok((origin, visibility, flights, two_decimals(mean_delay)))
    });
    write_csv(&out.join("delays-by-weather.csv"), &["origin", "visibility", "flights", "mean_delay"], rows)
}

fn write_late_flights(log: &Log, out: &Path) -> Result<Late, Failure> {
    let mut late: Late = LATE_STEPS.into_iter().map(|step| (step.to_owned(), 0)).collect();
    let mut rows = Vec::new();
    for_each_committed(log, topics::LATE_FLIGHTS, |record| {
        let step = record.headers.last("step").flatten().ok_or("a late flight without the header `step`")?;
        let step = std::str::from_utf8(step)?;
        let flight: Flight = serde_json::from_slice(record.value.unwrap_or_default())?;
        *late.entry(step.to_owned()).or_default() += 1;
        let row = [
            step.to_owned(),
            flight.scheduled.to_string(),
            flight.carrier.into(),
            flight.flight.to_string(),
            flight.origin.into(),
        ];
        rows.push((row.join(","), row));
        Ok(())
    })?;
    rows.sort_unstable();
    let rows = rows.into_iter().map(|(_, row)| Ok(row));
    let header = ["step", "scheduled", "carrier", "flight", "origin"];
    write_csv(&out.join("late-flights.csv"), &header, rows)?;
    Ok(late)
}

fn write_csv<T: Serialize>(
    path: &Path,
    header: &[&str],
    rows: impl Iterator<Item = Result<T, Failure>>,
) -> Result<(), Failure> {
    let mut csv = CsvRows::new(StagedFile::create(path)?, header)?;
    for row in rows {
        csv.write(&row?)?;
    }
    Ok(csv.finish()?.publish()?)
}

fn two_decimals(mean: Option<f64>) -> Option<String> {
    mean.map(|mean| format!("{mean:.2}"))
}

/// The value of the last committed record of each key, in the order of the keys.
fn last_values(log: &Log, topic: &str) -> Result<impl Iterator<Item = Vec<u8>> + use<>, Failure> {
    let mut last: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for_each_committed(log, topic, |record| {
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        last.insert(key.to_vec(), value.to_vec());
        Ok(())
    })?;
    Ok(last.into_values())
}

/// Reads all committed records of a topic, each partition in order.
fn for_each_committed(
    log: &Log,
    topic: &str,
    mut visit: impl FnMut(RecordView<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let options = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
    let mut consumer = Consumer::of_topic(log, topic, options)?;
    let read = consumer.read_to_end(|_, record| visit(record));
    read.map(drop).map_err(|error| format!("topic {topic}: {error}").into())
}
