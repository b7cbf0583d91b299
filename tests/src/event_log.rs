//! What every adapter of [`EventLog`] must do, whatever is behind it.
//!
//! [`event_log_conformance!`](crate::event_log_conformance) makes a test of each check for one kind of log.
//! A new adapter adds one invocation; a new promise of the port adds one function here and its name to the
//! macro.

mod delaying;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lotic_engine::epoch::Epoch;
use lotic_engine::epoch_record::{self, EpochRecord};
use lotic_engine::error::ErrorKind;
use lotic_engine::event_log::{CommitPoll, EventLog, PartitionKey, TopicHandle, TopicSpec};
use lotic_log::batch::{BatchBuilder, Compression, DecompressionBuffer, SealedBatch};
use lotic_log::{CommittedBatches, Offset, PartitionId, Timestamp};

pub use delaying::{Delaying, Outcome};

/// A log whose holders come and go.
pub trait Harness {
    /// Another hold on it under this transactional id.
    fn open(&self, transactional_id: &str) -> Arc<dyn EventLog>;

    /// Ends the process that holds it, without a word to anyone, and starts another.
    fn restart(&self);
}

/// How often a log is stepped before a test gives up on it.
const STEPS_MAX: usize = 10_000;

/// The topic most checks use.
fn topic(log: &dyn EventLog, name: &str, partitions: i32) -> TopicHandle {
    log.resolve(&spec(name, partitions)).expect("the topic is made")
}

fn spec(name: &str, partitions: i32) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions: Some(partitions),
        compacted: false,
        create: true,
        key_format: Some("json/1".to_owned()),
        owner: None,
    }
}

fn key(topic: &TopicHandle, partition: i32) -> PartitionKey {
    PartitionKey { topic: topic.index, partition: PartitionId(partition) }
}

fn batch(values: &[&str]) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(Timestamp(0), None, Some(value.as_bytes()), &[]).expect("a short record");
    }
    builder.seal()
}

/// Writes `values` to one partition in an epoch of their own, and commits it.
fn commit_values(log: &dyn EventLog, epoch: Epoch, partition: PartitionKey, values: &[&str]) {
    log.begin(epoch).expect("nothing is open");
    log.append(partition, batch(values)).expect("the transaction is open");
    wait_for_ends(log);
    assert_eq!(commit(log, epoch, &[]), CommitPoll::Committed);
}

/// Submits the commit and waits for what becomes of it.
pub fn commit(log: &dyn EventLog, epoch: Epoch, consumed: &[(PartitionKey, Offset)]) -> CommitPoll {
    log.commit(epoch, consumed).expect("the transaction of the epoch is open");
    for _ in 0..STEPS_MAX {
        match log.poll_commit(epoch).expect("a commit was submitted") {
            CommitPoll::Pending => log.step().expect("the log goes on"),
            decided => return decided,
        };
    }
    panic!("epoch {epoch} was not decided in {STEPS_MAX} steps");
}

/// Waits until every append is acknowledged.
pub fn wait_for_ends(log: &dyn EventLog) -> Vec<(PartitionKey, Offset)> {
    for _ in 0..STEPS_MAX {
        if let Some(mut ends) = log.ends().expect("a transaction is open") {
            ends.sort();
            return ends;
        }
        log.step().expect("the log goes on");
    }
    panic!("appends were not acknowledged in {STEPS_MAX} steps");
}

/// The committed values of a partition, with their offsets, fetched `bytes_max` at a time.
pub fn values(log: &dyn EventLog, partition: PartitionKey, bytes_max: usize) -> Vec<(Offset, String)> {
    let mut values = Vec::new();
    let mut from = log.start_offset(partition).expect("the partition exists");
    while let Some(fetched) = log.fetch(partition, from, bytes_max).expect("the partition is readable") {
        assert!(fetched.next > from, "a fetch that finds something goes on");
        let mut scratch = DecompressionBuffer::new();
        for batch in CommittedBatches::new(&fetched.bytes, &fetched.aborted) {
            let batch = batch.expect("a whole batch");
            for record in batch.records(&mut scratch).expect("records") {
                let record = record.expect("a record");
                let value = record.value.expect("tests write values").to_vec();
                if record.offset >= from {
                    values.push((record.offset, String::from_utf8(value).expect("tests write text")));
                }
            }
        }
        from = fetched.next;
    }
    assert_eq!(
        from,
        log.stable_offset(partition).expect("the partition exists"),
        "all that is stable was read"
    );
    values
}

