//! Which old segments are deleted. Decisions only; from the source, Kafka's `UnifiedLog.deleteOldSegments`.
//!
//! Segments go from the front, whole. Kafka deletes up to the high watermark; here nothing goes from
//! the first record of an open transaction on, whose outcome somebody will want to read, nor from what
//! somebody has pinned on.

use crate::cleanup::Cleanup;
use crate::compaction::plan::SealedFacts;
use crate::record::{Offset, Timestamp};

/// What retention is decided by.
#[derive(Clone, Copy)]
pub(crate) struct RetentionFacts<'a> {
    /// The sealed segments in order.
    pub(crate) sealed: &'a [SealedFacts],
    /// Bytes of the active segment.
    pub(crate) active_bytes: u64,
    /// The newest timestamp in the active segment, if it holds a record.
    pub(crate) active_timestamp: Option<Timestamp>,
    /// Where the partition begins.
    pub(crate) start: Offset,
    /// Nothing at or behind it goes.
    pub(crate) bound: Offset,
}

/// What is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    /// How many segments, from the front.
    pub(crate) segments: usize,
    /// Whether the active one would be the next, if it were sealed.
    pub(crate) reaches_active: bool,
    /// Whether more would go, or the active one would be reached, if it were not for the bound.
    pub(crate) is_held: bool,
}

/// Says which segments go at the time `now`.
pub(crate) fn expired(facts: &RetentionFacts<'_>, cleanup: &Cleanup, now: Timestamp) -> Expired {
    let sealed = facts.sealed;
    let before_start = sealed.partition_point(|segment| segment.end <= facts.start);
    let too_old = |newest: Timestamp| {
        let time = cleanup.retention.time;
        time.is_some_and(|time| now.0.saturating_sub(newest.0) > time.as_millis() as i64)
    };
    let (mut segments, mut reaches_active) = (before_start, false);
    if cleanup.policy.deletes() {
        // A segment without records has no time of its own and goes with one behind it, or with the last.
        let may_go = |segment: &&SealedFacts| segment.max_timestamp.is_none_or(too_old);
        let run = sealed.iter().take_while(may_go).count();
        let dated = |segment: &SealedFacts| segment.max_timestamp.is_some();
        // Behind the last records there may be markers, which nobody needs without these.
        let is_last = run == sealed.len() && facts.active_timestamp.is_none();
        let goes_with_last = cleanup.retention.time.is_some() && is_last;
        let last_old =
            if goes_with_last { run.checked_sub(1) } else { sealed[..run].iter().rposition(dated) };
        let old = last_old.map_or(0, |last| last + 1);
        let (excess, is_all_excess) = excess(facts, cleanup);
        segments = segments.max(old).max(excess);
        let active_is_old = goes_with_last || facts.active_timestamp.is_some_and(too_old);
        reaches_active = facts.active_bytes > 0
            && ((run == sealed.len() && active_is_old) || (excess == sealed.len() && is_all_excess));
    }
    let free = sealed.partition_point(|segment| segment.end <= facts.bound);
    let is_held = free < segments.max(if reaches_active { sealed.len() } else { 0 });
    Expired { segments: segments.min(free), reaches_active: reaches_active && !is_held, is_held }
}

