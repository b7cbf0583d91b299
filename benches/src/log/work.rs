//! What Lotic's sides do.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use lotic_log::{
    Clock, Consumer, ConsumerOptions, Durability, Isolation, Log, LogOptions, Producer, ProducerOptions,
    Record, Retention, SystemClock, TopicConfig, UpkeepOptions,
};

use super::case::{BATCH_BYTES, Case, Safety, TOPIC};
use super::payload;
use super::plain::SyncedFile;
use crate::Failure;
use crate::measure::{Cost, in_process, resident_memory};

/// A consumer that has seen nothing for so long has lost a record.
const PATIENCE: Duration = Duration::from_secs(30);

/// The value whose latency is measured.
const LATENCY_BYTES: usize = 100;

pub(crate) fn produce(
    case: &Case,
    payload: &Path,
    data: &Path,
    transaction: Option<Duration>,
) -> Result<Cost, Failure> {
    let values = payload::read(payload)?;
    let log = Log::open(data, case.durability.log_options()?)?;
    log.create_topic(TOPIC, case.topic())?;
    let transactional_id = transaction.map(|_| "bench".to_owned());
    let producer = Producer::new(&log, ProducerOptions { transactional_id, ..case.producer() })?;
    let values = payload::drawn(&values).take(case.records as usize);
    let cost = in_process(|| match transaction {
        None => {
            values.for_each(|value| send(&producer, value));
            Ok(producer.flush()?)
        }
        Some(length) => produce_in_transactions(&producer, values, length),
    })?;
    drop(producer);
    log.close()?;
    Ok(cost)
}

fn send(producer: &Producer, value: Bytes) {
    drop(producer.send(TOPIC, Record { value: Some(value), ..Record::default() }));
}

fn produce_in_transactions(
    producer: &Producer,
    values: impl Iterator<Item = Bytes>,
    length: Duration,
) -> Result<(), Failure> {
    /// Records between two looks at the clock.
    const STRIDE: usize = 64;
    let clock = SystemClock::new();
    producer.begin_transaction()?;
    let mut begun = clock.elapsed();
    for (index, value) in values.enumerate() {
        if index % STRIDE == 0 && clock.elapsed() - begun >= length {
            producer.commit_transaction()?;
            producer.begin_transaction()?;
            begun = clock.elapsed();
        }
        send(producer, value);
    }
    Ok(producer.commit_transaction()?)
}

pub(crate) fn consume(records: u64, data: &Path) -> Result<Cost, Failure> {
    let log = Log::open_read_only(data, LogOptions::disk()?)?;
    let options = ConsumerOptions { isolation: Isolation::ReadCommitted, ..ConsumerOptions::default() };
    let mut consumer = Consumer::of_topic(&log, TOPIC, options)?;
    in_process(|| {
        let (mut count, mut bytes) = (0, 0);
        while count < records {
            let read = consumer.poll(|_, record| {
                bytes += record.value.map_or(0, <[u8]>::len);
                ControlFlow::Continue(())
            })?;
            if read == 0 {
                return Err(format!("the log ended after {count} records").into());
            }
            count += read as u64;
        }
        std::hint::black_box(bytes);
        Ok(())
    })
}

/// Percentiles of the time from before `send` until a consumer on another thread, which waits, has the
/// record. The next is sent when the one before has come. With a file beside it, in turn with as many records
/// that are written there and synced, whose percentiles follow: the disk is as fast for one as for the other.
pub(crate) fn latencies(
    records: u64,
    durability: Safety,
    data: &Path,
    beside: Option<&Path>,
) -> Result<Vec<f64>, Failure> {
    let mut file = beside.map(SyncedFile::create).transpose()?;
    let log = Log::open(data, durability.log_options()?)?;
    log.create_topic(TOPIC, TopicConfig::default())?;
    let mut consumer = Consumer::of_topic(&log, TOPIC, ConsumerOptions::default())?;
    let producer =
        Producer::new(&log, ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() })?;
    let clock = SystemClock::new();
    let seen_at = clock.clone();
    let (came, arrivals) = mpsc::channel();
    let reader = lotic_log::spawn::spawn("bench-consumer", move || -> lotic_log::Result<()> {
        let mut left = records;
        while left > 0 {
            let read = consumer.poll(|_, _| ControlFlow::Continue(()))?;
            if read == 0 {
                consumer.wait(PATIENCE)?;
                continue;
            }
            left -= read as u64;
            // Whoever sends has gone if nobody listens.
            let _ = came.send(seen_at.elapsed());
        }
        Ok(())
    })?;
    let value = Bytes::from(vec![b'x'; LATENCY_BYTES]);
    let (mut times, mut disk) = (Vec::with_capacity(records as usize), Vec::new());
    for _ in 0..records {
        let sent = clock.elapsed();
        send(&producer, value.clone());
        times.push(arrivals.recv_timeout(PATIENCE)? - sent);
        if let Some(file) = &mut file {
            disk.push(file.append(&*clock)?);
        }
    }
    reader.join().map_err(|_| "the consumer has panicked")??;
    let mut figures = percentiles(&mut times);
    if file.is_some() {
        figures.extend(percentiles(&mut disk));
    }
    Ok(figures)
}

