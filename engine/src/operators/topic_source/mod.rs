//! The topic source: records of a topic enter a flow as rows.
//!
//! [`TopicSource`] says how; its factory opens one [`reader`](self) for each worker, over that worker's share
//! of the partitions. A partition is read batch by batch; of several, the one whose next batch is earliest.

mod decoded;
mod idle;
mod partition;
mod reader;

use std::sync::Arc;

use lotic_log::batch::RecordView;
use lotic_log::{Offset, PartitionId, Timestamp};
use parking_lot::Mutex;

use crate::codec::CodecError;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, PartitionKey, TopicHandle};
use crate::frame::Data;
use crate::source::{Position, Source, SourceFactory, SourceOpenContext, SplitStart, SplitState};
use idle::{IdleBoard, Idleness};
use partition::PartitionReader;
use reader::TopicReader;

/// How many bytes a partition is asked for at a time, unless the source is told otherwise.
const FETCH_BYTES: usize = 1 << 20;

/// What happens to a record that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadRecord {
    /// The flow stops with an error that names it.
    #[default]
    Fail,
    /// It is left out and counted.
    Skip,
    /// It goes to port 1 as it is, a [`Record`](lotic_log::Record) with the headers in [`dead_letter`], and is
    /// counted.
    DeadLetter,
}

/// The headers that a dead letter has besides its record's own.
pub mod dead_letter {
    /// The topic where it was found.
    pub const TOPIC: &str = "dead-letter.topic";
    /// The partition, as a decimal number.
    pub const PARTITION: &str = "dead-letter.partition";
    /// The offset, as a decimal number.
    pub const OFFSET: &str = "dead-letter.offset";
    /// Why it could not be decoded.
    pub const ERROR: &str = "dead-letter.error";
}

/// Reads a topic: committed records only, in the order of each partition.
pub struct TopicSource<D, F> {
    topic: String,
    decode: Arc<D>,
    time: Arc<F>,
    settings: Settings,
    /// What the readers of one attempt share.
    board: Mutex<Arc<IdleBoard>>,
}

/// How a topic is read.
#[derive(Clone, Copy, Debug)]
struct Settings {
    disorder_ms: i64,
    bad_record: BadRecord,
    is_keyed: bool,
    idle_ms: Option<i64>,
    fetch_bytes: usize,
}

