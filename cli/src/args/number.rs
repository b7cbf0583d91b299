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

/// Reads a number of bytes.
pub(crate) fn parse_bytes<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "a size is a number of bytes".to_owned())
}