fn texts(log: &dyn EventLog, partition: PartitionKey) -> Vec<String> {
    values(log, partition, 1 << 20).into_iter().map(|(_, value)| value).collect()
}

/// A topic is made once, and resolved to the same identity by whoever asks.
pub fn a_topic_is_made_where_it_is_missing_and_found_after_that(harness: &dyn Harness) {
    let log = harness.open("flow");
    assert_eq!(log.find("orders").expect("a question"), None);
    let made = topic(&*log, "orders", 3);
    assert_eq!(made.partitions, 3);
    assert_eq!(log.find("orders").expect("a question"), Some(made.clone()));
    assert_eq!(topic(&*log, "orders", 3), made);
    harness.restart();
    let again = harness.open("flow").find("orders").expect("a question").expect("it was made");
    assert_eq!((again.id, again.partitions), (made.id, 3));
}

/// A topic that is not what the flow declares is refused, and left as it is.
pub fn a_topic_that_is_missing_or_otherwise_is_refused(harness: &dyn Harness) {
    let log = harness.open("flow");
    let check = |spec: TopicSpec, kind, named: &str| {
        let error = log.resolve(&spec).expect_err("it is not what the spec says");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    };
    check(TopicSpec { create: false, ..spec("orders", 3) }, ErrorKind::Invalid, "orders");
    assert_eq!(log.find("orders").expect("a question"), None);
    let made = topic(&*log, "orders", 3);
    check(spec("orders", 4), ErrorKind::Incompatible, "has 3 partitions, the program declares 4");
    let other_key = TopicSpec { key_format: Some("utf-8/1".to_owned()), ..spec("orders", 3) };
    check(other_key, ErrorKind::Incompatible, "json/1");
    let of_flow = |flow: &str| TopicSpec { owner: Some(flow.to_owned()), ..spec("a-b-c-changelog", 3) };
    log.resolve(&of_flow("a")).expect("it is made, and its owner's");
    log.resolve(&of_flow("a")).expect("it is its owner's");
    check(of_flow("a-b"), ErrorKind::Incompatible, "a-b-c-changelog belongs to flow a,");
    check(spec("a-b-c-changelog", 3), ErrorKind::Incompatible, "a-b-c-changelog belongs to flow a,");
    let reader = TopicSpec { create: false, ..spec("a-b-c-changelog", 3) };
    log.resolve(&reader).expect("anybody may read it");
    assert_eq!(topic(&*log, "orders", 3), made);
}

/// Records of a transaction are seen when it is committed, all at once, at the ends it told.
pub fn what_is_committed_is_read_in_order_and_nothing_before(harness: &dyn Harness) {
    let log = harness.open("flow");
    let (orders, totals) = (topic(&*log, "orders", 2), topic(&*log, "totals", 1));
    log.begin(Epoch(1)).expect("nothing is open");
    log.append(key(&orders, 1), batch(&["a", "b"])).expect("open");
    log.append(key(&totals, 0), batch(&["t"])).expect("open");
    log.append(key(&orders, 1), batch(&["c"])).expect("open");
    let ends = wait_for_ends(&*log);
    assert_eq!(ends, [(key(&orders, 1), Offset(3)), (key(&totals, 0), Offset(1))]);
    for partition in [key(&orders, 0), key(&orders, 1), key(&totals, 0)] {
        assert_eq!(log.stable_offset(partition).expect("it exists"), Offset(0));
        assert!(values(&*log, partition, 1).is_empty());
    }
    assert_eq!(commit(&*log, Epoch(1), &[]), CommitPoll::Committed);
    let expected: Vec<_> =
        ["a", "b", "c"].iter().zip(0..).map(|(value, at)| (Offset(at), (*value).to_owned())).collect();
    assert_eq!(values(&*log, key(&orders, 1), 1), expected, "a byte at a time is a batch at a time");
    assert_eq!(values(&*log, key(&orders, 1), 1 << 20), expected);
    assert_eq!(texts(&*log, key(&totals, 0)), ["t"]);
    assert!(texts(&*log, key(&orders, 0)).is_empty());
    for (partition, end) in ends {
        assert!(log.stable_offset(partition).expect("it exists") >= end);
    }
    assert_eq!(log.poll_commit(Epoch(1)).expect("decided"), CommitPoll::Committed, "and it stays so");
}

