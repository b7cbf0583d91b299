//! Rows in the order of their keys: what the backend has, merged with what only memory has.
//!
//! A row of the backend that memory knows better is never what a stretch begins with, and gives way to the entry
//! wherever else it is met. Of the entries, the newest with a value before a stretch's `at` bounds how far the backend
//! is asked to go back.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;
use std::ops::Bound;

use super::super::cache::{Slot, entry_bytes};
use super::super::sort_key::SortKey;
use super::super::{Stretch, Visit};
use super::KeyedState;
use crate::error::{Error, Result};
use crate::frame::Data;

impl<V: Data> KeyedState<V> {
    /// Visits the values from `from` on and before `to` in the order of their keys, as they are now.
    ///
    /// # Panics
    /// If the store was not opened as [`StoreOrder::Sorted`](super::StoreOrder::Sorted).
    pub fn scan(&self, from: &[u8], to: &[u8], mut visit: impl FnMut(&[u8], &V) -> Visit) -> Result<()> {
        self.scan_many(&[Stretch::all(from, to)], |_, key, value, _| visit(key, value))
    }

    /// Visits the last value at or behind `from` and before `to`, if there is one.
    ///
    /// # Panics
    /// As [`Self::scan`].
    pub fn last_before(&self, from: &[u8], to: &[u8], mut visit: impl FnMut(&[u8], &V)) -> Result<()> {
        self.scan_many(&[Stretch::last(from, to)], |_, key, value, _| {
            visit(key, value);
            Visit::Stop
        })
    }

    /// Visits the values of many stretches as they are now, one stretch after the other, in one pass over the backend,
    /// which is fastest if they come in the order of their keys. The visitor hears which stretch a value is of, and
    /// about how many bytes it takes encoded; with [`Visit::Stop`] it ends that stretch alone.
    ///
    /// # Panics
    /// As [`Self::scan`].
    pub fn scan_many(
        &self,
        stretches: &[Stretch<'_>],
        visit: impl FnMut(usize, &[u8], &V, usize) -> Visit,
    ) -> Result<()> {
        let overlay = self.overlay.as_ref().expect("only a sorted store is scanned");
        let stretches: Vec<_> = stretches.iter().map(|stretch| self.narrowed(overlay, *stretch)).collect();
        let mut merge = Merge {
            state: self,
            overlay,
            stretches: &stretches,
            begun: 0,
            own: range_of(overlay, &[], &[]).peekable(),
            wants: Visit::Stop,
            failed: None,
            visit,
        };
        let may_begin = &|key: &[u8]| !overlay.contains_key(key);
        self.backend.scan_many(self.store, &stretches, may_begin, &mut |index, key, bytes| {
            merge.pass(index, key, bytes)
        })?;
        merge.end()
    }

    /// What the backend is to be asked for: what lies before the newest entry in memory that a stretch could begin with
    /// is of no interest.
    fn narrowed<'a>(&'a self, overlay: &'a Overlay, stretch: Stretch<'a>) -> Stretch<'a> {
        let before = range_of(overlay, stretch.from, stretch.at.min(stretch.to));
        let own = before.rev().find(|(_, slot)| self.cache.entry(**slot).value.is_some());
        Stretch { from: own.map_or(stretch.from, |(key, _)| key.bytes()), ..stretch }
    }
}

/// The entries that the backend lacks, in order.
pub(super) type Overlay = BTreeMap<SortKey, Slot>;

fn range_of<'a>(overlay: &'a Overlay, from: &[u8], to: &[u8]) -> Range<'a, SortKey, Slot> {
    overlay.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to.max(from))))
}

/// The stretches of one pass, of which the backend's rows come in one by one.
struct Merge<'a, V, F> {
    state: &'a KeyedState<V>,
    overlay: &'a Overlay,
    stretches: &'a [Stretch<'a>],
    /// How many stretches have begun; the last of them is at hand.
    begun: usize,
    /// The entries of the stretch at hand that were not passed yet.
    own: Peekable<Range<'a, SortKey, Slot>>,
    /// Whether the visitor wants more of the stretch at hand.
    wants: Visit,
    /// Why a row could not be read. Nothing is visited after it.
    failed: Option<Error>,
    visit: F,
}

impl<V: Data, F: FnMut(usize, &[u8], &V, usize) -> Visit> Merge<'_, V, F> {
    /// A row of the backend: whether it is to give more of this stretch.
    fn pass(&mut self, index: usize, key: &[u8], bytes: &[u8]) -> Visit {
        if self.begun <= index {
            self.pass_stretches(index);
            if self.wants == Visit::End {
                return Visit::End;
            }
            self.begin(Some(key));
        }
        while let Some((own, &slot)) = self.own.next_if(|(own, _)| own.bytes() <= key) {
            self.visit_own(own, slot);
            if self.wants != Visit::More || own.bytes() == key {
                return self.wants;
            }
        }
        match self.state.codec.decode(key, bytes) {
            Ok(value) => self.wants = (self.visit)(index, key, &value, bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                self.wants = Visit::End;
            }
        }
        self.wants
    }

    /// The backend has no more rows, or none that are wanted.
    fn end(mut self) -> Result<()> {
        self.pass_stretches(self.stretches.len());
        self.failed.map_or(Ok(()), Err)
    }

    /// Ends the stretch at hand and all others before this one: the backend has no more rows of them.
    fn pass_stretches(&mut self, index: usize) {
        loop {
            while self.wants == Visit::More
                && let Some((own, &slot)) = self.own.next()
            {
                self.visit_own(own, slot);
            }
            if self.begun == index || self.wants == Visit::End {
                break;
            }
            self.begin(None);
        }
    }

    /// Begins the next stretch, of which this is the backend's first row.
    fn begin(&mut self, row: Option<&[u8]>) {
        let Stretch { from, at, to } = self.stretches[self.begun];
        let is_start = |key: &&[u8]| *key < at && !self.overlay.contains_key(*key);
        self.own = range_of(self.overlay, row.filter(is_start).unwrap_or(from), to).peekable();
        self.begun += 1;
        self.wants = Visit::More;
    }

    fn visit_own(&mut self, own: &SortKey, slot: Slot) {
        let entry = self.state.cache.entry(slot);
        if let Some(value) = &entry.value {
            let encoded_bytes = entry.bytes - entry_bytes::<V>(own.bytes().len(), 0);
            self.wants = (self.visit)(self.begun - 1, own.bytes(), value, encoded_bytes);
        }
    }
}
