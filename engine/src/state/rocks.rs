//! State in RocksDB: the only file that knows it.
//!
//! One column family for each store. There is no write-ahead log: the changelog is it. Column families
//! flush on their own, so after a crash each holds a prefix of its batches; the positions are in them.
//!
//! Memory is bounded by one block cache (index and filter blocks are in it) and one budget for the write
//! buffers, both over all stores.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBWithThreadMode,
    ErrorKind as RocksErrorKind, LogLevel, MultiThreaded, Options, ReadOptions, WriteBatch,
    WriteBufferManager, WriteOptions,
};

use super::{StateBackend, StoreId, Visit, WriteSet};
use crate::error::{Error, ErrorKind, Result};

/// The column family that RocksDB insists on; nothing is in it.
const DEFAULT_STORE: &str = "default";

/// Files that may be open at once, so that a large state does not use up the process's.
const OPEN_FILES_MAX: i32 = 512;

/// Bits of bloom filter for each key: one read in a hundred of an absent key goes to the disk.
const BLOOM_BITS: f64 = 10.0;

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
    db: Db,
    directory: PathBuf,
    /// By store number.
    names: RwLock<Vec<Arc<str>>>,
    store_options: Options,
    cache: Cache,
    write_buffers: WriteBufferManager,
}

impl RocksBackend {
    /// Opens the RocksDB in `directory`, and makes it where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if what is there cannot be read, [`ErrorKind::Locked`] if it is open.
    pub fn open(directory: &Path, options: RocksOptions) -> Result<Self> {
        let failed = |error: rocksdb::Error| {
            // Options that do not fit what is there: it is not what this program wrote.
            let is_foreign = error.kind() == RocksErrorKind::InvalidArgument;
            let error = convert(error, "opened", directory);
            if is_foreign { Error::new(ErrorKind::Corrupt, error.to_string()) } else { error }
        };
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let write_buffers = WriteBufferManager::new_write_buffer_manager(options.write_buffer_bytes, false);
        let database_options = database_options(options, &write_buffers);
        let store_options = store_options(options, &cache);
        let exists = directory.join("CURRENT").exists();
        let mut stores =
            if exists { Db::list_cf(&database_options, directory).map_err(failed)? } else { Vec::new() };
        if !exists {
            stores.push(DEFAULT_STORE.to_owned());
        }
        let families = stores.iter().map(|name| ColumnFamilyDescriptor::new(name, store_options.clone()));
        let db = Db::open_cf_descriptors(&database_options, directory, families).map_err(failed)?;
        let names = RwLock::new(stores.iter().map(|name| name.as_str().into()).collect());
        Ok(Self { db, directory: directory.to_owned(), names, store_options, cache, write_buffers })
    }

    /// Makes a checkpoint in `directory`, which does not exist: its files are links to this store's.
    pub fn checkpoint(&self, directory: &Path) -> Result<()> {
        let checkpoint = Checkpoint::new(&self.db).map_err(|error| self.failed(error, "checkpointed"))?;
        checkpoint.create_checkpoint(directory).map_err(|error| self.failed(error, "checkpointed"))
    }

    /// The error as the engine's. Damage is remembered, so that the next start takes an older base.
    fn failed(&self, error: rocksdb::Error, what: &str) -> Error {
        let error = convert(error, what, &self.directory);
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

/// Runs `$body` with the column family of a store bound to a name: its handle borrows from the database.
macro_rules! with_store {
    ($self:ident, $store:expr, |$family:ident| $body:expr) => {{
        let name = $self.name($store);
        let $family = $self.db.cf_handle(&name).expect("a store that was opened stays");
        $body
    }};
}

impl StateBackend for RocksBackend {
    fn open_store(&self, name: &str) -> Result<StoreId> {
        let mut names = self.names.write();
        let known = names.iter().position(|known| &**known == name);
        if known.is_none() {
            self.db.create_cf(name, &self.store_options).map_err(|error| self.failed(error, "extended"))?;
            names.push(name.into());
        }
        let number = known.unwrap_or(names.len() - 1);
        Ok(StoreId(u32::try_from(number).expect("a flow has fewer than 2^32 stores")))
    }

    fn get_many(&self, store: StoreId, keys: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        with_store!(self, store, |family| {
            let values = self.db.batched_multi_get_cf(&family, keys.iter().copied(), false);
            for (index, value) in values.into_iter().enumerate() {
                if let Some(value) = value.map_err(|error| self.failed(error, "read"))? {
                    found(index, &value);
                }
            }
            Ok(())
        })
    }

    fn scan(
        &self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<()> {
        with_store!(self, store, |family| {
            let mut rows = self.db.raw_iterator_cf_opt(&family, bounded(from, to));
            rows.seek(from);
            while let Some((key, value)) = rows.item() {
                if visit(key, value) == Visit::Stop {
                    break;
                }
                rows.next();
            }
            rows.status().map_err(|error| self.failed(error, "read"))
        })
    }

    fn last_before(
        &self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        with_store!(self, store, |family| {
            let mut rows = self.db.raw_iterator_cf_opt(&family, bounded(from, to));
            rows.seek_to_last();
            if let Some((key, value)) = rows.item() {
                visit(key, value);
            }
            rows.status().map_err(|error| self.failed(error, "read"))
        })
    }

    fn apply(&self, store: StoreId, writes: &WriteSet) -> Result<()> {
        with_store!(self, store, |family| {
            let mut batch = WriteBatch::default();
            for (key, value) in writes.iter() {
                match value {
                    Some(value) => batch.put_cf(&family, key, value),
                    None => batch.delete_cf(&family, key),
                }
            }
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            self.db.write_opt(batch, &options).map_err(|error| self.failed(error, "written"))
        })
    }

    fn flush(&self) -> Result<()> {
        for name in self.names.read().iter() {
            let family = self.db.cf_handle(name).expect("a store that was opened stays");
            self.db.flush_cf(&family).map_err(|error| self.failed(error, "flushed"))?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> u64 {
        (self.cache.get_usage() + self.write_buffers.get_usage()) as u64
    }
}

/// The file that says that the store in `directory` was found damaged.
pub(crate) fn suspect_mark(directory: &Path) -> PathBuf {
    directory.with_added_extension("suspect")
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

/// RocksDB tells kinds of errors apart by the beginning of their text.
fn convert(error: rocksdb::Error, what: &str, directory: &Path) -> Error {
    let text: &str = error.as_ref();
    let kind = match error.kind() {
        RocksErrorKind::Corruption => ErrorKind::Corrupt,
        RocksErrorKind::IOError if text.contains("lock") => ErrorKind::Locked,
        RocksErrorKind::IOError if text.contains("No space left") => ErrorKind::Full,
        // A file that its manifest names is gone.
        RocksErrorKind::IOError if text.contains("No such file") => ErrorKind::Corrupt,
        RocksErrorKind::IOError => ErrorKind::Io,
        _ => ErrorKind::Restart,
    };
    Error::caused(kind, format!("the state in {} cannot be {what}", directory.display()), error)
}

#[cfg(test)]
mod tests;
