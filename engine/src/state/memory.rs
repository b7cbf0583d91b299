//! State in memory: for flows whose state is rebuilt from the log at each start, and for tests, where it
//! crashes as RocksDB without a write-ahead log does.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use rand::Rng;

use super::{CheckpointId, StateBackend, StateHome, StoreId, Stretch, StretchVisitor, Visit, WriteSet};
use crate::error::{Error, ErrorKind, Result};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A home in memory. Clones are the same home.
#[derive(Clone, Default)]
pub struct MemoryState {
    disk: Arc<Mutex<Disk>>,
}

/// What outlives the backends opened on it.
#[derive(Default)]
struct Disk {
    live: Arc<Stores>,
    checkpoints: BTreeMap<CheckpointId, Checkpoint>,
    last_checkpoint: u64,
    /// How many batches of a store a crash may take back.
    volatile_batches_max: usize,
}

struct Checkpoint {
    stores: Vec<(String, Rows)>,
    damaged: bool,
}

#[derive(Default)]
struct Stores {
    by_number: RwLock<Vec<(String, Arc<RwLock<Store>>)>>,
    volatile_batches_max: usize,
    /// Set by a crash: what is open is of the process that died.
    dead: AtomicBool,
}

#[derive(Default)]
struct Store {
    /// All that was applied.
    rows: Rows,
    /// Rows that a crash leaves alone.
    durable: Rows,
    /// What was applied since, oldest first.
    volatile: VecDeque<WriteSet>,
}

impl MemoryState {
    /// A home that is empty and does not crash.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty home that forgets up to `batches_max` of the last batches of each store when it crashes.
    pub fn crashing(batches_max: usize) -> Self {
        let live = Arc::new(Stores { volatile_batches_max: batches_max, ..Stores::default() });
        let disk = Disk { live, volatile_batches_max: batches_max, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The process dies: of each store a random prefix of what was applied is left. Backends that are
    /// still open refuse everything from now on.
    pub fn crash(&self, random: &mut impl Rng) {
        let mut disk = self.disk.lock();
        disk.live.dead.store(true, Ordering::SeqCst);
        let left = disk.live.rows(|store| {
            let kept = random.random_range(0..=store.volatile.len());
            let mut rows = store.durable.clone();
            store.volatile.iter().take(kept).for_each(|writes| write(&mut rows, writes));
            rows
        });
        disk.live = Arc::new(Stores::from_rows(left, disk.volatile_batches_max));
    }

    /// Damages a checkpoint, so that adopting it fails.
    pub fn damage(&self, checkpoint: CheckpointId) {
        if let Some(checkpoint) = self.disk.lock().checkpoints.get_mut(&checkpoint) {
            checkpoint.damaged = true;
        }
    }
}

impl StateHome for MemoryState {
    fn open(&self) -> Result<Arc<dyn StateBackend>> {
        Ok(Arc::new(MemoryBackend { stores: self.disk.lock().live.clone() }))
    }

    fn discard(&self) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.live = Arc::new(Stores::from_rows(Vec::new(), disk.volatile_batches_max));
        Ok(())
    }

    fn checkpoints(&self) -> Result<Vec<CheckpointId>> {
        Ok(self.disk.lock().checkpoints.keys().rev().copied().collect())
    }

    fn look_into(&self, checkpoint: CheckpointId) -> Result<Arc<dyn StateBackend>> {
        match self.disk.lock().checkpoints.get(&checkpoint) {
            Some(found) if !found.damaged => {
                let stores = Stores::from_rows(found.stores.clone(), 0);
                Ok(Arc::new(MemoryBackend { stores: Arc::new(stores) }))
            }
            _ => Err(Error::new(ErrorKind::Corrupt, format!("checkpoint {checkpoint} cannot be read"))),
        }
    }

    fn verify(&self, checkpoint: CheckpointId, _is_stopping: &dyn Fn() -> bool) -> Result<()> {
        self.look_into(checkpoint).map(drop)
    }

    fn adopt(&self, checkpoint: CheckpointId) -> Result<()> {
        let mut disk = self.disk.lock();
        let volatile_batches_max = disk.volatile_batches_max;
        match disk.checkpoints.get(&checkpoint) {
            Some(found) if !found.damaged => {
                disk.live = Arc::new(Stores::from_rows(found.stores.clone(), volatile_batches_max));
                Ok(())
            }
            Some(_) => Err(Error::new(ErrorKind::Corrupt, format!("checkpoint {checkpoint} is damaged"))),
            None => Err(Error::new(ErrorKind::Corrupt, format!("checkpoint {checkpoint} is missing"))),
        }
    }

    fn take(&self) -> Result<CheckpointId> {
        let mut disk = self.disk.lock();
        // RocksDB flushes all stores for a checkpoint, so the live ones cannot fall behind it.
        disk.live.flush();
        let stores = disk.live.rows(|store| store.rows.clone());
        disk.last_checkpoint += 1;
        let id = CheckpointId(disk.last_checkpoint);
        disk.checkpoints.insert(id, Checkpoint { stores, damaged: false });
        Ok(id)
    }

    fn retire(&self, keep: usize) -> Result<()> {
        let mut disk = self.disk.lock();
        while disk.checkpoints.len() > keep {
            disk.checkpoints.pop_first();
        }
        Ok(())
    }

    fn forget(&self, checkpoint: CheckpointId) -> Result<()> {
        self.disk.lock().checkpoints.remove(&checkpoint);
        Ok(())
    }
}

struct MemoryBackend {
    stores: Arc<Stores>,
}

impl Stores {
    fn from_rows(stores: Vec<(String, Rows)>, volatile_batches_max: usize) -> Self {
        let restored = stores.into_iter().map(|(name, rows)| {
            let durable = if volatile_batches_max > 0 { rows.clone() } else { Rows::new() };
            (name, Arc::new(RwLock::new(Store { rows, durable, volatile: VecDeque::new() })))
        });
        Self { by_number: RwLock::new(restored.collect()), volatile_batches_max, ..Self::default() }
    }

