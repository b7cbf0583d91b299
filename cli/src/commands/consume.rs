//! `lotic consume`: records become lines of stdout.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lotic_log::batch::RecordView;
use lotic_log::{
    Consumer, ConsumerOptions, ErrorKind, Isolation, Log, LogOptions, Offset, PartitionId, Topic,
    TopicPartition,
};

use super::{open, open_read_only};
use crate::args::{ConsumeOptions, Start};
use crate::patience::{PATIENCE, Tries, passes};
use crate::{Failure, print};

/// How long `--follow` waits before it looks for what another process has appended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) fn run(data: &Path, options: &ConsumeOptions) -> Result<ExitCode, Failure> {
    // A group's offsets are written, which is for one process at a time; all else only reads.
    let log = if options.group.is_some() { open(data)? } else { open_read_only(data)? };
    let mut reader = Reader::new(log, options)?;
    reader.seek(&options.start)?;
    let interrupted = on_interrupt()?;
    let mut printer = Printer::new(options);
    loop {
        let (read, refusal) = match read_to_end(&mut reader.consumer, &mut printer, &interrupted) {
            Err(ReadFailure::Log(error)) if options.follow && passes(&error) => (0, Some(error)),
            read => (read?, None),
        };
        printer.out.flush()?;
        let is_over = printer.is_full() || interrupted.load(Ordering::Relaxed);
        if is_over || (read == 0 && !options.follow) {
            break;
        }
        let refusal = match refusal {
            None if read == 0 => reader.wait()?,
            refusal => refusal,
        };
        match refusal {
            Some(refusal) => reader = reader.go_on(refusal, data, options, &interrupted)?,
            None => reader.tries.forget(),
        }
    }
    if options.group.is_some() {
        reader.consumer.commit()?;
        drop(reader.consumer);
        reader.log.close()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A topic that is read.
struct Reader<'a> {
    log: Log,
    topic: Topic,
    partitions: Vec<TopicPartition>,
    consumer: Consumer,
    /// How often in a row it could not read on, nor be opened anew.
    tries: Tries<'a>,
}

