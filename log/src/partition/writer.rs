//! Appending: one writer, one `pwrite` for each batch.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::snapshots::{FILES_OF_SNAPSHOT, has_snapshot_at_roll};
use super::{Durability, Partition, Tail, replace};
use crate::batch::{BatchHeader, ControlRecord, MarkerKind, SealedBatch, TimestampType, marker};
use crate::error::{Error, ErrorKind, Result};
use crate::files::FileKind;
use crate::producer_state::{Refusal, Registration, Verdict};
use crate::record::{Offset, ProducerEpoch, ProducerId};
use crate::segment::Segment;
use crate::storage::{SyncPurpose, SyncReason};
use crate::unsynced_files::{Room, UnsyncedFile, UnsyncedFiles};

/// The files that are written when a segment is sealed, and the next segment.
pub(super) const FILES_TO_ROLL: usize = FILES_OF_SNAPSHOT + 1;

/// What a handle may do.
///
/// ```text
///   Writing -- close --> Closed        ReadOnly
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Writing,
    ReadOnly { recovery_point: Option<Offset> },
    Closed,
}

/// What only the writer touches.
pub(super) struct Writer {
    pub(super) mode: Mode,
    pub(super) tail: Tail,
    /// The files of sealed segments that are not known to be synced, and where each ends.
    pub(super) sealed: Vec<(Offset, UnsyncedFile)>,
    /// Files other than segments that were written since the last sync began, and what their sync is for.
    pub(super) unsynced: Vec<(UnsyncedFile, SyncReason)>,
    /// Room for the files that the write under way opens.
    pub(super) room: Room,
    /// Whether names were made or removed since the last sync began.
    pub(super) has_new_names: bool,
    /// The end of the log when the last sync began.
    pub(super) sync_begun: Offset,
    /// Whether the directory is as closing would leave it: nothing was written since it was opened.
    pub(super) is_as_closed: bool,
    /// Whether the flusher was asked for a flush that has not begun.
    pub(super) is_flush_requested: bool,
}

impl Writer {
    pub(super) fn new(tail: Tail, mode: Mode) -> Self {
        let (sync_begun, is_as_closed) = (tail.end, tail.is_as_closed);
        Self {
            mode,
            tail,
            sealed: Vec::new(),
            unsynced: Vec::new(),
            room: Room::default(),
            has_new_names: false,
            sync_begun,
            is_as_closed,
            is_flush_requested: false,
        }
    }
}

impl Writer {
    /// Everything before `upto` is synced: files that hold nothing else may be closed.
    pub(super) fn note_synced(&mut self, upto: Offset) {
        self.sealed.retain(|(end, _)| *end > upto);
        if self.tail.end <= upto {
            self.tail.active.note_synced();
        }
    }

    /// Closes all that is not synced: nobody will sync it any more.
    pub(super) fn give_up_unsynced(&mut self) {
        self.sealed.clear();
        self.unsynced.clear();
        self.tail.active.note_synced();
    }

    /// Whether something is open that is not synced.
    pub(super) fn holds_unsynced(&self) -> bool {
        !self.sealed.is_empty() || !self.unsynced.is_empty() || self.tail.active.unsynced().is_some()
    }

    /// Hands over the files of segments that are not synced, to who sees to that, and those that were written beside.
    pub(super) fn take_unsynced(&mut self) -> Vec<UnsyncedFile> {
        let sealed = self.sealed.drain(..).map(|(_, file)| file);
        let beside = self.unsynced.drain(..).map(|(file, _)| file);
        sealed.chain(beside).chain(self.tail.active.take_unsynced()).collect()
    }
}

/// The writer, with room for the files that it is about to open. What of that is not needed is given back when it is
/// let go.
pub(super) struct WriterWithRoom<'a> {
    partition: &'a Partition,
    writer: MutexGuard<'a, Writer>,
}

impl Deref for WriterWithRoom<'_> {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        &self.writer
    }
}

impl DerefMut for WriterWithRoom<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

impl Drop for WriterWithRoom<'_> {
    fn drop(&mut self) {
        self.writer.room = Room::default();
        if self.writer.holds_unsynced() {
            self.partition.note_holder();
        }
    }
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// Whether it was there already: the producer repeated it.
    pub duplicate: bool,
}

