//! Reading the values that Kafka keeps in its internal topics.
//!
//! A message has a version. From some version on it is *flexible*: lengths are varints of the length plus
//! one (0 for null), and tagged fields follow each structure: their count, and for each a tag, a length
//! (plain varints) and so many bytes. Before that, lengths are plain integers and -1 is null. All other
//! numbers are big-endian. From the source: Kafka's `ByteBufferAccessor` and KIP-482.

/// The bytes of a message that are left to read. What cannot be read is `None`, and the message is then
/// not to be believed.
pub(crate) struct MessageReader<'a>(&'a [u8]);

impl<'a> MessageReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A string of so many bytes.
    pub(crate) fn string(&mut self, length: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// A length, read by `plain` where the message is not flexible; `None` within for null.
    pub(crate) fn length(
        &mut self,
        is_flexible: bool,
        plain: impl FnOnce(&mut Self) -> Option<i32>,
    ) -> Option<Option<usize>> {
        if is_flexible {
            return Some(self.varint()?.checked_sub(1).map(|length| length as usize));
        }
        Some(usize::try_from(plain(self)?).ok())
    }

    /// A string with its length; `None` within for null.
    pub(crate) fn nullable_text(&mut self, is_flexible: bool) -> Option<Option<&'a str>> {
        match self.length(is_flexible, |input| input.i16().map(i32::from))? {
            Some(length) => self.string(length).map(Some),
            None => Some(None),
        }
    }

    /// The tagged fields that follow a structure of a flexible message.
    pub(crate) fn tagged_fields(&mut self, mut visit: impl FnMut(u32, &'a [u8])) -> Option<()> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()?;
            visit(tag, self.take(length as usize)?);
        }
        Some(())
    }

    pub(crate) fn skip_tagged_fields(&mut self) -> Option<()> {
        self.tagged_fields(|_, _| {})
    }
}
