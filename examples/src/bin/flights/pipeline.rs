//! The two results.

use compact_str::{CompactString, format_compact};
use lotic::prelude::*;

use crate::rows::{Airline, AirlineDelays, Flight, LATE_STEPS, Weather, WeatherDelays, topics, visibility};

/// Delays by airline and hour, delays by visibility at the airport, and the flights that are late for
/// either.
pub(crate) fn flow(disorder: Duration) -> Flow {
    let mut flow = Flow::new("delays");
    let flights = flow
        .topic::<Flight>(topics::FLIGHTS)
        .partitions(topics::FLIGHTS_PARTITIONS)
        .record_time(Lateness::bounded(disorder));
    delays_by_airline(&mut flow, &flights);
    delays_by_weather(&mut flow, &flights);
    flow
}

/// All flights of a carrier in windows of one hour, with the airline's name.
fn delays_by_airline(flow: &mut Flow, flights: &Stream<Flight>) {
    let [step, _] = LATE_STEPS;
    let airlines = flow.reference_table::<CompactString, Airline>(topics::AIRLINES);
    let hours = flights
        .key_by(|flight| flight.carrier.clone())
        .window(Tumbling::of(1.hour()))
        .aggregate(step, (count(), sum(Flight::cancelled), mean(Flight::delay), max(Flight::delay)));
    hours
        .by_key()
        .left_join("airline-names", &airlines, |carrier, (window, delays), airline| {
            let (flights, cancelled, mean_delay, max_delay) = delays;
            AirlineDelays {
                window_start: window.start.into(),
                carrier: carrier.clone(),
                airline: airline.map(|airline| airline.name.clone()).unwrap_or_default(),
                flights,
                cancelled,
                mean_delay,
                max_delay,
            }
        })
        .key_by(|carrier, delays| format_compact!("{}|{carrier}", delays.window_start))
        .to(topics::DELAYS_BY_AIRLINE)
        .partitions(1);
    late(&hours.late(), step);
}

/// Flights that departed, by what the weather at their origin was when they were scheduled to.
fn delays_by_weather(flow: &mut Flow, flights: &Stream<Flight>) {
    let [_, step] = LATE_STEPS;
    let weather = flow
        .table::<CompactString, Weather>(topics::WEATHER)
        .partitions(topics::WEATHER_PARTITIONS)
        .record_time(Lateness::none());
    let in_weather = flights.filter(Flight::has_departed).key_by(|flight| flight.origin.clone()).join_as_of(
        "weather-at-departure",
        &weather,
        |_, flight, weather| (visibility(weather.visib), flight.delay()),
    );
    in_weather
        .key_by(|origin, (visibility, _)| joined(origin, visibility))
        .aggregate(step, (count(), mean(|(_, delay): &(&str, Option<i32>)| *delay)))
        .map(|key, (flights, mean_delay)| {
            let (origin, visibility) = key.split_once('|').unwrap_or((key, ""));
            WeatherDelays { origin: origin.into(), visibility: visibility.into(), flights, mean_delay }
        })
        .to(topics::DELAYS_BY_WEATHER)
        .partitions(1);
    late(&in_weather.late(), step);
}

/// A result's key of two parts.
fn joined(origin: &CompactString, visibility: &str) -> CompactString {
    let mut key = origin.clone();
    key.push('|');
    key.push_str(visibility);
    key
}

fn late(flights: &KeyedStream<CompactString, Flight>, step: &'static str) {
    flights.values().to(topics::LATE_FLIGHTS).partitions(1).header("step", move |_, _| step);
}
