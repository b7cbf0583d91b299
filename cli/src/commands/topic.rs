//! `lotic topic`: create, list, describe, alter, delete.

mod describe;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::batch::TimestampType;
use lotic_log::{CleanupPolicy, TopicConfig};

use super::{open, open_or_begin, open_read_only};
use crate::Failure;
use crate::args::{
    AlterOptions, Cleanup, CreateOptions, LastingSettings, Settings, TimestampOf, TopicCommand,
};

use describe::{describe, settings, summary};

pub(super) use describe::cleanup_name;

pub(crate) fn run(data: &Path, command: &TopicCommand) -> Result<ExitCode, Failure> {
    match command {
        TopicCommand::Create(options) => create(data, options)?,
        TopicCommand::List { json } => list(data, *json)?,
        TopicCommand::Describe { topic, json } => {
            describe(&mut io::stdout().lock(), &open_read_only(data)?.topic(topic)?, *json)?;
        }
        TopicCommand::Alter(options) => alter(data, options)?,
        TopicCommand::Delete { topic, json } => delete(data, topic, *json)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl CreateOptions {
    fn config(&self) -> TopicConfig {
        let mut config = TopicConfig { partitions: self.partitions, ..TopicConfig::default() };
        for named in [&self.flags].into_iter().chain(&self.words) {
            named.settings.apply(&mut config);
            named.lasting.apply(&mut config);
        }
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

impl LastingSettings {
    fn apply(&self, config: &mut TopicConfig) {
        set(&mut config.durability, self.durability.map(Some));
        set(&mut config.index_interval_bytes, self.index_interval_bytes);
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn create(data: &Path, options: &CreateOptions) -> Result<(), Failure> {
    let config = options.config();
    // Before there is a folder for a topic that cannot be.
    config.check_creatable(&options.topic)?;
    let log = open_or_begin(data)?;
    let topic = log.create_topic(&options.topic, config)?;
    log.close()?;
    if options.json {
        return Ok(writeln!(io::stdout(), "{}", settings(&topic))?);
    }
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

fn delete(data: &Path, name: &str, as_json: bool) -> Result<(), Failure> {
    let log = open(data)?;
    let topic = log.topic(name)?;
    log.delete_topic(name)?;
    log.close()?;
    if as_json {
        return Ok(writeln!(io::stdout(), "{}", summary(&topic))?);
    }
    Ok(writeln!(io::stdout(), "deleted {name}")?)
}
