//! How many files are open because they hold bytes that are not synced.
//!
//! Such a file cannot be closed like another one. Where its bytes cannot be written back, the operating system says so
//! to whoever has it open then; who opens it later may be told nothing, and a sync that succeeds would mean nothing.
//! (Linux keeps the error with the file, but forgets it with the file itself once nobody has that open.) So it is
//! synced first, also where its records count without that: they become safer for it, and nobody is told.
//!
//! [`UnsyncedFiles`] bounds them. Whoever is about to write to more files asks for room before that. Where there is
//! little left, some have theirs synced, several at a time, while others go on; where there is none, whoever asks waits
//! until the oldest sync has ended. Where nobody is left who could close a file, as where one append opens more than are
//! allowed, the bound gives way.
//!
//! Of those that hold files the one that has begun last is taken three times, and then the one that has done so for
//! longest. Partitions that are written to one after the other, and over again, come round to the oldest next: with that
//! one closed every time, each would be synced for each of its records as soon as there are more of them than files may
//! be open. With the newest closed every time, those would stay open that nobody writes to any more, and whoever writes
//! would have to do with the rest.
//!
//! Of `n` partitions that are written to in turn, no choice saves more than the share `files_max / n` of the syncs: a
//! record for a partition that has no file open needs one, and another is closed for it. This one syncs about two for
//! every five records where there are half as many more than files may be open, four for every seven where there are
//! twice as many, and one for each from four times as many on.
//!
//! Room is asked for with no partition's writer and no submission of a partition locked. Lock order: closing, then
//! those of the holder; the queue of holders is locked alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::storage::{StorageFile, SyncTicket};

/// How many files are open that are not synced, unless a log is opened with another bound.
pub(crate) const UNSYNCED_FILES_MAX: usize = 512;

/// How many holders have their files synced at once: as many as a disk gains from.
const CLOSING_MAX: usize = 16;

/// Of so many holders that close what they have open one is the oldest; the others are the newest.
const OLDEST_EVERY: u32 = 4;

/// Who has files open that are not synced: a partition.
pub(crate) trait UnsyncedHolder: Send + Sync {
    /// Begins to sync all that it has open, if nobody is just doing that, and returns what is to be waited for: nothing
    /// where nothing of it is open any more.
    fn begin_closing(&self) -> Vec<SyncTicket>;

    /// Closes what is synced, once all that was to be waited for has ended. Whether there is more to close.
    fn end_closing(&self) -> bool;
}

/// The files that are open because they are not synced.
pub(crate) struct UnsyncedFiles {
    files_max: usize,
    /// How many there are, with the room that was given and is not taken yet.
    open: AtomicUsize,
    /// Who has some.
    holders: Mutex<Holders>,
    /// Whose are being synced.
    closing: Mutex<VecDeque<Closing>>,
    has_warned: AtomicBool,
}

/// Who has files open that are not synced.
#[derive(Default)]
struct Holders {
    /// The oldest first. It grows with those that there are: before it does, those that are gone are left out.
    queue: VecDeque<Weak<dyn UnsyncedHolder>>,
    /// How many were taken since the oldest was.
    newest_taken: u32,
}

impl Holders {
    fn note(&mut self, holder: Weak<dyn UnsyncedHolder>) {
        if self.queue.len() == self.queue.capacity() {
            self.queue.retain(|holder| holder.strong_count() > 0);
        }
        self.queue.push_back(holder);
    }

    /// Who is to close what it has open.
    fn take(&mut self) -> Option<Weak<dyn UnsyncedHolder>> {
        self.newest_taken = (self.newest_taken + 1) % OLDEST_EVERY;
        if self.newest_taken == 0 { self.queue.pop_front() } else { self.queue.pop_back() }
    }
}

struct Closing {
    holder: Weak<dyn UnsyncedHolder>,
    tickets: Vec<SyncTicket>,
}

impl Default for UnsyncedFiles {
    fn default() -> Self {
        Self::new(UNSYNCED_FILES_MAX)
    }
}

impl UnsyncedFiles {
    /// Keeps no more than `files_max` files open.
    pub(crate) fn new(files_max: usize) -> Self {
        Self {
            files_max,
            open: AtomicUsize::new(0),
            holders: Mutex::default(),
            closing: Mutex::default(),
            has_warned: AtomicBool::new(false),
        }
    }

    /// How many files are kept open.
    pub(crate) fn files_max(&self) -> usize {
        self.files_max
    }

    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Makes `room` one for `files` files, without waiting. Whether it could.
    pub(crate) fn try_make_room(self: &Arc<Self>, room: &mut Room, files: usize) -> bool {
        let missing = files.saturating_sub(room.files);
        let is_made = missing == 0 || self.try_open(missing);
        if is_made {
            room.belong_to(self);
            room.files += missing;
        }
        is_made
    }

