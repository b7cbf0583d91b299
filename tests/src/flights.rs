//! The flights example: its input, its arguments, the CSVs it writes, and what DuckDB answers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::failure::{About, Result, ensure};
use crate::process::{Ended, Process};
use crate::programs::{program, root, run_script};

/// The results, and the topics that hold them.
pub const DELAYS_BY_AIRLINE: &str = "delays-by-airline";
/// See [`DELAYS_BY_AIRLINE`].
pub const DELAYS_BY_WEATHER: &str = "delays-by-weather";
/// See [`DELAYS_BY_AIRLINE`].
pub const LATE_FLIGHTS: &str = "late-flights";

/// All of them.
pub const RESULTS: [&str; 3] = [DELAYS_BY_AIRLINE, DELAYS_BY_WEATHER, LATE_FLIGHTS];

/// The files that a run reads.
#[derive(Clone, Debug)]
pub struct Input {
    /// The flights.
    pub flights: PathBuf,
    /// The weather.
    pub weather: PathBuf,
    /// The airlines.
    pub airlines: PathBuf,
}

impl Input {
    /// January 2013, as the repository has it.
    pub fn january() -> Self {
        let data = root().join("examples/data");
        Self {
            flights: data.join("flights-2013-01.csv"),
            weather: data.join("weather-2013-01.csv"),
            airlines: data.join("airlines.csv"),
        }
    }

    /// Another month of 2013, from the package on PyPI.
    ///
    /// # Errors
    /// If it is not there and cannot be had.
    pub fn month(month: u32, folder: &Path) -> Result<Self> {
        run_script("examples/data/fetch", |command| {
            command.arg("--month").arg(month.to_string()).arg("--out").arg(folder);
        })?;
        Ok(Self {
            flights: folder.join(format!("flights-2013-{month:02}.csv")),
            weather: folder.join(format!("weather-2013-{month:02}.csv")),
            airlines: folder.join("airlines.csv"),
        })
    }

    /// `rows` made-up flights, and what belongs to them, written into `folder`.
    ///
    /// # Errors
    /// Those of writing.
    pub fn generated(rows: usize, seed: u64, folder: &Path) -> Result<Self> {
        run_script("tests/oracle/generate", |command| {
            command.arg("--rows").arg(rows.to_string()).arg("--seed").arg(seed.to_string());
            command.arg("--out").arg(folder);
        })?;
        let file = |name| folder.join(name);
        Ok(Self {
            flights: file("flights.csv"),
            weather: file("weather.csv"),
            airlines: file("airlines.csv"),
        })
    }

    /// Both inputs as one, written into `folder`; the airlines are the first one's.
    ///
    /// # Errors
    /// Those of writing.
    pub fn joined(&self, other: &Self, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let join = |name: &str, one: &Path, other: &Path| -> Result<PathBuf> {
            let path = folder.join(name);
            let (first, second) = (fs::read_to_string(one)?, fs::read_to_string(other)?);
            let (header, rows) = second.split_once('\n').ok_or("a file without a header")?;
            ensure(first.starts_with(header), || format!("{name}: the headers differ"))?;
            fs::write(&path, first + rows)?;
            Ok(path)
        };
        Ok(Self {
            flights: join("flights.csv", &self.flights, &other.flights)?,
            weather: join("weather.csv", &self.weather, &other.weather)?,
            airlines: self.airlines.clone(),
        })
    }

