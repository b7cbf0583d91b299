//! A log: a directory of topics, opened by one process at a time.
//!
//! ```text
//!   opening -- open --> Open -- close --> Closed
//!        \-- open_read_only --> ReadOnly
//! ```
//!
//! Opening takes the directory's lock, reads the catalogue, recovers every partition, finishes or aborts
//! what transactions were under way, and only then lets anyone read. Closing makes everything durable
//! and leaves a mark that nothing has to be recovered. After a crash at any point in between the next
//! opening finds all that was acknowledged.
//!
//! Nothing is written before there is something to write. A log that was closed is opened and closed
//! again without a change to its directory; the first who makes or deletes a topic, appends or takes a
//! producer id takes the mark away before that.
//!
//! Lock order: catalogue, then consumer groups, then topics; none is held while a ticket is awaited.

mod alter;
#[cfg(test)]
mod announced_cut_tests;
mod background;
#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod failed_sync_tests;
#[cfg(test)]
mod follower;
mod holder;
#[cfg(test)]
mod internal_topics_tests;
mod last_handle;
#[cfg(test)]
mod many_partitions_tests;
mod open;
#[cfg(test)]
mod open_files_tests;
mod options;
pub(crate) mod repair;
#[cfg(test)]
mod retention_tests;
mod retreat;
#[cfg(test)]
pub(crate) mod tests;
mod topics;
#[cfg(test)]
pub(crate) mod unsynced_tests;
#[cfg(test)]
pub(crate) mod untouched_tests;
#[cfg(test)]
pub(crate) mod upkeep_tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::alarms::Alarm;
use crate::clock::Clock;
use crate::driver::Steps;
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::{Flush, FlushTarget};
use crate::group::{GroupCoordinator, TopicList};
use crate::partition::{Durability, METADATA_FILE_NAME, Partition, PartitionContext, read_topic_id};
use crate::progress::Progress;
use crate::record::{ProducerId, TopicPartition};
use crate::recovery::RecoveryReport;
use crate::recovery_point::{RecoveryPointFile, RecoveryPoints};
use crate::spawn::Drive;
use crate::storage::{Storage, StorageLock, SyncPurpose, SyncReason};
use crate::ticket::FlushTicket;
use crate::topic::{Topic, directory_name};
use crate::transaction::{Coordinator, TransactionOptions, TransactionalProducer};

use background::{Background, Core};
use last_handle::LastHandle;
use topics::{Catalogued, Topics};

pub(crate) use topics::Adoption;

pub use options::LogOptions;
pub use repair::{Repair, RepairReport, TouchedTransaction, TransactionFate};

/// An open log. Clones are the same log; it closes when the last one goes.
#[derive(Clone)]
pub struct Log {
    inner: Arc<LastHandle>,
}

struct Inner {
    directory: PathBuf,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    durability: Durability,
    /// Seeds the ids of topics.
    seed: u64,
    context: PartitionContext,
    is_read_only: bool,
    is_closed: AtomicBool,
    catalogued: Mutex<Catalogued>,
    topics: RwLock<Topics>,
    /// How often topics were made, changed or deleted.
    topics_version: AtomicU64,
    reports: Vec<RecoveryReport>,
    core: Arc<Core>,
    background: Mutex<Background>,
    /// Given up last of all.
    lock: Mutex<Option<Box<dyn StorageLock>>>,
    /// Its directory and those above it that were missing when it was opened.
    made: Vec<PathBuf>,
}

impl Log {
    /// Opens the log in `directory`, which is made where missing, and recovers it. One that was closed
    /// cleanly is left as it is until something is written to it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no log and [`LogOptions::begins`] says to begin none;
    /// [`ErrorKind::Locked`], naming the holder, if a process has it open; [`ErrorKind::Corrupt`] if
    /// what was synced is not there any more; [`ErrorKind::Unsupported`] if a later version wrote it, or an earlier
    /// build whose transactions do not say whether they were synced, and some of that is lost; those of the operating
    /// system. What is corrupt is left as it is.
    pub fn open(directory: impl AsRef<Path>, options: LogOptions) -> Result<Self> {
        open::open(directory.as_ref(), options)
    }

    /// Opens a log to read it, also while another process has it open. Nothing is locked or written;
    /// [`Self::refresh`] takes in what was appended since. Everything that would write answers
    /// [`ErrorKind::Closed`].
    ///
    /// Of topics that are not synced, it holds what opening the log would keep. Where a machine cannot tell one start
    /// from the next, or a sync has failed, that is what was there at the last consistent cut, however long the other
    /// process goes on: refreshing takes in one cut after the other.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no log; [`ErrorKind::Retry`] while a partition is being cut off, or its
    /// segments are replaced or removed faster than they are read, which passes: let some time go by before the
    /// next try; and those of [`Self::open`].
    pub fn open_read_only(directory: impl AsRef<Path>, options: LogOptions) -> Result<Self> {
        open::open_read_only(directory.as_ref(), options)
    }

