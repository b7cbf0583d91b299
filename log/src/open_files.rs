//! How many files are open at once: the segments and indexes of a log may be far more than the operating
//! system lets a process open.
//!
//! A [`LazyFile`] is opened when it is needed, and again when it was closed meanwhile. [`OpenFiles`] keeps
//! those open that were used lately, up to a bound, and closes the others by the second chance that each
//! gets: one that was used since it was looked at last goes to the end of the queue.
//!
//! What is open beside the bound is named: files that somebody has in hand at the moment, files with bytes
//! that are not synced (they have a bound of their own, see `unsynced_files`), and files that are being
//! replaced: their names are others' before nobody finds them any more. With them the directory is open that they are
//! in.
//!
//! A name may be another file's by the time that it is opened again. So every file is known by its
//! [`FileIdentity`], and one that is not the same is not read: [`is_stale`] says so of the error.
//!
//! Lock order: the queue, then the handles of one file.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::storage::{FileIdentity, OpenMode, Storage, StorageFile};

/// How many files stay open because they were used lately, unless a log is opened with another bound.
pub(crate) const OPEN_FILES_MAX: usize = 256;

/// The files that stay open because they were used lately.
pub(crate) struct OpenFiles {
    files_max: usize,
    kept: Mutex<VecDeque<Weak<LazyFile>>>,
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self::new(OPEN_FILES_MAX)
    }
}

impl OpenFiles {
    /// Keeps no more than `files_max` files open.
    pub(crate) fn new(files_max: usize) -> Self {
        Self { files_max, kept: Mutex::default() }
    }

    /// How many files are kept open.
    pub(crate) fn files_max(&self) -> usize {
        self.files_max
    }

    /// Keeps a file that was just opened, and closes others for it.
    fn keep(&self, file: &Arc<LazyFile>) {
        let mut closed = Vec::new();
        let mut kept = self.kept.lock();
        kept.push_back(Arc::downgrade(file));
        let mut second_chances = kept.len();
        while kept.len() > self.files_max {
            let Some(oldest) = kept.pop_front().and_then(|oldest| oldest.upgrade()) else { continue };
            if oldest.is_used.swap(false, Ordering::Relaxed) && second_chances > 0 {
                second_chances -= 1;
                kept.push_back(Arc::downgrade(&oldest));
            } else {
                closed.push(oldest.let_go());
            }
        }
        // Closing a file may wait for the disk: no lock is held then.
        drop(kept);
        drop(closed);
    }
}

/// A file that is open while it is used.
pub(crate) struct LazyFile {
    storage: Arc<dyn Storage>,
    open_files: Arc<OpenFiles>,
    path: PathBuf,
    /// How it is opened again.
    mode: OpenMode,
    identity: FileIdentity,
    handles: Mutex<Handles>,
    /// Whether it was used since the queue has looked at it last.
    is_used: AtomicBool,
}

struct Handles {
    /// What keeps it open, while it is in the queue or held.
    kept: Option<Arc<dyn StorageFile>>,
    /// It stays open until it is released.
    is_held: bool,
    /// The handle that somebody may have in hand still.
    latest: Weak<dyn StorageFile>,
}

impl LazyFile {
    /// Opens the file at `path`, to be opened in the same mode again.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        open_files: &Arc<OpenFiles>,
        path: &Path,
        mode: OpenMode,
    ) -> io::Result<Arc<Self>> {
        let file = storage.open(path, mode)?;
        let again = if mode == OpenMode::Create { OpenMode::Write } else { mode };
        Self::of(storage, open_files, path, file, again)
    }

    /// The file at `path`, which is open as `file`, to be opened in `mode` again.
    pub(crate) fn of(
        storage: &Arc<dyn Storage>,
        open_files: &Arc<OpenFiles>,
        path: &Path,
        file: Arc<dyn StorageFile>,
        mode: OpenMode,
    ) -> io::Result<Arc<Self>> {
        let handles = Handles { latest: Arc::downgrade(&file), kept: None, is_held: false };
        let lazy = Arc::new(Self {
            storage: storage.clone(),
            open_files: open_files.clone(),
            path: path.to_owned(),
            mode,
            identity: file.identity()?,
            handles: Mutex::new(handles),
            is_used: AtomicBool::new(true),
        });
        lazy.get()?;
        Ok(lazy)
    }

    /// The same file under the name that it has next, closed: it is opened once it is needed.
    pub(crate) fn renamed(&self, path: &Path) -> Arc<Self> {
        let latest = self.handles.lock().latest.clone();
        Arc::new(Self {
            storage: self.storage.clone(),
            open_files: self.open_files.clone(),
            path: path.to_owned(),
            mode: self.mode,
            identity: self.identity,
            handles: Mutex::new(Handles { kept: None, is_held: false, latest }),
            is_used: AtomicBool::new(true),
        })
    }

    /// The open file.
    ///
    /// # Errors
    /// Those of opening it; [`is_stale`] if the file of this name is another one, or gone.
    pub(crate) fn get(self: &Arc<Self>) -> io::Result<Arc<dyn StorageFile>> {
        let mut handles = self.handles.lock();
        if let Some(file) = &handles.kept {
            self.is_used.store(true, Ordering::Relaxed);
            return Ok(file.clone());
        }
        let file = match handles.latest.upgrade() {
            Some(file) => file,
            None => self.open_again()?,
        };
        handles.latest = Arc::downgrade(&file);
        handles.kept = Some(file.clone());
        drop(handles);
        self.is_used.store(true, Ordering::Relaxed);
        self.open_files.keep(self);
        Ok(file)
    }

    /// Keeps the file open until it is released: its name is about to be another file's, and it is found by
    /// readers still.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub(crate) fn hold(self: &Arc<Self>) -> io::Result<()> {
        let file = self.get()?;
        let mut handles = self.handles.lock();
        handles.is_held = true;
        handles.kept = Some(file);
        Ok(())
    }

    /// Keeps the file open no longer. Who has it in hand reads on; to who has not it is stale.
    pub(crate) fn release(&self) {
        let mut handles = self.handles.lock();
        handles.is_held = false;
        let kept = handles.kept.take();
        // Closing it may wait for the disk: no lock is held then.
        drop(handles);
        drop(kept);
    }

    fn open_again(&self) -> io::Result<Arc<dyn StorageFile>> {
        let file = match self.storage.open(&self.path, self.mode) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(stale()),
            opened => opened?,
        };
        if file.identity()? == self.identity { Ok(file) } else { Err(stale()) }
    }

    /// What the queue has kept open, unless it is held.
    fn let_go(&self) -> Option<Arc<dyn StorageFile>> {
        let mut handles = self.handles.lock();
        if handles.is_held { None } else { handles.kept.take() }
    }
}

