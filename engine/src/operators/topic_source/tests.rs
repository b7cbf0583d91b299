use std::fmt::Write as _;

use lotic_log::Record;
use proptest::prelude::*;

use super::*;
use crate::counters::Counters;
use crate::epoch::Epoch;
use crate::epoch_writer::{EpochWriter, EpochWriterOptions};
use crate::frame::{Batch, NO_WATERMARK};
use crate::memory_log::MemoryLog;
use crate::operator::{Context, Output, OutputItem};
use crate::source::{Rejected, SourcePoll};

type TextSource =
    TopicSource<fn(&RecordView<'_>) -> Result<String, CodecError>, fn(&String, Timestamp) -> Timestamp>;

fn decode(record: &RecordView<'_>) -> Result<String, CodecError> {
    let value = record.value.unwrap_or_default();
    match std::str::from_utf8(value) {
        Ok("bad") => Err(CodecError::new("it says so itself")),
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(CodecError::caused("it is not UTF-8", error)),
    }
}

fn record_time(_: &String, timestamp: Timestamp) -> Timestamp {
    timestamp
}

fn text(topic: &str) -> TextSource {
    TopicSource::new(topic, decode as _, record_time as _)
}

/// The event time of the next record, if one is at hand.
fn first_at_hand(bench: &mut Bench) -> Option<i64> {
    bench.source.at_hand().unwrap().map(|at_hand| at_hand.first.0)
}

/// How a source is opened.
#[derive(Clone, Copy)]
struct How {
    workers: usize,
    frame_rows_max: usize,
    bounded: bool,
    timeless: bool,
}

const ALONE: How = How { workers: 1, frame_rows_max: 4, bounded: true, timeless: false };

/// A source on one worker, and all that it emitted.
struct Bench {
    source: Box<dyn Source>,
    writer: EpochWriter,
    counters: Counters,
    now: Timestamp,
    rows: Vec<String>,
    dead: Vec<Record>,
    frames: usize,
    watermarks: Vec<String>,
}

impl Bench {
    fn open(
        log: &Arc<MemoryLog>,
        source: &dyn SourceFactory,
        worker: usize,
        how: How,
        states: &[SplitState],
    ) -> Result<Self> {
        let port: Arc<dyn EventLog> = log.clone();
        source.splits(&*port)?;
        Self::share(&port, source, worker, how, states)
    }

    /// Another reader of the same attempt.
    fn share(
        port: &Arc<dyn EventLog>,
        source: &dyn SourceFactory,
        worker: usize,
        how: How,
        states: &[SplitState],
    ) -> Result<Self> {
        let topic = source.topic().and_then(|topic| port.find(topic).unwrap()).unwrap();
        let splits: Vec<_> =
            (0..topic.partitions).map(|partition| format!("{}-{partition}", topic.name)).collect();
        let start = |split: &String| SplitStart {
            split: split.clone(),
            state: states.iter().find(|state| state.split == *split).cloned(),
        };
        let starts = splits.iter().skip(worker).step_by(how.workers).map(start).collect();
        let source = source.open(
            starts,
            &mut SourceOpenContext {
                step: "source",
                source: 5,
                log: port,
                frame_rows_max: how.frame_rows_max,
                bounded: how.bounded,
                timeless: how.timeless,
            },
        )?;
        let writer = EpochWriter::new(Arc::clone(port), EpochWriterOptions::default(), Epoch(1));
        let counters = Counters::default();
        let (rows, dead, watermarks) = (Vec::new(), Vec::new(), Vec::new());
        let now = Timestamp(1_000_000);
        Ok(Self { source, writer, counters, now, rows, dead, frames: 0, watermarks })
    }

    fn new(log: &Arc<MemoryLog>, source: &dyn SourceFactory) -> Self {
        Self::open(log, source, 0, ALONE, &[]).unwrap()
    }

    fn poll(&mut self) -> Result<SourcePoll> {
        let mut output = Output::default();
        let mut context = Context {
            output: &mut output,
            writer: &mut self.writer,
            counters: &self.counters,
            processing_time: self.now,
        };
        let polled = self.source.poll(&mut context)?;
        for item in output.items {
            match item {
                OutputItem::Frame(0, frame) => {
                    self.frames += 1;
                    self.take(frame.into_batch());
                }
                OutputItem::Frame(_, frame) => self.dead.extend(frame.into_batch::<Record>().rows),
                OutputItem::Watermark(watermark) => {
                    let of = watermark.partition.map_or("all".to_owned(), |partition| partition.to_string());
                    self.watermarks.push(format!("{of}: {}", watermark.time));
                }
            }
        }
        Ok(polled)
    }

    /// Polls while there is something. What the last poll said.
    fn drain(&mut self) -> SourcePoll {
        loop {
            match self.poll().unwrap() {
                SourcePoll::Ready => {}
                polled => return polled,
            }
        }
    }

    fn take(&mut self, batch: Batch<String>) {
        let columns = &batch.columns;
        for (index, row) in batch.rows.iter().enumerate() {
            let origin = columns.origins[index];
            assert_eq!(origin.source, 5);
            let mut shown = format!("{}@{} {row} {}", origin.partition, origin.offset, columns.times[index]);
            match columns.watermarks[index] {
                NO_WATERMARK => shown.push_str(" -"),
                watermark => write!(shown, " {watermark}").unwrap(),
            }
            if !columns.keys.is_empty() {
                write!(shown, " {}", String::from_utf8_lossy(columns.keys.key(index))).unwrap();
            }
            self.rows.push(shown);
        }
    }
}

fn rows<'a>(rows: &[(i64, &'a str)]) -> Vec<(i64, &'a [u8], &'a [u8])> {
    rows.iter().map(|&(time, value)| (time, &b""[..], value.as_bytes())).collect()
}

