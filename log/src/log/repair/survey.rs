//! What there is before the cut, which has to be sound, and what is lost behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::note::{CutNote, Noted};
use super::{RepairReport, TouchedTransaction, TransactionFate, failed};
use crate::batch::{MarkerKind, RecordBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{FileKind, Listing};
use crate::partition::PartitionSite;
use crate::partition::marks::Marks;
use crate::producer_state::{OpenTransaction, ProducerStates};
use crate::record::{Offset, ProducerEpoch, ProducerId};
use crate::scanner::{BatchPlace, ReadError, Scanner};
use crate::sound_batches::{SoundBatch, SoundBatches};
use crate::storage::{OpenMode, StorageFile};

/// Where the log is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The segment whose file is cut.
    pub(super) base: Offset,
    /// Where in that file.
    pub(super) position: u64,
    /// The end of the log from then on.
    pub(super) offset: Offset,
}

impl Cut {
    pub(super) fn file(&self, site: &PartitionSite) -> PathBuf {
        FileKind::Log.path(&site.directory, self.base)
    }
}

/// What is known of a partition beside its batches.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The note of an earlier cut, of which transactions are to be ended still.
    pub(super) before: Option<&'a CutNote>,
    /// Everything before it was synced, as far as no cut has lowered that: what is missing there is lost.
    pub(super) synced: Offset,
    /// None where the log goes back in no case.
    pub(super) doubt: Option<Doubt>,
}

/// What of a partition counts no more if its log goes back to its last consistent cut when it is opened:
/// nothing at or behind what was synced. What is bad there is the torn end of the log then, and no damage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    /// Whether a marker counts all the same: it says what somebody had synced.
    pub(super) believes_markers: bool,
}

/// What is known of a partition that is to be cut.
pub(super) struct Survey {
    pub(super) cut: Cut,
    /// Bytes of the file that is cut, from the cut on.
    pub(super) tail_bytes: u64,
    /// Whether that file is missing.
    lacks_file: bool,
    /// The segments behind it.
    beyond: Vec<Offset>,
    /// The transactions that are open at the cut, and what an earlier cut has made of them.
    open: Vec<(OpenTransaction, Option<Noted>)>,
    /// Where that one was made: what is behind it was written since, and is no record of theirs.
    cut_before: Option<Offset>,
    synced: Offset,
    doubt: Option<Doubt>,
    lost: Lost,
}

/// What is behind the cut.
#[derive(Default)]
struct Lost {
    bytes: u64,
    sound_bytes: u64,
    /// What the first bytes may have been that are no sound batch, or are missing.
    first_bad: Option<Offset>,
    batches: u64,
    records: u64,
    upto: Option<Offset>,
    /// The transactions with records there.
    transactions: BTreeSet<(ProducerId, ProducerEpoch)>,
    /// Of each producer with transactions the first batch there: what it says if it is a marker. Before the
    /// producer has written anything else it ends what is open at the cut.
    first: BTreeMap<ProducerId, Option<FoundMarker>>,
}

/// A marker that is behind the cut.
#[derive(Clone, Copy)]
struct FoundMarker {
    offset: Offset,
    epoch: ProducerEpoch,
    kind: MarkerKind,
}