    /// Cuts the input in two at an hour, as the column `time_hour` has it: what lies before it and what
    /// does not, both in the order in which they were, written into `folder`; the airlines are the same.
    ///
    /// # Errors
    /// Those of writing; if nothing lies on one of the sides.
    pub fn cut_at(&self, hour: &str, folder: &Path) -> Result<(Self, Self)> {
        let part = |name: &str, is_wanted: fn(&str, &str) -> bool| -> Result<Self> {
            let folder = folder.join(name);
            fs::create_dir_all(&folder)?;
            let cut = |name: &str, whole: &Path| -> Result<PathBuf> {
                let path = folder.join(name);
                let text = fs::read_to_string(whole)?;
                let (header, rows) = text.split_once('\n').ok_or("a file without a header")?;
                // The hour is the last column.
                let is_kept = |row: &str| row.rsplit(',').next().is_some_and(|at| is_wanted(at, hour));
                let kept: String = rows.split_inclusive('\n').filter(|row| is_kept(row.trim_end())).collect();
                ensure(!kept.is_empty(), || format!("nothing of {} is {name} {hour}", whole.display()))?;
                fs::write(&path, format!("{header}\n{kept}"))?;
                Ok(path)
            };
            let (flights, weather) = (cut("flights.csv", &self.flights)?, cut("weather.csv", &self.weather)?);
            Ok(Self { flights, weather, airlines: self.airlines.clone() })
        };
        Ok((part("before", |at, hour| at < hour)?, part("from", |at, hour| at >= hour)?))
    }
}

/// One run of the program, to be started.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it reads.
    pub input: Input,
    /// Its directory.
    pub data: PathBuf,
    /// Where the CSVs go.
    pub out: PathBuf,
    /// How many workers.
    pub workers: usize,
    /// How far event time is out of order: `30h`.
    pub disorder: String,
    /// How long an epoch is: `100ms`.
    pub epoch: String,
    /// What else is on the command line.
    pub more: Vec<String>,
}

impl Run {
    /// A run with the program's own defaults, and data and output in `folder`.
    pub fn new(input: &Input, folder: &Path) -> Self {
        Self {
            input: input.clone(),
            data: folder.join("data"),
            out: folder.join("out"),
            workers: 1,
            disorder: "30h".to_owned(),
            epoch: "100ms".to_owned(),
            more: Vec::new(),
        }
    }

    /// The command line.
    ///
    /// # Errors
    /// If the program is not built.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(program("flights")?);
        command.arg("--data").arg(&self.data).arg("--out").arg(&self.out);
        command.arg("--flights").arg(&self.input.flights);
        command.arg("--weather").arg(&self.input.weather);
        command.arg("--airlines").arg(&self.input.airlines);
        command.arg("--workers").arg(self.workers.to_string());
        command.arg("--disorder").arg(&self.disorder).arg("--epoch").arg(&self.epoch);
        command.args(&self.more);
        Ok(command)
    }

    /// Starts it.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start(&self) -> Result<Process> {
        Process::start(&mut self.command()?)
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end(&self) -> Result<Ended> {
        self.start()?.end()
    }

    /// Runs it to a good end and reads the CSVs. Nothing is to be said on standard error: that is no terminal, and
    /// there is nothing to be mended.
    ///
    /// # Errors
    /// If it ends otherwise, or has said anything.
    pub fn finish(&self) -> Result<Csvs> {
        let ended = self.end()?;
        ended.check_success("flights")?;
        ensure(ended.stderr.is_empty(), || format!("flights has said:\n{}", ended.stderr))?;
        Csvs::read(&self.out)
    }
}

/// The three CSVs, in the order of [`RESULTS`].
#[derive(Clone, PartialEq, Eq)]
pub struct Csvs([String; 3]);

