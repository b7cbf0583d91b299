//! The changes that one epoch makes to one store, encoded: what goes to the changelog goes to the backend.

/// Puts and deletes of distinct keys, back to back in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    bytes: Vec<u8>,
    writes: Vec<Ends>,
}

/// Where a write ends in the buffer; it begins where the one before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    key: usize,
    /// `None`: the key is deleted.
    value: Option<usize>,
}

impl WriteSet {
    /// Adds a put of what `encode` appends to the buffer it is given; says how many bytes that were.
    pub fn put_with<E>(
        &mut self,
        key: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        if let Err(error) = encode(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let value_end = self.bytes.len();
        self.writes.push(Ends { key: key_end, value: Some(value_end) });
        Ok(value_end - key_end)
    }

    /// Adds a put.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.writes.push(Ends { key: key_end, value: Some(self.bytes.len()) });
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.writes.push(Ends { key: self.bytes.len(), value: None });
    }

    /// The keys with their new values, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.writes.iter().map(move |ends| {
            let key = &self.bytes[start..ends.key];
            let value = ends.value.map(|end| &self.bytes[ends.key..end]);
            start = ends.value.unwrap_or(ends.key);
            (key, value)
        })
    }

    /// How many writes there are.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.writes.capacity() * size_of::<Ends>()
    }
}
