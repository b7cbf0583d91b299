//! Where a partition is and what it works with; how its errors name it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::batch::TimestampType;
use crate::clean_shutdown::CleanShutdown;
use crate::cleanup::Cleanup;
use crate::clock::Clock;
use crate::consistent_cut::{Retreat, UnsyncedMark};
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::Flusher;
use crate::index::FileContext;
use crate::open_files::{OpenFiles, is_stale};
use crate::progress::Progress;
use crate::read_buffers::ReadBuffers;
use crate::record::{Offset, PartitionKey, Timestamp, TopicId, TopicPartition};
use crate::recovery_point::SyncedPoints;
use crate::scanner::{BatchPlace, Density, ReadError};
use crate::storage::disk::open_files_limit;
use crate::storage::{Storage, is_too_many_files};
use crate::unsynced_files::UnsyncedFiles;
use crate::verify::Damage;

/// How long a producer is remembered, unless a log is opened with another time: Kafka's
/// `producer.id.expiration.ms`.
pub(crate) const PRODUCER_EXPIRATION: Duration = Duration::from_secs(24 * 60 * 60);

/// When an append counts.
///
/// One log may hold topics of several. What is synced keeps its promise, and waits for more than its own bytes then:
/// the decisions of all transactions are in one table, and one that is to be durable must not stand on others before
/// it that a power cut may take. So a commit over a topic of [`Sync`](Self::Sync), behind one that nobody has synced,
/// waits for a consistent cut, which syncs whatever the topics of the other durabilities hold by then; where any of
/// it cannot be synced, the commit fails. Topics that must not wait for others, or fail with them, belong in a log of
/// their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Once a group commit has synced it: it survives a power cut. Nobody reads it before.
    #[default]
    Sync,
    /// At once; synced so often. A power cut may take what was appended since. What transactions have written goes
    /// back to one moment everywhere then: the last one of which all was synced. So it does once the log is opened
    /// again after a sync has failed.
    Interval(Duration),
    /// At once; the operating system writes it out when it likes. It survives the process, not a power cut, which
    /// takes transactions back to one moment everywhere, within the last half minute or so. A sync that fails does the
    /// same once the log is opened again.
    Os,
}

/// How a partition keeps its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    /// When an append counts.
    pub durability: Durability,
    /// Bytes after which a segment is sealed and the next one begun; at most 2 GiB, a position being an `i32`.
    pub segment_bytes: u64,
    /// Bytes between two entries of an index.
    pub index_interval_bytes: u64,
    /// Bytes after which the producers are written down again: at most so much of the log is read to
    /// know them after a crash.
    pub snapshot_interval_bytes: u64,
    /// The largest batch that is appended.
    pub batch_bytes_max: usize,
    /// Whose time records carry.
    pub timestamp_type: TimestampType,
    /// Whether offsets may be missing anywhere: the partition comes from where it was compacted. What was
    /// compacted here is known, and a gap anywhere else is damage.
    pub has_gaps: bool,
    /// What becomes of old records.
    pub cleanup: Cleanup,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            segment_bytes: 1 << 30,
            index_interval_bytes: 4096,
            snapshot_interval_bytes: 64 << 20,
            batch_bytes_max: 64 << 20,
            timestamp_type: TimestampType::Create,
            has_gaps: false,
            cleanup: Cleanup::default(),
        }
    }
}

/// What the partitions of a log share.
#[derive(Clone)]
pub struct PartitionContext {
    /// Where the files are.
    pub storage: Arc<dyn Storage>,
    /// Gives transaction markers their time.
    pub clock: Arc<dyn Clock>,
    /// What fetched batches are read into.
    pub buffers: ReadBuffers,
    /// Told when something may have become readable.
    pub progress: Arc<Progress>,
    /// Whether the log's directory is as it was when the log was closed.
    pub(crate) clean_shutdown: Arc<CleanShutdown>,
    /// Up to where recovery will believe what it finds.
    pub(crate) synced_points: Arc<SyncedPoints>,
    /// The mark that there are records which nobody has synced.
    pub(crate) unsynced: Arc<UnsyncedMark>,
    /// What is not believed, though it can be read, where a power cut has taken unsynced records.
    pub(crate) retreat: Arc<ArcSwapOption<Retreat>>,
    /// Who makes a partition durable in the background; nobody where that is gone.
    pub(crate) flusher: Weak<Flusher>,
    /// The files of segments that are open.
    pub(crate) open_files: Arc<OpenFiles>,
    /// Those that are open because they are not synced.
    pub(crate) unsynced_files: Arc<UnsyncedFiles>,
    /// How long after its last batch or marker a producer is forgotten that has no transaction open.
    pub(crate) producer_expiration: Duration,
}

