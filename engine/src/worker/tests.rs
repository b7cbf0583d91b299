use std::collections::BTreeMap;

use lotic_log::batch::RecordView;
use lotic_log::{Header, PartitionId};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::assembly::AssemblyOptions;
use crate::codec::CodecError;
use crate::error::{Error, ErrorKind};
use crate::event_log::{EventLog, TopicHandle};
use crate::frame::{Batch, Columns, Frame};
use crate::graph::{Edge, Exchange, Graph};
use crate::harness::{Run, Start, Text, sketch, tiny};
use crate::memory_log::MemoryLog;
use crate::message::Watermark;
use crate::operator::{
    Context, OpenContext, Operator, OperatorFactory, Progress, operator_factory, waiting_operator_factory,
};
use crate::operators::{TopicSource, filter, flat_map, key_by, map, topic_sink, union};
use crate::source::SourceFactory;

const FORWARD: Exchange = Exchange::Forward;
const HASH: Exchange = Exchange::Hash;

fn text(topic: &str) -> impl SourceFactory + use<> {
    let decode = |record: &RecordView<'_>| match std::str::from_utf8(record.value.unwrap_or_default()) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(CodecError::caused("it is not UTF-8", error)),
    };
    TopicSource::new(topic, decode, |_: &String, timestamp| timestamp).disorder_ms(10)
}

fn to(topic: &str) -> Arc<dyn OperatorFactory> {
    topic_sink(
        topic,
        |row: &String, out: &mut Vec<u8>| {
            out.extend_from_slice(&row.as_bytes()[..1]);
            Ok(true)
        },
        |row: &String, out: &mut Vec<u8>| {
            out.extend_from_slice(row.as_bytes());
            Ok(true)
        },
        |_: &String, _: &mut Vec<Header>| (),
    )
}

/// Keys by the first letter, and back to rows on the worker that owns the key.
fn by_letter() -> Arc<dyn OperatorFactory> {
    key_by(|row: &String| row[..1].to_owned(), Arc::new(Text))
}

fn unkeyed() -> Arc<dyn OperatorFactory> {
    map(|(_, row): (String, String)| row)
}

/// The values in a topic, sorted.
fn values(log: &MemoryLog, topic: &TopicHandle) -> Vec<String> {
    let rows = log.rows(topic).into_iter();
    let mut values: Vec<String> = rows.map(|row| String::from_utf8(row.value.unwrap()).unwrap()).collect();
    values.sort();
    values
}

/// A topic `in` of four partitions with so many records, and an empty topic `out`.
fn topics(log: &MemoryLog, records: usize) -> (TopicHandle, TopicHandle) {
    let (input, output) = (log.topic("in", 4), log.topic("out", 3));
    produce(log, &input, 0..records);
    (input, output)
}

fn produce(log: &MemoryLog, topic: &TopicHandle, numbers: std::ops::Range<usize>) {
    let letters = ["a", "b", "c", "d", "e", "f", "g"];
    let numbers: Vec<usize> = numbers.collect();
    for chunk in numbers.chunks(5) {
        let values: Vec<String> =
            chunk.iter().map(|n| format!("{}{n}", letters[n % letters.len()])).collect();
        let rows: Vec<(i64, &[u8], &[u8])> =
            chunk.iter().zip(&values).map(|(n, value)| (*n as i64, &b""[..], value.as_bytes())).collect();
        log.produce(topic, chunk[0] as i32 % topic.partitions, &rows);
    }
}

fn letters(count: usize) -> Vec<String> {
    let letters = ["a", "b", "c", "d", "e", "f", "g"];
    (0..count).map(|n| format!("{}{n}", letters[n % letters.len()])).collect()
}

/// Streams that part, change worker, meet again, and are sent to all: every way to fill a queue.
fn diamond() -> Graph {
    let mut graph = sketch();
    let input = graph.source("in", text("in"));
    let left = graph.step("left", map(|row: String| format!("{row} left")), &[(input, FORWARD)]);
    let keyed = graph.step("by letter", by_letter(), &[(left, FORWARD)]);
    let owned = graph.step("owned", unkeyed(), &[(keyed, HASH)]);
    let right = graph.step("right", filter(|row: &String| row.len().is_multiple_of(2)), &[(input, FORWARD)]);
    let both = graph.step("both", union(), &[(owned, FORWARD), (right, FORWARD)]);
    graph.edges.iter_mut().filter(|edge| edge.to == both).for_each(|edge| edge.input = 0);
    let halting = graph.step("halting", halting(), &[(both, FORWARD)]);
    graph.step("out", to("out"), &[(halting, FORWARD)]);
    graph
}

