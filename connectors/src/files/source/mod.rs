//! A file as the source of a flow. Its position is in the epoch record, so each row is read exactly once.
//!
//! One source may read one file after another under its name: its position keeps every file that it has
//! read. What was read to its end is not read again; a file that has grown is read on behind it; one that
//! begins otherwise than before is refused, and nothing is changed.
//!
//! | module | owns |
//! |---|---|
//! | `checked` | what a look through the file found before anything was imported |
//! | `progress` | what the epoch record keeps |
//! | `rows` | the rows behind it, in the order of the file or of time |

mod checked;
mod progress;
mod rows;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lotic_engine::error::{Error as EngineError, ErrorKind as EngineErrorKind, Result as EngineResult};
use lotic_engine::event_log::EventLog;
use lotic_engine::frame::{Batch, Data, Frame, NO_WATERMARK, Origin};
use lotic_engine::message::Watermark;
use lotic_engine::operator::Context;
use lotic_engine::source::{
    AtHand, Position, Rejected, RowSource, Source, SourceFactory, SourceOpenContext, SourcePoll, SplitStart,
    SplitState,
};
use lotic_log::{Header, Offset, PartitionId, Record, Timestamp};

use self::checked::Checked;
use self::progress::FilesRead;
use self::rows::Rows;
use super::reader::{Malformed, ReadOptions, RejectedRow, RowFormat};
use crate::error::Result;

/// A source of files has one split, since a file is read from its beginning to its end.
const SPLIT: &str = "files";

/// In which order the rows of a file become events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// That of the file.
    #[default]
    File,
    /// That of their event times; rows of one time stay in the order of the file. All rows that the file has
    /// when it is opened are held in memory, and come before those that are added to it later.
    EventTime,
}

/// Reads a file into a flow: rows on port 0, and malformed ones, if they are not to stop or be skipped, as
/// [`Record`]s on port 1.
pub struct FileSource<F: RowFormat, T> {
    path: PathBuf,
    format: F,
    time: Arc<T>,
    order: RowOrder,
    disorder_ms: i64,
    options: ReadOptions,
    /// For the first opening.
    checked: Mutex<Option<Checked<F::Row>>>,
}

impl<F: RowFormat, T: Fn(&F::Row) -> Timestamp> FileSource<F, T> {
    /// Reads `path`; the event time of a row is what `time` says.
    pub fn new(path: impl Into<PathBuf>, format: F, time: T) -> Self {
        let (order, options) = (RowOrder::default(), ReadOptions::default());
        let (time, checked) = (Arc::new(time), Mutex::new(None));
        Self { path: path.into(), format, time, order, disorder_ms: 0, options, checked }
    }

    /// The order in which rows become events.
    #[must_use]
    pub fn order(self, order: RowOrder) -> Self {
        Self { order, ..self }
    }

    /// How far, in milliseconds, an event time may be behind the largest one before it.
    #[must_use]
    pub fn disorder_ms(self, disorder_ms: i64) -> Self {
        Self { disorder_ms, ..self }
    }

    /// How the file is read. Whether its end is final does not count: it is, if the flow ends there.
    #[must_use]
    pub fn options(self, options: ReadOptions) -> Self {
        Self { options, ..self }
    }

    /// Looks through the whole file now, so that one that cannot be read is refused before anything else
    /// happens. Up to 64 MiB of the rows are kept until the flow starts, which need not decode them again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] where the header lacks a column of the row type;
    /// [`ErrorKind::Malformed`] for a malformed row, unless such rows are skipped or kept.
    ///
    /// [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
    /// [`ErrorKind::Invalid`]: crate::ErrorKind::Invalid
    /// [`ErrorKind::Malformed`]: crate::ErrorKind::Malformed
    pub fn check(self) -> Result<Self>
    where
        F: Clone,
    {
        let checked = Checked::read(&self.path, self.format.clone(), &self.options)?;
        Ok(Self { checked: Mutex::new(Some(checked)), ..self })
    }

