//! Files in memory that crash as a disk does.
//!
//! The model is POSIX's, taken strictly. Each file has bytes on the *platter* and a list of changes
//! that are only in the page cache; names work the same way, per directory. A sync moves to the
//! platter what was changed before it was submitted. A [`crash`](MemoryStorage::crash) decides for
//! every other change by a seeded generator whether it made it: any subset, in any order as far as
//! order shows, a write possibly torn at any byte or sector. A [`kill`](MemoryStorage::kill) ends the
//! handles and keeps the page cache, as the end of a process does.
//!
//! Every operation that changes or syncs something is counted ([`operations`](MemoryStorage::operations)),
//! so a test can crash at each of them: making a file, making a directory, a write, a truncation,
//! the submission of a sync, a rename, a removal (one per entry of a tree), a directory sync.

mod faults;
mod mount;
mod place;
mod platter;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use self::faults::{Faults, Verdict};
use self::mount::Mount;
pub use self::place::SyncPlace;
use self::place::kind_of;
use self::platter::{Change, InodeId, Platter};
use super::{
    Entry, FileIdentity, OpenMode, Storage, StorageDirectory, StorageFile, StorageLock, SyncCompletion,
    SyncPurpose, SyncReason, SyncTicket,
};

/// When a submitted sync of a file takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// At once.
    #[default]
    Immediate,
    /// When the test calls [`MemoryStorage::complete_syncs`], or never.
    Delayed,
}

/// A disk in memory, with a plug that can be pulled.
pub struct MemoryStorage {
    disk: Mutex<Disk>,
    this: Weak<Self>,
}

/// One lock for all of it: the model is for tests, where order matters more than speed.
struct Disk {
    platter: Platter,
    faults: Faults,
    rng: ChaCha8Rng,
    sync_mode: SyncMode,
    in_flight: Vec<InFlight>,
    locks: BTreeMap<PathBuf, String>,
    /// Handles of an earlier generation are dead.
    generation: u64,
    /// How often the power has failed.
    crashes: u64,
    hides_boot_id: bool,
    read_only: bool,
}

/// A sync that was submitted and has not been answered.
struct InFlight {
    inode: InodeId,
    upto: u64,
    completion: SyncCompletion,
}

impl MemoryStorage {
    /// An empty disk. What a crash keeps, and whether an operation cut short by a fault took effect,
    /// follows from `seed`.
    pub fn new(seed: u64) -> Arc<Self> {
        #[cfg(test)]
        let seed = trial::salted(seed);
        let storage = Arc::new_cyclic(|this: &Weak<Self>| Self {
            disk: Mutex::new(Disk {
                platter: Platter::new(),
                faults: Faults::default(),
                rng: ChaCha8Rng::seed_from_u64(seed),
                sync_mode: SyncMode::default(),
                in_flight: Vec::new(),
                locks: BTreeMap::new(),
                generation: 0,
                crashes: 0,
                hides_boot_id: false,
                read_only: false,
            }),
            this: this.clone(),
        });
        #[cfg(test)]
        trial::begin(&storage);
        storage
    }

    /// The disk for one process: dead after the next [`Self::crash`] or [`Self::kill`]. What is opened on
    /// [`MemoryStorage`] itself opens again for whoever still holds it.
    pub fn mount(&self) -> Arc<dyn Storage> {
        let storage = self.this.upgrade().expect("a storage that is called is alive");
        let generation = self.disk.lock().generation;
        Mount::new(storage, generation)
    }

    /// Power fails and comes back: what was not synced is kept, torn or lost; handles are dead and
    /// locks free. Scheduled faults and ignored syncs are as before, the plug is back in.
    pub fn crash(&self) {
        let mut disk = self.disk.lock();
        let Disk { platter, rng, .. } = &mut *disk;
        platter.crash(rng);
        disk.crashes += 1;
        let lost = disk.end_process();
        drop(disk);
        lose(lost);
    }

    /// The process ends and the machine stays up: handles are dead and locks free, and all that was
    /// written can be read, synced or not.
    pub fn kill(&self) {
        let lost = self.disk.lock().end_process();
        lose(lost);
    }

    /// Pulls the plug at the `operations`-th counted operation from now (0 is the next one). That one
    /// may take effect in full, in part or not at all; it and everything after it, reads included,
    /// fails with `NotConnected` until [`Self::crash`] or [`Self::kill`].
    pub fn fail_after(&self, operations: u64) {
        self.disk.lock().faults.pull_plug_after(operations);
    }

