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
use crate::Failure;
use crate::args::{ConsumeOptions, Start};
use crate::print;

/// How long `--follow` waits before it looks for what another process has appended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often `--follow` tries to open a log again that is being recovered, [`LOOK_AGAIN`] apart.
const REOPEN_TRIES_MAX: u32 = 100;

pub(crate) fn run(data: &Path, options: &ConsumeOptions) -> Result<ExitCode, Failure> {
    // A group's offsets are written, which is for one process at a time; all else only reads.
    let log = if options.group.is_some() { open(data)? } else { open_read_only(data)? };
    let mut reader = Reader::new(log, options)?;
    reader.seek(&options.start)?;
    let interrupted = on_interrupt()?;
    let mut printer = Printer::new(options);
    loop {
        let read = read_to_end(&mut reader.consumer, &mut printer, options.follow, &interrupted)?;
        printer.out.flush()?;
        let is_over = printer.is_full() || interrupted.load(Ordering::Relaxed);
        if is_over || (read == Some(0) && !options.follow) {
            break;
        }
        let goes_on = match read {
            None => false,
            Some(0) => reader.wait()?,
            Some(_) => true,
        };
        if !goes_on {
            reader = reader.reopen(data, options, &interrupted)?;
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
struct Reader {
    log: Log,
    topic: Topic,
    partitions: Vec<TopicPartition>,
    consumer: Consumer,
}

impl Reader {
    fn new(log: Log, options: &ConsumeOptions) -> Result<Self, lotic_log::Error> {
        let topic = log.topic(&options.topic)?;
        let partitions = match options.partition {
            Some(number) => vec![topic.partition(PartitionId(number))?.name().clone()],
            None => topic.partitions().iter().map(|partition| partition.name().clone()).collect(),
        };
        let mut consumer = Consumer::new(&log, consumer_options(options))?;
        consumer.assign(&partitions)?;
        Ok(Self { log, topic, partitions, consumer })
    }

    fn seek(&mut self, start: &Start) -> Result<(), Failure> {
        for partition in &self.partitions {
            if start.from_beginning {
                self.consumer.seek_to_beginning(partition)?;
            } else if let Some(offset) = start.offset {
                self.consumer.seek(partition, Offset(offset))?;
            } else if let Some(time) = start.from_time {
                self.consumer.seek_to_time(partition, time)?;
            }
        }
        Ok(())
    }

    /// Waits until there may be more. What another process appends is not announced: it is looked for.
    /// Whether the log can be read on; if not, a tail that was read has been cut off since.
    fn wait(&self) -> Result<bool, Failure> {
        self.consumer.wait(LOOK_AGAIN);
        match self.log.refresh() {
            Err(error) if error.kind() == ErrorKind::Retry => Ok(false),
            outcome => Ok(outcome.map(|()| true)?),
        }
    }

    /// Opens the log anew, which another process is recovering or has recovered, and goes on where this
    /// one stands.
    fn reopen(
        self,
        data: &Path,
        options: &ConsumeOptions,
        interrupted: &AtomicBool,
    ) -> Result<Self, Failure> {
        let mut tries_left = REOPEN_TRIES_MAX;
        loop {
            let opened = LogOptions::disk()
                .and_then(|log_options| Log::open_read_only(data, log_options))
                .and_then(|log| Self::new(log, options));
            match opened {
                Ok(mut reader) => {
                    reader.go_on_after(&self)?;
                    return Ok(reader);
                }
                Err(error) if is_being_recovered(&error) && tries_left > 0 => tries_left -= 1,
                Err(error) => return Err(error.into()),
            }
            if interrupted.load(Ordering::Relaxed) {
                return Ok(self);
            }
            // Nothing moves the progress of a log that cannot be read on: this is a wait for the time.
            let progress = self.log.progress();
            progress.wait(progress.count(), LOOK_AGAIN);
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
                    Some(_) => "the log was cut off there by a repair, and other records may follow by now",
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
    matches!(error.kind(), ErrorKind::Retry | ErrorKind::NotFound)
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

/// Prints what there is, and says how much; none if who `follows` has to open the log again.
fn read_to_end(
    consumer: &mut Consumer,
    printer: &mut Printer,
    follows: bool,
    interrupted: &AtomicBool,
) -> Result<Option<usize>, Failure> {
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
        outcome?;
        let read = match read {
            Err(error) if error.kind() == ErrorKind::Retry && follows => return Ok(None),
            read => read?,
        };
        total += read;
        if read == 0 {
            break;
        }
    }
    Ok(Some(total))
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
