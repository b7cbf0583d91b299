//! Times as a person writes them.

use std::time::Duration;

use lotic_log::Timestamp;

/// Reads RFC 3339 (`2013-01-01T10:00:00Z`) or milliseconds since 1970.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(milliseconds) = text.parse::<i64>() {
        return Ok(Timestamp(milliseconds));
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Timestamp(time.as_millisecond())),
        Err(error) => Err(format!("{error}; write 2013-01-01T10:00:00Z, or milliseconds since 1970")),
    }
}

/// Reads `500ms`, `30s`, `10min`, `12h` or `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, milliseconds)| milliseconds);
    let time =
        milliseconds.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(*unit));
    time.map(Duration::from_millis).ok_or_else(|| "write 500ms, 30s, 10min, 12h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_duration, parse_time};
    use lotic_log::Timestamp;

    #[test]
    fn a_time_is_read_as_rfc_3339_or_as_milliseconds() {
        assert_eq!(parse_time("2013-01-01T10:00:00Z"), Ok(Timestamp(1_357_034_400_000)));
        assert_eq!(parse_time("2013-01-01T11:00:00+01:00"), Ok(Timestamp(1_357_034_400_000)));
        assert_eq!(parse_time("1357034400000"), Ok(Timestamp(1_357_034_400_000)));
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_form_to_use() {
        assert!(parse_time("yesterday").expect_err("no time").contains("2013-01-01T10:00:00Z"));
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
