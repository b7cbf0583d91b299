//! The topics of a log: finding, making and deleting them. What is made becomes known last, what is
//! deleted becomes unknown first, so that a crash in between leaves either a topic or some directories
//! that nobody knows.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Inner, Log, recovery_points};
use crate::catalogue::{Catalogue, CatalogueEntry, DeletedTopic};
use crate::consistent_cut;
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::Flush;
use crate::internal_topic::{check_not_internal, is_internal};
use crate::partition::{Durability, Partition, PartitionSite};
use crate::record::{Offset, PartitionId, ProducerId, TopicId, TopicPartition};
use crate::recovery::RecoveryBorder;
use crate::recovery_point::RecoveryPoints;
use crate::storage::{SyncPurpose, syncs_no_names};
use crate::topic::{Topic, TopicConfig, directory_name, no_such_topic};
use crate::transaction::TRANSACTION_TOPIC;

/// What a directory's name ends in while it is being removed, as in Kafka. The topic's id stands before
/// it: with a long name behind it, it would be too long a name for a file.
const DELETED_SUFFIX: &str = "-delete";

/// What a directory's name ends in that was in the way of a topic and belongs to none, as in Kafka. The
/// new topic's id stands before it.
const STRAY_SUFFIX: &str = "-stray";

/// How many producer ids are reserved at a time.
const PRODUCER_IDS_RESERVED: i64 = 1000;

pub(super) type Topics = BTreeMap<String, Topic>;

/// The catalogue and what follows from it. Its lock puts makers and deleters of topics in order.
pub(super) struct Catalogued {
    pub(super) catalogue: Catalogue,
    /// Whether the directory holds a catalogue. It is written before anything else is: from then on a
    /// missing one is a lost one.
    pub(super) is_begun: bool,
    /// The next producer id; those below the catalogue's end are reserved.
    pub(super) next_producer_id: i64,
}

/// A topic that comes from elsewhere, in directories that are whole and synced.
pub(crate) struct Adoption<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: TopicId,
    pub(crate) config: TopicConfig,
    /// The directory of each partition. They lie beside those of the log's own.
    pub(crate) directories: &'a [PathBuf],
    /// Where each partition ends.
    pub(crate) ends: Vec<Offset>,
    /// Producer ids below this one may be in use there.
    pub(crate) producer_ids_end: i64,
}

impl Log {
    /// To be called before directories are made that are to be adopted.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; those of the operating system.
    pub(crate) fn begin_adoption(&self) -> Result<()> {
        self.inner.check_writable()?;
        let mut catalogued = self.inner.catalogued.lock();
        self.inner.check_not_closed()?;
        self.inner.begin_writing(&mut catalogued)
    }

    /// Makes a topic of directories that come from elsewhere. It is durable when this returns.
    ///
    /// # Errors
    /// Those of [`Self::create_topic`], and those of opening the partitions.
    pub(crate) fn adopt_topic(&self, adoption: Adoption<'_>) -> Result<Topic> {
        self.inner.adopt_topic(adoption)
    }

    /// Makes a topic. It is durable when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`]; [`ErrorKind::Invalid`] for a name or a setting that is not
    /// possible, and for an internal topic, which the log makes itself; [`ErrorKind::Closed`]; those of the
    /// operating system.
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        config.check_creatable(name)?;
        self.inner.create_topic(name, config)
    }

    /// Makes one of the topics that the log keeps for itself.
    ///
    /// # Errors
    /// Those of [`Self::create_topic`].
    pub(crate) fn create_internal_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        debug_assert!(is_internal(name), "{name}");
        self.inner.create_topic(name, config)
    }

    /// An existing topic.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], with the nearest name there is.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        let topics = self.inner.topics.read();
        topics.get(name).cloned().ok_or_else(|| no_such_topic(name, topics.keys().map(String::as_str)))
    }

    /// All topics by name, internal ones (`__...`) included.
    pub fn topics(&self) -> Vec<Topic> {
        self.inner.topics.read().values().cloned().collect()
    }

    /// Deletes a topic, its records, and what consumer groups have committed for it. It is gone for good when
    /// this returns: who holds one of its partitions is answered [`ErrorKind::NotFound`] from here on. Files
    /// that a fetch is reading go when it is done.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for an internal one; [`ErrorKind::Closed`]; those of the
    /// operating system.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.inner.check_writable()?;
        check_not_internal(name, " and cannot be deleted")?;
        let topic = self.topic(name)?;
        self.inner.delete_topic(&topic)
    }
}

