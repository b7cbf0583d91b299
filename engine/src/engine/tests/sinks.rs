//! What the port of external sinks promises: an epoch is shown once it is committed, and only then; a crash
//! loses nothing of it and shows nothing twice.

use std::collections::BTreeMap;

use lotic_log::Timestamp;
use lotic_log::spawn::spawn;
use parking_lot::Mutex;

use super::*;
use crate::frame::{Batch, Columns, Frame};
use crate::graph::Node;
use crate::operator::{Context, Operator, OperatorFactory, Progress, operator_factory};
use crate::processor::{Processor, ProcessorSetup};
use crate::sink::{Sink, SinkFactory, external_sink};

const SINK: usize = 2;

/// What an external system has: it outlives the process.
#[derive(Default)]
struct Target {
    /// Durable and not shown, by epoch and worker.
    prepared: BTreeMap<(Epoch, usize), Vec<i64>>,
    shown: Vec<i64>,
    /// The newest epoch that was shown.
    newest: Epoch,
    /// What is to fail next, once.
    fails: Option<Call>,
    recovered: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Write,
    Prepare,
    Commit,
}

impl Target {
    fn call(&mut self, call: Call) -> Result<()> {
        match self.fails.take_if(|fails| *fails == call) {
            Some(_) => Err(Error::new(ErrorKind::Restart, format!("{call:?} fails, as it was told"))),
            None => Ok(()),
        }
    }

    fn show(&mut self, place: (Epoch, usize)) {
        self.shown.extend(self.prepared.remove(&place).unwrap_or_default());
        self.newest = self.newest.max(place.0);
    }

    fn sorted(&self) -> Vec<i64> {
        let mut shown = self.shown.clone();
        shown.sort_unstable();
        shown
    }
}

/// Prepares and commits in two phases.
#[derive(Clone, Default)]
struct TwoPhases(Arc<Mutex<Target>>);

struct Writer {
    target: Arc<Mutex<Target>>,
    worker: usize,
    written: Vec<i64>,
}

impl SinkFactory<i64> for TwoPhases {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn check(&self, place: StepPlace<'_>, last: Epoch) -> Result<()> {
        assert_eq!(place, StepPlace { flow: "flow", step: "to-target" });
        let target = self.0.lock();
        if last < target.newest {
            let what = format!("it shows epoch {}, and {last} is the last", target.newest);
            return Err(Error::new(ErrorKind::Incompatible, what));
        }
        Ok(())
    }

    fn recover(&self, _: StepPlace<'_>, last: Epoch) -> Result<()> {
        let mut target = self.0.lock();
        target.recovered += 1;
        let of_later = target.prepared.split_off(&(last.next(), 0));
        let finished: Vec<_> = target.prepared.keys().copied().collect();
        finished.into_iter().for_each(|place| target.show(place));
        drop(of_later);
        Ok(())
    }

    fn open(&self, _: StepPlace<'_>, worker: usize) -> Result<Box<dyn Sink<i64>>> {
        assert!(self.0.lock().prepared.is_empty(), "recovery goes before any writer is opened");
        Ok(Box::new(Writer { target: Arc::clone(&self.0), worker, written: Vec::new() }))
    }
}

impl Sink<i64> for Writer {
    fn write(&mut self, batch: Batch<i64>) -> Result<()> {
        self.written.extend(batch.rows);
        self.target.lock().call(Call::Write)
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        assert!(!self.written.is_empty(), "nothing was written since the last one");
        let mut target = self.target.lock();
        target.prepared.insert((epoch, self.worker), std::mem::take(&mut self.written));
        target.call(Call::Prepare)
    }

    fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let mut target = self.target.lock();
        assert!(target.prepared.contains_key(&(epoch, self.worker)), "what is committed was prepared");
        target.call(Call::Commit)?;
        target.show((epoch, self.worker));
        Ok(())
    }
}

/// Numbers into the target.
fn flow_into(target: &TwoPhases) -> Graph {
    let mut graph = flow();
    graph.nodes.truncate(SINK);
    graph.edges.truncate(SINK);
    graph.topics.truncate(1);
    graph.nodes.push(Node {
        name: "to-target".to_owned(),
        description: "to a target in two phases".to_owned(),
        kind: NodeKind::Operator(external_sink::<i64>(target.clone())),
        stores: Vec::new(),
        depends_on_arrival: false,
    });
    graph
}

