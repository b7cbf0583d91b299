//! The compaction of one partition, in pieces.
//!
//! ```text
//!   Mapping --map is full or all is read--> Rewriting --group is written--> Syncing --> Replacing
//!                                            ^   |                                         |
//!                                            |   +--no group is left--> Ending --> Done    |
//!                                            +---------------------------------------------+
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use hashbrown::HashMap;

use super::filter::Filter;
use super::key_map::KeyMap;
use super::plan::{Dirt, group_len};
use super::transactions::DecidedTransactions;
use crate::batch::{BatchRewriter, DecompressionBuffer, Rewritten};
use crate::error::Result;
use crate::partition::Partition;
use crate::partition::replace::{CleanedSegment, Replacement};
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::scanner::{ReadError, Scanner};
use crate::segment::Segment;
use crate::storage::SyncTicket;

/// How many bytes of batches are read in one piece, unless a batch is larger.
const PIECE_BYTES: u64 = 128 << 10;

/// What a compaction may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactionLimits {
    /// Bytes of the map of keys.
    pub(crate) key_map_bytes: usize,
    /// The key of its hashes.
    pub(crate) seed: [u64; 2],
}

/// What one compaction of a partition did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionReport {
    /// Which partition.
    pub partition: TopicPartition,
    /// Every key was seen up to here; what lies between is left to the next compaction.
    pub clean_end: Offset,
    /// How many keys the range had that was not clean.
    pub keys: u64,
    /// Bytes of the segments that were read.
    pub bytes_before: u64,
    /// Bytes of what they were replaced by.
    pub bytes_after: u64,
}

/// What a piece of work came to.
#[derive(Debug)]
pub(crate) enum Piece {
    /// So many bytes were read and written, and there is more to do.
    Worked { bytes: u64 },
    /// The disk is waited for.
    Waits,
    /// All is done.
    Done,
}

/// The compaction of one partition.
pub(crate) struct Compaction {
    partition: Arc<Partition>,
    filter: Filter,
    rewriter: BatchRewriter,
    /// The transactions met in what is read.
    transactions: DecidedTransactions,
    clean_end: Offset,
    /// The segments to be written again, without those that are.
    left: VecDeque<(Arc<Segment>, Offset)>,
    stage: Stage,
    /// The segment that is being written, until it is decided that it takes the place of others: the base of those.
    undecided: Option<Offset>,
    report: CompactionReport,
}

enum Stage {
    Mapping(Reading),
    Rewriting(Option<Group>),
    Syncing { group: Group, tickets: Vec<SyncTicket> },
    Replacing(Replacement),
    Ending,
    Done,
}

/// Reading segments one behind the other.
struct Reading {
    /// With the offsets at which they end.
    segments: VecDeque<(Arc<Segment>, Offset)>,
    scanner: Option<(Arc<Segment>, Scanner)>,
}

/// Segments that become one.
struct Group {
    segments: Vec<Arc<Segment>>,
    end: Offset,
    reading: Reading,
    cleaned: CleanedSegment,
    bytes_before: u64,
    is_changed: bool,
}

impl Compaction {
    /// Begins to compact what `dirt` says there is.
    pub(crate) fn begin(partition: Arc<Partition>, dirt: &Dirt, limits: CompactionLimits) -> Self {
        let view = partition.compaction_view();
        let now = partition.now();
        let retention = partition.config().cleanup.compaction.delete_retention.as_millis() as i64;
        let taken = view.sealed.into_iter().filter(|(_, end)| *end <= dirt.end);
        let left: VecDeque<_> = taken.collect();
        let dirty = left.iter().filter(|(_, end)| *end > dirt.clean_end).cloned().collect();
        let filter = Filter {
            map: KeyMap::new(limits.key_map_bytes, limits.seed),
            map_end: dirt.end,
            range_end: dirt.end,
            tombstone_floor: view.tombstone_floor,
            now,
            horizon: Timestamp(now.0.saturating_add(retention)),
            last_written: partition.last_written(),
            durable_end: partition.offsets().durable,
            last_mapped: HashMap::new(),
        };
        let report = CompactionReport {
            partition: partition.name().clone(),
            clean_end: dirt.clean_end,
            keys: 0,
            bytes_before: 0,
            bytes_after: 0,
        };
        Self {
            partition,
            filter,
            rewriter: BatchRewriter::default(),
            transactions: DecidedTransactions::default(),
            clean_end: dirt.clean_end,
            left,
            stage: Stage::Mapping(Reading { segments: dirty, scanner: None }),
            undecided: None,
            report,
        }
    }

