//! `lotic produce`: lines of stdin become records.

mod json;
mod written;

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::{Producer, ProducerOptions, Record, SendFuture};

use super::open;
use crate::Failure;
use crate::args::{ProduceOptions, Report};

use written::Written;

/// How many records may be on their way before the first of them is waited for.
const IN_FLIGHT_MAX: usize = 100_000;

/// The most bytes of JSON for a byte of a record: `\u0000`.
const JSON_BYTES_MAX: usize = 6;

/// What a line of JSON has besides the record's bytes: names, numbers, brackets.
const JSON_REST_BYTES: usize = 4 << 10;

pub(crate) fn run(data: &Path, options: &ProduceOptions) -> Result<ExitCode, Failure> {
    let log = open(data)?;
    let topic = log.topic(&options.topic)?;
    topic.check_producible()?;
    let compression = options.compression;
    let defaults = ProducerOptions::default();
    let record_bytes_max = topic.config().batch_bytes_max.min(defaults.buffer_bytes_max);
    let producer_options = ProducerOptions { idempotent: true, compression, record_bytes_max, ..defaults };
    let producer = Producer::new(&log, producer_options)?;
    // Whether what a line of JSON says is too long is for the producer to judge.
    let line_bytes_max =
        if options.json { JSON_BYTES_MAX * record_bytes_max + JSON_REST_BYTES } else { record_bytes_max };
    let mut lines = Lines::new(io::stdin().lock(), line_bytes_max);
    let mut in_flight = InFlight::default();
    while let Some(line) = lines.next()? {
        let made = if options.json {
            json::record(line)
        } else {
            record(line, options.key_separator.as_deref()).map(|record| (None, record))
        };
        let (partition, record) = made.map_err(|reason| format!("line {}: {reason}", lines.count))?;
        let sent = match partition {
            Some(partition) => producer.send_to(&options.topic, partition, record),
            None => producer.send(&options.topic, record),
        };
        in_flight.add(lines.count, sent)?;
    }
    let written = in_flight.wait()?;
    drop(producer);
    log.close()?;
    match options.report {
        Report::Text => writeln!(io::stderr(), "{}", written.text(&options.topic))?,
        Report::Json => writeln!(io::stdout(), "{}", written.json(&options.topic))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Records that are on their way, with the numbers of their lines.
#[derive(Default)]
struct InFlight {
    sent: VecDeque<(u64, SendFuture)>,
    written: Written,
}

impl InFlight {
    fn add(&mut self, line: u64, sent: SendFuture) -> Result<(), String> {
        if self.sent.len() == IN_FLIGHT_MAX {
            self.wait_for_oldest()?;
        }
        self.sent.push_back((line, sent));
        Ok(())
    }

    /// Waits for all, and says where they went.
    fn wait(mut self) -> Result<Written, String> {
        while !self.sent.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok(self.written)
    }

    fn wait_for_oldest(&mut self) -> Result<(), String> {
        let Some((line, oldest)) = self.sent.pop_front() else { return Ok(()) };
        let place = oldest.wait().map_err(|error| format!("line {line}: {error}"))?;
        self.written.note(place);
        Ok(())
    }
}

/// Lines without what ends them, none longer than a limit.
struct Lines<R> {
    input: R,
    bytes_max: usize,
    line: Vec<u8>,
    /// How many were read.
    count: u64,
}

impl<R: BufRead> Lines<R> {
    fn new(input: R, bytes_max: usize) -> Self {
        Self { input, bytes_max, line: Vec::new(), count: 0 }
    }

    fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        self.line.clear();
        // Room for a carriage return and a line feed, which are no part of the line.
        let bytes_max = self.bytes_max as u64 + 2;
        if self.input.by_ref().take(bytes_max).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.count += 1;
        let line = trimmed(&self.line);
        if line.len() > self.bytes_max {
            let (count, bytes_max) = (self.count, self.bytes_max);
            return Err(
                format!("line {count} is longer than {bytes_max} bytes, the most a record may take").into()
            );
        }
        Ok(Some(line))
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn record(line: &[u8], separator: Option<&str>) -> Result<Record, String> {
    let Some(separator) = separator else {
        return Ok(Record { value: Some(line.to_vec().into()), ..Record::default() });
    };
    let found = line.windows(separator.len()).position(|window| window == separator.as_bytes());
    let Some(at) = found else {
        return Err(format!("no {separator:?} between key and value"));
    };
    let (key, value) = (&line[..at], &line[at + separator.len()..]);
    Ok(Record { key: Some(key.to_vec().into()), value: Some(value.to_vec().into()), ..Record::default() })
}

#[cfg(test)]
mod tests {
    use super::{Lines, record, trimmed};

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

    #[test]
    fn a_line_that_is_too_long_is_refused_before_the_whole_of_it_is_in_memory() {
        let mut lines = Lines::new("four\r\nfour\n12345\n".as_bytes(), 4);
        for _ in 0..2 {
            assert_eq!(lines.next().expect("it is short enough"), Some(&b"four"[..]));
        }
        let message = lines.next().expect_err("it is too long").to_string();
        assert!(message.starts_with("line 3 is longer than 4 bytes"), "{message}");

        let mut endless = Lines::new(std::io::BufReader::new(std::io::repeat(b'a')), 1000);
        assert!(endless.next().is_err());
        assert!(endless.line.capacity() < 10_000);
    }
}
