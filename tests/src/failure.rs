//! Why a check failed.

use std::error::Error;
use std::fmt::Display;

/// A check that failed, or something that it needs and that could not be had.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The result of everything here.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Says which thing an error is about.
pub trait About<T> {
    /// Puts `what` before the error.
    ///
    /// # Errors
    /// The error, with `what` before it.
    fn about(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> About<T> for std::result::Result<T, E> {
    fn about(self, what: impl Display) -> Result<T> {
        self.map_err(|error| format!("{what}: {error}").into())
    }
}

/// A failure, unless `holds`.
///
/// # Errors
/// What `message` says.
pub fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(message().into()) }
}
