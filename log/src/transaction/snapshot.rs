//! The table written down, so that opening a log reads only what came after.
//!
//! The file `transaction-table` in the log's directory; numbers are big-endian:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `LTXT` |
//! | 4..8 | version | `u32`, 1 |
//! | 8..24 | topic id | of `__transaction_state` |
//! | 24..32 | offset | `i64`, of the first record that the table does not know |
//! | 32.. | entries | key and value as in `__transaction_state`, each behind its length (`u32`) |
//! | last 4 | checksum | CRC-32 of all before it |
//!
//! It is written beside itself, synced and renamed, and only once the records it knows are durable. The
//! name is not synced: an older table with a longer tail says the same, but for ids whose tombstones in that tail were
//! compacted away: they come back as they were, and expire again. A table that is damaged is not used. One that
//! does not fit the log, which has gone back or was cut off, is removed for good before anything is appended: it would
//! fit again once the log has grown as far, and hide what was written meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;

use uuid::Uuid;

use super::record::{TransactionRecord, decode_key, encode_key};
use super::table::Table;
use crate::error::{Error, Result};
use crate::partition::PartitionOffsets;
use crate::record::{Offset, TopicId};
use crate::storage::{Storage, SyncPurpose, SyncTicket};
use crate::whole_file;

const FILE_NAME: &str = "transaction-table";
const MAGIC: [u8; 4] = *b"LTXT";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// Records after which the table is written down again.
const RECORDS_MAX: u64 = 20_000;

/// The table as it was at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableSnapshot {
    pub(super) topic_id: TopicId,
    pub(super) upto: Offset,
    pub(super) table: Table,
}

impl TableSnapshot {
    /// Whether it is one of this topic, and no further than the topic.
    pub(super) fn is_of(&self, topic_id: TopicId, offsets: &PartitionOffsets) -> bool {
        let is_it =
            self.topic_id == topic_id && (offsets.start..=offsets.high_watermark).contains(&self.upto);
        if !is_it {
            tracing::warn!(upto = %self.upto, "the written table of transactions does not fit the log and is not used");
        }
        is_it
    }

    /// Removes the one in `directory`, durably.
    pub(super) fn remove(storage: &dyn Storage, directory: &Path) -> Result<()> {
        let path = directory.join(FILE_NAME);
        let removed = storage.remove_file(&path);
        let removed = removed.and_then(|()| storage.sync_dir(directory, SyncPurpose::Snapshot));
        removed.map_err(|error| Error::io(format!("cannot remove {}", path.display()), error))
    }

    /// The one in `directory`, if there is one that is whole.
    pub(super) fn read(storage: &dyn Storage, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE_NAME);
        let bytes = whole_file::read(storage, &path)
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
        let snapshot = bytes.as_deref().map(Self::decode);
        if snapshot == Some(None) {
            tracing::warn!(file = %path.display(), "the written table of transactions is damaged and is not used");
        }
        Ok(snapshot.flatten())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = [&MAGIC[..], &VERSION.to_be_bytes(), self.topic_id.0.as_bytes()].concat();
        out.extend(self.upto.0.to_be_bytes());
        for (id, record) in &self.table.entries {
            for part in [encode_key(id), record.encode()] {
                out.extend((part.len() as u32).to_be_bytes());
                out.extend(part);
            }
        }
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        let (header, mut rest) = body.split_first_chunk::<HEADER_BYTES>()?;
        let is_whole = u32::from_be_bytes(*checksum) == crc32fast::hash(body);
        if !is_whole || header[..4] != MAGIC || header[4..8] != VERSION.to_be_bytes() {
            return None;
        }
        let topic_id = TopicId(Uuid::from_slice(&header[8..24]).ok()?);
        let upto = Offset(i64::from_be_bytes(header[24..].try_into().ok()?));
        let mut table = Table::default();
        while !rest.is_empty() {
            let id = decode_key(take_part(&mut rest)?)?;
            table.entries.insert(id, TransactionRecord::decode(take_part(&mut rest)?)?);
        }
        Some(Self { topic_id, upto, table })
    }
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let (part, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = behind;
    Some(part)
}

