//! A broker's checkpoint files: an offset for each partition, as text.
//!
//! ```text
//! 0
//! 2
//! orders 0 1234
//! orders 1 1198
//! ```
//!
//! The first line is the version, the second the number of entries that follow: topic, partition, offset.
//! From the source, Kafka's `OffsetCheckpointFile`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::record::{Offset, PartitionId, TopicPartition};
use crate::storage::Storage;
use crate::whole_file;

const VERSION: &str = "0";

/// Offsets by partition.
pub(super) type Checkpoint = BTreeMap<TopicPartition, Offset>;

/// Reads a checkpoint file; nothing where there is none.
///
/// # Errors
/// [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`] for a later version; those of the operating system.
pub(super) fn read(storage: &dyn Storage, path: &Path) -> Result<Checkpoint> {
    let bytes = whole_file::read(storage, path)
        .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    let Some(bytes) = bytes else { return Ok(Checkpoint::new()) };
    let text = String::from_utf8_lossy(&bytes);
    if let Some(version) = text.lines().next()
        && version != VERSION
    {
        let what = format!("{} is of version {version}, not {VERSION}", path.display());
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    parse(&text).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, format!("{} is no whole checkpoint file", path.display()))
    })
}

/// `None` for text that is not whole. A broker begins with an empty file.
fn parse(text: &str) -> Option<Checkpoint> {
    if text.is_empty() {
        return Some(Checkpoint::new());
    }
    let mut lines = text.lines().skip(1);
    let count: usize = lines.next()?.parse().ok()?;
    let entries: Checkpoint = lines.by_ref().take(count).map(parse_entry).collect::<Option<_>>()?;
    (entries.len() == count && lines.all(str::is_empty)).then_some(entries)
}

fn parse_entry(line: &str) -> Option<(TopicPartition, Offset)> {
    let mut words = line.split_whitespace();
    let (topic, partition, offset) =
        (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then(|| (TopicPartition::new(topic, PartitionId(partition)), Offset(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a broker of Kafka 4.3.1 writes it.
    #[test]
    fn a_brokers_checkpoint_is_read() {
        let text = "0\n2\n__transaction_state 0 8\nplain 0 6\n";
        let entry = |topic, offset| (TopicPartition::new(topic, PartitionId(0)), Offset(offset));
        assert_eq!(parse(text), Some(Checkpoint::from([entry("__transaction_state", 8), entry("plain", 6)])));
        assert_eq!(parse("0\n0\n"), Some(Checkpoint::new()));
        assert_eq!(parse(""), Some(Checkpoint::new()));
    }

    #[test]
    fn a_checkpoint_that_is_cut_off_or_goes_on_is_not_whole() {
        for text in
            ["0\n", "0\n2\nplain 0 6\n", "0\n1\nplain 0\n", "0\n1\nplain 0 6 7\n", "0\n0\nplain 0 6\n"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
