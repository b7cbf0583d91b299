//! What there is to say of a topic, as text and as JSON.

use std::io::{self, Write};
use std::time::Duration;

use lotic_log::batch::TimestampType;
use lotic_log::{CleanupPolicy, Durability, OpenTransaction, Partition, Topic, TopicConfig};
use serde_json::json;

use crate::time::show_duration;

/// Prints a topic's settings, and each partition's offsets, size and open transactions.
pub(super) fn describe(out: &mut impl Write, topic: &Topic, as_json: bool) -> io::Result<()> {
    if as_json {
        let mut object = settings(topic);
        object["partitions"] = topic.partitions().iter().map(|partition| whole(partition)).collect();
        return writeln!(out, "{object}");
    }
    writeln!(out, "topic           {}", topic.name())?;
    writeln!(out, "id              {}", topic.id())?;
    tell_settings(out, topic.config())?;
    writeln!(out)?;
    writeln!(
        out,
        "{:>9} {:>14} {:>14} {:>14} {:>8} {:>16}",
        "partition", "start", "stable", "end", "segments", "bytes"
    )?;
    for partition in topic.partitions() {
        let (offsets, size) = (partition.offsets(), partition.size());
        let (number, start, stable) = (partition.name().partition, offsets.start, offsets.stable);
        write!(out, "{number:>9} {start:>14} {stable:>14} {:>14} ", offsets.end)?;
        writeln!(out, "{:>8} {:>16}", size.segments, size.bytes)?;
    }
    topic.partitions().iter().try_for_each(|partition| tell_transactions(out, partition))
}

fn tell_settings(out: &mut impl Write, config: &TopicConfig) -> io::Result<()> {
    let TopicConfig { cleanup, retention, compaction, .. } = config;
    writeln!(out, "cleanup         {}", cleanup_name(*cleanup))?;
    if cleanup.deletes() {
        let time = retention.time.map_or("for ever".to_owned(), show_duration);
        let bytes = retention.bytes.map_or("any number of".to_owned(), |bytes| bytes.to_string());
        writeln!(out, "kept            {time}, {bytes} bytes")?;
    }
    if cleanup.compacts() {
        writeln!(out, "compacted       above {} % dirty bytes", compaction.dirty_percent_min)?;
        let least = show_duration(compaction.lag_min);
        let most = compaction.lag_max.map_or("none".to_owned(), show_duration);
        writeln!(out, "compaction lag  {least} at least, {most} at most")?;
        writeln!(out, "tombstones      kept for {}", show_duration(compaction.delete_retention))?;
    }
    writeln!(
        out,
        "segments        {} bytes, {}",
        config.segment_bytes,
        show_duration(config.segment_age_max)
    )?;
    writeln!(out, "batches         {} bytes at most", config.batch_bytes_max)?;
    writeln!(out, "index interval  {} bytes", config.index_interval_bytes)?;
    writeln!(out, "timestamps      {}", timestamp_name(config.timestamp_type))?;
    writeln!(out, "compression     {}", config.compression)?;
    let durability = match config.durability {
        None => "as the program says that opens the log".to_owned(),
        Some(Durability::Interval(every)) => format!("synced every {}", show_duration(every)),
        Some(durability) => durability_name(durability),
    };
    writeln!(out, "durability      {durability}")
}

/// Names what holds `stable` back, and the transactions behind it.
fn tell_transactions(out: &mut impl Write, partition: &Partition) -> io::Result<()> {
    let stable = partition.offsets().stable;
    for (index, open) in partition.open_transactions().iter().enumerate() {
        let OpenTransaction { producer_id, producer_epoch, first_offset } = open;
        let number = partition.name().partition;
        if index == 0 {
            writeln!(out)?;
        }
        write!(
            out,
            "partition {number}: a transaction of producer {producer_id}, epoch {producer_epoch}, is "
        )?;
        write!(out, "open since offset {first_offset}")?;
        writeln!(out, "{}", if *first_offset == stable { ", and holds stable back" } else { "" })?;
    }
    Ok(())
}

/// The summary of a topic and its settings; times in milliseconds, null where there is no limit.
pub(super) fn settings(topic: &Topic) -> serde_json::Value {
    let config = topic.config();
    let milliseconds = |time: Duration| time.as_millis() as u64;
    let mut object = summary(topic);
    object["segment_bytes"] = json!(config.segment_bytes);
    object["segment_age_ms"] = json!(milliseconds(config.segment_age_max));
    object["batch_bytes_max"] = json!(config.batch_bytes_max);
    object["index_interval_bytes"] = json!(config.index_interval_bytes);
    object["timestamp_type"] = json!(timestamp_name(config.timestamp_type));
    object["compression"] = json!(config.compression.to_string());
    object["durability"] = json!(config.durability.map(durability_name));
    object["retention_ms"] = json!(config.retention.time.map(milliseconds));
    object["retention_bytes"] = json!(config.retention.bytes);
    object["dirty_percent"] = json!(config.compaction.dirty_percent_min);
    object["compaction_lag_ms"] = json!(milliseconds(config.compaction.lag_min));
    object["compaction_lag_max_ms"] = json!(config.compaction.lag_max.map(milliseconds));
    object["delete_retention_ms"] = json!(milliseconds(config.compaction.delete_retention));
    object
}

pub(super) fn summary(topic: &Topic) -> serde_json::Value {
    json!({
        "name": topic.name(),
        "id": topic.id().to_string(),
        "partitions": topic.partitions().len(),
        "cleanup": cleanup_name(topic.config().cleanup),
    })
}

