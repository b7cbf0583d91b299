//! Kafka's DumpLogSegments on files that Lotic wrote: no complaint, and all that was written.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lotic_log::batch::{BatchBuilder, Compression, MarkerKind, ProducerStamp};
use lotic_log::group::{OffsetCommit, offset_commits, offsets_partition};
use lotic_log::{
    Consumer, ConsumerOptions, Durability, Header, Log, LogOptions, Offset, Partition, PartitionId,
    ProducerEpoch, ProducerId, Sequence, Timestamp, TopicConfig,
};
use lotic_tests::failure::{Result, ensure};
use lotic_tests::kafka::{DumpedBatch, DumpedFile, DumpedRecord, Kafka};

use super::dumping::{dump, files_of};

const COMPRESSIONS: [&str; 8] = ["none", "gzip", "gzip:9", "snappy", "lz4", "zstd", "zstd:1", "zstd:19"];

/// Batches that are larger are made smaller by every codec.
const SMALL_BYTES: i64 = 300;

/// What a record has that DumpLogSegments prints.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    header_keys: &'static str,
}

/// The `n`-th record of a test: keys, values and headers that are null or empty now and then, times in no
/// order.
fn content(n: i64) -> Content {
    let words = ["ich", "weiß", "nicht", "was", "soll", "es", "bedeuten"];
    let text: Vec<_> = (0..n % 40).map(|word| words[(word * n % 7) as usize]).collect();
    Content {
        timestamp: 1_700_000_000_000 + n * 7_919 % 10_000 + n,
        key: (n % 5 != 0).then(|| format!("key-{}", n % 11)),
        value: (n % 13 != 0).then(|| text.join(" ")),
        header_keys: if n % 3 == 0 { "[step,step]" } else { "[]" },
    }
}

/// A batch as it was appended.
struct Written {
    base_offset: i64,
    stamp: Option<ProducerStamp>,
    /// The records of a batch of records; a marker has none.
    records: Vec<Content>,
    marker: Option<(MarkerKind, i32)>,
}

/// A partition and all that was appended to it.
struct Scribe {
    partition: Arc<Partition>,
    compression: Compression,
    written: Vec<Written>,
    /// How many records there are.
    count: i64,
}

impl Scribe {
    fn new(log: &Log, topic: &str, compression: Compression) -> Result<Self> {
        let config = TopicConfig {
            durability: Some(Durability::Os),
            segment_bytes: 6_000,
            index_interval_bytes: 500,
            snapshot_interval_bytes: 10_000,
            ..TopicConfig::default()
        };
        let partition = log.create_topic(topic, config)?.partition(PartitionId(0))?;
        Ok(Self { partition, compression, written: Vec::new(), count: 0 })
    }

    /// Appends a batch of so many records; returns the offset of its first one.
    fn append(&mut self, records: i64, stamp: Option<ProducerStamp>) -> Result<i64> {
        let contents: Vec<_> = (self.count..self.count + records).map(content).collect();
        self.count += records;
        let header = |value: &'static str| Header { key: "step".to_owned(), value: Some(value.into()) };
        let headers = [header("one"), header("two")];
        let mut builder = BatchBuilder::new(self.compression);
        for one in &contents {
            let headers = if one.header_keys == "[]" { &[][..] } else { &headers };
            let (key, value) = (one.key.as_deref(), one.value.as_deref());
            builder.push(
                Timestamp(one.timestamp),
                key.map(str::as_bytes),
                value.map(str::as_bytes),
                headers,
            )?;
        }
        let mut batch = builder.seal();
        batch.stamp(stamp);
        let base_offset = self.partition.append_to_transaction(batch)?.base_offset.0;
        self.written.push(Written { base_offset, stamp, records: contents, marker: None });
        Ok(base_offset)
    }

