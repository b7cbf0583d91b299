//! Records, and batches whose stamp is drawn.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::super::script::{Content, FIRST_STAMPED_ID, Operation, PARTITIONS, SEGMENT_MS};
use super::{Generator, UNCOMPRESSED};

/// Producers whose sequences are drawn, not counted.
pub(super) const STAMPED_PRODUCERS: i64 = 3;

/// The batches of a producer in a partition, as they are meant to be.
#[derive(Clone, Default)]
pub(super) struct Stamped {
    epoch: i16,
    next: Option<i32>,
    /// The first sequence and number of records of the last ones.
    batches: Vec<(i32, Vec<Content>)>,
}

impl Generator {
    /// A batch of a stamped producer: the next one mostly, or one that is repeated, missing something, of
    /// another epoch.
    pub(super) fn append(&mut self) {
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

    /// Records that make a batch, with keys where they are needed: a compacted topic refuses those without.
    pub(super) fn batch(&mut self, keyed: bool) -> Vec<Content> {
        let keyed = keyed || self.script.family.compacts() && !self.rng.random_ratio(1, 25);
        self.records(keyed)
    }

    /// A batch that fills a good part of a segment.
    pub(super) fn send_much(&mut self) {
        let value = Some("x".repeat(self.rng.random_range(300..1_500)));
        let record = Content { timestamp: self.next_time(), key: None, value, headers: Vec::new() };
        let partition = Some(self.partition());
        self.push(Operation::Send { producer: UNCOMPRESSED, partition, records: vec![record] });
    }

    pub(super) fn records(&mut self, keyed: bool) -> Vec<Content> {
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

    /// A time, not in order; now and then so late that Kafka begins a segment.
    pub(super) fn next_time(&mut self) -> i64 {
        self.time +=
            if self.rng.random_ratio(1, 15) { SEGMENT_MS + 10_000 } else { self.rng.random_range(0..900) };
        (self.time - self.rng.random_range(0..2_000) * i64::from(self.rng.random_ratio(1, 4)))
            .max(self.first_time)
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
pub(super) fn wrapping(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}
