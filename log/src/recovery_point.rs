//! Recovery points: up to where each partition is known to have been synced.
//!
//! Recovery takes a bad batch below the recovery point for corruption and one at or above it for a torn
//! tail. A point is always at or below what is durable, though perhaps above what the partition knows to be: the
//! points of a cut are noted before anybody knows that they are synced, so whoever cuts a partition off goes by the
//! higher of the two. And it may be as old as [`INTERVAL`], or the round before
//! the last: then a group commit writes down what those before it established, and syncs that together with
//! its own data. Not each of them does, since a sync of two files takes a file system about as long as two syncs.
//! Losing the file makes no record unsafe; damage to synced records would then pass for a torn tail. The points of a
//! consistent cut are written in one block, and whoever waits for the cut waits for it.
//!
//! The file `recovery-point` in the log's directory; numbers are big-endian.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `LRPT` |
//! | 4..8 | version | `u32`, 1 |
//! | 8.. | blocks | one each time that points are written down |
//!
//! A block:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | checksum | CRC-32 of the rest of the block |
//! | 4..8 | count | `u32`, how many entries follow |
//! | 8.. | entries | 28 bytes each: topic id (16), partition (`i32`), offset (`i64`) |
//!
//! Later entries replace earlier ones. Reading ends at the first block that is torn. The file is written
//! anew beside itself and renamed when a log is recovered, when it is closed, and when it has grown past
//! [`FILE_BYTES_MAX`], or to twice what it takes to name every partition once if that is more; later, where
//! it cannot be begun anew. So it is where compaction or retention are about to go by a point that is not in it yet.

mod synced;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::record::{Offset, PartitionId, PartitionKey, TopicId};
use crate::storage::{OpenMode, Storage, StorageFile, SyncPurpose, SyncTicket};
use crate::whole_file;

pub(crate) use synced::SyncedPoints;

const FILE_NAME: &str = "recovery-point";
const MAGIC: [u8; 4] = *b"LRPT";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8;
const BLOCK_HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 28;

/// How often points are written down while something is synced.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// Bytes after which the file is written anew, with one entry for each partition.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Up to where each partition was synced.
pub(crate) type RecoveryPoints = BTreeMap<PartitionKey, Offset>;

/// What a file of recovery points says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) points: RecoveryPoints,
    /// Bytes of the header and the blocks that are whole.
    whole_bytes: u64,
    /// Whether there is a file, and nothing else in it.
    is_whole: bool,
}

/// The recovery points in `directory`; none where there is no file.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a file of a later version, [`ErrorKind::Corrupt`] for one that is none;
/// those of the operating system.
pub(crate) fn read(storage: &dyn Storage, directory: &Path) -> Result<Stored> {
    let path = directory.join(FILE_NAME);
    let bytes = whole_file::read(storage, &path)
        .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    let decode = |bytes: Vec<u8>| decode(&bytes).map_err(|error| error.within(path.display()));
    bytes.map_or(Ok(Stored::default()), decode)
}

fn decode(bytes: &[u8]) -> Result<Stored> {
    let Some((header, mut rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Error::new(ErrorKind::Corrupt, "the header of the recovery points is cut off"));
    };
    if header[..4] != MAGIC {
        return Err(Error::new(ErrorKind::Corrupt, "these are no recovery points"));
    }
    if header[4..] != VERSION.to_be_bytes() {
        return Err(Error::new(ErrorKind::Unsupported, "recovery points of a later version"));
    }
    let mut points = RecoveryPoints::new();
    while let Some((entries, next)) = split_block(rest) {
        points.extend(entries.iter().map(decode_entry));
        rest = next;
    }
    Ok(Stored { points, whole_bytes: (bytes.len() - rest.len()) as u64, is_whole: rest.is_empty() })
}

/// The entries of the first block, and what follows it; nothing if it is torn.
fn split_block(bytes: &[u8]) -> Option<(&[[u8; ENTRY_BYTES]], &[u8])> {
    let (checksum, rest) = bytes.split_first_chunk()?;
    let (count, entries) = rest.split_first_chunk()?;
    let length = (u32::from_be_bytes(*count) as usize).checked_mul(ENTRY_BYTES)?;
    let (entries, next) = entries.split_at_checked(length)?;
    let is_whole = u32::from_be_bytes(*checksum) == crc32fast::hash(&rest[..4 + length]);
    // Zeros have a checksum of their own; a block that says nothing is not one of ours.
    (is_whole && length > 0).then_some((entries.as_chunks().0, next))
}

fn encode_block(points: &RecoveryPoints, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend((points.len() as u32).to_be_bytes());
    for (key, offset) in points {
        out.extend(key.topic.0.as_bytes());
        out.extend(key.partition.0.to_be_bytes());
        out.extend(offset.0.to_be_bytes());
    }
    let checksum = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_be_bytes());
}