impl Partition {
    /// Appends a batch. It is durable once a sync that begins later is done; readers see it as soon as
    /// the partition's durability allows.
    ///
    /// Where the topic's records carry the time of the append, the batch gets it.
    ///
    /// A batch with a producer's stamp is checked against what that producer wrote before: one of its
    /// last five batches is answered with its offsets and not appended again. One of a transaction is taken
    /// where that transaction has written before; its first one goes through the handle that opened it,
    /// [`crate::TransactionalProducer`], since nobody would end the transaction here otherwise (KIP-890).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a batch that is too large, empty, or a marker, and for one with a record
    /// without a key where the topic is compacted;
    /// [`ErrorKind::OutOfOrderSequence`] and [`ErrorKind::Fenced`] by the producer's stamp;
    /// [`ErrorKind::TransactionState`] where the transaction of the batch is not open here, or the
    /// batch is outside of the open one; [`ErrorKind::Poisoned`] and [`ErrorKind::Closed`]; those of the
    /// operating system, which poison the partition, but for [`ErrorKind::TooManyFiles`].
    pub fn append(&self, batch: SealedBatch) -> Result<Appended> {
        self.append_registered(batch, Registration::Partition)
    }

    /// Appends a batch of a transaction of which whoever calls knows that it writes to this partition, and will
    /// [end](Self::append_marker) it here: the coordinator, and tests of what is in the files.
    ///
    /// # Errors
    /// Those of [`Self::append`]; [`ErrorKind::TransactionState`] where an earlier transaction of the
    /// producer is open.
    #[doc(hidden)]
    pub fn append_to_transaction(&self, batch: SealedBatch) -> Result<Appended> {
        self.append_registered(batch, Registration::Coordinator)
    }