    /// Cuts a damaged partition of the log in `directory` off before its damage, so that the log opens
    /// again. What is cut off is kept in a folder of the partition's directory. Transactions of which
    /// records are lost are aborted there when the log is opened next. Nobody may have the log open.
    ///
    /// A cut that was decided is carried out, whatever comes between: by the next call, which reports it if
    /// it is the same, or by opening the log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no log or no such partition; [`ErrorKind::Locked`], naming the
    /// holder; [`ErrorKind::Invalid`] for an offset outside of the partition; [`ErrorKind::Corrupt`] if
    /// something before it is damaged too, and then nothing is changed; [`ErrorKind::Full`] where there is no
    /// room: for a copy of the file that is cut, and then the partition is as it was, or later on, when the cut
    /// is decided (a note of it, `cut`, is in the partition's directory); [`ErrorKind::Retry`] if it is only to
    /// be said what would be done while another cut is under way; those of the operating system, after which
    /// the same call can be made again.
    pub fn repair(
        directory: impl AsRef<Path>,
        options: &LogOptions,
        repair: &Repair,
    ) -> Result<RepairReport> {
        repair::repair(directory.as_ref(), options, repair)
    }

    /// Takes in what another process has appended, and the topics it made, since this log was opened
    /// read-only or refreshed. Does nothing otherwise.
    ///
    /// # Errors
    /// Those of [`Partition::refresh`] and of [`Self::open_read_only`].
    pub fn refresh(&self) -> Result<()> {
        if self.inner.is_read_only { open::refresh(&self.inner) } else { Ok(()) }
    }

    /// Where the log is.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The clock that everything of this log goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Who moves background work along.
    pub fn drive(&self) -> Drive {
        self.inner.core.driver.drive()
    }

    /// Moves whenever something may have become readable.
    pub fn progress(&self) -> &Progress {
        &self.inner.context.progress
    }

