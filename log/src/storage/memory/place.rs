//! Where in the code a sync is asked for, and of what.

use std::fmt;
use std::path::Path;

use super::super::{SyncPurpose, SyncReason};

/// Tells one sync of a purpose from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyncPlace {
    /// What the sync is for.
    pub purpose: SyncPurpose,
    /// The source file that says so.
    pub file: &'static str,
    /// The line in it.
    pub line: u32,
    /// What is synced, as its name says. Numbers are `#`, and a next version is named as the file that it replaces; a
    /// directory is `partition/`, `import/` (a partition that is being imported), `cut/` (what a repair keeps), `/`,
    /// or `log/`.
    pub of: String,
}

impl SyncPlace {
    pub(super) fn new(reason: SyncReason, of: String) -> Self {
        let SyncReason { purpose, place } = reason;
        Self { purpose, file: place.file(), line: place.line(), of }
    }
}

impl fmt::Display for SyncPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { purpose, file, line, of } = self;
        write!(f, "{purpose:?} of {of} at {file}:{line}")
    }
}

/// What a path names, but for the numbers in it and the name of a topic.
pub(super) fn kind_of(path: &Path, is_directory: bool) -> String {
    let mut kind = String::new();
    for char in path.file_name().unwrap_or_default().to_string_lossy().chars() {
        if !char.is_ascii_digit() {
            kind.push(char);
        } else if !kind.ends_with('#') {
            kind.push('#');
        }
    }
    if !is_directory {
        // What is written beside a file to replace it is that file.
        return kind.strip_suffix(".new").unwrap_or(&kind).to_owned();
    }
    let kind = match &*kind {
        "" => "",
        kind if kind.ends_with("-import") => "import",
        kind if kind.starts_with("cut-at-") => "cut",
        kind if kind.ends_with("-#") => "partition",
        _ => "log",
    };
    format!("{kind}/")
}
