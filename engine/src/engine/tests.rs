mod sinks;

use std::time::Duration;

use lotic_log::ManualClock;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::codec::Codec;
use crate::memory_log::MemoryLog;
use crate::state::MemoryState;
use crate::test_flow::{I64, NAMES, SUMS, expected, found, graph, graph_with_names, log_with, produce};

/// What an engine needs, with limits that make everything full.
struct Bench {
    log: Arc<MemoryLog>,
    state: MemoryState,
    clock: Arc<ManualClock>,
    options: EngineOptions,
}

impl Bench {
    fn new(log: Arc<MemoryLog>) -> Self {
        let options = EngineOptions {
            workers: 2,
            epoch_interval: Duration::from_millis(10),
            frame_rows_max: 2,
            queue_messages_max: 1,
            staged_bytes_max: 64,
            batch_bytes: 64,
            changelog_partitions: 3,
            bounded: true,
            ..EngineOptions::default()
        };
        Self { log, state: MemoryState::crashing(4), clock: ManualClock::new(), options }
    }

    fn open(&self, graph: &Graph) -> Result<Engine> {
        Engine::open(EngineSetup {
            graph,
            log: self.log.clone(),
            home: Arc::new(self.state.clone()),
            clock: self.clock.clone(),
            counters: &counters_for(graph),
            options: &self.options,
            is_stopping: &|| false,
        })
    }

    /// One round of steps; time passes.
    fn round(&self, engine: &mut Engine) -> Result<()> {
        engine.step_coordinator()?;
        for worker in 0..engine.workers() {
            engine.step_worker(worker)?;
        }
        self.clock.advance(Duration::from_millis(1));
        Ok(())
    }

    fn finish(&self, engine: &mut Engine) {
        for _ in 0..10_000 {
            if engine.is_finished() {
                return;
            }
            self.round(engine).unwrap();
        }
        panic!("the flow did not finish");
    }

    /// The process dies; its open transaction is aborted when the next one comes.
    fn crash(&self, engine: Engine, seed: u64) {
        drop(engine);
        self.state.crash(&mut ChaCha8Rng::seed_from_u64(seed));
        self.log.abort().unwrap();
    }
}

fn flow() -> Graph {
    graph(|_| Ok(()))
}

#[test]
fn a_bounded_flow_ends_with_one_result_for_each_record_and_another_run_writes_nothing() {
    for workers in [1, 2, 3, 7] {
        let mut bench = Bench::new(log_with(100).0);
        bench.options.workers = workers;
        let mut engine = bench.open(&flow()).unwrap();
        bench.finish(&mut engine);
        engine.close().unwrap();
        assert_eq!(found(&bench.log), expected(100), "{workers} workers");

        let begun = bench.log.transactions();
        let mut engine = bench.open(&flow()).unwrap();
        let last = engine.last_committed();
        bench.finish(&mut engine);
        assert_eq!(engine.last_committed(), last, "nothing was left to commit");
        assert_eq!(bench.log.transactions(), begun, "nor to begin");
        assert_eq!(found(&bench.log), expected(100));
    }
}

#[test]
fn a_flow_that_dies_anywhere_goes_on_as_if_nothing_had_been() {
    for rounds in 0..80 {
        let (log, numbers) = log_with(30);
        let mut bench = Bench::new(log);
        for (seed, workers) in [(rounds, 2), (!rounds, 3)] {
            bench.options.workers = workers;
            let mut engine = bench.open(&flow()).unwrap();
            for _ in 0..rounds {
                bench.round(&mut engine).unwrap();
            }
            bench.crash(engine, seed);
        }
        produce(&bench.log, &numbers, 30..40);
        bench.options.workers = 2;
        let mut engine = bench.open(&flow()).unwrap();
        bench.finish(&mut engine);
        assert_eq!(found(&bench.log), expected(40), "died after {rounds} rounds");
    }
}

#[test]
fn a_stop_commits_what_was_read() {
    let mut bench = Bench::new(log_with(50).0);
    bench.options.bounded = false;
    bench.options.epoch_interval = Duration::from_secs(3600);
    let mut engine = bench.open(&flow()).unwrap();
    while engine.step_until_quiet(1000).unwrap() && engine.last_committed() < Epoch(1) {
        engine.stop();
    }
    bench.finish(&mut engine);
    assert_eq!(engine.last_committed(), Epoch(1));
    assert_eq!(found(&bench.log), expected(50));
}

#[test]
fn a_stop_does_not_wait_for_input_that_goes_on() {
    let mut bench = Bench::new(log_with(3_000).0);
    bench.options.bounded = false;
    let mut engine = bench.open(&flow()).unwrap();
    for _ in 0..100 {
        bench.round(&mut engine).unwrap();
    }
    engine.stop();
    let before = engine.last_committed();
    bench.finish(&mut engine);
    assert!(engine.last_committed().0 <= before.0 + 2, "the one on its way, and one more");
    let records = |found: std::collections::BTreeMap<i64, (usize, i64)>| -> usize {
        found.values().map(|(records, _)| records).sum()
    };
    assert!(records(found(&bench.log)) < 3_000, "not all of it was read");
    engine.close().unwrap();

    bench.options.bounded = true;
    let mut engine = bench.open(&flow()).unwrap();
    bench.finish(&mut engine);
    assert_eq!(found(&bench.log), expected(3_000));
}