/// Writes the table down from time to time.
pub(super) struct SnapshotWriter {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    records_max: u64,
    /// Records that the last snapshot does not know.
    records: u64,
    running: Option<Running>,
}

/// A snapshot that is written and not in its place yet.
struct Running {
    upto: Offset,
    sync: SyncTicket,
}

impl SnapshotWriter {
    pub(super) fn new(storage: Arc<dyn Storage>, directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { storage, directory, records_max: RECORDS_MAX, records: 0, running: None }
    }

    #[cfg(test)]
    pub(super) fn set_records_max(&mut self, records_max: u64) {
        self.records_max = records_max;
    }

    /// So many records were appended, or read behind the snapshot.
    pub(super) fn count(&mut self, records: u64) {
        self.records += records;
    }

    pub(super) fn is_due(&self) -> bool {
        self.records >= self.records_max && self.running.is_none()
    }

    /// Writes a snapshot beside the last one and submits its sync. One that cannot be written only makes
    /// the next opening slower.
    pub(super) fn begin(&mut self, snapshot: &TableSnapshot, waker: &Waker) {
        self.records = 0;
        match self.write(snapshot) {
            Ok(sync) => {
                sync.wake(waker);
                self.running = Some(Running { upto: snapshot.upto, sync });
            }
            Err(error) => self.give_up(&error),
        }
    }

    /// Puts the snapshot in its place if it is synced and what it knows is durable.
    pub(super) fn end(&mut self, durable: Offset) -> bool {
        let Some(Running { upto, sync }) = &self.running else { return false };
        let Some(outcome) = sync.poll().filter(|outcome| outcome.is_err() || durable >= *upto) else {
            return false;
        };
        self.running = None;
        if let Err(error) = outcome.and_then(|()| self.put_in_place()) {
            self.give_up(&error);
        }
        true
    }

    /// Writes a snapshot and waits until it is in its place.
    pub(super) fn write_now(&mut self, snapshot: &TableSnapshot) -> Result<()> {
        self.running = None;
        let written = self.write(snapshot).and_then(|sync| sync.wait()).and_then(|()| self.put_in_place());
        let path = self.directory.join(FILE_NAME);
        written.map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    }

    fn write(&self, snapshot: &TableSnapshot) -> io::Result<SyncTicket> {
        let path = self.directory.join(FILE_NAME);
        let beside =
            whole_file::write_beside(&*self.storage, &path, &snapshot.encode(), SyncPurpose::Snapshot);
        beside.map(|(_, sync)| sync)
    }

    fn put_in_place(&self) -> io::Result<()> {
        whole_file::put_in_place(&*self.storage, &self.directory.join(FILE_NAME))
    }

    fn give_up(&self, error: &io::Error) {
        let directory = self.directory.display();
        tracing::warn!(%directory, %error, "the table of transactions cannot be written down");
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Status;
    use super::*;
    use crate::record::{PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicPartition};

    #[test]
    fn a_snapshot_is_read_as_it_was_written_and_not_at_all_if_damaged() {
        let record = TransactionRecord {
            producer_id: ProducerId(1),
            producer_epoch: ProducerEpoch(2),
            status: Status::PrepareAbort,
            timeout_ms: 60_000,
            partitions: vec![TopicPartition::new("a", PartitionId(3))],
            updated: Timestamp(4),
            started: Timestamp(5),
        };
        let entries = [("a", record.clone()), ("b", record)].map(|(id, record)| (id.to_owned(), record));
        let topic_id = TopicId(Uuid::from_u128(77));
        let snapshot = TableSnapshot { topic_id, upto: Offset(9), table: Table { entries: entries.into() } };
        let bytes = snapshot.encode();
        assert_eq!(TableSnapshot::decode(&bytes), Some(snapshot));
        for at in 0..bytes.len() {
            assert_eq!(TableSnapshot::decode(&bytes[..at]), None);
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert_eq!(TableSnapshot::decode(&changed), None);
        }
    }
}