/// What was aborted is never seen, and does not hide what follows.
pub fn what_is_aborted_is_never_seen(harness: &dyn Harness) {
    let log = harness.open("flow");
    let orders = topic(&*log, "orders", 1);
    log.abort().expect("nothing is open, so nothing is to be done");
    commit_values(&*log, Epoch(1), key(&orders, 0), &["a"]);
    log.begin(Epoch(2)).expect("nothing is open");
    log.append(key(&orders, 0), batch(&["b"])).expect("open");
    log.abort().expect("open");
    for _ in 0..STEPS_MAX {
        if !log.step().expect("the log goes on") {
            break;
        }
    }
    commit_values(&*log, Epoch(2), key(&orders, 0), &["c"]);
    assert_eq!(texts(&*log, key(&orders, 0)), ["a", "c"]);
}

/// A transaction that nobody ended is aborted when its holder comes back, and holds nobody up.
pub fn what_a_crash_left_open_is_aborted(harness: &dyn Harness) {
    let log = harness.open("flow");
    let orders = topic(&*log, "orders", 1);
    commit_values(&*log, Epoch(1), key(&orders, 0), &["a"]);
    log.begin(Epoch(2)).expect("nothing is open");
    log.append(key(&orders, 0), batch(&["b"])).expect("open");
    drop(log);
    harness.restart();
    let log = harness.open("flow");
    let orders = topic(&*log, "orders", 1);
    assert_eq!(texts(&*log, key(&orders, 0)), ["a"]);
    commit_values(&*log, Epoch(2), key(&orders, 0), &["c"]);
    assert_eq!(texts(&*log, key(&orders, 0)), ["a", "c"]);
}

/// Whoever takes the transactional id fences its last holder.
pub fn a_second_holder_fences_the_first(harness: &dyn Harness) {
    let first = harness.open("flow");
    let orders = topic(&*first, "orders", 1);
    first.begin(Epoch(1)).expect("nothing is open");
    first.append(key(&orders, 0), batch(&["old"])).expect("open");
    let second = harness.open("flow");
    let orders_again = topic(&*second, "orders", 1);
    second.begin(Epoch(1)).expect("what the first left open is aborted");
    second.append(key(&orders_again, 0), batch(&["new"])).expect("open");
    wait_for_ends(&*second);
    let fenced = match first.append(key(&orders, 0), batch(&["more"])) {
        Err(error) => error.kind() == ErrorKind::Fenced,
        Ok(_) => {
            wait_for_ends(&*first);
            commit(&*first, Epoch(1), &[]) == CommitPoll::Fenced
        }
    };
    assert!(fenced, "the first holder is told that it is fenced");
    assert_eq!(commit(&*second, Epoch(1), &[]), CommitPoll::Committed);
    assert_eq!(texts(&*second, key(&orders_again, 0)), ["new"]);
}

/// Two flows have transactions of their own.
pub fn flows_of_other_names_do_not_disturb_each_other(harness: &dyn Harness) {
    let (one, other) = (harness.open("one"), harness.open("other"));
    let (orders, same) = (topic(&*one, "orders", 1), topic(&*other, "orders", 1));
    one.begin(Epoch(1)).expect("nothing is open");
    one.append(key(&orders, 0), batch(&["one"])).expect("open");
    commit_values(&*other, Epoch(1), key(&same, 0), &["other"]);
    assert!(texts(&*one, key(&orders, 0)).is_empty(), "an open transaction stands before it");
    wait_for_ends(&*one);
    assert_eq!(commit(&*one, Epoch(1), &[]), CommitPoll::Committed);
    assert_eq!(texts(&*one, key(&orders, 0)), ["one", "other"]);
}

