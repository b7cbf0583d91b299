//! How the records of a batch are compressed, on the way in and on the way out.

use std::fmt;
use std::io::{Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::{BATCH_BYTES_MAX, BatchError};

/// How a producer compresses the records of its batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 frames, as Kafka writes them: independent blocks, no content checksum.
    Lz4,
    /// Zstandard.
    Zstd {
        /// From 1 (fast) to 22 (small); 0 is Zstandard's own default.
        level: i32,
    },
}

/// How the records of a batch are compressed: the codecs that Kafka has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// Known by name only: cannot be read.
    Gzip = 1,
    /// Known by name only: cannot be read.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard frames.
    Zstd = 4,
}

impl Codec {
    pub(super) fn from_id(id: u8) -> Result<Self, BatchError> {
        match id {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            _ => Err(BatchError::BadField { field: "compression codec", value: i64::from(id) }),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Compresses one batch after the other; keeps the compressor's tables between them.
pub(super) enum Compressor {
    None,
    Lz4,
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd { level } => Self::Zstd(
                zstd::bulk::Compressor::new(level)
                    .expect("zstd brings any level into its range; only a lack of memory fails"),
            ),
        }
    }

    pub(super) fn codec(&self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd(_) => Codec::Zstd,
        }
    }

    /// Appends `plain` compressed to `out`. `Codec::None` appends it as it is.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::None => out.extend_from_slice(plain),
            Self::Lz4 => compress_lz4(plain, out),
            Self::Zstd(compressor) => {
                let start = out.len();
                let bound = zstd::zstd_safe::compress_bound(plain.len());
                out.reserve(bound);
                let mut tail = std::io::Cursor::new(std::mem::take(out));
                tail.set_position(start as u64);
                compressor
                    .compress_to_buffer(plain, &mut tail)
                    .expect("the buffer has the room that zstd may need");
                *out = tail.into_inner();
            }
        }
    }
}

fn compress_lz4(plain: &[u8], out: &mut Vec<u8>) {
    let block_size = if plain.len() > 256 << 10 {
        BlockSize::Max1MB
    } else if plain.len() > 64 << 10 {
        BlockSize::Max256KB
    } else {
        BlockSize::Max64KB
    };
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(block_size);
    let mut encoder = FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(plain).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail");
}

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
            Codec::Lz4 => self.decompress_lz4(compressed),
            Codec::Zstd => self.decompress_zstd(compressed),
            Codec::None | Codec::Gzip | Codec::Snappy => return Err(BatchError::Unsupported(codec)),
        };
        outcome.map_err(|error| BatchError::BadCompression { codec, reason: error.to_string() })?;
        Ok(&self.plain)
    }

    fn decompress_lz4(&mut self, compressed: &[u8]) -> std::io::Result<()> {
        let mut bounded = FrameDecoder::new(compressed).take(self.bytes_max as u64 + 1);
        bounded.read_to_end(&mut self.plain)?;
        self.check_bound()
    }

    fn decompress_zstd(&mut self, compressed: &[u8]) -> std::io::Result<()> {
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

    fn run_zstd(&mut self, decoder: &mut Decoder<'static>, compressed: &[u8]) -> std::io::Result<()> {
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
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the frame is cut off"));
            }
            if self.plain.len() == self.plain.capacity() {
                self.plain.reserve(self.plain.capacity().max(64 << 10));
            }
        }
    }

    fn check_bound(&self) -> std::io::Result<()> {
        if self.plain.len() <= self.bytes_max {
            return Ok(());
        }
        let message = format!("more than {} bytes come out", self.bytes_max);
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message))
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
