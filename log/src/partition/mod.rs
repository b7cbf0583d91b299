//! A partition: records in the order in which they were appended, in a directory of segments.
//!
//! One writer at a time, behind a mutex: it checks idempotence, writes the batch with one `pwrite`,
//! takes note of it and publishes the new end. Readers take no lock while they read: they load the list
//! of segments and the published offsets, and read by position.
//!
//! What is appended is durable once a group commit that began later is done ([`crate::flusher::Flush`]).
//! After a write or a sync that failed the partition is poisoned: it refuses appends and syncs until it
//! is opened again, and is read on. Where it was a write, consistent cuts sync what was there before all the same:
//! other partitions are not held up.
//!
//! Segments are replaced by compacted ones and removed by one hand at a time, which holds the marks while
//! it takes a step.
//!
//! Lock order: marks, then the writer.

mod bounds;
mod committed;
pub(crate) mod failed_sync;
pub(crate) mod hold;
mod lookup;
pub(crate) mod marks;
mod metadata;
mod reader;
pub(crate) mod replace;
mod segment_list;
pub(crate) mod shorten;
mod site;
mod snapshots;
mod sync;
mod tail;
mod trim;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::files::Listing;
use crate::producer_state::OpenTransaction;
use crate::record::{Offset, TopicId, TopicPartition};
use crate::recovery::{self, RecoveryBorder, RecoveryReport};
use crate::segment::Segment;
use crate::storage::SyncPurpose;

use bounds::Bounds;
use hold::Pins;
use marks::{Cuts, Marks};
use reader::ReadHints;
use segment_list::SegmentList;
use sync::Submitted;
use writer::{Mode, Writer};

pub use bounds::{Isolation, PartitionOffsets};
pub use committed::CommittedBatches;
pub use hold::Pin;
pub use lookup::{FoundOffset, OffsetSpec};
pub(crate) use metadata::{FILE_NAME as METADATA_FILE_NAME, read_topic_id, write as write_metadata};
pub use reader::Fetched;
pub(crate) use site::PRODUCER_EXPIRATION;
pub use site::{Durability, PartitionConfig, PartitionContext, PartitionSite};
pub(crate) use tail::{LastBatch, Tail};
pub use writer::Appended;

/// How much a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSize {
    /// Files of batches.
    pub segments: usize,
    /// Bytes of batches in them.
    pub bytes: u64,
}

/// An open partition. Share it in an `Arc`.
pub struct Partition {
    /// Itself, for whoever flushes it.
    this: Weak<Self>,
    site: PartitionSite,
    bounds: Bounds,
    segments: SegmentList,
    hints: Mutex<ReadHints>,
    /// How the partition keeps its records now; the site says how it was opened.
    config: ArcSwap<PartitionConfig>,
    marks: Mutex<Marks>,
    pins: Pins,
    is_deleted: AtomicBool,
    /// What failed, once something has.
    poisoned: OnceLock<String>,
    /// Whether a sync has failed, or what it would have to cover could not be written: there is none any more.
    is_unsyncable: AtomicBool,
    /// The syncs of it that are under way.
    submitted: Mutex<Submitted>,
    /// Whether [`UnsyncedFiles`](crate::unsynced_files::UnsyncedFiles) knows that it may have files to close.
    is_noted_holder: AtomicBool,
    writer: Mutex<Writer>,
}

impl Partition {
    /// Makes the directory of a new partition and opens it. Everything in it is synced; the directory's
    /// own name is the caller's to sync.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if there is a partition already; those of the operating system.
    pub fn create(site: PartitionSite) -> Result<Arc<Self>> {
        let storage = site.storage().clone();
        let directory = site.directory.clone();
        let io = |error| site.io("make", &directory, error);
        storage.create_dir_all(&directory).map_err(io)?;
        if !Listing::read(&*storage, &directory).map_err(io)?.segments.is_empty() {
            let what = format!("{} holds a partition already", directory.display());
            return Err(site.error(ErrorKind::AlreadyExists, what));
        }
        metadata::create(&site)?;
        if site.config.durability != Durability::Sync {
            site.context.unsynced.leave()?;
        }
        let segment = Segment::create(&site, Offset(0)).map_err(io)?;
        storage.sync_dir(&directory, SyncPurpose::Directory).map_err(io)?;
        let tail = Tail::new(segment, site.config.index_interval_bytes);
        Ok(Self::with_tail(site, tail, Mode::Writing, Marks::default()))
    }

    /// Opens a partition to write to it, and recovers it first. Nothing is changed if this fails with
    /// [`ErrorKind::Corrupt`], but that a replacement of segments which was decided is finished.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if what was synced is not there any more; [`ErrorKind::Invalid`] if the
    /// directory belongs to another topic; those of the operating system.
    pub fn open(site: PartitionSite, border: &RecoveryBorder) -> Result<(Arc<Self>, RecoveryReport)> {
        metadata::check(&site)?;
        let mut marks = Marks::read(&site)?;
        replace::recover(&site, &marks)?;
        let (tail, report) = recovery::recover(&site, border, &mut marks)?;
        // Behind the end no tombstone can be gone, wherever the floor was before a power cut.
        marks.tombstone_floor = marks.tombstone_floor.map(|floor| floor.min(tail.end));
        Ok((Self::with_tail(site, tail, Mode::Writing, marks), report))
    }

