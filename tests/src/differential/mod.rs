//! The same scripts of operations on Lotic and on a real Kafka, and whether they come to the same: the same
//! records, offsets, last stable offsets, aborted transactions, and errors of the same kind.
//!
//! | module | owns |
//! |---|---|
//! | `script` | what is done: operations, and how `tests/peers/kafka/Scripts.java` is told of them |
//! | `generate` | scripts, drawn from a seed |
//! | `deliberate` | where they are meant to leave different things behind |
//! | `ours` | a script on Lotic, in memory or on disk |
//! | `outcome` | what an operation comes to; which exception of Kafka's is which kind of error |
//! | `verdict` | whether both came to the same, and what may differ |
//!
//! A script is drawn from its seed alone, so that one that failed is done again with that.

mod deliberate;
mod generate;
mod ours;
mod outcome;
mod script;
mod verdict;

use std::io::Write;

use serde_json::Value;

use crate::failure::{About, Result, ensure};
use crate::kafka::{Broker, Kafka};

use outcome::Outcome;
use script::Script;
use verdict::Verdict;

/// How many failing scripts are told in full.
const TOLD_MAX: usize = 3;

/// Scripts to be done on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// How many scripts that delete.
    pub scripts: u64,
    /// How many that compact.
    pub compacting: u64,
    /// The seed of the first one; the next one's is one more.
    pub seed: u64,
}

impl Comparison {
    /// Does the scripts. Tells which seeds, and of the first failures everything.
    ///
    /// # Errors
    /// If Lotic and Kafka differ, or a script cannot be done.
    pub fn run(self, kafka: &Kafka, told: &mut impl Write) -> Result<()> {
        let Self { scripts: count, compacting, seed } = self;
        // Those that compact wait for Kafka's cleaner, and so go first.
        let compacting_scripts = (seed..seed + compacting).map(generate::compacting);
        let scripts: Vec<Script> =
            compacting_scripts.chain((seed..seed + count).map(generate::script)).collect();
        let last = seed + count.max(compacting);
        writeln!(told, "{count} scripts and {compacting} that compact, of seeds {seed}..{last}")?;

        let deliberate = deliberate::script();
        let mut theirs = on_kafka(kafka, scripts.iter().chain([&deliberate]))?;
        let deliberate_theirs = theirs.pop().ok_or("there is one answer to each script")?;
        check_deliberate(&deliberate, scripts.len(), &parse(&deliberate_theirs)?)?;
        let mut failures = 0;
        for (number, (script, theirs)) in scripts.iter().zip(&theirs).enumerate() {
            let (what, again) = match script.compacts {
                true => ("compacting script", "--scripts 0 --compacting 1"),
                false => ("script", "--scripts 1 --compacting 0"),
            };
            let about = format!("{what} of seed {0}, again: differential --seed {0} {again}", script.seed);
            let ours = ours::perform(script, number).about(&about)?;
            let theirs = parse(theirs).about(&about)?;
            let verdict = Verdict { script, ours: &ours, theirs: &theirs };
            let differences = verdict.differences();
            if !differences.is_empty() {
                failures += 1;
                writeln!(told, "{about}: Lotic and Kafka differ in {differences:?}")?;
                if failures <= TOLD_MAX {
                    writeln!(told, "{}", verdict.tell())?;
                }
            }
        }
        ensure(failures == 0, || format!("{failures} of {} scripts differ", scripts.len()))
    }
}

/// Does the scripts with Kafka's clients on a broker of their own. The answers, in order.
fn on_kafka<'a>(kafka: &Kafka, scripts: impl Iterator<Item = &'a Script>) -> Result<Vec<Value>> {
    let lines: Vec<_> =
        scripts.enumerate().map(|(number, script)| format!("{}\n", script.to_json(number))).collect();
    let data = tempfile::tempdir()?;
    let broker = Broker::start(kafka, data.path())?;
    let answers = kafka.run_scripts(&lines.concat(), &broker)?;
    broker.stop()?;
    ensure(answers.len() == lines.len(), || format!("{} answers to {} scripts", answers.len(), lines.len()))?;
    Ok(answers)
}

fn parse(answer: &Value) -> Result<Vec<Outcome>> {
    if let Some(failure) = answer["failure"].as_str() {
        return Err(failure.into());
    }
    let answers = answer["answers"].as_array().ok_or_else(|| format!("no answers: {answer}"))?;
    answers.iter().map(Outcome::parse).collect()
}

fn check_deliberate(script: &Script, number: usize, theirs: &[Outcome]) -> Result<()> {
    let ours = ours::perform(script, number)?;
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        ensure(deliberate::is_as_meant(index, ours, theirs), || {
            format!("{:?} came to {ours:?} on Lotic, to {theirs:?} on Kafka", script.operations[index])
        })?;
    }
    ensure(theirs.len() == script.operations.len(), || "not everything was done".to_owned())
}
