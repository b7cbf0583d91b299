//! Reading what groups have committed while the segments that it is in are replaced.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::tests::{DAY, commit, committed, tp};
use super::*;
use crate::clock::ManualClock;
use crate::files::FileKind;
use crate::log::{Log, LogOptions};
use crate::partition::{Isolation, Partition};
use crate::spawn::spawn;
use crate::storage::SyncPurpose;
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;
use crate::topic::TopicConfig;

/// How long to wait for what takes no time.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    storage: Arc<InterruptingStorage>,
    clock: Arc<ManualClock>,
    log: Log,
    home: Arc<Partition>,
}

/// A log in which two groups have committed.
fn bench() -> Bench {
    let (storage, clock) = (InterruptingStorage::new(MemoryStorage::new(1)), ManualClock::new());
    let options = LogOptions::manual(storage.clone(), clock.clone(), 1);
    let log = Log::open("/log", options).expect("the disk is fine");
    log.create_topic("in", TopicConfig { partitions: 2, ..TopicConfig::default() }).expect("a new topic");
    ["g", "h"].into_iter().for_each(|group| commit(&log, group, &[(0, 1)]));
    let home = offsets_partition(&log).expect("made");
    Bench { storage, clock, log, home }
}

impl Bench {
    fn directory(&self) -> PathBuf {
        PathBuf::from("/log").join(self.home.name().to_string())
    }
}

#[test]
fn what_is_deleted_and_compacted_away_between_two_reads_is_not_shown() {
    let bench = bench();
    let Bench { storage, clock, log, home } = &bench;
    home.seal_active().expect("the disk is fine");
    let second = home.offsets().end;
    log.delete_offsets("g", &[tp(0)]).expect("it is known");
    log.flush(std::slice::from_ref(home), SyncPurpose::Records).wait().expect("the disk is fine");
    let compact = {
        let (log, clock) = (log.clone(), clock.clone());
        move || {
            for round in 0..2 {
                commit(&log, "h", &[(1, round)]);
                log.compact(OFFSETS_TOPIC).expect("it is sound");
                // Longer than tombstones are kept.
                clock.advance(2 * DAY);
            }
        }
    };
    // The first segment has been read by then, and the deletion is in the second one.
    storage.before_read(FileKind::Log.path(&bench.directory(), second), compact);
    let read = CommittedOffsets::read(log).expect("it is sound");
    assert!(!storage.is_pending(), "it was compacted meanwhile");
    assert_eq!(read.groups().collect::<Vec<_>>(), ["h"]);
    assert_eq!(committed(log, "h"), [(0, 1), (1, 1)]);
}

#[test]
fn what_was_committed_is_read_while_a_compaction_of_it_waits_for_the_disk() {
    let bench = bench();
    let Bench { storage, log, .. } = &bench;
    let (sender, receiver) = mpsc::channel();
    let is_read = Arc::new(AtomicBool::new(false));
    let read_meanwhile = {
        let (log, is_read) = (log.clone(), is_read.clone());
        move || {
            let reading = move || {
                let read = log.group_coordinator().committed(&log, "g", &[tp(0)], Isolation::ReadCommitted);
                // Nobody may be waiting for it any more.
                let _ = sender.send(read.is_ok());
            };
            spawn("reader", reading).expect("it starts");
            is_read.store(receiver.recv_timeout(PATIENCE) == Ok(true), Ordering::Relaxed);
        }
    };
    // In the middle of the first step, which is one like the others.
    storage.before_create(bench.directory().join("marks.new"), read_meanwhile);
    log.compact(OFFSETS_TOPIC).expect("it is sound");
    assert!(is_read.load(Ordering::Relaxed));
}
