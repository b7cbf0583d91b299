//! Records on their way into a batch.

use lotic_log::batch::{BatchBuilder, Compression};
use lotic_log::{Error, Header, Offset, Record, Timestamp, partition_for_key};

use super::super::script::{Content, PARTITIONS};

pub(super) fn by_key(content: &Content) -> i32 {
    let key = content.key.as_deref().expect("a record without a partition has a key");
    partition_for_key(key.as_bytes(), PARTITIONS).0
}

pub(super) fn places(partition: i32, base: Offset, records: &[Content]) -> Vec<(i32, i64)> {
    (0..records.len() as i64).map(|index| (partition, base.0 + index)).collect()
}

fn headers(content: &Content) -> Vec<Header> {
    let header = |(key, value): &(String, Option<String>)| Header {
        key: key.clone(),
        value: value.as_ref().map(|value| value.clone().into()),
    };
    content.headers.iter().map(header).collect()
}

pub(super) fn builder(compression: Compression, records: &[Content]) -> Result<BatchBuilder, Error> {
    let mut builder = BatchBuilder::new(compression);
    for content in records {
        let (key, value) = (content.key.as_deref(), content.value.as_deref());
        let pushed = builder.push(
            Timestamp(content.timestamp),
            key.map(str::as_bytes),
            value.map(str::as_bytes),
            &headers(content),
        );
        pushed.map_err(|error| error.within("a batch"))?;
    }
    Ok(builder)
}

pub(super) fn record(content: &Content) -> Record {
    Record {
        key: content.key.clone().map(Into::into),
        value: content.value.clone().map(Into::into),
        headers: headers(content),
        timestamp: Some(Timestamp(content.timestamp)),
    }
}
