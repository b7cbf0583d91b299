//! What the files of a checkpoint are. Its bytes are described in [`checkpoint`](super).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lotic_log::storage::{OpenMode, Storage, SyncPurpose};

use super::failed;
use crate::error::{Error, ErrorKind, Result};

pub(super) const FILE_NAME: &str = "manifest";

const MAGIC: [u8; 4] = *b"LTCK";
const VERSION: u32 = 1;

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) files: Vec<ManifestFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ManifestFile {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) checksum: u32,
}

impl Manifest {
    /// Describes the files in `directory`. Those that `known` names by inode are not read again.
    pub(super) fn of(directory: &Path, known: &[(u64, ManifestFile)]) -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).map_err(|error| failed("read", directory, error))? {
            let path = entry.map_err(|error| failed("read", directory, error))?.path();
            let metadata = fs::metadata(&path).map_err(|error| failed("read", &path, error))?;
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let same = known.iter().find(|(inode, file)| {
                *inode == metadata.ino() && file.name == name && file.size == metadata.len()
            });
            let file = match same {
                Some((_, file)) => file.clone(),
                None => describe(&path, name).map_err(|error| failed("read", &path, error))?,
            };
            files.push(file);
        }
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { files })
    }

    /// Writes the manifest into `directory`, which has none, and syncs it. Its name is durable once the directory
    /// is synced.
    pub(super) fn write(&self, storage: &dyn Storage, directory: &Path) -> Result<()> {
        let path = directory.join(FILE_NAME);
        let write = || -> io::Result<()> {
            let file = storage.open(&path, OpenMode::Create)?;
            file.write_at(0, &self.encode())?;
            file.sync(SyncPurpose::Checkpoint).wait()
        };
        write().map_err(|error| failed("written", &path, error))
    }

    /// Reads the manifest in `directory`. One that is missing or damaged is [`ErrorKind::Corrupt`].
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, format!("{} {why}", path.display()));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(corrupt("is missing")),
            Err(error) => return Err(failed("read", &path, error)),
        };
        let Some((bytes, checksum)) = bytes.split_last_chunk() else { return Err(corrupt("is too short")) };
        if crc32fast::hash(bytes) != u32::from_be_bytes(*checksum) {
            return Err(corrupt("has a wrong checksum"));
        }
        Self::decode(bytes).ok_or_else(|| corrupt("is of another form or version"))
    }

    /// Compares the files in `directory` with what the manifest says of them, one after the other until it is to
    /// stop.
    pub(super) fn verify(&self, directory: &Path, is_stopping: &dyn Fn() -> bool) -> Result<()> {
        for expected in &self.files {
            if is_stopping() {
                return Err(Error::new(ErrorKind::Stopped, "stopped while a checkpoint was verified"));
            }
            let path = directory.join(&expected.name);
            let corrupt = |why: String| Error::new(ErrorKind::Corrupt, format!("{} {why}", path.display()));
            let found = match describe(&path, expected.name.clone()) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(corrupt("is missing".to_owned()));
                }
                Err(error) => return Err(failed("read", &path, error)),
            };
            if found != *expected {
                return Err(corrupt(format!(
                    "has {} bytes with checksum {:08x}; the manifest says {} with {:08x}",
                    found.size, found.checksum, expected.size, expected.checksum
                )));
            }
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&(self.files.len() as u32).to_be_bytes());
        for file in &self.files {
            bytes.extend_from_slice(&(file.name.len() as u16).to_be_bytes());
            bytes.extend_from_slice(file.name.as_bytes());
            bytes.extend_from_slice(&file.size.to_be_bytes());
            bytes.extend_from_slice(&file.checksum.to_be_bytes());
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_be_bytes())?;
        let (count, mut rest) = rest.split_first_chunk()?;
        let mut files = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let (length, behind) = rest.split_first_chunk()?;
            let (name, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (size, behind) = behind.split_first_chunk()?;
            let (checksum, behind) = behind.split_first_chunk()?;
            files.push(ManifestFile {
                name: std::str::from_utf8(name).ok()?.to_owned(),
                size: u64::from_be_bytes(*size),
                checksum: u32::from_be_bytes(*checksum),
            });
            rest = behind;
        }
        rest.is_empty().then_some(Self { files })
    }
}

fn describe(path: &Path, name: String) -> io::Result<ManifestFile> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(ManifestFile { name, size, checksum: hasher.finalize() });
        }
        hasher.update(&chunk[..read]);
        size += read as u64;
    }
}