#[test]
fn records_come_as_rows_with_event_time_own_watermark_and_origin() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 1);
    log.produce(&topic, 0, &rows(&[(100, "a"), (90, "b")]));
    log.produce(&topic, 0, &rows(&[(120, "c")]));
    let mut bench = Bench::new(&log, &text("in").disorder_ms(7));
    assert_eq!(bench.drain(), SourcePoll::Ended);
    assert_eq!(bench.rows, ["0@0 a 100 93", "0@1 b 90 93", "0@2 c 120 113"]);
    assert_eq!(bench.frames, 1, "batches share a frame");
    assert_eq!(bench.watermarks, ["all: 113"]);
}

#[test]
fn the_partition_whose_next_batch_is_earliest_is_read_first() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 2);
    log.produce(&topic, 0, &rows(&[(10, "a"), (50, "b")]));
    log.produce(&topic, 0, &rows(&[(60, "c")]));
    log.produce(&topic, 1, &rows(&[(20, "d")]));
    log.produce(&topic, 1, &rows(&[(70, "e")]));
    let mut bench = Bench::new(&log, &text("in"));
    assert_eq!(first_at_hand(&mut bench), Some(10));
    bench.drain();
    let order: Vec<_> = bench.rows.iter().map(|row| row.split(' ').nth(1).unwrap()).collect();
    assert_eq!(order, ["a", "b", "d", "c", "e"]);
    assert_eq!(bench.watermarks, ["all: 20", "all: 60"], "the first frame holds four rows, up to c");
}

#[test]
fn markers_and_aborted_records_are_passed_over() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 1);
    log.produce_aborted(&topic, 0, &rows(&[(1, "never"), (2, "seen")]));
    log.produce(&topic, 0, &rows(&[(3, "a")]));
    log.produce_aborted(&topic, 0, &rows(&[(4, "nor this")]));
    let mut bench = Bench::new(&log, &text("in"));
    assert_eq!(bench.drain(), SourcePoll::Ended);
    assert_eq!(bench.rows, ["0@3 a 3 3"]);
    let position = Position::topic("in", topic.id, PartitionId(0), Offset(6));
    assert_eq!(bench.source.positions()[0].position, position, "the marker behind is consumed too");
}

#[test]
fn what_is_at_hand_is_the_next_frame_and_the_watermark_that_it_moves_on() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 2);
    let times = [10, 90, 20, 30, 60, 50];
    log.produce(&topic, 0, &times.map(|time| (time, &b""[..], &b"a"[..])));
    log.produce(&topic, 1, &rows(&[(70, "b")]));
    let later = |_: &String, timestamp: Timestamp| Timestamp(timestamp.0 + 1_000);
    let source: TextSource = TopicSource::new("in", decode as _, later as _);
    let mut bench = Bench::new(&log, &source.disorder_ms(5));
    let mut at_hand = || {
        let at_hand = bench.source.at_hand().unwrap().map(|at| (at.first.0, at.last.0, at.watermark.0));
        bench.poll().unwrap();
        at_hand
    };
    assert_eq!(at_hand(), Some((1_010, 1_090, i64::MIN)), "in event times");
    assert_eq!(at_hand(), Some((1_060, 1_060, 1_085)), "a frame of four rows ended with thirty");
    assert_eq!(at_hand(), None);
}

