//! CSV files with a header (RFC 4180), in.
//!
//! | module | owns |
//! |---|---|
//! | `record` | where a record ends and its fields lie |
//! | `row` | fields into a value of the row type, by serde |
//!
//! Only the columns that the row type names are looked at. A line without a quote is split where it lies in the
//! block; one with a quote goes through `csv-core`.

mod record;
mod row;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use self::record::{Found, Splitter};
use self::row::Columns;
use super::input::Input;
use super::reader::{Parsed, RowError, RowFormat};
use crate::error::{Error, ErrorKind, Result};

/// The format of a CSV file whose rows become values of type `T`.
///
/// A struct takes the columns named like its fields; each must be in the header, also where the field is an
/// `Option`: a misspelt column is an error, not an absent value. Leave one out on purpose with
/// [`Csv::optional_columns`]. Other types (tuples, maps, structs with `#[serde(flatten)]`) take all columns. Files
/// are UTF-8; a row that is not is malformed.
#[derive(Clone, Debug)]
pub struct Csv<T> {
    absent: Vec<String>,
    optional_columns: Vec<String>,
    splitter: Splitter,
    columns: Columns,
    row: PhantomData<fn() -> T>,
}

impl<T> Default for Csv<T> {
    fn default() -> Self {
        Self {
            absent: vec![String::new()],
            optional_columns: Vec::new(),
            splitter: Splitter::new(b','),
            columns: Columns::default(),
            row: PhantomData,
        }
    }
}

impl<T> Csv<T> {
    /// Fields are separated by `delimiter`, not by a comma.
    ///
    /// # Panics
    /// If it is not an ASCII character, or one that has a meaning of its own: a quote or a line end.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        assert!(delimiter.is_ascii() && !b"\"\r\n".contains(&delimiter), "no delimiter: {delimiter:#04x}");
        self.splitter = Splitter::new(delimiter);
        self
    }

    /// A field that is one of `texts` is `None` where the row type has an `Option`. Without this: the empty field.
    #[must_use]
    pub fn absent(mut self, texts: &[&str]) -> Self {
        self.absent = texts.iter().map(|&text| text.to_owned()).collect();
        self
    }

    /// These columns may be missing from the header: their fields become `None` or what `#[serde(default)]` says.
    /// Names that `#[serde(alias)]` adds to a field belong here too.
    #[must_use]
    pub fn optional_columns(mut self, names: &[&str]) -> Self {
        self.optional_columns = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    fn read_header(&mut self, input: &mut Input) -> Result<Vec<String>> {
        let path = input.path().display().to_string();
        let invalid = |what: &str| Error::new(ErrorKind::Invalid, format!("{path}: the header {what}"));
        let (extent, header) = match self.splitter.header(input)? {
            None => return Err(invalid("is missing: the file has no line")),
            Some(Found::Unclosed { .. }) => return Err(invalid("has a quote that is not closed")),
            Some(Found::Record { extent, record }) => {
                let names = record.fields().map_err(|_| invalid("is not UTF-8"))?;
                (extent, names.iter().map(str::to_owned).collect())
            }
        };
        input.consume(extent);
        Ok(header)
    }
}

impl<T: DeserializeOwned> RowFormat for Csv<T> {
    type Row = T;

    fn begin(&mut self, input: &mut Input) -> Result<()> {
        let header = self.read_header(input)?;
        self.columns = Columns::of::<T>(header, &self.optional_columns, &self.absent)
            .map_err(|what| Error::new(ErrorKind::Invalid, format!("{}: {what}", input.path().display())))?;
        Ok(())
    }

    #[inline]
    fn parse(&mut self, input: &mut Input) -> Result<Option<Parsed<T>>> {
        let (extent, row) = match self.splitter.next(input)? {
            None => return Ok(None),
            Some(Found::Record { extent, record }) => (extent, self.columns.decode(&record)),
            Some(Found::Unclosed { extent }) => {
                let reason = "a quoted field is not closed".to_owned();
                (extent, Err(RowError { column: None, reason }))
            }
        };
        Ok(Some(Parsed { extent, row }))
    }
}
