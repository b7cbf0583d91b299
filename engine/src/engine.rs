//! A flow that runs, one step at a time: opened on the last committed epoch, then stepped by whoever owns
//! it. A [`Processor`](crate::processor::Processor) gives each worker a thread; a simulator steps them in an
//! order of its own.
//!
//! Opening goes in this order, and nothing is written before the last check has passed:
//!
//! 1. the graph is laid out, and its sinks' guarantees are compared with the one that is wanted;
//! 2. every topic that exists is compared with what the flow declares;
//! 3. the last epoch record is read: the topology, the ids of its topics and their ends must agree with it;
//! 4. sources are opened where it left them, and refuse an input that is not the one they had read. (Where a
//!    source reads a topic that the flow itself makes and that is missing, step 5 goes first.) External sinks refuse
//!    a target that is not as it left it;
//! 5. missing topics are made;
//! 6. state is brought to the last committed epoch, and steps are opened on it.
//!
//! The transactional id is taken when the first epoch begins, and state is opened for writing when the first
//! is committed. So a flow that finds nothing to do leaves everything as it was, byte for byte. One that feeds
//! something outside the log takes the id between 5 and 6: its sinks are told once which epoch was the last,
//! and no commit that is still on its way from an earlier attempt may be decided after that.

use std::collections::HashSet;
use std::sync::Arc;

use lotic_log::{Clock, CommittedBatches, PartitionId};

use crate::assembly::{
    Assembly, AssemblyOptions, OpenSources, SourceSetup, assemble, open_sources as open_sources_of,
};
use crate::bell::Bell;
use crate::channel::Waker;
use crate::checkpointer;
use crate::conductor::{Conductor, ConductorSetup, Standing};
use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_record::{self, EpochRecord};
use crate::epoch_writer::EpochWriterOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, PartitionKey, TopicHandle, TopicSpec, Topics};
use crate::graph::{Graph, NodeKind, check_flow_name};
use crate::operator::StepPlace;
use crate::options::EngineOptions;
use crate::plan::plan;
use crate::seat::{Mailbox, Seat};
use crate::sink::Guarantee;
use crate::state::restore::{RestoreReport, Restored, StoreChangelog, restore};
use crate::state::{
    CheckpointId, StateAccess, StateAccessOptions, StateBackend, StateHome, StateLimits, TombstoneFloors,
    changelog_topic,
};
use crate::topology;

/// How much of a changelog is looked at at a time for anything committed.
const CHECKED_BYTES: usize = 1 << 20;

/// What a flow runs on.
pub struct EngineSetup<'a> {
    /// The flow.
    pub graph: &'a Graph,
    /// This processor's hold on the log. A new one for each attempt.
    pub log: Arc<dyn EventLog>,
    /// Where state lives between attempts. No backend of it may be open.
    pub home: Arc<dyn StateHome>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// What each step counts, by its place in the graph.
    pub counters: &'a [Arc<Counters>],
    /// The settings.
    pub options: &'a EngineOptions,
    /// Whether it is to stop. Asked while state is restored, which may take long.
    pub is_stopping: &'a dyn Fn() -> bool,
}

/// Refuses a flow that [`Engine::open`] would refuse before it opens sources: for how it is written, for the topics
/// that are there, for its last epoch record, for the targets of its external sinks. Writes nothing.
///
/// A topic that the flow reads and that is missing is no reason: another flow may be about to make it.
///
/// # Errors
/// Those of [`Engine::open`].
pub fn check(graph: &Graph, log: &dyn EventLog, options: &EngineOptions) -> Result<()> {
    let Checked { last, .. } = Checked::of(graph, log, options)?;
    check_effects(graph, last.as_ref())
}

/// What a flow was found to be before anything is opened.
struct Checked {
    names: FlowTopics,
    fingerprint: String,
    last: Option<EpochRecord>,
}

impl Checked {
    fn of(graph: &Graph, log: &dyn EventLog, options: &EngineOptions) -> Result<Self> {
        check_flow_name(&graph.name)?;
        check_options(options)?;
        check_guarantee(graph, options.guarantee)?;
        let names = FlowTopics::of(graph, options, log)?;
        names.check_existing(log)?;
        let fingerprint = topology::fingerprint(graph);
        let last = check_last(log, &names, graph, &fingerprint)?;
        Ok(Self { names, fingerprint, last })
    }
}

