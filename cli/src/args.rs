//! What the command line may say.

mod group;
mod help;
mod number;
mod topic;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lotic_log::batch::Compression;

use crate::time::parse_time;

use help::with_exit_status;
use number::{parse_count, parse_offset, parse_partition};

pub(crate) use group::{GroupCommand, ResetOptions, TopicScope};
pub(crate) use topic::{
    AlterOptions, Cleanup, CreateOptions, LastingSettings, Settings, TimestampOf, TopicCommand,
};

const EXAMPLES: &str = "\
Examples:
  lotic topic create orders --partitions 6
  lotic produce orders --key-separator : < orders.txt
  lotic consume orders --from-time 2013-01-01T10:00:00Z --json
  lotic topic describe orders
  lotic verify

Exit status: 0 done; 1 failed, or `verify` found damage; 2 the command line is wrong.";

const COMPACT_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic compact prices
  lotic compact prices --json | jq .bytes_after"
);

const DELETE_RECORDS_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic delete-records orders --partition 2 --before 1047
  lotic delete-records orders --partition 2 --before end"
);

const PRODUCE_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  seq 1000 | lotic produce numbers
  lotic produce orders --key-separator : --compression zstd:9 < orders.txt
  lotic produce orders --report json < orders.txt | jq .records
  lotic consume orders --json | jq -c 'del(.partition)' | lotic produce copies --json"
);

const CONSUME_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic consume orders
  lotic consume orders --partition 2 --offset 1047 --max-records 10 --json
  lotic consume orders --from-time 2013-01-01T10:00:00Z --read-committed
  lotic consume orders --from-end --follow
  lotic consume orders --group reports --follow"
);

const VERIFY_EXAMPLES: &str = "\
Examples:
  lotic verify
  lotic verify orders --json | jq 'select(.status != \"sound\")'

Exit status: 0 every batch is sound; 1 failed, or there is damage; 2 the command line is wrong.";

const REPAIR_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic verify orders
  lotic repair orders --partition 2 --truncate-at 1047 --dry-run
  lotic repair orders --partition 2 --truncate-at 1047"
);

const TOPIC_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic topic create orders --partitions 6 --retention-time 7d
  lotic topic list
  lotic topic describe orders --json
  lotic topic alter orders --partitions 12
  lotic topic delete orders"
);

const GROUP_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic group list
  lotic group describe reports
  lotic group reset reports --topic orders --to-earliest --execute
  lotic group delete reports"
);

const IMPORT_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic import kafka-dir /var/lib/kafka/data
  lotic import kafka-dir /var/lib/kafka/data --topic orders --topic payments --groups"
);

