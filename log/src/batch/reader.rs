//! Reading batches from bytes, without copying.

use super::checksum::checksum;
use super::header::BatchHeader;
use super::{BatchError, Codec, ControlRecord, DecompressionBuffer, Records, control};

/// One record batch, in bytes that somebody else holds.
#[derive(Clone, Debug)]
pub struct RecordBatch<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> RecordBatch<'a> {
    /// The batch at the front of `bytes`, which may go on behind it. Its header is checked, its
    /// checksum is not.
    ///
    /// # Errors
    /// Those of [`BatchHeader::parse`]; [`BatchError::Incomplete`] if the batch is longer than `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        match bytes.get(..header.length) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Incomplete { needed: header.length }),
        }
    }

    /// Checks the checksum.
    ///
    /// # Errors
    /// [`BatchError::BadChecksum`].
    pub fn verify(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.checksum, checksum(self.bytes));
        if stored == computed { Ok(()) } else { Err(BatchError::BadChecksum { stored, computed }) }
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The bytes of the whole batch, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records, decompressed into `scratch` where they are compressed. They are as good as the
    /// bytes are: a batch not known to be sound is verified first.
    ///
    /// # Errors
    /// [`BatchError::BadCompression`].
    pub fn records<'s>(&'s self, scratch: &'s mut DecompressionBuffer) -> Result<Records<'s>, BatchError> {
        let stored = &self.bytes[BatchHeader::BYTES..];
        let plain = match self.header.codec {
            Codec::None => stored,
            codec => scratch.decompress(codec, stored)?,
        };
        Ok(Records::new(&self.header, plain))
    }

    /// The marker in a control batch.
    ///
    /// # Errors
    /// [`BatchError::BadRecord`] where there is none, or one that is unknown.
    pub fn control(&self) -> Result<ControlRecord, BatchError> {
        control::read(self)
    }
}

/// The batches that stand back to back in a buffer. A batch that the buffer cuts off ends them, silently:
/// whoever must know compares [`Batches::consumed_bytes`] with the buffer's length. After an error there
/// are no more.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
    consumed_bytes: usize,
}

impl<'a> Batches<'a> {
    /// The batches in `bytes`, the first one at its front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, consumed_bytes: 0 }
    }

    /// The position in the buffer behind the last batch that came out.
    pub fn consumed_bytes(&self) -> usize {
        self.consumed_bytes
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<RecordBatch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let parsed = RecordBatch::parse(self.rest);
        match &parsed {
            Ok(batch) => {
                self.rest = &self.rest[batch.header.length..];
                self.consumed_bytes += batch.header.length;
            }
            Err(BatchError::Incomplete { .. }) => {
                self.rest = &[];
                return None;
            }
            Err(_) => self.rest = &[],
        }
        Some(parsed)
    }
}

impl std::iter::FusedIterator for Batches<'_> {}
