//! What the indexes of a segment held when they were last written out.
//!
//! An index that has lost entries at its end looks like one that never had them. Of the index of aborted transactions
//! that shows records to who reads committed ones, and keeps them through a compaction: it is no hint. That by time ends
//! with the segment's largest timestamp: a smaller one hides records, and has segments deleted that are to stay. That by
//! offset has more read than need be. So what they hold is noted in a file beside
//! them, `<base>.sum`, which is ours alone; every segment has one whose indexes were written out. Where one of them
//! disagrees, or there is no note, the segment is read again.
//!
//! The file holds two notes, one behind the other, of which the older may be missing; numbers are big-endian.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 1 |
//! | 4..12 | end | `i64`, the offset behind the last record that the indexes speak of |
//! | 12..24 | by offset | see below |
//! | 24..36 | by time | see below |
//! | 36..48 | aborted transactions | see below |
//! | 48..52 | checksum | CRC-32 of the bytes before it |
//!
//! Of each index:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | entries | `u64` |
//! | 8..12 | checksum | CRC-32 of the last entry of the first two, of all entries of the third |
//!
//! A note is written with the indexes when the segment is sealed, a producer snapshot is taken, and the partition is
//! closed, and synced before what they say is believed: up to the snapshot, behind which batches are read again after
//! a crash. Entries that an index has gained since come of a kill between the two writes. A note is written where it is,
//! in the place of the older one: a power cut that tears it, or keeps it and not the entries it speaks of, leaves the one
//! before it. That is synced unless appends are faster than the disk; then the segment is read again. A note that speaks
//! of more than is there, the log having been cut off since, goes with the next one; of a sealed segment only one that
//! ends where the segment does is believed, since a power cut may bring that back, and the entries it speaks of.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileContext, Held};
use crate::record::Offset;
use crate::storage::{OpenMode, Storage, StorageFile};

const VERSION: u32 = 1;
const BYTES: usize = 52;
const NOTES: usize = 2;

/// The file that says it.
pub(crate) struct SumFile {
    storage: Arc<dyn Storage>,
    path: PathBuf,
}

/// What the indexes of a segment held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The offset behind the last record that they spoke of.
    pub(crate) end: Offset,
    pub(crate) offsets: Held,
    pub(crate) times: Held,
    pub(crate) aborted: Held,
}

impl SumFile {
    pub(crate) fn new(context: &FileContext, path: PathBuf) -> Self {
        Self { storage: context.storage.clone(), path }
    }

    /// The notes that are whole.
    pub(crate) fn read(&self) -> io::Result<impl Iterator<Item = Note>> {
        read_notes(&*self.storage, &self.path)
    }

    /// Notes what the indexes hold, which is on file. The file is to be synced: it may be as it should be and not be
    /// durable.
    pub(crate) fn write(&self, note: Note) -> io::Result<Arc<dyn StorageFile>> {
        let (file, found) = match self.storage.open(&self.path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (self.storage.open(&self.path, OpenMode::Create)?, [None; NOTES])
            }
            opened => {
                let file = opened?;
                let found = notes_in(&*file)?;
                (file, found)
            }
        };
        if found.contains(&Some(note)) && found.iter().flatten().all(|found| found.end <= note.end) {
            return Ok(file);
        }
        // The newest of those before it stays as it is.
        let before = |place: &usize| found[*place].map(|found| found.end).filter(|end| *end < note.end);
        let kept = (0..NOTES).filter(|place| before(place).is_some()).max_by_key(before);
        let place = kept.map_or(0, |kept| NOTES - 1 - kept);
        file.write_at((place * BYTES) as u64, &note.encode())?;
        if kept.is_none() && found[1].is_some() {
            file.truncate(BYTES as u64)?;
        }
        Ok(file)
    }
}

/// The notes in the file `path` that are whole, whoever writes to it.
pub(crate) fn read_notes(
    storage: &dyn Storage,
    path: &Path,
) -> io::Result<impl Iterator<Item = Note> + use<>> {
    let notes = match storage.open(path, OpenMode::Read) {
        Ok(file) => notes_in(&*file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => [None; NOTES],
        Err(error) => return Err(error),
    };
    Ok(notes.into_iter().flatten())
}

fn notes_in(file: &dyn StorageFile) -> io::Result<[Option<Note>; NOTES]> {
    let mut bytes = [0; NOTES * BYTES];
    file.read_at(0, &mut bytes)?;
    let mut notes = [None; NOTES];
    for (note, bytes) in notes.iter_mut().zip(bytes.chunks_exact(BYTES)) {
        *note = Note::decode(bytes);
    }
    Ok(notes)
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(self.end.0.to_be_bytes());
        for held in [self.offsets, self.times, self.aborted] {
            bytes.extend(held.entries.to_be_bytes());
            bytes.extend(held.checksum.to_be_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    /// `None` for what was never written whole.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk()?;
        let is_whole = *checksum == crc32fast::hash(body).to_be_bytes();
        let (version, body) = body.split_first_chunk()?;
        let (end, mut body) = body.split_first_chunk()?;
        let mut held = || {
            let (entries, rest) = body.split_first_chunk()?;
            let (checksum, rest) = rest.split_first_chunk()?;
            body = rest;
            Some(Held { entries: u64::from_be_bytes(*entries), checksum: u32::from_be_bytes(*checksum) })
        };
        let note = Self {
            end: Offset(i64::from_be_bytes(*end)),
            offsets: held()?,
            times: held()?,
            aborted: held()?,
        };
        (is_whole && *version == VERSION.to_be_bytes()).then_some(note)
    }
}
