use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, CodecId};

/// JSON, by serde: the default for values in topics.
///
/// ```
/// use lotic::codecs::{Codec, Json};
///
/// let mut bytes = Vec::new();
/// Json.encode(&vec![1, 2], &mut bytes)?;
/// assert_eq!(bytes, b"[1,2]");
/// let back: Vec<i32> = Json.decode(&bytes)?;
/// assert_eq!(back, [1, 2]);
/// # Ok::<(), lotic::codecs::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn id(&self) -> CodecId {
        CodecId { name: "json", version: 1 }
    }

    #[inline]
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(out, value).map_err(|error| CodecError::caused("not writable as JSON", error))
    }

    #[inline]
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        // Checked once for the record, not once for each string in it.
        let text =
            str::from_utf8(bytes).map_err(|error| CodecError::caused("not the JSON expected", error))?;
        serde_json::from_str(text).map_err(|error| CodecError::caused("not the JSON expected", error))
    }
}
