//! Reading segments one behind the other, and what is seen of them.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::indexes::{Aborted, HintsWalk, Untrue, check_aborted, read_note};
use super::names::is_there;
use super::{Damage, Walk, WalkEnd};
use crate::batch::{BatchError, DecompressionBuffer, MarkerKind, RecordBatch};
use crate::error::{Error, Result};
use crate::record::{Offset, ProducerId, TopicPartition};
use crate::scanner::{BatchPlace, Density, ReadError, Scanner};
use crate::storage::{OpenMode, Storage};

pub(super) struct Walker<'a> {
    storage: &'a dyn Storage,
    partition: &'a TopicPartition,
    directory: &'a Path,
    density: Density,
    scratch: DecompressionBuffer,
    walk: Walk,
    /// Where the next batch should begin, in the last file looked at.
    place: BatchPlace,
    /// Who has a transaction open that began among what was read.
    open: HashSet<ProducerId>,
    /// What was aborted in the segment that is read.
    aborted: Vec<Aborted>,
}

impl<'a> Walker<'a> {
    /// Begins with the batch at `start`.
    pub(super) fn new(
        storage: &'a dyn Storage,
        partition: &'a TopicPartition,
        directory: &'a Path,
        density: Density,
        start: Offset,
    ) -> Self {
        Self {
            storage,
            partition,
            directory,
            density,
            scratch: DecompressionBuffer::new(),
            walk: Walk {
                segments: 0,
                batches: 0,
                records: 0,
                bytes: 0,
                gaps: 0,
                largest_producer_id: ProducerId::NONE,
                start,
                end: start,
                ending: WalkEnd::Complete,
                indexes: Vec::new(),
            },
            place: BatchPlace { position: 0, offset: start },
            open: HashSet::new(),
            aborted: Vec::new(),
        }
    }

    /// The offset behind the last record seen.
    pub(super) fn end(&self) -> Offset {
        self.walk.end
    }

    /// What was seen, up to where it ends.
    pub(super) fn finish(self, ending: WalkEnd) -> Walk {
        Walk { ending, ..self.walk }
    }

    /// Something is wrong where the next batch should begin, in `file`.
    pub(super) fn damage(&self, file: PathBuf, reason: impl Into<String>) -> Damage {
        self.damage_at(file, self.place, reason.into())
    }

    /// Reads the segment that begins with `base` and whose log is `file`, and compares its indexes with it if it is said
    /// where it ends. Returns where it is damaged.
    pub(super) fn walk_segment(
        &mut self,
        base: Offset,
        file: PathBuf,
        end: Option<Offset>,
    ) -> Result<Option<Damage>> {
        let (partition, directory) = (self.partition, self.directory);
        let io = move |error| Error::io(format!("{partition}: cannot read {}", directory.display()), error);
        self.place = BatchPlace { position: 0, offset: self.walk.end };
        if !self.density.allows(base, self.walk.end) {
            let reason = format!("offset {} should begin here", self.walk.end);
            return Ok(Some(self.damage(file, reason)));
        }
        let log = self.storage.open(&file, OpenMode::Read).map_err(io)?;
        self.walk.segments += 1;
        self.aborted.clear();
        let hints = end.map(|_| HintsWalk::begin(self.storage, directory, base));
        let mut hints = hints.transpose().map_err(io)?;
        let bytes = log.len().map_err(io)?;
        let scanner = Scanner::new(Arc::clone(&log), self.place, bytes, self.density);
        if let Some(error) = self.read_batches(scanner, hints.as_mut()).map_err(io)? {
            return Ok(Some(self.damage(file, error.to_string())));
        }
        let Some((hints, end)) = hints.zip(end) else { return Ok(None) };
        let untrue = self.check_indexes(base, end, hints).map_err(io)?;
        // If the segment is another one by now, or going, so were its indexes.
        if !untrue.is_empty() && is_there(self.storage, directory, (base, end), &*log)? {
            for Untrue { kind, position, offset, reason } in untrue {
                let place = BatchPlace { position, offset };
                let damage = self.damage_at(kind.path(directory, base), place, reason);
                self.walk.indexes.push(damage);
            }
        }
        Ok(None)
    }

    /// Reads the batches of a segment, up to the first that is bad: what is wrong with that.
    fn read_batches(
        &mut self,
        mut scanner: Scanner,
        mut hints: Option<&mut HintsWalk>,
    ) -> io::Result<Option<BatchError>> {
        loop {
            self.place = scanner.place();
            match scanner.next() {
                Ok(None) => return Ok(None),
                Ok(Some((position, batch))) => {
                    if let Err(error) = self.count(&batch) {
                        return Ok(Some(error));
                    }
                    hints.as_mut().map_or(Ok(()), |hints| hints.visit(position, batch.header()))?;
                }
                Err(ReadError::Bad { error, .. }) => return Ok(Some(error)),
                Err(ReadError::Io(error)) => return Err(error),
            }
        }
    }

    /// Reads every record of a batch.
    fn count(&mut self, batch: &RecordBatch<'_>) -> Result<(), BatchError> {
        let header = batch.header();
        batch.records(&mut self.scratch)?.try_for_each(|record| record.map(drop))?;
        self.walk.batches += 1;
        self.walk.records += if header.is_control { 0 } else { header.record_count as u64 };
        self.walk.bytes += header.length as u64;
        self.walk.gaps += u64::from(header.base_offset > self.walk.end);
        self.walk.largest_producer_id = header.producer_id.max(self.walk.largest_producer_id);
        self.walk.end = header.next_offset();
        if !header.is_control {
            self.open.extend(header.is_transactional.then_some(header.producer_id));
        } else if let Ok(control) = batch.control() {
            let has_records = self.open.remove(&header.producer_id);
            if control.kind == MarkerKind::Abort {
                let (producer_id, marker) = (header.producer_id, header.last_offset());
                self.aborted.push(Aborted { producer_id, marker, has_records });
            }
        }
        Ok(())
    }

    /// What is not true of the indexes of the segment just read.
    fn check_indexes(&self, base: Offset, end: Offset, hints: HintsWalk) -> io::Result<Vec<Untrue>> {
        let noted = read_note(self.storage, self.directory, base, end)?;
        let note = noted.as_ref().ok().copied();
        let aborted = check_aborted(self.storage, self.directory, base, &self.aborted, note)?;
        Ok(hints.end(note)?.chain(aborted).chain(noted.err()).collect())
    }

    fn damage_at(&self, file: PathBuf, place: BatchPlace, reason: String) -> Damage {
        let BatchPlace { position, offset } = place;
        Damage { partition: self.partition.clone(), offset, file, position, reason }
    }
}
