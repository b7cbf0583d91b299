//! Opening a log: what has to be known and done before anyone reads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Mutex, RwLock};

use super::background::{Background, Core};
use super::topics::{Catalogued, Topics};
use super::{Inner, LastHandle, Log, LogOptions, holder, recovery_points, repair};
use crate::catalogue::{Catalogue, CatalogueEntry};
use crate::clean_shutdown::CleanShutdown;
use crate::consistent_cut::{FoundMark, UnsyncedMark};
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::Flush;
use crate::open_files::OpenFiles;
use crate::partition::marks::{CutBy, Cuts, Marks};
use crate::partition::{Durability, METADATA_FILE_NAME, Partition, PartitionContext, PartitionSite};
use crate::record::{PartitionId, PartitionKey, TopicId, TopicPartition};
use crate::recovery::RecoveryBorder;
use crate::recovery_point::{self, RecoveryPointFile, RecoveryPoints, Stored};
use crate::spawn::{Drive, in_parallel};
use crate::storage::{Storage, StorageLock};
use crate::topic::Topic;
use crate::transaction::{Endings, TRANSACTION_TOPIC};
use crate::unsynced_files::UnsyncedFiles;

/// How many partitions are recovered at once.
const RECOVERY_THREADS_MAX: usize = 8;

/// Where a partition was cut off, and who is just doing that.
#[derive(PartialEq)]
pub(super) struct PartitionCuts {
    name: TopicPartition,
    pub(super) cuts: Option<Cuts>,
    being_cut: Option<CutBy>,
}

pub(super) fn open(directory: &Path, options: LogOptions) -> Result<Log> {
    let storage = options.storage.clone();
    if !options.begins {
        read_catalogue(&*storage, directory)?;
    }
    let made = make_directory(&*storage, directory).map_err(|error| failed("make", directory, error))?;
    let lock = holder::lock(&*storage, directory, &options.holder, options.clock.now())?;
    let catalogue = Catalogue::read(&*storage, directory)?;
    if catalogue.is_none() {
        check_no_partition(&*storage, directory)?;
    }
    let stored = recovery_point::read(&*storage, directory)?;
    let unsynced = FoundMark::find(&*storage, directory)?;
    let clean_shutdown = CleanShutdown::find(storage.clone(), directory)?;
    let is_clean = clean_shutdown.is_whole();
    if !is_clean {
        clean_shutdown.take_away()?;
    }

    let mut inner = Inner::new(directory, options, catalogue, Some(clean_shutdown))?;
    *inner.lock.get_mut() = Some(lock);
    inner.made = made;
    inner.finish_deletions(is_clean)?;
    let unsynced = unsynced.filter(|_| !is_clean);
    let retreat = unsynced.map_or(Ok(None), |found| inner.begin_retreat(found))?;
    let cut = inner.finish_cuts(retreat.is_some())?;
    let stored = if cut.is_empty() { stored } else { recovery_point::read(&*storage, directory)? };
    inner.context.retreat.store(retreat);
    let topics = inner.recover_partitions(&stored.points, is_clean)?;
    let partitions: Vec<_> = topics.iter().flat_map(Topic::partitions).cloned().collect();
    if !is_clean {
        // All that was kept is durable and fits together: nobody goes back who opens it as it is now.
        inner.context.unsynced.take_away()?;
    }
    // What is made of it next is not to go without it: whoever is cut short from here on and goes back goes no further
    // than this, nor behind a marker that the table has already taken note of.
    inner.open_recovery_points(&stored, is_clean, recovery_points(&partitions))?;
    cut.iter().try_for_each(|(site, _)| repair::settle(site))?;
    let home = topics.iter().find(|topic| topic.name() == TRANSACTION_TOPIC);
    let home = home.map(|topic| topic.partitions()[0].clone());
    let endings = cut.iter().map(|(site, endings)| (site.name.clone(), endings.clone())).collect();
    inner.core.coordinator.recover(home, &partitions, &endings, &*storage, directory)?;
    cut.iter().try_for_each(|(site, _)| repair::forget(site))?;
    if !is_clean {
        inner.leave_unsynced_mark(&partitions)?;
    }
    inner.context.retreat.store(None);
    topics.into_iter().for_each(|topic| inner.publish(topic));
    inner.core.groups.begin_expiry();
    // Only from here on is there something to shut down.
    *inner.is_closed.get_mut() = false;
    Ok(Log { inner: LastHandle::new(inner) })
}