fn stale() -> io::Error {
    io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "it was replaced or removed")
}

/// Whether a file could not be opened again because its name is another file's, or nobody's.
pub(crate) fn is_stale(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StaleNetworkFileHandle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::counting::CountingStorage;
    use crate::storage::memory::MemoryStorage;

    struct Files {
        counting: Arc<CountingStorage>,
        storage: Arc<dyn Storage>,
        open_files: Arc<OpenFiles>,
    }

    impl Files {
        fn new(files_max: usize) -> Self {
            let counting = CountingStorage::new(MemoryStorage::new(1));
            let open_files = Arc::new(OpenFiles::new(files_max));
            Self { storage: counting.clone(), counting, open_files }
        }

        fn make(&self, number: usize) -> Arc<LazyFile> {
            let path = PathBuf::from(format!("/{number}"));
            let file = self.storage.open(&path, OpenMode::Create).expect("there is none");
            file.write_at(0, &[number as u8]).expect("the disk is fine");
            LazyFile::of(&self.storage, &self.open_files, &path, file, OpenMode::Read).expect("it is there")
        }

        fn opened(&self) -> u64 {
            self.counting.counts().opened
        }
    }

    fn read(file: &Arc<LazyFile>) -> io::Result<u8> {
        let mut byte = [0];
        file.get()?.read_at(0, &mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn no_more_files_are_open_than_allowed_and_all_can_be_read() {
        let files = Files::new(3);
        let all: Vec<_> = (0..10).map(|number| files.make(number)).collect();
        for round in 0..3 {
            for (number, file) in all.iter().enumerate() {
                assert_eq!(read(file).expect("it is there"), number as u8, "in round {round}");
                assert!(files.counting.counts().open <= 3);
            }
        }
    }

    #[test]
    fn what_is_used_again_and_again_is_not_opened_again() {
        let files = Files::new(3);
        let all: Vec<_> = (0..10).map(|number| files.make(number)).collect();
        read(&all[0]).expect("it is there");
        for file in &all[1..] {
            read(file).expect("it is there");
            let opened = files.opened();
            read(&all[0]).expect("it is there");
            assert_eq!(files.opened(), opened);
        }
    }

    #[test]
    fn a_file_whose_name_is_anothers_is_not_read() {
        let files = Files::new(1);
        let [first, second, third] = [0, 1, 2].map(|number| files.make(number));
        files.storage.rename(Path::new("/1"), Path::new("/0")).expect("both are there");
        files.storage.remove_file(Path::new("/2")).expect("it is there");
        files.make(3);
        for file in [&first, &second, &third] {
            assert!(is_stale(&read(file).expect_err("it cannot be found")));
        }
    }

    #[test]
    fn what_is_released_is_read_on_by_who_has_it_in_hand_and_by_nobody_else() {
        let files = Files::new(1);
        let file = files.make(0);
        file.hold().expect("it is there");
        let in_hand = file.get().expect("it is there");
        files.storage.remove_file(Path::new("/0")).expect("it is there");
        file.release();
        in_hand.read_at(0, &mut [0]).expect("it is open");
        drop(in_hand);
        files.make(1);
        assert!(is_stale(&read(&file).expect_err("it is gone")));
    }

    #[test]
    fn what_is_held_or_in_hand_is_read_whatever_becomes_of_its_name() {
        let files = Files::new(1);
        let [first, second] = [0, 1].map(|number| files.make(number));
        first.hold().expect("it is there");
        let in_hand = second.get().expect("it is there");
        files.make(2);
        for name in ["/0", "/1"] {
            files.storage.remove_file(Path::new(name)).expect("it is there");
        }
        assert_eq!((read(&first).ok(), read(&second).ok()), (Some(0), Some(1)));
        drop((first, second, in_hand));
        let _third = files.make(3);
        assert_eq!(files.counting.counts().open, 1, "the others are closed with their last user");
    }
}