impl Inner {
    fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        self.check_writable()?;
        config.check(name)?;
        let mut catalogued = self.catalogued.lock();
        self.check_not_closed()?;
        if catalogued.catalogue.topics.contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("topic {name} exists already")));
        }
        self.begin_writing(&mut catalogued)?;
        // Counted whether or not it comes to be: what a failure leaves behind has this one's id.
        catalogued.catalogue.topics_made += 1;
        let mut catalogue = catalogued.catalogue.clone();
        let id = topic_id(self.seed, catalogue.topics_made);
        let site = |partition| self.site(name, id, &config, partition);
        self.move_aside(name, id, 0..config.partitions)?;
        let partitions: Result<Vec<_>> =
            (0..config.partitions).map(|partition| Partition::create(site(PartitionId(partition)))).collect();
        let partitions = partitions?;
        self.sync_directory(SyncPurpose::Directory)?;

        catalogue.deleting.remove(name);
        catalogue.topics.insert(name.to_owned(), CatalogueEntry { id, config: config.clone() });
        catalogue.write(&*self.storage, &self.directory)?;
        catalogued.catalogue = catalogue;
        let topic = Topic::new(name.to_owned(), id, config, partitions);
        self.publish(topic.clone());
        Ok(topic)
    }

    fn adopt_topic(&self, adoption: Adoption<'_>) -> Result<Topic> {
        let Adoption { name, id, config, directories, ends, producer_ids_end } = adoption;
        self.check_writable()?;
        config.check(name)?;
        let mut catalogued = self.catalogued.lock();
        self.check_not_closed()?;
        if catalogued.catalogue.topics.contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("topic {name} exists already")));
        }
        self.begin_writing(&mut catalogued)?;
        self.move_aside(name, id, 0..config.partitions)?;
        let mut partitions = Vec::with_capacity(directories.len());
        for (index, (from, end)) in directories.iter().zip(ends).enumerate() {
            let site = self.site(name, id, &config, PartitionId(index as i32));
            let renamed = self.storage.rename(from, &site.directory);
            renamed.map_err(|error| Error::io(format!("cannot rename {}", from.display()), error))?;
            let border = RecoveryBorder { recovery_point: Some(end), clean_shutdown: true };
            let (partition, _) = Partition::open(site, &border)?;
            partitions.push(partition);
        }
        // The file of recovery points is replaced, and its name synced, in the directory that the partitions were
        // renamed in: their names are durable with it, before the catalogue knows of them.
        self.core.flusher.record(recovery_points(&partitions))?;

        let mut catalogue = catalogued.catalogue.clone();
        catalogue.deleting.remove(name);
        catalogue.topics.insert(name.to_owned(), CatalogueEntry { id, config: config.clone() });
        catalogue.producer_ids_end = catalogue.producer_ids_end.max(producer_ids_end);
        catalogue.write(&*self.storage, &self.directory)?;
        catalogued.catalogue = catalogue;
        catalogued.next_producer_id = catalogued.next_producer_id.max(producer_ids_end);
        let topic = Topic::new(name.to_owned(), id, config, partitions);
        self.publish(topic.clone());
        Ok(topic)
    }

    /// To be called before anything but a partition is written.
    pub(super) fn begin_writing(&self, catalogued: &mut Catalogued) -> Result<()> {
        self.context.clean_shutdown.take_away()?;
        if !catalogued.is_begun {
            self.sync_path()?;
            catalogued.catalogue.write(&*self.storage, &self.directory)?;
            let points = RecoveryPoints::new();
            let points = self.create_recovery_points(points)?;
            self.core.flusher.keep_recovery_points(points);
            catalogued.is_begun = true;
        }
        Ok(())
    }

    /// Makes the name of the log's directory, and those above it, durable, whoever made them: somebody else may have been
    /// killed, or have failed, before that. Where names cannot be synced, those that were there count as seen to.
    fn sync_path(&self) -> Result<()> {
        let names: Vec<_> = self.directory.ancestors().collect();
        for name in names.into_iter().rev() {
            let Some(parent) = name.parent() else { continue };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let was_there = !self.made.iter().any(|made| made == name);
            match self.storage.sync_dir(parent, SyncPurpose::Directory) {
                Err(error) if was_there && syncs_no_names(&error) => {}
                synced => {
                    synced.map_err(|error| Error::io(format!("cannot sync {}", parent.display()), error))?
                }
            }
        }
        Ok(())
    }

    /// Makes an open topic known, and has it flushed from time to time if it wants that.
    pub(super) fn publish(&self, topic: Topic) {
        self.keep_up(topic.partitions());
        self.core.groups.note_topic(&topic);
        self.topics.write().insert(topic.name().to_owned(), topic);
        self.note_topics_changed();
    }

    /// Consumers of groups look at the topics again.
    pub(super) fn note_topics_changed(&self) {
        self.topics_version.fetch_add(1, Ordering::Release);
        self.core.progress.raise();
    }

    /// Looks after partitions from now on.
    pub(super) fn keep_up(&self, partitions: &[Arc<Partition>]) {
        for partition in partitions {
            self.core.upkeep.keep(partition);
            let (flusher, target) = (&self.core.flusher, partition.clone() as Arc<dyn Flush>);
            let durability = partition.config().durability;
            match durability {
                Durability::Sync => {}
                Durability::Interval(every) => flusher.flush_every(every, &target),
                Durability::Os => flusher.cut_every(consistent_cut::INTERVAL, &target),
            }
            let topic = &partition.name().topic;
            if durability != Durability::Sync || topic == TRANSACTION_TOPIC {
                flusher.take_part_in_cuts(&target, consistent_cut::stands_on_others(topic));
            }
        }
    }

    pub(super) fn site(
        &self,
        name: &str,
        topic_id: TopicId,
        config: &TopicConfig,
        partition: PartitionId,
    ) -> PartitionSite {
        PartitionSite::new(
            TopicPartition::new(name, partition),
            topic_id,
            self.directory.join(directory_name(name, partition)),
            config.partition_config(self.durability),
            self.context.clone(),
        )
    }

    /// A directory in the way of a new topic belongs to none: a creation that a crash cut off, or
    /// somebody's own. It is neither believed nor deleted.
    pub(super) fn move_aside(&self, name: &str, id: TopicId, partitions: Range<i32>) -> Result<()> {
        for partition in partitions.map(PartitionId) {
            let path = self.directory.join(directory_name(name, partition));
            let io = |error| Error::io(format!("cannot move {} aside", path.display()), error);
            if self.storage.exists(&path).map_err(io)? {
                let stray = self.free_stray(id, partition).map_err(io)?;
                self.storage.rename(&path, &stray).map_err(io)?;
                tracing::warn!(from = %path.display(), to = %stray.display(), "a directory of no topic was in the way");
            }
        }
        Ok(())
    }

    /// A name that nothing was moved to yet: a crash may cut off the same change again and again.
    fn free_stray(&self, id: TopicId, partition: PartitionId) -> io::Result<PathBuf> {
        let mut stray = self.directory.join(format!("{id}.{partition}{STRAY_SUFFIX}"));
        let mut number = 1;
        while self.storage.exists(&stray)? {
            stray = self.directory.join(format!("{id}.{partition}.{number}{STRAY_SUFFIX}"));
            number += 1;
        }
        Ok(stray)
    }

    fn delete_topic(&self, topic: &Topic) -> Result<()> {
        let name = topic.name();
        let mut catalogued = self.catalogued.lock();
        self.check_not_closed()?;
        let mut catalogue = catalogued.catalogue.clone();
        match catalogue.topics.remove(name) {
            Some(entry) if entry.id == topic.id() => {}
            _ => return Err(Error::new(ErrorKind::NotFound, format!("topic {name} is deleted already"))),
        }
        let deleted = DeletedTopic { id: topic.id(), partitions: topic.config().partitions };
        catalogue.deleting.insert(name.to_owned(), deleted);
        self.begin_writing(&mut catalogued)?;
        catalogue.write(&*self.storage, &self.directory)?;
        catalogued.catalogue = catalogue;
        self.topics.write().remove(name);
        self.note_topics_changed();
        for partition in topic.partitions() {
            partition.delete();
        }
        self.core.flusher.forget(topic.id());
        self.core.groups.forget_topic(topic);
        self.remove_directories(name, deleted)?;
        catalogued.catalogue.deleting.remove(name);
        Ok(())
    }

    /// Removes the directories of a topic that the catalogue does not know any more. They are renamed
    /// first, so that one that is removed in part is never taken for a partition. A power cut may bring it back under
    /// its name: until all are gone for good the catalogue says that they are being deleted, and what opens the log
    /// goes on with that.
    fn remove_directories(&self, name: &str, DeletedTopic { id, partitions }: DeletedTopic) -> Result<()> {
        for partition in (0..partitions).map(PartitionId) {
            let [path, deleted] = self.deleted_paths(name, id, partition);
            let remove = || {
                if self.storage.exists(&deleted)? {
                    self.storage.remove_dir_all(&deleted)?;
                }
                if self.storage.exists(&path)? {
                    self.storage.rename(&path, &deleted)?;
                    self.storage.remove_dir_all(&deleted)?;
                }
                Ok(())
            };
            remove().map_err(|error: io::Error| {
                Error::io(format!("cannot remove {} of a deleted topic", path.display()), error)
            })?;
        }
        self.sync_directory(SyncPurpose::Directory)
    }

    /// Finishes the deletions that a crash, or an error, has cut off. In a log that was closed there is nothing left of
    /// the others, and nothing is touched for them.
    pub(super) fn finish_deletions(&self, clean_shutdown: bool) -> Result<()> {
        let deleting = std::mem::take(&mut self.catalogued.lock().catalogue.deleting);
        for (name, deleted) in deleting {
            if !clean_shutdown || self.is_left(&name, &deleted)? {
                self.remove_directories(&name, deleted)?;
            }
        }
        Ok(())
    }

    /// Whether there is a directory of a deleted topic still.
    fn is_left(&self, name: &str, deleted: &DeletedTopic) -> Result<bool> {
        for partition in (0..deleted.partitions).map(PartitionId) {
            for path in self.deleted_paths(name, deleted.id, partition) {
                let exists = self.storage.exists(&path);
                if exists.map_err(|error| Error::io(format!("cannot look for {}", path.display()), error))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The directory of a deleted topic's partition: as it was called, and as it is while it is removed.
    fn deleted_paths(&self, name: &str, id: TopicId, partition: PartitionId) -> [PathBuf; 2] {
        let removed = format!("{id}.{partition}{DELETED_SUFFIX}");
        [directory_name(name, partition), removed].map(|name| self.directory.join(name))
    }

    #[track_caller]
    pub(super) fn sync_directory(&self, purpose: SyncPurpose) -> Result<()> {
        let synced = self.storage.sync_dir(&self.directory, purpose);
        synced.map_err(|error| Error::io(format!("cannot sync {}", self.directory.display()), error))
    }

    pub(super) fn next_producer_id(&self) -> Result<ProducerId> {
        self.check_writable()?;
        let mut catalogued = self.catalogued.lock();
        self.check_not_closed()?;
        if catalogued.next_producer_id >= catalogued.catalogue.producer_ids_end {
            let mut catalogue = catalogued.catalogue.clone();
            catalogue.producer_ids_end += PRODUCER_IDS_RESERVED;
            self.begin_writing(&mut catalogued)?;
            catalogue.write(&*self.storage, &self.directory)?;
            catalogued.catalogue = catalogue;
        }
        let id = ProducerId(catalogued.next_producer_id);
        catalogued.next_producer_id += 1;
        Ok(id)
    }
}

/// The id of the topic that was made as the `number`-th: random, and never the same twice in one log.
fn topic_id(seed: u64, number: u64) -> TopicId {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    loop {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        let id = TopicId(uuid::Builder::from_random_bytes(bytes).into_uuid());
        // Kafka's tools would take a leading dash for an option.
        if !id.to_string().starts_with('-') {
            return id;
        }
    }
}
