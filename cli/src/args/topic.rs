//! What the command line may say of topics.

use std::convert::Infallible;
use std::time::Duration;

use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum, value_parser};
use lotic_log::Durability;
use lotic_log::batch::Compression;

use super::help::with_exit_status;
use super::number::parse_bytes;
use crate::time::parse_duration;

const CREATE_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic topic create orders --partitions 6 --compression zstd
  lotic topic create prices --cleanup compact
  lotic topic create traces --retention-time 7d --retention-bytes 10G --durability 1s
  lotic topic create clicks --config timestamp-type=append --config retention-time=7d"
);

const LIST_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic topic list
  lotic topic list --json | jq -r 'select(.partitions > 1) | .name'"
);

const DESCRIBE_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic topic describe orders
  lotic topic describe orders --json | jq '[.partitions[] | .end - .start] | add'"
);

const DELETE_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic topic delete orders"
);

const ALTER_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic topic alter orders --retention-time 7d --retention-bytes none
  lotic topic alter orders --partitions 12
  lotic topic alter prices --cleanup compact,delete --dirty-percent 20 --compaction-lag 1h
  lotic topic alter clicks --timestamp-type append --batch-bytes-max 1048588"
);

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic.
    ///
    /// A directory without a log becomes one. What is not named is so: cleanup delete, records are kept for
    /// ever, segments of 1 GiB or 7d, batches of up to 64 MiB, time from the producer, no compression, and where
    /// it is compacted at more than 50 percent, with tombstones kept for 1d.
    ///
    /// `topic alter` changes all but the durability and the index interval. Times are written 500ms, 30s, 10min,
    /// 12h or 7d; sizes in bytes, or as 64K, 512MiB or 1G, which are powers of 1024; `none` is no limit.
    #[command(after_long_help = CREATE_EXAMPLES)]
    Create(CreateOptions),
    /// Print the names of all topics, internal ones (`__...`) too.
    #[command(after_long_help = LIST_EXAMPLES)]
    List {
        /// One object a line: name, id, partitions, cleanup.
        #[arg(long)]
        json: bool,
    },
    /// Print a topic's settings, and each partition's offsets and size.
    ///
    /// Readers of committed records read up to `stable`. Where that lies before `end`, the open transaction that
    /// holds it back is named, with the others behind it.
    #[command(after_long_help = DESCRIBE_EXAMPLES)]
    Describe {
        /// Its name.
        topic: String,
        /// One object: name, id, cleanup, settings (times in milliseconds, null without a limit; durability null
        /// where it is up to the program that opens the log), and partitions with partition, start, stable, end,
        /// segments, bytes, and open_transactions with producer_id, producer_epoch, first_offset.
        #[arg(long)]
        json: bool,
    },
    /// Change a topic's settings, or add partitions. What is not named stays as it is. Needs the directory
    /// for itself.
    ///
    /// Times are written 500ms, 30s, 10min, 12h or 7d; sizes in bytes, or as 64K, 512MiB or 1G, which are powers of
    /// 1024; `none` takes a limit away. A topic's durability and index interval are chosen when it is made, and stay.
    #[command(after_long_help = ALTER_EXAMPLES)]
    Alter(AlterOptions),
    /// Delete a topic with all its records, for good, and what groups have committed for it. Needs the
    /// directory for itself.
    #[command(after_long_help = DELETE_EXAMPLES)]
    Delete {
        /// Its name.
        topic: String,
        /// One object: name, id, partitions and cleanup of what is gone.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("change").multiple(true)))]
pub(crate) struct CreateOptions {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub(crate) topic: String,
    /// How many partitions it has.
    #[arg(long, short, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    pub(crate) partitions: i32,
    #[command(flatten)]
    pub(crate) flags: NewSettings,
    /// A setting as one word: `retention-time=7d` is what --retention-time 7d is, and so with all flags above
    /// but --partitions; may be given several times. It goes before the flag.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub(crate) words: Vec<NewSettings>,
    /// One object: name, id, partitions and settings.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings that a topic is made with and that are named.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NewSettings {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) lasting: LastingSettings,
}

/// Those that stay what they were when the topic was made.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LastingSettings {
    /// When an append counts: once it is synced, at once (`os`: a power cut may take what is not written out),
    /// or at once and synced so often, as in `1s`. Without it, it is up to the program that opens the log.
    #[arg(long, value_name = "sync|os|TIME", allow_hyphen_values = true, value_parser = parse_durability)]
    pub(crate) durability: Option<Durability>,
    /// Bytes of a segment between two entries of its indexes.
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = parse_bytes::<u64>)]
    pub(crate) index_interval_bytes: Option<u64>,
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
    #[arg(long, short, value_name = "N", group = "change", allow_negative_numbers = true)]
    pub(crate) partitions: Option<i32>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[arg(long = "durability", hide = true, allow_hyphen_values = true, value_parser = refuse_lasting)]
    _durability: Option<Infallible>,
    #[arg(long = "index-interval-bytes", hide = true, allow_hyphen_values = true, value_parser = refuse_lasting)]
    _index_interval_bytes: Option<Infallible>,
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
    /// How long after its newest record a segment is deleted, or `none`.
    #[arg(long, value_name = "TIME", value_parser = parse_limit, group = "change", allow_hyphen_values = true)]
    pub(crate) retention_time: Option<Limit>,
    /// How many bytes a partition keeps before its oldest segments are deleted, or `none`.
    #[arg(long, value_name = "BYTES", value_parser = parse_byte_limit, group = "change", allow_negative_numbers = true)]
    pub(crate) retention_bytes: Option<ByteLimit>,
    /// Bytes after which a segment is sealed.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes::<u64>, group = "change", allow_negative_numbers = true)]
    pub(crate) segment_bytes: Option<u64>,
    /// The largest batch that is appended, as it is compressed.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes::<usize>, group = "change", allow_negative_numbers = true)]
    pub(crate) batch_bytes_max: Option<usize>,
    /// Whose time records carry from now on: their producers', or that of the append.
    #[arg(long, value_enum, group = "change")]
    pub(crate) timestamp_type: Option<TimestampOf>,
    /// How long after its first record a segment is sealed, if the topic is cleaned up at all.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "change", allow_hyphen_values = true)]
    pub(crate) segment_age: Option<Duration>,
    /// How producers that are not told otherwise compress: none, gzip, snappy, lz4, zstd; gzip and zstd take
    /// a level, as in zstd:9.
    #[arg(long, value_name = "CODEC", group = "change")]
    pub(crate) compression: Option<Compression>,
    /// Compact once more than so many of a hundred bytes are behind the last compaction: 0 to 99.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = value_parser!(u8).range(0..=99),
        group = "change",
        allow_negative_numbers = true
    )]
    pub(crate) dirty_percent: Option<u8>,
    /// Leave records alone that are younger than that.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "change", allow_hyphen_values = true)]
    pub(crate) compaction_lag: Option<Duration>,
    /// Compact records that are older than that, worth it or not, or `none`.
    #[arg(long, value_name = "TIME", value_parser = parse_limit, group = "change", allow_hyphen_values = true)]
    pub(crate) compaction_lag_max: Option<Limit>,
    /// How long tombstones and the markers of transactions are kept after compaction has met them.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, group = "change", allow_hyphen_values = true)]
    pub(crate) delete_retention: Option<Duration>,
}

/// A line of flags that holds settings alone.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct SettingFlags {
    #[command(flatten)]
    settings: NewSettings,
}

/// `retention-time=7d`: what `--retention-time 7d` says.
fn parse_setting(text: &str) -> Result<NewSettings, String> {
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
    if text == "none" {
        return Ok(Limit(None));
    }
    let time = parse_duration(text).map(|time| Limit(Some(time)));
    time.map_err(|said| format!("{said}, or `none`"))
}

/// Says of a setting that stays what it was that it does: whoever makes topics with it looks for it here.
fn refuse_lasting(_: &str) -> Result<Infallible, String> {
    Err("it is chosen when a topic is made, and stays".to_owned())
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "os" => Ok(Durability::Os),
        _ => {
            let every = parse_duration(text).map(Durability::Interval);
            every.map_err(|said| format!("`sync`, `os` or how often it is synced: {said}"))
        }
    }
}

fn parse_byte_limit(text: &str) -> Result<ByteLimit, String> {
    if text == "none" {
        return Ok(ByteLimit(None));
    }
    let bytes = parse_bytes(text).map(|bytes| ByteLimit(Some(bytes)));
    bytes.map_err(|said| format!("{said}, or `none`"))
}
