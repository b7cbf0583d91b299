//! The one error of this crate: what kind it is, which thing it is about, and what caused it.

use std::{error, fmt};

/// The result of every fallible operation of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program or a setting is wrong. Fix it; running again will not help.
    Invalid,
    /// What is in the directory was made by another program: a topic with another partition count or id,
    /// another topology, a file with another beginning. Nothing was changed.
    Incompatible,
    /// A record or row could not be decoded, and the policy says to fail.
    Decode,
    /// Bytes on disk are not what was written.
    Corrupt,
    /// Another processor has taken this one's transactional id. Stop.
    Fenced,
    /// The disk is full. Free space and start again; nothing committed is lost.
    Full,
    /// Another process holds the directory.
    Locked,
    /// The outcome of a commit is not known. Start again: recovery finds out.
    Unknown,
    /// Start again from the last committed epoch.
    Restart,
    /// It was told to stop before it had begun. Nothing is wrong; the next start begins where this one did.
    Stopped,
    /// The operating system refused a read or write.
    Io,
    /// A user's operator, source or sink failed.
    User,
}

/// Why the engine stopped. The message names the thing: step, store, topic, partition, offset, file.
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

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same error, said of a larger thing: `context` goes in front of what is already said.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.0.context = format!("{context}: {}", self.0.context);
        self
    }
}

impl From<lotic_log::Error> for Error {
    fn from(error: lotic_log::Error) -> Self {
        use lotic_log::ErrorKind as Log;
        let kind = match error.kind() {
            Log::Invalid | Log::NotFound | Log::AlreadyExists | Log::Unsupported => ErrorKind::Invalid,
            Log::Corrupt => ErrorKind::Corrupt,
            Log::Full => ErrorKind::Full,
            Log::Fenced => ErrorKind::Fenced,
            Log::Locked => ErrorKind::Locked,
            Log::Poisoned => ErrorKind::Unknown,
            Log::Io => ErrorKind::Io,
            _ => ErrorKind::Restart,
        };
        let context = error.to_string();
        Self(Box::new(Inner { kind, context, source: None }))
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