    /// What [`Self::check`] kept, if it can be used: whole frames, in the order and up to the end in which
    /// they are wanted now.
    fn take_checked(&self, frame_rows_max: usize, bounded: bool) -> Option<Checked<F::Row>> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_usable = bounded && self.order == RowOrder::File && frame_rows_max >= checked::BATCH_ROWS;
        checked.filter(|_| is_usable)
    }
}

impl<F, T> RowSource for FileSource<F, T>
where
    F: RowFormat<Row: Data> + Clone + Send + Sync + 'static,
    T: Fn(&F::Row) -> Timestamp + Send + Sync + 'static,
{
    type Row = F::Row;

    fn description(&self) -> String {
        let order = match self.order {
            RowOrder::File => "",
            RowOrder::EventTime => ", in order of time",
        };
        format!("file {}{order}", self.path.display())
    }
}

impl<F, T> SourceFactory for FileSource<F, T>
where
    F: RowFormat<Row: Data> + Clone + Send + Sync + 'static,
    T: Fn(&F::Row) -> Timestamp + Send + Sync + 'static,
{
    fn splits(&self, _: &dyn EventLog) -> EngineResult<Vec<String>> {
        Ok(vec![SPLIT.to_owned()])
    }

    fn disorder_ms(&self) -> Option<i64> {
        Some(self.disorder_ms)
    }

    fn open(
        &self,
        splits: Vec<SplitStart>,
        context: &mut SourceOpenContext<'_>,
    ) -> EngineResult<Box<dyn Source>> {
        let Some(start) = splits.into_iter().next() else { return Ok(Box::new(NothingToRead)) };
        let event_time_max = start.state.as_ref().and_then(|state| state.event_time_max).map(Timestamp);
        let rejected = start.state.as_ref().map(|state| state.rejected).unwrap_or_default();
        let read = recorded(start.state)?;
        let checked = self.take_checked(context.frame_rows_max, context.bounded);
        let rows = Rows::open(self, read, checked, context.bounded)?;
        Ok(Box::new(OpenFile {
            rows,
            time: Arc::clone(&self.time),
            source: context.source,
            frame_rows_max: context.frame_rows_max,
            bounded: context.bounded,
            disorder_ms: self.disorder_ms,
            event_time_max,
            malformed: self.options.malformed,
            rejected,
        }))
    }
}

/// What the last epoch record says was read. Like every error here one of it names no step: the engine does.
fn recorded(state: Option<SplitState>) -> EngineResult<FilesRead> {
    let wrong = || {
        let context = "its position in the epoch record is not one in files";
        EngineError::new(EngineErrorKind::Incompatible, context)
    };
    match state.map(|state| state.position) {
        None => Ok(FilesRead::default()),
        Some(Position::External(position)) => serde_json::from_value(position).map_err(|_| wrong()),
        Some(Position::Topic { .. }) => Err(wrong()),
    }
}

/// The reader on workers that have no file.
struct NothingToRead;

impl Source for NothingToRead {
    fn poll(&mut self, _: &mut Context<'_>) -> EngineResult<SourcePoll> {
        Ok(SourcePoll::Ended)
    }

    fn at_hand(&mut self) -> EngineResult<Option<AtHand>> {
        Ok(None)
    }

    fn positions(&self) -> Vec<SplitState> {
        Vec::new()
    }
}

/// A file that is being read, on the one worker that reads it.
struct OpenFile<F: RowFormat, T> {
    rows: Rows<F>,
    time: Arc<T>,
    source: u32,
    frame_rows_max: usize,
    bounded: bool,
    disorder_ms: i64,
    event_time_max: Option<Timestamp>,
    malformed: Malformed,
    /// Of all files, since the flow began.
    rejected: Rejected,
}

