//! The versions of a table's rows by time: what each key's row was, from when on.
//!
//! Store: group, key length (`u32` BE), encoded key, time (8 bytes that sort as times); a flag (0: the row
//! was deleted), then the row.
//!
//! In front of the store there is a cache of *runs*: consecutive versions of one key, so that most lookups
//! are a hash and a binary search. At a frame's first lookup that no run covers, the runs that the frame lacks are read
//! in one pass over the store, in the order of their keys: of each key the last version before the time sought, and those
//! that follow. What a pass reads is bounded by [`FETCH_KEYS_MAX`] and [`FETCH_BYTES_MAX`]; a frame that lacks more takes
//! several. Versions that nobody can ask for any more are found by a sweep, which goes round the store a little at a
//! time, at twice the pace of updates and more.

use std::sync::Arc;

use hashbrown::HashMap;
use lotic_log::Timestamp;

use crate::codec::{Codec, CodecError, CodecId};
use crate::error::Result;
use crate::frame::Data;
use crate::key_group::{KEY_GROUPS, KeyGroup};
use crate::state::keys::{GROUP_BYTES, group_of, time_bytes, time_from, write_key};
use crate::state::{KeyedState, Stretch, Visit};

/// Versions that a run holds at most when it is read; twice as many when it has grown by updates.
const RUN_VERSIONS_MAX: usize = 256;

/// Bytes that a run takes at most when it is read, but for its last version; twice as many when it has grown.
const RUN_BYTES_MAX: usize = 256 << 10;

/// Keys that one pass reads at most.
const FETCH_KEYS_MAX: usize = 1024;

/// Bytes that the runs which one pass reads take, but for the last version. Half of a generation, so that they are still
/// there when the rows of the frame are looked up.
pub(super) const FETCH_BYTES_MAX: usize = GENERATION_BYTES_MAX / 2;

/// Bytes that the runs of one generation take, but for the last run; there are two. About what 16,000 short
/// rows take.
const GENERATION_BYTES_MAX: usize = 4 << 20;

/// Rows that a step of the sweep visits, besides two for each update since the last.
const SWEEP_ROWS: usize = 64;

const TIME_BYTES: usize = 8;

/// A row of the table as it was from some time on; `None`: there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version<T>(pub(super) Option<T>);

/// The versions of the keys of one worker.
pub(super) struct Versions<T> {
    pub(super) store: KeyedState<Version<T>>,
    runs: RunCache<T>,
    sweep: Sweep,
    /// The backend key of the lookup or update at hand; kept for its memory.
    key: Vec<u8>,
    /// What a version took in the last pass: what a pass may take is enough for one of each key.
    typical_bytes: usize,
}

impl<T: Data> Versions<T> {
    pub(super) fn new(store: KeyedState<Version<T>>, groups: Vec<KeyGroup>) -> Self {
        Self { store, runs: RunCache::new(), sweep: Sweep::new(groups), key: Vec::new(), typical_bytes: 1 }
    }

    /// The row of `key` from `time` on, until the next version.
    pub(super) fn put(&mut self, group: KeyGroup, key: &[u8], time: Timestamp, version: Version<T>) {
        self.set_prefix(group, key);
        let cached = self.runs.holds(&self.key, time).then(|| version.clone());
        let prefix_bytes = self.key.len();
        self.key.extend_from_slice(&time_bytes(time));
        let encoded_bytes = self.store.put(&self.key, version);
        self.key.truncate(prefix_bytes);
        if let Some(version) = cached {
            self.runs.put(&self.key, Timed { time, version, bytes: version_bytes::<T>(encoded_bytes) });
        }
        self.sweep.updated();
    }

