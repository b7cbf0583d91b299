//! `crash --cycles N [--seed S]`: kills the flights example N times, and checks that nothing came of it.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use lotic_log::{Clock, SystemClock};
use lotic_tests::crash::Campaign;

/// Kills the flights example over and over with SIGKILL, restarts it until it finishes, and compares what
/// it leaves with DuckDB's answer and with a run that nobody disturbed.
#[derive(Parser)]
struct Arguments {
    /// How many processes are killed.
    #[arg(long, value_name = "N")]
    cycles: u64,
    /// Draws the inputs and the moments; by the clock if not given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { cycles, seed } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| SystemClock::new().now().0.unsigned_abs());
    match (Campaign { kills: cycles, seed }).run(&mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("crash: {failure}");
            ExitCode::FAILURE
        }
    }
}
