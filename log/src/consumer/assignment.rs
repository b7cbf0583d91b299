//! One partition that a consumer reads, and how far it has come.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{ConsumerOptions, StartAt};
use crate::batch::{BatchError, DecompressionBuffer, RecordBatch, RecordView};
use crate::error::Result;
use crate::group::{CommittedOffset, OffsetCommit};
use crate::partition::{Isolation, Partition};
use crate::record::{Offset, TopicPartition};

/// A partition that is read.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) partition: Arc<Partition>,
    /// The next offset to be read.
    pub(super) position: Offset,
    /// What its group has committed.
    pub(super) committed: Option<Offset>,
}

impl Assigned {
    pub(super) fn new(
        partition: Arc<Partition>,
        committed: Option<&CommittedOffset>,
        options: &ConsumerOptions,
    ) -> Self {
        let committed = committed.filter(|committed| is_believed(&partition, committed));
        let committed = committed.map(|committed| committed.offset);
        let mut assigned = Self { partition, position: Offset(0), committed };
        assigned.position = committed.unwrap_or_else(|| match options.start {
            StartAt::Beginning => assigned.partition.offsets().start,
            StartAt::End => assigned.end(options.isolation),
        });
        assigned
    }

    pub(super) fn is_of(&self, partition: &Arc<Partition>) -> bool {
        Arc::ptr_eq(&self.partition, partition)
    }

    /// The end of what may be read.
    pub(super) fn end(&self, isolation: Isolation) -> Offset {
        let offsets = self.partition.offsets();
        match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.stable,
        }
    }

    pub(super) fn is_uncommitted(&self) -> bool {
        self.committed != Some(self.position)
    }

    pub(super) fn commit(&self) -> OffsetCommit {
        OffsetCommit {
            partition: self.partition.name().clone(),
            topic_id: self.partition.topic_id(),
            offset: self.position,
        }
    }

    /// Gives the records of one fetch to `visit`; returns how many.
    pub(super) fn read(
        &mut self,
        options: &ConsumerOptions,
        scratch: &mut DecompressionBuffer,
        visit: &mut impl FnMut(&TopicPartition, RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<usize> {
        loop {
            let fetched = self.partition.fetch(self.position, options.fetch_bytes_max, options.isolation)?;
            if fetched.next <= self.position {
                return Ok(0);
            }
            let mut count = 0;
            for batch in fetched.committed() {
                let batch = batch.map_err(|error| error.within(self.partition.name()))?;
                let (given, flow) = self.read_batch(&batch, scratch, visit)?;
                count += given;
                if flow.is_break() {
                    return Ok(count);
                }
            }
            // Behind markers and aborted batches too.
            self.position = fetched.next;
            if count > 0 {
                return Ok(count);
            }
        }
    }

    fn read_batch(
        &mut self,
        batch: &RecordBatch<'_>,
        scratch: &mut DecompressionBuffer,
        visit: &mut impl FnMut(&TopicPartition, RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<(usize, ControlFlow<()>)> {
        let partition = self.partition.clone();
        let damaged = |error: BatchError| {
            let TopicPartition { topic, partition } = partition.name();
            let base = batch.header().base_offset;
            error.within(format_args!("topic {topic}, partition {partition}, batch at offset {base}"))
        };
        let mut count = 0;
        for record in batch.records(scratch).map_err(damaged)? {
            let record = record.map_err(damaged)?;
            if record.offset < self.position {
                continue;
            }
            count += 1;
            self.position = record.offset.next();
            if visit(partition.name(), record).is_break() {
                return Ok((count, ControlFlow::Break(())));
            }
        }
        self.position = self.position.max(batch.header().next_offset());
        Ok((count, ControlFlow::Continue(())))
    }
}

/// Whether the offset was committed for this topic, and not for an earlier one of its name.
fn is_believed(partition: &Partition, committed: &CommittedOffset) -> bool {
    let is_same = committed.topic_id.is_none_or(|id| id == partition.topic_id());
    if !is_same {
        let partition = partition.name();
        tracing::warn!(%partition, offset = %committed.offset, "the committed offset is not used: the topic was deleted and made again");
    }
    is_same
}
