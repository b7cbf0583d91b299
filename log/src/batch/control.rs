//! Control batches: the markers that end a transaction in a partition.
//!
//! One record. Its key: version (`i16`, 0), type (`i16`, 0 abort, 1 commit). Its value: version
//! (`i16`, 0), coordinator epoch (`i32`). Kafka's `ControlRecordType` and `EndTransactionMarker`.

use super::{
    BatchBuilder, BatchError, Compression, DecompressionBuffer, ProducerStamp, RecordBatch, SealedBatch,
};
use crate::record::{ProducerEpoch, ProducerId, Sequence, Timestamp};

const VERSION: i16 = 0;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkerKind {
    /// Its records count.
    Commit,
    /// Its records are to be skipped.
    Abort,
}

impl MarkerKind {
    fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
        }
    }
}

/// What a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// How the transaction ended.
    pub kind: MarkerKind,
    /// The reign of the coordinator that ended it.
    pub coordinator_epoch: i32,
}

/// A control batch that ends the transaction of this producer and epoch.
pub fn marker(
    kind: MarkerKind,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    coordinator_epoch: i32,
    timestamp: Timestamp,
) -> SealedBatch {
    let mut key = [0; 4];
    key[..2].copy_from_slice(&VERSION.to_be_bytes());
    key[2..].copy_from_slice(&kind.id().to_be_bytes());
    let mut value = [0; 6];
    value[..2].copy_from_slice(&VERSION.to_be_bytes());
    value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());

    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(timestamp, Some(&key), Some(&value), &[]).expect("a first, small record always fits");
    let mut batch = builder.seal();
    batch.set_control();
    batch.stamp(Some(ProducerStamp {
        id: producer_id,
        epoch: producer_epoch,
        base_sequence: Sequence::NONE,
        transactional: true,
    }));
    batch
}

/// The marker in `batch`.
pub(super) fn read(batch: &RecordBatch<'_>) -> Result<ControlRecord, BatchError> {
    let bad = |reason| BatchError::BadRecord { index: 0, reason };
    if !batch.header().is_control {
        return Err(bad("its batch is not a control batch"));
    }
    let mut scratch = DecompressionBuffer::new();
    let record = batch.records(&mut scratch)?.next().ok_or(bad("a control batch holds no record"))??;
    let kind = match record.key.and_then(|key| key.get(2..4)) {
        Some([0, 0]) => MarkerKind::Abort,
        Some([0, 1]) => MarkerKind::Commit,
        Some(_) => return Err(bad("a control record is of an unknown type")),
        None => return Err(bad("a control record has no type")),
    };
    let epoch = record.value.and_then(|value| value.get(2..)).and_then(|value| value.first_chunk::<4>());
    let epoch = epoch.ok_or(bad("a marker has no coordinator epoch"))?;
    Ok(ControlRecord { kind, coordinator_epoch: i32::from_be_bytes(*epoch) })
}
