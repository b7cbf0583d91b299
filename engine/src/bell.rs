//! What a thread sleeps on between two steps.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::channel::Waker;

/// Wakes one sleeper. A ring while nobody sleeps is kept: the next wait returns at once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        let mut rung = self.rung.lock();
        if !*rung {
            *rung = true;
            self.changed.notify_one();
        }
    }

    /// Waits for a ring since the last wait, or for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.changed.wait_for(&mut rung, timeout);
        }
        *rung = false;
    }

    /// A waker that rings it.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        let bell = Arc::clone(self);
        Arc::new(move || bell.ring())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_lost_and_counts_once() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        bell.wait(Duration::MAX);
        assert!(!*bell.rung.lock(), "both rings are used up");
        bell.wait(Duration::ZERO);
    }

    #[test]
    fn a_sleeper_is_woken_by_another_thread() {
        let bell = Arc::<Bell>::default();
        let waker = bell.waker();
        let ringer = lotic_log::spawn::spawn("ringer", move || waker()).unwrap();
        bell.wait(Duration::MAX);
        ringer.join().unwrap();
    }
}
