//! Event-time timers: what a step is to be told once the watermark has passed a time.
//!
//! A timer is a key, a time and a namespace, which tells apart timers of one key and time. It is set once however
//! often it is set, can be deleted, and is gone when it fires. Timers are state: they are in the changelog, in
//! checkpoints and in what a restore brings up, and what an aborted epoch did to them is undone with it.
//!
//! A timer fires when the watermark is behind its time: then every record up to that time, itself included, has come.
//! All timers of a worker fire one after the other, in the order of their times; those of one time in the order of
//! their keys, shorter ones first, and then of their namespaces. So which timers fire before which others of the same
//! key depends neither on the number of workers nor on how many records travel or are committed together.
//!
//! A timer that is set for a time which the watermark has passed is next to fire, but not before the watermark moves on
//! or the timers that are due are asked for. When exactly depends on how far other inputs were read. A step whose
//! answer is not to depend on that sets timers at or behind the watermark that the *record* carries, which the
//! step's own is never ahead of, and treats the record as late otherwise.
//!
//! ```text
//!   of each key group:   fired │ ahead: in memory, all there are │ beyond: in the store only
//!                              ▲                                 ▲
//!                            next                              where reading goes on
//! ```
//!
//! Store: group, time (8 bytes that sort as times), key length (`u32` BE), encoded key, namespace; no value. The next
//! timers of each group are in memory too, `AHEAD_MAX` of them at most. So firing reads a group's timers in one scan
//! for many, never passes over what has fired, and leaves groups alone in which nothing is due; and what is set and
//! deleted within them asks the backend for nothing. What is set and deleted beyond them is gathered, and the backend
//! asked for all of it at once, which of these timers there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use lotic_log::Timestamp;

use crate::codec::{Codec, CodecError, CodecId};
use crate::epoch::Epoch;
use crate::error::Result;
use crate::graph::StoreSpec;
use crate::key_group::{KEY_GROUPS, KeyGroup};
use crate::operator::OpenContext;
use crate::state::keys::{GROUP_BYTES, time_bytes, time_from};
use crate::state::{ChangelogWriter, KeyedState, Keys, Slot, StateAccess, StoreOrder, Visit};

/// Timers of a group that are in memory at most; half as many are read at once. Not less than two.
const AHEAD_MAX: usize = 128;

/// Timers beyond those in memory that are gathered at most before the store hears of them.
const GATHERED_MAX: usize = 1024;

const TIME_BYTES: usize = 8;
const KEY_START: usize = TIME_BYTES + 4;

/// A timer, to be set or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer<'a> {
    /// When it fires: once the watermark has passed this. One at the last time there is never does.
    pub time: Timestamp,
    /// The key's group.
    pub group: KeyGroup,
    /// The encoded key. Shorter than 4 GiB.
    pub key: &'a [u8],
    /// Tells apart timers of one key and time.
    pub namespace: &'a [u8],
}

/// A timer that has fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredTimer {
    group: KeyGroup,
    place: Vec<u8>,
}

impl FiredTimer {
    /// The timer.
    pub fn timer(&self) -> Timer<'_> {
        let length = self.place[TIME_BYTES..KEY_START].try_into().expect("a length has four bytes");
        let (key, namespace) = self.place[KEY_START..].split_at(u32::from_be_bytes(length) as usize);
        Timer { time: time_in(&self.place), group: self.group, key, namespace }
    }
}

/// The timers of one step on one worker.
pub struct Timers {
    store: KeyedState<()>,
    /// By key group; those of other workers stay empty.
    groups: Vec<Group>,
    /// What is next in each group: a timer, or where reading goes on.
    next: BTreeSet<(Vec<u8>, KeyGroup)>,
    ahead_max: usize,
    beyond: Beyond,
    /// The backend key at hand; kept for its memory.
    key: Vec<u8>,
}

/// What was done to timers that are in the store only, which has not heard of it yet.
#[derive(Default)]
struct Beyond {
    keys: Keys,
    /// Of each, in order, whether it was set; otherwise it was deleted.
    set: Vec<bool>,
    slots: Vec<Slot>,
}

