//! The flights example killed over and over.
//!
//! A *life* is one process of it. Lives follow each other over one directory, each killed with SIGKILL,
//! until one of them finishes; then the directory is judged (`verdict`) and a new one begun, until enough
//! have been killed. A life is killed some time after it has come to a `Milestone`; both are drawn, the
//! time log-uniformly, so that every stage of the program is hit, early and late. Until each `Target` was
//! hit a few times, every second life is stopped again and again, and killed when it stands in one of those
//! missed that it can still come to: a campaign of some length that goes on missing one fails. The input, the workers
//! and the times between epochs and between checkpoints are drawn too: no answer may depend on the last three, and
//! workers change from life to life.
//!
//! The same seed draws the same, though a machine never does quite the same twice.

mod expected;
mod moment;
mod verdict;
mod watcher;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use lotic_log::{Clock, SystemClock};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::failure::{Result, ensure};
use crate::flights::{Input, Run};
use crate::process::{Ended, LIMIT, Process};

use expected::Expected;
use moment::{Census, Milestone, Moment, Target};
use watcher::Watcher;

/// The shortest time from a milestone to the kill.
const KILL_AFTER_MIN: Duration = Duration::from_micros(100);

/// The longest one, in undisturbed runs.
const KILL_AFTER_MAX_RUNS: f64 = 1.5;

/// How long the consumer waits between looks for more.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Lives in a row that may get no further before the campaign is given up: a program that loses what it
/// did would otherwise be killed for ever.
const LIVES_MAX: u32 = 500;

/// With so many kills every target has to be hit.
const KILLS_THAT_HIT_ALL: u64 = 100;

/// The inputs, from the longest to the shortest: rows, and the disorder that is declared. The rows are out of
/// order by less than 24 hours.
const INPUTS: [(usize, &str); 3] = [(60_000, "30h"), (12_000, "6h"), (4_000, "0s")];

/// From the shortest to the longest.
const EPOCHS: [&str; 4] = ["1ms", "5ms", "20ms", "100ms"];

const CHECKPOINTS: [&str; 2] = ["10ms", "100ms"];

const WORKERS: [usize; 3] = [1, 2, 4];

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// How many lives are killed.
    pub kills: u64,
    /// Draws everything that is drawn.
    pub seed: u64,
}

/// An input and what has to come of it.
struct Subject {
    input: Input,
    disorder: &'static str,
    /// How long an undisturbed run takes.
    duration: Duration,
    expected: Expected,
}

impl Campaign {
    /// Runs it, telling `out` how far it is and where lives have ended.
    ///
    /// # Errors
    /// The first thing that is not as it should be. The directory it was found in is kept and named.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "crash: {} kills with --seed {}", self.kills, self.seed)?;
        let folder = tempfile::Builder::new().prefix("lotic-crash-").tempdir()?;
        let subjects = self.subjects(folder.path(), out)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut census = Census::default();
        let mut directories = 0u64;
        while census.kills() < self.kills {
            let drawn = rng.random_range(0..subjects.len());
            // Short files are imported before anything can be killed in between.
            let is_import_missed = census.missed().contains(&Target::Import);
            let subject = &subjects[if is_import_missed { 0 } else { drawn }];
            let directory =
                tempfile::Builder::new().prefix(&format!("{directories}-")).tempdir_in(folder.path())?;
            let trial = Trial::new(subject, directory.path(), self.kills - census.kills(), &mut rng);
            if let Err(failure) = trial.run(&mut census) {
                return Err(self.keep(folder, directory, subject, &failure.to_string()));
            }
            directories += 1;
            if directories.is_multiple_of(25) {
                writeln!(out, "crash: {} killed in {directories} directories", census.kills())?;
            }
        }
        writeln!(out, "{census}")?;
        let missed = census.missed();
        ensure(missed.is_empty() || self.kills < KILLS_THAT_HIT_ALL, || {
            format!(
                "of {} lives fewer than {} were killed in {missed:?}: the campaign tests less than it says",
                self.kills,
                moment::HITS_MIN
            )
        })?;
        writeln!(
            out,
            "crash: {} killed in {directories} directories, each finished and as it should be",
            census.kills()
        )?;
        Ok(())
    }

    fn subjects(&self, folder: &Path, out: &mut dyn Write) -> Result<Vec<Subject>> {
        let mut subjects = Vec::new();
        for (index, (rows, disorder)) in INPUTS.into_iter().enumerate() {
            let folder = folder.join(format!("input-{index}"));
            let input = Input::generated(rows, self.seed.wrapping_add(index as u64), &folder)?;
            let run = Run { disorder: disorder.to_owned(), ..Run::new(&input, &folder) };
            let clock = SystemClock::new();
            let csvs = run.finish()?;
            let duration = clock.elapsed();
            let expected = Expected::of(&run, csvs)?;
            writeln!(
                out,
                "crash: {rows} flights, disorder {disorder}: undisturbed in {duration:.2?}, as DuckDB answers"
            )?;
            subjects.push(Subject { input, disorder, duration, expected });
        }
        Ok(subjects)
    }

    fn keep(
        &self,
        folder: TempDir,
        directory: TempDir,
        subject: &Subject,
        failure: &str,
    ) -> crate::failure::Failure {
        let (directory, _) = (directory.keep(), folder.keep());
        let input = subject.input.flights.display();
        format!(
            "{failure}\n  seed {}, directory {}, input {input}, disorder {}",
            self.seed,
            directory.display(),
            subject.disorder
        )
        .into()
    }
}

/// One directory and the lives over it.
struct Trial<'a> {
    subject: &'a Subject,
    folder: &'a Path,
    epoch: &'static str,
    checkpoint: &'static str,
    kills_max: u64,
    rng: &'a mut ChaCha8Rng,
}

