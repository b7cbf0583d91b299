//! A cache of runs: consecutive versions of one key, in memory.

use hashbrown::HashMap;
use lotic_log::Timestamp;

use super::Version;
use crate::frame::Data;

/// Versions that a run holds at most when it is read; twice as many when it has grown by updates.
pub(super) const RUN_VERSIONS_MAX: usize = 256;

/// Bytes that a run takes at most when it is read, but for its last version; twice as many when it has grown.
pub(super) const RUN_BYTES_MAX: usize = 256 << 10;

/// Bytes that the runs of one generation take, but for the last run; there are two. About what 16,000 short
/// rows take.
pub(super) const GENERATION_BYTES_MAX: usize = 4 << 20;

/// A version in a run.
pub(super) struct Timed<T> {
    /// From when on it holds.
    pub(super) time: Timestamp,
    pub(super) version: Version<T>,
    /// What it takes.
    pub(super) bytes: usize,
}

/// All versions of a key that answer for times from `from` on and before `until`.
pub(super) struct Run<T> {
    pub(super) from: Timestamp,
    /// `None`: for ever.
    pub(super) until: Option<Timestamp>,
    pub(super) versions: Vec<Timed<T>>,
    /// What the versions take.
    pub(super) bytes: usize,
}

impl<T> Run<T> {
    /// The run of a key that has no versions.
    pub(super) fn new() -> Self {
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
pub(super) struct RunCache<T> {
    young: HashMap<Vec<u8>, Run<T>>,
    old: HashMap<Vec<u8>, Run<T>>,
    /// What was put into the young generation takes; what was taken out of it since is not taken off.
    young_bytes: usize,
}

impl<T: Data> RunCache<T> {
    pub(super) fn new() -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0 }
    }

    /// Whether the run of this key answers for `time`; if so, it is young.
    pub(super) fn covers(&mut self, prefix: &[u8], time: Timestamp) -> bool {
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

    pub(super) fn newest(&self, prefix: &[u8], time: Timestamp) -> Option<&Version<T>> {
        self.young.get(prefix)?.newest(time)
    }

    pub(super) fn insert(&mut self, prefix: &[u8], run: Run<T>) {
        self.make_room();
        self.young_bytes += entry_bytes::<T>(prefix) + run.bytes;
        self.young.insert(prefix.to_vec(), run);
    }

    /// Whether a version of this time belongs into a run that there is.
    pub(super) fn holds(&self, prefix: &[u8], time: Timestamp) -> bool {
        let run = self.young.get(prefix).or_else(|| self.old.get(prefix));
        run.is_some_and(|run| run.covers(time))
    }

    /// Adds a version to the run that [holds](Self::holds) its time.
    pub(super) fn put(&mut self, prefix: &[u8], new: Timed<T>) {
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

    pub(super) fn forget(&mut self, prefix: &[u8]) {
        self.young.remove(prefix);
        self.old.remove(prefix);
    }

    /// The versions of this key before `time`, where one begins, are gone.
    pub(super) fn forget_before(&mut self, prefix: &[u8], time: Timestamp) {
        let Some(run) = self.young.get_mut(prefix).or_else(|| self.old.get_mut(prefix)) else { return };
        if !run.covers(time) {
            return self.forget(prefix);
        }
        run.from = time;
        run.versions.retain(|version| version.time >= time);
        run.bytes = run.versions.iter().map(|version| version.bytes).sum();
    }
}

/// About what the run of a key takes besides its versions.
pub(super) fn entry_bytes<T>(prefix: &[u8]) -> usize {
    size_of::<Run<T>>() + 2 * prefix.len()
}

/// About what a version takes in a run: what its row holds elsewhere is taken for as long as its encoded form.
pub(super) fn version_bytes<T>(encoded_bytes: usize) -> usize {
    size_of::<Timed<T>>() + encoded_bytes
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
