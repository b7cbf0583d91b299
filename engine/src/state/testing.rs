//! What the tests of state share: codecs, a changelog writer that remembers, and a look into a backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lotic_log::{PartitionId, Timestamp, TopicId};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{ChangelogWriter, StateBackend, StoreId, Stretch, StretchVisitor, Visit, WriteSet};
use crate::codec::{Codec, CodecError, CodecId};
use crate::error::Result;
use crate::event_log::TopicHandle;

/// Text as it is.
pub(crate) struct Text;

impl Codec<String> for Text {
    fn id(&self) -> CodecId {
        CodecId { name: "text", version: 3 }
    }

    fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        String::from_utf8(bytes.to_vec()).map_err(|error| CodecError::caused("not UTF-8", error))
    }
}

/// Eight bytes.
pub(crate) struct Number;

impl Codec<i64> for Number {
    fn id(&self) -> CodecId {
        CodecId { name: "number", version: 1 }
    }

    fn encode(&self, value: &i64, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<i64, CodecError> {
        let bytes = bytes.try_into().map_err(|error| CodecError::caused("not eight bytes", error))?;
        Ok(i64::from_be_bytes(bytes))
    }
}

pub(crate) fn topic(index: u32, partitions: i32) -> TopicHandle {
    let id = TopicId(Uuid::from_u128(100 + u128::from(index)));
    TopicHandle { index, name: format!("changelog-{index}").into(), id, partitions }
}

/// What was written to a changelog, and what it comes to.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) count: usize,
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl ChangelogWriter for Changes {
    fn write_change(
        &mut self,
        topic: &TopicHandle,
        partition: PartitionId,
        _time: Timestamp,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let group = u16::from_be_bytes([key[0], key[1]]);
        assert_eq!(i32::from(group) % topic.partitions, partition.0);
        self.count += 1;
        match value {
            Some(value) => drop(self.rows.insert(key.to_vec(), value.to_vec())),
            None => drop(self.rows.remove(key)),
        }
        Ok(())
    }
}

/// The rows of a store, positions left out.
pub(crate) fn rows(backend: &dyn StateBackend, store: StoreId) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        Visit::More
    };
    backend.scan(store, &[], &[0xff, 0xff], visit).unwrap();
    rows
}

/// The rows as values of [`Text`]'s store form.
pub(crate) fn as_text(rows: &BTreeMap<Vec<u8>, String>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let encode = |text: &String| [&[3], text.as_bytes()].concat();
    rows.iter().map(|(key, text)| (key.clone(), encode(text))).collect()
}

pub(crate) fn text() -> Arc<dyn Codec<String>> {
    Arc::new(Text)
}

/// A backend that counts what it is asked for.
pub(crate) struct Counting {
    pub(crate) inner: Arc<dyn StateBackend>,
    pub(crate) counts: Arc<Counts>,
}

/// What a [`Counting`] backend was asked for.
#[derive(Default)]
pub(crate) struct Counts {
    /// The rows that scans have visited.
    pub(crate) visited: AtomicUsize,
    /// How many keys each multi-get was for.
    pub(crate) multi_gets: Mutex<Vec<usize>>,
    /// Of how many stretches each scan was.
    pub(crate) scans: Mutex<Vec<usize>>,
}

impl StateBackend for Counting {
    fn open_store(&self, name: &str) -> Result<StoreId> {
        self.inner.open_store(name)
    }

    fn find_store(&self, name: &str) -> Option<StoreId> {
        self.inner.find_store(name)
    }

    fn get_many(&self, store: StoreId, keys: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.counts.multi_gets.lock().push(keys.len());
        self.inner.get_many(store, keys, found)
    }

    fn scan_many(
        &self,
        store: StoreId,
        stretches: &[Stretch<'_>],
        may_begin: &dyn Fn(&[u8]) -> bool,
        visit: &mut StretchVisitor<'_>,
    ) -> Result<()> {
        self.counts.scans.lock().push(stretches.len());
        self.inner.scan_many(store, stretches, may_begin, &mut |index, key, value| {
            self.counts.visited.fetch_add(1, Ordering::Relaxed);
            visit(index, key, value)
        })
    }

    fn apply(&self, store: StoreId, writes: &WriteSet) -> Result<()> {
        self.inner.apply(store, writes)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes()
    }
}
