//! The settings of topics, from the log of a cluster's metadata.
//!
//! A record's value is a frame version (1), the kind of record and its version, all three as plain varints,
//! and then a flexible message. Of these kinds something is learnt; the source is Kafka's
//! `TopicRecord.json`, `PartitionRecord.json`, `ConfigRecord.json` and `RemoveTopicRecord.json`:
//!
//! | kind | | |
//! |---|---|---|
//! | 2 | a topic | name, id |
//! | 3 | a partition | number (`i32`), topic id |
//! | 4 | a setting | kind of thing (`i8`, 2 for a topic), its name, setting, value or null |
//! | 9 | a topic is gone | id |
//!
//! What was before a snapshot (`<offset>-<epoch>.checkpoint`, batches of the same records) may be gone from
//! the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::batch::{BATCH_BYTES_MAX, Compression, DecompressionBuffer, RecordBatch, TimestampType};
use crate::cleanup::CleanupPolicy;
use crate::error::{Error, Result};
use crate::files::{FileKind, Listing};
use crate::message_reader::MessageReader;
use crate::record::Offset;
use crate::scanner::{BatchPlace, Density, ReadError, Scanner};
use crate::storage::{OpenMode, Storage};
use crate::topic::{SEGMENT_BYTES_RANGE, TIME_MAX, TopicConfig};

const FRAME_VERSION: u32 = 1;
const TOPIC_RECORD: u32 = 2;
const PARTITION_RECORD: u32 = 3;
const CONFIG_RECORD: u32 = 4;
const REMOVE_TOPIC_RECORD: u32 = 9;
const TOPIC_RESOURCE: u8 = 2;

const SNAPSHOT_EXTENSION: &str = ".checkpoint";

/// What is set of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicSettings {
    /// How many partitions it has.
    pub(super) partitions: i32,
    values: BTreeMap<String, String>,
}

impl TopicSettings {
    /// Sets what there is a setting for here, too.
    pub(super) fn apply(&self, config: &mut TopicConfig) {
        if let Some(policy) = self.get("cleanup.policy") {
            let has = |wanted| policy.split(',').any(|one| one.trim() == wanted);
            config.cleanup = match (has("compact"), has("delete")) {
                (true, true) => CleanupPolicy::CompactAndDelete,
                (true, false) => CleanupPolicy::Compact,
                _ => CleanupPolicy::Delete,
            };
        }
        let retention = self.number("retention.ms").map(Duration::from_millis);
        config.retention.time = retention.filter(|time| *time <= TIME_MAX);
        config.retention.bytes = self.number("retention.bytes");
        self.apply_compaction(config);
        if let Some(bytes) = self.number("segment.bytes") {
            config.segment_bytes = bytes.clamp(*SEGMENT_BYTES_RANGE.start(), *SEGMENT_BYTES_RANGE.end());
        }
        if let Some(age) = self.time("segment.ms") {
            config.segment_age_max = age;
        }
        if let Some(bytes) = self.number("max.message.bytes") {
            config.batch_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX).clamp(1, BATCH_BYTES_MAX);
        }
        if let Some(bytes) = self.number("index.interval.bytes") {
            config.index_interval_bytes = bytes.max(1);
        }
        if let Some(compression) = self.compression() {
            config.compression = compression;
        }
        if self.get("message.timestamp.type") == Some("LogAppendTime") {
            config.timestamp_type = TimestampType::LogAppend;
        }
    }

    fn apply_compaction(&self, config: &mut TopicConfig) {
        let compaction = &mut config.compaction;
        if let Some(time) = self.time("delete.retention.ms") {
            compaction.delete_retention = time;
        }
        let ratio = self.get("min.cleanable.dirty.ratio").and_then(|ratio| ratio.parse::<f64>().ok());
        if let Some(ratio) = ratio {
            // A ratio is from 0 to 1, of which 1 is never reached.
            compaction.dirty_percent_min = (ratio * 100.0).clamp(0.0, 99.0) as u8;
        }
        if let Some(lag) = self.time("min.compaction.lag.ms") {
            compaction.lag_min = lag;
        }
        // As long as possible stands for no limit.
        let lag_max = self.number("max.compaction.lag.ms").map(Duration::from_millis);
        if let Some(lag) = lag_max.filter(|lag| *lag <= TIME_MAX) {
            compaction.lag_max = Some(lag.max(compaction.lag_min));
        }
    }

    /// `None` where every producer decides for itself.
    fn compression(&self) -> Option<Compression> {
        let level = |name| self.get(name).and_then(|level| level.parse().ok()).unwrap_or(0);
        Some(match self.get("compression.type")? {
            "uncompressed" => Compression::None,
            "gzip" => Compression::Gzip { level: level("compression.gzip.level").max(0) }.within_range(),
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd { level: level("compression.zstd.level") }.within_range(),
            _ => return None,
        })
    }

    /// A time, the longest that a setting may say at most.
    fn time(&self, name: &str) -> Option<Duration> {
        self.number(name).map(|millis| Duration::from_millis(millis).min(TIME_MAX))
    }

    /// A number; `None` where nothing is set, or -1, which stands for no limit.
    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

