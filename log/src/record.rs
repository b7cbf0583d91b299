//! Records and the numbers that name their place: newtypes, so that an offset is never passed where
//! a partition or a time is meant.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The place of a record in its partition: 0 for the first, one more for each that follows.
    Offset(i64)
}
number! {
    /// The number of a partition in its topic, from 0.
    PartitionId(i32)
}
number! {
    /// Milliseconds since 1970-01-01T00:00:00Z, as in a Kafka record.
    Timestamp(i64)
}
number! {
    /// Names a producer for idempotence and transactions.
    ProducerId(i64)
}
number! {
    /// Tells a producer's transactions (and the producers that shared an id) apart; the higher one wins.
    ProducerEpoch(i16)
}
number! {
    /// A producer's count of the records it wrote to one partition in one producer epoch; wraps at `i32::MAX`.
    Sequence(i32)
}
number! {
    /// The reign of a partition's leader. Embedded it stays 0; it never decreases.
    LeaderEpoch(i32)
}

impl Offset {
    /// The offset `count` records further on.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }
}

impl ProducerId {
    /// No producer: the record was written without idempotence.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// The epoch that goes with [`ProducerId::NONE`].
    pub const NONE: Self = Self(-1);
}

impl Sequence {
    /// The sequence that goes with [`ProducerId::NONE`].
    pub const NONE: Self = Self(-1);

    /// The sequence `count` records further on. After `i32::MAX` comes 0.
    #[must_use]
    pub const fn plus(self, count: i32) -> Self {
        Self(((self.0 as i64 + count as i64) % (i32::MAX as i64 + 1)) as i32)
    }

    /// Whether it comes before `other`, on the shorter way round.
    pub(crate) const fn is_before(self, other: Self) -> bool {
        let ahead = (other.0 as i64 - self.0 as i64).rem_euclid(i32::MAX as i64 + 1);
        0 < ahead && ahead <= i32::MAX as i64 / 2
    }
}

/// The identity of a topic: two topics of one name, made one after the other, have different ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

impl fmt::Display for TopicId {
    /// Kafka's form: the 16 bytes as URL-safe base64 without padding, 22 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = self.0.as_u128();
        for character in 0..22 {
            // 132 bits in 22 characters: the last character carries four padding bits.
            let shift = 128 - 6 * (character + 1);
            let six = if shift >= 0 { bits >> shift } else { bits << -shift } & 0x3f;
            write!(f, "{}", ALPHABET[six as usize] as char)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<Self, InvalidTopicId> {
        if text.len() != 22 {
            return Err(InvalidTopicId);
        }
        let mut bits = 0u128;
        for (index, byte) in text.bytes().enumerate() {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return Err(InvalidTopicId),
            };
            if index < 21 {
                bits = bits << 6 | u128::from(six);
            } else if six & 0x0f != 0 {
                return Err(InvalidTopicId);
            } else {
                bits = bits << 2 | u128::from(six >> 4);
            }
        }
        Ok(Self(Uuid::from_u128(bits)))
    }
}

/// A text that is not a topic id in Kafka's form.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidTopicId;

impl fmt::Display for InvalidTopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a topic id is 22 characters of URL-safe base64")
    }
}

impl std::error::Error for InvalidTopicId {}

/// A topic and one of its partitions; shown as `topic-partition`, as the directory is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition in it.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Names `partition` of `topic`.
    pub fn new(topic: impl Into<String>, partition: PartitionId) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A partition of one particular topic, however often the topic's name was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicId,
    /// The partition in it.
    pub partition: PartitionId,
}

/// A name and a value carried beside a record's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name; a record may carry one name several times.
    pub key: String,
    /// The value, or null.
    pub value: Option<Bytes>,
}

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What the record is about; chooses the partition, and is what log compaction keeps one record of.
    pub key: Option<Bytes>,
    /// The payload. Null marks the key as deleted (a tombstone) in a compacted topic.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<Header>,
    /// Event time; the clock's time of the append where absent.
    pub timestamp: Option<Timestamp>,
}
