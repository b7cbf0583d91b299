//! Files in, files out, with a flow of the front door in between.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use lotic::{Flow, Processor, ProcessorOptions, Timestamp};
use lotic_connectors::files::{FileSink, FileSource, JsonLines};

type Row = (String, i64);

/// The rows of an even number of a file of JSON lines, into CSV files.
fn flow(folder: &Path) -> Flow {
    let mut flow = Flow::new("even");
    let lines = FileSource::new(folder.join("in.jsonl"), JsonLines::default(), |row: &Row| Timestamp(row.1));
    let stream = flow.source("in", lines).filter(|(_, number)| number % 2 == 0);
    stream.sink("out", FileSink::csv(folder.join("results")));
    flow
}

/// What is in the files, one behind the other.
fn written(folder: &Path) -> String {
    let files = fs::read_dir(folder.join("results/even/out")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort_unstable();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn json_lines_go_through_a_flow_into_csv_files_each_once_however_often_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = String::new();
    for (from, workers) in [(0, 1), (3_000, 2)] {
        let mut file =
            OpenOptions::new().create(true).append(true).open(folder.path().join("in.jsonl")).unwrap();
        for number in from..from + 3_000 {
            writeln!(file, "[\"row \\\"{number}\\\"\", {number}]").unwrap();
            if number % 2 == 0 {
                writeln!(expected, "\"row \"\"{number}\"\"\",{number}").unwrap();
            }
        }
        for _ in 0..2 {
            let options = ProcessorOptions { workers, ..ProcessorOptions::default() };
            let processor = Processor::open_with(folder.path().join("data"), options).unwrap();
            processor.run_to_end(flow(folder.path())).unwrap();
            assert_eq!(written(folder.path()), expected);
        }
    }
}

#[test]
fn a_malformed_line_is_refused_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in.jsonl"), "[\"one\", 1]\n[\"two\", \"2\"]\n").unwrap();
    let processor = Processor::open(folder.path().join("data")).unwrap();
    let error = processor.run_to_end(flow(folder.path())).unwrap_err().to_string();
    assert!(error.contains("in.jsonl") && error.contains("line 2"), "{error}");
    assert_eq!(error.matches("in: ").count(), 1, "the step is named once: {error}");
}
