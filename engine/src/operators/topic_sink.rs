//! `topic_sink`: rows leave the flow as records of a topic.

use std::marker::PhantomData;
use std::sync::Arc;

use lotic_log::{Header, PartitionId};

use crate::codec::CodecError;
use crate::epoch_writer::ValueWritten;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::TopicHandle;
use crate::frame::{Columns, Data, Frame};
use crate::message::Watermark;
use crate::operator::{Context, Operator, OperatorFactory, Progress, operator_factory};

/// Writes each row as a record of `topic`, in the transaction of its epoch. `key` and `value` append what
/// they encode and say whether there is any: none is null. The record's timestamp is the row's event time.
///
/// A record with a key goes where Kafka's default partitioner puts it. One without goes by its origin where
/// that is known, so that the same record always goes to the same partition; else the frames of a worker
/// take turns.
pub fn topic_sink<T, K, V, H>(
    topic: impl Into<String>,
    key: K,
    value: V,
    headers: H,
) -> Arc<dyn OperatorFactory>
where
    T: Data,
    K: Fn(&T, &mut Vec<u8>) -> Result<bool, CodecError> + Send + Sync + 'static,
    V: Fn(&T, &mut Vec<u8>) -> Result<bool, CodecError> + Send + Sync + 'static,
    H: Fn(&T, &mut Vec<Header>) + Send + Sync + 'static,
{
    let topic = topic.into();
    let record = Arc::new(RecordOf { key, value, headers, rows: PhantomData::<fn(T)> });
    operator_factory(move |context| {
        Ok(TopicSink {
            topic: context.topics.get(&topic)?.clone(),
            record: Arc::clone(&record),
            next_partition: context.worker as i32,
            key: Vec::new(),
            headers: Vec::new(),
        })
    })
}

/// How a row becomes a record.
struct RecordOf<T, K, V, H> {
    key: K,
    value: V,
    headers: H,
    rows: PhantomData<fn(T)>,
}

struct TopicSink<R> {
    topic: TopicHandle,
    record: Arc<R>,
    /// Where the next frame goes, as far as nothing else decides.
    next_partition: i32,
    key: Vec<u8>,
    headers: Vec<Header>,
}

impl<T, K, V, H> Operator for TopicSink<RecordOf<T, K, V, H>>
where
    T: Data,
    K: Fn(&T, &mut Vec<u8>) -> Result<bool, CodecError> + Send + Sync + 'static,
    V: Fn(&T, &mut Vec<u8>) -> Result<bool, CodecError> + Send + Sync + 'static,
    H: Fn(&T, &mut Vec<Header>) + Send + Sync + 'static,
{
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let batch = frame.into_batch::<T>();
        self.next_partition = (self.next_partition + 1) % self.topic.partitions;
        for (index, row) in batch.rows.iter().enumerate() {
            self.key.clear();
            let has_key = (self.record.key)(row, &mut self.key);
            let has_key = has_key.map_err(|error| self.unwritable_key(error))?;
            let key = has_key.then_some(self.key.as_slice());
            let partition = self.partition(key, &batch.columns, index);
            self.headers.clear();
            (self.record.headers)(row, &mut self.headers);
            let time = batch.columns.times[index];
            context.writer.write_with(&self.topic, partition, time, key, &self.headers, |out| {
                let has_value = (self.record.value)(row, out)?;
                Ok(if has_value { ValueWritten::Bytes } else { ValueWritten::Null })
            })?;
        }
        Ok(())
    }

    fn advance(&mut self, _input: usize, _: Watermark, _: &mut Context<'_>) -> Result<Progress> {
        Ok(Progress::Done)
    }
}

impl<R> TopicSink<R> {
    fn partition(&self, key: Option<&[u8]>, columns: &Columns, index: usize) -> PartitionId {
        let count = self.topic.partitions;
        match (key, columns.origins.get(index)) {
            (Some(key), _) => lotic_log::partition_for_key(key, count),
            (None, Some(origin)) => {
                let place = origin.offset.0 + i64::from(origin.partition.0);
                PartitionId(place.rem_euclid(i64::from(count)) as i32)
            }
            (None, None) => PartitionId(self.next_partition % count),
        }
    }

    fn unwritable_key(&self, cause: CodecError) -> Error {
        Error::caused(
            ErrorKind::Invalid,
            format!("a key for topic {} cannot be encoded", self.topic.name),
            cause,
        )
    }
}
