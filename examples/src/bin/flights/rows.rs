//! What is read, what is in the topics, and what comes out.

use compact_str::{CompactString, format_compact};
use lotic::Timestamp;
use serde::{Deserialize, Serialize};

use crate::utc::Utc;

/// The topics, with their partitions and keys.
pub(crate) mod topics {
    /// Departures, keyed by the aircraft; [`super::Flight`].
    pub(crate) const FLIGHTS: &str = "flights";
    pub(crate) const FLIGHTS_PARTITIONS: i32 = 6;
    /// Hourly weather, keyed by airport; [`super::Weather`].
    pub(crate) const WEATHER: &str = "weather";
    pub(crate) const WEATHER_PARTITIONS: i32 = 3;
    /// Names of airlines, keyed by carrier; [`super::Airline`].
    pub(crate) const AIRLINES: &str = "airlines";
    /// Result 1, keyed by window and carrier; [`super::AirlineDelays`].
    pub(crate) const DELAYS_BY_AIRLINE: &str = "delays-by-airline";
    /// Result 2, keyed by origin and visibility; [`super::WeatherDelays`].
    pub(crate) const DELAYS_BY_WEATHER: &str = "delays-by-weather";
    /// Flights that were late for a result, which the header `step` names; [`super::Flight`].
    pub(crate) const LATE_FLIGHTS: &str = "late-flights";
}

/// The steps that a flight can be late for.
pub(crate) const LATE_STEPS: [&str; 2] = ["delays-by-airline", "delays-by-weather"];

/// A line of the flights file. `NA` is absent.
#[derive(Clone, Deserialize)]
pub(crate) struct FlightLine {
    dep_time: Option<u16>,
    dep_delay: Option<i32>,
    carrier: CompactString,
    flight: u32,
    tailnum: Option<CompactString>,
    origin: CompactString,
    minute: u8,
    time_hour: Utc,
}

impl FlightLine {
    /// The scheduled departure.
    pub(crate) fn scheduled(&self) -> Utc {
        self.time_hour.plus_minutes(self.minute.into())
    }

    /// The aircraft, or where it is not known the flight's own name.
    pub(crate) fn key(&self) -> CompactString {
        match &self.tailnum {
            Some(tailnum) => tailnum.clone(),
            None => format_compact!("{}{}", self.carrier, self.flight),
        }
    }
}

/// A departure, as it is in its topic under [`FlightLine::key`]: what the results need of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) scheduled: Utc,
    pub(crate) carrier: CompactString,
    pub(crate) flight: u32,
    pub(crate) origin: CompactString,
    pub(crate) dep_time: Option<u16>,
    pub(crate) dep_delay: Option<i32>,
}

impl From<FlightLine> for Flight {
    fn from(line: FlightLine) -> Self {
        let scheduled = line.scheduled();
        let FlightLine { dep_time, dep_delay, carrier, flight, origin, .. } = line;
        Self { scheduled, carrier, flight, origin, dep_time, dep_delay }
    }
}

impl Flight {
    pub(crate) fn has_departed(&self) -> bool {
        self.dep_time.is_some()
    }

    /// 1 for a flight that never departed, to be summed up.
    pub(crate) fn cancelled(&self) -> u64 {
        u64::from(!self.has_departed())
    }

    /// Minutes; only of flights that departed.
    pub(crate) fn delay(&self) -> Option<i32> {
        self.dep_delay.filter(|_| self.has_departed())
    }
}

/// A line of the weather file, as it is in its topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Weather {
    pub(crate) origin: CompactString,
    pub(crate) time_hour: Utc,
    /// Miles.
    pub(crate) visib: f64,
}

/// A line of the airlines file, as it is in its topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Airline {
    pub(crate) carrier: CompactString,
    pub(crate) name: CompactString,
}

impl Airline {
    /// The names have no time of their own.
    pub(crate) const TIME: Timestamp = Timestamp(0);
}

/// How far one could see at the airport.
pub(crate) fn visibility(miles: f64) -> &'static str {
    if miles < 1.0 {
        "below 1"
    } else if miles < 5.0 {
        "1 to 5"
    } else {
        "5 and up"
    }
}

/// Result 1: the departures that an airline scheduled within one hour.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AirlineDelays {
    pub(crate) window_start: Utc,
    pub(crate) carrier: CompactString,
    pub(crate) airline: CompactString,
    pub(crate) flights: u64,
    pub(crate) cancelled: u64,
    pub(crate) mean_delay: Option<f64>,
    pub(crate) max_delay: Option<i32>,
}

/// Result 2: the departures from one airport in one sort of visibility.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WeatherDelays {
    pub(crate) origin: CompactString,
    pub(crate) visibility: CompactString,
    pub(crate) flights: u64,
    pub(crate) mean_delay: Option<f64>,
}
