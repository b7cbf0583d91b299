//! Compressing records, on the way in.

use std::io::Write;
use std::sync::Arc;

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use parking_lot::Mutex;

use super::snappy::SnappyCompressor;
use super::{Codec, Compression};

/// The level that gzip and Kafka take where none is asked for.
const GZIP_LEVEL_USUAL: u32 = 6;

/// Compresses one batch after the other; keeps the compressor's tables between them where it can.
pub(super) enum Compressor {
    None,
    Gzip(flate2::Compression),
    Snappy(Box<SnappyCompressor>),
    Lz4,
    Zstd(zstd::bulk::Compressor<'static>),
}

/// One compressor for many builders: its tables, some of them megabytes, are there once.
#[derive(Clone)]
pub(crate) struct SharedCompressor {
    codec: Codec,
    compressor: Arc<Mutex<Compressor>>,
}

impl std::fmt::Debug for SharedCompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedCompressor").field(&self.codec).finish()
    }
}

impl SharedCompressor {
    pub(crate) fn new(compression: Compression) -> Self {
        let compressor = Compressor::new(compression);
        Self { codec: compressor.codec(), compressor: Arc::new(Mutex::new(compressor)) }
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// See [`Compressor::compress`].
    pub(super) fn compress(&self, plain: &[u8], out: &mut Vec<u8>) {
        self.compressor.lock().compress(plain, out);
    }
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> Self {
        match compression.within_range() {
            Compression::None => Self::None,
            Compression::Gzip { level: 0 } => Self::Gzip(flate2::Compression::new(GZIP_LEVEL_USUAL)),
            Compression::Gzip { level } => Self::Gzip(flate2::Compression::new(level as u32)),
            Compression::Snappy => Self::Snappy(Box::new(SnappyCompressor::new())),
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd { level } => Self::Zstd(
                zstd::bulk::Compressor::new(level)
                    .expect("the level is in its range; only a lack of memory fails"),
            ),
        }
    }

    pub(super) fn codec(&self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip(_) => Codec::Gzip,
            Self::Snappy(_) => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd(_) => Codec::Zstd,
        }
    }

    /// Appends `plain` compressed to `out`. `Codec::None` appends it as it is.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::None => out.extend_from_slice(plain),
            Self::Gzip(level) => compress_gzip(*level, plain, out),
            Self::Snappy(compressor) => compressor.compress(plain, out),
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

fn compress_gzip(level: flate2::Compression, plain: &[u8], out: &mut Vec<u8>) {
    let mut encoder = GzEncoder::new(out, level);
    encoder.write_all(plain).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail");
}
