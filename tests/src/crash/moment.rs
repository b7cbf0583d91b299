//! In the middle of what a life was killed, as far as what it left tells.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::ops::ControlFlow;

use lotic_log::{Consumer, ConsumerOptions, ErrorKind, Log};

use crate::failure::{About, Result};
use crate::flights::{DELAYS_BY_AIRLINE, Run};

use super::expected::Expected;
use super::watcher::Watcher;

/// What a life comes to, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Milestone {
    /// It has been started.
    Started,
    /// It has committed something.
    Committed,
    /// The rows of the files are in their topics.
    Imported,
    /// The last results are in theirs.
    Answered,
}

impl Milestone {
    pub(super) const ALL: [Self; 4] = [Self::Started, Self::Committed, Self::Imported, Self::Answered];

    /// Whether a life has come to it, before which `before` records had been seen.
    pub(super) fn is_reached(self, watcher: &Watcher, before: usize, expected: &Expected) -> bool {
        match self {
            Self::Started => true,
            Self::Committed => watcher.seen() > before,
            Self::Imported => expected.imported().iter().all(|(topic, rows)| watcher.seen_of(topic) == *rows),
            Self::Answered => {
                watcher.seen_of(DELAYS_BY_AIRLINE) == expected.csvs().rows(DELAYS_BY_AIRLINE).count()
            }
        }
    }
}

/// In each target so many lives have to be killed in a campaign of some length.
pub(super) const HITS_MIN: u64 = 3;

/// What a campaign of some length has to have killed lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Reading the files.
    Import,
    /// Working through what they held.
    Pipeline,
    /// Writing the results.
    Writing,
    /// A transaction that it had begun and not decided.
    Transaction,
}

impl Target {
    pub(super) const ALL: [Self; 4] = [Self::Import, Self::Pipeline, Self::Writing, Self::Transaction];

    /// Whether a life may come to this, before which `before` records had been seen.
    pub(super) fn is_ahead(self, watcher: &Watcher, before: usize, expected: &Expected) -> bool {
        self != Self::Import || !Milestone::Imported.is_reached(watcher, before, expected)
    }

    /// Whether a life that stands still is in this. `before` records had been seen before it, and the life
    /// before was killed in `previous`.
    pub(super) fn is_met(
        self,
        watcher: &Watcher,
        before: usize,
        previous: Option<Moment>,
        expected: &Expected,
    ) -> Result<bool> {
        let has_committed = Milestone::Committed.is_reached(watcher, before, expected);
        Ok(match (self, watcher.log()) {
            (Self::Import, _) => has_committed && self.is_ahead(watcher, before, expected),
            (Self::Pipeline, _) => has_committed && Milestone::Imported.is_reached(watcher, before, expected),
            (Self::Writing, _) => Milestone::Answered.is_reached(watcher, before, expected),
            // What the life before has left open is ended before anything is committed.
            (Self::Transaction, Some(log))
                if has_committed || !previous.is_some_and(Moment::has_left_open) =>
            {
                has_open_transaction(log) && !is_commit_prepared(log)?
            }
            (Self::Transaction, _) => false,
        })
    }

    fn is_hit_by(self, moment: Moment) -> bool {
        match self {
            Self::Import => moment.stage == Milestone::Committed,
            Self::Pipeline => moment.stage == Milestone::Imported,
            Self::Writing => moment.stage == Milestone::Answered,
            Self::Transaction => moment.stage != Milestone::Started && moment.act == Act::InTransaction,
        }
    }
}

/// What it was doing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// Nothing that would show.
    Between,
    /// A transaction had records and was not decided.
    InTransaction,
    /// A transaction was decided and markers of it were missing.
    Decided,
    /// A checkpoint was not finished.
    Checkpoint,
}

/// When a life was killed: the last it had come to, and what it was doing. One that left everything as it
/// was had only been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    stage: Milestone,
    act: Act,
}

