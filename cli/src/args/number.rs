//! Numbers that are never negative. That one is given is said by whoever reads it: taken for a flag, it would
//! be answered with how to give it all the same.

/// Reads an offset.
pub(crate) fn parse_offset(text: &str) -> Result<i64, String> {
    let offset = text.parse().ok().filter(|offset| *offset >= 0);
    offset.ok_or_else(|| "an offset is a number from 0 on".to_owned())
}

/// Reads the number of a partition.
pub(crate) fn parse_partition(text: &str) -> Result<i32, String> {
    let partition = text.parse().ok().filter(|partition| *partition >= 0);
    partition.ok_or_else(|| "a partition is a number from 0 on".to_owned())
}

/// Reads how many records.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a count is a number from 0 on".to_owned())
}

/// Units of size, and the power of two that each is. `K` is 1024, as in `du`; `KB` is 1000 to some, and refused.
const UNITS: [(&str, u32); 9] =
    [("", 0), ("K", 10), ("KiB", 10), ("M", 20), ("MiB", 20), ("G", 30), ("GiB", 30), ("T", 40), ("TiB", 40)];

/// Reads a number of bytes: `512`, `64K`, `64KiB`, `8M`, `1G`.
pub(crate) fn parse_bytes<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let power = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, power)| *power);
    let bytes =
        power.zip(number.parse::<u64>().ok()).and_then(|(power, number)| number.checked_mul(1 << power));
    let fits = bytes.and_then(|bytes| T::try_from(bytes).ok());
    fits.ok_or_else(|| {
        "a size is a number of bytes, or of KiB, MiB, GiB or TiB: 512, 64K, 64KiB, 1G".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn a_size_is_a_number_of_bytes_or_of_a_power_of_two_of_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64K", 64 << 10),
            ("64KiB", 64 << 10),
            ("8M", 8 << 20),
            ("8MiB", 8 << 20),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("2T", 2 << 40),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_forms_to_use() {
        let wrong = [
            "",
            "K",
            "1KB",
            "1GB",
            "1B",
            "1k",
            "1 K",
            "1.5G",
            "-1",
            "+1",
            "18446744073709551616",
            "16777216T",
        ];
        for text in wrong {
            let said = parse_bytes::<u64>(text).expect_err("no size");
            assert!(said.contains("64K, 64KiB, 1G"), "{text}: {said}");
        }
        assert!(parse_bytes::<u32>("4G").is_err(), "it does not fit");
    }
}
