//! A log that other processes read while it is written: `lotic consume --follow --read-committed` beside
//! transactions, some aborted, segments that roll, retention by size, deleted records and compaction.
//!
//! Readers are a few rounds behind at most, so that nothing is deleted that they have not read yet: of the topic
//! that is not compacted they print every committed record, once, in order.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lotic_log::batch::{BatchBuilder, Compression};
use lotic_log::{
    CleanupPolicy, Durability, ErrorKind, Isolation, Log, LogOptions, Offset, Partition, PartitionId,
    Retention, Timestamp, TopicConfig, TransactionalProducer, UpkeepOptions,
};
use lotic_tests::failure::{About, Result, ensure};
use lotic_tests::process::Process;
use lotic_tests::programs::program;
use lotic_tests::stored::reading;
use serde_json::Value;

/// The topic of which old records are deleted.
const EVENTS: &str = "events";

/// The topic that is compacted.
const STATE: &str = "state";

const ROUNDS: usize = 48;

/// How many rounds a reader is behind at most.
const BEHIND_MAX: usize = 3;

/// For how many rounds the slow transaction is open: nothing behind its first record is committed meanwhile.
const SLOW_ROUNDS: usize = 3;

const SEGMENT_BYTES: u64 = 2_000;

/// More than what is written while a reader is as far behind as it may be, and the slow transaction is open.
const KEPT_BYTES: u64 = 30_000;

const KEYS: usize = 5;

/// A record, as it is written and as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    offset: i64,
    key: String,
    value: String,
}

impl Line {
    fn parse(line: &str) -> Result<Self> {
        let record: Value = serde_json::from_str(line).about(line)?;
        let text = |field: &str| record[field].as_str().map(str::to_owned);
        let offset = record["offset"].as_i64();
        let line = offset.zip(text("key")).zip(text("value"));
        let ((offset, key), value) = line.ok_or_else(|| format!("{record} is none of the records"))?;
        Ok(Self { offset, key, value })
    }
}

/// A process that follows a topic.
struct Reader {
    process: Process,
    topic: &'static str,
}

impl Reader {
    fn start(data: &Path, topic: &'static str) -> Result<Self> {
        let mut command = Command::new(program("lotic")?);
        command.args(["consume", topic, "--follow", "--read-committed", "--json", "--data"]).arg(data);
        Ok(Self { process: Process::start(&mut command)?, topic })
    }

    /// What it has printed so far; a line that is being printed left out.
    fn lines(&self) -> Result<Vec<Line>> {
        let printed = self.process.printed()?;
        let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
        whole.lines().map(Line::parse).collect()
    }

    fn wait_for(&mut self, line: &Line) -> Result<()> {
        let printed = format!("\"offset\":{},", line.offset);
        self.process.wait_until_has_printed(&printed).about(self.topic)
    }

    /// Checks that it has printed nothing that is not committed yet.
    fn check_stops_at(&self, stable: Offset) -> Result<()> {
        let topic = self.topic;
        let early = self.lines()?.into_iter().find(|line| line.offset >= stable.0);
        ensure(early.is_none(), || format!("{topic}: {early:?} is shown before it is committed, at {stable}"))
    }

    /// Tells it to end. All that it has printed.
    fn end(self) -> Result<Vec<Line>> {
        self.process.terminate()?;
        let ended = self.process.end()?;
        ended.check_success(self.topic)?;
        ended.stdout.lines().map(Line::parse).collect()
    }
}

/// A topic that is written.
struct Target {
    partition: Arc<Partition>,
    /// The records that count, once their transaction is committed.
    counting: Vec<Line>,
    /// How many of these a reader was shown after each of the last rounds, or is to be.
    shown: VecDeque<usize>,
    /// Up to where records were deleted by name.
    deleted: Offset,
}

impl Target {
    fn new(partition: Arc<Partition>) -> Self {
        Self { partition, counting: Vec::new(), shown: VecDeque::new(), deleted: Offset(0) }
    }

    /// Appends a record by `append`; it counts or never will.
    fn write(
        &mut self,
        what: &str,
        counts: bool,
        number: usize,
        append: impl Fn(&Arc<Partition>, BatchBuilder) -> lotic_log::Result<Offset>,
    ) -> Result<()> {
        let key = format!("key-{}", number % KEYS);
        let value = format!("{what} {number} {}", "x".repeat(number % 60));
        let compression = [Compression::None, Compression::Lz4][number / 3 % 2];
        let mut batch = BatchBuilder::new(compression);
        batch.push(Timestamp(number as i64), Some(key.as_bytes()), Some(value.as_bytes()), &[])?;
        let offset = append(&self.partition, batch)?.0;
        if counts {
            self.counting.push(Line { offset, key, value });
        }
        Ok(())
    }