fn expected_of_diamond(count: usize) -> Vec<String> {
    let rows = letters(count);
    let left = rows.iter().map(|row| format!("{row} left"));
    let right = rows.iter().filter(|row| row.len().is_multiple_of(2)).cloned();
    let mut expected: Vec<String> = left.chain(right).collect();
    expected.extend((0..5).map(|piece| format!("end {piece}")));
    expected.sort();
    expected
}

/// A step that stops early whenever it may, and says five more rows at the end, on worker 0. It sees to it
/// that its watermark is never ahead of that of a row.
struct Halting {
    watermark: Timestamp,
    is_first: bool,
    halts: usize,
    said: usize,
}

fn halting() -> Arc<dyn OperatorFactory> {
    operator_factory(|context| {
        let (watermark, is_first) = (crate::frame::NO_WATERMARK, context.worker == 0);
        Ok(Halting { watermark, is_first, halts: 0, said: 0 })
    })
}

impl Operator for Halting {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let watermarks = &frame.columns.watermarks;
        assert!(watermarks.iter().all(|own| *own >= self.watermark), "a watermark has overtaken a row");
        context.emit(0, frame);
        Ok(())
    }

    fn advance(&mut self, _: usize, watermark: Watermark, context: &mut Context<'_>) -> Result<Progress> {
        self.watermark = watermark.time;
        self.halts += 1;
        if !self.halts.is_multiple_of(3) {
            return Ok(Progress::More);
        }
        context.forward_watermark(watermark);
        Ok(Progress::Done)
    }

    fn end(&mut self, context: &mut Context<'_>) -> Result<Progress> {
        if !self.is_first || self.said == 5 {
            return Ok(Progress::Done);
        }
        let (time, watermark) = (Timestamp(0), Timestamp(0));
        let columns = Columns { times: vec![time], watermarks: vec![watermark], ..Columns::default() };
        context.emit(0, Batch { rows: vec![format!("end {}", self.said)], columns }.into());
        self.said += 1;
        Ok(Progress::More)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_number_of_workers_in_any_order_gives_the_same_rows(
        seed in any::<u64>(),
        records in 0..120usize,
        workers in prop::sample::select(vec![1usize, 2, 3, 4]),
        epoch_steps in prop::sample::select(vec![3u32, 20, 1_000]),
        frame_rows_max in prop::sample::select(vec![1usize, 3, 4096]),
        queue_messages_max in 1..4usize,
    ) {
        let log = MemoryLog::new();
        let (_, output) = topics(&log, records);
        let options = AssemblyOptions { frame_rows_max, queue_messages_max, ..tiny() };
        let start = Start { options, ..Start::fresh(workers, seed) };
        let mut run = Run::new(&log, &diamond(), &start).unwrap();
        run.finish(epoch_steps).unwrap();
        prop_assert_eq!(values(&log, &output), expected_of_diamond(records));
    }

    #[test]
    fn what_goes_on_from_a_committed_epoch_leaves_nothing_out_and_writes_nothing_twice(
        seed in any::<u64>(),
        attempts in prop::collection::vec((1..4usize, 1..300usize), 1..5),
    ) {
        let log = MemoryLog::new();
        let (_, output) = topics(&log, 100);
        let (mut last, mut splits) = (Epoch(0), Vec::new());
        for (index, (workers, steps)) in attempts.iter().enumerate() {
            let seed = seed.wrapping_add(index as u64);
            let start = Start { last_committed: last, splits: &splits, ..Start::fresh(*workers, seed) };
            let mut run = Run::new(&log, &simple(), &start).unwrap();
            for step in 0..*steps {
                if step % 40 == 7 {
                    run.commit().unwrap();
                }
                run.step().unwrap();
            }
            (last, splits) = (Epoch(run.open.0 - 1), run.committed.clone());
            log.abort().unwrap();
        }
        let start = Start { last_committed: last, splits: &splits, ..Start::fresh(2, seed) };
        Run::new(&log, &simple(), &start).unwrap().finish(30).unwrap();
        let mut expected = letters(100);
        expected.sort();
        prop_assert_eq!(values(&log, &output), expected);
    }
}

