//! The catalogue as text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use super::{Catalogue, CatalogueEntry, DeletedTopic};
use crate::batch::{Compression, TimestampType};
use crate::cleanup::{Cleanup, CleanupPolicy, CompactionConfig, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::partition::Durability;
use crate::topic::{TopicConfig, check_name};

const FIRST_LINE: &str = "lotic-catalogue 1";
const TITLE: &str = "lotic-catalogue ";

pub(super) fn encode(catalogue: &Catalogue) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a string takes what is written to it");
        text.push('\n');
    };
    line(format_args!("producer-ids {}", catalogue.producer_ids_end));
    line(format_args!("topics-made {}", catalogue.topics_made));
    for (name, CatalogueEntry { id, config }) in &catalogue.topics {
        line(format_args!(
            "topic {name} id={id} partitions={} cleanup={} durability={} compression={} segment_bytes={} \
             batch_bytes_max={} index_interval_bytes={} snapshot_interval_bytes={} retention={} retention_bytes={} dirty_percent={} lag_min={} \
             lag_max={} delete_retention={} segment_age={}{}{}{}{}",
            config.partitions,
            encode_cleanup(config.cleanup),
            encode_durability(config.durability),
            config.compression,
            config.segment_bytes,
            config.batch_bytes_max,
            config.index_interval_bytes,
            config.snapshot_interval_bytes,
            encode_time(config.retention.time),
            config.retention.bytes.map_or_else(|| NEVER.to_owned(), |bytes| bytes.to_string()),
            config.compaction.dirty_percent_min,
            encode_time(Some(config.compaction.lag_min)),
            encode_time(config.compaction.lag_max),
            encode_time(Some(config.compaction.delete_retention)),
            encode_time(Some(config.segment_age_max)),
            if config.has_gaps { " gaps=yes" } else { "" },
            if config.timestamp_type == TimestampType::LogAppend { " timestamps=append" } else { "" },
            config.key_format.as_ref().map_or_else(String::new, |format| format!(" key_format={format}")),
            config.owner.as_ref().map_or_else(String::new, |owner| format!(" owner={owner}")),
        ));
    }
    for (name, DeletedTopic { id, partitions }) in &catalogue.deleting {
        line(format_args!("deleting {name} id={id} partitions={partitions}"));
    }
    let checksum = crc32fast::hash(text.as_bytes());
    text + &format!("crc32 {checksum:08x}\n")
}

pub(super) fn decode(bytes: &[u8]) -> Result<Catalogue> {
    let text = std::str::from_utf8(bytes).map_err(|_| corrupt("is not text"))?;
    let first = text.lines().next().unwrap_or_default();
    if first != FIRST_LINE {
        return Err(match first.strip_prefix(TITLE) {
            Some(version) => {
                Error::new(ErrorKind::Unsupported, format!("is of version {version}; this is version 1"))
            }
            None => corrupt("is no catalogue"),
        });
    }
    let body = check_whole(text)?;
    let mut catalogue = Catalogue::default();
    for line in body.lines().skip(1) {
        decode_line(line, &mut catalogue).ok_or_else(|| corrupt(format!("has a line {line:?}")))?;
    }
    Ok(catalogue)
}

/// The text without its last line, which is the checksum of the rest.
fn check_whole(text: &str) -> Result<&str> {
    let cut_off = || corrupt("is cut off");
    let start = text.strip_suffix('\n').and_then(|text| text.rfind('\n')).ok_or_else(cut_off)? + 1;
    let (body, last) = text.split_at(start);
    let stored = last.strip_prefix("crc32 ").ok_or_else(cut_off)?.trim_end();
    let computed = format!("{:08x}", crc32fast::hash(body.as_bytes()));
    if stored == computed {
        return Ok(body);
    }
    Err(corrupt(format!("has the checksum {computed}, not {stored} as it says")))
}

fn decode_line(line: &str, catalogue: &mut Catalogue) -> Option<()> {
    let (kind, rest) = line.split_once(' ')?;
    match kind {
        "producer-ids" => catalogue.producer_ids_end = rest.parse().ok()?,
        "topics-made" => catalogue.topics_made = rest.parse().ok()?,
        "topic" => {
            let (name, fields) = split_fields(rest)?;
            catalogue.topics.insert(name, decode_entry(&fields)?);
        }
        "deleting" => {
            let (name, fields) = split_fields(rest)?;
            let (id, partitions) = (parsed(&fields, "id")?, parsed(&fields, "partitions")?);
            catalogue.deleting.insert(name, DeletedTopic { id, partitions });
        }
        _ => return None,
    }
    Some(())
}