    /// The last record that a reader has to have been shown by now.
    fn end_round(&mut self) -> Option<&Line> {
        let stable = self.partition.offsets().stable.0;
        self.shown.push_back(self.counting.partition_point(|line| line.offset < stable));
        let due = if self.shown.len() > BEHIND_MAX { self.shown.pop_front()? } else { return None };
        self.counting.get(due.checked_sub(1)?)
    }
}

/// The topic of which old records are deleted, as another process sees it.
struct Witness {
    log: Log,
    directory: PathBuf,
    /// Where the topic begins, as far as is known here.
    start: Offset,
}

impl Witness {
    fn new(data: &Path) -> Result<Self> {
        let log = Log::open_read_only(data, reading()?)?;
        Ok(Self { log, directory: data.join(format!("{EVENTS}-0")), start: Offset(0) })
    }

    /// Waits until no more is kept than is to be, and the records that the topic has lost by that are gone here
    /// too. Whether it has lost any since the last time.
    fn wait_for_retention(&mut self, written: &Partition, reader: &mut Reader) -> Result<bool> {
        reader.process.wait_until(|| {
            let is_settled = bytes_in(&self.directory)? < KEPT_BYTES + SEGMENT_BYTES;
            Ok(is_settled.then_some(()))
        })?;
        let (before, due) = (self.start, written.offsets().start);
        if due == before {
            return Ok(false);
        }
        self.start = reader.process.wait_until(|| match self.log.refresh() {
            // Segments are being replaced: it is looked at again.
            Err(error) if error.kind() == ErrorKind::Retry => Ok(None),
            refreshed => {
                refreshed?;
                let partition = self.log.topic(EVENTS)?.partition(PartitionId(0))?;
                let start = partition.offsets().start;
                if start < due {
                    return Ok(None);
                }
                let gone = partition.fetch(before, 1, Isolation::ReadUncommitted);
                let kind = gone.err().map(|error| error.kind());
                ensure(kind == Some(ErrorKind::OffsetOutOfRange), || {
                    format!("{before} is not gone: {kind:?}")
                })?;
                Ok(Some(start))
            }
        })?;
        Ok(true)
    }
}

/// Bytes of the segments in the directory of a partition, which may go meanwhile.
fn bytes_in(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            bytes += match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                metadata => metadata?.len(),
            };
        }
    }
    Ok(bytes)
}

struct Writer {
    log: Log,
    targets: [Target; 2],
    slow: TransactionalProducer,
    quick: TransactionalProducer,
    number: usize,
}

impl Writer {
    fn new(data: &Path) -> Result<Self> {
        let upkeep = UpkeepOptions { every: Duration::from_millis(5), ..UpkeepOptions::default() };
        let log = Log::open(data, LogOptions { upkeep, ..LogOptions::disk()? })?;
        let config = TopicConfig {
            segment_bytes: SEGMENT_BYTES,
            index_interval_bytes: 300,
            durability: Some(Durability::Os),
            ..TopicConfig::default()
        };
        let retention = Retention { bytes: Some(KEPT_BYTES), ..Retention::default() };
        let events = log.create_topic(EVENTS, TopicConfig { retention, ..config.clone() })?;
        let state = log.create_topic(STATE, TopicConfig { cleanup: CleanupPolicy::Compact, ..config })?;
        let targets = [events, state].map(|topic| topic.partition(PartitionId(0)).map(Target::new));
        let [events, state] = targets;
        let (slow, quick) = (log.transactional("slow")?, log.transactional("quick")?);
        Ok(Self { log, targets: [events?, state?], slow, quick, number: 0 })
    }

    /// Writes a record to both topics, within a transaction or without.
    fn write(&mut self, producer: Option<Who>, what: &str, counts: bool) -> Result<()> {
        let producer = producer.map(|who| match who {
            Who::Slow => &self.slow,
            Who::Quick => &self.quick,
        });
        for target in &mut self.targets {
            target.write(what, counts, self.number, |partition, mut batch| match producer {
                Some(producer) => producer.append(partition, batch.seal()),
                None => partition.append(batch.seal()).map(|appended| appended.base_offset),
            })?;
        }
        self.number += 1;
        Ok(())
    }

