//! The catalogue: which topics there are. A topic exists if and only if it is named here.
//!
//! The file `catalogue` in the log's directory is text, one thing a line, written anew beside itself,
//! synced and renamed with every change, so it is always one whole version:
//!
//! ```text
//! lotic-catalogue 1
//! producer-ids 1000
//! topics-made 2
//! topic orders id=ASNFZ4mrze8BI0VniavN7w partitions=6 cleanup=delete durability=default ...
//! deleting old-orders id=q83vASNFZ4mrze8BI0VniQ partitions=3
//! crc32 89abcdef
//! ```
//!
//! | line | says |
//! |---|---|
//! | first | what the file is, and its version |
//! | `producer-ids` | producer ids below this one may be in use |
//! | `topics-made` | how many topics were ever made here; goes into the ids of new ones |
//! | `topic` | a topic and how it was made |
//! | `deleting` | a topic that is gone and whose directories may still be there |
//! | last | CRC-32 of all bytes before the line, in hexadecimal |

#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::record::TopicId;
use crate::storage::{Storage, SyncPurpose};
use crate::topic::TopicConfig;
use crate::whole_file;

/// The name of its file.
pub(crate) const FILE_NAME: &str = "catalogue";

/// What the log knows to exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    pub(crate) topics: BTreeMap<String, CatalogueEntry>,
    /// Topics whose directories are being removed.
    pub(crate) deleting: BTreeMap<String, DeletedTopic>,
    /// Producer ids below this one may be in use.
    pub(crate) producer_ids_end: i64,
    /// How many topics were ever made.
    pub(crate) topics_made: u64,
}

/// A topic as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogueEntry {
    pub(crate) id: TopicId,
    pub(crate) config: TopicConfig,
}

/// A topic that is gone and whose directories may still be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeletedTopic {
    pub(crate) id: TopicId,
    pub(crate) partitions: i32,
}

impl Catalogue {
    /// The catalogue of `directory`; `None` where there is none.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported` for a later version, those of the operating system.
    pub(crate) fn read(storage: &dyn Storage, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE_NAME);
        let bytes = whole_file::read(storage, &path)
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
        let decode = |bytes: Vec<u8>| text::decode(&bytes).map_err(|error| error.within(path.display()));
        bytes.map(decode).transpose()
    }

    /// Makes this the catalogue of `directory`, durably.
    pub(crate) fn write(&self, storage: &dyn Storage, directory: &Path) -> Result<()> {
        let bytes = text::encode(self);
        whole_file::replace(storage, &directory.join(FILE_NAME), bytes.as_bytes(), SyncPurpose::Catalogue)
            .map(drop)
            .map_err(|error| Error::io(format!("cannot write {FILE_NAME} in {}", directory.display()), error))
    }
}