    /// Opens a partition to read it, while another process may be writing to it: nothing is written. A
    /// torn tail at or behind the recovery point is the end; see [`Self::refresh`].
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_read_only(site: PartitionSite, border: &RecoveryBorder) -> Result<Arc<Self>> {
        metadata::check(&site)?;
        let (tail, marks) = recovery::read(&site, border)?;
        Ok(Self::with_tail(site, tail, Mode::ReadOnly { recovery_point: border.recovery_point }, marks))
    }

    fn with_tail(site: PartitionSite, tail: Tail, mode: Mode, marks: Marks) -> Arc<Self> {
        let is_read_only = matches!(mode, Mode::ReadOnly { .. });
        let shows_unsynced = is_read_only || site.config.durability != Durability::Sync;
        let start = tail.segments[0].base().max(marks.start);
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            bounds: Bounds::new(start, tail.end, tail.producers.first_unstable(), shows_unsynced),
            segments: SegmentList::new(tail.segments.clone()),
            hints: Mutex::default(),
            config: ArcSwap::from_pointee(site.config.clone()),
            marks: Mutex::new(marks),
            pins: Pins::default(),
            is_deleted: AtomicBool::new(false),
            poisoned: OnceLock::new(),
            is_unsyncable: AtomicBool::new(false),
            submitted: Mutex::default(),
            is_noted_holder: AtomicBool::new(false),
            writer: Mutex::new(Writer::new(tail, mode)),
            site,
        })
    }

    /// Reads on in a partition that was opened read-only: takes in what was appended since.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]; [`ErrorKind::Retry`] if the partition was cut back since, and is to be
    /// opened again, see [`Self::rewritten_since`]; those of the operating system.
    pub fn refresh(&self) -> Result<PartitionOffsets> {
        self.refresh_behind(None)
    }

    /// Does the same where everything before `synced` was synced by now: what may be lost begins there.
    pub(crate) fn refresh_behind(&self, synced: Option<Offset>) -> Result<PartitionOffsets> {
        if !matches!(self.writer.lock().mode, Mode::ReadOnly { .. }) {
            // Its segments may be being replaced: whoever reads does not wait for that.
            return Ok(self.offsets());
        }
        let mut marks = self.marks.lock();
        let mut writer = self.writer.lock();
        let Mode::ReadOnly { recovery_point } = &mut writer.mode else { return Ok(self.offsets()) };
        *recovery_point = synced.max(*recovery_point);
        let recovery_point = *recovery_point;
        let tail = &mut writer.tail;
        recovery::read_on(&self.site, tail, &mut marks, recovery_point)?;
        self.bounds.raise_start(tail.segments[0].base().max(marks.start));
        self.segments.store(tail.segments.clone());
        self.bounds.publish(tail.end, tail.producers.first_unstable());
        self.bounds.publish_durable(tail.end);
        self.site.context.progress.raise();
        Ok(self.offsets())
    }

    /// From which offset on other records may be here than in `before`, an earlier handle of the same
    /// partition: it was cut off there since, by [`crate::Log::repair`], or by recovery after a sync had failed. None
    /// if it was not.
    pub fn rewritten_since(&self, before: &Self) -> Option<Offset> {
        let known = before.marks.lock().cuts;
        Cuts::since(known, self.marks.lock().cuts)
    }

    /// Topic and partition.
    pub fn name(&self) -> &TopicPartition {
        &self.site.name
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.site.topic_id
    }

    /// How the partition keeps its records.
    pub fn config(&self) -> Arc<PartitionConfig> {
        self.config.load_full()
    }

    /// Changes how the partition keeps its records from now on. Durability and the intervals of indexes
    /// and snapshots stay what they were when it was opened.
    pub(crate) fn set_config(&self, config: PartitionConfig) {
        self.config.store(Arc::new(config));
    }

    /// Where the partition begins and ends.
    pub fn offsets(&self) -> PartitionOffsets {
        self.bounds.load()
    }

    /// How much it holds, without its indexes.
    pub fn size(&self) -> PartitionSize {
        let segments = self.segments.load();
        let bytes = segments.iter().map(|segment| segment.bytes()).sum();
        PartitionSize { segments: segments.len(), bytes }
    }

    /// Which segments readers find now. Nobody is waited for, as where segments are being replaced.
    pub(crate) fn segment_ids(&self) -> BTreeSet<u64> {
        self.segments.load().iter().map(|segment| segment.id()).collect()
    }

    /// The transactions that have records here and no marker, in the order in which they began.
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.writer.lock().tail.producers.open_transactions()
    }

    /// Whether a write or a sync has failed, so that the partition has to be opened again.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.get().is_some()
    }

    /// Refuses every write from here on, because of `error`.
    fn poison(&self, error: Error) -> Error {
        self.set_poisoned(error.to_string());
        error
    }

    fn set_poisoned(&self, cause: String) {
        if let Ok(()) = self.poisoned.set(cause.clone()) {
            tracing::error!(partition = %self.site.name, cause, "writes are refused until the partition is opened again");
        }
    }

    /// Refuses every sync too from here on.
    fn set_unsyncable(&self) {
        self.is_unsyncable.store(true, Ordering::Release);
    }

    fn check_syncable(&self) -> Result<()> {
        if self.is_unsyncable.load(Ordering::Acquire) { self.check_not_poisoned() } else { Ok(()) }
    }

    fn check_not_poisoned(&self) -> Result<()> {
        match self.poisoned.get() {
            None => Ok(()),
            Some(cause) => {
                let what = format!("refuses writes until it is opened again, after: {cause}");
                Err(self.site.error(ErrorKind::Poisoned, what))
            }
        }
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("name", &self.site.name)
            .field("offsets", &self.offsets())
            .finish_non_exhaustive()
    }
}
