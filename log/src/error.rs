//! The one error of this crate: what kind it is, which thing it is about, and what caused it.

use std::sync::Arc;
use std::{error, fmt, io};

use crate::storage;

/// The result of every fallible operation of the log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, a setting or a record is not acceptable. Fix it; trying again will not help.
    Invalid,
    /// The topic, partition or file does not exist.
    NotFound,
    /// The topic exists already, or exists otherwise than asked for.
    AlreadyExists,
    /// The offset lies before the partition's start or after its end.
    OffsetOutOfRange,
    /// Bytes on disk are not what was written. Nothing behind them is believed or deleted.
    Corrupt,
    /// The disk is full. Free space and reopen.
    Full,
    /// A file could not be opened, as too many are open, in this process or on the machine. Nothing was written or
    /// synced, and nothing is wrong with what was there. Close some or raise the limit, then try again.
    TooManyFiles,
    /// Another producer with this transactional id, or a newer epoch of it, has taken over; or the consumer
    /// is no member of its group any more, or speaks of an earlier generation. What it had is not its own:
    /// stop, or begin again from what was committed.
    Fenced,
    /// A producer's sequence does not follow its last one: records between are missing.
    OutOfOrderSequence,
    /// The transaction is not in a state that allows this.
    TransactionState,
    /// Somebody else holds it: another process or handle the directory, its members a consumer group.
    Locked,
    /// A write or sync of this partition failed before; it refuses writes until it is opened again.
    Poisoned,
    /// The log is closed or the directory was opened read-only.
    Closed,
    /// The format is newer than this version reads, or a codec it does not have.
    Unsupported,
    /// A bounded buffer is full, what was to be read is being changed, or something comes first, such as a
    /// poll. Try again.
    Retry,
    /// A deadline passed. The message says whether what was asked for may happen all the same.
    Timeout,
    /// The operating system refused a read or write for another reason.
    Io,
}

/// Why an operation of the log failed. The message names the thing: topic, partition, offset, file.
///
/// A clone is cheap: one failure of the disk is told to everyone who waited for it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    context: String,
    source: Option<Arc<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `context` says which thing and what would have been right.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, context: context.into(), source: None }))
    }

    /// An error of `kind` that `source` caused.
    pub fn caused(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, context: context.into(), source: Some(source.into().into()) }))
    }

    /// An error of the operating system; a full disk, a missing file and too many open ones get their
    /// own kinds.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ if storage::is_too_many_files(&source) => ErrorKind::TooManyFiles,
            _ => ErrorKind::Io,
        };
        Self::caused(kind, context, source)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same error, said of a larger thing: `context` goes in front of what is already said.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.context = format!("{context}: {}", inner.context);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.context)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}
