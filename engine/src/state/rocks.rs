//! State in RocksDB: the only file that knows it.
//!
//! One column family for each store. There is no write-ahead log: the changelog is it. Column families
//! flush on their own, so after a crash each holds a prefix of its batches; the positions are in them.
//!
//! A database is opened for reading only, which writes nothing, and opened again for writing by the first
//! change: a flow that finds nothing to do leaves its files as they were.
//!
//! Memory is bounded by one block cache (index and filter blocks are in it) and one budget for the write
//! buffers, both over all stores.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRawIteratorWithThreadMode,
    DBWithThreadMode, ErrorKind as RocksErrorKind, LogLevel, MultiThreaded, Options, ReadOptions, WriteBatch,
    WriteBufferManager, WriteOptions,
};

use super::{StateBackend, StoreId, Stretch, StretchVisitor, Visit, WriteSet};
use crate::error::{Error, ErrorKind, Result};

/// The column family that RocksDB insists on; nothing is in it.
const DEFAULT_STORE: &str = "default";

/// Files that may be open at once, so that a large state does not use up the process's.
const OPEN_FILES_MAX: i32 = 512;

/// Bits of bloom filter for each key: one read in a hundred of an absent key goes to the disk.
const BLOOM_BITS: f64 = 10.0;

/// Entries that the iterator of many stretches passes over at most from one row to the next. Its bounds are those of
/// all stretches, so that it does not see where one ends: what was deleted behind a stretch, which may be much, it would
/// pass over every time. Where there is more, the stretch gets an iterator with bounds of its own.
const PASSED_OVER_MAX: u64 = 64;

/// How much memory and work RocksDB may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Blocks kept for reading, over all stores.
    pub block_cache_bytes: usize,
    /// Applied changes not written to files yet, over all stores.
    pub write_buffer_bytes: usize,
    /// Threads that flush and compact.
    pub background_jobs: i32,
}

impl Default for RocksOptions {
    /// 64 MiB of each, 2 threads.
    fn default() -> Self {
        Self { block_cache_bytes: 64 << 20, write_buffer_bytes: 64 << 20, background_jobs: 2 }
    }
}

type Db = DBWithThreadMode<MultiThreaded>;

/// An open RocksDB.
pub struct RocksBackend {
    opened: RwLock<Opened>,
    directory: PathBuf,
    /// By store number.
    names: RwLock<Vec<Arc<str>>>,
    settings: Settings,
}

/// The database, and whether it takes changes.
struct Opened {
    db: Db,
    is_writable: bool,
}

/// What a database is opened with. Both openings share the memory.
struct Settings {
    database: Options,
    store: Options,
    cache: Cache,
    write_buffers: WriteBufferManager,
}

impl Settings {
    fn new(options: RocksOptions) -> Self {
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let write_buffers = WriteBufferManager::new_write_buffer_manager(options.write_buffer_bytes, false);
        let database = database_options(options, &write_buffers);
        Self { database, store: store_options(options, &cache), cache, write_buffers }
    }

    fn open(&self, directory: &Path, stores: &[Arc<str>], is_writable: bool) -> Result<Opened> {
        let family = |name: &Arc<str>| ColumnFamilyDescriptor::new(&**name, self.store.clone());
        let families = stores.iter().map(family);
        let db = match is_writable {
            true => Db::open_cf_descriptors(&self.database, directory, families),
            false => Db::open_cf_descriptors_read_only(&self.database, directory, families, false),
        };
        Ok(Opened { db: db.map_err(|error| unopened(error, directory))?, is_writable })
    }
}

impl RocksBackend {
    /// Opens the RocksDB in `directory`, and makes it where there is none. One that is there is not written
    /// to before the first change.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if what is there cannot be read, [`ErrorKind::Locked`] if it is open.
    pub fn open(directory: &Path, options: RocksOptions) -> Result<Self> {
        let settings = Settings::new(options);
        let exists = directory.join("CURRENT").exists();
        let stores: Vec<Arc<str>> = match exists {
            true => {
                let found = Db::list_cf(&settings.database, directory);
                let found = found.map_err(|error| unopened(error, directory))?;
                found.iter().map(|name| name.as_str().into()).collect()
            }
            false => vec![DEFAULT_STORE.into()],
        };
        let opened = RwLock::new(settings.open(directory, &stores, !exists)?);
        Ok(Self { opened, directory: directory.to_owned(), names: RwLock::new(stores), settings })
    }

    /// Makes a checkpoint in `directory`, which does not exist: its files are links to this store's.
    pub fn checkpoint(&self, directory: &Path) -> Result<()> {
        let db = self.writable()?;
        let checkpoint = Checkpoint::new(&*db).map_err(|error| self.failed(error, "checkpointed"))?;
        checkpoint.create_checkpoint(directory).map_err(|error| self.failed(error, "checkpointed"))
    }

