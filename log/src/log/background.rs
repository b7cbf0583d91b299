//! What a log does beside its callers, and the thread that does it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::alarms::Alarms;
use crate::consistent_cut::Standstill;
use crate::driver::{Driver, Steps};
use crate::flusher::Flusher;
use crate::group::GroupCoordinator;
use crate::progress::Progress;
use crate::spawn::{Drive, spawn};
use crate::transaction::{Coordinator, TransactionLimits};
use crate::upkeep::Upkeep;

use super::LogOptions;

/// The work that is stepped. Outlives the log for as long as a ticket is held.
pub(super) struct Core {
    pub(super) driver: Arc<Driver>,
    pub(super) flusher: Arc<Flusher>,
    pub(super) coordinator: Coordinator,
    pub(super) upkeep: Upkeep,
    pub(super) groups: GroupCoordinator,
    /// Tells who reads that there may be more, or that their group has changed.
    pub(super) progress: Arc<Progress>,
    /// Wakes who awaits more in time to do what cannot wait for it.
    pub(super) alarms: Arc<Alarms>,
    is_stopping: AtomicBool,
}

impl Core {
    pub(super) fn new(directory: &Path, options: &LogOptions) -> Arc<Self> {
        let LogOptions { storage, clock, drive, .. } = options;
        Arc::new_cyclic(|this: &Weak<Self>| {
            let driver = Driver::new(*drive, this.clone());
            let limits = TransactionLimits {
                timeout_max: options.transaction_timeout_max,
                id_expiration: options.transactional_id_expiration,
            };
            let standstill = Arc::<Standstill>::default();
            let flusher = Arc::new(Flusher::new(clock.clone(), driver.clone(), standstill.clone()));
            flusher.record_every(options.recovery_point_interval);
            let coordinator = Coordinator::new(
                flusher.clone(),
                standstill,
                driver.clone(),
                clock.clone(),
                storage.clone(),
                directory,
                limits,
            );
            let upkeep =
                Upkeep::new(options.upkeep, options.seed, clock.clone(), driver.clone(), flusher.clone());
            let progress = Arc::<Progress>::default();
            let groups = GroupCoordinator::new(
                options.groups,
                clock.clone(),
                driver.clone(),
                flusher.clone(),
                progress.clone(),
            );
            let alarms = Alarms::new(clock.clone(), driver.clone());
            let is_stopping = AtomicBool::new(false);
            Self { driver, flusher, coordinator, upkeep, groups, progress, alarms, is_stopping }
        })
    }
}

impl Steps for Core {
    fn step(&self) -> bool {
        let works: [&dyn Steps; 5] =
            [&*self.flusher, &self.coordinator, &self.upkeep, &self.groups, &*self.alarms];
        works.into_iter().fold(false, |progressed, work| work.step() | progressed)
    }
}

/// The log's thread, under [`Drive::Thread`].
pub(super) struct Background {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(super) fn start(core: Arc<Core>) -> io::Result<Self> {
        let thread = match core.driver.drive() {
            Drive::Manual => None,
            Drive::Thread => {
                let core = core.clone();
                Some(spawn("lotic-log", move || core.run())?)
            }
        };
        Ok(Self { core, thread })
    }

    /// Ends the thread, unless it is the one that calls.
    pub(super) fn stop(&mut self) {
        self.core.is_stopping.store(true, Ordering::Release);
        self.core.driver.raise();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread has panicked");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Core {
    fn run(&self) {
        let _answers = AnswerAtTheEnd(self);
        let is_stopping = || self.is_stopping.load(Ordering::Acquire);
        self.driver.run(is_stopping, || self.step(), || self.idle_time());
    }
}

impl Core {
    fn idle_time(&self) -> Option<Duration> {
        let Self { flusher, coordinator, upkeep, groups, alarms, .. } = self;
        let idle = [
            flusher.idle_time(),
            coordinator.idle_time(),
            upkeep.idle_time(),
            groups.idle_time(),
            alarms.idle_time(),
        ];
        idle.into_iter().flatten().min()
    }
}

/// Leaves nobody waiting for a thread that has ended or panicked.
struct AnswerAtTheEnd<'a>(&'a Core);

impl Drop for AnswerAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.flusher.give_up();
        self.0.coordinator.give_up();
        self.0.upkeep.give_up();
        self.0.groups.give_up();
        self.0.alarms.give_up();
    }
}
