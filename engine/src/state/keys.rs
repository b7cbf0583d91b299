//! Backend keys: the key group, then what the store puts behind it. Bytes sort as the parts do.

use lotic_log::Timestamp;

use crate::key_group::KeyGroup;

/// The bytes that the key group takes in front of every key.
pub const GROUP_BYTES: usize = 2;

/// Backend keys, back to back: those of one frame, say.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    /// Appends a key of these parts.
    #[inline]
    pub fn push(&mut self, group: KeyGroup, parts: &[&[u8]]) {
        write_key(&mut self.bytes, group, parts);
        self.ends.push(self.bytes.len());
    }

    /// Appends a whole backend key.
    pub fn push_whole(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    /// The keys in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let key = &self.bytes[start..end];
            start = end;
            key
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets the keys and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Appends a backend key of these parts to `out`.
#[inline]
pub fn write_key(out: &mut Vec<u8>, group: KeyGroup, parts: &[&[u8]]) {
    out.extend_from_slice(&group.0.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The key group that a backend key begins with.
pub fn group_of(key: &[u8]) -> KeyGroup {
    KeyGroup(u16::from_be_bytes([key[0], key[1]]))
}

/// A time as eight bytes that sort as times do.
pub fn time_bytes(time: Timestamp) -> [u8; 8] {
    (time.0 ^ i64::MIN).to_be_bytes()
}

/// The time that [`time_bytes`] wrote.
pub fn time_from(bytes: [u8; 8]) -> Timestamp {
    Timestamp(i64::from_be_bytes(bytes) ^ i64::MIN)
}
