//! Where the records went.

use std::collections::BTreeMap;

use lotic_log::{Offset, PartitionId, RecordPlace};
use serde_json::json;

/// What was written, by partition.
#[derive(Debug, Default)]
pub(super) struct Written {
    partitions: BTreeMap<PartitionId, Extent>,
}

/// What went to a partition.
#[derive(Clone, Copy, Debug)]
struct Extent {
    records: u64,
    first: Offset,
    last: Offset,
}

impl Written {
    /// Takes note of a record.
    pub(super) fn note(&mut self, RecordPlace { partition, offset }: RecordPlace) {
        let begun = Extent { records: 0, first: offset, last: offset };
        let extent = self.partitions.entry(partition).or_insert(begun);
        extent.records += 1;
        extent.first = extent.first.min(offset);
        extent.last = extent.last.max(offset);
    }

    pub(super) fn text(&self, topic: &str) -> String {
        let records = self.records();
        let plural = if records == 1 { "" } else { "s" };
        format!("{records} record{plural} written to {topic}")
    }

    pub(super) fn json(&self, topic: &str) -> serde_json::Value {
        let partition = |(partition, extent): (&PartitionId, &Extent)| {
            json!({
                "partition": partition.0,
                "records": extent.records,
                "first_offset": extent.first.0,
                "last_offset": extent.last.0,
            })
        };
        let partitions: Vec<_> = self.partitions.iter().map(partition).collect();
        json!({ "topic": topic, "records": self.records(), "partitions": partitions })
    }

    fn records(&self) -> u64 {
        self.partitions.values().map(|extent| extent.records).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_and_placed_by_partition() {
        let mut written = Written::default();
        for (partition, offset) in [(1, 7), (0, 3), (1, 8), (1, 9)] {
            written.note(RecordPlace { partition: PartitionId(partition), offset: Offset(offset) });
        }
        let expected = json!({
            "topic": "words",
            "records": 4,
            "partitions": [
                { "partition": 0, "records": 1, "first_offset": 3, "last_offset": 3 },
                { "partition": 1, "records": 3, "first_offset": 7, "last_offset": 9 },
            ],
        });
        assert_eq!(written.json("words"), expected);
        assert_eq!(written.text("words"), "4 records written to words");
        let nothing = json!({ "topic": "words", "records": 0, "partitions": [] });
        assert_eq!(Written::default().json("words"), nothing);
    }
}
