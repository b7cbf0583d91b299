//! Decompressing records, on the way out.

use io::Read;
use std::{fmt, io};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::{BATCH_BYTES_MAX, BatchError, Codec, snappy};

/// The room that records are decompressed into; kept and reused from batch to batch. It never grows
/// past [`BATCH_BYTES_MAX`] by more than a step.
pub struct DecompressionBuffer {
    plain: Vec<u8>,
    zstd: Option<Decoder<'static>>,
    bytes_max: usize,
}

impl DecompressionBuffer {
    /// A buffer that holds nothing and grows when it is first needed.
    pub fn new() -> Self {
        Self::bounded(BATCH_BYTES_MAX)
    }

    pub(super) fn bounded(bytes_max: usize) -> Self {
        Self { plain: Vec::new(), zstd: None, bytes_max }
    }

    /// Decompresses `compressed`, replacing what the buffer held.
    pub(super) fn decompress(&mut self, codec: Codec, compressed: &[u8]) -> Result<&[u8], BatchError> {
        self.plain.clear();
        let outcome = match codec {
            Codec::None => self.read_bounded(compressed),
            Codec::Gzip => self.read_bounded(MultiGzDecoder::new(compressed)),
            Codec::Snappy => snappy::decompress(compressed, self.bytes_max, &mut self.plain),
            Codec::Lz4 => self.read_bounded(FrameDecoder::new(compressed)),
            Codec::Zstd => self.decompress_zstd(compressed),
        };
        outcome.map_err(|error| BatchError::BadCompression { codec, reason: error.to_string() })?;
        Ok(&self.plain)
    }

    fn read_bounded(&mut self, decoder: impl Read) -> io::Result<()> {
        decoder.take(self.bytes_max as u64 + 1).read_to_end(&mut self.plain)?;
        self.check_bound()
    }

    fn decompress_zstd(&mut self, compressed: &[u8]) -> io::Result<()> {
        let mut decoder = match self.zstd.take() {
            Some(mut decoder) => {
                decoder.reinit()?;
                decoder
            }
            None => Decoder::new()?,
        };
        let outcome = self.run_zstd(&mut decoder, compressed);
        self.zstd = Some(decoder);
        outcome
    }

    fn run_zstd(&mut self, decoder: &mut Decoder<'static>, compressed: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(compressed);
        self.plain.reserve(first_guess(compressed).min(self.bytes_max));
        loop {
            let written = self.plain.len();
            let mut output = OutBuffer::around_pos(&mut self.plain, written);
            // The hint is how much more input the frame wants; 0 at its end.
            let hint = decoder.run(&mut input, &mut output)?;
            self.check_bound()?;
            if hint == 0 && input.pos == compressed.len() {
                return Ok(());
            }
            let stuck = self.plain.len() < self.plain.capacity() && input.pos == compressed.len();
            if stuck {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the frame is cut off"));
            }
            if self.plain.len() == self.plain.capacity() {
                self.plain.reserve(self.plain.capacity().max(64 << 10));
            }
        }
    }

    fn check_bound(&self) -> io::Result<()> {
        if self.plain.len() <= self.bytes_max { Ok(()) } else { Err(too_many(self.bytes_max)) }
    }
}

impl Default for DecompressionBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DecompressionBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecompressionBuffer")
            .field("capacity", &self.plain.capacity())
            .finish_non_exhaustive()
    }
}

/// The size that the frame states for its content (it need not, and may lie), or a usual ratio.
fn first_guess(compressed: &[u8]) -> usize {
    match zstd::zstd_safe::get_frame_content_size(compressed) {
        Ok(Some(size)) => usize::try_from(size).unwrap_or(usize::MAX),
        _ => compressed.len().saturating_mul(4),
    }
}

/// More than `bytes_max` bytes would come out.
pub(super) fn too_many(bytes_max: usize) -> io::Error {
    let message = format!("more than {bytes_max} bytes come out");
    io::Error::new(io::ErrorKind::InvalidData, message)
}
