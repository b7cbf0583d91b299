//! Making a partition durable: a sync begins, and later it ends.
//!
//! Closing a partition waits for the submission of the flusher that is under way, if there is one: it
//! covers files that nobody syncs again, and of one sync that fails on a file only one of two is told.
//!
//! Lock order: what was submitted, then the writer. The first is held from taking the files to be synced
//! until their syncs can be found, so that whoever closes finds one or the other.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::writer::{Mode, Writer};
use super::{Durability, Partition, failed_sync};
use crate::consistent_cut::stands_on_others;
use crate::error::{Error, Result};
use crate::flusher::{Flush, Submission};
use crate::record::{Offset, PartitionKey};
use crate::storage::{StorageFile, SyncPurpose, SyncTicket};

/// What a sync has to cover.
struct Unsynced {
    files: Vec<(Arc<dyn StorageFile>, SyncPurpose)>,
    has_new_names: bool,
    upto: Offset,
}

/// Group commit. Names are synced where a round is submitted, which waits for the disk; but only a new
/// segment or snapshot has any.
impl Flush for Partition {
    fn key(&self) -> PartitionKey {
        self.site.key()
    }

    /// Submits syncs of everything that was appended so far, also while the partition is being closed. For a cut, also
    /// where a write has failed: what was there before stands as it did.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Poisoned`]; those of the operating system, which poison the partition. A
    /// partition that is read-only or deleted has nothing to sync.
    fn submit(&self, purpose: SyncPurpose) -> Result<Submission> {
        let mut submitted = self.submitted.lock();
        let mut writer = self.writer.lock();
        if matches!(writer.mode, Mode::ReadOnly { .. }) || self.check_not_deleted().is_err() {
            return Ok(Submission { tickets: Vec::new(), upto: self.durable() });
        }
        if purpose != SyncPurpose::Cut {
            self.check_not_poisoned()?;
        }
        let unsynced = self.take_unsynced(&mut writer, purpose)?;
        drop(writer);
        let submission = self.submit_syncs(unsynced)?;
        *submitted = Some(submission.clone());
        Ok(submission)
    }

    fn flushed(&self, upto: Offset) {
        self.bounds.publish_durable(upto);
        // Whoever steps the flusher waits for no append; the next round makes up for it.
        if let Some(mut writer) = self.writer.try_lock() {
            writer.note_synced(upto);
        }
        self.site.context.progress.raise();
    }

    fn failed(&self, error: &Error) {
        self.fail_sync(error.to_string());
    }

    fn durable(&self) -> Offset {
        self.bounds.durable()
    }

    fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    fn check_relied_on(&self) -> Result<()> {
        self.check_not_poisoned()
    }

    fn is_entangled(&self) -> bool {
        let site = &self.site;
        let is_tied = site.config.durability != Durability::Sync && stands_on_others(&site.name.topic);
        is_tied || self.bounds.is_entangled()
    }
}

impl Partition {
    /// The last sync, when nothing is appended any more.
    pub(super) fn sync_last(&self) -> Result<()> {
        let mut submitted = self.submitted.lock();
        let under_way = submitted.take();
        under_way.map_or(Ok(()), |submission| self.await_syncs(&submission))?;
        let unsynced = self.take_unsynced(&mut self.writer.lock(), SyncPurpose::Records)?;
        let submission = self.submit_syncs(unsynced)?;
        self.await_syncs(&submission)
    }

    /// Waits for all of the syncs, whether or not one fails, and takes note of how they ended.
    fn await_syncs(&self, submission: &Submission) -> Result<()> {
        let waits = submission.tickets.iter().map(SyncTicket::wait);
        let outcome = waits.fold(Ok(()), io::Result::and);
        outcome.map_err(|error| self.sync_error(error))?;
        self.flushed(submission.upto);
        Ok(())
    }

    fn take_unsynced(&self, writer: &mut Writer, purpose: SyncPurpose) -> Result<Unsynced> {
        self.check_syncable()?;
        self.write_aborted_transactions(writer, purpose)?;
        let segments = writer.sealed.iter().map(|(_, file)| file).chain(writer.tail.active.unsynced());
        let mut files: Vec<_> = segments.map(|file| (file.clone(), purpose)).collect();
        files.append(&mut writer.unsynced);
        writer.is_flush_requested = false;
        writer.sync_begun = writer.tail.end;
        self.bounds.begin_sync(writer.tail.end, writer.tail.producers.first_unstable());
        Ok(Unsynced {
            files,
            has_new_names: std::mem::take(&mut writer.has_new_names),
            upto: writer.tail.end,
        })
    }

    fn submit_syncs(&self, unsynced: Unsynced) -> Result<Submission> {
        let Unsynced { files, has_new_names, upto } = unsynced;
        let tickets = files.into_iter().map(|(file, purpose)| file.sync(purpose)).collect();
        if has_new_names {
            let synced = self.site.storage().sync_dir(&self.site.directory, SyncPurpose::Directory);
            synced.map_err(|error| self.sync_error(error))?;
        }
        Ok(Submission { tickets, upto })
    }

    /// The transaction index is written with each round: a marker below the recovery point is not
    /// looked for again.
    fn write_aborted_transactions(&self, writer: &mut Writer, purpose: SyncPurpose) -> Result<()> {
        let segment = &writer.tail.active.segment;
        if !segment.aborted.has_unwritten() {
            return Ok(());
        }
        match segment.aborted.persist() {
            Ok(persisted) => {
                writer.has_new_names |= persisted.as_ref().is_some_and(|persisted| persisted.is_new);
                writer.unsynced.extend(persisted.map(|persisted| (persisted.file, purpose)));
                Ok(())
            }
            Err(error) => {
                self.set_unsyncable();
                let what = "write the transaction index of";
                Err(self.poison(self.site.io(what, segment.path(), error)))
            }
        }
    }

    fn sync_error(&self, error: io::Error) -> Error {
        let error = self.site.io("sync", &self.site.directory, error);
        self.fail_sync(error.to_string());
        error
    }

    /// Poisons the partition, and notes for the next to open it up to where syncs have succeeded.
    fn fail_sync(&self, cause: String) {
        self.set_poisoned(cause);
        self.set_unsyncable();
        if self.check_not_deleted().is_err() {
            // The directory may be that of another topic by now.
            return;
        }
        if let Err(error) = failed_sync::write(&self.site, self.durable()) {
            tracing::error!(partition = %self.site.name, %error, "the failed sync cannot be noted");
        }
    }
}
