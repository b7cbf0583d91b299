//! A consumer of committed records that reads beside the lives, and remembers what it saw.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lotic_log::{Consumer, ErrorKind, Log, LogOptions, Offset, TopicPartition};

use crate::failure::{About, Result, ensure};
use crate::stored::{committed, hash_of, partitions, reading};

/// Reads one directory, whoever writes to it, from its first record to its last.
pub(super) struct Watcher {
    directory: PathBuf,
    options: LogOptions,
    reader: Option<Reader>,
    /// What was seen of each partition: offset and hash, in order.
    seen: BTreeMap<TopicPartition, Vec<(Offset, u64)>>,
}

struct Reader {
    log: Log,
    consumer: Consumer,
    assigned: usize,
}

impl Watcher {
    pub(super) fn new(directory: &Path) -> Result<Self> {
        Ok(Self { directory: directory.to_owned(), options: reading()?, reader: None, seen: BTreeMap::new() })
    }

    /// Reads what has been committed since, until there is nothing more or `is_over`.
    pub(super) fn look(&mut self, is_over: impl Fn() -> bool) -> Result<()> {
        match self.read(is_over) {
            Ok(()) => Ok(()),
            // There is no log yet, or a tail that was never committed has been cut off.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Retry) => {
                self.reader = None;
                Ok(())
            }
            Err(error) => Err(error).about("the consumer beside the program"),
        }
    }

    fn read(&mut self, is_over: impl Fn() -> bool) -> lotic_log::Result<()> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::open(&self.directory, &self.options)?,
        };
        reader.refresh(&self.seen)?;
        let seen = &mut self.seen;
        let mut note = |partition: &TopicPartition, record: lotic_log::batch::RecordView<'_>| {
            let entry = (record.offset, hash_of(&record));
            match seen.get_mut(partition) {
                Some(entries) => entries.push(entry),
                None => drop(seen.insert(partition.clone(), vec![entry])),
            }
            ControlFlow::Continue(())
        };
        while !is_over() && reader.consumer.poll(&mut note)? > 0 {}
        self.reader = Some(reader);
        Ok(())
    }

    /// The log as it was last looked at.
    pub(super) fn log(&self) -> Option<&Log> {
        self.reader.as_ref().map(|reader| &reader.log)
    }

    /// How many records it has seen.
    pub(super) fn seen(&self) -> usize {
        self.seen.values().map(Vec::len).sum()
    }

    /// How many records of a topic it has seen.
    pub(super) fn seen_of(&self, topic: &str) -> usize {
        let of_topic = self.seen.iter().filter(|(partition, _)| partition.topic == topic);
        of_topic.map(|(_, entries)| entries.len()).sum()
    }

    /// A failure unless all that was ever seen is there still, at the same place, and nothing that came
    /// later stands before or between.
    pub(super) fn check_all_is_there(&self) -> Result<()> {
        let mut last = Self::new(&self.directory)?;
        last.look(|| false)?;
        for (partition, seen) in &self.seen {
            let there = last.seen.get(partition).map_or(&[][..], Vec::as_slice);
            let differing = seen.iter().enumerate().find(|(index, entry)| there.get(*index) != Some(entry));
            let message = |(index, (offset, _)): (usize, &(Offset, u64))| {
                let now = there.get(index).map(|(offset, _)| offset);
                let count = (seen.len(), there.len());
                format!(
                    "a read_committed consumer saw record {index} of {partition} at offset {offset}; it is not \
                     there any more: record {index} is now {now:?} ((seen, there): {count:?})"
                )
            };
            ensure(differing.is_none(), || differing.map(message).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Reader {
    fn open(directory: &Path, options: &LogOptions) -> lotic_log::Result<Self> {
        let log = Log::open_read_only(directory, options.clone())?;
        let consumer = Consumer::new(&log, committed())?;
        Ok(Self { log, consumer, assigned: 0 })
    }

    /// Takes in what was appended and which topics were made; new partitions are read from behind what
    /// was seen of them.
    fn refresh(&mut self, seen: &BTreeMap<TopicPartition, Vec<(Offset, u64)>>) -> lotic_log::Result<()> {
        self.log.refresh()?;
        let partitions = partitions(&self.log);
        if partitions.len() == self.assigned {
            return Ok(());
        }
        let known: Vec<_> = self.consumer.assignment().cloned().collect();
        self.consumer.assign(&partitions)?;
        self.assigned = partitions.len();
        for partition in partitions.iter().filter(|partition| !known.contains(partition)) {
            if let Some((last, _)) = seen.get(partition).and_then(|entries| entries.last()) {
                self.consumer.seek(partition, last.next())?;
            }
        }
        Ok(())
    }
}
