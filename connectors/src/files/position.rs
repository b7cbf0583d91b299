//! How far a file was read, and whether it is still that file.
//!
//! A file is known by its canonical path and the hash of the bytes consumed so far. A file that has grown begins
//! with those bytes and is read on behind them; a file that begins otherwise is another file.
//!
//! The hash is CRC-64/NVME. It tells files apart that differ by accident or by an edit, each with a probability of
//! 1 - 2^-64; it does not withstand someone who wants to deceive. What it is chosen for: its whole state is eight
//! bytes and may be taken up again at any byte, so a position is small enough for every epoch record, and it runs
//! at memory speed, so that hashing costs reading nothing and checking a long beginning costs little more than
//! reading it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// The state of the running hash over the bytes consumed so far. Shown and stored as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash(u64);

impl ContentHash {
    /// The hash of nothing.
    pub fn empty() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme).get_state())
    }

    /// Takes in the bytes that follow those taken in so far.
    pub fn extend(&mut self, bytes: &[u8]) {
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Nvme, self.0);
        digest.update(bytes);
        self.0 = digest.get_state();
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl Serialize for ContentHash {
    /// As text: JSON readers other than ours lose the low bits of large numbers.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| D::Error::custom(format!("a content hash is 16 hexadecimal digits, found `{text}`")))
    }
}

/// A place between two rows of a file, and what lies before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// Bytes consumed, the header's among them.
    pub bytes: u64,
    /// Lines consumed, the header's and blank ones among them.
    pub lines: u64,
    /// Rows yielded.
    pub rows: u64,
    /// Malformed rows that were skipped or handed out as dead letters.
    pub rejected: u64,
    /// The hash of the bytes consumed.
    pub hash: ContentHash,
}

impl FilePosition {
    /// The beginning of a file.
    pub fn start() -> Self {
        Self { bytes: 0, lines: 0, rows: 0, rejected: 0, hash: ContentHash::empty() }
    }

    /// Checks that `file`, which stands at its beginning, begins with the bytes that lie before this position.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`], naming what was read before and what is there now.
    pub(crate) fn verify(&self, file: &mut File, path: &Path) -> Result<()> {
        let beginning = Beginning::read(file, self.bytes, path)?;
        if beginning.bytes < self.bytes || beginning.hash != self.hash {
            let there = if beginning.bytes < self.bytes {
                format!("it has {} bytes now", beginning.bytes)
            } else {
                format!("that beginning has hash {} now", beginning.hash)
            };
            return Err(self.changed(path, &there));
        }
        if beginning.is_cut_line_grown(file, path)? {
            return Err(
                self.changed(path, "the line that was its last, read without a line end, is longer now")
            );
        }
        Ok(())
    }

    fn changed(&self, path: &Path, there: &str) -> Error {
        let Self { bytes, rows, hash, .. } = self;
        let path = path.display();
        Error::new(
            ErrorKind::Changed,
            format!(
                "{path} is not the file that was read before: then its first {bytes} bytes ({rows} rows) had hash \
                 {hash}, {there}. Only a file that has grown is read on; give another file another name"
            ),
        )
    }
}

/// What the first bytes of a file turned out to be.
struct Beginning {
    bytes: u64,
    hash: ContentHash,
    last_byte: Option<u8>,
}

impl Beginning {
    const BLOCK_BYTES: usize = 256 * 1024;

    fn read(file: &mut File, bytes: u64, path: &Path) -> Result<Self> {
        let mut beginning = Self { bytes: 0, hash: ContentHash::empty(), last_byte: None };
        let mut block = vec![0; Self::BLOCK_BYTES];
        let mut rest = file.take(bytes);
        loop {
            let count = rest.read(&mut block).map_err(|error| Error::io("read", path, error))?;
            let Some(&last) = block[..count].last() else { return Ok(beginning) };
            beginning.hash.extend(&block[..count]);
            beginning.bytes += count as u64;
            beginning.last_byte = Some(last);
        }
    }

    /// Whether these bytes end within a line that goes on in `file`, which stands behind them.
    fn is_cut_line_grown(&self, file: &mut File, path: &Path) -> Result<bool> {
        if self.last_byte.is_none_or(|last| last == b'\n') {
            return Ok(false);
        }
        let mut next = [0; 2];
        let count = file.read(&mut next).map_err(|error| Error::io("read", path, error))?;
        Ok(!matches!(&next[..count], [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n']))
    }
}