impl Survey {
    /// Reads everything before `truncate_at`, and looks through what is behind it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an offset outside of the partition; [`ErrorKind::Corrupt`] if something
    /// before it is damaged; those of the operating system.
    pub(super) fn take(
        site: &PartitionSite,
        marks: &Marks,
        truncate_at: Offset,
        known: Known<'_>,
    ) -> Result<Self> {
        let Known { before, synced, doubt } = known;
        let segments = segments(site, marks)?;
        // Records before the start may be there still, and damaged.
        let first = segments.first().copied().filter(|first| *first <= marks.start).unwrap_or(marks.start);
        if truncate_at < first {
            let what = format!("it begins with offset {first}, behind {truncate_at}");
            return Err(site.error(ErrorKind::Invalid, what));
        }
        let mut reading = Reading {
            site,
            truncate_at,
            producers: ProducerStates::default(),
            cut: Cut { base: first, position: 0, offset: first },
            has_first: false,
        };
        let mut kept = 0;
        for &base in &segments {
            if !reading.goes_on(base)? || reading.read(base)? == Ended::AtCut {
                break;
            }
            kept += 1;
        }
        let cut = reading.cut;
        let is_cut_in_file = segments.get(kept) == Some(&cut.base);
        let beyond = segments[kept + usize::from(is_cut_in_file)..].to_vec();
        if kept == segments.len() && truncate_at > cut.offset {
            let what = format!("the log ends at offset {}, before {truncate_at}", cut.offset);
            return Err(site.error(ErrorKind::Invalid, what));
        }
        let open = reading.producers.open_transactions().into_iter();
        let open = open.map(|open| (open, before.and_then(|note| note.fate(&open)))).collect();
        let (cut_before, lost) = (before.map(|note| note.cut.offset), Lost::default());
        let mut survey =
            Self { cut, tail_bytes: 0, lacks_file: false, beyond, open, cut_before, synced, doubt, lost };
        survey.look_behind(site).map_err(|error| site.io("read", &site.directory, error))?;
        Ok(survey)
    }

    /// Whether nothing is behind the cut.
    pub(super) fn is_empty(&self) -> bool {
        self.tail_bytes == 0 && self.beyond.is_empty()
    }

    /// Whether the log ends at the cut, and nothing that was synced is missing.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.synced <= self.cut.offset && !self.lacks_file
    }

    fn look_behind(&mut self, site: &PartitionSite) -> io::Result<()> {
        let storage = &**site.storage();
        match storage.open(&self.cut.file(site), OpenMode::Read) {
            Ok(file) => {
                self.tail_bytes = file.len()? - self.cut.position;
                self.lost.look_through(&*file, self.cut.position, self.cut.base, self.cut.offset)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.lacks_file = true,
            Err(error) => return Err(error),
        }
        // What is missing between or behind the files may have been anything.
        let mut end = self.lost.upto.unwrap_or(self.cut.offset);
        for &base in &self.beyond {
            if base > end && !site.density().allows(base, end) {
                self.lost.first_bad.get_or_insert(end);
            }
            let file = storage.open(&FileKind::Log.path(&site.directory, base), OpenMode::Read)?;
            self.lost.look_through(&*file, 0, base, self.cut.offset)?;
            end = self.lost.upto.unwrap_or(base).max(base);
        }
        if end < self.synced {
            self.lost.first_bad.get_or_insert(end);
        }
        Ok(())
    }

    /// What is reported of it, with these fates.
    pub(super) fn report(&self, site: &PartitionSite, transactions: &[Noted]) -> RepairReport {
        self.lost.report(site, &self.cut, self.beyond.len(), transactions)
    }

    /// What becomes of the transactions that have something behind the cut.
    pub(super) fn transactions(&self) -> Vec<Noted> {
        let mut lost = self.lost.transactions.clone();
        let open = self.open.iter().map(|(open, before)| {
            let has_lost = lost.remove(&(open.producer_id, open.producer_epoch));
            let marker = self.lost.marker_of(open);
            let (fate, is_doubtful) = self.fate(has_lost, marker, *before);
            Noted { touched: open.touched(fate), is_doubtful }
        });
        let mut touched: Vec<_> = open.collect();
        touched.extend(lost.iter().map(|&(producer_id, producer_epoch)| {
            Noted::certain(TouchedTransaction { producer_id, producer_epoch, fate: TransactionFate::Lost })
        }));
        touched
    }

    /// What becomes of a transaction that is open at the cut as long as the log does not go back; whether it is
    /// [unmarked](TransactionFate::Unmarked) if it does.
    fn fate(
        &self,
        has_lost: bool,
        marker: Option<FoundMarker>,
        before: Option<Noted>,
    ) -> (TransactionFate, bool) {
        use TransactionFate::{Aborted, MarkedAgain, Unmarked};
        let is_behind = |offset: Offset| self.doubt.is_some() && offset >= self.synced;
        let written_before = before.and(self.cut_before);
        let before = before.map(|noted| (noted.touched.fate, noted.is_doubtful));
        // What is damaged may have been records of it, unless it had ended by then.
        let bad = self.lost.first_bad.filter(|bad| marker.is_none_or(|marker| *bad <= marker.offset));
        let bad = bad.filter(|bad| written_before.is_none_or(|end| *bad < end));
        match (bad, before, marker) {
            _ if has_lost => (Aborted, false),
            (_, Some((Aborted, false)), _) => (Aborted, false),
            (Some(bad), ..) => (Aborted, is_behind(bad)),
            (None, Some((Aborted, is_doubtful)), _) => (Aborted, is_doubtful),
            // Whoever has settled that may have begun to write the marker again.
            (None, Some((MarkedAgain(kind), false)), _) => (MarkedAgain(kind), false),
            (None, _, Some(FoundMarker { offset, kind, .. })) => {
                let is_believed = self.doubt.is_none_or(|doubt| doubt.believes_markers);
                (MarkedAgain(kind), is_behind(offset) && !is_believed)
            }
            (None, Some(before), None) => before,
            (None, None, None) => (Unmarked, false),
        }
    }
}