/// From `in` by letter to `out`.
fn simple() -> Graph {
    let mut graph = sketch();
    let input = graph.source("in", text("in"));
    let keyed = graph.step("by letter", by_letter(), &[(input, FORWARD)]);
    let owned = graph.step("owned", unkeyed(), &[(keyed, HASH)]);
    graph.step("out", to("out"), &[(owned, FORWARD)]);
    graph
}

/// What a step was told, by worker.
type Told = Arc<Mutex<Vec<Vec<String>>>>;

/// A step that notes what it is told, and passes rows on.
struct Noting {
    worker: usize,
    told: Told,
}

impl Noting {
    fn open(told: &Told, context: &OpenContext<'_>) -> Self {
        told.lock().resize(context.workers, Vec::new());
        Self { worker: context.worker, told: Arc::clone(told) }
    }
}

fn noting(told: &Told) -> Arc<dyn OperatorFactory> {
    let told = Arc::clone(told);
    operator_factory(move |context| Ok(Noting::open(&told, context)))
}

/// Notes what it is told; what comes on input 0 is said to wait for the watermark of input 1.
fn waiting(told: &Told) -> Arc<dyn OperatorFactory> {
    let told = Arc::clone(told);
    waiting_operator_factory(1, move |context| Ok(Noting::open(&told, context)))
}

impl Noting {
    fn note(&self, what: String) {
        self.told.lock()[self.worker].push(what);
    }
}

impl Operator for Noting {
    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let batch = frame.duplicate().into_batch::<String>();
        batch.rows.iter().for_each(|row| self.note(format!("{input} {row}")));
        context.emit(0, frame);
        Ok(())
    }

    fn advance(&mut self, input: usize, watermark: Watermark, context: &mut Context<'_>) -> Result<Progress> {
        let of = watermark.partition.map_or("all".to_owned(), |partition| partition.to_string());
        self.note(format!("{input} watermark {of} {}", watermark.time));
        context.forward_watermark(watermark);
        Ok(Progress::Done)
    }

    fn end(&mut self, _context: &mut Context<'_>) -> Result<Progress> {
        self.note("end".to_owned());
        Ok(Progress::Done)
    }

    fn barrier(&mut self, epoch: Epoch, _context: &mut Context<'_>) -> Result<()> {
        self.note(format!("barrier {epoch}"));
        Ok(())
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.note(format!("committed {epoch}"));
        Ok(())
    }
}

fn noted(told: &Told, worker: usize) -> Vec<String> {
    std::mem::take(&mut told.lock()[worker])
}

#[test]
fn a_barrier_comes_once_an_epoch_behind_all_rows_of_it_on_every_input() {
    for seed in 0..50 {
        let log = MemoryLog::new();
        let (first, second) = (log.topic("first", 2), log.topic("second", 2));
        let told = Told::default();
        let mut graph = sketch();
        let sources = ["first", "second"].map(|topic| {
            let source = graph.source(topic, text(topic));
            graph.step(&format!("{topic} by letter"), by_letter(), &[(source, FORWARD)])
        });
        let owned = sources.map(|keyed| {
            let name = format!("owned {}", keyed.0);
            graph.step(&name, unkeyed(), &[(keyed, HASH)])
        });
        let owned = owned.map(|node| (node, FORWARD));
        graph.step("both", noting(&told), &owned);
        let (options, bounded) = (tiny(), false);
        let mut run = Run::new(&log, &graph, &Start { options, bounded, ..Start::fresh(2, seed) }).unwrap();
        let mut expected = BTreeMap::new();
        for epoch in 1..=3 {
            let numbers = epoch * 40..epoch * 40 + 30;
            produce(&log, &first, numbers.clone());
            produce(&log, &second, numbers.clone());
            run.settle().unwrap();
            expected.insert(epoch, numbers.len() * 2);
            run.commit().unwrap();
        }
        run.settle().unwrap();
        let mut rows = BTreeMap::new();
        for worker in 0..2 {
            let (mut epoch, mut committed) = (1, 0);
            for note in noted(&told, worker) {
                if note == format!("barrier {epoch}") {
                    epoch += 1;
                } else if note == format!("committed {}", committed + 1) {
                    committed += 1;
                    assert!(committed < epoch, "an epoch is committed behind its barrier");
                } else if !note.contains("watermark") {
                    *rows.entry(epoch).or_insert(0) += 1;
                }
            }
            assert_eq!((epoch, committed), (4, 3), "seed {seed}");
        }
        assert_eq!(rows, expected, "seed {seed}");
    }
}

