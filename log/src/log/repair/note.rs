//! What was decided about cutting a partition off. With this note durable the cut is decided: it is carried
//! out, by whoever repairs or opens the log next if need be, and opening the log ends transactions as the
//! note says, whatever was decided of them. Once that is durable the note goes.
//!
//! ```text
//!   (none) -- decided --> ToBeCut -- log cut, synced --> Cut -- log opened, markers synced --> (none)
//!                                                         \-- no transaction to be ended ----^
//! ```
//!
//! A note that somebody removes before the cut is done is made again, as `Cut`, by whoever opens the log next or
//! repairs it: with the end of the log as it is by then, and every transaction that is open there to be aborted.
//!
//! What becomes of a transaction may rest on bytes that count no more if the log goes back to its last consistent cut
//! when it is opened, as it does after a power cut: on its marker, which nobody had synced, or on damage that may be
//! a torn end. It is in *doubt* then. Where the log goes back, it ends as is decided in what is left of the table;
//! where it does not, it ends as the note says. The first to open the log settles that before anything is made of the
//! transactions: in a log that goes back while whoever opens it next goes back too, in another once all of it is
//! durable and nobody does.
//!
//! The marks say that the partition is being cut from within `ToBeCut` until `Cut` is written. So however often it is
//! cut short, and wherever, they count it once.
//!
//! The file `cut` in the partition's directory; numbers are big-endian. It is replaced in one piece.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | version | `u32`, 1; 2 where a fate is in doubt |
//! | 4..8 | stage | `u32`, 0 to be cut, 1 cut |
//! | 8..16 | asked | `i64`, the offset at which a cut was asked for |
//! | 16..24 | offset | `i64`, the end of the log from then on |
//! | 24..32 | base | `i64`, of the segment whose file is cut |
//! | 32..40 | position | `u64`, where in that file |
//! | 40..44 | folder | `u32`, the number of the folder of what is cut off; 0 without |
//! | 44..48 | count | `u32`, how many transactions follow |
//! | 48.. | transactions | 11 bytes each: producer id (`i64`), epoch (`i16`), fate (`u8`) |
//! | last 4 | checksum | CRC-32 of the bytes before it |
//!
//! Fates: 0 lost, 1 aborted, 2 unmarked, 3 marked again as committed, 4 marked again as aborted; 128 more where it is
//! in doubt.

use std::io;
use std::path::{Path, PathBuf};

use super::survey::Cut;
use super::{TouchedTransaction, TransactionFate, failed};
use crate::batch::MarkerKind;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{FileKind, Listing};
use crate::message_reader::MessageReader;
use crate::partition::PartitionSite;
use crate::producer_state::OpenTransaction;
use crate::record::{Offset, ProducerEpoch, ProducerId};
use crate::storage::{OpenMode, SyncPurpose};
use crate::transaction::Endings;
use crate::whole_file;

const FILE_NAME: &str = "cut";
const VERSION: u32 = 1;
const DOUBT_VERSION: u32 = 2;

/// What a fate that is in doubt has more.
const DOUBT: u8 = 128;

/// What the folder of what was cut off is called; the offset of the cut follows, and a number if there is
/// one already.
pub(super) const KEPT_PREFIX: &str = "cut-at-";

/// How far a cut has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is decided.
    ToBeCut,
    /// The log ends where it was cut. Transactions are to be ended.
    Cut,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CutNote {
    pub(super) stage: Stage,
    /// Where a cut was asked for.
    pub(super) asked: Offset,
    pub(super) cut: Cut,
    /// Which folder holds what is cut off, of those for the same offset; none if nothing is.
    pub(super) folder: Option<u32>,
    pub(super) transactions: Vec<Noted>,
}

/// What becomes of a transaction, as it is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) touched: TouchedTransaction,
    /// Whether it is [unmarked](TransactionFate::Unmarked) instead where the log goes back.
    pub(super) is_doubtful: bool,
}

impl Noted {
    pub(super) fn certain(touched: TouchedTransaction) -> Self {
        Self { touched, is_doubtful: false }
    }

    /// What becomes of it in a log that goes back, or does not.
    pub(super) fn settled(self, goes_back: bool) -> Self {
        let is_unmarked = goes_back && self.is_doubtful;
        let fate = if is_unmarked { TransactionFate::Unmarked } else { self.touched.fate };
        Self::certain(TouchedTransaction { fate, ..self.touched })
    }
}

impl CutNote {
    /// The note of a cut of which no more is known than that it was cut short, and that the log ends at `end` with
    /// these transactions open.
    pub(super) fn of_lost(site: &PartitionSite, end: Offset, open: &[OpenTransaction]) -> Result<Self> {
        let storage = &**site.storage();
        let last = || -> io::Result<Cut> {
            let base = Listing::read(storage, &site.directory)?.segments.last().copied().unwrap_or(end);
            let position = storage.open(&FileKind::Log.path(&site.directory, base), OpenMode::Read)?.len()?;
            Ok(Cut { base, position, offset: end })
        };
        let cut = last().map_err(|error| failed(site, "look for the end of the log in", error))?;
        let halved = |open: &OpenTransaction| Noted::certain(open.touched(TransactionFate::Aborted));
        let transactions = open.iter().map(halved).collect();
        Ok(Self { stage: Stage::Cut, asked: end, cut, folder: None, transactions })
    }

