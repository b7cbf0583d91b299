use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, CodecId};

/// Postcard, by serde: compact binary without field names, the default for state.
///
/// The bytes do not describe themselves: fields are read back in the order in which the type declares
/// them, so a type whose fields change can no longer read what was written before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn id(&self) -> CodecId {
        CodecId { name: "postcard", version: 1 }
    }

    #[inline]
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        ::postcard::serialize_with_flavor(value, Append(out))
            .map_err(|error| CodecError::caused("not writable as postcard", error))
    }

    #[inline]
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let (value, rest) = ::postcard::take_from_bytes(bytes)
            .map_err(|error| CodecError::caused("not the postcard expected", error))?;
        if !rest.is_empty() {
            let whole = bytes.len();
            return Err(CodecError::new(format!("{} of {whole} postcard bytes are left over", rest.len())));
        }
        Ok(value)
    }
}

/// Writes at the end of a vector that holds other things already.
struct Append<'a>(&'a mut Vec<u8>);

impl ::postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> ::postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> ::postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> ::postcard::Result<()> {
        Ok(())
    }
}
