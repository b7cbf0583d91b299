//! A point in time as a person writes it.

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

#[cfg(test)]
mod tests {
    use super::parse_time;
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
}