/// Calls that make no sense are refused, and change nothing.
pub fn calls_out_of_order_are_refused(harness: &dyn Harness) {
    let log = harness.open("flow");
    let orders = topic(&*log, "orders", 1);
    assert!(log.append(key(&orders, 0), batch(&["a"])).is_err(), "nothing is open");
    log.begin(Epoch(1)).expect("nothing is open");
    assert!(log.begin(Epoch(2)).is_err(), "one is open");
    log.append(key(&orders, 0), batch(&["a"])).expect("open");
    wait_for_ends(&*log);
    assert!(log.commit(Epoch(2), &[]).is_err(), "that one is not open");
    assert_eq!(commit(&*log, Epoch(1), &[]), CommitPoll::Committed);
    assert!(log.append(key(&orders, 0), batch(&["b"])).is_err(), "it is over");
    assert_eq!(texts(&*log, key(&orders, 0)), ["a"]);
}

/// Reading outside of a partition is an error, at its end it is nothing.
pub fn reading_at_the_end_finds_nothing_and_beyond_it_is_an_error(harness: &dyn Harness) {
    let log = harness.open("flow");
    let orders = topic(&*log, "orders", 1);
    let partition = key(&orders, 0);
    assert!(log.fetch(partition, Offset(0), 1).expect("the end").is_none());
    commit_values(&*log, Epoch(1), partition, &["a", "b", "c"]);
    let middle = log.fetch(partition, Offset(1), 1).expect("readable").expect("two records are there");
    assert!(middle.next > Offset(1), "a batch that holds the offset is found");
    let end = log.stable_offset(partition).expect("it exists");
    assert!(log.fetch(partition, end, 1).expect("the end").is_none());
    assert!(log.fetch(partition, Offset(1_000), 1).is_err());
}

/// Source partitions may be named as consumed, whether this flow writes them or not.
pub fn a_commit_takes_what_was_consumed(harness: &dyn Harness) {
    let log = harness.open("flow");
    let (orders, totals) = (topic(&*log, "orders", 1), topic(&*log, "totals", 1));
    commit_values(&*log, Epoch(1), key(&orders, 0), &["a"]);
    log.begin(Epoch(2)).expect("nothing is open");
    log.append(key(&totals, 0), batch(&["t"])).expect("open");
    wait_for_ends(&*log);
    let consumed = [(key(&orders, 0), Offset(1))];
    assert_eq!(commit(&*log, Epoch(2), &consumed), CommitPoll::Committed);
    assert_eq!(texts(&*log, key(&totals, 0)), ["t"]);
}