impl<F, T> Source for OpenFile<F, T>
where
    F: RowFormat<Row: Data> + Clone,
    T: Fn(&F::Row) -> Timestamp + Send + Sync,
{
    fn poll(&mut self, context: &mut Context<'_>) -> EngineResult<SourcePoll> {
        let before = self.rows.file().position;
        self.rows.peek(self.frame_rows_max)?;
        let Some(ready) = self.rows.take() else {
            return Ok(if self.bounded { SourcePoll::Ended } else { SourcePoll::Pending });
        };
        let rejected = ready.after.position.rejected - before.rejected;
        match self.malformed {
            Malformed::Fail => {}
            Malformed::Skip => {
                self.rejected.skipped += rejected;
                context.counters.skipped.add(rejected);
            }
            Malformed::DeadLetter => {
                self.rejected.dead_lettered += rejected;
                context.counters.dead_lettered.add(rejected);
            }
        }
        let watermark = self.watermark();
        context.emit(1, self.rejected_frame(ready.rejected));
        let frame = self.frame(ready.rows, before.rows);
        context.emit(0, frame);
        if self.watermark() > watermark {
            context.forward_watermark(Watermark { partition: None, time: self.watermark() });
        }
        Ok(SourcePoll::Ready)
    }

    fn at_hand(&mut self) -> EngineResult<Option<AtHand>> {
        let watermark = self.watermark();
        let ready = self.rows.peek(self.frame_rows_max)?;
        Ok(ready.and_then(|ready| {
            let (first, last) = ((self.time)(ready.rows.first()?), (self.time)(ready.rows.last()?));
            Some(AtHand { first, last: last.max(first), watermark })
        }))
    }

    fn positions(&self) -> Vec<SplitState> {
        let position = serde_json::to_value(self.rows.read()).expect("paths and numbers are JSON");
        vec![SplitState {
            split: SPLIT.to_owned(),
            position: Position::External(position),
            event_time_max: self.event_time_max.map(|time| time.0),
            timeless_end: None,
            rejected: self.rejected,
        }]
    }
}

impl<F, T> OpenFile<F, T>
where
    F: RowFormat<Row: Data>,
    T: Fn(&F::Row) -> Timestamp,
{
    fn watermark(&self) -> Timestamp {
        match self.event_time_max {
            Some(Timestamp(max)) => Timestamp(max.saturating_sub(self.disorder_ms)),
            None => NO_WATERMARK,
        }
    }

    fn origin(&self, number: u64) -> Origin {
        Origin { source: self.source, partition: PartitionId(0), offset: Offset(number as i64) }
    }

    /// The rows as events, numbered from `first`.
    fn frame(&mut self, rows: Vec<F::Row>, first: u64) -> Frame {
        let mut batch = Batch { rows, ..Batch::default() };
        let columns = &mut batch.columns;
        columns.times.reserve_exact(batch.rows.len());
        columns.watermarks.reserve_exact(batch.rows.len());
        columns.origins.reserve_exact(batch.rows.len());
        for (row, number) in batch.rows.iter().zip(first..) {
            let time = (self.time)(row);
            self.event_time_max = self.event_time_max.max(Some(time));
            columns.times.push(time);
            columns.watermarks.push(self.watermark());
            columns.origins.push(self.origin(number));
        }
        batch.into()
    }

    /// Malformed rows as events; they have no time of their own.
    fn rejected_frame(&self, rows: Vec<RejectedRow>) -> Frame {
        let mut batch = Batch::default();
        for row in rows {
            batch.columns.times.push(self.event_time_max.unwrap_or_default());
            batch.columns.watermarks.push(self.watermark());
            batch.columns.origins.push(self.origin(row.line));
            batch.rows.push(dead_letter(row));
        }
        batch.into()
    }
}

/// A row as it stands in the file, with headers that say where that is and what is wrong with it.
fn dead_letter(row: RejectedRow) -> Record {
    let header = |key: &str, value: String| Header { key: key.to_owned(), value: Some(value.into()) };
    let mut headers = vec![
        header("file", row.file.display().to_string()),
        header("line", row.line.to_string()),
        header("reason", row.reason),
    ];
    headers.extend(row.column.map(|column| header("column", column)));
    Record { key: None, value: Some(row.raw.into()), headers, timestamp: None }
}
