//! Time as users write it: durations, lateness, and what counts as an event time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lotic_log::Timestamp;

/// Durations in plain words: `5.secs()`, `1.hour()`, `30.days()`.
///
/// Minutes are `1.minute()` and `5.minutes()`, since a number's `min` is the smaller of two.
///
/// ```
/// use std::time::Duration;
/// use lotic::DurationExt;
///
/// assert_eq!(90.minutes(), Duration::from_secs(5400));
/// assert_eq!(1.hour() + 30.secs(), Duration::from_secs(3630));
/// ```
pub trait DurationExt: Sized {
    /// So many milliseconds.
    fn millis(self) -> Duration;

    /// So many seconds.
    fn secs(self) -> Duration;

    /// So many minutes.
    fn minutes(self) -> Duration {
        self.secs() * 60
    }

    /// So many hours.
    fn hours(self) -> Duration {
        self.minutes() * 60
    }

    /// So many days of 24 hours.
    fn days(self) -> Duration {
        self.hours() * 24
    }

    /// One second reads better so.
    fn sec(self) -> Duration {
        self.secs()
    }

    /// One minute reads better so.
    fn minute(self) -> Duration {
        self.minutes()
    }

    /// One hour reads better so.
    fn hour(self) -> Duration {
        self.hours()
    }

    /// One day reads better so.
    fn day(self) -> Duration {
        self.days()
    }
}

impl DurationExt for u32 {
    fn millis(self) -> Duration {
        Duration::from_millis(self.into())
    }

    fn secs(self) -> Duration {
        Duration::from_secs(self.into())
    }
}

/// How far out of order the records of one partition may be.
///
/// A partition's watermark is the largest event time read from it so far, less this bound. A record that
/// comes when the watermark has passed what it belongs to is *late*, and goes to the late output of the step
/// that would have taken it. A larger bound makes fewer records late, and results wait longer.
///
/// A flow with state that has read from a source goes on with the same bound only; another one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    bound: Duration,
}

impl Lateness {
    /// Records may be behind the newest one of their partition by up to `bound`.
    pub fn bounded(bound: Duration) -> Self {
        Self { bound }
    }

    /// Each partition is in order of event time.
    pub fn none() -> Self {
        Self { bound: Duration::ZERO }
    }

    pub(crate) fn disorder_ms(self) -> i64 {
        milliseconds(self.bound)
    }
}

/// Whole milliseconds of a duration; what does not fit is longer than any stream.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A duration in the largest unit that it is a whole number of, for instance `90m`.
pub(crate) fn in_words(milliseconds: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    for (size, unit) in units {
        if milliseconds != 0 && milliseconds % size == 0 {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

/// What a closure may return as an event time.
pub trait EventTime {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn timestamp(self) -> Timestamp;
}

impl EventTime for Timestamp {
    fn timestamp(self) -> Timestamp {
        self
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
impl EventTime for i64 {
    fn timestamp(self) -> Timestamp {
        Timestamp(self)
    }
}

impl EventTime for jiff::Timestamp {
    fn timestamp(self) -> Timestamp {
        Timestamp(self.as_millisecond())
    }
}

impl EventTime for SystemTime {
    fn timestamp(self) -> Timestamp {
        Timestamp(match self.duration_since(UNIX_EPOCH) {
            Ok(after) => milliseconds(after),
            Err(before) => -milliseconds(before.duration()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_the_largest_whole_unit() {
        let cases = [(0, "0ms"), (1500, "1500ms"), (5000, "5s"), (5_400_000, "90m"), (108_000_000, "30h")];
        for (milliseconds, words) in cases {
            assert_eq!(in_words(milliseconds), words);
        }
    }

    #[test]
    fn times_before_1970_are_negative() {
        assert_eq!((UNIX_EPOCH - Duration::from_secs(1)).timestamp(), Timestamp(-1000));
    }
}
