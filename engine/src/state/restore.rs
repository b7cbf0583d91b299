//! Brings the state to the last committed epoch: the newest base that can be believed, and the changelog
//! from there on.
//!
//! A base is the live store, a checkpoint, or nothing. It is believed if every position in it speaks of
//! the changelog topic that there is now and of an offset that its committed part has reached, and behind which
//! every deletion is still there ([`TombstoneFloors`](super::TombstoneFloors)). Otherwise it is thrown away for the
//! next older one, and that is reported; not before that one is found, and not where the changelog is what cannot be
//! believed. Nothing beyond the last stable offset is read, so what is restored is what
//! was committed, in each store and partition by its own tail. No changelog is compacted meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lotic_log::batch::DecompressionBuffer;
use lotic_log::{CommittedBatches, Offset, PartitionId, Pin};

use super::keys::{GROUP_BYTES, group_of};
use super::{CheckpointId, Position, Slice, StateBackend, StateHome, StoreId, WriteSet};
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, Fetched, PartitionKey, TopicHandle};
use crate::key_group::{KEY_GROUPS, KeyGroup};

/// The most bytes of changelog that are read, and put into the store, at a time.
const FETCH_BYTES: usize = 4 << 20;

/// A store and the topic that its changes are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreChangelog {
    /// The store's name.
    pub name: String,
    /// Its changelog.
    pub topic: TopicHandle,
}

/// What a restore begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The live store as the last run left it.
    Live,
    /// A checkpoint.
    Checkpoint(CheckpointId),
    /// Nothing: the whole changelog is read.
    Nothing,
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("the live store"),
            Self::Checkpoint(id) => write!(f, "checkpoint {id}"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// What it began with.
    pub base: Base,
    /// What it threw away, and why.
    pub rejected: Vec<(Base, String)>,
    /// How many changelog records it read behind the base.
    pub records: u64,
}

/// The state of the last committed epoch.
pub struct Restored {
    /// Where it is.
    pub backend: Arc<dyn StateBackend>,
    /// How it got there.
    pub report: RestoreReport,
}

/// Restores all stores of a flow for so many workers. No backend of `home` may be open.
///
/// `is_stopping` is asked before each base and each file of a checkpoint that is looked at, and each piece of changelog
/// that is read. Once it says
/// so nothing more is read: what was put into the store by then is whole, with the positions that it has reached, and
/// the next restore goes on from there or begins anew, as after a crash.
///
/// # Errors
/// [`ErrorKind::Corrupt`] where the changelog itself cannot be read, and what the log and the disk say;
/// [`ErrorKind::Stopped`]. A bad base is no error.
pub fn restore(
    home: &dyn StateHome,
    log: &dyn EventLog,
    stores: &[StoreChangelog],
    workers: usize,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Restored> {
    let stop = Stop(is_stopping);
    // Before a base is looked at: a deletion that it has not heard of must not be compacted away meanwhile.
    let changelogs = Changelogs::hold(log, stores)?;
    let mut rejected = Vec::new();
    let (based, base) = newest_base(home, &changelogs, &mut rejected, stop)?;
    let mut records = 0;
    for (store, changelog) in based.stores.iter().zip(stores) {
        let target = Target { backend: &*based.backend, store: store.id, topic: &changelog.topic, stop };
        records += target
            .catch_up(log, &store.positions, workers)
            .map_err(|error| error.within(format!("restoring store {}", changelog.name)))?;
    }
    tracing::info!(%base, records, "state restored");
    Ok(Restored { backend: based.backend, report: RestoreReport { base, rejected, records } })
}

/// Whether the restore is to end where it is.
#[derive(Clone, Copy)]
struct Stop<'a>(&'a dyn Fn() -> bool);

impl Stop<'_> {
    fn check(self) -> Result<()> {
        if (self.0)() {
            Err(Error::new(ErrorKind::Stopped, "stopped while state was restored"))
        } else {
            Ok(())
        }
    }
}