#[test]
fn what_a_record_would_wait_for_is_read_before_it() {
    const TABLE_END: i64 = 1_000;
    let log = MemoryLog::new();
    let (stream, table) = (log.topic("stream", 2), log.topic("table", 2));
    for (index, time) in (0..TABLE_END / 2).step_by(60).enumerate() {
        let values = [time, time + 20, time + 40].map(|time| (time, time.to_string()));
        let rows = values.each_ref().map(|(time, value)| (*time, &b""[..], value.as_bytes()));
        log.produce(&stream, index as i32 % 2, &rows);
    }
    for time in (0..TABLE_END).step_by(10) {
        log.produce(&table, (time / 10) as i32 % 2, &[(time, b"", b"row")]);
    }
    let told = Told::default();
    let mut graph = sketch();
    // By way of another step, which knows nothing of it.
    let rows = graph.source("table", text("table"));
    let rows = graph.step("rows", map(|row: String| row), &[(rows, FORWARD)]);
    let stream = graph.source("stream", text("stream"));
    graph.step("join", waiting(&told), &[(stream, FORWARD), (rows, FORWARD)]);
    Run::new(&log, &graph, &Start::fresh(1, 1)).unwrap().settle().unwrap();
    let (mut watermark, mut records, mut ahead) = (i64::MIN, 0, 0);
    for note in noted(&told, 0) {
        if let Some(risen) = note.strip_prefix("1 watermark all ") {
            watermark = risen.parse().unwrap();
        } else if let Some(time) = note.strip_prefix("0 ").and_then(|row| row.parse::<i64>().ok()) {
            assert!(watermark > time, "{time} would wait: the table is at {watermark}");
            ahead = ahead.max(watermark - time);
            records += 1;
        }
    }
    assert_eq!(records, 27);
    assert!(ahead < TABLE_END / 4, "and not much further is read: by {ahead} ms");
}

#[test]
fn what_is_waited_for_and_always_has_more_keeps_what_waits_from_being_read_for_so_many_turns_only() {
    let turns_max = TURNS_AHEAD_MAX as usize;
    let log = MemoryLog::new();
    let (stream, table) = (log.topic("stream", 1), log.topic("table", 1));
    log.produce(&stream, 0, &[(0, b"", b"one"), (0, b"", b"two"), (0, b"", b"three")]);
    // None of them brings the watermark up to what waits for it.
    let rows = vec![(1, &b""[..], &b"row"[..]); 5 * turns_max];
    log.produce(&table, 0, &rows);
    let told = Told::default();
    let mut graph = sketch();
    let sources = ["stream", "table"].map(|topic| (graph.source(topic, text(topic)), FORWARD));
    graph.step("join", waiting(&told), &sources);
    let options = AssemblyOptions { frame_rows_max: 1, ..tiny() };
    Run::new(&log, &graph, &Start { options, ..Start::fresh(1, 1) }).unwrap().settle().unwrap();
    let read: Vec<_> = noted(&told, 0).into_iter().filter(|note| !note.contains("watermark")).collect();
    let places: Vec<_> = ["0 one", "0 two", "0 three"]
        .map(|row| read.iter().position(|note| note == row).expect("it is read"))
        .to_vec();
    assert_eq!(places, [turns_max, 2 * turns_max + 1, 3 * turns_max + 2]);
}

