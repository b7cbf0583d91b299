//! What of a partition may not go yet, and because of what: somebody has pinned it, the transaction that it
//! belongs to is open, or a crash might take what was decided of it or is known of its producers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Partition;
use crate::error::{ErrorKind, Result};
use crate::producer_state::OpenTransaction;
use crate::record::Offset;

/// Offsets that are pinned, by whom; and what was said to hold retention back.
#[derive(Default)]
pub(super) struct Pins {
    pinned: Mutex<Vec<Pinned>>,
    next: AtomicU64,
    holds_back: Mutex<Option<Holder>>,
}

struct Pinned {
    id: u64,
    from: Offset,
    holder: Arc<str>,
}

impl Pins {
    fn lowest(&self) -> Option<Hold> {
        let pinned = self.pinned.lock();
        let lowest = pinned.iter().min_by_key(|pinned| pinned.from)?;
        Some(Hold { from: lowest.from, holder: Holder::Pin(lowest.holder.clone()) })
    }
}

/// While it lives, the offset it was made for, and all behind it, is there to be read: records are not
/// deleted, and the segments that hold them neither removed nor replaced by compacted ones. What a restore
/// reads is what it was when it began.
pub struct Pin {
    partition: Arc<Partition>,
    id: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.partition.pins.pinned.lock().retain(|pinned| pinned.id != self.id);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("partition", self.partition.name()).finish_non_exhaustive()
    }
}

/// From where on nothing may go, and because of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) from: Offset,
    pub(crate) holder: Holder,
}

/// What holds records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Somebody reads them; who, in the words of whoever has made the pin.
    Pin(Arc<str>),
    Transaction(OpenTransaction),
    /// What follows, or the end of a transaction that has records there, is not synced.
    Unsynced,
    /// What is known of the producers behind is not written down for good.
    Producers,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from;
        match &self.holder {
            Holder::Pin(holder) => write!(f, "{holder} has pinned what there is from offset {from} on"),
            Holder::Transaction(OpenTransaction { producer_id, producer_epoch, .. }) => {
                let whose = format_args!("producer {producer_id} of epoch {producer_epoch}");
                write!(f, "the transaction of {whose} is open since offset {from}")
            }
            Holder::Unsynced => write!(f, "not all is durable from offset {from} on"),
            Holder::Producers => write!(f, "the producers are written down durably up to offset {from} only"),
        }
    }
}

impl Partition {
    /// Pins what there is from `from` on, for `holder`, who is named where that is in somebody's way, as in
    /// "the restore of orders". A deletion of records that is under way is finished first, so that the
    /// start as it is afterwards stays; a replacement of segments that is decided already is finished all
    /// the same.
    pub fn pin(self: &Arc<Self>, from: Offset, holder: impl Into<Arc<str>>) -> Pin {
        let _marks = self.marks.lock();
        let id = self.pins.next.fetch_add(1, Ordering::Relaxed);
        self.pins.pinned.lock().push(Pinned { id, from, holder: holder.into() });
        Pin { partition: self.clone(), id }
    }

    /// What holds most of what there is before `synced`, or else what is not synced.
    pub(super) fn hold_before(&self, synced: Offset) -> Hold {
        let open = self.writer.lock().tail.producers.open_transactions().first().copied();
        let open = open.map(|open| Hold { from: open.first_offset, holder: Holder::Transaction(open) });
        let unsynced = Hold { from: synced, holder: Holder::Unsynced };
        // Of several at the same offset, the one that will be there for longest.
        let holds = [self.pins.lowest(), open, Some(unsynced)].into_iter().flatten();
        holds.min_by_key(|hold| hold.from).expect("one of them is always there")
    }

    /// Before which offset segments may be deleted or compacted, and because of what: what lies there is
    /// durable, every transaction in it is decided, durably too, what is known of its producers is written down, and
    /// nobody has pinned it.
    pub(crate) fn hold(&self) -> Hold {
        let hold = self.hold_before(self.bounds.settled());
        let snapshotted = self.snapshotted();
        if hold.from <= snapshotted { hold } else { Hold { from: snapshotted, holder: Holder::Producers } }
    }

    /// Takes note of what holds back now what would go by its age or by the size of the partition. Returns
    /// it where that was not so when it was noted last: it is said once.
    pub(crate) fn note_held_back(&self, hold: Option<Hold>) -> Option<Hold> {
        let holder = hold.as_ref().map(|hold| hold.holder.clone());
        let before = std::mem::replace(&mut *self.pins.holds_back.lock(), holder.clone());
        hold.filter(|_| before != holder)
    }

    /// Checks that nobody has pinned anything below `end`.
    pub(super) fn check_not_pinned(&self, end: Offset) -> Result<()> {
        match self.pins.lowest() {
            Some(hold) if hold.from < end => {
                let what = format!("segments before offset {end} stay: {hold}");
                Err(self.site.error(ErrorKind::Retry, what))
            }
            _ => Ok(()),
        }
    }
}
