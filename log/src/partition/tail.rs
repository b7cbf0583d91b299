//! The growing end of a partition: its segments, what is known of its producers, where it ends.

use std::sync::Arc;

use crate::batch::{BatchHeader, ControlRecord, RecordBatch};
use crate::producer_state::ProducerStates;
use crate::record::Offset;
use crate::scanner::BatchPlace;
use crate::segment::{ActiveSegment, Segment};

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
