//! The flights example over a whole year, beside a plain loop and DuckDB.
//!
//! The plain loop is the ceiling: it reads the same JSON that the topics hold, from memory, and
//! aggregates in hash maps: no log, no state that outlives it, no epochs, no event time. DuckDB reads
//! the CSV files and computes the same three results in batch.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Command;

use lotic_log::{Consumer, ConsumerOptions, Log, LogOptions};
use serde::Deserialize;

use crate::Failure;
use crate::measure::{Cost, Side, alternate, in_process, report};
use crate::programs::{in_repository, python, sibling, timed, year};

pub(crate) const FLIGHTS_OF_THE_YEAR: u64 = 336_776;

/// The inputs, and the programs that work on them.
pub(crate) struct Workload {
    program: PathBuf,
    inputs: [PathBuf; 3],
    directory: tempfile::TempDir,
}

impl Workload {
    pub(crate) fn year() -> Result<Self, Failure> {
        Ok(Self { program: sibling("flights")?, inputs: year()?, directory: tempfile::tempdir()? })
    }

    /// Runs the example from the CSV files to the results, in an empty directory.
    pub(crate) fn lotic(&self, options: &[&str]) -> Result<Cost, Failure> {
        let data = self.data();
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        let [flights, weather, airlines] = &self.inputs;
        let mut command = Command::new(&self.program);
        command.arg("--data").arg(data).arg("--out").arg(self.directory.path().join("out"));
        command.arg("--flights").arg(flights).arg("--weather").arg(weather);
        command.arg("--airlines").arg(airlines).args(options);
        Ok(timed(&mut command)?.0)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn duckdb(&self, python: &PathBuf) -> Result<Cost, Failure> {
        let [flights, weather, airlines] = &self.inputs;
        let mut command = Command::new(python);
        command.arg(in_repository("tests/oracle/flights.py"));
        command.arg("--flights").arg(flights).arg("--weather").arg(weather);
        command.arg("--airlines").arg(airlines).args(["--disorder", "30h"]);
        command.arg("--out").arg(self.directory.path().join("duckdb"));
        Ok(timed(&mut command)?.0)
    }

    /// The values of a topic that the last run wrote.
    fn values(&self, topic: &str) -> Result<Vec<Vec<u8>>, Failure> {
        let log = Log::open_read_only(self.data(), LogOptions::disk()?)?;
        let mut consumer = Consumer::of_topic(&log, topic, ConsumerOptions::default())?;
        let mut values = Vec::new();
        consumer.read_to_end(|_, record| {
            values.push(record.value.unwrap_or_default().to_vec());
            Ok::<_, Failure>(())
        })?;
        Ok(values)
    }
}

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let workload = Workload::year()?;
    let python = python()?;
    workload.lotic(&[])?;
    let flights = workload.values("flights")?;
    let weather = workload.values("weather")?;
    let sides = vec![
        Side::new("Lotic, 2 workers", || workload.lotic(&["--workers", "2"])),
        Side::new("Lotic, 1 worker", || workload.lotic(&["--workers", "1"])),
        Side::new("plain loop over the JSON", || in_process(|| plain_loop(&flights, &weather))),
        Side::new("DuckDB over the CSV", || workload.duckdb(&python)),
    ];
    let rows = alternate(runs, sides)?;
    report("Flights of the year: import and both results", "flights", FLIGHTS_OF_THE_YEAR, &rows);
    for (name, median) in &rows[..2] {
        let per_core = FLIGHTS_OF_THE_YEAR as f64 / median.cpu;
        println!("  {name}: {per_core:.0} flights per second of CPU, end to end");
    }
    Ok(())
}

#[derive(Deserialize)]
struct Flight<'a> {
    carrier: &'a str,
    origin: &'a str,
    scheduled: &'a str,
    dep_time: Option<i64>,
    dep_delay: Option<i64>,
}

#[derive(Deserialize)]
struct Weather<'a> {
    origin: &'a str,
    time_hour: &'a str,
    visib: f64,
}

#[derive(Default)]
struct Delays {
    flights: u64,
    departed: u64,
    sum: i64,
    max: Option<i64>,
}

fn plain_loop(flights: &[Vec<u8>], weather: &[Vec<u8>]) -> Result<(), Failure> {
    let mut visibility: HashMap<&str, BTreeMap<i64, f64>> = HashMap::new();
    for value in weather {
        let row: Weather<'_> = serde_json::from_slice(value)?;
        visibility.entry(row.origin).or_default().insert(milliseconds(row.time_hour)?, row.visib);
    }
    let mut by_airline: HashMap<(i64, &str), Delays> = HashMap::new();
    let mut by_weather: HashMap<(&str, u8), Delays> = HashMap::new();
    for value in flights {
        let row: Flight<'_> = serde_json::from_slice(value)?;
        let time = milliseconds(row.scheduled)?;
        let window = time.div_euclid(3_600_000);
        by_airline.entry((window, row.carrier)).or_default().add(row.dep_time.and(row.dep_delay));
        let seen = visibility.get(row.origin).and_then(|hours| hours.range(..=time).next_back());
        if let (Some((_, &miles)), Some(_)) = (seen, row.dep_time) {
            let class = u8::from(miles >= 1.0) + u8::from(miles >= 5.0);
            by_weather.entry((row.origin, class)).or_default().add(row.dep_delay);
        }
    }
    let total: u64 = by_airline.values().map(|delays| delays.flights).sum();
    if total == FLIGHTS_OF_THE_YEAR && !by_weather.is_empty() {
        return Ok(());
    }
    Err(format!("the plain loop counted {total} flights, not {FLIGHTS_OF_THE_YEAR}").into())
}

fn milliseconds(time: &str) -> Result<i64, Failure> {
    Ok(time.parse::<jiff::Timestamp>()?.as_millisecond())
}

impl Delays {
    fn add(&mut self, delay: Option<i64>) {
        self.flights += 1;
        if let Some(delay) = delay {
            self.departed += 1;
            self.sum += delay;
            self.max = self.max.max(Some(delay));
        }
    }
}