/// The timers of one key group, by their place: their backend key without the group.
struct Group {
    /// The next ones, all before `beyond`.
    ahead: BTreeSet<Vec<u8>>,
    /// Timers from here on are in the store only. `None`: there are none.
    beyond: Option<Vec<u8>>,
}

impl Group {
    /// A timer, or where reading goes on.
    fn next(&self) -> Option<&Vec<u8>> {
        self.ahead.first().or(self.beyond.as_ref())
    }

    fn is_ahead(&self, place: &[u8]) -> bool {
        self.beyond.as_ref().is_none_or(|beyond| place < beyond.as_slice())
    }
}

impl Timers {
    /// How the store of timers is written.
    pub const CODEC: CodecId = CodecId { name: "timer", version: 1 };

    /// The store of timers that a step declares in the graph.
    pub fn store(name: &str) -> StoreSpec {
        StoreSpec { name: name.to_owned(), value_codec: Self::CODEC }
    }

    /// Opens the store of this name, which the step declares, with the timers of the last committed epoch.
    ///
    /// # Errors
    /// As [`StateAccess::store`].
    pub fn open(store: &str, context: &OpenContext<'_>) -> Result<Self> {
        let groups = KeyGroup::owned_by(context.worker, context.workers);
        Self::of_groups(store, context.state, groups, AHEAD_MAX)
    }

    fn of_groups(
        store: &str,
        state: &StateAccess,
        owned: impl Iterator<Item = KeyGroup>,
        ahead_max: usize,
    ) -> Result<Self> {
        let store = state.store(store, Arc::new(NoValue), StoreOrder::Sorted)?;
        let none = || Group { ahead: BTreeSet::new(), beyond: None };
        let mut groups: Vec<_> = (0..KEY_GROUPS).map(|_| none()).collect();
        let mut next = BTreeSet::new();
        for group in owned {
            // Nothing is known of them yet.
            groups[usize::from(group.0)].beyond = Some(Vec::new());
            next.insert((Vec::new(), group));
        }
        Ok(Self { store, groups, next, ahead_max, beyond: Beyond::default(), key: Vec::new() })
    }

    /// Sets a timer. One that is set already stays as it is.
    pub fn set(&mut self, timer: Timer<'_>) -> Result<()> {
        self.set_key(timer);
        let place = &self.key[GROUP_BYTES..];
        let group = &mut self.groups[usize::from(timer.group.0)];
        if !group.is_ahead(place) {
            return self.gather(true);
        }
        if group.ahead.contains(place) {
            return Ok(());
        }
        let is_next = group.next().is_none_or(|next| place < next.as_slice());
        let before = if is_next { group.next().cloned() } else { None };
        group.ahead.insert(place.to_vec());
        if group.ahead.len() > self.ahead_max {
            while group.ahead.len() > self.ahead_max / 2 {
                group.beyond = group.ahead.pop_last();
            }
        }
        // As all timers up to here are in memory, it is in no layer of the store.
        self.store.put_new(&self.key, ());
        if is_next {
            self.note_next(timer.group, before);
        }
        Ok(())
    }

    /// Deletes a timer, if it is set.
    pub fn delete(&mut self, timer: Timer<'_>) -> Result<()> {
        self.set_key(timer);
        let place = &self.key[GROUP_BYTES..];
        let group = &mut self.groups[usize::from(timer.group.0)];
        if !group.is_ahead(place) {
            return self.gather(false);
        }
        let before = group.next().filter(|next| place == next.as_slice()).cloned();
        if group.ahead.remove(place) {
            self.store.remove(&self.key);
            if before.is_some() {
                self.note_next(timer.group, before);
            }
        }
        Ok(())
    }

