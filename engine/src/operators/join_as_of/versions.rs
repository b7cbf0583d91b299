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

mod runs;
mod sweep;

use std::sync::Arc;

use hashbrown::HashMap;
use lotic_log::Timestamp;

use self::runs::{
    GENERATION_BYTES_MAX, RUN_BYTES_MAX, RUN_VERSIONS_MAX, Run, RunCache, Timed, entry_bytes, version_bytes,
};
use self::sweep::Sweep;
use crate::codec::{Codec, CodecError, CodecId};
use crate::error::Result;
use crate::frame::Data;
use crate::key_group::KeyGroup;
use crate::state::keys::{GROUP_BYTES, time_bytes, time_from, write_key};
use crate::state::{KeyedState, Stretch, Visit};

/// Keys that one pass reads at most.
const FETCH_KEYS_MAX: usize = 1024;

/// Bytes that the versions which one pass reads take, but for the last. Half of a generation, so that, with their keys, they
/// are still there when the rows of the frame are looked up.
pub(super) const FETCH_BYTES_MAX: usize = GENERATION_BYTES_MAX / 2;

/// Bytes of a pass that its runs share alike, before the last version of each; those have the other half.
const FETCH_SHARED_BYTES: usize = FETCH_BYTES_MAX / 2;

/// Bytes that the keys of one pass take, but for the last.
const FETCH_KEY_BYTES_MAX: usize = GENERATION_BYTES_MAX / 4;

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
        Lookups { versions: self, ahead: 0, keys_max: FETCH_KEYS_MAX }
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

    /// Reads, in one pass, the runs of those of these lookups that no run covers.
    fn fetch<'a>(&mut self, lookups: impl Iterator<Item = Lookup<'a>>, keys_max: usize) -> Result<Fetched> {
        let keys_max = (FETCH_SHARED_BYTES / self.typical_bytes).clamp(1, keys_max);
        let (mut asked, mut key_bytes) = (HashMap::<Vec<u8>, AskedTimes>::new(), 0);
        let mut seen = 0;
        for Lookup { group, key, time } in lookups {
            self.set_prefix(group, key);
            if let Some(times) = asked.get_mut(&self.key[..]) {
                *times = AskedTimes { from: times.from.min(time), to: times.to.max(time) };
            } else if !self.runs.covers(&self.key, time) {
                if asked.len() == keys_max || key_bytes >= FETCH_KEY_BYTES_MAX {
                    break;
                }
                key_bytes += entry_bytes::<T>(&self.key);
                asked.insert(self.key.clone(), AskedTimes { from: time, to: time });
            }
            seen += 1;
        }
        let mut missing: Vec<_> = asked.iter().map(|(prefix, times)| Missing::new(prefix, *times)).collect();
        missing.sort_unstable_by(|one, other| one.at.cmp(&other.at));
        let runs = self.read_runs(&missing)?;
        let read = runs.len();
        let total = |of: fn(&Run<T>) -> usize| runs.iter().map(of).sum::<usize>();
        let (bytes, versions) = (total(|run| run.bytes), total(|run| run.versions.len()));
        self.typical_bytes = bytes.checked_div(versions).unwrap_or(self.typical_bytes);
        for (missing, run) in missing.iter().zip(runs) {
            self.runs.insert(missing.prefix(), run);
        }
        Ok(Fetched { seen, cut_to: (read < missing.len()).then_some(read) })
    }

    /// Reads the runs of these keys: the version at the earliest time asked and those that follow. Each has its share of
    /// [`FETCH_SHARED_BYTES`], and goes on up to the latest time asked where that is not enough. There are fewer runs than
    /// keys if they need more than [`FETCH_BYTES_MAX`].
    fn read_runs(&self, missing: &[Missing]) -> Result<Vec<Run<T>>> {
        let share = (FETCH_SHARED_BYTES / missing.len()).clamp(1, RUN_BYTES_MAX);
        let mut runs: Vec<_> = missing.iter().map(|_| Run::new()).collect();
        let mut bytes = 0;
        let mut read = missing.len();
        let stretches: Vec<_> = missing.iter().map(Missing::stretch).collect();
        self.store.scan_many(&stretches, |index, key, version, encoded_bytes| {
            let (run, time) = (&mut runs[index], time_in(key));
            let is_enough =
                run.bytes >= share && (time > missing[index].to_time || run.bytes >= RUN_BYTES_MAX);
            if is_enough || run.versions.len() == RUN_VERSIONS_MAX {
                run.until = Some(time);
                return Visit::Stop;
            }
            if bytes >= FETCH_BYTES_MAX {
                read = index;
                return Visit::End;
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

/// What a pass came to.
struct Fetched {
    /// How many lookups it was for.
    seen: usize,
    /// How many keys it has read, if that is not all of them.
    cut_to: Option<usize>,
}

/// When a key was asked for.
#[derive(Clone, Copy)]
struct AskedTimes {
    from: Timestamp,
    to: Timestamp,
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
    /// Keys that a pass reads at most, by those that had too much to read.
    keys_max: usize,
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
            let fetched = versions.fetch(std::iter::once(lookup).chain(rest), self.keys_max)?;
            match fetched.cut_to {
                // The next one that is missing has another pass read.
                Some(read) => self.keys_max = read.max(1),
                None => self.ahead = fetched.seen - 1,
            }
            versions.set_prefix(group, key);
            is_covered = versions.runs.covers(&versions.key, time);
        }
        if !is_covered {
            versions.fetch(std::iter::once(lookup), 1)?;
        }
        Ok(versions.runs.newest(&versions.key, time).and_then(|version| version.0.as_ref()))
    }
}

/// A key of which no run covers a time that is asked for.
struct Missing {
    /// Behind the key's version of the earliest time asked.
    at: Vec<u8>,
    /// Behind the key's last version.
    to: Vec<u8>,
    /// The latest time asked.
    to_time: Timestamp,
}

impl Missing {
    fn new(prefix: &[u8], times: AskedTimes) -> Self {
        let behind = |time: Timestamp| [prefix, &time_bytes(time), &[0]].concat();
        Self { at: behind(times.from), to: behind(Timestamp(i64::MAX)), to_time: times.to }
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
