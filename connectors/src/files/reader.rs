//! Rows in batches from any format; what becomes of a malformed one.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::input::{Extent, Input};
use super::position::FilePosition;
use crate::error::{Error, ErrorKind, Result};

/// What becomes of a row that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Malformed {
    /// Reading stops before it with an error that names file, line and column.
    #[default]
    Fail,
    /// It is passed over and counted in [`FilePosition::rejected`].
    Skip,
    /// It is handed to the caller as it stands in the file, with the reason, and counted.
    DeadLetter,
}

/// What the present end of a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The end of the input: a last line without line end is a row. Should the file grow later, it must go on
    /// with a line end; a line that was read and has become longer makes it another file.
    #[default]
    Final,
    /// As far as the writer has come: a last line without line end may be half written and is left for later.
    Growing,
}

/// How a file is read. The defaults suit files with rows of up to some kilobytes.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// What becomes of a row that cannot be decoded.
    pub malformed: Malformed,
    /// What the present end of the file is.
    pub ending: Ending,
    /// Bytes read at once.
    pub block_bytes: usize,
    /// The longest line accepted, and how far behind a quote its end is looked for. The buffer stays below the
    /// larger of a block and four times this.
    pub record_bytes_max: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            malformed: Malformed::default(),
            ending: Ending::default(),
            block_bytes: 256 * 1024,
            record_bytes_max: 1024 * 1024,
        }
    }
}

/// A row that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// The file's canonical path.
    pub file: Arc<Path>,
    /// The line on which the row begins, from 1.
    pub line: u64,
    /// The name of the column in a CSV file, the number of the character (from 1) in a JSON line, where known.
    pub column: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// The row as it stands in the file, without its line end.
    pub raw: Vec<u8>,
}

impl fmt::Display for RejectedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: line {}", self.file.display(), self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// What a format makes of the next record.
pub struct Parsed<T> {
    pub(crate) extent: Extent,
    pub(crate) row: Result<T, RowError>,
}

/// Why a record is not a row.
#[derive(Debug)]
pub struct RowError {
    pub(crate) column: Option<String>,
    pub(crate) reason: String,
}

/// How bytes become rows: [`Csv`](super::Csv) or [`JsonLines`](super::JsonLines). Only this crate implements it.
pub trait RowFormat: Send {
    /// What a record becomes.
    type Row;

    /// Consumes what stands before the first row.
    #[doc(hidden)]
    fn begin(&mut self, input: &mut Input) -> Result<()>;

    /// Decodes the next record without consuming it; blank lines before it are consumed. `None` at the present end.
    #[doc(hidden)]
    fn parse(&mut self, input: &mut Input) -> Result<Option<Parsed<Self::Row>>>;
}

/// Whether there may be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The batch is full, or a malformed row comes next: read again.
    More,
    /// The present end of the file is reached. A file that grows may have more later.
    End,
}

/// Reads rows in batches, and knows after each batch how far it has come.
///
/// ```
/// use lotic_connectors::files::{Csv, CsvReader, ReadOptions};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("airlines.csv");
/// # std::fs::write(&path, "carrier,name\nAA,American Airlines Inc.\nB6,JetBlue Airways\n")?;
///
/// #[derive(serde::Deserialize)]
/// struct Airline {
///     carrier: String,
///     name: String,
/// }
///
/// let mut reader = CsvReader::<Airline>::open(&path, None, Csv::default(), ReadOptions::default())?;
/// let (mut rows, mut rejected) = (Vec::new(), Vec::new());
/// reader.read(1000, &mut rows, &mut rejected)?;
/// assert_eq!(rows[1].name, "JetBlue Airways");
///
/// // Later, or after a restart, only what has been added since:
/// let position = reader.position();
/// let reader = CsvReader::<Airline>::open(&path, Some(position), Csv::default(), ReadOptions::default())?;
/// # let _ = (reader, &rows[0].carrier);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileReader<F> {
    input: Input,
    format: F,
    malformed: Malformed,
}

impl<F: RowFormat> FileReader<F> {
    /// Opens `path`, at its beginning or behind `resume`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Changed`] where the file does not begin with what was read before;
    /// [`ErrorKind::Invalid`] where the header lacks a column of the row type.
    pub fn open(
        path: impl AsRef<Path>,
        resume: Option<FilePosition>,
        format: F,
        options: ReadOptions,
    ) -> Result<Self> {
        let mut input = Input::open(path.as_ref(), resume.as_ref(), &options)?;
        let mut format = format;
        format.begin(&mut input)?;
        match resume {
            Some(position) if position.bytes > 0 => input.resume_at(&position)?,
            _ => input.hash_consumed(),
        }
        Ok(Self { input, format, malformed: options.malformed })
    }

    /// Reads up to `rows_max` records and puts the rows behind those in `rows`. Under [`Malformed::DeadLetter`]
    /// malformed ones go to `rejected`, in file order.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a malformed row under [`Malformed::Fail`]. An error puts nothing into `rows`
    /// and moves nothing: what stands before a malformed row is returned by the call before.
    pub fn read(
        &mut self,
        rows_max: usize,
        rows: &mut Vec<F::Row>,
        rejected: &mut Vec<RejectedRow>,
    ) -> Result<Progress> {
        let progress = self.read_records(rows_max, rows, rejected);
        self.input.hash_consumed();
        progress
    }

    fn read_records(
        &mut self,
        rows_max: usize,
        rows: &mut Vec<F::Row>,
        rejected: &mut Vec<RejectedRow>,
    ) -> Result<Progress> {
        for count in 0..rows_max {
            let parsed = match self.format.parse(&mut self.input) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => return Ok(Progress::End),
                Err(_) if count > 0 => return Ok(Progress::More),
                Err(error) => return Err(error),
            };
            match parsed.row {
                Ok(row) => {
                    rows.push(row);
                    self.input.count_row();
                }
                Err(_) if self.malformed == Malformed::Fail && count > 0 => return Ok(Progress::More),
                Err(error) => self.reject(parsed.extent, error, rejected)?,
            }
            self.input.consume(parsed.extent);
        }
        Ok(Progress::More)
    }

    #[cold]
    fn reject(&mut self, extent: Extent, error: RowError, rejected: &mut Vec<RejectedRow>) -> Result<()> {
        let row = RejectedRow {
            file: Arc::clone(self.input.path()),
            line: self.input.next_line_number(),
            column: error.column,
            reason: error.reason,
            raw: super::input::without_line_end(&self.input.unread()[..extent.bytes]).to_vec(),
        };
        match self.malformed {
            Malformed::Fail => return Err(Error::new(ErrorKind::Malformed, row.to_string())),
            Malformed::Skip => {}
            Malformed::DeadLetter => rejected.push(row),
        }
        self.input.count_rejected();
        Ok(())
    }

    /// The place behind the last row returned.
    pub fn position(&self) -> FilePosition {
        self.input.position()
    }

    /// The file's canonical path, by which it is known.
    pub fn path(&self) -> &Path {
        self.input.path()
    }
}

impl<F> fmt::Debug for FileReader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader").field("path", self.input.path()).finish_non_exhaustive()
    }
}
