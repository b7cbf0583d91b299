//! The steps without state: rows in, rows out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lotic_log::{Offset, PartitionId, Timestamp};

use super::*;
use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_writer::{EpochWriter, EpochWriterOptions};
use crate::error::Result;
use crate::event_log::{EventLog, Topics};
use crate::frame::{Batch, Data, Frame, Origin};
use crate::harness::{Text, no_stores};
use crate::memory_log::{MemoryLog, Row};
use crate::message::Watermark;
use crate::operator::{Context, OpenContext, Operator, OperatorFactory, Output, OutputItem, Progress};

/// One step on one worker, its output collected.
struct Bench {
    log: Arc<MemoryLog>,
    operator: Box<dyn Operator>,
    writer: EpochWriter,
    output: Output,
}

impl Bench {
    fn new(log: &Arc<MemoryLog>, factory: &Arc<dyn OperatorFactory>) -> Self {
        let port: Arc<dyn EventLog> = log.clone();
        let topics: Topics = log.handles().into_iter().collect();
        let operator = factory.open(&mut OpenContext {
            flow: "flow",
            step: "step",
            worker: 0,
            workers: 1,
            frame_rows_max: 4,
            last_committed: Epoch(0),
            topics: &topics,
            state: &no_stores(0, 1),
        });
        let mut writer = EpochWriter::new(port, EpochWriterOptions::default(), Epoch(1));
        log.begin(Epoch(1)).unwrap();
        writer.begin(Epoch(1)).unwrap();
        Self { log: log.clone(), operator: operator.unwrap(), writer, output: Output::default() }
    }