    /// Where it is.
    pub(super) fn path(site: &PartitionSite) -> PathBuf {
        site.directory.join(FILE_NAME)
    }

    /// The note in a partition's directory, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`] for a later version; those of the operating system.
    pub(super) fn read(site: &PartitionSite) -> Result<Option<Self>> {
        let path = Self::path(site);
        let bytes =
            whole_file::read(&**site.storage(), &path).map_err(|error| site.io("read", &path, error))?;
        bytes.map(|bytes| decode(&bytes).map_err(|error| error.within(path.display()))).transpose()
    }

    /// Makes this the note of a partition, durably.
    pub(super) fn write(&self, site: &PartitionSite) -> Result<()> {
        let path = Self::path(site);
        let written = whole_file::replace(&**site.storage(), &path, &self.encode(), SyncPurpose::Marks);
        written.map(drop).map_err(|error| site.io("write", &path, error))
    }

    /// Removes the note of a partition, durably: all that it says is done.
    pub(super) fn remove(site: &PartitionSite) -> Result<()> {
        let path = Self::path(site);
        let removed = match site.storage().remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        let removed = removed.and_then(|()| site.storage().sync_dir(&site.directory, SyncPurpose::Marks));
        removed.map_err(|error| site.io("remove", &path, error))
    }

    /// How transactions end that are open still.
    pub(super) fn endings(&self) -> Endings {
        let ending = |Noted { touched, .. }: &Noted| {
            let kind = match touched.fate {
                TransactionFate::Aborted => MarkerKind::Abort,
                TransactionFate::MarkedAgain(kind) => kind,
                TransactionFate::Lost | TransactionFate::Unmarked => return None,
            };
            Some(((touched.producer_id, touched.producer_epoch), kind))
        };
        self.transactions.iter().filter_map(ending).collect()
    }

    /// What becomes of a transaction that is open.
    pub(super) fn fate(&self, open: &OpenTransaction) -> Option<Noted> {
        let is_it = |Noted { touched, .. }: &&Noted| {
            (touched.producer_id, touched.producer_epoch) == (open.producer_id, open.producer_epoch)
        };
        self.transactions.iter().find(is_it).copied()
    }

    /// Nothing is in doubt any more: the log goes back, or does not.
    pub(super) fn settle(&mut self, site: &PartitionSite, goes_back: bool) -> Result<()> {
        if !self.is_doubtful() {
            return Ok(());
        }
        self.transactions.iter_mut().for_each(|noted| *noted = noted.settled(goes_back));
        self.write(site)
    }

    fn is_doubtful(&self) -> bool {
        self.transactions.iter().any(|noted| noted.is_doubtful)
    }

    /// The folder of what is cut off.
    pub(super) fn folder(&self, site: &PartitionSite) -> Option<PathBuf> {
        self.folder.map(|number| folder(&site.directory, self.cut.offset, number))
    }

    fn encode(&self) -> Vec<u8> {
        let Cut { base, position, offset } = self.cut;
        let mut out = Vec::new();
        let version = if self.is_doubtful() { DOUBT_VERSION } else { VERSION };
        out.extend(version.to_be_bytes());
        let stage: u32 = if self.stage == Stage::ToBeCut { 0 } else { 1 };
        out.extend(stage.to_be_bytes());
        [self.asked, offset, base].iter().for_each(|offset| out.extend(offset.0.to_be_bytes()));
        out.extend(position.to_be_bytes());
        out.extend(self.folder.unwrap_or(0).to_be_bytes());
        out.extend((self.transactions.len() as u32).to_be_bytes());
        for Noted { touched, is_doubtful } in &self.transactions {
            out.extend(touched.producer_id.0.to_be_bytes());
            out.extend(touched.producer_epoch.0.to_be_bytes());
            out.push(fate_id(touched.fate) + if *is_doubtful { DOUBT } else { 0 });
        }
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out
    }
}

/// The folder of this number of what is cut off at an offset.
pub(super) fn folder(directory: &Path, cut: Offset, number: u32) -> PathBuf {
    let name = format!("{KEPT_PREFIX}{:020}", cut.0);
    directory.join(if number == 1 { name } else { format!("{name}-{number}") })
}

fn fate_id(fate: TransactionFate) -> u8 {
    match fate {
        TransactionFate::Lost => 0,
        TransactionFate::Aborted => 1,
        TransactionFate::Unmarked => 2,
        TransactionFate::MarkedAgain(MarkerKind::Commit) => 3,
        TransactionFate::MarkedAgain(MarkerKind::Abort) => 4,
    }
}

