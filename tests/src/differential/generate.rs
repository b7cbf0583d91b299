//! Scripts, drawn from a seed.
//!
//! Timestamps lie far in the future, where no marker has its time, which is that of a clock: Kafka's lookups
//! by time find markers too, and Lotic's do not. So where records carry the time of their append, nothing is
//! as late as what is looked for, and the newest record is not looked for. What follows from an operation is not computed here: a
//! sequence that is meant to follow may not, and a transaction that is meant to be open may be over. Both
//! sides have to agree all the same.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::script::{
    BATCH_BYTES_MAX, Content, FIRST_STAMPED_ID, FIRST_TIMESTAMP, Operation, PARTITIONS, Place, SEGMENT_MS,
    Script, Writer, WriterKind,
};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Producers whose sequences are drawn, not counted.
const STAMPED_PRODUCERS: i64 = 3;

/// Transactional ids, and groups.
const IDS: usize = 2;
const GROUPS: usize = 2;

/// Bytes of a batch of one record beside its value, or about as many.
const BATCH_OVERHEAD: usize = 72;

/// The places of the writers that every script has.
const PLAIN: usize = 0;
const UNCOMPRESSED: usize = 1;
const IDEMPOTENT: usize = 2;

/// One in so many scripts that delete is on a topic of which records carry the time of their append.
const APPEND_TIME_EVERY: u64 = 5;

/// Times a compacting script compacts.
const COMPACTIONS: usize = 2;

/// A script that deletes.
pub(super) fn script(seed: u64) -> Script {
    let mut generator = Generator::new(seed, false);
    let length = generator.rng.random_range(20..45);
    (0..length).for_each(|_| generator.draw());
    generator.finish()
}

/// A script that compacts.
pub(super) fn compacting(seed: u64) -> Script {
    let mut generator = Generator::new(seed, true);
    for _ in 0..COMPACTIONS {
        let length = generator.rng.random_range(10..25);
        (0..length).for_each(|_| generator.draw());
        generator.compact();
        generator.look();
    }
    generator.finish()
}

struct Generator {
    rng: ChaCha8Rng,
    script: Script,
    /// The time of the last record, or about.
    time: i64,
    /// Who has each transactional id.
    owners: [Option<Owner>; IDS],
    /// Those who had one, and whether they were told to begin a transaction since.
    zombies: Vec<(usize, bool)>,
    /// By partition and producer.
    stamped: Vec<Stamped>,
    compactions: i64,
}

/// The producer that has a transactional id.
#[derive(Clone, Copy)]
struct Owner {
    producer: usize,
    /// Whether a transaction is meant to be open.
    is_open: bool,
    /// The partitions that the transaction has records in.
    has_written: [bool; PARTITIONS as usize],
}

/// The batches of a producer in a partition, as they are meant to be.
#[derive(Clone, Default)]
struct Stamped {
    epoch: i16,
    next: Option<i32>,
    /// The first sequence and number of records of the last ones.
    batches: Vec<(i32, Vec<Content>)>,
}

impl Generator {
    fn new(seed: u64, compacts: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut codec = || *CODECS.choose(&mut rng).expect("there are some");
        let writer = |kind, compression| Writer { kind, compression };
        let producers = vec![
            writer(WriterKind::Plain, codec()),
            writer(WriterKind::Plain, "none"),
            writer(WriterKind::Idempotent, codec()),
        ];
        Self {
            script: Script {
                seed,
                compacts,
                // Kafka begins a segment by the records' time, which compacting scripts wait for.
                append_time: !compacts && seed % APPEND_TIME_EVERY == 3,
                producers,
                operations: Vec::new(),
            },
            rng,
            time: FIRST_TIMESTAMP,
            owners: [None; IDS],
            zombies: Vec::new(),
            stamped: vec![Stamped::default(); STAMPED_PRODUCERS as usize * PARTITIONS as usize],
            compactions: 0,
        }
    }

    fn push(&mut self, operation: Operation) {
        self.script.operations.push(operation);
    }

    fn draw(&mut self) {
        match self.rng.random_range(0..100) {
            0..18 => self.send(),
            18..34 => self.append(),
            34..66 => self.transact(),
            66..73 => self.haunt(),
            73..78 => self.delete(),
            78..82 => self.commit_offset(),
            82..85 => self.reopen(),
            85..87 => self.send_too_much(),
            _ => self.observe(),
        }
    }

