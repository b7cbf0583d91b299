//! A real Kafka: its broker, its clients and its tools (`tests/peers/kafka`), where Java and Maven are there.
//!
//! A start of a JVM takes seconds, so a test says all that is to be done in one [`Script`].

mod broker;
mod dump;
mod script;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

pub use broker::Broker;
pub use dump::{DumpedBatch, DumpedFile, DumpedRecord, dumped_files};
pub use script::{Answer, ReadRecord, Script, Step};

use crate::failure::{About, Result, ensure};
use crate::process::Process;
use crate::programs::root;
use crate::skipped::skip;

const SCRIPT: &str = "tests/peers/kafka/kafka";

/// Many scripts take longer than other programs.
const SCRIPTS_LIMIT: Duration = Duration::from_secs(1_800);

/// What has to be there: a Java development kit, and what downloads Kafka.
const NEEDED: [&str; 3] = ["java", "javac", "mvn"];

/// An installed Kafka.
#[derive(Clone, Debug)]
pub struct Kafka {
    script: PathBuf,
}

impl Kafka {
    /// Kafka, which is downloaded if it is not there yet. `None` if the machine has no Java or no Maven:
    /// that is said: see [`skip`].
    ///
    /// # Errors
    /// If it cannot be downloaded.
    pub fn find(test: &str) -> Result<Option<Self>> {
        if let Some(missing) = NEEDED.iter().find(|program| !is_on_path(program)) {
            skip(test, &format!("there is no {missing}, which Kafka needs and scripts/setup kafka brings"))?;
            return Ok(None);
        }
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        let kafka = Self { script: root().join(SCRIPT) };
        let installed = INSTALLED.get_or_init(|| kafka.install().map_err(|failure| failure.to_string()));
        installed.clone()?;
        Ok(Some(kafka))
    }

    /// Does what `script` says, without a broker unless `broker` is one. What its steps answer, in order.
    ///
    /// # Errors
    /// If a step fails, with what was said.
    pub fn run(&self, script: &Script, broker: Option<&Broker>) -> Result<Vec<Answer>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script.to_text())?;
        let mut command = Command::new(&self.script);
        command.arg("client").arg(file.path());
        if let Some(broker) = broker {
            command.arg(broker.address());
        }
        let ended = Process::start(&mut command)?.end()?;
        ended.check_success("Kafka's client")?;
        ended.stdout.lines().map(|line| Answer::parse(line).about(line)).collect()
    }

    /// Does scripts, each a JSON object, with a broker's clients: see `tests/peers/kafka/Scripts.java`. The
    /// answers to each, in order.
    ///
    /// # Errors
    /// If it does not come to an end, with what was said.
    pub(crate) fn run_scripts(&self, scripts: &[Value], broker: &Broker) -> Result<Vec<Value>> {
        let file = tempfile::NamedTempFile::new()?;
        let lines: String = scripts.iter().map(|script| format!("{script}\n")).collect();
        std::fs::write(file.path(), lines)?;
        let mut command = Command::new(&self.script);
        command.arg("scripts").arg(file.path()).arg(broker.address()).arg(broker.data());
        let ended = Process::start(&mut command)?.end_within(SCRIPTS_LIMIT)?;
        ended.check_success("Kafka's clients")?;
        let answers: Vec<_> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).about(line)).collect::<Result<_>>()?;
        ensure(answers.len() == scripts.len(), || {
            format!("{} answers to {} scripts", answers.len(), scripts.len())
        })?;
        Ok(answers)
    }

    fn install(&self) -> Result<()> {
        Process::start(Command::new(&self.script).arg("install"))?.end()?.check_success("installing Kafka")
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
