//! The written table of transactions of a log that goes back behind it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::TRANSACTION_TOPIC;
use super::snapshot::TableSnapshot;
use crate::clock::ManualClock;
use crate::consistent_cut::tests::batch;
use crate::driver::Steps;
use crate::log::{Log, LogOptions, Repair};
use crate::partition::{Durability, Partition};
use crate::record::{Offset, PartitionId, ProducerEpoch};
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Storage, SyncPurpose};
use crate::topic::TopicConfig;

const DIRECTORY: &str = "/log";

/// How many transactions there are before the log goes back, and after.
const TRANSACTIONS: usize = 20;

fn options(storage: Arc<dyn Storage>) -> LogOptions {
    LogOptions { durability: Durability::Os, ..LogOptions::manual(storage, ManualClock::new(), 1) }
}

fn open(storage: Arc<dyn Storage>) -> Log {
    Log::open(DIRECTORY, options(storage)).expect("the disk is well")
}

fn partition(log: &Log, topic: &str) -> Arc<Partition> {
    let topic = log.topic(topic).or_else(|_| log.create_topic(topic, TopicConfig::default()));
    topic.expect("the disk is well").partitions()[0].clone()
}

fn commit_some(log: &Log, transactional_id: &str) {
    let producer = log.transactional(transactional_id).expect("the disk is well");
    for value in 0..TRANSACTIONS {
        producer.begin().expect("none is open");
        producer.append(&partition(log, "seldom"), batch(&value.to_string())).expect("the disk is well");
        producer.commit(&[]).wait().expect("nothing waits for the disk");
    }
}

fn home_end(log: &Log) -> Offset {
    log.topic(TRANSACTION_TOPIC).expect("there are transactions").partitions()[0].offsets().end
}

/// Up to where the written table knows the log.
fn written(disk: &MemoryStorage) -> Option<Offset> {
    TableSnapshot::read(disk, Path::new(DIRECTORY)).expect("it is readable").map(|snapshot| snapshot.upto)
}

/// Goes on in a log that has gone back behind `written`, until it is as long again. Nobody is forgotten who has taken
/// an id meanwhile.
fn check_goes_on(disk: &MemoryStorage, written: Offset) {
    let log = open(disk.mount());
    let gone_back_to = home_end(&log);
    log.transactional("newcomer").expect("the disk is well");
    assert!(home_end(&log) < written, "{gone_back_to} is behind {written}: what is taken is, too");
    commit_some(&log, "beta");
    assert!(home_end(&log) > written);
    disk.kill();
    drop(log);
    let log = open(disk.mount());
    let is_known = log.coordinator().state.lock().table.entries.contains_key("newcomer");
    assert!(is_known, "it was taken between {gone_back_to} and {written}");
}

#[test]
fn a_written_table_that_knows_what_was_given_up_is_not_believed_once_the_log_has_grown_past_it() {
    let disk = MemoryStorage::new(1);
    let interrupting = InterruptingStorage::new(disk.mount());
    let log = open(interrupting.clone());
    let [failing, _] = ["failing", "seldom"].map(|topic| partition(&log, topic));
    log.transactional("alpha").expect("the disk is well");
    log.coordinator().set_limits(ProducerEpoch(i16::MAX), TRANSACTIONS as u64);
    failing.append(batch("1")).expect("the disk is well");
    disk.fail_with(ErrorKind::Other, 0);
    log.flush(&[failing], SyncPurpose::Records).wait().expect_err("its sync fails");
    commit_some(&log, "alpha");
    let upto = home_end(&log);
    // The table's partition is closed, each by itself after the last cut has failed, and another is about to be.
    let closing = log.clone();
    interrupting.before_create("/log/seldom-0/00000000000000000000.timeindex".into(), move || {
        while closing.coordinator().step() {}
    });
    log.close().expect_err("there is no last cut");
    assert!(!interrupting.is_pending(), "it was closed");
    disk.kill();
    drop(log);
    let written = written(&disk).expect("it was put in its place");
    assert!(written <= upto && written > Offset(TRANSACTIONS as i64 / 2), "{written} of {upto}");
    check_goes_on(&disk, written);
}

#[test]
fn a_written_table_that_knows_what_was_cut_off_is_not_believed_once_the_log_has_grown_past_it() {
    let disk = MemoryStorage::new(1);
    let log = open(disk.mount());
    commit_some(&log, "alpha");
    log.close().expect("the disk is well");
    drop(log);
    let written = written(&disk).expect("it is written when the log is closed");
    let cut = Repair {
        topic: TRANSACTION_TOPIC.to_owned(),
        partition: PartitionId(0),
        truncate_at: Offset(2),
        dry_run: false,
    };
    Log::repair(DIRECTORY, &options(disk.mount()), &cut).expect("it is sound");
    check_goes_on(&disk, written);
}

/// A written table that is not believed does not come back with a power cut, when the log has grown past it.
pub(crate) fn check_removed(seed: u64) {
    let disk = MemoryStorage::new(seed);
    let options = || LogOptions { durability: Durability::Sync, ..options(disk.mount()) };
    let open = || Log::open(DIRECTORY, options()).expect("the disk is well");
    let log = open();
    for id in ["beta", "gamma"] {
        log.transactional(id).expect("the disk is well");
    }
    let truncate_at = home_end(&log);
    commit_some(&log, "alpha");
    log.close().expect("the disk is well");
    drop(log);
    let written = written(&disk).expect("it is written when the log is closed");
    let (topic, partition) = (TRANSACTION_TOPIC.to_owned(), PartitionId(0));
    let cut = Repair { topic, partition, truncate_at, dry_run: false };
    Log::repair(DIRECTORY, &options(), &cut).expect("it is sound");
    let log = open();
    // Said behind the cut and before what the table says.
    log.transactional("beta").expect("the disk is well");
    let epoch = |log: &Log| log.coordinator().state.lock().table.entries["beta"].producer_epoch;
    let taken = epoch(&log);
    assert!(home_end(&log) < written);
    while home_end(&log) <= written {
        commit_some(&log, "gamma");
    }
    disk.crash();
    drop(log);
    assert_eq!(epoch(&open()), taken);
}

#[test]
fn a_written_table_that_is_not_believed_does_not_come_back_with_a_power_cut() {
    (0..20).for_each(check_removed);
}
