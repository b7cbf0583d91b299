//! Dropping the last handle of a log, which closes it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::Inner;
use crate::spawn::spawn;

/// What all handles share. The last one to be dropped closes the log where it is dropped; on the log's own
/// thread, as by a waker, closing would wait for that very thread, and is left to another.
pub(super) struct LastHandle {
    /// There until it is dropped.
    inner: Option<Inner>,
}

impl LastHandle {
    pub(super) fn new(inner: Inner) -> Arc<Self> {
        Arc::new(Self { inner: Some(inner) })
    }
}

impl Deref for LastHandle {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.inner.as_ref().expect("it is taken only when it is dropped")
    }
}

impl Drop for LastHandle {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take_if(|inner| inner.core.driver.is_own_thread()) else { return };
        let left = Arc::new(Mutex::new(Some(inner)));
        let closing = left.clone();
        if let Err(error) = spawn("lotic-log-close", move || drop(closing.lock().take()))
            && let Some(inner) = left.lock().take()
        {
            // As by a crash; the next opening recovers.
            inner.is_closed.store(true, Ordering::Release);
            tracing::error!(directory = %inner.directory.display(), %error, "the log was not closed cleanly");
        }
    }
}