/// The changelogs of all stores, which stay as they are.
struct Changelogs<'a> {
    log: &'a dyn EventLog,
    stores: &'a [StoreChangelog],
    bounds: BTreeMap<PartitionKey, Bounds>,
    _pins: Vec<Pin>,
}

/// The positions in a changelog partition from which it can be read on.
#[derive(Clone, Copy)]
struct Bounds {
    start: Offset,
    stable: Offset,
    /// Before it, deletions may be missing.
    floor: Offset,
}

impl<'a> Changelogs<'a> {
    /// Holds them. One that was never restored from gets its first floor, before anything is in it.
    fn hold(log: &'a dyn EventLog, stores: &'a [StoreChangelog]) -> Result<Self> {
        let (mut bounds, mut pins) = (BTreeMap::new(), Vec::new());
        for StoreChangelog { topic, .. } in stores {
            for partition in (0..topic.partitions).map(PartitionId) {
                let partition = PartitionKey { topic: topic.index, partition };
                pins.extend(log.pin(partition, log.start_offset(partition)?)?);
                // What was deleted in between is gone; from here on nothing is.
                let start = log.start_offset(partition)?;
                let floor = log.raise_tombstone_floor(partition, start)?;
                bounds.insert(partition, Bounds { start, stable: log.stable_offset(partition)?, floor });
            }
        }
        Ok(Self { log, stores, bounds, _pins: pins })
    }

    /// Whether positions in `topic` are those of a store that can be brought up from there.
    fn check(&self, topic: &TopicHandle, positions: &[Position]) -> Result<(), Disbelief> {
        let bounds = |partition| self.bounds.get(&PartitionKey { topic: topic.index, partition });
        if let Some(reason) = reason_to_doubt(topic, positions, bounds) {
            return Err(Disbelief::Never(reason));
        }
        let mut reached = BTreeMap::new();
        for Position { partition, next, .. } in positions {
            reached.entry(*partition).and_modify(|known| *known = *next.max(known)).or_insert(*next);
        }
        for (partition, next) in reached {
            let key = PartitionKey { topic: topic.index, partition };
            let is_behind_start = bounds(partition).is_some_and(|bounds| next > bounds.start);
            let is_committed = || is_committed_up_to(self.log, key, next).map_err(Disbelief::Unknown);
            if is_behind_start && !is_committed()? {
                let reason = format!("holds more than is committed before offset {next} of");
                return Err(Disbelief::Never(format!("{reason} {}-{partition}", topic.name)));
            }
        }
        Ok(())
    }
}

/// A base that is believed, as the live store.
struct Based {
    backend: Arc<dyn StateBackend>,
    stores: Vec<BasedStore>,
}

impl Based {
    fn new(backend: Arc<dyn StateBackend>, stores: &[StoreChangelog]) -> Result<Self> {
        let mut based = Vec::with_capacity(stores.len());
        for StoreChangelog { name, .. } in stores {
            let id = backend.open_store(name)?;
            based.push(BasedStore { id, positions: Position::read_all(&*backend, id)? });
        }
        Ok(Self { backend, stores: based })
    }
}

struct BasedStore {
    id: StoreId,
    positions: Vec<Position>,
}

