//! The port to the log: submit and poll, never blocking once a flow runs. The embedded log and a Kafka
//! cluster are two adapters of it, with one conformance suite.
//!
//! One `EventLog` is one processor's hold on the log: it owns the transactional id, and at most one
//! transaction is open at a time. It is shared by the workers, which append, and the coordinator, which
//! begins and commits.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lotic_log::batch::SealedBatch;
use lotic_log::{Offset, PartitionId, Pin, TopicConfig, TopicId};

use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};

/// A topic as the flow needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic's name.
    pub name: String,
    /// Partitions to make it with where it is missing; where it exists and this is set, it must agree.
    pub partitions: Option<i32>,
    /// Whether only the newest record of each key is kept.
    pub compacted: bool,
    /// Whether it is made where missing. A topic that is only read must exist.
    pub create: bool,
    /// What its keys and values are, for instance `json/1`; kept as topic configuration when the flow
    /// makes the topic, and compared when it exists.
    pub key_format: Option<String>,
    /// The flow whose internal topic it is: changelogs and epoch records. Kept as topic configuration too; one
    /// that another flow owns is not written.
    pub owner: Option<String>,
}

impl TopicSpec {
    /// Whether a topic that exists with these properties is the one that is meant. Every adapter's
    /// `resolve` asks this, so that all refuse the same in the same words.
    pub fn check(&self, partitions: i32, key_format: Option<&str>) -> Result<()> {
        let refuse = |what: String| {
            let context = format!("topic {} {what}", self.name);
            Err(Error::new(ErrorKind::Incompatible, context))
        };
        if let Some(declared) = self.partitions.filter(|declared| *declared != partitions) {
            return refuse(format!("has {partitions} partitions, the program declares {declared}"));
        }
        match (key_format, self.key_format.as_deref()) {
            (Some(found), Some(declared)) if found != declared => {
                refuse(format!("has keys written as {found}, the program declares {declared}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a topic that exists may be used so, with the owner that it has. Names alone do not say: flow `a-b`
    /// and its store `c` make the same name as flow `a` and its store `b-c`.
    pub fn check_owner(&self, owner: Option<&str>) -> Result<()> {
        let is_foreign = self.create && owner.is_some() && owner != self.owner.as_deref();
        if !is_foreign {
            return Ok(());
        }
        let context = format!(
            "topic {} belongs to flow {}, which keeps its state or its epochs there; call the flow, the step or \
             the topic otherwise",
            self.name,
            owner.unwrap_or_default(),
        );
        Err(Error::new(ErrorKind::Incompatible, context))
    }

    /// Whether a topic can be called so and have so many partitions. Those that the log keeps for itself can be read
    /// only.
    ///
    /// # Errors
    /// `Invalid`, saying what is possible.
    pub fn check_possible(&self) -> Result<()> {
        let config = TopicConfig {
            partitions: self.partitions.unwrap_or(1),
            key_format: self.key_format.clone(),
            owner: self.owner.clone(),
            ..TopicConfig::default()
        };
        let checked = if self.create { config.check_creatable(&self.name) } else { config.check(&self.name) };
        Ok(checked?)
    }
}

/// A topic of the log, resolved once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicHandle {
    /// The adapter's number for it, small and dense.
    pub index: u32,
    /// The topic's name.
    pub name: Arc<str>,
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
}

/// The topics that a flow reads or writes, resolved once for all its steps.
#[derive(Clone, Debug, Default)]
pub struct Topics(HashMap<Arc<str>, TopicHandle>);

impl Topics {
    /// The topic of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the graph does not declare it.
    pub fn get(&self, name: &str) -> Result<&TopicHandle> {
        self.0.get(name).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("topic {name} is not among those that the flow declares"))
        })
    }
}

impl Topics {
    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &TopicHandle> {
        self.0.values()
    }

    /// The topic with this [`TopicHandle::index`].
    pub fn by_index(&self, index: u32) -> Option<&TopicHandle> {
        self.0.values().find(|topic| topic.index == index)
    }
}

impl FromIterator<TopicHandle> for Topics {
    fn from_iter<I: IntoIterator<Item = TopicHandle>>(handles: I) -> Self {
        Self(handles.into_iter().map(|handle| (handle.name.clone(), handle)).collect())
    }
}

/// Names one partition of a resolved topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// [`TopicHandle::index`].
    pub topic: u32,
    /// The partition.
    pub partition: PartitionId,
}

