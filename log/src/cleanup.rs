//! What becomes of records in the course of time: the settings. `retention.rs` and `compaction` decide by
//! them, `upkeep` does it.

use std::time::Duration;

/// What becomes of old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CleanupPolicy {
    /// Old segments are deleted.
    #[default]
    Delete,
    /// The last record of each key is kept.
    Compact,
    /// The last record of each key is kept, and old segments are deleted.
    CompactAndDelete,
}

impl CleanupPolicy {
    /// Whether the last record of each key is kept.
    pub fn compacts(self) -> bool {
        self != Self::Delete
    }

    /// Whether old segments are deleted.
    pub fn deletes(self) -> bool {
        self != Self::Compact
    }
}

/// How long records are kept. Old segments go when one of the limits is passed; the active segment does
/// not, until it is sealed. What a transaction that is open has written, and all behind it, stays, and so
/// does what somebody has pinned ([`crate::Partition::pin`]).
///
/// Nothing is deleted by default: the log is the only truth. Kafka deletes after seven days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// A segment goes so long after the newest timestamp in it; never, where absent.
    pub time: Option<Duration>,
    /// The oldest segments go for as long as the others hold so many bytes; never, where absent.
    pub bytes: Option<u64>,
}

/// When and how a topic is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// Of a hundred bytes more than so many have to be behind the last compaction.
    pub dirty_percent_min: u8,
    /// A segment whose newest record is younger than that is not compacted.
    pub lag_min: Duration,
    /// A segment whose first batch is older than that is compacted however little there is to do.
    pub lag_max: Option<Duration>,
    /// How long tombstones and the markers of transactions are kept after compaction has met them first.
    pub delete_retention: Duration,
}

impl Default for CompactionConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            dirty_percent_min: 50,
            lag_min: Duration::ZERO,
            lag_max: None,
            delete_retention: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// What becomes of a topic's records in the course of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// What becomes of old records.
    pub policy: CleanupPolicy,
    /// How long they are kept, where old segments are deleted.
    pub retention: Retention,
    /// When and how they are compacted, where the last record of each key is kept.
    pub compaction: CompactionConfig,
    /// How long after its first record a segment is sealed, so that it may be deleted or compacted.
    pub segment_age_max: Duration,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self {
            policy: CleanupPolicy::default(),
            retention: Retention::default(),
            compaction: CompactionConfig::default(),
            segment_age_max: Self::SEGMENT_AGE_MAX,
        }
    }
}

impl Cleanup {
    /// Kafka's default: a week.
    pub(crate) const SEGMENT_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
}