fn decode(bytes: &[u8]) -> Result<CutNote> {
    let whole = bytes.split_last_chunk().filter(|(body, checksum)| {
        let checksum: &[u8; 4] = checksum;
        *checksum == crc32fast::hash(body).to_be_bytes()
    });
    let Some((body, _)) = whole else {
        return Err(Error::new(ErrorKind::Corrupt, "the note of a cut is not what was written"));
    };
    if body.first_chunk().is_some_and(|version| u32::from_be_bytes(*version) > DOUBT_VERSION) {
        return Err(Error::new(ErrorKind::Unsupported, "the note of a cut is of a later version"));
    }
    decode_body(body).ok_or_else(|| Error::new(ErrorKind::Corrupt, "the note of a cut cannot be read"))
}

fn decode_body(body: &[u8]) -> Option<CutNote> {
    let mut input = MessageReader::new(body);
    if ![VERSION, DOUBT_VERSION].contains(&u32::try_from(input.i32()?).ok()?) {
        return None;
    }
    let stage = match input.i32()? {
        0 => Stage::ToBeCut,
        1 => Stage::Cut,
        _ => return None,
    };
    let asked = Offset(input.i64()?);
    let offset = Offset(input.i64()?);
    let base = Offset(input.i64()?);
    let position = u64::try_from(input.i64()?).ok()?;
    let folder = Some(input.i32()? as u32).filter(|number| *number > 0);
    let count = input.i32()?;
    let transactions: Option<Vec<_>> = (0..count).map(|_| decode_transaction(&mut input)).collect();
    let cut = Cut { base, position, offset };
    Some(CutNote { stage, asked, cut, folder, transactions: transactions? })
}

fn decode_transaction(input: &mut MessageReader<'_>) -> Option<Noted> {
    let (producer_id, producer_epoch) = (ProducerId(input.i64()?), ProducerEpoch(input.i16()?));
    let fate = input.take(1)?[0];
    let is_doubtful = fate >= DOUBT;
    let fate = match fate % DOUBT {
        0 => TransactionFate::Lost,
        1 => TransactionFate::Aborted,
        2 => TransactionFate::Unmarked,
        3 => TransactionFate::MarkedAgain(MarkerKind::Commit),
        4 => TransactionFate::MarkedAgain(MarkerKind::Abort),
        _ => return None,
    };
    Some(Noted { touched: TouchedTransaction { producer_id, producer_epoch, fate }, is_doubtful })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(stage: Stage, folder: Option<u32>) -> CutNote {
        let fates = [
            TransactionFate::Lost,
            TransactionFate::Aborted,
            TransactionFate::Unmarked,
            TransactionFate::MarkedAgain(MarkerKind::Commit),
            TransactionFate::MarkedAgain(MarkerKind::Abort),
        ];
        let noted = |(number, fate): (usize, TransactionFate)| {
            Noted::certain(TouchedTransaction {
                producer_id: ProducerId(1 << (8 * number)),
                producer_epoch: ProducerEpoch(number as i16),
                fate,
            })
        };
        CutNote {
            stage,
            asked: Offset(1 << 40),
            cut: Cut { base: Offset(3), position: 1 << 33, offset: Offset(5) },
            folder,
            transactions: fates.into_iter().enumerate().map(noted).collect(),
        }
    }

    fn in_doubt(mut note: CutNote) -> CutNote {
        note.transactions.iter_mut().for_each(|noted| noted.is_doubtful = true);
        note
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_whole_is_corrupt() {
        for note in [note(Stage::ToBeCut, Some(2)), note(Stage::Cut, None), in_doubt(note(Stage::Cut, None))]
        {
            let bytes = note.encode();
            assert_eq!(decode(&bytes).expect("it is whole"), note);
            for length in 0..bytes.len() {
                assert_eq!(decode(&bytes[..length]).expect_err("it is cut").kind(), ErrorKind::Corrupt);
            }
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&bytes).expect_err("it is damaged").kind(), ErrorKind::Corrupt);
            }
        }
    }

    #[test]
    fn what_is_halved_ends_aborted_and_what_lost_its_marker_as_that_said() {
        let endings = note(Stage::Cut, None).endings();
        let ended: Vec<_> = endings.into_values().collect();
        assert_eq!(ended, [MarkerKind::Abort, MarkerKind::Commit, MarkerKind::Abort]);
    }

    #[test]
    fn what_is_in_doubt_ends_as_is_decided_where_the_log_goes_back() {
        let fates = |goes_back: bool| {
            let settled = in_doubt(note(Stage::Cut, None)).transactions.into_iter();
            settled.map(|noted| noted.settled(goes_back).touched.fate).collect::<Vec<_>>()
        };
        let noted: Vec<_> =
            note(Stage::Cut, None).transactions.iter().map(|noted| noted.touched.fate).collect();
        assert_eq!(fates(false), noted);
        assert_eq!(fates(true), [TransactionFate::Unmarked; 5]);
    }

    #[test]
    fn a_note_in_which_nothing_is_in_doubt_is_one_of_the_first_version() {
        assert_eq!(note(Stage::Cut, None).encode()[..4], VERSION.to_be_bytes());
        assert_eq!(in_doubt(note(Stage::Cut, None)).encode()[..4], DOUBT_VERSION.to_be_bytes());
    }
}