/// The 50th, 99th and 99.9th, in microseconds.
fn percentiles(times: &mut [Duration]) -> Vec<f64> {
    times.sort();
    let last = times.len().saturating_sub(1) as f64;
    [0.5, 0.99, 0.999].map(|part| times[(last * part) as usize].as_secs_f64() * 1e6).to_vec()
}

/// Bytes of memory after each `each` of the `bytes` that were written and read. Whoever writes is a little
/// ahead of the reader, and old segments go.
pub(crate) fn soak(bytes: u64, each: u64, data: &Path) -> Result<Vec<f64>, Failure> {
    const VALUE_BYTES: u64 = 1_000;
    const CHUNK_RECORDS: u64 = 64 << 10;
    const AHEAD: usize = 4;
    let upkeep = UpkeepOptions { every: Duration::from_secs(1), ..UpkeepOptions::default() };
    let log = Log::open(data, LogOptions { upkeep, ..Safety::Os.log_options()? })?;
    let retention = Retention { bytes: Some(256 << 20), ..Retention::default() };
    let topic = TopicConfig { partitions: 6, segment_bytes: 64 << 20, retention, ..TopicConfig::default() };
    log.create_topic(TOPIC, topic)?;
    let mut consumer = Consumer::of_topic(&log, TOPIC, ConsumerOptions::default())?;
    let chunks = bytes.div_ceil(VALUE_BYTES * CHUNK_RECORDS);
    let (came, arrivals) = mpsc::channel();
    let reader = lotic_log::spawn::spawn("bench-consumer", move || -> lotic_log::Result<()> {
        for _ in 0..chunks {
            let mut left = CHUNK_RECORDS;
            while left > 0 {
                let mut count = 0;
                consumer.poll(|_, _| {
                    count += 1;
                    if count == left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                left -= count;
                if count == 0 {
                    consumer.wait(PATIENCE)?;
                }
            }
            // Whoever writes has gone if nobody listens.
            let _ = came.send(());
        }
        Ok(())
    })?;
    let producer =
        Producer::new(&log, ProducerOptions { batch_bytes: BATCH_BYTES, ..ProducerOptions::default() })?;
    let value = Bytes::from(vec![b'x'; VALUE_BYTES as usize]);
    let (mut resident, mut written) = (Vec::new(), 0);
    for chunk in 0..chunks {
        (0..CHUNK_RECORDS).for_each(|_| send(&producer, value.clone()));
        if chunk as usize >= AHEAD {
            arrivals.recv_timeout(PATIENCE)?;
        }
        written += CHUNK_RECORDS * VALUE_BYTES;
        if written / each > resident.len() as u64 {
            resident.push(resident_memory() as f64);
        }
    }
    producer.flush()?;
    drop(arrivals);
    reader.join().map_err(|_| "the consumer has panicked")??;
    Ok(resident)
}

/// What compacting took, and the bytes it had before it.
pub(crate) fn compact(
    records: u64,
    keys: u64,
    value_bytes: usize,
    data: &Path,
) -> Result<(Cost, u64), Failure> {
    let log = Log::open(data, LogOptions { durability: Durability::Os, ..LogOptions::disk()? })?;
    let cleanup = lotic_log::CleanupPolicy::Compact;
    log.create_topic(TOPIC, TopicConfig { cleanup, ..TopicConfig::default() })?;
    let producer = Producer::new(&log, ProducerOptions::default())?;
    let value = Bytes::from(vec![b'v'; value_bytes]);
    // A stride that has no factor in common with the number of keys takes them all, out of order.
    let stride = (keys / 2 + 1) | 1;
    for index in 0..records {
        let key = Bytes::from(format!("key-{:012}", index * stride % keys));
        let record = Record { key: Some(key), value: Some(value.clone()), ..Record::default() };
        drop(producer.send(TOPIC, record));
    }
    producer.flush()?;
    let bytes = super::side::segment_bytes(data, TOPIC)?;
    let cost = in_process(|| {
        log.compact(TOPIC)?;
        Ok(())
    })?;
    drop(producer);
    log.close()?;
    Ok((cost, bytes))
}
