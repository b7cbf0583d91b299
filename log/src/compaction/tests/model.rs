//! A partition that is written, compacted and crashed at random, against a list of what was written.

use proptest::prelude::*;

use super::*;

/// What happens to the partition.
#[derive(Clone, Debug)]
enum Event {
    /// Keys; a negative one is a tombstone.
    Plain(Vec<i64>),
    Idempotent(i64, Vec<i64>),
    Transactional(i64, Vec<i64>),
    End {
        id: i64,
        commits: bool,
    },
    Roll,
    Flush,
    Compact,
    /// A compaction in the middle of which the power fails.
    FailAt(u64),
    Crash,
    Wait(u64),
    DeleteRecords(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let keys = || prop::collection::vec(-6..7i64, 1..5);
    prop_oneof![
        6 => keys().prop_map(Event::Plain),
        3 => (0..2i64, keys()).prop_map(|(id, keys)| Event::Idempotent(id, keys)),
        6 => (10..12i64, keys()).prop_map(|(id, keys)| Event::Transactional(id, keys)),
        4 => (10..12i64, any::<bool>()).prop_map(|(id, commits)| Event::End { id, commits }),
        5 => Just(Event::Roll),
        3 => Just(Event::Flush),
        4 => Just(Event::Compact),
        2 => (0..70u64).prop_map(Event::FailAt),
        1 => Just(Event::Crash),
        2 => (1..1500u64).prop_map(Event::Wait),
        1 => any::<u8>().prop_map(Event::DeleteRecords),
    ]
}

/// What was written, in order.
#[derive(Clone, Debug)]
enum Entry {
    /// Keys; a negative one is a tombstone. And when.
    Records {
        stamp: Option<Stamp>,
        keys: Vec<i64>,
        at: u64,
    },
    Marker {
        id: i64,
        commits: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stamp {
    id: i64,
    epoch: i16,
    sequence: i32,
    transactional: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Open,
    Committed,
    Aborted,
}

/// One record.
#[derive(Clone, Debug)]
struct Written {
    offset: i64,
    key: i64,
    is_tombstone: bool,
    at: u64,
    state: State,
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// With the offsets at which they begin.
    entries: Vec<(i64, Entry)>,
    end: i64,
    start: i64,
    now: u64,
}

impl Model {
    fn push(&mut self, entry: Entry) {
        let count = match &entry {
            Entry::Records { keys, .. } => keys.len() as i64,
            Entry::Marker { .. } => 1,
        };
        self.entries.push((self.end, entry));
        self.end += count;
    }

    /// The log ends at `end` again.
    fn cut_back(&mut self, end: i64) {
        self.entries.retain(|(base, _)| *base < end);
        self.end = end;
    }

    /// How the transaction ended that a producer has open at `offset`.
    fn state_at(&self, id: i64, offset: i64) -> State {
        let markers = self.entries.iter().filter(|(base, _)| *base > offset);
        let mut markers = markers.filter_map(|(_, entry)| match entry {
            Entry::Marker { id: of, commits } if *of == id => Some(*commits),
            _ => None,
        });
        markers.next().map_or(State::Open, |commits| if commits { State::Committed } else { State::Aborted })
    }

    fn written(&self) -> Vec<Written> {
        let mut written = Vec::new();
        for (base, entry) in &self.entries {
            let Entry::Records { stamp, keys, at } = entry else { continue };
            let stamp = stamp.filter(|stamp| stamp.transactional);
            let state = stamp.map_or(State::Committed, |stamp| self.state_at(stamp.id, *base));
            for (index, key) in keys.iter().enumerate() {
                let (offset, key, is_tombstone) = (base + index as i64, key.abs(), *key < 0);
                written.push(Written { offset, key, is_tombstone, at: *at, state });
            }
        }
        written
    }

    /// The last batch of a producer: where, how and what.
    fn last(&self, of: i64) -> Option<(i64, Stamp, &[i64])> {
        self.entries.iter().rev().find_map(|(base, entry)| match entry {
            Entry::Records { stamp: Some(stamp), keys, .. } if stamp.id == of => {
                Some((*base, *stamp, &keys[..]))
            }
            _ => None,
        })
    }

    fn is_open(&self, id: i64) -> bool {
        self.last(id).is_some_and(|(base, ..)| self.state_at(id, base) == State::Open)
    }

    /// What the next batch of a producer is stamped with.
    fn next_stamp(&self, id: i64, transactional: bool) -> Stamp {
        let (epoch, sequence) = match self.last(id) {
            None => (0, 0),
            Some((_, last, _)) if transactional && !self.is_open(id) => (last.epoch + 1, 0),
            Some((_, last, keys)) => (last.epoch, last.sequence + keys.len() as i32),
        };
        Stamp { id, epoch, sequence, transactional }
    }
}

fn newest(written: &[Written], to: i64) -> impl Iterator<Item = &Written> {
    let counts = move |written: &&Written| written.offset < to && written.state == State::Committed;
    let is_newest = move |one: &&Written| {
        !written.iter().filter(counts).any(|other| other.key == one.key && other.offset > one.offset)
    };
    written.iter().filter(counts).filter(is_newest)
}

struct Run {
    bench: Bench,
    model: Model,
}

type Outcome = Result<(), TestCaseError>;

fn sealed(stamp: Option<Stamp>, keys: &[i64]) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for key in keys {
        push(&mut builder, key.abs(), (*key >= 0).then_some("v"));
    }
    let batch = builder.seal();
    match stamp {
        None => batch,
        Some(Stamp { id, epoch, sequence, transactional }) => {
            stamped(batch, id, epoch, sequence, transactional)
        }
    }
}

impl Run {
    fn step(&mut self, event: &Event) -> Outcome {
        match event {
            Event::Plain(keys) => self.append(None, keys),
            Event::Idempotent(id, keys) => self.append(Some((*id, false)), keys),
            Event::Transactional(id, keys) => self.append(Some((*id, true)), keys),
            Event::End { id, commits } => self.end(*id, *commits),
            Event::Roll => self.bench.roll(),
            Event::Flush => flush(&self.bench.partition).expect("the disk is fine"),
            Event::Compact => drop(self.bench.compact()),
            Event::FailAt(operations) => {
                self.bench.storage.fail_after(*operations);
                drop(self.bench.try_compact());
                self.bench.storage.clear_faults();
                self.crash();
            }
            Event::Crash => self.crash(),
            Event::Wait(milliseconds) => {
                self.bench.clock.advance(Duration::from_millis(*milliseconds));
                self.model.now += milliseconds;
            }
            Event::DeleteRecords(share) => self.delete_records(*share),
        }
        self.check()
    }