    /// Ends with a look at everything.
    fn finish(mut self) -> Script {
        if !self.script.compacts {
            self.look();
        }
        (0..GROUPS).for_each(|group| self.push(Operation::Committed(group)));
        self.script
    }

    fn look(&mut self) {
        for partition in 0..PARTITIONS {
            self.push(Operation::Offsets(partition));
            for committed in [false, true] {
                self.push(Operation::Consume { partition, committed, from: Place::Start(0) });
                self.find_newest(partition, committed);
                let timestamp = self.some_time();
                self.push(Operation::FindTime { partition, committed, timestamp });
            }
            self.push(Operation::Walk(partition));
        }
    }

    fn find_newest(&mut self, partition: i32, committed: bool) {
        if !self.script.append_time {
            self.push(Operation::FindNewest { partition, committed });
        }
    }

    fn send(&mut self) {
        let producer =
            *[PLAIN, PLAIN, UNCOMPRESSED, IDEMPOTENT, IDEMPOTENT].choose(&mut self.rng).expect("some");
        let by_key = self.rng.random_ratio(1, 3);
        let mut records = self.batch(by_key);
        let partition = (!by_key).then(|| self.partition());
        if by_key {
            // Its key is one record's.
            records.truncate(1);
        }
        self.push(Operation::Send { producer, partition, records });
    }

    /// A record that makes a batch about as large as is allowed, or larger.
    fn send_too_much(&mut self) {
        let length = BATCH_BYTES_MAX - BATCH_OVERHEAD + self.rng.random_range(0..20);
        let value = Some("x".repeat(length));
        let record =
            Content { timestamp: self.next_time(), key: Some("k".to_owned()), value, headers: Vec::new() };
        let partition = self.partition();
        // Kafka writes a marker into each partition that a transaction has sent to, Lotic where it has records.
        let is_in = |owner: &&Owner| {
            let compression = self.script.producers[owner.producer].compression;
            owner.is_open && owner.has_written[partition as usize] && compression == "none"
        };
        let producer = self.owners.iter().flatten().find(is_in).map_or(UNCOMPRESSED, |owner| owner.producer);
        self.push(Operation::Send { producer, partition: Some(partition), records: vec![record] });
    }

    /// A batch of a stamped producer: the next one mostly, or one that is repeated, missing something, of
    /// another epoch.
    fn append(&mut self) {
        let partition = self.partition();
        let number = self.rng.random_range(0..STAMPED_PRODUCERS);
        let index = (number * i64::from(PARTITIONS) + i64::from(partition)) as usize;
        let records = self.batch(false);
        let first = *[0, 0, 7, i32::MAX - 2].choose(&mut self.rng).expect("there are some");
        let choice = self.rng.random_range(0..100);
        let stamped = &mut self.stamped[index];
        let next = stamped.next.unwrap_or(first);
        let (epoch, sequence, records) = match choice {
            50..72 if !stamped.batches.is_empty() => {
                let (sequence, records) = stamped.batches.choose(&mut self.rng).expect("it has some").clone();
                (stamped.epoch, sequence, records)
            }
            72..80 => (stamped.epoch, wrapping(next, 1 + choice - 72), records),
            80..86 => {
                *stamped = Stamped { epoch: stamped.epoch + 1, ..Stamped::default() };
                stamped.note(0, &records);
                (stamped.epoch, 0, records)
            }
            86..90 => (stamped.epoch + 1, 3, records),
            90..96 if stamped.epoch > 0 => (stamped.epoch - 1, next, records),
            _ => {
                stamped.note(next, &records);
                (stamped.epoch, next, records)
            }
        };
        let producer_id = FIRST_STAMPED_ID + number;
        self.push(Operation::Append { partition, producer_id, epoch, sequence, records });
    }

