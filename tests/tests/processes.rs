//! A processor and its operating system: signals, a second one, a disk that is full or may not be written.

use std::fs;
use std::process::Command;
use std::time::Duration;

use lotic_log::{ErrorKind, Log};
use lotic_tests::failure::Result;
use lotic_tests::files::Files;
use lotic_tests::flights::{Csvs, Input, Run};
use lotic_tests::namespace;
use lotic_tests::process::Process;
use lotic_tests::programs::program;
use lotic_tests::skipped::skip;
use lotic_tests::stored::{StoredTopic, reading};
use tempfile::TempDir;

/// More flights than are worked through before somebody looks.
fn long_run() -> (TempDir, Run) {
    let folder = tempfile::tempdir().unwrap();
    let input = Input::generated(60_000, 6, folder.path()).unwrap();
    let run = Run { epoch: "5ms".to_owned(), ..Run::new(&input, folder.path()) };
    (folder, run)
}

fn oracle(run: &Run) -> Csvs {
    Csvs::of_oracle(&[&run.input], &run.disorder).unwrap()
}

/// Whether some records of `topic` are committed, and there may be more to come.
fn has_begun(run: &Run, topic: &str) -> Result<Option<()>> {
    let log = match Log::open_read_only(&run.data, reading()?) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Retry) => return Ok(None),
        log => log?,
    };
    let Ok(topic) = log.topic(topic) else { return Ok(None) };
    let has_records = topic.partitions().iter().any(|partition| partition.offsets().stable.0 > 0);
    Ok(has_records.then_some(()))
}

#[test]
fn sigterm_commits_what_was_read_and_the_next_run_goes_on_behind_it() {
    for topic in ["flights", "delays-by-weather"] {
        let (_folder, run) = long_run();
        let mut process = run.start().unwrap();
        process.wait_until(|| has_begun(&run, topic)).unwrap();
        process.terminate().unwrap();
        let ended = process.end_within(Duration::from_secs(30)).unwrap();
        ended.check_success("a run that was told to end").unwrap();
        assert!(!run.out.join("delays-by-airline.csv").exists(), "an end that was asked for is no result");

        // Reading says so if a transaction is left open.
        let committed = StoredTopic::read(&run.data, topic).unwrap();
        assert!(committed.records().count() > 0);
        assert!(run.data.join("clean-shutdown").exists(), "there is nothing to recover");
        run.finish().unwrap().check_equal(&oracle(&run), "DuckDB").unwrap();
    }
}

#[test]
fn a_second_processor_is_refused_and_told_who_holds_the_directory() {
    let (folder, run) = long_run();
    let mut first = run.start().unwrap();
    first.wait_until(|| has_begun(&run, "flights")).unwrap();
    first.pause().unwrap();
    let before = Files::below(folder.path()).unwrap();
    let second = run.end().unwrap();
    Files::below(folder.path()).unwrap().check_unchanged_since(&before).unwrap();
    first.go_on().unwrap();

    assert_eq!(second.status.code(), Some(1), "{}", second.stderr);
    for word in [&format!("process {}", first.id()), "flights", &run.data.display().to_string()] {
        assert!(second.stderr.contains(word), "it has to name {word}: {}", second.stderr);
    }
    first.end().unwrap().check_success("the first one").unwrap();
    Csvs::read(&run.out).unwrap().check_equal(&oracle(&run), "DuckDB").unwrap();
}

#[test]
fn a_directory_that_may_not_be_written_is_refused_and_can_be_read() {
    if !namespace::is_possible().unwrap() {
        let test = "a_directory_that_may_not_be_written_is_refused_and_can_be_read";
        return skip(test, "mounting is not allowed").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let input = Input::generated(1_000, 7, folder.path()).unwrap();
    let run = Run::new(&input, folder.path());
    run.finish().unwrap();
    let before = Files::below(folder.path()).unwrap();

    let mut script = namespace::shell(
        r#"mount --bind "$1" "$1"
        mount -o remount,bind,ro "$1"
        "$2" verify --data "$1"
        "$2" consume flights --data "$1" --read-committed --max-records 3
        shift 2
        exec "$@""#,
    );
    script.arg(&run.data).arg(program("lotic").unwrap());
    let flights = run.command().unwrap();
    script.arg(flights.get_program()).args(flights.get_args());
    let ended = Process::start(&mut script).unwrap().end().unwrap();

    assert_eq!(ended.status.code(), Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("sound"), "{}{}", ended.stdout, ended.stderr);
    for word in ["Read-only file system", &run.data.display().to_string()] {
        assert!(ended.stderr.contains(word), "it has to name {word}: {}", ended.stderr);
    }
    Files::below(folder.path()).unwrap().check_unchanged_since(&before).unwrap();
}

#[test]
fn a_full_disk_stops_a_run_and_with_room_again_the_next_one_finishes() {
    if !namespace::is_possible().unwrap() {
        let test = "a_full_disk_stops_a_run_and_with_room_again_the_next_one_finishes";
        return skip(test, "mounting is not allowed; files of limited size stand in for it").unwrap();
    }
    // Too little for the import, for the results, and for almost nothing. Of more than these sizes it is not certain
    // that it is too little: RocksDB reserves 4 MB for its manifest where it can, and does without where it cannot,
    // which may be when the flow is started again.
    check_shortage(namespace::shell, TMPFS, &["1m", "2200k", "300k"], "No space left on device");
}

#[test]
fn a_file_that_may_not_grow_stops_a_run_and_without_the_limit_the_next_one_finishes() {
    // Blocks of 512 bytes: too little for a partition of what is imported, and for almost nothing.
    check_shortage(shell, FILE_LIMIT, &["300", "100"], "File too large");
}

/// A file system of a size.
const TMPFS: &str = r#"data=$1; lotic=$2; size=$3; shift 3
    mount -t tmpfs -o size="$size" none "$data"
    if "$@"; then echo "it fits into $size"; else echo "exit status $?"; fi
    mount -o remount,size=1g "$data"
    "$lotic" verify --data "$data"
    "$@"
    "$lotic" verify --data "$data""#;

/// Files of a size. The signal is ignored, so that the write fails.
const FILE_LIMIT: &str = r#"data=$1; lotic=$2; size=$3; shift 3
    if (trap '' XFSZ; ulimit -f "$size"; exec "$@"); then echo "it fits into $size"; else echo "exit status $?"; fi
    "$lotic" verify --data "$data"
    "$@"
    "$lotic" verify --data "$data""#;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]);
    command
}

/// Runs `script` in each of `sizes`: a run has to stop, saying `reason`, and the next one to finish.
fn check_shortage(shell: fn(&str) -> Command, script: &str, sizes: &[&str], reason: &str) {
    for size in sizes {
        let folder = tempfile::tempdir().unwrap();
        let input = Input::generated(12_000, 8, folder.path()).unwrap();
        let run = Run { epoch: "5ms".to_owned(), workers: 2, ..Run::new(&input, folder.path()) };
        fs::create_dir(&run.data).unwrap();
        let mut script = shell(script);
        script.arg(&run.data).arg(program("lotic").unwrap()).arg(size);
        let flights = run.command().unwrap();
        script.arg(flights.get_program()).args(flights.get_args());
        let ended = Process::start(&mut script).unwrap().end().unwrap();
        ended.check_success(size).unwrap();
        assert!(ended.stdout.contains("exit status 1"), "{size}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(reason), "{size}: {}", ended.stderr);
        Csvs::read(&run.out).unwrap().check_equal(&oracle(&run), "DuckDB").unwrap();
    }
}