    /// The database, to read.
    fn readable(&self) -> MappedRwLockReadGuard<'_, Db> {
        RwLockReadGuard::map(self.opened.read(), |opened| &opened.db)
    }

    /// The database, opened for writing by the first who asks.
    fn writable(&self) -> Result<MappedRwLockReadGuard<'_, Db>> {
        let opened = self.opened.read();
        if opened.is_writable {
            return Ok(RwLockReadGuard::map(opened, |opened| &opened.db));
        }
        drop(opened);
        let mut opened = self.opened.write();
        if !opened.is_writable {
            // Nothing was changed since it was opened for reading: both see the same.
            let reopened = self.settings.open(&self.directory, &self.names.read(), true);
            *opened = reopened.map_err(|error| self.marked(error))?;
        }
        Ok(RwLockReadGuard::map(RwLockWriteGuard::downgrade(opened), |opened| &opened.db))
    }

    /// The error as the engine's.
    fn failed(&self, error: rocksdb::Error, what: &str) -> Error {
        self.marked(convert(error, what, &self.directory))
    }

    /// Damage is remembered, so that the next start takes an older base.
    fn marked(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Corrupt
            && let Err(unmarked) = File::create(suspect_mark(&self.directory))
        {
            tracing::warn!(%error, %unmarked, "the damage found in the state will have to be found again");
        }
        error
    }

    fn name(&self, store: StoreId) -> Arc<str> {
        self.names.read()[store.0 as usize].clone()
    }
}

/// Runs `$body` with the column family of a store of `$db` bound to a name: its handle borrows from that.
macro_rules! with_store {
    ($self:ident, $db:ident, $store:expr, |$family:ident| $body:expr) => {{
        let name = $self.name($store);
        let $family = $db.cf_handle(&name).expect("a store that was opened stays");
        $body
    }};
}

impl StateBackend for RocksBackend {
    fn open_store(&self, name: &str) -> Result<StoreId> {
        if let Some(known) = self.find_store(name) {
            return Ok(known);
        }
        // Before the names are locked: opening for writing reads them.
        let db = self.writable()?;
        let mut names = self.names.write();
        if let Some(known) = find(&names, name) {
            return Ok(known);
        }
        db.create_cf(name, &self.settings.store).map_err(|error| self.failed(error, "extended"))?;
        names.push(name.into());
        Ok(find(&names, name).expect("it was just made"))
    }

    fn find_store(&self, name: &str) -> Option<StoreId> {
        find(&self.names.read(), name)
    }

    fn get_many(&self, store: StoreId, keys: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let db = self.readable();
        with_store!(self, db, store, |family| {
            let values = db.batched_multi_get_cf(&family, keys.iter().copied(), false);
            for (index, value) in values.into_iter().enumerate() {
                if let Some(value) = value.map_err(|error| self.failed(error, "read"))? {
                    found(index, &value);
                }
            }
            Ok(())
        })
    }

