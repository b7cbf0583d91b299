//! A broker on loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use super::Kafka;
use crate::failure::{Result, ensure};
use crate::process::{LIMIT, Process};

/// How often a pair of ports is looked for: somebody may take the second one in between.
const PORT_ATTEMPTS_MAX: usize = 20;

/// The first port that a broker may have, and how many pairs there are: up to where Linux begins to give ports.
const PORT_MIN: u16 = 12_000;
const PORT_PAIRS: u16 = 10_000;

/// One replica of everything is all there is, and one partition of what is internal.
const SETTINGS: [&str; 7] = [
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
    "log.cleaner.backoff.ms=100",
    "log.initial.task.delay.ms=100",
    "log.cleaner.threads=1",
    "log.retention.check.interval.ms=3600000",
    "offsets.retention.check.interval.ms=3600000",
];

/// What has it see to old records and transactions that are open for too long at once.
const HASTE: [&str; 2] = [
    "log.retention.check.interval.ms=500",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
];

/// Has it keep what groups commit for as short a time as can be said, and look for what is older all the time.
const FORGETFULNESS: [&str; 2] = ["offsets.retention.minutes=1", "offsets.retention.check.interval.ms=500"];

/// A broker that runs until [`Self::stop`], or until it is dropped.
#[derive(Debug)]
pub struct Broker {
    script: PathBuf,
    port: u16,
    address: String,
    data: PathBuf,
    settings: Vec<&'static str>,
    /// Where its pid, settings and log are.
    run: TempDir,
    is_running: bool,
}

impl Broker {
    /// Starts a broker that keeps its data in `data`, and waits until it answers. The script that does so
    /// bounds the wait.
    ///
    /// # Errors
    /// If it does not start, with what it said.
    pub fn start(kafka: &Kafka, data: &Path) -> Result<Self> {
        Self::start_with(kafka, data, SETTINGS.to_vec())
    }

    /// As [`Self::start`]; it does at once what brokers do from time to time: delete old records, and abort
    /// transactions that are open for too long.
    ///
    /// # Errors
    /// As there.
    pub fn start_in_haste(kafka: &Kafka, data: &Path) -> Result<Self> {
        Self::start_with(kafka, data, [&SETTINGS[..], &HASTE].concat())
    }

    fn start_with(kafka: &Kafka, data: &Path, settings: Vec<&'static str>) -> Result<Self> {
        let port = free_ports()?;
        let mut broker = Self {
            script: kafka.script.clone(),
            port,
            address: String::new(),
            data: data.to_owned(),
            settings,
            run: tempfile::tempdir()?,
            is_running: true,
        };
        broker.address = broker.command("start", &broker.settings)?.trim().to_owned();
        Ok(broker)
    }

    /// Where clients connect to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it keeps its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(mut self) -> Result<()> {
        self.is_running = false;
        self.command("stop", &[]).map(drop)
    }

    /// Stops it in good order and starts it again, on what it has kept.
    ///
    /// # Errors
    /// If it does not end, or does not start again.
    pub fn restart(&mut self) -> Result<()> {
        self.command("stop", &[])?;
        self.command("start", &self.settings).map(drop)
    }

    /// Stops it in good order and starts it again, so that it keeps what groups commit for a minute only.
    ///
    /// # Errors
    /// As [`Self::restart`].
    pub(crate) fn forget_offsets(&mut self) -> Result<()> {
        self.settings.extend(FORGETFULNESS);
        self.restart()
    }

    /// If it was started so, stops it and starts it again, so that it keeps them for long as before.
    ///
    /// # Errors
    /// As [`Self::restart`].
    pub(crate) fn keep_offsets(&mut self) -> Result<()> {
        let settings = self.settings.len();
        self.settings.retain(|setting| !FORGETFULNESS.contains(setting));
        if self.settings.len() < settings { self.restart() } else { Ok(()) }
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn kill(mut self) -> Result<()> {
        let pid: i32 = std::fs::read_to_string(self.run.path().join("pid"))?.trim().parse()?;
        let pidfd = pidfd_open(Pid::from_raw(pid).ok_or("its pid is none")?, PidfdFlags::empty())?;
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        self.is_running = false;
        // It holds its locks until it has ended.
        let limit = Timespec { tv_sec: LIMIT.as_secs() as _, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))?;
        ensure(ended == 1, || format!("the killed broker still runs after {LIMIT:?}"))?;
        self.command("stop", &[]).map(drop)
    }

    fn command(&self, what: &str, settings: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.script);
        command.arg(what).arg(self.port.to_string()).args(settings);
        command.env("KAFKA_DATA", &self.data).env("KAFKA_RUN", self.run.path()).env("KAFKA_HEAP", "512M");
        let ended = Process::start(&mut command)?.end()?;
        ended.check_success(&format!("kafka {what}"))?;
        Ok(ended.stdout)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.is_running {
            // A test has failed already; a broker that stays is said by nothing better.
            let _ = self.command("stop", &[]);
        }
    }
}

/// A free port with a free one behind it, for the controller. They are none of those that operating systems give to
/// whoever connects, or asks for any: such a one would be gone before the broker has it, or while it is stopped.
fn free_ports() -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in 0..PORT_ATTEMPTS_MAX {
        // Which one is given is not known before: it draws the pair.
        let given = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let port = PORT_MIN + given % PORT_PAIRS * 2;
        if is_free(port) && is_free(port + 1) {
            return Ok(port);
        }
    }
    Err("there are no two free ports next to each other".into())
}
