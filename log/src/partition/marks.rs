//! What is true of a partition and cannot be read from its batches: where it begins, how far compaction has
//! come, and where it was cut off.
//!
//! The file `marks` in the partition's directory; numbers are big-endian. It is replaced in one piece.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 1; 2 once it was cut off; 3 while a repair cuts it off, 4 while recovery does |
//! | 4..12 | generation | `u64`, one more with every version of the file |
//! | 12..20 | start | `i64`, the offset of the first record that is kept |
//! | 20..28 | clean end | `i64`, up to where each key's newest record is known to be the only one |
//! | 28..36 | rewritten end | `i64`, up to where segments may have been rewritten |
//! | 36..44 | tombstone floor | `i64`, at or behind which tombstones stay; `i64::MAX` without one |
//! | 44..52 | replacement base | `i64`, of the segments that are being replaced; -1 without |
//! | 52..60 | replacement end | `i64`, of the same; -1 without |
//! | 60..64 | cuts | from version 2 on: `u32`, how often it was cut off |
//! | 64..72 | last cut | from version 2 on: `i64`, where it was cut last |
//! | 72..80 | lowest cut | from version 2 on: `i64`, the lowest offset at which it was ever cut |
//! | last 4 | checksum | CRC-32 of the bytes before it |
//!
//! Everything below start and rewritten end was synced when the file was written. Producer snapshots
//! below the rewritten end are not believed: they may speak of a transaction whose marker is gone.
//! A partition without the file was never compacted, and begins with offset 0 unless it comes from elsewhere.
//! While it is being cut off, the last cut counts already and its files are those of before or after: nobody reads
//! them until a version says that it is done.

use std::path::{Path, PathBuf};

use super::PartitionSite;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Offset;
use crate::storage::{Storage, SyncPurpose};
use crate::whole_file;

const FILE_NAME: &str = "marks";
const VERSION: u32 = 1;
const BYTES: usize = 64;
const CUT_VERSION: u32 = 2;
const REPAIRED_VERSION: u32 = 3;
const RECOVERED_VERSION: u32 = 4;
const CUT_BYTES: usize = 84;
const NONE: i64 = -1;
const NO_FLOOR: i64 = i64::MAX;

/// Where a partition begins, and how far compaction has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Counts the versions: who reads files beside their writer looks whether it has changed meanwhile.
    pub(crate) generation: u64,
    /// The offset of the first record that is kept.
    pub(crate) start: Offset,
    /// Below it, the map of a compaction has seen every key.
    pub(crate) clean_end: Offset,
    /// Below it, segments may have been rewritten.
    pub(crate) rewritten_end: Offset,
    /// At or behind it tombstones stay.
    pub(crate) tombstone_floor: Option<Offset>,
    /// The segments that are being replaced by one, or were.
    pub(crate) replacement: Option<Replaced>,
    /// Where it was cut off, so that other records may be behind by now.
    pub(crate) cuts: Option<Cuts>,
    /// Who has not done the last of those yet.
    pub(crate) being_cut: Option<CutBy>,
}

/// Who cuts a partition off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CutBy {
    /// Recovery: what a sync has failed to take, and what is given up with it, though others may have read it.
    Recovery,
    /// A repair, whose note says more.
    Repair,
}

/// Where a partition was cut off though its records may have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cuts {
    /// How often: once or more.
    pub(crate) count: u32,
    /// Where it was cut last.
    pub(crate) last: Offset,
    /// The lowest offset at which it was ever cut.
    pub(crate) lowest: Offset,
}

impl Cuts {
    /// Those of a partition that is cut off at `offset` once more.
    pub(crate) fn and(before: Option<Self>, offset: Offset) -> Self {
        let count = before.map_or(0, |cuts| cuts.count).wrapping_add(1);
        Self { count, last: offset, lowest: before.map_or(offset, |cuts| cuts.lowest.min(offset)) }
    }

    /// From which offset on other records may be in a partition with the cuts `now` than in the same one
    /// when it had the cuts `before`; none if it was not cut off since.
    pub(crate) fn since(before: Option<Self>, now: Option<Self>) -> Option<Offset> {
        let now = now.filter(|_| now != before)?;
        let is_next = now.count == before.map_or(0, |cuts| cuts.count).wrapping_add(1);
        Some(if is_next { now.last } else { now.lowest })
    }
}

/// The range of segments that one takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
}

impl Marks {
    /// The file that they are in.
    pub(crate) fn path(site: &PartitionSite) -> PathBuf {
        site.directory.join(FILE_NAME)
    }

