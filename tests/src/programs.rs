//! Where the built programs and the scripts of the repository are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{About, Result};
use crate::process::Process;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

/// A program of the workspace, built in the profile that this code was built in.
///
/// # Errors
/// If it is not built, saying how to.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().about("where this program is")?;
    // Test binaries are one folder deeper, in `deps`.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let folder = own.parent().unwrap_or(&own).display();
        let how = "build it first: cargo build --bins, with the --profile of this run";
        format!("program {name} is not in {folder} or above it; {how}").into()
    })
}

/// Runs a script of the repository and returns what it printed.
///
/// # Errors
/// If it does not end well; what it said is in the message.
pub fn run_script(script: &str, prepare: impl FnOnce(&mut Command)) -> Result<String> {
    let mut command = Command::new(root().join(script));
    prepare(&mut command);
    let ended = Process::start(&mut command)?.end()?;
    ended.check_success(script)?;
    Ok(ended.stdout)
}