type Fields<'a> = BTreeMap<&'a str, &'a str>;

fn split_fields(text: &str) -> Option<(String, Fields<'_>)> {
    let mut words = text.split(' ');
    let name = words.next()?.to_owned();
    check_name(&name).ok()?;
    let fields = words.map(|word| word.split_once('=')).collect::<Option<_>>()?;
    Some((name, fields))
}

fn parsed<T: FromStr>(fields: &Fields<'_>, name: &str) -> Option<T> {
    fields.get(name)?.parse().ok()
}

/// What `decode` makes of a field; the default where an earlier version wrote the line.
fn decode_or<T>(
    fields: &Fields<'_>,
    name: &str,
    default: T,
    decode: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    fields.get(name).map_or(Some(default), |text| decode(text))
}

fn decode_entry(fields: &Fields<'_>) -> Option<CatalogueEntry> {
    let compaction = CompactionConfig::default();
    let config = TopicConfig {
        partitions: parsed(fields, "partitions")?,
        cleanup: decode_cleanup(fields.get("cleanup")?)?,
        durability: decode_durability(fields.get("durability")?)?,
        // A level that there is not was not refused once, and never more than its nearest.
        compression: Compression::parse_any_level(fields.get("compression")?).ok()?.within_range(),
        segment_bytes: parsed(fields, "segment_bytes")?,
        batch_bytes_max: parsed(fields, "batch_bytes_max")?,
        index_interval_bytes: parsed(fields, "index_interval_bytes")?,
        snapshot_interval_bytes: parsed(fields, "snapshot_interval_bytes")?,
        timestamp_type: decode_or(fields, "timestamps", TimestampType::Create, |text| {
            (text == "append").then_some(TimestampType::LogAppend)
        })?,
        has_gaps: fields.get("gaps").is_some_and(|&gaps| gaps == "yes"),
        retention: Retention {
            time: decode_or(fields, "retention", None, decode_time)?,
            bytes: decode_or(fields, "retention_bytes", None, |text| {
                if text == NEVER { Some(None) } else { text.parse().ok().map(Some) }
            })?,
        },
        compaction: CompactionConfig {
            dirty_percent_min: decode_or(fields, "dirty_percent", compaction.dirty_percent_min, |text| {
                text.parse().ok()
            })?,
            lag_min: decode_or(fields, "lag_min", compaction.lag_min, |text| decode_time(text)?)?,
            lag_max: decode_or(fields, "lag_max", compaction.lag_max, decode_time)?,
            delete_retention: decode_or(fields, "delete_retention", compaction.delete_retention, |text| {
                decode_time(text)?
            })?,
        },
        segment_age_max: decode_or(fields, "segment_age", Cleanup::SEGMENT_AGE_MAX, |text| {
            decode_time(text)?
        })?,
        key_format: fields.get("key_format").map(|&format| format.to_owned()),
        owner: fields.get("owner").map(|&owner| owner.to_owned()),
    };
    Some(CatalogueEntry { id: parsed(fields, "id")?, config })
}

fn encode_cleanup(cleanup: CleanupPolicy) -> &'static str {
    match cleanup {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
        CleanupPolicy::CompactAndDelete => "compact,delete",
    }
}

fn decode_cleanup(text: &str) -> Option<CleanupPolicy> {
    match text {
        "delete" => Some(CleanupPolicy::Delete),
        "compact" => Some(CleanupPolicy::Compact),
        "compact,delete" => Some(CleanupPolicy::CompactAndDelete),
        _ => None,
    }
}

/// A time that never comes.
const NEVER: &str = "never";

fn encode_time(time: Option<Duration>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| format!("{}ms", time.as_millis()))
}

fn decode_time(text: &str) -> Option<Option<Duration>> {
    if text == NEVER {
        return Some(None);
    }
    let milliseconds = text.strip_suffix("ms")?.parse().ok()?;
    Some(Some(Duration::from_millis(milliseconds)))
}

fn encode_durability(durability: Option<Durability>) -> String {
    match durability {
        None => "default".to_owned(),
        Some(Durability::Sync) => "sync".to_owned(),
        Some(Durability::Os) => "os".to_owned(),
        Some(Durability::Interval(every)) => format!("{}ms", every.as_millis()),
    }
}

fn decode_durability(text: &str) -> Option<Option<Durability>> {
    match text {
        "default" => Some(None),
        "sync" => Some(Some(Durability::Sync)),
        "os" => Some(Some(Durability::Os)),
        _ => {
            let milliseconds = text.strip_suffix("ms")?.parse().ok()?;
            Some(Some(Durability::Interval(Duration::from_millis(milliseconds))))
        }
    }
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