/// Counters for each step of a graph, at zero.
pub fn counters_for(graph: &Graph) -> Vec<Arc<Counters>> {
    graph.nodes.iter().map(|_| Arc::default()).collect()
}

/// A flow that runs while it is stepped.
///
/// After an error nothing can be done with it but to drop it and open another: that one starts from the
/// last committed epoch.
pub struct Engine {
    seats: Vec<Seat>,
    conductor: Conductor,
    conductor_bell: Arc<Bell>,
    home: Arc<dyn StateHome>,
    backend: Arc<dyn StateBackend>,
    floors: Arc<TombstoneFloors>,
    restored: RestoreReport,
}

/// An engine taken apart, for threads.
pub(crate) struct EngineParts {
    pub(crate) seats: Vec<Seat>,
    pub(crate) conductor: Conductor,
    pub(crate) conductor_bell: Arc<Bell>,
    pub(crate) backend: Arc<dyn StateBackend>,
    pub(crate) floors: Arc<TombstoneFloors>,
}

impl Engine {
    /// Opens a flow where its last committed epoch left it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a graph or a setting that cannot be; [`ErrorKind::Incompatible`] where the
    /// directory was made by another program; [`ErrorKind::Corrupt`]; [`ErrorKind::Stopped`]; those of opening sources
    /// and steps.
    pub fn open(setup: EngineSetup<'_>) -> Result<Self> {
        let flow = &setup.graph.name;
        let Checked { names, fingerprint, last } = Checked::of(setup.graph, &*setup.log, setup.options)?;
        names.check_sources_exist(&*setup.log)?;

        if reads_what_it_makes(setup.graph, &*setup.log)? {
            names.resolve(&*setup.log)?;
        }
        let sources = open_sources(&setup, last.as_ref())?;
        check_effects(setup.graph, last.as_ref())?;
        let resolved = names.resolve(&*setup.log)?;
        if has_external_effect(setup.graph) {
            setup.log.hold()?;
            epoch_record::check_is_last(&*setup.log, &resolved.epochs, last.as_ref())
                .map_err(|error| error.within(format!("flow {flow}")))?;
        }
        open_workers(&setup, resolved, sources, fingerprint, last)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.seats.len()
    }

    /// Lets a worker do a bounded piece of work. Whether it did anything.
    ///
    /// # Errors
    /// The first error of a step or of the log; the engine is of no use after that.
    pub fn step_worker(&mut self, worker: usize) -> Result<bool> {
        self.seats[worker].step()
    }

    /// Moves epochs and the log along. Whether anything moved.
    ///
    /// # Errors
    /// [`ErrorKind::Unknown`], [`ErrorKind::Restart`] and [`ErrorKind::Fenced`] say what to do; those of the
    /// log.
    pub fn step_coordinator(&mut self) -> Result<bool> {
        self.conductor.step()
    }

    /// Steps everything in turn until nothing moves, at most `rounds_max` times. Whether it is quiet.
    ///
    /// # Errors
    /// Those of stepping.
    pub fn step_until_quiet(&mut self, rounds_max: usize) -> Result<bool> {
        for _ in 0..rounds_max {
            let mut progressed = self.step_coordinator()?;
            for worker in 0..self.seats.len() {
                progressed |= self.step_worker(worker)?;
            }
            if !progressed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks for an end: what has been read is committed, then [`Self::is_finished`].
    pub fn stop(&mut self) {
        self.conductor.stop();
    }

    /// Whether bounded input has ended, or a stop was asked for, and all of it is committed.
    pub fn is_finished(&self) -> bool {
        self.conductor.standing() == Standing::Finished
    }

    /// The last committed epoch.
    pub fn last_committed(&self) -> Epoch {
        self.conductor.last_committed()
    }

    /// How state was brought up when the flow was opened.
    pub fn restored(&self) -> &RestoreReport {
        &self.restored
    }

    /// Takes a checkpoint of the state as it is applied, and removes all but the newest `keep`. May take long; a
    /// [`Processor`](crate::processor::Processor) does it beside the running flow.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn take_checkpoint(&self, keep: usize) -> Result<CheckpointId> {
        checkpointer::take(&*self.home, &self.floors, keep)
    }

    /// Ends the flow where it stands: what no epoch has committed is dropped.
    ///
    /// # Errors
    /// Those of aborting the open transaction.
    pub fn close(mut self) -> Result<()> {
        self.conductor.abandon()?;
        self.seats.clear();
        self.backend.flush()
    }

    pub(crate) fn into_parts(self) -> EngineParts {
        let Self { seats, conductor, conductor_bell, backend, floors, .. } = self;
        EngineParts { seats, conductor, conductor_bell, backend, floors }
    }
}

fn check_options(options: &EngineOptions) -> Result<()> {
    let at_least_one = [
        ("workers", options.workers),
        ("frame_rows_max", options.frame_rows_max),
        ("queue_messages_max", options.queue_messages_max),
        ("dirty_bytes_max", options.dirty_bytes_max),
        ("staged_bytes_max", options.staged_bytes_max),
    ];
    match at_least_one.into_iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(Error::new(ErrorKind::Invalid, format!("{name} is 0; it must be at least 1"))),
        None => Ok(()),
    }
}

