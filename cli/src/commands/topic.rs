//! `lotic topic`: create, list, describe, alter, delete.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use lotic_log::batch::TimestampType;
use lotic_log::{CleanupPolicy, Partition, Topic, TopicConfig};
use serde_json::json;

use super::{open, open_or_begin, open_read_only};
use crate::Failure;
use crate::args::{AlterOptions, Cleanup, CreateOptions, Settings, TimestampOf, TopicCommand};

pub(crate) fn run(data: &Path, command: &TopicCommand) -> Result<ExitCode, Failure> {
    match command {
        TopicCommand::Create(options) => create(data, options)?,
        TopicCommand::List { json } => list(data, *json)?,
        TopicCommand::Describe { topic, json } => describe(data, topic, *json)?,
        TopicCommand::Alter(options) => alter(data, options)?,
        TopicCommand::Delete { topic } => delete(data, topic)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl CreateOptions {
    fn config(&self) -> TopicConfig {
        let default = TopicConfig::default();
        let mut config = TopicConfig {
            partitions: self.partitions,
            cleanup: self.cleanup.into(),
            segment_bytes: self.segment_bytes.unwrap_or(default.segment_bytes),
            compression: self.compression,
            ..default
        };
        self.settings.iter().for_each(|settings| settings.apply(&mut config));
        config
    }
}

impl From<Cleanup> for CleanupPolicy {
    fn from(cleanup: Cleanup) -> Self {
        match cleanup {
            Cleanup::Delete => Self::Delete,
            Cleanup::Compact => Self::Compact,
            Cleanup::CompactAndDelete => Self::CompactAndDelete,
        }
    }
}

fn alter(data: &Path, options: &AlterOptions) -> Result<(), Failure> {
    let log = open(data)?;
    let topic = log.alter_topic(&options.topic, |config| {
        set(&mut config.partitions, options.partitions);
        options.settings.apply(config);
    })?;
    log.close()?;
    let mut out = io::stdout().lock();
    if options.json {
        return Ok(writeln!(out, "{}", settings(&topic))?);
    }
    Ok(writeln!(out, "altered {}", topic.name())?)
}

impl From<TimestampOf> for TimestampType {
    fn from(of: TimestampOf) -> Self {
        match of {
            TimestampOf::Create => Self::Create,
            TimestampOf::Append => Self::LogAppend,
        }
    }
}

impl Settings {
    fn apply(&self, config: &mut TopicConfig) {
        set(&mut config.cleanup, self.cleanup.map(CleanupPolicy::from));
        set(&mut config.retention.time, self.retention_time.map(|limit| limit.0));
        set(&mut config.retention.bytes, self.retention_bytes.map(|limit| limit.0));
        set(&mut config.segment_bytes, self.segment_bytes);
        set(&mut config.batch_bytes_max, self.batch_bytes_max);
        set(&mut config.timestamp_type, self.timestamp_type.map(TimestampType::from));
        set(&mut config.segment_age_max, self.segment_age);
        set(&mut config.compression, self.compression);
        set(&mut config.compaction.dirty_percent_min, self.dirty_percent);
        set(&mut config.compaction.lag_min, self.compaction_lag);
        set(&mut config.compaction.lag_max, self.compaction_lag_max.map(|limit| limit.0));
        set(&mut config.compaction.delete_retention, self.delete_retention);
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn create(data: &Path, options: &CreateOptions) -> Result<(), Failure> {
    let log = open_or_begin(data)?;
    let topic = log.create_topic(&options.topic, options.config())?;
    log.close()?;
    let name = topic.name();
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
        let mut object = settings(&topic);
        object["partitions"] = topic.partitions().iter().map(|partition| offsets(partition)).collect();
        return Ok(writeln!(out, "{object}")?);
    }
    let config = topic.config();
    writeln!(out, "topic          {name}")?;
    writeln!(out, "id             {}", topic.id())?;
    writeln!(out, "cleanup        {}", cleanup_name(config.cleanup))?;
    writeln!(out, "segment bytes  {}", config.segment_bytes)?;
    if config.cleanup.deletes() {
        let time = config.retention.time.map_or("for ever".to_owned(), |time| format!("{time:?}"));
        let bytes = config.retention.bytes.map_or("any number of".to_owned(), |bytes| bytes.to_string());
        writeln!(out, "kept           {time}, {bytes} bytes")?;
    }
    writeln!(out, "batch bytes    {} at most", config.batch_bytes_max)?;
    writeln!(out, "timestamps     {}", timestamp_name(config.timestamp_type))?;
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

/// The summary of a topic and its settings; times in milliseconds, null where there is no limit.
fn settings(topic: &Topic) -> serde_json::Value {
    let config = topic.config();
    let milliseconds = |time: Duration| time.as_millis() as u64;
    let mut object = summary(topic);
    object["segment_bytes"] = json!(config.segment_bytes);
    object["segment_age_ms"] = json!(milliseconds(config.segment_age_max));
    object["batch_bytes_max"] = json!(config.batch_bytes_max);
    object["timestamp_type"] = json!(timestamp_name(config.timestamp_type));
    object["compression"] = json!(config.compression.to_string());
    object["retention_ms"] = json!(config.retention.time.map(milliseconds));
    object["retention_bytes"] = json!(config.retention.bytes);
    object["dirty_percent"] = json!(config.compaction.dirty_percent_min);
    object["compaction_lag_ms"] = json!(milliseconds(config.compaction.lag_min));
    object["compaction_lag_max_ms"] = json!(config.compaction.lag_max.map(milliseconds));
    object["delete_retention_ms"] = json!(milliseconds(config.compaction.delete_retention));
    object
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

fn timestamp_name(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::Create => "create",
        TimestampType::LogAppend => "append",
    }
}

fn cleanup_name(cleanup: CleanupPolicy) -> &'static str {
    match cleanup {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
        CleanupPolicy::CompactAndDelete => "compact,delete",
    }
}
