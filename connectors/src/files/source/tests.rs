//! Restarting at every place of a file, in both orders.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::files::Csv;

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Row {
    id: u32,
    at: i64,
}

type RowTime = fn(&Row) -> Timestamp;
type CsvSource = FileSource<Csv<Row>, RowTime>;

/// A folder with files, and what an epoch record would keep of them.
struct Fixture {
    folder: TempDir,
    order: RowOrder,
    malformed: Malformed,
    /// Whether the file is looked through before it is opened.
    check: bool,
    recorded: serde_json::Value,
}

impl Fixture {
    fn new(order: RowOrder) -> Self {
        let recorded = serde_json::to_value(FilesRead::default()).expect("JSON");
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, order, malformed: Malformed::Fail, check: false, recorded }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, file: &str, rows: &str) {
        fs::write(self.path(file), format!("id,at\n{rows}")).expect("written");
    }

    fn append(&self, file: &str, rows: &str) {
        let mut opened = OpenOptions::new().append(true).open(self.path(file)).expect("opened");
        opened.write_all(rows.as_bytes()).expect("appended");
    }

    /// Opens a file as after a restart, takes at most so many batches, and records how far it came.
    fn take(&mut self, file: &str, rows_max: usize, batches: usize) -> Result<(Vec<u32>, Vec<u64>)> {
        let time: RowTime = |row| Timestamp(row.at);
        let options = ReadOptions { malformed: self.malformed, ..ReadOptions::default() };
        let mut source: CsvSource =
            FileSource::new(self.path(file), Csv::default(), time).order(self.order).options(options);
        if self.check {
            source = source.check()?;
        }
        let read = serde_json::from_value(self.recorded.clone()).expect("what was recorded");
        let checked = source.take_checked(rows_max, true);
        let mut rows = Rows::open(&source, read, checked, true)?;
        let (mut ids, mut rejected) = (Vec::new(), Vec::new());
        for _ in 0..batches {
            rows.peek(rows_max)?;
            let Some(ready) = rows.take() else { break };
            ids.extend(ready.rows.iter().map(|row| row.id));
            rejected.extend(ready.rejected.iter().map(|row| row.line));
        }
        self.recorded = serde_json::to_value(rows.read()).expect("JSON");
        Ok((ids, rejected))
    }

    /// Takes one batch after another, each after a restart, until nothing is left.
    fn take_all(&mut self, file: &str, rows_max: usize) -> Result<(Vec<u32>, Vec<u64>)> {
        let (mut ids, mut rejected) = (Vec::new(), Vec::new());
        loop {
            let (more, more_rejected) = self.take(file, rows_max, 1)?;
            if more.is_empty() && more_rejected.is_empty() {
                return Ok((ids, rejected));
            }
            ids.extend(more);
            rejected.extend(more_rejected);
        }
    }
}

#[test]
fn a_restart_goes_on_behind_the_last_row_in_both_orders() -> Result<()> {
    for (order, expected) in [(RowOrder::File, [1, 2, 3, 4, 5]), (RowOrder::EventTime, [2, 4, 1, 3, 5])] {
        for rows_max in 1..7 {
            let mut fixture = Fixture::new(order);
            fixture.write("a.csv", "1,20\n2,10\n3,20\n4,10\n5,30\n");
            assert_eq!(fixture.take_all("a.csv", rows_max)?.0, expected, "{order:?}, {rows_max} at a time");
            assert_eq!(fixture.take("a.csv", rows_max, 9)?.0, [0; 0], "nothing is left");
        }
    }
    Ok(())
}

#[test]
fn rows_added_to_a_file_come_after_those_it_had() -> Result<()> {
    for (order, expected) in [(RowOrder::File, [1, 2, 3, 4]), (RowOrder::EventTime, [2, 1, 4, 3])] {
        let mut fixture = Fixture::new(order);
        fixture.write("a.csv", "1,20\n2,10\n");
        let mut ids = fixture.take("a.csv", 1, 1)?.0;
        fixture.append("a.csv", "3,2\n4,1\n");
        ids.extend(fixture.take_all("a.csv", 2)?.0);
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 3, 4], "{order:?}");
        assert_eq!(ids, expected, "{order:?}");
    }
    Ok(())
}

#[test]
fn a_file_looked_through_before_is_read_once_and_whole_wherever_a_restart_goes_on() -> Result<()> {
    let rows: Vec<String> = (1..=3_000).map(|id| format!("{id},{id}\n")).collect();
    for order in [RowOrder::File, RowOrder::EventTime] {
        for (first, then) in [(1_024, 1_024), (1_024, 2_000), (700, 1_024), (1_024, 700)] {
            let mut fixture = Fixture { check: true, ..Fixture::new(order) };
            fixture.write("a.csv", &rows.concat());
            let mut ids = fixture.take("a.csv", first, 1)?.0;
            ids.extend(fixture.take_all("a.csv", then)?.0);
            fixture.append("a.csv", "3001,3001\n");
            ids.extend(fixture.take("a.csv", then, 9)?.0);
            assert!(ids.iter().copied().eq(1..=3_001), "{order:?}, {first} rows, then {then} at a time");
        }
    }
    Ok(())
}