/// Topics of an embedded, Kafka-compatible log, from the terminal.
///
/// The directory is that of a program that uses Lotic. `consume`, `topic describe`, `topic list`,
/// `group describe`, `group list`, `group reset` without --execute and `verify` also work while such a
/// program holds it; they change nothing.
#[derive(Debug, Parser)]
#[command(name = "lotic", version, propagate_version = true, after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The directory of the log.
    #[arg(long, env = "LOTIC_DATA", value_name = "DIR", global = true, default_value = "data")]
    pub(crate) data: PathBuf,

    /// Say on stderr what opening the log found and mended.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand, after_long_help = TOPIC_EXAMPLES)]
    Topic(TopicCommand),
    /// List, describe, reset and delete consumer groups.
    #[command(subcommand, after_long_help = GROUP_EXAMPLES)]
    Group(GroupCommand),
    /// Compact a topic now: keep the last record of each key. Needs the directory for itself.
    ///
    /// Programs that use the log compact in the background; this is for a topic that waits for none, and
    /// does not ask whether it is worth it. What is younger than the topic's least lag stays as it is.
    #[command(after_long_help = COMPACT_EXAMPLES)]
    Compact(CompactOptions),
    /// Delete the records of a partition before an offset, for good. Needs the directory for itself.
    ///
    /// Readers that stand before the offset are told that it is out of range. Files go once no record in
    /// them is left. Records of a transaction that is open cannot be deleted, nor what comes behind them.
    #[command(after_long_help = DELETE_RECORDS_EXAMPLES)]
    DeleteRecords(DeleteRecordsOptions),
    /// Write the lines of stdin to a topic, one record each; ends once all are durable.
    ///
    /// A line may be as long as the topic's largest batch, and no longer than 32 MiB. Records with a key go
    /// to the partition that Kafka's clients choose; those without fill one partition after the other. If a
    /// line cannot be written, the command names it and ends; those before it may be there.
    #[command(after_long_help = PRODUCE_EXAMPLES)]
    Produce(ProduceOptions),
    /// Print the records of a topic: the values, a line each.
    ///
    /// Partitions are read side by side; the order within each is kept. Also works while a program holds the
    /// log, and then shows what is there; with --group it needs the directory for itself.
    ///
    /// A damaged batch that is come to ends the command with exit status 1, and is named; sound records shortly
    /// before it may not have been printed. --partition reads other partitions, and --offset what lies behind the
    /// batch. Damage in what is read to open the log, as at the end of a partition, keeps all of it from being
    /// read: `verify` names it, and `repair` cuts it off.
    #[command(after_long_help = CONSUME_EXAMPLES)]
    Consume(ConsumeOptions),
    /// Walk every batch, and name the first bad byte's topic, partition and offset.
    ///
    /// The indexes of sealed segments are compared with them, and with the note of what they held. One that is not true,
    /// has lost entries or is gone is named, with the place of the first entry that is not true or missing; no record is
    /// damaged by that.
    ///
    /// Exit status 0: every batch is sound (a torn tail, which the next start cuts off, is reported and is no damage), and
    /// no index untrue. 1: there is damage. Nothing is opened or changed: also a log that does not open any more is
    /// walked. So is one that a program writes to: what that removes, replaces or deletes meanwhile is not missing.
    #[command(after_long_help = VERIFY_EXAMPLES)]
    Verify(VerifyOptions),
    /// Cut a damaged partition off before its damage, so that the log opens again.
    ///
    /// `verify` names the offset. Everything before it has to be sound, and is read to make sure; everything
    /// from it on goes, in the partition's directory, into a folder `cut-at-OFFSET` that nothing ever
    /// overwrites. A batch goes whole: where OFFSET is in the middle of one, the log ends before it.
    /// Transactions that lose some of their records are aborted in this partition, whatever was decided.
    ///
    /// Nobody may have the log open. If it is cut short, give the same command again.
    #[command(after_long_help = REPAIR_EXAMPLES)]
    Repair(RepairOptions),
    /// Bring in what another program has left.
    #[command(subcommand, after_long_help = IMPORT_EXAMPLES)]
    Import(ImportCommand),
}

#[derive(Args, Debug)]
pub(crate) struct CompactOptions {
    /// The topic's name.
    pub(crate) topic: String,
    /// One object a compaction: topic, partition, keys, clean_end, bytes_before, bytes_after.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DeleteRecordsOptions {
    /// The topic's name.
    pub(crate) topic: String,
    /// Which partition.
    #[arg(long, short, value_name = "N", allow_negative_numbers = true, value_parser = parse_partition)]
    pub(crate) partition: i32,
    /// The offset of the first record that stays; `end` deletes all that can be deleted.
    #[arg(long, value_name = "OFFSET", allow_negative_numbers = true, value_parser = parse_before)]
    pub(crate) before: BeforeOffset,
    /// One object: topic, partition, start.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where deletion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeforeOffset {
    At(lotic_log::Offset),
    End,
}

fn parse_before(text: &str) -> Result<BeforeOffset, String> {
    if text == "end" {
        return Ok(BeforeOffset::End);
    }
    let offset = parse_offset(text).map(|offset| BeforeOffset::At(lotic_log::Offset(offset)));
    offset.map_err(|said| format!("{said}, or `end`"))
}

