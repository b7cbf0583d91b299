//! The partitions of a topic that one worker reads.

use std::sync::Arc;

use bytes::Bytes;
use lotic_log::batch::{DecompressionBuffer, RecordBatch, RecordView};
use lotic_log::{Header, Offset, PartitionId, Record, Timestamp, murmur2};

use super::decoded::Decoded;
use super::idle::Idleness;
use super::partition::PartitionReader;
use super::{BadRecord, Settings, dead_letter};
use crate::codec::CodecError;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, TopicHandle};
use crate::frame::{Batch, Columns, Data, NO_WATERMARK, Origin};
use crate::message::Watermark;
use crate::operator::Context;
use crate::source::{AtHand, Position, Source, SourceOpenContext, SourcePoll, SplitState};
use crate::time::NOTHING_EXPECTED;

/// Reads some partitions of a topic on one worker.
pub(super) struct TopicReader<T, D, F> {
    decode: Arc<D>,
    time: Arc<F>,
    settings: Settings,
    log: Arc<dyn EventLog>,
    topic: TopicHandle,
    source: u32,
    frame_rows_max: usize,
    is_bounded: bool,
    is_timeless: bool,
    partitions: Vec<PartitionReader>,
    idleness: Option<Idleness>,
    /// Records that idleness has made older than their partition's watermark, and that are not counted yet.
    late_idle: u64,
    decoded: Decoded<T>,
    scratch: DecompressionBuffer,
    /// What has been said: by partition, and of all. `None`: nothing at all yet.
    said: Option<Said>,
    /// A timeless source was read to its end: the next poll is in another epoch, and looks for more.
    is_loaded: bool,
    /// Whether anything was found since then.
    has_read: bool,
}

/// The watermarks said.
struct Said {
    /// By the partition's place.
    partitions: Vec<Timestamp>,
    whole: Timestamp,
}