    /// What topics have that do not name a durability.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// Whether it was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.inner.is_read_only
    }

    /// What recovering each partition did, in the order of topics and partitions.
    pub fn recovery_report(&self) -> &[RecoveryReport] {
        &self.inner.reports
    }

    /// Asks for what `partitions` hold now to be made durable. The syncs of all of them run at once and
    /// serve everyone else who asked.
    #[track_caller]
    pub fn flush(&self, partitions: &[Arc<Partition>], purpose: SyncPurpose) -> FlushTicket {
        self.inner.core.flusher.request(flush_targets(partitions, SyncReason::of(purpose)))
    }

    /// The same from a thread of its own, on which the syncs are begun if it has time.
    #[track_caller]
    pub(crate) fn flush_from_thread(
        &self,
        partitions: &[Arc<Partition>],
        purpose: SyncPurpose,
        has_time: bool,
    ) -> FlushTicket {
        let (flusher, targets) =
            (&self.inner.core.flusher, flush_targets(partitions, SyncReason::of(purpose)));
        if has_time { flusher.begin(targets) } else { flusher.request(targets) }
    }

    /// Does what background work can be done now: group commits, transactions. Says whether there was
    /// any. Needed under [`Drive::Manual`], harmless otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the log is closed.
    pub fn step(&self) -> Result<bool> {
        self.inner.check_not_closed()?;
        Ok(self.inner.core.step())
    }

    /// A producer id that nobody has had before, also after a crash.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; those of the operating system, a range of ids being reserved now and then.
    pub fn next_producer_id(&self) -> Result<ProducerId> {
        self.inner.next_producer_id()
    }

    /// Takes a transactional id. Whoever had it before is fenced off, and the transaction that it left is
    /// finished if it was decided and aborted otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an empty id or one of more than 32,767 bytes, and for a timeout that is
    /// longer than [`LogOptions::transaction_timeout_max`]; [`ErrorKind::Poisoned`] if what the last holder did has
    /// an unknown outcome, which opening the log again settles; [`ErrorKind::Closed`]; those of the operating system.
    pub fn transactional(&self, transactional_id: &str) -> Result<TransactionalProducer> {
        self.transactional_with(transactional_id, TransactionOptions::default())
    }

    /// Takes a transactional id for transactions of this kind; see [`Self::transactional`].
    ///
    /// # Errors
    /// Those of [`Self::transactional`].
    pub fn transactional_with(
        &self,
        transactional_id: &str,
        options: TransactionOptions,
    ) -> Result<TransactionalProducer> {
        self.inner.check_writable()?;
        TransactionalProducer::open(self, transactional_id, options)
    }

    /// Checks that something can be written.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] for a log that was opened read-only or is closed.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.inner.check_writable()
    }

    /// Checks that it can be read, for those to whom a log that is closed must say so.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] for a log that is closed.
    pub(crate) fn check_not_closed(&self) -> Result<()> {
        self.inner.check_not_closed()
    }

    /// Checks, in a log that was opened read-only, that nobody has deleted the topic of `partition` since the last
    /// refresh. Files of it that are open could be read all the same.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if its directory is gone, or that of another topic of the same name.
    pub(crate) fn check_not_deleted_elsewhere(&self, partition: &Partition) -> Result<()> {
        if !self.inner.is_read_only {
            return Ok(());
        }
        let TopicPartition { topic, partition: number } = partition.name();
        let directory = self.inner.directory.join(directory_name(topic, *number));
        let is_gone = match read_topic_id(&*self.inner.storage, &directory.join(METADATA_FILE_NAME)) {
            Ok(id) => id != partition.topic_id(),
            // Of anything else that is wrong with it, reading tells.
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if is_gone {
            let what = format!("topic {topic}, partition {number}: the topic was deleted");
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        Ok(())
    }

    /// An alarm that wakes a task in time.
    pub(crate) fn alarm(&self) -> Alarm {
        self.inner.core.alarms.alarm()
    }

    pub(crate) fn group_coordinator(&self) -> &GroupCoordinator {
        &self.inner.core.groups
    }

    /// Moves whenever [`Self::topic_list`] does.
    pub(crate) fn topics_version(&self) -> u64 {
        self.inner.topics_version.load(Ordering::Acquire)
    }

    /// All topics, each with its id and how many partitions it has.
    pub(crate) fn topic_list(&self) -> TopicList {
        let entry = |topic: &Topic| (topic.name().to_owned(), (topic.id(), topic.config().partitions));
        self.inner.topics.read().values().map(entry).collect()
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.inner.storage
    }

    pub(crate) fn coordinator(&self) -> &Coordinator {
        &self.inner.core.coordinator
    }

    /// Finishes what is under way, aborts transactions that are open, makes everything durable and gives
    /// the directory up. Appends are refused from then on, and consumers give no more records: those that wait for
    /// some are told too. Where nothing was written nothing is.
    /// The same happens, without an answer, when the last handle is dropped. Closing twice does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`] and those of the operating system: what was acknowledged is durable all
    /// the same, and the next opening recovers.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

impl Inner {
    fn check_not_closed(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            let what = format!("the log in {} is closed", self.directory.display());
            return Err(Error::new(ErrorKind::Closed, what));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        if self.is_read_only {
            let what = format!("the log in {} was opened read-only", self.directory.display());
            return Err(Error::new(ErrorKind::Closed, what));
        }
        self.check_not_closed()
    }

    fn close(&self) -> Result<()> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // Whoever waits for records hears that none come any more.
        self.context.progress.raise();
        // Whoever is making or deleting a topic gets done with it; from here on nobody begins to.
        drop(self.catalogued.lock());
        let outcome = if self.is_read_only { Ok(()) } else { self.shut_down() };
        self.background.lock().stop();
        *self.lock.lock() = None;
        outcome
    }

    /// Writes the recovery points anew, durably.
    fn create_recovery_points(&self, points: RecoveryPoints) -> Result<RecoveryPointFile> {
        let synced = self.context.synced_points.clone();
        RecoveryPointFile::create(self.storage.clone(), &self.directory, points, synced)
    }

    fn shut_down(&self) -> Result<()> {
        self.core.groups.close();
        let ended = self.core.coordinator.close();
        let topics: Vec<Topic> = self.topics.read().values().cloned().collect();
        let partitions: Vec<_> = topics.iter().flat_map(Topic::partitions).cloned().collect();
        let cut = self.cut_last(&partitions);
        // All of them, whatever fails before: the directory may be somebody else's next.
        partitions.iter().map(|partition| partition.close()).fold(ended.and(cut), Result::and)?;
        if self.context.clean_shutdown.is_untouched() || !self.catalogued.lock().is_begun {
            return Ok(());
        }
        self.core.coordinator.write_snapshot()?;
        let points = recovery_points(&partitions);
        // Nobody else writes that file from here on.
        self.core.flusher.hold_recovery_points();
        self.create_recovery_points(points)?;
        self.context.unsynced.take_away()?;
        self.context.clean_shutdown.leave()
    }
}

impl Inner {
    /// Makes durable what stands on each other, together, before partitions become durable as they are closed, one by
    /// one. Where that fails none of it counts, whatever they come to.
    fn cut_last(&self, partitions: &[Arc<Partition>]) -> Result<()> {
        let is_left = |partition: &&Arc<Partition>| {
            partition.is_entangled() && partition.durable() < partition.offsets().end
        };
        let target = |partition: &Arc<Partition>| FlushTarget {
            target: partition.clone(),
            reason: SyncReason::of(SyncPurpose::Records),
        };
        let flushed = self.core.flusher.request(partitions.iter().filter(is_left).map(target)).wait();
        if flushed.is_err() {
            self.core.flusher.hold_recovery_points();
        }
        flushed
    }
}

fn flush_targets(partitions: &[Arc<Partition>], reason: SyncReason) -> impl Iterator<Item = FlushTarget> {
    partitions.iter().map(move |partition| FlushTarget { target: partition.clone(), reason })
}

/// Up to where these partitions were synced.
fn recovery_points(partitions: &[Arc<Partition>]) -> RecoveryPoints {
    partitions.iter().map(|partition| (partition.key(), partition.durable())).collect()
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whatever was being done is cut short, as by a crash; the next opening recovers.
            self.is_closed.store(true, Ordering::Release);
        }
        if let Err(error) = self.close() {
            tracing::error!(directory = %self.directory.display(), %error, "the log was not closed cleanly");
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("directory", &self.inner.directory).finish_non_exhaustive()
    }
}
