//! How a log is opened.

use std::sync::Arc;
use std::time::Duration;

use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::group::GroupOptions;
use crate::open_files::OPEN_FILES_MAX;
use crate::partition::{Durability, PRODUCER_EXPIRATION};
use crate::recovery_point;
use crate::spawn::Drive;
use crate::storage::Storage;
use crate::storage::disk::{DiskStorage, open_files_limit};
use crate::transaction::{TRANSACTION_TIMEOUT_MAX, TRANSACTIONAL_ID_EXPIRATION};
use crate::unsynced_files::UNSYNCED_FILES_MAX;
use crate::upkeep::UpkeepOptions;

/// The threads that sync files for a log on disk: a processor's partitions are synced side by side.
const SYNC_THREADS: usize = 16;

/// How many files that are not synced a log on disk keeps open, however many a process may.
const UNSYNCED_FILES_MOST: usize = 65_536;

/// What a log works with.
#[derive(Clone)]
pub struct LogOptions {
    /// Where the files are.
    pub storage: Arc<dyn Storage>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who moves background work along.
    pub drive: Drive,
    /// When an append counts, for topics that do not say.
    pub durability: Durability,
    /// The name under which the directory's lock is held: who is told to be holding it.
    pub holder: String,
    /// Seeds the ids of topics.
    pub seed: u64,
    /// How partitions are kept up: retention, compaction.
    pub upkeep: UpkeepOptions,
    /// How consumer groups are kept: when their offsets expire.
    pub groups: GroupOptions,
    /// Whether a log is begun where there is none; `NotFound` otherwise.
    pub begins: bool,
    /// How many files of segments and indexes stay open because they were used lately. Open beside these are what is
    /// not synced, see [`Self::unsynced_files_max`], what is read or replaced at the moment, and a few small files. For
    /// a log on disk 256, or a quarter of what the operating system lets the process open (`ulimit -n`) if that is
    /// less.
    pub open_files_max: usize,
    /// How many files stay open because they hold bytes that are not synced: one for each partition that was written to
    /// since, and five for each segment that was sealed. To close one it is synced first, lest nobody is told that the
    /// operating system could not write it back. So with more partitions than this that are written to in turn, appends
    /// go at the pace of the disk, whatever their durability says: what is written to a partition that has no file open
    /// has another one synced, to be closed for it. For every five appends that is about two with half as many more
    /// partitions than this, for every seven four with twice as many, and with four times as many one for each.
    /// Whichever were closed, no more than this many of all partitions could be spared each time round. Sixteen are
    /// synced at once, and begun before there is no room left, so that an append waits for its share of a sync. For a
    /// log on disk half of what the operating system lets the process open, 65,536 at most: whoever opens several logs
    /// in a process gives each less.
    pub unsynced_files_max: usize,
    /// How long after its last batch, by the timestamps in it, a producer without an open transaction is
    /// forgotten: Kafka's `producer.id.expiration.ms`.
    pub producer_expiration: Duration,
    /// How long after its last transaction a transactional id that nobody holds is forgotten: Kafka's
    /// `transactional.id.expiration.ms`.
    pub transactional_id_expiration: Duration,
    /// The longest [`TransactionOptions::timeout`](crate::TransactionOptions::timeout) that a producer may
    /// ask for, 15 minutes unless said otherwise: for so long it may hold up every reader of committed
    /// records. Kafka's `transaction.max.timeout.ms`.
    pub transaction_timeout_max: Duration,
    /// How often it is written down, while something is synced, up to where all is; `None`: with each group
    /// commit. After a crash a damaged batch behind that passes for one that was cut off.
    pub recovery_point_interval: Option<Duration>,
}

impl LogOptions {
    /// For a log on disk, driven by its own thread, acknowledging what is synced.
    ///
    /// # Errors
    /// `Io` if threads cannot be started.
    pub fn disk() -> Result<Self> {
        let storage = DiskStorage::new(SYNC_THREADS)
            .map_err(|error| Error::io("cannot start the threads that sync files", error))?;
        let seed = OsRng
            .try_next_u64()
            .map_err(|error| Error::caused(ErrorKind::Io, "cannot draw a seed", error))?;
        let FileBounds { open_files_max, unsynced_files_max } = FileBounds::within(open_files_limit());
        Ok(Self {
            open_files_max,
            unsynced_files_max,
            drive: Drive::Thread,
            recovery_point_interval: Some(recovery_point::INTERVAL),
            ..Self::manual(storage, SystemClock::new(), seed)
        })
    }

    /// For a log in memory or under a simulator: stepped by the caller.
    pub fn manual(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self {
            storage,
            clock,
            drive: Drive::Manual,
            durability: Durability::Sync,
            holder: program_name(),
            seed,
            upkeep: UpkeepOptions::default(),
            groups: GroupOptions::default(),
            begins: true,
            open_files_max: OPEN_FILES_MAX,
            unsynced_files_max: UNSYNCED_FILES_MAX,
            producer_expiration: PRODUCER_EXPIRATION,
            transactional_id_expiration: TRANSACTIONAL_ID_EXPIRATION,
            transaction_timeout_max: TRANSACTION_TIMEOUT_MAX,
            recovery_point_interval: None,
        }
    }
}

/// How many files a log keeps open.
#[derive(Debug, PartialEq, Eq)]
struct FileBounds {
    open_files_max: usize,
    unsynced_files_max: usize,
}

impl FileBounds {
    /// Leaves a quarter of what a process may have open, `limit`, to the rest of it.
    fn within(limit: Option<u64>) -> Self {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Self {
            open_files_max: OPEN_FILES_MAX.min(limit / 4),
            unsynced_files_max: UNSYNCED_FILES_MOST.min(limit / 2),
        }
    }
}

fn program_name() -> String {
    let path = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = path.as_deref().and_then(|path| path.file_name());
    name.map_or("a program".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_what_a_process_may_have_open_is_left_to_the_rest_of_it() {
        let check = |limit, (open_files_max, unsynced_files_max)| {
            assert_eq!(FileBounds::within(limit), FileBounds { open_files_max, unsynced_files_max });
        };
        check(Some(300), (75, 150));
        check(Some(1024), (256, 512));
        check(Some(20_000), (256, 10_000));
        check(Some(u64::MAX), (256, 65_536));
        check(None, (256, 65_536));
    }
}
