//! Encoding and decoding of record batches in memory, checksums included: the floor under everything
//! that the log does. Beside a plain loop that copies the same values into a buffer.

use std::hint::black_box;

use lotic_log::Timestamp;
use lotic_log::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};

use crate::Failure;
use crate::measure::{Side, alternate, in_process, report};

const RECORDS: u64 = 10_000_000;
const BATCH_BYTES: usize = 256 << 10;
const VALUE: [u8; 100] = [0x5a; 100];

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let sides = vec![
        Side::new("encode", || in_process(|| encode(RECORDS).map(drop))),
        Side::new("decode", || in_process(decode)),
        Side::new("plain copy", || in_process(copy)),
    ];
    report("Record batches of 100-byte values, in memory", "records", RECORDS, &alternate(runs, sides)?);
    Ok(())
}

/// Encodes `records`; the last full batch.
fn encode(records: u64) -> Result<Option<SealedBatch>, Failure> {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut batch = None;
    for index in 0..records {
        builder.push(Timestamp(index as i64), None, Some(&VALUE), &[])?;
        if builder.encoded_len() > BATCH_BYTES {
            let mut sealed = builder.seal();
            black_box(sealed.finish());
            batch = Some(sealed);
        }
    }
    Ok(batch)
}

fn decode() -> Result<(), Failure> {
    let mut batch = encode(BATCH_BYTES as u64 / 50)?.ok_or("no batch was filled")?;
    let batch = batch.read()?;
    let mut scratch = DecompressionBuffer::new();
    let mut records = 0;
    while records < RECORDS {
        batch.verify()?;
        for record in batch.records(&mut scratch)? {
            black_box(record?.value);
            records += 1;
        }
    }
    Ok(())
}

fn copy() -> Result<(), Failure> {
    let mut buffer = Vec::with_capacity(BATCH_BYTES + VALUE.len());
    for _ in 0..RECORDS {
        buffer.extend_from_slice(black_box(&VALUE));
        if buffer.len() > BATCH_BYTES {
            black_box(&buffer);
            buffer.clear();
        }
    }
    Ok(())
}
