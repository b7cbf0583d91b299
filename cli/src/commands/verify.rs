//! `lotic verify`: is every byte what was written?

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::{LogOptions, Walk, WalkEnd, walk_log};
use serde_json::json;

use crate::Failure;
use crate::args::VerifyOptions;

pub(crate) fn run(data: &Path, options: &VerifyOptions) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let mut damaged = 0;
    let storage = LogOptions::disk()?.storage;
    let walks = walk_log(&*storage, data, options.topic.as_deref())?;
    for (partition, walk) in &walks {
        damaged += usize::from(matches!(walk.ending, WalkEnd::Corrupt(_)));
        if options.json {
            let mut object = describe(walk);
            object["topic"] = json!(partition.topic);
            object["partition"] = json!(partition.partition.0);
            writeln!(out, "{object}")?;
        } else if let WalkEnd::Corrupt(damage) = &walk.ending {
            writeln!(out, "corrupt    {damage}")?;
        } else if let WalkEnd::TornTail(damage) = &walk.ending {
            writeln!(out, "torn tail  {damage}")?;
        }
    }
    if !options.json {
        let total = |count: fn(&Walk) -> u64| walks.iter().map(|(_, walk)| count(walk)).sum::<u64>();
        let (batches, records, bytes) =
            (total(|walk| walk.batches), total(|walk| walk.records), total(|walk| walk.bytes));
        let partitions = walks.len();
        writeln!(out, "{partitions} partitions, {batches} batches, {records} records, {bytes} bytes")?;
        writeln!(out, "{}", if damaged == 0 { "sound".to_owned() } else { format!("{damaged} damaged") })?;
    }
    Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(walk: &Walk) -> serde_json::Value {
    let (status, damage) = match &walk.ending {
        WalkEnd::Complete => ("sound", None),
        WalkEnd::TornTail(damage) => ("torn tail", Some(damage)),
        WalkEnd::Corrupt(damage) => ("corrupt", Some(damage)),
    };
    json!({
        "segments": walk.segments,
        "batches": walk.batches,
        "records": walk.records,
        "bytes": walk.bytes,
        "start": walk.start.0,
        "end": walk.end.0,
        "status": status,
        "damage": damage.map(|damage| json!({
            "offset": damage.offset.0,
            "file": damage.file,
            "position": damage.position,
            "reason": damage.reason,
        })),
    })
}