/// How many segments can go with as many bytes left as are to be kept, and whether all of them can.
fn excess(facts: &RetentionFacts<'_>, cleanup: &Cleanup) -> (usize, bool) {
    let Some(kept) = cleanup.retention.bytes else { return (0, false) };
    let bytes = facts.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + facts.active_bytes;
    let mut left = bytes.saturating_sub(kept);
    let mut goes = |bytes: u64| {
        let goes = bytes <= left && left > 0;
        left -= if goes { bytes } else { 0 };
        goes
    };
    let count = facts.sealed.iter().take_while(|segment| goes(segment.bytes)).count();
    (count, count == facts.sealed.len() && goes(facts.active_bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cleanup::{CleanupPolicy, Retention};

    /// Four segments of 100 bytes and 10 offsets, whose newest timestamps are these; then an active one.
    fn sealed(newest: [i64; 4]) -> Vec<SealedFacts> {
        let segment = |(n, newest): (usize, &i64)| SealedFacts {
            base: Offset(10 * n as i64),
            end: Offset(10 * n as i64 + 10),
            bytes: 100,
            max_timestamp: Some(Timestamp(*newest)),
            first_timestamp: Some(Timestamp(*newest)),
        };
        newest.iter().enumerate().map(segment).collect()
    }

    fn facts(sealed: &[SealedFacts]) -> RetentionFacts<'_> {
        RetentionFacts {
            sealed,
            active_bytes: 50,
            active_timestamp: Some(Timestamp(400)),
            start: Offset(0),
            bound: Offset(45),
        }
    }

    fn cleanup(time: Option<u64>, bytes: Option<u64>) -> Cleanup {
        let retention = Retention { time: time.map(Duration::from_millis), bytes };
        Cleanup { retention, ..Cleanup::default() }
    }

    fn check(facts: &RetentionFacts<'_>, cleanup: &Cleanup, now: i64, segments: usize, reaches_active: bool) {
        let expected = Expired { segments, reaches_active, is_held: false };
        assert_eq!(expired(facts, cleanup, Timestamp(now)), expected);
    }

    #[test]
    fn segments_go_once_their_newest_record_is_too_old_and_none_before_an_older_one() {
        let sealed = sealed([10, 30, 20, 40]);
        let facts = facts(&sealed);
        let cleanup = cleanup(Some(100), None);
        for (now, segments) in [(0, 0), (110, 0), (111, 1), (121, 1), (131, 3), (141, 4), (500, 4)] {
            check(&facts, &cleanup, now, segments, false);
        }
        check(&facts, &cleanup, 501, 4, true);
    }

    #[test]
    fn a_segment_that_compaction_has_emptied_goes_with_an_old_one_behind_it() {
        let mut sealed = sealed([10, 30, 20, 40]);
        sealed[0].max_timestamp = None;
        sealed[2].max_timestamp = None;
        let cleanup = cleanup(Some(100), None);
        for (now, segments) in [(130, 0), (131, 2), (141, 4)] {
            check(&facts(&sealed), &cleanup, now, segments, false);
        }
    }

    #[test]
    fn markers_behind_the_last_records_go_with_these() {
        let mut sealed = sealed([10, 30, 20, 40]);
        sealed[3].max_timestamp = None;
        let facts = RetentionFacts { active_timestamp: None, ..facts(&sealed) };
        let time = cleanup(Some(100), None);
        for (now, segments) in [(110, 0), (111, 1), (130, 1)] {
            check(&facts, &time, now, segments, false);
        }
        check(&facts, &time, 131, 4, true);
        check(&facts, &cleanup(None, Some(10_000)), 1 << 60, 0, false);
        check(&RetentionFacts { sealed: &[], ..facts }, &time, 0, 0, true);
        check(&RetentionFacts { sealed: &[], ..facts }, &cleanup(None, None), 1 << 60, 0, false);
    }

    #[test]
    fn the_oldest_segments_go_for_as_long_as_enough_bytes_are_left() {
        let sealed = sealed([0; 4]);
        let facts = facts(&sealed);
        for (kept, segments) in [(1000, 0), (450, 0), (351, 0), (350, 1), (250, 2), (51, 3), (50, 4), (1, 4)]
        {
            check(&facts, &cleanup(None, Some(kept)), 0, segments, false);
        }
        check(&facts, &cleanup(None, Some(0)), 0, 4, true);
    }

    #[test]
    fn nothing_goes_by_default_or_from_a_compacted_topic_but_what_lies_before_the_start() {
        let sealed = sealed([0; 4]);
        let kept = Cleanup { policy: CleanupPolicy::Compact, ..cleanup(Some(0), Some(0)) };
        for cleanup in [Cleanup::default(), kept] {
            check(&facts(&sealed), &cleanup, 1 << 60, 0, false);
            for (start, segments) in [(9, 0), (10, 1), (25, 2), (45, 4)] {
                let facts = RetentionFacts { start: Offset(start), ..facts(&sealed) };
                check(&facts, &cleanup, 1 << 60, segments, false);
            }
        }
        let both = Cleanup { policy: CleanupPolicy::CompactAndDelete, ..kept };
        check(&facts(&sealed), &both, 1 << 60, 4, true);
    }

    #[test]
    fn nothing_goes_that_an_open_transaction_or_a_pin_needs_and_it_is_said_that_it_would() {
        let sealed = sealed([0; 4]);
        for (bound, segments) in [(0, 0), (9, 0), (10, 1), (39, 3)] {
            let facts = RetentionFacts { bound: Offset(bound), ..facts(&sealed) };
            let held = Expired { segments, reaches_active: false, is_held: true };
            assert_eq!(expired(&facts, &cleanup(Some(0), Some(0)), Timestamp(1 << 60)), held);
            let kept = Expired { segments: 0, reaches_active: false, is_held: false };
            assert_eq!(expired(&facts, &cleanup(Some(1 << 40), None), Timestamp(0)), kept, "nothing is due");
        }
    }

    #[test]
    fn an_empty_active_segment_is_not_sealed() {
        let sealed = sealed([0; 4]);
        let facts = RetentionFacts { active_bytes: 0, active_timestamp: None, ..facts(&sealed) };
        check(&facts, &cleanup(Some(0), Some(0)), 1 << 60, 4, false);
    }
}
