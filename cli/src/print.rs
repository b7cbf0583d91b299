//! Records as lines and as JSON.

use std::io::{self, Write};

use lotic_log::batch::RecordView;
use lotic_log::{PartitionId, Timestamp};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::base64;

/// Writes the value, as it is, and a line feed. A null value is an empty line.
pub(crate) fn plain(out: &mut impl Write, record: &RecordView<'_>) -> io::Result<()> {
    out.write_all(record.value.unwrap_or_default())?;
    out.write_all(b"\n")
}

/// Writes one JSON object and a line feed.
pub(crate) fn json(out: &mut impl Write, partition: PartitionId, record: &RecordView<'_>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        partition: i32,
        offset: i64,
        #[serde(serialize_with = "milliseconds")]
        timestamp: Timestamp,
        key: Option<Bytes<'a>>,
        value: Option<Bytes<'a>>,
        headers: Headers<'a>,
    }
    let line = Line {
        partition: partition.0,
        offset: record.offset.0,
        timestamp: record.timestamp,
        key: record.key.map(Bytes),
        value: record.value.map(Bytes),
        headers: Headers(record),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(time.0)
}

/// Text where the bytes are UTF-8, else an object that says how they are shown.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &base64::encode(self.0))?;
        map.end()
    }
}

struct Headers<'a>(&'a RecordView<'a>);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Header<'a> {
            key: &'a str,
            value: Option<Bytes<'a>>,
        }
        let mut list = serializer.serialize_seq(Some(self.0.headers.len()))?;
        for header in self.0.headers.iter() {
            list.serialize_element(&Header { key: header.key, value: header.value.map(Bytes) })?;
        }
        list.end()
    }
}