#[test]
fn a_source_without_an_end_waits_for_more() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 1);
    let how = How { bounded: false, ..ALONE };
    let mut bench = Bench::open(&log, &text("in"), 0, how, &[]).unwrap();
    assert_eq!(bench.drain(), SourcePoll::Pending);
    assert_eq!(first_at_hand(&mut bench), None);
    log.produce(&topic, 0, &rows(&[(1, "a")]));
    assert_eq!(first_at_hand(&mut bench), Some(1));
    assert_eq!(bench.drain(), SourcePoll::Pending);
    assert_eq!(bench.rows, ["0@0 a 1 1"]);
}

#[test]
fn a_bounded_source_ends_where_the_topic_ended_when_it_was_opened() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 1);
    log.produce(&topic, 0, &rows(&[(1, "a")]));
    let mut bench = Bench::new(&log, &text("in"));
    log.produce(&topic, 0, &rows(&[(2, "b")]));
    assert_eq!(bench.drain(), SourcePoll::Ended);
    assert_eq!(bench.rows, ["0@0 a 1 1"]);
    let position = Position::topic("in", topic.id, PartitionId(0), Offset(1));
    assert_eq!(bench.source.positions()[0].position, position);
}

#[test]
fn an_empty_partition_holds_the_watermark_of_the_whole_back() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 2);
    log.produce(&topic, 0, &rows(&[(1, "a")]));
    let mut bench = Bench::new(&log, &text("in"));
    bench.drain();
    assert_eq!(bench.watermarks, [""; 0]);
}

/// A key that Kafka's default partitioner puts into this partition of three.
fn key_of(partition: i32) -> String {
    let belongs = |key: &String| lotic_log::partition_for_key(key.as_bytes(), 3).0 == partition;
    (0..).map(|number: u32| format!("key{number}")).find(belongs).unwrap()
}

#[test]
fn a_keyed_source_says_a_watermark_of_each_partition_and_expects_nothing_of_those_others_read() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 3);
    let (key, other) = (key_of(0), key_of(2));
    log.produce(&topic, 0, &[(10, key.as_bytes(), b"a")]);
    log.produce(&topic, 2, &[(20, other.as_bytes(), b"b")]);
    let how = How { workers: 2, ..ALONE };
    let mut bench = Bench::open(&log, &text("in").keyed(), 0, how, &[]).unwrap();
    bench.drain();
    assert_eq!(bench.rows, [format!("0@0 a 10 10 {key}"), format!("2@0 b 20 20 {other}")]);
    let nothing = format!("1: {}", i64::MAX);
    assert_eq!(bench.watermarks, [nothing.as_str(), "0: 10", "2: 20", "all: 10"]);
}

#[test]
fn a_keyed_record_in_the_wrong_partition_is_named() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 3);
    let key = key_of(2);
    log.produce(&topic, 1, &[(10, key.as_bytes(), b"a")]);
    let error = Bench::new(&log, &text("in").keyed()).poll().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let expected = "in-1, offset 0: Kafka's default partitioner puts this key into partition 2";
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn a_keyed_record_without_a_key_is_a_bad_record() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 1);
    log.produce(&topic, 0, &rows(&[(10, "a")]));
    let error = Bench::new(&log, &text("in").keyed()).poll().unwrap_err();
    assert_eq!(error.to_string(), "in-0, offset 0: the record cannot be decoded: the record has no key");
}

