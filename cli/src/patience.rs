//! Trying again what another process keeps from being done for a moment.

use std::io::{self, Write};
use std::time::Duration;

use lotic_log::{Error, ErrorKind, Progress};

use crate::Failure;

/// With a log that another process writes to, recovers or cuts off.
pub(crate) const PATIENCE: Patience<'_> =
    Patience { retries_max: 100, pause: Duration::from_millis(100), let_pass: &let_pass };

/// How often the same is tried again.
pub(crate) struct Patience<'a> {
    /// Not more often than that in a row.
    pub(crate) retries_max: u32,
    /// How long is waited before each.
    pub(crate) pause: Duration,
    /// Lets so much time go by.
    pub(crate) let_pass: &'a dyn Fn(Duration),
}

/// Whether an error says that the same may succeed a little later.
pub(crate) fn passes(error: &Error) -> bool {
    error.kind() == ErrorKind::Retry
}

impl Patience<'_> {
    /// Does `attempt` until it succeeds, or fails with an error that does not pass or did not in time. None
    /// if `is_told_to_end` before. That it waits is said, once.
    pub(crate) fn until_done<T>(
        &self,
        attempt: impl FnMut() -> Result<T, Error>,
        passes: impl Fn(&Error) -> bool,
        is_told_to_end: impl Fn() -> bool,
    ) -> Result<Option<T>, Failure> {
        self.tries().until_done(attempt, passes, is_told_to_end)
    }

    /// Nothing has been refused yet.
    pub(crate) fn tries(&self) -> Tries<'_> {
        Tries { patience: self, refused: 0 }
    }
}

/// How often in a row something was refused, whichever part of it: all of them together are as many as
/// patience allows.
pub(crate) struct Tries<'a> {
    patience: &'a Patience<'a>,
    pub(crate) refused: u32,
}

impl Tries<'_> {
    /// Does what [`Patience::until_done`] does, after what was refused before.
    pub(crate) fn until_done<T>(
        &mut self,
        mut attempt: impl FnMut() -> Result<T, Error>,
        passes: impl Fn(&Error) -> bool,
        is_told_to_end: impl Fn() -> bool,
    ) -> Result<Option<T>, Failure> {
        loop {
            match attempt() {
                Err(error) if passes(&error) => self.note(error)?,
                outcome => return Ok(Some(outcome?)),
            }
            if is_told_to_end() {
                return Ok(None);
            }
            self.wait();
        }
    }

    /// Takes note of one more refusal, which is said if it is the first.
    ///
    /// # Errors
    /// The refusal, once there were too many.
    pub(crate) fn note(&mut self, refusal: Error) -> Result<(), Failure> {
        if self.refused >= self.patience.retries_max {
            return Err(refusal.into());
        }
        if self.refused == 0 {
            writeln!(io::stderr(), "lotic: {refusal}; it is tried again")?;
        }
        self.refused += 1;
        Ok(())
    }

    /// Something was not refused.
    pub(crate) fn forget(&mut self) {
        self.refused = 0;
    }

    /// Lets the time go by that is to pass before the next try.
    pub(crate) fn wait(&self) {
        (self.patience.let_pass)(self.patience.pause);
    }
}

fn let_pass(time: Duration) {
    // Nothing moves it: this is a wait for the time.
    let pause = Progress::default();
    pause.wait(pause.count(), time);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use lotic_log::{Clock, ManualClock};

    use super::*;

    const PAUSE: Duration = Duration::from_millis(10);

    /// What comes of attempts that fail so, and then succeed; and at which millisecond each was made.
    fn check(errors: &[ErrorKind], is_told_to_end: bool) -> (Result<Option<()>, String>, Vec<u128>) {
        let clock = ManualClock::new();
        let patience = Patience { retries_max: 3, pause: PAUSE, let_pass: &|time| clock.advance(time) };
        let made = RefCell::new(Vec::new());
        let attempt = || {
            let mut made = made.borrow_mut();
            made.push(clock.elapsed().as_millis());
            let kind = errors.get(made.len() - 1);
            kind.map_or(Ok(()), |kind| Err(Error::new(*kind, format!("error {}", made.len()))))
        };
        let outcome = patience.until_done(attempt, passes, || is_told_to_end);
        (outcome.map_err(|failure| failure.to_string()), made.into_inner())
    }

    #[test]
    fn what_passes_is_tried_again_so_often_and_what_does_not_is_told_at_once() {
        let retry = ErrorKind::Retry;
        assert_eq!(check(&[], false), (Ok(Some(())), vec![0]));
        assert_eq!(check(&[retry; 3], false), (Ok(Some(())), vec![0, 10, 20, 30]));
        assert_eq!(check(&[retry; 9], false), (Err("error 4".to_owned()), vec![0, 10, 20, 30]));
        assert_eq!(
            check(&[retry, ErrorKind::Corrupt, retry], false),
            (Err("error 2".to_owned()), vec![0, 10])
        );
    }

    #[test]
    fn who_is_told_to_end_tries_no_more() {
        assert_eq!(check(&[ErrorKind::Retry; 9], true), (Ok(None), vec![0]));
    }

    #[test]
    fn what_was_refused_before_counts_until_something_is_not() {
        let count = |tries: &mut Tries<'_>| {
            let mut attempts = 0;
            let attempt = || -> Result<(), Error> {
                attempts += 1;
                Err(Error::new(ErrorKind::Retry, "not now"))
            };
            tries.until_done(attempt, passes, || false).expect_err("it never succeeds");
            attempts
        };
        let patience = Patience { retries_max: 3, pause: PAUSE, let_pass: &|_| () };
        let mut tries = patience.tries();
        tries.note(Error::new(ErrorKind::Retry, "not now")).expect("that was the first");
        assert_eq!(count(&mut tries), 3, "four in all");
        assert_eq!(count(&mut tries), 1);
        tries.forget();
        assert_eq!(count(&mut tries), 4);
    }
}
