//! The names of the files in a partition's directory, as Kafka gives them: twenty digits of an offset
//! and what kind of file it is.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::record::Offset;
use crate::storage::Storage;

/// What a file of a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// Record batches.
    Log,
    /// Where batches begin, by offset.
    OffsetIndex,
    /// From which offset on timestamps may be as large, by time.
    TimeIndex,
    /// Aborted transactions.
    TransactionIndex,
    /// What the indexes held when they were last written out; ours alone.
    IndexSum,
    /// What the partition knew of its producers when its end was this offset.
    Snapshot,
}

impl FileKind {
    const ALL: [Self; 6] = [
        Self::Log,
        Self::OffsetIndex,
        Self::TimeIndex,
        Self::TransactionIndex,
        Self::IndexSum,
        Self::Snapshot,
    ];

    fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::OffsetIndex => "index",
            Self::TimeIndex => "timeindex",
            Self::TransactionIndex => "txnindex",
            Self::IndexSum => "sum",
            Self::Snapshot => "snapshot",
        }
    }

    /// The file of this kind that belongs to `offset`.
    pub(crate) fn path(self, directory: &Path, offset: Offset) -> PathBuf {
        directory.join(format!("{:020}.{}", offset.0, self.extension()))
    }

    /// The same file on its way to that name.
    pub(crate) fn path_at(self, directory: &Path, offset: Offset, stage: Stage) -> PathBuf {
        let mut name = self.path(directory, offset).into_os_string();
        name.push(".");
        name.push(stage.extension());
        name.into()
    }

    /// What a file's name says; `None` for a file that is none of these.
    pub(crate) fn parse(name: &str) -> Option<(Offset, Self)> {
        let (digits, extension) = name.split_once('.')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        let is_offset = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        Some((Offset(is_offset.then(|| digits.parse().ok())??), kind))
    }
}

/// How far the file of a segment that replaces others has come; see `partition/replace.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is being written, or nobody has decided yet that it takes the place of the others.
    Cleaned,
    /// It takes the place of the others.
    Swap,
}

impl Stage {
    fn extension(self) -> &'static str {
        match self {
            Self::Cleaned => "cleaned",
            Self::Swap => "swap",
        }
    }

    /// The file that a name speaks of and how far it has come; `None` for any other name.
    pub(crate) fn parse(name: &str) -> Option<(Offset, FileKind, Self)> {
        let (whole, extension) = name.rsplit_once('.')?;
        let stage = [Self::Cleaned, Self::Swap].into_iter().find(|stage| stage.extension() == extension)?;
        let (offset, kind) = FileKind::parse(whole)?;
        Some((offset, kind, stage))
    }
}

/// The extension, behind that of a log file, of bytes that recovery cut off and kept aside.
pub(crate) const TORN_EXTENSION: &str = "torn";

/// The extension of a file that is not whole yet; recovery removes it.
pub(crate) const PART_EXTENSION: &str = "part";

/// What there is in a partition's directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The base offsets of the segments, ascending.
    pub(crate) segments: Vec<Offset>,
    /// The offsets of the producer snapshots, ascending.
    pub(crate) snapshots: Vec<Offset>,
    /// Index files by the segment they belong to.
    indexes: BTreeMap<Offset, Vec<FileKind>>,
    /// Files that never became whole.
    unfinished: Vec<String>,
    /// Segments that lie before the start of the partition.
    outdated: Vec<Offset>,
    /// The logs that are to replace segments, and how far they have come.
    pub(crate) replacing: Vec<(Offset, Stage)>,
}