/// Checks that nothing is shown of an epoch that is not committed.
fn check_shown(target: &TwoPhases, engine: &Engine) {
    assert!(target.0.lock().newest <= engine.last_committed());
}

#[test]
fn an_epoch_is_shown_once_it_is_committed_and_a_finished_flow_has_shown_all() {
    for workers in [1, 2, 3] {
        let target = TwoPhases::default();
        let graph = flow_into(&target);
        let mut bench = Bench::new(log_with(100).0);
        bench.options.workers = workers;
        let mut engine = bench.open(&graph).unwrap();
        while !engine.is_finished() {
            bench.round(&mut engine).unwrap();
            check_shown(&target, &engine);
        }
        let target = target.0.lock();
        assert_eq!(target.sorted(), (0..100).collect::<Vec<_>>(), "{workers} workers");
        assert!(target.prepared.is_empty() && target.newest > Epoch(1));
        assert_eq!(target.recovered, 1, "once for each attempt");
    }
}

#[test]
fn a_crash_anywhere_shows_each_row_once() {
    for rounds in 0..60 {
        let target = TwoPhases::default();
        let graph = flow_into(&target);
        let mut bench = Bench::new(log_with(40).0);
        for (seed, workers) in [(rounds, 2), (!rounds, 3)] {
            bench.options.workers = workers;
            let mut engine = bench.open(&graph).unwrap();
            check_shown(&target, &engine);
            for _ in 0..rounds {
                bench.round(&mut engine).unwrap();
                check_shown(&target, &engine);
            }
            bench.crash(engine, seed);
        }
        let mut engine = bench.open(&graph).unwrap();
        bench.finish(&mut engine);
        assert_eq!(target.0.lock().sorted(), (0..40).collect::<Vec<_>>(), "died after {rounds} rounds");
    }
}

#[test]
fn a_call_that_fails_ends_the_attempt_and_the_next_one_shows_each_row_once() {
    for call in [Call::Write, Call::Prepare, Call::Commit] {
        for rounds in [0, 5, 20] {
            let target = TwoPhases::default();
            let graph = flow_into(&target);
            let bench = Bench::new(log_with(60).0);
            let mut engine = bench.open(&graph).unwrap();
            for _ in 0..rounds {
                bench.round(&mut engine).unwrap();
            }
            target.0.lock().fails = Some(call);
            let error = (0..1_000).find_map(|_| bench.round(&mut engine).err());
            let error = error.expect("it fails").to_string();
            assert!(error.starts_with("step to-target: "), "{error}");
            assert_eq!(error.matches("to-target").count(), 1, "it is said once: {error}");
            bench.crash(engine, 1);
            let mut engine = bench.open(&graph).unwrap();
            bench.finish(&mut engine);
            assert_eq!(target.0.lock().sorted(), (0..60).collect::<Vec<_>>(), "{call:?}, {rounds}");
        }
    }
}

#[test]
fn a_step_counts_what_it_takes_once() {
    let target = TwoPhases::default();
    let graph = flow_into(&target);
    let bench = Bench::new(log_with(50).0);
    let counters = counters_for(&graph);
    let mut engine = Engine::open(EngineSetup {
        graph: &graph,
        log: bench.log.clone(),
        home: Arc::new(bench.state.clone()),
        clock: bench.clock.clone(),
        counters: &counters,
        options: &bench.options,
        is_stopping: &|| false,
    })
    .unwrap();
    bench.finish(&mut engine);
    assert_eq!(counters[SINK].received.get(), 50);
}