/// The report of a cut that was carried out, from what was kept of it.
pub(super) fn report_again(site: &PartitionSite, note: &CutNote) -> Result<RepairReport> {
    let mut lost = Lost::default();
    let mut segments = 0;
    if let Some(folder) = note.folder(site) {
        let looked = lost.look_through_folder(site, &folder, note.cut.offset);
        segments = looked.map_err(|error| failed(site, "read what was cut off in", error))?;
    }
    let report = lost.report(site, &note.cut, segments, &note.transactions);
    Ok(RepairReport { kept_in: note.folder(site), ..report })
}

/// The segments of a partition, those that lie before its start left out.
fn segments(site: &PartitionSite, marks: &Marks) -> Result<Vec<Offset>> {
    let listing = Listing::read(&**site.storage(), &site.directory);
    let listing = listing.map_err(|error| failed(site, "list", error))?;
    Ok(listing.begin_at(marks.start).segments)
}

/// How reading a file ended.
#[derive(PartialEq)]
enum Ended {
    AtCut,
    WithFile,
}

/// Everything before the cut, as it is read.
struct Reading<'a> {
    site: &'a PartitionSite,
    truncate_at: Offset,
    producers: ProducerStates,
    /// How far reading has come.
    cut: Cut,
    /// Whether the first segment was there.
    has_first: bool,
}

impl Reading<'_> {
    /// Whether the segment with this base follows what was read. If it does not, that is damage, and what
    /// is before it is all that there can be.
    fn goes_on(&self, base: Offset) -> Result<bool> {
        let Cut { position, offset, .. } = self.cut;
        // The first one is never compacted away.
        if base == self.cut.base || (self.has_first && self.site.density().allows(base, offset)) {
            return Ok(true);
        }
        if self.truncate_at <= offset {
            return Ok(false);
        }
        Err(self
            .damaged(BatchPlace { position, offset }, format!("the next segment begins with offset {base}")))
    }

    /// Reads a segment up to the cut, or to its end.
    fn read(&mut self, base: Offset) -> Result<Ended> {
        let path = FileKind::Log.path(&self.site.directory, base);
        let io = |error| self.site.io("read", &path, error);
        let file = self.site.storage().open(&path, OpenMode::Read).map_err(io)?;
        let bytes = file.len().map_err(io)?;
        self.has_first = true;
        let offset = self.cut.offset.max(base);
        self.cut = Cut { base, position: 0, offset };
        let start = BatchPlace { position: 0, offset };
        let mut scanner = Scanner::new(file, start, bytes, self.site.density());
        loop {
            let BatchPlace { position, offset } = scanner.place();
            self.cut = Cut { base, position, offset };
            if offset >= self.truncate_at && position < bytes {
                return Ok(Ended::AtCut);
            }
            match scanner.next() {
                Ok(None) => return Ok(Ended::WithFile),
                Ok(Some((_, batch))) if batch.header().last_offset() >= self.truncate_at => {
                    return Ok(Ended::AtCut);
                }
                Ok(Some((_, batch))) => absorb(&mut self.producers, &batch),
                Err(ReadError::Bad { place, error }) => return Err(self.damaged(place, error.to_string())),
                Err(ReadError::Io(error)) => return Err(self.site.io("read", &path, error)),
            }
        }
    }

    /// Something is damaged before the cut.
    fn damaged(&self, place: BatchPlace, reason: String) -> Error {
        let what = format!("{reason}; cut at offset {} or before", place.offset);
        self.site.corrupt(&self.cut.file(self.site), place, what)
    }
}

