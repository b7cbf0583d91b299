//! A frame: some hundreds to thousands of events that travel an edge together.
//!
//! Types are erased once, here: a frame holds a `Vec<T>` behind `Rows`, an operator takes it out with one
//! downcast, and its closures then run in tight loops over `T`.

use std::any::Any;
use std::ops::Range;

use lotic_log::{Offset, PartitionId, Timestamp};

use crate::key_group::KeyGroup;

/// What can travel in a stream.
pub trait Data: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Data for T {}

/// The watermark of a record or an input about which nothing is known yet: any time is still expected.
pub const NO_WATERMARK: Timestamp = Timestamp(i64::MIN);

/// Where a record came from. With the event time it gives records their one true order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The source's number in the graph (sources are numbered by topic name, so that order is by topic).
    pub source: u32,
    /// The partition of the source.
    pub partition: PartitionId,
    /// The offset in the partition.
    pub offset: Offset,
}

/// What is known of each event of a frame besides its row: columns of equal length.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Event time.
    pub times: Vec<Timestamp>,
    /// The event's own watermark: that of its source partition when it was read. Decides lateness.
    pub watermarks: Vec<Timestamp>,
    /// Origins; empty where no step downstream needs them.
    pub origins: Vec<Origin>,
    /// Encoded keys and their groups; empty in a stream that is not keyed.
    pub keys: KeyColumn,
}

/// What room is made for before the keys are known.
const USUAL_KEY_BYTES: usize = 8;

/// Encoded keys, back to back, with the murmur2 of each.
#[derive(Clone, Debug, Default)]
pub struct KeyColumn {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    hashes: Vec<u32>,
}

impl KeyColumn {
    /// A column with room for `count` keys of some bytes each.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(count * USUAL_KEY_BYTES),
            ends: Vec::with_capacity(count),
            hashes: Vec::with_capacity(count),
        }
    }

    /// Appends a key that `encode` writes to the buffer it is given.
    pub fn push_with<E>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let start = self.bytes.len();
        if let Err(error) = encode(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        self.hashes.push(lotic_log::murmur2(&self.bytes[start..]) as u32);
        self.ends.push(end_of_key(self.bytes.len()));
        Ok(())
    }

    /// Appends a key whose hash is known.
    pub fn push(&mut self, key: &[u8], hash: u32) {
        self.bytes.extend_from_slice(key);
        self.hashes.push(hash);
        self.ends.push(end_of_key(self.bytes.len()));
    }

    /// Appends the keys of `range` of `other`.
    pub fn push_range(&mut self, other: &Self, range: Range<usize>) {
        let start = other.start_of(range.start);
        let end = other.start_of(range.end);
        let ends = other.ends[range.clone()].iter();
        let shift = self.bytes.len();
        self.ends.extend(ends.map(|&at| end_of_key(at as usize - start + shift)));
        self.bytes.extend_from_slice(&other.bytes[start..end]);
        self.hashes.extend_from_slice(&other.hashes[range]);
    }

    /// Drops the keys whose place `keep` says no to.
    pub fn retain(&mut self, keep: &[bool]) {
        let (mut kept, mut start, mut end) = (0, 0, 0);
        for (index, &keep) in keep.iter().enumerate().take(self.ends.len()) {
            let next = self.ends[index] as usize;
            if keep {
                self.bytes.copy_within(start..next, end);
                end += next - start;
                self.ends[kept] = end_of_key(end);
                self.hashes[kept] = self.hashes[index];
                kept += 1;
            }
            start = next;
        }
        self.bytes.truncate(end);
        self.ends.truncate(kept);
        self.hashes.truncate(kept);
    }

    /// Drops all keys, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.hashes.clear();
    }

    /// Where the key of event `index` starts.
    fn start_of(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The encoded key of event `index`.
    pub fn key(&self, index: usize) -> &[u8] {
        &self.bytes[self.start_of(index)..self.ends[index] as usize]
    }

    /// The murmur2 of the encoded key of event `index`.
    pub fn hash(&self, index: usize) -> u32 {
        self.hashes[index]
    }

    /// The key group of event `index`.
    pub fn group(&self, index: usize) -> KeyGroup {
        KeyGroup::of_hash(self.hashes[index])
    }
}

fn end_of_key(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame's keys stay far below 4 GiB")
}

impl Columns {
    /// Columns with room for `count` events like those of `other`.
    fn with_capacity_like(other: &Self, count: usize) -> Self {
        let origins = if other.origins.is_empty() { 0 } else { count };
        let keys = if other.keys.is_empty() { 0 } else { count };
        Self {
            times: Vec::with_capacity(count),
            watermarks: Vec::with_capacity(count),
            origins: Vec::with_capacity(origins),
            keys: KeyColumn {
                bytes: Vec::with_capacity(keys * other.keys.bytes.len().div_ceil(other.len().max(1))),
                ends: Vec::with_capacity(keys),
                hashes: Vec::with_capacity(keys),
            },
        }
    }

