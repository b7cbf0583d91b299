//! How rows and keys become bytes: in topics, and in the stores of stateful steps.
//!
//! | codec | for | bytes |
//! |---|---|---|
//! | [`Json`] | values in topics, by default | JSON of anything that serde serializes |
//! | [`Text`] | keys, by default | a string as it is, a number in digits, anything else as JSON |
//! | [`Postcard`] | state, by default | compact binary of anything that serde serializes |
//! | [`Utf8`] | text | a `String` as it is |
//! | [`RawBytes`] | what others encoded | the bytes as they are |

mod json;
mod postcard;
mod raw_bytes;
mod text;
mod utf8;
mod windowed;

pub use json::Json;
pub use lotic_engine::codec::{Codec, CodecError, CodecId};
pub use postcard::Postcard;
pub use raw_bytes::RawBytes;
pub use text::Text;
pub use utf8::Utf8;
pub use windowed::WindowedKey;

#[cfg(test)]
mod tests;
