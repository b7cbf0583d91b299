//! The operations of a script, on Lotic.
//!
//! | module | owns |
//! |---|---|
//! | `machine` | where the log is, and what stops it; the passing of time |
//! | `session` | who has a transactional id |
//! | `batches` | records on their way into a batch |
//! | `reading` | what is there, and where |
//! | `keeping` | what is kept of it, and what goes |
//! | `groups` | what groups have committed |

mod batches;
mod groups;
mod keeping;
mod machine;
mod reading;
mod session;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lotic_log::batch::{Compression, ProducerStamp, TimestampType};
use lotic_log::storage::SyncPurpose;
use lotic_log::{
    CleanupPolicy, Error, ErrorKind, Log, Offset, OffsetSpec, Partition, PartitionId, Producer,
    ProducerEpoch, ProducerId, ProducerOptions, SendFuture, Sequence, Timestamp, Topic, TopicConfig,
    TransactionOptions,
};

use super::clocked::without_times;
use super::outcome::Outcome;
use super::script::{
    BATCH_BYTES_MAX, Content, Family, Operation, PARTITIONS, SEGMENT_BYTES, Script, WriterKind,
};
use crate::failure::Result;
use batches::{builder, by_key, places, record};
use machine::Machine;
use reading::isolation;
use session::Session;

/// How far the clock of a log in memory moves before each operation.
const CLOCK_STEP: Duration = Duration::from_millis(3);

/// Longer than a log waits until it looks again for transactions that are open for too long.
const OVERDUE_STEP: Duration = Duration::from_secs(2);

/// A log, and who writes to its one topic.
struct Ours<'a> {
    script: &'a Script,
    number: usize,
    machine: Machine,
    log: Log,
    producers: HashMap<usize, Producer>,
    sessions: HashMap<usize, Session>,
    /// The producers that took a transactional id, in that order.
    opened: Vec<usize>,
    /// The stamp of the last batch that each of them has sent.
    stamps: HashMap<usize, ProducerStamp>,
}

/// What each operation of the script comes to.
///
/// # Errors
/// If there is no log to begin with.
pub(super) fn perform(script: &Script, number: usize) -> Result<Vec<Outcome>> {
    let machine = Machine::new(script)?;
    let log = machine.open(script.seed)?;
    log.create_topic(&Script::topic(number), config(script))?;
    let mut ours = Ours {
        script,
        number,
        machine,
        log,
        producers: HashMap::new(),
        sessions: HashMap::new(),
        opened: Vec::new(),
        stamps: HashMap::new(),
    };
    let begun = ours.log.clock().now();
    let outcomes = script.operations.iter().map(|operation| ours.answer(operation)).collect::<Result<_>>()?;
    if !script.append_time {
        return Ok(outcomes);
    }
    without_times(script, outcomes, &(begun.0..=ours.log.clock().now().0))
}

fn config(script: &Script) -> TopicConfig {
    TopicConfig {
        partitions: PARTITIONS,
        cleanup: match script.family {
            Family::Compacting => CleanupPolicy::Compact,
            Family::CompactingAndDeleting => CleanupPolicy::CompactAndDelete,
            _ => CleanupPolicy::Delete,
        },
        batch_bytes_max: BATCH_BYTES_MAX,
        segment_bytes: match script.family {
            Family::Sizing => SEGMENT_BYTES,
            _ => [300, 800, 2_500, 1 << 20][(script.seed / 2 % 4) as usize],
        },
        index_interval_bytes: 200,
        snapshot_interval_bytes: 700,
        timestamp_type: if script.append_time { TimestampType::LogAppend } else { TimestampType::Create },
        ..TopicConfig::default()
    }
}