#[test]
fn an_epoch_ends_early_when_much_has_changed() {
    let mut bench = Bench::new(log_with(50).0);
    bench.options.bounded = false;
    bench.options.epoch_interval = Duration::from_secs(3600);
    bench.options.dirty_bytes_max = 1;
    let mut engine = bench.open(&flow()).unwrap();
    assert!(engine.step_until_quiet(10_000).unwrap());
    assert!(engine.last_committed() > Epoch(1));
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_changed() {
    let check = |prepare: &dyn Fn(&mut Bench, &mut Graph), kind, named: &str| {
        let (log, _) = log_with(10);
        let mut bench = Bench::new(log);
        let mut changed = flow();
        prepare(&mut bench, &mut changed);
        let topics = bench.log.topic_names();
        let error = bench.open(&changed).err().expect("it is refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(bench.log.topic_names(), topics, "no topic was made");
    };
    check(&|bench, _| bench.options.workers = 0, ErrorKind::Invalid, "workers is 0");
    let other_partitions = |_: &mut Bench, graph: &mut Graph| graph.topics[0].partitions = Some(4);
    check(&other_partitions, ErrorKind::Incompatible, "topic numbers has 3 partitions");
    let missing = |_: &mut Bench, graph: &mut Graph| graph.topics[0].name = "nowhere".to_owned();
    check(&missing, ErrorKind::Invalid, "nowhere");
    let run_before = |bench: &mut Bench, graph: &mut Graph| {
        let mut engine = bench.open(&flow()).unwrap();
        bench.finish(&mut engine);
        engine.close().unwrap();
        graph.nodes[3].description = "sums of squares".to_owned();
    };
    check(&run_before, ErrorKind::Incompatible, "step sums was sums; stores sums decimal/1");
    let other_results = |bench: &mut Bench, _: &mut Graph| {
        bench.log.topic(SUMS, 3);
    };
    check(&other_results, ErrorKind::Incompatible, "topic sums has 3 partitions, the program declares 2");
}

#[test]
fn a_table_without_time_is_complete_before_any_other_record_is_read() {
    let name = |log: &MemoryLog, topic: &TopicHandle, remainder: i64, name: i64| {
        let key = remainder.to_string();
        let partition = lotic_log::partition_for_key(key.as_bytes(), 2).0;
        log.produce(topic, partition, &[(0, key.as_bytes(), name.to_string().as_bytes())]);
    };
    for (rounds, bounded) in [(0, true), (0, false), (3, false), (9, false), (40, false)] {
        let (log, numbers) = log_with(50);
        let mut bench = Bench::new(log);
        bench.options.bounded = bounded;
        let names = bench.log.topic(NAMES, 2);
        for remainder in 0..5 {
            name(&bench.log, &names, remainder, 100 + remainder);
        }
        let graph = graph_with_names();
        let mut engine = bench.open(&graph).unwrap();
        for _ in 0..rounds {
            bench.round(&mut engine).unwrap();
        }
        bench.crash(engine, rounds);
        produce(&bench.log, &numbers, 50..60);
        let mut engine = bench.open(&graph).unwrap();
        for _ in 0..2_000 {
            bench.round(&mut engine).unwrap();
        }
        let sums = bench.log.find(SUMS).unwrap().unwrap();
        let rows = bench.log.rows(&sums);
        assert_eq!(rows.len(), 60, "one for each number, {rounds} rounds before the crash");
        for row in rows {
            let remainder = I64.decode(&row.key.unwrap()).unwrap();
            assert_eq!(I64.decode(&row.value.unwrap()).unwrap(), 100 + remainder);
        }
    }
}

#[test]
fn state_without_an_epoch_record_is_refused() {
    let bench = Bench::new(log_with(10).0);
    let mut engine = bench.open(&flow()).unwrap();
    bench.finish(&mut engine);
    engine.close().unwrap();
    bench.log.delete("flow-epochs");
    let error = bench.open(&flow()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(
        text.contains("no epoch record in topic flow-epochs") && text.contains("flow-sums-changelog"),
        "{text}"
    );
    assert!(bench.log.find("flow-epochs").unwrap().is_none(), "and nothing is made");
}

#[test]
fn a_first_epoch_that_was_aborted_is_no_reason_to_refuse() {
    let bench = Bench::new(log_with(10).0);
    let mut engine = bench.open(&flow()).unwrap();
    let changelog = bench.log.find("flow-sums-changelog").unwrap().unwrap();
    let ends = |log: &MemoryLog| -> i64 {
        let key = |partition| PartitionKey { topic: changelog.index, partition: PartitionId(partition) };
        (0..3).map(|partition| log.end(key(partition)).0).sum()
    };
    while ends(&bench.log) == 0 {
        bench.round(&mut engine).unwrap();
    }
    bench.crash(engine, 1);
    let mut engine = bench.open(&flow()).unwrap();
    bench.finish(&mut engine);
    assert_eq!(found(&bench.log), expected(10));
}