/// Finds the newest base that is believed. Nothing is thrown away before one is found: where the changelogs cannot be
/// read, nothing can be said against any of them.
fn newest_base(
    home: &dyn StateHome,
    changelogs: &Changelogs<'_>,
    rejected: &mut Vec<(Base, String)>,
    stop: Stop<'_>,
) -> Result<(Based, Base)> {
    let checkpoints = home.checkpoints()?;
    let older = checkpoints.iter().copied().map(Base::Checkpoint);
    let mut condemned = Vec::new();
    for base in [Base::Live].into_iter().chain(older) {
        stop.check()?;
        let disbelief = match look_at(home, changelogs, base, stop) {
            // The live store is never behind a checkpoint, unless it was lost and made anew.
            Ok(found) if found.is_empty && base == Base::Live && !checkpoints.is_empty() => continue,
            Ok(found) => match found.settle(home, changelogs, base, &condemned) {
                Ok(based) => return Ok((based, base)),
                Err(error) => Disbelief::Failed(error),
            },
            Err(disbelief) => disbelief,
        };
        match disbelief {
            Disbelief::Never(reason) => {
                reject(base, reason, rejected);
                condemned.push(base);
            }
            Disbelief::Failed(error) if error.kind() == ErrorKind::Corrupt => {
                reject(base, error.to_string(), rejected);
            }
            Disbelief::Failed(error) | Disbelief::Unknown(error) => return Err(error),
        }
    }
    Ok((take_up(home, changelogs, Base::Nothing, &condemned)?, Base::Nothing))
}

/// Makes a base the live store, in the place of the one that there was, and throws those away that never fit.
fn take_up(
    home: &dyn StateHome,
    changelogs: &Changelogs<'_>,
    base: Base,
    condemned: &[Base],
) -> Result<Based> {
    home.discard()?;
    for base in condemned {
        // Once the changelog has grown past it again, nothing would tell that it is of another history.
        if let Base::Checkpoint(id) = base {
            home.forget(*id)?;
        }
    }
    if let Base::Checkpoint(id) = base {
        home.adopt(id)?;
    }
    Based::new(home.open()?, changelogs.stores)
}

fn reject(base: Base, reason: String, rejected: &mut Vec<(Base, String)>) {
    tracing::warn!(%base, reason, "state thrown away for an older one");
    rejected.push((base, reason));
}

/// Why a base is not used.
enum Disbelief {
    /// It does not fit the changelog, for the reason given, and never will.
    Never(String),
    /// It cannot be opened.
    Failed(Error),
    /// The changelog cannot be read, by which it would be judged.
    Unknown(Error),
}

impl Disbelief {
    fn within(self, store: &str) -> Self {
        match self {
            Self::Never(reason) => Self::Never(format!("store {store} {reason}")),
            Self::Failed(error) => Self::Failed(error.within(format!("store {store}"))),
            Self::Unknown(error) => Self::Unknown(error.within(format!("store {store}"))),
        }
    }
}