    fn call<R>(&mut self, call: impl FnOnce(&mut dyn Operator, &mut Context<'_>) -> R) -> R {
        let mut context = Context {
            output: &mut self.output,
            writer: &mut self.writer,
            counters: &Counters::default(),
            processing_time: Timestamp(0),
        };
        call(&mut *self.operator, &mut context)
    }

    fn process<T: Data>(&mut self, batch: Batch<T>) -> Result<()> {
        self.call(|operator, context| operator.process(0, batch.into(), context))
    }

    /// The frames emitted on port 0 since the last call.
    fn frames(&mut self) -> Vec<Frame> {
        let frame = |item| match item {
            OutputItem::Frame(0, frame) => frame,
            OutputItem::Frame(..) | OutputItem::Watermark(_) => panic!("only port 0 is expected"),
        };
        self.output.items.drain(..).map(frame).collect()
    }

    fn watermarks(&mut self, watermark: Watermark) -> Vec<Watermark> {
        let done = self.call(|operator, context| operator.advance(0, watermark, context)).unwrap();
        assert_eq!(done, Progress::Done);
        let watermark = |item| match item {
            OutputItem::Watermark(watermark) => watermark,
            OutputItem::Frame(..) => panic!("no rows are expected"),
        };
        self.output.items.drain(..).map(watermark).collect()
    }

    fn committed(mut self, topic: &crate::event_log::TopicHandle) -> Vec<Row> {
        self.writer.flush(Epoch(1)).unwrap();
        self.log.commit(Epoch(1), &[]).unwrap();
        self.log.rows(topic)
    }
}

/// Rows at 100, 101 and so on, each its own key.
fn batch(rows: &[&str]) -> Batch<String> {
    let mut batch = Batch::default();
    for (index, row) in rows.iter().enumerate() {
        batch.rows.push((*row).to_owned());
        let (columns, at) = (&mut batch.columns, index as i64);
        columns.times.push(Timestamp(100 + at));
        columns.watermarks.push(Timestamp(90 + at));
        columns.origins.push(Origin { source: 0, partition: PartitionId(0), offset: Offset(at) });
        columns.keys.push(row.as_bytes(), lotic_log::murmur2(row.as_bytes()) as u32);
    }
    batch
}

/// Rows with their time, own watermark, offset and key.
fn shown<T: Data + std::fmt::Debug>(frame: Frame) -> Vec<String> {
    let batch = frame.into_batch::<T>();
    let columns = &batch.columns;
    let event = |(index, row): (usize, &T)| {
        let (time, watermark) = (columns.times[index], columns.watermarks[index]);
        let key = String::from_utf8_lossy(columns.keys.key(index));
        format!("{row:?} {time} {watermark} {} {key}", columns.origins[index].offset)
    };
    batch.rows.iter().enumerate().map(event).collect()
}

fn check<U: Data + std::fmt::Debug>(factory: &Arc<dyn OperatorFactory>, rows: &[&str], expected: &[&[&str]]) {
    let mut bench = Bench::new(&MemoryLog::new(), factory);
    bench.process(batch(rows)).unwrap();
    let frames: Vec<Vec<String>> = bench.frames().into_iter().map(shown::<U>).collect();
    assert_eq!(frames, expected);
}

#[test]
fn map_makes_one_row_of_each_and_keeps_the_rest() {
    let length = map(|row: String| row.len());
    check::<usize>(&length, &["a", "bcd"], &[&["1 100 90 0 a", "3 101 91 1 bcd"]]);
}

#[test]
fn filter_keeps_the_rows_for_which_it_holds() {
    let short = filter(|row: &String| row.len() < 2);
    let kept: &[&str] = &["\"a\" 100 90 0 a", "\"d\" 102 92 2 d"];
    check::<String>(&short, &["a", "bc", "d"], &[kept]);
    check::<String>(&short, &["aa", "bc"], &[]);
}

#[test]
fn last_of_key_keeps_the_last_row_of_each_key_in_a_frame_and_the_order_of_those() {
    let keyed = |rows: &[(&str, i64)]| {
        let keys: Vec<&str> = rows.iter().map(|(key, _)| *key).collect();
        let Batch { columns, .. } = batch(&keys);
        Batch { rows: rows.iter().map(|(_, row)| *row).collect(), columns }
    };
    let mut bench = Bench::new(&MemoryLog::new(), &last_of_key::<i64>());
    let mut check = |rows: &[(&str, i64)], expected: &[&str]| {
        bench.process(keyed(rows)).unwrap();
        let frames: Vec<_> = bench.frames().into_iter().map(shown::<i64>).collect();
        assert_eq!(frames, [expected]);
    };
    check(
        &[("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)],
        &["3 102 92 2 a", "4 103 93 3 c", "5 104 94 4 b"],
    );
    check(&[("a", 6), ("b", 7)], &["6 100 90 0 a", "7 101 91 1 b"]);
    check(&[("a", 8)], &["8 100 90 0 a"]);
}

#[test]
fn last_of_key_tells_keys_apart_whatever_their_hashes() {
    let mut same_hash = batch(&["x", "y", "x"]);
    same_hash.columns.keys.clear();
    ["x", "y", "x"].iter().for_each(|key| same_hash.columns.keys.push(key.as_bytes(), 7));
    let mut bench = Bench::new(&MemoryLog::new(), &last_of_key::<String>());
    bench.process(same_hash).unwrap();
    let frames: Vec<_> = bench.frames().into_iter().map(shown::<String>).collect();
    assert_eq!(frames, [["\"y\" 101 91 1 y", "\"x\" 102 92 2 x"]]);
}

#[test]
fn flat_map_makes_any_number_of_rows_in_frames_of_bounded_size() {
    let letters = flat_map(|row: String| row.chars().collect::<Vec<_>>());
    let first: &[&str] = &["'a' 100 90 0 abc", "'b' 100 90 0 abc", "'c' 100 90 0 abc", "'d' 102 92 2 de"];
    check::<char>(&letters, &["abc", "", "de"], &[first, &["'e' 102 92 2 de"]]);
}

#[test]
fn inspect_shows_each_row_and_passes_it_on() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let look = inspect(move |row: &String| {
        count.fetch_add(row.len(), Ordering::Relaxed);
    });
    check::<String>(&look, &["ab", "c"], &[&["\"ab\" 100 90 0 ab", "\"c\" 101 91 1 c"]]);
    assert_eq!(seen.load(Ordering::Relaxed), 3);
}

#[test]
fn union_passes_rows_of_any_type() {
    check::<String>(&union(), &["a"], &[&["\"a\" 100 90 0 a"]]);
}

#[test]
fn key_by_puts_the_key_beside_the_row_and_its_bytes_and_hash_into_the_column() {
    let initial = key_by(|row: &String| row[..1].to_owned(), Arc::new(Text));
    let mut bench = Bench::new(&MemoryLog::new(), &initial);
    bench.process(batch(&["ab", "cd"])).unwrap();
    let frame = bench.frames().remove(0);
    assert_eq!(frame.columns.keys.hash(1), lotic_log::murmur2(b"c") as u32);
    let expected = ["(\"a\", \"ab\") 100 90 0 a", "(\"c\", \"cd\") 101 91 1 c"];
    assert_eq!(shown::<(String, String)>(frame), expected);
}

#[test]
fn a_key_that_cannot_be_encoded_stops_the_step() {
    let whole = key_by(String::clone, Arc::new(Text));
    let error = Bench::new(&MemoryLog::new(), &whole).process(batch(&["unwritable"])).unwrap_err();
    assert_eq!(error.to_string(), "a key cannot be encoded: it says so itself");
}

#[test]
fn watermarks_of_partitions_pass_where_keys_stay_and_no_further() {
    let check = |factory: Arc<dyn OperatorFactory>, passes: bool| {
        let mut bench = Bench::new(&MemoryLog::new(), &factory);
        let whole = Watermark { partition: None, time: Timestamp(5) };
        assert_eq!(bench.watermarks(whole), [whole]);
        let one = Watermark { partition: Some(PartitionId(1)), time: Timestamp(5) };
        assert_eq!(bench.watermarks(one), if passes { vec![one] } else { vec![] });
    };
    check(map(|row: String| row), true);
    check(filter(|_: &String| true), true);
    check(flat_map(|row: String| [row]), true);
    check(inspect(|_: &String| ()), true);
    check(last_of_key::<String>(), true);
    check(key_by(String::clone, Arc::new(Text)), false);
    check(union(), false);
}

/// A sink that writes `key=value`, either of which may be missing.
fn text_sink() -> Arc<dyn OperatorFactory> {
    let part = |row: &String, index: usize, out: &mut Vec<u8>| {
        let part = row.split('=').nth(index).unwrap();
        out.extend_from_slice(part.as_bytes());
        Ok(!part.is_empty())
    };
    topic_sink(
        "out",
        move |row: &String, out: &mut Vec<u8>| part(row, 0, out),
        move |row: &String, out: &mut Vec<u8>| part(row, 1, out),
        |row: &String, headers: &mut Vec<lotic_log::Header>| {
            headers.push(lotic_log::Header { key: row.clone(), value: None });
        },
    )
}

#[test]
fn a_topic_sink_writes_each_row_where_its_key_belongs_at_its_event_time() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 3);
    let mut bench = Bench::new(&log, &text_sink());
    bench.process(batch(&["a=1", "b=", "a=2"])).unwrap();
    let row = |key: &str, timestamp, value: Option<&str>| Row {
        partition: lotic_log::partition_for_key(key.as_bytes(), 3).0,
        timestamp,
        key: Some(key.into()),
        value: value.map(Into::into),
    };
    let mut expected = vec![row("a", 100, Some("1")), row("b", 101, None), row("a", 102, Some("2"))];
    expected.sort();
    let mut written = bench.committed(&topic);
    written.sort();
    assert_eq!(written, expected);
}

