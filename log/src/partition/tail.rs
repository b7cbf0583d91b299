//! The growing end of a partition: its segments, what is known of its producers, where it ends.

use std::io;
use std::sync::Arc;

use crate::batch::{BatchHeader, ControlRecord, RecordBatch};
use crate::open_files::is_stale;
use crate::producer_state::ProducerStates;
use crate::record::Offset;
use crate::scanner::BatchPlace;
use crate::segment::{ActiveSegment, Segment};
use crate::storage::{OpenMode, Storage};

/// What follows from the batches of a partition so far. The writer moves it on by each batch it
/// appends, recovery and read-only handles by each batch they find: there is one way only.
pub(crate) struct Tail {
    /// All segments by base offset; the last one is the active one.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) active: ActiveSegment,
    pub(crate) producers: ProducerStates,
    /// The offset of the next record.
    pub(crate) end: Offset,
    /// Bytes of batches since the newest producer snapshot.
    pub(crate) bytes_since_snapshot: u64,
    /// The producer snapshots there are, ascending.
    pub(crate) snapshots: Vec<Offset>,
    /// The last batch, for whoever only reads to see whether it is still there.
    pub(crate) last: Option<LastBatch>,
    /// Whether the directory is as closing would leave it: nothing is known that it does not hold.
    pub(crate) is_as_closed: bool,
}

/// What tells a batch from any other that another writer may put in its place.
pub(crate) struct LastBatch {
    pub(crate) segment: Arc<Segment>,
    /// Where it begins in the segment.
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl LastBatch {
    /// Whether the file of this name holds it, now.
    fn is_there(&self, storage: &dyn Storage) -> io::Result<bool> {
        let mut bytes = [0; BatchHeader::BYTES];
        let read = storage.open(self.segment.path(), OpenMode::Read)?.read_at(self.position, &mut bytes)?;
        Ok(BatchHeader::parse(&bytes[..read]).is_ok_and(|header| header == self.header))
    }
}

impl Tail {
    /// The tail of a partition that has one segment and no record.
    pub(crate) fn new(segment: Segment, index_interval_bytes: u64) -> Self {
        let segment = Arc::new(segment);
        Self {
            end: segment.base(),
            segments: vec![segment.clone()],
            active: ActiveSegment::new(segment, index_interval_bytes),
            producers: ProducerStates::default(),
            bytes_since_snapshot: 0,
            snapshots: Vec::new(),
            last: None,
            is_as_closed: true,
        }
    }

    /// Whether the log is the one that was read, with more behind it at most: nobody has cut it back, and
    /// maybe written on, since.
    pub(crate) fn is_unchanged(&self, storage: &dyn Storage) -> io::Result<bool> {
        let segment = &self.active.segment;
        let is_there = || {
            let named = storage.open(segment.path(), OpenMode::Read)?.len()?;
            let open = segment.file()?.len()?;
            // Behind the name there is another file by now, if it holds more than this one ever did.
            let is_it = named <= open && named >= segment.bytes();
            Ok(is_it && self.last.as_ref().map_or(Ok(true), |last| last.is_there(storage))?)
        };
        let found: io::Result<bool> = is_there();
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_stale(&error) => Ok(false),
            found => found,
        }
    }

    /// Where the next batch goes.
    pub(crate) fn place(&self) -> BatchPlace {
        BatchPlace { position: self.active.position(), offset: self.end }
    }

    /// Moves on by the batch at [`Self::place`]; `control` is what a control batch says.
    pub(crate) fn absorb(&mut self, header: &BatchHeader, control: Option<ControlRecord>) {
        match control {
            Some(control) => {
                if let Some(aborted) = self.producers.absorb_marker(header, control) {
                    self.active.segment.aborted.push(aborted);
                }
            }
            None if header.is_control => {}
            None => self.producers.absorb_batch(header),
        }
        self.active.absorb(header);
        self.end = header.next_offset();
        self.bytes_since_snapshot += header.length as u64;
    }

    /// Moves on by a batch that was read at [`Self::place`]. Control batches other than transaction
    /// markers say nothing here.
    pub(crate) fn absorb_read(&mut self, batch: &RecordBatch<'_>) {
        let control = if batch.header().is_control { batch.control().ok() } else { None };
        let (segment, position) = (self.active.segment.clone(), self.active.position());
        self.last = Some(LastBatch { segment, position, header: batch.header().clone() });
        self.absorb(batch.header(), control);
    }

    /// Seals the active segment and goes on in `segment`, which begins at the end, or behind it where
    /// what was in between is compacted away.
    pub(crate) fn go_on_in(&mut self, segment: Segment, index_interval_bytes: u64) {
        self.active.note_time_entry();
        let segment = Arc::new(segment);
        self.segments.push(segment.clone());
        self.end = segment.base();
        let leader_epoch = self.active.leader_epoch;
        self.active = ActiveSegment::new(segment, index_interval_bytes);
        self.active.leader_epoch = leader_epoch;
    }

    /// The offset behind the last record of the segment of this index.
    pub(crate) fn segment_end(&self, index: usize) -> Offset {
        self.segments.get(index + 1).map_or(self.end, |next| next.base())
    }
}
