//! How far a source of files has come: what the epoch record keeps of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::files::FilePosition;

/// How far each file was read, by canonical path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilesRead {
    pub(super) files: BTreeMap<String, FileRead>,
}

/// How far one file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRead {
    /// All rows before this place were.
    pub(super) position: FilePosition,
    /// Where rows come in order of time: of the part behind that place, how much was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sorted: Option<SortedRead>,
}

/// A part of a file that is being read in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SortedRead {
    /// Where the part ends.
    pub(super) end: FilePosition,
    /// How many of its rows were read, in that order.
    pub(super) rows: u64,
}

impl FileRead {
    /// All rows before `position`, none behind.
    pub(super) fn up_to(position: FilePosition) -> Self {
        Self { position, sorted: None }
    }
}
