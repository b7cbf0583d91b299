//! Trying again what another process keeps from being done for a moment.

use std::io::{self, Write};
use std::time::Duration;

use lotic_log::{Error, ErrorKind, Progress};

use crate::Failure;

/// With a log that another process writes to, recovers or cuts off.
pub(crate) const PATIENCE: Patience = Patience { retries_max: 100, pause: Duration::from_millis(100) };

/// How often the same is tried again.
pub(crate) struct Patience {
    /// Not more often than that.
    pub(crate) retries_max: u32,
    /// How long is waited before each.
    pause: Duration,
}

/// Whether an error says that the same may succeed a little later.
pub(crate) fn passes(error: &Error) -> bool {
    error.kind() == ErrorKind::Retry
}

impl Patience {
    /// Does `attempt` until it succeeds, or fails with an error that does not pass or did not in time. None if
    /// `is_told_to_end` before. That it waits is said, once.
    pub(crate) fn until_done<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Error>,
        passes: impl Fn(&Error) -> bool,
        is_told_to_end: impl Fn() -> bool,
    ) -> Result<Option<T>, Failure> {
        for retries in 0.. {
            match attempt() {
                Err(error) if passes(&error) && retries < self.retries_max => {
                    if retries == 0 {
                        writeln!(io::stderr(), "lotic: {error}; it is tried again")?;
                    }
                }
                outcome => return Ok(Some(outcome?)),
            }
            if is_told_to_end() {
                break;
            }
            self.wait();
        }
        Ok(None)
    }

    /// Lets the time go by that is to pass before the next try.
    pub(crate) fn wait(&self) {
        // Nothing moves it: this is a wait for the time.
        let pause = Progress::default();
        pause.wait(pause.count(), self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: Patience = Patience { retries_max: 3, pause: Duration::ZERO };

    /// What comes of attempts that fail so, and then succeed; and how many were made.
    fn check(errors: &[ErrorKind], is_told_to_end: bool) -> (Result<Option<()>, String>, usize) {
        let mut attempts = 0;
        let attempt = || {
            attempts += 1;
            let kind = errors.get(attempts - 1);
            kind.map_or(Ok(()), |kind| Err(Error::new(*kind, format!("error {attempts}"))))
        };
        let outcome = BRIEF.until_done(attempt, passes, || is_told_to_end);
        (outcome.map_err(|failure| failure.to_string()), attempts)
    }

    #[test]
    fn what_passes_is_tried_again_so_often_and_what_does_not_is_told_at_once() {
        let retry = ErrorKind::Retry;
        assert_eq!(check(&[], false), (Ok(Some(())), 1));
        assert_eq!(check(&[retry; 3], false), (Ok(Some(())), 4));
        assert_eq!(check(&[retry; 9], false), (Err("error 4".to_owned()), 4));
        assert_eq!(check(&[retry, ErrorKind::Corrupt, retry], false), (Err("error 2".to_owned()), 2));
    }

    #[test]
    fn who_is_told_to_end_tries_no_more() {
        assert_eq!(check(&[ErrorKind::Retry; 9], true), (Ok(None), 1));
    }
}
