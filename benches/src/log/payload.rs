//! What the records hold: lines of JSON, drawn from some thousand different ones, the same for all sides.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::Failure;

/// Where what is drawn begins.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Different values.
const LINES: usize = 5_000;

/// What fills the text of a line: compresses as prose does.
const WORDS: [&str; 24] = [
    "river", "stone", "departed", "late", "the", "of", "gate", "fog", "north", "wind", "and", "landed", "on",
    "time", "cargo", "delayed", "runway", "for", "hours", "crew", "in", "clear", "sky", "storm",
];

/// Writes lines of exactly so many bytes each.
pub(crate) fn write(path: &Path, bytes: usize) -> Result<(), Failure> {
    let mut state = SEED;
    let lines: Vec<String> = (0..LINES).map(|index| line(index, bytes, &mut state)).collect();
    Ok(fs::write(path, lines.join("\n"))?)
}

/// The lines that were written.
pub(crate) fn read(path: &Path) -> Result<Vec<Bytes>, Failure> {
    let text = fs::read(path)?;
    Ok(text.split(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect())
}

/// Draws from `lines` for ever, as Kafka's tool does: in turn, every batch would compress into one copy of
/// the lines and the places of their repetitions.
pub(crate) fn drawn(lines: &[Bytes]) -> impl Iterator<Item = Bytes> + '_ {
    let mut state = SEED;
    std::iter::repeat_with(move || lines[(next(&mut state) % lines.len() as u64) as usize].clone())
}

fn line(index: usize, bytes: usize, state: &mut u64) -> String {
    let mut line = format!("{{\"id\":{index},\"amount\":{},\"text\":\"", next(state) % 1_000_000);
    while line.len() + 2 < bytes {
        line.push_str(WORDS[(next(state) % WORDS.len() as u64) as usize]);
        line.push(' ');
    }
    line.truncate(bytes - 2);
    line.push_str("\"}");
    line
}

/// Xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