impl Listing {
    /// Reads the directory.
    pub(crate) fn read(storage: &dyn Storage, directory: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in storage.list(directory)? {
            match FileKind::parse(&entry.name) {
                Some((base, FileKind::Log)) => listing.segments.push(base),
                Some((offset, FileKind::Snapshot)) => listing.snapshots.push(offset),
                Some((base, kind)) => listing.indexes.entry(base).or_default().push(kind),
                None if is_unfinished(&entry.name) => listing.unfinished.push(entry.name),
                None => {
                    let staged = Stage::parse(&entry.name).filter(|(_, kind, _)| *kind == FileKind::Log);
                    listing.replacing.extend(staged.map(|(base, _, stage)| (base, stage)));
                }
            }
        }
        listing.segments.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }

    /// Passes over the segments of which no record is at or behind `start`. They were to be removed.
    pub(crate) fn begin_at(mut self, start: Offset) -> Self {
        let kept = self.segments.partition_point(|base| *base <= start).saturating_sub(1);
        self.outdated.extend(self.segments.drain(..kept));
        self
    }

    /// Whether the segment has the indexes that every sealed segment has, and the note of what they hold.
    pub(crate) fn is_indexed(&self, base: Offset) -> bool {
        let needed = [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::IndexSum];
        self.indexes.get(&base).is_some_and(|kinds| needed.iter().all(|kind| kinds.contains(kind)))
    }

    /// Index files whose segment is not among `segments`, segments before the start, and files that never
    /// became whole.
    pub(crate) fn strays(&self, directory: &Path, segments: &[Offset]) -> Vec<PathBuf> {
        let orphans = self.indexes.iter().filter(|(base, _)| segments.binary_search(base).is_err());
        let orphans = orphans.flat_map(|(base, kinds)| kinds.iter().map(|kind| kind.path(directory, *base)));
        let unfinished = self.unfinished.iter().map(|name| directory.join(name));
        let outdated = self.outdated.iter().map(|base| FileKind::Log.path(directory, *base));
        orphans.chain(unfinished).chain(outdated).collect()
    }
}

/// Whether recovery was making this file when it was cut short, or cutting the log off: `<base>.log.torn.part`, or with
/// a number.
fn is_unfinished(name: &str) -> bool {
    let whole = name.strip_suffix(PART_EXTENSION).and_then(|name| name.strip_suffix('.'));
    let log = whole.and_then(|name| name.rsplit_once('.'));
    log.is_some_and(|(log, extension)| {
        extension.starts_with(TORN_EXTENSION)
            && FileKind::parse(log).is_some_and(|(_, kind)| kind == FileKind::Log)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_its_path_was_made_from() {
        for kind in FileKind::ALL {
            let path = kind.path(Path::new("topic-0"), Offset(1234));
            let name = path.file_name().and_then(|name| name.to_str()).expect("the name is text");
            assert!(name.starts_with("00000000000000001234."));
            assert_eq!(FileKind::parse(name), Some((Offset(1234), kind)));
        }
    }

    #[test]
    fn other_names_are_none_of_ours() {
        for name in [
            "partition.metadata",
            "1234.log",
            "00000000000000001234.log.torn",
            "+0000000000000001234.log",
            "99999999999999999999.log",
        ] {
            assert_eq!(FileKind::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_says_how_far_a_replacement_has_come() {
        for kind in FileKind::ALL {
            for stage in [Stage::Cleaned, Stage::Swap] {
                let path = kind.path_at(Path::new("topic-0"), Offset(1234), stage);
                let name = path.file_name().and_then(|name| name.to_str()).expect("the name is text");
                assert_eq!(Stage::parse(name), Some((Offset(1234), kind, stage)));
                assert_eq!(FileKind::parse(name), None);
            }
        }
        for name in ["00000000000000001234.log", "notes.swap", "1234.log.cleaned"] {
            assert_eq!(Stage::parse(name), None, "{name}");
        }
    }

    #[test]
    fn only_what_recovery_was_making_is_unfinished() {
        for name in ["00000000000000001234.log.torn.part", "00000000000000001234.log.torn-2.part"] {
            assert!(is_unfinished(name), "{name}");
        }
        for name in ["notes.part", "depart", "part", "00000000000000001234.log.torn", "1234.log.torn.part"] {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
