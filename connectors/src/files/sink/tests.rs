//! The sink killed at every call, and under an engine at every step.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lotic_engine::codec::CodecError;
use lotic_engine::embedded::EmbeddedLog;
use lotic_engine::engine::{Engine, EngineSetup, counters_for};
use lotic_engine::error::ErrorKind;
use lotic_engine::event_log::TopicSpec;
use lotic_engine::graph::{Edge, Exchange, Graph, Node, NodeId, NodeKind, SourceSpec};
use lotic_engine::operators::TopicSource;
use lotic_engine::options::EngineOptions;
use lotic_engine::sink::external_sink;
use lotic_engine::state::MemoryState;
use lotic_log::batch::{BatchBuilder, Compression, RecordView};
use lotic_log::storage::memory::MemoryStorage;
use lotic_log::{Clock, Durability, Log, LogOptions, ManualClock, PartitionId, Timestamp, TopicConfig};
use serde::Deserialize;
use tempfile::TempDir;

use super::*;

const PLACE: StepPlace<'static> = StepPlace { flow: "flow", step: "out" };
const EPOCHS: u64 = 3;
const WORKERS: usize = 2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    number: u32,
    word: String,
}

fn row(number: u32) -> Row {
    Row { number, word: format!("{number}, in words") }
}

/// What shows in the folder of [`PLACE`], by name. Names that begin with a dot do not.
fn shown(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let shown = all(folder).into_iter().filter(|(name, _)| !name.starts_with('.'));
    shown.collect()
}

fn all(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder.join(PLACE.flow).join(PLACE.step)) else { return BTreeMap::new() };
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("UTF-8");
        (name, fs::read(entry.path()).expect("read"))
    };
    entries.map(|entry| file(entry.expect("listed"))).collect()
}

/// Plays the log's part for a sink that is killed when its calls are used up.
struct Script {
    sink: FileSink,
    decided: Epoch,
    calls: usize,
}

impl Script {
    fn new(sink: FileSink) -> Self {
        Self { sink, decided: Epoch(0), calls: usize::MAX }
    }

    /// The rows of an epoch on a worker: none for one of them.
    fn rows(epoch: Epoch, worker: usize) -> Vec<Row> {
        let first = epoch.0 as u32 * 100 + worker as u32 * 10;
        if (epoch, worker) == (Epoch(2), 1) { Vec::new() } else { vec![row(first), row(first + 1)] }
    }

    /// Whether there is another call; not where the process is killed before it.
    fn call(&mut self) -> bool {
        let is_alive = self.calls > 0;
        self.calls = self.calls.saturating_sub(1);
        is_alive
    }

    /// Opens the sink where the log stands, and goes on from there. Whether it comes to the end.
    fn run(&mut self) -> bool {
        SinkFactory::<Row>::check(&self.sink, PLACE, self.decided).expect("its own folder");
        SinkFactory::<Row>::recover(&self.sink, PLACE, self.decided).expect("recovered");
        let open = |worker| SinkFactory::<Row>::open(&self.sink, PLACE, worker).expect("opened");
        let mut writers: Vec<_> = (0..WORKERS).map(open).collect();
        let is_over = self.go_on(&mut writers);
        // A kill runs no destructor.
        std::mem::forget(writers);
        is_over
    }

    fn go_on(&mut self, writers: &mut [Box<dyn Sink<Row>>]) -> bool {
        for epoch in (self.decided.0 + 1..=EPOCHS).map(Epoch) {
            let has_rows = |worker: &usize| !Self::rows(epoch, *worker).is_empty();
            let busy: Vec<usize> = (0..WORKERS).filter(has_rows).collect();
            for &worker in &busy {
                for row in Self::rows(epoch, worker) {
                    let batch = Batch { rows: vec![row], ..Batch::default() };
                    if !self.call() {
                        return false;
                    }
                    writers[worker].write(batch).expect("written");
                }
            }
            for &worker in &busy {
                if !self.call() {
                    return false;
                }
                writers[worker].prepare(epoch).expect("prepared");
            }
            if !self.call() {
                return false;
            }
            self.decided = epoch;
            for &worker in &busy {
                if !self.call() {
                    return false;
                }
                writers[worker].commit(epoch).expect("committed");
            }
        }
        true
    }
}

