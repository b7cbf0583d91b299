//! `lotic verify`: is every byte what was written?

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::{Damage, LogOptions, Walk, WalkEnd, walk_log};
use serde_json::json;

use crate::Failure;
use crate::args::VerifyOptions;

pub(crate) fn run(data: &Path, options: &VerifyOptions) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let mut damaged = 0;
    let storage = LogOptions::disk()?.storage;
    let walks = walk_log(&*storage, data, options.topic.as_deref())?;
    for (partition, walk) in &walks {
        damaged += usize::from(matches!(walk.ending, WalkEnd::Corrupt(_)) || !walk.indexes.is_empty());
        if options.json {
            let mut object = describe(walk);
            object["topic"] = json!(partition.topic);
            object["partition"] = json!(partition.partition.0);
            writeln!(out, "{object}")?;
            continue;
        }
        for damage in &walk.indexes {
            writeln!(out, "index      {damage}")?;
        }
        match &walk.ending {
            WalkEnd::Complete => {}
            WalkEnd::TornTail(damage) => writeln!(out, "torn tail  {damage}")?,
            WalkEnd::Corrupt(damage) => writeln!(out, "corrupt    {damage}")?,
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
        WalkEnd::Complete if walk.indexes.is_empty() => ("sound", None),
        WalkEnd::Complete => ("untrue index", None),
        WalkEnd::TornTail(damage) => ("torn tail", Some(damage)),
        WalkEnd::Corrupt(damage) => ("corrupt", Some(damage)),
    };
    let tell = |damage: &Damage| {
        json!({
            "offset": damage.offset.0,
            "file": damage.file,
            "position": damage.position,
            "reason": damage.reason,
        })
    };
    json!({
        "segments": walk.segments,
        "batches": walk.batches,
        "records": walk.records,
        "bytes": walk.bytes,
        "start": walk.start.0,
        "end": walk.end.0,
        "status": status,
        "damage": damage.map(tell),
        "indexes": walk.indexes.iter().map(tell).collect::<Vec<_>>(),
    })
}
