use bytes::Bytes;

use super::{Codec, CodecError, CodecId};

/// Bytes that someone else encoded, as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawBytes;

impl RawBytes {
    const ID: CodecId = CodecId { name: "bytes", version: 1 };
}

impl Codec<Vec<u8>> for RawBytes {
    fn id(&self) -> CodecId {
        Self::ID
    }

    fn encode(&self, value: &Vec<u8>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl Codec<Bytes> for RawBytes {
    fn id(&self) -> CodecId {
        Self::ID
    }

    fn encode(&self, value: &Bytes, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}