    /// Whether the plug is out.
    pub fn is_unplugged(&self) -> bool {
        self.disk.lock().faults.is_unplugged()
    }

    /// Fails the `operations`-th counted operation from now, once, with `kind`. A write may have written
    /// a part. What a failed sync covered stays readable, is never synced by a later sync (as on
    /// Linux, where it counts as clean), and may be lost in a crash.
    pub fn fail_with(&self, kind: ErrorKind, operations: u64) {
        self.disk.lock().faults.fail_after(kind, operations);
    }

    /// Takes back what [`Self::fail_after`] and [`Self::fail_with`] have scheduled and not yet done.
    pub fn clear_faults(&self) {
        self.disk.lock().faults.clear_scheduled();
    }

    /// Makes the names in a directory durable, as `sync_dir` of any storage does.
    #[track_caller]
    pub fn sync_dir(&self, path: &Path, purpose: SyncPurpose) -> io::Result<()> {
        self.open_dir(path)?.sync_for(SyncReason::of(purpose))
    }

    /// From now on syncs for `purpose` report success and do nothing.
    pub fn ignore_syncs(&self, purpose: SyncPurpose) {
        self.disk.lock().faults.ignore(purpose);
    }

    /// From now on syncs of this place report success and do nothing.
    pub fn ignore_syncs_at(&self, place: SyncPlace) {
        self.disk.lock().faults.ignore_at(place);
    }

    /// Where syncs were submitted so far, ignored ones included.
    pub fn sync_places(&self) -> BTreeSet<SyncPlace> {
        self.disk.lock().faults.places().clone()
    }

    /// How many syncs were submitted for `purpose`, ignored ones included.
    pub fn sync_count(&self, purpose: SyncPurpose) -> u64 {
        self.disk.lock().faults.sync_count(purpose)
    }

    /// How many operations were counted so far.
    pub fn operations(&self) -> u64 {
        self.disk.lock().faults.operations()
    }

    /// When syncs of files take effect. Directory syncs are always immediate.
    pub fn set_sync_mode(&self, mode: SyncMode) {
        self.disk.lock().sync_mode = mode;
    }

    /// When syncs of files take effect.
    pub fn sync_mode(&self) -> SyncMode {
        self.disk.lock().sync_mode
    }

    /// Completes the delayed syncs in the order in which they were submitted; says how many.
    pub fn complete_syncs(&self) -> usize {
        let mut disk = self.disk.lock();
        let done = std::mem::take(&mut disk.in_flight);
        for sync in &done {
            disk.platter.sync_file(sync.inode, sync.upto);
        }
        drop(disk);
        let count = done.len();
        done.into_iter().for_each(|sync| sync.completion.complete(Ok(())));
        count
    }

    /// Completes one of the delayed syncs, by its place among them; says whether there was one.
    pub fn complete_sync(&self, place: usize) -> bool {
        let mut disk = self.disk.lock();
        if place >= disk.in_flight.len() {
            return false;
        }
        let sync = disk.in_flight.remove(place);
        disk.platter.sync_file(sync.inode, sync.upto);
        drop(disk);
        sync.completion.complete(Ok(()));
        true
    }

    /// How many syncs are under way.
    pub fn syncs_in_flight(&self) -> usize {
        self.disk.lock().in_flight.len()
    }

    /// Fails the delayed syncs with `kind`.
    pub fn fail_syncs(&self, kind: ErrorKind) -> usize {
        let mut disk = self.disk.lock();
        let failed = std::mem::take(&mut disk.in_flight);
        for sync in &failed {
            disk.platter.fail_sync(sync.inode, sync.upto);
        }
        drop(disk);
        let count = failed.len();
        failed.into_iter().for_each(|sync| sync.completion.complete(Err(injected(kind))));
        count
    }

    /// Fails one of the delayed syncs with `kind`, by its place among them; says whether there was one.
    pub fn fail_sync(&self, place: usize, kind: ErrorKind) -> bool {
        let mut disk = self.disk.lock();
        if place >= disk.in_flight.len() {
            return false;
        }
        let sync = disk.in_flight.remove(place);
        disk.platter.fail_sync(sync.inode, sync.upto);
        drop(disk);
        sync.completion.complete(Err(injected(kind)));
        true
    }