#[test]
fn a_file_that_changes_after_the_look_through_it_is_refused() -> Result<()> {
    let time: RowTime = |row| Timestamp(row.at);
    let fixture = Fixture::new(RowOrder::File);
    fixture.write("a.csv", "1,20\n2,10\n");
    let source: CsvSource = FileSource::new(fixture.path("a.csv"), Csv::default(), time).check()?;
    fixture.write("a.csv", "1,20\n2,11\n");
    let checked = source.take_checked(1_024, true);
    let opened = Rows::open(&source, FilesRead::default(), checked, true);
    assert_eq!(opened.err().map(|error| error.kind()), Some(ErrorKind::Changed));
    Ok(())
}

#[test]
fn a_malformed_row_is_found_by_a_look_through_the_file() {
    let time: RowTime = |row| Timestamp(row.at);
    let fixture = Fixture::new(RowOrder::EventTime);
    fixture.write("a.csv", "1,20\n2,soon\n");
    let source: CsvSource = FileSource::new(fixture.path("a.csv"), Csv::default(), time);
    let error = source.check().err().expect("the second row has no time");
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("line 3"), "{error}");
}

#[test]
fn a_file_that_begins_otherwise_is_refused() -> Result<()> {
    for order in [RowOrder::File, RowOrder::EventTime] {
        let mut fixture = Fixture::new(order);
        fixture.write("a.csv", "1,20\n2,10\n3,30\n");
        fixture.take("a.csv", 1, 2)?;
        fixture.write("a.csv", "1,20\n2,11\n3,30\n4,5\n");
        let before = fixture.recorded.clone();
        let error = fixture.take("a.csv", 1, 1).expect_err("it is another file");
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert!(error.to_string().contains("a.csv"), "{error}");
        assert_eq!(fixture.recorded, before);
    }
    Ok(())
}

#[test]
fn each_file_is_known_by_itself() -> Result<()> {
    let mut fixture = Fixture::new(RowOrder::EventTime);
    fixture.write("a.csv", "1,20\n");
    fixture.write("b.csv", "2,10\n");
    assert_eq!(fixture.take("a.csv", 9, 9)?.0, [1]);
    assert_eq!(fixture.take("b.csv", 9, 9)?.0, [2]);
    assert_eq!(fixture.take("a.csv", 9, 9)?.0, [0; 0]);
    fixture.append("a.csv", "3,5\n");
    assert_eq!(fixture.take("a.csv", 9, 9)?.0, [3]);
    Ok(())
}

#[test]
fn a_file_is_the_same_one_by_whatever_name_it_is_opened() -> Result<()> {
    for order in [RowOrder::File, RowOrder::EventTime] {
        let mut fixture = Fixture::new(order);
        fixture.write("a.csv", "1,20\n2,30\n");
        fs::create_dir(fixture.path("folder")).expect("made");
        let linked = |from: &str, to: &str| symlink(fixture.path(from), fixture.path(to)).expect("linked");
        linked("a.csv", "folder/link.csv");
        linked("folder/link.csv", "link-to-it.csv");
        let names = ["a.csv", "folder/link.csv", "link-to-it.csv", "folder/../a.csv"];
        assert_eq!(fixture.take("folder/link.csv", 9, 9)?.0, [1, 2]);
        for name in names {
            assert_eq!(fixture.take(name, 9, 9)?.0, [0; 0], "{order:?}, {name}");
        }
        for (name, id) in names.iter().zip(3..) {
            fixture.append("a.csv", &format!("{id},40\n"));
            assert_eq!(fixture.take(name, 9, 9)?.0, [id], "{order:?}, {name}");
        }
    }
    Ok(())
}

#[test]
fn a_malformed_row_comes_out_once() -> Result<()> {
    for order in [RowOrder::File, RowOrder::EventTime] {
        for rows_max in 1..6 {
            let mut fixture = Fixture::new(order);
            fixture.malformed = Malformed::DeadLetter;
            fixture.write("a.csv", "1,10\nx,20\n2,30\n3,bad\n");
            let (ids, lines) = fixture.take_all("a.csv", rows_max)?;
            assert_eq!((ids, lines), (vec![1, 2], vec![3, 5]), "{order:?}, {rows_max}");
        }
    }
    Ok(())
}

#[test]
fn a_file_of_skipped_rows_is_read_to_its_end() -> Result<()> {
    for order in [RowOrder::File, RowOrder::EventTime] {
        let mut fixture = Fixture::new(order);
        fixture.malformed = Malformed::Skip;
        fixture.write("a.csv", "x,1\nx,2\nx,3\n7,4\n");
        assert_eq!(fixture.take_all("a.csv", 1)?.0, [7], "{order:?}");
    }
    Ok(())
}