/// The end-to-end guarantee of a flow: the weakest of its steps'.
pub fn guarantee(graph: &Graph) -> Guarantee {
    let steps = graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Operator(factory) => Some(factory.guarantee()),
        NodeKind::Source(_) => None,
    });
    steps.min().unwrap_or(Guarantee::ExactlyOnce)
}

fn check_guarantee(graph: &Graph, wanted: Guarantee) -> Result<()> {
    for node in &graph.nodes {
        if let NodeKind::Operator(factory) = &node.kind
            && factory.guarantee() < wanted
        {
            let context = format!(
                "flow {}: step {} sees each event {}; the processor is asked for {wanted}",
                graph.name,
                node.name,
                factory.guarantee(),
            );
            return Err(Error::new(ErrorKind::Invalid, context));
        }
    }
    tracing::info!(flow = graph.name, guarantee = %guarantee(graph), "end-to-end guarantee");
    Ok(())
}

/// Lets the steps whose effects are outside of the log refuse what they find there.
fn check_effects(graph: &Graph, last: Option<&EpochRecord>) -> Result<()> {
    let last_committed = last.map_or(Epoch(0), |record| record.epoch);
    for node in &graph.nodes {
        if let NodeKind::Operator(factory) = &node.kind {
            let checked = factory.check(StepPlace { flow: &graph.name, step: &node.name }, last_committed);
            checked.map_err(|error| error.within(format_args!("step {}", node.name)))?;
        }
    }
    Ok(())
}

/// The topics of a flow: those it declares, and its own.
struct FlowTopics {
    declared: Vec<TopicSpec>,
    epochs: TopicSpec,
    /// By store.
    changelogs: Vec<(String, TopicSpec)>,
}

/// The same, resolved.
struct ResolvedTopics {
    all: Topics,
    epochs: TopicHandle,
    stores: Vec<StoreChangelog>,
}

impl FlowTopics {
    fn of(graph: &Graph, options: &EngineOptions, log: &dyn EventLog) -> Result<Self> {
        let stores = graph.nodes.iter().flat_map(|node| &node.stores);
        let changelog = |store: &str| {
            let name = changelog_topic(&graph.name, store);
            // One that exists keeps its partitions: they are part of where each key's changes are.
            let is_missing = log.find(&name)?.is_none();
            let partitions = is_missing.then_some(options.changelog_partitions);
            let owner = Some(graph.name.clone());
            let spec = TopicSpec { name, partitions, compacted: true, create: true, key_format: None, owner };
            Ok((store.to_owned(), spec))
        };
        let topics = Self {
            declared: graph.topics.clone(),
            epochs: epoch_record::topic_spec(&graph.name),
            changelogs: stores.map(|store| changelog(&store.name)).collect::<Result<_>>()?,
        };
        topics.check_distinct(&graph.name)?;
        Ok(topics)
    }

