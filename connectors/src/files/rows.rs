//! The two formats out: rows of a type that serde can write, into a staged file.
//!
//! Equal rows give equal bytes: lines end with `\n`, a CSV field has quotes where it needs them and nowhere else.

use std::io::Write;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::Serialize;

use super::output::StagedFile;
use crate::error::{Error, ErrorKind, Result};

/// Writes rows as CSV.
///
/// ```
/// use lotic_connectors::files::{CsvRows, StagedFile};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("delays.csv");
///
/// let mut rows = CsvRows::new(StagedFile::create(&path)?, &["origin", "flights", "mean_delay"])?;
/// rows.write(&("JFK", 9, Some("7.75")))?;
/// rows.write(&("LGA", 2, None::<&str>))?;
/// rows.finish()?.publish()?;
/// assert_eq!(std::fs::read_to_string(&path)?, "origin,flights,mean_delay\nJFK,9,7.75\nLGA,2,\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CsvRows<T> {
    writer: ::csv::Writer<StagedFile>,
    target: PathBuf,
    row: PhantomData<fn(T)>,
}

impl<T: Serialize> CsvRows<T> {
    /// Writes `header`, also if no row follows.
    ///
    /// # Errors
    /// Names the file.
    pub fn new(file: StagedFile, header: &[&str]) -> Result<Self> {
        let target = file.target().to_owned();
        let writer = ::csv::WriterBuilder::new().has_headers(false).from_writer(file);
        let mut rows = Self { writer, target, row: PhantomData };
        rows.writer.write_record(header).map_err(|error| rows.error(error))?;
        Ok(rows)
    }

    /// A header with the names of the fields of `T`, written with the first row; none if `T` is a tuple.
    pub fn with_field_names(file: StagedFile) -> Self {
        let target = file.target().to_owned();
        Self { writer: ::csv::Writer::from_writer(file), target, row: PhantomData }
    }

    /// Writes `row`, which has as many fields as the header.
    ///
    /// # Errors
    /// Names the file; [`ErrorKind::Invalid`] for a row that does not fit the header.
    pub fn write(&mut self, row: &T) -> Result<()> {
        self.writer.serialize(row).map_err(|error| self.error(error))
    }

    /// The file with all rows, to be prepared or published.
    ///
    /// # Errors
    /// Names the file.
    pub fn finish(self) -> Result<StagedFile> {
        self.writer.into_inner().map_err(|error| Error::io("write", &self.target, error.into_error()))
    }

    fn error(&self, error: ::csv::Error) -> Error {
        match error.into_kind() {
            ::csv::ErrorKind::Io(error) => Error::io("write", &self.target, error),
            ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Error::new(
                ErrorKind::Invalid,
                format!("{}: a row has {len} fields, the header {expected_len}", self.target.display()),
            ),
            kind => Error::new(ErrorKind::Invalid, format!("{}: {kind:?}", self.target.display())),
        }
    }
}

/// Writes rows as JSON, one a line.
#[derive(Debug)]
pub struct JsonLinesRows<T> {
    file: StagedFile,
    row: PhantomData<fn(T)>,
}

impl<T: Serialize> JsonLinesRows<T> {
    /// Writes to `file`.
    pub fn new(file: StagedFile) -> Self {
        Self { file, row: PhantomData }
    }

    /// Writes `row`.
    ///
    /// # Errors
    /// Names the file; [`ErrorKind::Invalid`] for a row that JSON cannot express, such as a map without text keys.
    pub fn write(&mut self, row: &T) -> Result<()> {
        serde_json::to_writer(&mut self.file, row).map_err(|error| self.error(error))?;
        self.file.write_all(b"\n").map_err(|error| Error::io("write", self.file.target(), error))
    }

    /// The file with all rows, to be prepared or published.
    pub fn finish(self) -> StagedFile {
        self.file
    }

    fn error(&self, error: serde_json::Error) -> Error {
        let target = self.file.target();
        if error.is_io() {
            return Error::io("write", target, error.into());
        }
        Error::caused(ErrorKind::Invalid, format!("{}: a row cannot be written", target.display()), error)
    }
}
