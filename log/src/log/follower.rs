//! Who follows a log in another process, for the tests of what becomes of it meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Log;
use super::repair::tests::{DIRECTORY, batch, open, options};
use crate::batch::DecompressionBuffer;
use crate::error::{ErrorKind, Result};
use crate::partition::{Isolation, Partition};
use crate::record::Offset;
use crate::storage::memory::MemoryStorage;
use crate::storage::observed::{Call, Observer};

pub(super) fn read(storage: &Arc<MemoryStorage>) -> Result<Log> {
    Log::open_read_only(DIRECTORY, options(storage))
}

pub(super) fn partition(log: &Log) -> Arc<Partition> {
    log.topic("t").expect("it is there").partitions()[0].clone()
}

/// Opens the log, and closes it again.
pub(super) fn append(storage: &Arc<MemoryStorage>, numbers: std::ops::Range<i64>) {
    let log = open(storage).expect("it is sound");
    for number in numbers {
        partition(&log).append(batch(number)).expect("the disk is fine");
    }
    log.close().expect("the disk is fine");
}

/// What there is from `from` on, as far as it can be read: the number at each offset.
pub(super) fn numbers_from(log: &Log, from: Offset) -> Result<BTreeMap<Offset, i64>> {
    let (mut scratch, mut found, mut next) = (DecompressionBuffer::new(), BTreeMap::new(), from);
    loop {
        let fetched = partition(log).fetch(next, 200, Isolation::ReadUncommitted)?;
        if fetched.bytes.is_empty() {
            return Ok(found);
        }
        for batch in fetched.batches() {
            for record in batch.expect("it is sound").records(&mut scratch).expect("it is not compressed") {
                let record = record.expect("it is sound");
                let value = std::str::from_utf8(record.value.expect("it has one")).expect("text");
                found.insert(record.offset, value.parse().expect("a number"));
            }
        }
        next = fetched.next;
    }
}

/// Reads the log as it grows, and opens it again when it is told to: back to the cut if it was cut off.
pub(super) struct Follower {
    storage: Arc<MemoryStorage>,
    log: Log,
    position: Offset,
    /// What it has read last at each offset.
    pub(super) seen: BTreeMap<Offset, i64>,
    /// How often it was told to try again.
    pub(super) refused: usize,
}

impl Follower {
    pub(super) fn new(storage: &Arc<MemoryStorage>) -> Self {
        let log = read(storage).expect("it is sound");
        let (storage, seen) = (storage.clone(), BTreeMap::new());
        let mut follower = Self { storage, log, position: Offset(0), seen, refused: 0 };
        follower.look();
        follower
    }

    pub(super) fn look(&mut self) {
        if let Err(error) = self.try_look() {
            assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
            self.refused += 1;
        }
    }

    fn try_look(&mut self) -> Result<()> {
        match self.log.refresh() {
            Err(error) if error.kind() == ErrorKind::Retry => {
                let log = read(&self.storage)?;
                let now = partition(&log);
                let cut = now.rewritten_since(&partition(&self.log));
                let offsets = now.offsets();
                self.position = cut.map_or(self.position, |cut| cut.min(self.position));
                self.position = self.position.clamp(offsets.start, offsets.high_watermark);
                self.log = log;
            }
            refreshed => refreshed?,
        }
        let read = numbers_from(&self.log, self.position)?;
        self.position = read.keys().last().map_or(self.position, |last| last.next());
        self.seen.extend(read);
        Ok(())
    }
}

/// Has `look` look before one of the calls.
pub(super) struct Interrupted<F> {
    calls: Mutex<usize>,
    call: usize,
    look: F,
}

impl<F> Interrupted<F> {
    pub(super) fn at(call: usize, look: F) -> Self {
        Self { calls: Mutex::new(0), call, look }
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> usize {
        *self.calls.lock()
    }
}

impl<F: Fn() + Send + Sync + 'static> Observer for Interrupted<F> {
    fn before(&self, _call: Call<'_>) -> io::Result<()> {
        let mut calls = self.calls.lock();
        *calls += 1;
        if *calls - 1 == self.call {
            (self.look)();
        }
        Ok(())
    }
}

/// A disk that has room for so many more bytes.
pub(super) struct Room(AtomicUsize);

impl Room {
    pub(super) fn of(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }
}

impl Observer for Room {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let Call::Write(bytes) = call else { return Ok(()) };
        let taken = |room: usize| room.checked_sub(bytes);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        taken.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}
