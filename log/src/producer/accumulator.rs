//! Records on their way into batches: which batch a record joins, and when a batch is due. Pure: it
//! knows no clock, no partition and no thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::batch_limit::BatchLimit;
use super::outcome::Outcome;
use crate::batch::{BatchBuilder, BatchError, BatchHeader, Compression, SealedBatch, SharedCompressor};
use crate::record::{Record, Timestamp};

/// Builders kept for the next batch rather than dropped.
const SPARE_BUILDERS_MAX: usize = 16;

/// What a record takes beside its key, value and headers, at most: length, attributes, timestamp,
/// offset, three counts.
const RECORD_OVERHEAD_BYTES_MAX: usize = 5 + 1 + 10 + 5 + 3 * 5;

/// What a header takes beside its name and value, at most.
const HEADER_OVERHEAD_BYTES_MAX: usize = 2 * 5;

/// How the batches of a lane are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneConfig {
    /// The size that a batch is to have.
    pub(super) batch_bytes: usize,
    /// What the topic takes.
    pub(super) topic_bytes_max: usize,
    pub(super) compression: Compression,
}

/// One partition's place in the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane(pub(super) usize);

/// The batches of all partitions that are not written yet.
#[derive(Debug)]
pub(super) struct Accumulator {
    /// How long after its first record a batch is due that is not full.
    linger: Duration,
    /// How long after its first record a batch that is not durable has failed.
    delivery_timeout: Duration,
    lanes: Vec<LaneState>,
    /// Batches that are full, in the order in which they became so.
    full: VecDeque<DueBatch>,
    spare: Vec<(Compression, BatchBuilder)>,
    /// One of each sort that a lane has asked for.
    compressors: Vec<(Compression, SharedCompressor)>,
    /// Bytes in open batches, in `full`, and in what was taken and not yet released.
    held_bytes: usize,
}

#[derive(Debug)]
struct LaneState {
    config: LaneConfig,
    /// When a batch is full.
    limit: BatchLimit,
    /// The batch that is being filled.
    open: Option<OpenBatch>,
}

#[derive(Debug)]
struct OpenBatch {
    batch: DueBatch,
    due: Duration,
}

/// A batch to be sealed and written.
#[derive(Debug)]
pub(super) struct DueBatch {
    pub(super) lane: Lane,
    pub(super) builder: BatchBuilder,
    pub(super) outcome: Arc<Outcome>,
    /// When it has failed unless it is durable, on the clock's elapsed time.
    pub(super) deadline: Duration,
    compression: Compression,
    /// Its bytes before and after compression; none before it is sealed.
    sizes: Option<(usize, usize)>,
}

impl DueBatch {
    /// Ends the batch and compresses it.
    pub(super) fn seal(&mut self) -> SealedBatch {
        let plain = self.builder.encoded_len();
        let sealed = self.builder.seal();
        self.sizes = Some((plain, sealed.len_bytes()));
        sealed
    }
}

/// Where a record went: its batch's outcome, and its place in the batch.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) outcome: Arc<Outcome>,
    pub(super) index: i32,
    /// Whether something became due, or will at a moment that was not known before.
    pub(super) wakes_writer: bool,
}

impl Accumulator {
    pub(super) fn new(linger: Duration, delivery_timeout: Duration) -> Self {
        let (lanes, full, spare, compressors) = (Vec::new(), VecDeque::new(), Vec::new(), Vec::new());
        Self { linger, delivery_timeout, lanes, full, spare, compressors, held_bytes: 0 }
    }

    /// Lanes for `count` more partitions; returns the first.
    pub(super) fn add_lanes(&mut self, count: usize, config: LaneConfig) -> Lane {
        let first = self.lanes.len();
        self.lanes.resize_with(first + count, || LaneState::new(config));
        Lane(first)
    }

    /// From now on the lane's batches are made so. One that was begun otherwise is due.
    pub(super) fn set_config(&mut self, lane: Lane, config: LaneConfig) {
        if self.lanes[lane.0].config != config {
            self.close(lane);
            self.lanes[lane.0] = LaneState::new(config);
        }
    }

    /// Bytes of memory that records hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Gives up the bytes of a batch that was taken.
    pub(super) fn release(&mut self, bytes: usize) {
        self.held_bytes -= bytes;
    }

