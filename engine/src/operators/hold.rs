//! Watermarks of steps that hold records back.

use lotic_log::Timestamp;

use crate::time::NOTHING_EXPECTED;

/// A watermark less the time by which a step may hold a record back.
pub(super) fn held_back(watermark: Timestamp, by_ms: i64) -> Timestamp {
    match watermark {
        NOTHING_EXPECTED => NOTHING_EXPECTED,
        Timestamp(time) => Timestamp(time.saturating_sub(by_ms)),
    }
}