#[test]
fn the_watermark_of_an_input_is_the_least_of_all_workers_and_its_end_the_last() {
    let log = MemoryLog::new();
    let input = log.topic("in", 2);
    log.produce(&input, 0, &[(100, b"", b"a")]);
    log.produce(&input, 1, &[(70, b"", b"b")]);
    let told = Told::default();
    let mut graph = sketch();
    let source = graph.source("in", text("in"));
    graph.step("all", noting(&told), &[(source, Exchange::Broadcast)]);
    let mut run = Run::new(&log, &graph, &Start::fresh(2, 1)).unwrap();
    run.settle().unwrap();
    for worker in 0..2 {
        let mut told = noted(&told, worker);
        assert_eq!(told.pop().unwrap(), "end");
        told.sort();
        assert_eq!(told, ["0 a", "0 b", "0 watermark all 60"]);
    }
}

#[test]
fn a_watermark_never_overtakes_a_row_that_waits_for_room() {
    let log = MemoryLog::new();
    let input = log.topic("in", 1);
    for time in 0..50 {
        log.produce(&input, 0, &[(time, b"", b"a")]);
    }
    for seed in 0..20 {
        let mut graph = sketch();
        let source = graph.source("in", text("in"));
        graph.step("halting", halting(), &[(source, Exchange::Broadcast)]);
        let options = AssemblyOptions { frame_rows_max: 3, queue_messages_max: 2, ..tiny() };
        Run::new(&log, &graph, &Start { options, ..Start::fresh(2, seed) }).unwrap().settle().unwrap();
        log.abort().unwrap();
    }
}

#[test]
fn a_step_that_stops_early_is_called_again_with_the_same_watermark() {
    let log = MemoryLog::new();
    let input = log.topic("in", 1);
    log.produce(&input, 0, &[(100, b"", b"a"), (200, b"", b"b")]);
    let told = Told::default();
    let mut graph = sketch();
    let source = graph.source("in", text("in"));
    let halting = graph.step("halting", halting(), &[(source, FORWARD)]);
    graph.step("after", noting(&told), &[(halting, FORWARD)]);
    let mut options = tiny();
    options.frame_rows_max = 1;
    Run::new(&log, &graph, &Start { options, ..Start::fresh(1, 1) }).unwrap().settle().unwrap();
    let expected = ["0 a", "0 watermark all 90", "0 b", "0 watermark all 190"];
    assert_eq!(noted(&told, 0)[..4], expected);
}

#[test]
fn what_a_step_emits_arrives_in_that_order_on_the_same_worker_and_on_another() {
    let log = MemoryLog::new();
    let input = log.topic("in", 1);
    log.produce(&input, 0, &[(100, b"", b"abcdefghijkl")]);
    let (near, far) = (Told::default(), Told::default());
    let mut graph = sketch();
    let source = graph.source("in", text("in"));
    let letters = |row: String| row.chars().map(String::from).collect::<Vec<_>>();
    let letters = graph.step("letters", flat_map(letters), &[(source, FORWARD)]);
    graph.step("near", noting(&near), &[(letters, FORWARD)]);
    graph.step("far", noting(&far), &[(letters, Exchange::Broadcast)]);
    Run::new(&log, &graph, &Start::fresh(2, 1)).unwrap().settle().unwrap();
    let expected: Vec<String> = "abcdefghijkl".chars().map(|letter| format!("0 {letter}")).collect();
    assert_eq!(noted(&near, 0)[..12], expected);
    assert_eq!(noted(&far, 1)[..12], expected);
}

#[test]
fn a_worker_without_splits_of_a_source_keeps_nobody_waiting() {
    let log = MemoryLog::new();
    let input = log.topic("in", 1);
    log.produce(&input, 0, &[(100, b"", b"a")]);
    let told = Told::default();
    let mut graph = sketch();
    let source = graph.source("in", text("in"));
    graph.step("all", noting(&told), &[(source, Exchange::Broadcast)]);
    let mut run = Run::new(&log, &graph, &Start::fresh(3, 1)).unwrap();
    run.finish(1_000).unwrap();
    assert_eq!(noted(&told, 2), ["0 a", "0 watermark all 90", "end", "barrier 1", "committed 1"]);
}