    /// Begins the lookups of a frame.
    pub(super) fn lookups(&mut self) -> Lookups<'_, T> {
        Lookups { versions: self, ahead: 0 }
    }

    /// Goes on removing versions that nobody can ask for from `horizon` on: those that were followed by
    /// another one not later than that, and deletions that were not and have nothing left to hide. `expected`
    /// says from when on changes of a key may still come: a deletion hides what comes before it.
    pub(super) fn sweep(&mut self, horizon: Timestamp, expected: impl Fn(&[u8]) -> Timestamp) -> Result<()> {
        for gone in self.sweep.step(&self.store, horizon, expected)? {
            match gone.next {
                Some(next) => self.runs.forget_before(prefix_of(&gone.key), next),
                None => self.runs.forget(prefix_of(&gone.key)),
            }
            self.store.remove(&gone.key);
        }
        Ok(())
    }

    fn set_prefix(&mut self, group: KeyGroup, key: &[u8]) {
        let length = u32::try_from(key.len()).expect("a key is shorter than 4 GiB").to_be_bytes();
        self.key.clear();
        write_key(&mut self.key, group, &[&length, key]);
    }

    /// Reads, in one pass, the runs of those of these lookups that no run covers. How many lookups that was for.
    fn fetch<'a>(&mut self, lookups: impl Iterator<Item = Lookup<'a>>) -> Result<usize> {
        let keys_max = (FETCH_BYTES_MAX / 2 / self.typical_bytes).clamp(1, FETCH_KEYS_MAX);
        let (mut missing, mut seen) = (Vec::new(), 0);
        for Lookup { group, key, time } in lookups {
            self.set_prefix(group, key);
            if !self.runs.covers(&self.key, time) {
                if missing.len() == keys_max {
                    break;
                }
                missing.push(Missing::new(&self.key, time));
            }
            seen += 1;
        }
        missing.sort_unstable_by(|one, other| one.at.cmp(&other.at));
        // The run from the earliest time on may well do for the others.
        missing.dedup_by(|later, earlier| later.prefix() == earlier.prefix());
        let runs = self.read_runs(&missing)?;
        let (bytes, versions) = runs
            .iter()
            .fold((0, 0), |(bytes, versions), run| (bytes + run.bytes, versions + run.versions.len()));
        self.typical_bytes = bytes.checked_div(versions).unwrap_or(self.typical_bytes);
        for (missing, run) in missing.iter().zip(runs) {
            self.runs.insert(missing.prefix(), run);
        }
        Ok(seen)
    }

    /// Reads the runs of these keys: the version at a time and those that follow. Each has the same share of half of the
    /// bytes; the other half is for its last version. There are fewer runs than keys if that is not enough.
    fn read_runs(&self, missing: &[Missing]) -> Result<Vec<Run<T>>> {
        let share = (FETCH_BYTES_MAX / 2 / missing.len()).clamp(1, RUN_BYTES_MAX);
        let mut runs: Vec<_> = missing.iter().map(|_| Run::new()).collect();
        let mut bytes = 0;
        let mut read = missing.len();
        let stretches: Vec<_> = missing.iter().map(Missing::stretch).collect();
        self.store.scan_many(&stretches, |index, key, version, encoded_bytes| {
            let (run, time) = (&mut runs[index], time_in(key));
            if index >= read {
                return Visit::Stop;
            }
            if run.versions.len() == RUN_VERSIONS_MAX || run.bytes >= share {
                run.until = Some(time);
                return Visit::Stop;
            }
            if bytes >= FETCH_BYTES_MAX {
                read = index;
                return Visit::Stop;
            }
            if key < &*missing[index].at {
                run.from = time;
            }
            let version_bytes = version_bytes::<T>(encoded_bytes);
            (run.bytes, bytes) = (run.bytes + version_bytes, bytes + version_bytes);
            run.versions.push(Timed { time, version: version.clone(), bytes: version_bytes });
            Visit::More
        })?;
        runs.truncate(read);
        Ok(runs)
    }
}

/// A row that is looked up: that of a key as it was at a time.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) group: KeyGroup,
    pub(super) key: &'a [u8],
    pub(super) time: Timestamp,
}

/// The lookups of one frame, in order.
pub(super) struct Lookups<'a, T> {
    versions: &'a mut Versions<T>,
    /// How many of those to come were read along with one before them. What of it the cache did not keep, or the run from
    /// an earlier time on does not cover, is read by itself.
    ahead: usize,
}

impl<T: Data> Lookups<'_, T> {
    /// The row that is looked up. `rest` are the lookups of the frame that come after it, to be read along with it.
    pub(super) fn as_of<'b>(
        &mut self,
        lookup: Lookup<'b>,
        rest: impl Iterator<Item = Lookup<'b>>,
    ) -> Result<Option<&T>> {
        let Lookup { group, key, time } = lookup;
        let versions = &mut *self.versions;
        versions.set_prefix(group, key);
        let mut is_covered = versions.runs.covers(&versions.key, time);
        if self.ahead > 0 {
            self.ahead -= 1;
        } else if !is_covered {
            self.ahead = versions.fetch(std::iter::once(lookup).chain(rest))? - 1;
            versions.set_prefix(group, key);
            is_covered = versions.runs.covers(&versions.key, time);
        }
        if !is_covered {
            versions.fetch(std::iter::once(lookup))?;
        }
        Ok(versions.runs.newest(&versions.key, time).and_then(|version| version.0.as_ref()))
    }
}

