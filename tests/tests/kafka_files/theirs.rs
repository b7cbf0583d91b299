//! The data directory of a real broker: its partitions open as they are, and import as topics, and what is
//! read is what Kafka's own consumer was given.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use lotic_log::batch::{BatchBuilder, Compression, DecompressionBuffer};
use lotic_log::group::CommittedOffsets;
use lotic_log::storage::disk::DiskStorage;
use lotic_log::{
    Isolation, Log, LogOptions, Offset, Partition, PartitionConfig, PartitionContext, PartitionId,
    PartitionSite, RecoveryBorder, SystemClock, Timestamp, TopicPartition,
};
use lotic_tests::failure::{About, Result, ensure};
use lotic_tests::files::Files;
use lotic_tests::kafka::{Answer, Broker, DumpedFile, Kafka, ReadRecord, Script, Step};
use lotic_tests::process::Process;
use lotic_tests::programs::program;

use super::dumping::{dump, files_of};

/// Times that rise by less than a second, within the age of a segment; a jump begins the next one.
const FIRST_TIMESTAMP: i64 = 1_700_000_000_000;
const SEGMENT_MS: i64 = 60_000;

const CODECS: [&str; 5] = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];

/// What a topic is made with, so that nothing is deleted by age and segments roll.
const KEPT: [(&str, &str); 2] = [("retention.ms", "-1"), ("segment.ms", "60000")];

/// The topics of the test, besides the one that is being compacted.
const TRANSACTIONS: &str = "transactions";
const COMPACTED: &str = "compacted";
const TRIMMED: &str = "trimmed";

/// Keys of the compacted topic, and records of each.
const KEYS: i64 = 10;
const ROUNDS: i64 = 30;

fn send<'a>(
    producer: &'a str,
    topic: &'a str,
    n: i64,
    key: Option<&'a str>,
    value: Option<&'a str>,
) -> Step<'a> {
    const HEADERS: [(&str, Option<&str>); 2] = [("trace", Some("1")), ("nothing", None)];
    let timestamp = FIRST_TIMESTAMP + n * 100 + n / 20 * SEGMENT_MS;
    let headers = if n % 3 == 0 { &HEADERS[..] } else { &[] };
    Step::Send { producer, topic, partition: 0, timestamp, key, value, headers }
}

/// A topic for each codec, which the broker compresses with itself; several segments, keys and values that
/// are null.
fn write_codecs(script: &mut Script) {
    for codec in CODECS {
        let config = [KEPT[0], KEPT[1], ("compression.type", codec)];
        let topic = format!("codec-{codec}");
        script.step(&Step::Create { topic: &topic, partitions: 2, config: &config });
        for n in 0..100 {
            let (key, value) = (format!("key-{n}"), format!("a value, a value, a value: {n}"));
            let key = (n % 7 != 0).then_some(key.as_str());
            let value = (n % 11 != 0).then_some(value.as_str());
            script.step(&send("plain", &topic, n, key, value));
            if n % 20 == 19 {
                script.step(&Step::Flush("plain"));
            }
        }
    }
}

/// Two producers' transactions between each other; every third one is aborted. The last is left open.
fn write_transactions(script: &mut Script) {
    script.step(&Step::Create { topic: TRANSACTIONS, partitions: 1, config: &KEPT });
    for n in 0..30i64 {
        let producer = if n % 2 == 0 { "even" } else { "odd" };
        script.step(&Step::Begin(producer));
        for part in 0..3 {
            let value = format!("transaction {n}, part {part}");
            script.step(&send(producer, TRANSACTIONS, 3 * n + part, None, Some(&value)));
        }
        script.step(&Step::Flush(producer));
        if n % 5 == 0 {
            let offset = n;
            let (group, topic) = ("in-transactions", TRANSACTIONS);
            script.step(&Step::SendOffset { producer, group, topic, partition: 0, offset });
        }
        script.step(&if n % 3 == 0 { Step::Abort(producer) } else { Step::Commit(producer) });
        script.step(&send("plain", TRANSACTIONS, 3 * n + 2, None, Some("of no transaction")));
        script.step(&Step::Flush("plain"));
    }
    script.step(&Step::Begin("odd"));
    script.step(&send("odd", TRANSACTIONS, 90, None, Some("open")));
    script.step(&Step::Flush("odd"));
}

