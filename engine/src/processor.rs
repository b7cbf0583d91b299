//! The long-lived thing: restores, runs, restarts, drains and stops.
//!
//! ```text
//!   start ──▶ Opening ──▶ Running ── finished, or stopped and committed ──▶ (ends, Ok)
//!                ▲           │
//!                │ backoff   │ Restart or Unknown, attempts left
//!                └───────────┴── any other error, or none left ──▶ (ends, Err)
//! ```
//!
//! Each worker has a thread, and so has the conductor, which also supervises: it opens the next attempt
//! when one has failed. Threads sleep on their bells; `WAKE_FALLBACK` bounds what a lost ring could cost.
//! A thread that is stuck, in a user's code or on a disk, is waited for as long as a stop may take and then
//! left behind; no other attempt is made beside it.
//! A refusal (a changed topology, a topic with another partition count) comes back from
//! [`Processor::start`], before any thread is there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lotic_log::Clock;
use lotic_log::spawn::spawn;
use parking_lot::Mutex;

use crate::bell::Bell;
use crate::checkpointer::Checkpointer;
use crate::conductor::{Conductor, Standing};
use crate::counters::Counters;
use crate::engine::{Engine, EngineParts, EngineSetup, counters_for};
use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::EventLog;
use crate::graph::Graph;
use crate::metrics::{Metrics, StepMetrics};
use crate::options::{EngineOptions, RestartOptions};
use crate::seat::Seat;
use crate::state::StateHome;

/// How long a thread sleeps at most without being woken. Every wake-up there is rings a bell; this is for
/// what nobody announces, like another process that appends to a topic.
const WAKE_FALLBACK: Duration = Duration::from_millis(100);

/// What a worker that is not stuck is given to drop what it holds, when a stop has used up its time.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// Opens the log anew for each attempt: one that failed may have left it poisoned.
pub type OpenLog = Box<dyn FnMut() -> Result<Arc<dyn EventLog>> + Send>;

/// Whether something outside the processor asks it to stop while it is being opened, when there is none yet that could
/// be told: a signal to the process.
pub type IsStopping = Box<dyn Fn() -> bool + Send>;

/// What a processor runs, and on what.
pub struct ProcessorSetup {
    /// The flow.
    pub graph: Graph,
    /// Opens the log.
    pub open_log: OpenLog,
    /// Where state lives.
    pub home: Arc<dyn StateHome>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// The settings.
    pub options: EngineOptions,
    /// Asked while state is restored.
    pub is_stopping: IsStopping,
}

/// A flow that runs on threads of its own until its bounded input has ended, it is stopped, or it fails.
///
/// Dropping it stops it and waits.
pub struct Processor {
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<Result<()>>>,
}

/// What the supervisor and the processor's owner share.
struct Shared {
    is_stopping: AtomicBool,
    has_ended: AtomicBool,
    /// Rung when it has ended.
    owner_bell: Bell,
    /// The bell of the present attempt's conductor.
    bell: Mutex<Arc<Bell>>,
    steps: Vec<String>,
    counters: Vec<Arc<Counters>>,
    last_committed: AtomicU64,
    restarts: AtomicU64,
    checkpoints: AtomicU64,
    state_bytes: AtomicUsize,
}

impl Processor {
    /// Opens the flow where its last committed epoch left it, and starts it.
    ///
    /// # Errors
    /// Those of [`Engine::open`]; the directory is as it was then. Not so with [`ErrorKind::Stopped`]: topics that were
    /// missing have been made, and state has been restored in part.
    pub fn start(mut setup: ProcessorSetup) -> Result<Self> {
        let shared = Arc::new(Shared::of(&setup.graph));
        let first = setup.open(&shared)?;
        let supervised = Arc::clone(&shared);
        let supervisor = spawn("lotic-conductor", move || {
            let _said_at_last = SayEnded(&supervised);
            setup.supervise(first, &supervised)
        });
        let supervisor = supervisor.map_err(|error| no_thread("the conductor", error))?;
        Ok(Self { shared, supervisor: Some(supervisor) })
    }

    /// Asks for an end: what has been read is committed, then the processor ends. Returns at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Whether it has ended, one way or the other.
    pub fn has_ended(&self) -> bool {
        self.supervisor.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end, but no longer than `timeout`. Whether it has come.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        if !self.shared.has_ended.load(Ordering::SeqCst) {
            self.shared.owner_bell.wait(timeout);
        }
        self.shared.has_ended.load(Ordering::SeqCst)
    }

