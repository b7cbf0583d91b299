//! What the index of aborted transactions held when it was last written out.
//!
//! Unlike the other two that index is no hint: who reads committed records shows those that it lacks, and
//! compaction keeps them. Kafka believes it, damaged or gone. So its length and checksum are noted in a file beside
//! it, `<base>.txnsum`, which is ours alone; numbers are big-endian. Where the two disagree, or one of them is
//! missing, the segment is read again.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 1 |
//! | 4..12 | entries | `u64` |
//! | 12..16 | checksum of the entries | CRC-32 |
//! | 16..20 | checksum | CRC-32 of the bytes before it |
//!
//! It is written with the index when the segment is sealed, a producer snapshot is taken, and the partition is
//! closed, and synced before what they say is believed: up to the snapshot, behind which batches are read again after
//! a crash. Entries that the index has gained since come of a kill between the two writes. It is written in place: a
//! torn one is one that disagrees.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{FileContext, TransactionIndex};
use crate::storage::{OpenMode, Storage, StorageFile};
use crate::whole_file;

const VERSION: u32 = 1;
const BYTES: usize = 20;

/// The file that says it.
pub(crate) struct SumFile {
    storage: Arc<dyn Storage>,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    entries: u64,
    checksum: u32,
}

impl SumFile {
    pub(crate) fn new(context: &FileContext, path: PathBuf) -> Self {
        Self { storage: context.storage.clone(), path }
    }

    /// Whether the index holds what was noted, and believes no more than that. Without a note it was never
    /// written out whole.
    pub(crate) fn agrees(&self, index: &TransactionIndex) -> io::Result<bool> {
        let Some(bytes) = whole_file::read(&*self.storage, &self.path)? else { return Ok(index.is_empty()) };
        let Some(sum) = Sum::decode(&bytes) else { return Ok(false) };
        Ok(index.len() <= sum.entries && index.checksum(sum.entries)? == Some(sum.checksum))
    }

    /// Notes what the index holds, which is on file; where there is no file, only if one `is_needed`. The file is to be
    /// synced: it may be as it should be and not be durable.
    pub(crate) fn write(
        &self,
        index: &TransactionIndex,
        is_needed: bool,
    ) -> io::Result<Option<Arc<dyn StorageFile>>> {
        let found = whole_file::read(&*self.storage, &self.path)?;
        if found.is_none() && !is_needed {
            return Ok(None);
        }
        let entries = index.len();
        let checksum = index.checksum(entries)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let bytes = Sum { entries, checksum }.encode();
        let mode = if found.is_some() { OpenMode::Write } else { OpenMode::Create };
        let file = self.storage.open(&self.path, mode)?;
        if found.is_none_or(|found| found != bytes) {
            file.write_at(0, &bytes)?;
            file.truncate(BYTES as u64)?;
        }
        Ok(Some(file))
    }
}

impl Sum {
    fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&VERSION.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.entries.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.checksum.to_be_bytes());
        let checksum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// `None` for what was never written whole.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| bytes[at..].first_chunk().copied().map(u32::from_be_bytes);
        let is_whole = number(16)? == crc32fast::hash(&bytes[..16]) && number(0)? == VERSION;
        let entries = u64::from_be_bytes(*bytes[4..].first_chunk()?);
        Some(Self { entries, checksum: number(12)? }).filter(|_| is_whole)
    }
}