#[test]
fn a_source_that_gives_nothing_has_nothing_to_commit() {
    let log = MemoryLog::new();
    topics(&log, 0);
    let mut run = Run::new(&log, &simple(), &Start::fresh(2, 1)).unwrap();
    run.finish(1_000_000).unwrap();
    assert_eq!(run.open, Epoch(1), "no epoch was ended");
    assert_eq!(log.ends().unwrap().unwrap(), []);
}

#[test]
fn timeless_sources_are_read_before_any_other_and_then_only_when_an_epoch_starts() {
    let log = MemoryLog::new();
    let (airlines, flights) = (log.topic("airlines", 1), log.topic("flights", 1));
    log.produce(&airlines, 0, &[(0, b"", b"AA"), (0, b"", b"BB")]);
    log.produce(&flights, 0, &[(5, b"", b"one")]);
    let told = Told::default();
    let mut graph = sketch();
    let flights_source = graph.source("flights", text("flights"));
    let airlines_source = graph.timeless("airlines", text("airlines"));
    let inputs = [(flights_source, FORWARD), (airlines_source, Exchange::Broadcast)];
    graph.step("join", noting(&told), &inputs);
    let (options, bounded) = (AssemblyOptions { hold_sources: true, ..tiny() }, false);
    let mut run = Run::new(&log, &graph, &Start { options, bounded, ..Start::fresh(2, 3) }).unwrap();
    run.settle().unwrap();
    assert_eq!(run.loaded(), 2);
    let forever = format!("1 watermark all {}", i64::MAX);
    assert_eq!(noted(&told, 0), ["1 AA", "1 BB", forever.as_str()]);

    log.produce(&airlines, 0, &[(0, b"", b"CC")]);
    run.settle().unwrap();
    assert_eq!(noted(&told, 0), [""; 0], "what comes later waits for the next epoch");
    run.commit().unwrap();
    run.tell(&Command::StartSources).unwrap();
    run.settle().unwrap();
    let notes = noted(&told, 0);
    assert_eq!(notes[0], "barrier 1");
    assert!(notes.contains(&"0 one".to_owned()) && notes.contains(&"1 CC".to_owned()), "{notes:?}");

    log.produce(&airlines, 0, &[(0, b"", b"DD")]);
    log.produce(&flights, 0, &[(6, b"", b"two")]);
    run.settle().unwrap();
    let notes = noted(&told, 0);
    assert!(notes.contains(&"0 two".to_owned()) && !notes.contains(&"1 DD".to_owned()), "{notes:?}");
    run.commit().unwrap();
    run.settle().unwrap();
    assert!(noted(&told, 0).contains(&"1 DD".to_owned()));
}

#[test]
fn of_two_sources_the_one_that_is_behind_is_read_first() {
    let log = MemoryLog::new();
    let (old, new) = (log.topic("old", 1), log.topic("new", 1));
    for time in 0..6i64 {
        log.produce(&old, 0, &[(time, b"", b"old")]);
        log.produce(&new, 0, &[(time + 3, b"", b"new")]);
    }
    let told = Told::default();
    let mut graph = sketch();
    let sources = ["new", "old"].map(|topic| (graph.source(topic, text(topic)), FORWARD));
    graph.step("both", noting(&told), &sources);
    let mut options = tiny();
    options.frame_rows_max = 1;
    let mut run = Run::new(&log, &graph, &Start { options, ..Start::fresh(1, 1) }).unwrap();
    run.settle().unwrap();
    let order = noted(&told, 0);
    let order: Vec<&str> =
        order.iter().filter(|note| note.contains("d") || note.contains("new")).map(String::as_str).collect();
    let rows: Vec<&&str> =
        order.iter().filter(|note| note.ends_with("old") || note.ends_with("new")).collect();
    assert_eq!(rows[..4], [&"1 old", &"1 old", &"1 old", &"0 new"]);
}

#[test]
fn with_the_staged_bytes_full_sources_wait_and_a_begun_transaction_lets_them_go_on() {
    check_backpressure(&simple());
    let mut chained = sketch();
    let input = chained.source("in", text("in"));
    chained.step("out", to("out"), &[(input, FORWARD)]);
    check_backpressure(&chained);
}