    /// Which partition is compacted.
    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// What was done so far.
    pub(crate) fn report(&self) -> &CompactionReport {
        &self.report
    }

    /// Does a piece of the work. Never waits for bytes to be synced: `waker` is woken when they are.
    ///
    /// # Errors
    /// `Closed`; `Retry` if somebody has pinned what was to be rewritten; `Corrupt`, naming the first bad
    /// batch, and then all of it is left as it is; those of the operating system. The compaction is over, and what it
    /// has written and not decided is gone.
    pub(crate) fn advance(&mut self, waker: &Waker) -> Result<Piece> {
        let outcome = self.go_on(waker);
        if outcome.is_err()
            && let Some(base) = self.undecided.take()
            && let Err(error) = self.partition.drop_cleaned(base)
        {
            let partition = self.partition.name();
            tracing::debug!(%partition, %error, "what compaction has written is left for the next");
        }
        outcome
    }

    fn go_on(&mut self, waker: &Waker) -> Result<Piece> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Mapping(reading) => self.map(reading),
            Stage::Rewriting(None) => self.begin_group(),
            Stage::Rewriting(Some(group)) => self.rewrite(group, waker),
            Stage::Syncing { group, tickets } => self.await_syncs(group, tickets),
            Stage::Replacing(replacement) => self.replace(replacement),
            Stage::Ending => {
                self.partition.note_clean_end(self.filter.map_end)?;
                self.report.clean_end = self.filter.map_end;
                Ok(Piece::Done)
            }
            Stage::Done => Ok(Piece::Done),
        }
    }

    /// Notes the keys of some more batches.
    fn map(&mut self, mut reading: Reading) -> Result<Piece> {
        let mut scratch = DecompressionBuffer::new();
        let mut bytes = 0;
        while bytes < PIECE_BYTES {
            let Some((segment, scanner)) = reading.scanner.as_mut() else {
                if reading.open(&self.partition, &mut self.transactions, self.clean_end)? {
                    continue;
                }
                self.end_mapping(self.filter.range_end);
                return Ok(Piece::Worked { bytes });
            };
            let place = scanner.place();
            let failed = |error| self.partition.read_failed(segment, error);
            let Some((_, batch)) = scanner.next().map_err(failed)? else {
                reading.scanner = None;
                continue;
            };
            let header = batch.header();
            bytes += header.length as u64;
            if header.next_offset() <= self.clean_end || header.is_control {
                continue;
            }
            self.filter.note_mapped(header);
            if self.transactions.is_aborted(header) {
                continue;
            }
            let bad = |error| failed(ReadError::Bad { place, error });
            for record in batch.records(&mut scratch).map_err(bad)? {
                let record = record.map_err(bad)?;
                let Some(key) = record.key.filter(|_| record.offset >= self.clean_end) else { continue };
                if !self.filter.map.put(key, record.offset) {
                    self.end_mapping(record.offset);
                    return Ok(Piece::Worked { bytes });
                }
            }
        }
        self.stage = Stage::Mapping(reading);
        Ok(Piece::Worked { bytes })
    }

    fn end_mapping(&mut self, map_end: Offset) {
        self.filter.map_end = map_end;
        self.report.keys = self.filter.map.len() as u64;
        self.transactions = DecidedTransactions::default();
        // Behind the map there is nothing to do.
        while self.left.back().is_some_and(|(segment, _)| segment.base() >= map_end) {
            self.left.pop_back();
        }
        self.stage = Stage::Rewriting(None);
    }

    fn begin_group(&mut self) -> Result<Piece> {
        let facts: Vec<_> =
            self.left.iter().map(|(segment, end)| self.partition.sealed_facts(segment, *end)).collect();
        let count = group_len(&facts, self.partition.config().segment_bytes);
        if count == 0 {
            self.stage = Stage::Ending;
            return Ok(Piece::Worked { bytes: 0 });
        }
        let taken: VecDeque<_> = self.left.drain(..count).collect();
        let (first, end) = (taken[0].0.clone(), taken[count - 1].1);
        let cleaned = self.partition.begin_cleaned(first.base())?;
        self.undecided = Some(first.base());
        self.stage = Stage::Rewriting(Some(Group {
            segments: taken.iter().map(|(segment, _)| segment.clone()).collect(),
            end,
            bytes_before: taken.iter().map(|(segment, _)| segment.bytes()).sum(),
            reading: Reading { segments: taken, scanner: None },
            cleaned,
            is_changed: false,
        }));
        Ok(Piece::Worked { bytes: 0 })
    }

    /// Writes what stays of some more batches.
    fn rewrite(&mut self, mut group: Group, waker: &Waker) -> Result<Piece> {
        let mut bytes = 0;
        while bytes < PIECE_BYTES {
            let Some((segment, scanner)) = group.reading.scanner.as_mut() else {
                if group.reading.open(&self.partition, &mut self.transactions, Offset(0))? {
                    continue;
                }
                return self.end_group(group, bytes, waker);
            };
            let place = scanner.place();
            let failed = |error| self.partition.read_failed(segment, error);
            let Some((_, batch)) = scanner.next().map_err(failed)? else {
                group.reading.scanner = None;
                continue;
            };
            bytes += batch.header().length as u64;
            let applied =
                self.filter.apply(&batch, &mut self.transactions, &mut self.rewriter, &mut group.cleaned);
            let rewritten = applied.map_err(|error| failed(ReadError::Bad { place, error }))?;
            group.is_changed |= rewritten != Rewritten::Whole;
            group.cleaned.relieve().map_err(|error| self.partition.compaction_failed(error))?;
        }
        self.stage = Stage::Rewriting(Some(group));
        Ok(Piece::Worked { bytes: 2 * bytes })
    }

    fn end_group(&mut self, mut group: Group, bytes: u64, waker: &Waker) -> Result<Piece> {
        self.report.bytes_before += group.bytes_before;
        if group.segments.len() == 1 && !group.is_changed {
            self.report.bytes_after += group.bytes_before;
            self.partition.drop_cleaned(group.segments[0].base())?;
            self.undecided = None;
            self.stage = Stage::Rewriting(None);
        } else {
            self.report.bytes_after += group.cleaned.bytes();
            let tickets =
                group.cleaned.seal(group.end).map_err(|error| self.partition.compaction_failed(error))?;
            tickets.iter().for_each(|ticket| ticket.wake(waker));
            self.stage = Stage::Syncing { group, tickets };
        }
        Ok(Piece::Worked { bytes: 2 * bytes })
    }

    fn await_syncs(&mut self, group: Group, tickets: Vec<SyncTicket>) -> Result<Piece> {
        for ticket in &tickets {
            match ticket.poll() {
                None => {
                    self.stage = Stage::Syncing { group, tickets };
                    return Ok(Piece::Waits);
                }
                Some(outcome) => outcome.map_err(|error| self.partition.compaction_failed(error))?,
            }
        }
        let replacement = self.partition.begin_replacement(group.segments, group.end, group.cleaned)?;
        self.stage = Stage::Replacing(replacement);
        Ok(Piece::Worked { bytes: 0 })
    }

    fn replace(&mut self, mut replacement: Replacement) -> Result<Piece> {
        self.partition.advance_replacement(&mut replacement)?;
        if replacement.is_decided() {
            self.undecided = None;
        }
        self.stage =
            if replacement.is_done() { Stage::Rewriting(None) } else { Stage::Replacing(replacement) };
        Ok(Piece::Worked { bytes: 0 })
    }
}

impl Reading {
    /// Goes on in the next segment, from the batch that holds `from` on. False if there is none.
    fn open(
        &mut self,
        partition: &Partition,
        transactions: &mut DecidedTransactions,
        from: Offset,
    ) -> Result<bool> {
        let Some((segment, end)) = self.segments.pop_front() else { return Ok(false) };
        transactions.enter_segment(partition.aborted_between(segment.base(), end)?);
        let scanner = segment.place_before(from).and_then(|place| segment.scan(place));
        let scanner = scanner.map_err(|error| partition.read_failed(&segment, error.into()))?;
        self.scanner = Some((segment, scanner));
        Ok(true)
    }
}