    fn append(&mut self, producer: Option<(i64, bool)>, keys: &[i64]) {
        let stamp = producer.map(|(id, transactional)| self.model.next_stamp(id, transactional));
        self.bench.append(sealed(stamp, keys));
        self.model.push(Entry::Records { stamp, keys: keys.to_vec(), at: self.model.now });
    }

    fn end(&mut self, id: i64, commits: bool) {
        let Some((_, last, _)) = self.model.last(id).filter(|_| self.model.is_open(id)) else { return };
        let kind = if commits { MarkerKind::Commit } else { MarkerKind::Abort };
        self.bench.end(kind, id, last.epoch);
        self.model.push(Entry::Marker { id, commits });
    }

    fn crash(&mut self) {
        let durable = self.bench.partition.offsets().durable;
        self.bench.crash();
        let offsets = self.bench.partition.offsets();
        assert!(offsets.end >= durable, "what was synced is there");
        self.model.cut_back(offsets.end.0);
        assert_eq!(self.model.end, offsets.end.0, "it ends with a batch");
    }

    fn delete_records(&mut self, share: u8) {
        let offsets = self.bench.partition.offsets();
        let limit = offsets.stable.min(offsets.durable).0;
        let to = limit * i64::from(share % 64) / 256;
        let start = self.bench.partition.delete_records(Offset(to)).expect("it is stable and durable").0;
        self.model.start = self.model.start.max(to);
        assert_eq!(start, self.model.start);
    }

