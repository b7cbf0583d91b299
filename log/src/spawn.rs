//! The only place that starts a thread. A simulator starts none: it steps everything itself.

use std::io;
use std::thread::JoinHandle;

/// Starts a named thread that runs `body`.
#[expect(clippy::disallowed_methods, reason = "this is the one place that starts a thread")]
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Who moves background work (group commit, linger, transaction markers) along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// The log's own thread.
    Thread,
    /// The caller, by `Log::step`; waiting on a ticket steps too. Nothing happens otherwise.
    Manual,
}
