//! Kafka's DumpLogSegments on partitions that Lotic has compacted: nothing to complain of but that offsets are
//! missing, and the records that a model of compaction keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lotic_log::batch::{BatchBuilder, Compression, MarkerKind, ProducerStamp};
use lotic_log::{
    CleanupPolicy, CompactionConfig, Durability, Log, LogOptions, Partition, PartitionId, ProducerEpoch,
    ProducerId, Sequence, Timestamp, TopicConfig,
};
use lotic_tests::failure::{Result, ensure};
use lotic_tests::kafka::{DumpedFile, Kafka};

use super::dumping::{dump_with_gaps, files_of};

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const KEYS: i64 = 9;
const RECORDS_PER_BATCH: i64 = 3;

/// The last record of each key by offset and value, of those that count.
type Model = BTreeMap<String, (i64, Option<String>)>;

fn config() -> TopicConfig {
    TopicConfig {
        cleanup: CleanupPolicy::Compact,
        durability: Some(Durability::Os),
        segment_bytes: 3_000,
        index_interval_bytes: 300,
        snapshot_interval_bytes: 5_000,
        compaction: CompactionConfig { delete_retention: Duration::ZERO, ..CompactionConfig::default() },
        ..TopicConfig::default()
    }
}

/// Writes the batches of these numbers: plain ones, those of an idempotent producer, and transactions, every
/// other one of them aborted.
fn write(
    partition: &Partition,
    compression: Compression,
    numbers: std::ops::Range<i64>,
    model: &mut Model,
) -> Result<()> {
    for n in numbers {
        let mut builder = BatchBuilder::new(compression);
        let mut records = Vec::new();
        for index in 0..RECORDS_PER_BATCH {
            let key = format!("key-{}", (n * 5 + index * 2) % KEYS);
            let is_tombstone = n % 11 == 0 && index == 1;
            let value = (!is_tombstone).then(|| format!("value {n} {index}, and a value, and a value"));
            let time = Timestamp(1_700_000_000_000 + n * 50 - index * 20);
            builder.push(time, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[])?;
            records.push((key, value));
        }
        let mut batch = builder.seal();
        let stamp = |id, epoch: i64, sequence: i64, transactional| ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch as i16),
            base_sequence: Sequence(sequence as i32),
            transactional,
        };
        let is_transaction = n % 4 == 2;
        match n % 4 {
            1 => batch.stamp(Some(stamp(40, 0, n / 4 * RECORDS_PER_BATCH, false))),
            2 => batch.stamp(Some(stamp(70, n / 4, 0, true))),
            _ => {}
        }
        let base = partition.append_to_transaction(batch)?.base_offset.0;
        let is_aborted = is_transaction && n % 8 == 2;
        if is_transaction {
            let kind = if is_aborted { MarkerKind::Abort } else { MarkerKind::Commit };
            let epoch = ProducerEpoch((n / 4) as i16);
            partition.append_marker(kind, ProducerId(70), epoch, 0)?.ok_or("the transaction was open")?;
        }
        if !is_aborted {
            let offsets = base..;
            model.extend(
                records.into_iter().zip(offsets).map(|((key, value), offset)| (key, (offset, value))),
            );
        }
    }
    Ok(())
}

/// Offset, key and value of all records that were dumped of a folder.
fn dumped_records(files: &[DumpedFile], folder: &Path) -> Result<Vec<(i64, String, Option<String>)>> {
    let mut records = Vec::new();
    for batch in files.iter().filter(|file| file.path.parent() == Some(folder)).flat_map(|file| &file.batches)
    {
        ensure(batch.field::<bool>("isvalid")?, || format!("not valid: {batch:?}"))?;
        if batch.field::<bool>("isControl")? {
            continue;
        }
        for record in &batch.records {
            let key = record.key().ok_or("every record has a key")?.to_owned();
            records.push((record.field("offset")?, key, record.value().map(str::to_owned)));
        }
    }
    Ok(records)
}

#[test]
fn kafkas_tools_read_what_lotic_has_compacted() -> Result<()> {
    let Some(kafka) = Kafka::find("kafkas_tools_read_what_lotic_has_compacted")? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let log = Log::open(folder.path(), LogOptions::disk()?)?;
    let mut expected: Vec<(PathBuf, Model)> = Vec::new();
    for name in COMPRESSIONS {
        let (topic, compression) = (format!("compacted-{name}"), name.parse()?);
        let partition = log.create_topic(&topic, config())?.partition(PartitionId(0))?;
        let mut model = Model::new();
        write(&partition, compression, 0..160, &mut model)?;
        let first = log.compact(&topic)?;
        ensure(first.iter().any(|report| report.bytes_after < report.bytes_before), || format!("{first:?}"))?;
        write(&partition, compression, 160..240, &mut model)?;
        log.compact(&topic)?;
        // The time of tombstones, and of markers that mark nothing any more, is over.
        log.compact(&topic)?;
        model.retain(|_, (_, value)| value.is_some());
        write(&partition, compression, 240..243, &mut model)?;
        expected.push((folder.path().join(partition.name().to_string()), model));
    }
    log.close()?;

    let (mut everything, mut indexes) = (Vec::new(), Vec::new());
    for (folder, _) in &expected {
        everything.extend(files_of(folder, &["log", "index", "timeindex", "txnindex", "snapshot"])?);
        indexes.extend(files_of(folder, &["index", "timeindex"])?);
    }
    let runs: [(&[&str], _); 3] = [
        (&["--deep-iteration", "--print-data-log"], everything),
        (&["--index-sanity-check"], indexes.clone()),
        (&["--verify-index-only"], indexes),
    ];
    let dumps = dump_with_gaps(&kafka, &runs)?;
    for (folder, model) in &expected {
        let mut kept: Vec<_> =
            model.iter().map(|(key, (offset, value))| (*offset, key.clone(), value.clone())).collect();
        kept.sort();
        let dumped = dumped_records(&dumps[0], folder)?;
        // What was appended last is in the active segment, and took nothing away.
        let before = dumped
            .iter()
            .filter(|(offset, ..)| kept.binary_search_by_key(offset, |(offset, ..)| *offset).is_ok());
        ensure(before.clone().eq(&kept), || {
            format!("{}: {dumped:#?} instead of {kept:#?}", folder.display())
        })?;
        let more = dumped.len() - kept.len();
        ensure(more <= KEYS as usize, || {
            format!("{}: {more} records more than the last of each key", folder.display())
        })?;
        let producers = dumps[0].iter().rfind(|file| {
            file.path.parent() == Some(folder)
                && file.path.extension().is_some_and(|found| found == "snapshot")
        });
        let lines = &producers.ok_or("there is a snapshot")?.lines;
        ensure(lines.len() == 2, || format!("two producers: {lines:?}"))?;
    }
    Ok(())
}