fn decode_entry(entry: &[u8; ENTRY_BYTES]) -> (PartitionKey, Offset) {
    let (topic, rest) = entry.split_first_chunk().expect("an entry begins with an id");
    let (partition, offset) = rest.split_first_chunk().expect("an entry has a partition");
    let key = PartitionKey {
        topic: TopicId(Uuid::from_bytes(*topic)),
        partition: PartitionId(i32::from_be_bytes(*partition)),
    };
    let offset = offset.try_into().expect("an entry ends with eight bytes");
    (key, Offset(i64::from_be_bytes(offset)))
}

/// The file as it is being written, by whoever holds the flusher's rounds.
pub(crate) struct RecoveryPointFile {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    points: RecoveryPoints,
    /// Points that rose and are not in the file.
    risen: RecoveryPoints,
    file: Arc<dyn StorageFile>,
    end: u64,
    bytes_max: u64,
    /// The sync under way, and what it makes durable.
    syncing: Option<(SyncTicket, RecoveryPoints)>,
    synced: Arc<SyncedPoints>,
    /// Once a write or sync has failed, or they are held, the points rise no more by themselves, which is safe.
    is_poisoned: bool,
    /// Something is durable that may not count alone.
    is_held: bool,
}

impl RecoveryPointFile {
    /// Begins the file of `directory` anew with `points`, durably. What is durable is told to `synced`.
    pub(crate) fn create(
        storage: Arc<dyn Storage>,
        directory: &Path,
        points: RecoveryPoints,
        synced: Arc<SyncedPoints>,
    ) -> Result<Self> {
        let written = write_anew(&*storage, directory, &points);
        let (file, end) = written.map_err(|error| error.of(directory))?;
        Ok(Self::new(storage, directory, points, synced, (file, end)))
    }

    /// Goes on in the file of `directory` as it was `stored`, if it is whole and says `points`. Nothing is
    /// written.
    pub(crate) fn resume(
        storage: Arc<dyn Storage>,
        directory: &Path,
        stored: &Stored,
        points: &RecoveryPoints,
        synced: &Arc<SyncedPoints>,
    ) -> Result<Option<Self>> {
        if !stored.is_whole || stored.points != *points {
            return Ok(None);
        }
        let path = directory.join(FILE_NAME);
        let file = storage.open(&path, OpenMode::Write);
        let file = file.map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
        let file = (file, stored.whole_bytes);
        Ok(Some(Self::new(storage, directory, points.clone(), synced.clone(), file)))
    }

    fn new(
        storage: Arc<dyn Storage>,
        directory: &Path,
        points: RecoveryPoints,
        synced: Arc<SyncedPoints>,
        (file, end): (Arc<dyn StorageFile>, u64),
    ) -> Self {
        synced.raise(points.clone());
        Self {
            storage,
            directory: directory.to_owned(),
            points,
            risen: RecoveryPoints::new(),
            file,
            end,
            bytes_max: bytes_max(end),
            syncing: None,
            synced,
            is_poisoned: false,
            is_held: false,
        }
    }

    /// A partition was synced up to `offset`.
    pub(crate) fn note(&mut self, key: PartitionKey, offset: Offset) {
        if self.points.insert(key, offset) != Some(offset) {
            self.risen.insert(key, offset);
        }
    }

    /// A partition was synced up to `offset`, if that is not known yet.
    pub(crate) fn raise(&mut self, key: PartitionKey, offset: Offset) {
        if self.points.get(&key).is_none_or(|known| *known < offset) {
            self.note(key, offset);
        }
    }

    /// Whether what was noted of a partition up to `offset` is in the file, and synced.
    pub(crate) fn is_recorded(&self, key: PartitionKey, offset: Offset) -> bool {
        self.synced.get(key).is_some_and(|synced| synced >= offset)
    }

    /// The points rise no more: something is durable that may not count alone.
    pub(crate) fn hold(&mut self) {
        (self.is_poisoned, self.is_held) = (true, true);
    }

    /// Whether the points rise no more by themselves.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// Writes the file anew, durably, with more partitions. Waits for the disk.
    ///
    /// # Errors
    /// Those of the operating system; the points rise no more by themselves then, unless the file is as it was.
    /// [`ErrorKind::Poisoned`] where they are held.
    pub(crate) fn renew(&mut self, more: RecoveryPoints) -> Result<()> {
        if self.is_held {
            let what =
                format!("{FILE_NAME} in {} stays as it is: open the log again", self.directory.display());
            return Err(Error::new(ErrorKind::Poisoned, what));
        }
        let before = self.points.clone();
        self.points.extend(more);
        match self.write_points() {
            Ok(()) => {
                // Of the file that was there nothing is waited for.
                (self.risen, self.syncing) = (RecoveryPoints::new(), None);
                self.synced.raise(self.points.clone());
                Ok(())
            }
            Err(error) => {
                match &error {
                    Unwritten::NotBegun(_) => self.points = before,
                    Unwritten::Failed(error) => self.poison(error),
                }
                Err(error.of(&self.directory))
            }
        }
    }

    /// Sees to it that what was synced of a partition up to `offset` is in the file, and synced. Waits for the disk, and
    /// writes the file anew, if it is not.
    ///
    /// # Errors
    /// Those of [`Self::renew`].
    pub(crate) fn ensure(&mut self, key: PartitionKey, offset: Offset) -> Result<()> {
        if self.is_recorded(key, offset) {
            return Ok(());
        }
        self.raise(key, offset);
        self.renew(RecoveryPoints::new())
    }

