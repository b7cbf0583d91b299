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
    /// Before which row each stood.
    bad: VecDeque<(usize, Option<DeadLetter>)>,
    /// The offset behind the batch.
    next_offset: Offset,
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
    pub(super) fn push_bad(&mut self, record: Option<DeadLetter>) {
        self.bad.push_back((self.rows.len(), record));
    }

    /// Whether all has been emitted.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.bad.is_empty()
    }

    /// The event time of the next row.
    pub(super) fn next_time(&self) -> Option<Timestamp> {
        self.columns.times.get(self.emitted).copied()
    }

    /// Moves up to `room` rows to `frame`, and the bad records before and between them to `bad`.
    pub(super) fn take(
        &mut self,
        room: usize,
        frame: &mut Batch<T>,
        bad: &mut Vec<Option<DeadLetter>>,
    ) -> Taken {
        let from = self.emitted;
        let count = room.min(self.rows.len());
        self.emitted += count;
        let event_time_max = self.columns.times[from..self.emitted].iter().max().copied();
        while let Some((_, record)) = self.bad.pop_front_if(|(before, _)| *before <= self.emitted) {
            bad.push(record);
        }
        let is_last = count == self.rows.len();
        let position = if is_last { self.next_offset } else { self.columns.origins[self.emitted].offset };
        if is_last && from == 0 && frame.rows.is_empty() {
            frame.rows = std::mem::take(&mut self.rows);
            frame.columns = std::mem::take(&mut self.columns);
        } else {
            frame.rows.extend(self.rows.drain(..count));
            frame.columns.push_range(&self.columns, from..self.emitted);
        }
        if is_last {
            self.columns.clear();
            self.emitted = 0;
        }
        Taken { event_time_max, position }
    }
}
