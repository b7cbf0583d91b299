//! `lotic delete-records`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::PartitionId;
use serde_json::json;

use super::open;
use crate::Failure;
use crate::args::{BeforeOffset, DeleteRecordsOptions};

pub(crate) fn run(data: &Path, options: &DeleteRecordsOptions) -> Result<ExitCode, Failure> {
    let DeleteRecordsOptions { topic, partition, before, json } = options;
    let log = open(data)?;
    let offset = match before {
        BeforeOffset::At(offset) => *offset,
        BeforeOffset::End => log.topic(topic)?.partition(PartitionId(*partition))?.offsets().stable,
    };
    let start = log.delete_records(topic, PartitionId(*partition), offset)?;
    log.close()?;
    let mut out = io::stdout().lock();
    if *json {
        writeln!(out, "{}", json!({ "topic": topic, "partition": partition, "start": start.0 }))?;
    } else {
        writeln!(out, "{topic}-{partition} begins at offset {start}")?;
    }
    Ok(ExitCode::SUCCESS)
}
