//! What is on the platter, what is only in the page cache, and what a crash makes of the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::Entry;

/// The unit that a disk writes whole.
pub(super) const SECTOR_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InodeId(u64);

impl InodeId {
    /// Never given twice.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

const ROOT: InodeId = InodeId(0);

pub(super) struct Platter {
    inodes: BTreeMap<InodeId, Inode>,
    /// Changes of names that no directory sync has covered, oldest first.
    names: Vec<NameChange>,
    next_inode: u64,
}

enum Inode {
    File(File),
    Directory(Directory),
}

/// Names in a directory, as the process sees them and as the platter has them.
#[derive(Default)]
struct Directory {
    cached: BTreeMap<String, InodeId>,
    durable: BTreeMap<String, InodeId>,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Changes since `durable`, oldest first; the first is never [`Reached::Platter`].
    changes: Vec<FileChange>,
    next_change: u64,
}

struct FileChange {
    number: u64,
    change: Change,
    reached: Reached,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Cache,
    /// A sync of it failed: it counts as clean, so no later sync writes it.
    CacheForGood,
    Platter,
}

/// A change of a file's bytes.
pub(super) enum Change {
    Write { position: u64, bytes: Vec<u8> },
    Truncate { length: u64 },
}

/// A directory and a name in it.
type Place = (InodeId, String);

/// An atomic change of one name, or of two by a rename.
struct NameChange {
    removed: Option<Place>,
    linked: Option<(Place, InodeId)>,
}

impl NameChange {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.removed.iter().chain(self.linked.iter().map(|(place, _)| place))
    }
}

/// How likely a change survives, drawn once per crash so that the extremes (all kept, all lost)
/// come up as often as mixtures.
struct Odds {
    kept: f64,
    torn: f64,
}

impl Odds {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        const KEPT: [f64; 5] = [0.0, 0.2, 0.5, 0.9, 1.0];
        Self { kept: KEPT[rng.random_range(0..KEPT.len())], torn: if rng.random() { 0.5 } else { 0.0 } }
    }
}

