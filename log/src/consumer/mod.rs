//! The consumer: reads partitions from a position on, record by record, without copying.
//!
//! The partitions are assigned by hand, or subscribed to and shared out among the members of a group. A
//! position is the next offset to be read. It moves on only over what the caller was given, so what
//! [`Consumer::commit`] writes down is never ahead of it, nor ahead of what is synced.

mod assignment;
mod commit;
mod options;
mod stream;
mod subscription;

#[cfg(test)]
mod auto_commit_tests;
#[cfg(test)]
mod closed_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod static_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod waiting_tests;

use std::ops::ControlFlow;
use std::time::Duration;

use hashbrown::HashSet;

use crate::batch::{DecompressionBuffer, RecordView};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::record::{Offset, Timestamp, TopicPartition};

use assignment::Assigned;
use subscription::Member;

pub use commit::OffsetAndMetadata;
pub use options::{ConsumerOptions, OutOfRange, StartAt};
pub use stream::{ConsumedRecord, RecordStream};
pub use subscription::RebalanceListener;

/// Reads records from partitions: those assigned to it by [`Self::assign`], or those of the topics it has
/// subscribed to that its group gives it. One thread uses it at a time.
///
/// A member of a group leaves it when it is dropped, unless it is a static one
/// ([`ConsumerOptions::instance_id`]); its listener is not called then. Positions are committed when the
/// program says so, or by the consumer itself where that is asked for ([`ConsumerOptions::auto_commit`]).
///
/// ```
/// use std::ops::ControlFlow;
///
/// use lotic_log::{
///     Consumer, ConsumerOptions, Log, LogOptions, Producer, ProducerOptions, Record, TopicConfig,
/// };
///
/// # fn main() -> lotic_log::Result<()> {
/// # let folder = tempfile::tempdir().expect("a folder");
/// let log = Log::open(folder.path(), LogOptions::disk()?)?;
/// log.create_topic("orders", TopicConfig { partitions: 4, ..TopicConfig::default() })?;
/// let producer = Producer::new(&log, ProducerOptions::default())?;
/// producer.send("orders", Record { value: Some("one".into()), ..Record::default() }).wait()?;
///
/// // Two members of the group "billing" share the four partitions.
/// let options = ConsumerOptions { group: Some("billing".to_owned()), ..ConsumerOptions::default() };
/// let mut members = [Consumer::new(&log, options.clone())?, Consumer::new(&log, options)?];
/// for member in &mut members {
///     member.subscribe(&["orders"])?;
/// }
/// let mut values = Vec::new();
/// for turn in 0..10 {
///     let member = &mut members[turn % 2];
///     member.poll(|_partition, record| {
///         values.push(record.value.map(<[u8]>::to_vec));
///         ControlFlow::Continue(())
///     })?;
///     match member.commit() {
///         // A rebalance is under way: what is still its own is committed after the next poll.
///         Err(error) if error.kind() == lotic_log::ErrorKind::Retry => {}
///         committed => committed?,
///     }
/// }
/// assert_eq!(values, [Some(b"one".to_vec())]);
/// assert!(members.iter().all(|member| member.assignment().count() == 2));
/// assert_eq!(log.group("billing")?.lag(), 0);
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    log: Log,
    options: ConsumerOptions,
    assigned: Vec<Assigned>,
    /// The one that is read first by the next poll, so that none starves.
    turn: usize,
    scratch: DecompressionBuffer,
    /// None where partitions are assigned by hand.
    member: Option<Member>,
    listener: Option<Box<dyn RebalanceListener>>,
    /// Whether the listener is being called.
    is_rebalancing: bool,
    /// The log's progress before the last poll.
    seen: u64,
    /// When the consumer commits by itself next, on the clock's elapsed time, if it does at all.
    commit_due: Duration,
}

impl Consumer {
    /// A consumer of `log` that nothing is assigned to yet.
    ///
    /// # Errors
    /// `Invalid` for a group's name that is empty or has more than 32,767 bytes, a client id of more than
    /// 255, a name that no static member may have, and one that is to commit by itself without a group.
    pub fn new(log: &Log, options: ConsumerOptions) -> Result<Self> {
        options.check()?;
        let commit_due = log.clock().elapsed().saturating_add(options.auto_commit.unwrap_or_default());
        Ok(Self {
            log: log.clone(),
            options,
            assigned: Vec::new(),
            turn: 0,
            scratch: DecompressionBuffer::new(),
            member: None,
            listener: None,
            is_rebalancing: false,
            seen: log.progress().count(),
            commit_due,
        })
    }

