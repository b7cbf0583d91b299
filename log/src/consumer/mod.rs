//! The consumer: reads assigned partitions from a position on, record by record, without copying.
//!
//! A position is the next offset to be read. It moves on only over what the caller was given, so what
//! [`Consumer::commit`] writes down is never ahead of it, nor ahead of what is synced.

mod assignment;
mod stream;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::time::Duration;

use crate::batch::{DecompressionBuffer, RecordView};
use crate::error::{Error, ErrorKind, Result};
use crate::group::{CommittedOffsets, OffsetCommit, offset_commits, offsets_partition};
use crate::log::Log;
use crate::partition::{Durability, Isolation};
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::storage::SyncPurpose;

use assignment::Assigned;

pub use stream::{ConsumedRecord, RecordStream};

/// How a [`Consumer`] reads.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Which records are read.
    pub isolation: Isolation,
    /// Bytes that are read from a partition at a time; a larger batch is read alone.
    pub fetch_bytes_max: usize,
    /// The group whose committed offsets are gone on from, and written by [`Consumer::commit`].
    pub group: Option<String>,
    /// Where a partition is read from that the group has committed nothing for.
    pub start: StartAt,
}

/// Where a partition is read from if nothing else says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StartAt {
    /// At its first record.
    #[default]
    Beginning,
    /// Behind its last one.
    End,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            fetch_bytes_max: 1 << 20,
            group: None,
            start: StartAt::Beginning,
        }
    }
}

/// Reads records from the partitions assigned to it.
pub struct Consumer {
    log: Log,
    options: ConsumerOptions,
    assigned: Vec<Assigned>,
    /// The one that is read first by the next poll, so that none starves.
    turn: usize,
    scratch: DecompressionBuffer,
    committed: CommittedOffsets,
    /// The log's progress before the last poll.
    seen: u64,
}

impl Consumer {
    /// A consumer of `log` that nothing is assigned to yet.
    ///
    /// # Errors
    /// Those of reading the group's committed offsets.
    pub fn new(log: &Log, options: ConsumerOptions) -> Result<Self> {
        let committed = match &options.group {
            Some(_) => CommittedOffsets::read(log)?,
            None => CommittedOffsets::default(),
        };
        let seen = log.progress().count();
        let scratch = DecompressionBuffer::new();
        Ok(Self { log: log.clone(), options, assigned: Vec::new(), turn: 0, scratch, committed, seen })
    }