impl<'a> Trial<'a> {
    fn new(subject: &'a Subject, folder: &'a Path, kills_max: u64, rng: &'a mut ChaCha8Rng) -> Self {
        let epoch = EPOCHS[rng.random_range(0..EPOCHS.len())];
        let checkpoint = CHECKPOINTS[rng.random_range(0..CHECKPOINTS.len())];
        Self { subject, folder, epoch, checkpoint, kills_max, rng }
    }

    fn run(mut self, census: &mut Census) -> Result<()> {
        let mut run = Run {
            disorder: self.subject.disorder.to_owned(),
            more: vec!["--checkpoint".to_owned(), self.checkpoint.to_owned()],
            ..Run::new(&self.subject.input, self.folder)
        };
        let mut watcher = Watcher::new(&run.data)?;
        let mut previous = None;
        for kills in 0..u64::from(LIVES_MAX) {
            run.workers = WORKERS[self.rng.random_range(0..WORKERS.len())];
            let before = watcher.seen();
            let mut missed = census.missed();
            missed.retain(|target| target.is_ahead(&watcher, before, &self.subject.expected));
            let kill = (kills < self.kills_max).then(|| self.draw_kill(&missed));
            let epoch = match kill {
                // It has to come to a commit before the last row.
                Some(Kill::At(Target::Import)) => EPOCHS[0],
                // A transaction that is to be met has to last.
                Some(Kill::At(Target::Transaction)) => EPOCHS[EPOCHS.len() - 1],
                _ => self.epoch,
            };
            run.epoch = epoch.to_owned();
            let ended = live(&run, &mut watcher, kill, previous, &self.subject.expected)?;
            if !ended.was_killed() {
                ended.check_success(&format!("life {kills} of flights, after {kills} kills"))?;
                return verdict::judge(&run, &self.subject.expected, &mut watcher);
            }
            ensure(kill.is_some(), || format!("a life took longer than {LIMIT:?}:\n{}", ended.stderr))?;
            self.subject.expected.csvs().check_those_in(&run.out)?;
            let moment = Moment::of(&run, &mut watcher, before, previous, &self.subject.expected)?;
            census.count(moment);
            previous = Some(moment);
        }
        Err(format!("{LIVES_MAX} lives were not enough to finish").into())
    }

    /// When the next life is killed, if `missed` are the targets that too few lives have been killed in and that
    /// it may come to.
    fn draw_kill(&mut self, missed: &[Target]) -> Kill {
        if !missed.is_empty() && self.rng.random() {
            // The import is over soon, whatever else there is time for.
            let is_import_missed = missed.contains(&Target::Import);
            let drawn = missed[self.rng.random_range(0..missed.len())];
            return Kill::At(if is_import_missed { Target::Import } else { drawn });
        }
        let milestone = Milestone::ALL[self.rng.random_range(0..Milestone::ALL.len())];
        let longest =
            self.subject.duration.as_secs_f64() * KILL_AFTER_MAX_RUNS / KILL_AFTER_MIN.as_secs_f64();
        let after = KILL_AFTER_MIN.mul_f64(longest.powf(self.rng.random::<f64>()).max(1.0));
        Kill::After(milestone, after)
    }
}

/// When a life is killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// So long after it was seen to have come so far.
    After(Milestone, Duration),
    /// When it stands there.
    At(Target),
}

/// Runs a life until it ends or is killed, reading what it commits all the while. The one before was killed
/// in `previous`.
fn live(
    run: &Run,
    watcher: &mut Watcher,
    kill: Option<Kill>,
    previous: Option<Moment>,
    expected: &Expected,
) -> Result<Ended> {
    match kill {
        None => until(run, watcher, |_| false, LIMIT),
        Some(Kill::After(milestone, after)) => {
            let before = watcher.seen();
            until(run, watcher, |watcher| milestone.is_reached(watcher, before, expected), after)
        }
        Some(Kill::At(target)) => until_it_stands_in(target, run, watcher, previous, expected),
    }
}

/// Kills a life so long after it `has_come` so far, or after [`LIMIT`].
fn until(
    run: &Run,
    watcher: &mut Watcher,
    has_come: impl Fn(&Watcher) -> bool,
    after: Duration,
) -> Result<Ended> {
    let clock = SystemClock::new();
    let mut kill_at = None;
    let mut life: Process = run.start()?;
    loop {
        if kill_at.is_none() && has_come(watcher) {
            kill_at = Some(clock.elapsed() + after);
        }
        let left = kill_at.unwrap_or(LIMIT).saturating_sub(clock.elapsed());
        if left.is_zero() {
            return life.kill();
        }
        if life.wait(left.min(LOOK_INTERVAL))?.is_some() {
            return life.end();
        }
        watcher.look(|| kill_at.is_some_and(|at| clock.elapsed() >= at))?;
    }
}

/// Stops a life every now and then, and kills it if it stands in `target`: a look at one that runs would
/// tell what it was doing and not what it is killed in.
fn until_it_stands_in(
    target: Target,
    run: &Run,
    watcher: &mut Watcher,
    previous: Option<Moment>,
    expected: &Expected,
) -> Result<Ended> {
    let clock = SystemClock::new();
    let before = watcher.seen();
    let mut life: Process = run.start()?;
    while clock.elapsed() < LIMIT {
        if life.wait(LOOK_INTERVAL)?.is_some() || !life.try_pause()? {
            return life.end();
        }
        watcher.look(|| false)?;
        if target.is_met(watcher, before, previous, expected)? {
            return life.kill();
        }
        life.go_on()?;
    }
    life.kill()
}
