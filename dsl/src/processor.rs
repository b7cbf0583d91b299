//! [`Processor`]: runs flows on a directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lotic_engine::checkpoint::DiskState;
use lotic_engine::engine::check;
use lotic_engine::error::{ErrorKind, Result};
use lotic_engine::graph::Graph;
use lotic_engine::metrics::Metrics;
use lotic_engine::options::EngineOptions;
use lotic_engine::processor::{Processor as EngineProcessor, ProcessorSetup};
use lotic_engine::state::{MemoryState, RocksOptions, StateHome};
use lotic_log::{Durability, Log, SystemClock};

use crate::flow::Flow;
use crate::shared_log::SharedLog;
use crate::signals::Signals;

/// After how long a signal is noticed at the latest.
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
/// As long as a processor is open or a flow runs, SIGTERM and SIGINT do not end the process: they stop the flows that
/// run, none is begun after them, and [`has_been_told_to_end`](Self::has_been_told_to_end) says so. With the last one
/// dropped they are what they are by default.
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
    signals: Signals,
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
    /// written; `Io`, also if signals cannot be listened to.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(directory, ProcessorOptions::default())
    }

    /// [`open`](Self::open) with other options.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_with(directory: impl AsRef<Path>, options: ProcessorOptions) -> Result<Self> {
        let signals = Signals::listen()?;
        let log = SharedLog::open(directory.as_ref(), options.durability, SystemClock::new())?;
        Ok(Self { options, log, signals })
    }

    /// The log, to make, read and write topics with. It is closed, and another one opened, if a flow fails
    /// on it and is started again: ask anew rather than keep it.
    pub fn log(&self) -> Log {
        self.log.log()
    }

    /// Whether the process was told to end, by SIGTERM or SIGINT, since a processor was first opened.
    pub fn has_been_told_to_end(&self) -> bool {
        self.signals.have_come()
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

    /// Refuses a flow that [`start`](Self::start) would refuse for how it is written, or for what is in the directory:
    /// its topics, its last epoch, the targets of its sinks. Changes nothing. For a program that runs one flow after
    /// the other, and is to find out before the first has written anything that the second cannot be.
    ///
    /// A topic that the flow reads and that is missing is no reason: an earlier flow may be about to make it. Sources
    /// are not opened, so that a file with another beginning is for `start` to refuse.
    ///
    /// ```
    /// use lotic::prelude::*;
    ///
    /// # let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    /// # let directory = folder.path();
    /// let processor = Processor::open(directory)?;
    /// let mut flow = Flow::new("echo");
    /// flow.topic::<String>("words").record_time(Lateness::none()).to("echoed").partitions(2);
    /// processor.check(&flow)?;
    ///
    /// processor.log().create_topic("echoed", Default::default()).map_err(|error| error.to_string())?;
    /// let refused = processor.check(&flow).unwrap_err();
    /// assert_eq!(refused.to_string(), "topic echoed has 1 partitions, the program declares 2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn check(&self, flow: &Flow) -> Result<()> {
        let graph = flow.graph()?;
        let log = self.log.holds(&graph.name)()?;
        check(&graph, &*log, &self.engine_options())
    }

    /// Starts a flow on threads of its own. It is not begun, and over at once, if the process
    /// [has been told to end](Self::has_been_told_to_end), also where that comes while its state is restored.
    ///
    /// # Errors
    ///
    /// `Invalid` for a program that cannot be, as [`Flow::graph`] says, or one whose sinks cannot promise
    /// what is asked for; `Incompatible` where the directory was made by another program. Nothing is changed
    /// then.
    pub fn start(&self, flow: Flow, until: Until) -> Result<Running> {
        let graph = flow.graph()?;
        let (signals, is_told) = (self.signals.clone(), AtomicBool::new(false));
        if signals.have_come() {
            return Ok(Running { processor: None, signals, is_told });
        }
        let told = signals.clone();
        let setup = ProcessorSetup {
            open_log: self.log.holds(&graph.name),
            home: self.state_home(&graph)?,
            clock: Arc::clone(self.log.clock()),
            options: EngineOptions { bounded: until == Until::End, ..self.engine_options() },
            graph,
            is_stopping: Box::new(move || told.have_come()),
        };
        let processor = match EngineProcessor::start(setup) {
            Err(error) if error.kind() == ErrorKind::Stopped => None,
            started => Some(started?),
        };
        Ok(Running { processor, signals, is_told })
    }

    fn engine_options(&self) -> EngineOptions {
        let ProcessorOptions { workers, epoch_interval, engine, .. } = &self.options;
        EngineOptions { workers: *workers, epoch_interval: *epoch_interval, ..engine.clone() }
    }

    /// Where a flow's state lives: nowhere if it has none, so that no database is opened for it.
    fn state_home(&self, graph: &Graph) -> Result<Arc<dyn StateHome>> {
        if graph.nodes.iter().all(|node| node.stores.is_empty()) {
            return Ok(Arc::new(MemoryState::new()));
        }
        Ok(Arc::new(DiskState::new(self.log.directory(), &graph.name, RocksOptions::default())?))
    }
}

/// A flow that runs. Dropping it stops it and waits.
///
/// SIGTERM and SIGINT stop it as soon as somebody waits for it, in whichever way.
pub struct Running {
    /// `None` for one that was not begun, since the process had been told to end.
    processor: Option<EngineProcessor>,
    signals: Signals,
    is_told: AtomicBool,
}

impl Running {
    /// What it counts now.
    pub fn metrics(&self) -> Metrics {
        self.processor.as_ref().map(EngineProcessor::metrics).unwrap_or_default()
    }

    /// Asks for an end: what has been read is committed first. Returns at once.
    pub fn stop(&self) {
        self.is_told.store(true, Ordering::Relaxed);
        if let Some(processor) = &self.processor {
            processor.stop();
        }
    }

    /// Waits for the end, at most `timeout` long. Whether it has come.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let Some(processor) = &self.processor else { return true };
        let mut left = timeout;
        loop {
            if self.signals.have_come() {
                self.stop();
            }
            let interval = left.min(SIGNAL_CHECK_INTERVAL);
            left -= interval;
            if processor.wait_for(interval) || left.is_zero() {
                return processor.wait_for(Duration::ZERO);
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// What stopped the flow.
    pub fn wait(self) -> Result<()> {
        self.wait_or_signal().map(drop)
    }

    /// Waits for the end, which SIGTERM and SIGINT bring about too, and says why it has come.
    ///
    /// # Errors
    ///
    /// What stopped the flow.
    pub fn wait_or_signal(self) -> Result<Ending> {
        self.wait_or_signal_with(|_| {})
    }

    /// [`wait_or_signal`](Self::wait_or_signal), showing `look` how far the flow is every 50 ms.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn wait_or_signal_with(self, mut look: impl FnMut(&Metrics)) -> Result<Ending> {
        while !self.wait_for(SIGNAL_CHECK_INTERVAL) {
            look(&self.metrics());
        }
        look(&self.metrics());
        let Self { processor, signals, is_told } = self;
        processor.map_or(Ok(()), EngineProcessor::wait)?;
        let is_stopped = is_told.into_inner() || signals.have_come();
        Ok(if is_stopped { Ending::Stopped } else { Ending::InputUsedUp })
    }
}