/// Keys written over and over, until compaction has left gaps; the records of a transaction among them.
fn write_compacted(script: &mut Script) {
    let config = [
        KEPT[0],
        KEPT[1],
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    script.step(&Step::Create { topic: COMPACTED, partitions: 1, config: &config });
    for n in 0..KEYS * ROUNDS {
        let (key, value) = (format!("key-{}", n % KEYS), format!("value-{n}"));
        // Some keys are gone at the end of a round, and come back.
        let value = (n % 17 != 0).then_some(value.as_str());
        script.step(&send("plain", COMPACTED, n, Some(&key), value));
        if n % KEYS == 0 {
            script.step(&Step::Flush("plain"));
        }
    }
    script.step(&Step::Flush("plain"));
    script.step(&Step::AwaitCompaction { topic: COMPACTED, records: (KEYS * ROUNDS / 4) as u64 });
}

/// A topic whose first records are deleted, in the middle of a segment.
fn write_trimmed(script: &mut Script) {
    script.step(&Step::Create { topic: TRIMMED, partitions: 1, config: &KEPT });
    for n in 0..60 {
        script.step(&send("plain", TRIMMED, n, None, Some("kept or not")));
        script.step(&Step::Flush("plain"));
    }
    script.step(&Step::DeleteRecords { topic: TRIMMED, partition: 0, offset: 25 });
}

fn topics() -> Vec<String> {
    let codecs = CODECS.iter().map(|codec| format!("codec-{codec}"));
    codecs.chain([TRANSACTIONS, COMPACTED, TRIMMED].map(str::to_owned)).collect()
}

fn write_all(script: &mut Script) {
    script.step(&Step::Producer { name: "plain", config: &[("linger.ms", "20")] });
    for name in ["even", "odd"] {
        script.step(&Step::Producer { name, config: &[("transactional.id", name), ("linger.ms", "0")] });
    }
    write_compacted(script);
    write_codecs(script);
    write_trimmed(script);
    write_transactions(script);
    for (partition, offset) in [(0, 17), (1, 0)] {
        let (group, topic) = ("administered", "codec-gzip");
        script.step(&Step::CommitOffset { group, topic, partition, offset });
    }
    let topics = topics();
    let names: Vec<_> = topics.iter().map(String::as_str).collect();
    for committed in [false, true] {
        script.step(&Step::Consume { topics: &names, committed });
    }
}

/// What Kafka's consumer was given by one level of isolation.
#[derive(Debug, Default)]
struct Consumed {
    records: BTreeMap<(String, i32), Vec<ReadRecord>>,
    starts: BTreeMap<(String, i32), i64>,
    ends: BTreeMap<(String, i32), i64>,
}

/// The answers of two consumers, one after the other: each says all starts before anything else.
fn consumed(answers: Vec<Answer>) -> [Consumed; 2] {
    let mut both = [Consumed::default(), Consumed::default()];
    let mut current = 0;
    for answer in answers {
        let consumed = &mut both[current];
        match answer {
            Answer::Start(topic, partition, start) => {
                if !consumed.ends.is_empty() {
                    current = 1;
                }
                both[current].starts.insert((topic, partition), start);
            }
            Answer::End(topic, partition, end) => drop(consumed.ends.insert((topic, partition), end)),
            Answer::Record(record) => {
                let place = (record.topic.clone(), record.partition);
                consumed.records.entry(place).or_default().push(record);
            }
            Answer::Tool { .. } => {}
        }
    }
    both
}

/// Everything that a partition shows at this level of isolation.
fn read(partition: &Partition, isolation: Isolation) -> Result<Vec<ReadRecord>> {
    let mut scratch = DecompressionBuffer::new();
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let (mut records, mut next) = (Vec::new(), partition.offsets().start);
    let start = next;
    loop {
        // Small, so that batches are looked up in the index again and again.
        let fetched = partition.fetch(next, 200, isolation)?;
        if fetched.next == next {
            return Ok(records);
        }
        for batch in fetched.committed() {
            let batch = batch?;
            for record in batch.records(&mut scratch)? {
                let record = record?;
                if record.offset < start {
                    continue;
                }
                records.push(ReadRecord {
                    topic: partition.name().topic.clone(),
                    partition: partition.name().partition.0,
                    offset: record.offset.0,
                    timestamp: record.timestamp.0,
                    key: text(record.key),
                    value: text(record.value),
                    headers: record
                        .headers
                        .iter()
                        .map(|header| (header.key.to_owned(), text(header.value)))
                        .collect(),
                });
            }
        }
        next = fetched.next;
    }
}

/// Checks a partition against what Kafka's consumer was given.
fn check(partition: &Partition, isolation: Isolation, consumed: &Consumed) -> Result<()> {
    let name = partition.name();
    let place = (name.topic.clone(), name.partition.0);
    let expected: Vec<_> = consumed.records.get(&place).into_iter().flatten().cloned().collect();
    let read = read(partition, isolation)?;
    let differs = read.iter().zip(&expected).find(|(ours, theirs)| ours != theirs);
    ensure(read == expected, || {
        let (ours, theirs) = (read.len(), expected.len());
        format!(
            "{name}, {isolation:?}: {ours} records instead of {theirs}; the first that differs: {differs:?}"
        )
    })
}

/// Opens copies of the broker's partitions where they are, with nothing known and with everything believed
/// that the broker has written: its indexes and snapshots too.
fn check_opened(data: &Path, [uncommitted, committed]: &[Consumed; 2]) -> Result<()> {
    let borders = |end| {
        [
            RecoveryBorder { recovery_point: Some(Offset(end)), clean_shutdown: true },
            RecoveryBorder::default(),
        ]
    };
    for ((topic, partition), &end) in &uncommitted.ends {
        for border in borders(end) {
            let folder = tempfile::tempdir()?;
            let name = TopicPartition::new(topic.as_str(), PartitionId(*partition));
            let directory = folder.path().join(name.to_string());
            copy_folder(&data.join(name.to_string()), &directory)?;
            let metadata = fs::read_to_string(directory.join("partition.metadata"))?;
            let id = metadata.lines().find_map(|line| line.strip_prefix("topic_id: ")).unwrap_or_default();
            let site = PartitionSite::new(
                name,
                id.parse().about(id)?,
                directory,
                PartitionConfig {
                    // A broker writes down elsewhere where a log begins.
                    has_gaps: topic == COMPACTED || topic == TRIMMED,
                    ..PartitionConfig::default()
                },
                PartitionContext::new(DiskStorage::new(1)?, SystemClock::new()),
            );
            let (partition, report) = Partition::open(site, &border)?;
            let offsets = partition.offsets();
            ensure(offsets.end.0 == end && report.truncated.is_none(), || format!("{report:?}"))?;
            let place = (topic.clone(), partition.name().partition.0);
            ensure(offsets.stable.0 == committed.ends[&place], || format!("{topic}: {offsets:?}"))?;
            // Of deleted records in its first segment, only the broker's checkpoint knew.
            partition.delete_records(Offset(uncommitted.starts[&place]))?;
            check(&partition, Isolation::ReadUncommitted, uncommitted)?;
            check(&partition, Isolation::ReadCommitted, committed)?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Runs `lotic import kafka-dir` and returns what it printed.
fn import(data: &Path, broker: &Path, more: &[&str]) -> Result<Vec<serde_json::Value>> {
    let mut command = Command::new(program("lotic")?);
    command.args(["import", "kafka-dir", "--json"]).arg(broker).arg("--data").arg(data).args(more);
    let ended = Process::start(&mut command)?.end()?;
    ended.check_success("lotic import")?;
    ended.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Imports the broker's directory and checks the topics.
fn check_imported(broker: &Path, [uncommitted, committed]: &[Consumed; 2]) -> Result<()> {
    let before = Files::below(broker)?;
    let folder = tempfile::tempdir()?;
    let first = import(folder.path(), broker, &["--topic", "codec-zstd"])?;
    ensure(first.len() == 1 && first[0]["was_there"] == false, || format!("{first:?}"))?;
    let printed = import(folder.path(), broker, &["--groups"])?;
    ensure(printed.len() == topics().len() + 1, || format!("{printed:#?}"))?;
    let find = |topic: &str| printed.iter().find(|line| line["name"] == topic);
    ensure(find("codec-zstd").is_some_and(|line| line["was_there"] == true), || format!("{printed:#?}"))?;
    let partition = |topic| find(topic).map(|line| &line["partitions"][0]).ok_or("it was imported");
    ensure(partition(COMPACTED)?["gaps"].as_u64() > Some(0), || "compaction leaves gaps".to_owned())?;
    for (topic, least) in [(TRANSACTIONS, 2), (COMPACTED, 2), (TRIMMED, 3), ("codec-zstd", 4)] {
        let count = segment_count(broker, topic)?;
        ensure(count >= least, || format!("{topic}: {count} segments"))?;
    }
    let ended = &partition(TRANSACTIONS)?["ended_transactions"];
    ensure(ended[0]["outcome"] == "aborted" && ended[1].is_null(), || format!("{ended}"))?;
    Files::below(broker)?.check_unchanged_since(&before)?;

    let log = Log::open(folder.path(), LogOptions::disk()?)?;
    for topic in topics().iter().map(|name| log.topic(name)) {
        let topic = topic?;
        for partition in topic.partitions() {
            let place = (topic.name().to_owned(), partition.name().partition.0);
            check(partition, Isolation::ReadUncommitted, uncommitted)?;
            check(partition, Isolation::ReadCommitted, committed)?;
            let start = partition.offsets().start;
            ensure(start.0 == uncommitted.starts[&place], || format!("{place:?} starts at {start}"))?;
            // An open transaction has been ended.
            let ended = if topic.name() == TRANSACTIONS { 1 } else { 0 };
            let end = Offset(uncommitted.ends[&place] + ended);
            ensure(partition.offsets().end == end, || format!("{place:?}: {:?}", partition.offsets()))?;
        }
    }
    check_settings(&log)?;
    check_groups(&log)
}

/// How many segments the first partition of a topic has.
fn segment_count(broker: &Path, topic: &str) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(broker.join(format!("{topic}-0")))? {
        count += usize::from(entry?.path().extension().is_some_and(|extension| extension == "log"));
    }
    Ok(count)
}

fn check_settings(log: &Log) -> Result<()> {
    for (topic, expected) in [
        ("codec-gzip", "gzip"),
        ("codec-snappy", "snappy"),
        ("codec-uncompressed", "none"),
        (COMPACTED, "none"),
    ] {
        let config = log.topic(topic)?.config().clone();
        let compression = config.compression.to_string();
        ensure(compression == expected, || format!("{topic}: {compression}"))?;
        let cleanup = format!("{:?}", config.cleanup).to_lowercase();
        ensure(cleanup.contains("compact") == (topic == COMPACTED), || format!("{topic}: {cleanup}"))?;
        let age = config.segment_age_max.as_millis();
        ensure(age == SEGMENT_MS as u128, || format!("{topic}: segments are sealed after {age} ms"))?;
        let ratio = config.compaction.dirty_percent_min;
        ensure(ratio == if topic == COMPACTED { 1 } else { 50 }, || format!("{topic}: dirty ratio {ratio}"))?;
    }
    Ok(())
}

fn check_groups(log: &Log) -> Result<()> {
    let offsets = CommittedOffsets::read(log)?;
    let mut found = BTreeMap::new();
    for group in offsets.groups() {
        for (partition, committed) in offsets.group(group) {
            found.insert((group.to_owned(), partition.to_string()), committed.offset.0);
        }
    }
    // Transaction 25 is the last committed one with an offset: 0 and 15 are aborted, as is every third.
    let expected = [
        (("administered", "codec-gzip-0"), 17),
        (("administered", "codec-gzip-1"), 0),
        (("in-transactions", "transactions-0"), 25),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|((group, partition), offset)| ((group.to_owned(), partition.to_owned()), offset))
        .collect();
    ensure(found == expected, || format!("{found:?} instead of {expected:?}"))
}

/// A broker that runs holds its directory.
fn check_refused_while_running(data: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(program("lotic")?);
    command.args(["import", "kafka-dir"]).arg(data).arg("--data").arg(folder.path());
    let ended = Process::start(&mut command)?.end()?;
    let is_refused = ended.status.code() == Some(1) && ended.stderr.contains("a broker is running");
    ensure(is_refused, || format!("{ended:?}"))
}

#[test]
fn lotic_reads_what_a_broker_writes_as_kafkas_own_consumer_does() -> Result<()> {
    let Some(kafka) = Kafka::find("lotic_reads_what_a_broker_writes")? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let data = folder.path();
    let broker = Broker::start(&kafka, data)?;
    let mut script = Script::new();
    write_all(&mut script);
    let both = consumed(kafka.run(&script, Some(&broker))?);
    check_refused_while_running(data)?;
    broker.stop()?;
    let (all, committed) = (&both[0].records, &both[1].records);
    let count = |records: &BTreeMap<_, Vec<_>>| records.values().map(Vec::len).sum::<usize>();
    ensure(count(all) > count(committed) && count(committed) > 600, || format!("{} records", count(all)))?;
    check_opened(data, &both)?;
    check_imported(data, &both)
}

/// Records of two lives of a broker: the second ends by SIGKILL, with a transaction open.
#[test]
fn the_directory_of_a_killed_broker_is_imported_and_goes_on_as_kafkas_tools_expect() -> Result<()> {
    let Some(kafka) = Kafka::find("the_directory_of_a_killed_broker_is_imported")? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let broker_data = folder.path().join("broker");
    let data = folder.path().join("lotic");
    fs::create_dir(&broker_data)?;
    let topic = "orders";
    let mut script = Script::new();
    script.step(&Step::Create { topic, partitions: 1, config: &KEPT });
    let write = |script: &mut Script, first: i64| {
        script.step(&Step::Producer { name: "plain", config: &[("compression.type", "lz4")] });
        script.step(&Step::Producer { name: "bank", config: &[("transactional.id", "bank")] });
        for n in first..first + 50 {
            script.step(&send("plain", topic, n, Some("key"), Some("some value, some value, some value")));
            script.step(&Step::Flush("plain"));
        }
        script.step(&Step::Begin("bank"));
        script.step(&send("bank", topic, first + 50, None, Some("in a transaction")));
        script.step(&Step::Flush("bank"));
    };
    write(&mut script, 0);
    script.step(&Step::Commit("bank"));
    let broker = Broker::start(&kafka, &broker_data)?;
    kafka.run(&script, Some(&broker))?;
    broker.stop()?;

    let mut script = Script::new();
    write(&mut script, 100);
    for committed in [false, true] {
        script.step(&Step::Consume { topics: &[topic], committed });
    }
    let broker = Broker::start(&kafka, &broker_data)?;
    let [uncommitted, committed] = consumed(kafka.run(&script, Some(&broker))?);
    broker.kill()?;

    let printed = import(&data, &broker_data, &[])?;
    let imported = &printed[0]["partitions"][0];
    ensure(imported["ended_transactions"][0]["outcome"] == "aborted", || format!("{printed:#?}"))?;
    let log = Log::open(&data, LogOptions::disk()?)?;
    let partition = log.topic(topic)?.partition(PartitionId(0))?;
    check(&partition, Isolation::ReadUncommitted, &uncommitted)?;
    check(&partition, Isolation::ReadCommitted, &committed)?;
    let mut batch = BatchBuilder::new(Compression::Snappy);
    for n in 0..100 {
        batch.push(Timestamp(FIRST_TIMESTAMP + n), None, Some(b"written by Lotic"), &[])?;
    }
    partition.append(batch.seal())?;
    let end = partition.offsets().end.0;
    log.close()?;

    let partition = data.join("orders-0");
    let all = files_of(&partition, &["log", "index", "timeindex", "txnindex", "snapshot"])?;
    let indexes = files_of(&partition, &["index", "timeindex"])?;
    let dumps = dump(
        &kafka,
        &[(&["--deep-iteration", "--print-data-log"], all), (&["--verify-index-only"], indexes)],
    )?;
    check_dumped(&dumps[0], end, uncommitted.records.values().map(Vec::len).sum::<usize>() + 100)
}

/// All records are there, and leader epochs never decrease; the last one is not the first.
fn check_dumped(files: &[DumpedFile], end: i64, records: usize) -> Result<()> {
    let batches: Vec<_> = files.iter().flat_map(|file| &file.batches).collect();
    let epochs: Result<Vec<i32>> = batches.iter().map(|batch| batch.field("partitionLeaderEpoch")).collect();
    let epochs = epochs?;
    ensure(epochs.is_sorted() && epochs.first() < epochs.last(), || format!("leader epochs {epochs:?}"))?;
    let last: i64 = batches.last().ok_or("there is a batch")?.field("lastOffset")?;
    ensure(last + 1 == end, || format!("the last offset is {last}, the end {end}"))?;
    let markers =
        batches.iter().filter(|batch| batch.field::<bool>("isControl").is_ok_and(|is_it| is_it)).count();
    let counts: Result<Vec<usize>> = batches.iter().map(|batch| batch.field("count")).collect();
    let count = counts?.iter().sum::<usize>() - markers;
    ensure(count == records && markers == 2, || {
        format!("{count} records instead of {records}, {markers} markers")
    })
}