impl<T, D, F> TopicReader<T, D, F>
where
    T: Data,
    D: Fn(&RecordView<'_>) -> Result<T, CodecError> + Send + Sync,
    F: Fn(&T, Timestamp) -> Timestamp + Send + Sync,
{
    pub(super) fn new(
        (decode, time): (Arc<D>, Arc<F>),
        settings: Settings,
        topic: TopicHandle,
        (partitions, idleness): (Vec<PartitionReader>, Option<Idleness>),
        context: &SourceOpenContext<'_>,
    ) -> Self {
        Self {
            decode,
            time,
            settings,
            log: Arc::clone(context.log),
            topic,
            source: context.source,
            frame_rows_max: context.frame_rows_max,
            is_bounded: context.bounded,
            is_timeless: context.timeless,
            partitions,
            idleness,
            late_idle: 0,
            decoded: Decoded::new(),
            scratch: DecompressionBuffer::default(),
            said: None,
            is_loaded: false,
            has_read: false,
        }
    }

    /// The partition whose next batch is earliest, if any has one at hand.
    fn earliest(&mut self) -> Result<Option<(Timestamp, usize)>> {
        let mut earliest = None;
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            if let Some(time) = partition.next_time(&*self.log)? {
                let candidate = (time, index);
                earliest = Some(earliest.map_or(candidate, |least| candidate.min(least)));
            }
        }
        Ok(earliest)
    }

    /// Fills a frame as far as records are at hand; the bad ones take up room too.
    fn fill(&mut self, frame: &mut Batch<T>, bad: &mut Vec<Option<DeadLetter>>) -> Result<()> {
        while frame.rows.len() + bad.len() < self.frame_rows_max {
            if self.decoded.is_empty() && !self.decode_next()? {
                break;
            }
            let rejected_before = bad.len();
            let room = self.frame_rows_max - frame.rows.len() - bad.len();
            let taken = self.decoded.take(room, frame, bad);
            let partition = &mut self.partitions[self.decoded.partition];
            for letter in &bad[rejected_before..] {
                match letter {
                    None => partition.rejected.skipped += 1,
                    Some(_) => partition.rejected.dead_lettered += 1,
                }
            }
            partition.position = taken.position;
            partition.event_time_max = partition.event_time_max.max(taken.event_time_max);
            partition.emitted_time_max = partition.emitted_time_max.max(taken.event_time_max);
        }
        Ok(())
    }

    /// Decodes the earliest batch. Whether there was one.
    fn decode_next(&mut self) -> Result<bool> {
        let Some((_, index)) = self.earliest()? else { return Ok(false) };
        let bytes = self.partitions[index].take();
        self.decode_batch(index, &bytes.expect("the partition has just said that it has a batch"))?;
        Ok(true)
    }

    fn decode_batch(&mut self, index: usize, bytes: &Bytes) -> Result<()> {
        let Self { decoded, scratch, partitions, .. } = self;
        let partition = &partitions[index];
        let batch =
            RecordBatch::parse(bytes).map_err(|error| partition.corrupt(partition.position, error))?;
        let at = batch.header().base_offset;
        batch.verify().map_err(|error| partition.corrupt(at, error))?;
        let records = batch.records(scratch).map_err(|error| partition.corrupt(at, error))?;
        decoded.begin(index, batch.header().record_count as usize, batch.header().next_offset());
        let (disorder_ms, is_timeless) = (self.settings.disorder_ms, self.is_timeless);
        let running = |max: Option<Timestamp>| {
            let event_time_max = max.unwrap_or(NO_WATERMARK);
            Running { event_time_max, disorder_ms, is_timeless }
        };
        let mut watermark = running(partition.event_time_max);
        let mut without_idleness = running(partition.emitted_time_max);
        for record in records {
            let record = record.map_err(|error| partition.corrupt(at, error))?;
            if record.offset < partition.position {
                continue;
            }
            let row = (self.decode)(&record).and_then(|row| match record.key {
                None if self.settings.is_keyed => Err(CodecError::new("the record has no key")),
                _ => Ok(row),
            });
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    let policy = self.settings.bad_record;
                    let letter = policy.judge(&self.topic, partition, &record, error)?;
                    decoded.push_bad(record.offset, letter);
                    continue;
                }
            };
            let time = (self.time)(&row, record.timestamp);
            let columns = &mut decoded.columns;
            if let Some(key) = record.key.filter(|_| self.settings.is_keyed) {
                let hash = murmur2(key) as u32;
                check_place(&self.topic, partition, record.offset, hash)?;
                columns.keys.push(key, hash);
            }
            columns.times.push(time);
            let own = watermark.at(time);
            self.late_idle += u64::from(own > time && without_idleness.at(time) <= time);
            columns.watermarks.push(own);
            let (source, partition) = (self.source, partition.key.partition);
            columns.origins.push(Origin { source, partition, offset: record.offset });
            decoded.rows.push(row);
        }
        Ok(())
    }

    /// Says the watermarks that have risen. Before anything else, that nothing is expected of partitions
    /// that others read.
    fn say_watermarks(&mut self, context: &mut Context<'_>) {
        if self.is_timeless {
            if self.said.is_none() {
                context.forward_watermark(Watermark { partition: None, time: NOTHING_EXPECTED });
                self.said = Some(Said { partitions: Vec::new(), whole: NOTHING_EXPECTED });
            }
            return;
        }
        let disorder_ms = self.settings.disorder_ms;
        let by_partition = self.settings.is_keyed;
        if self.said.is_none() && by_partition {
            let read = |number| self.partitions.iter().any(|mine| mine.key.partition.0 == number);
            for number in (0..self.topic.partitions).filter(|&number| !read(number)) {
                let partition = Some(PartitionId(number));
                context.forward_watermark(Watermark { partition, time: NOTHING_EXPECTED });
            }
        }
        let count = self.partitions.len();
        let nothing = || Said { partitions: vec![NO_WATERMARK; count], whole: NO_WATERMARK };
        let said = self.said.get_or_insert_with(nothing);
        let mut least = NOTHING_EXPECTED;
        for (partition, said) in self.partitions.iter().zip(&mut said.partitions) {
            let time = partition.watermark(disorder_ms);
            least = least.min(time);
            if by_partition && time > *said {
                *said = time;
                let partition = Some(partition.key.partition);
                context.forward_watermark(Watermark { partition, time });
            }
        }
        if least > said.whole {
            said.whole = least;
            context.forward_watermark(Watermark { partition: None, time: least });
        }
    }

    /// A timeless source that was read to its end reads on, to the end that there is now or bounded input has.
    fn reload(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_loaded) {
            self.has_read = false;
            for partition in &mut self.partitions {
                let end = match partition.bounded_end {
                    Some(end) => end,
                    None => self.log.stable_offset(partition.key)?,
                };
                partition.read_on_to(end);
            }
        }
        Ok(())
    }

    /// What a poll says that found nothing.
    fn nothing_found(&mut self, context: &mut Context<'_>) -> Result<SourcePoll> {
        let at_end = self.partitions.iter().all(PartitionReader::is_at_end);
        if at_end && self.partitions.iter().all(PartitionReader::ends_for_good) {
            return Ok(SourcePoll::Ended);
        }
        self.is_loaded = self.is_timeless;
        if at_end && self.is_loaded && self.is_bounded && !self.has_read {
            // No epoch will end for a load of nothing.
            return self.poll(context);
        }
        Ok(SourcePoll::Pending)
    }
}

