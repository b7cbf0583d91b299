//! The consumer as a stream of records that stand on their own, for code that awaits.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::Stream;

use super::Consumer;
use super::assignment::Assigned;
use crate::alarms::Alarm;
use crate::error::Result;
use crate::record::{Offset, Record, TopicPartition};

/// A record and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its topic and partition.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// The record; its timestamp is always there.
    pub record: Record,
}

/// The records that a consumer reads, one by one, those that are still to come too: it never ends. Once the log is
/// closed it answers `Closed` whenever it is asked, and whoever awaits it then is woken to hear that.
///
/// The records of one fetch are copied out ahead of being asked for, so the consumer's positions run
/// ahead of what was yielded; [`RecordStream::into_consumer`] sets them back, and
/// [`RecordStream::commit`] commits only what was yielded. A member of a group takes part in its
/// rebalances when the next fetch is asked for: by then everything before was yielded. Who awaits records is
/// woken, while none come, when it is time for a consumer that commits by itself to commit, and twice in
/// [`ConsumerOptions::poll_interval_max`](super::ConsumerOptions::poll_interval_max) where it is a member of
/// a group, which stays one by being awaited.
pub struct RecordStream {
    /// There until it is taken.
    consumer: Option<Consumer>,
    ahead: VecDeque<ConsumedRecord>,
    /// There once it was waited for, where the consumer has something to do by a certain time.
    alarm: Option<Alarm>,
}

/// The stream has its consumer for as long as it is there itself.
const HAS_CONSUMER: &str = "only the end of the stream takes the consumer";

impl RecordStream {
    /// The consumer, its positions set back to behind the last record that was yielded.
    pub fn into_consumer(mut self) -> Consumer {
        self.take_consumer().expect(HAS_CONSUMER)
    }

    fn take_consumer(&mut self) -> Option<Consumer> {
        let mut consumer = self.consumer.take()?;
        // Backwards, so that the first record of each partition that was not yielded has the last word.
        for record in self.ahead.drain(..).rev() {
            let sought = consumer.seek(&record.partition, record.offset);
            sought.expect("what was read is assigned");
        }
        Some(consumer)
    }

    /// Writes down for the group, durably, what was yielded so far.
    ///
    /// # Errors
    /// Those of [`Consumer::commit`].
    pub fn commit(&mut self) -> Result<()> {
        let (ahead, consumer) = (&self.ahead, self.consumer.as_mut().expect(HAS_CONSUMER));
        consumer.commit_up_to(|assigned| yielded_up_to(ahead, assigned))
    }

    /// [`Self::commit`] without blocking the thread; see [`Consumer::commit_async`].
    ///
    /// # Errors
    /// Those of [`Consumer::commit`].
    pub async fn commit_async(&mut self) -> Result<()> {
        let (ahead, consumer) = (&self.ahead, self.consumer.as_mut().expect(HAS_CONSUMER));
        let commits = consumer.commits_up_to(|assigned| yielded_up_to(ahead, assigned))?;
        consumer.write_commits_async(&commits).await
    }

    /// Has `waker` woken when there may be more to read, or the consumer is to be polled anyway. False if
    /// there may be more already.
    fn wait(&mut self, waker: &Waker) -> bool {
        let consumer = self.consumer.as_ref().expect(HAS_CONSUMER);
        if !consumer.log.progress().register(consumer.seen, waker) {
            return false;
        }
        if let Some(due) = consumer.wants_poll_at() {
            self.alarm.get_or_insert_with(|| consumer.log.alarm()).set(due, waker);
        }
        true
    }

    fn check_not_closed(&self) -> Result<()> {
        self.consumer.as_ref().expect(HAS_CONSUMER).log.check_not_closed()
    }

    fn read_ahead(&mut self) -> Result<usize> {
        let ahead = &mut self.ahead;
        let consumer = self.consumer.as_mut().expect(HAS_CONSUMER);
        consumer.poll(|partition, record| {
            ahead.push_back(ConsumedRecord {
                partition: partition.clone(),
                offset: record.offset,
                record: record.to_record(),
            });
            ControlFlow::Continue(())
        })
    }
}

/// Where a partition is read on from by whoever has got what was yielded so far.
fn yielded_up_to(ahead: &VecDeque<ConsumedRecord>, assigned: &Assigned) -> Option<Offset> {
    let next = ahead.iter().find(|record| record.partition == *assigned.name());
    next.map_or(assigned.position, |record| Some(record.offset))
}

impl Consumer {
    /// The records as a stream.
    pub fn into_stream(self) -> RecordStream {
        RecordStream { consumer: Some(self), ahead: VecDeque::new(), alarm: None }
    }
}

impl Stream for RecordStream {
    type Item = Result<ConsumedRecord>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        if let Err(closed) = stream.check_not_closed() {
            return Poll::Ready(Some(Err(closed)));
        }
        loop {
            if let Some(record) = stream.ahead.pop_front() {
                return Poll::Ready(Some(Ok(record)));
            }
            match stream.read_ahead() {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(0) => {
                    if stream.wait(context.waker()) {
                        return Poll::Pending;
                    }
                }
                Ok(_) => {}
            }
        }
    }
}

impl Drop for RecordStream {
    fn drop(&mut self) {
        // One that commits by itself is not to commit what was not yielded.
        drop(self.take_consumer());
    }
}

impl std::fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