    /// Whether a record would join the batch that is open already; `None` if none is.
    pub(super) fn joins_open_batch(&self, lane: Lane, measured: Measured<'_>) -> Option<bool> {
        let LaneState { limit, open, .. } = &self.lanes[lane.0];
        let joins =
            |open: &OpenBatch| open.batch.builder.encoded_len() + measured.bytes_max <= limit.plain_bytes();
        open.as_ref().map(joins)
    }

    /// How large the lane's batches become, before compression.
    pub(super) fn batch_bytes(&self, lane: Lane) -> usize {
        self.lanes[lane.0].limit.plain_bytes()
    }

    /// Adds a record to the lane's batch, to a new one if it does not fit. `now` tells the elapsed time.
    ///
    /// # Errors
    /// Those of [`BatchBuilder::push`]; nothing is added then.
    pub(super) fn push(
        &mut self,
        lane: Lane,
        measured: Measured<'_>,
        timestamp: Timestamp,
        now: impl FnOnce() -> Duration,
    ) -> Result<Pushed, BatchError> {
        let record = measured.record;
        let is_new = self.joins_open_batch(lane, measured) != Some(true);
        if is_new {
            self.close(lane);
            self.lanes[lane.0].open = Some(self.open_batch(lane, now()));
        }
        let LaneState { limit, open, .. } = &mut self.lanes[lane.0];
        let batch = &mut open.as_mut().expect("a batch is open").batch;
        let before = if is_new { 0 } else { batch.builder.encoded_len() };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let pushed = batch.builder.push(timestamp, key, value, &record.headers);
        let (outcome, index) = (batch.outcome.clone(), batch.builder.record_count() - 1);
        let length = batch.builder.encoded_len();
        let fills = length >= limit.plain_bytes();
        if pushed.is_err() && is_new {
            self.discard(lane);
        }
        pushed?;
        self.held_bytes += length - before;
        if fills {
            self.close(lane);
        }
        Ok(Pushed { outcome, index, wakes_writer: is_new || fills })
    }

    /// Moves the batches that are due into `due`, in an order that keeps each lane's. `now` is elapsed
    /// time; `all` takes those too that could wait.
    pub(super) fn take_due(&mut self, now: Duration, all: bool, due: &mut Vec<DueBatch>) {
        due.extend(self.full.drain(..));
        for lane in &mut self.lanes {
            if let Some(batch) = lane.open.take_if(|open| all || open.due <= now) {
                due.push(batch.batch);
            }
        }
    }

    /// The elapsed time at which the next batch is due: zero if one is.
    pub(super) fn next_due(&self) -> Option<Duration> {
        if !self.full.is_empty() {
            return Some(Duration::ZERO);
        }
        self.lanes.iter().filter_map(|lane| lane.open.as_ref()).map(|open| open.due).min()
    }

    /// The elapsed time at which the first batch has failed that was not taken.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let open = self.lanes.iter().filter_map(|lane| lane.open.as_ref()).map(|open| &open.batch);
        self.full.iter().chain(open).map(|batch| batch.deadline).min()
    }

    /// The outcomes of all batches that have not been taken.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Arc<Outcome>> {
        let open = self.lanes.iter().filter_map(|lane| lane.open.as_ref()).map(|open| &open.batch.outcome);
        self.full.iter().map(|batch| &batch.outcome).chain(open)
    }

    /// Takes a batch back that has been sealed or given up: its builder for the next one of a lane like
    /// this, its sizes for the next ones of this lane.
    pub(super) fn take_back(&mut self, batch: DueBatch) {
        let DueBatch { lane, mut builder, compression, sizes, .. } = batch;
        let LaneState { config, limit, .. } = &mut self.lanes[lane.0];
        if let Some((plain, written)) = sizes
            && compression == config.compression
        {
            limit.note(plain, written);
        }
        if self.spare.len() < SPARE_BUILDERS_MAX {
            builder.clear();
            self.spare.push((compression, builder));
        }
    }

    fn open_batch(&mut self, lane: Lane, now: Duration) -> OpenBatch {
        let compression = self.lanes[lane.0].config.compression;
        let spare = self.spare.iter().rposition(|(of, _)| *of == compression);
        let builder = match spare {
            Some(index) => self.spare.swap_remove(index).1,
            None => BatchBuilder::sharing(self.compressor(compression)),
        };
        let due = now.saturating_add(self.linger);
        let deadline = now.saturating_add(self.delivery_timeout);
        let batch = DueBatch { lane, builder, outcome: Arc::default(), deadline, compression, sizes: None };
        OpenBatch { batch, due }
    }

    fn compressor(&mut self, wanted: Compression) -> SharedCompressor {
        if let Some((_, compressor)) = self.compressors.iter().find(|(made, _)| *made == wanted) {
            return compressor.clone();
        }
        let compressor = SharedCompressor::new(wanted);
        self.compressors.push((wanted, compressor.clone()));
        compressor
    }

    /// Drops a batch that no record went into.
    fn discard(&mut self, lane: Lane) {
        if let Some(open) = self.lanes[lane.0].open.take() {
            self.take_back(open.batch);
        }
    }

    /// Has what is open of the lane written, and before what is sent later.
    pub(super) fn close(&mut self, lane: Lane) {
        self.full.extend(self.lanes[lane.0].open.take().map(|open| open.batch));
    }
}

