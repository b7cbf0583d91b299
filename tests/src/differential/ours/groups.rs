//! What groups have committed, and for how long.

use std::time::Duration;

use lotic_log::group::{CommittedOffsets, ConsumerGroupMetadata, GroupOptions};
use lotic_log::{Consumer, ConsumerOptions, Error, Offset, TopicPartition};

use super::super::outcome::Outcome;
use super::super::script::Script;
use super::Ours;

/// What is left of the time that offsets are kept for, once they are old: longer than the operations before take.
const LEFT: Duration = Duration::from_secs(1);

impl Ours<'_> {
    pub(super) fn commit_offset(&self, group: usize, partition: i32, offset: Offset) -> Result<(), Error> {
        let group = Some(Script::group(self.number, group));
        let mut consumer = Consumer::new(&self.log, ConsumerOptions { group, ..ConsumerOptions::default() })?;
        let name = self.partition(partition)?.name().clone();
        consumer.assign(std::slice::from_ref(&name))?;
        consumer.seek(&name, offset)?;
        consumer.commit()
    }

    pub(super) fn send_offset(
        &self,
        producer: usize,
        group: usize,
        partition: i32,
        offset: Offset,
    ) -> Result<(), Error> {
        let name = self.partition(partition)?.name().clone();
        let group = ConsumerGroupMetadata::new(Script::group(self.number, group));
        self.session(producer)?.handle()?.send_offsets_to_transaction(&[(name, offset.into())], &group)
    }

    pub(super) fn committed(&self, group: usize) -> Result<Outcome, Error> {
        let committed = CommittedOffsets::read(&self.log)?;
        let group = Script::group(self.number, group);
        let offsets = committed.group(&group).map(|(name, committed)| (name.partition.0, committed.offset.0));
        Ok(Outcome::Committed(offsets.collect()))
    }

    pub(super) fn delete_offset(&self, group: usize, partition: i32) -> Result<(), Error> {
        let name: TopicPartition = self.partition(partition)?.name().clone();
        self.log.delete_offsets(&Script::group(self.number, group), &[name])
    }

    pub(super) fn delete_group(&self, group: usize) -> Result<(), Error> {
        self.log.delete_group(&Script::group(self.number, group))
    }

    /// Lets what is committed be nearly as old as it gets, and be looked through.
    pub(super) fn age(&self) -> Result<(), Error> {
        self.machine.pass(GroupOptions::default().offsets_retention - LEFT);
        self.settle()
    }

    /// Has it looked through the next time, by when what is left of its time is over.
    pub(super) fn outlast(&self) -> Result<(), Error> {
        self.machine.pass(GroupOptions::default().expiry_interval);
        self.settle()
    }
}