    /// Waits for the end. After [`Self::stop`] the flow is given [`EngineOptions::stop_timeout`] to commit what it has
    /// read, and its threads, a second at least, to come back; whatever is stuck is left behind then. What comes after
    /// has no limit of its own, since it could not be left halfway: RocksDB writes out what it has in memory, and
    /// whoever drops the log has it synced and closed. Both take as long as the disk needs for it.
    ///
    /// # Errors
    /// The error that ended it; [`ErrorKind::Restart`] if a stop took too long.
    pub fn wait(mut self) -> Result<()> {
        self.join()
    }

    /// What it tells about itself now.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    fn join(&mut self) -> Result<()> {
        let Some(supervisor) = self.supervisor.take() else { return Ok(()) };
        let panicked = |_| Err(Error::new(ErrorKind::User, "the conductor panicked"));
        supervisor.join().unwrap_or_else(panicked)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.shared.stop();
        if let Err(error) = self.join() {
            tracing::error!(%error, "the processor was dropped and ended with an error");
        }
    }
}

/// Tells the owner that the processor has ended, also where a thread panicked.
struct SayEnded<'a>(&'a Shared);

impl Drop for SayEnded<'_> {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
        self.0.owner_bell.ring();
    }
}

impl Shared {
    fn of(graph: &Graph) -> Self {
        Self {
            is_stopping: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            owner_bell: Bell::default(),
            bell: Mutex::default(),
            steps: graph.nodes.iter().map(|node| node.name.clone()).collect(),
            counters: counters_for(graph),
            last_committed: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            state_bytes: AtomicUsize::new(0),
        }
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.bell.lock().ring();
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Lets so much time pass, however often the bell of the attempt that has failed still rings. Whether all
    /// of it has passed: a stop cuts it short.
    fn pause(&self, clock: &dyn Clock, pause: Duration) -> bool {
        let bell = Arc::<Bell>::default();
        *self.bell.lock() = Arc::clone(&bell);
        let until = clock.elapsed() + pause;
        while !self.is_stopping() {
            let left = until.saturating_sub(clock.elapsed());
            if left.is_zero() {
                return true;
            }
            bell.wait(left.min(WAKE_FALLBACK));
        }
        false
    }

    fn publish(&self, conductor: &Conductor) {
        self.last_committed.store(conductor.last_committed().0, Ordering::Relaxed);
        self.state_bytes.store(conductor.state_bytes(), Ordering::Relaxed);
    }

    fn metrics(&self) -> Metrics {
        let step = |(step, counters): (&String, &Arc<Counters>)| StepMetrics {
            step: step.clone(),
            received: counters.received.get(),
            emitted: counters.emitted.get(),
            late: counters.late.get(),
            late_idle: counters.late_idle.get(),
            skipped: counters.skipped.get(),
            dead_lettered: counters.dead_lettered.get(),
        };
        Metrics {
            last_committed: Epoch(self.last_committed.load(Ordering::Relaxed)),
            restarts: self.restarts.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            state_bytes: self.state_bytes.load(Ordering::Relaxed),
            steps: self.steps.iter().zip(&self.counters).map(step).collect(),
        }
    }
}

impl ProcessorSetup {
    fn open(&mut self, shared: &Shared) -> Result<Engine> {
        let engine = Engine::open(EngineSetup {
            graph: &self.graph,
            log: (self.open_log)()?,
            home: Arc::clone(&self.home),
            clock: Arc::clone(&self.clock),
            counters: &shared.counters,
            options: &self.options,
            is_stopping: &|| shared.is_stopping() || (self.is_stopping)(),
        })?;
        shared.last_committed.store(engine.last_committed().0, Ordering::Relaxed);
        Ok(engine)
    }

    /// Runs attempt after attempt until one ends well, or badly for good.
    fn supervise(mut self, first: Engine, shared: &Shared) -> Result<()> {
        let mut backoff = Backoff::new(self.options.restarts.clone());
        let mut attempt = Ok(first);
        loop {
            let committed_before = shared.last_committed.load(Ordering::Relaxed);
            let ended = attempt.and_then(|engine| self.run(engine, shared));
            let Err(error) = ended else { return Ok(()) };
            if !is_worth_another_attempt(&error) || shared.is_stopping() {
                return Err(error);
            }
            if shared.last_committed.load(Ordering::Relaxed) > committed_before {
                backoff.reset();
            }
            let Some(pause) = backoff.next() else {
                let attempts = self.options.restarts.attempts_max;
                return Err(error.within(format_args!("given up after {attempts} restarts in a row")));
            };
            tracing::warn!(flow = self.graph.name, %error, ?pause, "the flow failed and is started again");
            if !shared.pause(&*self.clock, pause) {
                return Err(error);
            }
            shared.restarts.fetch_add(1, Ordering::Relaxed);
            attempt = match self.open(shared) {
                // As where the pause before was cut short.
                Err(stopped) if stopped.kind() == ErrorKind::Stopped => return Err(error),
                opened => opened,
            };
        }
    }

