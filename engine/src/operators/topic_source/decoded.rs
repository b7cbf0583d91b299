//! The rows of one record batch that have not been emitted yet.

use std::collections::VecDeque;

use lotic_log::{Offset, Timestamp};

use super::reader::DeadLetter;
use crate::frame::{Batch, Columns, Data};

/// A decoded record batch, emitted a frame at a time. Records that could not be decoded keep their place
/// between the rows, so that a frame holds those, and only those, before the position it leaves behind.
pub(super) struct Decoded<T> {
    /// The partition's place among those of the reader.
    pub(super) partition: usize,
    /// The rows that are left, and the columns of all.
    pub(super) rows: Vec<T>,
    pub(super) columns: Columns,
    /// How many rows have been emitted.
    emitted: usize,
    bad: VecDeque<Bad>,
    /// The offset behind the batch.
    next_offset: Offset,
}

/// A record that could not be decoded.
struct Bad {
    /// Before which row it stood.
    before: usize,
    offset: Offset,
    letter: Option<DeadLetter>,
}

/// A bite of a decoded batch.
pub(super) struct Taken {
    /// The largest event time in it.
    pub(super) event_time_max: Option<Timestamp>,
    /// Everything before has been taken.
    pub(super) position: Offset,
}

impl<T: Data> Decoded<T> {
    pub(super) fn new() -> Self {
        Self {
            partition: 0,
            rows: Vec::new(),
            columns: Columns::default(),
            emitted: 0,
            bad: VecDeque::new(),
            next_offset: Offset(0),
        }
    }

    /// Makes place for the rows of a batch of `partition` with so many records.
    pub(super) fn begin(&mut self, partition: usize, records: usize, next_offset: Offset) {
        debug_assert!(self.is_empty());
        (self.partition, self.next_offset, self.emitted) = (partition, next_offset, 0);
        self.rows.reserve(records);
        self.columns.clear();
    }

    /// A record that could not be decoded stands here; it is to be emitted where it is given.
    pub(super) fn push_bad(&mut self, offset: Offset, letter: Option<DeadLetter>) {
        self.bad.push_back(Bad { before: self.rows.len(), offset, letter });
    }

    /// Whether all has been emitted.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.bad.is_empty()
    }

    /// The event time of the next row, and the largest of the next `rows_max`.
    pub(super) fn next_times(&self, rows_max: usize) -> Option<(Timestamp, Timestamp)> {
        let next = &self.columns.times[self.emitted..];
        let first = *next.first()?;
        Some((first, next.iter().take(rows_max).copied().max().unwrap_or(first)))
    }

    /// Moves up to `room` records: rows to `frame`, and the bad ones before and between them to `bad`.
    pub(super) fn take(
        &mut self,
        room: usize,
        frame: &mut Batch<T>,
        bad: &mut Vec<Option<DeadLetter>>,
    ) -> Taken {
        let from = self.emitted;
        let count = self.count(room, bad);
        self.emitted += count;
        let event_time_max = self.columns.times[from..self.emitted].iter().max().copied();
        let position = self.position();
        if count == self.rows.len() && from == 0 && frame.rows.is_empty() {
            frame.rows = std::mem::take(&mut self.rows);
            frame.columns = std::mem::take(&mut self.columns);
        } else {
            frame.rows.extend(self.rows.drain(..count));
            frame.columns.push_range(&self.columns, from..self.emitted);
        }
        if self.rows.is_empty() {
            self.columns.clear();
            self.emitted = 0;
            // No row is left for the others to stand before.
            self.bad.iter_mut().for_each(|bad| bad.before = 0);
        }
        Taken { event_time_max, position }
    }

    /// How many rows are among the next `room` records; the bad ones go to `bad`.
    fn count(&mut self, room: usize, bad: &mut Vec<Option<DeadLetter>>) -> usize {
        let (mut room, mut count) = (room, 0);
        while room > 0 {
            let until_bad = self.bad.front().map_or(usize::MAX, |bad| bad.before - self.emitted - count);
            if until_bad == 0 {
                bad.extend(self.bad.pop_front().map(|bad| bad.letter));
                room -= 1;
                continue;
            }
            let stretch = until_bad.min(room).min(self.rows.len() - count);
            if stretch == 0 {
                break;
            }
            (room, count) = (room - stretch, count + stretch);
        }
        count
    }

    /// Everything before has been taken.
    fn position(&self) -> Offset {
        let row = self.columns.origins.get(self.emitted).map(|origin| origin.offset);
        let bad = self.bad.front().map(|bad| bad.offset);
        row.into_iter().chain(bad).min().unwrap_or(self.next_offset)
    }
}
