//! Storage of which so many files can be opened, or whose syncs fail, as a test says.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use rustix::io::Errno;

use super::Storage;
use super::observed::{Call, ObservedStorage, Observer};

/// Passes everything on, as far as its limits allow.
pub(crate) type LimitedStorage = ObservedStorage<Limits>;

/// What can be done in a [`LimitedStorage`], and what was.
pub(crate) struct Limits {
    open: AtomicUsize,
    most: AtomicUsize,
    syncs: AtomicUsize,
    /// How many more files or directories can be opened, before none can.
    left: AtomicI64,
    fails_syncs: AtomicBool,
}

impl LimitedStorage {
    /// Without limits, at first.
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        let limits = Limits {
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            syncs: AtomicUsize::new(0),
            left: AtomicI64::new(i64::MAX),
            fails_syncs: AtomicBool::new(false),
        };
        Self::observed_by(limits, storage)
    }
}

impl Limits {
    /// How many files are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// The most that were open at once.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }

    /// How many files were synced.
    pub(crate) fn syncs(&self) -> usize {
        self.syncs.load(Ordering::Acquire)
    }

    /// From now on no more than `files` can be opened, until the next call.
    pub(crate) fn leave(&self, files: i64) {
        self.left.store(files, Ordering::Release);
    }

    /// From now on syncs of files fail, or do not.
    pub(crate) fn fail_syncs(&self, fails: bool) {
        self.fails_syncs.store(fails, Ordering::Release);
    }
}

impl Observer for Limits {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        match call {
            Call::Open(_) | Call::Create(_) | Call::OpenDirectory(_)
                if self.left.fetch_sub(1, Ordering::AcqRel) <= 0 =>
            {
                return Err(Errno::MFILE.into());
            }
            Call::Sync => {
                self.syncs.fetch_add(1, Ordering::AcqRel);
                if self.fails_syncs.load(Ordering::Acquire) {
                    return Err(io::ErrorKind::Other.into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn opened(&self) {
        let open = self.open.fetch_add(1, Ordering::AcqRel) + 1;
        self.most.fetch_max(open, Ordering::AcqRel);
    }

    fn closed(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}
