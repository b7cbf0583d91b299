//! How a consumer reads.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::group::{Assignor, check_group_name};
use crate::partition::Isolation;

/// The longest [`ConsumerOptions::client_id`]: with a number behind it, it is a member's id.
const CLIENT_ID_BYTES_MAX: usize = 255;

/// The longest [`ConsumerOptions::instance_id`], as in Kafka.
const INSTANCE_ID_BYTES_MAX: usize = 249;

/// How a [`Consumer`](super::Consumer) reads.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Which records are read.
    pub isolation: Isolation,
    /// Bytes that are read from a partition at a time; a larger batch is read alone.
    pub fetch_bytes_max: usize,
    /// The group whose committed offsets are gone on from, and written by
    /// [`Consumer::commit`](super::Consumer::commit).
    pub group: Option<String>,
    /// Where a partition is read from that the group has committed nothing for.
    pub start: StartAt,
    /// What happens at a position where there is no record any more, or not yet.
    pub out_of_range: OutOfRange,
    /// Has the consumer commit its positions by itself, so often: at the first poll after that time,
    /// before partitions go to others or are given up, and when it is dropped; whoever awaits a stream of
    /// records is woken for it. Kafka's `enable.auto.commit` and `auto.commit.interval.ms`. Off unless it is
    /// asked for, other than in Kafka: whatever was handed over before a poll counts as done then, be it done
    /// or not, and where offsets are synced that poll waits for the disk.
    pub auto_commit: Option<Duration>,
    /// How the members of the group share out the partitions that they have subscribed to. It is the
    /// same for all.
    pub assignor: Assignor,
    /// The longest time between two polls: a member that takes longer is removed from its group, what it
    /// read goes to others, and what it commits is refused. Whoever waits for records meanwhile, in
    /// [`Consumer::wait`](super::Consumer::wait) or by awaiting a stream of them, is there all the same: a
    /// task that awaits a stream is woken twice in that time to say so. Kafka's `max.poll.interval.ms`.
    pub poll_interval_max: Duration,
    /// What the consumer is called where members of a group are listed; the beginning of its id there.
    pub client_id: String,
    /// Makes the consumer a static member of its group (KIP-345), by this name; Kafka's `group.instance.id`.
    /// When it is dropped or unsubscribes it does not leave: a consumer of the same name and group in the
    /// same process that comes within [`Self::session_timeout`] goes on with its partitions, and nobody
    /// else is disturbed. Of two consumers of one name the older is fenced: its polls and commits are
    /// refused. Letters and digits of ASCII, `.`, `_` and `-`; 249 at most.
    pub instance_id: Option<String>,
    /// How long a static member may be gone before its partitions go to others; Kafka's
    /// `session.timeout.ms`. While it is there [`Self::poll_interval_max`] counts, as for all members.
    pub session_timeout: Duration,
}

/// Where a partition is read from if nothing else says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StartAt {
    /// At its first record.
    #[default]
    Beginning,
    /// Behind its last one.
    End,
    /// At the first record that is no older than this (KIP-1106), or behind the last one.
    Ago(Duration),
    /// Nowhere: it is an error, which names the partition and what there is in it.
    Nowhere,
}

/// What happens if a position lies outside of its partition: records were deleted before they were read,
/// or it was sought to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutOfRange {
    /// It is an error, which names the partition, the offset and what there is.
    #[default]
    Fail,
    /// Reading goes on where [`ConsumerOptions::start`] says, and that is reported.
    StartAgain,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            fetch_bytes_max: 1 << 20,
            group: None,
            start: StartAt::default(),
            out_of_range: OutOfRange::default(),
            auto_commit: None,
            assignor: Assignor::default(),
            poll_interval_max: Duration::from_secs(5 * 60),
            client_id: "consumer".to_owned(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
        }
    }
}

impl ConsumerOptions {
    pub(super) fn check(&self) -> Result<()> {
        self.group.as_deref().map_or(Ok(()), check_group_name)?;
        let length = self.client_id.len();
        let what = if length > CLIENT_ID_BYTES_MAX {
            format!("a client id of {length} bytes; {CLIENT_ID_BYTES_MAX} at most are possible")
        } else if let Some(instance) = self.instance_id.as_deref().filter(|instance| !is_name(instance)) {
            let what = "it may have 1 to 249 letters and digits of ASCII, '.', '_' and '-'";
            format!("a static member cannot be called {instance:?}: {what}")
        } else if self.auto_commit.is_some() && self.group.is_none() {
            "a consumer without a group cannot commit by itself".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Invalid, what))
    }
}

fn is_name(instance: &str) -> bool {
    let is_possible = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=INSTANCE_ID_BYTES_MAX).contains(&instance.len()) && instance.bytes().all(is_possible)
}
