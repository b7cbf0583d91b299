//! What DumpLogSegments prints of a file, read back.

use std::path::PathBuf;
use std::str::FromStr;

use crate::failure::Result;

/// A file, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedFile {
    /// Its path.
    pub path: PathBuf,
    /// The batches, if it is a log.
    pub batches: Vec<DumpedBatch>,
    /// Other lines: entries of indexes and snapshots.
    pub lines: Vec<String>,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedBatch {
    line: String,
    /// Its records.
    pub records: Vec<DumpedRecord>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedRecord {
    line: String,
}

impl DumpedBatch {
    /// A field, such as `baseOffset`.
    ///
    /// # Errors
    /// If there is no such field, or it is something else.
    pub fn field<T: FromStr>(&self, name: &str) -> Result<T> {
        field(&self.line, name)
    }
}

impl DumpedRecord {
    /// A field, such as `offset` or `CreateTime`.
    ///
    /// # Errors
    /// If there is no such field, or it is something else.
    pub fn field<T: FromStr>(&self, name: &str) -> Result<T> {
        field(&self.line, name)
    }

    /// The key; `None` if it is null. It holds no space.
    pub fn key(&self) -> Option<&str> {
        let key = self.line.split_once("] key: ")?.1;
        Some(key.split_once(" payload: ").map_or(key, |(key, _)| key))
    }

    /// The value; `None` if it is null.
    pub fn value(&self) -> Option<&str> {
        Some(self.line.split_once(" payload: ")?.1)
    }
}

/// The word behind `name: `.
fn field<T: FromStr>(line: &str, name: &str) -> Result<T> {
    let place = line.find(&format!(" {name}: ")).ok_or_else(|| format!("there is no {name} in: {line}"))?;
    let value = line[place + name.len() + 3..].split(' ').next().unwrap_or_default();
    value.parse().map_err(|_| format!("{name} is no such thing in: {line}").into())
}

/// What was printed, file by file.
///
/// # Errors
/// If a record stands in no batch, or a line in no file.
pub fn dumped_files(stdout: &str) -> Result<Vec<DumpedFile>> {
    let mut files: Vec<DumpedFile> = Vec::new();
    for line in stdout.lines() {
        if let Some(path) = line.strip_prefix("Dumping ") {
            files.push(DumpedFile { path: path.into(), batches: Vec::new(), lines: Vec::new() });
            continue;
        }
        let file = files.last_mut().ok_or("something is printed of no file")?;
        if line.starts_with("baseOffset: ") {
            file.batches.push(DumpedBatch { line: format!(" {line}"), records: Vec::new() });
        } else if let Some(record) = line.strip_prefix('|') {
            let batch = file.batches.last_mut().ok_or("a record stands in no batch")?;
            batch.records.push(DumpedRecord { line: record.to_owned() });
        } else {
            file.lines.push(line.to_owned());
        }
    }
    Ok(files)
}
