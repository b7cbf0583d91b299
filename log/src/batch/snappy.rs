//! Snappy, as Kafka's Java clients frame it and as it is without a frame.
//!
//! The frame is that of the library snappy-java; it is not the one that Snappy's own authors describe.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | magic | `82 53 4e 41 50 50 59 00` |
//! | 8..12 | version | `i32`, 1; some clients write it little-endian, so it is not looked at |
//! | 12..16 | lowest compatible version | likewise |
//! | 16.. | blocks | each a length (`i32`, big-endian) and so many bytes of raw Snappy |
//!
//! A frame may be followed by another. Clients that are not Java's write raw Snappy: one block and no
//! length in front.

use std::io;

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::decompression::too_many;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const VERSION: i32 = 1;
const HEADER_BYTES: usize = 16;

/// How much goes into a block: what snappy-java takes unless it is told otherwise.
const BLOCK_BYTES: usize = 32 << 10;

/// Writes frames; keeps its tables between them.
pub(super) struct SnappyCompressor {
    encoder: Encoder,
}

impl SnappyCompressor {
    pub(super) fn new() -> Self {
        Self { encoder: Encoder::new() }
    }

    /// Appends `plain` in a frame to `out`.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&VERSION.to_be_bytes());
        for block in plain.chunks(BLOCK_BYTES) {
            let start = out.len();
            let content = start + size_of::<i32>();
            out.resize(content + max_compress_len(block.len()), 0);
            let bytes = self.encoder.compress(block, &mut out[content..]);
            let bytes = bytes.expect("a block is small, and there is the room that it may need");
            out[start..content].copy_from_slice(&(bytes as i32).to_be_bytes());
            out.truncate(content + bytes);
        }
    }
}

/// Appends what `compressed` holds, framed or not, to `plain`, which is never made longer than `bytes_max`.
///
/// # Errors
/// `InvalidData` if it is no Snappy, is cut off or holds more.
pub(super) fn decompress(compressed: &[u8], bytes_max: usize, plain: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut rest) = strip_header(compressed) else {
        return decompress_block(compressed, bytes_max, plain);
    };
    while !rest.is_empty() {
        if let Some(next_frame) = strip_header(rest) {
            rest = next_frame;
            continue;
        }
        let (block, behind) = split_block(rest).ok_or_else(|| invalid("a block is cut off"))?;
        decompress_block(block, bytes_max, plain)?;
        rest = behind;
    }
    Ok(())
}

/// What follows the header of a frame; `None` where there is none.
fn strip_header(bytes: &[u8]) -> Option<&[u8]> {
    bytes.starts_with(&MAGIC).then(|| bytes.get(HEADER_BYTES..))?
}

fn split_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(i32::from_be_bytes(*length)).ok()?)
}

fn decompress_block(block: &[u8], bytes_max: usize, plain: &mut Vec<u8>) -> io::Result<()> {
    let start = plain.len();
    let bytes = decompress_len(block).map_err(invalid)?;
    if bytes > bytes_max - start {
        return Err(too_many(bytes_max));
    }
    plain.resize(start + bytes, 0);
    Decoder::new().decompress(block, &mut plain[start..]).map_err(invalid)?;
    Ok(())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
