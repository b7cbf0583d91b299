//! Storage that does something else in the middle of what it is asked: what another thread or process might do
//! meanwhile, in one thread and always at the same place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Storage;
use super::observed::{Call, ObservedStorage, Observer};

/// Passes everything on, and does something else before.
pub(crate) type InterruptingStorage = ObservedStorage<Interruptions>;

/// What an [`InterruptingStorage`] does, and when.
#[derive(Default)]
pub(crate) struct Interruptions {
    pending: Mutex<Option<Interruption>>,
}

/// What is interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Moment {
    /// The opening of a file of this name that is there.
    Open(PathBuf),
    /// A read of the file that was opened by this name.
    Read(PathBuf),
    /// The making of a file of this name.
    Create(PathBuf),
    /// The listing of a directory.
    List(PathBuf),
}

struct Interruption {
    moment: Moment,
    /// How often it is still to be done.
    times: usize,
    act: Box<dyn FnMut() + Send>,
}

impl InterruptingStorage {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Self::observed_by(Interruptions::default(), storage)
    }

    /// Does `act` before the file `path`, which is there, is opened, once.
    pub(crate) fn before_open(&self, path: PathBuf, act: impl FnOnce() + Send + 'static) {
        self.interrupt(Moment::Open(path), 1, once(act));
    }

    /// Does `act` before the next read of the file that was opened as `path`, once.
    pub(crate) fn before_read(&self, path: PathBuf, act: impl FnOnce() + Send + 'static) {
        self.interrupt(Moment::Read(path), 1, once(act));
    }

    /// Does `act` before the file `path` is made, once.
    pub(crate) fn before_create(&self, path: PathBuf, act: impl FnOnce() + Send + 'static) {
        self.interrupt(Moment::Create(path), 1, once(act));
    }

    /// Does `act` before the next listing of `directory`, once.
    pub(crate) fn before_list(&self, directory: &Path, act: impl FnOnce() + Send + 'static) {
        self.before_lists(directory, 1, once(act));
    }

    /// Does `act` before each of the next `times` listings of `directory`.
    pub(crate) fn before_lists(&self, directory: &Path, times: usize, act: impl FnMut() + Send + 'static) {
        self.interrupt(Moment::List(directory.to_owned()), times, act);
    }

    fn interrupt(&self, moment: Moment, times: usize, act: impl FnMut() + Send + 'static) {
        *self.observer().pending.lock() = Some(Interruption { moment, times, act: Box::new(act) });
    }

    /// How often it is still to be done what was to be.
    pub(crate) fn times_left(&self) -> usize {
        self.observer().pending.lock().as_ref().map_or(0, |pending| pending.times)
    }

    /// Whether it is still to be done.
    pub(crate) fn is_pending(&self) -> bool {
        self.times_left() > 0
    }
}

fn once(act: impl FnOnce() + Send + 'static) -> impl FnMut() + Send + 'static {
    let mut act = Some(act);
    move || act.take().expect("it is done once")()
}

impl Observer for Interruptions {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let due = self.pending.lock().take_if(|pending| pending.moment.is(call));
        // It may ask the same storage: no lock is held then.
        if let Some(mut interruption) = due {
            (interruption.act)();
            interruption.times -= 1;
            if interruption.times > 0 {
                *self.pending.lock() = Some(interruption);
            }
        }
        Ok(())
    }
}

impl Moment {
    fn is(&self, call: Call<'_>) -> bool {
        match (self, call) {
            (Self::Open(path), Call::Open(opened)) => path == opened,
            (Self::Read(path), Call::Read(read)) => path == read,
            (Self::Create(path), Call::Create(made)) => path == made,
            (Self::List(directory), Call::List(listed)) => directory == listed,
            _ => false,
        }
    }
}
