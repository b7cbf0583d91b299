//! What a look through the file found before anything was imported.

use std::collections::VecDeque;
use std::path::Path;

use crate::error::Result;
use crate::files::position::FilePosition;
use crate::files::reader::{FileReader, Malformed, Progress, ReadOptions, RowFormat};

/// The rows of one batch that is kept: what a frame usually holds.
pub(super) const BATCH_ROWS: usize = 1024;

/// The memory of rows that are kept, without what they hold on the heap. Rows behind that are decoded again.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The first rows of a file, decoded, in batches with the place behind each.
pub(super) struct Checked<R> {
    /// The place before the first row.
    start: FilePosition,
    batches: VecDeque<(Vec<R>, FilePosition)>,
}

impl<R> Checked<R> {
    /// Reads the whole of `path`, and keeps as many of its first rows as there is room for. Where malformed
    /// rows are no error there is nothing to look for behind the header, and nothing is kept.
    ///
    /// # Errors
    /// Those of [`FileReader::open`] and [`FileReader::read`].
    pub(super) fn read<F: RowFormat<Row = R>>(path: &Path, format: F, options: &ReadOptions) -> Result<Self> {
        let mut reader = FileReader::open(path, None, format, options.clone())?;
        let mut checked = Self { start: reader.position(), batches: VecDeque::new() };
        if options.malformed != Malformed::Fail {
            return Ok(checked);
        }
        let mut rows_left = KEPT_BYTES_MAX / size_of::<R>().max(1);
        loop {
            let mut rows = Vec::with_capacity(BATCH_ROWS);
            let progress = reader.read(BATCH_ROWS, &mut rows, &mut Vec::new())?;
            rows_left = rows_left.saturating_sub(rows.len());
            if rows_left > 0 && !rows.is_empty() {
                checked.batches.push_back((rows, reader.position()));
            }
            if progress == Progress::End {
                return Ok(checked);
            }
        }
    }

    /// Forgets the rows before `position`, and all of them if it is not the place between two batches.
    /// Returns the place behind those that are left.
    pub(super) fn skip_to(&mut self, position: Option<FilePosition>) -> Option<FilePosition> {
        if let Some(position) = position
            && position != self.start
        {
            let reached = self.batches.iter().position(|(_, end)| *end == position);
            let passed = reached.map_or(self.batches.len(), |index| index + 1);
            self.batches.drain(..passed);
        }
        self.batches.back().map(|(_, end)| *end)
    }

    /// The place before the first row.
    pub(super) fn start(&self) -> FilePosition {
        self.start
    }

    /// The next rows, and the place behind them.
    pub(super) fn next(&mut self) -> Option<(Vec<R>, FilePosition)> {
        self.batches.pop_front()
    }
}
