//! The same scripts of operations on Lotic and on a real Kafka, and whether they come to the same: the same
//! records, offsets, last stable offsets, aborted transactions, and errors of the same kind.
//!
//! | module | owns |
//! |---|---|
//! | `script` | what is done: operations |
//! | `told` | how `tests/peers/kafka/Scripts.java` is told of them |
//! | `generate` | scripts, drawn from a seed |
//! | `deliberate` | where they are meant to leave different things behind |
//! | `ours` | a script on Lotic, in memory or on disk |
//! | `clocked` | timestamps that a log's clock gave, and what is found by them |
//! | `outcome` | what an operation comes to; which exception of Kafka's is which kind of error |
//! | `verdict` | whether both came to the same, and what may differ |
//! | `known` | what a partition holds, told from what was done: what a lookup has to find |
//! | `shrink` | a smaller script that fails as well |
//!
//! A script is drawn from its seed alone, so that one that failed is done again with that.

mod clocked;
mod deliberate;
mod generate;
mod known;
mod ours;
mod outcome;
mod script;
mod shrink;
#[cfg(test)]
mod tests;
mod told;
mod verdict;

use std::io::Write;
use std::path::Path;

use lotic_log::{Clock, SystemClock, Timestamp};
use serde_json::Value;

use crate::failure::{About, Result, ensure};
use crate::kafka::{Broker, Kafka};

use clocked::without_times;
use outcome::Outcome;
use script::{Family, Script};
use verdict::Verdict;

/// How many failing scripts are told in full.
const TOLD_MAX: usize = 3;

/// How a script is drawn from a seed.
type Draw = fn(u64) -> Script;

/// Scripts to be done on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// How many scripts that delete.
    pub scripts: u64,
    /// How many that compact; some of them delete too.
    pub compacting: u64,
    /// How many in which a transaction is open for too long.
    pub overdue: u64,
    /// How many in which records expire.
    pub retaining: u64,
    /// How many in which so many bytes are kept.
    pub sizing: u64,
    /// How many in which the machine, and Kafka's broker, stops and starts again.
    pub restarting: u64,
    /// How many in which what groups have committed expires.
    pub forgetting: u64,
    /// The seed of the first one; the next one's is one more.
    pub seed: u64,
}

impl Comparison {
    /// Does the scripts. Tells which seeds, and of the first failures everything; of the very first one also
    /// what is left of it when operations are taken out that it fails without.
    ///
    /// # Errors
    /// If Lotic and Kafka differ, or a script cannot be done.
    pub fn run(self, kafka: &Kafka, told: &mut impl Write) -> Result<()> {
        let Self { scripts: deleting, seed, .. } = self;
        // Those that wait, for Kafka's cleaner or for its clock, go first.
        let families: [(&str, u64, Draw); 7] = [
            ("forgetting", self.forgetting, generate::forgetting),
            ("compacting", self.compacting, generate::compacting),
            ("overdue", self.overdue, generate::overdue),
            ("retaining", self.retaining, generate::retaining),
            ("sizing", self.sizing, generate::sizing),
            ("restarting", self.restarting, generate::restarting),
            ("deleting", deleting, generate::deleting),
        ];
        let mut scripts = Vec::new();
        for (name, count, draw) in families {
            writeln!(told, "{count} {name} scripts, of seeds {seed}..{}", seed + count)?;
            scripts.extend((seed..seed + count).map(draw));
        }

        scripts.push(deliberate::script());
        let data = tempfile::tempdir()?;
        let mut sides = Sides::start(kafka, data.path())?;
        let mut pairs = sides.perform(&scripts)?;
        let deliberate = pairs.pop().ok_or("there is one answer to each script")?;
        check_deliberate(&scripts.pop().ok_or("it was put there")?, &deliberate?)?;
        let mut failures = 0;
        for (script, pair) in scripts.iter().zip(pairs) {
            let about = about(script);
            let pair = pair.about(&about)?;
            let verdict = pair.verdict(script);
            let differences = verdict.differences();
            if !differences.is_empty() {
                failures += 1;
                writeln!(told, "{about}: Lotic and Kafka differ in {differences:?}")?;
                if failures <= TOLD_MAX {
                    writeln!(told, "{}", verdict.tell())?;
                }
                if failures == 1 {
                    writeln!(told, "what is left of it:\n{}", sides.shrink(script)?)?;
                }
            }
        }
        sides.stop()?;
        ensure(failures == 0, || format!("{failures} of {} scripts differ", scripts.len()))
    }
}

/// Which script it is, and how it is done again.
fn about(script: &Script) -> String {
    let seed = script.seed;
    let counts = ["scripts", "compacting", "overdue", "retaining", "sizing", "restarting", "forgetting"];
    let which = match script.family {
        Family::Deleting => 0,
        Family::Compacting | Family::CompactingAndDeleting => 1,
        Family::Overdue => 2,
        Family::Retaining => 3,
        Family::Sizing => 4,
        Family::Restarting => 5,
        Family::Forgetting => 6,
    };
    let again: Vec<_> = counts
        .iter()
        .enumerate()
        .map(|(index, name)| format!("--{name} {}", i32::from(index == which)))
        .collect();
    let family = script.family;
    format!("the {family:?} script of seed {seed}, again: differential --seed {seed} {}", again.join(" "))
}