impl Csvs {
    /// Those in `folder`.
    ///
    /// # Errors
    /// If one is missing.
    pub fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = path_of(folder, name);
            fs::read_to_string(&path).about(path.display())
        };
        Ok(Self([read(RESULTS[0])?, read(RESULTS[1])?, read(RESULTS[2])?]))
    }

    /// What DuckDB answers: flights read one file after the other, the weather of all files together.
    ///
    /// # Errors
    /// If DuckDB is not there and cannot be had.
    pub fn of_oracle(inputs: &[&Input], disorder: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        run_script("tests/oracle/flights", |command| {
            command.arg("--flights").args(inputs.iter().map(|input| &input.flights));
            command.arg("--weather").args(inputs.iter().map(|input| &input.weather));
            command.args(
                inputs.first().into_iter().flat_map(|input| [Path::new("--airlines"), &input.airlines]),
            );
            command.args(["--disorder", disorder, "--out"]).arg(folder.path());
        })?;
        Self::read(folder.path())
    }

    /// The rows of a result, without the header.
    pub fn rows(&self, result: &str) -> impl Iterator<Item = &str> {
        let index = RESULTS.iter().position(|name| *name == result).expect("it is one of the results");
        self.0[index].lines().skip(1)
    }

    /// The rows of a result by column.
    ///
    /// # Errors
    /// If it is no CSV.
    pub fn table(&self, result: &str) -> Result<Vec<BTreeMap<String, String>>> {
        let index = RESULTS.iter().position(|name| *name == result).expect("it is one of the results");
        let mut reader = csv::Reader::from_reader(self.0[index].as_bytes());
        reader.deserialize().map(|row| row.about(result)).collect()
    }

    /// What a run prints that has this answer and rejects no row: how many flights were late for each step.
    pub fn printed(&self) -> String {
        let line = |step: &str| {
            let late = self.rows(LATE_FLIGHTS).filter(|row| row.split(',').next() == Some(step)).count();
            format!("late for {step}: {late}\n")
        };
        [DELAYS_BY_AIRLINE, DELAYS_BY_WEATHER].map(line).concat()
    }

    /// The sum of a numeric column of a result.
    ///
    /// # Errors
    /// If a field of it is no number.
    pub fn sum(&self, result: &str, column: usize) -> Result<u64> {
        let mut sum = 0;
        for row in self.rows(result) {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(row.as_bytes());
            let record = reader.records().next().ok_or("an empty row")??;
            sum += record[column].parse::<u64>().about(row)?;
        }
        Ok(sum)
    }

    /// A failure that shows the first difference, unless both are the same, byte for byte.
    ///
    /// # Errors
    /// As said.
    pub fn check_equal(&self, expected: &Self, whose: &str) -> Result<()> {
        for ((name, is), expected) in RESULTS.iter().zip(&self.0).zip(&expected.0) {
            check_same_text(&format!("{name}.csv, against {whose}"), is, expected)?;
        }
        Ok(())
    }

    /// A failure unless each CSV that is in `folder` is whole and as expected; those that are not there do
    /// not count.
    ///
    /// # Errors
    /// As said.
    pub fn check_those_in(&self, folder: &Path) -> Result<()> {
        for (name, expected) in RESULTS.iter().zip(&self.0) {
            match fs::read_to_string(path_of(folder, name)) {
                Ok(is) => check_same_text(&format!("{name}.csv of an unfinished run"), &is, expected)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the CSVs in `folder`.
    ///
    /// # Errors
    /// If one is missing.
    pub fn remove(folder: &Path) -> Result<()> {
        RESULTS.iter().try_for_each(|name| fs::remove_file(path_of(folder, name)).about(name))
    }
}

impl fmt::Debug for Csvs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |name: &&str| format!("{} rows of {name}", self.rows(name).count());
        f.debug_list().entries(RESULTS.iter().map(rows)).finish()
    }
}

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("csv")
}

fn check_same_text(what: &str, is: &str, expected: &str) -> Result<()> {
    if is == expected {
        return Ok(());
    }
    let (is_lines, expected_lines) = (is.lines().count(), expected.lines().count());
    let lines = is.lines().map(Some).chain([None]).zip(expected.lines().map(Some).chain([None]));
    let differing = lines.enumerate().find(|(_, (is, expected))| is != expected);
    let shown = differing.map_or("the end of a line".to_owned(), |(index, (is, expected))| {
        format!("line {}: {is:?} instead of {expected:?}", index + 1)
    });
    Err(format!("{what}: {is_lines} lines instead of {expected_lines}; first difference at {shown}").into())
}
