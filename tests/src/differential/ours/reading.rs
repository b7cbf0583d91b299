//! What is there, and where.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use lotic_log::batch::{
    BatchError, DecompressionBuffer, MarkerKind, ProducerStamp, RecordBatch, RecordView, TimestampType,
};
use lotic_log::{Consumer, ConsumerOptions, Error, Isolation, Offset, OffsetSpec, Timestamp, TopicPartition};

use super::super::outcome::{DatedEntry, DatedFound, Entry, EntryKind, Offsets, Outcome, Walked};
use super::super::script::{Dated, Place};
use super::Ours;
use crate::kafka::ReadRecord;

/// Small, so that reading goes over many fetches.
const FETCH_BYTES_MAX: usize = 300;

impl Ours<'_> {
    pub(super) fn offsets(&self, partition: i32) -> Result<Offsets, Error> {
        let partition = self.partition(partition)?;
        let find = |spec, isolation| {
            let found = partition.find_offset(spec, isolation)?;
            Ok::<_, Error>(found.expect("there is always a first and a last offset").offset.0)
        };
        Ok(Offsets {
            start: find(OffsetSpec::Earliest, Isolation::ReadUncommitted)?,
            stable: find(OffsetSpec::Latest, Isolation::ReadCommitted)?,
            end: find(OffsetSpec::Latest, Isolation::ReadUncommitted)?,
        })
    }

    pub(super) fn resolve(&self, partition: i32, place: Place) -> Result<Offset, Error> {
        let Offsets { start, stable, end } = self.offsets(partition)?;
        Ok(Offset(place.resolve(start, stable, end)))
    }

    pub(super) fn find(&self, partition: i32, committed: bool, spec: OffsetSpec) -> Result<Outcome, Error> {
        let found = self.partition(partition)?.find_offset(spec, isolation(committed))?;
        let pair = |found: lotic_log::FoundOffset| Some((found.offset.0, found.timestamp?.0));
        Ok(Outcome::Found(found.and_then(pair)))
    }

    pub(super) fn consume(
        &self,
        partition: i32,
        isolation: Isolation,
        from: Offset,
    ) -> Result<Vec<ReadRecord>, Error> {
        let options =
            ConsumerOptions { isolation, fetch_bytes_max: FETCH_BYTES_MAX, ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(&self.log, options)?;
        let name = self.partition(partition)?.name().clone();
        consumer.assign(std::slice::from_ref(&name))?;
        consumer.seek(&name, from)?;
        let mut records = Vec::new();
        loop {
            let read = consumer.poll(|name, record| {
                records.push(read_record(name, &record));
                ControlFlow::Continue(())
            })?;
            if read == 0 {
                return Ok(records);
            }
        }
    }

    pub(super) fn walk(&self, partition: i32) -> Result<Walked, Error> {
        let partition = self.partition(partition)?;
        let mut next = partition.offsets().start;
        let (mut entries, mut aborted) = (Vec::new(), BTreeSet::new());
        loop {
            let fetched = partition.fetch(next, FETCH_BYTES_MAX, Isolation::ReadCommitted)?;
            if fetched.next == next {
                return Ok(Walked { entries, aborted }.with_numbered_producers());
            }
            aborted.extend(fetched.aborted.iter().map(|one| (one.producer_id.0, one.first_offset.0)));
            for batch in fetched.batches() {
                let batch = batch.map_err(|error| error.within(partition.name()))?;
                let found = entries_of(&batch).map_err(|error| error.within(partition.name()))?;
                entries.extend(found.into_iter().filter(|entry| entry.offset >= next.0));
            }
            next = fetched.next;
        }
    }

    /// Looks for a record by the time that the log has given it, and tells the times of all.
    pub(super) fn find_dated(&self, partition: i32, committed: bool, dated: Dated) -> Result<Outcome, Error> {
        let Offsets { start, stable, end } = self.offsets(partition)?;
        if dated == Dated::Newest && committed && stable < end {
            return Ok(Outcome::Done);
        }
        let mut entries = Vec::new();
        self.visit(partition, Offset(start), |batch| {
            let is_marker = batch.header().is_control;
            let mut scratch = DecompressionBuffer::new();
            for record in batch.records(&mut scratch)? {
                let RecordView { offset, timestamp, .. } = record?;
                if offset.0 >= start {
                    entries.push(DatedEntry { offset: offset.0, time: timestamp.0, is_marker });
                }
            }
            Ok(())
        })?;
        let spec =
            dated.time(&entries).map(Timestamp).map_or(OffsetSpec::MaxTimestamp, OffsetSpec::AtOrAfter);
        let Outcome::Found(found) = self.find(partition, committed, spec)? else {
            unreachable!("a lookup comes to what it has found")
        };
        Ok(Outcome::Dated(DatedFound { entries, stable, found }))
    }

    /// Who has written the batch at a place.
    pub(super) fn stamp_at(&self, (partition, offset): (i32, i64)) -> Result<ProducerStamp, Error> {
        let mut stamp = None;
        self.visit(partition, Offset(offset), |batch| {
            let header = batch.header();
            stamp.get_or_insert(ProducerStamp {
                id: header.producer_id,
                epoch: header.producer_epoch,
                base_sequence: header.base_sequence,
                transactional: header.is_transactional,
            });
            Ok(())
        })?;
        Ok(stamp.expect("what was written can be read"))
    }

    /// Shows each batch from an offset to the end.
    fn visit(
        &self,
        partition: i32,
        from: Offset,
        mut visit: impl FnMut(&RecordBatch<'_>) -> Result<(), BatchError>,
    ) -> Result<(), Error> {
        let partition = self.partition(partition)?;
        let mut next = from;
        loop {
            let fetched = partition.fetch(next, FETCH_BYTES_MAX, Isolation::ReadUncommitted)?;
            if fetched.next == next {
                return Ok(());
            }
            for batch in fetched.batches() {
                let batch = batch.map_err(|error| error.within(partition.name()))?;
                visit(&batch).map_err(|error| error.within(partition.name()))?;
            }
            next = fetched.next;
        }
    }
}

pub(super) fn isolation(committed: bool) -> Isolation {
    if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

fn read_record(name: &TopicPartition, record: &RecordView<'_>) -> ReadRecord {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    ReadRecord {
        topic: name.topic.clone(),
        partition: name.partition.0,
        offset: record.offset.0,
        timestamp: record.timestamp.0,
        key: text(record.key),
        value: text(record.value),
        headers: record.headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect(),
    }
}

fn entries_of(batch: &RecordBatch<'_>) -> Result<Vec<Entry>, BatchError> {
    let header = batch.header();
    if header.record_count == 0 {
        return Ok(Vec::new());
    }
    let kind = match (header.is_control, header.is_transactional) {
        (true, _) if batch.control()?.kind == MarkerKind::Commit => EntryKind::Commit,
        (true, _) => EntryKind::Abort,
        (false, true) => EntryKind::Transactional,
        (false, false) => EntryKind::Plain,
    };
    let (producer, append_time) = (header.producer_id.0, header.timestamp_type == TimestampType::LogAppend);
    let mut scratch = DecompressionBuffer::new();
    let entry = |record: Result<RecordView<'_>, _>| {
        record.map(|record| Entry { offset: record.offset.0, producer, kind, append_time })
    };
    batch.records(&mut scratch)?.map(entry).collect()
}
