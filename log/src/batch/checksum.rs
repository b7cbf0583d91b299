//! The checksum of a batch: CRC-32C of everything behind the field that holds it.

use crc_fast::{CrcAlgorithm, Digest};

use super::header::field;

/// That of the whole batch in `bytes`.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(&bytes[field::ATTRIBUTES..])
}

/// That of a batch which is read piece by piece.
pub(crate) struct PiecewiseChecksum {
    digest: Digest,
    /// How many of its bytes, from its front on, are not covered and still to come.
    uncovered: usize,
}

impl PiecewiseChecksum {
    pub(crate) fn new() -> Self {
        Self { digest: Digest::new(CrcAlgorithm::Crc32Iscsi), uncovered: field::ATTRIBUTES }
    }

    /// Takes in the next bytes of the batch; the first ones are those of its front.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        let skipped = self.uncovered.min(piece.len());
        self.uncovered -= skipped;
        self.digest.update(&piece[skipped..]);
    }

    pub(crate) fn finish(self) -> u32 {
        self.digest.finalize() as u32
    }
}
