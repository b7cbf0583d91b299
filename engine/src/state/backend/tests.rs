use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::state::{MemoryState, RocksBackend, RocksOptions};

/// Every key of up to four of these bytes: many begin with another one.
const BYTES: u8 = 4;

fn keys() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new()];
    for start in 0.. {
        if keys[start].len() == 4 {
            return keys;
        }
        let longer = (0..BYTES).map(|byte| [&keys[start][..], &[byte]].concat());
        keys.extend(longer.collect::<Vec<_>>());
    }
    unreachable!("keys grow longer")
}

fn a_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..=BYTES, 0..5)
}

/// A stretch as a test draws it: its bounds in any order.
#[derive(Clone, Debug)]
struct Drawn {
    from: Vec<u8>,
    at: Vec<u8>,
    to: Vec<u8>,
    /// How many rows its visitor wants.
    rows_max: usize,
}

impl Drawn {
    fn stretch(&self) -> Stretch<'_> {
        Stretch { from: &self.from, at: &self.at, to: &self.to }
    }
}

fn stretches() -> impl Strategy<Value = Vec<Drawn>> {
    let drawn = (a_key(), a_key(), a_key(), 1..40usize);
    let drawn = drawn.prop_map(|(from, at, to, rows_max)| Drawn { from, at, to, rows_max });
    (prop::collection::vec(drawn, 0..12), any::<[bool; 3]>()).prop_map(
        |(mut drawn, [ordered, adjacent, doubled])| {
            if adjacent {
                for index in 1..drawn.len() {
                    drawn[index].from = drawn[index - 1].to.clone();
                }
            }
            if doubled {
                drawn.extend(drawn.clone());
            }
            if ordered {
                drawn.sort_by(|one, other| one.from.cmp(&other.from));
            }
            drawn
        },
    )
}

/// Which rows there are: some were never written, and of the others all between two keys may be deleted.
#[derive(Clone, Debug)]
struct Rows {
    written_mod: usize,
    deleted: Vec<(Vec<u8>, Vec<u8>)>,
    flush: bool,
}

fn rows() -> impl Strategy<Value = Rows> {
    let deleted = prop::collection::vec((a_key(), a_key()), 0..4);
    (1..4usize, deleted, any::<bool>()).prop_map(|(written_mod, deleted, flush)| Rows {
        written_mod,
        deleted,
        flush,
    })
}

type Visited = Vec<(usize, Vec<u8>, Vec<u8>)>;

/// Whether a stretch may begin with a row, for one of some rules.
fn may_begin(rule: u8, key: &[u8]) -> bool {
    rule == 0 || !(key.iter().map(|byte| usize::from(*byte)).sum::<usize>() + key.len()).is_multiple_of(3)
}

fn naive(rows: &BTreeMap<Vec<u8>, Vec<u8>>, stretches: &[Drawn], rule: u8) -> Visited {
    let mut visited = Vec::new();
    for (index, drawn) in stretches.iter().enumerate() {
        let within: Vec<_> = rows.iter().filter(|(key, _)| **key >= drawn.from && **key < drawn.to).collect();
        let start = within.iter().rposition(|(key, _)| **key < drawn.at && may_begin(rule, key));
        let wanted = within.into_iter().skip(start.unwrap_or(0)).take(drawn.rows_max);
        visited.extend(wanted.map(|(key, value)| (index, key.clone(), value.clone())));
    }
    visited
}

/// What is visited of these stretches by somebody who wants so many rows and no more.
fn visited(
    backend: &dyn StateBackend,
    store: StoreId,
    stretches: &[Drawn],
    rule: u8,
    rows_max: usize,
) -> Visited {
    let mut visited = Vec::new();
    let mut counts = vec![0; stretches.len()];
    let of_backend: Vec<_> = stretches.iter().map(Drawn::stretch).collect();
    let visit = &mut |index: usize, key: &[u8], value: &[u8]| {
        visited.push((index, key.to_vec(), value.to_vec()));
        counts[index] += 1;
        match visited.len() {
            all if all == rows_max => Visit::End,
            _ if counts[index] == stretches[index].rows_max => Visit::Stop,
            _ => Visit::More,
        }
    };
    backend.scan_many(store, &of_backend, &|key| may_begin(rule, key), visit).unwrap();
    visited
}

fn check(backend: Arc<dyn StateBackend>, rows: &Rows, stretches: &[Drawn], rule: u8) {
    let store = backend.open_store("rows").unwrap();
    let mut model = BTreeMap::new();
    let mut writes = WriteSet::default();
    for (number, key) in keys().into_iter().enumerate().filter(|(number, _)| number % rows.written_mod == 0) {
        let value = number.to_be_bytes().to_vec();
        writes.put(&key, &value);
        model.insert(key, value);
    }
    backend.apply(store, &writes).unwrap();
    if rows.flush {
        backend.flush().unwrap();
    }
    let mut writes = WriteSet::default();
    let is_deleted = |key: &Vec<u8>| rows.deleted.iter().any(|(from, to)| key >= from && key < to);
    for (key, _) in model.extract_if(.., |key, _| is_deleted(key)) {
        writes.delete(&key);
    }
    backend.apply(store, &writes).unwrap();
    let expected = naive(&model, stretches, rule);
    assert_eq!(visited(&*backend, store, stretches, rule, usize::MAX), expected, "all at once");
    for rows_max in [1, 2, 5, expected.len().max(1)] {
        let wanted = &expected[..expected.len().min(rows_max)];
        assert_eq!(visited(&*backend, store, stretches, rule, rows_max), wanted, "the first {rows_max}");
    }
    for (index, drawn) in stretches.iter().enumerate() {
        let mut alone = visited(&*backend, store, std::slice::from_ref(drawn), rule, usize::MAX);
        alone.iter_mut().for_each(|(at, _, _)| *at = index);
        let expected: Vec<_> = expected.iter().filter(|(at, _, _)| *at == index).cloned().collect();
        assert_eq!(alone, expected, "stretch {index} alone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn many_stretches_in_memory_are_what_each_is(rows in rows(), stretches in stretches(), rule in 0..2u8) {
        check(MemoryState::new().open().unwrap(), &rows, &stretches, rule);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn many_stretches_in_rocksdb_are_what_each_is(rows in rows(), stretches in stretches(), rule in 0..2u8) {
        let directory = tempfile::tempdir().unwrap();
        let options = RocksOptions { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20, background_jobs: 1 };
        let backend = RocksBackend::open(directory.path(), options).unwrap();
        check(Arc::new(backend), &rows, &stretches, rule);
    }
}
