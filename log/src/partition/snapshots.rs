//! Writing the producers down, so that recovery need not read what lies before: together with the indexes, since a
//! snapshot that is believed says that those are synced up to where it stands.
//!
//! Recovery believes a snapshot at or below the recovery point, and none below what compaction has rewritten: that may
//! speak of a transaction whose marker is gone. So nothing is rewritten or removed but what lies before one that it will
//! believe: a crash would have the whole log read otherwise, and a producer forgotten whose batches are gone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::writer::Writer;
use super::{Partition, Tail};
use crate::error::Result;
use crate::files::FileKind;
use crate::flusher::Flush;
use crate::record::Offset;
use crate::segment::Segment;
use crate::storage::{OpenMode, StorageFile, SyncPurpose, SyncReason};
use crate::unsynced_files::UnsyncedFile;

/// How many snapshots are kept that recovery would believe: one more than it needs, since the newest may
/// turn out to be damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// The indexes of a segment, the note of what they hold, and a snapshot of the producers.
pub(super) const FILES_OF_SNAPSHOT: usize = 5;

impl Partition {
    /// Writes the producers down, if it is time to, after a batch is written: no sync that has begun covers
    /// its end. The batch is there whatever comes of it; a failure is told to the next who writes or syncs.
    pub(super) fn snapshot_if_due(&self, writer: &mut Writer) {
        if writer.tail.bytes_since_snapshot < self.site.config.snapshot_interval_bytes {
            return;
        }
        match self.write_indexes(writer).and_then(|()| self.write_snapshot(writer)) {
            Ok(()) => self.flush_in_background(writer),
            Err(error) => drop(self.fail_write(error)),
        }
    }

    /// Writes the producers down where a segment ends, if that can be done; otherwise it is due with the next batch.
    pub(super) fn snapshot_at_roll(&self, writer: &mut Writer) -> Result<()> {
        if has_snapshot_at_roll(writer) {
            return self.write_snapshot(writer);
        }
        writer.tail.bytes_since_snapshot = self.site.config.snapshot_interval_bytes;
        Ok(())
    }

    /// Writes the producers down at an end up to which a sync has begun already, so that none is sure to follow that
    /// would be the snapshot's too; nothing otherwise. As closing does it, the indexes are synced first. Waits for the
    /// disk.
    ///
    /// # Errors
    /// Those of [`Self::append`].
    pub(crate) fn snapshot_at_rest(&self) -> Result<()> {
        // Whoever closes the partition writes the same file.
        let _marks = self.marks.lock();
        let (end, names, indexes, producers) = {
            let mut writer = self.lock_writer_with_room(|_| FILES_OF_SNAPSHOT);
            self.check_writable(&writer)?;
            let end = writer.tail.end;
            if end == writer.tail.segments[0].base() || has_snapshot_at_roll(&writer) {
                return Ok(());
            }
            let names = self.site.storage().open_dir(&self.site.directory);
            let names =
                names.map_err(|error| self.site.io("seal a segment in", &self.site.directory, error))?;
            self.site.begin_writing()?;
            writer.is_as_closed = false;
            let mut indexes = Vec::new();
            // Where the active segment is empty it is the one before that ends here.
            let ends = writer.tail.segments.iter().rfind(|segment| segment.base() < end).cloned();
            let ends = ends.expect("the log does not begin at its end");
            let written = self.write_indexes_to(&mut writer, &ends, |file| indexes.push(file));
            written.map_err(|error| self.fail_write(error))?;
            (end, names, indexes, writer.tail.producers.encode())
        };
        let syncs: Vec<_> = indexes.iter().map(|index| index.file().sync(SyncPurpose::Snapshot)).collect();
        self.await_beside(&syncs)?;
        let path = FileKind::Snapshot.path(&self.site.directory, end);
        // Where it fails nothing is in doubt: what is not whole is not believed.
        let snapshot =
            self.write_new(&path, &producers).map_err(|error| self.site.io("write", &path, error))?;
        let sync = snapshot.sync(SyncPurpose::Snapshot);
        let named = names.sync(SyncPurpose::Directory).map_err(|error| self.sync_error(error));
        self.await_beside(&[sync]).and(named)?;
        let snapshots = &mut self.writer.lock().tail.snapshots;
        if let Err(place) = snapshots.binary_search(&end) {
            snapshots.insert(place, end);
        }
        Ok(())
    }