/// The settings of all topics, by name, from the partition in `directory`; none where there is none.
///
/// # Errors
/// Those of the operating system. A log that is torn is read up to there.
pub(super) fn read(storage: &Arc<dyn Storage>, directory: &Path) -> Result<BTreeMap<String, TopicSettings>> {
    let failed = |error| Error::io(format!("cannot read {}", directory.display()), error);
    if !storage.exists(directory).map_err(failed)? {
        return Ok(BTreeMap::new());
    }
    let mut metadata = Metadata::default();
    let mut begins = Offset(0);
    if let Some((path, end)) = newest_snapshot(&**storage, directory).map_err(failed)? {
        metadata.read_file(&**storage, &path, Offset(0), Offset(0))?;
        begins = end;
    }
    for base in Listing::read(&**storage, directory).map_err(failed)?.segments {
        metadata.read_file(&**storage, &FileKind::Log.path(directory, base), base, begins)?;
    }
    Ok(metadata.topics)
}

/// The snapshot that reaches furthest, and up to where.
fn newest_snapshot(storage: &dyn Storage, directory: &Path) -> std::io::Result<Option<(PathBuf, Offset)>> {
    let mut newest = None;
    for entry in storage.list(directory)? {
        let end = entry.name.strip_suffix(SNAPSHOT_EXTENSION).and_then(|name| name.split_once('-'));
        if let Some(end) = end.and_then(|(offset, _)| offset.parse().ok()) {
            newest = newest.max(Some((Offset(end), entry.name)));
        }
    }
    Ok(newest.map(|(end, name)| (directory.join(name), end)))
}

/// What the records have said so far.
#[derive(Default)]
struct Metadata {
    names: HashMap<[u8; 16], String>,
    topics: BTreeMap<String, TopicSettings>,
    scratch: DecompressionBuffer,
}

impl Metadata {
    /// Reads a file of batches whose first one has the offset `base` at least; those before `begins` are
    /// skipped.
    fn read_file(&mut self, storage: &dyn Storage, path: &Path, base: Offset, begins: Offset) -> Result<()> {
        let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
        let file = storage.open(path, OpenMode::Read).map_err(failed)?;
        let end = file.len().map_err(failed)?;
        let start = BatchPlace { position: 0, offset: base };
        let mut scanner = Scanner::new(file, start, end, Density::Sparse);
        loop {
            match scanner.next() {
                Ok(Some((_, batch))) if batch.header().is_control || batch.header().base_offset < begins => {}
                Ok(Some((_, batch))) => self.absorb(&batch),
                Ok(None) => return Ok(()),
                Err(ReadError::Io(error)) => return Err(failed(error)),
                Err(ReadError::Bad { place, error }) => {
                    tracing::warn!(file = %path.display(), offset = %place.offset, %error, "metadata is read up to here");
                    return Ok(());
                }
            }
        }
    }