/// An append that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendTicket(pub u64);

/// How a commit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPoll {
    /// Not decided yet.
    Pending,
    /// Decided, and the markers are in every partition: the next transaction may begin.
    Committed,
    /// Aborted: nothing of it will ever be visible.
    Aborted,
    /// Another processor has taken the transactional id.
    Fenced,
    /// Not known. Reopen, and read the last epoch record.
    Unknown,
}

/// Whole batches read from a partition, of committed transactions only: aborted ones and markers are out.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Record batches back to back; the first may begin before the offset asked for, and batches to be
    /// skipped are among them.
    pub bytes: Bytes,
    /// The transactions in `bytes` whose batches are to be skipped.
    pub aborted: Vec<lotic_log::AbortedTransaction>,
    /// Where to fetch next.
    pub next: Offset,
}

/// A processor's hold on the log.
pub trait EventLog: Send + Sync + 'static {
    /// Finds a topic, and makes it where it is missing and the spec says so. A topic that exists otherwise
    /// than the spec says is refused, and nothing is changed. Called while a flow is opened; may block.
    fn resolve(&self, spec: &TopicSpec) -> Result<TopicHandle>;

    /// The topic of this name, if there is one. Changes nothing.
    fn find(&self, name: &str) -> Result<Option<TopicHandle>>;

    /// Reads committed records from `from` on. `None`: nothing there now.
    fn fetch(&self, partition: PartitionKey, from: Offset, bytes_max: usize) -> Result<Option<Fetched>>;

    /// The first offset of a partition.
    fn start_offset(&self, partition: PartitionKey) -> Result<Offset>;

    /// The offset behind the last committed record (the last stable offset).
    fn stable_offset(&self, partition: PartitionKey) -> Result<Offset>;

    /// Keeps a partition as it is from `from` on for as long as the pin lives: nobody removes or rewrites what a
    /// restore is going to read. None where nobody would.
    fn pin(&self, _partition: PartitionKey, _from: Offset) -> Result<Option<Pin>> {
        Ok(None)
    }

    /// Has every deletion at and behind `floor` kept in a compacted partition: somebody may read on from there.
    /// Returns the floor that holds: the one before where that is higher, since deletions before it may be gone.
    /// Offset 0 where nobody compacts.
    fn raise_tombstone_floor(&self, _partition: PartitionKey, _floor: Offset) -> Result<Offset> {
        Ok(Offset(0))
    }

    /// Takes the transactional id, if that was not done. From then on nothing that an earlier holder submitted
    /// is decided any more: what was decided can be read, everything else is aborted.
    fn hold(&self) -> Result<()>;

    /// Opens the transaction of `epoch`, and takes the transactional id before the first. At most one is open.
    fn begin(&self, epoch: Epoch) -> Result<()>;

    /// Submits a batch to the open transaction. May be called from every worker.
    fn append(&self, partition: PartitionKey, batch: SealedBatch) -> Result<AppendTicket>;

    /// The end offset that the open transaction has reached in each partition it wrote; `None` while
    /// appends are not acknowledged yet.
    fn ends(&self) -> Result<Option<Vec<(PartitionKey, Offset)>>>;

    /// Submits the commit of the open transaction, once every append is acknowledged. What the transaction
    /// wrote and the `consumed` partitions up to these offsets are durable before it is decided; the
    /// offsets are written to the consumer group of the flow's name in the same transaction.
    fn commit(&self, epoch: Epoch, consumed: &[(PartitionKey, Offset)]) -> Result<()>;

    /// How the commit stands.
    fn poll_commit(&self, epoch: Epoch) -> Result<CommitPoll>;

    /// Aborts the open transaction, if there is one.
    fn abort(&self) -> Result<()>;

    /// Moves background work along where nobody else does. Whether anything moved.
    fn step(&self) -> Result<bool>;

    /// Calls `wake` when a commit may have moved on or records may have become visible. It may be called
    /// from any thread, also without reason.
    fn on_progress(&self, wake: Arc<dyn Fn() + Send + Sync>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_the_log_keeps_for_itself_can_be_read_and_not_written() {
        let spec = |create| TopicSpec {
            name: "__consumer_offsets".to_owned(),
            partitions: None,
            compacted: false,
            create,
            key_format: None,
            owner: None,
        };
        spec(false).check_possible().expect("it is read");
        let error = spec(true).check_possible().expect_err("it would be written");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}
