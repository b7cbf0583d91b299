//! The port of what feeds a flow: topics, files, external systems.

use lotic_log::{Offset, PartitionId, Timestamp, TopicId};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::event_log::EventLog;
use crate::frame::Data;
use crate::operator::Context;

/// Makes a source's readers, one for each worker and each attempt.
pub trait SourceFactory: Send + Sync {
    /// The independent parts of the source, for instance the partitions of a topic. Split `i` is read by
    /// worker `i % workers`. Called once for each attempt, before any reader is opened.
    fn splits(&self, log: &dyn EventLog) -> Result<Vec<String>>;

    /// The topic without which it cannot be opened, if there is one.
    fn topic(&self) -> Option<&str> {
        None
    }

    /// How many milliseconds its watermark stays behind the largest event time of each split. What a flow with state
    /// has read of it binds it to that: with another one, windows that are final would begin anew, or end early.
    fn disorder_ms(&self) -> Option<i64> {
        None
    }

    /// Opens a reader of `splits`, each where the last committed epoch left it, or at its beginning. Called
    /// before the flow has written anything: whatever is wrong with the input is to be refused here.
    fn open(&self, splits: Vec<SplitStart>, context: &mut SourceOpenContext<'_>) -> Result<Box<dyn Source>>;
}

/// A source that says which rows it emits on port 0, so that what follows it is typed. Where it gives
/// malformed input out, it does so on port 1, as [`lotic_log::Record`]s.
pub trait RowSource: SourceFactory + 'static {
    /// What its frames hold.
    type Row: Data;

    /// What it is, for `explain`: for instance `file flights.csv`.
    fn description(&self) -> String;
}

/// What a source is given when it is opened.
pub struct SourceOpenContext<'a> {
    /// The step's name, for messages.
    pub step: &'a str,
    /// The number that its origins carry.
    pub source: u32,
    /// The log to read topics from.
    pub log: &'a std::sync::Arc<dyn EventLog>,
    /// How many events a frame holds at most.
    pub frame_rows_max: usize,
    /// Whether to end at the end that the input has now, or to wait for more.
    pub bounded: bool,
    /// Whether it holds from the beginning of time: its records carry no watermark, it expects nothing, and
    /// a poll that finds it read to its end says [`SourcePoll::Pending`], once an epoch.
    pub timeless: bool,
}

/// A split, and where to start in it.
#[derive(Clone, Debug)]
pub struct SplitStart {
    /// The split's name, as [`SourceFactory::splits`] gave it.
    pub split: String,
    /// What the last committed epoch recorded of it.
    pub state: Option<SplitState>,
}

/// What an epoch record keeps of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// The split's name.
    pub split: String,
    /// Everything before this place was consumed.
    pub position: Position,
    /// The largest event time yielded, from which the watermark goes on.
    pub event_time_max: Option<i64>,
    /// For a timeless source: the offset at which it ended at the first start.
    pub timeless_end: Option<i64>,
    /// What of it could not be decoded.
    #[serde(flatten)]
    pub rejected: Rejected,
}

/// Records or rows that could not be decoded, of all that was read since the flow began. It is part of the
/// epoch record, so each is counted once, whatever crashes, and a later run still knows of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Those that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Those that went to the dead-letter topic.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dead_lettered: u64,
}

impl std::iter::Sum for Rejected {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, next| Self {
            skipped: sum.skipped + next.skipped,
            dead_lettered: sum.dead_lettered + next.dead_lettered,
        })
    }
}

/// Most splits have rejected nothing, and their records need not say so.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A split's state, with the source it belongs to: splits are named within their source only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSplit {
    /// The source step's name.
    pub source: String,
    /// Where the split stood.
    #[serde(flatten)]
    pub state: SplitState,
}

/// A place in a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// In a partition of a topic.
    Topic {
        /// The topic's name.
        topic: String,
        /// Its id in Kafka's form: a topic deleted and made again under the same name is noticed.
        topic_id: String,
        /// The partition.
        partition: i32,
        /// The offset of the next record to read.
        offset: i64,
    },
    /// In something that only the source understands.
    External(serde_json::Value),
}

impl Position {
    /// A place in a partition.
    pub fn topic(topic: &str, id: TopicId, partition: PartitionId, offset: Offset) -> Self {
        Self::Topic {
            topic: topic.to_owned(),
            topic_id: id.to_string(),
            partition: partition.0,
            offset: offset.0,
        }
    }
}

/// A reader of some splits on one worker. It never blocks.
pub trait Source: Send {
    /// Reads at most one frame and emits it on port 0, then the watermark where it has risen. Records are
    /// yielded from the split whose next one is earliest, as a preference. Not called again after
    /// [`SourcePoll::Ended`].
    fn poll(&mut self, context: &mut Context<'_>) -> Result<SourcePoll>;

    /// What the next poll would emit, if something is at hand: by this it is decided which source is polled. A
    /// source that has nothing at hand is polled whenever there is room.
    fn at_hand(&mut self) -> Result<Option<AtHand>>;

    /// Where each split stands: all records before have been emitted, none after.
    fn positions(&self) -> Vec<SplitState>;

    /// `epoch` is committed: what was read up to its barrier will not be asked for again.
    fn committed(&mut self, epoch: crate::epoch::Epoch) -> Result<()> {
        let _ = epoch;
        Ok(())
    }
}

/// The event times of what a source has at hand. They may be guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtHand {
    /// That of the next record: sources that are ahead are made to wait.
    pub first: Timestamp,
    /// The largest one in the next frame: what these records will wait for is read before them.
    pub last: Timestamp,
    /// How far the watermark is that the next frame moves on.
    pub watermark: Timestamp,
}

/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePoll {
    /// Something was emitted or consumed; poll again.
    Ready,
    /// Nothing is there now.
    Pending,
    /// The bounded input is used up.
    Ended,
}