impl<D, F> TopicSource<D, F> {
    /// A source of the rows that `decode` makes of the records of `topic`, at the event times that `time`
    /// takes from row and record timestamp.
    pub fn new<T>(topic: impl Into<String>, decode: D, time: F) -> Self
    where
        T: Data,
        D: Fn(&RecordView<'_>) -> Result<T, CodecError> + Send + Sync + 'static,
        F: Fn(&T, Timestamp) -> Timestamp + Send + Sync + 'static,
    {
        let settings = Settings {
            disorder_ms: 0,
            bad_record: BadRecord::Fail,
            is_keyed: false,
            idle_ms: None,
            fetch_bytes: FETCH_BYTES,
        };
        let board = Mutex::new(Arc::new(IdleBoard::new(0)));
        Self { topic: topic.into(), decode: Arc::new(decode), time: Arc::new(time), settings, board }
    }

    /// Event times within a partition may be out of order by so many milliseconds; its watermark is the
    /// largest one read, less this.
    #[must_use]
    pub fn disorder_ms(mut self, disorder_ms: i64) -> Self {
        self.settings.disorder_ms = disorder_ms;
        self
    }

    /// What happens to a record that cannot be decoded.
    #[must_use]
    pub fn bad_records(mut self, policy: BadRecord) -> Self {
        self.settings.bad_record = policy;
        self
    }

    /// The rows have the records' keys. Each record must be where Kafka's default partitioner puts its key;
    /// then a watermark can be said of each partition, and a join need not wait for those that cannot hold
    /// a key.
    #[must_use]
    pub fn keyed(mut self) -> Self {
        self.settings.is_keyed = true;
        self
    }

    /// A partition that has given nothing for so many milliseconds of wall-clock time no longer holds the
    /// watermark back; what comes later and is behind the others is late. So the answer no longer depends on
    /// the log alone. Off unless it is said, and always where input is bounded.
    #[must_use]
    pub fn idle_ms(mut self, idle_ms: i64) -> Self {
        self.settings.idle_ms = Some(idle_ms);
        self
    }

    /// How many bytes a partition is asked for at a time.
    #[must_use]
    pub fn fetch_bytes(mut self, fetch_bytes: usize) -> Self {
        self.settings.fetch_bytes = fetch_bytes;
        self
    }

    fn handle(&self, log: &dyn EventLog) -> Result<TopicHandle> {
        let missing = || Error::new(ErrorKind::Invalid, format!("there is no topic {}", self.topic));
        log.find(&self.topic)?.ok_or_else(missing)
    }
}

impl<T, D, F> SourceFactory for TopicSource<D, F>
where
    T: Data,
    D: Fn(&RecordView<'_>) -> Result<T, CodecError> + Send + Sync + 'static,
    F: Fn(&T, Timestamp) -> Timestamp + Send + Sync + 'static,
{
    fn splits(&self, log: &dyn EventLog) -> Result<Vec<String>> {
        let partitions = self.handle(log)?.partitions;
        *self.board.lock() = Arc::new(IdleBoard::new(partitions));
        Ok((0..partitions).map(|partition| format!("{}-{partition}", self.topic)).collect())
    }

    fn topic(&self) -> Option<&str> {
        Some(&self.topic)
    }

    fn disorder_ms(&self) -> Option<i64> {
        Some(self.settings.disorder_ms)
    }

    fn open(&self, splits: Vec<SplitStart>, context: &mut SourceOpenContext<'_>) -> Result<Box<dyn Source>> {
        let handle = self.handle(&**context.log)?;
        let open = |start| open_partition(start, &handle, self.settings.fetch_bytes, context);
        let partitions = splits.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let idle_ms = self.settings.idle_ms.filter(|_| !context.bounded && !context.timeless);
        let idleness = idle_ms.map(|idle_ms| {
            let board = Arc::clone(&self.board.lock());
            Idleness::new(idle_ms, self.settings.disorder_ms, board, partitions.len())
        });
        Ok(Box::new(TopicReader::new(
            (Arc::clone(&self.decode), Arc::clone(&self.time)),
            self.settings,
            handle,
            (partitions, idleness),
            context,
        )))
    }
}

/// A reader of one partition, from where the last committed epoch left it.
fn open_partition(
    start: SplitStart,
    topic: &TopicHandle,
    fetch_bytes: usize,
    context: &SourceOpenContext<'_>,
) -> Result<PartitionReader> {
    let number = start.split.strip_prefix(&*topic.name).and_then(|rest| rest.strip_prefix('-'));
    let number = number.and_then(|number| number.parse().ok());
    let partition = PartitionId(number.expect("a split of a topic is named as `splits` names it"));
    let key = PartitionKey { topic: topic.index, partition };
    let position = match &start.state {
        Some(state) => recorded_offset(state, topic)?,
        None => context.log.start_offset(key)?,
    };
    let stable = context.log.stable_offset(key)?;
    let mut reader = PartitionReader::new(start.split, key, position, fetch_bytes);
    reader.rejected = start.state.as_ref().map(|state| state.rejected).unwrap_or_default();
    reader.event_time_max = start.state.as_ref().and_then(|state| state.event_time_max).map(Timestamp);
    reader.emitted_time_max = reader.event_time_max;
    reader.bounded_end = context.bounded.then_some(stable);
    reader.end = reader.bounded_end;
    if context.timeless {
        let recorded = start.state.as_ref().and_then(|state| state.timeless_end).map(Offset);
        let first_end = recorded.unwrap_or(stable);
        reader.timeless_end = Some(first_end);
        // A first load that was interrupted ends where it would have ended.
        reader.end = Some(if position < first_end { first_end.min(stable) } else { stable });
    }
    Ok(reader)
}

/// The offset in a recorded position, which must be one in this very topic.
fn recorded_offset(state: &SplitState, handle: &TopicHandle) -> Result<Offset> {
    match &state.position {
        Position::Topic { topic_id, offset, .. } if *topic_id == handle.id.to_string() => Ok(Offset(*offset)),
        position => {
            let (name, id) = (&handle.name, handle.id);
            let what = format!(
                "topic {name} has the id {id}, and the last epoch stopped in {position:?}: \
                 the topic was deleted and made again"
            );
            Err(Error::new(ErrorKind::Incompatible, what))
        }
    }
}

#[cfg(test)]
mod tests;
