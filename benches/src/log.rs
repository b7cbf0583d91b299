//! Append and replay of records of 100 B and 1 KB: Lotic, a plain loop that writes and reads as many
//! bytes, and Kafka's own tools. All leave durability to the page cache, as Kafka does by default.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use lotic_log::{
    Consumer, ConsumerOptions, Durability, Log, LogOptions, PartitionId, Producer, ProducerOptions, Record,
    TopicConfig, TopicPartition,
};

use crate::Failure;
use crate::kafka::Kafka;
use crate::measure::{Cost, Side, alternate, in_process, report};

/// Bytes that the plain loop writes or reads at a time: as much as a batch of either side.
const CHUNK_BYTES: usize = 256 << 10;

/// Different payloads that are written in turn.
const PAYLOADS: usize = 1_000;

struct Size {
    name: &'static str,
    bytes: usize,
    records: u64,
}

const SIZES: [Size; 2] = [
    Size { name: "100 B", bytes: 100, records: 5_000_000 },
    Size { name: "1 KB", bytes: 1_000, records: 1_000_000 },
];

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let mut kafka = match Kafka::start() {
        Ok(kafka) => Some(kafka),
        Err(failure) => {
            println!("Kafka is left out: {failure}");
            None
        }
    };
    for size in &SIZES {
        measure(size, runs, kafka.as_mut())?;
    }
    Ok(())
}

fn measure(size: &Size, runs: usize, mut kafka: Option<&mut Kafka>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let payloads = payloads(size.bytes);
    let payload_file = directory.path().join("payloads");
    File::create(&payload_file)?.write_all(&payloads.join(&b'\n'))?;
    let data = directory.path().join("data");
    let plain = directory.path().join("plain");
    let bytes = size.bytes as u64 * size.records;
    let mut topic = String::new();

    let mut sides = vec![
        Side::new("Lotic", || append(&data, &payloads, size.records)),
        Side::new("plain loop", || in_process(|| write_plainly(&plain, bytes))),
    ];
    if let Some(kafka) = kafka.as_deref_mut() {
        sides.push(Side::new("Kafka", || {
            let (cost, written) = kafka.produce(&payload_file, size.records)?;
            topic = written;
            Ok(cost)
        }));
    }
    let appends = alternate(runs, sides)?;
    report(&format!("Append, records of {}", size.name), "records", size.records, &appends);

    let mut sides = vec![
        Side::new("Lotic", || replay(&data, size.records)),
        Side::new("plain loop", || in_process(|| read_plainly(&plain))),
    ];
    if let Some(kafka) = kafka {
        sides.push(Side::new("Kafka", || kafka.consume(&topic, size.records)));
    }
    let replays = alternate(runs, sides)?;
    report(&format!("Replay, records of {}", size.name), "records", size.records, &replays);
    Ok(())
}

/// Printable bytes that do not repeat within a payload; the same for all sides.
fn payloads(bytes: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state % 26) as u8
    };
    (0..PAYLOADS).map(|_| (0..bytes).map(|_| next()).collect()).collect()
}

fn append(data: &Path, payloads: &[Vec<u8>], records: u64) -> Result<Cost, Failure> {
    if data.exists() {
        std::fs::remove_dir_all(data)?;
    }
    let log = Log::open(data, LogOptions { durability: Durability::Os, ..LogOptions::disk()? })?;
    log.create_topic("bench", TopicConfig::default())?;
    let options = ProducerOptions { batch_bytes: CHUNK_BYTES, ..ProducerOptions::default() };
    let producer = Producer::new(&log, options)?;
    let values: Vec<bytes::Bytes> = payloads.iter().map(|payload| payload.clone().into()).collect();
    let cost = in_process(|| {
        for index in 0..records {
            let value = values[index as usize % values.len()].clone();
            drop(producer.send("bench", Record { value: Some(value), ..Record::default() }));
        }
        Ok(producer.flush()?)
    })?;
    drop(producer);
    log.close()?;
    Ok(cost)
}

fn replay(data: &Path, records: u64) -> Result<Cost, Failure> {
    let log = Log::open_read_only(data, LogOptions::disk()?)?;
    let mut consumer = Consumer::new(&log, ConsumerOptions::default())?;
    consumer.assign(&[TopicPartition::new("bench", PartitionId(0))])?;
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

fn write_plainly(path: &Path, bytes: u64) -> Result<(), Failure> {
    let chunk = vec![b'x'; CHUNK_BYTES];
    let mut file = File::create(path)?;
    for _ in 0..bytes / CHUNK_BYTES as u64 {
        file.write_all(&chunk)?;
    }
    Ok(())
}

fn read_plainly(path: &Path) -> Result<(), Failure> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut file = File::open(path)?;
    while file.read(&mut chunk)? > 0 {
        std::hint::black_box(&chunk);
    }
    Ok(())
}