fn whole(partition: &Partition) -> serde_json::Value {
    let (offsets, size) = (partition.offsets(), partition.size());
    let transaction = |open: &OpenTransaction| {
        json!({
            "producer_id": open.producer_id.0,
            "producer_epoch": open.producer_epoch.0,
            "first_offset": open.first_offset.0,
        })
    };
    let open: Vec<_> = partition.open_transactions().iter().map(transaction).collect();
    json!({
        "partition": partition.name().partition.0,
        "start": offsets.start.0,
        "stable": offsets.stable.0,
        "end": offsets.end.0,
        "segments": size.segments,
        "bytes": size.bytes,
        "open_transactions": open,
    })
}

/// As the command line takes it.
fn durability_name(durability: Durability) -> String {
    match durability {
        Durability::Sync => "sync".to_owned(),
        Durability::Os => "os".to_owned(),
        Durability::Interval(every) => show_duration(every),
    }
}

fn timestamp_name(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::Create => "create",
        TimestampType::LogAppend => "append",
    }
}

pub(in crate::commands) fn cleanup_name(cleanup: CleanupPolicy) -> &'static str {
    match cleanup {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
        CleanupPolicy::CompactAndDelete => "compact,delete",
    }
}

#[cfg(test)]
mod tests {
    use lotic_log::batch::{BatchBuilder, Compression};
    use lotic_log::{Log, LogOptions, PartitionId, Timestamp};
    use serde_json::Value;

    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open(folder.path(), LogOptions::disk().expect("there is a disk"));
        (folder, log.expect("it is empty"))
    }

    fn described(topic: &Topic) -> (String, Value) {
        let shown = |as_json| {
            let mut out = Vec::new();
            describe(&mut out, topic, as_json).expect("there is memory");
            String::from_utf8(out).expect("it is text")
        };
        (shown(false), serde_json::from_str(&shown(true)).expect("it is JSON"))
    }

    #[test]
    fn all_settings_of_a_topic_are_shown() {
        let (_folder, log) = log();
        let hour = Duration::from_secs(3600);
        let config = TopicConfig {
            cleanup: CleanupPolicy::CompactAndDelete,
            durability: Some(Durability::Interval(Duration::from_secs(1))),
            segment_age_max: hour,
            index_interval_bytes: 512,
            retention: lotic_log::Retention { time: Some(24 * hour), bytes: Some(9_000) },
            compaction: lotic_log::CompactionConfig {
                dirty_percent_min: 20,
                lag_min: 2 * hour,
                lag_max: Some(3 * hour),
                delete_retention: 4 * hour,
            },
            ..TopicConfig::default()
        };
        let (text, object) = described(&log.create_topic("prices", config).expect("a new topic"));
        for line in [
            "cleanup         compact,delete",
            "kept            1d, 9000 bytes",
            "compacted       above 20 % dirty bytes",
            "compaction lag  2h at least, 3h at most",
            "tombstones      kept for 4h",
            "segments        1073741824 bytes, 1h",
            "index interval  512 bytes",
            "durability      synced every 1s",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!((&object["durability"], &object["index_interval_bytes"]), (&json!("1s"), &json!(512)));

        let (text, object) =
            described(&log.create_topic("orders", TopicConfig::default()).expect("a new topic"));
        assert!(text.contains("kept            for ever, any number of bytes\n"), "{text}");
        assert!(text.contains("durability      as the program says that opens the log\n"), "{text}");
        assert!(!text.contains("tombstones"), "{text}");
        assert_eq!(object["durability"], Value::Null);
        log.close().expect("the disk is fine");
    }

    #[test]
    fn what_holds_stable_back_is_named_with_its_producer_and_first_offset() {
        let (_folder, log) = log();
        let topic = log.create_topic("orders", TopicConfig::default()).expect("a new topic");
        let partition = topic.partition(PartitionId(0)).expect("there is one");
        let append = |transaction: &lotic_log::TransactionalProducer| {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(Timestamp(0), None, Some(b"value"), &[]).expect("it is small");
            transaction.append(&partition, builder.seal()).expect("the disk is fine");
        };
        let writers = ["first", "second"].map(|id| log.transactional(id).expect("a new one"));
        for writer in &writers {
            writer.begin().expect("none is open");
            append(writer);
        }
        log.flush(std::slice::from_ref(&partition), lotic_log::storage::SyncPurpose::Records)
            .wait()
            .expect("the disk is fine");
        let open = partition.open_transactions();
        let (text, object) = described(&topic);
        let line = |index: usize, behind: &str| {
            let OpenTransaction { producer_id, producer_epoch, .. } = open[index];
            let who = format!("producer {producer_id}, epoch {producer_epoch}");
            format!("partition 0: a transaction of {who}, is open since offset {index}{behind}\n")
        };
        let expected = line(0, ", and holds stable back") + &line(1, "");
        assert!(text.ends_with(&format!("\n\n{expected}")), "{text}");
        let row: Vec<_> = text.lines().rev().nth(3).expect("a row").split_whitespace().collect();
        let bytes = partition.size().bytes.to_string();
        assert_eq!(row, ["0", "0", "0", "2", "1", &bytes]);
        let object = &object["partitions"][0];
        assert_eq!((&object["stable"], &object["end"]), (&json!(0), &json!(2)));
        assert_eq!((&object["segments"], &object["bytes"]), (&json!(1), &json!(partition.size().bytes)));
        let first = &object["open_transactions"][0];
        assert_eq!(
            (&first["producer_id"], &first["first_offset"]),
            (&json!(open[0].producer_id.0), &json!(0))
        );

        for writer in writers {
            writer.begin_abort().wait().expect("the disk is fine");
        }
        let (text, object) = described(&topic);
        assert!(!text.contains("transaction"), "{text}");
        assert_eq!(object["partitions"][0]["open_transactions"], json!([]));
        log.close().expect("the disk is fine");
    }
}
