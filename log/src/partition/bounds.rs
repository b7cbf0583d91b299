//! The offsets of a partition as its readers see them.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::record::Offset;

/// No transaction is open.
const NONE_OPEN: i64 = i64::MAX;

/// Where a partition begins and up to where what is true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The offset of the first record that is kept.
    pub start: Offset,
    /// The last stable offset: readers of committed records read up to here, before the first record of
    /// an open transaction.
    pub stable: Offset,
    /// The high watermark: readers read up to here. What is durable under [`super::Durability::Sync`],
    /// the end otherwise.
    pub high_watermark: Offset,
    /// The end of what is known to be synced.
    pub durable: Offset,
    /// The offset of the next record.
    pub end: Offset,
}

/// Which records a reader is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// All, also those of transactions that are open or were aborted.
    #[default]
    ReadUncommitted,
    /// Those of no transaction and those of committed ones, up to the last stable offset.
    ReadCommitted,
}

/// The published offsets. One writer moves them; readers see a state that was true, if not all of it
/// at the same moment: never a record of a transaction that they take for stable and is open.
pub(super) struct Bounds {
    start: AtomicI64,
    durable: AtomicI64,
    end: AtomicI64,
    first_unstable: AtomicI64,
    /// What is before was decided, and its markers are synced.
    settled: AtomicI64,
    /// What that will be when the sync that was begun last has ended.
    settling: AtomicI64,
    /// What is before stands on records in other partitions, unless it is durable.
    entangled: AtomicI64,
    /// Whether readers are shown what is not synced yet.
    shows_unsynced: bool,
}

impl Bounds {
    pub(super) fn new(
        start: Offset,
        end: Offset,
        first_unstable: Option<Offset>,
        shows_unsynced: bool,
    ) -> Self {
        Self {
            start: AtomicI64::new(start.0),
            durable: AtomicI64::new(end.0),
            end: AtomicI64::new(end.0),
            first_unstable: AtomicI64::new(first_unstable.map_or(NONE_OPEN, |offset| offset.0)),
            settled: AtomicI64::new(first_unstable.unwrap_or(end).0),
            settling: AtomicI64::new(first_unstable.unwrap_or(end).0),
            entangled: AtomicI64::new(0),
            shows_unsynced,
        }
    }

    /// A sync has begun of everything before `end`.
    pub(super) fn begin_sync(&self, end: Offset, first_unstable: Option<Offset>) {
        self.settling.store(first_unstable.unwrap_or(end).0, Ordering::Release);
    }

    /// Before it, every transaction is decided for good: a power cut takes none of the markers.
    pub(super) fn settled(&self) -> Offset {
        Offset(self.settled.load(Ordering::Acquire))
    }

    /// What is before `end` stands on records in other partitions.
    pub(super) fn entangle(&self, end: Offset) {
        self.entangled.fetch_max(end.0, Ordering::Release);
    }

    pub(super) fn is_entangled(&self) -> bool {
        self.entangled.load(Ordering::Acquire) > self.durable().0
    }

    /// Publishes a new end. A transaction that begins is published before the records it holds, one that
    /// ends after its marker.
    pub(super) fn publish(&self, end: Offset, first_unstable: Option<Offset>) {
        let first_unstable = first_unstable.map_or(NONE_OPEN, |offset| offset.0);
        self.first_unstable.fetch_min(first_unstable, Ordering::Release);
        self.end.store(end.0, Ordering::Release);
        self.first_unstable.store(first_unstable, Ordering::Release);
    }

    /// Publishes that the records before `start` are gone.
    pub(super) fn raise_start(&self, start: Offset) {
        self.start.fetch_max(start.0, Ordering::Release);
    }

    /// Publishes that a sync reached `durable`.
    pub(super) fn publish_durable(&self, durable: Offset) {
        self.settled.store(self.settling.load(Ordering::Acquire), Ordering::Release);
        self.durable.fetch_max(durable.0, Ordering::Release);
    }

    pub(super) fn durable(&self) -> Offset {
        Offset(self.durable.load(Ordering::Acquire))
    }

    /// The offsets now. The end is read before the first unstable offset: a record below the end that
    /// was read is in an open transaction only if that offset says so.
    pub(super) fn load(&self) -> PartitionOffsets {
        let durable = self.durable();
        let end = Offset(self.end.load(Ordering::Acquire));
        let high_watermark = if self.shows_unsynced { end } else { durable };
        let first_unstable = Offset(self.first_unstable.load(Ordering::Acquire));
        PartitionOffsets {
            start: Offset(self.start.load(Ordering::Acquire)),
            stable: high_watermark.min(first_unstable),
            high_watermark,
            durable,
            end,
        }
    }
}
