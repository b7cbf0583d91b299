//! The one error of this crate: what kind it is, which thing it is about, and what caused it.

use std::path::Path;
use std::{error, fmt, io};

/// The result of every fallible operation of a connector.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, a header or a row type does not fit the input. Fix it; trying again will not help.
    Invalid,
    /// The file or folder does not exist.
    NotFound,
    /// The input is not the one that was read before: it begins otherwise. Nothing was changed.
    Changed,
    /// A row could not be decoded, and the policy says to fail.
    Malformed,
    /// The disk is full. Free space and start again.
    Full,
    /// The operating system refused a read or write.
    Io,
}

/// Why a connector failed. The message names the thing: file, line, column, setting.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `context` says which thing and what would have been right.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, context: context.into(), source: None }))
    }

    /// An error of `kind` that `source` caused.
    pub fn caused(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        Self(Box::new(Inner { kind, context: context.into(), source: Some(source.into()) }))
    }

    /// `action` on the file or folder `path` failed; a full disk and a missing file get their own kinds.
    pub(crate) fn io(action: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Self::caused(kind, format!("cannot {action} {}", path.display()), source)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl From<Error> for lotic_engine::error::Error {
    fn from(error: Error) -> Self {
        use lotic_engine::error::ErrorKind as Engine;
        let kind = match error.kind() {
            ErrorKind::Invalid | ErrorKind::NotFound => Engine::Invalid,
            ErrorKind::Changed => Engine::Incompatible,
            ErrorKind::Malformed => Engine::Decode,
            ErrorKind::Full => Engine::Full,
            ErrorKind::Io => Engine::Io,
        };
        Self::new(kind, error.to_string())
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
