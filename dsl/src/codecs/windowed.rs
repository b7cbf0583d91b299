use std::sync::Arc;

use jiff::Timestamp as Utc;
use lotic_engine::window::Windowed;
use lotic_log::Timestamp;

use super::{Codec, CodecError, CodecId};

/// The key of a window's result: the window's start, a bar, and the key as its own codec writes it, for
/// instance `2013-01-01T10:00:00Z|UA`. So the newest record of a key is the newest result of that window.
pub struct WindowedKey<K> {
    key: Arc<dyn Codec<K>>,
    size_ms: i64,
}

impl<K> WindowedKey<K> {
    /// For windows of `size_ms` milliseconds, over keys that `key` writes.
    pub fn new(key: Arc<dyn Codec<K>>, size_ms: i64) -> Self {
        Self { key, size_ms }
    }
}

impl<K: 'static> Codec<Windowed<K>> for WindowedKey<K> {
    fn id(&self) -> CodecId {
        let CodecId { name, version } = self.key.id();
        let name = match name {
            "text" => "window-text",
            "json" => "window-json",
            "postcard" => "window-postcard",
            "utf8" => "window-utf8",
            "bytes" => "window-bytes",
            _ => "window-custom",
        };
        CodecId { name, version }
    }

    fn encode(&self, value: &Windowed<K>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = Utc::from_millisecond(value.start.0)
            .map_err(|error| CodecError::caused(format!("window start {} ms", value.start), error))?;
        out.extend_from_slice(start.to_string().as_bytes());
        out.push(b'|');
        self.key.encode(&value.key, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Windowed<K>, CodecError> {
        let malformed = || CodecError::new("a window's key is its start, a bar and the key");
        let bar = bytes.iter().position(|byte| *byte == b'|').ok_or_else(malformed)?;
        let (start, key) = (&bytes[..bar], &bytes[bar + 1..]);
        let start = std::str::from_utf8(start).map_err(|_| malformed())?;
        let start: Utc = start.parse().map_err(|error| CodecError::caused("a window's start", error))?;
        let start = start.as_millisecond();
        let end = Timestamp(start.saturating_add(self.size_ms));
        Ok(Windowed { key: self.key.decode(key)?, start: Timestamp(start), end })
    }
}
