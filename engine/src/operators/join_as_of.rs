//! A stream joined with a table as the table was at the event time of each record.
//!
//! A record with time `t` is answered once the watermark of the table's partition that can hold its key has
//! passed `t`: at once if it has already, else it waits in state. So the answer depends on the log alone,
//! not on which input was read first. A change of the table is late when its own watermark has passed its
//! time, since records of that time may have been answered; a record of the stream is late when its own
//! watermark has passed its time plus grace, since the versions before may have been pruned.
//!
//! What is emitted keeps the stream's time, watermark and origin. A version's own watermark is never behind
//! the version's time, so it would make nothing late that the record itself does not.
//!
//! Downstream, the watermark is the stream's, held back by the earliest record that waits.

mod versions;
mod waiting;

use std::marker::PhantomData;
use std::sync::Arc;

use lotic_log::{Timestamp, murmur2};

use self::versions::{Lookup, Version, VersionCodec, Versions};
use self::waiting::{Place, Waiting, WaitingCodec, WaitingRoom, place_in};
use super::hold::held_back;
use super::select::split_late;
use crate::codec::Codec;
use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Batch, Data, Frame, NO_WATERMARK};
use crate::key_group::KeyGroup;
use crate::message::Watermark;
use crate::operator::{Context, OpenContext, Operator, OperatorFactory, Progress, waiting_operator_factory};
use crate::state::StoreOrder;

/// The input of the stream.
const STREAM: usize = 0;
/// The input of the table.
const TABLE: usize = 1;

/// The port of answers.
const ANSWERS: usize = 0;
/// The port of late records of the stream.
const LATE: usize = 1;
/// The port of late changes of the table.
const LATE_CHANGES: usize = 2;

/// What an as-of join keeps, and how.
pub struct AsOfStores<V, T> {
    /// The store of the table's versions.
    pub versions: String,
    /// The store of records that wait.
    pub waiting: String,
    /// How long after its time a record of the stream is still joined. Not negative.
    pub grace_ms: i64,
    /// The topic that the table is read from by its key, placed by Kafka's default partitioner: then a
    /// record waits only for the partition that can hold its key. `None`: for the whole table.
    pub table_topic: Option<String>,
    /// Writes records that wait.
    pub stream_codec: Arc<dyn Codec<V>>,
    /// Writes the table's rows.
    pub table_codec: Arc<dyn Codec<T>>,
}

/// Joins `(K, V)` on input 0 with the table `(K, Option<T>)` on input 1, both exchanged by key, as the table
/// was at the record's event time. Port 0 emits the `(K, O)` that `join` makes of a record and the table's
/// row at its time, if there was one; nothing where it makes none. Port 1 emits late `(K, V)`, port 2 late
/// `(K, Option<T>)`.
///
/// # Panics
/// If grace is negative.
pub fn join_as_of<K, V, T, O>(
    stores: AsOfStores<V, T>,
    key_codec: Arc<dyn Codec<K>>,
    join: impl Fn(&K, V, Option<&T>) -> Option<O> + Send + Sync + 'static,
) -> Arc<dyn OperatorFactory>
where
    K: Data,
    V: Data,
    T: Data,
    O: Data,
{
    assert!(stores.grace_ms >= 0, "grace is not negative");
    let join = Arc::new(join);
    waiting_operator_factory(TABLE, move |context| {
        JoinAsOf::open(&stores, key_codec.clone(), join.clone(), context)
    })
}

struct JoinAsOf<K, V, T, O, F> {
    grace_ms: i64,
    key_codec: Arc<dyn Codec<K>>,
    join: Arc<F>,
    versions: Versions<T>,
    waiting: WaitingRoom<V>,
    /// How many partitions the table has; 1 if it is waited for as a whole.
    table_partitions: i32,
    stream_watermark: Timestamp,
    forwarded: Timestamp,
    frame_rows_max: usize,
    answers: PhantomData<fn() -> O>,
}