    fn round(&mut self, round: usize) -> Result<()> {
        let (in_slow, slow_counts) = (round % SLOW_ROUNDS, (round / SLOW_ROUNDS).is_multiple_of(2));
        let quick_counts = round % 4 != 1;
        if in_slow == 0 {
            self.slow.begin()?;
        }
        self.quick.begin()?;
        for _ in 0..4 {
            self.write(None, "plain", true)?;
            self.write(Some(Who::Quick), fate(quick_counts), quick_counts)?;
            self.write(Some(Who::Slow), fate(slow_counts), slow_counts)?;
            self.write(Some(Who::Quick), fate(quick_counts), quick_counts)?;
        }
        match quick_counts {
            true => self.quick.commit(&[]).wait()?,
            false => self.quick.abort()?,
        }
        self.write(None, "plain", true)?;
        if in_slow == SLOW_ROUNDS - 1 {
            match slow_counts {
                true => self.slow.commit(&[]).wait()?,
                false => self.slow.abort()?,
            }
        }
        Ok(())
    }

    /// Compacts, and deletes what a reader has read: all that is committed.
    fn clean(&mut self, round: usize, events: &mut Reader) -> Result<()> {
        if round % 4 == 2 {
            self.log.compact(STATE)?;
        }
        let target = &mut self.targets[0];
        let stable = target.partition.offsets().stable.0;
        if round % 20 == 10
            && let Some(line) = target.counting.iter().rfind(|line| line.offset < stable)
        {
            events.wait_for(line)?;
            target.deleted = self.log.delete_records(EVENTS, PartitionId(0), Offset(line.offset))?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Who {
    Slow,
    Quick,
}

fn fate(counts: bool) -> &'static str {
    if counts { "committed" } else { "aborted" }
}

/// Checks that what was printed of the compacted topic is in order, and that only older records of keys are
/// missing.
fn check_compacted(printed: &[Line], counting: &[Line]) -> Result<()> {
    ensure(printed.windows(2).all(|pair| pair[0].offset < pair[1].offset), || "out of order".to_owned())?;
    let known: BTreeMap<_, _> = counting.iter().map(|line| (line.offset, line)).collect();
    let wrong = printed.iter().find(|line| known.get(&line.offset) != Some(line));
    ensure(wrong.is_none(), || format!("{wrong:?} was never committed"))?;
    let last = |lines: &[Line]| {
        let last = lines.iter().map(|line| (line.key.clone(), line.clone()));
        last.collect::<BTreeMap<_, _>>()
    };
    let (shown, written) = (last(printed), last(counting));
    ensure(shown == written, || format!("the last ones are {shown:?}, and not {written:?}"))
}

#[test]
fn another_process_follows_what_is_committed_whatever_is_deleted_and_compacted_meanwhile() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut writer = Writer::new(&data)?;
    let mut readers = [Reader::start(&data, EVENTS)?, Reader::start(&data, STATE)?];
    let mut witness = Witness::new(&data)?;
    let mut deleted_by_size = 0;
    for round in 0..ROUNDS {
        writer.round(round)?;
        writer.clean(round, &mut readers[0])?;
        let target = &writer.targets[0];
        if witness.wait_for_retention(&target.partition, &mut readers[0])? && witness.start > target.deleted {
            deleted_by_size += 1;
        }
        for (target, reader) in writer.targets.iter_mut().zip(&mut readers) {
            reader.check_stops_at(target.partition.offsets().stable)?;
            // What a compacted topic still has of a round is anybody's guess.
            if let Some(line) = target.end_round()
                && reader.topic == EVENTS
            {
                reader.wait_for(line)?;
            }
        }
    }
    writer.write(None, "last", true)?;
    for (target, reader) in writer.targets.iter().zip(&mut readers) {
        reader.wait_for(target.counting.last().ok_or("there is a last one")?)?;
    }
    let [events, state] = readers;
    let (events, state) = (events.end()?, state.end()?);
    let written = &writer.targets[0].counting;
    let first = events.iter().zip(written).find(|(printed, written)| printed != written);
    ensure(events == *written, || {
        format!("{} of {} were printed; the first other one: {first:?}", events.len(), written.len())
    })?;
    check_compacted(&state, &writer.targets[1].counting)?;

    ensure(deleted_by_size > 5, || format!("retention deleted in {deleted_by_size} rounds"))?;
    let compacted = writer.targets[1].counting.len() - state.len();
    println!(
        "{} events, {compacted} compacted before they were read; retention deleted in {deleted_by_size} rounds",
        events.len()
    );
    writer.log.close()?;
    Ok(())
}