impl LaneState {
    fn new(config: LaneConfig) -> Self {
        let LaneConfig { batch_bytes, topic_bytes_max, .. } = config;
        Self { config, limit: BatchLimit::new(batch_bytes, topic_bytes_max), open: None }
    }
}

/// A record that is sent, and how large it is: that is asked for more than once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured<'a> {
    pub(super) record: &'a Record,
    /// The most bytes that it takes in a batch.
    pub(super) bytes_max: usize,
}

impl<'a> Measured<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let headers = record.headers.iter().map(|header| {
            let value = header.value.as_ref().map_or(0, |value| value.len());
            HEADER_OVERHEAD_BYTES_MAX + header.key.len() + value
        });
        let key = record.key.as_ref().map_or(0, |key| key.len());
        let value = record.value.as_ref().map_or(0, |value| value.len());
        Self { record, bytes_max: RECORD_OVERHEAD_BYTES_MAX + key + value + headers.sum::<usize>() }
    }

    /// The most bytes that a batch of this one record takes.
    pub(super) fn lone_batch_bytes_max(self) -> usize {
        BatchHeader::BYTES + self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const LINGER: Duration = Duration::from_millis(5);
    const NOW: Duration = Duration::from_secs(1);
    const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

    fn config(batch_bytes: usize, compression: Compression) -> LaneConfig {
        LaneConfig { batch_bytes, topic_bytes_max: 100_000, compression }
    }

    fn accumulator() -> (Accumulator, Lane, Lane) {
        let mut accumulator = Accumulator::new(LINGER, DELIVERY_TIMEOUT);
        let config = config(400, Compression::None);
        let first = accumulator.add_lanes(2, config);
        (accumulator, first, Lane(first.0 + 1))
    }

    fn push(accumulator: &mut Accumulator, lane: Lane, value_bytes: usize, now: Duration) -> Pushed {
        let record = Record { value: Some(Bytes::from(vec![7; value_bytes])), ..Record::default() };
        accumulator.push(lane, Measured::of(&record), Timestamp(1), || now).expect("fits")
    }

    fn take(accumulator: &mut Accumulator, now: Duration, all: bool) -> Vec<(Lane, i32)> {
        let mut due = Vec::new();
        accumulator.take_due(now, all, &mut due);
        due.iter().map(|batch| (batch.lane, batch.builder.record_count())).collect()
    }

    #[test]
    fn a_batch_is_due_when_its_first_record_has_lingered() {
        let (mut accumulator, lane, other) = accumulator();
        assert_eq!(accumulator.next_due(), None);
        assert!(push(&mut accumulator, lane, 10, NOW).wakes_writer);
        let second = push(&mut accumulator, lane, 10, NOW + LINGER / 2);
        assert!(!second.wakes_writer);
        assert_eq!(second.index, 1);
        push(&mut accumulator, other, 10, NOW + LINGER / 2);
        assert_eq!(accumulator.next_due(), Some(NOW + LINGER));
        assert_eq!(take(&mut accumulator, NOW + LINGER - Duration::from_nanos(1), false), []);
        assert_eq!(take(&mut accumulator, NOW + LINGER, false), [(lane, 2)]);
        assert_eq!(take(&mut accumulator, NOW, true), [(other, 1)], "all takes what could wait");
        assert_eq!(accumulator.next_due(), None);
    }

    #[test]
    fn a_full_batch_is_due_at_once_and_before_the_next_of_its_lane() {
        let (mut accumulator, lane, other) = accumulator();
        push(&mut accumulator, other, 1, NOW);
        push(&mut accumulator, lane, 250, NOW);
        assert!(push(&mut accumulator, lane, 100, NOW).wakes_writer, "it did not fit");
        assert_eq!(accumulator.next_due(), Some(Duration::ZERO));
        assert_eq!(accumulator.outcomes().count(), 3);
        assert_eq!(take(&mut accumulator, NOW, false), [(lane, 1)]);
        push(&mut accumulator, lane, 100, NOW);
        assert_eq!(take(&mut accumulator, NOW + LINGER, false), [(lane, 2), (other, 1)]);
    }

    #[test]
    fn a_record_larger_than_a_batch_gets_one_of_its_own() {
        let (mut accumulator, lane, _) = accumulator();
        push(&mut accumulator, lane, 10, NOW);
        assert_eq!(push(&mut accumulator, lane, 5_000, NOW).index, 0);
        push(&mut accumulator, lane, 10, NOW);
        assert_eq!(take(&mut accumulator, NOW, true), [(lane, 1), (lane, 1), (lane, 1)]);
    }

    #[test]
    fn no_batch_is_larger_than_its_limit_and_bytes_are_held_until_released() {
        let (mut accumulator, lane, _) = accumulator();
        for size in 0..200 {
            push(&mut accumulator, lane, size, NOW);
        }
        let mut due = Vec::new();
        accumulator.take_due(NOW, true, &mut due);
        assert!(due.len() > 2);
        for batch in due {
            assert!(batch.builder.encoded_len() <= 400);
            accumulator.release(batch.builder.encoded_len());
            accumulator.take_back(batch);
        }
        assert_eq!(accumulator.held_bytes(), 0);
    }

    #[test]
    fn a_record_that_is_refused_leaves_nothing_behind() {
        let (mut accumulator, lane, _) = accumulator();
        let huge = Bytes::from(vec![0; crate::batch::BATCH_BYTES_MAX]);
        let record = Record { value: Some(huge), ..Record::default() };
        let error =
            accumulator.push(lane, Measured::of(&record), Timestamp(1), || NOW).expect_err("too large");
        assert!(matches!(error, BatchError::TooLarge { .. }));
        assert_eq!((accumulator.held_bytes(), accumulator.next_due()), (0, None));
        push(&mut accumulator, lane, 10, NOW);
        let far = Record::default();
        let error =
            accumulator.push(lane, Measured::of(&far), Timestamp(i64::MIN), || NOW).expect_err("too far");
        assert!(matches!(error, BatchError::TimestampRange { .. }));
        assert_eq!(take(&mut accumulator, NOW, true), [(lane, 1)]);
    }

    #[test]
    fn each_lane_compresses_its_own_way() {
        let (mut accumulator, plain, _) = accumulator();
        let config = config(10_000, Compression::Lz4);
        let compressed = accumulator.add_lanes(1, config);
        for _ in 0..3 {
            let mut due = Vec::new();
            push(&mut accumulator, plain, 300, NOW);
            push(&mut accumulator, compressed, 300, NOW);
            accumulator.take_due(NOW, true, &mut due);
            for mut batch in due {
                let is_compressed = batch.seal().header().codec != crate::batch::Codec::None;
                assert_eq!(is_compressed, batch.lane == compressed);
                accumulator.take_back(batch);
            }
        }
    }

    #[test]
    fn a_lane_that_compresses_well_gets_batches_of_more_records() {
        let (mut accumulator, plain, _) = accumulator();
        let compressed = accumulator.add_lanes(1, config(400, Compression::Lz4));
        let mut size_learnt = |lane| {
            let mut due = Vec::new();
            for _ in 0..500 {
                push(&mut accumulator, lane, 50, NOW);
                accumulator.take_due(NOW, false, &mut due);
                due.iter_mut().for_each(|batch| drop(batch.seal()));
                due.drain(..).for_each(|batch| accumulator.take_back(batch));
            }
            accumulator.batch_bytes(lane)
        };
        assert_eq!(size_learnt(plain), 400);
        assert!(size_learnt(compressed) > 800);
    }
}