    /// From now on the machine cannot tell one start from the next.
    pub fn hide_boot_id(&self) {
        self.disk.lock().hides_boot_id = true;
    }

    /// Refuses every change with `ReadOnlyFilesystem`, or stops refusing.
    pub fn set_read_only(&self, read_only: bool) {
        self.disk.lock().read_only = read_only;
    }

    /// Flips the bits `xor` of the byte at `position`, on the platter and in the page cache.
    pub fn corrupt(&self, path: &Path, position: u64, xor: u8) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let inode = disk.platter.find_file(path)?;
        disk.platter.corrupt(inode, position as usize, xor)
    }

    /// What a file holds, unsynced bytes included. Works with the plug out.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = disk.platter.find_file(path)?;
        Ok(disk.platter.bytes(inode).to_vec())
    }
}

/// Nobody will end these syncs. Whoever is told may ask the storage at once: no lock is held then.
fn lose(syncs: Vec<InFlight>) {
    syncs.into_iter().for_each(|sync| sync.completion.complete(Err(unplugged())));
}

impl Disk {
    /// What was in flight then.
    fn end_process(&mut self) -> Vec<InFlight> {
        self.generation += 1;
        self.locks.clear();
        self.faults.plug_in();
        std::mem::take(&mut self.in_flight)
    }

    fn powered(&self) -> io::Result<()> {
        if self.faults.is_unplugged() { Err(unplugged()) } else { Ok(()) }
    }

    fn alive(&self, generation: u64) -> io::Result<()> {
        self.powered()?;
        if generation == self.generation { Ok(()) } else { Err(unplugged()) }
    }

    /// Counts an operation and says what becomes of it.
    fn admit(&mut self) -> io::Result<Verdict> {
        self.powered()?;
        if self.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(self.faults.admit())
    }

    /// Runs an operation that happens whole or not at all.
    fn change<T>(&mut self, effect: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        match self.admit()? {
            Verdict::Proceed => effect(&mut self.platter),
            Verdict::Fail(kind) => Err(injected(kind)),
            Verdict::Unplug => {
                if self.rng.random() {
                    // The caller learns nothing: neither the result nor an error of its own.
                    let _ = effect(&mut self.platter);
                }
                Err(unplugged())
            }
        }
    }

    fn write(&mut self, inode: InodeId, position: u64, bytes: &[u8]) -> io::Result<()> {
        let verdict = self.admit()?;
        let written = match verdict {
            Verdict::Proceed => bytes.len(),
            Verdict::Fail(_) | Verdict::Unplug => self.rng.random_range(0..=bytes.len()),
        };
        if written > 0 {
            let change = Change::Write { position, bytes: bytes[..written].to_vec() };
            self.platter.change_file(inode, change);
        }
        verdict.into_result()
    }

    fn sync(&mut self, inode: InodeId, path: &Path, reason: SyncReason) -> SyncTicket {
        let verdict = match self.admit() {
            Ok(verdict) => verdict,
            Err(error) => return SyncTicket::completed(Err(error)),
        };
        let ignored = self.faults.count_sync(reason, kind_of(path, false));
        let upto = self.platter.sync_mark(inode);
        match verdict {
            Verdict::Proceed if ignored => SyncTicket::completed(Ok(())),
            Verdict::Proceed if self.sync_mode == SyncMode::Delayed => {
                let (ticket, completion) = SyncTicket::pending();
                self.in_flight.push(InFlight { inode, upto, completion });
                ticket
            }
            Verdict::Proceed => {
                self.platter.sync_file(inode, upto);
                SyncTicket::completed(Ok(()))
            }
            Verdict::Fail(kind) => {
                self.platter.fail_sync(inode, upto);
                SyncTicket::completed(Err(injected(kind)))
            }
            Verdict::Unplug => {
                if !ignored && self.rng.random() {
                    self.platter.sync_file(inode, upto);
                }
                SyncTicket::completed(Err(unplugged()))
            }
        }
    }

    fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        for entry in self.platter.list(path)? {
            let child = path.join(&entry.name);
            if entry.is_directory {
                self.remove_tree(&child)?;
            } else {
                self.change(|platter| platter.unlink(&child, false))?;
            }
        }
        self.change(|platter| platter.unlink(path, true))
    }
}