impl<T, D, F> Source for TopicReader<T, D, F>
where
    T: Data,
    D: Fn(&RecordView<'_>) -> Result<T, CodecError> + Send + Sync,
    F: Fn(&T, Timestamp) -> Timestamp + Send + Sync,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Result<SourcePoll> {
        self.reload()?;
        let (mut frame, mut bad) = (Batch::default(), Vec::new());
        self.fill(&mut frame, &mut bad)?;
        let found = !frame.rows.is_empty() || !bad.is_empty();
        emit_bad(bad, self.source, context);
        context.emit(0, frame.into());
        context.counters.late_idle.add(std::mem::take(&mut self.late_idle));
        if let Some(idleness) = &mut self.idleness {
            let busy = (!self.decoded.is_empty()).then_some(self.decoded.partition);
            idleness.look(&mut self.partitions, busy, context.processing_time);
        }
        self.say_watermarks(context);
        self.has_read |= found;
        if found { Ok(SourcePoll::Ready) } else { self.nothing_found(context) }
    }

    fn at_hand(&mut self) -> Result<Option<AtHand>> {
        // Timestamps of records need not be event times.
        if self.decoded.is_empty() && !self.decode_next()? {
            return Ok(None);
        }
        let watermark = self.partitions[self.decoded.partition].watermark(self.settings.disorder_ms);
        let times = self.decoded.next_times(self.frame_rows_max);
        Ok(times.map(|(first, last)| AtHand { first, last, watermark }))
    }

    fn positions(&self) -> Vec<SplitState> {
        let state = |partition: &PartitionReader| SplitState {
            split: partition.name.clone(),
            position: Position::topic(
                &self.topic.name,
                self.topic.id,
                partition.key.partition,
                partition.position,
            ),
            event_time_max: partition.event_time_max.map(|time| time.0),
            timeless_end: partition.timeless_end.map(|end| end.0),
            rejected: partition.rejected,
        };
        self.partitions.iter().map(state).collect()
    }
}

/// A record that could not be decoded and is to be kept.
pub(super) struct DeadLetter {
    record: Record,
    partition: PartitionId,
    offset: Offset,
}

/// A partition's watermark while its records are read.
struct Running {
    event_time_max: Timestamp,
    disorder_ms: i64,
    /// It never rises.
    is_timeless: bool,
}

impl Running {
    /// The watermark once a record of this event time has been read.
    fn at(&mut self, time: Timestamp) -> Timestamp {
        if self.is_timeless {
            return NO_WATERMARK;
        }
        self.event_time_max = self.event_time_max.max(time);
        less(self.event_time_max, self.disorder_ms)
    }
}

fn less(time: Timestamp, disorder_ms: i64) -> Timestamp {
    Timestamp(time.0.saturating_sub(disorder_ms))
}

/// Checks that a record is where Kafka's default partitioner puts its key.
fn check_place(topic: &TopicHandle, partition: &PartitionReader, offset: Offset, hash: u32) -> Result<()> {
    let expected = (hash & 0x7fff_ffff) as i32 % topic.partitions;
    if expected == partition.key.partition.0 {
        return Ok(());
    }
    let what = format!(
        "{}, offset {offset}: Kafka's default partitioner puts this key into partition {expected}; \
         a topic that is read by its keys must be written so",
        partition.name
    );
    Err(Error::new(ErrorKind::Invalid, what))
}

impl BadRecord {
    /// What is to be emitted of a record that could not be decoded; an error where the flow is to stop.
    fn judge(
        self,
        topic: &TopicHandle,
        partition: &PartitionReader,
        record: &RecordView<'_>,
        cause: CodecError,
    ) -> Result<Option<DeadLetter>> {
        match self {
            Self::Skip => Ok(None),
            Self::Fail => {
                let what =
                    format!("{}, offset {}: the record cannot be decoded", partition.name, record.offset);
                Err(Error::caused(ErrorKind::Decode, what, cause))
            }
            Self::DeadLetter => {
                let mut letter = record.to_record();
                let (topic, number) = (topic.name.to_string(), partition.key.partition);
                letter.headers.extend([
                    header(dead_letter::TOPIC, topic),
                    header(dead_letter::PARTITION, number.to_string()),
                    header(dead_letter::OFFSET, record.offset.to_string()),
                    header(dead_letter::ERROR, cause.to_string()),
                ]);
                Ok(Some(DeadLetter { record: letter, offset: record.offset, partition: number }))
            }
        }
    }
}

fn header(key: &str, value: String) -> Header {
    Header { key: key.to_owned(), value: Some(value.into()) }
}

/// Counts bad records and emits those that are to be kept.
fn emit_bad(bad: Vec<Option<DeadLetter>>, source: u32, context: &mut Context<'_>) {
    let mut letters = Batch::default();
    for record in bad {
        let Some(DeadLetter { record, partition, offset }) = record else {
            context.counters.skipped.add(1);
            continue;
        };
        context.counters.dead_lettered.add(1);
        let Columns { times, watermarks, origins, .. } = &mut letters.columns;
        times.push(record.timestamp.expect("a record that was read has a timestamp"));
        watermarks.push(NO_WATERMARK);
        origins.push(Origin { source, partition, offset });
        letters.rows.push(record);
    }
    context.emit(1, letters.into());
}