#[test]
fn a_kill_before_any_call_changes_no_byte_of_what_is_shown_in_the_end() {
    let kinds: [fn(&Path) -> FileSink; 3] = [
        |folder| FileSink::csv(folder),
        |folder| FileSink::csv_with_header(folder, &["n", "w"]),
        |folder| FileSink::json_lines(folder),
    ];
    for kind in kinds {
        let straight = tempfile::tempdir().expect("a temporary folder");
        assert!(Script::new(kind(straight.path())).run());
        let expected = shown(straight.path());
        assert_eq!(expected.len(), 5, "each epoch and worker that had rows");
        let mut kills = 0;
        loop {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut script = Script { calls: kills, ..Script::new(kind(folder.path())) };
            if script.run() {
                break;
            }
            let decided = format!("{:020}-9", script.decided.0);
            assert!(shown(folder.path()).keys().all(|name| *name < decided), "nothing shows that may not be");
            script.calls = usize::MAX;
            assert!(script.run());
            assert_eq!(all(folder.path()), expected, "killed before call {kills}");
            kills += 1;
        }
        assert!(kills > 20);
    }
}

#[test]
fn an_epoch_that_is_not_committed_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prepared_by_both = 6;
    let mut script = Script { calls: prepared_by_both, ..Script::new(FileSink::csv(folder.path())) };
    assert!(!script.run());
    assert_eq!((all(folder.path()).len(), script.decided), (WORKERS, Epoch(0)));
    SinkFactory::<Row>::recover(&script.sink, PLACE, Epoch(0)).expect("recovered");
    assert_eq!(all(folder.path()), BTreeMap::new());
}

#[test]
fn rows_are_written_as_the_format_says() {
    let check = |sink: fn(&Path) -> FileSink, name: &str, expected: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Script::new(sink(folder.path())).run();
        let file = &shown(folder.path())[name];
        assert_eq!(String::from_utf8_lossy(file), expected);
    };
    let (csv, json) = ("00000000000000000001-1.csv", "00000000000000000001-1.jsonl");
    let rows = "110,\"110, in words\"\n111,\"111, in words\"\n";
    check(|folder| FileSink::csv(folder), csv, &format!("number,word\n{rows}"));
    check(|folder| FileSink::csv_with_header(folder, &["n", "w"]), csv, &format!("n,w\n{rows}"));
    let lines = "{\"number\":110,\"word\":\"110, in words\"}\n{\"number\":111,\"word\":\"111, in words\"}\n";
    check(|folder| FileSink::json_lines(folder), json, lines);
}

#[test]
fn files_of_epochs_that_the_log_does_not_know_are_refused_and_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(Script::new(FileSink::csv(folder.path())).run());
    let before = all(folder.path());
    let checked = SinkFactory::<Row>::check(&FileSink::csv(folder.path()), PLACE, Epoch(2));
    let error = checked.expect_err("the third epoch is another run's");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("00000000000000000003-"), "{error}");
    assert_eq!(all(folder.path()), before);
}

/// Numbers from a topic of three partitions into a [`FileSink`], stepped by the test.
struct Bench {
    folder: TempDir,
    storage: Arc<MemoryStorage>,
    log: Log,
    clock: Arc<ManualClock>,
    graph: Graph,
}

fn open_log(storage: &Arc<MemoryStorage>, clock: &Arc<ManualClock>) -> Log {
    let options = LogOptions::manual(Arc::clone(storage) as Arc<_>, Arc::clone(clock) as Arc<dyn Clock>, 0);
    Log::open(Path::new("/"), options).expect("opened")
}