    fn transact(&mut self) {
        let id = self.rng.random_range(0..IDS);
        let takes_over = self.rng.random_ratio(1, 12);
        let Some(mut owner) = self.owners[id].filter(|_| !takes_over) else {
            return self.open(id);
        };
        let Owner { producer, is_open, .. } = owner;
        let choice = self.rng.random_range(0..100);
        let operation = match (is_open, choice) {
            (false, 0..3) => Operation::Commit(producer),
            (false, 3..6) => Operation::Abort(producer),
            (false, _) => Operation::Begin(producer),
            (true, 0..3) => Operation::Begin(producer),
            (true, 3..10) => Operation::SendOffset {
                producer,
                group: self.rng.random_range(0..GROUPS),
                partition: self.partition(),
                offset: self.rng.random_range(0..20),
            },
            (true, 10..28) => Operation::Commit(producer),
            (true, 28..42) => Operation::Abort(producer),
            (true, _) => {
                let by_key = self.rng.random_ratio(1, 4);
                // One without a key would be refused: see `send_too_much`.
                let records = self.records(by_key || self.script.compacts);
                let partition = (!by_key).then(|| self.partition());
                let records = if by_key { records[..1].to_vec() } else { records };
                Operation::Send { producer, partition, records }
            }
        };
        match operation {
            Operation::Begin(_) => owner = Owner { is_open: true, ..owner },
            Operation::Commit(_) | Operation::Abort(_) => owner = Owner::new(producer),
            Operation::Send { partition: Some(partition), .. } => {
                owner.has_written[partition as usize] = true
            }
            _ => {}
        }
        self.owners[id] = Some(owner);
        self.push(operation);
    }

    /// A new producer takes a transactional id.
    fn open(&mut self, id: usize) {
        let producer = self.script.producers.len();
        let compression = *CODECS.choose(&mut self.rng).expect("there are some");
        self.script.producers.push(Writer { kind: WriterKind::Transactional(id), compression });
        if let Some(before) = self.owners[id].replace(Owner::new(producer)) {
            self.zombies.push((before.producer, before.is_open));
        }
        self.push(Operation::Open(producer));
    }

    /// Somebody whose transactional id was taken over goes on as if it were not.
    fn haunt(&mut self) {
        if self.zombies.is_empty() {
            return self.transact();
        }
        let index = self.rng.random_range(0..self.zombies.len());
        let (producer, is_open) = self.zombies[index];
        if !is_open {
            self.zombies[index].1 = true;
            return self.push(Operation::Begin(producer));
        }
        if self.rng.random_ratio(1, 4) {
            let (group, partition) = (self.rng.random_range(0..GROUPS), self.partition());
            self.push(Operation::SendOffset { producer, group, partition, offset: 19 });
        } else {
            let records = self.batch(false);
            let partition = Some(self.partition());
            self.push(Operation::Send { producer, partition, records });
        }
        let ending = if self.rng.random() { Operation::Commit(producer) } else { Operation::Abort(producer) };
        self.push(ending);
        self.zombies.swap_remove(index);
    }

    fn delete(&mut self) {
        if self.script.compacts {
            return self.observe();
        }
        let partition = self.partition();
        let to = match self.rng.random_range(0..8) {
            0 => Place::End(self.rng.random_range(1..5)),
            1 => Place::Stable(0),
            _ => Place::Within(self.rng.random_range(0..6)),
        };
        self.push(Operation::Delete { partition, to });
    }

    fn commit_offset(&mut self) {
        let group = self.rng.random_range(0..GROUPS);
        let operation = if self.rng.random() {
            let (partition, offset) = (self.partition(), self.rng.random_range(0..20));
            Operation::CommitOffset { group, partition, offset }
        } else {
            Operation::Committed(group)
        };
        self.push(operation);
    }

    /// Those who had a transactional id are gone after it.
    fn reopen(&mut self) {
        if self.has_open() {
            return self.observe();
        }
        self.zombies.clear();
        self.push(Operation::Reopen);
    }

    fn observe(&mut self) {
        let (partition, committed) = (self.partition(), self.rng.random());
        if self.script.compacts {
            // Kafka may be compacting what was sealed meanwhile.
            return self.push(Operation::Offsets(partition));
        }
        let operation = match self.rng.random_range(0..12) {
            0 | 1 => Operation::Offsets(partition),
            2..5 => Operation::FindTime { partition, committed, timestamp: self.some_time() },
            5 => return self.find_newest(partition, committed),
            6 => Operation::Walk(partition),
            7 => Operation::FetchMissing,
            _ => {
                let from = match self.rng.random_range(0..8) {
                    0 => Place::Start(-1),
                    1 => Place::End(1),
                    2 => Place::Stable(0),
                    3 => Place::End(0),
                    4 => Place::End(-self.rng.random_range(1..6)),
                    _ => Place::Within(self.rng.random_range(0..12)),
                };
                Operation::Consume { partition, committed, from }
            }
        };
        self.push(operation);
    }

