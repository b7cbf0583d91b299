//! What compaction may take, whether that is worth it, and which segments become one. Decisions only;
//! from the source, Kafka's `LogCleanerManager.cleanableOffsets` and `Cleaner.groupSegmentsBySize`.

use crate::cleanup::CompactionConfig;
use crate::record::{Offset, Timestamp};

/// The most segments that become one: all of them are open while they are replaced.
pub(crate) const GROUP_SEGMENTS_MAX: usize = 64;

/// What is known of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedFacts {
    pub(crate) base: Offset,
    /// Where the next segment begins.
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    /// Of a record, if there is one.
    pub(crate) max_timestamp: Option<Timestamp>,
    /// Of the first batch.
    pub(crate) first_timestamp: Option<Timestamp>,
}

/// What a compaction is decided by.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The sealed segments in order.
    pub(crate) sealed: Vec<SealedFacts>,
    pub(crate) clean_end: Offset,
    /// Nothing at or behind it may be touched.
    pub(crate) bound: Offset,
}

/// What there is to compact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirt {
    /// Keys were seen up to here.
    pub(crate) clean_end: Offset,
    /// Segments before it may be rewritten.
    pub(crate) end: Offset,
    pub(crate) clean_bytes: u64,
    pub(crate) dirty_bytes: u64,
    /// Whether some of it has waited for as long as it may.
    pub(crate) is_overdue: bool,
}

impl Facts {
    /// What there is to compact; none of it is in the active segment, behind the last stable offset, of
    /// late enough a time, or pinned.
    pub(crate) fn dirt(&self, config: &CompactionConfig, now: Timestamp) -> Dirt {
        // A start that was raised, or a log that was cut back, leaves the mark outside.
        let first = self.sealed.first().map_or(Offset(0), |segment| segment.base);
        let last = self.sealed.last().map_or(first, |segment| segment.end);
        let clean_end = if self.clean_end > last { first } else { self.clean_end.max(first) };
        let lag = config.lag_min.as_millis() as i64;
        let is_too_young = |segment: &SealedFacts| {
            lag > 0
                && segment.end > clean_end
                && segment.max_timestamp.is_some_and(|newest| newest.0 > now.0.saturating_sub(lag))
        };
        let may_go = |segment: &&SealedFacts| segment.end <= self.bound && !is_too_young(segment);
        let taken = self.sealed.iter().take_while(may_go);
        let mut dirt = Dirt { clean_end, end: first, clean_bytes: 0, dirty_bytes: 0, is_overdue: false };
        for segment in taken {
            dirt.end = segment.end;
            if segment.end <= clean_end {
                dirt.clean_bytes += segment.bytes;
            } else {
                dirt.dirty_bytes += segment.bytes;
                dirt.is_overdue |= is_overdue(segment, config, now);
            }
        }
        dirt
    }
}

fn is_overdue(segment: &SealedFacts, config: &CompactionConfig, now: Timestamp) -> bool {
    let (Some(lag), Some(first)) = (config.lag_max, segment.first_timestamp) else { return false };
    first.0 < now.0.saturating_sub(lag.as_millis().min(i64::MAX as u128) as i64)
}

impl Dirt {
    /// Whether it is worth it.
    pub(crate) fn is_due(&self, config: &CompactionConfig) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.percent() > u64::from(config.dirty_percent_min))
    }

    /// Of a hundred bytes so many are dirty.
    pub(crate) fn percent(&self) -> u64 {
        let bytes = self.clean_bytes + self.dirty_bytes;
        (u128::from(self.dirty_bytes) * 100 / u128::from(bytes.max(1))) as u64
    }
}