#[test]
fn a_bad_record_stops_the_flow_is_skipped_or_goes_to_port_1_as_the_policy_says() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 1);
    log.produce(&topic, 0, &rows(&[(1, "bad"), (2, "a"), (3, "bad"), (4, "b"), (5, "bad")]));
    let error = Bench::new(&log, &text("in")).poll().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(error.to_string(), "in-0, offset 0: the record cannot be decoded: it says so itself");

    let mut bench = Bench::new(&log, &text("in").bad_records(BadRecord::Skip));
    bench.drain();
    assert_eq!(bench.rows, ["0@1 a 2 2", "0@3 b 4 4"]);
    assert_eq!((bench.counters.skipped.get(), bench.dead.len()), (3, 0));
    let recorded = bench.source.positions();
    assert_eq!(recorded[0].rejected, Rejected { skipped: 3, dead_lettered: 0 });
    log.produce(&topic, 0, &rows(&[(6, "bad")]));
    let source = text("in").bad_records(BadRecord::DeadLetter);
    let mut bench = Bench::open(&log, &source, 0, ALONE, &recorded).unwrap();
    bench.drain();
    let rejected = Rejected { skipped: 3, dead_lettered: 1 };
    assert_eq!(bench.source.positions()[0].rejected, rejected, "counted on by the next run");

    let mut bench = Bench::new(&log, &text("in").bad_records(BadRecord::DeadLetter));
    bench.drain();
    assert_eq!((bench.rows.len(), bench.counters.dead_lettered.get()), (2, 4));
    let headers: Vec<String> = bench.dead[1]
        .headers
        .iter()
        .map(|header| format!("{}={}", header.key, String::from_utf8_lossy(header.value.as_deref().unwrap())))
        .collect();
    let expected = [
        "dead-letter.topic=in",
        "dead-letter.partition=0",
        "dead-letter.offset=2",
        "dead-letter.error=it says so itself",
    ];
    assert_eq!(headers, expected);
    assert_eq!(bench.dead[1].value.as_deref(), Some(&b"bad"[..]));
}

#[test]
fn a_topic_made_again_under_the_same_name_is_refused() {
    let log = MemoryLog::new();
    log.topic("in", 1);
    let id = lotic_log::TopicId(uuid::Uuid::from_u128(77));
    let state = SplitState {
        split: "in-0".to_owned(),
        position: Position::topic("in", id, PartitionId(0), Offset(0)),
        event_time_max: None,
        timeless_end: None,
        rejected: Rejected::default(),
    };
    let error = Bench::open(&log, &text("in"), 0, ALONE, &[state]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().ends_with("the topic was deleted and made again"), "{error}");
}

#[test]
fn a_topic_that_is_missing_is_named() {
    let error = Bench::open(&MemoryLog::new(), &text("in"), 0, ALONE, &[]).err().unwrap();
    assert_eq!(error.to_string(), "there is no topic in");
}

#[test]
fn a_timeless_source_reads_to_the_end_it_had_and_more_only_when_polled_again() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 1);
    log.produce(&topic, 0, &rows(&[(0, "a")]));
    let how = How { timeless: true, bounded: false, ..ALONE };
    let mut bench = Bench::open(&log, &text("in"), 0, how, &[]).unwrap();
    log.produce(&topic, 0, &rows(&[(0, "b")]));
    assert_eq!(bench.drain(), SourcePoll::Pending);
    assert_eq!(bench.rows, ["0@0 a 0 -"]);
    assert_eq!(bench.watermarks, [format!("all: {}", i64::MAX)]);
    let states = bench.source.positions();
    assert_eq!(states[0].timeless_end, Some(1));
    assert_eq!(bench.drain(), SourcePoll::Pending);
    assert_eq!(bench.rows.len(), 2, "in the next epoch the rest is read");

    let mut again = Bench::open(&log, &text("in"), 0, how, &states).unwrap();
    again.drain();
    assert_eq!(again.rows, ["0@1 b 0 -"]);
    assert_eq!(again.source.positions()[0].timeless_end, Some(1), "the first start's end stays");
}

