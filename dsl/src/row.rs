//! What can be a row, a key, and a value that is written somewhere.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use lotic_engine::frame::Data;

/// A type that keys a stream with the default codec: anything that serde reads and writes.
///
/// Keys are compared by their bytes: equal keys must be written equally, which rules out a `HashMap`
/// in a key.
pub trait Key: Data + Serialize + DeserializeOwned {}

impl<T: Data + Serialize + DeserializeOwned> Key for T {}

/// A type that is written to topics or kept in state with the default codecs: anything that serde reads
/// and writes.
pub trait Value: Data + Serialize + DeserializeOwned {}

impl<T: Data + Serialize + DeserializeOwned> Value for T {}
