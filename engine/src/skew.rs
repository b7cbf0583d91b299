//! How far sources are, across workers, so that none runs far ahead of the others.
//!
//! A preference, never a condition for progress: the source that is furthest behind may always be read,
//! one that has nothing at hand holds nobody back, and barriers pass through a source that waits.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use lotic_log::Timestamp;

use crate::channel::Waker;

/// The next event time of each worker's sources, where every worker sees it.
pub(crate) struct SkewBoard {
    skew_ms_max: i64,
    workers: Vec<Place>,
}

struct Place {
    /// The earliest event time at hand; [`NOTHING_AT_HAND`] without.
    next: AtomicI64,
    /// Whether the worker holds a source back because of the others.
    waits: AtomicBool,
    waker: Waker,
}

const NOTHING_AT_HAND: i64 = i64::MAX;

impl SkewBoard {
    /// A board for as many workers as there are wakers; a source may be `skew_ms_max` of event time ahead.
    pub(crate) fn new(skew_ms_max: i64, wakers: &[Waker]) -> Self {
        let place = |waker: &Waker| Place {
            next: AtomicI64::new(NOTHING_AT_HAND),
            waits: AtomicBool::new(false),
            waker: waker.clone(),
        };
        Self { skew_ms_max, workers: wakers.iter().map(place).collect() }
    }

    /// `worker`'s next record has this event time. Wakes those that waited for it to go on.
    pub(crate) fn publish(&self, worker: usize, next: Option<Timestamp>) {
        let next = next.map_or(NOTHING_AT_HAND, |time| time.0);
        let before = self.workers[worker].next.swap(next, Ordering::SeqCst);
        if next <= before {
            return;
        }
        for other in &self.workers {
            if other.waits.load(Ordering::SeqCst) && other.waits.swap(false, Ordering::SeqCst) {
                (other.waker)();
            }
        }
    }

    /// Whether `worker` may read a record of this event time now. If not, it is woken when another worker
    /// has gone on.
    pub(crate) fn may_read(&self, worker: usize, time: Timestamp) -> bool {
        if self.is_near(worker, time) {
            return true;
        }
        self.workers[worker].waits.store(true, Ordering::SeqCst);
        // The others may have gone on before they could see that this worker waits.
        self.is_near(worker, time)
    }

    fn is_near(&self, worker: usize, time: Timestamp) -> bool {
        let others = self.workers.iter().enumerate().filter(|(other, _)| *other != worker);
        let slowest = others.map(|(_, place)| place.next.load(Ordering::SeqCst)).min();
        slowest.is_none_or(|slowest| time.0 <= slowest.saturating_add(self.skew_ms_max))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn board(workers: usize) -> (SkewBoard, Vec<Arc<AtomicUsize>>) {
        let woken: Vec<Arc<AtomicUsize>> = (0..workers).map(|_| Arc::default()).collect();
        let waker = |count: &Arc<AtomicUsize>| -> Waker {
            let count = Arc::clone(count);
            Arc::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            })
        };
        let wakers: Vec<Waker> = woken.iter().map(waker).collect();
        (SkewBoard::new(100, &wakers), woken)
    }

    #[test]
    fn a_source_waits_while_it_is_too_far_ahead_of_the_slowest_that_has_data() {
        let (board, _) = board(3);
        board.publish(1, Some(Timestamp(50)));
        board.publish(2, Some(Timestamp(500)));
        assert!(board.may_read(0, Timestamp(150)));
        assert!(!board.may_read(0, Timestamp(151)));
        assert!(board.may_read(1, Timestamp(50)), "the slowest one may always be read");
        board.publish(1, None);
        assert!(board.may_read(0, Timestamp(600)), "one without data holds nobody back");
    }

    #[test]
    fn who_waits_is_woken_when_another_goes_on() {
        let (board, woken) = board(2);
        board.publish(1, Some(Timestamp(0)));
        assert!(!board.may_read(0, Timestamp(1_000)));
        assert_eq!(woken[0].load(Ordering::SeqCst), 0);
        board.publish(1, Some(Timestamp(10)));
        assert_eq!(woken[0].load(Ordering::SeqCst), 1);
        board.publish(1, Some(Timestamp(20)));
        assert_eq!(woken[0].load(Ordering::SeqCst), 1, "once, until it has asked again");
    }

    #[test]
    fn one_worker_alone_never_waits() {
        let (board, _) = board(1);
        board.publish(0, Some(Timestamp(0)));
        assert!(board.may_read(0, Timestamp(i64::MAX)));
    }
}
