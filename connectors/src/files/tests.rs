//! Reading in batches, from a position, from a file that grows; writing whole files. Any format will do.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lotic_engine::epoch::Epoch;
use proptest::prelude::*;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::error::{Error, ErrorKind};

#[derive(Clone, Debug, PartialEq, Deserialize, serde::Serialize)]
struct Row {
    id: u32,
    name: String,
}

fn row(id: u32, name: &str) -> Row {
    Row { id, name: name.to_owned() }
}

/// A folder with one file, which can be rewritten, lengthened and read from a position.
struct Fixture {
    _folder: TempDir,
    path: PathBuf,
    options: ReadOptions,
}

impl Fixture {
    fn new(name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        let options = ReadOptions { block_bytes: 16, record_bytes_max: 64, ..ReadOptions::default() };
        Self { _folder: folder, path, options }
    }

    fn append(&self, text: &str) {
        let mut file = OpenOptions::new().append(true).open(&self.path).expect("opened");
        file.write_all(text.as_bytes()).expect("appended");
    }

    fn csv(&self, resume: Option<FilePosition>) -> Result<CsvReader<Row>, Error> {
        CsvReader::open(&self.path, resume, Csv::default(), self.options.clone())
    }

    fn json(&self, resume: Option<FilePosition>) -> Result<JsonLinesReader<Row>, Error> {
        JsonLinesReader::open(&self.path, resume, JsonLines::default(), self.options.clone())
    }
}

/// All rows up to the present end.
fn drain<F: RowFormat>(reader: &mut FileReader<F>) -> Result<(Vec<F::Row>, Vec<RejectedRow>), Error> {
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    while reader.read(2, &mut rows, &mut rejected)? == Progress::More {}
    Ok((rows, rejected))
}

fn rows_of<F: RowFormat>(reader: &mut FileReader<F>) -> Vec<F::Row> {
    drain(reader).expect("read").0
}

fn hash_of(bytes: &[u8]) -> ContentHash {
    let mut hash = ContentHash::empty();
    hash.extend(bytes);
    hash
}

#[test]
fn a_position_counts_and_hashes_what_was_consumed() {
    let fixture = Fixture::new("a.csv", "id,name\n1,one\n\n2,two\n3,three\n");
    let mut reader = fixture.csv(None).expect("opened");
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    assert_eq!(reader.read(2, &mut rows, &mut rejected).expect("read"), Progress::More);
    let consumed = b"id,name\n1,one\n\n2,two\n";
    let expected = FilePosition {
        bytes: consumed.len() as u64,
        lines: 4,
        rows: 2,
        rejected: 0,
        hash: hash_of(consumed),
    };
    assert_eq!(reader.position(), expected);
    assert_eq!(reader.path(), fs::canonicalize(&fixture.path).expect("there"));
}

#[test]
fn a_reader_tells_of_the_file_that_a_link_leads_to() {
    let mut fixture = Fixture::new("a.csv", "id,name\n1,one\n");
    let file = fs::canonicalize(&fixture.path).expect("there");
    fixture.path = fixture.path.with_file_name("link.csv");
    symlink(&file, &fixture.path).expect("linked");
    assert_eq!(fixture.csv(None).expect("opened").path(), file);
}

#[test]
fn a_content_hash_is_the_published_checksum_of_the_bytes() {
    // CRC-64/NVME of "123456789" is ae8b14860a799888 in the catalogue of parametrised CRC algorithms; the state
    // is the checksum before its final complement.
    assert_eq!(hash_of(b"123456789").to_string(), format!("{:016x}", !0xae8b_1486_0a79_9888_u64));
}

#[test]
fn a_position_survives_json() {
    let position = FilePosition { bytes: 9, lines: 2, rows: 1, rejected: 0, hash: hash_of(b"123456789") };
    let text = serde_json::to_string(&position).expect("written");
    assert_eq!(serde_json::from_str::<FilePosition>(&text).expect("read"), position);
    let broken = text.replace(&position.hash.to_string(), "no hash");
    assert!(serde_json::from_str::<FilePosition>(&broken).is_err());
}