    fn end_transaction(&mut self, kind: MarkerKind, stamp: ProducerStamp, coordinator: i32) -> Result<i64> {
        let marker = self.partition.append_marker(kind, stamp.id, stamp.epoch, coordinator)?;
        let base_offset = marker.ok_or("the transaction was not open")?.0;
        let stamp = Some(ProducerStamp { base_sequence: Sequence::NONE, ..stamp });
        self.written.push(Written {
            base_offset,
            stamp,
            records: Vec::new(),
            marker: Some((kind, coordinator)),
        });
        Ok(base_offset)
    }

    fn directory(&self, data: &Path) -> PathBuf {
        data.join(self.partition.name().to_string())
    }

    /// Checks the batches of all segments in order, as they were dumped.
    fn check(&self, dumped: &[&DumpedFile]) -> Result<()> {
        let batches: Vec<_> = dumped.iter().flat_map(|file| &file.batches).collect();
        let name = self.partition.name();
        ensure(batches.len() == self.written.len(), || {
            format!("{name}: {} batches are dumped, {} were written", batches.len(), self.written.len())
        })?;
        let codec = self.codec();
        let is_of_codec =
            |batch: &&&DumpedBatch| batch.field::<String>("compresscodec").is_ok_and(|name| name == codec);
        let of_codec = batches.iter().filter(is_of_codec).count();
        ensure(2 * of_codec > batches.len(), || format!("{name}: only {of_codec} batches are of {codec}"))?;
        for (batch, written) in batches.iter().zip(&self.written) {
            self.check_batch(batch, written).map_err(|failure| format!("{name}: {failure} in {batch:?}"))?;
        }
        Ok(())
    }

    fn codec(&self) -> String {
        let name = self.compression.to_string();
        name.split(':').next().unwrap_or_default().to_owned()
    }

    fn check_batch(&self, batch: &DumpedBatch, written: &Written) -> Result<()> {
        let none = ProducerStamp {
            id: ProducerId::NONE,
            epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            transactional: false,
        };
        let stamp = written.stamp.unwrap_or(none);
        check_field(batch, "baseOffset", written.base_offset)?;
        check_field(batch, "producerId", stamp.id.0)?;
        check_field(batch, "producerEpoch", i64::from(stamp.epoch.0))?;
        check_field(batch, "baseSequence", i64::from(stamp.base_sequence.0))?;
        ensure(batch.field::<bool>("isvalid")?, || "it is not valid".to_owned())?;
        ensure(batch.field::<bool>("isTransactional")? == stamp.transactional, || "isTransactional".into())?;
        ensure(batch.field::<bool>("isControl")? == written.marker.is_some(), || "isControl".into())?;
        if let Some((kind, coordinator)) = written.marker {
            let [record] = &batch.records[..] else { return Err("a marker is one record".into()) };
            let expected = if kind == MarkerKind::Commit { "COMMIT" } else { "ABORT" };
            ensure(record.field::<String>("endTxnMarker")? == expected, || "endTxnMarker".into())?;
            return ensure(record.field::<i32>("coordinatorEpoch")? == coordinator, || "coordinator".into());
        }
        check_field(batch, "count", written.records.len() as i64)?;
        let codec: String = batch.field("compresscodec")?;
        // A batch that compression would enlarge stays as it is.
        let is_as_asked = codec == self.codec();
        ensure(is_as_asked || codec == "none" && batch.field::<i64>("size")? < SMALL_BYTES, || {
            format!("codec {codec}")
        })?;
        let contents: Result<Vec<_>> = batch
            .records
            .iter()
            .enumerate()
            .map(|(index, record)| {
                let offset: i64 = record.field("offset")?;
                ensure(offset == written.base_offset + index as i64, || format!("offset {offset}"))?;
                let has_sequence = stamp.base_sequence != Sequence::NONE;
                let sequence = if has_sequence { stamp.base_sequence.0 + index as i32 } else { -1 };
                ensure(record.field::<i32>("sequence")? == sequence, || "sequence".into())?;
                let header_keys: String = record.field("headerKeys")?;
                Ok(Content {
                    timestamp: record.field("CreateTime")?,
                    key: record.key().map(str::to_owned),
                    value: record.value().map(str::to_owned),
                    header_keys: if header_keys == "[]" { "[]" } else { "[step,step]" },
                })
            })
            .collect();
        let contents = contents?;
        ensure(contents == written.records, || format!("{contents:?} instead of {:?}", written.records))
    }
}

