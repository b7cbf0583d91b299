//! Times as a person writes them.

use std::time::Duration;

use lotic_log::Timestamp;

/// Reads RFC 3339 (`2013-01-01T10:00:00Z`), a date (`2013-01-01`: its midnight in UTC) or milliseconds since
/// 1970.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(milliseconds) = text.parse::<i64>() {
        return Ok(Timestamp(milliseconds));
    }
    if let Some(midnight) = midnight(text) {
        return Ok(midnight);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Timestamp(time.as_millisecond())),
        Err(error) => Err(format!(
            "{error}; write 2013-01-01T10:00:00Z, 2013-01-01 (its midnight in UTC), or milliseconds since 1970"
        )),
    }
}

/// The first moment of a date in UTC, if the text is a date and nothing else: a time of day without a zone is
/// none, and would be left out in silence.
fn midnight(text: &str) -> Option<Timestamp> {
    let is_date_alone = text.len() == "2013-01-01".len();
    let date = text.parse::<jiff::civil::Date>().ok().filter(|_| is_date_alone)?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp(midnight.timestamp().as_millisecond()))
}

/// Units of time and their milliseconds, from the shortest to the longest.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads `500ms`, `30s`, `10min`, `12h` or `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, milliseconds)| milliseconds);
    let time =
        milliseconds.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(*unit));
    time.map(Duration::from_millis).ok_or_else(|| "write 500ms, 30s, 10min, 12h or 7d".to_owned())
}

/// Writes a time as [`parse_duration`] reads it, in the longest unit that it is a whole number of; what is less
/// than a millisecond is left out.
pub(crate) fn show_duration(time: Duration) -> String {
    let milliseconds = time.as_millis();
    let is_whole = |(_, unit): &&(&str, u64)| milliseconds.is_multiple_of(u128::from(*unit));
    let (name, unit) = match UNITS.iter().rev().find(is_whole) {
        Some(found) if milliseconds > 0 => *found,
        _ => UNITS[0],
    };
    format!("{}{name}", milliseconds / u128::from(unit))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_duration, parse_time, show_duration};
    use lotic_log::Timestamp;

    #[test]
    fn a_time_is_read_as_rfc_3339_or_as_milliseconds() {
        assert_eq!(parse_time("2013-01-01T10:00:00Z"), Ok(Timestamp(1_357_034_400_000)));
        assert_eq!(parse_time("2013-01-01T11:00:00+01:00"), Ok(Timestamp(1_357_034_400_000)));
        assert_eq!(parse_time("1357034400000"), Ok(Timestamp(1_357_034_400_000)));
    }

    #[test]
    fn a_date_is_its_midnight_in_utc() {
        assert_eq!(parse_time("2013-01-01"), Ok(Timestamp(1_356_998_400_000)));
        assert_eq!(parse_time("1969-12-31"), Ok(Timestamp(-86_400_000)));
        // Not the midnight of a day of which it is ten o'clock somewhere.
        for text in ["2013-01-01T10:00:00", "2013-01-01 10:00", "2013-02-30", "2013-1-1", "2013-01"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_as_it_is_read() {
        for text in ["0ms", "500ms", "1500ms", "30s", "90s", "10min", "36h", "7d", "9007199254740993ms"] {
            let time = parse_duration(text).expect("it is one");
            assert_eq!(show_duration(time), text);
        }
        assert_eq!(show_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(show_duration(Duration::from_micros(1_999)), "1ms");
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_form_to_use() {
        let said = parse_time("yesterday").expect_err("no time");
        assert!(said.contains("2013-01-01T10:00:00Z") && said.contains("2013-01-01 (its midnight"), "{said}");
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let check = |text, seconds: f64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        };
        check("500ms", 0.5);
        check("30s", 30.0);
        check("10min", 600.0);
        check("12h", 43_200.0);
        check("7d", 604_800.0);
        for text in ["", "7", "d", "7 d", "-1s", "1.5h", "99999999999999999999d", "999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