impl From<Error> for Disbelief {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A base that was found, and speaks of what is in the changelogs.
struct Found {
    backend: Arc<dyn StateBackend>,
    /// Whether there is no position in it.
    is_empty: bool,
}

impl Found {
    /// Makes it the live store, unless it is.
    fn settle(
        self,
        home: &dyn StateHome,
        changelogs: &Changelogs<'_>,
        base: Base,
        condemned: &[Base],
    ) -> Result<Based> {
        if base == Base::Live {
            return Based::new(self.backend, changelogs.stores);
        }
        drop(self);
        take_up(home, changelogs, base, condemned)
    }
}

/// Opens a base where it is, and checks it.
fn look_at(
    home: &dyn StateHome,
    changelogs: &Changelogs<'_>,
    base: Base,
    stop: Stop<'_>,
) -> Result<Found, Disbelief> {
    let backend = match base {
        Base::Checkpoint(id) => {
            home.verify(id, stop.0)?;
            home.look_into(id)?
        }
        _ => home.open()?,
    };
    let mut is_empty = true;
    for StoreChangelog { name, topic } in changelogs.stores {
        let Some(id) = backend.find_store(name) else { continue };
        let positions = Position::read_all(&*backend, id)?;
        is_empty &= positions.is_empty();
        changelogs.check(topic, &positions).map_err(|disbelief| disbelief.within(name))?;
    }
    Ok(Found { backend, is_empty })
}

/// Whether a record that is at `next` less one, or behind it, is committed. The offsets alone do not tell: where a
/// power cut has taken a commit, the same records may be there and be aborted.
fn is_committed_up_to(log: &dyn EventLog, partition: PartitionKey, next: Offset) -> Result<bool> {
    let last = Offset(next.0 - 1);
    let mut from = last;
    while let Some(fetched) = log.fetch(partition, from, FETCH_BYTES)? {
        for batch in CommittedBatches::new(&fetched.bytes, &fetched.aborted) {
            let batch = batch.map_err(|error| Error::caused(ErrorKind::Corrupt, "a changelog", error))?;
            if batch.header().last_offset() >= last {
                return Ok(true);
            }
        }
        if fetched.next <= from {
            break;
        }
        from = fetched.next;
    }
    Ok(false)
}

/// Why a store with these positions is not to be believed, if so.
fn reason_to_doubt<'a>(
    topic: &TopicHandle,
    positions: &[Position],
    bounds: impl Fn(PartitionId) -> Option<&'a Bounds>,
) -> Option<String> {
    let name = &topic.name;
    let held = |group: KeyGroup| {
        let partition = group.changelog_partition(topic.partitions);
        positions.iter().any(|row| row.partition == partition && row.slice.holds(group))
    };
    if !positions.is_empty()
        && let Some(group) = (0..KEY_GROUPS).map(KeyGroup).find(|&group| !held(group))
    {
        return Some(format!("has no position for key group {}", group.0));
    }
    positions.iter().find_map(|position| {
        let Position { partition, next, topic: id, .. } = position;
        if *id != topic.id {
            return Some(format!("is of a changelog with id {id}; topic {name} has id {}", topic.id));
        }
        let Some(bounds) = bounds(*partition) else {
            return Some(format!("has a position in {name}-{partition}, which does not exist"));
        };
        bounds
            .reason_against(*next)
            .map(|reason| format!("is at offset {next} of {name}-{partition}, {reason}"))
    })
}

impl Bounds {
    /// Why nobody can read on from `next`, if so.
    fn reason_against(&self, next: Offset) -> Option<String> {
        let Self { start, stable, floor } = self;
        if next > *stable {
            return Some(format!("which is committed up to {stable}"));
        }
        if next < *start {
            return Some(format!("which begins at {start}"));
        }
        (next < *floor).then(|| format!("which may lack deletions before {floor}"))
    }
}

/// A store to be brought up to date.
struct Target<'a> {
    backend: &'a dyn StateBackend,
    store: StoreId,
    topic: &'a TopicHandle,
    stop: Stop<'a>,
}