    /// Ends what is open, and compacts.
    fn compact(&mut self) {
        self.end_transactions();
        self.compactions += 1;
        self.time += 10 * SEGMENT_MS;
        let (key, value) = (format!("compaction-{}", self.compactions), Some("begins a segment".to_owned()));
        let record = Content { timestamp: self.time, key: Some(key), value, headers: Vec::new() };
        self.push(Operation::Compact { producer: UNCOMPRESSED, record });
    }

    fn has_open(&self) -> bool {
        self.owners.iter().flatten().any(|owner| owner.is_open)
    }

    fn end_transactions(&mut self) {
        for owner in self.owners.iter_mut().flatten().filter(|owner| owner.is_open) {
            // One of which a send has failed cannot be committed.
            let Owner { producer, .. } = *owner;
            self.script.operations.extend([Operation::Commit(producer), Operation::Abort(producer)]);
            *owner = Owner::new(producer);
        }
    }

    fn partition(&mut self) -> i32 {
        self.rng.random_range(0..PARTITIONS)
    }

    /// A time, not in order; now and then so late that Kafka begins a segment.
    fn next_time(&mut self) -> i64 {
        self.time +=
            if self.rng.random_ratio(1, 15) { SEGMENT_MS + 10_000 } else { self.rng.random_range(0..900) };
        (self.time - self.rng.random_range(0..2_000) * i64::from(self.rng.random_ratio(1, 4)))
            .max(FIRST_TIMESTAMP)
    }

    /// A time to look for, among those of the records or just outside.
    fn some_time(&mut self) -> i64 {
        self.rng.random_range(FIRST_TIMESTAMP - 10..=self.time + 10)
    }

    /// Records that make a batch, with keys where they are needed: a compacted topic refuses those without.
    fn batch(&mut self, keyed: bool) -> Vec<Content> {
        let keyed = keyed || self.script.compacts && !self.rng.random_ratio(1, 25);
        self.records(keyed)
    }

    fn records(&mut self, keyed: bool) -> Vec<Content> {
        let count = self.rng.random_range(1..=5);
        (0..count).map(|_| self.content(keyed)).collect()
    }

    fn content(&mut self, keyed: bool) -> Content {
        let key = format!("key-{}", self.rng.random_range(0..8));
        let words = ["ich", "weiß", "nicht", "was", "soll", "es", "bedeuten", "daß", "ich", "so"];
        let count = self.rng.random_range(0..12);
        let value: Vec<_> =
            (0..count).map(|_| *words.choose(&mut self.rng).expect("there are some")).collect();
        let header = |rng: &mut ChaCha8Rng| {
            let value = rng.random_ratio(3, 4).then(|| rng.random_range(0..100).to_string());
            (format!("header-{}", rng.random_range(0..2)), value)
        };
        let headers = if self.rng.random_ratio(1, 5) { self.rng.random_range(1..4) } else { 0 };
        Content {
            timestamp: self.next_time(),
            key: (keyed || self.rng.random_ratio(2, 3)).then_some(key),
            value: self.rng.random_ratio(5, 6).then(|| value.join(" ")),
            headers: (0..headers).map(|_| header(&mut self.rng)).collect(),
        }
    }
}

impl Owner {
    fn new(producer: usize) -> Self {
        Self { producer, is_open: false, has_written: [false; PARTITIONS as usize] }
    }
}

impl Stamped {
    fn note(&mut self, sequence: i32, records: &[Content]) {
        self.batches.push((sequence, records.to_vec()));
        // A few more than are remembered.
        if self.batches.len() > 7 {
            self.batches.remove(0);
        }
        self.next = Some(wrapping(sequence, records.len() as i32));
    }
}

/// The sequence so many records later: after the largest comes 0.
fn wrapping(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}
