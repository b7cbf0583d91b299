//! What a partition should hold, in the simplest form: a list of what was appended.

use crate::batch::MarkerKind;
use crate::record::Offset;

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
    Records { numbers: Vec<i64>, stamp: Option<Stamp> },
    Marker { id: i64, epoch: i16, kind: MarkerKind },
}

impl Entry {
    fn offsets(&self) -> i64 {
        match self {
            Self::Records { numbers, .. } => numbers.len() as i64,
            Self::Marker { .. } => 1,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    entries: Vec<Entry>,
    /// Everything below was acknowledged as durable.
    pub(super) durable: i64,
}

impl Model {
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
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
            if let Entry::Records { numbers, stamp } = entry
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
            if let Entry::Records { numbers, stamp: Some(stamp) } = entry
                && stamp.id == of
            {
                last = Some((base, numbers.clone(), *stamp));
            }
        }
        last
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