impl Reader<'_> {
    fn new(log: Log, options: &ConsumeOptions) -> Result<Self, lotic_log::Error> {
        let topic = log.topic(&options.topic)?;
        let partitions = match options.partition {
            Some(number) => vec![topic.partition(PartitionId(number))?.name().clone()],
            None => topic.partitions().iter().map(|partition| partition.name().clone()).collect(),
        };
        let mut consumer = Consumer::new(&log, consumer_options(options))?;
        consumer.assign(&partitions)?;
        Ok(Self { log, topic, partitions, consumer, tries: PATIENCE.tries() })
    }

    fn seek(&mut self, start: &Start) -> Result<(), Failure> {
        for partition in &self.partitions {
            if start.from_beginning {
                self.consumer.seek_to_beginning(partition)?;
            } else if start.from_end {
                self.consumer.seek_to_end(partition)?;
            } else if let Some(offset) = start.offset {
                self.consumer.seek(partition, Offset(offset))?;
            } else if let Some(time) = start.from_time {
                self.consumer.seek_to_time(partition, time)?;
            }
        }
        Ok(())
    }

    /// Waits until there may be more. What another process appends is not announced: it is looked for.
    /// Returns why the log cannot be read on, if it cannot as it is.
    fn wait(&self) -> Result<Option<lotic_log::Error>, Failure> {
        self.consumer.wait(LOOK_AGAIN)?;
        match self.log.refresh() {
            Err(error) if passes(&error) => Ok(Some(error)),
            outcome => Ok(outcome.map(|()| None)?),
        }
    }

    /// Goes on a little later, though the log has told to try again. One that another process writes to is
    /// opened anew. This process's own is what it was: it is read again.
    fn go_on(
        mut self,
        refusal: lotic_log::Error,
        data: &Path,
        options: &ConsumeOptions,
        interrupted: &AtomicBool,
    ) -> Result<Self, Failure> {
        self.tries.note(refusal)?;
        self.tries.wait();
        if self.log.is_read_only() { self.reopen(data, options, interrupted) } else { Ok(self) }
    }

    /// Opens the log anew, which another process is recovering or has recovered, and goes on where this
    /// one stands.
    fn reopen(
        mut self,
        data: &Path,
        options: &ConsumeOptions,
        interrupted: &AtomicBool,
    ) -> Result<Self, Failure> {
        let open = || {
            let log = Log::open_read_only(data, LogOptions::disk()?)?;
            Self::new(log, options)
        };
        let is_told_to_end = || interrupted.load(Ordering::Relaxed);
        match self.tries.until_done(open, is_being_recovered, is_told_to_end)? {
            Some(mut reader) => {
                reader.go_on_after(&self)?;
                // Opening it is not yet reading on in it.
                reader.tries = self.tries;
                Ok(reader)
            }
            None => Ok(self),
        }
    }

    /// Takes over the positions of another reader of the same topic. Where there is no such record any more,
    /// the nearest end or start is gone on at; where the log was cut off and written anew, the cut is. Either
    /// is said.
    fn go_on_after(&mut self, before: &Self) -> Result<(), Failure> {
        if self.topic.id() != before.topic.id() {
            writeln!(
                io::stderr(),
                "lotic: topic {} was made anew: it is read from its beginning",
                self.topic.name()
            )?;
            return Ok(());
        }
        for partition in &self.partitions {
            let position = before.consumer.position(partition)?;
            let log = self.topic.partition(partition.partition)?;
            let offsets = log.offsets();
            let known = before.topic.partition(partition.partition)?;
            let rewritten = log.rewritten_since(&known);
            let there = rewritten.map_or(position, |cut| position.min(cut));
            let there = there.clamp(offsets.start, offsets.high_watermark);
            if there != position {
                let why = match rewritten {
                    Some(_) => "the log was cut off there, and other records may follow by now",
                    None => "the records between were deleted, or cut off by recovery",
                };
                writeln!(
                    io::stderr(),
                    "lotic: {partition} goes on at offset {there}, not {position}: {why}"
                )?;
            }
            self.consumer.seek(partition, there)?;
        }
        Ok(())
    }
}

/// Whether an error is one of a log that another process is just recovering.
fn is_being_recovered(error: &lotic_log::Error) -> bool {
    passes(error) || error.kind() == ErrorKind::NotFound
}

fn consumer_options(options: &ConsumeOptions) -> ConsumerOptions {
    let isolation =
        if options.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    ConsumerOptions { isolation, group: options.group.clone(), ..ConsumerOptions::default() }
}

/// Set by SIGINT and SIGTERM, so that a group's offsets are committed before the end.
fn on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

/// Why reading has stopped.
enum ReadFailure {
    Log(lotic_log::Error),
    Output(io::Error),
}

impl From<ReadFailure> for Failure {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Log(error) => error.into(),
            ReadFailure::Output(error) => error.into(),
        }
    }
}