/// An offset to start at. Deletion has a word for the end: it may be expected here.
fn parse_start(text: &str) -> Result<i64, String> {
    parse_offset(text).map_err(|said| format!("{said}; --from-beginning and --from-end start at the ends"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Copy topics out of the data directory of a stopped Apache Kafka broker.
    ///
    /// Topics keep their ids and records their offsets; every batch and record is checked on the way, and
    /// the broker's directory is only read. A topic is there whole or not at all. Run again after an
    /// interruption: topics that are there are left as they are, segments that were copied stay copied.
    ///
    /// What the broker had not synced when it was killed, and was torn, is left out and reported.
    /// Transactions that it left open are committed if it had decided so, and aborted otherwise.
    ///
    /// Where a partition starts comes along: records that the broker has deleted stay deleted. So do the
    /// topic's settings (cleanup policy, retention, compaction, segment size and age, the largest batch, the
    /// timestamps' type, compression), if `__cluster_metadata` is in the same directory. A topic whose settings
    /// are not found there is named, and has the defaults: nothing of it is deleted, and it is compacted only
    /// if the broker's cleaner has been at it. `topic alter` gives it others.
    #[command(after_long_help = IMPORT_EXAMPLES)]
    KafkaDir(KafkaDirOptions),
}

#[derive(Args, Debug)]
pub(crate) struct KafkaDirOptions {
    /// The broker's data directory: one of its `log.dirs`.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Only this topic; may be given several times. Without it, all but the broker's internal ones.
    #[arg(long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Also the offsets that consumer groups have committed for these topics. What a group has committed
    /// here already stays.
    #[arg(long)]
    pub(crate) groups: bool,
    /// One object a topic: name, id, was_there, has_settings (whether the broker's were found), cleanup, and
    /// partitions with start, end, segments, records, bytes, gaps, torn and ended_transactions; with --groups,
    /// at last one object with committed_offsets.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ProduceOptions {
    /// The topic's name.
    pub(crate) topic: String,
    /// What stands between key and value in a line. Without it, records have no key.
    #[arg(long, short = 'K', value_name = "TEXT", conflicts_with = "json", value_parser = parse_separator)]
    pub(crate) key_separator: Option<String>,
    /// How batches are compressed: none, gzip, snappy, lz4, zstd; gzip and zstd take a level, as in zstd:9.
    /// Without it, as the topic says.
    #[arg(long, value_name = "CODEC")]
    pub(crate) compression: Option<Compression>,
    /// Each line is an object as `consume --json` prints it: key, value, headers, timestamp, partition. What
    /// is not there is null, the time of the append, or chosen by the key; an offset is not looked at. Bytes
    /// that are not text are `{"base64": "…"}`. What the command says in the end is for --report.
    #[arg(long)]
    pub(crate) json: bool,
    /// How the end is told.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Report::Text)]
    pub(crate) report: Report,
}

/// Reads what stands between key and value. An empty separator stands everywhere: each key would be empty.
fn parse_separator(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty: no line says where its key ends".to_owned());
    }
    Ok(text.to_owned())
}

/// How `produce` tells what it has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// How many records, in a line on stderr.
    Text,
    /// One object on stdout: topic, records, and partitions with partition, records, first_offset, last_offset.
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct ConsumeOptions {
    /// The topic's name.
    pub(crate) topic: String,
    /// Only this partition.
    #[arg(long, short, value_name = "N", allow_negative_numbers = true, value_parser = parse_partition)]
    pub(crate) partition: Option<i32>,
    #[command(flatten)]
    pub(crate) start: Start,
    /// Go on where this group has stopped, and remember where it stops now. Needs the directory for
    /// itself.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Wait for more at the end, until interrupted.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only records of committed transactions.
    #[arg(long)]
    pub(crate) read_committed: bool,
    /// Stop after so many records.
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    pub(crate) max_records: Option<u64>,
    /// One object a line: partition, offset, timestamp, key, value, headers. Bytes that are not UTF-8
    /// are shown as `{"base64": "…"}`.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where to start; at the beginning if nothing is said, or where the group has stopped.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Start {
    /// At the first record, whatever the group has committed.
    #[arg(long)]
    pub(crate) from_beginning: bool,
    /// Behind the last record there is now, whatever the group has committed: with --follow, only what comes from
    /// now on is printed.
    #[arg(long)]
    pub(crate) from_end: bool,
    /// At this offset of the partition; an offset says nothing about other partitions.
    #[arg(
        long,
        value_name = "OFFSET",
        requires = "partition",
        allow_negative_numbers = true,
        value_parser = parse_start
    )]
    pub(crate) offset: Option<i64>,
    /// At the first record with this timestamp or a later one: `2013-01-01T10:00:00Z`, `2013-01-01` for its
    /// midnight in UTC, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_time)]
    pub(crate) from_time: Option<lotic_log::Timestamp>,
}

#[derive(Args, Debug)]
pub(crate) struct RepairOptions {
    /// The topic's name.
    pub(crate) topic: String,
    /// Which partition.
    #[arg(long, short, value_name = "N", allow_negative_numbers = true, value_parser = parse_partition)]
    pub(crate) partition: i32,
    /// The first offset that goes.
    #[arg(long, value_name = "OFFSET", allow_negative_numbers = true, value_parser = parse_offset)]
    pub(crate) truncate_at: i64,
    /// Only say what would be lost.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// One object: topic, partition, cut_at, file, position, segments, bytes, damaged_bytes, batches,
    /// records, lost_upto, transactions, kept_in.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyOptions {
    /// Only this topic.
    pub(crate) topic: Option<String>,
    /// One object a partition: topic, partition, segments, batches, records, bytes, start, end, status,
    /// damage, indexes.
    #[arg(long)]
    pub(crate) json: bool,
}
