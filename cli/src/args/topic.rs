//! What the command line may say of topics.

use std::time::Duration;

use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use lotic_log::batch::Compression;

use crate::time::parse_duration;

const CREATE_EXAMPLES: &str = "\
Examples:
  lotic topic create orders --partitions 6 --compression zstd
  lotic topic create prices --cleanup compact
  lotic topic create clicks --config timestamp-type=append --config retention-time=7d";

const LIST_EXAMPLES: &str = "\
Examples:
  lotic topic list
  lotic topic list --json | jq -r 'select(.partitions > 1) | .name'";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  lotic topic describe orders
  lotic topic describe orders --json | jq '[.partitions[] | .end - .start] | add'";

const DELETE_EXAMPLES: &str = "\
Examples:
  lotic topic delete orders";

const ALTER_EXAMPLES: &str = "\
Examples:
  lotic topic alter orders --retention-time 7d --retention-bytes none
  lotic topic alter orders --partitions 12
  lotic topic alter prices --cleanup compact,delete --dirty-percent 20 --compaction-lag 1h
  lotic topic alter clicks --timestamp-type append --batch-bytes-max 1048588";

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic.
    ///
    /// A directory without a log becomes one. What is said here can be changed with `topic alter`.
    #[command(after_long_help = CREATE_EXAMPLES)]
    Create(CreateOptions),
    /// Print the names of all topics, internal ones (`__...`) too.
    #[command(after_long_help = LIST_EXAMPLES)]
    List {
        /// One object a line: name, id, partitions, cleanup.
        #[arg(long)]
        json: bool,
    },
    /// Print a topic's settings, and each partition's offsets.
    #[command(after_long_help = DESCRIBE_EXAMPLES)]
    Describe {
        /// Its name.
        topic: String,
        /// One object: name, id, settings and partitions with their offsets.
        #[arg(long)]
        json: bool,
    },
    /// Change a topic's settings, or add partitions. What is not named stays as it is. Needs the directory
    /// for itself.
    ///
    /// Times are written 500ms, 30s, 10min, 12h or 7d; `none` takes a limit away.
    #[command(after_long_help = ALTER_EXAMPLES)]
    Alter(AlterOptions),
    /// Delete a topic with all its records, for good, and what groups have committed for it. Needs the
    /// directory for itself.
    #[command(after_long_help = DELETE_EXAMPLES)]
    Delete {
        /// Its name.
        topic: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct CreateOptions {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub(crate) topic: String,
    /// How many partitions it has.
    #[arg(long, short, default_value_t = 1, value_name = "N")]
    pub(crate) partitions: i32,
    /// What becomes of old records.
    #[arg(long, value_enum, default_value_t = Cleanup::Delete)]
    pub(crate) cleanup: Cleanup,
    /// Bytes after which a segment is sealed.
    #[arg(long, value_name = "BYTES")]
    pub(crate) segment_bytes: Option<u64>,
    /// How producers that are not told otherwise compress: none, gzip, snappy, lz4, zstd; gzip and zstd
    /// take a level, as in zstd:9.
    #[arg(long, value_name = "CODEC", default_value_t = Compression::None)]
    pub(crate) compression: Compression,
    /// A setting that `topic alter` knows as a flag: `retention-time=7d`, `timestamp-type=append`,
    /// `batch-bytes-max=1048588` and so on; may be given several times. It goes before the flags above.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub(crate) settings: Vec<Settings>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Cleanup {
    /// Old segments are deleted.
    Delete,
    /// The last record of each key is kept.
    Compact,
    /// The last record of each key is kept, and old segments are deleted.
    #[value(name = "compact,delete")]
    CompactAndDelete,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TimestampOf {
    /// That which the producer gave the record.
    Create,
    /// That of the append.
    Append,
}

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub(crate) struct AlterOptions {
    /// Its name.
    pub(crate) topic: String,
    /// How many partitions it has; there can only be more. Records with keys go to other partitions then.
    #[arg(long, short, value_name = "N", group = "change")]
    pub(crate) partitions: Option<i32>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// One object: name, id, partitions and settings as they are now.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings of a topic that are named; the others stay as they are.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Settings {
    /// What becomes of old records.
    #[arg(long, value_enum, group = "change")]
    pub(crate) cleanup: Option<Cleanup>,
    /// How long after its newest record a segment is deleted.
    #[arg(long, value_name = "TIME", value_parser = parse_limit, group = "change")]
    pub(crate) retention_time: Option<Limit>,
    /// How many bytes a partition keeps before its oldest segments are deleted, or `none`.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, group = "change")]
    pub(crate) retention_bytes: Option<ByteLimit>,
    /// Bytes after which a segment is sealed.
    #[arg(long, value_name = "BYTES", group = "change")]
    pub(crate) segment_bytes: Option<u64>,
    /// The largest batch that is appended, as it is compressed.
    #[arg(long, value_name = "BYTES", group = "change")]
    pub(crate) batch_bytes_max: Option<usize>,
    /// Whose time records carry from now on: their producers', or that of the append.
    #[arg(long, value_enum, group = "change")]
    pub(crate) timestamp_type: Option<TimestampOf>,
    /// How long after its first record a segment is sealed, if the topic is cleaned up at all.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "change")]
    pub(crate) segment_age: Option<Duration>,
    /// How producers that are not told otherwise compress: none, gzip, snappy, lz4, zstd; gzip and zstd take
    /// a level, as in zstd:9.
    #[arg(long, value_name = "CODEC", group = "change")]
    pub(crate) compression: Option<Compression>,
    /// Compact once more than so many of a hundred bytes are behind the last compaction.
    #[arg(long, value_name = "PERCENT", group = "change")]
    pub(crate) dirty_percent: Option<u8>,
    /// Leave records alone that are younger than that.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "change")]
    pub(crate) compaction_lag: Option<Duration>,
    /// Compact records that are older than that, worth it or not.
    #[arg(long, value_name = "TIME", value_parser = parse_limit, group = "change")]
    pub(crate) compaction_lag_max: Option<Limit>,
    /// How long tombstones are kept after compaction has met them.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "change")]
    pub(crate) delete_retention: Option<Duration>,
}

/// A line of flags that holds settings alone.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct SettingFlags {
    #[command(flatten)]
    settings: Settings,
}

/// `retention-time=7d`: what `topic alter --retention-time 7d` says.
fn parse_setting(text: &str) -> Result<Settings, String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("a setting is written KEY=VALUE".to_owned());
    };
    let command = SettingFlags::command();
    let known: Vec<_> = command.get_arguments().filter_map(Arg::get_long).collect();
    if !known.contains(&key) {
        return Err(format!("there is no setting {key}; there are {}", known.join(", ")));
    }
    let flags = SettingFlags::try_parse_from([format!("--{key}={value}")]);
    flags.map(|flags| flags.settings).map_err(|error| {
        let said = error.to_string();
        said.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// A time, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

/// A number of bytes, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteLimit(pub(crate) Option<u64>);

fn parse_limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { parse_duration(text).map(|time| Limit(Some(time))) }
}

fn parse_bytes(text: &str) -> Result<ByteLimit, String> {
    if text == "none" {
        return Ok(ByteLimit(None));
    }
    let bytes = text.parse().map_err(|_| "a number of bytes, or `none`".to_owned());
    bytes.map(|bytes| ByteLimit(Some(bytes)))
}
