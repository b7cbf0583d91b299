//! What can be done to a topic that is there: its settings changed, partitions added, records deleted,
//! compaction asked for.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Inner, Log};
use crate::catalogue::CatalogueEntry;
use crate::compaction::CompactionReport;
use crate::error::{Error, ErrorKind, Result};
use crate::internal_topic::{check_not_internal, is_internal};
use crate::partition::Partition;
use crate::record::{Offset, PartitionId};
use crate::storage::SyncPurpose;
use crate::ticket::Ticket;
use crate::topic::{Topic, TopicConfig, no_such_topic};

impl Log {
    /// Changes the settings of a topic while it is read and written: cleanup, retention, compaction,
    /// the size and age of segments, the largest batch, the compression, and the number of partitions,
    /// which may grow. The change is durable when this returns, and takes hold with the next append and
    /// the next look at old records. A [`Topic`] that is held says what was so when it was got.
    ///
    /// Records with keys go to other partitions once there are more of them; those that are there stay.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for a setting that is not possible or cannot be
    /// changed; [`ErrorKind::Closed`]; those of the operating system.
    pub fn alter_topic(&self, name: &str, change: impl FnOnce(&mut TopicConfig)) -> Result<Topic> {
        self.inner.alter_topic(name, change)
    }

    /// Deletes the records of a partition before `to`, durably; see [`Partition::delete_records`]. Where
    /// appends are not synced, this syncs them first.
    ///
    /// # Errors
    /// Those of [`Partition::delete_records`]; [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for an internal topic.
    pub fn delete_records(&self, topic: &str, partition: PartitionId, to: Offset) -> Result<Offset> {
        self.inner.check_writable()?;
        check_not_internal(topic, " and no record of it can be deleted")?;
        let partition = self.topic(topic)?.partition(partition)?;
        let offsets = partition.offsets();
        // Also what is behind: with it the producers of what goes may be written down.
        if offsets.durable < offsets.end && to <= offsets.high_watermark {
            self.flush(std::slice::from_ref(&partition), SyncPurpose::Records).wait()?;
        }
        let start = partition.delete_records(to)?;
        self.inner.core.upkeep.hurry();
        Ok(start)
    }

    /// Compacts all partitions of a topic now, whether or not it is worth it, up to the last stable
    /// offset; what is younger than the topic's least lag stays as it is. Waits until it is done. Returns
    /// what was done, in the order in which it was.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for a topic that is not compacted;
    /// [`ErrorKind::Retry`] while somebody has pinned what would be rewritten; [`ErrorKind::Corrupt`], and
    /// then what is corrupt is left as it is; [`ErrorKind::Closed`]; those of the operating system.
    pub fn compact(&self, topic: &str) -> Result<Vec<CompactionReport>> {
        self.inner.check_writable()?;
        let topic = self.topic(topic)?;
        if !topic.config().cleanup.compacts() {
            let what = format!("topic {} is not compacted: its cleanup is to delete", topic.name());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        topic.partitions().iter().try_for_each(|partition| partition.seal_active())?;
        self.flush(topic.partitions(), SyncPurpose::Records).wait()?;
        topic.partitions().iter().try_for_each(|partition| partition.snapshot_at_rest())?;
        let reports = Arc::new(Mutex::new(Vec::new()));
        let ask =
            |partition: &Arc<Partition>| self.inner.core.upkeep.compact(partition.clone(), reports.clone());
        let tickets: Vec<Ticket> = topic.partitions().iter().map(ask).collect();
        tickets.iter().map(Ticket::wait).fold(Ok(()), Result::and)?;
        let reports = std::mem::take(&mut *reports.lock());
        Ok(reports)
    }
}

impl Inner {
    fn alter_topic(&self, name: &str, change: impl FnOnce(&mut TopicConfig)) -> Result<Topic> {
        self.check_writable()?;
        let mut catalogued = self.catalogued.lock();
        self.check_not_closed()?;
        let topic = self.topics.read().get(name).cloned();
        let Some(topic) = topic else {
            return Err(no_such_topic(name, self.topics.read().keys().map(String::as_str)));
        };
        let mut config = topic.config().clone();
        change(&mut config);
        if config == *topic.config() {
            return Ok(topic);
        }
        check_alterable(name, topic.config(), &config)?;
        config.check(name)?;
        self.begin_writing(&mut catalogued)?;
        let added = self.add_partitions(&topic, &config)?;

        let mut catalogue = catalogued.catalogue.clone();
        let entry = CatalogueEntry { id: topic.id(), config: config.clone() };
        catalogue.topics.insert(name.to_owned(), entry);
        catalogue.write(&*self.storage, &self.directory)?;
        catalogued.catalogue = catalogue;
        for partition in topic.partitions() {
            partition.set_config(config.partition_config(self.durability));
        }
        self.keep_up(&added);
        let partitions = topic.partitions().iter().cloned().chain(added).collect();
        let altered = Topic::new(name.to_owned(), topic.id(), config, partitions);
        self.topics.write().insert(name.to_owned(), altered.clone());
        self.note_topics_changed();
        Ok(altered)
    }

    /// Makes the partitions that `config` has and `topic` has not. They become known with the catalogue.
    fn add_partitions(&self, topic: &Topic, config: &TopicConfig) -> Result<Vec<Arc<Partition>>> {
        let added = topic.config().partitions..config.partitions;
        if added.is_empty() {
            return Ok(Vec::new());
        }
        self.move_aside(topic.name(), topic.id(), added.clone())?;
        let create = |partition| {
            Partition::create(self.site(topic.name(), topic.id(), config, PartitionId(partition)))
        };
        let partitions: Result<Vec<_>> = added.map(create).collect();
        self.sync_directory(SyncPurpose::Directory)?;
        partitions
    }
}

/// Checks that only such settings differ as can be changed.
fn check_alterable(name: &str, before: &TopicConfig, after: &TopicConfig) -> Result<()> {
    let is_internal = is_internal(name);
    let what = if after.partitions < before.partitions {
        format!(
            "its {} partitions cannot become {}: records would be lost",
            before.partitions, after.partitions
        )
    } else if after.partitions > before.partitions && is_internal {
        "it is internal and has one partition".to_owned()
    } else if after.cleanup != before.cleanup && is_internal {
        "it is internal and always compacted".to_owned()
    } else if after.durability != before.durability {
        "the durability of a topic cannot be changed".to_owned()
    } else if after.index_interval_bytes != before.index_interval_bytes
        || after.snapshot_interval_bytes != before.snapshot_interval_bytes
    {
        "the intervals of indexes and snapshots cannot be changed".to_owned()
    } else if after.key_format != before.key_format {
        "the key format of a topic cannot be changed: keys that are there are of the old one".to_owned()
    } else if before.has_gaps && !after.has_gaps {
        "the gaps in its offsets stay".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, format!("topic {name}: {what}")))
}