    /// What `rows` makes of each store.
    fn rows(&self, mut rows: impl FnMut(&Store) -> Rows) -> Vec<(String, Rows)> {
        self.by_number.read().iter().map(|(name, store)| (name.clone(), rows(&store.read()))).collect()
    }

    fn flush(&self) {
        for (_, store) in &*self.by_number.read() {
            store.write().settle(0);
        }
    }

    fn store(&self, store: StoreId) -> Result<Arc<RwLock<Store>>> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Io, "the state belongs to a process that has crashed"));
        }
        Ok(self.by_number.read()[store.0 as usize].1.clone())
    }
}

impl Store {
    /// Makes the oldest batches durable until `count` are left that are not.
    fn settle(&mut self, count: usize) {
        while self.volatile.len() > count {
            let writes = self.volatile.pop_front().expect("there are more than none");
            write(&mut self.durable, &writes);
        }
    }
}

fn write(rows: &mut Rows, writes: &WriteSet) {
    for (key, value) in writes.iter() {
        match value {
            Some(value) => drop(rows.insert(key.to_vec(), value.to_vec())),
            None => drop(rows.remove(key)),
        }
    }
}

impl StateBackend for MemoryBackend {
    fn open_store(&self, name: &str) -> Result<StoreId> {
        let mut stores = self.stores.by_number.write();
        let known = stores.iter().position(|(known, _)| known == name);
        let number = known.unwrap_or_else(|| {
            stores.push((name.to_owned(), Arc::default()));
            stores.len() - 1
        });
        Ok(StoreId(number as u32))
    }

    fn find_store(&self, name: &str) -> Option<StoreId> {
        let stores = self.stores.by_number.read();
        stores.iter().position(|(known, _)| known == name).map(|number| StoreId(number as u32))
    }

    fn get_many(&self, store: StoreId, keys: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let store = self.stores.store(store)?;
        let store = store.read();
        for (index, key) in keys.iter().enumerate() {
            if let Some(value) = store.rows.get(*key) {
                found(index, value);
            }
        }
        Ok(())
    }

    fn scan_many(
        &self,
        store: StoreId,
        stretches: &[Stretch<'_>],
        may_begin: &dyn Fn(&[u8]) -> bool,
        visit: &mut StretchVisitor<'_>,
    ) -> Result<()> {
        let store = self.stores.store(store)?;
        let rows = &store.read().rows;
        for (index, &Stretch { from, at, to }) in stretches.iter().enumerate() {
            let before = range(rows, from, at.min(to)).rfind(|(key, _)| may_begin(key));
            let first = before.map_or(from, |(key, _)| key);
            for (key, value) in range(rows, first, to) {
                match visit(index, key, value) {
                    Visit::More => {}
                    Visit::Stop => break,
                    Visit::End => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn apply(&self, store: StoreId, writes: &WriteSet) -> Result<()> {
        let store = self.stores.store(store)?;
        let mut store = store.write();
        write(&mut store.rows, writes);
        if self.stores.volatile_batches_max > 0 {
            store.volatile.push_back(writes.clone());
            store.settle(self.stores.volatile_batches_max);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.stores.flush();
        Ok(())
    }

    fn memory_bytes(&self) -> u64 {
        let bytes =
            |rows: &Rows| rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        self.stores.by_number.read().iter().map(|(_, store)| bytes(&store.read().rows)).sum()
    }
}

fn range<'a>(
    rows: &'a Rows,
    from: &[u8],
    to: &[u8],
) -> std::collections::btree_map::Range<'a, Vec<u8>, Vec<u8>> {
    let to = to.max(from);
    rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}