fn absorb(producers: &mut ProducerStates, batch: &RecordBatch<'_>) {
    match batch.control() {
        Ok(control) if batch.header().is_control => drop(producers.absorb_marker(batch.header(), control)),
        _ if batch.header().is_control => {}
        _ => producers.absorb_batch(batch.header()),
    }
}

impl Lost {
    /// Finds the sound batches from `position` on, wherever they begin, in the file of the segment `base`.
    fn look_through(
        &mut self,
        file: &dyn StorageFile,
        position: u64,
        base: Offset,
        cut: Offset,
    ) -> io::Result<()> {
        let bytes = file.len()? - position;
        let mut batches = SoundBatches::new(file, position, base, cut)?;
        let (mut sound, mut next) = (0, cut.max(base));
        while let Some(batch) = batches.next()? {
            sound += batch.header.length as u64;
            if batches.position() > position + sound {
                self.first_bad.get_or_insert(next);
            }
            next = batch.header.next_offset();
            self.count(&batch);
        }
        if bytes > sound {
            self.first_bad.get_or_insert(next);
        }
        self.bytes += bytes;
        self.sound_bytes += sound;
        Ok(())
    }

    /// Finds those in the files that were kept in a folder. Returns how many of the files were segments.
    fn look_through_folder(&mut self, site: &PartitionSite, folder: &Path, cut: Offset) -> io::Result<usize> {
        let storage = &**site.storage();
        let kept = Listing::read(storage, folder)?.segments;
        for &base in &kept {
            let file = storage.open(&FileKind::Log.path(folder, base), OpenMode::Read)?;
            self.look_through(&*file, 0, base, cut)?;
        }
        // What was cut off the end of a file has the name of the cut.
        Ok(kept.iter().filter(|base| **base != cut).count())
    }

    fn count(&mut self, SoundBatch { header, control }: &SoundBatch) {
        self.batches += 1;
        self.upto = self.upto.max(Some(header.next_offset()));
        if !header.is_control {
            self.records += header.record_count as u64;
        }
        if header.is_transactional {
            if !header.is_control {
                self.transactions.insert((header.producer_id, header.producer_epoch));
            }
            let marker = control.map(|control| FoundMarker {
                offset: header.base_offset,
                epoch: header.producer_epoch,
                kind: control.kind,
            });
            self.first.entry(header.producer_id).or_insert(marker);
        }
    }

    /// The marker that has ended a transaction.
    fn marker_of(&self, open: &OpenTransaction) -> Option<FoundMarker> {
        let marker = (*self.first.get(&open.producer_id)?)?;
        (marker.epoch >= open.producer_epoch).then_some(marker)
    }

    fn report(
        &self,
        site: &PartitionSite,
        cut: &Cut,
        segments: usize,
        transactions: &[Noted],
    ) -> RepairReport {
        RepairReport {
            partition: site.name.clone(),
            cut_at: cut.offset,
            file: cut.file(site),
            position: cut.position,
            segments,
            bytes: self.bytes,
            damaged_bytes: self.bytes - self.sound_bytes,
            batches: self.batches,
            records: self.records,
            lost_upto: self.upto,
            transactions: transactions.iter().map(|noted| noted.touched).collect(),
            kept_in: None,
        }
    }
}