pub(super) fn open_read_only(directory: &Path, options: LogOptions) -> Result<Log> {
    let catalogue = read_catalogue(&*options.storage, directory)?;
    let mut inner = Inner::new(directory, options, Some(catalogue), None)?;
    *inner.is_closed.get_mut() = false;
    refresh(&inner)?;
    Ok(Log { inner: LastHandle::new(inner) })
}

/// Takes in all that has happened since. A repair takes synced records away: whoever has read recovery points before it
/// and a partition after it finds damage where there is none. So damage is believed if it is found a second time while
/// nothing is cut off.
pub(super) fn refresh(inner: &Inner) -> Result<()> {
    let found = match take_in(inner) {
        Err(error) if error.kind() == ErrorKind::Corrupt => inner.cuts()?,
        taken_in => return taken_in,
    };
    match take_in(inner) {
        Err(error) if error.kind() == ErrorKind::Corrupt && inner.cuts()? != found => {
            let directory = inner.directory.display();
            let what = format!("the log in {directory} is being repaired or recovered: read it again");
            Err(Error::new(ErrorKind::Retry, what))
        }
        taken_in => taken_in,
    }
}

/// Opens the topics that were made since, forgets those that were deleted, and reads on in the others.
fn take_in(inner: &Inner) -> Result<()> {
    let mut catalogued = inner.catalogued.lock();
    let catalogue = read_catalogue(&*inner.storage, &inner.directory)?;
    // Points are read before the partitions are: so none of them lies behind what is found there. And the
    // mark before both: whoever takes it away meanwhile writes on what was closed.
    let clean_shutdown = CleanShutdown::find(inner.storage.clone(), &inner.directory)?.is_whole();
    let points = recovery_point::read(&*inner.storage, &inner.directory)?.points;
    let unsynced = FoundMark::find(&*inner.storage, &inner.directory)?.filter(|_| !clean_shutdown);
    inner.context.retreat.store(unsynced.map_or(Ok(None), |found| inner.retreat(&catalogue, found))?);
    let mut topics = Topics::new();
    for (name, entry) in &catalogue.topics {
        let known = inner.topics.read().get(name).filter(|topic| topic.id() == entry.id).cloned();
        let topic = match known {
            Some(topic) => {
                if *topic.config() == entry.config {
                    read_on(topic.partitions(), &points)?;
                    topic
                } else {
                    inner.reopen_altered(&topic, entry, &points, clean_shutdown)?
                }
            }
            None => inner.open_topic_read_only(name, entry, &points, clean_shutdown)?,
        };
        topics.insert(name.clone(), topic);
    }
    catalogued.catalogue = catalogue;
    let is_changed = !inner.topics.read().values().map(summary).eq(topics.values().map(summary));
    let is_there = |topic: &Topic| topics.get(topic.name()).is_some_and(|now| now.id() == topic.id());
    let gone: Vec<_> = inner.topics.read().values().filter(|topic| !is_there(topic)).cloned().collect();
    *inner.topics.write() = topics;
    // Whoever has a partition of one, and a file of it, is told.
    gone.iter().flat_map(Topic::partitions).for_each(|partition| partition.delete());
    if is_changed {
        inner.note_topics_changed();
    }
    Ok(())
}

/// Takes in what was appended since. What was made durable since is believed, whatever a power cut before it has taken.
fn read_on(partitions: &[Arc<Partition>], points: &RecoveryPoints) -> Result<()> {
    let read_on =
        |partition: &Arc<Partition>| partition.refresh_behind(points.get(&partition.key()).copied());
    partitions.iter().try_for_each(|partition| read_on(partition).map(drop))
}

/// What a reader of a topic has to know of it.
fn summary(topic: &Topic) -> (TopicId, usize) {
    (topic.id(), topic.partitions().len())
}

pub(super) fn read_catalogue(storage: &dyn Storage, directory: &Path) -> Result<Catalogue> {
    Catalogue::read(storage, directory)?
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no log in {}", directory.display())))
}