/// On threads, a worker may hear of a commit after the conductor has nothing left to do.
#[test]
fn a_processor_ends_when_the_last_epoch_is_shown() {
    let runs = (0..4).map(|workers| {
        let run = move || {
            let target = TwoPhases::default();
            let Bench { log, state, options, .. } = Bench::new(log_with(30).0);
            let processor = Processor::start(ProcessorSetup {
                graph: flow_into(&target),
                open_log: Box::new(move || Ok(log.clone())),
                home: Arc::new(state),
                clock: lotic_log::SystemClock::new(),
                options: EngineOptions { workers: workers + 1, ..options },
                is_stopping: Box::new(|| false),
            });
            processor.unwrap().wait().unwrap();
            assert_eq!(target.0.lock().sorted(), (0..30).collect::<Vec<_>>());
        };
        spawn("run", run).unwrap()
    });
    runs.collect::<Vec<_>>().into_iter().for_each(|run| run.join().unwrap());
}

/// Counts what it takes and says how much it was at the end, one number a call.
fn counting(numbers: i64) -> Arc<dyn OperatorFactory> {
    struct Counted {
        numbers: i64,
        left: i64,
    }
    impl Operator for Counted {
        fn process(&mut self, _: usize, frame: Frame, _: &mut Context<'_>) -> Result<()> {
            self.numbers += frame.len() as i64;
            Ok(())
        }

        fn end(&mut self, context: &mut Context<'_>) -> Result<Progress> {
            if self.numbers == 0 || self.left == 0 {
                return Ok(Progress::Done);
            }
            self.left -= 1;
            let columns =
                Columns { times: vec![Timestamp(0)], watermarks: vec![Timestamp(0)], ..Columns::default() };
            context.emit(0, Batch { rows: vec![self.left], columns }.into());
            Ok(Progress::More)
        }
    }
    operator_factory(move |_| Ok(Counted { numbers: 0, left: numbers }))
}

#[test]
fn what_a_step_says_at_the_end_is_shown_whenever_the_last_barrier_was() {
    for interval_ms in 1..12 {
        let target = TwoPhases::default();
        let mut graph = flow_into(&target);
        graph.nodes[1].kind = NodeKind::Operator(counting(3));
        let mut bench = Bench::new(log_with(40).0);
        bench.options.workers = 1;
        bench.options.epoch_interval = Duration::from_millis(interval_ms);
        let mut engine = bench.open(&graph).unwrap();
        bench.finish(&mut engine);
        assert_eq!(target.0.lock().sorted(), [0, 1, 2], "epochs of {interval_ms} ms");
    }
}

#[test]
fn a_commit_that_is_still_on_its_way_is_decided_before_sinks_recover() {
    let target = TwoPhases::default();
    let graph = flow_into(&target);
    let bench = Bench::new(log_with(60).0);
    let mut engine = bench.open(&graph).unwrap();
    bench.log.hold_commits(true);
    while !bench.log.is_committing() {
        bench.round(&mut engine).unwrap();
    }
    assert!(!target.0.lock().prepared.is_empty());
    bench.crash(engine, 1);
    assert!(bench.log.is_committing());
    bench.log.hold_commits(false);
    // As a processor does: a flow that is told to be started again is.
    let mut attempts = 0;
    let shown = loop {
        attempts += 1;
        assert!(attempts < 4);
        let mut engine = match bench.open(&graph) {
            Ok(engine) => engine,
            Err(error) if error.kind() == ErrorKind::Restart => continue,
            Err(error) => panic!("{error}"),
        };
        let failed = (0..10_000).find_map(|_| bench.round(&mut engine).err());
        match failed {
            None => break target.0.lock().sorted(),
            Some(error) => assert_eq!(error.kind(), ErrorKind::Restart, "{error}"),
        }
        bench.crash(engine, 2);
    };
    assert_eq!(shown, (0..60).collect::<Vec<_>>());
}

#[test]
fn a_target_that_is_not_as_the_flow_left_it_is_refused_before_anything_is_written() {
    let target = TwoPhases::default();
    target.0.lock().newest = Epoch(3);
    let bench = Bench::new(log_with(10).0);
    let before = bench.log.topic_names();
    let graph = flow_into(&target);
    let refused = [check(&graph, &*bench.log, &bench.options).err(), bench.open(&graph).err()];
    for error in refused {
        let error = error.expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().starts_with("step to-target: it shows epoch 3"), "{error}");
    }
    assert_eq!(bench.log.topic_names(), before);
    assert_eq!(target.0.lock().recovered, 0);
}