/// Lotic, and a broker: both do the same scripts.
struct Sides<'a> {
    kafka: &'a Kafka,
    broker: Broker,
    /// How many scripts were done: each has names of its own.
    done: usize,
    begun: Timestamp,
}

/// What the operations of one script came to.
struct Pair {
    ours: Vec<Outcome>,
    theirs: Vec<Outcome>,
}

impl Pair {
    fn verdict<'a>(&'a self, script: &'a Script) -> Verdict<'a> {
        Verdict { script, ours: &self.ours, theirs: &self.theirs }
    }
}

impl<'a> Sides<'a> {
    fn start(kafka: &'a Kafka, data: &Path) -> Result<Self> {
        let begun = SystemClock::new().now();
        Ok(Self { kafka, broker: Broker::start_in_haste(kafka, data)?, done: 0, begun })
    }

    fn stop(self) -> Result<()> {
        self.broker.stop()
    }

    /// Does scripts. What each came to, or why it could not be done.
    fn perform(&mut self, scripts: &[Script]) -> Result<Vec<Result<Pair>>> {
        let numbers = self.done..self.done + scripts.len();
        self.done = numbers.end;
        self.broker.keep_offsets()?;
        let begun: Vec<_> =
            numbers.clone().zip(scripts).map(|(number, script)| script.to_json(number)).collect();
        let begun = self.kafka.run_scripts(&begun, &self.broker)?;
        let mut restarted = self.resume(numbers.start, scripts, false)?.into_iter();
        let mut outlasted = self.resume(numbers.start, scripts, true)?.into_iter();
        let clock = self.begun.0..=SystemClock::new().now().0;
        let mut pairs = Vec::new();
        for ((number, script), answer) in numbers.zip(scripts).zip(&begun) {
            let resumed = if script.outlasts() { &mut outlasted } else { &mut restarted };
            let after = script.stop().and_then(|_| resumed.next());
            let pair = parse(answer).and_then(|mut theirs| {
                if let Some(after) = after {
                    if script.outlasts() {
                        let last = theirs.pop();
                        ensure(last == Some(Outcome::Done), || format!("{last:?} is not to expire"))?;
                    }
                    theirs.push(Outcome::Done);
                    theirs.extend(parse_resumed(script, &after)?);
                }
                if script.append_time {
                    theirs = without_times(script, theirs, &clock)?;
                }
                Ok(Pair { ours: ours::perform(script, number)?, theirs })
            });
            pairs.push(pair);
        }
        Ok(pairs)
    }

    /// Does what is left of those scripts for which the broker is stopped, once it was.
    fn resume(&mut self, first: usize, scripts: &[Script], outlasting: bool) -> Result<Vec<Value>> {
        let resumed = (first..).zip(scripts).filter(|(_, script)| script.outlasts() == outlasting);
        let resumed: Vec<_> =
            resumed.filter_map(|(number, script)| script.to_json_after_restart(number)).collect();
        match (resumed.is_empty(), outlasting) {
            (true, _) => return Ok(resumed),
            (false, true) => self.broker.forget_offsets()?,
            (false, false) => self.broker.restart()?,
        }
        self.kafka.run_scripts(&resumed, &self.broker)
    }

    /// What is left of a script that fails, in words.
    fn shrink(&mut self, script: &Script) -> Result<String> {
        let smallest = shrink::shrink(script.clone(), |scripts| {
            let pairs = self.perform(scripts)?;
            // One that cannot be done fails in another way.
            let differs = |(script, pair): (&Script, Result<Pair>)| {
                pair.is_ok_and(|pair| !pair.verdict(script).differences().is_empty())
            };
            Ok(scripts.iter().zip(pairs).map(differs).collect())
        })?;
        let mut pairs = self.perform(std::slice::from_ref(&smallest))?;
        let pair = pairs.pop().ok_or("there is one answer to each script")??;
        Ok(pair.verdict(&smallest).tell())
    }
}

fn parse(answer: &Value) -> Result<Vec<Outcome>> {
    if let Some(failure) = answer["failure"].as_str() {
        return Err(failure.into());
    }
    let answers = answer["answers"].as_array().ok_or_else(|| format!("no answers: {answer}"))?;
    answers.iter().map(Outcome::parse).collect()
}

/// What was done after a restart, without what belongs to that.
fn parse_resumed(script: &Script, answer: &Value) -> Result<Vec<Outcome>> {
    let mut outcomes = parse(answer)?;
    let first = script.steps_of_restart();
    let restarted: Vec<_> = outcomes.drain(..first.min(outcomes.len())).collect();
    ensure(restarted.len() == first && restarted.iter().all(|outcome| *outcome == Outcome::Done), || {
        format!("transactional ids were not taken again, or nothing has expired: {restarted:?}")
    })?;
    Ok(outcomes)
}

fn check_deliberate(script: &Script, pair: &Pair) -> Result<()> {
    for (index, (ours, theirs)) in pair.ours.iter().zip(&pair.theirs).enumerate() {
        ensure(deliberate::is_as_meant(index, ours, theirs), || {
            format!("{:?} came to {ours:?} on Lotic, to {theirs:?} on Kafka", script.operations[index])
        })?;
    }
    ensure(pair.theirs.len() == script.operations.len(), || "not everything was done".to_owned())
}
