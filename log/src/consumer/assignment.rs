//! One partition that a consumer reads, and how far it has come.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{ConsumerOptions, OutOfRange, StartAt};
use crate::batch::{BatchError, DecompressionBuffer, RecordBatch, RecordView};
use crate::error::{Error, ErrorKind, Result};
use crate::group::{Committed, CommittedOffset, OffsetCommit};
use crate::partition::{Isolation, OffsetSpec, Partition};
use crate::record::{Offset, Timestamp, TopicPartition};

/// A partition that is read.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) partition: Arc<Partition>,
    /// The next offset to be read; none before it is known where to begin.
    pub(super) position: Option<Offset>,
    /// What its group has committed.
    pub(super) committed: Option<Offset>,
    pub(super) is_paused: bool,
}

impl Assigned {
    pub(super) fn new(partition: Arc<Partition>) -> Self {
        Self { partition, position: None, committed: None, is_paused: false }
    }

    pub(super) fn name(&self) -> &TopicPartition {
        self.partition.name()
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

    /// How many offsets lie before the end; none before it is known where to begin.
    pub(super) fn lag(&self, isolation: Isolation) -> Option<u64> {
        // What other software has committed may be any number.
        let lag = self.end(isolation).0.saturating_sub(self.position?.0);
        Some(u64::try_from(lag).unwrap_or(0))
    }

    /// Goes to where the group has committed, else to where the options say. Stays without a position
    /// while a transaction is about to commit another offset.
    ///
    /// # Errors
    /// `OffsetOutOfRange` if the options say nowhere; those of reading.
    pub(super) fn begin(
        &mut self,
        committed: Committed,
        options: &ConsumerOptions,
        now: Timestamp,
    ) -> Result<()> {
        match committed {
            Committed::Undecided => return Ok(()),
            Committed::At(committed) if is_believed(&self.partition, &committed) => {
                self.committed = Some(committed.offset);
                self.position = Some(committed.offset);
            }
            Committed::At(_) | Committed::Nothing => self.position = Some(self.start(options, now)?),
        }
        Ok(())
    }

    /// Where the options say to begin.
    fn start(&self, options: &ConsumerOptions, now: Timestamp) -> Result<Offset> {
        match options.start {
            StartAt::Beginning => Ok(self.partition.offsets().start),
            StartAt::End => Ok(self.end(options.isolation)),
            StartAt::Ago(time) => {
                let age = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                self.at_time(Timestamp(now.0.saturating_sub(age)), options.isolation)
            }
            StartAt::Nowhere => {
                let TopicPartition { topic, partition } = self.name();
                let (offsets, end) = (self.partition.offsets(), self.end(options.isolation));
                let group =
                    options.group.as_deref().map_or("no group".to_owned(), |group| format!("group {group}"));
                let what =
                    format!("topic {topic}, partition {partition}: {group} has committed no offset in it");
                let what =
                    format!("{what}, and nothing says where to begin; there are {} to {end}", offsets.start);
                Err(Error::new(ErrorKind::OffsetOutOfRange, what))
            }
        }
    }

    /// The first record with this timestamp or a later one, or behind the last one.
    pub(super) fn at_time(&self, time: Timestamp, isolation: Isolation) -> Result<Offset> {
        self.first(OffsetSpec::AtOrAfter(time), isolation)
    }

    /// The first record with the largest timestamp, or behind the last one.
    pub(super) fn at_max_timestamp(&self, isolation: Isolation) -> Result<Offset> {
        self.first(OffsetSpec::MaxTimestamp, isolation)
    }

    fn first(&self, spec: OffsetSpec, isolation: Isolation) -> Result<Offset> {
        let end = self.end(isolation);
        let found = self.partition.find_offset(spec, isolation)?;
        Ok(found.map_or(end, |found| found.offset.min(end)))
    }

    pub(super) fn commit(&self, offset: Offset, metadata: &str) -> OffsetCommit {
        OffsetCommit {
            partition: self.name().clone(),
            topic_id: self.partition.topic_id(),
            offset,
            metadata: metadata.to_owned(),
        }
    }

    /// Gives the records of one fetch to `visit`; returns how many. None while it is paused, or it is not
    /// known where to begin.
    pub(super) fn read(
        &mut self,
        options: &ConsumerOptions,
        now: impl Fn() -> Timestamp,
        scratch: &mut DecompressionBuffer,
        visit: &mut impl FnMut(&TopicPartition, RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<usize> {
        loop {
            let Some(position) = self.position.filter(|_| !self.is_paused) else { return Ok(0) };
            let fetched = match self.partition.fetch(position, options.fetch_bytes_max, options.isolation) {
                Err(error)
                    if error.kind() == ErrorKind::OffsetOutOfRange
                        && options.out_of_range == OutOfRange::StartAgain =>
                {
                    let start = self.start(options, now())?;
                    tracing::warn!(partition = %self.name(), %position, %start, "there is no such record: reading starts again");
                    self.position = Some(start);
                    continue;
                }
                fetched => fetched?,
            };
            if fetched.next <= position {
                return Ok(0);
            }
            let mut count = 0;
            for batch in fetched.committed() {
                let batch = batch.map_err(|error| error.within(self.name()))?;
                let (given, flow) = self.read_batch(&batch, position, scratch, visit)?;
                count += given;
                if flow.is_break() {
                    return Ok(count);
                }
            }
            // Behind markers and aborted batches too.
            self.position = Some(fetched.next);
            if count > 0 {
                return Ok(count);
            }
        }
    }

    fn read_batch(
        &mut self,
        batch: &RecordBatch<'_>,
        from: Offset,
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
            if record.offset < from {
                continue;
            }
            count += 1;
            self.position = Some(record.offset.next());
            if visit(partition.name(), record).is_break() {
                return Ok((count, ControlFlow::Break(())));
            }
        }
        self.position = self.position.max(Some(batch.header().next_offset()));
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