impl Inner {
    /// A log that has nothing open yet, and nothing to shut down; read-only where it is not told whether
    /// it was closed.
    fn new(
        directory: &Path,
        options: LogOptions,
        catalogue: Option<Catalogue>,
        clean_shutdown: Option<CleanShutdown>,
    ) -> Result<Self> {
        let core = Core::new(directory, &options);
        let LogOptions { storage, clock, durability, seed, .. } = options;
        let LogOptions { open_files_max, unsynced_files_max, producer_expiration, .. } = options;
        let background = Background::start(core.clone())
            .map_err(|error| Error::io("cannot start the log's thread", error))?;
        let is_read_only = clean_shutdown.is_none();
        let mut context = PartitionContext::new(storage.clone(), clock.clone());
        if let Some(clean_shutdown) = clean_shutdown {
            context.clean_shutdown = Arc::new(clean_shutdown);
        }
        context.flusher = Arc::downgrade(&core.flusher);
        context.progress = core.progress.clone();
        context.producer_expiration = producer_expiration;
        context.open_files = Arc::new(OpenFiles::new(open_files_max));
        context.unsynced_files = Arc::new(UnsyncedFiles::new(unsynced_files_max));
        context.unsynced = Arc::new(UnsyncedMark::new(storage.clone(), directory, durability));
        let is_begun = catalogue.is_some();
        let catalogue = catalogue.unwrap_or_default();
        let catalogued = Catalogued { next_producer_id: catalogue.producer_ids_end, is_begun, catalogue };
        Ok(Self {
            directory: directory.to_owned(),
            storage,
            clock,
            durability,
            seed,
            context,
            is_read_only,
            is_closed: AtomicBool::new(true),
            catalogued: Mutex::new(catalogued),
            topics: RwLock::new(Topics::new()),
            topics_version: AtomicU64::new(1),
            reports: Vec::new(),
            core,
            background: Mutex::new(background),
            lock: Mutex::new(None::<Box<dyn StorageLock>>),
            made: Vec::new(),
        })
    }

    /// Finishes the repairs that were cut short. Returns how transactions end in the partitions that were
    /// repaired since the log was open last; it `goes_back` now or does not.
    fn finish_cuts(&mut self, goes_back: bool) -> Result<Vec<(PartitionSite, Endings)>> {
        let mut cut = Vec::new();
        for (name, CatalogueEntry { id, config }) in &self.catalogued.lock().catalogue.topics {
            for partition in (0..config.partitions).map(PartitionId) {
                let site = || self.site(name, *id, config, partition);
                cut.extend(repair::resume(&self.directory, site, goes_back)?);
            }
        }
        Ok(cut)
    }

    /// Recovers every partition of every topic; nothing is published before all are. They do not depend
    /// on each other, and mostly wait for the disk: several are recovered at once, unless the caller steps
    /// everything.
    fn recover_partitions(&mut self, points: &RecoveryPoints, clean_shutdown: bool) -> Result<Vec<Topic>> {
        let entries = self.catalogued.get_mut().catalogue.topics.clone();
        let mut jobs = Vec::new();
        for (name, CatalogueEntry { id, config }) in &entries {
            for partition in (0..config.partitions).map(PartitionId) {
                let recovery_point = points.get(&PartitionKey { topic: *id, partition }).copied();
                let border = RecoveryBorder { recovery_point, clean_shutdown };
                jobs.push((self.site(name, *id, config, partition), border));
            }
        }
        let threads = match self.core.driver.drive() {
            Drive::Manual => 1,
            Drive::Thread => RECOVERY_THREADS_MAX,
        };
        let recover = |(site, border)| Partition::open(site, &border);
        let recovered = in_parallel("lotic-recovery", threads, jobs, recover)
            .map_err(|error| Error::io("cannot start the threads that recover partitions", error))??;
        let (partitions, reports): (Vec<_>, Vec<_>) = recovered.into_iter().unzip();
        self.reports = reports;
        let mut partitions = partitions.into_iter();
        let topic = |(name, CatalogueEntry { id, config }): (String, CatalogueEntry)| {
            let own = partitions.by_ref().take(config.partitions as usize).collect();
            Topic::new(name, id, config, own)
        };
        Ok(entries.into_iter().map(topic).collect())
    }

    /// The mark is there for what will be appended, if nobody syncs that: the first append need not wait for it.
    fn leave_unsynced_mark(&self, partitions: &[Arc<Partition>]) -> Result<()> {
        let is_synced = |partition: &Arc<Partition>| partition.config().durability == Durability::Sync;
        if partitions.iter().all(is_synced) { Ok(()) } else { self.context.unsynced.leave() }
    }