    fn scan_many(
        &self,
        store: StoreId,
        stretches: &[Stretch<'_>],
        may_begin: &dyn Fn(&[u8]) -> bool,
        visit: &mut StretchVisitor<'_>,
    ) -> Result<()> {
        let filled = || stretches.iter().enumerate().filter(|(_, stretch)| !stretch.is_empty());
        let (from, to) = (filled().map(|(_, s)| s.from).min(), filled().map(|(_, s)| s.to).max());
        let Some((from, to)) = from.zip(to) else { return Ok(()) };
        let mut options = bounded(from, to);
        let is_limited = stretches.len() > 1;
        if is_limited {
            options.set_max_skippable_internal_keys(PASSED_OVER_MAX);
        }
        let db = self.readable();
        with_store!(self, db, store, |family| {
            let mut rows = db.raw_iterator_cf_opt(&family, options);
            let mut behind = Vec::new();
            for (index, &stretch) in filled() {
                behind.clear();
                let read = visit_stretch(&mut rows, stretch, may_begin, &mut |key, value| {
                    if is_limited {
                        behind.clear();
                        behind.extend_from_slice(key);
                        behind.push(0);
                    }
                    visit(index, key, value)
                });
                let wants = match read {
                    Err(error) if error.kind() == RocksErrorKind::Incomplete => {
                        let rest =
                            if behind.is_empty() { stretch } else { Stretch::all(&behind, stretch.to) };
                        let mut rows = db.raw_iterator_cf_opt(&family, bounded(rest.from, rest.to));
                        visit_stretch(&mut rows, rest, may_begin, &mut |key, value| visit(index, key, value))
                    }
                    read => read,
                }
                .map_err(|error| self.failed(error, "read"))?;
                if wants == Visit::End {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&self, store: StoreId, writes: &WriteSet) -> Result<()> {
        let db = self.writable()?;
        with_store!(self, db, store, |family| {
            let mut batch = WriteBatch::default();
            for (key, value) in writes.iter() {
                match value {
                    Some(value) => batch.put_cf(&family, key, value),
                    None => batch.delete_cf(&family, key),
                }
            }
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            db.write_opt(batch, &options).map_err(|error| self.failed(error, "written"))
        })
    }

    fn flush(&self) -> Result<()> {
        let opened = self.opened.read();
        if !opened.is_writable {
            return Ok(());
        }
        for name in self.names.read().iter() {
            let family = opened.db.cf_handle(name).expect("a store that was opened stays");
            opened.db.flush_cf(&family).map_err(|error| self.failed(error, "flushed"))?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> u64 {
        (self.settings.cache.get_usage() + self.settings.write_buffers.get_usage()) as u64
    }
}

fn find(names: &[Arc<str>], name: &str) -> Option<StoreId> {
    let number = |number| StoreId(u32::try_from(number).expect("a flow has fewer than 2^32 stores"));
    names.iter().position(|known| &**known == name).map(number)
}

/// What the name of that file ends in.
pub(crate) const SUSPECT: &str = "suspect";

/// The file that says that the store in `directory` was found damaged.
pub(crate) fn suspect_mark(directory: &Path) -> PathBuf {
    directory.with_added_extension(SUSPECT)
}

/// Visits the rows of a stretch with an iterator that has at least its bounds.
fn visit_stretch(
    rows: &mut DBRawIteratorWithThreadMode<'_, Db>,
    stretch: Stretch<'_>,
    may_begin: &dyn Fn(&[u8]) -> bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) -> Result<Visit, rocksdb::Error> {
    let Stretch { from, at, to } = stretch;
    let at = at.min(to);
    let mut has_begun = false;
    if from < at {
        rows.seek_for_prev(at);
        while let Some(key) = rows.key().filter(|key| *key >= from) {
            if key < at && may_begin(key) {
                has_begun = true;
                break;
            }
            rows.prev();
        }
        rows.status()?;
    }
    if !has_begun {
        rows.seek(from);
    }
    let mut wants = Visit::More;
    while wants == Visit::More
        && let Some((key, value)) = rows.item().filter(|(key, _)| *key < to)
    {
        wants = visit(key, value);
        if wants == Visit::More {
            rows.next();
        }
    }
    rows.status().map(|()| wants)
}

fn bounded(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}

fn database_options(options: RocksOptions, write_buffers: &WriteBufferManager) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.set_write_buffer_manager(write_buffers);
    database.set_max_background_jobs(options.background_jobs);
    database.set_max_open_files(OPEN_FILES_MAX);
    database.set_log_level(LogLevel::Warn);
    database.set_keep_log_file_num(2);
    database.set_stats_dump_period_sec(0);
    database
}

fn store_options(options: RocksOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(BLOOM_BITS, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut store = Options::default();
    store.set_block_based_table_factory(&blocks);
    store.set_write_buffer_size(options.write_buffer_bytes / 4);
    store.set_compression_type(DBCompressionType::Lz4);
    store.set_bottommost_compression_type(DBCompressionType::Zstd);
    store
}

/// Why a database cannot be opened. Options that do not fit what is there: it is not what this program wrote.
fn unopened(error: rocksdb::Error, directory: &Path) -> Error {
    let is_foreign = error.kind() == RocksErrorKind::InvalidArgument;
    let error = convert(error, "opened", directory);
    if is_foreign { Error::new(ErrorKind::Corrupt, error.to_string()) } else { error }
}

/// What RocksDB's errors begin with when another holds the database: in another process, and in this one.
const LOCKED: [&str; 2] = ["IO error: While lock file: ", "IO error: lock hold by current process"];

/// RocksDB tells kinds of errors apart by the beginning of their text; somewhere in it is a path, which may
/// hold any word. What the operating system says is at an end of it.
fn kind_of(kind: RocksErrorKind, text: &str) -> ErrorKind {
    let says = |what: &str| {
        text.strip_prefix("IO error: ").is_some_and(|rest| rest.starts_with(what)) || text.ends_with(what)
    };
    match kind {
        RocksErrorKind::Corruption => ErrorKind::Corrupt,
        RocksErrorKind::IOError if says("No space left on device") => ErrorKind::Full,
        RocksErrorKind::IOError if LOCKED.iter().any(|locked| text.starts_with(locked)) => ErrorKind::Locked,
        // A file that its manifest names is gone.
        RocksErrorKind::IOError if says("No such file or directory") => ErrorKind::Corrupt,
        RocksErrorKind::IOError => ErrorKind::Io,
        _ => ErrorKind::Restart,
    }
}

fn convert(error: rocksdb::Error, what: &str, directory: &Path) -> Error {
    let kind = kind_of(error.kind(), error.as_ref());
    Error::caused(kind, format!("the state in {} cannot be {what}", directory.display()), error)
}

#[cfg(test)]
mod tests;
