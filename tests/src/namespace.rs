//! Programs in a mount namespace of their own: what they mount is theirs alone and goes with them.

use std::process::Command;

use crate::failure::Result;
use crate::process::Process;

/// Runs `script` with `sh -eu`, arguments from `$1` on, where it may mount what it likes.
pub fn shell(script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-euc", script, "sh"]);
    command
}

/// Whether that is possible here: containers may forbid it.
///
/// # Errors
/// If there is no `unshare` at all.
pub fn is_possible() -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let mut command = shell(r#"mount -t tmpfs -o size=1m none "$1""#);
    Ok(Process::start(command.arg(folder.path()))?.end()?.status.success())
}
