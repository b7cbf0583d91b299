use super::{Codec, CodecError, CodecId};

/// Text as it is, without quotes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Codec<String> for Utf8 {
    fn id(&self) -> CodecId {
        CodecId { name: "utf8", version: 1 }
    }

    fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        let text = std::str::from_utf8(bytes).map_err(|error| CodecError::caused("not UTF-8", error))?;
        Ok(text.to_owned())
    }
}
