//! Bringing in what an Apache Kafka broker has left in its data directory.
//!
//! The broker is stopped, and its directory is only read. Files are copied, not linked: a log goes on in the
//! last file of each partition and mends the ends of others, and the broker may be started again. For each
//! topic:
//!
//! 1. every batch and record of every partition is read and checked, and what the broker's checkpoint files
//!    promise is compared with what is there;
//! 2. the segments are copied into a directory of their own, `<topic id>.<partition>-import`, each whole or
//!    not at all, and recovered there: this reads the copy once more, builds the indexes and the state of the
//!    producers, and syncs it;
//! 3. transactions that the broker left open are ended there, as `__transaction_state` has decided them, or
//!    else aborted;
//! 4. the directories get their names, and the catalogue names the topic. Only now it exists.
//!
//! Topics keep their ids, records their offsets. An import that was cut short is begun again with the same
//! call: topics that are there already are left as they are, and segments that were copied stay copied.
//!
//! Of the broker's checkpoints, the recovery point is the border between a torn tail, which is left out
//! and reported, and corruption; the high watermark is what consumers have been shown, so a log that ends
//! before it has lost records and is refused. Records behind it are kept, as by a broker that is the only
//! replica and comes back. The log's start offset is taken over; segments that end before it stay behind.
//!
//! Settings come from `__cluster_metadata`, if it is in the same directory; where they were not found, that is told.
//! The broker's internal topics stay behind; the offsets that groups have committed are brought over if asked for.

mod broker_directory;
mod checkpoint;
mod decisions;
mod groups;
mod settings;
mod staging;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use crate::batch::MarkerKind;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::record::{Offset, PartitionId, ProducerId, TopicId};
use crate::verify::Damage;

use broker_directory::{BrokerDirectory, BrokerTopic};
use decisions::Decisions;
use staging::StagedTopic;

/// What is brought in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// The topics by name; all but the broker's internal ones if there is none.
    pub topics: Vec<String>,
    /// Whether the offsets that consumer groups have committed for these topics come along. What a group
    /// has committed here already stays.
    pub groups: bool,
}

/// A topic that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedTopic {
    /// Its name.
    pub name: String,
    /// Its id, which is the one that it had.
    pub id: TopicId,
    /// What each partition holds; nothing is said of a topic that was there before.
    pub partitions: Vec<ImportedPartition>,
    /// Whether an earlier import had brought it in already.
    pub was_there: bool,
    /// Whether the broker's settings of it were found. Without them it has the defaults, and is compacted if a
    /// checkpoint of the broker's cleaner names it. Of a topic that was there already they are not taken.
    pub has_settings: bool,
}

/// A partition that was brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedPartition {
    /// Which one.
    pub partition: PartitionId,
    /// The offset of the first record.
    pub start: Offset,
    /// The offset of the next record.
    pub end: Offset,
    /// Files of batches.
    pub segments: usize,
    /// Records, those before the start included.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Places where offsets are missing: compaction has been there, or a file is lost.
    pub gaps: u64,
    /// What the broker had not synced when it died, and was torn then. It is left out.
    pub torn: Option<Damage>,
    /// The transactions that were open, and how they were ended.
    pub ended_transactions: Vec<(ProducerId, MarkerKind)>,
}

/// What an import has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The topics, by name.
    pub topics: Vec<ImportedTopic>,
    /// How many offsets of groups were brought over.
    pub committed_offsets: usize,
}

impl Log {
    /// Brings topics of a stopped Apache Kafka broker in from its data directory (one of its `log.dirs`).
    /// Each topic is there whole or not at all; what an earlier call has brought in is left as it is. The
    /// caller sees to it that the broker does not run, and calls this once at a time. `told` hears of each
    /// topic when it is there.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such topic, or the directory is no broker's;
    /// [`ErrorKind::AlreadyExists`] if there is another one of its name here, [`ErrorKind::Invalid`] for an internal
    /// topic, a partition that is missing, a directory that a broker has to mend first or one that is a log of Lotic;
    /// [`ErrorKind::Corrupt`] names the file, and [`ErrorKind::Unsupported`] one of a format that is not read;
    /// [`ErrorKind::Closed`]; those of the operating system. Topics that were told of stay.
    pub fn import_kafka_directory(
        &self,
        directory: &Path,
        options: &ImportOptions,
        mut told: impl FnMut(&ImportedTopic),
    ) -> Result<Imported> {
        let broker = BrokerDirectory::read(self.storage().clone(), directory)?;
        let topics = broker.chosen(&options.topics)?;
        self.begin_adoption()?;
        let mut decisions = Decisions::new(&broker);
        let mut imported = Imported::default();
        for topic in topics {
            let topic = self.import_topic(&broker, topic, &mut decisions)?;
            told(&topic);
            imported.topics.push(topic);
        }
        if options.groups {
            imported.committed_offsets = groups::import(self, &broker, &imported.topics, &mut decisions)?;
        }
        decisions.clean_up()?;
        Ok(imported)
    }

    fn import_topic(
        &self,
        broker: &BrokerDirectory,
        topic: &BrokerTopic,
        decisions: &mut Decisions<'_>,
    ) -> Result<ImportedTopic> {
        let name = topic.name.clone();
        let has_settings = broker.has_settings(topic);
        if let Ok(there) = self.topic(&name) {
            if there.id() != topic.id {
                let what =
                    format!("topic {name} exists already, and is not the one in {}", broker.path.display());
                return Err(Error::new(ErrorKind::AlreadyExists, what));
            }
            return Ok(ImportedTopic {
                name,
                id: topic.id,
                partitions: Vec::new(),
                was_there: true,
                has_settings,
            });
        }
        let staged = StagedTopic::stage(self, broker, topic, decisions)?;
        let partitions = staged.adopt(self)?;
        Ok(ImportedTopic { name, id: topic.id, partitions, was_there: false, has_settings })
    }
}