    /// Runs one attempt to its end. All that it held is given up by then.
    fn run(&self, engine: Engine, shared: &Shared) -> Result<()> {
        let EngineParts { seats, mut conductor, conductor_bell, backend, floors } = engine.into_parts();
        *shared.bell.lock() = Arc::clone(&conductor_bell);
        let mut checkpointer = Checkpointer::new(
            Arc::clone(&self.home),
            floors,
            self.options.checkpoints.clone(),
            (conductor.last_committed(), self.clock.elapsed()),
        );
        let crew = Crew::start(seats, &conductor_bell)?;
        let mut stop_by = None;
        let parts = (&mut conductor, &crew, &mut checkpointer);
        let conducted = self.conduct(parts, &conductor_bell, shared, &mut stop_by);
        let ended = conducted.and(conductor.abandon());
        shared.publish(&conductor);
        let left = |by: Duration| by.saturating_sub(self.clock.elapsed()).max(LEAVE_TIME);
        let limit = stop_by.map_or(self.options.stop_timeout, left);
        let ended = match crew.dismiss(&*self.clock, limit) {
            Ok(()) => ended,
            Err(stuck) => Err(stuck.instead_of(ended, shared.is_stopping())),
        };
        let ended = ended.and_then(|()| backend.flush());
        let taken = match &ended {
            Ok(()) => checkpointer.finish_at(conductor.last_committed(), limit),
            Err(_) => checkpointer.finish(limit),
        };
        match taken {
            Ok(taken) => shared.checkpoints.fetch_add(taken, Ordering::Relaxed),
            Err(stuck) => return Err(stuck.instead_of(ended, shared.is_stopping())),
        };
        ended
    }

    fn conduct(
        &self,
        (conductor, crew, checkpointer): (&mut Conductor, &Crew, &mut Checkpointer),
        bell: &Bell,
        shared: &Shared,
        stop_by: &mut Option<Duration>,
    ) -> Result<()> {
        loop {
            if let Some(error) = crew.failure() {
                return Err(error);
            }
            let now = self.clock.elapsed();
            if shared.is_stopping() {
                conductor.stop();
                let stop_by = *stop_by.get_or_insert(now + self.options.stop_timeout);
                if now > stop_by {
                    return Err(self.stopped_late());
                }
            }
            let progressed = conductor.step()?;
            shared.publish(conductor);
            let taken = checkpointer.step(conductor.last_committed(), now);
            shared.checkpoints.fetch_add(taken, Ordering::Relaxed);
            if conductor.standing() == Standing::Finished {
                return Ok(());
            }
            if !progressed {
                bell.wait(conductor.idle_time().map_or(WAKE_FALLBACK, |idle| idle.min(WAKE_FALLBACK)));
            }
        }
    }

