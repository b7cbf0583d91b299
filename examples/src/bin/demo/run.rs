//! Running the flights example as a process of its own, and killing it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use lotic::log::{Consumer, ConsumerOptions, Isolation, Log, LogOptions};

use crate::Failure;

/// How often the killer looks how far the process is.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// The topic that tells how far the pipeline is: it has a record for each flight that departed.
const PROGRESS_TOPIC: &str = "delays-by-weather";

/// What the example reads.
pub(crate) struct Inputs {
    flights: PathBuf,
    weather: PathBuf,
    airlines: PathBuf,
}

/// Where a run keeps its data and writes its results.
pub(crate) struct Directories {
    pub(crate) data: PathBuf,
    pub(crate) out: PathBuf,
}

/// How far a run was when it was killed.
pub(crate) struct Killed {
    /// Flights imported.
    pub(crate) flights: u64,
    /// Records committed to the result topics.
    pub(crate) results: u64,
}

impl Directories {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { data: folder.join("data"), out: folder.join("out") }
    }
}

impl Inputs {
    pub(crate) fn january(folder: &Path) -> Self {
        Self {
            flights: folder.join("flights-2013-01.csv"),
            weather: folder.join("weather-2013-01.csv"),
            airlines: folder.join("airlines.csv"),
        }
    }

    fn command(&self, directories: &Directories) -> Result<Command, Failure> {
        let mut command = Command::new(std::env::current_exe()?.with_file_name("flights"));
        command.arg("--data").arg(&directories.data).arg("--out").arg(&directories.out);
        command.arg("--flights").arg(&self.flights).arg("--weather").arg(&self.weather);
        command.arg("--airlines").arg(&self.airlines);
        // Short epochs, so that the kill finds some committed, some open and some not begun.
        command.args(["--workers", "2", "--epoch", "10ms"]);
        Ok(command)
    }

    /// Runs to the end; what the run said.
    pub(crate) fn run(&self, directories: &Directories) -> Result<String, Failure> {
        let Output { status, stdout, .. } = self.command(directories)?.stderr(Stdio::inherit()).output()?;
        match status.success() {
            true => Ok(String::from_utf8(stdout)?),
            false => Err(format!("flights ended with {status}").into()),
        }
    }

    /// Runs until half of what `complete` has is there, and kills it then.
    pub(crate) fn run_and_kill(
        &self,
        directories: &Directories,
        complete: &Directories,
    ) -> Result<Killed, Failure> {
        let half = count_records(&complete.data, PROGRESS_TOPIC)? / 2;
        let child = self.command(directories)?.stdout(Stdio::null()).spawn()?;
        let status = kill_when(child, || {
            count_records(&directories.data, PROGRESS_TOPIC).is_ok_and(|count| count >= half)
        })?;
        if status.code().is_some() {
            return Err("flights was done before it could be killed".into());
        }
        let count = |topic| count_records(&directories.data, topic);
        Ok(Killed {
            flights: count("flights")?,
            results: count("delays-by-airline")? + count(PROGRESS_TOPIC)?,
        })
    }
}

/// Sends SIGKILL to `child` once `is_time` says so, unless it ends before.
fn kill_when(mut child: Child, is_time: impl Fn() -> bool) -> Result<ExitStatus, Failure> {
    // Nobody ever sends: what is waited for is the time.
    let (_sender, clock) = mpsc::channel::<()>();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if is_time() {
            child.kill()?;
            return Ok(child.wait()?);
        }
        let _ = clock.recv_timeout(LOOK_INTERVAL);
    }
}

/// How many committed records a topic has, seen from another process while its owner writes.
fn count_records(data: &Path, topic: &str) -> Result<u64, Failure> {
    let mut count = 0;
    for_each_key(data, topic, |_| count += 1)?;
    Ok(count)
}

/// That the closed windows have one record each, in both directories the same; how many there are.
pub(crate) fn each_result_once(killed: &Directories, undisturbed: &Directories) -> Result<usize, Failure> {
    let mut windows = HashSet::new();
    let mut is_once = true;
    for_each_key(&killed.data, "delays-by-airline", |key| is_once &= windows.insert(key.to_vec()))?;
    let expected = count_records(&undisturbed.data, "delays-by-airline")?;
    if !is_once || windows.len() as u64 != expected {
        return Err("a window has no record or more than one: this must not be".into());
    }
    Ok(windows.len())
}

fn for_each_key(data: &Path, topic: &str, mut visit: impl FnMut(&[u8])) -> Result<(), Failure> {
    let log = Log::open_read_only(data, LogOptions::disk()?)?;
    let options = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
    Consumer::of_topic(&log, topic, options)?.read_to_end(|_, record| {
        visit(record.key.unwrap_or_default());
        Ok::<_, Failure>(())
    })?;
    Ok(())
}