    /// The partitions of a topic are deleted: no more is said of them the next time that the file is
    /// written anew.
    pub(crate) fn forget(&mut self, topic: TopicId) {
        let is_forgotten = |key: &PartitionKey| key.topic == topic;
        let syncing = self.syncing.as_mut().map(|(_, points)| points);
        for points in [&mut self.points, &mut self.risen].into_iter().chain(syncing) {
            points.retain(|key, _| !is_forgotten(key));
        }
        self.synced.forget(is_forgotten);
    }

    /// Whether something has risen that can be written down now.
    pub(crate) fn may_begin_sync(&self) -> bool {
        !self.risen.is_empty() && self.syncing.is_none() && !self.is_poisoned
    }

    /// Writes down what has risen and submits the sync, unless the last one is still under way. Whether it did.
    pub(crate) fn begin_sync(&mut self, waker: &Waker) -> bool {
        if !self.may_begin_sync() {
            return false;
        }
        match self.write_risen() {
            Ok(risen) => {
                let ticket = self.file.sync(SyncPurpose::RecoveryPoint);
                ticket.wake(waker);
                self.syncing = Some((ticket, risen));
                true
            }
            Err(error) => {
                self.poison(&error);
                false
            }
        }
    }

    /// Takes note of the end of the last sync. Says whether it has ended.
    pub(crate) fn end_sync(&mut self) -> bool {
        let Some(outcome) = self.syncing.as_ref().and_then(|(ticket, _)| ticket.poll()) else { return false };
        let risen = self.syncing.take().map(|(_, risen)| risen).unwrap_or_default();
        match outcome {
            Ok(()) => self.synced.raise(risen),
            Err(error) => self.poison(&error),
        }
        true
    }

    fn write_risen(&mut self) -> io::Result<RecoveryPoints> {
        if !self.write_anew_if_long()? {
            let mut block = Vec::with_capacity(BLOCK_HEADER_BYTES + ENTRY_BYTES * self.risen.len());
            encode_block(&self.risen, &mut block);
            self.file.write_at(self.end, &block)?;
            self.end += block.len() as u64;
        }
        Ok(std::mem::take(&mut self.risen))
    }

    /// Writes the file anew once it has grown past its bound. Where it cannot be begun, the one there is goes on, and it
    /// is tried again when it has grown by [`FILE_BYTES_MAX`]. Says whether it is anew.
    fn write_anew_if_long(&mut self) -> io::Result<bool> {
        if self.end < self.bytes_max {
            return Ok(false);
        }
        match self.write_points() {
            Ok(()) => Ok(true),
            Err(Unwritten::NotBegun(error)) => {
                let (directory, bytes) = (self.directory.display(), self.end);
                tracing::warn!(%directory, bytes, %error, "the file of recovery points stays long");
                self.bytes_max = self.end + FILE_BYTES_MAX;
                Ok(false)
            }
            Err(Unwritten::Failed(error)) => Err(error),
        }
    }

    fn write_points(&mut self) -> Result<(), Unwritten> {
        let (file, end) = write_anew(&*self.storage, &self.directory, &self.points)?;
        (self.file, self.end, self.bytes_max) = (file, end, bytes_max(end));
        Ok(())
    }

    fn poison(&mut self, error: &io::Error) {
        self.is_poisoned = true;
        let directory = self.directory.display();
        tracing::error!(%directory, %error, "recovery points cannot be written and rise no more");
    }
}

/// How far a file may grow that was begun with so many bytes: writing it anew stays rare.
fn bytes_max(begun_bytes: u64) -> u64 {
    FILE_BYTES_MAX.max(2 * begun_bytes)
}

/// Why the file was not written anew.
enum Unwritten {
    /// It could not be written beside the one that is there, as where too many files are open or the disk is full: that
    /// one is as it was.
    NotBegun(io::Error),
    /// That one may have another name by now, or none.
    Failed(io::Error),
}

impl Unwritten {
    fn of(self, directory: &Path) -> Error {
        let (Self::NotBegun(error) | Self::Failed(error)) = self;
        Error::io(format!("cannot write {FILE_NAME} in {}", directory.display()), error)
    }
}

/// Waits for the disk; happens when the log is opened, and once in thousands of blocks.
fn write_anew(
    storage: &dyn Storage,
    directory: &Path,
    points: &RecoveryPoints,
) -> Result<(Arc<dyn StorageFile>, u64), Unwritten> {
    let mut bytes = [&MAGIC[..], &VERSION.to_be_bytes()].concat();
    if !points.is_empty() {
        encode_block(points, &mut bytes);
    }
    let path = directory.join(FILE_NAME);
    let next = whole_file::Next::write(storage, &path, &bytes, SyncPurpose::RecoveryPointFile);
    let file = next.map_err(Unwritten::NotBegun)?.replace(SyncPurpose::RecoveryPointFile);
    let file = file.map_err(Unwritten::Failed)?;
    Ok((file, bytes.len() as u64))
}
