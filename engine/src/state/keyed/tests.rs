use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lotic_log::{Offset, PartitionId};
use proptest::prelude::*;

use super::*;
use crate::event_log::PartitionKey;
use crate::state::testing::{Changes, as_text, rows, text, topic};
use crate::state::{
    MemoryState, RocksBackend, RocksOptions, StateAccess, StateAccessOptions, StateHome, StateLimits,
    StoreChangelog, StorePressure, Stretch, Visit,
};

/// A store of one worker of one, with what it was given to do so far.
struct Fixture {
    state: KeyedState<String>,
    access: StateAccess,
    backend: Arc<dyn StateBackend>,
    store: StoreId,
    epoch: Epoch,
    changes: Changes,
}

fn fixture(backend: Arc<dyn StateBackend>, limits: StateLimits) -> Fixture {
    let store = backend.open_store("texts").unwrap();
    let stores = [StoreChangelog { name: "texts".to_owned(), topic: topic(0, 3) }];
    let options =
        StateAccessOptions { backend: backend.clone(), stores: &stores, worker: 0, workers: 1, limits };
    let access = StateAccess::new(options).unwrap();
    let state = access.store("texts", text(), StoreOrder::Sorted).unwrap();
    Fixture { state, access, backend, store, epoch: Epoch(0), changes: Changes::default() }
}

fn in_memory(limits: StateLimits) -> Fixture {
    fixture(MemoryState::new().open().unwrap(), limits)
}

impl Fixture {
    fn freeze(&mut self) {
        self.epoch = self.epoch.next();
        self.state.freeze(self.epoch, Timestamp(0), &mut self.changes).unwrap();
    }

    fn commit(&mut self, epoch: Epoch) {
        let end = |partition| (PartitionKey { topic: 0, partition: PartitionId(partition) }, Offset(9));
        self.access.publish_ends(epoch, &[end(0), end(1), end(2)]);
        self.state.committed(epoch).unwrap();
    }