impl<K, V, T, O, F> JoinAsOf<K, V, T, O, F>
where
    K: Data,
    V: Data,
    T: Data,
    O: Data,
    F: Fn(&K, V, Option<&T>) -> Option<O>,
{
    fn open(
        stores: &AsOfStores<V, T>,
        key_codec: Arc<dyn Codec<K>>,
        join: Arc<F>,
        context: &OpenContext<'_>,
    ) -> Result<Self> {
        let table_partitions = match &stores.table_topic {
            None => 1,
            Some(name) => context.topics.get(name)?.partitions,
        };
        let groups: Vec<_> = KeyGroup::owned_by(context.worker, context.workers).collect();
        let codec = Arc::new(VersionCodec(stores.table_codec.clone()));
        let versions = context.state.store(&stores.versions, codec, StoreOrder::Sorted)?;
        let codec = Arc::new(WaitingCodec(stores.stream_codec.clone()));
        let waiting = context.state.store(&stores.waiting, codec, StoreOrder::Sorted)?;
        Ok(Self {
            grace_ms: stores.grace_ms,
            key_codec,
            join,
            versions: Versions::new(versions, groups.clone()),
            waiting: WaitingRoom::open(waiting, groups, table_partitions as usize, context.last_committed)?,
            table_partitions,
            stream_watermark: NO_WATERMARK,
            forwarded: NO_WATERMARK,
            frame_rows_max: context.frame_rows_max,
            answers: PhantomData,
        })
    }

    fn take_records(&mut self, batch: Batch<(K, V)>, context: &mut Context<'_>) -> Result<()> {
        let (batch, late) = split_late(batch, |columns, index| {
            columns.watermarks[index].0 > columns.times[index].0.saturating_add(self.grace_ms)
        });
        if let Some(late) = late {
            context.counters.late.add(late.rows.len() as u64);
            context.emit(LATE, late.into());
        }
        let Batch { rows, mut columns } = batch;
        let mut answers = Vec::with_capacity(rows.len());
        let mut is_answered = Vec::with_capacity(rows.len());
        let mut lookups = self.versions.lookups();
        let partition_of = |index: usize| table_partition(columns.keys.hash(index), self.table_partitions);
        let lookup = |index: usize| Lookup {
            group: columns.keys.group(index),
            key: columns.keys.key(index),
            time: columns.times[index],
        };
        for (index, (key, row)) in rows.into_iter().enumerate() {
            let waiting = &mut self.waiting;
            let is_passed = |waiting: &WaitingRoom<V>, index: usize| {
                waiting.watermark(partition_of(index)) > columns.times[index]
            };
            let answered_before = answers.len();
            if is_passed(waiting, index) {
                let rest = (index + 1..columns.len()).filter(|&index| is_passed(waiting, index)).map(lookup);
                let version = lookups.as_of(lookup(index), rest)?;
                answers.extend((self.join)(&key, row, version).map(|answer| (key, answer)));
            } else {
                let Lookup { group, key, time } = lookup(index);
                let origin = columns.origins.get(index).copied();
                let waiting_row = Waiting { watermark: columns.watermarks[index], row };
                waiting.enter(partition_of(index), Place { group, time, key, origin }, waiting_row);
            }
            is_answered.push(answers.len() > answered_before);
        }
        if answers.len() < is_answered.len() {
            columns.retain(&is_answered);
        }
        context.emit(ANSWERS, Batch { rows: answers, columns }.into());
        Ok(())
    }

    fn take_changes(&mut self, batch: Batch<(K, Option<T>)>, context: &mut Context<'_>) {
        let (batch, late) =
            split_late(batch, |columns, index| columns.watermarks[index] > columns.times[index]);
        if let Some(late) = late {
            context.counters.late.add(late.rows.len() as u64);
            context.emit(LATE_CHANGES, late.into());
        }
        let Batch { rows, columns } = batch;
        for (index, (_, row)) in rows.into_iter().enumerate() {
            let (group, key) = (columns.keys.group(index), columns.keys.key(index));
            self.versions.put(group, key, columns.times[index], Version(row));
        }
    }

    /// Answers those who wait for a partition and a time before `until`, a frame of them at most.
    fn answer_waiting(
        &mut self,
        partition: usize,
        until: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<Progress> {
        let mut left = Vec::new();
        let all = self.waiting.leave(partition, until, self.frame_rows_max, &mut left)?;
        let mut answers = Batch::default();
        let mut lookups = self.versions.lookups();
        let mut left = left.into_iter();
        while let Some((backend_key, waiting)) = left.next() {
            let place = place_in(&backend_key);
            let key = self.key_codec.decode(place.key).map_err(|error| {
                let what = format!("the key of a record that waits for {} cannot be read", place.time);
                Error::caused(ErrorKind::Corrupt, what, error)
            })?;
            let rest = left.as_slice().iter().map(|(backend_key, _)| lookup_for(place_in(backend_key)));
            let version = lookups.as_of(lookup_for(place), rest)?;
            let Some(answer) = (self.join)(&key, waiting.row, version) else { continue };
            answers.rows.push((key, answer));
            answers.columns.times.push(place.time);
            answers.columns.watermarks.push(waiting.watermark);
            answers.columns.keys.push(place.key, murmur2(place.key) as u32);
            answers.columns.origins.extend(place.origin);
        }
        if answers.columns.origins.len() < answers.columns.len() {
            answers.columns.origins.clear();
        }
        context.emit(ANSWERS, answers.into());
        Ok(if all { Progress::Done } else { Progress::More })
    }

    /// The table's watermark has risen, of one partition or of all.
    fn advance_table(&mut self, watermark: Watermark, context: &mut Context<'_>) -> Result<Progress> {
        let all = 0..self.table_partitions as usize;
        let named = match watermark.partition {
            None => all,
            Some(partition) if self.table_partitions > 1 && all.contains(&(partition.0 as usize)) => {
                partition.0 as usize..partition.0 as usize + 1
            }
            // A table waited for as a whole: the watermark of the whole follows.
            Some(_) if self.table_partitions == 1 => 0..0,
            Some(partition) => {
                let what =
                    format!("partition {partition} of a table of {} partitions", self.table_partitions);
                return Err(Error::new(ErrorKind::Invalid, format!("a watermark was said of {what}")));
            }
        };
        for partition in named {
            self.waiting.raise(partition, watermark.time);
            let until = self.waiting.watermark(partition);
            if self.answer_waiting(partition, until, context)? == Progress::More {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    /// Passes the watermark on, as far as nobody who waits is before it.
    fn forward(&mut self, context: &mut Context<'_>) {
        let time = self.stream_watermark.min(self.waiting.least());
        if time > self.forwarded {
            self.forwarded = time;
            context.forward_watermark(Watermark { partition: None, time });
        }
    }

    /// Removes versions that nobody can ask for any more.
    fn sweep(&mut self) -> Result<()> {
        let (waiting, partitions) = (&self.waiting, self.table_partitions);
        let expected = |key: &[u8]| waiting.watermark(table_partition(murmur2(key) as u32, partitions));
        self.versions.sweep(self.horizon(), expected)
    }

    /// The earliest time that may still be asked for.
    fn horizon(&self) -> Timestamp {
        let expected = held_back(self.stream_watermark, self.grace_ms);
        expected.min(self.waiting.least())
    }
}

impl<K, V, T, O, F> Operator for JoinAsOf<K, V, T, O, F>
where
    K: Data,
    V: Data,
    T: Data,
    O: Data,
    F: Fn(&K, V, Option<&T>) -> Option<O> + Send + Sync,
{
    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        match input {
            STREAM => self.take_records(frame.into_batch(), context),
            _ => {
                self.take_changes(frame.into_batch(), context);
                Ok(())
            }
        }
    }

    fn advance(&mut self, input: usize, watermark: Watermark, context: &mut Context<'_>) -> Result<Progress> {
        if input == STREAM {
            if watermark.partition.is_some() {
                return Ok(Progress::Done);
            }
            self.stream_watermark = watermark.time.max(self.stream_watermark);
            self.sweep()?;
        } else if self.advance_table(watermark, context)? == Progress::More {
            return Ok(Progress::More);
        }
        self.forward(context);
        Ok(Progress::Done)
    }

    fn end(&mut self, context: &mut Context<'_>) -> Result<Progress> {
        // Behind every time: an end is not a time, but nothing more will tell what the table was.
        for partition in 0..self.table_partitions as usize {
            if self.answer_waiting(partition, Timestamp(i64::MAX), context)? == Progress::More {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    fn barrier(&mut self, epoch: Epoch, context: &mut Context<'_>) -> Result<()> {
        self.versions.store.freeze(epoch, context.processing_time, context.writer)?;
        self.waiting.freeze(epoch, context.processing_time, context.writer)
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.versions.store.committed(epoch)?;
        self.waiting.store.committed(epoch)
    }
}

/// The partition of the table that can hold a key of this hash.
fn table_partition(hash: u32, partitions: i32) -> usize {
    ((hash & 0x7fff_ffff) as i32 % partitions) as usize
}

/// What a record that waits asks for.
fn lookup_for(place: Place<'_>) -> Lookup<'_> {
    Lookup { group: place.group, key: place.key, time: place.time }
}

#[cfg(test)]
mod tests;
