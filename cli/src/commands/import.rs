//! `lotic import kafka-dir`: topics of a broker become topics here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::batch::MarkerKind;
use lotic_log::{ImportOptions, ImportedPartition, ImportedTopic};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use serde_json::json;

use super::open_or_begin;
use super::topic::cleanup_name;
use crate::Failure;
use crate::args::KafkaDirOptions;

/// What a broker that runs holds a lock on.
const LOCK_FILE: &str = ".lock";

pub(crate) fn run(data: &Path, options: &KafkaDirOptions) -> Result<ExitCode, Failure> {
    check_is_directory(&options.directory)?;
    let _stopped = lock(&options.directory)?;
    let log = open_or_begin(data)?;
    let import = ImportOptions { topics: options.topics.clone(), groups: options.groups };
    let mut printed = Ok(());
    let imported = log.import_kafka_directory(&options.directory, &import, |topic| {
        let cleanup = log.topic(&topic.name).map_or("gone", |topic| cleanup_name(topic.config().cleanup));
        let line = if options.json { describe(topic, cleanup).to_string() } else { summary(topic) };
        let outcome = writeln!(io::stdout(), "{line}").and_then(|()| warn(topic, cleanup, options));
        printed = std::mem::replace(&mut printed, Ok(())).and(outcome);
    })?;
    log.close()?;
    printed?;
    if options.groups {
        let count = imported.committed_offsets;
        if options.json {
            writeln!(io::stdout(), "{}", json!({ "committed_offsets": count }))?;
        } else {
            writeln!(io::stdout(), "{count} committed offsets")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check_is_directory(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("{shown} is not a directory: name one of the broker's `log.dirs`").into()),
        Err(error) => Err(format!("cannot read {shown}: {error}").into()),
    }
}

/// Says of a topic that the broker's settings of it were not found: what it has instead may surprise.
fn warn(topic: &ImportedTopic, cleanup: &str, options: &KafkaDirOptions) -> io::Result<()> {
    if topic.was_there || topic.has_settings {
        return Ok(());
    }
    let (name, directory) = (&topic.name, options.directory.display());
    writeln!(
        io::stderr(),
        "lotic: settings of {name} not found: no __cluster_metadata in {directory} names it; it has the \
         defaults, with cleanup {cleanup}, until `lotic topic alter` gives it others"
    )
}

/// Sees to it that no broker runs, and that none starts while the lock is held. A broker holds a POSIX lock
/// on the file; where there is none, no broker runs.
fn lock(directory: &Path) -> Result<Option<File>, Failure> {
    let path = directory.join(LOCK_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| format!("cannot open {}: {error}", path.display()))?,
    };
    match fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            Err(format!("a broker is running on {}: stop it first", directory.display()).into())
        }
        Err(error) => Err(format!("cannot lock {}: {error}", path.display()).into()),
    }
}

fn summary(topic: &ImportedTopic) -> String {
    let name = &topic.name;
    if topic.was_there {
        return format!("{name} is there already");
    }
    let total = |count: fn(&ImportedPartition) -> u64| topic.partitions.iter().map(count).sum::<u64>();
    let (records, bytes) = (total(|partition| partition.records), total(|partition| partition.bytes));
    let partitions = topic.partitions.len();
    let plural = if partitions == 1 { "" } else { "s" };
    let mut text = format!("{name}: {partitions} partition{plural}, {records} records, {bytes} bytes");
    for partition in &topic.partitions {
        let number = partition.partition;
        if let Some(torn) = &partition.torn {
            text += &format!("\n  partition {number}: a torn tail is left out: {torn}");
        }
        if partition.gaps > 0 {
            text += &format!("\n  partition {number}: offsets are missing in {} places", partition.gaps);
        }
        for (producer, kind) in &partition.ended_transactions {
            let how = kind_name(*kind);
            text += &format!("\n  partition {number}: the open transaction of producer {producer} is {how}");
        }
    }
    text
}

fn describe(topic: &ImportedTopic, cleanup: &str) -> serde_json::Value {
    let partitions: Vec<_> = topic.partitions.iter().map(describe_partition).collect();
    json!({
        "name": topic.name,
        "id": topic.id.to_string(),
        "was_there": topic.was_there,
        "has_settings": topic.has_settings,
        "cleanup": cleanup,
        "partitions": partitions,
    })
}

fn describe_partition(partition: &ImportedPartition) -> serde_json::Value {
    let ended = partition.ended_transactions.iter();
    let ended: Vec<_> = ended
        .map(|(producer, kind)| json!({"producer_id": producer.0, "outcome": kind_name(*kind)}))
        .collect();
    json!({
        "partition": partition.partition.0,
        "start": partition.start.0,
        "end": partition.end.0,
        "segments": partition.segments,
        "records": partition.records,
        "bytes": partition.bytes,
        "gaps": partition.gaps,
        "torn": partition.torn.as_ref().map(|torn| json!({
            "offset": torn.offset.0,
            "file": torn.file,
            "position": torn.position,
            "reason": torn.reason,
        })),
        "ended_transactions": ended,
    })
}

fn kind_name(kind: MarkerKind) -> &'static str {
    match kind {
        MarkerKind::Commit => "committed",
        MarkerKind::Abort => "aborted",
    }
}
