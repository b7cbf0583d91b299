//! The files, into topics.

use lotic::prelude::*;
use lotic::{Metrics, RowSource};
use lotic_connectors::files::{Csv, FileSource, Malformed, ReadOptions, RowOrder};

use crate::options::{BadRows, Options};
use crate::rows::{Airline, Flight, FlightLine, Weather, topics};

/// Where rows go that cannot be read, if they are to be kept.
const REJECTED_ROWS: &str = "rejected-rows";

/// Copies the files into their topics: each row once, however often this is run.
///
/// Looks through them at once, so that one that cannot be read is refused before the data directory is
/// touched: for a missing column, and for a malformed row unless those are skipped or kept.
pub(crate) fn flow(options: &Options) -> lotic_connectors::Result<Flow> {
    let mut flow = Flow::new("import");
    let airlines = FileSource::new(&options.airlines, csv(), |_: &Airline| Airline::TIME);
    read(&mut flow, "airlines-file", airlines.options(read_options(options)).check()?, options)
        .key_by(|airline| airline.carrier.clone())
        .to(topics::AIRLINES)
        .partitions(1)
        .compacted();
    let weather = FileSource::new(&options.weather, csv(), |weather: &Weather| weather.time_hour.timestamp());
    // The file lists one airport after the other; by time, each partition is in order.
    let weather = weather.order(RowOrder::EventTime).options(read_options(options)).check()?;
    read(&mut flow, "weather-file", weather, options)
        .key_by(|weather| weather.origin.clone())
        .to(topics::WEATHER)
        .partitions(topics::WEATHER_PARTITIONS);
    let flights = FileSource::new(&options.flights, csv(), |line: &FlightLine| line.scheduled().timestamp());
    read(&mut flow, "flights-file", flights.options(read_options(options)).check()?, options)
        .key_by(FlightLine::key)
        .map(|_, line| Flight::from(line))
        .to(topics::FLIGHTS)
        .partitions(topics::FLIGHTS_PARTITIONS);
    Ok(flow)
}

/// What was not imported, in words: of all rows that were read so far, over all runs.
pub(crate) fn rejected(metrics: &Metrics) -> Vec<String> {
    let rows = |count| if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
    let mut told = Vec::new();
    for step in &metrics.steps {
        if step.skipped > 0 {
            told.push(format!("skipped in {}: {}", step.step, rows(step.skipped)));
        }
        if step.dead_lettered > 0 {
            told.push(format!("from {} to {REJECTED_ROWS}: {}", step.step, rows(step.dead_lettered)));
        }
    }
    told
}

fn read<S: RowSource>(flow: &mut Flow, name: &str, source: S, options: &Options) -> Stream<S::Row> {
    match options.bad_rows {
        BadRows::Fail | BadRows::Skip => flow.source(name, source),
        BadRows::DeadLetter => flow.source_with_dead_letters(name, source, REJECTED_ROWS),
    }
}

fn csv<T>() -> Csv<T> {
    Csv::default().absent(&["NA", ""])
}

fn read_options(options: &Options) -> ReadOptions {
    let malformed = match options.bad_rows {
        BadRows::Fail => Malformed::Fail,
        BadRows::Skip => Malformed::Skip,
        BadRows::DeadLetter => Malformed::DeadLetter,
    };
    ReadOptions { malformed, ..ReadOptions::default() }
}