/// A key of which no run covers a time.
struct Missing {
    /// Behind the key's version of that time.
    at: Vec<u8>,
    /// Behind the key's last version.
    to: Vec<u8>,
}

impl Missing {
    fn new(prefix: &[u8], time: Timestamp) -> Self {
        let behind = |time: Timestamp| [prefix, &time_bytes(time), &[0]].concat();
        Self { at: behind(time), to: behind(Timestamp(i64::MAX)) }
    }

    fn prefix(&self) -> &[u8] {
        prefix_of(&self.at[..self.at.len() - 1])
    }

    fn stretch(&self) -> Stretch<'_> {
        Stretch { from: self.prefix(), at: &self.at, to: &self.to }
    }
}

fn time_in(backend_key: &[u8]) -> Timestamp {
    let time = backend_key.last_chunk::<TIME_BYTES>();
    time_from(*time.expect("every version's key ends with its time"))
}

/// About what a version takes in a run: what its row holds elsewhere is taken for as long as its encoded form.
fn version_bytes<T>(encoded_bytes: usize) -> usize {
    size_of::<Timed<T>>() + encoded_bytes
}

/// A version in a run.
struct Timed<T> {
    /// From when on it holds.
    time: Timestamp,
    version: Version<T>,
    /// What it takes.
    bytes: usize,
}

/// All versions of a key that answer for times from `from` on and before `until`.
struct Run<T> {
    from: Timestamp,
    /// `None`: for ever.
    until: Option<Timestamp>,
    versions: Vec<Timed<T>>,
    /// What the versions take.
    bytes: usize,
}

impl<T> Run<T> {
    /// The run of a key that has no versions.
    fn new() -> Self {
        Self { from: Timestamp(i64::MIN), until: None, versions: Vec::new(), bytes: 0 }
    }

    fn covers(&self, time: Timestamp) -> bool {
        self.from <= time && self.until.is_none_or(|until| time < until)
    }

    fn newest(&self, time: Timestamp) -> Option<&Version<T>> {
        let behind = self.versions.partition_point(|version| version.time <= time);
        behind.checked_sub(1).map(|index| &self.versions[index].version)
    }

    /// Adds a version, or replaces the one of its time.
    fn put(&mut self, new: Timed<T>) {
        self.bytes += new.bytes;
        match self.versions.binary_search_by_key(&new.time, |version| version.time) {
            Ok(index) => {
                self.bytes -= self.versions[index].bytes;
                self.versions[index] = new;
            }
            Err(index) => self.versions.insert(index, new),
        }
    }

    fn is_too_large(&self) -> bool {
        self.versions.len() >= 2 * RUN_VERSIONS_MAX || self.bytes >= 2 * RUN_BYTES_MAX
    }
}

/// Runs by key, in two generations: what was not used while one filled up is forgotten.
struct RunCache<T> {
    young: HashMap<Vec<u8>, Run<T>>,
    old: HashMap<Vec<u8>, Run<T>>,
    /// What was put into the young generation takes; what was taken out of it since is not taken off.
    young_bytes: usize,
}

impl<T: Data> RunCache<T> {
    fn new() -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0 }
    }

    /// Whether the run of this key answers for `time`; if so, it is young.
    fn covers(&mut self, prefix: &[u8], time: Timestamp) -> bool {
        if let Some(run) = self.young.get(prefix) {
            return run.covers(time);
        }
        match self.old.remove(prefix) {
            Some(run) if run.covers(time) => {
                self.insert(prefix, run);
                true
            }
            _ => false,
        }
    }

    fn newest(&self, prefix: &[u8], time: Timestamp) -> Option<&Version<T>> {
        self.young.get(prefix)?.newest(time)
    }

    fn insert(&mut self, prefix: &[u8], run: Run<T>) {
        self.make_room();
        self.young_bytes += size_of::<Run<T>>() + 2 * prefix.len() + run.bytes;
        self.young.insert(prefix.to_vec(), run);
    }

    /// Whether a version of this time belongs into a run that there is.
    fn holds(&self, prefix: &[u8], time: Timestamp) -> bool {
        let run = self.young.get(prefix).or_else(|| self.old.get(prefix));
        run.is_some_and(|run| run.covers(time))
    }

    /// Adds a version to the run that [holds](Self::holds) its time.
    fn put(&mut self, prefix: &[u8], new: Timed<T>) {
        let Some(run) = self.young.get_mut(prefix).or_else(|| self.old.get_mut(prefix)) else { return };
        let before = run.bytes;
        run.put(new);
        self.young_bytes += run.bytes.saturating_sub(before);
        if run.is_too_large() {
            self.forget(prefix);
        }
        self.make_room();
    }

    /// Once the young generation is full, it is the old one.
    fn make_room(&mut self) {
        if self.young_bytes >= GENERATION_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    fn forget(&mut self, prefix: &[u8]) {
        self.young.remove(prefix);
        self.old.remove(prefix);
    }

    /// The versions of this key before `time`, where one begins, are gone.
    fn forget_before(&mut self, prefix: &[u8], time: Timestamp) {
        let Some(run) = self.young.get_mut(prefix).or_else(|| self.old.get_mut(prefix)) else { return };
        if !run.covers(time) {
            return self.forget(prefix);
        }
        run.from = time;
        run.versions.retain(|version| version.time >= time);
        run.bytes = run.versions.iter().map(|version| version.bytes).sum();
    }
}