    /// Before it, what is known of the producers is written down durably; the start of the log where nothing is. Recovery
    /// believes it where that is a recovery point.
    pub(crate) fn snapshotted(&self) -> Offset {
        let durable = self.durable();
        let tail = &self.writer.lock().tail;
        let written = tail.snapshots.iter().rfind(|offset| **offset <= durable).copied();
        let start = || tail.segments.first().map_or(tail.end, |first| first.base());
        written.unwrap_or_else(start)
    }

    /// Has the recovery point written down by which recovery will believe what [`Self::snapshotted`] says, which it
    /// returns. Waits for the disk where it has not been yet.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; [`ErrorKind::Poisoned`]; those of the operating system.
    pub(crate) fn record_snapshot(&self) -> Result<Offset> {
        self.check_open()?;
        let snapshotted = self.snapshotted();
        if let Some(flusher) = self.site.context.flusher.upgrade() {
            flusher.ensure_recorded(self, snapshotted)?;
        }
        Ok(snapshotted)
    }

    /// Completes the active segment's indexes and writes them out.
    pub(super) fn write_indexes(&self, writer: &mut Writer) -> Result<()> {
        let reason = SyncReason::of(SyncPurpose::Snapshot);
        let mut files = Vec::new();
        let segment = writer.tail.active.segment.clone();
        let written = self.write_indexes_to(writer, &segment, |file| files.push((file, reason)));
        writer.unsynced.append(&mut files);
        written
    }

    fn write_indexes_to(
        &self,
        writer: &mut Writer,
        segment: &Segment,
        mut keep: impl FnMut(UnsyncedFile),
    ) -> Result<()> {
        let Writer { tail: Tail { active, end, .. }, room, .. } = writer;
        active.note_time_entry();
        let written = segment.persist_indexes(*end, |file| keep(room.keep(file, self.unsynced_files())));
        writer.has_new_names = true;
        written.map_err(|error| self.site.io("write the indexes of", segment.path(), error))
    }

    /// Writes down what is known of the producers. It is believed once everything below it is durable:
    /// the sync that does that has to cover the indexes too.
    pub(super) fn write_snapshot(&self, writer: &mut Writer) -> Result<()> {
        if !is_there(writer) {
            let path = FileKind::Snapshot.path(&self.site.directory, writer.tail.end);
            let file = self.write_new(&path, &writer.tail.producers.encode());
            let file = file.map_err(|error| self.site.io("write", &path, error))?;
            let kept = writer.room.keep(file, self.unsynced_files());
            writer.unsynced.push((kept, SyncReason::of(SyncPurpose::Snapshot)));
            writer.has_new_names = true;
            writer.tail.snapshots.push(writer.tail.end);
            self.forget_old_snapshots(&mut writer.tail);
        }
        writer.tail.bytes_since_snapshot = 0;
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.site.storage().open(path, OpenMode::Create)?;
        file.write_at(0, bytes)?;
        Ok(file)
    }

    /// Removes the snapshots before the newest ones that recovery will believe, which are those at or below
    /// the recovery point. It does no harm if one comes back or cannot be removed.
    fn forget_old_snapshots(&self, tail: &mut Tail) {
        let Some(point) = self.site.context.synced_points.get(self.site.key()) else { return };
        let believed = tail.snapshots.partition_point(|offset| *offset <= point);
        for offset in tail.snapshots.drain(..believed.saturating_sub(SNAPSHOTS_KEPT)) {
            let path = FileKind::Snapshot.path(&self.site.directory, offset);
            if let Err(error) = self.site.storage().remove_file(&path) {
                tracing::warn!(partition = %self.site.name, file = %path.display(), %error, "an old snapshot stays");
            }
        }
    }
}

/// Whether a snapshot may be taken now: not while the end is what a sync that began already reaches. That
/// one would make the snapshot believed without having covered the indexes.
fn may_snapshot(writer: &Writer) -> bool {
    writer.tail.end > writer.sync_begun
}

/// Whether there is a snapshot at the end, or may be one when a segment begins there.
pub(super) fn has_snapshot_at_roll(writer: &Writer) -> bool {
    may_snapshot(writer) || is_there(writer)
}

fn is_there(writer: &Writer) -> bool {
    writer.tail.snapshots.last() == Some(&writer.tail.end)
}