fn check_backpressure(graph: &Graph) {
    let log = MemoryLog::new();
    let (_, output) = topics(&log, 400);
    let mut run = Run::new(&log, graph, &Start::fresh(1, 1)).unwrap();
    run.barrier().unwrap();
    let worker = &mut run.workers[0];
    while worker.step().unwrap() {}
    let reports = worker.take_reports();
    assert!(reports.contains(&Report::Flushed(Epoch(1))) && reports.contains(&Report::Active(Epoch(2))));
    log.commit(Epoch(1), &[]).unwrap();
    let consumed = run.counters[0].emitted.get();
    assert!((10..100).contains(&consumed), "400 bytes and queues hold some tens of rows, not {consumed}");
    log.begin(Epoch(2)).unwrap();
    worker.handle(Command::Committed(Epoch(1))).unwrap();
    worker.handle(Command::Begun(Epoch(2))).unwrap();
    while worker.step().unwrap() {}
    assert_eq!(run.counters[0].emitted.get(), 400);
    worker.handle(Command::Barrier(Epoch(2))).unwrap();
    while worker.step().unwrap() {}
    log.commit(Epoch(2), &[]).unwrap();
    let mut expected = letters(400);
    expected.sort();
    assert_eq!(values(&log, &output), expected);
}

#[test]
fn steps_count_what_they_take_and_give() {
    let log = MemoryLog::new();
    topics(&log, 40);
    let mut run = Run::new(&log, &diamond(), &Start::fresh(2, 9)).unwrap();
    run.finish(50).unwrap();
    let counts: Vec<_> = run.counters.iter().map(|step| (step.received.get(), step.emitted.get())).collect();
    let even = letters(40).iter().filter(|row| row.len().is_multiple_of(2)).count() as u64;
    let both = 40 + even;
    let expected =
        [(0, 40), (40, 40), (40, 40), (40, 40), (40, even), (both, both), (both, both + 5), (both + 5, 0)];
    assert_eq!(counts, expected);
}

#[test]
fn an_error_names_the_step() {
    struct Failing;

    impl Operator for Failing {
        fn process(&mut self, _: usize, _: Frame, _: &mut Context<'_>) -> Result<()> {
            Err(Error::new(ErrorKind::User, "no"))
        }
    }

    let log = MemoryLog::new();
    topics(&log, 1);
    let mut graph = sketch();
    let source = graph.source("in", text("in"));
    graph.step("refuse", operator_factory(|_| Ok(Failing)), &[(source, FORWARD)]);
    let error = Run::new(&log, &graph, &Start::fresh(1, 1)).unwrap().finish(5).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::User, "step refuse: no"));
}

#[test]
fn late_records_and_the_like_leave_by_their_own_port() {
    struct Parting;

    impl Operator for Parting {
        fn process(&mut self, _: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
            let (copy, port) = (frame.duplicate(), frame.columns.times[0].0 as usize % 2);
            context.emit(port, copy);
            Ok(())
        }
    }

    let log = MemoryLog::new();
    let input = log.topic("in", 1);
    let (even, odd) = (log.topic("even", 1), log.topic("odd", 1));
    log.produce(&input, 0, &[(1, b"", b"x"), (2, b"", b"y"), (3, b"", b"z")]);
    let mut graph = sketch();
    let source = graph.source("in", text("in"));
    let parting = graph.step("part", operator_factory(|_| Ok(Parting)), &[(source, FORWARD)]);
    graph.step("even", to("even"), &[(parting, FORWARD)]);
    let odd_sink = graph.step("odd", to("odd"), &[(parting, FORWARD)]);
    let again = graph.step("odd again", to("even"), &[(parting, FORWARD)]);
    for edge in graph.edges.iter_mut().filter(|edge| edge.to == odd_sink || edge.to == again) {
        *edge = Edge { port: 1, ..*edge };
    }
    let mut options = tiny();
    options.frame_rows_max = 1;
    Run::new(&log, &graph, &Start { options, ..Start::fresh(1, 1) }).unwrap().finish(100).unwrap();
    assert_eq!(values(&log, &odd), ["x", "z"]);
    assert_eq!(values(&log, &even), ["x", "y", "z"], "a port may have several takers");
}

