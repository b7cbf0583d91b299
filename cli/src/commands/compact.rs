//! `lotic compact`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::CompactionReport;
use serde_json::json;

use super::open;
use crate::Failure;
use crate::args::CompactOptions;

pub(crate) fn run(data: &Path, options: &CompactOptions) -> Result<ExitCode, Failure> {
    let log = open(data)?;
    let reports = log.compact(&options.topic)?;
    log.close()?;
    let mut out = io::stdout().lock();
    for report in &reports {
        if options.json { print_json(&mut out, report)? } else { print(&mut out, report)? }
    }
    if reports.is_empty() && !options.json {
        writeln!(out, "nothing to compact in {}", options.topic)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, report: &CompactionReport) -> io::Result<()> {
    let CompactionReport { partition, clean_end, keys, bytes_before, bytes_after } = report;
    writeln!(
        out,
        "{partition}: {bytes_before} bytes became {bytes_after}; {keys} keys up to offset {clean_end}"
    )
}

fn print_json(out: &mut impl Write, report: &CompactionReport) -> io::Result<()> {
    let object = json!({
        "topic": report.partition.topic,
        "partition": report.partition.partition.0,
        "keys": report.keys,
        "clean_end": report.clean_end.0,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
    });
    writeln!(out, "{object}")
}
