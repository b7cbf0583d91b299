//! Running DumpLogSegments, and what it may say.

use std::path::{Path, PathBuf};

use lotic_tests::failure::{Result, ensure};
use lotic_tests::kafka::{Answer, DumpedFile, Kafka, Script, dumped_files};

/// The files of a folder with one of these extensions, in order.
pub(super) fn files_of(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extensions.contains(&extension)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Complaints, without one that DumpLogSegments 4.3 makes of every segment that does not begin with offset
/// 0, a broker's own included: it takes the offset before a file's first record to be -1.
fn complaints(stderr: &str) -> Vec<&str> {
    let is_real = |line: &&str| {
        !line.trim().is_empty()
            && !line.starts_with("Non-consecutive offsets in ")
            && !line.starts_with("  -1 is followed by ")
    };
    stderr.lines().filter(is_real).collect()
}

/// What else is no complaint where compaction has been: that one offset is followed by a later one.
fn is_gap(line: &str) -> bool {
    let offsets = line.trim().split_once(" is followed by ");
    let offsets = offsets.and_then(|(one, next)| Some((one.parse::<i64>().ok()?, next.parse::<i64>().ok()?)));
    offsets.is_some_and(|(one, next)| one < next)
}

/// Runs DumpLogSegments in each of these ways, in one JVM; fails if it complains.
pub(super) fn dump(kafka: &Kafka, runs: &[(&[&str], Vec<PathBuf>)]) -> Result<Vec<Vec<DumpedFile>>> {
    dump_unless(kafka, runs, |_| false)
}

/// The same of files that were compacted.
pub(super) fn dump_with_gaps(
    kafka: &Kafka,
    runs: &[(&[&str], Vec<PathBuf>)],
) -> Result<Vec<Vec<DumpedFile>>> {
    dump_unless(kafka, runs, is_gap)
}

fn dump_unless(
    kafka: &Kafka,
    runs: &[(&[&str], Vec<PathBuf>)],
    is_fine: impl Fn(&str) -> bool,
) -> Result<Vec<Vec<DumpedFile>>> {
    let mut script = Script::new();
    runs.iter().for_each(|(options, files)| script.dump(options, files));
    let answers = kafka.run(&script, None)?;
    ensure(answers.len() == runs.len(), || format!("{} answers to {} runs", answers.len(), runs.len()))?;
    let mut dumps = Vec::new();
    for (answer, (options, files)) in answers.iter().zip(runs) {
        let Answer::Tool { stdout, stderr } = answer else { return Err("no answer of a tool".into()) };
        let mut complaints = complaints(stderr);
        complaints.retain(|line| !is_fine(line));
        ensure(complaints.is_empty(), || format!("DumpLogSegments {options:?} complains: {complaints:?}"))?;
        let dumped = dumped_files(stdout)?;
        ensure(dumped.len() == files.len(), || format!("{options:?}: not every file was dumped"))?;
        dumps.push(dumped);
    }
    Ok(dumps)
}
