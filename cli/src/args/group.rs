//! What the command line may say of consumer groups.

use clap::{Args, Subcommand};
use lotic_log::group::ResetTo;
use lotic_log::{PartitionId, TopicPartition};

use super::help::with_exit_status;
use super::number::parse_offset;
use crate::time::parse_time;

const GROUP_LIST_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic group list
  lotic group list --json | jq -r 'select(.lag > 1000) | .group'"
);

const GROUP_DESCRIBE_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic group describe reports
  lotic group describe reports --json | jq '.partitions[] | {topic, partition, lag}'"
);

const GROUP_RESET_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic group reset reports --all-topics --to-earliest
  lotic group reset reports --topic orders:0,2 --to-datetime 2013-01-01T10:00:00Z --execute
  lotic group reset reports --topic orders --shift-by -100 --execute"
);

const GROUP_DELETE_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic group delete reports"
);

const GROUP_DELETE_OFFSETS_EXAMPLES: &str = with_exit_status!(
    "\
Examples:
  lotic group delete-offsets reports --topic orders
  lotic group delete-offsets reports --topic orders:0,2 --topic payments"
);

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Print all groups that have committed offsets or have members.
    ///
    /// `lag` is how many records, or a little more, lie between what is committed and the end, in all
    /// partitions together. Beside a program that runs, members are those that it has written down.
    #[command(after_long_help = GROUP_LIST_EXAMPLES)]
    List {
        /// One object a line: group, state, members (how many), lag.
        #[arg(long)]
        json: bool,
    },
    /// Print where a group stands, and what it has committed for each partition.
    ///
    /// A `-` stands for what there is not: no offset committed, no such partition any more, no member. An
    /// offset that was committed before its topic was deleted and made again is none.
    #[command(after_long_help = GROUP_DESCRIBE_EXAMPLES)]
    Describe {
        /// Its name.
        group: String,
        /// One object: group, state, generation, assignor, lag, members with id, client, instance and partitions,
        /// and partitions with topic, partition, committed, committed_at, metadata, end, lag, member.
        #[arg(long)]
        json: bool,
    },
    /// Change where a group goes on reading. Only says what would be done unless --execute is given.
    ///
    /// A group is changed while it has no members; --execute needs the directory for itself. Offsets that
    /// lie before the start or behind the end of a partition become these. A group of a name that is not
    /// known yet is begun.
    ///
    /// The offsets of a processor are shown, and are not where it goes on: that is in its epoch record.
    #[command(after_long_help = GROUP_RESET_EXAMPLES)]
    Reset(ResetOptions),
    /// Forget a group without members, and all that it has committed. Needs the directory for itself.
    #[command(after_long_help = GROUP_DELETE_EXAMPLES)]
    Delete {
        /// Its name.
        group: String,
        /// One object: group.
        #[arg(long)]
        json: bool,
    },
    /// Forget what a group has committed for topics. Needs the directory for itself.
    #[command(after_long_help = GROUP_DELETE_OFFSETS_EXAMPLES)]
    DeleteOffsets {
        /// Its name.
        group: String,
        /// Of which topic, or which of its partitions: `orders` or `orders:0,2`; may be given several times.
        #[arg(long = "topic", value_name = "TOPIC", required = true, value_parser = parse_scope)]
        topics: Vec<TopicScope>,
        /// One object a partition: group, topic, partition, committed (the offset that is forgotten).
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ResetOptions {
    /// The group's name.
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) scope: ResetScope,
    #[command(flatten)]
    pub(crate) to: ResetPlace,
    /// Only say what would be done; that is so anyway.
    #[arg(long, conflicts_with = "execute")]
    pub(crate) dry_run: bool,
    /// Do it.
    #[arg(long)]
    pub(crate) execute: bool,
    /// One object a partition: group, topic, partition, before (or null), after, executed.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which partitions are reset.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct ResetScope {
    /// Of this topic, or of these of its partitions: `orders` or `orders:0,2`; may be given several times.
    #[arg(long = "topic", value_name = "TOPIC", value_parser = parse_scope)]
    pub(crate) topics: Vec<TopicScope>,
    /// Of all topics that the group has committed offsets for.
    #[arg(long)]
    pub(crate) all_topics: bool,
}

/// Where they are reset to.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct ResetPlace {
    /// To the first record that is kept.
    #[arg(long)]
    pub(crate) to_earliest: bool,
    /// Behind the last record.
    #[arg(long)]
    pub(crate) to_latest: bool,
    /// To this offset.
    #[arg(long, value_name = "OFFSET", allow_negative_numbers = true, value_parser = parse_offset)]
    pub(crate) to_offset: Option<i64>,
    /// To the first record with this timestamp or a later one: `2013-01-01T10:00:00Z`, `2013-01-01` for its
    /// midnight in UTC, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_time)]
    pub(crate) to_datetime: Option<lotic_log::Timestamp>,
    /// So many records further on than is committed, or back where it is negative.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) shift_by: Option<i64>,
}

impl ResetPlace {
    pub(crate) fn target(&self) -> Result<ResetTo, String> {
        match *self {
            Self { to_earliest: true, .. } => Ok(ResetTo::Earliest),
            Self { to_latest: true, .. } => Ok(ResetTo::Latest),
            Self { to_offset: Some(offset), .. } => Ok(ResetTo::Offset(lotic_log::Offset(offset))),
            Self { to_datetime: Some(time), .. } => Ok(ResetTo::Time(time)),
            Self { shift_by: Some(by), .. } => Ok(ResetTo::ShiftBy(by)),
            _ => Err("nothing says where to reset to".to_owned()),
        }
    }
}

/// A topic, or some of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicScope {
    pub(crate) topic: String,
    pub(crate) partitions: Option<Vec<PartitionId>>,
}

impl TopicScope {
    pub(crate) fn holds(&self, partition: &TopicPartition) -> bool {
        let is_among = |numbers: &Vec<PartitionId>| numbers.contains(&partition.partition);
        self.topic == partition.topic && self.partitions.as_ref().is_none_or(is_among)
    }
}

fn parse_scope(text: &str) -> Result<TopicScope, String> {
    let Some((topic, numbers)) = text.split_once(':') else {
        return Ok(TopicScope { topic: text.to_owned(), partitions: None });
    };
    let number = |text: &str| text.parse().map(PartitionId).ok();
    let partitions: Option<_> = numbers.split(',').map(number).collect();
    let partitions = partitions.ok_or_else(|| format!("{text:?} is neither a topic nor `topic:0,2`"))?;
    Ok(TopicScope { topic: topic.to_owned(), partitions: Some(partitions) })
}