impl Storage for MemoryStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        let inode = match mode {
            OpenMode::Create => disk.change(|platter| platter.create_file(path))?,
            OpenMode::Write if disk.read_only => return Err(ErrorKind::ReadOnlyFilesystem.into()),
            OpenMode::Read | OpenMode::Write => disk.platter.find_file(path)?,
        };
        let storage = self.this.upgrade().expect("a storage that is called is alive");
        let writable = mode != OpenMode::Read;
        let path = path.to_owned();
        Ok(Arc::new(MemoryFile { storage, inode, path, generation: disk.generation, writable }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        for missing in disk.platter.missing_directories(path)? {
            disk.change(|platter| platter.create_directory(&missing))?;
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.disk.lock();
        disk.powered()?;
        disk.platter.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.disk.lock();
        disk.powered()?;
        Ok(disk.platter.exists(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.lock().change(|platter| platter.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().change(|platter| platter.unlink(path, false))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        disk.remove_tree(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        let disk = self.disk.lock();
        disk.powered()?;
        let inode = disk.platter.find_directory(path)?;
        let storage = self.this.upgrade().expect("a storage that is called is alive");
        let path = path.to_owned();
        Ok(Arc::new(MemoryDirectory { storage, inode, path, generation: disk.generation }))
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn StorageLock>> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        if disk.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some(other) = disk.locks.get(path) {
            return Err(io::Error::new(ErrorKind::WouldBlock, other.clone()));
        }
        disk.platter.put_lock_file(path, holder)?;
        disk.locks.insert(path.to_owned(), holder.to_owned());
        let generation = disk.generation;
        Ok(Box::new(MemoryLock { storage: self.this.clone(), path: path.to_owned(), generation }))
    }

    fn boot_id(&self) -> Option<Uuid> {
        let disk = self.disk.lock();
        // Zeros would be none.
        (!disk.hides_boot_id).then(|| Uuid::from_u128(u128::from(disk.crashes) + 1))
    }
}

struct MemoryFile {
    storage: Arc<MemoryStorage>,
    inode: InodeId,
    /// What it was opened as.
    path: PathBuf,
    generation: u64,
    writable: bool,
}

impl MemoryFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl StorageFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let disk = self.storage.disk.lock();
        disk.alive(self.generation)?;
        Ok(disk.platter.bytes(self.inode).len() as u64)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.storage.disk.lock().alive(self.generation)?;
        Ok(FileIdentity { device: 0, inode: self.inode.number(), made: None })
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let mut disk = self.storage.disk.lock();
        disk.alive(self.generation)?;
        disk.write(self.inode, position, bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.storage.disk.lock();
        disk.alive(self.generation)?;
        let bytes = disk.platter.bytes(self.inode);
        let from = bytes.get(position as usize..).unwrap_or_default();
        let length = from.len().min(buffer.len());
        buffer[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut disk = self.storage.disk.lock();
        disk.alive(self.generation)?;
        disk.change(|platter| {
            platter.change_file(self.inode, Change::Truncate { length });
            Ok(())
        })
    }

    fn sync_for(&self, reason: SyncReason) -> SyncTicket {
        let mut disk = self.storage.disk.lock();
        match disk.alive(self.generation) {
            Ok(()) => disk.sync(self.inode, &self.path, reason),
            Err(error) => SyncTicket::completed(Err(error)),
        }
    }
}

struct MemoryDirectory {
    storage: Arc<MemoryStorage>,
    inode: InodeId,
    /// What it was opened as.
    path: PathBuf,
    generation: u64,
}

impl StorageDirectory for MemoryDirectory {
    fn sync_for(&self, reason: SyncReason) -> io::Result<()> {
        let mut disk = self.storage.disk.lock();
        disk.alive(self.generation)?;
        let ignored = disk.faults.count_sync(reason, kind_of(&self.path, true));
        disk.change(|platter| {
            if !ignored {
                platter.sync_directory(self.inode);
            }
            Ok(())
        })
    }
}

struct MemoryLock {
    storage: Weak<MemoryStorage>,
    path: PathBuf,
    generation: u64,
}

impl StorageLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let Some(storage) = self.storage.upgrade() else { return };
        let mut disk = storage.disk.lock();
        if disk.generation == self.generation {
            disk.locks.remove(&self.path);
            if disk.powered().is_ok() {
                disk.platter.remove_lock_file(&self.path);
            }
        }
    }
}

fn unplugged() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the disk is gone")
}

fn injected(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "a fault set by the test")
}
