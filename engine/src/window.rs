//! Tumbling windows of event time.

use lotic_log::Timestamp;
use serde::{Deserialize, Serialize};

/// A key in one window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Windowed<K> {
    /// The key.
    pub key: K,
    /// The window's first millisecond.
    #[serde(with = "milliseconds")]
    pub start: Timestamp,
    /// The millisecond behind its last.
    #[serde(with = "milliseconds")]
    pub end: Timestamp,
}

/// Windows of equal size, one behind the other from 1970-01-01T00:00:00Z on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    /// How long a window is. Positive.
    pub size_ms: i64,
    /// How long after its end it still takes records. Not negative.
    pub grace_ms: i64,
}

impl WindowSpec {
    /// The start of the window that `time` is in.
    pub fn start_of(self, time: Timestamp) -> Timestamp {
        Timestamp(time.0.saturating_sub(time.0.rem_euclid(self.size_ms)))
    }

    /// The end of the window that begins at `start`.
    pub fn end_of(self, start: Timestamp) -> Timestamp {
        Timestamp(start.0.saturating_add(self.size_ms))
    }

    /// The watermark at which the window that begins at `start` is closed, and records are late for it.
    pub fn closes_at(self, start: Timestamp) -> Timestamp {
        Timestamp(self.end_of(start).0.saturating_add(self.grace_ms))
    }

    /// The first start whose window a watermark leaves open.
    pub fn first_open(self, watermark: Timestamp) -> Timestamp {
        let last_closed = watermark.0.saturating_sub(self.grace_ms).saturating_sub(self.size_ms);
        Timestamp(last_closed.saturating_add(1))
    }
}

mod milliseconds {
    use lotic_log::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        time.0.serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(input).map(Timestamp)
    }
}
