//! The benchmarks. Each measures Lotic and a peer in the same run, the two alternating, and prints the
//! median of each side and the ratio between them: machines drift, ratios hold.
//!
//! | module | asks |
//! |---|---|
//! | `batch` | encoding and decoding in memory, beside a plain copy |
//! | `log` | append and replay, beside a plain loop over the same bytes and beside Kafka's own tools |
//! | `flights` | the flights example over a whole year, beside the same aggregation as a plain loop over the same JSON, and beside DuckDB over the same files |
//! | `start` | opening a log after its process was killed: how long, and how much is read |
//! | `exactly_once` | what epochs cost: flights with one every 100 ms, beside one at the end |
//! | `measure` | alternating runs, medians, CPU time |
//! | `kafka`, `programs` | the peers that are other processes |

mod batch;
mod exactly_once;
mod flights;
mod kafka;
mod log;
mod measure;
mod programs;
mod start;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Runs the benchmarks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which; all of them if none is named.
    benchmarks: Vec<Benchmark>,
    /// Measured runs of each side, one at least.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
    #[command(flatten)]
    victim: start::Victim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Encoding and decoding in memory.
    Batch,
    /// Append and replay.
    Log,
    /// The flights example over a year.
    Flights,
    /// What epochs cost.
    ExactlyOnce,
    /// Opening a log after its process was killed.
    Start,
}

/// Why a benchmark could not be run.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(written) = arguments.victim.write() {
        return match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("bench: {failure}");
                ExitCode::FAILURE
            }
        };
    }
    let chosen = if arguments.benchmarks.is_empty() {
        Benchmark::value_variants().to_vec()
    } else {
        arguments.benchmarks
    };
    let runs = arguments.runs.get();
    let mut failed = false;
    for benchmark in chosen {
        let outcome = match benchmark {
            Benchmark::Batch => batch::run(runs),
            Benchmark::Log => log::run(runs),
            Benchmark::Flights => flights::run(runs),
            Benchmark::ExactlyOnce => exactly_once::run(runs),
            Benchmark::Start => start::run(runs),
        };
        if let Err(failure) = outcome {
            eprintln!("bench: {benchmark:?}: {failure}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
