//! The `lotic` command: makes topics, writes and reads their records, and checks every byte of them.
//!
//! | module | owns |
//! |---|---|
//! | `args` | what the command line may say |
//! | `commands` | one file each: what a command does |
//! | `patience` | trying again what another process keeps from being done for a moment |
//! | `print`, `base64` | records as lines and as JSON |
//! | `time` | a point in time as a person writes it |
//!
//! Exit status: 0 done; 1 failed, or `verify` found damage; 2 the command line is wrong. A reader that
//! closes the pipe ends the command quietly.

mod args;
mod base64;
mod commands;
mod patience;
mod print;
mod time;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command, ImportCommand};

/// Why a command ended early.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let messages = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(if arguments.verbose { tracing::Level::INFO } else { tracing::Level::ERROR })
        .without_time()
        .with_target(false);
    // On a terminal they are coloured unless its user wants no colours; in a file they would be litter.
    if io::stderr().is_terminal() {
        messages.init()
    } else {
        messages.with_ansi(false).init()
    }
    let outcome = match arguments.command {
        Command::Topic(command) => commands::topic::run(&arguments.data, &command),
        Command::Group(command) => commands::group::run(&arguments.data, &command),
        Command::Compact(options) => commands::compact::run(&arguments.data, &options),
        Command::DeleteRecords(options) => commands::delete_records::run(&arguments.data, &options),
        Command::Produce(options) => commands::produce::run(&arguments.data, &options),
        Command::Consume(options) => commands::consume::run(&arguments.data, &options),
        Command::Verify(options) => commands::verify::run(&arguments.data, &options),
        Command::Repair(options) => commands::repair::run(&arguments.data, &options),
        Command::Import(ImportCommand::KafkaDir(options)) => commands::import::run(&arguments.data, &options),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) if is_closed_pipe(&*failure) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lotic: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output has gone: its right, and no failure.
fn is_closed_pipe(failure: &(dyn std::error::Error + 'static)) -> bool {
    failure.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
