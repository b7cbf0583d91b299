//! [`FileSink`]: a folder of files as the sink of a flow, each row in it once whatever crashes.
//!
//! ```text
//! <folder>/<flow>/<step>/<epoch, 20 digits>-<worker>.csv
//! ```
//!
//! A worker writes the rows of an epoch to a file that does not show, syncs it before the epoch commits, and gives it
//! its name when the epoch is committed. What a crash leaves in between is finished or removed when the flow is
//! opened again, as the last epoch record says. Rows go to the page cache as they come; no more than a block of the
//! present file is held in memory. The worker syncs and renames: once each for an epoch.

use std::path::PathBuf;

use lotic_engine::epoch::Epoch;
use lotic_engine::error::Result as EngineResult;
use lotic_engine::frame::{Batch, Data};
use lotic_engine::operator::StepPlace;
use lotic_engine::sink::{Guarantee, Sink, SinkFactory};
use serde::Serialize;

use super::output::{EpochFiles, StagedFile};
use super::rows::{CsvRows, JsonLinesRows};
use crate::error::Result;

/// Rows into files, one for each epoch and worker.
///
/// ```
/// use lotic::prelude::*;
/// use lotic_connectors::files::{FileSink, FileSource, JsonLines};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order {
///     user: String,
///     cents: i64,
///     at: i64,
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let directory = folder.path();
/// let (file, results) = (directory.join("orders.jsonl"), directory.join("results"));
/// std::fs::write(&file, r#"{"user":"ada","cents":250,"at":1000}"#)?;
///
/// let mut flow = Flow::new("large-orders");
/// let orders = FileSource::new(&file, JsonLines::default(), |order: &Order| Timestamp(order.at));
/// let stream = flow.source("orders", orders).filter(|order| order.cents > 100);
/// stream.sink("out", FileSink::csv(&results));
/// Processor::open(directory.join("data"))?.run_to_end(flow)?;
///
/// let first = results.join("large-orders/out/00000000000000000001-0.csv");
/// assert_eq!(std::fs::read_to_string(first)?, "user,cents,at\nada,250,1000\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The files in the folder of a flow and step, in the order of their names, are the rows of its committed epochs. A
/// reader sees a file whole or not at all, and none of an epoch that was not committed. Names that begin with a dot
/// are not part of the output.
///
/// Exactly once, as long as the log keeps what it has committed: one that is opened with
/// [`Durability::Sync`](lotic_log::Durability) does. Files of epochs that the log does not know are refused: under the
/// other durabilities a power cut may take a committed epoch, whose files then have to be removed by whoever knows
/// that nobody counts on them any more.
#[derive(Clone, Debug)]
pub struct FileSink {
    folder: PathBuf,
    format: Format,
}

#[derive(Clone, Debug)]
enum Format {
    /// With these columns; with the names of a row's fields where absent.
    Csv(Option<Vec<String>>),
    JsonLines,
}

impl FileSink {
    /// CSV files below `folder`, each with a header: the names of the fields of a row. Rows that are tuples have none.
    pub fn csv(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), format: Format::Csv(None) }
    }

    /// [`csv`](Self::csv) with a header of its own.
    pub fn csv_with_header(folder: impl Into<PathBuf>, header: &[&str]) -> Self {
        let header = header.iter().map(|&name| name.to_owned()).collect();
        Self { folder: folder.into(), format: Format::Csv(Some(header)) }
    }

    /// Files with one JSON value a line below `folder`.
    pub fn json_lines(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), format: Format::JsonLines }
    }

    fn files(&self, place: StepPlace<'_>) -> Result<EpochFiles> {
        let extension = match self.format {
            Format::Csv(_) => "csv",
            Format::JsonLines => "jsonl",
        };
        EpochFiles::new(self.folder.join(place.flow).join(place.step), extension)
    }
}

impl<T: Data + Serialize> SinkFactory<T> for FileSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn check(&self, place: StepPlace<'_>, last: Epoch) -> EngineResult<()> {
        Ok(self.files(place)?.check(last)?)
    }

    fn recover(&self, place: StepPlace<'_>, last: Epoch) -> EngineResult<()> {
        Ok(self.files(place)?.recover(last)?)
    }

    fn open(&self, place: StepPlace<'_>, worker: usize) -> EngineResult<Box<dyn Sink<T>>> {
        let (files, format) = (self.files(place)?, self.format.clone());
        Ok(Box::new(FileWriter { files, format, worker, present: None }))
    }
}

/// Writes the rows of one worker.
struct FileWriter<T> {
    files: EpochFiles,
    format: Format,
    worker: usize,
    /// The file of the running epoch, once it has rows.
    present: Option<Rows<T>>,
}

enum Rows<T> {
    Csv(Box<CsvRows<T>>),
    JsonLines(JsonLinesRows<T>),
}

impl<T: Serialize> Rows<T> {
    fn new(file: StagedFile, format: &Format) -> Result<Self> {
        Ok(match format {
            Format::Csv(None) => Self::Csv(Box::new(CsvRows::with_field_names(file))),
            Format::Csv(Some(header)) => {
                let header: Vec<&str> = header.iter().map(String::as_str).collect();
                Self::Csv(Box::new(CsvRows::new(file, &header)?))
            }
            Format::JsonLines => Self::JsonLines(JsonLinesRows::new(file)),
        })
    }

    fn write(&mut self, row: &T) -> Result<()> {
        match self {
            Self::Csv(rows) => rows.write(row),
            Self::JsonLines(rows) => rows.write(row),
        }
    }

    fn finish(self) -> Result<StagedFile> {
        match self {
            Self::Csv(rows) => rows.finish(),
            Self::JsonLines(rows) => Ok(rows.finish()),
        }
    }
}

impl<T: Data + Serialize> Sink<T> for FileWriter<T> {
    fn write(&mut self, batch: Batch<T>) -> EngineResult<()> {
        let rows = match &mut self.present {
            Some(rows) => rows,
            none => none.insert(Rows::new(self.files.create(self.worker)?, &self.format)?),
        };
        Ok(batch.rows.iter().try_for_each(|row| rows.write(row))?)
    }

    fn prepare(&mut self, epoch: Epoch) -> EngineResult<()> {
        let Some(rows) = self.present.take() else { return Ok(()) };
        Ok(self.files.prepare(rows.finish()?, epoch, self.worker)?)
    }

    fn commit(&mut self, epoch: Epoch) -> EngineResult<()> {
        Ok(self.files.commit(epoch, self.worker)?)
    }
}

#[cfg(test)]
mod tests;