#[test]
fn sources_are_numbered_by_their_topics() {
    let log = MemoryLog::new();
    let (apples, pears) = (log.topic("apples", 1), log.topic("pears", 1));
    log.produce(&apples, 0, &[(1, b"", b"apple")]);
    log.produce(&pears, 0, &[(1, b"", b"pear")]);
    struct Numbers(Arc<Mutex<Vec<(String, u32)>>>);
    impl Operator for Numbers {
        fn process(&mut self, _: usize, frame: Frame, _: &mut Context<'_>) -> Result<()> {
            let batch = frame.into_batch::<String>();
            let origin = batch.columns.origins[0];
            assert_eq!(origin.partition, PartitionId(0));
            self.0.lock().push((batch.rows[0].clone(), origin.source));
            Ok(())
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by = Arc::clone(&seen);
    let mut graph = sketch();
    let sources = ["pears", "apples"].map(|topic| (graph.source(topic, text(topic)), FORWARD));
    let numbers = operator_factory(move |_| Ok(Numbers(Arc::clone(&seen_by))));
    graph.step("numbers", numbers, &sources);
    Run::new(&log, &graph, &Start::fresh(1, 1)).unwrap().settle().unwrap();
    let mut seen = seen.lock().clone();
    seen.sort();
    assert!(seen[0].1 < seen[1].1, "{seen:?}");
}

/// Says so many rows at the first watermark, one a call, or at the end.
struct Flood {
    left: usize,
    is_at_end: bool,
}

fn flood(rows: usize, is_at_end: bool) -> Arc<dyn OperatorFactory> {
    operator_factory(move |context| Ok(Flood { left: if context.worker == 0 { rows } else { 0 }, is_at_end }))
}

impl Flood {
    fn say(&mut self, context: &mut Context<'_>) -> Progress {
        let Some(left) = self.left.checked_sub(1) else { return Progress::Done };
        self.left = left;
        let (times, watermarks) = (vec![Timestamp(0)], vec![Timestamp(i64::MAX)]);
        let columns = Columns { times, watermarks, ..Columns::default() };
        context.emit(0, Batch { rows: vec![format!("flood {left}")], columns }.into());
        Progress::More
    }
}

impl Operator for Flood {
    fn process(&mut self, _: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        context.emit(0, frame);
        Ok(())
    }

    fn advance(&mut self, _: usize, watermark: Watermark, context: &mut Context<'_>) -> Result<Progress> {
        if !self.is_at_end && self.say(context) == Progress::More {
            return Ok(Progress::More);
        }
        context.forward_watermark(watermark);
        Ok(Progress::Done)
    }

    fn end(&mut self, context: &mut Context<'_>) -> Result<Progress> {
        Ok(if self.is_at_end { self.say(context) } else { Progress::Done })
    }
}

#[test]
fn a_barrier_goes_between_two_calls_of_a_step_that_has_more_to_say() {
    const ROWS: usize = 5_000;
    for (is_at_end, exchange) in [(true, HASH), (false, HASH), (true, FORWARD), (false, FORWARD)] {
        let log = MemoryLog::new();
        let (_, output) = topics(&log, 40);
        let mut graph = sketch();
        let input = graph.source("in", text("in"));
        let keyed = graph.step("by letter", by_letter(), &[(input, FORWARD)]);
        let owned = graph.step("owned", unkeyed(), &[(keyed, exchange)]);
        let flood = graph.step("flood", flood(ROWS, is_at_end), &[(owned, FORWARD)]);
        graph.step("out", to("out"), &[(flood, FORWARD)]);
        let mut run = Run::new(&log, &graph, &Start::fresh(2, 3)).unwrap();
        let said = || values(&log, &output).iter().filter(|row| row.starts_with("flood")).count();
        let mut before = 0;
        let mut epochs = 0;
        while said() < ROWS {
            (0..20).for_each(|_| run.step().unwrap());
            run.commit().unwrap();
            let now = said();
            assert!(now - before < 2_000, "{} rows in an epoch", now - before);
            (before, epochs) = (now, epochs + 1);
        }
        assert!(epochs > 5, "{epochs} epochs, at the end: {is_at_end}");
        run.finish(10).unwrap();
        assert_eq!(values(&log, &output).len(), ROWS + 40);
    }
}