    /// Reads these partitions from now on, instead of those before: each from where its group has
    /// committed, else from [`ConsumerOptions::start`]. Partitions that stay keep their positions. An
    /// offset committed for an earlier topic of the same name is not believed, and that is reported.
    ///
    /// # Errors
    /// `NotFound` for a topic or partition that does not exist; nothing changes then.
    pub fn assign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        if self.options.group.is_some() {
            self.committed.refresh(&self.log)?;
        }
        let assigned = partitions.iter().map(|name| self.assign_one(name)).collect::<Result<_>>()?;
        self.assigned = assigned;
        self.turn = 0;
        Ok(())
    }

    /// A consumer of all partitions of `topic`.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name there is; those of [`Self::new`].
    pub fn of_topic(log: &Log, topic: &str, options: ConsumerOptions) -> Result<Self> {
        let topic = log.topic(topic)?;
        let names: Vec<_> = topic.partitions().iter().map(|partition| partition.name().clone()).collect();
        let mut consumer = Self::new(log, options)?;
        consumer.assign(&names)?;
        Ok(consumer)
    }

    /// The partitions that are read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.iter().map(|assigned| assigned.partition.name())
    }

    /// Goes on at `offset`. Whether there is such a record shows when it is read.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.find(partition)?.position = offset;
        Ok(())
    }

    /// Goes on at the first record that is kept.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn seek_to_beginning(&mut self, partition: &TopicPartition) -> Result<()> {
        let assigned = self.find(partition)?;
        assigned.position = assigned.partition.offsets().start;
        Ok(())
    }

    /// Goes on behind the last record that may be read now.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn seek_to_end(&mut self, partition: &TopicPartition) -> Result<()> {
        let isolation = self.options.isolation;
        let assigned = self.find(partition)?;
        assigned.position = assigned.end(isolation);
        Ok(())
    }

    /// Goes on at the first record with this timestamp or a later one, or behind the last record if
    /// there is none. Returns the position.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned; those of reading.
    pub fn seek_to_time(&mut self, partition: &TopicPartition, time: Timestamp) -> Result<Offset> {
        let isolation = self.options.isolation;
        let assigned = self.find(partition)?;
        let end = assigned.end(isolation);
        let found = assigned.partition.offset_for_timestamp(time)?;
        assigned.position = found.map_or(end, |(offset, _)| offset.min(end));
        Ok(assigned.position)
    }

    /// The next offset to be read.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn position(&self, partition: &TopicPartition) -> Result<Offset> {
        let found = self.assigned.iter().find(|assigned| assigned.partition.name() == partition);
        found.map(|assigned| assigned.position).ok_or_else(|| not_assigned(partition))
    }

    /// How many offsets lie between the positions and the ends: the lag, in records or a little more.
    pub fn lag(&self) -> u64 {
        let lags = self.assigned.iter().map(|assigned| {
            let end = assigned.end(self.options.isolation);
            (end.0 - assigned.position.0).max(0) as u64
        });
        lags.sum()
    }

    /// Gives the next records to `visit`, from one partition, until what was fetched is used up or
    /// `visit` breaks; the record that it breaks on counts as read. The partitions take turns. Returns
    /// how many records were given: 0 if there is nothing to read now. Never waits: see
    /// [`Consumer::wait`].
    ///
    /// # Errors
    /// `OffsetOutOfRange` if a position lies outside of its partition; `Corrupt`; those of reading. The
    /// positions stand behind the last record given.
    pub fn poll(
        &mut self,
        mut visit: impl FnMut(&TopicPartition, RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<usize> {
        self.seen = self.log.progress().count();
        for _ in 0..self.assigned.len() {
            let index = self.turn % self.assigned.len();
            self.turn = index + 1;
            let count = self.assigned[index].read(&self.options, &mut self.scratch, &mut visit)?;
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }

    /// Gives all records that there are to read now to `visit`: those of a partition in order, the
    /// partitions in turn. Returns how many were given.
    ///
    /// # Errors
    /// The first one of `visit`, the record that it fails on being read; those of [`Self::poll`].
    pub fn read_to_end<E: From<Error>>(
        &mut self,
        mut visit: impl FnMut(&TopicPartition, RecordView<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut total = 0;
        loop {
            let mut outcome = Ok(());
            let read = self.poll(|partition, record| {
                outcome = visit(partition, record);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome?;
            if read == 0 {
                return Ok(total);
            }
            total += read as u64;
        }
    }

    /// Blocks until there may be more to read than at the last poll, or so much time has passed; returns
    /// whether there may. What another process appends to a log opened read-only is not noticed.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.log.progress().wait(self.seen, timeout)
    }

    /// Writes the positions down for the group, durably.
    ///
    /// Where committed offsets are synced, what lies below them is synced first: an offset beyond what
    /// a power cut leaves is never committed.
    ///
    /// # Errors
    /// `Invalid` without a group; those of appending and syncing.
    pub fn commit(&mut self) -> Result<()> {
        let Some(group) = &self.options.group else {
            return Err(Error::new(ErrorKind::Invalid, "a consumer without a group cannot commit offsets"));
        };
        let moved: Vec<_> = self.assigned.iter().filter(|assigned| assigned.is_uncommitted()).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let commits: Vec<_> = moved.iter().map(|assigned| assigned.commit()).collect();
        let batch = offset_commits(group, &commits, self.log.clock().now())?;
        let offsets = offsets_partition(&self.log)?;
        let is_synced = offsets.config().durability == Durability::Sync;
        let behind: Vec<_> = moved
            .iter()
            .filter(|assigned| assigned.partition.offsets().durable < assigned.position)
            .map(|assigned| assigned.partition.clone())
            .collect();
        if is_synced && !behind.is_empty() {
            self.log.flush(&behind, SyncPurpose::Consumed).wait()?;
        }
        offsets.append(batch)?;
        if is_synced {
            self.log.flush(&[offsets], SyncPurpose::Records).wait()?;
        }
        self.note_committed(&commits);
        Ok(())
    }

    fn note_committed(&mut self, commits: &[OffsetCommit]) {
        for commit in commits {
            let assigned = self.find(&commit.partition).expect("what was committed is assigned");
            assigned.committed = Some(commit.offset);
        }
    }

    fn assign_one(&self, name: &TopicPartition) -> Result<Assigned> {
        let topic = self.log.topic(&name.topic)?;
        let partition = topic.partition(name.partition)?;
        let stays = self.assigned.iter().find(|assigned| assigned.is_of(&partition));
        if let Some(stays) = stays {
            return Ok(stays.clone());
        }
        let group = self.options.group.as_deref();
        let committed = group.and_then(|group| self.committed.get(group, name));
        Ok(Assigned::new(partition, committed, &self.options))
    }

    fn find(&mut self, partition: &TopicPartition) -> Result<&mut Assigned> {
        let mut assigned = self.assigned.iter_mut();
        assigned
            .find(|assigned| assigned.partition.name() == partition)
            .ok_or_else(|| not_assigned(partition))
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("options", &self.options)
            .field("assigned", &self.assigned)
            .finish_non_exhaustive()
    }
}

fn not_assigned(partition: &TopicPartition) -> Error {
    let TopicPartition { topic, partition } = partition;
    let context = format!("topic {topic}, partition {partition} is not assigned to this consumer");
    Error::new(ErrorKind::Invalid, context)
}