impl Platter {
    pub(super) fn new() -> Self {
        let inodes = BTreeMap::from([(ROOT, Inode::Directory(Directory::default()))]);
        Self { inodes, names: Vec::new(), next_inode: 1 }
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<InodeId> {
        let inode = self.find(path)?;
        match self.inodes[&inode] {
            Inode::File(_) => Ok(inode),
            Inode::Directory(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn find_directory(&self, path: &Path) -> io::Result<InodeId> {
        let inode = self.find(path)?;
        self.directory(inode).map(|_| inode)
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let directory = self.directory(self.find(path)?)?;
        let entry = |(name, inode): (&String, &InodeId)| Entry {
            name: name.clone(),
            is_directory: matches!(self.inodes[inode], Inode::Directory(_)),
        };
        Ok(directory.cached.iter().map(entry).collect())
    }

    /// The directories that `path` needs and that do not exist, outermost first.
    pub(super) fn missing_directories(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        let mut outer = PathBuf::new();
        for name in components(path) {
            outer.push(name);
            match self.find(&outer) {
                Ok(inode) => drop(self.directory(inode)?),
                Err(_) => missing.push(outer.clone()),
            }
        }
        Ok(missing)
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<InodeId> {
        self.create(path, Inode::File(File::default()))
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<InodeId> {
        self.create(path, Inode::Directory(Directory::default()))
    }

    pub(super) fn unlink(&mut self, path: &Path, directory: bool) -> io::Result<()> {
        let inode = self.find(path)?;
        match &self.inodes[&inode] {
            Inode::File(_) if directory => return Err(ErrorKind::NotADirectory.into()),
            Inode::Directory(_) if !directory => return Err(ErrorKind::IsADirectory.into()),
            Inode::Directory(inner) if !inner.cached.is_empty() => {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        let removed = self.place(path)?;
        self.change_name(NameChange { removed: Some(removed), linked: None });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (removed, target) = (self.place(from)?, self.place(to)?);
        if let Some(replaced) = self.directory(target.0)?.cached.get(&target.1) {
            match (&self.inodes[&inode], &self.inodes[replaced]) {
                (Inode::File(_), Inode::File(_)) => {}
                (Inode::File(_), Inode::Directory(_)) => return Err(ErrorKind::IsADirectory.into()),
                (Inode::Directory(_), Inode::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                (Inode::Directory(_), Inode::Directory(inner)) if inner.cached.is_empty() => {}
                _ => return Err(ErrorKind::DirectoryNotEmpty.into()),
            }
        }
        self.change_name(NameChange { removed: Some(removed), linked: Some((target, inode)) });
        Ok(())
    }

    /// A lock file is there before the log relies on anything, so it is durable at once.
    pub(super) fn put_lock_file(&mut self, path: &Path, holder: &str) -> io::Result<()> {
        let inode = match self.find(path) {
            Ok(inode) => inode,
            Err(_) => {
                let inode = self.create_file(path)?;
                let change = self.names.pop().expect("creating a file changes a name");
                self.apply_durably(&change);
                inode
            }
        };
        let file = self.file_mut(inode);
        file.durable = holder.as_bytes().to_vec();
        file.cached = file.durable.clone();
        Ok(())
    }

    /// Removes a lock file, durably.
    pub(super) fn remove_lock_file(&mut self, path: &Path) {
        if let (Ok(_), Ok(place)) = (self.find(path), self.place(path)) {
            let change = NameChange { removed: Some(place), linked: None };
            self.apply(&change, |directory| &mut directory.cached);
            self.apply_durably(&change);
        }
    }

    /// Makes the name changes of a directory durable, and those that they build on.
    pub(super) fn sync_directory(&mut self, directory: InodeId) {
        let mut needed = BTreeSet::<Place>::new();
        let mut synced = Vec::new();
        for index in (0..self.names.len()).rev() {
            let change = &self.names[index];
            if change.places().any(|place| place.0 == directory || needed.contains(place)) {
                needed.extend(change.places().cloned());
                synced.push(self.names.remove(index));
            }
        }
        for change in synced.iter().rev() {
            self.apply_durably(change);
        }
    }

    pub(super) fn bytes(&self, inode: InodeId) -> &[u8] {
        match &self.inodes[&inode] {
            Inode::File(file) => &file.cached,
            Inode::Directory(_) => &[],
        }
    }

    pub(super) fn change_file(&mut self, inode: InodeId, change: Change) {
        let file = self.file_mut(inode);
        change.apply(&mut file.cached);
        let number = file.next_change;
        file.next_change += 1;
        file.changes.push(FileChange { number, change, reached: Reached::Cache });
    }

    /// The changes that a sync submitted now covers: those with a lower number.
    pub(super) fn sync_mark(&mut self, inode: InodeId) -> u64 {
        self.file_mut(inode).next_change
    }

    pub(super) fn sync_file(&mut self, inode: InodeId, upto: u64) {
        self.file_mut(inode).reach(upto, Reached::Platter);
    }

    pub(super) fn fail_sync(&mut self, inode: InodeId, upto: u64) {
        self.file_mut(inode).reach(upto, Reached::CacheForGood);
    }

    pub(super) fn corrupt(&mut self, inode: InodeId, position: usize, xor: u8) -> io::Result<()> {
        let file = self.file_mut(inode);
        *file.cached.get_mut(position).ok_or(ErrorKind::UnexpectedEof)? ^= xor;
        for change in &mut file.changes {
            if let Change::Write { position: start, bytes } = &mut change.change
                && let Some(byte) = position.checked_sub(*start as usize).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= xor;
            }
        }
        if let Some(byte) = file.durable.get_mut(position) {
            *byte ^= xor;
        }
        Ok(())
    }

    /// Only what reached the platter is left, and of the rest whatever the generator says.
    pub(super) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        let odds = Odds::draw(rng);
        self.crash_names(rng, &odds);
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::File(file) => file.crash(rng, &odds),
                Inode::Directory(directory) => directory.cached = directory.durable.clone(),
            }
        }
        self.forget_unreachable();
    }

    /// A change that was lost takes with it the later ones of the same name.
    fn crash_names(&mut self, rng: &mut ChaCha8Rng, odds: &Odds) {
        let mut lost = BTreeSet::<Place>::new();
        for change in std::mem::take(&mut self.names) {
            let possible = !change.places().any(|place| lost.contains(place));
            if possible && rng.random_bool(odds.kept) {
                self.apply_durably(&change);
            } else {
                lost.extend(change.places().cloned());
            }
        }
    }

    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(inode) = open.pop() {
            if let Inode::Directory(directory) = &self.inodes[&inode] {
                open.extend(directory.cached.values().filter(|child| reachable.insert(**child)));
            }
        }
        self.inodes.retain(|inode, _| reachable.contains(inode));
    }

    fn find(&self, path: &Path) -> io::Result<InodeId> {
        let mut inode = ROOT;
        for name in components(path) {
            let next = self.directory(inode)?.cached.get(name);
            inode = *next.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        }
        Ok(inode)
    }

    /// Where a path's last name stands; that name need not exist.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let name = components(path).last().ok_or(ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.directory(parent)?;
        Ok((parent, name.to_owned()))
    }

    fn create(&mut self, path: &Path, inode: Inode) -> io::Result<InodeId> {
        let place = self.place(path)?;
        if self.directory(place.0)?.cached.contains_key(&place.1) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = InodeId(self.next_inode);
        self.next_inode += 1;
        self.inodes.insert(id, inode);
        self.change_name(NameChange { removed: None, linked: Some((place, id)) });
        Ok(id)
    }

    fn change_name(&mut self, change: NameChange) {
        self.apply(&change, |directory| &mut directory.cached);
        self.names.push(change);
    }

    fn apply_durably(&mut self, change: &NameChange) {
        self.apply(change, |directory| &mut directory.durable);
    }

    fn apply(&mut self, change: &NameChange, names: fn(&mut Directory) -> &mut BTreeMap<String, InodeId>) {
        if let Some((directory, name)) = &change.removed {
            names(self.directory_mut(*directory)).remove(name);
        }
        if let Some(((directory, name), inode)) = &change.linked {
            names(self.directory_mut(*directory)).insert(name.clone(), *inode);
        }
    }

    fn directory(&self, inode: InodeId) -> io::Result<&Directory> {
        match &self.inodes[&inode] {
            Inode::Directory(directory) => Ok(directory),
            Inode::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn directory_mut(&mut self, inode: InodeId) -> &mut Directory {
        match self.inodes.get_mut(&inode) {
            Some(Inode::Directory(directory)) => directory,
            _ => unreachable!("a place is always in a directory"),
        }
    }

    fn file_mut(&mut self, inode: InodeId) -> &mut File {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => file,
            _ => unreachable!("a handle is always of a file"),
        }
    }
}

impl File {
    fn reach(&mut self, upto: u64, reached: Reached) {
        for change in self.changes.iter_mut().filter(|change| change.number < upto) {
            if change.reached == Reached::Cache {
                change.reached = reached;
            }
        }
        let done = self.changes.iter().take_while(|change| change.reached == Reached::Platter).count();
        for change in self.changes.drain(..done) {
            change.change.apply(&mut self.durable);
        }
    }

    fn crash(&mut self, rng: &mut ChaCha8Rng, odds: &Odds) {
        for FileChange { change, reached, .. } in self.changes.drain(..) {
            if reached == Reached::Platter || rng.random_bool(odds.kept) {
                change.apply(&mut self.durable);
            } else if rng.random_bool(odds.torn) {
                change.apply_torn(&mut self.durable, rng);
            }
        }
        self.cached = self.durable.clone();
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Truncate { length } => file.resize(*length as usize, 0),
            Self::Write { position, bytes } => write(file, *position as usize, bytes),
        }
    }

    /// Either a part of the bytes from the front, or some sectors and the full length.
    fn apply_torn(&self, file: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
        let Self::Write { position, bytes } = self else { return };
        let start = *position as usize;
        if rng.random() {
            return write(file, start, &bytes[..rng.random_range(0..=bytes.len())]);
        }
        let end = start + bytes.len();
        file.resize(file.len().max(end), 0);
        let mut from = start;
        while from < end {
            let to = end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
            if rng.random() {
                file[from..to].copy_from_slice(&bytes[from - start..to - start]);
            }
            from = to;
        }
    }
}

/// A write behind the end leaves a hole of zeros.
fn write(file: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = position + bytes.len();
    file.resize(file.len().max(end), 0);
    file[position..end].copy_from_slice(bytes);
}

fn components(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_str().expect("names in memory storage are UTF-8")),
        _ => None,
    })
}