impl Ours<'_> {
    /// What an operation comes to, once all that it wrote is what readers see.
    fn answer(&mut self, operation: &Operation) -> Result<Outcome> {
        self.machine.pass(CLOCK_STEP);
        let outcome = match self.run(operation) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Refused(error.kind()),
        };
        let topics = self.log.topics();
        let partitions: Vec<_> = topics.iter().flat_map(Topic::partitions).cloned().collect();
        self.log.flush(&partitions, SyncPurpose::Records).wait()?;
        if let (Operation::Send { producer, .. }, Outcome::Written(places)) = (operation, &outcome)
            && self.sessions.contains_key(producer)
        {
            let stamp = self.stamp_at(places[0])?;
            self.stamps.insert(*producer, stamp);
        }
        Ok(outcome)
    }

    fn run(&mut self, operation: &Operation) -> Result<Outcome, Error> {
        match operation {
            Operation::Send { producer, partition, records } => {
                self.send(*producer, *partition, records).map(Outcome::Written)
            }
            Operation::Append { partition, producer_id, epoch, sequence, records } => {
                let stamp = ProducerStamp {
                    id: ProducerId(*producer_id),
                    epoch: ProducerEpoch(*epoch),
                    base_sequence: Sequence(*sequence),
                    transactional: false,
                };
                self.append(*partition, Compression::None, Some(stamp), records).map(Outcome::Written)
            }
            Operation::AppendAs { producer, partition, later, sequence, transactional, records } => {
                let Some(last) = self.stamps.get(producer) else { return Ok(Outcome::Done) };
                let (epoch, base_sequence) = (ProducerEpoch(last.epoch.0 + later), Sequence(*sequence));
                if epoch < ProducerEpoch(0) {
                    return Ok(Outcome::Done);
                }
                let stamp = ProducerStamp { epoch, base_sequence, transactional: *transactional, ..*last };
                self.append(*partition, Compression::None, Some(stamp), records).map(Outcome::Written)
            }
            Operation::Open(producer) => self.open(*producer),
            Operation::Begin(producer) => self.session(*producer)?.begin().map(done),
            Operation::Commit(producer) => self.session(*producer)?.commit().map(done),
            Operation::Abort(producer) => self.session(*producer)?.abort().map(done),
            Operation::Overstay(producer) => {
                let timeout =
                    Duration::from_millis(self.script.producers[*producer].timeout_ms.unsigned_abs());
                self.machine.pass(timeout + OVERDUE_STEP);
                self.settle().map(done)
            }
            Operation::CommitOffset { group, partition, offset } => {
                self.commit_offset(*group, *partition, Offset(*offset)).map(done)
            }
            Operation::SendOffset { producer, group, partition, offset } => {
                self.send_offset(*producer, *group, *partition, Offset(*offset)).map(done)
            }
            Operation::CommitLater { group, partition, offset } => {
                self.commit_offset(*group, *partition, Offset(*offset)).map(done)
            }
            Operation::Committed(group) => self.committed(*group),
            Operation::DeleteOffset { group, partition } => self.delete_offset(*group, *partition).map(done),
            Operation::DeleteGroup(group) => self.delete_group(*group).map(done),
            Operation::Age => self.age().map(done),
            Operation::Outlast => self.outlast().map(done),
            Operation::Delete { partition, to } => {
                let to = self.resolve(*partition, *to)?;
                let start = self.log.delete_records(&self.topic(), PartitionId(*partition), to)?;
                Ok(Outcome::Deleted(start.0))
            }
            Operation::Expire => self.expire().map(done),
            Operation::Shed { partition, segments, plus } => self.shed(*partition, *segments, *plus),
            Operation::Compact { record, .. } => self.compact(record).map(done),
            Operation::Offsets(partition) => self.offsets(*partition).map(Outcome::Offsets),
            Operation::FindTime { partition, committed, timestamp } => {
                self.find(*partition, *committed, OffsetSpec::AtOrAfter(Timestamp(*timestamp)))
            }
            Operation::FindNewest { partition, committed } => {
                let offsets = self.offsets(*partition)?;
                if *committed && offsets.stable < offsets.end {
                    return Ok(Outcome::Done);
                }
                self.find(*partition, *committed, OffsetSpec::MaxTimestamp)
            }
            Operation::FindDated { partition, committed, dated } => {
                self.find_dated(*partition, *committed, *dated)
            }
            Operation::Consume { partition, committed, from } => {
                let from = self.resolve(*partition, *from)?;
                self.consume(*partition, isolation(*committed), from).map(Outcome::Records)
            }
            Operation::Walk(partition) => self.walk(*partition).map(Outcome::Walked),
            Operation::FetchMissing => {
                self.log.topic(&format!("{}-missing", self.topic())).map(|_| Outcome::Done)
            }
            // A transaction would be aborted.
            Operation::Reopen if self.sessions.values().any(Session::is_open) => Ok(Outcome::Done),
            Operation::Reopen | Operation::Restart => self.restart(operation).map(done),
        }
    }

    fn topic(&self) -> String {
        Script::topic(self.number)
    }

    fn partition(&self, partition: i32) -> Result<Arc<Partition>, Error> {
        self.log.topic(&self.topic())?.partition(PartitionId(partition))
    }

    fn session(&self, producer: usize) -> Result<&Session, Error> {
        let what = || Error::new(ErrorKind::TransactionState, "its transactional id was not taken");
        self.sessions.get(&producer).ok_or_else(what)
    }

    fn open(&mut self, producer: usize) -> Result<Outcome, Error> {
        let WriterKind::Transactional(id) = self.script.producers[producer].kind else {
            return Err(Error::new(ErrorKind::TransactionState, "it has no transactional id"));
        };
        let id = format!("id-{id}");
        let timeout = Duration::from_millis(self.script.producers[producer].timeout_ms.unsigned_abs());
        let transactions = TransactionOptions { timeout: Some(timeout) };
        let session = if (self.script.seed / 8).is_multiple_of(2) {
            Session::Plain(self.log.transactional_with(&id, transactions)?)
        } else {
            let transactional_id = Some(id);
            let options = ProducerOptions { transactional_id, transactions, ..self.options(producer) };
            Session::Batching(Producer::new(&self.log, options)?)
        };
        self.sessions.insert(producer, session);
        self.opened.push(producer);
        Ok(Outcome::Done)
    }

    fn send(
        &mut self,
        producer: usize,
        partition: Option<i32>,
        records: &[Content],
    ) -> Result<Vec<(i32, i64)>, Error> {
        let writer = &self.script.producers[producer];
        let compression: Compression = writer.compression.parse().expect("a name of Kafka's");
        if let WriterKind::Transactional(_) = writer.kind {
            return match self.session(producer)? {
                Session::Batching(producer) => self.send_all(producer, partition, records),
                Session::Plain(producer) => {
                    let place = partition.unwrap_or_else(|| by_key(&records[0]));
                    let batch = builder(compression, records)?.seal();
                    let base = producer.append(&self.partition(place)?, batch)?;
                    Ok(places(place, base, records))
                }
            };
        }
        if !self.producers.contains_key(&producer) {
            let made = Producer::new(&self.log, self.options(producer))?;
            self.producers.insert(producer, made);
        }
        self.send_all(&self.producers[&producer], partition, records)
    }

    fn options(&self, producer: usize) -> ProducerOptions {
        let writer = &self.script.producers[producer];
        let compression = Some(writer.compression.parse().expect("a name of Kafka's"));
        let idempotent = writer.kind == WriterKind::Idempotent;
        ProducerOptions { compression, idempotent, ..ProducerOptions::default() }
    }

    fn send_all(
        &self,
        producer: &Producer,
        partition: Option<i32>,
        records: &[Content],
    ) -> Result<Vec<(i32, i64)>, Error> {
        let topic = self.topic();
        let send = |content| match partition {
            Some(partition) => producer.send_to(&topic, PartitionId(partition), record(content)),
            None => producer.send(&topic, record(content)),
        };
        let sent: Vec<_> = records.iter().map(send).collect();
        let wait = |sent: SendFuture| sent.wait().map(|place| (place.partition.0, place.offset.0));
        sent.into_iter().map(wait).collect()
    }

    fn append(
        &self,
        partition: i32,
        compression: Compression,
        stamp: Option<ProducerStamp>,
        records: &[Content],
    ) -> Result<Vec<(i32, i64)>, Error> {
        let mut batch = builder(compression, records)?.seal();
        batch.stamp(stamp);
        let appended = self.partition(partition)?.append(batch)?;
        Ok(places(partition, appended.base_offset, records))
    }

    fn has_open_transaction(&self) -> Result<bool, Error> {
        for partition in 0..PARTITIONS {
            let offsets = self.offsets(partition)?;
            if offsets.stable < offsets.end {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the log do all that there is to do.
    fn settle(&self) -> Result<(), Error> {
        while self.log.step()? {}
        Ok(())
    }

    /// Opens the log again, after it was closed or without. Whoever has a transactional id takes it again.
    fn restart(&mut self, operation: &Operation) -> Result<(), Error> {
        if *operation == Operation::Restart {
            self.stamps.clear();
        }
        self.producers.clear();
        self.machine.stop(&self.log)?;
        self.sessions.clear();
        self.log = self.machine.open(self.script.seed)?;
        for producer in std::mem::take(&mut self.opened) {
            self.open(producer)?;
        }
        Ok(())
    }
}

fn done<T>(_: T) -> Outcome {
    Outcome::Done
}