/// Finds versions that nobody can ask for, going round the key groups.
struct Sweep {
    /// In order.
    groups: Vec<KeyGroup>,
    /// The version to go on with. `None`: a round has not begun.
    at: Option<Seen>,
    /// Whether another round is needed after this one: rows were written or are still asked for.
    again: bool,
    /// Updates since the last step.
    updates: usize,
}

/// A version that nobody can ask for.
struct Gone {
    key: Vec<u8>,
    /// When the next one of its key begins; `None`: there is no other.
    next: Option<Timestamp>,
}

/// The version that a sweep has come to, until it is known what follows.
#[derive(Clone)]
struct Seen {
    key: Vec<u8>,
    is_deletion: bool,
    /// Whether the key has an earlier version that stays.
    follows_another: bool,
}

impl Sweep {
    fn new(groups: Vec<KeyGroup>) -> Self {
        Self { groups, at: None, again: true, updates: 0 }
    }

    fn updated(&mut self) {
        self.again = true;
        self.updates += 1;
    }

    fn step<T: Data>(
        &mut self,
        store: &KeyedState<Version<T>>,
        horizon: Timestamp,
        expected: impl Fn(&[u8]) -> Timestamp,
    ) -> Result<Vec<Gone>> {
        let updates = std::mem::take(&mut self.updates);
        let mut rows = SWEEP_ROWS + 2 * updates;
        let mut stopped_at = match self.at.take() {
            // An update since then may have come in before it.
            Some(seen) => Some(Seen { follows_another: seen.follows_another || updates > 0, ..seen }),
            None if std::mem::take(&mut self.again) => None,
            None => return Ok(Vec::new()),
        };
        let mut sieve = Sieve { horizon, expected, gone: Vec::new(), all: true };
        let first = self.groups.first().map(|group| group.0.to_be_bytes().to_vec());
        let mut next = stopped_at.as_ref().map(|seen| seen.key.clone()).or(first);
        // From one group to the next with rows in it: most groups may have none.
        while let Some(from) = next.take() {
            let mut last: Option<Seen> = None;
            let mut is_full = false;
            store.scan(&from, &KEY_GROUPS.to_be_bytes(), |key, version| {
                if let Err(behind) = self.groups.binary_search(&group_of(key)) {
                    next = self.groups.get(behind).map(|group| group.0.to_be_bytes().to_vec());
                    return Visit::Stop;
                }
                let follows_another = match (last.take(), stopped_at.take()) {
                    (Some(before), _) => sieve.pass(before, key),
                    (None, Some(stopped)) => stopped.key == key && stopped.follows_another,
                    (None, None) => false,
                };
                last = Some(Seen { key: key.to_vec(), is_deletion: version.0.is_none(), follows_another });
                is_full = rows == 0;
                rows = rows.saturating_sub(1);
                if is_full { Visit::Stop } else { Visit::More }
            })?;
            stopped_at = None;
            if is_full {
                // It goes on with the row that it stopped at, which may yet be superseded.
                self.at = last;
            } else {
                last.into_iter().for_each(|last| sieve.pass_last(last));
            }
        }
        self.again |= !sieve.all;
        Ok(sieve.gone)
    }
}

/// Keeps the versions that may still be asked for, and gathers the others.
struct Sieve<E> {
    horizon: Timestamp,
    expected: E,
    gone: Vec<Gone>,
    /// Whether what stays will stay: nothing of it is superseded by a version not yet reached.
    all: bool,
}