const NUMBERS: u32 = 40;

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = ManualClock::new();
        let storage = MemoryStorage::new(0);
        let log = open_log(&storage, &clock);
        let partitions = 3;
        // What is appended can be read at once.
        let config = TopicConfig { partitions, durability: Some(Durability::Os), ..TopicConfig::default() };
        let topic = log.create_topic("numbers", config).expect("made");
        for number in 0..NUMBERS {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(Timestamp(0), None, Some(&number.to_be_bytes()), &[]).expect("a short record");
            let partition = topic.partition(PartitionId(number as i32 % partitions)).expect("there");
            partition.append(batch.seal()).expect("appended");
        }
        let graph = graph(FileSink::csv(folder.path()));
        Self { folder, storage, log, clock, graph }
    }

    fn open(&self, workers: usize) -> Engine {
        let options = EngineOptions {
            workers,
            epoch_interval: Duration::from_millis(5),
            frame_rows_max: 2,
            bounded: true,
            ..EngineOptions::default()
        };
        let opened = Engine::open(EngineSetup {
            graph: &self.graph,
            log: EmbeddedLog::new(self.log.clone(), PLACE.flow),
            home: Arc::new(MemoryState::new()),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            counters: &counters_for(&self.graph),
            options: &options,
            is_stopping: &|| false,
        });
        opened.expect("opened")
    }

    /// One round of steps; time passes.
    fn round(&self, engine: &mut Engine) {
        engine.step_coordinator().expect("stepped");
        for worker in 0..engine.workers() {
            engine.step_worker(worker).expect("stepped");
        }
        self.clock.advance(Duration::from_millis(1));
    }

    /// Ends the attempt and opens the log again, which settles what was being committed. Destructors have no effect
    /// on files.
    fn kill(&mut self, engine: Engine) {
        let left = all(self.folder.path());
        drop(engine);
        self.log.close().expect("closed");
        self.log = open_log(&self.storage, &self.clock);
        let folder = self.folder.path().join(PLACE.flow).join(PLACE.step);
        if fs::exists(&folder).expect("asked") {
            fs::remove_dir_all(&folder).expect("removed");
            fs::create_dir(&folder).expect("made");
            left.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).expect("written"));
        }
    }

    /// The numbers that show, none of an epoch after `last`.
    fn numbers(&self, last: Epoch) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (name, bytes) in shown(self.folder.path()) {
            assert!(name < format!("{:020}", last.0 + 1), "{name} shows, and {last} is the last epoch");
            let rows = ::csv::Reader::from_reader(&bytes[..]).into_deserialize::<Row>();
            numbers.extend(rows.map(|row| row.expect("a row").number));
        }
        numbers.sort_unstable();
        numbers
    }
}

fn graph(sink: FileSink) -> Graph {
    let decode = |record: &RecordView<'_>| {
        let bytes = record.value.and_then(|value| value.try_into().ok());
        Ok::<_, CodecError>(row(u32::from_be_bytes(bytes.expect("four bytes"))))
    };
    let source = Arc::new(TopicSource::new("numbers", decode, |_: &Row, time| time));
    let node = |name: &str, kind| Node {
        name: name.to_owned(),
        description: name.to_owned(),
        kind,
        stores: Vec::new(),
        depends_on_arrival: false,
    };
    let (from, to) = (NodeId(0), NodeId(1));
    Graph {
        name: PLACE.flow.to_owned(),
        nodes: vec![
            node("numbers", NodeKind::Source(SourceSpec { factory: source, timeless: false })),
            node(PLACE.step, NodeKind::Operator(external_sink::<Row>(sink))),
        ],
        edges: vec![Edge { from, port: 0, to, input: 0, exchange: Exchange::Forward }],
        topics: vec![TopicSpec {
            name: "numbers".to_owned(),
            partitions: None,
            compacted: false,
            create: false,
            key_format: None,
            owner: None,
        }],
    }
}

#[test]
fn a_flow_killed_at_any_step_has_each_row_in_its_files_once() {
    let mut most_files = 0;
    for rounds in 0..50 {
        let mut bench = Bench::new();
        for (workers, rounds) in [(2, rounds), (3, rounds / 2)] {
            let mut engine = bench.open(workers);
            for _ in 0..rounds {
                bench.round(&mut engine);
                bench.numbers(engine.last_committed());
            }
            bench.kill(engine);
        }
        let mut engine = bench.open(2);
        while !engine.is_finished() {
            bench.round(&mut engine);
        }
        let numbers = bench.numbers(engine.last_committed());
        assert_eq!(numbers, (0..NUMBERS).collect::<Vec<_>>(), "killed after {rounds} rounds");
        assert_eq!(all(bench.folder.path()), shown(bench.folder.path()), "nothing is left half done");
        most_files = most_files.max(all(bench.folder.path()).len());
    }
    assert!(most_files > 4, "of several epochs and workers");
}
