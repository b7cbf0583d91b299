//! The note that a sync failed. Bytes whose sync failed can be read back and may still never reach the
//! disk, so the next to open the partition cuts it off where it is certain to be synced: at the offset that
//! the note says, or at the recovery point if that lies behind it.
//!
//! The file `failed-sync`:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 1 |
//! | 4..12 | offset | `i64`, the end of what the partition knew to be synced |
//! | 12..16 | checksum | CRC-32 of the bytes before it |
//!
//! All big-endian. The note is not synced: after a power cut the disk tells for itself what it has. It
//! is best effort, since the disk that failed may fail again; without it recovery keeps what it can read
//! back, but writes it once more before it syncs it. Recovery makes it durable before it cuts anything
//! off by it: some segments might be gone after a power cut otherwise, and the note with them, and others
//! behind them be there.

use std::io;
use std::path::PathBuf;

use super::PartitionSite;
use crate::record::Offset;
use crate::storage::{OpenMode, SyncPurpose};
use crate::whole_file;

const FILE_NAME: &str = "failed-sync";
const VERSION: u32 = 1;
const BYTES: usize = 16;

fn path(site: &PartitionSite) -> PathBuf {
    site.directory.join(FILE_NAME)
}

/// Notes that nothing at or behind `synced` can be relied on. A note that is there already stays.
pub(crate) fn write(site: &PartitionSite, synced: Offset) -> io::Result<()> {
    let file = match site.storage().open(&path(site), OpenMode::Create) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        opened => opened?,
    };
    file.write_at(0, &encode(synced))
}

/// A note that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Where to cut; none if the note is not whole. It is in the way of a later one then.
    pub(crate) synced: Option<Offset>,
}

impl Note {
    /// Up to where the log is certain, with all before `recovery_point` synced; none if the note does not
    /// say. Points are written down once all before them is synced: of a cut whose points nobody knows to be
    /// durable the partition does not know that it is.
    pub(crate) fn certain(self, recovery_point: Offset) -> Option<Offset> {
        self.synced.map(|synced| synced.max(recovery_point))
    }
}

/// The note, if there is one.
pub(crate) fn read(site: &PartitionSite) -> io::Result<Option<Note>> {
    let file = match site.storage().open(&path(site), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = [0; BYTES + 1];
    let read = file.read_at(0, &mut bytes)?;
    let synced = decode(&bytes[..read]);
    if synced.is_none() {
        tracing::warn!(partition = %site.name, "the note of a failed sync is not whole and is not followed");
    }
    Ok(Some(Note { synced }))
}

/// Makes the note durable. It is written anew: a sync of it may have failed before, and a further one would do
/// nothing then.
pub(crate) fn make_durable(site: &PartitionSite) -> io::Result<()> {
    let storage = &**site.storage();
    let Some(bytes) = whole_file::read(storage, &path(site))? else { return Ok(()) };
    whole_file::replace(storage, &path(site), &bytes, SyncPurpose::Recovered).map(drop)
}

/// Removes the note; for good once the directory is synced. Says whether there was one.
pub(crate) fn remove(site: &PartitionSite) -> io::Result<bool> {
    match site.storage().remove_file(&path(site)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

fn encode(synced: Offset) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..4].copy_from_slice(&VERSION.to_be_bytes());
    bytes[4..12].copy_from_slice(&synced.0.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Offset> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let (version, rest) = bytes.split_first_chunk()?;
    let (offset, checksum) = rest.split_first_chunk()?;
    let is_whole = checksum == crc32fast::hash(&bytes[..12]).to_be_bytes();
    let offset = i64::from_be_bytes(*offset);
    (is_whole && u32::from_be_bytes(*version) == VERSION && offset >= 0).then_some(Offset(offset))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::partition::PartitionConfig;
    use crate::partition::tests::{create, disk, site};

    #[test]
    fn a_torn_note_says_nothing() {
        let bytes = encode(Offset(1 << 40));
        assert_eq!(decode(&bytes), Some(Offset(1 << 40)));
        for length in 0..BYTES {
            assert_eq!(decode(&bytes[..length]), None);
        }
        for bit in 0..BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None, "bit {bit}");
        }
        assert_eq!(decode(&encode(Offset(-1))), None, "no partition ends there");
    }

    /// A note that was made durable is there after a power cut.
    pub(crate) fn check_durable(seed: u64) {
        let storage = disk(seed);
        drop(create(&storage, PartitionConfig::default()));
        let site = site(&storage, PartitionConfig::default());
        write(&site, Offset(7)).expect("the disk is fine");
        make_durable(&site).expect("the disk is fine");
        storage.crash();
        let note = read(&site).expect("it can be read").expect("it is there");
        assert_eq!(note.synced, Some(Offset(7)));
    }

    #[test]
    fn a_note_that_was_made_durable_survives_a_power_cut_though_an_operation_has_failed_before() {
        for failed in 0.. {
            let mut is_failed = false;
            for seed in 0..16 {
                let storage = disk(failed * 16 + seed);
                drop(create(&storage, PartitionConfig::default()));
                let site = site(&storage, PartitionConfig::default());
                write(&site, Offset(7)).expect("the disk is fine");
                storage.fail_with(io::ErrorKind::Other, failed);
                is_failed = make_durable(&site).is_err();
                storage.clear_faults();
                make_durable(&site).expect("the disk is fine again");
                storage.crash();
                let note = read(&site).expect("it can be read").expect("it is there");
                assert_eq!(note.synced, Some(Offset(7)), "operation {failed} fails, seed {seed}");
            }
            if !is_failed {
                return;
            }
        }
    }
}