#[test]
fn records_without_a_key_go_by_their_origin_so_that_a_rerun_puts_them_there_again() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 3);
    let mut bench = Bench::new(&log, &text_sink());
    bench.process(batch(&["=0", "=1", "=2", "=3"])).unwrap();
    let written = bench.committed(&topic).into_iter();
    let found: Vec<_> =
        written.map(|row| (row.partition, String::from_utf8(row.value.unwrap()).unwrap())).collect();
    let expected = [(0, "0"), (0, "3"), (1, "1"), (2, "2")];
    assert_eq!(found, expected.map(|(partition, value)| (partition, value.to_owned())));
}

#[test]
fn without_origins_the_frames_take_turns() {
    let log = MemoryLog::new();
    let topic = log.topic("out", 2);
    let mut bench = Bench::new(&log, &text_sink());
    for rows in [["=a", "=b"], ["=c", "=d"], ["=e", "=f"]] {
        let mut batch = batch(&rows);
        batch.columns.origins.clear();
        bench.process(batch).unwrap();
    }
    let partitions: Vec<_> = bench.committed(&topic).iter().map(|row| row.partition).collect();
    assert_eq!(
        partitions.iter().filter(|&&partition| partition == 1).count() % 2,
        0,
        "a frame stays together"
    );
    assert!(partitions.contains(&0) && partitions.contains(&1));
}

#[test]
fn a_sink_of_a_topic_that_the_flow_does_not_declare_is_not_opened() {
    let topics = Topics::default();
    let opened = text_sink().open(&mut OpenContext {
        flow: "flow",
        step: "step",
        worker: 0,
        workers: 1,
        frame_rows_max: 4,
        last_committed: Epoch(0),
        topics: &topics,
        state: &no_stores(0, 1),
    });
    let error = opened.err().unwrap();
    assert_eq!(error.to_string(), "topic out is not among those that the flow declares");
}
