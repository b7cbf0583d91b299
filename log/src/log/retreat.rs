//! Whether a log goes back to its last consistent cut when it is opened: what was lost of the records that nobody had
//! synced.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Inner;
use crate::catalogue::{Catalogue, CatalogueEntry};
use crate::consistent_cut::{FoundMark, Retreat};
use crate::error::Result;
use crate::partition::{Durability, PartitionSite, failed_sync};
use crate::record::{PartitionId, TopicPartition};
use crate::topic::TopicConfig;
use crate::transaction::TRANSACTION_TOPIC;

/// What has taken some of the records that nobody had synced, and may have left others that go with them.
pub(super) enum Loss {
    /// The machine went down, for all that is known.
    PowerCut,
    /// The disk has failed to take what this partition holds: it ends where it was durable.
    FailedSync(TopicPartition),
}

impl Inner {
    /// What is not believed in a log that was not closed, for whoever is about to recover it. Should that be cut short,
    /// the next to do so knows.
    pub(super) fn begin_retreat(&self, unsynced: FoundMark) -> Result<Option<Arc<Retreat>>> {
        let catalogued = self.catalogued.lock();
        let Some(loss) = self.find_loss(&catalogued.catalogue, unsynced)? else { return Ok(None) };
        let retreat = retreat(&self.directory, &catalogued.catalogue, unsynced)?;
        tracing::warn!(directory = %self.directory.display(), %loss, "transactions go back to the last consistent cut");
        if unsynced.is_of_this_boot {
            // Its note goes when the partition is recovered, before all of the others are.
            unsynced.disown(&*self.storage, &self.directory)?;
        }
        Ok(Some(retreat))
    }

    /// What whoever recovers the log would not believe.
    pub(super) fn retreat(&self, catalogue: &Catalogue, unsynced: FoundMark) -> Result<Option<Arc<Retreat>>> {
        let loss = self.find_loss(catalogue, unsynced)?;
        loss.map(|_| retreat(&self.directory, catalogue, unsynced)).transpose()
    }

    fn find_loss(&self, catalogue: &Catalogue, unsynced: FoundMark) -> Result<Option<Loss>> {
        let site = |name: &str, entry: &CatalogueEntry, partition| {
            self.site(name, entry.id, &entry.config, partition)
        };
        find_loss(catalogue, unsynced, site)
    }
}

/// Why whoever opens a log with this mark goes back, if they do. `site` says where a partition is.
pub(super) fn find_loss(
    catalogue: &Catalogue,
    unsynced: FoundMark,
    site: impl Fn(&str, &CatalogueEntry, PartitionId) -> PartitionSite,
) -> Result<Option<Loss>> {
    if !unsynced.is_of_this_boot {
        return Ok(Some(Loss::PowerCut));
    }
    for (name, entry) in &catalogue.topics {
        for partition in (0..entry.config.partitions).map(PartitionId) {
            let site = site(name, entry, partition);
            if has_failed_sync(&site, &entry.config, unsynced)? {
                return Ok(Some(Loss::FailedSync(site.name)));
            }
        }
    }
    Ok(None)
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerCut => f.write_str("the machine went down with records that were not synced"),
            Self::FailedSync(partition) => write!(f, "records of {partition} could not be synced"),
        }
    }
}

/// To be called before one partition alone is recovered in the log in `directory`, which takes away the note of a
/// sync of it that has failed: whoever opens the log next is to go back with all of the others all the same.
///
/// # Errors
/// Those of the operating system; the partition is to be left as it is then.
pub(super) fn keep_loss(directory: &Path, catalogue: &Catalogue, site: &PartitionSite) -> Result<()> {
    let storage = &**site.storage();
    let Some(unsynced) = FoundMark::find(storage, directory)?.filter(|found| found.is_of_this_boot) else {
        return Ok(());
    };
    match catalogue.topics.get(&*site.name.topic) {
        Some(entry) if has_failed_sync(site, &entry.config, unsynced)? => unsynced.disown(storage, directory),
        _ => Ok(()),
    }
}

/// Whether the disk has failed to take what others may stand on.
fn has_failed_sync(site: &PartitionSite, config: &TopicConfig, unsynced: FoundMark) -> Result<bool> {
    if is_synced(config, unsynced) && site.name.topic != TRANSACTION_TOPIC {
        // What it has lost was never acknowledged. So nothing in this log stands on it, though others may have read it.
        return Ok(false);
    }
    let note = failed_sync::read(site).map_err(|error| site.io("read", &site.directory, error))?;
    Ok(note.is_some_and(|note| note.synced.is_some()))
}

/// What is not believed where records were lost that nobody had synced, by the topics that there are.
///
/// # Errors
/// Those of [`FoundMark::check_decisions_tell`] if there are decisions.
fn retreat(directory: &Path, catalogue: &Catalogue, unsynced: FoundMark) -> Result<Arc<Retreat>> {
    if catalogue.topics.contains_key(TRANSACTION_TOPIC) {
        unsynced.check_decisions_tell(directory)?;
    }
    let topics = catalogue.topics.iter().filter(|(_, entry)| is_synced(&entry.config, unsynced));
    let synced = topics.map(|(name, _)| name.clone()).collect();
    Ok(Arc::new(Retreat::new(synced, unsynced.may_be_read)))
}

/// Whether nothing of a topic was acknowledged before it was synced, by whoever had the log open last.
pub(super) fn is_synced(config: &TopicConfig, unsynced: FoundMark) -> bool {
    config.durability.map_or(unsynced.syncs_by_default, |durability| durability == Durability::Sync)
}