fn check_field(batch: &DumpedBatch, name: &str, expected: i64) -> Result<()> {
    let found: i64 = batch.field(name)?;
    ensure(found == expected, || format!("{name} {found} instead of {expected}"))
}

fn stamp(id: i64, epoch: i16, base_sequence: i32, transactional: bool) -> ProducerStamp {
    ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(base_sequence),
        transactional,
    }
}

/// Batches of one to twenty records; of two idempotent producers in turns where `idempotent`.
fn write_batches(scribe: &mut Scribe, idempotent: bool) -> Result<()> {
    let mut sequences = [0, 0];
    for n in 0..60usize {
        let records = 1 + (n as i64 * 7) % 20;
        let stamp = idempotent.then(|| stamp(40 + (n % 2) as i64, 3, sequences[n % 2], false));
        sequences[n % 2] += records as i32;
        scribe.append(records, stamp)?;
    }
    Ok(())
}

/// An aborted transaction: producer, first offset, marker, and the last stable offset then.
type Aborted = (i64, i64, i64, i64);

/// Transactions of three producers between each other, every other one aborted, the last ones left open.
/// Returns the aborted ones and, by producer, where an open one began.
fn write_transactions(scribe: &mut Scribe) -> Result<(Vec<Aborted>, BTreeMap<i64, i64>)> {
    let mut open: BTreeMap<i64, (ProducerStamp, i64)> = BTreeMap::new();
    let (mut epochs, mut sequences) = ([0i16; 3], [0i32; 3]);
    let mut aborted = Vec::new();
    for n in 0..90usize {
        let (who, records) = ((n + n / 4) % 3, 1 + (n % 5) as i64);
        let id = 70 + who as i64;
        if !open.contains_key(&id) {
            (epochs[who], sequences[who]) = (epochs[who] + 1, 0);
        }
        let stamp = stamp(id, epochs[who], sequences[who], true);
        sequences[who] += records as i32;
        let first = scribe.append(records, Some(stamp))?;
        open.entry(id).or_insert((stamp, first));
        if n % 7 < 2 && n < 85 {
            let (stamp, first) = open.remove(&id).ok_or("it was opened above")?;
            let kind = if n % 7 == 0 { MarkerKind::Abort } else { MarkerKind::Commit };
            let marker = scribe.end_transaction(kind, stamp, n as i32)?;
            if kind == MarkerKind::Abort {
                let stable = open.values().map(|(_, first)| *first).min().unwrap_or(marker + 1);
                aborted.push((id, first, marker, stable));
            }
        }
    }
    Ok((aborted, open.into_iter().map(|(id, (_, first))| (id, first)).collect()))
}

/// A transaction over a topic and the offsets of a group, and one that is aborted.
fn write_internal_topics(log: &Log) -> Result<()> {
    let topic = log.create_topic("orders", TopicConfig::default())?;
    let orders = topic.partition(PartitionId(0))?;
    let producer = log.transactional("shop")?;
    let batch = || -> Result<_> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(Timestamp(1), None, Some(b"1"), &[])?;
        Ok(builder.seal())
    };
    producer.begin()?;
    producer.append(&orders, batch()?)?;
    let commit = OffsetCommit {
        partition: orders.name().clone(),
        topic_id: topic.id(),
        offset: Offset(1),
        metadata: String::new(),
    };
    let commits = offset_commits("readers", &[commit], Timestamp(5))?;
    producer.append(&offsets_partition(log)?, commits)?;
    producer.commit(&[]).wait()?;
    producer.begin()?;
    producer.append(&orders, batch()?)?;
    producer.abort()?;
    write_group(log)
}

/// A group with a member, which reads the partition that it is assigned and commits.
fn write_group(log: &Log) -> Result<()> {
    let options = ConsumerOptions { group: Some("members".to_owned()), ..ConsumerOptions::default() };
    let mut consumer = Consumer::new(log, options)?;
    consumer.subscribe(&["orders"])?;
    consumer.poll(|_, _| ControlFlow::Continue(()))?;
    Ok(consumer.commit()?)
}

