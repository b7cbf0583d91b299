//! Windows of event time.

use std::time::Duration;

use lotic_engine::window::WindowSpec;
use lotic_log::Timestamp;

use crate::time::{in_words, milliseconds};

/// Windows of one size that follow each other without gaps; the first begins at 1970-01-01T00:00:00Z.
///
/// A window takes the events from its start (included) to its end (excluded). It gives its result once no
/// event in time is expected any more: when the watermark reaches its end plus grace. An event is late when
/// the watermark of its own partition had reached that point when it was read.
///
/// ```
/// use lotic::prelude::*;
///
/// let window = Tumbling::of(1.hour()).grace(5.minutes());
/// assert_eq!(window.to_string(), "tumbling 1h, grace 5m");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tumbling {
    size_ms: i64,
    grace_ms: i64,
}

impl Tumbling {
    /// Windows of this size, in whole milliseconds, without grace.
    ///
    /// # Panics
    ///
    /// If `size` is shorter than a millisecond.
    pub fn of(size: Duration) -> Self {
        let size_ms = milliseconds(size);
        assert!(size_ms > 0, "a window is at least one millisecond long");
        Self { size_ms, grace_ms: 0 }
    }

    /// Waits so much longer for events that are behind the watermark.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace_ms: milliseconds(grace), ..self }
    }

    pub(crate) fn spec(self) -> WindowSpec {
        WindowSpec { size_ms: self.size_ms, grace_ms: self.grace_ms }
    }
}

impl std::fmt::Display for Tumbling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tumbling {}, grace {}", in_words(self.size_ms), in_words(self.grace_ms))
    }
}

/// A stretch of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first moment in it.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}
