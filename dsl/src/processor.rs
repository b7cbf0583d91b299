//! [`Processor`]: runs flows on a directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lotic_engine::checkpoint::DiskState;
use lotic_engine::error::{Error, ErrorKind, Result};
use lotic_engine::graph::Graph;
use lotic_engine::metrics::Metrics;
use lotic_engine::options::EngineOptions;
use lotic_engine::processor::{Processor as EngineProcessor, ProcessorSetup};
use lotic_engine::state::{MemoryState, RocksOptions, StateHome};
use lotic_log::{Durability, Log, SystemClock};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::flow::Flow;
use crate::shared_log::SharedLog;

/// How a signal is noticed at the latest.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How flows are run. No setting changes a result.
///
/// ```
/// use lotic::prelude::*;
///
/// let options = ProcessorOptions { workers: 2, epoch_interval: 10.millis(), ..Default::default() };
/// ```
#[derive(Clone, Debug)]
pub struct ProcessorOptions {
    /// How many threads share the work.
    pub workers: usize,
    /// How long an epoch runs before it is committed: about what a result waits, and what a restart
    /// computes again at most.
    pub epoch_interval: Duration,
    /// When what is written counts as written. All topics of the log share it.
    pub durability: Durability,
    /// Everything else, with a reason for each default; the settings above go before those of the same
    /// name here.
    pub engine: EngineOptions,
}

impl Default for ProcessorOptions {
    /// One worker, epochs of 100 ms, everything synced before it counts.
    fn default() -> Self {
        let engine = EngineOptions::default();
        let (workers, epoch_interval) = (engine.workers, engine.epoch_interval);
        Self { workers, epoch_interval, durability: Durability::Sync, engine }
    }
}

/// Runs flows on the log in a directory, one after the other or side by side.
///
/// The directory holds the log with its topics, and the flows' state beside it. One process has it open at
/// a time; a second one is refused with the name of the first.
///
/// ```
/// use lotic::prelude::*;
///
/// # let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
/// # let directory = folder.path();
/// let processor = Processor::open(directory)?;
/// let mut flow = Flow::new("echo");
/// # processor.log().create_topic("words", Default::default()).map_err(|error| error.to_string())?;
/// flow.topic::<String>("words").record_time(Lateness::none()).to("echoed");
/// assert_eq!(processor.run_to_end(flow)?, Ending::InputUsedUp);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Processor {
    options: ProcessorOptions,
    log: Arc<SharedLog>,
}

/// Where a run stops reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At the end that each topic and file has when the flow starts.
    End,
    /// When it is told to stop.
    Stopped,
}

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All input was read, and everything that follows from it is committed.
    InputUsedUp,
    /// It was told to stop; what had been read by then is committed.
    Stopped,
}

impl Processor {
    /// Opens the log in `directory`, which is made if it is not there, with the default options.
    ///
    /// # Errors
    ///
    /// `Locked` if another process has it open, naming that; `Corrupt` where bytes on disk are not what was
    /// written; `Io`.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(directory, ProcessorOptions::default())
    }

    /// [`open`](Self::open) with other options.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_with(directory: impl AsRef<Path>, options: ProcessorOptions) -> Result<Self> {
        let log = SharedLog::open(directory.as_ref(), options.durability, SystemClock::new())?;
        Ok(Self { options, log })
    }

    /// The log, to make, read and write topics with. It is closed, and another one opened, if a flow fails
    /// on it and is started again: ask anew rather than keep it.
    pub fn log(&self) -> Log {
        self.log.log()
    }

    /// Runs a flow until the process is told to end, by SIGTERM or SIGINT. What has been read by then is
    /// committed first.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and what stops the flow when it runs.
    pub fn run(&self, flow: Flow) -> Result<()> {
        self.start(flow, Until::Stopped)?.wait_or_signal().map(drop)
    }

    /// Runs a flow up to the end that its input has now, unless the process is told to end before.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_to_end(&self, flow: Flow) -> Result<Ending> {
        self.start(flow, Until::End)?.wait_or_signal()
    }

    /// Starts a flow on threads of its own.
    ///
    /// # Errors
    ///
    /// `Invalid` for a program that cannot be, as [`Flow::graph`] says, or one whose sinks cannot promise
    /// what is asked for; `Incompatible` where the directory was made by another program. Nothing is changed
    /// then.
    pub fn start(&self, flow: Flow, until: Until) -> Result<Running> {
        let graph = flow.graph()?;
        let mut engine = self.options.engine.clone();
        engine.workers = self.options.workers;
        engine.epoch_interval = self.options.epoch_interval;
        engine.bounded = until == Until::End;
        let setup = ProcessorSetup {
            open_log: self.log.holds(&graph.name),
            home: self.state_home(&graph),
            clock: Arc::clone(self.log.clock()),
            options: engine,
            graph,
        };
        Ok(Running { processor: EngineProcessor::start(setup)? })
    }

    /// Where a flow's state lives: nowhere if it has none, so that no database is opened for it.
    fn state_home(&self, graph: &Graph) -> Arc<dyn StateHome> {
        if graph.nodes.iter().all(|node| node.stores.is_empty()) {
            return Arc::new(MemoryState::new());
        }
        Arc::new(DiskState::new(self.log.directory(), &graph.name, RocksOptions::default()))
    }
}

/// A flow that runs. Dropping it stops it and waits.
pub struct Running {
    processor: EngineProcessor,
}

impl Running {
    /// What it counts now.
    pub fn metrics(&self) -> Metrics {
        self.processor.metrics()
    }

    /// Asks for an end: what has been read is committed first. Returns at once.
    pub fn stop(&self) {
        self.processor.stop();
    }

    /// Waits for the end, at most `timeout` long. Whether it has come.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        self.processor.wait_for(timeout)
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// What stopped the flow.
    pub fn wait(self) -> Result<()> {
        self.processor.wait()
    }

    /// Waits for the end, or for SIGTERM or SIGINT, which bring it about.
    ///
    /// # Errors
    ///
    /// What stopped the flow; `Io` if signals cannot be listened to.
    pub fn wait_or_signal(self) -> Result<Ending> {
        self.wait_or_signal_with(|_| {})
    }

    /// [`wait_or_signal`](Self::wait_or_signal), showing `look` how far the flow is every 50 ms.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn wait_or_signal_with(self, mut look: impl FnMut(&Metrics)) -> Result<Ending> {
        let signals = Signals::listen()?;
        while !self.wait_for(SIGNAL_CHECK_INTERVAL) {
            if signals.have_come() {
                self.stop();
            }
            look(&self.metrics());
        }
        look(&self.metrics());
        self.wait()?;
        Ok(if signals.have_come() { Ending::Stopped } else { Ending::InputUsedUp })
    }
}

/// Listens to the signals that ask a process to end, as long as it lives.
struct Signals {
    has_come: Arc<AtomicBool>,
    registrations: Vec<signal_hook::SigId>,
}

impl Signals {
    fn listen() -> Result<Self> {
        let mut signals = Self { has_come: Arc::default(), registrations: Vec::new() };
        for signal in [SIGTERM, SIGINT] {
            let registered = signal_hook::flag::register(signal, Arc::clone(&signals.has_come));
            let registered = registered
                .map_err(|error| Error::caused(ErrorKind::Io, "signals cannot be listened to", error))?;
            signals.registrations.push(registered);
        }
        Ok(signals)
    }

    fn have_come(&self) -> bool {
        self.has_come.load(Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for registration in self.registrations.drain(..) {
            signal_hook::low_level::unregister(registration);
        }
    }
}
