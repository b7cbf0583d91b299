//! How a user's type becomes bytes in a topic, in a changelog and in a state store.

use std::{error, fmt};

/// Encodes and decodes `T`. Equal keys must encode to equal bytes: the bytes decide the key group, and
/// they are the key in state.
pub trait Codec<T>: Send + Sync + 'static {
    /// The codec's name and the version of what it writes; it goes into the topology's fingerprint.
    fn id(&self) -> CodecId;

    /// Appends the encoded `value` to `out`.
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a value back from all of `bytes`.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// Names a codec and the version of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodecId {
    /// For instance `json`.
    pub name: &'static str,
    /// Raised when older bytes can no longer be read.
    pub version: u8,
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// Why a value could not be encoded or decoded.
#[derive(Debug)]
pub struct CodecError {
    message: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl CodecError {
    /// An error that says what is wrong with the value or the bytes.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// An error of the library that does the coding.
    pub fn caused(
        message: impl Into<String>,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl error::Error for CodecError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