    fn stopped_late(&self) -> Error {
        let (flow, limit) = (&self.graph.name, self.options.stop_timeout);
        let context = format!(
            "flow {flow} did not come to rest within {limit:?} of being stopped; what it had not committed \
             is done again by the next run"
        );
        Error::new(ErrorKind::Restart, context)
    }
}

/// The worker threads of one attempt.
struct Crew {
    threads: Vec<(Arc<Bell>, JoinHandle<()>)>,
    orders: Arc<Orders>,
    /// Rung by each that is done.
    bell: Arc<Bell>,
}

/// What the threads of a crew share.
#[derive(Default)]
struct Orders {
    is_dismissed: AtomicBool,
    /// How many threads have given up all they held.
    done: AtomicUsize,
    failure: Mutex<Option<Error>>,
}

/// Tells the conductor that a worker has given up all it held, also where it panicked while it did.
struct SayDone {
    orders: Arc<Orders>,
    bell: Arc<Bell>,
}

impl Drop for SayDone {
    fn drop(&mut self) {
        self.orders.done.fetch_add(1, Ordering::SeqCst);
        self.bell.ring();
    }
}

/// A thread that does not come to its end.
pub(crate) struct Stuck {
    /// Who and for how long.
    pub(crate) what: String,
}

impl Stuck {
    /// The error that ends the processor. It is none that asks for another attempt, unless a stop forbids
    /// that: nothing may be started beside a thread that still holds the state.
    fn instead_of(self, ended: Result<()>, is_stopping: bool) -> Error {
        match ended {
            Ok(()) => Error::new(ErrorKind::User, self.what),
            Err(error) if is_stopping || !is_worth_another_attempt(&error) => error.within(self.what),
            Err(error) => Error::caused(ErrorKind::User, self.what, error),
        }
    }
}

impl Crew {
    fn start(seats: Vec<Seat>, conductor_bell: &Arc<Bell>) -> Result<Self> {
        let (threads, bell) = (Vec::with_capacity(seats.len()), Arc::clone(conductor_bell));
        let mut crew = Self { threads, orders: Arc::default(), bell };
        for (worker, seat) in seats.into_iter().enumerate() {
            let (bell, orders) = (Arc::clone(seat.bell()), Arc::clone(&crew.orders));
            let done = SayDone { orders: Arc::clone(&orders), bell: Arc::clone(conductor_bell) };
            let thread = spawn(&format!("lotic-worker-{worker}"), move || {
                let said_at_last = done;
                if let Err(error) = work(seat, worker, &orders) {
                    orders.failure.lock().get_or_insert(error);
                    said_at_last.bell.ring();
                }
            });
            match thread {
                Ok(thread) => crew.threads.push((bell, thread)),
                Err(error) => {
                    // Those that were started have nothing to do yet, and are gone before long.
                    crew.call_off();
                    return Err(no_thread(&format!("worker {worker}"), error));
                }
            }
        }
        Ok(crew)
    }

    /// The first error of a worker, once.
    fn failure(&self) -> Option<Error> {
        self.orders.failure.lock().take()
    }

    /// Has the threads end.
    fn call_off(&self) {
        self.orders.is_dismissed.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(|(bell, _)| bell.ring());
    }

    /// Ends the threads, and waits for them: whoever comes next finds the state closed. But no longer than
    /// `limit`: one that is stuck in a user's code is left behind.
    fn dismiss(self, clock: &dyn Clock, limit: Duration) -> Result<(), Stuck> {
        self.call_off();
        let until = clock.elapsed() + limit;
        loop {
            let missing = self.threads.len() - self.orders.done.load(Ordering::SeqCst);
            if missing == 0 {
                break;
            }
            if clock.elapsed() >= until {
                let what =
                    format!("{missing} workers did not come back within {limit:?} and are left behind");
                return Err(Stuck { what });
            }
            self.bell.wait(WAKE_FALLBACK);
        }
        for (_, thread) in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked while it was dropped");
            }
        }
        Ok(())
    }
}

/// The life of a worker's thread. A panic of a user's closure is an error like any other.
fn work(mut seat: Seat, worker: usize, orders: &Orders) -> Result<()> {
    while !orders.is_dismissed.load(Ordering::SeqCst) {
        let stepped = catch_unwind(AssertUnwindSafe(|| seat.step()));
        let stepped = stepped.unwrap_or_else(|panic| Err(panicked(worker, &*panic)))?;
        if !stepped {
            seat.bell().wait(WAKE_FALLBACK);
        }
    }
    Ok(())
}

fn panicked(worker: usize, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let context = format!("worker {worker} panicked: {}", text.unwrap_or("without a message"));
    Error::new(ErrorKind::User, context)
}

fn no_thread(whose: &str, error: std::io::Error) -> Error {
    Error::caused(ErrorKind::Io, format!("no thread could be started for {whose}"), error)
}

/// Whether starting again may help. A fenced processor, a full disk or a wrong program stays as it is.
fn is_worth_another_attempt(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Restart | ErrorKind::Unknown)
}

/// How long to wait before the next attempt, and whether to make one.
struct Backoff {
    options: RestartOptions,
    /// Attempts in a row that committed nothing.
    attempts: u32,
}

impl Backoff {
    fn new(options: RestartOptions) -> Self {
        Self { options, attempts: 0 }
    }

    fn reset(&mut self) {
        self.attempts = 0;
    }

    fn next(&mut self) -> Option<Duration> {
        if self.attempts == self.options.attempts_max {
            return None;
        }
        let doubled = 2u32.saturating_pow(self.attempts);
        self.attempts += 1;
        Some(self.options.backoff.saturating_mul(doubled).min(self.options.backoff_max))
    }
}

#[cfg(test)]
mod tests;
