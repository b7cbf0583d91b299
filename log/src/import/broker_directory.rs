//! What there is in a broker's data directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{self, Checkpoint};
use super::settings::{self, TopicSettings};
use crate::catalogue;
use crate::cleanup::CleanupPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::{METADATA_FILE_NAME, read_topic_id};
use crate::record::{Offset, PartitionId, TopicId, TopicPartition};
use crate::storage::Storage;
use crate::topic::{TopicConfig, check_name, no_such_topic};

pub(super) const OFFSETS_TOPIC: &str = "__consumer_offsets";
pub(super) const TRANSACTIONS_TOPIC: &str = "__transaction_state";
const METADATA_TOPIC: &str = "__cluster_metadata";

/// What a broker writes into each of its data directories: whose it is.
const PROPERTIES_FILE_NAME: &str = "meta.properties";

/// The topics in which a broker keeps its own affairs.
const INTERNAL_TOPICS: [&str; 5] =
    [OFFSETS_TOPIC, TRANSACTIONS_TOPIC, METADATA_TOPIC, "__share_group_state", "__remote_log_metadata"];

/// What a file's name ends in that takes the place of others when the broker starts again.
const SWAP_EXTENSION: &str = ".swap";

/// A broker's data directory.
pub(super) struct BrokerDirectory {
    pub(super) path: PathBuf,
    pub(super) storage: Arc<dyn Storage>,
    topics: BTreeMap<String, BrokerTopic>,
    settings: BTreeMap<String, TopicSettings>,
    recovery_points: Checkpoint,
    high_watermarks: Checkpoint,
    starts: Checkpoint,
    cleaned: Checkpoint,
}

/// A topic with partitions here.
pub(super) struct BrokerTopic {
    pub(super) name: String,
    pub(super) id: TopicId,
    /// The numbers of the partitions that are here.
    partitions: Vec<PartitionId>,
}

/// A partition, and what the broker says of it.
pub(super) struct BrokerPartition {
    pub(super) name: TopicPartition,
    pub(super) directory: PathBuf,
    /// Everything below was synced.
    pub(super) recovery_point: Option<Offset>,
    /// Everything below was shown to consumers.
    pub(super) high_watermark: Option<Offset>,
    /// Everything below was deleted.
    pub(super) start: Option<Offset>,
}

