//! Making a partition durable: a sync begins, and later it ends.
//!
//! Closing a partition waits for the submission of the flusher that is under way, if there is one: it
//! covers files that nobody syncs again, and of one sync that fails on a file only one of two is told.
//!
//! Files are also synced before their time, to be closed: see `unsynced_files`. They are handed over to that sync,
//! which begins while no other is under way; every submission that begins before it has ended is one of it too, so that
//! nothing counts as durable whose sync has failed for somebody else.
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
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::{Flush, Submission, outcome};
use crate::record::{Offset, PartitionKey};
use crate::storage::{StorageDirectory, StorageFile, SyncPurpose, SyncReason, SyncTicket};
use crate::unsynced_files::{UnsyncedFile, UnsyncedHolder};

/// What a sync has to cover.
struct Unsynced {
    /// Segments, which stay open in the writer's hand.
    segments: Vec<Arc<dyn StorageFile>>,
    /// What was written beside them.
    beside: Vec<(UnsyncedFile, SyncReason)>,
    /// The directory, if names were made or removed in it.
    names: Option<Arc<dyn StorageDirectory>>,
    upto: Offset,
}

/// The syncs of a partition that are under way, or ended and nobody has looked.
#[derive(Default)]
pub(super) struct Submitted {
    /// What the flusher submitted last, for whoever closes the partition.
    flush: Option<Submission>,
    /// Whether that is part of a cut, so that it may not count though it has succeeded.
    is_cut: bool,
    /// Files that nobody but that flush has.
    flushed: Vec<UnsyncedFile>,
    /// Syncs that nobody waits for.
    closing: Option<ClosingFiles>,
}

/// Files that are being synced to be closed.
struct ClosingFiles {
    /// Open until then.
    _files: Vec<UnsyncedFile>,
    tickets: Vec<SyncTicket>,
}

impl Submitted {
    /// How the flush has ended, if it has; like one that succeeded where there is none.
    fn flush_outcome(&self) -> Option<io::Result<()>> {
        self.flush.as_ref().map_or(Some(Ok(())), |flush| outcome(&flush.tickets))
    }

    /// Up to where a flush has succeeded, of which its target may not have been told.
    fn flushed_upto(&self) -> Option<Offset> {
        let flush = self.flush.as_ref().filter(|_| !self.is_cut)?;
        outcome(&flush.tickets)?.is_ok().then_some(flush.upto)
    }
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
    /// [`crate::ErrorKind::Poisoned`]; those of opening the directory, after which it may be tried again; those of
    /// syncing names, which poison the partition. A partition that is read-only or deleted has nothing to sync.
    fn submit(&self, reason: SyncReason) -> Result<Submission> {
        let mut submitted = self.submitted.lock();
        self.end_closing_files(&mut submitted);
        let mut writer = self.writer.lock();
        if matches!(writer.mode, Mode::ReadOnly { .. }) || self.check_not_deleted().is_err() {
            return Ok(Submission { tickets: Vec::new(), upto: self.durable() });
        }
        if reason.purpose != SyncPurpose::Cut {
            self.check_not_poisoned()?;
        }
        let unsynced = self.take_unsynced(&mut writer)?;
        drop(writer);
        let submission = self.submit_syncs(&mut submitted, unsynced, reason)?;
        submitted.is_cut = reason.purpose == SyncPurpose::Cut;
        submitted.flush = Some(submission.clone());
        Ok(submission)
    }

    fn flushed(&self, upto: Offset) {
        self.bounds.publish_durable(upto);
        // Whoever steps the flusher waits for no append; the next round makes up for it.
        if let Some(mut writer) = self.writer.try_lock() {
            writer.note_synced(upto);
        }
        if let Some(mut submitted) = self.submitted.try_lock() {
            submitted.flushed.clear();
        }
        self.site.context.progress.raise();
    }

    fn failed(&self, error: &Error) {
        self.fail_sync(error.to_string(), self.durable());
    }

    fn durable(&self) -> Offset {
        self.bounds.durable()
    }

    fn waits_to_submit(&self) -> bool {
        self.writer.lock().has_new_names
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
        let under_way = submitted.flush.take();
        under_way.map_or(Ok(()), |submission| self.await_syncs(&submission))?;
        self.end_closing_files(&mut submitted);
        let reason = SyncReason::of(SyncPurpose::Records);
        let unsynced = self.take_unsynced(&mut self.writer.lock())?;
        let submission = self.submit_syncs(&mut submitted, unsynced, reason)?;
        let synced = self.await_syncs(&submission);
        // All have ended.
        (submitted.flushed, submitted.closing) = (Vec::new(), None);
        synced
    }

    /// Waits for all of the syncs, whether or not one fails, and takes note of how they ended.
    fn await_syncs(&self, submission: &Submission) -> Result<()> {
        let waits = submission.tickets.iter().map(SyncTicket::wait);
        let outcome = waits.fold(Ok(()), io::Result::and);
        outcome.map_err(|error| self.sync_error(error))?;
        self.flushed(submission.upto);
        Ok(())
    }