    fn all(&self) -> BTreeMap<Vec<u8>, String> {
        let mut all = Vec::new();
        let visit = |key: &[u8], value: &String| {
            all.push((key.to_vec(), value.clone()));
            Visit::More
        };
        self.state.scan(&[], &[0xff, 0xff], visit).unwrap();
        let sorted: BTreeMap<_, _> = all.iter().cloned().collect();
        assert_eq!(sorted.into_iter().collect::<Vec<_>>(), all, "a scan is in order, each key once");
        all.into_iter().collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Get(usize),
    Put(usize, String),
    PutNew(usize, String),
    Append(usize, String),
    Remove(usize),
    Resolve(Vec<usize>),
    Scan(usize, usize, usize),
    LastBefore(usize, usize),
    /// Stretches, how many rows of each are wanted, and how many in all.
    ScanMany(Vec<[usize; 3]>, usize, usize),
    Freeze,
    Commit,
}

const KEYS: usize = 14;

fn key(index: usize) -> Vec<u8> {
    let mut key = vec![0, (index % 3) as u8];
    key.extend(std::iter::repeat_n(b'k', index % 5));
    key.push(index as u8);
    key
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..KEYS;
    let step = prop_oneof![
        key().prop_map(Step::Get),
        (key(), "[a-z]{0,40}").prop_map(|(key, value)| Step::Put(key, value)),
        (key(), "[a-z]{0,8}").prop_map(|(key, value)| Step::PutNew(key, value)),
        (key(), "[a-z]{1,8}").prop_map(|(key, value)| Step::Append(key, value)),
        key().prop_map(Step::Remove),
        prop::collection::vec(key(), 0..6).prop_map(Step::Resolve),
        (key(), key(), 0..9usize).prop_map(|(from, to, limit)| Step::Scan(from, to, limit)),
        (key(), key()).prop_map(|(from, to)| Step::LastBefore(from, to)),
        (prop::collection::vec(prop::array::uniform3(key()), 0..6), 1..9usize, 1..25usize)
            .prop_map(|(stretches, limit, all_max)| Step::ScanMany(stretches, limit, all_max)),
        Just(Step::Freeze),
        Just(Step::Commit),
    ];
    prop::collection::vec(step, 1..120)
}

/// Runs the steps on a store and on maps, and compares what they give.
fn check(mut f: Fixture, steps: Vec<Step>) {
    let mut model: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    // What each epoch froze that is not committed, oldest first; and what is.
    let mut frozen: Vec<(Epoch, BTreeMap<Vec<u8>, String>)> = Vec::new();
    let mut committed = BTreeMap::new();
    let mut slots = Vec::new();
    for step in steps {
        match step {
            Step::Get(k) => assert_eq!(f.state.get(&key(k)).unwrap(), model.get(&key(k))),
            Step::Put(k, value) => {
                f.state.put(&key(k), value.clone());
                model.insert(key(k), value);
            }
            Step::PutNew(k, value) => {
                // It may well be in the backend, and its removal not yet.
                if let Entry::Vacant(vacant) = model.entry(key(k)) {
                    f.state.put_new(&key(k), value.clone());
                    vacant.insert(value);
                }
            }
            Step::Append(k, more) => {
                let append = |held: &mut Option<String>| held.get_or_insert_default().push_str(&more);
                f.state.update(&key(k), append).unwrap();
                model.entry(key(k)).or_default().push_str(&more);
            }
            Step::Remove(k) => {
                f.state.remove(&key(k));
                model.remove(&key(k));
            }
            Step::Resolve(ks) => {
                let mut keys = Keys::default();
                ks.iter().for_each(|&k| keys.push_whole(&key(k)));
                f.state.resolve(&keys, &mut slots).unwrap();
                for (&k, &slot) in ks.iter().zip(&slots) {
                    assert_eq!(f.state.value(slot), model.get(&key(k)));
                }
                for (&k, &slot) in ks.iter().zip(&slots) {
                    *f.state.value_mut(slot) = Some("resolved".to_owned());
                    model.insert(key(k), "resolved".to_owned());
                }
            }
            Step::Scan(from, to, limit) => {
                let (from, to) = (key(from), key(to));
                let mut found = Vec::new();
                let visit = |key: &[u8], value: &String| {
                    found.push((key.to_vec(), value.clone()));
                    if found.len() > limit { Visit::Stop } else { Visit::More }
                };
                f.state.scan(&from, &to, visit).unwrap();
                let expected = model.iter().filter(|(key, _)| **key >= from && **key < to);
                let expected: Vec<_> =
                    expected.take(limit + 1).map(|(key, value)| (key.clone(), value.clone())).collect();
                assert_eq!(found, expected);
            }
            Step::LastBefore(from, to) => {
                let (from, to) = (key(from), key(to));
                let mut found = None;
                let visit = |key: &[u8], value: &String| found = Some((key.to_vec(), value.clone()));
                f.state.last_before(&from, &to, visit).unwrap();
                let expected = model.iter().rfind(|(key, _)| **key >= from && **key < to);
                assert_eq!(found, expected.map(|(key, value)| (key.clone(), value.clone())));
            }
            Step::ScanMany(stretches, limit, all_max) => {
                let bounds: Vec<_> = stretches.iter().map(|stretch| stretch.map(key)).collect();
                let of_state = bounds.iter().map(|[from, at, to]| Stretch { from, at, to });
                let mut found = Vec::new();
                let visit = |index: usize, key: &[u8], value: &String, _| {
                    found.push((index, key.to_vec(), value.clone()));
                    let of_stretch = found.iter().filter(|(of, ..)| *of == index).count();
                    match found.len() {
                        all if all == all_max => Visit::End,
                        _ if of_stretch == limit => Visit::Stop,
                        _ => Visit::More,
                    }
                };
                f.state.scan_many(&of_state.collect::<Vec<_>>(), visit).unwrap();
                let mut expected = Vec::new();
                for (index, [from, at, to]) in bounds.iter().enumerate() {
                    let within: Vec<_> = model.iter().filter(|(key, _)| *key >= from && *key < to).collect();
                    let start = within.iter().rposition(|(key, _)| *key < at).unwrap_or(0);
                    let wanted = within[start..].iter().take(limit);
                    expected.extend(wanted.map(|(key, value)| (index, (*key).clone(), (*value).clone())));
                }
                expected.truncate(all_max);
                assert_eq!(found, expected);
            }
            Step::Freeze if frozen.len() < 2 => {
                f.freeze();
                frozen.push((f.epoch, model.clone()));
                assert_eq!(f.changes.rows, as_text(&model), "the changelog comes to the state");
                assert_eq!(f.state.dirty_bytes(), 0);
            }
            Step::Freeze => {}
            Step::Commit if !frozen.is_empty() => {
                let (epoch, rows) = frozen.remove(0);
                f.commit(epoch);
                committed = rows;
                assert!(f.state.clean_bytes() <= f.access.memory_bytes());
                assert!(f.state.clean_bytes() <= LIMITS.cache_bytes_max, "what may be evicted is bounded");
            }
            Step::Commit => {}
        }
        assert_eq!(rows(&*f.backend, f.store), as_text(&committed), "nothing else is in the backend");
    }
    assert_eq!(f.all(), model);
    let (access, state) = (f.access, f.state);
    drop(state);
    assert_eq!(access.memory_bytes(), 0, "what was taken is given back");
}

const LIMITS: StateLimits = StateLimits { cache_bytes_max: 700, dirty_bytes_max: 1_000 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_store_in_memory_does_as_a_map_does(steps in steps()) {
        check(in_memory(LIMITS), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_store_in_rocksdb_does_as_a_map_does(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let options = RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, ..RocksOptions::default() };
        let backend = RocksBackend::open(directory.path(), options).unwrap();
        check(fixture(Arc::new(backend), LIMITS), steps);
    }
}

#[test]
fn what_comes_and_goes_within_an_epoch_leaves_no_trace() {
    let mut f = in_memory(LIMITS);
    f.state.put_new(&key(1), "short".to_owned());
    f.state.remove(&key(1));
    f.state.update(&key(2), |value| *value = Some("short".to_owned())).unwrap();
    f.state.update(&key(2), |value| *value = None).unwrap();
    f.freeze();
    assert_eq!(f.changes.count, 0);
    assert_eq!(f.state.entries(), 0);
}

#[test]
fn a_removal_of_what_is_committed_is_written_once() {
    let mut f = in_memory(LIMITS);
    f.state.put(&key(1), "long".to_owned());
    f.freeze();
    f.commit(Epoch(1));
    f.state.update(&key(1), |value| *value = None).unwrap();
    f.freeze();
    assert_eq!((f.changes.count, f.changes.rows.len()), (2, 0));
    f.commit(Epoch(2));
    assert_eq!(f.state.entries(), 0, "a removed entry takes no memory");
    f.state.update(&key(1), |value| *value = None).unwrap();
    f.freeze();
    assert_eq!(f.changes.count, 2, "what is not there is not removed again");
}

#[test]
fn pressure_rises_with_changes_and_falls_when_the_backend_has_them() {
    let mut f = in_memory(LIMITS);
    let fill = |f: &mut Fixture, from: usize| {
        for index in from..from + 12 {
            f.state.put(&[0, 0, index as u8], "x".repeat(20));
        }
    };
    assert_eq!(f.access.pressure(), StorePressure::Low);
    fill(&mut f, 0);
    assert_eq!(f.access.pressure(), StorePressure::EndEpoch);
    f.freeze();
    fill(&mut f, 100);
    assert_eq!(f.access.pressure(), StorePressure::Hold);
    f.commit(Epoch(1));
    f.freeze();
    f.commit(Epoch(2));
    assert_eq!(f.access.pressure(), StorePressure::Low);
}

#[test]
fn a_value_that_is_put_is_charged_at_once() {
    let mut f = in_memory(LIMITS);
    f.state.put(&key(1), "x".repeat(2 * LIMITS.dirty_bytes_max));
    assert_eq!(f.access.pressure(), StorePressure::Hold);
    f.state.put(&key(1), String::new());
    assert_eq!(f.access.pressure(), StorePressure::Low);
}

#[test]
fn a_value_that_grows_within_an_epoch_is_charged_with_half_of_it_at_least() {
    let mut f = in_memory(StateLimits::default());
    for bytes in (10..10_000).step_by(10) {
        f.state.update(&key(1), |value| value.get_or_insert_default().push_str("0123456789")).unwrap();
        let charged = f.state.dirty_bytes();
        assert!(2 * charged >= bytes && charged <= bytes + 1_000, "{charged} bytes for {bytes}");
    }
    f.freeze();
    f.commit(Epoch(1));
    assert_eq!(f.state.dirty_bytes(), 0);
    assert!(f.state.clean_bytes() >= 9_990);
}

#[test]
fn a_new_value_is_charged_with_what_others_take_until_it_is_measured() {
    let mut f = in_memory(StateLimits::default());
    f.state.update(&key(1), |value| *value = Some("x".repeat(5_000))).unwrap();
    f.freeze();
    f.state.update(&key(2), |value| *value = Some("x".repeat(5_000))).unwrap();
    assert!(f.state.dirty_bytes() >= 5_000);
}

#[test]
fn nothing_is_visited_behind_a_value_that_cannot_be_read() {
    let mut f = in_memory(LIMITS);
    let mut writes = WriteSet::default();
    writes.put(b"\0\0a", b"\x03one");
    writes.put(b"\0\0b", b"\x02old");
    writes.put(b"\0\0c", b"\x03three");
    f.backend.apply(f.store, &writes).unwrap();
    f.state.put(b"\0\0d", "four".to_owned());
    let mut visited = Vec::new();
    let stretches = [Stretch::all(b"\0\0a", b"\0\0z"); 2];
    let result = f.state.scan_many(&stretches, |index, _, value, _| {
        visited.push((index, value.clone()));
        Visit::More
    });
    assert_eq!(result.unwrap_err().kind(), crate::error::ErrorKind::Incompatible);
    assert_eq!(visited, [(0, "one".to_owned())]);
}

#[test]
fn a_value_of_another_version_is_refused() {
    let f = in_memory(LIMITS);
    let mut writes = WriteSet::default();
    writes.put(&key(1), b"\x02old");
    f.backend.apply(f.store, &writes).unwrap();
    let mut state = f.state;
    let error = state.get(&key(1)).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Incompatible);
    assert!(error.to_string().contains("text/2; expected text/3"), "{error}");
    assert!(state.get(&key(1)).is_err(), "a failed read leaves nothing behind");
}