    /// The marks of a partition; the default where there is no file.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`] for a later version, those of the operating system.
    pub(crate) fn read(site: &PartitionSite) -> Result<Self> {
        let marks = Self::read_in(&**site.storage(), &site.directory).map_err(|error| error.within(site))?;
        site.allow_gaps_up_to(marks.rewritten_end);
        Ok(marks)
    }

    /// The marks in a partition's directory.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub(crate) fn read_in(storage: &dyn Storage, directory: &Path) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let read = whole_file::read(storage, &path);
        let read = read.map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
        let Some(bytes) = read else { return Ok(Self::default()) };
        if bytes.len() >= 4 && bytes[..4] > RECOVERED_VERSION.to_be_bytes()[..] && is_whole(&bytes) {
            let what = format!("{} is of a later version than {RECOVERED_VERSION}", path.display());
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let what = || format!("{} is not what was written", path.display());
        Self::decode(&bytes).ok_or_else(|| Error::new(ErrorKind::Corrupt, what()))
    }

    /// Makes these the marks of a partition, durably. Waits for the disk.
    pub(crate) fn write(&self, site: &PartitionSite) -> Result<()> {
        site.begin_writing()?;
        let path = Self::path(site);
        let written = whole_file::replace(&**site.storage(), &path, &self.encode(), SyncPurpose::Marks);
        written.map_err(|error| site.io("write", &path, error))?;
        site.allow_gaps_up_to(self.rewritten_end);
        Ok(())
    }

    /// Says, durably, that the partition is being cut off at `offset`: nobody reads it before [`Self::end_cut`]. Where
    /// this was cut short before, it is one cut all the same.
    pub(crate) fn begin_cut(&mut self, site: &PartitionSite, offset: Offset, by: CutBy) -> Result<()> {
        let changed = self.cut_at(offset, by);
        if changed == *self { Ok(()) } else { self.replace(site, changed) }
    }

    /// Says, durably, that what `by` has cut off is gone, if it was being cut off by that.
    pub(crate) fn end_cut(&mut self, site: &PartitionSite, by: CutBy) -> Result<()> {
        if self.being_cut != Some(by) {
            return Ok(());
        }
        self.replace(site, Self { being_cut: None, ..self.clone() })
    }

    fn replace(&mut self, site: &PartitionSite, changed: Self) -> Result<()> {
        let changed = Self { generation: self.generation + 1, ..changed };
        changed.write(site)?;
        *self = changed;
        Ok(())
    }

    /// Nothing is said any more of what lies behind the cut, but that other records may be there. Nobody has read it
    /// between two cuts of which the first was never done.
    fn cut_at(&self, offset: Offset, by: CutBy) -> Self {
        let cuts = match self.cuts.filter(|_| self.being_cut.is_some()) {
            Some(Cuts { count, last, lowest }) => {
                Cuts { count, last: last.min(offset), lowest: lowest.min(offset) }
            }
            None => Cuts::and(self.cuts, offset),
        };
        Self {
            start: self.start.min(offset),
            clean_end: self.clean_end.min(offset),
            rewritten_end: self.rewritten_end.min(offset),
            replacement: None,
            cuts: Some(cuts),
            // What recovery cuts off in between is part of the repair, which alone knows what else there is to do.
            being_cut: self.being_cut.max(Some(by)),
            ..self.clone()
        }
    }

    /// Up to where everything was synced when these were written.
    pub(crate) fn synced(&self) -> Offset {
        self.start.max(self.rewritten_end)
    }

    fn encode(&self) -> Vec<u8> {
        let replaced = self.replacement.unwrap_or(Replaced { base: Offset(NONE), end: Offset(NONE) });
        let offsets = [
            self.start,
            self.clean_end,
            self.rewritten_end,
            self.tombstone_floor.unwrap_or(Offset(NO_FLOOR)),
            replaced.base,
            replaced.end,
        ];
        let mut bytes = Vec::with_capacity(CUT_BYTES);
        let version = match (self.cuts, self.being_cut) {
            (None, _) => VERSION,
            (Some(_), None) => CUT_VERSION,
            (Some(_), Some(CutBy::Repair)) => REPAIRED_VERSION,
            (Some(_), Some(CutBy::Recovery)) => RECOVERED_VERSION,
        };
        bytes.extend(version.to_be_bytes());
        bytes.extend(self.generation.to_be_bytes());
        offsets.iter().for_each(|offset| bytes.extend(offset.0.to_be_bytes()));
        if let Some(Cuts { count, last, lowest }) = self.cuts {
            bytes.extend(count.to_be_bytes());
            [last, lowest].iter().for_each(|offset| bytes.extend(offset.0.to_be_bytes()));
        }
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let version = u32::from_be_bytes(*bytes.first_chunk()?);
        let (length, being_cut) = match version {
            VERSION => (BYTES, None),
            CUT_VERSION => (CUT_BYTES, None),
            REPAIRED_VERSION => (CUT_BYTES, Some(CutBy::Repair)),
            RECOVERED_VERSION => (CUT_BYTES, Some(CutBy::Recovery)),
            _ => return None,
        };
        if bytes.len() != length || !is_whole(bytes) {
            return None;
        }
        let number = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            i64::from_be_bytes(field)
        };
        let replaced = Replaced { base: Offset(number(44)), end: Offset(number(52)) };
        let cuts = || Cuts {
            // The last half of eight bytes.
            count: number(56) as u32,
            last: Offset(number(64)),
            lowest: Offset(number(72)),
        };
        Some(Self {
            generation: number(4) as u64,
            start: Offset(number(12)),
            clean_end: Offset(number(20)),
            rewritten_end: Offset(number(28)),
            tombstone_floor: Some(Offset(number(36))).filter(|floor| floor.0 != NO_FLOOR),
            replacement: Some(replaced).filter(|replaced| replaced.base.0 != NONE),
            cuts: (version != VERSION).then(cuts),
            being_cut,
        })
    }
}