fn by_extension<'a>(files: &'a [DumpedFile], folder: &Path, extension: &str) -> Vec<&'a DumpedFile> {
    let is_it = |file: &&DumpedFile| {
        file.path.parent() == Some(folder) && file.path.extension().is_some_and(|found| found == extension)
    };
    files.iter().filter(is_it).collect()
}

fn check_transactions(
    files: &[DumpedFile],
    folder: &Path,
    aborted: &[Aborted],
    open: &BTreeMap<i64, i64>,
) -> Result<()> {
    let indexes = by_extension(files, folder, "txnindex");
    ensure(indexes.len() > 1, || "there are several segments with aborted transactions".to_owned())?;
    let dumped: Vec<_> = indexes.iter().flat_map(|file| &file.lines).collect();
    let expected: Vec<_> = aborted
        .iter()
        .map(|(id, first, last, stable)| {
            format!("version: 0 producerId: {id} firstOffset: {first} lastOffset: {last} lastStableOffset: {stable}")
        })
        .collect();
    ensure(dumped.iter().copied().eq(&expected), || format!("{dumped:#?} instead of {expected:#?}"))?;

    let snapshots = by_extension(files, folder, "snapshot");
    let last = snapshots.last().ok_or("there is no snapshot")?;
    ensure(last.lines.len() == 3, || format!("three producers: {:?}", last.lines))?;
    for line in &last.lines {
        let id =
            line.strip_prefix("producerId: ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let first = open.get(&id.parse()?);
        let transaction =
            first.map_or("OptionalLong.empty".to_owned(), |first| format!("OptionalLong[{first}]"));
        let expected = format!("currentTxnFirstOffset: {transaction} ");
        ensure(line.contains(&expected), || format!("{line}: not {expected}"))?;
    }
    Ok(())
}

/// Every entry of an index that was dumped, and that there are some.
fn check_indexes(files: &[DumpedFile], folder: &Path) -> Result<()> {
    for extension in ["index", "timeindex"] {
        let indexes = by_extension(files, folder, extension);
        let entries: usize = indexes.iter().map(|file| file.lines.len()).sum();
        let what =
            || format!("{}: {} {extension} files with {entries} entries", folder.display(), indexes.len());
        ensure(indexes.len() > 2 && entries >= indexes.len(), what)?;
    }
    Ok(())
}

fn check_internal_topics(transactions: &DumpedFile, offsets: &DumpedFile) -> Result<()> {
    let text: Vec<_> = transactions.batches.iter().flat_map(|batch| &batch.records).collect();
    let values: Vec<_> = text.iter().filter_map(|record| record.value()).collect();
    let statuses: Result<Vec<_>> = values
        .iter()
        .map(|value| {
            let value: serde_json::Value = serde_json::from_str(value)?;
            let status = value["data"]["transactionStatus"].as_i64();
            Ok((value["data"]["producerEpoch"].as_i64(), status.ok_or("no status")?))
        })
        .collect();
    let statuses = statuses?;
    ensure(text.iter().all(|record| record.key().is_some_and(|key| key.contains("shop"))), || {
        "every key is the transactional id".to_owned()
    })?;
    // Prepared and complete: 2 and 4 of a commit, 3 and 5 of an abort.
    let ends: Vec<_> = statuses.iter().map(|(_, status)| *status).filter(|status| *status >= 2).collect();
    ensure(ends == [2, 4, 3, 5], || format!("statuses {statuses:?}"))?;

    let records: Vec<_> = offsets.batches.iter().flat_map(|batch| &batch.records).collect();
    let first = records.first().ok_or("there is no committed offset")?;
    let key: serde_json::Value = serde_json::from_str(first.key().unwrap_or_default())?;
    let value: serde_json::Value = serde_json::from_str(first.value().unwrap_or_default())?;
    let expected = serde_json::json!({"group": "readers", "topic": "orders", "partition": 0});
    ensure(key["data"] == expected, || format!("key {key}"))?;
    ensure(value["data"]["offset"] == 1 && value["data"]["commitTimestamp"] == 5, || {
        format!("value {value}")
    })?;
    check_group(&records)
}

/// Kafka reads what the group is made of: with a member, and then without.
fn check_group(records: &[&DumpedRecord]) -> Result<()> {
    let mut groups = Vec::new();
    for record in records {
        // A marker has none.
        let Some(key) = record.key() else { continue };
        let key: serde_json::Value = serde_json::from_str(key)?;
        if key["data"] == serde_json::json!({"group": "members"}) {
            let value: serde_json::Value = serde_json::from_str(record.value().unwrap_or_default())?;
            groups.push(value["data"].clone());
        }
    }
    let [stable, empty] = &groups[..] else { return Err(format!("two generations: {groups:?}").into()) };
    let member = &stable["members"][0];
    let partitions = serde_json::json!([{"topic": "orders", "partitions": [0]}]);
    let facts = [
        stable["protocolType"] == "consumer",
        stable["generation"] == 1,
        stable["protocol"] == "cooperative-sticky",
        stable["leader"] == member["memberId"] && member["clientId"] == "consumer",
        member["subscription"]["topics"] == serde_json::json!(["orders"]),
        member["subscription"]["ownedPartitions"] == partitions,
        member["assignment"]["assignedPartitions"] == partitions,
        empty["generation"] == 2 && empty["members"] == serde_json::json!([]),
        empty["protocol"].is_null() && empty["leader"].is_null(),
    ];
    ensure(facts.iter().all(|fact| *fact), || format!("{facts:?} of {groups:#?}"))
}

#[test]
fn kafkas_tools_read_all_that_lotic_writes_and_complain_of_nothing() -> Result<()> {
    let Some(kafka) = Kafka::find("kafkas_tools_read_all_that_lotic_writes")? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let data = folder.path();
    let log = Log::open(data, LogOptions::disk()?)?;
    let mut scribes = Vec::new();
    for compression in COMPRESSIONS {
        let topic = format!("records-{}", compression.replace(':', "-"));
        let mut scribe = Scribe::new(&log, &topic, compression.parse()?)?;
        write_batches(&mut scribe, compression != "none")?;
        scribes.push(scribe);
    }
    let mut transactions = Scribe::new(&log, "transactions", Compression::Snappy)?;
    let (aborted, open) = write_transactions(&mut transactions)?;
    let transactions_folder = transactions.directory(data);
    scribes.push(transactions);
    write_internal_topics(&log)?;
    log.close()?;

    let all = ["log", "index", "timeindex", "txnindex", "snapshot"];
    let (mut everything, mut indexes) = (Vec::new(), Vec::new());
    for scribe in &scribes {
        everything.extend(files_of(&scribe.directory(data), &all)?);
        indexes.extend(files_of(&scribe.directory(data), &["index", "timeindex"])?);
    }
    let internal = |topic: &str| files_of(&data.join(topic), &["log"]);
    let dumps = dump(
        &kafka,
        &[
            (&["--deep-iteration", "--print-data-log"], everything),
            (&["--index-sanity-check"], indexes.clone()),
            (&["--verify-index-only"], indexes),
            (&["--transaction-log-decoder"], internal("__transaction_state-0")?),
            (&["--offsets-decoder"], internal("__consumer_offsets-0")?),
        ],
    )?;
    for scribe in &scribes {
        let folder = scribe.directory(data);
        scribe.check(&by_extension(&dumps[0], &folder, "log"))?;
        check_indexes(&dumps[0], &folder)?;
    }
    for file in &dumps[1] {
        let is_sound =
            |line: &String| line.ends_with(" passed sanity check.") || line.ends_with(" is empty.");
        ensure(file.lines.iter().any(is_sound), || format!("{file:?}"))?;
    }
    check_transactions(&dumps[0], &transactions_folder, &aborted, &open)?;
    check_internal_topics(&dumps[3][0], &dumps[4][0])
}