    fn append_registered(&self, mut batch: SealedBatch, registration: Registration) -> Result<Appended> {
        if !self.carries_append_time() {
            // The checksum is computed while others append; with another time it would be another one.
            batch.finish();
        }
        let header = batch.header();
        self.check_acceptable(&header, batch.lacks_key())?;
        let mut writer = self.lock_writer_for(&header);
        self.check_writable(&writer)?;
        match writer.tail.producers.check(&header, registration) {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate { base_offset, last_offset }) => {
                return Ok(Appended { base_offset, last_offset, duplicate: true });
            }
            Err(refusal) => return Err(self.refuse(&header, refusal)),
        }
        let header = self.write(&mut writer, batch, None)?;
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        Ok(Appended { base_offset, last_offset, duplicate: false })
    }

    /// Appends the marker that ends the transaction of exactly this producer id and epoch. `None` if
    /// that transaction is not open here: it has its marker already, or never wrote here.
    ///
    /// A commit marker is appended once the decision is durable: readers of committed records see what
    /// it commits at once, whether or not the marker is synced itself.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`] and [`ErrorKind::Closed`]; those of the operating system, which poison
    /// the partition, but for [`ErrorKind::TooManyFiles`].
    pub fn append_marker(
        &self,
        kind: MarkerKind,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        coordinator_epoch: i32,
    ) -> Result<Option<Offset>> {
        let batch = marker(kind, producer_id, producer_epoch, coordinator_epoch, self.now());
        let mut writer = self.lock_writer_for(&batch.header());
        self.check_writable(&writer)?;
        if !writer.tail.producers.is_open(producer_id, producer_epoch) {
            return Ok(None);
        }
        let control = ControlRecord { kind, coordinator_epoch };
        let header = self.write(&mut writer, batch, Some(control))?;
        if self.site.config.durability != Durability::Sync {
            self.bounds.entangle(header.next_offset());
        }
        Ok(Some(header.base_offset))
    }

    /// What has been appended so far stands on records in other partitions: it is made durable together with them.
    pub(crate) fn entangle(&self) {
        self.bounds.entangle(self.offsets().end);
    }

    /// Makes everything durable, completes the indexes and writes the producers down, so that the
    /// partition opens again without reading its log. Appends are refused from here on. A partition that
    /// nothing was written to is left as it is. Closing twice does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`], and those of the operating system: the partition was not shut down
    /// cleanly then.
    pub fn close(&self) -> Result<()> {
        // Whoever replaces segments gets done with the step that is under way.
        let marks = self.marks.lock();
        {
            let mut writer = self.lock_writer_with_room(|_| FILES_OF_SNAPSHOT);
            if writer.mode != Mode::Writing {
                return Ok(());
            }
            writer.mode = Mode::Closed;
            self.check_not_poisoned()?;
            if marks.replacement.is_some() {
                // Who reads the log only could not, if the replacement was left decided.
                replace::recover(&self.site, &marks).map_err(|error| self.poison(error))?;
            }
            if writer.is_as_closed {
                return Ok(());
            }
            self.write_indexes(&mut writer).map_err(|error| self.poison(error))?;
        }
        // The snapshot says that the indexes below it are synced, so they are synced first.
        self.sync_last()?;
        let mut writer = self.lock_writer_with_room(|_| 1);
        self.write_snapshot(&mut writer).map_err(|error| self.poison(error))?;
        drop(writer);
        self.sync_last()
    }

    fn check_acceptable(&self, header: &BatchHeader, lacks_key: bool) -> Result<()> {
        let config = self.config.load();
        let bytes_max = config.batch_bytes_max;
        let what = if header.is_control {
            "a marker is appended with append_marker".to_owned()
        } else if header.record_count == 0 {
            "a batch without records was to be appended".to_owned()
        } else if header.length > bytes_max {
            format!("a batch of {} bytes was to be appended, {bytes_max} are allowed", header.length)
        } else if lacks_key && config.cleanup.policy.compacts() {
            "a record without a key was to be appended, and the topic is compacted".to_owned()
        } else {
            return Ok(());
        };
        Err(self.site.error(ErrorKind::Invalid, what))
    }

    pub(super) fn check_writable(&self, writer: &Writer) -> Result<()> {
        match writer.mode {
            Mode::Writing => self.check_not_poisoned(),
            Mode::ReadOnly { .. } => Err(self.site.error(ErrorKind::Closed, "was opened read-only")),
            Mode::Closed => {
                let is_deleted = self.check_not_deleted().is_err();
                let what = if is_deleted { "the topic was deleted" } else { "is closed" };
                Err(self.site.error(ErrorKind::Closed, what))
            }
        }
    }

    fn refuse(&self, header: &BatchHeader, refusal: Refusal) -> Error {
        let who = format!("producer {} of epoch {}", header.producer_id, header.producer_epoch);
        let (kind, what) = match refusal {
            Refusal::Fenced { current } if current == header.producer_epoch => {
                (ErrorKind::Fenced, format!("{who}: the transaction of this epoch has ended"))
            }
            Refusal::Fenced { current } => {
                (ErrorKind::Fenced, format!("{who} is fenced: epoch {current} has written here"))
            }
            Refusal::OutOfOrder { expected } => {
                let sequence = header.base_sequence;
                let what = format!("{who} sent sequence {sequence} where {expected} follows");
                (ErrorKind::OutOfOrderSequence, what)
            }
            Refusal::TransactionOpen { epoch } => {
                let what = format!("{who}: the transaction of epoch {epoch} is open here still");
                (ErrorKind::TransactionState, what)
            }
            Refusal::NotTransactional => {
                let what = format!("{who} sent a batch outside of its open transaction");
                (ErrorKind::TransactionState, what)
            }
            Refusal::NotRegistered => {
                let what = format!("{who} has no transaction open here that a batch could belong to");
                (ErrorKind::TransactionState, what)
            }
        };
        self.site.error(kind, what)
    }

    fn carries_append_time(&self) -> bool {
        self.config.load().timestamp_type == TimestampType::LogAppend
    }

    /// The writer, with room for all the files that it opens for a batch of this header. There is room for most batches
    /// without waiting; others wait with no lock held.
    fn lock_writer_for(&self, header: &BatchHeader) -> WriterWithRoom<'_> {
        self.lock_writer_with_room(|writer| self.files_to_open(writer, header))
    }

    /// The writer, with room for as many files as it opens.
    pub(super) fn lock_writer_with_room(
        &self,
        files_to_open: impl Fn(&Writer) -> usize,
    ) -> WriterWithRoom<'_> {
        let mut room = Room::default();
        loop {
            let mut writer = self.writer.lock();
            let files = files_to_open(&writer);
            if room.holds(files) {
                writer.room = room;
                return WriterWithRoom { partition: self, writer };
            }
            drop(writer);
            self.unsynced_files().make_room(&mut room, files);
        }
    }

    /// How many files a batch of this header has opened that are not synced, at most.
    fn files_to_open(&self, writer: &Writer, header: &BatchHeader) -> usize {
        let mut files = 0;
        let mut is_due = false;
        if self.is_full_for(writer, header) {
            files += FILES_TO_ROLL;
            is_due = !has_snapshot_at_roll(writer);
        } else if writer.tail.active.unsynced().is_none() {
            files += 1;
        }
        let bytes_since_snapshot = writer.tail.bytes_since_snapshot + header.length as u64;
        if is_due || bytes_since_snapshot >= self.site.config.snapshot_interval_bytes {
            files += FILES_OF_SNAPSHOT;
        }
        files
    }

    pub(super) fn unsynced_files(&self) -> &Arc<UnsyncedFiles> {
        &self.site.context.unsynced_files
    }

    /// Refuses every write from here on, because of `error`; not where a file could not be opened: nothing was written
    /// to it then, and what was written before that is written once more the next time.
    pub(super) fn fail_write(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::TooManyFiles { error } else { self.poison(error) }
    }

    /// Writes a batch at the end and publishes it. Returns its header as written. Where records carry the
    /// time of their append, so does a marker, as in Kafka; it is read here so that it follows the offsets.
    fn write(
        &self,
        writer: &mut Writer,
        mut batch: SealedBatch,
        control: Option<ControlRecord>,
    ) -> Result<BatchHeader> {
        self.site.begin_writing()?;
        if self.site.config.durability != Durability::Sync {
            self.site.context.unsynced.leave()?;
        }
        writer.is_as_closed = false;
        // There is no other leader: the reign is the first, or the one that the log was imported from.
        batch.place(writer.tail.end, writer.tail.active.leader_epoch);
        if self.carries_append_time() {
            batch.set_log_append_time(self.now());
        }
        let header = batch.header();
        self.write_batch(writer, &header, &mut batch).map_err(|error| self.fail_write(error))?;
        writer.tail.absorb(&header, control);
        self.bounds.publish(writer.tail.end, writer.tail.producers.first_unstable());
        self.site.context.progress.raise();
        self.snapshot_if_due(writer);
        Ok(header)
    }

    /// Writes a batch, in a new segment if the last one is full.
    fn write_batch(&self, writer: &mut Writer, header: &BatchHeader, batch: &mut SealedBatch) -> Result<()> {
        if self.is_full_for(writer, header) {
            self.roll(writer)?;
        }
        let Writer { tail: Tail { active, .. }, room, .. } = writer;
        let position = active.position();
        let keep = |file| room.keep(file, self.unsynced_files());
        let written = active.file_to_write(keep).and_then(|file| file.write_at(position, batch.finish()));
        written.map_err(|error| self.site.io("append to", active.segment.path(), error))
    }

    fn is_full_for(&self, writer: &Writer, header: &BatchHeader) -> bool {
        let segment_bytes = self.config.load().segment_bytes;
        writer.tail.active.is_full_for(header.length, header.last_offset(), segment_bytes)
    }

    /// Sees to it that what is open and not synced can be closed when there is no room for others.
    pub(super) fn note_holder(&self) {
        if !self.is_noted_holder.swap(true, Ordering::AcqRel) {
            self.unsynced_files().note_holder(self.this.clone());
        }
    }

    /// Seals the active segment and begins the next one.
    pub(super) fn roll(&self, writer: &mut Writer) -> Result<()> {
        self.write_indexes(writer)?;
        self.snapshot_at_roll(writer)?;
        let base = writer.tail.end;
        let segment = Segment::create(&self.site, base).map_err(|error| {
            self.site.io("begin segment", &FileKind::Log.path(&self.site.directory, base), error)
        })?;
        writer.sealed.extend(writer.tail.active.take_unsynced().map(|file| (base, file)));
        writer.tail.go_on_in(segment, self.site.config.index_interval_bytes);
        writer.has_new_names = true;
        self.segments.store(writer.tail.segments.clone());
        self.flush_in_background(writer);
        Ok(())
    }

    /// Asks for what was sealed or written down of the producers to be synced, with all before it. Otherwise
    /// nobody would where an append counts without a sync: files would stay open, and recovery would have to
    /// read all of them. Kafka does it for sealed segments.
    pub(super) fn flush_in_background(&self, writer: &mut Writer) {
        if self.site.config.durability == Durability::Sync || writer.is_flush_requested {
            return;
        }
        if let (Some(flusher), Some(target)) = (self.site.context.flusher.upgrade(), self.this.upgrade()) {
            writer.is_flush_requested = true;
            flusher.request_unattended(target, SyncPurpose::Records);
        }
    }
}

impl Partition {
    /// Forgets the producers that have been idle for as long as they are remembered.
    pub(crate) fn expire_producers(&self) {
        let horizon = self.site.producer_horizon();
        self.writer.lock().tail.producers.expire(horizon);
    }
}
