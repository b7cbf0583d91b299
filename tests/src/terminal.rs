//! A terminal, as far as a program can tell.

use std::process::Command;

use crate::failure::{About, Result};
use crate::process::Process;

/// Runs the program that its arguments name on a pseudo-terminal, passes on what is written there, and ends as it does.
const ON_A_TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/// Runs `command` on a terminal, to a good end. What it wrote there, on standard output and on standard error.
///
/// # Errors
/// If it ends otherwise; those of the operating system.
pub fn shown_on_a_terminal(command: &Command) -> Result<String> {
    let mut on_terminal = Command::new("python3");
    on_terminal.args(["-c", ON_A_TERMINAL]).arg(command.get_program()).args(command.get_args());
    let ended = Process::start(&mut on_terminal).about("python3")?.end()?;
    ended.check_success("the program on a terminal")?;
    Ok(ended.stdout)
}
