//! What a partition should hold, in the simplest form: a list of what was appended.

use std::collections::BTreeMap;

use crate::batch::MarkerKind;
use crate::record::{Offset, Timestamp};

/// How many of a producer's last batches are remembered.
pub(super) const REMEMBERED: usize = 5;

/// Who wrote a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
    pub(super) transactional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Records { numbers: Vec<i64>, stamp: Option<Stamp>, time: Timestamp },
    Marker { id: i64, epoch: i16, kind: MarkerKind, time: Timestamp },
}

impl Entry {
    fn offsets(&self) -> i64 {
        match self {
            Self::Records { numbers, .. } => numbers.len() as i64,
            Self::Marker { .. } => 1,
        }
    }
}

/// Whether a partition remembers a producer that has written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Known,
    Forgotten,
    /// It was idle for long when the partition was opened, which forgets it if it is in the snapshot that was
    /// believed, and not if its last batch is behind that.
    Unsure,
}

/// An earlier batch of a producer's epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Earlier {
    pub(super) base: i64,
    pub(super) numbers: Vec<i64>,
    pub(super) stamp: Stamp,
    /// Whether it was written since the partition was opened: of those before, a snapshot keeps the last.
    pub(super) is_recent: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    entries: Vec<Entry>,
    /// Everything below was acknowledged as durable.
    pub(super) durable: i64,
    /// The end when the partition was opened last.
    opened_at: i64,
    /// The producers that are not known for certain.
    doubtful: BTreeMap<i64, Memory>,
    /// Where producers came back that were forgotten, or may have been.
    came_back: BTreeMap<i64, i64>,
}

impl Model {
    pub(super) fn push(&mut self, entry: Entry) {
        if let Entry::Records { stamp: Some(Stamp { id, .. }), .. } = entry
            && self.doubtful.remove(&id).is_some()
        {
            self.came_back.insert(id, self.end());
        }
        self.entries.push(entry);
    }

    /// The producers without an open transaction that have written nothing since `horizon`.
    fn idle(&self, horizon: Timestamp) -> Vec<i64> {
        let mut heard = BTreeMap::new();
        for entry in &self.entries {
            match entry {
                Entry::Records { stamp: Some(Stamp { id, .. }), time, .. }
                | Entry::Marker { id, time, .. } => drop(heard.insert(*id, *time)),
                Entry::Records { stamp: None, .. } => {}
            }
        }
        let open = self.open();
        let is_idle =
            |(id, time): &(i64, Timestamp)| *time <= horizon && !open.iter().any(|one| one.0 == *id);
        heard.into_iter().filter(is_idle).map(|(id, _)| id).collect()
    }

    /// Idle producers are forgotten.
    pub(super) fn expire(&mut self, horizon: Timestamp) {
        let idle = self.idle(horizon);
        self.doubtful.extend(idle.into_iter().map(|id| (id, Memory::Forgotten)));
    }

    /// The partition was opened, with what there is by now.
    pub(super) fn reopen(&mut self, horizon: Timestamp) {
        self.opened_at = self.end();
        self.doubtful = self.idle(horizon).into_iter().map(|id| (id, Memory::Unsure)).collect();
        let end = self.opened_at;
        self.came_back.retain(|_, base| *base < end);
    }

    /// Whether a producer is remembered; it has written something.
    pub(super) fn memory(&self, of: i64) -> Memory {
        self.doubtful.get(&of).copied().unwrap_or(Memory::Known)
    }

    /// A producer turned out to be remembered.
    pub(super) fn note_known(&mut self, id: i64) {
        self.doubtful.remove(&id);
    }

    /// A batch of a producer's last epoch, so many before its last one, since it came back last.
    pub(super) fn earlier_batch(&self, of: i64, before: usize) -> Option<Earlier> {
        let (_, _, last) = self.last_batch(of)?;
        let since = self.came_back.get(&of).copied().unwrap_or(0);
        let batches: Vec<_> = self
            .placed()
            .filter_map(|(base, entry)| match entry {
                Entry::Records { numbers, stamp: Some(stamp), .. } => Some((base, numbers, *stamp)),
                _ => None,
            })
            .filter(|(base, _, stamp)| *base >= since && (stamp.id, stamp.epoch) == (of, last.epoch))
            .collect();
        let (base, numbers, stamp) = batches.into_iter().rev().nth(before)?;
        Some(Earlier { base, numbers: numbers.clone(), stamp, is_recent: base >= self.opened_at })
    }