impl PartitionContext {
    /// For a partition that stands alone, in no log's directory.
    pub fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        let clean_shutdown = Arc::new(CleanShutdown::none(storage.clone()));
        let unsynced = Arc::new(UnsyncedMark::none(storage.clone()));
        Self {
            storage,
            clock,
            buffers: ReadBuffers::new(),
            progress: Arc::default(),
            clean_shutdown,
            synced_points: Arc::default(),
            unsynced,
            retreat: Arc::default(),
            flusher: Weak::new(),
            open_files: Arc::default(),
            unsynced_files: Arc::default(),
            producer_expiration: PRODUCER_EXPIRATION,
        }
    }
}

/// Where a partition is and what it works with.
pub struct PartitionSite {
    /// Topic and partition.
    pub name: TopicPartition,
    /// The topic's id.
    pub topic_id: TopicId,
    /// The partition's directory.
    pub directory: PathBuf,
    /// How the partition keeps its records.
    pub config: PartitionConfig,
    /// What the partitions of the log share.
    pub context: PartitionContext,
    /// Up to where segments may have been rewritten: offsets may be missing there.
    pub(crate) rewritten_end: RewrittenEnd,
}

/// Up to where segments of a partition may have been rewritten, as was read last.
#[derive(Debug, Default)]
pub(crate) struct RewrittenEnd(AtomicI64);

impl PartitionSite {
    /// A partition called `name` of the topic `topic_id`, in `directory`.
    pub fn new(
        name: TopicPartition,
        topic_id: TopicId,
        directory: PathBuf,
        config: PartitionConfig,
        context: PartitionContext,
    ) -> Self {
        Self { name, topic_id, directory, config, context, rewritten_end: RewrittenEnd::default() }
    }

    /// Which batches may follow each other.
    pub(crate) fn density(&self) -> Density {
        let rewritten_end = self.rewritten_end.0.load(Ordering::Acquire);
        if self.config.has_gaps {
            Density::Sparse
        } else if rewritten_end > 0 {
            Density::SparseUpTo(Offset(rewritten_end))
        } else {
            Density::Dense
        }
    }

    /// Segments before `end` may have been rewritten.
    pub(crate) fn allow_gaps_up_to(&self, end: Offset) {
        self.rewritten_end.0.fetch_max(end.0, Ordering::Release);
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.context.storage
    }

    pub(crate) fn file_context(&self) -> FileContext {
        FileContext { storage: self.context.storage.clone(), open_files: self.context.open_files.clone() }
    }

    /// Producers that have written nothing since are forgotten, now.
    pub(crate) fn producer_horizon(&self) -> Timestamp {
        let expiration = self.context.producer_expiration.as_millis().min(i64::MAX as u128) as i64;
        Timestamp(self.context.clock.now().0.saturating_sub(expiration))
    }

    pub(crate) fn key(&self) -> PartitionKey {
        PartitionKey { topic: self.topic_id, partition: self.name.partition }
    }

    /// To be called before the first byte is written to the directory.
    pub(crate) fn begin_writing(&self) -> Result<()> {
        self.context.clean_shutdown.take_away()
    }

    /// An error of `kind` about this partition.
    pub(crate) fn error(&self, kind: ErrorKind, what: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("{self}: {what}"))
    }

    /// The operating system's error while `doing` something to `path`; [`ErrorKind::Retry`] where another
    /// file has its name by now.
    pub(crate) fn io(&self, doing: &str, path: &Path, error: io::Error) -> Error {
        if is_stale(&error) {
            return self.replaced(path);
        }
        let mut what = format!("{self}: cannot {doing} {}", path.display());
        if is_too_many_files(&error) {
            what.push_str(&self.open_files_allowed());
        }
        Error::io(what, error)
    }

    /// Of a file that cannot be opened, how many may be.
    fn open_files_allowed(&self) -> String {
        let PartitionContext { open_files, unsynced_files, .. } = &self.context;
        let limit = open_files_limit().map_or("any number of".to_owned(), |limit| limit.to_string());
        format!(
            " (the operating system lets this process have {limit} files open; of these the log takes open_files_max, \
             {}, and unsynced_files_max, {}: lower these or raise that)",
            open_files.files_max(),
            unsynced_files.files_max()
        )
    }

    /// A file of the log is another one by now, or gone.
    pub(crate) fn replaced(&self, path: &Path) -> Error {
        self.error(ErrorKind::Retry, format!("{} was replaced or removed: read again", path.display()))
    }

    /// Bytes in the log that are not what was written.
    pub(crate) fn corrupt(&self, path: &Path, place: BatchPlace, what: impl std::fmt::Display) -> Error {
        let BatchPlace { position, offset } = place;
        let partition = self.name.clone();
        let damage = Damage { partition, offset, file: path.to_owned(), position, reason: what.to_string() };
        Error::new(ErrorKind::Corrupt, damage.to_string())
    }

    /// Why the batches in `path` could not be read.
    pub(crate) fn read_error(&self, path: &Path, error: ReadError) -> Error {
        match error {
            ReadError::Io(error) => self.io("read", path, error),
            ReadError::Bad { place, error } => self.corrupt(path, place, error),
        }
    }
}

impl std::fmt::Display for PartitionSite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {}, partition {}", self.name.topic, self.name.partition)
    }
}
