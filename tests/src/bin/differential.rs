//! `differential [--scripts N] [--compacting N] [--overdue N] [--retaining N] [--sizing N] [--restarting N]
//! [--forgetting N] [--seed S]`: does scripts on Lotic and on a real Kafka and compares.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use lotic_log::{Clock, SystemClock};
use lotic_tests::differential::Comparison;
use lotic_tests::failure::Result;
use lotic_tests::kafka::Kafka;

/// Does scripts of operations on Lotic and, through Kafka's own clients, on a real broker, and compares what
/// each operation came to. Needs Java and Maven.
#[derive(Parser)]
struct Arguments {
    /// How many scripts that delete.
    #[arg(long, value_name = "N", default_value_t = 500)]
    scripts: u64,
    /// How many scripts that compact.
    #[arg(long, value_name = "N", default_value_t = 50)]
    compacting: u64,
    /// How many in which a transaction is open for too long.
    #[arg(long, value_name = "N", default_value_t = 10)]
    overdue: u64,
    /// How many in which records expire.
    #[arg(long, value_name = "N", default_value_t = 20)]
    retaining: u64,
    /// How many in which so many bytes are kept.
    #[arg(long, value_name = "N", default_value_t = 30)]
    sizing: u64,
    /// How many in which the machine, and Kafka's broker, stops and starts again.
    #[arg(long, value_name = "N", default_value_t = 40)]
    restarting: u64,
    /// How many in which what groups have committed expires.
    #[arg(long, value_name = "N", default_value_t = 30)]
    forgetting: u64,
    /// The seed of the first one; by the clock if not given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { scripts, compacting, overdue, retaining, sizing, restarting, forgetting, seed } =
        Arguments::parse();
    let seed = seed.unwrap_or_else(|| SystemClock::new().now().0.unsigned_abs());
    let comparison =
        Comparison { scripts, compacting, overdue, retaining, sizing, restarting, forgetting, seed };
    match run(comparison) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("differential: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(comparison: Comparison) -> Result<()> {
    match Kafka::find("differential")? {
        Some(kafka) => comparison.run(&kafka, &mut io::stdout()),
        None => Err("there is no Kafka to compare with".into()),
    }
}
