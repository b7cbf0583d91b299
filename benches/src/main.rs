//! The benchmarks. Each measures Lotic and a peer in the same run, the two alternating, and prints the
//! median of each side and the ratio between them: machines drift, ratios hold.
//!
//! | module | asks |
//! |---|---|
//! | `batch` | encoding and decoding in memory, beside a plain copy |
//! | `log` | produce, consume, transactions, latency and compaction, beside a plain loop over the same bytes and beside Kafka's own tools |
//! | `flights` | the flights example over a whole year, beside the same aggregation as a plain loop over the same JSON, and beside DuckDB over the same files |
//! | `start` | opening a log after its process was killed: how long, and how much is read |
//! | `exactly_once` | what epochs cost: flights with one every 100 ms, beside one at the end |
//! | `measure` | alternating runs, medians, CPU time, memory |
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

use clap::{Parser, Subcommand, ValueEnum};

/// Runs the benchmarks.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Which; if none is named, those that take minutes: batch, log, flights and exactly-once.
    benchmarks: Vec<Benchmark>,
    /// Measured runs of each side, one at least.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One side of a comparison; like what follows, it is started by the benchmarks themselves.
    #[command(subcommand, hide = true)]
    Side(log::side::Side),
    /// Writes until it is killed.
    #[command(hide = true)]
    Victim(start::Victim),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Encoding and decoding in memory.
    Batch,
    /// Produce and consume, one partition.
    Log,
    /// Produce and consume: sizes, partitions, compression, durability.
    LogGrid,
    /// What transactions of the log cost.
    Transactions,
    /// From a record's sending to its reader.
    Latency,
    /// How fast old values go.
    Compaction,
    /// Memory while much goes through the log.
    Memory,
    /// The flights example over a year.
    Flights,
    /// What epochs cost.
    ExactlyOnce,
    /// Opening a log after its process was killed.
    Start,
}

/// Why a benchmark could not be run.
type Failure = Box<dyn std::error::Error>;

/// What is run if nothing is named.
const USUAL: [Benchmark; 4] = [Benchmark::Batch, Benchmark::Log, Benchmark::Flights, Benchmark::ExactlyOnce];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(part) = arguments.part {
        let done = match part {
            Part::Side(side) => side.run(),
            Part::Victim(victim) => victim.write(),
        };
        return match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("bench: {failure}");
                ExitCode::FAILURE
            }
        };
    }
    let chosen = if arguments.benchmarks.is_empty() { USUAL.to_vec() } else { arguments.benchmarks };
    let runs = arguments.runs.get();
    let mut failed = false;
    for benchmark in chosen {
        let outcome = match benchmark {
            Benchmark::Batch => batch::run(runs),
            Benchmark::Log => log::run(runs),
            Benchmark::LogGrid => log::run_grid(runs),
            Benchmark::Transactions => log::run_transactions(runs),
            Benchmark::Latency => log::run_latency(runs),
            Benchmark::Compaction => log::run_compaction(runs),
            Benchmark::Memory => log::run_memory(),
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