#[test]
fn a_file_that_has_grown_is_read_on() {
    let fixture = Fixture::new("a.csv", "id,name\n1,one\n");
    let mut reader = fixture.csv(None).expect("opened");
    assert_eq!(rows_of(&mut reader), [row(1, "one")]);
    fixture.append("2,two\n");
    let mut reader = fixture.csv(Some(reader.position())).expect("it has only grown");
    assert_eq!(rows_of(&mut reader), [row(2, "two")]);
    assert_eq!(reader.position().hash, hash_of(b"id,name\n1,one\n2,two\n"));
    assert_eq!((reader.position().rows, reader.position().lines), (2, 3));
}

#[test]
fn a_file_with_another_beginning_is_refused_naming_both() {
    let fixture = Fixture::new("a.csv", "id,name\n1,one\n");
    let mut reader = fixture.csv(None).expect("opened");
    drain(&mut reader).expect("read");
    let position = reader.position();
    for other in ["id,name\n1,eno\n2,two\n", "id,name\n", "", "name,id\none,1\n"] {
        fs::write(&fixture.path, other).expect("written");
        let error = fixture.csv(Some(position)).expect_err("another file");
        assert_eq!(error.kind(), ErrorKind::Changed);
        let message = error.to_string();
        let there = match other.len() {
            length if length < 14 => format!("it has {length} bytes now"),
            _ => format!("that beginning has hash {} now", hash_of(&other.as_bytes()[..14])),
        };
        assert!(message.contains("a.csv is not the file that was read before"), "{message}");
        assert!(
            message.contains(&format!("its first 14 bytes (1 rows) had hash {}", position.hash)),
            "{message}"
        );
        assert!(message.contains(&there), "{message}");
    }
}

#[test]
fn a_last_line_that_was_read_must_not_become_longer() {
    let fixture = Fixture::new("a.csv", "id,name\n1,one");
    let mut reader = fixture.csv(None).expect("opened");
    assert_eq!(rows_of(&mut reader), [row(1, "one")]);
    let position = reader.position();

    fixture.append("\n2,two");
    let mut reader = fixture.csv(Some(position)).expect("the line was finished, another follows");
    assert_eq!(rows_of(&mut reader), [row(2, "two")]);

    fs::write(&fixture.path, "id,name\n1,oneself\n").expect("written");
    let error = fixture.csv(Some(position)).expect_err("the row read was not the whole line");
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(error.to_string().contains("is longer now"), "{error}");
}

#[test]
fn of_a_growing_file_a_half_written_line_is_left_for_later() {
    let mut fixture = Fixture::new("a.csv", "id,name\n1,one\n2,t");
    fixture.options.ending = Ending::Growing;
    let mut reader = fixture.csv(None).expect("opened");
    assert_eq!(rows_of(&mut reader), [row(1, "one")]);
    fixture.append("wo\n3,\"th");
    assert_eq!(rows_of(&mut reader), [row(2, "two")]);
    fixture.append("ree\nand more\"\n");
    assert_eq!(rows_of(&mut reader), [row(3, "three\nand more")]);
}

#[test]
fn a_malformed_row_stops_reading_behind_the_rows_before_it() {
    let fixture = Fixture::new("a.csv", "id,name\n1,one\nx,two\n3,three\n");
    let mut reader = fixture.csv(None).expect("opened");
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    assert_eq!(reader.read(10, &mut rows, &mut rejected).expect("one row"), Progress::More);
    assert_eq!(rows, [row(1, "one")]);
    let before = reader.position();
    for _ in 0..2 {
        let error = reader.read(10, &mut rows, &mut rejected).expect_err("malformed");
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(
            error.to_string().ends_with("a.csv: line 3, column id: `x`: invalid digit found in string"),
            "{error}"
        );
    }
    assert_eq!((rows.len(), rejected.len(), reader.position()), (1, 0, before));
}

#[test]
fn a_malformed_row_is_skipped_and_counted_across_restarts() {
    let mut fixture = Fixture::new("a.csv", "id,name\nx,one\n2,two\n");
    fixture.options.malformed = Malformed::Skip;
    let mut reader = fixture.csv(None).expect("opened");
    assert_eq!(drain(&mut reader).expect("read"), (vec![row(2, "two")], vec![]));
    fixture.append("y,three\n");
    let mut reader = fixture.csv(Some(reader.position())).expect("opened");
    drain(&mut reader).expect("read");
    assert_eq!((reader.position().rows, reader.position().rejected), (1, 2));
}