/// What a source yields when it is stopped after every poll and opened again where it stood.
fn yielded_with_restarts(
    log: &Arc<MemoryLog>,
    how: How,
    restarts: &[bool],
) -> (Vec<String>, Vec<Option<bytes::Bytes>>) {
    let source = text("in").disorder_ms(5).bad_records(BadRecord::DeadLetter).fetch_bytes(300);
    let mut states = Vec::new();
    let (mut rows, mut dead) = (Vec::new(), Vec::new());
    let mut restarts = restarts.iter().cycle();
    loop {
        let mut bench = Bench::open(log, &source, 0, how, &states).unwrap();
        let mut polled = SourcePoll::Ready;
        while polled == SourcePoll::Ready {
            polled = bench.poll().unwrap();
            if *restarts.next().expect("it is a cycle") {
                break;
            }
        }
        states = bench.source.positions();
        rows.append(&mut bench.rows);
        dead.extend(bench.dead.into_iter().map(|record| record.value));
        if polled == SourcePoll::Ended {
            return (rows, dead);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn stopped_anywhere_it_goes_on_there(
        batches in prop::collection::vec((0..3i32, prop::collection::vec((0..40i64, 0..8u8), 1..9), any::<bool>()), 0..12),
        frame_rows_max in 1..7usize,
        restarts in prop::collection::vec(any::<bool>(), 1..10),
    ) {
        let log = MemoryLog::new();
        let topic = log.topic("in", 3);
        let mut expected = vec![Vec::new(); 3];
        let mut expected_dead = 0;
        let mut time_max = [i64::MIN; 3];
        for (partition, records, aborted) in &batches {
            let values: Vec<String> =
                records.iter().map(|(_, kind)| if *kind == 0 { "bad".into() } else { kind.to_string() }).collect();
            let rows: Vec<(i64, &[u8], &[u8])> =
                records.iter().zip(&values).map(|((time, _), value)| (*time, &b""[..], value.as_bytes())).collect();
            if *aborted {
                log.produce_aborted(&topic, *partition, &rows);
                continue;
            }
            let base = log.end(PartitionKey { topic: 0, partition: PartitionId(*partition) }).0;
            log.produce(&topic, *partition, &rows);
            for (index, ((time, kind), value)) in records.iter().zip(&values).enumerate() {
                if *kind == 0 {
                    expected_dead += 1;
                    continue;
                }
                let max = &mut time_max[*partition as usize];
                *max = (*max).max(*time);
                let offset = base + index as i64;
                let row = format!("{partition}@{offset} {value} {time} {}", *max - 5);
                expected[*partition as usize].push(row);
            }
        }
        let how = How { frame_rows_max, ..ALONE };
        let (found, dead) = yielded_with_restarts(&log, how, &restarts);
        for (partition, expected) in expected.iter().enumerate() {
            let prefix = format!("{partition}@");
            let found: Vec<&String> = found.iter().filter(|row| row.starts_with(&prefix)).collect();
            prop_assert_eq!(found, expected.iter().collect::<Vec<_>>());
        }
        prop_assert_eq!(dead.len(), expected_dead);
    }
}

#[test]
fn a_first_load_that_was_interrupted_ends_where_it_would_have_ended() {
    for bounded in [true, false] {
        let log = MemoryLog::new();
        let topic = log.topic("in", 1);
        let write = |values: &[(i64, &str)]| {
            values.iter().for_each(|value| log.produce(&topic, 0, &rows(&[*value])));
        };
        write(&[(0, "a"), (0, "b"), (0, "c"), (0, "d"), (0, "e"), (0, "f")]);
        let how = How { timeless: true, bounded, ..ALONE };
        let mut first = Bench::open(&log, &text("in"), 0, how, &[]).unwrap();
        assert_eq!(first.poll().unwrap(), SourcePoll::Ready);
        let states = first.source.positions();
        write(&[(0, "g"), (0, "h")]);

        let mut again = Bench::open(&log, &text("in"), 0, how, &states).unwrap();
        assert_eq!(again.drain(), SourcePoll::Pending, "this is all of the first load");
        assert_eq!(again.rows, ["0@4 e 0 -", "0@5 f 0 -"]);
        let end = if bounded { SourcePoll::Ended } else { SourcePoll::Pending };
        assert_eq!(again.drain(), end, "what came later is in a later epoch");
        assert_eq!(again.rows[2..], ["0@6 g 0 -", "0@7 h 0 -"]);
        let mut third = Bench::open(&log, &text("in"), 0, how, &again.source.positions()).unwrap();
        assert_eq!(third.drain(), end);
        assert_eq!(third.rows.len(), 0);
    }
}

#[test]
fn records_that_cannot_be_decoded_take_up_room_in_a_frame() {
    for policy in [BadRecord::Skip, BadRecord::DeadLetter] {
        let log = MemoryLog::new();
        let topic = log.topic("in", 1);
        let values: Vec<_> = (0..100).map(|number| if number % 25 == 24 { "good" } else { "bad" }).collect();
        for batch in values.chunks(10) {
            log.produce(&topic, 0, &rows(&batch.iter().map(|value| (0, *value)).collect::<Vec<_>>()));
        }
        let mut bench = Bench::new(&log, &text("in").bad_records(policy));
        let mut states = Vec::new();
        loop {
            let polled = bench.poll().unwrap();
            let bad = bench.counters.skipped.get() + bench.counters.dead_lettered.get();
            let position = bench.source.positions()[0].clone();
            let place =
                Position::topic("in", topic.id, PartitionId(0), Offset(bad as i64 + bench.rows.len() as i64));
            assert_eq!(position.position, place, "the place is behind what was given");
            if polled == SourcePoll::Ended {
                break;
            }
            states.push(position);
        }
        assert_eq!(states.len(), 25, "four at a time");
        assert_eq!((bench.rows.len(), bench.dead.len() as u64), (4, bench.counters.dead_lettered.get()));
        for state in states {
            let Position::Topic { offset, .. } = state.position else { panic!("it is a topic") };
            let source = text("in").bad_records(policy);
            let mut again = Bench::open(&log, &source, 0, ALONE, &[state]).unwrap();
            again.drain();
            let bad = again.counters.skipped.get() + again.counters.dead_lettered.get();
            assert_eq!(bad as i64 + again.rows.len() as i64, 100 - offset, "each is given once");
        }
    }
}

/// A source that goes on, on one worker, drained at once.
fn idling(log: &Arc<MemoryLog>, source: &TextSource, states: &[SplitState]) -> Bench {
    let mut bench = Bench::open(log, source, 0, How { bounded: false, ..ALONE }, states).unwrap();
    bench.drain();
    bench
}

impl Bench {
    /// Time passes, and the source is polled. The watermarks that it says.
    fn wait(&mut self, ms: i64) -> Vec<String> {
        self.watermarks.clear();
        self.now = Timestamp(self.now.0 + ms);
        self.drain();
        self.watermarks.clone()
    }
}

#[test]
fn a_partition_that_is_idle_for_the_timeout_holds_the_watermark_back_no_longer() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 3);
    log.produce(&topic, 0, &rows(&[(100, "a")]));
    log.produce(&topic, 1, &rows(&[(50, "b")]));
    // Partition 2 is empty.
    let mut bench = idling(&log, &text("in").disorder_ms(10).idle_ms(1_000), &[]);
    assert_eq!(bench.watermarks, [""; 0]);
    assert_eq!(bench.wait(999), [""; 0], "not before its time");
    log.produce(&topic, 0, &rows(&[(200, "c")]));
    assert_eq!(bench.wait(1), ["all: 190"], "1 and 2 gave nothing for a second");

    // They go on from there: what is behind is late, and the timeout's doing.
    log.produce(&topic, 1, &rows(&[(150, "behind"), (195, "in time"), (40, "late anyway")]));
    assert_eq!(bench.wait(10), [""; 0]);
    assert_eq!(bench.rows[3..], ["1@1 behind 150 190", "1@2 in time 195 190", "1@3 late anyway 40 190"]);
    assert_eq!(bench.counters.late_idle.get(), 1, "40 is late by the partition's own order");
    log.produce(&topic, 0, &rows(&[(300, "d")]));
    assert_eq!(bench.wait(10), [""; 0], "1 holds it back again");
    // What is recorded says so too.
    let states = bench.source.positions();
    assert_eq!(states[2].event_time_max, Some(200));
    log.produce(&topic, 2, &rows(&[(199, "e")]));
    let again = idling(&log, &text("in").disorder_ms(10), &states);
    assert_eq!(again.rows, ["2@0 e 199 190"]);
}