/// Whoever asked to be woken is, by the time a commit is decided.
pub fn a_decision_wakes_whoever_asked(harness: &dyn Harness) {
    let log = harness.open("flow");
    let orders = topic(&*log, "orders", 1);
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = woken.clone();
    log.on_progress(Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    log.begin(Epoch(1)).expect("nothing is open");
    log.append(key(&orders, 0), batch(&["a"])).expect("open");
    wait_for_ends(&*log);
    let before = woken.load(Ordering::SeqCst);
    assert_eq!(commit(&*log, Epoch(1), &[]), CommitPoll::Committed);
    assert!(woken.load(Ordering::SeqCst) > before);
}

/// The last epoch record is found, and it is that of the last committed epoch, after any crash.
pub fn the_last_epoch_record_is_that_of_the_last_committed_epoch(harness: &dyn Harness) {
    let mut expected = None;
    for number in 1..=24 {
        let log = harness.open("flow");
        let epochs = log.resolve(&epoch_record::topic_spec("flow")).expect("made once");
        assert_eq!(epoch_record::read_last(&*log, &epochs).expect("readable"), expected);
        let record = EpochRecord {
            version: epoch_record::VERSION,
            epoch: Epoch(number),
            fingerprint: "f".to_owned(),
            splits: Vec::new(),
            ends: Vec::new(),
            topics: Vec::new(),
            disorder_ms: BTreeMap::new(),
        };
        let mut value = Vec::new();
        record.encode(&mut value);
        let value = String::from_utf8(value).expect("JSON");
        log.begin(record.epoch).expect("nothing is open");
        log.append(epoch_record::partition(&epochs), batch(&[&value])).expect("open");
        wait_for_ends(&*log);
        match number % 3 {
            0 => drop(log),
            1 => log.abort().expect("open"),
            _ => {
                assert_eq!(commit(&*log, record.epoch, &[]), CommitPoll::Committed);
                expected = Some(record);
            }
        }
        harness.restart();
    }
}

/// A holder that is told that the outcome is unknown finds it out: the records are all there or not at all.
pub fn an_unknown_outcome_is_found_out_by_starting_again(harness: &dyn Harness) {
    for (number, outcome) in [(1, Outcome::Committed), (2, Outcome::Lost), (3, Outcome::Committed)] {
        let log = Delaying::new(harness.open("flow"), 3);
        let (orders, totals) = (topic(&*log, "orders", 1), topic(&*log, "totals", 1));
        let before = texts(&*log, key(&orders, 0));
        let epoch = Epoch(number);
        log.answer_unknown(epoch, outcome);
        log.begin(epoch).expect("nothing is open");
        let value = format!("value {number}");
        log.append(key(&orders, 0), batch(&[&value])).expect("open");
        log.append(key(&totals, 0), batch(&[&value])).expect("open");
        wait_for_ends(&*log);
        assert_eq!(commit(&*log, epoch, &[]), CommitPoll::Unknown);
        drop(log);
        harness.restart();
        let log = harness.open("flow");
        let (orders, totals) = (topic(&*log, "orders", 1), topic(&*log, "totals", 1));
        let mut expected = before;
        if outcome == Outcome::Committed {
            expected.push(value);
        }
        assert_eq!(texts(&*log, key(&orders, 0)), expected);
        assert_eq!(texts(&*log, key(&totals, 0)), expected);
    }
}

/// Workers append at the same time.
pub fn appends_of_several_threads_are_all_there(harness: &dyn Harness) {
    const THREADS: i32 = 4;
    const BATCHES: usize = 20;
    let log = harness.open("flow");
    let orders = topic(&*log, "orders", 2);
    log.begin(Epoch(1)).expect("nothing is open");
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, orders, failed) = (&log, &orders, &failed);
            scope.spawn(move || {
                for number in 0..BATCHES {
                    let value = format!("{thread} {number}");
                    if log.append(key(orders, number as i32 % 2), batch(&[&value])).is_err() {
                        failed.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst));
    wait_for_ends(&*log);
    assert_eq!(commit(&*log, Epoch(1), &[]), CommitPoll::Committed);
    for partition in 0..2 {
        let found = texts(&*log, key(&orders, partition));
        for thread in 0..THREADS {
            let own = |value: &&String| value.starts_with(&format!("{thread} "));
            let expected: Vec<_> =
                (partition as usize..BATCHES).step_by(2).map(|number| format!("{thread} {number}")).collect();
            assert_eq!(
                found.iter().filter(own).cloned().collect::<Vec<_>>(),
                expected,
                "in each thread's order"
            );
        }
    }
}

/// Makes a test of each check, on logs that `$harness` (an expression) makes.
#[macro_export]
macro_rules! event_log_conformance {
    ($harness:expr) => {
        $crate::event_log_conformance!(@each $harness;
            a_topic_is_made_where_it_is_missing_and_found_after_that
            a_topic_that_is_missing_or_otherwise_is_refused
            what_is_committed_is_read_in_order_and_nothing_before
            what_is_aborted_is_never_seen
            what_a_crash_left_open_is_aborted
            a_second_holder_fences_the_first
            flows_of_other_names_do_not_disturb_each_other
            calls_out_of_order_are_refused
            reading_at_the_end_finds_nothing_and_beyond_it_is_an_error
            a_commit_takes_what_was_consumed
            a_decision_wakes_whoever_asked
            the_last_epoch_record_is_that_of_the_last_committed_epoch
            an_unknown_outcome_is_found_out_by_starting_again
            appends_of_several_threads_are_all_there
        );
    };
    (@each $harness:expr; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::event_log::$check(&$harness);
            }
        )*
    };
}
