//! Where a record ends and its fields lie.

use std::fmt;

use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};
use memchr::{memchr, memchr_iter};

use crate::error::Result;
use crate::files::input::{Extent, Input, without_line_end};
use crate::files::reader::Ending;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What stands at the front of the input.
pub(super) enum Found<'a> {
    /// A record.
    Record { extent: Extent, record: Record<'a> },
    /// A line with a quote that nothing closes, neither in it nor behind it. The record is taken to be this line
    /// alone, so that one stray quote costs one row and not the rest of the file.
    Unclosed { extent: Extent },
}

/// The fields of one record, quotes removed.
pub(super) struct Record<'a> {
    text: &'a [u8],
    /// Where each field ends in `text`.
    ends: &'a [usize],
    /// Bytes between two fields: the delimiter, or nothing where quotes were removed.
    gap: usize,
}

impl<'a> Record<'a> {
    #[inline]
    pub(super) fn field_count(&self) -> usize {
        self.ends.len()
    }

    /// The record as text, checked once for all its fields.
    ///
    /// # Errors
    /// The column of the first byte that is not UTF-8.
    #[inline]
    pub(super) fn fields(&self) -> Result<Fields<'a>, usize> {
        match str::from_utf8(self.text) {
            Ok(text) => Ok(Fields { text, ends: self.ends, gap: self.gap }),
            Err(error) => Err(self.ends.partition_point(|&end| end <= error.valid_up_to())),
        }
    }
}

/// The fields of one record as text.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    text: &'a str,
    ends: &'a [usize],
    gap: usize,
}

impl<'a> Fields<'a> {
    /// The field in column `index`.
    #[inline]
    pub(super) fn get(&self, index: usize) -> &'a str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] + self.gap };
        &self.text[start..self.ends[index]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a str> {
        (0..self.ends.len()).map(|index| self.get(index))
    }
}

/// Splits the input into records.
pub(super) struct Splitter {
    delimiter: u8,
    ends: Vec<usize>,
    core: csv_core::Reader,
    unquoted: Vec<u8>,
    unquoted_ends: Vec<usize>,
}

impl Splitter {
    pub(super) fn new(delimiter: u8) -> Self {
        let core = ReaderBuilder::new().delimiter(delimiter).terminator(Terminator::Any(b'\n')).build();
        Self { delimiter, ends: Vec::new(), core, unquoted: vec![0; 1024], unquoted_ends: vec![0; 64] }
    }

    /// The first record; a byte order mark before it is consumed.
    pub(super) fn header<'a>(&'a mut self, input: &'a mut Input) -> Result<Option<Found<'a>>> {
        input.line()?;
        if input.unread().starts_with(BYTE_ORDER_MARK) {
            input.consume(Extent { bytes: BYTE_ORDER_MARK.len(), lines: 0 });
        }
        self.next(input)
    }

    /// The next record, or `None` at the present end of the file. Blank lines are consumed.
    #[inline]
    pub(super) fn next<'a>(&'a mut self, input: &'a mut Input) -> Result<Option<Found<'a>>> {
        let Some(extent) = line_with_content(input)? else { return Ok(None) };
        if memchr(b'"', &input.unread()[..extent.bytes]).is_some() {
            return self.quoted(input, extent);
        }
        let text = without_line_end(&input.unread()[..extent.bytes]);
        let ends = find_ends(text, self.delimiter, &mut self.ends);
        Ok(Some(Found::Record { extent, record: Record { text, ends, gap: 1 } }))
    }

    /// A record whose first line, `line`, has a quote: it may go on over several lines.
    #[cold]
    fn quoted<'a>(&'a mut self, input: &'a mut Input, line: Extent) -> Result<Option<Found<'a>>> {
        let mut is_ended = false;
        let (bytes, field_count) = loop {
            match self.unquote(input.unread(), is_ended) {
                Some(found) => break found,
                None if is_ended || input.is_over_the_limit() => {
                    return Ok(Some(Found::Unclosed { extent: line }));
                }
                None if !input.fill()? => match input.ending() {
                    Ending::Growing => return Ok(None),
                    Ending::Final => is_ended = true,
                },
                None => {}
            }
        };
        let raw = &input.unread()[..bytes];
        let extent = Extent { bytes, lines: memchr_iter(b'\n', raw).count().max(1) as u64 };
        let mut text_bytes = self.unquoted_ends[..field_count].last().copied().unwrap_or(0);
        if raw.ends_with(b"\r\n") {
            // Only `\n` ends a record for csv-core, so the last field has the `\r`.
            text_bytes -= 1;
            self.unquoted_ends[field_count - 1] = text_bytes;
        }
        let (text, ends) = (&self.unquoted[..text_bytes], &self.unquoted_ends[..field_count]);
        Ok(Some(Found::Record { extent, record: Record { text, ends, gap: 0 } }))
    }

