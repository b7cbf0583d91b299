//! Tells whoever reads at the end of a log that there may be more to read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Counts how often something became readable; readers wait for the count to move. One for all
/// partitions of a log: a reader that is woken looks at its own. Raising it costs two atomic operations
/// where nobody waits.
///
/// No wake-up is lost: the count moves before the waiters are looked for, and a waiter is there to be
/// found before it looks at the count, all sequentially consistent. Its lock is taken last of all: a
/// partition raises it while it holds its writer, and a waker that is woken there must only schedule.
#[derive(Debug, Default)]
pub struct Progress {
    count: AtomicU64,
    /// How many wait or have left a waker.
    waiters: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
    moved: Condvar,
}

impl Progress {
    /// The count now: to be taken before looking for something to read.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Something may have become readable.
    pub(crate) fn raise(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// Blocks until the count is not `seen` any more, at most so long. Returns whether it is not.
    pub fn wait(&self, seen: u64, timeout: Duration) -> bool {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut wakers = self.wakers.lock();
        let timed_out = self.moved.wait_while_for(&mut wakers, |_| self.count() == seen, timeout);
        drop(wakers);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        !timed_out.timed_out()
    }

    /// Leaves a waker to be woken when the count is not `seen` any more; false if that is so already.
    pub fn register(&self, seen: u64, waker: &Waker) -> bool {
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|left| left.will_wake(waker)) {
            wakers.push(waker.clone());
            self.waiters.fetch_add(1, Ordering::SeqCst);
        }
        // A waker that turns out not to be needed stays: woken once too often does no harm.
        self.count() == seen
    }

    #[cold]
    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock());
        self.waiters.fetch_sub(wakers.len(), Ordering::SeqCst);
        self.moved.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spawn::spawn;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_waiter_wakes_when_the_count_moves_and_not_before() {
        let progress = Arc::new(Progress::default());
        let seen = progress.count();
        assert!(!progress.wait(seen, Duration::from_millis(1)), "nothing moved");
        let raiser = progress.clone();
        let thread = spawn("raise", move || raiser.raise()).expect("a thread");
        assert!(progress.wait(seen, LONG));
        thread.join().expect("no panic");
        assert!(progress.wait(seen, Duration::ZERO), "what moved before is not waited for");
        assert_eq!(progress.waiters.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn two_threads_that_answer_each_other_never_miss_a_wake_up() {
        let (ping, pong) = (Arc::new(Progress::default()), Arc::new(Progress::default()));
        let (ping_there, pong_there) = (ping.clone(), pong.clone());
        let thread = spawn("pong", move || {
            for round in 0..20_000 {
                assert!(ping_there.wait(round, LONG));
                pong_there.raise();
            }
        });
        for round in 0..20_000 {
            ping.raise();
            assert!(pong.wait(round, LONG));
        }
        thread.expect("a thread").join().expect("no panic");
    }

    #[test]
    fn a_waker_is_woken_once_and_refused_when_the_count_has_moved() {
        let progress = Progress::default();
        let (waker, woken) = counting_waker();
        assert!(progress.register(progress.count(), &waker));
        assert!(progress.register(progress.count(), &waker), "left twice, kept once");
        progress.raise();
        progress.raise();
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(!progress.register(0, &waker));
        progress.raise();
        assert_eq!(progress.waiters.load(Ordering::SeqCst), 0);
    }

    fn counting_waker() -> (Waker, Arc<AtomicUsize>) {
        struct Count(Arc<AtomicUsize>);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let woken = Arc::<AtomicUsize>::default();
        (Waker::from(Arc::new(Count(woken.clone()))), woken)
    }
}