impl BrokerDirectory {
    /// Looks through a directory. No log is read but that of the cluster's metadata.
    pub(super) fn read(storage: Arc<dyn Storage>, path: &Path) -> Result<Self> {
        let mut topics = BTreeMap::new();
        check_no_log_of_ours(&*storage, path)?;
        let entries = storage.list(path).map_err(|error| failed("list", path, error))?;
        let directories = entries.iter().filter(|entry| entry.is_directory);
        let partitions: Vec<_> = directories.filter_map(|entry| parse_partition(&entry.name)).collect();
        check_is_brokers(&*storage, path, &partitions)?;
        for partition in partitions {
            add(&*storage, path, partition, &mut topics)?;
        }
        if topics.is_empty() {
            let what = format!("{} holds no partition of a Kafka broker", path.display());
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        let checkpoint = |name: &str| checkpoint::read(&*storage, &path.join(name));
        Ok(Self {
            path: path.to_owned(),
            settings: settings::read(&storage, &path.join(format!("{METADATA_TOPIC}-0")))?,
            recovery_points: checkpoint("recovery-point-offset-checkpoint")?,
            high_watermarks: checkpoint("replication-offset-checkpoint")?,
            starts: checkpoint("log-start-offset-checkpoint")?,
            cleaned: checkpoint("cleaner-offset-checkpoint")?,
            storage: storage.clone(),
            topics,
        })
    }

    /// The topics of these names; all but internal ones if there are none.
    pub(super) fn chosen(&self, names: &[String]) -> Result<Vec<&BrokerTopic>> {
        let own = || self.topics.values().filter(|topic| !is_internal(&topic.name));
        if names.is_empty() {
            return Ok(own().collect());
        }
        let find = |name: &String| match self.topics.get(name) {
            Some(_) if is_internal(name) => {
                let what = format!("topic {name} is the broker's own and cannot be imported");
                Err(Error::new(ErrorKind::Invalid, what))
            }
            Some(topic) => Ok(topic),
            None => {
                let names = own().map(|topic| topic.name.as_str());
                Err(no_such_topic(name, names).within(self.path.display()))
            }
        };
        names.iter().map(find).collect()
    }

    /// One of the broker's own topics.
    pub(super) fn internal(&self, name: &str) -> Option<&BrokerTopic> {
        self.topics.get(name)
    }

    /// The partitions of a topic that are here, in order.
    pub(super) fn partitions(&self, topic: &BrokerTopic) -> Vec<BrokerPartition> {
        let partition = |&partition: &PartitionId| {
            let name = TopicPartition::new(topic.name.as_str(), partition);
            BrokerPartition {
                directory: self.path.join(name.to_string()),
                recovery_point: self.recovery_points.get(&name).copied(),
                high_watermark: self.high_watermarks.get(&name).copied(),
                start: self.starts.get(&name).copied(),
                name,
            }
        };
        topic.partitions.iter().map(partition).collect()
    }

    /// Checks that partitions from 0 on are all here: other directories of the broker may hold the rest.
    pub(super) fn check_whole(&self, topic: &BrokerTopic) -> Result<()> {
        let count = match self.settings.get(&topic.name).map(|settings| settings.partitions) {
            Some(count) if count > 0 => count,
            _ => topic.partitions.last().map_or(0, |last| last.0 + 1),
        };
        let missing = (0..count).map(PartitionId).find(|partition| !topic.partitions.contains(partition));
        missing.map_or(Ok(()), |missing| {
            let directory = self.path.display();
            let what = format!("topic {}: partition {missing} is not in {directory}", topic.name);
            Err(Error::new(ErrorKind::Invalid, what))
        })
    }

    /// Whether it is known how the broker has kept a topic.
    pub(super) fn has_settings(&self, topic: &BrokerTopic) -> bool {
        self.settings.contains_key(&topic.name)
    }

    /// How a topic is kept from now on.
    pub(super) fn config(&self, topic: &BrokerTopic) -> TopicConfig {
        let mut config = TopicConfig { partitions: topic.partitions.len() as i32, ..TopicConfig::default() };
        match self.settings.get(&topic.name) {
            Some(settings) => settings.apply(&mut config),
            None if self.cleaned.keys().any(|partition| *partition.topic == *topic.name) => {
                config.cleanup = CleanupPolicy::Compact;
            }
            None => {}
        }
        config
    }
}

impl BrokerPartition {
    /// Checks that the broker has no more to do here than to read its log.
    pub(super) fn check_settled(&self, storage: &dyn Storage) -> Result<()> {
        let entries =
            storage.list(&self.directory).map_err(|error| failed("list", &self.directory, error))?;
        let Some(swap) = entries.iter().find(|entry| entry.name.ends_with(SWAP_EXTENSION)) else {
            return Ok(());
        };
        let path = self.directory.join(&swap.name);
        let what = format!(
            "{} was about to take the place of other files when the broker was killed: start it, and stop it again",
            path.display()
        );
        Err(Error::new(ErrorKind::Invalid, what))
    }
}

/// Checks that it is no log of ours: there the files are Kafka's too, and settings and decisions are not.
fn check_no_log_of_ours(storage: &dyn Storage, path: &Path) -> Result<()> {
    let catalogue = path.join(catalogue::FILE_NAME);
    if !storage.exists(&catalogue).map_err(|error| failed("read", &catalogue, error))? {
        return Ok(());
    }
    let (path, catalogue) = (path.display(), catalogue.display());
    let what =
        format!("{path} is a directory of Lotic, not of a Kafka broker: it has a catalogue, {catalogue}");
    Err(Error::new(ErrorKind::Invalid, what))
}

/// Checks that a broker has been here. A name like that of a partition's directory says nothing: `/etc` may hold a
/// `dbus-1`. Where a broker has been, such a directory is a partition's, and what is missing in it is an error.
fn check_is_brokers(storage: &dyn Storage, path: &Path, partitions: &[TopicPartition]) -> Result<()> {
    let metadata = |partition: &TopicPartition| path.join(partition.to_string()).join(METADATA_FILE_NAME);
    let mut signs = partitions.iter().map(metadata).chain([path.join(PROPERTIES_FILE_NAME)]);
    // What may not be looked into is no sign of a broker.
    if signs.any(|sign| storage.exists(&sign).unwrap_or(false)) {
        return Ok(());
    }
    let what = format!(
        "{} is no data directory of a Kafka broker: it has no {PROPERTIES_FILE_NAME}, and no directory in it a \
         {METADATA_FILE_NAME}",
        path.display()
    );
    Err(Error::new(ErrorKind::NotFound, what))
}

/// Takes note of a partition's directory.
fn add(
    storage: &dyn Storage,
    path: &Path,
    partition: TopicPartition,
    topics: &mut BTreeMap<String, BrokerTopic>,
) -> Result<()> {
    let metadata = path.join(partition.to_string()).join(METADATA_FILE_NAME);
    let id = read_topic_id(storage, &metadata)?;
    let name = partition.topic.to_string();
    let topic =
        topics.entry(name.clone()).or_insert_with(|| BrokerTopic { name, id, partitions: Vec::new() });
    if topic.id != id {
        let what =
            format!("{} is of topic id {id}, other partitions are of {}", metadata.display(), topic.id);
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    topic.partitions.push(partition.partition);
    topic.partitions.sort_unstable();
    Ok(())
}

/// The partition whose directory has this name; `None` for other names, and for directories that a broker is
/// deleting or moving, which have a suffix.
fn parse_partition(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    check_name(topic).ok()?;
    let number: i32 = partition.parse().ok()?;
    // Written in one way only: `+1` and `01` are none.
    (number >= 0 && number.to_string() == partition).then(|| TopicPartition::new(topic, PartitionId(number)))
}

fn is_internal(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot {doing} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitions_directory_is_known_by_its_name() {
        let check = |name: &str, expected: Option<(&str, i32)>| {
            let expected = expected.map(|(topic, number)| TopicPartition::new(topic, PartitionId(number)));
            assert_eq!(parse_partition(name), expected, "{name}");
        };
        check("orders-0", Some(("orders", 0)));
        check("a-b-12", Some(("a-b", 12)));
        check("orders-0.2f9c4ea5b4c04d5fa1c1d7a0a4d5b5a1-delete", None);
        check("orders-0.2f9c4ea5b4c04d5fa1c1d7a0a4d5b5a1-future", None);
        check("orders-01", None);
        check("orders--1", Some(("orders-", 1)));
        check("orders", None);
        check("-1", None);
    }
}
