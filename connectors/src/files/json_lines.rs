//! Files with one JSON value a line, in.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::input::{Input, without_line_end};
use super::reader::{Parsed, RowError, RowFormat};
use crate::error::Result;

/// The format of a file whose lines are JSON values of type `T`. Blank lines are passed over.
#[derive(Clone, Debug)]
pub struct JsonLines<T> {
    row: PhantomData<fn() -> T>,
}

impl<T> Default for JsonLines<T> {
    fn default() -> Self {
        Self { row: PhantomData }
    }
}

impl<T: DeserializeOwned> RowFormat for JsonLines<T> {
    type Row = T;

    fn begin(&mut self, _input: &mut Input) -> Result<()> {
        Ok(())
    }

    fn parse(&mut self, input: &mut Input) -> Result<Option<Parsed<T>>> {
        loop {
            let Some(extent) = input.line()? else { return Ok(None) };
            let line = without_line_end(&input.unread()[..extent.bytes]);
            if line.trim_ascii().is_empty() {
                input.consume(extent);
                continue;
            }
            return Ok(Some(Parsed { extent, row: serde_json::from_slice(line).map_err(row_error) }));
        }
    }
}

#[cold]
fn row_error(error: serde_json::Error) -> RowError {
    let message = error.to_string();
    // serde_json ends its message with a place in the line, which it counts as line 1.
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = message.strip_suffix(&place).unwrap_or(&message).to_owned();
    RowError { column: (error.column() > 0).then(|| error.column().to_string()), reason }
}
