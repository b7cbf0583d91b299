//! Every file of a directory by its bytes, to see whether anything was changed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::failure::{About, Result};

/// Whoever tries to open a directory may leave its name here.
const LOCK_FILE: &str = ".lock";

/// The files and folders below a folder: a file with its length and the hash of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    entries: BTreeMap<PathBuf, Option<(u64, u64)>>,
}

impl Files {
    /// What is below `folder` now; nothing, if it is not there. The lock file is left out: it says who
    /// came last and holds no data.
    ///
    /// # Errors
    /// Those of reading.
    pub fn below(folder: &Path) -> Result<Self> {
        let mut files = Self { entries: BTreeMap::new() };
        files.add(folder, folder).about(folder.display())?;
        Ok(files)
    }

    fn add(&mut self, root: &Path, folder: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.strip_prefix(root).expect("it is below the root").to_owned();
            if path.is_dir() {
                self.entries.insert(name, None);
                self.add(root, &path)?;
            } else if !path.ends_with(LOCK_FILE) {
                let bytes = fs::read(&path)?;
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                self.entries.insert(name, Some((bytes.len() as u64, hasher.finish())));
            }
        }
        Ok(())
    }

    /// Those of the files whose path, from the folder on, `is_wanted`.
    pub fn only(mut self, is_wanted: impl Fn(&Path) -> bool) -> Self {
        self.entries.retain(|path, content| content.is_some() && is_wanted(path));
        self
    }

    /// A failure that names what differs, unless `self` is what was `before`.
    ///
    /// # Errors
    /// As said.
    pub fn check_unchanged_since(&self, before: &Self) -> Result<()> {
        let new = self.entries.keys().filter(|name| !before.entries.contains_key(*name));
        self.check_same(before, before.entries.keys().chain(new))
    }

    /// A failure that names what differs, unless all that was there `before` is as it was. There may be more.
    ///
    /// # Errors
    /// As said.
    pub fn check_kept_since(&self, before: &Self) -> Result<()> {
        self.check_same(before, before.entries.keys())
    }

    fn check_same<'a>(&self, before: &Self, names: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
        let mut message = String::new();
        for name in names {
            let (was, is) = (before.entries.get(name), self.entries.get(name));
            let what = match (was, is) {
                (Some(was), Some(is)) if was == is => continue,
                (Some(_), Some(_)) => "changed",
                (Some(_), None) => "removed",
                (None, _) => "new",
            };
            let _ = writeln!(message, "{what}: {} ({was:?} -> {is:?})", name.display());
        }
        if message.is_empty() { Ok(()) } else { Err(format!("the directory was changed:\n{message}").into()) }
    }
}
