//! What must hold in every world, whenever it is looked at.

use std::collections::BTreeMap;

use lotic_log::batch::DecompressionBuffer;
use lotic_log::{Isolation, Log, Partition};

use super::{Interruption, Lives, World};
use crate::simulator::answer::{Answer, answer_to};
use crate::simulator::flow::{COPIES, Entry, INPUTS, LATE, ORDERS, OUTPUTS, REMINDERS, TOTALS};

/// Committed records as text, by topic and partition.
pub(super) type Seen = BTreeMap<(&'static str, i32), Vec<String>>;

impl World {
    /// Every acknowledged order is still there.
    pub(super) fn check_acknowledged(&self, log: &Log) -> Lives {
        for (&number, &acknowledged) in &self.acknowledged {
            let end = self.partition(log, ORDERS, number)?.offsets().end;
            if end < acknowledged {
                let promise =
                    format!("{ORDERS}-{number} was acknowledged up to {acknowledged}, and ends at {end}");
                return Err(Interruption::Broken(promise));
            }
        }
        for (&(topic, number), &appended) in &self.appended {
            let end = self.partition(log, topic, number)?.offsets().end;
            if end < appended {
                let promise = format!("{topic}-{number} was appended to up to {appended}, and ends at {end}");
                return Err(Interruption::Broken(promise));
            }
        }
        Ok(())
    }

    /// Reads all committed output, as anyone may at any time. What was seen once stays, unless a power cut has taken
    /// what nobody had synced: then it is what it was before.
    pub(super) fn look(&mut self) -> Lives<Seen> {
        let running = self.running.as_ref().expect("it was opened");
        let mut now = BTreeMap::new();
        for (topic, partitions) in OUTPUTS {
            for number in 0..partitions {
                let partition = self.partition(&running.log, topic, number)?;
                now.insert((topic, number), self.texts(&partition, Isolation::ReadCommitted)?);
            }
        }
        let committed = running.engine.last_committed();
        for (partition, before) in &self.seen {
            let is_earlier = self.may_go_back && before.starts_with(&now[partition]);
            if !is_earlier && !now[partition].starts_with(before) {
                let (before, now) = (before, &now[partition]);
                let promise = format!("{partition:?} held {before:?} committed, and holds {now:?}");
                return Err(Interruption::Broken(promise));
            }
        }
        if committed < self.seen_epoch && !self.may_go_back {
            let promise = format!("epoch {} was committed, and the last one is {committed}", self.seen_epoch);
            return Err(Interruption::Broken(promise));
        }
        if self.shown.newest() > committed {
            let promise = format!("epoch {} is shown, and {committed} is the last one", self.shown.newest());
            return Err(Interruption::Broken(promise));
        }
        let times_orphaned = self.shown.times_orphaned();
        if times_orphaned > self.times_orphaned && !self.may_go_back {
            let promise = format!("what was shown is of no epoch any more: {committed} is the last one");
            return Err(Interruption::Broken(promise));
        }
        self.times_orphaned = times_orphaned;
        self.seen = now.clone();
        self.seen_epoch = committed;
        self.may_go_back = false;
        Ok(now)
    }

    fn texts(&self, partition: &Partition, isolation: Isolation) -> Lives<Vec<String>> {
        let mut texts = Vec::new();
        let mut scratch = DecompressionBuffer::new();
        let mut from = partition.offsets().start;
        loop {
            let fetched = self.powered("reading", partition.fetch(from, 1 << 20, isolation))?;
            if fetched.next == from {
                return Ok(texts);
            }
            for batch in fetched.committed() {
                let batch = self.powered("reading a batch", batch)?;
                for record in self.powered("reading records", batch.records(&mut scratch))? {
                    let record = self.powered("reading a record", record)?;
                    let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                    let key = record.key.map(String::from_utf8_lossy);
                    texts.push(key.map_or_else(|| value.to_string(), |key| format!("{key}={value}")));
                }
            }
            from = fetched.next;
        }
    }

    /// The committed output is what must come of the input that is there.
    pub(super) fn check_answer(&mut self) -> Lives {
        let running = self.running.as_ref().expect("it was opened");
        let mut inputs = Vec::new();
        for (topic, partitions) in INPUTS {
            for number in 0..partitions {
                let partition = self.partition(&running.log, topic, number)?;
                let texts = self.texts(&partition, Isolation::ReadCommitted)?;
                let entries =
                    texts.iter().map(|text| Entry::parse(text.as_bytes()).expect("an entry was written"));
                inputs.push(entries.collect());
            }
        }
        let expected = answer_to(&inputs);
        let found = Answer { shown: self.shown.totals(), ..answer_in(&self.seen) };
        let differences = found.differences(&expected);
        if differences.is_empty() {
            self.answer = Some(found);
            return Ok(());
        }
        Err(Interruption::Broken(format!("the output is not that of the input: {}", differences.join("; "))))
    }
}

/// The committed output as an answer.
fn answer_in(seen: &Seen) -> Answer {
    let mut answer = Answer::default();
    for ((topic, _), texts) in seen {
        for text in texts {
            match *topic {
                TOTALS => {
                    let (window, sum) = text.split_once('=').expect("totals have keys");
                    let sum = sum.parse().expect("a sum is a number");
                    answer.totals.entry(window.to_owned()).or_default().push(sum);
                }
                LATE => {
                    let entry = Entry::parse(text.as_bytes()).expect("late entries are entries");
                    *answer.late.entry(entry.id).or_default() += 1;
                }
                REMINDERS => {
                    *answer.reminders.entry(text.parse().expect("an id is a number")).or_default() += 1;
                }
                COPIES => *answer.copies.entry(text.clone()).or_default() += 1,
                other => unreachable!("{other} is no output of the flow"),
            }
        }
    }
    answer
}