    /// Reads these partitions from now on, instead of those before: each from where its group has
    /// committed, else from [`ConsumerOptions::start`]. One that is named twice counts once. Partitions that stay
    /// keep their positions. An
    /// offset committed for an earlier topic of the same name is not believed, and that is reported. A
    /// member of a group leaves it. Where nobody has committed in this log yet, the topic for that is made here,
    /// unless the log was opened read-only: so no commit has to.
    ///
    /// # Errors
    /// `NotFound` for a topic or partition that does not exist; nothing changes then. Those of
    /// [`Log::create_topic`]; those of reading what was committed; those of [`Self::commit`] for one that commits by
    /// itself.
    pub fn assign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let mut named = HashSet::new();
        let once = partitions.iter().filter(|name| named.insert(*name));
        let assigned = once.map(|name| self.assign_one(name)).collect::<Result<_>>()?;
        self.make_offsets_topic()?;
        self.commit_by_itself()?;
        self.leave();
        self.assigned = assigned;
        self.turn = 0;
        match self.find_positions() {
            // There may be a seek before it is read.
            Err(error) if error.kind() == ErrorKind::OffsetOutOfRange => Ok(()),
            found => found,
        }
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
        self.assigned.iter().map(Assigned::name)
    }

    /// Gives no records of these partitions until [`Self::resume`]. What is assigned anew is not paused.
    ///
    /// # Errors
    /// `Invalid` if one of them is not assigned.
    pub fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        partitions.iter().try_for_each(|partition| self.find(partition).map(|found| found.is_paused = true))
    }

    /// Gives records of these partitions again.
    ///
    /// # Errors
    /// `Invalid` if one of them is not assigned.
    pub fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        partitions.iter().try_for_each(|partition| self.find(partition).map(|found| found.is_paused = false))
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.iter().filter(|assigned| assigned.is_paused).map(Assigned::name)
    }

    /// Goes on at `offset`. Whether there is such a record shows when it is read.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.find(partition)?.position = Some(offset);
        Ok(())
    }

    /// Goes on at the first record that is kept.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn seek_to_beginning(&mut self, partition: &TopicPartition) -> Result<()> {
        let assigned = self.find(partition)?;
        assigned.position = Some(assigned.partition.offsets().start);
        Ok(())
    }

    /// Goes on behind the last record that may be read now.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn seek_to_end(&mut self, partition: &TopicPartition) -> Result<()> {
        let isolation = self.options.isolation;
        let assigned = self.find(partition)?;
        assigned.position = Some(assigned.end(isolation));
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
        let found = assigned.at_time(time, isolation)?;
        assigned.position = Some(found);
        Ok(found)
    }

    /// Goes on at the record with the largest timestamp, the first one of several, or behind the last record if
    /// there is none. Returns the position.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned; those of reading.
    pub fn seek_to_max_timestamp(&mut self, partition: &TopicPartition) -> Result<Offset> {
        let isolation = self.options.isolation;
        let assigned = self.find(partition)?;
        let found = assigned.at_max_timestamp(isolation)?;
        assigned.position = Some(found);
        Ok(found)
    }

    /// The next offset to be read.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned; `Retry` if it is not known yet where to begin: nothing
    /// says so, which the next poll tells, or an open transaction is about to.
    pub fn position(&self, partition: &TopicPartition) -> Result<Offset> {
        self.get(partition)?.position.ok_or_else(|| {
            let what = format!("it is not known yet where {partition} is read from: poll, or seek");
            Error::new(ErrorKind::Retry, what)
        })
    }

    /// How many offsets lie between the positions and the ends: the lag, in records or a little more.
    /// Partitions of which it is not known yet where they are read from count for nothing.
    pub fn lag(&self) -> u64 {
        let lags = self.assigned.iter().filter_map(|assigned| assigned.lag(self.options.isolation));
        lags.fold(0, u64::saturating_add)
    }

    /// The lag in one partition; none if it is not known yet where it is read from.
    ///
    /// # Errors
    /// `Invalid` if the partition is not assigned.
    pub fn lag_in(&self, partition: &TopicPartition) -> Result<Option<u64>> {
        Ok(self.get(partition)?.lag(self.options.isolation))
    }

    /// Gives the next records to `visit`, from one partition, until what was fetched is used up or
    /// `visit` breaks; the record that it breaks on counts as read. The partitions take turns. Returns
    /// how many records were given: 0 if there is nothing to read now. Never waits for records: see
    /// [`Consumer::wait`].
    ///
    /// A member of a group takes part in its rebalances first, which may give it other partitions; it is
    /// removed from the group if it neither polls nor [waits](Self::wait) for
    /// [`ConsumerOptions::poll_interval_max`].
    ///
    /// # Errors
    /// `Fenced` for a static member of which another consumer has the name;
    /// `OffsetOutOfRange` if a position lies outside of its partition, or nothing says where to begin,
    /// unless the options say otherwise; `Corrupt`; those of reading; those of the rebalance listener; those
    /// of [`Self::commit`] for one that commits by itself, which goes on at the next poll and tries again
    /// when the time has come; `NotFound` once the topic of a partition that was assigned by hand is deleted, by
    /// another process too; `Closed` once the log is closed. The positions stand behind the last record given.
    pub fn poll(
        &mut self,
        visit: impl FnMut(&TopicPartition, RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<usize> {
        self.log.check_not_closed()?;
        match self.poll_open(visit) {
            Ok(0) => self.log.check_not_closed().map(|()| 0),
            polled => self.or_closed(polled),
        }
    }

    fn poll_open(
        &mut self,
        mut visit: impl FnMut(&TopicPartition, RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<usize> {
        self.seen = self.log.progress().count();
        self.take_part()?;
        self.commit_if_due()?;
        self.find_positions()?;
        let now = || self.log.clock().now();
        for _ in 0..self.assigned.len() {
            let index = self.turn % self.assigned.len();
            self.turn = index + 1;
            self.log.check_not_deleted_elsewhere(&self.assigned[index].partition)?;
            match self.assigned[index].read(&self.options, now, &mut self.scratch, &mut visit) {
                Ok(0) => {}
                // The next poll lets go of it.
                Err(error) if error.kind() == ErrorKind::NotFound && self.member.is_some() => {}
                read => return read,
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
    /// whether there may. What another process appends to a log opened read-only is not noticed. A member of
    /// a group that waits stays one, however long; one that does not poll though there may be more does not
    /// wait.
    ///
    /// # Errors
    /// `Closed` once the log is closed, which ends the waiting.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let longest = match &self.member {
            Some(_) => self.sign_of_life_interval(),
            None => timeout,
        };
        let progress = self.log.progress();
        let mut left = timeout;
        while progress.count() == self.seen {
            self.give_sign_of_life();
            let time = left.min(longest);
            if !progress.wait(self.seen, time) {
                left -= time;
                if left.is_zero() {
                    return self.log.check_not_closed().map(|()| false);
                }
            }
        }
        self.log.check_not_closed().map(|()| true)
    }

    /// The outcome, unless it is an error of a log that is closed, whatever the closing has made it say.
    fn or_closed<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.or_else(|error| self.log.check_not_closed().and(Err(error)))
    }

    fn assign_one(&self, name: &TopicPartition) -> Result<Assigned> {
        let topic = self.log.topic(&name.topic)?;
        let partition = topic.partition(name.partition)?;
        let stays = self.assigned.iter().find(|assigned| assigned.is_of(&partition));
        Ok(stays.cloned().unwrap_or_else(|| Assigned::new(partition)))
    }

    fn get(&self, partition: &TopicPartition) -> Result<&Assigned> {
        let found = self.assigned.iter().find(|assigned| assigned.name() == partition);
        found.ok_or_else(|| not_assigned(partition))
    }

    fn find(&mut self, partition: &TopicPartition) -> Result<&mut Assigned> {
        let mut assigned = self.assigned.iter_mut();
        assigned.find(|assigned| assigned.name() == partition).ok_or_else(|| not_assigned(partition))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // What is being processed while a thread panics is not done.
        if !std::thread::panicking()
            && let Err(error) = self.commit_by_itself()
        {
            tracing::warn!(%error, "the positions of a consumer that was dropped are not committed");
        }
        self.leave();
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