    /// How many events the columns describe.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether they describe none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Appends event `index` of `other`, in every column that `other` has.
    pub fn push_from(&mut self, other: &Self, index: usize) {
        self.times.push(other.times[index]);
        self.watermarks.push(other.watermarks[index]);
        if !other.origins.is_empty() {
            self.origins.push(other.origins[index]);
        }
        if !other.keys.is_empty() {
            self.keys.push(other.keys.key(index), other.keys.hash(index));
        }
    }

    /// Appends the events of `range` of `other`, in every column that `other` has.
    pub fn push_range(&mut self, other: &Self, range: Range<usize>) {
        self.times.extend_from_slice(&other.times[range.clone()]);
        self.watermarks.extend_from_slice(&other.watermarks[range.clone()]);
        if !other.origins.is_empty() {
            self.origins.extend_from_slice(&other.origins[range.clone()]);
        }
        if !other.keys.is_empty() {
            self.keys.push_range(&other.keys, range);
        }
    }

    /// Drops the events whose place `keep` says no to.
    pub fn retain(&mut self, keep: &[bool]) {
        retain(&mut self.times, keep);
        retain(&mut self.watermarks, keep);
        retain(&mut self.origins, keep);
        self.keys.retain(keep);
    }

    /// Drops all events, and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.watermarks.clear();
        self.origins.clear();
        self.keys.clear();
    }
}

/// Drops the values whose place `keep` says no to.
pub(crate) fn retain<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    values.retain(|_| *keep.next().expect("there is a decision for each event"));
}

/// Events with their rows typed: what an operator works on.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    /// One row an event.
    pub rows: Vec<T>,
    /// The rest of what is known of each.
    pub columns: Columns,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), columns: Columns::default() }
    }
}

/// Events with their rows erased: what travels on an edge.
pub struct Frame {
    rows: Box<dyn Rows>,
    /// What is known of each event besides its row.
    pub columns: Columns,
}

impl<T: Data> From<Batch<T>> for Frame {
    fn from(batch: Batch<T>) -> Self {
        debug_assert_eq!(batch.rows.len(), batch.columns.len());
        Self { rows: Box::new(batch.rows), columns: batch.columns }
    }
}

impl Frame {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The events with their rows typed.
    ///
    /// # Panics
    ///
    /// If the rows are not of type `T`: the graph connected an edge to a step of another type.
    pub fn into_batch<T: Data>(self) -> Batch<T> {
        let rows = self.rows.into_any().downcast::<Vec<T>>();
        let rows = rows.expect("the graph joins only steps whose row types agree");
        Batch { rows: *rows, columns: self.columns }
    }

    /// A copy, for a second reader of the same output.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { rows: self.rows.duplicate(), columns: self.columns.clone() }
    }

    /// Splits by key group: the events of the groups that worker `i` owns go to frame `i`, in order.
    pub fn split_by_worker(self, workers: usize) -> Vec<Self> {
        if workers == 1 {
            return vec![self];
        }
        let mut counts = vec![0; workers];
        let mut targets = Vec::with_capacity(self.len());
        for index in 0..self.len() {
            let worker = self.columns.keys.group(index).worker(workers);
            counts[worker] += 1;
            targets.push(worker as u16);
        }
        let room = counts.iter().map(|&count| Columns::with_capacity_like(&self.columns, count));
        let mut columns: Vec<Columns> = room.collect();
        for (index, &target) in targets.iter().enumerate() {
            columns[target as usize].push_from(&self.columns, index);
        }
        let rows = self.rows.split(&targets, &counts);
        rows.into_iter().zip(columns).map(|(rows, columns)| Self { rows, columns }).collect()
    }
}

/// A `Vec<T>` whose type is not known here.
trait Rows: Send {
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn duplicate(&self) -> Box<dyn Rows>;
    fn split(self: Box<Self>, targets: &[u16], counts: &[usize]) -> Vec<Box<dyn Rows>>;
}

impl<T: Data> Rows for Vec<T> {
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn duplicate(&self) -> Box<dyn Rows> {
        Box::new(self.clone())
    }

    fn split(self: Box<Self>, targets: &[u16], counts: &[usize]) -> Vec<Box<dyn Rows>> {
        let mut split: Vec<Self> = counts.iter().map(|&count| Self::with_capacity(count)).collect();
        for (row, &target) in self.into_iter().zip(targets) {
            split[target as usize].push(row);
        }
        split.into_iter().map(|rows| Box::new(rows) as Box<dyn Rows>).collect()
    }
}

#[cfg(test)]
mod tests;