    /// Reads the record at the front of `bytes`: the bytes it takes, and its number of fields. `None` if it goes
    /// on behind them; where they are the last of the file, they are taken to end with a line end.
    fn unquote(&mut self, bytes: &[u8], is_ended: bool) -> Option<(usize, usize)> {
        self.core.reset();
        let (mut taken, mut text_bytes, mut field_count) = (0, 0, 0);
        let mut rest = bytes;
        let mut line_end: &[u8] = if is_ended && !bytes.ends_with(b"\n") { b"\n" } else { b"" };
        loop {
            let text = &mut self.unquoted[text_bytes..];
            let ends = &mut self.unquoted_ends[field_count..];
            let (result, read, written, ended) = self.core.read_record(rest, text, ends);
            taken += read;
            text_bytes += written;
            field_count += ended;
            rest = &rest[read..];
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => {
                    return Some((taken.min(bytes.len()), field_count));
                }
                ReadRecordResult::OutputFull => self.unquoted.resize(self.unquoted.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => {
                    self.unquoted_ends.resize(self.unquoted_ends.len() * 2, 0);
                }
                ReadRecordResult::InputEmpty if line_end.is_empty() => return None,
                ReadRecordResult::InputEmpty => rest = std::mem::take(&mut line_end),
            }
        }
    }
}

impl Clone for Splitter {
    /// A splitter for the same format that has read nothing.
    fn clone(&self) -> Self {
        Self::new(self.delimiter)
    }
}

impl fmt::Debug for Splitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splitter").field("delimiter", &(self.delimiter as char)).finish_non_exhaustive()
    }
}

/// The next line that is not blank. Blank lines before it are consumed.
#[inline]
fn line_with_content(input: &mut Input) -> Result<Option<Extent>> {
    while let Some(extent) = input.line()? {
        if !without_line_end(&input.unread()[..extent.bytes]).is_empty() {
            return Ok(Some(extent));
        }
        input.consume(extent);
    }
    Ok(None)
}

/// Bytes that are looked at together.
const WORD_BYTES: usize = size_of::<u64>();

/// The lowest bit of each byte of a word.
const ONES: u64 = u64::MAX / 0xff;

/// The bits of a byte but its highest.
const LOW_BITS: u64 = ONES * 0x7f;

/// Finds where each field of `text` ends; `places` is memory to reuse.
///
/// Fields are a few bytes long, so a search for each delimiter would cost more than it skips: a word is compared
/// with the delimiter at once, and only what it found is gone through.
#[inline]
fn find_ends<'p>(text: &[u8], delimiter: u8, places: &'p mut Vec<usize>) -> &'p [usize] {
    if places.len() <= text.len() {
        places.resize(text.len() + 1, 0);
    }
    let ends = &mut places[..=text.len()];
    let mut count = 0;
    let (words, rest) = text.as_chunks::<WORD_BYTES>();
    let pattern = ONES * u64::from(delimiter);
    for (index, word) in words.iter().enumerate() {
        let mut found = zero_bytes(u64::from_le_bytes(*word) ^ pattern);
        while found != 0 {
            ends[count] = index * WORD_BYTES + found.trailing_zeros() as usize / 8;
            count += 1;
            found &= found - 1;
        }
    }
    let rest_start = text.len() - rest.len();
    for (at, _) in rest.iter().enumerate().filter(|&(_, &byte)| byte == delimiter) {
        ends[count] = rest_start + at;
        count += 1;
    }
    ends[count] = text.len();
    &ends[..=count]
}

/// The highest bit of each byte of `word` that is zero. Exact for every byte: no carry leaves one.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    !(((word & LOW_BITS) + LOW_BITS) | word | LOW_BITS)
}