    /// Refuses a topic with two purposes: one declared under the name of one of the flow's own.
    fn check_distinct(&self, flow: &str) -> Result<()> {
        let mut names = HashSet::new();
        match self.all().find(|spec| !names.insert(spec.name.as_str())) {
            None => Ok(()),
            Some(TopicSpec { name, .. }) => {
                let context =
                    format!("flow {flow}: topic {name} is the flow's own; call the other one otherwise");
                Err(Error::new(ErrorKind::Invalid, context))
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &TopicSpec> {
        let changelogs = self.changelogs.iter().map(|(_, spec)| spec);
        self.declared.iter().chain([&self.epochs]).chain(changelogs)
    }

    /// Compares every topic that exists with what is declared. Makes none, and lets none pass that could not be
    /// made.
    fn check_existing(&self, log: &dyn EventLog) -> Result<()> {
        for spec in self.all() {
            spec.check_possible()?;
            if log.find(&spec.name)?.is_some() {
                log.resolve(spec)?;
            }
        }
        Ok(())
    }

    /// Finds the topics that the flow reads and does not make.
    fn check_sources_exist(&self, log: &dyn EventLog) -> Result<()> {
        self.all().filter(|spec| !spec.create).try_for_each(|spec| log.resolve(spec).map(drop))
    }

    fn resolve(&self, log: &dyn EventLog) -> Result<ResolvedTopics> {
        let declared: Vec<TopicHandle> =
            self.declared.iter().map(|spec| log.resolve(spec)).collect::<Result<_>>()?;
        let epochs = log.resolve(&self.epochs)?;
        let stores: Vec<StoreChangelog> = self
            .changelogs
            .iter()
            .map(|(name, spec)| Ok(StoreChangelog { name: name.clone(), topic: log.resolve(spec)? }))
            .collect::<Result<_>>()?;
        let changelogs = stores.iter().map(|store| store.topic.clone());
        let all = declared.into_iter().chain([epochs.clone()]).chain(changelogs).collect();
        Ok(ResolvedTopics { all, epochs, stores })
    }
}

/// The last epoch record, where there is one, compared with the flow and with the log.
fn check_last(
    log: &dyn EventLog,
    names: &FlowTopics,
    graph: &Graph,
    fingerprint: &str,
) -> Result<Option<EpochRecord>> {
    let flow = &graph.name;
    let record = match log.find(&names.epochs.name)? {
        Some(topic) => epoch_record::read_last(log, &topic)?,
        None => None,
    };
    let Some(record) = record else { return check_is_new(log, names, flow).map(|()| None) };
    topology::check(flow, &record.fingerprint, fingerprint)?;
    topology::check_disorder(graph, &record)?;
    let is_used = |name: &str| names.all().any(|spec| spec.name == name);
    let checked = epoch_record::check_against(&record, log, is_used);
    checked.map_err(|error| error.within(format!("flow {flow}")))?;
    Ok(Some(record))
}

/// Without an epoch record nothing was ever committed, state least of all.
fn check_is_new(log: &dyn EventLog, names: &FlowTopics, flow: &str) -> Result<()> {
    for (_, changelog) in &names.changelogs {
        let Some(topic) = log.find(&changelog.name)? else { continue };
        for partition in (0..topic.partitions).map(PartitionId) {
            let key = PartitionKey { topic: topic.index, partition };
            if holds_committed_records(log, key)? {
                let (epochs, changelog) = (&names.epochs.name, &topic.name);
                let context = format!(
                    "flow {flow} has no epoch record in topic {epochs}, and its state of earlier runs is in topic \
                     {changelog}: was {epochs} deleted? Without it nobody knows what that state was made of. To \
                     begin anew, delete the flow's changelogs and results too"
                );
                return Err(Error::new(ErrorKind::Incompatible, context));
            }
        }
    }
    Ok(())
}

fn holds_committed_records(log: &dyn EventLog, partition: PartitionKey) -> Result<bool> {
    let mut from = log.start_offset(partition)?;
    while let Some(fetched) = log.fetch(partition, from, CHECKED_BYTES)? {
        if CommittedBatches::new(&fetched.bytes, &fetched.aborted).next().is_some() {
            return Ok(true);
        }
        from = fetched.next;
    }
    Ok(false)
}

/// Whether a step does something outside the log.
fn has_external_effect(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| match &node.kind {
        NodeKind::Operator(factory) => factory.has_external_effect(),
        NodeKind::Source(_) => false,
    })
}

/// Whether a source reads a topic that is missing: as [`FlowTopics::check_sources_exist`] has passed it, the flow
/// makes it.
fn reads_what_it_makes(graph: &Graph, log: &dyn EventLog) -> Result<bool> {
    for node in &graph.nodes {
        if let NodeKind::Source(source) = &node.kind
            && let Some(topic) = source.factory.topic()
            && log.find(topic)?.is_none()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn open_sources(setup: &EngineSetup<'_>, last: Option<&EpochRecord>) -> Result<OpenSources> {
    open_sources_of(&SourceSetup {
        graph: setup.graph,
        log: &setup.log,
        counters: setup.counters,
        splits: last.map_or(&[], |record| &record.splits),
        workers: setup.options.workers,
        frame_rows_max: setup.options.frame_rows_max,
        bounded: setup.options.bounded,
    })
}

fn open_workers(
    setup: &EngineSetup<'_>,
    topics: ResolvedTopics,
    sources: OpenSources,
    fingerprint: String,
    last: Option<EpochRecord>,
) -> Result<Engine> {
    let EngineSetup { graph, log, home, clock, options, .. } = setup;
    let workers = options.workers;
    let last_committed = last.as_ref().map_or(Epoch(0), |record| record.epoch);
    let Restored { backend, report } = restore(&**home, &**log, &topics.stores, workers, setup.is_stopping)?;
    let state = open_state(&backend, &topics.stores, options)?;
    let floors = Arc::new(TombstoneFloors::new(Arc::clone(log), topics.stores));
    let bells: Vec<Arc<Bell>> = (0..workers).map(|_| Arc::default()).collect();
    let conductor_bell = Arc::<Bell>::default();
    let wakers: Vec<Waker> = bells.iter().map(Bell::waker).collect();
    let holds_sources = has_timeless_source(graph);
    let assembly = Assembly {
        graph,
        plan: &plan(graph)?,
        log,
        topics: &topics.all,
        clock,
        counters: setup.counters,
        state: &state,
        wakers: &wakers,
        last_committed,
        options: assembly_options(options, holds_sources),
    };
    let assembled = assemble(&assembly, sources)?;
    wake_on_progress(&**log, &bells, &conductor_bell);
    let mailbox = |bell: Arc<Bell>| Mailbox::new(bell, Arc::clone(&conductor_bell));
    let mailboxes: Vec<Arc<Mailbox>> = bells.into_iter().map(mailbox).collect();
    let seats =
        assembled.into_iter().zip(&mailboxes).map(|(worker, box_)| Seat::new(worker, Arc::clone(box_)));
    let seats = seats.collect();
    let conductor = Conductor::new(ConductorSetup {
        flow: graph.name.clone(),
        log: Arc::clone(log),
        clock: Arc::clone(clock),
        epochs: topics.epochs,
        topics: topics.all,
        fingerprint,
        disorder_ms: setup.graph.disorders(),
        mailboxes,
        state,
        last,
        epoch_interval: options.epoch_interval,
        holds_sources,
    });
    Ok(Engine { seats, conductor, conductor_bell, home: Arc::clone(home), backend, floors, restored: report })
}

fn open_state(
    backend: &Arc<dyn StateBackend>,
    stores: &[StoreChangelog],
    options: &EngineOptions,
) -> Result<Vec<StateAccess>> {
    let workers = options.workers;
    let limits = StateLimits {
        cache_bytes_max: options.cache_bytes_max / workers,
        // A worker that may change nothing would never be read for.
        dirty_bytes_max: (options.dirty_bytes_max / workers).max(1),
    };
    let open = |worker| {
        StateAccess::new(StateAccessOptions { backend: Arc::clone(backend), stores, worker, workers, limits })
    };
    (0..workers).map(open).collect()
}

fn has_timeless_source(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| matches!(&node.kind, NodeKind::Source(source) if source.timeless))
}

fn assembly_options(options: &EngineOptions, hold_sources: bool) -> AssemblyOptions {
    AssemblyOptions {
        frame_rows_max: options.frame_rows_max,
        queue_messages_max: options.queue_messages_max,
        source_skew_ms_max: options.source_skew_ms_max,
        hold_sources,
        writer: EpochWriterOptions {
            batch_bytes: options.batch_bytes,
            staged_bytes_max: options.staged_bytes_max,
            ..EpochWriterOptions::default()
        },
    }
}

/// Rings everyone when the log has moved on: a commit may be decided, or records may be there to read.
fn wake_on_progress(log: &dyn EventLog, bells: &[Arc<Bell>], conductor: &Arc<Bell>) {
    let bells: Vec<Arc<Bell>> = bells.iter().chain([conductor]).cloned().collect();
    log.on_progress(Arc::new(move || bells.iter().for_each(|bell| bell.ring())));
}

#[cfg(test)]
mod tests;