    /// Takes out the next timer before `until`: the earliest of the worker.
    pub fn fire(&mut self, until: Timestamp) -> Result<Option<FiredTimer>> {
        self.tell_store()?;
        while let Some((place, group)) = self.next.first()
            && time_in(place) < until
        {
            let group = *group;
            let held = &mut self.groups[usize::from(group.0)];
            let before = held.next().cloned();
            let fired = held.ahead.pop_first();
            match &fired {
                Some(place) => {
                    self.key.clear();
                    self.key.extend_from_slice(&group.0.to_be_bytes());
                    self.key.extend_from_slice(place);
                    self.store.remove(&self.key);
                }
                None => self.read_on(group)?,
            }
            self.note_next(group, before);
            if let Some(place) = fired {
                return Ok(Some(FiredTimer { group, place }));
            }
        }
        Ok(None)
    }

    /// Writes what the epoch did to the changelog, and freezes it.
    pub fn freeze(&mut self, epoch: Epoch, time: Timestamp, writer: &mut impl ChangelogWriter) -> Result<()> {
        self.tell_store()?;
        self.store.freeze(epoch, time, writer)
    }

    /// `epoch` is committed.
    pub fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.store.committed(epoch)
    }

    /// Takes note that the timer at hand was set or deleted, of which memory does not know whether it is set.
    fn gather(&mut self, set: bool) -> Result<()> {
        self.beyond.keys.push_whole(&self.key);
        self.beyond.set.push(set);
        if self.beyond.set.len() == GATHERED_MAX { self.tell_store() } else { Ok(()) }
    }

    /// Does to the store what was gathered.
    fn tell_store(&mut self) -> Result<()> {
        let Beyond { keys, set, slots } = &mut self.beyond;
        if set.is_empty() {
            return Ok(());
        }
        self.store.resolve(keys, slots)?;
        for (&slot, set) in slots.iter().zip(set.drain(..)) {
            if self.store.value(slot).is_some() != set {
                *self.store.value_mut(slot) = set.then_some(());
            }
        }
        keys.clear();
        Ok(())
    }

    fn set_key(&mut self, timer: Timer<'_>) {
        let length = u32::try_from(timer.key.len()).expect("a key is shorter than 4 GiB");
        self.key.clear();
        self.key.extend_from_slice(&timer.group.0.to_be_bytes());
        self.key.extend_from_slice(&time_bytes(timer.time));
        self.key.extend_from_slice(&length.to_be_bytes());
        self.key.extend_from_slice(timer.key);
        self.key.extend_from_slice(timer.namespace);
    }

    /// Reads the timers behind those in memory, of which none is left.
    fn read_on(&mut self, group: KeyGroup) -> Result<()> {
        let held = &mut self.groups[usize::from(group.0)];
        let Some(beyond) = held.beyond.take() else { return Ok(()) };
        let from = [&group.0.to_be_bytes()[..], &beyond].concat();
        let end = (group.0 + 1).to_be_bytes();
        let read = self.store.scan(&from, &end, |key, ()| {
            let place = key[GROUP_BYTES..].to_vec();
            if held.ahead.len() == self.ahead_max / 2 {
                held.beyond = Some(place);
                return Visit::Stop;
            }
            held.ahead.insert(place);
            Visit::More
        });
        if read.is_err() {
            // What was read so far is not all there is up to any place.
            held.ahead.clear();
            held.beyond = Some(beyond);
        }
        read
    }

    /// Something else may be next in this group than was `before`.
    fn note_next(&mut self, group: KeyGroup, before: Option<Vec<u8>>) {
        let now = self.groups[usize::from(group.0)].next();
        if let Some(before) = before {
            self.next.remove(&(before, group));
        }
        self.next.extend(now.map(|now| (now.clone(), group)));
    }
}

/// The time of a place; before the first timer there is, the least.
fn time_in(place: &[u8]) -> Timestamp {
    place.first_chunk().map_or(Timestamp(i64::MIN), |time| time_from(*time))
}

/// Everything about a timer is in its key.
struct NoValue;

impl Codec<()> for NoValue {
    fn id(&self) -> CodecId {
        Timers::CODEC
    }

    fn encode(&self, (): &(), _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), CodecError> {
        if bytes.is_empty() { Ok(()) } else { Err(CodecError::new("a timer has no value")) }
    }
}

#[cfg(test)]
mod tests;
