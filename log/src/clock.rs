//! The only place that reads a clock. Everything else is given one, so that a simulator can own time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::record::Timestamp;

/// A source of wall-clock and elapsed time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, as it goes into records.
    fn now(&self) -> Timestamp;

    /// Time elapsed since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose elapsed time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_millis() as i64)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock at 1970-01-01T00:00:00Z.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Moves time on by `step`.
    pub fn advance(&self, step: Duration) {
        *self.elapsed.lock() += step;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.elapsed.lock().as_millis() as i64)
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock()
    }
}
