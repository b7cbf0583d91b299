//! What a worker writes to the log, sorted by epoch.
//!
//! Tasks of a worker may be one epoch apart: the one past the barrier of `e` writes for `e+1` while another
//! still writes for `e`. So there are two slots, one for each epoch; a task enters its epoch before its
//! operators are called.
//!
//! ```text
//!            write            batch full, or flush         transaction begun?
//!   record ────────▶ builder ─────────────────────▶ sealed ──┬─ yes ─▶ EventLog::append
//!                    (one a partition)                       └─ no ──▶ staged ─ begin ─▶ EventLog::append
//! ```
//!
//! Only the batches of the epoch whose transaction is open go to the log. Those of the next one are staged,
//! and a task for whose epoch nothing more may be staged (`EpochWriter::has_room`) is not stepped.
//! The bound is kept between calls of operators, so it may be passed by what one call writes.
//!
//! Owned by one worker's thread. After a crash nothing of it is missed: what was staged belongs to no epoch.

use std::collections::VecDeque;
use std::sync::Arc;

use lotic_log::batch::{BatchBuilder, BatchError, Compression, SealedBatch};
use lotic_log::{Header, PartitionId, Timestamp};

use crate::codec::CodecError;
use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, PartitionKey, TopicHandle};

/// How an epoch writer gathers records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochWriterOptions {
    /// A batch is sealed when its records take so many bytes, before compression.
    pub batch_bytes: usize,
    /// The sealed bytes of one epoch that may wait for its transaction to begin.
    pub staged_bytes_max: usize,
    /// How batches are compressed.
    pub compression: Compression,
}

impl Default for EpochWriterOptions {
    /// 64 KiB a batch, uncompressed; 16 MiB staged.
    fn default() -> Self {
        Self { batch_bytes: 64 << 10, staged_bytes_max: 16 << 20, compression: Compression::None }
    }
}

/// What [`EpochWriter::write_with`]'s closure made of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueWritten {
    /// It is in the buffer.
    Bytes,
    /// It is null: a tombstone in a compacted topic. What is in the buffer is dropped.
    Null,
}

/// One worker's way into the log.
pub struct EpochWriter {
    log: Arc<dyn EventLog>,
    options: EpochWriterOptions,
    /// The epoch of the task that writes now.
    entered: Epoch,
    /// The epoch whose transaction is open.
    begun: Option<Epoch>,
    /// By the epoch's parity.
    slots: [Slot; 2],
}

/// What one epoch has written that is not in the log yet.
#[derive(Default)]
struct Slot {
    epoch: Epoch,
    /// By topic index, then partition.
    builders: Vec<Vec<Option<PartitionBuilder>>>,
    staged: Staged,
    has_written: bool,
}

/// Sealed batches in the order in which they were sealed.
#[derive(Default)]
struct Staged {
    batches: VecDeque<(PartitionKey, SealedBatch)>,
    bytes: usize,
}

struct PartitionBuilder {
    topic: Arc<str>,
    key: PartitionKey,
    builder: BatchBuilder,
}

impl EpochWriter {
    /// A writer whose first epoch is `first`; no transaction is open yet.
    pub fn new(log: Arc<dyn EventLog>, options: EpochWriterOptions, first: Epoch) -> Self {
        let mut slots = [Slot::default(), Slot::default()];
        slots[slot_of(first)].epoch = first;
        Self { log, options, entered: first, begun: None, slots }
    }

