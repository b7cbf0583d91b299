//! What is known of every transactional id: the last record of each in `__transaction_state`.

use std::collections::BTreeMap;

use super::record::{Status, TransactionRecord, decode_key, encode_key, unsynced_header};
use super::snapshot::TableSnapshot;
use crate::batch::{BatchBuilder, Compression, DecompressionBuffer, RecordView, SealedBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::partition::{Isolation, Partition};
use crate::record::{Offset, ProducerId, Timestamp};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// The last record of each transactional id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<String, TransactionRecord>,
}

/// A record to be appended to the table's partition.
#[derive(Clone, Debug)]
pub(super) struct TableUpdate {
    pub(super) id: String,
    pub(super) record: TransactionRecord,
    /// Whether it decides what nobody syncs, so that a power cut takes it back to the last consistent cut.
    pub(super) is_unsynced: bool,
}

impl TableUpdate {
    /// One that stands on nothing which a power cut may take.
    pub(super) fn new(id: &str, record: TransactionRecord) -> Self {
        Self { id: id.to_owned(), record, is_unsynced: false }
    }
}

impl Table {
    /// Reads the table from its partition, whose tail it is behind `snapshot`, which fits it. Says how many
    /// records that tail has.
    ///
    /// # Errors
    /// `Corrupt` for a record that is none of the table's, and those of reading.
    pub(super) fn read(partition: &Partition, snapshot: Option<TableSnapshot>) -> Result<(Self, u64)> {
        let offsets = partition.offsets();
        let (mut table, mut next) = match snapshot {
            Some(TableSnapshot { table, upto, .. }) => (table, upto),
            None => (Self::default(), offsets.start),
        };
        let mut scratch = DecompressionBuffer::new();
        let mut read = 0;
        while next < offsets.high_watermark {
            let fetched = partition.fetch(next, READ_BYTES, Isolation::ReadUncommitted)?;
            let failed = |error: crate::batch::BatchError| error.within(partition.name());
            for batch in fetched.batches() {
                let batch = batch.map_err(failed)?;
                for record in batch.records(&mut scratch).map_err(failed)? {
                    let record = record.map_err(failed)?;
                    if record.offset >= next {
                        table.absorb(&record).ok_or_else(|| foreign(partition, record.offset))?;
                        read += 1;
                    }
                }
            }
            next = fetched.next;
        }
        Ok((table, read))
    }

    fn absorb(&mut self, record: &RecordView<'_>) -> Option<()> {
        let id = decode_key(record.key?)?;
        match record.value {
            None => drop(self.entries.remove(&id)),
            Some(value) => drop(self.entries.insert(id, TransactionRecord::decode(value)?)),
        }
        Some(())
    }

    pub(super) fn apply(&mut self, updates: Vec<TableUpdate>) {
        self.entries.extend(updates.into_iter().map(|TableUpdate { id, record, .. }| (id, record)));
    }

    /// The ids of which nothing was written since `horizon`, and nothing is to be done.
    pub(super) fn idle_since(&self, horizon: Timestamp) -> impl Iterator<Item = &String> {
        let is_idle = move |record: &TransactionRecord| {
            let is_over =
                matches!(record.status, Status::Empty | Status::CompleteCommit | Status::CompleteAbort);
            is_over && record.updated <= horizon
        };
        self.entries.iter().filter(move |(_, record)| is_idle(record)).map(|(id, _)| id)
    }

    /// Whose producer id it is. There are few transactional ids.
    pub(super) fn find(&self, producer_id: ProducerId) -> Option<(&str, &TransactionRecord)> {
        let mut entries = self.entries.iter();
        let found = entries.find(|(_, record)| record.producer_id == producer_id);
        found.map(|(id, record)| (id.as_str(), record))
    }
}

/// The records that say that these ids are forgotten, in one batch.
pub(super) fn tombstones(ids: &[String], now: Timestamp) -> Result<SealedBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    for id in ids {
        let pushed = builder.push(now, Some(&encode_key(id)), None, &[]);
        pushed.map_err(|error| error.within(format_args!("transactional id {id}")))?;
    }
    Ok(builder.seal())
}

/// One batch for all of them: they are written, and torn by a crash, together.
pub(super) fn batch(updates: &[TableUpdate], now: Timestamp) -> Result<SealedBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    let unsynced = [unsynced_header()];
    for TableUpdate { id, record, is_unsynced } in updates {
        let (key, value) = (encode_key(id), record.encode());
        let headers = if *is_unsynced { &unsynced[..] } else { &[] };
        let pushed = builder.push(now, Some(&key), Some(&value), headers);
        pushed.map_err(|error| error.within(format_args!("transactional id {id}")))?;
    }
    Ok(builder.seal())
}

fn foreign(partition: &Partition, offset: Offset) -> Error {
    let what = format!("{}: offset {offset}: this is no record of a transaction", partition.name());
    Error::new(ErrorKind::Corrupt, what)
}
