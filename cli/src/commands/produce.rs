//! `lotic produce`: lines of stdin become records.

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::{Producer, ProducerOptions, Record};

use super::open;
use crate::Failure;
use crate::args::ProduceOptions;

/// How many records may be on their way before the first of them is waited for.
const IN_FLIGHT_MAX: usize = 100_000;

pub(crate) fn run(data: &Path, options: &ProduceOptions) -> Result<ExitCode, Failure> {
    let log = open(data)?;
    log.topic(&options.topic)?;
    let compression = options.compression;
    let producer_options = ProducerOptions { idempotent: true, compression, ..ProducerOptions::default() };
    let producer = Producer::new(&log, producer_options)?;
    let mut stdin = io::stdin().lock();
    let mut in_flight = VecDeque::new();
    let mut line = Vec::new();
    let mut count = 0u64;
    while stdin.read_until(b'\n', &mut line)? > 0 {
        count += 1;
        let record = record(trimmed(&line), options.key_separator.as_deref())
            .map_err(|reason| format!("line {count}: {reason}"))?;
        if in_flight.len() == IN_FLIGHT_MAX
            && let Some(oldest) = in_flight.pop_front()
        {
            lotic_log::SendFuture::wait(oldest)?;
        }
        in_flight.push_back(producer.send(&options.topic, record));
        line.clear();
    }
    for sent in in_flight {
        sent.wait()?;
    }
    drop(producer);
    log.close()?;
    let plural = if count == 1 { "" } else { "s" };
    writeln!(io::stderr(), "{count} record{plural} written to {}", options.topic)?;
    Ok(ExitCode::SUCCESS)
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn record(line: &[u8], separator: Option<&str>) -> Result<Record, String> {
    let Some(separator) = separator else {
        return Ok(Record { value: Some(line.to_vec().into()), ..Record::default() });
    };
    let found = line.windows(separator.len().max(1)).position(|window| window == separator.as_bytes());
    let Some(at) = found else {
        return Err(format!("no {separator:?} between key and value"));
    };
    let (key, value) = (&line[..at], &line[at + separator.len()..]);
    Ok(Record { key: Some(key.to_vec().into()), value: Some(value.to_vec().into()), ..Record::default() })
}

#[cfg(test)]
mod tests {
    use super::{record, trimmed};

    fn check(line: &str, separator: Option<&str>, expected: Result<(Option<&str>, &str), ()>) {
        let made = record(trimmed(line.as_bytes()), separator);
        let shown = made.as_ref().map_err(drop).map(|record| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            (record.key.as_deref().map(text), record.value.as_deref().map(text))
        });
        let expected = expected.map(|(key, value)| (key.map(str::to_owned), Some(value.to_owned())));
        assert_eq!(shown, expected, "{line:?}");
    }

    #[test]
    fn a_line_is_a_value_and_before_the_first_separator_a_key() {
        check("a:b\n", None, Ok((None, "a:b")));
        check("a:b:c\r\n", Some(":"), Ok((Some("a"), "b:c")));
        check("k=>v", Some("=>"), Ok((Some("k"), "v")));
        check("\n", None, Ok((None, "")));
    }

    #[test]
    fn a_line_without_the_separator_is_refused() {
        check("ab\n", Some(":"), Err(()));
    }
}
