//! Wakes tasks at a time that they have set: one that awaits what may never come, and has something to do by
//! then all the same.
//!
//! Everybody has one alarm, which goes off once, by the log's thread or whoever steps the log. The lock is held
//! while nothing else is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::driver::{Driver, Steps};

/// The alarms of a log.
pub(crate) struct Alarms {
    clock: Arc<dyn Clock>,
    driver: Arc<Driver>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the alarm's number: when it goes off, on the clock's elapsed time, and who is woken.
    set: BTreeMap<u64, (Duration, Waker)>,
    next: u64,
    /// Nobody steps any more.
    is_over: bool,
}

/// Somebody's alarm. It does not go off once it is dropped.
pub(crate) struct Alarm {
    alarms: Arc<Alarms>,
    number: u64,
}

impl Alarms {
    pub(crate) fn new(clock: Arc<dyn Clock>, driver: Arc<Driver>) -> Arc<Self> {
        Arc::new(Self { clock, driver, state: Mutex::default() })
    }

    /// An alarm that is not set.
    pub(crate) fn alarm(self: &Arc<Self>) -> Alarm {
        let mut state = self.state.lock();
        state.next += 1;
        Alarm { alarms: self.clone(), number: state.next }
    }

    /// How long there is nothing to do unless something happens.
    pub(crate) fn idle_time(&self) -> Option<Duration> {
        let due = self.state.lock().set.values().map(|(due, _)| *due).min()?;
        Some(due.saturating_sub(self.clock.elapsed()))
    }

    /// Nobody steps from now on: who waits is woken now, and never again.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        let set = std::mem::take(&mut state.set);
        drop(state);
        set.into_values().for_each(|(_, waker)| waker.wake());
    }
}

impl Alarm {
    /// Wakes `waker` when the clock's elapsed time is `due`, instead of who was to be woken before.
    pub(crate) fn set(&self, due: Duration, waker: &Waker) {
        let waker = waker.clone();
        let mut state = self.alarms.state.lock();
        if state.is_over {
            return;
        }
        let is_first = state.set.values().all(|(other, _)| due < *other);
        let replaced = state.set.insert(self.number, (due, waker));
        drop(state);
        // With it a task may go that has an alarm too: no lock is held then.
        drop(replaced);
        if is_first {
            // Whoever sleeps until the next one is due sleeps for too long.
            self.alarms.driver.raise();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let left = self.alarms.state.lock().set.remove(&self.number);
        // A waker may drop what takes locks: none is held then.
        drop(left);
    }
}

impl Steps for Alarms {
    fn step(&self) -> bool {
        let now = self.clock.elapsed();
        let mut state = self.state.lock();
        let due: Vec<_> = state.set.extract_if(.., |_, (due, _)| *due <= now).collect();
        drop(state);
        let is_any = !due.is_empty();
        due.into_iter().for_each(|(_, (_, waker))| waker.wake());
        is_any
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Weak, mpsc};

    use futures::task::{ArcWake, waker};

    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::spawn::{Drive, spawn};

    #[derive(Default)]
    struct Woken(Mutex<usize>);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            *woken.0.lock() += 1;
        }
    }

    fn alarms() -> (Arc<ManualClock>, Arc<Alarms>) {
        let clock = ManualClock::new();
        let alarms = Arc::new_cyclic(|this: &Weak<Alarms>| Alarms {
            clock: clock.clone(),
            driver: Driver::new(Drive::Manual, this.clone()),
            state: Mutex::default(),
        });
        (clock, alarms)
    }

    #[test]
    fn an_alarm_goes_off_once_when_it_was_set_for_last_and_not_before() {
        let (clock, alarms) = alarms();
        let (woken, alarm) = (Arc::<Woken>::default(), alarms.alarm());
        alarm.set(Duration::from_secs(1), &waker(woken.clone()));
        alarm.set(Duration::from_secs(3), &waker(woken.clone()));
        clock.advance(Duration::from_secs(2));
        assert_eq!(alarms.idle_time(), Some(Duration::from_secs(1)));
        assert!(!alarms.step() && *woken.0.lock() == 0);
        clock.advance(Duration::from_secs(1));
        assert!(alarms.step());
        assert!(!alarms.step() && *woken.0.lock() == 1);
        assert_eq!(alarms.idle_time(), None);
    }

    #[test]
    fn whoever_sleeps_because_no_alarm_is_set_wakes_for_the_first_that_is() {
        const LONG: Duration = Duration::from_secs(10);
        let clock = SystemClock::new();
        let alarms = Arc::new_cyclic(|this: &Weak<Alarms>| Alarms {
            clock: clock.clone(),
            driver: Driver::new(Drive::Thread, this.clone()),
            state: Mutex::default(),
        });
        let (is_stopping, stepping) = (Arc::<AtomicBool>::default(), alarms.clone());
        let stops = is_stopping.clone();
        let stepper = spawn("step", move || {
            let stops = || stops.load(Ordering::SeqCst);
            stepping.driver.run(stops, || stepping.step(), || stepping.idle_time());
        });
        let alarm = alarms.alarm();
        for round in 0..100 {
            let (rings, rung) = mpsc::channel();
            let rings = Mutex::new(rings);
            // Whoever waits has gone once a round is over.
            alarm.set(
                clock.elapsed(),
                &waker(Arc::new(Calls(move || rings.lock().send(()).unwrap_or_default()))),
            );
            rung.recv_timeout(LONG).unwrap_or_else(|_| panic!("round {round}: nobody woke for the alarm"));
        }
        is_stopping.store(true, Ordering::SeqCst);
        alarms.driver.raise();
        stepper.expect("a thread").join().expect("no panic");
    }

    /// Calls something when it is woken.
    struct Calls<F>(F);

    impl<F: Fn() + Send + Sync> ArcWake for Calls<F> {
        fn wake_by_ref(calls: &Arc<Self>) {
            calls.0();
        }
    }

    #[test]
    fn what_is_dropped_does_not_go_off_and_when_nobody_steps_any_more_all_do() {
        let (clock, alarms) = alarms();
        let [dropped, kept] = [(); 2].map(|()| Arc::<Woken>::default());
        let [one, other] = [&dropped, &kept].map(|woken| {
            let alarm = alarms.alarm();
            alarm.set(Duration::from_secs(1), &waker(woken.clone()));
            alarm
        });
        drop(one);
        alarms.give_up();
        other.set(Duration::from_secs(1), &waker(kept.clone()));
        clock.advance(Duration::from_secs(2));
        assert!(!alarms.step());
        assert_eq!((*dropped.0.lock(), *kept.0.lock()), (0, 1));
    }
}
