//! Moments as the files and results write them: `2013-01-01T10:00:00Z`.

use std::fmt;

use lotic::Timestamp;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// A whole second of UTC in the years 0000 to 9999.
///
/// Three of these are read or written for each flight, so this is a plain fixed-width conversion and not a
/// general parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Utc(Timestamp);

/// The bytes of a moment in text.
const TEXT_BYTES: usize = 20;

impl Utc {
    pub(crate) fn timestamp(self) -> Timestamp {
        self.0
    }

    pub(crate) fn plus_minutes(self, minutes: i64) -> Self {
        Self(Timestamp(self.0.0 + minutes * MINUTE_MS))
    }

    fn text(self) -> [u8; TEXT_BYTES] {
        let Timestamp(moment) = self.0;
        let (year, month, day) = date_of(moment.div_euclid(DAY_MS) as i32);
        let second = (moment.rem_euclid(DAY_MS) / SECOND_MS) as u32;
        let mut text = *b"0000-00-00T00:00:00Z";
        write_pair(&mut text, 0, year as u32 / 100);
        write_pair(&mut text, 2, year as u32 % 100);
        write_pair(&mut text, 5, month);
        write_pair(&mut text, 8, day);
        write_pair(&mut text, 11, second / 3600);
        write_pair(&mut text, 14, second / 60 % 60);
        write_pair(&mut text, 17, second % 60);
        text
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; TEXT_BYTES] = text.try_into().ok()?;
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
        if marks.iter().any(|&(place, mark)| text[place] != mark) {
            return None;
        }
        let year = pair(text, 0)? * 100 + pair(text, 2)?;
        let (month, day) = (pair(text, 5)?, pair(text, 8)?);
        let (hour, minute, second) = (pair(text, 11)?, pair(text, 14)?, pair(text, 17)?);
        let is_date = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
        if !is_date || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = i64::from(days_since_1970(year as i32, month, day));
        let seconds = i64::from(hour * 3600 + minute * 60 + second);
        Some(Self(Timestamp(days * DAY_MS + seconds * SECOND_MS)))
    }
}

impl From<Timestamp> for Utc {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("digits and marks are ASCII"))
    }
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.text()).expect("digits and marks are ASCII"))
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Utc;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a moment like 2013-01-01T10:00:00Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Utc, E> {
                Utc::parse(text.as_bytes())
                    .ok_or_else(|| E::custom(format!("`{text}`: not a moment like 2013-01-01T10:00:00Z")))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

fn write_pair(text: &mut [u8; TEXT_BYTES], at: usize, number: u32) {
    text[at] = b'0' + (number / 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

fn pair(text: &[u8; TEXT_BYTES], at: usize) -> Option<u32> {
    let digits = [text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0')];
    digits.iter().all(|&digit| digit <= 9).then(|| u32::from(digits[0]) * 10 + u32::from(digits[1]))
}

/// The days of a month, from 1, of the Gregorian calendar.
fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; Howard Hinnant, "chrono-compatible low-level
/// date algorithms", `days_from_civil`.
fn days_since_1970(year: i32, month: u32, day: u32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted_month = (month + 9) % 12;
    let day_of_year = ((153 * shifted_month + 2) / 5 + day - 1) as i32;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date so many days after 1970-01-01; the same source, `civil_from_days`.
fn date_of(days: i32) -> (i32, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097) as u32);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era as i32 + era * 400 + i32::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for day in (-719_528..2_932_897).step_by(13) {
            let moment = Timestamp(day * DAY_MS + day.rem_euclid(86_400) * SECOND_MS);
            let expected = jiff::Timestamp::from_millisecond(moment.0).expect("within the calendar");
            assert_eq!(Utc(moment).to_string(), expected.to_string());
            assert_eq!(Utc::parse(expected.to_string().as_bytes()), Some(Utc(moment)));
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let wrong = [
            "2013-02-29T10:00:00Z",
            "2013-13-01T10:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T10:60:00Z",
            "2013-01-01 10:00:00Z",
            "2013-01-01T10:00:00",
            "2013-01-01T1a:00:00Z",
            "",
        ];
        for text in wrong {
            assert_eq!(Utc::parse(text.as_bytes()), None, "{text}");
        }
    }
}
