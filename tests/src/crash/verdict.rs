//! Is a directory, once a life has finished, as if nothing had happened?

use std::process::Command;

use crate::failure::{About, Result, ensure};
use crate::flights::{Csvs, Run};
use crate::process::Process;
use crate::programs::program;
use crate::stored::ends;

use super::expected::Expected;
use super::watcher::Watcher;

/// Judges the directory of `run`, whose last life has finished.
pub(super) fn judge(run: &Run, expected: &Expected, watcher: &mut Watcher) -> Result<()> {
    watcher.look(|| false)?;
    Csvs::read(&run.out)?.check_equal(expected.csvs(), "an undisturbed run")?;
    expected.check_topics(&run.data)?;
    check_nothing_is_left_to_do(run, expected)?;
    watcher.look(|| false)?;
    watcher.check_all_is_there()?;
    check_every_byte(run)
}

/// One more run appends nothing and writes the same CSVs.
fn check_nothing_is_left_to_do(run: &Run, expected: &Expected) -> Result<()> {
    let before = ends(&run.data)?;
    Csvs::remove(&run.out)?;
    run.finish().about("a run with all input consumed")?.check_equal(expected.csvs(), "the run before")?;
    let after = ends(&run.data)?;
    ensure(before == after, || {
        let moved = after.iter().filter(|(partition, end)| before.get(partition) != Some(end));
        let moved: Vec<_> = moved.map(|(partition, end)| (partition, before.get(partition), end)).collect();
        format!("a run with all input consumed appended records: (partition, end before, end): {moved:?}")
    })
}

fn check_every_byte(run: &Run) -> Result<()> {
    let mut verify = Command::new(program("lotic")?);
    Process::start(verify.arg("verify").arg("--data").arg(&run.data))?.end()?.check_success("lotic verify")
}