impl Moment {
    /// What the last life over a directory was killed in. `before` records had been seen before it, and the
    /// life before was killed in `previous`.
    pub(super) fn of(
        run: &Run,
        watcher: &mut Watcher,
        before: usize,
        previous: Option<Self>,
        expected: &Expected,
    ) -> Result<Self> {
        watcher.look(|| false)?;
        let act = match watcher.log() {
            Some(log) => act(log, run)?,
            None => Act::Between,
        };
        let is_as_before = watcher.seen() == before && act == previous.map_or(Act::Between, |left| left.act);
        let is_reached = |milestone: &Milestone| milestone.is_reached(watcher, before, expected);
        let stage = match [Milestone::Answered, Milestone::Imported].into_iter().find(is_reached) {
            Some(Milestone::Answered) => Milestone::Answered,
            _ if is_as_before => Milestone::Started,
            Some(imported) => imported,
            None => Milestone::Committed,
        };
        Ok(Self { stage, act })
    }

    fn has_left_open(self) -> bool {
        matches!(self.act, Act::InTransaction | Act::Decided)
    }
}

/// Whether a transaction has records and is not ended, as far as was seen.
fn has_open_transaction(log: &Log) -> bool {
    let topics = log.topics();
    let mut partitions = topics.iter().flat_map(|topic| topic.partitions());
    partitions.any(|partition| !partition.open_transactions().is_empty())
}

fn act(log: &Log, run: &Run) -> Result<Act> {
    let has_open = has_open_transaction(log);
    let is_decided = has_open && is_commit_prepared(log)?;
    Ok(match (is_decided, has_open) {
        (true, _) => Act::Decided,
        (false, true) => Act::InTransaction,
        (false, false) if is_checkpoint_unfinished(run)? => Act::Checkpoint,
        (false, false) => Act::Between,
    })
}

/// Whether the last that is known of some transactional id is a decision to commit.
fn is_commit_prepared(log: &Log) -> Result<bool> {
    // Kafka's TransactionLogValue: version, producer id, producer epoch, timeout, status; 2 is PrepareCommit.
    const STATUS_AT: usize = 2 + 8 + 2 + 4;
    const PREPARE_COMMIT: u8 = 2;
    let topic = match log.topic("__transaction_state") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        topic => topic?,
    };
    let names: Vec<_> = topic.partitions().iter().map(|partition| partition.name().clone()).collect();
    let mut consumer = Consumer::new(log, ConsumerOptions::default())?;
    consumer.assign(&names)?;
    let mut status = HashMap::new();
    let mut note = |_: &_, record: lotic_log::batch::RecordView<'_>| {
        let last = record.value.and_then(|value| value.get(STATUS_AT)).copied();
        status.insert(record.key.map(<[u8]>::to_vec), last);
        ControlFlow::Continue(())
    };
    while consumer.poll(&mut note)? > 0 {}
    Ok(status.values().any(|status| *status == Some(PREPARE_COMMIT)))
}

fn is_checkpoint_unfinished(run: &Run) -> Result<bool> {
    let Ok(flows) = fs::read_dir(run.data.join("checkpoints")) else { return Ok(false) };
    for flow in flows {
        let flow = flow.about("the checkpoints")?.path();
        if flow.join("unfinished").exists() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many lives were killed when.
#[derive(Default)]
pub(super) struct Census {
    counts: BTreeMap<Moment, u64>,
}

impl Census {
    pub(super) fn count(&mut self, moment: Moment) {
        *self.counts.entry(moment).or_default() += 1;
    }

    /// What fewer than [`HITS_MIN`] lives have been killed in yet.
    pub(super) fn missed(&self) -> Vec<Target> {
        let hits = |target: Target| {
            let hits = self.counts.iter().filter(|(moment, _)| target.is_hit_by(**moment));
            hits.map(|(_, count)| count).sum::<u64>()
        };
        Target::ALL.into_iter().filter(|target| hits(*target) < HITS_MIN).collect()
    }

    pub(super) fn kills(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  killed    between  in a transaction  decided, not all marked  in a checkpoint")?;
        let stages = [
            (Milestone::Started, "opening"),
            (Milestone::Committed, "import"),
            (Milestone::Imported, "pipeline"),
            (Milestone::Answered, "end"),
        ];
        for (stage, name) in stages {
            let count = |act| self.counts.get(&Moment { stage, act }).copied().unwrap_or_default();
            let (between, open) = (count(Act::Between), count(Act::InTransaction));
            let (decided, checkpoint) = (count(Act::Decided), count(Act::Checkpoint));
            write!(f, "\n  {name:<8} {between:>8}  {open:>16}  {decided:>23}  {checkpoint:>15}")?;
        }
        Ok(())
    }
}
