//! `lotic consume`: records become lines of stdout.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lotic_log::batch::RecordView;
use lotic_log::{Consumer, ConsumerOptions, Isolation, Log, Offset, PartitionId, Topic, TopicPartition};

use super::{open, open_read_only};
use crate::Failure;
use crate::args::{ConsumeOptions, Start};
use crate::print;

/// How long `--follow` waits before it looks for what another process has appended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) fn run(data: &Path, options: &ConsumeOptions) -> Result<ExitCode, Failure> {
    // A group's offsets are written, which is for one process at a time; all else only reads.
    let log = if options.group.is_some() { open(data)? } else { open_read_only(data)? };
    let topic = log.topic(&options.topic)?;
    let mut consumer = Consumer::new(&log, consumer_options(options))?;
    let partitions = partitions(&topic, options.partition)?;
    consumer.assign(&partitions)?;
    seek(&mut consumer, &partitions, &options.start)?;
    let interrupted = on_interrupt()?;
    let mut printer = Printer::new(options);
    loop {
        let read = read_to_end(&mut consumer, &mut printer, &interrupted)?;
        printer.out.flush()?;
        let is_over = printer.is_full() || interrupted.load(Ordering::Relaxed);
        if is_over || (read == 0 && !options.follow) {
            break;
        }
        if read == 0 {
            wait(&log, &consumer)?;
        }
    }
    if options.group.is_some() {
        consumer.commit()?;
        drop(consumer);
        log.close()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn consumer_options(options: &ConsumeOptions) -> ConsumerOptions {
    let isolation =
        if options.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    ConsumerOptions { isolation, group: options.group.clone(), ..ConsumerOptions::default() }
}

fn partitions(topic: &Topic, only: Option<i32>) -> Result<Vec<TopicPartition>, Failure> {
    if let Some(number) = only {
        return Ok(vec![topic.partition(PartitionId(number))?.name().clone()]);
    }
    Ok(topic.partitions().iter().map(|partition| partition.name().clone()).collect())
}

fn seek(consumer: &mut Consumer, partitions: &[TopicPartition], start: &Start) -> Result<(), Failure> {
    for partition in partitions {
        if start.from_beginning {
            consumer.seek_to_beginning(partition)?;
        } else if let Some(offset) = start.offset {
            consumer.seek(partition, Offset(offset))?;
        } else if let Some(time) = start.from_time {
            consumer.seek_to_time(partition, time)?;
        }
    }
    Ok(())
}

/// Set by SIGINT and SIGTERM, so that a group's offsets are committed before the end.
fn on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

fn read_to_end(
    consumer: &mut Consumer,
    printer: &mut Printer,
    interrupted: &AtomicBool,
) -> Result<usize, Failure> {
    let mut total = 0;
    while !printer.is_full() && !interrupted.load(Ordering::Relaxed) {
        let mut outcome = Ok(());
        let read = consumer.poll(|partition, record| {
            outcome = printer.print(partition.partition, &record);
            if outcome.is_err() || printer.is_full() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        outcome?;
        total += read;
        if read == 0 {
            break;
        }
    }
    Ok(total)
}

/// Waits until there may be more. What another process appends is not announced: it is looked for.
fn wait(log: &Log, consumer: &Consumer) -> Result<(), Failure> {
    consumer.wait(LOOK_AGAIN);
    Ok(log.refresh()?)
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