impl<E: Fn(&[u8]) -> Timestamp> Sieve<E> {
    /// Judges the version before `key`. Whether `key` follows one of its own that stays.
    fn pass(&mut self, before: Seen, key: &[u8]) -> bool {
        if prefix_of(&before.key) != prefix_of(key) {
            self.pass_last(before);
            return false;
        }
        let next = time_in(key);
        if next <= self.horizon {
            self.gone.push(Gone { key: before.key, next: Some(next) });
            return before.follows_another;
        }
        self.all = false;
        true
    }

    /// Judges the last version of a key.
    fn pass_last(&mut self, last: Seen) {
        if !last.is_deletion {
            return;
        }
        let time = time_in(&last.key);
        let is_needed = last.follows_another || time > self.horizon;
        if is_needed || time > (self.expected)(key_in(&last.key)) {
            self.all = false;
        } else {
            self.gone.push(Gone { key: last.key, next: None });
        }
    }
}

/// The encoded key in a backend key.
fn key_in(backend_key: &[u8]) -> &[u8] {
    &prefix_of(backend_key)[GROUP_BYTES + 4..]
}

fn prefix_of(backend_key: &[u8]) -> &[u8] {
    &backend_key[..backend_key.len() - TIME_BYTES]
}

/// A flag in front of the row.
pub(super) struct VersionCodec<T>(pub(super) Arc<dyn Codec<T>>);

impl<T: Data> Codec<Version<T>> for VersionCodec<T> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, version: &Version<T>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(u8::from(version.0.is_some()));
        version.0.as_ref().map_or(Ok(()), |row| self.0.encode(row, out))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Version<T>, CodecError> {
        match bytes.split_first() {
            Some((0, [])) => Ok(Version(None)),
            Some((1, row)) => Ok(Version(Some(self.0.decode(row)?))),
            _ => Err(CodecError::new("a version is 0, or 1 and a row")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(time: i64, encoded_bytes: usize) -> Timed<String> {
        let bytes = version_bytes::<String>(encoded_bytes);
        Timed { time: Timestamp(time), version: Version(Some(String::new())), bytes }
    }

    fn run(encoded_bytes: usize) -> Run<String> {
        let mut run = Run::new();
        run.put(version(0, encoded_bytes));
        run
    }

    /// What the runs of both generations take.
    fn bytes_of(cache: &RunCache<String>) -> usize {
        cache.young.values().chain(cache.old.values()).map(|run| run.bytes).sum()
    }

    #[test]
    fn the_cache_is_bounded_by_what_rows_take_however_few_they_are() {
        const ROW_BYTES: usize = 100 << 10;
        let mut cache = RunCache::new();
        for key in 0..1_000u32 {
            cache.insert(&key.to_be_bytes(), run(ROW_BYTES));
            assert!(bytes_of(&cache) <= 2 * (GENERATION_BYTES_MAX + version_bytes::<String>(ROW_BYTES)));
        }
        assert!(bytes_of(&cache) >= GENERATION_BYTES_MAX, "and it is used");
        assert!(cache.covers(&999u32.to_be_bytes(), Timestamp(7)), "the newest are there");
        assert!(!cache.covers(&0u32.to_be_bytes(), Timestamp(7)));
    }

    #[test]
    fn a_run_that_has_grown_too_large_is_forgotten() {
        const ROW_BYTES: usize = 100 << 10;
        let mut cache = RunCache::new();
        cache.insert(b"key", run(ROW_BYTES));
        let mut time = 1;
        while cache.holds(b"key", Timestamp(time)) {
            cache.put(b"key", version(time, ROW_BYTES));
            time += 1;
            assert!(bytes_of(&cache) < 2 * RUN_BYTES_MAX + version_bytes::<String>(ROW_BYTES));
        }
        assert!(time as usize > RUN_BYTES_MAX / ROW_BYTES, "not before");
    }

    #[test]
    fn a_version_that_is_replaced_or_gone_takes_nothing() {
        let mut run = run(1_000);
        run.put(version(0, 10));
        run.put(version(5, 20));
        assert_eq!(run.bytes, version_bytes::<String>(10) + version_bytes::<String>(20));
        let mut cache = RunCache::new();
        cache.insert(b"key", run);
        cache.forget_before(b"key", Timestamp(5));
        assert_eq!(bytes_of(&cache), version_bytes::<String>(20));
    }
}