    /// Goes on with the recovery points as they were stored, or writes them anew: also where they say the same and
    /// may be in the page cache only. A directory that nothing was written to yet has none.
    fn open_recovery_points(
        &mut self,
        stored: &Stored,
        is_clean: bool,
        points: RecoveryPoints,
    ) -> Result<()> {
        if !self.catalogued.get_mut().is_begun {
            return Ok(());
        }
        let (storage, synced) = (self.storage.clone(), &self.context.synced_points);
        let resume = || RecoveryPointFile::resume(storage, &self.directory, stored, &points, synced);
        let resumed = if is_clean { resume()? } else { None };
        let file = match resumed {
            Some(file) => file,
            None => {
                self.context.clean_shutdown.take_away()?;
                self.create_recovery_points(points)?
            }
        };
        self.core.flusher.keep_recovery_points(file);
        Ok(())
    }

    /// Where each partition was cut off, and is just being.
    pub(super) fn cuts(&self) -> Result<Vec<PartitionCuts>> {
        let catalogue = read_catalogue(&*self.storage, &self.directory)?;
        let mut cuts = Vec::new();
        for (name, CatalogueEntry { id, config }) in &catalogue.topics {
            for partition in (0..config.partitions).map(PartitionId) {
                let site = self.site(name, *id, config, partition);
                let marks = Marks::read(&site)?;
                cuts.push(PartitionCuts { name: site.name, cuts: marks.cuts, being_cut: marks.being_cut });
            }
        }
        Ok(cuts)
    }

    /// A topic whose settings have changed, with the partitions that were added.
    fn reopen_altered(
        &self,
        topic: &Topic,
        entry: &CatalogueEntry,
        points: &RecoveryPoints,
        clean_shutdown: bool,
    ) -> Result<Topic> {
        let mut partitions = topic.partitions().to_vec();
        for known in &partitions {
            known.set_config(entry.config.partition_config(self.durability));
        }
        read_on(&partitions, points)?;
        let added = partitions.len() as i32..entry.config.partitions;
        let open =
            |partition| self.open_partition_read_only(topic.name(), entry, points, clean_shutdown, partition);
        let added: Result<Vec<_>> = added.map(PartitionId).map(open).collect();
        partitions.extend(added?);
        Ok(Topic::new(topic.name().to_owned(), entry.id, entry.config.clone(), partitions))
    }

    fn open_topic_read_only(
        &self,
        name: &str,
        entry: &CatalogueEntry,
        points: &RecoveryPoints,
        clean_shutdown: bool,
    ) -> Result<Topic> {
        let open = |partition| self.open_partition_read_only(name, entry, points, clean_shutdown, partition);
        let partitions: Result<Vec<_>> = (0..entry.config.partitions).map(PartitionId).map(open).collect();
        Ok(Topic::new(name.to_owned(), entry.id, entry.config.clone(), partitions?))
    }

    fn open_partition_read_only(
        &self,
        name: &str,
        entry: &CatalogueEntry,
        points: &RecoveryPoints,
        clean_shutdown: bool,
        partition: PartitionId,
    ) -> Result<Arc<Partition>> {
        let recovery_point = points.get(&PartitionKey { topic: entry.id, partition }).copied();
        let border = RecoveryBorder { recovery_point, clean_shutdown };
        Partition::open_read_only(self.site(name, entry.id, &entry.config, partition), &border)
    }
}

/// Checks that a directory without a catalogue has not lost it.
fn check_no_partition(storage: &dyn Storage, directory: &Path) -> Result<()> {
    let entries = storage.list(directory).map_err(|error| failed("list", directory, error))?;
    for entry in entries.iter().filter(|entry| entry.is_directory) {
        let metadata = directory.join(&entry.name).join(METADATA_FILE_NAME);
        if !storage.exists(&metadata).map_err(|error| failed("read", &metadata, error))? {
            continue;
        }
        let directory = directory.display();
        let what = format!("{directory} holds the partition {}, but its catalogue is missing", entry.name);
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    Ok(())
}

/// Makes a directory. Returns it and those above it that were missing: their names are not durable yet.
fn make_directory(storage: &dyn Storage, directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for ancestor in directory.ancestors() {
        if ancestor.as_os_str().is_empty() || storage.exists(ancestor)? {
            break;
        }
        missing.push(ancestor.to_owned());
    }
    storage.create_dir_all(directory)?;
    Ok(missing)
}

fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {doing} {}", path.display()), error)
}
