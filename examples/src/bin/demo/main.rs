//! `make demo`: the flights of January 2013, killed in the middle, against a run that nobody disturbed.

mod run;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lotic::log::{Clock, SystemClock};

use crate::run::{Directories, Inputs, Killed};

/// Why the demo cannot go on.
type Failure = Box<dyn std::error::Error>;

/// The results that are compared, in the order in which they are shown.
const RESULTS: [&str; 3] = ["delays-by-airline.csv", "delays-by-weather.csv", "late-flights.csv"];

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<(), Failure> {
    let clock = SystemClock::new();
    let inputs = Inputs::january(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data"));
    let folder = tempfile::tempdir()?;
    let undisturbed = Directories::new(&folder.path().join("undisturbed"));
    let killed = Directories::new(&folder.path().join("killed"));

    println!("Flights from New York in January 2013: delays by airline and hour, and by visibility.");
    println!();
    let start = clock.elapsed();
    inputs.run(&undisturbed)?;
    println!("  undisturbed   finished in {:.2?}", clock.elapsed() - start);

    let start = clock.elapsed();
    let Killed { flights, results } = inputs.run_and_kill(&killed, &undisturbed)?;
    println!(
        "  killed        SIGKILL after {:.2?}, with {flights} flights imported and {results} results \
         committed",
        clock.elapsed() - start
    );
    let start = clock.elapsed();
    let last_words = inputs.run(&killed)?;
    println!("  run again     finished in {:.2?}", clock.elapsed() - start);
    println!();

    table::show_worst_hours(&undisturbed.out.join(RESULTS[0]))?;
    table::show(&undisturbed.out.join(RESULTS[1]))?;
    last_words.lines().for_each(|line| println!("  {line}"));
    println!();
    compare(&undisturbed, &killed)?;
    let topics = run::each_result_once(&killed, &undisturbed)?;
    println!(
        "Proven: killed with SIGKILL and run again, the program gave the same three files, byte for byte, \
         and {} closed windows with one record each: nothing was lost and nothing came twice.",
        topics
    );
    Ok(())
}

fn compare(undisturbed: &Directories, killed: &Directories) -> Result<(), Failure> {
    for name in RESULTS {
        let [expected, found]: [PathBuf; 2] = [undisturbed.out.join(name), killed.out.join(name)];
        if std::fs::read(&expected)? != std::fs::read(&found)? {
            return Err(format!("{name} differs after the kill: this must not be").into());
        }
    }
    Ok(())
}
