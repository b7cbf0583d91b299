//! Every kind of event log keeps the same promises.

mod embedded {
    use std::sync::Arc;

    use lotic_engine::embedded::EmbeddedLog;
    use lotic_engine::epoch::Epoch;
    use lotic_engine::event_log::{CommitPoll, EventLog, PartitionKey, TopicSpec};
    use lotic_log::batch::{BatchBuilder, Compression};
    use lotic_log::group::CommittedOffsets;
    use lotic_log::storage::memory::MemoryStorage;
    use lotic_log::{Log, LogOptions, ManualClock, Offset, PartitionId, Timestamp, TopicPartition};
    use lotic_tests::event_log::{Delaying, Harness, commit};
    use parking_lot::Mutex;

    /// The embedded log on a disk in memory. Each hold is slowed down by so many steps.
    struct Embedded {
        storage: Arc<MemoryStorage>,
        log: Mutex<Option<Log>>,
        delay_steps: usize,
    }

    impl Embedded {
        fn new(delay_steps: usize) -> Self {
            Self { storage: MemoryStorage::new(1), log: Mutex::default(), delay_steps }
        }
    }

    impl Harness for Embedded {
        fn open(&self, transactional_id: &str) -> Arc<dyn EventLog> {
            let mut log = self.log.lock();
            let log = log.get_or_insert_with(|| {
                let options = LogOptions::manual(self.storage.clone(), ManualClock::new(), 1);
                Log::open("/data", options).expect("the log opens")
            });
            let hold = EmbeddedLog::new(log.clone(), transactional_id);
            if self.delay_steps == 0 { hold } else { Delaying::new(hold, self.delay_steps) }
        }

        fn restart(&self) {
            // Pulled out, so that what goes now leaves nothing behind.
            self.storage.fail_after(0);
            *self.log.lock() = None;
            self.storage.kill();
            self.storage.clear_faults();
        }
    }

    #[test]
    fn what_was_consumed_is_committed_for_the_group_of_the_flow_with_the_epoch() {
        let harness = Embedded::new(0);
        let hold = harness.open("flow");
        let orders = hold.resolve(&spec("orders", 2)).expect("made");
        let totals = hold.resolve(&spec("totals", 1)).expect("made");
        let log = harness.log.lock().clone().expect("it is open");
        let offset = |partition| {
            let offsets = CommittedOffsets::read(&log).expect("readable");
            let partition = TopicPartition::new("orders", PartitionId(partition));
            offsets.get("flow", &partition).map(|committed| (committed.offset, committed.topic_id))
        };
        let epoch = |number, partition, consumed| {
            hold.begin(Epoch(number)).expect("nothing is open");
            let totals = PartitionKey { topic: totals.index, partition: PartitionId(0) };
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(Timestamp(0), None, Some(b"t"), &[]).expect("a short record");
            hold.append(totals, batch.seal()).expect("open");
            let key = PartitionKey { topic: orders.index, partition: PartitionId(partition) };
            commit(&*hold, Epoch(number), &[(key, Offset(consumed))])
        };
        assert_eq!(offset(0), None);
        assert_eq!(epoch(1, 0, 0), CommitPoll::Committed);
        assert_eq!(epoch(2, 1, 0), CommitPoll::Committed);
        assert_eq!(offset(0), Some((Offset(0), Some(orders.id))));
        assert_eq!(offset(1), Some((Offset(0), Some(orders.id))));
    }

    fn spec(name: &str, partitions: i32) -> TopicSpec {
        let partitions = Some(partitions);
        let (name, key_format, owner) = (name.to_owned(), None, None);
        TopicSpec { name, partitions, compacted: false, create: true, key_format, owner }
    }

    mod at_once {
        lotic_tests::event_log_conformance!(super::Embedded::new(0));
    }

    mod delayed {
        lotic_tests::event_log_conformance!(super::Embedded::new(3));
    }
}
