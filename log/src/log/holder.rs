//! The lock of a directory, and what it says of whoever holds it.

use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Timestamp;
use crate::storage::{Storage, StorageLock};

const FILE_NAME: &str = ".lock";

/// Takes the lock of `directory` for `program`.
///
/// # Errors
/// [`ErrorKind::Locked`], naming the holder.
pub(super) fn lock(
    storage: &dyn Storage,
    directory: &Path,
    program: &str,
    now: Timestamp,
) -> Result<Box<dyn StorageLock>> {
    let holder = format!("process {} ({program}) since {}", std::process::id(), utc(now));
    storage.lock(&directory.join(FILE_NAME), &holder).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let what =
                format!("{} is held by {error}; it can be opened read-only meanwhile", directory.display());
            Error::new(ErrorKind::Locked, what)
        }
        _ => Error::io(format!("cannot lock {}", directory.display()), error),
    })
}

/// A time as people write it: `2013-01-31T23:59:59Z`.
fn utc(time: Timestamp) -> String {
    let seconds = time.0.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March end with the leap day; 400 of them are 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // From `date -u -d @<seconds> +%FT%TZ`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_359_676_799, "2013-01-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(Timestamp(seconds * 1000)), expected);
        }
    }
}
