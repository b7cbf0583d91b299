//! `lotic topic`: create, list, describe, delete.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::{CleanupPolicy, Partition, Topic, TopicConfig};
use serde_json::json;

use super::{open, open_read_only};
use crate::Failure;
use crate::args::{Cleanup, TopicCommand};

pub(crate) fn run(data: &Path, command: &TopicCommand) -> Result<ExitCode, Failure> {
    match command {
        TopicCommand::Create { topic, partitions, cleanup, segment_bytes, compression } => {
            let config =
                TopicConfig { compression: *compression, ..config(*partitions, *cleanup, *segment_bytes) };
            create(data, topic, &config)?;
        }
        TopicCommand::List { json } => list(data, *json)?,
        TopicCommand::Describe { topic, json } => describe(data, topic, *json)?,
        TopicCommand::Delete { topic } => delete(data, topic)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn config(partitions: i32, cleanup: Cleanup, segment_bytes: Option<u64>) -> TopicConfig {
    let default = TopicConfig::default();
    TopicConfig {
        partitions,
        cleanup: match cleanup {
            Cleanup::Delete => CleanupPolicy::Delete,
            Cleanup::Compact => CleanupPolicy::Compact,
        },
        segment_bytes: segment_bytes.unwrap_or(default.segment_bytes),
        ..default
    }
}

fn create(data: &Path, name: &str, config: &TopicConfig) -> Result<(), Failure> {
    let log = open(data)?;
    let topic = log.create_topic(name, config.clone())?;
    log.close()?;
    let partitions = topic.partitions().len();
    let plural = if partitions == 1 { "" } else { "s" };
    Ok(writeln!(io::stdout(), "created {name} with {partitions} partition{plural}")?)
}

fn list(data: &Path, as_json: bool) -> Result<(), Failure> {
    let log = open_read_only(data)?;
    let mut out = io::stdout().lock();
    for topic in log.topics() {
        if as_json {
            writeln!(out, "{}", summary(&topic))?;
        } else {
            writeln!(out, "{}", topic.name())?;
        }
    }
    Ok(())
}

fn describe(data: &Path, name: &str, as_json: bool) -> Result<(), Failure> {
    let log = open_read_only(data)?;
    let topic = log.topic(name)?;
    let mut out = io::stdout().lock();
    if as_json {
        let mut object = summary(&topic);
        object["segment_bytes"] = json!(topic.config().segment_bytes);
        object["compression"] = json!(topic.config().compression.to_string());
        object["partitions"] = topic.partitions().iter().map(|partition| offsets(partition)).collect();
        return Ok(writeln!(out, "{object}")?);
    }
    let config = topic.config();
    writeln!(out, "topic          {name}")?;
    writeln!(out, "id             {}", topic.id())?;
    writeln!(out, "cleanup        {}", cleanup_name(config.cleanup))?;
    writeln!(out, "segment bytes  {}", config.segment_bytes)?;
    writeln!(out, "compression    {}", config.compression)?;
    writeln!(out)?;
    writeln!(out, "{:>9} {:>14} {:>14} {:>14}", "partition", "start", "stable", "end")?;
    for partition in topic.partitions() {
        let offsets = partition.offsets();
        let number = partition.name().partition;
        writeln!(out, "{number:>9} {:>14} {:>14} {:>14}", offsets.start, offsets.stable, offsets.end)?;
    }
    Ok(())
}

fn delete(data: &Path, name: &str) -> Result<(), Failure> {
    let log = open(data)?;
    log.delete_topic(name)?;
    log.close()?;
    Ok(writeln!(io::stdout(), "deleted {name}")?)
}

fn summary(topic: &Topic) -> serde_json::Value {
    json!({
        "name": topic.name(),
        "id": topic.id().to_string(),
        "partitions": topic.partitions().len(),
        "cleanup": cleanup_name(topic.config().cleanup),
    })
}

fn offsets(partition: &Partition) -> serde_json::Value {
    let offsets = partition.offsets();
    json!({
        "partition": partition.name().partition.0,
        "start": offsets.start.0,
        "stable": offsets.stable.0,
        "end": offsets.end.0,
    })
}

fn cleanup_name(cleanup: CleanupPolicy) -> &'static str {
    match cleanup {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
    }
}