    /// Entries with the offsets of their first records.
    fn placed(&self) -> impl Iterator<Item = (i64, &Entry)> {
        self.entries.iter().scan(0, |next, entry| {
            let base = *next;
            *next += entry.offsets();
            Some((base, entry))
        })
    }

    pub(super) fn end(&self) -> i64 {
        self.entries.iter().map(Entry::offsets).sum()
    }

    /// Cuts at `end`; says whether a batch ends there.
    pub(super) fn truncate(&mut self, end: i64) -> bool {
        let kept = self.placed().take_while(|(base, _)| *base < end).count();
        self.entries.truncate(kept);
        self.durable = end;
        self.end() == end
    }

    /// The transactions without a marker: producer, epoch, first offset.
    pub(super) fn open(&self) -> Vec<(i64, i16, i64)> {
        let mut open: Vec<(i64, i16, i64)> = Vec::new();
        for (base, entry) in self.placed() {
            match entry {
                Entry::Records { stamp: Some(Stamp { id, epoch, transactional: true, .. }), .. } => {
                    if !open.iter().any(|(other, ..)| other == id) {
                        open.push((*id, *epoch, base));
                    }
                }
                Entry::Records { .. } => {}
                Entry::Marker { id, .. } => open.retain(|(other, ..)| other != id),
            }
        }
        open
    }

    pub(super) fn stable(&self, high_watermark: i64) -> i64 {
        self.open().iter().map(|open| open.2).min().unwrap_or(i64::MAX).min(high_watermark)
    }

    /// All records from `from` to `to`.
    pub(super) fn records(&self, from: i64, to: i64) -> Vec<(Offset, i64)> {
        self.shown(from, to, |_, _| true)
    }

    /// The records from `from` to `to` whose transaction, if they have one, was not aborted.
    pub(super) fn committed(&self, from: i64, to: i64) -> Vec<(Offset, i64)> {
        self.shown(from, to, |base, stamp| match stamp {
            Some(stamp) if stamp.transactional => {
                let mut markers = self.placed().filter(|(at, entry)| {
                    *at > base && matches!(entry, Entry::Marker { id, .. } if *id == stamp.id)
                });
                let first = markers.next().map(|(_, entry)| entry);
                matches!(first, Some(Entry::Marker { kind: MarkerKind::Commit, .. }))
            }
            _ => true,
        })
    }

    fn shown(&self, from: i64, to: i64, takes: impl Fn(i64, Option<Stamp>) -> bool) -> Vec<(Offset, i64)> {
        let mut shown = Vec::new();
        for (base, entry) in self.placed() {
            if let Entry::Records { numbers, stamp, .. } = entry
                && takes(base, *stamp)
            {
                shown
                    .extend(numbers.iter().enumerate().map(|(n, number)| (Offset(base + n as i64), *number)));
            }
        }
        shown.retain(|(offset, _)| (from..to).contains(&offset.0));
        shown
    }

    /// The last batch of a producer with the offset of its first record.
    pub(super) fn last_batch(&self, of: i64) -> Option<(i64, Vec<i64>, Stamp)> {
        let mut last = None;
        for (base, entry) in self.placed() {
            if let Entry::Records { numbers, stamp: Some(stamp), .. } = entry
                && stamp.id == of
            {
                last = Some((base, numbers.clone(), *stamp));
            }
        }
        last
    }

    /// Whether there is this batch at this offset.
    pub(super) fn holds_at(&self, at: i64, wanted: &[i64], by: Stamp) -> bool {
        self.placed().any(|(base, entry)| match entry {
            Entry::Records { numbers, stamp, .. } => base == at && numbers == wanted && *stamp == Some(by),
            Entry::Marker { .. } => false,
        })
    }

    /// The stamp of the first batch of a producer's next epoch.
    pub(super) fn next_epoch(&self, id: i64) -> Stamp {
        let epoch = self.last_batch(id).map_or(0, |(_, _, last)| last.epoch + 1);
        Stamp { id, epoch, sequence: 0, transactional: false }
    }

    /// The stamp that the next batch of a producer carries. A transaction takes the next epoch.
    pub(super) fn next_stamp(&self, id: i64, transactional: bool) -> Stamp {
        let is_open = self.open().iter().any(|open| open.0 == id);
        match self.last_batch(id) {
            None => Stamp { id, epoch: 0, sequence: 0, transactional },
            Some((_, _, last)) if transactional && !is_open => {
                Stamp { epoch: last.epoch + 1, sequence: 0, ..last }
            }
            Some((_, numbers, last)) => Stamp { sequence: last.sequence + numbers.len() as i32, ..last },
        }
    }
}