#[test]
fn where_all_partitions_are_idle_or_nothing_is_said_of_it_the_watermark_stays() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 2);
    log.produce(&topic, 0, &rows(&[(100, "a")]));
    let mut silent = idling(&log, &text("in").idle_ms(1_000), &[]);
    assert_eq!(silent.wait(5_000), [""; 0], "0 is as idle as 1");
    let mut patient = idling(&log, &text("in"), &[]);
    log.produce(&topic, 0, &rows(&[(200, "b")]));
    assert_eq!(patient.wait(5_000), [""; 0], "nothing is idle unless it is asked for");
    let mut bounded = Bench::open(&log, &text("in").idle_ms(0), 0, ALONE, &[]).unwrap();
    bounded.drain();
    assert_eq!(bounded.watermarks, [""; 0], "nor where input is bounded");
}

#[test]
fn an_idle_partition_follows_those_of_other_workers() {
    let log = MemoryLog::new();
    let topic = log.topic("in", 2);
    let source = text("in").idle_ms(1_000);
    let how = How { bounded: false, workers: 2, ..ALONE };
    let port: Arc<dyn EventLog> = log.clone();
    source.splits(&*port).unwrap();
    let open = |worker| Bench::share(&port, &source, worker, how, &[]).unwrap();
    let mut benches = [open(0), open(1)];
    for bench in &mut benches {
        bench.drain();
    }
    log.produce(&topic, 0, &rows(&[(100, "a")]));
    assert_eq!(benches[0].wait(2_000), ["all: 100"]);
    assert_eq!(benches[1].wait(2_000), ["all: 100"], "it reads nothing but what is idle");
}