    fn absorb(&mut self, batch: &RecordBatch<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Ok(records) = batch.records(&mut scratch) {
            for value in records.flatten().filter_map(|record| record.value) {
                // Kinds and versions that are not known say nothing here.
                let _: Option<()> = self.absorb_record(value);
            }
        }
        self.scratch = scratch;
    }

    fn absorb_record(&mut self, value: &[u8]) -> Option<()> {
        let mut input = MessageReader::new(value);
        let (frame_version, kind, _version) = (input.varint()?, input.varint()?, input.varint()?);
        match kind {
            _ if frame_version != FRAME_VERSION => return None,
            TOPIC_RECORD => {
                let name = input.nullable_text(true)??.to_owned();
                self.names.insert(input.array()?, name.clone());
                self.topics.entry(name).or_default();
            }
            PARTITION_RECORD => {
                let number = input.i32()?;
                let topic = self.topics.get_mut(self.names.get(&input.array()?)?)?;
                topic.partitions = topic.partitions.max(number.checked_add(1)?);
            }
            CONFIG_RECORD => {
                let [resource] = input.array()?;
                let (topic, setting) = (input.nullable_text(true)??, input.nullable_text(true)??);
                let value = input.nullable_text(true)?;
                if resource == TOPIC_RESOURCE {
                    let values = &mut self.topics.entry(topic.to_owned()).or_default().values;
                    match value {
                        Some(value) => values.insert(setting.to_owned(), value.to_owned()),
                        None => values.remove(setting),
                    };
                }
            }
            REMOVE_TOPIC_RECORD => {
                let name = self.names.remove(&input.array()?)?;
                self.topics.remove(&name);
            }
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleanup::{CompactionConfig, Retention};

    fn metadata(values: &[&str]) -> Metadata {
        let mut metadata = Metadata::default();
        for value in values {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16);
            let bytes: Vec<_> =
                value.as_bytes().chunks(2).map(|pair| byte(pair).expect("hexadecimal")).collect();
            metadata.absorb_record(&bytes).expect("it is whole");
        }
        metadata
    }

    /// From `__cluster_metadata` of a broker of Kafka 4.3.1: two topics, their settings and partitions.
    const PLAIN: &str = "01020006706c61696e614f9eedb0134c38ba3444417a36251800";
    const PLAIN_SEGMENT_MS: &str = "0104000206706c61696e0b7365676d656e742e6d7306363030303000";
    const PLAIN_PARTITION: &str = "01030200000000614f9eedb0134c38ba3444417a3625180200000001020000000101010000000\
                                   10000000000000000029c1685e8b03b1fcc4369885ccf2fa64d00";
    const SNAPPY: &str = "01020007736e61707079f469591cbc8e41009db0ea6550923e4000";
    const SNAPPY_TYPE: &str = "0104000207736e6170707911636f6d7072657373696f6e2e7479706507736e6170707900";
    const OF_A_BROKER: &str = "0104000401146d696e2e696e73796e632e7265706c69636173023100";

    #[test]
    fn topics_partitions_and_settings_are_those_that_kafka_wrote() {
        let metadata =
            metadata(&[OF_A_BROKER, PLAIN, PLAIN_SEGMENT_MS, PLAIN_PARTITION, SNAPPY, SNAPPY_TYPE]);
        let names: Vec<_> = metadata.topics.keys().map(String::as_str).collect();
        assert_eq!(names, ["plain", "snappy"]);
        assert_eq!(metadata.topics["plain"].get("segment.ms"), Some("60000"));
        assert_eq!(metadata.topics["plain"].partitions, 1);
        assert_eq!(metadata.topics["snappy"].compression(), Some(Compression::Snappy));
    }

    /// Put together by hand from `RemoveTopicRecord.json`.
    #[test]
    fn a_topic_that_is_gone_leaves_no_settings_to_one_of_its_name() {
        let removed = "010900f469591cbc8e41009db0ea6550923e4000";
        let metadata = metadata(&[SNAPPY, SNAPPY_TYPE, removed]);
        assert_eq!(metadata.topics, BTreeMap::new());
    }

    #[test]
    fn settings_are_brought_into_their_ranges_and_unknown_ones_left() {
        let check = |values: &[(&str, &str)], expected: TopicConfig| {
            let values = values.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let mut config = TopicConfig::default();
            TopicSettings { partitions: 1, values }.apply(&mut config);
            assert_eq!(config, expected);
        };
        let default = TopicConfig::default;
        check(&[("compression.type", "producer"), ("preallocate", "true")], default());
        check(&[("segment.bytes", "14")], TopicConfig { segment_bytes: 128, ..default() });
        let compression = Compression::Zstd { level: -3 };
        let zstd = [("compression.type", "zstd"), ("compression.zstd.level", "-3")];
        check(&zstd, TopicConfig { compression, ..default() });
        let compression = Compression::Gzip { level: 0 };
        let gzip = [("compression.type", "gzip"), ("compression.gzip.level", "-1")];
        check(&gzip, TopicConfig { compression, ..default() });
        for (codec, level, compression) in
            [("gzip", "10", Compression::Gzip { level: 9 }), ("zstd", "23", Compression::Zstd { level: 22 })]
        {
            let setting = format!("compression.{codec}.level");
            let values = [("compression.type", codec), (setting.as_str(), level)];
            check(&values, TopicConfig { compression, ..default() });
        }
        let timestamps = [("message.timestamp.type", "LogAppendTime")];
        check(&timestamps, TopicConfig { timestamp_type: TimestampType::LogAppend, ..default() });
        let policy = [("cleanup.policy", "delete,compact")];
        check(&policy, TopicConfig { cleanup: CleanupPolicy::CompactAndDelete, ..default() });
        let retention = Retention { time: Some(Duration::from_secs(60)), bytes: None };
        let values = [("retention.ms", "60000"), ("retention.bytes", "-1")];
        check(&values, TopicConfig { retention, ..default() });
        check(&[("retention.ms", "9223372036854775807")], default());
        let segments =
            [("segment.ms", "60000"), ("max.message.bytes", "2000"), ("index.interval.bytes", "0")];
        let segment_age_max = Duration::from_secs(60);
        let expected =
            TopicConfig { segment_age_max, batch_bytes_max: 2000, index_interval_bytes: 1, ..default() };
        check(&segments, expected);
        check(
            &[("segment.ms", "9223372036854775807")],
            TopicConfig { segment_age_max: TIME_MAX, ..default() },
        );
    }

    #[test]
    fn how_a_topic_was_compacted_is_how_it_is_compacted() {
        let check = |values: &[(&str, &str)], expected: CompactionConfig| {
            let values = values.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let mut config = TopicConfig::default();
            TopicSettings { partitions: 1, values }.apply(&mut config);
            assert_eq!(config.compaction, expected);
            config.check("topic").expect("it is possible");
        };
        let default = CompactionConfig::default;
        let second = Duration::from_secs(1);
        check(
            &[("min.cleanable.dirty.ratio", "0.3")],
            CompactionConfig { dirty_percent_min: 30, ..default() },
        );
        check(
            &[("min.cleanable.dirty.ratio", "1.0")],
            CompactionConfig { dirty_percent_min: 99, ..default() },
        );
        check(&[("delete.retention.ms", "1000")], CompactionConfig { delete_retention: second, ..default() });
        check(&[("max.compaction.lag.ms", "9223372036854775807")], default());
        let lags = [("min.compaction.lag.ms", "1000"), ("max.compaction.lag.ms", "500")];
        check(&lags, CompactionConfig { lag_min: second, lag_max: Some(second), ..default() });
    }
}
