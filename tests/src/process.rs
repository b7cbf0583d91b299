//! A program that runs. Nothing here sleeps: whoever waits does so for the process itself (its pidfd
//! becomes readable when it ends) and no longer than told.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use lotic_log::{Clock, SystemClock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::failure::{About, Result, ensure};

/// After this a process hangs: none that is run here takes a tenth of it.
pub const LIMIT: Duration = Duration::from_secs(300);

/// How often a condition is looked at that nobody announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A child process. Killed when dropped.
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    name: String,
    stdout: File,
    stderr: File,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Process {
    /// Starts `command`; what it prints is kept.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts `command`, which reads `input`.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start_with(command: &mut Command, input: &[u8]) -> Result<Self> {
        let mut file = tempfile::tempfile()?;
        file.write_all(input)?;
        file.rewind()?;
        Self::start_reading(command, file.into())
    }

    fn start_reading(command: &mut Command, stdin: Stdio) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = command
            .stdin(stdin)
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .about(&name)?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).about(&name)?;
        Ok(Self { child, pidfd, name, stdout, stderr })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, so long at most; `None` if it still runs.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos().into() };
        let mut waited_for = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut waited_for, Some(&timeout)).about(&self.name)?;
        self.child.try_wait().about(&self.name)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it has not come within [`LIMIT`], with what the process has said.
    pub fn end(self) -> Result<Ended> {
        self.end_within(LIMIT)
    }

    /// Waits for its end, so long at most.
    ///
    /// # Errors
    /// If it has not come by then, with what the process has said.
    pub fn end_within(mut self, limit: Duration) -> Result<Ended> {
        match self.wait(limit)? {
            Some(status) => self.ended(status),
            None => {
                Err(format!("{} still runs after {limit:?}; it said:\n{}", self.name, self.said()?).into())
            }
        }
    }

    /// Kills it with SIGKILL. How it ended: it may have done so by itself just before.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn kill(mut self) -> Result<Ended> {
        self.child.kill().about(&self.name)?;
        let status = self.child.wait().about(&self.name)?;
        self.ended(status)
    }

    /// Asks it to end, with SIGTERM.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn terminate(&self) -> Result<()> {
        pidfd_send_signal(&self.pidfd, Signal::TERM).about(&self.name)
    }

    /// Stops it where it stands, every thread of it, until [`Self::go_on`].
    ///
    /// # Errors
    /// Those of the operating system; if it ends instead.
    pub fn pause(&mut self) -> Result<()> {
        let is_paused = self.try_pause()?;
        ensure(is_paused, || format!("{} ended and was to be stopped", self.name))
    }

    /// As [`Self::pause`]; `false` if it ends instead.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn try_pause(&mut self) -> Result<bool> {
        pidfd_send_signal(&self.pidfd, Signal::STOP).about(&self.name)?;
        // Answers when the last thread has stopped; what is waited for later is still there then.
        let either = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), either).about(&self.name)?;
        Ok(status.is_some_and(|status| status.stopped()))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn go_on(&self) -> Result<()> {
        pidfd_send_signal(&self.pidfd, Signal::CONT).about(&self.name)
    }

    /// Waits until `condition` answers.
    ///
    /// # Errors
    /// If the process ends before, with what it said; if [`LIMIT`] passes; those of `condition`.
    pub fn wait_until<T>(&mut self, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let clock = SystemClock::new();
        while clock.elapsed() < LIMIT {
            if let Some(answer) = condition()? {
                return Ok(answer);
            }
            if let Some(status) = self.wait(LOOK_INTERVAL)? {
                // What was waited for may have come with the end.
                let answer = condition()?;
                let too_early = || format!("{} ended ({status}) too early; it said:\n", self.name);
                return answer.map_or_else(|| Err((too_early() + &read_all(&self.stderr)?).into()), Ok);
            }
        }
        Err(format!("{}: what was waited for has not come within {LIMIT:?}", self.name).into())
    }

    /// Waits until it has printed `expected`, and nothing else.
    ///
    /// # Errors
    /// If it ends before, with what it said; if [`LIMIT`] passes.
    pub fn wait_until_printed(&mut self, expected: &str) -> Result<()> {
        let stdout = self.stdout.try_clone()?;
        self.wait_until(|| Ok((read_all(&stdout)? == expected).then_some(())))
    }

    /// Waits until `part` is in what it prints.
    ///
    /// # Errors
    /// If it ends before, with what it said; if [`LIMIT`] passes.
    pub fn wait_until_has_printed(&mut self, part: &str) -> Result<()> {
        let stdout = self.stdout.try_clone()?;
        self.wait_until(|| Ok(read_all(&stdout)?.contains(part).then_some(())))
    }

    /// Waits until `part` is in what it says.
    ///
    /// # Errors
    /// If it ends before, with what it said; if [`LIMIT`] passes.
    pub fn wait_until_said(&mut self, part: &str) -> Result<()> {
        let stderr = self.stderr.try_clone()?;
        self.wait_until(|| Ok(read_all(&stderr)?.contains(part).then_some(())))
    }

    /// What it has printed so far.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn printed(&self) -> Result<String> {
        read_all(&self.stdout)
    }

    /// What it has said so far.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn said(&self) -> Result<String> {
        read_all(&self.stderr)
    }

    fn ended(&self, status: ExitStatus) -> Result<Ended> {
        Ok(Ended { status, stdout: read_all(&self.stdout)?, stderr: read_all(&self.stderr)? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to be done about a failure: it may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// A failure with what it said, unless it exited with 0.
    ///
    /// # Errors
    /// As said.
    pub fn check_success(&self, what: &str) -> Result<()> {
        if self.status.success() {
            return Ok(());
        }
        Err(format!("{what} ended with {}; it said:\n{}{}", self.status, self.stdout, self.stderr).into())
    }

    /// Whether a SIGKILL ended it.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw())
    }
}

/// The whole of a file that another process writes to through its own handle of it.
fn read_all(file: &File) -> Result<String> {
    // The position is shared with the process, which goes on writing where it is.
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
