//! One file read in big blocks: bytes, lines, position.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memchr;

use super::position::FilePosition;
use super::reader::{Ending, ReadOptions};
use crate::error::{Error, ErrorKind, Result};

/// How much of the input one record takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) bytes: usize,
    pub(crate) lines: u64,
}

/// A file and a window of it in memory.
///
/// ```text
/// buffer   | consumed, hashed | consumed | unread                    | free |
///                      hashed ^    start ^      searched ^    filled ^
/// ```
///
/// No line end lies between `start` and `searched`.
pub struct Input {
    path: Arc<Path>,
    file: File,
    ending: Ending,
    record_bytes_max: usize,
    buffer: Vec<u8>,
    hashed: usize,
    start: usize,
    searched: usize,
    filled: usize,
    position: FilePosition,
}

impl Input {
    /// Opens `path` at its beginning, after checking that it begins with what lies before `resume`.
    pub(crate) fn open(path: &Path, resume: Option<&FilePosition>, options: &ReadOptions) -> Result<Self> {
        let path = canonical(path)?;
        let mut file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        if let Some(position) = resume {
            position.verify(&mut file, &path)?;
            file.rewind().map_err(|error| Error::io("read", &path, error))?;
        }
        Ok(Self {
            path: path.into(),
            file,
            ending: options.ending,
            record_bytes_max: options.record_bytes_max,
            buffer: vec![0; options.block_bytes.max(1)],
            hashed: 0,
            start: 0,
            searched: 0,
            filled: 0,
            position: FilePosition::start(),
        })
    }

    /// Goes on at `position`, which lies behind what was consumed so far and which [`Self::open`] has checked.
    pub(crate) fn resume_at(&mut self, position: &FilePosition) -> Result<()> {
        let place = SeekFrom::Start(position.bytes);
        self.file.seek(place).map_err(|error| Error::io("read", &self.path, error))?;
        self.position = *position;
        (self.hashed, self.start, self.searched, self.filled) = (0, 0, 0, 0);
        Ok(())
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(crate) fn ending(&self) -> Ending {
        self.ending
    }

    /// The place behind the last record consumed, once that is hashed.
    pub(crate) fn position(&self) -> FilePosition {
        debug_assert_eq!(self.hashed, self.start, "a position is asked for between batches");
        self.position
    }

    /// The number of the next line, from 1.
    pub(crate) fn next_line_number(&self) -> u64 {
        self.position.lines + 1
    }

    /// Bytes read and not consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.filled]
    }

    /// The extent of the next line in [`Self::unread`], its line end included, or `None` at the present end of
    /// the file. A last line without line end is a line only when the file is read as ended.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a line longer than the setting `record_bytes_max`.
    #[inline]
    pub(crate) fn line(&mut self) -> Result<Option<Extent>> {
        match memchr(b'\n', &self.buffer[self.searched..self.filled]) {
            Some(at) => self.line_up_to(self.searched + at).map(Some),
            None => self.line_beyond_the_buffer(),
        }
    }

    #[cold]
    fn line_beyond_the_buffer(&mut self) -> Result<Option<Extent>> {
        loop {
            self.searched = self.filled;
            if !self.fill()? {
                let bytes = self.unread().len();
                let is_line = bytes > 0 && self.ending == Ending::Final;
                return Ok(is_line.then_some(Extent { bytes, lines: 1 }));
            }
            if let Some(at) = memchr(b'\n', &self.buffer[self.searched..self.filled]) {
                return self.line_up_to(self.searched + at).map(Some);
            }
            if self.is_over_the_limit() {
                return Err(self.too_long());
            }
        }
    }

    /// The line whose `\n` lies at `end` in the buffer.
    #[inline]
    fn line_up_to(&self, end: usize) -> Result<Extent> {
        let bytes = end + 1 - self.start;
        if bytes > self.record_bytes_max { Err(self.too_long()) } else { Ok(Extent { bytes, lines: 1 }) }
    }

    /// Whether what is unread could not be one record any more.
    pub(crate) fn is_over_the_limit(&self) -> bool {
        self.unread().len() > self.record_bytes_max
    }

    #[cold]
    fn too_long(&self) -> Error {
        let (path, line, limit) = (self.path.display(), self.next_line_number(), self.record_bytes_max);
        Error::new(
            ErrorKind::Invalid,
            format!("{path}: line {line} is longer than {limit} bytes (setting record_bytes_max)"),
        )
    }

    /// Reads more behind what is unread. Returns false at the present end of the file.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        if self.filled == self.buffer.len() {
            self.make_room();
        }
        let free: Range<usize> = self.filled..self.buffer.len();
        let count =
            self.file.read(&mut self.buffer[free]).map_err(|error| Error::io("read", &self.path, error))?;
        self.filled += count;
        Ok(count > 0)
    }

    /// Moves what is unread to the front; where that frees less than half, the buffer doubles. Records have a
    /// limit, so the buffer has one.
    fn make_room(&mut self) {
        self.hash_consumed();
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.searched -= self.start;
        (self.hashed, self.start) = (0, 0);
        if self.filled > self.buffer.len() / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }

    /// Takes `extent` off the front of what is unread.
    #[inline]
    pub(crate) fn consume(&mut self, extent: Extent) {
        debug_assert!(extent.bytes <= self.unread().len());
        self.start += extent.bytes;
        self.searched = self.start;
        self.position.bytes += extent.bytes as u64;
        self.position.lines += extent.lines;
    }

    pub(crate) fn count_row(&mut self) {
        self.position.rows += 1;
    }

    pub(crate) fn count_rejected(&mut self) {
        self.position.rejected += 1;
    }

    /// Takes what was consumed since the last call into the hash: many small records at once.
    pub(crate) fn hash_consumed(&mut self) {
        self.position.hash.extend(&self.buffer[self.hashed..self.start]);
        self.hashed = self.start;
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|error| Error::io("open", path, error))
}

/// `line` without `\n` or `\r\n` at its end.
#[inline]
pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
