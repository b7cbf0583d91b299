//! Where a partition begins: records before the start are gone for readers at once, their segments when
//! somebody removes them.

use std::sync::atomic::Ordering;

use super::Partition;
use super::hold::{Hold, Holder};
use super::marks::Marks;
use super::replace::remove_segment;
use super::writer::{FILES_TO_ROLL, Mode};
use crate::error::{ErrorKind, Result};
use crate::record::Offset;

impl Partition {
    /// Deletes the records before `to`: it is the partition's start from here on, durably. Deleting what
    /// is deleted already does nothing. Segments that lie before the start wholly are removed later, in
    /// the background. Returns where the partition begins now.
    ///
    /// Only what is durable and stable can be deleted: whether the records of an open transaction count
    /// is not known yet. Kafka deletes up to the high watermark. Nor is anything that is [pinned](Self::pin).
    ///
    /// # Errors
    /// [`ErrorKind::OffsetOutOfRange`] for an offset behind the high watermark; [`ErrorKind::Retry`] for
    /// one behind what is pinned, the last stable offset, what is written down of the producers, or what is durable where
    /// readers see more than that: it says which, and up to where records can be deleted now; [`ErrorKind::Closed`],
    /// [`ErrorKind::Poisoned`]; those of the operating system, after which the start may be either when
    /// the partition is opened again.
    pub fn delete_records(&self, to: Offset) -> Result<Offset> {
        self.check_open()?;
        let offsets = self.offsets();
        if to > offsets.high_watermark {
            return Err(self.out_of_range(to, offsets));
        }
        let known = self.record_producers_before(to, offsets.end)?;
        let mut marks = self.marks.lock();
        self.check_open()?;
        let offsets = self.offsets();
        let hold = self.hold_before(offsets.durable);
        let hold = known.filter(|known| known.from < hold.from).unwrap_or(hold);
        if to > hold.from {
            let from = hold.from;
            let what = format!("records can be deleted up to offset {from} now, not up to {to}: {hold}");
            return Err(self.site.error(ErrorKind::Retry, what));
        }
        if to > offsets.start {
            self.raise_start(&mut marks, to)?;
        }
        Ok(self.offsets().start)
    }

    /// Recovery passes over the segments before the start, whether or not they are removed by then. So what it will know
    /// of the producers is to be written down behind them: where `to` is the `end`, at the end, as a segment may begin
    /// there. What holds them where it is not.
    fn record_producers_before(&self, to: Offset, end: Offset) -> Result<Option<Hold>> {
        let segments = self.segments.load();
        let base = || segments.iter().rfind(|segment| segment.base() <= to).map(|segment| segment.base());
        let behind = if to == end { Some(to) } else { base() };
        let Some(behind) = behind.filter(|behind| *behind > segments[0].base()) else { return Ok(None) };
        if self.snapshotted() < behind {
            self.snapshot_at_rest()?;
        }
        let from = self.record_snapshot()?;
        Ok((from < behind).then_some(Hold { from, holder: Holder::Producers }))
    }

    fn raise_start(&self, marks: &mut Marks, to: Offset) -> Result<()> {
        let changed = Marks { start: to, ..marks.clone() };
        self.put_marks(marks, changed)?;
        self.bounds.raise_start(to);
        Ok(())
    }

    /// Removes the segments before the one with the base offset `base`, which becomes the start if that
    /// lies before it. The files of a segment go when the last one who reads it is done.
    ///
    /// # Errors
    /// Those of [`Self::delete_records`].
    pub(crate) fn remove_segments_before(&self, base: Offset) -> Result<()> {
        self.record_snapshot()?;
        let mut marks = self.marks.lock();
        self.check_open()?;
        self.check_not_pinned(base)?;
        if self.offsets().start < base {
            self.raise_start(&mut marks, base)?;
        }
        let removed: Vec<Offset> = {
            let mut writer = self.writer.lock();
            let tail = &mut writer.tail;
            let count = tail.segments.partition_point(|segment| segment.base() < base);
            let removed = tail.segments.drain(..count.min(tail.segments.len() - 1));
            let removed = removed.map(|segment| segment.base()).collect();
            self.segments.store(tail.segments.clone());
            removed
        };
        // Who has the file of one in hand reads on; nobody else finds it any more.
        let outcome = removed.iter().try_for_each(|base| remove_segment(&self.site, *base));
        // Those that stay are removed when the partition is opened again.
        outcome.map_err(|error| self.site.io("remove segments from", &self.site.directory, error))
    }

    /// Seals the active segment, if it holds anything, so that compaction and retention may take it.
    ///
    /// # Errors
    /// Those of [`Self::append`].
    pub(crate) fn seal_active(&self) -> Result<()> {
        // Where a sync begins before the writer is locked again it is made up for when somebody looks at what is held.
        self.snapshot_at_rest()?;
        let mut writer = self.lock_writer_with_room(|_| FILES_TO_ROLL);
        self.check_writable(&writer)?;
        if writer.tail.active.position() == 0 {
            return Ok(());
        }
        self.site.begin_writing()?;
        writer.is_as_closed = false;
        self.roll(&mut writer).map_err(|error| self.fail_write(error))
    }

    /// The offset at or behind which compaction keeps tombstones; none to begin with.
    pub fn tombstone_floor(&self) -> Option<Offset> {
        self.marks.lock().tombstone_floor
    }

    /// Says at or behind which offset compaction keeps tombstones, however old they are: the oldest
    /// position that somebody may read the topic on from and must learn of every deletion. It outlives the
    /// process: the first floor is durable when this returns, a higher one at some later time.
    ///
    /// Returns the floor that holds. That is the one there was before where that is higher, since tombstones
    /// before it may be gone: who is at an offset below it has to read the topic from its start.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`], [`ErrorKind::Poisoned`]; those of the operating system.
    pub fn raise_tombstone_floor(&self, floor: Offset) -> Result<Offset> {
        let mut marks = self.marks.lock();
        self.check_open()?;
        match marks.tombstone_floor {
            Some(before) => {
                let floor = floor.max(before);
                marks.tombstone_floor = Some(floor);
                Ok(floor)
            }
            None => {
                let changed = Marks { tombstone_floor: Some(floor), ..marks.clone() };
                self.put_marks(&mut marks, changed)?;
                Ok(floor)
            }
        }
    }

    /// No record is shown any more, and nothing is written or synced: the topic is deleted. Readers in the
    /// middle of a fetch are not waited for; what they hold of the files goes with the last of them.
    pub(crate) fn delete(&self) {
        self.is_deleted.store(true, Ordering::Release);
        // Whoever replaces segments gets done with the step that is under way.
        let _marks = self.marks.lock();
        let mut writer = self.writer.lock();
        writer.mode = Mode::Closed;
        // Nobody waits for what is deleted to be synced.
        self.bounds.publish_durable(writer.tail.end);
        writer.give_up_unsynced();
        writer.has_new_names = false;
        writer.tail.segments.clear();
        self.segments.store(Vec::new());
        drop(writer);
        self.site.context.progress.raise();
    }

    /// # Errors
    /// [`ErrorKind::NotFound`] once the topic is deleted.
    pub(super) fn check_not_deleted(&self) -> Result<()> {
        if self.is_deleted.load(Ordering::Acquire) {
            return Err(self.site.error(ErrorKind::NotFound, "the topic was deleted"));
        }
        Ok(())
    }
}