/// How many segments become one, from the front: as many as fit into one of `segment_bytes`, and into the
/// `i32` that an index counts offsets with, and as may be open at once.
pub(crate) fn group_len(segments: &[SealedFacts], segment_bytes: u64) -> usize {
    let Some(first) = segments.first() else { return 0 };
    let mut bytes = 0;
    let fits = |segment: &&SealedFacts| {
        bytes += segment.bytes;
        bytes <= segment_bytes && segment.end.0 - 1 - first.base.0 <= i64::from(i32::MAX)
    };
    segments.iter().take(GROUP_SEGMENTS_MAX).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn segment(base: i64, end: i64, bytes: u64, newest: i64) -> SealedFacts {
        SealedFacts {
            base: Offset(base),
            end: Offset(end),
            bytes,
            max_timestamp: Some(Timestamp(newest)),
            first_timestamp: Some(Timestamp(newest - 5)),
        }
    }

    /// Three segments of 100 bytes, 10 offsets and 10 ms each, of which the first is clean.
    fn facts() -> Facts {
        Facts {
            sealed: (0..3).map(|n| segment(10 * n, 10 * n + 10, 100, 10 * n + 9)).collect(),
            clean_end: Offset(10),
            bound: Offset(35),
        }
    }

    fn config() -> CompactionConfig {
        CompactionConfig { lag_min: Duration::ZERO, lag_max: None, ..CompactionConfig::default() }
    }

    fn end(facts: &Facts, config: &CompactionConfig, now: i64) -> i64 {
        facts.dirt(config, Timestamp(now)).end.0
    }

    #[test]
    fn whole_sealed_segments_are_taken_up_to_the_bound() {
        assert_eq!(end(&facts(), &config(), 0), 30);
        for bound in 0..35 {
            let whole = (bound / 10 * 10).min(30);
            assert_eq!(end(&Facts { bound: Offset(bound), ..facts() }, &config(), 0), whole);
        }
    }

    #[test]
    fn what_is_too_young_stays_and_what_is_clean_already_is_never_too_young() {
        let config = CompactionConfig { lag_min: Duration::from_millis(100), ..config() };
        for (now, expected) in [(0, 10), (118, 10), (119, 20), (128, 20), (129, 30)] {
            assert_eq!(end(&facts(), &config, now), expected, "at {now}");
        }
    }

    #[test]
    fn it_is_due_when_more_than_the_least_part_is_dirty_or_some_of_it_has_waited_too_long() {
        let dirt = facts().dirt(&config(), Timestamp(0));
        assert_eq!((dirt.clean_bytes, dirt.dirty_bytes, dirt.percent()), (100, 200, 66));
        for (percent, expected) in [(65, true), (66, false)] {
            assert_eq!(dirt.is_due(&CompactionConfig { dirty_percent_min: percent, ..config() }), expected);
        }
        let patient =
            CompactionConfig { lag_max: Some(Duration::from_millis(50)), dirty_percent_min: 99, ..config() };
        assert!(!facts().dirt(&patient, Timestamp(64)).is_due(&patient));
        assert!(facts().dirt(&patient, Timestamp(65)).is_due(&patient), "the first dirty batch is of 14");
    }

    #[test]
    fn a_clean_end_outside_of_the_log_is_brought_back() {
        let check = |clean_end, expected| {
            let facts = Facts { clean_end: Offset(clean_end), ..facts() };
            let sealed = facts.sealed[1..].to_vec();
            let facts = Facts { sealed, ..facts };
            assert_eq!(facts.dirt(&config(), Timestamp(0)).clean_end, Offset(expected));
        };
        check(5, 10);
        check(25, 25);
        check(30, 30);
        check(31, 10);
    }

    #[test]
    fn segments_are_grouped_by_their_bytes_and_by_how_far_their_offsets_reach() {
        let check = |segments: &[SealedFacts], bytes, expected| {
            assert_eq!(group_len(segments, bytes), expected);
        };
        let three: Vec<_> = (0..3).map(|n| segment(10 * n, 10 * n + 10, 100, 0)).collect();
        check(&[], 100, 0);
        check(&three, 300, 3);
        check(&three, 299, 2);
        check(&three, 199, 1);
        check(&three, 50, 1);
        let tiny: Vec<_> = (0..100).map(|n| segment(n, n + 1, 1, 0)).collect();
        check(&tiny, 300, 64);
        let far = i64::from(i32::MAX);
        check(&[segment(0, 10, 1, 0), segment(10, far + 1, 1, 0)], 100, 2);
        check(&[segment(0, 10, 1, 0), segment(10, far + 2, 1, 0)], 100, 1);
    }
}