    /// Writes a record for the epoch entered.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a record that no batch can hold; those of [`EventLog::append`].
    pub fn write(
        &mut self,
        topic: &TopicHandle,
        partition: PartitionId,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<()> {
        let batch_bytes = self.options.batch_bytes;
        let target = self.builder(topic, partition);
        let pushed = target.builder.push(timestamp, key, value, headers);
        pushed.map_err(|error| target.unwritable(timestamp, error.into()))?;
        if target.builder.encoded_len() < batch_bytes { Ok(()) } else { self.seal(topic, partition) }
    }

    /// Writes a record whose value `write_value` appends straight to the batch.
    ///
    /// # Errors
    /// What `write_value` returns, as [`ErrorKind::Invalid`]; those of [`Self::write`].
    pub fn write_with(
        &mut self,
        topic: &TopicHandle,
        partition: PartitionId,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        headers: &[Header],
        write_value: impl FnOnce(&mut Vec<u8>) -> Result<ValueWritten, CodecError>,
    ) -> Result<()> {
        let batch_bytes = self.options.batch_bytes;
        let target = self.builder(topic, partition);
        let pushed = target.builder.push_with(timestamp, key, headers, |out| match write_value(out) {
            Ok(ValueWritten::Bytes) => Ok(()),
            Ok(ValueWritten::Null) => Err(Unwritten::Null),
            Err(error) => Err(Unwritten::Value(error)),
        });
        match pushed {
            Ok(()) if target.builder.encoded_len() < batch_bytes => Ok(()),
            Ok(()) => self.seal(topic, partition),
            Err(Unwritten::Null) => self.write(topic, partition, timestamp, key, None, headers),
            Err(Unwritten::Value(error)) => Err(target.unwritable(timestamp, error.into())),
            Err(Unwritten::Batch(error)) => Err(target.unwritable(timestamp, error.into())),
        }
    }

    /// What is written from now on belongs to `epoch`: the one of the task about to be stepped.
    pub(crate) fn enter(&mut self, epoch: Epoch) {
        if self.entered == epoch {
            return;
        }
        self.entered = epoch;
        let slot = &mut self.slots[slot_of(epoch)];
        if slot.epoch != epoch {
            assert!(
                slot.epoch < epoch && slot.is_empty(),
                "epoch {epoch} is entered only when {} is over",
                slot.epoch
            );
            slot.epoch = epoch;
            slot.has_written = false;
        }
    }

    /// The transaction of `epoch` is open: what was staged for it goes to the log.
    pub(crate) fn begin(&mut self, epoch: Epoch) -> Result<()> {
        self.begun = Some(epoch);
        let slot = &mut self.slots[slot_of(epoch)];
        if slot.epoch == epoch {
            slot.staged.bytes = 0;
            for (partition, batch) in slot.staged.batches.drain(..) {
                self.log.append(partition, batch)?;
            }
        }
        Ok(())
    }

    /// Seals what `epoch` has written: no task of this worker writes for it any more. Whether all of it
    /// is in the log; if not, it will be when its transaction begins.
    pub(crate) fn flush(&mut self, epoch: Epoch) -> Result<bool> {
        let slot = &mut self.slots[slot_of(epoch)];
        if slot.epoch != epoch {
            return Ok(true);
        }
        let log = (self.begun == Some(epoch)).then_some(&*self.log);
        for target in slot.builders.iter_mut().flatten().flatten() {
            if !target.builder.is_empty() {
                slot.staged.append_or_stage(log, target.key, target.builder.seal())?;
            }
        }
        Ok(slot.staged.batches.is_empty())
    }

    /// Whether a task of `epoch` may be stepped, or must wait for its transaction to begin.
    pub(crate) fn has_room(&self, epoch: Epoch) -> bool {
        let slot = &self.slots[slot_of(epoch)];
        self.begun == Some(epoch) || slot.epoch != epoch || slot.staged.bytes < self.options.staged_bytes_max
    }

    /// Something was written elsewhere that belongs to the epoch entered: it has something to commit.
    pub(crate) fn note_written(&mut self) {
        self.slots[slot_of(self.entered)].has_written = true;
    }

    /// Whether anything was written for `epoch`.
    pub(crate) fn has_written(&self, epoch: Epoch) -> bool {
        let slot = &self.slots[slot_of(epoch)];
        slot.epoch == epoch && slot.has_written
    }

    fn builder(&mut self, topic: &TopicHandle, partition: PartitionId) -> &mut PartitionBuilder {
        let slot = &mut self.slots[slot_of(self.entered)];
        slot.has_written = true;
        let topic_index = topic.index as usize;
        if slot.builders.len() <= topic_index {
            slot.builders.resize_with(topic_index + 1, Vec::new);
        }
        let partitions = &mut slot.builders[topic_index];
        if partitions.is_empty() {
            partitions.resize_with(topic.partitions as usize, || None);
        }
        partitions[partition.0 as usize].get_or_insert_with(|| PartitionBuilder {
            topic: topic.name.clone(),
            key: PartitionKey { topic: topic.index, partition },
            builder: BatchBuilder::new(self.options.compression),
        })
    }

    /// Seals a batch that is full.
    fn seal(&mut self, topic: &TopicHandle, partition: PartitionId) -> Result<()> {
        let slot = &mut self.slots[slot_of(self.entered)];
        let target = slot.builders[topic.index as usize][partition.0 as usize].as_mut();
        let target = target.expect("the record was just written there");
        let log = (self.begun == Some(slot.epoch)).then_some(&*self.log);
        slot.staged.append_or_stage(log, target.key, target.builder.seal())
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        let mut builders = self.builders.iter().flatten().flatten();
        self.staged.batches.is_empty() && builders.all(|target| target.builder.is_empty())
    }
}

impl Staged {
    /// Gives a batch to `log`, or keeps it where its transaction has not begun.
    fn append_or_stage(
        &mut self,
        log: Option<&dyn EventLog>,
        partition: PartitionKey,
        batch: SealedBatch,
    ) -> Result<()> {
        if let Some(log) = log {
            return log.append(partition, batch).map(|_ticket| ());
        }
        self.bytes += batch.len_bytes();
        self.batches.push_back((partition, batch));
        Ok(())
    }
}

impl PartitionBuilder {
    fn unwritable(&self, timestamp: Timestamp, cause: Box<dyn std::error::Error + Send + Sync>) -> Error {
        let (topic, partition) = (&self.topic, self.key.partition);
        let what = format!("a record with timestamp {timestamp} cannot be written to {topic}-{partition}");
        Error::caused(ErrorKind::Invalid, what, cause)
    }
}

/// Why a value is not in the batch.
enum Unwritten {
    Null,
    Value(CodecError),
    Batch(BatchError),
}

impl From<BatchError> for Unwritten {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

fn slot_of(epoch: Epoch) -> usize {
    (epoch.0 % 2) as usize
}

#[cfg(test)]
mod tests;