    fn check(&self) -> Outcome {
        let partition = &self.bench.partition;
        let (offsets, model) = (partition.offsets(), &self.model);
        let written = model.written();
        let open = written.iter().find(|written| written.state == State::Open);
        let stable = open.map_or(model.end, |written| written.offset).min(offsets.high_watermark.0);
        prop_assert_eq!((offsets.start.0, offsets.end.0, offsets.stable.0), (model.start, model.end, stable));
        let batches = self.bench.batches().into_iter().filter(|batch| !batch.is_control);
        let seen: Vec<_> =
            batches.flat_map(|batch| batch.records).filter(|record| record.0 >= model.start).collect();
        prop_assert!(seen.is_sorted_by(|one, next| one.0 < next.0), "in order");
        for (offset, key, value) in &seen {
            let written = written.iter().find(|written| written.offset == *offset);
            let written = written.map(|written| (written.key.to_string(), written.is_tombstone));
            prop_assert_eq!(key.clone().map(|key| (key, value.is_none())), written, "offset {}", offset);
        }
        let is_kept = |offset: i64| offset < model.start || seen.iter().any(|record| record.0 == offset);
        // The newest of each key among all that are decided is there, unless it is an old tombstone.
        for newest in newest(&written, stable) {
            let is_old = newest.is_tombstone && model.now >= newest.at + DELETE_RETENTION.as_millis() as u64;
            prop_assert!(is_kept(newest.offset) || is_old, "{:?}", newest);
        }
        // What compaction may not touch is all there.
        let untouched = partition.compaction_view().active.base().0.min(stable);
        let shown = untouched..offsets.high_watermark.0;
        for written in written.iter().filter(|written| shown.contains(&written.offset)) {
            prop_assert!(is_kept(written.offset), "{:?}", written);
        }
        self.check_committed(&written, stable)
    }

    /// Readers of committed records see nothing that was aborted.
    fn check_committed(&self, written: &[Written], stable: i64) -> Outcome {
        let mut next = self.bench.partition.offsets().start;
        let mut scratch = DecompressionBuffer::new();
        while next.0 < stable {
            let fetched = self.bench.partition.fetch(next, 200, Isolation::ReadCommitted);
            let fetched = fetched.expect("the log is sound");
            if fetched.bytes.is_empty() {
                break;
            }
            for batch in fetched.committed() {
                let batch = batch.expect("it is sound");
                for record in batch.records(&mut scratch).expect("it decompresses") {
                    let offset = record.expect("it is sound").offset.0;
                    let written = written.iter().find(|written| written.offset == offset);
                    prop_assert_eq!(written.map(|written| written.state), Some(State::Committed));
                }
            }
            next = fetched.next;
        }
        Ok(())
    }

    /// What each producer wrote last is known, and answered with its old offsets; or it is known that its
    /// transaction has ended.
    fn check_producers(&self) -> Outcome {
        for id in [0, 1, 10, 11] {
            let Some((base, stamp, keys)) = self.model.last(id) else { continue };
            let repeated = match self.bench.partition.append_to_transaction(sealed(Some(stamp), keys)) {
                Ok(repeated) => repeated,
                Err(error) => {
                    prop_assert_eq!(error.kind(), crate::ErrorKind::Fenced);
                    prop_assert!(stamp.transactional && !self.model.is_open(id), "{:?}", stamp);
                    continue;
                }
            };
            prop_assert!(repeated.duplicate, "{:?}", stamp);
            prop_assert_eq!(repeated.base_offset.0, base);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_compacted_and_lost_the_newest_of_each_key_is_there(
        seed in any::<u64>(),
        key_map_keys in 1..12usize,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut bench = Bench::with(disk(seed), PartitionConfig { segment_bytes: 500, ..small() });
        bench.key_map_bytes = 30 * key_map_keys;
        let mut run = Run { bench, model: Model::default() };
        for event in &events {
            run.step(event)?;
        }
        flush(&run.bench.partition).expect("the disk is fine");
        run.crash();
        run.check()?;
        run.check_producers()?;
    }
}
