//! A log that is opened read-only while another handle writes to it, on a real disk: compacts it, deletes
//! records, deletes the topic and makes it anew. Neither knows of the other but through the files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use lotic_log::batch::{BatchBuilder, Compression, DecompressionBuffer};
use lotic_log::{
    CleanupPolicy, Durability, ErrorKind, Isolation, Log, LogOptions, Offset, Partition, PartitionId,
    Timestamp, TopicConfig, TopicId, spawn,
};
use lotic_tests::failure::{Failure, Result, ensure};
use lotic_tests::stored::reading;

const TOPIC: &str = "followed";
const ROUNDS: i64 = 60;
const KEYS: i64 = 7;

/// The round in which the topic is deleted and made anew.
const DELETED_IN: i64 = 30;

fn create(log: &Log) -> Result<()> {
    let config = TopicConfig {
        cleanup: CleanupPolicy::CompactAndDelete,
        segment_bytes: 500,
        durability: Some(Durability::Os),
        ..TopicConfig::default()
    };
    log.create_topic(TOPIC, config)?;
    Ok(())
}

/// What there is at an offset, whoever compacts.
fn value(offset: Offset) -> String {
    format!("the value at offset {offset}")
}

/// Writes, and says so after every round; returns all that is there in the end.
fn write(directory: &Path, rounds: &SyncSender<()>) -> Result<Vec<Offset>> {
    let log = Log::open(directory, LogOptions::disk()?)?;
    for round in 0..ROUNDS {
        if round == DELETED_IN {
            log.delete_topic(TOPIC)?;
            create(&log)?;
        }
        let partition = log.topic(TOPIC)?.partition(PartitionId(0))?;
        for number in 0..20 {
            let mut batch = BatchBuilder::new(Compression::None);
            let (key, value) = (format!("key-{}", number % KEYS), value(partition.offsets().end));
            batch.push(Timestamp(round), Some(key.as_bytes()), Some(value.as_bytes()), &[])?;
            partition.append(batch.seal())?;
        }
        if round % 5 == 3 {
            log.compact(TOPIC)?;
        }
        if round % 7 == 6 {
            log.delete_records(TOPIC, PartitionId(0), partition.offsets().end.plus(-30))?;
        }
        rounds.send(())?;
    }
    let partition = log.topic(TOPIC)?.partition(PartitionId(0))?;
    let start = partition.offsets().start;
    let there = read(&partition, start)?.0;
    log.close()?;
    Ok(there)
}

/// The offsets of the records from `from` on that are what was written there, and where to read on.
fn read(partition: &Partition, from: Offset) -> Result<(Vec<Offset>, Offset), lotic_log::Error> {
    let mut scratch = DecompressionBuffer::new();
    let (mut offsets, mut next) = (Vec::new(), from);
    loop {
        let fetched = partition.fetch(next, 300, Isolation::ReadCommitted)?;
        if fetched.next == next {
            return Ok((offsets, next));
        }
        for batch in fetched.committed() {
            let batch = batch.map_err(|error| error.within(partition.name()))?;
            for record in batch.records(&mut scratch).map_err(|error| error.within(partition.name()))? {
                let record = record.map_err(|error| error.within(partition.name()))?;
                if record.offset >= next {
                    assert_eq!(record.value, Some(value(record.offset).as_bytes()), "{}", record.offset);
                    offsets.push(record.offset);
                }
            }
        }
        next = fetched.next;
    }
}

/// Follows a log that another handle writes to.
struct Follower {
    log: Log,
    /// The topic that is read, and where to read on.
    position: Option<(TopicId, Offset)>,
    seen: usize,
    topics: BTreeSet<TopicId>,
}

impl Follower {
    /// Reads what there is more.
    fn look(&mut self) -> Result<()> {
        match self.log.refresh() {
            // Segments are being replaced: it is looked at again.
            Err(error) if error.kind() == ErrorKind::Retry => return Ok(()),
            // The topic was being made.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            outcome => outcome?,
        }
        let Ok(topic) = self.log.topic(TOPIC) else { return Ok(()) };
        let partition = topic.partition(PartitionId(0))?;
        let start = partition.offsets().start;
        let known = self.position.filter(|(id, _)| *id == topic.id()).map(|(_, position)| position);
        match read(&partition, known.unwrap_or(start).max(start)) {
            Ok((offsets, next)) => {
                ensure(offsets.is_sorted(), || format!("{offsets:?}"))?;
                self.seen += offsets.len();
                self.position = Some((topic.id(), next));
                self.topics.insert(topic.id());
                Ok(())
            }
            // Its files went while it was read.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn follow(&mut self, rounds: &Receiver<()>) -> Result<()> {
        // The writer goes on meanwhile, and waits once it is two rounds ahead.
        while rounds.recv().is_ok() {
            self.look()?;
        }
        self.look()
    }
}

#[test]
fn who_reads_beside_a_writer_follows_it_through_compaction_deleted_records_and_deleted_topics() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let log = Log::open(folder.path(), LogOptions::disk()?)?;
    create(&log)?;
    log.close()?;

    let (rounds, told) = sync_channel(1);
    let directory = folder.path().to_owned();
    let writer = spawn::spawn("writer", move || write(&directory, &rounds))?;
    let log = Log::open_read_only(folder.path(), reading()?)?;
    let mut follower = Follower { log, position: None, seen: 0, topics: BTreeSet::new() };
    let followed = follower.follow(&told);
    // A writer that nobody listens to any more ends.
    drop(told);
    let there = writer.join().map_err(|_| Failure::from("the writer panicked"))?;
    followed?;
    let there = there?;

    ensure(follower.topics.len() == 2, || format!("it has seen {} topics", follower.topics.len()))?;
    ensure(follower.seen > 200, || format!("it has seen {} records only", follower.seen))?;
    let partition = follower.log.topic(TOPIC)?.partition(PartitionId(0))?;
    let found = read(&partition, partition.offsets().start)?.0;
    ensure(found == there, || format!("{found:?} instead of {there:?}"))
}