/// Whether the last four bytes are the checksum of those before.
fn is_whole(bytes: &[u8]) -> bool {
    let split = bytes.split_last_chunk();
    split.is_some_and(|(body, checksum)| *checksum == crc32fast::hash(body).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            generation in any::<u64>(),
            offsets in prop::array::uniform3(0..1i64 << 60),
            floor in prop::option::of(0..1i64 << 60),
            replacement in prop::option::of((0..1i64 << 60, 0..1i64 << 60)),
            cuts in prop::option::of((1..u32::MAX, 0..1i64 << 60, 0..1i64 << 60)),
            being_cut in prop::option::of(prop_oneof![Just(CutBy::Repair), Just(CutBy::Recovery)]),
        ) {
            let marks = Marks {
                generation,
                start: Offset(offsets[0]),
                clean_end: Offset(offsets[1]),
                rewritten_end: Offset(offsets[2]),
                tombstone_floor: floor.map(Offset),
                replacement: replacement.map(|(base, end)| Replaced { base: Offset(base), end: Offset(end) }),
                cuts: cuts.map(|(count, last, lowest)| Cuts {
                    count,
                    last: Offset(last),
                    lowest: Offset(lowest),
                }),
                being_cut: being_cut.filter(|_| cuts.is_some()),
            };
            prop_assert_eq!(Marks::decode(&marks.encode()), Some(marks));
        }
    }

    #[test]
    fn what_is_not_whole_is_not_believed() {
        let cuts = Some(Cuts::and(None, Offset(5)));
        let being_cut =
            [(None, None), (cuts, None), (cuts, Some(CutBy::Repair)), (cuts, Some(CutBy::Recovery))];
        for (cuts, being_cut) in being_cut {
            let bytes = Marks { start: Offset(7), cuts, being_cut, ..Marks::default() }.encode();
            for length in 0..bytes.len() {
                assert_eq!(Marks::decode(&bytes[..length]), None);
            }
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Marks::decode(&bytes), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn who_has_missed_one_cut_knows_where_it_was_and_who_has_missed_several_the_lowest_of_all() {
        let cut = |before, offset| Some(Cuts::and(before, Offset(offset)));
        let first = cut(None, 10);
        let second = cut(first, 30);
        let third = cut(second, 20);
        assert_eq!(Cuts::since(None, None), None);
        assert_eq!(Cuts::since(second, second), None);
        assert_eq!(Cuts::since(None, first), Some(Offset(10)));
        assert_eq!(Cuts::since(first, second), Some(Offset(30)));
        assert_eq!(Cuts::since(second, third), Some(Offset(20)));
        assert_eq!(Cuts::since(first, third), Some(Offset(10)));
    }

    #[test]
    fn a_cut_that_was_cut_short_and_is_made_again_further_down_counts_as_one_at_the_lower_offset() {
        let once = Marks::default().cut_at(Offset(30), CutBy::Recovery);
        let done = Marks { being_cut: None, ..once.clone() };
        for by in [CutBy::Recovery, CutBy::Repair] {
            let again = once.cut_at(Offset(20), by);
            assert_eq!(again.cuts, Some(Cuts { count: 1, last: Offset(20), lowest: Offset(20) }));
            assert_eq!(again.being_cut, Some(by));
            let higher = again.cut_at(Offset(25), CutBy::Recovery);
            assert_eq!(higher, again, "what was to be done is to be done still");
            let twice = done.cut_at(Offset(40), by).cuts;
            assert_eq!(twice, Some(Cuts { count: 2, last: Offset(40), lowest: Offset(30) }));
        }
    }
}