    /// What a sync that begins now has to cover.
    ///
    /// A directory that cannot be opened is no sync that has failed, whatever the reason. Nothing is taken then: all
    /// files are open still, and tell the next sync if their bytes could not be written back. Names have nobody to tell,
    /// now or later: a directory is always opened after they were changed. Nothing counts as durable meanwhile. A note of
    /// a failed sync, though, would have the next opening cut records off, and take the whole log back, of which nothing
    /// is in doubt.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Poisoned`]; those of opening the directory.
    fn take_unsynced(&self, writer: &mut Writer) -> Result<Unsynced> {
        self.check_syncable()?;
        writer.is_flush_requested = false;
        let names = writer.has_new_names.then(|| self.site.storage().open_dir(&self.site.directory));
        let names = names.transpose().map_err(|error| {
            let error = self.site.io("open, to sync the names in it,", &self.site.directory, error);
            if error.kind() != ErrorKind::TooManyFiles {
                // Who appends under the other durabilities is not told.
                tracing::error!(partition = %self.site.name, %error, "nothing is synced until it can be");
            }
            error
        })?;
        let sealed = writer.sealed.iter().map(|(_, file)| file.file());
        let segments = sealed.chain(writer.tail.active.unsynced()).cloned().collect();
        writer.has_new_names = false;
        writer.sync_begun = writer.tail.end;
        self.bounds.begin_sync(writer.tail.end, writer.tail.producers.first_unstable());
        Ok(Unsynced { segments, beside: std::mem::take(&mut writer.unsynced), names, upto: writer.tail.end })
    }

    fn submit_syncs(
        &self,
        submitted: &mut Submitted,
        unsynced: Unsynced,
        reason: SyncReason,
    ) -> Result<Submission> {
        let Unsynced { segments, beside, names, upto } = unsynced;
        let mut tickets: Vec<_> = segments.iter().map(|file| file.sync_for(reason)).collect();
        tickets.extend(beside.iter().map(|(file, reason)| file.file().sync_for(*reason)));
        if let Some(names) = names {
            names.sync(SyncPurpose::Directory).map_err(|error| self.sync_error(error))?;
        }
        tickets.extend(submitted.closing.iter().flat_map(|closing| closing.tickets.iter().cloned()));
        submitted.flushed = beside.into_iter().map(|(file, _)| file).collect();
        if !submitted.flushed.is_empty() {
            self.note_holder();
        }
        Ok(Submission { tickets, upto })
    }

    /// Waits for syncs beside those of the flusher, of files that nobody else syncs.
    pub(super) fn await_beside(&self, tickets: &[SyncTicket]) -> Result<()> {
        let synced = tickets.iter().map(SyncTicket::wait).fold(Ok(()), io::Result::and);
        synced.map_err(|error| self.sync_error(error))
    }

    pub(super) fn sync_error(&self, error: io::Error) -> Error {
        let error = self.site.io("sync", &self.site.directory, error);
        self.fail_sync(error.to_string(), self.durable());
        error
    }

    /// Poisons the partition, and notes for the next to open it up to where syncs have succeeded.
    fn fail_sync(&self, cause: String, synced: Offset) {
        self.set_poisoned(cause);
        self.set_unsyncable();
        if self.check_not_deleted().is_err() {
            // The directory may be that of another topic by now.
            return;
        }
        if let Err(error) = failed_sync::write(&self.site, synced) {
            tracing::error!(partition = %self.site.name, %error, "the failed sync cannot be noted");
        }
    }
}

impl UnsyncedHolder for Partition {
    fn begin_closing(&self) -> Vec<SyncTicket> {
        self.is_noted_holder.store(false, Ordering::Release);
        let mut submitted = self.submitted.lock();
        self.end_closing_files(&mut submitted);
        if let Some(closing) = &submitted.closing {
            return closing.tickets.clone();
        }
        match submitted.flush_outcome() {
            // Of two syncs of a file only one may be told that it has failed.
            None => return submitted.flush.as_ref().map_or(Vec::new(), |flush| flush.tickets.clone()),
            Some(Ok(())) => self.end_flushed_files(&mut submitted),
            // Whoever has submitted it is about to say so.
            Some(Err(_)) => self.set_unsyncable(),
        }
        let mut writer = self.writer.lock();
        if self.is_unsyncable.load(Ordering::Acquire) {
            writer.give_up_unsynced();
            submitted.flushed.clear();
            return Vec::new();
        }
        let files = writer.take_unsynced();
        drop(writer);
        let tickets: Vec<_> = files.iter().map(|file| file.file().sync(SyncPurpose::Closing)).collect();
        if !files.is_empty() {
            submitted.closing = Some(ClosingFiles { _files: files, tickets: tickets.clone() });
        }
        tickets
    }

    fn end_closing(&self) -> bool {
        let mut submitted = self.submitted.lock();
        self.end_closing_files(&mut submitted);
        if let Some(Ok(())) = submitted.flush_outcome() {
            self.end_flushed_files(&mut submitted);
        }
        let is_holding = submitted.closing.is_some()
            || !submitted.flushed.is_empty()
            || self.writer.lock().holds_unsynced();
        is_holding && !self.is_noted_holder.swap(true, Ordering::AcqRel)
    }
}

impl Partition {
    /// Closes what a flush has synced, whether or not it counts.
    fn end_flushed_files(&self, submitted: &mut Submitted) {
        if let Some(flush) = &submitted.flush {
            self.writer.lock().note_synced(flush.upto);
        }
        submitted.flushed.clear();
    }

    /// Closes what was synced to be closed, if that has ended. Where it failed the partition is poisoned: what a flush
    /// has synced before is certain, be it that nobody has been told.
    fn end_closing_files(&self, submitted: &mut Submitted) {
        let ended = submitted.closing.as_ref().and_then(|closing| outcome(&closing.tickets));
        let Some(outcome) = ended else { return };
        submitted.closing = None;
        if let Err(error) = outcome {
            let error = self.site.io("sync", &self.site.directory, error);
            let durable = self.durable();
            let synced = submitted.flushed_upto().map_or(durable, |upto| upto.max(durable));
            self.fail_sync(error.to_string(), synced);
        }
    }
}
