//! Delays of New York's flights by airline and by weather: files in, files out, exactly once.
//!
//! Two flows on one log. `import` copies the files into topics, with its place in each file in the same
//! transaction as the records; `delays` computes the two results from the topics. Killed at any moment and
//! run again, the program goes on from the last committed epoch of each.
//!
//! | module | owns |
//! |---|---|
//! | `options` | the command line |
//! | `rows` | what is read, what is in the topics, what comes out |
//! | `import` | the files, into topics |
//! | `pipeline` | the two results |
//! | `results` | the result topics, into CSV files |
//! | `progress` | the line on a terminal |
//! | `utc` | moments as the files and results write them |

mod import;
mod options;
mod pipeline;
mod progress;
mod results;
mod rows;
mod utc;

use std::process::ExitCode;

use clap::Parser;
use lotic::prelude::*;
use lotic::{CheckpointOptions, EngineOptions, Metrics};

use crate::options::Options;
use crate::progress::ProgressLine;
use crate::results::Late;

/// Frames are allocated on one thread and freed on another, which it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why the program cannot go on.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    // What recovery mended or passed over is said here; nothing otherwise.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .init();
    match run(&Options::parse()) {
        Ok(Some(Told { late, rejected })) => {
            late.iter().for_each(|(step, count)| println!("late for {step}: {count}"));
            rejected.iter().for_each(|rejected| println!("{rejected}"));
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("flights: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What is told at the end.
struct Told {
    late: Late,
    /// The rows that were not imported, a line for each file that has some.
    rejected: Vec<String>,
}

/// Imports, computes and writes; `None` if the process was told to end before.
fn run(options: &Options) -> Result<Option<Told>, Failure> {
    let import = import::flow(options)?;
    let processor = Processor::open_with(&options.data, processor_options(options))?;
    let delays = pipeline::flow(options.disorder);
    // Whatever either is refused for, it is before the first has written anything.
    processor.check(&import)?;
    processor.check(&delays)?;
    let imported = run_to_end(&processor, import, "imported", "flights-file")?;
    let Some(imported) = imported else { return Ok(None) };
    if run_to_end(&processor, delays, "processed", "topic:flights")?.is_none() {
        return Ok(None);
    }
    let late = results::write(&processor.log(), &options.out)?;
    Ok(Some(Told { late, rejected: import::rejected(&imported) }))
}

fn processor_options(options: &Options) -> ProcessorOptions {
    let checkpoints =
        CheckpointOptions { epochs_min: 1, interval: options.checkpoint, ..CheckpointOptions::default() };
    ProcessorOptions {
        workers: options.workers,
        epoch_interval: options.epoch,
        engine: EngineOptions { checkpoints, ..EngineOptions::default() },
        ..ProcessorOptions::default()
    }
}

/// What a flow has counted at its end; `None` if the process was told to end before.
fn run_to_end(processor: &Processor, flow: Flow, verb: &str, step: &str) -> Result<Option<Metrics>, Failure> {
    let progress = ProgressLine::new();
    let mut last = Metrics::default();
    let ending = processor.start(flow, Until::End)?.wait_or_signal_with(|metrics| {
        progress.show(verb, step, metrics);
        last = metrics.clone();
    });
    progress.clear();
    Ok((ending? == Ending::InputUsedUp).then_some(last))
}