impl Target<'_> {
    /// Reads the changelog behind `held` into the store, and leaves the positions for so many workers.
    fn catch_up(&self, log: &dyn EventLog, held: &[Position], workers: usize) -> Result<u64> {
        let mut records = 0;
        let mut reached = Vec::new();
        for partition in (0..self.topic.partitions).map(PartitionId) {
            let start = log.start_offset(PartitionKey { topic: self.topic.index, partition })?;
            let mut rows = self.slices(partition, start, workers);
            if !held.is_empty() {
                rows = held.iter().filter(|row| row.partition == partition).copied().collect();
            }
            let Some(from) = rows.iter().map(|row| row.next).min() else { continue };
            let mut tail = Tail { partition, rows };
            records += self.read_tail(log, &mut tail, from)?;
            let end = tail.rows.iter().map(|row| row.next).max().unwrap_or(start);
            reached.extend(self.slices(partition, end, workers));
        }
        self.slice_anew(held, &reached)?;
        Ok(records)
    }

    fn read_tail(&self, log: &dyn EventLog, tail: &mut Tail, mut from: Offset) -> Result<u64> {
        let partition = PartitionKey { topic: self.topic.index, partition: tail.partition };
        let mut scratch = DecompressionBuffer::default();
        let mut records = 0;
        while let Some(fetched) = log.fetch(partition, from, FETCH_BYTES)? {
            if fetched.next <= from {
                break;
            }
            self.stop.check()?;
            from = fetched.next;
            let mut latest = BTreeMap::new();
            let (lacking, last) = self.collect(&fetched, tail, &mut latest, &mut scratch)?;
            records += lacking;
            if latest.is_empty() {
                // Markers, or what the store has: not worth a write.
                continue;
            }
            let mut writes = WriteSet::default();
            for (key, value) in &latest {
                match value {
                    Some(value) => writes.put(key, value),
                    None => writes.delete(key),
                }
            }
            // Not over what is aborted: a position never lies behind the last committed record.
            tail.advance(last.map_or(from, Offset::next), &mut writes);
            self.backend.apply(self.store, &writes)?;
        }
        Ok(records)
    }

    /// The positions of so many workers' slices in a partition, all at `next`.
    fn slices(&self, partition: PartitionId, next: Offset, workers: usize) -> Vec<Position> {
        let topic = self.topic;
        let own = Slice::all(workers).filter(|slice| slice.partitions(topic.partitions).contains(&partition));
        own.map(|slice| Position { partition, slice, topic: topic.id, next }).collect()
    }

    /// Gathers the newest value of each key in what was fetched. How many records the store lacks, and where the last
    /// committed one is.
    fn collect(
        &self,
        fetched: &Fetched,
        tail: &Tail,
        latest: &mut Latest,
        scratch: &mut DecompressionBuffer,
    ) -> Result<(u64, Option<Offset>)> {
        let mut last = None;
        let name = format!("changelog {}-{}", self.topic.name, tail.partition);
        let mut records = 0;
        for batch in CommittedBatches::new(&fetched.bytes, &fetched.aborted) {
            let batch = batch.map_err(|error| Error::caused(ErrorKind::Corrupt, &name, error))?;
            let read =
                batch.records(scratch).map_err(|error| Error::caused(ErrorKind::Corrupt, &name, error))?;
            for record in read {
                let record = record.map_err(|error| Error::caused(ErrorKind::Corrupt, &name, error))?;
                let key = record.key.filter(|key| key.len() >= GROUP_BYTES && group_of(key).0 < KEY_GROUPS);
                let Some(key) = key else {
                    let what = format!("{name}, offset {}: the key begins with no key group", record.offset);
                    return Err(Error::new(ErrorKind::Corrupt, what));
                };
                last = Some(record.offset);
                if tail.lacks(group_of(key), record.offset) {
                    records += 1;
                    latest.insert(key.to_vec(), record.value.map(<[u8]>::to_vec));
                }
            }
        }
        Ok((records, last))
    }

    /// Replaces the positions where they have moved or the number of workers has changed.
    fn slice_anew(&self, held: &[Position], reached: &[Position]) -> Result<()> {
        let is_same = held.len() == reached.len() && reached.iter().all(|position| held.contains(position));
        if is_same {
            return Ok(());
        }
        let mut writes = WriteSet::default();
        let is_kept = |old: &Position| {
            reached.iter().any(|new| (new.partition, new.slice) == (old.partition, old.slice))
        };
        held.iter().filter(|old| !is_kept(old)).for_each(|old| old.delete(&mut writes));
        reached.iter().for_each(|new| new.put(&mut writes));
        self.backend.apply(self.store, &writes)
    }
}

/// The newest value of each key in some stretch of a changelog.
type Latest = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// How far the slices of a store are in one changelog partition.
struct Tail {
    partition: PartitionId,
    rows: Vec<Position>,
}

impl Tail {
    /// Whether the store is not as far as this record of a key of `group`.
    fn lacks(&self, group: KeyGroup, offset: Offset) -> bool {
        self.rows.iter().any(|row| row.slice.holds(group) && row.next <= offset)
    }

    /// Everything before `next` was read: moves the slices there.
    fn advance(&mut self, next: Offset, writes: &mut WriteSet) {
        for row in self.rows.iter_mut().filter(|row| row.next < next) {
            row.next = next;
            row.put(writes);
        }
    }
}

#[cfg(test)]
mod tests;