/// Prints what there is, and says how much.
fn read_to_end(
    consumer: &mut Consumer,
    printer: &mut Printer,
    interrupted: &AtomicBool,
) -> Result<usize, ReadFailure> {
    let mut total = 0;
    while !printer.is_full() && !interrupted.load(Ordering::Relaxed) {
        let mut outcome = Ok(());
        let read = consumer.poll(|partition, record| {
            outcome = printer.print(partition.partition, &record);
            if outcome.is_err() || printer.is_full() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        outcome.map_err(ReadFailure::Output)?;
        let read = read.map_err(ReadFailure::Log)?;
        total += read;
        if read == 0 {
            break;
        }
    }
    Ok(total)
}

struct Printer {
    out: BufWriter<io::StdoutLock<'static>>,
    json: bool,
    left: u64,
}

impl Printer {
    fn new(options: &ConsumeOptions) -> Self {
        let out = BufWriter::new(io::stdout().lock());
        Self { out, json: options.json, left: options.max_records.unwrap_or(u64::MAX) }
    }

    fn is_full(&self) -> bool {
        self.left == 0
    }

    fn print(&mut self, partition: PartitionId, record: &RecordView<'_>) -> io::Result<()> {
        self.left -= 1;
        if self.json {
            print::json(&mut self.out, partition, record)
        } else {
            print::plain(&mut self.out, record)
        }
    }
}

#[cfg(test)]
mod tests {
    use lotic_log::{Clock, Error, ManualClock, Producer, ProducerOptions, Record, TopicConfig};

    use super::*;
    use crate::patience::Patience;

    const GROUP: &str = "readers";

    fn options() -> ConsumeOptions {
        ConsumeOptions {
            topic: "words".to_owned(),
            partition: None,
            start: Start { from_beginning: false, from_end: false, offset: None, from_time: None },
            group: Some(GROUP.to_owned()),
            follow: true,
            read_committed: false,
            max_records: None,
            json: false,
        }
    }

    const BRIEF: Patience<'_> = Patience { retries_max: 3, pause: Duration::from_secs(1), let_pass: &|_| () };

    /// The same reader, which gives up when this one does.
    fn with<'a>(patience: &'a Patience<'a>, reader: Reader<'a>) -> Reader<'a> {
        Reader { tries: patience.tries(), ..reader }
    }

    /// A log that is open for writing, with a topic.
    fn written_by_another(folder: &Path) -> Log {
        let log = Log::open(folder, LogOptions::disk().expect("there is a disk")).expect("it is empty");
        log.create_topic("words", TopicConfig::default()).expect("a new topic");
        log
    }

    fn refusal() -> Error {
        Error::new(ErrorKind::Retry, "not now")
    }

    #[test]
    fn who_reads_for_a_group_and_is_told_to_try_again_keeps_the_log_and_can_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = written_by_another(folder.path());
        let producer = Producer::new(&log, ProducerOptions::default()).expect("a producer");
        let send = |value: &'static str| {
            let record = Record { value: Some(value.into()), ..Record::default() };
            producer.send("words", record).wait().expect("it is sent");
        };
        send("one");
        let mut reader = with(&BRIEF, Reader::new(log.clone(), &options()).expect("there is the topic"));
        let read = |reader: &mut Reader| {
            reader.consumer.poll(|_, _| ControlFlow::Continue(())).expect("it is readable")
        };
        assert_eq!(read(&mut reader), 1);
        let interrupted = AtomicBool::new(false);
        let mut reader =
            reader.go_on(refusal(), folder.path(), &options(), &interrupted).expect("it is read on");
        send("two");
        assert_eq!(read(&mut reader), 1, "its own records, without opening anything");
        reader.consumer.commit().expect("it has the log for itself");
        assert_eq!(log.group(GROUP).expect("it is there").lag(), 0);

        for _ in 1..BRIEF.retries_max {
            reader = reader.go_on(refusal(), folder.path(), &options(), &interrupted).expect("it is read on");
        }
        let failed = reader.go_on(refusal(), folder.path(), &options(), &interrupted).err();
        assert_eq!(failed.expect("that was too often").to_string(), "not now");
    }

    #[test]
    fn who_starts_at_the_end_reads_what_comes_from_then_on_in_every_partition() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = written_by_another(folder.path());
        log.alter_topic("words", |config| config.partitions = 2).expect("there is one");
        let producer = Producer::new(&log, ProducerOptions::default()).expect("a producer");
        let send = |value: &'static str| {
            for partition in [0, 1].map(PartitionId) {
                let record = Record { value: Some(value.into()), ..Record::default() };
                producer.send_to("words", partition, record).wait().expect("it is sent");
            }
        };
        send("before");
        let options = ConsumeOptions { group: None, ..options() };
        let start = Start { from_end: true, ..options.start };
        let read_only = open_read_only(folder.path()).expect("it is sound");
        let mut reader = with(&BRIEF, Reader::new(read_only, &options).expect("there is the topic"));
        reader.seek(&start).expect("there is an end");
        send("after");
        reader.log.refresh().expect("it is sound");
        let mut values = Vec::new();
        let mut note = |_: &_, record: RecordView<'_>| {
            values.push(record.value.map(<[u8]>::to_vec));
            ControlFlow::Continue(())
        };
        while reader.consumer.poll(&mut note).expect("it is readable") > 0 {}
        assert_eq!(values, [Some(b"after".to_vec()), Some(b"after".to_vec())]);
    }

    #[test]
    fn who_can_open_a_log_that_another_process_writes_to_and_not_read_on_in_it_gives_up_in_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = written_by_another(folder.path());
        let options = ConsumeOptions { group: None, ..options() };
        let interrupted = AtomicBool::new(false);
        let read_only = open_read_only(folder.path()).expect("it is sound");
        let clock = ManualClock::new();
        let patience = Patience { let_pass: &|time| clock.advance(time), ..BRIEF };
        let mut reader = with(&patience, Reader::new(read_only, &options).expect("there is the topic"));
        for times in 1..=BRIEF.retries_max {
            reader =
                reader.go_on(refusal(), folder.path(), &options, &interrupted).expect("it is opened again");
            assert_eq!(reader.tries.refused, times, "it has read nothing since");
            assert_eq!(clock.elapsed(), times * BRIEF.pause, "a little later each time");
        }
        let failed = reader.go_on(refusal(), folder.path(), &options, &interrupted).err();
        assert_eq!(failed.expect("that was too often").to_string(), "not now");
        assert_eq!(clock.elapsed(), BRIEF.retries_max * BRIEF.pause, "nothing is waited for any more");
        log.close().expect("it was sound");
    }

    #[test]
    fn who_opens_a_log_anew_that_another_process_changes_waits_before_each_time_and_not_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = written_by_another(folder.path());
        // It is there from the decision to replace segments until they are replaced.
        let swap = folder.path().join("words-0/00000000000000000000.log.swap");
        let options = ConsumeOptions { group: None, ..options() };
        let check = |pauses_until_replaced: u32, is_interrupted: bool, opens: bool, pauses: u32| {
            let clock = ManualClock::new();
            let replaced = pauses_until_replaced * BRIEF.pause;
            let let_pass = |time| {
                clock.advance(time);
                if clock.elapsed() == replaced {
                    std::fs::remove_file(&swap).expect("it is there");
                }
            };
            let patience = Patience { let_pass: &let_pass, ..BRIEF };
            let interrupted = AtomicBool::new(is_interrupted);
            let read_only = open_read_only(folder.path()).expect("it is sound");
            let reader = with(&patience, Reader::new(read_only, &options).expect("there is the topic"));
            std::fs::write(&swap, "").expect("the folder is there");
            let gone_on = reader.go_on(refusal(), folder.path(), &options, &interrupted);
            assert_eq!(gone_on.is_ok(), opens);
            assert_eq!(clock.elapsed(), pauses * BRIEF.pause);
            // Where nobody has waited for so long.
            drop(std::fs::remove_file(&swap));
        };
        check(1, false, true, 1);
        check(BRIEF.retries_max, false, true, BRIEF.retries_max);
        check(BRIEF.retries_max + 1, false, false, BRIEF.retries_max);
        check(2, true, true, 1);
        log.close().expect("it was sound");
    }

    #[test]
    fn what_cannot_be_read_on_and_what_cannot_be_opened_anew_count_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = written_by_another(folder.path());
        let options = ConsumeOptions { group: None, ..options() };
        let read_only = open_read_only(folder.path()).expect("it is sound");
        let reader = with(&BRIEF, Reader::new(read_only, &options).expect("there is the topic"));
        let interrupted = AtomicBool::new(true);
        let elsewhere = folder.path().join("nothing");
        let reader = reader.go_on(refusal(), &elsewhere, &options, &interrupted).expect("it is told to end");
        assert_eq!(reader.tries.refused, 2, "it could not be read on, and there is no log to be opened");
        let failed = reader.go_on(refusal(), &elsewhere, &options, &AtomicBool::new(false)).err();
        let failed = failed.expect("that was too often").to_string();
        assert!(failed.contains("there is no log"), "{failed}");
        log.close().expect("it was sound");
    }
}
