//! The rows of one file behind what was read of it, in the order of the file or of time.

use std::path::Path;

use lotic_log::Timestamp;

use super::checked::Checked;
use super::progress::{FileRead, FilesRead, SortedRead};
use super::{FileSource, RowOrder};
use crate::error::{Error, ErrorKind, Result};
use crate::files::reader::{Ending, FileReader, Progress, ReadOptions, RejectedRow, RowFormat};

/// Rows that are at hand, and the place behind them.
pub(super) struct Ready<R> {
    pub(super) rows: Vec<R>,
    pub(super) rejected: Vec<RejectedRow>,
    pub(super) after: FileRead,
}

/// A file that is being read.
pub(super) struct Rows<F: RowFormat> {
    reader: FileReader<F>,
    /// Everything taken so far.
    read: FilesRead,
    path: String,
    ready: Option<Ready<F::Row>>,
    /// What comes before the reader's rows, decoded already.
    checked: Option<Checked<F::Row>>,
    sorted: Option<Sorted<F::Row>>,
}

/// What is left of a part that is read in order of time.
struct Sorted<R> {
    /// The last row first.
    rows: Vec<R>,
    /// Rows without a time come with the first ones.
    rejected: Vec<RejectedRow>,
    /// What was taken of the part, with what is at hand.
    part: SortedRead,
}

impl<F: RowFormat + Clone> Rows<F> {
    /// Opens the file of `source` behind what was read of it.
    pub(super) fn open<T: Fn(&F::Row) -> Timestamp>(
        source: &FileSource<F, T>,
        mut read: FilesRead,
        mut checked: Option<Checked<F::Row>>,
        bounded: bool,
    ) -> Result<Self> {
        let ending = if bounded { Ending::Final } else { Ending::Growing };
        let options = ReadOptions { ending, ..source.options.clone() };
        let path = canonical(&source.path)?;
        let known = read.files.get(&path).map(|file| file.position);
        let checked_end = checked.as_mut().and_then(|checked| checked.skip_to(known));
        let mut reader =
            FileReader::open(&source.path, checked_end.or(known), source.format.clone(), options)?;
        let start = match (&checked, checked_end) {
            (Some(checked), Some(_)) => checked.start(),
            _ => reader.position(),
        };
        let file = *read.files.entry(path.clone()).or_insert(FileRead::up_to(start));
        let sorted = match source.order {
            RowOrder::File => None,
            RowOrder::EventTime => Some(sort_rest(&mut reader, file.sorted, &*source.time)?),
        };
        Ok(Self { reader, read, path, ready: None, checked, sorted })
    }

    /// What was taken of all files.
    pub(super) fn read(&self) -> &FilesRead {
        &self.read
    }

    /// What was taken of this file.
    pub(super) fn file(&self) -> &FileRead {
        &self.read.files[&self.path]
    }

    /// The next rows, if there are any now. They stay until they are taken.
    pub(super) fn peek(&mut self, rows_max: usize) -> Result<Option<&Ready<F::Row>>> {
        if self.ready.is_none() {
            let next = self.next(rows_max)?;
            self.ready = (next.after != *self.file()).then_some(next);
        }
        Ok(self.ready.as_ref())
    }

    /// Takes what [`peek`](Self::peek) found.
    pub(super) fn take(&mut self) -> Option<Ready<F::Row>> {
        let ready = self.ready.take()?;
        self.read.files.insert(self.path.clone(), ready.after);
        Some(ready)
    }

    fn next(&mut self, rows_max: usize) -> Result<Ready<F::Row>> {
        if let Some((rows, end)) = self.checked.as_mut().and_then(Checked::next) {
            return Ok(Ready { rows, rejected: Vec::new(), after: FileRead::up_to(end) });
        }
        let file = *self.file();
        match self.sorted.as_mut().and_then(|sorted| sorted.next(rows_max, file)) {
            Some(ready) => Ok(ready),
            None => self.read_on(rows_max),
        }
    }

    fn read_on(&mut self, rows_max: usize) -> Result<Ready<F::Row>> {
        let (mut rows, mut rejected) = (Vec::with_capacity(rows_max), Vec::new());
        // A batch of rows that were all skipped is not the end.
        while self.reader.read(rows_max, &mut rows, &mut rejected)? == Progress::More
            && rows.is_empty()
            && rejected.is_empty()
        {}
        Ok(Ready { rows, rejected, after: FileRead::up_to(self.reader.position()) })
    }
}

/// Reads the rest of the file, or what `part` says of it, and sorts it; rows taken already are left out.
fn sort_rest<F: RowFormat>(
    reader: &mut FileReader<F>,
    part: Option<SortedRead>,
    time: impl Fn(&F::Row) -> Timestamp,
) -> Result<Sorted<F::Row>> {
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    loop {
        let position = reader.position();
        let records = part.map(|part| part.end.rows + part.end.rejected - position.rows - position.rejected);
        let records_max = usize::try_from(records.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        if records_max == 0 || reader.read(records_max, &mut rows, &mut rejected)? == Progress::End {
            break;
        }
    }
    let end = reader.position();
    let part = part.unwrap_or(SortedRead { end, rows: 0 });
    if part.end != end {
        let (path, bytes) = (reader.path().display(), part.end.bytes);
        let context =
            format!("{path}: its rows up to byte {bytes} were being read in order of time, and changed");
        return Err(Error::new(ErrorKind::Changed, context));
    }
    rows.sort_by_key(time);
    rows.reverse();
    rows.truncate(rows.len().saturating_sub(usize::try_from(part.rows).unwrap_or(usize::MAX)));
    if part.rows > 0 {
        rejected.clear();
    }
    Ok(Sorted { rows, rejected, part })
}

impl<R> Sorted<R> {
    /// The next rows of the part, if any are left; `file` is what was taken before.
    fn next(&mut self, rows_max: usize, file: FileRead) -> Option<Ready<R>> {
        if self.rows.is_empty() && self.rejected.is_empty() {
            return None;
        }
        let mut rows = self.rows.split_off(self.rows.len().saturating_sub(rows_max));
        rows.reverse();
        self.part.rows += rows.len() as u64;
        let after = match self.rows.is_empty() {
            true => FileRead::up_to(self.part.end),
            false => FileRead { sorted: Some(self.part), ..file },
        };
        Some(Ready { rows, rejected: std::mem::take(&mut self.rejected), after })
    }
}

fn canonical(path: &Path) -> Result<String> {
    let canonical = path.canonicalize().map_err(|error| Error::io("find", path, error))?;
    canonical.into_os_string().into_string().map_err(|_| {
        let context = format!("{}: a file is known by its path, which has to be UTF-8", path.display());
        Error::new(ErrorKind::Invalid, context)
    })
}
