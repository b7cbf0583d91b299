//! `partition.metadata`: which topic a partition's directory belongs to, as Kafka writes it down.
//!
//! ```text
//! version: 0
//! topic_id: <22 characters of URL-safe base64>
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::PartitionSite;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicId;
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::whole_file;

pub(crate) const FILE_NAME: &str = "partition.metadata";

/// More than such a file ever holds.
const BYTES_MAX: usize = 256;

fn path(site: &PartitionSite) -> PathBuf {
    site.directory.join(FILE_NAME)
}

/// Writes and syncs the file of a new partition; its name is durable once the directory is synced.
pub(super) fn create(site: &PartitionSite) -> Result<()> {
    let path = path(site);
    let text = text(site);
    let write = || -> io::Result<()> {
        let file = site.storage().open(&path, OpenMode::Create)?;
        file.write_at(0, text.as_bytes())?;
        file.sync(SyncPurpose::Directory).wait()
    };
    write().map_err(|error| site.io("write", &path, error))
}

/// Writes the file, whatever is there, durably.
pub(crate) fn write(site: &PartitionSite) -> Result<()> {
    let path = path(site);
    let written =
        whole_file::replace(&**site.storage(), &path, text(site).as_bytes(), SyncPurpose::Directory);
    written.map(drop).map_err(|error| site.io("write", &path, error))
}

fn text(site: &PartitionSite) -> String {
    format!("version: 0\ntopic_id: {}\n", site.topic_id)
}

/// The id of the topic that a partition's directory belongs to, from the file at `path`.
pub(crate) fn read_topic_id(storage: &dyn Storage, path: &Path) -> Result<TopicId> {
    let text =
        read(storage, path).map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    parse(&text).ok_or_else(|| {
        let what = format!("{} is not a partition.metadata of version 0", path.display());
        Error::new(ErrorKind::Corrupt, what)
    })
}

/// Checks that the directory is that of this topic, not of one of the same name that was deleted.
pub(super) fn check(site: &PartitionSite) -> Result<()> {
    let path = path(site);
    let text = read(&**site.storage(), &path).map_err(|error| site.io("read", &path, error))?;
    match parse(&text) {
        Some(id) if id == site.topic_id => Ok(()),
        Some(id) => {
            let what = format!("its directory belongs to topic id {id}, not {}", site.topic_id);
            Err(site.error(ErrorKind::Invalid, what))
        }
        None => {
            let what = format!("{} is not a partition.metadata of version 0", path.display());
            Err(site.error(ErrorKind::Corrupt, what))
        }
    }
}

fn read(storage: &dyn Storage, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BYTES_MAX];
    let read = storage.open(path, OpenMode::Read)?.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<TopicId> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    let version = lines.next()?.strip_prefix("version:")?.trim();
    let id = lines.next()?.strip_prefix("topic_id:")?.trim();
    (version == "0").then(|| id.parse().ok())?
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn kafkas_text_is_read_with_and_without_a_last_newline() {
        let id = TopicId(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
        // From `python3 -c "import base64; print(base64.urlsafe_b64encode(bytes.fromhex('0123456789abcdef'*2)))"`.
        for text in
            ["version: 0\ntopic_id: ASNFZ4mrze8BI0VniavN7w", "version: 0\ntopic_id: ASNFZ4mrze8BI0VniavN7w\n"]
        {
            assert_eq!(parse(text.as_bytes()), Some(id));
        }
        assert_eq!(parse(b"version: 1\ntopic_id: ASNFZ4mrze8BI0VniavN7w\n"), None);
        assert_eq!(parse(b""), None);
    }
}