#[test]
fn a_dead_letter_has_the_row_as_it_stands_in_the_file() {
    let mut fixture = Fixture::new("a.csv", "id,name\r\n1,one\r\nx,\"t,wo\"\r\n3,three\r\n");
    fixture.options.malformed = Malformed::DeadLetter;
    let mut reader = fixture.csv(None).expect("opened");
    let (rows, rejected) = drain(&mut reader).expect("read");
    assert_eq!(rows, [row(1, "one"), row(3, "three")]);
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].line, rejected[0].raw.as_slice()), (3, b"x,\"t,wo\"".as_slice()));
    assert_eq!(&*rejected[0].file, fs::canonicalize(&fixture.path).expect("there"));
}

#[test]
fn a_missing_file_is_named() {
    let error = CsvReader::<Row>::open("/no/such/file.csv", None, Csv::default(), ReadOptions::default());
    let error = error.expect_err("missing");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("cannot open /no/such/file.csv: "), "{error}");
}

#[test]
fn json_lines_are_read_and_malformed_ones_named() {
    let text = "{\"id\":1,\"name\":\"one\"}\n\n{\"name\":\"t\\u00e9\",\"id\":2}\r\n{\"id\":3}\nnothing\n{\"id\":4,\"name\":\"4\"}";
    let mut fixture = Fixture::new("a.jsonl", text);
    fixture.options.malformed = Malformed::DeadLetter;
    let (rows, rejected) = drain(&mut fixture.json(None).expect("opened")).expect("read");
    assert_eq!(rows, [row(1, "one"), row(2, "t\u{e9}"), row(4, "4")]);
    let found: Vec<_> =
        rejected.iter().map(|row| row.to_string().split_once(": ").expect("a path").1.to_owned()).collect();
    assert_eq!(found, ["line 4, column 8: missing field `name`", "line 5, column 2: expected ident",]);
}

/// Reads `path` with a reader that is dropped and opened again after each batch of `batches`, then to the end.
fn read_with_restarts(
    path: &Path,
    options: &ReadOptions,
    batches: &[usize],
) -> (Vec<Vec<String>>, FilePosition) {
    let (mut rows, mut rejected, mut position) = (Vec::new(), Vec::new(), None);
    for &batch in batches.iter().chain([&usize::MAX]) {
        let mut reader =
            FileReader::open(path, position, Csv::<Vec<String>>::default(), options.clone()).expect("opened");
        reader.read(batch, &mut rows, &mut rejected).expect("read");
        position = Some(reader.position());
    }
    (rows, position.expect("read at least once"))
}

proptest! {
    #[test]
    fn restarts_and_block_sizes_change_nothing(
        fields in prop::collection::vec(("[a-z\"\n,]{0,5}", "[a-z]{0,9}"), 1..20),
        batches in prop::collection::vec(1usize..4, 0..12),
        block_bytes in 1usize..40,
    ) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["a", "b"]).expect("a header");
        for (first, second) in &fields {
            writer.write_record([first, second]).expect("a row");
        }
        let text = writer.into_inner().expect("in memory");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.csv");
        fs::write(&path, &text).expect("written");

        let options = ReadOptions { block_bytes, ..ReadOptions::default() };
        let (rows, position) = read_with_restarts(&path, &options, &batches);
        let expected: Vec<_> = fields.into_iter().map(|(first, second)| vec![first, second]).collect();
        prop_assert_eq!(&rows, &expected);
        prop_assert_eq!(position.rows, expected.len() as u64);
        prop_assert_eq!(position.hash, hash_of(&text));
        prop_assert_eq!(position.lines, text.iter().filter(|&&byte| byte == b'\n').count() as u64);
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("listed")
        .map(|entry| entry.expect("listed").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn write_epoch(files: &EpochFiles, epoch: Epoch, worker: usize, rows: &[Row]) {
    let mut writer = CsvRows::new(files.create(worker).expect("created"), &["id", "name"]).expect("begun");
    for row in rows {
        writer.write(row).expect("written");
    }
    files.prepare(writer.finish().expect("finished"), epoch, worker).expect("prepared");
}

const SEVENTH: &str = "00000000000000000007-0.csv";

#[test]
fn an_epochs_file_shows_once_it_is_committed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = EpochFiles::new(folder.path().join("new/out"), "csv").expect("opened");
    write_epoch(&files, Epoch(7), 0, &[row(1, "one")]);
    assert!(!files.path(Epoch(7), 0).exists());
    files.commit(Epoch(7), 0).expect("committed");
    assert_eq!(fs::read_to_string(files.path(Epoch(7), 0)).expect("there"), "id,name\n1,one\n");
    assert_eq!(names_in(&folder.path().join("new/out")), [SEVENTH]);
}

