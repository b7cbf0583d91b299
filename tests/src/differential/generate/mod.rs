//! Scripts, drawn from a seed.
//!
//! Timestamps lie far in the future, where no marker has its time, which is that of a clock: Kafka's lookups
//! by time find markers too, and Lotic's do not. Only records that are to expire lie in the past, and are not
//! looked for by time. What follows from an operation is not computed here: a sequence that is meant to follow
//! may not, and a transaction that is meant to be open may be over. Both sides have to agree all the same.
//!
//! | module | owns |
//! |---|---|
//! | `families` | what the scripts of each family are made of |
//! | `batches` | records, and batches whose stamp is drawn |
//! | `transactions` | who has a transactional id, who had it, and what they do |

mod batches;
mod families;
mod transactions;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::script::{
    BATCH_BYTES_MAX, Content, Dated, FIRST_TIMESTAMP, Family, Operation, PARTITIONS, Place, SEGMENT_MS,
    Script, Writer, WriterKind,
};
use batches::{STAMPED_PRODUCERS, Stamped};
pub(super) use families::{compacting, deleting, forgetting, overdue, restarting, retaining, sizing};
use transactions::{Owner, Zombie};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

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

/// How long transactions may be open where nobody waits for that: longer than a run takes.
const TIMEOUT_MS: i64 = 600_000;

/// Two libraries that compress may come to different sizes.
fn codec(family: Family, rng: &mut ChaCha8Rng) -> &'static str {
    let codecs = if family == Family::Sizing { &CODECS[..1] } else { &CODECS[..] };
    codecs.choose(rng).expect("there are some")
}

struct Generator {
    rng: ChaCha8Rng,
    script: Script,
    /// No record is earlier.
    first_time: i64,
    /// The time of the last record, or about.
    time: i64,
    /// Who has each transactional id.
    owners: [Option<Owner>; IDS],
    /// Those who had one.
    zombies: Vec<Zombie>,
    /// By partition and producer.
    stamped: Vec<Stamped>,
    compactions: i64,
}

impl Generator {
    fn new(seed: u64, family: Family) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let writer = |kind, compression| Writer { kind, compression, timeout_ms: TIMEOUT_MS };
        let producers = vec![
            writer(WriterKind::Plain, codec(family, &mut rng)),
            writer(WriterKind::Plain, "none"),
            writer(WriterKind::Idempotent, codec(family, &mut rng)),
        ];
        Self {
            script: Script {
                seed,
                family,
                // Kafka begins a segment by the records' time, and deletes it, which others wait for.
                append_time: family == Family::Deleting && seed % APPEND_TIME_EVERY == 3,
                producers,
                operations: Vec::new(),
            },
            rng,
            first_time: FIRST_TIMESTAMP,
            time: FIRST_TIMESTAMP,
            owners: [const { None }; IDS],
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
            0..17 => self.send(),
            17..31 => self.append(),
            31..39 => self.append_as(),
            39..67 => self.transact(),
            67..73 => self.haunt(),
            73..78 => self.delete(),
            78..82 => self.commit_offset(),
            82..85 => self.reopen(),
            85..87 => self.send_too_much(),
            _ => self.observe(),
        }
    }

    /// Ends with a look at everything.
    fn finish(mut self) -> Script {
        if !self.script.family.compacts() {
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
                if self.script.family != Family::Retaining {
                    self.find_newest(partition, committed);
                    self.find_time(partition, committed);
                }
            }
            self.push(Operation::Walk(partition));
        }
    }

    fn find_newest(&mut self, partition: i32, committed: bool) {
        self.push(match self.script.append_time {
            true => Operation::FindDated { partition, committed, dated: Dated::Newest },
            false => Operation::FindNewest { partition, committed },
        });
    }

    /// A time among those of the records or just outside.
    fn find_time(&mut self, partition: i32, committed: bool) {
        let operation = if self.script.append_time {
            let (place, plus) = (self.rng.random_range(0..60), self.rng.random_range(-1..=1));
            Operation::FindDated { partition, committed, dated: Dated::At { place, plus } }
        } else {
            let timestamp = self.rng.random_range(self.first_time - 10..=self.time + 10);
            Operation::FindTime { partition, committed, timestamp }
        };
        self.push(operation);
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
            owner.is_open && owner.has_written(partition) && compression == "none"
        };
        let producer = self.owners.iter().flatten().find(is_in).map_or(UNCOMPRESSED, |owner| owner.producer);
        self.push(Operation::Send { producer, partition: Some(partition), records: vec![record] });
    }

    fn delete(&mut self) {
        if !self.script.family.deletes() {
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
        if self.script.family.compacts() {
            // Kafka may be compacting what was sealed meanwhile.
            return self.push(Operation::Offsets(partition));
        }
        let operation = match self.rng.random_range(0..12) {
            0 | 1 => Operation::Offsets(partition),
            2..6 if self.script.family == Family::Retaining => Operation::Walk(partition),
            2..5 => return self.find_time(partition, committed),
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

    fn partition(&mut self) -> i32 {
        self.rng.random_range(0..PARTITIONS)
    }
}