    /// Makes `room` one for `files` files: others are synced and closed for it, and that is waited for.
    pub(crate) fn make_room(self: &Arc<Self>, room: &mut Room, files: usize) {
        if self.try_make_room(room, files) {
            if self.is_little_left(0)
                && let Some(mut closing) = self.closing.try_lock()
            {
                self.end_closed(&mut closing);
                self.begin_closing(&mut closing, 0);
            }
            return;
        }
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let files_max = self.files_max;
            tracing::warn!(
                files_max,
                "files are synced before their time, as no more may be open that are not: raise unsynced_files_max, \
                 and what the operating system lets the process open, if appends are too slow"
            );
        }
        let mut closing = self.closing.lock();
        loop {
            self.end_closed(&mut closing);
            if self.try_make_room(room, files) {
                return;
            }
            self.begin_closing(&mut closing, files.saturating_sub(room.files));
            match closing.pop_front() {
                Some(oldest) => self.end(oldest),
                None => {
                    let missing = files.saturating_sub(room.files);
                    self.open.fetch_add(missing, Ordering::AcqRel);
                    room.belong_to(self);
                    room.files += missing;
                    return;
                }
            }
        }
    }

    /// From now on `holder` is asked to close what it has open.
    pub(crate) fn note_holder(&self, holder: Weak<dyn UnsyncedHolder>) {
        self.holders.lock().note(holder);
    }

    fn try_open(&self, files: usize) -> bool {
        let more = |open: usize| open.checked_add(files).filter(|open| *open <= self.files_max);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Whether it is time to begin closing some, so that whoever asks for room next need not wait.
    fn is_little_left(&self, wanted: usize) -> bool {
        let spare = CLOSING_MAX.min(self.files_max / 4);
        self.open.load(Ordering::Acquire) + wanted > self.files_max.saturating_sub(spare)
    }

    /// Has the files of some holders synced, as many at once as there may be.
    fn begin_closing(&self, closing: &mut VecDeque<Closing>, wanted: usize) {
        while closing.len() < CLOSING_MAX && self.is_little_left(wanted) {
            let Some(holder) = self.holders.lock().take() else { return };
            let Some(held) = holder.upgrade() else { continue };
            let tickets = held.begin_closing();
            if !tickets.is_empty() {
                closing.push_back(Closing { holder, tickets });
            }
        }
    }

    /// Closes what has been synced by now.
    fn end_closed(&self, closing: &mut VecDeque<Closing>) {
        let is_ended = |closing: &Closing| closing.tickets.iter().all(|ticket| ticket.poll().is_some());
        while let Some(ended) = closing.front().is_some_and(is_ended).then(|| closing.pop_front()).flatten() {
            self.end(ended);
        }
    }

    /// Waits for syncs and closes what they have synced; one that failed is known to the holder.
    fn end(&self, Closing { holder, tickets }: Closing) {
        tickets.iter().for_each(|ticket| drop(ticket.wait()));
        if holder.upgrade().is_some_and(|held| held.end_closing()) {
            self.note_holder(holder);
        }
    }
}

/// Room for files that may be opened to be written to.
#[derive(Default)]
pub(crate) struct Room {
    of: Option<Arc<UnsyncedFiles>>,
    files: usize,
}

impl Room {
    fn belong_to(&mut self, files: &Arc<UnsyncedFiles>) {
        if self.of.is_none() {
            self.of = Some(files.clone());
        }
    }

    /// Whether there is room for so many files.
    pub(crate) fn holds(&self, files: usize) -> bool {
        self.files >= files
    }

    /// The file is open until what is returned is dropped. Where there is no room left it is counted all the same.
    pub(crate) fn keep(&mut self, file: Arc<dyn StorageFile>, files: &Arc<UnsyncedFiles>) -> UnsyncedFile {
        match self.files.checked_sub(1) {
            Some(left) => self.files = left,
            None => {
                files.open.fetch_add(1, Ordering::AcqRel);
            }
        }
        UnsyncedFile { file, of: files.clone() }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            of.open.fetch_sub(self.files, Ordering::AcqRel);
        }
    }
}

/// A file that is open because it has bytes that are not synced.
pub(crate) struct UnsyncedFile {
    file: Arc<dyn StorageFile>,
    of: Arc<UnsyncedFiles>,
}

impl UnsyncedFile {
    pub(crate) fn file(&self) -> &Arc<dyn StorageFile> {
        &self.file
    }
}

impl Drop for UnsyncedFile {
    fn drop(&mut self) {
        self.of.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has nothing open.
    struct Idle;

    impl UnsyncedHolder for Idle {
        fn begin_closing(&self) -> Vec<SyncTicket> {
            Vec::new()
        }

        fn end_closing(&self) -> bool {
            false
        }
    }

    #[test]
    fn who_is_gone_is_forgotten_though_there_is_room_for_all() {
        let files = UnsyncedFiles::default();
        let note = || {
            let holder = Arc::new(Idle);
            let noted: Weak<Idle> = Arc::downgrade(&holder);
            files.note_holder(noted);
            holder
        };
        let live: Vec<_> = (0..10).map(|_| note()).collect();
        (0..10_000).for_each(|_| drop(note()));
        let known = files.holders.lock().queue.len();
        assert!(known < 100, "{known} are known where there are {}", live.len());
    }
}