#[test]
fn an_epoch_written_and_committed_again_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = EpochFiles::new(folder.path(), "csv").expect("opened");
    for _ in 0..2 {
        write_epoch(&files, Epoch(7), 0, &[row(1, "one")]);
        files.commit(Epoch(7), 0).expect("committed");
        files.commit(Epoch(7), 0).expect("told again");
        assert_eq!(fs::read_to_string(files.path(Epoch(7), 0)).expect("there"), "id,name\n1,one\n");
    }
    files.commit(Epoch(8), 0).expect("an epoch without rows has no file");
    assert_eq!(names_in(folder.path()), [SEVENTH]);
}

#[test]
fn recovery_finishes_committed_epochs_of_any_worker_and_removes_later_ones() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = EpochFiles::new(folder.path(), "csv").expect("opened");
    write_epoch(&files, Epoch(7), 0, &[row(1, "one")]);
    write_epoch(&files, Epoch(7), 11, &[row(2, "two")]);
    write_epoch(&files, Epoch(8), 1, &[row(3, "three")]);
    std::mem::forget(files.create(2).expect("begun, and left so by a kill"));
    let others = [".0-0.csv.tmp", ".other.csv.tmp", "begun-0.csv", "notes.csv"];
    others.iter().for_each(|name| fs::write(folder.path().join(name), "").expect("written"));
    files.recover(Epoch(7)).expect("recovered");
    let seventh = [SEVENTH, "00000000000000000007-11.csv"];
    assert_eq!(names_in(folder.path()), [&others[..2], &seventh, &others[2..]].concat());
}

#[test]
fn a_file_of_an_epoch_that_was_never_committed_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = EpochFiles::new(folder.path(), "csv").expect("opened");
    write_epoch(&files, Epoch(7), 0, &[row(1, "one")]);
    files.check(Epoch(0)).expect("what does not show is removed, not refused");
    files.commit(Epoch(7), 0).expect("committed");
    files.check(Epoch(7)).expect("it is committed");
    let error = files.check(Epoch(6)).expect_err("it is of nobody's");
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(error.to_string().contains(SEVENTH), "{error}");
}

#[test]
fn a_file_dropped_half_written_is_removed_and_what_stood_there_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("a.csv");
    fs::write(&target, "before").expect("written");
    let mut file = StagedFile::create(&target).expect("created");
    file.write_all(b"half").expect("written");
    drop(file);
    assert_eq!(names_in(folder.path()), ["a.csv"]);
    assert_eq!(fs::read_to_string(&target).expect("there"), "before");
}

#[test]
fn a_file_published_replaces_what_stood_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("a.jsonl");
    fs::write(&target, "before").expect("written");
    let mut rows = JsonLinesRows::new(StagedFile::create(&target).expect("created"));
    rows.write(&row(1, "o\nne")).expect("written");
    rows.finish().publish().expect("published");
    assert_eq!(fs::read_to_string(&target).expect("there"), "{\"id\":1,\"name\":\"o\\nne\"}\n");
    assert_eq!(names_in(folder.path()), ["a.jsonl"]);
}

#[test]
fn a_row_that_does_not_fit_the_header_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = StagedFile::create(folder.path().join("a.csv")).expect("created");
    let mut rows = CsvRows::new(file, &["id", "name", "more"]).expect("begun");
    let error = rows.write(&row(1, "one")).expect_err("two fields for three columns");
    assert!(error.to_string().ends_with("a.csv: a row has 2 fields, the header 3"), "{error}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for extension in ["", "c/sv"] {
        let error = EpochFiles::new(folder.path(), extension).expect_err("no part of a name");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
