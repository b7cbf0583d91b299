//! Who has a transactional id, who had it, and what they do.

use lotic_log::partition_for_key;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::script::{Content, Operation, PARTITIONS, Writer, WriterKind};
use super::batches::wrapping;
use super::{GROUPS, Generator, IDS, TIMEOUT_MS, codec};

/// The sequence of batches of another epoch than the open transaction's. Kafka refuses them, but keeps the lowest
/// sequence of what it was asked to verify, and refuses what the open transaction sends behind that.
const FAR_SEQUENCE: i32 = 1_000_000;

/// The producer that has a transactional id.
pub(super) struct Owner {
    pub(super) producer: usize,
    /// Whether a transaction is meant to be open.
    pub(super) is_open: bool,
    /// Whether somebody else has written in its name, so that what it sends next may not follow.
    is_doomed: bool,
    /// By partition what the last transaction is meant to have written: first sequences, with records.
    batches: [Vec<(i32, Vec<Content>)>; PARTITIONS as usize],
}

/// A producer that had a transactional id.
#[derive(Clone, Copy)]
pub(super) struct Zombie {
    pub(super) producer: usize,
    /// Whether it was told to begin a transaction since.
    pub(super) has_begun: bool,
}

impl Owner {
    pub(super) fn new(producer: usize) -> Self {
        Self { producer, is_open: false, is_doomed: false, batches: Default::default() }
    }

    pub(super) fn has_written(&self, partition: i32) -> bool {
        !self.batches[partition as usize].is_empty()
    }

    fn note(&mut self, operation: &Operation) {
        match operation {
            Operation::Begin(_) if !self.is_open => {
                *self = Self { is_open: true, ..Self::new(self.producer) };
            }
            Operation::Commit(_) | Operation::Abort(_) => self.is_open = false,
            Operation::Send { partition, records, .. } => {
                let by_key = || {
                    let key = records[0].key.as_deref().expect("a record without a partition has a key");
                    partition_for_key(key.as_bytes(), PARTITIONS).0
                };
                let batches = &mut self.batches[partition.unwrap_or_else(by_key) as usize];
                let last = batches.last();
                let next = last.map_or(0, |(sequence, records)| wrapping(*sequence, records.len() as i32));
                batches.push((next, records.clone()));
            }
            _ => {}
        }
    }
}

impl Generator {
    pub(super) fn transact(&mut self) {
        let id = self.rng.random_range(0..IDS);
        let takes_over = self.rng.random_ratio(1, 12);
        let Some(owner) = self.owners[id].as_mut().filter(|_| !takes_over) else {
            return self.open(id);
        };
        let Owner { producer, is_open, is_doomed, .. } = *owner;
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
            (true, _) => self.send_of(producer),
        };
        if let Some(owner) = &mut self.owners[id] {
            owner.note(&operation);
        }
        let may_stay_open = is_doomed && operation == Operation::Commit(producer);
        self.push(operation);
        if may_stay_open {
            self.push(Operation::Abort(producer));
        }
    }

    /// What a transaction writes.
    pub(super) fn send_of(&mut self, producer: usize) -> Operation {
        let by_key = self.rng.random_ratio(1, 4);
        // One without a key would be refused: see `send_too_much`.
        let records = self.records(by_key || self.script.family.compacts());
        let partition = (!by_key).then(|| self.partition());
        let records = if by_key { records[..1].to_vec() } else { records };
        Operation::Send { producer, partition, records }
    }

    /// A new producer takes a transactional id.
    fn open(&mut self, id: usize) {
        self.open_for(id, TIMEOUT_MS);
    }

    /// The same, of which transactions may be open for so long.
    pub(super) fn open_for(&mut self, id: usize, timeout_ms: i64) -> usize {
        let producer = self.script.producers.len();
        let compression = codec(self.script.family, &mut self.rng);
        let kind = WriterKind::Transactional(id);
        self.script.producers.push(Writer { kind, compression, timeout_ms });
        if let Some(before) = self.owners[id].replace(Owner::new(producer)) {
            self.zombies.push(Zombie { producer: before.producer, has_begun: before.is_open });
        }
        self.push(Operation::Open(producer));
        producer
    }

    /// Batches in the name of somebody who has a transactional id, or had it, as they come when a network
    /// repeats, delays and loses them, or as they ought not to come.
    pub(super) fn append_as(&mut self) {
        let partition = self.partition();
        let drawn = self.records(self.script.family.compacts());
        let choice = self.rng.random_range(0..100);
        if !self.zombies.is_empty() && self.rng.random_ratio(1, 4) {
            let index = self.rng.random_range(0..self.zombies.len());
            let (later, sequence) = (-self.rng.random_range(0..2), FAR_SEQUENCE);
            let producer = self.zombies[index].producer;
            let (transactional, records) = (true, drawn);
            return self.push(Operation::AppendAs {
                producer,
                partition,
                later,
                sequence,
                transactional,
                records,
            });
        }
        let id = self.rng.random_range(0..IDS);
        let Some(owner) = &mut self.owners[id] else { return self.transact() };
        let batches = &mut owner.batches[partition as usize];
        let next = batches.last().map_or(0, |(sequence, records)| wrapping(*sequence, records.len() as i32));
        let has_written = !batches.is_empty();
        let (later, sequence, transactional, records) = match choice {
            0..32 if has_written => {
                let (sequence, records) = batches.choose(&mut self.rng).expect("it has some").clone();
                (0, sequence, true, records)
            }
            32..46 => (0, next + 1 + choice - 32, true, drawn),
            46..56 => (-1, FAR_SEQUENCE, true, drawn),
            56..64 => (1, FAR_SEQUENCE, true, drawn),
            // One that is not known in a partition may go on with any sequence, outside of transactions.
            64..72 if has_written => (0, next, false, drawn),
            72..86 if has_written => {
                batches.push((next, drawn.clone()));
                owner.is_doomed = true;
                (0, next, true, drawn)
            }
            _ => (0, 0, true, drawn),
        };
        let producer = owner.producer;
        self.push(Operation::AppendAs { producer, partition, later, sequence, transactional, records });
    }

    /// Somebody whose transactional id was taken over goes on as if it were not.
    pub(super) fn haunt(&mut self) {
        if self.zombies.is_empty() {
            return self.transact();
        }
        let index = self.rng.random_range(0..self.zombies.len());
        let Zombie { producer, has_begun } = self.zombies[index];
        if !has_begun {
            self.zombies[index].has_begun = true;
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

    pub(super) fn has_open(&self) -> bool {
        self.owners.iter().flatten().any(|owner| owner.is_open)
    }

    pub(super) fn end_transactions(&mut self) {
        (0..IDS).for_each(|id| self.end_transaction(id));
    }

    /// Ends what is open under an id, or may be.
    pub(super) fn end_transaction(&mut self, id: usize) {
        let Some(owner) = &mut self.owners[id] else { return };
        let producer = owner.producer;
        if owner.is_open {
            self.script.operations.push(Operation::Commit(producer));
        }
        *owner = Owner::new(producer);
        // One of which a send has failed cannot be committed.
        self.push(Operation::Abort(producer));
    }
}
